//! From the schema to a [`Config`]: takes every value that is right, and names every one that is not.
//!
//! Each key is judged on its own by its type; here come the rules between keys. Nothing ends the
//! search early, so that one run of `echod check` finds everything. Pure.

use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::ops::Range;

use super::error::Problem;
use super::name::overlap;
use super::quantity::write_size;
use super::schema::{self, ADDRESSES_MAX};
use super::value::{Auto, List, Off, Setting};
use super::{Config, Keepalive, Listener, Log, Origin, Said, Tcp, Timeout, text};

/// The file's meaning, or every problem: those that were known before, and those found here.
pub(super) fn validate(
    file: schema::File,
    text: &str,
    origin: Origin,
    problems: Vec<Problem>,
) -> Result<Config, Vec<Problem>> {
    let mut judge = Judge {
        text,
        problems,
        names: Vec::new(),
        addresses: Vec::new(),
        buffers: Vec::new(),
    };
    let config = judge.file(file, origin);
    match config {
        Some(config) if judge.problems.is_empty() => Ok(config),
        _ => Err(judge.problems),
    }
}

/// What is known while a file is judged; the lists are for the rules between listeners.
struct Judge<'a> {
    text: &'a str,
    problems: Vec<Problem>,
    names: Vec<(String, Range<usize>)>,
    addresses: Vec<(String, SocketAddr, Range<usize>)>,
    buffers: Vec<(String, u64, Range<usize>)>,
}

impl Judge<'_> {
    fn file(&mut self, file: schema::File, origin: Origin) -> Option<Config> {
        let user_span = file.user.span.clone();
        let said = Said::new(
            self.text,
            [
                ("user", user_span.clone()),
                ("group", file.group.span.clone()),
                ("max_connections", file.max_connections.span.clone()),
            ],
        );
        let memory_span = file.buffer_memory.span.clone();
        let workers = self.take("workers", file.workers);
        let engine = self.take("engine", file.engine);
        let user = self.take("user", file.user);
        let group = self.take("group", file.group);
        let allow_root = self.take("allow_root", file.allow_root);
        let max_connections = self.take("max_connections", file.max_connections);
        let buffer_memory = self.take("buffer_memory", file.buffer_memory);
        let drain_idle = self.take("drain_idle", file.drain_idle);
        let drain_timeout = self.take("drain_timeout", file.drain_timeout);
        let log = self.take("log", file.log).and_then(|log| self.log(log));
        // Only for its problems: what it says has already reached the listeners.
        if let Some(defaults) = self.take("defaults", file.defaults) {
            self.listener("defaults: ", defaults);
        }
        let listeners = self.listeners(file.listener);
        if let (Some(user), Some(false)) = (&user, allow_root) {
            self.root_is_allowed(&user.0, user_span);
        }
        if let Some(memory) = &buffer_memory {
            self.buffers_fit(memory.0, memory_span);
        }
        self.names_differ();
        self.addresses_differ();
        Some(Config {
            origin,
            workers: workers?
                .0
                .and_then(|workers| NonZeroU16::new(u16::try_from(workers.0).ok()?)),
            engine: engine?,
            user: user?.0,
            group: group?.0,
            allow_root: allow_root?,
            max_connections: match max_connections? {
                Auto(most) => most.and_then(|most| NonZeroU32::new(most.0)),
            },
            buffer_memory: buffer_memory?.0,
            drain_idle: drain_idle?.0,
            drain_timeout: drain_timeout?.0,
            log: log?,
            listeners: listeners?,
            said,
        })
    }

    fn log(&mut self, log: schema::Log) -> Option<Log> {
        let target = self.take("log.target", log.target);
        let level = self.take("log.level", log.level);
        let facility = self.take("log.facility", log.facility);
        let records = self.take("log.records", log.records);
        let record_rate = self.take("log.record_rate", log.record_rate);
        let peer = self.take("log.peer", log.peer);
        let empty = self.take("log.empty", log.empty);
        Some(Log {
            target: target?,
            level: level?,
            facility: facility?,
            records: records?,
            record_rate: record_rate?,
            peer: peer?,
            empty: empty?,
        })
    }

    fn listeners(&mut self, listeners: Setting<schema::Listeners>) -> Option<Vec<Listener>> {
        let span = listeners.span.clone();
        let List(listeners) = self.take("listener", listeners)?;
        if listeners.is_empty() {
            let end = self.text.len();
            self.problem(
                span.unwrap_or(end..end),
                "no [[listener]], so nothing would be served".into(),
                "add [[listener]] with a name and an address",
            );
        }
        let mut all = Some(Vec::new());
        for (index, listener) in listeners.into_iter().enumerate() {
            let number = format!("listener {}: ", index + 1);
            let place = listener.span.clone().unwrap_or(0..0);
            let valid = self
                .take(&number, listener)
                .and_then(|listener| self.placed_listener(listener, number, place));
            all = all.zip(valid).map(|(mut all, listener)| {
                all.push(listener);
                all
            });
        }
        all
    }

    /// One listener, noted for the rules between them. `place` stands for what it does not say.
    fn placed_listener(
        &mut self,
        listener: schema::Listener,
        number: String,
        place: Range<usize>,
    ) -> Option<Listener> {
        let owner = match &listener.name.value {
            Ok(name) => format!("listener \"{}\": ", name.0),
            Err(_) => number,
        };
        let or_place = |span: &Option<Range<usize>>| span.clone().unwrap_or(place.clone());
        if let Ok(name) = &listener.name.value {
            self.names
                .push((name.0.clone(), or_place(&listener.name.span)));
        }
        if let Ok(buffer) = &listener.buffer.value {
            self.buffers
                .push((owner.clone(), buffer.0, or_place(&listener.buffer.span)));
        }
        if let Ok(addresses) = &listener.address.value {
            // A lone address is not in a list, and its place is the key's.
            let whole = or_place(&listener.address.span);
            for address in addresses.0.iter().take(ADDRESSES_MAX) {
                if let Ok(value) = &address.value {
                    let span = address.span.clone().unwrap_or(whole.clone());
                    self.addresses.push((owner.clone(), value.0, span));
                }
            }
        }
        self.listener(&owner, listener)
    }

    fn listener(&mut self, owner: &str, listener: schema::Listener) -> Option<Listener> {
        let key = |key: &str| format!("{owner}{key}");
        let name = self.take(&key("name"), listener.name);
        let address = self.addresses(&key("address"), listener.address);
        let service = self.take(&key("service"), listener.service);
        let backlog = self.take(&key("backlog"), listener.backlog);
        let buffer = self.take(&key("buffer"), listener.buffer);
        let max_connections = self.take(&key("max_connections"), listener.max_connections);
        let max_bytes = self.take(&key("max_bytes"), listener.max_bytes);
        let tcp = self
            .take(&key("tcp"), listener.tcp)
            .and_then(|tcp| self.tcp(&key("tcp."), tcp));
        let timeout = self
            .take(&key("timeout"), listener.timeout)
            .and_then(|timeout| self.timeout(&key("timeout."), timeout));
        Some(Listener {
            name: name?.0,
            address: address?,
            service: service?,
            backlog: backlog?.0,
            // The type's range ends far below u32.
            buffer: u32::try_from(buffer?.0).ok()?,
            max_connections: max_connections?.0.and_then(|most| NonZeroU32::new(most.0)),
            max_bytes: max_bytes?.0.map(|most| most.0),
            tcp: tcp?,
            timeout: timeout?,
        })
    }

    fn addresses(
        &mut self,
        key: &str,
        addresses: Setting<super::name::Addresses>,
    ) -> Option<Vec<SocketAddr>> {
        let addresses = self.take(key, addresses)?.0;
        if let Some(beyond) = addresses.get(ADDRESSES_MAX) {
            self.problem(
                beyond.span.clone().unwrap_or(0..0),
                format!("{key}: more than {ADDRESSES_MAX} addresses"),
                "a wildcard such as [::] stands for all of them",
            );
            return None;
        }
        let mut all = Some(Vec::new());
        for address in addresses {
            let valid = self.take(key, address);
            all = all.zip(valid).map(|(mut all, address)| {
                all.push(address.0);
                all
            });
        }
        all
    }

    fn tcp(&mut self, prefix: &str, tcp: schema::Tcp) -> Option<Tcp> {
        let key = |key: &str| format!("{prefix}{key}");
        let nodelay = self.take(&key("nodelay"), tcp.nodelay);
        let keepalive = match self.take(&key("keepalive"), tcp.keepalive) {
            Some(Off(Some(keepalive))) => self.keepalive(&key("keepalive."), keepalive).map(Some),
            Some(Off(None)) => Some(None),
            None => None,
        };
        let user_timeout = self.take(&key("user_timeout"), tcp.user_timeout);
        Some(Tcp {
            nodelay: nodelay?,
            keepalive: keepalive?,
            user_timeout: user_timeout?.0.map(|time| time.0),
        })
    }

    fn keepalive(&mut self, prefix: &str, keepalive: schema::Keepalive) -> Option<Keepalive> {
        let idle = self.take(&format!("{prefix}idle"), keepalive.idle);
        let interval = self.take(&format!("{prefix}interval"), keepalive.interval);
        let count = self.take(&format!("{prefix}count"), keepalive.count);
        Some(Keepalive {
            idle: idle?.0,
            interval: interval?.0,
            count: count?.0,
        })
    }

    fn timeout(&mut self, prefix: &str, timeout: schema::Timeout) -> Option<Timeout> {
        let key = |key: &str| format!("{prefix}{key}");
        let first_byte = self.take(&key("first_byte"), timeout.first_byte);
        let idle = self.take(&key("idle"), timeout.idle);
        let lifetime = self.take(&key("lifetime"), timeout.lifetime);
        let stall = self.take(&key("stall"), timeout.stall);
        Some(Timeout {
            first_byte: first_byte?.0.map(|time| time.0),
            idle: idle?.0.map(|time| time.0),
            lifetime: lifetime?.0.map(|time| time.0),
            stall: stall?.0.map(|time| time.0),
        })
    }

    fn root_is_allowed(&mut self, user: &str, span: Option<Range<usize>>) {
        if user == "root" {
            self.problem(
                span.unwrap_or(0..0),
                "user: \"root\": root is never needed to serve".into(),
                "name another user, or set allow_root = true",
            );
        }
    }

    fn buffers_fit(&mut self, memory: u64, span: Option<Range<usize>>) {
        for (owner, buffer, place) in std::mem::take(&mut self.buffers) {
            if buffer > memory {
                // Whichever the file says is what the reader has to change.
                let place = span.clone().unwrap_or(place);
                let (buffer, memory) = (write_size(buffer), write_size(memory));
                self.problem(
                    place,
                    format!("buffer_memory: {memory}: {owner}buffer is {buffer}, more than all buffers together"),
                    "raise buffer_memory or lower buffer",
                );
            }
        }
    }

    fn names_differ(&mut self) {
        let names = std::mem::take(&mut self.names);
        for (index, (name, span)) in names.iter().enumerate() {
            if let Some((_, first)) = names[..index].iter().find(|(other, _)| other == name) {
                let (line, _) = text::position(self.text, first.start);
                self.problem(
                    span.clone(),
                    format!("listener \"{name}\": name: a second listener of this name"),
                    &format!("the first is in line {line}; give each [[listener]] its own name"),
                );
            }
        }
    }

    fn addresses_differ(&mut self) {
        let addresses = std::mem::take(&mut self.addresses);
        for (index, (owner, address, span)) in addresses.iter().enumerate() {
            let taken = addresses[..index]
                .iter()
                .find(|(_, other, _)| overlap(*address, *other));
            if let Some((_, other, place)) = taken {
                let (line, _) = text::position(self.text, place.start);
                self.problem(
                    span.clone(),
                    format!("{owner}address: {address} overlaps {other} of line {line}"),
                    "give each its own port; [::] takes every address, IPv4 as well",
                );
            }
        }
    }

    /// The setting's value, or its problem noted. `key` ends in ": " where the value is a table that
    /// has no name of its own.
    fn take<T>(&mut self, key: &str, setting: Setting<T>) -> Option<T> {
        let wrong = match setting.value {
            Ok(value) => return Some(value),
            Err(wrong) => wrong,
        };
        let span = setting.span.unwrap_or(0..0);
        let value = text::quote(self.text, &span);
        let key = key.trim_end_matches(": ");
        self.problem(
            span,
            format!("{key}: {value}: {}", wrong.what),
            &wrong.remedy,
        );
        None
    }

    fn problem(&mut self, span: Range<usize>, what: String, remedy: &str) {
        self.problems.push(Problem {
            span,
            what,
            remedy: remedy.into(),
        });
    }
}
