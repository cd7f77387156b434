//! Bytes where frames of zstd should be.
//!
//! The last byte chooses the cuts. What the library's one-shot function accepts is expanded to the same, and what is
//! echoed expands to that again; nothing is written past the room, and no more memory is held than was said.

#![no_main]

#[path = "codec/mod.rs"]
mod codec;

use echod::compression::Method;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    codec::run(Method::Zstd, input, |bytes| {
        let mut plain = Vec::with_capacity(codec::PLAIN_MAX);
        zstd_safe::decompress(&mut plain, bytes).ok().map(|_| plain)
    });
});
