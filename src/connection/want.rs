//! What a connection wants done, one thing after the other.

use super::Connection;
use crate::buffer::Buffer;

/// What a connection wants done.
#[derive(Debug)]
pub enum Want {
    /// Receive up to so many bytes at a time from now on; 0: nothing.
    Receive(u32),
    /// Send these bytes; those in kept memory may wait in the driver.
    Send(Buffer),
    /// Send our FIN.
    Shutdown,
    /// Ask the kernel how many bytes the peer has acknowledged: [`Connection::handle_acked`].
    Ask,
    /// The deadline is nearer than it was.
    Deadline,
    /// Be told of the next turn: [`Connection::handle_again`].
    Again,
    /// A header is there: may the peer that it [brought](Connection::brought) come in? To be answered at once.
    Identify,
    /// The handshake is done: be told the first words, [`Connection::handle_opened`].
    Greet,
    /// Close, with a reset if asked. Nothing is wanted after it.
    Close {
        /// Throw away what the kernel still holds.
        reset: bool,
    },
}

/// What [`Connection::poll_want`] has yet to say; a send is in the outbox instead.
pub(super) mod todo {
    pub(in crate::connection) const RECEIVE: u16 = 1;
    pub(in crate::connection) const SHUTDOWN: u16 = 2;
    pub(in crate::connection) const ASK: u16 = 4;
    pub(in crate::connection) const DEADLINE: u16 = 8;
    pub(in crate::connection) const CLOSE: u16 = 16;
    pub(in crate::connection) const RESET: u16 = 32;
    pub(in crate::connection) const AGAIN: u16 = 64;
    pub(in crate::connection) const IDENTIFY: u16 = 128;
    pub(in crate::connection) const GREET: u16 = 256;
}

impl Connection {
    /// The send that comes first of all that is wanted, if there is one. A part of [`Connection::poll_want`].
    #[inline(always)]
    pub fn poll_send(&mut self) -> Option<Buffer> {
        self.outbox.take()
    }

    /// Has [`Connection::poll_want`] anything to say?
    #[inline(always)]
    pub fn wants_more(&self) -> bool {
        self.todo != 0 || self.outbox.is_ready()
    }

    /// What to do next; to be asked until it answers `None`.
    pub fn poll_want(&mut self) -> Option<Want> {
        if let Some(bytes) = self.poll_send() {
            return Some(Want::Send(bytes));
        }
        if self.todo == 0 {
            return None;
        }
        let mut due = |bit: u16| {
            let set = self.todo & bit != 0;
            self.todo &= !bit;
            set
        };
        if due(todo::CLOSE) {
            Some(Want::Close {
                reset: due(todo::RESET),
            })
        } else if due(todo::SHUTDOWN) {
            Some(Want::Shutdown)
        } else if due(todo::IDENTIFY) {
            Some(Want::Identify)
        } else if due(todo::RECEIVE) {
            Some(Want::Receive(self.outbox.room))
        } else if due(todo::ASK) {
            Some(Want::Ask)
        } else if due(todo::DEADLINE) {
            Some(Want::Deadline)
        } else if due(todo::AGAIN) {
            Some(Want::Again)
        } else if due(todo::GREET) {
            Some(Want::Greet)
        } else {
            None
        }
    }
}
