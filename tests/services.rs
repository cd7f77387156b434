//! The small services, as their peers know them: discard, chargen, daytime, time, whoami.
//!
//! Each test has a daemon with the listeners that it needs. Characters are checked against a formula of this file's
//! own, dates and JSON by libraries that read them.

mod support;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use nix::sys::signal::Signal;
use nix::unistd::{SysconfVar, sysconf};
use serde_json::Value;
use socket2::SockRef;
use support::{Daemon, PATIENCE, connect, echo_exact, expect_end, patterned};

const MIB: usize = 1 << 20;

/// More than one turn sends, and no whole number of lines.
const PIECE: usize = 100_000;

/// A daemon with a listener for each of these services, named as it is; and these keys for all.
fn far(services: &[&str], keys: &str) -> Daemon {
    Daemon::start(&config("", services, keys))
}

fn config(top: &str, services: &[&str], keys: &str) -> String {
    let listener = |service: &&str| {
        format!(
            "[[listener]]\nname = \"{service}\"\nservice = \"{service}\"\naddress = [\"127.0.0.1:0\"]\n{keys}\n"
        )
    };
    let listeners: String = services.iter().map(listener).collect();
    format!("workers = 2\n{top}\n[log]\nempty = true\n{listeners}")
}

fn local(stream: &TcpStream) -> SocketAddr {
    stream.local_addr().expect("an address")
}

/// The record of a connection.
fn record(daemon: &Daemon, peer: SocketAddr) -> String {
    daemon.wait_line(&format!("connection ended peer={peer} "))
}

/// The record of a connection says so.
fn ended(daemon: &Daemon, peer: SocketAddr, told: &str) {
    let record = record(daemon, peer);
    assert!(
        record.contains(&format!(" {told} ")),
        "not {told:?}: {record}"
    );
}

/// The character at a place of RFC 864's pattern.
fn character(at: usize) -> u8 {
    let (line, column) = (at / 74 % 95, at % 74);
    match column {
        72 => b'\r',
        73 => b'\n',
        column => b' ' + u8::try_from((line + column) % 95).expect("below 95"),
    }
}

/// Reads so many characters, from a place of the pattern on.
fn expect_characters(mut stream: &TcpStream, from: usize, count: usize) {
    let mut at = from;
    let mut bytes = vec![0; PIECE];
    while at < from + count {
        let room = (from + count - at).min(PIECE);
        let read = stream.read(&mut bytes[..room]).expect("read");
        assert!(read > 0, "the end after {at}");
        for (byte, at) in bytes[..read].iter().zip(at..) {
            assert_eq!(*byte, character(at), "character {at}");
        }
        at += read;
    }
}

/// Reads the rest.
fn rest(mut stream: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("the end");
    bytes
}

/// Reads one line.
fn line(mut stream: &TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\n") {
        stream.read_exact(&mut byte).expect("a line");
        bytes.extend_from_slice(&byte);
    }
    String::from_utf8(bytes).expect("text")
}

fn whoami(stream: &TcpStream) -> Value {
    serde_json::from_str(&line(stream)).expect("JSON")
}

/// The processor time that the daemon has used.
fn cpu(daemon: &Daemon) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).expect("a process");
    let (_, rest) = stat.rsplit_once(") ").expect("a name");
    let ticks = rest.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.map(|t| t.parse::<u64>().expect("a number")).sum();
    let rate = sysconf(SysconfVar::CLK_TCK).expect("ask").expect("a rate");
    Duration::from_millis(ticks * 1000 / rate.unsigned_abs())
}

/// The memory that the daemon has in its address space, in bytes.
fn resident(daemon: &Daemon) -> usize {
    let path = format!("/proc/{}/smaps_rollup", daemon.pid());
    let rollup = fs::read_to_string(path).expect("a process");
    let rss = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
    let kib = rss.and_then(|rest| rest.trim().strip_suffix(" kB"));
    kib.expect("Rss").trim().parse::<usize>().expect("a number") * 1024
}

#[test]
fn discard_takes_everything_and_says_nothing() {
    let daemon = far(&["discard"], "");
    let mut stream = connect(daemon.addr());
    for at in 0..64 {
        let bytes = patterned(1, at * MIB as u64, MIB);
        stream.write_all(&bytes).expect("write");
    }
    stream.shutdown(Shutdown::Write).expect("shutdown");
    expect_end(&stream);
    let told = format!("reason=done received={} sent=0", 64 * MIB);
    ended(&daemon, local(&stream), &told);
}

#[test]
fn a_quota_of_discard_is_for_what_it_takes() {
    let daemon = far(&["discard"], "max_bytes = \"1000\"");
    let mut exact = connect(daemon.addr());
    exact.write_all(&[1; 1000]).expect("write");
    exact.shutdown(Shutdown::Write).expect("shutdown");
    expect_end(&exact);
    ended(&daemon, local(&exact), "reason=done received=1000 sent=0");
    let mut over = connect(daemon.addr());
    over.write_all(&[1; 1001]).expect("write");
    expect_end(&over);
    ended(&daemon, local(&over), "reason=quota received=1001 sent=0");
}

#[test]
fn characters_come_in_order_without_end() {
    let daemon = far(&["chargen"], "");
    let streams = [(); 3].map(|()| connect(daemon.addr()));
    // What they say is thrown away.
    for mut stream in &streams {
        stream.write_all(b"anything").expect("write");
    }
    thread::scope(|scope| {
        for stream in &streams {
            scope.spawn(|| expect_characters(stream, 0, 16 * MIB));
        }
    });
}

#[test]
fn who_stops_reading_characters_costs_nothing() {
    let daemon = far(&["chargen"], "timeout = { stall = \"off\" }");
    let streams: Vec<_> = (0..20).map(|_| connect(daemon.addr())).collect();
    for stream in &streams {
        expect_characters(stream, 0, PIECE);
    }
    // Until the kernel takes no more for any of them, and for some time then.
    let settled = |last: Duration| {
        thread::sleep(Duration::from_millis(100));
        let now = cpu(&daemon);
        (now, now == last)
    };
    let deadline = Instant::now() + PATIENCE;
    let (mut last, mut quiet) = (cpu(&daemon), 0);
    while quiet < 5 {
        assert!(Instant::now() < deadline, "it goes on working for nobody");
        let (now, is_quiet) = settled(last);
        last = now;
        quiet = if is_quiet { quiet + 1 } else { 0 };
    }
    let before = (cpu(&daemon), resident(&daemon));
    thread::sleep(Duration::from_millis(500));
    assert!(cpu(&daemon) - before.0 <= Duration::from_millis(20));
    assert!(resident(&daemon) <= before.1 + MIB, "it takes memory");
    // And nothing was lost of what they were owed.
    for stream in &streams {
        expect_characters(stream, PIECE, 8 * MIB);
    }
}

#[test]
fn who_takes_no_characters_is_reset() {
    let daemon = far(&["chargen"], "timeout = { stall = \"1s\" }");
    let stream = connect(daemon.addr());
    let record = record(&daemon, local(&stream));
    assert!(record.contains(" reason=stall "), "{record}");
}

#[test]
fn characters_end_exactly_at_the_quota() {
    let daemon = far(&["chargen"], "max_bytes = \"1000003\"");
    let stream = connect(daemon.addr());
    expect_characters(&stream, 0, 1_000_003);
    expect_end(&stream);
    ended(
        &daemon,
        local(&stream),
        "reason=quota received=0 sent=1000003",
    );
}

#[test]
fn characters_end_soon_after_a_fin() {
    let daemon = far(&["chargen"], "");
    let stream = connect(daemon.addr());
    expect_characters(&stream, 0, 3 * MIB);
    stream.shutdown(Shutdown::Write).expect("shutdown");
    let bytes = rest(&stream);
    for (byte, at) in bytes.iter().zip(3 * MIB..) {
        assert_eq!(*byte, character(at), "character {at}");
    }
    let told = format!("reason=done received=0 sent={}", 3 * MIB + bytes.len());
    ended(&daemon, local(&stream), &told);
}

#[test]
fn a_drain_ends_characters_at_once() {
    let text = config(
        "drain_idle = \"20s\"\ndrain_timeout = \"40s\"",
        &["chargen"],
        "",
    );
    let mut daemon = Daemon::start(&text);
    let reader = |stream: TcpStream| {
        move || {
            let peer = local(&stream);
            let count = rest(&stream).len();
            (peer, count)
        }
    };
    let readers = [(); 3].map(|()| {
        let stream = connect(daemon.addr());
        expect_characters(&stream, 0, PIECE);
        thread::spawn(reader(stream))
    });
    let since = Instant::now();
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.wait_exit().success());
    assert!(since.elapsed() < Duration::from_secs(10));
    for reader in readers {
        let (peer, count) = reader.join().expect("to the end");
        let told = format!("reason=drain received=0 sent={}", PIECE + count);
        ended(&daemon, peer, &told);
    }
}

#[test]
fn who_reads_fast_does_not_hold_the_worker() {
    let text = config("", &["chargen", "echo"], "").replace("workers = 2", "workers = 1");
    let daemon = Daemon::start(&text);
    let (characters, echo) = (daemon.addr_of("chargen"), daemon.addr_of("echo"));
    let busy = connect(characters);
    let reader = {
        let stream = busy.try_clone().expect("clone");
        thread::spawn(move || {
            let mut bytes = vec![0; MIB];
            let read = |mut stream: &TcpStream, bytes: &mut [u8]| stream.read(bytes);
            while read(&stream, &mut bytes).is_ok_and(|count| count > 0) {}
        })
    };
    let stream = connect(echo);
    let since = Instant::now();
    for round in 0..200 {
        echo_exact(&stream, &patterned(2, round, 100));
    }
    assert!(
        since.elapsed() < Duration::from_secs(5),
        "{:?}",
        since.elapsed()
    );
    busy.shutdown(Shutdown::Both).expect("shutdown");
    reader.join().expect("read");
}

#[test]
fn daytime_is_the_time_in_words_and_the_end() {
    let daemon = far(&["daytime"], "");
    let before = Timestamp::now();
    let stream = connect(daemon.addr());
    let text = String::from_utf8(rest(&stream)).expect("text");
    let told = text.strip_suffix("-UTC\r\n").expect("UTC, in one line");
    let told = DateTime::strptime("%A, %B %d, %Y %H:%M:%S", told).expect("a date");
    let told = told.to_zoned(TimeZone::UTC).expect("a time").timestamp();
    assert!(told >= before - 1.second() && told <= Timestamp::now());
    let told = format!("reason=done received=0 sent={}", text.len());
    let peer = local(&stream);
    drop(stream);
    ended(&daemon, peer, &told);
}

#[test]
fn time_is_four_bytes_and_the_end() {
    let daemon = far(&["time"], "");
    let before = Timestamp::now().as_second();
    let stream = connect(daemon.addr());
    let bytes: [u8; 4] = rest(&stream).try_into().expect("four bytes");
    let told = i64::from(u32::from_be_bytes(bytes)) - 2_208_988_800;
    // The number begins again in 2036.
    let (since, until) = (before - 1, Timestamp::now().as_second());
    let is_now = [0, 1 << 32].map(|more| (since..=until).contains(&(told + more)));
    assert!(
        is_now.contains(&true),
        "{told} is not from {since} to {until}"
    );
    let peer = local(&stream);
    drop(stream);
    ended(&daemon, peer, "reason=done received=0 sent=4");
}

#[test]
fn who_does_not_close_after_the_time_is_closed() {
    let daemon = far(&["time"], "");
    let mut stream = connect(daemon.addr());
    stream.write_all(b"what time is it?").expect("write");
    assert_eq!(rest(&stream).len(), 4);
    ended(&daemon, local(&stream), "reason=done received=16 sent=4");
}

#[test]
fn whoami_tells_the_peer_of_itself_and_is_echo_then() {
    let daemon = far(&["whoami"], "");
    let stream = connect(daemon.addr());
    let told = line(&stream);
    let value: Value = serde_json::from_str(&told).expect("JSON");
    let keys: Vec<_> = value.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["listener", "peer", "tcp"], "{told}");
    let peer = local(&stream);
    assert_eq!(value["peer"]["address"], peer.ip().to_string());
    assert_eq!(value["peer"]["port"], peer.port());
    assert_eq!(value["listener"], "whoami");
    let tcp = &value["tcp"];
    assert!(tcp["mss"].as_u64().expect("a number") >= 536);
    assert!(tcp["rtt_us"].as_u64().is_some());
    assert!(tcp["sack"].is_boolean() && tcp["timestamps"].is_boolean());
    let ours = SockRef::from(&stream).tcp_congestion().expect("ask");
    let ours = String::from_utf8_lossy(&ours);
    assert_eq!(
        tcp["congestion"],
        *ours.trim_end_matches('\0'),
        "as on this host"
    );
    echo_exact(&stream, &patterned(3, 0, MIB));
    stream.shutdown(Shutdown::Write).expect("shutdown");
    expect_end(&stream);
    let told = format!("reason=done received={MIB} sent={}", told.len() + MIB);
    ended(&daemon, peer, &told);
}

#[test]
fn whoami_waits_for_a_first_byte_and_counts_its_words() {
    let daemon = far(&["whoami"], "timeout = { first_byte = \"300ms\" }");
    let stream = connect(daemon.addr());
    let told = line(&stream);
    expect_end(&stream);
    let told = format!("reason=first_byte received=0 sent={}", told.len());
    ended(&daemon, local(&stream), &told);

    let daemon = far(&["whoami"], "max_bytes = \"20\"");
    let stream = connect(daemon.addr());
    assert_eq!(rest(&stream), b"{\"peer\":{\"address\":\"");
    ended(&daemon, local(&stream), "reason=quota received=0 sent=20");
}

#[test]
fn whoami_says_what_we_are_called_and_a_reload_changes_it() {
    let listener =
        "[[listener]]\nname = \"w\"\nservice = \"whoami\"\naddress = [\"127.0.0.1:0\"]\n";
    let daemon = Daemon::start(&format!("instance = \"far end 3\"\n{listener}"));
    let stream = connect(daemon.addr());
    let value = whoami(&stream);
    assert_eq!(value["instance"], "far end 3");
    assert_eq!(value.get("contact"), None, "it is not set");
    daemon.adopt(&format!("contact = \"noc@example.net\"\n{listener}"));
    let value = whoami(&connect(daemon.addr()));
    assert_eq!(value.get("instance"), None, "it is set no longer");
    assert_eq!(value["contact"], "noc@example.net");
    // Who was there before goes on as before.
    echo_exact(&stream, b"still here");
}

#[test]
fn whoami_knows_a_peer_by_its_own_address_family() {
    let text = "[[listener]]\nname = \"w\"\nservice = \"whoami\"\naddress = [\"[::]:0\"]\n";
    let daemon = Daemon::start(text);
    let port = daemon.addr().port();
    for host in ["127.0.0.1", "::1"] {
        let address = SocketAddr::new(host.parse().expect("an address"), port);
        let stream = connect(address);
        let value = whoami(&stream);
        assert_eq!(value["peer"]["address"], host);
        assert_eq!(value["peer"]["port"], local(&stream).port());
    }
}

#[test]
fn each_listener_has_its_own_service_and_a_reload_may_change_it() {
    let daemon = far(&["discard", "echo"], "");
    let (discard, echo) = (daemon.addr_of("discard"), daemon.addr_of("echo"));
    let (mut silent, loud) = (connect(discard), connect(echo));
    silent.write_all(b"hello").expect("write");
    echo_exact(&loud, b"hello");
    let text = config("", &["discard", "echo"], "");
    daemon.adopt(&text.replacen("service = \"discard\"", "service = \"echo\"", 1));
    // Who is there keeps what it came for.
    echo_exact(&connect(discard), b"hello");
    silent.write_all(b"again").expect("write");
    let wait = Some(Duration::from_millis(200));
    silent.set_read_timeout(wait).expect("a timeout");
    let error = silent.read(&mut [0]).expect_err("an answer");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}
