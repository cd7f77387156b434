//! What `[listener.tls]` may say: its keys with their defaults, and what each of their values may be. Pure.

use rustls::SupportedCipherSuite;
use rustls::crypto::aws_lc_rs::{ALL_CIPHER_SUITES, ALL_KX_GROUPS};
use serde::Deserialize;

use serde::de::SeqAccess;

use super::{Client, Expired, TlsVersion, suite_name};
use crate::config::value::{List, Off, Setting, Value, Wrong, read_list, tables, wrong_kind};

/// Most certificates, names and protocols of one listener.
const SEVERAL_MAX: usize = 64;

/// Longest path: the kernel's `PATH_MAX`, with its zero.
const PATH_MAX: usize = 4095;

/// Longest name of a protocol: one byte has its length. No name of a peer is longer than that of a host.
const TOKEN_MAX: usize = 255;

/// What the file may say.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(in crate::config) struct Written {
    pub(in crate::config) certificates: Setting<Several<WrittenPair>>,
    pub(in crate::config) client_ca: Setting<Off<Path>>,
    pub(in crate::config) client: Setting<Client>,
    pub(in crate::config) client_names: Setting<Several<PeerName>>,
    pub(in crate::config) minimum: Setting<TlsVersion>,
    pub(in crate::config) maximum: Setting<TlsVersion>,
    pub(in crate::config) cipher_suites: Setting<Several<Suite>>,
    pub(in crate::config) groups: Setting<Several<Group>>,
    pub(in crate::config) alpn: Setting<Several<Protocol>>,
    pub(in crate::config) expired: Setting<Expired>,
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
pub(in crate::config) struct WrittenPair {
    pub(in crate::config) certificate: Option<Setting<Path>>,
    pub(in crate::config) key: Option<Setting<Path>>,
}

tables! {
    Written: "[listener.tls] on a line of its own, and its keys below",
    WrittenPair: "{ certificate = \"/etc/echod/tls/cert.pem\", key = \"/etc/echod/tls/key.pem\" }",
}

/// A list of a few.
#[derive(Clone, Debug)]
pub(in crate::config) struct Several<T>(pub(in crate::config) Vec<Setting<T>>);

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
pub(in crate::config) struct Path(pub(in crate::config) String);

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
pub(in crate::config) struct PeerName(pub(in crate::config) String);

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
pub(in crate::config) struct Protocol(pub(in crate::config) String);

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
pub(in crate::config) struct Suite(pub(in crate::config) SupportedCipherSuite);

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
pub(in crate::config) struct Group(pub(in crate::config) String);

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
