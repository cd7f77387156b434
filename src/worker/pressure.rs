//! Is there so much to serve that it becomes strict?
//!
//! Pressure begins when there are more connections than `pressure.above` of `max_connections`, and ends a
//! tenth below that, so that it does not come and go with one peer. While it lasts, no source of a listener may
//! have more than its share; what it makes of the times is `Limits::under`. Shared by all workers.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::gate::Bound;
use crate::config;
use crate::tick::Tick;

/// Pressure ends when there are fewer connections than the mark less one in so many of it.
const RELIEF: u32 = 10;

/// A beginning is told of no more often.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// The mark, and whether it was passed.
#[derive(Debug)]
pub struct Pressure {
    /// More connections than this are too many; `u32::MAX`: never.
    mark: AtomicU32,
    max_per_source: AtomicU32,
    is_on: AtomicBool,
    entered: AtomicU64,
    /// When its beginning was last told of, and whether that of this time was.
    said: AtomicU64,
    is_told: AtomicBool,
}

impl Default for Pressure {
    fn default() -> Self {
        Pressure {
            mark: AtomicU32::new(u32::MAX),
            max_per_source: AtomicU32::new(u32::MAX),
            is_on: AtomicBool::new(false),
            entered: AtomicU64::new(0),
            said: AtomicU64::new(0),
            is_told: AtomicBool::new(false),
        }
    }
}

impl Pressure {
    /// Takes what the configuration says, of so many connections.
    pub fn adopt(&self, config: &config::Pressure, max_connections: u32) {
        let share = |share: Option<config::Share>| {
            share.map_or(u32::MAX, |share| share.of(max_connections))
        };
        self.mark.store(share(config.above), Relaxed);
        self.max_per_source
            .store(share(config.max_connections_per_source), Relaxed);
    }

    /// Is it on?
    pub fn is_on(&self) -> bool {
        self.is_on.load(Relaxed)
    }

    /// How often it has begun.
    pub fn entered(&self) -> u64 {
        self.entered.load(Relaxed)
    }

    /// Most connections of one source at a listener now.
    pub fn max_per_source(&self) -> u32 {
        match self.is_on() {
            true => self.max_per_source.load(Relaxed),
            false => u32::MAX,
        }
    }

    /// Looks at the number of connections: has it begun by this, or ended? Whoever is answered has all workers
    /// told.
    pub fn judge(&self, all: &Bound) -> Option<bool> {
        let before = self.is_on();
        // What another worker saw meanwhile may be older than what is so now.
        loop {
            let (live, mark) = (all.live(), self.mark.load(Relaxed));
            let was_on = self.is_on();
            let is_on = match was_on {
                true => live > mark - mark / RELIEF,
                false => live > mark,
            };
            if is_on == was_on {
                return None;
            }
            let swapped = self.is_on.compare_exchange(was_on, is_on, Relaxed, Relaxed);
            if swapped.is_ok() && is_on {
                self.entered.fetch_add(1, Relaxed);
            }
            if swapped.is_ok() && is_on != before {
                return Some(is_on);
            }
        }
    }

    /// Is this worth a line? Pressure that comes and goes is told of every ten seconds, and counted.
    pub fn is_worth_a_line(&self, is_on: bool, now: Tick) -> bool {
        if is_on {
            let due =
                |said: u64| (said == 0 || now >= Tick(said) + TELL_EVERY).then_some(now.0.max(1));
            let due = self.said.fetch_update(Relaxed, Relaxed, due).is_ok();
            self.is_told.store(due, Relaxed);
            return due;
        }
        // Who heard of the beginning hears of the end.
        self.is_told.swap(false, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Share};

    fn pressure(above: Option<Share>) -> Pressure {
        let config = config::Pressure {
            above,
            ..Config::defaults().pressure
        };
        let pressure = Pressure::default();
        pressure.adopt(&config, 100);
        pressure
    }

    /// A bound with so many connections.
    fn live(count: u32) -> Bound {
        let bound = Bound::new(u32::MAX);
        for _ in 0..count {
            bound.force();
        }
        bound
    }

    #[test]
    fn it_begins_one_past_the_mark_and_ends_a_tenth_below() {
        let pressure = pressure(Some(Share(90)));
        assert_eq!(pressure.judge(&live(90)), None);
        assert_eq!(pressure.max_per_source(), u32::MAX, "never before");
        assert_eq!(pressure.judge(&live(91)), Some(true));
        assert_eq!(pressure.judge(&live(91)), None, "it is told once");
        assert_eq!((pressure.max_per_source(), pressure.entered()), (1, 1));
        assert_eq!(pressure.judge(&live(82)), None);
        assert_eq!(pressure.judge(&live(81)), Some(false));
        assert_eq!((pressure.is_on(), pressure.entered()), (false, 1));
    }

    #[test]
    fn what_comes_and_goes_is_told_of_now_and_then_and_an_end_only_after_its_beginning() {
        let pressure = pressure(None);
        assert!(pressure.is_worth_a_line(true, Tick(1)));
        assert!(pressure.is_worth_a_line(false, Tick(2)));
        assert!(!pressure.is_worth_a_line(true, Tick(3)));
        assert!(!pressure.is_worth_a_line(false, Tick(4)));
        assert!(pressure.is_worth_a_line(true, Tick(10_001)));
    }

    #[test]
    fn it_is_off_where_the_configuration_says_so_and_ends_where_it_says_so_now() {
        let off = pressure(None);
        assert_eq!(off.judge(&live(100)), None);
        let on = pressure(Some(Share(50)));
        assert_eq!(on.judge(&live(100)), Some(true));
        let config = config::Pressure {
            above: None,
            ..Config::defaults().pressure
        };
        on.adopt(&config, 100);
        assert_eq!(on.judge(&live(100)), Some(false));
    }
}
