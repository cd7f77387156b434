//! TLS 1.3 beside others: `tls_beside ECHOD [SECONDS [ROUNDS]]`, in interleaved rounds, every byte looked at.
//!
//! echod, with each engine, does all by itself. stunnel and HAProxy end TLS in front of an echod without it, whose
//! processor time is told apart. All have one thread of work on one processor, an ECDSA P-256 certificate, X25519 and
//! AES-256-GCM; the load is on the other. What is compared is processor time, so that the load does not bound it.

use std::error::Error;
use std::fs::{self, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, version};
use tempfile::TempDir;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Connections of the bulk, and what each is owed at most.
const CONNECTIONS: usize = 4;
const WINDOW: usize = 128 * 1024;

/// A server, ended with this.
struct Server {
    name: &'static str,
    child: Child,
    clock: ClockId,
    address: SocketAddr,
}

impl Server {
    fn start(name: &'static str, address: SocketAddr, command: &mut Command) -> Result<Server> {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = quiet.stderr(Stdio::null()).spawn()?;
        let pid = Pid::from_raw(child.id().cast_signed());
        let server = Server {
            name,
            child,
            clock: clock_getcpuclockid(pid)?,
            address,
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(address).is_err() {
            if Instant::now() > deadline {
                return Err(format!("{name} does not listen").into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    fn cpu(&self) -> Result<f64> {
        let time: Duration = TimeSpec::into(clock_gettime(self.clock)?);
        Ok(time.as_secs_f64())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// All on this processor from now on, and what it starts.
fn stay_on(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn echod(
    directory: &Path,
    binary: &str,
    name: &'static str,
    engine: &str,
    is_plain: bool,
) -> Result<Server> {
    let address = free_address()?;
    let tls = match is_plain {
        true => String::new(),
        false => format!(
            "[listener.tls]\ncertificates = [{{ certificate = \"{0}/cert.pem\", key = \"{0}/key.pem\" }}]\n",
            directory.display()
        ),
    };
    let text = format!(
        "user = \"nobody\"\ngroup = \"nogroup\"\nworkers = 1\nengine = \"{engine}\"\npressure.above = \"off\"\n\
         [log]\ntarget = \"stderr\"\nrecords = \"none\"\n\
         [[listener]]\nname = \"echo\"\naddress = \"{address}\"\n{tls}"
    );
    let own = directory.join(name.replace(' ', "-"));
    fs::create_dir(&own)?;
    let file = own.join("echod.toml");
    fs::write(&file, text)?;
    let mut command = Command::new(binary);
    command.arg("--config").arg(&file);
    command.env("RUNTIME_DIRECTORY", &own);
    Server::start(name, address, &mut command)
}

fn stunnel(directory: &Path, plain: SocketAddr) -> Result<Server> {
    let address = free_address()?;
    let text = format!(
        "foreground = yes\npid =\ndebug = 3\nsocket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n[tls]\naccept = {address}\nconnect = {plain}\n\
         cert = {}/both.pem\nsslVersionMin = TLSv1.3\nciphersuites = TLS_AES_256_GCM_SHA384\ncurves = X25519\n",
        directory.display()
    );
    let file = directory.join("stunnel.conf");
    fs::write(&file, text)?;
    Server::start("stunnel", address, Command::new("stunnel4").arg(&file))
}

fn haproxy(directory: &Path, plain: SocketAddr) -> Result<Server> {
    let address = free_address()?;
    let text = format!(
        "global\n    nbthread 1\n    maxconn 1000\ndefaults\n    mode tcp\n    timeout connect 5s\n    timeout client 1h\n    timeout server 1h\n\
         listen tls\n    bind {address} ssl crt {}/both.pem ssl-min-ver TLSv1.3 ciphersuites TLS_AES_256_GCM_SHA384 curves X25519\n    server plain {plain}\n",
        directory.display()
    );
    let file = directory.join("haproxy.cfg");
    fs::write(&file, text)?;
    let mut command = Command::new("haproxy");
    Server::start("HAProxy", address, command.arg("-db").arg("-f").arg(&file))
}

/// A client of one suite and one group, which remembers nothing.
fn client(root: CertificateDer<'static>) -> Result<Arc<ClientConfig>> {
    let provider = CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    let mut roots = RootCertStore::empty();
    roots.add(root)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// A connection whose handshake is done.
struct Peer {
    tls: ClientConnection,
    stream: TcpStream,
}

impl Peer {
    fn begin(address: SocketAddr, config: &Arc<ClientConfig>) -> Result<Peer> {
        let name = ServerName::try_from("localhost")?;
        let mut tls = ClientConnection::new(Arc::clone(config), name)?;
        tls.set_buffer_limit(None);
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        Ok(Peer { tls, stream })
    }

    fn say(&mut self, bytes: &[u8]) -> Result<()> {
        self.tls.writer().write_all(bytes)?;
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.stream)?;
        }
        Ok(())
    }

    fn hear(&mut self, back: &mut [u8]) -> Result<()> {
        let mut at = 0;
        while at < back.len() {
            match self.tls.reader().read(&mut back[at..]) {
                Ok(0) => return Err("an end".into()),
                Ok(count) => at += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.tls.read_tls(&mut self.stream)? == 0 {
                        return Err("an end".into());
                    }
                    self.tls.process_new_packets()?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// MiB that came back.
fn bulk(address: SocketAddr, config: &Arc<ClientConfig>, time: Duration) -> Result<f64> {
    let peers: Result<Vec<_>> = (0..CONNECTIONS)
        .map(|_| Peer::begin(address, config))
        .collect();
    let mut peers = peers?;
    let bytes: Vec<u8> = (0..WINDOW)
        .map(|at| (at * 31 + (at >> 8)).to_le_bytes()[0])
        .collect();
    let mut back = vec![0; WINDOW];
    let (began, mut windows) = (Instant::now(), 0_u32);
    while began.elapsed() < time {
        for peer in &mut peers {
            peer.say(&bytes)?;
        }
        for peer in &mut peers {
            peer.hear(&mut back)?;
            if back != bytes {
                return Err("other bytes came back".into());
            }
            windows += 1;
        }
    }
    Ok(f64::from(windows) * WINDOW as f64 / 1_048_576.0)
}

/// Connections, each with a whole handshake and a byte there and back.
fn handshakes(address: SocketAddr, config: &Arc<ClientConfig>, time: Duration) -> Result<f64> {
    let (began, mut count) = (Instant::now(), 0_u32);
    while began.elapsed() < time {
        let mut peer = Peer::begin(address, config)?;
        peer.say(b"x")?;
        let mut back = [0];
        peer.hear(&mut back)?;
        if back != *b"x" {
            return Err("another byte came back".into());
        }
        peer.tls.send_close_notify();
        peer.tls.write_tls(&mut peer.stream)?;
        count += 1;
    }
    Ok(f64::from(count))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |place: usize, default: u64| arguments.get(place).map_or(Ok(default), |n| n.parse());
    let binary = arguments
        .first()
        .ok_or("usage: tls_beside ECHOD [SECONDS [ROUNDS]]")?;
    let (seconds, rounds) = (number(1, 2)?, number(2, 7)?);
    let directory = TempDir::new()?;
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    for (name, text) in [
        ("cert.pem", &cert),
        ("key.pem", &key),
        ("both.pem", &(cert.clone() + &key)),
    ] {
        let path = directory.path().join(name);
        fs::write(&path, text)?;
        fs::set_permissions(path, Permissions::from_mode(0o644))?;
    }
    let config = client(made.cert.der().clone())?;
    stay_on(0)?;
    let at = directory.path();
    let plain = echod(at, binary, "plain", "epoll", true)?;
    let servers = [
        echod(at, binary, "echod epoll", "epoll", false)?,
        echod(at, binary, "echod io_uring", "io_uring", false)?,
        stunnel(at, plain.address)?,
        haproxy(at, plain.address)?,
    ];
    stay_on(1)?;
    let time = Duration::from_secs(seconds);
    for (what, run) in [
        (
            "MiB there and back",
            bulk as fn(SocketAddr, &Arc<ClientConfig>, Duration) -> Result<f64>,
        ),
        ("handshakes", handshakes),
    ] {
        let mut all = vec![(Vec::new(), Vec::new(), Vec::new()); servers.len()];
        for _ in 0..rounds {
            for (server, (own, with_plain, rate)) in servers.iter().zip(&mut all) {
                let (began, plain_began) = (server.cpu()?, plain.cpu()?);
                let count = run(server.address, &config, time)
                    .map_err(|error| format!("{}: {error}", server.name))?;
                // What is left of the last connection is its own as well.
                thread::sleep(Duration::from_millis(50));
                let (cpu, behind) = (server.cpu()? - began, plain.cpu()? - plain_began);
                own.push(count / cpu);
                with_plain.push(count / (cpu + behind));
                rate.push(count / seconds as f64);
            }
        }
        println!(
            "{what} per second of processor time, its own and with the plain echo's; and a second"
        );
        let base = median(&mut all[0].0.clone());
        for (server, (own, with_plain, rate)) in servers.iter().zip(&mut all) {
            let (own, with_plain) = (median(own), median(with_plain));
            println!(
                "{:15} {own:9.0} ({:.2} of {})  {with_plain:9.0}  {:9.0}",
                server.name,
                own / base,
                servers[0].name,
                median(rate)
            );
        }
    }
    Ok(())
}
