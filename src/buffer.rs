//! Bytes on their way, and the bound on all of them together.
//!
//! A [`Buffer`] is a counted range of a block of memory; holding one is the right to use it. There are
//! three kinds of block. *Turn memory* is a driver's own, large, and home again before the next bytes
//! arrive in it. What the kernel does not take at once is copied into *kept memory* of its own
//! size, which is counted against `buffer_memory` and given back with its last buffer. *Constant memory*
//! is what a service says to everybody: it is made once, belongs to no connection, and may wait for any number
//! of peers. While a peer keeps up nothing is copied; an idle connection owns no block of any kind.

mod memory;

pub use memory::{Charge, Memory, Promise};

use std::rc::Rc;
use std::sync::Arc;

use crate::sys;

/// Most bytes of one receive, and the size of a worker's turn memory.
pub const TURN_MEMORY: u32 = 512 * 1024;

/// What an io_uring worker has instead of turn memory: 128 blocks of 128 KiB and 32 of 512 KiB, which the kernel
/// fills by itself, and the rings.
pub const URING_MEMORY: u64 = 34 * 1024 * 1024;

/// Most bytes of one receive while more than half of `buffer_memory` is in use.
pub const TIGHT_RECEIVE: u32 = 16 * 1024;

/// The least kept block behind another: small pieces for a slow peer are gathered in it.
pub const GATHER: u32 = 4096;

/// Memory that buffers are ranges of.
#[derive(Debug)]
struct Block {
    bytes: Vec<u8>,
    kind: Kind,
}

/// What a block is for; see the beginning of this file.
#[derive(Debug)]
enum Kind {
    Turn,
    /// Counted until the block is given back.
    Kept {
        #[allow(dead_code, reason = "it counts for as long as it is held")]
        charge: Charge,
    },
    Constant,
}

/// A counted range of a block of memory.
#[derive(Clone, Debug)]
pub struct Buffer {
    block: Rc<Block>,
    start: u32,
    end: u32,
}

impl Buffer {
    /// The number of bytes.
    #[inline]
    pub fn len(&self) -> u32 {
        self.end - self.start
    }

    /// Is nothing left of it?
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.block.bytes[self.start as usize..self.end as usize]
    }

    /// Lets go of the first `count` bytes, or of all if there are fewer.
    #[inline]
    pub fn advance(&mut self, count: u32) {
        self.start += count.min(self.len());
    }

    /// Lets go of all but the first `count` bytes.
    pub fn truncate(&mut self, count: u32) {
        self.end = self.start + count.min(self.len());
    }

    /// May it wait for a peer? Turn memory may not; what may is counted against `buffer_memory`, or constant.
    #[inline]
    pub fn is_kept(&self) -> bool {
        !matches!(self.block.kind, Kind::Turn)
    }

    /// These bytes in constant memory.
    pub fn constant(bytes: Vec<u8>) -> Buffer {
        Buffer::over(Block {
            bytes,
            kind: Kind::Constant,
        })
    }

    /// These bytes in kept memory; `None` when `memory` does not hold them.
    pub fn keeping(bytes: &[u8], memory: &Arc<Memory>) -> Option<Buffer> {
        Buffer::kept(bytes, bytes.len(), memory)
    }

    /// These bytes as kept memory, without a copy; `None` when `memory` does not hold them.
    pub fn keeping_all(bytes: Vec<u8>, memory: &Arc<Memory>) -> Option<Buffer> {
        let charge = memory.charge(bytes.capacity())?;
        Some(Buffer::over(Block {
            bytes,
            kind: Kind::Kept { charge },
        }))
    }

    /// A copy in kept memory of the same size; `None` when `memory` does not hold it.
    pub fn keep(&self, memory: &Arc<Memory>) -> Option<Buffer> {
        Buffer::kept(self.bytes(), self.bytes().len(), memory)
    }

    /// A copy in kept memory with room for what comes after it, see [`Buffer::append`].
    pub fn gather(&self, memory: &Arc<Memory>) -> Option<Buffer> {
        Buffer::kept(
            self.bytes(),
            self.bytes().len().max(GATHER as usize),
            memory,
        )
    }

    fn kept(bytes: &[u8], capacity: usize, memory: &Arc<Memory>) -> Option<Buffer> {
        let charge = memory.charge(capacity)?;
        let mut copy = Vec::with_capacity(capacity);
        copy.extend_from_slice(bytes);
        Some(Buffer::over(Block {
            bytes: copy,
            kind: Kind::Kept { charge },
        }))
    }

    /// Copies as much of `more` behind these bytes as their block holds, without taking new memory,
    /// and answers how much. Nothing if the block is shared or this range does not end it.
    pub fn append(&mut self, more: &[u8]) -> u32 {
        let end = self.end;
        let Some(block) = Rc::get_mut(&mut self.block) else {
            return 0;
        };
        if !matches!(block.kind, Kind::Kept { .. }) || block.bytes.len() != end as usize {
            return 0;
        }
        let count = more.len().min(block.bytes.capacity() - block.bytes.len());
        block.bytes.extend_from_slice(&more[..count]);
        self.end = length(&block.bytes);
        self.end - end
    }

    fn over(block: Block) -> Buffer {
        let end = length(&block.bytes);
        Buffer {
            block: Rc::new(block),
            start: 0,
            end,
        }
    }
}

/// The length of a block, which is at most `TURN_MEMORY` or a kept receive of that size.
fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("blocks are smaller than 4 GiB")
}

/// A driver's own block, filled again and again.
#[derive(Debug)]
pub struct TurnMemory(Rc<Block>);

impl TurnMemory {
    /// A block of [`TURN_MEMORY`] bytes.
    pub fn new() -> TurnMemory {
        TurnMemory::of(TURN_MEMORY as usize)
    }

    /// A block of `size` bytes, which takes memory as it is written to.
    pub fn of(size: usize) -> TurnMemory {
        let mut bytes = vec![0; size];
        sys::discard(&mut bytes);
        TurnMemory(Rc::new(Block {
            bytes,
            kind: Kind::Turn,
        }))
    }

    /// Lets `fill` write up to `room` bytes from the block's beginning; what it says it wrote is the buffer.
    ///
    /// # Panics
    /// If a buffer of the block is still held: turn memory is home before it is filled again.
    #[inline(always)]
    pub fn fill<E>(
        &mut self,
        room: u32,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<Buffer, E> {
        let block =
            Rc::get_mut(&mut self.0).expect("turn memory is home before it is filled again");
        let room = (room as usize).min(block.bytes.len());
        let count = fill(&mut block.bytes[..room])?;
        // `count` is at most `room`, which came from a u32.
        #[allow(clippy::cast_possible_truncation)]
        let end = count.min(room) as u32;
        Ok(Buffer {
            block: Rc::clone(&self.0),
            start: 0,
            end,
        })
    }
}

/// A block of turn memory whose bytes somebody else writes, the kernel, while no buffer of it is held.
impl TurnMemory {
    /// Where its bytes are, for whoever writes them.
    ///
    /// # Panics
    /// If a buffer of the block is held.
    pub fn address(&mut self) -> *mut u8 {
        let block = Rc::get_mut(&mut self.0).expect("turn memory is home before it is given away");
        block.bytes.as_mut_ptr()
    }

    /// The first `count` bytes of it, which have been written; all, if there are fewer.
    #[inline(always)]
    pub fn written(&self, count: u32) -> Buffer {
        Buffer {
            end: count.min(length(&self.0.bytes)),
            block: Rc::clone(&self.0),
            start: 0,
        }
    }

    /// Is no buffer of it held?
    #[inline(always)]
    pub fn is_home(&self) -> bool {
        Rc::strong_count(&self.0) == 1
    }
}

impl Default for TurnMemory {
    fn default() -> Self {
        TurnMemory::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(memory: &mut TurnMemory, bytes: &[u8]) -> Buffer {
        memory
            .fill::<()>(TURN_MEMORY, |to| {
                to[..bytes.len()].copy_from_slice(bytes);
                Ok(bytes.len())
            })
            .expect("filled")
    }

    #[test]
    fn kept_bytes_are_counted_until_their_last_buffer_is_gone() {
        let memory = Memory::new(10);
        let mut turn = TurnMemory::new();
        let buffer = filled(&mut turn, b"12345678");
        let kept = buffer.keep(&memory).expect("eight of ten fit");
        drop(buffer);
        let twin = kept.clone();
        drop(kept);
        assert_eq!((memory.used(), twin.bytes()), (8, &b"12345678"[..]));
        drop(twin);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn one_byte_past_the_memory_is_refused_and_nothing_is_charged() {
        let memory = Memory::new(10);
        let mut turn = TurnMemory::new();
        let ten = filled(&mut turn, &[7; 10])
            .keep(&memory)
            .expect("ten of ten fit");
        assert!(filled(&mut turn, &[7; 1]).keep(&memory).is_none());
        assert_eq!(memory.used(), 10);
        drop(ten);
        assert!(filled(&mut turn, &[7; 11]).keep(&memory).is_none());
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn receives_shrink_above_half_and_peers_are_refused_above_seven_eighths() {
        let memory = Memory::new(800);
        let mut turn = TurnMemory::new();
        let _half = filled(&mut turn, &[0; 400]).keep(&memory);
        assert_eq!((memory.room(), memory.is_full()), (TURN_MEMORY, false));
        let _more = filled(&mut turn, &[0; 300]).keep(&memory);
        assert_eq!((memory.room(), memory.is_full()), (TIGHT_RECEIVE, false));
        let _most = filled(&mut turn, &[0; 1]).keep(&memory);
        assert!(memory.is_full());
    }

    #[test]
    fn small_pieces_are_gathered_in_one_block() {
        let memory = Memory::new(1 << 20);
        let mut turn = TurnMemory::new();
        let mut kept = filled(&mut turn, b"ab").gather(&memory).expect("fits");
        assert_eq!(kept.append(b"cd"), 2);
        kept.advance(1);
        assert_eq!(
            (kept.bytes(), memory.used()),
            (&b"bcd"[..], u64::from(GATHER))
        );
        assert_eq!(
            kept.append(&[0; GATHER as usize]),
            4092,
            "no more than the block holds"
        );
        let twin = kept.clone();
        assert_eq!(kept.append(b"e"), 0, "a shared block is not written to");
        drop(twin);
    }

    #[test]
    fn constant_memory_may_wait_is_not_counted_and_is_not_written_to() {
        let mut constant = Buffer::constant(b"abc".to_vec());
        assert!(constant.is_kept());
        assert_eq!(constant.append(b"d"), 0);
        let mut range = constant.clone();
        range.advance(1);
        range.truncate(1);
        assert_eq!((range.bytes(), constant.bytes()), (&b"b"[..], &b"abc"[..]));
    }

    #[test]
    #[should_panic(expected = "turn memory is home")]
    fn turn_memory_that_is_still_held_is_never_overwritten() {
        let mut turn = TurnMemory::new();
        let _held = filled(&mut turn, b"a");
        let _never = filled(&mut turn, b"b");
    }
}
