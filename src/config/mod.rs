//! The configuration, as the daemon uses it: values that cannot be wrong.
//!
//! A `Config` comes from a file ([`Config::load`]), from `--listen` or from the built-in default, and
//! in no other way. What a file may say is `schema`; what it means is `validate`; what a reload may
//! change is `change`.

mod change;
mod check;
mod error;
mod keys;
mod load;
mod name;
mod parse;
mod print;
mod quantity;
mod said;
mod schema;
mod shipped;
mod text;
mod validate;
mod value;

pub use change::{NeedsRestart, allow_reload};
pub use check::{
    AUTO_CONNECTIONS_MAX, DESCRIPTOR_RESERVE, Host, check, effective_max_connections, worker_count,
};
pub use error::{Error, Refusal};
pub use keys::keys;
pub use load::{DEFAULT_PATH, FILE_MAX};
pub use name::overlap;
pub(crate) use name::parse_address;
pub use print::{CONNECTION_MEMORY, Memory, memory, per_socket, print, worker_memory};
pub use said::{Objection, Said};
pub use schema::BACKLOG;
pub(crate) use text::escape;

use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::time::Duration;

use value::Words;

/// Everything that the daemon may be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where it came from.
    pub origin: Origin,
    /// Threads; `None`: one per CPU that this process may use.
    pub workers: Option<NonZeroU16>,
    /// How the workers reach the kernel.
    pub engine: Engine,
    /// The user to become when started as root.
    pub user: String,
    /// The group to become when started as root.
    pub group: String,
    /// Serve as root although that is never needed.
    pub allow_root: bool,
    /// Most connections of all listeners together; `None`: what the descriptor limit holds, at most 10,000.
    pub max_connections: Option<NonZeroU32>,
    /// Most bytes of all buffers together.
    pub buffer_memory: u64,
    /// A connection that owes nothing and has received nothing for so long is ended by a drain.
    pub drain_idle: Duration,
    /// The longest that a drain takes.
    pub drain_timeout: Duration,
    /// What is said, and where.
    pub log: Log,
    /// At least one, each with a name of its own.
    pub listeners: Vec<Listener>,
    /// Where the text says the keys that only this host can refuse.
    pub said: Said,
}

/// Where a configuration came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This file, named or found at `/etc/echod/echod.toml`.
    File(PathBuf),
    /// `--listen` on the command line.
    CommandLine,
    /// Nothing was named and `/etc/echod/echod.toml` is not there.
    BuiltIn,
}

/// How the workers reach the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// By readiness, epoll(7); there is no host without it.
    Epoll,
    /// By completion, io_uring(7), or not at all.
    IoUring,
    /// By io_uring if this host lets us and it does as it should, else by epoll.
    Auto,
}

/// The word that a file has for it.
impl fmt::Display for Engine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.word())
    }
}

/// `[log]`: what is said, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// Where it goes.
    pub target: Target,
    /// The least level that is said.
    pub level: Level,
    /// The syslog facility.
    pub facility: Facility,
    /// Which connections leave a record.
    pub records: Records,
    /// Records per second, after a burst.
    pub record_rate: RecordRate,
    /// How a peer is written.
    pub peer: PeerForm,
    /// Connections that sent nothing and left leave a record like any other, rather than at debug.
    pub empty: bool,
}

/// A syslog facility's code, as RFC 3164 §4.1.1 has it in the priority: already times eight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facility(pub u32);

impl Facility {
    /// System daemons without a facility of their own.
    pub const DAEMON: Self = Self(3 << 3);
}

/// Where the log goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// RFC 3164 datagrams to `/dev/log`.
    Syslog,
    /// The journal's native protocol.
    Journal,
    /// Lines on standard error.
    Stderr,
}

/// How much somebody needs to know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Someone must act.
    Error,
    /// Worse, but serving.
    Warning,
    /// The daemon's life, and the record of each ended connection.
    Info,
    /// What happens inside a connection.
    Debug,
}

/// Which connections leave a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Records {
    /// Each, when it begins and when it ends.
    Both,
    /// Each, when it ends.
    Ended,
    /// Those that failed.
    Failed,
    /// None.
    None,
}

/// The most records, a token bucket: `per_second` after `burst`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RecordRate {
    /// Refill, per second; above zero.
    pub per_second: f64,
    /// Records at once after a quiet time.
    pub burst: u32,
}

/// How a peer is written in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerForm {
    /// Address and port.
    Full,
    /// The source prefix alone: /32 for IPv4, /64 for IPv6.
    Prefix,
}

/// `[[listener]]`: one named service, at one or several addresses.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// `[a-z0-9-]{1,32}`; also the name by which a socket unit hands its socket over.
    pub name: String,
    /// Where it listens; bound by us unless a socket of its name was handed over.
    pub address: Vec<SocketAddr>,
    /// What it answers.
    pub service: Service,
    /// Connections that the kernel completes and holds until they are accepted.
    pub backlog: u32,
    /// Most bytes owed to one peer.
    pub buffer: u32,
    /// Most connections at once; `None`: as many as the daemon takes.
    pub max_connections: Option<NonZeroU32>,
    /// Most bytes of one connection, received and sent together; `None`: any number.
    pub max_bytes: Option<u64>,
    /// Options of its sockets.
    pub tcp: Tcp,
    /// How long things may take.
    pub timeout: Timeout,
}

/// What a listener answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// RFC 862: the same bytes.
    Echo,
}

/// `[listener.tcp]`: options of a listener's sockets, tcp(7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// `TCP_NODELAY`: small answers leave at once.
    pub nodelay: bool,
    /// `SO_KEEPALIVE` and its three times; `None`: off.
    pub keepalive: Option<Keepalive>,
    /// `TCP_USER_TIMEOUT`: how long sent bytes may stay unacknowledged; `None`: the kernel's default.
    pub user_timeout: Option<Duration>,
}

/// Probes on a quiet connection; whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Quiet time before the first probe, `TCP_KEEPIDLE`.
    pub idle: Duration,
    /// Time between probes, `TCP_KEEPINTVL`.
    pub interval: Duration,
    /// Unanswered probes that end the connection, `TCP_KEEPCNT`.
    pub count: u32,
}

/// `[listener.timeout]`: `None` is off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeout {
    /// From accept to the first byte.
    pub first_byte: Option<Duration>,
    /// Without a byte from the peer, while nothing is owed.
    pub idle: Option<Duration>,
    /// From accept to the end.
    pub lifetime: Option<Duration>,
    /// We owe bytes and the peer takes none.
    pub stall: Option<Duration>,
}
