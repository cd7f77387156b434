//! How simulated peers speak where they do not speak plainly: TLS by the library's own client, and compression.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use echod::compression::{Codec, Terms};
use echod::config::Config;
use echod::driver::sim::Voice;
use echod::tls::{Identities, Identity};
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, version};

/// What a listener shows and its peers trust, made once. Signatures of this kind of key have one length.
pub fn identity() -> &'static (Arc<Identity>, CertificateDer<'static>) {
    static MADE: OnceLock<(Arc<Identity>, CertificateDer<'static>)> = OnceLock::new();
    MADE.get_or_init(|| {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let params = rcgen::CertificateParams::new(["echo.example".to_owned()]).unwrap();
        let made = params.self_signed(&key).unwrap();
        let directory = tempfile::TempDir::new().unwrap();
        let (certificate, own) = (directory.path().join("c"), directory.path().join("k"));
        std::fs::write(&certificate, made.pem()).unwrap();
        std::fs::write(&own, key.serialize_pem()).unwrap();
        let text = format!(
            "[[listener]]\n[listener.tls]\ncertificates = [{{ certificate = {certificate:?}, key = {own:?} }}]\n"
        );
        let config = Config::parse(&text, Path::new("simulation.toml")).unwrap();
        let all = Identities::load(&config, &Identities::default()).unwrap();
        (Arc::clone(all.of("echo").unwrap()), made.der().clone())
    })
}

/// A client of TLS 1.2, and one of 1.3.
fn clients() -> &'static [Arc<ClientConfig>; 2] {
    static MADE: OnceLock<[Arc<ClientConfig>; 2]> = OnceLock::new();
    MADE.get_or_init(|| {
        [&version::TLS12, &version::TLS13].map(|version| {
            let mut roots = RootCertStore::empty();
            roots.add(identity().1.clone()).unwrap();
            let mut config = ClientConfig::builder_with_protocol_versions(&[version])
                .with_root_certificates(roots)
                .with_no_client_auth();
            // Each day is alone.
            config.resumption = Resumption::disabled();
            Arc::new(config)
        })
    })
}

/// It says all that it says in its own layers.
#[derive(Debug, Default)]
pub struct Layered {
    tls: Option<ClientConnection>,
    codec: Option<Codec>,
    /// It has heard that it hears no more.
    is_closed: bool,
    /// How often it has spoken: it ends a frame, or lets it be read, now and then.
    count: u32,
}

impl Layered {
    pub fn with_tls(mut self, seed: u64) -> Layered {
        let config = Arc::clone(&clients()[usize::from(seed.is_multiple_of(2))]);
        let name = ServerName::try_from("echo.example").unwrap();
        self.tls = Some(ClientConnection::new(config, name).unwrap());
        self
    }

    pub fn with_compression(mut self, terms: Terms) -> Layered {
        self.codec = Some(Codec::new(terms));
        self
    }

    /// What TLS has for the wire.
    fn sealed(&mut self, packed: Vec<u8>) -> Vec<u8> {
        let Some(tls) = &mut self.tls else {
            return packed;
        };
        let mut wire = Vec::new();
        tls.writer().write_all(&packed).unwrap();
        while tls.wants_write() {
            tls.write_tls(&mut wire).unwrap();
        }
        wire
    }

    /// What TLS makes of the wire.
    fn opened(&mut self, mut heard: &[u8]) -> Result<Vec<u8>, String> {
        let Some(tls) = &mut self.tls else {
            return Ok(heard.to_vec());
        };
        let mut opened = Vec::new();
        while !heard.is_empty() {
            if self.is_closed {
                return Err("bytes behind the last word".into());
            }
            tls.read_tls(&mut heard)
                .map_err(|error| error.to_string())?;
            let state = tls.process_new_packets();
            let state = state.map_err(|error| error.to_string())?;
            self.is_closed = state.peer_has_closed();
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = tls.reader().read(&mut piece) {
                opened.extend_from_slice(&piece[..count]);
            }
        }
        Ok(opened)
    }

    fn expanded(&mut self, mut packed: &[u8]) -> Result<Vec<u8>, String> {
        let Some(codec) = &mut self.codec else {
            return Ok(packed.to_vec());
        };
        let (mut plain, mut piece) = (Vec::new(), [0; 4096]);
        loop {
            let count = codec.expand(packed, &mut piece);
            plain.extend_from_slice(&piece[..count]);
            packed = &[];
            if !codec.has_more() {
                break;
            }
        }
        match codec.failure() {
            Some(broken) => Err(broken.to_string()),
            None => Ok(plain),
        }
    }

    fn packed(&mut self, said: &[u8]) -> Vec<u8> {
        let Some(codec) = &mut self.codec else {
            return said.to_vec();
        };
        if !said.is_empty() {
            codec.send(said);
            self.count += 1;
            if self.count.is_multiple_of(3) {
                codec.flush();
            }
        }
        codec.drain()
    }
}

impl Voice for Layered {
    fn exchange(&mut self, said: &[u8], heard: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
        let opened = self.opened(heard)?;
        let plain = self.expanded(&opened)?;
        let packed = self.packed(said);
        Ok((self.sealed(packed), plain))
    }

    fn finish(&mut self) -> Option<Vec<u8>> {
        if self.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
            return None;
        }
        let packed = self.codec.as_mut().map_or(Vec::new(), |codec| {
            codec.end();
            codec.drain()
        });
        let mut wire = self.sealed(packed);
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            wire.extend(self.sealed(Vec::new()));
        }
        Some(wire)
    }

    fn is_well_closed(&self) -> bool {
        let frames = self.codec.as_ref().is_none_or(Codec::is_between);
        (self.is_closed || self.tls.is_none()) && frames
    }
}
