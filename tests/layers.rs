//! Bytes through every combination of what may lie in front of a service: a PROXY header of each version, and TLS of
//! each.
//!
//! 16 MiB each, written in pieces that are cut anywhere, header and handshake included, while what comes back is read
//! and compared; then the end, which must be a clean one in the record. What is cut where is the same each time.

#[path = "support/balancer.rs"]
mod balancer;
#[path = "support/tls.rs"]
mod secure;
mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;

use balancer::{v1, v2};
use rustls::{SupportedProtocolVersion, version};
use secure::{Ca, Peer, random, send_in_pieces};
use support::{Daemon, connect, patterned};

/// Of a connection, each way.
const BYTES: usize = 16 << 20;

/// Whoever the headers speak for.
const BEHIND: &str = "192.0.2.7:50312";

/// The same, in version 2: both addresses and both ports.
const BEHIND_V2: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0xc4, 0x88, 0, 7];

/// What the bytes go through.
#[derive(Clone, Copy, Debug)]
enum Secured {
    Plain,
    Tls(&'static SupportedProtocolVersion),
    /// Both ends show certificates.
    Mutual(&'static SupportedProtocolVersion),
}

impl Secured {
    const ALL: [Secured; 5] = [
        Secured::Plain,
        Secured::Tls(&version::TLS12),
        Secured::Tls(&version::TLS13),
        Secured::Mutual(&version::TLS12),
        Secured::Mutual(&version::TLS13),
    ];

    fn listener(self) -> &'static str {
        match self {
            Secured::Plain => "plain",
            Secured::Tls(_) => "tls",
            Secured::Mutual(_) => "mutual",
        }
    }

    /// What the record says of it.
    fn words(self) -> Vec<&'static str> {
        let version = |version| match version == &version::TLS13 {
            true => "tls=1.3",
            false => "tls=1.2",
        };
        match self {
            Secured::Plain => Vec::new(),
            Secured::Tls(is) => vec![version(is), "sni=echo.example"],
            Secured::Mutual(is) => vec![version(is), "sni=echo.example", "client=peer.example"],
        }
    }
}

/// A listener for each kind, at all of which 127.0.0.1 is a balancer, or nobody is.
fn far(ca: &Ca, is_balanced: bool) -> Daemon {
    ca.put("one", ca.made(&["echo.example"]));
    let trusted = match is_balanced {
        true => "proxy_protocol.trusted = [\"127.0.0.1\"]",
        false => "",
    };
    let kinds = [
        ("plain", String::new()),
        ("tls", ca.table(&["one"], "")),
        ("mutual", ca.table(&["one"], "client_ca = \"CA\"")),
    ];
    let listeners = kinds.map(|(name, table)| {
        format!("[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\n{trusted}\n{table}")
    });
    Daemon::start(&format!("workers = 2\n{}", listeners.concat()))
}

/// Sends it and says that this is all, while it reads: what came back, up to the daemon's own end.
fn through(ca: &Ca, far: &Daemon, secured: Secured, header: &[u8], bytes: &[u8]) -> TcpStream {
    let address = far.addr_of(secured.listener());
    let seed = bytes.iter().fold(1, |sum, byte| sum + u64::from(*byte));
    let (back, stream) = match secured {
        Secured::Plain => through_plain(address, header, bytes, seed),
        Secured::Tls(version) => {
            let peer = Peer::new(address, ca.client(version), "echo.example");
            through_tls(peer, header, bytes, seed)
        }
        Secured::Mutual(version) => {
            let client = ca.client_with(version, &ca.made(&["peer.example"]));
            let peer = Peer::new(address, client, "echo.example");
            through_tls(peer, header, bytes, seed)
        }
    };
    assert_eq!(back.len(), bytes.len(), "so many came back");
    let different = back.iter().zip(bytes).position(|(is, should)| is != should);
    assert_eq!(different, None, "the first byte that is another");
    stream
}

fn through_plain(
    address: SocketAddr,
    header: &[u8],
    bytes: &[u8],
    mut seed: u64,
) -> (Vec<u8>, TcpStream) {
    let stream = connect(address);
    let mut back = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            send_in_pieces(&stream, &[header, bytes].concat(), &mut seed).expect("write");
            stream.shutdown(Shutdown::Write).expect("a FIN");
        });
        (&stream).read_to_end(&mut back).expect("read");
    });
    (back, stream)
}

fn through_tls(peer: Peer, header: &[u8], bytes: &[u8], mut seed: u64) -> (Vec<u8>, TcpStream) {
    let mut peer = peer.behind(header.to_vec());
    peer.random = seed;
    peer.shake().expect("a handshake");
    // Records of any length, then the end.
    let mut rest = bytes;
    while !rest.is_empty() {
        let length = usize::try_from(random(&mut seed) % 50_000 + 1).expect("short");
        let (piece, later) = rest.split_at(length.min(rest.len()));
        peer.tls.writer().write_all(piece).expect("room");
        rest = later;
    }
    peer.tls.send_close_notify();
    let sealed = peer.sealed();
    let stream = peer.stream.try_clone().expect("a descriptor");
    let mut back = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| send_in_pieces(&stream, &sealed, &mut seed).expect("write"));
        back = peer.rest();
    });
    (back, stream)
}

/// Through each kind of TLS and none, behind this header.
fn all_come_back(header: Option<&[u8]>) {
    let ca = Ca::new();
    let far = far(&ca, header.is_some());
    for (seed, secured) in (1..).zip(Secured::ALL) {
        let bytes = patterned(seed, 0, BYTES);
        let stream = through(&ca, &far, secured, header.unwrap_or_default(), &bytes);
        let local = stream.local_addr().expect("an address");
        let who = match header {
            Some(_) => format!("peer={BEHIND} via={local}"),
            None => format!("peer={local}"),
        };
        // A FIN of ours behind the `close_notify`, as a peer that is at its end has it.
        drop(stream);
        let record = far.wait_line(&format!("connection ended {who} ")) + " ";
        let counts = format!("reason=done received={BYTES} sent={BYTES}");
        let listener = format!("listener={}", secured.listener());
        for word in [&counts[..], &listener].into_iter().chain(secured.words()) {
            assert!(
                record.contains(&format!(" {word} ")),
                "{secured:?}: not {word:?}: {record}"
            );
        }
        for word in ["truncated", "cause", "detail"] {
            assert!(!record.contains(word), "{secured:?}: {word}: {record}");
        }
    }
}

#[test]
fn all_come_back_without_a_header() {
    all_come_back(None);
}

#[test]
fn all_come_back_behind_a_header_of_version_1() {
    all_come_back(Some(&v1(BEHIND)));
}

#[test]
fn all_come_back_behind_a_header_of_version_2() {
    all_come_back(Some(&v2(0x21, 0x11, &BEHIND_V2)));
}
