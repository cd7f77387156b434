//! Listening sockets that somebody else opened and handed over.
//!
//! Once by systemd's own tool, and else by a shell that does the same: descriptors from 3 on and the
//! variables of sd_listen_fds(3). The test keeps the sockets, as the service manager would.

mod support;

use std::env;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use socket2::SockRef;
use support::{
    Builder, Daemon, PATIENCE, connect, echo_exact, expect_end, expect_exact, patterned,
};

const TOOL: &str = "systemd-socket-activate";

fn listening() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = socket.local_addr().expect("bound");
    (socket, address)
}

/// A listener whose address in the file is the one that is handed over, so that nothing differs.
fn listener(name: &str, addresses: &[SocketAddr]) -> String {
    let addresses: Vec<_> = addresses
        .iter()
        .map(|a| format!("{:?}", a.to_string()))
        .collect();
    format!(
        "[[listener]]\nname = \"{name}\"\naddress = [{}]\n",
        addresses.join(", ")
    )
}

fn served(config: &str) -> Builder {
    Daemon::builder().config(&format!("workers = 2\n{config}"))
}

/// The record of this peer's connection names the listener that it came in by.
fn echo_by(daemon: &Daemon, listener: &str, address: SocketAddr) {
    let stream = connect(address);
    echo_exact(&stream, &patterned(1, 0, 10_000));
    stream.shutdown(Shutdown::Write).expect("shutdown");
    expect_end(&stream);
    let peer = stream.local_addr().expect("an address");
    daemon.wait_line(&format!(
        "connection ended peer={peer} listener={listener} reason=done"
    ));
}

/// A peer is reset, and no other listener had it.
fn expect_denied(daemon: &Daemon, address: SocketAddr) {
    // The reset may be quicker than the call that connects.
    let stream = TcpStream::connect_timeout(&address, PATIENCE);
    let answer = stream.and_then(|mut stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.read(&mut [0])
    });
    let error = answer.expect_err("a peer of nobody's socket is answered");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    daemon.wait_line("reason=denied");
}

/// The tool of systemd, or a line that says why this test was not run.
fn has_tool(test: &str) -> bool {
    let mut command = Command::new(TOOL);
    command.arg("--version").stdout(Stdio::null());
    if command.status().is_ok_and(|status| status.success()) {
        return true;
    }
    let demanded = env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!demanded, "CI=true, and this test needs {TOOL}");
    // Not eprintln, which the test runner swallows when a test succeeds.
    let line = format!("{test}: not run, because it needs {TOOL}\n");
    io::stderr().write_all(line.as_bytes()).expect("say so");
    false
}

/// The tool takes no port 0: one that was free a moment ago.
fn free_address() -> SocketAddr {
    listening().1
}

fn tool(address: SocketAddr, options: &[&str]) -> Vec<String> {
    let address = address.to_string();
    // It clears the environment but for what is named.
    let fixed = [
        "-E",
        "RUNTIME_DIRECTORY",
        "-E",
        "NOTIFY_SOCKET",
        "-l",
        &address,
    ];
    let words = [TOOL]
        .into_iter()
        .chain(fixed)
        .chain(options.iter().copied());
    words.map(str::to_owned).collect()
}

#[test]
fn systemds_tool_hands_over_a_socket_with_the_peer_that_waits_there() {
    if !has_tool("systemds_tool_hands_over_a_socket_with_the_peer_that_waits_there") {
        return;
    }
    let address = free_address();
    let daemon = served(&listener("echo", &[address]))
        .wrapper(tool(address, &["--fdname=echo"]))
        .without_ready()
        .start();
    daemon.wait_line("Listening on ");
    // It starts the daemon when somebody comes.
    let early = connect(address);
    echo_exact(&early, b"hello");
    assert_eq!(daemon.addresses(), [("echo".to_owned(), address)]);
    echo_by(&daemon, "echo", address);
    daemon.wait_notify(|message| message.contains("READY=1"));
    let warnings = daemon
        .lines()
        .iter()
        .filter(|line| line.starts_with("warning:"))
        .count();
    assert_eq!(warnings, 0);
}

#[test]
fn systemds_tool_is_refused_when_it_accepts_itself() {
    if !has_tool("systemds_tool_is_refused_when_it_accepts_itself") {
        return;
    }
    let address = free_address();
    let daemon = served(&listener("echo", &[address]))
        .wrapper(tool(address, &["--accept"]))
        .without_ready()
        .start();
    daemon.wait_line("Listening on ");
    let stream = connect(address);
    let line = daemon.wait_line("echod: socket ");
    assert!(line.contains("set Accept=no in the socket unit"), "{line}");
    expect_gone(&stream);
}

/// Nobody has the other end any more.
fn expect_gone(mut stream: &TcpStream) {
    match stream.read(&mut [0]) {
        Ok(0) => {}
        Ok(_) => panic!("an answer"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
}

#[test]
fn a_socket_goes_to_the_listener_of_its_name() {
    let (first, first_address) = listening();
    let (second, second_address) = listening();
    let config = listener("echo", &[first_address]) + &listener("far", &[second_address]);
    // Not in the order of the file.
    let daemon = served(&config)
        .hand_over("far", &second)
        .hand_over("echo", &first)
        .start();
    echo_by(&daemon, "echo", first_address);
    echo_by(&daemon, "far", second_address);
    assert_eq!(daemon.addresses().len(), 2);
    assert!(
        !daemon
            .lines()
            .iter()
            .any(|line| line.starts_with("warning:"))
    );
}

#[test]
fn several_sockets_of_one_name_go_to_one_listener() {
    let (first, first_address) = listening();
    let (second, second_address) = listening();
    let config = listener("echo", &[first_address, second_address]);
    let daemon = served(&format!("{config}max_connections = 2\n"))
        .hand_over("echo", &first)
        .hand_over("echo", &second)
        .start();
    echo_by(&daemon, "echo", first_address);
    echo_by(&daemon, "echo", second_address);
    // One listener, so one bound.
    let one = connect(first_address);
    let other = connect(second_address);
    echo_exact(&one, b"one");
    echo_exact(&other, b"other");
    let refused = TcpStream::connect_timeout(&first_address, PATIENCE);
    let refused = refused.and_then(|mut stream| stream.read(&mut [0]));
    let error = refused.expect_err("a third peer is served");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
}

#[test]
fn a_socket_without_a_name_goes_to_the_only_listener() {
    for name in ["", "unknown", "far-end.socket"] {
        let (socket, address) = listening();
        let daemon = served(&listener("echo", &[address]))
            .hand_over(name, &socket)
            .start();
        echo_by(&daemon, "echo", address);
    }
}

#[test]
fn a_listener_whose_socket_was_not_handed_over_binds_its_own() {
    let (socket, address) = listening();
    let config = listener("echo", &[address])
        + "[[listener]]\nname = \"own\"\naddress = [\"127.0.0.1:0\", \"[::1]:0\"]\n";
    let daemon = served(&config).hand_over("echo", &socket).start();
    echo_by(&daemon, "echo", address);
    let own: Vec<_> = daemon
        .addresses()
        .into_iter()
        .filter(|(name, _)| name == "own")
        .collect();
    assert_eq!(own.len(), 2);
    for (_, address) in own {
        let stream = connect(address);
        echo_exact(&stream, b"hello");
    }
}

#[test]
fn a_socket_that_nobody_claims_resets_its_peers_until_a_reload_adopts_it() {
    let (socket, address) = listening();
    let (spare, spare_address) = listening();
    let echo = listener("echo", &[address]);
    let both = format!("{echo}{}", listener("spare", &[spare_address]));
    let daemon = served(&echo)
        .hand_over("echo", &socket)
        .hand_over("spare", &spare)
        .start();
    let warning = format!(
        "warning: no listener claims this socket, its peers are reset name=spare address={spare_address}"
    );
    daemon.wait_line(&warning);
    expect_denied(&daemon, spare_address);
    echo_by(&daemon, "echo", address);

    daemon.adopt(&format!("workers = 2\n{both}"));
    echo_by(&daemon, "spare", spare_address);
    let stays = connect(address);
    echo_exact(&stays, b"before");

    // And back again: the socket is still not closed, and said to be nobody's once more.
    let mark = daemon.mark();
    daemon.adopt(&format!("workers = 2\n{echo}"));
    daemon.wait_line_after(mark, &warning);
    expect_denied(&daemon, spare_address);
    echo_exact(&stays, b"after");

    daemon.adopt(&format!("workers = 2\n{both}"));
    echo_by(&daemon, "spare", spare_address);
}

#[test]
fn a_connection_instead_of_a_socket_is_refused_with_the_remedy() {
    let (socket, address) = listening();
    let peer = connect(address);
    let (accepted, _) = socket.accept().expect("a peer");
    let mut daemon = served(&listener("echo", &[address]))
        .hand_over("connection", &accepted)
        .without_ready()
        .start();
    drop(accepted);
    let status = daemon.wait_exit();
    assert_eq!(status.code(), Some(1));
    assert_eq!(
        daemon.lines(),
        [
            "echod: socket \"connection\": it is a connection, not a listening socket: echod serves all of them \
             itself (set Accept=no in the socket unit)"
        ]
    );
    expect_gone(&peer);
}

#[test]
fn peers_that_come_during_a_drain_and_after_it_wait_for_the_next_instance() {
    let (socket, address) = listening();
    let config = format!("drain_idle = \"2s\"\n{}", listener("echo", &[address]));
    let start = || served(&config).hand_over("echo", &socket).start();
    let mut first = start();
    let talking = connect(address);
    echo_exact(&talking, b"hello");
    first.signal(Signal::SIGTERM);
    first.wait_line("draining connections=1");
    // The workers hear of it a moment later, and serve whom they had accepted before.
    let during = (0..20).map(|_| early(address, 2)).find(is_waiting);
    let during = during.expect("a peer that waits");
    expect_end(&talking);
    talking.shutdown(Shutdown::Write).expect("shutdown");
    assert_eq!(first.wait_exit().code(), Some(0));
    let after = early(address, 3);

    let second = start();
    for (peer, seed) in [(&during, 2), (&after, 3)] {
        expect_exact(peer, &patterned(seed, 0, 1000));
        expect_end(peer);
    }
    echo_by(&second, "echo", address);
}

/// Neither an answer nor an end for a good while, though far less than the drain takes.
fn is_waiting(stream: &TcpStream) -> bool {
    let long = Duration::from_millis(500);
    stream.set_read_timeout(Some(long)).expect("a timeout");
    let answer = stream.peek(&mut [0]);
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    match answer {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
            true
        }
    }
}

#[test]
fn peers_wait_for_the_next_instance_when_the_first_is_killed() {
    let (socket, address) = listening();
    let config = listener("echo", &[address]);
    // Many workers that start, and peers that are there before them.
    let config = format!("workers = 8\n{config}");
    for _ in 0..10 {
        let waiting: Vec<_> = (0..100).map(|seed| early(address, seed)).collect();
        let builder = Daemon::builder().config(&config);
        let mut daemon = builder.hand_over("echo", &socket).start();
        for (seed, peer) in (0..).zip(&waiting) {
            expect_exact(peer, &patterned(seed, 0, 1000));
            expect_end(peer);
        }
        daemon.signal(Signal::SIGKILL);
        daemon.wait_exit();
    }
}

/// A peer that says all it has to say before anybody accepts it.
fn early(address: SocketAddr, seed: u64) -> TcpStream {
    let mut stream = connect(address);
    stream.write_all(&patterned(seed, 0, 1000)).expect("write");
    stream.shutdown(Shutdown::Write).expect("shutdown");
    stream
}

#[test]
fn the_socket_is_kept_by_a_reload_that_moves_its_listener() {
    let (socket, address) = listening();
    let daemon = served(&listener("echo", &[address]))
        .hand_over("echo", &socket)
        .start();
    let stays = connect(address);
    echo_exact(&stays, b"before");
    // The file has no say in it; it never binds there.
    let elsewhere = free_address();
    daemon.adopt(&format!("workers = 2\n{}", listener("echo", &[elsewhere])));
    daemon.wait_line("systemctl edit echod.socket");
    echo_exact(&stays, b"after");
    echo_by(&daemon, "echo", address);
    let error = TcpStream::connect_timeout(&elsewhere, PATIENCE).expect_err("bound there");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn another_address_than_configured_is_told_with_the_command_that_changes_it() {
    let (socket, address) = listening();
    let daemon =
        served("[[listener]]\nname = \"echo\"\naddress = [\"192.0.2.7:8080\"]\nbacklog = 7\n")
            .hand_over("echo", &socket)
            .start();
    let note = format!(
        "listener \"echo\": the socket unit listens on {address}, not on 192.0.2.7:8080 as configured \
         (change it with: systemctl edit echod.socket)"
    );
    let line = daemon.wait_line("another address than its listener");
    assert!(
        line.starts_with("warning: ") && line.ends_with(&note),
        "{line}"
    );
    let status = daemon.wait_notify(|message| message.starts_with("STATUS="));
    assert!(
        status.contains(&format!("listens on {address}, not on 192.0.2.7:8080")),
        "{status}"
    );
    let unused = daemon.wait_line("backlog = 7 is unused");
    assert!(unused.contains("systemctl edit echod.socket"), "{unused}");
    echo_by(&daemon, "echo", address);
}

#[test]
fn a_handed_socket_takes_the_options_of_its_listener() {
    let (socket, address) = listening();
    socket.set_nonblocking(false).expect("blocking");
    let daemon = served(&listener("echo", &[address]))
        .hand_over("echo", &socket)
        .start();
    let mut stream = connect(address);
    // Lost, if the socket's urgent bytes are not read with the others.
    stream.write_all(b"before").expect("write");
    SockRef::from(&stream).send_out_of_band(b"!").expect("send");
    stream.write_all(b"after").expect("write");
    expect_exact(&stream, b"before!after");
    echo_by(&daemon, "echo", address);
}

#[test]
fn sockets_for_another_process_are_none_of_ours() {
    let (socket, address) = listening();
    // The shell sets the number of the process, and `env` sets it to another's.
    let daemon = served("[[listener]]\nname = \"echo\"\naddress = [\"127.0.0.1:0\"]\n")
        .hand_over("echo", &socket)
        .wrapper(["env", "LISTEN_PID=1"])
        .start();
    assert_ne!(daemon.addr(), address);
    echo_by(&daemon, "echo", daemon.addr());
}
