//! What the shipped units do not do for a configuration, and where it is written how they would.
//!
//! For `echod check`, which knows neither who started the daemon nor which drop-ins there are: so these
//! are notes and no refusals. Pure.

use super::schema::LISTENER_NAME;
use super::{Config, Engine};

/// What is worth knowing.
pub(super) fn notes(config: &Config) -> impl Iterator<Item = String> {
    unserved(config).chain(not_let_through(config))
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

/// An engine that needs more of the kernel than echod.service may use.
fn not_let_through(config: &Config) -> Option<String> {
    let otherwise = match config.engine {
        Engine::Epoll => return None,
        Engine::IoUring => "does not start",
        Engine::Auto => "serves by epoll",
    };
    Some(format!(
        "engine: \"{}\": echod.service as it is shipped may not use io_uring, and {otherwise}; how it may: /usr/share/doc/echod/examples/io-uring.conf",
        config.engine
    ))
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

    #[test]
    fn an_engine_that_the_shipped_service_may_not_use_is_told_how_it_may() {
        let said = |engine| noted(&format!("engine = \"{engine}\"\n[[listener]]\n"));
        assert_eq!(
            said("io_uring"),
            [
                "engine: \"io_uring\": echod.service as it is shipped may not use io_uring, and does not start; how it may: /usr/share/doc/echod/examples/io-uring.conf"
            ]
        );
        assert!(said("auto")[0].contains("and serves by epoll; how it may: "));
        assert_eq!(said("epoll"), Vec::<String>::new());
    }
}
