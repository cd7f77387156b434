//! One thread: one driver, one table of connections, one loop.
//!
//! A turn waits for the driver, handles its completions one by one, judges the deadlines that passed,
//! and goes on with what a reload or a drain left to do. On the data path a worker shares nothing
//! with the others; they meet where a peer is admitted and placed ([`admission`]) and in their letter
//! boxes ([`orders`]). The contract with the driver and the connection: one completion is handled, all
//! that the connection then wants is done, and only then comes the next.

mod accepting;
pub mod access;
pub mod admission;
pub mod deadlines;
mod ending;
pub mod gate;
mod greeting;
mod identifying;
mod judging;
pub mod orders;
pub mod pressure;
pub mod refusal;
pub mod sources;
pub mod table;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::eventfd::EventFd;

use crate::buffer::{Buffer, Memory};
use crate::config;
use crate::connection::{Connection, DRAIN_PARTING, Drain, Turn, Want};
use crate::driver::{Completion, Driver, Sent, Token};
use crate::logging::{Log, Recorder};
use crate::metrics::{Counts, Published};
use crate::service::whoami::About;
use crate::tick::Tick;
use accepting::{Leaving, Local};
use admission::Admission;
use deadlines::Deadlines;
use ending::release;
use judging::Asking;
use orders::{Mailbox, Order, Socket};
use table::{Entry, Table};

/// How long accepting pauses when descriptors or memory are used up, unless a connection ends before.
pub const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// The workers' common ground: letter boxes, bounds, counts.
#[derive(Debug)]
pub struct Shared<L, S> {
    /// Who may come in, and where.
    pub admission: Admission,
    /// `buffer_memory`.
    pub memory: Arc<Memory>,
    /// One place for each worker.
    pub desks: Box<[Desk<L, S>]>,
    /// Rung for the supervisor when its status is out of date, memory is to be returned or a worker has returned.
    pub bell: EventFd,
    /// The status that was last shown is out of date, and the supervisor knows it.
    pub stale: AtomicBool,
}

/// What others see of a worker.
#[derive(Debug)]
pub struct Desk<L, S> {
    /// Its orders.
    pub mailbox: Mailbox<L, S>,
    /// Its counts.
    pub counts: Published,
    /// How many pings it has answered.
    pub answered: AtomicU64,
    /// It has returned.
    pub returned: AtomicBool,
}

impl<L, S> Desk<L, S> {
    /// A desk with an empty letter box.
    ///
    /// # Errors
    /// When there is no descriptor for its bell.
    pub fn new() -> std::io::Result<Desk<L, S>> {
        Ok(Desk {
            mailbox: Mailbox::new()?,
            counts: Published::default(),
            answered: AtomicU64::new(0),
            returned: AtomicBool::new(false),
        })
    }
}

/// One worker. Lives and ends on its own thread.
pub struct Worker<D: Driver> {
    index: u16,
    driver: D,
    shared: Arc<Shared<D::Listening, D::Stream>>,
    now: Tick,
    table: Table,
    deadlines: Deadlines,
    /// By id; a listener that is in the plan no longer stays for its last connections.
    listeners: Vec<Option<Local>>,
    /// The sockets that are accepted from, by slot.
    slots: Vec<Option<Socket<D::Listening>>>,
    /// Accepting pauses until then.
    paused: Option<Tick>,
    /// The places that are to be asked for their deadlines again.
    asking: Asking,
    /// Connections that go on with one of the next turns.
    again: VecDeque<Token>,
    /// What whoami says of us.
    about: About,
    /// Nobody is accepted any more, and the worker returns with its last connection.
    draining: bool,
    /// Until then it accepts those at our own sockets who had begun before the drain.
    leaving: Option<Leaving>,
    /// What pressure makes of the limits.
    pressure: config::Pressure,
    recorder: Recorder,
    log: Log,
    counts: Counts,
    /// Something of `counts` but the bytes is not published yet.
    changed: bool,
    /// The bytes, received and sent, that are.
    published: u64,
}

impl<D: Driver> Worker<D> {
    /// A worker that serves nothing until it is told to.
    pub fn new(
        index: u16,
        driver: D,
        shared: Arc<Shared<D::Listening, D::Stream>>,
        log: Log,
        now: Tick,
    ) -> Worker<D> {
        Worker {
            index,
            driver,
            shared,
            now,
            table: Table::default(),
            deadlines: Deadlines::new(now),
            listeners: Vec::new(),
            slots: Vec::new(),
            paused: None,
            asking: Asking::default(),
            again: VecDeque::new(),
            about: About::default(),
            draining: false,
            leaving: None,
            pressure: config::Pressure::none(),
            recorder: Recorder::new(&log),
            log,
            counts: Counts::default(),
            changed: false,
            published: 0,
        }
    }

    /// Turns until it is told to stop, or has drained.
    pub fn run(&mut self) {
        while self.turn() {}
        // What was counted is told before anybody hears that this was all.
        self.recorder.flush(self.now);
        let desk = &self.shared.desks[self.index as usize];
        desk.returned.store(true, Ordering::Release);
        orders::ring(&self.shared.bell);
    }

    /// One turn. `false`: there is nothing left to do, ever.
    #[inline]
    pub fn turn(&mut self) -> bool {
        self.now = self.driver.wait(self.wake_at(), self.shared.memory.room());
        loop {
            while let Some((token, count)) = self.driver.next_all_sent() {
                self.counts.sent += u64::from(count);
                self.step(token, |connection, turn| {
                    connection.handle_all_sent(count, turn)
                });
            }
            while let Some((token, input)) = self.driver.next_received() {
                self.receive(token, input);
            }
            match self.driver.next() {
                Some(completion) => self.handle(completion),
                None => break,
            }
        }
        if !self.again.is_empty() {
            self.go_on();
        }
        self.judge();
        if self.asking.left > 0 {
            self.ask_again();
        }
        if self.paused.is_some_and(|until| until <= self.now) {
            self.resume_accept();
        }
        if self.leaving.is_some_and(|leaving| leaving.at <= self.now) {
            self.leave_all();
        }
        if self.recorder.deadline().is_some_and(|due| due <= self.now) {
            self.recorder.flush(self.now);
        }
        self.publish();
        if self.shared.memory.has_fallen() {
            orders::ring(&self.shared.bell);
        }
        let is_done = self.draining && self.leaving.is_none() && self.table.is_empty();
        !(is_done && self.own_desk().mailbox.close_if_empty())
    }

    /// Any completion.
    #[cold]
    fn handle(&mut self, completion: Completion<D::Stream>) {
        // Whoever is on the way out waits for what was sent last.
        self.driver.hurry();
        match completion {
            Completion::Received { token, input } => self.receive(token, input),
            Completion::Accepted { slot, stream, peer } => self.handle_accepted(slot, stream, peer),
            Completion::AcceptFailed { errno } => self.pause_accept(errno),
            Completion::PeerClosed { token } => self.step(token, Connection::handle_peer_closed),
            Completion::Sent { token, sent } => {
                self.counts.sent += u64::from(sent.count());
                self.step(token, |connection, turn| connection.handle_sent(sent, turn));
            }
            Completion::Failed { token, errno } => {
                self.step(token, |connection, _| connection.handle_failed(errno))
            }
            Completion::Gone { token } => self.forget(token),
            Completion::Woken => {
                for order in self.own_desk().mailbox.take() {
                    self.obey(order);
                }
            }
        }
    }

    /// When there is something to do though nothing happens.
    #[inline]
    fn wake_at(&self) -> Tick {
        if self.asking.left > 0 || !self.again.is_empty() {
            return self.now;
        }
        let paused = self.paused.unwrap_or(Tick::NEVER);
        let leaving = self.leaving.map_or(Tick::NEVER, |leaving| leaving.at);
        let summary = self.recorder.deadline().unwrap_or(Tick::NEVER);
        let others = paused.min(leaving).min(summary);
        self.deadlines.next().min(others)
    }

    /// Hands a connection bytes of its peer, then does all that it wants: mostly to send them back.
    #[inline(always)]
    fn receive(&mut self, token: Token, input: Buffer) {
        self.counts.received += u64::from(input.len());
        let Some((entry, local)) = find(&mut self.table, &self.listeners, token) else {
            return;
        };
        let turn = Turn {
            now: self.now,
            limits: &local.limits,
            memory: &self.shared.memory,
            source: entry.source.as_ref().map(|source| &source.bytes),
        };
        let connection = &mut entry.connection;
        let answer = match connection.answer(input, &turn) {
            Ok(answer) => answer,
            Err(input) => return self.receive_rarely(token, input),
        };
        match self.driver.send(token, answer) {
            None => return,
            Some(Sent::All(count)) => {
                self.counts.sent += u64::from(count);
                return connection.handle_answered(count);
            }
            Some(sent) => {
                self.counts.sent += u64::from(sent.count());
                connection.handle_sent(sent, &turn);
            }
        }
        self.fulfil(token);
    }

    /// Bytes of a peer of which more is asked than an echo.
    #[inline(never)]
    fn receive_rarely(&mut self, token: Token, input: Buffer) {
        let Some((entry, local)) = find(&mut self.table, &self.listeners, token) else {
            return;
        };
        let turn = Turn {
            now: self.now,
            limits: &local.limits,
            memory: &self.shared.memory,
            source: entry.source.as_ref().map(|source| &source.bytes),
        };
        let connection = &mut entry.connection;
        connection.handle_received(input, &turn);
        // Nobody is in a hurry for it yet.
        if let Some(bytes) = connection.poll_send()
            && let Some(sent) = self.driver.send(token, bytes)
        {
            self.counts.sent += u64::from(sent.count());
            connection.handle_sent(sent, &turn);
        }
        if connection.wants_more() {
            self.fulfil(token);
        }
    }

    /// Tells a connection what happened, then does all that it wants: mostly nothing.
    #[inline(always)]
    fn step(&mut self, token: Token, event: impl FnOnce(&mut Connection, &Turn<'_>)) {
        let Some((entry, local)) = find(&mut self.table, &self.listeners, token) else {
            return;
        };
        let turn = Turn {
            now: self.now,
            limits: &local.limits,
            memory: &self.shared.memory,
            source: entry.source.as_ref().map(|source| &source.bytes),
        };
        event(&mut entry.connection, &turn);
        if entry.connection.wants_more() {
            self.fulfil(token);
        }
    }

    /// Does what a connection wants, until it wants nothing.
    #[cold]
    fn fulfil(&mut self, token: Token) {
        while self.fulfil_but_identify(token) {
            self.identify(token);
        }
    }

    /// The same, until it wants to know whether its peer may come in: then `true`.
    fn fulfil_but_identify(&mut self, token: Token) -> bool {
        // Of what it wants, some may have to wait for what was sent before.
        self.driver.hurry();
        let Some((entry, local)) = find(&mut self.table, &self.listeners, token) else {
            return false;
        };
        while let Some(want) = entry.connection.poll_want() {
            let turn = Turn {
                now: self.now,
                limits: &local.limits,
                memory: &self.shared.memory,
                source: entry.source.as_ref().map(|source| &source.bytes),
            };
            match want {
                Want::Send(bytes) => {
                    if let Some(sent) = self.driver.send(token, bytes) {
                        self.counts.sent += u64::from(sent.count());
                        entry.connection.handle_sent(sent, &turn);
                    }
                }
                Want::Receive(room) => self.driver.receive(token, room),
                Want::Deadline => self
                    .deadlines
                    .set(token.index, entry.connection.deadline(turn.limits)),
                Want::Again => self.again.push_back(token),
                Want::Identify => return true,
                // What else it wants is done with the words.
                Want::Greet => {
                    self.greet(token);
                    return false;
                }
                Want::Ask => {
                    if let Some(facts) = self.driver.facts(token) {
                        entry
                            .connection
                            .handle_acked(facts.acked, facts.queued, &turn);
                    }
                    self.deadlines
                        .set(token.index, entry.connection.deadline(turn.limits));
                }
                Want::Shutdown => {
                    // Before our FIN can be seen: a peer that comes back at once is not refused.
                    if self.shared.admission.begin_parting() {
                        entry.is_parting = true;
                        let source = entry.source.take();
                        release(source, &self.shared.admission, local, self.index, self.now);
                        self.changed = true;
                    }
                    self.driver.shutdown(token);
                }
                Want::Close { reset } => {
                    let source = entry.source.take();
                    release(source, &self.shared.admission, local, self.index, self.now);
                    self.close(token, reset);
                    return false;
                }
            }
        }
        false
    }

    #[cold]
    fn obey(&mut self, order: Order<D::Listening, D::Stream>) {
        match order {
            Order::Serve(peer) => self.serve_placed(peer),
            Order::Ping => {
                self.own_desk().answered.fetch_add(1, Ordering::Release);
            }
            Order::Pressure => self.press(),
            Order::Adopt(plan) => self.adopt(&plan),
            Order::Drain { idle, timeout } => self.drain_all(Drain {
                idle,
                parting: DRAIN_PARTING,
                until: self.now + timeout,
            }),
            Order::Stop => {
                self.drain_all(Drain {
                    idle: Duration::ZERO,
                    parting: Duration::ZERO,
                    until: self.now,
                });
                self.leave_all();
                for place in 0..self.table.places() {
                    if let Some(token) = self.table.token(place) {
                        self.step(token, |connection, _| connection.handle_stop());
                    }
                }
            }
        }
    }

    fn own_desk(&self) -> &Desk<D::Listening, D::Stream> {
        &self.shared.desks[self.index as usize]
    }

    /// Makes the counts readable, and tells the supervisor once that its status is out of date.
    #[inline]
    fn publish(&mut self) {
        let bytes = self.counts.received.wrapping_add(self.counts.sent);
        if bytes == self.published && !self.changed {
            return;
        }
        let desk = &self.shared.desks[self.index as usize];
        if std::mem::take(&mut self.changed) {
            desk.counts.publish(&self.counts);
            // Of those who came it was judged before they were served.
            if let Some(is_on) = self.shared.admission.judge() {
                self.announce_pressure(is_on);
            }
        } else {
            desk.counts.publish_bytes(&self.counts);
        }
        self.published = bytes;
        if !self.shared.stale.load(Ordering::Relaxed)
            && !self.shared.stale.swap(true, Ordering::AcqRel)
        {
            orders::ring(&self.shared.bell);
        }
    }
}

/// The connection that a token names, and the listener that it came in by.
#[inline(always)]
fn find<'a>(
    table: &'a mut Table,
    listeners: &'a [Option<Local>],
    token: Token,
) -> Option<(&'a mut Entry, &'a Local)> {
    let entry = table.get_mut(token)?;
    let local = listeners.get(entry.listener as usize)?.as_ref()?;
    Some((entry, local))
}
