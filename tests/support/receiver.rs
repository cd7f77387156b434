//! A log daemon that belongs to a test: the echod that is started with it finds its socket where the
//! real one would be, in a mount namespace of its own.
//!
//! Needs root. Part of a test program by `#[path]`, beside `support`.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::env;
use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;
use tempfile::TempDir;

use crate::support::PATIENCE;

/// A directory that only one daemon sees at its place.
#[derive(Debug)]
pub struct Place {
    directory: TempDir,
    name: &'static str,
    script: &'static str,
}

impl Place {
    /// What that daemon takes for `/dev`; the receiver is its `log`.
    pub fn of_syslog() -> Place {
        Place::new("log", "mount --bind \"$0\" /dev && exec \"$@\"")
    }

    /// What that daemon takes for `/run/systemd/journal`; the receiver is its `socket`.
    pub fn of_journal() -> Place {
        let script = "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal \
                      && mount --bind \"$0\" /run/systemd/journal && exec \"$@\"";
        Place::new("socket", script)
    }

    fn new(name: &'static str, script: &'static str) -> Place {
        let directory = TempDir::new().expect("a directory");
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("chmod");
        Place {
            directory,
            name,
            script,
        }
    }

    /// The command that has a daemon see it so.
    pub fn wrapper(&self) -> Vec<String> {
        let directory = self.directory.path().to_str().expect("a plain name");
        ["unshare", "--mount", "sh", "-c", self.script, directory]
            .map(str::to_owned)
            .into()
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join(self.name)
    }

    /// Listens there, for everyone.
    pub fn listen(&self) -> Receiver {
        let socket = UnixDatagram::bind(self.path()).expect("bind");
        fs::set_permissions(self.path(), Permissions::from_mode(0o666)).expect("chmod");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Receiver { socket }
    }

    /// Listens no more, and leaves nothing behind.
    pub fn close(&self, receiver: Receiver) {
        fs::remove_file(self.path()).expect("remove");
        drop(receiver);
    }
}

/// The end of a log daemon.
#[derive(Debug)]
pub struct Receiver {
    socket: UnixDatagram,
}

impl Receiver {
    /// The next datagram.
    pub fn next(&self) -> String {
        self.next_within(PATIENCE).expect("a record")
    }

    /// The next datagram, if one comes within that time.
    pub fn next_within(&self, timeout: Duration) -> Option<String> {
        let mut buffer = vec![0; 1 << 18];
        self.socket.set_read_timeout(Some(timeout)).expect("set");
        let received = self.socket.recv(&mut buffer);
        match received {
            Ok(count) => Some(String::from_utf8_lossy(&buffer[..count]).into_owned()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => panic!("receive: {error}"),
        }
    }

    /// The first datagram from now on that contains this.
    pub fn wait(&self, pattern: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let next = self.next();
            if next.contains(pattern) {
                return next;
            }
            assert!(Instant::now() < deadline, "waited in vain for {pattern:?}");
        }
    }
}

/// Is this test to be run? Where it must be, by `CI=true`, it fails if it cannot be.
pub fn can_mount(test: &str) -> bool {
    if geteuid().is_root() {
        return true;
    }
    let demanded = env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!demanded, "CI=true, and this test needs root");
    // Not eprintln, which the test runner swallows when a test succeeds.
    let line = format!("{test}: not run, because it needs root\n");
    io::stderr().write_all(line.as_bytes()).expect("say so");
    false
}
