//! A CA, certificates made for one test, and peers that speak TLS: the library's own client, whose bytes are cut
//! anywhere.
//!
//! Part of a test program by `#[path]`, beside `support`.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs::{self, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, Error, RootCertStore,
    SupportedProtocolVersion, version,
};
use tempfile::TempDir;

use crate::support::{Daemon, connect};

pub const BOTH: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];

/// A CA, and the directory where its certificates lie.
pub struct Ca {
    pub directory: TempDir,
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub fn new() -> Ca {
        let directory = TempDir::new().expect("a directory");
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("chmod");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Two of the same name would be told apart by their signatures alone.
        let name = directory.path().display().to_string();
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        let ca = Ca {
            directory,
            issuer: Issuer::new(params, key),
            pem,
        };
        ca.write("ca.pem", &ca.pem);
        ca
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// In one step, and for the daemon's user to read.
    pub fn write(&self, name: &str, text: &str) {
        let new = self.path("new");
        fs::write(&new, text).expect("write");
        fs::set_permissions(&new, Permissions::from_mode(0o644)).expect("chmod");
        fs::rename(new, self.path(name)).expect("rename");
    }

    /// A certificate for these names, valid for years, and its key.
    pub fn made(&self, names: &[&str]) -> (String, String) {
        self.made_until(names, 4000)
    }

    pub fn made_until(&self, names: &[&str], year: i32) -> (String, String) {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("parameters");
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    /// Writes a pair as `NAME.pem` and `NAME.key`.
    pub fn put(&self, name: &str, (certificate, key): (String, String)) {
        self.write(&format!("{name}.pem"), &certificate);
        self.write(&format!("{name}.key"), &key);
    }

    /// The table of a listener that shows these.
    pub fn table(&self, names: &[&str], keys: &str) -> String {
        let pair = |name: &&str| {
            let file = |end: &str| self.path(&format!("{name}.{end}"));
            format!(
                "{{ certificate = \"{}\", key = \"{}\" }}",
                file("pem").display(),
                file("key").display()
            )
        };
        let pairs: Vec<_> = names.iter().map(pair).collect();
        let keys = keys.replace("CA", &self.path("ca.pem").display().to_string());
        format!(
            "[listener.tls]\ncertificates = [{}]\n{keys}\n",
            pairs.join(", ")
        )
    }

    /// A daemon with a listener `tls` and a plain one.
    pub fn config(&self, names: &[&str], listener: &str, keys: &str) -> String {
        format!(
            "workers = 2\n[log]\nempty = true\n[[listener]]\nname = \"tls\"\naddress = \"127.0.0.1:0\"\n{listener}\n{}\
             [[listener]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\n",
            self.table(names, keys)
        )
    }

    pub fn far(&self, listener: &str, keys: &str) -> Daemon {
        self.put("one", self.made(&["echo.example"]));
        Daemon::start(&self.config(&["one"], listener, keys))
    }

    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        let der = CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("PEM");
        roots.add(der).expect("a root");
        roots
    }

    /// A client that trusts this CA.
    pub fn client(&self, version: &'static SupportedProtocolVersion) -> ClientConfig {
        ClientConfig::builder_with_protocol_versions(&[version])
            .with_root_certificates(self.roots())
            .with_no_client_auth()
    }

    /// One that shows a certificate.
    pub fn client_with(
        &self,
        version: &'static SupportedProtocolVersion,
        (certificate, key): &(String, String),
    ) -> ClientConfig {
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM")];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
        ClientConfig::builder_with_protocol_versions(&[version])
            .with_root_certificates(self.roots())
            .with_client_auth_cert(chain, key)
            .expect("a client")
    }
}

/// The next of a row of numbers that is the same each time.
pub fn random(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1);
    *state >> 33
}

/// How much of what is sent at once is cut into short pieces in any case: a header, a handshake.
const FINELY_CUT: usize = 200;

/// Sends this in pieces of any length, of which the first are short, and some later ones.
pub fn send_in_pieces(
    mut stream: &TcpStream,
    mut bytes: &[u8],
    state: &mut u64,
) -> std::io::Result<()> {
    let whole = bytes.len();
    while !bytes.is_empty() {
        let is_short = whole - bytes.len() < FINELY_CUT || random(state).is_multiple_of(4);
        let most = if is_short { 40 } else { 60_000 };
        let length = usize::try_from(random(state) % most + 1).expect("short");
        let (piece, later) = bytes.split_at(length.min(bytes.len()));
        stream.write_all(piece)?;
        bytes = later;
    }
    Ok(())
}

/// A peer that speaks TLS.
pub struct Peer {
    pub tls: ClientConnection,
    pub stream: TcpStream,
    /// Chooses where it cuts its bytes.
    pub random: u64,
    /// What it says before all TLS.
    before: Vec<u8>,
}

impl Peer {
    pub fn new(address: SocketAddr, config: ClientConfig, name: &str) -> Peer {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut tls = ClientConnection::new(Arc::new(config), name).expect("a client");
        tls.set_buffer_limit(None);
        Peer {
            tls,
            stream: connect(address),
            random: 1,
            before: Vec::new(),
        }
    }

    /// Says this first, in any cuts with the first bytes of TLS.
    pub fn behind(mut self, header: Vec<u8>) -> Peer {
        self.before = header;
        self
    }

    /// One whose handshake is done.
    pub fn begin(daemon: &Daemon, config: ClientConfig) -> Peer {
        let mut peer = Peer::new(daemon.addr_of("tls"), config, "echo.example");
        peer.shake().expect("a handshake");
        peer
    }

    pub fn local(&self) -> SocketAddr {
        self.stream.local_addr().expect("an address")
    }

    pub fn random(&mut self) -> u64 {
        random(&mut self.random)
    }

    pub fn shake(&mut self) -> Result<(), Error> {
        while self.tls.is_handshaking() {
            self.send();
            if self.tls.is_handshaking() {
                self.hear()?;
            }
        }
        self.send();
        Ok(())
    }

    /// Sends all ciphertext that there is, in pieces of any length.
    pub fn send(&mut self) {
        let bytes = self.sealed();
        // An alert may be on its way already.
        let _ = send_in_pieces(&self.stream, &bytes, &mut self.random);
    }

    /// All ciphertext that there is, to be sent.
    pub fn sealed(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.before);
        while self.tls.wants_write() {
            self.tls.write_tls(&mut bytes).expect("a Vec takes all");
        }
        bytes
    }

    /// Reads once. `false`: the end.
    pub fn hear(&mut self) -> Result<bool, Error> {
        let count = match self.tls.read_tls(&mut self.stream) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            Err(error) => panic!("read: {error}"),
        };
        self.tls.process_new_packets()?;
        if count == 0 && self.tls.is_handshaking() {
            return Err(Error::General("the end, in the handshake".into()));
        }
        Ok(count > 0)
    }

    pub fn say(&mut self, bytes: &[u8]) {
        self.tls.writer().write_all(bytes).expect("room");
        self.send();
    }

    /// Reads so many bytes.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        let mut at = 0;
        while at < count {
            match self.tls.reader().read(&mut bytes[at..]) {
                Ok(0) => panic!("the end after {at}"),
                Ok(read) => at += read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.hear().expect("no alert");
                }
                Err(error) => panic!("after {at}: {error}"),
            }
        }
        bytes
    }

    pub fn echo(&mut self, bytes: &[u8]) {
        self.say(bytes);
        assert!(self.take(bytes.len()) == bytes, "other bytes came back");
    }

    /// Says `close_notify`, takes all that is owed, and the daemon's own end: its `close_notify`, then its FIN.
    pub fn finish(&mut self) -> Vec<u8> {
        self.tls.send_close_notify();
        self.send();
        self.rest()
    }

    /// The rest, up to a `close_notify` and a FIN.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        loop {
            let state = self.tls.process_new_packets().expect("no alert");
            let from = rest.len();
            rest.resize(from + state.plaintext_bytes_to_read(), 0);
            self.tls
                .reader()
                .read_exact(&mut rest[from..])
                .expect("it is there");
            if state.peer_has_closed() {
                break;
            }
            assert!(self.hear().expect("no alert"), "a FIN without close_notify");
        }
        let mut after = Vec::new();
        self.stream.read_to_end(&mut after).expect("a FIN");
        assert!(after.is_empty(), "bytes after close_notify");
        rest
    }

    /// The alert that ends it.
    pub fn alert(mut self) -> AlertDescription {
        let result = self.shake().and_then(|()| {
            // In 1.3 a client is done before its certificate is judged.
            while self.hear()? {}
            Ok(())
        });
        match result {
            Err(Error::AlertReceived(alert)) => alert,
            other => panic!("{other:?} instead of an alert"),
        }
    }
}

pub fn record(daemon: &Daemon, peer: SocketAddr) -> String {
    daemon.wait_line(&format!("connection ended peer={peer} "))
}

/// The record of a connection has all of these words.
pub fn ended(daemon: &Daemon, peer: SocketAddr, words: &[&str]) {
    let record = record(daemon, peer) + " ";
    for word in words {
        assert!(
            record.contains(&format!(" {word} ")),
            "not {word:?}: {record}"
        );
    }
}
