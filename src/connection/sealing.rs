//! The connection of a peer that speaks TLS: what comes is opened first.
//!
//! It is open from the beginning, but until the handshake is done nothing is said and nothing answered. The peer's
//! `close_notify` is its FIN; ours is the last that it is owed, before our FIN.

use std::cell::RefCell;

use super::{Connection, Reason, Turn, todo};
use crate::buffer::TURN_MEMORY;
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

    /// Ciphertext arrived.
    pub(super) fn receive_sealed(&mut self, input: &[u8], turn: &Turn<'_>) {
        let speaks_first = self.service.speaks_first();
        let Some(session) = self.session_mut() else {
            return;
        };
        let mut plaintext = SCRATCH.take();
        plaintext.clear();
        let was_handshaking = session.is_handshaking();
        session.receive(input, &mut plaintext);
        if !session.account(turn.memory) {
            return self.close(Reason::Full, true);
        }
        let begins = was_handshaking && !session.is_handshaking() && !session.has_failed();
        if begins && speaks_first {
            // The service has the first word; see `handle_opened`.
            session.hold(&plaintext);
            self.todo |= todo::GREET;
            self.flush_layers(turn);
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

    /// The peer's FIN, of one that speaks TLS. `false`: that is its end already.
    pub(super) fn is_well_closed(&mut self) -> bool {
        let is_well = self.session_mut().is_none_or(Session::peer_closed);
        if !is_well {
            self.close(Reason::Tls, false);
        }
        is_well
    }
}
