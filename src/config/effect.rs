//! What becomes of each key that a reload changes, in one table.
//!
//! A test holds that every key is there once, so a new one cannot come without somebody deciding this. Pure.

use std::fmt;

use super::Listener;

/// What becomes of a key that has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Connections that are here obey it as well.
    Now,
    /// Connections that are here live on as they began.
    NewConnections,
    /// Sockets that are open stay as they are.
    NextSocket,
    /// The reload is refused.
    Restart,
    /// There is no change of it: another name is another listener.
    OtherListener,
    /// Its socket was handed over, so that it is not ours to change.
    Unused,
}

impl fmt::Display for Effect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Effect::Now => "applied now",
            Effect::NewConnections => "applied to new connections",
            Effect::NextSocket => "applied when the socket is bound again",
            Effect::Restart => "needs a restart",
            Effect::OtherListener => "another listener",
            Effect::Unused => "unused, the socket unit decides it",
        })
    }
}

/// Every key and its effect. A table in one line is one value.
const EFFECTS: &[(&str, Effect)] = {
    use Effect::{NewConnections, NextSocket, Now, OtherListener, Restart};
    &[
        // Threads are started once, with the engine that they have.
        ("workers", Restart),
        ("engine", Restart),
        // Privileges are dropped once: there is no way back to them.
        ("user", Restart),
        ("group", Restart),
        ("allow_root", Restart),
        ("max_connections", Now),
        ("buffer_memory", Now),
        ("drain_idle", Now),
        ("drain_timeout", Now),
        ("instance", NewConnections),
        ("contact", NewConnections),
        ("log.target", Now),
        ("log.level", Now),
        ("log.facility", Now),
        ("log.records", Now),
        ("log.record_rate", Now),
        ("log.peer", Now),
        ("log.empty", Now),
        ("pressure.above", Now),
        ("pressure.max_connections_per_source", Now),
        ("pressure.idle", Now),
        ("pressure.stall", Now),
        ("pressure.progress", Now),
        ("listener.name", OtherListener),
        // Sockets are opened and closed; who came by one that is closed stays.
        ("listener.address", Now),
        // An answer that was begun is finished by the service that began it.
        ("listener.service", NewConnections),
        ("listener.backlog", Now),
        ("listener.buffer", Now),
        // Whoever is here above a lower bound stays.
        ("listener.max_connections", Now),
        ("listener.max_connections_per_source", Now),
        ("listener.max_connections_per_worker", Now),
        ("listener.max_bytes", Now),
        // Those who are here were counted under the prefix of their time.
        ("listener.source_prefix", NewConnections),
        ("listener.refusal", Now),
        // Who is here was shown the certificate of its time, and goes on with it.
        ("listener.tls", NewConnections),
        // A connection has the options that its listening socket had when it came.
        ("listener.tcp.nodelay", NewConnections),
        ("listener.tcp.keepalive", NewConnections),
        ("listener.tcp.notsent_lowat", NewConnections),
        ("listener.tcp.user_timeout", NewConnections),
        ("listener.tcp.receive_buffer", NewConnections),
        ("listener.tcp.send_buffer", NewConnections),
        ("listener.tcp.defer_accept", NewConnections),
        ("listener.tcp.fast_open", NewConnections),
        ("listener.tcp.congestion", NewConnections),
        ("listener.tcp.dscp", NewConnections),
        ("listener.tcp.max_segment", NewConnections),
        // The kernel wants to know these before it binds.
        ("listener.tcp.interface", NextSocket),
        ("listener.tcp.freebind", NextSocket),
        ("listener.tcp.v6only", NextSocket),
        ("listener.tcp.reuse_port", NextSocket),
        ("listener.tcp.multipath", NextSocket),
        ("listener.timeout.handshake", Now),
        ("listener.timeout.first_byte", Now),
        ("listener.timeout.idle", Now),
        ("listener.timeout.lifetime", Now),
        ("listener.timeout.stall", Now),
        // As long as access.reapply says so; see `effect_at`.
        ("listener.access.allow", Now),
        ("listener.access.deny", Now),
        ("listener.access.reapply", Now),
        // Whether somebody speaks for others is asked once, before anything of them is read.
        ("listener.proxy_protocol.trusted", NewConnections),
        // A frame that was begun is read on as it began.
        ("listener.compression.method", NewConnections),
        ("listener.compression.max_window", NewConnections),
        ("listener.compression.max_ratio", NewConnections),
        ("listener.rate.connections", Now),
        ("listener.rate.bytes", Now),
        ("listener.rate.total_bytes", Now),
    ]
};

/// The effect of a key of this listener, as it is now.
pub(super) fn effect_at(listener: &Listener, key: &str) -> Effect {
    match key {
        "access.allow" | "access.deny" if !listener.access.reapply => Effect::NewConnections,
        _ => effect(&format!("listener.{key}")),
    }
}

/// The effect of a key by its whole name.
pub(super) fn effect(key: &str) -> Effect {
    let entry = EFFECTS.iter().find(|(name, _)| *name == key);
    // A test holds that every key is there.
    entry.map_or(Effect::Restart, |(_, effect)| *effect)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::config::print::{entries, listener_entries};
    use crate::config::{Config, keys};

    #[test]
    fn every_key_has_one_effect_and_every_effect_is_of_a_key() {
        let config = Config::defaults();
        let own = entries(&config).into_iter().map(|entry| entry.name());
        let listeners = listener_entries(&config.listeners[0]).into_iter();
        let listeners = listeners.map(|entry| format!("listener.{}", entry.name()));
        let printed: HashSet<_> = own.chain(listeners).collect();
        let named: HashSet<_> = EFFECTS.iter().map(|(key, _)| (*key).to_owned()).collect();
        assert_eq!(named.len(), EFFECTS.len(), "one has two effects");
        assert_eq!(printed, named);
        for key in keys() {
            // What is a table in one line is one value.
            let is_in = |name: &String| key == *name || key.starts_with(&format!("{name}."));
            assert_eq!(named.iter().filter(|name| is_in(name)).count(), 1, "{key}");
        }
    }

    #[test]
    fn what_is_done_once_at_the_start_needs_a_restart() {
        let restart = EFFECTS
            .iter()
            .filter(|(_, effect)| *effect == Effect::Restart);
        let keys: Vec<_> = restart.map(|(key, _)| *key).collect();
        assert_eq!(keys, ["workers", "engine", "user", "group", "allow_root"]);
    }
}
