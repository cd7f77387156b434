//! Places in the configuration's text, and text made safe to show.
//!
//! Whatever a file says may end up in a terminal or a log, so no character that either would obey
//! leaves this room as it is. Pure: it is given the text and returns text.

use std::ops::Range;

/// Most characters of the file that a one-line message repeats: enough to recognise the place.
const QUOTE_MAX: usize = 64;

/// Most characters of a line that are shown around the underlined place: it should fit a screen.
const EXCERPT_MAX: usize = 120;

/// Of these, how many come before the underlined place.
const EXCERPT_BEFORE: usize = 60;

/// The text with everything but visible characters and spaces written as `\u{..}`.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        push_escaped(&mut escaped, character);
    }
    escaped
}

fn push_escaped(out: &mut String, character: char) {
    match character {
        '"' | '\'' | '\\' => out.push(character),
        // escape_debug knows what is visible: neither control characters nor the marks that reorder
        // or join what stands beside them.
        _ if character.escape_debug().len() == 1 => out.push(character),
        _ => out.extend(character.escape_unicode()),
    }
}

/// What the file says at `span`, on one line, escaped and cut to a length that a message can bear.
pub(super) fn quote(text: &str, span: &Range<usize>) -> String {
    let line = text
        .get(span.clone())
        .unwrap_or("")
        .lines()
        .next()
        .unwrap_or("");
    let mut quoted = String::new();
    for (index, character) in line.chars().enumerate() {
        if index == QUOTE_MAX {
            quoted.push_str("...");
            break;
        }
        push_escaped(&mut quoted, character);
    }
    quoted
}

/// Line and column of a byte, both from 1; columns are characters.
pub(super) fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..offset.min(text.len())];
    let line_start = line_start(before);
    let lines = before.iter().filter(|byte| **byte == b'\n').count();
    // A character is counted by its first byte; continuation bytes are 10xxxxxx.
    let characters = before[line_start..]
        .iter()
        .filter(|byte| **byte & 0xC0 != 0x80)
        .count();
    let mark = usize::from(line_start == 0 && characters > 0 && text.starts_with('\u{feff}'));
    (lines + 1, characters + 1 - mark)
}

fn line_start(before: &[u8]) -> usize {
    before
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |newline| newline + 1)
}

/// One line of the file, escaped, and where in it the place to underline is now.
#[derive(Debug, PartialEq)]
pub(super) struct Excerpt {
    pub(super) line: String,
    pub(super) span: Range<usize>,
}

/// The line on which `span` begins, or as much of it as is worth showing. A span over several lines
/// ends with its first.
pub(super) fn excerpt(text: &str, span: &Range<usize>) -> Excerpt {
    let start = floor_boundary(text, span.start);
    let end = floor_boundary(text, span.end).max(start);
    let first = line_start(&text.as_bytes()[..start]);
    let last = text[start..].find('\n').map_or(text.len(), |at| start + at);

    let mut from = start;
    for (at, _) in text[first..start].char_indices().rev().take(EXCERPT_BEFORE) {
        from = first + at;
    }
    let mut line = String::new();
    if from > first {
        line.push_str("...");
    }
    let (mut shown_start, mut shown_end) = (None, None);
    let mut cut = false;
    for (count, (at, character)) in text[from..last].char_indices().enumerate() {
        if count == EXCERPT_MAX {
            line.push_str("...");
            cut = true;
            break;
        }
        if from + at >= start {
            shown_start.get_or_insert(line.len());
        }
        if from + at >= end {
            shown_end.get_or_insert(line.len());
        }
        match character {
            '\r' | '\u{feff}' => {}
            '\t' => line.push_str("    "),
            _ => push_escaped(&mut line, character),
        }
    }
    let length = line.len() - if cut { 3 } else { 0 };
    let shown_start = shown_start.unwrap_or(length);
    let shown_end = shown_end.unwrap_or(length).max(shown_start);
    Excerpt {
        line,
        span: shown_start..shown_end,
    }
}

fn floor_boundary(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(
            escape("a\u{1b}[31m\u{202e}\u{200b}\r\n\0"),
            "a\\u{1b}[31m\\u{202e}\\u{200b}\\u{d}\\u{a}\\u{0}"
        );
        assert_eq!(escape("grüße \"x\" \\n"), "grüße \"x\" \\n");
        assert_eq!(escape("\u{9b}31m\u{7f}"), "\\u{9b}31m\\u{7f}");
    }

    #[test]
    fn a_position_counts_characters_not_bytes() {
        let text = "ä = 1\nöö = 2\n";
        assert_eq!(position(text, 0), (1, 1));
        assert_eq!(position(text, 3), (1, 3));
        assert_eq!(position(text, text.len()), (3, 1));
        assert_eq!(position("\u{feff}a", 3), (1, 1));
    }

    #[test]
    fn an_excerpt_is_the_line_that_holds_the_place() {
        let text = "one\n\ttwo = 3\r\nfour";
        let got = excerpt(text, &(11..12));
        assert_eq!(got.line, "    two = 3");
        assert_eq!(&got.line[got.span], "3");
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let text = format!("a = \"{}HERE{}\"", "x".repeat(500), "y".repeat(500));
        let at = text.find("HERE").unwrap_or(0);
        let got = excerpt(&text, &(at..at + 4));
        assert_eq!(&got.line[got.span.clone()], "HERE");
        assert!(got.line.starts_with("...") && got.line.ends_with("..."));
        assert!(got.line.len() < 140);
    }

    #[test]
    fn a_place_at_the_very_end_is_an_empty_one() {
        let got = excerpt("", &(0..0));
        assert_eq!((got.line.as_str(), got.span), ("", 0..0));
        let got = excerpt("a = 1\n", &(6..6));
        assert_eq!((got.line.as_str(), got.span), ("", 0..0));
    }
}
