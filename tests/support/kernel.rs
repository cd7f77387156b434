//! A process as the kernel sees it, and what only the kernel can do to one: hold a single thread, give
//! it a terminal.
//!
//! Part of a test program by `#[path]`, beside `support`.

#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(unsafe_code, reason = "nix is built without ptrace and terminals here")]

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::support::PATIENCE;

/// Has the process installed a handler for this signal? `None`: it is no process any more.
pub fn catches(pid: Pid, signal: Signal) -> Option<bool> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let caught = status.lines().find_map(|l| l.strip_prefix("SigCgt:"))?;
    let caught = u64::from_str_radix(caught.trim(), 16).expect("a set of signals");
    Some(caught >> (signal as i32 - 1) & 1 == 1)
}

/// Waits until the process has installed a handler for this signal.
pub fn wait_until_catches(pid: Pid, signal: Signal) {
    wait_until("it catches the signal", || {
        catches(pid, signal).expect("a process")
    });
}

/// Waits for something that the kernel shows and does not tell.
pub fn wait_until(what: &str, is: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::yield_now();
    }
}

/// Is the process stopped by SIGSTOP?
pub fn is_stopped(pid: Pid) -> bool {
    let threads = threads(pid);
    let state = |tid: &Pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat")).unwrap_or_default();
        let after = stat
            .rsplit_once(')')
            .map(|(_, rest)| rest.trim_start().to_owned());
        after.is_some_and(|rest| rest.starts_with('T'))
    };
    !threads.is_empty() && threads.keys().all(state)
}

/// The threads of a process and their names.
pub fn threads(pid: Pid) -> BTreeMap<Pid, String> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .map(|path: PathBuf| {
            let tid = path
                .file_name()
                .and_then(|name| name.to_str()?.parse().ok());
            let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
            (
                Pid::from_raw(tid.expect("a number")),
                name.trim().to_owned(),
            )
        })
        .collect()
}

/// How often each thread of a process has gone to sleep by itself.
pub fn sleeps(pid: Pid) -> BTreeMap<Pid, u64> {
    let count = |tid: &Pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/task/{tid}/status"));
        let status = status.expect("a thread");
        let line = "voluntary_ctxt_switches:";
        let line = status.lines().find_map(|l| l.strip_prefix(line));
        line.expect("a count").trim().parse().expect("a number")
    };
    let threads = threads(pid);
    threads.keys().map(|tid| (*tid, count(tid))).collect()
}

/// A thread that is held, by ptrace(2), until this goes. Let go of it on the same thread.
#[derive(Debug)]
pub struct HeldThread(Pid);

impl HeldThread {
    /// Holds the thread with this name.
    pub fn hold(pid: Pid, name: &str) -> HeldThread {
        let threads = threads(pid);
        let found = threads.iter().find(|(_, other)| *other == name);
        let tid = *found.expect("a thread of that name").0;
        trace(libc::PTRACE_SEIZE, tid).expect("seize");
        let held = HeldThread(tid);
        trace(libc::PTRACE_INTERRUPT, tid).expect("interrupt");
        waitpid(tid, Some(WaitPidFlag::__WALL)).expect("stopped");
        held
    }
}

impl Drop for HeldThread {
    fn drop(&mut self) {
        let _ = trace(libc::PTRACE_DETACH, self.0);
    }
}

fn trace(request: libc::c_uint, tid: Pid) -> Result<(), Errno> {
    let nothing = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: none of the three requests reads or writes memory of ours.
    let result = unsafe { libc::ptrace(request, tid.as_raw(), nothing, nothing) };
    Errno::result(result).map(drop)
}

/// A terminal: the end at which somebody sits, and the device that a program has.
#[derive(Debug)]
pub struct Terminal {
    /// Who lets go of it hangs up.
    pub master: File,
    /// Where the other end can be opened.
    pub path: PathBuf,
    /// Kept until the program has opened it, since a terminal that was closed has hung up as well.
    slave: File,
}

impl Terminal {
    /// A new one.
    pub fn open() -> Terminal {
        // Not by openpty(3), whose descriptors a process that is started just then would inherit.
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).custom_flags(libc::O_NOCTTY);
        let master = options.open("/dev/ptmx").expect("a terminal");
        let (mut number, mut locked) = (0, 0);
        // SAFETY: the first reads one int, the second writes one, each a variable of ours.
        let result = unsafe {
            libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw mut locked)
                | libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut number)
        };
        Errno::result(result).expect("unlock it");
        let _: (libc::c_int, libc::c_int) = (number, locked);
        let path = PathBuf::from(format!("/dev/pts/{number}"));
        let slave = options.open(&path).expect("its other end");
        Terminal {
            master,
            path,
            slave,
        }
    }

    /// Somebody closes the window.
    pub fn hang_up(self) {
        drop(self.slave);
        drop(self.master);
    }
}

/// A copy of every socket that a process holds, by pidfd_getfd(2): it is the same socket.
pub fn sockets(pid: Pid) -> Vec<OwnedFd> {
    // SAFETY: neither call has a pointer; what they answer is checked below.
    let process = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0u32) };
    let process = owned(process);
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("a process");
    let is_socket = |path: &PathBuf| {
        // One that was closed meanwhile is none.
        let to = fs::read_link(path).unwrap_or_default();
        to.to_string_lossy().starts_with("socket:")
    };
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let number = |path: PathBuf| path.file_name()?.to_str()?.parse::<RawFd>().ok();
    let copy = |number: RawFd| {
        let (process, number) = (process.as_raw_fd(), number);
        // SAFETY: as above.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process, number, 0u32) };
        owned(fd)
    };
    let numbers = paths.filter(is_socket).filter_map(number);
    numbers.map(copy).collect()
}

fn owned(answer: libc::c_long) -> OwnedFd {
    let number = Errno::result(answer).expect("a descriptor");
    let number = RawFd::try_from(number).expect("a descriptor");
    // SAFETY: the kernel answered a new descriptor, which nobody else knows.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// A socket option that is a number.
pub fn option(socket: &OwnedFd, level: libc::c_int, option: libc::c_int) -> libc::c_int {
    let mut value: libc::c_int = 0;
    let mut length = libc::socklen_t::try_from(size_of_val(&value)).expect("four");
    // SAFETY: both are variables of ours, and the length says how long the first is.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    Errno::result(result).expect("a socket with that option");
    value
}
