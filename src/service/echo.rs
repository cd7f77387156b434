//! RFC 862: "any data received is sent back".

use crate::buffer::Buffer;

/// The same bytes: the peer's own buffer goes back, nothing is copied.
#[inline(always)]
pub fn answer(input: Buffer) -> Buffer {
    input
}

/// The longest input that, together with the answer to it, is at most `bytes`.
pub fn input_within(bytes: u64) -> u64 {
    bytes / 2
}
