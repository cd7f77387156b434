//! Every way a connection can end, one word each: in the log, the metrics and the manual.

use std::fmt;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $word:literal, $failure:literal;)+) => {
        /// Why a connection ended, or was not begun.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// All reasons, in the order in which they are counted and documented.
            pub const ALL: &[Reason] = &[$(Reason::$name),+];

            /// The word that stands for it everywhere.
            pub const fn word(self) -> &'static str {
                match self { $(Reason::$name => $word),+ }
            }

            /// Did something go wrong? Such records are kept first when there are too many.
            pub const fn is_failure(self) -> bool {
                match self { $(Reason::$name => $failure),+ }
            }
        }
    };
}

reasons! {
    /// The peer closed and was given all that it was owed, or its service had said everything.
    Done = "done", false;
    /// The peer reset the connection.
    Reset = "reset", true;
    /// The peer stopped answering: its host or the path is gone.
    Vanished = "vanished", true;
    /// What comes before the service was not complete after `timeout.handshake`.
    Handshake = "handshake", true;
    /// It has to begin with a PROXY header, and what it sent was none.
    Proxy = "proxy", true;
    /// The peer's TLS failed, or the peer left in the handshake; the record says why.
    Tls = "tls", true;
    /// What it sent is no stream of the listener's compression, or not a whole one; the record says why.
    Compression = "compression", true;
    /// It sent nothing for `timeout.first_byte`.
    FirstByte = "first_byte", true;
    /// It sent nothing for `timeout.idle`.
    Idle = "idle", false;
    /// It lasted for `timeout.lifetime`.
    Lifetime = "lifetime", false;
    /// It was owed bytes and took none for `timeout.stall`.
    Stall = "stall", true;
    /// Under pressure it carried fewer bytes than `pressure.progress` asks for, or it hardly went on in a frame while others
    /// waited for memory.
    Slow = "slow", true;
    /// It carried `max_bytes`.
    Quota = "quota", true;
    /// `access` denies it, or no listener of the configuration claims the socket that it came in by.
    Denied = "denied", true;
    /// A bound on connections, descriptors or memory was reached.
    Full = "full", true;
    /// Its source opened more connections than `rate.connections` allows.
    Rate = "rate", true;
    /// The daemon drained, or its listener was removed.
    Drain = "drain", false;
    /// The daemon stopped at once.
    Stop = "stop", true;
    /// The kernel refused something that should have worked.
    Internal = "internal", true;
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_one_word_and_its_own() {
        let mut words: Vec<_> = Reason::ALL.iter().map(|reason| reason.word()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Reason::ALL.len());
        assert!(
            words
                .iter()
                .all(|word| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
        );
    }
}
