//! Certificates that are renewed again and again while peers come and go: nobody is refused, and the new one is shown.

#[path = "support/tls.rs"]
mod secure;
mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use nix::sys::signal::Signal;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, SupportedProtocolVersion, version};
use secure::{BOTH, Ca, Peer};
use support::{Daemon, PATIENCE, patterned};

/// Pairs that are written and taken, one after another. `ECHOD_RELOADS` is another number.
const RELOADS: u64 = 1000;

/// Peers that come, say something and go, all the time.
const VISITORS: u64 = 4;

fn reloads() -> u64 {
    let asked = std::env::var("ECHOD_RELOADS");
    asked.map_or(RELOADS, |count| count.parse().expect("a number"))
}

/// Comes and goes until it is told to stop; how often it came.
fn visit(daemon: &Daemon, client: &ClientConfig, seed: u64, stop: &AtomicBool) -> u64 {
    let mut visits = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut peer = Peer::begin(daemon, client.clone());
        peer.echo(&patterned(seed, visits * 1000, 1000));
        assert!(peer.finish().is_empty());
        visits += 1;
    }
    visits
}

/// Has the visitors stop however the test ends: they would wait for each other for ever.
struct Stopping<'a>(&'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The certificate that a new peer is shown.
fn shown(
    daemon: &Daemon,
    ca: &Ca,
    version: &'static SupportedProtocolVersion,
) -> CertificateDer<'static> {
    let mut peer = Peer::begin(daemon, ca.client(version));
    peer.echo(b"hello");
    let chain = peer.tls.peer_certificates().expect("a certificate");
    chain[0].clone().into_owned()
}

#[test]
fn reloads_without_end_refuse_nobody_and_show_what_is_newest() {
    let ca = Ca::new();
    let daemon = ca.far("", "");
    let stop = AtomicBool::new(false);
    let visits = AtomicU64::new(0);
    thread::scope(|scope| {
        for seed in 0..VISITORS {
            let (daemon, ca, stop, visits) = (&daemon, &ca, &stop, &visits);
            scope.spawn(move || {
                // It keeps tickets of before, which are worth nothing after a reload, and must not hurt.
                let client = ca.client(BOTH[usize::from(seed % 2 == 0)]);
                visits.fetch_add(visit(daemon, &client, seed, stop), Ordering::Relaxed);
            });
        }
        let stopping = Stopping(&stop);
        let mut live = Peer::begin(&daemon, ca.client(&version::TLS13));
        let mut before = shown(&daemon, &ca, &version::TLS13);
        for count in 0..reloads() {
            let pair = ca.made(&["echo.example"]);
            let newest = CertificateDer::from_pem_slice(pair.0.as_bytes()).expect("PEM");
            ca.put("one", pair);
            let mark = daemon.mark();
            daemon.signal(Signal::SIGHUP);
            daemon.wait_line_after(mark, "reload adopted changed=1");
            let version = BOTH[usize::from(count % 2 == 0)];
            // A worker that was letting somebody in takes the new one in its next turn.
            let deadline = Instant::now() + PATIENCE;
            loop {
                let shown = shown(&daemon, &ca, version);
                if shown == newest {
                    break;
                }
                assert!(shown == before, "an older one still after {count}");
                assert!(Instant::now() < deadline, "no newer one after {count}");
            }
            before = newest;
            live.echo(&patterned(9, count * 100, 100));
        }
        live.finish();
        drop(stopping);
    });
    let visits = visits.into_inner();
    eprintln!("{visits} visits in {} reloads", reloads());
    assert!(visits >= reloads() / 2, "only {visits} visits");
    let refused = daemon.lines().into_iter().find(|line| {
        line.contains("reload refused") || line.contains("reason=tls") || line.contains("cause=")
    });
    assert_eq!(refused, None);
}
