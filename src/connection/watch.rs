//! What is watched of a peer that is behind, and of everybody under pressure: does it get on?
//!
//! A peer that keeps up in peace has no watch. One that is behind is asked of the kernel now and then, since a send to a slow but
//! living peer may not complete for a minute; under pressure bytes are counted from one judgement to the next.

use super::{ASK, Connection, ENDING, Limits, Reason, State, Turn};
use crate::tick::Tick;

/// Of one peer.
#[derive(Debug)]
pub(super) struct Watch {
    /// While it is behind: when it last took some of what it is owed.
    progress: Tick,
    /// While it is behind: when the kernel is asked next. Never: it is not.
    ask: Tick,
    /// What the kernel answered last.
    acked: u64,
    /// Under pressure: since when its bytes are counted, and how many there were before. Never: they are not.
    marked: Tick,
    mark: u64,
}

impl Default for Watch {
    fn default() -> Self {
        Watch {
            progress: Tick(0),
            ask: Tick::NEVER,
            acked: 0,
            marked: Tick::NEVER,
            mark: 0,
        }
    }
}

impl Connection {
    /// Is the peer owed something that it did not take at once? An answer that is on its way, of which the
    /// driver has not told yet, is no such thing: it must not keep a deadline from being set.
    #[inline(always)]
    pub(super) fn is_behind(&self) -> bool {
        self.watch
            .as_ref()
            .is_some_and(|watch| watch.ask != Tick::NEVER)
    }

    pub(super) fn fall_behind(&mut self, now: Tick) {
        let watch = self.watch.get_or_insert_default();
        watch.progress = now;
        watch.ask = now + ASK;
    }

    /// Nothing is owed any more.
    pub(super) fn catch_up(&mut self) {
        if let Some(watch) = &mut self.watch {
            self.heard = self.heard.max(watch.progress);
            watch.ask = Tick::NEVER;
        }
        self.watch.take_if(|watch| watch.marked == Tick::NEVER);
    }

    /// It took some of what it is owed.
    pub(super) fn note_progress(&mut self, now: Tick) {
        match &mut self.watch {
            Some(watch) => watch.progress = now,
            None => self.heard = now,
        }
    }

    /// When it last took some; long ago, if it is not behind.
    pub(super) fn progress(&self) -> Tick {
        self.watch.as_ref().map_or(Tick(0), |watch| watch.progress)
    }

    /// When the kernel is asked whether the peer takes what it is owed.
    pub(super) fn asks(&self, limits: &Limits) -> Tick {
        match (&self.watch, limits.stall) {
            (Some(watch), Some(_)) => watch.ask,
            _ => Tick::NEVER,
        }
    }

    pub(super) fn ask_at(&mut self, moment: Tick) {
        if let Some(watch) = &mut self.watch {
            watch.ask = moment;
        }
    }

    /// The kernel's answer to [`Want::Ask`](super::Want::Ask): all bytes that the peer has acknowledged.
    pub fn handle_acked(&mut self, acked: u64, turn: &Turn<'_>) {
        let Some(watch) = &mut self.watch else {
            return;
        };
        if acked != watch.acked {
            watch.acked = acked;
            watch.progress = turn.now;
        }
        let since = watch.progress;
        if let Some(stall) = turn.limits.stall
            && self.outbox.owed() > 0
            && turn.now >= since + stall
        {
            self.close(Reason::Stall, true);
        }
    }

    /// When its bytes are judged; at once where a count begins or ends.
    pub(super) fn judged(&self, limits: &Limits) -> Tick {
        let marked = self
            .watch
            .as_ref()
            .map_or(Tick::NEVER, |watch| watch.marked);
        match limits.progress {
            None if marked == Tick::NEVER => Tick::NEVER,
            Some(least) if marked != Tick::NEVER => marked + least.per,
            _ => Tick(0),
        }
    }

    /// Has it carried the bytes that pressure asks for? A count begins with the pressure and ends with it.
    pub(super) fn judge(&mut self, turn: &Turn<'_>) {
        let carried = self.received + self.sent;
        let watch = self.watch.get_or_insert_default();
        let is_slow = turn
            .limits
            .progress
            .is_some_and(|least| watch.marked != Tick::NEVER && carried - watch.mark < least.bytes);
        if is_slow {
            return match self.state {
                State::Open => self.end(Reason::Slow, turn.now + ENDING, turn),
                _ => self.close(Reason::Slow, true),
            };
        }
        watch.mark = carried;
        if turn.limits.progress.is_some() {
            watch.marked = turn.now;
        } else {
            watch.marked = Tick::NEVER;
            self.watch.take_if(|watch| watch.ask == Tick::NEVER);
        }
    }
}
