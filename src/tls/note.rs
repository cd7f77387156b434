//! What there is to know of an identity that is well.

use std::path::PathBuf;

use crate::config::escape;

/// Something about an identity that somebody should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The listener's name.
    pub listener: String,
    /// The file that it is about.
    pub path: PathBuf,
    /// What there is to know.
    pub text: String,
    /// Who should know.
    pub kind: NoteKind,
}

/// Who should know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteKind {
    /// Somebody who acts.
    Expires,
    /// Somebody who wonders.
    Kept,
    /// Somebody who asked.
    Valid,
}

/// `/etc/echod/tls/cert.pem expires on 2026-01-31 in 3 days`.
impl std::fmt::Display for Note {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = escape(&self.path.to_string_lossy());
        write!(formatter, "{path} {}", self.text)
    }
}

impl Note {
    /// With the listener's name in front.
    pub(super) fn line(&self) -> String {
        format!("listener \"{}\": tls: {self}", self.listener)
    }
}
