//! Prefixes of addresses, as `[listener.access]` has them.
//!
//! A prefix is written without host bits, so that nobody reads more or less into it than is there; an
//! address alone is a prefix of full length. Pure.

use ipnet::IpNet;
use serde::de::SeqAccess;

use super::value::{List, Setting, Value, Wrong, read_list, wrong_kind};

/// Most prefixes of one list: what fits into the longest file.
pub(super) const PREFIXES_MAX: usize = 50_000;

/// One prefix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prefix(pub(super) IpNet);

impl Value for Prefix {
    fn noun() -> String {
        "an address or a prefix".into()
    }

    fn example() -> String {
        "write \"192.0.2.0/24\", \"2001:db8::/32\" or an address".into()
    }

    fn from_text(text: &str) -> Result<Self, Wrong> {
        let net = match text.parse::<IpNet>() {
            Ok(net) => net,
            Err(_) => IpNet::from(
                text.parse::<std::net::IpAddr>()
                    .map_err(|_| wrong_kind::<Self>())?,
            ),
        };
        if net.trunc() != net {
            return Err(Wrong::new(
                "has bits beyond the prefix",
                format!("write \"{}\"", net.trunc()),
            ));
        }
        if let IpNet::V6(v6) = net
            && v6.addr().to_ipv4_mapped().is_some()
        {
            return Err(Wrong::new(
                "an IPv4 peer is IPv4 here, whatever socket it comes by",
                "write it as IPv4",
            ));
        }
        Ok(Self(net))
    }
}

/// A list of them, each with its place.
#[derive(Clone, Debug)]
pub(super) struct Prefixes(pub(super) Vec<Setting<Prefix>>);

impl Value for Prefixes {
    fn noun() -> String {
        "a list of prefixes".into()
    }

    fn example() -> String {
        "write [\"192.0.2.0/24\", \"2001:db8::/32\"]".into()
    }

    fn from_list<'de, A: SeqAccess<'de>>(list: A) -> Result<Result<Self, Wrong>, A::Error> {
        let List(prefixes) = read_list(list)?;
        Ok(if prefixes.len() > PREFIXES_MAX {
            Err(Wrong::new(
                format!("more than {PREFIXES_MAX} prefixes"),
                "a firewall does that better",
            ))
        } else {
            Ok(Self(prefixes))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        Prefix::from_text(text).map_or_else(|wrong| wrong.what, |prefix| prefix.0.to_string())
    }

    #[test]
    fn a_prefix_has_no_bits_beyond_its_length() {
        assert_eq!(read("192.0.2.0/24"), "192.0.2.0/24");
        assert_eq!(read("192.0.2.7"), "192.0.2.7/32");
        assert_eq!(read("2001:db8::1"), "2001:db8::1/128");
        assert_eq!(read("0.0.0.0/0"), "0.0.0.0/0");
        assert_eq!(read("192.0.2.7/24"), "has bits beyond the prefix");
        for text in [
            "",
            "192.0.2.0/33",
            "localhost",
            "192.0.2",
            "::/129",
            "[::1]",
        ] {
            assert_eq!(read(text), "not an address or a prefix", "{text}");
        }
        assert!(read("::ffff:192.0.2.0/120").starts_with("an IPv4 peer is IPv4"));
    }
}
