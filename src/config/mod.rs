//! The configuration, as the daemon uses it: values that cannot be wrong.
//!
//! A `Config` comes from a file ([`Config::load`]), from `--listen` or from the built-in default, and
//! in no other way. What a file may say is `schema`; what it means is `validate`; what a reload may
//! change is `change`, and what becomes of it `effect`.

mod access;
mod change;
mod check;
mod compression;
mod descriptors;
mod effect;
mod error;
mod keys;
mod listener;
mod load;
mod memory;
mod name;
mod parse;
mod print;
mod proxy;
mod quantity;
mod rate;
mod said;
mod schema;
mod shipped;
mod text;
mod tls;
mod validate;
mod value;

pub use change::{Change, NeedsRestart, What, changes, tally};
pub use check::{Host, check, worker_count};
pub use compression::Compression;
pub use descriptors::{
    AUTO_CONNECTIONS_MAX, DESCRIPTOR_RESERVE, effective_max_connections, parting_connections,
};
pub use effect::Effect;
pub use error::{Error, Refusal};
pub use keys::keys;
pub use load::{DEFAULT_PATH, FILE_MAX};
pub use memory::{CONNECTION_MEMORY, Memory, PROGRAM_MEMORY, memory, per_socket, worker_memory};
pub use name::overlap;
pub(crate) use name::parse_address;
pub use print::print;
pub use said::{Objection, Said};
pub use schema::BACKLOG;
pub(crate) use text::escape;
pub(crate) use tls::suite_name;
pub use tls::{Client, Expired, Pair, Tls, TlsVersion};

use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

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
    /// Named by the service `whoami`; empty: not.
    pub instance: String,
    /// Likewise: for those who wonder who we are.
    pub contact: String,
    /// What is said, and where.
    pub log: Log,
    /// What becomes strict when there are many connections.
    pub pressure: Pressure,
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

/// A share in percent, 1 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(pub u8);

impl Share {
    /// This share of `whole`, rounded down, and at least one.
    pub fn of(self, whole: u32) -> u32 {
        let share = u64::from(whole) * u64::from(self.0) / 100;
        // A share of a u32 is one.
        u32::try_from(share).unwrap_or(u32::MAX).max(1)
    }
}

/// So many bytes in a unit of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRate {
    /// At least one.
    pub bytes: u64,
    /// A second or a minute.
    pub per: Duration,
}

/// New connections, a token bucket: `count` in a unit of time, after `burst`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionRate {
    /// At least one.
    pub count: u32,
    /// A second or a minute.
    pub per: Duration,
    /// Connections at once after a quiet time, at least one.
    pub burst: u32,
}

/// `[pressure]`: what holds while there are many connections; `None` is off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pressure {
    /// Above this share of `max_connections`; `None`: never.
    pub above: Option<Share>,
    /// Most connections of one source at one listener, as a share of `max_connections`.
    pub max_connections_per_source: Option<Share>,
    /// `timeout.idle`, where that is longer.
    pub idle: Option<Duration>,
    /// `timeout.stall`, where that is longer.
    pub stall: Option<Duration>,
    /// Least bytes of a connection, both ways together, in each unit of time.
    pub progress: Option<ByteRate>,
}

impl Pressure {
    /// Nothing becomes strict.
    pub const fn none() -> Pressure {
        Pressure {
            above: None,
            max_connections_per_source: None,
            idle: None,
            stall: None,
            progress: None,
        }
    }
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
    /// Most connections of one source at once; `None`: any number.
    pub max_connections_per_source: Option<NonZeroU32>,
    /// Most connections that one worker serves of it; `None`: any number.
    pub max_connections_per_worker: Option<NonZeroU32>,
    /// Most bytes of one connection, received and sent together; `None`: any number.
    pub max_bytes: Option<u64>,
    /// What counts as one source.
    pub source_prefix: SourcePrefix,
    /// What a peer hears that is refused.
    pub refusal: RefusalForm,
    /// Its peers speak TLS; `None`: they do not.
    pub tls: Option<Tls>,
    /// Options of its sockets.
    pub tcp: Tcp,
    /// How long things may take.
    pub timeout: Timeout,
    /// Who may come.
    pub access: Access,
    /// Who speaks for others.
    pub proxy_protocol: ProxyProtocol,
    /// What its bytes are.
    pub compression: Compression,
    /// How fast.
    pub rate: Rate,
}

/// What counts as one source: the first so many bits of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourcePrefix {
    /// Of an IPv4 address, 1 to 32.
    pub ipv4: u8,
    /// Of an IPv6 address, 1 to 128.
    pub ipv6: u8,
}

/// What a peer hears that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalForm {
    /// A reset.
    Reset,
    /// One line of text, then the end: bytes that are not its own.
    Say,
}

/// `[listener.access]`: the longest prefix that has a peer's address decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// If there are any, nobody else may come.
    pub allow: Vec<IpNet>,
    /// These may not come.
    pub deny: Vec<IpNet>,
    /// A reload ends connections that would not be let in now.
    pub reapply: bool,
}

/// `[listener.proxy_protocol]`: peers with one of these addresses say in a header for whom they speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// None of them is everybody.
    pub trusted: Vec<IpNet>,
}

/// `[listener.rate]`: `None` is off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rate {
    /// New connections of one source.
    pub connections: Option<ConnectionRate>,
    /// Bytes of all connections of one source.
    pub bytes: Option<ByteRate>,
    /// Bytes of all connections of the listener.
    pub total_bytes: Option<ByteRate>,
}

/// What a listener answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// RFC 862: the same bytes.
    Echo,
    /// RFC 863: nothing.
    Discard,
    /// RFC 864: characters without end.
    Chargen,
    /// RFC 867: the date and time in words, and the end.
    Daytime,
    /// RFC 868: the time in four bytes, and the end.
    Time,
    /// What this end sees of the peer, in one line of JSON; then the same bytes.
    Whoami,
}

impl Service {
    /// Does it send before the peer has?
    pub fn speaks_first(self) -> bool {
        !matches!(self, Service::Echo | Service::Discard)
    }
}

/// `[listener.tcp]`: options of a listener's sockets, tcp(7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// `TCP_NODELAY`: small answers leave at once.
    pub nodelay: bool,
    /// `SO_KEEPALIVE` and its three times; `None`: off.
    pub keepalive: Option<Keepalive>,
    /// `TCP_NOTSENT_LOWAT`: most bytes that the kernel holds and has not sent yet, before it takes more.
    pub notsent_lowat: Option<u32>,
    /// `TCP_USER_TIMEOUT`: how long sent bytes may stay unacknowledged; `None`: the kernel's default.
    pub user_timeout: Option<Duration>,
    /// `SO_RCVBUF`, without the kernel's doubling.
    pub receive_buffer: Option<u32>,
    /// `SO_SNDBUF`, without the kernel's doubling.
    pub send_buffer: Option<u32>,
    /// `TCP_DEFER_ACCEPT`, whole seconds: how long the kernel waits for a peer's first bytes.
    pub defer_accept: Option<Duration>,
    /// `TCP_FASTOPEN`: connections at once whose first bytes came with their SYN (RFC 7413).
    pub fast_open: Option<u32>,
    /// `TCP_CONGESTION`: the congestion control's name.
    pub congestion: Option<String>,
    /// The code point in the six high bits of `IP_TOS` and `IPV6_TCLASS` (RFC 2474).
    pub dscp: Option<u8>,
    /// `SO_BINDTODEVICE`: only peers that come by this interface.
    pub interface: Option<String>,
    /// `TCP_MAXSEG`: the largest segment that is announced.
    pub max_segment: Option<u16>,
    /// `IP_FREEBIND`: an address that this host does not have yet.
    pub freebind: bool,
    /// `IPV6_V6ONLY`: an IPv6 address takes no IPv4 peers.
    pub v6only: bool,
    /// `SO_REUSEPORT`: another process of the same user may listen there as well.
    pub reuse_port: bool,
    /// `IPPROTO_MPTCP`: peers that can may use several paths (RFC 8684).
    pub multipath: bool,
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
    /// From accept to the end of what comes before the service.
    pub handshake: Option<Duration>,
    /// From accept to the first byte.
    pub first_byte: Option<Duration>,
    /// Without a byte from the peer, while nothing is owed.
    pub idle: Option<Duration>,
    /// From accept to the end.
    pub lifetime: Option<Duration>,
    /// We owe bytes and the peer takes none.
    pub stall: Option<Duration>,
}
