//! One client of the control socket: its question read, its answer written, without ever blocking.
//!
//! ```text
//! Asking --question--> Waiting --answer--> Answering --all written--> gone
//!    |                                        ^
//!    +------- no question: an error ----------+
//! ```
//! Asking and Answering have a deadline, which bounds a client that dribbles or does not read. Waiting has
//! none: it is the daemon's turn, and a client that leaves meanwhile is noticed.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::poll::PollFlags;

use super::{Answer, CLIENT_TIMEOUT, MAX_ANSWER, MAX_LINE, Verb};
use crate::tick::Tick;

/// A connection to the control socket.
#[derive(Debug)]
pub(super) struct Exchange {
    stream: UnixStream,
    stage: Stage,
    deadline: Tick,
}

#[derive(Debug)]
enum Stage {
    Asking { line: Vec<u8> },
    Waiting,
    Answering { output: Vec<u8>, sent: usize },
}

/// What came of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// There is more to come.
    Open,
    /// It has asked, and is owed an answer.
    Asked(Verb),
    /// It is over: drop it.
    Over,
}

impl Exchange {
    pub(super) fn new(stream: UnixStream, now: Tick) -> io::Result<Exchange> {
        stream.set_nonblocking(true)?;
        Ok(Exchange {
            stream,
            stage: Stage::Asking { line: Vec::new() },
            deadline: now + CLIENT_TIMEOUT,
        })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// What to wait for. While it is the daemon's turn that is nothing but the client's departure, which
    /// poll(2) always tells.
    pub(super) fn interest(&self) -> PollFlags {
        match self.stage {
            Stage::Asking { .. } => PollFlags::POLLIN,
            Stage::Waiting => PollFlags::empty(),
            Stage::Answering { .. } => PollFlags::POLLOUT,
        }
    }

    pub(super) fn deadline(&self) -> Tick {
        self.deadline
    }

    /// Something happened on its socket.
    pub(super) fn handle_ready(&mut self, now: Tick) -> Progress {
        match self.stage {
            Stage::Asking { .. } => self.read_question(now),
            Stage::Waiting => Progress::Over,
            Stage::Answering { .. } => self.write_answer(),
        }
    }

    /// The daemon has an answer.
    pub(super) fn handle_answer(&mut self, answer: &Answer, now: Tick) -> Progress {
        match answer {
            Answer::Adopted(report) => self.reply(adopted(report), now),
            Answer::Refused(text) => self.reply(format!("refused\n{text}"), now),
        }
    }

    /// Its time is up. A last word, if there is room for it.
    pub(super) fn handle_deadline(&mut self, now: Tick) {
        if matches!(self.stage, Stage::Asking { .. }) {
            self.reply("error too slow\n".to_owned(), now);
        }
    }

    /// Nobody has time for it. A last word, likewise.
    pub(super) fn turn_away(&mut self, now: Tick) {
        self.reply("busy\n".to_owned(), now);
    }

    fn read_question(&mut self, now: Tick) -> Progress {
        let Stage::Asking { line } = &mut self.stage else {
            return Progress::Open;
        };
        let mut ended = false;
        while !ended && line.len() < MAX_LINE && !line.contains(&b'\n') {
            let mut chunk = [0; MAX_LINE];
            let room = MAX_LINE - line.len();
            match self.stream.read(&mut chunk[..room]) {
                Ok(0) => ended = true,
                Ok(count) => line.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Progress::Open,
                Err(_) => return Progress::Over,
            }
        }
        let question = match line.iter().position(|byte| *byte == b'\n') {
            Some(end) => &line[..end],
            None if line.is_empty() => return Progress::Over,
            None if ended => line,
            None => return self.reply("error line too long\n".to_owned(), now),
        };
        let Some(verb) = Verb::parse(question) else {
            return self.reply("error unknown verb\n".to_owned(), now);
        };
        self.stage = Stage::Waiting;
        self.deadline = Tick::NEVER;
        Progress::Asked(verb)
    }

    fn reply(&mut self, mut output: String, now: Tick) -> Progress {
        output.truncate(output.floor_char_boundary(MAX_ANSWER));
        self.stage = Stage::Answering {
            output: output.into_bytes(),
            sent: 0,
        };
        self.deadline = now + CLIENT_TIMEOUT;
        self.write_answer()
    }

    fn write_answer(&mut self) -> Progress {
        let Stage::Answering { output, sent } = &mut self.stage else {
            return Progress::Open;
        };
        while *sent < output.len() {
            match self.stream.write(&output[*sent..]) {
                Ok(count) => *sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Progress::Open,
                Err(_) => return Progress::Over,
            }
        }
        // What it said and we did not read would make our close a reset, after the answer. Best effort.
        let _ = self.stream.read(&mut [0; 4096]);
        Progress::Over
    }

    /// Makes the kernel take so little at once that a test needs few bytes to fill it.
    #[cfg(test)]
    pub(super) fn shrink_send_buffer(&self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_send_buffer_size(4096).expect("set");
    }
}

/// The answer with as many lines of the report as there is room for, and the number of the others.
fn adopted(report: &[String]) -> String {
    let mut output = String::from("adopted\n");
    for (index, line) in report.iter().enumerate() {
        let left = report.len() - index;
        let more = format!("... and {left} more\n");
        let reserved = if left > 1 { more.len() } else { 0 };
        if output.len() + line.len() + 1 + reserved > MAX_ANSWER {
            output.push_str(&more);
            break;
        }
        output.push_str(line);
        output.push('\n');
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_whole_or_cut_at_a_line() {
        let report = |count, length| vec!["x".repeat(length); count];
        assert_eq!(adopted(&[]), "adopted\n");
        assert_eq!(adopted(&report(2, 3)), "adopted\nxxx\nxxx\n");
        // One that just fits, and one past it.
        let fits = MAX_ANSWER - "adopted\n".len() - 1;
        assert_eq!(adopted(&report(1, fits)).len(), MAX_ANSWER);
        assert_eq!(adopted(&report(1, fits + 1)), "adopted\n... and 1 more\n");
        let cut = adopted(&report(100_000, 99));
        assert!(cut.len() <= MAX_ANSWER && cut.len() > MAX_ANSWER - 120);
        let lines: Vec<_> = cut.lines().collect();
        let shown = lines.len() - 2;
        assert!(lines[1..=shown].iter().all(|line| line.len() == 99));
        assert_eq!(
            lines[shown + 1],
            format!("... and {} more", 100_000 - shown)
        );
    }
}
