//! Who may come, by address: the longest prefix that has it decides.
//!
//! Pure. Built once for each plan from `[listener.access]`, and asked for each peer.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use crate::config;

/// `[listener.access]`, ready to be asked.
#[derive(Debug, Default)]
pub struct Access {
    /// May they come? By prefix.
    ipv4: PrefixMap<Ipv4Net, bool>,
    ipv6: PrefixMap<Ipv6Net, bool>,
    /// Only those whom a prefix allows.
    is_closed: bool,
}

impl Access {
    /// What the configuration says.
    pub fn new(config: &config::Access) -> Access {
        let mut access = Access {
            is_closed: !config.allow.is_empty(),
            ..Access::default()
        };
        let allow = config.allow.iter().map(|net| (net, true));
        for (net, may) in allow.chain(config.deny.iter().map(|net| (net, false))) {
            match *net {
                IpNet::V4(net) => access.ipv4.insert(net, may),
                IpNet::V6(net) => access.ipv6.insert(net, may),
            };
        }
        access
    }

    /// These and nobody else.
    pub fn only(prefixes: &[IpNet]) -> Access {
        Access::new(&config::Access {
            allow: prefixes.to_vec(),
            deny: Vec::new(),
            reapply: false,
        })
    }

    /// May a peer of this canonical address come?
    pub fn allows(&self, peer: IpAddr) -> bool {
        let decided = match peer {
            IpAddr::V4(peer) => self.ipv4.get_lpm(&peer.into()).map(|(_, may)| *may),
            IpAddr::V6(peer) => self.ipv6.get_lpm(&peer.into()).map(|(_, may)| *may),
        };
        decided.unwrap_or(!self.is_closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(allow: &[&str], deny: &[&str]) -> Access {
        let nets = |texts: &[&str]| {
            let net = |text: &&str| text.parse().expect("a prefix");
            texts.iter().map(net).collect()
        };
        Access::new(&config::Access {
            allow: nets(allow),
            deny: nets(deny),
            reapply: true,
        })
    }

    fn allows(access: &Access, peer: &str) -> bool {
        access.allows(peer.parse().expect("an address"))
    }

    #[test]
    fn the_longest_prefix_decides() {
        let access = access(
            &["10.1.0.0/16", "10.1.2.3/32"],
            &["10.0.0.0/8", "10.1.2.0/24"],
        );
        for (peer, may) in [
            ("10.9.9.9", false),
            ("10.1.9.9", true),
            ("10.1.2.9", false),
            ("10.1.2.3", true),
            ("192.0.2.1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(allows(&access, peer), may, "{peer}");
        }
    }

    #[test]
    fn without_allow_all_may_come_but_those_who_are_denied() {
        let access = access(&[], &["2001:db8::/32", "192.0.2.0/24"]);
        assert!(allows(&access, "2001:db9::1") && allows(&access, "198.51.100.1"));
        assert!(!allows(&access, "2001:db8:1::1") && !allows(&access, "192.0.2.255"));
    }

    #[test]
    fn everybody_may_be_a_prefix_of_its_own() {
        let access = access(&["0.0.0.0/0"], &["::/0"]);
        assert!(allows(&access, "192.0.2.1") && !allows(&access, "2001:db8::1"));
    }
}
