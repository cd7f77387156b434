//! The table of workloads, and how one of them is run against a server.

use std::thread;
use std::time::{Duration, Instant};

use crate::churn::Churn;
use crate::conversation::{Fault, cannot};
use crate::load::{Load, Pace};
use crate::meter::{Cost, Meter, memory};
use crate::server::Server;

/// What is sent first and not counted: both sides find their rhythm.
const WARM_UP: Duration = Duration::from_millis(100);

/// A message, in bytes.
const MESSAGE: u64 = 64;

const MEBIBYTE: u64 = 1 << 20;

/// So many of a crowd are opened before the server has dealt with them: more than its queue holds would be
/// turned away for a second, and then it is the queue that was measured.
const STEP: usize = 500;

/// What the load does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Messages, and the next one for each that came back.
    Exchange {
        /// So many are outstanding on each connection.
        depth: u64,
    },
    /// Both directions full.
    Stream,
    /// Connections that carry one message each and are replaced.
    Churn,
    /// Connections on which nothing happens.
    Idle,
    /// All at once: connect, one message each, close.
    Crowd,
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it is, for a reader of the results.
    pub about: &'static str,
    /// Connections that are open at a time.
    pub connections: usize,
    /// What the load does.
    pub shape: Shape,
}

/// All of them, in the order in which they are run.
pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "rr1",
        about: "1 connection, one message of 64 bytes on its way",
        connections: 1,
        shape: Shape::Exchange { depth: 1 },
    },
    Workload {
        name: "rr50",
        about: "50 connections, one message of 64 bytes on its way on each",
        connections: 50,
        shape: Shape::Exchange { depth: 1 },
    },
    Workload {
        name: "rr500",
        about: "500 connections, one message of 64 bytes on its way on each",
        connections: 500,
        shape: Shape::Exchange { depth: 1 },
    },
    Workload {
        name: "pipe",
        about: "50 connections, 16 messages of 64 bytes on their way on each",
        connections: 50,
        shape: Shape::Exchange { depth: 16 },
    },
    Workload {
        name: "stream",
        about: "4 connections, both directions as full as the sockets hold, writes of 64 KiB",
        connections: 4,
        shape: Shape::Stream,
    },
    Workload {
        name: "churn",
        about: "32 connections at a time: connect, send 64 bytes, receive them, close",
        connections: 32,
        shape: Shape::Churn,
    },
    Workload {
        name: "idle",
        about: "10,000 connections on which nothing happens; then one message of 64 bytes on each",
        connections: 10_000,
        shape: Shape::Idle,
    },
    Workload {
        name: "crowd",
        about: "15,000 connections at once: each has one message of 64 bytes back, then all are closed",
        connections: 15_000,
        shape: Shape::Crowd,
    },
];

/// Those of a short run, which is about bytes and not about speed.
pub const SHORT: &[&str] = &["rr50", "pipe", "stream", "churn"];

/// Connections of a crowd in a short run.
pub const SHORT_CROWD: usize = 2_000;

/// Something that is counted of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// Units in a second.
    Rate,
    /// Microseconds of the server's CPU time for each unit.
    Cpu,
    /// Instructions in the server for each unit.
    User,
    /// Instructions in the kernel, on the server's behalf, for each unit.
    Kernel,
    /// Bytes of memory for each connection on which nothing has happened.
    Opened,
    /// Bytes of memory for each connection after a message.
    Used,
}

/// What was counted of one run.
pub type Figures = Vec<(Measure, f64)>;

/// What must be known of a machine for a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// How long is counted.
    pub time: Duration,
    /// Can instructions be counted?
    pub counts_instructions: bool,
}

impl Workload {
    /// The row of this name.
    pub fn named(name: &str) -> Option<Workload> {
        WORKLOADS.iter().find(|one| one.name == name).copied()
    }

    /// What is counted, in the singular.
    pub fn unit(&self) -> &'static str {
        match self.shape {
            Shape::Exchange { .. } => "message",
            Shape::Stream => "MiB",
            Shape::Churn | Shape::Idle | Shape::Crowd => "connection",
        }
    }

    /// Runs it once.
    pub fn run(&self, server: &Server, setting: Setting) -> Result<Figures, Fault> {
        match self.shape {
            Shape::Exchange { depth } => {
                let size = MESSAGE;
                self.load(server, setting, Pace::Messages { size, depth }, size)
            }
            Shape::Stream => self.load(server, setting, Pace::Flood, MEBIBYTE),
            Shape::Churn => self.churn(server, setting),
            Shape::Idle => self.idle(server),
            Shape::Crowd => self.crowd(server, setting),
        }
    }

    fn load(
        &self,
        server: &Server,
        setting: Setting,
        pace: Pace,
        unit: u64,
    ) -> Result<Figures, Fault> {
        let mut meter = meter(server, setting)?;
        let mut load = Load::new(server.port())?;
        load.open(self.connections)?;
        load.begin(pace)?;
        load.run(pace, WARM_UP)?;
        meter.begin().map_err(cannot("measure"))?;
        let (began, before) = (Instant::now(), load.echoed());
        load.run(pace, setting.time)?;
        let (time, bytes) = (began.elapsed(), load.echoed() - before);
        let cost = meter.end().map_err(cannot("measure"))?;
        load.fall_silent();
        load.settle()?;
        load.finish()?;
        Ok(figures(bytes as f64 / unit as f64, time, cost))
    }

    fn churn(&self, server: &Server, setting: Setting) -> Result<Figures, Fault> {
        let mut meter = meter(server, setting)?;
        let mut churn = Churn::open(server.port(), self.connections, MESSAGE)?;
        churn.run(WARM_UP)?;
        meter.begin().map_err(cannot("measure"))?;
        let (began, before) = (Instant::now(), churn.done());
        churn.run(setting.time)?;
        let (time, done) = (began.elapsed(), churn.done() - before);
        let cost = meter.end().map_err(cannot("measure"))?;
        churn.finish()?;
        Ok(figures(done as f64, time, cost))
    }

    fn idle(&self, server: &Server) -> Result<Figures, Fault> {
        let memory = || memory(server.pid()).map_err(cannot("measure memory"));
        let before = memory()?;
        let mut load = Load::new(server.port())?;
        for step in self.steps() {
            load.open(step)?;
            wait_until_quiet(server)?;
        }
        let opened = memory()?;
        load.begin(Pace::Messages {
            size: MESSAGE,
            depth: 1,
        })?;
        load.settle()?;
        wait_until_quiet(server)?;
        let used = memory()?;
        load.finish()?;
        let each = |after: u64| after.saturating_sub(before) as f64 / self.connections as f64;
        Ok(vec![
            (Measure::Opened, each(opened)),
            (Measure::Used, each(used)),
        ])
    }

    fn crowd(&self, server: &Server, setting: Setting) -> Result<Figures, Fault> {
        let mut meter = meter(server, setting)?;
        meter.begin().map_err(cannot("measure"))?;
        let began = Instant::now();
        let mut load = Load::new(server.port())?;
        for step in self.steps() {
            load.open(step)?;
            load.begin(Pace::Messages {
                size: MESSAGE,
                depth: 1,
            })?;
            load.settle()?;
        }
        load.finish()?;
        let time = began.elapsed();
        let cost = meter.end().map_err(cannot("measure"))?;
        Ok(figures(self.connections as f64, time, cost))
    }

    /// Its connections, so many at a time.
    fn steps(&self) -> impl Iterator<Item = usize> + use<> {
        let all = self.connections;
        (0..all).step_by(STEP).map(move |at| STEP.min(all - at))
    }
}

fn meter(server: &Server, setting: Setting) -> Result<Meter, Fault> {
    Meter::attach(server.pid(), setting.counts_instructions).map_err(cannot("measure"))
}

/// What so many units in that time, at that cost, are for each unit.
fn figures(units: f64, time: Duration, cost: Cost) -> Figures {
    let mut figures = vec![
        (Measure::Rate, units / time.as_secs_f64()),
        (Measure::Cpu, cost.cpu.as_secs_f64() * 1e6 / units),
    ];
    if let Some(instructions) = cost.instructions {
        figures.push((Measure::User, instructions.user / units));
        figures.push((Measure::Kernel, instructions.kernel / units));
    }
    figures
}

/// Connecting is done before the server has accepted: waits until it has nothing left to do.
fn wait_until_quiet(server: &Server) -> Result<(), Fault> {
    let clock = Meter::attach(server.pid(), false).map_err(cannot("measure"))?;
    let cpu = || clock.cpu().map_err(cannot("measure"));
    let mut before = cpu()?;
    loop {
        thread::sleep(Duration::from_millis(20));
        let now = cpu()?;
        // Less than a hundredth of a processor: a timer, and no connections.
        if now - before < Duration::from_micros(200) {
            return Ok(());
        }
        before = now;
    }
}
