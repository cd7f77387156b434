//! io_uring(7): completions as the kernel gives them.
//!
//! A connection that says little is received from by one multishot operation, which takes small buffers
//! as messages come; one that has filled such a buffer is received from by one operation at a time, into
//! large buffers. Either way an operation brings no more than the connection has room for, and it is never
//! called back for a room that shrinks: whatever it may still bring fits, since the room shrinks by what
//! it brought. Messages are sent from turn memory once, all of a turn in one call, and the kernel answers
//! those alone that it did not take whole. What came in a large buffer is sent by a call of its own, while
//! the cache has it, and so is what came before a receive that is to be armed anew: its room is known only
//! then. Sends from kept memory wait in the kernel for the peer.
//!
//! Needs a kernel that bounds a multishot receive, Linux 6.16 (see [`probe`]). [`ring`] has the queues.

mod event;
mod pool;
mod probe;
mod ring;
mod slot;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::eventfd::EventFd;
use socket2::SockRef;

use super::alarm::Alarm;
use super::{
    Completion, Driver, PLACES, Sent, TcpInfo, Token, accept_next, is_of_one_peer, reset_on_close,
    turn_away,
};
use crate::buffer::Buffer;
use crate::sys;
use crate::tick::Tick;
use event::{Accepted, Event};
use pool::Group;
pub use probe::{Error, probe};
pub use ring::Disabled;
use ring::Ring;
use slot::{Slot, flag, send_at_once};

/// A receive of less than this is a message: a connection that got large buffers gets small ones again.
const MESSAGE: u32 = 16 * 1024;

/// How long a send that was taken whole may go untold when nobody asks and nothing else happens.
const TOLD_WITHIN: Duration = Duration::from_millis(20);

/// A listening socket.
#[derive(Debug, Default)]
struct Listening {
    /// None: nobody is accepted from it any more.
    socket: Option<Arc<OwnedFd>>,
    /// Accepting is under way.
    armed: bool,
}

/// A worker's ring and what is under way by it.
pub struct UringDriver {
    ring: Ring,
    bell: OwnedFd,
    alarm: Alarm,
    slots: Vec<Slot>,
    listening: Vec<Listening>,
    /// Connections whose receive is to be armed with the next turn.
    parked: Vec<u32>,
    /// Those of them that get large buffers: one a turn, so that its bytes are sent while the cache has them.
    bulk: VecDeque<u32>,
    /// Closed connections of which nothing is under way any more.
    gone: Vec<Token>,
    now: Tick,
    /// Most bytes of a receive that is armed in this turn.
    turn_room: u32,
    /// A send of this turn is asked about.
    hurry: bool,
}

impl UringDriver {
    /// Makes rings for so many workers with so many connections together.
    ///
    /// # Errors
    /// What the kernel says where it has no io_uring, does not let us have it, or is too old.
    pub fn rings(workers: u16, connections: u32) -> io::Result<Vec<Disabled>> {
        let each = connections.div_ceil(u32::from(workers.max(1)));
        (0..workers).map(|_| Disabled::new(each)).collect()
    }

    /// The driver of the thread that calls this; `bell` wakes its [`Driver::wait`].
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new(ring: Disabled, bell: &EventFd) -> io::Result<UringDriver> {
        let mut driver = UringDriver {
            ring: ring.enable()?,
            bell: bell.as_fd().try_clone_to_owned()?,
            alarm: Alarm::new()?,
            slots: Vec::with_capacity(PLACES),
            listening: Vec::new(),
            parked: Vec::new(),
            bulk: VecDeque::new(),
            gone: Vec::new(),
            now: Tick::now(),
            turn_room: u32::MAX,
            hurry: false,
        };
        driver.ring.watch_bell(driver.bell.as_fd());
        driver.ring.watch_alarm(driver.alarm.fd());
        Ok(driver)
    }

    /// The open connection that a token names.
    #[inline(always)]
    fn slot(&mut self, token: Token) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(token.index as usize)?;
        let is_open = slot.generation == token.generation && slot.flags & flag::CLOSING == 0;
        (is_open && slot.stream.is_some()).then_some(slot)
    }

    /// The socket of the connection that a token names.
    fn stream(&self, token: Token) -> Option<&OwnedFd> {
        let slot = self.slots.get(token.index as usize)?;
        let is_its = slot.generation == token.generation;
        slot.stream.as_ref().filter(|_| is_its)
    }

    fn token(&self, index: u32) -> Token {
        let generation = self.slots[index as usize].generation;
        Token { index, generation }
    }

    /// Receives from a connection that wants to and does not yet.
    fn arm(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        let Some(stream) = &slot.stream else { return };
        if slot.room == 0 || slot.flags & (flag::ARMED | flag::ENDED | flag::CLOSING) != 0 {
            return;
        }
        slot.flags |= flag::ARMED;
        let most = slot.room.min(self.turn_room);
        let small = Group::Small.size();
        if slot.flags & flag::BULK != 0 || most < 2 * small {
            let most = most.min(Group::Large.size());
            self.ring.receive_once(index, stream.as_fd(), most);
        } else {
            // The last message may bring a whole buffer past the limit.
            self.ring.receive_many(index, stream.as_fd(), most - small);
        }
    }

    /// Something of a connection came home. If it is closed and that was the last, it is gone.
    fn settle(&mut self, index: u32, home: u8) {
        let token = self.token(index);
        let slot = &mut self.slots[index as usize];
        slot.flags &= !home;
        if slot.flags & flag::CLOSING != 0 && slot.flags & (flag::ARMED | flag::SENDING) == 0 {
            *slot = Slot::default();
            self.gone.push(token);
        }
    }

    /// Takes note of an event; the completion that it means, if it means one.
    fn note(&mut self, event: Event) -> Option<Completion<OwnedFd>> {
        match event {
            Event::Received {
                index,
                input,
                armed,
            } => {
                let token = self.token(index);
                let slot = &mut self.slots[index as usize];
                if input.len() >= Group::Small.size() {
                    slot.flags |= flag::BULK;
                } else if input.len() < MESSAGE {
                    slot.flags &= !flag::BULK;
                }
                let is_closing = slot.flags & flag::CLOSING != 0;
                if !armed {
                    self.settle(index, flag::ARMED);
                    self.park(index);
                }
                (!is_closing).then_some(Completion::Received { token, input })
            }
            Event::ReceiveEnded { index, errno } => self.note_end(index, errno),
            Event::Sent { index, sent } => self.note_sent(index, sent),
            Event::Rung { armed } => {
                if !armed {
                    self.ring.watch_bell(self.bell.as_fd());
                }
                Some(Completion::Woken)
            }
            Event::Alarm { armed } => {
                self.alarm.went_off();
                if !armed {
                    self.ring.watch_alarm(self.alarm.fd());
                }
                None
            }
        }
    }

    /// A receive ended without bytes.
    fn note_end(&mut self, index: u32, errno: Option<Errno>) -> Option<Completion<OwnedFd>> {
        let token = self.token(index);
        let is_closing = self.slots[index as usize].flags & flag::CLOSING != 0;
        self.settle(index, flag::ARMED);
        let completion = match errno {
            // No buffer was left, or it was called back for nothing: it is asked again.
            Some(Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR | Errno::ECANCELED) => {
                self.park(index);
                return None;
            }
            None => Completion::PeerClosed { token },
            Some(errno) => Completion::Failed { token, errno },
        };
        if is_closing {
            return None;
        }
        self.slots[index as usize].flags |= flag::ENDED;
        Some(completion)
    }

    fn note_sent(&mut self, index: u32, sent: Sent) -> Option<Completion<OwnedFd>> {
        let token = self.token(index);
        self.settle(index, flag::SENDING);
        Some(Completion::Sent { token, sent })
    }

    /// Has the receive of a connection armed with the next turn, when memory has come home.
    fn park(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        if slot.stream.is_some() && slot.flags & flag::PARKED == 0 {
            slot.flags |= flag::PARKED;
            if slot.flags & flag::BULK == 0 {
                self.parked.push(index);
            } else {
                self.bulk.push_back(index);
            }
        }
    }

    fn unpark(&mut self, index: u32) {
        self.slots[index as usize].flags &= !flag::PARKED;
        self.arm(index);
    }

    /// A peer that came in, or why none does.
    fn note_accepted(&mut self, accepted: Accepted) -> Option<Completion<OwnedFd>> {
        let Accepted {
            slot,
            stream,
            armed,
        } = accepted;
        if !armed {
            self.listening[slot as usize].armed = false;
            // Not where the next would fare no better: the worker pauses.
            if stream
                .as_ref()
                .err()
                .is_none_or(|errno| is_of_one_peer(*errno))
            {
                self.accept_from(slot);
            }
        }
        match stream {
            // It has no address any more if it is gone already, and then there is nobody to serve.
            Ok(stream) => match sys::peer_address(stream.as_fd()) {
                Ok(peer) => Some(Completion::Accepted { slot, stream, peer }),
                Err(_) => None,
            },
            Err(Errno::ECANCELED) => None,
            Err(errno) if is_of_one_peer(errno) => None,
            Err(errno) => Some(Completion::AcceptFailed { errno }),
        }
    }

    fn accept_from(&mut self, slot: u16) {
        let listening = &mut self.listening[slot as usize];
        if let (Some(socket), false) = (&listening.socket, listening.armed) {
            listening.armed = true;
            self.ring.accept(slot, socket.as_fd());
        }
    }
}

impl Driver for UringDriver {
    type Listening = Arc<OwnedFd>;
    type Stream = OwnedFd;

    fn listen(&mut self, slot: u16, socket: Option<&Arc<OwnedFd>>) -> Result<(), Errno> {
        let place = slot as usize;
        if self.listening.len() <= place {
            self.listening.resize_with(place + 1, Listening::default);
        }
        self.listening[place].socket = None;
        if self.listening[place].armed {
            // Joined: whom the kernel accepts until then is told or found by `accept_waiting`.
            self.ring.cancel_accept(slot);
            while !self.ring.has_stopped_accepting(slot) {
                self.ring.turn(true);
            }
            self.listening[place].armed = false;
        }
        if let Some(socket) = socket {
            self.listening[place].socket = Some(Arc::clone(socket));
            self.accept_from(slot);
        }
        Ok(())
    }

    fn accept_waiting(
        &mut self,
        slot: u16,
        socket: Option<&Arc<OwnedFd>>,
    ) -> Option<(OwnedFd, SocketAddr)> {
        while let Some(stream) = self.ring.next_accepted_by(slot) {
            if let Ok(peer) = sys::peer_address(stream.as_fd()) {
                return Some((stream, peer));
            }
        }
        accept_next(socket?)
    }

    fn open(&mut self, token: Token, stream: OwnedFd) -> Result<(), Errno> {
        let index = token.index as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, Slot::default);
        }
        self.slots[index] = Slot {
            stream: Some(stream),
            generation: token.generation,
            room: 0,
            flags: 0,
        };
        Ok(())
    }

    fn refuse(&mut self, stream: OwnedFd, line: Option<&[u8]>) {
        turn_away(&stream, line);
    }

    fn receive(&mut self, token: Token, room: u32) {
        if let Some(slot) = self.slot(token) {
            slot.room = room;
            self.arm(token.index);
        }
    }

    #[inline(always)]
    fn send(&mut self, token: Token, bytes: Buffer) -> Option<Sent> {
        // Not by `slot`: the ring is borrowed besides.
        let slot = self.slots.get_mut(token.index as usize);
        let Some(Slot {
            stream: Some(stream),
            flags,
            ..
        }) = slot.filter(|slot| slot.generation == token.generation)
        else {
            return Some(Sent::Broken(Errno::EBADF));
        };
        if bytes.is_kept() {
            self.ring.send(token.index, stream.as_fd(), bytes);
        } else if *flags & flag::ARMED != 0 && bytes.len() < Group::Small.size() {
            self.ring.send_now(token, stream.as_fd(), bytes);
        } else {
            return Some(send_at_once(stream, bytes));
        }
        *flags |= flag::SENDING;
        None
    }

    fn shutdown(&mut self, token: Token) {
        if let Some(Slot {
            stream: Some(stream),
            ..
        }) = self.slot(token)
        {
            // ENOTCONN, when the peer was faster with a reset: the receive says so.
            let _ = SockRef::from(&*stream).shutdown(std::net::Shutdown::Write);
        }
    }

    fn close(&mut self, token: Token, reset: bool) -> bool {
        let Some(slot) = self.slot(token) else {
            return true;
        };
        slot.room = 0;
        let is_quiet = slot.flags & (flag::ARMED | flag::SENDING) == 0;
        slot.flags |= flag::CLOSING;
        let slot = &mut self.slots[token.index as usize];
        if let Some(stream) = &slot.stream {
            if reset {
                reset_on_close(stream);
            }
            if !is_quiet {
                // The descriptor's number must not be another's while an operation names it.
                self.ring.cancel_all(stream.as_fd());
                return false;
            }
        }
        *slot = Slot::default();
        true
    }

    fn facts(&self, token: Token) -> Option<TcpInfo> {
        sys::tcp_info(self.stream(token)?.as_fd()).ok()
    }

    fn congestion(&self, token: Token) -> Option<String> {
        sys::congestion(self.stream(token)?.as_fd()).ok()
    }

    fn hurry(&mut self) {
        self.hurry = true;
    }

    #[inline(always)]
    fn wait(&mut self, until: Tick, room: u32) -> Tick {
        self.turn_room = room;
        // A send that is taken whole wakes nobody.
        let hurry = std::mem::take(&mut self.hurry) && self.ring.is_sending();
        while let Some(index) = self.parked.pop() {
            self.unpark(index);
        }
        if let Some(index) = self.bulk.pop_front() {
            self.unpark(index);
        }
        let sleep = !hurry
            && until > self.now
            && self.bulk.is_empty()
            && self.gone.is_empty()
            && !self.ring.has_news();
        if sleep {
            let told_by = if self.ring.is_sending() {
                self.now + TOLD_WITHIN
            } else {
                Tick::NEVER
            };
            self.alarm.cover(until.min(told_by));
        }
        self.ring.turn(sleep);
        self.now = Tick::now();
        self.now
    }

    #[inline(always)]
    fn next_all_sent(&mut self) -> Option<(Token, u32)> {
        let (token, count) = self.ring.next_all_sent()?;
        let slot = &mut self.slots[token.index as usize];
        slot.flags &= !flag::SENDING;
        if slot.flags & flag::CLOSING != 0 {
            self.settle(token.index, flag::SENDING);
        }
        Some((token, count))
    }

    #[inline(always)]
    fn next_received(&mut self) -> Option<(Token, Buffer)> {
        let (index, input) = self.ring.next_message()?;
        let slot = &self.slots[index as usize];
        if slot.flags & flag::CLOSING != 0 {
            return None;
        }
        let generation = slot.generation;
        Some((Token { index, generation }, input))
    }

    fn next(&mut self) -> Option<Completion<OwnedFd>> {
        if let Some((token, sent)) = self.ring.next_sent() {
            self.settle(token.index, flag::SENDING);
            return Some(Completion::Sent { token, sent });
        }
        while let Some(event) = self.ring.next() {
            if let Some(completion) = self.note(event) {
                return Some(completion);
            }
        }
        while let Some(accepted) = self.ring.next_accepted() {
            if let Some(completion) = self.note_accepted(accepted) {
                return Some(completion);
            }
        }
        let token = self.gone.pop()?;
        Some(Completion::Gone { token })
    }
}
