//! What a server used between two moments: CPU time, instructions, memory.
//!
//! CPU time is the clock of the process: exact to the nanosecond, with the threads that have ended. It is what
//! a comparison rests on: a rate is bounded by the load as well, and by whatever else the machine does.

use std::fs;
use std::io;
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::perf::{Instructions, Perf};

/// What was used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Processor time, in the program and in the kernel.
    pub cpu: Duration,
    /// `None` where nobody counts them.
    pub instructions: Option<Instructions>,
}

/// Measures one process.
#[derive(Debug)]
pub struct Meter {
    clock: ClockId,
    perf: Option<Perf>,
    began: Duration,
}

impl Meter {
    /// Looks at a process; with instructions if they can be counted.
    pub fn attach(pid: Pid, with_instructions: bool) -> io::Result<Meter> {
        Ok(Meter {
            clock: clock_getcpuclockid(pid)?,
            perf: with_instructions.then(|| Perf::attach(pid)).transpose()?,
            began: Duration::ZERO,
        })
    }

    /// From now on.
    pub fn begin(&mut self) -> io::Result<()> {
        if let Some(perf) = &mut self.perf {
            perf.begin()?;
        }
        self.began = self.cpu()?;
        Ok(())
    }

    /// Until now.
    pub fn end(self) -> io::Result<Cost> {
        let cpu = self.cpu()? - self.began;
        let instructions = self.perf.map(Perf::end).transpose()?;
        Ok(Cost { cpu, instructions })
    }

    /// Processor time that the process has used since it began.
    pub fn cpu(&self) -> io::Result<Duration> {
        Ok(TimeSpec::into(clock_gettime(self.clock)?))
    }
}

/// Bytes of memory that a process has for itself, and its share of what it has together with others.
pub fn memory(pid: Pid) -> io::Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let kibibytes = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB"))
        .and_then(|number| number.parse::<u64>().ok());
    kibibytes
        .map(|kibibytes| kibibytes * 1024)
        .ok_or_else(|| io::Error::other("the kernel does not tell a process's share of memory"))
}
