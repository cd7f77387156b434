//! The part of a worker that ends connections: their record, the close, and what they counted for.

use std::sync::Arc;
use std::time::Duration;

use super::accepting::Local;
use super::admission::Admission;
use super::sources::Source;
use super::{Worker, find};
use crate::driver::{Driver, Token};
use crate::logging::{Record, TcpFacts};
use crate::tick::Tick;

/// Connections that lasted longer have the round-trip time and the retransmissions in their record.
const FACTS_AFTER: Duration = Duration::from_secs(1);

impl<D: Driver> Worker<D> {
    /// Ends a connection: its record, then the close.
    #[cold]
    pub(super) fn close(&mut self, token: Token, reset: bool) {
        let Some((entry, local)) = find(&mut self.table, &self.listeners, token) else {
            return;
        };
        let connection = &entry.connection;
        let duration = self.now.since(connection.opened());
        let facts = if duration >= FACTS_AFTER {
            self.driver.facts(token)
        } else {
            None
        };
        let record = Record {
            peer: entry.peer(),
            via: entry.via(),
            listener: Arc::clone(&local.shared.name),
            reason: connection.reason(),
            detail: connection.detail(),
            received: connection.received(),
            sent: connection.sent(),
            duration,
            tcp: facts.map(|facts| TcpFacts {
                rtt: facts.rtt,
                retrans: facts.retrans,
            }),
            tls: connection
                .session()
                .map(|session| Box::new(session.facts())),
            packed: connection.packed().map(Box::new),
        };
        self.counts.ended[record.reason as usize] += 1;
        self.changed = true;
        self.recorder.ended(self.now, &record);
        self.deadlines.clear(token.index);
        if self.driver.close(token, reset) {
            self.forget(token);
        }
    }

    /// Frees what a connection had: nothing of it is in flight any more.
    pub(super) fn forget(&mut self, token: Token) {
        let Some(entry) = self.table.get_mut(token) else {
            return;
        };
        let (id, is_parting) = (entry.listener as usize, entry.is_parting);
        self.table.remove(token);
        if is_parting {
            self.shared.admission.end_parting();
        }
        self.counts.live -= 1;
        self.changed = true;
        self.shared.admission.leave(self.index);
        if let Some(Some(local)) = self.listeners.get_mut(id) {
            local.live -= 1;
        }
        // A descriptor is free again.
        if self.paused.is_some() {
            self.resume_accept();
        }
    }
}

/// Gives back the bounds that a connection counts for, if it still has its source: once.
pub(super) fn release(
    source: Option<Arc<Source>>,
    admission: &Admission,
    local: &Local,
    worker: u16,
    now: Tick,
) {
    if let Some(source) = source {
        admission.release(&local.shared.gate, &source, worker, now);
    }
}
