//! The worker threads, as the supervisor sees them: started together, told things, and watched.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use nix::sys::eventfd::EventFd;
use nix::sys::resource::{Resource, getrlimit};

use crate::buffer::Memory;
use crate::config::{Config, parting_connections, worker_count};
use crate::driver::Driver;
use crate::driver::epoll::EpollDriver;
use crate::driver::uring::{Disabled, UringDriver};
use crate::logging::Log;
use crate::metrics::Counts;
use crate::tick::Tick;
use crate::worker::admission::Admission;
use crate::worker::orders::{Order, Plan, bell};
use crate::worker::pressure::Pressure;
use crate::worker::{Desk, Shared, Worker};

type Common = Shared<Arc<OwnedFd>, OwnedFd>;

/// What a worker's thread begins with.
struct Start {
    index: u16,
    common: Arc<Common>,
    log: Log,
    started: mpsc::Sender<io::Result<()>>,
}

impl Start {
    /// Serves over this driver until the worker is told to return; or tells why there is none.
    fn serve<D>(self, driver: io::Result<D>)
    where
        D: Driver<Listening = Arc<OwnedFd>, Stream = OwnedFd>,
    {
        let (started, driver) = match driver {
            Ok(driver) => (Ok(()), Some(driver)),
            Err(error) => (Err(error), None),
        };
        // Whoever waits for it may have given up: another worker could not start.
        let _ = self.started.send(started);
        if let Some(driver) = driver {
            Worker::new(self.index, driver, self.common, self.log, Tick::now()).run();
        }
    }
}

/// All workers. They are never joined: a process that ends does not wait for one that hangs.
#[derive(Debug)]
pub struct Workers {
    common: Arc<Common>,
    /// Pings that each was sent.
    asked: u64,
}

impl Workers {
    /// Starts the threads, each over a ring if there are rings, over epoll otherwise; they serve nothing
    /// until they are told to.
    ///
    /// # Errors
    /// When there are not enough descriptors, or threads.
    pub fn spawn(
        config: &Config,
        max_connections: u32,
        rings: Option<Vec<Disabled>>,
        log: &Log,
    ) -> io::Result<Workers> {
        let workers = worker_count(config);
        let desks: io::Result<Box<[_]>> = (0..workers).map(|_| Desk::new()).collect();
        let common = Arc::new(Common {
            admission: Admission::new(workers, max_connections),
            memory: Memory::new(config.buffer_memory),
            desks: desks?,
            bell: bell()?,
            // Nobody has been shown a status, and nobody asks for one before the start is over.
            stale: AtomicBool::new(true),
        });
        set_bounds(&common, config, max_connections);
        let (started, reports) = mpsc::channel();
        let mut rings = rings.map(Vec::into_iter);
        for index in 0..workers {
            let start = Start {
                index,
                common: Arc::clone(&common),
                log: log.clone(),
                started: started.clone(),
            };
            let ring = rings.as_mut().and_then(Iterator::next);
            let run = move || {
                let common = Arc::clone(&start.common);
                let bell = common.desks[index as usize].mailbox.bell();
                match ring {
                    Some(ring) => start.serve(UringDriver::new(ring, bell)),
                    None => start.serve(EpollDriver::new(bell)),
                }
            };
            thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(run)?;
        }
        // So that the threads alone hold it: who waits for one that is gone hears so.
        drop(started);
        for _ in 0..workers {
            reports
                .recv()
                .unwrap_or_else(|_| Err(io::Error::other("a worker ended at its start")))?;
        }
        Ok(Workers { common, asked: 0 })
    }

    /// What their buffers are charged to.
    pub fn memory(&self) -> &Memory {
        &self.common.memory
    }

    /// Rung when the status is out of date, memory is to be returned, or a worker has returned.
    pub fn bell(&self) -> &EventFd {
        &self.common.bell
    }

    /// Has all of them serve this.
    pub fn adopt(&self, plan: Plan<Arc<OwnedFd>>) {
        let plan = Arc::new(plan);
        self.tell(|| Order::Adopt(Arc::clone(&plan)));
    }

    /// Replaces the bounds that hold for all of them together.
    pub fn set_bounds(&self, config: &Config, max_connections: u32) {
        set_bounds(&self.common, config, max_connections);
    }

    /// Has them accept nobody and return with their last connections.
    pub fn drain(&self, config: &Config) {
        let (idle, timeout) = (config.drain_idle, config.drain_timeout);
        self.tell(|| Order::Drain { idle, timeout });
    }

    /// Has them reset what is left, and return.
    pub fn stop(&self) {
        self.tell(|| Order::Stop);
    }

    /// Asks each to show that it still turns.
    pub fn ping(&mut self) {
        self.asked += 1;
        self.tell(|| Order::Ping);
    }

    /// The workers that have not answered the last ping, and have not returned either.
    pub fn silent(&self) -> Vec<usize> {
        let silent = |(index, desk): (usize, &Desk<_, _>)| {
            let turns = desk.answered.load(Ordering::Acquire) == self.asked;
            (!turns && !desk.returned.load(Ordering::Acquire)).then_some(index)
        };
        self.common
            .desks
            .iter()
            .enumerate()
            .filter_map(silent)
            .collect()
    }

    /// Have all returned?
    pub fn have_returned(&self) -> bool {
        self.common
            .desks
            .iter()
            .all(|desk| desk.returned.load(Ordering::Acquire))
    }

    /// What is strict when there are many connections.
    pub fn pressure(&self) -> &Pressure {
        self.common.admission.pressure()
    }

    /// What all of them have counted.
    pub fn counts(&self) -> Counts {
        Counts::sum(self.common.desks.iter().map(|desk| &desk.counts))
    }

    /// Has something been counted since this was last asked? The answer yes is due only once: the next
    /// change rings the bell.
    pub fn take_stale(&self) -> bool {
        self.common.stale.swap(false, Ordering::AcqRel)
    }

    fn tell(&self, order: impl Fn() -> Order<Arc<OwnedFd>, OwnedFd>) {
        for desk in &self.common.desks {
            // A worker that has returned has nothing left to obey with.
            let _ = desk.mailbox.put(order());
        }
    }
}

/// Puts the bounds that hold for all workers together in force. Whether there is pressure now, the workers judge
/// when they adopt the plan.
fn set_bounds(common: &Common, config: &Config, max_connections: u32) {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    let parting = parting_connections(config, worker_count(config), limit, max_connections);
    let admission = &common.admission;
    admission.all().set_max(max_connections);
    admission.parting().set_max(parting);
    admission
        .pressure()
        .adopt(&config.pressure, max_connections);
    common.memory.set_limit(config.buffer_memory);
}
