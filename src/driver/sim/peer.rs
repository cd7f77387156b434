//! One end that is not ours: what it does, what it says, and whether what it reads is right.

use std::collections::VecDeque;
use std::fmt::Debug;

use crate::tick::Tick;

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

/// How a peer says what it says, where that is not as it is.
pub trait Voice: Debug {
    /// Says plain bytes, and hears bytes of the wire: those that go there, and the plain ones that came.
    ///
    /// # Errors
    /// What it heard makes no sense.
    fn exchange(&mut self, said: &[u8], heard: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String>;

    /// Has said all: the last bytes of the wire. `None`: not yet.
    fn finish(&mut self) -> Option<Vec<u8>>;

    /// Has it heard that this was all, and nothing behind it?
    fn is_well_closed(&self) -> bool;
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
    /// Sent by it and not received by us, of one that speaks plainly.
    plain: u64,
    voice: Option<Box<dyn Voice>>,
    /// The same, of one that does not.
    wire: VecDeque<u8>,
    /// Taken from us by the kernel and not read by it.
    pub(super) outbound: VecDeque<u8>,
    pub(super) our_fin: bool,
}

/// What a peer has to read next; `None`: nothing.
pub type Expected = fn(&SimPeer) -> Option<u8>;

/// The byte that peer `number` sends at position `at`.
fn pattern(number: u64, at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b9).wrapping_add(number * 131) >> 7).to_le_bytes()[0]
}

/// What comes back of what a peer has sent.
pub fn echoed(peer: &SimPeer) -> Option<u8> {
    (peer.echoed < peer.sent).then(|| pattern(peer.number, peer.echoed))
}

impl SimPeer {
    /// One that has not come yet.
    pub(super) fn new(number: u64, script: Script) -> SimPeer {
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
            plain: 0,
            voice: None,
            wire: VecDeque::new(),
            outbound: VecDeque::new(),
            our_fin: false,
        }
    }

    /// Speaks so from the beginning.
    pub(super) fn speak(&mut self, voice: Box<dyn Voice>) {
        self.voice = Some(voice);
        self.exchange(&[], &[], |_| None);
    }

    /// Bytes of it on the wire that we have not received.
    pub(super) fn inbound(&self) -> u64 {
        self.plain + self.wire.len() as u64
    }

    /// Says the next `count` bytes.
    pub(super) fn say(&mut self, count: u64) {
        let from = self.sent;
        self.sent += count;
        if self.voice.is_none() {
            self.plain += count;
            return;
        }
        let said: Vec<u8> = (from..from + count)
            .map(|at| pattern(self.number, at))
            .collect();
        self.exchange(&said, &[], |_| None);
    }

    /// Was it told, in its own way as well, that it has been given all?
    pub fn is_well_closed(&self) -> bool {
        self.finished
            && self
                .voice
                .as_ref()
                .is_none_or(|voice| voice.is_well_closed())
    }

    /// Says no more, if it is ready to.
    pub(super) fn finish(&mut self) {
        if self.fin {
            return;
        }
        match self.voice.as_mut().map(|voice| voice.finish()) {
            None => self.fin = true,
            Some(Some(last)) => {
                self.wire.extend(last);
                self.fin = true;
            }
            Some(None) => {}
        }
    }

    /// The next bytes of it that we receive, at most `most`.
    pub(super) fn take(&mut self, most: u64) -> Vec<u8> {
        let count = self.inbound().min(most);
        if self.voice.is_some() {
            return self.wire.drain(..count as usize).collect();
        }
        let from = self.sent - self.plain;
        self.plain -= count;
        (from..from + count)
            .map(|at| pattern(self.number, at))
            .collect()
    }

    /// Reads up to `count` bytes of ours, or our FIN.
    pub(super) fn read(&mut self, count: u64, expected: Expected) {
        let count = count.min(self.outbound.len() as u64) as usize;
        if self.outbound.is_empty() {
            self.finished |= self.our_fin;
        } else if self.voice.is_some() {
            let heard: Vec<u8> = self.outbound.drain(..count).collect();
            self.exchange(&[], &heard, expected);
        } else {
            for _ in 0..count {
                let byte = self.outbound.pop_front();
                self.wrong |= expected(self) != byte;
                self.echoed += 1;
            }
        }
    }

    fn exchange(&mut self, said: &[u8], heard: &[u8], expected: Expected) {
        let Some(voice) = &mut self.voice else { return };
        match voice.exchange(said, heard) {
            Ok((wire, plain)) => {
                // Behind its FIN nothing goes.
                if !self.fin {
                    self.wire.extend(wire);
                }
                for byte in plain {
                    self.wrong |= expected(self) != Some(byte);
                    self.echoed += 1;
                }
            }
            Err(_) => self.wrong = true,
        }
    }
}
