//! When to say what piles up: at most once a second, less and less often while nobody takes it, and in the
//! end only once somebody does: an idle daemon does not wake for it. Pure.

use std::time::{Duration, Instant};

use super::transport::Outcome;

/// The least time between two reports of a sort.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Attempts at a report that nobody takes, each after twice the time of the last: two minutes in all.
const ATTEMPTS_MAX: u32 = 7;

/// When to say something that piles up.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// When it should be said; `None`: nothing is known to be waiting.
    pub(super) due: Option<Instant>,
    said: Option<Instant>,
    /// Attempts since somebody last took a line; at [`ATTEMPTS_MAX`] it waits for that.
    failures: u32,
}

impl Report {
    /// There is something to say: is it time? If not, it is known from here on when it will be.
    pub(super) fn is_due(&mut self, now: Instant, all: bool) -> bool {
        if self.failures >= ATTEMPTS_MAX {
            return all;
        }
        let earliest = self.said.map_or(now, |said| said + REPORT_EVERY);
        all || *self.due.get_or_insert(earliest) <= now
    }

    /// It was tried.
    pub(super) fn done(&mut self, now: Instant, outcome: Outcome) {
        match outcome {
            Outcome::Written => {
                *self = Report {
                    due: None,
                    said: Some(now),
                    failures: 0,
                }
            }
            Outcome::Dropped => {
                let pause = REPORT_EVERY.saturating_mul(1 << self.failures.min(ATTEMPTS_MAX));
                self.failures = (self.failures + 1).min(ATTEMPTS_MAX);
                self.due = (self.failures < ATTEMPTS_MAX).then_some(now + pause);
            }
        }
    }

    /// Somebody takes lines again.
    pub(super) fn hasten(&mut self, now: Instant) {
        if self.failures > 0 {
            *self = Report {
                due: Some(now),
                failures: 0,
                ..*self
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_a_second_apart_and_rarer_while_nobody_takes_them() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut report = Report::default();
        assert!(report.is_due(start, false));
        report.done(start, Outcome::Written);
        assert!(!report.is_due(start, false));
        assert_eq!(report.due, Some(after(1)));
        assert!(report.is_due(after(1), false));
        let mut at = 1;
        for pause in [1, 2, 4, 8, 16, 32] {
            report.done(after(at), Outcome::Dropped);
            at += pause;
            assert_eq!(report.due, Some(after(at)));
        }
        report.done(after(at), Outcome::Dropped);
        assert_eq!(report.due, None, "an idle daemon does not wake for it");
        assert!(!report.is_due(after(1000), false));
        report.hasten(after(1001));
        assert!(report.is_due(after(1001), false));
    }
}
