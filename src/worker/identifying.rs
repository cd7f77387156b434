//! The part of a worker that learns for whom a balancer speaks, and asks whether they may come in.
//!
//! The balancer was let in by its own address, as one connection of the daemon, the listener and the worker. Whom it brings is asked the
//! rest: access, and the bounds of their source. Who brings no address is the balancer's own, and counts for no source.

use super::refusal::Refusal;
use super::{Worker, find};
use crate::connection::{Connection, Turn};
use crate::driver::{Driver, Token};

impl<D: Driver> Worker<D> {
    /// Answers what a connection asks when its header is there.
    #[cold]
    pub(super) fn identify(&mut self, token: Token) {
        let Some((entry, local)) = find(&mut self.table, &self.listeners, token) else {
            return;
        };
        if let Some(peer) = entry.connection.brought() {
            let door = (&local.shared.gate, &local.shared.rules);
            match self.shared.admission.identify(door, peer.ip(), self.now) {
                // The one before was nobody's, and is forgotten.
                Ok(source) => entry.source = Some(source),
                Err(refusal) => return self.turn_out(token, refusal),
            }
        }
        let peer = entry.peer();
        self.recorder.started(self.now, peer, &local.shared.name);
        // With TLS it says so when the handshake is done.
        let is_plain = entry.connection.session().is_none();
        let speaks_first = entry.connection.service().speaks_first() && is_plain;
        self.tell(token, Connection::handle_identified);
        if speaks_first {
            self.greet(token);
        }
        self.tell(token, Connection::handle_rest);
    }

    /// Ends a connection whose peer may not come in.
    #[cold]
    fn turn_out(&mut self, token: Token, refusal: Refusal) {
        let Some((_, local)) = find(&mut self.table, &self.listeners, token) else {
            return;
        };
        if let Some(warning) = refusal.warn {
            self.log.say(warning.event(&local.shared.name));
        }
        let line = local.shared.rules.says_why.then(|| refusal.line());
        let words = line.as_ref().map(|line| line.as_bytes());
        self.tell(token, |connection, turn| {
            connection.handle_refused(refusal.reason, words, turn)
        });
    }

    /// Tells a connection what became of its question; whoever asked for it does what it then wants.
    fn tell(&mut self, token: Token, event: impl FnOnce(&mut Connection, &Turn<'_>)) {
        let Some((entry, local)) = find(&mut self.table, &self.listeners, token) else {
            return;
        };
        let turn = Turn {
            now: self.now,
            limits: &local.limits,
            memory: &self.shared.memory,
            source: entry.source.as_ref().map(|source| &source.bytes),
        };
        event(&mut entry.connection, &turn);
    }
}
