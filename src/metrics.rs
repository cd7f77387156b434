//! Counters of each worker, summed when somebody reads them.
//!
//! Each worker is the only writer of its own and writes them once a turn, so that counting costs the
//! data path no shared cache line.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::connection::Reason;

const REASONS: usize = Reason::ALL.len();

/// What one worker has counted since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections now.
    pub live: u64,
    /// Bytes received.
    pub received: u64,
    /// Bytes sent back.
    pub sent: u64,
    /// Connections that were served and have ended, by reason.
    pub ended: [u64; REASONS],
    /// Connections that were refused, by reason.
    pub refused: [u64; REASONS],
}

impl Counts {
    /// The counts of all of `workers` together.
    pub fn sum<'a>(workers: impl IntoIterator<Item = &'a Published>) -> Counts {
        let mut sum = Counts::default();
        for worker in workers {
            sum.live += worker.live.load(Ordering::Relaxed);
            sum.received += worker.received.load(Ordering::Relaxed);
            sum.sent += worker.sent.load(Ordering::Relaxed);
            for reason in 0..REASONS {
                sum.ended[reason] += worker.ended[reason].load(Ordering::Relaxed);
                sum.refused[reason] += worker.refused[reason].load(Ordering::Relaxed);
            }
        }
        sum
    }
}

/// One worker's counts, as others may read them. On cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Published {
    live: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    ended: [AtomicU64; REASONS],
    refused: [AtomicU64; REASONS],
}

impl Published {
    /// Makes the bytes of `counts` readable: what changes in nearly every turn. Only the worker whose
    /// they are calls this.
    #[inline]
    pub fn publish_bytes(&self, counts: &Counts) {
        self.received.store(counts.received, Ordering::Relaxed);
        self.sent.store(counts.sent, Ordering::Relaxed);
    }

    /// Makes all of `counts` readable.
    pub fn publish(&self, counts: &Counts) {
        self.publish_bytes(counts);
        self.live.store(counts.live, Ordering::Relaxed);
        for reason in 0..REASONS {
            self.ended[reason].store(counts.ended[reason], Ordering::Relaxed);
            self.refused[reason].store(counts.refused[reason], Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workers_counts_add_up() {
        let workers = [Published::default(), Published::default()];
        let mut counts = Counts {
            live: 2,
            received: 10,
            sent: 9,
            ..Counts::default()
        };
        counts.ended[Reason::Idle as usize] = 1;
        workers[0].publish(&counts);
        workers[1].publish(&counts);
        let sum = Counts::sum(&workers);
        assert_eq!(
            (
                sum.live,
                sum.received,
                sum.sent,
                sum.ended[Reason::Idle as usize]
            ),
            (4, 20, 18, 2)
        );
    }
}
