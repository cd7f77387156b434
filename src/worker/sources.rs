//! The sources of a listener's peers: how many connections each has, and what its rates have left.
//!
//! A source is an address up to its `source_prefix`. One with a connection always has its place: there are as
//! many places as connections. One without is remembered only while a rate of it is not back to full, since a full one says
//! no more than a new one; of those at most [`IDLE_MAX`] are kept, and the one that has been idle longest goes
//! first. Hashed with a key that is drawn at each start, so that nobody can choose colliding addresses.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashSet};
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::bucket::{Bucket, Rate};
use crate::config::SourcePrefix;
use crate::tick::Tick;

/// Most sources of a listener that have no connection and are remembered for their rates.
pub const IDLE_MAX: usize = 16_384;

/// What one source takes of memory: itself, its place in the table and in the order of the idle.
pub const SOURCE_MEMORY: u64 = 250;

/// One source, held by each of its connections.
#[derive(Debug)]
pub struct Source {
    prefix: IpAddr,
    home: Weak<Sources>,
    /// Its connections. Changed with the table locked, as is the next.
    live: AtomicU32,
    /// Where it stands among the idle; 0: it is none of them.
    idle: AtomicU64,
    /// New connections.
    arrivals: Bucket,
    /// Bytes of all its connections.
    pub bytes: Bucket,
}

/// A source in the table, found by its prefix.
#[derive(Debug)]
struct Place(Arc<Source>);

impl Borrow<IpAddr> for Place {
    fn borrow(&self) -> &IpAddr {
        &self.0.prefix
    }
}

impl Hash for Place {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.prefix.hash(state);
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Place) -> bool {
        self.0.prefix == other.0.prefix
    }
}

impl Eq for Place {}

/// Why a peer of a source may not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// It has as many connections as it may have.
    Connections,
    /// It has opened too many of late.
    Rate,
}

/// All sources of one listener.
#[derive(Debug)]
pub struct Sources {
    prefix: SourcePrefix,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    places: HashSet<Place>,
    /// The sources without a connection, by when their last one ended.
    idle: BTreeMap<u64, IpAddr>,
    /// How often one became idle.
    ended: u64,
}

impl Sources {
    /// No sources yet; so many bits of an address are one.
    pub fn new(prefix: SourcePrefix) -> Arc<Sources> {
        Arc::new(Sources {
            prefix,
            table: Mutex::default(),
        })
    }

    /// What counts as one source.
    pub fn prefix(&self) -> SourcePrefix {
        self.prefix
    }

    /// Counts a peer in, if its source has fewer than `max` connections and a token of the rate.
    ///
    /// # Errors
    /// Which of both it has not.
    pub fn enter(
        self: &Arc<Sources>,
        peer: IpAddr,
        max: u32,
        rate: Option<Rate>,
        now: Tick,
    ) -> Result<Arc<Source>, Denial> {
        let prefix = prefix_of(peer, self.prefix);
        let mut table = self.table();
        let source = match table.places.get(&prefix) {
            Some(place) => Arc::clone(&place.0),
            None => Arc::new(Source {
                prefix,
                home: Arc::downgrade(self),
                live: AtomicU32::new(0),
                idle: AtomicU64::new(0),
                arrivals: Bucket::default(),
                bytes: Bucket::default(),
            }),
        };
        let live = source.live.load(Relaxed);
        if live >= max {
            return Err(Denial::Connections);
        }
        if rate.is_some_and(|rate| !source.arrivals.take(rate, 0, now)) {
            return Err(Denial::Rate);
        }
        source.live.store(live + 1, Relaxed);
        table.idle.remove(&source.idle.swap(0, Relaxed));
        table.places.insert(Place(Arc::clone(&source)));
        Ok(source)
    }

    fn leave(&self, source: &Source, now: Tick) {
        let mut table = self.table();
        let live = source.live.load(Relaxed) - 1;
        source.live.store(live, Relaxed);
        if live > 0 {
            return;
        }
        if source.is_forgettable(now) {
            table.places.remove(&source.prefix);
        } else {
            table.ended += 1;
            let number = table.ended;
            source.idle.store(number, Relaxed);
            table.idle.insert(number, source.prefix);
        }
        table.forget_idle(now);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Forgets the longest idle, as far as they say nothing any more or are too many.
    fn forget_idle(&mut self, now: Tick) {
        while let Some(first) = self.idle.first_entry() {
            let prefix = *first.get();
            let says_nothing = self
                .places
                .get(&prefix)
                .is_none_or(|place| place.0.is_forgettable(now));
            if !says_nothing && self.idle.len() <= IDLE_MAX {
                return;
            }
            self.idle.pop_first();
            self.places.remove(&prefix);
        }
    }
}

impl Source {
    /// One that nobody else is of: whoever brings no address is counted for none.
    pub fn alone(peer: IpAddr) -> Arc<Source> {
        Arc::new(Source {
            prefix: peer,
            home: Weak::new(),
            live: AtomicU32::new(0),
            idle: AtomicU64::new(0),
            arrivals: Bucket::default(),
            bytes: Bucket::default(),
        })
    }

    /// Counts one of its connections no longer.
    pub fn leave(&self, now: Tick) {
        // Its listener may be gone, and nobody counts for it then.
        if let Some(home) = self.home.upgrade() {
            home.leave(self, now);
        }
    }

    fn is_forgettable(&self, now: Tick) -> bool {
        self.arrivals.is_full(now) && self.bytes.is_full(now)
    }
}

/// The first bits of an address, the rest zero.
fn prefix_of(peer: IpAddr, prefix: SourcePrefix) -> IpAddr {
    match peer {
        IpAddr::V4(peer) => {
            let rest = 32 - u32::from(prefix.ipv4.min(32));
            let bits = peer.to_bits().checked_shr(rest).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(bits.checked_shl(rest).unwrap_or(0)))
        }
        IpAddr::V6(peer) => {
            let rest = 128 - u32::from(prefix.ipv6.min(128));
            let bits = peer.to_bits().checked_shr(rest).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(bits.checked_shl(rest).unwrap_or(0)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::Duration;

    use crate::config::ConnectionRate;

    const NOW: Tick = Tick(1_000_000);
    const ANY: u32 = u32::MAX;

    fn sources() -> Arc<Sources> {
        Sources::new(SourcePrefix { ipv4: 32, ipv6: 64 })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// One a second, two at once.
    fn slow() -> Option<Rate> {
        let per = Duration::from_secs(1);
        Some(Rate::from(ConnectionRate {
            count: 1,
            per,
            burst: 2,
        }))
    }

    fn known(sources: &Sources) -> (usize, usize) {
        let table = sources.table();
        (table.places.len(), table.idle.len())
    }

    #[test]
    fn a_source_is_what_its_prefix_says() {
        for (ipv4, ipv6, one, other, same) in [
            (32, 64, "192.0.2.1", "192.0.2.2", false),
            (24, 64, "192.0.2.1", "192.0.2.2", true),
            (32, 64, "2001:db8::1", "2001:db8::2", true),
            (32, 64, "2001:db8:0:1::1", "2001:db8::1", false),
            (32, 128, "2001:db8::1", "2001:db8::2", false),
            (1, 1, "127.0.0.1", "1.2.3.4", true),
        ] {
            let prefix = SourcePrefix { ipv4, ipv6 };
            let is_same = prefix_of(ip(one), prefix) == prefix_of(ip(other), prefix);
            assert_eq!(is_same, same, "{one} {other}");
        }
    }

    #[test]
    fn the_connection_past_the_bound_is_denied_until_one_ends() {
        let sources = sources();
        let one = sources.enter(ip("192.0.2.1"), 2, None, NOW).expect("one");
        sources.enter(ip("192.0.2.1"), 2, None, NOW).expect("two");
        let third = sources.enter(ip("192.0.2.1"), 2, None, NOW);
        assert_eq!(third.err(), Some(Denial::Connections));
        sources
            .enter(ip("192.0.2.2"), 2, None, NOW)
            .expect("another source");
        one.leave(NOW);
        sources.enter(ip("192.0.2.1"), 2, None, NOW).expect("again");
    }

    #[test]
    fn a_source_that_left_nothing_behind_is_forgotten() {
        let sources = sources();
        let one = sources.enter(ip("192.0.2.1"), ANY, None, NOW).expect("one");
        assert_eq!(known(&sources), (1, 0));
        one.leave(NOW);
        assert_eq!(known(&sources), (0, 0));
    }

    #[test]
    fn one_that_comes_again_too_soon_is_denied_though_it_has_no_connection() {
        let sources = sources();
        for _ in 0..2 {
            sources
                .enter(ip("192.0.2.1"), ANY, slow(), NOW)
                .expect("two at once")
                .leave(NOW);
        }
        assert_eq!(known(&sources), (1, 1));
        let soon = sources.enter(ip("192.0.2.1"), ANY, slow(), NOW);
        assert_eq!(soon.err(), Some(Denial::Rate));
        let later = Tick(NOW.0 + 1000);
        let again = sources
            .enter(ip("192.0.2.1"), ANY, slow(), later)
            .expect("a token");
        assert_eq!(known(&sources), (1, 0));
        again.leave(Tick(NOW.0 + 10_000));
        assert_eq!(known(&sources), (0, 0), "its bucket is full again");
    }

    #[test]
    fn of_the_idle_the_oldest_goes_and_whoever_is_connected_stays() {
        let sources = sources();
        let number = |n: u32| IpAddr::V4(Ipv4Addr::from_bits(n));
        let live = sources.enter(number(0), ANY, slow(), NOW).expect("live");
        for n in 1..=u32::try_from(IDLE_MAX).expect("small") + 1 {
            let source = sources.enter(number(n), ANY, slow(), NOW).expect("new");
            source.leave(NOW);
        }
        assert_eq!(known(&sources), (IDLE_MAX + 1, IDLE_MAX));
        let table = sources.table();
        assert!(table.places.contains(&number(0)));
        assert!(!table.places.contains(&number(1)), "the oldest");
        assert!(table.places.contains(&number(2)));
        drop((table, live));
    }

    #[test]
    fn the_bound_is_exact_when_many_ask_at_once() {
        let sources = sources();
        let entered: usize = thread::scope(|scope| {
            let ask = || {
                let enter = || sources.enter(ip("2001:db8::1"), 100, None, NOW).is_ok();
                (0..200).filter(|_| enter()).count()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            let counts = threads.into_iter().map(|t| t.join().expect("no panic"));
            counts.sum()
        });
        assert_eq!(entered, 100);
    }

    #[test]
    fn a_source_outlives_the_table_that_it_was_counted_in() {
        let sources = sources();
        let one = sources.enter(ip("192.0.2.1"), 1, None, NOW).expect("one");
        drop(sources);
        one.leave(NOW);
    }
}
