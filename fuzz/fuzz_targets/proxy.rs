//! Bytes in front of a connection that begins with a PROXY header.
//!
//! The reader is asked about every beginning of them: it must come to one answer and stay with it. Then a connection is given them, in pieces
//! that the last byte chooses, and must come to the same: what stands behind a right header is echoed, and of everything else
//! nothing is; memory is held for a part of a header alone.

#![no_main]

use std::sync::Arc;

use echod::buffer::{Memory, TurnMemory};
use echod::connection::{Connection, Limits, Reason, Turn, Want};
use echod::driver::Sent;
use echod::proxy::{HEADER_MAX, Parsed, parse};
use echod::service::Service;
use echod::tick::Tick;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((seed, bytes)) = input.split_last() else {
        return;
    };
    let parsed = parse(bytes);
    read_every_beginning(bytes, parsed);
    let memory = Memory::new(1 << 20);
    converse(bytes, *seed, parsed, &memory);
    assert_eq!(memory.used(), 0, "all of it is given back");
});

fn read_every_beginning(bytes: &[u8], all: Parsed) {
    let mut was_wrong = false;
    for end in 0..=bytes.len() {
        let parsed = parse(&bytes[..end]);
        match parsed {
            Parsed::More => assert!(end < HEADER_MAX && !was_wrong),
            Parsed::Done { length, .. } => {
                assert!(length <= end && length <= HEADER_MAX && !was_wrong);
                assert_eq!(parsed, all, "what follows does not matter");
            }
            Parsed::Wrong(why) => {
                assert!(!why.is_empty() && matches!(all, Parsed::Wrong(_)));
                was_wrong = true;
            }
        }
    }
}

fn converse(bytes: &[u8], seed: u8, all: Parsed, memory: &Arc<Memory>) {
    let limits = Limits::unbounded(Service::Echo, 1 << 20);
    let turn = Turn {
        now: Tick(0),
        limits: &limits,
        memory,
        source: None,
    };
    let mut connection = Connection::new(&turn);
    connection.expect_header(&turn);
    let (mut took, mut rest, mut cut) = (Vec::new(), bytes, usize::from(seed));
    while !rest.is_empty() {
        cut = (cut * 167 + 13) % 257;
        // Every second seed makes small pieces.
        let most = if seed.is_multiple_of(2) {
            cut % 7
        } else {
            cut * 16
        } + 1;
        let (piece, more) = rest.split_at(most.min(rest.len()));
        rest = more;
        let input = TurnMemory::of(piece.len()).fill::<()>(u32::MAX, |to| {
            to[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        });
        connection.handle_received(input.expect("filled"), &turn);
        while let Some(want) = connection.poll_want() {
            match want {
                Want::Send(buffer) => {
                    took.extend_from_slice(buffer.bytes());
                    connection.handle_sent(Sent::All(buffer.len()), &turn);
                }
                Want::Identify => {
                    connection.handle_identified(&turn);
                    connection.handle_rest(&turn);
                }
                _ => {}
            }
        }
    }
    match all {
        Parsed::More => {
            assert!(took.is_empty() && connection.received() == 0);
            assert!(memory.used() <= HEADER_MAX as u64);
        }
        Parsed::Done { source, length } => {
            assert_eq!(took, bytes[length..]);
            assert_eq!(connection.received(), took.len() as u64);
            assert_eq!(connection.brought(), source);
        }
        Parsed::Wrong(_) => {
            assert!(took.is_empty() && connection.received() == 0);
            assert_eq!(connection.reason(), Reason::Proxy);
            assert!(connection.detail().is_some());
        }
    }
}
