//! Finds the configuration's file and reads it, within bounds.
//!
//! Whatever stands at the path, reading it ends: a pipe, a device or a file without an end is refused
//! rather than waited for.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use super::error::Error;
use super::schema;
use super::{Config, Listener, Log, Origin, Target, parse, text, validate};

/// Read when nothing is named on the command line, if it is there.
pub const DEFAULT_PATH: &str = "/etc/echod/echod.toml";

/// Longest file that is read: a hundred times what 64 listeners with every key take.
pub const FILE_MAX: u64 = 1 << 20;

impl Config {
    /// The configuration of the file at `path`; with no path, of `/etc/echod/echod.toml`, or the
    /// built-in one if that is not there.
    ///
    /// For a reload, name the file that was read before: one that is gone is then refused.
    pub fn load(path: Option<&Path>) -> Result<Self, Error> {
        match path {
            Some(path) => load_file(path),
            None => load_default(Path::new(DEFAULT_PATH)),
        }
    }

    /// The configuration that `text` describes; `name` stands for it in messages. Pure.
    pub fn parse(text: &str, name: &Path) -> Result<Self, Error> {
        parse::parse(text, name)
    }

    /// Echo on this machine alone, and the log on standard error.
    pub fn builtin() -> Self {
        let addresses = [
            SocketAddr::from(([127, 0, 0, 1], 8080)),
            SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 8080)),
        ];
        Self {
            origin: Origin::BuiltIn,
            ..Self::listen(&addresses)
        }
    }

    /// The built-in configuration, at these addresses instead.
    pub fn listen(addresses: &[SocketAddr]) -> Self {
        let defaults = Self::defaults();
        let listeners = defaults
            .listeners
            .into_iter()
            .map(|listener| Listener {
                address: addresses.to_vec(),
                ..listener
            })
            .collect();
        Self {
            origin: Origin::CommandLine,
            log: Log {
                target: Target::Stderr,
                ..defaults.log
            },
            listeners,
            ..defaults
        }
    }

    /// Every key at its default, and one listener: what the shipped file says.
    pub fn defaults() -> Self {
        let file = schema::File {
            listener: schema::one_listener(),
            ..schema::File::default()
        };
        validate::validate(file, "", Origin::BuiltIn, Vec::new())
            .expect("a default is a constant, and a test holds that it is valid")
    }
}

fn load_default(path: &Path) -> Result<Config, Error> {
    match fs::symlink_metadata(path) {
        // A link that leads nowhere was meant to lead somewhere: only nothing at all is no file.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Config::builtin()),
        _ => load_file(path),
    }
}

fn load_file(path: &Path) -> Result<Config, Error> {
    let bytes = read(path)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(&error.as_bytes()[..valid]);
        let (line, column) = text::position(&before, valid);
        Error::NotText {
            path: path.into(),
            line,
            column,
        }
    })?;
    parse::parse(&text, path)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let unreadable = |source| Error::Unreadable {
        path: path.into(),
        source,
    };
    // Looked at before it is opened, as to open a device may already do something; and again
    // afterwards, as it may have been replaced in between.
    refuse_special(path, &fs::metadata(path).map_err(unreadable)?)?;
    let file = open(path).map_err(unreadable)?;
    refuse_special(path, &file.metadata().map_err(unreadable)?)?;
    let mut bytes = Vec::new();
    // The length is not asked for, because it can change: what counts is what comes.
    file.take(FILE_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(Error::TooLong {
            path: path.into(),
            max: FILE_MAX,
        });
    }
    Ok(bytes)
}

/// Does not wait for the other end of a pipe, nor becomes the owner of a terminal.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
}

fn refuse_special(path: &Path, metadata: &fs::Metadata) -> Result<(), Error> {
    let kind = metadata.file_type();
    let kind = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(Error::NotAFile {
        path: path.into(),
        kind,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const GOOD: &str = "[[listener]]\n";

    fn written(bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("echod.toml");
        fs::write(&path, bytes).unwrap();
        (directory, path)
    }

    fn refusal(path: &Path) -> String {
        let text = Config::load(Some(path)).unwrap_err().to_string();
        text.replace(path.to_str().unwrap(), "FILE")
    }

    #[test]
    fn the_built_in_configuration_serves_this_machine_alone() {
        let config = Config::builtin();
        assert_eq!(config.origin, Origin::BuiltIn);
        assert_eq!(config.log.target, Target::Stderr);
        let [listener] = &config.listeners[..] else {
            panic!("one listener");
        };
        assert_eq!(listener.name, "echo");
        assert!(listener.address.iter().all(|a| a.ip().is_loopback()));
        assert_eq!(listener.address.len(), 2);
    }

    #[test]
    fn a_file_is_remembered_as_the_origin() {
        let (_directory, path) = written(GOOD.as_bytes());
        let config = Config::load(Some(&path)).unwrap();
        assert_eq!(config.origin, Origin::File(path));
    }

    #[test]
    fn a_file_that_was_named_and_is_missing_is_refused() {
        let (_directory, path) = written(b"");
        fs::remove_file(&path).unwrap();
        assert_eq!(
            refusal(&path),
            "FILE: No such file or directory (name another with --config, or put it back)"
        );
    }

    #[test]
    fn only_nothing_at_all_is_no_default_file() {
        let (_directory, path) = written(b"");
        fs::remove_file(&path).unwrap();
        assert_eq!(load_default(&path).unwrap(), Config::builtin());
        std::os::unix::fs::symlink("nowhere", &path).unwrap();
        assert!(load_default(&path).is_err());
    }

    #[test]
    fn what_is_no_file_is_refused_without_waiting() {
        let (directory, path) = written(b"");
        assert_eq!(
            Config::load(Some(directory.path()))
                .unwrap_err()
                .to_string(),
            format!(
                "{}: a directory, not a file (name a regular file)",
                directory.path().display()
            )
        );
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(
            refusal(&path),
            "FILE: a named pipe, not a file (name a regular file)"
        );
        assert!(refusal(Path::new("/dev/zero")).contains("a device"));
    }

    #[test]
    fn a_file_may_be_as_long_as_the_bound_and_no_longer() {
        let mut text = GOOD.as_bytes().to_vec();
        text.resize(usize::try_from(FILE_MAX).unwrap(), b'\n');
        let (_directory, path) = written(&text);
        assert!(Config::load(Some(&path)).is_ok());
        text.push(b'\n');
        fs::write(&path, &text).unwrap();
        assert_eq!(
            refusal(&path),
            "FILE: longer than 1MiB (is this the right file?)"
        );
    }

    #[test]
    fn a_file_that_is_not_text_is_refused_with_the_place() {
        let (_directory, path) = written(b"# ok\n# gr\xfc\xdfe\n");
        assert_eq!(
            refusal(&path),
            "FILE:2:5: not UTF-8 text (save the file as UTF-8)"
        );
    }
}
