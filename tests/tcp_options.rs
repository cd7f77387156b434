//! `[listener.tcp]` from outside: what the kernel says of the daemon's own sockets.
//!
//! A test takes a copy of them by pidfd_getfd(2), so it runs as root.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::Output;

use libc::{IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, SOL_SOCKET, c_int};
use socket2::{Protocol, SockRef};

#[path = "support/kernel.rs"]
mod kernel;
mod support;

use support::{Daemon, connect, echo_exact};

const BOTH: &str = "[\"127.0.0.1:0\", \"[::1]:0\"]";

/// All that a reload can change, first and then.
const FIRST: &str = "nodelay = false\nkeepalive = { idle = \"61s\", interval = \"11s\", count = 5 }\n\
    notsent_lowat = \"70000B\"\nuser_timeout = \"31s\"\nreceive_buffer = \"50000B\"\nsend_buffer = \"60000B\"\n\
    defer_accept = \"7s\"\ncongestion = \"reno\"\ndscp = 46\nmax_segment = 1000\n";
const THEN: &str = "nodelay = true\nkeepalive = { idle = \"62s\", interval = \"12s\", count = 6 }\n\
    notsent_lowat = \"80000B\"\nuser_timeout = \"32s\"\nreceive_buffer = \"40000B\"\nsend_buffer = \"30000B\"\n\
    dscp = 8\nmax_segment = 1200\n";

/// What is read of a connection: name, level, option, and the value of the first and of the second.
const NUMBERS: &[(&str, c_int, c_int, c_int, c_int)] = &[
    ("nodelay", IPPROTO_TCP, libc::TCP_NODELAY, 0, 1),
    ("keepalive", SOL_SOCKET, libc::SO_KEEPALIVE, 1, 1),
    ("idle", IPPROTO_TCP, libc::TCP_KEEPIDLE, 61, 62),
    ("interval", IPPROTO_TCP, libc::TCP_KEEPINTVL, 11, 12),
    ("count", IPPROTO_TCP, libc::TCP_KEEPCNT, 5, 6),
    (
        "notsent_lowat",
        IPPROTO_TCP,
        libc::TCP_NOTSENT_LOWAT,
        70_000,
        80_000,
    ),
    (
        "user_timeout",
        IPPROTO_TCP,
        libc::TCP_USER_TIMEOUT,
        31_000,
        32_000,
    ),
    (
        "receive_buffer",
        SOL_SOCKET,
        libc::SO_RCVBUF,
        100_000,
        80_000,
    ),
    ("send_buffer", SOL_SOCKET, libc::SO_SNDBUF, 120_000, 60_000),
    ("dscp", IPPROTO_IP, libc::IP_TOS, 46 << 2, 8 << 2),
    ("urgent", SOL_SOCKET, libc::SO_OOBINLINE, 1, 1),
];

fn listener(address: &str, tcp: &str) -> String {
    format!(
        "workers = 1\n[[listener]]\nname = \"echo\"\naddress = {address}\n[listener.tcp]\n{tcp}"
    )
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The daemon's socket that is connected to this peer, once it has served it.
fn socket_of(daemon: &Daemon, peer: &TcpStream) -> OwnedFd {
    echo_exact(peer, b"are you there");
    let address = peer.local_addr().expect("an address");
    let is_its = |socket: &OwnedFd| {
        let other = SockRef::from(socket).peer_addr().ok();
        other.and_then(|other| other.as_socket()) == Some(address)
    };
    let mut all = kernel::sockets(daemon.pid()).into_iter();
    all.find(is_its).expect("the daemon has its other end")
}

/// The daemon's socket that listens there.
fn listening(daemon: &Daemon, address: SocketAddr) -> OwnedFd {
    let is_it = |socket: &OwnedFd| {
        let socket = SockRef::from(socket);
        let local = socket.local_addr().ok().and_then(|local| local.as_socket());
        local == Some(address) && socket.is_listener().is_ok_and(|listens| listens)
    };
    let mut all = kernel::sockets(daemon.pid()).into_iter();
    all.find(is_it).expect("it listens")
}

fn congestion(socket: &OwnedFd) -> String {
    let name = SockRef::from(socket).tcp_congestion().expect("read");
    let end = name.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&name[..end.unwrap_or(name.len())]).into_owned()
}

/// What is wrong with a connection that should have the first values, or the second ones.
fn assert_has(socket: &OwnedFd, is_first: bool) {
    for (name, level, option, first, then) in NUMBERS {
        let expected = if is_first { first } else { then };
        assert_eq!(kernel::option(socket, *level, *option), *expected, "{name}");
    }
    assert_segment(socket, if is_first { 1000 } else { 1200 });
    let class = if is_first { 46 << 2 } else { 8 << 2 };
    let local = SockRef::from(socket).local_addr().expect("bound");
    if local.is_ipv6() {
        let is = kernel::option(socket, IPPROTO_IPV6, libc::IPV6_TCLASS);
        assert_eq!(is, class, "dscp");
    }
}

/// A segment is less by the options that it carries.
fn assert_segment(socket: &OwnedFd, most: c_int) {
    let segment = kernel::option(socket, IPPROTO_TCP, libc::TCP_MAXSEG);
    assert!((most - 100..=most).contains(&segment), "{segment}");
}

fn addresses(daemon: &Daemon) -> Vec<SocketAddr> {
    daemon.addresses().into_iter().map(|(_, at)| at).collect()
}

/// Refused, and everything as it was.
fn assert_refused(daemon: &Daemon, config: &str, says: &str) {
    daemon.write_config(config);
    let output = daemon.reload();
    let errors = stderr(&output);
    assert!(!output.status.success(), "adopted: {config}");
    assert!(errors.contains(says), "{errors:?} lacks {says:?}");
}

fn assert_not_started(config: &str, says: &str) {
    let builder = Daemon::builder().config(config).without_ready();
    let mut daemon = builder.start();
    assert_eq!(daemon.wait_exit().code(), Some(1));
    daemon.wait_line(says);
}

fn max_of(name: &str) -> u32 {
    let text = fs::read_to_string(format!("/proc/sys/net/core/{name}")).expect("read");
    text.trim().parse().expect("a number")
}

/// What a host does not have, and what is said of it.
fn refused_values() -> Vec<(String, String)> {
    let more = max_of("rmem_max") + 1;
    vec![
        (
            "congestion = \"nosuch\"\n".to_owned(),
            "listener \"echo\": tcp.congestion: cannot set TCP_CONGESTION to \"nosuch\": No such file or directory (".to_owned(),
        ),
        (
            format!("receive_buffer = \"{more}B\"\n"),
            format!("tcp.receive_buffer: the kernel gives {} bytes instead of {more} (raise sysctl net.core.rmem_max to {more}, or lower the key)", more - 1),
        ),
    ]
}

#[test]
fn connections_have_what_the_file_says_and_new_ones_what_it_says_now() {
    let daemon = Daemon::start(&listener(BOTH, FIRST));
    let untouched = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let kernel_default = congestion(&untouched.into());
    let addresses = addresses(&daemon);
    assert_eq!(addresses.len(), 2);
    let mut kept = Vec::new();
    for &address in &addresses {
        let peer = connect(address);
        let socket = socket_of(&daemon, &peer);
        assert_has(&socket, true);
        assert_eq!(congestion(&socket), "reno");
        let listening = listening(&daemon, address);
        let deferred = kernel::option(&listening, IPPROTO_TCP, libc::TCP_DEFER_ACCEPT);
        assert!(deferred >= 7, "{deferred}");
        kept.push((peer, socket));
    }
    daemon.adopt(&listener(BOTH, THEN));
    for (peer, socket) in &kept {
        echo_exact(peer, b"still here");
        assert_has(socket, true);
        assert_eq!(congestion(socket), "reno");
    }
    for &address in &addresses {
        let peer = connect(address);
        let socket = socket_of(&daemon, &peer);
        assert_has(&socket, false);
        assert_eq!(congestion(&socket), kernel_default);
        let listening = listening(&daemon, address);
        let deferred = kernel::option(&listening, IPPROTO_TCP, libc::TCP_DEFER_ACCEPT);
        assert_eq!(deferred, 0);
    }
    // And nothing at all: the buffers are fitted to the path again.
    daemon.adopt(&listener(BOTH, ""));
    let peer = connect(addresses[0]);
    let socket = socket_of(&daemon, &peer);
    assert_eq!(kernel::option(&socket, SOL_SOCKET, 72), 0, "SO_BUF_LOCK");
    assert_eq!(kernel::option(&socket, IPPROTO_IP, libc::IP_TOS), 0);
    assert!(kernel::option(&socket, IPPROTO_TCP, libc::TCP_MAXSEG) > 1200);
}

#[test]
fn what_the_host_does_not_have_is_refused_at_the_start() {
    for (value, says) in refused_values() {
        assert_not_started(&listener(BOTH, &value), &says);
    }
    assert_not_started(
        &listener(BOTH, "interface = \"nosuch0\"\n"),
        "listener \"echo\": tcp.interface: cannot set SO_BINDTODEVICE to \"nosuch0\": No such device (there is no such interface: see ip link)",
    );
}

#[test]
fn a_reload_that_sets_what_the_host_does_not_have_changes_no_option() {
    let daemon = Daemon::start(&listener(BOTH, FIRST));
    let mut wrong = refused_values();
    for (value, says) in &mut wrong {
        // The others are set before it is refused, on the first socket or on both.
        let key = value.split(' ').next().expect("a key");
        let others = THEN.lines().filter(|line| !line.starts_with(key));
        *value += &others.map(|line| format!("{line}\n")).collect::<String>();
        assert_refused(&daemon, &listener(BOTH, value), says);
        for address in addresses(&daemon) {
            let peer = connect(address);
            let socket = socket_of(&daemon, &peer);
            assert_has(&socket, true);
            assert_eq!(congestion(&socket), "reno");
        }
    }
    // A second listener is refused after the first has taken everything.
    let second = format!(
        "{}[[listener]]\nname = \"second\"\naddress = \"127.0.0.2:0\"\n[listener.tcp]\ninterface = \"nosuch0\"\n",
        listener(BOTH, THEN)
    );
    assert_refused(&daemon, &second, "listener \"second\": tcp.interface: ");
    let peer = connect(daemon.addr());
    assert_has(&socket_of(&daemon, &peer), true);
}

#[test]
fn what_is_fixed_at_bind_is_in_force_and_a_reload_that_changes_it_is_refused_by_name() {
    let fixed = "interface = \"lo\"\nfreebind = true\nv6only = true\nreuse_port = true\n";
    // 192.0.2.0/24 is for documentation: no host has it.
    let address = "[\"[::]:0\", \"127.0.0.1:0\", \"192.0.2.7:0\"]";
    let daemon = Daemon::start(&listener(address, fixed));
    for at in addresses(&daemon) {
        let socket = listening(&daemon, at);
        assert_eq!(kernel::option(&socket, SOL_SOCKET, libc::SO_REUSEPORT), 1);
        let device = SockRef::from(&socket).device().expect("read");
        assert_eq!(device.as_deref(), Some(b"lo".as_slice()));
        if at.is_ipv6() {
            assert_eq!(kernel::option(&socket, IPPROTO_IPV6, libc::IPV6_V6ONLY), 1);
            let v4 = SocketAddr::from(([127, 0, 0, 1], at.port()));
            TcpStream::connect(v4).expect_err("IPv6 alone");
        }
    }
    let peers = [daemon.addr(), daemon.addr_v4()].map(connect);
    for peer in &peers {
        echo_exact(peer, b"hello");
    }
    let all = "listener \"echo\": tcp.interface, tcp.freebind, tcp.v6only, tcp.reuse_port, tcp.multipath: \
               changed, which need a restart (restart echod, or change it back)";
    assert_refused(&daemon, &listener(address, "multipath = true\n"), all);
    let one = fixed.replace("freebind = true\n", "");
    let says = "listener \"echo\": tcp.freebind: changed, which needs a restart (restart echod, or change it back)";
    assert_refused(&daemon, &listener(address, &one), says);
    daemon.wait_line("reload refused");
    for peer in &peers {
        echo_exact(peer, b"as before");
    }
    // A socket that is bound now has what is said now, and what else there is may change.
    let moved = listener("\"127.0.0.3:0\"", "nodelay = false\n");
    daemon.adopt(&moved);
    let at = addresses(&daemon).pop().expect("the new one");
    let socket = listening(&daemon, at);
    assert_eq!(kernel::option(&socket, SOL_SOCKET, libc::SO_REUSEPORT), 0);
}

#[test]
fn two_daemons_share_a_port_when_both_say_so() {
    let first = Daemon::start(&listener("\"127.0.0.1:0\"", "reuse_port = true\n"));
    let address = format!("{:?}", first.addr().to_string());
    let second = Daemon::start(&listener(&address, "reuse_port = true\n"));
    assert_eq!(first.addr(), second.addr());
    assert_not_started(&listener(&address, ""), "Address already in use");
}

#[test]
fn multipath_serves_peers_with_one_path_as_well() {
    let daemon = Daemon::start(&listener(BOTH, "multipath = true\ndefer_accept = \"5s\"\n"));
    for address in addresses(&daemon) {
        let socket = listening(&daemon, address);
        let protocol = SockRef::from(&socket).protocol().expect("read");
        assert_eq!(protocol, Some(Protocol::MPTCP));
        echo_exact(&connect(address), &support::patterned(1, 0, 100_000));
        let many = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::STREAM,
            Some(Protocol::MPTCP),
        );
        let many = many.expect("multipath TCP");
        many.connect(&address.into()).expect("connect");
        echo_exact(&many.into(), &support::patterned(2, 0, 100_000));
    }
    assert_refused(
        &daemon,
        &listener(BOTH, "multipath = true\nuser_timeout = \"7s\"\n"),
        "tcp.user_timeout: cannot set TCP_USER_TIMEOUT to 7000: Protocol not available (multipath TCP does not take it: ",
    );
}

#[test]
fn a_handed_socket_gets_its_units_options_back_and_nothing_that_is_fixed() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = socket.local_addr().expect("bound");
    let unit = SockRef::from(&socket);
    unit.set_tos_v4(0x10).expect("set");
    unit.set_recv_buffer_size(45_000).expect("set");
    unit.set_keepalive(true).expect("set");
    let at = format!("{:?}", address.to_string());
    let fixed = "reuse_port = true\ninterface = \"lo\"\n";
    let config = listener(&at, &format!("{fixed}{FIRST}"));
    let daemon = Daemon::builder()
        .config(&config)
        .hand_over("echo", &socket)
        .start();
    for note in [
        "tcp.interface = \"lo\" is unused, the socket unit decides it (set BindToDevice= with: systemctl edit echod.socket)",
        "tcp.reuse_port = true is unused, the socket unit decides it (set ReusePort= with: systemctl edit echod.socket)",
    ] {
        daemon.wait_line(note);
    }
    assert!(!unit.reuse_port().expect("read"));
    assert_eq!(unit.device().expect("read"), None);
    assert_has(&socket_of(&daemon, &connect(address)), true);
    // What is not ours may be changed and has no effect still.
    daemon.adopt(&listener(&at, "freebind = true\n"));
    daemon.wait_line("tcp.freebind = true is unused");
    assert!(!unit.freebind_v4().expect("read"));
    let peer = connect(address);
    let accepted = socket_of(&daemon, &peer);
    assert_eq!(kernel::option(&accepted, IPPROTO_IP, libc::IP_TOS), 0x10);
    assert_eq!(
        kernel::option(&accepted, SOL_SOCKET, libc::SO_RCVBUF),
        90_000
    );
    assert_eq!(kernel::option(&accepted, SOL_SOCKET, libc::SO_KEEPALIVE), 1);
}

#[test]
fn a_handed_socket_of_multipath_is_served() {
    let socket = socket2::Socket::new(
        socket2::Domain::IPV4,
        socket2::Type::STREAM,
        Some(Protocol::MPTCP),
    );
    let socket = socket.expect("multipath TCP");
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    socket.bind(&any.into()).expect("bind");
    socket.listen(16).expect("listen");
    let socket = TcpListener::from(socket);
    let address = socket.local_addr().expect("bound");
    let at = format!("{:?}", address.to_string());
    let _daemon = Daemon::builder()
        .config(&listener(&at, ""))
        .hand_over("echo", &socket)
        .start();
    echo_exact(&connect(address), b"hello");
}

#[test]
fn a_host_without_multipath_is_told_apart() {
    let off = "echo 0 >/proc/sys/net/mptcp/enabled && exec \"$@\"";
    let builder = Daemon::builder()
        .config(&listener("\"127.0.0.1:0\"", "multipath = true\n"))
        .wrapper(["unshare", "--net", "sh", "-c", off, "sh"]);
    let mut daemon = builder.without_ready().start();
    assert_eq!(daemon.wait_exit().code(), Some(1));
    daemon.wait_line(
        "listener \"echo\": tcp.multipath: cannot set IPPROTO_MPTCP to true: Protocol not available (this host has no multipath TCP: see sysctl net.mptcp.enabled, or set the key to false)",
    );
}

/// In a network of its own, whose sysctls are for us to set; peers do not reach it.
fn in_a_network_with(fast_open: u32) -> Vec<String> {
    let script = format!(
        "ip link set lo up && echo {fast_open} >/proc/sys/net/ipv4/tcp_fastopen && exec \"$@\""
    );
    let words = ["unshare", "--net", "sh", "-c", &script, "sh"];
    words.map(str::to_owned).to_vec()
}

fn started_with(fast_open: u32, handed: Option<&TcpListener>) -> support::Builder {
    let mut builder = Daemon::builder()
        .config(&listener("\"127.0.0.1:0\"", "fast_open = 20\n"))
        .wrapper(in_a_network_with(fast_open));
    if let Some(socket) = handed {
        builder = builder.hand_over("echo", socket);
    }
    builder
}

#[test]
fn fast_open_is_had_where_the_host_demands_a_cookie_and_refused_elsewhere() {
    let daemon = started_with(3, None).start();
    let socket = listening(&daemon, daemon.addr());
    assert_eq!(kernel::option(&socket, IPPROTO_TCP, libc::TCP_FASTOPEN), 20);
    daemon.adopt(&listener("\"127.0.0.1:0\"", ""));
    assert_eq!(kernel::option(&socket, IPPROTO_TCP, libc::TCP_FASTOPEN), 0);

    for (sysctl, says) in [
        (
            1,
            "tcp.fast_open: this host does not do it: sysctl net.ipv4.tcp_fastopen is 0x1, without 0x2",
        ),
        (
            0x203,
            "tcp.fast_open: this host takes data without a cookie",
        ),
    ] {
        let mut daemon = started_with(sysctl, None).without_ready().start();
        assert_eq!(daemon.wait_exit().code(), Some(1));
        daemon.wait_line(says);
    }
    // The sysctl is the network's that the daemon is in, and the socket is of this one.
    let socket = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let mut daemon = started_with(3, Some(&socket)).without_ready().start();
    assert_eq!(daemon.wait_exit().code(), Some(1));
    daemon.wait_line("tcp.fast_open: cannot see whether the socket's network demands a cookie");
}

#[test]
fn fast_open_is_refused_where_the_host_cannot_be_seen() {
    let hide = "mount -t tmpfs none /proc/sys && exec \"$@\"";
    let builder = Daemon::builder()
        .config(&listener("\"127.0.0.1:0\"", "fast_open = 20\n"))
        .wrapper(["unshare", "--mount", "sh", "-c", hide, "sh"]);
    let mut daemon = builder.without_ready().start();
    assert_eq!(daemon.wait_exit().code(), Some(1));
    daemon.wait_line(
        "tcp.fast_open: cannot see whether this host demands a cookie: /proc/sys/net/ipv4/tcp_fastopen: No such file or directory (set it to \"off\"; or",
    );
}

#[test]
fn a_silent_peer_is_not_seen_while_it_is_deferred() {
    let daemon = Daemon::start(&listener("\"127.0.0.1:0\"", "defer_accept = \"60s\"\n"));
    let silent = connect(daemon.addr());
    let count = || {
        let listens = |socket: &OwnedFd| SockRef::from(socket).is_listener().unwrap_or(false);
        let connected = |socket: &&OwnedFd| {
            let peer = SockRef::from(*socket).peer_addr();
            !listens(socket) && peer.is_ok_and(|peer| peer.as_socket().is_some())
        };
        let all = kernel::sockets(daemon.pid());
        all.iter().filter(connected).count()
    };
    // Who comes later and speaks is served meanwhile.
    let speaking = connect(daemon.addr());
    echo_exact(&speaking, b"hello");
    assert_eq!(count(), 1);
    echo_exact(&silent, b"now");
    assert_eq!(count(), 2);
}

/// Root may choose what the user that the daemon becomes may not; what is in force is no reason to refuse.
#[test]
fn a_congestion_control_of_roots_survives_a_reload() {
    let read = |name| {
        let path = format!("/proc/sys/net/ipv4/tcp_{name}_congestion_control");
        fs::read_to_string(path).expect("read")
    };
    let (available, allowed) = (read("available"), read("allowed"));
    let mut available = available.split_whitespace();
    let roots = available.find(|name| !allowed.split_whitespace().any(|a| a == *name));
    let Some(roots) = roots else {
        return;
    };
    let choose = |name: &str| listener("\"127.0.0.1:0\"", &format!("congestion = {name:?}\n"));
    let daemon = Daemon::start(&choose(roots));
    daemon.adopt(&choose(roots));
    // What is refused for another listener comes before the change that could not be taken back.
    let more = max_of("wmem_max") + 1;
    let second = format!(
        "{}[[listener]]\nname = \"second\"\naddress = \"127.0.0.2:0\"\n",
        choose("reno")
    );
    daemon.adopt(&second.replace("reno", roots));
    let too_much = format!("{second}[listener.tcp]\nsend_buffer = \"{more}B\"\n");
    assert_refused(&daemon, &too_much, "listener \"second\": tcp.send_buffer: ");
    let peer = connect(daemon.addr());
    assert_eq!(congestion(&socket_of(&daemon, &peer)), roots);
    daemon.adopt(&choose("reno"));
    assert_refused(
        &daemon,
        &choose(roots),
        "Operation not permitted (only root may choose it: add it to sysctl net.ipv4.tcp_allowed_congestion_control)",
    );
    let peer = connect(daemon.addr());
    assert_eq!(congestion(&socket_of(&daemon, &peer)), "reno");
}
