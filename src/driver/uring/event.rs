//! What comes back of a ring, in the driver's words.

use std::os::fd::OwnedFd;

use nix::errno::Errno;

use crate::buffer::Buffer;
use crate::driver::Sent;

/// What an operation was for; the rest of its data is the place in a table.
pub(super) mod kind {
    /// A receive, by the group of its buffer.
    pub(in crate::driver::uring) const SMALL: u64 = 0;
    pub(in crate::driver::uring) const LARGE: u64 = 7 << 32;
    pub(in crate::driver::uring) const SEND_NOW: u64 = 1 << 32;
    pub(in crate::driver::uring) const SEND: u64 = 2 << 32;
    pub(in crate::driver::uring) const ACCEPT: u64 = 3 << 32;
    pub(in crate::driver::uring) const BELL: u64 = 4 << 32;
    pub(in crate::driver::uring) const ALARM: u64 = 5 << 32;
    pub(in crate::driver::uring) const CANCEL: u64 = 6 << 32;
    pub(in crate::driver::uring) const MASK: u64 = 7 << 32;
}

/// What came back.
#[derive(Debug)]
pub(super) enum Event {
    /// Bytes of the connection in this place. `armed`: more will come without asking.
    Received {
        index: u32,
        input: Buffer,
        armed: bool,
    },
    /// Receiving ended without bytes: the peer's FIN, or why.
    ReceiveEnded { index: u32, errno: Option<Errno> },
    /// A send that waited for the peer.
    Sent { index: u32, sent: Sent },
    /// The bell rang. `armed`: it will be told again.
    Rung { armed: bool },
    /// The alarm went off.
    Alarm { armed: bool },
}

/// What came of accepting.
#[derive(Debug)]
pub(super) struct Accepted {
    /// The listening socket's slot.
    pub(super) slot: u16,
    /// The connection.
    pub(super) stream: Result<OwnedFd, Errno>,
    /// Will more come without asking?
    pub(super) armed: bool,
}

/// A result as the kernel gives it: a count, or a negative errno.
pub(super) fn outcome(result: i32) -> Result<u32, Errno> {
    u32::try_from(result).map_err(|_| Errno::from_raw(-result))
}

/// What came of sending these bytes.
pub(super) fn sent(bytes: Buffer, result: i32) -> Sent {
    match outcome(result) {
        Ok(count) => Sent::of(bytes, count),
        // Not ready, or asked to stop: nothing was taken.
        Err(Errno::EAGAIN | Errno::EINTR | Errno::ECANCELED) => Sent::of(bytes, 0),
        Err(errno) => Sent::Broken(errno),
    }
}
