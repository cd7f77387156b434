//! What a certificate says of itself: until when it is valid, and for whom. Pure.
//!
//! A certificate may be the peer's, so it may say anything; whether it is to be believed is decided elsewhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Most names of one certificate that are looked at.
const NAMES_MAX: usize = 1000;

/// What a certificate of ours says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    /// Seconds since 1970.
    pub(super) not_before: i64,
    pub(super) not_after: i64,
    /// DNS names, in lower case.
    pub(super) names: Vec<String>,
}

/// Reads it; `None`: it is no certificate.
pub(super) fn read(der: &[u8]) -> Option<Said> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let validity = certificate.validity();
    let mut names = Vec::new();
    for name in general_names(&certificate) {
        if let GeneralName::DNSName(name) = name {
            names.push(name.to_ascii_lowercase());
        }
    }
    Some(Said {
        not_before: validity.not_before.timestamp(),
        not_after: validity.not_after.timestamp(),
        names,
    })
}

/// All subject alternative names that can be written as text.
pub(super) fn names(der: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return Vec::new();
    };
    general_names(&certificate)
        .into_iter()
        .filter_map(text)
        .collect()
}

/// The first of them; else the subject, of those that have none.
pub(super) fn name_of(der: &[u8]) -> Option<String> {
    if let Some(name) = names(der).into_iter().next() {
        return Some(name);
    }
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject().to_string();
    (!subject.is_empty()).then_some(subject)
}

fn general_names<'a>(certificate: &'a X509Certificate<'_>) -> Vec<&'a GeneralName<'a>> {
    match certificate.subject_alternative_name() {
        Ok(Some(extension)) => extension
            .value
            .general_names
            .iter()
            .take(NAMES_MAX)
            .collect(),
        _ => Vec::new(),
    }
}

fn text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::RFC822Name(name) | GeneralName::URI(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
        _ => None,
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(four).into());
    }
    let sixteen = <[u8; 16]>::try_from(bytes).ok()?;
    Some(Ipv6Addr::from(sixteen).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_read_and_anything_else_is_none() {
        let names = ["Echo.Example".to_owned(), "192.0.2.7".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let said = read(made.cert.der()).expect("it is one");
        assert_eq!(said.names, ["echo.example"]);
        assert!(said.not_before < said.not_after);
        assert_eq!(super::names(made.cert.der()), ["echo.example", "192.0.2.7"]);
        assert_eq!(name_of(made.cert.der()).as_deref(), Some("echo.example"));
        assert_eq!(read(b"nonsense"), None);
        assert_eq!(name_of(b""), None);
    }
}
