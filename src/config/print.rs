//! The effective configuration as a file would say it.
//!
//! Every key is written, in its shortest exact spelling: what is printed and read again is the same
//! configuration, and a property test holds that. So is what a reload has changed, by comparing what is
//! written. Pure.

use std::fmt::{self, Display};
use std::time::Duration;

use super::quantity::{write_duration, write_rate, write_size};
use super::rate::{write_byte_rate, write_connections};
use super::tls;
use super::value::Words;
use super::{ByteRate, Config, Listener, Share};

/// A key with its value, as a file has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The table that it stands in, within its listener if it is one's; empty: none.
    pub(super) table: &'static str,
    pub(super) key: &'static str,
    pub(super) value: String,
}

impl Entry {
    /// The key with its table: `timeout.idle`.
    pub(super) fn name(&self) -> String {
        if self.table.is_empty() {
            self.key.into()
        } else {
            format!("{}.{}", self.table, self.key)
        }
    }
}

/// The whole configuration as TOML.
pub fn print(config: &Config) -> String {
    let mut out = String::new();
    write_entries(&mut out, "", &entries(config));
    for listener in &config.listeners {
        out.push_str("\n[[listener]]\n");
        write_entries(&mut out, "listener.", &listener_entries(listener));
    }
    out
}

fn write_entries(out: &mut String, prefix: &str, entries: &[Entry]) {
    let mut table = "";
    for entry in entries {
        if entry.table != table {
            table = entry.table;
            out.push_str(&format!("\n[{prefix}{table}]\n"));
        }
        out.push_str(&format!("{} = {}\n", entry.key, entry.value));
    }
}

/// Every key that belongs to no listener.
pub(super) fn entries(config: &Config) -> Vec<Entry> {
    let (log, pressure) = (&config.log, &config.pressure);
    let mut all = Vec::new();
    table(
        &mut all,
        "",
        [
            ("workers", or("auto", config.workers)),
            ("engine", quoted(config.engine)),
            ("user", quoted(&config.user)),
            ("group", quoted(&config.group)),
            ("allow_root", config.allow_root.to_string()),
            ("max_connections", or("auto", config.max_connections)),
            ("buffer_memory", size(config.buffer_memory)),
            ("drain_idle", quoted(write_duration(config.drain_idle))),
            (
                "drain_timeout",
                quoted(write_duration(config.drain_timeout)),
            ),
            ("instance", quoted(&config.instance)),
            ("contact", quoted(&config.contact)),
        ],
    );
    table(
        &mut all,
        "log",
        [
            ("target", quoted(log.target.word())),
            ("level", quoted(log.level.word())),
            ("facility", quoted(log.facility.word())),
            ("records", quoted(log.records.word())),
            ("record_rate", quoted(write_rate(log.record_rate))),
            ("peer", quoted(log.peer.word())),
            ("empty", log.empty.to_string()),
        ],
    );
    table(
        &mut all,
        "pressure",
        [
            ("above", share(pressure.above)),
            (
                "max_connections_per_source",
                share(pressure.max_connections_per_source),
            ),
            ("idle", time(pressure.idle)),
            ("stall", time(pressure.stall)),
            ("progress", byte_rate(pressure.progress)),
        ],
    );
    all
}

/// Every key of a listener.
pub(super) fn listener_entries(listener: &Listener) -> Vec<Entry> {
    let (tcp, timeout) = (&listener.tcp, &listener.timeout);
    let (access, rate, prefix) = (&listener.access, &listener.rate, listener.source_prefix);
    let compression = listener.compression;
    let mut all = Vec::new();
    table(
        &mut all,
        "",
        [
            ("name", quoted(&listener.name)),
            ("address", list(&listener.address)),
            ("service", quoted(listener.service.word())),
            ("backlog", listener.backlog.to_string()),
            ("buffer", size(listener.buffer.into())),
            ("max_connections", or("off", listener.max_connections)),
            (
                "max_connections_per_source",
                or("off", listener.max_connections_per_source),
            ),
            (
                "max_connections_per_worker",
                or("off", listener.max_connections_per_worker),
            ),
            ("max_bytes", listener.max_bytes.map_or(quoted("off"), size)),
            (
                "source_prefix",
                format!("{{ ipv4 = {}, ipv6 = {} }}", prefix.ipv4, prefix.ipv6),
            ),
            ("refusal", quoted(listener.refusal.word())),
            (
                "tls",
                listener.tls.as_ref().map_or(quoted("off"), tls::write),
            ),
        ],
    );
    let keepalive = tcp.keepalive.map(|keepalive| {
        format!(
            "{{ idle = \"{}\", interval = \"{}\", count = {} }}",
            write_duration(keepalive.idle),
            write_duration(keepalive.interval),
            keepalive.count
        )
    });
    table(
        &mut all,
        "tcp",
        [
            ("nodelay", tcp.nodelay.to_string()),
            ("keepalive", keepalive.unwrap_or(quoted("off"))),
            ("notsent_lowat", kernel_size(tcp.notsent_lowat)),
            ("user_timeout", time(tcp.user_timeout)),
            ("receive_buffer", kernel_size(tcp.receive_buffer)),
            ("send_buffer", kernel_size(tcp.send_buffer)),
            ("defer_accept", time(tcp.defer_accept)),
            ("fast_open", or("off", tcp.fast_open)),
            (
                "congestion",
                quoted(tcp.congestion.as_deref().unwrap_or("kernel")),
            ),
            ("dscp", or("kernel", tcp.dscp)),
            (
                "interface",
                quoted(tcp.interface.as_deref().unwrap_or("off")),
            ),
            ("max_segment", or("kernel", tcp.max_segment)),
            ("freebind", tcp.freebind.to_string()),
            ("v6only", tcp.v6only.to_string()),
            ("reuse_port", tcp.reuse_port.to_string()),
            ("multipath", tcp.multipath.to_string()),
        ],
    );
    table(
        &mut all,
        "timeout",
        [
            ("handshake", time(timeout.handshake)),
            ("first_byte", time(timeout.first_byte)),
            ("idle", time(timeout.idle)),
            ("lifetime", time(timeout.lifetime)),
            ("stall", time(timeout.stall)),
        ],
    );
    table(
        &mut all,
        "access",
        [
            ("allow", list(&access.allow)),
            ("deny", list(&access.deny)),
            ("reapply", access.reapply.to_string()),
        ],
    );
    table(
        &mut all,
        "proxy_protocol",
        [("trusted", list(&listener.proxy_protocol.trusted))],
    );
    table(
        &mut all,
        "compression",
        [
            ("method", quoted(compression.method.word())),
            ("max_window", size(compression.max_window.into())),
            ("max_ratio", or("off", compression.max_ratio)),
        ],
    );
    table(
        &mut all,
        "rate",
        [
            (
                "connections",
                rate.connections.map_or(quoted("off"), write_connections),
            ),
            ("bytes", byte_rate(rate.bytes)),
            ("total_bytes", byte_rate(rate.total_bytes)),
        ],
    );
    all
}

fn table<const N: usize>(
    all: &mut Vec<Entry>,
    table: &'static str,
    keys: [(&'static str, String); N],
) {
    let entry = |(key, value)| Entry { table, key, value };
    all.extend(keys.into_iter().map(entry));
}

fn quoted(text: impl Display) -> String {
    format!("\"{text}\"")
}

fn or(word: &str, number: Option<impl Display>) -> String {
    number.map_or(quoted(word), |number| number.to_string())
}

fn size(bytes: u64) -> String {
    quoted(write_size(bytes))
}

fn kernel_size(bytes: Option<u32>) -> String {
    bytes.map_or(quoted("kernel"), |bytes| size(bytes.into()))
}

fn time(time: Option<Duration>) -> String {
    quoted(time.map_or("off".into(), write_duration))
}

fn share(share: Option<Share>) -> String {
    quoted(share.map_or("off".into(), |share| share.to_string()))
}

fn byte_rate(rate: Option<ByteRate>) -> String {
    quoted(rate.map_or("off".into(), write_byte_rate))
}

fn list(items: &[impl Display]) -> String {
    let quoted: Vec<_> = items.iter().map(quoted).collect();
    format!("[{}]", quoted.join(", "))
}

impl Display for Share {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}%", self.0)
    }
}
