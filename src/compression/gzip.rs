//! gzip's members, RFC 1952, by zlib.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::{Broken, End, Step};

/// The window is the largest that there is, 2^15 bytes, as gzip(1) has it.
const WINDOW_BITS: u8 = 15;

/// The most that a state of the library takes, each way.
pub(super) const INFLATE_MEMORY: usize = 64 * 1024;
pub(super) const DEFLATE_MEMORY: usize = 384 * 1024;

/// Room that is made for compressed bytes when there is none.
const ROOM: usize = 16 * 1024;

const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// What expands a peer's members.
#[derive(Debug, Default)]
pub(super) struct Expander {
    state: Option<Decompress>,
    /// A member has begun and not ended.
    is_within: bool,
    /// One has ended: zeros may follow, as they do on a tape.
    may_be_padded: bool,
}

impl Expander {
    /// Goes on with `input`, to the end of a member at most.
    pub(super) fn step(&mut self, input: &[u8], plain: &mut [u8]) -> Result<Step, Broken> {
        if !self.is_within {
            let zeros = match self.may_be_padded {
                true => input.iter().take_while(|byte| **byte == 0).count(),
                false => 0,
            };
            if zeros > 0 || input.is_empty() {
                return Ok(Step {
                    taken: zeros,
                    ..Step::default()
                });
            }
            if !MAGIC.starts_with(&input[..input.len().min(2)]) {
                return Err(Broken::Other("gzip"));
            }
            self.is_within = true;
            match &mut self.state {
                Some(state) => state.reset(true),
                none => *none = Some(Decompress::new_gzip(WINDOW_BITS)),
            }
        }
        let Some(state) = &mut self.state else {
            return Ok(Step::default());
        };
        let (taken, made) = (state.total_in(), state.total_out());
        let status = state
            .decompress(input, plain, FlushDecompress::None)
            .map_err(|_| Broken::Damaged("the library does not say how"))?;
        let is_end = status == Status::StreamEnd;
        self.is_within = !is_end;
        self.may_be_padded |= is_end;
        // No more than the lengths of what they were given.
        let count = |now: u64, before: u64| usize::try_from(now - before).unwrap_or(usize::MAX);
        Ok(Step {
            taken: count(state.total_in(), taken),
            made: count(state.total_out(), made),
            is_end,
            is_short: false,
        })
    }

    pub(super) fn is_between(&self) -> bool {
        !self.is_within
    }

    /// Gives the state back.
    pub(super) fn release(&mut self) {
        self.state = None;
    }

    pub(super) fn memory(&self) -> usize {
        self.state.as_ref().map_or(0, |_| INFLATE_MEMORY)
    }
}

/// What makes our members.
#[derive(Debug, Default)]
pub(super) struct Packer {
    state: Option<Compress>,
}

impl Packer {
    /// Packs `plain`, and puts what comes of it behind `packed`.
    pub(super) fn pack(
        &mut self,
        plain: &[u8],
        end: End,
        packed: &mut Vec<u8>,
    ) -> Result<(), Broken> {
        if plain.is_empty() && end == End::None {
            return Ok(());
        }
        let state = self
            .state
            .get_or_insert_with(|| Compress::new_gzip(Compression::fast(), WINDOW_BITS));
        let flush = match end {
            End::None => FlushCompress::None,
            End::Flush => FlushCompress::Sync,
            End::Frame => FlushCompress::Finish,
        };
        let mut rest = plain;
        loop {
            if packed.capacity() == packed.len() {
                packed.reserve(rest.len().max(ROOM));
            }
            let before = state.total_in();
            let status = state
                .compress_vec(rest, packed, flush)
                .map_err(|_| Broken::Damaged("the library does not say how"))?;
            let taken = usize::try_from(state.total_in() - before).unwrap_or(usize::MAX);
            rest = &rest[taken..];
            // A flush is whole when there is room left behind it.
            let is_done = match end {
                End::None => rest.is_empty(),
                End::Flush => packed.len() < packed.capacity(),
                End::Frame => status == Status::StreamEnd,
            };
            if is_done {
                return Ok(());
            }
        }
    }

    /// Gives the state back.
    pub(super) fn release(&mut self) {
        self.state = None;
    }

    pub(super) fn memory(&self) -> usize {
        self.state.as_ref().map_or(0, |_| DEFLATE_MEMORY)
    }
}
