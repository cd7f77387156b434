//! What a connection sends by itself: the first words of its service, and what never ends.
//!
//! First words are kept memory, counted as what any peer is owed. What never ends is a range of constant memory, at most
//! one chunk at a time: the next is made when the kernel has taken the last one, and with a turn in between, so
//! that a peer that reads fast does not hold its worker, and one that does not read is owed no more.

use super::{Connection, ENDING, Reason, State, Turn, todo};
use crate::buffer::Buffer;
use crate::service::chargen;

impl Connection {
    /// It is open, and these are the first words of its service. To be told before all else, if the service
    /// [speaks first](crate::service::Service::speaks_first).
    pub fn handle_opened(&mut self, words: &[u8], turn: &Turn<'_>) {
        if self.service.is_endless() {
            self.go_on_after_words(turn);
            return self.speak_on(turn);
        }
        let allowed = self.left(turn).min(words.len() as u64);
        // At most their length.
        let allowed = usize::try_from(allowed).unwrap_or(usize::MAX);
        let Some(words_kept) = Buffer::keeping(&words[..allowed], turn.memory) else {
            return self.close(Reason::Full, true);
        };
        if allowed > 0 {
            self.say(words_kept, turn);
        }
        if allowed < words.len() {
            self.end(Reason::Quota, turn.now + ENDING, turn);
        } else if self.service.is_brief() {
            self.end(Reason::Done, turn.now + ENDING, turn);
        } else {
            self.go_on_after_words(turn);
        }
    }

    /// Asks for the next turn: once, however many have a reason to.
    pub(super) fn ask_for_a_turn(&mut self) {
        if !std::mem::replace(&mut self.is_asked, true) {
            self.todo |= todo::AGAIN;
        }
    }

    /// The turn has come that was waited for with [`Want::Again`](super::Want::Again).
    pub fn handle_again(&mut self, turn: &Turn<'_>) {
        self.is_asked = false;
        self.go_on_expanding(turn);
        if self.service.is_endless() {
            self.speak_on(turn);
        }
    }

    /// Says the next chunk of what never ends, if it may.
    fn speak_on(&mut self, turn: &Turn<'_>) {
        // One that a rate pauses is told again when the pause ends.
        let is_open = self.state == State::Open && !self.awaits_header() && !self.is_handshaking();
        if !is_open || self.outbox.owed() > 0 || self.is_paused() {
            return;
        }
        let left = self.left(turn);
        if left == 0 {
            return self.end(Reason::Quota, turn.now + ENDING, turn);
        }
        let most = turn
            .limits
            .piece()
            .min(u32::try_from(left).unwrap_or(u32::MAX));
        let chunk = chargen::chunk(self.sent, most);
        let length = chunk.len();
        self.say(chunk, turn);
        self.pace(length.into(), turn);
    }

    /// What `max_bytes` leaves, while nothing is owed.
    fn left(&self, turn: &Turn<'_>) -> u64 {
        match turn.limits.max_bytes {
            u64::MAX => u64::MAX,
            most => most.saturating_sub(self.received + self.sent),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use nix::errno::Errno;

    use super::super::tests::{Peer, limits};
    use super::super::{DRAIN_PARTING, Drain, Limits, Want};
    use crate::buffer::Memory;
    use crate::connection::Reason;
    use crate::service::{Service, chargen};
    use crate::tick::Tick;

    const CHUNK: u64 = chargen::CHUNK as u64;

    fn peer(service: Service, change: impl FnOnce(&mut Limits)) -> Peer {
        let mut limits = Limits {
            service,
            buffer: 1 << 20,
            ..limits()
        };
        change(&mut limits);
        Peer::new(limits)
    }

    fn is_pattern(bytes: &[u8]) -> bool {
        let mut at = 0;
        bytes.chunks(chargen::CHUNK as usize).all(|piece| {
            let right = chargen::chunk(at, chargen::CHUNK).bytes()[..piece.len()] == *piece;
            at += piece.len() as u64;
            right
        })
    }

    #[test]
    fn what_is_discarded_is_counted_and_never_answered() {
        let mut peer = peer(Service::Discard, |_| {});
        for _ in 0..3 {
            assert!(peer.says(b"anything").is_empty());
        }
        assert!(peer.took.is_empty());
        assert_eq!(
            (peer.connection.received(), peer.connection.sent()),
            (24, 0)
        );
        let wants = peer.closes();
        assert!(
            matches!(wants[..], [Want::Close { reset: false }]),
            "{wants:?}"
        );
        assert_eq!(peer.connection.reason(), Reason::Done);
    }

    #[test]
    fn a_quota_of_discard_is_all_for_the_peer() {
        let mut exact = peer(Service::Discard, |limits| limits.max_bytes = 10);
        assert!(exact.says(&[1; 10]).is_empty());
        assert!(!exact.says(&[1; 1]).is_empty());
        assert_eq!(exact.connection.reason(), Reason::Quota);
    }

    #[test]
    fn a_listener_that_becomes_another_service_keeps_its_word_to_those_who_are_there() {
        let mut peer = peer(Service::Discard, |_| {});
        peer.limits.service = Service::Echo;
        peer.says(b"a");
        assert!(peer.took.is_empty());
    }

    #[test]
    fn characters_come_one_chunk_a_turn_and_in_order() {
        let mut peer = peer(Service::Chargen, |_| {});
        assert!(matches!(peer.opens(b"")[..], [Want::Deadline, Want::Again]));
        assert_eq!(peer.took.len() as u64, CHUNK);
        for _ in 0..9 {
            assert!(matches!(peer.again()[..], [Want::Deadline, Want::Again]));
            peer.says(b"thrown away");
        }
        assert_eq!(peer.took.len() as u64, 10 * CHUNK);
        assert!(is_pattern(&peer.took));
    }

    #[test]
    fn a_peer_that_stops_reading_is_owed_one_chunk_and_charged_for_none() {
        let mut peer = peer(Service::Chargen, |limits| {
            limits.stall = Some(Duration::from_secs(1));
            limits.user_timeout = limits.stall;
        });
        peer.takes = 1000;
        assert!(matches!(peer.opens(b"")[..], [Want::Deadline]));
        for _ in 0..3 {
            peer.again();
            peer.says(b"thrown away");
        }
        assert_eq!(u64::from(peer.connection.owed()), CHUNK - 1000);
        assert_eq!(peer.memory.used(), 0);
        for _ in 0..4 {
            assert!(matches!(peer.wait(250)[..], [Want::Ask]));
        }
        assert!(matches!(peer.acked(0)[..], [Want::Close { reset: true }]));
        assert_eq!(peer.connection.reason(), Reason::Stall);
    }

    #[test]
    fn no_more_is_owed_than_the_buffer() {
        let mut peer = peer(Service::Chargen, |limits| limits.buffer = 4096);
        peer.takes = 0;
        peer.opens(b"");
        assert_eq!(peer.connection.owed(), 4096);
    }

    #[test]
    fn characters_end_exactly_at_the_quota() {
        let mut peer = peer(Service::Chargen, |limits| limits.max_bytes = CHUNK + 100);
        peer.opens(b"");
        peer.says(&[0; 30]);
        peer.again();
        assert_eq!(peer.took.len() as u64, CHUNK + 70);
        let wants = peer.again();
        assert!(
            matches!(wants[..], [Want::Shutdown, Want::Deadline]),
            "{wants:?}"
        );
        assert_eq!(peer.connection.reason(), Reason::Quota);
    }

    #[test]
    fn after_the_peers_fin_the_chunk_is_the_last() {
        let mut peer = peer(Service::Chargen, |_| {});
        peer.takes = 100;
        peer.opens(b"");
        assert!(peer.closes().is_empty(), "the rest of it is owed");
        let wants = peer.takes(usize::MAX);
        assert!(
            matches!(wants[..], [Want::Close { reset: false }]),
            "{wants:?}"
        );
        assert_eq!(peer.took.len() as u64, CHUNK);
        assert_eq!(peer.connection.reason(), Reason::Done);
    }

    #[test]
    fn nobody_waits_for_a_word_from_who_reads_characters() {
        let second = Some(Duration::from_secs(1));
        let mut peer = peer(Service::Chargen, |limits| {
            limits.first_byte = second;
            limits.idle = second;
        });
        peer.opens(b"");
        for _ in 0..5 {
            peer.wait(900);
            peer.again();
        }
        assert_eq!(peer.connection.reason(), Reason::Done);
        assert_eq!(peer.took.len() as u64, 6 * CHUNK);
    }

    #[test]
    fn a_rate_lets_characters_through_in_pieces() {
        let rate = crate::config::ByteRate {
            bytes: 10_000,
            per: Duration::from_secs(1),
        };
        let mut peer = peer(Service::Chargen, |limits| {
            *limits = limits
                .clone()
                .with_rates(None, Some((rate.into(), Arc::default())));
            limits.idle = Some(Duration::from_millis(50));
        });
        peer.opens(b"");
        assert_eq!(
            peer.took.len(),
            1000,
            "a tenth of a second's worth is there"
        );
        peer.again();
        peer.again();
        assert_eq!(peer.took.len(), 2000, "and one piece on credit");
        let wants = peer.wait(100);
        assert!(
            wants.iter().any(|want| matches!(want, Want::Again)),
            "{wants:?}"
        );
        peer.again();
        assert_eq!(peer.took.len(), 3000);
        assert!(is_pattern(&peer.took[..]));
        assert_eq!(peer.connection.reason(), Reason::Done);
    }

    #[test]
    fn a_drain_ends_characters_at_once() {
        let mut peer = peer(Service::Chargen, |_| {});
        peer.opens(b"");
        peer.limits.drain = Some(Drain {
            idle: Duration::from_secs(5),
            parting: DRAIN_PARTING,
            until: Tick(30_000),
        });
        let wants = peer.wait(0);
        assert!(
            matches!(wants[..], [Want::Shutdown, Want::Deadline]),
            "{wants:?}"
        );
        assert_eq!(peer.connection.reason(), Reason::Drain);
        assert!(peer.again().is_empty(), "it has ended");
    }

    #[test]
    fn a_brief_service_says_its_words_and_ends() {
        let mut peer = peer(Service::Daytime, |_| {});
        let wants = peer.opens(b"now");
        assert!(
            matches!(wants[..], [Want::Shutdown, Want::Deadline]),
            "{wants:?}"
        );
        peer.says(b"thanks");
        let wants = peer.closes();
        assert!(
            matches!(wants[..], [Want::Close { reset: false }]),
            "{wants:?}"
        );
        assert_eq!(peer.took, b"now");
        assert_eq!(
            (peer.connection.sent(), peer.connection.reason()),
            (3, Reason::Done)
        );
    }

    #[test]
    fn who_does_not_take_the_words_of_a_brief_service_is_not_done() {
        let mut slow = peer(Service::Time, |_| {});
        slow.takes = 1;
        slow.opens(b"1234");
        slow.wait(30_000);
        assert_eq!(slow.connection.reason(), Reason::Stall);
        let mut gone = peer(Service::Time, |_| {});
        gone.takes = 1;
        gone.opens(b"1234");
        gone.breaks(Errno::ECONNRESET);
        assert_eq!(gone.connection.reason(), Reason::Reset);
        let mut done = peer(Service::Time, |_| {});
        done.opens(b"1234");
        done.breaks(Errno::ECONNRESET);
        assert_eq!(done.connection.reason(), Reason::Done);
    }

    #[test]
    fn whoami_is_echo_after_its_words() {
        let mut peer = peer(Service::Whoami, |limits| {
            limits.first_byte = Some(Duration::from_secs(1))
        });
        peer.takes = 4;
        peer.opens(b"you are");
        assert_eq!(peer.memory.used(), 7);
        peer.says(b" here");
        peer.takes(usize::MAX);
        peer.takes(usize::MAX);
        peer.says(b" now");
        assert_eq!(peer.took, b"you are here now");
        assert_eq!((peer.connection.sent(), peer.memory.used()), (16, 0));
        assert_eq!(peer.deadline(), Tick::NEVER, "its first byte came");
    }

    #[test]
    fn first_words_count_for_the_quota() {
        let mut exact = peer(Service::Whoami, |limits| limits.max_bytes = 7);
        assert!(matches!(exact.opens(b"you are")[..], [Want::Deadline]));
        assert!(!exact.says(b"a").is_empty());
        assert_eq!(
            (exact.took.as_slice(), exact.connection.reason()),
            (&b"you are"[..], Reason::Quota)
        );
        for service in [Service::Whoami, Service::Time] {
            let mut over = peer(service, |limits| limits.max_bytes = 3);
            over.opens(b"1234");
            assert_eq!(
                (over.took.as_slice(), over.connection.reason()),
                (&b"123"[..], Reason::Quota)
            );
        }
    }

    #[test]
    fn without_memory_for_first_words_a_connection_ends() {
        let mut peer = peer(Service::Time, |_| {});
        peer.memory = Memory::new(3);
        let wants = peer.opens(b"1234");
        assert!(
            matches!(wants[..], [Want::Close { reset: true }]),
            "{wants:?}"
        );
        assert_eq!(peer.connection.reason(), Reason::Full);
    }
}
