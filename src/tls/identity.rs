//! What a listener shows its peers and asks of them: certificates with their keys, the CA of clients, suites, groups.
//!
//! Loaded from files at the start, before the privileges are dropped, and again at each reload, whole or not at
//! all: a certificate and its key only as a pair that matches. Each time there is a new configuration of the library with
//! new keys for tickets, so nothing is resumed across a reload; where clients show certificates, nothing is
//! resumed at all. What lies below `$CREDENTIALS_DIRECTORY` is read once: after the start it may not be ours to
//! read any more.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use nix::unistd::geteuid;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ServerConfig, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore, SupportedProtocolVersion, version};

use super::certificate::{self, Said};
use super::choice::Choice;
use super::error::Error;
use super::note::{Note, NoteKind};
use super::validity::{Renewed, Seen, Validity};
use super::verify::Named;
use crate::config::{Client, Config, Expired, Tls, TlsVersion, escape, suite_name};

/// Longest file that is read: far more than any chain or bundle of CAs.
const FILE_MAX: u64 = 4 << 20;

/// Where systemd tells of the credentials of a unit.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// What one listener shows and asks.
#[derive(Debug)]
pub struct Identity {
    config: Arc<ServerConfig>,
}

impl Identity {
    /// For a new connection.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }
}

/// The identities of all listeners that have one, by name.
#[derive(Debug, Default)]
pub struct Identities {
    all: HashMap<String, Arc<Identity>>,
    /// What was read below `$CREDENTIALS_DIRECTORY`.
    credentials: HashMap<PathBuf, Arc<[u8]>>,
    /// Which of them were not read again.
    kept: Vec<Note>,
    /// Files with certificates.
    seen: Vec<Seen>,
    /// When they were judged last, in seconds since 1970.
    judged: i64,
}

impl Identities {
    /// All that the configuration asks for; `before` has the credentials that were read earlier.
    ///
    /// # Errors
    /// The first that cannot be had.
    pub fn load(config: &Config, before: &Identities) -> Result<Identities, Error> {
        let directory = std::env::var_os(CREDENTIALS).map(PathBuf::from);
        let now = Timestamp::now().as_second();
        let mut loader = Loader {
            directory: directory.filter(|path| path.is_absolute()),
            now,
            before,
            next: Identities {
                judged: now,
                ..Identities::default()
            },
            listener: String::new(),
        };
        for listener in &config.listeners {
            if let Some(tls) = &listener.tls {
                loader.listener.clone_from(&listener.name);
                let identity = Arc::new(loader.identity(tls)?);
                loader.next.all.insert(listener.name.clone(), identity);
            }
        }
        Ok(loader.next)
    }

    /// The identity of a listener.
    pub fn of(&self, listener: &str) -> Option<&Arc<Identity>> {
        self.all.get(listener)
    }

    /// What there is to know of them, as they were judged last.
    pub fn notes(&self) -> Vec<Note> {
        let seen = self.seen.iter().flat_map(|seen| seen.notes(self.judged));
        let mut notes = self.kept.clone();
        for note in seen {
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
        notes
    }

    /// Judges the certificates again, at this second since 1970: what somebody should hear of since the last time.
    pub fn judge(&mut self, now: i64) -> Vec<Note> {
        let then = std::mem::replace(&mut self.judged, now);
        let crossed = self.seen.iter().flat_map(|seen| seen.crossed(then, now));
        crossed.collect()
    }

    /// Files that have other certificates in them than `before`.
    pub fn renewed(&self, before: &Identities) -> Vec<Renewed> {
        let renewed = self.seen.iter().filter_map(|s| s.renewed(&before.seen));
        renewed.collect()
    }
}

/// What a check says of the identities of a configuration.
///
/// # Errors
/// Why they are refused.
pub fn look(config: &Config) -> Result<Vec<String>, String> {
    match Identities::load(config, &Identities::default()) {
        Ok(identities) => Ok(identities.notes().iter().map(Note::line).collect()),
        // The daemon may be somebody else than whoever checks.
        Err(Error::Unreadable { source, path, .. })
            if source.kind() == io::ErrorKind::PermissionDenied && !geteuid().is_root() =>
        {
            let path = escape(&path.to_string_lossy());
            Ok(vec![format!(
                "tls: {path}: not for this user to read; check as root to look at it"
            )])
        }
        Err(error) => Err(error.to_string()),
    }
}

/// What is needed while identities are loaded.
struct Loader<'a> {
    directory: Option<PathBuf>,
    now: i64,
    before: &'a Identities,
    next: Identities,
    listener: String,
}

impl Loader<'_> {
    fn identity(&mut self, tls: &Tls) -> Result<Identity, Error> {
        let provider = Arc::new(provider(tls));
        let mut choice = Vec::new();
        for pair in &tls.certificates {
            choice.push(self.pair(&pair.certificate, &pair.key, tls.expired, &provider)?);
        }
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions(tls))
            .map_err(|error| self.unusable(&error))?;
        let builder = match &tls.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(self.roots(path)?);
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
                let verifier = match tls.client {
                    Client::Required => verifier,
                    Client::Optional => verifier.allow_unauthenticated(),
                };
                let inner = verifier.build().map_err(|error| self.unusable(&error))?;
                if tls.client_names.is_empty() {
                    builder.with_client_cert_verifier(inner)
                } else {
                    let names = tls.client_names.clone();
                    builder.with_client_cert_verifier(Arc::new(Named { inner, names }))
                }
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(Choice(choice)));
        config.alpn_protocols = tls
            .alpn
            .iter()
            .map(|name| name.clone().into_bytes())
            .collect();
        // Nothing is remembered here of those who come; what they may bring back is a ticket.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        if tls.client_ca.is_none() {
            config.ticketer = aws_lc_rs::Ticketer::new().map_err(|error| self.unusable(&error))?;
            config.send_tls13_tickets = 1;
        }
        Ok(Identity {
            config: Arc::new(config),
        })
    }

    /// A certificate with its chain, and the key that matches it.
    fn pair(
        &mut self,
        certificate_path: &Path,
        key_path: &Path,
        expired: Expired,
        provider: &CryptoProvider,
    ) -> Result<(Vec<String>, Arc<CertifiedKey>), Error> {
        let chain = self.certificates(certificate_path)?;
        let key = self.key(key_path)?;
        let said = self.see(certificate_path, &chain, Some(expired))?;
        let names = said.into_iter().next().map(|leaf| leaf.names);
        let certified =
            CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
                rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => self.wrong(
                    key_path,
                    format!(
                        "not the key of {}",
                        escape(&certificate_path.to_string_lossy())
                    ),
                    "replace both files, then reload",
                ),
                other => self.wrong(
                    key_path,
                    format!("cannot be used: {other}"),
                    "make one with: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256",
                ),
            })?;
        Ok((names.unwrap_or_default(), Arc::new(certified)))
    }

    fn certificates(&mut self, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
        let text = self.read(path)?;
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        let remedy = "it has to be PEM, with -----BEGIN CERTIFICATE-----";
        match all {
            Ok(all) if !all.is_empty() => Ok(all),
            Ok(_) => Err(self.wrong(path, "there is no certificate in it".into(), remedy)),
            Err(error) => Err(self.wrong(path, escape(&error.to_string()), remedy)),
        }
    }

    fn key(&mut self, path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
        let text = self.read(path)?;
        PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
            let is_locked = text
                .windows(ENCRYPTED.len())
                .any(|window| window == ENCRYPTED);
            if is_locked {
                self.wrong(
                    path,
                    "the key is encrypted, and nobody is there to type its passphrase".into(),
                    "write it without: openssl pkey -in FILE -out FILE; or LoadCredentialEncrypted=",
                )
            } else {
                self.wrong(
                    path,
                    "there is no private key in it".into(),
                    "it has to be PEM, with -----BEGIN PRIVATE KEY-----",
                )
            }
        })
    }

    fn roots(&mut self, path: &Path) -> Result<RootCertStore, Error> {
        let mut roots = RootCertStore::empty();
        let all = self.certificates(path)?;
        self.see(path, &all, None)?;
        for der in all {
            roots.add(der).map_err(|error| {
                self.wrong(
                    path,
                    format!("cannot be used: {error}"),
                    "name a CA's certificate",
                )
            })?;
        }
        Ok(roots)
    }

    /// Reads what the certificates of a file say, and remembers it; refuses one that is not valid if that is wanted.
    fn see(
        &mut self,
        path: &Path,
        all: &[CertificateDer<'_>],
        expired: Option<Expired>,
    ) -> Result<Vec<Said>, Error> {
        let mut said = Vec::new();
        for der in all {
            let one = certificate::read(der).ok_or_else(|| {
                self.wrong(
                    path,
                    "what is in it is no certificate".into(),
                    "it has to be PEM of X.509",
                )
            })?;
            let validity = Validity::of(&one);
            if expired == Some(Expired::Refuse) && !validity.is_valid(self.now) {
                let remedy = "renew it, or set expired = \"warn\"";
                return Err(self.wrong(path, validity.text(self.now), remedy));
            }
            said.push(one);
        }
        let seen = Seen::new(&self.listener, path, &said, all);
        if !self.next.seen.contains(&seen) {
            self.next.seen.push(seen);
        }
        Ok(said)
    }

    /// A file's bytes; those below the directory of credentials as they were at the start.
    fn read(&mut self, path: &Path) -> Result<Arc<[u8]>, Error> {
        let directory = self.directory.as_deref();
        let is_credential = directory.is_some_and(|directory| path.starts_with(directory));
        if is_credential && let Some(bytes) = self.before.credentials.get(path) {
            let bytes = Arc::clone(bytes);
            self.next
                .credentials
                .insert(path.into(), Arc::clone(&bytes));
            let note = Note {
                listener: self.listener.clone(),
                path: path.into(),
                text: "is as it was at the start: a credential is read again by a restart alone"
                    .into(),
                kind: NoteKind::Kept,
            };
            if !self.next.kept.contains(&note) {
                self.next.kept.push(note);
            }
            return Ok(bytes);
        }
        let bytes: Arc<[u8]> = match read_file(path) {
            Ok(Some(bytes)) => bytes.into(),
            Ok(None) => {
                let what = "not a regular file of at most 4 MiB".into();
                return Err(self.wrong(path, what, "name the file itself"));
            }
            Err(source) => {
                return Err(Error::Unreadable {
                    listener: self.listener.clone(),
                    path: path.into(),
                    source,
                });
            }
        };
        if is_credential {
            self.next
                .credentials
                .insert(path.into(), Arc::clone(&bytes));
        }
        Ok(bytes)
    }

    fn wrong(&self, path: &Path, what: String, remedy: &'static str) -> Error {
        Error::Wrong {
            listener: self.listener.clone(),
            path: path.into(),
            what,
            remedy,
        }
    }

    fn unusable(&self, error: &impl ToString) -> Error {
        Error::Unusable {
            listener: self.listener.clone(),
            what: escape(&error.to_string()),
        }
    }
}

/// What a key that needs a passphrase begins with, in both of its forms.
const ENCRYPTED: &[u8] = b"ENCRYPTED";

/// `None`: it is no regular file, or too long for one of ours.
fn read_file(path: &Path) -> io::Result<Option<Vec<u8>>> {
    // Before it is opened: a FIFO would have us wait.
    if !fs::metadata(path)?.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    File::open(path)?
        .take(FILE_MAX + 1)
        .read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= FILE_MAX).then_some(bytes))
}

fn provider(tls: &Tls) -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    if !tls.cipher_suites.is_empty() {
        let suites = tls.cipher_suites.iter().filter_map(|name| {
            let mut all = aws_lc_rs::ALL_CIPHER_SUITES.iter();
            all.find(|suite| suite_name(suite.suite()) == *name)
                .copied()
        });
        provider.cipher_suites = suites.collect();
    }
    if !tls.groups.is_empty() {
        let groups = tls.groups.iter().filter_map(|name| {
            let mut all = aws_lc_rs::ALL_KX_GROUPS.iter();
            all.find(|group| group.name().as_str() == Some(name))
                .copied()
        });
        provider.kx_groups = groups.collect();
    }
    provider
}

fn versions(tls: &Tls) -> Vec<&'static SupportedProtocolVersion> {
    let all = [
        (TlsVersion::V1_2, &version::TLS12),
        (TlsVersion::V1_3, &version::TLS13),
    ];
    let served = all
        .into_iter()
        .filter(|(version, _)| (tls.minimum..=tls.maximum).contains(version));
    served.map(|(_, version)| version).collect()
}
