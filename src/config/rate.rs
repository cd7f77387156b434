//! Shares and rates: `90%`, `10/s` with a burst, `10MiB/s`.
//!
//! Text that is read back gives the same value. Pure.

use std::time::Duration;

use serde::Deserialize;
use serde::de::MapAccess;
use serde::de::value::MapAccessDeserializer;

use super::quantity::{Size, write_size};
use super::value::{Setting, Value, Whole, Wrong, wrong_kind};
use super::{ByteRate, ConnectionRate, Share};

/// Most connections per second or minute, and most at once: more than a kernel completes.
pub(super) const CONNECTION_RATE_MAX: u32 = 1_000_000;

/// Least bytes per second or minute.
const BYTE_RATE_MIN: u64 = 1;

/// Most bytes per second or minute: beyond any network, and sums of it do not overflow.
const BYTE_RATE_MAX: u64 = 1 << 50;

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// What a rate's unit stands for.
fn unit(text: &str) -> Option<Duration> {
    match text {
        "s" => Some(SECOND),
        "min" => Some(MINUTE),
        _ => None,
    }
}

fn write_unit(per: Duration) -> &'static str {
    if per == MINUTE { "min" } else { "s" }
}

impl Value for Share {
    fn noun() -> String {
        "a share".into()
    }

    fn example() -> String {
        "write a whole number and %, such as \"90%\"".into()
    }

    fn from_text(text: &str) -> Result<Self, Wrong> {
        let number = text.strip_suffix('%').ok_or_else(wrong_kind::<Self>)?;
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong_kind::<Self>());
        }
        match number.parse::<u8>() {
            Ok(percent @ 1..=100) => Ok(Self(percent)),
            _ => Err(Wrong::new("not between 1% and 100%", Self::example())),
        }
    }
}

/// `connections = { .. }`: what it leaves out is as here.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(super) struct Connections {
    /// As if it stood alone.
    pub(super) rate: Setting<PerUnit>,
    pub(super) burst: Setting<Burst>,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            rate: Setting::unset(PerUnit {
                count: 10,
                per: SECOND,
            }),
            burst: Setting::unset(Burst(None)),
        }
    }
}

/// So many connections in a unit of time.
#[derive(Clone, Copy, Debug)]
pub(super) struct PerUnit {
    count: u32,
    per: Duration,
}

impl PerUnit {
    /// With as many at once as the unit brings.
    pub(super) fn alone(self) -> ConnectionRate {
        self.with(Burst(None))
    }

    /// With so many at once; left out: as many as the unit brings.
    pub(super) fn with(self, burst: Burst) -> ConnectionRate {
        ConnectionRate {
            count: self.count,
            per: self.per,
            burst: burst.0.unwrap_or(self.count),
        }
    }
}

impl Value for PerUnit {
    fn noun() -> String {
        "a rate of connections".into()
    }

    fn example() -> String {
        "write a whole number and /s or /min, such as \"10/s\"".into()
    }

    fn from_text(text: &str) -> Result<Self, Wrong> {
        let (number, per) = text.split_once('/').ok_or_else(wrong_kind::<Self>)?;
        let per = unit(per).ok_or_else(wrong_kind::<Self>)?;
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong_kind::<Self>());
        }
        match number.parse() {
            Ok(count @ 1..=CONNECTION_RATE_MAX) => Ok(Self { count, per }),
            _ => Err(Wrong::new(
                format!("not between 1 and {CONNECTION_RATE_MAX}"),
                Self::example(),
            )),
        }
    }
}

/// Most connections at once; `None`: left out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Burst(Option<u32>);

impl Value for Burst {
    fn noun() -> String {
        Whole::<1, CONNECTION_RATE_MAX>::noun()
    }

    fn example() -> String {
        Whole::<1, CONNECTION_RATE_MAX>::example()
    }

    fn from_number(number: i128) -> Result<Self, Wrong> {
        Whole::<1, CONNECTION_RATE_MAX>::from_number(number).map(|burst| Self(Some(burst.0)))
    }
}

/// A rate of connections as it is written: alone, or as a table with its burst.
#[derive(Clone, Debug)]
pub(super) enum WrittenRate {
    Alone(PerUnit),
    Table(Connections),
}

impl Value for WrittenRate {
    fn noun() -> String {
        PerUnit::noun()
    }

    fn example() -> String {
        "write a whole number and /s or /min, such as \"10/s\", or { rate = \"10/s\", burst = 50 }"
            .into()
    }

    fn from_text(text: &str) -> Result<Self, Wrong> {
        PerUnit::from_text(text).map(Self::Alone)
    }

    fn from_table<'de, A: MapAccess<'de>>(table: A) -> Result<Result<Self, Wrong>, A::Error> {
        Connections::deserialize(MapAccessDeserializer::new(table))
            .map(|table| Ok(Self::Table(table)))
    }
}

pub(super) fn write_connections(rate: ConnectionRate) -> String {
    format!(
        "{{ rate = \"{}/{}\", burst = {} }}",
        rate.count,
        write_unit(rate.per),
        rate.burst
    )
}

impl Value for ByteRate {
    fn noun() -> String {
        "a rate of bytes".into()
    }

    fn example() -> String {
        "write a size and /s or /min, such as \"10MiB/s\"".into()
    }

    fn from_text(text: &str) -> Result<Self, Wrong> {
        let (size, per) = text.split_once('/').ok_or_else(wrong_kind::<Self>)?;
        let per = unit(per).ok_or_else(wrong_kind::<Self>)?;
        let size = Size::<BYTE_RATE_MIN, BYTE_RATE_MAX>::from_text(size).map_err(|wrong| {
            if wrong == wrong_kind::<Size<BYTE_RATE_MIN, BYTE_RATE_MAX>>() {
                return wrong_kind::<Self>();
            }
            Wrong::new(wrong.what, Self::example())
        })?;
        Ok(Self { bytes: size.0, per })
    }
}

pub(super) fn write_byte_rate(rate: ByteRate) -> String {
    format!("{}/{}", write_size(rate.bytes), write_unit(rate.per))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_share_is_a_whole_number_of_percent() {
        assert_eq!(Share::from_text("90%").unwrap(), Share(90));
        for text in ["", "%", "90", "0%", "101%", "+1%", "1.5%", "-1%"] {
            assert!(Share::from_text(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_burst_that_is_left_out_is_what_the_unit_brings() {
        let rate = PerUnit::from_text("90/min").unwrap();
        let alone = rate.with(Burst(None));
        assert_eq!((alone.count, alone.per, alone.burst), (90, MINUTE, 90));
        assert_eq!(rate.with(Burst(Some(7))).burst, 7);
        assert_eq!(
            write_connections(alone),
            "{ rate = \"90/min\", burst = 90 }"
        );
        for text in ["", "10", "/s", "0/s", "1000001/s", "10/h", "1.5/s"] {
            assert!(PerUnit::from_text(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_of_bytes_are_read_back_as_written() {
        for text in ["10MiB/s", "1KiB/min", "1B/s", "1PiB/s"] {
            let rate = ByteRate::from_text(text).unwrap();
            assert_eq!(write_byte_rate(rate), text);
        }
        for text in ["", "10MiB", "0B/s", "1025TiB/s", "10MiB/h", "x/s", "1.3B/s"] {
            assert!(ByteRate::from_text(text).is_err(), "{text}");
        }
    }
}
