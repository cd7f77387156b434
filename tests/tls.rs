//! Listeners that speak TLS, as their peers know them.
//!
//! Certificates are made for each test; the peers are the library's own client, whose bytes are cut anywhere. What
//! must come back is checked byte for byte, and every record by its words.

#[path = "support/tls.rs"]
mod secure;
mod support;

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use rustls::{AlertDescription, ClientConfig, version};
use secure::{BOTH, Ca, Peer, ended, record};
use serde_json::Value;
use support::{Daemon, connect, echo_exact, patterned};

const MIB: usize = 1 << 20;

/// Enough of them that what they share does not show.
const IDLE_PEERS: usize = 500;

fn rss(daemon: &Daemon) -> usize {
    let path = format!("/proc/{}/smaps_rollup", daemon.pid());
    let rollup = fs::read_to_string(path).expect("a process");
    let rss = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
    let kib = rss.and_then(|rest| rest.trim().strip_suffix(" kB"));
    kib.expect("Rss").trim().parse::<usize>().expect("a number") * 1024
}

#[test]
fn sixteen_mebibytes_come_back_through_any_cuts_in_both_versions() {
    let ca = Ca::new();
    let daemon = ca.far("", "");
    for version in BOTH {
        let mut peer = Peer::begin(&daemon, ca.client(version));
        let mut at = 0;
        while at < 16 * MIB {
            let length = usize::try_from(peer.random() % 600_000).expect("short");
            let length = length.min(16 * MIB - at).max(1);
            peer.echo(&patterned(7, at as u64, length));
            at += length;
        }
        assert!(peer.finish().is_empty());
        let is = if *version == &version::TLS13 {
            "tls=1.3"
        } else {
            "tls=1.2"
        };
        let bytes = 16 * MIB;
        let counts = [format!("received={bytes}"), format!("sent={bytes}")];
        let words = [
            "reason=done",
            &counts[0],
            &counts[1],
            is,
            "sni=echo.example",
        ];
        ended(&daemon, peer.local(), &words);
    }
}

#[test]
fn a_plain_listener_beside_it_is_as_it_was() {
    let ca = Ca::new();
    let daemon = ca.far("", "");
    let mut peer = Peer::begin(&daemon, ca.client(&version::TLS13));
    let plain = connect(daemon.addr_of("plain"));
    for at in 0..20 {
        peer.echo(&patterned(1, at * 100, 100));
        echo_exact(&plain, &patterned(2, at * 100, 100));
    }
    plain.shutdown(Shutdown::Write).expect("shutdown");
    let line = record(&daemon, plain.local_addr().expect("an address"));
    assert!(!line.contains("tls="), "{line}");
}

#[test]
fn the_name_that_a_peer_asks_for_chooses_the_certificate() {
    let ca = Ca::new();
    ca.put("one", ca.made(&["one.example"]));
    ca.put("two", ca.made(&["two.example", "*.two.example"]));
    let daemon = Daemon::start(&ca.config(&["one", "two"], "", ""));
    for name in ["one.example", "two.example", "a.two.example"] {
        let mut peer = Peer::new(daemon.addr_of("tls"), ca.client(&version::TLS13), name);
        peer.shake().expect("the certificate of that name");
        peer.echo(b"a");
    }
    // Anybody else is shown the first, and may not like it.
    let mut other = Peer::new(
        daemon.addr_of("tls"),
        ca.client(&version::TLS13),
        "b.example",
    );
    assert!(other.shake().is_err());
    other.send();
    drop(other.stream.shutdown(Shutdown::Write));
    ended(&daemon, other.local(), &["reason=tls", "received=0"]);
}

#[test]
fn a_peer_without_a_certificate_comes_in_where_it_is_optional_alone() {
    let ca = Ca::new();
    let other = Ca::new();
    let required = ca.far("", "client_ca = \"CA\"");
    let good = ca.made(&["peer.example"]);
    let strange = other.made(&["peer.example"]);
    for version in BOTH {
        let mut peer = Peer::begin(&required, ca.client_with(version, &good));
        peer.echo(b"hello");
        peer.finish();
        ended(
            &required,
            peer.local(),
            &["reason=done", "client=peer.example"],
        );

        let none = Peer::new(required.addr_of("tls"), ca.client(version), "echo.example");
        let local = none.local();
        none.alert();
        ended(
            &required,
            local,
            &["reason=tls", "cause=\"the peer has no certificate\""],
        );

        let client = ca.client_with(version, &strange);
        let wrong = Peer::new(required.addr_of("tls"), client, "echo.example");
        let local = wrong.local();
        assert_eq!(wrong.alert(), AlertDescription::UnknownCA);
        ended(
            &required,
            local,
            &["reason=tls", "cause=\"the peer's certificate: unknown CA\""],
        );
    }
    let optional = ca.far("", "client_ca = \"CA\"\nclient = \"optional\"");
    let mut peer = Peer::begin(&optional, ca.client(&version::TLS13));
    peer.echo(b"hello");
    let client = ca.client_with(&version::TLS13, &strange);
    let wrong = Peer::new(optional.addr_of("tls"), client, "echo.example");
    assert_eq!(wrong.alert(), AlertDescription::UnknownCA);
}

#[test]
fn of_those_whom_the_ca_knows_only_these_names_come_in() {
    let ca = Ca::new();
    let daemon = ca.far(
        "",
        "client_ca = \"CA\"\nclient_names = [\"Peer.Example\", \"192.0.2.7\"]",
    );
    for (name, may) in [
        ("peer.example", true),
        ("192.0.2.7", true),
        ("no.example", false),
    ] {
        let client = ca.client_with(&version::TLS13, &ca.made(&[name]));
        let mut peer = Peer::new(daemon.addr_of("tls"), client, "echo.example");
        if may {
            peer.shake().expect("a handshake");
            peer.echo(b"hello");
            continue;
        }
        let local = peer.local();
        assert_eq!(peer.alert(), AlertDescription::AccessDenied);
        let cause = "cause=\"the peer's certificate: name not allowed\"";
        ended(&daemon, local, &["reason=tls", cause]);
    }
}

#[test]
fn who_wants_to_speak_something_else_is_told_so() {
    let ca = Ca::new();
    let daemon = ca.far("", "");
    for (offered, chosen) in [(&["h2", "echo"][..], Some("echo")), (&[], None)] {
        let mut client = ca.client(&version::TLS13);
        client.alpn_protocols = offered
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        let mut peer = Peer::begin(&daemon, client);
        peer.echo(b"hello");
        assert_eq!(peer.tls.alpn_protocol(), chosen.map(str::as_bytes));
    }
    let mut client = ca.client(&version::TLS13);
    client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let peer = Peer::new(daemon.addr_of("tls"), client.clone(), "echo.example");
    let local = peer.local();
    assert_eq!(peer.alert(), AlertDescription::NoApplicationProtocol);
    let cause = "cause=\"no application protocol in common\"";
    ended(
        &daemon,
        local,
        &["reason=tls", cause, "received=0", "sent=0"],
    );

    let any = ca.far("", "alpn = []");
    let mut peer = Peer::begin(&any, client);
    peer.echo(b"hello");
}

#[test]
fn plain_text_is_answered_with_an_alert_and_told_from_tls() {
    let ca = Ca::new();
    let daemon = ca.far("", "");
    let mut stream = connect(daemon.addr_of("tls"));
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: echo.example\r\n\r\n")
        .expect("write");
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .expect("a FIN, and no reset");
    assert_eq!(answer.first(), Some(&21), "an alert: {answer:?}");
    let local = stream.local_addr().expect("an address");
    let cause = "cause=\"this is not TLS: plain text, or another protocol\"";
    drop(stream);
    ended(
        &daemon,
        local,
        &["reason=tls", "received=0", "sent=0", cause],
    );
}

#[test]
fn after_its_close_notify_a_peer_is_given_all_that_it_is_owed() {
    let ca = Ca::new();
    let daemon = ca.far("", "");
    let bytes = patterned(3, 0, 3 * MIB);
    let mut peer = Peer::begin(&daemon, ca.client(&version::TLS13));
    let mut writer = peer.stream.try_clone().expect("a descriptor");
    peer.tls.writer().write_all(&bytes).expect("room");
    peer.tls.send_close_notify();
    let sealed = peer.sealed();
    let thread = thread::spawn(move || writer.write_all(&sealed).expect("write"));
    assert!(peer.rest() == bytes, "other bytes came back");
    thread.join().expect("written");
    drop(peer.stream.shutdown(Shutdown::Write));
    let count = format!("sent={}", 3 * MIB);
    ended(&daemon, peer.local(), &["reason=done", &count]);
    assert!(!record(&daemon, peer.local()).contains("truncated"));
}

#[test]
fn a_fin_without_close_notify_is_told_from_an_end() {
    let ca = Ca::new();
    let daemon = ca.far("", "");
    for version in BOTH {
        let mut peer = Peer::begin(&daemon, ca.client(version));
        peer.echo(b"hello");
        peer.stream.shutdown(Shutdown::Write).expect("shutdown");
        assert!(peer.rest().is_empty());
        ended(
            &daemon,
            peer.local(),
            &["reason=done", "received=5", "truncated=yes"],
        );
    }
}

#[test]
fn a_handshake_that_does_not_end_is_ended() {
    let ca = Ca::new();
    let daemon = ca.far("timeout = { handshake = \"300ms\" }", "");
    let silent = connect(daemon.addr_of("tls"));
    let mut half = connect(daemon.addr_of("tls"));
    half.write_all(&[22, 3, 1, 2, 0, 1]).expect("write");
    for mut stream in [silent, half] {
        let began = Instant::now();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("a FIN");
        assert!(began.elapsed() < Duration::from_secs(5));
        let local = stream.local_addr().expect("an address");
        drop(stream);
        ended(&daemon, local, &["reason=handshake", "received=0"]);
    }
    let mut peer = Peer::begin(&daemon, ca.client(&version::TLS13));
    thread::sleep(Duration::from_millis(500));
    peer.echo(b"it was done in time");
}

#[test]
fn who_leaves_in_the_handshake_has_failed_and_who_only_looks_has_not() {
    let ca = Ca::new();
    let daemon = ca.far("", "");
    let looks = connect(daemon.addr_of("tls"));
    let address = looks.local_addr().expect("an address");
    drop(looks);
    ended(&daemon, address, &["reason=done", "received=0", "sent=0"]);
    let mut half = connect(daemon.addr_of("tls"));
    half.write_all(&[22, 3, 1, 2, 0, 1]).expect("write");
    half.shutdown(Shutdown::Write).expect("shutdown");
    let address = half.local_addr().expect("an address");
    ended(
        &daemon,
        address,
        &["reason=tls", "cause=\"the peer left in the handshake\""],
    );
}

#[test]
fn a_service_that_speaks_first_does_so_after_the_handshake() {
    let ca = Ca::new();
    for version in BOTH {
        let daemon = ca.far("service = \"whoami\"", "");
        let mut client = ca.client(version);
        client.alpn_protocols = vec![b"echo".to_vec()];
        let mut peer = Peer::new(daemon.addr_of("tls"), client, "echo.example");
        // Said before anything was heard: it comes back behind the words.
        peer.tls.writer().write_all(b"early").expect("room");
        peer.shake().expect("a handshake");
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            line.extend(peer.take(1));
        }
        let told: Value = serde_json::from_slice(&line).expect("JSON");
        let tls = &told["tls"];
        assert_eq!(
            (&tls["sni"], &tls["alpn"]),
            (&"echo.example".into(), &"echo".into())
        );
        assert!(
            tls["cipher"]
                .as_str()
                .is_some_and(|name| name.starts_with("TLS_"))
        );
        assert!(tls["group"].is_string() && tls["client"].is_null(), "{tls}");
        assert_eq!(peer.take(5), b"early");
        peer.echo(b"hello");
        peer.finish();
    }
    let daemon = ca.far("service = \"daytime\"", "");
    let mut peer = Peer::begin(&daemon, ca.client(&version::TLS13));
    let words = String::from_utf8(peer.rest()).expect("text");
    assert!(words.ends_with("-UTC\r\n"), "{words}");
    let daemon = ca.far("service = \"chargen\"\nmax_bytes = \"3MiB\"", "");
    let mut peer = Peer::begin(&daemon, ca.client(&version::TLS13));
    assert_eq!(peer.rest().len(), 3 * MIB, "exactly its quota");
    let daemon = ca.far("service = \"discard\"", "");
    let mut peer = Peer::begin(&daemon, ca.client(&version::TLS13));
    peer.say(&patterned(1, 0, MIB));
    assert!(peer.finish().is_empty());
    ended(
        &daemon,
        peer.local(),
        &["reason=done", "received=1048576", "sent=0"],
    );
}

#[test]
fn a_quota_counts_plaintext() {
    let ca = Ca::new();
    let daemon = ca.far("max_bytes = \"20000B\"", "");
    let mut peer = Peer::begin(&daemon, ca.client(&version::TLS13));
    peer.echo(&patterned(1, 0, 10_000));
    peer.say(b"more");
    assert!(peer.rest().is_empty());
    ended(
        &daemon,
        peer.local(),
        &["reason=quota", "received=10004", "sent=10000"],
    );
}

#[test]
fn a_reload_shows_new_connections_a_new_certificate_and_live_ones_go_on() {
    let ca = Ca::new();
    let next = Ca::new();
    let daemon = ca.far("", "");
    let mut live = Peer::begin(&daemon, ca.client(&version::TLS13));
    live.echo(b"before");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let load = |seed: u64| {
            let (daemon, ca, stop) = (&daemon, &ca, &stop);
            scope.spawn(move || {
                let mut peer = Peer::begin(daemon, ca.client(&version::TLS13));
                let mut at = 0;
                while !stop.load(Ordering::Relaxed) {
                    peer.echo(&patterned(seed, at, 20_000));
                    at += 20_000;
                }
                peer.finish();
            })
        };
        let threads = [load(1), load(2)];
        ca.put("one", next.made(&["echo.example"]));
        for _ in 0..3 {
            let output = daemon.reload();
            assert!(output.status.success(), "{output:?}");
        }
        let mut new = Peer::begin(&daemon, next.client(&version::TLS13));
        new.echo(b"after");
        let mut old = Peer::new(
            daemon.addr_of("tls"),
            ca.client(&version::TLS13),
            "echo.example",
        );
        assert!(
            old.shake().is_err(),
            "the certificate of before is shown no longer"
        );
        live.echo(b"still here");
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().expect("no byte was lost");
        }
    });
}

#[test]
fn a_reload_with_a_key_that_does_not_match_is_refused_whole() {
    let ca = Ca::new();
    let daemon = ca.far("", "");
    let (_, key) = ca.made(&["echo.example"]);
    ca.write("one.key", &key);
    let output = daemon.reload();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78));
    assert!(said.contains("one.key: not the key of "), "{said}");
    daemon.wait_line("reload refused, serving as before");
    Peer::begin(&daemon, ca.client(&version::TLS13)).echo(b"hello");
    fs::remove_file(ca.path("one.pem")).expect("remove");
    let output = daemon.reload();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("one.pem: No such file or directory (put it there"),
        "{said}"
    );
    Peer::begin(&daemon, ca.client(&version::TLS13)).echo(b"hello");
    ca.put("one", ca.made(&["echo.example"]));
    assert!(daemon.reload().status.success());
    if geteuid().is_root() {
        // It could be read at the start; after it the daemon is nobody.
        fs::set_permissions(ca.path("one.key"), Permissions::from_mode(0o600)).expect("chmod");
        let output = daemon.reload();
        let said = String::from_utf8_lossy(&output.stderr);
        let cause = "one.key: Permission denied (let the daemon's user read it";
        assert!(said.contains(cause), "{said}");
        Peer::begin(&daemon, ca.client(&version::TLS13)).echo(b"hello");
    }
}

#[test]
fn a_daemon_without_its_key_does_not_start() {
    let ca = Ca::new();
    ca.put("one", ca.made(&["echo.example"]));
    fs::remove_file(ca.path("one.key")).expect("remove");
    let mut daemon = Daemon::builder()
        .config(&ca.config(&["one"], "", ""))
        .without_ready()
        .start();
    daemon.wait_line("one.key: No such file or directory (put it there, or name another)");
    assert_eq!(daemon.wait_exit().code(), Some(78));
}

#[test]
fn an_expired_certificate_is_warned_of_or_refused() {
    let ca = Ca::new();
    ca.put("one", ca.made_until(&["echo.example"], 2001));
    let daemon = Daemon::start(&ca.config(&["one"], "", ""));
    daemon.wait_line("one.pem expired on 2001-01-01 00:00 UTC");
    daemon.wait_notify(|message| message.contains("one.pem expired on 2001-01-01"));
    echo_exact(&connect(daemon.addr_of("plain")), b"hello");
    let mark = daemon.mark();
    assert!(daemon.reload().status.success());
    daemon.wait_line_after(mark, "one.pem expired on");
    daemon.write_config(&ca.config(&["one"], "", "expired = \"refuse\""));
    let output = daemon.reload();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("one.pem: expired on 2001-01-01 00:00 UTC (renew it"),
        "{said}"
    );
    ca.put("one", ca.made(&["echo.example"]));
    assert!(daemon.reload().status.success());
    Peer::begin(&daemon, ca.client(&version::TLS13)).echo(b"hello");
}

#[test]
fn a_check_says_until_when_certificates_are_valid_and_refuses_what_a_start_would() {
    let ca = Ca::new();
    let check = |config: &str| {
        ca.write("echod.toml", config);
        let mut command = Command::new(env!("CARGO_BIN_EXE_echod"));
        command
            .arg("check")
            .arg("--config")
            .arg(ca.path("echod.toml"));
        let output = command.output().expect("run echod check");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let config = format!(
        "user = \"nobody\"\ngroup = \"nogroup\"\n{}",
        ca.config(&["one"], "", "")
    );
    ca.put("one", ca.made(&["echo.example"]));
    let (status, out, err) = check(&config);
    assert_eq!(status, Some(0), "{err}");
    let said = "one.pem is valid until 4000-01-01 00:00 UTC";
    assert!(
        out.contains("listener \"tls\": tls: ") && out.contains(said),
        "{out}"
    );
    ca.put("one", ca.made_until(&["echo.example"], 2001));
    assert!(
        check(&config)
            .1
            .contains("one.pem expired on 2001-01-01 00:00 UTC")
    );
    fs::remove_file(ca.path("one.key")).expect("remove");
    let (status, _, err) = check(&config);
    assert_eq!(status, Some(78));
    assert!(
        err.starts_with("echod: listener \"tls\": tls: ") && err.contains("one.key: No such file"),
        "{err}"
    );
}

#[test]
fn a_credential_is_read_once() {
    let ca = Ca::new();
    ca.put("one", ca.made(&["echo.example"]));
    let daemon = Daemon::builder()
        .config(&ca.config(&["one"], "", ""))
        .env("CREDENTIALS_DIRECTORY", ca.directory.path())
        .start();
    fs::remove_file(ca.path("one.key")).expect("remove");
    let output = daemon.reload();
    assert!(output.status.success(), "{output:?}");
    daemon.wait_line("one.key is as it was at the start");
    Peer::begin(&daemon, ca.client(&version::TLS13)).echo(b"hello");
}

#[test]
fn nothing_is_resumed_across_a_reload_nor_where_peers_show_certificates() {
    let ca = Ca::new();
    let daemon = ca.far("", "");
    let visit = |daemon: &Daemon, client: &ClientConfig| {
        let mut peer = Peer::begin(daemon, client.clone());
        peer.echo(b"hello");
        peer.finish();
        peer.tls.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    };
    for version in BOTH {
        let client = ca.client(version);
        assert!(!visit(&daemon, &client), "the first");
        assert!(visit(&daemon, &client), "the second");
        assert!(daemon.reload().status.success());
        assert!(!visit(&daemon, &client), "after a reload");
        let asking = ca.far("", "client_ca = \"CA\"");
        let client = ca.client_with(version, &ca.made(&["peer.example"]));
        assert!(!visit(&asking, &client) && !visit(&asking, &client));
    }
}

#[test]
fn a_peer_that_does_not_read_is_owed_no_more_than_its_buffer() {
    let ca = Ca::new();
    let daemon = ca.far(
        "buffer = \"64KiB\"\ntcp = { send_buffer = \"16KiB\", receive_buffer = \"16KiB\" }",
        "",
    );
    let mut peers: Vec<_> = (0..20)
        .map(|_| Peer::begin(&daemon, ca.client(&version::TLS13)))
        .collect();
    let before = rss(&daemon);
    for peer in &mut peers {
        peer.stream
            .set_write_timeout(Some(Duration::from_millis(300)))
            .expect("a timeout");
        peer.say(&patterned(1, 0, 8 * MIB));
    }
    let grown = rss(&daemon).saturating_sub(before);
    assert!(grown < 20 * 256 * 1024, "{grown} bytes for 20 peers");
}

#[test]
fn an_idle_peer_takes_little_memory_whatever_it_said_before() {
    let peers_of = |daemon: &Daemon, ca: &Ca, count: usize| -> Vec<Peer> {
        let mut client = ca.client(&version::TLS13);
        client.resumption = rustls::client::Resumption::disabled();
        let begin = |_| Peer::begin(daemon, client.clone());
        (0..count).map(begin).collect()
    };
    let ca = Ca::new();
    let daemon = ca.far("", "");
    // What the first ones need is not theirs alone.
    for peer in &mut peers_of(&daemon, &ca, 8) {
        peer.echo(&patterned(1, 0, 100_000));
    }
    let before = rss(&daemon);
    let mut peers = peers_of(&daemon, &ca, IDLE_PEERS);
    for peer in &mut peers {
        peer.echo(&patterned(1, 0, 40_000));
    }
    let each = rss(&daemon).saturating_sub(before) / IDLE_PEERS;
    eprintln!("{each} bytes for an idle peer");
    assert!(each <= 12 * 1024, "{each} bytes for an idle peer");
}

#[test]
fn a_slow_peer_is_given_everything_in_the_end() {
    let ca = Ca::new();
    let daemon = ca.far("buffer = \"16KiB\"", "");
    let mut peer = Peer::begin(&daemon, ca.client(&version::TLS13));
    let bytes = patterned(5, 0, 6 * MIB);
    peer.tls.writer().write_all(&bytes).expect("room");
    let sealed = peer.sealed();
    let mut writer = peer.stream.try_clone().expect("a descriptor");
    let thread = thread::spawn(move || writer.write_all(&sealed).expect("write"));
    thread::sleep(Duration::from_millis(300));
    assert!(peer.take(bytes.len()) == bytes, "other bytes came back");
    thread.join().expect("written");
    let count = format!("sent={}", 6 * MIB);
    peer.finish();
    ended(&daemon, peer.local(), &["reason=done", &count]);
}

#[test]
fn a_drain_ends_with_a_close_notify() {
    let ca = Ca::new();
    let mut daemon = ca.far("", "");
    let mut idle = Peer::begin(&daemon, ca.client(&version::TLS13));
    idle.echo(b"hello");
    let shaking = connect(daemon.addr_of("tls"));
    daemon.signal(Signal::SIGTERM);
    assert!(idle.rest().is_empty());
    drop(idle);
    drop(shaking);
    assert_eq!(daemon.wait_exit().code(), Some(0));
}

#[test]
fn a_drain_does_not_wait_for_those_who_do_not_close() {
    let ca = Ca::new();
    ca.put("one", ca.made(&["echo.example"]));
    let config = ca.config(&["one"], "", "");
    let mut daemon = Daemon::start(&format!(
        "drain_idle = \"200ms\"\ndrain_timeout = \"60s\"\n{config}"
    ));
    let mut idle = Peer::begin(&daemon, ca.client(&version::TLS13));
    idle.echo(b"hello");
    let told = Instant::now();
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit().code(), Some(0));
    let took = told.elapsed();
    assert!(took < Duration::from_secs(10), "it took {took:?}");
    ended(&daemon, idle.local(), &["reason=drain"]);
}
