//! `[listener.proxy_protocol]`: the balancers whose word about a peer's address is taken.
//!
//! They are named, and never everybody: whoever is one says who they are, and access, bounds and records believe it. Pure.

use serde::Deserialize;

use super::ProxyProtocol;
use super::access::Prefixes;
use super::validate::Judge;
use super::value::Setting;

/// What the table may say.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(super) struct Written {
    pub(super) trusted: Setting<Prefixes>,
}

impl Default for Written {
    fn default() -> Self {
        Self {
            trusted: Setting::unset(Prefixes(Vec::new())),
        }
    }
}

impl Judge<'_> {
    pub(super) fn proxy_protocol(
        &mut self,
        prefix: &str,
        written: Written,
    ) -> Option<ProxyProtocol> {
        let key = format!("{prefix}trusted");
        let trusted = self.prefixes(&key, written.trusted)?;
        for (net, span) in trusted.iter().filter(|(net, _)| net.prefix_len() == 0) {
            self.problem(
                span.clone(),
                format!("{key}: {net} lets everybody say who they are"),
                "name the addresses of the balancers",
            );
        }
        Some(ProxyProtocol {
            trusted: trusted.into_iter().map(|(net, _)| net).collect(),
        })
    }
}
