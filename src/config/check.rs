//! `echod check`: reads the configuration as the daemon would, and lists what the daemon will need.
//!
//! What this host is, is asked in one place ([`Host::here`]); the judgement is made of values. Opens
//! no socket and changes nothing.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{Group, User, geteuid};

use super::descriptors::effective_max_connections;
use super::error::Error;
use super::memory::print_memory;
use super::{Config, Objection, Origin, escape, per_socket, print, shipped};

/// The user that everybody has, as who the daemon serves if nobody has configured another.
const NOBODY: &str = "nobody";

/// Ports below this are root's where the kernel does not say otherwise.
const UNPRIVILEGED_PORT: u16 = 1024;

/// How many threads serve: as configured, or one for each CPU that this process may use.
pub fn worker_count(config: &Config) -> u16 {
    workers_on(config, cpus())
}

fn workers_on(config: &Config, cpus: u16) -> u16 {
    config.workers.map_or(cpus, NonZeroU16::get)
}

fn cpus() -> u16 {
    std::thread::available_parallelism()
        .ok()
        .and_then(|cpus| u16::try_from(cpus.get()).ok())
        .unwrap_or(1)
}

/// What matters of this host.
#[derive(Clone, Debug)]
pub struct Host {
    /// This process is root's.
    pub root: bool,
    /// The hard limit of descriptors, to which the daemon raises its own.
    pub descriptor_limit: u64,
    /// CPUs that this process may use.
    pub cpus: u16,
    /// What the kernel allows one socket, if it says so.
    pub per_socket: Option<u64>,
    /// The first port that anybody may bind.
    pub unprivileged_port: u16,
}

impl Host {
    /// This one.
    pub fn here() -> Self {
        let sysctl = |name| fs::read_to_string(format!("/proc/sys/net/ipv4/{name}"));
        let queues = sysctl("tcp_rmem").ok().zip(sysctl("tcp_wmem").ok());
        Self {
            root: geteuid().is_root(),
            descriptor_limit: getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(_, hard)| hard),
            cpus: cpus(),
            per_socket: queues.and_then(|(rmem, wmem)| per_socket(&rmem, &wmem)),
            unprivileged_port: sysctl("ip_unprivileged_port_start")
                .ok()
                .and_then(|port| port.trim().parse().ok())
                .unwrap_or(UNPRIVILEGED_PORT),
        }
    }
}

/// Looks at the certificates that a configuration names: what is worth knowing, or why it is refused.
pub type Identities<'a> = &'a dyn Fn(&Config) -> Result<Vec<String>, String>;

/// Checks the configuration at `path` (or the default one) on `host`; findings go to `out`, refusals
/// to `err`. Returns whether the daemon would start.
pub fn check(
    path: Option<&Path>,
    with_print: bool,
    host: &Host,
    identities: Identities<'_>,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<bool> {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => {
            writeln!(err, "{}", error.render())?;
            return Ok(false);
        }
    };
    let workers = workers_on(&config, host.cpus);
    let connections = effective_max_connections(&config, workers, host.descriptor_limit);
    let mut findings = findings(&config, host);
    match identities(&config) {
        Ok(notes) => findings.extend(notes.into_iter().map(Finding::Note)),
        Err(refusal) => findings.push(Finding::Refused(refusal)),
    }
    if with_print {
        write!(out, "{}", print(&config))?;
        if let Ok(connections) = &connections {
            let memory = print_memory(&config, workers.into(), *connections, host.per_socket);
            write!(out, "\n{memory}")?;
        }
    }
    // After the configuration everything is a comment, so that the output is a file as well.
    let mark = if with_print { "# " } else { "" };
    let missing = findings
        .iter()
        .any(|f| matches!(f, Finding::Missing(_) | Finding::Refused(_)));
    let starts = connections.is_ok() && !missing;
    if starts {
        writeln!(out, "{mark}{}: valid", origin(&config))?;
    }
    if let Ok(connections) = &connections {
        writeln!(
            out,
            "{mark}max_connections: {connections}, with a descriptor limit of {}",
            host.descriptor_limit
        )?;
    }
    for finding in &findings {
        match finding {
            Finding::Note(note) => writeln!(out, "{mark}{note}")?,
            Finding::Missing(refusal) => writeln!(err, "{}", refusal.render())?,
            Finding::Refused(line) => writeln!(err, "echod: {line}")?,
        }
    }
    if let Err(error) = &connections {
        writeln!(err, "{}", error.render())?;
    }
    Ok(starts)
}

fn origin(config: &Config) -> String {
    match &config.origin {
        Origin::File(path) => escape(&path.to_string_lossy()),
        Origin::CommandLine => "command line".into(),
        Origin::BuiltIn => "built-in configuration".into(),
    }
}

/// Something that the daemon will need.
enum Finding {
    /// Worth knowing.
    Note(String),
    /// The daemon would not start.
    Missing(Error),
    /// Nor would it, for something that no line of the file can be blamed for.
    Refused(String),
}

fn findings(config: &Config, host: &Host) -> Vec<Finding> {
    let mut findings = accounts(config, host);
    for listener in &config.listeners {
        for address in &listener.address {
            let need = need_of(*address, host);
            let name = &listener.name;
            findings.push(Finding::Note(format!(
                "listener \"{name}\": {address} unless a socket named \"{name}\" is handed over{need}"
            )));
        }
    }
    findings.extend(shipped::notes(config).map(Finding::Note));
    findings.extend(unused(config).map(Finding::Note));
    findings
}

fn need_of(address: SocketAddr, host: &Host) -> &'static str {
    let port = address.port();
    if port != 0 && port < host.unprivileged_port && !host.root {
        "; the port needs echod.socket or CAP_NET_BIND_SERVICE"
    } else {
        ""
    }
}

/// As the daemon will judge them when it is to become somebody else.
fn accounts(config: &Config, host: &Host) -> Vec<Finding> {
    let user = User::from_name(&config.user).ok().flatten();
    let group = Group::from_name(&config.group).ok().flatten();
    let missing = |key: &str, name: &str, so: &str| {
        Finding::Note(format!("{key}: \"{name}\": no such {key}; {so}"))
    };
    let refused = |objection| Finding::Missing(config.refuse(objection));
    if !host.root {
        let so = "only needed when started as root";
        let user = user.is_none().then(|| missing("user", &config.user, so));
        let group = group.is_none().then(|| missing("group", &config.group, so));
        return user.into_iter().chain(group).collect();
    }
    // Nobody wrote a configuration without a file, so there is nobody to mend it.
    let is_written = matches!(config.origin, Origin::File(_));
    let mut findings = Vec::new();
    let is_user_there = user.is_some();
    match user {
        Some(user) if user.uid.is_root() && !config.allow_root => {
            findings.push(refused(Objection::root("user", &config.user)));
        }
        Some(_) => {}
        None if !is_written && matches!(User::from_name(NOBODY), Ok(Some(_))) => {
            // And with nobody's own group.
            let so = "will serve as nobody";
            return vec![missing("user", &config.user, so)];
        }
        None => findings.push(refused(Objection::no_user(&config.user))),
    }
    match group {
        Some(group) if group.gid.as_raw() == 0 && !config.allow_root => {
            findings.push(refused(Objection::root("group", &config.group)));
        }
        Some(_) => {}
        None if !is_written && is_user_there => {
            let so = "will serve with the user's own";
            findings.push(missing("group", &config.group, so));
        }
        None => findings.push(refused(Objection::no_group(&config.group))),
    }
    findings
}

/// Keys that are without effect because another one says so.
fn unused(config: &Config) -> impl Iterator<Item = String> {
    use super::{Facility, Log, Records, Target};
    let plain = Config::defaults().log;
    let Log {
        target,
        facility,
        records,
        record_rate,
        empty,
        ..
    } = &config.log;
    let cases = [
        (
            *target == Target::Stderr && *facility != Facility::DAEMON,
            "log.facility: unused, because log.target is \"stderr\"",
        ),
        (
            *records == Records::None && *record_rate != plain.record_rate,
            "log.record_rate: unused, because log.records is \"none\"",
        ),
        (
            *records == Records::None && *empty,
            "log.empty: unused, because log.records is \"none\"",
        ),
        (
            config.allow_root && config.user != "root",
            "allow_root: unused, because user is not \"root\"",
        ),
    ];
    cases
        .into_iter()
        .filter(|(unused, _)| *unused)
        .map(|(_, why)| why.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn host() -> Host {
        Host {
            root: false,
            descriptor_limit: 1024,
            cpus: 2,
            per_socket: Some(10 << 20),
            unprivileged_port: 1024,
        }
    }

    /// Whether the text passes on that host, and what is said on both ways out.
    fn checked(text: &str, with_print: bool, host: &Host) -> (bool, String, String) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("echod.toml");
        fs::write(&path, text).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let ok = check(
            Some(&path),
            with_print,
            host,
            &|_| Ok(Vec::new()),
            &mut out,
            &mut err,
        )
        .unwrap();
        (
            ok,
            String::from_utf8(out).unwrap(),
            String::from_utf8(err).unwrap(),
        )
    }

    fn config(text: &str) -> Config {
        Config::parse(text, Path::new("test.toml")).unwrap()
    }

    #[test]
    fn a_bound_on_connections_must_fit_the_descriptor_limit() {
        // 48 of its own, four for each of three workers, one for the address.
        let config = config("max_connections = 945\n[[listener]]\n");
        assert_eq!(effective_max_connections(&config, 3, 1006).unwrap(), 945);
        for (workers, limit) in [(3, 1005), (4, 1009)] {
            let error = effective_max_connections(&config, workers, limit).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "test.toml:1:19: max_connections: 945: the descriptor limit, {limit}, holds no more than 944 \
                     (write 944 at most, or raise LimitNOFILE=)"
                )
            );
        }
    }

    #[test]
    fn auto_is_what_the_limit_holds_but_never_more_than_its_bound() {
        let config = Config::builtin(); // at two addresses
        let at = |limit| effective_max_connections(&config, 3, limit);
        assert_eq!(at(63).unwrap(), 1);
        assert_eq!(at(10_061).unwrap(), 9_999);
        assert_eq!(at(10_062).unwrap(), 10_000);
        assert_eq!(at(u64::MAX).unwrap(), 10_000);
        assert_eq!(
            at(62).unwrap_err().to_string(),
            "max_connections: \"auto\": the descriptor limit, 62, holds no connection \
             (raise LimitNOFILE= above 62, or lower workers)"
        );
    }

    #[test]
    fn a_good_file_passes_and_lists_the_needs() {
        let (ok, out, err) = checked("[[listener]]\naddress = \"[::]:7\"\n", false, &host());
        assert!(ok, "{err}");
        assert_eq!(err, "");
        assert!(out.contains("the port needs echod.socket or CAP_NET_BIND_SERVICE"));
        assert!(out.contains("max_connections: 967"));
        let root = Host {
            root: true,
            ..host()
        };
        let (_, out, _) = checked(
            "user = \"nobody\"\n[[listener]]\naddress = \"[::]:7\"\n",
            false,
            &root,
        );
        assert!(!out.contains("CAP_NET_BIND_SERVICE"));
    }

    #[test]
    fn a_missing_user_matters_to_root_alone() {
        let text = "user = \"no-such-user\"\n[[listener]]\n";
        assert!(checked(text, false, &host()).0);
        let (ok, _, err) = checked(
            text,
            false,
            &Host {
                root: true,
                ..host()
            },
        );
        assert!(!ok);
        assert!(
            err.contains("echod.toml:1:8: user: \"no-such-user\": there is no such user")
                && err.contains("1 | user = \"no-such-user\"\n"),
            "{err}"
        );
    }

    #[test]
    fn what_is_not_there_is_not_called_valid() {
        let root = Host {
            root: true,
            ..host()
        };
        let (ok, out, _) = checked("group = \"no-such-group\"\n[[listener]]\n", false, &root);
        assert!(!ok && !out.contains("valid"), "{out}");
    }

    #[test]
    fn without_a_file_nobody_serves() {
        let root = Host {
            root: true,
            ..host()
        };
        let judged = |user: &str, group: &str| -> Vec<String> {
            let config = Config {
                user: user.into(),
                group: group.into(),
                ..Config::builtin()
            };
            let said = |finding| match finding {
                Finding::Note(note) => note,
                Finding::Missing(error) => format!("refused: {error}"),
                Finding::Refused(line) => line,
            };
            accounts(&config, &root).into_iter().map(said).collect()
        };
        assert_eq!(
            judged("no-such-user", "no-such-group"),
            ["user: \"no-such-user\": no such user; will serve as nobody"]
        );
        assert_eq!(
            judged("nobody", "no-such-group"),
            ["group: \"no-such-group\": no such group; will serve with the user's own"]
        );
        assert!(judged("nobody", "root")[0].starts_with("refused: group: \"root\": this is root"));
    }

    #[test]
    fn what_is_printed_is_a_file_again() {
        let text = "workers = 3\n[log]\nfacility = \"local0\"\ntarget = \"stderr\"\n[[listener]]\n";
        let (ok, out, _) = checked(text, true, &host());
        assert!(ok);
        assert_eq!(config(&out), config(text));
        assert!(out.contains("# log.facility: unused, because log.target is \"stderr\""));
        assert!(out.contains("3 workers * 512KiB"));
    }

    #[test]
    fn a_refused_file_is_shown_at_length_on_the_error_side() {
        let (ok, out, err) = checked("[[listener]]\nnam = 1\n", true, &host());
        assert!(!ok);
        assert_eq!(out, "");
        assert!(
            err.contains("unknown key \"nam\"") && err.contains("2 | nam = 1"),
            "{err}"
        );
    }
}
