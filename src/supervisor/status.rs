//! The daemon's state as one line, for `systemctl status`.
//!
//! Pure. The numbers are short and come first; what needs somebody's attention follows, and is cut where
//! the line is too long. The log has it whole.

use std::fmt::Write;

use bytesize::ByteSize;

use crate::config::Engine;
use crate::connection::Reason;
use crate::metrics::Counts;

/// What the line tells besides the counts.
#[derive(Debug, Default)]
pub struct Status {
    /// Why the last reload was refused; none once one was adopted.
    pub refused: Option<String>,
    /// What a socket unit decides otherwise than the configuration.
    pub note: Option<String>,
    /// A certificate that is not valid, or soon will not be.
    pub certificate: Option<String>,
    /// How the workers reach the kernel, where that is worth a word.
    pub engine: Option<Engine>,
    /// Why it is not io_uring.
    pub fallback: Option<String>,
    /// There are so many connections that stricter limits hold.
    pub pressed: bool,
    /// How often pressure has begun.
    pub pressures: u64,
    /// The daemon drains.
    pub draining: bool,
}

impl Status {
    /// The line: `42 connections, 1.2 GiB echoed, 5 refused (full)`.
    pub fn line(&self, counts: &Counts) -> String {
        let mut line = String::new();
        if self.draining {
            line.push_str("draining: ");
        }
        let plural = if counts.live == 1 { "" } else { "s" };
        let echoed = ByteSize::b(counts.sent).display().iec();
        // A String takes whatever is written to it.
        let _ = write!(line, "{} connection{plural}, {echoed} echoed", counts.live);
        for reason in Reason::ALL {
            let refused = counts.refused[*reason as usize];
            if refused > 0 {
                let _ = write!(line, ", {refused} refused ({reason})");
            }
        }
        match (self.pressures, self.pressed) {
            (0, _) => {}
            (times, true) => {
                let _ = write!(line, ", under pressure ({times})");
            }
            (times, false) => {
                let _ = write!(line, ", was under pressure ({times})");
            }
        }
        if let Some(engine) = self.engine {
            let _ = write!(line, ", engine {engine}");
        }
        if let Some(refused) = &self.refused {
            let _ = write!(line, "; reload refused: {refused}");
        }
        if let Some(certificate) = &self.certificate {
            let _ = write!(line, "; {certificate}");
        }
        if let Some(note) = &self.note {
            let _ = write!(line, "; {note}");
        }
        if let Some(cause) = &self.fallback {
            let _ = write!(line, "; no io_uring: {cause}");
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_is_served_and_what_was_refused() {
        let mut counts = Counts {
            live: 42,
            sent: 1_288_490_188,
            ..Counts::default()
        };
        counts.refused[Reason::Full as usize] = 5;
        let status = Status::default();
        assert_eq!(
            status.line(&counts),
            "42 connections, 1.2 GiB echoed, 5 refused (full)"
        );
    }

    #[test]
    fn an_engine_that_was_asked_for_is_named_and_why_it_is_another() {
        let mut status = Status {
            engine: Some(Engine::IoUring),
            ..Status::default()
        };
        let line = status.line(&Counts::default());
        assert_eq!(line, "0 connections, 0 B echoed, engine io_uring");
        status.engine = Some(Engine::Epoll);
        status.fallback = Some("io_uring_setup: Operation not permitted".into());
        assert_eq!(
            status.line(&Counts::default()),
            "0 connections, 0 B echoed, engine epoll; no io_uring: io_uring_setup: Operation not permitted"
        );
    }

    #[test]
    fn pressure_is_a_word_and_a_count() {
        let mut status = Status {
            pressed: true,
            pressures: 3,
            ..Status::default()
        };
        let counts = Counts::default();
        let line = status.line(&counts);
        assert_eq!(line, "0 connections, 0 B echoed, under pressure (3)");
        status.pressed = false;
        let line = status.line(&counts);
        assert_eq!(line, "0 connections, 0 B echoed, was under pressure (3)");
    }

    #[test]
    fn a_refused_reload_stays_in_the_line() {
        let status = Status {
            refused: Some("echod.toml:3: no".into()),
            draining: true,
            ..Status::default()
        };
        let counts = Counts {
            live: 1,
            ..Counts::default()
        };
        assert_eq!(
            status.line(&counts),
            "draining: 1 connection, 0 B echoed; reload refused: echod.toml:3: no"
        );
    }
}
