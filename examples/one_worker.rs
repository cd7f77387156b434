//! One worker on the main thread, and nothing else: `one_worker epoll|io_uring PORT BYTES`.
//!
//! For tools that look at a data path under a microscope and do not bear a second thread: valgrind holds its
//! one lock while a thread waits in io_uring_enter(2), so that the whole daemon under it never becomes ready.
//! Serves 127.0.0.1:PORT until it has sent back so many bytes; no signal, no privilege, no record is looked after.

use std::error::Error;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use echod::buffer::Memory;
use echod::config::Config;
use echod::connection::Limits;
use echod::driver::Driver;
use echod::driver::epoll::EpollDriver;
use echod::driver::uring::UringDriver;
use echod::logging::{Echo, Log, Paths};
use echod::metrics::Counts;
use echod::service::Service;
use echod::service::whoami::About;
use echod::tick::Tick;
use echod::worker::admission::Admission;
use echod::worker::gate::{Gate, Rules};
use echod::worker::orders::{Listener, Order, Plan, Socket, bell};
use echod::worker::{Desk, Shared, Worker};

/// Most connections.
const CONNECTIONS: u32 = 1000;

type Common = Shared<Arc<OwnedFd>, OwnedFd>;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [engine, port, bytes] = &arguments[..] else {
        return Err("usage: one_worker epoll|io_uring PORT BYTES".into());
    };
    let bytes = bytes.parse()?;
    let socket = TcpListener::bind(("127.0.0.1", port.parse::<u16>()?))?;
    socket.set_nonblocking(true)?;
    let common = Arc::new(Common {
        admission: Admission::new(1, CONNECTIONS),
        memory: Memory::new(256 << 20),
        desks: [Desk::new()?].into(),
        bell: bell()?,
        stale: AtomicBool::new(true),
    });
    let put = |order| {
        common.desks[0]
            .mailbox
            .put(order)
            .map_err(|_| "the worker has returned")
    };
    put(Order::Adopt(Arc::new(plan(Arc::new(socket.into())))))?;
    let bell = common.desks[0].mailbox.bell();
    match engine.as_str() {
        "epoll" => serve(EpollDriver::new(bell)?, &common, bytes),
        "io_uring" => {
            let ring = UringDriver::rings(1, CONNECTIONS)?.pop().ok_or("no ring")?;
            serve(UringDriver::new(ring, bell)?, &common, bytes);
        }
        other => return Err(format!("no engine is called {other}").into()),
    }
    Ok(())
}

/// Serves as the daemon's threads do, until so many bytes are sent.
fn serve(
    driver: impl Driver<Listening = Arc<OwnedFd>, Stream = OwnedFd>,
    common: &Arc<Common>,
    bytes: u64,
) {
    let log = Log::open(&Config::builtin().log, Echo::Errors, Paths::default()).0;
    let mut worker = Worker::new(0, driver, Arc::clone(common), log, Tick::now());
    let counts = &common.desks[0].counts;
    while worker.turn() && Counts::sum([counts]).sent < bytes {}
}

/// One listener with the bounds that the daemon has by default.
fn plan(socket: Arc<OwnedFd>) -> Plan<Arc<OwnedFd>> {
    let config = Config::defaults();
    let listener = Listener {
        id: 0,
        name: "echo".into(),
        limits: Limits {
            idle: config.listeners[0].timeout.idle,
            stall: config.listeners[0].timeout.stall,
            ..Limits::unbounded(Service::Echo, config.listeners[0].buffer)
        },
        gate: Gate::new(1, config.listeners[0].source_prefix),
        rules: Rules::open(),
        refuse: None,
    };
    Plan {
        listeners: vec![Arc::new(listener)],
        sockets: vec![Socket {
            slot: 0,
            listener: 0,
            socket,
            handed: false,
        }],
        drain_idle: Duration::from_secs(1),
        drain_timeout: Duration::from_secs(30),
        log: config.log,
        pressure: config.pressure,
        about: About::default(),
    }
}
