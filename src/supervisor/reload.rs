//! Reads the configuration again: taken whole, or refused whole with the daemon serving as before.

use std::io;
use std::net::SocketAddr;

use nix::sys::resource::{Resource, getrlimit};

use super::Supervisor;
use super::certificates;
use super::notify::Notifier;
use super::serving::{Prepared, Serving};
use crate::config::{
    self, Change, Config, NeedsRestart, Origin, changes, effective_max_connections, tally,
    worker_count,
};
use crate::listener;
use crate::logging::{Event, kind};
use crate::tick::Tick;
use crate::tls::{self, Identities};

/// Changes that the log tells one by one.
const TOLD_MAX: usize = 20;

/// Why the new configuration was not taken.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    NeedsRestart(#[from] NeedsRestart),
    #[error(transparent)]
    Tls(#[from] tls::Error),
    #[error(transparent)]
    Listener(listener::Error),
    #[error(
        "listener {listener:?}: {address} needs privileges that were given up at the start (restart echod, or use a socket unit)"
    )]
    Privileges {
        listener: String,
        address: SocketAddr,
    },
}

impl From<listener::Error> for Error {
    fn from(error: listener::Error) -> Error {
        match error {
            listener::Error::Bind {
                listener,
                address,
                source,
            } if source.kind() == io::ErrorKind::PermissionDenied => {
                Error::Privileges { listener, address }
            }
            error => Error::Listener(error),
        }
    }
}

/// A refusal, for whoever asked.
#[derive(Debug)]
pub struct Refused {
    /// At length, in one or several lines.
    pub text: String,
}

/// What takes the place of the present, once nothing can go wrong any more.
struct Next {
    config: Config,
    changes: Vec<Change>,
    max_connections: u32,
    serving: Serving,
    events: Vec<Event>,
}

impl Supervisor {
    /// Reads the configuration again and adopts it, or refuses it and says why. Either way the service
    /// manager hears READY, and all others what came of it. Answers what has changed: in a few words, then
    /// one by one.
    ///
    /// # Errors
    /// The refusal.
    pub(super) fn reload(&mut self) -> Result<Vec<String>, Refused> {
        self.tell_manager(Notifier::reloading);
        let result = self.prepare();
        let result = match result {
            Ok(next) => Ok(self.adopt(next)),
            Err(error) => Err(self.refuse(&error)),
        };
        self.tell_manager(Notifier::ready);
        self.send_status(Tick::now());
        result
    }

    /// Everything that can be refused. Changes nothing.
    fn prepare(&self) -> Result<Next, Error> {
        let config = match &self.config.origin {
            // A file that was read once and is gone is refused: no protection vanishes with a file.
            Origin::File(path) => Config::load(Some(path))?,
            Origin::CommandLine | Origin::BuiltIn => self.source.load()?,
        };
        let mut changes = changes(&self.config, &config)?;
        let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
        let max_connections = effective_max_connections(&config, worker_count(&config), limit)?;
        let identities = Identities::load(&config, self.serving.identities())?;
        let renewed = identities.renewed(self.serving.identities());
        let Prepared { serving, events } = self.serving.prepare(&config, identities)?;
        for change in &mut changes {
            if let Some(listener) = &change.listener
                && serving.is_handed(listener)
            {
                change.leave_to_socket_unit();
            }
        }
        changes.extend(renewed.into_iter().map(certificates::change));
        Ok(Next {
            config,
            changes,
            max_connections,
            serving,
            events,
        })
    }

    fn adopt(&mut self, next: Next) -> Vec<String> {
        self.workers.set_bounds(&next.config, next.max_connections);
        self.serving.part_own(&next.serving);
        self.workers.adopt(next.serving.plan(&next.config));
        self.log.adopt(&next.config.log);
        for event in next.events {
            self.log.say(event);
        }
        self.tell_changes(&next.changes);
        self.status.refused = None;
        self.status.certificate = next.serving.certificate();
        self.status.note = next.serving.notes().first().map(ToString::to_string);
        self.config = next.config;
        // Sockets that are served no longer are closed here, once the workers have let go of them too.
        self.serving = next.serving;
        let lines = next.changes.iter().map(Change::to_string);
        std::iter::once(tally(&next.changes)).chain(lines).collect()
    }

    /// A line for the whole, and one for each change while they are few: the log is no archive.
    fn tell_changes(&self, changes: &[Change]) {
        let changed = changes.len();
        self.log
            .say(Event::of(&kind::RELOAD_ADOPTED).with("changed", changed));
        for change in changes.iter().take(TOLD_MAX) {
            self.log
                .say(Event::of(&kind::RELOAD_CHANGED).detail(change));
        }
        if let Some(more @ 1..) = changed.checked_sub(TOLD_MAX) {
            let text = format!("... and {more} more");
            self.log.say(Event::of(&kind::RELOAD_CHANGED).detail(text));
        }
    }

    fn refuse(&mut self, error: &Error) -> Refused {
        self.log.say(Event::of(&kind::RELOAD_REFUSED).detail(error));
        self.status.refused = Some(error.to_string());
        let text = match error {
            Error::Config(error) => error.render(),
            error => format!("echod: {error}"),
        };
        Refused { text }
    }
}
