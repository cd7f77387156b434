//! echod: a TCP far end that sends back the same bytes.
//!
//! **Bytes go round one way, orders go down one way; decisions are pure, only the edges touch the
//! kernel.** The rooms, in the order in which to read them:
//!
//! | room | what is in it |
//! |---|---|
//! | [`cli`] | the command line, as a command |
//! | [`supervisor`] | the main thread: start, reload, drain, stop; never sees a peer's byte |
//! | [`config`] | the file, read into values that cannot be wrong |
//! | [`listener`] | where listening sockets come from: handed to us, or bound by us |
//! | [`privilege`] | becomes the unprivileged user, then proves that there is no way back |
//! | [`lockdown`] | no connection of its own and no further io_uring rings for this process, whoever asks |
//! | [`worker`] | one thread: one driver, one table of connections, one loop |
//! | [`connection`] | one peer's life, without a socket *(pure)* |
//! | [`proxy`] | the header by which a balancer says for whom it speaks *(pure)* |
//! | [`tls`] | ciphertext on one side, plaintext on the other |
//! | [`compression`] | compressed bytes on one side, plain ones on the other *(pure)* |
//! | [`service`] | what the daemon answers *(pure)* |
//! | [`driver`] | thin shells around the kernel: epoll, io_uring, and a simulated network for tests |
//! | [`buffer`] | bytes on their way, and the bound on all of them together |
//! | [`logging`] | one line per event: to the journal, syslog or standard error |
//! | [`control`] | the local socket: reload |
//! | [`metrics`] | counters of each worker, summed when somebody reads them |
//! | [`tick`] | time, in milliseconds since boot |
//! | [`bucket`] | how often, and how fast: token buckets *(pure)* |
//! | `sys` | every unsafe block, each behind a safe function |
//!
//! ```text
//! main -> supervisor -> listener, privilege, lockdown, control
//!              | orders
//!            worker -> driver -> sys -> kernel
//!              +----> connection -> proxy, tls::session, compression, service
//! ```
//!
//! `buffer`, `config`, `logging`, `metrics` and `tick` serve everyone. One byte, there and back:
//!
//! ```text
//!            Completion    handle_*
//! kernel -> driver ----> worker ----> connection -> service
//! kernel <- driver <---- worker <---- connection <----'
//!             send      poll_want      outbox
//! ```

// They panic when nobody reads; what ends the process says so with `write`.
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

#[cfg(not(target_os = "linux"))]
compile_error!("echod is for Linux: epoll, socket activation and systemd are what it is made of");

pub mod bucket;
pub mod buffer;
mod cause;
pub mod cli;
pub mod compression;
pub mod config;
pub mod connection;
pub mod control;
pub mod driver;
pub mod listener;
pub mod lockdown;
pub mod logging;
pub mod metrics;
pub mod privilege;
pub mod proxy;
pub mod service;
pub mod supervisor;
mod sys;
pub mod tick;
pub mod tls;
pub mod worker;
