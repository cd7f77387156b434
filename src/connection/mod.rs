//! One peer's life, without a socket.
//!
//! A pure machine: `handle_*` says what happened, [`Connection::poll_want`] what to do. The contract:
//! one `handle_*`, then `poll_want` until `None`, then the next event. It owns what the peer is owed and
//! the times by which it is judged; it opens, sends, sleeps and logs nothing.
//!
//! ```text
//!         the peer's FIN                  nothing owed
//!  Open ------------------> Flushing ------------------------------.
//!    |                          |                                  v
//!    | we end it (idle,         | a failure, a stall,           Closing --> gone
//!    | lifetime, quota, drain)  | a stop: from any state           ^
//!    v                          '----------------------------------|
//!  Ending --nothing owed: our FIN--> Parting --the peer's FIN, or --'
//!                                    PARTING passed; reads and drops
//! ```
//! With TLS it is Open from the beginning of the handshake, and a peer whose `close_notify` has come and whose
//! FIN has not goes from Flushing to Parting.
//!
//! Our own end is never a close with bytes unread: that would be a reset, which takes back what the
//! kernel still had to deliver. Closing submits nothing but the close itself.

mod layers;
mod limits;
mod outbox;
mod pacing;
mod packing;
mod preface;
mod reason;
mod sealing;
mod speaking;
mod timing;
mod want;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;

use crate::bucket::Bucket;
use crate::buffer::{Buffer, Memory};
use crate::driver::Sent;
use crate::service::{Service, echo};
use crate::tick::Tick;
use layers::Layers;
pub use limits::{Drain, Limits, Rates};
use outbox::{NoMemory, Outbox};
pub use packing::{Packed, Wire};
pub use reason::Reason;
pub use want::Want;
use want::todo;
use watch::Watch;

/// How long we read, after our FIN, for the peer's.
pub const PARTING: Duration = Duration::from_secs(2);

/// The same in a drain, which has to end soon.
pub const DRAIN_PARTING: Duration = Duration::from_millis(500);

/// From the end of `drain_timeout`, and our FIN, to the reset.
pub const DRAIN_RESET: Duration = Duration::from_secs(1);

/// How long a connection that we end may take what it is owed.
pub const ENDING: Duration = Duration::from_secs(30);

/// How often the kernel is asked whether a peer that seems stalled acknowledges bytes. At 20 kB/s no
/// send completes for 40 s although the peer takes all it can.
pub const ASK: Duration = Duration::from_millis(250);

/// What a connection is lent to judge an event.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'a> {
    /// The time, the same for the whole turn.
    pub now: Tick,
    /// What holds for this connection's listener.
    pub limits: &'a Limits,
    /// Where kept memory comes from.
    pub memory: &'a Arc<Memory>,
    /// What its source has left of a byte rate; `None` once its bytes count for nothing.
    pub source: Option<&'a Bucket>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Flushing,
    Ending,
    Parting,
    Closing,
}

/// One peer's connection. It is a small record, so that it could be written down with what it owes.
#[derive(Debug)]
pub struct Connection {
    outbox: Outbox,
    /// What lies between the wire and the service, which is mostly nothing.
    layers: Option<Box<Layers>>,
    received: u64,
    sent: u64,
    opened: Tick,
    /// The last byte from the peer, or the last that it took later than at once.
    heard: Tick,
    /// What is watched of a peer that is behind, or under pressure: most are neither, and pay eight bytes.
    watch: Option<Box<Watch>>,
    /// Open: a byte rate pauses it until then. Ending and Parting: the latest moment.
    until: Tick,
    state: State,
    /// What it is served by, whatever a reload makes of its listener.
    service: Service,
    /// It is open, and what its peer says is sent back as it is.
    answers: bool,
    /// The peer's FIN has come.
    peer_closed: bool,
    /// It will be told of the next turn.
    is_asked: bool,
    reason: Reason,
    todo: u16,
}

impl Connection {
    /// A connection that has just been accepted.
    pub fn new(turn: &Turn<'_>) -> Connection {
        let mut connection = Connection {
            outbox: Outbox::default(),
            layers: Layers::of(turn.limits),
            received: 0,
            sent: 0,
            opened: turn.now,
            heard: turn.now,
            watch: None,
            until: Tick::NEVER,
            state: State::Open,
            service: turn.limits.service,
            answers: false,
            peer_closed: false,
            is_asked: false,
            reason: Reason::Done,
            todo: 0,
        };
        connection.answers = connection.is_bare();
        connection.settle_room(turn.limits);
        // Its source may have a debt already.
        connection.pace(0, turn);
        connection
    }

    /// Does the peer keep up? Then a message is answered and forgotten.
    #[inline(always)]
    fn is_easy(&self, limits: &Limits) -> bool {
        // The room is the whole buffer only while nothing is owed and no rate asks for less.
        self.outbox.room == limits.buffer && self.answers
    }

    /// Bytes arrived, of a peer that keeps up and of which nothing is asked but an echo: the answer, to be sent at once.
    /// What becomes of that is told with [`Connection::handle_answered`] or [`Connection::handle_sent`]. A part of
    /// [`Connection::handle_received`], which takes all others.
    ///
    /// # Errors
    /// The bytes, of any other peer.
    #[inline(always)]
    pub fn answer(&mut self, input: Buffer, turn: &Turn<'_>) -> Result<Buffer, Buffer> {
        let limits = turn.limits;
        if !self.is_easy(limits) || self.outbox.owed() > 0 || limits.counts_bytes() {
            return Err(input);
        }
        self.received += u64::from(input.len());
        self.heard = turn.now;
        self.outbox.lend(&input);
        Ok(echo::answer(input))
    }

    /// The answer was taken whole, at once.
    #[inline(always)]
    pub fn handle_answered(&mut self, count: u32) {
        self.sent += u64::from(count);
        self.outbox.settle();
    }

    /// Bytes arrived.
    pub fn handle_received(&mut self, input: Buffer, turn: &Turn<'_>) {
        match self.answer(input, turn) {
            Ok(answer) => self.outbox.begin(answer),
            Err(input) => self.receive_rarely(input, turn),
        }
    }

    /// Bytes of a peer that is or was behind, that are past its quota, that nobody answers, or that come after
    /// our own end.
    #[cold]
    fn receive_rarely(&mut self, mut input: Buffer, turn: &Turn<'_>) {
        self.heard = turn.now;
        if self.awaits_header() {
            return self.receive_header(input, turn);
        }
        if self.is_sealing() {
            return self.receive_layered(&input, turn);
        }
        self.received += u64::from(input.len());
        if self.state != State::Open {
            return;
        }
        let length = u64::from(input.len());
        let allowed = self.allowance(turn.limits, length);
        // Below `length`, which came from a u32, or cut to no effect.
        input.truncate(u32::try_from(allowed).unwrap_or(u32::MAX));
        if !input.is_empty() && self.answers {
            let answer = echo::answer(input);
            if self.outbox.owed() == 0 && !self.is_behind() {
                // It keeps up, and is only counted; a reload may have changed what it may be owed.
                self.settle_room(turn.limits);
                self.outbox.begin(answer);
            } else {
                let pushed = self.outbox.push(answer, turn.memory);
                self.after_slow(pushed, turn);
            }
        }
        if allowed < length {
            return self.end(Reason::Quota, turn.now + ENDING, turn);
        }
        if !self.service.is_endless() {
            self.pace(length, turn);
        }
    }

    /// Most bytes of an input of `length`, counted already, that `max_bytes` lets us answer.
    fn allowance(&self, limits: &Limits, length: u64) -> u64 {
        if limits.max_bytes == u64::MAX {
            return length;
        }
        let carried = self.received - length + self.sent + self.plaintext_owed();
        self.service
            .input_within(limits.max_bytes.saturating_sub(carried))
    }

    /// A send of `count` bytes was taken whole.
    #[inline(always)]
    pub fn handle_all_sent(&mut self, count: u32, turn: &Turn<'_>) {
        // One that was behind is behind no longer, which has to be noted, and one whose room a pause closed is let speak.
        let is_easy = self.answers && self.outbox.room > 0 && !self.is_behind();
        if count == self.outbox.owed() && is_easy {
            self.sent += u64::from(count);
            return self.outbox.settle();
        }
        self.sent_slowly(Sent::All(count), turn);
    }

    /// A send went so far.
    pub fn handle_sent(&mut self, sent: Sent, turn: &Turn<'_>) {
        match sent {
            Sent::All(count) => self.handle_all_sent(count, turn),
            sent => self.sent_slowly(sent, turn),
        }
    }

    #[cold]
    fn sent_slowly(&mut self, sent: Sent, turn: &Turn<'_>) {
        self.sent += self.plaintext_of(sent.count());
        if self.state == State::Closing {
            // It was on its way when we closed, and owes nobody anything now.
            return;
        }
        let (count, rest) = match sent {
            Sent::All(count) => (count, None),
            Sent::Part { count, rest } => (count, Some(rest)),
            Sent::Broken(errno) => return self.handle_failed(errno),
        };
        if count > 0 {
            self.note_progress(turn.now);
        }
        let kept = self.outbox.sent(count, rest, turn.memory);
        self.after_slow(kept, turn);
        self.finish_if_flushed(turn);
    }

    /// Settles receiving and the deadline after a step of a peer that is or was behind.
    #[cold]
    fn after_slow(&mut self, kept: Result<(), NoMemory>, turn: &Turn<'_>) {
        if kept.is_err() {
            return self.close(Reason::Full, true);
        }
        if self.outbox.owed() == 0 {
            self.catch_up();
        } else if !self.is_behind() {
            // From here on its progress is watched.
            self.fall_behind(turn.now);
            self.todo |= todo::DEADLINE;
        }
        self.settle_room(turn.limits);
    }

    /// The peer's FIN: it gets what it is owed, then ours.
    pub fn handle_peer_closed(&mut self, turn: &Turn<'_>) {
        match self.state {
            State::Open => {
                self.peer_closed = true;
                self.cut_header();
                if self.awaits_header() {
                    self.begin_flushing(turn);
                } else if self.is_well_closed() {
                    self.end_input(turn);
                }
            }
            // It has heard all that we have to say, or will hear it before our close.
            State::Parting => self.close(self.reason, false),
            // It goes on until what is owed has left; then there is nothing to wait for.
            State::Ending | State::Flushing => self.peer_closed = true,
            State::Closing => {}
        }
    }

    /// The connection broke.
    pub fn handle_failed(&mut self, errno: Errno) {
        let reason = match errno {
            Errno::ECONNRESET | Errno::EPIPE | Errno::ECONNABORTED => Reason::Reset,
            Errno::ETIMEDOUT
            | Errno::EHOSTUNREACH
            | Errno::ENETUNREACH
            | Errno::EHOSTDOWN
            | Errno::ENETDOWN => Reason::Vanished,
            _ => Reason::Internal,
        };
        // What ended it before, if something did, is what the record tells.
        self.close(self.own_reason().unwrap_or(reason), true);
    }

    /// Its peer may not be here any more: nothing is owed to it.
    pub fn handle_denied(&mut self) {
        self.close(self.own_reason().unwrap_or(Reason::Denied), true);
    }

    /// The daemon stops at once.
    pub fn handle_stop(&mut self) {
        self.close(self.own_reason().unwrap_or(Reason::Stop), true);
    }

    /// Why we are ending it, if we are. It is not done while something is owed.
    fn own_reason(&self) -> Option<Reason> {
        let is_ours = matches!(self.state, State::Ending | State::Parting);
        (is_ours && (self.reason != Reason::Done || self.outbox.owed() == 0)).then_some(self.reason)
    }

    /// Ends it ourselves: what is owed, then our FIN, all until a moment.
    fn end(&mut self, reason: Reason, until: Tick, turn: &Turn<'_>) {
        if self.state != State::Open {
            return;
        }
        self.state = State::Ending;
        self.answers = false;
        self.reason = reason;
        self.until = until;
        // Nothing more is answered; what comes is read once our FIN is out.
        self.set_room(0);
        self.todo |= todo::DEADLINE;
        self.seal(turn);
        self.finish_if_flushed(turn);
    }

    /// Takes the step that waited for the last owed byte.
    fn finish_if_flushed(&mut self, turn: &Turn<'_>) {
        if self.outbox.owed() > 0 {
            return;
        }
        match self.state {
            State::Flushing | State::Ending if self.peer_closed => self.close(self.reason, false),
            State::Flushing | State::Ending => {
                // Past the end of a drain, until the reset that was announced.
                let late = |drain: &Drain| turn.now >= drain.until;
                let parting = match turn.limits.drain {
                    Some(drain) if late(&drain) => DRAIN_RESET,
                    Some(drain) => drain.parting,
                    None => PARTING,
                };
                if self.state == State::Flushing {
                    // What it had there was of a rate.
                    self.until = Tick::NEVER;
                }
                self.state = State::Parting;
                self.until = self.until.min(turn.now + parting);
                self.set_room(turn.limits.buffer);
                self.todo |= todo::SHUTDOWN | todo::DEADLINE;
            }
            State::Open if self.service.is_endless() && !self.is_handshaking() => {
                self.ask_for_a_turn();
            }
            State::Open | State::Parting | State::Closing => {}
        }
    }

    fn close(&mut self, reason: Reason, reset: bool) {
        if self.state == State::Closing {
            return;
        }
        self.state = State::Closing;
        self.answers = false;
        self.reason = reason;
        self.outbox.clear();
        self.drop_packing();
        self.watch = None;
        self.todo = todo::CLOSE | if reset { todo::RESET } else { 0 };
    }

    /// Why it ended; `Done` before it did.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// What answers it.
    pub fn service(&self) -> Service {
        self.service
    }

    /// Bytes received, without a header.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Bytes that the kernel took for the peer.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// When it began.
    pub fn opened(&self) -> Tick {
        self.opened
    }

    /// Bytes that the peer is owed and the kernel has not taken.
    pub fn owed(&self) -> u32 {
        self.outbox.owed()
    }
}

#[cfg(test)]
mod tests;
