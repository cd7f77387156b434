//! What the daemon answers; each service is a file of its own.
//!
//! A service is pure: given what it needs, be it the peer's bytes, the time or what the kernel knows of a
//! connection, it returns bytes. It never sees a socket, a clock or another connection.

pub mod chargen;
pub mod daytime;
pub mod discard;
pub mod echo;
pub mod time;
pub mod whoami;

pub use crate::config::Service;

impl Service {
    /// Does it send back what it is sent? Otherwise that is thrown away.
    pub fn answers(self) -> bool {
        matches!(self, Service::Echo | Service::Whoami)
    }

    /// Does it send without end, whatever the peer does?
    pub fn is_endless(self) -> bool {
        self == Service::Chargen
    }

    /// Has it said everything with its first words?
    pub fn is_brief(self) -> bool {
        matches!(self, Service::Daytime | Service::Time)
    }

    /// The longest input that, together with the answer to it, is at most `bytes`.
    pub fn input_within(self, bytes: u64) -> u64 {
        if self.answers() {
            echo::input_within(bytes)
        } else {
            discard::input_within(bytes)
        }
    }
}
