//! The table of signals, and the Event each becomes.
//!
//! A handler only writes to a pipe, which the supervisor's loop reads. Like the kernel's own, signals
//! of one kind that arrive together count as one.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

use super::phase::Event;

/// The signals that we listen to. SIGPIPE is ignored by Rust's runtime: a peer that is gone is an errno.
const SIGNALS: [i32; 3] = [SIGHUP, SIGTERM, SIGINT];

/// Signals, as something to read.
#[derive(Debug)]
pub struct Signals {
    delivery: SignalDelivery<UnixStream, SignalOnly>,
    /// Which of the standard streams were terminals when we started; one that hung up is none any more.
    terminals: [bool; 3],
    /// What came and was only looked at.
    kept: Vec<Event>,
}

impl Signals {
    /// Listens to the signals from now on. Call it before anything that takes time.
    ///
    /// # Errors
    /// When there is no descriptor for the pipe.
    pub fn listen() -> io::Result<Signals> {
        let (read, write) = UnixStream::pair()?;
        let delivery = SignalDelivery::with_pipe(read, write, SignalOnly, SIGNALS)?;
        let terminals = [
            io::stdin().is_terminal(),
            io::stdout().is_terminal(),
            io::stderr().is_terminal(),
        ];
        Ok(Signals {
            delivery,
            terminals,
            kept: Vec::new(),
        })
    }

    /// Readable when a signal has come.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.delivery.get_read().as_fd()
    }

    /// What came since the last time, each kind once; an end comes before a reload.
    pub fn take(&mut self) -> Vec<Event> {
        let signals: Vec<i32> = self.delivery.pending().collect();
        let mut events = std::mem::take(&mut self.kept);
        events.extend(signals.into_iter().map(|signal| self.event(signal)));
        events.sort_by_key(|event| *event == Event::Hangup);
        // SIGTERM and SIGINT that come together are one wish, not a second one.
        events.dedup();
        events
    }

    /// Is the daemon to end? Whatever came is still there to be taken.
    pub fn is_end_wanted(&mut self) -> bool {
        self.kept = self.take();
        self.kept
            .iter()
            .any(|event| matches!(event, Event::Terminate | Event::TerminalGone))
    }

    fn event(&self, signal: i32) -> Event {
        match signal {
            SIGHUP if self.terminal_hung_up() => Event::TerminalGone,
            SIGHUP => Event::Hangup,
            _ => Event::Terminate,
        }
    }

    /// Is the terminal gone that we were started on? Then SIGHUP means what it meant first.
    fn terminal_hung_up(&self) -> bool {
        let [stdin, stdout, stderr] = self.terminals;
        stdin && has_hung_up(io::stdin().as_fd())
            || stdout && has_hung_up(io::stdout().as_fd())
            || stderr && has_hung_up(io::stderr().as_fd())
    }
}

fn has_hung_up(stream: BorrowedFd<'_>) -> bool {
    let mut streams = [PollFd::new(stream, PollFlags::empty())];
    let asked = poll(&mut streams, PollTimeout::ZERO);
    asked.is_ok()
        && streams[0]
            .revents()
            .is_some_and(|events| events.contains(PollFlags::POLLHUP))
}
