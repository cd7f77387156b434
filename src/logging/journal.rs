//! `target = "journal"`: journald's native protocol, with the event's own fields.
//!
//! One datagram an event: `KEY=value` and a newline for each field; a value that has a newline in it
//! follows its key as eight bytes of length and then itself. Fields are as they were found, unquoted.
//! A datagram is never too large: the line is bounded, and fields are by [`FIELDS_MAX`], far below the
//! 200 KiB that a socket's default buffer takes.

use std::path::PathBuf;
use std::time::Instant;

use super::IDENTIFIER;
use super::event::Event;
use super::syslog::severity;
use super::transport::{Datagrams, Outcome};
use crate::config::Facility;

/// Most bytes of all of an event's own fields together; those that would not fit are left out.
pub(super) const FIELDS_MAX: usize = 16 * 1024;

/// The way to the journal.
pub(super) struct Journal {
    facility: Facility,
    socket: Datagrams,
    datagram: Vec<u8>,
}

impl Journal {
    /// To the journal that owns `path`.
    pub(super) fn open(path: PathBuf, facility: Facility) -> Journal {
        Journal {
            facility,
            socket: Datagrams::to(path),
            datagram: Vec::new(),
        }
    }

    /// Writes one event, whose line is `line`.
    pub(super) fn write(&mut self, now: Instant, event: &Event, line: &str) -> Outcome {
        self.datagram.clear();
        self.encode(event, line);
        self.socket.send(now, &self.datagram)
    }

    fn encode(&mut self, event: &Event, line: &str) {
        let datagram = &mut self.datagram;
        put(datagram, "MESSAGE", line);
        put(
            datagram,
            "PRIORITY",
            &(severity(event.kind.level) as u32).to_string(),
        );
        put(datagram, "SYSLOG_IDENTIFIER", IDENTIFIER);
        put(
            datagram,
            "SYSLOG_FACILITY",
            &(self.facility.0 >> 3).to_string(),
        );
        put(
            datagram,
            "MESSAGE_ID",
            &format!("{:032x}", event.kind.message_id),
        );
        put(datagram, "ECHOD_EVENT", event.kind.name);
        let fields_begin = datagram.len();
        for (key, value) in &event.fields {
            let key = format!("ECHOD_{}", key.to_ascii_uppercase());
            // Ten: an equals sign or a newline, eight bytes of length, a newline.
            if datagram.len() - fields_begin + key.len() + value.len() + 10 > FIELDS_MAX {
                break;
            }
            put(datagram, &key, value);
        }
    }
}

fn put(datagram: &mut Vec<u8>, key: &str, value: &str) {
    datagram.extend_from_slice(key.as_bytes());
    if value.contains('\n') {
        datagram.push(b'\n');
        datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        datagram.push(b'=');
    }
    datagram.extend_from_slice(value.as_bytes());
    datagram.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logging::{format, kind};
    use std::os::unix::net::UnixDatagram;
    use tempfile::TempDir;

    fn encoded(event: &Event) -> Vec<u8> {
        let mut journal = Journal::open(PathBuf::new(), Facility(3 << 3));
        journal.encode(event, &format::line(event));
        journal.datagram
    }

    #[test]
    fn an_event_is_its_line_and_each_of_its_fields() {
        let event = Event::of(&kind::LISTENING)
            .with("listener", "two words")
            .with("address", "[::]:8080");
        let id = format!("{:032x}", kind::LISTENING.message_id);
        assert_eq!(
            str::from_utf8(&encoded(&event)).expect("text"),
            format!(
                "MESSAGE=listening listener=\"two words\" address=[::]:8080\nPRIORITY=6\n\
                 SYSLOG_IDENTIFIER=echod\nSYSLOG_FACILITY=3\nMESSAGE_ID={id}\nECHOD_EVENT=listening\n\
                 ECHOD_LISTENER=two words\nECHOD_ADDRESS=[::]:8080\n"
            )
        );
    }

    #[test]
    fn a_newline_in_a_value_forges_no_field() {
        let event = Event::of(&kind::LISTENING).with("listener", "a\nPRIORITY=0");
        let bytes = encoded(&event);
        let framed = b"\nECHOD_LISTENER\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\n";
        assert!(bytes.ends_with(framed), "{}", bytes.escape_ascii());
    }

    #[test]
    fn the_largest_event_is_one_datagram() {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("socket");
        let _receiver = UnixDatagram::bind(&path).expect("bind");
        let mut event = Event::of(&kind::INTERNAL).detail("d".repeat(100_000));
        for size in [1, FIELDS_MAX / 2, FIELDS_MAX / 3, FIELDS_MAX, 1 << 24] {
            event = event.with("field", "\n".repeat(size));
        }
        assert!(encoded(&event).len() <= FIELDS_MAX + format::LINE_MAX + 512);
        let mut journal = Journal::open(path, Facility(3 << 3));
        assert_eq!(
            journal.write(Instant::now(), &event, &format::line(&event)),
            Outcome::Written
        );
    }
}
