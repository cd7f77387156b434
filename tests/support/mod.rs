//! The real daemon, started by a test and ended with it.
//!
//! A [`Daemon`] has directories, a notify socket and a configuration file of its own, so any number of
//! them run side by side. Ports are 0 and read back. Nothing here sleeps: threads read what the daemon
//! says, and whoever waits is woken by it, or fails after [`PATIENCE`]. What a daemon said is shown
//! when its test fails.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::env;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{Pid, User, close, geteuid};
use tempfile::TempDir;

/// The longest that a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// One listener on both families, at ports that the kernel chooses.
pub const ECHO: &str = "[[listener]]\nname = \"echo\"\naddress = [\"[::]:0\", \"127.0.0.1:0\"]\n";

/// Who the daemon becomes: there is no user echod where tests run.
const USER: &str = "nobody";
const GROUP: &str = "nogroup";

/// Held while a process is started: descriptors that it is to inherit would reach any other one that
/// is started meanwhile.
static STARTING: Mutex<()> = Mutex::new(());

/// Where descriptors wait for bash, which moves them to 3 and on.
const PARKED: RawFd = 100;

/// What a daemon has said, and that it ended.
#[derive(Debug, Default)]
struct Heard {
    lines: Vec<String>,
    notified: Vec<String>,
    /// Standard error is closed: there will be no further line.
    silent: bool,
    exited: bool,
}

#[derive(Debug, Default)]
struct Ears {
    heard: Mutex<Heard>,
    news: Condvar,
}

impl Ears {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, news: impl FnOnce(&mut Heard)) {
        news(&mut self.lock());
        self.news.notify_all();
    }

    /// What `find` finds, as soon as it does; `Err`: it did not in time, or never will.
    fn wait<T>(
        &self,
        find: impl Fn(&Heard) -> Option<T>,
        hopeless: impl Fn(&Heard) -> bool,
    ) -> Result<T, &'static str> {
        let deadline = Instant::now() + PATIENCE;
        let mut heard = self.lock();
        loop {
            if let Some(found) = find(&heard) {
                return Ok(found);
            }
            if hopeless(&heard) {
                return Err("it will not come any more");
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err("it did not come in time");
            }
            heard = match self.news.wait_timeout(heard, left) {
                Ok((heard, _)) => heard,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

/// How a daemon is to be started.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    config: Option<String>,
    verbatim: bool,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    wrapper: Vec<OsString>,
    handed: Vec<(String, Arc<OwnedFd>)>,
    without_notify: bool,
    without_ready: bool,
}

impl Builder {
    /// The file. Unless it says so itself, the daemon becomes `nobody` and its log is standard error:
    /// see [`completed`].
    pub fn config(mut self, text: &str) -> Builder {
        self.config = Some(text.to_owned());
        self
    }

    /// The file is written as it is.
    pub fn verbatim(mut self) -> Builder {
        self.verbatim = true;
        self
    }

    /// One argument more; after `--config FILE`, if there is a configuration.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Builder {
        self.args.push(arg.into());
        self
    }

    /// A variable of its environment.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Builder {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Started by this command, which must become the daemon: `prlimit --nofile=100`.
    pub fn wrapper<T: Into<OsString>>(mut self, command: impl IntoIterator<Item = T>) -> Builder {
        self.wrapper = command.into_iter().map(Into::into).collect();
        self
    }

    /// Hands this descriptor over as a service manager would: the first is 3, the next 4.
    pub fn hand_over(mut self, name: &str, socket: impl AsFd) -> Builder {
        let socket = socket.as_fd().try_clone_to_owned().expect("a descriptor");
        self.handed.push((name.to_owned(), Arc::new(socket)));
        self
    }

    /// Nobody listens to its notifications; it is ready when the log says so.
    pub fn without_notify(mut self) -> Builder {
        self.without_notify = true;
        self
    }

    /// Does not wait until it is ready: it may refuse to start.
    pub fn without_ready(mut self) -> Builder {
        self.without_ready = true;
        self
    }

    /// Starts it, and waits until it is ready.
    pub fn start(self) -> Daemon {
        let directory = TempDir::new().expect("a directory");
        let runtime = directory.path().join("run");
        let config = directory.path().join("echod.toml");
        fs::create_dir(&runtime).expect("a runtime directory");
        // The daemon reads and writes here after it has become somebody else.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("chmod");
        if geteuid().is_root() {
            let user = User::from_name(USER).expect("look up").expect("a user");
            let ids = (Some(user.uid.as_raw()), Some(user.gid.as_raw()));
            chown(&runtime, ids.0, ids.1).expect("chown");
        }
        let mut daemon_args: Vec<OsString> = vec![env!("CARGO_BIN_EXE_echod").into()];
        let mut text = None;
        if let Some(given) = &self.config {
            let whole = match self.verbatim {
                true => given.clone(),
                false => completed(given),
            };
            replace(&config, &whole);
            daemon_args.extend(["--config".into(), config.clone().into()]);
            text = Some(whole);
        }
        daemon_args.extend(self.args.iter().cloned());

        let ears = Arc::new(Ears::default());
        let mut env = vec![("RUNTIME_DIRECTORY".into(), runtime.clone().into())];
        let notify = directory.path().join("notify");
        if !self.without_notify {
            let socket = UnixDatagram::bind(&notify).expect("a notify socket");
            fs::set_permissions(&notify, Permissions::from_mode(0o777)).expect("chmod");
            env.push(("NOTIFY_SOCKET".into(), notify.clone().into()));
            let ears = Arc::clone(&ears);
            thread::spawn(move || hear_notifications(&socket, &ears));
        }
        env.extend(self.env.iter().cloned());
        let whole: Vec<_> = self.wrapper.iter().cloned().chain(daemon_args).collect();
        let mut child = spawn(whole, env, &self.handed);
        let stderr = child.stderr.take().expect("piped");
        let (pid, ends) = (pid_of(&child), Arc::clone(&ears));
        thread::spawn(move || {
            // Not reaped, so that its number stays its own until the test is over.
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
            while waitid(Id::Pid(pid), flags) == Err(Errno::EINTR) {}
            ends.tell(|heard| heard.exited = true);
        });
        let lines = Arc::clone(&ears);
        thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                lines.tell(|heard| heard.lines.push(line));
            }
            lines.tell(|heard| heard.silent = true);
        });
        let daemon = Daemon {
            child,
            ears,
            directory,
            runtime,
            config,
            verbatim: self.verbatim,
            notify: (!self.without_notify).then_some(notify),
        };
        if !self.without_ready {
            daemon.wait_ready(text.as_deref());
        }
        daemon
    }
}

/// A running daemon; killed when the test lets go of it.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    ears: Arc<Ears>,
    directory: TempDir,
    runtime: PathBuf,
    config: PathBuf,
    verbatim: bool,
    notify: Option<PathBuf>,
}

impl Daemon {
    /// Serves this configuration, and is ready.
    pub fn start(config: &str) -> Daemon {
        Daemon::builder().config(config).start()
    }

    /// To say more.
    pub fn builder() -> Builder {
        Builder::default()
    }

    fn wait_ready(&self, config: Option<&str>) {
        if self.notify.is_some() {
            self.wait_notify(|message| message.lines().any(|line| line == "READY=1"));
        }
        // What it listens on is said before, but by another thread.
        if self.notify.is_none() || says_info(config) {
            self.wait_line("ready workers=");
        }
    }

    /// The process.
    pub fn pid(&self) -> Pid {
        pid_of(&self.child)
    }

    /// Listeners' names and where they listen, in the order in which the log names them: those of
    /// reloads as well.
    pub fn addresses(&self) -> Vec<(String, SocketAddr)> {
        let addresses: Vec<_> = self.lines().iter().filter_map(|l| listening(l)).collect();
        assert!(!addresses.is_empty(), "no line says where it listens");
        addresses
    }

    /// The first address, as a peer on this host would call it.
    pub fn addr(&self) -> SocketAddr {
        reachable(self.addresses()[0].1)
    }

    /// The first IPv4 address, or the IPv4 side of the first address of all.
    pub fn addr_v4(&self) -> SocketAddr {
        let addresses = self.addresses();
        let of_v4 = addresses.iter().find(|(_, address)| address.is_ipv4());
        match of_v4 {
            Some((_, address)) => reachable(*address),
            None => SocketAddr::from((Ipv4Addr::LOCALHOST, addresses[0].1.port())),
        }
    }

    /// The first address of a listener, which may have been told of a moment ago.
    pub fn addr_of(&self, listener: &str) -> SocketAddr {
        let line = self.wait_line(&format!("listening listener={listener} "));
        let (_, address) = listening(&line).expect("a name and an address");
        reachable(address)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("a process");
    }

    /// The lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.ears.lock().lines.clone()
    }

    /// How many lines there are: what is said later has a higher number.
    pub fn mark(&self) -> usize {
        self.ears.lock().lines.len()
    }

    /// The first line that contains this, as soon as it is there.
    pub fn wait_line(&self, pattern: &str) -> String {
        self.wait_line_after(0, pattern)
    }

    /// The first line of those after `mark` that contains this.
    pub fn wait_line_after(&self, mark: usize, pattern: &str) -> String {
        self.wait_line_that(mark, pattern, |line| line.contains(pattern))
    }

    /// The first line of those after `mark` that is as wanted; `what` is for whoever waits in vain.
    pub fn wait_line_that(&self, mark: usize, what: &str, is: impl Fn(&str) -> bool) -> String {
        let find = |heard: &Heard| {
            let mut later = heard.lines.iter().skip(mark);
            later.find(|line| is(line)).cloned()
        };
        let found = self.ears.wait(find, |heard| heard.silent);
        found.unwrap_or_else(|why| panic!("waited for a line with {what:?}: {why}"))
    }

    /// All lines that contain this, as soon as there are so many.
    pub fn wait_lines(&self, count: usize, pattern: &str) -> Vec<String> {
        let find = |heard: &Heard| {
            let with = heard.lines.iter().filter(|line| line.contains(pattern));
            let with: Vec<_> = with.cloned().collect();
            (with.len() >= count).then_some(with)
        };
        let found = self.ears.wait(find, |heard| heard.silent);
        found.unwrap_or_else(|why| panic!("waited for {count} lines with {pattern:?}: {why}"))
    }

    /// The notifications so far; one may have several lines.
    pub fn notified(&self) -> Vec<String> {
        self.ears.lock().notified.clone()
    }

    /// The first notification that is as wanted, as soon as it is there.
    pub fn wait_notify(&self, is: impl Fn(&str) -> bool) -> String {
        self.wait_notify_after(0, is)
    }

    /// The same, without the first `mark` notifications.
    pub fn wait_notify_after(&self, mark: usize, is: impl Fn(&str) -> bool) -> String {
        let find = |heard: &Heard| {
            let mut later = heard.notified.iter().skip(mark);
            later.find(|message| is(message)).cloned()
        };
        let found = self.ears.wait(find, |heard| heard.exited);
        found.unwrap_or_else(|why| panic!("waited for a notification: {why}"))
    }

    /// Replaces the configuration in one step, completed as at the start.
    pub fn write_config(&self, text: &str) {
        let text = match self.verbatim {
            true => text.to_owned(),
            false => completed(text),
        };
        replace(&self.config, &text);
    }

    /// The configuration's file.
    pub fn config_path(&self) -> &Path {
        &self.config
    }

    /// The directory with everything that belongs to this daemon.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Its `RUNTIME_DIRECTORY`.
    pub fn runtime_directory(&self) -> &Path {
        &self.runtime
    }

    /// `echod reload`, to its end.
    pub fn reload(&self) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_echod"));
        command
            .arg("reload")
            .env("RUNTIME_DIRECTORY", &self.runtime);
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = {
            let _alone = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
            command.spawn().expect("run echod reload")
        };
        child.wait_with_output().expect("wait")
    }

    /// Has it adopt this configuration.
    pub fn adopt(&self, config: &str) {
        self.write_config(config);
        let output = self.reload();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "reload: {}, {errors}",
            output.status
        );
    }

    /// Waits for its end.
    pub fn wait_exit(&mut self) -> ExitStatus {
        let is_over = |heard: &Heard| heard.exited.then_some(());
        let over = self.ears.wait(is_over, |_| false);
        over.unwrap_or_else(|why| panic!("waited for its end: {why}"));
        let status = self.child.wait().expect("wait");
        // Its last words are on their way.
        let is_silent = |heard: &Heard| heard.silent.then_some(());
        let silent = self.ears.wait(is_silent, |_| false);
        silent.unwrap_or_else(|why| panic!("waited for its last words: {why}"));
        status
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(path) = &self.notify {
            // The thread that listens there ends with this.
            let _ = UnixDatagram::unbound().and_then(|socket| socket.send_to(b"", path));
        }
        if thread::panicking() {
            let mut text = format!("daemon {}:\n", self.child.id());
            let heard = self.ears.lock();
            for line in heard.lines.iter().rev().take(60).rev() {
                let _ = writeln!(text, "  | {line}");
            }
            for message in heard.notified.iter().rev().take(20).rev() {
                let _ = writeln!(text, "  > {}", message.replace('\n', " "));
            }
            eprint!("{text}");
        }
    }
}

/// The configuration with what a test need not say: the user, on the first two lines, and the log's
/// target, at the end or right below `[log]`; and the engine, where the whole run is over another one than
/// the default: `ECHOD_TEST_ENGINE=io_uring cargo test`.
pub fn completed(text: &str) -> String {
    let says = |key: &str| {
        let keys = text.lines().filter_map(|line| line.split_once('='));
        keys.map(|(name, _)| name.trim()).any(|name| name == key)
    };
    let mut whole = String::new();
    if !says("user") {
        let _ = writeln!(whole, "user = \"{USER}\"\ngroup = \"{GROUP}\"");
    }
    if let (Ok(engine), false) = (env::var("ECHOD_TEST_ENGINE"), says("engine")) {
        let _ = writeln!(whole, "engine = \"{engine}\"");
    }
    let target = "target = \"stderr\"";
    if says("target") {
        whole += text;
    } else if text.contains("[log]\n") {
        whole += &text.replacen("[log]\n", &format!("[log]\n{target}\n"), 1);
    } else {
        let _ = write!(whole, "{text}\n[log]\n{target}\n");
    }
    whole
}

/// Will the log on standard error say that the daemon is ready?
fn says_info(config: Option<&str>) -> bool {
    config.is_none_or(|text| {
        let quiet = |line: &str| {
            let line = line.replace(' ', "");
            [
                "level=\"error\"",
                "level=\"warning\"",
                "target=\"syslog\"",
                "target=\"journal\"",
            ]
            .iter()
            .any(|key| line.starts_with(key))
        };
        !text.lines().any(quiet)
    })
}

fn listening(line: &str) -> Option<(String, SocketAddr)> {
    let rest = line.split_once("listening listener=")?.1;
    let (name, rest) = rest.split_once(" address=")?;
    let address = rest.split_whitespace().next()?;
    Some((name.to_owned(), address.parse().ok()?))
}

/// Any address of this host is reached on its loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).expect("write");
    fs::set_permissions(&new, Permissions::from_mode(0o644)).expect("chmod");
    fs::rename(&new, path).expect("rename");
}

fn hear_notifications(socket: &UnixDatagram, ears: &Ears) {
    let mut buffer = [0; 8192];
    while let Ok(count) = socket.recv(&mut buffer) {
        if count == 0 {
            return;
        }
        let message = String::from_utf8_lossy(&buffer[..count]).into_owned();
        ears.tell(|heard| heard.notified.push(message));
    }
}

/// Starts a command with descriptors from 3 on, as sd_listen_fds(3) has it.
fn spawn(
    whole: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    handed: &[(String, Arc<OwnedFd>)],
) -> Child {
    let mut words = whole;
    let _alone = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut parked = Vec::new();
    let mut variables = env;
    if !handed.is_empty() {
        let mut script = String::from("exec");
        for (place, (_, fd)) in handed.iter().enumerate() {
            let number = fcntl(fd, FcntlArg::F_DUPFD(PARKED)).expect("a descriptor");
            let _ = write!(script, " {}<&{number}-", place + 3);
            parked.push(number);
        }
        script.push_str("; export LISTEN_PID=$$; exec \"$@\"");
        let bash = ["bash", "-c", &script, "bash"].map(OsString::from);
        words.splice(0..0, bash);
        let names: Vec<_> = handed.iter().map(|(name, _)| name.as_str()).collect();
        variables.push(("LISTEN_FDS".into(), handed.len().to_string().into()));
        variables.push(("LISTEN_FDNAMES".into(), names.join(":").into()));
    }
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    for name in [
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
        "JOURNAL_STREAM",
    ] {
        command.env_remove(name);
    }
    command.envs(variables);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let child = command.spawn();
    for number in parked {
        close(number).expect("close");
    }
    child.unwrap_or_else(|error| panic!("{:?}: {error}", words[0]))
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("a pid"))
}

/// The byte at a place of a peer's stream: bytes that were lost, doubled, moved or another peer's do
/// not match.
pub fn pattern(seed: u64, at: u64) -> u8 {
    word(seed, at / 8)[usize::try_from(at % 8).expect("below eight")]
}

/// `length` bytes of a peer's stream, from a place on.
pub fn patterned(seed: u64, from: u64, length: usize) -> Vec<u8> {
    let before = usize::try_from(from % 8).expect("below eight");
    let words = (from / 8..).take((before + length).div_ceil(8));
    let mut bytes: Vec<u8> = Vec::with_capacity(length + 16);
    for at in words {
        bytes.extend_from_slice(&word(seed, at));
    }
    bytes.truncate(before + length);
    bytes.drain(..before);
    bytes
}

/// Eight bytes, by splitmix64.
fn word(seed: u64, at: u64) -> [u8; 8] {
    let mut word = seed.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(at);
    word = word.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (word ^ (word >> 27)).to_le_bytes()
}

/// Connects, with a deadline on everything.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE);
    let stream = stream.unwrap_or_else(|error| panic!("connect to {address}: {error}"));
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_nodelay(true).expect("nodelay");
    stream
}

/// Sends this and reads exactly as much back: the same.
pub fn echo_exact(mut stream: &TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).expect("write");
    expect_exact(stream, bytes);
}

/// Reads exactly this.
pub fn expect_exact(mut stream: &TcpStream, bytes: &[u8]) {
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).expect("read");
    if let Some(at) = (0..bytes.len()).find(|&at| back[at] != bytes[at]) {
        let (is, should) = (back[at], bytes[at]);
        panic!("byte {at} of {}: {is} instead of {should}", bytes.len());
    }
}

/// Reads the end, and nothing before it.
pub fn expect_end(mut stream: &TcpStream) {
    let mut rest = [0; 16];
    let count = stream.read(&mut rest).expect("the end");
    assert_eq!(count, 0, "bytes instead of the end: {:?}", &rest[..count]);
}

/// A connection from 127.0.0.`host`, whose every number is this host's; a reset may come before it stands.
pub fn try_connect_from(host: u8, address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    let source = SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0));
    socket.bind(&source.into())?;
    socket.connect(&address.into())?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The same, of one that is let in.
pub fn connect_from(host: u8, address: SocketAddr) -> TcpStream {
    try_connect_from(host, address).expect("connect")
}
