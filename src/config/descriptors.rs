//! How many connections the descriptor limit holds. Pure.

use super::error::Error;
use super::{Config, Objection};

/// Descriptors that are neither a connection's nor a worker's nor a configured address's: log,
/// control, signals and some to spare (32), so that the daemon never has to choose between a peer and
/// its own log; and sockets handed over (16), of which a check knows nothing.
pub const DESCRIPTOR_RESERVE: u64 = 32 + 16;

/// Descriptors of one worker: its driver's, its alarm and its bell, which io_uring has twice.
const WORKER_DESCRIPTORS: u64 = 4;

/// Most connections where nobody says how many: what a small host bears.
pub const AUTO_CONNECTIONS_MAX: u32 = 10_000;

/// Least connections that may have our FIN and not be counted any more.
const PARTING_MIN: u32 = 64;

/// How many connections the daemon will take. A number that does not fit is refused, because it would
/// be a promise that breaks under load.
pub fn effective_max_connections(
    config: &Config,
    workers: u16,
    descriptor_limit: u64,
) -> Result<u32, Error> {
    let reserve = reserve(config, workers);
    let fits = descriptor_limit.saturating_sub(reserve);
    let wanted = config.max_connections.map(u32::from);
    let refused = |wanted| {
        config.refuse(Objection::descriptors(
            wanted,
            descriptor_limit,
            fits,
            reserve,
        ))
    };
    match wanted {
        Some(wanted) if u64::from(wanted) <= fits => Ok(wanted),
        Some(_) => Err(refused(wanted)),
        None if fits == 0 => Err(refused(None)),
        None => {
            Ok(u32::try_from(fits)
                .map_or(AUTO_CONNECTIONS_MAX, |fits| fits.min(AUTO_CONNECTIONS_MAX)))
        }
    }
}

/// Most connections that have our FIN and are not counted any more: an eighth of `max_connections`, a few at
/// least, and as many as the descriptors beside it allow.
pub fn parting_connections(
    config: &Config,
    workers: u16,
    descriptor_limit: u64,
    max_connections: u32,
) -> u32 {
    let taken = reserve(config, workers) + u64::from(max_connections);
    let spare = u32::try_from(descriptor_limit.saturating_sub(taken)).unwrap_or(u32::MAX);
    most_parting(max_connections).min(spare)
}

/// The same, with descriptors enough.
pub(super) fn most_parting(max_connections: u32) -> u32 {
    (max_connections / 8).max(PARTING_MIN)
}

/// Descriptors that no connection can have.
fn reserve(config: &Config, workers: u16) -> u64 {
    let addresses = config
        .listeners
        .iter()
        .map(|listener| listener.address.len() as u64);
    DESCRIPTOR_RESERVE + u64::from(workers) * WORKER_DESCRIPTORS + addresses.sum::<u64>()
}
