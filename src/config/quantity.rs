//! Sizes, durations, rates: numbers with a unit, as text and back.
//!
//! Text that is read back gives the same value, and none is rounded: what does not come out whole is
//! refused. Pure.

use std::time::Duration;

use bytesize::Unit;
use jiff::SpanRelativeTo;
use jiff::fmt::friendly::SpanParser;

use super::RecordRate;
use super::value::{Value, Wrong, wrong_kind};

/// Records at once after a quiet time. Enough for what a person or a monitor does in a morning, small
/// beside what a log daemon takes in a second.
pub(super) const RECORD_BURST: u32 = 1000;

/// Most records per second or minute: a log daemon that is told more drops them by itself.
pub(super) const RECORD_RATE_MAX: u32 = 1_000_000;

/// A number of bytes within a range.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size<const MIN: u64, const MAX: u64>(pub(super) u64);

impl<const MIN: u64, const MAX: u64> Value for Size<MIN, MAX> {
    fn noun() -> String {
        "a size".into()
    }

    fn example() -> String {
        "write a number and a unit, such as \"64KiB\"".into()
    }

    fn from_text(text: &str) -> Result<Self, Wrong> {
        let bytes = parse_size(text).ok_or_else(wrong_kind::<Self>)?;
        let bytes =
            bytes.ok_or_else(|| Wrong::new("not a whole number of bytes", Self::example()))?;
        if (MIN..=MAX).contains(&bytes) {
            return Ok(Self(bytes));
        }
        let (least, most) = (write_size(MIN), write_size(MAX));
        Err(Wrong::new(
            format!("not between {least} and {most}"),
            format!("write \"{least}\" to \"{most}\""),
        ))
    }
}

/// `None`: not a size. `Some(None)`: a size, but not of whole bytes.
fn parse_size(text: &str) -> Option<Option<u64>> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = match unit.trim_start() {
        // A bare number is bytes, as everywhere.
        "" => 1,
        unit => unit.parse::<Unit>().ok()? * 1,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    // Fractions are counted in integers, because "0.1" is none in binary.
    let scale = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let number = whole
        .parse::<u128>()
        .ok()?
        .checked_mul(scale)?
        .checked_add(fraction.parse().ok()?)?;
    let bytes = number.checked_mul(u128::from(factor))?;
    if bytes % scale != 0 {
        return Some(None);
    }
    // More than any range allows is out of range, rather than no size.
    Some(Some(u64::try_from(bytes / scale).unwrap_or(u64::MAX)))
}

/// The shortest exact spelling, in binary units.
pub(super) fn write_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut number = bytes;
    let mut unit = 0;
    while number != 0 && number.is_multiple_of(1024) && unit + 1 < UNITS.len() {
        number /= 1024;
        unit += 1;
    }
    format!("{number}{}", UNITS[unit])
}

/// A duration within a range, a multiple of a step; all in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time<const MIN: u64, const MAX: u64, const STEP: u64>(pub(super) Duration);

impl<const MIN: u64, const MAX: u64, const STEP: u64> Value for Time<MIN, MAX, STEP> {
    fn noun() -> String {
        "a duration".into()
    }

    fn example() -> String {
        "write numbers with units, such as \"1m 30s\"".into()
    }

    fn from_text(text: &str) -> Result<Self, Wrong> {
        let duration = parse_duration(text).ok_or_else(wrong_kind::<Self>)?;
        let (least, most) = (Duration::from_millis(MIN), Duration::from_millis(MAX));
        let step = Duration::from_millis(STEP);
        if !(least..=most).contains(&duration) {
            let (least, most) = (write_duration(least), write_duration(most));
            return Err(Wrong::new(
                format!("not between {least} and {most}"),
                format!("write \"{least}\" to \"{most}\""),
            ));
        }
        if duration.as_nanos() % step.as_nanos() != 0 {
            return Err(Wrong::new(
                format!("finer than {}", write_duration(step)),
                format!("write a multiple of \"{}\"", write_duration(step)),
            ));
        }
        Ok(Self(duration))
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    // The bound keeps what is out of all reason away from a parser that takes any length.
    if text.len() > 64 {
        return None;
    }
    let span = SpanParser::new().parse_span(text).ok()?;
    // A day has 24 hours here; a month or a year has no length, and is refused.
    let span = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    Duration::try_from(span).ok()
}

/// `1h`, `1m 30s`, `250ms`: whole milliseconds, as they are read.
pub(super) fn write_duration(duration: Duration) -> String {
    const UNITS: [(&str, u128); 5] = [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
        ("ms", 1),
    ];
    let mut rest = duration.as_millis();
    let mut words = Vec::new();
    for (unit, length) in UNITS {
        if rest >= length {
            words.push(format!("{}{unit}", rest / length));
            rest %= length;
        }
    }
    if words.is_empty() {
        return "0s".into();
    }
    words.join(" ")
}

impl Value for RecordRate {
    fn noun() -> String {
        "a rate".into()
    }

    fn example() -> String {
        "write a whole number and /s or /min, such as \"20/s\"".into()
    }

    fn from_text(text: &str) -> Result<Self, Wrong> {
        let (number, unit) = text.split_once('/').ok_or_else(wrong_kind::<Self>)?;
        let seconds = match unit {
            "s" => 1.0,
            "min" => 60.0,
            _ => return Err(wrong_kind::<Self>()),
        };
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong_kind::<Self>());
        }
        match number.parse::<u32>() {
            Ok(count) if (1..=RECORD_RATE_MAX).contains(&count) => Ok(Self {
                per_second: f64::from(count) / seconds,
                burst: RECORD_BURST,
            }),
            _ => Err(Wrong::new(
                format!("not between 1 and {RECORD_RATE_MAX}"),
                "to leave no records at all, set records = \"none\"",
            )),
        }
    }
}

/// `20/s`, or `N/min` where that is no whole number a second.
pub(super) fn write_rate(rate: RecordRate) -> String {
    if rate.per_second.fract() == 0.0 {
        format!("{}/s", rate.per_second)
    } else {
        format!("{}/min", (rate.per_second * 60.0).round())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type AnySize = Size<0, { u64::MAX }>;
    type AnyTime = Time<0, { 1 << 50 }, 1>;

    fn size(text: &str) -> Option<u64> {
        AnySize::from_text(text).ok().map(|size| size.0)
    }

    fn time(text: &str) -> Option<Duration> {
        AnyTime::from_text(text).ok().map(|time| time.0)
    }

    #[test]
    fn a_size_is_a_number_and_a_unit() {
        assert_eq!(size("64KiB"), Some(65_536));
        assert_eq!(size("1.5 MiB"), Some(1_572_864));
        assert_eq!(size("10kB"), Some(10_000));
        assert_eq!(size("512"), Some(512));
        assert_eq!(size("0.5GiB"), Some(1 << 29));
        for text in [
            "", "KiB", "1.", ".5KiB", "1..5K", "-1KiB", "1 2KiB", "1Kib/s", "1e3",
        ] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn a_size_that_is_no_whole_number_of_bytes_is_refused() {
        assert_eq!(
            AnySize::from_text("1.3B").map_err(|w| w.what).err(),
            Some("not a whole number of bytes".into())
        );
        assert_eq!(size("0.1KiB"), None);
        assert_eq!(size("0.1kB"), Some(100));
    }

    #[test]
    fn a_duration_is_what_people_write() {
        assert_eq!(time("1m 30s"), Some(Duration::from_secs(90)));
        assert_eq!(time("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(time("2d"), Some(Duration::from_secs(172_800)));
        for text in ["", "30", "-1s", "1s ago", "1mo", "1y", "soon", "1.0001s"] {
            assert_eq!(time(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_durations_and_rates_are_read_back_as_written() {
        for bytes in [0, 1, 1023, 1024, 1 << 20, 3 << 30, 1 << 60, u64::MAX] {
            assert_eq!(size(&write_size(bytes)), Some(bytes));
        }
        for millis in [0, 1, 999, 1000, 90_000, 3_600_000, 86_399_999, 1 << 40] {
            let duration = Duration::from_millis(millis);
            assert_eq!(time(&write_duration(duration)), Some(duration));
        }
        for text in ["20/s", "7/min", "60/min", "1000000/s"] {
            let rate = RecordRate::from_text(text).ok();
            assert!(rate.is_some());
            let again = rate.and_then(|rate| RecordRate::from_text(&write_rate(rate)).ok());
            assert_eq!(rate, again);
        }
        for text in ["0/s", "1000001/s", "20", "20/h", "+5/s", "1.5/s", "/s"] {
            assert!(RecordRate::from_text(text).is_err(), "{text}");
        }
    }
}
