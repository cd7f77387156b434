//! The daemon's life as a service manager, a terminal and its peers see it: ready, status, signals,
//! drain, watchdog, and how little it does when there is nothing to do.
//!
//! Times that the contract names are measured; everything else waits for events. The two tests in
//! which nothing has to happen wait on purpose, and say so.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal::{self, SIGCONT, SIGHUP, SIGINT, SIGSTOP, SIGTERM};
use nix::time::{ClockId, clock_gettime};

#[path = "support/kernel.rs"]
mod kernel;
#[path = "support/peers.rs"]
mod peers;
mod support;

use kernel::{HeldThread, Terminal, wait_until};
use peers::{Busy, End, TICK, end_of, free_address, is_refused};
use support::{Daemon, ECHO, PATIENCE, connect, echo_exact, expect_end, expect_exact};

/// A listener, with these times for a drain.
fn draining(idle: &str, timeout: &str) -> String {
    format!("drain_idle = \"{idle}\"\ndrain_timeout = \"{timeout}\"\n{ECHO}")
}

/// A peer that has been served.
fn served(daemon: &Daemon) -> TcpStream {
    let peer = connect(daemon.addr_v4());
    echo_exact(&peer, b"hello");
    peer
}

fn is_stopping(message: &str) -> bool {
    message == "STOPPING=1"
}

fn is_status(message: &str) -> bool {
    message.starts_with("STATUS=")
}

/// Ends well, soon: it has nothing to wait for.
fn assert_ends_at_once(daemon: &mut Daemon) {
    let from = Instant::now();
    let status = daemon.wait_exit();
    assert_eq!(status.code(), Some(0), "{status}");
    let took = from.elapsed();
    assert!(took < Duration::from_secs(2), "it took {took:?}");
}

/// Microseconds of the monotonic clock, as sd_notify(3) wants them.
fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock");
    u64::try_from(Duration::from(now).as_micros()).expect("a few years")
}

// Ready and status

#[test]
fn ready_comes_when_it_listens_and_not_before() {
    let address = free_address();
    let config = format!("[[listener]]\naddress = \"{address}\"\n");
    let daemon = Daemon::builder().config(&config).without_ready().start();
    let first = daemon.wait_notify(|_| true);
    assert_eq!(first, "READY=1");
    echo_exact(&connect(address), b"hello");
}

#[test]
fn a_daemon_that_refuses_to_start_is_never_ready() {
    let config = "[[listener]]\naddress = \"127.0.0.1:70000\"\n";
    let mut daemon = Daemon::builder().config(config).without_ready().start();
    assert_eq!(daemon.wait_exit().code(), Some(78));
    assert_eq!(daemon.notified(), Vec::<String>::new());
}

#[test]
fn the_status_counts_connections_and_what_was_echoed() {
    let daemon = Daemon::start(ECHO);
    let first = daemon.wait_notify(is_status);
    assert_eq!(first, "STATUS=0 connections, 0 B echoed");
    let mark = daemon.notified().len();
    let one = served(&daemon);
    // Nobody asks for it: it follows within ten seconds.
    let told = daemon.wait_notify_after(mark, is_status);
    assert_eq!(told, "STATUS=1 connection, 5 B echoed");
    let mark = daemon.notified().len();
    let two = served(&daemon);
    // A reload brings it up to date at once.
    daemon.adopt(ECHO);
    let told = daemon.wait_notify_after(mark, is_status);
    assert_eq!(told, "STATUS=2 connections, 10 B echoed");
    drop((one, two));
}

#[test]
fn the_status_says_that_it_drains() {
    let daemon = Daemon::start(&draining("10s", "20s"));
    let _peer = served(&daemon);
    daemon.signal(SIGTERM);
    let told = daemon.wait_notify(|message| message.starts_with("STATUS=draining"));
    assert_eq!(told, "STATUS=draining: 1 connection, 5 B echoed");
}

// Drain

fn drains_when_told(signal: Signal) {
    let mut daemon = Daemon::start(&draining("600ms", "15s"));
    let address = daemon.addr_v4();
    let busy = Busy::start(address, 1);
    let idle = connect(address);
    let heard = Instant::now();
    echo_exact(&idle, b"the last for now");
    daemon.signal(signal);
    daemon.wait_notify(is_stopping);

    expect_end(&idle);
    let quiet = heard.elapsed();
    assert!(
        quiet + TICK >= Duration::from_millis(600),
        "ended after {quiet:?}, not quiet for drain_idle"
    );
    assert!(quiet < Duration::from_millis(1600), "only after {quiet:?}");
    drop(idle);
    assert!(is_refused(address), "somebody still listens at {address}");

    busy.go_on();
    let outcome = busy.finish();
    assert_eq!(outcome.end, End::Finished);
    assert_ends_at_once(&mut daemon);
    daemon.wait_line("reason=drain received=16 sent=16");
    daemon.wait_line(&format!(
        "reason=done received={} sent={}",
        outcome.bytes, outcome.bytes
    ));
    let stopping: Vec<_> = daemon.notified();
    let stopping = stopping.iter().filter(|message| is_stopping(message));
    assert_eq!(stopping.count(), 1);
}

#[test]
fn sigterm_lets_a_dialogue_finish_and_ends_who_is_quiet() {
    drains_when_told(SIGTERM);
}

#[test]
fn sigint_is_like_sigterm() {
    drains_when_told(SIGINT);
}

#[test]
fn a_daemon_without_peers_ends_at_once() {
    let mut daemon = Daemon::start(&draining("10s", "20s"));
    daemon.signal(SIGTERM);
    assert_ends_at_once(&mut daemon);
    daemon.wait_line("stopped received=0 sent=0");
}

#[test]
fn nobody_can_connect_while_a_busy_peer_is_drained() {
    let daemon = Daemon::start(&draining("10s", "20s"));
    let addresses = daemon.addresses();
    let busy = Busy::start(daemon.addr_v4(), 2);
    daemon.signal(SIGTERM);
    daemon.wait_notify(|message| message.starts_with("STATUS=draining"));
    busy.go_on();
    kernel::wait_until("nobody listens", || {
        let open = |(_, address): &(String, std::net::SocketAddr)| {
            !is_refused(([127, 0, 0, 1], address.port()).into())
        };
        !addresses.iter().any(open)
    });
    busy.go_on();
    assert_eq!(busy.finish().end, End::Finished);
}

/// Comes, is echoed and leaves, until nobody is there any more: how often.
fn comes_and_goes(address: SocketAddr) -> u32 {
    let mut visits = 0;
    while let Ok(mut stream) = TcpStream::connect_timeout(&address, PATIENCE) {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(b"hello").expect("it has begun");
        stream.shutdown(Shutdown::Write).expect("a FIN");
        let mut back = Vec::new();
        stream.read_to_end(&mut back).expect("it has begun");
        assert_eq!(back, b"hello");
        visits += 1;
    }
    visits
}

#[test]
fn whoever_has_begun_when_a_drain_does_is_served() {
    for _ in 0..8 {
        let mut daemon = Daemon::start(&draining("5s", "20s"));
        let address = daemon.addr_v4();
        let visitors: Vec<_> = (0..12)
            .map(|_| thread::spawn(move || comes_and_goes(address)))
            .collect();
        daemon.wait_lines(100, "reason=done received=5 sent=5");
        daemon.signal(SIGTERM);
        let visits = visitors.into_iter().map(|visitor| visitor.join());
        let visits: u32 = visits.map(|visits| visits.expect("served")).sum();
        assert!(visits >= 100);
        assert_ends_at_once(&mut daemon);
    }
}

#[test]
fn a_hundred_idle_peers_hold_it_up_for_drain_idle_and_a_second_at_most() {
    let mut daemon = Daemon::start(&draining("1s", "30s"));
    // They only sit there, and do not even close when we do.
    let peers: Vec<_> = (0..100).map(|_| served(&daemon)).collect();
    let told = Instant::now();
    daemon.signal(SIGTERM);
    let status = daemon.wait_exit();
    let took = told.elapsed();
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(took <= Duration::from_secs(2), "it took {took:?}");
    for peer in &peers {
        assert_eq!(end_of(peer), End::Fin);
    }
    daemon.wait_lines(100, "reason=drain received=5 sent=5");
}

#[test]
fn who_is_busy_for_longer_than_drain_timeout_is_ended_then() {
    let mut daemon = Daemon::start(&draining("200ms", "1s"));
    let busy = Busy::start(daemon.addr_v4(), 3);
    let told = Instant::now();
    daemon.signal(SIGTERM);
    let outcome = busy.ended();
    let lasted = outcome.at - told;
    assert_eq!(outcome.end, End::Fin);
    assert!(
        lasted + TICK >= Duration::from_secs(1),
        "only for {lasted:?}"
    );
    assert!(lasted < Duration::from_secs(2), "for {lasted:?}");
    let status = daemon.wait_exit();
    let took = told.elapsed();
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(took < Duration::from_secs(3), "it took {took:?}");
    daemon.wait_line("reason=drain");
}

#[test]
fn who_takes_nothing_is_reset_a_second_after_drain_timeout() {
    let mut daemon = Daemon::start(&draining("200ms", "1s"));
    let mut deaf = connect(daemon.addr_v4());
    // Until nothing goes in any more: the daemon and both kernels are full of what it will not read.
    deaf.set_write_timeout(Some(Duration::from_millis(200)))
        .expect("a timeout");
    while deaf.write(&[7; 65536]).is_ok() {}
    let told = Instant::now();
    daemon.signal(SIGTERM);
    let status = daemon.wait_exit();
    let took = told.elapsed();
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(took + TICK >= Duration::from_secs(2), "only {took:?}");
    assert!(took < Duration::from_millis(3500), "it took {took:?}");
    daemon.wait_line("reason=drain");
    // What had arrived may be read; then it is cut off.
    let mut rest = Vec::new();
    let error = deaf.read_to_end(&mut rest).expect_err("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(rest.iter().all(|byte| *byte == 7));
}

#[test]
fn a_second_signal_stops_at_once() {
    for (first, second) in [(SIGTERM, SIGTERM), (SIGINT, SIGTERM), (SIGTERM, SIGINT)] {
        let mut daemon = Daemon::start(&draining("20s", "40s"));
        let idle = served(&daemon);
        let busy = Busy::start(daemon.addr_v4(), 4);
        daemon.signal(first);
        daemon.wait_notify(is_stopping);
        busy.go_on();
        daemon.signal(second);
        assert_eq!(busy.ended().end, End::Reset);
        assert_eq!(end_of(&idle), End::Reset);
        assert_ends_at_once(&mut daemon);
        daemon.wait_line("second signal, stopping at once");
        daemon.wait_line("stopped, connections were cut connections=2");
        daemon.wait_lines(2, "reason=stop");
    }
}

#[test]
fn who_waits_to_be_accepted_at_sigterm_is_served() {
    let text = format!("workers = 1\n{}", draining("300ms", "10s"));
    let mut daemon = Daemon::start(&text);
    let address = daemon.addr_v4();
    // While its worker is held the kernel completes connections, and takes what they send: more of
    // them than the worker accepts in one turn.
    let held = HeldThread::hold(daemon.pid(), "worker-0");
    let peers: Vec<_> = (0..500_u32).map(|_| connect(address)).collect();
    for (number, mut peer) in peers.iter().enumerate() {
        write!(peer, "peer {number}").expect("sent");
    }
    daemon.signal(SIGTERM);
    daemon.wait_notify(|message| message.starts_with("STATUS=draining"));
    drop(held);
    for (number, peer) in peers.iter().enumerate() {
        expect_exact(peer, format!("peer {number}").as_bytes());
        assert_eq!(end_of(peer), End::Fin);
    }
    assert_eq!(daemon.wait_exit().code(), Some(0));
}

// Signals at the wrong time

/// Before it listens to signals, SIGTERM does what it does to every process.
fn is_a_good_end(status: ExitStatus) -> bool {
    status.code() == Some(0) || status.signal() == Some(SIGTERM as i32)
}

#[test]
fn sigterm_at_any_moment_of_the_start_ends_it_well() {
    for delay in 0..40 {
        let mut daemon = Daemon::builder().config(ECHO).without_ready().start();
        // Each a little later than the one before.
        let until = Instant::now() + Duration::from_micros(150 * delay);
        while Instant::now() < until {
            thread::yield_now();
        }
        daemon.signal(SIGTERM);
        let status = daemon.wait_exit();
        assert!(is_a_good_end(status), "after {delay} steps: {status}");
        let notified = daemon.notified();
        let is_ready = notified.iter().any(|message| message == "READY=1");
        let is_stopping = notified.iter().any(|message| is_stopping(message));
        assert_eq!(is_ready, is_stopping, "after {delay} steps: {notified:?}");
    }
}

/// A daemon that has begun to listen to signals and stands still, before it is ready.
fn halfway_started() -> Daemon {
    for _ in 0..100 {
        let daemon = Daemon::builder().config(ECHO).without_ready().start();
        // The last of them to get its handler.
        kernel::wait_until_catches(daemon.pid(), SIGINT);
        daemon.signal(SIGSTOP);
        kernel::wait_until("it stands still", || kernel::is_stopped(daemon.pid()));
        // One thread: it has not come to the workers yet.
        if kernel::threads(daemon.pid()).len() == 1 {
            return daemon;
        }
    }
    panic!("it always starts faster than it can be stopped");
}

#[test]
fn sigterm_during_the_start_is_an_end_with_status_0() {
    for _ in 0..5 {
        let mut daemon = halfway_started();
        daemon.signal(SIGTERM);
        daemon.signal(SIGCONT);
        assert_ends_at_once(&mut daemon);
    }
}

#[test]
fn sighup_during_the_start_is_a_reload_after_ready() {
    for attempt in 0..5 {
        let daemon = halfway_started();
        daemon.signal(SIGHUP);
        daemon.signal(SIGCONT);
        daemon.wait_notify(|message| message == "READY=1");
        let reloading = |message: &str| message.starts_with("RELOADING=1");
        // It is read before anything that comes later, so this one cannot overtake it.
        let answer = daemon.reload();
        assert!(answer.status.success());
        let reloads = || {
            daemon
                .notified()
                .into_iter()
                .filter(|m| reloading(m))
                .count()
        };
        wait_until("both reloads were told", || reloads() >= 2);
        assert_eq!(reloads(), 2, "attempt {attempt}: {:?}", daemon.notified());
    }
}

#[test]
fn a_reload_during_a_drain_is_refused_and_the_drain_goes_on() {
    let mut daemon = Daemon::start(&draining("400ms", "15s"));
    let busy = Busy::start(daemon.addr_v4(), 5);
    daemon.signal(SIGTERM);
    daemon.wait_notify(is_stopping);
    let mark = daemon.mark();
    daemon.signal(SIGHUP);
    let line = daemon.wait_line_after(mark, "reload refused");
    assert!(line.ends_with(": the daemon drains"), "{line}");
    let answer = daemon.reload();
    assert_eq!(answer.status.code(), Some(78));
    let text = String::from_utf8_lossy(&answer.stderr);
    assert!(text.contains("the daemon drains"), "{text}");
    busy.go_on();
    assert_eq!(busy.finish().end, End::Finished);
    assert_ends_at_once(&mut daemon);
    let notified = daemon.notified();
    let reloading = |message: &String| message.starts_with("RELOADING");
    assert!(!notified.iter().any(reloading), "{notified:?}");
}

#[test]
fn each_of_many_hangups_ends_with_ready_and_nobody_is_disturbed() {
    let daemon = Daemon::start(ECHO);
    let busy: Vec<_> = (0..4)
        .map(|seed| Busy::start(daemon.addr_v4(), 10 + seed))
        .collect();
    let before = monotonic();
    let mark = daemon.notified().len();
    for _ in 0..10 {
        daemon.signal(SIGHUP);
    }
    daemon.wait_notify_after(mark, |message| message.starts_with("RELOADING=1"));
    busy.iter().for_each(Busy::go_on);
    // Whatever was waiting is over when this is answered.
    assert!(daemon.reload().status.success());
    daemon.wait_line("reload adopted");
    let after = monotonic();

    let told = daemon.notified();
    let told: Vec<_> = told[mark..].iter().filter(|m| !is_status(m)).collect();
    assert!(told.len() >= 4 && told.len() <= 22, "{told:?}");
    for pair in told.chunks(2) {
        let time = pair[0].strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
        let time = time.unwrap_or_else(|| panic!("{told:?}")).parse::<u64>();
        let time = time.expect("a number");
        assert!(
            (before..=after).contains(&time),
            "{before} <= {time} <= {after}"
        );
        assert_eq!(pair.get(1).map(|m| m.as_str()), Some("READY=1"), "{told:?}");
    }
    for peer in busy {
        peer.go_on();
        assert_eq!(peer.finish().end, End::Finished);
    }
}

// Terminals

/// Started on a terminal, quietly: what it says there would have to be read.
fn on_terminal(terminal: &Terminal, command: &[&str]) -> Daemon {
    let path = terminal.path.to_str().expect("a plain name");
    let script = format!("exec \"$@\" <>{path} >&0 2>&0");
    let words = command.iter().copied();
    let words = words.chain(["bash", "-c", &script, "bash"]);
    Daemon::builder()
        .config(&format!("{ECHO}[log]\nlevel = \"warning\"\n"))
        .wrapper(words.map(str::to_owned))
        .start()
}

#[test]
fn sighup_reloads_while_the_terminal_lives_and_ends_it_when_that_is_gone() {
    let terminal = Terminal::open();
    let mut daemon = on_terminal(&terminal, &[]);
    let mark = daemon.notified().len();
    daemon.signal(SIGHUP);
    daemon.wait_notify_after(mark, |message| message.starts_with("RELOADING=1"));
    daemon.wait_notify_after(mark, |message| message == "READY=1");

    terminal.hang_up();
    daemon.signal(SIGHUP);
    assert_ends_at_once(&mut daemon);
    assert!(daemon.notified().iter().any(|message| is_stopping(message)));
}

#[test]
fn closing_the_terminals_window_ends_it() {
    let terminal = Terminal::open();
    // In a session of its own it owns the terminal, and the kernel sends the signal.
    let mut daemon = on_terminal(&terminal, &["setsid"]);
    terminal.hang_up();
    assert_ends_at_once(&mut daemon);
}

// Watchdog and idleness

const PATIENCE_OF_MANAGER: Duration = Duration::from_millis(400);

/// The watchdog hears of it as often as it must, for a while.
fn feeds_the_watchdog(daemon: &Daemon) {
    let is_ping = |message: &str| message == "WATCHDOG=1";
    let mut mark = daemon.notified().len();
    let from = Instant::now();
    for _ in 0..4 {
        daemon.wait_notify_after(mark, is_ping);
        let notified = daemon.notified();
        mark += 1 + notified[mark..]
            .iter()
            .position(|message| is_ping(message))
            .expect("it was there");
    }
    let took = from.elapsed();
    assert!(took <= 4 * PATIENCE_OF_MANAGER, "four pings in {took:?}");
}

fn watched(config: &str) -> Daemon {
    let patience = PATIENCE_OF_MANAGER.as_micros().to_string();
    let builder = Daemon::builder().config(config);
    builder.env("WATCHDOG_USEC", patience).start()
}

#[test]
fn the_watchdog_is_fed_while_it_serves_and_while_it_drains() {
    let mut daemon = watched(&draining("10s", "20s"));
    feeds_the_watchdog(&daemon);
    let busy = Busy::start(daemon.addr_v4(), 6);
    feeds_the_watchdog(&daemon);
    daemon.signal(SIGTERM);
    daemon.wait_notify(is_stopping);
    feeds_the_watchdog(&daemon);
    assert_eq!(busy.finish().end, End::Finished);
    assert_eq!(daemon.wait_exit().code(), Some(0));
}

#[test]
fn the_watchdog_starves_while_a_worker_does_not_turn() {
    let daemon = watched(&format!("workers = 2\n{ECHO}"));
    feeds_the_watchdog(&daemon);
    let held = HeldThread::hold(daemon.pid(), "worker-1");
    let line = daemon.wait_line("a worker hangs, watchdog withheld");
    assert!(line.ends_with(" worker=1"), "{line}");
    let mark = daemon.notified().len();
    // Nothing is to happen, for longer than a manager waits.
    thread::sleep(2 * PATIENCE_OF_MANAGER);
    let notified = daemon.notified();
    assert!(
        !notified[mark..]
            .iter()
            .any(|message| message == "WATCHDOG=1"),
        "{notified:?}"
    );
    drop(held);
    feeds_the_watchdog(&daemon);
}

/// No thread of it wakes for a whole second. What it has just done may still need one to be over.
fn assert_sleeps(daemon: &Daemon) {
    let mut woken = Vec::new();
    for _ in 0..4 {
        let before = kernel::sleeps(daemon.pid());
        // The measurement itself.
        thread::sleep(Duration::from_secs(1));
        let after = kernel::sleeps(daemon.pid());
        if before == after {
            return;
        }
        woken.push((before, after));
    }
    let threads = kernel::threads(daemon.pid());
    panic!("an idle daemon wakes: {threads:?}, {woken:?}");
}

#[test]
fn an_idle_daemon_does_not_wake() {
    let daemon = Daemon::start(ECHO);
    assert_sleeps(&daemon);
    let peers: Vec<_> = (0..20).map(|_| served(&daemon)).collect();
    assert_sleeps(&daemon);
    let gone = daemon.mark();
    drop(peers);
    daemon.wait_line_after(gone, "connection ended");
    assert_sleeps(&daemon);
}

#[test]
fn the_control_socket_is_gone_with_the_daemon() {
    let mut daemon = Daemon::start(&draining("100ms", "5s"));
    let socket = daemon.runtime_directory().join("control.sock");
    assert!(socket.exists());
    drop(served(&daemon));
    daemon.signal(SIGTERM);
    assert_eq!(daemon.wait_exit().code(), Some(0));
    assert!(!socket.exists(), "the control socket is still there");
}
