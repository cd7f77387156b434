//! Peers that compress: frames made and opened by the libraries, without any code of the daemon.
//!
//! Part of a test program by `#[path]`, beside `support`.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::io::{ErrorKind, Read, Result, Write};

use echod::compression::Method;
use flate2::write::GzEncoder;
use zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd_safe::{CCtx, CParameter, DCtx, InBuffer, OutBuffer, get_error_name};

use crate::support::pattern;

pub const BOTH: [Method; 2] = [Method::Zstd, Method::Gzip];

/// What makes frames, as the tools do: their levels, and checksums.
pub enum Packer {
    Zstd(CCtx<'static>),
    Gzip(Box<GzEncoder<Vec<u8>>>),
}

impl Packer {
    pub fn new(method: Method) -> Packer {
        match method {
            Method::Zstd => {
                let mut state = CCtx::create();
                let checksum = CParameter::ChecksumFlag(true);
                state.set_parameter(checksum).expect("set");
                Packer::Zstd(state)
            }
            Method::Gzip => Packer::Gzip(encoder()),
        }
    }

    /// The frame goes on: what can be read when this has come.
    pub fn say(&mut self, plain: &[u8]) -> Vec<u8> {
        match self {
            Packer::Zstd(state) => packed(state, plain, ZSTD_EndDirective::ZSTD_e_flush),
            Packer::Gzip(encoder) => {
                encoder.write_all(plain).expect("packed");
                encoder.flush().expect("packed");
                std::mem::take(encoder.get_mut())
            }
        }
    }

    /// The frame ends; the next word begins another.
    pub fn end(&mut self) -> Vec<u8> {
        match self {
            Packer::Zstd(state) => packed(state, &[], ZSTD_EndDirective::ZSTD_e_end),
            Packer::Gzip(state) => {
                let ended = std::mem::replace(state, encoder());
                ended.finish().expect("packed")
            }
        }
    }
}

fn encoder() -> Box<GzEncoder<Vec<u8>>> {
    Box::new(GzEncoder::new(Vec::new(), flate2::Compression::default()))
}

fn packed(state: &mut CCtx<'static>, plain: &[u8], end: ZSTD_EndDirective) -> Vec<u8> {
    let mut packed = Vec::with_capacity(zstd_safe::compress_bound(plain.len()));
    let mut input = InBuffer::around(plain);
    loop {
        let at = packed.len();
        let mut output = OutBuffer::around_pos(&mut packed, at);
        let left = state.compress_stream2(&mut output, &mut input, end);
        if left.expect("packed") == 0 {
            return packed;
        }
        packed.reserve(1 << 16);
    }
}

/// A whole frame.
pub fn frame(method: Method, plain: &[u8]) -> Vec<u8> {
    let mut packer = Packer::new(method);
    match &mut packer {
        Packer::Zstd(state) => packed(state, plain, ZSTD_EndDirective::ZSTD_e_end),
        Packer::Gzip(encoder) => {
            encoder.write_all(plain).expect("packed");
            packer.end()
        }
    }
}

/// Reads what the frames hold that come from there, up to an end between two of them; any other is an error.
pub fn opened<'a>(method: Method, from: impl Read + 'a) -> Box<dyn Read + 'a> {
    match method {
        Method::Zstd => Box::new(Frames::new(from, false)),
        Method::Gzip => Box::new(Members::new(from, false)),
    }
}

/// The same of one frame: whoever reads is at the end when that ends, and nothing more has to come.
pub fn opened_once<'a>(method: Method, from: impl Read + 'a) -> Box<dyn Read + 'a> {
    match method {
        Method::Zstd => Box::new(Frames::new(from, true)),
        Method::Gzip => Box::new(Members::new(from, true)),
    }
}

/// All that can be read of this, and whether it ends between two frames.
pub fn opened_as_far(method: Method, packed: &[u8]) -> (Vec<u8>, bool) {
    let (mut plain, mut reader) = (Vec::new(), opened(method, packed));
    match reader.read_to_end(&mut plain) {
        Ok(_) => (plain, true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => (plain, false),
        Err(error) => panic!("after {}: {error}", plain.len()),
    }
}

/// The library's own reader, which waits for a header as soon as there is one.
struct Members<'a, R> {
    from: Option<R>,
    is_one: bool,
    reader: Option<Box<dyn Read + 'a>>,
}

impl<R> Members<'_, R> {
    fn new(from: R, is_one: bool) -> Self {
        Members {
            from: Some(from),
            is_one,
            reader: None,
        }
    }
}

impl<'a, R: Read + 'a> Read for Members<'a, R> {
    fn read(&mut self, plain: &mut [u8]) -> Result<usize> {
        if let Some(from) = self.from.take() {
            self.reader = Some(match self.is_one {
                true => Box::new(flate2::read::GzDecoder::new(from)),
                false => Box::new(flate2::read::MultiGzDecoder::new(from)),
            });
        }
        self.reader.as_mut().expect("made above").read(plain)
    }
}

struct Frames<R> {
    from: R,
    state: DCtx<'static>,
    held: Vec<u8>,
    at: usize,
    is_within: bool,
    /// The last call filled what it was given.
    is_full: bool,
    /// The end of a frame is the end.
    is_one: bool,
    is_over: bool,
}

impl<R: Read> Frames<R> {
    fn new(from: R, is_one: bool) -> Frames<R> {
        Frames {
            from,
            state: DCtx::create(),
            held: Vec::new(),
            at: 0,
            is_within: false,
            is_full: false,
            is_one,
            is_over: false,
        }
    }
}

impl<R: Read> Read for Frames<R> {
    fn read(&mut self, plain: &mut [u8]) -> Result<usize> {
        while !self.is_over {
            if self.at == self.held.len() && !self.is_full {
                self.held.resize(1 << 16, 0);
                let count = self.from.read(&mut self.held)?;
                self.held.truncate(count);
                self.at = 0;
                if count == 0 && self.is_within {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                if count == 0 {
                    break;
                }
            }
            let mut input = InBuffer::around(&self.held[self.at..]);
            let mut output = OutBuffer::around(&mut *plain);
            let left = self.state.decompress_stream(&mut output, &mut input);
            let left = left.map_err(|code| std::io::Error::other(get_error_name(code)))?;
            self.at += input.pos();
            let made = output.pos();
            self.is_within = left > 0;
            self.is_over = self.is_one && left == 0;
            self.is_full = left > 0 && made == plain.len();
            if made > 0 {
                return Ok(made);
            }
        }
        Ok(0)
    }
}

/// Words in any order, and numbers.
pub fn text(seed: u64, length: usize) -> Vec<u8> {
    const WORDS: [&str; 8] = [
        "the ",
        "same ",
        "bytes ",
        "come ",
        "back, ",
        "always, ",
        "bounded ",
        "in everything.\n",
    ];
    let mut text = Vec::with_capacity(length + 16);
    let mut at = 0;
    while text.len() < length {
        let choice = pattern(seed, at);
        text.extend_from_slice(WORDS[usize::from(choice % 8)].as_bytes());
        if choice.is_multiple_of(11) {
            text.extend_from_slice(at.to_string().as_bytes());
        }
        at += 1;
    }
    text.truncate(length);
    text
}

/// Text, and in between as many zeros.
pub fn gaps(seed: u64, length: usize) -> Vec<u8> {
    let mut all = Vec::with_capacity(length);
    let mut at = 0;
    while all.len() < length {
        let count = usize::from(pattern(seed, at)) * 400;
        all.extend_from_slice(&text(at, count));
        all.resize(all.len() + count, 0);
        at += 1;
    }
    all.truncate(length);
    all
}
