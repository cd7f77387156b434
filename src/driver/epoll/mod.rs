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

use super::alarm::Alarm;
use super::{
    Completion, Driver, PLACES, Sent, TcpInfo, Token, accept_next, is_of_one_peer, reset_on_close,
    turn_away,
};
use crate::buffer::{Buffer, TurnMemory};
use crate::sys::{self, EpollEvent};
use crate::tick::Tick;
use slot::Slot;
use slot::flag::{QUEUED, READABLE, WRITABLE};

/// Readiness reports taken from the kernel at once: the most connections that wait for one turn's end.
const EVENTS: usize = 256;

/// Most peers accepted from one socket in a turn, once a queue has formed.
const ACCEPT_BURST: u16 = 64;

/// What a connection's registration asks for.
const INTEREST: u32 = (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET).cast_unsigned();

/// What few messages have in their report.
const RARE: u32 = (EPOLLERR | EPOLLHUP | EPOLLRDHUP | EPOLLPRI).cast_unsigned();

/// The bit that tells the data of any other registration from a token's: a listening socket's slot is in
/// the lowest bits.
const OTHER: u64 = 1 << 63;
const BELL: u64 = u64::MAX;
const ALARM: u64 = u64::MAX - 1;

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
    alarm: Alarm,
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
    /// What [`Driver::next_received`] came upon and was not its business.
    found: Option<Completion<OwnedFd>>,
    /// Sockets to accept from, and the peers that each may still bring in this turn.
    accepting: Vec<(u16, u16)>,
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
        let alarm = Alarm::new()?;
        sys::epoll_add(
            epoll.0.as_fd(),
            alarm.fd(),
            (EPOLLIN | EPOLLET).cast_unsigned(),
            ALARM,
        )?;
        Ok(EpollDriver {
            epoll,
            alarm,
            slots: Vec::with_capacity(PLACES),
            listening: Vec::new(),
            memory: TurnMemory::new(),
            now: Tick::now(),
            turn_room: 0,
            events: Box::new([sys::NO_EVENT; EVENTS]),
            at: 0,
            filled: 0,
            found: None,
            accepting: Vec::new(),
            run: VecDeque::new(),
            due: 0,
        })
    }

    /// The open connection that a token names.
    #[inline(always)]
    fn slot(&mut self, token: Token) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(token.index as usize)?;
        (slot.generation == token.generation).then_some(slot)
    }

    /// The socket of the connection that a token names.
    fn stream(&self, token: Token) -> Option<&OwnedFd> {
        let slot = self.slots.get(token.index as usize)?;
        let is_its = slot.generation == token.generation;
        slot.stream.as_ref().filter(|_| is_its)
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
    fn report(&mut self, event: EpollEvent) -> Option<Completion<OwnedFd>> {
        let token = unpack(event.u64);
        let slot = self.slot(token)?;
        slot.flags |= event.events & (READABLE | WRITABLE);
        let failed = if event.events & RARE != 0 {
            slot.note_rare(token, event.events)
        } else {
            None
        };
        failed.or_else(|| self.advance(token.index))
    }

    /// Sends what waits, else receives, if the socket allows it and the connection wants to. A socket that
    /// has more goes to the end of the run list.
    fn advance(&mut self, index: u32) -> Option<Completion<OwnedFd>> {
        let slot = &mut self.slots[index as usize];
        let token = Token {
            index,
            generation: slot.generation,
        };
        let completion = if slot.held.is_some() && slot.flags & WRITABLE != 0 {
            slot.send_held(token)
        } else if slot.flags & READABLE != 0 && slot.room > 0 {
            match slot.receive(&mut self.memory, self.turn_room) {
                Ok(input) if !input.is_empty() => Some(Completion::Received { token, input }),
                other => slot.received_nothing(token, other.err()),
            }
        } else {
            return None;
        };
        if slot.flags & READABLE != 0 {
            self.enqueue(index);
        }
        completion
    }

    /// What is ready and is no connection: the bell, the alarm, or a listening socket, which is accepted
    /// from when the connections have been looked at.
    fn report_other(&mut self, data: u64) -> Option<Completion<OwnedFd>> {
        match data {
            BELL => return Some(Completion::Woken),
            ALARM => self.alarm.went_off(),
            listening => {
                let slot = slot_of(listening);
                let burst = self.listening.get(slot as usize)?.as_ref()?.burst;
                self.accepting.push((slot, burst));
            }
        }
        None
    }

    /// Accepts a peer, if there is one; at most `left` of them in this turn.
    fn accept(&mut self, slot: u16, left: u16) -> Option<Completion<OwnedFd>> {
        let listening = self.listening.get_mut(slot as usize)?.as_mut()?;
        match sys::accept(listening.socket.as_fd()) {
            Ok((stream, peer)) => {
                if left > 1 {
                    self.accepting.push((slot, left - 1));
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
                OTHER | u64::from(slot),
            )?;
            self.listening[slot as usize] = Some(Listening {
                socket: Arc::clone(socket),
                burst: 1,
            });
        }
        Ok(())
    }

    fn accept_waiting(
        &mut self,
        _slot: u16,
        socket: Option<&Arc<OwnedFd>>,
    ) -> Option<(OwnedFd, SocketAddr)> {
        accept_next(socket?)
    }

    fn open(&mut self, token: Token, stream: OwnedFd) -> Result<(), Errno> {
        if let Err(errno) =
            sys::epoll_add(self.epoll.0.as_fd(), stream.as_fd(), INTEREST, pack(token))
        {
            self.refuse(stream, None);
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
            flags: queued | WRITABLE,
            ..Slot::default()
        };
        Ok(())
    }

    fn refuse(&mut self, stream: OwnedFd, line: Option<&[u8]>) {
        turn_away(&stream, line);
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
    fn send(&mut self, token: Token, bytes: Buffer) -> Option<Sent> {
        let Some(slot) = self.slot(token) else {
            return Some(Sent::Broken(Errno::EBADF));
        };
        let sent = if slot.flags & WRITABLE != 0 {
            slot.send(bytes)
        } else {
            Sent::of(bytes, 0)
        };
        match sent {
            Sent::Part { count: 0, rest } if rest.is_kept() => {
                slot.held = Some(Box::new(rest));
                None
            }
            sent => Some(sent),
        }
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
            if let Some(stream) = slot.stream.as_ref().filter(|_| reset) {
                reset_on_close(stream);
            }
            slot.close();
        }
        true
    }

    fn facts(&self, token: Token) -> Option<TcpInfo> {
        sys::tcp_info(self.stream(token)?.as_fd()).ok()
    }

    fn congestion(&self, token: Token) -> Option<String> {
        sys::congestion(self.stream(token)?.as_fd()).ok()
    }

    #[inline(always)]
    fn wait(&mut self, until: Tick, room: u32) -> Tick {
        self.turn_room = room;
        self.due = self.run.len();
        let timeout = if self.due > 0 || until <= self.now {
            0
        } else {
            self.alarm.cover(until);
            -1
        };
        self.at = 0;
        // EINTR: a turn with nothing in it, after which the worker waits again.
        self.filled =
            sys::epoll_wait(self.epoll.0.as_fd(), &mut self.events[..], timeout).unwrap_or(0);
        self.now = Tick::now();
        self.now
    }

    #[inline(always)]
    fn next_received(&mut self) -> Option<(Token, Buffer)> {
        let event = self.events[..self.filled].get(self.at)?;
        let token = unpack(event.u64);
        // What is no connection finds none: its generation is one that tokens do not have.
        let slot = self.slots.get_mut(token.index as usize)?;
        if slot.generation != token.generation
            || event.events & (RARE | READABLE) != READABLE
            || slot.room == 0
            || slot.held.is_some()
        {
            return None;
        }
        self.at += 1;
        slot.flags |= event.events & (READABLE | WRITABLE);
        match slot.receive(&mut self.memory, self.turn_room) {
            Ok(input) if !input.is_empty() => {
                if slot.flags & READABLE != 0 {
                    self.enqueue(token.index);
                }
                Some((token, input))
            }
            other => {
                self.found = slot.received_nothing(token, other.err());
                None
            }
        }
    }

    fn next(&mut self) -> Option<Completion<OwnedFd>> {
        if self.found.is_some() {
            return self.found.take();
        }
        while self.at < self.filled {
            let event = self.events[self.at];
            self.at += 1;
            let completion = if event.u64 & OTHER == 0 {
                self.report(event)
            } else {
                self.report_other(event.u64)
            };
            if completion.is_some() {
                return completion;
            }
        }
        while let Some((slot, left)) = self.accepting.pop() {
            if let Some(completion) = self.accept(slot, left) {
                return Some(completion);
            }
        }
        while self.due > 0 {
            self.due -= 1;
            let index = self.run.pop_front()?;
            self.slots[index as usize].flags &= !QUEUED;
            if let Some(completion) = self.advance(index) {
                return Some(completion);
            }
        }
        None
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

/// The slot of a listening socket, as it was given to the kernel.
fn slot_of(data: u64) -> u16 {
    #[allow(clippy::cast_possible_truncation)]
    {
        data as u16
    }
}
