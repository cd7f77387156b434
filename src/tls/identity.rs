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

use super::certificate;
use super::choice::Choice;
use super::error::Error;
use super::note::{Note, NoteKind};
use super::verify::Named;
use crate::config::{Client, Config, Expired, Tls, TlsVersion, escape, suite_name};

/// Longest file that is read: far more than any chain or bundle of CAs.
const FILE_MAX: u64 = 4 << 20;

/// A certificate that is valid for less is warned of.
const SOON: i64 = 14 * DAY;

const DAY: i64 = 86_400;

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
    notes: Vec<Note>,
}

impl Identities {
    /// All that the configuration asks for; `before` has the credentials that were read earlier.
    ///
    /// # Errors
    /// The first that cannot be had.
    pub fn load(config: &Config, before: &Identities) -> Result<Identities, Error> {
        let directory = std::env::var_os(CREDENTIALS).map(PathBuf::from);
        let mut loader = Loader {
            directory: directory.filter(|path| path.is_absolute()),
            now: Timestamp::now().as_second(),
            before,
            next: Identities::default(),
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

    /// What there is to know of them.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }
}

/// What a check says of the identities of a configuration.
///
/// # Errors
/// Why they are refused.
pub fn look(config: &Config) -> Result<Vec<String>, String> {
    match Identities::load(config, &Identities::default()) {
        Ok(identities) => Ok(identities.notes.iter().map(Note::line).collect()),
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
        let mut names = Vec::new();
        for (place, der) in chain.iter().enumerate() {
            let said = self.said(certificate_path, der)?;
            self.is_valid_now(certificate_path, &said, Some(expired))?;
            if place == 0 {
                names = said.names;
            }
        }
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
        Ok((names, Arc::new(certified)))
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
        for der in self.certificates(path)? {
            let said = self.said(path, &der)?;
            self.is_valid_now(path, &said, None)?;
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

    fn said(&self, path: &Path, der: &[u8]) -> Result<certificate::Said, Error> {
        certificate::read(der).ok_or_else(|| {
            self.wrong(
                path,
                "what is in it is no certificate".into(),
                "it has to be PEM of X.509",
            )
        })
    }

    /// Notes what is expired, soon will be, or is not valid yet; refuses it if that is wanted.
    fn is_valid_now(
        &mut self,
        path: &Path,
        said: &certificate::Said,
        expired: Option<Expired>,
    ) -> Result<(), Error> {
        let Some(text) = validity(said, self.now) else {
            let text = format!("is valid until {}", day(said.not_after));
            self.note(path, text, NoteKind::Valid);
            return Ok(());
        };
        let is_invalid = self.now > said.not_after || self.now < said.not_before;
        if is_invalid && expired == Some(Expired::Refuse) {
            let remedy = "renew it, or set expired = \"warn\"";
            return Err(self.wrong(path, text, remedy));
        }
        self.note(path, text, NoteKind::Expires);
        Ok(())
    }

    fn note(&mut self, path: &Path, text: String, kind: NoteKind) {
        let note = Note {
            listener: self.listener.clone(),
            path: path.into(),
            text,
            kind,
        };
        if !self.next.notes.contains(&note) {
            self.next.notes.push(note);
        }
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
            self.note(
                path,
                "is as it was at the start: a credential is read again by a restart alone".into(),
                NoteKind::Kept,
            );
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

/// What is to be said of its validity; `None`: nothing.
fn validity(said: &certificate::Said, now: i64) -> Option<String> {
    let left = said.not_after - now;
    if now < said.not_before {
        Some(format!("is not valid before {}", day(said.not_before)))
    } else if left < 0 {
        Some(format!("expired on {}", day(said.not_after)))
    } else if left < SOON {
        let days = left / DAY;
        let plural = if days == 1 { "" } else { "s" };
        Some(format!(
            "expires on {}, in {days} day{plural}",
            day(said.not_after)
        ))
    } else {
        None
    }
}

fn day(second: i64) -> String {
    Timestamp::from_second(second).map_or_else(
        |_| "a day beyond all".into(),
        |time| time.strftime("%Y-%m-%d %H:%M UTC").to_string(),
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validity_is_told_when_somebody_should_act() {
        let said = certificate::Said {
            not_before: 100 * DAY,
            not_after: 200 * DAY,
            names: Vec::new(),
        };
        let told = |now| validity(&said, now).unwrap_or_default();
        assert_eq!(told(99 * DAY), "is not valid before 1970-04-11 00:00 UTC");
        assert_eq!(told(150 * DAY), "");
        assert_eq!(told(186 * DAY), "");
        assert_eq!(
            told(199 * DAY - 1),
            "expires on 1970-07-20 00:00 UTC, in 1 day"
        );
        assert_eq!(told(200 * DAY + 1), "expired on 1970-07-20 00:00 UTC");
    }
}
