//! No more rings: `io_uring_setup` is refused to every thread, and nothing else is.
//!
//! A filter is for good, so the test runs this program again and that process is the one to be filtered.

#![allow(unsafe_code, reason = "nothing safe makes a ring here")]

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{self, Command};
use std::ptr;
use std::sync::mpsc;
use std::thread;

use echod::lockdown::deny_new_rings;
use nix::errno::Errno;

/// Set in the process that is to be filtered.
const CHILD: &str = "ECHOD_TEST_DENIES_RINGS";

/// The child says it last: a test program that found no test to run ends well, too.
const DONE: &str = "the child came to its end";

/// What the kernel says to one who would make a ring without saying what kind.
fn try_ring() -> Errno {
    // SAFETY: there is nothing at a null address to read, and the kernel says so.
    let result = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, ptr::null::<u8>()) };
    assert_eq!(result, -1, "a ring was made of nothing");
    Errno::last()
}

fn echo_once() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let mut peer = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    let (mut stream, _) = listener.accept().expect("accept");
    peer.write_all(b"hello").expect("write");
    let mut bytes = [0; 5];
    stream.read_exact(&mut bytes).expect("read");
    assert_eq!(&bytes, b"hello");
}

fn deny_and_try() {
    // EFAULT, unless this host has no rings for anybody.
    let before = try_ring();
    println!("before: {before}");
    let (filtered, wait) = mpsc::channel::<()>();
    let older = thread::spawn(move || {
        let _ = wait.recv();
        try_ring()
    });
    deny_new_rings().expect("filtered");
    drop(filtered);
    assert_eq!(try_ring(), Errno::EPERM);
    assert_eq!(older.join().expect("no panic"), Errno::EPERM);
    let younger = thread::spawn(try_ring);
    assert_eq!(younger.join().expect("no panic"), Errno::EPERM);
    echo_once();
    let status = fs::read_to_string("/proc/self/status").expect("read");
    assert!(status.contains("\nNoNewPrivs:\t1\n") && status.contains("\nSeccomp:\t2\n"));
    // A second one may come on top, as it may come on top of a service's.
    deny_new_rings().expect("filtered again");
}

#[test]
fn no_thread_makes_a_ring_any_more_and_all_else_works() {
    if env::var_os(CHILD).is_some() {
        deny_and_try();
        println!("{DONE}");
        process::exit(0);
    }
    let output = Command::new(env::current_exe().expect("this program"))
        .args([
            "--exact",
            "no_thread_makes_a_ring_any_more_and_all_else_works",
            "--nocapture",
        ])
        .env(CHILD, "1")
        .output()
        .expect("run");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains(DONE),
        "{text}{errors}"
    );
}
