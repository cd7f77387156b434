//! What the kernel says of a socket that was accepted, or of the listening one where that is what counts.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};

use super::*;
use crate::config::{Keepalive, Tcp};
use crate::listener::testing::listener;

const ADDRESSES: [&str; 2] = ["127.0.0.1:0", "[::1]:0"];

/// Everything, as at the start.
fn apply(socket: impl AsFd, initial: &Initial, options: &Listener) -> Result<(), Error> {
    super::apply(&socket, initial, options)?;
    apply_congestion(&socket, initial, options)
}

/// A listening socket with these options, and what it had before.
fn bound(address: &str, options: &Listener) -> (TcpListener, Initial) {
    let socket = TcpListener::bind(address).expect("a free port");
    let initial = Initial::of(&socket);
    apply(&socket, &initial, options).expect("options");
    (socket, initial)
}

/// A connection that it accepts, and its peer.
fn accepted(socket: &TcpListener) -> (TcpStream, TcpStream) {
    let peer = TcpStream::connect(socket.local_addr().expect("bound")).expect("connect");
    (socket.accept().expect("accept").0, peer)
}

fn read(socket: impl AsFd, number: &Number) -> c_int {
    sys::socket_option(socket.as_fd(), number.level, number.option).expect(number.name)
}

fn congestion(socket: impl AsFd) -> String {
    let name = SockRef::from(&socket).tcp_congestion().expect("read");
    String::from_utf8_lossy(until_zero(&name)).into_owned()
}

/// A listener of which nothing is set but what always is.
fn plain() -> Listener {
    let mut options = listener("echo", &[]);
    options.tcp.nodelay = false;
    options.tcp.notsent_lowat = None;
    options.tcp.user_timeout = None;
    options
}

fn all_set() -> Listener {
    let plain = plain();
    let tcp = Tcp {
        nodelay: true,
        keepalive: Some(Keepalive {
            idle: Duration::from_secs(61),
            interval: Duration::from_secs(11),
            count: 5,
        }),
        notsent_lowat: Some(70_000),
        user_timeout: Some(Duration::from_millis(30_001)),
        receive_buffer: Some(50_000),
        send_buffer: Some(60_000),
        congestion: Some("reno".to_owned()),
        dscp: Some(46),
        max_segment: Some(1000),
        ..plain.tcp.clone()
    };
    Listener { tcp, ..plain }
}

/// Each number that a connection inherits, as it is.
fn numbers(socket: impl AsFd) -> Vec<(&'static str, c_int)> {
    let inherited = [
        &NODELAY,
        &KEEPALIVE,
        &KEEPALIVE_IDLE,
        &KEEPALIVE_INTERVAL,
        &KEEPALIVE_COUNT,
        &NOTSENT_LOWAT,
        &USER_TIMEOUT,
        &TOS,
    ];
    let value = |number: &&Number| (number.name, read(&socket, number));
    inherited.iter().map(value).collect()
}

fn locks(socket: impl AsFd) -> c_int {
    sys::socket_option(socket.as_fd(), SOL_SOCKET, BUFFER_LOCKS).expect("read")
}

#[test]
fn an_accepted_connection_inherits_what_was_configured() {
    for address in ADDRESSES {
        let (socket, _) = bound(address, &all_set());
        let (connection, _peer) = accepted(&socket);
        let expected = [
            ("TCP_NODELAY", 1),
            ("SO_KEEPALIVE", 1),
            ("TCP_KEEPIDLE", 61),
            ("TCP_KEEPINTVL", 11),
            ("TCP_KEEPCNT", 5),
            ("TCP_NOTSENT_LOWAT", 70_000),
            ("TCP_USER_TIMEOUT", 30_001),
            ("IP_TOS", 46 << 2),
        ];
        assert_eq!(numbers(&connection), expected, "{address}");
        assert_eq!(read(&connection, &RECEIVE_BUFFER), 100_000);
        assert_eq!(read(&connection, &SEND_BUFFER), 120_000);
        assert_eq!(locks(&connection), SEND_LOCK | RECEIVE_LOCK);
        assert_eq!(congestion(&connection), "reno");
        // Less what the options of a segment take.
        let segment = read(&connection, &MAX_SEGMENT);
        assert!((900..=1000).contains(&segment), "{address}: {segment}");
        if connection.local_addr().expect("bound").is_ipv6() {
            assert_eq!(read(&connection, &TCLASS), 46 << 2);
        }
        assert_eq!(read(&connection, &URGENT_INLINE), 1);
    }
}

#[test]
fn a_dual_stack_socket_marks_the_packets_of_both_families() {
    let (socket, _) = bound("[::]:0", &all_set());
    let port = socket.local_addr().expect("bound").port();
    for (host, class) in [("127.0.0.1", &TOS), ("::1", &TCLASS)] {
        let _peer = TcpStream::connect((host, port)).expect("connect");
        let (connection, _) = socket.accept().expect("accept");
        assert_eq!(read(&connection, class), 46 << 2, "{host}");
    }
}

#[test]
fn what_is_not_set_is_what_the_socket_had() {
    for address in ADDRESSES {
        let untouched = TcpListener::bind(address).expect("a free port");
        let (expected, _peer) = accepted(&untouched);
        let (socket, _) = bound(address, &plain());
        let (connection, _peer) = accepted(&socket);
        assert_eq!(numbers(&connection), numbers(&expected));
        assert_eq!(locks(&connection), 0, "fitted to the path");
        assert_eq!(congestion(&connection), congestion(&expected));
        assert_eq!(read(&connection, &URGENT_INLINE), 1);
    }
}

#[test]
fn options_are_changed_and_taken_back() {
    for address in ADDRESSES {
        let untouched = TcpListener::bind(address).expect("a free port");
        let (socket, initial) = bound(address, &all_set());
        let mut other = all_set();
        other.tcp.dscp = Some(8);
        other.tcp.receive_buffer = Some(30_000);
        other.tcp.max_segment = Some(UNSET_MAX_SEGMENT.try_into().expect("small"));
        apply(&socket, &initial, &other).expect("options");
        let (connection, _peer) = accepted(&socket);
        assert_eq!(read(&connection, &TOS), 8 << 2);
        assert_eq!(read(&connection, &RECEIVE_BUFFER), 60_000);
        assert!(read(&connection, &MAX_SEGMENT) <= UNSET_MAX_SEGMENT);

        apply(&socket, &initial, &plain()).expect("options");
        for number in REMEMBERED.into_iter().filter(|n| n.name != TCLASS.name) {
            let expected = read(&untouched, number);
            assert_eq!(read(&socket, number), expected, "{}", number.name);
        }
        assert_eq!(locks(&socket), 0);
        assert_eq!(congestion(&socket), congestion(&untouched));
        let (connection, _peer) = accepted(&socket);
        assert_eq!(locks(&connection), 0);
        let segment = read(&connection, &MAX_SEGMENT);
        assert!(segment > 1000, "as large as the path takes: {segment}");
        if connection.local_addr().expect("bound").is_ipv6() {
            assert_eq!(read(&connection, &TCLASS), 0);
        }
    }
}

#[test]
fn what_a_socket_unit_has_set_comes_back() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let set = |number: &Number, value| {
        let set = sys::set_socket_option(socket.as_fd(), number.level, number.option, value);
        set.expect(number.name);
    };
    set(&KEEPALIVE, 1);
    set(&KEEPALIVE_IDLE, 77);
    set(&TOS, 0x10);
    set(&SEND_BUFFER, 40_000);
    set(&DEFER_ACCEPT, 3);
    let initial = Initial::of(&socket);
    for options in [all_set(), plain()] {
        apply(&socket, &initial, &options).expect("options");
    }
    assert_eq!(read(&socket, &KEEPALIVE), 1);
    assert_eq!(read(&socket, &KEEPALIVE_IDLE), 77);
    assert_eq!(read(&socket, &TOS), 0x10);
    assert_eq!(read(&socket, &SEND_BUFFER), 80_000);
    assert_eq!(read(&socket, &DEFER_ACCEPT), 3);
    assert_eq!(locks(&socket), SEND_LOCK);
}

#[test]
fn a_peer_that_sends_nothing_is_not_accepted_while_deferred() {
    for address in ADDRESSES {
        let mut options = plain();
        options.tcp.defer_accept = Some(Duration::from_secs(60));
        let (socket, initial) = bound(address, &options);
        assert!(read(&socket, &DEFER_ACCEPT) >= 60);
        socket.set_nonblocking(true).expect("non-blocking");
        let address = socket.local_addr().expect("bound");
        let silent = TcpStream::connect(address).expect("connect");
        let mut speaking = TcpStream::connect(address).expect("connect");
        speaking.write_all(b"hello").expect("write");
        // On loopback it is there when the write is over; the one before it would be first.
        let (connection, peer) = socket.accept().expect("the one that speaks");
        assert_eq!(peer, speaking.local_addr().expect("bound"));
        drop(connection);
        let none = socket.accept().expect_err("the other waits");
        assert_eq!(none.kind(), io::ErrorKind::WouldBlock);
        drop(silent);

        options.tcp.defer_accept = None;
        apply(&socket, &initial, &options).expect("options");
        assert_eq!(read(&socket, &DEFER_ACCEPT), 0);
        let _silent = TcpStream::connect(address).expect("connect");
        socket.accept().expect("at once");
    }
}

#[test]
fn fast_open_is_as_the_host_allows_it() {
    let sysctl = fs::read_to_string("/proc/sys/net/ipv4/tcp_fastopen").expect("read");
    let sysctl: u32 = sysctl.trim().parse().expect("a number");
    let is_good = sysctl & 0x2 != 0 && sysctl & 0x200 == 0;
    for address in ADDRESSES {
        let mut options = plain();
        options.tcp.fast_open = Some(16);
        let socket = TcpListener::bind(address).expect("a free port");
        let initial = Initial::of(&socket);
        match apply(&socket, &initial, &options) {
            Ok(()) => {
                assert!(is_good);
                assert_eq!(read(&socket, &FAST_OPEN), 16);
            }
            Err(error) => {
                assert!(!is_good, "{error}");
                let line = error.to_string();
                let begin = "listener \"echo\": tcp.fast_open: this host ";
                assert!(line.starts_with(begin), "{line}");
                // The kernel takes the option all the same.
                let (level, option) = (FAST_OPEN.level, FAST_OPEN.option);
                sys::set_socket_option(socket.as_fd(), level, option, 16).expect("set");
            }
        }
        apply(&socket, &initial, &plain()).expect("options");
        assert_eq!(
            read(&socket, &FAST_OPEN),
            initial.get(&FAST_OPEN).expect("read")
        );
    }
}

#[test]
fn a_buffer_that_the_kernel_does_not_give_is_refused() {
    for (name, key) in [("rmem_max", "receive"), ("wmem_max", "send")] {
        let max = fs::read_to_string(format!("/proc/sys/net/core/{name}")).expect("read");
        let max: u32 = max.trim().parse().expect("a number");
        let mut options = plain();
        match key {
            "receive" => options.tcp.receive_buffer = Some(max + 1),
            _ => options.tcp.send_buffer = Some(max + 1),
        }
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let error = apply(&socket, &Initial::of(&socket), &options).expect_err("too much");
        let more = max + 1;
        assert_eq!(
            error.to_string(),
            format!(
                "listener \"echo\": tcp.{key}_buffer: the kernel gives {max} bytes instead of {more} (raise sysctl net.core.{name} to {more}, or lower the key)"
            )
        );
    }
}

#[test]
fn a_refused_option_is_named_with_its_key_and_remedy() {
    let mut options = plain();
    options.tcp.congestion = Some("nosuch".to_owned());
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let error = apply(&socket, &Initial::of(&socket), &options).expect_err("no such");
    assert_eq!(
        error.to_string(),
        "listener \"echo\": tcp.congestion: cannot set TCP_CONGESTION to \"nosuch\": No such file or directory (this host has none of that name: see sysctl net.ipv4.tcp_available_congestion_control)"
    );
    let only_root = remedy(CONGESTION, &Errno::EPERM.into(), false);
    assert!(only_root.contains("tcp_allowed_congestion_control"));
}

#[test]
fn multipath_takes_the_defaults_and_refuses_by_name_what_it_does_not_have() {
    for (domain, classes) in [(Domain::IPV4, true), (Domain::IPV6, false)] {
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(Protocol::MPTCP));
        let socket = socket.expect("multipath TCP");
        let initial = Initial::of(&socket);
        let set = |options: &Listener| apply(&socket, &initial, options);
        set(&listener("echo", &[])).expect("the defaults");
        set(&plain()).expect("nothing");

        let mut options = all_set();
        options.tcp.user_timeout = listener("echo", &[]).tcp.user_timeout;
        match set(&options) {
            Ok(()) => assert!(classes),
            Err(error) => {
                let line = error.to_string();
                assert!(!classes && line.contains("tcp.dscp: cannot set IPV6_TCLASS"));
                assert!(line.ends_with(
                    "(multipath TCP does not take it: leave the key out, or do without multipath)"
                ));
            }
        }
        set(&plain()).expect("taken back");
        options.tcp.user_timeout = Some(Duration::from_secs(7));
        if initial.get(&USER_TIMEOUT).is_none() {
            let line = set(&options).expect_err("no such timeout").to_string();
            assert!(
                line.contains("tcp.user_timeout: cannot set TCP_USER_TIMEOUT to 7000"),
                "{line}"
            );
        }
    }
}
