//! The TCP options of a listener, set once on its listening socket: what it accepts inherits them.
//!
//! So a connection costs no system call for its options, and none begins without them. A reload sets
//! them again on the same socket; connections that live keep what they began with.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use super::Error;
use crate::config::{Keepalive, Listener};

/// Sets each option of `listener.tcp` on its listening socket, to the value or back to the kernel's default.
pub fn apply(socket: impl AsFd, listener: &Listener) -> Result<(), Error> {
    let socket = SockRef::from(&socket);
    let tcp = &listener.tcp;
    let set = |option, result: io::Result<()>| {
        result.map_err(|source| Error::Option {
            listener: listener.name.clone(),
            option,
            source,
        })
    };

    set("TCP_NODELAY", socket.set_tcp_nodelay(tcp.nodelay))?;
    match tcp.keepalive {
        Some(keepalive) => set("SO_KEEPALIVE", socket.set_tcp_keepalive(&probes(keepalive)))?,
        None => set("SO_KEEPALIVE", socket.set_keepalive(false))?,
    }
    let user_timeout = tcp.user_timeout.map(at_least_a_millisecond);
    set(
        "TCP_USER_TIMEOUT",
        socket.set_tcp_user_timeout(user_timeout),
    )?;
    // An urgent byte would otherwise be taken out of the stream, and what comes back would lack it.
    set("SO_OOBINLINE", socket.set_out_of_band_inline(true))
}

fn probes(keepalive: Keepalive) -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(keepalive.idle)
        .with_interval(keepalive.interval)
        .with_retries(keepalive.count)
}

/// Zero means "the kernel's default", which is minutes: a shorter time than a millisecond must not become it.
fn at_least_a_millisecond(timeout: Duration) -> Duration {
    timeout.max(Duration::from_millis(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    use crate::listener::testing::listener;

    /// A connection accepted by a socket with these options.
    fn accepted(address: &str, options: &Listener) -> (TcpStream, TcpStream) {
        let socket = TcpListener::bind(address).expect("a free port");
        apply(&socket, options).expect("options");
        let peer = TcpStream::connect(socket.local_addr().expect("bound")).expect("connect");
        (socket.accept().expect("accept").0, peer)
    }

    #[test]
    fn an_accepted_connection_inherits_what_was_configured() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let mut options = listener("echo", &[address]);
            options.tcp.keepalive = Some(Keepalive {
                idle: Duration::from_secs(61),
                interval: Duration::from_secs(11),
                count: 5,
            });
            options.tcp.user_timeout = Some(Duration::from_millis(30_001));
            let (connection, _peer) = accepted(address, &options);
            let socket = SockRef::from(&connection);
            assert!(socket.tcp_nodelay().expect("read"));
            assert!(socket.keepalive().expect("read"));
            let idle = socket.tcp_keepalive_time().expect("read");
            assert_eq!(idle, Duration::from_secs(61));
            let interval = socket.tcp_keepalive_interval().expect("read");
            assert_eq!(interval, Duration::from_secs(11));
            assert_eq!(socket.tcp_keepalive_retries().expect("read"), 5);
            let timeout = socket.tcp_user_timeout().expect("read");
            assert_eq!(timeout, Some(Duration::from_millis(30_001)));
            assert!(socket.out_of_band_inline().expect("read"));
        }
    }

    #[test]
    fn what_is_off_is_the_kernels_default() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let mut options = listener("echo", &[address]);
            options.tcp.nodelay = false;
            options.tcp.user_timeout = None;
            let (connection, _peer) = accepted(address, &options);
            let socket = SockRef::from(&connection);
            assert!(!socket.tcp_nodelay().expect("read"));
            assert!(!socket.keepalive().expect("read"));
            assert_eq!(socket.tcp_user_timeout().expect("read"), None);
            assert!(socket.out_of_band_inline().expect("read"));
        }
    }

    #[test]
    fn an_option_can_be_taken_back() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut options = listener("echo", &[]);
        options.tcp.keepalive = Some(Keepalive {
            idle: Duration::from_secs(1),
            interval: Duration::from_secs(1),
            count: 1,
        });
        apply(&socket, &options).expect("options");
        options.tcp.keepalive = None;
        options.tcp.user_timeout = None;
        apply(&socket, &options).expect("options");
        assert!(!SockRef::from(&socket).keepalive().expect("read"));
        let timeout = SockRef::from(&socket).tcp_user_timeout().expect("read");
        assert_eq!(timeout, None);
    }

    #[test]
    fn a_refused_option_is_named() {
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let error = apply(&datagrams, &listener("echo", &[])).expect_err("not TCP");
        let line = error.to_string();
        assert!(
            line.starts_with("listener \"echo\": cannot set TCP_NODELAY: "),
            "{line}"
        );
    }
}
