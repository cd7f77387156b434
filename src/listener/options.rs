//! The TCP options of a listener, set once on its listening socket: what it accepts inherits them.
//!
//! So a connection costs no system call for its options, and none begins without them. A reload sets
//! them again on the same socket; connections that live keep what they began with. A key that says
//! nothing means what the socket had when we first took it, be it the kernel's default or its socket unit's word:
//! [`Initial`] remembers that.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use libc::{IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, SOL_SOCKET, c_int};
use nix::errno::Errno;
use socket2::{Domain, Protocol, SockRef};

use super::{Error, fast_open};
use crate::config::{Config, Listener};
use crate::sys;

/// An option whose value is a number.
#[derive(Debug)]
struct Number {
    key: &'static str,
    name: &'static str,
    level: c_int,
    option: c_int,
}

const fn number(key: &'static str, name: &'static str, level: c_int, option: c_int) -> Number {
    Number {
        key,
        name,
        level,
        option,
    }
}

const NODELAY: Number = number("tcp.nodelay", "TCP_NODELAY", IPPROTO_TCP, libc::TCP_NODELAY);
const KEEPALIVE: Number = number(
    "tcp.keepalive",
    "SO_KEEPALIVE",
    SOL_SOCKET,
    libc::SO_KEEPALIVE,
);
const KEEPALIVE_IDLE: Number = number(
    "tcp.keepalive.idle",
    "TCP_KEEPIDLE",
    IPPROTO_TCP,
    libc::TCP_KEEPIDLE,
);
const KEEPALIVE_INTERVAL: Number = number(
    "tcp.keepalive.interval",
    "TCP_KEEPINTVL",
    IPPROTO_TCP,
    libc::TCP_KEEPINTVL,
);
const KEEPALIVE_COUNT: Number = number(
    "tcp.keepalive.count",
    "TCP_KEEPCNT",
    IPPROTO_TCP,
    libc::TCP_KEEPCNT,
);
const NOTSENT_LOWAT: Number = number(
    "tcp.notsent_lowat",
    "TCP_NOTSENT_LOWAT",
    IPPROTO_TCP,
    libc::TCP_NOTSENT_LOWAT,
);
const USER_TIMEOUT: Number = number(
    "tcp.user_timeout",
    "TCP_USER_TIMEOUT",
    IPPROTO_TCP,
    libc::TCP_USER_TIMEOUT,
);
const RECEIVE_BUFFER: Number = number(
    "tcp.receive_buffer",
    "SO_RCVBUF",
    SOL_SOCKET,
    libc::SO_RCVBUF,
);
const SEND_BUFFER: Number = number("tcp.send_buffer", "SO_SNDBUF", SOL_SOCKET, libc::SO_SNDBUF);
const DEFER_ACCEPT: Number = number(
    "tcp.defer_accept",
    "TCP_DEFER_ACCEPT",
    IPPROTO_TCP,
    libc::TCP_DEFER_ACCEPT,
);
const FAST_OPEN: Number = number(
    "tcp.fast_open",
    "TCP_FASTOPEN",
    IPPROTO_TCP,
    libc::TCP_FASTOPEN,
);
const TOS: Number = number("tcp.dscp", "IP_TOS", IPPROTO_IP, libc::IP_TOS);
const TCLASS: Number = number("tcp.dscp", "IPV6_TCLASS", IPPROTO_IPV6, libc::IPV6_TCLASS);
const MAX_SEGMENT: Number = number(
    "tcp.max_segment",
    "TCP_MAXSEG",
    IPPROTO_TCP,
    libc::TCP_MAXSEG,
);

/// Those that a key may leave as they were.
const REMEMBERED: [&Number; 13] = [
    &KEEPALIVE,
    &KEEPALIVE_IDLE,
    &KEEPALIVE_INTERVAL,
    &KEEPALIVE_COUNT,
    &NOTSENT_LOWAT,
    &USER_TIMEOUT,
    &RECEIVE_BUFFER,
    &SEND_BUFFER,
    &DEFER_ACCEPT,
    &FAST_OPEN,
    &TOS,
    &TCLASS,
    &MAX_SEGMENT,
];

/// An urgent byte would otherwise be taken out of the stream, and what comes back would lack it. No key says
/// so, and TCP always takes it.
const URGENT_INLINE: Number = number("tcp", "SO_OOBINLINE", SOL_SOCKET, libc::SO_OOBINLINE);

/// `SO_BUF_LOCK`, Linux 5.14: which buffers were set, so that the kernel does not fit them to the path.
const BUFFER_LOCKS: c_int = 72;
const SEND_LOCK: c_int = 1;
const RECEIVE_LOCK: c_int = 2;

/// What `TCP_MAXSEG` reads as when nobody has set it; what takes it back is 0.
const UNSET_MAX_SEGMENT: c_int = 536;

/// What a socket had when we first took it.
#[derive(Clone, Debug, Default)]
pub struct Initial {
    is_multipath: bool,
    is_ipv6: bool,
    /// By level and option; those that the socket does not have are not here.
    numbers: Vec<(c_int, c_int, c_int)>,
    congestion: Option<Vec<u8>>,
    /// `None`: the kernel does not tell.
    locks: Option<c_int>,
}

impl Initial {
    /// Reads it. Call it before anything is set.
    pub fn of(socket: impl AsFd) -> Initial {
        let fd = socket.as_fd();
        let view = SockRef::from(&fd);
        let mut initial = Initial {
            is_multipath: matches!(view.protocol(), Ok(Some(Protocol::MPTCP))),
            is_ipv6: matches!(view.domain(), Ok(Domain::IPV6)),
            numbers: Vec::new(),
            congestion: view.tcp_congestion().ok(),
            locks: sys::socket_option(fd, SOL_SOCKET, BUFFER_LOCKS).ok(),
        };
        for number in REMEMBERED {
            initial.remember(fd, number);
        }
        initial
    }

    /// Listening may have set it: `net.ipv4.tcp_fastopen` has a bit for that.
    pub(super) fn listens(&mut self, socket: impl AsFd) {
        self.numbers
            .retain(|(level, option, _)| (*level, *option) != (FAST_OPEN.level, FAST_OPEN.option));
        self.remember(socket.as_fd(), &FAST_OPEN);
    }

    fn remember(&mut self, fd: BorrowedFd<'_>, number: &Number) {
        let Ok(value) = sys::socket_option(fd, number.level, number.option) else {
            return;
        };
        let is_unset = number.option == MAX_SEGMENT.option
            && number.level == MAX_SEGMENT.level
            && value == UNSET_MAX_SEGMENT;
        let value = if is_unset { 0 } else { value };
        self.numbers.push((number.level, number.option, value));
    }

    fn get(&self, number: &Number) -> Option<c_int> {
        let wanted = (number.level, number.option);
        let mut all = self.numbers.iter();
        all.find(|(level, option, _)| (*level, *option) == wanted)
            .map(|(_, _, value)| *value)
    }
}

/// Sets each option of `listener.tcp` on its listening socket, to the value or back to what it had; all but
/// the congestion control.
///
/// # Errors
/// The first that the kernel or the sandbox refuses.
pub fn apply(socket: impl AsFd, initial: &Initial, listener: &Listener) -> Result<(), Error> {
    let tcp = &listener.tcp;
    let socket = Target {
        fd: socket.as_fd(),
        initial,
        listener,
    };
    socket.set(&NODELAY, Some(tcp.nodelay.into()))?;
    let probes = tcp.keepalive;
    socket.set(&KEEPALIVE_IDLE, probes.map(|probes| seconds(probes.idle)))?;
    let interval = probes.map(|probes| seconds(probes.interval));
    socket.set(&KEEPALIVE_INTERVAL, interval)?;
    socket.set(&KEEPALIVE_COUNT, probes.map(|probes| whole(probes.count)))?;
    socket.set(&KEEPALIVE, probes.map(|_| 1))?;
    socket.set(&NOTSENT_LOWAT, tcp.notsent_lowat.map(whole))?;
    let timeout = tcp.user_timeout.filter(|_| !socket.goes_without_timeout());
    socket.set(&USER_TIMEOUT, timeout.map(milliseconds))?;
    socket.set_buffer(&RECEIVE_BUFFER, tcp.receive_buffer, RECEIVE_LOCK)?;
    socket.set_buffer(&SEND_BUFFER, tcp.send_buffer, SEND_LOCK)?;
    socket.set(&DEFER_ACCEPT, tcp.defer_accept.map(seconds))?;
    if tcp.fast_open.is_some() {
        socket.allow_fast_open()?;
    }
    socket.set(&FAST_OPEN, tcp.fast_open.map(whole))?;
    let class = tcp.dscp.map(|point| c_int::from(point) << 2);
    // On an IPv6 socket this is for its IPv4 peers.
    socket.set(&TOS, class)?;
    if initial.is_ipv6 {
        socket.set(&TCLASS, class)?;
    }
    socket.set(&MAX_SEGMENT, tcp.max_segment.map(c_int::from))?;
    // Multipath TCP has no urgent bytes, and refuses the option.
    if initial.is_multipath {
        return Ok(());
    }
    socket.set(&URGENT_INLINE, Some(1))
}

/// Sets the congestion control alone, which [`apply`] leaves out: the present one may be root's choice, and could not
/// be put back if anything were refused after it.
///
/// # Errors
/// The host has none of that name, or it is for root alone.
pub fn apply_congestion(
    socket: impl AsFd,
    initial: &Initial,
    listener: &Listener,
) -> Result<(), Error> {
    let target = Target {
        fd: socket.as_fd(),
        initial,
        listener,
    };
    target.set_congestion(listener.tcp.congestion.as_deref())
}

/// A socket, what it had, and what it is to have.
struct Target<'a> {
    fd: BorrowedFd<'a>,
    initial: &'a Initial,
    listener: &'a Listener,
}

impl Target<'_> {
    /// `None`: as it was. What the socket does not have and nobody asks for is not touched.
    fn set(&self, number: &Number, value: Option<c_int>) -> Result<(), Error> {
        let wanted = match (value, self.initial.get(number)) {
            (Some(value), _) => value,
            (None, Some(initial)) if self.read(number) != Some(initial) => initial,
            (None, _) => return Ok(()),
        };
        sys::set_socket_option(self.fd, number.level, number.option, wanted)
            .map_err(|errno| self.refused(number.key, number.name, wanted, errno.into()))
    }

    fn read(&self, number: &Number) -> Option<c_int> {
        sys::socket_option(self.fd, number.level, number.option).ok()
    }

    /// Multipath TCP has no such timeout. Its default asks for none there: `timeout.stall` finds the same
    /// peers. A value that somebody has chosen is refused.
    fn goes_without_timeout(&self) -> bool {
        let defaults = Config::defaults();
        let default = defaults.listeners.first().map(|l| l.tcp.user_timeout);
        self.initial.get(&USER_TIMEOUT).is_none() && default == Some(self.listener.tcp.user_timeout)
    }

    /// A buffer that was set is no longer fitted to the path by the kernel; one that is taken back is again.
    fn set_buffer(&self, number: &Number, size: Option<u32>, lock: c_int) -> Result<(), Error> {
        let Some(initial) = self.initial.get(number) else {
            return Ok(());
        };
        let locks = || sys::socket_option(self.fd, SOL_SOCKET, BUFFER_LOCKS).ok();
        let as_it_was = size.is_none()
            && self.read(number) == Some(initial)
            && locks().map(|now| now & lock) == self.initial.locks.map(|then| then & lock);
        if as_it_was {
            return Ok(());
        }
        // The kernel doubles what it is told, for its own needs, and answers the double.
        let asked = size.unwrap_or(initial.unsigned_abs() / 2);
        self.set(number, Some(whole(asked)))?;
        let given = self.read(number).unwrap_or(0).unsigned_abs() / 2;
        if given < asked {
            let is_receiving = number.option == RECEIVE_BUFFER.option;
            return Err(Error::Buffer {
                listener: self.listener.name.clone(),
                key: number.key,
                asked,
                given,
                sysctl: if is_receiving { "rmem_max" } else { "wmem_max" },
            });
        }
        if let (None, Some(now), Some(then)) = (size, locks(), self.initial.locks) {
            // Before Linux 5.14, and with multipath TCP, the lock stays until the next start.
            let back = (now & !lock) | (then & lock);
            let _ = sys::set_socket_option(self.fd, SOL_SOCKET, BUFFER_LOCKS, back);
        }
        Ok(())
    }

    fn set_congestion(&self, name: Option<&str>) -> Result<(), Error> {
        let socket = SockRef::from(&self.fd);
        let initial = self.initial.congestion.as_deref().map(until_zero);
        let wanted = match (name, initial) {
            (Some(name), _) => name.as_bytes(),
            (None, Some(initial)) => {
                let now = socket.tcp_congestion().ok();
                if now.as_deref().map(until_zero) == Some(initial) {
                    return Ok(());
                }
                initial
            }
            (None, None) => return Ok(()),
        };
        socket.set_tcp_congestion(wanted).map_err(|source| {
            let value = format!("{:?}", String::from_utf8_lossy(wanted));
            self.refused("tcp.congestion", CONGESTION, value, source)
        })
    }

    fn allow_fast_open(&self) -> Result<(), Error> {
        fast_open::allow(self.fd).map_err(|objection| Error::FastOpen {
            listener: self.listener.name.clone(),
            objection,
        })
    }

    fn refused(
        &self,
        key: &'static str,
        option: &'static str,
        value: impl ToString,
        source: io::Error,
    ) -> Error {
        Error::Option {
            listener: self.listener.name.clone(),
            key,
            option,
            value: value.to_string(),
            is_multipath: self.initial.is_multipath,
            source,
        }
    }
}

const CONGESTION: &str = "TCP_CONGESTION";

/// What the operator can do about an option that is refused, in brackets; empty if we know nothing.
pub(super) fn remedy(option: &str, source: &io::Error, is_multipath: bool) -> &'static str {
    let errno = Errno::from_raw(source.raw_os_error().unwrap_or(0));
    match (option, errno) {
        (_, Errno::EOPNOTSUPP | Errno::ENOPROTOOPT) if is_multipath => {
            " (multipath TCP does not take it: leave the key out, or do without multipath)"
        }
        (super::bind::MULTIPATH, _) => {
            " (this host has no multipath TCP: see sysctl net.mptcp.enabled, or set the key to false)"
        }
        (super::bind::INTERFACE, Errno::ENODEV) => " (there is no such interface: see ip link)",
        (super::bind::INTERFACE, Errno::EPERM) => " (it needs CAP_NET_RAW)",
        (CONGESTION, Errno::ENOENT) => {
            " (this host has none of that name: see sysctl net.ipv4.tcp_available_congestion_control)"
        }
        (CONGESTION, Errno::EPERM) => {
            " (only root may choose it: add it to sysctl net.ipv4.tcp_allowed_congestion_control)"
        }
        _ => "",
    }
}

/// The kernel answers a name in a field that is filled up with zeros.
fn until_zero(name: &[u8]) -> &[u8] {
    name.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn whole(number: u32) -> c_int {
    c_int::try_from(number).unwrap_or(c_int::MAX)
}

fn seconds(time: Duration) -> c_int {
    c_int::try_from(time.as_secs()).unwrap_or(c_int::MAX)
}

/// Zero means "the kernel's default", which is minutes: a shorter time than a millisecond must not become it.
fn milliseconds(time: Duration) -> c_int {
    c_int::try_from(time.as_millis().max(1)).unwrap_or(c_int::MAX)
}

#[cfg(test)]
mod tests;
