//! The bound on the memory of all buffers together, and what is taken of it.
//!
//! A [`Charge`] counts for as long as it is held. When less is in use, what is free goes back to the kernel.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::{TIGHT_RECEIVE, TURN_MEMORY};
use crate::sys;
use crate::tick::Tick;

/// Who waits for memory asks for it more often than that.
const MISSED: Duration = Duration::from_secs(2);

/// `buffer_memory`, shared by all workers: what is in use, and the bound on it.
#[derive(Debug)]
pub struct Memory {
    used: AtomicU64,
    limit: AtomicU64,
    /// When somebody last wanted some that was not there, and how often that was.
    missed: AtomicU64,
    misses: AtomicU32,
    /// What is promised to somebody.
    promised: AtomicU64,
    /// The most that was in use since what is free was last returned to the kernel.
    peak: AtomicU64,
    /// Somebody was told that less is in use by now.
    is_told: AtomicBool,
}

impl Memory {
    /// No memory in use, and at most `limit` bytes of it.
    pub fn new(limit: u64) -> Arc<Memory> {
        Arc::new(Memory {
            used: AtomicU64::new(0),
            limit: AtomicU64::new(limit),
            missed: AtomicU64::new(0),
            misses: AtomicU32::new(0),
            promised: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            is_told: AtomicBool::new(false),
        })
    }

    /// Replaces the bound. What is in use above a lower one is given back as its peers take it.
    pub fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// The bound.
    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Somebody waits for memory that is not there. Answers how often that was so before; the count begins anew at 2^32.
    pub fn miss(&self, now: Tick) -> u32 {
        self.missed.store(now.0.max(1), Ordering::Relaxed);
        self.misses.fetch_add(1, Ordering::Relaxed)
    }

    /// Does somebody, or did a moment ago?
    pub fn is_missed(&self, now: Tick) -> bool {
        let missed = self.missed.load(Ordering::Relaxed);
        missed > 0 && now < Tick(missed) + MISSED
    }

    /// Promises `size` bytes of the half to one who waits, to be taken by [`Charge::resize_within_half`]: they are not
    /// given to others. `None`: something is promised to somebody else, or the half has not so much.
    pub fn promise(self: &Arc<Memory>, size: usize) -> Option<Promise> {
        let size = size as u64;
        let promised = &self.promised;
        let is_ours = size <= self.limit() / 2
            && promised
                .compare_exchange(0, size, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        is_ours.then(|| Promise(Arc::clone(self)))
    }

    /// Most bytes that one receive may bring now: less when half of the memory is in use.
    #[inline]
    pub fn room(&self) -> u32 {
        if self.used() > self.limit() / 2 {
            TIGHT_RECEIVE
        } else {
            TURN_MEMORY
        }
    }

    /// Is so much in use, seven eighths, that no new peer should come in?
    pub fn is_full(&self) -> bool {
        self.used() > self.limit() / 8 * 7
    }

    /// Is so much less in use than there was, an eighth of the bound, that what is free should be returned to the kernel?
    /// Told once, until it has been.
    #[inline]
    pub fn has_fallen(&self) -> bool {
        let peak = self.peak.load(Ordering::Relaxed);
        self.used() + self.limit() / 8 < peak
            && !self.is_told.load(Ordering::Relaxed)
            && !self.is_told.swap(true, Ordering::Relaxed)
    }

    /// Has somebody been told that?
    pub fn is_to_be_returned(&self) -> bool {
        self.is_told.load(Ordering::Relaxed)
    }

    /// Returns to the kernel what is free. The allocator keeps it by itself: small blocks that are still in use lie
    /// between, and what needs larger ones finds no room there.
    pub fn return_free(&self) {
        self.peak.store(self.used(), Ordering::Relaxed);
        self.is_told.store(false, Ordering::Relaxed);
        sys::return_free_memory();
    }

    /// Takes `size` bytes of the memory, or nothing if they are not there.
    pub fn charge(self: &Arc<Memory>, size: usize) -> Option<Charge> {
        let mut charge = Charge::of_nothing(self);
        charge.resize(size).then_some(charge)
    }

    /// Takes `size` bytes, if with them no more than `most` are in use.
    fn take(&self, size: u64, most: u64) -> bool {
        let within = |used: u64| used.checked_add(size).filter(|all| *all <= most);
        let taken = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, within);
        if let Ok(before) = taken {
            self.peak.fetch_max(before + size, Ordering::Relaxed);
        }
        taken.is_ok()
    }
}

/// Bytes of a [`Memory`] that are kept for one who waits, until this is dropped.
#[derive(Debug)]
pub struct Promise(Arc<Memory>);

impl Drop for Promise {
    fn drop(&mut self) {
        self.0.promised.store(0, Ordering::Relaxed);
    }
}

/// Bytes taken of a [`Memory`], given back when dropped.
#[derive(Debug)]
pub struct Charge {
    size: u64,
    memory: Arc<Memory>,
}

impl Charge {
    /// One that counts nothing yet.
    pub fn of_nothing(memory: &Arc<Memory>) -> Charge {
        Charge {
            size: 0,
            memory: Arc::clone(memory),
        }
    }

    /// The bytes that it counts.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Has it count `size` bytes. `false`: they are not there, and it counts what it did.
    pub fn resize(&mut self, size: usize) -> bool {
        self.resize_within(size as u64, self.memory.limit())
    }

    /// The same; it grows only while no more than half of the memory is in use, with what is promised to others.
    pub fn resize_within_half(&mut self, size: usize, own: Option<&Promise>) -> bool {
        let promised = match own {
            Some(_) => 0,
            None => self.memory.promised.load(Ordering::Relaxed),
        };
        let half = self.memory.limit() / 2;
        self.resize_within(size as u64, half.saturating_sub(promised))
    }

    fn resize_within(&mut self, size: u64, most: u64) -> bool {
        match size.checked_sub(self.size) {
            Some(more) if more > 0 && !self.memory.take(more, most) => return false,
            Some(_) => {}
            None => {
                let less = self.size - size;
                self.memory.used.fetch_sub(less, Ordering::Relaxed);
            }
        }
        self.size = size;
        true
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.size, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_grows_as_far_as_there_is_memory_and_shrinks_at_will() {
        let memory = Memory::new(10);
        let mut charge = memory.charge(1).expect("one of ten fits");
        assert!(charge.resize_within_half(5, None) && !charge.resize_within_half(6, None));
        assert!(charge.resize(10) && !charge.resize(11));
        assert!(charge.resize_within_half(9, None), "less is always there");
        assert_eq!((charge.size(), memory.used()), (9, 9));
        memory.set_limit(5);
        assert!(charge.resize(9), "what there is stays");
        assert!(memory.charge(0).is_some() && memory.charge(1).is_none());
        drop(charge);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn what_is_promised_to_one_is_not_given_to_another() {
        let memory = Memory::new(20);
        let (mut one, mut other) = (Charge::of_nothing(&memory), Charge::of_nothing(&memory));
        assert!(memory.promise(11).is_none(), "the half has ten");
        let promise = memory.promise(6).expect("there is no other");
        assert!(memory.promise(1).is_none());
        assert!(other.resize_within_half(4, None) && !other.resize_within_half(5, None));
        assert!(one.resize_within_half(6, Some(&promise)));
        drop(promise);
        one.resize(5);
        assert!(other.resize_within_half(5, None));
        assert!(memory.promise(1).is_some());
    }

    #[test]
    fn a_fall_by_an_eighth_is_told_once_until_what_is_free_was_returned() {
        let memory = Memory::new(800);
        let mut charge = memory.charge(700).expect("there");
        charge.resize(600);
        assert!(!memory.has_fallen(), "a hundred are an eighth, and no more");
        charge.resize(599);
        assert!(memory.has_fallen() && !memory.has_fallen() && memory.is_to_be_returned());
        memory.return_free();
        assert!(!memory.has_fallen() && !memory.is_to_be_returned());
        charge.resize(400);
        assert!(memory.has_fallen());
    }

    #[test]
    fn memory_is_missed_while_somebody_asks_and_for_two_seconds_more() {
        let memory = Memory::new(10);
        assert!(!memory.is_missed(Tick(0)));
        memory.miss(Tick(0));
        assert!(memory.is_missed(Tick(2000)) && !memory.is_missed(Tick(2001)));
    }
}
