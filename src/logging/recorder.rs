//! One worker's door to the log: decides which connections leave a record.
//!
//! Owns the summary of what this worker did not record. Decides before anything is formatted or
//! allocated: level, `records`, `empty`, then the bucket that all workers share. Neither clock nor
//! kernel: the worker says when it is, and asks for the deadline.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::record::{Prefix, Record};
use super::summary::Summary;
use super::{Log, Message};
use crate::config::{self, Level, Records};
use crate::connection::Reason;
use crate::tick::Tick;

/// How long counts are gathered before they are told to the log's thread.
const SUMMARY_EVERY: Duration = Duration::from_secs(1);

/// Says which connections came and went.
pub struct Recorder {
    log: Log,
    rules: Rules,
    summary: Summary,
    deadline: Option<Tick>,
}

impl Recorder {
    /// For one worker, at the configuration that the log has now.
    pub fn new(log: &Log) -> Recorder {
        let rules = Rules::of(&log.config());
        Recorder {
            log: log.clone(),
            rules,
            summary: Summary::new(),
            deadline: None,
        }
    }

    /// A connection begins. One that finds no token goes unmentioned: its end will be counted.
    #[inline]
    pub fn started(&mut self, now: Tick, peer: SocketAddr, listener: &Arc<str>) {
        if self.rules.wants_start() && self.log.admits(now, false) {
            self.log.send(Message::Started(peer, Arc::clone(listener)));
        }
    }

    /// A connection has ended, or was not begun.
    pub fn ended(&mut self, now: Tick, record: &Record) {
        if !self.rules.wants(record.reason, record.is_empty()) {
            return;
        }
        if self.log.admits(now, record.reason.is_failure()) {
            self.log.send(Message::Ended(record.clone()));
        } else {
            self.summary
                .count(Prefix::of(record.peer.ip()), record.reason);
            self.deadline.get_or_insert(now + SUMMARY_EVERY);
        }
    }

    /// When `flush` is due; `None` while there is nothing to flush.
    pub fn deadline(&self) -> Option<Tick> {
        self.deadline
    }

    /// Tells what was counted, due or not. If the log has no room for it, it is kept and due again.
    pub fn flush(&mut self, now: Tick) {
        self.deadline = None;
        if !self.tell() {
            self.deadline = Some(now + SUMMARY_EVERY);
        }
    }

    /// From now on by these rules.
    pub fn adopt(&mut self, config: &config::Log) {
        self.rules = Rules::of(config);
    }

    fn tell(&mut self) -> bool {
        if self.summary.is_empty() {
            return true;
        }
        match self
            .log
            .offer(Message::Summary(Box::new(self.summary.take())))
        {
            Ok(()) => true,
            Err(Message::Summary(kept)) => {
                self.summary = *kept;
                false
            }
            Err(_) => unreachable!("what comes back is what was offered"),
        }
    }
}

/// What a worker has counted is told even if it ends before the deadline.
impl Drop for Recorder {
    fn drop(&mut self) {
        self.tell();
    }
}

/// What of `[log]` decides about a record.
#[derive(Clone, Copy, Debug)]
struct Rules {
    level: Level,
    records: Records,
    empty: bool,
}

impl Rules {
    fn of(config: &config::Log) -> Rules {
        Rules {
            level: config.level,
            records: config.records,
            empty: config.empty,
        }
    }

    fn wants_start(self) -> bool {
        self.records == Records::Both && self.level >= Level::Info
    }

    fn wants(self, reason: Reason, is_empty: bool) -> bool {
        let level = if is_empty && !self.empty {
            Level::Debug
        } else {
            Level::Info
        };
        let chosen = match self.records {
            Records::Both | Records::Ended => true,
            Records::Failed => reason.is_failure(),
            Records::None => false,
        };
        chosen && level <= self.level
    }
}

#[cfg(test)]
mod tests {
    use super::super::support::{all, config, on_stderr, record};
    use super::super::{Event, QUEUE_MAX, kind};
    use super::*;
    use crate::config::{PeerForm, RecordRate, Target};

    const NOW: Tick = Tick(1_000_000);
    const RULES: Rules = Rules {
        level: Level::Info,
        records: Records::Ended,
        empty: false,
    };

    #[test]
    fn records_chooses_which_connections_are_recorded() {
        for (records, done, reset) in [
            (Records::Both, true, true),
            (Records::Ended, true, true),
            (Records::Failed, false, true),
            (Records::None, false, false),
        ] {
            let rules = Rules { records, ..RULES };
            assert_eq!(rules.wants(Reason::Done, false), done, "{records:?}");
            assert_eq!(rules.wants(Reason::Reset, false), reset, "{records:?}");
            assert_eq!(rules.wants_start(), records == Records::Both);
        }
    }

    #[test]
    fn a_record_is_info_and_an_empty_one_debug_unless_asked_for() {
        assert!(!RULES.wants(Reason::Done, true));
        assert!(
            Rules {
                empty: true,
                ..RULES
            }
            .wants(Reason::Done, true)
        );
        assert!(
            Rules {
                level: Level::Debug,
                ..RULES
            }
            .wants(Reason::Done, true)
        );
        assert!(
            !Rules {
                level: Level::Warning,
                ..RULES
            }
            .wants(Reason::Internal, false)
        );
        assert!(
            !Rules {
                level: Level::Warning,
                records: Records::Both,
                ..RULES
            }
            .wants_start()
        );
    }

    #[test]
    fn above_the_rate_all_workers_are_told_in_one_summary() {
        let record_rate = RecordRate {
            per_second: 0.001,
            burst: 1,
        };
        let (log, mut writer, stderr) = on_stderr(config::Log {
            record_rate,
            ..config(Target::Stderr)
        });
        let mut one = Recorder::new(&log);
        let mut other = Recorder::new(&log);
        one.ended(NOW, &record(1, Reason::Idle, 512));
        assert_eq!(one.deadline(), None);
        one.ended(NOW, &record(2, Reason::Done, 512));
        one.ended(
            NOW + Duration::from_millis(9),
            &record(3, Reason::Reset, 512),
        );
        other.ended(NOW, &record(4, Reason::Done, 512));
        other.ended(NOW, &record(5, Reason::Done, 0));
        assert_eq!(one.deadline(), Some(NOW + Duration::from_secs(1)));
        one.flush(NOW);
        assert_eq!(one.deadline(), None);
        drop(other);
        writer.flush_now();
        drop((writer, one));
        assert_eq!(
            all(stderr),
            [
                "connection ended peer=192.0.2.7:1 listener=echo reason=idle received=512 sent=512 \
                 duration=0.007s",
                "connections ended, not recorded one by one done=2 reset=1 busiest=192.0.2.7/32 \
                 busiest_count=3"
            ]
        );
    }

    #[test]
    fn a_reload_changes_what_is_recorded_and_how() {
        let (log, mut writer, stderr) = on_stderr(config(Target::Stderr));
        let mut recorder = Recorder::new(&log);
        recorder.started(NOW, ([192, 0, 2, 7], 1).into(), &"echo".into());
        let both = config::Log {
            records: Records::Both,
            peer: PeerForm::Prefix,
            ..config(Target::Stderr)
        };
        log.adopt(&both);
        recorder.adopt(&both);
        recorder.started(NOW, ([192, 0, 2, 7], 2).into(), &"echo".into());
        recorder.ended(NOW, &record(2, Reason::Done, 0));
        writer.flush_now();
        drop((writer, recorder));
        assert_eq!(
            all(stderr),
            ["connection started peer=192.0.2.7/32 listener=echo"]
        );
    }

    #[test]
    fn a_summary_that_finds_no_room_is_kept_and_due_again() {
        let record_rate = RecordRate {
            per_second: 0.001,
            burst: 1,
        };
        let (log, mut writer, stderr) = on_stderr(config::Log {
            record_rate,
            ..config(Target::Stderr)
        });
        let reading = std::thread::spawn(move || all(stderr));
        let mut recorder = Recorder::new(&log);
        for _ in 0..QUEUE_MAX {
            log.say(Event::of(&kind::LISTENING));
        }
        recorder.ended(NOW, &record(1, Reason::Idle, 1));
        assert_eq!(log.dropped(), 1, "it had a token and found no room");
        recorder.ended(NOW, &record(2, Reason::Idle, 1));
        recorder.flush(NOW);
        assert_eq!(recorder.deadline(), Some(NOW + Duration::from_secs(1)));
        writer.flush_now();
        recorder.flush(NOW);
        assert_eq!(recorder.deadline(), None);
        writer.flush_now();
        drop(writer);
        let said = reading.join().expect("no panic");
        assert!(
            said.last()
                .expect("lines")
                .contains(" idle=1 busiest=192.0.2.7/32 busiest_count=1")
        );
    }
}
