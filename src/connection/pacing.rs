//! How much of a peer is read: less while it is behind, nothing while a rate pauses it.

use super::{Connection, Limits, State, Turn, todo};
use crate::tick::Tick;

/// Reading pauses when the peer is owed a listener's `buffer`, and goes on at this share of it.
const LOW_WATER: u32 = 4;

impl Connection {
    /// How much may be received now, of a peer that may be behind or paused.
    pub(super) fn settle_room(&mut self, limits: &Limits) {
        if self.state != State::Open {
            return;
        }
        // What is owed grows with what is received only where that is answered; what sends by itself is paced
        // there.
        let (owed, high) = (self.outbox.owed(), limits.buffer);
        let is_paused = self.is_paused() && !self.service.is_endless();
        let is_over = owed > high / LOW_WATER && (self.room == 0 || owed >= high);
        let answers = self.echoes();
        self.set_room(if is_paused || answers && is_over {
            0
        } else if answers {
            high.saturating_sub(owed).min(limits.receive())
        } else {
            limits.receive()
        });
    }

    pub(super) fn set_room(&mut self, room: u32) {
        if self.room != room {
            self.room = room;
            self.todo |= todo::RECEIVE;
        }
    }

    /// Counts bytes against the rates, and pauses where there is a debt.
    pub(super) fn pace(&mut self, bytes: u64, turn: &Turn<'_>) {
        let (now, limits) = (turn.now, turn.limits);
        let own = limits.rates.source.zip(turn.source);
        let own = own.map(|(rate, source)| source.charge(rate, bytes, now));
        let total = limits.rates.total.as_ref();
        let total = total.map(|(rate, bucket)| bucket.charge(*rate, bytes, now));
        let Some(until) = own
            .into_iter()
            .chain(total)
            .max()
            .filter(|until| *until > now)
        else {
            return;
        };
        if self.state == State::Open {
            self.until = until;
            self.todo |= todo::DEADLINE;
            self.settle_room(limits);
        }
    }

    /// The pause of a byte rate is over, unless others of the source have used what came back.
    pub(super) fn resume(&mut self, turn: &Turn<'_>) {
        self.until = Tick::NEVER;
        self.pace(0, turn);
        self.settle_room(turn.limits);
        if self.service.is_endless() {
            self.todo |= todo::AGAIN;
        }
    }

    /// Does a byte rate pause it?
    pub(super) fn is_paused(&self) -> bool {
        self.state == State::Open && self.until != Tick::NEVER
    }
}
