//! Which certificate of a listener a peer is shown: by the name that it asks for; the first is the default. Pure.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

thread_local! {
    /// The name that the peer asked for whose certificate was chosen last on this thread. The library tells it to who
    /// chooses and, without buffers of its own, to nobody else.
    static ASKED: RefCell<Option<Box<str>>> = const { RefCell::new(None) };
}

/// The name that was asked for since this was asked, by the one peer that was served meanwhile.
pub(super) fn asked() -> Option<Box<str>> {
    ASKED.take()
}

/// The certificates of a listener, with the names of each in lower case.
#[derive(Debug)]
pub(super) struct Choice(pub(super) Vec<(Vec<String>, Arc<CertifiedKey>)>);

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // One whose key the peer can verify; if there is none it is told so by the handshake.
        let suits = |key: &CertifiedKey| key.key.choose_scheme(hello.signature_schemes()).is_some();
        let asked = hello.server_name().map(str::to_ascii_lowercase);
        ASKED.set(asked.as_deref().map(Into::into));
        let named = || {
            let asked = asked.as_deref()?;
            let is_it = |names: &[String]| names.iter().any(|name| matches(name, asked));
            let mut named = self.0.iter().filter(|(names, _)| is_it(names));
            named.find(|(_, key)| suits(key))
        };
        let default = || self.0.iter().find(|(_, key)| suits(key));
        let found = named().or_else(default).or(self.0.first());
        found.map(|(_, key)| Arc::clone(key))
    }
}

/// Is this the name, or a wildcard for its first label?
fn matches(name: &str, asked: &str) -> bool {
    if name == asked {
        return true;
    }
    let rest = name.strip_prefix("*.");
    rest.zip(asked.split_once('.'))
        .is_some_and(|(rest, (first, asked))| !first.is_empty() && rest == asked)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        assert!(matches("echo.example", "echo.example"));
        assert!(matches("*.example", "echo.example"));
        for asked in ["a.echo.example", "example", ".example", "echo.example.org"] {
            assert!(!matches("*.example", asked), "{asked}");
        }
    }
}
