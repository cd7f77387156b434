//! `target = "stderr"`, and what else standard error hears: lines for whoever reads there.
//!
//! Under systemd that is the journal, which takes a priority from `<N>` and adds the rest itself.
//! Anybody else gets the line: a warning and an error say so, and what ends the process begins with
//! `echod:` as every program's last words do. Writes are to the descriptor, past the lock of
//! `std::io::stderr`, so that a stalled reader holds up nobody but the log; an error never panics.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::stat::fstat;
use nix::unistd::write;

use super::IDENTIFIER;
use super::event::Event;
use super::syslog::severity;
use super::transport::{Outcome, has_room_soon};
use crate::config::Level;

/// Is somebody watching who wants to see everything?
pub(super) fn is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// How a line begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// With a priority for the journal.
    Priority,
    /// With a word where somebody should look up.
    Plain,
}

/// Where lines go.
pub(super) struct Stderr {
    /// `None`: the process's own standard error.
    descriptor: Option<OwnedFd>,
    form: Form,
}

impl Stderr {
    /// The process's own; asks the environment whether it is the journal's.
    pub(super) fn open() -> Stderr {
        Stderr {
            descriptor: None,
            form: form(&io::stderr()),
        }
    }

    /// Another descriptor in its place.
    #[cfg(test)]
    pub(super) fn to(descriptor: OwnedFd) -> Stderr {
        Stderr {
            descriptor: Some(descriptor),
            form: Form::Plain,
        }
    }

    /// Writes one line. A full pipe is waited for, though not for long: below 4096 bytes (a line has at
    /// most 3072) a pipe that reports room takes all of it.
    pub(super) fn write(&mut self, event: &Event, line: &str) -> Outcome {
        let line = dressed(self.form, event, line);
        let stderr = io::stderr();
        let descriptor = match &self.descriptor {
            None => stderr.as_fd(),
            Some(descriptor) => descriptor.as_fd(),
        };
        match has_room_soon(&descriptor) {
            true => write_all(descriptor, line.as_bytes()),
            false => Outcome::Dropped,
        }
    }
}

fn write_all(descriptor: BorrowedFd<'_>, mut bytes: &[u8]) -> Outcome {
    while !bytes.is_empty() {
        match write(descriptor, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::EINTR) => {}
            Err(_) => return Outcome::Dropped,
        }
    }
    Outcome::Written
}

fn form(stream: &impl AsFd) -> Form {
    match is_journal(stream) {
        true => Form::Priority,
        false => Form::Plain,
    }
}

/// Does the journal receive what is written to this stream of the process?
pub fn is_journal(stream: &impl AsFd) -> bool {
    let file = fstat(stream.as_fd()).ok();
    is_named(
        std::env::var("JOURNAL_STREAM").ok().as_deref(),
        file.map(|file| (file.st_dev, file.st_ino)),
    )
}

/// `JOURNAL_STREAM` is inherited by children whose standard error is something else by then, so it
/// counts only if it names the very file (systemd.exec(5)).
fn is_named(journal_stream: Option<&str>, file: Option<(u64, u64)>) -> bool {
    let named = journal_stream.and_then(|stream| stream.split_once(':'));
    let named = named.and_then(|(dev, ino)| Some((dev.parse().ok()?, ino.parse().ok()?)));
    named.is_some() && named == file
}

fn dressed(form: Form, event: &Event, line: &str) -> String {
    match (form, event.kind.level) {
        (Form::Priority, level) => format!("<{}>{line}\n", severity(level) as u32),
        (Form::Plain, _) if event.kind.fatal => format!("{IDENTIFIER}: {line}\n"),
        (Form::Plain, Level::Error) => format!("error: {line}\n"),
        (Form::Plain, Level::Warning) => format!("warning: {line}\n"),
        (Form::Plain, Level::Info | Level::Debug) => format!("{line}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logging::kind;
    use std::io::{Read, pipe};

    #[test]
    fn the_journal_gets_a_priority_and_others_a_word_where_it_matters() {
        let said = |form, kind| dressed(form, &Event::of(kind), "line");
        assert_eq!(said(Form::Priority, &kind::READY), "<6>line\n");
        assert_eq!(said(Form::Priority, &kind::FATAL), "<3>line\n");
        assert_eq!(said(Form::Plain, &kind::READY), "line\n");
        assert_eq!(said(Form::Plain, &kind::ACCEPT_PAUSED), "warning: line\n");
        assert_eq!(said(Form::Plain, &kind::RELOAD_REFUSED), "error: line\n");
        assert_eq!(said(Form::Plain, &kind::FATAL), "echod: line\n");
    }

    #[test]
    fn only_the_very_stream_that_is_named_is_the_journals() {
        assert!(is_named(Some("8:1234"), Some((8, 1234))));
        assert!(!is_named(Some("8:1234"), Some((8, 1235))));
        assert!(!is_named(Some("nonsense"), Some((8, 1234))));
        assert!(!is_named(Some("8:1234"), None));
        assert!(!is_named(None, Some((8, 1234))));
        assert!(!is_named(None, None));
    }

    #[test]
    fn a_closed_reader_costs_the_line_and_nothing_else() {
        let (reader, writer) = pipe().expect("a pipe");
        drop(reader);
        let mut stderr = Stderr::to(writer.into());
        assert_eq!(
            stderr.write(&Event::of(&kind::READY), "ready"),
            Outcome::Dropped
        );
    }

    #[test]
    fn a_stalled_reader_costs_lines_and_a_bounded_wait() {
        let (mut reader, writer) = pipe().expect("a pipe");
        let mut stderr = Stderr::to(writer.into());
        let event = Event::of(&kind::READY);
        let line = "x".repeat(1000);
        let written = (0..100_000)
            .take_while(|_| stderr.write(&event, &line) == Outcome::Written)
            .count();
        assert!(written < 100_000, "a pipe without a bound");
        reader.read_exact(&mut vec![0; 8192]).expect("lines");
        assert_eq!(stderr.write(&event, &line), Outcome::Written);
    }
}
