//! `target = "syslog"`: RFC 3164 datagrams to `/dev/log`, which journald receives as well.
//!
//! The `syslog` crate's severities and its `LogFormat` trait, with a formatter and a transport of our
//! own: the crate stamps UTC where receivers expect local time, and never connects again.

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use jiff::Zoned;
use syslog::{LogFormat, Severity};

use super::IDENTIFIER;
use super::transport::{Datagrams, Outcome};
use crate::config::{Facility, Level};

/// The severity that stands for a level.
pub(super) fn severity(level: Level) -> Severity {
    match level {
        Level::Error => Severity::LOG_ERR,
        Level::Warning => Severity::LOG_WARNING,
        Level::Info => Severity::LOG_INFO,
        Level::Debug => Severity::LOG_DEBUG,
    }
}

/// RFC 3164 as a local receiver expects it: local time, and no host name.
struct Local3164 {
    facility: Facility,
    pid: u32,
}

impl LogFormat<(&Zoned, &str)> for Local3164 {
    fn format<W: Write>(
        &self,
        w: &mut W,
        severity: Severity,
        message: (&Zoned, &str),
    ) -> syslog::Result<()> {
        let (time, text) = message;
        let priority = self.facility.0 | severity as u32;
        let time = time.strftime("%b %e %H:%M:%S");
        write!(w, "<{priority}>{time} {IDENTIFIER}[{}]: {text}", self.pid)
            .map_err(syslog::Error::Write)
    }
}

/// The way to the local syslog receiver.
pub(super) struct Syslog {
    format: Local3164,
    socket: Datagrams,
    datagram: Vec<u8>,
}

impl Syslog {
    /// To the receiver that owns `dev_log`.
    pub(super) fn open(dev_log: PathBuf, facility: Facility) -> Syslog {
        let format = Local3164 {
            facility,
            pid: std::process::id(),
        };
        Syslog {
            format,
            socket: Datagrams::to(dev_log),
            datagram: Vec::new(),
        }
    }

    /// Writes one line.
    pub(super) fn write(&mut self, now: Instant, level: Level, line: &str) -> Outcome {
        self.datagram.clear();
        let stamped = (&Zoned::now(), line);
        match self
            .format
            .format(&mut self.datagram, severity(level), stamped)
        {
            Ok(()) => self.socket.send(now, &self.datagram),
            Err(_) => Outcome::Dropped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;
    use jiff::tz::{TimeZone, offset};
    use std::os::unix::net::UnixDatagram;
    use tempfile::TempDir;

    const DAEMON: Facility = Facility(3 << 3);

    #[test]
    fn a_datagram_is_as_rfc_3164_has_it_with_the_time_of_the_place() {
        let berlin = TimeZone::fixed(offset(2));
        let time = date(2026, 7, 4)
            .at(9, 5, 6, 0)
            .to_zoned(berlin)
            .expect("a time");
        let mut datagram = Vec::new();
        let format = Local3164 {
            facility: DAEMON,
            pid: 77,
        };
        format
            .format(
                &mut datagram,
                severity(Level::Warning),
                (&time, "accept paused"),
            )
            .expect("memory");
        assert_eq!(datagram, b"<28>Jul  4 09:05:06 echod[77]: accept paused");
    }

    #[test]
    fn levels_are_the_severities_that_operators_filter_for() {
        let numbers =
            [Level::Error, Level::Warning, Level::Info, Level::Debug].map(|l| severity(l) as u32);
        assert_eq!(numbers, [3, 4, 6, 7]);
    }

    #[test]
    fn a_line_reaches_the_owner_of_dev_log() {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("log");
        let receiver = UnixDatagram::bind(&path).expect("bind");
        let mut syslog = Syslog::open(path, DAEMON);
        assert_eq!(
            syslog.write(Instant::now(), Level::Info, "ready"),
            Outcome::Written
        );
        let mut bytes = [0; 256];
        let count = receiver.recv(&mut bytes).expect("a datagram");
        let text = str::from_utf8(&bytes[..count]).expect("ascii");
        assert!(text.starts_with("<30>"), "{text}");
        assert!(
            text.ends_with(&format!(" echod[{}]: ready", std::process::id())),
            "{text}"
        );
    }
}
