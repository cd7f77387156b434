//! What a listener asks of a peer that wants to come in: its bounds, with the counts, and its rules.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::access::Access;
use super::refusal::Warned;
use super::sources::Sources;
use crate::bucket::Rate;
use crate::config::SourcePrefix;

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

    /// The most there may be.
    pub fn max(&self) -> u32 {
        self.max.load(Ordering::Relaxed)
    }

    /// Connections now.
    pub fn live(&self) -> u32 {
        self.live.load(Ordering::Relaxed)
    }

    /// Counts one more, if the bound allows it.
    pub(super) fn take(&self) -> bool {
        let max = self.max();
        let more = |live: u32| (live < max).then(|| live + 1);
        self.live
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    /// Counts one more, whatever the bound.
    pub(super) fn force(&self) {
        self.live.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one less.
    pub(super) fn give_back(&self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The counts of one listener, for as long as it lives, whatever a reload makes of its bounds.
#[derive(Clone, Debug)]
pub struct Gate {
    /// All its connections.
    pub bound: Arc<Bound>,
    /// Those of each worker.
    pub workers: Arc<[Bound]>,
    /// Those of each source.
    pub sources: Arc<Sources>,
    /// Which of these bounds somebody was warned of.
    pub warned: Arc<Warned>,
}

impl Gate {
    /// For so many workers; nothing is bounded yet.
    pub fn new(workers: u16, prefix: SourcePrefix) -> Gate {
        Gate {
            bound: Arc::new(Bound::new(u32::MAX)),
            workers: (0..workers).map(|_| Bound::new(u32::MAX)).collect(),
            sources: Sources::new(prefix),
            warned: Arc::default(),
        }
    }

    /// The same, with another idea of a source: it counts those anew that come from now on.
    #[must_use]
    pub fn with_prefix(&self, prefix: SourcePrefix) -> Gate {
        let sources = match self.sources.prefix() == prefix {
            true => Arc::clone(&self.sources),
            false => Sources::new(prefix),
        };
        Gate {
            sources,
            ..self.clone()
        }
    }
}

/// What a listener asks of a peer that wants to come in, besides the bounds of its [`Gate`].
#[derive(Debug)]
pub struct Rules {
    /// By its address.
    pub access: Access,
    /// Who speaks for others, if anybody does.
    pub balancers: Option<Access>,
    /// A reload ends connections that it would not let in.
    pub reapply: bool,
    /// Most connections of one source.
    pub max_per_source: u32,
    /// New connections of one source.
    pub arrivals: Option<Rate>,
    /// Whoever is refused hears one line of text first.
    pub says_why: bool,
}

impl Rules {
    /// Does a peer with this address speak for others?
    pub fn is_balancer(&self, peer: IpAddr) -> bool {
        let balancers = self.balancers.as_ref();
        balancers.is_some_and(|balancers| balancers.allows(peer))
    }

    /// Everybody may come.
    pub fn open() -> Rules {
        Rules {
            access: Access::default(),
            balancers: None,
            reapply: false,
            max_per_source: u32::MAX,
            arrivals: None,
            says_why: false,
        }
    }
}
