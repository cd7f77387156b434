//! Blocks of turn memory that the kernel receives into, io_uring's provided buffers.
//!
//! The kernel takes them from a page of entries that it shares with us, in order; each comes back with
//! its bytes, and is home when no buffer of it is held any more. No more blocks stand on the page than were
//! ever needed, and those that were home last go there first: few blocks that stay in the cache serve
//! better than many that take turns, and the others are never made.
//! There are two groups: small ones for messages, of which every connection that says something in a
//! turn takes one, and large ones for those that have filled a small one. An idle connection has neither.

use std::sync::atomic::{AtomicU16, Ordering};

use crate::buffer::{Buffer, TURN_MEMORY, TurnMemory};

/// Entries of a page: 4096 bytes of them, a power of two, and more than there are blocks of a group.
pub(super) const ENTRIES: u16 = 256;

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
pub(super) struct Page([Entry; ENTRIES as usize]);

impl Page {
    /// A page for the blocks of a group, with none on it.
    pub(super) fn new(group: Group) -> &'static mut Page {
        let nothing = |_| Entry {
            address: 0,
            length: group.size(),
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
            // So large that its memory comes from the kernel, page by page, as it is written to.
            Group::Small => 128 * 1024,
            Group::Large => TURN_MEMORY,
        }
    }

    /// Blocks that stand on the page at first. One large one is received into and sent from,
    /// again and again.
    const fn first(self) -> u16 {
        match self {
            Group::Small => 16,
            Group::Large => 1,
        }
    }

    /// Most blocks. With half of the small ones, 500 peers that all speak get half as much done.
    const fn count(self) -> u16 {
        match self {
            Group::Small => 128,
            Group::Large => 32,
        }
    }
}

/// The blocks of one group.
#[derive(Debug)]
pub(super) struct Pool {
    group: Group,
    page: &'static mut Page,
    /// Those that were ever needed, and where they are.
    blocks: Vec<TurnMemory>,
    addresses: Vec<u64>,
    /// Where the next block goes on the page.
    tail: u16,
    /// Blocks on the page, and how many there should be.
    posted: u16,
    wanted: u16,
    /// The kernel found none since the last time that it was given some.
    lacked: bool,
    /// Blocks that have been taken, the first taken first; that is mostly the order in which they come home.
    out: Vec<u16>,
    /// Blocks that are home; the last was used last.
    home: Vec<u16>,
}

impl Pool {
    /// The first few blocks of a group, on the page.
    pub(super) fn new(group: Group, page: &'static mut Page) -> Pool {
        let mut pool = Pool {
            group,
            page,
            blocks: Vec::new(),
            addresses: Vec::new(),
            tail: 0,
            posted: 0,
            wanted: group.first(),
            lacked: false,
            out: Vec::new(),
            home: Vec::new(),
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
    pub(super) fn note_lack(&mut self) {
        self.lacked = true;
    }

    /// Gives the kernel blocks that are home, as many as are wanted.
    #[inline(always)]
    pub(super) fn restock(&mut self) {
        if self.out.is_empty() && self.posted >= self.wanted && !self.lacked {
            return;
        }
        if std::mem::take(&mut self.lacked) {
            self.wanted = (self.wanted * 2).min(self.group.count());
        }
        let is_home = |number: &&u16| self.blocks[**number as usize].is_home();
        let back = self.out.iter().take_while(is_home).count();
        self.home.extend(self.out.drain(..back));
        while self.posted < self.wanted
            && let Some(number) = self.home.pop().or_else(|| self.make())
        {
            self.post(number);
        }
        // The entries before the tail that tells of them.
        self.page.0[0].tail.store(self.tail, Ordering::Release);
    }

    /// Puts a block on the page; the kernel sees it with the tail.
    #[inline(always)]
    fn post(&mut self, number: u16) {
        let entry = &mut self.page.0[(self.tail % ENTRIES) as usize];
        entry.address = self.addresses[number as usize];
        entry.number = number;
        self.tail = self.tail.wrapping_add(1);
        self.posted += 1;
    }

    /// One more block, unless there are all.
    #[cold]
    fn make(&mut self) -> Option<u16> {
        let number = u16::try_from(self.blocks.len()).ok()?;
        if number >= self.group.count() {
            return None;
        }
        let mut block = TurnMemory::of(self.group.size() as usize);
        let address = block.address().expose_provenance() as u64;
        self.addresses.push(address);
        self.blocks.push(block);
        Some(number)
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
        let mut pool = Pool::new(Group::Large, Page::new(Group::Large));
        assert_eq!((tail(&pool), pool.page.0[0].number), (1, 0));
        let buffer = pool.take(0, 10);
        let twin = buffer.clone();
        drop(buffer);
        pool.restock();
        assert_eq!(twin.len(), 10);
        assert_eq!((tail(&pool), pool.page.0[1].number), (2, 1), "another one");
        pool.take(1, 10);
        drop(twin);
        pool.restock();
        assert_eq!((tail(&pool), pool.page.0[2].number), (3, 1), "used last");
        assert_eq!(pool.home, [0], "one is enough");
    }

    #[test]
    fn there_are_as_many_as_were_needed_and_never_more_than_there_are() {
        let mut pool = Pool::new(Group::Large, Page::new(Group::Large));
        for wanted in [2, 4, 8, 16, 32, 32] {
            pool.note_lack();
            pool.note_lack();
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
