//! Connections that come and go: connect, send, receive, close, so many at a time.
//!
//! We close first, as most clients do: the server never has to wait for a port.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::conversation::{Conversation, Fault, PATIENCE, cannot};
use crate::pattern::Pattern;

/// How often the loop looks at the time although nothing happens, in milliseconds.
const TICK: u16 = 20;

/// Connections to one server, replaced as they are done.
#[derive(Debug)]
pub struct Churn {
    epoll: Epoll,
    /// One place for each that is open at a time.
    places: Vec<Option<Conversation>>,
    port: u16,
    size: u64,
    pattern: Pattern,
    /// Larger than a message, so that a byte too many is seen.
    buffer: Vec<u8>,
    opened: usize,
    done: u64,
}

impl Churn {
    /// Opens the first connections; each is to carry a message of `size` bytes.
    pub fn open(port: u16, count: usize, size: u64) -> Result<Churn, Fault> {
        let mut churn = Churn {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(cannot("wait"))?,
            places: (0..count).map(|_| None).collect(),
            port,
            size,
            pattern: Pattern::new(),
            buffer: vec![0; 4096],
            opened: 0,
            done: 0,
        };
        (0..count).try_for_each(|place| churn.replace(place))?;
        Ok(churn)
    }

    /// Connections that had their message back.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// Replaces connections for a while.
    pub fn run(&mut self, time: Duration) -> Result<(), Fault> {
        let end = Instant::now() + time;
        self.go_on(Some(end))
    }

    /// Waits for the last ones.
    pub fn finish(mut self) -> Result<(), Fault> {
        self.go_on(None)
    }

    /// Until then; or until nothing is open any more, and nothing new is opened.
    fn go_on(&mut self, end: Option<Instant>) -> Result<(), Fault> {
        let mut events = vec![EpollEvent::empty(); self.places.len()];
        let mut heard = Instant::now();
        loop {
            let now = Instant::now();
            let is_over = match end {
                Some(end) => now >= end,
                None => self.places.iter().all(Option::is_none),
            };
            if is_over {
                return Ok(());
            }
            let count = match self.epoll.wait(&mut events, EpollTimeout::from(TICK)) {
                Err(Errno::EINTR) => 0,
                waited => waited.map_err(cannot("wait"))?,
            };
            if count > 0 {
                heard = now;
            } else if heard.elapsed() > PATIENCE {
                let open = self.places.iter().flatten();
                let missing = open.map(Conversation::outstanding).sum();
                return Err(Fault::Silence { missing });
            }
            for event in &events[..count] {
                // It is the number of a place, as it was given to epoll.
                self.receive(event.data() as usize, end.is_some())?;
            }
        }
    }

    fn receive(&mut self, place: usize, is_replaced: bool) -> Result<(), Fault> {
        let Some(conversation) = &mut self.places[place] else {
            return Ok(());
        };
        conversation.receive(&self.pattern, &mut self.buffer)?;
        if conversation.outstanding() > 0 {
            return Ok(());
        }
        self.done += 1;
        // Closed with its descriptor.
        self.places[place] = None;
        if is_replaced {
            self.replace(place)?;
        }
        Ok(())
    }

    fn replace(&mut self, place: usize) -> Result<(), Fault> {
        let mut conversation = Conversation::open(self.port, self.opened)?;
        self.opened += 1;
        self.epoll
            .add(
                &conversation,
                EpollEvent::new(EpollFlags::EPOLLIN, place as u64),
            )
            .map_err(cannot("wait"))?;
        // A socket that has never been written to takes a message whole.
        conversation.allow(self.size);
        conversation.send(&self.pattern)?;
        self.places[place] = Some(conversation);
        Ok(())
    }
}
