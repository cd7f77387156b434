//! What the driver remembers of one connection between two reports of the kernel.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::libc::{EPOLLERR, EPOLLHUP};
use socket2::SockRef;

use crate::buffer::{Buffer, TurnMemory};
use crate::driver::{Completion, Sent, Token};
use crate::sys;
use flag::{FINISHED, QUEUED, READABLE, URGENT, WRITABLE};

/// What is remembered of a connection between two reports, in epoll's own bits where it has them.
pub(super) mod flag {
    use nix::libc::{EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP};

    /// There may be bytes, or the FIN, to receive.
    pub(in crate::driver::epoll) const READABLE: u32 = EPOLLIN.cast_unsigned();
    /// The kernel may take bytes.
    pub(in crate::driver::epoll) const WRITABLE: u32 = EPOLLOUT.cast_unsigned();
    /// The peer's FIN has come: only a receive of nothing ends the reading.
    pub(in crate::driver::epoll) const FINISHED: u32 = EPOLLRDHUP.cast_unsigned();
    /// An urgent byte may stand in the stream: a short read is no sign of an empty socket.
    pub(in crate::driver::epoll) const URGENT: u32 = EPOLLPRI.cast_unsigned();
    /// It stands in the run list.
    pub(in crate::driver::epoll) const QUEUED: u32 = 1 << 28;
}

/// The generation of no token: nothing is found in a slot that is closed.
const CLOSED: u32 = u32::MAX;

/// One connection, as far as the driver is concerned.
#[derive(Debug)]
pub(super) struct Slot {
    /// None: closed.
    pub(super) stream: Option<OwnedFd>,
    pub(super) generation: u32,
    /// Most bytes of a receive; 0: it is not receiving.
    pub(super) room: u32,
    pub(super) flags: u32,
    /// A send that waits for the peer: kept memory. Boxed, so that the many that have none pay eight bytes.
    pub(super) held: Option<Box<Buffer>>,
}

impl Default for Slot {
    fn default() -> Slot {
        Slot {
            stream: None,
            generation: CLOSED,
            room: 0,
            flags: 0,
            held: None,
        }
    }
}

impl Slot {
    /// Forgets the connection; its place in the run list stays, so that nobody gets it twice.
    pub(super) fn close(&mut self) {
        *self = Slot {
            flags: self.flags & QUEUED,
            ..Slot::default()
        };
    }

    /// One receive, of at most `most` bytes. What is left to receive shows in `READABLE`.
    #[inline(always)]
    pub(super) fn receive(&mut self, memory: &mut TurnMemory, most: u32) -> sys::Result<Buffer> {
        let Some(stream) = &self.stream else {
            return Err(Errno::EBADF);
        };
        let room = self.room.min(most);
        let input = memory.fill(room, |memory| sys::receive(stream.as_fd(), memory))?;
        if input.len() < room && self.flags & (FINISHED | URGENT) == 0 {
            self.flags &= !READABLE;
        }
        Ok(input)
    }

    /// A receive that brought no bytes: the peer's FIN, or an error.
    #[cold]
    pub(super) fn received_nothing(
        &mut self,
        token: Token,
        errno: Option<Errno>,
    ) -> Option<Completion<OwnedFd>> {
        match errno {
            None => {
                self.flags &= !READABLE;
                self.room = 0;
                Some(Completion::PeerClosed { token })
            }
            Some(Errno::EAGAIN) => {
                self.flags &= !(READABLE | URGENT);
                None
            }
            Some(Errno::EINTR) => None,
            Some(errno) => Some(Completion::Failed { token, errno }),
        }
    }

    /// Goes on with a send that waited.
    pub(super) fn send_held(&mut self, token: Token) -> Option<Completion<OwnedFd>> {
        let bytes = self.held.take()?;
        match self.send(*bytes) {
            Sent::Part { count: 0, rest } => {
                self.held = Some(Box::new(rest));
                None
            }
            sent => Some(Completion::Sent { token, sent }),
        }
    }

    /// The parts of a report that few messages have. `Some`: the connection is broken.
    #[cold]
    pub(super) fn note_rare(&mut self, token: Token, events: u32) -> Option<Completion<OwnedFd>> {
        if events & EPOLLERR.cast_unsigned() != 0 {
            let error = self
                .stream
                .as_ref()
                .and_then(|stream| SockRef::from(stream).take_error().ok().flatten());
            if let Some(error) = error {
                let errno = error
                    .raw_os_error()
                    .map_or(Errno::ECONNRESET, Errno::from_raw);
                return Some(Completion::Failed { token, errno });
            }
        }
        if events & (EPOLLHUP.cast_unsigned() | FINISHED) != 0 {
            self.flags |= READABLE | FINISHED;
        }
        if events & URGENT != 0 {
            self.flags |= READABLE | URGENT;
        }
        None
    }

    /// Offers `bytes` to the kernel.
    #[inline(always)]
    pub(super) fn send(&mut self, bytes: Buffer) -> Sent {
        let Some(stream) = &self.stream else {
            return Sent::Broken(Errno::EBADF);
        };
        match sys::send(stream.as_fd(), bytes.bytes()) {
            Ok(count) if count == bytes.bytes().len() => Sent::All(bytes.len()),
            other => self.send_rarely(bytes, other),
        }
    }

    /// A send that was not taken whole.
    #[cold]
    fn send_rarely(&mut self, bytes: Buffer, result: sys::Result<usize>) -> Sent {
        match result {
            // The kernel takes no more than it was given, and that was counted in a u32.
            Ok(count) => {
                self.flags &= !WRITABLE;
                Sent::of(bytes, u32::try_from(count).unwrap_or(0))
            }
            Err(Errno::EAGAIN) => {
                self.flags &= !WRITABLE;
                Sent::of(bytes, 0)
            }
            Err(errno) => Sent::Broken(errno),
        }
    }
}
