//! One thing that happened, before it is a line: its kind, its fields, and a detail in prose.
//!
//! Fields hold what was found, unquoted and unescaped; `format` makes them safe for a line, the
//! journal takes them as they are. Building an event allocates: ask [`Log::says`](super::Log::says)
//! first where that matters.

use super::kind::Kind;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What sort of thing.
    pub kind: &'static Kind,
    /// The cause, and the remedy if one is known: an error and its sources.
    pub detail: Option<String>,
    /// The things concerned, by name.
    pub fields: Vec<(&'static str, String)>,
}

impl Event {
    /// Of this kind, with nothing more to say about it yet.
    pub fn of(kind: &'static Kind) -> Event {
        Event {
            kind,
            detail: None,
            fields: Vec::new(),
        }
    }

    /// Adds a field.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl ToString) -> Event {
        self.fields.push((key, value.to_string()));
        self
    }

    /// Says why, in prose.
    #[must_use]
    pub fn detail(mut self, text: impl ToString) -> Event {
        self.detail = Some(text.to_string());
        self
    }
}
