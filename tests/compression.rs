//! Peers that compress, from outside: every byte through each method and whatever lies beside it, broken streams,
//! bounds that are of plain bytes, and zstd(1) and gzip(1) themselves.
//!
//! What peers send is made, and what they get is opened, by the libraries alone. What is cut where is the same each time.

#[path = "support/balancer.rs"]
mod balancer;
#[path = "support/packing.rs"]
mod packing;
#[path = "support/tls.rs"]
mod secure;
mod support;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use balancer::v2;
use echod::compression::Method;
use packing::{BOTH, Packer, frame, gaps, opened, opened_as_far, opened_once, text};
use rustls::version;
use secure::{Ca, Peer, random, record, send_in_pieces};
use support::{Daemon, connect, echo_exact, patterned};

/// Of a connection, each way, before they are packed.
const BYTES: usize = 4 << 20;

/// Whoever the header speaks for.
const BEHIND: &str = "192.0.2.7:50312";

/// The same, in version 2: both addresses and both ports.
const BEHIND_V2: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0xc4, 0x88, 0, 7];

/// A listener with this method, and these keys of its own and of its table.
fn listener(name: &str, method: Method, keys: &str, more: &str) -> String {
    format!(
        "[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\n{keys}\n[listener.compression]\nmethod = \"{}\"\n{more}\n",
        method.name()
    )
}

/// One of each method, called as it is, with these keys.
fn daemon(keys: &str, more: &str) -> Daemon {
    let listeners = BOTH.map(|method| listener(method.name(), method, keys, more));
    Daemon::start(&format!("workers = 2\n{}", listeners.concat()))
}

/// The record has these words; the number behind one of its keys is found by [`number`].
fn says(record: &str, words: &[&str]) {
    let record = format!("{record} ");
    for word in words {
        assert!(
            record.contains(&format!(" {word} ")),
            "not {word:?}: {record}"
        );
    }
}

fn number(record: &str, key: &str) -> usize {
    let (_, rest) = record
        .split_once(&format!(" {key}="))
        .unwrap_or_else(|| panic!("no {key}: {record}"));
    let number = rest.split(' ').next().expect("a word");
    number.parse().expect("a number")
}

/// Sends this and says that it is all, while it reads: what came back, up to the end.
fn exchange(stream: &TcpStream, bytes: &[u8], seed: u64) -> Vec<u8> {
    let mut back = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut seed = seed;
            // It may have been ended.
            let _ = send_in_pieces(stream, bytes, &mut seed);
            let _ = stream.shutdown(Shutdown::Write);
        });
        let mut reader = stream;
        match reader.read_to_end(&mut back) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("after {}: {error}", back.len()),
        }
    });
    back
}

/// Frames of any length, cut anywhere, of which some are flushed within.
fn frames(method: Method, plain: &[u8], seed: &mut u64) -> Vec<u8> {
    let mut packed = Vec::new();
    let mut rest = plain;
    while !rest.is_empty() {
        let length = usize::try_from(random(seed) % 1_500_000 + 1).expect("short");
        let (part, later) = rest.split_at(length.min(rest.len()));
        if random(seed).is_multiple_of(2) {
            packed.extend(frame(method, part));
        } else {
            let mut packer = Packer::new(method);
            let (one, other) = part.split_at(part.len() / 3);
            packed.extend([packer.say(one), packer.say(other), packer.end()].concat());
        }
        rest = later;
    }
    packed
}

/// What the bytes go through, besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    Nothing,
    Tls,
    HeaderAndTls,
}

/// Compressed bytes there, and what came back of them.
fn through(
    ca: &Ca,
    address: SocketAddr,
    beside: Beside,
    packed: &[u8],
    seed: u64,
) -> (Vec<u8>, TcpStream) {
    if beside == Beside::Nothing {
        let stream = connect(address);
        return (exchange(&stream, packed, seed), stream);
    }
    let mut peer = Peer::new(address, ca.client(&version::TLS13), "echo.example");
    if beside == Beside::HeaderAndTls {
        peer = peer.behind(v2(0x21, 0x11, &BEHIND_V2));
    }
    peer.random = seed;
    peer.shake().expect("a handshake");
    peer.tls.writer().write_all(packed).expect("room");
    peer.tls.send_close_notify();
    let sealed = peer.sealed();
    let stream = peer.stream.try_clone().expect("a descriptor");
    let mut seed = seed;
    let back = thread::scope(|scope| {
        scope.spawn(|| send_in_pieces(&stream, &sealed, &mut seed).expect("write"));
        peer.rest()
    });
    (back, stream)
}

/// Bytes of each kind through a method, alone or beside other layers.
fn all_come_back(method: Method, beside: Beside) {
    let ca = Ca::new();
    ca.put("one", ca.made(&["echo.example"]));
    let mut text_of_it = listener("echo", method, "", "");
    if beside != Beside::Nothing {
        text_of_it += &ca.table(&["one"], "");
    }
    if beside == Beside::HeaderAndTls {
        text_of_it += "[listener.proxy_protocol]\ntrusted = [\"127.0.0.1\"]\n";
    }
    let daemon = Daemon::start(&format!("workers = 2\n{text_of_it}"));
    let kinds = [
        text(1, BYTES),
        gaps(2, BYTES),
        patterned(3, 0, BYTES), // noise
    ];
    for (mut seed, plain) in (1..).zip(kinds) {
        let packed = frames(method, &plain, &mut seed);
        let (back, stream) = through(&ca, daemon.addr(), beside, &packed, seed);
        let (opened, is_whole) = opened_as_far(method, &back);
        assert!(is_whole, "the end in the middle of a frame");
        assert_eq!(opened.len(), plain.len(), "so many came back");
        let different = opened.iter().zip(&plain).position(|(is, was)| is != was);
        assert_eq!(different, None, "the first byte that is another");

        let local = stream.local_addr().expect("an address");
        drop(stream);
        let record = match beside {
            Beside::HeaderAndTls => {
                daemon.wait_line(&format!("connection ended peer={BEHIND} via={local} "))
            }
            _ => record(&daemon, local),
        };
        let counts = format!("reason=done received={BYTES} sent={BYTES}");
        let compression = format!("compression={}", method.name());
        says(&record, &[&counts, &compression]);
        assert!(!record.contains("cause="), "{record}");
        let wire = ["wire_received", "wire_sent"].map(|key| number(&record, key));
        match beside {
            Beside::Nothing => assert_eq!(wire, [packed.len(), back.len()], "{record}"),
            // Records of TLS around them, and a handshake.
            _ => {
                says(&record, &["tls=1.3"]);
                let less = [packed.len(), back.len()];
                let is_more = |(wire, less): (usize, usize)| {
                    (less + less / 2000 + 200..less + less / 50 + 10_000).contains(&wire)
                };
                assert!(wire.into_iter().zip(less).all(is_more), "{less:?} {record}");
            }
        }
    }
}

#[test]
fn all_come_back_through_zstd() {
    all_come_back(Method::Zstd, Beside::Nothing);
}

#[test]
fn all_come_back_through_zstd_within_tls() {
    all_come_back(Method::Zstd, Beside::Tls);
}

#[test]
fn all_come_back_through_zstd_within_tls_behind_a_header() {
    all_come_back(Method::Zstd, Beside::HeaderAndTls);
}

#[test]
fn all_come_back_through_gzip() {
    all_come_back(Method::Gzip, Beside::Nothing);
}

#[test]
fn all_come_back_through_gzip_within_tls() {
    all_come_back(Method::Gzip, Beside::Tls);
}

#[test]
fn all_come_back_through_gzip_within_tls_behind_a_header() {
    all_come_back(Method::Gzip, Beside::HeaderAndTls);
}

/// Says words, each after the answer to the one before, in one frame.
fn converse(mut stream: &TcpStream, method: Method, seed: u64) {
    let mut packer = Packer::new(method);
    let mut reader = opened_once(method, stream);
    for length in (1..20).chain([700, 70_000, 3]) {
        let word = text(seed + length as u64, length);
        stream.write_all(&packer.say(&word)).expect("write");
        let mut back = vec![0; length];
        reader.read_exact(&mut back).expect("an answer");
        assert!(back == word, "another word of {length}");
    }
    stream.write_all(&packer.end()).expect("write");
    // The end of a frame is answered, too, and nobody closed for it.
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).expect("the end of the frame");
    assert!(rest.is_empty(), "more than was said");
}

#[test]
fn a_conversation_goes_word_by_word_and_ends_with_its_frame() {
    let daemon = daemon("", "");
    for method in BOTH {
        let stream = connect(daemon.addr_of(method.name()));
        for seed in [1, 100, 200] {
            converse(&stream, method, seed);
        }
        stream.shutdown(Shutdown::Write).expect("a FIN");
        support::expect_end(&stream);
        let local = stream.local_addr().expect("an address");
        says(&record(&daemon, local), &["reason=done"]);
    }
}

/// With `at` counted from the end, one bit is another.
fn flipped(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    let at = bytes.len() - at;
    bytes[at] ^= 1;
    bytes
}

/// What a peer of this method may not send, and what is told of it.
fn broken(method: Method) -> Vec<(Vec<u8>, &'static str)> {
    let whole = frame(method, &text(9, 10_000));
    let half = whole[..whole.len() / 2].to_vec();
    let damaged = match method {
        Method::Zstd => [
            "damaged: Data corruption detected",
            "damaged: Restored data doesn't match checksum",
        ],
        Method::Gzip => ["damaged: the library does not say how"; 2],
    };
    let mut bad = vec![0xff; 1000];
    let mut all = vec![
        (half, "truncated"),
        (flipped(whole, 8), damaged[1]),
        (b"GET / HTTP/1.0\r\n\r\n".to_vec(), "not METHOD"),
    ];
    match method {
        // A block of the kind that is reserved.
        Method::Zstd => {
            bad.splice(0..6, [0x28, 0xb5, 0x2f, 0xfd, 0, 0x58]);
            let window = [0x28, 0xb5, 0x2f, 0xfd, 0, (24 - 10) << 3, 1, 0, 0];
            let window_is = "a window of 16777216 bytes, and 8388608 are allowed";
            all.push((window.to_vec(), window_is));
            let dictionary = [0x28, 0xb5, 0x2f, 0xfd, 1, 0x58, 7, 1, 0, 0];
            all.push((dictionary.to_vec(), "a dictionary, and there is none"));
            // Of its checksum alone.
            all[1].0 = flipped(frame(method, &text(9, 10_000)), 1);
        }
        Method::Gzip => {
            bad.splice(0..10, [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]);
        }
    }
    all.push((bad, damaged[0]));
    all
}

#[test]
fn what_is_no_stream_is_ended_for_its_cause_after_what_was_whole_before() {
    let daemon = daemon("", "");
    for method in BOTH {
        for (bytes, cause) in broken(method) {
            let cause = cause.replace("METHOD", method.name());
            let before = text(4, 5000);
            let stream = connect(daemon.addr_of(method.name()));
            // It has its answer before anything is wrong, and one that came with it.
            let mut packer = Packer::new(method);
            (&stream).write_all(&packer.say(&before)).expect("write");
            let mut reader = opened_once(method, &stream);
            let mut back = vec![0; before.len()];
            reader.read_exact(&mut back).expect("an answer");
            assert!(back == before, "{method:?}, {cause}: another answer");
            (&stream).write_all(&packer.end()).expect("write");
            reader.read_to_end(&mut back).expect("the end of the frame");
            drop(reader);

            let local = stream.local_addr().expect("an address");
            let rest = exchange(&stream, &[frame(method, &before), bytes].concat(), 5);
            let (plain, _) = opened_as_far(method, &rest);
            assert!(plain.starts_with(&before), "{method:?}, {cause}: {rest:?}");
            let record = record(&daemon, local);
            let name = format!("compression={}", method.name());
            says(&record, &["reason=compression", &name]);
            let is_told = record.contains(&format!("cause=\"{cause}\""))
                || record.ends_with(&format!("cause={cause}"));
            assert!(is_told, "{method:?}: not {cause:?}: {record}");
        }
    }
}

#[test]
fn whoami_is_told_packed() {
    let daemon = daemon("service = \"whoami\"", "");
    for method in BOTH {
        let stream = connect(daemon.addr_of(method.name()));
        let mut line = String::new();
        let mut reader = opened(method, &stream);
        while !line.ends_with('\n') {
            let mut byte = [0];
            reader.read_exact(&mut byte).expect("a line");
            line.push(char::from(byte[0]));
        }
        let local = stream.local_addr().expect("an address");
        let address = format!(
            "{{\"peer\":{{\"address\":\"127.0.0.1\",\"port\":{}}}",
            local.port()
        );
        assert!(line.starts_with(&address), "{line}");
        let word = format!("\"compression\":\"{}\"", method.name());
        assert!(line.contains(&word), "{line}");
        // Then it echoes.
        let mut packer = Packer::new(method);
        (&stream).write_all(&packer.say(b"hello")).expect("write");
        let mut back = [0; 5];
        reader.read_exact(&mut back).expect("an answer");
        assert_eq!(&back, b"hello");
        (&stream).write_all(&packer.end()).expect("write");
        stream.shutdown(Shutdown::Write).expect("a FIN");
        assert_eq!(reader.read(&mut back).expect("a clean end"), 0);
    }
}

#[test]
fn a_quota_is_of_plain_bytes() {
    let daemon = daemon("max_bytes = \"1MiB\"", "");
    for method in BOTH {
        let stream = connect(daemon.addr_of(method.name()));
        let local = stream.local_addr().expect("an address");
        // In few bytes as they are.
        let packed = frame(method, &vec![0; 3 << 20]);
        assert!(packed.len() < 8192, "{}", packed.len());
        let back = exchange(&stream, &packed, 1);
        let (plain, _) = opened_as_far(method, &back);
        let record = record(&daemon, local);
        says(&record, &["reason=quota"]);
        assert_eq!(number(&record, "sent"), plain.len(), "{record}");
        assert!(plain.iter().all(|byte| *byte == 0));
        // Both ways together.
        let carried = number(&record, "received") + plain.len();
        assert!(
            ((1 << 20)..(1 << 20) + (256 << 10)).contains(&carried),
            "{record}"
        );
    }
}

#[test]
fn rates_are_of_plain_bytes() {
    let daemon = daemon("rate.bytes = \"1MiB/s\"", "");
    let plain = vec![0; 3 << 19];
    for method in BOTH {
        let packed = frame(method, &plain);
        let began = Instant::now();
        let back = exchange(&connect(daemon.addr_of(method.name())), &packed, 1);
        let took = began.elapsed();
        assert!(
            opened_as_far(method, &back) == (plain.clone(), true),
            "others"
        );
        // A tenth of a second's worth is there in the beginning.
        assert!(took >= Duration::from_millis(1380), "{method:?}: {took:?}");
    }
}

#[test]
fn what_becomes_too_much_is_ended_after_16_mib_unless_it_may() {
    const ZEROS: usize = 64 << 20;
    let daemon = daemon("", "");
    let zeros = vec![0; ZEROS];
    for method in BOTH {
        let stream = connect(daemon.addr_of(method.name()));
        let local = stream.local_addr().expect("an address");
        let packed = frame(method, &zeros);
        let back = exchange(&stream, &packed, 1);
        let record = record(&daemon, local);
        says(&record, &["reason=compression"]);
        assert!(
            record.contains("cause=\"more than 200 times its length\""),
            "{record}"
        );
        let received = number(&record, "received");
        assert!(
            received > 16 << 20 && received <= (16 << 20) + (128 << 10),
            "{record}"
        );
        // What it became is answered.
        let (plain, _) = opened_as_far(method, &back);
        assert_eq!(plain.len(), number(&record, "sent"), "{record}");
    }
    drop(daemon);
    let daemon = self::daemon("", "max_ratio = \"off\"");
    for method in BOTH {
        let back = exchange(
            &connect(daemon.addr_of(method.name())),
            &frame(method, &zeros),
            1,
        );
        let mut reader = opened(method, &back[..]);
        let (mut count, mut piece) = (0, vec![0; 1 << 16]);
        loop {
            let more = reader.read(&mut piece).expect("whole frames");
            if more == 0 {
                break;
            }
            count += more;
            assert!(piece[..more].iter().all(|byte| *byte == 0));
        }
        assert_eq!(count, ZEROS, "{method:?}");
    }
}

#[test]
fn a_reload_changes_the_method_of_those_who_come_later() {
    let with = |method: &str| {
        format!(
            "[[listener]]\nname = \"echo\"\naddress = \"127.0.0.1:0\"\ncompression.method = \"{method}\"\n"
        )
    };
    let daemon = Daemon::start(&with("zstd"));
    let first = connect(daemon.addr());
    converse(&first, Method::Zstd, 1);
    daemon.adopt(&with("gzip"));
    let second = connect(daemon.addr());
    converse(&second, Method::Gzip, 2);
    converse(&first, Method::Zstd, 3);
    daemon.adopt(&with("none"));
    echo_exact(&connect(daemon.addr()), b"as it is");
    converse(&first, Method::Zstd, 4);
    converse(&second, Method::Gzip, 5);
}

/// Has a shell do this in a directory, where `$port` is this one.
fn shell(directory: &Path, port: u16, script: &str) {
    let output = Command::new("timeout")
        .args(["60", "bash", "-c", &format!("set -euo pipefail; {script}")])
        .env("port", port.to_string())
        .current_dir(directory)
        .output()
        .expect("a shell");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{script}: {} {:?} {said}",
        output.status,
        output.status.signal()
    );
}

#[test]
fn the_tools_of_the_command_line_return_what_they_are_given() {
    const FILE: usize = 16 << 20;
    let daemon = daemon("", "max_ratio = \"off\"");
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    for (name, bytes) in [
        ("text", text(1, FILE)),
        ("zeros", vec![0; FILE]),
        ("noise", patterned(3, 0, FILE)),
    ] {
        fs::write(directory.join(name), bytes).expect("write");
    }
    for method in BOTH {
        let (tool, port) = (method.name(), daemon.addr_of(method.name()).port());
        let script = |line: &str| shell(directory, port, &line.replace("TOOL", tool));
        for name in ["text", "zeros", "noise"] {
            script(&format!(
                "TOOL -c {name} | nc -N 127.0.0.1 $port | TOOL -dc | cmp - {name}"
            ));
        }
        // As the man page has it: several frames are one stream.
        script(
            "for name in text zeros noise; do TOOL -c $name; done | nc -N 127.0.0.1 $port | TOOL -dc | cmp - <(cat text zeros noise)",
        );
        script(
            ": | TOOL | nc -N 127.0.0.1 $port >empty; test -s empty; TOOL -dc <empty >plain; test ! -s plain",
        );
        script("TOOL -t <empty");
    }
}
