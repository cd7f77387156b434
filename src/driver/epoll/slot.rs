//! What the driver remembers of one connection between two reports of the kernel.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::{EPOLLERR, EPOLLHUP, EPOLLPRI, EPOLLRDHUP};
use socket2::SockRef;

use crate::buffer::Buffer;
use crate::driver::{Completion, Sent, Token};
use crate::sys;
use flag::{FINISHED, READABLE, URGENT, WRITABLE};

/// What is remembered of a connection between two reports.
pub(super) mod flag {
    /// There may be bytes, or the FIN, to receive.
    pub(in crate::driver::epoll) const READABLE: u8 = 1;
    /// The kernel may take bytes.
    pub(in crate::driver::epoll) const WRITABLE: u8 = 2;
    /// The peer's FIN has come: only a receive of nothing ends the reading.
    pub(in crate::driver::epoll) const FINISHED: u8 = 4;
    /// An urgent byte may stand in the stream: a short read is no sign of an empty socket.
    pub(in crate::driver::epoll) const URGENT: u8 = 8;
    /// It stands in the run list.
    pub(in crate::driver::epoll) const QUEUED: u8 = 16;
}
/// One connection, as far as the driver is concerned.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// None: closed.
    pub(super) stream: Option<OwnedFd>,
    pub(super) generation: u32,
    /// Most bytes of a receive; 0: it is not receiving.
    pub(super) room: u32,
    pub(super) flags: u8,
    /// A send that waits for the peer; kept memory.
    pub(super) held: Option<Buffer>,
}

impl Slot {
    /// The parts of a report that few messages have. `Some`: the connection is broken.
    #[cold]
    pub(super) fn note_rare(&mut self, token: Token, events: i32) -> Option<Completion<OwnedFd>> {
        if events & EPOLLERR != 0 {
            let error = self
                .stream
                .as_ref()
                .and_then(|stream| SockRef::from(stream).take_error().ok().flatten());
            if let Some(error) = error {
                let errno = error
                    .raw_os_error()
                    .map_or(Errno::ECONNRESET, Errno::from_raw);
                return Some(Completion::Failed { token, errno });
            }
        }
        if events & (EPOLLHUP | EPOLLRDHUP) != 0 {
            self.flags |= READABLE | FINISHED;
        }
        if events & EPOLLPRI != 0 {
            self.flags |= READABLE | URGENT;
        }
        None
    }

    /// Offers `bytes` to the kernel.
    #[inline(always)]
    pub(super) fn send(&mut self, mut bytes: Buffer) -> Sent {
        let Some(stream) = &self.stream else {
            return Sent {
                count: 0,
                rest: None,
                broken: Some(Errno::EBADF),
            };
        };
        match sys::send(stream.as_fd(), bytes.bytes()) {
            Ok(count) => {
                // The kernel takes no more than it was given, and that was counted in a u32.
                #[allow(clippy::cast_possible_truncation)]
                let count = count as u32;
                if count == bytes.len() {
                    return Sent {
                        count,
                        rest: None,
                        broken: None,
                    };
                }
                self.flags &= !WRITABLE;
                bytes.advance(count);
                Sent {
                    count,
                    rest: Some(bytes),
                    broken: None,
                }
            }
            Err(Errno::EAGAIN) => {
                self.flags &= !WRITABLE;
                Sent {
                    count: 0,
                    rest: Some(bytes),
                    broken: None,
                }
            }
            Err(errno) => Sent {
                count: 0,
                rest: None,
                broken: Some(errno),
            },
        }
    }
}

/// Makes the close of a connection a reset: what it still holds is thrown away.
pub(super) fn reset_on_close(stream: &OwnedFd) {
    // It fails only where the connection is gone already.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
