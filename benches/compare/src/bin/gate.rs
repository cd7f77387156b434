//! Does a message cost more instructions than it did? Counts them and compares them with the record.
//!
//! callgrind counts every user-space instruction of a worker, on any machine and undisturbed by what else
//! runs there. It is a worker alone, echod's example `one_worker`: valgrind holds its one lock while a thread
//! waits in io_uring_enter(2), and the daemon has other threads. Start and end are in its count as well: it is
//! run twice, with few rounds and with many, and the difference is the messages'. A round is one message on each connection; the next begins when all
//! are back. How many of them the daemon finds at one look would depend on when it looks, and the count with
//! it; so it is held while a round is sent, and finds all.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use echod_compare::candidate::{Candidate, PORT};
use echod_compare::pattern::Pattern;
use echod_compare::server::{self, Server};
use tempfile::NamedTempFile;

const CONNECTIONS: usize = 50;

/// Bytes of a message.
const MESSAGE: usize = 64;

/// Rounds of the two runs.
const FEW: u32 = 200;
const MANY: u32 = 1_200;

/// How much above the record is too much, and how much below is worth a new one.
const TOLERANCE: f64 = 0.1;

/// How long a message may take, at a fiftieth of the usual speed.
const PATIENCE: Duration = Duration::from_secs(20);

/// callgrind, which is to keep its profile for itself and to need no files beside its log.
const CALLGRIND: &[&str] = &[
    "valgrind",
    "--tool=callgrind",
    "--callgrind-out-file=/dev/null",
    "--vgdb=no",
];

/// Counts a worker's instructions a message and compares them with the record
#[derive(Debug, Parser)]
#[command(name = "gate")]
struct Arguments {
    /// The example `one_worker` of echod
    #[arg(long, value_name = "PATH", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/release/examples/one_worker"))]
    worker: PathBuf,
    /// What was counted before
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.toml"))]
    record: PathBuf,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("gate: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Was nothing too much?
fn run(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    let record: BTreeMap<String, f64> = toml::from_str(&fs::read_to_string(&arguments.record)?)?;
    let mut all_right = true;
    for (engine, recorded) in &record {
        match a_message(&arguments.worker, engine) {
            Ok(counted) => all_right &= judge(engine, counted, *recorded),
            // Every kernel has the other one.
            Err(Trouble::Unable(why)) if engine == "io_uring" => println!("skip {engine}: {why}"),
            Err(trouble) => {
                all_right = false;
                println!("FAIL {engine}: {trouble}");
            }
        }
    }
    Ok(all_right)
}

/// Says how a count compares with the record, and whether it may.
fn judge(engine: &str, counted: f64, recorded: f64) -> bool {
    let said = format!("{engine}: {counted:.0} instructions a message (recorded {recorded:.0})");
    let is_right = counted <= recorded * (1.0 + TOLERANCE);
    println!("{} {said}", if is_right { "ok  " } else { "FAIL" });
    if counted < recorded * (1.0 - TOLERANCE) {
        println!("note {engine}: lower the record");
    }
    is_right
}

/// Why nothing was counted.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// The daemon does not start.
    #[error("{0}")]
    Unable(#[from] server::Error),
    /// The connections broke.
    #[error("{0}")]
    Broken(#[from] std::io::Error),
    /// What came back is not what was sent.
    #[error("wrong bytes came back")]
    Wrong,
    /// callgrind did not say how many.
    #[error("callgrind did not say how many: {0}")]
    Uncounted(String),
}

/// Instructions a message: those of the many rounds less those of the few.
fn a_message(worker: &Path, engine: &str) -> Result<f64, Trouble> {
    let (few, many) = (
        counted(worker, engine, FEW)?,
        counted(worker, engine, MANY)?,
    );
    let messages = f64::from(MANY - FEW) * CONNECTIONS as f64;
    Ok((many - few) / messages)
}

/// Instructions of a worker's whole life, with so many rounds in it. It ends when it has answered them: what
/// it was asked at its start is less than a message.
fn counted(worker: &Path, engine: &str, rounds: u32) -> Result<f64, Trouble> {
    // Apart from what the worker says.
    let log = NamedTempFile::new()?;
    let to_log = format!("--log-file={}", log.path().display());
    let wrapper = [CALLGRIND, &[to_log.as_str()]].concat();
    let bytes = rounds as usize * CONNECTIONS * MESSAGE;
    let words = [engine, PORT, &bytes.to_string()].map(str::to_owned);
    let command = [vec![worker.display().to_string()], words.to_vec()].concat();
    let candidate = Candidate::command(engine, command);
    let server = Server::start_under(&wrapper, &candidate, None, CONNECTIONS)?;
    talk(&server, rounds)?;
    server.wait_until_it_ends()?;
    let said = fs::read_to_string(log.path())?;
    let count = said
        .lines()
        .find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    let last = said.lines().next_back().unwrap_or_default();
    count.ok_or_else(|| Trouble::Uncounted(last.to_owned()))
}

fn talk(server: &Server, rounds: u32) -> Result<(), Trouble> {
    let pattern = Pattern::new();
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port()))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        streams.push(stream);
    }
    let mut answer = [0; MESSAGE];
    for round in 0..rounds {
        let position = u64::from(round) * MESSAGE as u64;
        server.hold()?;
        for (number, stream) in streams.iter_mut().enumerate() {
            stream.write_all(pattern.at(number, position, MESSAGE))?;
        }
        server.release()?;
        for (number, stream) in streams.iter_mut().enumerate() {
            stream.read_exact(&mut answer)?;
            if answer != *pattern.at(number, position, MESSAGE) {
                return Err(Trouble::Wrong);
            }
        }
    }
    Ok(())
}
