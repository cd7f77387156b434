//! The engine that the configuration asks for, and the one that the host allows.
//!
//! A host without io_uring is made of this one, by a filter that the daemon inherits.

use std::path::Path;

mod support;

use support::{Builder, Daemon, ECHO, connect, echo_exact};

/// Listens, with this engine.
fn with(engine: &str) -> Builder {
    Daemon::builder().config(&format!("engine = \"{engine}\"\n{ECHO}"))
}

/// The same where io_uring is refused.
fn without_io_uring(engine: &str) -> Builder {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let filter = tests.join("support/without-io-uring.py");
    with(engine).wrapper([Path::new("python3"), &filter])
}

fn status(daemon: &Daemon) -> String {
    daemon.wait_notify(|message| message.starts_with("STATUS="))
}

#[test]
fn epoll_is_the_default_and_serves_everywhere() {
    for builder in [
        Daemon::builder().config(ECHO),
        with("epoll"),
        without_io_uring("epoll"),
    ] {
        let daemon = builder.start();
        assert_eq!(daemon.wait_line("engine="), "engine engine=epoll");
        assert_eq!(status(&daemon), "STATUS=0 connections, 0 B echoed");
        echo_exact(&connect(daemon.addr()), b"hello");
    }
}

#[test]
fn auto_says_which_engine_serves() {
    let daemon = with("auto").start();
    let line = daemon.wait_line("engine=");
    let engine = match line.strip_prefix("engine engine=") {
        Some("io_uring") => "io_uring",
        Some(rest) if rest.starts_with("epoll cause=") => "epoll",
        _ => panic!("{line}"),
    };
    let status = status(&daemon);
    assert!(status.contains(&format!(", engine {engine}")), "{status}");
    echo_exact(&connect(daemon.addr()), b"hello");
}

#[test]
fn auto_is_epoll_where_io_uring_is_refused_and_says_why() {
    let daemon = without_io_uring("auto").start();
    let line = daemon.wait_line("engine=");
    let cause = "io_uring cannot be set up: Operation not permitted";
    assert_eq!(line, format!("engine engine=epoll cause=\"{cause}\""));
    assert_eq!(
        status(&daemon),
        format!("STATUS=0 connections, 0 B echoed, engine epoll; no io_uring: {cause}")
    );
    echo_exact(&connect(daemon.addr()), b"hello");
    // Neither a reload nor what it brings changes anything of that.
    let mark = daemon.notified().len();
    daemon.adopt(&format!("engine = \"auto\"\n{ECHO}"));
    let status = daemon.wait_notify_after(mark, |message| message.starts_with("STATUS="));
    assert!(status.contains(", engine epoll; no io_uring: "), "{status}");
}

#[test]
fn io_uring_is_refused_where_the_host_refuses_it() {
    let mut daemon = without_io_uring("io_uring").without_ready().start();
    assert_eq!(daemon.wait_exit().code(), Some(1));
    let lines = daemon.lines();
    let last = lines.last().expect("a last word");
    assert_eq!(
        last,
        "echod: engine \"io_uring\": not available: io_uring cannot be set up: Operation not permitted \
         (use \"epoll\" or \"auto\")"
    );
    assert_eq!(daemon.notified(), Vec::<String>::new());
}

#[test]
fn the_engine_is_not_changed_while_serving() {
    let daemon = with("epoll").start();
    daemon.write_config(&format!("engine = \"io_uring\"\n{ECHO}"));
    let answer = daemon.reload();
    assert_eq!(answer.status.code(), Some(78));
    assert_eq!(
        String::from_utf8_lossy(&answer.stderr),
        "echod: engine: changed, which needs a restart (restart echod, or change it back)\n"
    );
    echo_exact(&connect(daemon.addr()), b"hello");
}
