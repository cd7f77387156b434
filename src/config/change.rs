//! Old and new configuration: what has changed, and what becomes of it while the daemon serves.
//!
//! A reload takes a configuration whole or not at all, so one key that cannot change while serving
//! refuses it, and every such key is named. What is compared is what [`print`](super::print) writes, so
//! no key is forgotten; what becomes of each is `effect`'s. Pure.

use std::fmt;

use super::effect::{Effect, effect, effect_at};
use super::print::{Entry, entries, listener_entries};
use super::{Config, Listener, escape};

/// Most characters of a value that are shown.
const VALUE_MAX: usize = 80;

/// Of a longer one, how many are shown in front of the first that differs.
const VALUE_BEFORE: usize = 20;

/// A difference between two configurations, or in the files that they name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The listener that it is about; `None`: the daemon.
    pub listener: Option<String>,
    /// What has changed.
    pub what: What,
}

/// What has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// There was no listener of this name.
    Added,
    /// There is no listener of this name any more.
    Removed,
    /// A file of certificates, which has others in it.
    Renewed {
        /// Its path, escaped.
        file: String,
        /// How long the first of them is valid.
        until: String,
    },
    /// One key.
    Key {
        /// With its table, as `timeout.idle`.
        key: String,
        /// Its value before, as a file has it, cut and escaped.
        old: String,
        /// Its value now.
        new: String,
        /// What becomes of it.
        effect: Effect,
    },
}

impl Change {
    /// The listener's socket was handed over: what only the binding of a socket of ours could apply is unused.
    pub fn leave_to_socket_unit(&mut self) {
        if let What::Key { key, effect, .. } = &mut self.what {
            let is_units = matches!(key.as_str(), "address" | "backlog");
            if is_units || *effect == Effect::NextSocket {
                *effect = Effect::Unused;
            }
        }
    }
}

/// `listener "echo": timeout.idle: "1h" -> "30m": applied now`.
impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(listener) = &self.listener {
            write!(formatter, "listener \"{listener}\": ")?;
        }
        match &self.what {
            What::Added => formatter.write_str("added"),
            What::Removed => formatter.write_str("removed, its connections are drained"),
            What::Renewed { file, until } => {
                let effect = Effect::NewConnections;
                write!(formatter, "{file}: renewed, valid until {until}: {effect}")
            }
            What::Key {
                key,
                old,
                new,
                effect,
            } => write!(formatter, "{key}: {old} -> {new}: {effect}"),
        }
    }
}

/// How many there are: `2 keys changed, 1 listener added`.
pub fn tally(changes: &[Change]) -> String {
    let count = |is: fn(&What) -> bool| changes.iter().filter(|change| is(&change.what)).count();
    let counts = [
        (
            count(|what| matches!(what, What::Key { .. })),
            "key",
            "changed",
        ),
        (
            count(|what| matches!(what, What::Renewed { .. })),
            "certificate",
            "renewed",
        ),
        (count(|what| *what == What::Added), "listener", "added"),
        (count(|what| *what == What::Removed), "listener", "removed"),
    ];
    let words = counts.into_iter().filter(|(count, ..)| *count > 0);
    let words: Vec<_> = words
        .map(|(count, noun, verb)| {
            let plural = if count == 1 { "" } else { "s" };
            format!("{count} {noun}{plural} {verb}")
        })
        .collect();
    match words.is_empty() {
        true => "nothing changed".into(),
        false => words.join(", "),
    }
}

/// Keys that cannot change while the daemon serves.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct NeedsRestart {
    /// Each that is different, in the order of the schema.
    pub keys: Vec<String>,
}

impl fmt::Display for NeedsRestart {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.keys.len() == 1 {
            "needs"
        } else {
            "need"
        };
        let keys = self.keys.join(", ");
        write!(
            formatter,
            "{keys}: changed, which {verb} a restart (restart echod, or change it back)"
        )
    }
}

/// What changes for a daemon that serves as `old` says and takes over `new`: the daemon's keys, then each
/// listener of `new`, then those that are gone.
///
/// # Errors
/// Every key that stands in the way.
pub fn changes(old: &Config, new: &Config) -> Result<Vec<Change>, NeedsRestart> {
    let mut all = compare(None, &entries(old), &entries(new), effect);
    let keys: Vec<_> = all.iter().filter_map(stands_in_the_way).collect();
    if !keys.is_empty() {
        return Err(NeedsRestart { keys });
    }
    for listener in &new.listeners {
        let before = old.listeners.iter().find(|one| one.name == listener.name);
        match before {
            Some(before) if before == listener => {} // the common case, and its lists may be long
            Some(before) => all.extend(compare(
                Some(&listener.name),
                &listener_entries(before),
                &listener_entries(listener),
                |key| effect_at(listener, key),
            )),
            None => all.push(whole(listener, What::Added)),
        }
    }
    let is_gone = |old: &&Listener| new.listeners.iter().all(|one| one.name != old.name);
    let gone = old.listeners.iter().filter(is_gone);
    all.extend(gone.map(|listener| whole(listener, What::Removed)));
    Ok(all)
}

fn stands_in_the_way(change: &Change) -> Option<String> {
    match &change.what {
        What::Key { key, effect, .. } => (*effect == Effect::Restart).then(|| key.clone()),
        What::Added | What::Removed | What::Renewed { .. } => None,
    }
}

fn whole(listener: &Listener, what: What) -> Change {
    Change {
        listener: Some(listener.name.clone()),
        what,
    }
}

/// The entries that differ. Both lists have the same keys, in the same order.
fn compare(
    listener: Option<&str>,
    old: &[Entry],
    new: &[Entry],
    effect: impl Fn(&str) -> Effect,
) -> Vec<Change> {
    let pairs = old.iter().zip(new);
    let differing = pairs.filter(|(old, new)| old.value != new.value);
    let change = |(old, new): (&Entry, &Entry)| {
        let from = first_shown(&old.value, &new.value);
        let key = new.name();
        Change {
            listener: listener.map(str::to_owned),
            what: What::Key {
                effect: effect(&key),
                key,
                old: shown(&old.value, from),
                new: shown(&new.value, from),
            },
        }
    };
    differing.map(change).collect()
}

/// The first character that is shown of two values: that of both, unless one of them is too long.
fn first_shown(old: &str, new: &str) -> usize {
    let is_long = |value: &str| value.chars().nth(VALUE_MAX).is_some();
    if !is_long(old) && !is_long(new) {
        return 0;
    }
    let pairs = old.chars().zip(new.chars());
    let alike = pairs.take_while(|(old, new)| old == new).count();
    alike.saturating_sub(VALUE_BEFORE)
}

/// As much of a value as is worth showing, safe for a terminal.
fn shown(value: &str, from: usize) -> String {
    let part: String = value.chars().skip(from).take(VALUE_MAX).collect();
    let is_cut = value.chars().nth(from + VALUE_MAX).is_some();
    let before = if from > 0 { "..." } else { "" };
    let after = if is_cut { "..." } else { "" };
    format!("{before}{}{after}", escape(&part))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::Path;

    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text, Path::new("test.toml")).unwrap()
    }

    fn lines(old: &str, new: &str) -> Vec<String> {
        let changes = changes(&config(old), &config(new)).unwrap();
        changes.iter().map(Change::to_string).collect()
    }

    const OLD: &str = "[[listener]]\nname = 'a'\naddress = ['127.0.0.1:1', '127.0.0.1:2']\n";

    #[test]
    fn every_key_that_needs_a_restart_is_named() {
        let keys = "workers = 2\nengine = 'auto'\nuser = 'x'\ngroup = 'y'\nallow_root = true\n";
        let with = |keys: &str| config(&format!("{keys}log.empty = true\n{OLD}"));
        let error = changes(&config(OLD), &with(keys)).unwrap_err();
        let all = ["workers", "engine", "user", "group", "allow_root"];
        assert_eq!(error.keys, all);
        let error = changes(&config(OLD), &with("user = 'x'\n")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "user: changed, which needs a restart (restart echod, or change it back)"
        );
    }

    #[test]
    fn everything_else_is_told_with_its_effect() {
        let old = format!("{OLD}[[listener]]\nname = 'c'\naddress = '127.0.0.1:4'\n");
        let new = "max_connections = 5\ncontact = 'noc@example.net'\nlog.empty = true\n\
                   [[listener]]\nname = 'b'\naddress = '127.0.0.1:3'\n\
                   [[listener]]\nname = 'a'\naddress = '127.0.0.1:1'\ntimeout.idle = '30m'\n\
                   tcp.keepalive = { idle = '5s' }\ntcp.freebind = true\n";
        assert_eq!(
            lines(&old, new),
            [
                "max_connections: \"auto\" -> 5: applied now",
                "contact: \"\" -> \"noc@example.net\": applied to new connections",
                "log.empty: false -> true: applied now",
                "listener \"b\": added",
                "listener \"a\": address: [\"127.0.0.1:1\", \"127.0.0.1:2\"] -> [\"127.0.0.1:1\"]: applied now",
                "listener \"a\": tcp.keepalive: \"off\" -> { idle = \"5s\", interval = \"10s\", count = 6 }: \
                 applied to new connections",
                "listener \"a\": tcp.freebind: false -> true: applied when the socket is bound again",
                "listener \"a\": timeout.idle: \"1h\" -> \"30m\": applied now",
                "listener \"c\": removed, its connections are drained",
            ]
        );
        assert_eq!(lines(&old, &old), [""; 0]);
    }

    #[test]
    fn what_the_defaults_say_is_told_of_each_listener_that_it_is_for() {
        let two = format!("{OLD}[[listener]]\nname = 'b'\naddress = '127.0.0.1:3'\nbacklog = 7\n");
        assert_eq!(
            lines(&two, &format!("defaults.backlog = 5\n{two}")),
            ["listener \"a\": backlog: 4096 -> 5: applied now"]
        );
    }

    #[test]
    fn access_holds_for_those_who_are_here_if_it_says_so() {
        let with = |rest: &str| format!("{OLD}access.allow = ['192.0.2.0/24']\n{rest}");
        let effect = |new: &str| {
            lines(OLD, new)
                .remove(0)
                .rsplit_once(": ")
                .unwrap()
                .1
                .to_owned()
        };
        assert_eq!(effect(&with("")), "applied now");
        let new = with("access.reapply = false\n");
        assert_eq!(effect(&new), "applied to new connections");
    }

    #[test]
    fn a_socket_that_was_handed_over_is_not_ours_to_change() {
        let new = format!("{OLD}backlog = 5\nbuffer = '64KiB'\ntcp.v6only = true\n");
        let mut changes = changes(&config(OLD), &config(&new)).unwrap();
        changes.iter_mut().for_each(Change::leave_to_socket_unit);
        let effects = changes.iter().map(|change| match &change.what {
            What::Key { effect, .. } => *effect,
            other => panic!("{other:?}"),
        });
        let effects: Vec<_> = effects.collect();
        assert_eq!(effects, [Effect::Unused, Effect::Now, Effect::Unused]);
        assert_eq!(
            changes[0].to_string(),
            "listener \"a\": backlog: 4096 -> 5: unused, the socket unit decides it"
        );
    }

    #[test]
    fn a_long_value_is_cut_around_the_first_difference() {
        let list = |last: &str| {
            let prefixes = (0..=255).map(|number| format!("'10.{number}.0.0/16', "));
            let prefixes: String = prefixes.collect();
            format!("{OLD}access.deny = [{prefixes}'{last}']\n")
        };
        assert_eq!(
            lines(&list("192.0.2.1"), &list("192.0.2.8")),
            [
                "listener \"a\": access.deny: ...5.0.0/16\", \"192.0.2.1/32\"] -> ...5.0.0/16\", \"192.0.2.8/32\"]: \
              applied now"
            ]
        );
        let line = lines(OLD, &list("192.0.2.1")).remove(0);
        assert!(
            line.contains("[] -> [\"10.0.0.0/16\", ") && line.ends_with("...: applied now"),
            "{line}"
        );
        assert!(line.len() < 200, "{line}");
        // One that just fits is whole.
        assert_eq!(shown(&"x".repeat(VALUE_MAX), 0), "x".repeat(VALUE_MAX));
        assert_eq!(
            shown(&"x".repeat(VALUE_MAX + 1), 0),
            "x".repeat(VALUE_MAX) + "..."
        );
        assert_eq!(shown("\u{1b}[2J", 0), "\\u{1b}[2J");
    }

    #[test]
    fn a_tally_counts_what_there_is() {
        let two = format!("{OLD}[[listener]]\nname = 'b'\naddress = '127.0.0.1:3'\n");
        let told = |old: &str, new: &str| tally(&changes(&config(old), &config(new)).unwrap());
        assert_eq!(told(OLD, OLD), "nothing changed");
        assert_eq!(
            told(OLD, &format!("log.empty = true\n{OLD}")),
            "1 key changed"
        );
        let more = format!("log.empty = true\nlog.level = 'debug'\n{two}");
        assert_eq!(told(OLD, &more), "2 keys changed, 1 listener added");
        assert_eq!(told(&two, OLD), "1 listener removed");
        let renewed = |file: &str| Change {
            listener: Some("a".into()),
            what: What::Renewed {
                file: file.into(),
                until: "2026-01-31 00:00 UTC".into(),
            },
        };
        let mut all = [renewed("/a.pem"), renewed("/b.pem")];
        assert_eq!(tally(&all[..1]), "1 certificate renewed");
        assert_eq!(tally(&all), "2 certificates renewed");
        // Whoever opened the socket.
        all[0].leave_to_socket_unit();
        assert_eq!(
            all[0].to_string(),
            "listener \"a\": /a.pem: renewed, valid until 2026-01-31 00:00 UTC: applied to new connections"
        );
    }
}
