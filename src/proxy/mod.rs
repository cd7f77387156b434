//! Reads the header by which a balancer says for whom it speaks: the PROXY protocol, versions 1 and 2.
//!
//! Given the bytes that have come so far it says that it wants more, what they mean, or what is wrong with
//! them. It keeps nothing between two calls, so how the bytes were cut cannot matter. What brings no address that
//! a TCP peer can have (LOCAL, UNKNOWN, a Unix socket) is a header all the same: the address of the connection itself stays. Pure.
//!
//! Bound: no header is longer than [`HEADER_MAX`], and one that is more is known by its first bytes. A version 1
//! header is text, see [`v1`]; a version 2 header begins with twelve bytes that no text begins with, see [`v2`].

mod v1;
mod v2;

use std::net::SocketAddr;

/// Most bytes of a header, of either version: balancers send less than 600.
pub const HEADER_MAX: usize = 4096;

/// What the bytes so far are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a header, shorter than [`HEADER_MAX`].
    More,
    /// A whole header, and perhaps what comes after it.
    Done {
        /// The address that it brings, in canonical form; `None`: that of the connection itself stays.
        source: Option<SocketAddr>,
        /// Bytes of the header.
        length: usize,
    },
    /// No header, and never one; in words.
    Wrong(&'static str),
}

/// Reads what has come so far.
pub fn parse(bytes: &[u8]) -> Parsed {
    // One byte tells them apart.
    if bytes.first() == Some(&v2::SIGNATURE[0]) {
        v2::parse(bytes)
    } else {
        v1::parse(bytes)
    }
}

/// A peer of IPv4 is IPv4 here, however it is written.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Are the first bytes, as far as they are there, those of `expected`?
fn begins(bytes: &[u8], expected: &[u8]) -> bool {
    bytes.iter().zip(expected).all(|(one, other)| one == other)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::v2::tests::{block, header, with_checksum};
    use super::*;

    /// Headers of all kinds, and the address that each brings.
    fn headers() -> Vec<(Vec<u8>, Option<&'static str>)> {
        let ipv4 = block(&[&[192, 0, 2, 1, 10, 0, 0, 1], &[0xc4, 0x88, 0, 7]]);
        vec![
            (
                b"PROXY TCP4 192.0.2.1 10.0.0.1 50312 7\r\n".to_vec(),
                Some("192.0.2.1:50312"),
            ),
            (
                b"PROXY TCP6 2001:db8::7 ::1 50312 7\r\n".to_vec(),
                Some("[2001:db8::7]:50312"),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN of all kinds\r\n".to_vec(), None),
            (header(0x21, 0x11, &ipv4), Some("192.0.2.1:50312")),
            (
                with_checksum(header(
                    0x21,
                    0x11,
                    &block(&[&ipv4, &[4, 0, 2, 1, 1], &[3, 0, 4, 0, 0, 0, 0]]),
                )),
                Some("192.0.2.1:50312"),
            ),
            (header(0x20, 0x00, &[]), None),
        ]
    }

    #[test]
    fn what_a_header_says_is_the_same_whatever_follows_and_a_part_of_it_is_never_more() {
        for (bytes, source) in headers() {
            let source = source.map(|source| source.parse().expect("an address"));
            let length = bytes.len();
            for end in 0..length {
                assert_eq!(parse(&bytes[..end]), Parsed::More, "{end} of {bytes:?}");
            }
            for more in [&b""[..], b"x", b"PROXY ", b"\r\n", &[0; 5000]] {
                let all = [&bytes[..], more].concat();
                assert_eq!(parse(&all), Parsed::Done { source, length }, "{bytes:?}");
            }
        }
    }

    #[test]
    fn what_is_no_header_is_known_by_its_first_wrong_byte() {
        for bytes in [
            &b"G"[..],
            b"PROXX",
            b"proxy ",
            b"PROXY\t",
            b" PROXY ",
            b"\0",
            b"\r\n\r\n\0\r\nQUIX",
            b"\r\n\r\n\0\r\nQUIT\r",
            b"\r\r",
        ] {
            assert!(
                matches!(parse(bytes), Parsed::Wrong("not a PROXY header")),
                "{bytes:?}"
            );
        }
        assert_eq!(parse(b""), Parsed::More);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..6000)) {
            // What has no header in front of it is nearly always wrong at once, so some have.
            for front in [&b""[..], b"PROXY ", b"PROXY TCP4 ", v2::SIGNATURE, b"\r\n\r\n\0\r\nQUIT\n\x21\x11"] {
                let all = [front, &bytes].concat();
                match parse(&all) {
                    Parsed::More => prop_assert!(all.len() < HEADER_MAX),
                    Parsed::Done { length, .. } => {
                        prop_assert!(length <= all.len() && length <= HEADER_MAX);
                        prop_assert_eq!(parse(&all[..length]), parse(&all));
                    }
                    Parsed::Wrong(why) => prop_assert!(!why.is_empty()),
                }
            }
        }

        #[test]
        fn a_header_with_a_byte_changed_is_never_read_beyond_its_end(
            which in 0..7usize, at in any::<prop::sample::Index>(), byte in any::<u8>()
        ) {
            let mut bytes = headers()[which].0.clone();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            for end in 0..=bytes.len() {
                if let Parsed::Done { length, .. } = parse(&bytes[..end]) {
                    prop_assert!(length <= end);
                }
            }
        }
    }
}
