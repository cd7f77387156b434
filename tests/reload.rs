//! A configuration that is read again: taken whole, or refused whole with the daemon serving as before.
//!
//! Whatever a reload does, nobody who is connected may notice more of it than the new file says.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal::{SIGCONT, SIGHUP, SIGSTOP};
use nix::sys::stat::Mode;
use nix::unistd::{geteuid, mkfifo};

#[path = "support/kernel.rs"]
mod kernel;
#[path = "support/peers.rs"]
mod peers;
mod support;

use kernel::HeldThread;
use peers::{Busy, End, TICK, end_of, free_address, is_refused, visit};
use support::{Daemon, PATIENCE, connect, echo_exact, expect_exact};

/// Who the daemon is, and where it logs; three lines.
const HEAD: &str = "user = \"nobody\"\ngroup = \"nogroup\"\nlog.target = \"stderr\"\n";

/// The same with a listener at a port that the kernel chooses: what is served while others are refused.
const GOOD: &str = "user = \"nobody\"\ngroup = \"nogroup\"\nlog.target = \"stderr\"\n\
                    [[listener]]\nname = \"echo\"\naddress = \"127.0.0.1:0\"\n";

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The status that followed the first `mark` notifications and the end of their first reload.
fn status_after_reload(daemon: &Daemon, mark: usize) -> String {
    daemon.wait_notify_after(mark, |message| message.starts_with("RELOADING=1\n"));
    daemon.wait_notify_after(mark, |message| message == "READY=1");
    let notified = daemon.notified();
    let ready = notified[mark..].iter().position(|m| m == "READY=1");
    let ready = mark + ready.expect("it was there");
    daemon.wait_notify_after(ready, |message| message.starts_with("STATUS="))
}

// Broken files

/// What stands where the file was.
enum Thing {
    Text(String),
    Bytes(Vec<u8>),
    Directory,
    Nothing,
    Fifo,
    Link(&'static str),
    Unreadable,
}

/// A file that is refused, and what the refusal says behind the file's name.
struct Broken {
    thing: Thing,
    says: String,
}

fn broken(text: impl Into<String>, says: impl Into<String>) -> Broken {
    Broken {
        thing: Thing::Text(text.into()),
        says: says.into(),
    }
}

fn no_text(thing: Thing, says: &str) -> Broken {
    Broken {
        thing,
        says: says.into(),
    }
}

fn place(path: &Path, thing: &Thing) {
    let write = |bytes: &[u8], mode| {
        fs::write(path, bytes).expect("write");
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
    };
    match thing {
        Thing::Text(text) => write(text.as_bytes(), 0o644),
        Thing::Bytes(bytes) => write(bytes, 0o644),
        Thing::Directory => fs::create_dir(path).expect("a directory"),
        Thing::Nothing => {}
        Thing::Fifo => mkfifo(path, Mode::from_bits_truncate(0o644)).expect("a pipe"),
        Thing::Link(to) => symlink(to, path).expect("a link"),
        Thing::Unreadable => write(GOOD.as_bytes(), 0o000),
    }
}

/// Puts it where the configuration is, in one step if anything was there.
fn replace(daemon: &Daemon, thing: &Thing) {
    let path = daemon.config_path();
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_dir() => fs::remove_dir(path).expect("remove"),
        Ok(_) => fs::remove_file(path).expect("remove"),
        Err(_) => {}
    }
    place(path, thing);
}

/// All that can be wrong, each with the line at which it is, where it has one.
fn all_broken(taken: SocketAddr) -> Vec<Broken> {
    let listener = "[[listener]]\naddress = \"127.0.0.1:0\"\n";
    let first = |line: &str| format!("{line}\n{GOOD}");
    let last = |line: &str| format!("{GOOD}{line}\n");
    let mut all = vec![
        broken(first("workers = = 1"), ":1:"),
        broken(first("[[listener"), ":1:"),
        broken(
            last("max_conections = 5"),
            ":7:1: listener \"echo\": unknown key \"max_conections\" (did you mean \"max_connections\"?)",
        ),
        broken(last("[log.colour]"), ":7:"),
        broken(first("drain_idle = 5"), ":1:14: drain_idle: 5: "),
        broken(first("workers = 0"), ":1:11: workers: 0: "),
        broken(first("workers = 257"), ":1:11: workers: 257: "),
        broken(
            format!(
                "{HEAD}{listener}{}",
                "[[listener]]\naddress = \"127.0.0.2:0\"\n"
            ),
            ": listener \"echo\": name: a second listener of this name",
        ),
        broken(
            format!("{HEAD}[[listener]]\naddress = [\"127.0.0.1:7007\", \"[::]:7007\"]\n"),
            ":5:30: listener \"echo\": address: [::]:7007 overlaps 127.0.0.1:7007 of line 5",
        ),
        broken(HEAD, "no [[listener]], so nothing would be served"),
        broken(
            format!("{HEAD}[[listener]]\naddress = \"nowhere\"\n"),
            ":5:11: listener \"echo\": address: \"nowhere\": ",
        ),
        broken(
            format!("{HEAD}[[listener]]\naddress = \"127.0.0.1:70000\"\n"),
            ":5:11: listener \"echo\": address: \"127.0.0.1:70000\": the port is not between 0 and 65535",
        ),
        broken(
            last("service = \"gopher\""),
            ":7:11: listener \"echo\": service: \"gopher\": ",
        ),
        broken(
            last("buffer = \"12 parsecs\""),
            ":7:10: listener \"echo\": buffer: \"12 parsecs\": ",
        ),
        broken(
            last("timeout.idle = \"a fortnight\""),
            ":7:16: listener \"echo\": timeout.idle: \"a fortnight\": ",
        ),
        broken(
            format!(
                "{}[log]\nrecord_rate = \"fast\"\n",
                GOOD.replace("log.", "#")
            ),
            ":8:15: log.record_rate: \"fast\": ",
        ),
        broken(last("backlog = 4096\nbacklog = 1"), ":8:"),
        broken(
            first("buffer_memory = \"1MiB\"\ndefaults.buffer = \"2MiB\""),
            ":1:17: buffer_memory: 1MiB: listener \"echo\": buffer is 2MiB",
        ),
        broken(
            first("max_connections = 1000000"),
            "max_connections: 1000000: ",
        ),
        broken(
            GOOD.replace("nobody", "daemon"),
            "user: changed, which needs a restart",
        ),
        broken(
            first("engine = \"auto\""),
            "engine: changed, which needs a restart",
        ),
        broken(
            format!("workers = 3\nallow_root = true\n{GOOD}"),
            "workers, allow_root: changed, which need a restart",
        ),
        broken(
            format!("{HEAD}[[listener]]\naddress = \"{taken}\"\n"),
            format!("listener \"echo\": cannot bind {taken}: Address already in use"),
        ),
        broken(
            format!("{HEAD}[[listener]]\naddress = \"192.0.2.1:7\"\n"),
            "listener \"echo\": cannot bind 192.0.2.1:7: ",
        ),
        broken("", "no [[listener]], so nothing would be served"),
        broken("#".repeat((1 << 20) + 1), ": longer than 1MiB"),
        no_text(
            Thing::Bytes(b"user = \"nobody\"\ngroup = \"\xff\"\n".to_vec()),
            ":2:10: not UTF-8 text",
        ),
        no_text(Thing::Directory, ": a directory, not a file"),
        no_text(Thing::Nothing, ": No such file or directory"),
        no_text(Thing::Fifo, ", not a file"),
        no_text(Thing::Link("/dev/zero"), ", not a file"),
        no_text(Thing::Link("nowhere"), ": No such file or directory"),
        no_text(Thing::Link("echod.toml"), ": Too many symbolic links"),
    ];
    if geteuid().is_root() {
        all.push(no_text(Thing::Unreadable, ": Permission denied"));
    }
    all
}

#[test]
fn whatever_is_wrong_with_the_file_it_is_refused_and_nobody_notices() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let all = all_broken(taken.local_addr().expect("its address"));
    assert!(all.len() >= 20);
    let daemon = Daemon::builder().config(GOOD).verbatim().start();
    let address = daemon.addr();
    let peer = connect(address);
    let busy = Busy::start(address, 1);
    for Broken { thing, says } in &all {
        replace(&daemon, thing);
        let mut seen = BTreeSet::new();
        for by_signal in [true, false] {
            let (mark, notified) = (daemon.mark(), daemon.notified().len());
            if by_signal {
                daemon.signal(SIGHUP);
            } else {
                let answer = daemon.reload();
                let text = stderr(&answer);
                assert_eq!(answer.status.code(), Some(78), "{says}: {text}");
                assert!(text.starts_with("echod: "), "{text}");
                // At length the remedy has a line of its own.
                let (says, _) = says.split_once(" (").unwrap_or((says, ""));
                assert!(text.contains(says), "expected {says:?} in: {text}");
            }
            let line = daemon.wait_line_after(mark, "reload refused");
            let begins = "error: reload refused, serving as before: ";
            assert!(line.starts_with(begins), "{line}");
            assert!(line.contains(says), "expected {says:?} in: {line}");
            if says.starts_with(':') && !says.starts_with(": listener") {
                let file = daemon.config_path().display();
                assert!(line.contains(&format!("{begins}{file}:")), "{line}");
            }
            let status = status_after_reload(&daemon, notified);
            assert!(status.contains("; reload refused: "), "{status}");
            seen.insert(line);
            echo_exact(&peer, says.as_bytes());
            echo_exact(&connect(address), says.as_bytes());
        }
        assert_eq!(seen.len(), 1, "a signal and a command are told the same");
        busy.go_on();
    }

    // It stays in the status until a file is adopted.
    replace(&daemon, &Thing::Text(GOOD.into()));
    let mark = daemon.notified().len();
    daemon.signal(SIGHUP);
    let status = status_after_reload(&daemon, mark);
    assert!(!status.contains("refused"), "{status}");
    daemon.wait_line("reload adopted");
    echo_exact(&peer, b"still here");
    assert_eq!(busy.finish().end, End::Finished);
}

#[test]
fn nothing_of_a_refused_file_is_applied() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().map(|address| (taken, address));
    let (_taken, taken) = taken.expect("its address");
    let new = free_address();
    let daemon = Daemon::builder().config(GOOD).verbatim().start();
    let address = daemon.addr();
    let peer = connect(address);
    echo_exact(&peer, b"hello");
    // Everything is different, and only the last socket cannot be had.
    let text = format!(
        "{}max_connections = 1\ntimeout.idle = \"1ms\"\n[[listener]]\nname = \"new\"\n\
         address = \"{new}\"\n[[listener]]\nname = \"taken\"\naddress = \"{taken}\"\n",
        GOOD.replace(
            "log.target",
            "max_connections = 1\nlog.level = \"error\"\nlog.target"
        )
    );
    daemon.write_config(&text);
    let answer = daemon.reload();
    assert_eq!(answer.status.code(), Some(78), "{}", stderr(&answer));
    assert!(is_refused(new), "a socket of a refused file is open");
    // Neither a bound, nor the timeout, nor the level.
    let mark = daemon.mark();
    let other = connect(address);
    echo_exact(&other, b"hello");
    drop(other);
    daemon.wait_line_after(mark, "reason=done received=5");
    echo_exact(&peer, b"still here");
}

// What is adopted

/// Listeners by these names, each at a port that the kernel chooses.
fn listeners(names: &[&str]) -> String {
    let listener =
        |name: &&str| format!("[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\n");
    let listeners: String = names.iter().map(listener).collect();
    format!("drain_idle = \"400ms\"\n{listeners}")
}

#[test]
fn a_listener_that_was_added_is_reachable() {
    let daemon = Daemon::start(&listeners(&["one"]));
    let peer = connect(daemon.addr_of("one"));
    let mark = daemon.mark();
    daemon.adopt(&listeners(&["one", "two"]));
    daemon.wait_line_after(mark, "reload adopted");
    daemon.wait_line_after(mark, "listening listener=two");
    echo_exact(&connect(daemon.addr_of("two")), b"hello");
    echo_exact(&connect(daemon.addr_of("one")), b"hello");
    echo_exact(&peer, b"hello");
    let again: Vec<_> = daemon.lines();
    let again = again[mark..].iter().filter(|l| l.contains("listener=one "));
    assert_eq!(
        again.filter(|l| l.contains("listening")).count(),
        0,
        "it was bound again"
    );
}

#[test]
fn a_listener_that_was_removed_is_drained_and_the_others_are_not() {
    let daemon = Daemon::start(&listeners(&["one", "two"]));
    let (one, two) = (daemon.addr_of("one"), daemon.addr_of("two"));
    let (quiet_one, quiet_two) = (connect(one), connect(two));
    let (busy_one, busy_two) = (Busy::start(one, 1), Busy::start(two, 2));
    echo_exact(&quiet_one, b"hello");
    let heard = Instant::now();
    echo_exact(&quiet_two, b"hello");

    let mark = daemon.mark();
    daemon.adopt(&listeners(&["one"]));
    daemon.wait_line_after(mark, "listener removed listener=two");
    assert_eq!(end_of(&quiet_two), End::Fin);
    let quiet = heard.elapsed();
    assert!(quiet + TICK >= Duration::from_millis(400), "only {quiet:?}");
    assert!(quiet < Duration::from_millis(1400), "after {quiet:?}");
    daemon.wait_line_after(mark, "listener=two reason=drain received=5 sent=5");

    // A dialogue goes on until it is over.
    busy_two.go_on();
    busy_one.go_on();
    echo_exact(&quiet_one, b"still here");
    assert_eq!(busy_two.finish().end, End::Finished);
    assert_eq!(busy_one.finish().end, End::Finished);
    echo_exact(&connect(one), b"hello");
}

#[test]
fn nobody_can_connect_to_a_listener_that_was_removed() {
    let daemon = Daemon::start(&listeners(&["one", "two"]));
    let two = daemon.addr_of("two");
    let busy = Busy::start(two, 3);
    daemon.adopt(&listeners(&["one"]));
    busy.go_on();
    kernel::wait_until("nobody listens there", || is_refused(two));
    busy.go_on();
    assert_eq!(busy.finish().end, End::Finished);
}

#[test]
fn who_waits_at_a_listener_that_is_removed_is_served() {
    let with = |names| format!("workers = 1\n{}", listeners(names));
    let daemon = Daemon::start(&with(&["one", "two"]));
    let two = daemon.addr_of("two");
    // More of them than the worker accepts in one turn.
    let held = HeldThread::hold(daemon.pid(), "worker-0");
    let peers: Vec<_> = (0..500).map(|_| connect(two)).collect();
    for mut peer in &peers {
        peer.write_all(b"let me in").expect("sent");
    }
    daemon.adopt(&with(&["one"]));
    drop(held);
    for peer in &peers {
        expect_exact(peer, b"let me in");
        assert_eq!(end_of(peer), End::Fin);
    }
}

#[test]
fn a_listener_comes_back_to_where_it_was() {
    let address = free_address();
    let with = |name: &str| {
        let other = "[[listener]]\nname = \"other\"\naddress = \"127.0.0.1:0\"\n";
        format!(
            "drain_idle = \"100ms\"\n{other}[[listener]]\nname = \"{name}\"\naddress = \"{address}\"\n"
        )
    };
    let daemon = Daemon::start(&with("mine"));
    for _ in 0..5 {
        daemon.adopt(&listeners(&["other"]));
        daemon.adopt(&with("mine"));
        echo_exact(&connect(address), b"hello");
    }
}

fn with_idle(idle: &str) -> String {
    format!("{}timeout.idle = \"{idle}\"\n", listeners(&["echo"]))
}

#[test]
fn a_shorter_idle_time_ends_those_who_are_here() {
    let daemon = Daemon::start(&with_idle("1h"));
    let address = daemon.addr();
    let (idle, busy) = (connect(address), Busy::start(address, 4));
    let heard = Instant::now();
    echo_exact(&idle, b"hello");
    daemon.adopt(&with_idle("500ms"));
    assert_eq!(end_of(&idle), End::Fin);
    let quiet = heard.elapsed();
    assert!(quiet + TICK >= Duration::from_millis(500), "only {quiet:?}");
    assert!(quiet < Duration::from_millis(1500), "after {quiet:?}");
    daemon.wait_line("reason=idle received=5 sent=5");
    busy.go_on();
    // And one that is longer lets them stay.
    daemon.adopt(&with_idle("1h"));
    busy.go_on();
    assert_eq!(busy.finish().end, End::Finished);
}

#[test]
fn a_longer_idle_time_spares_those_who_are_here() {
    let daemon = Daemon::start(&with_idle("1s"));
    let spared = connect(daemon.addr());
    echo_exact(&spared, b"hello");
    daemon.adopt(&with_idle("1h"));
    // Somebody for whom a second is over, measured by the daemon itself.
    let mut measure = listeners(&["echo", "measure"]);
    measure.push_str("timeout.idle = \"1500ms\"\n");
    daemon.adopt(&measure);
    let other = connect(daemon.addr_of("measure"));
    assert_eq!(end_of(&other), End::Fin);
    echo_exact(&spared, b"still here");
}

#[test]
fn a_lifetime_counts_from_the_beginning() {
    let daemon = Daemon::start(&listeners(&["echo"]));
    let busy = Busy::start(daemon.addr(), 5);
    let text = format!("{}timeout.lifetime = \"1s\"\n", listeners(&["echo"]));
    daemon.adopt(&text);
    assert_eq!(busy.ended().end, End::Fin);
    daemon.wait_line("reason=lifetime");
}

#[test]
fn addresses_come_and_go_and_their_peers_stay() {
    let (one, two) = (free_address(), free_address());
    let at = |addresses: &[SocketAddr]| {
        let addresses: Vec<_> = addresses.iter().map(|a| format!("\"{a}\"")).collect();
        format!("[[listener]]\naddress = [{}]\n", addresses.join(", "))
    };
    let daemon = Daemon::start(&at(&[one]));
    let first = connect(one);
    assert!(is_refused(two));
    daemon.adopt(&at(&[one, two]));
    let second = connect(two);
    echo_exact(&second, b"hello");
    daemon.adopt(&at(&[two]));
    kernel::wait_until("nobody listens there", || is_refused(one));
    echo_exact(&connect(two), b"hello");
    // The listener is the same, by its name.
    echo_exact(&first, b"still here");
    echo_exact(&second, b"still here");
}

#[test]
fn another_max_connections_holds_for_those_who_come() {
    for key in ["max_connections", "defaults.max_connections"] {
        let with = |most: &str| {
            format!(
                "{key} = {most}\npressure.above = \"off\"\n{}",
                listeners(&["echo"])
            )
        };
        let daemon = Daemon::start(&with("3"));
        let address = daemon.addr();
        let mut peers: Vec<_> = (0..3).map(|_| connect(address)).collect();
        peers.iter().for_each(|peer| echo_exact(peer, b"hello"));
        assert_eq!(visit(address), End::Reset, "{key}");

        daemon.adopt(&with("4"));
        peers.push(connect(address));
        peers.iter().for_each(|peer| echo_exact(peer, b"hello"));
        assert_eq!(visit(address), End::Reset, "{key}");

        daemon.adopt(&with("1"));
        assert_eq!(visit(address), End::Reset, "{key}");
        peers
            .iter()
            .for_each(|peer| echo_exact(peer, b"still here"));
        daemon.wait_lines(3, "reason=full");
    }
}

#[test]
fn another_level_holds_at_once() {
    let at = |level: &str| format!("{}[log]\nlevel = \"{level}\"\n", listeners(&["echo"]));
    let daemon = Daemon::start(&at("info"));
    let address = daemon.addr();
    let say = |bytes: &[u8]| {
        let peer = connect(address);
        echo_exact(&peer, bytes);
        peer.shutdown(Shutdown::Write).expect("shut down");
        assert_eq!(end_of(&peer), End::Fin);
    };
    say(b"1");
    daemon.wait_line("reason=done received=1");
    daemon.adopt(&at("error"));
    say(b"22");
    daemon.adopt(&at("debug"));
    say(b"");
    daemon.wait_line("reason=done received=0");
    let lines = daemon.lines();
    assert!(
        !lines.iter().any(|line| line.contains("received=2")),
        "{lines:?}"
    );
}

#[test]
fn a_port_that_the_kernel_chose_stays_over_reloads() {
    let daemon = Daemon::start(&listeners(&["echo"]));
    let address = daemon.addr();
    let peer = connect(address);
    for buffer in ["64KiB", "128KiB", "256KiB"] {
        let text = format!(
            "{}buffer = \"{buffer}\"\nbacklog = 100\n",
            listeners(&["echo"])
        );
        daemon.adopt(&text);
        echo_exact(&connect(address), b"hello");
        echo_exact(&peer, b"hello");
    }
    let listening = daemon.lines();
    let listening = listening.iter().filter(|line| line.contains("listening "));
    assert_eq!(listening.count(), 1);
}

#[test]
fn a_listener_with_a_new_name_keeps_its_socket() {
    let address = free_address();
    let named = |name: &str| {
        format!(
            "drain_idle = \"300ms\"\n[[listener]]\nname = \"{name}\"\naddress = \"{address}\"\n"
        )
    };
    let daemon = Daemon::start(&named("old"));
    let before = connect(address);
    echo_exact(&before, b"hello");
    // In the queue meanwhile, so that closing the socket would lose them.
    daemon.signal(SIGSTOP);
    kernel::wait_until("it stands still", || kernel::is_stopped(daemon.pid()));
    let waiting: Vec<_> = (0..50).map(|_| connect(address)).collect();
    daemon.write_config(&named("new"));
    daemon.signal(SIGHUP);
    daemon.signal(SIGCONT);
    daemon.wait_line("reload adopted");
    waiting.iter().for_each(|peer| echo_exact(peer, b"queued"));
    let after = connect(address);
    echo_exact(&after, b"hello");
    after.shutdown(Shutdown::Write).expect("shut down");
    daemon.wait_line("listener=new reason=done received=5 sent=5");
    // Who came in by the old name is of a listener that is no more.
    assert_eq!(end_of(&before), End::Fin);
    daemon.wait_line("listener=old reason=drain received=5 sent=5");
}

#[test]
fn a_daemon_without_a_file_reloads_too() {
    let builder = Daemon::builder().arg("--listen").arg("127.0.0.1:0");
    let daemon = builder.start();
    let address = daemon.addr();
    let peer = connect(address);
    let mark = daemon.notified().len();
    daemon.signal(SIGHUP);
    status_after_reload(&daemon, mark);
    daemon.wait_line("reload adopted");
    echo_exact(&peer, b"hello");
    echo_exact(&connect(address), b"hello");
}

// The command and the control socket

#[test]
fn the_command_says_by_its_status_what_came_of_it() {
    let mut daemon = Daemon::start(&listeners(&["echo"]));
    let adopted = daemon.reload();
    assert_eq!(adopted.status.code(), Some(0));
    assert_eq!(stdout(&adopted), "reloaded: nothing changed\n");
    assert_eq!(stderr(&adopted), "");

    daemon.write_config("wrokers = 1\n[[listener]]\n");
    let refused = daemon.reload();
    assert_eq!(refused.status.code(), Some(78));
    assert!(refused.stdout.is_empty());
    let text = stderr(&refused);
    // At length: the line itself, and what is wrong there.
    assert!(text.contains("wrokers = 1"), "{text}");
    assert!(text.contains("^^^^^^^"), "{text}");

    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(daemon.wait_exit().code(), Some(0));
    let nobody = daemon.reload();
    assert_eq!(nobody.status.code(), Some(1));
    let text = stderr(&nobody);
    assert!(text.starts_with("echod: no daemon answers at "), "{text}");
    assert!(text.ends_with(" (is echod running?)\n"), "{text}");
    assert_eq!(text.lines().count(), 1);
}

/// Somebody at the control socket, with a deadline on everything.
fn control(daemon: &Daemon) -> UnixStream {
    let path = daemon.runtime_directory().join("control.sock");
    let stream = UnixStream::connect(path).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

fn everything(mut stream: UnixStream) -> String {
    let mut answer = Vec::new();
    // What it did not read of our question makes the end a reset; the answer comes before.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn garbage_at_the_control_socket_is_answered_and_harms_nobody() {
    let daemon = Daemon::start(&listeners(&["echo"]));
    let peer = connect(daemon.addr());
    let long = vec![b'x'; 1 << 20];
    for (question, answer) in [
        (&b"\x00\xff\x1b[2J\n"[..], "error unknown verb\n"),
        (b"\n", "error unknown verb\n"),
        (b"RELOAD\n", "error unknown verb\n"),
        (b"reload now please\n", "error unknown verb\n"),
        (&long, "error line too long\n"),
    ] {
        let mut stream = control(&daemon);
        // It may close before it has taken all of it.
        let _ = stream.write_all(question);
        assert_eq!(everything(stream), answer);
        echo_exact(&peer, b"hello");
    }
    drop(control(&daemon));
    let mut gone = control(&daemon);
    gone.write_all(b"reload\n").expect("sent");
    drop(gone);
    assert!(daemon.reload().status.success());
    echo_exact(&peer, b"hello");
}

#[test]
fn who_dribbles_at_the_control_socket_holds_up_nobody() {
    let daemon = Daemon::start(&listeners(&["echo"]));
    let busy = Busy::start(daemon.addr(), 6);
    let mut slow = control(&daemon);
    slow.write_all(b"re").expect("sent");
    for _ in 0..3 {
        assert!(daemon.reload().status.success());
    }
    busy.go_on();
    slow.write_all(b"lo").expect("sent");
    // It has five seconds for its question.
    assert_eq!(everything(slow), "error too slow\n");
    assert_eq!(busy.finish().end, End::Finished);
}

#[test]
fn one_too_many_at_the_control_socket_is_told_so() {
    let daemon = Daemon::start(&listeners(&["echo"]));
    let peer = connect(daemon.addr());
    let mut silent: Vec<_> = (0..8).map(|_| control(&daemon)).collect();
    let answer = daemon.reload();
    assert_eq!(answer.status.code(), Some(1));
    let text = stderr(&answer);
    assert!(text.contains("too many are asking at once"), "{text}");
    echo_exact(&peer, b"hello");
    // A signal is heard in any case.
    let mark = daemon.mark();
    daemon.signal(SIGHUP);
    daemon.wait_line_after(mark, "reload adopted");
    // A place that is free again is somebody's.
    let mut last = silent.pop().expect("one of them");
    last.write_all(b"reload\n").expect("sent");
    assert_eq!(everything(last), "adopted\nnothing changed\n");
    assert!(daemon.reload().status.success());
}

#[test]
fn many_commands_at_once_are_all_answered() {
    let daemon = Daemon::start(&listeners(&["echo"]));
    let asking: Vec<_> = (0..8)
        .map(|_| {
            let mut stream = control(&daemon);
            stream.write_all(b"reload\n").expect("sent");
            stream
        })
        .collect();
    for stream in asking {
        assert_eq!(everything(stream), "adopted\nnothing changed\n");
    }
}

// Under load

#[test]
fn fifty_reloads_under_load_cost_no_byte_and_no_connection() {
    let daemon = Daemon::start(&listeners(&["echo"]));
    let address = daemon.addr();
    let busy: Vec<_> = (0..4)
        .map(|seed| Busy::at_full_speed(address, 100 + seed))
        .collect();
    let quiet: Vec<TcpStream> = (0..20).map(|_| connect(address)).collect();
    for number in 0..50 {
        match number % 5 {
            0 => daemon.adopt(&listeners(&["echo", "more"])),
            1 => daemon.adopt(&format!("{}buffer = \"64KiB\"\n", listeners(&["echo"]))),
            2 => daemon.adopt(&format!(
                "max_connections = 100\n{}",
                listeners(&["more", "echo"])
            )),
            3 => {
                daemon.write_config("[[listener]]\naddress = 7\n");
                assert_eq!(daemon.reload().status.code(), Some(78));
            }
            _ => daemon.adopt(&format!("{}timeout.idle = \"10m\"\n", listeners(&["echo"]))),
        }
        // Nobody who comes just then is refused.
        echo_exact(&connect(address), b"a new one");
    }
    for peer in &quiet {
        echo_exact(peer, b"still here");
    }
    for peer in busy {
        peer.go_on();
        let outcome = peer.finish();
        assert_eq!(outcome.end, End::Finished);
        assert!(outcome.bytes > 0);
    }
    let lines = daemon.lines();
    let lost = |line: &&String| line.contains("connection ended") && !line.contains("reason=done");
    assert_eq!(lines.iter().filter(lost).collect::<Vec<_>>(), [""; 0]);
}
