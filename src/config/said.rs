//! Where the file says what only this host can refuse, and the refusal of it.
//!
//! Whether there is such a user, and whether so many connections fit, shows only after the file was
//! read. So a configuration remembers its text and the places of these keys: a late refusal then
//! looks like an early one. Pure: what the host is, the caller knows.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::error::{Error, Problem, Refusal};
use super::{Config, Origin, text};

/// Where it was said, no part of what it says: any two are equal.
#[derive(Clone, Default)]
pub struct Said {
    text: Arc<str>,
    places: Vec<(&'static str, Range<usize>)>,
}

impl Said {
    /// Of these keys, those have a place that the text names.
    pub(super) fn new<const N: usize>(
        text: &str,
        keys: [(&'static str, Option<Range<usize>>); N],
    ) -> Self {
        let places = keys
            .into_iter()
            .filter_map(|(key, place)| Some((key, place?)));
        Self {
            text: text.into(),
            places: places.collect(),
        }
    }

    fn place(&self, key: &str) -> Option<Range<usize>> {
        let mut places = self.places.iter();
        places
            .find(|(said, _)| *said == key)
            .map(|(_, place)| place.clone())
    }
}

impl PartialEq for Said {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Debug for Said {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(&self.places).finish()
    }
}

/// What this host has against the value of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} ({remedy})")]
pub struct Objection {
    /// The key.
    pub key: &'static str,
    what: String,
    remedy: String,
}

impl Objection {
    /// There is no such user.
    pub fn no_user(user: &str) -> Self {
        Self::no_account("user", user, "useradd")
    }

    /// There is no such group.
    pub fn no_group(group: &str) -> Self {
        Self::no_account("group", group, "groupadd")
    }

    fn no_account(key: &'static str, name: &str, command: &str) -> Self {
        let name = text::escape(name);
        Self {
            key,
            what: format!("{key}: \"{name}\": there is no such {key}"),
            remedy: format!(
                "create it with systemd-sysusers or: {command} --system {name}; or name another"
            ),
        }
    }

    /// The user or group of this name is root's.
    pub fn root(key: &'static str, name: &str) -> Self {
        Self {
            key,
            what: format!(
                "{key}: \"{}\": this is root, which is never needed to serve",
                text::escape(name)
            ),
            remedy: format!("name another {key}, or set allow_root = true"),
        }
    }

    /// So many connections, or any at all, do not fit into the descriptor limit.
    pub(super) fn descriptors(wanted: Option<u32>, limit: u64, fits: u64, least: u64) -> Self {
        let value = wanted.map_or("\"auto\"".into(), |wanted| wanted.to_string());
        let (holds, remedy) = if fits == 0 {
            let remedy = format!("raise LimitNOFILE= above {least}, or lower workers");
            ("no connection".to_string(), remedy)
        } else {
            let remedy = format!("write {fits} at most, or raise LimitNOFILE=");
            (format!("no more than {fits}"), remedy)
        };
        Self {
            key: "max_connections",
            what: format!("max_connections: {value}: the descriptor limit, {limit}, holds {holds}"),
            remedy,
        }
    }
}

impl Config {
    /// The refusal of this configuration, with the place where it says the key.
    pub fn refuse(&self, objection: Objection) -> Error {
        let Objection { key, what, remedy } = objection;
        match (&self.origin, self.said.place(key)) {
            (Origin::File(path), Some(span)) => {
                let problem = Problem { span, what, remedy };
                Error::Refused(Box::new(Refusal::new(path, &self.said.text, vec![problem])))
            }
            (Origin::File(path), None) => Error::Unsaid {
                place: format!("{}: ", text::escape(&path.to_string_lossy())),
                what,
                remedy,
            },
            _ => Error::Unsaid {
                place: String::new(),
                what,
                remedy,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::Path;

    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text, Path::new("/etc/x.toml")).unwrap()
    }

    #[test]
    fn a_late_refusal_looks_like_an_early_one() {
        let refused =
            config("# we\nuser = \"gone\"\n[[listener]]\n").refuse(Objection::no_user("gone"));
        assert_eq!(
            refused.to_string(),
            "/etc/x.toml:2:8: user: \"gone\": there is no such user (create it with systemd-sysusers or: \
             useradd --system gone; or name another)"
        );
        assert!(
            refused
                .render()
                .contains("2 | user = \"gone\"\n  |        ^^^^^^\n"),
            "{}",
            refused.render()
        );
    }

    #[test]
    fn a_key_that_no_file_says_has_no_line() {
        let objection = Objection::root("group", "root");
        let what = "group: \"root\": this is root, which is never needed to serve (name another group, or set allow_root = true)";
        let refused = config("[[listener]]\n").refuse(objection.clone());
        assert_eq!(refused.to_string(), format!("/etc/x.toml: {what}"));
        let refused = Config::builtin().refuse(objection);
        assert_eq!(refused.render(), format!("echod: {what}"));
    }

    #[test]
    fn the_place_is_no_part_of_what_is_said() {
        let one = config("user = 'x'\n[[listener]]\n");
        assert_eq!(one, config("# moved\n\nuser = 'x'\n[[listener]]\n"));
    }
}
