//! How a socket of ours stops to listen without a peer that is let in and forgotten.
//!
//! A socket that is closed resets whoever is in its queue, so the queue is emptied first; but between the last look at it
//! and the close another one can come, and a balancer has sent its peer's bytes by then. So nobody new may begin: a
//! peer's first segment is dropped, and its next attempt, a second later, is refused or served elsewhere.

use std::io;
use std::os::fd::AsFd;

use socket2::{SockFilter, SockRef};

/// Where the flags are in a TCP header, which is what a filter of a TCP socket sees.
const FLAGS: u32 = 13;

/// The flag of a first segment.
const SYN: u32 = 0x02;

/// Drops first segments: classic BPF, as `tcpdump -d 'tcp[13] & 2 == 0'` would have it.
const NOBODY_NEW: [SockFilter; 4] = [
    SockFilter::new(0x30, 0, 0, FLAGS),    // load the byte
    SockFilter::new(0x45, 0, 1, SYN),      // is the flag set in it?
    SockFilter::new(0x06, 0, 0, 0),        // none of the segment
    SockFilter::new(0x06, 0, 0, u32::MAX), // all of it
];

/// Lets nobody begin any more; those who have begun come in.
///
/// # Errors
/// The kernel has no filters; the socket is as it was.
pub fn part(socket: impl AsFd) -> io::Result<()> {
    SockRef::from(&socket).attach_filter(&NOBODY_NEW)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_has_begun_is_served_and_nobody_else_begins() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut early = TcpStream::connect(address).unwrap();
        part(&listener).unwrap();
        let late = TcpStream::connect_timeout(&address, Duration::from_millis(200));
        assert_eq!(late.unwrap_err().kind(), ErrorKind::TimedOut);
        early.write_all(b"hello").unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        let mut said = [0; 5];
        accepted.read_exact(&mut said).unwrap();
        accepted.write_all(&said).unwrap();
        drop(listener);
        early.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"hello");
        assert_eq!(
            TcpStream::connect(address).unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
    }
}
