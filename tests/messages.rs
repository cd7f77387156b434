//! Wrong file in, exact message out.
//!
//! `golden/NAME.toml` is what an operator wrote, `golden/NAME.txt` what the daemon answers: the line
//! for the log, then the message at length. `ECHOD_BLESS=1 cargo test --test messages` writes them
//! anew; then read the difference, because these messages are the product.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use echod::config::Config;

fn inputs() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut inputs: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    inputs.sort();
    inputs
}

fn answer(text: &str) -> String {
    match Config::parse(text, Path::new("/etc/echod/echod.toml")) {
        Ok(_) => "valid\n".into(),
        Err(error) => format!("{error}\n\n{}\n", error.render()),
    }
}

#[test]
fn every_broken_file_gets_its_exact_message() {
    let bless = std::env::var_os("ECHOD_BLESS").is_some();
    let mut differences = Vec::new();
    for input in inputs() {
        let answer = answer(&fs::read_to_string(&input).unwrap());
        let golden = input.with_extension("txt");
        if bless {
            fs::write(&golden, &answer).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        if answer != expected {
            let name = input.file_stem().unwrap().to_string_lossy();
            differences.push(format!("--- {name}\n{expected}\n+++ got\n{answer}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn there_are_many_broken_files_and_none_is_valid() {
    let inputs = inputs();
    assert!(inputs.len() >= 25);
    for input in inputs {
        let text = fs::read_to_string(&input).unwrap();
        assert_ne!(answer(&text), "valid\n", "{}", input.display());
    }
}

#[test]
fn nothing_that_a_terminal_obeys_is_in_any_message() {
    let bad = "\u{1b}[31m\u{9b}2J\u{202e}\u{7}\u{200b}";
    // Inside a TOML string or key most of these must be escapes; in the message they are values.
    let written = "\\u001b[31m\\u009b2J\\u202e\\u0007\\u200b";
    for text in [
        format!("\"{written}\" = 1\n[[listener]]\n"),
        format!("user = \"{written}\"\n[[listener]]\n"),
        format!("[[listener]]\nname = \"{written}\"\n\"{written}\" = 1\n"),
        format!("[[listener]]\naddress = \"{written}:7\"\n"),
        format!("[\"{written}\"]\n"),
        format!("[log]\nlevel = \"{written}\"\n"),
        format!("[log.\"{written}\".x]\ny.\"{written}\" = 1\n"),
        format!("user = {bad}\n"),
        format!("{bad} = 1\n"),
        format!("user = \"{bad}\"\n"),
        format!("# {bad}\nuser = 3 # {bad}\n"),
        "workers = 0 #\t\u{202e}\u{85}\u{2028}\r\n".into(),
    ] {
        let answer = answer(&text);
        assert_ne!(answer, "valid\n");
        let obeyed = |c: char| {
            (c.is_control() && c != '\n')
                || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        };
        assert!(!answer.contains(obeyed), "{answer:?}");
    }
}
