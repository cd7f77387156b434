//! One connection's compression, fed and drained by hand: the stream each way is what zstd(1) and gzip(1) write.
//!
//! Compressed bytes go in and are expanded into memory of the caller's, never more than that holds in one call; what is
//! left waits here for the next. Plain bytes go in the other way, and compressed ones come out when there are
//! enough of them, or at a flush. Frames (gzip says members) may follow one another. One that the peer has ended is
//! answered by one that we end, at the next flush; several that came together share one. Between frames an idle codec
//! holds nothing: the library's states, which are large, are made with a frame and given back with it.
//! Reads and sends nothing itself. Invariant: once the stream is broken, nothing more is taken in.

mod broken;
mod gzip;
mod zstd;

pub use broken::Broken;

/// Plain bytes that any stream may expand to before its ratio is judged.
pub const UNJUDGED: u64 = 16 << 20;

/// Most frames that are begun in one call: an empty one is work, and nothing comes of it.
pub const FRAMES_MAX: u32 = 256;

/// Most compressed bytes that should be given at once: what cannot be expanded yet is held.
pub const INPUT_MAX: u32 = 64 * 1024;

/// The same, before a frame has begun: so many may have to wait until there is memory for it.
pub const BEGINNING_MAX: u32 = 4 * 1024;

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// RFC 8878.
    Zstd,
    /// RFC 1952.
    Gzip,
}

impl Method {
    /// Its name, as the configuration and the log have it.
    pub fn name(self) -> &'static str {
        match self {
            Method::Zstd => "zstd",
            Method::Gzip => "gzip",
        }
    }
}

/// What is spoken on a listener, and how far a peer may go with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// What is spoken.
    pub method: Method,
    /// Largest window of a frame, in bytes. One of gzip's is always 32 KiB.
    pub max_window: u64,
    /// Most plain bytes for each compressed one, judged above [`UNJUDGED`]; `None`: any number.
    pub max_ratio: Option<u32>,
}

/// One connection's compression.
#[derive(Debug)]
pub struct Codec {
    terms: Terms,
    expander: Expander,
    packer: Packer,
    /// Compressed bytes of the peer that were not expanded yet, from `at` on.
    held: Vec<u8>,
    at: usize,
    /// They are the beginning of a header, and wait for the rest of it.
    is_short: bool,
    /// The largest window that memory was asked for, since there are states.
    granted: u64,
    /// The last call filled the caller's memory: there may be more inside.
    is_full: bool,
    /// The peer has ended a frame for which none of ours has begun.
    is_owed: bool,
    /// A frame of ours has begun.
    is_begun: bool,
    /// Compressed bytes for the peer that were not drained yet.
    packed: Vec<u8>,
    /// Plain bytes that nobody can read before the next flush.
    unflushed: u64,
    /// Compressed bytes that were expanded, and the plain ones that came of them.
    expanded: (u64, u64),
    failure: Option<Broken>,
}

#[derive(Debug)]
enum Expander {
    Zstd(zstd::Expander),
    Gzip(gzip::Expander),
}

#[derive(Debug)]
enum Packer {
    Zstd(zstd::Packer),
    Gzip(gzip::Packer),
}

/// How far a state got with the bytes that it was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Step {
    /// Bytes that it took.
    taken: usize,
    /// Bytes that it made.
    made: usize,
    /// A frame of the peer's has ended.
    is_end: bool,
    /// It needs more to go on with.
    is_short: bool,
}

impl Codec {
    /// At the beginning of the first frame.
    pub fn new(terms: Terms) -> Codec {
        let (expander, packer) = match terms.method {
            Method::Zstd => (
                Expander::Zstd(zstd::Expander::default()),
                Packer::Zstd(zstd::Packer::default()),
            ),
            Method::Gzip => (
                Expander::Gzip(gzip::Expander::default()),
                Packer::Gzip(gzip::Packer::default()),
            ),
        };
        Codec {
            terms,
            expander,
            packer,
            held: Vec::new(),
            at: 0,
            is_short: false,
            granted: 0,
            is_full: false,
            is_owed: false,
            is_begun: false,
            packed: Vec::new(),
            unflushed: 0,
            expanded: (0, 0),
            failure: None,
        }
    }

    /// What is spoken.
    pub fn method(&self) -> Method {
        self.terms.method
    }

    /// Keeps what the peer said for later.
    pub fn hold(&mut self, said: &[u8]) {
        if said.is_empty() || self.failure.is_some() {
            return;
        }
        self.held.drain(..std::mem::take(&mut self.at));
        self.held.extend_from_slice(said);
        self.is_short = false;
    }

    /// Expands what waits, and then what the peer said, into `plain`, and answers how many bytes that are. What is left
    /// waits. Where the stream is broken that is the end of it: see [`Codec::failure`].
    pub fn expand(&mut self, said: &[u8], plain: &mut [u8]) -> usize {
        if self.failure.is_some() {
            return 0;
        }
        if !self.held.is_empty() {
            self.hold(said);
            let (held, at) = (std::mem::take(&mut self.held), std::mem::take(&mut self.at));
            let (taken, made) = self.go_through(&held[at..], plain);
            if at + taken < held.len() && self.failure.is_none() {
                (self.held, self.at) = (held, at + taken);
            }
            return made;
        }
        let (taken, made) = self.go_through(said, plain);
        if taken < said.len() && self.failure.is_none() {
            self.held.reserve_exact(said.len() - taken);
            self.held.extend_from_slice(&said[taken..]);
        }
        made
    }

    /// Expands `input` until it or the room for what comes of it has ended: the bytes taken and those made.
    fn go_through(&mut self, input: &[u8], plain: &mut [u8]) -> (usize, usize) {
        let (mut taken, mut made, mut frames) = (0, 0, 0);
        // Without input there is only what had no room before; to be asked for nothing is a mistake to the library.
        let mut is_full = std::mem::take(&mut self.is_full);
        self.granted = self.granted.max(self.window(input));
        while frames < FRAMES_MAX && (taken < input.len() || is_full) {
            if self.window(&input[taken..]) > self.granted {
                // What it needs has to be asked for.
                break;
            }
            is_full = false;
            let (input, plain) = (&input[taken..], &mut plain[made..]);
            let step = match &mut self.expander {
                Expander::Zstd(expander) => expander.step(input, plain, self.terms.max_window),
                Expander::Gzip(expander) => expander.step(input, plain),
            };
            let step = match step {
                Ok(step) => step,
                Err(broken) => {
                    self.fail(broken);
                    break;
                }
            };
            taken += step.taken;
            made += step.made;
            self.is_owed |= step.is_end;
            frames += u32::from(step.is_end);
            self.is_short = step.is_short;
            self.is_full = step.made == plain.len() && !step.is_end;
            if step.is_short || self.is_full || step == Step::default() {
                break;
            }
        }
        self.expanded.0 += taken as u64;
        self.expanded.1 += made as u64;
        self.judge();
        (taken, made)
    }

    /// Does it expand to more than it may?
    fn judge(&mut self) {
        let (taken, made) = self.expanded;
        if let Some(most) = self.terms.max_ratio
            && made > UNJUDGED
            && made > taken.saturating_mul(most.into())
        {
            self.fail(Broken::Ratio(most));
        }
    }

    /// The first thing that is wrong is what is told.
    fn fail(&mut self, broken: Broken) {
        self.failure.get_or_insert(broken);
        self.forget_held();
    }

    /// What is wrong with the stream, if anything is.
    pub fn failure(&self) -> Option<Broken> {
        self.failure
    }

    /// The peer says no more. In the middle of a frame that breaks it. What waits has to be expanded before.
    pub fn finish(&mut self) {
        if !self.is_between() {
            self.fail(Broken::Truncated);
        }
    }

    /// Is there something to expand now, though nothing more comes?
    pub fn has_more(&self) -> bool {
        let waits = !self.held.is_empty() && !self.is_short;
        self.failure.is_none() && (waits || self.is_full)
    }

    /// Is the peer between two frames, or has said nothing at all?
    pub fn is_between(&self) -> bool {
        self.is_outside() && self.held.is_empty()
    }

    /// Has what was expanded come to the end of a frame? What waits may begin the next.
    fn is_outside(&self) -> bool {
        match &self.expander {
            Expander::Zstd(expander) => expander.is_between(),
            Expander::Gzip(expander) => expander.is_between(),
        }
    }

    /// Takes plain bytes for the peer in. It can read them after the next [`Codec::flush`].
    pub fn send(&mut self, plain: &[u8]) {
        self.is_begun |= !plain.is_empty() || std::mem::take(&mut self.is_owed);
        self.unflushed += plain.len() as u64;
        self.pack(plain, End::None);
    }

    /// Lets the peer read all that was sent. Between two frames of its own that is the end of ours, and no states are held.
    pub fn flush(&mut self) {
        if self.is_outside() && self.failure.is_none() {
            if std::mem::take(&mut self.is_begun) {
                self.pack(&[], End::Frame);
            }
            self.release();
        } else if self.unflushed > 0 {
            self.pack(&[], End::Flush);
        }
        self.is_owed = false;
        self.unflushed = 0;
    }

    /// Lets the peer read all that was sent, which is the last, and holds nothing any more. In the middle of a frame of
    /// its own ours has no end.
    pub fn close(&mut self) {
        self.flush();
        self.release();
        self.forget_held();
    }

    /// Holds nothing any more, and has nothing more to say.
    pub fn drop_all(&mut self) {
        self.release();
        self.forget_held();
        self.packed = Vec::new();
    }

    fn forget_held(&mut self) {
        self.held = Vec::new();
        self.at = 0;
    }

    /// Says no more: our frame ends, wherever the peer is. For the side that spoke first.
    pub fn end(&mut self) {
        if std::mem::take(&mut self.is_begun) {
            self.pack(&[], End::Frame);
        }
        self.unflushed = 0;
        self.release_packer();
    }

    fn pack(&mut self, plain: &[u8], end: End) {
        let packed = match &mut self.packer {
            Packer::Zstd(packer) => packer.pack(plain, end, &mut self.packed),
            Packer::Gzip(packer) => packer.pack(plain, end, &mut self.packed),
        };
        if let Err(broken) = packed {
            self.fail(broken);
        }
    }

    /// Gives the states back.
    fn release(&mut self) {
        self.granted = 0;
        match &mut self.expander {
            Expander::Zstd(expander) => expander.release(),
            Expander::Gzip(expander) => expander.release(),
        }
        self.release_packer();
    }

    fn release_packer(&mut self) {
        match &mut self.packer {
            Packer::Zstd(packer) => packer.release(),
            Packer::Gzip(packer) => packer.release(),
        }
    }

    /// Plain bytes that the peer cannot read before the next flush.
    pub fn unflushed(&self) -> u64 {
        self.unflushed
    }

    /// Would a flush change anything for the peer?
    pub fn wants_flush(&self) -> bool {
        let is_over = self.is_begun && self.is_outside() && self.failure.is_none();
        self.unflushed > 0 || is_over || self.is_owed
    }

    /// Compressed bytes for the peer.
    pub fn drain(&mut self) -> Vec<u8> {
        let mut packed = std::mem::take(&mut self.packed);
        // Room was made for what does not get smaller.
        if packed.capacity() > packed.len() * 2 {
            packed.shrink_to_fit();
        }
        packed
    }

    /// Memory that is held, in bytes.
    pub fn memory(&self) -> usize {
        self.states_memory() + self.held.capacity() + self.packed.capacity()
    }

    fn states_memory(&self) -> usize {
        let expander = match &self.expander {
            Expander::Zstd(expander) => expander.memory(),
            Expander::Gzip(expander) => expander.memory(),
        };
        let packer = match &self.packer {
            Packer::Zstd(packer) => packer.memory(),
            Packer::Gzip(packer) => packer.memory(),
        };
        expander + packer
    }

    /// Memory that it may hold when it goes on with what waits and what the peer said.
    pub fn needs(&self, said: &[u8]) -> usize {
        let states = states(self.terms.method, self.granted.max(self.next_window(said)));
        let waiting = self.held.capacity() + said.len() + self.packed.capacity();
        states.saturating_add(waiting)
    }

    /// Does it then begin what no memory was asked for yet? If not, it goes on with a frame.
    pub fn begins(&self, said: &[u8]) -> bool {
        !self.has_states() || self.next_window(said) > self.granted
    }

    /// The window of the frame that begins with what waits and what the peer said; 0: none does, or it is refused.
    fn next_window(&self, said: &[u8]) -> u64 {
        let held = &self.held[self.at..];
        match held.len() {
            0 => self.window(said),
            // A header may be in both.
            1..zstd::HEADER_MAX => {
                let more = &said[..said.len().min(zstd::HEADER_MAX)];
                self.window(&[held, more].concat())
            }
            _ => self.window(held),
        }
    }

    /// The window of the frame that begins with these bytes; 0: none does, or it is refused.
    fn window(&self, input: &[u8]) -> u64 {
        match &self.expander {
            Expander::Zstd(expander) => match expander.window(input) {
                window if window <= self.terms.max_window => window,
                _ => 0,
            },
            Expander::Gzip(_) => 0,
        }
    }

    /// Most memory that a frame takes on these terms, with the one that answers it and what waits of either.
    pub fn takes(terms: &Terms) -> usize {
        let states = match terms.method {
            Method::Zstd => states(Method::Zstd, terms.max_window),
            Method::Gzip => states(Method::Gzip, 0),
        };
        states.saturating_add(2 * INPUT_MAX as usize)
    }

    /// Are states there? They are not before a frame, nor after it.
    pub fn has_states(&self) -> bool {
        self.states_memory() > 0
    }
}

/// The most that the states of a method take both ways, with a peer's window.
fn states(method: Method, window: u64) -> usize {
    let window = usize::try_from(window).unwrap_or(usize::MAX);
    let states = match method {
        Method::Zstd => zstd::STATES_MEMORY,
        Method::Gzip => gzip::INFLATE_MEMORY + gzip::DEFLATE_MEMORY,
    };
    states.saturating_add(window)
}

/// What comes behind the bytes that are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// More of them.
    None,
    /// Perhaps nothing for a while.
    Flush,
    /// Nothing more in this frame.
    Frame,
}

#[cfg(test)]
mod tests;
