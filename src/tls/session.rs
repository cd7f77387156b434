//! One connection's TLS, fed and drained by hand.
//!
//! Ciphertext goes in as it comes, in any cuts, and is plaintext at once; plaintext goes in and is ciphertext at
//! once. So at most one receive's worth of plaintext is here, on its way through, and an idle session holds
//! nothing but its keys. What a failure has to tell the peer is ciphertext like any other, to be sent before the
//! end. Sends and reads nothing itself. Invariant: once it has failed, or either `close_notify` was said, it
//! takes nothing in.

use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{CommonState, ProtocolVersion};

use super::certificate;
use super::choice;
use super::identity::Identity;
use super::words;
use crate::buffer::{Charge, Memory};

/// Bytes that a record takes besides its plaintext, at most.
const RECORD_EXTRA: usize = 64;

/// The least by which room for a record that has not come whole grows.
const GROWTH: usize = 2048;

/// Most plaintext of one record.
const RECORD_MAX: usize = 16 * 1024;

/// One connection's TLS.
pub struct Session {
    tls: UnbufferedServerConnection,
    /// A record of the peer's that has not come whole, or a message of its handshake.
    partial: Vec<u8>,
    /// Counts it.
    charge: Option<Charge>,
    /// Ciphertext that was not drained yet.
    sealed: Vec<u8>,
    /// The name that the peer asked for.
    asked: Option<Box<str>>,
    /// What the peer said before the first words of its service were said.
    held: Vec<u8>,
    /// Why it failed, in words.
    failure: Option<String>,
    /// Anything has come.
    heard: bool,
    /// Ours was said.
    is_last_said: bool,
    /// The peer's `close_notify` has come.
    closed: bool,
    /// The peer's FIN came without one.
    truncated: bool,
}

/// What both ends agreed on, for those who want to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// `1.3`; `None`: they agreed on nothing.
    pub version: Option<&'static str>,
    /// As IANA has it.
    pub cipher: Option<String>,
    /// Of the key exchange.
    pub group: Option<String>,
    /// The name that the peer asked for.
    pub sni: Option<String>,
    /// What it wants to speak.
    pub alpn: Option<String>,
    /// The first name of its certificate.
    pub client: Option<String>,
    /// Why it failed.
    pub cause: Option<String>,
    /// The peer left without a `close_notify`.
    pub truncated: bool,
}

impl Session {
    /// At the beginning of the handshake.
    ///
    /// # Panics
    /// Never: what can be wrong with a configuration was found when it was loaded.
    pub fn new(identity: &Identity) -> Session {
        let tls = UnbufferedServerConnection::new(identity.config())
            .expect("a configuration that was loaded is one that serves");
        Session {
            tls,
            partial: Vec::new(),
            charge: None,
            sealed: Vec::new(),
            asked: None,
            held: Vec::new(),
            failure: None,
            heard: false,
            is_last_said: false,
            closed: false,
            truncated: false,
        }
    }

    /// Takes the peer's bytes in, and puts what they say behind `plaintext`. Afterwards
    /// [`Session::drain`] has what the handshake, or a failure, answers.
    pub fn receive(&mut self, ciphertext: &[u8], plaintext: &mut Vec<u8>) {
        self.heard |= !ciphertext.is_empty();
        if self.is_over() {
            return;
        }
        let was_handshaking = self.is_handshaking();
        let mut incoming = std::mem::take(&mut self.partial);
        // No more than it needs, and yet not a copy for each byte of somebody who sends them one by one.
        incoming.reserve_exact(ciphertext.len().max(GROWTH));
        incoming.extend_from_slice(ciphertext);
        let from = self.process(&mut incoming, plaintext);
        // What is idle keeps nothing, and what waits for more no more than that.
        if !self.is_over() && from < incoming.len() {
            self.partial = match from {
                0 => incoming,
                from => incoming[from..].to_vec(),
            };
        }
        if was_handshaking {
            self.asked = choice::asked().or(self.asked.take());
        }
    }

    /// Goes through records until there is none that is whole, and answers where the rest begins.
    fn process(&mut self, incoming: &mut [u8], plaintext: &mut Vec<u8>) -> usize {
        let mut from = 0;
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.tls.process_tls_records(&mut incoming[from..]);
            let goes_on = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        plaintext.extend_from_slice(record.payload);
                        discard += record.discard;
                    }
                    true
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    let encode = |to: &mut [u8]| match data.encode(to) {
                        Ok(count) => Ok(count),
                        Err(EncodeError::InsufficientSize(error)) => Err(error.required_size),
                        Err(EncodeError::AlreadyEncoded) => Ok(0),
                    };
                    append(&mut self.sealed, 0, encode);
                    true
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    true
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.closed = true;
                    true
                }
                Ok(_) => false,
                Err(error) => {
                    self.failure = Some(words::failure(&error));
                    true
                }
            };
            from += discard;
            if self.failure.is_some() {
                // What follows is not looked at: nothing but what is left to be said, the alert at last.
                from = incoming.len();
            }
            if !goes_on || self.failure.is_some() && !self.tls.wants_write() {
                return from;
            }
        }
    }

    /// Takes plaintext for the peer in: it is ciphertext in [`Session::drain`]. Nothing before the handshake is done, or
    /// after [`Session::close`]: then it answers `false`.
    pub fn send(&mut self, plaintext: &[u8]) -> bool {
        if self.is_handshaking() || self.is_last_said || plaintext.is_empty() {
            return false;
        }
        let expected = plaintext.len() + (plaintext.len() / RECORD_MAX + 2) * RECORD_EXTRA;
        self.write(expected, |traffic, to| traffic.encrypt(plaintext, to))
    }

    /// Our `close_notify`: nothing is sent after it. In a handshake there is none.
    pub fn close(&mut self) {
        if self.failure.is_none() && !self.is_last_said && !self.is_handshaking() {
            self.write(RECORD_EXTRA, |traffic, to| traffic.queue_close_notify(to));
        }
        self.is_last_said = true;
        // Nobody will ask for it any more.
        self.held = Vec::new();
    }

    /// Has the library write about so many bytes of ciphertext. `false`: it does not write any more.
    fn write<W>(&mut self, expected: usize, mut write: W) -> bool
    where
        W: FnMut(&mut Traffic<'_>, &mut [u8]) -> Result<usize, EncryptError>,
    {
        let UnbufferedStatus { state, .. } = self.tls.process_tls_records(&mut self.partial);
        let Ok(ConnectionState::WriteTraffic(mut traffic)) = state else {
            return false;
        };
        let write = |to: &mut [u8]| match write(&mut traffic, to) {
            Ok(count) => Ok(count),
            Err(EncryptError::InsufficientSize(error)) => Err(error.required_size),
            Err(EncryptError::EncryptExhausted) => Ok(0),
        };
        append(&mut self.sealed, expected, write) > 0
    }

    /// Has what waits for the rest of its record counted against `memory`. `false`: it does not hold it.
    pub fn account(&mut self, memory: &Arc<Memory>) -> bool {
        // What was counted before is given back first: it may be the same.
        self.charge = None;
        if !self.partial.is_empty() {
            self.charge = memory.charge(self.partial.capacity());
        }
        self.charge.is_some() || self.partial.is_empty()
    }

    /// All ciphertext that is to be sent.
    pub fn drain(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.sealed)
    }

    /// Keeps what the peer said until first words are said.
    pub fn hold(&mut self, plaintext: &[u8]) {
        self.held.extend_from_slice(plaintext);
    }

    /// What was held.
    pub fn held(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    /// Is the handshake not done yet?
    pub fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// Has it failed?
    pub fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Has the peer said that it says no more?
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// The peer's FIN. Answers whether it is the end of something that was begun well; without a
    /// `close_notify` before it, it is noted.
    pub fn peer_closed(&mut self) -> bool {
        if self.is_handshaking() && self.heard && !self.closed && self.failure.is_none() {
            self.failure = Some("the peer left in the handshake".into());
        }
        self.truncated = !self.closed && !self.is_handshaking();
        self.failure.is_none()
    }

    fn is_over(&self) -> bool {
        // What comes after our own end is nobody's to answer, and the library takes a mistake in it for ours.
        self.closed || self.failure.is_some() || self.is_last_said
    }

    /// What both ends agreed on so far.
    pub fn facts(&self) -> Facts {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let client = self.tls.peer_certificates().and_then(<[_]>::first);
        Facts {
            version: self.tls.protocol_version().and_then(version),
            cipher: self
                .tls
                .negotiated_cipher_suite()
                .map(|suite| words::cipher(suite.suite())),
            group: self
                .tls
                .negotiated_key_exchange_group()
                .map(|group| words::group(group.name())),
            sni: self.asked.as_deref().map(str::to_owned),
            alpn: self.tls.alpn_protocol().map(text),
            client: client.and_then(|der| certificate::name_of(der)),
            cause: self.failure.clone(),
            truncated: self.truncated,
        }
    }
}

/// What seals the plaintext.
type Traffic<'a> = WriteTraffic<'a, rustls::server::ServerConnectionData>;

/// Has something written behind `bytes`, which has to say how much room it needs, and answers how much it wrote.
fn append(
    bytes: &mut Vec<u8>,
    expected: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, usize>,
) -> usize {
    let from = bytes.len();
    bytes.resize(from + expected, 0);
    let written = match write(&mut bytes[from..]) {
        Ok(count) => count,
        Err(required) => {
            bytes.resize(from + required, 0);
            write(&mut bytes[from..]).unwrap_or(0)
        }
    };
    bytes.truncate(from + written);
    written
}

fn version(version: ProtocolVersion) -> Option<&'static str> {
    match version {
        ProtocolVersion::TLSv1_2 => Some("1.2"),
        ProtocolVersion::TLSv1_3 => Some("1.3"),
        _ => None,
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tls: &CommonState = &self.tls;
        formatter
            .debug_struct("Session")
            .field("handshaking", &tls.is_handshaking())
            .field("failure", &self.failure)
            .finish_non_exhaustive()
    }
}
