//! Streams of any kind, in any cuts, against what the libraries make of them in one piece.

use std::io::{Read, Write};

use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::*;

const TERMS: Terms = Terms {
    method: Method::Zstd,
    max_window: 8 << 20,
    max_ratio: Some(200),
};

const BOTH: [Method; 2] = [Method::Zstd, Method::Gzip];

fn codec(method: Method) -> Codec {
    Codec::new(Terms { method, ..TERMS })
}

/// A whole frame, made by the libraries without us.
fn frame(method: Method, plain: &[u8]) -> Vec<u8> {
    match method {
        Method::Zstd => {
            let mut packed = Vec::with_capacity(zstd_safe::compress_bound(plain.len()));
            let mut state = zstd_safe::CCtx::create();
            let checksum = zstd_safe::CParameter::ChecksumFlag(true);
            state.set_parameter(checksum).expect("set");
            state.compress2(&mut packed, plain).expect("packed");
            packed
        }
        Method::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(plain).expect("packed");
            encoder.finish().expect("packed")
        }
    }
}

/// What whole frames hold, by the libraries without us.
fn opened(method: Method, packed: &[u8]) -> Vec<u8> {
    match method {
        Method::Zstd => {
            let (mut plain, mut rest) = (Vec::new(), packed);
            while !rest.is_empty() {
                let length = zstd_safe::find_frame_compressed_size(rest).expect("a frame");
                let mut part = Vec::with_capacity(1 << 22);
                zstd_safe::decompress(&mut part, &rest[..length]).expect("a frame");
                plain.extend(part);
                rest = &rest[length..];
            }
            plain
        }
        Method::Gzip => {
            let mut plain = Vec::new();
            MultiGzDecoder::new(packed)
                .read_to_end(&mut plain)
                .expect("members");
            plain
        }
    }
}

/// Feeds pieces, with `room` bytes of memory for what comes of them.
fn expanded(codec: &mut Codec, pieces: &[&[u8]], room: usize) -> Result<Vec<u8>, Broken> {
    let (mut all, mut plain) = (Vec::new(), vec![0; room]);
    for piece in pieces {
        let mut piece = *piece;
        loop {
            let count = codec.expand(piece, &mut plain);
            all.extend_from_slice(&plain[..count]);
            piece = &[];
            if !codec.has_more() {
                break;
            }
        }
    }
    codec.failure().map_or(Ok(all), Err)
}

/// What is found when nothing more comes.
fn at_the_end(codec: &mut Codec) -> Option<Broken> {
    codec.finish();
    codec.failure()
}

fn text(length: usize) -> Vec<u8> {
    let words = [
        "the same ",
        "bytes ",
        "always, ",
        "bounded ",
        "in everything. ",
    ];
    let mut state = 7_u32;
    let mut text = Vec::new();
    while text.len() < length {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text.extend_from_slice(words[(state >> 24) as usize % words.len()].as_bytes());
    }
    text.truncate(length);
    text
}

fn plain() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(Vec::new()),
        prop::collection::vec(any::<u8>(), 0..2000),
        (0_usize..200_000).prop_map(text),
        (0_usize..400_000).prop_map(|length| vec![0; length]),
    ]
}

fn method() -> impl Strategy<Value = Method> {
    prop_oneof![Just(Method::Zstd), Just(Method::Gzip)]
}

fn cut(all: &[u8], cuts: &[prop::sample::Index]) -> Vec<Vec<u8>> {
    let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(all.len() + 1)).collect();
    at.extend([0, all.len()]);
    at.sort_unstable();
    at.windows(2)
        .map(|pair| all[pair[0]..pair[1]].to_vec())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_cut_of_any_frames_comes_back_whole(
        method in method(),
        parts in prop::collection::vec(plain(), 1..4),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        room in prop_oneof![Just(1_usize << 17), 1_usize..5000],
        flushes in any::<u16>(),
    ) {
        let packed: Vec<u8> = parts.iter().flat_map(|part| frame(method, part)).collect();
        let (mut codec, mut back, mut memory) = (codec(method), Vec::new(), vec![0; room]);
        for (number, piece) in cut(&packed, &cuts).iter().enumerate() {
            let mut piece = &piece[..];
            loop {
                let count = codec.expand(piece, &mut memory);
                codec.send(&memory[..count]);
                piece = &[];
                if !codec.has_more() {
                    break;
                }
            }
            if flushes >> (number % 16) & 1 == 1 {
                codec.flush();
                prop_assert!(!codec.wants_flush());
            }
            back.extend(codec.drain());
        }
        prop_assert_eq!(at_the_end(&mut codec), None);
        codec.flush();
        back.extend(codec.drain());
        prop_assert_eq!(opened(method, &back), parts.concat());
        prop_assert_eq!(codec.memory(), 0, "nothing is held between frames");
    }

    #[test]
    fn bytes_that_are_no_stream_break_it_and_nothing_else(
        method in method(),
        part in plain(),
        noise in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut packed = frame(method, &part);
        for (place, byte) in noise {
            let place = place.index(packed.len());
            packed[place] ^= byte;
        }
        let mut codec = codec(method);
        match expanded(&mut codec, &[&packed], 1 << 16) {
            // The header of a member says things that nobody checks, and one of a frame how much is to come.
            Ok(plain) => prop_assert!(plain == part || at_the_end(&mut codec).is_some() || plain.is_empty()),
            Err(broken) => {
                prop_assert_eq!(codec.expand(&packed, &mut [0; 10]), 0);
                prop_assert_eq!(codec.failure(), Some(broken));
                prop_assert!(!codec.has_more());
            }
        }
    }
}

#[test]
fn an_end_in_the_middle_is_told_apart_wherever_it_is() {
    for method in BOTH {
        let packed = frame(method, &text(700));
        for end in 0..=packed.len() {
            let mut codec = codec(method);
            expanded(&mut codec, &[&packed[..end]], 100).expect("well begun");
            let right = match end {
                0 => None,
                end if end == packed.len() => None,
                _ => Some(Broken::Truncated),
            };
            assert_eq!(at_the_end(&mut codec), right, "{method:?} {end}");
        }
    }
}

#[test]
fn a_word_can_be_read_after_each_flush_and_the_frame_goes_on() {
    for method in BOTH {
        let (mut near, mut far) = (codec(method), codec(method));
        let mut asked = Vec::new();
        for number in 0..10 {
            let word = text(100 + number);
            near.send(&word);
            // One that has not begun a frame of its own would end ours; this one has.
            match &mut near.packer {
                Packer::Zstd(packer) => packer.pack(&[], End::Flush, &mut near.packed),
                Packer::Gzip(packer) => packer.pack(&[], End::Flush, &mut near.packed),
            }
            .expect("packed");
            let said = near.drain();
            let heard = expanded(&mut far, &[&said], 1000).expect("well made");
            assert_eq!(heard, word);
            assert!(!far.is_between());
            far.send(&heard);
            let header = far.drain();
            assert!(header.len() <= 10, "a few bytes wait for more");
            asked.extend(header);
            far.flush();
            asked.extend(far.drain());
            assert_eq!((far.unflushed(), far.wants_flush()), (0, false));
        }
        assert_eq!(
            opened_as_far_as_it_goes(method, &asked),
            (0..10).flat_map(|n| text(100 + n)).collect::<Vec<_>>()
        );
    }
}

fn opened_as_far_as_it_goes(method: Method, packed: &[u8]) -> Vec<u8> {
    expanded(&mut codec(method), &[packed], 1 << 16).expect("well made")
}

#[test]
fn an_empty_frame_is_answered_by_one_and_silence_by_none() {
    for method in BOTH {
        let mut codec = codec(method);
        codec.flush();
        assert!(codec.drain().is_empty());
        let empty = frame(method, b"");
        for count in [1, 3] {
            for _ in 0..count {
                assert_eq!(expanded(&mut codec, &[&empty], 10), Ok(Vec::new()));
                codec.send(b"");
            }
            assert!(codec.wants_flush());
            codec.flush();
            let answer = codec.drain();
            assert!(opened(method, &answer).is_empty() && answer.len() < 24);
            codec.flush();
            assert!(codec.drain().is_empty(), "one for all that came together");
        }
    }
}

#[test]
fn frames_in_one_call_are_bounded() {
    for method in BOTH {
        let empty = frame(method, b"");
        let many = empty.repeat(FRAMES_MAX as usize + 1);
        let mut codec = codec(method);
        assert_eq!(codec.expand(&many, &mut [0; 10]), 0);
        assert!(codec.has_more());
        assert_eq!(codec.held.len() - codec.at, empty.len());
        assert_eq!(codec.expand(&[], &mut [0; 10]), 0);
        assert!(!codec.has_more() && codec.is_between());
    }
}

#[test]
fn what_is_to_be_skipped_is_and_zeros_behind_a_member_are_no_harm() {
    let skipped = [
        &[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3],
        &frame(Method::Zstd, b"a")[..],
    ];
    assert_eq!(
        opened_as_far_as_it_goes(Method::Zstd, &skipped.concat()),
        b"a"
    );
    let mut padded = codec(Method::Gzip);
    let member = frame(Method::Gzip, b"a");
    let pieces = [&member[..], &[0; 100], &[0; 3], &member];
    assert_eq!(expanded(&mut padded, &pieces, 10), Ok(b"aa".to_vec()));
    assert_eq!(at_the_end(&mut padded), None);
    assert_eq!(
        expanded(&mut padded, &[b"x"], 10),
        Err(Broken::Other("gzip"))
    );
    assert_eq!(
        expanded(&mut codec(Method::Gzip), &[&[0]], 10),
        Err(Broken::Other("gzip"))
    );
}

#[test]
fn a_wrong_checksum_is_found() {
    let mut zstd = codec(Method::Zstd);
    zstd.send(&text(1000));
    zstd.flush();
    let mut wrong = zstd.drain();
    *wrong.last_mut().expect("bytes") ^= 1;
    let broken = expanded(&mut codec(Method::Zstd), &[&wrong], 2000);
    assert_eq!(
        broken,
        Err(Broken::Damaged("Restored data doesn't match checksum"))
    );
    let mut wrong = frame(Method::Gzip, &text(1000));
    let crc = wrong.len() - 8;
    wrong[crc] ^= 1;
    assert!(matches!(
        expanded(&mut codec(Method::Gzip), &[&wrong], 2000),
        Err(Broken::Damaged(_))
    ));
}

#[test]
fn a_bomb_ends_where_its_ratio_is_judged() {
    for method in BOTH {
        let bomb = frame(method, &vec![0; 24 << 20]);
        let terms = Terms { method, ..TERMS };
        let room = 1 << 16;
        let (mut codec, mut plain, mut made, mut piece) =
            (Codec::new(terms), vec![0; room], 0, &bomb[..]);
        while codec.failure().is_none() {
            made += codec.expand(piece, &mut plain) as u64;
            piece = &[];
        }
        assert_eq!(codec.failure(), Some(Broken::Ratio(200)));
        assert_eq!(made, UNJUDGED + room as u64);
        let free = Terms {
            max_ratio: None,
            ..terms
        };
        let all = expanded(&mut Codec::new(free), &[&bomb], 1 << 20).expect("allowed");
        assert_eq!(all.len(), 24 << 20);
    }
}

#[test]
fn a_window_of_the_bound_is_taken_and_one_past_it_is_not() {
    let header = |descriptor: u8| [&MAGIC_ZSTD[..], &[0, descriptor]].concat();
    const MAGIC_ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    // An exponent of 13 and a mantissa of 0 and 1: 8 MiB, and 9.
    let at = header(13 << 3);
    let mut codec_at = codec(Method::Zstd);
    // The rest of what it takes is for what waits.
    let needs = codec_at.needs(&at);
    let takes = Codec::takes(&TERMS);
    assert!(needs < takes && needs + 2 * INPUT_MAX as usize > takes);
    assert_eq!(expanded(&mut codec_at, &[&at], 10), Ok(Vec::new()));
    let past = header(13 << 3 | 1);
    let window = Broken::Window(9 << 20, 8 << 20);
    assert_eq!(
        expanded(&mut codec(Method::Zstd), &[&past], 10),
        Err(window)
    );
    assert_eq!(
        window.to_string(),
        "a window of 9437184 bytes, and 8388608 are allowed"
    );
    let dictionary = [&MAGIC_ZSTD[..], &[1, 13 << 3, 7]].concat();
    assert_eq!(
        expanded(&mut codec(Method::Zstd), &[&dictionary], 10),
        Err(Broken::Dictionary)
    );
}

#[test]
fn what_is_needed_is_known_before_it_is_taken() {
    for method in BOTH {
        for length in [0, 100, 5000, 3 << 20] {
            let packed = frame(method, &text(length));
            let mut codec = codec(method);
            let needs = codec.needs(&packed);
            let mut plain = vec![0; 1 << 17];
            let mut piece = &packed[..];
            loop {
                let count = codec.expand(piece, &mut plain);
                codec.send(&plain[..count]);
                let packed = codec.drain().len();
                assert!(
                    codec.memory() <= needs,
                    "{} {needs} {packed}",
                    codec.memory()
                );
                piece = &[];
                if !codec.has_more() {
                    break;
                }
            }
        }
    }
}

#[test]
fn a_frame_that_needs_more_than_was_asked_for_waits_for_the_next_call() {
    let small = frame(Method::Zstd, &text(2000));
    // What is written in pieces has the whole window of its level, 2 MiB, in its header.
    let mut large = Vec::with_capacity(1 << 16);
    let mut state = zstd_safe::CCtx::create();
    let mut output = zstd_safe::OutBuffer::around(&mut large);
    let content = text(5000);
    let mut input = zstd_safe::InBuffer::around(&content);
    state
        .compress_stream(&mut output, &mut input)
        .expect("packed");
    assert_eq!(state.end_stream(&mut output), Ok(0));
    let both = [&small[..], &large].concat();
    let (mut codec, mut plain) = (codec(Method::Zstd), vec![0; 1 << 17]);
    let needs = codec.needs(&both);
    assert_eq!(codec.expand(&both, &mut plain), 2000);
    assert!(codec.memory() <= needs && codec.has_more());
    let needs = codec.needs(&[]);
    assert!(needs > 2 << 20);
    assert_eq!(codec.expand(&[], &mut plain), 5000);
    assert!(codec.memory() <= needs && codec.is_between());
}
