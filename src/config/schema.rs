//! What the file may say: one struct per `[table]`, each default beside its key.
//!
//! Reading never fails for a wrong value: `value` keeps it with its place, and `validate` judges all
//! of them together. The ranges are here, each with its reason. Pure.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;

use serde::de::SeqAccess;

use super::access::Prefixes;
use super::compression::Written as Compression;
use super::name::{Account, Address, Addresses, Algorithm, Device, Line, Name};
use super::proxy::Written as ProxyProtocol;
use super::quantity::{RECORD_BURST, Size, Time};
use super::rate::WrittenRate;
use super::tls;
use super::value::{Auto, Kernel, List, Off, Setting, Value, Whole, Wrong, read_list, tables};
use super::{
    ByteRate, Engine, Facility, Level, PeerForm, RecordRate, Records, RefusalForm, Service, Share,
    Target,
};

/// `backlog` when nobody says otherwise.
pub const BACKLOG: u32 = 4096;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const SECOND: u64 = 1000;

/// Most threads: far more CPUs than one echo service can use, and a typed zero too many is noticed.
pub(super) const WORKERS_MAX: u32 = 256;

/// Most connections: what the kernel's default `fs.nr_open`, 1,048,576, holds, and some to spare.
pub(super) const CONNECTIONS_MAX: u32 = 1_000_000;

/// Least memory of all buffers: below it two slow peers would starve the rest.
pub(super) const BUFFER_MEMORY_MIN: u64 = MIB;

/// Most memory of all buffers: a slip in the unit, rather than a machine.
pub(super) const BUFFER_MEMORY_MAX: u64 = 1 << 40;

/// Least buffer of a connection: one page, as less is not saved.
pub(super) const BUFFER_MIN: u64 = 4 * KIB;

/// Most buffer of a connection: more than a gigabit path of half a second holds.
pub(super) const BUFFER_MAX: u64 = 64 * MIB;

/// Longest queue of completed connections: the kernel kept it in 16 bits for long.
pub(super) const BACKLOG_MAX: u32 = 65_535;

/// Least bytes of one connection: one there and one back.
pub(super) const MAX_BYTES_MIN: u64 = 2;

/// Most bytes of one connection: years at any speed, and sums of it do not overflow.
pub(super) const MAX_BYTES_MAX: u64 = 1 << 60;

/// Shortest duration, in milliseconds: the timers' own step. Zero is none: where a time may be
/// missing, "off" says so, and a drain of 1 ms is one that waits for nobody.
pub(super) const TIME_MIN: u64 = 1;

/// Longest duration, in milliseconds: ten years, so that a deadline never overflows.
pub(super) const TIME_MAX: u64 = 3650 * 86_400 * SECOND;

/// Longest `user_timeout`, in milliseconds: the kernel keeps them in an `int`, 24.8 days.
pub(super) const USER_TIMEOUT_MAX: u64 = 24 * 86_400 * SECOND;

/// Longest times of keepalive, in milliseconds: the kernel's `MAX_TCP_KEEPIDLE` and `MAX_TCP_KEEPINTVL`.
pub(super) const KEEPALIVE_MAX: u64 = 32_767 * SECOND;

/// Most probes: the kernel's `MAX_TCP_KEEPCNT`.
pub(super) const KEEPALIVE_COUNT_MAX: u32 = 127;

/// Least buffer of the kernel for one socket: below it the kernel takes its own least.
pub(super) const KERNEL_BUFFER_MIN: u64 = 4 * KIB;

/// Most, which the kernel doubles and keeps in an `int`.
pub(super) const KERNEL_BUFFER_MAX: u64 = 512 * MIB;

/// Most bytes that wait in the kernel to be sent, before it takes more: as above.
pub(super) const NOTSENT_LOWAT_MAX: u64 = 1 << 30;

/// Longest wait for the first bytes before a connection is accepted, in milliseconds: some eight
/// retransmissions of a SYN-ACK.
pub(super) const DEFER_ACCEPT_MAX: u64 = 120 * SECOND;

/// Most connections at once whose first bytes came with their SYN.
pub(super) const FAST_OPEN_MAX: u32 = 65_535;

/// The code points of DSCP, RFC 2474: six bits.
pub(super) const DSCP_MAX: u32 = 63;

/// Least and most of a maximum segment size: the kernel's `TCP_MIN_MSS` and `MAX_TCP_WINDOW`.
pub(super) const MAX_SEGMENT_MIN: u32 = 88;
pub(super) const MAX_SEGMENT_MAX: u32 = 32_767;

/// Longest prefixes that stand for one source: whole addresses.
pub(super) const PREFIX_IPV4_MAX: u32 = 32;
pub(super) const PREFIX_IPV6_MAX: u32 = 128;

/// Most listeners: what is compared and bound must end, and a list so long is a mistake.
pub(super) const LISTENERS_MAX: usize = 64;

/// Most addresses of one listener, for the same reason.
pub(super) const ADDRESSES_MAX: usize = 64;

/// The name of a listener that has none of its own.
pub(super) const LISTENER_NAME: &str = "echo";

type Anytime = Time<TIME_MIN, TIME_MAX, 1>;
type KeepaliveTime = Time<SECOND, KEEPALIVE_MAX, SECOND>;
type Connections = Whole<1, CONNECTIONS_MAX>;
type KernelBuffer = Size<KERNEL_BUFFER_MIN, KERNEL_BUFFER_MAX>;

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(super) struct File {
    pub(super) workers: Setting<Auto<Whole<1, WORKERS_MAX>>>,
    pub(super) engine: Setting<Engine>,
    pub(super) user: Setting<Account>,
    pub(super) group: Setting<Account>,
    pub(super) allow_root: Setting<bool>,
    pub(super) max_connections: Setting<Auto<Connections>>,
    pub(super) buffer_memory: Setting<Size<BUFFER_MEMORY_MIN, BUFFER_MEMORY_MAX>>,
    pub(super) drain_idle: Setting<Anytime>,
    pub(super) drain_timeout: Setting<Anytime>,
    pub(super) instance: Setting<Line>,
    pub(super) contact: Setting<Line>,
    pub(super) log: Setting<Log>,
    pub(super) pressure: Setting<Pressure>,
    pub(super) defaults: Setting<Listener>,
    pub(super) listener: Setting<Listeners>,
}

impl Default for File {
    fn default() -> Self {
        Self {
            workers: Setting::unset(Auto(None)),
            engine: Setting::unset(Engine::Epoll),
            user: Setting::unset(Account("echod".into())),
            group: Setting::unset(Account("echod".into())),
            allow_root: Setting::unset(false),
            max_connections: Setting::unset(Auto(None)),
            buffer_memory: Setting::unset(Size(256 * MIB)),
            drain_idle: Setting::unset(Time(Duration::from_secs(1))),
            drain_timeout: Setting::unset(Time(Duration::from_secs(30))),
            instance: Setting::unset(Line(String::new())),
            contact: Setting::unset(Line(String::new())),
            log: Setting::unset(Log::default()),
            pressure: Setting::unset(Pressure::default()),
            defaults: Setting::unset(Listener::default()),
            listener: Setting::unset(List(Vec::new())),
        }
    }
}

/// `[log]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(super) struct Log {
    pub(super) target: Setting<Target>,
    pub(super) level: Setting<Level>,
    pub(super) facility: Setting<Facility>,
    pub(super) records: Setting<Records>,
    pub(super) record_rate: Setting<RecordRate>,
    pub(super) peer: Setting<PeerForm>,
    pub(super) empty: Setting<bool>,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            target: Setting::unset(Target::Syslog),
            level: Setting::unset(Level::Info),
            facility: Setting::unset(Facility::DAEMON),
            records: Setting::unset(Records::Ended),
            record_rate: Setting::unset(RecordRate {
                per_second: 20.0,
                burst: RECORD_BURST,
            }),
            peer: Setting::unset(PeerForm::Full),
            empty: Setting::unset(false),
        }
    }
}

/// `[pressure]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(super) struct Pressure {
    pub(super) above: Setting<Off<Share>>,
    pub(super) max_connections_per_source: Setting<Off<Share>>,
    pub(super) idle: Setting<Off<Anytime>>,
    pub(super) stall: Setting<Off<Anytime>>,
    pub(super) progress: Setting<Off<ByteRate>>,
}

impl Default for Pressure {
    fn default() -> Self {
        Self {
            above: Setting::unset(Off(Some(Share(90)))),
            max_connections_per_source: Setting::unset(Off(Some(Share(1)))),
            idle: Setting::unset(Off(Some(Time(Duration::from_secs(10))))),
            stall: Setting::unset(Off(Some(Time(Duration::from_secs(5))))),
            progress: Setting::unset(Off(Some(ByteRate {
                bytes: KIB,
                per: Duration::from_secs(60),
            }))),
        }
    }
}

/// `[[listener]]`, and `[defaults]` for all of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(super) struct Listener {
    pub(super) name: Setting<Name>,
    pub(super) address: Setting<Addresses>,
    pub(super) service: Setting<Service>,
    pub(super) backlog: Setting<Whole<1, BACKLOG_MAX>>,
    pub(super) buffer: Setting<Size<BUFFER_MIN, BUFFER_MAX>>,
    pub(super) max_connections: Setting<Off<Connections>>,
    pub(super) max_connections_per_source: Setting<Off<Connections>>,
    pub(super) max_connections_per_worker: Setting<Off<Connections>>,
    pub(super) max_bytes: Setting<Off<Size<MAX_BYTES_MIN, MAX_BYTES_MAX>>>,
    pub(super) source_prefix: Setting<SourcePrefix>,
    pub(super) refusal: Setting<RefusalForm>,
    pub(super) tls: Setting<Off<tls::Written>>,
    pub(super) tcp: Setting<Tcp>,
    pub(super) timeout: Setting<Timeout>,
    pub(super) access: Setting<Access>,
    pub(super) proxy_protocol: Setting<ProxyProtocol>,
    pub(super) compression: Setting<Compression>,
    pub(super) rate: Setting<Rate>,
}

impl Default for Listener {
    fn default() -> Self {
        let everywhere = SocketAddr::from(([0u16; 8], 8080));
        Self {
            name: Setting::unset(Name(LISTENER_NAME.into())),
            address: Setting::unset(Addresses(vec![Setting::unset(Address(everywhere))])),
            service: Setting::unset(Service::Echo),
            backlog: Setting::unset(Whole(BACKLOG)),
            buffer: Setting::unset(Size(512 * KIB)),
            max_connections: Setting::unset(Off(None)),
            max_connections_per_source: Setting::unset(Off(None)),
            max_connections_per_worker: Setting::unset(Off(None)),
            max_bytes: Setting::unset(Off(None)),
            source_prefix: Setting::unset(SourcePrefix::default()),
            refusal: Setting::unset(RefusalForm::Reset),
            tls: Setting::unset(Off(None)),
            tcp: Setting::unset(Tcp::default()),
            timeout: Setting::unset(Timeout::default()),
            access: Setting::unset(Access::default()),
            proxy_protocol: Setting::unset(ProxyProtocol::default()),
            compression: Setting::unset(Compression::default()),
            rate: Setting::unset(Rate::default()),
        }
    }
}

/// `source_prefix = { .. }`: what it leaves out is as here.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(super) struct SourcePrefix {
    pub(super) ipv4: Setting<Whole<1, PREFIX_IPV4_MAX>>,
    pub(super) ipv6: Setting<Whole<1, PREFIX_IPV6_MAX>>,
}

impl Default for SourcePrefix {
    fn default() -> Self {
        Self {
            ipv4: Setting::unset(Whole(32)),
            ipv6: Setting::unset(Whole(64)),
        }
    }
}

/// `[listener.tcp]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(super) struct Tcp {
    pub(super) nodelay: Setting<bool>,
    pub(super) keepalive: Setting<Off<Keepalive>>,
    pub(super) notsent_lowat: Setting<Kernel<Size<1, NOTSENT_LOWAT_MAX>>>,
    pub(super) user_timeout: Setting<Off<Time<TIME_MIN, USER_TIMEOUT_MAX, 1>>>,
    pub(super) receive_buffer: Setting<Kernel<KernelBuffer>>,
    pub(super) send_buffer: Setting<Kernel<KernelBuffer>>,
    pub(super) defer_accept: Setting<Off<Time<SECOND, DEFER_ACCEPT_MAX, SECOND>>>,
    pub(super) fast_open: Setting<Off<Whole<1, FAST_OPEN_MAX>>>,
    pub(super) congestion: Setting<Kernel<Algorithm>>,
    pub(super) dscp: Setting<Kernel<Whole<0, DSCP_MAX>>>,
    pub(super) interface: Setting<Off<Device>>,
    pub(super) max_segment: Setting<Kernel<Whole<MAX_SEGMENT_MIN, MAX_SEGMENT_MAX>>>,
    pub(super) freebind: Setting<bool>,
    pub(super) v6only: Setting<bool>,
    pub(super) reuse_port: Setting<bool>,
    pub(super) multipath: Setting<bool>,
}

impl Default for Tcp {
    fn default() -> Self {
        Self {
            nodelay: Setting::unset(true),
            keepalive: Setting::unset(Off(None)),
            notsent_lowat: Setting::unset(Kernel(Some(Size(128 * KIB)))),
            user_timeout: Setting::unset(Off(Some(Time(Duration::from_secs(30))))),
            receive_buffer: Setting::unset(Kernel(None)),
            send_buffer: Setting::unset(Kernel(None)),
            defer_accept: Setting::unset(Off(None)),
            fast_open: Setting::unset(Off(None)),
            congestion: Setting::unset(Kernel(None)),
            dscp: Setting::unset(Kernel(None)),
            interface: Setting::unset(Off(None)),
            max_segment: Setting::unset(Kernel(None)),
            freebind: Setting::unset(false),
            v6only: Setting::unset(false),
            reuse_port: Setting::unset(false),
            multipath: Setting::unset(false),
        }
    }
}

/// `keepalive = { .. }`: what it leaves out is as here.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(super) struct Keepalive {
    pub(super) idle: Setting<KeepaliveTime>,
    pub(super) interval: Setting<KeepaliveTime>,
    pub(super) count: Setting<Whole<1, KEEPALIVE_COUNT_MAX>>,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self {
            idle: Setting::unset(Time(Duration::from_secs(60))),
            interval: Setting::unset(Time(Duration::from_secs(10))),
            count: Setting::unset(Whole(6)),
        }
    }
}

/// `[listener.timeout]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(super) struct Timeout {
    pub(super) handshake: Setting<Off<Anytime>>,
    pub(super) first_byte: Setting<Off<Anytime>>,
    pub(super) idle: Setting<Off<Anytime>>,
    pub(super) lifetime: Setting<Off<Anytime>>,
    pub(super) stall: Setting<Off<Anytime>>,
}

impl Default for Timeout {
    fn default() -> Self {
        Self {
            handshake: Setting::unset(Off(Some(Time(Duration::from_secs(10))))),
            first_byte: Setting::unset(Off(None)),
            idle: Setting::unset(Off(Some(Time(Duration::from_secs(3600))))),
            lifetime: Setting::unset(Off(None)),
            stall: Setting::unset(Off(Some(Time(Duration::from_secs(30))))),
        }
    }
}

/// `[listener.access]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(super) struct Access {
    pub(super) allow: Setting<Prefixes>,
    pub(super) deny: Setting<Prefixes>,
    pub(super) reapply: Setting<bool>,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            allow: Setting::unset(Prefixes(Vec::new())),
            deny: Setting::unset(Prefixes(Vec::new())),
            reapply: Setting::unset(true),
        }
    }
}

/// `[listener.rate]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(super) struct Rate {
    pub(super) connections: Setting<Off<WrittenRate>>,
    pub(super) bytes: Setting<Off<ByteRate>>,
    pub(super) total_bytes: Setting<Off<ByteRate>>,
}

impl Default for Rate {
    fn default() -> Self {
        Self {
            connections: Setting::unset(Off(None)),
            bytes: Setting::unset(Off(None)),
            total_bytes: Setting::unset(Off(None)),
        }
    }
}

pub(super) type Listeners = List<Listener>;

impl Value for Listeners {
    fn noun() -> String {
        "a list of tables".into()
    }

    fn example() -> String {
        "write [[listener]], with two brackets, for each".into()
    }

    fn from_list<'de, A: SeqAccess<'de>>(list: A) -> Result<Result<Self, Wrong>, A::Error> {
        read_list(list).map(Ok)
    }
}

tables! {
    Log: "[log] on a line of its own, and its keys below",
    Listener: "the name of the table on a line of its own, and its keys below",
    Tcp: "[listener.tcp] on a line of its own, and its keys below",
    Timeout: "[listener.timeout] on a line of its own, and its keys below",
    Access: "[listener.access] on a line of its own, and its keys below",
    Compression: "[listener.compression] on a line of its own, and its keys below",
    ProxyProtocol: "[listener.proxy_protocol] on a line of its own, and its keys below",
    Rate: "[listener.rate] on a line of its own, and its keys below",
    Pressure: "[pressure] on a line of its own, and its keys below",
    SourcePrefix: "{ ipv4 = 32, ipv6 = 64 }",
    Keepalive: "{ idle = \"60s\", interval = \"10s\", count = 6 }",
}

/// The list that the built-in configuration has.
pub(super) fn one_listener() -> Setting<Listeners> {
    Setting::unset(List(vec![Setting::unset(Listener::default())]))
}
