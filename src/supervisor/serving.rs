//! What the daemon serves: each listener of the configuration with the sockets found for it.
//!
//! [`Serving::prepare`] makes the next one beside the present one and changes nothing of it: sockets are
//! looked for among those that were handed to us, then among our own, and only what is left is
//! bound. So a configuration that cannot be served is refused whole, and the present one serves on. A
//! handed socket is never closed: PID 1 listens on it as well, and peers would hang.

mod terms;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::sys::socket::{Backlog, listen};
use socket2::SockRef;

use super::certificates;
use crate::bucket::Bucket;
use crate::config::{self, Config, Origin, SourcePrefix, worker_count};
use crate::connection::{Limits, Reason};
use crate::listener::{self, Fixed, Handed, Initial, Note};
use crate::logging::{Event, kind};
use crate::service::Service;
use crate::service::whoami::About;
use crate::tls::{self, Identities, Identity, NoteKind};
use crate::worker::gate::{Gate, Rules};
use crate::worker::orders::{Listener, Plan, Socket};

/// A listening socket that somebody here keeps open.
#[derive(Clone, Debug)]
struct Held {
    /// Names it to the workers.
    slot: u16,
    fd: Arc<OwnedFd>,
    /// Where it was asked to listen; the same, but for port 0, as where it does.
    asked: SocketAddr,
    /// Where it listens.
    address: SocketAddr,
    /// What it had before we set anything.
    initial: Arc<Initial>,
    /// What it was bound with, if that was us.
    fixed: Option<Fixed>,
}

/// A listener of the configuration, and its sockets.
#[derive(Clone, Debug)]
struct Served {
    id: u16,
    config: config::Listener,
    gate: Gate,
    tls: Option<Arc<Identity>>,
    /// What is left of its `rate.total_bytes`.
    total: Arc<Bucket>,
    own: Vec<Held>,
    /// By place among the handed ones.
    handed: Vec<usize>,
}

/// Sockets that were handed to us, for the daemon's whole life.
#[derive(Debug)]
struct HandedSocket {
    name: String,
    held: Held,
    /// The listener that resets its peers while nobody claims it.
    unclaimed: u16,
}

/// Everything that is served, and the numbers that were not given out yet.
#[derive(Debug, Default)]
pub struct Serving {
    handed: Arc<[HandedSocket]>,
    listeners: Vec<Served>,
    unclaimed: Vec<usize>,
    notes: Vec<Note>,
    identities: Identities,
    next: u16,
}

/// What [`Serving::prepare`] has to tell besides.
#[derive(Debug)]
pub struct Prepared {
    /// What would be served.
    pub serving: Serving,
    /// What the operator should know of it.
    pub events: Vec<Event>,
}

impl Serving {
    /// Nothing but the sockets that were handed to us, which no listener claims yet.
    pub fn new(handed: Handed) -> Serving {
        let mut next = 0;
        let mut number = || {
            next += 1;
            next - 1
        };
        let keep = |socket: listener::HandedSocket| HandedSocket {
            name: socket.name,
            held: Held {
                slot: number(),
                initial: Arc::new(Initial::of(&socket.fd)),
                fd: Arc::new(socket.fd),
                asked: socket.address,
                address: socket.address,
                fixed: None,
            },
            unclaimed: number(),
        };
        let handed = handed.sockets.into_iter().map(keep).collect();
        Serving {
            handed,
            next,
            ..Serving::default()
        }
    }

    /// What `config` would have served, with these identities and this as the present state. Changes nothing of it but the
    /// options and the queues' lengths of sockets that stay, which a refusal puts back.
    ///
    /// # Errors
    /// The first socket that cannot be had, or does not take its options.
    pub fn prepare(
        &self,
        config: &Config,
        identities: Identities,
    ) -> Result<Prepared, listener::Error> {
        let names: Vec<_> = self
            .handed
            .iter()
            .map(|h| (h.name.as_str(), h.held.address))
            .collect();
        let assignment = listener::assign(&names, &config.listeners);
        let mut next = Serving {
            handed: Arc::clone(&self.handed),
            listeners: Vec::new(),
            unclaimed: assignment.unclaimed,
            notes: assignment.notes,
            identities,
            next: self.next,
        };
        let mut events = Vec::new();
        let mut free: Vec<Held> = self.own().cloned().collect();
        for (listener, handed) in config.listeners.iter().zip(assignment.claimed) {
            let present = self
                .listeners
                .iter()
                .find(|served| served.config.name == listener.name);
            let prefix = listener.source_prefix;
            let (id, gate) = match present {
                Some(served) => (served.id, served.gate.with_prefix(prefix)),
                None => (next.number(self), Gate::new(worker_count(config), prefix)),
            };
            let mut own = Vec::new();
            if handed.is_empty() {
                own = next.sockets(
                    self,
                    listener,
                    &mut free,
                    config.origin == Origin::BuiltIn,
                    &mut events,
                )?;
            }
            next.listeners.push(Served {
                id,
                config: listener.clone(),
                tls: next.identities.of(&listener.name).cloned(),
                total: present.map_or_else(Arc::default, |served| Arc::clone(&served.total)),
                gate,
                own,
                handed,
            });
        }
        self.set_options(&next)?;
        next.tell(self, &mut events);
        Ok(Prepared {
            serving: next,
            events,
        })
    }

    /// The sockets of a listener that nobody handed over: those that are open already, and new ones.
    fn sockets(
        &mut self,
        before: &Serving,
        listener: &config::Listener,
        free: &mut Vec<Held>,
        is_builtin: bool,
        events: &mut Vec<Event>,
    ) -> Result<Vec<Held>, listener::Error> {
        let mut sockets = Vec::new();
        let fixed = Fixed::of(&listener.tcp);
        stays_as_bound(listener, &fixed, free)?;
        for &asked in &listener.address {
            if let Some(open) = free.iter().position(|held| held.asked == asked) {
                sockets.push(free.swap_remove(open));
                continue;
            }
            let wanted = (asked, listener.tcp.v6only);
            let in_the_way = |served: &Served| {
                let v6only = served.config.tcp.v6only;
                let mut own = served.own.iter().map(|held| held.address);
                own.find(|held| config::overlap((*held, v6only), wanted))
            };
            if let Some(present) = before.listeners.iter().find_map(in_the_way) {
                let listener = listener.name.clone();
                return Err(listener::Error::NeedsRestart {
                    listener,
                    address: asked,
                    present,
                });
            }
            match listener::bind(asked, listener) {
                Ok((fd, initial)) => {
                    let address = local_address(&fd).unwrap_or(asked);
                    sockets.push(Held {
                        slot: self.number(before),
                        fd: Arc::new(fd),
                        asked,
                        address,
                        initial: Arc::new(initial),
                        fixed: Some(fixed.clone()),
                    });
                }
                // Nobody asked for this address: a host without IPv6 is served by the other one.
                Err(listener::Error::NoIpv6 { .. }) if is_builtin && !sockets.is_empty() => {
                    events.push(Event::of(&kind::IPV6_SKIPPED).with("address", asked));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(sockets)
    }

    /// Sets the options of all sockets of `next`; if one does not take them, those that are ours
    /// already get their present ones back.
    fn set_options(&self, next: &Serving) -> Result<(), listener::Error> {
        let listeners = || next.listeners.iter();
        let applied = listeners()
            .try_for_each(|served| next.apply(served))
            .and_then(|()| listeners().try_for_each(|served| next.apply_congestion(served)));
        if applied.is_err() {
            for served in &self.listeners {
                // They took these before. What root alone may set was not changed yet, but where it is a second
                // congestion control that is refused.
                let _ = self.apply(served);
                let _ = self.apply_congestion(served);
            }
        }
        applied
    }

    fn apply_congestion(&self, served: &Served) -> Result<(), listener::Error> {
        self.held(served).try_for_each(|held| {
            listener::apply_congestion(&held.fd, &held.initial, &served.config)
        })
    }

    fn apply(&self, served: &Served) -> Result<(), listener::Error> {
        for held in self.held(served) {
            listener::apply(&held.fd, &held.initial, &served.config)?;
        }
        for held in &served.own {
            // Listening again changes the queue's length, and cannot fail on a socket that listens.
            let backlog = i32::try_from(served.config.backlog).unwrap_or(i32::MAX);
            if let Ok(backlog) = Backlog::new(backlog) {
                let _ = listen(&held.fd, backlog);
            }
        }
        Ok(())
    }

    /// Our own sockets.
    fn own(&self) -> impl Iterator<Item = &Held> {
        self.listeners.iter().flat_map(|served| &served.own)
    }

    fn held<'a>(&'a self, served: &'a Served) -> impl Iterator<Item = &'a Held> {
        served
            .own
            .iter()
            .chain(served.handed.iter().map(|&place| &self.handed[place].held))
    }

    /// What is new in comparison with `before`.
    fn tell(&self, before: &Serving, events: &mut Vec<Event>) {
        let known: Vec<u16> = before
            .listeners
            .iter()
            .flat_map(|served| before.held(served))
            .map(|h| h.slot)
            .collect();
        for served in &self.listeners {
            for held in self.held(served).filter(|held| !known.contains(&held.slot)) {
                let event = Event::of(&kind::LISTENING).with("listener", &served.config.name);
                events.push(event.with("address", held.address));
            }
        }
        for served in &before.listeners {
            if self.listeners.iter().all(|here| here.id != served.id) {
                events
                    .push(Event::of(&kind::LISTENER_REMOVED).with("listener", &served.config.name));
            }
        }
        for &place in self
            .unclaimed
            .iter()
            .filter(|place| !before.unclaimed.contains(place))
        {
            let HandedSocket { name, held, .. } = &self.handed[place];
            events.push(
                Event::of(&kind::SOCKET_UNCLAIMED)
                    .with("name", name)
                    .with("address", held.address),
            );
        }
        for note in self
            .notes
            .iter()
            .filter(|note| !before.notes.contains(note))
        {
            let kind = match note {
                Note::AddressDiffers { .. } => &kind::ADDRESS_DIFFERS,
                Note::KeyUnused { .. } => &kind::KEYS_UNUSED,
            };
            events.push(Event::of(kind).detail(note));
        }
        // At each load: whoever has to renew a certificate may not have heard of it the last time.
        let notes = self.identities.notes();
        events.extend(notes.iter().filter_map(certificates::event));
    }

    /// The plan for the workers, with the bounds of the configuration in force.
    pub fn plan(&self, config: &Config) -> Plan<Arc<OwnedFd>> {
        let (mut listeners, mut sockets) = (Vec::new(), Vec::new());
        for served in &self.listeners {
            served.set_bounds();
            listeners.push(Arc::new(Listener {
                id: served.id,
                name: served.config.name.as_str().into(),
                limits: served.limits(),
                gate: served.gate.clone(),
                rules: served.rules(),
                refuse: None,
            }));
            sockets.extend(served.own.iter().map(|held| share(held, served.id, false)));
            let handed = served.handed.iter().map(|&place| &self.handed[place].held);
            sockets.extend(handed.map(|held| share(held, served.id, true)));
        }
        for &place in &self.unclaimed {
            let socket = &self.handed[place];
            listeners.push(refusing(socket));
            sockets.push(share(&socket.held, socket.unclaimed, true));
        }
        Plan {
            listeners,
            sockets,
            drain_idle: config.drain_idle,
            drain_timeout: config.drain_timeout,
            log: config.log.clone(),
            pressure: config.pressure.clone(),
            about: About {
                instance: config.instance.clone(),
                contact: config.contact.clone(),
            },
        }
    }

    /// Lets nobody new begin at our own sockets that `next` has not, before those who wait there are served and they
    /// are closed.
    pub fn part_own(&self, next: &Serving) {
        let stays = |held: &Held| next.own().any(|other| other.slot == held.slot);
        for held in self.own().filter(|held| !stays(held)) {
            // Of one that is bound to an interface it may not; whoever comes in the moment of the close is reset.
            let _ = listener::part(&held.fd);
        }
    }

    /// Closes our own sockets. The workers do the same, after they have served those who wait there.
    pub fn close_own(&mut self) {
        for served in &mut self.listeners {
            served.own.clear();
        }
    }

    /// What the socket units decide otherwise than the configuration.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// What is worst about the certificates.
    pub fn certificate(&self) -> Option<String> {
        let notes = self.identities.notes();
        let worst = notes.iter().find(|note| note.kind == NoteKind::Expires);
        worst.map(ToString::to_string)
    }

    /// Judges the certificates at this second since 1970: what somebody should hear of since the last time.
    pub fn judge(&mut self, now: i64) -> Vec<tls::Note> {
        self.identities.judge(now)
    }

    /// What the listeners show their peers.
    pub fn identities(&self) -> &Identities {
        &self.identities
    }

    /// Were the sockets of the listener of this name handed to us?
    pub fn is_handed(&self, name: &str) -> bool {
        let is_handed = |served: &Served| served.config.name == name && !served.handed.is_empty();
        self.listeners.iter().any(is_handed)
    }

    /// All addresses that are listened on.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners
            .iter()
            .flat_map(|served| self.held(served))
            .map(|held| held.address)
            .collect()
    }

    /// A number that names no listener and no socket, here or `before`. They begin again after 65,536,
    /// when nothing is left of the first.
    fn number(&mut self, before: &Serving) -> u16 {
        loop {
            let number = self.next;
            self.next = self.next.wrapping_add(1);
            if !self.uses(number) && !before.uses(number) {
                return number;
            }
        }
    }

    fn uses(&self, number: u16) -> bool {
        let handed = self
            .handed
            .iter()
            .any(|h| h.held.slot == number || h.unclaimed == number);
        let is_own = |served: &Served| served.own.iter().any(|held| held.slot == number);
        handed
            || self
                .listeners
                .iter()
                .any(|served| served.id == number || is_own(served))
    }
}

/// A socket that stays open for this listener cannot get what comes before bind(2).
fn stays_as_bound(
    listener: &config::Listener,
    fixed: &Fixed,
    open: &[Held],
) -> Result<(), listener::Error> {
    let mut staying = open
        .iter()
        .filter(|held| listener.address.contains(&held.asked));
    let keys = staying.find_map(|held| {
        let keys = held.fixed.as_ref()?.differing(fixed);
        (!keys.is_empty()).then_some(keys)
    });
    match keys {
        Some(keys) => Err(listener::Error::FixedAtBind {
            listener: listener.name.clone(),
            keys,
        }),
        None => Ok(()),
    }
}

fn share(held: &Held, listener: u16, handed: bool) -> Socket<Arc<OwnedFd>> {
    Socket {
        slot: held.slot,
        listener,
        socket: Arc::clone(&held.fd),
        handed,
    }
}

/// A listener that resets whoever comes by a socket that nobody claims.
fn refusing(socket: &HandedSocket) -> Arc<Listener> {
    Arc::new(Listener {
        id: socket.unclaimed,
        name: socket.name.as_str().into(),
        limits: Limits::unbounded(Service::Echo, 0),
        gate: Gate::new(0, SourcePrefix { ipv4: 32, ipv6: 64 }),
        rules: Rules::open(),
        refuse: Some(Reason::Denied),
    })
}

fn local_address(fd: &OwnedFd) -> Option<SocketAddr> {
    SockRef::from(fd).local_addr().ok()?.as_socket()
}

#[cfg(test)]
mod tests;
