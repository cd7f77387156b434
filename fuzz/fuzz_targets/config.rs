//! The text of a configuration, whatever it says.
//!
//! Reading it never panics. What is taken means the same when it is printed and read again; what is
//! refused is refused in words that a terminal and a log can show: what the file says never reaches
//! them as a control character.
//!
//! The bytes are the text; mutated text is mostly refused, and rarely gets as far as the meaning. So bytes that
//! begin with a NUL are pairs instead, of a key that there is and a value that might fit.

#![no_main]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use std::sync::OnceLock;

use echod::config::{Config, Error, keys, print};
use libfuzzer_sys::fuzz_target;

/// Stands for the file; with a character of its own that has to be escaped.
const NAME: &str = "fuzz\u{1b}.toml";

/// What somebody may write behind a key: the words, and of each kind the least, the usual and too much.
#[rustfmt::skip]
const VALUES: &[&str] = &[
    "\"off\"", "\"auto\"", "true", "false", "0", "1", "7", "65535", "65536", "4294967296", "-1", "1.5",
    "\"0s\"", "\"1ms\"", "\"7s\"", "\"1m 30s\"", "\"1d\"", "\"100y\"", "\"1us\"",
    "\"0B\"", "\"1B\"", "\"4KiB\"", "\"64MiB\"", "\"1GiB\"", "\"1.5MiB\"", "\"16EiB\"",
    "\"0/s\"", "\"20/s\"", "\"7/min\"", "{ per_second = 1 }",
    "\"syslog\"", "\"journal\"", "\"stderr\"", "\"error\"", "\"warning\"", "\"info\"", "\"debug\"",
    "\"both\"", "\"ended\"", "\"failed\"", "\"none\"", "\"full\"", "\"prefix\"", "\"echo\"",
    "\"daemon\"", "\"local7\"", "\"a\"", "\"b\"", "\"A b\"", "\"\\u001b[2J\"", "\"\"",
    "[]", "{}", "[\"127.0.0.1:7\"]", "[\"[::1]:7\", \"0.0.0.0:8\"]", "[\"[::ffff:1.2.3.4]:7\"]", "[\"[fe80::1%2]:7\"]",
    "{ idle = \"60s\", interval = \"10s\", count = 6 }", "{ idle = \"1s\" }",
    "{ certificates = [{ certificate = \"/c\", key = \"/k\" }] }", "[{ certificate = \"/c\", key = \"/k\" }]",
    "\"/ca.pem\"", "\"required\"", "\"optional\"", "\"1.2\"", "\"1.3\"", "\"warn\"", "\"refuse\"",
    "[\"TLS_AES_256_GCM_SHA384\"]", "[\"X25519\"]", "[\"a@b.example\", \"::1\"]",
];

fuzz_target!(|bytes: &[u8]| {
    if let [0, pairs @ ..] = bytes {
        return judge(&written(pairs));
    }
    // A file that is no UTF-8 is refused before it is parsed.
    if let Ok(text) = std::str::from_utf8(bytes) {
        judge(text);
    }
});

/// A key, and the values that it takes when it is the only one: found out by trying, once.
struct Key {
    name: String,
    fitting: Vec<&'static str>,
}

impl Key {
    fn new(name: String) -> Key {
        let fits = |value: &&&str| {
            let text = match name.strip_prefix("listener.") {
                Some(key) => format!("[[listener]]\n{key} = {value}\n"),
                None => format!("{name} = {value}\n[[listener]]\n"),
            };
            Config::parse(&text, Path::new(NAME)).is_ok()
        };
        let fitting = VALUES.iter().filter(fits).copied().collect();
        Key { name, fitting }
    }

    /// One of the values; now and then one that need not fit.
    fn value(&self, byte: u8) -> &'static str {
        let values = if byte < 240 && !self.fitting.is_empty() {
            &self.fitting[..]
        } else {
            VALUES
        };
        values[byte as usize % values.len()]
    }
}

/// A file of keys and values: first the top, then one listener after another.
fn written(pairs: &[u8]) -> String {
    static KEYS: OnceLock<Vec<Key>> = OnceLock::new();
    let keys = KEYS.get_or_init(|| keys().into_iter().map(Key::new).collect());
    let (mut top, mut listeners, mut said) =
        (String::new(), "[[listener]]\n".to_owned(), BTreeSet::new());
    for pair in pairs.chunks_exact(2) {
        let key = &keys[pair[0] as usize % keys.len()];
        if pair[0] >= 224 {
            let _ = writeln!(listeners, "[[listener]]\nname = \"another-{}\"", pair[1]);
            said.retain(|name: &&str| !name.starts_with("listener."));
            said.insert("listener.name");
        } else if said.insert(&key.name) {
            // A string takes whatever is written to it.
            let value = key.value(pair[1]);
            let _ = match key.name.strip_prefix("listener.") {
                Some(name) => writeln!(listeners, "{name} = {value}"),
                None => writeln!(top, "{} = {value}", key.name),
            };
        }
    }
    top + &listeners
}

fn judge(text: &str) {
    match Config::parse(text, Path::new(NAME)) {
        Ok(config) => is_the_same_when_printed(&config),
        Err(error) => is_fit_to_show(&error),
    }
}

fn is_the_same_when_printed(config: &Config) {
    let printed = print(config);
    match Config::parse(&printed, Path::new(NAME)) {
        Ok(again) => assert_eq!(*config, again, "printed as:\n{printed}"),
        Err(error) => panic!("what was printed is refused: {error}\n{printed}"),
    }
}

fn is_fit_to_show(error: &Error) {
    let line = error.to_string();
    assert!(
        !line.chars().any(char::is_control),
        "for the log, one line: {line:?}"
    );
    let long = error.render();
    assert!(
        !long.chars().any(|c| c.is_control() && c != '\n'),
        "for a terminal: {long:?}"
    );
    assert!(!line.is_empty() && !long.is_empty(), "a refusal says why");
}
