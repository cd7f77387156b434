//! What comes before a peer's bytes: the header in which a balancer says for whom it speaks.
//!
//! Until it is there nothing reaches the service. It is neither answered nor counted: not as received, nor for `max_bytes`, nor at a
//! rate. What has come of it is in kept memory, at most [`HEADER_MAX`] bytes; what came behind it in the same receive
//! goes on to the service as it is. The worker is asked ([`Want::Identify`]) whether whoever it names may come in, and says so with
//! [`Connection::handle_identified`] or [`Connection::handle_refused`].

use std::net::SocketAddr;

use super::{Connection, ENDING, Reason, State, Turn, todo};
use crate::buffer::Buffer;
use crate::proxy::{HEADER_MAX, Parsed, parse};
use crate::tick::Tick;

/// Of the few connections that a header comes before, while it is awaited and after it.
#[derive(Debug, Default)]
pub(super) struct Preface {
    stage: Stage,
    /// What has come, while it is not all there.
    kept: Option<Buffer>,
    /// What came behind it.
    rest: Option<Buffer>,
    /// The address that it brought.
    brought: Option<SocketAddr>,
    /// What was wrong with it.
    wrong: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Awaited,
    /// Since then the peer's bytes have been its service's.
    Served(Tick),
}

impl Connection {
    /// It begins with a header. To be told before all else, and before it is asked what it wants.
    pub fn expect_header(&mut self, turn: &Turn<'_>) {
        self.layers.get_or_insert_default().preface = Some(Preface::default());
        self.answers = false;
        // What its source or listener owes is no matter of the header's.
        self.until = Tick::NEVER;
        self.settle_room(turn.limits);
    }

    /// Bytes of a header, or of what came after one that was wrong. Not counted.
    #[cold]
    pub(super) fn receive_header(&mut self, mut input: Buffer, turn: &Turn<'_>) {
        let is_open = self.state == State::Open;
        let Some(preface) = self.preface_mut().filter(|_| is_open) else {
            return;
        };
        let (before, parsed) = match &mut preface.kept {
            None => (0, parse(input.bytes())),
            Some(kept) => {
                let before = kept.bytes().len();
                let most = input.bytes().len().min(HEADER_MAX - before);
                kept.append(&input.bytes()[..most]);
                (before, parse(kept.bytes()))
            }
        };
        match parsed {
            Parsed::More if preface.kept.is_none() => match input.gather(turn.memory) {
                Some(kept) => preface.kept = Some(kept),
                None => self.close(Reason::Full, true),
            },
            Parsed::More => {}
            Parsed::Done { source, length } => {
                preface.kept = None;
                // What was kept was less than a header, and one is short.
                input.advance(u32::try_from(length - before).unwrap_or(u32::MAX));
                preface.brought = source;
                preface.rest = Some(input);
                self.todo |= todo::IDENTIFY;
            }
            Parsed::Wrong(why) => self.refuse_header(why, turn),
        }
    }

    fn refuse_header(&mut self, why: &'static str, turn: &Turn<'_>) {
        if let Some(preface) = self.preface_mut() {
            preface.kept = None;
            preface.wrong = Some(why);
        }
        self.end(Reason::Proxy, turn.now + ENDING, turn);
    }

    /// The peer's FIN has come, perhaps in the middle of a header.
    pub(super) fn cut_header(&mut self) {
        if let Some(preface) = self.preface_mut().filter(|preface| preface.kept.is_some()) {
            preface.kept = None;
            preface.wrong = Some("an end in the middle of the header");
            self.reason = Reason::Proxy;
        }
    }

    /// The address that a header brought; to be asked when the connection [wants](super::Want::Identify) it.
    pub fn brought(&self) -> Option<SocketAddr> {
        self.preface().and_then(|preface| preface.brought)
    }

    /// Its peer is who it says and may come in. Then come the first words of its service, and then what came behind the header:
    /// [`Connection::handle_rest`].
    pub fn handle_identified(&mut self, turn: &Turn<'_>) {
        let is_open = self.state == State::Open;
        let Some(preface) = self.preface_mut().filter(|_| is_open) else {
            return;
        };
        preface.stage = Stage::Served(turn.now);
        self.answers = self.is_bare();
        self.heard = turn.now;
        self.todo |= todo::DEADLINE;
        // Its source may have a debt already.
        self.pace(0, turn);
    }

    /// What came behind the header in the same receive has its turn.
    pub fn handle_rest(&mut self, turn: &Turn<'_>) {
        let rest = self.preface_mut();
        let rest = rest.and_then(|preface| preface.rest.take());
        if let Some(rest) = rest.filter(|rest| !rest.is_empty()) {
            self.handle_received(rest, turn);
        }
    }

    /// Its peer may not come in, and hears why if there are words for it.
    pub fn handle_refused(&mut self, reason: Reason, words: Option<&[u8]>, turn: &Turn<'_>) {
        if let Some(preface) = self.preface_mut() {
            preface.rest = None;
        }
        let words = words.and_then(|words| Buffer::keeping(words, turn.memory));
        match words.filter(|_| self.state == State::Open) {
            Some(words) => {
                let pushed = self.outbox.push(words, turn.memory);
                self.after_slow(pushed, turn);
                self.end(reason, turn.now + ENDING, turn);
            }
            None => self.close(reason, true),
        }
    }

    /// Is the header still to come, or was there none?
    #[inline]
    pub(super) fn awaits_header(&self) -> bool {
        let stage = self.preface().map(|preface| preface.stage);
        stage == Some(Stage::Awaited)
    }

    /// Is its address a balancer's, because no other was brought yet or at all?
    pub fn is_balancer(&self) -> bool {
        self.preface().is_some() && self.brought().is_none()
    }

    /// What was wrong with what the peer sent, in words.
    pub fn detail(&self) -> Option<&'static str> {
        self.preface().and_then(|preface| preface.wrong)
    }

    /// Since when its service has been there for it.
    pub(super) fn served_since(&self) -> Tick {
        match self.preface().map(|preface| preface.stage) {
            Some(Stage::Served(since)) => since,
            _ => self.opened,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{Peer, limits};
    use super::super::{Drain, Limits, PARTING, Reason, Want};
    use super::*;
    use crate::bucket::{Bucket, Rate};
    use crate::config::ByteRate;
    use crate::service::Service;

    const LINE: &[u8] = b"PROXY TCP4 192.0.2.1 10.0.0.1 50312 7\r\n";
    const SECOND: Duration = Duration::from_secs(1);

    /// A connection that begins with a header.
    fn peer(change: impl FnOnce(&mut Limits)) -> Peer {
        let mut limits = limits();
        change(&mut limits);
        let mut peer = Peer::new(limits);
        assert!(peer.tells(Connection::expect_header).is_empty());
        peer
    }

    fn lets_in(peer: &mut Peer, words: Option<&[u8]>) -> Vec<Want> {
        peer.tells(Connection::handle_identified);
        if let Some(words) = words {
            peer.opens(words);
        }
        peer.tells(Connection::handle_rest)
    }

    fn is_identify(wants: &[Want]) -> bool {
        matches!(wants, [Want::Identify])
    }

    #[test]
    fn an_echo_with_a_header_in_front_is_the_same_however_it_is_cut() {
        let all = [LINE, b"hello"].concat();
        for cut in 1..all.len() {
            let mut peer = peer(|limits| limits.max_bytes = 10);
            let mut wants = peer.says(&all[..cut]);
            if cut < LINE.len() {
                assert!(wants.is_empty(), "{cut}: {wants:?}");
                assert!(peer.connection.is_balancer());
                wants = peer.says(&all[cut..]);
            }
            assert!(is_identify(&wants), "{cut}: {wants:?}");
            assert!(
                peer.took.is_empty(),
                "nothing is answered before it is let in"
            );
            lets_in(&mut peer, None);
            if cut >= LINE.len() {
                peer.says(&all[cut..]);
            }
            assert_eq!(peer.took, b"hello", "{cut}");
            assert_eq!(peer.connection.received(), 5, "the header is not counted");
            assert_eq!(peer.connection.brought(), "192.0.2.1:50312".parse().ok());
            assert_eq!((peer.connection.detail(), peer.memory.used()), (None, 0));
        }
    }

    #[test]
    fn a_header_that_drips_takes_one_small_piece_of_memory_and_gives_it_back() {
        let mut peer = peer(|_| {});
        for at in 0..LINE.len() - 1 {
            assert!(peer.says(&LINE[at..=at]).is_empty());
            assert_eq!(peer.memory.used(), HEADER_MAX as u64);
        }
        assert!(is_identify(&peer.says(b"\n")));
        assert_eq!(peer.memory.used(), 0);
        lets_in(&mut peer, None);
        peer.says(b"a");
        assert_eq!(peer.took, b"a");
    }

    #[test]
    fn the_longest_header_may_drip_with_bytes_behind_it() {
        let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x00".to_vec();
        let length = u16::try_from(HEADER_MAX - 16).expect("short");
        header.extend(length.to_be_bytes());
        header.resize(HEADER_MAX, 7);
        let all = [&header[..], &[b'x'; 900]].concat();
        for step in [1, 1000, 4095] {
            let mut peer = peer(|_| {});
            let mut last = Vec::new();
            for piece in all[..HEADER_MAX - 1].chunks(step) {
                assert!(last.is_empty());
                last = peer.says(piece);
            }
            assert!(last.is_empty());
            assert!(is_identify(&peer.says(&all[HEADER_MAX - 1..])));
            lets_in(&mut peer, None);
            assert_eq!(peer.took, [b'x'; 900]);
            assert!(peer.connection.is_balancer(), "it brought no address");
        }
    }

    #[test]
    fn what_is_no_header_ends_it_and_nothing_of_it_is_answered_or_counted() {
        let mut peer = peer(|_| {});
        let wants = peer.says(b"GET / HTTP/1.1\r\n");
        assert!(
            matches!(wants[..], [Want::Shutdown, Want::Deadline]),
            "{wants:?}"
        );
        peer.says(LINE);
        peer.says(b"hello");
        assert_eq!((peer.took.len(), peer.connection.received()), (0, 0));
        assert_eq!(peer.connection.detail(), Some("not a PROXY header"));
        let passed = u64::try_from(PARTING.as_millis()).expect("short");
        peer.wait(passed);
        assert_eq!(peer.connection.reason(), Reason::Proxy);
    }

    #[test]
    fn an_end_before_the_header_is_a_bare_check_and_one_within_it_is_not() {
        let mut bare = peer(|_| {});
        assert!(matches!(bare.closes()[..], [Want::Close { reset: false }]));
        assert_eq!(bare.connection.reason(), Reason::Done);
        let mut cut = peer(|_| {});
        cut.says(b"PROXY ");
        assert!(matches!(cut.closes()[..], [Want::Close { reset: false }]));
        assert_eq!(cut.connection.reason(), Reason::Proxy);
        assert_eq!(
            cut.connection.detail(),
            Some("an end in the middle of the header")
        );
        assert_eq!(cut.memory.used(), 0);
    }

    #[test]
    fn a_header_has_a_time_of_its_own_and_the_first_byte_is_awaited_after_it() {
        let times = |limits: &mut Limits| {
            limits.handshake = Some(SECOND);
            limits.first_byte = Some(SECOND / 2);
        };
        let mut late = peer(times);
        assert_eq!(late.deadline(), Tick(1000));
        late.wait(900);
        late.says(b"PROXY ");
        assert_eq!(late.deadline(), Tick(1000), "a drip earns no time");
        late.wait(100);
        assert_eq!(late.connection.reason(), Reason::Handshake);

        let mut silent = peer(times);
        silent.wait(900);
        silent.says(LINE);
        lets_in(&mut silent, None);
        assert_eq!(silent.deadline(), Tick(1400));
        silent.wait(500);
        assert_eq!(silent.connection.reason(), Reason::FirstByte);
    }

    #[test]
    fn a_drain_does_not_wait_for_a_header() {
        let mut peer = peer(|_| {});
        peer.limits.drain = Some(Drain {
            idle: SECOND,
            parting: PARTING,
            until: Tick(30_000),
        });
        peer.wait(1000);
        assert_eq!(peer.connection.reason(), Reason::Drain);
    }

    #[test]
    fn first_words_come_after_the_header_and_before_what_stood_behind_it() {
        let mut peer = peer(|limits| limits.service = Service::Whoami);
        peer.says(&[LINE, b"hello"].concat());
        lets_in(&mut peer, Some(b"you\n"));
        assert_eq!(peer.took, b"you\nhello");
    }

    #[test]
    fn what_never_ends_does_not_begin_before_the_header() {
        let mut peer = peer(|limits| limits.service = Service::Chargen);
        peer.again();
        assert!(peer.took.is_empty());
        peer.says(LINE);
        lets_in(&mut peer, Some(b""));
        assert!(!peer.took.is_empty());
    }

    #[test]
    fn who_may_not_come_in_is_reset_or_hears_why() {
        let mut mute = peer(|_| {});
        mute.says(&[LINE, b"hello"].concat());
        let wants = mute.tells(|connection, turn| {
            connection.handle_refused(Reason::Denied, None, turn);
        });
        assert!(
            matches!(wants[..], [Want::Close { reset: true }]),
            "{wants:?}"
        );
        assert_eq!(
            (mute.connection.reason(), mute.took.len()),
            (Reason::Denied, 0)
        );

        let mut told = peer(|_| {});
        told.says(&[LINE, b"hello"].concat());
        let wants = told.tells(|connection, turn| {
            connection.handle_refused(Reason::Full, Some(b"no\r\n"), turn);
        });
        assert!(
            matches!(wants[..], [Want::Shutdown, Want::Deadline]),
            "{wants:?}"
        );
        assert_eq!(
            (told.connection.reason(), &told.took[..]),
            (Reason::Full, &b"no\r\n"[..])
        );
    }

    #[test]
    fn without_memory_for_a_part_of_a_header_the_connection_ends() {
        let mut peer = peer(|_| {});
        peer.memory.set_limit(0);
        assert!(matches!(
            peer.says(b"PROXY ")[..],
            [Want::Close { reset: true }]
        ));
        assert_eq!(peer.connection.reason(), Reason::Full);
    }

    #[test]
    fn a_debt_of_the_listener_delays_the_service_and_not_the_header() {
        let rate = Rate::from(ByteRate {
            bytes: 10,
            per: SECOND,
        });
        let bucket = std::sync::Arc::new(Bucket::default());
        bucket.charge(rate, 100, Tick(0));
        let mut peer = Peer::unchecked(limits().with_rates(None, Some((rate, bucket))));
        peer.tells(Connection::expect_header);
        assert!(peer.room > 0);
        peer.says(LINE);
        lets_in(&mut peer, None);
        assert_eq!(peer.room, 0);
    }
}
