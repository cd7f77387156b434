//! Which engine the workers have: what the configuration asks for, as far as this host allows it.
//!
//! Chosen once, before the first thread and without privileges, so that what is found out here is what the
//! workers will meet. Epoll is always there; io_uring is tried, and only where the configuration names it.

use std::io;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;

use crate::cause::cause;
use crate::config::{Config, Engine, worker_count};
use crate::driver::uring::{Disabled, UringDriver, probe};
use crate::lockdown;
use crate::logging::{Event, kind};

/// The longest wait for locked memory, and how often it is asked for meanwhile.
const PATIENCE: Duration = Duration::from_millis(500);
const STEP: Duration = Duration::from_millis(10);

/// A ring for each worker.
pub type Rings = Vec<Disabled>;

/// What the workers have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// One of the two, never the wish for either.
    pub engine: Engine,
    /// Why it is epoll where io_uring would have been welcome.
    pub fallback: Option<String>,
}

/// The configuration will have io_uring and nothing else, and this host has none for us.
#[derive(Debug, thiserror::Error)]
#[error("engine \"io_uring\": not available: {cause} (use \"epoll\" or \"auto\")")]
pub struct Error {
    cause: String,
}

/// The engine for a configuration, and the rings if it is io_uring: after that no more can be made.
///
/// # Errors
/// When it has to be io_uring, and that cannot be had.
pub fn choose(config: &Config, max_connections: u32) -> Result<(Choice, Option<Rings>), Error> {
    let workers = worker_count(config);
    choose_by(config.engine, || rings(workers, max_connections))
}

impl Choice {
    /// What the log says of it.
    pub fn event(&self) -> Event {
        let event = Event::of(&kind::ENGINE).with("engine", self.engine);
        match &self.fallback {
            Some(cause) => event.with("cause", cause),
            None => event,
        }
    }
}

fn choose_by<R>(
    wanted: Engine,
    rings: impl FnOnce() -> Result<R, String>,
) -> Result<(Choice, Option<R>), Error> {
    let epoll = |fallback| Choice {
        engine: Engine::Epoll,
        fallback,
    };
    if wanted == Engine::Epoll {
        return Ok((epoll(None), None));
    }
    let io_uring = Choice {
        engine: Engine::IoUring,
        fallback: None,
    };
    match rings() {
        Ok(rings) => Ok((io_uring, Some(rings))),
        Err(cause) if wanted == Engine::IoUring => Err(Error { cause }),
        Err(cause) => Ok((epoll(Some(cause)), None)),
    }
}

/// Makes the rings, if io_uring does here what it should, and shuts the door behind them. If not: why.
fn rings(workers: u16, max_connections: u32) -> Result<Rings, String> {
    probe().map_err(|error| error.to_string())?;
    let rings = rings_patiently(workers, max_connections).map_err(|error| no_ring(&error))?;
    lockdown::deny_new_rings().map_err(|error| error.to_string())?;
    Ok(rings)
}

/// Makes them, and waits a moment for locked memory: the kernel gives back that of a process which used
/// io_uring some 100 ms after its death, so a restart may come too early.
fn rings_patiently(workers: u16, max_connections: u32) -> io::Result<Rings> {
    let mut waited = Duration::ZERO;
    loop {
        match UringDriver::rings(workers, max_connections) {
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory && waited < PATIENCE => {
                thread::sleep(STEP);
                waited += STEP;
            }
            result => return result,
        }
    }
}

/// Why a ring cannot be made where one could be.
fn no_ring(error: &io::Error) -> String {
    let remedy = match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOMEM) => " (raise LimitMEMLOCK=, or lower workers)",
        _ => "",
    };
    format!("no ring for each worker: {}{remedy}", cause(error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn refused() -> Result<(), String> {
        Err("io_uring_setup: Operation not permitted".into())
    }

    #[test]
    fn epoll_is_taken_without_trying_the_other() {
        let choice = choose_by(Engine::Epoll, || -> Result<(), String> {
            panic!("nobody asked for it")
        })
        .unwrap()
        .0;
        assert_eq!((choice.engine, choice.fallback), (Engine::Epoll, None));
    }

    #[test]
    fn io_uring_is_taken_where_it_can_be_had() {
        for wanted in [Engine::IoUring, Engine::Auto] {
            let (choice, rings) = choose_by(wanted, || Ok(7)).unwrap();
            assert_eq!((choice.engine, choice.fallback), (Engine::IoUring, None));
            assert_eq!(rings, Some(7));
        }
    }

    #[test]
    fn io_uring_that_cannot_be_had_is_refused_with_the_remedy() {
        assert_eq!(
            choose_by(Engine::IoUring, refused).unwrap_err().to_string(),
            "engine \"io_uring\": not available: io_uring_setup: Operation not permitted (use \"epoll\" or \"auto\")"
        );
    }

    #[test]
    fn auto_falls_back_and_says_why() {
        let choice = choose_by(Engine::Auto, refused).unwrap().0;
        assert_eq!(choice.engine, Engine::Epoll);
        let fields = choice.event().fields;
        assert_eq!(
            fields,
            [
                ("engine", "epoll".to_owned()),
                (
                    "cause",
                    "io_uring_setup: Operation not permitted".to_owned()
                )
            ]
        );
    }
}
