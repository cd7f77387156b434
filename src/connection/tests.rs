//! A connection between a kernel and a peer that a test plays.

use super::*;
use crate::buffer::TurnMemory;
use crate::service::Service;

/// Limits that bound nothing but the buffer.
pub(super) fn limits() -> Limits {
    Limits::unbounded(Service::Echo, 1000)
}

/// A connection and the kernel and peer around it.
pub(super) struct Peer {
    pub(super) connection: Connection,
    pub(super) limits: Limits,
    pub(super) memory: Arc<Memory>,
    pub(super) now: Tick,
    /// Bytes that the kernel takes from now on.
    pub(super) takes: usize,
    /// What it took.
    pub(super) took: Vec<u8>,
    /// It answers a send later.
    is_late: bool,
    /// A send that it has not answered.
    pub(super) waiting: Option<Buffer>,
    /// How much may be received.
    pub(super) room: u32,
}

impl Peer {
    pub(super) fn new(limits: Limits) -> Peer {
        let mut peer = Peer::unchecked(limits);
        assert!(peer.step(|_, _| {}).is_empty());
        assert!(peer.room > 0, "it receives from the beginning");
        peer
    }

    /// One that may be paused from the beginning, and has been asked for nothing.
    pub(super) fn unchecked(limits: Limits) -> Peer {
        let memory = Memory::new(1 << 20);
        let turn = Turn {
            now: Tick(0),
            limits: &limits,
            memory: &memory,
            source: None,
        };
        let connection = Connection::new(&turn);
        Peer {
            connection,
            limits,
            memory,
            now: Tick(0),
            takes: usize::MAX,
            took: Vec::new(),
            is_late: false,
            waiting: None,
            room: 0,
        }
    }

    /// Tells the connection something that has no name of its own here.
    pub(super) fn tells(&mut self, event: impl FnOnce(&mut Connection, &Turn<'_>)) -> Vec<Want> {
        self.step(event)
    }

    /// Tells the connection something and does what it wants; answers what is neither send nor receive.
    fn step(&mut self, event: impl FnOnce(&mut Connection, &Turn<'_>)) -> Vec<Want> {
        let limits = self.limits.clone();
        let turn = Turn {
            now: self.now,
            limits: &limits,
            memory: &self.memory,
            source: None,
        };
        event(&mut self.connection, &turn);
        let mut wants = Vec::new();
        while let Some(want) = self.connection.poll_want() {
            match want {
                Want::Receive(room) => self.room = room,
                Want::Send(bytes) => {
                    let count = bytes.bytes().len().min(self.takes);
                    if self.is_late || count == 0 && bytes.is_kept() {
                        self.waiting = Some(bytes);
                        continue;
                    }
                    self.takes -= count;
                    self.took.extend_from_slice(&bytes.bytes()[..count]);
                    let count = u32::try_from(count).expect("small");
                    self.connection.handle_sent(Sent::of(bytes, count), &turn);
                }
                other => wants.push(other),
            }
        }
        wants
    }

    pub(super) fn says(&mut self, bytes: &[u8]) -> Vec<Want> {
        let input = TurnMemory::of(bytes.len()).fill::<()>(u32::MAX, |to| {
            to[..bytes.len()].copy_from_slice(bytes);
            Ok(bytes.len())
        });
        let input = input.expect("filled");
        self.step(|connection, turn| connection.handle_received(input, turn))
    }

    pub(super) fn opens(&mut self, words: &[u8]) -> Vec<Want> {
        self.step(|connection, turn| connection.handle_opened(words, turn))
    }

    pub(super) fn again(&mut self) -> Vec<Want> {
        self.step(Connection::handle_again)
    }

    pub(super) fn breaks(&mut self, errno: Errno) -> Vec<Want> {
        self.step(|connection, _| connection.handle_failed(errno))
    }

    pub(super) fn closes(&mut self) -> Vec<Want> {
        self.step(Connection::handle_peer_closed)
    }

    /// The peer takes so many of the bytes that wait.
    pub(super) fn takes(&mut self, count: usize) -> Vec<Want> {
        self.takes = count;
        let Some(bytes) = self.waiting.take() else {
            return Vec::new();
        };
        let taken = bytes.bytes().len().min(count);
        self.takes -= taken;
        self.took.extend_from_slice(&bytes.bytes()[..taken]);
        let count = u32::try_from(taken).expect("small");
        let sent = Sent::of(bytes, count);
        self.step(|connection, turn| connection.handle_sent(sent, turn))
    }

    pub(super) fn wait(&mut self, ms: u64) -> Vec<Want> {
        self.now = Tick(self.now.0 + ms);
        self.step(Connection::handle_timeout)
    }

    pub(super) fn acked(&mut self, bytes: u64) -> Vec<Want> {
        self.step(|connection, turn| connection.handle_acked(bytes, true, turn))
    }

    /// The peer has acknowledged so many bytes, which is all.
    pub(super) fn took_all(&mut self, bytes: u64) -> Vec<Want> {
        self.step(|connection, turn| connection.handle_acked(bytes, false, turn))
    }

    pub(super) fn deadline(&self) -> Tick {
        self.connection.deadline(&self.limits)
    }
}

#[test]
fn what_is_said_comes_back() {
    let mut peer = Peer::new(limits());
    assert!(peer.says(b"hello ").is_empty());
    assert!(peer.says(b"world").is_empty());
    assert_eq!(peer.took, b"hello world");
    assert_eq!(
        (
            peer.connection.received(),
            peer.connection.sent(),
            peer.connection.owed()
        ),
        (11, 11, 0)
    );
}

#[test]
fn a_slow_reader_stops_being_read_and_is_read_again_at_low_water() {
    let mut peer = Peer::new(limits());
    peer.takes = 0;
    peer.says(&[1; 600]);
    assert_eq!(peer.room, 400, "never more is owed than the buffer");
    peer.says(&[2; 400]);
    assert_eq!((peer.room, peer.connection.owed()), (0, 1000));
    peer.takes(700);
    assert_eq!(peer.room, 0, "above low water it stays paused");
    peer.takes(50);
    assert_eq!(peer.room, 750);
    peer.takes(usize::MAX);
    assert_eq!((peer.room, peer.connection.owed()), (1000, 0));
    assert_eq!(peer.took, [[1; 600].as_slice(), &[2; 400]].concat());
    assert_eq!(peer.memory.used(), 0);
}

#[test]
fn after_the_peers_fin_it_gets_all_that_it_is_owed() {
    let mut peer = Peer::new(limits());
    peer.takes = 1;
    peer.says(b"abc");
    assert!(
        peer.step(Connection::handle_peer_closed).is_empty(),
        "two bytes are owed"
    );
    let wants = peer.takes(2);
    assert!(
        matches!(wants[..], [Want::Close { reset: false }]),
        "{wants:?}"
    );
    assert_eq!(
        (peer.took.as_slice(), peer.connection.reason()),
        (&b"abc"[..], Reason::Done)
    );
}

#[test]
fn a_quota_is_exact_and_what_it_allows_comes_back() {
    let quota = || Limits {
        max_bytes: 10,
        ..limits()
    };
    let mut exact = Peer::new(quota());
    assert!(
        exact.says(b"abcde").is_empty(),
        "ten bytes, both ways together"
    );
    let mut over = Peer::new(quota());
    let wants = over.says(b"abcdef");
    assert!(
        matches!(wants[..], [Want::Shutdown, Want::Deadline]),
        "{wants:?}"
    );
    assert_eq!(
        (over.took.as_slice(), over.connection.reason()),
        (&b"abcde"[..], Reason::Quota)
    );
}

#[test]
fn without_memory_for_what_it_is_owed_a_connection_ends() {
    let mut peer = Peer::new(limits());
    peer.memory = Memory::new(2);
    peer.takes = 1;
    let wants = peer.says(b"abcd");
    assert!(
        matches!(wants[..], [Want::Close { reset: true }]),
        "{wants:?}"
    );
    assert_eq!(peer.connection.reason(), Reason::Full);
}

#[test]
fn a_failure_is_told_by_what_the_kernel_said() {
    for (errno, reason) in [
        (Errno::ECONNRESET, Reason::Reset),
        (Errno::EPIPE, Reason::Reset),
        (Errno::ETIMEDOUT, Reason::Vanished),
        (Errno::EBADF, Reason::Internal),
    ] {
        let mut peer = Peer::new(limits());
        let wants = peer.step(|connection, _| connection.handle_failed(errno));
        assert!(
            matches!(wants[..], [Want::Close { reset: true }]),
            "{wants:?}"
        );
        assert_eq!(peer.connection.reason(), reason);
        assert!(
            peer.says(b"late").is_empty(),
            "after a close nothing is wanted"
        );
    }
}

#[test]
fn a_stop_resets_at_once() {
    let mut peer = Peer::new(limits());
    let wants = peer.step(|connection, _| connection.handle_stop());
    assert!(
        matches!(wants[..], [Want::Close { reset: true }]),
        "{wants:?}"
    );
    assert_eq!(peer.connection.reason(), Reason::Stop);
}

#[test]
fn a_send_that_comes_home_after_the_close_is_nothing() {
    let mut peer = Peer::new(limits());
    peer.takes = 1;
    peer.says(b"abc");
    peer.step(|connection, _| connection.handle_stop());
    assert!(peer.takes(2).is_empty(), "after a close nothing is wanted");
}

#[test]
fn bytes_that_arrive_before_the_last_send_is_home_count_as_owed() {
    let mut peer = Peer::new(limits());
    peer.is_late = true;
    peer.says(&[1; 600]);
    peer.says(&[2; 300]);
    assert_eq!((peer.connection.owed(), peer.room), (900, 100));
}

#[test]
fn an_answer_on_its_way_leaves_the_deadlines_as_they_are() {
    let second = Duration::from_secs(1);
    let mut peer = Peer::new(Limits {
        idle: Some(second),
        ..limits()
    });
    peer.is_late = true;
    peer.says(b"a");
    assert_eq!(peer.deadline(), Tick(1000), "nobody has told of the answer");
    peer.takes(1);
    assert_eq!((peer.deadline(), peer.connection.owed()), (Tick(1000), 0));
}

#[test]
fn who_is_behind_no_longer_is_known_to_be_even_if_a_reload_made_the_rooms_alike() {
    let mut peer = Peer::new(limits());
    peer.takes = 500;
    peer.says(&[7; 1000]);
    peer.limits.buffer = peer.room;
    peer.limits.idle = Some(Duration::from_secs(1));
    assert_eq!(peer.deadline(), Tick::NEVER, "it is behind");
    peer.takes(500);
    assert_eq!((peer.connection.owed(), peer.deadline()), (0, Tick(1000)));
}
