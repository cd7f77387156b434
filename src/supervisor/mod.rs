//! The main thread: owns the daemon's life, never sees a peer's byte.
//!
//! [`run`] starts everything, then turns one loop over signals, the control socket, the workers' bell and
//! a few deadlines. What an event means is decided in [`phase`]; here it is only done. An idle daemon
//! wakes for the watchdog, and once a day to judge its certificates.

mod certificates;
mod engine;
pub mod notify;
pub mod phase;
mod reload;
mod serving;
mod signals;
mod start;
mod status;
mod workers;

use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::cli::Source;
use crate::config::{Config, worker_count};
use crate::connection::DRAIN_RESET;
use crate::control;
use crate::logging::{Event as LogEvent, Log, Logger, kind};
use crate::tick::Tick;
use notify::Notifier;
use phase::{Action, Event, Phase};
use serving::Serving;
use signals::Signals;
pub use start::{EXIT_CONFIG, EXIT_FAILURE, Error};
use status::Status;
use workers::Workers;

/// The service manager's status is at most so old, and never sent more often.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// Free memory is returned to the kernel no more often: it takes some milliseconds.
const RETURN_EVERY: Duration = Duration::from_secs(1);

/// How long the workers may take to reset what is left and return.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// How long the log may take to write what is left when the daemon ends.
const LOG_PATIENCE: Duration = Duration::from_secs(1);

/// How long the end takes when the drain is over, and some to spare.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// Starts the daemon, serves until it is told to stop, and answers the exit status.
pub fn run(source: Source) -> u8 {
    crate::sys::keep_little_memory();
    match start::start(source) {
        Ok(Some(mut supervisor)) => {
            supervisor.turn_until_stopped();
            supervisor.close()
        }
        Ok(None) => 0,
        Err(error) => error.tell(),
    }
}

/// The daemon, while it serves.
#[derive(Debug)]
pub struct Supervisor {
    source: Source,
    config: Config,
    phase: Phase,
    serving: Serving,
    workers: Workers,
    signals: Signals,
    notifier: Notifier,
    control: Option<control::Server>,
    log: Log,
    logger: Logger,
    status: Status,
    /// When a status may be sent again; `None`: nothing has changed since the last.
    status_due: Option<Tick>,
    status_sent: Tick,
    /// When free memory is to be returned, and was last.
    return_due: Option<Tick>,
    returned: Tick,
    /// When the watchdog is to hear of us next.
    watchdog_due: Tick,
    /// When the certificates are to be judged again.
    certificates_due: Tick,
    /// Somebody was told of the workers that do not turn.
    told_of_silence: bool,
    /// Somebody was told of a service manager that does not listen.
    told_of_manager: bool,
    /// When a drain has taken long enough.
    drained_by: Tick,
}

impl Supervisor {
    fn turn_until_stopped(&mut self) {
        self.handle(Event::Ready);
        loop {
            let now = Tick::now();
            for event in self.signals.take() {
                self.handle(event);
            }
            self.handle_control(now);
            self.handle_bell(now);
            if now >= self.watchdog_due {
                self.watch(now);
            }
            if now >= self.certificates_due {
                self.judge_certificates(now);
            }
            if now >= self.drained_by {
                self.handle(Event::Deadline);
            }
            if self.phase == Phase::Stopped {
                return;
            }
            self.wait();
        }
    }

    /// Waits for something to do.
    fn wait(&self) {
        let control = self.control.as_ref();
        let until = self
            .watchdog_due
            .min(self.drained_by)
            .min(self.certificates_due)
            .min(self.status_due.unwrap_or(Tick::NEVER))
            .min(self.return_due.unwrap_or(Tick::NEVER))
            .min(
                control
                    .and_then(control::Server::deadline)
                    .unwrap_or(Tick::NEVER),
            );
        let mut fds = vec![
            PollFd::new(self.signals.fd(), PollFlags::POLLIN),
            PollFd::new(self.workers.bell().as_fd(), PollFlags::POLLIN),
        ];
        fds.extend(control.map(control::Server::fds).unwrap_or_default());
        // EINTR and the like: a turn that finds nothing to do.
        let _ = poll(&mut fds, timeout(until));
    }

    /// Takes an event through the table, and does what that says.
    fn handle(&mut self, event: Event) {
        let (phase, action) = self.phase.step(event);
        self.phase = phase;
        match action {
            Action::Nothing => {}
            Action::SayReady => self.say_ready(),
            Action::Reload => {
                // Refused or adopted, it has been told already.
                let _ = self.reload();
            }
            Action::RefuseReload => self
                .log
                .say(LogEvent::of(&kind::RELOAD_REFUSED).detail("the daemon drains")),
            Action::Drain => self.drain(),
            Action::StopAtOnce => {
                self.log.say(LogEvent::of(&kind::SECOND_SIGNAL));
                self.cut();
            }
            Action::Cut => self.cut(),
            Action::Exit => {
                let counts = self.workers.counts();
                self.log.say(
                    LogEvent::of(&kind::STOPPED)
                        .with("received", counts.received)
                        .with("sent", counts.sent),
                );
            }
        }
    }

    fn say_ready(&mut self) {
        self.log.ready();
        self.log
            .say(LogEvent::of(&kind::READY).with("workers", worker_count(&self.config)));
        self.tell_manager(Notifier::ready);
        let now = Tick::now();
        self.watch(now);
        self.send_status(now);
    }

    fn drain(&mut self) {
        let counts = self.workers.counts();
        self.log
            .say(LogEvent::of(&kind::DRAINING).with("connections", counts.live));
        self.tell_manager(Notifier::stopping);
        self.serving.part_own(&Serving::default());
        self.workers.drain(&self.config);
        self.serving.close_own();
        self.status.draining = true;
        let now = Tick::now();
        self.drained_by = now + self.config.drain_timeout + DRAIN_RESET + STOP_PATIENCE;
        self.ask_for_time(now);
        self.send_status(now);
    }

    /// A drain may take longer than the unit's `TimeoutStopSec=`, after which the manager would kill us.
    fn ask_for_time(&mut self, now: Tick) {
        let left = self.drained_by.since(now) + END_PATIENCE;
        self.tell_manager(|notifier| notifier.extend_timeout(left));
    }

    /// Resets what is left, and waits a little for the workers to have done it.
    fn cut(&mut self) {
        let left = self.workers.counts().live;
        self.workers.stop();
        let until = Tick::now() + STOP_PATIENCE;
        while !self.workers.have_returned() && Tick::now() < until {
            let _ = self.workers.bell().read();
            if !self.workers.have_returned() {
                let mut fds = [PollFd::new(self.workers.bell().as_fd(), PollFlags::POLLIN)];
                let _ = poll(&mut fds, timeout(until));
            }
        }
        self.log
            .say(LogEvent::of(&kind::STOPPED_CUT).with("connections", left));
    }

    fn handle_control(&mut self, now: Tick) {
        let Some(control) = &mut self.control else {
            return;
        };
        control.expire(now);
        let requests = control.handle(now);
        for request in requests {
            let answer = match (request.verb, self.phase) {
                (control::Verb::Reload, Phase::Serving) => match self.reload() {
                    Ok(report) => control::Answer::Adopted(report),
                    Err(refusal) => control::Answer::Refused(refusal.text),
                },
                (control::Verb::Reload, _) => control::Answer::Refused("the daemon drains".into()),
            };
            if let Some(control) = &mut self.control {
                control.answer(request.client, &answer, now);
            }
        }
    }

    /// The bell rang: the status is out of date, memory is to be returned, or a worker has returned.
    fn handle_bell(&mut self, now: Tick) {
        let rang = self.workers.bell().read().is_ok();
        if rang && self.phase == Phase::Draining && self.workers.have_returned() {
            return self.handle(Event::Drained);
        }
        if rang {
            self.status_due = Some(now.max(self.status_sent + STATUS_EVERY));
        }
        if self.status_due.is_some_and(|due| due <= now) {
            self.send_status(now);
        }
        if rang && self.workers.memory().is_to_be_returned() {
            self.return_due = Some(now.max(self.returned + RETURN_EVERY));
        }
        if self.return_due.is_some_and(|due| due <= now) {
            (self.return_due, self.returned) = (None, now);
            self.workers.memory().return_free();
        }
    }

    fn send_status(&mut self, now: Tick) {
        self.status_sent = now;
        self.status_due = None;
        if !self.notifier.has_manager() {
            // The status stays out of date, and no worker rings for it.
            return;
        }
        // First the mark, then the counts: what is counted in between rings again.
        self.workers.take_stale();
        let pressure = self.workers.pressure();
        (self.status.pressed, self.status.pressures) = (pressure.is_on(), pressure.entered());
        let line = self.status.line(&self.workers.counts());
        self.tell_manager(|notifier| notifier.status(&line));
    }

    /// Tells the watchdog that all is well, if it is, and asks the workers again.
    fn watch(&mut self, now: Tick) {
        let Some(interval) = self.notifier.watchdog_interval() else {
            return;
        };
        self.watchdog_due = now + interval;
        if self.phase == Phase::Draining {
            self.ask_for_time(now); // one message holds no more than 71 minutes
        }
        let silent = self.workers.silent();
        if silent.is_empty() {
            self.told_of_silence = false;
            self.tell_manager(Notifier::watchdog);
            self.workers.ping();
        } else if !std::mem::replace(&mut self.told_of_silence, true) {
            let workers: Vec<String> = silent.iter().map(ToString::to_string).collect();
            self.log
                .say(LogEvent::of(&kind::WORKER_HANGS).with("worker", workers.join("/")));
        }
    }

    /// A manager that does not listen is worth a line, and no more until it does.
    fn tell_manager(&mut self, message: impl FnOnce(&Notifier) -> Result<(), notify::Error>) {
        match message(&self.notifier) {
            Ok(()) => self.told_of_manager = false,
            Err(error) => {
                if !std::mem::replace(&mut self.told_of_manager, true) {
                    self.log
                        .say(LogEvent::of(&kind::MANAGER_DEAF).detail(error));
                }
            }
        }
    }

    /// The last thing: what was said is written.
    fn close(self) -> u8 {
        self.logger.close(LOG_PATIENCE);
        0
    }
}

/// Milliseconds from now to `until`, for poll(2).
fn timeout(until: Tick) -> PollTimeout {
    if until == Tick::NEVER {
        return PollTimeout::NONE;
    }
    PollTimeout::try_from(until.since(Tick::now())).unwrap_or(PollTimeout::MAX)
}
