//! What is wrong with a peer's compressed stream, in words.

/// Why a stream is not expanded any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// It is no stream of this method.
    #[error("not {0}")]
    Other(&'static str),
    /// The library says what is wrong.
    #[error("damaged: {0}")]
    Damaged(&'static str),
    /// A frame with a larger window than a peer may have, both in bytes.
    #[error("a window of {0} bytes, and {1} are allowed")]
    Window(u64, u64),
    /// A frame that somebody without its dictionary cannot read.
    #[error("a dictionary, and there is none")]
    Dictionary,
    /// It expands to more than so many times its length.
    #[error("more than {0} times its length")]
    Ratio(u32),
    /// The peer's end came in the middle of a frame.
    #[error("truncated")]
    Truncated,
}
