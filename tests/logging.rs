//! What the daemon says, to whom, and that nobody who listens badly holds it up.
//!
//! The receivers of syslog and of the journal are the test's own: see `support/receiver.rs`. Counts must
//! add up: what is not recorded is in a summary, what was not received is in a report.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::tz::{TimeZone, offset};
use jiff::{SignedDuration, Timestamp};
use nix::libc::O_NONBLOCK;
use nix::sys::signal::Signal::{SIGHUP, SIGTERM};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use socket2::SockRef;
use tempfile::TempDir;

#[path = "support/kernel.rs"]
mod kernel;
#[path = "support/peers.rs"]
mod peers;
#[path = "support/receiver.rs"]
mod receiver;
mod support;

use peers::{End, end_of, free_address};
use receiver::{Place, Receiver, can_mount};
use support::{Daemon, connect, echo_exact};

/// A listener there, and this in `[log]`.
fn logging(address: SocketAddr, log: &str) -> String {
    format!("drain_idle = \"100ms\"\n[log]\n{log}\n[[listener]]\naddress = \"{address}\"\n")
}

/// A peer that says this, hears it, and leaves.
fn exchange(address: SocketAddr, bytes: &[u8]) {
    let peer = connect(address);
    echo_exact(&peer, bytes);
    peer.shutdown(Shutdown::Write).expect("shut down");
    assert_eq!(end_of(&peer), End::Fin);
}

/// A peer that says this, hears it, and resets.
fn exchange_and_reset(address: SocketAddr, bytes: &[u8]) {
    let peer = connect(address);
    echo_exact(&peer, bytes);
    let linger = SockRef::from(&peer).set_linger(Some(Duration::ZERO));
    linger.expect("set");
}

/// All that it ever said on standard error.
fn all_lines(mut daemon: Daemon) -> Vec<String> {
    daemon.signal(SIGTERM);
    assert_eq!(daemon.wait_exit().code(), Some(0));
    daemon.lines()
}

/// The number behind `key=`; 0 if it is not there.
fn count(line: &str, key: &str) -> usize {
    let mut words = line.split_whitespace();
    let value = words.find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    value.map_or(0, |value| value.parse().expect("a number"))
}

const RECORD: &str = "connection ended peer=";
const SUMMARY: &str = "connections ended, not recorded one by one";
const DROPPED: &str = "log records dropped count=";

/// So many records a second that none is left to a summary.
const EVERY_RECORD: &str = "record_rate = \"1000000/s\"\n";

// Syslog

fn on_syslog(place: &Place, address: SocketAddr, log: &str) -> Daemon {
    let config = logging(address, &format!("target = \"syslog\"\n{log}"));
    let builder = Daemon::builder().config(&config);
    // Five and a half hours before Greenwich has it.
    builder
        .env("TZ", "XST-5:30")
        .wrapper(place.wrapper())
        .start()
}

/// The time, the process and the text of a datagram with this priority.
fn parts(datagram: &str, priority: u32) -> (String, String, String) {
    let rest = datagram.strip_prefix(&format!("<{priority}>"));
    let rest = rest.unwrap_or_else(|| panic!("priority {priority}: {datagram:?}"));
    let (time, rest) = rest.split_at_checked(15).expect("a time");
    let rest = rest.strip_prefix(" echod[").expect("who says it");
    let (pid, text) = rest.split_once("]: ").expect("which process");
    (time.into(), pid.into(), text.into())
}

#[test]
fn a_syslog_record_is_as_rfc_3164_has_it_in_local_time() {
    if !can_mount("a_syslog_record_is_as_rfc_3164_has_it_in_local_time") {
        return;
    }
    let place = Place::of_syslog();
    let receiver = place.listen();
    let address = free_address();
    let begin = Timestamp::now();
    let daemon = on_syslog(&place, address, "");
    let (time, pid, text) = parts(&receiver.wait("ready"), 30);
    let end = Timestamp::now();
    assert_eq!(pid, daemon.pid().to_string());
    assert!(text.starts_with("ready workers="), "{text}");
    let here = TimeZone::fixed(offset(5).saturating_add(SignedDuration::from_mins(30)));
    let mut second = begin;
    let mut times = Vec::new();
    while second <= end + SignedDuration::from_secs(1) {
        let zoned = second.to_zoned(here.clone());
        times.push(zoned.strftime("%b %e %H:%M:%S").to_string());
        second += SignedDuration::from_secs(1);
    }
    assert!(times.contains(&time), "{time} is none of {times:?}");

    exchange(address, b"hello");
    let (_, _, text) = parts(&receiver.wait("connection ended"), 30);
    assert!(text.contains(" reason=done received=5 sent=5 "), "{text}");

    // Errors are of another priority, and another facility moves all of them.
    daemon.write_config("workers = 0\n");
    assert_eq!(daemon.reload().status.code(), Some(78));
    let (_, _, text) = parts(&receiver.wait("reload refused"), 27);
    assert!(!text.contains('\n'), "{text:?}");
    daemon.adopt(&logging(
        address,
        "target = \"syslog\"\nfacility = \"local0\"",
    ));
    let (_, _, text) = parts(&receiver.wait("reload adopted"), 16 * 8 + 6);
    assert_eq!(text, "reload adopted changed=1");
    // Standard error is silent, since the start went well.
    assert_eq!(all_lines(daemon), [""; 0]);
}

#[test]
fn a_start_that_fails_is_told_to_syslog_and_to_standard_error() {
    if !can_mount("a_start_that_fails_is_told_to_syslog_and_to_standard_error") {
        return;
    }
    let place = Place::of_syslog();
    let receiver = place.listen();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address");
    let config = logging(address, "target = \"syslog\"");
    let builder = Daemon::builder().config(&config).wrapper(place.wrapper());
    let mut daemon = builder.without_ready().start();
    assert_eq!(daemon.wait_exit().code(), Some(1));
    let why = format!("listener \"echo\": cannot bind {address}: Address already in use");
    let (_, _, text) = parts(&receiver.wait("cannot bind"), 27);
    assert!(text.starts_with(&why), "{text}");
    let lines = daemon.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with(&format!("echod: {why}")), "{lines:?}");
}

/// Records that were received, and those that were said to be dropped.
#[derive(Debug, Default)]
struct Sum {
    records: usize,
    dropped: usize,
}

impl Sum {
    fn take(&mut self, datagram: &str) {
        if datagram.contains(RECORD) {
            self.records += 1;
        } else if datagram.contains(DROPPED) {
            self.dropped += count(datagram, "count");
        }
    }

    /// Takes what comes, until a record was received.
    fn until_a_record(&mut self, receiver: &Receiver, mut meanwhile: impl FnMut()) {
        let deadline = Instant::now() + support::PATIENCE;
        while self.records == 0 {
            assert!(Instant::now() < deadline, "no record arrives: {self:?}");
            meanwhile();
            while let Some(datagram) = receiver.next_within(Duration::from_millis(50)) {
                self.take(&datagram);
            }
        }
    }

    /// Takes what comes, until so many are accounted for.
    fn until(&mut self, receiver: &Receiver, all: usize) {
        let deadline = Instant::now() + support::PATIENCE;
        while self.records + self.dropped < all {
            assert!(
                Instant::now() < deadline,
                "{all} are not accounted for: {self:?}"
            );
            let next = receiver.next_within(Duration::from_millis(50));
            next.iter().for_each(|datagram| self.take(datagram));
        }
    }
}

#[test]
fn records_arrive_again_at_a_receiver_that_was_restarted() {
    if !can_mount("records_arrive_again_at_a_receiver_that_was_restarted") {
        return;
    }
    let place = Place::of_syslog();
    let receiver = place.listen();
    let address = free_address();
    let daemon = on_syslog(&place, address, EVERY_RECORD);
    receiver.wait("ready");
    let mut receiver = receiver;
    for _ in 0..3 {
        place.close(receiver);
        exchange(address, b"hello");
        receiver = place.listen();
        let mut exchanged = 1;
        let mut sum = Sum::default();
        sum.until_a_record(&receiver, || {
            exchange(address, b"hello");
            exchanged += 1;
        });
        sum.until(&receiver, exchanged);
        assert_eq!(sum.records + sum.dropped, exchanged, "{sum:?}");
    }
    assert_eq!(all_lines(daemon), [""; 0]);
}

#[test]
fn what_nobody_hears_is_dropped_counted_and_said_later() {
    if !can_mount("what_nobody_hears_is_dropped_counted_and_said_later") {
        return;
    }
    let place = Place::of_syslog();
    let address = free_address();
    // Nobody listens when it starts.
    let daemon = on_syslog(&place, address, EVERY_RECORD);
    for _ in 0..20 {
        exchange(address, b"hello");
    }
    assert!(daemon.reload().status.success());
    let receiver = place.listen();
    let mut sum = Sum::default();
    let mut exchanged = 20;
    sum.until_a_record(&receiver, || {
        exchange(address, b"hello");
        exchanged += 1;
    });
    sum.until(&receiver, exchanged);
    assert!(sum.dropped >= 20, "{sum:?}");
    // Whoever started it hears of it, once.
    let said = all_lines(daemon);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].starts_with("warning: nobody takes the log"),
        "{said:?}"
    );
}

/// Longer than a record may be waited for.
const NEVER_SO_LONG: Duration = Duration::from_secs(1);

/// Serves many peers; nobody of them waits for the log.
fn serve_many(peers: usize, address: SocketAddr) {
    for number in 0..peers {
        let from = Instant::now();
        exchange(address, b"hello");
        let took = from.elapsed();
        assert!(took < NEVER_SO_LONG, "peer {number} was served in {took:?}");
    }
}

#[test]
fn a_receiver_that_stalls_holds_up_nobody_and_nothing_is_lost_unsaid() {
    if !can_mount("a_receiver_that_stalls_holds_up_nobody_and_nothing_is_lost_unsaid") {
        return;
    }
    let place = Place::of_syslog();
    let receiver = place.listen();
    let address = free_address();
    let mut daemon = on_syslog(&place, address, EVERY_RECORD);
    // It does not read, so its queue is soon full.
    serve_many(2000, address);
    assert!(daemon.reload().status.success());
    let mut sum = Sum::default();
    sum.until(&receiver, 2000);
    assert_eq!(sum.records + sum.dropped, 2000, "{sum:?}");
    assert!(sum.dropped > 0, "it did not stall");

    // Again, and it stalls until the end.
    serve_many(2000, address);
    let told = Instant::now();
    daemon.signal(SIGTERM);
    assert_eq!(daemon.wait_exit().code(), Some(0));
    let took = told.elapsed();
    assert!(took < Duration::from_secs(3), "it took {took:?}");
}

// The journal

/// The value of a field of the journal's native protocol.
fn field<'a>(datagram: &'a str, key: &str) -> &'a str {
    let mut lines = datagram.lines();
    let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("no {key}: {datagram}"))
}

#[test]
fn the_journal_gets_each_event_with_fields_of_its_own() {
    if !can_mount("the_journal_gets_each_event_with_fields_of_its_own") {
        return;
    }
    let place = Place::of_journal();
    let receiver = place.listen();
    let address = free_address();
    let config = logging(address, "target = \"journal\"");
    let builder = Daemon::builder().config(&config).wrapper(place.wrapper());
    let daemon = builder.start();
    let ready = receiver.wait("ECHOD_EVENT=ready\n");
    assert_eq!(
        field(&ready, "MESSAGE_ID"),
        "af9e662308874046a050aca39d46077f"
    );
    assert_eq!(field(&ready, "SYSLOG_IDENTIFIER"), "echod");
    assert_eq!(field(&ready, "PRIORITY"), "6");
    assert_eq!(field(&ready, "SYSLOG_FACILITY"), "3");

    let peer = connect(address);
    let name = peer.local_addr().expect("its address").to_string();
    echo_exact(&peer, b"hello");
    drop(peer);
    let ended = receiver.wait("ECHOD_EVENT=connection_ended\n");
    assert_eq!(
        field(&ended, "MESSAGE_ID"),
        "6bd9f10ea8e14e64bc074d25440ea341"
    );
    assert_eq!(field(&ended, "ECHOD_PEER"), name);
    assert_eq!(field(&ended, "ECHOD_REASON"), "done");
    assert_eq!(field(&ended, "ECHOD_LISTENER"), "echo");
    assert_eq!(field(&ended, "ECHOD_RECEIVED"), "5");
    assert_eq!(field(&ended, "ECHOD_SENT"), "5");
    let message = field(&ended, "MESSAGE");
    assert!(
        message.starts_with(&format!("{RECORD}{name} ")),
        "{message}"
    );

    daemon.write_config("workers = 0\n");
    assert_eq!(daemon.reload().status.code(), Some(78));
    let refused = receiver.wait("ECHOD_EVENT=reload_refused\n");
    assert_eq!(field(&refused, "PRIORITY"), "3");
    assert_eq!(
        field(&refused, "MESSAGE_ID"),
        "b2f63cc0ad4044f8b6102cfc6ecca525"
    );
    assert_eq!(all_lines(daemon), [""; 0]);
}

#[test]
fn another_target_holds_from_the_next_event_on() {
    if !can_mount("another_target_holds_from_the_next_event_on") {
        return;
    }
    let place = Place::of_syslog();
    let receiver = place.listen();
    let address = free_address();
    let daemon = on_syslog(&place, address, "");
    receiver.wait("ready");
    daemon.adopt(&logging(address, "target = \"stderr\""));
    daemon.wait_line("reload adopted");
    exchange(address, b"hello");
    daemon.wait_line("reason=done received=5");
    daemon.adopt(&logging(address, "target = \"syslog\""));
    receiver.wait("reload adopted");
    exchange(address, b"hello again");
    receiver.wait("reason=done received=11");
}

// Standard error

/// A pipe with a name, which a daemon is given as its standard error.
struct Pipe {
    _directory: TempDir,
    path: PathBuf,
}

impl Pipe {
    fn new() -> Pipe {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("stderr");
        mkfifo(&path, Mode::from_bits_truncate(0o600)).expect("a pipe");
        Pipe {
            _directory: directory,
            path,
        }
    }

    /// Both ends, so that nobody waits for the other.
    fn open(&self) -> std::fs::File {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).custom_flags(O_NONBLOCK);
        options.open(&self.path).expect("open")
    }
}

fn stderr_to(path: &Path) -> Vec<String> {
    let path = path.to_str().expect("a plain name");
    let script = "exec \"$@\" 2>\"$0\"";
    ["sh", "-c", script, path].map(str::to_owned).into()
}

/// Starts a daemon whose standard error nobody reads but this test.
fn unheard(address: SocketAddr, log: &str, wrapper: Vec<String>) -> Daemon {
    let config = logging(address, log);
    let builder = Daemon::builder().config(&config).wrapper(wrapper);
    let daemon = builder.without_ready().start();
    daemon.wait_notify(|message| message == "READY=1");
    daemon
}

/// Serves, reloads and ends as ever.
fn lives_well(mut daemon: Daemon, address: SocketAddr) {
    serve_many(200, address);
    let mark = daemon.notified().len();
    daemon.signal(SIGHUP);
    daemon.wait_notify_after(mark, |message| message == "READY=1");
    exchange(address, b"hello");
    daemon.signal(SIGTERM);
    let status = daemon.wait_exit();
    assert_eq!(status.code(), Some(0), "{status}");
}

#[test]
fn it_serves_with_standard_error_closed() {
    let address = free_address();
    let wrapper = ["sh", "-c", "exec \"$@\" 2>&-", "sh"];
    let wrapper = wrapper.map(str::to_owned).into();
    lives_well(unheard(address, EVERY_RECORD, wrapper), address);
}

#[test]
fn it_serves_with_all_three_streams_closed() {
    let address = free_address();
    let wrapper = ["sh", "-c", "exec \"$@\" <&- >&- 2>&-", "sh"];
    let wrapper = wrapper.map(str::to_owned).into();
    lives_well(unheard(address, EVERY_RECORD, wrapper), address);
}

#[test]
fn it_serves_when_the_reader_of_standard_error_is_gone() {
    let pipe = Pipe::new();
    let reader = pipe.open();
    let address = free_address();
    let daemon = unheard(address, EVERY_RECORD, stderr_to(&pipe.path));
    drop(reader);
    lives_well(daemon, address);
}

#[test]
fn a_full_pipe_at_standard_error_holds_up_nobody_and_nothing_is_lost_unsaid() {
    let pipe = Pipe::new();
    let mut reader = pipe.open();
    let address = free_address();
    let daemon = unheard(address, EVERY_RECORD, stderr_to(&pipe.path));
    // More than pipe and queue hold, a hundred bytes a record, however fast they come.
    let peers = 64 * 1024 / 100 + echod::logging::QUEUE_MAX + 1000;
    serve_many(peers, address);
    let (mut text, mut sum) = (String::new(), Sum::default());
    let deadline = Instant::now() + support::PATIENCE;
    while sum_of(&mut reader, &mut text, &mut sum) < peers {
        assert!(
            Instant::now() < deadline,
            "not all are accounted for: {sum:?}"
        );
        std::thread::yield_now();
    }
    assert_eq!(sum.records + sum.dropped, peers, "{sum:?}");
    assert!(sum.dropped > 0, "it did not stall");
    assert!(sum.records > 100, "{sum:?}");
    lives_well(daemon, address);
}

/// Takes whole lines that are there.
fn sum_of(reader: &mut std::fs::File, text: &mut String, sum: &mut Sum) -> usize {
    let mut buffer = [0; 65536];
    match reader.read(&mut buffer) {
        Ok(count) => text.push_str(str::from_utf8(&buffer[..count]).expect("ASCII")),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(error) => panic!("read: {error}"),
    }
    while let Some((line, rest)) = text.split_once('\n') {
        sum.take(line);
        *text = rest.to_owned();
    }
    sum.records + sum.dropped
}

#[test]
fn under_systemd_a_line_on_standard_error_begins_with_its_priority() {
    let pipe = Pipe::new();
    let mut reader = pipe.open();
    let file = reader.metadata().expect("its numbers");
    let address = free_address();
    let config = logging(address, "");
    let builder = Daemon::builder()
        .config(&config)
        .wrapper(stderr_to(&pipe.path));
    let stream = format!("{}:{}", file.dev(), file.ino());
    let daemon = builder
        .env("JOURNAL_STREAM", stream)
        .without_ready()
        .start();
    daemon.wait_notify(|message| message == "READY=1");
    daemon.write_config("workers = 0\n");
    assert_eq!(daemon.reload().status.code(), Some(78));
    let mut daemon = daemon;
    daemon.signal(SIGTERM);
    assert_eq!(daemon.wait_exit().code(), Some(0));
    let mut bytes = vec![0; 65536];
    let count = reader.read(&mut bytes).expect("lines");
    let text = String::from_utf8_lossy(&bytes[..count]);
    assert!(text.contains("<6>ready workers="), "{text}");
    assert!(
        text.contains("\n<3>reload refused, serving as before: "),
        "{text}"
    );
    let begins = |line: &str| line.starts_with('<') && line.as_bytes()[2] == b'>';
    assert!(text.lines().all(begins), "{text}");
}

// Which connections are recorded

/// Records and those that summaries count.
fn recorded(lines: &[String]) -> (usize, usize) {
    let records = lines.iter().filter(|line| line.contains(RECORD)).count();
    let summaries = lines.iter().filter(|line| line.contains(SUMMARY));
    let counted = summaries.map(|line| count(line, "done") + count(line, "reset"));
    (records, counted.sum())
}

#[test]
fn above_record_rate_the_rest_is_in_summaries_and_all_adds_up() {
    let address = free_address();
    let daemon = Daemon::start(&logging(address, ""));
    let from = Instant::now();
    for _ in 0..3000 {
        exchange(address, b"x");
    }
    kernel::wait_until("3000 are accounted for", || {
        let (records, counted) = recorded(&daemon.lines());
        records + counted >= 3000
    });
    let seconds = usize::try_from(from.elapsed().as_secs()).expect("a few") + 1;
    // A burst of 1000, and 20 a second.
    let (records, counted) = recorded(&daemon.lines());
    assert!(
        records <= 1000 + 20 * seconds,
        "{records} records in {seconds} s"
    );
    assert!(records >= 500, "{records} records");
    assert_eq!(records + counted, 3000);
    let summary = daemon.wait_line(SUMMARY);
    assert!(
        summary.contains(" busiest=127.0.0.1/32 busiest_count="),
        "{summary}"
    );
    // At most one summary a second.
    let lines = daemon.lines();
    let summaries = lines.iter().filter(|line| line.contains(SUMMARY)).count();
    assert!(summaries <= seconds + 1, "{summaries} in {seconds} s");

    // Failures are still recorded, each.
    for _ in 0..10 {
        exchange_and_reset(address, b"x");
    }
    daemon.wait_lines(10, "reason=reset received=1");
    let (records, counted) = recorded(&all_lines(daemon));
    assert_eq!(records + counted, 3010);
}

#[test]
fn what_is_still_counted_at_the_end_is_said_then() {
    let address = free_address();
    let daemon = Daemon::start(&logging(address, ""));
    for _ in 0..2000 {
        exchange(address, b"x");
    }
    let (records, counted) = recorded(&all_lines(daemon));
    assert_eq!(records + counted, 2000, "{records} and {counted}");
}

/// What is said of a peer that is done, one that resets, and one that says nothing.
fn records_with(log: &str) -> Vec<String> {
    let address = free_address();
    let daemon = Daemon::start(&logging(address, log));
    exchange(address, b"done");
    exchange_and_reset(address, b"broken");
    exchange(address, b"");
    let lines = all_lines(daemon).into_iter();
    lines.filter(|line| line.contains("connection ")).collect()
}

fn has(lines: &[String], pattern: &str) -> usize {
    lines.iter().filter(|line| line.contains(pattern)).count()
}

#[test]
fn records_says_which_connections_leave_one() {
    let done = "connection ended peer=127.0.0.1:";
    let lines = records_with("records = \"ended\"");
    assert_eq!((lines.len(), has(&lines, done)), (2, 2), "{lines:?}");
    assert_eq!(has(&lines, "reason=done received=4 sent=4"), 1, "{lines:?}");
    assert_eq!(
        has(&lines, "reason=reset received=6 sent=6"),
        1,
        "{lines:?}"
    );

    let lines = records_with("records = \"failed\"");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(has(&lines, "reason=reset"), 1, "{lines:?}");

    let lines = records_with("records = \"none\"");
    assert_eq!(lines, [""; 0]);

    let lines = records_with("records = \"both\"");
    let started = "connection started peer=127.0.0.1:";
    assert_eq!(
        (has(&lines, started), has(&lines, done)),
        (3, 2),
        "{lines:?}"
    );
}

#[test]
fn who_sent_nothing_and_left_is_said_at_debug_or_when_asked_for() {
    let empty = "reason=done received=0 sent=0";
    assert_eq!(has(&records_with(""), empty), 0);
    assert_eq!(has(&records_with("level = \"debug\""), empty), 1);
    assert_eq!(has(&records_with("empty = true"), empty), 1);
    assert_eq!(has(&records_with("level = \"warning\""), "ended"), 0);
}

#[test]
fn a_peer_may_be_written_as_its_prefix_alone() {
    let config =
        "[log]\npeer = \"prefix\"\nrecords = \"both\"\n[[listener]]\naddress = \"[::]:0\"\n";
    let daemon = Daemon::start(config);
    let port = daemon.addr().port();
    let mut ports = Vec::new();
    for address in [
        SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port)),
        SocketAddr::from(([127, 0, 0, 1], port)),
    ] {
        let peer = connect(address);
        ports.push(peer.local_addr().expect("its address").port());
        echo_exact(&peer, b"hello");
    }
    daemon.wait_lines(
        1,
        "connection ended peer=127.0.0.1/32 listener=echo reason=done",
    );
    daemon.wait_lines(1, "connection ended peer=::/64 listener=echo reason=done");
    for line in all_lines(daemon) {
        for port in &ports {
            assert!(!line.contains(&port.to_string()), "{line}");
        }
    }
}

#[test]
fn no_byte_of_a_peer_reaches_the_log() {
    let address = free_address();
    let text = logging(
        address,
        "level = \"debug\"\nrecords = \"both\"\nempty = true",
    );
    let daemon = Daemon::start(&format!("{text}max_bytes = \"1KiB\"\n"));
    let secret = b"sEcReT\n<3>echod[1]: forged\r\n\x1b[2J\0";
    exchange(address, secret);
    exchange_and_reset(address, secret);
    // One that is ended by us, and goes on.
    let mut peer = connect(address);
    peer.write_all(&secret.repeat(100)).expect("sent");
    let mut back = Vec::new();
    peer.read_to_end(&mut back).expect("the end");
    drop(peer);
    daemon.wait_line("reason=done");
    daemon.wait_line("reason=reset");
    daemon.wait_line("reason=quota");
    let lines = all_lines(daemon);
    for line in &lines {
        for word in ["sEcReT", "forged", "\u{1b}", "734563", "x1b"] {
            assert!(!line.contains(word), "{line:?}");
        }
        assert!(
            line.bytes().all(|byte| matches!(byte, b' '..=b'~')),
            "{line:?}"
        );
    }
}
