//! The connection of a peer that speaks TLS: what comes is opened first, what leaves is sealed first.
//!
//! Everything that is said of a connection elsewhere, its counts, its quota and its rates, is of plaintext; what it
//! is owed is ciphertext. It is open from the beginning, but until the handshake is done nothing is said
//! and nothing answered. The peer's `close_notify` is its FIN; ours is the last that it is owed, before our FIN.

use std::cell::RefCell;

use super::{Connection, ENDING, Reason, State, Turn, todo};
use crate::buffer::{Buffer, TURN_MEMORY};
use crate::tls::Session;

/// Most memory that a thread keeps for plaintext on its way: a receive, and what a record kept back.
const SCRATCH_MAX: usize = TURN_MEMORY as usize + 32 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Connection {
    /// Does a handshake have to end before anything is said?
    pub(super) fn is_handshaking(&self) -> bool {
        self.session().is_some_and(Session::is_handshaking)
    }

    /// Is what it says sent back, be it sealed or not?
    pub(super) fn echoes(&self) -> bool {
        self.state == State::Open && self.service.answers()
    }

    /// Ciphertext arrived.
    pub(super) fn receive_sealed(&mut self, input: &Buffer, turn: &Turn<'_>) {
        let (is_open, speaks_first) = (self.state == State::Open, self.service.speaks_first());
        let Some(session) = self.session_mut().filter(|_| is_open) else {
            return;
        };
        let mut plaintext = SCRATCH.take();
        plaintext.clear();
        let was_handshaking = session.is_handshaking();
        session.receive(input.bytes(), &mut plaintext);
        if !session.account(turn.memory) {
            return self.close(Reason::Full, true);
        }
        let begins = was_handshaking && !session.is_handshaking() && !session.has_failed();
        if begins && speaks_first {
            // The service has the first word; see `handle_opened`.
            session.hold(&plaintext);
            self.todo |= todo::GREET;
            self.flush_session(turn);
        } else {
            self.go_on_with(&plaintext, turn);
        }
        if plaintext.capacity() <= SCRATCH_MAX {
            SCRATCH.set(plaintext);
        }
    }

    /// The first words have been said: what came before them is next.
    pub(super) fn go_on_after_words(&mut self, turn: &Turn<'_>) {
        if let Some(session) = self.session_mut() {
            let held = session.held();
            self.go_on_with(&held, turn);
        }
    }

    /// Answers plaintext, and whatever else the session has to say or has heard.
    fn go_on_with(&mut self, plaintext: &[u8], turn: &Turn<'_>) {
        let length = plaintext.len() as u64;
        self.received += length;
        let allowed = self.allowance(turn.limits, length);
        // At most their length.
        let answered = usize::try_from(allowed)
            .unwrap_or(usize::MAX)
            .min(plaintext.len());
        let answered = if self.echoes() { answered } else { 0 };
        self.send_sealed(&plaintext[..answered]);
        if !self.flush_session(turn) {
            return;
        }
        let Some((has_failed, is_closed)) = self
            .session()
            .map(|session| (session.has_failed(), session.is_closed()))
        else {
            return;
        };
        if has_failed {
            self.end(Reason::Tls, turn.now + ENDING, turn);
        } else if allowed < length {
            self.end(Reason::Quota, turn.now + ENDING, turn);
        } else if is_closed {
            self.begin_flushing(turn);
        } else if length > 0 && !self.service.is_endless() {
            self.pace(length, turn);
        }
    }

    /// Owes the peer what its session has to send. `false`: there is no memory for it, and the connection
    /// is closed.
    pub(super) fn flush_session(&mut self, turn: &Turn<'_>) -> bool {
        let Some(session) = self.session_mut() else {
            return true;
        };
        let ciphertext = session.drain();
        if ciphertext.is_empty() {
            return true;
        }
        let Some(bytes) = Buffer::keeping_all(ciphertext, turn.memory) else {
            self.close(Reason::Full, true);
            return false;
        };
        if self.outbox.owed() == 0 && !self.is_behind() {
            self.settle_room(turn.limits);
            self.outbox.begin(bytes);
        } else {
            let pushed = self.outbox.push(bytes, turn.memory);
            self.after_slow(pushed, turn);
        }
        self.state != State::Closing
    }

    /// Sends bytes of ours: as they are, or sealed.
    pub(super) fn say(&mut self, bytes: Buffer, turn: &Turn<'_>) {
        if self.session().is_some() {
            self.send_sealed(bytes.bytes());
            self.flush_session(turn);
        } else {
            let pushed = self.outbox.push(bytes, turn.memory);
            self.after_slow(pushed, turn);
        }
    }

    /// The peer says no more: it gets what it is owed.
    pub(super) fn begin_flushing(&mut self, turn: &Turn<'_>) {
        self.state = State::Flushing;
        self.answers = false;
        if self.session().is_some() {
            self.set_room(0);
            self.seal(turn);
        }
        self.finish_if_flushed(turn);
    }

    /// Nothing is said after this: our `close_notify`. To who sent no header yet nothing is said at all.
    pub(super) fn seal(&mut self, turn: &Turn<'_>) {
        let is_begun = !self.awaits_header();
        if let Some(session) = self.session_mut().filter(|_| is_begun) {
            session.close();
            self.flush_session(turn);
        }
    }

    /// The peer's FIN, of one that speaks TLS. `false`: that is its end already.
    pub(super) fn is_well_closed(&mut self) -> bool {
        let is_well = self.session_mut().is_none_or(Session::peer_closed);
        if !is_well {
            self.close(Reason::Tls, false);
        }
        is_well
    }

    /// Seals plaintext for the peer.
    fn send_sealed(&mut self, plaintext: &[u8]) {
        if let Some(layers) = self.layers.as_mut() {
            layers.send(plaintext);
        }
    }
}
