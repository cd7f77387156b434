//! Where listening sockets come from: handed over by the service manager, or opened by us.
//!
//! `activation` takes what was handed over; `assignment` says which listener of the configuration it
//! belongs to; `bind` opens the rest, with what `fixed` lists for good; `options` makes both pass their TCP options on to
//! the connections that they accept, of which `fast_open` depends on the host; `parting` lets nobody new in before one is closed. Nothing here accepts a connection, and nothing closes a socket that was handed over once it
//! was taken: the service manager listens on it as well, and peers would hang.

pub mod activation;
pub mod assignment;
pub mod bind;
pub mod fast_open;
pub mod fixed;
pub mod options;
pub mod parting;

use std::io;
use std::net::SocketAddr;

use crate::cause::cause;

pub use activation::{Handed, HandedSocket, take};
pub use assignment::{Assignment, Note, assign};
pub use bind::bind;
pub use fixed::Fixed;
pub use options::{Initial, apply, apply_congestion};
pub use parting::part;

/// Why there is no listening socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The unit has `Accept=yes` and gave us one connection instead of the socket.
    #[error(
        "socket {name:?}: it is a connection, not a listening socket: echod serves all of them itself (set Accept=no in the socket unit)"
    )]
    Connected {
        /// Its `FileDescriptorName`.
        name: String,
    },

    /// TCP, but nobody called listen(2).
    #[error(
        "socket {name:?}: it is a TCP socket that does not listen (hand it over with ListenStream= in a socket unit)"
    )]
    NotListening {
        /// Its `FileDescriptorName`.
        name: String,
    },

    /// Something else than TCP.
    #[error(
        "socket {name:?}: it is {kind}, and echod serves TCP alone (set ListenStream= to a port or ADDRESS:PORT in the socket unit)"
    )]
    Kind {
        /// Its `FileDescriptorName`.
        name: String,
        /// What it is, with its article.
        kind: &'static str,
    },

    /// A socket that was handed over cannot be examined or made ready.
    #[error("socket {name:?}: cannot {doing}: {}", cause(source))]
    Handed {
        /// Its `FileDescriptorName`.
        name: String,
        /// What was tried.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },

    /// The address is IPv6 and this host has none.
    #[error(
        "listener {listener:?}: cannot bind {address}: {} (this host has no IPv6: remove the address)",
        cause(source)
    )]
    NoIpv6 {
        /// The listener's name.
        listener: String,
        /// What was to be bound.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },

    /// The service manager gives us no network, as the shipped unit says.
    #[error(
        "listener {listener:?}: cannot bind {address}: {} (this service has no network of its own: hand the socket over with FileDescriptorName={listener} in a socket unit, or let it bind by itself; how: /usr/share/doc/echod/examples)",
        cause(source)
    )]
    NoNetwork {
        /// The listener's name.
        listener: String,
        /// What was to be bound.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },

    /// The address is not to be had.
    #[error("listener {listener:?}: cannot bind {address}: {}{}", cause(source), remedy(source, *address))]
    Bind {
        /// The listener's name.
        listener: String,
        /// What was to be bound.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },

    /// A socket of ours that is still open has the port, at an address that includes this one or is
    /// included.
    #[error(
        "listener {listener:?}: cannot bind {address} while we listen on {present} (restart echod to change the one to the other)"
    )]
    NeedsRestart {
        /// The listener's name.
        listener: String,
        /// What was to be bound.
        address: SocketAddr,
        /// What is bound.
        present: SocketAddr,
    },

    /// The kernel refused a socket option.
    #[error(
        "listener {listener:?}: {key}: cannot set {option} to {value}: {}{}",
        cause(source),
        options::remedy(option, source, *is_multipath)
    )]
    Option {
        /// The listener's name.
        listener: String,
        /// The key that wants it.
        key: &'static str,
        /// The option, as tcp(7), ip(7) or socket(7) spells it.
        option: &'static str,
        /// What it was to be.
        value: String,
        /// Is it a socket of multipath TCP, which takes fewer options?
        is_multipath: bool,
        /// What the kernel said.
        source: io::Error,
    },

    /// The kernel gives a smaller buffer than it was asked for, and says nothing.
    #[error(
        "listener {listener:?}: {key}: the kernel gives {given} bytes instead of {asked} (raise sysctl net.core.{sysctl} to {asked}, or lower the key)"
    )]
    Buffer {
        /// The listener's name.
        listener: String,
        /// The key that wants it.
        key: &'static str,
        /// Bytes, as configured.
        asked: u32,
        /// Bytes that there are.
        given: u32,
        /// What bounds it.
        sysctl: &'static str,
    },

    /// The host does not do fast open, or not in a way that is safe.
    #[error("listener {listener:?}: tcp.fast_open: {objection}")]
    FastOpen {
        /// The listener's name.
        listener: String,
        /// Why not, and what to do.
        objection: fast_open::Objection,
    },

    /// A socket that stays open was bound with other values.
    #[error(
        "listener {listener:?}: {}: changed, which {} a restart (restart echod, or change it back)",
        keys.join(", "),
        if keys.len() == 1 { "needs" } else { "need" }
    )]
    FixedAtBind {
        /// The listener's name.
        listener: String,
        /// Each that is different, in the order of the schema.
        keys: Vec<&'static str>,
    },
}

/// What the operator can do about an address that is not to be had, in brackets; empty if we know nothing.
fn remedy(source: &io::Error, address: SocketAddr) -> String {
    let port = address.port();
    match source.kind() {
        io::ErrorKind::AddrInUse => format!(" (see who has it: ss -ltnp 'sport = :{port}')"),
        io::ErrorKind::AddrNotAvailable => {
            " (the address is not on this host: see ip address)".to_owned()
        }
        io::ErrorKind::PermissionDenied if port < 1024 => {
            " (use echod.socket or CAP_NET_BIND_SERVICE)".to_owned()
        }
        _ => String::new(),
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! A listener as the built-in default has it, for the tests of this room.

    use std::net::SocketAddr;

    use crate::config::{Config, Listener, Timeout};

    pub(crate) fn listener(name: &str, address: &[&str]) -> Listener {
        let parse = |text: &&str| text.parse::<SocketAddr>().expect("an address");
        let default = Config::defaults().listeners.remove(0);
        Listener {
            name: name.to_owned(),
            address: address.iter().map(parse).collect(),
            tls: None,
            timeout: Timeout {
                handshake: None,
                first_byte: None,
                idle: None,
                lifetime: None,
                stall: None,
            },
            ..default
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(address: &str, number: i32) -> String {
        let error = Error::Bind {
            listener: "echo".to_owned(),
            address: address.parse().expect("an address"),
            source: io::Error::from_raw_os_error(number),
        };
        error.to_string()
    }

    #[test]
    fn a_refused_address_comes_with_its_remedy() {
        assert_eq!(
            refused("0.0.0.0:7", nix::libc::EACCES),
            "listener \"echo\": cannot bind 0.0.0.0:7: Permission denied (use echod.socket or CAP_NET_BIND_SERVICE)"
        );
        assert_eq!(
            refused("[::]:8080", nix::libc::EADDRINUSE),
            "listener \"echo\": cannot bind [::]:8080: Address already in use (see who has it: ss -ltnp 'sport = :8080')"
        );
        assert_eq!(
            refused("192.0.2.1:8080", nix::libc::EADDRNOTAVAIL),
            "listener \"echo\": cannot bind 192.0.2.1:8080: Cannot assign requested address (the address is not on this host: see ip address)"
        );
    }

    #[test]
    fn a_cause_that_we_cannot_mend_has_no_remedy() {
        assert_eq!(
            refused("0.0.0.0:8080", nix::libc::EACCES),
            "listener \"echo\": cannot bind 0.0.0.0:8080: Permission denied"
        );
    }
}
