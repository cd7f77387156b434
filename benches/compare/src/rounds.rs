//! Everybody in turn, several times: A B C, A B C, and so on.
//!
//! A machine's speed drifts by more than servers differ: other guests, temperature. Neighbours in time share
//! it, so servers are compared within a round, and the rounds with each other only by such ratios.

use crate::candidate::Candidate;
use crate::cpus::Cpus;
use crate::server::{self, Server};
use crate::workload::{Figures, Setting, Workload};

/// How one run went.
#[derive(Debug)]
pub enum Outcome {
    /// Every byte came back as it was sent.
    Done(Figures),
    /// The server cannot run on this kernel, and need not.
    Unavailable(String),
    /// Something came back that should not have, or did not; or the server does not run.
    Failed(String),
}

/// Runs a workload once, against a server that is started for it.
pub fn once(candidate: &Candidate, workload: &Workload, cpus: Cpus, setting: Setting) -> Outcome {
    let mut server = match Server::start(candidate, Some(cpus), workload.connections) {
        Ok(server) => server,
        Err(server::Error::Ended { said }) if candidate.is_optional => {
            return Outcome::Unavailable(said);
        }
        Err(error) => return Outcome::Failed(error.to_string()),
    };
    match workload.run(&server, setting) {
        Ok(figures) => Outcome::Done(figures),
        Err(fault) => Outcome::Failed(match server.died() {
            Some(said) => format!("{fault}; the server ended: {said}"),
            None => fault.to_string(),
        }),
    }
}

/// What each server came to in each round.
#[derive(Debug)]
pub struct Results {
    /// For each server that could run, one entry a round; `None`: that run failed.
    pub servers: Vec<(String, Vec<Option<Figures>>)>,
    /// The servers that could not run, and why.
    pub unavailable: Vec<(String, String)>,
    /// The runs that failed, and why.
    pub failures: Vec<String>,
}

/// Runs a workload so many times against every server.
pub fn all(
    candidates: &[Candidate],
    workload: &Workload,
    rounds: usize,
    cpus: Cpus,
    setting: Setting,
) -> Results {
    let mut results = Results {
        servers: Vec::new(),
        unavailable: Vec::new(),
        failures: Vec::new(),
    };
    let mut able: Vec<(&Candidate, Vec<Option<Figures>>)> =
        candidates.iter().map(|one| (one, Vec::new())).collect();
    for _ in 0..rounds {
        able.retain_mut(|(candidate, figures)| {
            match once(candidate, workload, cpus, setting) {
                Outcome::Done(run) => figures.push(Some(run)),
                Outcome::Failed(why) => {
                    let name = &candidate.name;
                    results
                        .failures
                        .push(format!("{name} {}: {why}", workload.name));
                    figures.push(None);
                }
                Outcome::Unavailable(why) => {
                    results.unavailable.push((candidate.name.clone(), why));
                    return false;
                }
            }
            true
        });
    }
    let named = |(candidate, figures): (&Candidate, _)| (candidate.name.clone(), figures);
    results.servers = able.into_iter().map(named).collect();
    results
}
