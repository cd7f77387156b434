//! zstd's frames, RFC 8878, by the library's streaming interface.
//!
//! The header of a peer's frame is looked at before the library sees it: what it asks for, a window or a dictionary,
//! is refused in words, and is known before memory is taken.

use zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd_safe::{CCtx, CParameter, DCtx, DParameter, InBuffer, OutBuffer, get_error_name};

use super::{Broken, End, Step};

/// The level that is fast: an answer should not take longer than its question.
const LEVEL: i32 = 1;

/// Our own window, 2^18 bytes: half of what the level would take, for a twentieth more bytes.
const WINDOW_LOG: u32 = 18;

/// The most that the states take, besides a peer's window.
pub(super) const STATES_MEMORY: usize = 1600 * 1024;

/// Room that is made for compressed bytes when there is none.
const ROOM: usize = 16 * 1024;

/// From so many plain bytes on, room is made before it is asked for.
const MANY: usize = 32 * 1024;

/// The longest header of a frame, RFC 8878 3.1.1.1.
pub(super) const HEADER_MAX: usize = 18;

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The last three bytes of a frame that is to be skipped, RFC 8878 3.1.2; the first is 0x50 to 0x5f.
const SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];

/// What expands a peer's frames.
#[derive(Default)]
pub(super) struct Expander {
    state: Option<DCtx<'static>>,
    /// A frame has begun and not ended.
    is_within: bool,
}

impl Expander {
    /// Goes on with `input`, to the end of a frame at most.
    pub(super) fn step(
        &mut self,
        input: &[u8],
        plain: &mut [u8],
        max_window: u64,
    ) -> Result<Step, Broken> {
        if !self.is_within {
            if input.is_empty() {
                return Ok(Step::default());
            }
            match Header::read(input)? {
                None => {
                    let is_short = true;
                    return Ok(Step {
                        is_short,
                        ..Step::default()
                    });
                }
                Some(Header { window }) if window > max_window => {
                    return Err(Broken::Window(window, max_window));
                }
                Some(_) => self.is_within = true,
            }
        }
        if self.state.is_none() {
            let mut state = DCtx::try_create().ok_or(Broken::Damaged("no memory"))?;
            let most = u64::BITS - max_window.saturating_sub(1).leading_zeros();
            state
                .set_parameter(DParameter::WindowLogMax(most))
                .map_err(damaged)?;
            self.state = Some(state);
        }
        let Some(state) = &mut self.state else {
            return Ok(Step::default());
        };
        let mut input = InBuffer::around(input);
        let mut output = OutBuffer::around(plain);
        let left = state
            .decompress_stream(&mut output, &mut input)
            .map_err(damaged)?;
        self.is_within = left > 0;
        Ok(Step {
            taken: input.pos(),
            made: output.pos(),
            is_end: left == 0,
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
        self.state.as_ref().map_or(0, DCtx::sizeof)
    }

    /// The window of the frame that begins with these bytes, and what else its size decides.
    pub(super) fn window(&self, input: &[u8]) -> u64 {
        match Header::read(input) {
            Ok(Some(header)) if !self.is_within => header.window,
            _ => 0,
        }
    }
}

fn damaged(code: usize) -> Broken {
    Broken::Damaged(get_error_name(code))
}

/// What a frame asks for, RFC 8878 3.1.1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    window: u64,
}

impl Header {
    /// `None`: it is not all there.
    fn read(input: &[u8]) -> Result<Option<Header>, Broken> {
        let magic = &input[..input.len().min(4)];
        let is_skippable = match magic {
            [first, others @ ..] => first & 0xf0 == 0x50 && SKIPPABLE.starts_with(others),
            [] => false,
        };
        if !MAGIC.starts_with(magic) && !is_skippable {
            return Err(Broken::Other("zstd"));
        }
        let Some(&descriptor) = input.get(4) else {
            return Ok(None);
        };
        if is_skippable {
            return Ok(Some(Header { window: 0 }));
        }
        let is_single = descriptor & 0x20 != 0;
        let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
        let content = match descriptor >> 6 {
            0 => usize::from(is_single),
            flag => 1 << flag,
        };
        let rest = &input[5..];
        let from = usize::from(!is_single);
        if rest.len() < from + dictionary + content {
            return Ok(None);
        }
        let (dictionary, content) = rest[from..from + dictionary + content].split_at(dictionary);
        if dictionary.iter().any(|byte| *byte != 0) {
            return Err(Broken::Dictionary);
        }
        let number = |bytes: &[u8]| {
            bytes
                .iter()
                .rev()
                .fold(0, |all, byte| all << 8 | u64::from(*byte))
        };
        let window = match (is_single, content.len()) {
            // 256 less is written in two bytes.
            (true, 2) => number(content) + 256,
            (true, _) => number(content),
            (false, _) => {
                let base = 1 << (10 + (rest[0] >> 3));
                base + base / 8 * u64::from(rest[0] & 7)
            }
        };
        Ok(Some(Header { window }))
    }
}

/// What makes our frames.
#[derive(Default)]
pub(super) struct Packer {
    state: Option<CCtx<'static>>,
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
        let state = match &mut self.state {
            Some(state) => state,
            none => none.insert(Packer::begin()?),
        };
        if plain.len() >= MANY {
            packed.reserve(plain.len());
        }
        let directive = match end {
            End::None => ZSTD_EndDirective::ZSTD_e_continue,
            End::Flush => ZSTD_EndDirective::ZSTD_e_flush,
            End::Frame => ZSTD_EndDirective::ZSTD_e_end,
        };
        let mut input = InBuffer::around(plain);
        loop {
            let at = packed.len();
            let mut output = OutBuffer::around_pos(packed, at);
            let left = state
                .compress_stream2(&mut output, &mut input, directive)
                .map_err(damaged)?;
            let is_done = match end {
                End::None => input.pos() == plain.len(),
                End::Flush | End::Frame => left == 0,
            };
            if is_done {
                return Ok(());
            }
            packed.reserve(ROOM);
        }
    }

    fn begin() -> Result<CCtx<'static>, Broken> {
        let mut state = CCtx::try_create().ok_or(Broken::Damaged("no memory"))?;
        for parameter in [
            CParameter::CompressionLevel(LEVEL),
            CParameter::WindowLog(WINDOW_LOG),
            CParameter::ChecksumFlag(true),
        ] {
            state.set_parameter(parameter).map_err(damaged)?;
        }
        Ok(state)
    }

    /// Gives the state back.
    pub(super) fn release(&mut self) {
        self.state = None;
    }

    pub(super) fn memory(&self) -> usize {
        self.state.as_ref().map_or(0, CCtx::sizeof)
    }
}

impl std::fmt::Debug for Expander {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Expander")
            .field("is_within", &self.is_within)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Packer").finish_non_exhaustive()
    }
}
