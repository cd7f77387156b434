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

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

use echod::buffer::{Buffer, Memory, TurnMemory};
use echod::compression::{Codec, Method, Terms};
use echod::config::{Config, PeerForm};
use echod::connection::{Connection, Limits, Reason, Turn, Want};
use echod::driver::Sent;
use echod::logging::{Record, TcpFacts};
use echod::service::Service;
use echod::tick::Tick;
use echod::worker::deadlines::Deadlines;

/// A message, in bytes.
const MESSAGE: usize = 64;

/// A receive, in bytes.
const RECEIVE: usize = 64 * 1024;

/// What a compressing peer's bytes become in a turn, at most.
const TURN: usize = 128 * 1024;

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

/// Text, as logs are: words, and now and then a number.
fn text(count: usize) -> Vec<u8> {
    let words = "the echo daemon connection received bytes source listener=echo reason=idle peer=[2001:db8::7] of and a";
    let words: Vec<_> = words.split(' ').collect();
    let (mut text, mut state) = (Vec::with_capacity(count + 32), 12345_u64);
    while text.len() < count {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let value = state >> 33;
        let word = words[usize::try_from(value % 13).unwrap_or(0)];
        text.extend_from_slice(word.as_bytes());
        if value & 0x70 == 0 {
            text.extend_from_slice((value >> 8).to_string().as_bytes());
        }
        text.push(b' ');
    }
    text.truncate(count);
    text
}

const TERMS: Terms = Terms {
    method: Method::Zstd,
    max_window: 8 << 20,
    max_ratio: Some(200),
};

/// Has a codec echo what was received, as a connection does: some of it in each turn.
fn echo(terms: Terms, packed: &[u8], plain: &mut [u8]) -> usize {
    let mut codec = Codec::new(terms);
    let mut all = 0;
    for piece in packed.chunks(RECEIVE) {
        let mut said = piece;
        loop {
            let count = codec.expand(said, plain);
            all += count;
            codec.send(&plain[..count]);
            black_box(codec.drain());
            said = &[];
            if !codec.has_more() {
                break;
            }
        }
    }
    codec.flush();
    black_box(codec.drain());
    assert_eq!(codec.failure(), None);
    all
}

/// What the library's own loop is told.
#[derive(Clone, Copy)]
enum Like {
    /// The level and the window of the codec.
    Codec,
    /// Its defaults.
    Tool,
}

/// The same with the library alone: zstd's own loop, into memory of our own.
fn zstd_echo(like: Like, packed: &[u8], plain: &mut [u8], out: &mut Vec<u8>) -> usize {
    use zstd_safe::zstd_sys::ZSTD_EndDirective as Directive;
    use zstd_safe::{CCtx, CParameter, DCtx, InBuffer, OutBuffer};

    let (mut decoder, mut encoder) = (DCtx::create(), CCtx::create());
    let checksum = CParameter::ChecksumFlag(true);
    encoder.set_parameter(checksum).expect("valid");
    if let Like::Codec = like {
        for parameter in [CParameter::CompressionLevel(1), CParameter::WindowLog(18)] {
            encoder.set_parameter(parameter).expect("valid");
        }
    }
    let mut pack = |plain: &[u8], directive: Directive| {
        let mut from = InBuffer::around(plain);
        loop {
            out.clear();
            let mut to = OutBuffer::around(&mut *out);
            let left = encoder.compress_stream2(&mut to, &mut from, directive);
            let is_end = directive == Directive::ZSTD_e_end;
            if from.pos() == plain.len() && (!is_end || left == Ok(0)) {
                break;
            }
        }
    };
    let mut all = 0;
    for piece in packed.chunks(RECEIVE) {
        let mut from = InBuffer::around(piece);
        loop {
            let room = plain.len();
            let mut to = OutBuffer::around(&mut *plain);
            decoder
                .decompress_stream(&mut to, &mut from)
                .expect("whole");
            let written = to.pos();
            all += written;
            pack(&plain[..written], Directive::ZSTD_e_continue);
            if from.pos() == piece.len() && written < room {
                break;
            }
        }
    }
    pack(&[], Directive::ZSTD_e_end);
    all
}

/// The same with flate2's own reader and writer.
fn gzip_echo(like: Like, packed: &[u8], plain: &mut [u8], out: &mut Vec<u8>) -> usize {
    use std::io::{Read, Write};

    out.clear();
    let level = match like {
        Like::Codec => flate2::Compression::fast(),
        Like::Tool => flate2::Compression::default(),
    };
    let mut reader = flate2::read::GzDecoder::new(packed);
    let mut writer = flate2::write::GzEncoder::new(out, level);
    let mut all = 0;
    loop {
        let written = reader.read(plain).expect("whole");
        if written == 0 {
            break;
        }
        all += written;
        writer.write_all(&plain[..written]).expect("written");
    }
    writer.finish().expect("written");
    all
}

fn compression(criterion: &mut Criterion) {
    let text = text(8 << 20);
    let pack = |method, text: &[u8]| {
        let mut codec = Codec::new(Terms { method, ..TERMS });
        codec.send(text);
        codec.end();
        codec.drain()
    };
    let mut plain = vec![0; TURN];
    let mut out = Vec::with_capacity(1 << 20);
    let mut group = criterion.benchmark_group("8 MiB of text expanded and compressed");
    group.sample_size(20);
    group.throughput(Throughput::Bytes(text.len() as u64));
    let packed = pack(Method::Zstd, &text);
    group.bench_function("zstd", |bencher| {
        bencher.iter(|| assert_eq!(echo(TERMS, &packed, &mut plain), 8 << 20));
    });
    for (name, like) in [("loop", Like::Codec), ("loop, its defaults", Like::Tool)] {
        group.bench_function(format!("zstd, its own {name}"), |bencher| {
            bencher.iter(|| assert_eq!(zstd_echo(like, &packed, &mut plain, &mut out), 8 << 20));
        });
    }
    let packed = pack(Method::Gzip, &text);
    let terms = Terms {
        method: Method::Gzip,
        ..TERMS
    };
    group.bench_function("gzip", |bencher| {
        bencher.iter(|| assert_eq!(echo(terms, &packed, &mut plain), 8 << 20));
    });
    for (name, like) in [("loop", Like::Codec), ("loop, its defaults", Like::Tool)] {
        group.bench_function(format!("gzip, its own {name}"), |bencher| {
            bencher.iter(|| assert_eq!(gzip_echo(like, &packed, &mut plain, &mut out), 8 << 20));
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("a frame of 64 bytes echoed");
    for method in [Method::Zstd, Method::Gzip] {
        let packed = pack(method, &text[..MESSAGE]);
        let mut codec = Codec::new(Terms { method, ..TERMS });
        group.bench_function(method.name(), |bencher| {
            bencher.iter(|| {
                let count = codec.expand(&packed, &mut plain);
                codec.send(&plain[..count]);
                codec.flush();
                codec.drain()
            });
        });
    }
    group.finish();
}

criterion_group!(rooms, connection, deadlines, config, logging, compression);
criterion_main!(rooms);
