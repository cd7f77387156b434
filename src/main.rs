//! The program on one screen: arguments in, exit status out.

use std::io::{self, Write};
use std::process::ExitCode;

use echod::cli::{self, Command};
use echod::config::{self, Host};
use echod::control;
use echod::logging;
use echod::supervisor::{self, EXIT_CONFIG, EXIT_FAILURE};
use echod::tls;

fn main() -> ExitCode {
    let status = match cli::parse(std::env::args_os()) {
        Ok(Command::Serve { source }) => supervisor::run(source),
        Ok(Command::Check { config, print }) => check(config.as_deref(), print),
        Ok(Command::Reload) => reload(),
        Err(exit) => exit.tell(),
    };
    ExitCode::from(status)
}

fn check(path: Option<&std::path::Path>, print: bool) -> u8 {
    match config::check(
        path,
        print,
        &Host::here(),
        &tls::look,
        &mut io::stdout(),
        &mut io::stderr(),
    ) {
        Ok(true) => 0,
        Ok(false) => EXIT_CONFIG,
        // Nobody reads what was found.
        Err(_) => EXIT_FAILURE,
    }
}

fn reload() -> u8 {
    let (status, text) = match control::reload(&control::directory()) {
        Ok(control::Answer::Adopted(report)) => {
            tell_changes(&report);
            return 0;
        }
        Ok(control::Answer::Refused(text)) => (EXIT_CONFIG, text),
        Err(error) => (EXIT_FAILURE, format!("echod: {error}")),
    };
    // Nobody may be reading; the status is the answer that counts.
    let _ = writeln!(io::stderr(), "{text}");
    status
}

/// What the reload has changed. The journal has it already, from the daemon.
fn tell_changes(report: &[String]) {
    let mut stdout = io::stdout();
    if !report.is_empty() && !logging::is_journal(&stdout) {
        let _ = writeln!(stdout, "reloaded: {}", report.join("\n"));
    }
}
