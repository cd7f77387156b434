//! What was not written one by one: how many connections for each reason, and the busiest source. Pure.
//!
//! Sources are counted by the algorithm of Misra and Gries in a table of fixed size, so that no flood
//! of addresses makes it grow. The overflow rule: when a new prefix finds the table full, every count
//! is lowered by what the smallest of them (or the newcomer) has, and whoever is left with nothing goes.
//! A prefix's count is therefore never too high, and too low by at most the total divided by
//! `SOURCES_MAX + 1`: any source with more than that share is in the table.

use super::event::Event;
use super::kind;
use super::record::Prefix;
use crate::connection::Reason;

/// Most source prefixes that are told apart.
pub const SOURCES_MAX: usize = 64;

/// Counts of ended connections, small enough to be kept by each worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// By the reason's place in [`Reason::ALL`].
    reasons: [u64; Reason::ALL.len()],
    /// No prefix twice, no count zero, at most `SOURCES_MAX`.
    sources: Vec<(Prefix, u64)>,
}

impl Summary {
    /// Of nothing yet; all the memory that it will ever have.
    pub fn new() -> Summary {
        Summary {
            sources: Vec::with_capacity(SOURCES_MAX),
            ..Summary::default()
        }
    }

    /// Has it counted nothing?
    pub fn is_empty(&self) -> bool {
        self.reasons.iter().all(|&count| count == 0)
    }

    /// One connection more.
    pub fn count(&mut self, source: Prefix, reason: Reason) {
        self.reasons[reason as usize] += 1;
        self.add(source, 1);
    }

    /// All that another has counted.
    pub fn merge(&mut self, other: &Summary) {
        for (sum, count) in self.reasons.iter_mut().zip(other.reasons) {
            *sum += count;
        }
        for &(source, count) in &other.sources {
            self.add(source, count);
        }
    }

    /// What was counted; nothing is left.
    #[must_use]
    pub fn take(&mut self) -> Summary {
        std::mem::replace(self, Summary::new())
    }

    /// The prefix with the most connections, and how many it had at least.
    pub fn busiest(&self) -> Option<(Prefix, u64)> {
        self.sources
            .iter()
            .copied()
            .max_by_key(|&(source, count)| (count, std::cmp::Reverse(source)))
    }

    /// What it says: reasons that occurred, then the busiest source.
    pub fn event(&self) -> Event {
        let mut event = Event::of(&kind::RECORD_SUMMARY);
        for (reason, &count) in Reason::ALL.iter().zip(&self.reasons) {
            if count > 0 {
                event = event.with(reason.word(), count);
            }
        }
        match self.busiest() {
            None => event,
            Some((source, count)) => event.with("busiest", source).with("busiest_count", count),
        }
    }

    fn add(&mut self, source: Prefix, mut count: u64) {
        if let Some((_, sum)) = self.sources.iter_mut().find(|(known, _)| *known == source) {
            *sum += count;
            return;
        }
        // Lowering by the smallest empties a place, unless the newcomer itself was the smallest.
        if self.sources.len() == SOURCES_MAX {
            let least = self
                .sources
                .iter()
                .map(|&(_, sum)| sum)
                .min()
                .unwrap_or(0)
                .min(count);
            self.sources.retain_mut(|(_, sum)| {
                *sum -= least;
                *sum > 0
            });
            count -= least;
        }
        if count > 0 {
            self.sources.push((source, count));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logging::format::line;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::net::Ipv4Addr;

    fn source(number: u32) -> Prefix {
        Prefix::of(Ipv4Addr::from_bits(0xc000_0200 + number).into())
    }

    #[test]
    fn it_says_the_reasons_that_occurred_and_the_busiest_source() {
        let mut summary = Summary::new();
        for _ in 0..790 {
            summary.count(source(1), Reason::Done);
        }
        for number in 0..22 {
            summary.count(source(2 + number), Reason::Done);
        }
        for _ in 0..3 {
            summary.count(source(2), Reason::Reset);
        }
        assert_eq!(
            line(&summary.event()),
            "connections ended, not recorded one by one done=812 reset=3 busiest=192.0.2.1/32 \
             busiest_count=790"
        );
    }

    #[test]
    fn taking_leaves_nothing_and_merging_gives_it_back() {
        let mut summary = Summary::new();
        summary.count(source(1), Reason::Full);
        summary.count(source(2), Reason::Idle);
        let taken = summary.take();
        assert!(summary.is_empty());
        assert_eq!(summary.busiest(), None);
        summary.merge(&taken);
        assert_eq!(summary, taken);
        assert!(!taken.is_empty());
    }

    #[test]
    fn one_prefix_past_the_bound_lowers_all_and_the_table_does_not_grow() {
        let mut summary = Summary::new();
        for number in (0..).take(SOURCES_MAX) {
            summary.count(source(number), Reason::Done);
            summary.count(source(number), Reason::Done);
        }
        summary.count(source(1000), Reason::Done);
        assert_eq!(summary.sources.len(), SOURCES_MAX);
        assert!(summary.sources.iter().all(|&(_, count)| count == 1));
        summary.count(source(1001), Reason::Done);
        assert!(summary.sources.is_empty());
        assert_eq!(
            summary.reasons[Reason::Done as usize],
            2 * SOURCES_MAX as u64 + 2
        );
    }

    proptest! {
        #[test]
        fn counts_are_never_too_high_and_too_low_by_a_bounded_share_even_merged(
            parts in prop::collection::vec(prop::collection::vec(0u32..200, 0..400), 1..5),
        ) {
            let mut truth: HashMap<Prefix, u64> = HashMap::new();
            let mut all = Summary::new();
            for part in &parts {
                let mut summary = Summary::new();
                for &number in part {
                    // Squared, so that a few are busy.
                    let source = source(number * number / 300);
                    summary.count(source, Reason::Done);
                    *truth.entry(source).or_default() += 1;
                }
                all.merge(&summary.take());
            }
            let total: u64 = truth.values().sum();
            prop_assert_eq!(all.reasons[Reason::Done as usize], total);
            prop_assert!(all.sources.len() <= SOURCES_MAX);
            for (source, count) in truth {
                let said = all.sources.iter().find(|(known, _)| *known == source).map_or(0, |s| s.1);
                prop_assert!(said <= count);
                prop_assert!(count - said <= total / (SOURCES_MAX as u64 + 1));
            }
        }
    }
}
