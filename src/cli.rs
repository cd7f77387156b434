//! The command line: arguments to a [`Command`]. Nobody else knows a flag.
//!
//! Decides nothing but what was asked for, and reads no file.

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

use crate::config::{self, Config};

/// Exit status of a command line that cannot be understood: sysexits' EX_USAGE.
pub const EXIT_USAGE: u8 = 64;

/// What the daemon was asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Serve in the foreground until told to stop.
    Serve {
        /// What says how.
        source: Source,
    },
    /// Say whether a configuration is valid and what it will need.
    Check {
        /// The file; `None`: the default one.
        config: Option<PathBuf>,
        /// Print the effective configuration as well.
        print: bool,
    },
    /// Ask the running daemon to read its file again.
    Reload,
}

/// What a daemon's configuration is taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `--config`: this file.
    File(PathBuf),
    /// `--listen`: these addresses, and the defaults.
    Addresses(Vec<SocketAddr>),
    /// Neither: the default file, or the built-in configuration.
    Default,
}

impl Source {
    /// The configuration that it names.
    pub fn load(&self) -> Result<Config, config::Error> {
        match self {
            Self::File(path) => Config::load(Some(path)),
            Self::Addresses(addresses) => Ok(Config::listen(addresses)),
            Self::Default => Config::load(None::<&Path>),
        }
    }
}

/// The command line is answered already: with this text and this status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// 0 for help and version, 64 for a mistake.
    pub status: u8,
    /// For standard output if the status is 0, for standard error otherwise; ends with a newline.
    pub text: String,
}

impl Exit {
    /// Says the text where it belongs, and answers the status.
    pub fn tell(&self) -> u8 {
        // Nobody may be reading; the status is the answer that counts.
        let _ = match self.status {
            0 => io::stdout().write_all(self.text.as_bytes()),
            _ => io::stderr().write_all(self.text.as_bytes()),
        };
        self.status
    }
}

/// A TCP echo server: sends back the same bytes.
///
/// Without --config and --listen it reads /etc/echod/echod.toml; if that is not there, it serves
/// 127.0.0.1:8080 and [::1]:8080.
#[derive(Parser)]
#[command(
    name = "echod",
    version,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true
)]
struct Arguments {
    /// Serve as this file says
    #[arg(long, value_name = "FILE", conflicts_with = "listen")]
    config: Option<PathBuf>,

    /// Serve here, with the defaults and the log on standard error; may be repeated
    #[arg(long, value_name = "ADDR:PORT", value_parser = address)]
    listen: Vec<SocketAddr>,

    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    /// Say whether the configuration is valid, and what the daemon will need
    Check {
        /// The file [default: /etc/echod/echod.toml]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,

        /// Print every key with its value, and the most memory that this may take
        #[arg(long)]
        print: bool,
    },
    /// Have the running daemon read its configuration again, and wait until it is adopted or refused
    Reload,
}

/// Understands the arguments, the first of which is the program's name.
pub fn parse(
    arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<Command, Exit> {
    let arguments = Arguments::try_parse_from(arguments).map_err(|error| exit(&error))?;
    if let Some(verb) = arguments.verb {
        return Ok(match verb {
            Verb::Check { config, print } => Command::Check { config, print },
            Verb::Reload => Command::Reload,
        });
    }
    let source = match arguments.config {
        Some(path) => Source::File(path),
        None if arguments.listen.is_empty() => Source::Default,
        None => Source::Addresses(distinct(arguments.listen)?),
    };
    Ok(Command::Serve { source })
}

fn address(text: &str) -> Result<SocketAddr, String> {
    config::parse_address(text).map_err(|wrong| format!("{} ({})", wrong.what, wrong.remedy))
}

/// The same rule as in a file, where two addresses that cannot be bound together are refused.
fn distinct(addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Exit> {
    for (index, address) in addresses.iter().enumerate() {
        let taken = addresses[..index]
            .iter()
            .find(|other| config::overlap((*address, false), (**other, false)));
        if let Some(other) = taken {
            return Err(Exit {
                status: EXIT_USAGE,
                text: format!("echod: --listen: {address} overlaps {other} (name each once)\n"),
            });
        }
    }
    Ok(addresses)
}

fn exit(error: &clap::Error) -> Exit {
    let text = error.to_string();
    if error.exit_code() == 0 {
        return Exit { status: 0, text };
    }
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    // What was typed is repeated in the message, so it is escaped like what a file says.
    let lines: Vec<_> = text.trim_end().split('\n').map(config::escape).collect();
    Exit {
        status: EXIT_USAGE,
        text: format!("echod: {}\n", lines.join("\n")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parsed(line: &str) -> Result<Command, Exit> {
        parse(std::iter::once("echod").chain(line.split_whitespace()))
    }

    fn refused(line: &str) -> String {
        let exit = parsed(line).unwrap_err();
        assert_eq!(exit.status, EXIT_USAGE, "{line}");
        assert!(exit.text.starts_with("echod: ") && exit.text.ends_with('\n'));
        exit.text
    }

    #[test]
    fn every_command_is_understood() {
        let serve = |source| Ok(Command::Serve { source });
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(parsed(""), serve(Source::Default));
        assert_eq!(
            parsed("--config a.toml"),
            serve(Source::File("a.toml".into()))
        );
        assert_eq!(
            parsed("--listen 127.0.0.1:0 --listen [::1]:7"),
            serve(Source::Addresses(vec![
                address("127.0.0.1:0"),
                address("[::1]:7")
            ]))
        );
        let check = |config: Option<&str>, print| {
            let config = config.map(PathBuf::from);
            Ok(Command::Check { config, print })
        };
        assert_eq!(parsed("check"), check(None, false));
        assert_eq!(parsed("check --config x --print"), check(Some("x"), true));
        assert_eq!(parsed("reload"), Ok(Command::Reload));
    }

    #[test]
    fn a_wrong_command_line_is_64() {
        for line in [
            "--frobnicate",
            "start",
            "--config",
            "--config a --config b",
            "--config a --listen 127.0.0.1:7",
            "--config a check",
            "--listen 127.0.0.1:7 reload",
            "reload now",
            "check --listen 127.0.0.1:7",
        ] {
            refused(line);
        }
    }

    #[test]
    fn an_address_to_listen_on_is_an_address_and_a_port() {
        assert!(refused("--listen :8080").contains("has no address"));
        assert!(refused("--listen 127.0.0.1").contains("has no port"));
        assert!(refused("--listen [::]:70000").contains("not between 0 and 65535"));
        assert_eq!(
            refused("--listen [::]:7 --listen 0.0.0.0:7"),
            "echod: --listen: 0.0.0.0:7 overlaps [::]:7 (name each once)\n"
        );
    }

    #[test]
    fn help_and_version_are_no_mistakes() {
        let help = parsed("--help").unwrap_err();
        assert_eq!(help.status, 0);
        assert!(help.text.contains("--listen") && help.text.contains("check"));
        let version = parsed("--version").unwrap_err();
        assert_eq!(
            (version.status, version.text.starts_with("echod ")),
            (0, true)
        );
    }

    #[test]
    fn what_was_typed_is_repeated_only_escaped() {
        let exit = parse(["echod", "--\u{1b}[31m"]).unwrap_err();
        assert!(!exit.text.contains('\u{1b}'), "{:?}", exit.text);
    }
}
