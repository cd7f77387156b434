//! What the shipped units do not do for a configuration, and where it is written how they would.
//!
//! For `echod check`, which knows neither who started the daemon nor which drop-ins there are: so these
//! are notes and no refusals. Pure.

use super::Config;
use super::schema::LISTENER_NAME;

/// What is worth knowing.
pub(super) fn notes(config: &Config) -> impl Iterator<Item = String> {
    unserved(config)
}

/// Listeners that nobody serves: echod.socket hands one over, and echod.service binds none.
fn unserved(config: &Config) -> impl Iterator<Item = String> {
    let names = config.listeners.iter().map(|listener| &listener.name);
    names.filter(|name| *name != LISTENER_NAME).map(|name| {
        format!(
            "listener \"{name}\": echod.service has no network of its own to bind with: hand the socket over with FileDescriptorName={name} in a socket unit, or let it bind by itself; how: /usr/share/doc/echod/examples"
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::Path;

    use super::*;

    fn noted(text: &str) -> Vec<String> {
        notes(&Config::parse(text, Path::new("test.toml")).unwrap()).collect()
    }

    #[test]
    fn a_listener_that_the_shipped_socket_does_not_hand_over_is_told_how_to_be_served() {
        let text = "[[listener]]\n[[listener]]\nname = \"other\"\naddress = \"[::]:9000\"\n";
        let [note] = &noted(text)[..] else {
            panic!("one note");
        };
        assert!(note.starts_with("listener \"other\": echod.service has no network"));
        assert!(note.contains("FileDescriptorName=other in a socket unit"));
    }
}
