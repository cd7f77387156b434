//! `[listener.tls]`: what the file may say, what it means, and how it is written again.
//!
//! Suites and groups are known by the names that the library has for them, so that no list has to be kept beside
//! its own. Whether the files are there and fit each other is not asked here. Pure.

mod written;

use std::ops::Range;
use std::path::PathBuf;

use rustls::{CipherSuite, SupportedCipherSuite};

use super::validate::Judge;
use super::value::{Setting, Value, Words};
use written::{Path, Several};
pub(super) use written::{Written, WrittenPair};

/// `[listener.tls]`: certificates, and what is asked of peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// At least one; the first is for those who ask for no name of the others.
    pub certificates: Vec<Pair>,
    /// Who signs the certificates of peers; `None`: they are not asked for one.
    pub client_ca: Option<PathBuf>,
    /// Whether they need one.
    pub client: Client,
    /// Subject alternative names of which they need one; none: any.
    pub client_names: Vec<String>,
    /// The least version.
    pub minimum: TlsVersion,
    /// The highest.
    pub maximum: TlsVersion,
    /// By IANA's names; none: the library's choice.
    pub cipher_suites: Vec<String>,
    /// Groups of the key exchange; none: the library's choice.
    pub groups: Vec<String>,
    /// What a peer may want to speak, if it says so; none: not asked.
    pub alpn: Vec<String>,
    /// What becomes of a certificate that is not valid now.
    pub expired: Expired,
}

/// A certificate with its chain, and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// PEM, the chain behind it.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

/// Does a peer need a certificate?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// It is let in with one alone.
    Required,
    /// One that it has must be good.
    Optional,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// RFC 5246.
    V1_2,
    /// RFC 8446.
    V1_3,
}

/// What becomes of a certificate that is not valid now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// It is used, and somebody is told.
    Warn,
    /// The configuration is refused.
    Refuse,
}

macro_rules! words {
    ($type:ty, $($word:literal => $meaning:expr),+ $(,)?) => {
        impl Words for $type {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, $meaning)),+];
        }
    };
}

words!(Client, "required" => Client::Required, "optional" => Client::Optional);
words!(TlsVersion, "1.2" => TlsVersion::V1_2, "1.3" => TlsVersion::V1_3);
words!(Expired, "warn" => Expired::Warn, "refuse" => Expired::Refuse);

/// The name that IANA has for a suite; the library has its own for those of 1.3.
pub(crate) fn suite_name(suite: CipherSuite) -> String {
    match suite.as_str() {
        Some(name) => name.replacen("TLS13_", "TLS_", 1),
        None => format!("{suite:?}"),
    }
}

impl Judge<'_> {
    /// `[listener.tls]`, whose keys begin with `prefix` in messages. `place` stands for what it does not say; none:
    /// it is a default for listeners that say the rest.
    pub(super) fn tls(
        &mut self,
        prefix: &str,
        written: Written,
        place: Option<Range<usize>>,
    ) -> Option<Tls> {
        let key = |key: &str| format!("{prefix}{key}");
        let client_span = written.client.span.clone();
        let names_span = written.client_names.span.clone();
        let minimum_span = written
            .minimum
            .span
            .clone()
            .or(written.maximum.span.clone());
        let suites_span = written.cipher_suites.span.clone();
        let pairs = self.take(&key("certificates"), written.certificates);
        if let (Some(Several(pairs)), Some(place)) = (&pairs, &place)
            && pairs.is_empty()
        {
            self.problem(
                place.clone(),
                format!("{}: none", key("certificates")),
                "write certificates = [{ certificate = \"/etc/echod/tls/cert.pem\", key = \"/etc/echod/tls/key.pem\" }]",
            );
        }
        let mut certificates = pairs.is_some().then(Vec::new);
        for pair in pairs.map_or(Vec::new(), |pairs| pairs.0) {
            let valid = self.pair(&key("certificates"), pair);
            certificates = certificates.zip(valid).map(|(mut all, pair)| {
                all.push(pair);
                all
            });
        }
        let client_ca = self.take(&key("client_ca"), written.client_ca);
        let client = self.take(&key("client"), written.client);
        let names = self.several(&key("client_names"), written.client_names, |name| name.0);
        let minimum = self.take(&key("minimum"), written.minimum);
        let maximum = self.take(&key("maximum"), written.maximum);
        let suites = self.several(&key("cipher_suites"), written.cipher_suites, |suite| {
            suite.0
        });
        let groups = self.several(&key("groups"), written.groups, |group| group.0);
        let alpn = self.several(&key("alpn"), written.alpn, |protocol| protocol.0);
        let expired = self.take(&key("expired"), written.expired);
        let (client_ca, minimum, maximum, suites) = (client_ca?.0, minimum?, maximum?, suites?);
        let names = names?;
        if let (Some(place), None) = (&place, &client_ca) {
            // Whoever says these believes that peers are asked.
            for (word, span) in [("client", client_span), ("client_names", names_span)] {
                if span.is_some() && (word == "client" || !names.is_empty()) {
                    self.problem(
                        span.unwrap_or(place.clone()),
                        format!("{}: peers are not asked for certificates", key(word)),
                        "set client_ca, or remove it",
                    );
                }
            }
        }
        if minimum > maximum {
            self.problem(
                minimum_span.or(place.clone()).unwrap_or(0..0),
                format!(
                    "{}: \"{}\" is above maximum, \"{}\"",
                    key("minimum"),
                    minimum.word(),
                    maximum.word()
                ),
                "lower minimum, or raise maximum",
            );
        } else {
            for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
                let is_its = |suite: &SupportedCipherSuite| {
                    suite.tls13().is_some() == (version == TlsVersion::V1_3)
                };
                if (minimum..=maximum).contains(&version)
                    && !suites.is_empty()
                    && !suites.iter().any(is_its)
                {
                    self.problem(
                        suites_span.clone().or(place.clone()).unwrap_or(0..0),
                        format!(
                            "{}: none of them is of TLS {}",
                            key("cipher_suites"),
                            version.word()
                        ),
                        "add one, or leave that version out with minimum and maximum",
                    );
                }
            }
        }
        Some(Tls {
            certificates: certificates?,
            client_ca: client_ca.map(|path| path.0.into()),
            client: client?,
            client_names: names,
            minimum,
            maximum,
            cipher_suites: suites
                .iter()
                .map(|suite| suite_name(suite.suite()))
                .collect(),
            groups: groups?,
            alpn: alpn?,
            expired: expired?,
        })
    }

    fn several<T, U>(
        &mut self,
        key: &str,
        items: Setting<Several<T>>,
        meaning: impl Fn(T) -> U,
    ) -> Option<Vec<U>> {
        let items = self.take(key, items)?.0;
        self.each(key, items, meaning)
    }

    fn pair(&mut self, key: &str, pair: Setting<WrittenPair>) -> Option<Pair> {
        let place = pair.span.clone().unwrap_or(0..0);
        let pair = self.take(key, pair)?;
        let mut path = |name: &str, path: Option<Setting<Path>>| match path {
            Some(path) => self.take(&format!("{key}.{name}"), path),
            None => {
                let what = format!("{key}: no {name}");
                self.problem(place.clone(), what, &WrittenPair::example());
                None
            }
        };
        let certificate = path("certificate", pair.certificate);
        let key = path("key", pair.key);
        Some(Pair {
            certificate: certificate?.0.into(),
            key: key?.0.into(),
        })
    }
}

/// As a file has it, in one line.
pub(super) fn write(tls: &Tls) -> String {
    let quoted = |text: &str| format!("\"{text}\"");
    let list = |items: &[String]| {
        let items: Vec<_> = items.iter().map(|item| quoted(item)).collect();
        format!("[{}]", items.join(", "))
    };
    // What a file said was UTF-8, and is here as it was.
    let pairs = tls.certificates.iter().map(|pair| {
        format!(
            "{{ certificate = \"{}\", key = \"{}\" }}",
            pair.certificate.display(),
            pair.key.display()
        )
    });
    let pairs: Vec<_> = pairs.collect();
    let mut keys = vec![format!("certificates = [{}]", pairs.join(", "))];
    if let Some(path) = &tls.client_ca {
        keys.push(format!("client_ca = \"{}\"", path.display()));
        keys.push(format!("client = {}", quoted(tls.client.word())));
        keys.push(format!("client_names = {}", list(&tls.client_names)));
    }
    keys.push(format!("minimum = {}", quoted(tls.minimum.word())));
    keys.push(format!("maximum = {}", quoted(tls.maximum.word())));
    keys.push(format!("cipher_suites = {}", list(&tls.cipher_suites)));
    keys.push(format!("groups = {}", list(&tls.groups)));
    keys.push(format!("alpn = {}", list(&tls.alpn)));
    keys.push(format!("expired = {}", quoted(tls.expired.word())));
    format!("{{ {} }}", keys.join(", "))
}
