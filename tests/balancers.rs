//! HAProxy in front of TLS, HAProxy that speaks it, and two daemons behind one of which one comes and goes.

#[path = "support/balancer.rs"]
mod balancer;
#[path = "support/peers.rs"]
mod peers;
#[path = "support/tls.rs"]
mod secure;
mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use balancer::{HaProxy, readme, replaced};
use nix::sys::signal::Signal;
use peers::free_address;
use secure::{BOTH, Ca, Peer};
use support::{Daemon, connect, patterned};

/// What a peer says and hears.
const BYTES: usize = 1 << 20;

/// How often a daemon is stopped and started again.
const RESTARTS: usize = 6;

/// Peers that come and go meanwhile.
const VISITORS: u64 = 4;

/// The README's HAProxy, with these changes, at a port that the kernel chooses.
fn haproxy(section: &str, ca: &Ca, changes: &[(&str, &str)]) -> (HaProxy, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("an address");
    let mut text = readme(section, "haproxy").to_owned();
    for (from, to) in changes {
        text = replaced(&text, from, to);
    }
    ca.write("haproxy.cfg", &text);
    (HaProxy::start(&ca.path("haproxy.cfg"), socket), address)
}

/// A daemon that trusts the balancer; `table` is its listener's.
fn behind(table: &str) -> Daemon {
    Daemon::start(&format!(
        "workers = 2\n[[listener]]\nname = \"echo\"\naddress = \"127.0.0.1:0\"\n\
         proxy_protocol.trusted = [\"127.0.0.1\"]\n{table}"
    ))
}

/// Says something and hears it, both to the end.
fn echo_to_the_end(mut peer: Peer) {
    let bytes = patterned(5, 0, BYTES);
    peer.tls.writer().write_all(&bytes).expect("room");
    peer.tls.send_close_notify();
    let sealed = peer.sealed();
    let stream = peer.stream.try_clone().expect("a descriptor");
    thread::scope(|scope| {
        scope.spawn(|| (&stream).write_all(&sealed).expect("write"));
        assert!(peer.rest() == bytes, "other bytes came back");
    });
}

fn record(daemon: &Daemon, peer: SocketAddr) -> String {
    let record = daemon.wait_line(&format!("connection ended peer={peer} via=127.0.0.1:"));
    let counts = format!(" listener=echo reason=done received={BYTES} sent={BYTES} ");
    assert!(record.contains(&counts), "{record}");
    record
}

#[test]
fn tls_goes_through_one_that_does_not_look_into_it() {
    let ca = Ca::new();
    ca.put("one", ca.made(&["echo.example"]));
    let daemon = behind(&ca.table(&["one"], ""));
    let to = daemon.addr().to_string();
    let changes = [("bind :7", "bind fd@0"), ("127.0.0.1:8080", &to)];
    let (_haproxy, address) = haproxy("Behind HAProxy", &ca, &changes);
    for (version, is) in BOTH.iter().zip(["tls=1.3", "tls=1.2"]) {
        let mut peer = Peer::new(address, ca.client(version), "echo.example");
        peer.shake().expect("the daemon's own certificate");
        let local = peer.local();
        echo_to_the_end(peer);
        let record = record(&daemon, local);
        assert!(
            record.contains(is) && !record.contains("truncated"),
            "{record}"
        );
    }
}

#[test]
fn tls_ends_at_one_that_speaks_it() {
    let ca = Ca::new();
    let (certificate, key) = ca.made(&["echo.example"]);
    ca.write("both.pem", &(certificate + &key));
    let daemon = behind("");
    let bind = format!("bind fd@0 ssl crt {}", ca.path("both.pem").display());
    let to = daemon.addr().to_string();
    let changes = [("bind :7", bind.as_str()), ("127.0.0.1:8080", &to)];
    let (_haproxy, address) = haproxy("Behind HAProxy", &ca, &changes);
    for version in BOTH {
        let mut peer = Peer::new(address, ca.client(version), "echo.example");
        peer.shake().expect("a handshake with HAProxy");
        let local = peer.local();
        echo_to_the_end(peer);
        assert!(!record(&daemon, local).contains("tls="));
    }
}

/// Comes, says something, hears it and goes, again and again.
fn visit(address: SocketAddr, seed: u64, stop: &AtomicBool) -> u64 {
    let mut visits = 0;
    while !stop.load(Ordering::Relaxed) {
        let bytes = patterned(seed, visits, 20_000);
        let mut stream = connect(address);
        stream.write_all(&bytes).expect("write");
        stream.shutdown(Shutdown::Write).expect("a FIN");
        let mut back = Vec::new();
        let read = stream.read_to_end(&mut back);
        assert!(read.is_ok(), "visit {visits}: {read:?}");
        assert!(
            back == bytes,
            "visit {visits}: {} bytes came back",
            back.len()
        );
        visits += 1;
    }
    visits
}

#[test]
fn of_two_daemons_one_can_be_stopped_and_started_and_nobody_notices() {
    let ca = Ca::new();
    let addresses = [free_address(), free_address()];
    let text = |address: SocketAddr| {
        replaced(
            readme("Several behind HAProxy", "toml"),
            "10.0.0.1:8080",
            &address.to_string(),
        )
    };
    let mut daemons = addresses.map(|address| Daemon::start(&text(address)));
    let [one, two] = addresses.map(|address| address.to_string());
    let changes = [
        ("bind :7", "bind fd@0"),
        ("10.0.0.1:8080", one.as_str()),
        ("10.0.0.2:8080", two.as_str()),
    ];
    let (_haproxy, address) = haproxy("Several behind HAProxy", &ca, &changes);
    let stop = AtomicBool::new(false);
    let visits = AtomicU64::new(0);
    thread::scope(|scope| {
        for seed in 0..VISITORS {
            let (stop, visits) = (&stop, &visits);
            scope.spawn(move || visits.fetch_add(visit(address, seed, stop), Ordering::Relaxed));
        }
        let _stopping = Stopping(&stop);
        for round in 0..RESTARTS {
            let place = round % 2;
            let daemon = &mut daemons[place];
            daemon.wait_line("connection ended peer=");
            daemon.signal(Signal::SIGTERM);
            assert!(daemon.wait_exit().success());
            *daemon = Daemon::start(&text(addresses[place]));
            // The balancer has found it again, so the other may go.
            daemon.wait_line("connection ended peer=");
        }
    });
    let visits = visits.into_inner();
    eprintln!("{visits} visits in {RESTARTS} restarts");
    assert!(visits > 100, "only {visits} visits");
}

/// Has the visitors stop however the test ends.
struct Stopping<'a>(&'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
