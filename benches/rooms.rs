//! How long the pure rooms take: no kernel, no clock, no log, so the figures are theirs alone.
//!
//! `cargo bench --bench rooms` tells how a change moved them since the last run. A message takes a few
//! nanoseconds here and some microseconds in the kernel; what the whole daemon costs is `benches/compare`.

// What the macros below make needs no documentation.
#![allow(missing_docs)]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

use echod::buffer::{Buffer, Memory, TurnMemory};
use echod::config::{Config, PeerForm};
use echod::connection::{Connection, Limits, Reason, Turn, Want};
use echod::driver::Sent;
use echod::logging::{Record, TcpFacts};
use echod::service::Service;
use echod::tick::Tick;
use echod::worker::deadlines::Deadlines;

/// A message, in bytes.
const MESSAGE: usize = 64;

/// Messages that a slow peer lets pile up.
const PILE: usize = 100;

/// Connections that have a deadline.
const CONNECTIONS: u32 = 10_000;

const IDLE: Duration = Duration::from_secs(3600);

/// A connection, and the driver's part of its life.
struct Peer {
    connection: Connection,
    limits: Limits,
    memory: Arc<Memory>,
    turn_memory: TurnMemory,
    /// A send that waits for the peer.
    in_flight: Option<Buffer>,
}

impl Peer {
    fn new() -> Peer {
        let limits = Limits {
            idle: Some(IDLE),
            stall: Some(Duration::from_secs(30)),
            ..Limits::unbounded(Service::Echo, 512 * 1024)
        };
        let memory = Memory::new(1 << 30);
        let connection = Connection::new(&Turn {
            now: Tick(0),
            limits: &limits,
            memory: &memory,
            source: None,
        });
        let mut peer = Peer {
            connection,
            limits,
            memory,
            turn_memory: TurnMemory::new(),
            in_flight: None,
        };
        // What it wants before anything has happened: to receive.
        peer.does(true);
        peer
    }

    /// Sends a message; does it take the answer at once?
    fn says(&mut self, takes: bool) {
        let input = self
            .turn_memory
            .fill::<()>(1 << 16, |_| Ok(MESSAGE))
            .expect("always filled");
        self.step(|connection, turn| connection.handle_received(input, turn));
        self.does(takes);
    }

    /// Takes all that it is owed.
    fn catches_up(&mut self) {
        while let Some(bytes) = self.in_flight.take() {
            let count = bytes.len();
            self.step(|connection, turn| connection.handle_sent(Sent::of(bytes, count), turn));
            self.does(false);
        }
    }

    /// All that the connection wants.
    fn does(&mut self, takes: bool) {
        while let Some(want) = self.connection.poll_want() {
            match want {
                Want::Send(bytes) if !takes && bytes.is_kept() => self.in_flight = Some(bytes),
                Want::Send(bytes) => {
                    let count = if takes { bytes.len() } else { 0 };
                    let sent = Sent::of(bytes, count);
                    self.step(|connection, turn| connection.handle_sent(sent, turn));
                }
                other => drop(black_box(other)),
            }
        }
    }

    fn step(&mut self, what: impl FnOnce(&mut Connection, &Turn<'_>)) {
        let turn = Turn {
            now: Tick(1),
            limits: &self.limits,
            memory: &self.memory,
            source: None,
        };
        what(&mut self.connection, &turn);
    }
}

fn connection(criterion: &mut Criterion) {
    let mut quick = Peer::new();
    criterion.bench_function("connection: a message there and back", |bencher| {
        bencher.iter(|| quick.says(black_box(true)));
    });
    let mut slow = Peer::new();
    criterion.bench_function("connection: 100 messages pile up and leave", |bencher| {
        bencher.iter(|| {
            (0..PILE).for_each(|_| slow.says(black_box(false)));
            slow.catches_up();
            assert_eq!(slow.connection.owed(), 0);
        });
    });
}

fn deadlines(criterion: &mut Criterion) {
    let idle = || {
        let mut wheel = Deadlines::new(Tick(0));
        (0..CONNECTIONS).for_each(|place| wheel.set(place, Tick(u64::from(place)) + IDLE));
        wheel
    };
    let (mut wheel, mut now) = (idle(), Tick(0));
    // With what it costs to come down from a wide level to a narrow one, and to begin again after an hour.
    criterion.bench_function("deadlines: a millisecond of 10,000 idle", |bencher| {
        bencher.iter(|| {
            now = now + Duration::from_millis(1);
            while let Some(place) = wheel.pop(now) {
                wheel.set(place, now + IDLE);
            }
        });
    });
    let (mut wheel, mut place) = (idle(), 0);
    criterion.bench_function("deadlines: one of 10,000 is moved", |bencher| {
        bencher.iter(|| {
            place = (place + 1) % CONNECTIONS;
            wheel.set(black_box(place), Tick(30_000));
        });
    });
    criterion.bench_function("deadlines: 10,000 pass at once", |bencher| {
        bencher.iter_batched(
            idle,
            |mut wheel| while wheel.pop(Tick(1 << 40)).is_some() {},
            BatchSize::LargeInput,
        );
    });
}

fn config(criterion: &mut Criterion) {
    let text = include_str!("../config/echod.toml");
    criterion.bench_function("config: the shipped file", |bencher| {
        bencher.iter(|| Config::parse(black_box(text), Path::new("echod.toml")).expect("a config"));
    });
}

fn logging(criterion: &mut Criterion) {
    let record = Record {
        via: None,
        detail: None,
        peer: "[2001:db8::7]:50312".parse().expect("an address"),
        listener: "echo".into(),
        reason: Reason::Idle,
        received: 512,
        sent: 512,
        duration: Duration::from_millis(1_234),
        tcp: Some(TcpFacts {
            rtt: Duration::from_micros(210),
            retrans: 0,
        }),
        tls: None,
        packed: None,
    };
    criterion.bench_function("logging: a record becomes an event", |bencher| {
        bencher.iter(|| black_box(&record).event(PeerForm::Full, false));
    });
}

criterion_group!(rooms, connection, deadlines, config, logging);
criterion_main!(rooms);
