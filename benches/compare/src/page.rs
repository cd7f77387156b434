//! The page around the tables: what was measured, where, and how to read it.

use std::fs;
use std::process::Command;

/// What a reader has to know of a measurement beside its tables.
#[derive(Debug)]
pub struct About {
    /// The command that made it.
    pub command: String,
    /// Rounds of each workload.
    pub rounds: usize,
    /// Seconds that were counted of each run.
    pub seconds: f64,
    /// The server that ratios are to.
    pub baseline: String,
    /// Were instructions counted?
    pub counts_instructions: bool,
}

/// A page that begins with all that, and ends with the tables.
pub fn write(about: &About, sections: &[String]) -> String {
    let About {
        command,
        rounds,
        seconds,
        baseline,
        counts_instructions,
    } = about;
    let instructions = if *counts_instructions {
        "**user** and **kernel instr.** are the instructions that the processor counted for each of them, in the program \
         and in\nthe kernel on its behalf; for a stream, of each KiB."
    } else {
        "Instructions are missing: this machine does not let them be counted."
    };
    let (date, kernel, processors) = (date(), kernel(), processors());
    let sections = sections.join("\n");
    format!(
        "# Performance\n\
         \n\
         How fast echod is, what it costs, and how other ways to write an echo server compare on the same machine. This page \
         is\nwritten by a program, from the root of a checkout:\n\
         \n\
         ```\n\
         {command}\n\
         ```\n\
         \n\
         | measured on | |\n\
         |---|---|\n\
         | date | {date} |\n\
         | kernel | Linux {kernel} |\n\
         | processors | {processors} |\n\
         | rounds | {rounds}, of {seconds} s each |\n\
         \n\
         Numbers from another machine, or another day, are not comparable with these; the ratios between servers mostly are. \
         Run\nit where you want to know.\n\
         \n\
         ## How it is measured\n\
         \n\
         Server and load run on one machine and talk over the loopback interface: the server on one processor, the load, which is \
         a\nsingle thread, on another. Every server works with one thread, but for `threads`, which has one for each connection. \
         echod\nruns once with each of its engines. `mio` is an edge-triggered loop in Rust, `tokio` the same on that runtime of one \
         thread,\nand `threads` has blocking calls alone; all three are in `benches/compare/src/bin` and read 64 KiB at once, `tokio`\nand `threads` into a buffer for each connection.\n\
         \n\
         What is sent differs at every position and on every connection, and every byte that comes back is compared with it. \
         A run\nin which one is wrong, missing or surplus has failed and is in no table.\n\
         \n\
         The servers take turns, A B C A B C, and each is started anew for each of its runs. Figures are medians over the \
         rounds.\nA ratio is to `{baseline}`: it is formed within a round and the median is taken of these, so that what the \
         machine\ndoes meanwhile falls out. In brackets is the middle half of the rounds' ratios; if it contains 1, there is no \
         difference\nthat this measurement could see.\n\
         \n\
         ## What the columns mean\n\
         \n\
         - **messages/s**, **MiB/s**, **connections/s**: what came back in a second. It is bounded by the load as much as by \
         the\n  server: where several servers come out alike, the load was what was slow, and only their cost tells them apart.\n\
         - **CPU µs**: processor time of the server's process, in the program and in the kernel, for each of them. On loopback \
         a\n  server also pays for the delivery of what it sends, which over a network the other end would do. Less is better.\n\
         - {instructions}\n\
         - **bytes/connection**: memory of the server's process, its proportional share (PSS), above what it had before anyone \
         was\n  connected; *silent*, after accepting; *used*, after one message on each. The kernel's own memory for sockets \
         is not in it.\n\
         \n\
         {sections}",
        instructions = instructions.replace('\n', "\n  "),
    )
}

fn date() -> String {
    let date = Command::new("date").args(["-u", "+%F"]).output();
    date.map_or_else(
        |_| "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease");
    release.map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// Their number, and the model as the kernel names it; not on every architecture it does.
fn processors() -> String {
    let all = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = all.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.and_then(|rest| rest.split_once(':'));
    let model = model.map_or(std::env::consts::ARCH, |(_, name)| name.trim());
    let lines = all.lines().filter(|line| line.starts_with("processor"));
    format!("{} x {model}", lines.count())
}
