//! From the schema to a [`Config`]: takes every value that is right, and names every one that is not.
//!
//! Each key is judged on its own by its type; here come the rules between keys. Nothing ends the
//! search early, so that one run of `echod check` finds everything. Pure.

use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::ops::Range;

use super::compression::Compression;
use super::error::Problem;
use super::name::overlap;
use super::quantity::write_size;
use super::schema::{self, ADDRESSES_MAX};
use super::value::{Auto, List, Setting};
use super::{Config, Listener, Log, Origin, Pressure, Said, text};

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
        frames: Vec::new(),
    };
    let config = judge.file(file, origin);
    match config {
        Some(config) if judge.problems.is_empty() => Ok(config),
        _ => Err(judge.problems),
    }
}

/// What is known while a file is judged; the lists are for the rules between listeners.
pub(super) struct Judge<'a> {
    text: &'a str,
    problems: Vec<Problem>,
    names: Vec<(String, Range<usize>)>,
    addresses: Vec<Placed>,
    buffers: Vec<(String, u64, Range<usize>)>,
    /// The same of what one frame may take, with its window.
    frames: Vec<(String, Compression, Range<usize>)>,
}

/// An address of a listener, and where the file says it.
struct Placed {
    owner: String,
    address: SocketAddr,
    v6only: bool,
    span: Range<usize>,
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
        let instance = self.take("instance", file.instance);
        let contact = self.take("contact", file.contact);
        let log = self.take("log", file.log).and_then(|log| self.log(log));
        let pressure = self
            .take("pressure", file.pressure)
            .and_then(|pressure| self.pressure(pressure));
        // Only for its problems: what it says has already reached the listeners.
        if let Some(defaults) = self.take("defaults", file.defaults) {
            self.listener("defaults: ", defaults, None);
        }
        let listeners = self.listeners(file.listener);
        if let (Some(user), Some(false)) = (&user, allow_root) {
            self.root_is_allowed(&user.0, user_span);
        }
        if let Some(memory) = &buffer_memory {
            self.buffers_fit(memory.0, memory_span.clone());
            self.frames_fit(memory.0, memory_span);
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
            instance: instance?.0,
            contact: contact?.0,
            log: log?,
            pressure: pressure?,
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

    fn pressure(&mut self, pressure: schema::Pressure) -> Option<Pressure> {
        let above = self.take("pressure.above", pressure.above);
        let per_source = self.take(
            "pressure.max_connections_per_source",
            pressure.max_connections_per_source,
        );
        let idle = self.take("pressure.idle", pressure.idle);
        let stall = self.take("pressure.stall", pressure.stall);
        let progress = self.take("pressure.progress", pressure.progress);
        Some(Pressure {
            above: above?.0,
            max_connections_per_source: per_source?.0,
            idle: idle?.0.map(|time| time.0),
            stall: stall?.0.map(|time| time.0),
            progress: progress?.0,
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
            let v6only = match &listener.tcp.value {
                Ok(tcp) => matches!(tcp.v6only.value, Ok(true)),
                Err(_) => false,
            };
            for address in addresses.0.iter().take(ADDRESSES_MAX) {
                if let Ok(value) = &address.value {
                    let span = address.span.clone().unwrap_or(whole.clone());
                    self.addresses.push(Placed {
                        owner: owner.clone(),
                        address: value.0,
                        v6only,
                        span,
                    });
                }
            }
        }
        let listener = self.listener(&owner, listener, Some(place.clone()))?;
        self.frames.push((owner, listener.compression, place));
        Some(listener)
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

    /// A frame that never fits would wait for nothing.
    fn frames_fit(&mut self, memory: u64, span: Option<Range<usize>>) {
        for (owner, compression, place) in std::mem::take(&mut self.frames) {
            let takes = compression.takes();
            if takes > memory / 2 {
                let (takes, memory) = (write_size(takes), write_size(memory));
                self.problem(
                    span.clone().unwrap_or(place),
                    format!("buffer_memory: {memory}: half of it is for frames, and {owner}compression may take {takes} for one"),
                    "raise buffer_memory or lower compression.max_window",
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
        for (index, one) in addresses.iter().enumerate() {
            let taken = addresses[..index]
                .iter()
                .find(|other| overlap((one.address, one.v6only), (other.address, other.v6only)));
            if let Some(other) = taken {
                let (line, _) = text::position(self.text, other.span.start);
                self.problem(
                    one.span.clone(),
                    format!(
                        "{}address: {} overlaps {} of line {line}",
                        one.owner, one.address, other.address
                    ),
                    "give each its own port; [::] takes every address, IPv4 as well",
                );
            }
        }
    }

    /// The setting's value, or its problem noted. `key` ends in ": " where the value is a table that
    /// has no name of its own.
    pub(super) fn take<T>(&mut self, key: &str, setting: Setting<T>) -> Option<T> {
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

    pub(super) fn problem(&mut self, span: Range<usize>, what: String, remedy: &str) {
        self.problems.push(Problem {
            span,
            what,
            remedy: remedy.into(),
        });
    }
}
