//! Judges one listener: each key on its own, then the rules between its keys.
//!
//! A part of [`validate`](super::validate). Pure.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::Range;

use ipnet::IpNet;

use super::access::Prefixes;
use super::name::Addresses;
use super::rate::WrittenRate;
use super::schema::{self, ADDRESSES_MAX};
use super::validate::Judge;
use super::value::{Off, Setting, Whole, Words};
use super::{
    Access, ConnectionRate, Keepalive, Listener, Rate, RefusalForm, Service, SourcePrefix, Tcp,
    Timeout,
};

/// Where the rules between keys point to.
struct Places {
    service: Range<usize>,
    defer_accept: Option<Range<usize>>,
    fast_open: Option<Range<usize>>,
    refusal: Option<Range<usize>>,
}

impl Judge<'_> {
    /// A listener, whose keys begin with `owner` in messages. `place` stands for what it does not say; none:
    /// it is no listener, but the defaults for those that are.
    pub(super) fn listener(
        &mut self,
        owner: &str,
        listener: schema::Listener,
        place: Option<Range<usize>>,
    ) -> Option<Listener> {
        let key = |key: &str| format!("{owner}{key}");
        let places = place.map(|place| Places {
            service: listener.service.span.clone().unwrap_or(place),
            defer_accept: listener
                .tcp
                .value
                .as_ref()
                .ok()
                .and_then(|tcp| tcp.defer_accept.span.clone()),
            fast_open: listener
                .tcp
                .value
                .as_ref()
                .ok()
                .and_then(|tcp| tcp.fast_open.span.clone()),
            refusal: listener.refusal.span.clone(),
        });
        let tls_place = places.as_ref().map(|places| {
            let span = listener.tls.span.clone();
            span.unwrap_or(places.service.clone())
        });
        let name = self.take(&key("name"), listener.name);
        let address = self.addresses(&key("address"), listener.address);
        let service = self.take(&key("service"), listener.service);
        let backlog = self.take(&key("backlog"), listener.backlog);
        let buffer = self.take(&key("buffer"), listener.buffer);
        let max_connections = self.take(&key("max_connections"), listener.max_connections);
        let per_source = self.take(
            &key("max_connections_per_source"),
            listener.max_connections_per_source,
        );
        let per_worker = self.take(
            &key("max_connections_per_worker"),
            listener.max_connections_per_worker,
        );
        let max_bytes = self.take(&key("max_bytes"), listener.max_bytes);
        let source_prefix = self
            .take(&key("source_prefix"), listener.source_prefix)
            .and_then(|prefix| self.source_prefix(&key("source_prefix."), prefix));
        let refusal = self.take(&key("refusal"), listener.refusal);
        let tls = match self.take(&key("tls"), listener.tls) {
            Some(Off(Some(tls))) => self.tls(&key("tls."), tls, tls_place).map(Some),
            Some(Off(None)) => Some(None),
            None => None,
        };
        let tcp = self
            .take(&key("tcp"), listener.tcp)
            .and_then(|tcp| self.tcp(&key("tcp."), tcp));
        let timeout = self
            .take(&key("timeout"), listener.timeout)
            .and_then(|timeout| self.timeout(&key("timeout."), timeout));
        let access = self
            .take(&key("access"), listener.access)
            .and_then(|access| self.access(&key("access."), access));
        let proxy_protocol = self
            .take(&key("proxy_protocol"), listener.proxy_protocol)
            .and_then(|written| self.proxy_protocol(&key("proxy_protocol."), written));
        let compression = self
            .take(&key("compression"), listener.compression)
            .and_then(|written| self.compression(&key("compression."), written));
        let rate = self
            .take(&key("rate"), listener.rate)
            .and_then(|rate| self.rate(&key("rate."), rate));
        let listener = Listener {
            name: name?.0,
            address: address?,
            service: service?,
            backlog: backlog?.0,
            // The type's range ends far below u32.
            buffer: u32::try_from(buffer?.0).ok()?,
            max_connections: whole(max_connections?),
            max_connections_per_source: whole(per_source?),
            max_connections_per_worker: whole(per_worker?),
            max_bytes: max_bytes?.0.map(|most| most.0),
            source_prefix: source_prefix?,
            refusal: refusal?,
            tls: tls?,
            tcp: tcp?,
            timeout: timeout?,
            access: access?,
            proxy_protocol: proxy_protocol?,
            compression: compression?,
            rate: rate?,
        };
        if let Some(places) = places {
            self.refusal_is_heard(owner, &listener, &places);
            self.service_is_served(owner, &listener, places);
        }
        Some(listener)
    }

    fn addresses(&mut self, key: &str, addresses: Setting<Addresses>) -> Option<Vec<SocketAddr>> {
        let addresses = self.take(key, addresses)?.0;
        if let Some(beyond) = addresses.get(ADDRESSES_MAX) {
            self.problem(
                beyond.span.clone().unwrap_or(0..0),
                format!("{key}: more than {ADDRESSES_MAX} addresses"),
                "a wildcard such as [::] stands for all of them",
            );
            return None;
        }
        self.each(key, addresses, |address| address.0)
    }

    /// All items of a list, if each is right.
    pub(super) fn each<T, U>(
        &mut self,
        key: &str,
        items: Vec<Setting<T>>,
        meaning: impl Fn(T) -> U,
    ) -> Option<Vec<U>> {
        let mut all = Some(Vec::new());
        for item in items {
            let valid = self.take(key, item);
            all = all.zip(valid).map(|(mut all, item)| {
                all.push(meaning(item));
                all
            });
        }
        all
    }

    fn source_prefix(
        &mut self,
        prefix: &str,
        written: schema::SourcePrefix,
    ) -> Option<SourcePrefix> {
        let ipv4 = self.take(&format!("{prefix}ipv4"), written.ipv4);
        let ipv6 = self.take(&format!("{prefix}ipv6"), written.ipv6);
        Some(SourcePrefix {
            ipv4: u8::try_from(ipv4?.0).ok()?,
            ipv6: u8::try_from(ipv6?.0).ok()?,
        })
    }

    fn tcp(&mut self, prefix: &str, tcp: schema::Tcp) -> Option<Tcp> {
        let key = |key: &str| format!("{prefix}{key}");
        let nodelay = self.take(&key("nodelay"), tcp.nodelay);
        let keepalive = match self.take(&key("keepalive"), tcp.keepalive) {
            Some(Off(Some(keepalive))) => self.keepalive(&key("keepalive."), keepalive).map(Some),
            Some(Off(None)) => Some(None),
            None => None,
        };
        let notsent_lowat = self.take(&key("notsent_lowat"), tcp.notsent_lowat);
        let user_timeout = self.take(&key("user_timeout"), tcp.user_timeout);
        let receive_buffer = self.take(&key("receive_buffer"), tcp.receive_buffer);
        let send_buffer = self.take(&key("send_buffer"), tcp.send_buffer);
        let defer_accept = self.take(&key("defer_accept"), tcp.defer_accept);
        let fast_open = self.take(&key("fast_open"), tcp.fast_open);
        let congestion = self.take(&key("congestion"), tcp.congestion);
        let dscp = self.take(&key("dscp"), tcp.dscp);
        let interface = self.take(&key("interface"), tcp.interface);
        let max_segment = self.take(&key("max_segment"), tcp.max_segment);
        let freebind = self.take(&key("freebind"), tcp.freebind);
        let v6only = self.take(&key("v6only"), tcp.v6only);
        let reuse_port = self.take(&key("reuse_port"), tcp.reuse_port);
        let multipath = self.take(&key("multipath"), tcp.multipath);
        // The types' ranges end far below those of the integers.
        let bytes = |size: u64| u32::try_from(size).ok();
        Some(Tcp {
            nodelay: nodelay?,
            keepalive: keepalive?,
            notsent_lowat: notsent_lowat?.0.and_then(|size| bytes(size.0)),
            user_timeout: user_timeout?.0.map(|time| time.0),
            receive_buffer: receive_buffer?.0.and_then(|size| bytes(size.0)),
            send_buffer: send_buffer?.0.and_then(|size| bytes(size.0)),
            defer_accept: defer_accept?.0.map(|time| time.0),
            fast_open: fast_open?.0.map(|most| most.0),
            congestion: congestion?.0.map(|name| name.0),
            dscp: dscp?.0.and_then(|point| u8::try_from(point.0).ok()),
            interface: interface?.0.map(|name| name.0),
            max_segment: max_segment?.0.and_then(|most| u16::try_from(most.0).ok()),
            freebind: freebind?,
            v6only: v6only?,
            reuse_port: reuse_port?,
            multipath: multipath?,
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
        let handshake = self.take(&key("handshake"), timeout.handshake);
        let first_byte = self.take(&key("first_byte"), timeout.first_byte);
        let idle = self.take(&key("idle"), timeout.idle);
        let lifetime = self.take(&key("lifetime"), timeout.lifetime);
        let stall = self.take(&key("stall"), timeout.stall);
        Some(Timeout {
            handshake: handshake?.0.map(|time| time.0),
            first_byte: first_byte?.0.map(|time| time.0),
            idle: idle?.0.map(|time| time.0),
            lifetime: lifetime?.0.map(|time| time.0),
            stall: stall?.0.map(|time| time.0),
        })
    }

    fn access(&mut self, prefix: &str, access: schema::Access) -> Option<Access> {
        let allow = self.prefixes(&format!("{prefix}allow"), access.allow);
        let deny = self.prefixes(&format!("{prefix}deny"), access.deny);
        let reapply = self.take(&format!("{prefix}reapply"), access.reapply);
        let (allow, deny) = (allow?, deny?);
        let allowed: HashSet<IpNet> = allow.iter().map(|(net, _)| *net).collect();
        for (net, span) in deny.iter().filter(|(net, _)| allowed.contains(net)) {
            self.problem(
                span.clone(),
                format!("{prefix}deny: {net} is in allow as well"),
                "the longest prefix decides, and there is none between these: remove one",
            );
        }
        let nets =
            |list: Vec<(IpNet, Range<usize>)>| list.into_iter().map(|(net, _)| net).collect();
        Some(Access {
            allow: nets(allow),
            deny: nets(deny),
            reapply: reapply?,
        })
    }

    /// A list of prefixes, each with its place.
    pub(super) fn prefixes(
        &mut self,
        key: &str,
        prefixes: Setting<Prefixes>,
    ) -> Option<Vec<(IpNet, Range<usize>)>> {
        let Prefixes(prefixes) = self.take(key, prefixes)?;
        let spans: Vec<_> = prefixes
            .iter()
            .map(|prefix| prefix.span.clone().unwrap_or(0..0))
            .collect();
        let nets = self.each(key, prefixes, |prefix| prefix.0)?;
        Some(nets.into_iter().zip(spans).collect())
    }

    fn rate(&mut self, prefix: &str, rate: schema::Rate) -> Option<Rate> {
        let connections = match self.take(&format!("{prefix}connections"), rate.connections) {
            Some(Off(Some(written))) => self
                .connection_rate(&format!("{prefix}connections."), written)
                .map(Some),
            Some(Off(None)) => Some(None),
            None => None,
        };
        let bytes = self.take(&format!("{prefix}bytes"), rate.bytes);
        let total_bytes = self.take(&format!("{prefix}total_bytes"), rate.total_bytes);
        Some(Rate {
            connections: connections?,
            bytes: bytes?.0,
            total_bytes: total_bytes?.0,
        })
    }

    fn connection_rate(&mut self, prefix: &str, written: WrittenRate) -> Option<ConnectionRate> {
        let table = match written {
            WrittenRate::Alone(rate) => return Some(rate.alone()),
            WrittenRate::Table(table) => table,
        };
        let rate = self.take(&format!("{prefix}rate"), table.rate);
        let burst = self.take(&format!("{prefix}burst"), table.burst);
        Some(rate?.with(burst?))
    }

    /// A line of text is for peers that neither wait for a handshake nor for a frame.
    fn refusal_is_heard(&mut self, owner: &str, listener: &Listener, places: &Places) {
        let spoken = match (&listener.tls, listener.compression.method) {
            (Some(_), _) => "TLS",
            (None, Some(method)) => Some(method).word(),
            (None, None) => return,
        };
        if listener.refusal == RefusalForm::Say {
            self.problem(
                places.refusal.clone().unwrap_or(places.service.clone()),
                format!("{owner}refusal: \"say\" is plain text, and its peers speak {spoken}"),
                "write \"reset\"",
            );
        }
    }

    /// What its service asks of the other keys.
    fn service_is_served(&mut self, owner: &str, listener: &Listener, places: Places) {
        let (service, tcp) = (listener.service, &listener.tcp);
        let word = service.word();
        if service.speaks_first() {
            let waits = [
                (
                    "defer_accept",
                    tcp.defer_accept.is_some(),
                    places.defer_accept,
                ),
                ("fast_open", tcp.fast_open.is_some(), places.fast_open),
            ];
            for (key, _, span) in waits.into_iter().filter(|(_, is_set, _)| *is_set) {
                self.problem(
                    span.unwrap_or(places.service.clone()),
                    format!(
                        "{owner}tcp.{key}: {word} speaks first, and this waits for the peer to"
                    ),
                    "set it to \"off\"",
                );
            }
        }
        let is_bounded = listener.max_bytes.is_some()
            || listener.rate.bytes.is_some()
            || listener.rate.total_bytes.is_some()
            || !listener.access.allow.is_empty();
        let is_public = listener
            .address
            .iter()
            .any(|address| !address.ip().to_canonical().is_loopback());
        if service == Service::Chargen && is_public && !is_bounded {
            self.problem(
                places.service,
                format!("{owner}service: \"{word}\" without a bound, where other hosts can reach it"),
                "set max_bytes, rate.bytes, rate.total_bytes or access.allow, or listen on 127.0.0.1",
            );
        }
    }
}

/// A number of connections, which is never zero.
fn whole<const MIN: u32, const MAX: u32>(most: Off<Whole<MIN, MAX>>) -> Option<NonZeroU32> {
    most.0.and_then(|most| NonZeroU32::new(most.0))
}
