//! Which processor does what: the server has one for itself, and so has the load.

use std::io;

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The two processors. They are one and the same where there is no other; the load then takes time that
/// the server could have used, but none that is counted as the server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpus {
    /// Where servers run.
    pub server: usize,
    /// Where the load comes from.
    pub load: usize,
}

impl Cpus {
    /// The first two processors that this process may use.
    pub fn choose() -> io::Result<Cpus> {
        let allowed = sched_getaffinity(Pid::from_raw(0))?;
        let mut usable = (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu) == Ok(true));
        let server = usable.next().ok_or(Errno::EINVAL)?;
        let load = usable.next().unwrap_or(server);
        Ok(Cpus { server, load })
    }
}

/// Binds this thread, and processes that it starts from now on, to one processor.
pub fn stay_on(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}
