//! Version 1: one line of text, `PROXY TCP4 192.0.2.1 10.0.0.1 50312 7`, and CR LF.
//!
//! As strict as what is sent: one space between two words, numbers without signs or leading zeros, addresses of the family that is named. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Parsed, begins, canonical};

/// Most bytes of the line, with its CR LF: what the longest UNKNOWN line needs.
const LINE_MAX: usize = 107;

const BEGINNING: &[u8] = b"PROXY ";
const UNKNOWN: &[u8] = b"PROXY UNKNOWN";

pub(super) fn parse(bytes: &[u8]) -> Parsed {
    if !begins(bytes, BEGINNING) {
        return Parsed::Wrong("not a PROXY header");
    }
    let start = &bytes[..bytes.len().min(LINE_MAX)];
    let Some(end) = start.windows(2).position(|two| two == b"\r\n") else {
        return if start.len() == LINE_MAX {
            Parsed::Wrong("a line of more than 107 bytes")
        } else if start.contains(&b'\n') && !start.starts_with(UNKNOWN) {
            Parsed::Wrong("a line that does not end with CR LF")
        } else {
            Parsed::More
        };
    };
    let line = &start[..end];
    match line.strip_prefix(UNKNOWN) {
        // What stands behind a space there is to be ignored.
        Some([] | [b' ', ..]) => Parsed::Done {
            source: None,
            length: end + 2,
        },
        Some(_) => Parsed::Wrong("a family that is not TCP4, TCP6 or UNKNOWN"),
        None => match source(&line[BEGINNING.len()..]) {
            Ok(source) => Parsed::Done {
                source: Some(canonical(source)),
                length: end + 2,
            },
            Err(why) => Parsed::Wrong(why),
        },
    }
}

/// What a line of TCP4 or TCP6 brings.
fn source(words: &[u8]) -> Result<SocketAddr, &'static str> {
    let words = std::str::from_utf8(words).map_err(|_| "a line that is not text")?;
    let mut words = words.split(' ');
    let address: fn(&str) -> Option<IpAddr> = match words.next() {
        Some("TCP4") => |word| word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        Some("TCP6") => |word| word.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => return Err("a family that is not TCP4, TCP6 or UNKNOWN"),
    };
    let words: Vec<_> = words.collect();
    let [source, destination, from, to] = words[..] else {
        return Err("not two addresses and two ports, with one space between them");
    };
    let is_wrong = "an address that is none of its family";
    let source = address(source).ok_or(is_wrong)?;
    address(destination).ok_or(is_wrong)?;
    let is_wrong = "a port that is no plain number from 0 to 65535";
    let from = port(from).ok_or(is_wrong)?;
    port(to).ok_or(is_wrong)?;
    Ok(SocketAddr::new(source, from))
}

/// A port as it is written: "+7" and "007" are none.
fn port(word: &str) -> Option<u16> {
    word.parse()
        .ok()
        .filter(|port: &u16| port.to_string() == word)
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    #[test]
    fn a_line_brings_the_source_in_canonical_form() {
        for (line, source) in [
            ("TCP4 192.0.2.1 10.0.0.1 50312 7", "192.0.2.1:50312"),
            ("TCP4 0.0.0.0 255.255.255.255 0 65535", "0.0.0.0:0"),
            ("TCP6 2001:db8::7 ::1 65535 0", "[2001:db8::7]:65535"),
            ("TCP6 2001:DB8:0:0:0:0:0:7 ::1 1 2", "[2001:db8::7]:1"),
            ("TCP6 ::ffff:192.0.2.1 ::1 1 2", "192.0.2.1:1"),
            (
                "TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
                 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535",
                "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
            ),
        ] {
            let line = format!("PROXY {line}\r\n");
            let done = Parsed::Done {
                source: Some(source.parse().expect("an address")),
                length: line.len(),
            };
            assert_eq!(parse(line.as_bytes()), done, "{line}");
        }
    }

    #[test]
    fn what_is_unknown_may_say_anything_up_to_its_end() {
        for line in [
            "PROXY UNKNOWN\r\n",
            "PROXY UNKNOWN \r\n",
            "PROXY UNKNOWN a\nb \r c\r\n",
            "PROXY UNKNOWN ffff:f ffff:f 65535 65535\r\n",
        ] {
            let done = Parsed::Done {
                source: None,
                length: line.len(),
            };
            assert_eq!(parse(line.as_bytes()), done, "{line}");
        }
        assert!(matches!(parse(b"PROXY UNKNOWNS\r\n"), Parsed::Wrong(_)));
    }

    #[test]
    fn each_rule_refuses_what_breaks_it() {
        let family = "a family that is not TCP4, TCP6 or UNKNOWN";
        let words = "not two addresses and two ports, with one space between them";
        let address = "an address that is none of its family";
        let port = "a port that is no plain number from 0 to 65535";
        let ending = "a line that does not end with CR LF";
        for (line, why) in [
            ("TCP5 192.0.2.1 10.0.0.1 1 2\r\n", family),
            ("tcp4 192.0.2.1 10.0.0.1 1 2\r\n", family),
            ("UDP4 192.0.2.1 10.0.0.1 1 2\r\n", family),
            (" TCP4 192.0.2.1 10.0.0.1 1 2\r\n", family),
            ("\r\n", family),
            ("TCP4\r\n", words),
            ("TCP4 192.0.2.1\r\n", words),
            ("TCP4 192.0.2.1 10.0.0.1 1\r\n", words),
            ("TCP4 192.0.2.1 10.0.0.1 1 2 3\r\n", words),
            ("TCP4 192.0.2.1 10.0.0.1 1 2 \r\n", words),
            ("TCP4  192.0.2.1 10.0.0.1 1 2\r\n", words),
            ("TCP4 192.0.2.1  10.0.0.1 1\r\n", address),
            ("TCP4\t192.0.2.1 10.0.0.1 1 2\r\n", family),
            ("TCP4 192.0.2.1 10.0.0.1 1\t2\r\n", words),
            ("TCP4 192.0.2 10.0.0.1 1 2\r\n", address),
            ("TCP4 192.0.2.256 10.0.0.1 1 2\r\n", address),
            ("TCP4 192.0.2.01 10.0.0.1 1 2\r\n", address),
            ("TCP4 0xc0.0.2.1 10.0.0.1 1 2\r\n", address),
            ("TCP4 2001:db8::7 10.0.0.1 1 2\r\n", address),
            ("TCP4 192.0.2.1 ::1 1 2\r\n", address),
            ("TCP6 192.0.2.1 ::1 1 2\r\n", address),
            ("TCP6 [::1] ::1 1 2\r\n", address),
            ("TCP6 fe80::1%eth0 ::1 1 2\r\n", address),
            ("TCP6 ::12345 ::1 1 2\r\n", address),
            ("TCP6 1::2::3 ::1 1 2\r\n", address),
            ("TCP4 192.0.2.1 10.0.0.1 65536 2\r\n", port),
            ("TCP4 192.0.2.1 10.0.0.1 1 99999999999\r\n", port),
            ("TCP4 192.0.2.1 10.0.0.1 01 2\r\n", port),
            ("TCP4 192.0.2.1 10.0.0.1 1 00\r\n", port),
            ("TCP4 192.0.2.1 10.0.0.1 +1 2\r\n", port),
            ("TCP4 192.0.2.1 10.0.0.1 -1 2\r\n", port),
            ("TCP4 192.0.2.1 10.0.0.1 1 \r\n", port),
            ("TCP4 192.0.2.1 10.0.0.1 1 2\r\r\n", port),
            ("TCP4 192.0.2.1 10.0.0.1 1 2\n", ending),
        ] {
            let line = format!("PROXY {line}");
            assert_eq!(parse(line.as_bytes()), Parsed::Wrong(why), "{line:?}");
        }
        let line = b"PROXY TCP4 192.0.2.\xff 10.0.0.1 1 2\r\n";
        assert_eq!(parse(line), Parsed::Wrong("a line that is not text"));
    }

    #[test]
    fn a_line_of_107_bytes_is_read_and_one_more_is_too_long() {
        let line = |letters: usize| format!("PROXY UNKNOWN {}\r\n", "a".repeat(letters));
        let longest = line(LINE_MAX - 16);
        assert_eq!(longest.len(), LINE_MAX);
        assert!(matches!(parse(longest.as_bytes()), Parsed::Done { .. }));
        let longer = line(LINE_MAX - 15);
        let wrong = Parsed::Wrong("a line of more than 107 bytes");
        assert_eq!(parse(longer.as_bytes()), wrong);
        assert_eq!(parse(&longer.as_bytes()[..LINE_MAX]), wrong);
        assert_eq!(parse(&longer.as_bytes()[..LINE_MAX - 1]), Parsed::More);
    }
}
