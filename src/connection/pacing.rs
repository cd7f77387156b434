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
        let is_over = self.is_owed_much(limits) && (self.outbox.room == 0 || owed >= high);
        let answers = self.echoes();
        let is_expanding = self.is_expanding();
        let most = limits.piece().min(self.most_packed());
        if is_expanding && self.may_expand(limits) {
            self.ask_for_a_turn();
        }
        self.set_room(if is_paused || is_expanding || answers && is_over {
            0
        } else if answers {
            high.saturating_sub(owed).min(most)
        } else {
            most
        });
    }

    /// Is the peer owed so much that one who was paused for it stays so?
    pub(super) fn is_owed_much(&self, limits: &Limits) -> bool {
        self.outbox.owed() > limits.buffer / LOW_WATER
    }

    pub(super) fn set_room(&mut self, room: u32) {
        if self.outbox.room != room {
            self.outbox.room = room;
            self.todo |= todo::RECEIVE;
        }
    }

    /// Counts bytes against the rates, and pauses where there is a debt.
    pub(super) fn pace(&mut self, bytes: u64, turn: &Turn<'_>) {
        if let Some(until) = debt(bytes, turn)
            && self.state == State::Open
        {
            self.pause(until, turn);
        }
    }

    /// Is not read from until then. What it cannot carry meanwhile is not held against it.
    pub(super) fn pause(&mut self, until: Tick, turn: &Turn<'_>) {
        let from = if self.is_paused() {
            self.until
        } else {
            turn.now
        };
        self.forgive(until.since(from));
        self.until = until;
        self.todo |= todo::DEADLINE;
        self.settle_room(turn.limits);
    }

    /// The pause of a byte rate is over, unless others of the source have used what came back.
    pub(super) fn resume(&mut self, turn: &Turn<'_>) {
        if let Some(until) = debt(0, turn) {
            self.forget_waiting();
            return self.pause(until, turn);
        }
        self.until = Tick::NEVER;
        // Only from here on can it be heard.
        self.heard = turn.now;
        if !self.may_expand(turn.limits) {
            self.forget_waiting();
        }
        self.settle_room(turn.limits);
        if self.service.is_endless() {
            self.ask_for_a_turn();
        }
    }

    /// Other limits hold: a rate that is no more, or is higher, pauses nobody as long as the last.
    pub fn handle_limits(&mut self, turn: &Turn<'_>) {
        if self.is_paused() {
            self.resume(turn);
        }
    }

    /// Does a byte rate pause it?
    pub(super) fn is_paused(&self) -> bool {
        self.state == State::Open && self.until != Tick::NEVER
    }
}

/// Counts bytes against the rates; when what is owed will be back, if anything is.
fn debt(bytes: u64, turn: &Turn<'_>) -> Option<Tick> {
    let (now, rates) = (turn.now, &turn.limits.rates);
    let own = rates.source.zip(turn.source);
    let own = own.map(|(rate, source)| source.charge(rate, bytes, now));
    let total = rates.total.as_ref();
    let total = total.map(|(rate, bucket)| bucket.charge(*rate, bytes, now));
    let until = own.into_iter().chain(total).max();
    until.filter(|until| *until > now)
}
