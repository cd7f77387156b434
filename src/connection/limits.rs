//! What holds for the connections of a listener, in peace and under pressure.

use std::sync::Arc;
use std::time::Duration;

use crate::bucket::{Bucket, Rate};
use crate::compression::Terms;
use crate::config::{ByteRate, Pressure};
use crate::service::Service;
use crate::tick::Tick;
use crate::tls::Identity;

/// What holds for all connections of a listener. `None` is off.
#[derive(Clone, Debug)]
pub struct Limits {
    /// What answers.
    pub service: Service,
    /// High water: most bytes owed to a peer.
    pub buffer: u32,
    /// Most bytes, received and sent together; `u64::MAX`: any number.
    pub max_bytes: u64,
    /// What its peers are shown, who speak TLS; `None`: they do not.
    pub tls: Option<Arc<Identity>>,
    /// How its peers compress; `None`: they do not.
    pub compression: Option<Terms>,
    /// From the beginning to the end of what comes before the service.
    pub handshake: Option<Duration>,
    /// From the beginning, or the end of what comes before the service, to the first byte.
    pub first_byte: Option<Duration>,
    /// Without a byte from the peer, while nothing is owed.
    pub idle: Option<Duration>,
    /// From the beginning to the end.
    pub lifetime: Option<Duration>,
    /// We owe bytes and the peer takes none.
    pub stall: Option<Duration>,
    /// `tcp.user_timeout`: the kernel ends a connection by itself whose peer takes none of what lies in its
    /// queue for so long.
    pub user_timeout: Option<Duration>,
    /// Least bytes, both ways together, in each unit of time.
    pub progress: Option<ByteRate>,
    /// Set with [`Limits::with_rates`].
    pub rates: Rates,
    /// Set while the daemon drains, or the listener is removed.
    pub drain: Option<Drain>,
}

/// How connections end that would not end by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// A peer that is owed nothing and has sent nothing for so long gets our FIN.
    pub idle: Duration,
    /// How long we read after it: [`PARTING`](super::PARTING), or [`DRAIN_PARTING`](super::DRAIN_PARTING) if somebody waits for the end.
    pub parting: Duration,
    /// Whatever it is doing, a peer gets our FIN then, and a reset [`DRAIN_RESET`](super::DRAIN_RESET) later.
    pub until: Tick,
}

/// How fast bytes may go, and the most of one receive that comes of it.
#[derive(Clone, Debug)]
pub struct Rates {
    pub(super) source: Option<Rate>,
    pub(super) total: Option<(Rate, Arc<Bucket>)>,
    /// `u32::MAX`: there is no rate.
    chunk: u32,
}

impl Default for Rates {
    fn default() -> Self {
        Rates {
            source: None,
            total: None,
            chunk: u32::MAX,
        }
    }
}

impl Limits {
    /// Nothing is bounded but what a peer may be owed.
    pub fn unbounded(service: Service, buffer: u32) -> Limits {
        Limits {
            service,
            buffer,
            max_bytes: u64::MAX,
            tls: None,
            compression: None,
            handshake: None,
            first_byte: None,
            idle: None,
            lifetime: None,
            stall: None,
            user_timeout: None,
            progress: None,
            rates: Rates::default(),
            drain: None,
        }
    }

    /// These, and bytes of all connections of one source, and of all of the listener, no faster than so.
    #[must_use]
    pub fn with_rates(
        mut self,
        source: Option<Rate>,
        total: Option<(Rate, Arc<Bucket>)>,
    ) -> Limits {
        let all = source
            .into_iter()
            .chain(total.as_ref().map(|(rate, _)| *rate));
        let chunk = all.map(Rate::chunk).min().unwrap_or(u32::MAX);
        self.rates = Rates {
            source,
            total,
            chunk,
        };
        self
    }

    /// These, and what pressure makes stricter of them.
    #[must_use]
    pub fn under(&self, pressure: &Pressure) -> Limits {
        let stricter = |own: Option<Duration>, pressed: Option<Duration>| match (own, pressed) {
            (Some(own), Some(pressed)) => Some(own.min(pressed)),
            (own, pressed) => own.or(pressed),
        };
        Limits {
            idle: stricter(self.idle, pressure.idle),
            stall: stricter(self.stall, pressure.stall),
            progress: pressure.progress,
            ..self.clone()
        }
    }

    /// Have we to look ourselves whether a peer takes what lies in the kernel's queue? The kernel does not, or
    /// not as soon as we would.
    pub(super) fn looks_into_queue(&self) -> bool {
        match (self.stall, self.user_timeout) {
            (Some(stall), Some(kernel)) => stall < kernel,
            (stall, None) => stall.is_some(),
            (None, _) => false,
        }
    }

    /// Is every byte to be counted before it is answered?
    #[inline(always)]
    pub(super) fn counts_bytes(&self) -> bool {
        self.max_bytes != u64::MAX || self.rates.chunk != u32::MAX
    }

    /// Most bytes that are answered at a time: at a rate few, so that a pause is short.
    pub(super) fn piece(&self) -> u32 {
        self.buffer.min(self.rates.chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_queue_is_looked_into_where_the_kernel_would_end_it_later() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (stall, user_timeout, looks) in [
            (seconds(30), seconds(30), false),
            (seconds(5), seconds(30), true),
            (seconds(5), None, true),
            (None, None, false),
        ] {
            let limits = Limits {
                stall,
                user_timeout,
                ..Limits::unbounded(Service::Echo, 1)
            };
            assert_eq!(
                limits.looks_into_queue(),
                looks,
                "{stall:?} {user_timeout:?}"
            );
        }
    }

    #[test]
    fn pressure_makes_nothing_less_strict() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let pressure = Pressure {
            above: None,
            max_connections_per_source: None,
            idle: seconds(10),
            stall: seconds(5),
            progress: None,
        };
        let limits = |idle, stall| Limits {
            idle,
            stall,
            ..Limits::unbounded(Service::Echo, 1)
        };
        let pressed = limits(seconds(3600), seconds(2)).under(&pressure);
        assert_eq!((pressed.idle, pressed.stall), (seconds(10), seconds(2)));
        let pressed = limits(None, None).under(&pressure);
        assert_eq!((pressed.idle, pressed.stall), (seconds(10), seconds(5)));
    }
}
