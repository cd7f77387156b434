//! One connection: sends what it may, and compares whatever comes back with what was sent.
//!
//! It owns the socket and three positions in the stream; who calls it when is the load's business.
//! Invariant: received <= sent <= allowed.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::pattern::Pattern;

/// Most bytes of one write.
const WRITE: usize = 64 * 1024;

/// How long nothing may come back that should.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What should not happen while bytes go to a server and come back.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// A byte is not the one that was sent: changed, moved, doubled or another connection's.
    #[error("connection {number}: wrong bytes from {position} on")]
    Wrong {
        /// The connection.
        number: usize,
        /// Where in its stream.
        position: u64,
    },
    /// The server closed, and owes bytes or was not asked to.
    #[error("connection {number}: closed by the server, {missing} bytes missing")]
    Closed {
        /// The connection.
        number: usize,
        /// Bytes that were sent and did not come back.
        missing: u64,
    },
    /// More came back than was sent.
    #[error("connection {number}: bytes that nobody sent")]
    Surplus {
        /// The connection.
        number: usize,
    },
    /// Bytes are missing and do not come.
    #[error("nothing comes back any more, {missing} bytes missing")]
    Silence {
        /// Bytes that were sent on all connections and did not come back.
        missing: u64,
    },
    /// The kernel refused something.
    #[error("cannot {what}: {source}")]
    Kernel {
        /// What was to be done.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
}

/// Says what was to be done, for whoever reads that it failed.
pub fn cannot<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Fault {
    move |error| Fault::Kernel {
        what,
        source: error.into(),
    }
}

/// One connection.
#[derive(Debug)]
pub struct Conversation {
    stream: TcpStream,
    number: usize,
    allowed: u64,
    sent: u64,
    received: u64,
}

impl Conversation {
    /// Connects to a port of this machine. The number chooses what is sent, and the address that it comes from.
    pub fn open(port: u16, number: usize) -> Result<Conversation, Fault> {
        Ok(Conversation {
            stream: connect(port, number).map_err(cannot("connect"))?,
            number,
            allowed: 0,
            sent: 0,
            received: 0,
        })
    }

    /// Lets it send so many bytes more.
    pub fn allow(&mut self, bytes: u64) {
        self.allowed = self.allowed.saturating_add(bytes);
    }

    /// From now on it sends nothing more.
    pub fn fall_silent(&mut self) {
        self.allowed = self.sent;
    }

    /// Is there something that it may send?
    pub fn may_send(&self) -> bool {
        self.sent < self.allowed
    }

    /// Bytes that were sent and did not come back yet.
    pub fn outstanding(&self) -> u64 {
        self.sent - self.received
    }

    /// Bytes that have to come back before it has nothing more to do.
    pub fn due(&self) -> u64 {
        self.allowed - self.received
    }

    /// Bytes that came back.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Writes once, as much of what it may send as the socket takes.
    pub fn send(&mut self, pattern: &Pattern) -> Result<(), Fault> {
        let length = usize::try_from(self.allowed - self.sent).unwrap_or(WRITE);
        let bytes = pattern.at(self.number, self.sent, length.min(WRITE));
        match self.stream.write(bytes) {
            Ok(count) => self.sent += count as u64,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(cannot("send")(error)),
        }
        Ok(())
    }

    /// Reads once, and answers how many bytes came back as they were sent.
    pub fn receive(&mut self, pattern: &Pattern, buffer: &mut [u8]) -> Result<u64, Fault> {
        let number = self.number;
        let count = match self.stream.read(buffer) {
            Ok(0) => {
                let missing = self.outstanding();
                return Err(Fault::Closed { number, missing });
            }
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(cannot("receive")(error)),
        };
        if count as u64 > self.outstanding() {
            return Err(Fault::Surplus { number });
        }
        let position = self.received;
        if buffer[..count] != *pattern.at(number, position, count) {
            return Err(Fault::Wrong { number, position });
        }
        self.received += count as u64;
        Ok(count as u64)
    }

    /// Sends our FIN.
    pub fn half_close(&self) -> Result<(), Fault> {
        self.stream
            .shutdown(Shutdown::Write)
            .map_err(cannot("half-close"))
    }

    /// After our FIN, with nothing outstanding: what comes has to be the server's FIN.
    pub fn expect_end(mut self) -> Result<(), Fault> {
        self.stream
            .set_nonblocking(false)
            .and_then(|()| self.stream.set_read_timeout(Some(PATIENCE)))
            .map_err(cannot("wait for the server's FIN"))?;
        match self.stream.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(Fault::Surplus {
                number: self.number,
            }),
            Err(error) => Err(cannot("receive the server's FIN")(error)),
        }
    }
}

impl AsFd for Conversation {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Each connection comes from the next of many addresses: those that were closed keep their ports for a
/// minute, and one address has 28,000 of them, which is what churn takes in a second or two.
fn source(number: usize) -> SocketAddrV4 {
    let [_, _, high, low] = u32::try_from(number % 50_000)
        .unwrap_or_default()
        .to_be_bytes();
    SocketAddrV4::new(Ipv4Addr::new(127, 1, high, low), 0)
}

fn connect(port: u16, number: usize) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&source(number).into())?;
    // On one machine this returns as soon as there is room in the server's queue.
    socket.connect(&SocketAddrV4::new(Ipv4Addr::LOCALHOST, port).into())?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
