//! Bytes waiting to leave for one peer.
//!
//! The first buffer lies inline: a peer that keeps up has at most that one, straight from the driver's
//! turn memory, and nothing is copied. What the kernel does not take, and what comes after it, is
//! copied into kept memory at once; only then is there a queue. Invariant: `owed` is the bytes of
//! all buffers here and of the one in flight; if something is owed, the first of it is either here
//! or in flight.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::buffer::{Buffer, GATHER, Memory};

/// `buffer_memory` does not hold what a peer is owed: its connection has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory;

/// What one peer is owed, in order.
#[derive(Debug, Default)]
pub struct Outbox {
    first: Option<Buffer>,
    /// Only of a peer that is behind: kept memory, boxed so that the many that are not pay eight bytes.
    #[allow(clippy::box_collection)]
    behind: Option<Box<VecDeque<Buffer>>>,
    owed: u32,
    /// Most bytes of a receive, which is less while something is owed; 0: paused. It is here because there is a place of its size.
    pub(super) room: u32,
}

impl Outbox {
    /// Bytes that the peer has yet to take, in flight or waiting.
    #[inline]
    pub fn owed(&self) -> u32 {
        self.owed
    }

    /// Is there something to send, and nothing in flight before it?
    #[inline(always)]
    pub fn is_ready(&self) -> bool {
        self.first.is_some()
    }

    /// Begins with these bytes, while nothing is owed.
    #[inline(always)]
    pub fn begin(&mut self, bytes: Buffer) {
        self.lend(&bytes);
        self.first = Some(bytes);
    }

    /// These bytes are in flight already, and are all that is owed.
    #[inline(always)]
    pub fn lend(&mut self, bytes: &Buffer) {
        self.owed = bytes.len();
    }

    /// Adds bytes at the end. Those behind others are copied into kept memory.
    ///
    /// # Errors
    /// [`NoMemory`] if they would have to be kept and cannot be.
    pub fn push(&mut self, mut bytes: Buffer, memory: &Arc<Memory>) -> Result<(), NoMemory> {
        if self.owed == 0 {
            self.begin(bytes);
            return Ok(());
        }
        self.owed += bytes.len();
        let behind = self.behind.get_or_insert_default();
        if bytes.is_kept() && bytes.len() >= GATHER {
            behind.push_back(bytes);
            return Ok(());
        }
        if let Some(last) = behind.back_mut() {
            let gathered = last.append(bytes.bytes());
            bytes.advance(gathered);
        }
        if !bytes.is_empty() {
            behind.push_back(bytes.gather(memory).ok_or(NoMemory)?);
        }
        Ok(())
    }

    /// The next bytes to send. Until [`Outbox::sent`] there are no others.
    #[inline(always)]
    pub fn take(&mut self) -> Option<Buffer> {
        self.first.take()
    }

    /// All that is owed was in flight, and has been taken.
    #[inline(always)]
    pub fn settle(&mut self) {
        debug_assert!(self.first.is_none() && self.behind.is_none());
        self.owed = 0;
    }

    /// The kernel took `count` bytes of the buffer in flight; the rest of it is next again.
    ///
    /// # Errors
    /// [`NoMemory`] if the rest is turn memory and cannot be kept.
    pub fn sent(
        &mut self,
        count: u32,
        rest: Option<Buffer>,
        memory: &Arc<Memory>,
    ) -> Result<(), NoMemory> {
        self.owed -= count;
        self.first = match rest {
            Some(rest) if rest.is_kept() => Some(rest),
            Some(rest) => Some(rest.keep(memory).ok_or(NoMemory)?),
            None => self.behind.as_mut().and_then(|behind| behind.pop_front()),
        };
        if self.owed == 0 {
            self.behind = None;
        }
        Ok(())
    }

    /// Forgets everything: the connection is over.
    pub fn clear(&mut self) {
        *self = Outbox::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::TurnMemory;
    use crate::driver::Sent;

    fn turn(memory: &mut TurnMemory, bytes: &[u8]) -> Buffer {
        memory
            .fill::<()>(u32::MAX, |to| {
                to[..bytes.len()].copy_from_slice(bytes);
                Ok(bytes.len())
            })
            .expect("filled")
    }

    /// The kernel takes so many of these bytes, which were in flight.
    fn took(
        outbox: &mut Outbox,
        bytes: Buffer,
        count: u32,
        memory: &Arc<Memory>,
    ) -> Result<(), NoMemory> {
        match Sent::of(bytes, count) {
            Sent::Part { count, rest } => outbox.sent(count, Some(rest), memory),
            sent => outbox.sent(sent.count(), None, memory),
        }
    }

    #[test]
    fn a_peer_that_keeps_up_costs_no_copy() {
        let (memory, mut scratch, mut outbox) =
            (Memory::new(0), TurnMemory::new(), Outbox::default());
        for _ in 0..3 {
            outbox
                .push(turn(&mut scratch, b"abc"), &memory)
                .expect("nothing to keep");
            let bytes = outbox.take().expect("three bytes");
            assert!(!bytes.is_kept());
            took(&mut outbox, bytes, 3, &memory).expect("nothing to keep");
            assert_eq!(outbox.owed(), 0);
        }
    }

    #[test]
    fn what_the_kernel_refuses_is_kept_and_leaves_before_what_came_later() {
        let (memory, mut scratch, mut outbox) =
            (Memory::new(1 << 20), TurnMemory::new(), Outbox::default());
        outbox
            .push(turn(&mut scratch, b"abcdef"), &memory)
            .expect("room");
        let bytes = outbox.take().expect("ready");
        took(&mut outbox, bytes, 2, &memory).expect("room");
        outbox
            .push(turn(&mut scratch, b"gh"), &memory)
            .expect("room");
        outbox
            .push(turn(&mut scratch, b"ij"), &memory)
            .expect("room");
        assert_eq!(outbox.owed(), 8);
        let mut seen = Vec::new();
        while let Some(bytes) = outbox.take() {
            assert!(bytes.is_kept(), "turn memory does not wait for a peer");
            assert!(outbox.take().is_none(), "one send at a time");
            seen.extend_from_slice(&bytes.bytes()[..1]);
            took(&mut outbox, bytes, 1, &memory).expect("kept already");
        }
        assert_eq!(seen, b"cdefghij");
        assert_eq!((outbox.owed(), memory.used()), (0, 0));
    }

    #[test]
    fn without_memory_nothing_is_kept() {
        let (memory, mut scratch, mut outbox) =
            (Memory::new(3), TurnMemory::new(), Outbox::default());
        outbox
            .push(turn(&mut scratch, b"abcdef"), &memory)
            .expect("turn memory is not counted");
        let bytes = outbox.take().expect("ready");
        assert_eq!(took(&mut outbox, bytes, 2, &memory), Err(NoMemory));
    }
}
