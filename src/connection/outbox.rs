//! Bytes waiting to leave for one peer.
//!
//! The first buffer lies inline: a peer that keeps up has at most that one, straight from the driver's
//! turn memory, and nothing is copied. What the kernel does not take, and what comes after it, is
//! copied into kept memory at once; only then is there a queue. Invariant: `owed` is the bytes of
//! all buffers here and of the one in flight.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::buffer::{Buffer, Memory};
use crate::driver::Sent;

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
    in_flight: bool,
}

impl Outbox {
    /// Bytes that the peer has yet to take, in flight or waiting.
    #[inline]
    pub fn owed(&self) -> u32 {
        self.owed
    }

    /// Is there something to send, and nothing in flight before it?
    #[inline]
    pub fn is_ready(&self) -> bool {
        self.first.is_some() && !self.in_flight
    }

    /// Adds bytes at the end. Those behind others are copied into kept memory.
    ///
    /// # Errors
    /// [`NoMemory`] if they would have to be kept and cannot be.
    #[inline(always)]
    pub fn push(&mut self, bytes: Buffer, memory: &Arc<Memory>) -> Result<(), NoMemory> {
        self.owed += bytes.len();
        if self.first.is_none() && !self.in_flight {
            self.first = Some(bytes);
            return Ok(());
        }
        self.push_behind(bytes, memory)
    }

    #[cold]
    fn push_behind(&mut self, mut bytes: Buffer, memory: &Arc<Memory>) -> Result<(), NoMemory> {
        let behind = self.behind.get_or_insert_default();
        if let Some(last) = behind.back_mut() {
            let gathered = last.append(bytes.bytes());
            bytes.advance(gathered);
        }
        if !bytes.is_empty() {
            behind.push_back(bytes.gather(memory).ok_or(NoMemory)?);
        }
        if self.first.is_none() && !self.in_flight {
            self.first = behind.pop_front();
        }
        Ok(())
    }

    /// The next bytes to send, and whether they may wait in the driver. Until [`Outbox::sent`] there is
    /// no other.
    #[inline(always)]
    pub fn take(&mut self) -> Option<(Buffer, bool)> {
        let bytes = self.first.take()?;
        self.in_flight = true;
        let keep = bytes.is_kept();
        Some((bytes, keep))
    }

    /// Takes note of how far the buffer in flight came; the rest of it is next again.
    ///
    /// # Errors
    /// [`NoMemory`] if the rest was turn memory and cannot be kept.
    #[inline(always)]
    pub fn sent(&mut self, sent: Sent, memory: &Arc<Memory>) -> Result<(), NoMemory> {
        self.in_flight = false;
        self.owed -= sent.count;
        if sent.rest.is_some() || self.behind.is_some() {
            return self.sent_in_part(sent.rest, memory);
        }
        Ok(())
    }

    #[cold]
    fn sent_in_part(&mut self, rest: Option<Buffer>, memory: &Arc<Memory>) -> Result<(), NoMemory> {
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

    fn turn(memory: &mut TurnMemory, bytes: &[u8]) -> Buffer {
        memory
            .fill::<()>(u32::MAX, |to| {
                to[..bytes.len()].copy_from_slice(bytes);
                Ok(bytes.len())
            })
            .expect("filled")
    }

    fn took(mut bytes: Buffer, count: u32) -> Sent {
        bytes.advance(count);
        Sent {
            count,
            rest: (!bytes.is_empty()).then_some(bytes),
            broken: None,
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
            let (bytes, keep) = outbox.take().expect("three bytes");
            assert!(!keep);
            outbox
                .sent(took(bytes, 3), &memory)
                .expect("nothing to keep");
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
        let (bytes, _) = outbox.take().expect("ready");
        outbox.sent(took(bytes, 2), &memory).expect("room");
        outbox
            .push(turn(&mut scratch, b"gh"), &memory)
            .expect("room");
        outbox
            .push(turn(&mut scratch, b"ij"), &memory)
            .expect("room");
        assert_eq!(outbox.owed(), 8);
        let mut seen = Vec::new();
        while let Some((bytes, keep)) = outbox.take() {
            assert!(keep, "turn memory does not wait for a peer");
            assert!(!outbox.is_ready(), "one send at a time");
            seen.extend_from_slice(&bytes.bytes()[..1]);
            outbox.sent(took(bytes, 1), &memory).expect("kept already");
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
        let (bytes, _) = outbox.take().expect("ready");
        assert_eq!(outbox.sent(took(bytes, 2), &memory), Err(NoMemory));
    }
}
