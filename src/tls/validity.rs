//! Until when the certificates of our files are valid, and whether they are others than they were. Pure: told the time.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;

use super::certificate::Said;
use super::note::{Note, NoteKind};

/// A certificate that is valid for less is warned of.
const SOON: i64 = 14 * DAY;

const DAY: i64 = 86_400;

/// How a certificate stands to the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Early,
    Well,
    Soon,
    Expired,
}

/// From when and until when a certificate is valid, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    not_before: i64,
    not_after: i64,
}

impl Validity {
    pub(super) fn of(said: &Said) -> Validity {
        Validity {
            not_before: said.not_before,
            not_after: said.not_after,
        }
    }

    fn stage(self, now: i64) -> Stage {
        if now < self.not_before {
            Stage::Early
        } else if now > self.not_after {
            Stage::Expired
        } else if self.not_after - now < SOON {
            Stage::Soon
        } else {
            Stage::Well
        }
    }

    pub(super) fn is_valid(self, now: i64) -> bool {
        !matches!(self.stage(now), Stage::Early | Stage::Expired)
    }

    /// `expires on 2026-01-31 00:00 UTC, in 3 days`.
    pub(super) fn text(self, now: i64) -> String {
        match self.stage(now) {
            Stage::Early => format!("is not valid before {}", day(self.not_before)),
            Stage::Well => format!("is valid until {}", day(self.not_after)),
            Stage::Soon => {
                let days = (self.not_after - now) / DAY;
                let plural = if days == 1 { "" } else { "s" };
                let until = day(self.not_after);
                format!("expires on {until}, in {days} day{plural}")
            }
            Stage::Expired => format!("expired on {}", day(self.not_after)),
        }
    }

    /// Has it come to be worth a warning since then?
    fn has_crossed(self, then: i64, now: i64) -> bool {
        let stage = self.stage(now);
        stage != self.stage(then) && matches!(stage, Stage::Soon | Stage::Expired)
    }
}

/// A file with certificates, as a listener uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    listener: String,
    path: PathBuf,
    /// Of each certificate in it, in its order.
    validities: Vec<Validity>,
    /// Tells what is in it from what was in it before; a report needs no proof.
    print: u64,
}

impl Seen {
    pub(super) fn new(
        listener: &str,
        path: &Path,
        said: &[Said],
        all: &[CertificateDer<'_>],
    ) -> Seen {
        let mut hasher = DefaultHasher::new();
        all.iter().for_each(|der| der.as_ref().hash(&mut hasher));
        Seen {
            listener: listener.to_owned(),
            path: path.into(),
            validities: said.iter().map(Validity::of).collect(),
            print: hasher.finish(),
        }
    }

    /// What there is to know of each certificate at this time.
    pub(super) fn notes(&self, now: i64) -> impl Iterator<Item = Note> {
        let all = self.validities.iter();
        all.map(move |validity| self.note(*validity, now))
    }

    /// What somebody should hear of now and did not have to then.
    pub(super) fn crossed(&self, then: i64, now: i64) -> impl Iterator<Item = Note> {
        let all = self.validities.iter();
        let crossed = all.filter(move |validity| validity.has_crossed(then, now));
        crossed.map(move |validity| self.note(*validity, now))
    }

    fn note(&self, validity: Validity, now: i64) -> Note {
        Note {
            listener: self.listener.clone(),
            path: self.path.clone(),
            text: validity.text(now),
            kind: match validity.stage(now) {
                Stage::Well => NoteKind::Valid,
                _ => NoteKind::Expires,
            },
        }
    }

    /// If one of these is the same file with something else in it: what is in it now.
    pub(super) fn renewed(&self, before: &[Seen]) -> Option<Renewed> {
        let is_it = |one: &&Seen| one.listener == self.listener && one.path == self.path;
        let before = before.iter().find(is_it)?;
        (before.print != self.print).then(|| Renewed {
            listener: self.listener.clone(),
            path: self.path.clone(),
            until: self
                .validities
                .first()
                .map_or_else(String::new, |first| day(first.not_after)),
        })
    }
}

/// A file of certificates that has others in it than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// The listener's name.
    pub listener: String,
    /// The file.
    pub path: PathBuf,
    /// How long its first certificate is valid.
    pub until: String,
}

fn day(second: i64) -> String {
    Timestamp::from_second(second).map_or_else(
        |_| "a day beyond all".into(),
        |time| time.strftime("%Y-%m-%d %H:%M UTC").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALIDITY: Validity = Validity {
        not_before: 100 * DAY,
        not_after: 200 * DAY,
    };

    #[test]
    fn validity_is_told_as_it_is_at_the_time() {
        let told = |now| (VALIDITY.text(now), VALIDITY.is_valid(now));
        for (now, text, is_valid) in [
            (99 * DAY, "is not valid before 1970-04-11 00:00 UTC", false),
            (100 * DAY, "is valid until 1970-07-20 00:00 UTC", true),
            (186 * DAY, "is valid until 1970-07-20 00:00 UTC", true),
            (
                186 * DAY + 1,
                "expires on 1970-07-20 00:00 UTC, in 13 days",
                true,
            ),
            (
                199 * DAY - 1,
                "expires on 1970-07-20 00:00 UTC, in 1 day",
                true,
            ),
            (
                200 * DAY,
                "expires on 1970-07-20 00:00 UTC, in 0 days",
                true,
            ),
            (200 * DAY + 1, "expired on 1970-07-20 00:00 UTC", false),
        ] {
            assert_eq!(told(now), (text.to_owned(), is_valid), "{now}");
        }
    }

    #[test]
    fn a_warning_is_due_once_before_the_end_and_once_after_it() {
        let days: Vec<i64> = (90..=210).map(|day| day * DAY + 60).collect();
        let due = days
            .windows(2)
            .filter(|pair| VALIDITY.has_crossed(pair[0], pair[1]))
            .map(|pair| pair[1] / DAY);
        assert_eq!(due.collect::<Vec<_>>(), [186, 200]);
        // A clock that was set, or a host that slept: what was passed over is not told, what is now is.
        assert!(VALIDITY.has_crossed(90 * DAY, 300 * DAY));
        assert!(!VALIDITY.has_crossed(300 * DAY, 150 * DAY));
    }

    #[test]
    fn what_is_renewed_is_another_certificate_in_the_same_file() {
        let seen = |listener, path, der: &'static [u8]| {
            let said = Said {
                not_before: 0,
                not_after: DAY,
                names: Vec::new(),
            };
            Seen::new(listener, Path::new(path), &[said], &[der.into()])
        };
        let before = [seen("one", "a.pem", b"1"), seen("two", "b.pem", b"1")];
        for unchanged in [
            seen("one", "a.pem", b"1"),
            seen("one", "b.pem", b"2"),
            seen("three", "a.pem", b"2"),
        ] {
            assert_eq!(unchanged.renewed(&before), None, "{unchanged:?}");
        }
        let renewed = Renewed {
            listener: "two".into(),
            path: "b.pem".into(),
            until: "1970-01-02 00:00 UTC".into(),
        };
        assert_eq!(seen("two", "b.pem", b"2").renewed(&before), Some(renewed));
    }
}
