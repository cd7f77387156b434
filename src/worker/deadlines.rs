//! The next deadline, and the ones that passed: a timing wheel over the places of the table.
//!
//! Four levels of 64 slots, the first of [`GRAIN`] milliseconds each, every further one 64 times as
//! wide: 1 s, 66 s, 70 min and 3 days. A timer is never moved when its connection does something: a
//! slot that is due yields its places, the worker asks each for its true deadline, and puts it back
//! if that is later. That is also how a place comes down from a wide level to a narrow one, and how
//! deadlines beyond three days are kept. Invariant: no place is linked in a slot that begins before
//! the cursor.

use crate::driver::PLACES;
use crate::tick::Tick;

/// Width of the first level's slots, in milliseconds: how late a deadline may be judged.
pub const GRAIN: u64 = 16;

const LEVELS: usize = 4;
const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;

/// The place that is none: the end of a list, or not linked.
const NONE: u32 = u32::MAX;
const UNLINKED: u16 = u16::MAX;

#[derive(Clone, Copy, Debug)]
struct Link {
    next: u32,
    prev: u32,
    slot: u16,
}

/// Deadlines of places, one each.
#[derive(Debug)]
pub struct Deadlines {
    links: Vec<Link>,
    heads: [u32; LEVELS * SLOTS],
    /// A bit for each slot that has a place.
    occupied: [u64; LEVELS],
    /// The time up to which all is judged, in grains.
    cursor: u64,
    /// Nothing is due before this, in grains: mostly all that a turn has to look at.
    quiet_until: u64,
}

impl Deadlines {
    /// No deadlines, at the time `now`.
    pub fn new(now: Tick) -> Deadlines {
        Deadlines {
            links: Vec::with_capacity(PLACES),
            heads: [NONE; LEVELS * SLOTS],
            occupied: [0; LEVELS],
            cursor: now.0 / GRAIN,
            quiet_until: u64::MAX,
        }
    }

    /// Sets the deadline of a place, instead of the one that it had.
    pub fn set(&mut self, place: u32, deadline: Tick) {
        self.clear(place);
        if deadline == Tick::NEVER {
            return;
        }
        if self.links.len() <= place as usize {
            self.links.resize(
                place as usize + 1,
                Link {
                    next: NONE,
                    prev: NONE,
                    slot: UNLINKED,
                },
            );
        }
        let (slot, begins) = self.slot_of(deadline);
        self.quiet_until = self.quiet_until.min(begins);
        let next = self.heads[slot];
        self.links[place as usize] = Link {
            next,
            prev: NONE,
            slot: u16::try_from(slot).unwrap_or(UNLINKED),
        };
        if next != NONE {
            self.links[next as usize].prev = place;
        }
        self.heads[slot] = place;
        self.occupied[slot / SLOTS] |= 1 << (slot % SLOTS);
    }

    /// Forgets the deadline of a place.
    pub fn clear(&mut self, place: u32) {
        let Some(link) = self.links.get_mut(place as usize) else {
            return;
        };
        let Link { next, prev, slot } = *link;
        if slot == UNLINKED {
            return;
        }
        link.slot = UNLINKED;
        if next != NONE {
            self.links[next as usize].prev = prev;
        }
        if prev != NONE {
            self.links[prev as usize].next = next;
        } else {
            self.heads[slot as usize] = next;
            if next == NONE {
                self.occupied[slot as usize / SLOTS] &= !(1 << (slot as usize % SLOTS));
            }
        }
    }

    /// A place whose deadline may have passed, and is forgotten by this; `None` when there is no more.
    #[inline]
    pub fn pop(&mut self, now: Tick) -> Option<u32> {
        let now = now.0 / GRAIN;
        if now < self.quiet_until {
            self.cursor = self.cursor.max(now);
            return None;
        }
        self.pop_due(now)
    }

    #[cold]
    fn pop_due(&mut self, now: u64) -> Option<u32> {
        match self.earliest() {
            Some((due, slot)) if due <= now => {
                self.cursor = due;
                let place = self.heads[slot];
                self.clear(place);
                Some(place)
            }
            later => {
                self.cursor = self.cursor.max(now);
                self.quiet_until = later.map_or(u64::MAX, |(due, _)| due);
                None
            }
        }
    }

    /// When [`Deadlines::pop`] may have something; never if there are no deadlines.
    #[inline]
    pub fn next(&self) -> Tick {
        Tick(self.quiet_until.saturating_mul(GRAIN))
    }

    /// The slot for a deadline, and when it begins: in the narrowest level that reaches so far, rounded
    /// up in the first, so that nothing is judged early there.
    fn slot_of(&self, deadline: Tick) -> (usize, u64) {
        let target = deadline.0.div_ceil(GRAIN).max(self.cursor);
        for level in 0..LEVELS {
            let shift = shift(level);
            if (target >> shift) - (self.cursor >> shift) < SLOTS as u64 {
                return (index(level, target >> shift), target >> shift << shift);
            }
        }
        let shift = shift(LEVELS - 1);
        let number = (self.cursor >> shift) + SLOTS as u64 - 1;
        (index(LEVELS - 1, number), number << shift)
    }

    /// The first slot that has a place, and when it begins.
    #[allow(clippy::cast_possible_truncation)] // `here` is taken modulo 64
    fn earliest(&self) -> Option<(u64, usize)> {
        (0..LEVELS)
            .filter(|&level| self.occupied[level] != 0)
            .map(|level| {
                let shift = shift(level);
                let here = self.cursor >> shift;
                let turned = self.occupied[level].rotate_right(here as u32 % SLOTS as u32);
                let ahead = turned.trailing_zeros();
                let number = here + u64::from(ahead);
                ((number << shift).max(self.cursor), index(level, number))
            })
            .min()
    }
}

/// The bits of a time in grains that a slot of this level does not tell apart.
fn shift(level: usize) -> u32 {
    (0..level).map(|_| BITS).sum()
}

/// Where the slot with this number of this level stands.
#[allow(clippy::cast_possible_truncation)] // taken modulo 64
fn index(level: usize, number: u64) -> usize {
    level * SLOTS + (number % SLOTS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Runs the wheel as the worker does and answers when each place was judged to be over.
    fn run(deadlines: &[(u32, u64)], step: u64, end: u64) -> BTreeMap<u32, u64> {
        let wanted: BTreeMap<u32, u64> = deadlines.iter().copied().collect();
        let mut wheel = Deadlines::new(Tick(0));
        for (&place, &at) in &wanted {
            wheel.set(place, Tick(at));
        }
        let (mut over, mut now) = (BTreeMap::new(), 0);
        while now < end {
            now = (now + step).max(wheel.next().0.min(end));
            while let Some(place) = wheel.pop(Tick(now)) {
                if wanted[&place] <= now {
                    over.insert(place, now);
                } else {
                    wheel.set(place, Tick(wanted[&place]));
                }
            }
        }
        over
    }

    #[test]
    fn each_deadline_is_judged_within_a_grain_however_far_away() {
        let day = 24 * 3600 * 1000;
        let times = [
            1,
            15,
            16,
            17,
            1000,
            1024,
            1025,
            65_535,
            65_536,
            4_194_304,
            3_600_000,
            day,
            5 * day,
        ];
        let wanted: Vec<_> = (0..).zip(times).collect();
        let over = run(&wanted, 1, 6 * day);
        for (place, at) in wanted {
            let judged = over[&place];
            assert!(
                (at..=at + GRAIN).contains(&judged),
                "{at} was judged at {judged}"
            );
        }
    }

    #[test]
    fn a_clock_that_jumps_finds_all_that_passed() {
        let wanted: Vec<_> = (0..500)
            .map(|place| (place, u64::from(place) * 977))
            .collect();
        assert_eq!(run(&wanted, 100_000, 600_000).len(), 500);
    }

    #[test]
    fn a_deadline_that_was_replaced_or_cleared_is_forgotten() {
        let mut wheel = Deadlines::new(Tick(1000));
        for place in 0..3 {
            wheel.set(place, Tick(2000));
        }
        wheel.clear(1);
        wheel.set(2, Tick::NEVER);
        wheel.set(0, Tick(5000));
        assert_eq!(wheel.pop(Tick(4000)), None);
        assert_eq!(wheel.pop(Tick(5020)), Some(0));
        assert_eq!(
            (wheel.pop(Tick(1 << 40)), wheel.next()),
            (None, Tick::NEVER)
        );
    }

    #[test]
    fn without_deadlines_there_is_nothing_to_wake_for() {
        assert_eq!(Deadlines::new(Tick(7)).next(), Tick::NEVER);
    }
}
