//! Instructions of a process, counted by the processor and read by `perf stat`.
//!
//! Many virtual machines do not let their guests count; then there is no such column, which is no failure.
//! perf is told by a pipe when to begin and when to stop, and says by another that it did, so that
//! exactly what happens in between is counted.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use tempfile::TempDir;

const EVENTS: &str = "instructions:u,instructions:k";

/// How long perf may take to do what it was told.
const PATIENCE: Duration = Duration::from_secs(5);

/// Instructions that were executed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Instructions {
    /// In the program.
    pub user: f64,
    /// In the kernel, on the program's behalf.
    pub kernel: f64,
}

/// Can this machine count instructions, and read the count?
pub fn counts() -> bool {
    let perf = Command::new("perf")
        .args(["stat", "-x", ",", "-e", EVENTS, "true"])
        .stdin(Stdio::null())
        .output();
    perf.is_ok_and(|output| read(&String::from_utf8_lossy(&output.stderr)).is_some())
}

/// A perf that counts one process and all its threads.
#[derive(Debug)]
pub struct Perf {
    child: Child,
    orders: File,
    answers: File,
    _directory: TempDir,
}

impl Perf {
    /// Attaches to a process; nothing is counted yet.
    pub fn attach(pid: Pid) -> io::Result<Perf> {
        let directory = TempDir::new()?;
        let [orders, answers] = ["orders", "answers"].map(|name| directory.path().join(name));
        for pipe in [&orders, &answers] {
            mkfifo(pipe, Mode::S_IRUSR | Mode::S_IWUSR)?;
        }
        let control = format!("fifo:{},{}", orders.display(), answers.display());
        let child = Command::new("perf")
            .args(["stat", "-x", ",", "-e", EVENTS, "--delay=-1", "--control"])
            .args([&control, "-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        Ok(Perf {
            child,
            orders: open(&orders)?,
            answers: open(&answers)?,
            _directory: directory,
        })
    }

    /// Counts from now on.
    pub fn begin(&mut self) -> io::Result<()> {
        self.order("enable\n")
    }

    /// Stops, and answers what was counted.
    pub fn end(mut self) -> io::Result<Instructions> {
        self.order("disable\n")?;
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGINT)?;
        let output = self.child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        read(&said).ok_or_else(|| io::Error::other(format!("perf said: {said}")))
    }

    fn order(&mut self, order: &str) -> io::Result<()> {
        self.orders.write_all(order.as_bytes())?;
        let timeout = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::NONE);
        let mut wanted = [PollFd::new(self.answers.as_fd(), PollFlags::POLLIN)];
        if poll(&mut wanted, timeout)? == 0 {
            return Err(io::Error::other("perf does not answer"));
        }
        // "ack", a newline and a zero; the next answer comes only after the next order.
        self.answers.read(&mut [0; 16]).map(|_| ())
    }
}

/// For reading and writing: so it does not wait until the other end is open.
fn open(pipe: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(pipe)
}

/// What `perf stat -x,` says, if it has counted both.
fn read(said: &str) -> Option<Instructions> {
    let count = |event: &str| {
        let line = said.lines().find(|line| line.contains(event))?;
        line.split(',').next()?.parse().ok()
    };
    Some(Instructions {
        user: count("instructions:u")?,
        kernel: count("instructions:k")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_counts_are_read() {
        let said =
            "Events enabled\n12,,instructions:u,9,100.00,,\n345,,instructions:k,9,100.00,,\n";
        let (user, kernel) = (12.0, 345.0);
        assert_eq!(read(said), Some(Instructions { user, kernel }));
    }

    #[test]
    fn what_a_machine_does_not_count_is_no_number() {
        let said = "<not supported>,,instructions:u,0,100.00,,\n345,,instructions:k,9,100.00,,\n";
        assert_eq!(read(said), None);
    }
}
