//! What the tests of this room share: a log whose standard error is a pipe, and records to say.

use std::io::{BufRead, BufReader, PipeReader, pipe};
use std::time::Duration;

use super::stderr::Stderr;
use super::{Echo, Log, Paths, Record, Writer};
use crate::config::{self, Facility, Level, PeerForm, RecordRate, Records, Target};
use crate::connection::Reason;

pub(super) fn config(target: Target) -> config::Log {
    config::Log {
        target,
        level: Level::Info,
        facility: Facility(3 << 3),
        records: Records::Ended,
        record_rate: RecordRate {
            per_second: 20.0,
            burst: 1000,
        },
        peer: PeerForm::Full,
        empty: false,
    }
}

/// A log whose standard error is a pipe.
pub(super) fn piped(config: &config::Log, echo: Echo, paths: Paths) -> (Log, Writer, PipeReader) {
    let (reader, writer) = pipe().expect("a pipe");
    let (log, writer) = Log::open_beside(config, echo, paths, Stderr::to(writer.into()));
    (log, writer, reader)
}

pub(super) fn on_stderr(config: config::Log) -> (Log, Writer, PipeReader) {
    piped(&config, Echo::Errors, Paths::default())
}

/// All lines, of a log that is gone.
pub(super) fn all(reader: PipeReader) -> Vec<String> {
    BufReader::new(reader)
        .lines()
        .map(|line| line.expect("a line"))
        .collect()
}

pub(super) fn record(number: u16, reason: Reason, received: u64) -> Record {
    Record {
        via: None,
        detail: None,
        peer: ([192, 0, 2, 7], number).into(),
        listener: "echo".into(),
        reason,
        received,
        sent: received,
        duration: Duration::from_millis(7),
        tcp: None,
        tls: None,
        packed: None,
    }
}
