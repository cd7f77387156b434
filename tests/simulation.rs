//! A worker over the simulated network: thousands of seeds, each a different unkind day.
//!
//! Deterministic: no kernel, no clock, no threads. A seed that fails is printed; run it alone with
//! `ECHOD_SEED=n cargo test --test simulation`, and more of them with `ECHOD_SEEDS=n`. With TLS all is deterministic but the
//! bytes of keys, whose lengths are the same each time.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

#[path = "support/voices.rs"]
mod voices;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use echod::bucket::Rate;
use echod::buffer::Memory;
use echod::compression::{Method, Terms};
use echod::config::{ByteRate, Config};
use echod::connection::{Limits, Reason};
use echod::driver::sim::{Ending, Expected, Network, Random, Script, SimDriver, SimPeer, echoed};
use echod::logging::{Echo, Log, Paths};
use echod::metrics::Counts;
use echod::service::whoami::About;
use echod::service::{Service, chargen};
use echod::tick::Tick;
use echod::worker::admission::Admission;
use echod::worker::gate::{Gate, Rules};
use echod::worker::orders::{Listener, Order, Plan, Socket, bell};
use echod::worker::{Desk, Shared, Worker};
use voices::{Layered, identity};

/// Turns after which a run that has not ended hangs.
const TURNS: usize = 200_000;

/// Everything of one run that a test may look at.
struct Run {
    net: Rc<RefCell<Network>>,
    shared: Arc<Shared<(), usize>>,
    worker: Worker<SimDriver>,
    gate: Gate,
    service: Service,
}

/// What lies between the wire and the service.
#[derive(Clone, Copy, Debug, Default)]
struct Layers {
    tls: bool,
    compression: Option<Terms>,
}

impl Layers {
    fn voice(self, seed: u64) -> Layered {
        let voice = Layered::default();
        let voice = if self.tls {
            voice.with_tls(seed)
        } else {
            voice
        };
        match self.compression {
            Some(terms) => voice.with_compression(terms),
            None => voice,
        }
    }

    fn are_there(self) -> bool {
        self.tls || self.compression.is_some()
    }
}

/// A log that nobody reads: what finds no reader is dropped, as ever.
fn log() -> Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    let open = || Log::open(&Config::builtin().log, Echo::Errors, Paths::default()).0;
    LOG.get_or_init(open).clone()
}

fn limits(random: &mut Random, calm: bool, service: Service) -> Limits {
    let sometimes =
        |random: &mut Random, ms| (random.once_in(3) && !calm).then(|| Duration::from_millis(ms));
    // A rate only makes it slower: in calm as well, all comes back. Whoever half-closes while characters wait for
    // one gets none, though, so those have none here.
    let rate = |random: &mut Random| {
        let bytes = 2000 + random.below(100_000);
        let per = Duration::from_secs(1);
        let is_paced = random.once_in(4) && service != Service::Chargen;
        is_paced.then(|| Rate::from(ByteRate { bytes, per }))
    };
    let (own, total) = (rate(random), rate(random));
    Limits {
        max_bytes: if random.once_in(4) && !calm {
            2 + random.below(20_000)
        } else {
            u64::MAX
        },
        first_byte: sometimes(random, 700),
        idle: sometimes(random, 900),
        lifetime: sometimes(random, 3000),
        stall: sometimes(random, 2000),
        progress: (random.once_in(6) && !calm).then(|| ByteRate {
            bytes: 1 + random.below(2000),
            per: Duration::from_secs(1),
        }),
        ..Limits::unbounded(service, 64 << random.below(8))
    }
    .with_rates(own, total.map(|rate| (rate, Arc::default())))
}

fn script(random: &mut Random) -> Script {
    Script {
        arrives: Tick(1000 + random.below(2000)),
        bytes: [0, 1, 100, 5000, 40_000][random.below(5) as usize],
        chunk: 1 + random.below(3000),
        deaf: random.once_in(10),
        ending: [
            Ending::HalfClose,
            Ending::HalfClose,
            Ending::Reset,
            Ending::Silence,
        ][random.below(4) as usize],
    }
}

impl Run {
    fn new(
        seed: u64,
        handed: bool,
        limits: Limits,
        scripts: Vec<Script>,
        max_connections: u32,
    ) -> Run {
        let (config, log) = (Config::builtin(), log());
        let service = limits.service;
        let layers = Layers {
            tls: limits.tls.is_some(),
            compression: limits.compression,
        };
        let mut net = Network::new(seed, scripts).expecting(expected(limits.service));
        if layers.are_there() {
            net = net.speaking(|| Box::new(layers.voice(seed)));
        }
        let net = Rc::new(RefCell::new(net));
        let shared = Arc::new(Shared {
            admission: Admission::new(1, max_connections),
            // A peer that leaves a frame open keeps its states, and nobody else is to wait for them here.
            memory: Memory::new(match layers.compression {
                Some(_) => 64 << 20,
                None => 1 << 20,
            }),
            desks: [Desk::new().unwrap()].into(),
            bell: bell().unwrap(),
            stale: AtomicBool::new(true),
        });
        let gate = Gate::new(1, config.listeners[0].source_prefix);
        gate.bound.set_max(max_connections);
        let listener = Listener {
            id: 0,
            name: "echo".into(),
            limits,
            gate: gate.clone(),
            rules: Rules::open(),
            refuse: None,
        };
        let plan = Plan {
            listeners: vec![Arc::new(listener)],
            sockets: vec![Socket {
                slot: 0,
                listener: 0,
                socket: (),
                handed,
            }],
            drain_idle: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(30),
            log: config.log,
            pressure: config.pressure,
            about: About::default(),
        };
        let driver = SimDriver(Rc::clone(&net));
        let worker = Worker::new(0, driver, Arc::clone(&shared), log, net.borrow().now());
        let mut run = Run {
            net,
            shared,
            worker,
            gate,
            service,
        };
        run.order(Order::Adopt(Arc::new(plan)));
        run
    }

    fn order(&mut self, order: Order<(), usize>) {
        self.shared.desks[0].mailbox.put(order).unwrap();
        self.net.borrow_mut().ring();
    }

    fn counts(&self) -> Counts {
        Counts::sum(self.shared.desks.iter().map(|desk| &desk.counts))
    }

    /// Turns until `over` says so; panics when that does not come.
    fn until(&mut self, over: impl Fn(&Run) -> bool) {
        for _ in 0..TURNS {
            if self.service == Service::Chargen {
                // What is on its way and what waits is one chunk of constant memory, whatever the peer does.
                assert!(self.net.borrow().longest() <= chargen::CHUNK);
                assert_eq!(self.shared.memory.used(), 0, "it is owed more than a chunk");
            }
            if over(self) || !self.worker.turn() {
                return;
            }
        }
        panic!("it hangs: {:?}", self.net.borrow());
    }

    /// What must hold at any end of any day.
    fn check(&self) {
        let net = self.net.borrow();
        for peer in net.peers() {
            assert!(!peer.wrong, "a wrong byte: {peer:?}");
        }
        assert_eq!(net.open(), 0, "a connection was left open");
        assert_eq!(
            self.shared.memory.used(),
            0,
            "kept memory was not given back"
        );
        assert_eq!(
            (self.gate.bound.live(), self.shared.admission.all().live()),
            (0, 0),
            "a bound was not given back"
        );
        assert_eq!(self.counts().live, 0);
    }
}

/// Does this peer do nothing to deserve less than all its bytes and our FIN?
fn is_honest(peer: &SimPeer) -> bool {
    peer.script.ending == Ending::HalfClose && !peer.script.deaf
}

/// What a peer of this service has to read next.
fn expected(service: Service) -> Expected {
    match service {
        Service::Chargen => |peer| {
            let (line, column) = (peer.echoed / 74 % 95, peer.echoed % 74);
            Some(match column {
                72 => b'\r',
                73 => b'\n',
                column => b' ' + ((line + column) % 95) as u8,
            })
        },
        Service::Discard => |_| None,
        _ => echoed,
    }
}

/// Has this peer been given everything?
fn is_served(service: Service, peer: &SimPeer) -> bool {
    let is_all = match service {
        Service::Chargen => peer.echoed > 0,
        Service::Discard => true,
        _ => peer.echoed == peer.script.bytes,
    };
    peer.is_well_closed() && is_all
}

fn day(seed: u64, service: Service, layers: Layers) {
    let mut random = Random(seed);
    let calm = random.once_in(2);
    let mut limits = limits(&mut random, calm, service);
    if layers.tls {
        limits.tls = Some(Arc::clone(&identity().0));
        limits.handshake = (!calm).then(|| Duration::from_millis(500 + random.below(3000)));
    }
    limits.compression = layers.compression;
    let peers = 1 + random.below(6);
    let scripts = (0..peers).map(|_| script(&mut random)).collect();
    let max_connections = if random.once_in(4) && !calm { 2 } else { 100 };
    let handed = random.once_in(2);
    let mut run = Run::new(seed, handed, limits, scripts, max_connections);
    if calm {
        // Nothing is bounded: whoever reads to the end gets everything, whatever the others do.
        let served = |peer: &SimPeer| peer.reset || is_served(service, peer);
        run.until(|run| {
            run.net
                .borrow()
                .peers()
                .iter()
                .filter(|peer| is_honest(peer))
                .all(served)
        });
        let refused = run.counts().ended[Reason::Internal as usize];
        let reset = run
            .net
            .borrow()
            .peers()
            .iter()
            .filter(|peer| is_honest(peer) && peer.reset)
            .count();
        assert!(
            reset as u64 <= refused,
            "an honest peer was reset: {:?}",
            run.net.borrow()
        );
    } else {
        let noon = Tick(1000 + random.below(20_000));
        run.until(|run| run.net.borrow().now() > noon);
    }
    run.order(match random.below(3) {
        0 => Order::Stop,
        1 => Order::Drain {
            idle: Duration::from_millis(100),
            timeout: Duration::from_secs(2),
        },
        _ => Order::Drain {
            idle: Duration::from_secs(20),
            timeout: Duration::from_secs(60),
        },
    });
    run.until(|_| false);
    run.check();
}

/// Days of a service: so many seeds, or the one that was asked for, or as many as were.
fn days(service: Service, layers: Layers, seeds: u64) {
    let asked = |name| -> Option<u64> { std::env::var(name).ok()?.parse().ok() };
    if let Some(seed) = asked("ECHOD_SEED") {
        return day(seed, service, layers);
    }
    for seed in 0..asked("ECHOD_SEEDS").unwrap_or(seeds) {
        if std::panic::catch_unwind(|| day(seed, service, layers)).is_err() {
            panic!("seed {seed} failed: ECHOD_SEED={seed} cargo test --test simulation");
        }
    }
}

#[test]
fn every_seed_ends_with_the_same_bytes_and_everything_given_back() {
    days(Service::Echo, Layers::default(), 12_000);
}

#[test]
fn every_seed_ends_without_an_answer_to_what_is_discarded() {
    days(Service::Discard, Layers::default(), 1_000);
}

#[test]
fn every_seed_ends_with_characters_in_order_and_a_chunk_owed_at_most() {
    days(Service::Chargen, Layers::default(), 1_000);
}

#[test]
fn every_seed_ends_with_the_same_bytes_through_tls() {
    let tls = true;
    let layers = Layers {
        tls,
        ..Layers::default()
    };
    days(Service::Echo, layers, 1_500);
    days(Service::Discard, layers, 300);
}

#[test]
fn every_seed_ends_with_the_same_bytes_through_compression() {
    for method in [Method::Zstd, Method::Gzip] {
        let compression = Some(Terms {
            method,
            max_window: 1 << 20,
            max_ratio: None,
        });
        for tls in [false, true] {
            let layers = Layers { tls, compression };
            days(Service::Echo, layers, 300);
            days(Service::Discard, layers, 100);
        }
    }
}
