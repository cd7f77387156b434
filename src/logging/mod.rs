//! One line per event, to the journal, syslog or standard error.
//!
//! ```text
//! supervisor --Event--------------.
//! workers ----Event---------------+--> queue (bounded) --> Writer --> syslog | journal | stderr
//!        '-> Recorder --Record----'                       (thread "log")
//!                     '-Summary---'
//! ```
//! A `Log` is held by everyone and never waits: what finds the queue full is dropped and counted, and the
//! count is said when there is room again. Levels and limits are decided before anything is formatted;
//! formatting is the log thread's work. It sleeps until something is said.
//!
//! - `kind`: the table of all that can happen; `event`: one thing that did.
//! - `format`: an event as a line that nothing in it can break.
//! - `record`, `limiter`, `summary`, `recorder`: connections, and what to do when there are many.
//! - `writer`: the thread; `report`: its pace; `syslog`, `journal`, `stderr` on `transport`: where lines go.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::{self, Level};
use crate::tick::Tick;
use limiter::Limiter;
use stderr::Stderr;

mod event;
mod format;
mod journal;
pub mod kind;
mod limiter;
mod record;
mod recorder;
mod report;
mod stderr;
mod summary;
#[cfg(test)]
mod support;
mod syslog;
mod transport;
mod writer;

pub use event::Event;
pub use format::{DETAIL_MAX, LINE_MAX, VALUE_MAX};
pub use kind::Kind;
pub use record::{Prefix, Record, TcpFacts};
pub use recorder::Recorder;
pub use stderr::is_journal;
pub use summary::{SOURCES_MAX, Summary};
pub use writer::{Logger, Writer};

/// Most messages that wait for the log's thread.
pub const QUEUE_MAX: usize = 4096;

/// What the daemon is called in a log that others write to as well.
const IDENTIFIER: &str = "echod";

/// What can go wrong in this room. That nobody takes the lines is not an error: they are counted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log's thread could not be started.
    #[error("cannot start the log's thread")]
    Thread(#[source] io::Error),
}

/// Where log daemons listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The syslog receiver's socket.
    pub dev_log: PathBuf,
    /// The journal's native socket.
    pub journal: PathBuf,
}

impl Default for Paths {
    fn default() -> Paths {
        Paths {
            dev_log: "/dev/log".into(),
            journal: "/run/systemd/journal/socket".into(),
        }
    }
}

/// What standard error hears besides the target. Either way, until [`Log::ready`] it hears each error,
/// and always what ends the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    /// No more than that.
    Errors,
    /// Everything: somebody is watching.
    Everything,
}

impl Echo {
    /// Everything on a terminal.
    pub fn detect() -> Echo {
        if stderr::is_terminal() {
            Echo::Everything
        } else {
            Echo::Errors
        }
    }
}

/// The door to the log, for everyone: clone it, and say things.
#[derive(Clone, Debug)]
pub struct Log {
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
}

/// What travels to the log's thread.
#[derive(Debug)]
enum Message {
    /// An event, and whether standard error hears it as well.
    Said(Event, bool),
    Started(SocketAddr, Arc<str>),
    Ended(Record),
    Summary(Box<Summary>),
    /// Wakes a thread that is to end.
    Close,
}

/// What all clones and the log's thread have in common.
#[derive(Debug)]
struct Shared {
    config: Mutex<config::Log>,
    /// Moves on when `config` changes: the thread looks at this and seldom takes the lock.
    generation: AtomicU64,
    level: AtomicU64,
    echo: Echo,
    ready: AtomicBool,
    closing: AtomicBool,
    /// Lines that nobody has: since the start, and since that was last said.
    dropped: AtomicU64,
    unreported: AtomicU64,
    limiter: Limiter,
}

impl Log {
    /// Opens the log. It can be spoken to at once; what is said waits until the writer is told to
    /// [flush](Writer::flush_now) or given [its thread](Writer::spawn).
    pub fn open(config: &config::Log, echo: Echo, paths: Paths) -> (Log, Writer) {
        Log::open_beside(config, echo, paths, Stderr::open())
    }

    fn open_beside(
        config: &config::Log,
        echo: Echo,
        paths: Paths,
        stderr: Stderr,
    ) -> (Log, Writer) {
        let (queue, receiver) = sync_channel(QUEUE_MAX);
        let shared = Arc::new(Shared {
            config: Mutex::new(config.clone()),
            generation: AtomicU64::new(0),
            level: AtomicU64::new(config.level as u64),
            echo,
            ready: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            unreported: AtomicU64::new(0),
            limiter: Limiter::new(config.record_rate),
        });
        let log = Log { queue, shared };
        (
            log.clone(),
            Writer::new(receiver, log, config.clone(), paths, stderr),
        )
    }

    /// Would an event of this kind be said? For callers to whom building one is dear.
    #[inline]
    pub fn says(&self, kind: &Kind) -> bool {
        self.shared.says(kind)
    }

    /// Says what happened, if its level is said. Never waits.
    pub fn say(&self, event: Event) {
        if !self.says(event.kind) {
            return;
        }
        let starting = !self.shared.ready.load(Relaxed);
        let aloud = event.kind.fatal || starting && event.kind.level == Level::Error;
        self.send(Message::Said(event, aloud));
    }

    /// The daemon serves: from now on errors go to the target alone, unless they end the process.
    pub fn ready(&self) {
        self.shared.ready.store(true, Relaxed);
    }

    /// Takes another `[log]`: the level at once, target and form for what is written from now on. Each
    /// worker's [`Recorder`] is told separately.
    pub fn adopt(&self, config: &config::Log) {
        let mut current = self.shared.config();
        if current.record_rate != config.record_rate {
            self.shared.limiter.adopt(config.record_rate);
        }
        self.shared.level.store(config.level as u64, Relaxed);
        *current = config.clone();
        self.shared.generation.fetch_add(1, SeqCst);
    }

    /// Lines that were dropped since the start, because the log's receiver was slow or away.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Relaxed)
    }

    fn config(&self) -> config::Log {
        self.shared.config().clone()
    }

    fn admits(&self, now: Tick, failure: bool) -> bool {
        self.shared.limiter.admit(now, failure)
    }

    /// Queues a message, or counts it as dropped.
    fn send(&self, message: Message) {
        if self.offer(message).is_err() {
            self.shared.count_dropped();
        }
    }

    /// Queues a message, or gives it back.
    #[allow(clippy::result_large_err, reason = "it is what the queue gives back")]
    fn offer(&self, message: Message) -> Result<(), Message> {
        self.queue
            .try_send(message)
            .map_err(|refused| match refused {
                TrySendError::Full(message) | TrySendError::Disconnected(message) => message,
            })
    }
}

impl Shared {
    fn says(&self, kind: &Kind) -> bool {
        kind.level as u64 <= self.level.load(Relaxed)
    }

    fn config(&self) -> MutexGuard<'_, config::Log> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_dropped(&self) {
        self.dropped.fetch_add(1, Relaxed);
        self.unreported.fetch_add(1, Relaxed);
    }
}
