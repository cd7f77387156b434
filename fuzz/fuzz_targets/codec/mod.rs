//! One conversation with a codec, for the targets zstd and gzip.

use echod::compression::{Broken, Codec, Method, Terms};

/// Most plain bytes that are compared; inputs have 4 KiB.
pub const PLAIN_MAX: usize = 1 << 20;

/// What a codec with a window of 2 MiB holds at most: decoder, encoder, what waits, and what was not drained.
const MEMORY_MAX: usize = 5 << 20;

/// Feeds a codec `input` but for its last byte, which chooses cuts and room; `unpack` is another's answer to all of it.
pub fn run(method: Method, input: &[u8], unpack: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    let Some((seed, bytes)) = input.split_last() else {
        return;
    };
    let mut codec = Codec::new(Terms {
        method,
        max_window: 2 << 20,
        max_ratio: Some(200),
    });
    let mut said = Vec::new();
    // `None`: it is too much to be compared.
    let Some(plain) = converse(&mut codec, bytes, *seed, &mut said) else {
        return;
    };
    // What is larger may have been cut.
    let expected = unpack(bytes).filter(|plain| plain.len() < PLAIN_MAX / 2);
    if let Some(broken) = codec.failure() {
        codec.close();
        codec.drain();
        assert_eq!(codec.memory(), 0);
        assert!(!broken.to_string().is_empty());
        assert!(!codec.has_more());
        assert_eq!(codec.expand(bytes, &mut [0; 16]), 0, "it takes nothing in");
        // In one go zstd takes blocks that are larger than their window allows, in pieces it does not.
        let is_stricter =
            method == Method::Zstd && matches!(broken, Broken::Window(..) | Broken::Damaged(_));
        assert!(
            expected.is_none() || is_stricter || bytes.is_empty(),
            "another takes it: {broken}"
        );
        return;
    }
    codec.finish();
    let is_whole = codec.failure().is_none();
    codec.flush();
    assert!(!codec.wants_flush());
    if !is_whole {
        assert!(
            expected.is_none() || bytes.is_empty(),
            "another takes it for whole"
        );
        // Ours has no end either, wherever it is.
        codec.end();
    }
    said.extend(codec.drain());
    let echoed = match said.is_empty() {
        true => Some(Vec::new()),
        false => unpack(&said),
    };
    assert_eq!(echoed.as_deref(), Some(&plain[..]), "ours is not as it was");
    if let Some(expected) = expected {
        assert_eq!(plain, expected);
    }
}

fn converse(codec: &mut Codec, bytes: &[u8], seed: u8, said: &mut Vec<u8>) -> Option<Vec<u8>> {
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
            let needs = codec.needs(input);
            let count = codec.expand(input, &mut plain);
            assert!(count <= plain.len());
            codec.send(&plain[..count]);
            said.extend(codec.drain());
            assert!(codec.memory() <= needs && needs <= MEMORY_MAX, "{codec:?}");
            all.extend_from_slice(&plain[..count]);
            if all.len() >= PLAIN_MAX {
                return None;
            }
        }
        if cut % 2 == 0 {
            codec.flush();
            said.extend(codec.drain());
            let is_idle = codec.is_between() && codec.failure().is_none();
            assert!(!is_idle || codec.memory() == 0, "{codec:?}");
        }
    }
    Some(all)
}
