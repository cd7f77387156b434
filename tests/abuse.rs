//! Peers that mean no good, all from one source, and an honest one from another: whose every request is answered.

mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use support::{Daemon, PATIENCE, echo_exact, patterned};

const LISTENER: &str = "[[listener]]\nname = \"echo\"\naddress = [\"127.0.0.1:0\"]\n";

/// Requests of the honest peer, each over a connection of its own.
const REQUESTS: u64 = 300;

/// A connection from 127.0.0.`host`; `None`: it was reset before it stood.
fn connect_from(host: u8, address: SocketAddr) -> Option<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let source = SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0));
    socket.bind(&source.into()).expect("an address of ours");
    socket.connect(&address.into()).ok()?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
        .set_write_timeout(Some(Duration::from_millis(20)))
        .expect("a timeout");
    Some(stream)
}

/// Connects as often as it can and holds whatever it gets: one says nothing, one drips, one writes and never reads.
fn attack(address: SocketAddr, is_over: &AtomicBool) {
    let mut held = Vec::new();
    for number in 0u64.. {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let Some(mut stream) = connect_from(2, address) else {
            continue;
        };
        match number % 3 {
            0 => {}
            1 => drop(stream.write_all(b".")),
            _ => while stream.write_all(&[7; 65_536]).is_ok() {},
        }
        // More than this it lets go of again, so that peers come and go all the time.
        held.push(stream);
        if held.len() > 400 {
            held.drain(..100);
        }
    }
}

/// Has every request of an honest peer answered while others attack.
fn honest_is_served(daemon: &Daemon) {
    let (address, is_over) = (daemon.addr(), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| attack(address, &is_over));
        }
        // The attack is at its height.
        daemon.wait_line("bound reached, refusing");
        let asked = thread::scope(|inner| {
            inner
                .spawn(|| {
                    for number in 0..REQUESTS {
                        let stream = connect_from(3, address).expect("a connection");
                        echo_exact(&stream, &patterned(number, 0, 1000));
                        let mut rest = [0];
                        stream
                            .shutdown(std::net::Shutdown::Write)
                            .expect("half closed");
                        assert_eq!((&stream).read(&mut rest).expect("the end"), 0);
                    }
                })
                .join()
        });
        is_over.store(true, Ordering::Relaxed);
        asked.expect("every request was answered");
    });
}

#[test]
fn a_bound_on_each_source_leaves_room_for_the_others() {
    honest_is_served(&Daemon::start(&format!(
        "max_connections = 200\nbuffer_memory = \"256MiB\"\n[log]\nrecords = \"none\"\n{LISTENER}max_connections_per_source = 100\n"
    )));
}

#[test]
fn without_one_pressure_leaves_room_for_the_others() {
    let daemon = Daemon::start(&format!(
        "max_connections = 200\nbuffer_memory = \"256MiB\"\n[log]\nrecords = \"none\"\n[pressure]\nmax_connections_per_source = \"5%\"\n{LISTENER}"
    ));
    honest_is_served(&daemon);
    daemon.wait_line("pressure began");
}

#[test]
fn a_rate_of_arrivals_leaves_the_queue_to_the_others() {
    honest_is_served(&Daemon::start(&format!(
        "[log]\nrecords = \"none\"\n{LISTENER}rate.connections = {{ rate = \"10/s\", burst = 400 }}\n"
    )));
}
