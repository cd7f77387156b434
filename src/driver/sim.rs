//! A seeded network without a kernel, for tests: the same seed is the same run.
//!
//! It holds the clock and a number of scripted peers, and does what a kernel may do and seldom does:
//! it wakes for nothing, takes a send now or later, whole, in part or not at all, delivers a receive
//! after receiving was stopped, and lets a closed connection linger before it is gone. Each peer knows
//! what it sent, so it knows what has to come back, and checks every byte.

// All numbers here are small.
#![allow(clippy::cast_possible_truncation)]

mod peer;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use nix::errno::Errno;

use super::{Completion, Driver, Sent, TcpInfo, Token};
use crate::buffer::{Buffer, TurnMemory};
use crate::tick::Tick;
pub use peer::{Ending, Expected, Script, SimPeer, Tongue, echoed};

/// Bytes that the simulated kernel takes for a peer that does not read.
pub const SEND_QUEUE: u64 = 3000;

/// Most bytes of a receive that comes although receiving was stopped.
pub const LATE: u32 = 64;

/// SplitMix64: small, seedable, and good enough to be unkind.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is above zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }

    /// True once in `odds` times.
    pub fn once_in(&mut self, odds: u64) -> bool {
        self.below(odds) == 0
    }
}

/// What our end knows of one connection.
#[derive(Debug)]
struct Slot {
    token: Token,
    peer: usize,
    room: u32,
    /// Receiving was stopped only now, so one more receive may come.
    late: bool,
    eof: bool,
    failed: bool,
    held: Option<Buffer>,
    /// Closed; gone once this many turns have passed.
    closing: Option<u64>,
}

/// The network and all peers on it.
#[derive(Debug)]
pub struct Network {
    random: Random,
    expected: Expected,
    longest: u32,
    now: Tick,
    peers: Vec<SimPeer>,
    slots: Vec<Slot>,
    accepting: bool,
    rung: bool,
    /// Looks at peers and connections that this turn may still take.
    looks: u64,
}

impl Network {
    /// A network with these peers.
    pub fn new(seed: u64, scripts: Vec<Script>) -> Network {
        Network {
            random: Random(seed),
            expected: echoed,
            longest: 0,
            now: Tick(1000),
            peers: (0..).zip(scripts).map(SimPeer::new).collect(),
            slots: Vec::new(),
            accepting: false,
            rung: false,
            looks: 0,
        }
    }

    /// The same with peers that do not expect their own bytes.
    pub fn expecting(self, expected: Expected) -> Network {
        Network { expected, ..self }
    }

    /// The same with peers that each speak through one of these.
    pub fn speaking(mut self, tongue: impl Fn() -> Box<dyn Tongue>) -> Network {
        for peer in &mut self.peers {
            peer.tongue = Some(tongue());
        }
        self
    }

    /// The most bytes that any send had.
    pub fn longest(&self) -> u32 {
        self.longest
    }

    /// The peers, in the order of their scripts.
    pub fn peers(&self) -> &[SimPeer] {
        &self.peers
    }

    /// The time.
    pub fn now(&self) -> Tick {
        self.now
    }

    /// Connections that are not gone.
    pub fn open(&self) -> usize {
        self.slots.len()
    }

    /// Wakes the worker for its orders.
    pub fn ring(&mut self) {
        self.rung = true;
    }

    /// Lets one peer do something, or nothing.
    fn act(&mut self) {
        let number = self.random.below(self.peers.len() as u64);
        let chunk = self.peers[number as usize].script.chunk;
        let count = self.random.below(chunk) + 1;
        let quiet = self.random.once_in(3);
        let Some(peer) = self.peers.get_mut(number as usize) else {
            return;
        };
        if !peer.connected || peer.broken || quiet {
            return;
        }
        peer.act(count, self.expected);
    }

    /// What there is to say of one connection, if anything.
    fn look(&mut self) -> Option<Completion<usize>> {
        if self.accepting
            && self.random.once_in(4)
            && let Some((stream, peer)) = self.accept()
        {
            return Some(Completion::Accepted {
                slot: 0,
                stream,
                peer,
            });
        }
        if self.slots.is_empty() {
            return None;
        }
        let index = self.random.below(self.slots.len() as u64) as usize;
        let (room, lag) = (self.random.below(2000) as u32 + 1, self.random.once_in(2));
        let taken = self.random.below(1500);
        let slot = &mut self.slots[index];
        let peer = &mut self.peers[slot.peer];
        let token = slot.token;
        if let Some(turns) = slot.closing {
            // What was under way comes home before the connection is gone.
            if let Some(bytes) = slot.held.take() {
                let sent = offer(peer, bytes, taken);
                return Some(Completion::Sent { token, sent });
            }
            slot.closing = Some(turns.saturating_sub(1));
            if turns == 0 {
                self.slots.swap_remove(index);
                return Some(Completion::Gone { token });
            }
            return None;
        }
        if peer.broken {
            let told = std::mem::replace(&mut slot.failed, true);
            return (!told).then_some(Completion::Failed {
                token,
                errno: Errno::ECONNRESET,
            });
        }
        if slot.held.is_some() && lag {
            let sent = slot.held.take().map(|bytes| offer(peer, bytes, taken))?;
            if let Sent::Part { count: 0, rest } = sent {
                slot.held = Some(rest);
                return None;
            }
            return Some(Completion::Sent { token, sent });
        }
        let room = if slot.room > 0 {
            room.min(slot.room)
        } else {
            u32::from(std::mem::take(&mut slot.late)) * LATE
        };
        if room == 0 || slot.eof {
            return None;
        }
        if peer.inbound.is_empty() {
            slot.eof = peer.fin;
            return peer.fin.then_some(Completion::PeerClosed { token });
        }
        let count = peer.inbound.len().min(room as usize);
        let bytes: Vec<u8> = peer.inbound.drain(..count).collect();
        let input = TurnMemory::of(bytes.len()).fill::<()>(u32::MAX, |to| {
            to.copy_from_slice(&bytes);
            Ok(bytes.len())
        });
        input
            .ok()
            .map(|input| Completion::Received { token, input })
    }

    /// The first peer that has arrived and is not accepted.
    fn accept(&mut self) -> Option<(usize, SocketAddr)> {
        let now = self.now;
        let arrived = |peer: &SimPeer| !peer.connected && peer.script.arrives <= now;
        let number = self.peers.iter().position(arrived)?;
        self.peers[number].connected = true;
        let port = u16::try_from(number).unwrap_or(0);
        Some((number, ([127, 0, 0, 1], port).into()))
    }

    fn slot(&mut self, token: Token) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.token == token)
    }
}

/// Offers bytes to the kernel's queue for a peer, which takes at most `taken` of them.
fn offer(peer: &mut SimPeer, bytes: Buffer, taken: u64) -> Sent {
    if peer.broken {
        return Sent::Broken(Errno::EPIPE);
    }
    let free = SEND_QUEUE.saturating_sub(peer.outbound.len() as u64);
    let count = u64::from(bytes.len()).min(free).min(taken) as u32;
    peer.outbound.extend(&bytes.bytes()[..count as usize]);
    Sent::of(bytes, count)
}

/// A driver over a [`Network`], which the test looks at from its side.
#[derive(Clone, Debug)]
pub struct SimDriver(pub Rc<RefCell<Network>>);

impl Driver for SimDriver {
    type Listening = ();
    type Stream = usize;

    fn listen(&mut self, _slot: u16, socket: Option<&()>) -> Result<(), Errno> {
        self.0.borrow_mut().accepting = socket.is_some();
        Ok(())
    }

    fn accept_waiting(&mut self, _slot: u16, socket: Option<&()>) -> Option<(usize, SocketAddr)> {
        socket?;
        self.0.borrow_mut().accept()
    }

    fn open(&mut self, token: Token, peer: usize) -> Result<(), Errno> {
        let mut net = self.0.borrow_mut();
        if net.random.once_in(200) {
            net.peers[peer].reset = true;
            net.peers[peer].broken = true;
            return Err(Errno::ENOMEM);
        }
        net.slots.push(Slot {
            token,
            peer,
            room: 0,
            late: false,
            eof: false,
            failed: false,
            held: None,
            closing: None,
        });
        Ok(())
    }

    fn refuse(&mut self, peer: usize, _line: Option<&[u8]>) {
        let mut net = self.0.borrow_mut();
        net.peers[peer].reset = true;
        net.peers[peer].broken = true;
    }

    fn receive(&mut self, token: Token, room: u32) {
        if let Some(slot) = self.0.borrow_mut().slot(token) {
            slot.late = slot.room > 0 && room == 0;
            slot.room = room;
        }
    }

    fn send(&mut self, token: Token, bytes: Buffer) -> Option<Sent> {
        let mut net = self.0.borrow_mut();
        net.longest = net.longest.max(bytes.len());
        let (later, whole) = (net.random.once_in(4), net.random.once_in(2));
        let taken = if whole {
            u64::MAX
        } else {
            net.random.below(1000)
        };
        let Some(slot) = net.slot(token) else {
            return Some(Sent::Broken(Errno::EBADF));
        };
        assert!(slot.held.is_none(), "one send of a connection at a time");
        if later {
            slot.held = Some(bytes);
            return None;
        }
        let peer = slot.peer;
        Some(offer(&mut net.peers[peer], bytes, taken))
    }

    fn shutdown(&mut self, token: Token) {
        let mut net = self.0.borrow_mut();
        if let Some(peer) = net.slot(token).map(|slot| slot.peer) {
            net.peers[peer].our_fin = true;
        }
    }

    fn close(&mut self, token: Token, reset: bool) -> bool {
        let mut net = self.0.borrow_mut();
        let turns = net.random.below(4);
        let Some(slot) = net.slot(token) else {
            return true;
        };
        assert!(slot.closing.is_none(), "a connection is closed once");
        let held = slot.held.is_some();
        let turns = turns.max(u64::from(held));
        slot.closing = Some(turns);
        let number = slot.peer;
        let peer = &mut net.peers[number];
        // As the kernel has it: a close with bytes unread is a reset.
        if reset || held || !peer.inbound.is_empty() {
            peer.reset = true;
            peer.broken = true;
        }
        peer.our_fin = true;
        if turns == 0 {
            net.slots.retain(|slot| slot.token != token);
        }
        turns == 0
    }

    fn facts(&self, token: Token) -> Option<TcpInfo> {
        let net = self.0.borrow();
        let slot = net.slots.iter().find(|slot| slot.token == token)?;
        let peer = &net.peers[slot.peer];
        Some(TcpInfo {
            rtt: std::time::Duration::from_millis(1),
            retrans: 0,
            acked: peer.read,
            queued: !peer.outbound.is_empty(),
            ..TcpInfo::default()
        })
    }

    fn congestion(&self, _token: Token) -> Option<String> {
        None
    }

    fn wait(&mut self, until: Tick, _room: u32) -> Tick {
        let mut net = self.0.borrow_mut();
        let peers = net.peers.len() as u64;
        for _ in 0..peers {
            net.act();
        }
        // Mostly little time passes; sometimes nothing happens until the deadline.
        let step = if net.random.once_in(20) {
            until.0.saturating_sub(net.now.0).min(60_000)
        } else {
            net.random.below(40)
        };
        net.now = Tick(net.now.0 + step);
        net.looks = net.random.below(2 * peers + 2);
        net.now
    }

    fn next(&mut self) -> Option<Completion<usize>> {
        let mut net = self.0.borrow_mut();
        if std::mem::take(&mut net.rung) {
            return Some(Completion::Woken);
        }
        while net.looks > 0 {
            net.looks -= 1;
            if let Some(completion) = net.look() {
                return Some(completion);
            }
        }
        None
    }
}
