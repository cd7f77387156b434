//! The start, as a list. Its order is the policy.
//!
//! What needs root comes before the privileges are dropped, the privileges are dropped before the
//! first thread, and whatever can be refused is refused before the service manager hears READY.

use std::io::{self, Write};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::certificates::JUDGE_EVERY;
use super::engine::{self, Choice, Rings};
use super::notify::{self, Notifier};
use super::phase::Phase;
use super::serving::Serving;
use super::signals::Signals;
use super::status::Status;
use super::workers::Workers;
use super::{LOG_PATIENCE, Supervisor};
use crate::cause::cause;
use crate::cli::Source;
use crate::config::{self, Config, Engine, Origin, effective_max_connections, worker_count};
use crate::control;
use crate::listener::{self, Handed};
use crate::lockdown;
use crate::logging::{self, Echo, Event, Log, Paths, kind};
use crate::privilege::{self, Account, Outcome};
use crate::tick::Tick;
use crate::tls::{self, Identities};

/// Exit status of a refused configuration: sysexits' EX_CONFIG.
pub const EXIT_CONFIG: u8 = 78;

/// Exit status of every other failure.
pub const EXIT_FAILURE: u8 = 1;

/// Why the daemon does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// A listening socket cannot be had.
    #[error(transparent)]
    Listener(#[from] listener::Error),
    /// A certificate or a key cannot be had.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The unprivileged user cannot be become.
    #[error(transparent)]
    Privilege(#[from] privilege::Error),
    /// The engine cannot be had.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// The service manager cannot be told.
    #[error(transparent)]
    Notify(#[from] notify::Error),
    /// The log has no thread.
    #[error("{}: {}", .0, cause_of(.0))]
    Log(#[from] logging::Error),
    /// There is no way to hear of signals.
    #[error("cannot listen to signals: {}", cause(.0))]
    Signals(#[source] io::Error),
    /// The workers cannot be started.
    #[error("cannot start {count} workers: {} (lower workers, or raise LimitNOFILE= and TasksMax=)", cause(.source))]
    Workers {
        /// How many there should be.
        count: u16,
        /// What the kernel said.
        source: io::Error,
    },
    /// This, and the log has it already.
    #[error(transparent)]
    Said(Box<Error>),
}

impl Error {
    /// Is it something that a better file would mend?
    fn is_configuration(&self) -> bool {
        match self {
            Error::Config(_) | Error::Tls(_) => true,
            Error::Privilege(error) => error.is_configuration(),
            Error::Said(error) => error.is_configuration(),
            _ => false,
        }
    }

    /// The exit status for it.
    fn status(&self) -> u8 {
        if self.is_configuration() {
            EXIT_CONFIG
        } else {
            EXIT_FAILURE
        }
    }

    /// What the log says of it; standard error hears that as well.
    fn event(&self) -> Event {
        let kind = if self.is_configuration() {
            &kind::START_REFUSED
        } else {
            &kind::FATAL
        };
        Event::of(kind).detail(self)
    }

    /// Tells it on standard error, at length where there is a source to show, if it was not said yet.
    /// Answers the exit status.
    pub fn tell(&self) -> u8 {
        let text = match self {
            // The log has the one line; the place in the file is worth more than that.
            Error::Said(error) if matches!(**error, Error::Config(config::Error::Refused(_))) => {
                return error.tell();
            }
            Error::Said(_) => return self.status(),
            Error::Config(error) => error.render(),
            error => format!("echod: {error}"),
        };
        // Nobody may be reading; the status is the answer that counts.
        let _ = writeln!(io::stderr(), "{text}");
        self.status()
    }
}

/// The words of the error behind an error.
fn cause_of(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(String::new, ToString::to_string)
}

/// Starts everything and answers the supervisor, ready to turn; `None`: it was told to end before that.
///
/// # Errors
/// Whatever keeps the daemon from serving. It serves nothing then.
pub fn start(source: Source) -> Result<Option<Supervisor>, Error> {
    let handed = listener::take()?; // first of all: known by number and environment alone
    let mut signals = Signals::listen().map_err(Error::Signals)?; // from here on nobody ends us halfway
    let notifier = Notifier::from_env()?;
    let config = source.load()?;
    let descriptor_limit = raise_descriptor_limit();
    let (log, mut writer) = Log::open(&config.log, Echo::detect(), Paths::default());
    let prepared = prepare(&config, handed, descriptor_limit, &log).map_err(|error| {
        log.say(error.event());
        writer.flush_now();
        Error::Said(Box::new(error))
    });
    let Prepared {
        max_connections,
        serving,
        control,
        choice,
        rings,
    } = prepared?;
    if signals.is_end_wanted() {
        return Ok(None);
    }
    lockdown::deny_connections(); // best effort, and for the threads to inherit
    let logger = writer.spawn()?; // the first thread
    let workers = match Workers::spawn(&config, max_connections, rings, &log) {
        Ok(workers) => workers,
        Err(source) => {
            let error = Error::Workers {
                count: worker_count(&config),
                source,
            };
            log.say(error.event());
            logger.close(LOG_PATIENCE);
            return Err(Error::Said(Box::new(error)));
        }
    };
    workers.adopt(serving.plan(&config));
    if config.origin == Origin::BuiltIn {
        log.say(Event::of(&kind::HINT).detail(hint(&serving)));
    }
    let status = Status {
        note: serving.notes().first().map(ToString::to_string),
        certificate: serving.certificate(),
        // Who asks for epoll has it, and need not be told.
        engine: (config.engine != Engine::Epoll).then_some(choice.engine),
        fallback: choice.fallback,
        ..Status::default()
    };
    Ok(Some(Supervisor {
        source,
        config,
        phase: Phase::Starting,
        serving,
        workers,
        signals,
        notifier,
        control,
        log,
        logger,
        status,
        status_due: None,
        return_due: None,
        returned: Tick(0),
        status_sent: Tick::now(),
        watchdog_due: Tick::NEVER,
        certificates_due: Tick::now() + JUDGE_EVERY,
        told_of_silence: false,
        told_of_manager: false,
        drained_by: Tick::NEVER,
    }))
}

/// What the threads are started with.
struct Prepared {
    max_connections: u32,
    serving: Serving,
    control: Option<control::Server>,
    choice: Choice,
    rings: Option<Rings>,
}

/// All that may need root, and then the end of being root.
fn prepare(
    config: &Config,
    handed: Handed,
    descriptor_limit: u64,
    log: &Log,
) -> Result<Prepared, Error> {
    let max_connections =
        effective_max_connections(config, worker_count(config), descriptor_limit)?;
    let account = account(config)?;
    let identities = Identities::load(config, &Identities::default())?; // private keys may need root
    let sockets = Serving::new(handed).prepare(config, identities)?; // low ports may need root
    let control = open_control(config, &account, log); // its group may need root
    let outcome = privilege::drop_to(&account)?; // nothing below this line may need root
    say_who_we_are(&outcome, log);
    let (choice, rings) = engine::choose(config, max_connections)?; // before the first thread, and as who we stay
    log.say(choice.event());
    for event in sockets.events {
        log.say(event);
    }
    Ok(Prepared {
        max_connections,
        serving: sockets.serving,
        control,
        choice,
        rings,
    })
}

/// Raises our soft limit of descriptors to the hard one, and answers it.
fn raise_descriptor_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return 0;
    };
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_err() {
        return soft;
    }
    hard
}

/// Who we are to become; nobody, when the daemon was started without being installed.
fn account(config: &Config) -> Result<Account, Error> {
    let target = privilege::Target {
        user: &config.user,
        group: &config.group,
        allow_root: config.allow_root,
    };
    privilege::resolve(target, !matches!(config.origin, Origin::File(_))).map_err(|error| {
        match error {
            privilege::Error::Account(objection) => config.refuse(objection).into(),
            error => error.into(),
        }
    })
}

/// The control socket, where there is a file to read again. Serving is worth more than being asked.
fn open_control(config: &Config, account: &Account, log: &Log) -> Option<control::Server> {
    if !matches!(config.origin, Origin::File(_)) {
        return None;
    }
    match control::Server::listen(&control::directory(), Some((account.uid, account.gid))) {
        Ok(server) => Some(server),
        Err(error) => {
            log.say(Event::of(&kind::CONTROL_UNAVAILABLE).detail(error));
            None
        }
    }
}

fn say_who_we_are(outcome: &Outcome, log: &Log) {
    if outcome.became_nobody {
        log.say(Event::of(&kind::DEFAULT_USER).with("user", &outcome.user));
    }
    if outcome.still_root {
        log.say(Event::of(&kind::SERVING_AS_ROOT));
    }
    let event = Event::of(&kind::PRIVILEGES_DROPPED)
        .with("uid", outcome.uid)
        .with("gid", outcome.gid);
    log.say(
        event
            .with("capabilities", "none")
            .with("no_new_privs", "yes"),
    );
}

/// What somebody wants to know who has started the daemon for the first time.
fn hint(serving: &Serving) -> String {
    let port = serving
        .addresses()
        .first()
        .map_or(0, |address| address.port());
    format!(
        "only this machine can connect; try: echo hello | nc -q 1 127.0.0.1 {port}; Ctrl-C lets the connections end, a second one cuts them"
    )
}
