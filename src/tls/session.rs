//! One connection's TLS, fed and drained by hand.
//!
//! Ciphertext goes in as it comes, in any cuts, and is plaintext at once; plaintext goes in and is ciphertext at
//! once. So at most one receive's worth of plaintext is here, on its way through, and an idle session holds
//! nothing but its keys. What a failure has to tell the peer is ciphertext like any other, to be sent before the
//! end. Sends and reads nothing itself. Invariant: once it has failed or heard the peer's `close_notify`, it
//! takes nothing in.

use std::io::{Read, Write};

use rustls::{CommonState, ProtocolVersion, ServerConnection};

use super::certificate;
use super::identity::Identity;
use super::words;

/// Bytes that a record takes besides its plaintext, at most.
const RECORD_EXTRA: usize = 64;

/// Most plaintext of one record.
const RECORD_MAX: usize = 16 * 1024;

/// One connection's TLS.
pub struct Session {
    tls: ServerConnection,
    /// Plaintext that is ciphertext now and was not taken yet.
    owed: u64,
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

/// A reader with nothing in it, for now.
struct Nothing;

impl Read for Nothing {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::WouldBlock.into())
    }
}

impl Session {
    /// At the beginning of the handshake.
    ///
    /// # Panics
    /// Never: what can be wrong with a configuration was found when it was loaded.
    pub fn new(identity: &Identity) -> Session {
        let mut tls = ServerConnection::new(identity.config())
            .expect("a configuration that was loaded is one that serves");
        // What goes in is drained before the next.
        tls.set_buffer_limit(None);
        Session {
            tls,
            owed: 0,
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
    pub fn receive(&mut self, mut ciphertext: &[u8], plaintext: &mut Vec<u8>) {
        self.heard |= !ciphertext.is_empty();
        while !ciphertext.is_empty() && !self.is_over() {
            let before = ciphertext.len();
            if self.tls.read_tls(&mut ciphertext).is_err() {
                // A message of the handshake that is longer than any.
                self.failure = Some("a handshake message that does not end".into());
                return;
            }
            let processed = self.tls.process_new_packets();
            match &processed {
                Ok(state) => {
                    self.closed = state.peer_has_closed();
                    let (from, more) = (plaintext.len(), state.plaintext_bytes_to_read());
                    plaintext.resize(from + more, 0);
                    if more > 0
                        && self
                            .tls
                            .reader()
                            .read_exact(&mut plaintext[from..])
                            .is_err()
                    {
                        plaintext.truncate(from);
                    }
                }
                Err(error) => self.failure = Some(words::failure(error)),
            }
            if ciphertext.len() == before {
                return;
            }
        }
        // Gives back what a long record needed.
        let _ = self.tls.read_tls(&mut Nothing);
    }

    /// Takes plaintext for the peer in: it is ciphertext in [`Session::drain`]. Nothing before the handshake is done, or
    /// after [`Session::close`].
    pub fn send(&mut self, plaintext: &[u8]) {
        if self.is_handshaking() || self.is_last_said || plaintext.is_empty() {
            return;
        }
        if self.tls.writer().write_all(plaintext).is_ok() {
            self.owed += plaintext.len() as u64;
        }
    }

    /// Our `close_notify`: nothing is sent after it.
    pub fn close(&mut self) {
        if self.failure.is_none() && !self.is_last_said {
            self.tls.send_close_notify();
        }
        self.is_last_said = true;
    }

    /// All ciphertext that is to be sent.
    pub fn drain(&mut self, expected: usize) -> Vec<u8> {
        if !self.tls.wants_write() {
            return Vec::new();
        }
        let records = expected / RECORD_MAX + 2;
        let mut ciphertext = Vec::with_capacity(expected + records * RECORD_EXTRA);
        while self.tls.wants_write() {
            // A Vec takes all.
            if self.tls.write_tls(&mut ciphertext).is_err() {
                break;
            }
        }
        ciphertext
    }

    /// The kernel took `count` of `owed` bytes of ciphertext: the plaintext in them, which is in proportion until all of it
    /// is taken.
    pub fn taken(&mut self, count: u32, owed: u32) -> u64 {
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

    /// Plaintext that the peer is owed.
    pub fn owed(&self) -> u64 {
        self.owed
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
        self.closed || self.failure.is_some()
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
            sni: self.tls.server_name().map(str::to_owned),
            alpn: self.tls.alpn_protocol().map(text),
            client: client.and_then(|der| certificate::name_of(der)),
            cause: self.failure.clone(),
            truncated: self.truncated,
        }
    }
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
