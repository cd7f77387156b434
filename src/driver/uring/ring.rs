//! The io_uring(7) of one worker: what is asked, what comes back, and the memory that the kernel shares.
//!
//! All unsafe code of the driver is here, behind safe functions. Their one promise to the kernel is that
//! memory outlives the operation that uses it, and this file keeps it by owning all of that memory: bytes
//! under way lie in `queued` or `held` until their operation is home; blocks that are received into
//! belong to a [`Pool`]. Neither is freed with the ring, which the kernel tears down some time after its close.
//!
//! A ring is made disabled, by the thread that may still make rings, and enabled by the one that uses it.
//! It is restricted to five operations before that: whoever takes the process over opens no socket by it.

#![allow(unsafe_code)]

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::io;
use std::mem::{self, ManuallyDrop};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use io_uring::squeue::{self, Flags};
use io_uring::types::{CancelBuilder, Fd};
use io_uring::{IoUring, cqueue, opcode, register::Restriction};
use nix::libc::{
    self, MSG_DONTWAIT, MSG_NOSIGNAL, MSG_WAITALL, POLLIN, SOCK_CLOEXEC, SOCK_NONBLOCK,
};

use super::event::{Accepted, Event, kind, outcome, sent};
use super::pool::{ENTRIES, Group, Page, Pool};
use crate::buffer::Buffer;
use crate::driver::{PLACES, Sent, Token};
use crate::sys;

/// Operations that may be queued before the kernel is told: more go with a call in between.
const SUBMISSIONS: u32 = 1024;

/// Most places for what comes back: the kernel's own bound. What finds no place waits in the kernel.
const COMPLETIONS_MAX: u32 = 1 << 16;

/// Bytes on their way, from turn memory.
#[derive(Debug)]
struct Sending {
    token: Token,
    bytes: Buffer,
}

/// A ring that does nothing yet, and may be given to the thread that will use it.
pub struct Disabled {
    uring: IoUring,
    pages: [&'static mut Page; 2],
}

impl Disabled {
    /// Makes a ring for about so many connections.
    ///
    /// # Errors
    /// What the kernel says where it has no io_uring, does not let us have it, or is too old.
    pub(super) fn new(connections: u32) -> io::Result<Disabled> {
        // A connection has a receive, a send, and a cancel of both.
        let completions = connections.saturating_mul(4);
        let uring = IoUring::builder()
            .setup_r_disabled()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(completions.clamp(2 * SUBMISSIONS, COMPLETIONS_MAX))
            .dontfork()
            .build(SUBMISSIONS)?;
        let submitter = uring.submitter();
        let pages = Group::ALL.map(Page::new);
        for (group, page) in Group::ALL.into_iter().zip(&pages) {
            // SAFETY: the page is never freed, and holds so many entries.
            unsafe {
                submitter.register_buf_ring_with_flags(page.address(), ENTRIES, group as u16, 0)?;
            }
        }
        let mut allowed = [
            Restriction::sqe_op(opcode::Recv::CODE),
            Restriction::sqe_op(opcode::Send::CODE),
            Restriction::sqe_op(opcode::Accept::CODE),
            Restriction::sqe_op(opcode::PollAdd::CODE),
            Restriction::sqe_op(opcode::AsyncCancel2::CODE),
            Restriction::sqe_flags_allowed((Flags::BUFFER_SELECT | Flags::SKIP_SUCCESS).bits()),
        ];
        submitter.register_restrictions(&mut allowed)?;
        Ok(Disabled { uring, pages })
    }

    /// The ring, in use by this thread from now on.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn enable(self) -> io::Result<Ring> {
        let fd = self.uring.as_raw_fd();
        // A number of this thread's own spares each call the search for the descriptor.
        let enter = match sys::register_ring(fd) {
            Ok(number) => (number.cast_signed(), sys::ENTER_REGISTERED),
            Err(_) => (fd, 0),
        };
        self.uring.submitter().register_enable_rings()?;
        let [small, large] = self.pages;
        Ok(Ring {
            uring: self.uring,
            enter,
            small: ManuallyDrop::new(Pool::new(Group::Small, small)),
            large: ManuallyDrop::new(Pool::new(Group::Large, large)),
            queued: ManuallyDrop::new(Vec::new()),
            refusals: Vec::new(),
            taken: Vec::new(),
            refused: Vec::new(),
            held: ManuallyDrop::new(Vec::with_capacity(PLACES)),
            batch: Vec::new(),
            at: 0,
            accepted: VecDeque::new(),
        })
    }
}

/// One ring, and everything that is under way by it.
pub(super) struct Ring {
    uring: IoUring,
    /// By which number the kernel knows it, and the flag that says of which kind that is.
    enter: (i32, u32),
    small: ManuallyDrop<Pool>,
    large: ManuallyDrop<Pool>,
    /// Sends that the kernel has not been told of, or has not answered.
    queued: ManuallyDrop<Vec<Sending>>,
    /// Places in `queued` of those that it did not take whole, and what it said of them.
    refusals: Vec<(usize, i32)>,
    /// Sends that it has answered and nobody has asked for yet: those that it took whole, and the others.
    taken: Vec<Sending>,
    refused: Vec<(Token, Sent)>,
    /// Sends that wait for the peer, by the place of their connection; boxed, since most have none.
    held: ManuallyDrop<Vec<Option<Box<Buffer>>>>,
    /// What came back in this turn; that before `at` has been looked at.
    batch: Vec<cqueue::Entry>,
    at: usize,
    accepted: VecDeque<Accepted>,
}

impl Ring {
    /// Receives from a socket whatever comes, as it comes, into small buffers, until that is `limit` bytes
    /// or more: the last of them may bring a whole buffer.
    pub(super) fn receive_many(&mut self, index: u32, socket: BorrowedFd<'_>, limit: u32) {
        let fd = Fd(socket.as_raw_fd());
        let entry = opcode::RecvMulti::new(fd, Group::Small as u16).build();
        self.push(&limited(entry, limit).user_data(kind::SMALL | u64::from(index)));
    }

    /// Receives from a socket once, into the smallest buffer that holds `most` bytes, and no more than that.
    pub(super) fn receive_once(&mut self, index: u32, socket: BorrowedFd<'_>, most: u32) {
        let (group, kind) = if most <= Group::Small.size() {
            (Group::Small, kind::SMALL)
        } else {
            (Group::Large, kind::LARGE)
        };
        let entry = opcode::Recv::new(Fd(socket.as_raw_fd()), std::ptr::null_mut(), most)
            .buf_group(group as u16)
            .build()
            .flags(Flags::BUFFER_SELECT);
        self.push(&entry.user_data(kind | u64::from(index)));
    }

    /// Sends with the next turn what the kernel takes at once. It says nothing if that is all.
    #[inline(always)]
    pub(super) fn send_now(&mut self, token: Token, socket: BorrowedFd<'_>, bytes: Buffer) {
        // With MSG_WAITALL a part is a failure, and failures are not passed over in silence; with
        // MSG_DONTWAIT it does not wait for the rest all the same.
        let entry = self
            .send_entry(socket, &bytes, MSG_DONTWAIT | MSG_WAITALL)
            .flags(Flags::SKIP_SUCCESS);
        loop {
            let data = kind::SEND_NOW | self.queued.len() as u64;
            if self.try_push(&entry.clone().user_data(data)) {
                break;
            }
            // It empties what is queued: the place is another one then.
            self.make_room();
        }
        self.queued.push(Sending { token, bytes });
    }

    /// Sends when the peer takes some: [`Event::Sent`] says how much.
    pub(super) fn send(&mut self, index: u32, socket: BorrowedFd<'_>, bytes: Buffer) {
        let entry = self.send_entry(socket, &bytes, 0);
        let place = index as usize;
        if self.held.len() <= place {
            self.held.resize_with(place + 1, || None);
        }
        debug_assert!(
            self.held[place].is_none(),
            "one send of a connection at a time"
        );
        self.held[place] = Some(Box::new(bytes));
        self.push(&entry.user_data(kind::SEND | u64::from(index)));
    }

    #[inline(always)]
    fn send_entry(&self, socket: BorrowedFd<'_>, bytes: &Buffer, flags: i32) -> squeue::Entry {
        let (address, length) = (bytes.bytes().as_ptr(), bytes.len());
        opcode::Send::new(Fd(socket.as_raw_fd()), address, length)
            .flags(flags | MSG_NOSIGNAL)
            .build()
    }

    /// Accepts from a socket until it is told to stop.
    pub(super) fn accept(&mut self, slot: u16, socket: BorrowedFd<'_>) {
        let entry = opcode::AcceptMulti::new(Fd(socket.as_raw_fd()))
            .flags(SOCK_NONBLOCK | SOCK_CLOEXEC)
            .build();
        self.push(&entry.user_data(kind::ACCEPT | u64::from(slot)));
    }

    /// Tells each time that the bell is rung.
    pub(super) fn watch_bell(&mut self, bell: BorrowedFd<'_>) {
        self.watch(bell, kind::BELL);
    }

    /// Tells each time that the alarm goes off.
    pub(super) fn watch_alarm(&mut self, alarm: BorrowedFd<'_>) {
        self.watch(alarm, kind::ALARM);
    }

    fn watch(&mut self, fd: BorrowedFd<'_>, kind: u64) {
        let interest = u32::from(POLLIN.cast_unsigned());
        let entry = opcode::PollAdd::new(Fd(fd.as_raw_fd()), interest).multi(true);
        self.push(&entry.build().user_data(kind));
    }

    /// Stops receiving from a connection and sending to it; what came before is told, and then how each
    /// ended that was under way.
    pub(super) fn cancel_all(&mut self, socket: BorrowedFd<'_>) {
        self.cancel(CancelBuilder::fd(Fd(socket.as_raw_fd())).all());
    }

    /// Stops accepting from a socket; the last [`Accepted`] of it is not armed.
    pub(super) fn cancel_accept(&mut self, slot: u16) {
        self.cancel(CancelBuilder::user_data(kind::ACCEPT | u64::from(slot)));
    }

    fn cancel(&mut self, what: CancelBuilder) {
        // It fails where the operation is on its way home already.
        let entry = opcode::AsyncCancel2::new(what).build();
        self.push(&entry.flags(Flags::SKIP_SUCCESS).user_data(kind::CANCEL));
    }

    fn push(&mut self, entry: &squeue::Entry) {
        while !self.try_push(entry) {
            self.make_room();
        }
    }

    /// Queues an operation, if there is room for it.
    #[inline(always)]
    fn try_push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: what the entry points to is owned by this ring until the operation is home.
        unsafe { self.uring.submission().push(entry) }.is_ok()
    }

    /// Tells the kernel all that is asked, so that more can be queued.
    #[cold]
    fn make_room(&mut self) {
        self.turn(false);
    }

    /// Gives the kernel back the memory that is home, and tells it all that is asked. With `sleep` it waits
    /// until something has come back.
    #[inline(always)]
    pub(super) fn turn(&mut self, sleep: bool) {
        self.small.restock();
        self.large.restock();
        if self.at == self.batch.len() {
            self.batch.clear();
            self.at = 0;
        }
        let told = {
            let mut queue = self.uring.submission();
            queue.sync();
            u32::try_from(queue.len()).unwrap_or(SUBMISSIONS)
        };
        let (ring, flags) = self.enter;
        // EINTR, or so much has come back that it takes no more: the next turn goes on.
        let _ = sys::ring_enter(ring, told, u32::from(sleep), flags);
        let from = self.batch.len();
        self.batch.extend(self.uring.completion());
        let is_receive = |entry: &cqueue::Entry| entry.user_data() & kind::MASK == kind::SMALL;
        if !self.batch[from..].iter().all(is_receive) {
            self.sort(from);
        }
        // It has answered what it was told of: at once, in what came back or by saying nothing; but not
        // while some of what came back waits in the kernel for a place.
        let queue = self.uring.submission();
        let is_answered = queue.is_empty() && !queue.cq_overflow();
        drop(queue);
        if is_answered {
            self.settle();
        }
    }

    /// Notes what has an order of its own: a refused send before all that was received, peers by their socket.
    #[cold]
    fn sort(&mut self, from: usize) {
        for entry in &self.batch[from..] {
            let (data, result) = (entry.user_data(), entry.result());
            // The lower half of the data is a place in a table.
            #[allow(clippy::cast_possible_truncation)]
            let number = data as u32;
            match data & kind::MASK {
                kind::SEND_NOW => self.refusals.push((number as usize, result)),
                kind::ACCEPT => {
                    let stream = match outcome(result) {
                        // SAFETY: accepting answered a new descriptor, which nobody else knows.
                        Ok(fd) => Ok(unsafe { OwnedFd::from_raw_fd(fd.cast_signed()) }),
                        Err(errno) => Err(errno),
                    };
                    self.accepted.push_back(Accepted {
                        slot: u16::try_from(number).unwrap_or(u16::MAX),
                        stream,
                        armed: cqueue::more(entry.flags()),
                    });
                }
                _ => {}
            }
        }
    }

    /// All that is queued has been answered.
    #[inline(always)]
    fn settle(&mut self) {
        if !self.refusals.is_empty() {
            self.part_refused();
        }
        if self.taken.is_empty() {
            mem::swap(&mut self.taken, &mut *self.queued);
        } else {
            self.taken.append(&mut self.queued);
        }
    }

    /// Takes those out of `queued` that were not taken whole.
    #[cold]
    fn part_refused(&mut self) {
        // The last first: whoever stands before it keeps its place.
        self.refusals
            .sort_unstable_by_key(|(place, _)| Reverse(*place));
        for (place, result) in self.refusals.drain(..) {
            if place < self.queued.len() {
                let Sending { token, bytes } = self.queued.swap_remove(place);
                self.refused.push((token, sent(bytes, result)));
            }
        }
    }

    /// A send from turn memory that was taken whole, and how long it was.
    #[inline(always)]
    pub(super) fn next_all_sent(&mut self) -> Option<(Token, u32)> {
        // Its memory is home from here on.
        let Sending { token, bytes } = self.taken.pop()?;
        Some((token, bytes.len()))
    }

    /// A send from turn memory that was answered.
    pub(super) fn next_sent(&mut self) -> Option<(Token, Sent)> {
        self.refused.pop().or_else(|| {
            let (token, count) = self.next_all_sent()?;
            Some((token, Sent::All(count)))
        })
    }

    /// Is there a send from turn memory that the kernel has not answered?
    #[inline(always)]
    pub(super) fn is_sending(&self) -> bool {
        !self.queued.is_empty()
    }

    /// Is there something that came back and was not asked for?
    #[inline(always)]
    pub(super) fn has_news(&self) -> bool {
        self.at < self.batch.len()
            || !self.taken.is_empty()
            || !self.refused.is_empty()
            || !self.accepted.is_empty()
    }

    /// Bytes that came into a small buffer and left room in it, with more to come: for which connection.
    #[inline(always)]
    pub(super) fn next_message(&mut self) -> Option<(u32, Buffer)> {
        if !self.refused.is_empty() || !self.taken.is_empty() {
            return None;
        }
        let entry = self.batch.get(self.at)?;
        let (data, result, flags) = (entry.user_data(), entry.result(), entry.flags());
        if data & kind::MASK != kind::SMALL
            || result <= 0
            || result.cast_unsigned() >= Group::Small.size()
            || !cqueue::more(flags)
        {
            return None;
        }
        self.at += 1;
        #[allow(clippy::cast_possible_truncation)]
        let index = data as u32;
        let input = self
            .small
            .take(cqueue::buffer_select(flags)?, result.cast_unsigned());
        Some((index, input))
    }

    /// What came back next.
    pub(super) fn next(&mut self) -> Option<Event> {
        loop {
            let entry = self.batch.get(self.at)?;
            let (data, result, flags) = (entry.user_data(), entry.result(), entry.flags());
            self.at += 1;
            #[allow(clippy::cast_possible_truncation)]
            let index = data as u32;
            return Some(match data & kind::MASK {
                received @ (kind::SMALL | kind::LARGE) => {
                    let buffer = cqueue::buffer_select(flags);
                    let pool = match received {
                        kind::SMALL => &mut self.small,
                        _ => &mut self.large,
                    };
                    if result == -libc::ENOBUFS {
                        pool.note_lack();
                    }
                    // An empty receive may have taken a buffer all the same: it goes back as it is.
                    let count = outcome(result).unwrap_or(0);
                    match buffer.map(|number| pool.take(number, count)) {
                        Some(input) if !input.is_empty() => Event::Received {
                            index,
                            input,
                            armed: cqueue::more(flags),
                        },
                        _ => Event::ReceiveEnded {
                            index,
                            errno: outcome(result).err(),
                        },
                    }
                }
                kind::SEND => {
                    let Some(bytes) = self.held.get_mut(index as usize).and_then(Option::take)
                    else {
                        continue;
                    };
                    let sent = sent(*bytes, result);
                    Event::Sent { index, sent }
                }
                kind::BELL => Event::Rung {
                    armed: cqueue::more(flags),
                },
                kind::ALARM => Event::Alarm {
                    armed: cqueue::more(flags),
                },
                _ => continue,
            });
        }
    }

    /// A peer that came in, or why none does.
    pub(super) fn next_accepted(&mut self) -> Option<Accepted> {
        self.accepted.pop_front()
    }

    /// A peer that came in by this slot.
    pub(super) fn next_accepted_by(&mut self, slot: u16) -> Option<OwnedFd> {
        while let Some(place) = self.accepted.iter().position(|peer| peer.slot == slot) {
            if let Some(Ok(stream)) = self.accepted.remove(place).map(|peer| peer.stream) {
                return Some(stream);
            }
        }
        None
    }

    /// Has the last peer come in by this slot, after accepting was cancelled? The answer yes is due once.
    pub(super) fn has_stopped_accepting(&mut self, slot: u16) -> bool {
        let last = |peer: &&mut Accepted| peer.slot == slot && !peer.armed;
        let found = self.accepted.iter_mut().find(last);
        // Whoever asks for the peer later is not told again that it was the last.
        found.map(|peer| peer.armed = true).is_some()
    }
}

/// A multishot receive that ends when it has brought `limit` bytes, `optlen` of io_uring_enter(2).
fn limited(entry: squeue::Entry, limit: u32) -> squeue::Entry {
    /// Where the field is, in words of four bytes; the crate does not know it yet.
    const OPTLEN: usize = 11;
    // SAFETY: an entry is the kernel's `struct io_uring_sqe`, 64 bytes of numbers.
    let mut words: [u32; 16] = unsafe { mem::transmute(entry) };
    words[OPTLEN] = limit;
    // SAFETY: the same, and any number is a valid limit.
    unsafe { mem::transmute(words) }
}
