//! Tells the service manager how the daemon is: READY, RELOADING, STOPPING, WATCHDOG, sd_notify(3).
//!
//! Without a service manager every message is a success and goes nowhere. A manager that does not listen
//! costs a bounded wait and an error, which the caller may log and otherwise forget.
//!
//! The words and the clock are sd-notify's, the socket is our own: that crate opens one for each message,
//! takes an abstract address ("@...") for a file name, and waits for ever when the manager's queue is full.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::cause::cause;

/// The longest that a message waits for room in the manager's queue. The watchdog's period is longer.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest status, in bytes. The manager drops a datagram above 4,096 bytes whole, and shows the
/// status in one line.
const MAX_STATUS: usize = 200;

/// Why the service manager does not know.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `NOTIFY_SOCKET` is no address that we can send to.
    #[error(
        "NOTIFY_SOCKET: cannot use {address:?}: {} (it must begin with / or @)",
        cause(source)
    )]
    Address {
        /// The variable's value.
        address: String,
        /// What is wrong with it.
        source: io::Error,
    },

    /// The kernel gives us no socket.
    #[error("cannot open a socket for the service manager: {}", cause(source))]
    Socket {
        /// What the kernel said.
        source: io::Error,
    },

    /// The message was not taken.
    #[error("cannot tell the service manager {word}: {}", cause(source))]
    Send {
        /// What it was to be told.
        word: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The way to the service manager, if there is one.
#[derive(Debug, Default)]
pub struct Notifier {
    manager: Option<Manager>,
    watchdog: Option<Duration>,
}

#[derive(Debug)]
struct Manager {
    // Not connected: a manager that was executed again may have bound the address anew.
    socket: UnixDatagram,
    address: SocketAddr,
}

impl Notifier {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`, and leaves them as they are.
    pub fn from_env() -> Result<Notifier, Error> {
        let mut notifier = match env::var_os("NOTIFY_SOCKET") {
            Some(address) => Notifier::to(&address)?,
            None => Notifier::default(),
        };
        notifier.watchdog = sd_notify::watchdog_enabled().and_then(ping_interval);
        Ok(notifier)
    }

    fn to(address: &OsStr) -> Result<Notifier, Error> {
        let parsed = match address.as_bytes() {
            [] => return Ok(Notifier::default()),
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            [b'/', ..] => SocketAddr::from_pathname(address),
            _ => Err(io::ErrorKind::Unsupported.into()),
        };
        let address = parsed.map_err(|source| Error::Address {
            address: address.to_string_lossy().into_owned(),
            source,
        })?;
        let socket = open().map_err(|source| Error::Socket { source })?;
        Ok(Notifier {
            manager: Some(Manager { socket, address }),
            watchdog: None,
        })
    }

    /// Is there somebody to tell?
    pub fn has_manager(&self) -> bool {
        self.manager.is_some()
    }

    /// We serve; also the end of a reload, adopted or refused.
    pub fn ready(&self) -> Result<(), Error> {
        self.send("READY=1", &[NotifyState::Ready])
    }

    /// A reload has begun. The time is in the same message: without it the manager cannot tell which
    /// READY=1 ends this reload.
    pub fn reloading(&self) -> Result<(), Error> {
        let word = "RELOADING=1";
        let now = NotifyState::monotonic_usec_now();
        let now = now.map_err(|source| Error::Send { word, source })?;
        self.send(word, &[NotifyState::Reloading, now])
    }

    /// We drain or stop.
    pub fn stopping(&self) -> Result<(), Error> {
        self.send("STOPPING=1", &[NotifyState::Stopping])
    }

    /// We are alive.
    pub fn watchdog(&self) -> Result<(), Error> {
        self.send("WATCHDOG=1", &[NotifyState::Watchdog])
    }

    /// What `systemctl status` shows: one line, escaped, at most 200 bytes, in a message of its own.
    pub fn status(&self, text: &str) -> Result<(), Error> {
        self.send("STATUS=", &[NotifyState::Status(&one_line(text))])
    }

    /// Starting, reloading or stopping takes this much longer, counted from now.
    pub fn extend_timeout(&self, timeout: Duration) -> Result<(), Error> {
        let microseconds = u32::try_from(timeout.as_micros()).unwrap_or(u32::MAX);
        self.send(
            "EXTEND_TIMEOUT_USEC=",
            &[NotifyState::ExtendTimeoutUsec(microseconds)],
        )
    }

    /// How often [`Notifier::watchdog`] is due: half the manager's patience. `None`: it does not ask for it.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog
    }

    fn send(&self, word: &'static str, states: &[NotifyState<'_>]) -> Result<(), Error> {
        let Some(manager) = &self.manager else {
            return Ok(());
        };
        let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
        let message = lines.join("\n");
        // A datagram is sent whole or not at all.
        let sent = manager
            .socket
            .send_to_addr(message.as_bytes(), &manager.address);
        sent.map_err(|source| Error::Send { word, source })?;
        Ok(())
    }
}

fn open() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(SEND_TIMEOUT))?;
    Ok(socket)
}

fn ping_interval(patience: Duration) -> Option<Duration> {
    let half = patience / 2;
    (!half.is_zero()).then_some(half)
}

/// Printable ASCII as it is, every other byte as `\xNN`, like in the log; cut before what does not fit.
fn one_line(text: &str) -> String {
    let mut line = String::new();
    for byte in text.bytes() {
        let printable = matches!(byte, b' '..=b'~') && byte != b'\\';
        let piece = match printable {
            true => char::from(byte).to_string(),
            false => format!("\\x{byte:02x}"),
        };
        if line.len() + piece.len() > MAX_STATUS {
            break;
        }
        line.push_str(&piece);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process;

    /// A service manager's end, and a notifier that talks to it.
    fn manager() -> (UnixDatagram, Notifier, tempfile::TempDir) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("bind");
        manager.set_nonblocking(true).expect("set"); // a datagram is there once it was sent
        let notifier = Notifier::to(path.as_os_str()).expect("an address");
        (manager, notifier, directory)
    }

    fn received(manager: &UnixDatagram) -> String {
        let mut buffer = [0; 4097];
        let length = manager.recv(&mut buffer).expect("a message");
        String::from_utf8(buffer[..length].to_vec()).expect("text")
    }

    #[test]
    fn each_event_is_one_message() {
        let (manager, notifier, _directory) = manager();
        notifier.ready().expect("sent");
        assert_eq!(received(&manager), "READY=1");
        notifier.stopping().expect("sent");
        assert_eq!(received(&manager), "STOPPING=1");
        notifier.watchdog().expect("sent");
        assert_eq!(received(&manager), "WATCHDOG=1");
        notifier
            .extend_timeout(Duration::from_secs(2))
            .expect("sent");
        assert_eq!(received(&manager), "EXTEND_TIMEOUT_USEC=2000000");
        notifier.extend_timeout(Duration::MAX).expect("sent");
        assert_eq!(received(&manager), "EXTEND_TIMEOUT_USEC=4294967295");
    }

    #[test]
    fn reloading_carries_the_time() {
        let (manager, notifier, _directory) = manager();
        notifier.reloading().expect("sent");
        let message = received(&manager);
        let time = message.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
        let time = time.expect("both").parse::<u64>().expect("a number");
        assert!(time > 0);
    }

    #[test]
    fn a_status_is_one_escaped_line() {
        let (manager, notifier, _directory) = manager();
        notifier
            .status("serving, 3 \\ peers\nREADY=0\u{85}\u{1b}[m")
            .expect("sent");
        assert_eq!(
            received(&manager),
            "STATUS=serving, 3 \\x5c peers\\x0aREADY=0\\xc2\\x85\\x1b[m"
        );
    }

    #[test]
    fn a_status_is_cut_at_its_bound_and_never_inside_an_escape() {
        assert_eq!(one_line(&"a".repeat(MAX_STATUS)).len(), MAX_STATUS);
        assert_eq!(one_line(&"a".repeat(MAX_STATUS + 1)).len(), MAX_STATUS);
        let text = "a".repeat(MAX_STATUS - 3) + "\n";
        assert_eq!(one_line(&text), "a".repeat(MAX_STATUS - 3));
    }

    #[test]
    fn an_abstract_address_is_reached() {
        let name = format!("echod-test-notify-{}", process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let manager = UnixDatagram::bind_addr(&address).expect("bind");
        let notifier = Notifier::to(OsStr::new(&format!("@{name}"))).expect("an address");
        notifier.ready().expect("sent");
        assert_eq!(received(&manager), "READY=1");
    }

    #[test]
    fn a_manager_that_binds_its_address_anew_is_reached() {
        let (manager, notifier, directory) = manager();
        drop(manager);
        let path = directory.path().join("notify");
        std::fs::remove_file(&path).expect("remove");
        assert!(notifier.ready().is_err());
        let again = UnixDatagram::bind(&path).expect("bind");
        notifier.ready().expect("sent");
        assert_eq!(received(&again), "READY=1");
    }

    #[test]
    fn a_manager_that_is_gone_is_an_error_in_one_line() {
        let (manager, notifier, _directory) = manager();
        drop(manager);
        let error = notifier.ready().expect_err("nobody there");
        assert_eq!(
            error.to_string(),
            "cannot tell the service manager READY=1: Connection refused"
        );
    }

    #[test]
    fn a_manager_that_does_not_read_costs_a_bounded_wait() {
        let (_manager, notifier, _directory) = manager();
        let socket = &notifier.manager.as_ref().expect("a manager").socket;
        let timeout = socket.write_timeout().expect("read");
        assert_eq!(timeout, Some(SEND_TIMEOUT));
        let short = Duration::from_millis(1);
        socket.set_write_timeout(Some(short)).expect("set");
        while notifier.watchdog().is_ok() {}
    }

    #[test]
    fn an_address_of_another_kind_is_refused() {
        let error = Notifier::to(OsStr::new("vsock:2:1234")).expect_err("not for us");
        let line = error.to_string();
        assert!(
            line.starts_with("NOTIFY_SOCKET: cannot use \"vsock:2:1234\": "),
            "{line}"
        );
    }

    #[test]
    fn without_a_manager_every_message_succeeds() {
        let notifier = Notifier::to(OsStr::new("")).expect("none");
        notifier.ready().expect("nothing to do");
        notifier.reloading().expect("nothing to do");
        assert_eq!(notifier.watchdog_interval(), None);
    }

    #[test]
    fn the_watchdog_is_fed_twice_in_its_patience() {
        assert_eq!(
            ping_interval(Duration::from_secs(30)),
            Some(Duration::from_secs(15))
        );
        assert_eq!(ping_interval(Duration::ZERO), None);
    }
}
