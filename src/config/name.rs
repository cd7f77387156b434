//! Names and addresses as the file and the command line write them.
//!
//! Pure: no name is looked up, here or anywhere else.

use std::net::{IpAddr, SocketAddr};

use serde::de::SeqAccess;

use super::value::{List, Setting, Value, Wrong, read_list, wrong_kind};
use super::{Engine, Facility, Level, PeerForm, Records, RefusalForm, Service, Target};

/// Longest name of a listener; systemd allows a descriptor's name 255.
const LISTENER_NAME_MAX: usize = 32;

/// Longest name of a user or group: utmp's, which `useradd` keeps to.
const ACCOUNT_NAME_MAX: usize = 32;

/// Longest `instance` and `contact`: a line of whoami stays one.
const LINE_MAX: usize = 128;

/// Longest name of an interface, the kernel's `IFNAMSIZ` without its zero.
const DEVICE_NAME_MAX: usize = 15;

/// Longest name of a congestion control, the kernel's `TCP_CA_NAME_MAX` without its zero.
const ALGORITHM_NAME_MAX: usize = 15;

/// A few words for people, or none.
#[derive(Clone, Debug)]
pub(super) struct Line(pub(super) String);

impl Value for Line {
    fn noun() -> String {
        "a line of text".into()
    }

    fn example() -> String {
        format!("write at most {LINE_MAX} bytes of visible text")
    }

    fn from_text(text: &str) -> Result<Self, Wrong> {
        // What is printed again has to be TOML without escapes.
        let is_visible = |c: char| !c.is_control() && c != '"' && c != '\\';
        if text.len() <= LINE_MAX && text.chars().all(is_visible) {
            Ok(Self(text.into()))
        } else {
            Err(wrong_kind::<Self>())
        }
    }
}

/// The name of a network interface.
#[derive(Clone, Debug)]
pub(super) struct Device(pub(super) String);

impl Value for Device {
    fn noun() -> String {
        "the name of an interface".into()
    }

    fn example() -> String {
        "write a name such as \"eth0\"; see: ip link".into()
    }

    fn from_text(text: &str) -> Result<Self, Wrong> {
        let known = |byte: u8| byte.is_ascii_graphic() && !b"/:\"\\".contains(&byte);
        let fits = (1..=DEVICE_NAME_MAX).contains(&text.len());
        if fits && text.bytes().all(known) && text != "." && text != ".." {
            Ok(Self(text.into()))
        } else {
            Err(wrong_kind::<Self>())
        }
    }
}

/// The name of a congestion control.
#[derive(Clone, Debug)]
pub(super) struct Algorithm(pub(super) String);

impl Value for Algorithm {
    fn noun() -> String {
        "the name of a congestion control".into()
    }

    fn example() -> String {
        "write a name such as \"bbr\"; see: sysctl net.ipv4.tcp_allowed_congestion_control".into()
    }

    fn from_text(text: &str) -> Result<Self, Wrong> {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        if (1..=ALGORITHM_NAME_MAX).contains(&text.len()) && text.bytes().all(known) {
            Ok(Self(text.into()))
        } else {
            Err(wrong_kind::<Self>())
        }
    }
}

/// A listener's name.
#[derive(Clone, Debug)]
pub(super) struct Name(pub(super) String);

impl Value for Name {
    fn noun() -> String {
        "a listener's name".into()
    }

    fn example() -> String {
        format!("write 1 to {LISTENER_NAME_MAX} of a-z, 0-9 and -")
    }

    fn from_text(text: &str) -> Result<Self, Wrong> {
        let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if (1..=LISTENER_NAME_MAX).contains(&text.len()) && text.bytes().all(known) {
            Ok(Self(text.into()))
        } else {
            Err(wrong_kind::<Self>())
        }
    }
}

/// The name of a user or a group.
#[derive(Clone, Debug)]
pub(super) struct Account(pub(super) String);

impl Value for Account {
    fn noun() -> String {
        "the name of an account".into()
    }

    fn example() -> String {
        "write a name such as \"echod\"".into()
    }

    fn from_text(text: &str) -> Result<Self, Wrong> {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let first = text.bytes().next().unwrap_or(b'-');
        // A number may mean an id to one tool and a name to the next, so neither is taken.
        let begins_well = first.is_ascii_alphabetic() || first == b'_';
        if begins_well && text.len() <= ACCOUNT_NAME_MAX && text.bytes().all(known) {
            Ok(Self(text.into()))
        } else {
            Err(wrong_kind::<Self>())
        }
    }
}

/// An address and a port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Address(pub(super) SocketAddr);

impl Value for Address {
    fn noun() -> String {
        "an address and a port".into()
    }

    fn example() -> String {
        "write \"192.0.2.1:8080\" or \"[2001:db8::1]:8080\"".into()
    }

    fn from_text(text: &str) -> Result<Self, Wrong> {
        parse_address(text).map(Self)
    }
}

/// Reads `ADDR:PORT`, and says which half is wrong.
pub(crate) fn parse_address(text: &str) -> Result<SocketAddr, Wrong> {
    let wrong = |what: &str| Wrong::new(what, Address::example());
    if let Ok(address) = text.parse::<SocketAddr>() {
        return match address.ip() {
            ip if ip.is_multicast() => Err(wrong("a multicast address, and TCP has two ends")),
            _ => Ok(address),
        };
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Err(match ip {
            IpAddr::V4(_) => wrong("has no port"),
            IpAddr::V6(_) => wrong("an IPv6 address needs brackets and a port"),
        });
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(wrong("not an address and a port"));
    };
    let ip = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host_is_good = format!("{host}:0").parse::<SocketAddr>().is_ok();
    let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    match (host_is_good, is_number) {
        (true, true) => Err(wrong("the port is not between 0 and 65535")),
        (true, false) => Err(wrong("the port is not a number")),
        (false, _) if host.is_empty() => Err(Wrong::new(
            "has no address",
            "write \"[::]:8080\" for every address",
        )),
        (false, _) if ip.is_some_and(|ip| ip.contains('%')) => Err(Wrong::new(
            "an interface is given by its number",
            "write \"[fe80::1%2]:8080\", with the number that \"ip link\" shows",
        )),
        (false, _) if ip.is_some() => Err(wrong("between the brackets is no IPv6 address")),
        (false, _) => Err(wrong("not an IP address, and names are not looked up")),
    }
}

/// A listener's addresses: one, or a list.
#[derive(Clone, Debug)]
pub(super) struct Addresses(pub(super) Vec<Setting<Address>>);

impl Value for Addresses {
    fn noun() -> String {
        "an address or a list of them".into()
    }

    fn example() -> String {
        "write [\"[::]:8080\"]".into()
    }

    fn from_text(text: &str) -> Result<Self, Wrong> {
        Ok(Self(vec![Setting::unset(Address::from_text(text)?)]))
    }

    fn from_list<'de, A: SeqAccess<'de>>(list: A) -> Result<Result<Self, Wrong>, A::Error> {
        let List(addresses) = read_list(list)?;
        Ok(if addresses.is_empty() {
            Err(Wrong::new("no address at all", Self::example()))
        } else {
            Ok(Self(addresses))
        })
    }
}

/// Whether two sockets cannot be bound to these at once; with each, whether it is `v6only`.
///
/// `[::]` takes IPv4 as well, unless it is. Port 0 is a new one each time.
pub fn overlap(
    (one, one_v6only): (SocketAddr, bool),
    (other, other_v6only): (SocketAddr, bool),
) -> bool {
    if one.port() != other.port() || one.port() == 0 {
        return false;
    }
    let scope = |address: SocketAddr| match address {
        SocketAddr::V6(v6) => v6.scope_id(),
        SocketAddr::V4(_) => 0,
    };
    let covers = |wide: SocketAddr, v6only: bool, narrow: SocketAddr| match wide.ip() {
        IpAddr::V6(ip) => ip.is_unspecified() && !(v6only && narrow.is_ipv4()),
        IpAddr::V4(ip) => ip.is_unspecified() && narrow.ip().to_canonical().is_ipv4(),
    };
    let equal = one.ip().to_canonical() == other.ip().to_canonical()
        // Without a scope an address means any interface that has it.
        && (scope(one) == scope(other) || scope(one) == 0 || scope(other) == 0);
    equal || covers(one, one_v6only, other) || covers(other, other_v6only, one)
}

macro_rules! words {
    ($type:ty, $($word:literal => $meaning:expr),+ $(,)?) => {
        impl super::value::Words for $type {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, $meaning)),+];
        }
    };
}

words!(Engine, "epoll" => Engine::Epoll, "io_uring" => Engine::IoUring, "auto" => Engine::Auto);
words!(Target, "syslog" => Target::Syslog, "journal" => Target::Journal, "stderr" => Target::Stderr);
words!(Level, "error" => Level::Error, "warning" => Level::Warning, "info" => Level::Info, "debug" => Level::Debug);
words!(Records, "both" => Records::Both, "ended" => Records::Ended, "failed" => Records::Failed, "none" => Records::None);
words!(PeerForm, "full" => PeerForm::Full, "prefix" => PeerForm::Prefix);
words!(Service,
    "echo" => Service::Echo, "discard" => Service::Discard, "chargen" => Service::Chargen,
    "daytime" => Service::Daytime, "time" => Service::Time, "whoami" => Service::Whoami,
);
words!(RefusalForm, "reset" => RefusalForm::Reset, "say" => RefusalForm::Say);

// RFC 3164's codes, times eight. `kern` is missing: it is the kernel's, and syslog(3) takes it for none.
words!(Facility,
    "user" => Facility(8), "mail" => Facility(16), "daemon" => Facility(24),
    "auth" => Facility(32), "syslog" => Facility(40), "lpr" => Facility(48),
    "news" => Facility(56), "uucp" => Facility(64), "cron" => Facility(72),
    "authpriv" => Facility(80), "ftp" => Facility(88),
    "local0" => Facility(128), "local1" => Facility(136), "local2" => Facility(144),
    "local3" => Facility(152), "local4" => Facility(160), "local5" => Facility(168),
    "local6" => Facility(176), "local7" => Facility(184),
);

#[cfg(test)]
mod tests {
    use super::*;

    fn what(text: &str) -> String {
        parse_address(text).map_or_else(|wrong| wrong.what, |address| address.to_string())
    }

    fn overlaps(one: &str, other: &str) -> bool {
        let read = |text| parse_address(text).ok();
        let both = read(one).zip(read(other));
        both.is_some_and(|(one, other)| {
            let (one, other) = ((one, false), (other, false));
            overlap(one, other) && overlap(other, one)
        })
    }

    #[test]
    fn a_wrong_address_says_which_half_is_wrong() {
        assert_eq!(what("[::]:70000"), "the port is not between 0 and 65535");
        assert_eq!(what("[::]:65536"), "the port is not between 0 and 65535");
        assert_eq!(what("[::]:65535"), "[::]:65535");
        assert_eq!(what("127.0.0.1:0"), "127.0.0.1:0");
        assert_eq!(what("127.0.0.1:http"), "the port is not a number");
        assert_eq!(what("127.0.0.1:"), "the port is not a number");
        assert_eq!(what("127.0.0.1"), "has no port");
        assert_eq!(what("::1"), "an IPv6 address needs brackets and a port");
        assert_eq!(what(":8080"), "has no address");
        assert_eq!(what("[:::]:80"), "between the brackets is no IPv6 address");
        assert!(what("[fe80::1%eth0]:80").contains("by its number"));
        assert_eq!(what("8080"), "not an address and a port");
        assert!(what("localhost:7").contains("names are not looked up"));
        assert!(what("224.0.0.1:7").contains("multicast"));
    }

    #[test]
    fn addresses_overlap_where_a_second_bind_would_fail() {
        assert!(overlaps("127.0.0.1:7", "127.0.0.1:7"));
        assert!(overlaps("0.0.0.0:7", "127.0.0.1:7"));
        assert!(overlaps("[::]:7", "0.0.0.0:7"));
        assert!(overlaps("[::]:7", "192.0.2.1:7"));
        assert!(overlaps("[::ffff:192.0.2.1]:7", "192.0.2.1:7"));
        assert!(overlaps("[fe80::1%2]:7", "[fe80::1]:7"));
    }

    #[test]
    fn addresses_that_can_be_bound_together_do_not_overlap() {
        assert!(!overlaps("127.0.0.1:7", "[::1]:7"));
        assert!(!overlaps("0.0.0.0:7", "[::1]:7"));
        assert!(!overlaps("127.0.0.1:7", "127.0.0.1:8"));
        assert!(!overlaps("[::]:0", "[::]:0"));
        assert!(!overlaps("[fe80::1%2]:7", "[fe80::1%3]:7"));
    }

    #[test]
    fn a_wildcard_that_takes_no_ipv4_leaves_it_to_others() {
        let read = |text| parse_address(text).ok();
        let both = read("[::]:7").zip(read("0.0.0.0:7"));
        assert!(both.is_some_and(|(v6, v4)| !overlap((v6, true), (v4, false))));
        assert!(both.is_some_and(|(v6, v4)| !overlap((v4, true), (v6, true))));
        assert!(both.is_some_and(|(v6, _)| overlap((v6, true), (v6, true))));
    }

    #[test]
    fn names_are_short_and_plain() {
        assert!(Name::from_text(&"a".repeat(32)).is_ok());
        assert!(Name::from_text(&"a".repeat(33)).is_err());
        for text in ["", "Echo", "e_cho", "é", "a b"] {
            assert!(Name::from_text(text).is_err(), "{text}");
        }
        assert!(Account::from_text(&"a".repeat(32)).is_ok());
        assert!(Account::from_text(&"a".repeat(33)).is_err());
        for text in ["", "0", "-x", "a b", "a:b"] {
            assert!(Account::from_text(text).is_err(), "{text}");
        }
        assert!(Device::from_text(&"a".repeat(15)).is_ok());
        for text in ["", &"a".repeat(16), "..", "a/b", "a b", "é"] {
            assert!(Device::from_text(text).is_err(), "{text}");
        }
        assert!(Algorithm::from_text(&"a".repeat(15)).is_ok());
        for text in ["", &"a".repeat(16), "a.b", "bbr "] {
            assert!(Algorithm::from_text(text).is_err(), "{text}");
        }
        assert!(Line::from_text("").is_ok() && Line::from_text(&"a".repeat(128)).is_ok());
        for text in [&"a".repeat(129), "a\nb", "a\"b", "a\\b"] {
            assert!(Line::from_text(text).is_err(), "{text}");
        }
    }
}
