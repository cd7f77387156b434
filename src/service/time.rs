//! RFC 868: the time in four bytes, and the end.

use jiff::Timestamp;

/// From 1900, where the RFC begins, to 1970, where ours does: 70 years, 17 of them with a day more.
const FROM_1900: i64 = (70 * 365 + 17) * 86_400;

/// Seconds since 1900-01-01 00:00 UTC, in the order of the network. They begin again on 2036-02-07.
pub fn bytes(now: Timestamp) -> [u8; 4] {
    let seconds = now.as_second() + FROM_1900;
    // What four bytes do not hold is left out: the RFC has no more.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    (seconds as u32).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: &str) -> u32 {
        u32::from_be_bytes(bytes(time.parse().expect("a time")))
    }

    #[test]
    fn the_times_of_the_rfc_are_as_it_says() {
        assert_eq!(at("1970-01-01T00:00:00Z"), 2_208_988_800);
        assert_eq!(at("1976-01-01T00:00:00Z"), 2_398_291_200);
        assert_eq!(at("1980-01-01T00:00:00Z"), 2_524_521_600);
        assert_eq!(at("1983-05-01T00:00:00Z"), 2_629_584_000);
        assert_eq!(at("1900-01-01T00:00:01Z"), 1);
    }

    #[test]
    fn it_begins_again_in_2036() {
        assert_eq!(at("2036-02-07T06:28:15Z"), u32::MAX);
        assert_eq!(at("2036-02-07T06:28:16Z"), 0);
        assert_eq!(at("2036-02-07T06:28:16.5Z"), 0);
    }
}
