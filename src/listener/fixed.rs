//! The keys of `[listener.tcp]` that a socket has for good from the moment it is bound.
//!
//! Says which of them differ between two configurations, and which were set at all. Pure; what they do to
//! a socket is `bind`'s.

use crate::config::Tcp;

/// One key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// With the table's name.
    pub(super) name: &'static str,
    /// As the file would say it.
    pub(super) value: String,
    /// Was it left alone?
    pub(super) is_default: bool,
    /// What says the same in a socket unit, systemd.socket(5).
    pub(super) directive: &'static str,
}

/// What a socket was bound with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixed([Key; 5]);

impl Fixed {
    /// What it would be bound with now.
    pub fn of(tcp: &Tcp) -> Fixed {
        let switch = |name, value: bool, directive| Key {
            name,
            value: value.to_string(),
            is_default: !value,
            directive,
        };
        let interface = tcp.interface.as_deref();
        Fixed([
            Key {
                name: "tcp.interface",
                value: format!("{:?}", interface.unwrap_or("off")),
                is_default: interface.is_none(),
                directive: "BindToDevice=",
            },
            switch("tcp.freebind", tcp.freebind, "FreeBind="),
            switch("tcp.v6only", tcp.v6only, "BindIPv6Only="),
            switch("tcp.reuse_port", tcp.reuse_port, "ReusePort="),
            switch("tcp.multipath", tcp.multipath, "SocketProtocol=mptcp"),
        ])
    }

    /// The keys that are otherwise in `other`, in the order of the schema.
    pub fn differing(&self, other: &Fixed) -> Vec<&'static str> {
        let pairs = self.0.iter().zip(&other.0);
        pairs
            .filter(|(ours, theirs)| ours.value != theirs.value)
            .map(|(ours, _)| ours.name)
            .collect()
    }

    /// The keys that were set.
    pub(super) fn into_set(self) -> impl Iterator<Item = Key> {
        self.0.into_iter().filter(|key| !key.is_default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::testing::listener;

    #[test]
    fn every_key_that_differs_is_named() {
        let plain = listener("echo", &[]).tcp;
        let fixed = Fixed::of(&plain);
        assert_eq!(fixed.differing(&fixed), [""; 0]);
        let other = Tcp {
            interface: Some("lo".to_owned()),
            freebind: true,
            v6only: true,
            reuse_port: true,
            multipath: true,
            ..plain
        };
        let names = [
            "tcp.interface",
            "tcp.freebind",
            "tcp.v6only",
            "tcp.reuse_port",
            "tcp.multipath",
        ];
        assert_eq!(fixed.differing(&Fixed::of(&other)), names);
        let set: Vec<_> = Fixed::of(&other).into_set().map(|key| key.name).collect();
        assert_eq!(set, names);
        assert_eq!(fixed.into_set().count(), 0);
    }
}
