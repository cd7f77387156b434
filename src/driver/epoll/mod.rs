//! epoll(7): readiness, turned into completions.
//!
//! Each connection is registered once, edge-triggered, and never modified. The driver remembers what
//! the kernel said (readable, writable, its FIN has come), receives when the connection wants to and
//! the socket is readable, and keeps a *run list* of those that have more than one turn may take, so
//! that a busy connection cannot starve the others. Receives go into one block of turn memory, which
//! is home before the next completion is pulled.
//!
//! Why a short read means that the socket is empty: bytes that arrive later raise a new edge. Two
//! exceptions are known, and both are asked for: the peer's FIN, which has no bytes of its own, and
//! an urgent byte, before which the kernel ends a read (it stays in the stream, `SO_OOBINLINE`).

mod slot;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::libc::{
    EPOLLERR, EPOLLET, EPOLLEXCLUSIVE, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP,
};
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use nix::sys::eventfd::EventFd;
use socket2::SockRef;

use super::{Completion, Driver, Sent, TcpInfo, Token};
use crate::buffer::{Buffer, TurnMemory};
use crate::sys::{self, EpollEvent};
use crate::tick::Tick;
use slot::flag::{FINISHED, QUEUED, READABLE, URGENT, WRITABLE};
use slot::{Slot, reset_on_close};

/// Readiness reports taken from the kernel at once: the most connections that wait for one turn's end.
const EVENTS: usize = 256;

/// Most peers accepted from one socket in a turn, once a queue has formed.
const ACCEPT_BURST: u16 = 64;

/// What a connection's registration asks for.
const INTEREST: u32 = (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET).cast_unsigned();

/// The data of the bell's registration, and the bit that tells a listening socket's from a token's.
const BELL: u64 = u64::MAX;
const LISTENING: u64 = 1 << 63;

/// A listening socket, and how many peers it yields in a turn: one, more while its queue does not empty.
#[derive(Debug)]
struct Listening {
    socket: Arc<OwnedFd>,
    burst: u16,
}

/// A worker's epoll instance and what it watches.
#[derive(Debug)]
pub struct EpollDriver {
    epoll: Epoll,
    slots: Vec<Slot>,
    listening: Vec<Option<Listening>>,
    memory: TurnMemory,
    /// When this turn began.
    now: Tick,
    /// Most bytes of any receive in this turn.
    turn_room: u32,
    /// The reports of this turn; those before `at` have been looked at.
    events: Box<[EpollEvent; EVENTS]>,
    at: usize,
    filled: usize,
    /// A socket that is being accepted from, and the peers that this turn may still bring.
    accepting: Option<(u16, u16)>,
    /// Connections to look at again, and how many of them belong to this turn.
    run: VecDeque<u32>,
    due: usize,
}

impl EpollDriver {
    /// Makes an epoll instance; `bell` wakes its [`Driver::wait`].
    ///
    /// # Errors
    /// What the kernel says if there are no more descriptors or watches.
    pub fn new(bell: &EventFd) -> io::Result<EpollDriver> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        // Edge-triggered: each ring is one report, and the count need not be read.
        sys::epoll_add(
            epoll.0.as_fd(),
            bell.as_fd(),
            (EPOLLIN | EPOLLET).cast_unsigned(),
            BELL,
        )?;
        Ok(EpollDriver {
            epoll,
            slots: Vec::new(),
            listening: Vec::new(),
            memory: TurnMemory::new(),
            now: Tick::now(),
            turn_room: 0,
            events: Box::new([sys::NO_EVENT; EVENTS]),
            at: 0,
            filled: 0,
            accepting: None,
            run: VecDeque::new(),
            due: 0,
        })
    }

    /// The open connection that a token names.
    #[inline(always)]
    fn slot(&mut self, token: Token) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(token.index as usize)?;
        (slot.generation == token.generation && slot.stream.is_some()).then_some(slot)
    }

    /// Puts a connection at the end of the run list, once.
    #[inline]
    fn enqueue(&mut self, index: u32) {
        let flags = &mut self.slots[index as usize].flags;
        if *flags & QUEUED == 0 {
            *flags |= QUEUED;
            self.run.push_back(index);
        }
    }

    /// Takes note of what the kernel reported of a connection, and does what can be done now.
    #[inline(always)]
    fn report(&mut self, event: EpollEvent) -> Option<Completion<OwnedFd>> {
        let token = unpack(event.u64);
        let events = event.events.cast_signed();
        let slot = self.slot(token)?;
        if events & (EPOLLERR | EPOLLHUP | EPOLLRDHUP | EPOLLPRI) != 0
            && let Some(failed) = slot.note_rare(token, events)
        {
            return Some(failed);
        }
        if events & EPOLLIN != 0 {
            slot.flags |= READABLE;
        }
        if events & EPOLLOUT != 0 {
            slot.flags |= WRITABLE;
        }
        self.advance(token.index)
    }

    /// Sends what waits, else receives, if the socket allows it and the connection wants to.
    #[inline(always)]
    fn advance(&mut self, index: u32) -> Option<Completion<OwnedFd>> {
        let slot = &mut self.slots[index as usize];
        if slot.held.is_some() && slot.flags & WRITABLE != 0 {
            return self.send_held(index);
        }
        if slot.flags & READABLE != 0 && slot.room > 0 {
            return self.receive_once(index);
        }
        None
    }

    /// One receive; a socket that has more goes to the end of the run list.
    #[inline(always)]
    fn receive_once(&mut self, index: u32) -> Option<Completion<OwnedFd>> {
        let slot = &mut self.slots[index as usize];
        let stream = slot.stream.as_ref()?;
        let token = Token {
            index,
            generation: slot.generation,
        };
        let room = slot.room.min(self.turn_room);
        match self
            .memory
            .fill(room, |memory| sys::receive(stream.as_fd(), memory))
        {
            Ok(input) if input.is_empty() => {
                slot.flags &= !READABLE;
                slot.room = 0;
                Some(Completion::PeerClosed { token })
            }
            Ok(input) => {
                if input.len() < room && slot.flags & (FINISHED | URGENT) == 0 {
                    slot.flags &= !READABLE;
                } else {
                    self.enqueue(index);
                }
                Some(Completion::Received { token, input })
            }
            Err(Errno::EAGAIN) => {
                slot.flags &= !(READABLE | URGENT);
                None
            }
            Err(Errno::EINTR) => {
                self.enqueue(index);
                None
            }
            Err(errno) => Some(Completion::Failed { token, errno }),
        }
    }

    /// Goes on with a send that waited.
    #[cold]
    fn send_held(&mut self, index: u32) -> Option<Completion<OwnedFd>> {
        let slot = &mut self.slots[index as usize];
        let token = Token {
            index,
            generation: slot.generation,
        };
        let sent = slot.held.take().map(|bytes| slot.send(bytes))?;
        if slot.flags & READABLE != 0 {
            self.enqueue(index);
        }
        match sent {
            Sent {
                count: 0,
                rest: Some(rest),
                ..
            } => {
                self.slots[index as usize].held = Some(rest);
                None
            }
            sent => Some(Completion::Sent { token, sent }),
        }
    }

    /// Accepts one peer of those that this turn may still bring.
    fn accept(&mut self) -> Option<Completion<OwnedFd>> {
        let (slot, left) = self.accepting.take()?;
        let listening = self.listening.get_mut(slot as usize)?.as_mut()?;
        match sys::accept(listening.socket.as_fd()) {
            Ok((stream, peer)) => {
                if left > 1 {
                    self.accepting = Some((slot, left - 1));
                } else {
                    // There may be a queue: take twice as many next time.
                    listening.burst = (listening.burst * 2).min(ACCEPT_BURST);
                }
                Some(Completion::Accepted { slot, stream, peer })
            }
            Err(Errno::EAGAIN) => {
                listening.burst = 1;
                None
            }
            Err(errno) if is_of_one_peer(errno) => None,
            Err(errno) => Some(Completion::AcceptFailed { errno }),
        }
    }
}

impl Driver for EpollDriver {
    type Listening = Arc<OwnedFd>;
    type Stream = OwnedFd;

    fn listen(&mut self, slot: u16, socket: Option<&Arc<OwnedFd>>) -> Result<(), Errno> {
        if self.listening.len() <= slot as usize {
            self.listening.resize_with(slot as usize + 1, || None);
        }
        if let Some(old) = self.listening[slot as usize].take() {
            self.epoll.delete(&*old.socket)?;
        }
        if let Some(socket) = socket {
            // Exclusive: a peer wakes one worker, not all of them. Level-triggered: who accepts one and
            // leaves the queue to the others loses nothing.
            let interest = (EPOLLIN | EPOLLEXCLUSIVE).cast_unsigned();
            sys::epoll_add(
                self.epoll.0.as_fd(),
                socket.as_fd(),
                interest,
                LISTENING | u64::from(slot),
            )?;
            self.listening[slot as usize] = Some(Listening {
                socket: Arc::clone(socket),
                burst: 1,
            });
        }
        Ok(())
    }

    fn accept_waiting(&mut self, slot: u16) -> Option<(OwnedFd, SocketAddr)> {
        let listening = self.listening.get(slot as usize)?.as_ref()?;
        sys::accept(listening.socket.as_fd()).ok()
    }

    fn open(&mut self, token: Token, stream: OwnedFd) -> Result<(), Errno> {
        if let Err(errno) =
            sys::epoll_add(self.epoll.0.as_fd(), stream.as_fd(), INTEREST, pack(token))
        {
            self.refuse(stream);
            return Err(errno);
        }
        let index = token.index as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, Slot::default);
        }
        // A connection of the same index may still stand in the run list: the flag stays with the place.
        let queued = self.slots[index].flags & QUEUED;
        self.slots[index] = Slot {
            stream: Some(stream),
            generation: token.generation,
            room: 0,
            flags: queued | WRITABLE,
            held: None,
        };
        Ok(())
    }

    fn refuse(&mut self, stream: OwnedFd) {
        reset_on_close(&stream);
    }

    #[inline(always)]
    fn receive(&mut self, token: Token, room: u32) {
        if let Some(slot) = self.slot(token) {
            slot.room = room;
            if room > 0 && slot.flags & READABLE != 0 {
                self.enqueue(token.index);
            }
        }
    }

    #[inline(always)]
    fn send(&mut self, token: Token, bytes: Buffer, keep: bool) -> Option<Sent> {
        let Some(slot) = self.slot(token) else {
            return Some(Sent {
                count: 0,
                rest: None,
                broken: Some(Errno::EBADF),
            });
        };
        let sent = if slot.flags & WRITABLE != 0 {
            slot.send(bytes)
        } else {
            Sent {
                count: 0,
                rest: Some(bytes),
                broken: None,
            }
        };
        if keep && sent.count == 0 && sent.rest.is_some() {
            slot.held = sent.rest;
            return None;
        }
        Some(sent)
    }

    fn shutdown(&mut self, token: Token) {
        if let Some(Slot {
            stream: Some(stream),
            ..
        }) = self.slot(token)
        {
            // ENOTCONN, when the peer was faster with a reset: the report of that comes by itself.
            let _ = SockRef::from(&*stream).shutdown(std::net::Shutdown::Write);
        }
    }

    fn close(&mut self, token: Token, reset: bool) -> bool {
        if let Some(slot) = self.slot(token) {
            if let Some(stream) = slot.stream.take_if(|_| reset) {
                reset_on_close(&stream);
            }
            slot.stream = None;
            slot.held = None;
            slot.room = 0;
        }
        true
    }

    fn facts(&self, token: Token) -> Option<TcpInfo> {
        let slot = self.slots.get(token.index as usize)?;
        let stream = slot
            .stream
            .as_ref()
            .filter(|_| slot.generation == token.generation)?;
        sys::tcp_info(stream.as_fd()).ok()
    }

    #[inline(always)]
    fn wait(&mut self, until: Tick, room: u32) -> Tick {
        self.turn_room = room;
        self.due = self.run.len();
        // Counted from the beginning of the turn that is over: late by what it took, which is little.
        let timeout = if self.due > 0 {
            0
        } else {
            timeout(self.now, until)
        };
        self.at = 0;
        // EINTR: a turn with nothing in it, after which the worker waits again.
        self.filled =
            sys::epoll_wait(self.epoll.0.as_fd(), &mut self.events[..], timeout).unwrap_or(0);
        self.now = Tick::now();
        self.now
    }

    #[inline(always)]
    fn next(&mut self) -> Option<Completion<OwnedFd>> {
        loop {
            if self.accepting.is_some() {
                if let Some(completion) = self.accept() {
                    return Some(completion);
                }
            } else if self.at < self.filled {
                let event = self.events[self.at];
                self.at += 1;
                if event.u64 & LISTENING == 0 {
                    if let Some(completion) = self.report(event) {
                        return Some(completion);
                    }
                } else if event.u64 == BELL {
                    return Some(Completion::Woken);
                } else {
                    let slot = slot_of(event.u64);
                    let burst = self
                        .listening
                        .get(slot as usize)
                        .and_then(|l| l.as_ref())
                        .map_or(0, |l| l.burst);
                    self.accepting = (burst > 0).then_some((slot, burst));
                }
            } else if self.due > 0 {
                self.due -= 1;
                let index = self.run.pop_front()?;
                self.slots[index as usize].flags &= !QUEUED;
                if let Some(completion) = self.advance(index) {
                    return Some(completion);
                }
            } else {
                return None;
            }
        }
    }
}

/// A token, as the kernel carries it; its highest bit is clear.
#[inline(always)]
fn pack(token: Token) -> u64 {
    u64::from(token.generation) << 32 | u64::from(token.index)
}

/// The token that was packed.
#[inline(always)]
fn unpack(data: u64) -> Token {
    #[allow(clippy::cast_possible_truncation)]
    Token {
        index: data as u32,
        generation: (data >> 32) as u32,
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

/// The slot of a listening socket, as it was given to the kernel.
fn slot_of(data: u64) -> u16 {
    #[allow(clippy::cast_possible_truncation)]
    {
        data as u16
    }
}

/// Milliseconds from `now` to `until`, for epoll_wait: -1 if it never comes.
#[inline]
fn timeout(now: Tick, until: Tick) -> i32 {
    if until == Tick::NEVER {
        return -1;
    }
    i32::try_from(until.0.saturating_sub(now.0)).unwrap_or(i32::MAX)
}
