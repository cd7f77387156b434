//! RFC 863: "throws away any data it receives".
//!
//! There is no answer, so a peer is never owed anything, never paused and never stalled. Whatever another service
//! has no use for goes the same way.

/// The longest input that is at most `bytes`: nothing is sent for it.
pub fn input_within(bytes: u64) -> u64 {
    bytes
}
