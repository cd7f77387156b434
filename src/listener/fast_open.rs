//! Is it safe to let a peer's first bytes come with its SYN, on this host?
//!
//! Only a cookie shows that the address of a SYN is not forged, and an echo without that would answer whomever a
//! stranger names. The kernel leaves both to `net.ipv4.tcp_fastopen`, which is looked at when the option is
//! set: at the start and with each reload. Where it cannot be seen, the answer is no.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;

use crate::cause::cause;
use crate::sys;

/// Where the sysctl is.
const PATH: &str = "/proc/sys/net/ipv4/tcp_fastopen";

/// The kernel answers fast open at all, `TFO_SERVER_ENABLE`.
const SERVER: u32 = 0x2;

/// Data is taken without a cookie, `TFO_SERVER_COOKIE_NOT_REQD`.
const WITHOUT_COOKIE: u32 = 0x200;

/// Why not. `Display` has the remedy.
#[derive(Debug)]
pub enum Objection {
    /// Nobody can say how it is.
    Unreadable(io::Error),
    /// The socket is of another network than this process, and so is the sysctl.
    Elsewhere,
    /// The host does not do it.
    Off(u32),
    /// The host does it for forged addresses as well.
    WithoutCookie(u32),
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = "net.ipv4.tcp_fastopen";
        match self {
            Objection::Unreadable(error) => write!(
                f,
                "cannot see whether this host demands a cookie: {PATH}: {} (set it to \"off\"; or, with the shipped unit, ProcSubset=all and PrivateNetwork=no)",
                cause(error)
            ),
            Objection::Elsewhere => write!(
                f,
                "cannot see whether the socket's network demands a cookie, since this process is in another (set it to \"off\"; or, with the shipped unit, PrivateNetwork=no)"
            ),
            Objection::Off(value) => write!(
                f,
                "this host does not do it: sysctl {name} is {value:#x}, without {SERVER:#x} (set it to {:#x}, or the key to \"off\")",
                value | SERVER
            ),
            Objection::WithoutCookie(value) => write!(
                f,
                "this host takes data without a cookie, so that forged addresses would be answered: sysctl {name} is {value:#x}, with {WITHOUT_COOKIE:#x} (set it to {:#x}, or the key to \"off\")",
                value & !WITHOUT_COOKIE
            ),
        }
    }
}

/// May this socket have it?
///
/// # Errors
/// Why not.
pub(super) fn allow(socket: BorrowedFd<'_>) -> Result<(), Objection> {
    let text = fs::read_to_string(PATH).map_err(Objection::Unreadable)?;
    if !is_of_our_network(socket) {
        return Err(Objection::Elsewhere);
    }
    judge(&text)
}

/// A handed socket is of the network that its socket unit was started in. Linux 5.14 tells; without that we
/// do not know.
fn is_of_our_network(socket: BorrowedFd<'_>) -> bool {
    // Of any family, since the sandbox may have this one alone.
    let Ok(ours) = UnixDatagram::unbound() else {
        return false;
    };
    match (
        sys::namespace_cookie(socket),
        sys::namespace_cookie(ours.as_fd()),
    ) {
        (Ok(socket), Ok(ours)) => socket == ours,
        _ => false,
    }
}

fn judge(text: &str) -> Result<(), Objection> {
    let value: u32 = text
        .trim()
        .parse()
        .map_err(|_| Objection::Unreadable(io::ErrorKind::InvalidData.into()))?;
    if value & WITHOUT_COOKIE != 0 {
        return Err(Objection::WithoutCookie(value));
    }
    if value & SERVER == 0 {
        return Err(Objection::Off(value));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        judge(text).expect_err("refused").to_string()
    }

    #[test]
    fn a_host_that_demands_a_cookie_is_good_enough() {
        for text in ["2\n", "3\n", "1027\n"] {
            assert!(judge(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_host_without_it_or_without_cookies_is_refused_with_the_remedy() {
        assert_eq!(
            refused("1\n"),
            "this host does not do it: sysctl net.ipv4.tcp_fastopen is 0x1, without 0x2 (set it to 0x3, or the key to \"off\")"
        );
        let forged = refused("515\n");
        assert!(
            forged.contains("is 0x203, with 0x200 (set it to 0x3"),
            "{forged}"
        );
        // Both are wrong, and this one matters.
        assert!(refused("512\n").contains("without a cookie"));
    }

    #[test]
    fn what_cannot_be_seen_is_refused() {
        assert!(refused("many\n").contains("ProcSubset=all"));
        let error = Objection::Unreadable(io::Error::from_raw_os_error(libc::ENOENT));
        assert!(error.to_string().contains(
            "/proc/sys/net/ipv4/tcp_fastopen: No such file or directory (set it to \"off\"; or"
        ));
    }
}
