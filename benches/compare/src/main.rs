//! Compares echod with other echo servers, or looks for wrong bytes: arguments in, tables out.
//!
//! `benches/compare/run` builds everything and starts this. Tables go to standard output, progress and
//! failures to standard error. The exit status tells whether every byte was right and every server ran, and
//! nothing about speed.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use echod_compare::candidate::Candidate;
use echod_compare::cpus::{Cpus, stay_on};
use echod_compare::rounds::{self, Outcome};
use echod_compare::server::SPARE;
use echod_compare::workload::{SHORT, SHORT_CROWD, Setting, WORKLOADS, Workload};
use echod_compare::{descriptors, page, perf, report};

/// Descriptors that a server needs beside those of its connections, and more.
const RESERVE: u64 = 100;

/// How long a run of `--short` takes.
const SHORT_TIME: Duration = Duration::from_millis(200);

/// Compares echo servers over the loopback interface, and verifies every byte
#[derive(Debug, Parser)]
#[command(name = "compare")]
struct Arguments {
    /// How often each server is run with each workload
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// How long is counted of each run
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Only this workload; may be repeated
    #[arg(long, value_name = "NAME", value_parser = workload)]
    workload: Vec<Workload>,
    /// The server that ratios are to [default: the first]
    #[arg(long, value_name = "NAME")]
    baseline: Option<String>,
    /// Looks for wrong bytes, a fraction of a second each, and compares nothing
    #[arg(long, conflicts_with_all = ["rounds", "seconds", "write", "workload"])]
    short: bool,
    /// Writes a page in Markdown
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// The daemon
    #[arg(long, value_name = "PATH", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/release/echod"))]
    echod: PathBuf,
    /// Servers, {port} standing for the port [default: echod's engines, mio, tokio, threads]
    #[arg(value_name = "NAME=COMMAND")]
    servers: Vec<Candidate>,
}

fn workload(name: &str) -> Result<Workload, String> {
    Workload::named(name).ok_or_else(|| {
        let names: Vec<&str> = WORKLOADS.iter().map(|one| one.name).collect();
        format!("there are {}", names.join(", "))
    })
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Was everything well?
fn run(arguments: Arguments) -> Result<bool, Box<dyn Error>> {
    let most = descriptors::raise()?;
    let cpus = Cpus::choose()?;
    stay_on(cpus.load)?;
    let candidates = candidates(&arguments.servers, &arguments.echod)?;
    if arguments.short {
        return Ok(verify(&candidates, cpus));
    }
    let workloads = match arguments.workload.is_empty() {
        true => WORKLOADS.to_vec(),
        false => arguments.workload.clone(),
    };
    let needed = workloads
        .iter()
        .map(|one| (one.connections + SPARE) as u64 + RESERVE);
    if let Some(needed) = needed.max().filter(|needed| *needed > most) {
        return Err(format!(
            "{needed} descriptors are needed, and {most} allowed: see `ulimit -Hn`"
        )
        .into());
    }
    compare(&arguments, &candidates, &workloads, cpus)
}

fn candidates(named: &[Candidate], echod: &Path) -> std::io::Result<Vec<Candidate>> {
    if !named.is_empty() {
        return Ok(named.to_vec());
    }
    let mut all = Candidate::engines(echod);
    all.extend(Candidate::peers()?);
    Ok(all)
}

/// Runs a few workloads for a moment each, and says of each whether all bytes were right.
fn verify(candidates: &[Candidate], cpus: Cpus) -> bool {
    let setting = Setting {
        time: SHORT_TIME,
        counts_instructions: false,
    };
    let crowd = Workload::named("crowd").map(|crowd| Workload {
        connections: SHORT_CROWD,
        ..crowd
    });
    let mut all_right = true;
    for candidate in candidates {
        let short = SHORT.iter().filter_map(|name| Workload::named(name));
        for workload in short.chain(crowd.filter(|_| candidate.is_echod())) {
            let (server, name) = (&candidate.name, workload.name);
            match rounds::once(candidate, &workload, cpus, setting) {
                Outcome::Done(_) => println!("ok   {server} {name}"),
                Outcome::Unavailable(why) => {
                    println!("skip {server}: not available: {why}");
                    break;
                }
                Outcome::Failed(why) => {
                    all_right = false;
                    println!("FAIL {server} {name}: {why}");
                }
            }
        }
    }
    all_right
}

/// Runs the workloads in rounds and prints their tables.
fn compare(
    arguments: &Arguments,
    candidates: &[Candidate],
    workloads: &[Workload],
    cpus: Cpus,
) -> Result<bool, Box<dyn Error>> {
    let setting = Setting {
        time: Duration::try_from_secs_f64(arguments.seconds)?,
        counts_instructions: perf::counts(),
    };
    let first = candidates.first().map(|one| one.name.clone());
    let baseline = arguments.baseline.clone().or(first).unwrap_or_default();
    let mut sections = Vec::new();
    let mut all_right = true;
    for workload in workloads {
        eprintln!("{}: {}", workload.name, workload.about);
        let results = rounds::all(candidates, workload, arguments.rounds, cpus, setting);
        for failure in &results.failures {
            all_right = false;
            eprintln!("FAIL {failure}");
        }
        let section = report::section(workload, &results, &baseline);
        println!("{section}");
        sections.push(section);
    }
    if let Some(file) = &arguments.write {
        let about = page::About {
            command: command(),
            rounds: arguments.rounds,
            seconds: arguments.seconds,
            baseline,
            counts_instructions: setting.counts_instructions,
        };
        fs::write(file, page::write(&about, &sections))?;
    }
    Ok(all_right)
}

/// What was typed, as far as this program knows.
fn command() -> String {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .map(|word| match word.contains(char::is_whitespace) {
            true => format!("'{word}'"),
            false => word,
        })
        .collect();
    format!("benches/compare/run {}", words.join(" "))
}
