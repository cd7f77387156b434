//! What is written in several places says the same everywhere.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use echod::config::{self, Config, Origin};

const SHIPPED: &str = include_str!("../config/echod.toml");

/// The alternative spelling that is shown beside the default, and cannot hold together with it.
const ALTERNATIVE: &str = "#keepalive = {";

fn parse(text: &str) -> Config {
    let config = Config::parse(text, Path::new("echod.toml"));
    let config = config.unwrap_or_else(|error| panic!("{}", error.render()));
    Config {
        origin: Origin::BuiltIn,
        ..config
    }
}

/// The shipped file with every commented key in force.
fn uncommented() -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(key) if !key.starts_with(' ') && !line.starts_with(ALTERNATIVE) => key.to_string(),
        _ => line.to_string(),
    };
    SHIPPED.lines().map(|l| line(l) + "\n").collect()
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
        let inner = key.strip_prefix("listener.tcp.keepalive.");
        let there = match inner {
            Some(inner) => SHIPPED
                .lines()
                .any(|line| line.starts_with(ALTERNATIVE) && line.contains(inner)),
            None => found.contains(&key),
        };
        assert!(there, "{key} is not in config/echod.toml");
    }
}

#[test]
fn the_alternative_that_the_shipped_file_shows_is_valid() {
    let line = SHIPPED
        .lines()
        .find(|l| l.starts_with(ALTERNATIVE))
        .unwrap();
    let text = format!("[[listener]]\n[listener.tcp]\n{}\n", &line[1..]);
    let keepalive = parse(&text).listeners[0].tcp.keepalive;
    // What keepalive = {} leaves out is what is shown.
    let bare = parse("[[listener]]\n[listener.tcp]\nkeepalive = {}\n");
    assert_eq!(keepalive, bare.listeners[0].tcp.keepalive);
    assert!(keepalive.is_some());
}

#[test]
fn the_built_in_configuration_differs_from_the_shipped_one_only_where_it_says() {
    let mut config = Config::builtin();
    let shipped = Config::defaults();
    config.log.target = shipped.log.target;
    config.listeners[0].address = shipped.listeners[0].address.clone();
    assert_eq!(config, shipped);
}
