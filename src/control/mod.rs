//! The local socket by which an administrator's command reaches the running daemon.
//!
//! `control.sock` lies in `$RUNTIME_DIRECTORY`, or in `/run/echod`. Who may open it may use it: mode 0660,
//! root and our group; nobody is asked for a uid, which means nothing across user namespaces.
//!
//! One question, one answer, then the daemon closes:
//! ```text
//! command              daemon
//! reload\n        ->                         at most 256 bytes with the newline; EOF ends it as well
//!                 <-   adopted\nTEXT         the configuration was read again and is in use: how much of it
//!                                            has changed, then a line for each change, until EOF
//!                 <-   refused\nTEXT         it was not, and this is why: lines of text until EOF
//!                 <-   busy\n                too many are asking at once
//!                 <-   error WORDS\n         the question was none: unknown verb, line too long, too slow
//! ```
//! The first line is the whole status; an answer has at most 64 KiB: a refusal is cut there, and of changes
//! those that do not fit are counted, `... and N more`. `server` is the daemon's side and never blocks;
//! `client` is the command's and waits.

pub mod client;
mod exchange;
mod place;
pub mod server;

use std::env;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cause::cause;

pub use client::reload;
pub use server::{ClientId, Request, Server};

/// The socket's name in its directory.
const SOCKET: &str = "control.sock";

/// Its directory when the service manager names none.
const DIRECTORY: &str = "/run/echod";

/// The longest question, with its newline.
pub const MAX_LINE: usize = 256;

/// The longest answer, with its status line.
pub const MAX_ANSWER: usize = 64 * 1024;

/// Most clients at once; the next one is told `busy`.
pub const MAX_CLIENTS: usize = 8;

/// How long a client may take to ask, and again to read the answer.
pub const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);

/// What may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Read the configuration again; adopt it or refuse it.
    Reload,
}

impl Verb {
    /// The verb of a question.
    fn parse(line: &[u8]) -> Option<Verb> {
        match line.trim_ascii() {
            b"reload" => Some(Verb::Reload),
            _ => None,
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Taken whole; what has changed, a line each: all in a few words, then one by one.
    Adopted(Vec<String>),
    /// Refused whole; why, in one or several lines.
    Refused(String),
}

/// Why there is no control socket, or no answer from it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The directory is not there and cannot be made.
    #[error("cannot make the directory {}: {}", path.display(), cause(source))]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },

    /// Another daemon answers there.
    #[error("{}: another echod answers there (stop it, or set RUNTIME_DIRECTORY)", path.display())]
    Taken {
        /// The socket.
        path: PathBuf,
    },

    /// The socket cannot be made.
    #[error("{}: cannot listen: {}", path.display(), cause(source))]
    Listen {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },

    /// Nobody listens there.
    #[error("no daemon answers at {}: {} (is echod running?)", path.display(), cause(source))]
    NoDaemon {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },

    /// It is not for us.
    #[error("{}: {} (only root and the daemon's group may ask)", path.display(), cause(source))]
    Denied {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },

    /// The daemon is there and did not answer in time.
    #[error("{}: no answer within {} s (see: journalctl -u echod)", path.display(), timeout.as_secs())]
    Timeout {
        /// The socket.
        path: PathBuf,
        /// How long we waited.
        timeout: Duration,
    },

    /// The conversation broke off.
    #[error("{}: {}", path.display(), cause(source))]
    Conversation {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },

    /// The daemon closed without an answer.
    #[error("{}: the daemon closed without an answer (see: journalctl -u echod)", path.display())]
    NoAnswer {
        /// The socket.
        path: PathBuf,
    },

    /// Too many ask at once.
    #[error("{}: too many are asking at once (try again)", path.display())]
    Busy {
        /// The socket.
        path: PathBuf,
    },

    /// The daemon did not understand, or we did not.
    #[error("{}: the daemon answered {answer:?} (is it of the same version?)", path.display())]
    Protocol {
        /// The socket.
        path: PathBuf,
        /// Its status line.
        answer: String,
    },
}

/// Where the control socket lies: the first entry of `$RUNTIME_DIRECTORY`, or `/run/echod`.
pub fn directory() -> PathBuf {
    first_entry(env::var_os("RUNTIME_DIRECTORY").as_deref())
}

fn first_entry(variable: Option<&OsStr>) -> PathBuf {
    let entry = variable.and_then(|value| env::split_paths(value).next());
    match entry {
        Some(path) if path.is_absolute() => path,
        _ => PathBuf::from(DIRECTORY),
    }
}

fn socket_in(directory: &Path) -> PathBuf {
    directory.join(SOCKET)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_runtime_directory_counts_and_run_echod_is_the_rest() {
        let first = |value| first_entry(Some(OsStr::new(value)));
        assert_eq!(first("/run/a:/run/b"), Path::new("/run/a"));
        assert_eq!(first(""), Path::new("/run/echod"));
        assert_eq!(first_entry(None), Path::new("/run/echod"));
    }

    #[test]
    fn a_verb_is_one_word() {
        assert_eq!(Verb::parse(b"reload"), Some(Verb::Reload));
        assert_eq!(Verb::parse(b"reload\r"), Some(Verb::Reload));
        assert_eq!(Verb::parse(b"reload now"), None);
        assert_eq!(Verb::parse(b""), None);
    }

    #[test]
    fn a_missing_daemon_is_said_in_one_line() {
        let error = Error::NoDaemon {
            path: socket_in(Path::new(DIRECTORY)),
            source: io::Error::from_raw_os_error(nix::libc::ENOENT),
        };
        assert_eq!(
            error.to_string(),
            "no daemon answers at /run/echod/control.sock: No such file or directory (is echod running?)"
        );
    }
}
