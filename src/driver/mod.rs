//! Thin shells around the kernel: they move bytes and decide nothing.
//!
//! A driver is asked for things and yields [`Completion`]s, one by one; each is handled before the
//! next is pulled. Two contracts hold over every driver: an operation in flight owns its buffer, and
//! a connection that was closed is forgotten only when nothing of it is in flight any more
//! ([`Completion::Gone`], or [`Driver::close`] says so at once).
//!
//! Receiving is a *state* of a connection ([`Driver::receive`]), not an operation for each message;
//! a send is tried at once and usually answered at once. Both together were measured at half the
//! user-space instructions of a queue of operations.

mod alarm;
pub mod epoll;
pub mod sim;
pub mod uring;

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use socket2::SockRef;

use crate::buffer::Buffer;
use crate::sys;
pub use crate::sys::TcpInfo;
use crate::tick::Tick;

/// Places that a worker and its driver have room for from the start. A table that grows leaves what it was before
/// behind, and of one that is large the kernel has only as much in memory as was used.
pub const PLACES: usize = 16 * 1024;

/// Names a connection to the driver. A stale token, of an earlier connection in the same place, finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// The place in the table.
    pub index: u32,
    /// How often the place was used before; below 2^31.
    pub generation: u32,
}

/// The answer to a send: what the kernel took.
#[derive(Debug)]
pub enum Sent {
    /// All of it, so many bytes.
    All(u32),
    /// So many bytes, or none; the rest is given back.
    Part {
        /// Bytes that it took.
        count: u32,
        /// Those that it did not take, at least one.
        rest: Buffer,
    },
    /// Nothing: the connection is broken.
    Broken(Errno),
}

impl Sent {
    /// The kernel took the first `count` of these bytes.
    #[inline(always)]
    pub fn of(mut bytes: Buffer, count: u32) -> Sent {
        if count == bytes.len() {
            return Sent::All(count);
        }
        bytes.advance(count);
        Sent::Part { count, rest: bytes }
    }

    /// Bytes that the kernel took.
    #[inline(always)]
    pub fn count(&self) -> u32 {
        match self {
            Sent::All(count) | Sent::Part { count, .. } => *count,
            Sent::Broken(_) => 0,
        }
    }
}

/// What came back.
#[derive(Debug)]
pub enum Completion<S> {
    /// A peer came in by the listening socket in this slot.
    Accepted {
        /// The slot given with [`Driver::listen`].
        slot: u16,
        /// The connection, not yet opened.
        stream: S,
        /// The peer's address, canonical: an IPv4 peer is IPv4 whatever socket it came by.
        peer: SocketAddr,
    },
    /// No peer could be accepted, and the next would fare no better: mostly descriptors or memory are used up.
    AcceptFailed {
        /// What the kernel said.
        errno: Errno,
    },
    /// Bytes of a peer.
    Received {
        /// Whose.
        token: Token,
        /// The bytes, at least one; turn memory.
        input: Buffer,
    },
    /// The peer's FIN: it sends no more. Nothing is received after it.
    PeerClosed {
        /// Whose.
        token: Token,
    },
    /// A send that had to wait went on.
    Sent {
        /// Whose.
        token: Token,
        /// How far.
        sent: Sent,
    },
    /// The connection is broken.
    Failed {
        /// Which.
        token: Token,
        /// Why.
        errno: Errno,
    },
    /// A closed connection has nothing in flight any more: its token may be used again.
    Gone {
        /// Which.
        token: Token,
    },
    /// Somebody rang the worker's bell: orders wait.
    Woken,
}

/// The kernel, as a worker sees it.
pub trait Driver {
    /// A listening socket, shared by the workers.
    type Listening: Clone;
    /// An accepted connection that may still be given to another worker.
    type Stream;

    /// Accepts from `socket` in this slot from now on; `None`: no longer.
    ///
    /// # Errors
    /// What the kernel says if it cannot watch one more socket.
    fn listen(&mut self, slot: u16, socket: Option<&Self::Listening>) -> Result<(), Errno>;

    /// A peer that was accepted from this slot and is not told yet; else one that waits in the queue of
    /// `socket`, accepted at once. For a slot that is accepted from no longer.
    fn accept_waiting(
        &mut self,
        slot: u16,
        socket: Option<&Self::Listening>,
    ) -> Option<(Self::Stream, SocketAddr)>;

    /// Takes charge of a connection; nothing is received until [`Driver::receive`] says so.
    ///
    /// # Errors
    /// What the kernel says if it cannot watch one more socket; the connection is reset.
    fn open(&mut self, token: Token, stream: Self::Stream) -> Result<(), Errno>;

    /// Ends a connection that was accepted and is not wanted: by a reset, or behind a line of text.
    fn refuse(&mut self, stream: Self::Stream, line: Option<&[u8]>);

    /// Receives up to `room` bytes at a time from now on; 0: nothing until further notice.
    fn receive(&mut self, token: Token, room: u32);

    /// Sends. `Some`: done, or as far as the kernel took it. `None`: a [`Completion::Sent`] comes; of kept
    /// memory when the peer took some, however long that takes, of turn memory with the next turn. One
    /// send of a connection at a time.
    fn send(&mut self, token: Token, bytes: Buffer) -> Option<Sent>;

    /// Sends our FIN, behind what was sent before.
    fn shutdown(&mut self, token: Token);

    /// Closes a connection, with a reset if asked. `true`: it is gone; `false`: [`Completion::Gone`] will come.
    fn close(&mut self, token: Token, reset: bool) -> bool;

    /// What the kernel knows of a connection; `None` if it does not say.
    fn facts(&self, token: Token) -> Option<TcpInfo>;

    /// The name of a connection's congestion control; `None` if the kernel does not say.
    fn congestion(&self, token: Token) -> Option<String>;

    /// Somebody needs to hear of the sends of this turn: the next [`Driver::wait`] does not wait for other
    /// news before it tells. Most sends are not asked about until the peer speaks again.
    fn hurry(&mut self) {}

    /// Waits for completions until `until`, the start of a turn. A receive of this turn brings at most
    /// `room` bytes. Answers the time, which holds for the whole turn.
    fn wait(&mut self, until: Tick, room: u32) -> Tick;

    /// The next completion of this turn, if it is a send that was taken whole, and how long it was.
    /// `None` says nothing about the others. Kept apart, as is the next: the common case is then a third
    /// cheaper.
    #[inline(always)]
    fn next_all_sent(&mut self) -> Option<(Token, u32)> {
        None
    }

    /// The next completion of this turn, if it is bytes of a peer and plain to see. `None` says nothing
    /// about [`Driver::next`].
    #[inline(always)]
    fn next_received(&mut self) -> Option<(Token, Buffer)> {
        None
    }

    /// The next completion of this turn.
    fn next(&mut self) -> Option<Completion<Self::Stream>>;
}

/// The next peer in the queue of a socket, whoever before it is gone already; `None` if there is none.
fn accept_next(socket: &OwnedFd) -> Option<(OwnedFd, SocketAddr)> {
    loop {
        match sys::accept(socket.as_fd()) {
            Ok(accepted) => return Some(accepted),
            Err(errno) if is_of_one_peer(errno) => {}
            Err(_) => return None,
        }
    }
}

/// Errors of accept(2) that say something of a peer which is gone already, and nothing of the socket.
fn is_of_one_peer(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EINTR
            | Errno::ECONNABORTED
            | Errno::EPROTO
            | Errno::ENETDOWN
            | Errno::ENOPROTOOPT
            | Errno::EHOSTDOWN
            | Errno::ENONET
            | Errno::EHOSTUNREACH
            | Errno::EOPNOTSUPP
            | Errno::ENETUNREACH
    )
}

/// Most that is thrown away of what a refused peer has sent by then: as much as comes in one flight.
const REFUSED_READS: usize = 16;

/// Closes a connection that is not wanted. A line reaches its peer unless more arrives after this than was there
/// already: nobody waits for one who is refused.
fn turn_away(stream: &OwnedFd, line: Option<&[u8]>) {
    let Some(line) = line else {
        return reset_on_close(stream);
    };
    // Whatever fails here, the close that follows is all that is owed.
    let _ = sys::send(stream.as_fd(), line);
    let _ = SockRef::from(stream).shutdown(std::net::Shutdown::Write);
    // With bytes unread the close would be a reset, and take the line back.
    let mut thrown_away = [0; 4096];
    for _ in 0..REFUSED_READS {
        if !matches!(sys::receive(stream.as_fd(), &mut thrown_away), Ok(1..)) {
            break;
        }
    }
}

/// Makes the close of a connection a reset: what it still holds is thrown away.
fn reset_on_close(stream: &OwnedFd) {
    // It fails only where the connection is gone already.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
