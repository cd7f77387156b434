//! A session of TLS, fed arbitrary bytes in arbitrary cuts.
//!
//! The bytes are a script. There is a peer, the library's own client, and a path between the two that cuts
//! what it carries anywhere, and may change, add and withhold. What must hold whatever it does: what is
//! heard is the beginning of what was said, on both sides; no receive brings more than its bytes and a
//! record; after a failure or the peer's end nothing is heard any more.

#![no_main]

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use echod::config::Config;
use echod::tls::{Identities, Identity, Session};
use libfuzzer_sys::fuzz_target;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion, version};

/// Most plaintext that a record held back, and what comes with it.
const RECORD: usize = 17 * 1024;

fuzz_target!(|bytes: &[u8]| {
    let Some((first, script)) = bytes.split_first() else {
        return;
    };
    match first & 3 {
        0 => noise(script),
        1 => Run::new(&version::TLS12).all(script),
        _ => Run::new(&version::TLS13).all(script),
    }
});

/// What listener and peer know of each other; made once.
fn identity() -> &'static (Arc<Identity>, CertificateDer<'static>) {
    static MADE: OnceLock<(Arc<Identity>, CertificateDer<'static>)> = OnceLock::new();
    MADE.get_or_init(|| {
        let made =
            rcgen::generate_simple_self_signed(["fuzz.example".to_owned()]).expect("a certificate");
        let directory = std::env::temp_dir().join(format!("echod-fuzz-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        let (cert, key) = (directory.join("cert"), directory.join("key"));
        fs::write(&cert, made.cert.pem()).expect("write");
        fs::write(&key, made.signing_key.serialize_pem()).expect("write");
        let text = format!(
            "[[listener]]\ntls.certificates = [{{ certificate = \"{}\", key = \"{}\" }}]\n",
            cert.display(),
            key.display()
        );
        let config = Config::parse(&text, Path::new("fuzz.toml")).expect("a configuration");
        let all = Identities::load(&config, &Identities::default()).expect("identities");
        fs::remove_dir_all(&directory).expect("remove");
        let identity = Arc::clone(all.of("echo").expect("one"));
        (identity, made.cert.der().clone())
    })
}

/// Bytes of anybody: each piece has its length in front.
fn noise(mut bytes: &[u8]) {
    let mut session = Session::new(&identity().0);
    let mut heard = Vec::new();
    while let Some((length, rest)) = bytes.split_first() {
        let (piece, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        session.receive(piece, &mut heard);
        session.drain();
        bytes = rest;
    }
    assert!(heard.is_empty(), "nobody has shaken hands");
    session.peer_closed();
    session.close();
    session.drain();
    session.facts();
}

/// Both ends, and what is on its way between them.
struct Run {
    client: ClientConnection,
    /// It has been told something wrong, and hears nothing any more.
    has_failed: bool,
    session: Session,
    there: Vec<u8>,
    back: Vec<u8>,
    /// What the peer has said, and the daemon heard.
    said: u64,
    heard: u64,
    /// What the daemon has answered, and the peer heard.
    answered: u64,
    returned: u64,
}

/// The byte that stands at a place, both ways.
fn pattern(at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b9) >> 7).to_le_bytes()[0]
}

impl Run {
    fn new(version: &'static SupportedProtocolVersion) -> Run {
        let mut roots = RootCertStore::empty();
        roots.add(identity().1.clone()).expect("a root");
        let config = ClientConfig::builder_with_protocol_versions(&[version])
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("fuzz.example").expect("a name");
        Run {
            client: ClientConnection::new(Arc::new(config), name).expect("a client"),
            has_failed: false,
            session: Session::new(&identity().0),
            there: Vec::new(),
            back: Vec::new(),
            said: 0,
            heard: 0,
            answered: 0,
            returned: 0,
        }
    }

    fn all(mut self, script: &[u8]) {
        for step in script.chunks(3) {
            let [act, high, low] = [0, 1, 2].map(|at| step.get(at).copied().unwrap_or(0));
            self.step(act, usize::from(high) << 8 | usize::from(low));
        }
        self.session.facts();
    }

    fn step(&mut self, act: u8, number: usize) {
        match act % 10 {
            // The path carries so much.
            0 | 1 => self.carry(number),
            2 | 3 => self.bring(number),
            // All of it, a few times over: the handshake gets on.
            4 => {
                for _ in 0..3 {
                    self.carry(usize::MAX);
                    self.bring(usize::MAX);
                }
            }
            5 => {
                let bytes: Vec<u8> = (self.said..).take(number).map(pattern).collect();
                let written = self.client.writer().write(&bytes).unwrap_or(0);
                self.said += written as u64;
            }
            // The path is not to be trusted.
            6 => {
                let length = self.there.len();
                if let Some(byte) = self.there.get_mut(number % length.max(1)) {
                    *byte ^= act | 1;
                }
            }
            7 => {
                let at = number % (self.there.len() + 1);
                self.there.insert(at, act);
            }
            // In the handshake it would take what it hears after that for a mistake of its own.
            8 if self.client.is_handshaking() => {}
            8 => self.client.send_close_notify(),
            _ => {
                self.session.close();
                self.back.extend(self.session.drain());
            }
        }
    }

    fn carry(&mut self, most: usize) {
        while self.client.wants_write() {
            self.client
                .write_tls(&mut self.there)
                .expect("a Vec takes all");
        }
        let piece: Vec<u8> = self.there.drain(..most.min(self.there.len())).collect();
        let was_over = self.session.has_failed() || self.session.is_closed();
        let mut plaintext = Vec::new();
        self.session.receive(&piece, &mut plaintext);
        assert!(plaintext.len() <= piece.len() + RECORD);
        assert!(!was_over || plaintext.is_empty(), "heard after the end");
        for byte in &plaintext {
            assert_eq!(*byte, pattern(self.heard), "at {}", self.heard);
            self.heard += 1;
        }
        assert!(self.heard <= self.said);
        if self.session.send(&plaintext) {
            self.answered += plaintext.len() as u64;
        }
        self.back.extend(self.session.drain());
    }

    fn bring(&mut self, most: usize) {
        let piece: Vec<u8> = self.back.drain(..most.min(self.back.len())).collect();
        let mut rest = &piece[..];
        let mut plaintext = Vec::new();
        while !rest.is_empty() && !self.has_failed {
            let taken = self.client.read_tls(&mut rest).unwrap_or(0);
            self.has_failed = self.client.process_new_packets().is_err();
            if taken == 0 {
                break;
            }
            let _ = self.client.reader().read_to_end(&mut plaintext);
        }
        for byte in plaintext {
            assert_eq!(byte, pattern(self.returned), "at {}", self.returned);
            self.returned += 1;
        }
        assert!(self.returned <= self.answered);
    }
}
