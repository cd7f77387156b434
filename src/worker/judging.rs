//! The part of a worker that judges its connections: by the deadlines that passed, and all of them again when other
//! limits hold.

use super::{Worker, find};
use crate::connection::Connection;
use crate::driver::{Driver, Token};

/// Most deadlines judged, and connections asked again after a reload, in one turn.
const JUDGED: u32 = 256;

/// A walk over all places.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asking {
    next: u32,
    /// Places that are still to be asked.
    pub(super) left: u32,
}

impl<D: Driver> Worker<D> {
    /// Asks the places whose time may have come; those that are judged too early go back.
    pub(super) fn judge(&mut self) {
        for _ in 0..JUDGED {
            let Some(place) = self.deadlines.pop(self.now) else {
                return;
            };
            self.ask_place(place);
        }
    }

    /// Asks a place for its deadline, and tells it if that has passed.
    fn ask_place(&mut self, place: u32) {
        let Some(token) = self.table.token(place) else {
            return;
        };
        let now = self.now;
        self.step(token, |connection, turn| {
            if connection.deadline(turn.limits) <= now {
                connection.handle_timeout(turn);
            }
        });
        self.set_deadline(token);
    }

    /// Sets a connection's deadline, if there still is one. After a step: what was wanted there, a send, may have been
    /// done at once, and have made it another.
    pub(super) fn set_deadline(&mut self, token: Token) {
        if let Some((entry, local)) = find(&mut self.table, &self.listeners, token) {
            let deadline = entry.connection.deadline(&local.limits);
            self.deadlines.set(token.index, deadline);
        }
    }

    /// Has all connections asked for their deadlines, which have other limits now. Whoever is being asked already
    /// comes round again: a walk that began anew each time might never come to its end.
    pub(super) fn ask_all(&mut self) {
        self.asking = Asking {
            left: self.table.places(),
            ..self.asking
        };
    }

    /// Goes on with that.
    #[cold]
    pub(super) fn ask_again(&mut self) {
        for _ in 0..JUDGED.min(self.asking.left) {
            let place = self.asking.next % self.table.places().max(1);
            self.asking = Asking {
                next: place + 1,
                left: self.asking.left - 1,
            };
            self.reapply_access(place);
            if let Some(token) = self.table.token(place) {
                self.step(token, Connection::handle_limits);
            }
            self.ask_place(place);
        }
    }

    /// Ends a connection that would not be let in now, where its listener wants that.
    pub(super) fn reapply_access(&mut self, place: u32) {
        let Some(token) = self.table.token(place) else {
            return;
        };
        let Some((entry, local)) = find(&mut self.table, &self.listeners, token) else {
            return;
        };
        let rules = &local.shared.rules;
        // A balancer's own address was not asked about when it came.
        let is_denied = !entry.connection.is_balancer() && !rules.access.allows(entry.peer().ip());
        if rules.reapply && is_denied {
            self.step(token, |connection, _| connection.handle_denied());
        }
    }
}
