//! A peer that speaks TLS as well: what is of TLS does not wait for what is compressed in it.

use std::io::{Read, Write};

use rustls::{ClientConnection, version};

use super::*;
use crate::tls::tests::{client, identity};

/// A peer that speaks TLS as well.
pub(super) struct Sealed {
    pub(super) peer: Peer,
    pub(super) client: ClientConnection,
    /// How much of what it took it has opened, what that was, and whether it was the end.
    opened: usize,
    pub(super) heard: Vec<u8>,
    pub(super) is_told_the_end: bool,
}

impl Sealed {
    pub(super) fn new(change: impl FnOnce(&mut Limits)) -> Sealed {
        let mut limits = Limits {
            compression: Some(TERMS),
            tls: Some(Arc::clone(&identity().0)),
            buffer: 512 << 10,
            ..limits()
        };
        change(&mut limits);
        let mut peer = Peer::new(limits);
        peer.memory = Memory::new(64 << 20);
        Sealed {
            peer,
            client: client(&version::TLS13),
            opened: 0,
            heard: Vec::new(),
            is_told_the_end: false,
        }
    }

    /// What it has to say.
    pub(super) fn sealed(&mut self) -> Vec<u8> {
        let mut sealed = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut sealed).expect("a Vec takes all");
        }
        sealed
    }

    /// Says it, if it is listened to, and has its turns.
    pub(super) fn speak(&mut self) {
        let sealed = match self.peer.room {
            0 => Vec::new(),
            _ => self.sealed(),
        };
        if !sealed.is_empty() {
            let wants = self.peer.says(&sealed);
            turns(&mut self.peer, wants);
        }
        let mut rest = &self.peer.took[self.opened..];
        self.opened = self.peer.took.len();
        while !rest.is_empty() {
            self.client.read_tls(&mut rest).expect("room");
            let state = self.client.process_new_packets().expect("no mistake");
            self.is_told_the_end |= state.peer_has_closed();
            let _ = self.client.reader().read_to_end(&mut self.heard);
        }
    }

    fn shake_hands(&mut self) {
        for _ in 0..3 {
            self.speak();
        }
        assert!(!self.client.is_handshaking());
    }

    fn says(&mut self, bytes: &[u8]) {
        let written = self.client.writer().write(bytes);
        assert_eq!(written.expect("room"), bytes.len());
        self.speak();
    }

    fn wait(&mut self, ms: u64) {
        let wants = self.peer.wait(ms);
        turns(&mut self.peer, wants);
        self.speak();
    }

    /// Reads nothing, until it is owed so much that nothing more is expanded, and is listened to.
    fn is_slow(&mut self) {
        self.peer.takes = 0;
        for piece in packed(&noise(400_000)).chunks(8000) {
            if self.peer.connection.owed() > 128 << 10 {
                break;
            }
            self.says(piece);
        }
        assert!(self.peer.room > 0 && !self.peer.connection.is_expanding());
    }
}

#[test]
fn a_handshake_takes_no_memory_of_frames() {
    let mut sealed = Sealed::new(|_| {});
    let other = sealed.peer.memory.charge(33 << 20).expect("it is there");
    sealed.shake_hands();
    let frame = packed(b"hello");
    sealed.says(&frame);
    assert!(sealed.heard.is_empty());
    drop(other);
    sealed.wait(50);
    assert_eq!(sealed.heard, frame);
}

#[test]
fn a_handshake_behind_a_header_is_answered_though_a_rate_pauses_its_source() {
    let mut sealed = Sealed::new(rated(1000));
    sealed.peer.tells(Connection::expect_header);
    let line = b"PROXY TCP4 192.0.2.1 10.0.0.1 50312 7\r\n";
    let hello = sealed.sealed();
    // Others owe so much.
    let (rate, bucket) = sealed.peer.limits.rates.total.clone().expect("a rate");
    bucket.charge(rate, 1000, Tick(0));
    sealed.peer.says(&[&line[..], &hello].concat());
    sealed.peer.tells(Connection::handle_identified);
    assert_eq!(sealed.peer.room, 0, "it is paused");
    sealed.peer.tells(Connection::handle_rest);
    sealed.wait(2000);
    sealed.shake_hands();
}

#[test]
fn a_close_notify_of_a_slow_reader_is_its_end() {
    let mut sealed = Sealed::new(|_| {});
    sealed.shake_hands();
    sealed.is_slow();
    sealed.client.send_close_notify();
    sealed.speak();
    let wants = sealed.peer.takes(usize::MAX);
    turns(&mut sealed.peer, wants);
    sealed.speak();
    assert!(sealed.is_told_the_end);
}

#[test]
fn a_broken_record_of_a_slow_reader_is_its_end() {
    let mut sealed = Sealed::new(|_| {});
    sealed.shake_hands();
    sealed.is_slow();
    let record = [&[0x17, 3, 3, 0, 40][..], &[7; 40]].concat();
    sealed.peer.says(&record);
    assert_eq!(sealed.peer.connection.reason(), Reason::Tls);
}

#[test]
fn a_close_notify_takes_nothing_from_what_a_rate_asks() {
    let mut sealed = Sealed::new(rated(100_000));
    sealed.shake_hands();
    let frame = packed(&vec![7; 1 << 20]);
    sealed.client.writer().write_all(&frame).expect("room");
    sealed.client.send_close_notify();
    sealed.speak();
    assert!(sealed.peer.connection.received() <= 20_000);
    for _ in 0..110 {
        sealed.wait(100);
    }
    assert!(sealed.is_told_the_end);
    assert_eq!(sealed.peer.connection.received(), 1 << 20);
}

#[test]
fn what_came_before_the_only_words_is_not_kept() {
    let mut sealed = Sealed::new(|limits| {
        limits.service = Service::Daytime;
        limits.compression = None;
    });
    sealed.speak();
    sealed.client.writer().write_all(&[7; 9000]).expect("room");
    let rest = sealed.sealed();
    assert!(matches!(sealed.peer.says(&rest)[..], [Want::Greet]));
    sealed.peer.opens(b"now");
    let session = sealed.peer.connection.session_mut();
    assert!(session.expect("TLS").held().is_empty());
}

#[test]
fn what_comes_with_the_end_of_the_handshake_is_expanded_once() {
    let mut sealed = Sealed::new(|limits| limits.service = Service::Chargen);
    sealed.speak();
    let bomb = packed(&vec![7; 1 << 20]);
    sealed.client.writer().write_all(&bomb).expect("room");
    let finished = sealed.sealed();
    let wants = sealed.peer.says(&finished);
    assert!(wants.iter().any(|want| matches!(want, Want::Greet)));
    sealed.peer.opens(b"");
    assert_eq!(sealed.peer.connection.received(), u64::from(EXPANDED));
}

#[test]
fn a_pause_that_ends_during_the_handshake_is_no_second_reason_to_speak() {
    let mut sealed = Sealed::new(|limits| {
        rated(100_000_000)(limits);
        limits.service = Service::Chargen;
        limits.compression = None;
    });
    let (rate, bucket) = sealed.peer.limits.rates.total.clone().expect("a rate");
    let agains = |wants: Vec<Want>| {
        let agains = wants.iter().filter(|want| matches!(want, Want::Again));
        agains.count()
    };
    sealed.speak();
    // Others use up what there is, and it comes back before the handshake ends.
    bucket.charge(rate, 20_000_000, sealed.peer.now);
    let turn = |connection: &mut Connection, turn: &Turn<'_>| connection.pace(0, turn);
    let mut asked = agains(sealed.peer.tells(turn));
    let due = sealed.peer.deadline().since(sealed.peer.now);
    let ms = u64::try_from(due.as_millis()).expect("short");
    asked += agains(sealed.peer.wait(ms));
    sealed.peer.wait(1000);
    let finished = sealed.sealed();
    asked += agains(sealed.peer.says(&finished));
    asked += agains(sealed.peer.opens(b""));
    for _ in 0..10 {
        assert_eq!(asked, 1);
        asked = agains(sealed.peer.again());
    }
}
