//! How many records are written: `record_rate`, one token bucket for all workers. Pure.
//!
//! A bucket is one word, the moment at which it will be full again (the generic cell rate algorithm):
//! a token taken moves that moment one interval on, and it may lie at most the burst's worth of
//! intervals ahead. Workers race for it with compare-and-swap, so the sum is exact and nobody waits.
//!
//! Failures are kept first: ordinary records stop while less than a quarter of the burst is left.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::config::RecordRate;
use crate::tick::Tick;

const NANOS_PER_SECOND: f64 = 1e9;
const NANOS_PER_MILLISECOND: u64 = 1_000_000;

/// The longest interval and the deepest bucket, some 73 years: the sums below cannot wrap.
const LONGEST: u64 = u64::MAX / 8;

/// A token bucket. All its words are independent hints to one another: no other memory depends on
/// them, so relaxed ordering will do.
#[derive(Debug)]
pub(super) struct Limiter {
    /// When it is full again, in nanoseconds since boot.
    full_at: AtomicU64,
    /// Nanoseconds that one token takes to come back.
    interval: AtomicU64,
    /// Nanoseconds that all of them take.
    depth: AtomicU64,
}

impl Limiter {
    /// With its burst untouched.
    pub(super) fn new(rate: RecordRate) -> Limiter {
        let (interval, depth) = words(rate);
        Limiter {
            full_at: AtomicU64::new(0),
            interval: AtomicU64::new(interval),
            depth: AtomicU64::new(depth),
        }
    }

    /// Takes another rate, and begins with its whole burst: what was owed at the old rate could mean
    /// hours of silence at the new one.
    pub(super) fn adopt(&self, rate: RecordRate) {
        let (interval, depth) = words(rate);
        self.interval.store(interval, Relaxed);
        self.depth.store(depth, Relaxed);
        self.full_at.store(0, Relaxed);
    }

    /// May this record be written? If so, its token is taken.
    pub(super) fn admit(&self, now: Tick, failure: bool) -> bool {
        let now = now
            .0
            .saturating_mul(NANOS_PER_MILLISECOND)
            .min(u64::MAX / 2);
        let (interval, depth) = (self.interval.load(Relaxed), self.depth.load(Relaxed));
        let needed = if failure {
            interval
        } else {
            interval.max(depth / 4)
        };
        let take = |full_at: u64| {
            let full_at = full_at.max(now);
            let left = depth.saturating_sub(full_at - now);
            (left >= needed).then(|| full_at + interval)
        };
        self.full_at.try_update(Relaxed, Relaxed, take).is_ok()
    }
}

/// The interval and the depth of a rate. A burst of zero counts as one: else nothing were ever said.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the range of the type"
)]
fn words(rate: RecordRate) -> (u64, u64) {
    let interval = (NANOS_PER_SECOND / rate.per_second).clamp(1.0, LONGEST as f64) as u64;
    let interval = interval.min(LONGEST);
    (
        interval,
        interval
            .saturating_mul(u64::from(rate.burst.max(1)))
            .clamp(interval, LONGEST),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    const NOW: Tick = Tick(1_000_000);

    fn limiter(per_second: f64, burst: u32) -> Limiter {
        Limiter::new(RecordRate { per_second, burst })
    }

    fn admitted(limiter: &Limiter, now: Tick, failure: bool) -> usize {
        (0..10_000)
            .take_while(|_| limiter.admit(now, failure))
            .count()
    }

    #[test]
    fn a_burst_is_admitted_and_one_past_it_is_not() {
        assert_eq!(admitted(&limiter(20.0, 1000), NOW, true), 1000);
        assert_eq!(admitted(&limiter(20.0, 1), NOW, true), 1);
        assert_eq!(admitted(&limiter(20.0, 1), NOW, false), 1);
        assert_eq!(admitted(&limiter(20.0, 0), NOW, true), 1);
    }

    #[test]
    fn tokens_come_back_at_the_rate_and_never_beyond_the_burst() {
        let limiter = limiter(20.0, 1000);
        admitted(&limiter, NOW, true);
        assert_eq!(admitted(&limiter, Tick(NOW.0 + 49), true), 0);
        assert_eq!(admitted(&limiter, Tick(NOW.0 + 50), true), 1);
        assert_eq!(admitted(&limiter, Tick(NOW.0 + 1050), true), 20);
        assert_eq!(admitted(&limiter, Tick(NOW.0 + 86_400_000), true), 1000);
    }

    #[test]
    fn the_last_quarter_of_the_burst_is_kept_for_failures() {
        let limiter = limiter(20.0, 1000);
        assert_eq!(
            admitted(&limiter, NOW, false),
            751,
            "none while less than a quarter is left"
        );
        assert_eq!(admitted(&limiter, NOW, true), 249);
        let quarter_back = Tick(NOW.0 + 250 * 50);
        assert!(!limiter.admit(Tick(quarter_back.0 - 1), false));
        assert!(limiter.admit(quarter_back, false));
    }

    #[test]
    fn a_clock_read_earlier_takes_from_the_same_bucket() {
        let limiter = limiter(20.0, 10);
        admitted(&limiter, NOW, true);
        assert_eq!(admitted(&limiter, Tick(NOW.0 - 1000), true), 0);
    }

    #[test]
    fn another_rate_begins_with_its_whole_burst() {
        let limiter = limiter(0.001, 1000);
        admitted(&limiter, NOW, true);
        limiter.adopt(RecordRate {
            per_second: 100.0,
            burst: 50,
        });
        assert_eq!(admitted(&limiter, NOW, true), 50);
    }

    #[test]
    fn no_rate_and_no_moment_makes_it_wrap() {
        for per_second in [f64::MIN_POSITIVE, 1e-9, 1.0, 1e18, f64::MAX] {
            for burst in [0, 1, u32::MAX] {
                for now in [Tick(0), NOW, Tick::NEVER] {
                    let limiter = limiter(per_second, burst);
                    assert!(limiter.admit(now, true), "{per_second} {burst} {now:?}");
                }
            }
        }
    }

    #[test]
    fn workers_together_are_admitted_exactly_the_burst() {
        let limiter = limiter(20.0, 1000);
        let total: usize = thread::scope(|scope| {
            let workers: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| (0..1000).filter(|_| limiter.admit(NOW, true)).count()))
                .collect();
            workers
                .into_iter()
                .map(|worker| worker.join().expect("no panic"))
                .sum()
        });
        assert_eq!(total, 1000);
    }
}
