//! Old and new configuration: may a running daemon get from one to the other?
//!
//! A reload takes a configuration whole or not at all, so one key that cannot change while serving
//! refuses it, and every such key is named. Pure.

use std::fmt;

use super::Config;

/// Keys that cannot change while the daemon serves.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct NeedsRestart {
    /// Each that is different, in the order of the schema.
    pub keys: Vec<&'static str>,
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

/// May a daemon that serves as `old` says take over `new`?
///
/// # Errors
/// Every key that stands in the way.
pub fn allow_reload(old: &Config, new: &Config) -> Result<(), NeedsRestart> {
    // Threads are started once, with the engine that they have, and privileges are dropped once: there is
    // no way back to them.
    let fixed = [
        ("workers", old.workers != new.workers),
        ("engine", old.engine != new.engine),
        ("user", old.user != new.user),
        ("group", old.group != new.group),
        ("allow_root", old.allow_root != new.allow_root),
    ];
    let changed = fixed.into_iter().filter(|(_, differs)| *differs);
    let keys: Vec<_> = changed.map(|(key, _)| key).collect();
    match keys.is_empty() {
        true => Ok(()),
        false => Err(NeedsRestart { keys }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::Path;

    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text, Path::new("test.toml")).unwrap()
    }

    const OLD: &str = "[[listener]]\nname = 'a'\naddress = ['127.0.0.1:1', '127.0.0.1:2']\n";

    #[test]
    fn every_key_that_needs_a_restart_is_named() {
        let keys = "workers = 2\nengine = 'auto'\nuser = 'x'\ngroup = 'y'\nallow_root = true\n";
        let error = allow_reload(&config(OLD), &config(&format!("{keys}{OLD}"))).unwrap_err();
        let all = ["workers", "engine", "user", "group", "allow_root"];
        assert_eq!(error.keys, all);
        let error = allow_reload(&config(OLD), &config(&format!("user = 'x'\n{OLD}"))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "user: changed, which needs a restart (restart echod, or change it back)"
        );
    }

    #[test]
    fn everything_else_may_change_while_serving() {
        let new = "max_connections = 5\nbuffer_memory = '1GiB'\ndrain_idle = '2s'\ndrain_timeout = '2s'\n\
                   log.empty = true\n[[listener]]\nname = 'b'\naddress = '127.0.0.1:3'\n";
        assert_eq!(allow_reload(&config(OLD), &config(new)), Ok(()));
    }
}
