//! Why a peer is refused, and what is said of it: to the peer, in its record, and once in a while in a warning. Pure.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::connection::Reason;
use crate::logging::{Event, kind};
use crate::tick::Tick;

/// A warning about the same thing is not said again for so long.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Why a peer was refused: the record's word, and what a warning says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The record's word.
    pub reason: Reason,
    /// The bound that was reached, if it is time to warn of it.
    pub warn: Option<Warning>,
}

impl Refusal {
    /// What a peer hears of it, if it hears anything: `echod refuses: full`.
    pub fn line(&self) -> String {
        format!("echod refuses: {}\r\n", self.reason)
    }
}

/// A bound that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Its key in the configuration.
    pub key: &'static str,
    /// Its value now, where it is a number.
    pub value: Option<u64>,
    /// What can be done.
    pub remedy: &'static str,
}

impl Warning {
    /// What the log says of it.
    pub fn event(&self, listener: &Arc<str>) -> Event {
        let mut event = Event::of(&kind::BOUND_REACHED)
            .with("key", self.key)
            .with("listener", listener);
        if let Some(value) = self.value {
            event = event.with("value", value);
        }
        event.with("remedy", self.remedy)
    }
}

/// When a warning was last said.
#[derive(Debug, Default)]
pub struct Seldom(AtomicU64);

impl Seldom {
    /// Is it time to say it again? Then it counts as said.
    pub fn due(&self, now: Tick) -> bool {
        let due = |said: u64| (said == 0 || now >= Tick(said) + WARN_EVERY).then_some(now.0.max(1));
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, due)
            .is_ok()
    }
}

/// A bound by which a peer can be refused.
#[derive(Clone, Copy, Debug)]
pub(super) enum Full {
    Memory,
    All,
    Listener,
    Worker,
    Source,
    PressedSource,
    Rate,
}

impl Full {
    const COUNT: usize = 7;

    fn key(self) -> &'static str {
        match self {
            Full::Memory => "buffer_memory",
            Full::All => "max_connections",
            Full::Listener => "listener.max_connections",
            Full::Worker => "listener.max_connections_per_worker",
            Full::Source => "listener.max_connections_per_source",
            Full::PressedSource => "pressure.max_connections_per_source",
            Full::Rate => "listener.rate.connections",
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Full::Memory => "raise it, or lower buffer: peers take their answers too slowly",
            Full::All => "raise it, or lower timeout.idle",
            Full::Listener | Full::Worker => "raise it, or lower timeout.idle of this listener",
            Full::Source | Full::PressedSource | Full::Rate => {
                "raise it if the records show one of yours, else leave it so or deny the source in access"
            }
        }
    }
}

/// When a warning about each of these bounds was last said.
#[derive(Debug, Default)]
pub struct Warned([Seldom; Full::COUNT]);

impl Warned {
    /// The refusal by this bound, whose value is now so.
    pub(super) fn refusal(&self, full: Full, value: Option<u64>, now: Tick) -> Refusal {
        let warning = Warning {
            key: full.key(),
            value,
            remedy: full.remedy(),
        };
        Refusal {
            reason: Reason::Full,
            warn: self.0[full as usize].due(now).then_some(warning),
        }
    }
}
