//! Wakes a driver at a given time, at next to no cost for the turns before it.
//!
//! A timeout given with each wait costs a kernel timer whenever the wait sleeps, some 700 instructions,
//! and nearly none of those timers ever fires. This timer is set when the next deadline is nearer than the
//! one it is set for, and left alone otherwise: a deadline that moved away costs one turn for nothing.
//!
//! It goes off two steps of the coarse clock late: that clock, by which deadlines are judged, has mostly not
//! reached the deadline before. Where it has not even then, the next turn sets the alarm again.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::{ClockId as Clock, clock_getres};

use crate::tick::Tick;

/// A timer that makes a descriptor readable.
#[derive(Debug)]
pub(super) struct Alarm {
    timer: TimerFd,
    /// The time that it is set for; never if it is not set, or has gone off.
    at: Tick,
    /// Two steps of the coarse clock.
    late: Duration,
}

impl Alarm {
    /// An alarm that is not set.
    ///
    /// # Errors
    /// When there is no descriptor for it.
    pub(super) fn new() -> io::Result<Alarm> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        Ok(Alarm {
            timer: TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?,
            at: Tick::NEVER,
            late: Duration::from(clock_getres(Clock::CLOCK_MONOTONIC_COARSE)?) * 2,
        })
    }

    /// Readable when it has gone off, until it is set again.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }

    /// It has gone off: the next deadline sets it again.
    pub(super) fn went_off(&mut self) {
        self.at = Tick::NEVER;
    }

    /// Sees to it that it goes off at `until`, or before.
    #[inline(always)]
    pub(super) fn cover(&mut self, until: Tick) {
        if until < self.at {
            self.set(until);
        }
    }

    #[cold]
    fn set(&mut self, until: Tick) {
        let time = TimeSpec::from_duration(Duration::from_millis(until.0) + self.late);
        let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME;
        // The kernel has no reason to refuse this. If it does, it is asked again with the next turn.
        if self.timer.set(Expiration::OneShot(time), flags).is_ok() {
            self.at = until;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::time::clock_gettime;

    fn waits(alarm: &Alarm) -> bool {
        let mut fds = [PollFd::new(alarm.fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::from(10_000u16)) == Ok(1)
    }

    #[test]
    fn it_goes_off_again_and_again_and_never_early() {
        let mut alarm = Alarm::new().expect("a timer");
        for _ in 0..5 {
            let until = Tick::now() + Duration::from_millis(3);
            alarm.cover(until);
            assert!(waits(&alarm));
            let now = clock_gettime(Clock::CLOCK_MONOTONIC).expect("a clock");
            assert!(Duration::from(now) >= Duration::from_millis(until.0));
            alarm.went_off();
        }
    }

    #[test]
    fn a_nearer_deadline_sets_it_again_and_a_farther_one_does_not() {
        let mut alarm = Alarm::new().expect("a timer");
        let now = Tick::now();
        alarm.cover(now + Duration::from_secs(3600));
        alarm.cover(now + Duration::from_millis(1));
        alarm.cover(now + Duration::from_secs(60));
        assert!(waits(&alarm));
    }
}
