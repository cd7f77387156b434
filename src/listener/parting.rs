//! How a socket of ours stops to listen without a peer that is let in and forgotten.
//!
//! A socket that is closed resets whoever is in its queue, so the queue is emptied first; but between the last look at it
//! and the close another one can come, and a balancer has sent its peer's bytes by then. So nobody new may begin. What
//! the kernel has for that is a socket's interface: a peer's first segment comes by another one than ours, so that
//! nobody listens there and the peer is refused, while those who have begun are known by their addresses and come in.
//! Of several sockets that share an address (`SO_REUSEPORT`) the kernel still picks this one now and then, and drops the
//! segment: such a peer comes again a second later, to another socket.

use std::os::fd::AsFd;

use nix::{Result, libc};

use crate::sys;

/// An interface that no host has: the numbers are given in order.
const NOWHERE: i32 = i32::MAX;

/// Lets nobody begin any more, socket(7) `SO_BINDTODEVICE`; those who have begun come in.
///
/// # Errors
/// `EPERM`: it is bound to an interface, and only root may have it bound to another. The socket is as it was.
pub fn part(socket: impl AsFd) -> Result<()> {
    sys::set_socket_option(
        socket.as_fd(),
        libc::SOL_SOCKET,
        libc::SO_BINDTOIFINDEX,
        NOWHERE,
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn who_has_begun_is_served_and_nobody_else_begins() {
        for host in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let listener = TcpListener::bind(host).unwrap();
            let address = listener.local_addr().unwrap();
            let mut early = TcpStream::connect(address).unwrap();
            part(&listener).unwrap();
            let late = TcpStream::connect(address);
            assert_eq!(late.unwrap_err().kind(), ErrorKind::ConnectionRefused);
            early.write_all(b"hello").unwrap();
            let (mut accepted, _) = listener.accept().unwrap();
            let mut said = [0; 5];
            accepted.read_exact(&mut said).unwrap();
            drop(listener);
            accepted.write_all(&said).unwrap();
            early.read_exact(&mut said).unwrap();
            assert_eq!(&said, b"hello");
        }
    }
}
