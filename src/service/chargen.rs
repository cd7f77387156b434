//! RFC 864: characters without end.
//!
//! The pattern that the RFC suggests: lines of 72 of the 95 printing characters of ASCII, each line beginning
//! one character later. It repeats after 95 lines, so whatever comes next is a range of one block, which
//! a worker makes once and all of its connections share. Where a connection is in it, the number of
//! bytes that it was sent says.

use crate::buffer::Buffer;

/// The characters, from space to tilde.
const CHARACTERS: usize = 95;

/// How many of them a line has.
const WIDTH: usize = 72;

/// Bytes after which the pattern begins again: a line for each character, with its CR and LF.
pub const PERIOD: usize = CHARACTERS * (WIDTH + 2);

/// Most bytes that a peer is owed, and is sent in one turn.
pub const CHUNK: u32 = 64 * 1024;

thread_local! {
    /// A chunk from any place of the pattern on.
    static PATTERN: Buffer = Buffer::constant(pattern().take(PERIOD + CHUNK as usize).collect());
}

/// What comes after the first `sent` bytes: `most` of them, or a chunk if that is less.
pub fn chunk(sent: u64, most: u32) -> Buffer {
    let mut chunk = PATTERN.with(Buffer::clone);
    // Below the period, which is 7030.
    #[allow(clippy::cast_possible_truncation)]
    chunk.advance((sent % PERIOD as u64) as u32);
    chunk.truncate(most.min(CHUNK));
    chunk
}

/// The pattern from its beginning.
fn pattern() -> impl Iterator<Item = u8> {
    let ring = || (b' '..=b'~').cycle();
    (0..CHARACTERS).cycle().flat_map(move |first| {
        let line = ring().skip(first).take(WIDTH);
        line.chain(*b"\r\n")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first lines as RFC 864 prints them, and the one with which it begins again.
    const PRINTED: [&str; 5] = [
        r##" !"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\]^_`abcdefg"##,
        r##"!"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\]^_`abcdefgh"##,
        r##""#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\]^_`abcdefghi"##,
        r##"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\]^_`abcdefghij"##,
        r##"$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\]^_`abcdefghijk"##,
    ];

    fn lines(from: u64, bytes: u32) -> Vec<String> {
        let text = String::from_utf8(chunk(from, bytes).bytes().to_vec()).expect("text");
        text.split_terminator("\r\n").map(str::to_owned).collect()
    }

    #[test]
    fn the_first_lines_are_those_of_the_rfc() {
        assert_eq!(lines(0, 5 * 74), PRINTED);
    }

    #[test]
    fn the_last_character_is_followed_by_the_first() {
        let all = lines(0, 7030);
        assert_eq!(all.len(), 95);
        assert!(all.iter().all(|line| line.len() == 72));
        assert!(all[24].ends_with("|}~ "), "{}", all[24]);
        assert!(all[94].starts_with("~ !\""), "{}", all[94]);
    }

    #[test]
    fn it_begins_again_after_95_lines() {
        let whole = chunk(0, CHUNK);
        let (first, second) = whole.bytes().split_at(PERIOD);
        assert_eq!(first, &second[..PERIOD]);
        assert!((1..95).all(|line| first[line * 74..] != first[..PERIOD - line * 74]));
    }

    #[test]
    fn any_place_is_followed_by_what_belongs_there() {
        let long: Vec<u8> = pattern().take(4 * PERIOD).collect();
        for sent in [0, 1, 73, 74, 7029, 7030, 7031, 20_000] {
            let chunk = chunk(sent, 100);
            let from = usize::try_from(sent).expect("small");
            assert_eq!(chunk.bytes(), &long[from..from + 100]);
        }
        assert_eq!(chunk(u64::MAX, u32::MAX).len(), CHUNK);
    }
}
