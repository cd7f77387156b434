//! Version 2: a signature, four bytes, and a block of addresses and of what is said besides, each with its length.
//!
//! ```text
//! 0          12       13       14      16
//! | signature | ver cmd | family | length | addresses | type length value | type length value ..
//! ```
//!
//! What is said besides is walked, so that a header which does not add up is refused, and skipped but for the checksum, which is checked. With
//! LOCAL, and without a family, the block means nothing and is not looked at. Pure.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{HEADER_MAX, Parsed, begins, canonical};

pub(super) const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes in front of the addresses.
const FIXED: usize = 16;

/// Type and length.
const VECTOR_FIXED: usize = 3;

/// `PP2_TYPE_CRC32C`.
const CHECKSUM: u8 = 3;

pub(super) fn parse(bytes: &[u8]) -> Parsed {
    match read(bytes) {
        Ok(Some((source, length))) => Parsed::Done { source, length },
        Ok(None) => Parsed::More,
        Err(why) => Parsed::Wrong(why),
    }
}

/// What comes before the addresses in a block of this family.
#[derive(Clone, Copy)]
enum Family {
    Unspecified,
    Ipv4,
    Ipv6,
    Unix,
}

impl Family {
    fn of(byte: u8) -> Result<Family, &'static str> {
        match byte {
            0x00 => Ok(Family::Unspecified),
            0x11 => Ok(Family::Ipv4),
            0x21 => Ok(Family::Ipv6),
            0x31 => Ok(Family::Unix),
            0x12 | 0x22 | 0x32 => Err("a family of datagrams"),
            _ => Err("an unknown family"),
        }
    }

    /// Bytes of both addresses and ports.
    fn length(self) -> usize {
        match self {
            Family::Unspecified => 0,
            Family::Ipv4 => 12,
            Family::Ipv6 => 36,
            Family::Unix => 216,
        }
    }

    /// The source in a block that is long enough.
    fn source(self, block: &[u8]) -> Option<SocketAddr> {
        let source = match self {
            Family::Unspecified | Family::Unix => return None,
            Family::Ipv4 => {
                let (address, port) = (block.first_chunk::<4>()?, block.get(8..)?.first_chunk()?);
                let address = Ipv4Addr::from_octets(*address).into();
                SocketAddr::new(address, u16::from_be_bytes(*port))
            }
            Family::Ipv6 => {
                let (address, port) = (block.first_chunk::<16>()?, block.get(32..)?.first_chunk()?);
                let address = Ipv6Addr::from_octets(*address).into();
                SocketAddr::new(address, u16::from_be_bytes(*port))
            }
        };
        Some(canonical(source))
    }
}

/// The address that is brought and the length of the header; `None`: it is not all there.
fn read(bytes: &[u8]) -> Result<Option<(Option<SocketAddr>, usize)>, &'static str> {
    if !begins(bytes, SIGNATURE) {
        return Err("not a PROXY header");
    }
    // Each is judged as soon as it is there.
    let is_local = match bytes.get(12).map(|byte| (byte >> 4, byte & 0xf)) {
        None => return Ok(None),
        Some((2, 0)) => true,
        Some((2, 1)) => false,
        Some((2, _)) => return Err("an unknown command"),
        Some(_) => return Err("an unknown version"),
    };
    let family = match bytes.get(13) {
        None => return Ok(None),
        Some(_) if is_local => Family::Unspecified,
        Some(byte) => Family::of(*byte)?,
    };
    let Some(length) = bytes.get(14..).and_then(|rest| rest.first_chunk()) else {
        return Ok(None);
    };
    let length = FIXED + usize::from(u16::from_be_bytes(*length));
    if length > HEADER_MAX {
        return Err("a header of more than 4096 bytes");
    }
    let vectors = FIXED + family.length();
    if length < vectors {
        return Err("a header too short for its addresses");
    }
    let Some(header) = bytes.get(..length) else {
        return Ok(None);
    };
    if !matches!(family, Family::Unspecified) {
        walk(header, vectors)?;
    }
    Ok(Some((family.source(&header[FIXED..]), length)))
}

/// Goes from one type, length and value to the next, to the end of the header.
fn walk(header: &[u8], mut at: usize) -> Result<(), &'static str> {
    let runs_over = "a value that runs over the end of the header";
    let mut is_checked = false;
    while at < header.len() {
        let Some([kind, high, low]) = header[at..].first_chunk::<VECTOR_FIXED>() else {
            return Err(runs_over);
        };
        let from = at + VECTOR_FIXED;
        let to = from + usize::from(u16::from_be_bytes([*high, *low]));
        let value = header.get(from..to).ok_or(runs_over)?;
        if *kind == CHECKSUM {
            let Ok(written) = <[u8; 4]>::try_from(value) else {
                return Err("a checksum that is not four bytes");
            };
            if std::mem::replace(&mut is_checked, true) {
                return Err("two checksums");
            }
            if checksum(header, from) != u32::from_be_bytes(written) {
                return Err("a wrong checksum");
            }
        }
        at = to;
    }
    Ok(())
}

/// CRC-32C of the header, with the four bytes of the checksum, which begin there, zero.
fn checksum(header: &[u8], at: usize) -> u32 {
    let crc = crc32c::crc32c(&header[..at]);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    crc32c::crc32c_append(crc, &header[at + 4..])
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::parse;
    use super::*;

    /// Pieces of a block, joined.
    pub(crate) fn block(pieces: &[&[u8]]) -> Vec<u8> {
        pieces.concat()
    }

    /// A header with this block.
    pub(crate) fn header(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).expect("short");
        let fixed = [
            command,
            family,
            length.to_be_bytes()[0],
            length.to_be_bytes()[1],
        ];
        [&SIGNATURE[..], &fixed, block].concat()
    }

    /// The header with the checksum written into the four bytes at its end.
    pub(crate) fn with_checksum(mut header: Vec<u8>) -> Vec<u8> {
        let at = header.len() - 4;
        let crc = crc32c::crc32c(&header).to_be_bytes();
        header[at..].copy_from_slice(&crc);
        header
    }

    const IPV4: [u8; 12] = [192, 0, 2, 1, 10, 0, 0, 1, 0xc4, 0x88, 0, 7];

    fn ipv6(source: &str) -> Vec<u8> {
        let source: Ipv6Addr = source.parse().expect("an address");
        block(&[&source.octets(), &[0; 16], &[0xff, 0xff, 0, 7]])
    }

    fn done(source: Option<&str>, length: usize) -> Parsed {
        let source = source.map(|source| source.parse().expect("an address"));
        Parsed::Done { source, length }
    }

    #[test]
    fn a_header_brings_the_source_in_canonical_form() {
        for (bytes, source) in [
            (header(0x21, 0x11, &IPV4), Some("192.0.2.1:50312")),
            (
                header(0x21, 0x21, &ipv6("2001:db8::7")),
                Some("[2001:db8::7]:65535"),
            ),
            (
                header(0x21, 0x21, &ipv6("::ffff:192.0.2.1")),
                Some("192.0.2.1:65535"),
            ),
            (header(0x21, 0x31, &[7; 216]), None),
            (header(0x21, 0x00, &[]), None),
            (header(0x21, 0x00, &[9; 100]), None),
            (header(0x20, 0x00, &[]), None),
            (header(0x20, 0x11, &IPV4), None),
            // The block of a LOCAL header means nothing, and neither does its family.
            (header(0x20, 0xff, &[9; 3]), None),
        ] {
            assert_eq!(parse(&bytes), done(source, bytes.len()), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_said_besides_is_skipped_whatever_it_is() {
        let vectors: &[&[u8]] = &[
            &[1, 0, 2, b'h', b'2'],
            &[2, 0, 4, b'e', b'c', b'h', b'o'],
            &[5, 0, 3, 1, 2, 3],
            &[0x20, 0, 5, 1, 0, 0, 0, 0],
            &[0x30, 0, 2, b'n', b's'],
            &[0xea, 0, 0],
            &[4, 0, 0],
        ];
        for vector in vectors {
            let bytes = header(0x21, 0x11, &block(&[&IPV4, vector]));
            assert_eq!(parse(&bytes), done(Some("192.0.2.1:50312"), bytes.len()));
        }
        let bytes = header(0x21, 0x11, &block(&[&IPV4, &vectors.concat()]));
        assert_eq!(parse(&bytes), done(Some("192.0.2.1:50312"), bytes.len()));
        let bytes = header(0x21, 0x31, &block(&[&[0; 216], &vectors.concat()]));
        assert_eq!(parse(&bytes), done(None, bytes.len()));
    }

    #[test]
    fn the_checksum_is_that_of_the_header_with_its_own_bytes_zero() {
        let zero = [3, 0, 4, 0, 0, 0, 0];
        let bytes = with_checksum(header(0x21, 0x11, &block(&[&IPV4, &[4, 0, 1, 0], &zero])));
        assert_eq!(parse(&bytes), done(Some("192.0.2.1:50312"), bytes.len()));
        // But for the byte that says that there is one.
        for at in (13..bytes.len()).filter(|at| *at != 32) {
            let mut other = bytes.clone();
            other[at] ^= 1;
            let parsed = parse(&other);
            assert!(!matches!(parsed, Parsed::Done { .. }), "{at}: {parsed:?}");
        }
        // What comes after it counts as well.
        let mut bytes = header(0x21, 0x11, &block(&[&IPV4, &zero, &[4, 0, 1, 7]]));
        let crc = crc32c::crc32c(&bytes).to_be_bytes();
        bytes[31..35].copy_from_slice(&crc);
        assert_eq!(parse(&bytes), done(Some("192.0.2.1:50312"), bytes.len()));
        bytes[38] = 8;
        assert_eq!(parse(&bytes), Parsed::Wrong("a wrong checksum"));
    }

    #[test]
    fn the_checksum_is_castagnolis() {
        // RFC 3720, B.4: 32 bytes of zeros, and of ones.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c::crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn each_rule_refuses_what_breaks_it() {
        let over = "a value that runs over the end of the header";
        let short = "a header too short for its addresses";
        let sum = [3, 0, 4, 0, 0, 0, 0];
        for (bytes, why) in [
            (header(0x11, 0x11, &IPV4), "an unknown version"),
            (header(0x31, 0x11, &IPV4), "an unknown version"),
            (header(0x22, 0x11, &IPV4), "an unknown command"),
            (header(0x2f, 0x11, &IPV4), "an unknown command"),
            (header(0x21, 0x12, &IPV4), "a family of datagrams"),
            (header(0x21, 0x22, &ipv6("::1")), "a family of datagrams"),
            (header(0x21, 0x32, &[0; 216]), "a family of datagrams"),
            (header(0x21, 0x41, &IPV4), "an unknown family"),
            (header(0x21, 0x13, &IPV4), "an unknown family"),
            (header(0x21, 0x10, &IPV4), "an unknown family"),
            (header(0x21, 0x01, &IPV4), "an unknown family"),
            (header(0x21, 0x11, &IPV4[..11]), short),
            (header(0x21, 0x11, &[]), short),
            (header(0x21, 0x21, &ipv6("::1")[..35]), short),
            (header(0x21, 0x31, &[0; 215]), short),
            (header(0x21, 0x11, &block(&[&IPV4, &[4]])), over),
            (header(0x21, 0x11, &block(&[&IPV4, &[4, 0]])), over),
            (header(0x21, 0x11, &block(&[&IPV4, &[4, 0, 1]])), over),
            (
                header(0x21, 0x11, &block(&[&IPV4, &[4, 0, 0, 4, 255, 255]])),
                over,
            ),
            (header(0x21, 0x31, &block(&[&[0; 216], &[4, 0, 9]])), over),
            (
                header(0x21, 0x11, &block(&[&IPV4, &[3, 0, 3, 0, 0, 0]])),
                "a checksum that is not four bytes",
            ),
            (
                header(0x21, 0x11, &block(&[&IPV4, &sum])),
                "a wrong checksum",
            ),
        ] {
            assert_eq!(parse(&bytes), Parsed::Wrong(why), "{bytes:?}");
        }
    }

    #[test]
    fn a_second_checksum_is_refused_even_if_both_were_right() {
        // Of two, each is right only for one value of the other: it is found by counting them.
        let mut bytes = header(
            0x21,
            0x11,
            &block(&[&IPV4, &[3, 0, 4, 0, 0, 0, 0], &[3, 0, 4, 9, 9, 9, 9]]),
        );
        let crc = crc32c::crc32c(&bytes).to_be_bytes();
        bytes[31..35].copy_from_slice(&crc);
        assert_eq!(parse(&bytes), Parsed::Wrong("two checksums"));
    }

    #[test]
    fn a_header_of_4096_bytes_is_read_and_one_more_is_too_long_before_it_is_there() {
        let filled = |length: usize| {
            let value = u16::try_from(length - FIXED - IPV4.len() - VECTOR_FIXED).expect("short");
            let [high, low] = value.to_be_bytes();
            let value = vec![0; usize::from(value)];
            header(0x21, 0x11, &block(&[&IPV4, &[4, high, low], &value]))
        };
        let longest = filled(HEADER_MAX);
        assert_eq!(longest.len(), HEADER_MAX);
        assert_eq!(parse(&longest), done(Some("192.0.2.1:50312"), HEADER_MAX));
        assert_eq!(parse(&longest[..HEADER_MAX - 1]), Parsed::More);
        let longer = filled(HEADER_MAX + 1);
        let wrong = Parsed::Wrong("a header of more than 4096 bytes");
        assert_eq!(parse(&longer[..FIXED]), wrong);
        assert_eq!(parse(&longer[..FIXED - 1]), Parsed::More);
    }
}
