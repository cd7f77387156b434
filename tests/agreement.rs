//! What is written in several places says the same everywhere.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use echod::config::{self, Config, Origin};

const SHIPPED: &str = include_str!("../config/echod.toml");

/// The alternative spellings that are shown beside the default, and cannot hold together with it: the
/// key's table, the table's name in the file, and how its line begins.
const ALTERNATIVES: [(&str, &str, &str); 2] = [
    (
        "listener.tcp.keepalive.",
        "[listener.tcp]",
        "#keepalive = {",
    ),
    (
        "listener.rate.connections.",
        "[listener.rate]",
        "#connections = {",
    ),
];

fn is_alternative(line: &str) -> bool {
    ALTERNATIVES
        .iter()
        .any(|(_, _, begin)| line.starts_with(begin))
}

fn parse(text: &str) -> Config {
    let config = Config::parse(text, Path::new("echod.toml"));
    let config = config.unwrap_or_else(|error| panic!("{}", error.render()));
    Config {
        origin: Origin::BuiltIn,
        ..config
    }
}

/// The tables that are shown as a whole instead of a word: each with its heading, which is a comment as well.
fn is_table_line(text: &str, at: usize) -> bool {
    let lines: Vec<_> = text.lines().collect();
    let heading = lines[..=at].iter().rposition(|line| line.starts_with("#["));
    heading.is_some_and(|heading| !lines[heading..=at].iter().any(|line| line.is_empty()))
}

/// The shipped file with every commented key in force.
fn uncommented() -> String {
    let line = |(at, line): (usize, &str)| match line.strip_prefix('#') {
        Some(key)
            if !key.starts_with(' ') && !is_alternative(line) && !is_table_line(SHIPPED, at) =>
        {
            key.to_string()
        }
        _ => line.to_string(),
    };
    SHIPPED
        .lines()
        .enumerate()
        .map(|l| line(l) + "\n")
        .collect()
}

/// The lines of the table that is shown instead of `tls = "off"`, in force.
fn tls_table() -> Vec<String> {
    let lines = SHIPPED.lines().enumerate();
    let lines = lines.filter(|(at, _)| is_table_line(SHIPPED, *at));
    let lines: Vec<_> = lines.map(|(_, line)| line[1..].to_string()).collect();
    assert!(lines[0].starts_with("[listener.tls]"));
    lines
}

#[test]
fn the_shipped_file_is_the_defaults() {
    assert_eq!(parse(SHIPPED), Config::defaults());
}

#[test]
fn the_commented_keys_of_the_shipped_file_are_at_their_defaults() {
    assert_eq!(parse(&uncommented()), Config::defaults());
}

#[test]
fn every_key_is_in_the_shipped_file() {
    let text = uncommented();
    let mut table = String::new();
    let mut found = Vec::new();
    for line in text.lines() {
        if line.starts_with('[') {
            table = line
                .split(']')
                .next()
                .map(|head| head.trim_start_matches('[').to_string() + ".")
                .unwrap();
        } else if let Some((key, _)) = line.split_once(" = ") {
            found.push(format!("{table}{key}").trim_start_matches('.').to_string());
        }
    }
    for key in config::keys() {
        let inline = |line: &str, begin: &str, inner: &str| {
            line.starts_with(begin) && line.contains(&format!("{inner} = "))
        };
        let alternative = ALTERNATIVES.iter().find_map(|(table, _, begin)| {
            let inner = key.strip_prefix(table)?;
            Some(SHIPPED.lines().any(|line| inline(line, begin, inner)))
        });
        let prefix = key.strip_prefix("listener.source_prefix.").map(|inner| {
            SHIPPED
                .lines()
                .any(|line| inline(line, "#source_prefix = {", inner))
        });
        let tls = key.strip_prefix("listener.tls.").map(|inner| {
            let name = inner.rsplit('.').next().unwrap_or(inner);
            let is_it = |line: &String| line.contains(&format!("{name} = "));
            tls_table().iter().any(is_it)
        });
        let there = alternative
            .or(prefix)
            .or(tls)
            .unwrap_or(found.contains(&key));
        assert!(there, "{key} is not in config/echod.toml");
    }
}

#[test]
fn the_alternatives_that_the_shipped_file_shows_are_valid_and_their_own_defaults() {
    for (_, heading, begin) in ALTERNATIVES {
        let line = SHIPPED
            .lines()
            .find(|line| line.starts_with(begin))
            .unwrap();
        let (key, _) = line[1..].split_once(" = ").unwrap();
        let listener = |line: &str| {
            let mut config = parse(&format!("[[listener]]\n{heading}\n{line}\n"));
            config.listeners.remove(0)
        };
        // What an empty table leaves out is what is shown.
        assert_eq!(listener(&line[1..]), listener(&format!("{key} = {{}}")));
        assert_ne!(listener(&line[1..]), Config::defaults().listeners[0]);
    }
}

#[test]
fn the_table_of_tls_that_the_shipped_file_shows_is_valid_and_its_own_defaults() {
    let lines = tls_table();
    // What is asked of peers is for those who name a CA.
    let ca = "client_ca = \"/ca.pem\"".to_string();
    let whole = lines
        .iter()
        .map(|line| match line.starts_with("client_ca = ") {
            true => ca.clone() + "\n",
            false => line.clone() + "\n",
        });
    let least: Vec<_> = lines[..2].iter().cloned().chain([ca.clone()]).collect();
    let parse = |text: String| {
        parse(&format!("[[listener]]\n{text}\n"))
            .listeners
            .remove(0)
    };
    let whole = parse(whole.collect());
    assert_eq!(whole, parse(least.join("\n")));
    assert_eq!(parse(lines[..2].join("\n")).tls.unwrap().client_ca, None);
    assert_ne!(whole, Config::defaults().listeners[0]);
}

#[test]
fn the_built_in_configuration_differs_from_the_shipped_one_only_where_it_says() {
    let mut config = Config::builtin();
    let shipped = Config::defaults();
    config.log.target = shipped.log.target;
    config.listeners[0].address = shipped.listeners[0].address.clone();
    assert_eq!(config, shipped);
}
