//! What lies between the wire and a service: a header, TLS. Most connections have nothing there.
//!
//! In this order: a header comes before all else, TLS is next to the wire. What a peer is owed lies below
//! the layers, as it goes on the wire; what of that is its service's plaintext is counted here.

use super::preface::Preface;
use super::{Connection, Limits};
use crate::tls::Session;

/// The layers of one connection; boxed, so that the many without any pay eight bytes.
#[derive(Debug, Default)]
pub(super) struct Layers {
    /// A header comes first, or came.
    pub(super) preface: Option<Preface>,
    /// Its peer speaks TLS.
    session: Option<Box<Session>>,
    /// Plaintext that was answered and that the kernel has not taken yet.
    owed: u64,
}

impl Layers {
    /// What a listener puts in front of its service.
    pub(super) fn of(limits: &Limits) -> Option<Box<Layers>> {
        let identity = limits.tls.as_ref()?;
        Some(Box::new(Layers {
            session: Some(Box::new(Session::new(identity))),
            ..Layers::default()
        }))
    }

    /// Passes plaintext for the peer through them.
    pub(super) fn send(&mut self, plaintext: &[u8]) {
        if let Some(session) = &mut self.session
            && session.send(plaintext)
        {
            self.owed += plaintext.len() as u64;
        }
    }

    /// Is what goes on the wire another thing than what is said?
    fn is_sealing(&self) -> bool {
        self.session.is_some()
    }

    /// The kernel took `count` of `owed` bytes: the plaintext in them, which is in proportion until all of it is
    /// taken.
    fn taken(&mut self, count: u32, owed: u32) -> u64 {
        let taken = match owed {
            0 => 0,
            owed if count >= owed => self.owed,
            // Below `self.owed`.
            owed => u64::try_from(u128::from(self.owed) * u128::from(count) / u128::from(owed))
                .unwrap_or(self.owed),
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

    /// Is what its peer says sent back as it is, by a service that answers?
    pub(super) fn is_bare(&self) -> bool {
        self.service.answers() && self.session().is_none()
    }

    /// What of `count` bytes that the kernel took is plaintext, before the outbox hears of it.
    pub(super) fn plaintext_of(&mut self, count: u32) -> u64 {
        let owed = self.outbox.owed();
        match self.layers.as_mut().filter(|layers| layers.is_sealing()) {
            Some(layers) => layers.taken(count, owed),
            None => count.into(),
        }
    }

    /// Plaintext that the peer is owed.
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
    fn plaintext_is_taken_in_proportion_and_then_whole() {
        let mut layers = Layers {
            owed: 1000,
            ..Layers::default()
        };
        let first = layers.taken(511, 1023);
        assert_eq!(first, 499);
        assert_eq!((first + layers.taken(512, 512), layers.owed), (1000, 0));
        assert_eq!(layers.taken(5, 0), 0);
    }
}
