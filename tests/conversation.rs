//! What peers say to the daemon, and what they hear: one table of dialogues, over both families.
//!
//! Each dialogue is run three times: over IPv4, over IPv6, and over IPv4 with a socket of both. Bytes
//! come from [`support::pattern`], so one that is lost, doubled, moved or another peer's is noticed.

mod support;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, SockRef, Socket, Type};
use support::{
    Daemon, PATIENCE, connect, echo_exact, expect_end, expect_exact, pattern, patterned,
};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// `buffer` of the daemon that most dialogues are had with.
const BUFFER: usize = 16 * KIB;

/// Both readings of the coarse clock behind a timeout may be so old.
const TICK: Duration = Duration::from_millis(10);

/// How long a peer that is not read must find its socket full before that counts as stuck.
const STUCK: u16 = 300;

/// The daemon, and the way there.
struct Far {
    daemon: Daemon,
    address: SocketAddr,
}

impl Far {
    fn connect(&self) -> TcpStream {
        connect(self.address)
    }

    /// The record of a connection that this peer had.
    fn record(&self, peer: SocketAddr) -> String {
        let ip = peer.ip().to_canonical();
        let peer = SocketAddr::new(ip, peer.port());
        self.daemon
            .wait_line(&format!("connection ended peer={peer} "))
    }

    /// The same, and it says why it ended and what it carried.
    fn ended(&self, peer: SocketAddr, reason: &str, received: usize, sent: usize) {
        let record = self.record(peer);
        let told = format!(" reason={reason} received={received} sent={sent} ");
        assert!(record.contains(&told), "not {told:?}: {record}");
    }
}

#[derive(Clone, Copy)]
enum Way {
    Ipv4,
    Ipv6,
    Ipv4ToBoth,
}

/// A daemon with these keys in its listener.
fn far(way: Way, keys: &str) -> Far {
    let address = match way {
        Way::Ipv4 => "127.0.0.1:0",
        Way::Ipv6 | Way::Ipv4ToBoth => "[::]:0",
    };
    let daemon = Daemon::start(&format!(
        "workers = 2\n[log]\nempty = true\n\
         [[listener]]\nname = \"echo\"\naddress = [\"{address}\"]\n{keys}\n"
    ));
    let ip = match way {
        Way::Ipv6 => Ipv6Addr::LOCALHOST.into(),
        Way::Ipv4 | Way::Ipv4ToBoth => Ipv4Addr::LOCALHOST.into(),
    };
    let address = SocketAddr::new(ip, daemon.addr().port());
    Far { daemon, address }
}

/// The table: a dialogue, and the keys of the listener that it is had with.
macro_rules! dialogues {
    ($($dialogue:ident: $keys:expr;)+) => { $(
        mod $dialogue {
            use super::{Way, far};

            #[test]
            fn over_ipv4() {
                super::$dialogue(&far(Way::Ipv4, $keys));
            }

            #[test]
            fn over_ipv6() {
                super::$dialogue(&far(Way::Ipv6, $keys));
            }

            #[test]
            fn over_ipv4_with_a_socket_of_both() {
                super::$dialogue(&far(Way::Ipv4ToBoth, $keys));
            }
        }
    )+ };
}

dialogues! {
    who_says_nothing_hears_nothing_but_the_end: "";
    one_byte_comes_back: "";
    exactly_a_buffer_comes_back: "buffer = \"16KiB\"";
    one_byte_more_than_a_buffer_comes_back: "buffer = \"16KiB\"";
    a_long_stream_comes_back_in_order: "";
    a_long_stream_through_a_small_buffer_comes_back_in_order: "buffer = \"4KiB\"";
    much_may_be_written_before_the_first_read: "";
    all_that_is_owed_comes_after_a_half_close: "";
    all_that_is_owed_comes_long_after_the_half_close_was_seen: "buffer = \"64MiB\"";
    a_reset_in_the_middle_harms_nobody_else: "";
    what_comes_with_the_handshake_is_answered: "";
    what_comes_with_the_handshake_and_a_fin_is_answered: "";
    an_urgent_byte_comes_back_in_its_place: "";
    an_urgent_byte_comes_back_in_its_place_in_a_long_stream: "buffer = \"4KiB\"";
    an_urgent_byte_may_be_the_last: "";
    small_writes_may_be_read_in_other_pieces: "";
    who_never_reads_waits_alone: "timeout = { stall = \"off\" }";
    a_quota_may_be_used_up: "max_bytes = \"20000\"";
    one_byte_past_the_quota_is_not_answered: "max_bytes = \"20000\"";
    much_past_the_quota_is_not_answered: "max_bytes = \"20000\"";
    who_is_silent_for_long_is_ended: "timeout = { idle = \"300ms\" }";
    who_talks_is_not_idle: "timeout = { idle = \"1s\" }";
    who_never_says_a_first_byte_is_ended: "timeout = { first_byte = \"300ms\" }";
    a_first_byte_is_enough: "timeout = { first_byte = \"500ms\" }";
    nobody_outlives_the_lifetime: "timeout = { lifetime = \"400ms\" }";
    who_takes_nothing_is_reset: "timeout = { stall = \"2s\" }";
    who_takes_nothing_after_its_fin_is_reset: "buffer = \"64MiB\"\ntimeout = { stall = \"1s\" }";
    who_takes_little_is_not_stalled: "buffer = \"4KiB\"\ntimeout = { stall = \"1s\" }";
}

fn who_says_nothing_hears_nothing_but_the_end(far: &Far) {
    let stream = far.connect();
    stream.shutdown(Shutdown::Write).expect("shutdown");
    expect_end(&stream);
    far.ended(local(&stream), "done", 0, 0);
}

fn one_byte_comes_back(far: &Far) {
    let stream = far.connect();
    echo_exact(&stream, b"x");
    stream.shutdown(Shutdown::Write).expect("shutdown");
    expect_end(&stream);
    far.ended(local(&stream), "done", 1, 1);
}

fn exactly_a_buffer_comes_back(far: &Far) {
    at_once(far, BUFFER);
}

fn one_byte_more_than_a_buffer_comes_back(far: &Far) {
    at_once(far, BUFFER + 1);
}

/// So many bytes in one write, twice, then the end.
fn at_once(far: &Far, length: usize) {
    let stream = far.connect();
    echo_exact(&stream, &patterned(1, 0, length));
    echo_exact(&stream, &patterned(2, 0, length));
    stream.shutdown(Shutdown::Write).expect("shutdown");
    expect_end(&stream);
    far.ended(local(&stream), "done", 2 * length, 2 * length);
}

fn a_long_stream_comes_back_in_order(far: &Far) {
    long_stream(far, 64 * MIB);
}

fn a_long_stream_through_a_small_buffer_comes_back_in_order(far: &Far) {
    long_stream(far, 16 * MIB);
}

fn long_stream(far: &Far, length: usize) {
    let stream = far.connect();
    let writer = write_behind(&stream, 3, length);
    expect_stream(&stream, 3, length);
    expect_end(&stream);
    assert_eq!(writer.recv_timeout(PATIENCE), Ok(length));
    far.ended(local(&stream), "done", length, length);
}

fn much_may_be_written_before_the_first_read(far: &Far) {
    let stream = far.connect();
    let writer = write_behind(&stream, 4, MIB);
    assert_eq!(writer.recv_timeout(PATIENCE), Ok(MIB), "nobody reads it");
    expect_stream(&stream, 4, MIB);
    expect_end(&stream);
    far.ended(local(&stream), "done", MIB, MIB);
}

fn all_that_is_owed_comes_after_a_half_close(far: &Far) {
    let stream = far.connect();
    // So that all of it and the FIN are out of our hands before the first read.
    SockRef::from(&stream)
        .set_send_buffer_size(8 * MIB)
        .expect("a buffer");
    let writer = write_behind(&stream, 5, 4 * MIB);
    assert_eq!(writer.recv_timeout(PATIENCE), Ok(4 * MIB));
    expect_stream(&stream, 5, 4 * MIB);
    expect_end(&stream);
    far.ended(local(&stream), "done", 4 * MIB, 4 * MIB);
}

fn all_that_is_owed_comes_long_after_the_half_close_was_seen(far: &Far) {
    let stream = far.connect();
    let writer = write_behind(&stream, 5, 32 * MIB);
    // More than kernels hold: the daemon has most of it.
    assert_eq!(writer.recv_timeout(PATIENCE), Ok(32 * MIB));
    expect_stream(&stream, 5, 32 * MIB);
    expect_end(&stream);
    far.ended(local(&stream), "done", 32 * MIB, 32 * MIB);
}

fn a_reset_in_the_middle_harms_nobody_else(far: &Far) {
    let others: Vec<_> = (0..8).map(|_| far.connect()).collect();
    let mut peers = Vec::new();
    for round in 0..16 {
        let stream = far.connect();
        // Owed much, owed nothing, and in between.
        let length = round * 64 * KIB + 1;
        let writer = write_open(&stream, round as u64, length);
        expect_stream(&stream, round as u64, length / (round % 4 + 1));
        peers.push(local(&stream));
        SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .expect("linger");
        // The writer may still hold the socket: a reset must not wait for it.
        let _ = stream.shutdown(Shutdown::Both);
        let _ = writer.recv_timeout(PATIENCE);
        drop(stream);
        for (seed, other) in others.iter().enumerate() {
            echo_exact(other, &patterned(seed as u64, round as u64, 1000));
        }
    }
    for peer in peers {
        let record = far.record(peer);
        let known = ["reason=reset", "reason=done"]
            .iter()
            .any(|r| record.contains(r));
        assert!(known, "{record}");
    }
    let stream = far.connect();
    echo_exact(&stream, b"still here");
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .expect("linger");
    let peer = local(&stream);
    drop(stream);
    far.ended(peer, "reset", 10, 10);
}

fn what_comes_with_the_handshake_is_answered(far: &Far) {
    with_the_handshake(far, |mut stream| stream.write_all(b"early").expect("write"));
}

fn what_comes_with_the_handshake_and_a_fin_is_answered(far: &Far) {
    with_the_handshake(far, |stream| {
        // Held back until the FIN, which goes with it.
        let sent = SockRef::from(stream).send_with_flags(b"early", libc::MSG_MORE);
        assert_eq!(sent.expect("send"), 5);
        stream.shutdown(Shutdown::Write).expect("shutdown");
    });
}

/// The last packet of the handshake is the first with bytes. The kernel sends it by itself if that
/// takes long, so it is tried until it has happened, and a few times.
fn with_the_handshake(far: &Far, say: impl Fn(&TcpStream)) {
    let deadline = Instant::now() + PATIENCE;
    let mut together = 0;
    while together < 10 {
        assert!(Instant::now() < deadline, "the handshake was always over");
        let domain = Domain::for_address(far.address);
        let socket = Socket::new(domain, Type::STREAM, None).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket.set_tcp_quickack(false).expect("no quick ack");
        socket.connect(&far.address.into()).expect("connect");
        let stream = TcpStream::from(socket);
        together += u32::from(is_half_open(&far.daemon, local(&stream)));
        say(&stream);
        expect_exact(&stream, b"early");
        let _ = stream.shutdown(Shutdown::Write);
        expect_end(&stream);
        far.ended(local(&stream), "done", 5, 5);
    }
}

/// Does the kernel still wait for the end of the handshake, on the daemon's side?
fn is_half_open(daemon: &Daemon, peer: SocketAddr) -> bool {
    const SYN_RECV: &str = "03";
    let table = match daemon.addr() {
        SocketAddr::V4(_) => "/proc/net/tcp",
        SocketAddr::V6(_) => "/proc/net/tcp6",
    };
    let ends_with = |field: Option<&str>, port: u16| {
        field.is_some_and(|address| address.ends_with(&format!(":{port:04X}")))
    };
    let table = fs::read_to_string(table).expect("the kernel's connections");
    table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        ends_with(fields.next(), daemon.addr().port())
            && ends_with(fields.next(), peer.port())
            && fields.next() == Some(SYN_RECV)
    })
}

fn an_urgent_byte_comes_back_in_its_place(far: &Far) {
    let mut stream = far.connect();
    for _ in 0..100 {
        stream.write_all(b"before").expect("write");
        send_urgent(&stream, b"!");
        stream.write_all(b"after").expect("write");
        expect_exact(&stream, b"before!after");
        send_urgent(&stream, b"a!");
        send_urgent(&stream, b"b?");
        expect_exact(&stream, b"a!b?");
    }
    stream.shutdown(Shutdown::Write).expect("shutdown");
    expect_end(&stream);
    far.ended(local(&stream), "done", 1600, 1600);
}

fn an_urgent_byte_comes_back_in_its_place_in_a_long_stream(far: &Far) {
    let stream = far.connect();
    let piece = 100_000;
    let mut writer = stream.try_clone().expect("clone");
    let written = thread::spawn(move || {
        for round in 0..20 {
            let bytes = patterned(6, round * piece, as_length(piece));
            writer.write_all(&bytes).expect("write");
            // The last of them.
            send_urgent(&writer, &[pattern(7, round)]);
        }
        writer.shutdown(Shutdown::Write).expect("shutdown");
    });
    for round in 0..20 {
        expect_exact(&stream, &patterned(6, round * piece, as_length(piece)));
        expect_exact(&stream, &[pattern(7, round)]);
    }
    expect_end(&stream);
    written.join().expect("written");
}

fn an_urgent_byte_may_be_the_last(far: &Far) {
    for _ in 0..20 {
        let stream = far.connect();
        send_urgent(&stream, b"last!");
        stream.shutdown(Shutdown::Write).expect("shutdown");
        expect_exact(&stream, b"last!");
        expect_end(&stream);
        far.ended(local(&stream), "done", 5, 5);
    }
}

fn small_writes_may_be_read_in_other_pieces(far: &Far) {
    let mut stream = far.connect();
    let sizes = [1, 7, 2, 100, 1, 13, 900];
    let whole: usize = sizes.iter().sum();
    let mut from = 0;
    let mut read = 0;
    for size in sizes {
        stream.write_all(&patterned(8, from, size)).expect("write");
        from += size as u64;
        // Always fewer than were sent.
        let part = size / 2;
        expect_exact(&stream, &patterned(8, read as u64, part));
        read += part;
    }
    while read < whole {
        let part = (whole - read).min(3);
        expect_exact(&stream, &patterned(8, read as u64, part));
        read += part;
    }
    stream.shutdown(Shutdown::Write).expect("shutdown");
    expect_end(&stream);
    far.ended(local(&stream), "done", whole, whole);
}

fn who_never_reads_waits_alone(far: &Far) {
    let silent: Vec<_> = (0..3).map(|seed| (seed, far.connect())).collect();
    let stuck: Vec<_> = silent
        .iter()
        .map(|(seed, s)| write_until_stuck(s, *seed))
        .collect();
    thread::scope(|scope| {
        for seed in 100..120 {
            scope.spawn(move || {
                let stream = far.connect();
                for round in 0..16 {
                    echo_exact(&stream, &patterned(seed, round, 16 * KIB));
                }
                stream.shutdown(Shutdown::Write).expect("shutdown");
                expect_end(&stream);
            });
        }
    });
    for ((seed, stream), written) in silent.iter().zip(stuck) {
        stream.set_nonblocking(false).expect("blocking");
        let length = written + MIB;
        let mut writer = stream.try_clone().expect("clone");
        let (seed, from) = (*seed, written as u64);
        let rest = thread::spawn(move || {
            writer
                .write_all(&patterned(seed, from, MIB))
                .expect("write");
            writer.shutdown(Shutdown::Write).expect("shutdown");
        });
        expect_stream(stream, seed, length);
        expect_end(stream);
        rest.join().expect("written");
        far.ended(local(stream), "done", length, length);
    }
}

fn a_quota_may_be_used_up(far: &Far) {
    // Both ways count.
    let stream = far.connect();
    echo_exact(&stream, &patterned(9, 0, 4000));
    echo_exact(&stream, &patterned(9, 4000, 6000));
    stream.shutdown(Shutdown::Write).expect("shutdown");
    expect_end(&stream);
    far.ended(local(&stream), "done", 10_000, 10_000);
}

fn one_byte_past_the_quota_is_not_answered(far: &Far) {
    let mut stream = far.connect();
    echo_exact(&stream, &patterned(9, 0, 10_000));
    stream.write_all(b"x").expect("write");
    expect_end(&stream);
    // Its side is still open, and it may take its time.
    stream.write_all(b"and more").expect("write");
    stream.shutdown(Shutdown::Write).expect("shutdown");
    let record = far.record(local(&stream));
    assert!(record.contains(" reason=quota "), "{record}");
    assert!(record.contains(" sent=10000 "), "{record}");
}

fn much_past_the_quota_is_not_answered(far: &Far) {
    for length in [10_001, 50_000, 100_000] {
        let stream = far.connect();
        let writer = write_behind(&stream, 10, length);
        expect_stream(&stream, 10, 10_000);
        expect_end(&stream);
        let _ = writer.recv_timeout(PATIENCE);
        let record = far.record(local(&stream));
        assert!(record.contains(" reason=quota "), "{record}");
        assert!(record.contains(" sent=10000 "), "{record}");
    }
}

fn who_is_silent_for_long_is_ended(far: &Far) {
    let never = far.connect();
    let stream = far.connect();
    let since = Instant::now();
    echo_exact(&stream, b"hello");
    expect_end(&stream);
    assert!(since.elapsed() + TICK >= Duration::from_millis(300));
    stream.shutdown(Shutdown::Write).expect("shutdown");
    far.ended(local(&stream), "idle", 5, 5);
    expect_end(&never);
    drop(never.shutdown(Shutdown::Write));
    far.ended(local(&never), "idle", 0, 0);
}

fn who_talks_is_not_idle(far: &Far) {
    let stream = far.connect();
    let since = Instant::now();
    let mut last = since;
    let mut at = 0;
    while last - since < Duration::from_millis(2500) {
        last = Instant::now();
        echo_exact(&stream, &[pattern(11, at)]);
        at += 1;
    }
    expect_end(&stream);
    assert!(last.elapsed() + TICK >= Duration::from_secs(1));
}

fn who_never_says_a_first_byte_is_ended(far: &Far) {
    let since = Instant::now();
    let stream = far.connect();
    expect_end(&stream);
    assert!(since.elapsed() + TICK >= Duration::from_millis(300));
    stream.shutdown(Shutdown::Write).expect("shutdown");
    far.ended(local(&stream), "first_byte", 0, 0);
}

fn a_first_byte_is_enough(far: &Far) {
    let stream = far.connect();
    echo_exact(&stream, b"x");
    // The other one's end tells when the time is over for both.
    expect_end(&far.connect());
    echo_exact(&stream, b"y");
    stream.shutdown(Shutdown::Write).expect("shutdown");
    expect_end(&stream);
    far.ended(local(&stream), "done", 2, 2);
}

fn nobody_outlives_the_lifetime(far: &Far) {
    let since = Instant::now();
    let silent = far.connect();
    let mut stream = far.connect();
    let mut answered = 0;
    loop {
        let mut back = [0];
        let byte = pattern(12, answered);
        stream.write_all(&[byte]).expect("write");
        match stream.read(&mut back).expect("read") {
            0 => break,
            _ => assert_eq!(back, [byte]),
        }
        answered += 1;
    }
    assert!(since.elapsed() + TICK >= Duration::from_millis(400));
    assert!(answered > 0);
    stream.shutdown(Shutdown::Write).expect("shutdown");
    let record = far.record(local(&stream));
    assert!(record.contains(" reason=lifetime "), "{record}");
    assert!(record.contains(&format!(" sent={answered} ")), "{record}");
    expect_end(&silent);
    silent.shutdown(Shutdown::Write).expect("shutdown");
    far.ended(local(&silent), "lifetime", 0, 0);
}

fn who_takes_nothing_is_reset(far: &Far) {
    let other = far.connect();
    let stream = far.connect();
    let since = Instant::now();
    write_until_stuck(&stream, 13);
    expect_reset_unread(&stream);
    assert!(since.elapsed() + TICK >= Duration::from_secs(2));
    let record = far.record(local(&stream));
    assert!(record.contains(" reason=stall "), "{record}");
    echo_exact(&other, b"still here");
}

fn who_takes_nothing_after_its_fin_is_reset(far: &Far) {
    let stream = far.connect();
    let since = Instant::now();
    let writer = write_behind(&stream, 14, 32 * MIB);
    assert_eq!(writer.recv_timeout(PATIENCE), Ok(32 * MIB));
    expect_reset_unread(&stream);
    assert!(since.elapsed() + TICK >= Duration::from_secs(1));
    let record = far.record(local(&stream));
    let told = format!(" reason=stall received={} ", 32 * MIB);
    assert!(record.contains(&told), "{record}");
}

fn who_takes_little_is_not_stalled(far: &Far) {
    let socket = Socket::new(Domain::for_address(far.address), Type::STREAM, None);
    let socket = socket.expect("a socket");
    // Small, so that what is taken is soon told to the daemon's kernel.
    socket.set_recv_buffer_size(8 * KIB).expect("a buffer");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket.connect(&far.address.into()).expect("connect");
    let stream = TcpStream::from(socket);
    let (mut written, mut read, mut full) = (0, 0, 0);
    // It takes a little, and is behind for three times the timeout.
    while full < 30 {
        let bytes = patterned(15, written as u64, 64 * KIB);
        match SockRef::from(&stream).send_with_flags(&bytes, libc::MSG_DONTWAIT) {
            Ok(count) => written += count,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                full += 1;
                assert!(!wait_closed(&stream, 100), "it was ended");
            }
        }
        expect_exact(&stream, &patterned(15, read as u64, 4 * KIB));
        read += 4 * KIB;
    }
    stream.shutdown(Shutdown::Write).expect("shutdown");
    SockRef::from(&stream)
        .set_recv_buffer_size(MIB)
        .expect("a buffer");
    expect_exact(&stream, &patterned(15, read as u64, written - read));
    expect_end(&stream);
    far.ended(local(&stream), "done", written, written);
}

fn local(stream: &TcpStream) -> SocketAddr {
    stream.local_addr().expect("an address")
}

fn as_length(count: u64) -> usize {
    usize::try_from(count).expect("a length")
}

fn send_urgent(stream: &TcpStream, bytes: &[u8]) {
    let sent = SockRef::from(stream).send_out_of_band(bytes);
    assert_eq!(sent.expect("send"), bytes.len());
}

/// Writes a stream on a thread of its own, and a FIN; says how much was written when it ends.
fn write_behind(stream: &TcpStream, seed: u64, length: usize) -> mpsc::Receiver<usize> {
    writing(stream, seed, length, true)
}

/// The same without the FIN; the other side may break it.
fn write_open(stream: &TcpStream, seed: u64, length: usize) -> mpsc::Receiver<usize> {
    writing(stream, seed, length, false)
}

fn writing(stream: &TcpStream, seed: u64, length: usize, end: bool) -> mpsc::Receiver<usize> {
    let mut stream = stream.try_clone().expect("clone");
    let (done, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut written = 0;
        while written < length {
            let bytes = patterned(seed, written as u64, (length - written).min(64 * KIB));
            if stream.write_all(&bytes).is_err() {
                break;
            }
            written += bytes.len();
        }
        if end {
            let _ = stream.shutdown(Shutdown::Write);
        }
        drop(stream);
        let _ = done.send(written);
    });
    receiver
}

/// Reads so much of a stream.
fn expect_stream(mut stream: &TcpStream, seed: u64, length: usize) {
    let mut back = vec![0; 64 * KIB];
    let mut at = 0;
    while at < length {
        let room = (length - at).min(back.len());
        let count = stream.read(&mut back[..room]).expect("read");
        assert!(count > 0, "the end after {at} of {length}");
        let should = patterned(seed, at as u64, count);
        if back[..count] != should[..] {
            let wrong = (0..count).find(|&i| back[i] != should[i]);
            panic!("byte {} of {length} is another", at + wrong.unwrap_or(0));
        }
        at += count;
    }
}

/// Writes until nobody takes anything any more; answers how much it was. The stream does not block
/// then.
fn write_until_stuck(mut stream: &TcpStream, seed: u64) -> usize {
    stream.set_nonblocking(true).expect("non-blocking");
    let mut written = 0;
    loop {
        let bytes = patterned(seed, written as u64, 64 * KIB);
        match stream.write(&bytes) {
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let mut fds = [PollFd::new(stream.as_fd(), PollFlags::POLLOUT)];
                if poll(&mut fds, PollTimeout::from(STUCK)).expect("poll") == 0 {
                    return written;
                }
            }
            Err(error) => panic!("after {written} bytes: {error}"),
        }
        assert!(written < 64 * MIB, "what nobody reads is taken without end");
    }
}

/// Waits for the connection to break, without reading; answers whether it did.
fn wait_closed(stream: &TcpStream, milliseconds: u16) -> bool {
    let mut fds = [PollFd::new(stream.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::from(milliseconds)).expect("poll") > 0
}

fn expect_reset_unread(stream: &TcpStream) {
    assert!(wait_closed(stream, 20_000), "it was not ended in time");
    let error = stream.take_error().expect("ask").expect("an error");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}
