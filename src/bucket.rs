//! Token buckets: how often something may happen, or how fast bytes may go.
//!
//! A bucket is one word, the moment at which it will be full again (the generic cell rate algorithm, ITU-T
//! I.371): a token taken moves that moment on by what it costs, and it may lie ahead by no more than the burst
//! costs, or further where bytes are charged that have come already: then there is a debt. Threads race for
//! it with compare-and-swap, so the sum is exact and nobody waits. Pure but for that word.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::config::{ByteRate, ConnectionRate, RecordRate};
use crate::tick::Tick;

const NANOS_PER_SECOND: f64 = 1e9;
const NANOS_PER_MILLISECOND: u64 = 1_000_000;

/// The deepest bucket, some 73 years in nanoseconds: the sums below cannot wrap.
const LONGEST: u64 = u64::MAX / 8;

/// Bits behind the point of a price: a rate is right to a few parts in a thousand million.
const PRECISION: u32 = 32;

/// A bucket of bytes holds what comes in so long: enough to be woken late, little enough that a second's
/// measurement is right.
const BYTE_BURST: Duration = Duration::from_millis(100);

/// Most bytes of one receive at a rate: what comes in while a bucket fills, and no less than this, or a slow
/// rate would cost a system call for each byte.
const CHUNK_MIN: u64 = 256;

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// What a token costs, in nanoseconds: a fixed-point number, so that nothing is divided for a message.
    price: u64,
    /// How many bits of it are behind the point.
    point: u32,
    /// What the burst costs, in nanoseconds.
    depth: u64,
    /// Most tokens that are taken on credit at once.
    chunk: u32,
}

impl Rate {
    /// So many tokens in so many nanoseconds.
    fn new(count: u64, nanos: u64, burst: u64) -> Rate {
        let (count, nanos) = (u128::from(count.max(1)), u128::from(nanos.min(LONGEST)));
        let precise = |point: &u32| u64::try_from((nanos << point) / count).ok();
        // Without a bit behind the point it fits, and mostly with all of them.
        let (price, point) = (0..=PRECISION)
            .rev()
            .find_map(|point| Some((precise(&point)?, point)))
            .unwrap_or((LONGEST, 0));
        let chunk = burst.max(CHUNK_MIN);
        let mut rate = Rate {
            price,
            point,
            depth: LONGEST,
            chunk: u32::try_from(chunk).unwrap_or(u32::MAX),
        };
        // No burst at all would be nothing, ever.
        rate.depth = rate.cost(burst.max(1)).max(1);
        rate
    }

    /// Nanoseconds in which so many tokens come back.
    #[inline]
    fn cost(self, tokens: u64) -> u64 {
        let nanos = (u128::from(tokens) * u128::from(self.price)) >> self.point;
        u64::try_from(nanos).unwrap_or(LONGEST).min(LONGEST)
    }

    /// Most bytes of one receive, so that a debt is short.
    pub fn chunk(self) -> u32 {
        self.chunk
    }
}

impl From<RecordRate> for Rate {
    fn from(rate: RecordRate) -> Rate {
        // Clamped to the range of the type.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let nanos = (NANOS_PER_SECOND / rate.per_second).clamp(1.0, LONGEST as f64) as u64;
        Rate::new(1, nanos, rate.burst.into())
    }
}

impl From<ConnectionRate> for Rate {
    fn from(rate: ConnectionRate) -> Rate {
        Rate::new(rate.count.into(), nanos(rate.per), rate.burst.into())
    }
}

impl From<ByteRate> for Rate {
    fn from(rate: ByteRate) -> Rate {
        let burst = u128::from(rate.bytes) * BYTE_BURST.as_nanos() / rate.per.as_nanos().max(1);
        let burst = u64::try_from(burst).unwrap_or(u64::MAX);
        Rate::new(rate.bytes, nanos(rate.per), burst)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(LONGEST)
}

/// A moment in nanoseconds since boot.
fn moment(tick: Tick) -> u64 {
    tick.0
        .saturating_mul(NANOS_PER_MILLISECOND)
        .min(u64::MAX / 2)
}

/// When it is full again, in nanoseconds since boot. No other memory depends on it, so relaxed ordering
/// will do.
#[derive(Debug, Default)]
pub struct Bucket(AtomicU64);

impl Bucket {
    /// Takes a token if there is one, and leaves a share of the burst, `depth / keep`, untouched; 0: none.
    pub fn take(&self, rate: Rate, keep: u64, now: Tick) -> bool {
        let now = moment(now);
        let one = rate.cost(1);
        let needed = rate.depth.checked_div(keep).unwrap_or(0).max(one);
        let take = |full_at: u64| {
            let full_at = full_at.max(now);
            let left = rate.depth.saturating_sub(full_at - now);
            (left >= needed).then(|| full_at + one)
        };
        self.0.try_update(Relaxed, Relaxed, take).is_ok()
    }

    /// Takes so many tokens, whether they are there or not, and answers when what is owed will be back; a
    /// moment that has passed if nothing is.
    pub fn charge(&self, rate: Rate, tokens: u64, now: Tick) -> Tick {
        let cost = rate.cost(tokens);
        let now = moment(now);
        let charge = |full_at: u64| Some(full_at.max(now).saturating_add(cost).min(u64::MAX / 2));
        let before = self.0.try_update(Relaxed, Relaxed, charge).unwrap_or(now);
        let full_at = before.max(now).saturating_add(cost).min(u64::MAX / 2);
        Tick(
            full_at
                .saturating_sub(rate.depth)
                .div_ceil(NANOS_PER_MILLISECOND),
        )
    }

    /// Is nothing missing, so that it says no more than a new one?
    pub fn is_full(&self, now: Tick) -> bool {
        self.0.load(Relaxed) <= moment(now)
    }

    /// Fills it.
    pub fn fill(&self) {
        self.0.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    const NOW: Tick = Tick(1_000_000);

    fn records(per_second: f64, burst: u32) -> Rate {
        RecordRate { per_second, burst }.into()
    }

    fn taken(bucket: &Bucket, rate: Rate, keep: u64, now: Tick) -> usize {
        (0..10_000)
            .take_while(|_| bucket.take(rate, keep, now))
            .count()
    }

    #[test]
    fn a_burst_is_taken_and_one_past_it_is_not() {
        for (burst, most) in [(1000, 1000), (1, 1), (0, 1)] {
            assert_eq!(
                taken(&Bucket::default(), records(20.0, burst), 0, NOW),
                most
            );
        }
    }

    #[test]
    fn tokens_come_back_at_the_rate_and_never_beyond_the_burst() {
        let (bucket, rate) = (Bucket::default(), records(20.0, 1000));
        taken(&bucket, rate, 0, NOW);
        assert_eq!(taken(&bucket, rate, 0, Tick(NOW.0 + 49)), 0);
        assert_eq!(taken(&bucket, rate, 0, Tick(NOW.0 + 50)), 1);
        assert_eq!(taken(&bucket, rate, 0, Tick(NOW.0 + 1050)), 20);
        assert_eq!(taken(&bucket, rate, 0, Tick(NOW.0 + 86_400_000)), 1000);
        bucket.fill();
        assert_eq!(taken(&bucket, rate, 0, NOW), 1000);
    }

    #[test]
    fn a_share_of_the_burst_may_be_kept_for_others() {
        let (bucket, rate) = (Bucket::default(), records(20.0, 1000));
        assert_eq!(
            taken(&bucket, rate, 4, NOW),
            751,
            "none while less than a quarter is left"
        );
        assert_eq!(taken(&bucket, rate, 0, NOW), 249);
    }

    #[test]
    fn bytes_that_came_are_charged_and_what_is_owed_takes_its_time() {
        let rate = Rate::from(ByteRate {
            bytes: 1000,
            per: Duration::from_secs(1),
        });
        let bucket = Bucket::default();
        assert!(
            bucket.charge(rate, 100, NOW) <= NOW,
            "a tenth of a second's worth is there"
        );
        assert_eq!(bucket.charge(rate, 1, NOW), Tick(NOW.0 + 1));
        assert_eq!(bucket.charge(rate, 999, NOW), Tick(NOW.0 + 1000));
        assert!(!bucket.is_full(Tick(NOW.0 + 1099)));
        assert!(bucket.is_full(Tick(NOW.0 + 1100)));
    }

    #[test]
    fn the_average_is_the_rate_however_the_bytes_are_cut() {
        for (bytes, per, cut) in [
            (1 << 20, 1, 65_536u64),
            (777, 60, 1),
            (1 << 30, 1, 512 << 10),
        ] {
            let rate = Rate::from(ByteRate {
                bytes,
                per: Duration::from_secs(per),
            });
            let (bucket, mut now, mut sent) = (Bucket::default(), NOW, 0u64);
            while now < Tick(NOW.0 + per * 2000) {
                now = now.max(bucket.charge(rate, cut, now));
                sent += cut;
            }
            let right = bytes * 2 + bytes / (10 * per);
            assert!(
                sent.abs_diff(right) <= right / 100 + 2 * cut,
                "{sent} of {right}"
            );
        }
    }

    #[test]
    fn a_receive_at_a_rate_is_a_tenth_of_a_second_and_never_tiny() {
        let chunk = |bytes| {
            let per = Duration::from_secs(1);
            Rate::from(ByteRate { bytes, per }).chunk()
        };
        assert_eq!(chunk(10 << 20), 1 << 20);
        assert_eq!((chunk(1), chunk(1 << 50)), (256, u32::MAX));
    }

    #[test]
    fn no_rate_and_no_moment_makes_it_wrap() {
        for per_second in [f64::MIN_POSITIVE, 1e-9, 1.0, 1e18, f64::MAX] {
            for burst in [0, 1, u32::MAX] {
                for now in [Tick(0), NOW, Tick::NEVER] {
                    let (bucket, rate) = (Bucket::default(), records(per_second, burst));
                    assert!(bucket.take(rate, 0, now), "{per_second} {burst} {now:?}");
                    bucket.charge(rate, u64::MAX, now);
                    bucket.charge(rate, u64::MAX, now);
                }
            }
        }
    }

    #[test]
    fn threads_together_take_exactly_the_burst() {
        let (bucket, rate) = (Bucket::default(), records(20.0, 1000));
        let total: usize = thread::scope(|scope| {
            let take = || (0..1000).filter(|_| bucket.take(rate, 0, NOW)).count();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(take)).collect();
            let counts = threads.into_iter().map(|t| t.join().expect("no panic"));
            counts.sum()
        });
        assert_eq!(total, 1000);
    }
}
