//! Who may come, how many, and how fast: the real daemon, with peers from several sources.
//!
//! All of 127.0.0.0/8 is this host's, so a peer chooses its source by the address that it binds.

#[path = "support/kernel.rs"]
mod kernel;
#[path = "support/peers.rs"]
mod peers;
mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use echod::config::Config;
use peers::{End, end_of, visit_from};
use socket2::{Domain, Socket, Type};
use support::{Daemon, PATIENCE, connect, connect_from, echo_exact, patterned};

const LISTENER: &str = "[[listener]]\nname = \"echo\"\naddress = [\"127.0.0.1:0\", \"[::1]:0\"]\n";

fn is_refused(host: u8, address: SocketAddr) {
    assert_eq!(visit_from(host, address), End::Reset);
}

fn is_served(stream: &TcpStream) {
    echo_exact(stream, b"hello");
}

fn is_reset(stream: &TcpStream) {
    assert_eq!(end_of(stream), End::Reset);
}

#[test]
fn a_source_has_its_hundred_connections_and_no_more_fifty_times_in_a_row() {
    let daemon = Daemon::start(&format!(
        "workers = 4\n[log]\nrecords = \"none\"\n{LISTENER}max_connections_per_source = 100\n"
    ));
    for host in 2..52 {
        let streams: Vec<_> = (0..100)
            .map(|_| connect_from(host, daemon.addr()))
            .collect();
        // Whoever is answered was let in; two that wait at once may be let in by two workers in any order.
        streams.iter().for_each(is_served);
        is_refused(host, daemon.addr());
    }
    daemon.wait_line("key=listener.max_connections_per_source listener=echo value=100 remedy=");
}

#[test]
fn ipv4_sources_on_a_socket_of_both_families_count_apart_and_obey_ipv4_rules() {
    let daemon = Daemon::start(
        "[[listener]]\nname = \"echo\"\naddress = [\"[::]:0\"]\nmax_connections_per_source = 1\naccess.deny = [\"127.0.0.4\"]\n",
    );
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, daemon.addr().port()));
    let (one, two) = (connect_from(2, address), connect_from(3, address));
    is_served(&one);
    is_served(&two);
    is_refused(2, address);
    is_refused(4, address);
    daemon.wait_line("peer=127.0.0.4:");
}

#[test]
fn a_source_prefix_makes_one_source_of_many_addresses() {
    let daemon = Daemon::start(&format!(
        "{LISTENER}max_connections_per_source = 2\nsource_prefix = {{ ipv4 = 24 }}\n"
    ));
    let streams = [2, 3].map(|host| connect_from(host, daemon.addr()));
    streams.iter().for_each(is_served);
    is_refused(4, daemon.addr());
}

#[test]
fn a_worker_serves_no_more_of_a_listener_than_it_may() {
    let daemon = Daemon::start(&format!(
        "workers = 2\n{LISTENER}max_connections_per_worker = 3\n"
    ));
    let streams: Vec<_> = (0..6).map(|_| connect(daemon.addr())).collect();
    streams.iter().for_each(is_served);
    is_refused(1, daemon.addr());
    daemon.wait_line("key=listener.max_connections_per_worker listener=echo value=3");
}

#[test]
fn the_longest_prefix_decides_and_a_reload_ends_those_who_are_denied_now() {
    let access = |text: &str| format!("{LISTENER}[listener.access]\n{text}\n");
    let daemon = Daemon::start(&access(
        "allow = [\"127.0.0.0/8\"]\ndeny = [\"127.0.0.0/24\", \"127.0.0.2\"]",
    ));
    is_refused(2, daemon.addr());
    is_refused(3, daemon.addr());
    let line = daemon.wait_line("peer=127.0.0.2:");
    assert!(line.contains("reason=denied"), "{line}");

    daemon.adopt(&access("deny = [\"127.0.0.2\"]"));
    let streams = [3, 4].map(|host| connect_from(host, daemon.addr()));
    streams.iter().for_each(is_served);
    daemon.adopt(&access("deny = [\"127.0.0.3\"]\nreapply = false"));
    is_refused(3, daemon.addr());
    streams.iter().for_each(is_served);
    daemon.adopt(&access("deny = [\"127.0.0.3\"]"));
    is_reset(&streams[0]);
    is_served(&streams[1]);
    daemon.wait_line("reason=denied received=10 sent=10");
}

#[test]
fn connections_of_one_source_have_a_rate_and_others_do_not_notice() {
    let daemon = Daemon::start(&format!(
        "{LISTENER}rate.connections = {{ rate = \"1/min\", burst = 5 }}\n"
    ));
    let streams: Vec<_> = (0..5).map(|_| connect_from(2, daemon.addr())).collect();
    streams.iter().for_each(is_served);
    is_refused(2, daemon.addr());
    is_served(&connect_from(3, daemon.addr()));
    let line = daemon.wait_line("reason=rate");
    assert!(line.contains("peer=127.0.0.2:"), "{line}");
    daemon.wait_line("key=listener.rate.connections");
    // They do not come back because the connections have ended.
    drop(streams);
    is_refused(2, daemon.addr());
}

/// Sends so many bytes there and back, and answers how long that took.
fn carry(stream: &TcpStream, seed: u64, length: usize) -> Duration {
    let began = Instant::now();
    let bytes = patterned(seed, 0, length);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = stream;
            writer.write_all(&bytes).expect("sent");
            writer.shutdown(Shutdown::Write).expect("half closed");
        });
        let (mut reader, mut back) = (stream, Vec::new());
        reader.read_to_end(&mut back).expect("all of it");
        assert!(back == bytes, "other bytes came back");
    });
    began.elapsed()
}

#[test]
fn bytes_of_a_source_go_no_faster_than_their_rate_and_none_is_lost() {
    for key in ["bytes", "total_bytes"] {
        let daemon = Daemon::start(&format!("workers = 2\n{LISTENER}rate.{key} = \"1MiB/s\"\n"));
        let streams = [0, 1].map(|_| connect_from(2, daemon.addr()));
        let times = std::thread::scope(|scope| {
            let carrying = streams
                .each_ref()
                .map(|stream| scope.spawn(|| carry(stream, 7, 768 << 10)));
            carrying.map(|thread| thread.join().expect("carried"))
        });
        // A tenth of a second's worth is there in the beginning.
        let longest = times.into_iter().max().expect("two");
        assert!(longest >= Duration::from_millis(1400), "{key}: {longest:?}");
        assert_eq!(
            daemon
                .wait_lines(2, "reason=done received=786432 sent=786432")
                .len(),
            2
        );
    }
}

#[test]
fn a_refusal_may_say_why() {
    let daemon = Daemon::start(&format!(
        "{LISTENER}refusal = \"say\"\nmax_connections = 1\naccess.deny = [\"127.0.0.9\"]\n"
    ));
    let first = connect(daemon.addr());
    is_served(&first);
    for (host, line) in [
        (2, "echod refuses: full\r\n"),
        (9, "echod refuses: denied\r\n"),
    ] {
        let mut refused = connect_from(host, daemon.addr());
        let mut said = String::new();
        refused
            .read_to_string(&mut said)
            .expect("a line and the end");
        assert_eq!(said, line);
    }
}

#[test]
fn pressure_ends_the_idle_and_begins_with_the_connection_past_its_share() {
    let daemon = Daemon::start(&format!(
        "max_connections = 20\n[pressure]\nabove = \"50%\"\nidle = \"200ms\"\nmax_connections_per_source = \"60%\"\n{LISTENER}"
    ));
    let mut streams: Vec<_> = (0..10).map(|_| connect_from(2, daemon.addr())).collect();
    streams.iter().for_each(is_served);
    assert!(daemon.lines().iter().all(|line| !line.contains("pressure")));
    streams.push(connect_from(2, daemon.addr()));
    daemon.wait_line("pressure began, stricter limits hold connections=11");
    // It ends them until there are few enough, and no more.
    daemon.wait_lines(2, "reason=idle");
    daemon.wait_line("pressure ended connections=");
    daemon.wait_notify(|message| message.contains("was under pressure (1)"));
}

#[test]
fn under_pressure_a_source_has_its_share_and_whoever_drips_is_slow() {
    let daemon = Daemon::start(&format!(
        "max_connections = 20\n[pressure]\nabove = \"10%\"\nidle = \"off\"\nprogress = \"1KiB/s\"\nmax_connections_per_source = \"15%\"\n{LISTENER}"
    ));
    let _streams: Vec<_> = (0..3).map(|_| connect_from(2, daemon.addr())).collect();
    daemon.wait_line("pressure began");
    is_refused(2, daemon.addr());
    daemon.wait_line("key=pressure.max_connections_per_source listener=echo value=3");
    is_served(&connect_from(3, daemon.addr()));
    // They say nothing, which is no progress.
    daemon.wait_line("reason=slow");
}

/// The memory that a process has, by its key in proc_pid_status(5), in bytes.
fn memory(daemon: &Daemon, key: &str) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("a process");
    let value = status.lines().find_map(|line| line.strip_prefix(key));
    let kib = value.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.expect("a size") * 1024
}

#[test]
fn peers_that_never_read_take_no_more_memory_than_check_says() {
    let text = format!(
        "workers = 2\nmax_connections = 400\nbuffer_memory = \"32MiB\"\npressure.above = \"off\"\n{LISTENER}timeout.stall = \"off\"\ntcp.user_timeout = \"off\"\n"
    );
    let daemon = Daemon::start(&text);
    let flood = [7; 65_536];
    let mut streams = Vec::new();
    // Each writes as much as the kernel and the daemon take of it, until there is no memory for one more.
    let is_full = |line: &String| line.contains("key=buffer_memory");
    while !daemon.lines().iter().any(is_full) {
        let Ok(mut stream) = TcpStream::connect(daemon.addr()) else {
            break;
        };
        let patience = Some(Duration::from_millis(50));
        stream.set_write_timeout(patience).expect("a timeout");
        while stream.write_all(&flood).is_ok() {}
        streams.push(stream);
        assert!(streams.len() < 400, "memory for all of them");
    }
    daemon.wait_line("key=buffer_memory listener=echo value=33554432");
    let config =
        Config::parse(&support::completed(&text), std::path::Path::new("x.toml")).expect("valid");
    let ceiling = echod::config::memory(&config, 2, 400, 0).ours;
    let peak = memory(&daemon, "VmHWM:");
    assert!(peak <= ceiling, "{peak} of {ceiling}");
    assert!(peak >= 16 << 20, "{peak}: the buffers were not used");
}

#[test]
fn memory_is_the_kernels_again_when_its_peers_are_gone() {
    let daemon = Daemon::start(&format!(
        "workers = 1\nmax_connections = 400\nbuffer_memory = \"64MiB\"\npressure.above = \"off\"\n{LISTENER}tcp.send_buffer = \"16KiB\"\n"
    ));
    let before = memory(&daemon, "VmRSS:");
    // None of them reads, and each says a little in turn, so that what is kept for them lies in small pieces side by side.
    let mut streams: Vec<_> = (0..200).map(|_| connect(daemon.addr())).collect();
    let at_once = |stream: &TcpStream| stream.set_nonblocking(true);
    streams
        .iter()
        .map(at_once)
        .for_each(|set| set.expect("set"));
    let is_used = || memory(&daemon, "VmRSS:") > before + (24 << 20);
    kernel::wait_until("its memory is used", || {
        for mut stream in &streams {
            // Nothing is taken of one who is owed its bound.
            let _ = stream.write(&[7; 4000]);
        }
        is_used()
    });
    // One in ten stays, with its pieces between those of the others.
    let mut number = 0;
    streams.retain(|_| {
        number += 1;
        number % 10 == 0
    });
    kernel::wait_until("it is returned", || {
        memory(&daemon, "VmRSS:") < before + (12 << 20)
    });
}

#[test]
fn peers_that_do_not_close_after_us_are_bounded_as_well() {
    let daemon = Daemon::start(
        "max_connections = 20\npressure.above = \"off\"\n[[listener]]\nname = \"daytime\"\nservice = \"daytime\"\naddress = [\"127.0.0.1:0\"]\n",
    );
    // Sixty-four may be on their way out without being counted; the others are.
    let mut held = Vec::new();
    let mut served = 0;
    for _ in 0..120 {
        let Ok(mut stream) = TcpStream::connect(daemon.addr()) else {
            continue;
        };
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut line = String::new();
        served += usize::from(stream.read_to_string(&mut line).is_ok() && !line.is_empty());
        held.push(stream);
    }
    assert!((64..=84).contains(&served), "{served}");
    daemon.wait_line("key=max_connections listener=daytime value=20");
}

#[test]
fn who_leaves_its_answers_in_the_kernels_queue_stalls_long_before_the_kernel_minds() {
    let daemon = Daemon::start(&format!("{LISTENER}timeout.stall = \"1s\"\n"));
    let honest = connect(daemon.addr());
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(2304).expect("a small buffer");
    socket.connect(&daemon.addr().into()).expect("connect");
    let mut deaf = TcpStream::from(socket);
    // The kernel takes the answer to all of this, and the peer none of it.
    deaf.write_all(&[7; 60_000]).expect("sent");
    let line = daemon.wait_line("reason=stall");
    assert!(line.contains("received=60000 sent=60000"), "{line}");
    is_served(&honest);
}

#[test]
fn a_reload_replaces_every_bound_and_keeps_those_who_are_here() {
    let bounds = |count: u32| format!("{LISTENER}max_connections_per_source = {count}\n");
    let daemon = Daemon::start(&bounds(3));
    let streams: Vec<_> = (0..3).map(|_| connect_from(2, daemon.addr())).collect();
    streams.iter().for_each(is_served);
    daemon.adopt(&bounds(1));
    streams.iter().for_each(is_served);
    is_refused(2, daemon.addr());
    is_served(&connect_from(3, daemon.addr()));
    daemon.adopt(&bounds(4));
    is_served(&connect_from(2, daemon.addr()));
}
