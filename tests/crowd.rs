//! Many peers at once: all are served, evenly spread, and bounds are exact.
//!
//! One process has at most 20,000 descriptors where this is tested, so these tests take turns.

mod support;

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{SysconfVar, geteuid, sysconf};
use socket2::SockRef;
use support::{Daemon, PATIENCE, connect, echo_exact, expect_end, expect_exact, patterned};

/// One listener, and as many workers as each test says.
const LISTENER: &str = "[[listener]]\nname = \"echo\"\naddress = [\"127.0.0.1:0\"]\n";

/// Most bytes that an idle connection may cost the daemon's own memory.
const IDLE_BYTES: u64 = 512;

static TURN: Mutex<()> = Mutex::new(());

/// Waits for the other tests here, and raises the limit of descriptors, which the daemon inherits.
fn alone() -> MutexGuard<'static, ()> {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("the hard limit");
    turn
}

fn with_workers(workers: u16) -> Daemon {
    // Records would be most of what is to be seen when a test fails.
    Daemon::start(&format!(
        "workers = {workers}\npressure.above = \"off\"\n{LISTENER}[log]\nrecords = \"none\"\n"
    ))
}

/// So many connections, made from a few threads at once.
fn crowd(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let threads = 8.min(count);
    thread::scope(|scope| {
        let part = |index: usize| count / threads + usize::from(index < count % threads);
        let connecting: Vec<_> = (0..threads)
            .map(|index| scope.spawn(move || (0..part(index)).map(|_| connect(address)).collect()))
            .collect();
        let parts: Vec<Vec<_>> = connecting
            .into_iter()
            .map(|t| t.join().expect("connect"))
            .collect();
        parts.into_iter().flatten().collect()
    })
}

/// Each peer says something of its own, all of them before the first listens.
fn echo_all(peers: &[TcpStream], seed: u64, length: usize) {
    let words = |peer: usize| patterned(seed + peer as u64, 0, length);
    for (peer, mut stream) in peers.iter().enumerate() {
        stream.write_all(&words(peer)).expect("write");
    }
    for (peer, stream) in peers.iter().enumerate().rev() {
        expect_exact(stream, &words(peer));
    }
}

#[test]
fn five_thousand_peers_are_served_at_once() {
    let _turn = alone();
    let daemon = with_workers(4);
    let peers = crowd(daemon.addr(), 5000);
    echo_all(&peers, 0, 1000);
    echo_all(&peers, 50_000, 3000);
    for peer in &peers {
        peer.shutdown(Shutdown::Write).expect("shutdown");
    }
    for peer in &peers {
        expect_end(peer);
    }
}

#[test]
fn connections_are_spread_evenly_over_two_workers() {
    spread(2);
}

#[test]
fn connections_are_spread_evenly_over_four_workers() {
    spread(4);
}

#[test]
fn connections_are_spread_evenly_over_sixteen_workers() {
    spread(16);
}

/// Over a socket of its own and over one that was handed to it; peers that come one after the other,
/// and at once.
fn spread(workers: u16) {
    let _turn = alone();
    let handed = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let bound = handed.local_addr().expect("bound");
    let config = format!("workers = {workers}\n{LISTENER}");
    let activated = Daemon::builder()
        .config(&config)
        .hand_over("echo", &handed)
        .start();
    let daemon = Daemon::start(&config);
    for (daemon, address) in [(&daemon, daemon.addr()), (&activated, bound)] {
        for at_once in [false, true] {
            let peers = match at_once {
                true => crowd(address, 1000),
                false => (0..1000).map(|_| connect(address)).collect(),
            };
            echo_all(&peers, 0, 1);
            assert_even(&watched(daemon), workers, 1000);
            for peer in &peers {
                peer.shutdown(Shutdown::Write).expect("shutdown");
            }
            peers.iter().for_each(expect_end);
            // Their end is seen before they have left the worker's table.
            let mut left = watched(daemon);
            let deadline = Instant::now() + PATIENCE;
            while left.iter().sum::<usize>() > 0 {
                assert!(Instant::now() < deadline, "never left: {left:?}");
                thread::yield_now();
                left = watched(daemon);
            }
        }
    }
}

fn assert_even(watched: &[usize], workers: u16, peers: usize) {
    assert_eq!(watched.len(), usize::from(workers), "{watched:?}");
    assert_eq!(watched.iter().sum::<usize>(), peers, "{watched:?}");
    let even = peers as f64 / f64::from(workers);
    for &count in watched {
        let off = (count as f64 - even).abs() / even;
        assert!(off <= 0.1, "{count} instead of {even}: {watched:?}");
    }
}

/// How many connections each epoll instance of the daemon watches.
fn watched(daemon: &Daemon) -> Vec<usize> {
    let process = format!("/proc/{}", daemon.pid());
    let kind = |fd: &str| fs::read_link(format!("{process}/fd/{fd}")).ok();
    let is = |fd: &str, word: &str| {
        kind(fd).is_some_and(|kind| kind.to_string_lossy().starts_with(word))
    };
    let mut sets: Vec<Vec<String>> = Vec::new();
    for entry in fs::read_dir(format!("{process}/fdinfo")).expect("a process") {
        let name = entry
            .expect("an entry")
            .file_name()
            .to_string_lossy()
            .into_owned();
        if is(&name, "anon_inode:[eventpoll]") {
            let info = fs::read_to_string(format!("{process}/fdinfo/{name}")).expect("info");
            let targets = info.lines().filter_map(|line| line.strip_prefix("tfd:"));
            let targets = targets.filter_map(|rest| rest.split_whitespace().next());
            sets.push(targets.map(str::to_owned).collect());
        }
    }
    // A listening socket is watched by all; each connection by one.
    let mut watchers: HashMap<&str, usize> = HashMap::new();
    for fd in sets.iter().flatten() {
        *watchers.entry(fd).or_default() += 1;
    }
    let mine = |fd: &&String| watchers[fd.as_str()] == 1 && is(fd, "socket:");
    sets.iter()
        .map(|set| set.iter().filter(mine).count())
        .collect()
}

#[test]
fn the_bound_on_all_connections_is_exact() {
    let _turn = alone();
    let config =
        format!("workers = 4\nmax_connections = 100\npressure.above = \"off\"\n{LISTENER}");
    bound_is_exact(&Daemon::start(&config));
}

#[test]
fn the_bound_of_a_listener_is_exact() {
    let _turn = alone();
    let config = format!(
        "workers = 4\n{LISTENER}max_connections = 100\n\
         [[listener]]\nname = \"other\"\naddress = [\"127.0.0.1:0\"]\n"
    );
    let daemon = Daemon::start(&config);
    let others = crowd(daemon.addr_of("other"), 50);
    bound_is_exact(&daemon);
    echo_all(&others, 0, 100);
    echo_exact(&connect(daemon.addr_of("other")), b"one more");
}

/// The first listener lets a hundred in, however they come.
fn bound_is_exact(daemon: &Daemon) {
    let address = daemon.addr();
    let come = || served(address);
    let attempts: Vec<_> = thread::scope(|scope| {
        let at_once: Vec<_> = (0..10)
            .map(|_| scope.spawn(|| (0..15).map(|_| come()).collect::<Vec<_>>()))
            .collect();
        at_once
            .into_iter()
            .flat_map(|thread| thread.join().expect("connect"))
            .collect()
    });
    let mut served: Vec<_> = attempts.into_iter().flatten().collect();
    assert_eq!(served.len(), 100, "of 150");
    daemon.wait_line("bound reached, refusing key=");
    for _ in 0..20 {
        assert!(come().is_none(), "a hundred and first");
    }
    echo_all(&served, 0, 1000);
    // A place is free as soon as its peer can know that.
    for round in 0..200 {
        let place = round % served.len();
        let leaving = &served[place];
        leaving.shutdown(Shutdown::Write).expect("shutdown");
        expect_end(leaving);
        served[place] = come().unwrap_or_else(|| panic!("round {round}: a free place"));
    }
    assert!(come().is_none(), "a hundred and first");
    // A reset frees one, too; that it did is known by the record.
    let leaving = served.pop().expect("a peer");
    let peer = leaving.local_addr().expect("an address");
    SockRef::from(&leaving)
        .set_linger(Some(Duration::ZERO))
        .expect("linger");
    drop(leaving);
    daemon.wait_line(&format!(
        "connection ended peer={peer} listener=echo reason=reset"
    ));
    served.push(come().expect("the place of one that was reset"));
    assert!(come().is_none(), "a hundred and first");
    echo_all(&served, 0, 1000);
}

#[test]
fn a_place_is_free_when_the_peer_sees_the_daemon_end_its_connection() {
    let _turn = alone();
    // One byte there and one back; the second ends it.
    let daemon = Daemon::start(&format!(
        "workers = 4\nmax_connections = 4\npressure.above = \"off\"\n{LISTENER}max_bytes = \"2\"\n"
    ));
    let come = || served(daemon.addr());
    let mut here: Vec<_> = (0..4).map(|_| come().expect("a free place")).collect();
    let mut ended = Vec::new();
    // Up to 64 that have not closed their own side are counted for nothing.
    for round in 0..60 {
        assert!(come().is_none(), "round {round}: a fifth");
        let mut leaving = here.remove(0);
        leaving.write_all(b"!").expect("write");
        expect_end(&leaving);
        // It has not closed its own side, and need not yet.
        ended.push(leaving);
        here.push(come().unwrap_or_else(|| panic!("round {round}: a free place")));
    }
}

#[test]
fn who_comes_while_a_listener_is_added_is_served() {
    let _turn = alone();
    let base = format!("workers = 8\n{LISTENER}");
    let daemon = Daemon::start(&base);
    for _ in 0..10 {
        let address = unbound();
        thread::scope(|scope| {
            for seed in 0..8 {
                scope.spawn(move || {
                    for peer in 0..4 {
                        let stream = connect_when_bound(address);
                        echo_exact(&stream, &patterned(seed * 10 + peer, 0, 100));
                    }
                });
            }
            daemon.adopt(&format!(
                "{base}[[listener]]\nname = \"more\"\naddress = [\"{address}\"]\n"
            ));
        });
        daemon.adopt(&base);
    }
}

/// An address where nobody listens. Not one that the kernel gives to those who connect: they would
/// meet themselves.
fn unbound() -> SocketAddr {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").expect("a range");
    let first = range.split_whitespace().next().expect("a port");
    let first: u16 = first.parse().expect("a number");
    let free = (1024..first).rev().find_map(|port| {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        TcpListener::bind(address).is_ok().then_some(address)
    });
    free.expect("a free port")
}

/// Connects as soon as somebody listens there.
fn connect_when_bound(address: SocketAddr) -> TcpStream {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
                return stream;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}"),
        }
        assert!(Instant::now() < deadline, "nobody listens on {address}");
        thread::yield_now();
    }
}

/// A connection on which a byte came back; `None`: it was reset.
fn served(address: SocketAddr) -> Option<TcpStream> {
    let mut back = [0];
    let attempt = TcpStream::connect_timeout(&address, PATIENCE).and_then(|mut stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"?")?;
        let count = stream.read(&mut back)?;
        Ok((stream, count))
    });
    match attempt {
        Ok((stream, count)) => {
            assert_eq!((count, back), (1, *b"?"), "ended instead of reset");
            Some(stream)
        }
        Err(error) => {
            let reset = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
            assert!(reset.contains(&error.kind()), "{error}");
            None
        }
    }
}

#[test]
fn without_descriptors_peers_wait_and_one_worker_does_not_spin() {
    out_of_descriptors(1);
}

#[test]
fn without_descriptors_peers_wait_and_four_workers_do_not_spin() {
    out_of_descriptors(4);
}

fn out_of_descriptors(workers: u16) {
    let _turn = alone();
    let daemon = with_workers(workers);
    // A configuration that does not fit is refused, so the limit is lowered behind its back.
    leave_descriptors(&daemon, 20);

    let mut peers: Vec<_> = (0..30).map(|_| connect(daemon.addr())).collect();
    for mut peer in &peers {
        peer.write_all(b"hello").expect("write");
    }
    let waiting = peers.split_off(20);
    for peer in &peers {
        expect_exact(peer, b"hello");
    }
    daemon.wait_line("accept paused");
    // For longer than it pauses, nobody gets in and nothing is spent on them.
    let window = Duration::from_millis(2500);
    let before = cpu(&daemon);
    expect_silence(&waiting[0], window);
    let spent = cpu(&daemon) - before;
    assert!(
        spent < window / 10,
        "{spent:?} of {window:?} were spent waiting"
    );
    for peer in &peers {
        echo_exact(peer, b"still served");
    }
    // Each that leaves makes room for one.
    for (leaving, coming) in peers.iter().zip(&waiting) {
        leaving.shutdown(Shutdown::Write).expect("shutdown");
        expect_end(leaving);
        expect_exact(coming, b"hello");
    }
    for peer in peers.iter().skip(waiting.len()).chain(&waiting) {
        echo_exact(peer, b"and still");
    }
    for _ in 0..100 {
        let peer = &peers[10];
        echo_exact(peer, b"no harm");
    }
}

#[test]
fn a_drain_without_descriptors_serves_those_who_wait_when_others_have_ended() {
    let _turn = alone();
    let mut daemon = Daemon::start(&format!(
        "workers = 1\ndrain_idle = \"500ms\"\ndrain_timeout = \"20s\"\n{LISTENER}"
    ));
    leave_descriptors(&daemon, 10);
    let mut peers: Vec<_> = (0..15).map(|_| connect(daemon.addr())).collect();
    for mut peer in &peers {
        peer.write_all(b"hello").expect("write");
    }
    let waiting = peers.split_off(10);
    for peer in &peers {
        expect_exact(peer, b"hello");
    }
    daemon.wait_line("accept paused");
    daemon.signal(Signal::SIGTERM);
    for peer in &waiting {
        expect_exact(peer, b"hello");
    }
    assert_eq!(daemon.wait_exit().code(), Some(0));
}

/// Lowers the daemon's limit of descriptors, so that it can have so many more.
fn leave_descriptors(daemon: &Daemon, more: usize) {
    let pid = daemon.pid().to_string();
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("a process");
    let number = |name: OsString| name.to_string_lossy().parse::<u32>().expect("a number");
    let open: HashSet<_> = open
        .map(|fd| number(fd.expect("an entry").file_name()))
        .collect();
    // The limit is on numbers, and those above it stay open.
    let last = (0..).filter(|fd| !open.contains(fd)).nth(more - 1);
    let limit = last.expect("a free number") + 1;
    let mut command = Command::new("prlimit");
    command.args(["--pid", &pid, &format!("--nofile={limit}:{limit}")]);
    if geteuid().is_root() {
        // Its own user may do that; root needs a capability, which it has not everywhere.
        let process = fs::metadata(format!("/proc/{pid}")).expect("a process");
        command.uid(process.uid()).gid(process.gid());
    }
    let status = command.status().expect("run prlimit");
    assert!(status.success(), "prlimit: {status}");
}

/// Neither bytes nor an end, for so long.
fn expect_silence(mut peer: &TcpStream, time: Duration) {
    peer.set_read_timeout(Some(time)).expect("a timeout");
    let error = peer.read(&mut [0]).expect_err("an answer");
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
    peer.set_read_timeout(Some(PATIENCE)).expect("a timeout");
}

/// The processor time that the daemon has used.
fn cpu(daemon: &Daemon) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).expect("a process");
    // The name, in brackets, may contain anything.
    let (_, rest) = stat.rsplit_once(") ").expect("a name");
    let ticks = rest.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.map(|t| t.parse::<u64>().expect("a number")).sum();
    let rate = sysconf(SysconfVar::CLK_TCK).expect("ask").expect("a rate");
    Duration::from_millis(ticks * 1000 / rate.unsigned_abs())
}

#[test]
fn an_idle_connection_costs_little_memory() {
    let _turn = alone();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    assert!(
        hard >= 10_200,
        "ten thousand connections need more descriptors than {hard}"
    );
    let daemon = with_workers(2);
    // What is needed once, for all of them, is there after the first.
    echo_all(&crowd(daemon.addr(), 64), 0, 10_000);
    let before = resident(&daemon);
    let peers = crowd(daemon.addr(), 9_900);
    echo_all(&peers, 0, 100);
    let each = resident(&daemon).saturating_sub(before) / peers.len() as u64;
    assert!(each <= IDLE_BYTES, "{each} bytes for each idle connection");
}

/// The memory that the daemon has in its address space, in bytes.
fn resident(daemon: &Daemon) -> u64 {
    let path = format!("/proc/{}/smaps_rollup", daemon.pid());
    let rollup = fs::read_to_string(path).expect("a process");
    let rss = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
    let kib = rss
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .expect("Rss");
    kib.trim().parse::<u64>().expect("a number") * 1024
}
