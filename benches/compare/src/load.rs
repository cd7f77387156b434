//! Many connections in one loop: request and response, streams, crowds.
//!
//! Level-triggered epoll: each event is one read and, if there is something to send, one write. Writing is
//! waited for only while a socket is full.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::conversation::{Conversation, Fault, PATIENCE, cannot};
use crate::pattern::{Pattern, WINDOW};

/// How often the loop looks at the time although nothing happens, in milliseconds.
const TICK: u16 = 20;

/// Most events that are asked for at once.
const EVENTS: usize = 512;

/// When the next bytes are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// A message for each that came back whole; so many bytes each, and so many on their way.
    Messages {
        /// Bytes of a message.
        size: u64,
        /// Messages that are outstanding on each connection.
        depth: u64,
    },
    /// As fast as the socket takes them.
    Flood,
}

/// Connections to one server.
#[derive(Debug)]
pub struct Load {
    epoll: Epoll,
    conversations: Vec<Conversation>,
    /// Of each connection: is its socket full, so that epoll is asked when it is not?
    blocked: Vec<bool>,
    pattern: Pattern,
    buffer: Vec<u8>,
    events: Vec<EpollEvent>,
    echoed: u64,
    port: u16,
    /// Connections that have begun to send.
    begun: usize,
}

impl Load {
    /// No connections yet to a port.
    pub fn new(port: u16) -> Result<Load, Fault> {
        Ok(Load {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(cannot("wait"))?,
            conversations: Vec::new(),
            blocked: Vec::new(),
            pattern: Pattern::new(),
            buffer: vec![0; WINDOW],
            events: vec![EpollEvent::empty(); EVENTS],
            echoed: 0,
            port,
            begun: 0,
        })
    }

    /// Opens so many connections more.
    pub fn open(&mut self, count: usize) -> Result<(), Fault> {
        for _ in 0..count {
            let number = self.conversations.len();
            let conversation = Conversation::open(self.port, number)?;
            self.epoll
                .add(&conversation, interest(number, false))
                .map_err(cannot("wait"))?;
            self.conversations.push(conversation);
            self.blocked.push(false);
        }
        Ok(())
    }

    /// Bytes that have come back on all connections.
    pub fn echoed(&self) -> u64 {
        self.echoed
    }

    /// Sends the first bytes on every connection that has not begun.
    pub fn begin(&mut self, pace: Pace) -> Result<(), Fault> {
        let first = match pace {
            Pace::Messages { size, depth } => size * depth,
            Pace::Flood => u64::MAX,
        };
        for index in self.begun..self.conversations.len() {
            self.conversations[index].allow(first);
            self.send(index)?;
        }
        self.begun = self.conversations.len();
        Ok(())
    }

    /// Keeps going for a while.
    pub fn run(&mut self, pace: Pace, time: Duration) -> Result<(), Fault> {
        let end = Instant::now() + time;
        let mut heard = Instant::now();
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            if self.turn(Some(pace))? > 0 {
                heard = now;
            }
            self.bear(heard)?;
        }
    }

    /// Waits until all is back that was or may be sent; nothing further is begun.
    pub fn settle(&mut self) -> Result<(), Fault> {
        let due: u64 = self.conversations.iter().map(Conversation::due).sum();
        let all = self.echoed + due;
        let mut heard = Instant::now();
        while self.echoed < all {
            if self.turn(None)? > 0 {
                heard = Instant::now();
            }
            self.bear(heard)?;
        }
        Ok(())
    }

    /// Nothing more is sent; [`Load::settle`] waits for what is on its way.
    pub fn fall_silent(&mut self) {
        self.conversations
            .iter_mut()
            .for_each(Conversation::fall_silent);
    }

    /// Half-closes every connection and makes sure that nothing but the server's FIN comes.
    pub fn finish(self) -> Result<(), Fault> {
        for conversation in &self.conversations {
            conversation.half_close()?;
        }
        self.conversations
            .into_iter()
            .try_for_each(Conversation::expect_end)
    }

    /// Has something happened lately?
    fn bear(&self, heard: Instant) -> Result<(), Fault> {
        if heard.elapsed() < PATIENCE {
            return Ok(());
        }
        let missing = self.conversations.iter().map(Conversation::outstanding);
        Err(Fault::Silence {
            missing: missing.sum(),
        })
    }

    /// Waits for events and handles them; answers how many there were.
    fn turn(&mut self, pace: Option<Pace>) -> Result<usize, Fault> {
        let count = match self.epoll.wait(&mut self.events, EpollTimeout::from(TICK)) {
            Err(Errno::EINTR) => 0,
            waited => waited.map_err(cannot("wait"))?,
        };
        for at in 0..count {
            let event = self.events[at];
            // It is the place of a connection in the vector, as it was given to epoll.
            let index = event.data() as usize;
            if event.events() != EpollFlags::EPOLLOUT {
                self.receive(index, pace)?;
            }
            if self.conversations[index].may_send() || self.blocked[index] {
                self.send(index)?;
            }
        }
        Ok(count)
    }

    fn receive(&mut self, index: usize, pace: Option<Pace>) -> Result<(), Fault> {
        let conversation = &mut self.conversations[index];
        let before = conversation.received();
        self.echoed += conversation.receive(&self.pattern, &mut self.buffer)?;
        if let Some(Pace::Messages { size, .. }) = pace {
            conversation.allow((conversation.received() / size - before / size) * size);
        }
        Ok(())
    }

    /// Writes once, and has epoll tell when there is room for what is left.
    fn send(&mut self, index: usize) -> Result<(), Fault> {
        let conversation = &mut self.conversations[index];
        if conversation.may_send() {
            conversation.send(&self.pattern)?;
        }
        let is_blocked = conversation.may_send();
        if self.blocked[index] != is_blocked {
            self.blocked[index] = is_blocked;
            self.epoll
                .modify(&*conversation, &mut interest(index, is_blocked))
                .map_err(cannot("wait"))?;
        }
        Ok(())
    }
}

/// What epoll is asked about a connection.
fn interest(index: usize, is_blocked: bool) -> EpollEvent {
    let writable = if is_blocked {
        EpollFlags::EPOLLOUT
    } else {
        EpollFlags::empty()
    };
    EpollEvent::new(EpollFlags::EPOLLIN | writable, index as u64)
}
