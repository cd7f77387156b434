//! RFC 867: the date and time in words, and the end.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// One line in UTC, in the first form that the RFC suggests: weekday, month day, year, time and zone.
pub fn line(now: Timestamp) -> String {
    let utc = now.to_zoned(TimeZone::UTC);
    utc.strftime("%A, %B %-d, %Y %H:%M:%S-UTC\r\n").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: &str) -> String {
        line(time.parse().expect("a time"))
    }

    #[test]
    fn it_is_weekday_month_day_year_time_and_zone() {
        assert_eq!(
            at("2026-11-24T23:58:01Z"),
            "Tuesday, November 24, 2026 23:58:01-UTC\r\n"
        );
        assert_eq!(
            at("1982-02-02T07:59:01-08:00"),
            "Tuesday, February 2, 1982 15:59:01-UTC\r\n"
        );
    }

    #[test]
    fn part_of_a_second_is_left_out() {
        assert_eq!(
            at("2027-01-01T00:00:00.999Z"),
            "Friday, January 1, 2027 00:00:00-UTC\r\n"
        );
    }
}
