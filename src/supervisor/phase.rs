//! (Phase, Event) -> (Phase, Action): the whole life of the daemon, in one table.
//!
//! Pure. A reload is a step and not a phase: it ends before the next event is read. Signals that arrive
//! during the start are read when it is over, so a SIGHUP then is a reload right after READY, and
//! a SIGTERM ends a daemon that was never ready.
//!
//! ```text
//! Starting --Ready--> Serving --Terminate--> Draining --all drained--> Stopped
//!    |                 | ^                      |
//!    |                 '-' Hangup: reload       '--Terminate again, or Deadline: cut--> Stopped
//!    '--Terminate--------------------------------------------------------------------> Stopped
//! ```

/// Where the daemon is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not ready yet.
    Starting,
    /// Takes connections.
    Serving,
    /// Takes none, and lets those that are here end.
    Draining,
    /// Ends.
    Stopped,
}

/// What happened to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The workers serve.
    Ready,
    /// The configuration is to be read again.
    Hangup,
    /// It is to end.
    Terminate,
    /// The terminal that it was started on is gone: it is to end, however often that is said.
    TerminalGone,
    /// The last worker has returned.
    Drained,
    /// The drain has taken as long as it may.
    Deadline,
}

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Nothing,
    /// Tell the service manager.
    SayReady,
    /// Read the configuration; adopt it whole, or refuse it whole.
    Reload,
    /// Refuse to reload: it is too late.
    RefuseReload,
    /// Accept nobody and let the connections end.
    Drain,
    /// Reset the connections that are left: somebody does not want to wait.
    StopAtOnce,
    /// Reset the connections that are left: the time is over.
    Cut,
    /// Nothing is left to do.
    Exit,
}

impl Phase {
    /// The next phase, and what is to be done on the way.
    pub fn step(self, event: Event) -> (Phase, Action) {
        match (self, event) {
            (Phase::Starting, Event::Ready) => (Phase::Serving, Action::SayReady),
            (Phase::Starting, Event::Terminate | Event::TerminalGone) => {
                (Phase::Stopped, Action::Exit)
            }
            (Phase::Serving, Event::Hangup) => (Phase::Serving, Action::Reload),
            (Phase::Serving, Event::Terminate | Event::TerminalGone) => {
                (Phase::Draining, Action::Drain)
            }
            (Phase::Draining, Event::Hangup) => (Phase::Draining, Action::RefuseReload),
            (Phase::Draining, Event::Terminate) => (Phase::Stopped, Action::StopAtOnce),
            (Phase::Draining, Event::Deadline) => (Phase::Stopped, Action::Cut),
            (Phase::Draining, Event::Drained) => (Phase::Stopped, Action::Exit),
            (phase, _) => (phase, Action::Nothing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The actions that a life takes, from the start.
    fn live(events: &[Event]) -> (Phase, Vec<Action>) {
        let mut phase = Phase::Starting;
        let mut actions = Vec::new();
        for event in events {
            let (next, action) = phase.step(*event);
            phase = next;
            actions.push(action);
        }
        (phase, actions)
    }

    #[test]
    fn a_drain_that_ends_by_itself_cuts_nobody() {
        let (phase, actions) = live(&[Event::Ready, Event::Terminate, Event::Drained]);
        assert_eq!(actions, [Action::SayReady, Action::Drain, Action::Exit]);
        assert_eq!(phase, Phase::Stopped);
    }

    #[test]
    fn a_second_signal_and_a_deadline_end_a_drain() {
        for (event, action) in [
            (Event::Terminate, Action::StopAtOnce),
            (Event::Deadline, Action::Cut),
        ] {
            let (phase, actions) = live(&[Event::Ready, Event::Terminate, event]);
            assert_eq!((phase, actions[2]), (Phase::Stopped, action));
        }
    }

    #[test]
    fn a_terminal_that_is_gone_is_no_hurry_though_it_is_said_twice() {
        let (phase, actions) = live(&[Event::Ready, Event::TerminalGone, Event::TerminalGone]);
        assert_eq!((phase, actions[2]), (Phase::Draining, Action::Nothing));
    }

    #[test]
    fn ten_hangups_are_ten_reloads_while_serving_and_none_in_a_drain() {
        let mut events = vec![Event::Ready];
        events.extend([Event::Hangup; 10]);
        let (phase, actions) = live(&events);
        assert_eq!(
            (
                phase,
                actions[1..].iter().all(|action| *action == Action::Reload)
            ),
            (Phase::Serving, true)
        );
        let (phase, actions) = live(&[Event::Ready, Event::Terminate, Event::Hangup]);
        assert_eq!((phase, actions[2]), (Phase::Draining, Action::RefuseReload));
    }

    #[test]
    fn a_termination_before_ready_ends_what_never_served() {
        assert_eq!(
            live(&[Event::Terminate]),
            (Phase::Stopped, vec![Action::Exit])
        );
    }

    #[test]
    fn after_the_end_nothing_happens() {
        for event in [
            Event::Ready,
            Event::Hangup,
            Event::Terminate,
            Event::Drained,
            Event::Deadline,
        ] {
            assert_eq!(
                Phase::Stopped.step(event),
                (Phase::Stopped, Action::Nothing)
            );
        }
    }
}
