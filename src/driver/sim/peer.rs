//! A peer on the simulated network: what it does, what it speaks, and whether what it reads is right.

// All numbers here are small.
#![allow(clippy::cast_possible_truncation)]

use std::collections::VecDeque;
use std::fmt::Debug;

use crate::tick::Tick;

/// What a peer speaks, if its bytes do not go over the network as they are.
pub trait Tongue: Debug {
    /// What has to go over the network for it to have said this, and what there was to say besides.
    fn say(&mut self, bytes: &[u8]) -> Vec<u8>;

    /// What it is told by these bytes.
    ///
    /// # Errors
    /// They are wrong.
    fn hear(&mut self, bytes: &[u8]) -> Result<Vec<u8>, String>;

    /// What has to go over the network for it to have said its last word; `None`: it is too early.
    fn close(&mut self) -> Option<Vec<u8>>;

    /// Has it heard our last word?
    fn is_closed(&self) -> bool;
}

/// What a peer has to read next; `None`: nothing.
pub type Expected = fn(&SimPeer) -> Option<u8>;

/// How a peer ends when it has sent all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It sends its FIN, and reads to ours.
    HalfClose,
    /// It resets the connection, whatever is under way.
    Reset,
    /// It says nothing more, and reads on until we end it.
    Silence,
}

/// What a peer does.
#[derive(Clone, Debug)]
pub struct Script {
    /// When it connects.
    pub arrives: Tick,
    /// Bytes that it sends.
    pub bytes: u64,
    /// Most bytes that it sends, and reads, at a time.
    pub chunk: u64,
    /// It never reads a byte.
    pub deaf: bool,
    /// How it ends.
    pub ending: Ending,
}

/// One end that is not ours.
#[derive(Debug)]
pub struct SimPeer {
    /// What it does.
    pub script: Script,
    /// Bytes that it has sent.
    pub sent: u64,
    /// Bytes that it has read, all of them right.
    pub echoed: u64,
    /// It has read our FIN behind them.
    pub finished: bool,
    /// We reset it.
    pub reset: bool,
    /// A byte that it read was not the one that it had sent.
    pub wrong: bool,
    number: u64,
    pub(super) connected: bool,
    pub(super) fin: bool,
    pub(super) broken: bool,
    /// Sent by it and not received by us.
    pub(super) inbound: VecDeque<u8>,
    /// Taken from us by the kernel and not read by it.
    pub(super) outbound: VecDeque<u8>,
    pub(super) our_fin: bool,
    /// Bytes that it has read, whatever they mean.
    pub(super) read: u64,
    pub(super) tongue: Option<Box<dyn Tongue>>,
}

/// The byte that peer `number` sends at position `at`.
fn pattern(number: u64, at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b9).wrapping_add(number * 131) >> 7).to_le_bytes()[0]
}

/// What comes back of what a peer has sent.
pub fn echoed(peer: &SimPeer) -> Option<u8> {
    (peer.echoed < peer.sent).then(|| pattern(peer.number, peer.echoed))
}

impl SimPeer {
    pub(super) fn new((number, script): (u64, Script)) -> SimPeer {
        SimPeer {
            script,
            sent: 0,
            echoed: 0,
            finished: false,
            reset: false,
            wrong: false,
            number,
            connected: false,
            fin: false,
            broken: false,
            inbound: VecDeque::new(),
            outbound: VecDeque::new(),
            our_fin: false,
            read: 0,
            tongue: None,
        }
    }

    /// Was our end said as it should be in what it speaks?
    pub fn is_well_closed(&self) -> bool {
        self.tongue.as_ref().is_none_or(|tongue| tongue.is_closed())
    }

    /// Reads, and sends or ends, with at most so many bytes at a time.
    pub(super) fn act(&mut self, count: u64, expected: Expected) {
        if !self.script.deaf {
            self.read(count, expected);
        }
        if self.sent < self.script.bytes {
            let count = count.min(self.script.bytes - self.sent);
            let bytes: Vec<u8> = (self.sent..self.sent + count)
                .map(|at| pattern(self.number, at))
                .collect();
            self.sent += count;
            self.say(&bytes);
            return;
        }
        self.say(&[]);
        match self.script.ending {
            Ending::HalfClose => self.leave(),
            Ending::Reset => self.broken = true,
            Ending::Silence if self.finished => self.leave(),
            Ending::Silence => {}
        }
    }

    fn read(&mut self, count: u64, expected: Expected) {
        let taken = self.outbound.len().min(count as usize);
        let bytes: Vec<u8> = self.outbound.drain(..taken).collect();
        self.read += taken as u64;
        let told = match &mut self.tongue {
            Some(tongue) => tongue.hear(&bytes),
            None => Ok(bytes),
        };
        let Ok(told) = told else {
            self.wrong = true;
            return;
        };
        for byte in told {
            self.wrong |= expected(self) != Some(byte);
            self.echoed += 1;
        }
        self.finished |= self.our_fin && (taken as u64) < count;
    }

    fn say(&mut self, bytes: &[u8]) {
        if self.fin {
            return;
        }
        match &mut self.tongue {
            Some(tongue) => self.inbound.extend(tongue.say(bytes)),
            None => self.inbound.extend(bytes),
        }
    }

    /// Its last word, if it has one, and its FIN.
    fn leave(&mut self) {
        if self.fin {
            return;
        }
        if let Some(tongue) = &mut self.tongue {
            let Some(bytes) = tongue.close() else {
                return;
            };
            self.inbound.extend(bytes);
        }
        self.fin = true;
    }
}
