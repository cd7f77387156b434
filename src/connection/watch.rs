//! What is watched of a peer that is behind, and of everybody under pressure: does it get on?
//!
//! A peer that keeps up in peace has no watch. One that is behind is asked of the kernel now and then, since a send to a slow but
//! living peer may not complete for a minute; so is one that may be behind in the kernel's queue alone, where the kernel would bear that for
//! longer than we do; under pressure bytes are counted from one judgement to the next.

use std::time::Duration;

use super::{ASK, Connection, ENDING, Limits, Reason, State, Turn, todo};
use crate::tick::Tick;

/// How often the kernel's queue is looked into.
const LOOK: Duration = Duration::from_millis(500);

/// Of one peer.
#[derive(Debug)]
pub(super) struct Watch {
    /// While it is behind: when it last took some of what it is owed.
    progress: Tick,
    /// While it is behind: when the kernel is asked next. Never: it is not.
    ask: Tick,
    /// What the kernel answered last.
    acked: u64,
    /// When the kernel's queue is looked into next; never: the kernel sees to that itself.
    look: Tick,
    /// All that was sent when the queue was last empty.
    settled: u64,
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
            look: Tick::NEVER,
            settled: 0,
            marked: Tick::NEVER,
            mark: 0,
        }
    }
}

impl Watch {
    /// Is there nothing to watch?
    fn is_idle(&self) -> bool {
        self.ask == Tick::NEVER && self.look == Tick::NEVER && self.marked == Tick::NEVER
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

    /// Nothing is owed any more. It is judged by its silence again, for which no timer may be set.
    pub(super) fn catch_up(&mut self) {
        if !self.is_behind() {
            return;
        }
        self.todo |= todo::DEADLINE;
        if let Some(watch) = &mut self.watch {
            self.heard = self.heard.max(watch.progress);
            watch.ask = Tick::NEVER;
        }
        self.watch.take_if(|watch| watch.is_idle());
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

    /// When the kernel's queue is looked into; at once where that begins or ends.
    pub(super) fn looks(&self, limits: &Limits) -> Tick {
        let look = self.watch.as_ref().map_or(Tick::NEVER, |watch| watch.look);
        match limits.looks_into_queue() {
            true if look != Tick::NEVER => look,
            false if look == Tick::NEVER => Tick::NEVER,
            _ => Tick(0),
        }
    }

    /// Looks into the kernel's queue, if anything was sent since it was empty.
    pub(super) fn look(&mut self, turn: &Turn<'_>) {
        let (sent, watch) = (self.sent, self.watch.get_or_insert_default());
        if !turn.limits.looks_into_queue() {
            watch.look = Tick::NEVER;
            self.watch.take_if(|watch| watch.is_idle());
            return;
        }
        if watch.look == Tick::NEVER {
            watch.progress = turn.now;
        }
        watch.look = turn.now + LOOK;
        if sent != watch.settled {
            self.todo |= todo::ASK;
        }
    }

    /// The kernel's answer to [`Want::Ask`](super::Want::Ask): all bytes that the peer has acknowledged, and whether there are others.
    pub fn handle_acked(&mut self, acked: u64, queued: bool, turn: &Turn<'_>) {
        let (owed, sent) = (self.outbox.owed(), self.sent);
        let Some(watch) = &mut self.watch else {
            return;
        };
        if acked != watch.acked || owed == 0 && !queued {
            watch.acked = acked;
            watch.progress = turn.now;
        }
        if !queued {
            watch.settled = sent;
        }
        let since = watch.progress;
        let is_owed = owed > 0 || queued && watch.look != Tick::NEVER;
        if let Some(stall) = turn.limits.stall
            && is_owed
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

    /// Does not count so long, in which it is not read from.
    pub(super) fn forgive(&mut self, time: Duration) {
        if let Some(watch) = &mut self.watch
            && watch.marked != Tick::NEVER
        {
            watch.marked = watch.marked + time;
        }
        self.forgive_frame(time);
    }

    /// Has it carried the bytes that pressure asks for? A count begins with the pressure and ends with it.
    pub(super) fn judge(&mut self, turn: &Turn<'_>) {
        let carried = self.received + self.sent;
        let paused_until = self.is_paused().then_some(self.until);
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
            watch.marked = paused_until.map_or(turn.now, |until| turn.now.max(until));
        } else {
            watch.marked = Tick::NEVER;
            self.watch.take_if(|watch| watch.is_idle());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Peer, limits};
    use super::*;
    use crate::connection::Want;

    const SECOND: Duration = Duration::from_secs(1);

    fn peer(user_timeout: Option<Duration>) -> Peer {
        let mut peer = Peer::new(Limits {
            stall: Some(SECOND),
            user_timeout,
            ..limits()
        });
        peer.wait(0);
        peer
    }

    #[test]
    fn who_leaves_bytes_in_the_kernels_queue_is_ended_like_one_who_leaves_them_to_us() {
        let mut peer = peer(None);
        peer.says(b"abcdef");
        assert_eq!(peer.connection.owed(), 0, "the kernel has them");
        for acked in [0, 3] {
            assert!(matches!(peer.wait(500)[..], [Want::Ask]));
            assert!(peer.acked(acked).is_empty());
        }
        assert!(matches!(peer.wait(500)[..], [Want::Ask]));
        assert!(peer.acked(3).is_empty());
        assert!(matches!(peer.wait(500)[..], [Want::Ask]));
        assert!(matches!(peer.acked(3)[..], [Want::Close { reset: true }]));
        assert_eq!(peer.connection.reason(), Reason::Stall);
    }

    #[test]
    fn a_queue_that_is_empty_is_not_asked_about_until_more_is_sent() {
        let mut peer = peer(None);
        assert!(peer.wait(500).is_empty(), "nothing was sent");
        peer.says(b"abc");
        assert!(matches!(peer.wait(500)[..], [Want::Ask]));
        peer.took_all(3);
        for _ in 0..10 {
            assert!(peer.wait(500).is_empty());
        }
        peer.says(b"d");
        assert!(matches!(peer.wait(500)[..], [Want::Ask]));
    }

    #[test]
    fn where_the_kernel_looks_itself_we_do_not() {
        let mut peer = peer(Some(SECOND));
        peer.says(b"abc");
        assert_eq!(peer.deadline(), Tick::NEVER);
        // As pressure would have it.
        peer.limits.stall = Some(SECOND / 2);
        assert_eq!(peer.deadline(), Tick(0));
        peer.wait(0);
        peer.limits.stall = Some(SECOND);
        peer.wait(0);
        assert_eq!(peer.deadline(), Tick::NEVER, "and no longer");
    }
}
