//! Random days of a peer that compresses, each of a seed: cuts, slow takes, rates, memory that is there and is not, receives
//! under way when there is no room, an end at any moment. Whatever comes first, its bytes are whole and all is given back.

use std::io::Write;

use super::sealed::Sealed;
use super::*;
use crate::buffer::Charge;

/// Days of each kind.
const DAYS: u64 = 250;

/// Steps in which anything may happen, and then those in which nobody is in the way any more.
const ROUGH: usize = 3000;
const CALM: usize = 200_000;

/// Steps without a byte after which it hangs.
const QUIET: usize = 20_000;

/// What a service that speaks first says.
const WORDS: &[u8] = b"you are";

/// Numbers that only look random (xorshift).
struct Random(u64);

impl Random {
    fn of(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) as usize % most.max(1)
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    fn of_these<T: Copy, const N: usize>(&mut self, these: [T; N]) -> T {
        these[self.below(N)]
    }
}

struct Day {
    random: Random,
    sealed: Sealed,
    terms: Terms,
    /// What it says, before it is packed.
    plain: Vec<u8>,
    /// What of it is still to go over the wire.
    rest: Vec<u8>,
    /// The memory that others have.
    others: Option<Charge>,
    /// Turns that were asked for.
    asked: usize,
    /// The most of a receive that may be under way.
    under_way: usize,
    is_closed: bool,
    is_over: bool,
}

impl Day {
    fn new(seed: u64, is_sealed: bool) -> Day {
        let mut random = Random::of(seed);
        let terms = Terms {
            method: random.of_these([Method::Zstd, Method::Gzip]),
            max_ratio: None,
            ..TERMS
        };
        let sealed = Sealed::new(|limits| {
            if random.one_in(3) {
                rated(200_000)(limits);
            }
            limits.buffer = random.of_these([4 << 10, 64 << 10, 512 << 10]);
            limits.compression = Some(terms);
            limits.service = random.of_these([
                Service::Echo,
                Service::Echo,
                Service::Whoami,
                Service::Discard,
                Service::Chargen,
            ]);
            if limits.service == Service::Chargen {
                limits.max_bytes = 2 << 20;
            }
            if !is_sealed {
                limits.tls = None;
            }
        });
        let mut day = Day {
            random,
            sealed,
            terms,
            plain: Vec::new(),
            rest: Vec::new(),
            others: None,
            asked: 0,
            under_way: 0,
            is_closed: false,
            is_over: false,
        };
        day.begin(is_sealed);
        day
    }

    /// What it will say, some frames, and the handshake.
    fn begin(&mut self, is_sealed: bool) {
        for _ in 0..=self.random.below(5) {
            let most = self.random.of_these([1, 30, 5000, 300_000]);
            let length = self.random.below(most);
            let part = match self.random.one_in(2) {
                true => noise(length),
                false => vec![7; length],
            };
            let mut codec = Codec::new(self.terms);
            codec.send(&part);
            codec.flush();
            self.rest.extend(codec.drain());
            self.plain.extend(part);
        }
        let Sealed { client, .. } = &mut self.sealed;
        if is_sealed {
            client.set_buffer_limit(None);
            self.sealed.speak();
            let Sealed { client, .. } = &mut self.sealed;
            for piece in self.rest.chunks(1 + self.random.below(40_000)) {
                client.writer().write_all(piece).expect("no bound");
            }
            client.send_close_notify();
            self.rest = self.sealed.sealed();
        } else if self.sealed.peer.limits.service.speaks_first() {
            self.open();
        }
    }

    fn open(&mut self) {
        let wants = self.sealed.peer.opens(WORDS);
        self.judge(&wants);
    }

    /// What holds after each step.
    fn judge(&mut self, wants: &[Want]) {
        self.asked += wants
            .iter()
            .filter(|want| matches!(want, Want::Again))
            .count();
        assert!(self.asked <= 1, "asked for {} turns", self.asked);
        let is_close = |want: &Want| matches!(want, Want::Close { .. });
        self.is_over |= wants.iter().any(is_close);
        let peer = &self.sealed.peer;
        let codec = &peer.connection.packing().expect("compressed").codec;
        let of_others = self.others.as_ref().map_or(0, Charge::size);
        let held = of_others + codec.memory() as u64;
        assert!(peer.memory.used() >= held, "{held} held and not counted");
    }

    fn says(&mut self, most: usize) -> Vec<Want> {
        let piece = (1 + self.random.below(most)).min(self.rest.len());
        let piece: Vec<_> = self.rest.drain(..piece).collect();
        self.sealed.peer.says(&piece)
    }

    fn step(&mut self, is_calm: bool) {
        let (room, has_more) = (self.sealed.peer.room as usize, !self.rest.is_empty());
        self.under_way = self.under_way.max(room);
        let wants = match self.random.below(12) {
            0..4 if room > 0 && has_more => {
                let most = self.random.of_these([40, room]);
                self.says(most.min(room))
            }
            4 if self.under_way > 0 && has_more && self.random.one_in(4) => {
                let most = std::mem::take(&mut self.under_way);
                self.says(most)
            }
            5 if is_calm => self.sealed.peer.takes(usize::MAX),
            5 => {
                let count = self.random.below(100_000);
                self.sealed.peer.takes(count)
            }
            6..9 if self.asked > 0 => {
                self.asked -= 1;
                self.sealed.peer.again()
            }
            9 if self.sealed.peer.deadline() < Tick::NEVER => {
                let due = self.sealed.peer.deadline().since(self.sealed.peer.now);
                let due = u64::try_from(due.as_millis()).expect("short");
                self.sealed
                    .peer
                    .wait(if is_calm { due } else { due.min(100) })
            }
            10 if !has_more && !self.is_closed && self.random.one_in(3) => {
                self.is_closed = true;
                self.sealed.peer.closes()
            }
            11 if !is_calm && self.random.one_in(10) => {
                self.others = match self.others.take() {
                    Some(_) => None,
                    None => self.sealed.peer.memory.charge(32 << 20),
                };
                Vec::new()
            }
            _ => Vec::new(),
        };
        let is_greeted = wants.iter().any(|want| matches!(want, Want::Greet));
        self.judge(&wants);
        if is_greeted {
            self.open();
        }
    }

    /// To its end.
    fn pass(&mut self) {
        let mut quiet = 0;
        for step in 0..ROUGH + CALM {
            let is_calm = step >= ROUGH;
            if is_calm {
                self.others = None;
            }
            let carried = |day: &Day| {
                let peer = &day.sealed.peer;
                (day.rest.len(), peer.connection.received(), peer.took.len())
            };
            let before = carried(self);
            self.step(is_calm);
            if self.is_over {
                return;
            }
            quiet = if carried(self) == before {
                quiet + 1
            } else {
                0
            };
            assert!(quiet < QUIET, "hangs: {:?}", self.sealed.peer.connection);
        }
        panic!("no end: {:?}", self.sealed.peer.connection);
    }

    /// What it heard, expanded.
    fn heard(&mut self) -> Vec<u8> {
        let peer = &self.sealed.peer;
        let heard = match peer.limits.tls {
            Some(_) => {
                self.sealed.speak();
                assert!(self.sealed.is_told_the_end);
                &self.sealed.heard
            }
            None => &peer.took,
        };
        expanded(heard, self.terms)
    }
}

fn has_its_bytes(seed: u64, is_sealed: bool) {
    let mut day = Day::new(seed, is_sealed);
    day.pass();
    let service = day.sealed.peer.limits.service;
    if service != Service::Chargen {
        assert_eq!(day.sealed.peer.connection.reason(), Reason::Done);
        assert_eq!(
            day.sealed.peer.connection.received(),
            day.plain.len() as u64
        );
        let heard = day.heard();
        let expected = match service {
            Service::Discard => Vec::new(),
            Service::Whoami => [WORDS, &day.plain].concat(),
            _ => std::mem::take(&mut day.plain),
        };
        assert!(heard == expected, "{} of {}", heard.len(), expected.len());
        assert_eq!(day.sealed.peer.connection.sent(), heard.len() as u64);
    }
    day.others = None;
    assert_eq!(day.sealed.peer.memory.used(), 0);
}

/// Which day it was is told where one fails.
fn days(is_sealed: bool) {
    for seed in 1..=DAYS {
        let day = || has_its_bytes(seed, is_sealed);
        let day = std::panic::catch_unwind(day);
        assert!(day.is_ok(), "seed {seed}, as said above");
    }
}

#[test]
fn whatever_comes_first_its_bytes_are_whole() {
    days(false);
}

#[test]
fn whatever_comes_first_its_bytes_are_whole_within_tls() {
    days(true);
}
