//! The servers that are compared: a table of those that are known, and any command.

use std::env;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::unistd::geteuid;

/// echod's engines: how each is called here, what it is in the configuration, and whether a kernel may
/// lack it.
const ENGINES: &[(&str, &str, bool)] = &[
    ("echod epoll", "epoll", false),
    ("echod io_uring", "io_uring", true),
];

/// The other servers: how each is called here, and its program beside ours.
const PEERS: &[(&str, &str)] = &[
    ("mio", "peer_mio"),
    ("tokio", "peer_tokio"),
    ("threads", "peer_threads"),
];

/// Stands for the port in a command.
pub const PORT: &str = "{port}";

/// A server that can be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What it is called in tables.
    pub name: String,
    /// How it is started.
    pub program: Program,
    /// It may be unable to start on this kernel, which is then no failure.
    pub is_optional: bool,
}

/// How a server is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// echod, with a configuration of its own.
    Echod {
        /// The daemon.
        binary: PathBuf,
        /// `engine` in its configuration.
        engine: &'static str,
    },
    /// A program and its arguments, [`Candidate::arguments`].
    Command(Vec<String>),
}

impl Candidate {
    /// echod, once for each engine.
    pub fn engines(binary: &Path) -> Vec<Candidate> {
        let engine = |&(name, engine, is_optional): &(&str, &'static str, bool)| Candidate {
            name: name.to_owned(),
            program: Program::Echod {
                binary: binary.to_owned(),
                engine,
            },
            is_optional,
        };
        ENGINES.iter().map(engine).collect()
    }

    /// The other servers of this package, built into the same directory as this program.
    pub fn peers() -> std::io::Result<Vec<Candidate>> {
        let beside = env::current_exe()?;
        let peer = |&(name, program): &(&str, &str)| {
            let program = beside.with_file_name(program).display().to_string();
            Candidate::command(name, vec![program, PORT.to_owned()])
        };
        Ok(PEERS.iter().map(peer).collect())
    }

    /// A program and its arguments, in which [`PORT`] stands for the port.
    pub fn command(name: &str, command: Vec<String>) -> Candidate {
        Candidate {
            name: name.to_owned(),
            program: Program::Command(command),
            is_optional: false,
        }
    }

    /// Is it one of echod's engines?
    pub fn is_echod(&self) -> bool {
        matches!(self.program, Program::Echod { .. })
    }
}

/// `NAME=COMMAND`: words between blanks, `{port}` for the port.
impl FromStr for Candidate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Candidate, Self::Err> {
        let (name, command) = text.split_once('=').ok_or("it is not NAME=COMMAND")?;
        let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        match words.is_empty() {
            true => Err("it has no command"),
            false => Ok(Candidate::command(name, words)),
        }
    }
}

/// A command's words, for a port.
pub fn arguments(command: &[String], port: u16) -> Vec<String> {
    let port = port.to_string();
    command
        .iter()
        .map(|word| word.replace(PORT, &port))
        .collect()
}

/// echod's configuration: one worker, as the others have one thread, and a log that says nothing of
/// connections.
pub fn config(engine: &str, port: u16, connections: usize) -> String {
    // Only root can become somebody else, and the daemon refuses to stay root.
    let user = if geteuid().is_root() {
        "user = \"nobody\"\ngroup = \"nogroup\"\n"
    } else {
        ""
    };
    format!(
        "engine = \"{engine}\"\n\
         workers = 1\n\
         {user}\
         max_connections = {connections}\n\
         drain_idle = \"1ms\"\n\
         pressure.above = \"off\"\n\
         [log]\n\
         target = \"stderr\"\n\
         records = \"none\"\n\
         [[listener]]\n\
         name = \"echo\"\n\
         address = [\"127.0.0.1:{port}\"]\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_words_with_the_port_in_its_place() {
        let candidate: Candidate = "mine=./server --port {port}".parse().expect("a candidate");
        let Program::Command(command) = candidate.program else {
            panic!("a command");
        };
        assert_eq!(candidate.name, "mine");
        assert_eq!(arguments(&command, 7), ["./server", "--port", "7"]);
    }

    #[test]
    fn a_name_without_a_command_is_refused() {
        assert!("mine".parse::<Candidate>().is_err());
        assert!("mine= ".parse::<Candidate>().is_err());
    }
}
