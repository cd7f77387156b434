//! Takes from the whole process what whoever takes it over would want and it never needs: a connection of its own,
//! and one more io_uring ring.
//!
//! A listening socket that was handed over is a socket of the host: turned round, it would reach what the host
//! reaches, whatever the sandbox says of new ones. So Landlock refuses to connect it, where the kernel has that.
//! Not more than that: it sees plain TCP alone, and not a SYN with data (`MSG_FASTOPEN`); SECURITY.md says what bounds those.
//!
//! No filter of system calls sees what is asked of a ring: with one of its own, whoever took over the process
//! would have sockets past `RestrictAddressFamilies=`. So once the engine has its rings, each restricted to the
//! operations that it needs, there are no others to be had. Everything else is let through: what a
//! service may call is its unit's to say, and a second list of that would be wrong first. There is no way back from
//! either, for any thread, for what is started by one, or over an exec.

use std::env::consts::ARCH;
use std::io;

use landlock::{
    AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetError, RulesetStatus,
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter_all_threads};

use crate::cause::cause;

/// The mark of a call by the x32 table, which a kernel may have beside the one of x86-64.
const X32: libc::c_long = 0x4000_0000;

/// Why a ring could still be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Numbers of system calls belong to an architecture, and those of this one are not known.
    #[error("cannot deny further rings: no filter for {ARCH} is known (use engine \"epoll\")")]
    Architecture,

    /// The kernel takes no filter from us.
    #[error("cannot deny further rings: {call}: {} (SystemCallFilter= has to let it through)", cause(.source))]
    Refused {
        /// The system call.
        call: &'static str,
        /// What the kernel said.
        source: io::Error,
    },

    /// A filter holds for all threads or is not taken, and this one stands in the way.
    #[error("cannot deny further rings: thread {0} has a filter that we have not")]
    Thread(libc::c_long),
}

/// From now on a TCP socket of this thread, and of those that it starts, cannot be connected. Call it before the
/// first one. Sets `no_new_privs`. Answers whether it is so: Linux has it since 6.7, if it is built with Landlock, and
/// a sandbox may stand in the way. The daemon serves all the same.
pub fn deny_connections() -> bool {
    let refuse_all = || -> Result<_, RulesetError> {
        Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessNet::ConnectTcp)?
            .create()?
            .restrict_self()
    };
    refuse_all().is_ok_and(|status| status.ruleset == RulesetStatus::FullyEnforced)
}

/// From now on `io_uring_setup(2)` answers EPERM to every thread of this process. Sets `no_new_privs`.
///
/// # Errors
/// When that is not so; nothing has changed then.
pub fn deny_new_rings() -> Result<(), Error> {
    let filter = filter(ARCH.try_into().map_err(|_| Error::Architecture)?);
    let refused = |call| move |source| Error::Refused { call, source };
    apply_filter_all_threads(&filter).map_err(|error| match error {
        seccompiler::Error::Prctl(source) => refused("prctl")(source),
        seccompiler::Error::Seccomp(source) => refused("seccomp")(source),
        seccompiler::Error::ThreadSync(thread) => Error::Thread(thread),
        error => unreachable!("the filter is a constant, and a test compiles it: {error}"),
    })
}

/// A call of another architecture, such as a 32-bit one, ends the process: its numbers mean something else.
fn filter(arch: TargetArch) -> BpfProgram {
    let setup = libc::SYS_io_uring_setup;
    // An empty list of conditions: whatever the arguments are.
    let mut denied = vec![(setup, Vec::new())];
    if arch == TargetArch::x86_64 {
        denied.push((setup | X32, Vec::new()));
    }
    let eperm = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    SeccompFilter::new(
        denied.into_iter().collect(),
        SeccompAction::Allow,
        eperm,
        arch,
    )
    .and_then(BpfProgram::try_from)
    .expect("the filter is a constant, and a test compiles it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_short_filter_for_each_architecture() {
        for arch in [TargetArch::x86_64, TargetArch::aarch64, TargetArch::riscv64] {
            let steps = filter(arch).len();
            // The kernel works it out once for each number that it always lets through, and remembers that.
            assert!((1..=24).contains(&steps), "{arch:?}: {steps} steps");
        }
    }

    #[test]
    fn a_refusal_names_the_call_and_the_remedy() {
        let error = Error::Refused {
            call: "seccomp",
            source: io::Error::from_raw_os_error(libc::EPERM),
        };
        assert_eq!(
            error.to_string(),
            "cannot deny further rings: seccomp: Operation not permitted (SystemCallFilter= has to let it through)"
        );
    }
}
