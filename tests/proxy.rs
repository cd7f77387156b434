//! Balancers in front of the real daemon: the PROXY protocol, played by hand and by HAProxy.
//!
//! The test is the balancer at 127.0.0.1, which is trusted, and says that it speaks for others. Headers and their checksum are made
//! by code of the tests' own.

#[path = "support/balancer.rs"]
mod balancer;
#[path = "support/peers.rs"]
mod peers;
mod support;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use balancer::{HaProxy, readme, replaced, v1, v2};
use nix::sys::signal::Signal;
use peers::{End, end_of, visit, visit_from};
use serde_json::Value;
use support::{
    Daemon, PATIENCE, connect, connect_from, echo_exact, expect_end, expect_exact, patterned,
};

const MIB: usize = 1 << 20;

/// Of the README: how it is behind HAProxy.
const SECTION: &str = "Behind HAProxy";

/// An address of nobody, as a header brings it.
const PEER: &str = "192.0.2.7:50312";

/// One listener, at which 127.0.0.1 is a balancer, and these keys of it.
fn far(keys: &str) -> Daemon {
    Daemon::start(&config(keys))
}

fn config(keys: &str) -> String {
    format!(
        "workers = 2\ndrain_idle = \"100ms\"\n[log]\nempty = true\n[[listener]]\nname = \"far\"\n\
         address = [\"127.0.0.1:0\"]\nproxy_protocol.trusted = [\"127.0.0.1\"]\n{keys}\n"
    )
}

/// Both addresses of IPv4, for PEER.
const IPV4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0xc4, 0x88, 0, 7];

/// Both of IPv6, for an IPv4 peer or one of IPv6.
fn ipv6(peer: &str) -> Vec<u8> {
    let peer: std::net::Ipv6Addr = peer.parse().expect("an address");
    [&peer.octets()[..], &[0; 16], &[0xc4, 0x88, 0, 7]].concat()
}

/// Version 2 for PEER, with something besides and the checksum at the end.
fn with_checksum() -> Vec<u8> {
    let besides = [0x05, 0, 3, b'i', b'd', b'1', 0xee, 0, 1, 7];
    let mut header = v2(
        0x21,
        0x11,
        &[&IPV4[..], &besides, &[3, 0, 4, 0, 0, 0, 0]].concat(),
    );
    let mut crc = u32::MAX;
    for byte in &header {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    let at = header.len() - 4;
    header[at..].copy_from_slice(&(!crc).to_be_bytes());
    header
}

/// A balancer's connection that has said this.
fn saying(daemon: &Daemon, header: &[u8]) -> TcpStream {
    let mut stream = connect(daemon.addr());
    stream.write_all(header).expect("write");
    stream
}

fn local(stream: &TcpStream) -> SocketAddr {
    stream.local_addr().expect("an address")
}

fn finishes(stream: &TcpStream) {
    stream.shutdown(Shutdown::Write).expect("a FIN");
    expect_end(stream);
}

/// Nothing has come, and will not soon.
fn is_silent(mut stream: &TcpStream) {
    let soon = Some(Duration::from_millis(150));
    stream.set_read_timeout(soon).expect("a timeout");
    let error = stream.read(&mut [0; 1]).expect_err("nothing was to come");
    assert!(
        matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        "{error}"
    );
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
}

/// The record of a connection whose header brought this address, or none.
fn record(daemon: &Daemon, peer: Option<&str>, via: SocketAddr) -> String {
    let who = match peer {
        Some(peer) => format!("connection ended peer={peer} via={via} listener=far "),
        None => format!("connection ended peer={via} listener=far "),
    };
    daemon.wait_line(&who)
}

#[test]
fn each_kind_of_header_brings_the_peer_and_the_bytes_behind_it_are_echoed() {
    let daemon = far("");
    for (header, peer) in [
        (v1(PEER), Some(PEER)),
        (v1("[2001:db8::7]:1"), Some("[2001:db8::7]:1")),
        (
            b"PROXY TCP6 ::ffff:192.0.2.9 ::1 1 2\r\n".to_vec(),
            Some("192.0.2.9:1"),
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), None),
        (v2(0x21, 0x11, &IPV4), Some(PEER)),
        (
            v2(0x21, 0x21, &ipv6("2001:db8::9")),
            Some("[2001:db8::9]:50312"),
        ),
        (
            v2(0x21, 0x21, &ipv6("::ffff:192.0.2.9")),
            Some("192.0.2.9:50312"),
        ),
        (with_checksum(), Some(PEER)),
        (v2(0x21, 0x31, &[b'/'; 216]), None),
        (v2(0x21, 0x00, &[]), None),
        (v2(0x20, 0x00, &[]), None),
        (v2(0x20, 0x11, &IPV4), None),
    ] {
        // Apart, and in one piece with what comes behind it.
        for is_apart in [true, false] {
            let stream = match is_apart {
                true => saying(&daemon, &header),
                false => saying(&daemon, &[&header[..], b"hello"].concat()),
            };
            match is_apart {
                true => echo_exact(&stream, b"hello"),
                false => expect_exact(&stream, b"hello"),
            }
            echo_exact(&stream, b"and more");
            finishes(&stream);
            let record = record(&daemon, peer, local(&stream));
            assert!(
                record.contains(" reason=done received=13 sent=13 "),
                "{record}"
            );
        }
    }
}

#[test]
fn a_header_may_come_byte_by_byte() {
    let daemon = far("");
    for header in [v1(PEER), with_checksum(), b"PROXY UNKNOWN\r\n".to_vec()] {
        let mut stream = connect(daemon.addr());
        for byte in header.iter().chain(b"hello") {
            stream.write_all(&[*byte]).expect("write");
            thread::sleep(Duration::from_millis(1));
        }
        expect_exact(&stream, b"hello");
        finishes(&stream);
    }
}

#[test]
fn a_header_and_16_mib_come_back_right_wherever_they_are_cut() {
    let daemon = far("");
    for (seed, header) in (1..).zip([v1(PEER), with_checksum(), v2(0x20, 0, &[])]) {
        let payload = patterned(seed, 0, 16 * MIB);
        let stream = connect(daemon.addr());
        let all = [&header[..], &payload].concat();
        let mut cuts = patterned(seed + 100, 0, 1 << 16).into_iter();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut rest = &all[..];
                while !rest.is_empty() {
                    // Small ones where the header is, large ones behind it.
                    let cut = usize::from(cuts.next().unwrap_or(255));
                    let cut = match rest.len() > payload.len() {
                        true => cut / 32 + 1,
                        false => cut * 1024 + 1,
                    };
                    let (piece, more) = rest.split_at(cut.min(rest.len()));
                    (&stream).write_all(piece).expect("write");
                    rest = more;
                }
            });
            expect_exact(&stream, &payload);
        });
        finishes(&stream);
        let peer = (header.len() > 16).then_some(PEER);
        let line = record(&daemon, peer, local(&stream));
        let bytes = 16 * MIB;
        assert!(
            line.contains(&format!(" received={bytes} sent={bytes} ")),
            "{line}"
        );
    }
}

#[test]
fn a_late_header_ends_the_connection_and_so_does_one_that_drips_for_too_long() {
    let daemon = far("timeout = { handshake = \"400ms\", first_byte = \"100ms\" }");
    let silent = connect(daemon.addr());
    let mut drips = connect(daemon.addr());
    for byte in &v1(PEER)[..10] {
        drips.write_all(&[*byte]).expect("write");
        thread::sleep(Duration::from_millis(20));
    }
    for stream in [&silent, &drips] {
        expect_end(stream);
        let record = record(&daemon, None, local(stream));
        assert!(
            record.contains(" reason=handshake received=0 sent=0 "),
            "{record}"
        );
    }
    // Who has said it has the time of a first byte, from then on.
    let mute = saying(&daemon, &v1(PEER));
    expect_end(&mute);
    let record = record(&daemon, Some(PEER), local(&mute));
    assert!(
        record.contains(" reason=first_byte received=0 "),
        "{record}"
    );
}

#[test]
fn what_is_no_header_ends_the_connection_and_nothing_of_it_is_echoed() {
    let daemon = far("");
    let long = v2(0x21, 0x11, &[&IPV4[..], &[0; 5000]].concat());
    let mut wrong_sum = with_checksum();
    wrong_sum[17] ^= 1;
    for (bytes, why) in [
        (b"GET / HTTP/1.0\r\n\r\n".to_vec(), "not a PROXY header"),
        (b"hello".to_vec(), "not a PROXY header"),
        (b"\r\n\r\nhello".to_vec(), "not a PROXY header"),
        (vec![0; 100_000], "not a PROXY header"),
        (
            b"PROXY TCP9 192.0.2.7 10.0.0.1 1 2\r\n".to_vec(),
            "a family that is not TCP4, TCP6 or UNKNOWN",
        ),
        (
            b"PROXY TCP4  192.0.2.7 10.0.0.1 1 2\r\n".to_vec(),
            "not two addresses and two ports, with one space between them",
        ),
        (
            b"PROXY TCP4 2001:db8::7 ::1 1 2\r\n".to_vec(),
            "an address that is none of its family",
        ),
        (
            b"PROXY TCP4 192.0.2.7 10.0.0.1 65536 2\r\n".to_vec(),
            "a port that is no plain number from 0 to 65535",
        ),
        (
            b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\n".to_vec(),
            "a line that does not end with CR LF",
        ),
        (
            [&b"PROXY UNKNOWN "[..], &[b'a'; 200]].concat(),
            "a line of more than 107 bytes",
        ),
        (v2(0x31, 0x11, &IPV4), "an unknown version"),
        (v2(0x22, 0x11, &IPV4), "an unknown command"),
        (v2(0x21, 0x51, &IPV4), "an unknown family"),
        (v2(0x21, 0x12, &IPV4), "a family of datagrams"),
        (
            v2(0x21, 0x21, &IPV4),
            "a header too short for its addresses",
        ),
        (
            v2(0x21, 0x11, &[&IPV4[..], &[4, 0, 9]].concat()),
            "a value that runs over the end of the header",
        ),
        (wrong_sum, "a wrong checksum"),
        (long, "a header of more than 4096 bytes"),
    ] {
        let stream = saying(&daemon, &[&bytes[..], b"and more"].concat());
        stream.shutdown(Shutdown::Write).expect("a FIN");
        // Its bytes may be on their way still when it has ended: then the end is a reset.
        assert_ne!(end_of(&stream), End::Finished);
        let record = record(&daemon, None, local(&stream));
        let told = format!(" reason=proxy detail=\"{why}\" received=0 sent=0 ");
        assert!(record.contains(&told), "not {told:?}: {record}");
    }
    let cut = saying(&daemon, b"PROXY TCP4 192");
    finishes(&cut);
    let record = record(&daemon, None, local(&cut));
    assert!(
        record.contains(" reason=proxy detail=\"an end in the middle of the header\" "),
        "{record}"
    );
}

#[test]
fn a_bare_check_leaves_no_record_unless_empty_ones_are_wanted() {
    let quiet = config("")
        .replace("empty = true", "empty = false")
        .replace("workers = 2", "workers = 1");
    let daemon = Daemon::start(&quiet);
    let bare = connect(daemon.addr());
    let check = saying(&daemon, &v2(0x20, 0, &[]));
    for stream in [&bare, &check] {
        finishes(stream);
    }
    let peer = saying(&daemon, &v1(PEER));
    echo_exact(&peer, b"hello");
    finishes(&peer);
    record(&daemon, Some(PEER), local(&peer));
    for stream in [&bare, &check] {
        let who = local(stream).to_string();
        assert!(
            !daemon.lines().iter().any(|line| line.contains(&who)),
            "{who}"
        );
    }
    let daemon = far("");
    let bare = connect(daemon.addr());
    finishes(&bare);
    let record = record(&daemon, None, local(&bare));
    assert!(record.contains(" reason=done received=0 "), "{record}");
}

#[test]
fn access_asks_about_the_address_that_was_brought() {
    // The balancer's own is denied, and it does not matter.
    let rules = |deny: &str| config(&format!("access.deny = [\"127.0.0.0/8\", {deny}]"));
    let daemon = Daemon::start(&rules("\"192.0.2.0/24\", \"2001:db8::/32\""));
    for denied in [PEER, "[2001:db8::7]:1", "127.0.0.9:1"] {
        let stream = saying(&daemon, &[&v1(denied)[..], b"hello"].concat());
        assert_eq!(end_of(&stream), End::Reset);
        let record = record(&daemon, Some(denied), local(&stream));
        assert!(
            record.contains(" reason=denied received=0 sent=0 "),
            "{record}"
        );
    }
    let served = saying(&daemon, &v1("198.51.100.7:1"));
    echo_exact(&served, b"hello");
    let check = saying(&daemon, &v2(0x20, 0, &[]));
    echo_exact(&check, b"hello");
    let waiting = connect(daemon.addr());
    // A reload ends those who are denied now, by the address that was brought.
    daemon.adopt(&rules("\"198.51.100.0/24\""));
    assert_eq!(end_of(&served), End::Reset);
    echo_exact(&check, b"still here");
    (&waiting).write_all(&v1(PEER)).expect("write");
    echo_exact(&waiting, b"hello");
}

#[test]
fn a_source_is_whoever_was_brought_and_a_balancer_is_none() {
    let daemon = far("max_connections_per_source = 2\nsource_prefix = { ipv4 = 24 }");
    let held: Vec<_> = (1..=2)
        .map(|n| saying(&daemon, &v1(&format!("192.0.2.{n}:1"))))
        .collect();
    held.iter().for_each(|stream| echo_exact(stream, b"hello"));
    let refused = saying(&daemon, &v1(PEER));
    assert_eq!(end_of(&refused), End::Reset);
    let line = record(&daemon, Some(PEER), local(&refused));
    assert!(line.contains(" reason=full "), "{line}");
    daemon.wait_line("key=listener.max_connections_per_source listener=far value=2 remedy=");
    let others: Vec<_> = (1..=9)
        .map(|n| saying(&daemon, &v1(&format!("198.51.{n}.1:1"))))
        .chain((0..9).map(|_| saying(&daemon, b"PROXY UNKNOWN\r\n")))
        .collect();
    others
        .iter()
        .for_each(|stream| echo_exact(stream, b"hello"));
    // One of the source ends, and has made room before its end is seen.
    finishes(&held[0]);
    let again = saying(&daemon, &v1(PEER));
    echo_exact(&again, b"hello");
}

#[test]
fn a_rate_of_connections_is_that_of_whoever_was_brought() {
    let daemon = far("rate.connections = { rate = \"1/min\", burst = 3 }\nrefusal = \"say\"");
    for _ in 0..3 {
        echo_exact(&saying(&daemon, &v1(PEER)), b"hello");
    }
    // Of those who bring no address each counts for itself.
    for _ in 0..9 {
        echo_exact(&saying(&daemon, b"PROXY UNKNOWN\r\n"), b"hello");
    }
    echo_exact(&saying(&daemon, &v1("198.51.100.7:1")), b"hello");
    let refused = saying(&daemon, &[&v1(PEER)[..], b"hello"].concat());
    expect_exact(&refused, b"echod refuses: rate\r\n");
    expect_end(&refused);
    drop(refused);
    daemon.wait_line("reason=rate received=0 sent=21");
    daemon.wait_line("key=listener.rate.connections listener=far");
}

#[test]
fn the_bounds_of_the_listener_count_balancers() {
    let daemon = far("max_connections = 2\nmax_bytes = \"10B\"");
    let waiting = connect(daemon.addr());
    let served = saying(&daemon, &v1(PEER));
    echo_exact(&served, b"hello");
    assert_eq!(visit(daemon.addr()), End::Reset);
    // What counts is what is behind the header: five there and five back.
    (&served).write_all(b"x").expect("write");
    expect_end(&served);
    let line = record(&daemon, Some(PEER), local(&served));
    assert!(line.contains(" reason=quota received=6 sent=5 "), "{line}");
    drop(waiting);
}

#[test]
fn whoami_has_both_addresses() {
    let daemon = far("service = \"whoami\"");
    for (header, peer) in [
        (v1(PEER), Some(PEER)),
        (with_checksum(), Some(PEER)),
        (v2(0x20, 0, &[]), None),
    ] {
        let stream = connect(daemon.addr());
        is_silent(&stream);
        (&stream)
            .write_all(&[&header[..], b"hello"].concat())
            .expect("write");
        let mut reader = BufReader::new(&stream);
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line");
        let told: Value = serde_json::from_str(&line).expect("JSON");
        let own = local(&stream).to_string();
        let (ip, port) = peer.unwrap_or(&own).rsplit_once(':').expect("an address");
        assert_eq!(told["peer"]["address"], ip, "{line}");
        assert_eq!(told["peer"]["port"].to_string(), port, "{line}");
        match peer {
            Some(_) => assert_eq!(told["proxy"]["via"], own, "{line}"),
            None => assert_eq!(told.get("proxy"), None, "{line}"),
        }
        let mut back = [0; 5];
        reader.read_exact(&mut back).expect("an echo");
        assert_eq!(&back, b"hello");
    }
}

#[test]
fn services_that_speak_first_wait_for_the_header() {
    for (service, least) in [("daytime", 30), ("time", 4), ("chargen", 10_000)] {
        let daemon = far(&format!("service = \"{service}\""));
        let mut stream = connect(daemon.addr());
        is_silent(&stream);
        stream.write_all(&v1(PEER)).expect("write");
        let mut said = vec![0; least];
        stream.read_exact(&mut said).expect("its first words");
        if service == "chargen" {
            assert_eq!(&said[..4], b" !\"#");
        }
        drop(stream);
        daemon.wait_line(&format!("connection ended peer={PEER} via="));
    }
    let daemon = far("service = \"discard\"");
    let stream = saying(&daemon, &[&v1(PEER)[..], b"hello"].concat());
    finishes(&stream);
    let line = record(&daemon, Some(PEER), local(&stream));
    assert!(line.contains(" received=5 sent=0 "), "{line}");
}

#[test]
fn who_is_no_balancer_is_served_without_a_header() {
    let daemon = far("max_connections_per_source = 1");
    let stream = connect_from(2, daemon.addr());
    echo_exact(&stream, &v1(PEER));
    assert_eq!(visit_from(2, daemon.addr()), End::Reset);
    finishes(&stream);
    let line = record(&daemon, None, local(&stream));
    assert!(line.contains(" reason=done "), "{line}");
}

#[test]
fn a_reload_changes_who_is_trusted_for_those_who_come_from_now_on() {
    let daemon = far("");
    let (waiting, served) = (connect(daemon.addr()), saying(&daemon, &v1(PEER)));
    echo_exact(&served, b"hello");
    let mark = daemon.mark();
    daemon.adopt(&config("").replace("\"127.0.0.1\"]\n", "\"127.0.0.2\"]\n"));
    daemon.wait_line_after(mark, "proxy_protocol.trusted: ");
    let plain = connect(daemon.addr());
    echo_exact(&plain, &v1(PEER));
    let stream = connect_from(2, daemon.addr());
    (&stream).write_all(&v1(PEER)).expect("write");
    echo_exact(&stream, b"hello");
    (&waiting).write_all(&v1(PEER)).expect("write");
    echo_exact(&waiting, b"hello");
    echo_exact(&served, b"hello");
}

#[test]
fn a_drain_does_not_wait_for_a_header() {
    let mut daemon = far("");
    let (waiting, cut) = (connect(daemon.addr()), saying(&daemon, b"PROXY "));
    daemon.signal(Signal::SIGTERM);
    for stream in [&waiting, &cut] {
        expect_end(stream);
        let line = record(&daemon, None, local(stream));
        assert!(line.contains(" reason=drain "), "{line}");
    }
    assert!(daemon.wait_exit().success());
}

#[test]
fn many_headers_at_once_bring_each_its_own_peer() {
    let daemon = far("max_connections_per_source = 1\nbuffer = \"4KiB\"");
    thread::scope(|scope| {
        for n in 0..200u16 {
            let daemon = &daemon;
            scope.spawn(move || {
                let peer = format!("10.{}.{}.9:{n}", n / 16, n % 16);
                let payload = patterned(n.into(), 0, 3000);
                let stream = saying(daemon, &[&v1(&peer)[..], &payload].concat());
                expect_exact(&stream, &payload);
                finishes(&stream);
                let line = record(daemon, Some(&peer), local(&stream));
                assert!(
                    line.contains(" reason=done received=3000 sent=3000 "),
                    "{line}"
                );
            });
        }
    });
}

#[test]
fn haproxy_as_the_readme_has_it() {
    let toml = replaced(readme(SECTION, "toml"), "127.0.0.1:8080", "127.0.0.1:0");
    let toml = replaced(
        &toml,
        "name = \"echo\"\n",
        "name = \"echo\"\nservice = \"whoami\"\n",
    );
    for send in [
        "send-proxy-v2",
        "send-proxy",
        "send-proxy-v2 proxy-v2-options crc32c,unique-id",
    ] {
        let daemon = Daemon::start(&toml);
        // It is given the socket, so no port has to be guessed.
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("an address");
        let text = replaced(
            readme(SECTION, "haproxy"),
            "bind :7",
            "bind fd@0\n    unique-id-format %[uuid()]",
        );
        let text = replaced(&text, "127.0.0.1:8080", &daemon.addr().to_string());
        let text = replaced(&text, "send-proxy-v2", send);
        let file = daemon.directory().join("haproxy.cfg");
        std::fs::write(&file, text).expect("write");
        let _haproxy = HaProxy::start(&file, socket);
        for host in [2, 3] {
            let stream = connect_from(host, address);
            let mut reader = BufReader::new(&stream);
            let mut line = String::new();
            reader.read_line(&mut line).expect("a line");
            let told: Value = serde_json::from_str(&line).expect("JSON");
            let own = local(&stream);
            assert_eq!(
                told["peer"]["address"],
                own.ip().to_string(),
                "{send}: {line}"
            );
            assert_eq!(told["peer"]["port"], own.port(), "{send}: {line}");
            let via = told["proxy"]["via"].as_str().expect("a string").to_owned();
            assert!(via.starts_with("127.0.0.1:"), "{send}: {line}");
            let bytes = patterned(host.into(), 0, MIB);
            thread::scope(|scope| {
                scope.spawn(|| (&stream).write_all(&bytes).expect("write"));
                let mut back = vec![0; MIB];
                reader.read_exact(&mut back).expect("the echo");
                assert!(back == bytes, "{send}: other bytes");
            });
            stream.shutdown(Shutdown::Write).expect("a FIN");
            let record = daemon.wait_line(&format!(
                "connection ended peer={own} via={via} listener=echo "
            ));
            assert!(
                record.contains(&format!(" reason=done received={MIB} ")),
                "{send}: {record}"
            );
        }
    }
}
