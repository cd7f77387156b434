//! What a reload tells: every key that has changed, and what became of it.
//!
//! Whether it became that is `tests/reload.rs`; here it is only what the command, the log and the control
//! socket say.

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output, Stdio};

use nix::sys::signal::Signal::SIGHUP;

#[path = "support/peers.rs"]
mod peers;
#[path = "support/tls.rs"]
mod secure;
mod support;

use peers::free_address;
use secure::Ca;
use support::{Daemon, connect, echo_exact};

/// The daemon's keys; a port that the kernel chooses, for each of these names.
fn listeners(keys: &str, names: &[&str]) -> String {
    let listener =
        |name: &&str| format!("[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\n");
    let listeners: String = names.iter().map(listener).collect();
    format!("{keys}{listeners}")
}

/// What `echod reload` prints once it has adopted this.
fn told(daemon: &Daemon, config: &str) -> Vec<String> {
    daemon.write_config(config);
    let output = daemon.reload();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
    text(&output.stdout).lines().map(str::to_owned).collect()
}

fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(78));
    assert!(output.stdout.is_empty());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn each_key_is_told_with_its_effect_by_command_and_log_alike() {
    let address = free_address();
    let daemon = Daemon::start(&listeners("", &["one", "two"]));
    let peer = connect(daemon.addr_of("one"));
    let text = format!(
        "max_connections = 50\ncontact = \"noc@example.net\"\ndrain_idle = \"2s\"\n{}\
         tcp.nodelay = false\ntimeout.idle = \"30m\"\n\
         access.deny = [\"192.0.2.0/24\"]\naccess.reapply = false\n\
         [[listener]]\nname = \"three\"\naddress = \"{address}\"\n",
        listeners("", &["one"])
    );
    let mark = daemon.mark();
    let lines = told(&daemon, &text);
    let expected = [
        "reloaded: 7 keys changed, 1 listener added, 1 listener removed",
        "max_connections: \"auto\" -> 50: applied now",
        "drain_idle: \"1s\" -> \"2s\": applied now",
        "contact: \"\" -> \"noc@example.net\": applied to new connections",
        "listener \"one\": tcp.nodelay: true -> false: applied to new connections",
        "listener \"one\": timeout.idle: \"1h\" -> \"30m\": applied now",
        "listener \"one\": access.deny: [] -> [\"192.0.2.0/24\"]: applied to new connections",
        "listener \"one\": access.reapply: true -> false: applied now",
        "listener \"three\": added",
        "listener \"two\": removed, its connections are drained",
    ];
    assert_eq!(lines, expected);
    daemon.wait_line_after(mark, "reload adopted changed=9");
    for line in &lines[1..] {
        daemon.wait_line_after(mark, &format!("reload changed: {line}"));
    }
    echo_exact(&peer, b"still here");

    // The same again is nothing new.
    let mark = daemon.mark();
    assert_eq!(told(&daemon, &text), ["reloaded: nothing changed"]);
    daemon.wait_line_after(mark, "reload adopted changed=0");
}

#[test]
fn what_a_signal_changed_is_in_the_log() {
    let daemon = Daemon::start(&listeners("", &["echo"]));
    let mark = daemon.mark();
    daemon.write_config(&listeners("buffer_memory = \"1GiB\"\n", &["echo"]));
    daemon.signal(SIGHUP);
    daemon.wait_line_after(mark, "reload adopted changed=1");
    daemon.wait_line_after(
        mark,
        "reload changed: buffer_memory: \"256MiB\" -> \"1GiB\": applied now",
    );
}

#[test]
fn the_log_tells_twenty_changes_and_counts_the_others() {
    let names: Vec<String> = (0..25).map(|number| format!("at-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let daemon = Daemon::start(&listeners("", &names));
    let mark = daemon.mark();
    let text = listeners("defaults.buffer = \"64KiB\"\n", &names);
    let lines = told(&daemon, &text);
    assert_eq!(lines.len(), 26, "the command tells all: {lines:?}");
    assert_eq!(lines[0], "reloaded: 25 keys changed");
    daemon.wait_line_after(mark, "reload changed: ... and 5 more");
    let all = daemon.lines();
    let changed = all[mark..]
        .iter()
        .filter(|line| line.contains("reload changed: listener"));
    assert_eq!(changed.count(), 20);
}

#[test]
fn a_long_list_is_cut_and_so_is_a_long_report() {
    let prefixes = |last: u8| {
        let prefixes =
            (0..10_000u32).map(|number| format!("\"10.{}.{}.0/24\"", number / 250, number % 250));
        let mut prefixes: Vec<_> = prefixes.collect();
        prefixes.push(format!("\"192.0.2.{last}\""));
        format!("defaults.access.deny = [{}]\n", prefixes.join(", "))
    };
    let names: Vec<String> = (0..60).map(|number| format!("at-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let daemon = Daemon::start(&listeners(&prefixes(1), &names));
    let lines = told(&daemon, &listeners(&prefixes(2), &names));
    assert_eq!(lines[0], "reloaded: 60 keys changed");
    assert_eq!(lines.len(), 61);
    for line in &lines[1..] {
        assert!(line.len() < 250, "{line}");
        assert!(
            line.contains("192.0.2.1/32\"] -> ...") && line.contains("192.0.2.2/32\"]: "),
            "{line}"
        );
    }

    // Nearly every key of every listener.
    let every = "defaults.buffer = \"64KiB\"\ndefaults.backlog = 100\ndefaults.max_connections = 9\n\
        defaults.max_bytes = \"1MiB\"\ndefaults.timeout = { first_byte = \"3s\", idle = \"5s\", lifetime = \"9m\" }\n\
        defaults.refusal = \"say\"\ndefaults.rate.bytes = \"10MiB/s\"\ndefaults.max_connections_per_source = 5\n\
        defaults.source_prefix = { ipv4 = 24, ipv6 = 48 }\ndefaults.rate.connections = \"10/s\"\n\
        defaults.access.reapply = false\ndefaults.rate.total_bytes = \"1GiB/s\"\n\
        defaults.max_connections_per_worker = 5\n";
    let lines = told(&daemon, &listeners(every, &names));
    let bytes: usize = lines.iter().map(|line| line.len() + 1).sum();
    assert!(
        bytes <= 64 * 1024 + "reloaded: ".len() && bytes > 60 * 1024,
        "{bytes}"
    );
    let last = lines.last().expect("a line");
    let left = last
        .strip_prefix("... and ")
        .and_then(|rest| rest.strip_suffix(" more"));
    let left: usize = left.and_then(|left| left.parse().ok()).expect(last);
    let changed = format!("reloaded: {} keys changed", lines.len() - 2 + left);
    assert_eq!(lines[0], changed);
}

#[test]
fn a_refusal_names_every_key_that_needs_a_restart_and_changes_nothing() {
    let daemon = Daemon::start(&listeners("", &["echo"]));
    let text = listeners(
        "workers = 3\nengine = \"auto\"\nallow_root = true\nmax_connections = 7\n",
        &["echo", "more"],
    );
    daemon.write_config(&text);
    assert_eq!(
        refused(&daemon.reload()),
        "echod: workers, engine, allow_root: changed, which need a restart (restart echod, or change it back)\n"
    );
    let lines = daemon.lines();
    assert!(
        !lines.iter().any(|line| line.contains("reload changed")),
        "{lines:?}"
    );
    // What was refused is not in force: it would be a change again.
    assert_eq!(
        told(&daemon, &listeners("max_connections = 8\n", &["echo"])),
        [
            "reloaded: 1 key changed",
            "max_connections: \"auto\" -> 8: applied now"
        ]
    );
}

#[test]
fn what_the_socket_unit_decides_is_told_as_unused() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("its address");
    let text =
        |more: &str| format!("[[listener]]\nname = \"echo\"\naddress = \"{address}\"\n{more}");
    let daemon = Daemon::builder()
        .config(&text(""))
        .hand_over("echo", &socket)
        .start();
    let more = "backlog = 100\nbuffer = \"64KiB\"\ntcp.v6only = true\n";
    assert_eq!(
        told(&daemon, &text(more)),
        [
            "reloaded: 3 keys changed",
            "listener \"echo\": backlog: 4096 -> 100: unused, the socket unit decides it",
            "listener \"echo\": buffer: \"512KiB\" -> \"64KiB\": applied now",
            "listener \"echo\": tcp.v6only: false -> true: unused, the socket unit decides it",
        ]
    );
}

#[test]
fn the_journal_is_not_told_twice() {
    let daemon = Daemon::start(&listeners("", &["echo"]));
    let path = daemon.directory().join("stdout");
    let printed = |is_journal: bool| {
        let stdout = File::create(&path).expect("a file");
        let file = stdout.metadata().expect("its number");
        let number = file.ino() + u64::from(!is_journal);
        let status = Command::new(env!("CARGO_BIN_EXE_echod"))
            .arg("reload")
            .env("RUNTIME_DIRECTORY", daemon.runtime_directory())
            .env("JOURNAL_STREAM", format!("{}:{number}", file.dev()))
            .stdout(Stdio::from(stdout))
            .status()
            .expect("run echod reload");
        assert!(status.success());
        std::fs::read_to_string(&path).expect("text")
    };
    assert_eq!(printed(false), "reloaded: nothing changed\n");
    assert_eq!(printed(true), "");
}

#[test]
fn certificates_that_were_renewed_are_told_by_file_and_listener() {
    let ca = Ca::new();
    for name in ["one", "two", "other"] {
        ca.put(name, ca.made(&["echo.example"]));
    }
    let listener = |name: &str, table: &str| {
        format!("[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\n{table}")
    };
    let text = [
        listener("both", &ca.table(&["one", "two"], "")),
        listener("asks", &ca.table(&["one"], "client_ca = \"CA\"")),
        listener("other", &ca.table(&["other"], "")),
    ];
    let text = text.concat();
    let daemon = Daemon::start(&text);
    let line = |listener: &str, file: &str, until: &str| {
        let path = ca.path(file);
        let path = path.display();
        format!(
            "listener \"{listener}\": {path}: renewed, valid until {until} 00:00 UTC: applied to new connections"
        )
    };
    assert_eq!(told(&daemon, &text), ["reloaded: nothing changed"]);
    ca.put("one", ca.made_until(&["echo.example"], 3500));
    let expected = [
        "reloaded: 2 certificates renewed".to_owned(),
        line("both", "one.pem", "3500-01-01"),
        line("asks", "one.pem", "3500-01-01"),
    ];
    let mark = daemon.mark();
    assert_eq!(told(&daemon, &text), expected);
    daemon.wait_line_after(mark, "reload adopted changed=2");
    for line in &expected[1..] {
        daemon.wait_line_after(mark, &format!("reload changed: {line}"));
    }
    assert_eq!(told(&daemon, &text), ["reloaded: nothing changed"]);
    // Together with a key; and what peers are asked for.
    ca.write("ca.pem", &Ca::new().pem);
    let text = text.replacen("name", "timeout.idle = \"30m\"\nname", 1);
    let lines = told(&daemon, &text);
    assert_eq!(
        lines[..2],
        [
            "reloaded: 1 key changed, 1 certificate renewed",
            "listener \"both\": timeout.idle: \"1h\" -> \"30m\": applied now"
        ]
    );
    let renewed = format!(
        "listener \"asks\": {}: renewed, valid until ",
        ca.path("ca.pem").display()
    );
    assert!(lines[2].starts_with(&renewed), "{lines:?}");
    // A reload that is refused has renewed nothing.
    ca.put("two", ca.made_until(&["echo.example"], 3400));
    let (_, key) = ca.made(&["echo.example"]);
    ca.write("other.key", &key);
    assert!(refused(&daemon.reload()).contains("other.key: not the key of "));
    ca.put("other", ca.made_until(&["echo.example"], 3600));
    assert_eq!(
        told(&daemon, &text),
        [
            "reloaded: 2 certificates renewed".to_owned(),
            line("both", "two.pem", "3400-01-01"),
            line("other", "other.pem", "3600-01-01"),
        ]
    );
}
