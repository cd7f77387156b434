//! A peer that compresses, turn by turn.

mod memory;
mod sealed;
mod storm;

use super::*;
use crate::bucket::Rate;
use crate::compression::{BEGINNING_MAX, Broken, INPUT_MAX};
use crate::config::ByteRate;
use crate::connection::tests::{Peer, limits};
use crate::connection::{Drain, Limits, PARTING, Want};
use crate::service::Service;

const TERMS: Terms = Terms {
    method: Method::Zstd,
    max_window: 8 << 20,
    max_ratio: Some(200),
};

fn peer(change: impl FnOnce(&mut Limits)) -> Peer {
    let mut limits = Limits {
        compression: Some(TERMS),
        buffer: 512 << 10,
        ..limits()
    };
    change(&mut limits);
    let mut peer = Peer::new(limits);
    peer.memory = Memory::new(64 << 20);
    peer
}

fn packed(plain: &[u8]) -> Vec<u8> {
    let mut codec = Codec::new(TERMS);
    codec.send(plain);
    codec.flush();
    codec.drain()
}

/// What does not get smaller.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn rated(bytes: u64) -> impl FnOnce(&mut Limits) {
    let per = Duration::from_secs(1);
    let rate = Rate::from(ByteRate { bytes, per });
    move |limits| {
        *limits = limits
            .clone()
            .with_rates(None, Some((rate, Arc::default())))
    }
}

/// What the peer took, expanded.
fn read(peer: &mut Peer) -> Vec<u8> {
    expanded(&peer.took, TERMS)
}

fn expanded(mut said: &[u8], terms: Terms) -> Vec<u8> {
    let mut codec = Codec::new(terms);
    let (mut all, mut plain) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        let count = codec.expand(said, &mut plain);
        all.extend_from_slice(&plain[..count]);
        said = &[];
        if !codec.has_more() {
            assert_eq!(codec.failure(), None);
            return all;
        }
    }
}

fn is_again(wants: &[Want]) -> bool {
    wants.iter().any(|want| matches!(want, Want::Again))
}

/// Turns until it wants no more of them; how many.
fn turns(peer: &mut Peer, mut wants: Vec<Want>) -> usize {
    let mut turns = 0;
    while is_again(&wants) {
        wants = peer.again();
        turns += 1;
        assert!(turns < 10_000, "for ever");
    }
    turns
}

#[test]
fn a_frame_is_answered_by_a_frame_when_a_turn_has_brought_no_more() {
    let mut peer = peer(|_| {});
    let frame = packed(b"hello");
    let wants = peer.says(&frame);
    assert!(is_again(&wants) && peer.took.is_empty());
    assert_eq!(
        turns(&mut peer, wants),
        2,
        "one that still may have brought more"
    );
    assert_eq!(peer.took, frame);
    assert_eq!((peer.connection.received(), peer.connection.sent()), (5, 5));
    assert_eq!(peer.memory.used(), 0, "between frames nothing is held");
    let wants = peer.closes();
    assert!(
        matches!(wants[..], [Want::Close { reset: false }]),
        "{wants:?}"
    );
    assert_eq!(peer.connection.reason(), Reason::Done);
    let wire = frame.len() as u64;
    let told = peer.connection.packed().expect("compressed");
    assert_eq!((told.wire.received, told.wire.sent), (wire, wire));
}

#[test]
fn small_pieces_one_after_another_share_a_flush_and_do_not_wait_for_ever() {
    let mut peer = peer(|_| {});
    let frames: Vec<_> = (0..TURNS).map(|number| packed(&[number; 10])).collect();
    for frame in &frames {
        assert!(peer.took.is_empty());
        peer.says(frame);
        peer.again();
    }
    assert!(!peer.took.is_empty());
    assert_eq!(read(&mut peer).len(), 10 * usize::from(TURNS));
}

#[test]
fn no_more_is_expanded_in_a_turn_than_that_and_nothing_is_received_meanwhile() {
    let mut peer = peer(|_| {});
    let whole = EXPANDED as usize * 5;
    let mut wants = peer.says(&packed(&vec![7; whole]));
    for turn in 1..5 {
        assert_eq!(peer.connection.received(), u64::from(EXPANDED) * turn);
        assert!(is_again(&wants));
        assert_eq!(peer.room, 0);
        wants = peer.again();
    }
    turns(&mut peer, wants);
    assert_eq!((peer.room, read(&mut peer).len()), (BEGINNING_MAX, whole));
}

#[test]
fn a_peer_that_does_not_read_is_owed_no_more_than_the_buffer() {
    let mut peer = peer(|limits| limits.buffer = 64 << 10);
    let noise = noise(1 << 20);
    let all = packed(&noise);
    peer.takes = 0;
    let mut rest = &all[..];
    while !rest.is_empty() && peer.room > 0 {
        let piece = rest.len().min(peer.room as usize);
        let wants = peer.says(&rest[..piece]);
        turns(&mut peer, wants);
        rest = &rest[piece..];
        assert!(
            peer.connection.owed() <= 65 << 10,
            "{}",
            peer.connection.owed()
        );
    }
    assert_eq!(peer.room, 0);
    while !rest.is_empty() || peer.waiting.is_some() {
        let wants = peer.takes(1 << 20);
        turns(&mut peer, wants);
        let piece = rest.len().min(peer.room as usize);
        let wants = peer.says(&rest[..piece]);
        turns(&mut peer, wants);
        rest = &rest[piece..];
    }
    assert!(read(&mut peer) == noise);
}

#[test]
fn an_end_in_the_middle_of_a_frame_is_no_clean_one() {
    let mut peer = peer(|_| {});
    let frame = packed(b"hello");
    let wants = peer.says(&frame[..frame.len() - 1]);
    turns(&mut peer, wants);
    peer.closes();
    assert_eq!(peer.connection.reason(), Reason::Compression);
    let told = peer.connection.packed().expect("compressed");
    assert_eq!(told.cause, Some(Broken::Truncated));
    assert_eq!(
        (read(&mut peer), peer.connection.sent()),
        (b"hello".to_vec(), 5)
    );
    assert!(
        !peer.took.ends_with(&frame[frame.len() - 4..]),
        "nor is ours"
    );
}

#[test]
fn the_peers_end_waits_for_what_is_still_to_be_expanded() {
    let mut peer = peer(|_| {});
    let whole = EXPANDED as usize * 3 + 1;
    let wants = peer.says(&packed(&vec![7; whole]));
    assert!(peer.closes().is_empty());
    turns(&mut peer, wants);
    assert_eq!(read(&mut peer).len(), whole);
    assert_eq!(peer.connection.reason(), Reason::Done);
    assert_eq!(peer.connection.sent(), whole as u64);
}

#[test]
fn what_is_no_stream_ends_it() {
    let mut peer = peer(|_| {});
    let wants = peer.says(b"GET / HTTP/1.1\r\n");
    assert!(
        matches!(wants[..], [Want::Shutdown, Want::Deadline]),
        "{wants:?}"
    );
    peer.wait(u64::try_from(PARTING.as_millis()).expect("short"));
    assert_eq!(peer.connection.reason(), Reason::Compression);
    assert!(peer.took.is_empty() && peer.memory.used() == 0);
}

#[test]
fn quotas_and_rates_are_of_plain_bytes() {
    let mut counted = peer(|limits| limits.max_bytes = 20_000);
    let wants = counted.says(&packed(&[1; 10_001]));
    turns(&mut counted, wants);
    assert_eq!(counted.connection.reason(), Reason::Quota);
    assert_eq!(read(&mut counted).len(), 10_000);
    let mut paced = peer(rated(10_000));
    let wants = paced.says(&packed(&[1; 10_000]));
    turns(&mut paced, wants);
    assert!(
        paced.connection.received() <= 2000,
        "{}",
        paced.connection.received()
    );
    for _ in 0..12 {
        let wants = paced.wait(100);
        turns(&mut paced, wants);
    }
    assert_eq!(read(&mut paced).len(), 10_000);
}

#[test]
fn words_of_ours_are_a_frame_of_their_own() {
    let mut peer = peer(|limits| limits.service = Service::Whoami);
    peer.opens(b"you are");
    assert_eq!(peer.took, packed(b"you are"));
    let wants = peer.says(&packed(b" here"));
    turns(&mut peer, wants);
    assert_eq!(read(&mut peer), b"you are here");
}

#[test]
fn a_slow_rate_and_a_slow_peer_together_do_not_make_it_spin() {
    for method in [Method::Zstd, Method::Gzip] {
        let terms = Terms { method, ..TERMS };
        let mut slow = peer(|limits| {
            rated(10_000)(limits);
            limits.compression = Some(terms);
        });
        slow.takes = 0;
        // A piece has 1000 bytes, and a quarter of the buffer many more.
        for messages in 1..=6 {
            let mut codec = Codec::new(terms);
            codec.send(&noise(600));
            codec.flush();
            let mut wants = slow.says(&codec.drain());
            for _ in 0..4 {
                assert!(turns(&mut slow, wants) < 5, "{method:?}");
                wants = slow.wait(100);
            }
            assert_eq!(slow.connection.received(), messages * 600, "{method:?}");
        }
    }
}

#[test]
fn what_a_rate_lets_through_is_readable_before_the_rest() {
    let mut paced = peer(rated(10_000));
    let wants = paced.says(&packed(&[7; 100_000]));
    turns(&mut paced, wants);
    for _ in 0..10 {
        let expanded = paced.connection.received();
        assert_eq!(read(&mut paced).len() as u64, expanded);
        let wants = paced.wait(100);
        turns(&mut paced, wants);
    }
}

/// One who reads characters, and ends a frame as often as it can.
fn reader() -> Peer {
    let mut peer = peer(|limits| limits.service = Service::Chargen);
    peer.opens(b"");
    peer
}

#[test]
fn however_many_frames_come_between_two_turns_one_more_is_wanted() {
    let mut peer = reader();
    let frame = packed(b"x");
    let wants: Vec<_> = (0..200).flat_map(|_| peer.says(&frame)).collect();
    assert!(!is_again(&wants), "it has been asked for since the opening");
    for _ in 0..10 {
        let wants = peer.again();
        let agains = wants.iter().filter(|want| matches!(want, Want::Again));
        assert_eq!(agains.count(), 1);
    }
}

#[test]
fn what_comes_after_our_own_end_went_over_the_wire_all_the_same() {
    let mut peer = peer(|_| {});
    peer.says(b"no frame");
    peer.says(b"and more");
    let told = peer.connection.packed().expect("compressed");
    assert_eq!(told.wire.received, 16);
}

#[test]
fn what_waits_for_a_flush_counts_for_the_buffer() {
    let mut peer = peer(|limits| limits.buffer = 16 << 10);
    let all = packed(&noise(1 << 20));
    peer.takes = 0;
    let (mut rest, mut most) = (&all[..], 0);
    for _ in 0..1000 {
        // No turn is quiet, so that nothing is flushed for that.
        let piece = rest.len().min(peer.room as usize).min(8 << 10);
        if piece > 0 {
            peer.says(&rest[..piece]);
            rest = &rest[piece..];
        }
        peer.again();
        most = most.max(peer.connection.owed());
    }
    assert!((12 << 10..=17 << 10).contains(&most), "{most}");
}

#[test]
fn a_reload_does_not_change_how_much_is_received_of_those_who_are_there() {
    let mut plain = Peer::new(limits());
    let room = plain.room;
    plain.limits.compression = Some(TERMS);
    plain.takes = 1;
    plain.says(&[7; 10]);
    plain.takes(usize::MAX);
    assert_eq!((plain.connection.owed(), plain.room), (0, room));
    let mut packing = peer(|_| {});
    packing.limits.compression = None;
    let wants = packing.says(&packed(b"hello"));
    turns(&mut packing, wants);
    assert_eq!(packing.room, BEGINNING_MAX);
}

#[test]
fn a_closed_connection_holds_nothing() {
    let mut peer = peer(|_| {});
    peer.says(&packed(&noise(200_000))[..4000]);
    assert!(peer.memory.used() > 1 << 20);
    peer.tells(|connection, _| connection.handle_stop());
    assert_eq!(peer.memory.used(), 0);
}

#[test]
fn who_is_silent_while_we_are_busy_with_what_it_said_is_not_idle() {
    let second = Duration::from_secs(1);
    let mut peer = peer(|limits| limits.idle = Some(second));
    let whole = EXPANDED as usize * 4;
    let mut wants = peer.says(&packed(&vec![7; whole]));
    peer.limits.drain = Some(Drain {
        idle: second,
        parting: PARTING,
        until: Tick(60_000),
    });
    while is_again(&wants) && peer.connection.is_expanding() {
        peer.memory.miss(peer.now + second * 5);
        peer.wait(5000);
        assert_eq!(peer.connection.reason(), Reason::Done);
        wants = peer.again();
    }
    assert!(wants.iter().any(|want| matches!(want, Want::Deadline)));
    assert_eq!(peer.deadline(), peer.now + second, "from now on it is");
    turns(&mut peer, wants);
    assert_eq!(read(&mut peer).len(), whole);
}
