//! One conversation with a codec, for the targets zstd and gzip.

use echod::compression::{Broken, Codec, INPUT_MAX, Method, Terms};

/// Most plain bytes that are compared; inputs have 4 KiB.
pub const PLAIN_MAX: usize = 1 << 20;

/// What a codec with a window of 2 MiB holds at most: decoder, encoder, what waits, and what was not drained.
const MEMORY_MAX: usize = 4 << 20;

/// Feeds a codec `input` but for its last byte, which chooses cuts and room; `unpack` is another's answer to all of it.
pub fn run(method: Method, input: &[u8], unpack: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    let Some((seed, bytes)) = input.split_last() else {
        return;
    };
    let mut codec = Codec::new(Terms {
        method,
        max_window: 2 << 20,
        max_ratio: 200,
    });
    let mut said = Vec::new();
    let all = converse(&mut codec, bytes, *seed, &mut said);
    // What is larger may have been cut.
    let expected = unpack(bytes).filter(|plain| plain.len() < PLAIN_MAX / 2);
    match all {
        Ok(Some(plain)) => {
            let is_whole = codec.peer_closed();
            assert_eq!(is_whole, codec.failure().is_none());
            codec.flush(true);
            assert!(!codec.is_unflushed());
            said.extend(codec.drain());
            let echoed = match said.is_empty() {
                true => Some(Vec::new()),
                false => unpack(&said),
            };
            assert_eq!(echoed.as_deref(), Some(&plain[..]), "ours is not as it was");
            match expected {
                Some(expected) if is_whole => assert_eq!(plain, expected),
                Some(_) => panic!("another takes it for whole"),
                None => {}
            }
        }
        // More than is compared.
        Ok(None) => {}
        Err(broken) => {
            assert_eq!(codec.failure(), Some(&broken));
            assert!(!broken.to_string().is_empty());
            assert_eq!((codec.waiting(), codec.has_more()), (0, false));
            let refused = codec.expand(bytes, &mut [0; 16]);
            assert_eq!(refused, Err(broken.clone()), "it takes nothing in");
            // In one go zstd takes blocks that are larger than their window allows, in pieces it does not.
            let is_stricter = matches!(broken, Broken::Window { .. } | Broken::Stream(_));
            assert!(
                expected.is_none() || is_stricter || bytes.is_empty(),
                "another takes it: {broken}"
            );
        }
    }
}

/// `None`: it is too much to be compared.
fn converse(
    codec: &mut Codec,
    bytes: &[u8],
    seed: u8,
    said: &mut Vec<u8>,
) -> Result<Option<Vec<u8>>, Broken> {
    let mut plain = vec![0; 1 + usize::from(seed) * 61];
    let (mut all, mut rest, mut cut) = (Vec::new(), bytes, usize::from(seed));
    while !rest.is_empty() {
        cut = (cut * 167 + 13) % 257;
        // Every second seed makes small pieces.
        let most = match seed.is_multiple_of(2) {
            true => cut % 7,
            false => cut * 16,
        };
        let (piece, more) = rest.split_at((most + 1).min(rest.len()));
        rest = more;
        let mut fed = Some(piece);
        while let Some(input) = fed.take().or_else(|| codec.has_more().then_some(&[])) {
            let before = codec.counts();
            let needs = codec.needs(input);
            let written = codec.expand(input, &mut plain)?;
            let after = codec.counts();
            assert!(written <= plain.len());
            assert!(after.taken - before.taken <= INPUT_MAX as u64);
            assert_eq!(after.expanded - before.expanded, written as u64);
            codec.send(&plain[..written]);
            said.extend(codec.drain());
            assert!(codec.memory() <= needs && needs <= MEMORY_MAX, "{codec:?}");
            all.extend_from_slice(&plain[..written]);
            if all.len() >= PLAIN_MAX {
                return Ok(None);
            }
        }
        if cut % 2 == 0 {
            codec.flush(false);
            said.extend(codec.drain());
            assert!(!codec.is_between() || codec.memory() == 0, "{codec:?}");
        }
    }
    Ok(Some(all))
}
