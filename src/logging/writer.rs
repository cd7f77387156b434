//! The log's other end: takes what was said from the queue and writes it, on a thread of its own.
//!
//! Owns the receiver and the sink. Before its thread exists it writes on the caller's, so that a start
//! that fails can say why. With nothing to report it sleeps in `recv` without a timeout: an idle daemon
//! does not wake. Reports (what was dropped, what was not recorded) are said at most once a second, and
//! less and less often while nobody takes them.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::event::Event;
use super::journal::Journal;
use super::record;
use super::report::Report;
use super::stderr::Stderr;
use super::summary::Summary;
use super::syslog::Syslog;
use super::transport::Outcome;
use super::{Echo, Error, Log, Message, Paths, format, kind};
use crate::config::{self, Target};

/// Writes what was said.
pub struct Writer {
    queue: Receiver<Message>,
    /// A handle of its own, with which the thread is told to end.
    log: Log,
    config: config::Log,
    generation: u64,
    paths: Paths,
    sink: Sink,
    stderr: Stderr,
    /// What no worker recorded, all of them together.
    summary: Summary,
    summary_report: Report,
    dropped_report: Report,
    reached: Reached,
}

/// Has anybody ever taken a line?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reached {
    Unknown,
    Yes,
    No,
}

/// Where lines go. Standard error is the writer's own, since it hears of some things in any case.
enum Sink {
    Syslog(Syslog),
    Journal(Journal),
    Stderr,
}

impl Sink {
    fn open(config: &config::Log, paths: &Paths) -> Sink {
        match config.target {
            Target::Syslog => Sink::Syslog(Syslog::open(paths.dev_log.clone(), config.facility)),
            Target::Journal => Sink::Journal(Journal::open(paths.journal.clone(), config.facility)),
            Target::Stderr => Sink::Stderr,
        }
    }
}

impl Writer {
    pub(super) fn new(
        queue: Receiver<Message>,
        log: Log,
        config: config::Log,
        paths: Paths,
        stderr: Stderr,
    ) -> Writer {
        Writer {
            queue,
            log,
            generation: 0,
            sink: Sink::open(&config, &paths),
            config,
            paths,
            stderr,
            summary: Summary::new(),
            summary_report: Report::default(),
            dropped_report: Report::default(),
            reached: Reached::Unknown,
        }
    }

    /// Writes what has been said so far, and what there is to report, on the calling thread.
    pub fn flush_now(&mut self) {
        while let Ok(message) = self.queue.try_recv() {
            self.take(message);
        }
        self.report(Instant::now(), true);
    }

    /// Gives the log its thread, which lasts until [`Logger::close`].
    pub fn spawn(mut self) -> Result<Logger, Error> {
        let log = self.log.clone();
        let (running, ended) = sync_channel::<()>(0);
        let serve = move || {
            self.serve();
            drop(running);
        };
        let thread = Builder::new()
            .name("log".into())
            .spawn(serve)
            .map_err(Error::Thread)?;
        Ok(Logger { log, thread, ended })
    }

    fn serve(&mut self) {
        loop {
            let received = match self.deadline() {
                None => self
                    .queue
                    .recv()
                    .map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => self
                    .queue
                    .recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            match received {
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.flush_now(),
            }
            if self.log.shared.closing.load(SeqCst) {
                return self.flush_now();
            }
            self.report(Instant::now(), false);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.summary_report
            .due
            .into_iter()
            .chain(self.dropped_report.due)
            .min()
    }

    fn take(&mut self, message: Message) {
        self.follow_config();
        let (event, aloud) = match message {
            Message::Said(event, aloud) => (event, aloud),
            Message::Started(peer, listener) => {
                (record::started(peer, &listener, self.config.peer), false)
            }
            Message::Ended(record) => (record.event(self.config.peer, !self.config.empty), false),
            Message::Summary(summary) => return self.summary.merge(&summary),
            Message::Close => return,
        };
        let now = Instant::now();
        match self.write(now, &event, aloud) {
            Outcome::Written => {
                self.reached = Reached::Yes;
                self.dropped_report.hasten(now);
                self.summary_report.hasten(now);
            }
            Outcome::Dropped => {
                self.log.shared.count_dropped();
                self.tell_if_never_reached();
            }
        }
    }

    /// The very first line found nobody: whoever started us should know that the log is silent.
    fn tell_if_never_reached(&mut self) {
        if self.reached == Reached::Unknown {
            self.reached = Reached::No;
            let event = Event::of(&kind::LOG_AWAY);
            let _ = self.stderr.write(&event, &format::line(&event));
        }
    }

    /// Says what is due; with `all`, what is not due yet as well.
    fn report(&mut self, now: Instant, all: bool) {
        let unreported = self.log.shared.unreported.load(Relaxed);
        if unreported > 0 && self.dropped_report.is_due(now, all) {
            let event = Event::of(&kind::LOG_DROPPED).with("count", unreported);
            let outcome = self.write_report(now, &event);
            if outcome == Outcome::Written {
                self.log.shared.unreported.fetch_sub(unreported, Relaxed);
            }
            self.dropped_report.done(now, outcome);
        }
        if !self.summary.is_empty() && self.summary_report.is_due(now, all) {
            let event = self.summary.event();
            let outcome = self.write_report(now, &event);
            if outcome == Outcome::Written {
                self.summary = Summary::new();
            }
            self.summary_report.done(now, outcome);
        }
    }

    /// Writes a report; one whose level is not said is as good as written.
    fn write_report(&mut self, now: Instant, event: &Event) -> Outcome {
        self.follow_config();
        match self.log.shared.says(event.kind) {
            true => self.write(now, event, false),
            false => Outcome::Written,
        }
    }

    fn write(&mut self, now: Instant, event: &Event, aloud: bool) -> Outcome {
        let line = format::line(event);
        let outcome = match &mut self.sink {
            Sink::Syslog(syslog) => syslog.write(now, event.kind.level, &line),
            Sink::Journal(journal) => journal.write(now, event, &line),
            Sink::Stderr => return self.stderr.write(event, &line),
        };
        if aloud || self.log.shared.echo == Echo::Everything {
            // Not counted if nobody takes it: the target is what counts.
            let _ = self.stderr.write(event, &line);
        }
        outcome
    }

    fn follow_config(&mut self) {
        let generation = self.log.shared.generation.load(SeqCst);
        if generation == self.generation {
            return;
        }
        self.generation = generation;
        let config = self.log.shared.config().clone();
        // A socket that still serves is kept: what is on its way through it keeps its order.
        if (config.target, config.facility) != (self.config.target, self.config.facility) {
            self.sink = Sink::open(&config, &self.paths);
        }
        self.config = config;
    }
}

/// The log's thread, to whoever started it.
#[derive(Debug)]
pub struct Logger {
    log: Log,
    thread: JoinHandle<()>,
    /// Nothing is ever sent: it ends when the thread does.
    ended: Receiver<()>,
}

impl Logger {
    /// Writes what was said before and ends the thread. `false`: it was not done within that time; the
    /// thread is left to the end of the process, since a stalled receiver is no reason to stay.
    pub fn close(self, within: Duration) -> bool {
        self.log.shared.closing.store(true, SeqCst);
        // A queue without room has a thread that is awake: it looks at `closing` after each message.
        let _ = self.log.offer(Message::Close);
        match self.ended.recv_timeout(within) {
            Err(RecvTimeoutError::Timeout) => false,
            Ok(()) | Err(RecvTimeoutError::Disconnected) => self.thread.join().is_ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::QUEUE_MAX;
    use super::super::support::{all, config, on_stderr, piped};
    use super::*;
    use crate::config::Level;
    use std::io::{BufRead, BufReader, Read};
    use std::os::unix::net::UnixDatagram;
    use std::path::Path;
    use tempfile::TempDir;

    fn paths(directory: &Path) -> Paths {
        Paths {
            dev_log: directory.join("log"),
            journal: directory.join("journal"),
        }
    }

    fn receive(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 4096];
        let count = socket.recv(&mut bytes).expect("a datagram");
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }

    #[test]
    fn a_start_that_fails_says_why_without_a_thread() {
        let directory = TempDir::new().expect("a directory");
        let receiver = UnixDatagram::bind(directory.path().join("log")).expect("bind");
        let (log, mut writer, stderr) = piped(
            &config(Target::Syslog),
            Echo::Errors,
            paths(directory.path()),
        );
        log.say(Event::of(&kind::LISTENING).with("listener", "echo"));
        log.say(Event::of(&kind::FATAL).detail("no memory"));
        writer.flush_now();
        drop(writer);
        assert!(receive(&receiver).ends_with("]: listening listener=echo"));
        assert!(receive(&receiver).ends_with("]: no memory"));
        assert_eq!(all(stderr), ["echod: no memory"]);
    }

    #[test]
    fn when_ready_only_what_ends_the_process_goes_to_stderr_as_well() {
        let directory = TempDir::new().expect("a directory");
        let _receiver = UnixDatagram::bind(directory.path().join("log")).expect("bind");
        let (log, mut writer, stderr) = piped(
            &config(Target::Syslog),
            Echo::Errors,
            paths(directory.path()),
        );
        log.say(Event::of(&kind::INTERNAL).detail("before"));
        log.say(Event::of(&kind::CONTROL_UNAVAILABLE));
        log.ready();
        log.say(Event::of(&kind::INTERNAL).detail("after"));
        log.say(Event::of(&kind::FATAL).detail("the end"));
        writer.flush_now();
        drop(writer);
        assert_eq!(
            all(stderr),
            ["error: internal error: before", "echod: the end"]
        );
    }

    #[test]
    fn a_terminal_shows_everything_and_nothing_twice() {
        let directory = TempDir::new().expect("a directory");
        let config = config(Target::Journal);
        let (log, mut writer, stderr) = piped(&config, Echo::Everything, paths(directory.path()));
        log.ready();
        log.say(Event::of(&kind::LISTENING));
        log.adopt(&config::Log {
            target: Target::Stderr,
            ..config
        });
        log.say(Event::of(&kind::FATAL).detail("the end"));
        writer.flush_now();
        drop(writer);
        let shown = all(stderr);
        assert_eq!(
            shown
                .iter()
                .filter(|line| line.contains("listening"))
                .count(),
            1
        );
        assert_eq!(
            shown.iter().filter(|line| line.contains("the end")).count(),
            1
        );
    }

    #[test]
    fn one_message_past_the_bound_is_dropped_and_said() {
        let (log, mut writer, stderr) = on_stderr(config(Target::Stderr));
        let reading = std::thread::spawn(move || all(stderr));
        for _ in 0..QUEUE_MAX + 1 {
            log.say(Event::of(&kind::LISTENING));
        }
        assert_eq!(log.dropped(), 1);
        writer.flush_now();
        writer.flush_now();
        drop(writer);
        let said = reading.join().expect("no panic");
        assert_eq!(said.len(), QUEUE_MAX + 1);
        assert_eq!(
            said.last().map(String::as_str),
            Some("warning: log records dropped count=1")
        );
    }

    #[test]
    fn what_nobody_took_is_reported_when_somebody_is_there() {
        let directory = TempDir::new().expect("a directory");
        let config = config(Target::Syslog);
        let (log, mut writer, _stderr) = piped(&config, Echo::Errors, paths(directory.path()));
        log.say(Event::of(&kind::LISTENING));
        writer.flush_now();
        assert_eq!(log.dropped(), 1);

        // Another target is somebody.
        let receiver = UnixDatagram::bind(directory.path().join("journal")).expect("bind");
        log.adopt(&config::Log {
            target: Target::Journal,
            ..config
        });
        writer.flush_now();
        assert!(receive(&receiver).starts_with("MESSAGE=log records dropped count=1\n"));
        assert_eq!(log.dropped(), 1, "a report is not counted itself");
    }

    #[test]
    fn the_thread_writes_what_is_said_and_ends_when_told() {
        let (log, writer, stderr) = on_stderr(config(Target::Stderr));
        let logger = writer.spawn().expect("a thread");
        let mut lines = BufReader::new(stderr).lines();
        log.say(Event::of(&kind::READY));
        assert_eq!(lines.next().expect("a line").expect("text"), "ready");
        log.say(Event::of(&kind::DRAINING));
        log.say(Event::of(&kind::STOPPED));
        assert!(logger.close(Duration::from_secs(60)));
        assert_eq!(
            lines.map(|line| line.expect("text")).collect::<Vec<_>>(),
            ["draining", "stopped"]
        );
    }

    #[test]
    fn a_stalled_receiver_does_not_hold_up_the_end() {
        let (log, writer, mut stderr) = on_stderr(config(Target::Stderr));
        for _ in 0..QUEUE_MAX {
            log.say(Event::of(&kind::LISTENING).detail("x".repeat(500)));
        }
        let logger = writer.spawn().expect("a thread");
        let mut first = [0];
        stderr.read_exact(&mut first).expect("it writes");
        assert!(!logger.close(Duration::from_millis(50)));
    }

    #[test]
    fn the_level_decides_what_is_said_and_a_reload_changes_it() {
        let (log, mut writer, stderr) = on_stderr(config(Target::Stderr));
        assert!(log.says(&kind::READY) && !log.says(&kind::CONNECTION_EMPTY));
        log.adopt(&config::Log {
            level: Level::Warning,
            ..config(Target::Stderr)
        });
        log.say(Event::of(&kind::READY));
        log.say(Event::of(&kind::ACCEPT_PAUSED));
        writer.flush_now();
        drop(writer);
        assert_eq!(all(stderr), ["warning: accept paused"]);
    }
}
