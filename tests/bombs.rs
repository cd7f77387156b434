//! Many peers at once whose little input becomes a lot: memory stays below its ceiling, others are served all the
//! time, and afterwards everything is as before.
//!
//! 300 of them; `ECHOD_TEST_BOMBS=1000 cargo test --release --test bombs -- --nocapture` for more, and for the figures.

#[path = "support/packing.rs"]
mod packing;
mod support;

use std::env;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use echod::compression::Method;
use echod::config::Config;
use flate2::{Compress, Compression, FlushCompress};
use nix::sys::signal::Signal;
use packing::{BOTH, Packer, opened_once};
use support::{Daemon, connect, echo_exact};

/// The longest that one who has nothing to do with it may wait for an answer.
const PROMPT: Duration = Duration::from_secs(5);

/// What a bomb becomes, and what it is.
const BECOMES: usize = 1 << 30;
const IS: usize = 1 << 20;

/// All have ended by then: one that waits for memory does not wait longer than 30 seconds.
const OVER: Duration = Duration::from_secs(100);

/// 1 MiB that becomes 1 GiB of zeros, in a frame that asks for the largest window that is allowed.
fn bomb(method: Method) -> Vec<u8> {
    match method {
        Method::Zstd => {
            // Blocks of one byte, repeated 4096 times.
            let block = 4096_u32 << 3 | 1 << 1;
            let [one, two, three, _] = block.to_le_bytes();
            let mut bomb = vec![0x28, 0xb5, 0x2f, 0xfd, 0, (23 - 10) << 3];
            bomb.extend([one, two, three, 0].repeat(BECOMES / 4096));
            bomb
        }
        Method::Gzip => {
            // A piece that refers to nothing before it, again and again.
            let mut state = Compress::new(Compression::best(), false);
            let mut piece = Vec::with_capacity(1 << 16);
            let zeros = vec![0; 1 << 20];
            let status = state.compress_vec(&zeros, &mut piece, FlushCompress::Full);
            status.expect("packed");
            assert!(state.total_in() == 1 << 20 && piece.len() < piece.capacity());
            let header = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
            [&header[..], &piece.repeat(BECOMES >> 20)].concat()
        }
    }
}

/// Sends it as far as it is taken, and waits for the end: how long that took.
fn explode(address: SocketAddr, bomb: &[u8]) -> Duration {
    let mut stream = connect(address);
    stream.set_write_timeout(Some(OVER)).expect("a timeout");
    stream.set_read_timeout(Some(OVER)).expect("a timeout");
    let began = Instant::now();
    let is_end = |error: &std::io::Error| {
        matches!(
            error.kind(),
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
        )
    };
    if let Err(error) = stream.write_all(bomb) {
        assert!(is_end(&error), "write: {error}");
    }
    let mut answer = vec![0; 1 << 16];
    loop {
        match stream.read(&mut answer) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => {
                assert!(is_end(&error), "read: {error}");
                break;
            }
        }
    }
    began.elapsed()
}

/// A peer that goes on and on, and what it tells when it is stopped.
struct Honest<T> {
    orders: Sender<()>,
    thread: JoinHandle<T>,
}

impl<T> Honest<T> {
    fn stop(self) -> T {
        drop(self.orders);
        self.thread.join().expect("it was served")
    }
}

/// Says a few bytes every few milliseconds, on a listener without compression: how long each answer took.
fn honest(address: SocketAddr) -> Honest<Vec<Duration>> {
    let (orders, told) = channel::<()>();
    let stream = connect(address);
    let thread = thread::spawn(move || {
        let mut times = Vec::new();
        loop {
            let began = Instant::now();
            echo_exact(&stream, &[7; 300]);
            times.push(began.elapsed());
            if told.recv_timeout(Duration::from_millis(5)) == Err(RecvTimeoutError::Disconnected) {
                return times;
            }
        }
    });
    Honest { orders, thread }
}

/// Has one frame echoed on a connection of its own. `false`: it was ended, since there was no memory.
fn is_echoed(address: SocketAddr, method: Method) -> bool {
    let mut stream = connect(address);
    stream.set_read_timeout(Some(OVER)).expect("a timeout");
    let mut packer = Packer::new(method);
    let word = [packer.say(b"hello"), packer.end()].concat();
    if stream.write_all(&word).is_err() {
        return false;
    }
    let mut back = Vec::new();
    match opened_once(method, &stream).read_to_end(&mut back) {
        Ok(_) if back.is_empty() => false,
        Ok(_) => {
            assert_eq!(back, b"hello");
            true
        }
        Err(error) => {
            let is_ended = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
            assert!(is_ended.contains(&error.kind()), "{error}");
            false
        }
    }
}

/// Compresses beside the bombs, one connection after another: how long each took, and how many were in vain.
fn compressing(address: SocketAddr, method: Method) -> Honest<(Vec<Duration>, usize)> {
    let (orders, told) = channel::<()>();
    let thread = thread::spawn(move || {
        let (mut times, mut in_vain) = (Vec::new(), 0);
        loop {
            let began = Instant::now();
            match is_echoed(address, method) {
                true => times.push(began.elapsed()),
                false => in_vain += 1,
            }
            if told.recv_timeout(Duration::from_millis(5)) == Err(RecvTimeoutError::Disconnected) {
                return (times, in_vain);
            }
        }
    });
    Honest { orders, thread }
}

/// The most memory that a process has had, in bytes.
fn most_memory(daemon: &Daemon) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("a process");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.expect("a size") * 1024
}

/// So many frames with the largest window may go on at once, as those do who begin one and are answered.
fn frames_at_once(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    // A window of 8 MiB, and five bytes as they are.
    let head = [0x28, 0xb5, 0x2f, 0xfd, 0, (23 - 10) << 3, 5 << 3, 0, 0];
    let hello = [&head[..], b"hello"].concat();
    let begin = |_| {
        let mut stream = connect(address);
        stream.write_all(&hello).expect("write");
        let mut back = [0; 5];
        let answer = opened_once(Method::Zstd, &stream).read_exact(&mut back);
        answer.expect("memory for it");
        assert_eq!(&back, b"hello");
        stream
    };
    (0..count).map(begin).collect()
}

fn figures(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    println!(
        "{what}: {} times, median {:?}, 99 % {:?}, longest {:?}",
        times.len(),
        at(50),
        at(99),
        at(100)
    );
}

#[test]
fn bombs_take_neither_the_memory_nor_the_time_of_others() {
    let count = env::var("ECHOD_TEST_BOMBS").map_or(300, |n| n.parse().expect("a number"));
    let max = count + 100;
    let text = format!(
        "workers = 2\nmax_connections = {max}\nbuffer_memory = \"64MiB\"\npressure.above = \"off\"\n[log]\nrecord_rate = \"100000/s\"\n\
         [[listener]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"zstd\"\naddress = \"127.0.0.1:0\"\ncompression.method = \"zstd\"\n\
         [[listener]]\nname = \"gzip\"\naddress = \"127.0.0.1:0\"\ncompression.method = \"gzip\"\n"
    );
    let mut daemon = Daemon::start(&text);
    // Half of the memory is for three of them, each with its window and the states of the library.
    drop(frames_at_once(daemon.addr_of("zstd"), 3));

    let plain = honest(daemon.addr_of("plain"));
    let others = BOTH.map(|method| compressing(daemon.addr_of(method.name()), method));
    let bombs = BOTH.map(bomb);
    assert!(bombs.iter().all(|bomb| bomb.len() < IS + IS / 10));
    let began = Instant::now();
    let mut times: Vec<Duration> = thread::scope(|scope| {
        let explode = |number: usize| {
            let bomb = &bombs[number % 2];
            let address = daemon.addr_of(BOTH[number % 2].name());
            scope.spawn(move || explode(address, bomb))
        };
        let threads: Vec<_> = (0..count).map(explode).collect();
        let ended = threads.into_iter().map(|bomb| bomb.join().expect("an end"));
        ended.collect()
    });
    let all = began.elapsed();
    let others = others.map(Honest::stop);
    let mut plain = plain.stop();

    figures("a bomb's life", &mut times);
    figures("a plain answer", &mut plain);
    println!("{count} bombs: all ended after {all:?}");
    let longest = plain.last().expect("one at least");
    assert!(*longest < PROMPT, "an answer took {longest:?}");
    let mut in_vain = 0;
    for (method, (mut times, vain)) in BOTH.into_iter().zip(others) {
        in_vain += vain;
        // In the end there is memory again.
        assert!(!times.is_empty(), "{method:?}: nobody was served");
        figures(
            &format!("a frame of {}, {vain} in vain", method.name()),
            &mut times,
        );
    }

    let config = Config::parse(&support::completed(&text), Path::new("x.toml")).expect("valid");
    let max = u32::try_from(max).expect("few");
    let ceiling = echod::config::memory(&config, 2, max, 0).ours;
    let peak = most_memory(&daemon);
    println!("memory: {} KiB of {} KiB", peak >> 10, ceiling >> 10);
    assert!(peak <= ceiling, "{peak} of {ceiling}");
    assert!(peak >= 24 << 20, "{peak}: the windows were not used");

    // All memory that frames may have is there again, for as many as before.
    drop(frames_at_once(daemon.addr_of("zstd"), 3));
    echo_exact(&connect(daemon.addr_of("plain")), b"as ever");

    // Each is recorded, for a reason that is known; the frames above were left in the middle.
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.wait_exit().success());
    let lines = daemon.lines();
    let count_of = |word: &str| {
        let ended = lines
            .iter()
            .filter(|line| line.contains("connection ended "));
        ended.filter(|line| line.contains(word)).count()
    };
    // Where the log does not keep up they are counted together.
    let together = |reason: &str| -> usize {
        let key = format!(" {reason}=");
        let summaries = lines.iter().filter(|line| line.contains("one by one"));
        let counts = summaries.filter_map(|line| {
            let (_, rest) = line.split_once(&key)?;
            let number = rest.split(' ').next()?;
            Some(number.parse::<usize>().expect("a number"))
        });
        counts.sum()
    };
    let ratio = count_of("reason=compression ") - count_of("cause=truncated");
    assert_eq!(ratio, count_of("cause=\"more than 200 times its length\""));
    let ratio = ratio + together("compression");
    let full = count_of("reason=full ") + together("full");
    println!("{ratio} became too much, {full} found no memory, {in_vain} of them honest");
    assert_eq!(ratio + full, count + in_vain);
}
