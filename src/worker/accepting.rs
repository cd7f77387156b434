//! The part of a worker that lets peers in: its listeners, their sockets, and where accepting pauses.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;

use super::admission::Admitted;
use super::orders::{Listener, Order, Peer, Plan, Socket};
use super::refusal::Refusal;
use super::table::Entry;
use super::{ACCEPT_PAUSE, Worker, orders};
use crate::config::Pressure;
use crate::connection::{Connection, Drain, Limits, PARTING, Turn};
use crate::driver::Driver;
use crate::logging::{Event, Record, kind};
use crate::tick::Tick;

/// Most peers taken out of the queue of a socket that is about to be closed: the longest queue.
const QUEUE_MAX: u32 = 65_535;

/// How long a drain waits for those who have begun at our own sockets: longer than a round trip takes.
const HANDSHAKES: Duration = Duration::from_millis(250);

/// When sockets of our own are left in a drain, and when at the latest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaving {
    pub(super) at: Tick,
    by: Tick,
}

/// A listener, as one worker has it.
#[derive(Debug)]
pub(super) struct Local {
    /// As all workers have it.
    pub(super) shared: Arc<Listener>,
    /// The listener's, made stricter by pressure if there is any, and the drain, if it drains.
    pub(super) limits: Limits,
    /// Connections of it in this worker's table.
    pub(super) live: u32,
}

impl Local {
    fn new(shared: Arc<Listener>, pressure: Option<&Pressure>) -> Local {
        let mut local = Local {
            limits: shared.limits.clone(),
            shared,
            live: 0,
        };
        local.press(pressure);
        local
    }

    /// Has this pressure, or none.
    fn press(&mut self, pressure: Option<&Pressure>) {
        let own = &self.shared.limits;
        self.limits = Limits {
            drain: self.limits.drain,
            ..pressure.map_or_else(|| own.clone(), |pressure| own.under(pressure))
        };
    }
}

impl<D: Driver> Worker<D> {
    /// Lets a peer in and finds it a worker, or resets it.
    pub(super) fn handle_accepted(&mut self, slot: u16, stream: D::Stream, peer: SocketAddr) {
        let id = self
            .slots
            .get(slot as usize)
            .and_then(Option::as_ref)
            .map(|socket| socket.listener);
        let Some(Some(local)) = id.and_then(|id| self.listeners.get(id as usize)) else {
            return self.driver.refuse(stream, None);
        };
        let listener = Arc::clone(&local.shared);
        let Admitted {
            worker,
            source,
            is_balancer,
        } = match self.admit(&listener, peer) {
            Ok(admitted) => admitted,
            Err(refusal) => return self.turn_away(stream, peer, &listener, refusal),
        };
        if let Some(is_on) = self.shared.admission.judge() {
            self.announce_pressure(is_on);
        }
        let peer = Peer {
            stream,
            address: peer,
            listener,
            source,
            is_balancer,
        };
        if worker == self.index {
            self.serve(peer);
            return;
        }
        // The other one may have returned, in a drain: then it is ours after all.
        let desk = &self.shared.desks[worker as usize];
        if let Err(Order::Serve(peer)) = desk.mailbox.put(Order::Serve(peer)) {
            let gate = &peer.listener.gate;
            self.shared.admission.move_over(gate, worker, self.index);
            self.serve(peer);
        }
    }

    fn admit(&self, listener: &Listener, peer: SocketAddr) -> Result<Admitted, Refusal> {
        if let Some(reason) = listener.refuse {
            return Err(Refusal { reason, warn: None });
        }
        let door = (&listener.gate, &listener.rules);
        let memory = &self.shared.memory;
        let admission = &self.shared.admission;
        admission.admit(door, peer.ip(), memory, self.index, self.now)
    }

    /// Ends, counts and records a peer that was not let in.
    #[cold]
    fn turn_away(
        &mut self,
        stream: D::Stream,
        peer: SocketAddr,
        listener: &Listener,
        refusal: Refusal,
    ) {
        let line = listener.rules.says_why.then(|| refusal.line());
        self.driver
            .refuse(stream, line.as_ref().map(|line| line.as_bytes()));
        self.counts.refused[refusal.reason as usize] += 1;
        self.changed = true;
        if let Some(warning) = refusal.warn {
            self.log.say(warning.event(&listener.name));
        }
        let record = Record {
            peer,
            via: None,
            listener: Arc::clone(&listener.name),
            reason: refusal.reason,
            detail: None,
            received: 0,
            sent: 0,
            duration: Duration::ZERO,
            tcp: None,
            tls: None,
            packed: None,
        };
        self.recorder.ended(self.now, &record);
    }

    /// Has all workers hear, this one as well, that pressure has begun or ended.
    #[cold]
    pub(super) fn announce_pressure(&mut self, is_on: bool) {
        let kind = match is_on {
            true => &kind::PRESSURE_BEGAN,
            false => &kind::PRESSURE_ENDED,
        };
        let admission = &self.shared.admission;
        if admission.pressure().is_worth_a_line(is_on, self.now) {
            let live = admission.all().live();
            self.log.say(Event::of(kind).with("connections", live));
        }
        for desk in &self.shared.desks {
            // One that has returned has no connections.
            let _ = desk.mailbox.put(Order::Pressure);
        }
        orders::ring(&self.shared.bell);
    }

    /// Judges all connections by the limits of the moment.
    pub(super) fn press(&mut self) {
        let pressure = self
            .shared
            .admission
            .pressure()
            .is_on()
            .then_some(&self.pressure);
        for local in self.listeners.iter_mut().flatten() {
            local.press(pressure);
        }
        self.ask_all();
    }

    /// Serves a peer whom another worker has let in, perhaps before a plan that would not.
    pub(super) fn serve_placed(&mut self, peer: Peer<D::Stream>) {
        let place = self.serve(peer);
        self.reapply_access(place);
    }

    /// Opens the connection of a peer that was admitted and counted for this worker.
    /// Answers its place.
    pub(super) fn serve(&mut self, peer: Peer<D::Stream>) -> u32 {
        let id = peer.listener.id;
        // One that another worker knows already is met here first with its first peer.
        let pressure = self
            .shared
            .admission
            .pressure()
            .is_on()
            .then_some(&self.pressure);
        let local = local(&mut self.listeners, id)
            .get_or_insert_with(|| Local::new(peer.listener, pressure));
        let turn = Turn {
            now: self.now,
            limits: &local.limits,
            memory: &self.shared.memory,
            source: Some(&peer.source.bytes),
        };
        let mut connection = Connection::new(&turn);
        if peer.is_balancer {
            connection.expect_header(&turn);
        } else {
            self.recorder
                .started(self.now, peer.address, &local.shared.name);
        }
        local.live += 1;
        self.counts.live += 1;
        self.changed = true;
        // With TLS it says so when the handshake is done.
        let speaks_first =
            local.limits.service.speaks_first() && local.limits.tls.is_none() && !peer.is_balancer;
        let token = self.table.insert(Entry {
            connection,
            socket: peer.address,
            listener: id,
            source: Some(peer.source),
            is_parting: false,
        });
        match self.driver.open(token, peer.stream) {
            Ok(()) => {
                if speaks_first {
                    self.greet(token);
                }
                self.step(token, |_, _| {});
                self.set_deadline(token);
            }
            Err(errno) => self.step(token, |connection, _| connection.handle_failed(errno)),
        }
        token.index
    }

    /// No peer can be accepted: the listening sockets would stay readable and wake us for ever, so nobody is accepted until a connection of ours ends, or for a second.
    #[cold]
    pub(super) fn pause_accept(&mut self, errno: Errno) {
        if self.shared.admission.warn_of_pause(self.now) {
            let event = Event::of(&kind::ACCEPT_PAUSED)
                .with("connections", self.shared.admission.all().live());
            self.log.say(event.with("cause", errno.desc()));
        }
        self.paused = Some(self.now + ACCEPT_PAUSE);
        for socket in self.slots.iter().flatten() {
            // One that the kernel would not let go of wakes us, no worse.
            let _ = self.driver.listen(socket.slot, None);
        }
    }

    /// Accepts again.
    pub(super) fn resume_accept(&mut self) {
        self.paused = None;
        for socket in self.slots.iter().flatten() {
            if let Err(errno) = self.driver.listen(socket.slot, Some(&socket.socket)) {
                return self.pause_accept(errno);
            }
        }
    }

    /// Accepts from a slot no longer. Whoever was accepted and is not served yet is served first, and so is
    /// whoever waits in the queue of a socket of our own: that is closed with it, and they would be reset.
    fn leave_slot(&mut self, place: usize) {
        let Some(Some(socket)) = self.slots.get(place) else {
            return;
        };
        let Socket { slot, handed, .. } = *socket;
        let queue = (!handed).then(|| socket.socket.clone());
        // One that the kernel would not let go of wakes us, no worse.
        let _ = self.driver.listen(slot, None);
        for _ in 0..QUEUE_MAX {
            let Some((stream, peer)) = self.driver.accept_waiting(slot, queue.as_ref()) else {
                break;
            };
            self.handle_accepted(slot, stream, peer);
        }
        self.slots[place] = None;
    }

    /// Accepts nobody any more at all. Not yet where there is no descriptor for those who wait, and some of ours are going to
    /// end: they would be reset.
    #[cold]
    pub(super) fn leave_all(&mut self) {
        if let Some(leaving) = &mut self.leaving
            && self.now < leaving.by
            && self.paused.is_some()
            && !self.table.is_empty()
        {
            leaving.at = leaving.by.min(self.now + HANDSHAKES);
            return;
        }
        for place in 0..self.slots.len() {
            self.leave_slot(place);
        }
        (self.paused, self.leaving) = (None, None);
    }

    /// Takes over a plan: what it does not name is drained, what it names is served as it says.
    pub(super) fn adopt(&mut self, plan: &Plan<D::Listening>) {
        self.recorder.adopt(&plan.log);
        self.pressure = plan.pressure.clone();
        self.about = plan.about.clone();
        for place in 0..self.slots.len() {
            if plan
                .sockets
                .iter()
                .all(|socket| socket.slot as usize != place)
            {
                self.leave_slot(place);
            }
        }
        let drain = Drain {
            idle: plan.drain_idle,
            parting: PARTING,
            until: self.now + plan.drain_timeout,
        };
        for (id, place) in self.listeners.iter_mut().enumerate() {
            if plan
                .listeners
                .iter()
                .all(|listener| listener.id as usize != id)
            {
                // A peer of it may be on its way here from another worker: it stays until the next plan.
                place.take_if(|local| local.live == 0 && local.limits.drain.is_some());
                if let Some(local) = place {
                    local.limits.drain.get_or_insert(drain);
                }
            }
        }
        for listener in &plan.listeners {
            let place = local(&mut self.listeners, listener.id);
            let live = place.as_ref().map_or(0, |local| local.live);
            *place = Some(Local {
                live,
                ..Local::new(Arc::clone(listener), None)
            });
        }
        for socket in &plan.sockets {
            self.adopt_socket(socket);
        }
        // The mark may be another one, and nobody need come or go to pass it.
        if let Some(is_on) = self.shared.admission.judge() {
            self.announce_pressure(is_on);
        }
        self.press();
    }

    fn adopt_socket(&mut self, socket: &Socket<D::Listening>) {
        let place = socket.slot as usize;
        if self.slots.len() <= place {
            self.slots.resize_with(place + 1, || None);
        }
        let is_known = self.slots[place].replace(socket.clone()).is_some();
        if !is_known
            && self.paused.is_none()
            && let Err(errno) = self.driver.listen(socket.slot, Some(&socket.socket))
        {
            self.pause_accept(errno);
        }
    }

    /// Accepts nobody any more but those who have begun; all connections are to end as `drain` says.
    pub(super) fn drain_all(&mut self, drain: Drain) {
        let own = |socket: &Option<Socket<_>>| socket.as_ref().is_some_and(|socket| !socket.handed);
        for place in 0..self.slots.len() {
            if !own(&self.slots[place]) {
                self.leave_slot(place);
            }
        }
        if self.slots.iter().any(own) {
            let by = drain.until;
            let at = by.min(self.now + HANDSHAKES);
            self.leaving = Some(Leaving { at, by });
        }
        self.draining = true;
        for local in self.listeners.iter_mut().flatten() {
            local.limits.drain = Some(drain);
        }
        self.ask_all();
    }
}

/// The place of the listener with this id.
fn local(listeners: &mut Vec<Option<Local>>, id: u16) -> &mut Option<Local> {
    let id = id as usize;
    if listeners.len() <= id {
        listeners.resize_with(id + 1, || None);
    }
    &mut listeners[id]
}
