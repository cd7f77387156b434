//! OpenSSL's own client as a peer: what it can be told to speak, to show and to spoil.

#[path = "support/tls.rs"]
mod secure;
mod support;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread;

use secure::Ca;
use support::{Daemon, patterned};

/// More than the pipes and sockets on the way hold.
const BYTES: usize = 1 << 20;

/// `openssl s_client`, trusting the CA, with these words besides.
fn s_client(ca: &Ca, address: SocketAddr, words: &[&str]) -> Child {
    let child = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string(), "-CAfile"])
        .arg(ca.path("ca.pem"))
        .arg("-verify_return_error")
        .args(words)
        .arg("-no_ign_eof") // last: -quiet is the opposite
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    child.expect("openssl, which has to be installed")
}

/// Says something and hears it, then leaves; `Err`: what it said of its failure.
fn talk(ca: &Ca, daemon: &Daemon, words: &[&str]) -> Result<(), String> {
    let words = [&["-quiet", "-nocommands"], words].concat();
    let mut child = s_client(ca, daemon.addr_of("tls"), &words);
    let mut stdin = child.stdin.take().expect("piped");
    let mut stdout = child.stdout.take().expect("piped");
    let bytes = patterned(3, 0, BYTES);
    let mut back = Vec::new();
    thread::scope(|scope| {
        // It leaves at the end of its input, whatever it is owed: so that is kept until it has it.
        let sender = scope.spawn(|| stdin.write_all(&bytes).map(|()| stdin));
        let expected = u64::try_from(BYTES).expect("short");
        let read = stdout.by_ref().take(expected).read_to_end(&mut back);
        read.expect("a pipe");
        let _ = sender.join().expect("a sender");
    });
    let output = child.wait_with_output().expect("wait");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if back.is_empty() {
        return Err(said);
    }
    assert!(back == bytes, "other bytes came back: {said}");
    assert!(output.status.success(), "{said}");
    Ok(())
}

/// The last record, once there are so many.
fn record(daemon: &Daemon, count: usize) -> String {
    let mut records = daemon.wait_lines(count, "connection ended ");
    records.pop().expect("a record") + " "
}

/// Each talk leaves the record that it should.
fn each(ca: &Ca, daemon: &Daemon, all: &[(&[&str], Result<&str, &str>)]) {
    for (count, (words, expected)) in (1..).zip(all) {
        let talked = talk(ca, daemon, words);
        let record = record(daemon, count);
        let words_of = match expected {
            Ok(words) => {
                assert_eq!(talked, Ok(()), "{words:?}: {record}");
                let counts = format!(" reason=done received={BYTES} sent={BYTES} ");
                assert!(record.contains(&counts), "{record}");
                assert!(!record.contains("truncated"), "{record}");
                words
            }
            Err(words) => {
                assert!(talked.is_err(), "{words:?}: {record}");
                assert!(
                    record.contains(" reason=tls received=0 sent=0 "),
                    "{record}"
                );
                words
            }
        };
        assert!(record.contains(words_of), "{words:?}: {record}");
    }
}

#[test]
fn it_speaks_each_version_suite_and_group_that_is_served_and_no_other() {
    let ca = Ca::new();
    let daemon = ca.far("", "");
    let suite = |name: &str| format!(" cipher={name} sni=");
    let modern: Vec<_> = [
        "TLS_AES_128_GCM_SHA256",
        "TLS_AES_256_GCM_SHA384",
        "TLS_CHACHA20_POLY1305_SHA256",
    ]
    .map(|name| (name, suite(name)))
    .into();
    let old: Vec<_> = [
        (
            "ECDHE-ECDSA-AES128-GCM-SHA256",
            suite("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
        ),
        (
            "ECDHE-ECDSA-AES256-GCM-SHA384",
            suite("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
        ),
        (
            "ECDHE-ECDSA-CHACHA20-POLY1305",
            suite("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
        ),
    ]
    .into();
    let mut all: Vec<(Vec<&str>, Result<&str, &str>)> = Vec::new();
    for (name, words) in &modern {
        all.push((vec!["-tls1_3", "-ciphersuites", name], Ok(words)));
    }
    for (name, words) in &old {
        all.push((vec!["-tls1_2", "-cipher", name], Ok(words)));
    }
    for group in ["X25519", "P-256", "P-384"] {
        all.push((vec!["-tls1_3", "-groups", group], Ok(" tls=1.3 ")));
    }
    // Of the certificate's key it is the curve as well.
    for groups in ["X25519:P-256", "P-256", "P-384:P-256"] {
        all.push((vec!["-tls1_2", "-groups", groups], Ok(" tls=1.2 ")));
    }
    // What nobody should speak any more, by a client that would.
    let lax = "ALL:@SECLEVEL=0";
    for version in ["-tls1", "-tls1_1"] {
        let words = vec![version, "-cipher", lax];
        all.push((words, Err("cause=\"")));
    }
    for name in [
        "ECDHE-ECDSA-AES128-SHA",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "AES128-GCM-SHA256",
    ] {
        all.push((vec!["-tls1_2", "-cipher", name], Err("cause=\"")));
    }
    all.push((vec!["-tls1_3", "-groups", "X448"], Err("cause=\"")));
    let all: Vec<_> = all
        .into_iter()
        .map(|(words, expected)| {
            (
                [&["-servername", "echo.example"][..], &words].concat(),
                expected,
            )
        })
        .collect();
    let all: Vec<_> = all
        .iter()
        .map(|(words, expected)| (&words[..], *expected))
        .collect();
    each(&ca, &daemon, &all);
}

#[test]
fn it_is_shown_the_certificate_of_the_name_that_it_asks_for() {
    let ca = Ca::new();
    ca.put("one", ca.made(&["one.example"]));
    ca.put("two", ca.made(&["two.example"]));
    let daemon = Daemon::start(&ca.config(&["one", "two"], "", ""));
    let gave_up = "cause=\"the peer gave up: ";
    each(
        &ca,
        &daemon,
        &[
            (
                &[
                    "-servername",
                    "one.example",
                    "-verify_hostname",
                    "one.example",
                ],
                Ok(" sni=one.example "),
            ),
            (
                &[
                    "-servername",
                    "two.example",
                    "-verify_hostname",
                    "two.example",
                ],
                Ok(" sni=two.example "),
            ),
            // Who asks for nobody is shown the first.
            (
                &["-noservername", "-verify_hostname", "one.example"],
                Ok(" tls="),
            ),
            (
                &[
                    "-tls1_2",
                    "-noservername",
                    "-verify_hostname",
                    "two.example",
                ],
                Err(gave_up),
            ),
        ],
    );
}

#[test]
fn it_shows_a_certificate_where_one_is_asked_for() {
    let ca = Ca::new();
    let other = Ca::new();
    ca.put("peer", ca.made(&["peer.example"]));
    other.put("peer", other.made(&["peer.example"]));
    let paths = [&ca, &other].map(|ca| {
        ["peer.pem", "peer.key"].map(|name| ca.path(name).to_str().expect("text").to_owned())
    });
    let daemon = ca.far("", "client_ca = \"CA\"");
    let mut all: Vec<(Vec<&str>, Result<&str, &str>)> = Vec::new();
    for version in ["-tls1_2", "-tls1_3"] {
        let [[certificate, key], [wrong, its]] = &paths;
        all.push((
            vec![version, "-cert", certificate, "-key", key],
            Ok(" client=peer.example "),
        ));
        all.push((
            vec![version, "-cert", wrong, "-key", its],
            Err("cause=\"the peer's certificate: unknown CA\""),
        ));
        all.push((vec![version], Err("cause=\"the peer has no certificate\"")));
    }
    let all: Vec<_> = all
        .iter()
        .map(|(words, expected)| (&words[..], *expected))
        .collect();
    each(&ca, &daemon, &all);
}

/// Reads until this has come, and answers all that has.
fn heard(from: &mut impl Read, what: &str) -> String {
    let mut bytes = Vec::new();
    while !String::from_utf8_lossy(&bytes).contains(what) {
        let mut more = [0; 1000];
        let count = from.read(&mut more).expect("a pipe");
        assert_ne!(count, 0, "no {what:?}: {}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&more[..count]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn a_second_handshake_is_refused_and_new_keys_are_taken() {
    let ca = Ca::new();
    let daemon = ca.far("", "");
    // Lines of one letter are orders to it: both ends take new keys.
    let mut child = s_client(&ca, daemon.addr_of("tls"), &["-tls1_3"]);
    let mut stdin = child.stdin.take().expect("piped");
    let mut stdout = child.stdout.take().expect("piped");
    let mut stderr = child.stderr.take().expect("piped");
    for round in 0..5 {
        let line = format!("round {round} of bytes\n");
        stdin.write_all(line.as_bytes()).expect("a pipe");
        heard(&mut stdout, &line);
        stdin
            .write_all(if round % 2 == 0 { b"K\n" } else { b"k\n" })
            .expect("a pipe");
        // It is one where it comes alone: what follows waits until it was taken.
        heard(&mut stderr, "KEYUPDATE");
    }
    drop(stdin);
    assert!(child.wait().expect("wait").success());
    let told = record(&daemon, 1);
    assert!(told.contains(" reason=done received=85 sent=85 "), "{told}");

    let mut child = s_client(&ca, daemon.addr_of("tls"), &["-tls1_2"]);
    let mut stdin = child.stdin.take().expect("piped");
    let mut stdout = child.stdout.take().expect("piped");
    stdin.write_all(b"before it\n").expect("a pipe");
    heard(&mut stdout, "before it\n");
    stdin.write_all(b"R\n").expect("a pipe");
    let output = child.wait_with_output().expect("wait");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no renegotiation"), "{said}");
    let told = record(&daemon, 2);
    assert!(told.contains(" received=10 sent=10 "), "{told}");
}

#[test]
fn it_may_leave_at_any_time() {
    let ca = Ca::new();
    let daemon = ca.far("", "");
    // At once, with a `close_notify`.
    for (count, version) in [(1, "-tls1_2"), (2, "-tls1_3")] {
        let mut child = s_client(
            &ca,
            daemon.addr_of("tls"),
            &[version, "-quiet", "-nocommands"],
        );
        drop(child.stdin.take());
        assert!(child.wait().expect("wait").success());
        let told = record(&daemon, count);
        assert!(told.contains(" reason=done received=0 sent=0 "), "{told}");
        assert!(!told.contains("truncated"), "{told}");
    }
    // In the middle of what it is owed, without a word.
    let mut child = s_client(&ca, daemon.addr_of("tls"), &["-quiet", "-nocommands"]);
    let mut stdin = child.stdin.take().expect("piped");
    let mut stdout = child.stdout.take().expect("piped");
    stdin
        .write_all(&patterned(1, 0, BYTES / 4))
        .expect("a pipe");
    stdout.read_exact(&mut [0; 1000]).expect("an echo");
    child.kill().expect("kill");
    child.wait().expect("wait");
    let told = record(&daemon, 3);
    let is_told = told.contains(" reason=reset ") || told.contains(" truncated=yes ");
    assert!(is_told, "{told}");
    assert_eq!(talk(&ca, &daemon, &[]), Ok(()));
}
