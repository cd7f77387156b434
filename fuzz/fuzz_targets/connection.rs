//! A connection, fed an arbitrary script of events.
//!
//! The bytes are a script: first the limits, then one event after another, each told as the worker
//! tells it: one `handle_*`, then `poll_want` until `None`. The script is also the kernel. It takes a send
//! whole, in part, later or never, brings a receive that was under way when receiving was paused, and
//! lets a closed connection hear what was still in flight. What must hold whatever it does is asserted:
//! the right bytes in order, the bound on what is owed, no end to reading that nobody wanted, time that
//! goes on, and all memory given back.

#![no_main]

use std::sync::Arc;
use std::time::Duration;

use echod::buffer::{Buffer, Memory, TurnMemory};
use echod::connection::{
    Connection, DRAIN_PARTING, DRAIN_RESET, Drain, Limits, Reason, Turn, Want,
};
use echod::driver::Sent;
use echod::service::{Service, chargen};
use echod::tick::Tick;
use libfuzzer_sys::fuzz_target;
use nix::errno::Errno;

/// Most bytes that may come although receiving was paused: they were received already.
const LATE: u32 = 64;

/// Timeouts at one moment after which a connection that still has one to judge would be asked for ever.
const TIMEOUTS: usize = 4;

/// Deadlines and sends after which a script that is to end has not.
const STEPS: usize = 200_000;

/// What a service that speaks first says.
const WORDS: &[u8] = b"first words\n";

fuzz_target!(|bytes: &[u8]| {
    let mut script = Script(bytes);
    let mut run = Run::new(&mut script);
    run.drain_wants(&mut script);
    while !script.0.is_empty() {
        run.event(&mut script);
        run.drain_wants(&mut script);
    }
    run.end();
});

/// What is left of the input; zeros behind its end.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn short(&mut self) -> u32 {
        u32::from(u16::from_le_bytes([self.byte(), self.byte()]))
    }

    /// From 0 to `most`.
    fn up_to(&mut self, most: u32) -> u32 {
        match self.byte() {
            // The ends are where the mistakes are.
            255 => most,
            254 => most.saturating_sub(1),
            share @ 128.. => (u64::from(most) * u64::from(share - 128) / 126) as u32,
            few => u32::from(few).min(most),
        }
    }

    fn duration(&mut self) -> Duration {
        let byte = u64::from(self.byte());
        Duration::from_millis(byte * byte)
    }

    fn timeout(&mut self) -> Option<Duration> {
        (self.byte() & 1 == 1).then(|| self.duration())
    }

    fn limits(&mut self) -> Limits {
        // The configuration allows no empty buffer.
        let buffer = 1 + self.short();
        Limits {
            max_bytes: if self.byte() & 1 == 1 {
                u64::from(self.short())
            } else {
                u64::MAX
            },
            first_byte: self.timeout(),
            idle: self.timeout(),
            lifetime: self.timeout(),
            stall: self.timeout(),
            ..Limits::unbounded(Service::Echo, buffer)
        }
    }
}

/// The byte that the peer sends at position `at`.
fn pattern(at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b9) >> 7).to_le_bytes()[0]
}

/// A connection, and all that its driver, its worker and its peer know of it.
struct Run {
    connection: Connection,
    limits: Limits,
    memory: Arc<Memory>,
    now: Tick,
    /// The driver answers a send of turn memory at once, as readiness lets it.
    eager: bool,
    /// In flight; and whether it is turn memory.
    flight: Option<Buffer>,
    /// Receiving, at most so many bytes at a time.
    room: u32,
    /// Receiving was paused only now.
    late: bool,
    /// Bytes that the peer has sent.
    received: u64,
    /// Bytes that the kernel has taken for it.
    taken: u64,
    /// Highest bounds that held at any time.
    buffer: u32,
    max_bytes: u64,
    /// What the connection began with.
    service: Service,
    /// It waits for the next turn.
    again: bool,
    /// Bytes of late receives, and of those that came while turn memory was in flight.
    beyond: u64,
    acked: u64,
    peer_closed: bool,
    shut_down: bool,
    closed: bool,
    /// Things that were wanted.
    wants: usize,
}

impl Run {
    fn new(script: &mut Script<'_>) -> Run {
        let mut limits = script.limits();
        let memory = Memory::new(if script.byte() & 1 == 1 {
            u64::from(script.short())
        } else {
            1 << 20
        });
        let kind = script.byte();
        let eager = kind & 1 == 0;
        let service = match kind >> 1 {
            ..64 => Service::Echo,
            64..80 => Service::Discard,
            80..96 => Service::Chargen,
            96..112 => Service::Whoami,
            _ => Service::Time,
        };
        limits.service = service;
        let now = Tick(u64::from(script.byte()));
        let connection = Connection::new(&Turn {
            now,
            limits: &limits,
            memory: &memory,
            source: None,
        });
        let mut run = Run {
            connection,
            memory,
            now,
            eager,
            flight: None,
            room: 0,
            late: false,
            received: 0,
            taken: 0,
            buffer: limits.buffer,
            max_bytes: limits.max_bytes,
            limits,
            service,
            again: false,
            beyond: 0,
            acked: 0,
            peer_closed: false,
            shut_down: false,
            closed: false,
            wants: 0,
        };
        if service.speaks_first() {
            run.tell(|connection, turn| connection.handle_opened(WORDS, turn));
        }
        run
    }

    /// The byte that the peer has to be sent at position `at`.
    fn expected(&self, at: u64) -> Option<u8> {
        let word = |at: u64| WORDS.get(usize::try_from(at).ok()?).copied();
        match self.service {
            Service::Echo => Some(pattern(at)),
            Service::Discard => None,
            Service::Chargen => chargen::chunk(at, 1).bytes().first().copied(),
            Service::Daytime | Service::Time => word(at),
            Service::Whoami => word(at).or_else(|| Some(pattern(at - WORDS.len() as u64))),
        }
    }

    /// Of so many bytes that the peer was sent, those that it had sent before.
    fn echoed(&self, count: u64) -> u64 {
        match self.service {
            Service::Echo => count,
            Service::Whoami => count.saturating_sub(WORDS.len() as u64),
            _ => 0,
        }
    }

    /// Tells the connection something.
    fn tell(&mut self, what: impl FnOnce(&mut Connection, &Turn<'_>)) {
        let turn = Turn {
            now: self.now,
            limits: &self.limits,
            memory: &self.memory,
            source: None,
        };
        what(&mut self.connection, &turn);
    }

    /// The next thing that happens.
    fn event(&mut self, script: &mut Script<'_>) {
        match script.byte() % 16 {
            0..=3 => {
                let count = script.up_to(self.room.min(self.memory.room()));
                self.receive(count);
            }
            4 if std::mem::take(&mut self.late) => {
                let count = script.up_to(LATE);
                self.beyond += u64::from(count);
                self.receive(count);
            }
            5..=7 if std::mem::take(&mut self.again) => self.tell(Connection::handle_again),
            5..=7 => self.send_is_home(script),
            8 if !self.peer_closed => {
                self.peer_closed = true;
                self.tell(Connection::handle_peer_closed);
            }
            9 => {
                let errno =
                    [Errno::ECONNRESET, Errno::ETIMEDOUT, Errno::EIO][script.byte() as usize % 3];
                self.tell(|connection, _| connection.handle_failed(errno));
            }
            10 => {
                self.now = self.now + script.duration();
                self.time_out();
            }
            11 => self.jump(),
            12 => self.acknowledge(script.byte()),
            13 if script.byte().is_multiple_of(8) => {
                self.tell(|connection, _| connection.handle_stop())
            }
            14 if self.limits.drain.is_none() => self.drain(script.duration(), script.duration()),
            15 if script.byte().is_multiple_of(4) => self.reload(script.limits()),
            _ => {}
        }
    }

    fn receive(&mut self, count: u32) {
        // A closed descriptor brings nothing; what it had brought was handled before.
        if count == 0 || self.peer_closed || self.closed {
            return;
        }
        let from = self.received;
        let input = TurnMemory::of(count as usize).fill::<()>(count, |to| {
            to.iter_mut()
                .zip(from..)
                .for_each(|(byte, at)| *byte = pattern(at));
            Ok(to.len())
        });
        let Ok(input) = input else { return };
        if self.flight.as_ref().is_some_and(|bytes| !bytes.is_kept()) {
            // Soon is not at once, and until then nobody knows that the peer is slow.
            self.beyond += u64::from(count);
        }
        self.received += u64::from(count);
        self.tell(|connection, turn| connection.handle_received(input, turn));
    }

    /// The kernel's answer to a send.
    fn answer(&mut self, bytes: Buffer, script: &mut Script<'_>) -> Sent {
        let count = script.up_to(bytes.len());
        if script.byte() == 255 {
            return Sent::Broken(Errno::EPIPE);
        }
        self.taken += u64::from(count);
        Sent::of(bytes, count)
    }

    /// A send that had to wait went on.
    fn send_is_home(&mut self, script: &mut Script<'_>) {
        if let Some(bytes) = self.flight.take() {
            let sent = self.answer(bytes, script);
            self.tell(|connection, turn| connection.handle_sent(sent, turn));
        }
    }

    fn acknowledge(&mut self, share: u8) {
        self.acked += (self.taken - self.acked) * u64::from(share) / 255;
        let acked = self.acked;
        self.tell(|connection, turn| connection.handle_acked(acked, acked & 1 == 1, turn));
    }

    fn drain(&mut self, idle: Duration, timeout: Duration) {
        self.limits.drain = Some(Drain {
            idle,
            parting: DRAIN_PARTING,
            until: self.now + timeout,
        });
        self.time_out();
    }

    /// Other limits hold from now on, and each connection is asked for its deadline again.
    fn reload(&mut self, limits: Limits) {
        self.limits = Limits {
            drain: self.limits.drain,
            ..limits
        };
        self.buffer = self.buffer.max(self.limits.buffer);
        self.max_bytes = self.max_bytes.max(self.limits.max_bytes);
        self.time_out();
    }

    /// Nothing happens until the deadline.
    fn jump(&mut self) {
        let deadline = self.connection.deadline(&self.limits);
        if deadline != Tick::NEVER {
            self.now = self.now.max(deadline);
            self.time_out();
        }
    }

    /// Judges the deadline until none has passed; each time is one step of a worker.
    fn time_out(&mut self) {
        for _ in 0..TIMEOUTS {
            if self.connection.deadline(&self.limits) > self.now {
                return;
            }
            let (before, wants) = (self.connection.deadline(&self.limits), self.wants);
            self.tell(|connection, turn| connection.handle_timeout(turn));
            self.drain_wants(&mut Script(&[]));
            let moved = self.connection.deadline(&self.limits) != before;
            assert!(
                moved || self.wants > wants,
                "a timeout that changes nothing comes again and again"
            );
        }
        let deadline = self.connection.deadline(&self.limits);
        assert!(
            deadline > self.now,
            "the deadline {deadline:?} stays in the past of {:?}",
            self.now
        );
    }

    /// Does all that the connection wants.
    fn drain_wants(&mut self, script: &mut Script<'_>) {
        while let Some(want) = self.connection.poll_want() {
            self.wants += 1;
            assert!(!self.closed, "nothing is wanted after the close: {want:?}");
            match want {
                Want::Send(bytes) => self.send(bytes, script),
                Want::Receive(room) => {
                    self.late = self.room > 0 && room == 0;
                    self.room = room;
                }
                Want::Shutdown => {
                    assert!(!self.shut_down, "one FIN");
                    assert_eq!(self.connection.owed(), 0, "a FIN before what was owed");
                    self.shut_down = true;
                }
                Want::Ask => {
                    if script.byte() & 1 == 0 {
                        self.acknowledge(script.byte());
                    }
                }
                Want::Deadline => {}
                Want::Again => {
                    assert!(!self.again, "it waits for one turn at a time");
                    self.again = true;
                }
                Want::Identify => unreachable!("nobody speaks for this peer"),
                Want::Greet => unreachable!("no listener here speaks TLS"),
                Want::Close { reset } => self.close(reset),
            }
        }
        self.check();
    }

    fn send(&mut self, bytes: Buffer, script: &mut Script<'_>) {
        assert!(self.flight.is_none(), "one send of a connection at a time");
        assert!(!self.shut_down, "bytes behind our FIN");
        assert!(!bytes.is_empty(), "nothing to send");
        let same = bytes
            .bytes()
            .iter()
            .zip(self.taken..)
            .all(|(byte, at)| self.expected(at) == Some(*byte));
        assert!(same, "not the right bytes from {} on", self.taken);
        let keep = bytes.is_kept();
        if (keep || !self.eager) && script.byte() & 1 == 1 {
            self.flight = Some(bytes);
            return;
        }
        let sent = self.answer(bytes, script);
        match sent {
            // Nothing was taken of what may wait: it waits.
            Sent::Part { count: 0, rest } if keep => self.flight = Some(rest),
            sent => self.tell(|connection, turn| connection.handle_sent(sent, turn)),
        }
    }

    fn close(&mut self, reset: bool) {
        self.closed = true;
        // As the drivers do: with the close, what they hold is dropped.
        self.flight = None;
        if self.connection.reason() == Reason::Done {
            let is_brief = self.service.is_brief();
            assert!(
                is_brief || self.peer_closed && !reset,
                "done is for the peer to say"
            );
            let all = match self.service {
                Service::Echo => self.received,
                Service::Discard => 0,
                Service::Chargen => self.taken,
                Service::Daytime | Service::Time => WORDS.len() as u64,
                Service::Whoami => WORDS.len() as u64 + self.received,
            };
            assert_eq!(self.taken, all, "done, and not all of it was sent");
        }
    }

    /// What holds whenever everything that was wanted is done.
    fn check(&mut self) {
        let owed = self.connection.owed();
        assert_eq!(self.connection.received(), self.received);
        assert_eq!(self.connection.sent(), self.taken);
        if owed == 0 {
            self.beyond = 0;
        }
        if self.closed {
            assert_eq!(
                (owed, self.memory.used()),
                (0, 0),
                "a closed connection owns nothing"
            );
            assert_eq!(self.connection.deadline(&self.limits), Tick::NEVER);
            return;
        }
        assert_eq!(
            owed > 0,
            self.flight.is_some(),
            "what is owed is on its way"
        );
        assert!(
            u64::from(owed) <= u64::from(self.buffer).max(WORDS.len() as u64) + self.beyond,
            "{owed} owed, above `buffer`"
        );
        if self.limits.stall.is_some() && self.flight.as_ref().is_some_and(Buffer::is_kept) {
            let deadline = self.connection.deadline(&self.limits);
            assert_ne!(
                deadline,
                Tick::NEVER,
                "nobody watches a peer that takes nothing"
            );
        }
        let answered = self.taken + u64::from(owed);
        let echoed = self.echoed(answered);
        assert!(echoed <= self.received);
        assert!(
            self.max_bytes == u64::MAX || answered + echoed <= self.max_bytes,
            "above `max_bytes`"
        );
        assert!(
            owed > 0 || self.room > 0 || self.peer_closed,
            "nothing is owed, and nobody reads"
        );
    }

    /// Every script ends well: a peer that takes all and closes, or one that a drain has to end.
    fn end(mut self) {
        if self.limits.drain.is_some() {
            self.end_by_drain();
        } else {
            self.end_by_peer();
        }
        assert!(
            self.closed,
            "still open when nothing is left to happen: {:?}",
            self.connection
        );
        drop(self.connection);
        assert_eq!(self.memory.used(), 0, "memory that nobody owns");
    }

    fn end_by_peer(&mut self) {
        if !self.peer_closed {
            self.peer_closed = true;
            self.tell(Connection::handle_peer_closed);
            self.drain_wants(&mut Script(&[]));
        }
        for _ in 0..STEPS {
            if self.closed {
                return;
            }
            // All of it, and no error.
            self.send_is_home(&mut Script(&[255, 0]));
            self.drain_wants(&mut Script(&[]));
        }
    }

    /// Nothing happens any more, but time passes.
    fn end_by_drain(&mut self) {
        let until = self.limits.drain.map_or(self.now, |drain| drain.until) + DRAIN_RESET;
        let last = until.max(self.now);
        for _ in 0..STEPS {
            let deadline = self.connection.deadline(&self.limits);
            if self.closed || deadline > last {
                return;
            }
            self.jump();
        }
    }
}
