//! The times by which a connection is judged.
//!
//! Nothing here is kept in step with the messages: they only note when they came. The deadline is
//! worked out when a timer fires, and what has passed by then is done.

use std::time::Duration;

use super::{ASK, Connection, DRAIN_RESET, ENDING, Limits, Reason, State, Turn, todo};
use crate::tick::Tick;

impl Connection {
    /// A deadline may have passed; see [`Connection::deadline`].
    pub fn handle_timeout(&mut self, turn: &Turn<'_>) {
        let (now, limits) = (turn.now, turn.limits);
        match self.state {
            State::Closing => {}
            // Whatever is still unread here was sent after our FIN.
            State::Parting if now >= self.last(limits) => self.close(self.reason, false),
            State::Ending if now >= self.last(limits) => {
                self.close(self.own_reason().unwrap_or(Reason::Stall), true)
            }
            State::Parting => {}
            State::Open if self.until <= now => self.resume(turn),
            State::Open if now >= self.over(limits.lifetime) => {
                self.end(Reason::Lifetime, now + ENDING, turn)
            }
            State::Flushing if now >= self.over(limits.lifetime) => {
                self.close(Reason::Lifetime, true)
            }
            State::Open if now >= self.shaken(limits) => {
                self.end(Reason::Handshake, now + ENDING, turn);
            }
            State::Open if self.is_unheard() && now >= self.unheard(limits) => {
                self.end(Reason::FirstByte, now + ENDING, turn);
            }
            State::Open if !self.is_busy() && now >= self.quiet(limits.idle) => {
                self.end(Reason::Idle, now + ENDING, turn);
            }
            State::Open if now >= self.frame_judged() => self.judge_frame(turn),
            State::Open if now >= self.drained(limits) => {
                let until = limits.drain.map_or(now, |drain| drain.until) + DRAIN_RESET;
                self.end(Reason::Drain, until.max(now), turn);
            }
            State::Flushing if now >= self.drained(limits) + DRAIN_RESET => {
                self.close(Reason::Drain, true)
            }
            State::Open | State::Flushing if now >= self.judged(limits) => self.judge(turn),
            _ if now >= self.asks(limits) => {
                self.ask_at(now + ASK);
                self.todo |= todo::ASK;
            }
            State::Open if now >= self.looks(limits) => self.look(turn),
            _ => {}
        }
    }

    /// The next moment at which [`Connection::handle_timeout`] has something to do. Asked when a timer
    /// fires, so that a message costs none.
    pub fn deadline(&self, limits: &Limits) -> Tick {
        let idle = if self.is_busy() {
            Tick::NEVER
        } else {
            self.quiet(limits.idle)
        };
        let first = if self.is_unheard() {
            self.unheard(limits)
        } else {
            Tick::NEVER
        };
        match self.state {
            State::Closing => Tick::NEVER,
            State::Parting => self.last(limits),
            State::Ending => self.last(limits).min(self.asks(limits)),
            State::Flushing => self
                .over(limits.lifetime)
                .min(self.drained(limits) + DRAIN_RESET)
                .min(self.judged(limits))
                .min(self.asks(limits)),
            State::Open => self
                .over(limits.lifetime)
                .min(self.shaken(limits))
                .min(first)
                .min(idle)
                .min(self.until)
                .min(self.frame_judged())
                .min(self.drained(limits))
                .min(self.judged(limits))
                .min(self.looks(limits))
                .min(self.asks(limits)),
        }
    }

    /// When what comes before the service has to be done, while it is not.
    fn shaken(&self, limits: &Limits) -> Tick {
        if self.awaits_header() || self.is_handshaking() {
            self.over(limits.handshake)
        } else {
            Tick::NEVER
        }
    }

    /// Is its first byte still to come? Nobody waits for one where the service sends without end.
    fn is_unheard(&self) -> bool {
        self.received == 0 && !self.service.is_endless() && !self.awaits_header()
    }

    /// So long after the beginning.
    fn over(&self, timeout: Option<Duration>) -> Tick {
        timeout.map_or(Tick::NEVER, |timeout| self.opened + timeout)
    }

    /// Is there something to do for its peer, who may well be silent meanwhile?
    fn is_busy(&self) -> bool {
        self.is_behind() || self.is_expanding()
    }

    /// So long after the last byte in either direction.
    pub(super) fn quiet(&self, timeout: Option<Duration>) -> Tick {
        let since = self.listened().max(self.progress());
        timeout.map_or(Tick::NEVER, |timeout| since + timeout)
    }

    /// When its first byte has taken too long.
    fn unheard(&self, limits: &Limits) -> Tick {
        let since = self.listened().max(self.served_since());
        let timeout = limits.first_byte;
        timeout.map_or(Tick::NEVER, |timeout| since + timeout)
    }

    /// Since when nothing was heard although it was listened to; of one that a rate pauses, from when on.
    fn listened(&self) -> Tick {
        match self.until {
            Tick::NEVER => self.heard,
            until => until,
        }
    }

    /// When our own end of it has taken long enough.
    fn last(&self, limits: &Limits) -> Tick {
        limits.drain.map_or(self.until, |drain| {
            self.until.min(drain.until + DRAIN_RESET)
        })
    }

    /// When a drain ends it.
    fn drained(&self, limits: &Limits) -> Tick {
        let Some(drain) = limits.drain else {
            return Tick::NEVER;
        };
        if self.service.is_endless() && self.state == State::Open {
            // It would never end by itself, nor be idle: at once.
            return self.opened;
        }
        if !self.is_busy() && self.state == State::Open {
            drain.until.min(self.quiet(Some(drain.idle)))
        } else {
            drain.until
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Peer, limits};
    use super::*;
    use std::sync::Arc;

    use crate::bucket::{Bucket, Rate};
    use crate::config::ByteRate;
    use crate::connection::{DRAIN_PARTING, Drain, PARTING, Want};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_quiet_peer_is_ended_after_idle_and_one_that_speaks_is_not() {
        let mut peer = Peer::new(Limits {
            idle: Some(SECOND),
            ..limits()
        });
        peer.wait(999);
        peer.says(b"a");
        assert_eq!(peer.deadline(), Tick(1999), "idle begins again");
        assert!(peer.wait(999).is_empty());
        let wants = peer.wait(1);
        assert!(
            matches!(wants[..], [Want::Shutdown, Want::Deadline]),
            "{wants:?}"
        );
        assert_eq!(peer.connection.reason(), Reason::Idle);
    }

    #[test]
    fn a_peer_that_never_speaks_is_ended_after_first_byte() {
        let mut peer = Peer::new(Limits {
            first_byte: Some(SECOND),
            ..limits()
        });
        assert_eq!(peer.deadline(), Tick(1000));
        peer.wait(1000);
        assert_eq!(peer.connection.reason(), Reason::FirstByte);
        let mut other = Peer::new(Limits {
            first_byte: Some(SECOND),
            ..limits()
        });
        other.says(b"a");
        assert_eq!(other.deadline(), Tick::NEVER);
    }

    #[test]
    fn after_our_fin_we_read_for_two_seconds_and_close() {
        let mut peer = Peer::new(Limits {
            lifetime: Some(SECOND),
            ..limits()
        });
        peer.wait(1000);
        peer.says(b"too late");
        assert!(peer.took.is_empty(), "after our FIN nothing is answered");
        assert_eq!(peer.deadline(), Tick(1000) + PARTING);
        let wants = peer.wait(2000);
        assert!(
            matches!(wants[..], [Want::Close { reset: false }]),
            "{wants:?}"
        );
        assert_eq!(peer.connection.reason(), Reason::Lifetime);
    }

    #[test]
    fn a_peer_that_takes_nothing_is_reset_and_one_that_the_kernel_sees_taking_is_not() {
        let mut peer = Peer::new(Limits {
            stall: Some(SECOND),
            ..limits()
        });
        peer.takes = 2;
        peer.says(b"abcdef");
        for acked in 1..10 {
            assert!(matches!(peer.wait(250)[..], [Want::Ask]));
            peer.acked(acked);
        }
        for _ in 0..3 {
            assert!(matches!(peer.wait(250)[..], [Want::Ask]));
            assert!(peer.acked(9).is_empty());
        }
        assert!(matches!(peer.wait(250)[..], [Want::Ask]));
        assert!(matches!(peer.acked(9)[..], [Want::Close { reset: true }]));
        assert_eq!(peer.connection.reason(), Reason::Stall);
    }

    #[test]
    fn a_stall_that_a_reload_turns_on_is_judged_for_those_who_are_slow_already() {
        let mut peer = Peer::new(limits());
        peer.takes = 2;
        peer.says(b"abcdef");
        assert_eq!(peer.deadline(), Tick::NEVER);
        peer.limits.stall = Some(SECOND);
        assert!(peer.deadline() < Tick::NEVER);
    }

    #[test]
    fn a_drain_ends_the_quiet_soon_and_the_busy_at_its_end() {
        let drain = Drain {
            idle: SECOND,
            parting: DRAIN_PARTING,
            until: Tick(30_000),
        };
        let mut quiet = Peer::new(limits());
        quiet.limits.drain = Some(drain);
        assert_eq!(quiet.deadline(), Tick(1000));
        assert!(matches!(
            quiet.wait(1000)[..],
            [Want::Shutdown, Want::Deadline]
        ));
        assert_eq!(quiet.deadline(), Tick(1000) + DRAIN_PARTING);

        let mut busy = Peer::new(limits());
        busy.limits.drain = Some(drain);
        busy.takes = 1;
        busy.says(b"abc");
        assert!(busy.deadline() > Tick(1000));
        busy.wait(30_000);
        assert_eq!(
            busy.deadline().min(Tick(31_000)),
            busy.deadline(),
            "a second for what is owed"
        );
        let wants = busy.wait(1000);
        assert!(
            matches!(wants[..], [Want::Close { reset: true }]),
            "{wants:?}"
        );
        assert_eq!(busy.connection.reason(), Reason::Drain);
    }

    fn rate(bytes: u64, seconds: u64) -> ByteRate {
        ByteRate {
            bytes,
            per: Duration::from_secs(seconds),
        }
    }

    #[test]
    fn a_rate_pauses_a_peer_and_loses_and_ends_nothing() {
        let total = (Rate::from(rate(1000, 1)), Arc::new(Bucket::default()));
        let mut peer = Peer::new(Limits {
            idle: Some(SECOND),
            ..limits().with_rates(None, Some(total))
        });
        let wants = peer.says(&[7; 600]);
        assert!(matches!(wants[..], [Want::Deadline]), "{wants:?}");
        assert_eq!(peer.room, 0);
        assert_eq!(peer.took.len(), 600, "what has come is answered at once");
        // A hundred were there, so 500 are owed: half a second.
        assert_eq!(peer.deadline(), Tick(500));
        peer.wait(500);
        assert_eq!(
            (peer.room, peer.deadline()),
            (256, Tick(1500)),
            "idle since it is listened to again"
        );
        peer.says(b"a");
        assert_eq!(peer.room, 0, "nothing is there yet");
    }

    #[test]
    fn a_pause_is_no_idleness_but_a_drain_ends_it() {
        let total = (Rate::from(rate(10, 1)), Arc::new(Bucket::default()));
        let mut peer = Peer::new(Limits {
            idle: Some(SECOND),
            ..limits().with_rates(None, Some(total))
        });
        peer.says(&[7; 101]);
        assert_eq!(
            peer.deadline(),
            Tick(10_000),
            "paused for ten times as long as idle"
        );
        peer.limits.drain = Some(Drain {
            idle: SECOND,
            parting: DRAIN_PARTING,
            until: Tick(5000),
        });
        assert_eq!(peer.deadline(), Tick(5000));
        peer.wait(5000);
        assert_eq!(peer.connection.reason(), Reason::Drain);
    }

    #[test]
    fn progress_is_judged_from_the_moment_that_it_is_asked_for() {
        let mut peer = Peer::new(limits());
        peer.wait(100_000);
        peer.limits.progress = Some(rate(10, 60));
        assert_eq!(peer.deadline(), Tick(0), "a count has to begin");
        peer.wait(0);
        assert_eq!(peer.deadline(), Tick(160_000));
        peer.says(b"abcde");
        peer.wait(60_000);
        assert_eq!(peer.deadline(), Tick(220_000), "five there and five back");
        peer.says(b"abcd");
        peer.wait(60_000);
        assert_eq!(peer.connection.reason(), Reason::Slow);
    }

    #[test]
    fn what_was_slow_before_pressure_came_again_is_not_held_against_it() {
        let mut peer = Peer::new(limits());
        peer.limits.progress = Some(rate(10, 60));
        peer.wait(0);
        peer.limits.progress = None;
        assert_eq!(peer.deadline(), Tick(0), "the count has to end");
        peer.wait(0);
        assert_eq!(peer.deadline(), Tick::NEVER);
        peer.wait(600_000);
        peer.limits.progress = Some(rate(10, 60));
        peer.wait(0);
        assert_eq!(peer.deadline(), Tick(660_000));
    }
}
