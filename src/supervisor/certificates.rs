//! What the operator hears of certificates: at each load, and once a day as they come to their end.

use std::time::Duration;

use jiff::Timestamp;

use super::Supervisor;
use crate::config::{Change, What, escape};
use crate::logging::{Event, kind};
use crate::tick::Tick;
use crate::tls::{Note, NoteKind, Renewed};

/// How often the certificates in force are judged again.
pub(super) const JUDGE_EVERY: Duration = Duration::from_secs(86_400);

/// What the log says of it; `None`: nothing.
pub(super) fn event(note: &Note) -> Option<Event> {
    let kind = match note.kind {
        NoteKind::Expires => &kind::CERTIFICATE_EXPIRES,
        NoteKind::Kept => &kind::CREDENTIAL_KEPT,
        NoteKind::Valid => return None,
    };
    let event = Event::of(kind).with("listener", &note.listener);
    Some(event.detail(note))
}

/// What a report says of a file that has other certificates in it.
pub(super) fn change(renewed: Renewed) -> Change {
    Change {
        listener: Some(renewed.listener),
        what: What::Renewed {
            file: escape(&renewed.path.to_string_lossy()),
            until: renewed.until,
        },
    }
}

impl Supervisor {
    /// Says which have come near their end, or past it, and has the status say how it is today.
    pub(super) fn judge_certificates(&mut self, now: Tick) {
        self.certificates_due = now + JUDGE_EVERY;
        let crossed = self.serving.judge(Timestamp::now().as_second());
        for event in crossed.iter().filter_map(event) {
            self.log.say(event);
        }
        let certificate = self.serving.certificate();
        if certificate != self.status.certificate {
            self.status.certificate = certificate;
            self.send_status(now);
        }
    }
}
