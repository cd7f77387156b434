//! From the text to the schema: TOML's syntax, `[defaults]`, unknown keys.
//!
//! The text becomes a table that knows its places. `[defaults]` is merged into each listener there,
//! so that a value keeps the place where it was written, and only then read into the schema. Pure,
//! and never panics: the text may be anything.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_ignored::Path as KeyPath;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};
use toml_parser::Source;
use toml_parser::lexer::TokenKind;

use super::error::{Error, Problem, Refusal};
use super::schema::{self, LISTENERS_MAX};
use super::{Config, Origin, keys, text, validate};

/// Most parts of a dotted key. The parser nests one table per part, without a bound of its own, and
/// to free a deep nest takes as deep a stack. The schema needs four.
const DOTS_MAX: usize = 16;

/// Deepest nest of tables and lists that is read, for the same reason. The schema needs five.
const DEPTH_MAX: usize = 16;

/// Longest bare word that is repeated in quotes: every word that a key takes is shorter.
const WORD_MAX: usize = 64;

/// Reads a text. `path` names it in messages, and in the configuration as its origin.
pub(super) fn parse(text: &str, path: &Path) -> Result<Config, Error> {
    read(text, path.into())
        .map_err(|problems| Error::Refused(Box::new(Refusal::new(path, text, problems))))
}

fn read(text: &str, path: PathBuf) -> Result<Config, Vec<Problem>> {
    let mut root = table(text)?;
    bound_numbers(root.get_mut());
    let listeners = merge_defaults(root.get_mut());
    if listeners > LISTENERS_MAX {
        return Err(too_many_listeners(root.get_ref()));
    }
    let span = root.span();
    let tree = DeValue::Table(root.into_inner());
    let mut problems = Vec::new();
    let read = serde_ignored::deserialize(
        ValueDeserializer::from(Spanned::new(span, tree.clone())),
        |path| problems.extend(unknown_key(&tree, &path)),
    );
    let file: schema::File = match read {
        Ok(file) => file,
        // Values are never refused here, and no number is too large any more.
        Err(error) => {
            problems.push(unreadable(text, &error));
            return Err(problems);
        }
    };
    validate::validate(file, text, Origin::File(path), problems)
}

/// The text as a table, or what is wrong with its syntax.
fn table(text: &str) -> Result<Spanned<DeTable<'_>>, Vec<Problem>> {
    if let Some(span) = endless_key(text) {
        return Err(vec![too_deep(span)]);
    }
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let mut problems: Vec<_> = errors.iter().map(|error| syntax(text, error)).collect();
        // What follows a mistake on its line is mostly the same mistake.
        problems.sort_by_key(|problem| problem.span.start);
        let newlines: Vec<_> = text.match_indices('\n').map(|(at, _)| at).collect();
        problems.dedup_by_key(|problem| newlines.partition_point(|at| *at < problem.span.start));
        return Err(problems);
    }
    match too_deep_in(root.get_ref(), 0) {
        Some(span) => Err(vec![too_deep(span)]),
        None => Ok(root),
    }
}

fn unreadable(text: &str, error: &toml::de::Error) -> Problem {
    Problem {
        what: text::escape(error.message()),
        remedy: "`echod check --print` shows every key with a value".into(),
        ..syntax(text, error)
    }
}

fn syntax(text: &str, error: &toml::de::Error) -> Problem {
    let span = error.span().unwrap_or(text.len()..text.len());
    let message = error.message();
    let mut what = format!("not TOML: {}", text::escape(message));
    if message == "duplicate key" {
        what = format!("{what} \"{}\"", text::quote(text, &span));
    }
    Problem {
        remedy: syntax_remedy(message, text.get(span.clone()).unwrap_or("")),
        span,
        what,
    }
}

/// What to write instead, where the parser's words tell.
fn syntax_remedy(message: &str, said: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "-_.:/".contains(c);
    if message == "duplicate key" {
        return "give it once, and each [table] its heading once".into();
    }
    let is_flag =
        ["yes", "no", "on", "true", "false"].contains(&said.to_ascii_lowercase().as_str());
    if is_flag {
        return "write true or false".into();
    }
    let is_like_a_number = message.starts_with("invalid float");
    if is_like_a_number && !said.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return "put quotes around it, if it is no number".into();
    }
    if is_like_a_number || message.starts_with("string values must be quoted") {
        // Only what is surely one word is repeated as it should be.
        return if !said.is_empty() && said.len() <= WORD_MAX && said.chars().all(is_word) {
            format!("write \"{said}\"")
        } else {
            "put quotes around it".into()
        };
    }
    if message.starts_with("invalid basic string, expected `\"`")
        || message.starts_with("invalid literal string, expected `'`")
    {
        return "close the string with the quote that opened it, on the same line".into();
    }
    if message.starts_with("unclosed array") {
        return "close the list with ]".into();
    }
    "the rules are at https://toml.io".into()
}

/// A number that no type holds would end the reading, and the rest of the file would go unjudged. As
/// the largest one it is refused by its key's range; its place is still what the file says.
fn bound_numbers(table: &mut DeTable<'_>) {
    for (_, value) in table.iter_mut() {
        bound_number(value.get_mut());
    }
}

fn bound_number(value: &mut DeValue<'_>) {
    let bound = match value {
        DeValue::Table(table) => return bound_numbers(table),
        DeValue::Array(list) => {
            return list
                .iter_mut()
                .for_each(|item| bound_number(item.get_mut()));
        }
        DeValue::Integer(number) => {
            let (digits, radix) = (number.as_str(), number.radix());
            if i128::from_str_radix(digits, radix).is_ok() {
                return;
            }
            if digits.starts_with('-') {
                "-170141183460469231731687303715884105728"
            } else {
                "170141183460469231731687303715884105727"
            }
        }
        DeValue::Float(number) => match number.as_str().parse::<f64>() {
            Ok(number) if number.is_finite() => return,
            _ => "inf",
        },
        _ => return,
    };
    if let Ok(bound) = DeValue::parse(bound) {
        *value = bound.into_inner();
    }
}

fn too_deep(span: Range<usize>) -> Problem {
    Problem {
        span,
        what: "nested more deeply than any key".into(),
        remedy: "remove it; echod.toml(5) lists every key".into(),
    }
}

/// Where a dotted key has more parts than are read.
fn endless_key(text: &str) -> Option<Range<usize>> {
    let mut dots = 0;
    for token in Source::new(text).lex() {
        match token.kind() {
            TokenKind::Dot => dots += 1,
            TokenKind::Equals
            | TokenKind::Comma
            | TokenKind::Newline
            | TokenKind::LeftSquareBracket
            | TokenKind::RightSquareBracket
            | TokenKind::LeftCurlyBracket
            | TokenKind::RightCurlyBracket => dots = 0,
            _ => {}
        }
        if dots > DOTS_MAX {
            return Some(token.span().start()..token.span().end());
        }
    }
    None
}

fn too_deep_in(table: &DeTable<'_>, depth: usize) -> Option<Range<usize>> {
    table.iter().find_map(|(key, value)| {
        value_too_deep(value, depth + 1).map(|deep| deep.unwrap_or(key.span()))
    })
}

/// `Some(None)`: the value itself is too deep, and its key is what should be underlined.
fn value_too_deep(value: &Spanned<DeValue<'_>>, depth: usize) -> Option<Option<Range<usize>>> {
    let nested = matches!(value.get_ref(), DeValue::Table(_) | DeValue::Array(_));
    if nested && depth >= DEPTH_MAX {
        return Some(None);
    }
    match value.get_ref() {
        DeValue::Table(table) => too_deep_in(table, depth).map(Some),
        DeValue::Array(list) => list.iter().find_map(|item| value_too_deep(item, depth + 1)),
        _ => None,
    }
}

/// Gives every listener what `[defaults]` says and it does not. Returns how many listeners there are;
/// above the bound nothing is merged, as copies of a long table in a long list would fill the memory.
fn merge_defaults(root: &mut DeTable<'_>) -> usize {
    let defaults = match root.get("defaults").map(Spanned::get_ref) {
        Some(DeValue::Table(defaults)) => defaults.clone(),
        _ => DeTable::new(),
    };
    let Some(DeValue::Array(listeners)) = root.get_mut("listener").map(Spanned::get_mut) else {
        return 0;
    };
    let count = listeners.iter().count();
    if count <= LISTENERS_MAX {
        for listener in listeners.iter_mut() {
            if let DeValue::Table(listener) = listener.get_mut() {
                merge(listener, &defaults);
            }
        }
    }
    count
}

/// Table by table and key by key: what is there stays.
fn merge<'i>(into: &mut DeTable<'i>, from: &DeTable<'i>) {
    for (key, value) in from {
        let name: &str = key.get_ref();
        match into.get_mut(name).map(Spanned::get_mut) {
            None => {
                into.insert(key.clone(), value.clone());
            }
            Some(DeValue::Table(inner)) => {
                if let DeValue::Table(value) = value.get_ref() {
                    merge(inner, value);
                }
            }
            Some(_) => {}
        }
    }
}

fn too_many_listeners(root: &DeTable<'_>) -> Vec<Problem> {
    let first_beyond = match root.get("listener").map(Spanned::get_ref) {
        Some(DeValue::Array(listeners)) => listeners.get(LISTENERS_MAX),
        _ => None,
    };
    vec![Problem {
        span: first_beyond.map_or(0..0, Spanned::span),
        what: format!("more than {LISTENERS_MAX} listeners"),
        remedy: "one listener takes several addresses".into(),
    }]
}

/// The problem that a key which nobody asked for is.
fn unknown_key(tree: &DeValue<'_>, path: &KeyPath<'_>) -> Option<Problem> {
    let mut steps = Vec::new();
    if let KeyPath::Map { parent, key } = path {
        push_steps(parent, &mut steps);
        steps.push(Step::Key(key.clone()));
    }
    let mut value = tree;
    // Of `listener.0.tcp.nodley`: the table to look in, whom to blame, and what to call it.
    let mut prefix = String::new();
    let mut owner = String::new();
    let mut shown = String::new();
    let mut place = None;
    for (index, step) in steps.iter().enumerate() {
        let last = index + 1 == steps.len();
        match step {
            Step::Key(key) => {
                let DeValue::Table(table) = value else {
                    return place.map(not_a_table);
                };
                let (name, inner) = table.get_key_value(key.as_str())?;
                place = Some(name.span());
                value = inner.get_ref();
                match key.as_str() {
                    "listener" if index == 0 && !last => prefix.push_str("listener."),
                    "defaults" if index == 0 && !last => {
                        prefix.push_str("listener.");
                        owner.push_str("defaults: ");
                    }
                    key if last => shown.push_str(key),
                    key => {
                        prefix.push_str(key);
                        prefix.push('.');
                        shown.push_str(key);
                        shown.push('.');
                    }
                }
            }
            Step::Index(at) => {
                let item = value.get(*at)?;
                place = Some(item.span());
                value = item.get_ref();
                owner = owner_of(value, *at);
            }
        }
    }
    let Some(Step::Key(key)) = steps.last() else {
        return None;
    };
    Some(Problem {
        span: place?,
        what: format!(
            "{owner}unknown key \"{}\"",
            text::quote(&shown, &(0..shown.len()))
        ),
        remedy: keys::remedy(&prefix, key),
    })
}

/// A listener is called by its name, as far as it has one.
fn owner_of(listener: &DeValue<'_>, index: usize) -> String {
    match listener.get("name").map(|name| name.get_ref().as_str()) {
        Some(Some(name)) => format!("listener \"{}\": ", text::quote(name, &(0..name.len()))),
        Some(None) => format!("listener {}: ", index + 1),
        None => format!("listener \"{}\": ", schema::LISTENER_NAME),
    }
}

/// A date comes from the parser as a table with one private key.
fn not_a_table(span: Range<usize>) -> Problem {
    Problem {
        span,
        what: "a date, not a table".into(),
        remedy: "write the name of the table in brackets, and its keys below".into(),
    }
}

enum Step {
    Key(String),
    Index(usize),
}

fn push_steps(path: &KeyPath<'_>, steps: &mut Vec<Step>) {
    match path {
        KeyPath::Root => {}
        KeyPath::Seq { parent, index } => {
            push_steps(parent, steps);
            steps.push(Step::Index(*index));
        }
        KeyPath::Map { parent, key } => {
            push_steps(parent, steps);
            // A value that knows its place is, to serde, a table with a key of this name.
            if !key.starts_with("$__serde_spanned") {
                steps.push(Step::Key(key.clone()));
            }
        }
        KeyPath::Some { parent }
        | KeyPath::NewtypeStruct { parent }
        | KeyPath::NewtypeVariant { parent } => push_steps(parent, steps),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parsed(text: &str) -> Result<Config, Error> {
        parse(text, Path::new("test.toml"))
    }

    fn listener(text: &str) -> crate::config::Listener {
        parsed(text).unwrap().listeners.remove(0)
    }

    #[test]
    fn defaults_hold_for_each_listener_that_does_not_say_otherwise() {
        let config = parsed(
            "[defaults]\nbacklog = 7\ntcp.nodelay = false\ntcp.keepalive = { count = 9 }\n\
             [[listener]]\nname = 'a'\naddress = '127.0.0.1:1'\n\
             [[listener]]\nname = 'b'\naddress = '127.0.0.1:2'\nbacklog = 8\n\
             tcp.user_timeout = 'off'\ntcp.keepalive.idle = '1s'\n\
             [[listener]]\nname = 'c'\naddress = '127.0.0.1:3'\ntcp.keepalive = 'off'\n",
        )
        .unwrap();
        let [a, b, c] = &config.listeners[..] else {
            panic!("three listeners");
        };
        assert_eq!((a.backlog, b.backlog), (7, 8));
        assert!(!a.tcp.nodelay && !b.tcp.nodelay);
        assert!(a.tcp.user_timeout.is_some() && b.tcp.user_timeout.is_none());
        let keepalive = b.tcp.keepalive.unwrap();
        assert_eq!((keepalive.count, keepalive.idle.as_secs()), (9, 1));
        assert_eq!(c.tcp.keepalive, None);
    }

    #[test]
    fn an_address_may_stand_alone_or_in_a_list() {
        let one = listener("[[listener]]\naddress = '[::1]:0'\n");
        let list = listener("[[listener]]\naddress = ['[::1]:0']\n");
        assert_eq!(one, list);
    }

    #[test]
    fn a_byte_order_mark_and_carriage_returns_do_no_harm() {
        assert!(parsed("\u{feff}workers = 1\r\n[[listener]]\r\n").is_ok());
        let error = parsed("\u{feff}worker = 1\r\n[[listener]]\r\n").unwrap_err();
        assert!(
            error.to_string().starts_with("test.toml:1:1: unknown key"),
            "{error}"
        );
        assert!(
            error.render().contains("1 | worker = 1\n  | ^^^^^^\n"),
            "{}",
            error.render()
        );
    }

    /// Depth is the one thing that could end the process: a stack overflow is no panic.
    #[test]
    fn no_depth_of_nesting_harms() {
        let n = 100_000;
        for text in [
            format!("{}a = 1", "a.".repeat(n)),
            format!("[{}a]", "a.".repeat(n)),
            format!("[[{}a]]", "a .\t".repeat(n)),
            format!("a = {}", "[".repeat(n)),
            format!("a = {}{}", "[".repeat(n), "]".repeat(n)),
            format!("a = {}", "{a=".repeat(n)),
            format!("a = {}", "{a.a.a.a.a.a.a.a.a=[".repeat(n)),
            format!("a = {}1{}", "{a.a.a.a.a.a.a.a=".repeat(70), "}".repeat(70)),
            "[a.a.a.a.a.a.a.a.a.a.a.a.a.a.a]\n".repeat(n / 10),
        ] {
            assert!(parsed(&text).is_err());
        }
    }

    #[test]
    fn a_key_may_have_as_many_dots_as_the_bound_and_no_more() {
        let error = |dots| {
            parsed(&format!("{}a = 1", "a.".repeat(dots)))
                .unwrap_err()
                .to_string()
        };
        let deep = "nested more deeply";
        // Just within the bound of dots it is the depth of the tables that is refused.
        assert!(error(DEPTH_MAX - 1).contains("unknown key"));
        assert!(error(DEPTH_MAX + 1).contains(deep));
        assert!(error(DOTS_MAX + 1).contains(deep));
    }

    #[test]
    fn many_problems_and_long_lists_take_no_long_time() {
        for text in [
            (0..50_000)
                .map(|n| format!("k{n} = 1\n"))
                .collect::<String>(),
            "[[listener]]\n".repeat(50_000),
            format!(
                "[[listener]]\naddress = [{}]",
                "'127.0.0.1:1',".repeat(50_000)
            ),
            format!("{}[[listener]]", "a = [\n".repeat(50_000)),
        ] {
            let error = parsed(&text).unwrap_err();
            assert!(error.render().len() < 100_000);
        }
    }
}
