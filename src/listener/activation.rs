//! Takes the listening sockets that a service manager handed over.
//!
//! Reads the environment and the descriptors, once, before anything else does. Gives out only what is
//! TCP and listens; whose each socket is, `assignment` says.

use std::env;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use listenfd::ListenFd;
use nix::libc;
use socket2::{Protocol, SockRef};

use super::Error;

/// What a descriptor without a name of its own is called, sd_listen_fds(3).
pub(super) const NAMELESS: &str = "unknown";

/// What was handed over, in the order of the descriptors; empty if nobody activates us.
#[derive(Debug, Default)]
pub struct Handed {
    /// Each of them listens, does not block and is closed on exec.
    pub sockets: Vec<HandedSocket>,
}

/// A listening TCP socket that the service manager opened.
#[derive(Debug)]
pub struct HandedSocket {
    /// Its `FileDescriptorName`, or "unknown".
    pub name: String,
    /// Ours, and the service manager's as well.
    pub fd: OwnedFd,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Takes what was handed over. Call it first of all and once: before threads, because it changes the
/// environment, and before anything is opened, because the descriptors are known by number alone.
pub fn take() -> Result<Handed, Error> {
    // listenfd knows no names, and they mean nothing once the other variables are gone.
    let names = env::var_os("LISTEN_FDNAMES").unwrap_or_default();
    let names = names.to_string_lossy();
    let mut names = names.split(':');
    let mut descriptors = ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..descriptors.len() {
        let name = names.next().filter(|name| !name.is_empty());
        let name = name.unwrap_or(NAMELESS).to_owned();
        let Ok(Some(socket)) = descriptors.take_tcp_listener(index) else {
            let kind = kind_of(&mut descriptors, index);
            return Err(Error::Kind { name, kind });
        };
        sockets.push(examine(name, socket)?);
    }
    Ok(Handed { sockets })
}

/// What a descriptor is that is no TCP socket, with its article.
fn kind_of(descriptors: &mut ListenFd, index: usize) -> &'static str {
    let kinds = [
        (libc::AF_INET, libc::SOCK_DGRAM, "a UDP socket"),
        (libc::AF_UNIX, libc::SOCK_STREAM, "a unix stream socket"),
        (libc::AF_UNIX, libc::SOCK_DGRAM, "a unix datagram socket"),
    ];
    for (family, kind, words) in kinds {
        if let Ok(Some(_)) = descriptors.take_custom::<OwnedFd>(index, family, kind, words) {
            return words;
        }
    }
    "neither a TCP, UDP nor unix socket"
}

/// Accepts a stream socket of the internet family only if it is TCP and listens, and makes it ready.
fn examine(name: String, socket: TcpListener) -> Result<HandedSocket, Error> {
    let failed = |doing| {
        let name = name.clone();
        move |source| Error::Handed {
            name,
            doing,
            source,
        }
    };
    let view = SockRef::from(&socket);
    let protocol = view.protocol().map_err(failed("read its protocol"))?;
    if !matches!(protocol, Some(Protocol::TCP | Protocol::MPTCP)) {
        let kind = "a stream socket of another protocol";
        return Err(Error::Kind { name, kind });
    }
    if !view.is_listener().map_err(failed("ask if it listens"))? {
        let connected = view.peer_addr().is_ok();
        return Err(match connected {
            true => Error::Connected { name },
            false => Error::NotListening { name },
        });
    }
    let address = socket.local_addr().map_err(failed("read its address"))?;
    socket
        .set_nonblocking(true)
        .map_err(failed("make it non-blocking"))?;
    Ok(HandedSocket {
        name,
        fd: socket.into(),
        address,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpStream, UdpSocket};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixListener;
    use std::process::{Command, Output};

    use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};

    /// Set in a process that is to take what it was handed and to print what came of it.
    const CHILD: &str = "ECHOD_TEST_TAKES_HANDED_SOCKETS";

    /// Runs this test program again as a service manager would, with `socket` as descriptors 3 and 4.
    fn hand_over(socket: impl Into<OwnedFd>, names: &str) -> Output {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "exec 3<&0 4<&0 </dev/null; export LISTEN_PID=$$; exec \"$@\"",
            "sh",
        ]);
        command.arg(env::current_exe().expect("this program"));
        let child = "listener::activation::tests::a_child_takes_what_it_was_handed";
        command.args(["--exact", child, "--nocapture"]);
        command
            .env(CHILD, "1")
            .env("LISTEN_FDS", "2")
            .env("LISTEN_FDNAMES", names);
        command.stdin(socket.into()).output().expect("run")
    }

    fn printed(output: &Output) -> String {
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[test]
    fn a_child_takes_what_it_was_handed() {
        if env::var_os(CHILD).is_none() {
            return;
        }
        match take() {
            Ok(handed) => {
                for socket in &handed.sockets {
                    let status = fcntl(socket.fd.as_fd(), FcntlArg::F_GETFL).expect("read");
                    assert!(OFlag::from_bits_truncate(status).contains(OFlag::O_NONBLOCK));
                    let flags = fcntl(socket.fd.as_fd(), FcntlArg::F_GETFD).expect("read");
                    assert!(FdFlag::from_bits_truncate(flags).contains(FdFlag::FD_CLOEXEC));
                    println!("took {} {}", socket.name, socket.address);
                }
                assert!(env::var_os("LISTEN_FDS").is_none());
            }
            Err(error) => println!("refused {error}"),
        }
    }

    #[test]
    fn listening_sockets_are_taken_with_their_names_by_index() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let socket = TcpListener::bind(address).expect("a free port");
            let bound = socket.local_addr().expect("bound");
            let output = hand_over(socket.try_clone().expect("clone"), ":echo");
            let text = printed(&output);
            assert!(text.contains(&format!("took unknown {bound}\n")), "{text}");
            assert!(text.contains(&format!("took echo {bound}\n")), "{text}");
        }
    }

    #[test]
    fn a_socket_of_a_unit_with_accept_yes_is_refused() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let peer = TcpStream::connect(socket.local_addr().expect("bound")).expect("connect");
        let text = printed(&hand_over(peer, "connection:connection"));
        assert!(text.contains("refused socket \"connection\""), "{text}");
        assert!(text.contains("set Accept=no"), "{text}");
    }

    #[test]
    fn what_is_not_tcp_is_refused_by_its_kind() {
        let directory = tempfile::tempdir().expect("a directory");
        let unix = UnixListener::bind(directory.path().join("s")).expect("bind");
        let text = printed(&hand_over(unix, "echo:echo"));
        assert!(text.contains("it is a unix stream socket"), "{text}");

        let udp = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let text = printed(&hand_over(udp, "echo:echo"));
        assert!(text.contains("it is a UDP socket"), "{text}");

        let file = tempfile::tempfile().expect("a file");
        let text = printed(&hand_over(file, "echo:echo"));
        assert!(text.contains("it is neither"), "{text}");
    }

    #[test]
    fn a_socket_that_does_not_listen_is_refused() {
        let socket = socket2::Socket::new(
            socket2::Domain::IPV4,
            socket2::Type::STREAM,
            Some(Protocol::TCP),
        );
        let text = printed(&hand_over(socket.expect("a socket"), "echo:echo"));
        assert!(text.contains("does not listen"), "{text}");
    }
}
