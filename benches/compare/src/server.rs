//! One server, running: a process of its own, on a port of its own, ended when this is dropped.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::candidate::{Candidate, Program, arguments, config};
use crate::cpus::{Cpus, stay_on};

/// How long a server may take to answer its first connection.
const START: Duration = Duration::from_secs(20);

/// How long it may take to end when it is told to.
const END: Duration = Duration::from_secs(20);

/// How often its start or end is looked for.
const LOOK: Duration = Duration::from_millis(10);

/// How long it may take over one byte, before it is asked again.
const ANSWER: Duration = Duration::from_secs(2);

/// Connections that a server must have room for beside those of a workload: the ones that find out whether
/// it serves, and in churn those that the load has closed and the server has not yet. One that came while
/// all places were still taken would be refused, and rightly.
pub const SPARE: usize = 1_000;

/// A server did not begin to serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It ended instead.
    #[error("{said}")]
    Ended {
        /// Its last line, or its status if it said nothing.
        said: String,
    },
    /// It does not answer.
    #[error("it does not answer on port {0}")]
    Silent(u16),
    /// The kernel refused something.
    #[error("cannot start it: {0}")]
    Kernel(#[from] io::Error),
}

/// A server that serves.
#[derive(Debug)]
pub struct Server {
    child: Child,
    port: u16,
    stderr: File,
    _directory: TempDir,
}

impl Server {
    /// Starts it for so many connections, alone on its processor, and waits until it answers.
    pub fn start(
        candidate: &Candidate,
        cpus: Option<Cpus>,
        connections: usize,
    ) -> Result<Server, Error> {
        Server::start_under(&[], candidate, cpus, connections)
    }

    /// The same by another program, which is given the server's command as its last arguments.
    pub fn start_under(
        wrapper: &[&str],
        candidate: &Candidate,
        cpus: Option<Cpus>,
        connections: usize,
    ) -> Result<Server, Error> {
        let port = free_port()?;
        let directory = TempDir::new()?;
        let command = command(candidate, port, connections, directory.path())?;
        let words: Vec<&str> = wrapper
            .iter()
            .copied()
            .chain(command.iter().map(String::as_str))
            .collect();
        let stderr = tempfile::tempfile()?;
        let mut start = Command::new(words[0]);
        start
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr.try_clone()?)
            // Where echod has its control socket: it must not be in the way of one that serves.
            .env("RUNTIME_DIRECTORY", directory.path())
            // A Ctrl-C at the terminal is for us; the servers end with us.
            .process_group(0);
        // A process inherits where it may run.
        if let Some(cpus) = cpus {
            stay_on(cpus.server)?;
        }
        let child = start.spawn();
        if let Some(cpus) = cpus {
            stay_on(cpus.load)?;
        }
        let mut server = Server {
            child: child?,
            port,
            stderr,
            _directory: directory,
        };
        server.wait_until_it_serves()?;
        Ok(server)
    }

    /// Where it serves, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Holds it where it is: what happens meanwhile it finds all at once, when it may go on.
    pub fn hold(&self) -> io::Result<()> {
        kill(self.pid(), Signal::SIGSTOP)?;
        waitpid(self.pid(), Some(WaitPidFlag::WUNTRACED))?;
        Ok(())
    }

    /// Lets it go on.
    pub fn release(&self) -> io::Result<()> {
        Ok(kill(self.pid(), Signal::SIGCONT)?)
    }

    /// Waits until it ends by itself, which it has a reason to.
    pub fn wait_until_it_ends(mut self) -> io::Result<()> {
        let deadline = Instant::now() + END;
        while self.child.try_wait()?.is_none() && Instant::now() < deadline {
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// How it ended, if it has although nobody told it to.
    pub fn died(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(self.last_words(status))
    }

    fn wait_until_it_serves(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + START;
        loop {
            if let Some(said) = self.died() {
                return Err(Error::Ended { said });
            }
            if is_echoed(self.port).unwrap_or(false) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Error::Silent(self.port));
            }
            thread::sleep(LOOK);
        }
    }

    fn last_words(&mut self, status: ExitStatus) -> String {
        let said = self.said().unwrap_or_default();
        let last = said.lines().rfind(|line| !line.trim().is_empty());
        last.map_or_else(|| format!("it ended: {status}"), str::to_owned)
    }

    fn said(&mut self) -> io::Result<String> {
        let mut said = Vec::new();
        self.stderr.rewind()?;
        self.stderr.read_to_end(&mut said)?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    /// SIGTERM, and SIGKILL for one that does not mind it.
    fn terminate(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + END;
        if self.child.try_wait()?.is_none() {
            kill(self.pid(), Signal::SIGTERM)?;
        }
        while self.child.try_wait()?.is_none() {
            if Instant::now() >= deadline {
                self.child.kill()?;
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It is out of the way then, or the kernel has refused to end it.
        drop(self.terminate());
    }
}

/// Does a byte come back? The kernel accepts connections for a server that may yet fail to start.
fn is_echoed(port: u16) -> io::Result<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(&[1])?;
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    Ok(answer == [1])
}

/// A port that nobody uses now; the next one to ask gets another.
fn free_port() -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

/// The words that start a server; echod's configuration is written into the directory.
fn command(
    candidate: &Candidate,
    port: u16,
    connections: usize,
    directory: &Path,
) -> io::Result<Vec<String>> {
    match &candidate.program {
        Program::Command(command) => Ok(arguments(command, port)),
        Program::Echod { binary, engine } => {
            let file = directory.join("echod.toml");
            fs::write(&file, config(engine, port, connections + SPARE))?;
            let words = [binary.as_path(), "--config".as_ref(), file.as_path()];
            Ok(words.map(|word| word.display().to_string()).to_vec())
        }
    }
}
