//! Bytes where members of gzip should be: what holds for the target zstd, held against flate2's reader.

#![no_main]

#[path = "codec/mod.rs"]
mod codec;

use std::io::Read;

use echod::compression::Method;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    codec::run(Method::Gzip, input, |bytes| {
        let mut plain = Vec::new();
        let mut reader = flate2::read::MultiGzDecoder::new(bytes).take(codec::PLAIN_MAX as u64);
        reader.read_to_end(&mut plain).ok().map(|_| plain)
    });
});
