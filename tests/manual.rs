//! What the package says about the daemon is what the daemon is: manual, catalogue, completions, units.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::time::Duration;

use echod::cli::EXIT_USAGE;
use echod::config::{self, Config};
use echod::connection::Reason;
use echod::logging::kind;
use echod::supervisor::{EXIT_CONFIG, EXIT_FAILURE};

const FILE: &str = include_str!("../config/echod.toml");
const README: &str = include_str!("../README.md");
const ECHOD: &str = include_str!("../packaging/man/echod.8");
const ECHOD_TOML: &str = include_str!("../packaging/man/echod.toml.5");
const CATALOGUE: &str = include_str!("../packaging/catalog/echod.catalog");
const SERVICE: &str = include_str!("../systemd/echod.service");
const SOCKET: &str = include_str!("../systemd/echod.socket");
const PROFILE: &str = include_str!("../packaging/ufw/echod");
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", include_str!("../packaging/completions/echod.bash")),
    ("zsh", include_str!("../packaging/completions/_echod")),
    ("fish", include_str!("../packaging/completions/echod.fish")),
];

/// Each key of the shipped file, whole, with its default as it is written there.
fn defaults() -> Vec<(String, String)> {
    let mut table = String::new();
    let mut found = Vec::new();
    for line in FILE.lines() {
        // A table that is shown instead of a word is a comment with its heading.
        if let Some(heading) = line.trim_start_matches('#').strip_prefix('[') {
            let name = heading.trim_start_matches('[').split(']').next().unwrap();
            table = format!("{name}.");
        } else if let Some((key, rest)) = line.trim_start_matches('#').split_once(" = ") {
            let value = rest.split('#').next().unwrap().trim();
            match value.trim_start_matches('[').strip_prefix('{') {
                // What is shown beside the default is a table, of keys with defaults of their own.
                Some(inner) => {
                    for part in inner.trim_end_matches(['}', ']']).split(',') {
                        let (name, value) = part.trim().split_once(" = ").unwrap();
                        found.push((format!("{table}{key}.{name}"), value.to_string()));
                    }
                    let whole = format!("{table}{key}");
                    // Or a table is the default.
                    if found.iter().all(|(name, _)| *name != whole) {
                        found.push((whole, value.to_string()));
                    }
                }
                None => found.push((format!("{table}{key}"), value.to_string())),
            }
        }
    }
    found
}

/// Each key of the manual, whole, with its default.
fn documented() -> Vec<(String, String)> {
    let mut table = String::new();
    let mut found = Vec::new();
    for line in ECHOD_TOML.lines() {
        if let Some(heading) = line.strip_prefix(".Ss ") {
            let name = heading
                .trim_start_matches("Table ")
                .trim_matches(['[', ']']);
            table = match name {
                "Above the first table" => String::new(),
                name => format!("{name}."),
            };
        } else if let Some(entry) = line.strip_prefix(".It Ic ") {
            let entry = entry.replace("\\(dq", "\"");
            let (key, value) = entry.split_once(" = ").unwrap();
            found.push((format!("{table}{key}"), value.to_string()));
        }
    }
    found
}

#[test]
fn every_key_is_in_the_manual_with_its_default() {
    let (defaults, documented) = (defaults(), documented());
    let value_in = |list: &[(String, String)], key: &str| {
        let entry = list.iter().find(|(name, _)| name == key);
        entry.map(|(_, value)| value.clone())
    };
    for key in config::keys() {
        let default = value_in(&defaults, &key);
        let said = value_in(&documented, &key);
        assert!(said.is_some(), "{key} is not in echod.toml.5");
        assert_eq!(said, default, "{key}");
    }
    let keys: HashSet<_> = config::keys().into_iter().collect();
    for (key, _) in documented {
        assert!(
            keys.contains(&key),
            "echod.toml.5 has {key}, which is no key"
        );
    }
}

/// What a tutorial says that a TCP server should let its owner change.
const CHANGEABLE: [&str; 22] = [
    "number of threads",
    "threads",
    "IP address",
    "port number",
    "number of connections, pending",
    "number of connections, at once",
    "number of connections, per thread",
    "connection requests",
    "size of each connection",
    "timeout value",
    "buffer size",
    "flags",
    "mode",
    "options",
    "security settings",
    "encryption method",
    "compression method",
    "error handling scenarios",
    "logging scenarios",
    "performance optimisation",
    "other parameters",
    "other features",
];

/// Those for which there is no key.
const NOT_YET: [&str; 0] = [];

/// The manual's list of what can be changed: each phrase with its keys, and its text.
fn changeable() -> Vec<(&'static str, Vec<&'static str>, &'static str)> {
    let (_, list) = ECHOD_TOML.split_once(".Sh WHAT CAN BE CHANGED\n").unwrap();
    let (list, _) = list.split_once("\n.El\n").unwrap();
    let items = list.split("\n.It ").skip(1);
    items
        .map(|item| {
            let (phrase, text) = item.split_once('\n').unwrap();
            let keys = text.lines().filter_map(|line| line.strip_prefix(".Ic "));
            let keys = keys.map(|key| key.trim_end_matches([' ', ',', ';']));
            (phrase, keys.collect(), text)
        })
        .collect()
}

#[test]
fn whatever_a_server_should_let_its_owner_change_has_its_keys_in_the_manual() {
    let list = changeable();
    let phrases: Vec<_> = list.iter().map(|(phrase, ..)| *phrase).collect();
    assert_eq!(phrases, CHANGEABLE);
    let known = config::keys();
    for (phrase, keys, text) in &list {
        for key in keys {
            assert!(known.iter().any(|known| known == key), "{phrase}: {key}");
        }
        let is_missing = NOT_YET.contains(phrase);
        assert_eq!(keys.is_empty(), is_missing, "{phrase}");
        assert_eq!(text.contains("not in this version"), is_missing, "{phrase}");
    }
    // No table is left out; one that is written in a line is a key.
    let table = |key: &str| {
        key.rsplit_once('.')
            .map_or("", |(table, _)| table)
            .to_owned()
    };
    let named: HashSet<_> = list
        .iter()
        .flat_map(|(_, keys, _)| keys)
        .map(|key| table(key))
        .collect();
    let tables: HashSet<_> = known.iter().map(|key| table(key)).collect();
    let tables: HashSet<_> = tables
        .into_iter()
        .filter(|table| !known.contains(table))
        .collect();
    assert_eq!(named, tables);
}

#[test]
fn the_examples_of_the_manual_are_valid() {
    let (_, rest) = ECHOD_TOML
        .split_once(".Bd -literal -offset indent\n")
        .unwrap();
    let (example, _) = rest.split_once(".Ed").unwrap();
    let config = Config::parse(example, std::path::Path::new("example.toml"));
    config.unwrap_or_else(|error| panic!("{}", error.render()));
}

#[test]
fn the_files_that_the_readme_shows_are_valid() {
    let blocks: Vec<_> = README.split("```toml\n").skip(1).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        let (file, _) = block.split_once("```").unwrap();
        let config = Config::parse(file, std::path::Path::new("README.toml"));
        config.unwrap_or_else(|error| panic!("{}", error.render()));
    }
}

#[test]
fn every_reason_and_every_exit_status_is_in_the_manual() {
    for reason in Reason::ALL {
        assert!(ECHOD.contains(&format!(".It Sy {reason}\n")), "{reason}");
    }
    let (_, statuses) = ECHOD.split_once(".Sh EXIT STATUS").unwrap();
    let (statuses, _) = statuses.split_once(".Sh").unwrap();
    for status in [0, EXIT_USAGE, EXIT_CONFIG, EXIT_FAILURE] {
        assert!(statuses.contains(&format!(".It {status}\n")), "{status}");
    }
}

#[test]
fn every_flag_and_every_verb_is_in_the_manual_and_in_the_completions() {
    let help = |line: &str| echod::cli::parse(line.split(' ')).unwrap_err().text;
    let texts = [help("echod --help"), help("echod check --help")];
    let words = texts.iter().flat_map(|text| text.split_whitespace());
    let mut flags: Vec<_> = words.filter_map(|word| word.strip_prefix("--")).collect();
    flags.retain(|flag| flag.bytes().all(|b| b.is_ascii_lowercase()) && !flag.is_empty());
    flags.sort_unstable();
    flags.dedup();
    assert!(
        flags.contains(&"listen") && flags.contains(&"print"),
        "{flags:?}"
    );
    let (_, verbs) = texts[0].split_once("Commands:\n").unwrap();
    let verbs = verbs.lines().take_while(|line| line.starts_with("  "));
    let verbs: Vec<_> = verbs.filter_map(|l| l.split_whitespace().next()).collect();
    assert!(verbs.contains(&"check"), "{verbs:?}");
    for flag in flags {
        assert!(ECHOD.contains(&format!("Fl Fl {flag}")), "--{flag}: manual");
        for (shell, text) in COMPLETIONS {
            let written = match shell {
                "fish" => format!("-l {flag} "),
                _ => format!("--{flag}"),
            };
            assert!(text.contains(&written), "--{flag}: {shell}");
        }
    }
    for verb in verbs {
        assert!(ECHOD.contains(&format!(".It Cm {verb}")), "{verb}: manual");
        for (shell, text) in COMPLETIONS {
            assert!(text.contains(verb), "{verb}: {shell}");
        }
    }
}

#[test]
fn every_kind_of_event_is_in_the_catalogue_under_its_id() {
    let entries: Vec<_> = CATALOGUE.split("\n-- ").skip(1).collect();
    assert_eq!(entries.len(), kind::ALL.len());
    for kind in kind::ALL {
        let id = format!("{:032x}", kind.message_id);
        let entry = entries.iter().find(|entry| entry.starts_with(&id));
        let entry = entry.unwrap_or_else(|| panic!("{}: {id} is missing", kind.name));
        assert!(CATALOGUE.contains(&format!("# {}\n-- {id}\n", kind.name)));
        let (head, text) = entry.split_once("\n\n").unwrap();
        assert!(head.contains("\nSubject: ") && head.contains("\nDefined-By: echod"));
        // What it means, and what to do.
        let paragraphs = text.trim().split("\n\n").count();
        assert!(paragraphs >= 2, "{}", kind.name);
    }
}

/// The value of a directive that occurs once.
fn directive<'a>(unit: &'a str, name: &str) -> &'a str {
    let mut values = unit
        .lines()
        .filter_map(|l| l.strip_prefix(name)?.strip_prefix('='));
    let value = values.next().unwrap_or_else(|| panic!("no {name}="));
    assert!(values.next().is_none(), "{name}= twice");
    value
}

#[test]
fn the_units_fit_the_defaults() {
    let config = Config::defaults();
    let seconds = |text: &str| Duration::from_secs(text.trim_end_matches('s').parse().unwrap());
    assert!(
        seconds(directive(SERVICE, "TimeoutStopSec"))
            >= config.drain_timeout + Duration::from_secs(8)
    );
    let listener = &config.listeners[0];
    assert_eq!(directive(SOCKET, "FileDescriptorName"), listener.name);
    let port = listener.address[0].port().to_string();
    assert_eq!(directive(SOCKET, "ListenStream"), port);
    assert_eq!(directive(SOCKET, "Backlog"), listener.backlog.to_string());
    assert_eq!(directive(PROFILE, "ports"), format!("{port}/tcp"));
    assert_eq!(directive(SERVICE, "User"), config.user);
    assert_eq!(directive(SERVICE, "Group"), config.group);
}

#[test]
fn a_file_that_stays_broken_fails_neither_unit() {
    assert_eq!(directive(SERVICE, "StartLimitIntervalSec"), "0");
    assert_eq!(directive(SERVICE, "RestartSec"), "2s");
    assert_eq!(directive(SOCKET, "TriggerLimitIntervalSec"), "0");
    assert!(
        !SERVICE.contains("\nRequires="),
        "a masked socket would stop the service"
    );
    assert!(!SERVICE.contains("SuccessExitStatus"));
}

#[test]
fn the_package_has_the_version_of_the_daemon() {
    let changelog = include_str!("../packaging/debian/changelog");
    let version = concat!("echod (", env!("CARGO_PKG_VERSION"), ")");
    assert!(changelog.starts_with(version), "{version}");
}
