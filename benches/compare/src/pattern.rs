//! What every connection sends, and therefore what it must receive. Pure.
//!
//! The bytes are a table of noise that each connection reads from a place of its own on, round and
//! round. So a byte that is lost, doubled, moved or another connection's does not match what
//! stands in the table there. The table continues for a window behind its period: any piece of
//! a stream up to that long lies in it as one slice, to be sent and compared without a copy.

/// How soon a stream repeats: a prime, so that neither messages nor buffers fall into step with it.
const PERIOD: usize = 32_749;

/// The longest piece that is one slice.
pub const WINDOW: usize = 256 * 1024;

/// Places where neighbouring connections begin are so far apart.
const STRIDE: usize = 7_919;

/// The table.
#[derive(Debug)]
pub struct Pattern(Vec<u8>);

impl Pattern {
    /// Always the same noise.
    pub fn new() -> Pattern {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let period: Vec<u8> = (0..PERIOD)
            .map(|_| {
                // Marsaglia's xorshift; the middle bits are the best mixed.
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()[4]
            })
            .collect();
        Pattern(period.into_iter().cycle().take(PERIOD + WINDOW).collect())
    }

    /// The bytes of a connection's stream from a position on: `length` of them, at most [`WINDOW`].
    pub fn at(&self, connection: usize, position: u64, length: usize) -> &[u8] {
        // Less than the period, which is a usize.
        let position = (position % PERIOD as u64) as usize;
        let start = (connection * STRIDE + position) % PERIOD;
        &self.0[start..][..length.min(WINDOW)]
    }
}

impl Default for Pattern {
    fn default() -> Pattern {
        Pattern::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_a_stream_join_whatever_their_length() {
        let pattern = Pattern::new();
        let whole = pattern.at(3, 0, 100_000);
        for at in [1, 63, PERIOD - 1, PERIOD, PERIOD + 1] {
            assert_eq!(&whole[at..at + 64], pattern.at(3, at as u64, 64), "{at}");
        }
    }

    #[test]
    fn a_byte_lost_doubled_or_of_another_connection_shows() {
        let pattern = Pattern::new();
        let right = pattern.at(7, 1000, 64);
        for wrong in [
            pattern.at(7, 1001, 64),
            pattern.at(7, 999, 64),
            pattern.at(7, 1064, 64),
            pattern.at(8, 1000, 64),
        ] {
            assert_ne!(right, wrong);
        }
    }
}
