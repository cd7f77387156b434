//! Time as the daemon counts it: milliseconds of the monotonic clock since boot.
//!
//! A `Tick` is eight bytes, means the same in another process on the same boot (an `Instant` cannot
//! be handed over), and is read once a turn by the driver. A pure room is lent one and never asks
//! a clock itself.

use std::ops::Add;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// A moment: milliseconds of `CLOCK_MONOTONIC` since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub u64);

impl Tick {
    /// The moment that never comes: the deadline of what has none.
    pub const NEVER: Tick = Tick(u64::MAX);

    /// The time now, by the coarse clock: as good as the kernel's timer tick, and cheap. For the edges; a
    /// pure room is told the time.
    #[inline]
    pub fn now() -> Tick {
        clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE)
            .map(|time| {
                Tick(
                    time.tv_sec().cast_unsigned() * 1000
                        + time.tv_nsec().cast_unsigned() / 1_000_000,
                )
            })
            .expect("every Linux has CLOCK_MONOTONIC_COARSE")
    }

    /// The time from `earlier` to this moment; zero if `earlier` is in fact later.
    #[inline]
    pub fn since(self, earlier: Tick) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// The moment `timeout` later, rounded up to the next millisecond: by this clock a deadline is never early.
impl Add<Duration> for Tick {
    type Output = Tick;

    #[inline]
    fn add(self, timeout: Duration) -> Tick {
        let whole = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let part = u64::from(!timeout.subsec_nanos().is_multiple_of(1_000_000));
        Tick(self.0.saturating_add(whole).saturating_add(part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_never_early_and_never_wraps() {
        assert_eq!(Tick(5) + Duration::from_micros(1), Tick(6));
        assert_eq!(Tick(5) + Duration::from_millis(2), Tick(7));
        assert_eq!(Tick(5) + Duration::MAX, Tick::NEVER);
    }

    #[test]
    fn time_does_not_run_backwards() {
        assert_eq!(Tick(5).since(Tick(7)), Duration::ZERO);
    }
}
