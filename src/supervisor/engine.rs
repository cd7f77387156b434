//! Which engine the workers have: what the configuration asks for, as far as this host allows it.
//!
//! Chosen once, before the first thread and without privileges, so that what is found out here is what the
//! workers will meet. Epoll is always there; io_uring is tried, and only where the configuration names it.

use crate::config::Engine;
use crate::logging::{Event, kind};

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

/// The engine for a configuration that wants this one.
///
/// # Errors
/// When that is io_uring, and it cannot be had.
pub fn choose(wanted: Engine) -> Result<Choice, Error> {
    choose_by(wanted, probe)
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

fn choose_by(wanted: Engine, probe: impl FnOnce() -> Result<(), String>) -> Result<Choice, Error> {
    let choice = |engine, fallback| Ok(Choice { engine, fallback });
    if wanted == Engine::Epoll {
        return choice(Engine::Epoll, None);
    }
    match probe() {
        Ok(()) => choice(Engine::IoUring, None),
        Err(cause) if wanted == Engine::IoUring => Err(Error { cause }),
        Err(cause) => choice(Engine::Epoll, Some(cause)),
    }
}

/// Can io_uring be had here, and does it do what it should? If not, why.
fn probe() -> Result<(), String> {
    Err("this build has no io_uring engine".into())
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
        let choice = choose_by(Engine::Epoll, || panic!("nobody asked for it")).unwrap();
        assert_eq!((choice.engine, choice.fallback), (Engine::Epoll, None));
    }

    #[test]
    fn io_uring_is_taken_where_it_can_be_had() {
        for wanted in [Engine::IoUring, Engine::Auto] {
            let choice = choose_by(wanted, || Ok(())).unwrap();
            assert_eq!((choice.engine, choice.fallback), (Engine::IoUring, None));
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
        let choice = choose_by(Engine::Auto, refused).unwrap();
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
