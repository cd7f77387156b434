//! No more rings: `io_uring_setup` is refused to every thread, and nothing else is. And no connection of our own.
//!
//! Both are for good, so a test runs this program again and that process is the one to be locked down.

#![allow(unsafe_code, reason = "nothing safe does what is refused here")]

use std::env;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::{self, Command};
use std::ptr;
use std::sync::mpsc;
use std::thread;

use echod::lockdown::{deny_connections, deny_new_rings};
use nix::errno::Errno;
use socket2::SockRef;

/// Set in the process that is to be locked down.
const CHILD: &str = "ECHOD_TEST_LOCKS_ITSELF_DOWN";

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

/// Runs this test in a process of its own, which does `act`.
fn in_a_child(test: &str, act: impl Fn()) {
    if env::var_os(CHILD).is_some() {
        act();
        println!("{DONE}");
        process::exit(0);
    }
    let output = Command::new(env::current_exe().expect("this program"))
        .args(["--exact", test, "--nocapture"])
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

#[test]
fn no_thread_makes_a_ring_any_more_and_all_else_works() {
    in_a_child(
        "no_thread_makes_a_ring_any_more_and_all_else_works",
        deny_and_try,
    );
}

/// What a socket is that was turned round: no more than a new one.
fn dissolve(socket: &impl AsRawFd) {
    // SAFETY: all zero is an address of no family (AF_UNSPEC), and the length is its own.
    let result = unsafe {
        let nowhere: libc::sockaddr = mem::zeroed();
        let length = libc::socklen_t::try_from(size_of_val(&nowhere)).expect("sixteen");
        libc::connect(socket.as_raw_fd(), &raw const nowhere, length)
    };
    assert_eq!(result, 0, "{}", Errno::last());
}

fn deny_and_connect() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = elsewhere.local_addr().expect("address");
    // A peer that was there before, and goes on after.
    let mut peer = TcpStream::connect(address).expect("connect");
    let handed = TcpListener::bind("127.0.0.1:0").expect("bind");
    if !deny_connections() {
        // Before Linux 6.7, or built without Landlock.
        println!("not to be had here");
        return;
    }
    let refused = |connected: io::Result<()>| {
        let error = connected.expect_err("connected");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    };
    refused(TcpStream::connect(address).map(drop));
    let younger = thread::spawn(move || TcpStream::connect(address).map(drop));
    refused(younger.join().expect("no panic"));
    dissolve(&handed);
    refused(SockRef::from(&handed).connect(&address.into()));

    let (mut stream, _) = elsewhere.accept().expect("accept");
    peer.write_all(b"hello").expect("write");
    stream.read_exact(&mut [0; 5]).expect("read");
    TcpListener::bind("127.0.0.1:0").expect("a reload binds");
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("log");
    let log = UnixDatagram::bind(&path).expect("bind");
    let writer = UnixDatagram::unbound().expect("a socket");
    writer.connect(&path).expect("the log is reached");
    writer.send(b"line").expect("send");
    assert_eq!(log.recv(&mut [0; 8]).expect("receive"), 4);
    let path = directory.path().join("control");
    let _control = UnixListener::bind(&path).expect("bind");
    UnixStream::connect(&path).expect("the control socket is reached");
}

#[test]
fn no_thread_connects_a_socket_any_more_and_local_ones_work() {
    in_a_child(
        "no_thread_connects_a_socket_any_more_and_local_ones_work",
        deny_and_connect,
    );
}
