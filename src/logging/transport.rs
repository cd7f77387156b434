//! Datagrams to a local socket whose owner may be slow, restarted or not there.
//!
//! Owns the socket and opens it again when the receiver went away. Never waits longer than [`PATIENCE`]
//! for one datagram; what cannot be sent by then is dropped, and the caller counts it.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The longest that one write waits for a receiver that is full.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);

/// The least time between two attempts to connect.
pub(super) const RECONNECT_PAUSE: Duration = Duration::from_secs(1);

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Outcome {
    /// The receiver has it.
    Written,
    /// Nobody has it.
    Dropped,
}

/// A socket that may have to be opened again.
#[derive(Debug)]
pub(super) struct Datagrams {
    path: PathBuf,
    socket: Option<UnixDatagram>,
    /// When it was last tried to connect.
    tried_at: Option<Instant>,
}

impl Datagrams {
    /// To whoever owns the socket at `path`; nothing is opened before there is something to send.
    pub(super) fn to(path: PathBuf) -> Datagrams {
        Datagrams {
            path,
            socket: None,
            tried_at: None,
        }
    }

    /// Sends one datagram, or drops it.
    pub(super) fn send(&mut self, now: Instant, datagram: &[u8]) -> Outcome {
        // Twice: a restarted log daemon shows itself only when it is written to, and a datagram that
        // finds the old socket dead goes to the new one.
        for _ in 0..2 {
            if self.socket.is_none() {
                self.connect(now);
            }
            let Some(socket) = &self.socket else {
                return Outcome::Dropped;
            };
            match send_patiently(socket, datagram) {
                Ok(()) => return Outcome::Written,
                Err(error) if is_gone(&error) => self.socket = None,
                Err(_) => return Outcome::Dropped,
            }
        }
        Outcome::Dropped
    }

    fn connect(&mut self, now: Instant) {
        if self
            .tried_at
            .is_some_and(|tried_at| now.duration_since(tried_at) < RECONNECT_PAUSE)
        {
            return;
        }
        self.tried_at = Some(now);
        self.socket = self.open().ok();
    }

    fn open(&self) -> io::Result<UnixDatagram> {
        let socket = UnixDatagram::unbound()?;
        // Before it connects: for a stream that could wait, and a datagram socket is no place to find out.
        socket.set_nonblocking(true)?;
        socket.connect(&self.path)?;
        Ok(socket)
    }
}

/// Sends, and waits once for room.
fn send_patiently(socket: &UnixDatagram, datagram: &[u8]) -> io::Result<()> {
    match send(socket, datagram) {
        Err(error) if error.kind() == ErrorKind::WouldBlock && has_room_soon(socket) => {
            send(socket, datagram)
        }
        outcome => outcome,
    }
}

fn send(socket: &UnixDatagram, datagram: &[u8]) -> io::Result<()> {
    loop {
        match socket.send(datagram) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            sent => return sent.map(drop),
        }
    }
}

/// Waits for room, for [`PATIENCE`] at most. A signal ends the wait early: then there is none yet.
pub(super) fn has_room_soon(descriptor: &impl AsFd) -> bool {
    let mut descriptors = [PollFd::new(descriptor.as_fd(), PollFlags::POLLOUT)];
    let timeout = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::ZERO);
    matches!(poll(&mut descriptors, timeout), Ok(ready) if ready > 0)
}

/// Is the receiver gone, rather than slow?
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::NotConnected
            | ErrorKind::NotFound
            | ErrorKind::BrokenPipe
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tempfile::TempDir;

    fn receive(socket: &UnixDatagram) -> Vec<u8> {
        let mut bytes = [0; 4096];
        let count = socket.recv(&mut bytes).expect("a datagram");
        bytes[..count].to_vec()
    }

    fn place() -> (TempDir, PathBuf) {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("log");
        (directory, path)
    }

    #[test]
    fn a_receiver_that_is_made_again_loses_nothing() {
        let (_directory, path) = place();
        let first = UnixDatagram::bind(&path).expect("bind");
        let mut datagrams = Datagrams::to(path.clone());
        let start = Instant::now();
        assert_eq!(datagrams.send(start, b"one"), Outcome::Written);
        assert_eq!(receive(&first), b"one");

        drop(first);
        fs::remove_file(&path).expect("remove");
        let second = UnixDatagram::bind(&path).expect("bind again");
        assert_eq!(
            datagrams.send(start + RECONNECT_PAUSE, b"two"),
            Outcome::Written
        );
        assert_eq!(receive(&second), b"two");
    }

    #[test]
    fn attempts_to_connect_are_a_pause_apart() {
        let (_directory, path) = place();
        let mut datagrams = Datagrams::to(path.clone());
        let start = Instant::now();
        assert_eq!(datagrams.send(start, b"nobody there"), Outcome::Dropped);

        let receiver = UnixDatagram::bind(&path).expect("bind");
        let early = start + RECONNECT_PAUSE - Duration::from_millis(1);
        assert_eq!(datagrams.send(early, b"too early"), Outcome::Dropped);
        assert_eq!(
            datagrams.send(start + RECONNECT_PAUSE, b"now"),
            Outcome::Written
        );
        assert_eq!(receive(&receiver), b"now");
    }

    #[test]
    fn a_full_receiver_costs_datagrams_and_a_bounded_wait() {
        let (_directory, path) = place();
        let receiver = UnixDatagram::bind(&path).expect("bind");
        let mut datagrams = Datagrams::to(path);
        let start = Instant::now();
        let written = (0..100_000)
            .take_while(|_| datagrams.send(start, b"line") == Outcome::Written)
            .count();
        assert!(written < 100_000, "a queue without a bound");
        assert_eq!(datagrams.send(start, b"line"), Outcome::Dropped);

        assert_eq!(receive(&receiver), b"line");
        assert_eq!(
            datagrams.send(start, b"there is room again"),
            Outcome::Written
        );
    }
}
