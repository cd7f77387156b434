//! May this peer come in, and which worker serves it?
//!
//! Owns the counts that hold across workers: connections in all, of each listener, and of each worker.
//! Accepts and closes nothing itself: the worker asks, this answers, the worker acts. A count is taken
//! only if its bound allows it, in one step, so that the bounds are exact however many workers ask at
//! once. Invariant: admitted - released = connections that have not been sent our FIN.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::buffer::Memory;
use crate::connection::Reason;
use crate::tick::Tick;

/// A warning about the same thing is not said again for so long.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// A worker keeps a peer that it accepted unless it has this many more than the least busy worker, and
/// one in [`SLACK_SHARE`] of its own: passing it on costs two system calls.
const SLACK: u32 = 2;
const SLACK_SHARE: u32 = 32;

/// Connections now, and the most there may be.
#[derive(Debug)]
pub struct Bound {
    live: AtomicU32,
    max: AtomicU32,
}

impl Bound {
    /// No connections yet, and at most `max`.
    pub fn new(max: u32) -> Bound {
        Bound {
            live: AtomicU32::new(0),
            max: AtomicU32::new(max),
        }
    }

    /// Replaces the bound; connections above a lower one live on.
    pub fn set_max(&self, max: u32) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// Connections now.
    pub fn live(&self) -> u32 {
        self.live.load(Ordering::Relaxed)
    }

    /// Counts one more, if the bound allows it.
    fn take(&self) -> bool {
        let max = self.max.load(Ordering::Relaxed);
        let more = |live: u32| (live < max).then(|| live + 1);
        self.live
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    /// Counts one less.
    fn give_back(&self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why a peer was refused: the record's word, and the bound for the warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The record's word.
    pub reason: Reason,
    /// The key of the bound that was reached, if it is time to warn of it.
    pub warn: Option<&'static str>,
}

/// When a warning was last said.
#[derive(Debug, Default)]
pub struct Seldom(AtomicU64);

impl Seldom {
    /// Is it time to say it again? Then it counts as said.
    pub fn due(&self, now: Tick) -> bool {
        let due = |said: u64| (said == 0 || now >= Tick(said) + WARN_EVERY).then_some(now.0.max(1));
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, due)
            .is_ok()
    }
}

/// The bounds on all workers together, and how many connections each worker has.
#[derive(Debug)]
pub struct Admission {
    all: Bound,
    workers: Box<[Load]>,
    warned: Warned,
}

#[derive(Debug, Default)]
struct Warned {
    memory: Seldom,
    all: Seldom,
    listener: Seldom,
    pause: Seldom,
}

/// Connections of one worker, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Load(AtomicU32);

impl Admission {
    /// For so many workers, and at most `max` connections of all of them.
    pub fn new(workers: u16, max: u32) -> Admission {
        let workers = (0..workers).map(|_| Load::default()).collect();
        Admission {
            all: Bound::new(max),
            workers,
            warned: Warned::default(),
        }
    }

    /// The bound on all connections.
    pub fn all(&self) -> &Bound {
        &self.all
    }

    /// Counts a peer in, or says which bound refuses it.
    ///
    /// # Errors
    /// The first bound that is reached: the daemon's, the memory, the listener's.
    pub fn admit(&self, listener: &Bound, memory: &Memory, now: Tick) -> Result<(), Refusal> {
        let refusal = |key, seldom: &Seldom| Refusal {
            reason: Reason::Full,
            warn: seldom.due(now).then_some(key),
        };
        if memory.is_full() {
            return Err(refusal("buffer_memory", &self.warned.memory));
        }
        if !self.all.take() {
            return Err(refusal("max_connections", &self.warned.all));
        }
        if !listener.take() {
            self.all.give_back();
            return Err(refusal("listener.max_connections", &self.warned.listener));
        }
        Ok(())
    }

    /// Is it time to warn that accepting pauses?
    pub fn warn_of_pause(&self, now: Tick) -> bool {
        self.warned.pause.due(now)
    }

    /// Gives back what [`Admission::admit`] took.
    pub fn release(&self, listener: &Bound) {
        listener.give_back();
        self.all.give_back();
    }

    /// Chooses the worker for a peer that worker `own` accepted, and counts it there: `own`, unless it
    /// is ahead of the least busy one. The kernel wakes whom it likes, which is mostly the same one.
    pub fn place(&self, own: u16) -> u16 {
        let mine = self.load(own);
        let least = (0..self.count())
            .min_by_key(|&worker| self.load(worker))
            .unwrap_or(own);
        let chosen = if mine > self.load(least) + SLACK + mine / SLACK_SHARE {
            least
        } else {
            own
        };
        self.move_to(chosen);
        chosen
    }

    /// Counts a peer for `worker`.
    pub fn move_to(&self, worker: u16) {
        self.workers[worker as usize]
            .0
            .fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a peer of `worker` no longer.
    pub fn leave(&self, worker: u16) {
        self.workers[worker as usize]
            .0
            .fetch_sub(1, Ordering::Relaxed);
    }

    fn load(&self, worker: u16) -> u32 {
        self.workers[worker as usize].0.load(Ordering::Relaxed)
    }

    fn count(&self) -> u16 {
        // There were as many in `new`.
        u16::try_from(self.workers.len()).unwrap_or(u16::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn the_peer_past_each_bound_is_refused_by_its_name() {
        let memory = Memory::new(1 << 20);
        let (admission, listener) = (Admission::new(1, 3), Bound::new(2));
        let warning = |asked: Result<(), Refusal>| asked.expect_err("the bound is reached").warn;
        assert_eq!(admission.admit(&listener, &memory, Tick(1)), Ok(()));
        assert_eq!(admission.admit(&listener, &memory, Tick(1)), Ok(()));
        assert_eq!(
            warning(admission.admit(&listener, &memory, Tick(1))),
            Some("listener.max_connections")
        );
        let other = Bound::new(9);
        assert_eq!(
            admission.admit(&other, &memory, Tick(1)),
            Ok(()),
            "a refused peer is not counted"
        );
        assert_eq!(
            warning(admission.admit(&other, &memory, Tick(1))),
            Some("max_connections")
        );
        assert_eq!(
            warning(admission.admit(&other, &memory, Tick(60_000))),
            None,
            "once a minute"
        );
        assert_eq!(
            warning(admission.admit(&other, &memory, Tick(60_001))),
            Some("max_connections")
        );
        admission.release(&other);
        assert_eq!(admission.admit(&other, &memory, Tick(1)), Ok(()));
    }

    #[test]
    fn a_bound_is_exact_when_many_ask_at_once() {
        let memory = Memory::new(1 << 20);
        let (admission, listener) = (Admission::new(4, 1000), Bound::new(100));
        let admitted: usize = thread::scope(|scope| {
            let ask = || {
                (0..200)
                    .filter(|_| admission.admit(&listener, &memory, Tick(1)).is_ok())
                    .count()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("joined"))
                .sum()
        });
        assert_eq!(
            (admitted, listener.live(), admission.all().live()),
            (100, 100, 100)
        );
    }

    #[test]
    fn a_thousand_peers_are_spread_evenly_though_one_worker_accepts_them_all() {
        for workers in [2u16, 4, 16] {
            let admission = Admission::new(workers, 1000);
            for _ in 0..1000 {
                admission.place(0);
            }
            let even = 1000 / u32::from(workers);
            for worker in 0..workers {
                let load = admission.load(worker);
                assert!(
                    load.abs_diff(even) * 10 <= even,
                    "worker {worker} of {workers} has {load}"
                );
            }
        }
    }
}
