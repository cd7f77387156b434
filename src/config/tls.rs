//! `[listener.tls]`: what the file may say, what it means, and how it is written again.
//!
//! Suites and groups are known by the names that the library has for them, so that no list has to be kept beside
//! its own. Whether the files are there and fit each other is not asked here. Pure.

use std::ops::Range;
use std::path::PathBuf;

use rustls::CipherSuite;
use rustls::SupportedCipherSuite;
use rustls::crypto::aws_lc_rs::{ALL_CIPHER_SUITES, ALL_KX_GROUPS};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, SeqAccess};

use super::validate::Judge;
use super::value::{List, Off, Setting, Value, Words, Wrong, read_list, wrong_kind};

/// Most certificates, names and protocols of one listener.
pub(super) const SEVERAL_MAX: usize = 64;

/// Longest path: the kernel's `PATH_MAX`, with its zero.
const PATH_MAX: usize = 4095;

/// Longest name of a protocol: one byte has its length. No name of a peer is longer than that of a host.
const TOKEN_MAX: usize = 255;

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

/// What the file may say.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(super) struct Written {
    pub(super) certificates: Setting<Several<WrittenPair>>,
    pub(super) client_ca: Setting<Off<Path>>,
    pub(super) client: Setting<Client>,
    pub(super) client_names: Setting<Several<PeerName>>,
    pub(super) minimum: Setting<TlsVersion>,
    pub(super) maximum: Setting<TlsVersion>,
    pub(super) cipher_suites: Setting<Several<Suite>>,
    pub(super) groups: Setting<Several<Group>>,
    pub(super) alpn: Setting<Several<Protocol>>,
    pub(super) expired: Setting<Expired>,
}

impl Default for Written {
    fn default() -> Self {
        Self {
            certificates: Setting::unset(Several(Vec::new())),
            client_ca: Setting::unset(Off(None)),
            client: Setting::unset(Client::Required),
            client_names: Setting::unset(Several(Vec::new())),
            minimum: Setting::unset(TlsVersion::V1_2),
            maximum: Setting::unset(TlsVersion::V1_3),
            cipher_suites: Setting::unset(Several(Vec::new())),
            groups: Setting::unset(Several(Vec::new())),
            alpn: Setting::unset(Several(vec![Setting::unset(Protocol("echo".into()))])),
            expired: Setting::unset(Expired::Warn),
        }
    }
}

/// `{ certificate = .., key = .. }`: neither has a default.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WrittenPair {
    pub(super) certificate: Option<Setting<Path>>,
    pub(super) key: Option<Setting<Path>>,
}

macro_rules! tables {
    ($($type:ident: $example:literal),+ $(,)?) => { $(
        impl Value for $type {
            fn noun() -> String {
                "a table".into()
            }

            fn example() -> String {
                concat!("write ", $example).into()
            }

            fn from_table<'de, A: MapAccess<'de>>(
                table: A,
            ) -> Result<Result<Self, Wrong>, A::Error> {
                Self::deserialize(MapAccessDeserializer::new(table)).map(Ok)
            }
        }
    )+ };
}

tables! {
    Written: "[listener.tls] on a line of its own, and its keys below",
    WrittenPair: "{ certificate = \"/etc/echod/tls/cert.pem\", key = \"/etc/echod/tls/key.pem\" }",
}

/// A list of a few.
#[derive(Clone, Debug)]
pub(super) struct Several<T>(pub(super) Vec<Setting<T>>);

impl<T: Value> Value for Several<T> {
    fn noun() -> String {
        "a list".into()
    }

    fn example() -> String {
        format!("put it in [ ]; in the list, {}", T::example())
    }

    fn from_list<'de, A: SeqAccess<'de>>(list: A) -> Result<Result<Self, Wrong>, A::Error> {
        let List(items) = read_list(list)?;
        Ok(if items.len() > SEVERAL_MAX {
            let what = format!("more than {SEVERAL_MAX} of them");
            Err(Wrong::new(what, "make it several listeners"))
        } else {
            Ok(Self(items))
        })
    }
}

/// A file's path, which does not depend on where the daemon was started.
#[derive(Clone, Debug)]
pub(super) struct Path(pub(super) String);

impl Value for Path {
    fn noun() -> String {
        "a path that begins with /".into()
    }

    fn example() -> String {
        "write \"/etc/echod/tls/cert.pem\"".into()
    }

    fn from_text(text: &str) -> Result<Self, Wrong> {
        if text.starts_with('/') && text.len() <= PATH_MAX && text.chars().all(is_plain) {
            Ok(Self(text.into()))
        } else {
            Err(wrong_kind::<Self>())
        }
    }
}

/// A name in a peer's certificate.
#[derive(Clone, Debug)]
pub(super) struct PeerName(pub(super) String);

impl Value for PeerName {
    fn noun() -> String {
        "a name in a certificate".into()
    }

    fn example() -> String {
        "write a DNS name, an e-mail address, a URI or an IP address".into()
    }

    fn from_text(text: &str) -> Result<Self, Wrong> {
        if text.is_empty() || text.len() > TOKEN_MAX || !text.chars().all(is_plain) {
            return Err(wrong_kind::<Self>());
        }
        // As the names in certificates are compared: hosts in lower case, addresses in one spelling.
        if let Ok(address) = text.parse::<std::net::IpAddr>() {
            return Ok(Self(address.to_string()));
        }
        let is_host = !text.contains(['@', '/', ':']);
        Ok(Self(if is_host {
            text.to_ascii_lowercase()
        } else {
            text.into()
        }))
    }
}

/// The name of a protocol.
#[derive(Clone, Debug)]
pub(super) struct Protocol(pub(super) String);

impl Value for Protocol {
    fn noun() -> String {
        "the name of a protocol".into()
    }

    fn example() -> String {
        "write \"echo\"".into()
    }

    fn from_text(text: &str) -> Result<Self, Wrong> {
        let is_short = (1..=TOKEN_MAX).contains(&text.len());
        if is_short && text.chars().all(|c| is_plain(c) && c.is_ascii_graphic()) {
            Ok(Self(text.into()))
        } else {
            Err(wrong_kind::<Self>())
        }
    }
}

/// The name of a cipher suite.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suite(pub(super) SupportedCipherSuite);

impl Value for Suite {
    fn noun() -> String {
        "a known cipher suite".into()
    }

    fn example() -> String {
        let all = ALL_CIPHER_SUITES
            .iter()
            .map(|suite| suite_name(suite.suite()));
        one_of(all)
    }

    fn from_text(text: &str) -> Result<Self, Wrong> {
        let mut all = ALL_CIPHER_SUITES.iter();
        let found = all.find(|suite| suite_name(suite.suite()) == text);
        found
            .map(|suite| Self(*suite))
            .ok_or_else(wrong_kind::<Self>)
    }
}

/// The name of a group.
#[derive(Clone, Debug)]
pub(super) struct Group(pub(super) String);

impl Value for Group {
    fn noun() -> String {
        "a known group".into()
    }

    fn example() -> String {
        one_of(group_names().map(str::to_owned))
    }

    fn from_text(text: &str) -> Result<Self, Wrong> {
        let mut names = group_names();
        let found = names.find(|name| *name == text);
        found
            .map(|name| Self(name.into()))
            .ok_or_else(wrong_kind::<Self>)
    }
}

fn group_names() -> impl Iterator<Item = &'static str> {
    ALL_KX_GROUPS
        .iter()
        .filter_map(|group| group.name().as_str())
}

fn one_of(names: impl Iterator<Item = String>) -> String {
    let names: Vec<_> = names.map(|name| format!("\"{name}\"")).collect();
    format!("write one of {}", names.join(", "))
}

/// What is printed again has to be TOML without escapes.
fn is_plain(c: char) -> bool {
    !c.is_control() && c != '"' && c != '\\'
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
