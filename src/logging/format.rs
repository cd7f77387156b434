//! Events as text: one line of printable ASCII each, whatever a peer or a file put into them. Pure.
//!
//! ```text
//! listening listener=echo address=[::]:8080
//! reload refused, serving as before: /etc/echod/echod.toml:31: unknown key "max_conections"
//! ```
//! Fields stand before the detail, so that prose never hides them. Invariant: no byte outside
//! `0x20..=0x7e` leaves here, so no newline forges a line and no escape sequence reaches a terminal.

use super::event::Event;

/// Most bytes of a field's value in a line, quotes and mark included.
pub const VALUE_MAX: usize = 128;

/// Most bytes of a detail in a line, mark included.
pub const DETAIL_MAX: usize = 1024;

/// Most bytes of a line: with any sink's header it stays below 4096, which a pipe takes whole or not
/// at all, and far below what a datagram holds.
pub const LINE_MAX: usize = 3072;

/// Stands where something was left out.
const MARK: &str = "...";

/// The text of an event, at most [`LINE_MAX`] bytes.
pub(super) fn line(event: &Event) -> String {
    let mut line = String::from(event.kind.text);
    let detail = event.detail.as_deref().map(escaped);
    let kept = detail.as_ref().map_or(0, |detail| detail.len() + 2) + MARK.len() + 1;
    for (key, text) in &event.fields {
        let value = value(text);
        if line.len() + key.len() + value.len() + 2 + kept > LINE_MAX {
            line.push(' ');
            line.push_str(MARK);
            break;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(key);
        line.push('=');
        line.push_str(&value);
    }
    if let Some(detail) = detail {
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&detail);
    }
    line
}

/// A field's value: bare if it is made of harmless characters, else quoted. What was cut is quoted
/// as well, with the mark behind the quotes, where no value can imitate it.
pub(super) fn value(text: &str) -> String {
    if !text.is_empty() && text.len() <= VALUE_MAX && text.bytes().all(is_bare) {
        return text.to_owned();
    }
    let room = VALUE_MAX - 2;
    let (mut inside, whole) = escape(text, room, is_quotable);
    if !whole {
        (inside, _) = escape(text, room - MARK.len(), is_quotable);
    }
    format!("\"{inside}\"{}", if whole { "" } else { MARK })
}

/// A detail: prose keeps its quotes and backslashes; only what could harm a line is escaped.
fn escaped(text: &str) -> String {
    let (mut detail, whole) = escape(text, DETAIL_MAX, is_printable);
    if !whole {
        (detail, _) = escape(text, DETAIL_MAX - MARK.len(), is_printable);
        detail.push_str(MARK);
    }
    detail
}

/// As much of `text` as fits into `room` bytes without splitting an escape or a character; and
/// whether that was all of it.
fn escape(text: &str, room: usize, is_plain: fn(u8) -> bool) -> (String, bool) {
    let mut out = String::with_capacity(text.len().min(room));
    let mut bytes = [0; 4];
    for character in text.chars() {
        let before = out.len();
        for byte in character.encode_utf8(&mut bytes).bytes() {
            match byte {
                byte if is_plain(byte) => out.push(char::from(byte)),
                b'"' | b'\\' => out.extend(['\\', char::from(byte)]),
                byte => {
                    out.push_str("\\x");
                    out.extend([byte >> 4, byte & 0xf].map(hex_digit));
                }
            }
        }
        if out.len() > room {
            out.truncate(before);
            return (out, false);
        }
    }
    (out, true)
}

const fn is_bare(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'/' | b'[' | b']' | b'-')
}

const fn is_printable(byte: u8) -> bool {
    matches!(byte, b' '..=b'~')
}

const fn is_quotable(byte: u8) -> bool {
    is_printable(byte) && !matches!(byte, b'"' | b'\\')
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).expect("a nibble is below sixteen")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logging::kind;
    use proptest::prelude::*;

    #[test]
    fn a_line_is_the_kind_its_fields_and_then_the_detail() {
        let listening = Event::of(&kind::LISTENING)
            .with("listener", "echo")
            .with("address", "[::]:8080");
        assert_eq!(
            line(&listening),
            "listening listener=echo address=[::]:8080"
        );
        let refused = Event::of(&kind::RELOAD_REFUSED)
            .detail("/etc/echod/echod.toml:31: unknown key \"max_conections\"");
        assert_eq!(
            line(&refused),
            "reload refused, serving as before: /etc/echod/echod.toml:31: unknown key \"max_conections\""
        );
    }

    #[test]
    fn a_kind_without_words_leaves_the_line_to_its_detail() {
        assert_eq!(
            line(&Event::of(&kind::FATAL).detail("no memory")),
            "no memory"
        );
        assert_eq!(line(&Event::of(&kind::FATAL).with("errno", 12)), "errno=12");
    }

    #[test]
    fn what_is_not_harmless_is_quoted() {
        assert_eq!(value("first_byte"), "first_byte");
        assert_eq!(value("2001:db8::/64"), "2001:db8::/64");
        assert_eq!(value(""), r#""""#);
        assert_eq!(value("two words"), r#""two words""#);
        assert_eq!(value("a=b"), r#""a=b""#);
        assert_eq!(value(r#"say "no\"#), r#""say \"no\\""#);
        assert_eq!(value("\n\x1b[2J"), r#""\x0a\x1b[2J""#);
        assert_eq!(value("ü"), r#""\xc3\xbc""#);
    }

    #[test]
    fn a_value_at_its_bound_is_whole_and_one_past_it_is_marked() {
        assert_eq!(value(&"a".repeat(VALUE_MAX)), "a".repeat(VALUE_MAX));
        let cut = value(&"a".repeat(VALUE_MAX + 1));
        assert_eq!(cut, format!("\"{}\"...", "a".repeat(VALUE_MAX - 5)));
        let quoted = " ".repeat(VALUE_MAX - 2);
        assert_eq!(value(&quoted), format!("\"{quoted}\""));
        assert_eq!(value(&" ".repeat(VALUE_MAX - 1)).len(), VALUE_MAX);
    }

    #[test]
    fn fields_that_do_not_fit_are_left_out_and_marked_and_the_detail_stays() {
        let mut event = Event::of(&kind::INTERNAL).detail("d".repeat(DETAIL_MAX + 1));
        for _ in 0..100 {
            event = event.with("key", "v".repeat(VALUE_MAX));
        }
        let line = line(&event);
        assert!(line.len() <= LINE_MAX);
        assert!(line.contains(" ...: ddd"));
        assert!(line.ends_with("ddd..."));
    }

    /// What a reader makes of a quoted value, without its mark.
    fn unquoted(value: &str) -> Vec<u8> {
        let Some(inside) = value.strip_prefix('"') else {
            return value.into();
        };
        let inside = inside
            .trim_end_matches(MARK)
            .strip_suffix('"')
            .expect("closed");
        let mut bytes = inside.bytes();
        let mut out = Vec::new();
        while let Some(byte) = bytes.next() {
            out.push(match byte {
                b'\\' => match bytes.next().expect("a whole escape") {
                    b'x' => {
                        let digits = [bytes.next().expect("high"), bytes.next().expect("low")];
                        let digits = str::from_utf8(&digits).expect("ascii");
                        u8::from_str_radix(digits, 16).expect("hex")
                    }
                    plain => plain,
                },
                byte => byte,
            });
        }
        out
    }

    proptest! {
        #[test]
        fn no_byte_that_could_harm_a_line_ever_reaches_it(
            texts in prop::collection::vec(any::<String>(), 0..40),
            detail in prop::option::of(any::<String>()),
        ) {
            let mut event = Event::of(&kind::INTERNAL);
            for text in texts {
                event = event.with("key", text);
            }
            event.detail = detail;
            let line = line(&event);
            prop_assert!(line.bytes().all(is_printable));
            prop_assert!(line.len() <= LINE_MAX);
        }

        #[test]
        fn a_value_is_read_back_as_it_was_or_as_its_beginning(text in "(?s).{0,200}") {
            let value = value(&text);
            prop_assert!(value.len() <= VALUE_MAX);
            let read = unquoted(&value);
            if value.ends_with("\"...") {
                prop_assert!(text.as_bytes().starts_with(&read));
                prop_assert!(str::from_utf8(&read).is_ok(), "a character was split");
            } else {
                prop_assert_eq!(read, text.as_bytes());
            }
        }
    }
}
