//! What the configuration of a listener means for its connections.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::Served;
use crate::bucket::Rate;
use crate::config::RefusalForm;
use crate::connection::Limits;
use crate::worker::access::Access;
use crate::worker::gate::Rules;

impl Served {
    /// Puts the bounds of the configuration in force.
    pub(super) fn set_bounds(&self) {
        let gate = &self.gate;
        gate.bound.set_max(most(self.config.max_connections));
        for worker in &*gate.workers {
            worker.set_max(most(self.config.max_connections_per_worker));
        }
    }

    pub(super) fn rules(&self) -> Rules {
        let config = &self.config;
        let trusted = &config.proxy_protocol.trusted;
        Rules {
            access: Access::new(&config.access),
            balancers: (!trusted.is_empty()).then(|| Access::only(trusted)),
            reapply: config.access.reapply,
            max_per_source: most(config.max_connections_per_source),
            arrivals: config.rate.connections.map(Rate::from),
            says_why: config.refusal == RefusalForm::Say,
        }
    }

    pub(super) fn limits(&self) -> Limits {
        let config = &self.config;
        let total = config.rate.total_bytes;
        let total = total.map(|rate| (rate.into(), Arc::clone(&self.total)));
        Limits {
            max_bytes: config.max_bytes.unwrap_or(u64::MAX),
            tls: self.tls.clone(),
            compression: config.compression.terms(),
            handshake: config.timeout.handshake,
            first_byte: config.timeout.first_byte,
            idle: config.timeout.idle,
            lifetime: config.timeout.lifetime,
            stall: config.timeout.stall,
            // Multipath TCP has none.
            user_timeout: config.tcp.user_timeout.filter(|_| !config.tcp.multipath),
            ..Limits::unbounded(config.service, config.buffer)
        }
        .with_rates(config.rate.bytes.map(Rate::from), total)
    }
}

/// A bound on connections that may be off.
fn most(bound: Option<NonZeroU32>) -> u32 {
    bound.map_or(u32::MAX, NonZeroU32::get)
}
