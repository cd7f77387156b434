//! The memory of frames: who waits for it, who makes room, and what does not count.

use super::*;

#[test]
fn who_finds_no_memory_waits_for_it_and_not_for_ever() {
    let frame = packed(b"hello");
    let mut peer = peer(|_| {});
    let half = 32 << 20;
    let other = peer.memory.charge(half - 1).expect("it is there");
    assert!(!is_again(&peer.says(&frame)));
    assert_eq!((peer.room, peer.took.len()), (0, 0));
    let wants = peer.wait(100);
    turns(&mut peer, wants);
    assert!(peer.took.is_empty());
    drop(other);
    let wants = peer.wait(100);
    turns(&mut peer, wants);
    assert_eq!(peer.took, frame);
    let _other = peer.memory.charge(half).expect("it is there");
    peer.says(&frame);
    let mut looks = 0;
    while peer.connection.reason() == Reason::Done {
        let (now, due) = (peer.now, peer.deadline());
        let before = Tick(due.0 - 1);
        assert!(peer.memory.is_missed(before), "others know that it waits");
        let wants = peer.wait(due.0 - now.0);
        turns(&mut peer, wants);
        looks += 1;
    }
    assert_eq!(peer.connection.reason(), Reason::Full);
    assert!((700..1000).contains(&looks), "{looks}");
}

/// A peer that says something, and then more in each ten seconds, while others wait for memory.
fn waited_for(said: &[u8], more: &[&[u8]]) -> Reason {
    let mut peer = peer(|_| {});
    let wants = peer.says(said);
    turns(&mut peer, wants);
    for more in more {
        peer.wait(9000);
        if !more.is_empty() {
            let wants = peer.says(more);
            turns(&mut peer, wants);
        }
        assert_eq!(peer.connection.reason(), Reason::Done);
        peer.memory.miss(peer.now);
        peer.wait(1000);
    }
    peer.connection.reason()
}

#[test]
fn who_is_silent_or_slow_in_the_middle_of_a_frame_makes_room_when_others_wait_for_it() {
    let frame = packed(&noise(200_000));
    let (begun, rest) = frame.split_at(1000);
    assert_eq!(waited_for(begun, &[b""]), Reason::Idle);
    let byte = &rest[..1];
    assert_eq!(waited_for(begun, &[byte]), Reason::Slow);
    let pieces: Vec<_> = rest[..100_000].chunks(17_000).collect();
    assert_eq!(waited_for(begun, &pieces), Reason::Done);
    // Between two frames it holds nothing.
    assert_eq!(waited_for(&frame, &[b""]), Reason::Done);
}

#[test]
fn who_is_silent_in_the_middle_of_a_frame_may_be_while_nobody_waits() {
    let mut peer = peer(|_| {});
    let frame = packed(&noise(40_000));
    let wants = peer.says(&frame[..1000]);
    turns(&mut peer, wants);
    for _ in 0..6 {
        assert!(peer.deadline() <= peer.now + PROGRESS.1);
        peer.wait(10_000);
    }
    let wants = peer.says(&frame[1000..]);
    turns(&mut peer, wants);
    assert_eq!(read(&mut peer).len(), 40_000);
    assert_eq!(peer.deadline(), Tick::NEVER);
}

#[test]
fn a_frame_that_has_begun_goes_on_though_others_have_half_of_the_memory() {
    let mut peer = peer(|_| {});
    let plain = noise(40_000);
    let frame = packed(&plain);
    let wants = peer.says(&frame[..100]);
    turns(&mut peer, wants);
    let _others = peer.memory.charge(32 << 20).expect("it is there");
    let wants = peer.says(&frame[100..]);
    turns(&mut peer, wants);
    assert!(read(&mut peer) == plain);
}

#[test]
fn more_is_received_within_a_frame_than_before_one() {
    let mut peer = peer(|_| {});
    assert_eq!(peer.room, BEGINNING_MAX);
    let frame = packed(&noise(10_000));
    let wants = peer.says(&frame[..BEGINNING_MAX as usize]);
    assert_eq!(peer.room, INPUT_MAX);
    peer.says(&frame[BEGINNING_MAX as usize..]);
    turns(&mut peer, wants);
    assert_eq!(peer.room, BEGINNING_MAX);
}

#[test]
fn who_waits_for_a_larger_frame_has_the_answer_to_the_one_before_and_not_its_memory() {
    let mut peer = peer(|_| {});
    let small = packed(b"hello");
    // All of its memory but what the first takes, which is less than a window of 8 MiB.
    let _others = peer.memory.charge(28 << 20).expect("it is there");
    let large = [&[0x28, 0xb5, 0x2f, 0xfd, 0, (23 - 10) << 3][..], &[0; 100]].concat();
    let wants = peer.says(&[&small[..], &large].concat());
    turns(&mut peer, wants);
    assert_eq!(peer.took, small);
    assert!(peer.memory.used() < (28 << 20) + (1 << 10), "what waits");
    assert_eq!(peer.connection.reason(), Reason::Done);
}

#[test]
fn what_we_say_by_ourselves_takes_no_memory_that_is_not_counted() {
    for takes in [usize::MAX, 0] {
        let mut peer = reader();
        // The beginning of a header, which is no frame yet.
        peer.says(&[0x28]);
        peer.takes = takes;
        for _ in 0..3 {
            peer.again();
        }
        let codec = &peer.connection.packing().expect("compressed").codec;
        assert!(!codec.has_states());
        let waits = u64::from(peer.connection.owed());
        assert!(peer.memory.used() <= waits * 2 + 1024, "{takes}");
    }
}

#[test]
fn a_rate_is_not_a_want_of_memory() {
    let mut paced = peer(rated(1000));
    let frame = packed(&[7; 2000]);
    let half = 32 << 20;
    let other = paced.memory.charge(half).expect("it is there");
    paced.says(&frame);
    // Others of the listener use up what there is.
    let (rate, bucket) = paced.limits.rates.total.clone().expect("rated");
    bucket.charge(rate, 40_000, paced.now);
    let due = paced.deadline().since(paced.now);
    paced.wait(u64::try_from(due.as_millis()).expect("short"));
    let due = paced.deadline().since(paced.now);
    assert!(due > WAITING, "it waits for the rate");
    let wants = paced.wait(u64::try_from(due.as_millis()).expect("short"));
    turns(&mut paced, wants);
    assert_eq!(paced.connection.reason(), Reason::Done);
    drop(other);
}

#[test]
fn a_pause_within_a_frame_is_not_held_against_it() {
    let mut paced = peer(rated(1000));
    let frame = packed(&noise(4000));
    let wants = paced.says(&frame[..1000]);
    turns(&mut paced, wants);
    let (rate, bucket) = paced.limits.rates.total.clone().expect("rated");
    bucket.charge(rate, 40_000, paced.now);
    for _ in 0..2 {
        let due = paced.deadline().since(paced.now);
        paced.memory.miss(paced.now + due);
        paced.wait(u64::try_from(due.as_millis()).expect("short"));
    }
    assert!(paced.now > Tick(30_000), "it was paused for that long");
    assert_eq!(paced.connection.reason(), Reason::Done);
}

#[test]
fn who_has_waited_long_is_served_before_those_who_ask_later_for_less() {
    let mut large = peer(|_| {});
    let memory = Arc::clone(&large.memory);
    // A small frame fits beside it, a window of 8 MiB does not.
    let others = memory.charge(26 << 20).expect("it is there");
    large.says(&[0x28, 0xb5, 0x2f, 0xfd, 0, (23 - 10) << 3]);
    let small = packed(b"hello");
    let asks = |now: Tick| {
        let mut peer = peer(|_| {});
        (peer.memory, peer.now) = (Arc::clone(&memory), now);
        let wants = peer.says(&small);
        turns(&mut peer, wants);
        peer.took == small
    };
    while large.now < Tick(0) + LONG {
        assert!(asks(large.now));
        large.wait(50);
        large.again();
    }
    large.wait(500);
    large.again();
    assert!(!asks(large.now), "that would be for ever");
    drop(others);
    large.wait(100);
    large.again();
    assert!(
        large
            .connection
            .packing()
            .expect("compressed")
            .codec
            .has_states()
    );
    assert!(asks(large.now), "and so is who comes after it");
}
