//! How many records are written: `record_rate`, one token bucket for all workers. Pure.
//!
//! Failures are kept first: ordinary records stop while less than a quarter of the burst is left.

use std::sync::{PoisonError, RwLock};

use crate::bucket::{Bucket, Rate};
use crate::config::RecordRate;
use crate::tick::Tick;

/// The share of the burst, one in so many, that is kept for failures.
const KEPT: u64 = 4;

/// A token bucket, and its rate, which a reload may replace.
#[derive(Debug)]
pub(super) struct Limiter {
    bucket: Bucket,
    rate: RwLock<Rate>,
}

impl Limiter {
    /// With its burst untouched.
    pub(super) fn new(rate: RecordRate) -> Limiter {
        Limiter {
            bucket: Bucket::default(),
            rate: RwLock::new(rate.into()),
        }
    }

    /// Takes another rate, and begins with its whole burst: what was owed at the old rate could mean
    /// hours of silence at the new one.
    pub(super) fn adopt(&self, rate: RecordRate) {
        *self.rate.write().unwrap_or_else(PoisonError::into_inner) = rate.into();
        self.bucket.fill();
    }

    /// May this record be written? If so, its token is taken.
    pub(super) fn admit(&self, now: Tick, failure: bool) -> bool {
        let rate = *self.rate.read().unwrap_or_else(PoisonError::into_inner);
        self.bucket.take(rate, if failure { 0 } else { KEPT }, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn another_rate_begins_with_its_whole_burst() {
        let limiter = limiter(0.001, 1000);
        admitted(&limiter, NOW, true);
        limiter.adopt(RecordRate {
            per_second: 100.0,
            burst: 50,
        });
        assert_eq!(admitted(&limiter, NOW, true), 50);
    }
}
