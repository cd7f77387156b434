//! Ciphertext on one side, plaintext on the other.
//!
//! `session` is one connection's TLS, fed and drained by hand (pure). `identity` is what a listener shows its peers
//! and asks of them, loaded from files whole or not at all: `certificate` reads what a certificate says of
//! itself, `validity` until when that holds, `choice` finds the one for a peer, `verify` judges the peer's own. `words` says what went wrong.
//! Only `identity` opens files; nothing here sees a socket.

mod certificate;
mod choice;
mod error;
mod identity;
mod note;
mod session;
mod validity;
mod verify;
mod words;

pub use error::Error;
pub use identity::{Identities, Identity, look};
pub use note::{Note, NoteKind};
pub use session::{Facts, Session};
pub use validity::Renewed;

#[cfg(test)]
pub(crate) mod tests;
