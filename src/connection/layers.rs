//! What lies between the wire and a service: a header, TLS, compression. Most connections have nothing there.
//!
//! In this order: a header comes before all else, TLS is next to the wire, compression next to the service. Everything
//! that is said of a connection elsewhere, its counts, its quota and its rates, is of its service's plain bytes; what it is owed
//! is what goes on the wire. What of that is plain is counted here.

use super::packing::Packing;
use super::preface::Preface;
use super::{Connection, ENDING, Limits, Reason, State, Turn};
use crate::buffer::Buffer;
use crate::tls::Session;

/// The layers of one connection; boxed, so that the many without any pay eight bytes.
#[derive(Debug, Default)]
pub(super) struct Layers {
    /// A header comes first, or came.
    pub(super) preface: Option<Preface>,
    /// Its peer speaks TLS.
    pub(super) session: Option<Box<Session>>,
    /// Its peer compresses.
    pub(super) packing: Option<Box<Packing>>,
    /// Plain bytes that were answered and that the kernel has not taken yet.
    owed: u64,
}

impl Layers {
    /// What a listener puts in front of its service.
    pub(super) fn of(limits: &Limits) -> Option<Box<Layers>> {
        let session = limits.tls.as_ref();
        let session = session.map(|identity| Box::new(Session::new(identity)));
        let packing = limits
            .compression
            .map(|terms| Box::new(Packing::new(terms)));
        (session.is_some() || packing.is_some()).then(|| {
            Box::new(Layers {
                session,
                packing,
                ..Layers::default()
            })
        })
    }

    /// Is what goes on the wire another thing than what is said?
    fn is_sealing(&self) -> bool {
        self.session.is_some() || self.packing.is_some()
    }

    /// Passes plain bytes for the peer through them.
    fn send(&mut self, plain: &[u8]) {
        let is_taken = match (&mut self.packing, &mut self.session) {
            (Some(packing), _) => {
                packing.codec.send(plain);
                true
            }
            (None, Some(session)) => session.send(plain),
            (None, None) => false,
        };
        if is_taken {
            self.owed += plain.len() as u64;
        }
    }

    /// Has the peer read all that was sent.
    fn flush(&mut self) {
        if let Some(packing) = &mut self.packing {
            packing.codec.flush();
        }
    }

    /// What is to go on the wire.
    fn drain(&mut self) -> Vec<u8> {
        let packed = self.packing.as_mut();
        let packed = packed.map_or(Vec::new(), |packing| packing.codec.drain());
        match &mut self.session {
            Some(session) => {
                session.send(&packed);
                session.drain()
            }
            None => packed,
        }
    }

    /// The kernel took `count` of `owed` bytes: the plain bytes in them, which are in proportion until all of it is
    /// taken.
    fn taken(&mut self, count: u32, owed: u32) -> u64 {
        let unflushed = self.packing.as_ref();
        let unflushed = unflushed.map_or(0, |packing| packing.codec.unflushed());
        let plain = self.owed.saturating_sub(unflushed);
        let taken = match owed {
            owed if count >= owed => plain,
            // Below `plain`.
            owed => u64::try_from(u128::from(plain) * u128::from(count) / u128::from(owed))
                .unwrap_or(plain),
        };
        self.owed -= taken;
        taken
    }
}

impl Connection {
    /// What the peer's TLS is, if it speaks it.
    pub fn session(&self) -> Option<&Session> {
        self.layers.as_ref()?.session.as_deref()
    }

    pub(super) fn session_mut(&mut self) -> Option<&mut Session> {
        self.layers.as_mut()?.session.as_deref_mut()
    }

    pub(super) fn preface(&self) -> Option<&Preface> {
        self.layers.as_ref()?.preface.as_ref()
    }

    pub(super) fn preface_mut(&mut self) -> Option<&mut Preface> {
        self.layers.as_mut()?.preface.as_mut()
    }

    pub(super) fn packing(&self) -> Option<&Packing> {
        self.layers.as_ref()?.packing.as_deref()
    }

    pub(super) fn packing_mut(&mut self) -> Option<&mut Packing> {
        self.layers.as_mut()?.packing.as_deref_mut()
    }

    /// Is what goes on the wire another thing than what is said?
    pub(super) fn is_sealing(&self) -> bool {
        self.layers
            .as_ref()
            .is_some_and(|layers| layers.is_sealing())
    }

    /// Is what its peer says sent back as it is, by a service that answers?
    pub(super) fn is_bare(&self) -> bool {
        self.service.answers() && !self.is_sealing()
    }

    /// Is what it says sent back, through whatever layers?
    pub(super) fn echoes(&self) -> bool {
        self.state == State::Open && self.service.answers()
    }

    /// Bytes arrived, of a peer with layers.
    pub(super) fn receive_layered(&mut self, input: &Buffer, turn: &Turn<'_>) {
        if let Some(packing) = self.packing_mut() {
            packing.wire.received += u64::from(input.len());
        }
        if self.state != State::Open {
            return;
        }
        match self.session() {
            Some(_) => self.receive_sealed(input.bytes(), turn),
            None => self.go_on_with(input.bytes(), turn),
        }
    }

    /// Goes on with what the peer said, out of TLS if there is any.
    pub(super) fn go_on_with(&mut self, said: &[u8], turn: &Turn<'_>) {
        match self.packing() {
            Some(_) => self.receive_packed(said, turn),
            None => self.answer_plain(said, turn),
        }
    }

    /// Answers plain bytes, and whatever else the layers have to say or have heard.
    pub(super) fn answer_plain(&mut self, plain: &[u8], turn: &Turn<'_>) {
        let length = plain.len() as u64;
        self.received += length;
        let allowed = self.allowance(turn.limits, length);
        // At most their length.
        let answered = usize::try_from(allowed)
            .unwrap_or(usize::MAX)
            .min(plain.len());
        if self.echoes()
            && let Some(layers) = self.layers.as_mut()
        {
            layers.send(&plain[..answered]);
        }
        if !self.flush_layers(turn) {
            return;
        }
        let session = self.session();
        let (has_failed, is_closed) = session.map_or((false, false), |session| {
            (session.has_failed(), session.is_closed())
        });
        if has_failed {
            self.end(Reason::Tls, turn.now + ENDING, turn);
        } else if allowed < length {
            self.end(Reason::Quota, turn.now + ENDING, turn);
        } else {
            if length > 0 && !self.service.is_endless() {
                self.pace(length, turn);
            }
            if is_closed {
                self.end_input(turn);
            }
        }
    }

    /// Owes the peer what its layers have for the wire. `false`: there is no memory for it, and the connection
    /// is closed.
    pub(super) fn flush_layers(&mut self, turn: &Turn<'_>) -> bool {
        let Some(layers) = self.layers.as_mut() else {
            return true;
        };
        let bytes = layers.drain();
        if bytes.is_empty() {
            if self.outbox.owed() == 0 {
                // All of it was said before.
                self.sent += self.plaintext_of(0);
            }
            return true;
        }
        let Some(bytes) = Buffer::keeping_all(bytes, turn.memory) else {
            self.close(Reason::Full, true);
            return false;
        };
        if self.outbox.owed() == 0 && !self.is_behind() {
            self.settle_room(turn.limits);
            self.outbox.begin(bytes);
        } else {
            let pushed = self.outbox.push(bytes, turn.memory);
            self.after_slow(pushed, turn);
        }
        self.state != State::Closing
    }

    /// Sends bytes of ours: as they are, or through the layers.
    pub(super) fn say(&mut self, bytes: Buffer, turn: &Turn<'_>) {
        if let Some(layers) = self.layers.as_mut().filter(|layers| layers.is_sealing()) {
            layers.send(bytes.bytes());
            layers.flush();
            self.flush_layers(turn);
        } else {
            let pushed = self.outbox.push(bytes, turn.memory);
            self.after_slow(pushed, turn);
        }
    }

    /// The peer says no more: it gets what it is owed.
    pub(super) fn begin_flushing(&mut self, turn: &Turn<'_>) {
        self.state = State::Flushing;
        self.answers = false;
        if self.is_sealing() {
            self.set_room(0);
            self.seal(turn);
        }
        self.finish_if_flushed(turn);
    }

    /// Nothing is said after this. To who sent no header yet nothing is said at all.
    pub(super) fn seal(&mut self, turn: &Turn<'_>) {
        if self.awaits_header() {
            return;
        }
        if let Some(packing) = self.packing_mut() {
            packing.codec.close();
        }
        if self.flush_layers(turn)
            && let Some(session) = self.session_mut()
        {
            session.close();
            self.flush_layers(turn);
        }
        if let Some(packing) = self.packing_mut() {
            // It holds nothing any more, and waits for nothing.
            packing.account(turn.memory);
            packing.waits_no_more();
        }
    }

    /// What of `count` bytes that the kernel took is plain, before the outbox hears of it.
    pub(super) fn plaintext_of(&mut self, count: u32) -> u64 {
        let owed = self.outbox.owed();
        let Some(layers) = self.layers.as_mut().filter(|layers| layers.is_sealing()) else {
            return count.into();
        };
        if let Some(packing) = &mut layers.packing {
            packing.wire.sent += u64::from(count);
        }
        layers.taken(count, owed)
    }

    /// Plain bytes that the peer is owed.
    pub(super) fn plaintext_owed(&self) -> u64 {
        match self.layers.as_ref().filter(|layers| layers.is_sealing()) {
            Some(layers) => layers.owed,
            None => self.outbox.owed().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_bytes_are_taken_in_proportion_and_then_whole() {
        let mut layers = Layers {
            owed: 1000,
            ..Layers::default()
        };
        let first = layers.taken(511, 1023);
        assert_eq!(first, 499);
        assert_eq!((first + layers.taken(512, 512), layers.owed), (1000, 0));
        assert_eq!(layers.taken(0, 0), 0);
    }
}
