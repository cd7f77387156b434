//! Blocks of turn memory that the kernel receives into, io_uring's provided buffers.
//!
//! The kernel takes them from a page of entries that it shares with us, in order; each comes back with
//! its bytes, and is home when no buffer of it is held any more. No more blocks stand on the page than were
//! ever needed, and those that were home last go there first: few blocks that stay in the cache serve
//! better than many that take turns (streams cost a third less), and the others take no memory at all.
//! There are two groups: small ones for messages, of which every connection that says something in a
//! turn takes one, and large ones for those that have filled a small one. An idle connection has neither.

use std::sync::atomic::{AtomicU16, Ordering};

use crate::buffer::{Buffer, TURN_MEMORY, TurnMemory};

/// Most entries of a page: 4096 bytes of them.
const ENTRIES: usize = 256;

/// An entry, as the kernel has it: `struct io_uring_buf`. The page's tail lies in the last field of the first.
#[derive(Debug)]
#[repr(C)]
struct Entry {
    address: u64,
    length: u32,
    number: u16,
    tail: AtomicU16,
}

/// A page of entries, shared with the kernel. Never freed, since a ring outlives its close.
#[derive(Debug)]
#[repr(C, align(4096))]
pub(super) struct Page([Entry; ENTRIES]);

impl Page {
    /// A page with nothing on it.
    pub(super) fn new() -> &'static mut Page {
        let nothing = |_| Entry {
            address: 0,
            length: 0,
            number: 0,
            tail: AtomicU16::new(0),
        };
        Box::leak(Box::new(Page(std::array::from_fn(nothing))))
    }

    /// Where it is, for the kernel.
    pub(super) fn address(&self) -> u64 {
        std::ptr::from_ref(self).addr() as u64
    }
}

/// Which blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Group {
    /// For messages.
    Small,
    /// For streams.
    Large,
}

impl Group {
    /// Both, in the order of their numbers.
    pub(super) const ALL: [Group; 2] = [Group::Small, Group::Large];

    /// Bytes of a block.
    pub(super) const fn size(self) -> u32 {
        match self {
            Group::Small => 64 * 1024,
            Group::Large => TURN_MEMORY,
        }
    }

    /// Blocks that stand on the page at first, a power of two: of the large ones one that is received into
    /// while the other is sent from.
    const fn first(self) -> u16 {
        match self {
            Group::Small => 16,
            Group::Large => 2,
        }
    }

    /// Blocks, a power of two.
    pub(super) const fn count(self) -> u16 {
        match self {
            Group::Small => 256,
            Group::Large => 32,
        }
    }
}

/// The blocks of one group.
#[derive(Debug)]
pub(super) struct Pool {
    size: u32,
    mask: u16,
    page: &'static mut Page,
    blocks: Vec<TurnMemory>,
    addresses: Vec<u64>,
    /// Where the next block goes on the page.
    tail: u16,
    /// Blocks on the page, and how many there should be.
    posted: u16,
    wanted: u16,
    /// Blocks that have been taken, and are home or not.
    out: Vec<u16>,
    /// Blocks that are home; the last was used last.
    home: Vec<u16>,
}

impl Pool {
    /// All blocks of a group, the first few on the page.
    pub(super) fn new(group: Group, page: &'static mut Page) -> Pool {
        let of_size = |_| TurnMemory::of(group.size() as usize);
        let mut blocks: Vec<_> = (0..group.count()).map(of_size).collect();
        let address = |block: &mut TurnMemory| block.address().expose_provenance() as u64;
        let mut pool = Pool {
            size: group.size(),
            mask: group.count() - 1,
            page,
            addresses: blocks.iter_mut().map(address).collect(),
            blocks,
            tail: 0,
            posted: 0,
            wanted: group.first(),
            out: Vec::new(),
            home: (0..group.count()).rev().collect(),
        };
        pool.restock();
        pool
    }

    /// The first `count` bytes of a block that the kernel has taken and written.
    #[inline(always)]
    pub(super) fn take(&mut self, number: u16, count: u32) -> Buffer {
        self.posted -= 1;
        self.out.push(number);
        self.blocks[number as usize].written(count)
    }

    /// The kernel found no block where it wanted one.
    #[cold]
    pub(super) fn grow(&mut self) {
        self.wanted = (self.wanted * 2).min(self.mask + 1);
    }

    /// Gives the kernel blocks that are home, as many as are wanted.
    #[inline(always)]
    pub(super) fn restock(&mut self) {
        if self.out.is_empty() && self.posted >= self.wanted {
            return;
        }
        let (blocks, home) = (&self.blocks, &mut self.home);
        self.out.retain(|&number| {
            let is_home = blocks[number as usize].is_home();
            if is_home {
                home.push(number);
            }
            !is_home
        });
        while self.posted < self.wanted
            && let Some(number) = self.home.pop()
        {
            let entry = &mut self.page.0[(self.tail & self.mask) as usize];
            entry.address = self.addresses[number as usize];
            entry.length = self.size;
            entry.number = number;
            self.tail = self.tail.wrapping_add(1);
            self.posted += 1;
        }
        // The entries before the tail that tells of them.
        self.page.0[0].tail.store(self.tail, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(pool: &Pool) -> u16 {
        pool.page.0[0].tail.load(Ordering::Acquire)
    }

    #[test]
    fn a_block_goes_back_to_the_kernel_when_its_last_buffer_is_gone() {
        let mut pool = Pool::new(Group::Large, Page::new());
        assert_eq!((tail(&pool), pool.page.0[0].number), (2, 0));
        let buffer = pool.take(0, 10);
        let twin = buffer.clone();
        drop(buffer);
        pool.restock();
        assert_eq!(twin.len(), 10);
        assert_eq!((tail(&pool), pool.page.0[2].number), (3, 2), "another one");
        pool.take(1, 10);
        drop(twin);
        pool.restock();
        assert_eq!((tail(&pool), pool.page.0[3].number), (4, 1), "used last");
    }

    #[test]
    fn there_are_as_many_as_were_needed_and_never_more_than_there_are() {
        let mut pool = Pool::new(Group::Large, Page::new());
        for wanted in [4, 8, 16, 32, 32] {
            pool.grow();
            pool.restock();
            assert_eq!((tail(&pool), pool.posted), (wanted, wanted));
        }
    }

    #[test]
    fn the_page_is_as_the_kernel_wants_it() {
        assert_eq!(size_of::<Page>(), 4096);
        assert_eq!(std::mem::offset_of!(Entry, tail), 14);
    }
}
