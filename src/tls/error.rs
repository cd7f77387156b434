//! Why there is no identity: the listener, the file, the cause, the remedy.

use std::io;
use std::path::PathBuf;

use crate::cause::cause;
use crate::config::escape;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("listener {listener:?}: tls: {}: {} ({})", escape(&.path.to_string_lossy()), cause(.source), remedy(.source))]
    Unreadable {
        /// The listener's name.
        listener: String,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file has not what it should have.
    #[error("listener {listener:?}: tls: {}: {what} ({remedy})", escape(&.path.to_string_lossy()))]
    Wrong {
        /// The listener's name.
        listener: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The library does not serve this.
    #[error("listener {listener:?}: tls: {what} (see echod.toml(5))")]
    Unusable {
        /// The listener's name.
        listener: String,
        /// What it said.
        what: String,
    },
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "put it there, or name another",
        io::ErrorKind::PermissionDenied => {
            "let the daemon's user read it: chgrp and chmod, or hand it over with LoadCredential= and restart"
        }
        _ => "name a file that can be read",
    }
}
