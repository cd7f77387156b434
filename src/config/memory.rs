//! The most memory that a configuration allows, with the formula. Pure.

use super::descriptors::most_parting;
use super::quantity::write_size;
use super::{Config, Engine, Listener};
use crate::buffer::{TURN_MEMORY, URING_MEMORY};
use crate::worker::sources::{IDLE_MAX, SOURCE_MEMORY};

/// What one connection takes besides buffers: its state, its timer, its place in two tables, and the source
/// that it may be the only one of.
pub const CONNECTION_MEMORY: u64 = 400 + SOURCE_MEMORY;

/// What a session of TLS takes besides: its keys, or its handshake.
pub const SESSION_MEMORY: u64 = 8 << 10;

/// What a compressing connection takes besides what counts for `buffer_memory`.
pub const PACKING_MEMORY: u64 = 512;

/// What a worker takes besides where a listener speaks TLS: plain bytes of a receive, and what they are sealed into.
pub const SEALING_WORKER_MEMORY: u64 = 1 << 20;

/// What a worker takes besides where a listener compresses: plain bytes on their way, what they are packed into, and the state
/// by which a service speaks that waits for no frame.
pub const PACKING_WORKER_MEMORY: u64 = 2 << 20;

/// What the program takes that serves nobody: its code and what it reads of it, the log's queue, stacks.
pub const PROGRAM_MEMORY: u64 = 24 << 20;

/// What one prefix of `access` takes: in the configuration, in the tree that is asked, and both once more while a
/// reload replaces them.
pub const PREFIX_MEMORY: u64 = 400;

/// Which share of `buffer_memory` lies in holes between its blocks at most, before free memory is returned to the kernel.
const HOLES: u64 = 4;

/// The most memory that a configuration allows, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The daemon's own.
    pub ours: u64,
    /// The kernel's, for our sockets' queues.
    pub kernel: u64,
}

/// What one worker takes with this engine, however many peers it serves; where the daemon chooses, the most.
pub fn worker_memory(engine: Engine) -> u64 {
    match engine {
        Engine::Epoll => TURN_MEMORY.into(),
        Engine::IoUring | Engine::Auto => URING_MEMORY,
    }
}

/// Those that have our FIN take memory as well.
fn all_connections(max_connections: u32) -> u64 {
    u64::from(max_connections) + u64::from(most_parting(max_connections))
}

/// The most memory with so many workers and connections; `per_socket` is what the kernel allows each.
pub fn memory(config: &Config, workers: u32, max_connections: u32, per_socket: u64) -> Memory {
    let connections = all_connections(max_connections);
    Memory {
        ours: PROGRAM_MEMORY
            .saturating_add(config.buffer_memory)
            .saturating_add(config.buffer_memory / HOLES)
            .saturating_add(u64::from(workers) * worker_memory(config.engine))
            .saturating_add(sealing_workers(config, workers) * SEALING_WORKER_MEMORY)
            .saturating_add(packing_workers(config, workers) * PACKING_WORKER_MEMORY)
            .saturating_add(connections * CONNECTION_MEMORY)
            .saturating_add(sessions(config, connections) * SESSION_MEMORY)
            .saturating_add(packing(config, connections) * PACKING_MEMORY)
            .saturating_add(rated(config) * IDLE_MAX as u64 * SOURCE_MEMORY)
            .saturating_add(prefixes(config) * PREFIX_MEMORY),
        kernel: connections.saturating_mul(per_socket),
    }
}

fn speaks_tls(listener: &Listener) -> bool {
    listener.tls.is_some()
}

fn compresses(listener: &Listener) -> bool {
    listener.compression.method.is_some()
}

/// The workers that have to do with TLS: all, or none.
fn sealing_workers(config: &Config, workers: u32) -> u64 {
    u64::from(config.listeners.iter().any(speaks_tls)) * u64::from(workers)
}

/// The workers that have to do with compression: all, or none.
fn packing_workers(config: &Config, workers: u32) -> u64 {
    u64::from(config.listeners.iter().any(compresses)) * u64::from(workers)
}

/// Most connections that speak TLS, of so many.
fn sessions(config: &Config, connections: u64) -> u64 {
    most_of(config, connections, speaks_tls)
}

/// Most connections that compress, of so many.
fn packing(config: &Config, connections: u64) -> u64 {
    most_of(config, connections, compresses)
}

/// Most connections of some listeners, of so many.
fn most_of(config: &Config, connections: u64, are_meant: impl Fn(&Listener) -> bool) -> u64 {
    let listeners = config.listeners.iter();
    let most = listeners.filter(|listener| are_meant(listener));
    let most = most.map(|listener| {
        listener
            .max_connections
            .map_or(connections, |most| most.get().into())
    });
    most.fold(0, u64::saturating_add).min(connections)
}

/// Listeners that remember sources without a connection, for their rates.
fn rated(config: &Config) -> u64 {
    let rated = config
        .listeners
        .iter()
        .filter(|listener| listener.rate.connections.is_some() || listener.rate.bytes.is_some());
    rated.count() as u64
}

/// Prefixes of all listeners.
fn prefixes(config: &Config) -> u64 {
    let listeners = config.listeners.iter();
    let all = listeners.map(|listener| listener.access.allow.len() + listener.access.deny.len());
    all.sum::<usize>() as u64
}

/// What the kernel allows one socket: the last words of `net.ipv4.tcp_rmem` and `tcp_wmem`, together.
pub fn per_socket(tcp_rmem: &str, tcp_wmem: &str) -> Option<u64> {
    let most = |three: &str| three.split_whitespace().nth(2)?.parse::<u64>().ok();
    most(tcp_rmem)?.checked_add(most(tcp_wmem)?)
}

/// The memory figures as TOML comments, with the formula, so that nobody has to believe them.
pub(super) fn print_memory(
    config: &Config,
    workers: u32,
    max_connections: u32,
    per_socket: Option<u64>,
) -> String {
    let figures = memory(config, workers, max_connections, per_socket.unwrap_or(0));
    let mut out = format!(
        "# memory, at most: {} of our own\n#   = program {} + buffer_memory {} and a quarter for holes in it + {workers} workers * {} ({}) + ({max_connections} + {} parting) connections * {CONNECTION_MEMORY}B + {} rated listeners * {IDLE_MAX} sources * {SOURCE_MEMORY}B + {} prefixes * {PREFIX_MEMORY}B\n",
        about(figures.ours),
        write_size(PROGRAM_MEMORY),
        write_size(config.buffer_memory),
        write_size(worker_memory(config.engine)),
        match config.engine {
            Engine::Auto => "engine io_uring, if it is that",
            Engine::IoUring => "engine io_uring",
            Engine::Epoll => "engine epoll",
        },
        most_parting(max_connections),
        rated(config),
        prefixes(config),
    );
    let connections = all_connections(max_connections);
    for (count, what, each) in [
        (
            sealing_workers(config, workers),
            "workers with TLS",
            SEALING_WORKER_MEMORY,
        ),
        (
            packing_workers(config, workers),
            "workers with compression",
            PACKING_WORKER_MEMORY,
        ),
        (
            sessions(config, connections),
            "sessions of TLS",
            SESSION_MEMORY,
        ),
        (
            packing(config, connections),
            "that compress",
            PACKING_MEMORY,
        ),
    ] {
        if count > 0 {
            // Before the line's end.
            out.pop();
            out.push_str(&format!(" + {count} {what} * {}\n", write_size(each)));
        }
    }
    let kernel = match per_socket {
        Some(each) => format!(
            "# and {} of the kernel's\n#   = ({max_connections} + {} parting) connections * {} (tcp_rmem[2] + tcp_wmem[2]), never above net.ipv4.tcp_mem\n",
            about(figures.kernel),
            most_parting(max_connections),
            about(each),
        ),
        None => {
            "# and the kernel's, which cannot be told: net.ipv4.tcp_rmem is not readable\n".into()
        }
    };
    out.push_str(&kernel);
    out
}

/// A size for people: one digit after the point is as much as a bound deserves.
fn about(bytes: u64) -> String {
    bytesize::ByteSize(bytes).to_string().replace(' ', "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compression::Method;

    #[test]
    fn memory_is_the_sum_of_what_the_formula_names() {
        let config = Config::builtin();
        assert_eq!(
            memory(&config, 4, 10_000, 10 << 20),
            Memory {
                ours: (24 << 20) + (256 << 20) + (64 << 20) + 4 * (512 << 10) + 11_250 * 650,
                kernel: 11_250 * (10 << 20),
            }
        );
    }

    #[test]
    fn the_engine_says_what_a_worker_takes_and_auto_is_the_most_of_both() {
        let with = |engine| Config {
            engine,
            ..Config::builtin()
        };
        let ours = |engine| memory(&with(engine), 4, 1, 0).ours;
        let epoll = ours(Engine::Epoll);
        assert_eq!(
            ours(Engine::IoUring) - epoll,
            4 * ((34 << 20) - (512 << 10))
        );
        assert_eq!(ours(Engine::Auto), ours(Engine::IoUring));
        let text = |engine| print_memory(&with(engine), 2, 100, None);
        assert!(text(Engine::IoUring).contains("2 workers * 34MiB (engine io_uring) +"));
        assert!(
            text(Engine::Auto).contains("2 workers * 34MiB (engine io_uring, if it is that) +")
        );
    }

    #[test]
    fn a_listener_with_a_rate_remembers_sources() {
        let ours = |config: &Config| memory(config, 1, 1, 0).ours;
        let mut config = Config::builtin();
        let before = ours(&config);
        let per = std::time::Duration::from_secs(1);
        config.listeners[0].rate.bytes = Some(crate::config::ByteRate { bytes: 1, per });
        assert_eq!(ours(&config) - before, 16_384 * 250);
    }

    #[test]
    fn a_listener_that_speaks_tls_has_sessions() {
        let with = |keys: &str| {
            let text = format!(
                "[[listener]]\n{keys}\ntls.certificates = [{{ certificate = '/c', key = '/k' }}]\n"
            );
            Config::parse(&text, std::path::Path::new("x.toml")).expect("valid")
        };
        let (any, few) = (with(""), with("max_connections = 10"));
        let ours = |config: &Config| memory(config, 1, 100, 0).ours;
        assert_eq!(ours(&any) - ours(&few), (90 + 64) * SESSION_MEMORY);
        assert_eq!(
            ours(&few) - ours(&Config::defaults()),
            SEALING_WORKER_MEMORY + 10 * SESSION_MEMORY
        );
        let text = print_memory(&few, 2, 100, None);
        let of_tls = " + 2 workers with TLS * 1MiB + 10 sessions of TLS * 8KiB\n#";
        assert!(text.contains(of_tls), "{text}");
    }

    #[test]
    fn a_listener_that_compresses_takes_a_little_for_each() {
        let mut config = Config::builtin();
        let plain = memory(&config, 1, 100, 0).ours;
        config.listeners[0].compression.method = Some(Method::Gzip);
        let connections = 100 + u64::from(most_parting(100));
        assert_eq!(
            memory(&config, 1, 100, 0).ours - plain,
            PACKING_WORKER_MEMORY + connections * PACKING_MEMORY
        );
        let text = print_memory(&config, 1, 100, None);
        let of_packing = " + 1 workers with compression * 2MiB + 164 that compress * 512B\n#";
        assert!(text.contains(of_packing), "{text}");
    }

    #[test]
    fn the_kernels_share_is_the_most_of_both_queues() {
        assert_eq!(
            per_socket("4096\t131072\t6291456\n", "4096\t16384\t4194304\n"),
            Some(10_485_760)
        );
        assert_eq!(per_socket("4096 131072", "4096 16384 4194304"), None);
        assert_eq!(per_socket("", ""), None);
    }

    #[test]
    fn the_figures_are_comments_with_their_formula() {
        let text = print_memory(&Config::builtin(), 2, 100, Some(1 << 20));
        assert!(text.lines().all(|line| line.starts_with('#')));
        assert!(text.contains("2 workers * 512KiB (engine epoll) +"));
        assert!(text.contains("(100 + 64 parting) connections * 650B"));
        assert!(print_memory(&Config::builtin(), 2, 100, None).contains("cannot be told"));
    }
}
