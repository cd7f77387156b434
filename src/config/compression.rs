//! `[listener.compression]`: the format of a listener's bytes, and what a peer may make of its own. Pure.

use serde::Deserialize;

use super::quantity::Size;
use super::validate::Judge;
use super::value::{Off, Setting, Whole, Words};
use crate::compression::{Codec, Method, Terms};

/// Least window: the format has none that is smaller.
const WINDOW_MIN: u64 = 1 << 10;

/// Most: what `zstd -d` takes without being asked to.
const WINDOW_MAX: u64 = 128 << 20;

/// Most of `max_ratio`: more than any frame does, so that it is as good as "off".
const RATIO_MAX: u32 = 1_000_000;

/// `[listener.compression]`: how a listener's bytes are compressed, both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    /// The format; `None`: bytes are what they are.
    pub method: Option<Method>,
    /// Most bytes of a frame's window.
    pub max_window: u32,
    /// How many times its bytes what a peer sent may become; `None`: any number.
    pub max_ratio: Option<u32>,
}

impl Compression {
    /// What holds for its connections; `None`: they are not compressed.
    pub fn terms(&self) -> Option<Terms> {
        self.method.map(|method| Terms {
            method,
            max_window: self.max_window.into(),
            max_ratio: self.max_ratio,
        })
    }

    /// Most memory that one frame takes, each way; 0 where there are none.
    pub(super) fn takes(&self) -> u64 {
        self.terms().map_or(0, |terms| Codec::takes(&terms) as u64)
    }
}

impl Words for Option<Method> {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("none", None),
        ("zstd", Some(Method::Zstd)),
        ("gzip", Some(Method::Gzip)),
    ];
}

/// What the table may say.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(super) struct Written {
    pub(super) method: Setting<Option<Method>>,
    pub(super) max_window: Setting<Size<WINDOW_MIN, WINDOW_MAX>>,
    pub(super) max_ratio: Setting<Off<Whole<1, RATIO_MAX>>>,
}

impl Default for Written {
    fn default() -> Self {
        Self {
            method: Setting::unset(None),
            max_window: Setting::unset(Size(8 << 20)),
            max_ratio: Setting::unset(Off(Some(Whole(200)))),
        }
    }
}

impl Judge<'_> {
    pub(super) fn compression(&mut self, prefix: &str, written: Written) -> Option<Compression> {
        let key = |key: &str| format!("{prefix}{key}");
        let method = self.take(&key("method"), written.method);
        let max_window = self.take(&key("max_window"), written.max_window);
        let max_ratio = self.take(&key("max_ratio"), written.max_ratio);
        Some(Compression {
            method: method?,
            // The type's range ends far below u32.
            max_window: u32::try_from(max_window?.0).ok()?,
            max_ratio: max_ratio?.0.map(|most| most.0),
        })
    }
}
