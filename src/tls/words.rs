//! What TLS calls things, in the words of the log and the configuration. Pure.

use rustls::{
    AlertDescription, CertificateError, CipherSuite, Error, InvalidMessage, NamedGroup,
    PeerIncompatible,
};

use super::verify::NAME_NOT_ALLOWED;

/// A cipher suite, as IANA has it.
pub(super) fn cipher(suite: CipherSuite) -> String {
    crate::config::suite_name(suite)
}

/// A group of the key exchange.
pub(super) fn group(group: NamedGroup) -> String {
    group
        .as_str()
        .map_or_else(|| format!("{group:?}"), str::to_owned)
}

/// Why a connection failed, for its record.
pub(super) fn failure(error: &Error) -> String {
    match error {
        Error::InvalidMessage(InvalidMessage::InvalidContentType)
        | Error::InvalidMessage(InvalidMessage::UnknownProtocolVersion)
        | Error::InvalidMessage(InvalidMessage::MessageTooLarge) => {
            "this is not TLS: plain text, or another protocol".into()
        }
        Error::AlertReceived(alert) => format!("the peer gave up: {}", alert_words(*alert)),
        Error::NoApplicationProtocol => "no application protocol in common".into(),
        Error::NoCertificatesPresented => "the peer has no certificate".into(),
        Error::InvalidCertificate(error) => {
            format!("the peer's certificate: {}", certificate(error))
        }
        Error::PeerIncompatible(error) => incompatible(error),
        Error::DecryptError => "a record that cannot be decrypted".into(),
        Error::PeerMisbehaved(error) => format!("the peer breaks the rules: {}", spaced(error)),
        Error::InvalidMessage(error) => format!("a message that cannot be read: {}", spaced(error)),
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            "a message that does not belong here".into()
        }
        Error::PeerSentOversizedRecord => "a record that is too long".into(),
        // What the resolver and the library say in prose.
        Error::General(text) if text.contains("no server certificate chain resolved") => {
            "no certificate of ours suits the peer".into()
        }
        other => other.to_string(),
    }
}

fn incompatible(error: &PeerIncompatible) -> String {
    match error {
        PeerIncompatible::NoCipherSuitesInCommon => "no cipher suite in common".into(),
        PeerIncompatible::NoKxGroupsInCommon => "no key exchange group in common".into(),
        PeerIncompatible::NoSignatureSchemesInCommon => "no signature scheme in common".into(),
        PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
        | PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::SupportedVersionsExtensionRequired => {
            "no version of TLS in common".into()
        }
        other => format!("nothing in common: {}", spaced(other)),
    }
}

fn certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => "unknown CA".into(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "expired".into(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "not valid yet".into()
        }
        CertificateError::ApplicationVerificationFailure => NAME_NOT_ALLOWED.into(),
        CertificateError::BadSignature => "bad signature".into(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "not for clients".into()
        }
        other => spaced(other),
    }
}

fn alert_words(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::UnknownCA => "it does not know our CA (unknown_ca)".into(),
        AlertDescription::BadCertificate => "it refuses our certificate (bad_certificate)".into(),
        AlertDescription::CertificateUnknown => {
            "it refuses our certificate (certificate_unknown)".into()
        }
        AlertDescription::CertificateExpired => {
            "our certificate has expired (certificate_expired)".into()
        }
        other => spaced(&other),
    }
}

/// `NoCipherSuitesInCommon`, with its words apart; nothing but letters, digits and spaces.
fn spaced(name: &impl std::fmt::Debug) -> String {
    let name = format!("{name:?}");
    let mut text = String::new();
    let mut before = ' ';
    for letter in name.chars().take(120) {
        if letter.is_ascii_uppercase() && before.is_ascii_lowercase() {
            text.push(' ');
        }
        text.push(letter.to_ascii_lowercase());
        before = letter;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_in_words() {
        let words = |error: Error| failure(&error);
        let plain = Error::InvalidMessage(InvalidMessage::InvalidContentType);
        assert_eq!(
            words(plain),
            "this is not TLS: plain text, or another protocol"
        );
        let issuer = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        assert_eq!(words(issuer), "the peer's certificate: unknown CA");
        let gone = Error::AlertReceived(AlertDescription::HandshakeFailure);
        assert_eq!(words(gone), "the peer gave up: handshake failure");
        let odd = Error::PeerIncompatible(PeerIncompatible::NullCompressionRequired);
        assert_eq!(words(odd), "nothing in common: null compression required");
    }
}
