//! May this peer come in, and which worker serves it?
//!
//! Owns the counts that hold across workers: connections in all, of each listener, of each of its sources, and of each
//! worker. Accepts and closes nothing itself: the worker asks, this answers, the worker acts. A count is
//! taken only if its bound allows it, in one step, so that the bounds are exact however many workers ask at
//! once; a peer that one bound refuses is counted by none. Invariant: admitted - released = connections that have not been
//! sent our FIN.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::gate::{Bound, Gate, Rules};
use super::pressure::Pressure;
use super::refusal::{Full, Refusal, Seldom, Warned};
use super::sources::{Denial, Source};
use crate::buffer::Memory;
use crate::connection::Reason;
use crate::tick::Tick;

/// A worker keeps a peer that it accepted unless it has this many more than the least busy worker, and
/// one in [`SLACK_SHARE`] of its own: passing it on costs two system calls.
const SLACK: u32 = 2;
const SLACK_SHARE: u32 = 32;

/// The bounds on all workers together, and how many connections each worker has.
#[derive(Debug)]
pub struct Admission {
    all: Bound,
    /// Connections that have our FIN, for a while, and are counted for nothing else.
    parting: Bound,
    workers: Box<[Load]>,
    pressure: Pressure,
    warned: Warned,
    warned_of_pause: Seldom,
}

/// Connections of one worker, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Load(AtomicU32);

/// A peer that was let in: where, and what it counts for.
#[derive(Debug)]
pub struct Admitted {
    /// The worker that serves it.
    pub worker: u16,
    /// Its source.
    pub source: Arc<Source>,
    /// It has to say for whom it speaks, see [`Admission::identify`].
    pub is_balancer: bool,
}

impl Admission {
    /// For so many workers, and at most `max` connections of all of them.
    pub fn new(workers: u16, max: u32) -> Admission {
        let workers = (0..workers).map(|_| Load::default()).collect();
        Admission {
            all: Bound::new(max),
            parting: Bound::new(0),
            workers,
            pressure: Pressure::default(),
            warned: Warned::default(),
            warned_of_pause: Seldom::default(),
        }
    }

    /// The bound on all connections.
    pub fn all(&self) -> &Bound {
        &self.all
    }

    /// The bound on connections that have our FIN.
    pub fn parting(&self) -> &Bound {
        &self.parting
    }

    /// May a connection that gets our FIN now be released before it is gone, so that its peer can come back at
    /// once? If there are too many such, it counts as before until it is gone.
    pub fn begin_parting(&self) -> bool {
        self.parting.take()
    }

    /// One that was is gone.
    pub fn end_parting(&self) {
        self.parting.give_back();
    }

    /// Looks whether pressure has begun or ended; whoever is answered tells all workers.
    pub fn judge(&self) -> Option<bool> {
        self.pressure.judge(&self.all)
    }

    /// What is strict when there are many connections.
    pub fn pressure(&self) -> &Pressure {
        &self.pressure
    }

    /// Counts a peer in and finds it a worker, or says what refuses it. `own`: the worker that accepted it.
    ///
    /// # Errors
    /// The first bound that is reached: access, the memory, the daemon's, the listener's, its source's, its workers'.
    /// Of a balancer neither access nor its source is asked: these are for those for whom it speaks.
    pub fn admit(
        &self,
        (gate, rules): (&Gate, &Rules),
        peer: IpAddr,
        memory: &Memory,
        own: u16,
        now: Tick,
    ) -> Result<Admitted, Refusal> {
        if !rules.is_balancer(peer) && !rules.access.allows(peer) {
            return Err(Refusal {
                reason: Reason::Denied,
                warn: None,
            });
        }
        if memory.is_full() {
            return Err(self.warned.refusal(Full::Memory, Some(memory.limit()), now));
        }
        if !self.all.take() {
            return Err(self
                .warned
                .refusal(Full::All, Some(self.all.max().into()), now));
        }
        let admitted = self.admit_by(gate, rules, peer, own, now);
        if admitted.is_err() {
            self.all.give_back();
        }
        admitted
    }

    /// By the bounds of its listener.
    fn admit_by(
        &self,
        gate: &Gate,
        rules: &Rules,
        peer: IpAddr,
        own: u16,
        now: Tick,
    ) -> Result<Admitted, Refusal> {
        if !gate.bound.take() {
            return Err(gate
                .warned
                .refusal(Full::Listener, Some(gate.bound.max().into()), now));
        }
        let admitted = self.admit_from(gate, rules, peer, own, now);
        if admitted.is_err() {
            gate.bound.give_back();
        }
        admitted
    }

    /// By the bounds of its source, and where there is a worker with room.
    fn admit_from(
        &self,
        gate: &Gate,
        rules: &Rules,
        peer: IpAddr,
        own: u16,
        now: Tick,
    ) -> Result<Admitted, Refusal> {
        let is_balancer = rules.is_balancer(peer);
        let source = match is_balancer {
            true => Source::alone(peer),
            false => self.enter(gate, rules, peer, now)?,
        };
        match self.place(own, &gate.workers) {
            Some(worker) => Ok(Admitted {
                worker,
                source,
                is_balancer,
            }),
            None => {
                source.leave(now);
                let max = gate.workers.first().map(|bound| bound.max().into());
                Err(gate.warned.refusal(Full::Worker, max, now))
            }
        }
    }

    /// Counts a peer that a balancer speaks for, and that was let in as the balancer's, for its source.
    ///
    /// # Errors
    /// What refuses it: access, or a bound of its source.
    pub fn identify(
        &self,
        (gate, rules): (&Gate, &Rules),
        peer: IpAddr,
        now: Tick,
    ) -> Result<Arc<Source>, Refusal> {
        if !rules.access.allows(peer) {
            return Err(Refusal {
                reason: Reason::Denied,
                warn: None,
            });
        }
        self.enter(gate, rules, peer, now)
    }

    /// By the bounds of its source.
    fn enter(
        &self,
        gate: &Gate,
        rules: &Rules,
        peer: IpAddr,
        now: Tick,
    ) -> Result<Arc<Source>, Refusal> {
        let pressed = self.pressure.max_per_source();
        let max = rules.max_per_source.min(pressed);
        let source = gate.sources.enter(peer, max, rules.arrivals, now);
        source.map_err(|denial| match denial {
            Denial::Rate => Refusal {
                reason: Reason::Rate,
                ..gate.warned.refusal(Full::Rate, None, now)
            },
            Denial::Connections if pressed < rules.max_per_source => {
                gate.warned
                    .refusal(Full::PressedSource, Some(pressed.into()), now)
            }
            Denial::Connections => gate.warned.refusal(Full::Source, Some(max.into()), now),
        })
    }

    /// Is it time to warn that accepting pauses?
    pub fn warn_of_pause(&self, now: Tick) -> bool {
        self.warned_of_pause.due(now)
    }

    /// Gives back what [`Admission::admit`] took for a connection that `worker` serves, but its place there.
    pub fn release(&self, gate: &Gate, source: &Source, worker: u16, now: Tick) {
        source.leave(now);
        gate.workers[worker as usize].give_back();
        gate.bound.give_back();
        self.all.give_back();
    }

    /// Chooses the worker for a peer that worker `own` accepted, and counts it there: `own`, unless it
    /// is ahead of the least busy one, or has as many of the listener as it may have. The kernel wakes whom
    /// it likes, which is mostly the same one.
    fn place(&self, own: u16, bounds: &[Bound]) -> Option<u16> {
        let mine = self.load(own);
        let least = (0..self.count())
            .min_by_key(|&worker| self.load(worker))
            .unwrap_or(own);
        let first = if mine > self.load(least) + SLACK + mine / SLACK_SHARE {
            least
        } else {
            own
        };
        let chosen = if bounds[first as usize].take() {
            Some(first)
        } else {
            let mut others: Vec<u16> = (0..self.count()).collect();
            others.sort_by_key(|&worker| self.load(worker));
            others
                .into_iter()
                .find(|&worker| bounds[worker as usize].take())
        };
        let chosen = chosen?;
        self.workers[chosen as usize]
            .0
            .fetch_add(1, Ordering::Relaxed);
        Some(chosen)
    }

    /// Counts a peer for worker `to` that worker `from` was to serve and cannot, whatever the bounds.
    pub fn move_over(&self, gate: &Gate, from: u16, to: u16) {
        gate.workers[from as usize].give_back();
        gate.workers[to as usize].force();
        self.leave(from);
        self.workers[to as usize].0.fetch_add(1, Ordering::Relaxed);
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
    use std::time::Duration;

    use super::super::access::Access;
    use crate::config::SourcePrefix;

    const PREFIX: SourcePrefix = SourcePrefix { ipv4: 32, ipv6: 64 };

    fn gate(workers: u16, max: u32) -> Gate {
        let gate = Gate::new(workers, PREFIX);
        gate.bound.set_max(max);
        gate
    }

    fn peer(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    /// The key of the bound that refuses a peer, if it is said; `Ok` if it is let in.
    fn ask(
        admission: &Admission,
        gate: &Gate,
        rules: &Rules,
        from: IpAddr,
        now: u64,
    ) -> Result<Admitted, Option<&'static str>> {
        let memory = Memory::new(1 << 20);
        admission
            .admit((gate, rules), from, &memory, 0, Tick(now))
            .map_err(|refusal| refusal.warn.map(|warning| warning.key))
    }

    #[test]
    fn the_peer_past_each_bound_is_refused_by_its_name() {
        let (admission, listener, rules) = (Admission::new(1, 3), gate(1, 2), Rules::open());
        let refused = |gate: &Gate, now| {
            ask(&admission, gate, &rules, peer(1), now).expect_err("the bound is reached")
        };
        ask(&admission, &listener, &rules, peer(1), 1).expect("one");
        ask(&admission, &listener, &rules, peer(1), 1).expect("two");
        assert_eq!(refused(&listener, 1), Some("listener.max_connections"));
        let other = gate(1, 9);
        let third =
            ask(&admission, &other, &rules, peer(1), 1).expect("a refused peer is not counted");
        assert_eq!(refused(&other, 1), Some("max_connections"));
        assert_eq!(refused(&other, 60_000), None, "once a minute");
        assert_eq!(refused(&other, 60_001), Some("max_connections"));
        admission.release(&other, &third.source, third.worker, Tick(1));
        ask(&admission, &other, &rules, peer(1), 1).expect("one ended");
    }

    #[test]
    fn a_source_has_a_bound_and_a_rate_of_its_own() {
        let per = Duration::from_secs(1);
        let arrivals = crate::config::ConnectionRate {
            count: 1,
            per,
            burst: 3,
        };
        let rules = Rules {
            max_per_source: 2,
            arrivals: Some(arrivals.into()),
            ..Rules::open()
        };
        let (admission, listener) = (Admission::new(1, 100), gate(1, 100));
        let first = ask(&admission, &listener, &rules, peer(1), 1).expect("one");
        ask(&admission, &listener, &rules, peer(1), 1).expect("two");
        let refused =
            |from, now| ask(&admission, &listener, &rules, from, now).expect_err("refused");
        assert_eq!(
            refused(peer(1), 1),
            Some("listener.max_connections_per_source")
        );
        ask(&admission, &listener, &rules, peer(2), 1).expect("another source");
        admission.release(&listener, &first.source, first.worker, Tick(1));
        let third = ask(&admission, &listener, &rules, peer(1), 1).expect("the burst is three");
        admission.release(&listener, &third.source, third.worker, Tick(1));
        assert_eq!(refused(peer(1), 1), Some("listener.rate.connections"));
        assert_eq!((listener.bound.live(), admission.all().live()), (2, 2));
    }

    #[test]
    fn whom_access_denies_is_refused_without_a_warning_and_before_all_bounds() {
        let deny = vec!["192.0.2.1/32".parse().expect("a prefix")];
        let access = crate::config::Access {
            allow: Vec::new(),
            deny,
            reapply: true,
        };
        let rules = Rules {
            access: Access::new(&access),
            ..Rules::open()
        };
        let (admission, listener) = (Admission::new(1, 0), gate(1, 0));
        let memory = Memory::new(1 << 20);
        let refusal = admission.admit((&listener, &rules), peer(1), &memory, 0, Tick(1));
        let denied = Refusal {
            reason: Reason::Denied,
            warn: None,
        };
        assert_eq!(refusal.expect_err("denied"), denied);
    }

    #[test]
    fn a_bound_is_exact_when_many_ask_at_once() {
        let (admission, listener, rules) = (Admission::new(4, 1000), gate(4, 100), Rules::open());
        let admitted: usize = thread::scope(|scope| {
            let ask = || {
                (0..200)
                    .filter(|_| ask(&admission, &listener, &rules, peer(1), 1).is_ok())
                    .count()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("joined"))
                .sum()
        });
        assert_eq!(
            (admitted, listener.bound.live(), admission.all().live()),
            (100, 100, 100)
        );
    }

    #[test]
    fn a_worker_that_has_its_share_of_a_listener_leaves_the_peer_to_the_others() {
        let (admission, listener, rules) = (Admission::new(3, 100), gate(3, 100), Rules::open());
        for bound in &*listener.workers {
            bound.set_max(2);
        }
        let mut workers = Vec::new();
        for _ in 0..6 {
            let admitted = ask(&admission, &listener, &rules, peer(1), 1).expect("six fit");
            workers.push(admitted.worker);
        }
        workers.sort_unstable();
        assert_eq!(workers, [0, 0, 1, 1, 2, 2]);
        let refused = ask(&admission, &listener, &rules, peer(1), 1).expect_err("no seventh");
        assert_eq!(refused, Some("listener.max_connections_per_worker"));
        assert_eq!((listener.bound.live(), admission.all().live()), (6, 6));
        admission.move_over(&listener, 0, 1);
        assert_eq!(
            (listener.workers[0].live(), listener.workers[1].live()),
            (1, 3)
        );
    }

    #[test]
    fn a_thousand_peers_are_spread_evenly_though_one_worker_accepts_them_all() {
        for workers in [2u16, 4, 16] {
            let (admission, listener) = (Admission::new(workers, 1000), gate(workers, 1000));
            for _ in 0..1000 {
                ask(&admission, &listener, &Rules::open(), peer(1), 1).expect("room");
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
