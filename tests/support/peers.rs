//! Peers that do something on a thread of their own, and how a connection ended.
//!
//! [`Busy`] keeps a dialogue going, checks every byte of it, and tells how it ended. Part of a test
//! program by `#[path]`, beside `support`.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::support::{PATIENCE, connect, patterned, try_connect_from};

/// The daemon reads the kernel's coarse clock, which goes in steps: so much of a time may be missing.
pub const TICK: Duration = Duration::from_millis(10);

/// How a connection ended, as its peer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// We closed, and were given everything before the daemon closed as well.
    Finished,
    /// The daemon's FIN came first.
    Fin,
    /// A reset.
    Reset,
}

/// How a dialogue went.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// When that was seen.
    pub at: Instant,
    /// Bytes that came back, each of them right.
    pub bytes: u64,
}

/// A peer that says something, waits until it has come back, and says more.
#[derive(Debug)]
pub struct Busy {
    /// Its end tells the peer to finish.
    orders: Sender<()>,
    /// One for each round.
    rounds: Receiver<()>,
    thread: JoinHandle<Outcome>,
}

impl Busy {
    /// Begins, with a few hundred bytes every few milliseconds.
    pub fn start(address: SocketAddr, seed: u64) -> Busy {
        Busy::with(address, seed, 300, Duration::from_millis(5))
    }

    /// Begins, with as much as goes through.
    pub fn at_full_speed(address: SocketAddr, seed: u64) -> Busy {
        Busy::with(address, seed, 40_000, Duration::ZERO)
    }

    fn with(address: SocketAddr, seed: u64, length: usize, pause: Duration) -> Busy {
        let stream = connect(address);
        let (orders, told) = channel();
        let (said, rounds) = channel();
        let thread = thread::spawn(move || converse(&stream, seed, length, pause, &told, &said));
        let busy = Busy {
            orders,
            rounds,
            thread,
        };
        busy.go_on();
        busy
    }

    /// Waits until a few more rounds have been made: it lives.
    pub fn go_on(&self) {
        while self.rounds.try_recv().is_ok() {}
        for _ in 0..3 {
            let round = self.rounds.recv_timeout(PATIENCE);
            round.unwrap_or_else(|why| panic!("a busy peer does not get on: {why}"));
        }
    }

    /// Finishes: closes its side and takes what it is owed.
    pub fn finish(self) -> Outcome {
        drop(self.orders);
        self.thread.join().expect("a dialogue without a mistake")
    }

    /// Waits until the daemon ends it.
    pub fn ended(self) -> Outcome {
        let outcome = self.thread.join().expect("a dialogue without a mistake");
        drop(self.orders);
        outcome
    }
}

fn converse(
    stream: &TcpStream,
    seed: u64,
    length: usize,
    pause: Duration,
    told: &Receiver<()>,
    said: &Sender<()>,
) -> Outcome {
    let mut bytes = 0;
    let ended = |end, bytes| Outcome {
        end,
        at: Instant::now(),
        bytes,
    };
    loop {
        if told.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
            // The daemon may have closed in this very moment.
            let _ = stream.shutdown(Shutdown::Write);
            let end = match end_of(stream) {
                End::Fin => End::Finished,
                other => other,
            };
            return ended(end, bytes);
        }
        let chunk = patterned(seed, bytes, length);
        if let Err(end) = round(stream, &chunk, &mut bytes) {
            return ended(end, bytes);
        }
        let _ = said.send(());
    }
}

/// There and back; what is on its way is less than the daemon keeps, so nobody waits for the other.
fn round(mut stream: &TcpStream, chunk: &[u8], bytes: &mut u64) -> Result<(), End> {
    stream.write_all(chunk).map_err(|error| reset(&error))?;
    let mut back = vec![0; chunk.len()];
    let mut count = 0;
    while count < chunk.len() {
        let more = stream
            .read(&mut back[count..])
            .map_err(|error| reset(&error))?;
        if more == 0 {
            return Err(End::Fin);
        }
        let should = &chunk[count..count + more];
        assert!(
            back[count..count + more] == *should,
            "other bytes came back"
        );
        count += more;
        *bytes += more as u64;
    }
    Ok(())
}

fn reset(error: &std::io::Error) -> End {
    match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => End::Reset,
        other => panic!("neither bytes nor an end: {other}"),
    }
}

/// Waits for the end of a connection on which nothing is expected any more.
pub fn end_of(mut stream: &TcpStream) -> End {
    let mut rest = [0; 64];
    match stream.read(&mut rest) {
        Ok(0) => End::Fin,
        Ok(count) => panic!("bytes instead of an end: {:?}", &rest[..count]),
        Err(error) => reset(&error),
    }
}

/// Connects, says nothing, and waits for the end. A reset may come before connect(2) has returned.
pub fn visit(address: SocketAddr) -> End {
    end_of_visit(TcpStream::connect_timeout(&address, PATIENCE))
}

/// The same from there.
pub fn visit_from(host: u8, address: SocketAddr) -> End {
    end_of_visit(try_connect_from(host, address))
}

fn end_of_visit(connected: std::io::Result<TcpStream>) -> End {
    match connected {
        Ok(stream) => {
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            end_of(&stream)
        }
        Err(error) => reset(&error),
    }
}

/// Is a new connection refused by the kernel, since nobody listens there? A queue that is full is
/// somebody's, too.
pub fn is_refused(address: SocketAddr) -> bool {
    match TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => true,
        // Its socket is being closed, with this one still in the queue.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
        Err(error) if error.kind() == ErrorKind::TimedOut => false,
        Err(error) => panic!("connect to {address}: {error}"),
        Ok(_) => false,
    }
}

/// An address of this host at which nobody listens now.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address")
}
