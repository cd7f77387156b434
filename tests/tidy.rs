//! The rules of the house that no compiler keeps: how files begin, what pure rooms import, where unsafe
//! is, how long a file is.
//!
//! Each rule is a function from a file's text to what is wrong with it, and is shown something
//! that breaks it, so that a rule which finds nothing any more is found itself.

use std::fs;
use std::path::{Path, PathBuf};

/// Files without a kernel, a clock or a log: given the time, they return values.
const PURE: &[&str] = &[
    "src/connection",
    "src/service",
    "src/proxy",
    "src/compression",
    "src/tls/session.rs",
    "src/tls/certificate.rs",
    "src/tls/choice.rs",
    "src/tls/validity.rs",
    "src/tls/verify.rs",
    "src/tls/words.rs",
    "src/config/compression.rs",
    "src/config/tls.rs",
    "src/config/tls",
    "src/config/validate.rs",
    "src/config/change.rs",
    "src/config/effect.rs",
    "src/supervisor/phase.rs",
    "src/supervisor/status.rs",
    "src/worker/deadlines.rs",
    "src/worker/admission.rs",
    "src/worker/refusal.rs",
    "src/logging/limiter.rs",
    "src/logging/summary.rs",
    "src/logging/format.rs",
];

/// What does something to the world, or asks it.
const IMPURE: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "jiff::Timestamp::now",
    "Timestamp::now",
    "libc",
    "nix",
    "socket2",
    "crate::sys",
    "crate::tick::Tick::now",
    "Tick::now",
];

/// Parts of the above that do nothing.
const HARMLESS: &[&str] = &[
    "nix::errno",
    "nix::libc::c_int",
    "std::io::ErrorKind",
    "std::io::Read",
    "std::io::Result",
    "std::io::Write",
];

/// `std::net` is impure but for its addresses.
const ADDRESSES: &[&str] = &[
    "AddrParseError",
    "IpAddr",
    "Ipv4Addr",
    "Ipv6Addr",
    "SocketAddr",
    "SocketAddrV4",
    "SocketAddrV6",
];

/// A file that is longer has a second noun in it.
const LINES_MAX: usize = 500;

struct Source {
    path: String,
    text: String,
}

/// Every file of ours that ends in `.rs`, in these directories.
fn sources(directories: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut waiting: Vec<PathBuf> = directories.iter().map(|name| root.join(name)).collect();
    let mut sources = Vec::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a directory");
            waiting.extend(entries.map(|entry| entry.expect("an entry").path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).expect("below the root");
            sources.push(Source {
                path: name.to_str().expect("a plain name").to_owned(),
                text: fs::read_to_string(&path).expect("text"),
            });
        }
    }
    sources.sort_by(|one, other| one.path.cmp(&other.path));
    sources
}

/// Asserts that `rule` finds nothing wrong with any of these.
fn assert_kept(sources: &[Source], rule: impl Fn(&str) -> Vec<String>) {
    assert!(!sources.is_empty(), "no file was looked at");
    let broken: Vec<String> = sources
        .iter()
        .flat_map(|source| {
            let found = rule(&source.text).into_iter();
            found.map(|what| format!("{}: {what}", source.path))
        })
        .collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// The text without its comments; a line keeps its number.
fn code(text: &str) -> String {
    let lines = text.lines().map(|line| {
        // "://" is in addresses, and those are in strings.
        let comment = line
            .match_indices("//")
            .find(|(at, _)| !line[..*at].ends_with(':'));
        comment.map_or(line, |(at, _)| &line[..at])
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The code that is in the product: what stands before the tests at the foot.
fn product(text: &str) -> String {
    let code = code(text);
    match code.split_once("#[cfg(test)]\nmod tests") {
        Some((product, _)) => product.to_owned(),
        None => code,
    }
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Does `word` stand in `text`, and not as a part of another?
fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].bytes().next_back();
        let after = text[at + word.len()..].bytes().next();
        !before.is_some_and(is_word_byte) && !after.is_some_and(is_word_byte)
    })
}

/// The lines of the code in which one of the words stands.
fn lines_with(text: &str, words: &[String]) -> Vec<String> {
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| words.iter().any(|word| has_word(line, word)))
        .map(|(index, line)| format!("line {}: {}", index + 1, line.trim()))
        .collect()
}

fn without_a_beginning(text: &str) -> Vec<String> {
    let first = text.lines().next().unwrap_or_default();
    let says = first.strip_prefix("//! ").is_some_and(|words| {
        let word = words.trim();
        word.len() > 10
    });
    if says {
        Vec::new()
    } else {
        vec!["does not begin with a line of //! that says what it is for".into()]
    }
}

fn with_unsafe(text: &str) -> Vec<String> {
    lines_with(&code(text), &["unsafe".into()])
}

fn with_something_left_to_do(text: &str) -> Vec<String> {
    // In two parts, so that this line is none of them.
    let mut found = lines_with(text, &[["TO", "DO"].concat(), ["FIX", "ME"].concat()]);
    for call in [["to", "do!"].concat(), ["db", "g!"].concat()] {
        let lines = code(text);
        let lines = lines.lines().enumerate();
        found.extend(
            lines
                .filter(|(_, line)| line.contains(&call))
                .map(|(index, line)| format!("line {}: {}", index + 1, line.trim())),
        );
    }
    found
}

fn with_too_many_lines(text: &str) -> Vec<String> {
    let lines = text.lines().count();
    let too_many = lines > LINES_MAX;
    Vec::from_iter(too_many.then(|| format!("{lines} lines, more than {LINES_MAX}")))
}

/// What a `use` names, each by its whole path: `a::{b, c::{self, d}}` is a::b, a::c, a::c::d.
fn expand(prefix: &str, tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let tree = tree.split(" as ").next().unwrap_or(tree).trim_end();
    if let Some((head, rest)) = tree.split_once('{')
        && !head.contains(',')
    {
        let prefix = format!("{prefix}{head}");
        let inside = rest.strip_suffix('}').unwrap_or(rest);
        return branches(inside)
            .iter()
            .flat_map(|branch| expand(&prefix, branch))
            .collect();
    }
    let path = format!("{prefix}{tree}");
    let path = path.strip_suffix("::self").unwrap_or(&path);
    vec![path.trim_start_matches("::").to_owned()]
}

/// Splits at the commas that are in no braces.
fn branches(tree: &str) -> Vec<&str> {
    let mut depth = 0;
    let parts = tree.split(|letter: char| {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        letter == ',' && depth == 0
    });
    parts.filter(|part| !part.trim().is_empty()).collect()
}

/// What is imported, and every path that begins in a crate and stands in the code itself.
fn names(product: &str) -> Vec<String> {
    let joined = product.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut names = Vec::new();
    let mut code = String::new();
    for statement in joined.split(';') {
        let import = statement
            .match_indices("use ")
            .filter(|(at, _)| *at == 0 || statement[..*at].ends_with(' '))
            .map(|(at, _)| &statement[at + "use ".len()..])
            .last();
        match import {
            Some(tree) if !tree.contains('=') && !tree.contains('(') => {
                names.extend(expand("", tree));
            }
            _ => code.push_str(statement),
        }
    }
    let paths = code.split(|letter: char| !(is_word_byte(letter as u8) || letter == ':'));
    names.extend(paths.filter(|path| path.contains("::")).map(str::to_owned));
    names
}

fn is_below(path: &str, room: &str) -> bool {
    path.strip_prefix(room)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn with_something_impure(text: &str) -> Vec<String> {
    let product = product(text);
    let mut found: Vec<String> = names(&product)
        .into_iter()
        .filter(|path| {
            let address = path.strip_prefix("std::net::").map(|rest| {
                let name = rest.split("::").next().unwrap_or(rest);
                ADDRESSES.contains(&name)
            });
            let impure = IMPURE.iter().any(|room| is_below(path, room));
            let harmless = HARMLESS.iter().any(|room| is_below(path, room));
            impure && !harmless || is_below(path, "std::net") && address != Some(true)
        })
        .collect();
    for print in ["println!", "eprintln!", "print!", "eprint!"] {
        if product.contains(print) {
            found.push(print.to_owned());
        }
    }
    found
}

#[test]
fn every_file_begins_by_saying_what_it_is_for() {
    assert_kept(&sources(&["src", "tests"]), without_a_beginning);
}

#[test]
fn pure_rooms_touch_neither_the_kernel_nor_a_clock() {
    for room in PURE {
        assert_kept(&sources(&[room]), with_something_impure);
    }
}

#[test]
fn unsafe_stays_in_sys_and_in_the_ring() {
    let is_allowed =
        |path: &str| path.starts_with("src/sys/") || path == "src/driver/uring/ring.rs";
    let (inside, outside): (Vec<_>, Vec<_>) = sources(&["src"])
        .into_iter()
        .partition(|source| is_allowed(&source.path));
    assert_kept(&outside, with_unsafe);
    assert!(
        inside
            .iter()
            .any(|source| !with_unsafe(&source.text).is_empty()),
        "the rule does not see what is there"
    );
}

#[test]
fn a_test_that_is_unsafe_says_so() {
    let tests = sources(&["tests"]);
    let allowed =
        |text: &str| ["allow(unsafe_code", "expect(unsafe_code"].map(|word| text.contains(word));
    let silent = |text: &str| match allowed(text).contains(&true) {
        true => Vec::new(),
        false => with_unsafe(text),
    };
    let others: Vec<_> = tests
        .into_iter()
        .filter(|source| source.path != "tests/tidy.rs")
        .collect();
    assert_kept(&others, silent);
}

#[test]
fn nothing_is_left_to_do() {
    assert_kept(&sources(&["src", "tests"]), with_something_left_to_do);
}

#[test]
fn no_file_of_the_daemon_is_longer_than_its_bound() {
    assert_kept(&sources(&["src"]), with_too_many_lines);
}

#[test]
fn each_rule_finds_what_breaks_it() {
    assert!(without_a_beginning("//! Decides something.\n").is_empty());
    assert_eq!(without_a_beginning("use std::fmt;\n").len(), 1);
    assert_eq!(without_a_beginning("//!\nuse std::fmt;\n").len(), 1);

    assert!(with_unsafe("fn a() {} // unsafe\n#![deny(unsafe_code)]").is_empty());
    assert_eq!(with_unsafe("let a = unsafe { b() };").len(), 1);

    let left = ["// TO", "DO: later\nto", "do!()\nmod todo {}"].concat();
    assert_eq!(with_something_left_to_do(&left).len(), 2);
    assert!(with_something_left_to_do("self.todo |= todo::ASK;").is_empty());

    assert!(with_too_many_lines(&"\n".repeat(LINES_MAX)).is_empty());
    assert_eq!(with_too_many_lines(&"\n".repeat(LINES_MAX + 1)).len(), 1);
}

#[test]
fn what_is_impure_is_found_wherever_it_is_named() {
    for pure in [
        "use std::net::{IpAddr, SocketAddr};\nuse nix::errno::Errno;\n",
        "use std::time::Duration;\nuse crate::tick::Tick;\nfn a() -> Tick { Tick(1) }\n",
        "fn a() {}\n#[cfg(test)]\nmod tests {\n    use std::thread;\n}\n",
        "// std::fs::read would be wrong here\n",
        "match errno { Errno::EPIPE => {} }\n",
    ] {
        assert_eq!(with_something_impure(pure), Vec::<String>::new(), "{pure}");
    }
    for impure in [
        "use std::fs;\n",
        "use std::{fmt, io::{self, Read}};\n",
        "use std::net::{IpAddr,\n    TcpStream};\n",
        "use std::net;\n",
        "use std::time::{Duration, Instant};\n",
        "pub(super) use std::thread as t;\n",
        "use nix::{errno::Errno, poll};\n",
        "fn a() { let b = std::fs::read(\"c\"); }\n",
        "fn a() -> Tick { Tick::now() }\n",
        "fn a() -> Timestamp { Timestamp::now() }\n",
        "fn a(now: std::time::Instant) {}\n",
        "fn a() { println!(\"b\"); }\n",
    ] {
        assert!(!with_something_impure(impure).is_empty(), "{impure}");
    }
}
