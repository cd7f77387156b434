//! Opens a listening socket at an address of the configuration.
//!
//! Waits a moment for an address that is in use, since the process that had it may just have died;
//! does not wait for anything else. The socket is ready to be given to a worker: options set, not
//! blocking, closed on exec.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::Error;
use super::options::{self, Initial};
use crate::config::Listener;

/// The longest wait for an address that is in use. The kernel frees a listener of a process that used
/// io_uring some 100 ms after its death, so a restart may come too early.
const IN_USE_PATIENCE: Duration = Duration::from_millis(300);

/// How often it is tried meanwhile.
const IN_USE_STEP: Duration = Duration::from_millis(10);

/// The options that come before bind(2), for remedies.
pub(super) const MULTIPATH: &str = "IPPROTO_MPTCP";
pub(super) const INTERFACE: &str = "SO_BINDTODEVICE";

/// Opens, binds and listens. Answers also what the socket had before its options.
pub fn bind(address: SocketAddr, listener: &Listener) -> Result<(OwnedFd, Initial), Error> {
    bind_patiently(address, listener, thread::sleep)
}

/// `bind`, with the wait between two attempts given by the caller.
fn bind_patiently(
    address: SocketAddr,
    listener: &Listener,
    mut wait: impl FnMut(Duration),
) -> Result<(OwnedFd, Initial), Error> {
    let mut waited = Duration::ZERO;
    loop {
        match attempt(address, listener) {
            Err(error) if is_in_use(&error) && waited < IN_USE_PATIENCE => {
                wait(IN_USE_STEP);
                waited += IN_USE_STEP;
            }
            result => return result.map(|(socket, initial)| (socket.into(), initial)),
        }
    }
}

fn attempt(address: SocketAddr, listener: &Listener) -> Result<(Socket, Initial), Error> {
    let refused = |source| refusal(address, listener, source);
    let socket = open(address, listener)?;
    socket.set_nonblocking(true).map_err(refused)?;
    // Our own old connections in TIME_WAIT do not keep the address; another listener still does.
    socket.set_reuse_address(true).map_err(refused)?;
    set_fixed(&socket, address, listener)?;
    let mut initial = Initial::of(&socket);
    options::apply(&socket, &initial, listener)?;
    options::apply_congestion(&socket, &initial, listener)?;
    socket.bind(&SockAddr::from(address)).map_err(refused)?;
    let backlog = i32::try_from(listener.backlog).unwrap_or(i32::MAX);
    socket.listen(backlog).map_err(refused)?;
    if listener.tcp.fast_open.is_none() {
        initial.listens(&socket);
    }
    Ok((socket, initial))
}

/// socket2 opens it closed on exec.
fn open(address: SocketAddr, listener: &Listener) -> Result<Socket, Error> {
    let protocol = match listener.tcp.multipath {
        true => Protocol::MPTCP,
        false => Protocol::TCP,
    };
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(protocol));
    socket.map_err(|source| {
        let is_of_protocol = matches!(
            source.raw_os_error(),
            Some(nix::libc::EPROTONOSUPPORT | nix::libc::ENOPROTOOPT)
        );
        match listener.tcp.multipath && is_of_protocol {
            true => fixed_refused(listener, "tcp.multipath", MULTIPATH, true, source),
            false => refusal(address, listener, source),
        }
    })
}

/// What has to be said before bind(2).
fn set_fixed(socket: &Socket, address: SocketAddr, listener: &Listener) -> Result<(), Error> {
    let tcp = &listener.tcp;
    if let Some(interface) = &tcp.interface {
        let set = socket.bind_device(Some(interface.as_bytes()));
        set.map_err(|source| {
            let value = format!("{interface:?}");
            fixed_refused(listener, "tcp.interface", INTERFACE, value, source)
        })?;
    }
    let on = |key, option, set: io::Result<()>| {
        set.map_err(|source| fixed_refused(listener, key, option, 1, source))
    };
    if tcp.freebind && address.is_ipv6() {
        on(
            "tcp.freebind",
            "IPV6_FREEBIND",
            socket.set_freebind_v6(true),
        )?;
    } else if tcp.freebind {
        on("tcp.freebind", "IP_FREEBIND", socket.set_freebind_v4(true))?;
    }
    if tcp.reuse_port {
        on(
            "tcp.reuse_port",
            "SO_REUSEPORT",
            socket.set_reuse_port(true),
        )?;
    }
    if tcp.v6only && address.is_ipv6() {
        on("tcp.v6only", "IPV6_V6ONLY", socket.set_only_v6(true))?;
    } else if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        // [::] means everybody, whatever net.ipv6.bindv6only says.
        let set = socket.set_only_v6(false);
        set.map_err(|source| refusal(address, listener, source))?;
    }
    Ok(())
}

fn fixed_refused(
    listener: &Listener,
    key: &'static str,
    option: &'static str,
    value: impl ToString,
    source: io::Error,
) -> Error {
    Error::Option {
        listener: listener.name.clone(),
        key,
        option,
        value: value.to_string(),
        is_multipath: listener.tcp.multipath && option != MULTIPATH,
        source,
    }
}

/// In a sandbox without a network every socket is refused; where IPv6 is compiled out or off, that alone;
/// where it was switched off by sysctl, ::1 is gone from the loopback interface.
fn refusal(address: SocketAddr, listener: &Listener, source: io::Error) -> Error {
    let loopback_is_gone = source.kind() == io::ErrorKind::AddrNotAvailable
        && address.ip() == IpAddr::V6(Ipv6Addr::LOCALHOST);
    let no_family = source.raw_os_error() == Some(nix::libc::EAFNOSUPPORT);
    let listener = listener.name.clone();
    if no_family && is_without_network() {
        return Error::NoNetwork {
            listener,
            address,
            source,
        };
    }
    if loopback_is_gone || (no_family && address.is_ipv6()) {
        return Error::NoIpv6 {
            listener,
            address,
            source,
        };
    }
    Error::Bind {
        listener,
        address,
        source,
    }
}

/// A kernel without IPv4 is not to be met; a service that is refused both families is.
fn is_without_network() -> bool {
    let refused = |domain| {
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP));
        socket.is_err_and(|error| error.raw_os_error() == Some(nix::libc::EAFNOSUPPORT))
    };
    refused(Domain::IPV4) && refused(Domain::IPV6)
}

fn is_in_use(error: &Error) -> bool {
    matches!(error, Error::Bind { source, .. } if source.kind() == io::ErrorKind::AddrInUse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
    use socket2::SockRef;

    use crate::listener::testing::listener;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn port_of(socket: &OwnedFd) -> u16 {
        let bound = SockRef::from(socket).local_addr().expect("bound");
        bound.as_socket().expect("an internet address").port()
    }

    #[test]
    fn a_bound_socket_listens_without_blocking_and_is_closed_on_exec() {
        let (socket, _) = bind(address("127.0.0.1:0"), &listener("echo", &[])).expect("bound");
        assert!(SockRef::from(&socket).is_listener().expect("read"));
        let status = fcntl(socket.as_fd(), FcntlArg::F_GETFL).expect("read");
        assert!(OFlag::from_bits_truncate(status).contains(OFlag::O_NONBLOCK));
        let flags = fcntl(socket.as_fd(), FcntlArg::F_GETFD).expect("read");
        assert!(FdFlag::from_bits_truncate(flags).contains(FdFlag::FD_CLOEXEC));
    }

    #[test]
    fn every_address_includes_those_of_ipv4() {
        let (socket, _) = bind(address("[::]:0"), &listener("echo", &[])).expect("bound");
        TcpStream::connect(("127.0.0.1", port_of(&socket))).expect("IPv4");
        TcpStream::connect(("::1", port_of(&socket))).expect("IPv6");
    }

    #[test]
    fn an_address_that_is_freed_while_we_wait_is_taken() {
        let holder = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let wanted = holder.local_addr().expect("bound");
        let mut holder = Some(holder);
        let free_it = |_| drop(holder.take());
        bind_patiently(wanted, &listener("echo", &[]), free_it).expect("bound in the end");
    }

    #[test]
    fn an_address_that_stays_in_use_is_refused_after_the_patience() {
        let holder = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let wanted = holder.local_addr().expect("bound");
        let mut waited = Duration::ZERO;
        let error = bind_patiently(wanted, &listener("echo", &[]), |step| waited += step);
        let error = error.expect_err("in use").to_string();
        assert_eq!(waited, IN_USE_PATIENCE);
        let remedy = format!("ss -ltnp 'sport = :{}')", wanted.port());
        assert!(error.ends_with(&remedy), "{error}");
    }

    #[test]
    fn only_an_address_in_use_is_waited_for() {
        // 192.0.2.0/24 is for documentation (RFC 5737): no host has it.
        let never = |_| panic!("waited");
        let error = bind_patiently(address("192.0.2.1:0"), &listener("echo", &[]), never);
        let error = error.expect_err("not ours").to_string();
        assert!(error.contains("not on this host"), "{error}");
    }

    #[test]
    fn a_host_without_ipv6_is_told_apart() {
        let none = |number| io::Error::from_raw_os_error(number);
        let listener = listener("echo", &[]);
        let is_none = |at: &str, number| {
            let error = refusal(address(at), &listener, none(number));
            matches!(error, Error::NoIpv6 { .. })
        };
        assert!(is_none("[::1]:8080", nix::libc::EAFNOSUPPORT));
        assert!(is_none("[::1]:8080", nix::libc::EADDRNOTAVAIL));
        assert!(!is_none("[2001:db8::1]:8080", nix::libc::EADDRNOTAVAIL));
        assert!(!is_none("127.0.0.1:8080", nix::libc::EAFNOSUPPORT));
    }
}
