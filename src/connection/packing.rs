//! The connection of a peer that compresses: what it says is expanded first, what it is told is packed.
//!
//! A little input may be a lot of bytes. So at most [`EXPANDED`] of them are made at a time, nothing is received while
//! some are still to come, and none are made while the peer is owed too much or a rate pauses it. What it is told is
//! readable for the peer when its input pauses: after a turn in which nothing came, so that many small pieces share
//! one flush. The library's states are large; they are counted as buffers are, and begin only where half of the
//! memory holds them. Who finds no room there waits, and ends when that takes too long; a frame that hardly goes on
//! meanwhile is ended.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use super::{Connection, ENDING, Limits, Reason, State, Turn, todo};
use crate::buffer::{Charge, Memory, Promise};
use crate::compression::{BEGINNING_MAX, Codec, INPUT_MAX, Method, Terms};
use crate::tick::Tick;

/// Most plain bytes that are made at a time.
const EXPANDED: u32 = 128 * 1024;

/// How often one who waits for memory looks whether there is some: after a quarter of the time that it has waited, and up
/// to as much again, so that many who began to wait together do not all look together.
const RETRY: [Duration; 2] = [Duration::from_millis(16), Duration::from_millis(160)];

/// Who has waited for so long is promised what it needs, one at a time: those who need little, and find it at once, might
/// leave no room for much for ever. Not sooner, since a promise keeps memory from all others until it is met.
const LONG: Duration = Duration::from_secs(10);

/// How long one waits for memory at most.
const WAITING: Duration = Duration::from_secs(30);

/// While others wait for the memory of their frames: bytes that the wire must carry, both ways together, in a time.
const PROGRESS: (u64, Duration) = (16 * 1024, Duration::from_secs(10));

/// Turns, one after another, in each of which a little came, before it is answered all the same.
const TURNS: u8 = 16;

/// Into how many shares the time is parted by which those who wait look at different moments.
const SCATTER: u32 = 16;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Bytes as they went over the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wire {
    /// Taken from the peer.
    pub received: u64,
    /// Given to the kernel for the peer.
    pub sent: u64,
}

/// How one connection's compression stands, for those who want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    /// What is spoken.
    pub method: Method,
    /// What went over the wire.
    pub wire: Wire,
    /// Why it failed.
    pub cause: Option<crate::compression::Broken>,
}

/// One connection's compression, and where it stands.
#[derive(Debug)]
pub(super) struct Packing {
    pub(super) codec: Codec,
    pub(super) wire: Wire,
    /// Counts what it holds; while a frame goes on, what that may come to.
    charge: Option<Charge>,
    /// Since when it waits for memory, and the promise of it, if that is long and nobody else has one.
    waits: Option<Tick>,
    promise: Option<Promise>,
    /// Since when its progress in a frame is counted, and what the wire had carried before.
    marked: Tick,
    mark: u64,
    /// Something came since the last turn that it was told of.
    has_heard: bool,
    /// Turns since a flush.
    turns: u8,
    /// The peer's end has come.
    is_ended: bool,
}

impl Packing {
    pub(super) fn new(terms: Terms) -> Packing {
        Packing {
            codec: Codec::new(terms),
            wire: Wire::default(),
            charge: None,
            waits: None,
            promise: None,
            marked: Tick(0),
            mark: 0,
            has_heard: false,
            turns: 0,
            is_ended: false,
        }
    }

    /// Takes the memory that going on may need. `false`: it is not there.
    fn reserve(&mut self, said: &[u8], memory: &Arc<Memory>) -> bool {
        let (needs, begins) = (self.codec.needs(said), self.codec.begins(said));
        let charge = self
            .charge
            .get_or_insert_with(|| Charge::of_nothing(memory));
        let is_there = charge.size() >= needs as u64
            || match begins {
                true => charge.resize_within_half(needs, self.promise.as_ref()),
                // Those that wait can have what it holds only when it has come to its end.
                false => charge.resize(needs),
            };
        if is_there {
            self.waits_no_more();
        }
        is_there
    }

    /// Has what it holds counted. `false`: there is no memory for it.
    pub(super) fn account(&mut self, memory: &Arc<Memory>) -> bool {
        let (held, is_reserved) = (self.codec.memory(), self.codec.has_states());
        if held == 0 {
            self.charge = None;
            return true;
        }
        let charge = self
            .charge
            .get_or_insert_with(|| Charge::of_nothing(memory));
        is_reserved && charge.size() >= held as u64 || charge.resize(held)
    }

    /// Its progress in a frame counts from here on.
    fn mark(&mut self, now: Tick) {
        (self.marked, self.mark) = (now, self.carried());
    }

    /// Bytes that the wire has carried.
    fn carried(&self) -> u64 {
        self.wire.received + self.wire.sent
    }

    pub(super) fn waits_no_more(&mut self) {
        (self.waits, self.promise) = (None, None);
    }
}

impl Connection {
    /// What its compression is, if there is any.
    pub fn packed(&self) -> Option<Packed> {
        self.packing().map(|packing| Packed {
            method: packing.codec.method(),
            wire: packing.wire,
            cause: packing.codec.failure(),
        })
    }

    /// Is something still to be expanded, before anything more is received?
    pub(super) fn is_expanding(&self) -> bool {
        self.packing()
            .is_some_and(|packing| packing.codec.has_more())
    }

    /// Most bytes of one receive: what is compressed is kept until it is expanded, and before a frame, which may have to
    /// wait for its memory, that is less than within one.
    pub(super) fn most_packed(&self) -> u32 {
        match self.packing() {
            Some(packing) if packing.codec.has_states() => INPUT_MAX,
            Some(_) => BEGINNING_MAX,
            None => u32::MAX,
        }
    }

    /// It is over: nothing is expanded or packed any more.
    pub(super) fn drop_packing(&mut self) {
        if let Some(packing) = self.packing_mut() {
            packing.codec.drop_all();
            packing.charge = None;
            packing.waits_no_more();
        }
    }

    /// Compressed bytes came, out of TLS if there is any.
    pub(super) fn receive_packed(&mut self, said: &[u8], turn: &Turn<'_>) {
        if let Some(packing) = self.packing_mut() {
            packing.has_heard |= !said.is_empty();
        }
        self.expand(said, turn);
    }

    /// Expands what waits and what the peer said, as far as it may now, and answers it.
    fn expand(&mut self, said: &[u8], turn: &Turn<'_>) {
        let may = self.may_expand(turn.limits);
        let room = self.free(turn.limits).min(turn.limits.piece());
        let room = room.min(EXPANDED) as usize;
        let Some(packing) = self.packing_mut() else {
            return;
        };
        if said.is_empty() && !packing.codec.has_more() {
            // It is of TLS alone: that takes no memory, and waits for nothing.
            self.answer_plain(&[], turn);
            return self.settle_expanding(turn);
        }
        let waits_for_memory = may && !packing.reserve(said, turn.memory);
        if !may || waits_for_memory {
            packing.codec.hold(said);
            if !self.account(turn) {
                return;
            }
            // What TLS has to say, or has heard, does not wait for that.
            self.answer_plain(&[], turn);
            if waits_for_memory {
                return self.wait_for_memory(turn);
            }
            return self.settle_expanding(turn);
        }
        let (begins, was_expanding) = (!packing.codec.has_states(), packing.codec.has_more());
        if begins {
            packing.mark(turn.now);
        }
        let mut plain = SCRATCH.take();
        plain.resize(EXPANDED as usize, 0);
        let count = packing.codec.expand(said, &mut plain[..room]);
        if begins || was_expanding && !packing.codec.has_more() {
            self.todo |= todo::DEADLINE;
        }
        // It has not been silent while we were busy with what it said.
        self.heard = turn.now;
        self.answer_plain(&plain[..count], turn);
        SCRATCH.set(plain);
        self.settle_expanding(turn);
    }

    /// Has what its compression holds counted. `false`: there is no memory for it, and it is closed.
    pub(super) fn account(&mut self, turn: &Turn<'_>) -> bool {
        let packing = self.packing_mut();
        let is_there = packing.is_none_or(|packing| packing.account(turn.memory));
        if !is_there {
            self.close(Reason::Full, true);
        }
        is_there
    }

    /// May it be expanded now? There is room then for what comes of it.
    pub(super) fn may_expand(&self, limits: &Limits) -> bool {
        let is_ready = self.state == State::Open && !self.is_paused();
        is_ready && !self.is_owed_much(limits) && self.free(limits) > 0
    }

    /// Plain bytes that it may be owed besides those that it is, and those that wait for a flush.
    fn free(&self, limits: &Limits) -> u32 {
        let unflushed = self
            .packing()
            .map_or(0, |packing| packing.codec.unflushed());
        let free = limits.buffer.saturating_sub(self.outbox.owed());
        free.saturating_sub(u32::try_from(unflushed).unwrap_or(u32::MAX))
    }

    /// There is no memory: it tries again in a while.
    fn wait_for_memory(&mut self, turn: &Turn<'_>) {
        let is_open = self.state == State::Open;
        let Some(packing) = self.packing_mut().filter(|_| is_open) else {
            return;
        };
        let since = *packing.waits.get_or_insert(turn.now);
        if turn.now >= since + WAITING {
            return self.end(Reason::Full, turn.now + ENDING, turn);
        }
        // What came of the frames before this one is not kept back for it, nor is their memory.
        let wants_flush = packing.codec.wants_flush();
        let before = turn.memory.miss(turn.now) % SCATTER;
        if packing.promise.is_none() && turn.now >= since + LONG {
            packing.promise = turn.memory.promise(packing.codec.needs(&[]));
        }
        let [least, most] = RETRY;
        let retry = match packing.promise {
            Some(_) => least,
            None => (turn.now.since(since) / 4).clamp(least, most),
        };
        self.pause(turn.now + retry + retry * before / SCATTER, turn);
        if wants_flush {
            self.ask_for_a_turn();
        }
    }

    /// It waits for a rate or its peer: what it waited for memory before that does not count.
    pub(super) fn forget_waiting(&mut self) {
        if let Some(packing) = self.packing_mut() {
            packing.waits_no_more();
        }
    }

    /// When its progress in a frame is judged.
    pub(super) fn frame_judged(&self) -> Tick {
        match self.packing() {
            Some(packing) if packing.codec.has_states() => packing.marked + PROGRESS.1,
            _ => Tick::NEVER,
        }
    }

    /// That of one who makes too little is its end where others wait for memory.
    pub(super) fn judge_frame(&mut self, turn: &Turn<'_>) {
        let is_silent = turn.now >= self.quiet(Some(PROGRESS.1));
        // Of one that takes what it is owed it is we who do not go on.
        let is_ours = self.is_expanding() && !self.is_owed_much(turn.limits);
        let Some(packing) = self.packing_mut() else {
            return;
        };
        let is_slow = !is_ours && packing.carried() - packing.mark < PROGRESS.0;
        packing.mark(turn.now);
        if is_slow && turn.memory.is_missed(turn.now) {
            let reason = if is_silent {
                Reason::Idle
            } else {
                Reason::Slow
            };
            self.end(reason, turn.now + ENDING, turn);
        }
    }

    /// Time in which it is not read from does not count for its progress.
    pub(super) fn forgive_frame(&mut self, time: Duration) {
        if let Some(packing) = self.packing_mut() {
            packing.marked = packing.marked + time;
        }
    }

    /// The turn has come that was waited for.
    pub(super) fn go_on_expanding(&mut self, turn: &Turn<'_>) {
        let (is_open, may) = (self.state == State::Open, self.may_expand(turn.limits));
        let Some(packing) = self.packing_mut().filter(|_| is_open) else {
            return;
        };
        let is_quiet = !std::mem::take(&mut packing.has_heard);
        packing.turns = packing.turns.saturating_add(1);
        if packing.codec.has_more() && may {
            return self.expand(&[], turn);
        }
        if is_quiet || packing.turns >= TURNS {
            packing.turns = 0;
            packing.codec.flush();
            if !self.flush_layers(turn) {
                return;
            }
        }
        self.settle_expanding(turn);
    }

    /// What comes next, after a step.
    fn settle_expanding(&mut self, turn: &Turn<'_>) {
        if self.state != State::Open || !self.account(turn) {
            return;
        }
        let may = self.may_expand(turn.limits);
        let Some(packing) = self.packing_mut() else {
            return;
        };
        if packing.codec.failure().is_some() {
            return self.end(Reason::Compression, turn.now + ENDING, turn);
        }
        let has_more = packing.codec.has_more();
        if packing.is_ended && !has_more {
            return self.end_input(turn);
        }
        // What may be said is not kept back for what may not be expanded yet.
        if packing.codec.wants_flush() && !(has_more && may) {
            self.ask_for_a_turn();
        }
        self.settle_room(turn.limits);
    }

    /// The peer says no more. What came before that is still to be expanded, and then it is owed the rest.
    pub(super) fn end_input(&mut self, turn: &Turn<'_>) {
        if let Some(packing) = self.packing_mut() {
            packing.is_ended = true;
            if packing.codec.has_more() {
                return self.settle_room(turn.limits);
            }
            packing.codec.finish();
            if packing.codec.failure().is_some() {
                return self.end(Reason::Compression, turn.now + ENDING, turn);
            }
        }
        self.begin_flushing(turn);
    }
}

#[cfg(test)]
mod tests;
