//! What the driver remembers of one connection.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;

use crate::buffer::Buffer;
use crate::driver::Sent;
use crate::sys;

/// What the driver knows of a connection.
pub(super) mod flag {
    /// A receive is under way.
    pub(in crate::driver::uring) const ARMED: u8 = 1;
    /// A send is under way.
    pub(in crate::driver::uring) const SENDING: u8 = 2;
    /// Its last receive filled a small buffer: it gets large ones.
    pub(in crate::driver::uring) const BULK: u8 = 4;
    /// The peer's FIN, or an error, has come: nothing is received any more.
    pub(in crate::driver::uring) const ENDED: u8 = 8;
    /// It is closed as soon as nothing of it is under way.
    pub(in crate::driver::uring) const CLOSING: u8 = 16;
    /// It stands among those whose receive is to be armed.
    pub(in crate::driver::uring) const PARKED: u8 = 32;
}

/// One connection, as far as the driver is concerned.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// None: closed.
    pub(super) stream: Option<OwnedFd>,
    pub(super) generation: u32,
    /// Most bytes that may be received; 0: it is not receiving.
    pub(super) room: u32,
    pub(super) flags: u8,
}

/// Sends what the kernel takes, send(2).
#[cold]
pub(super) fn send_at_once(stream: &OwnedFd, bytes: Buffer) -> Sent {
    match sys::send(stream.as_fd(), bytes.bytes()) {
        // The kernel takes no more than it was given, and that was counted in a u32.
        Ok(count) => Sent::of(bytes, u32::try_from(count).unwrap_or(0)),
        Err(Errno::EAGAIN | Errno::EINTR) => Sent::of(bytes, 0),
        Err(errno) => Sent::Broken(errno),
    }
}
