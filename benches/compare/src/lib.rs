//! Measures echod beside other echo servers, and looks at every byte that comes back.
//!
//! | file | what is in it |
//! |---|---|
//! | [`workload`] | the table of workloads: what the load does, and what is counted |
//! | [`candidate`] | the servers that are compared, and how each is started |
//! | [`server`] | one of them, running: a process of its own for each run |
//! | [`load`] | many connections in one loop: request and response, streams, crowds |
//! | [`churn`] | connections that come and go |
//! | [`conversation`] | one connection: sends, and compares what comes back |
//! | [`pattern`] | what every connection sends *(pure)* |
//! | [`meter`] | what a server used: CPU time, memory, and instructions by way of [`perf`] |
//! | [`rounds`] | everybody in turn, several times |
//! | [`report`] | figures as tables *(pure)*; [`page`]: the tables as a page to be read |
//! | [`statistics`] | medians and quartiles *(pure)* |
//! | [`cpus`], [`descriptors`] | processors and descriptors |
//!
//! `src/bin/` has the servers that echod is compared with, and `gate`, which counts its instructions.

pub mod candidate;
pub mod churn;
pub mod conversation;
pub mod cpus;
pub mod descriptors;
pub mod load;
pub mod meter;
pub mod page;
pub mod pattern;
pub mod perf;
pub mod report;
pub mod rounds;
pub mod server;
pub mod statistics;
pub mod workload;

use std::env;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};

use socket2::{Domain, Socket, Type};

/// What each server that is compared reads at once.
pub const BUFFER: usize = 64 * 1024;

/// Connections that wait to be accepted: as many as echod lets wait.
const BACKLOG: i32 = 4096;

/// How each of them begins: it listens on the port that is its only argument, with as many descriptors as
/// it may have.
pub fn listen() -> io::Result<TcpListener> {
    descriptors::raise()?;
    let port = env::args().nth(1).and_then(|port| port.parse().ok());
    let port = port.ok_or_else(|| io::Error::other("the port to serve is the one argument"))?;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::LOCALHOST, port).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
