//! A session against the library's own client, with its bytes cut anywhere.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use proptest::prelude::*;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion, version};

use super::{Identities, Identity, Session};
use crate::buffer::Memory;
use crate::config::Config;

/// What a listener shows and what its clients trust, made once.
pub(crate) fn identity() -> &'static (Arc<Identity>, CertificateDer<'static>) {
    static MADE: OnceLock<(Arc<Identity>, CertificateDer<'static>)> = OnceLock::new();
    MADE.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(["echo.example".to_owned()]);
        let made = made.expect("a certificate");
        let directory = tempfile::TempDir::new().expect("a directory");
        let (cert, key) = (directory.path().join("c"), directory.path().join("k"));
        fs::write(&cert, made.cert.pem()).expect("write");
        fs::write(&key, made.signing_key.serialize_pem()).expect("write");
        let text = format!(
            "[[listener]]\n[listener.tls]\ncertificates = [{{ certificate = \"{}\", key = \"{}\" }}]\n",
            cert.display(),
            key.display()
        );
        let config = Config::parse(&text, Path::new("test.toml")).expect("a configuration");
        let all = Identities::load(&config, &Identities::default()).expect("an identity");
        let identity = Arc::clone(all.of("echo").expect("it has one"));
        let der = CertificateDer::from_pem_slice(made.cert.pem().as_bytes()).expect("PEM");
        (identity, der)
    })
}

pub(crate) fn client(version: &'static SupportedProtocolVersion) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(identity().1.clone()).expect("a root");
    let config = ClientConfig::builder_with_protocol_versions(&[version])
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("echo.example").expect("a name");
    ClientConnection::new(Arc::new(config), name).expect("a client")
}

/// Both ends, and what is between them.
struct Pair {
    client: ClientConnection,
    session: Session,
    /// Where the bytes are cut next.
    cuts: Vec<usize>,
    at: usize,
    /// What the client was sent back.
    back: Vec<u8>,
}

impl Pair {
    fn new(version: &'static SupportedProtocolVersion, cuts: Vec<usize>) -> Pair {
        Pair {
            client: client(version),
            session: Session::new(&identity().0),
            cuts,
            at: 0,
            back: Vec::new(),
        }
    }

    fn cut(&mut self, length: usize) -> usize {
        self.at += 1;
        self.cuts[self.at % self.cuts.len()].clamp(1, length)
    }

    /// Lets everything through, both ways, until nobody has anything to say; what the session hears goes back.
    fn run(&mut self) {
        loop {
            let mut there = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut there).expect("a Vec takes all");
            }
            let mut rest = &there[..];
            let mut back = Vec::new();
            while !rest.is_empty() {
                let (piece, later) = rest.split_at(self.cut(rest.len()));
                rest = later;
                let mut plaintext = Vec::new();
                self.session.receive(piece, &mut plaintext);
                assert!(plaintext.len() <= piece.len() + 17 * 1024);
                self.session.send(&plaintext);
                back.extend(self.session.drain());
            }
            if there.is_empty() && back.is_empty() {
                return;
            }
            let mut rest = &back[..];
            while !rest.is_empty() {
                let (mut piece, later) = rest.split_at(self.cut(rest.len()));
                rest = later;
                while !piece.is_empty() {
                    self.client.read_tls(&mut piece).expect("room");
                    self.client.process_new_packets().expect("no mistake");
                    let _ = self.client.reader().read_to_end(&mut self.back);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_cut_of_any_stream_comes_back_whole(
        said in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40_000), 1..4),
        cuts in prop::collection::vec(1usize..20_000, 1..20),
        small in any::<bool>(),
        is_old in any::<bool>(),
    ) {
        let version = if is_old { &version::TLS12 } else { &version::TLS13 };
        let cuts = cuts.into_iter().map(|cut| if small { cut % 90 + 1 } else { cut }).collect();
        let mut pair = Pair::new(version, cuts);
        pair.run();
        prop_assert!(!pair.session.is_handshaking());
        for message in &said {
            let mut rest = &message[..];
            while !rest.is_empty() {
                let written = pair.client.writer().write(rest).expect("room");
                rest = &rest[written..];
                pair.run();
            }
        }
        prop_assert_eq!(&pair.back, &said.concat());
        pair.client.send_close_notify();
        pair.run();
        prop_assert!(pair.session.is_closed() && pair.session.peer_closed());
        prop_assert!(!pair.session.facts().truncated);
        pair.session.close();
        let mut last = &pair.session.drain()[..];
        prop_assert!(!last.is_empty());
        pair.client.read_tls(&mut last).expect("room");
        let state = pair.client.process_new_packets().expect("no mistake");
        prop_assert!(state.peer_has_closed());
    }

    #[test]
    fn whatever_comes_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..5000), cut in 1usize..700) {
        let mut session = Session::new(&identity().0);
        let mut plaintext = Vec::new();
        for piece in bytes.chunks(cut) {
            session.receive(piece, &mut plaintext);
            session.drain();
        }
        prop_assert!(plaintext.is_empty() && session.is_handshaking());
    }
}

#[test]
fn what_waits_for_the_rest_of_its_record_is_counted_and_bounded() {
    let memory = Memory::new(100_000);
    let mut session = Session::new(&identity().0);
    // A message of the handshake that claims to be as long as any may be, in records that are as long as any.
    let record = |body: &[u8]| [&[22, 3, 1][..], &u16::to_be_bytes(16_384), body].concat();
    let first = [&[1, 0, 0xff, 0xff][..], &[0; 16_380]].concat();
    let mut most = 0;
    for body in [
        &first[..],
        &[0; 16_384],
        &[0; 16_384],
        &[0; 16_384],
        &[0; 16_384],
    ] {
        for piece in record(body).chunks(100) {
            session.receive(piece, &mut Vec::new());
            assert!(session.account(&memory));
            most = most.max(memory.used());
        }
    }
    assert!((60_000..90_000).contains(&most), "{most}");
    assert!(session.has_failed());
    assert_eq!(memory.used(), 0);
    let mut session = Session::new(&identity().0);
    session.receive(&record(&first)[..9000], &mut Vec::new());
    assert!(
        !session.account(&Memory::new(8000)),
        "one that is too small"
    );
}

#[test]
fn what_comes_after_our_own_end_is_not_looked_at() {
    let mut pair = Pair::new(&version::TLS12, vec![9000]);
    pair.run();
    pair.session.close();
    assert!(!pair.session.drain().is_empty());
    pair.session.receive(b"/", &mut Vec::new());
    assert!(!pair.session.has_failed() && pair.session.drain().is_empty());
}

#[test]
fn plain_text_is_told_from_tls_and_answered_with_an_alert() {
    let mut session = Session::new(&identity().0);
    session.receive(b"GET / HTTP/1.1\r\n\r\n", &mut Vec::new());
    assert!(session.has_failed());
    let alert = session.drain();
    assert_eq!(alert.first(), Some(&21), "{alert:?}");
    let cause = session.facts().cause.expect("a cause");
    assert!(cause.starts_with("this is not TLS"), "{cause}");
}

#[test]
fn a_fin_without_close_notify_is_a_truncation_and_one_in_the_handshake_a_failure() {
    let mut pair = Pair::new(&version::TLS13, vec![9000]);
    pair.run();
    assert!(pair.session.peer_closed() && pair.session.facts().truncated);
    let mut session = Session::new(&identity().0);
    session.receive(&[22, 3, 1], &mut Vec::new());
    assert!(!session.peer_closed());
    assert!(
        Session::new(&identity().0).peer_closed(),
        "a look at the port"
    );
}

#[test]
fn both_ends_know_what_they_agreed_on() {
    for (version, name) in [(&version::TLS12, "1.2"), (&version::TLS13, "1.3")] {
        let mut pair = Pair::new(version, vec![100]);
        pair.run();
        let facts = pair.session.facts();
        assert_eq!(facts.version, Some(name));
        assert_eq!(facts.sni.as_deref(), Some("echo.example"));
        assert!(
            facts
                .cipher
                .is_some_and(|cipher| cipher.starts_with("TLS_"))
        );
        assert_eq!((facts.alpn, facts.client, facts.cause), (None, None, None));
    }
}

#[test]
fn identities_are_judged_again_as_time_goes_on() {
    const DAY: i64 = 86_400;
    let directory = tempfile::TempDir::new().expect("a directory");
    let (cert, key) = (directory.path().join("c"), directory.path().join("k"));
    let mut params = rcgen::CertificateParams::new(["echo.example".to_owned()]).expect("names");
    params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    params.not_after = rcgen::date_time_ymd(2500, 1, 1);
    let end = params.not_after.unix_timestamp();
    let pair = rcgen::KeyPair::generate().expect("a key");
    let made = params.self_signed(&pair).expect("a certificate");
    fs::write(&cert, made.pem()).expect("write");
    fs::write(&key, pair.serialize_pem()).expect("write");
    let pair = format!(
        "{{ certificate = \"{}\", key = \"{}\" }}",
        cert.display(),
        key.display()
    );
    let text = format!("[[listener]]\n[listener.tls]\ncertificates = [{pair}]\n");
    let config = Config::parse(&text, Path::new("test.toml")).expect("a configuration");
    let mut all = Identities::load(&config, &Identities::default()).expect("an identity");
    // What is warned of on that day, and what the status has from then on.
    let mut on = |day: i64| {
        let told: Vec<_> = all
            .judge(end + day * DAY)
            .iter()
            .map(|n| n.text.clone())
            .collect();
        let notes: Vec<_> = all.notes().iter().map(|n| n.text.clone()).collect();
        (told, notes)
    };
    let lines = |text: &str| vec![text.to_owned()];
    let soon = |days| lines(&format!("expires on 2500-01-01 00:00 UTC, in {days} days"));
    assert_eq!(
        on(-15),
        (Vec::new(), lines("is valid until 2500-01-01 00:00 UTC"))
    );
    assert_eq!(on(-13), (soon(13), soon(13)));
    assert_eq!(on(-12), (Vec::new(), soon(12)));
    let expired = lines("expired on 2500-01-01 00:00 UTC");
    assert_eq!(on(1), (expired.clone(), expired.clone()));
    assert_eq!(on(2), (Vec::new(), expired));
}
