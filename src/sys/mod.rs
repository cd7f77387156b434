//! Every unsafe block of the daemon, each behind a safe function that makes one call.
//!
//! Only what `nix` and `socket2` lack stands here. The data path enters the kernel without the C
//! library, by `rustix` or `syscall(2)`: the library's `recv`, `send` and `epoll_wait` are cancellation
//! points, which costs about a hundred instructions a message as soon as a second thread exists.

#![allow(unsafe_code)]

use std::mem::{self, MaybeUninit};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use libc::c_int;
use nix::errno::Errno;
use nix::unistd::{SysconfVar, sysconf};
use rustix::net::{RecvFlags, SendFlags};

/// What a system call answers, or its errno.
pub type Result<T> = std::result::Result<T, Errno>;

/// One readiness report: what happened, and to which of the values given with [`epoll_add`].
pub type EpollEvent = libc::epoll_event;

/// An event that nothing has been written to yet.
pub const NO_EVENT: EpollEvent = EpollEvent { events: 0, u64: 0 };

/// Turns a system call's result into a count or an errno.
#[inline(always)]
fn count(result: libc::c_long) -> Result<usize> {
    usize::try_from(result).map_err(|_| Errno::last())
}

/// Receives into `memory`, recv(2); never waits, since our sockets are non-blocking.
#[inline(always)]
pub fn receive(socket: BorrowedFd<'_>, memory: &mut [u8]) -> Result<usize> {
    match rustix::net::recv(socket, memory, RecvFlags::empty()) {
        Ok((count, _)) => Ok(count),
        Err(errno) => Err(Errno::from_raw(errno.raw_os_error())),
    }
}

/// Sends from `bytes`, send(2); a peer that is gone is EPIPE and not a signal.
#[inline(always)]
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize> {
    rustix::net::send(socket, bytes, SendFlags::NOSIGNAL)
        .map_err(|errno| Errno::from_raw(errno.raw_os_error()))
}

/// Adds `fd` to the interest list of `epoll` for the given events, epoll_ctl(2).
pub fn epoll_add(epoll: BorrowedFd<'_>, fd: BorrowedFd<'_>, events: u32, data: u64) -> Result<()> {
    let mut event = EpollEvent { events, u64: data };
    // SAFETY: `event` is valid for the call; the kernel copies it.
    Errno::result(unsafe {
        libc::epoll_ctl(
            epoll.as_raw_fd(),
            libc::EPOLL_CTL_ADD,
            fd.as_raw_fd(),
            &raw mut event,
        )
    })
    .map(drop)
}

/// Waits until something happens or `timeout` milliseconds have passed (-1: for ever), epoll_wait(2).
/// Answers how many of `events` were filled.
#[inline(always)]
pub fn epoll_wait(epoll: BorrowedFd<'_>, events: &mut [EpollEvent], timeout: i32) -> Result<usize> {
    let (to, room) = (events.as_mut_ptr(), events.len());
    // SAFETY: the kernel writes at most `room` events to `events`, which is ours alone for the call;
    // there is no signal mask.
    count(unsafe {
        libc::syscall(
            libc::SYS_epoll_pwait,
            epoll.as_raw_fd(),
            to,
            room,
            timeout,
            0usize,
            0usize,
        )
    })
}

/// What [`ring_enter`] is told when it is given the number of a registered ring.
pub const ENTER_REGISTERED: u32 = 1 << 4;

/// Has this thread know an io_uring by a number of its own, io_uring_register(2); answers that number.
pub fn register_ring(ring: RawFd) -> Result<u32> {
    /// `struct io_uring_rsrc_update`.
    #[repr(C)]
    struct Update {
        offset: u32,
        reserved: u32,
        data: u64,
    }
    const REGISTER_RING_FDS: u32 = 20;
    let mut update = Update {
        offset: u32::MAX,
        reserved: 0,
        data: u64::from(ring.cast_unsigned()),
    };
    // SAFETY: the kernel reads and writes one update, which is ours alone for the call.
    count(unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring,
            REGISTER_RING_FDS,
            &raw mut update,
            1u32,
        )
    })?;
    Ok(update.offset)
}

/// Tells an io_uring of `submissions` operations and waits for `completions` of any, io_uring_enter(2).
/// Answers how many it was told of.
///
/// The operations are the caller's responsibility, see `driver::uring`: this call itself touches no memory.
#[inline(always)]
pub fn ring_enter(ring: i32, submissions: u32, completions: u32, flags: u32) -> Result<u32> {
    const GETEVENTS: u32 = 1;
    let (nothing, none) = (0usize, 0usize);
    // SAFETY: there is no signal mask, and the queues' memory is the ring's own.
    let told = count(unsafe {
        libc::syscall(
            libc::SYS_io_uring_enter,
            ring,
            submissions,
            completions,
            flags | GETEVENTS,
            nothing,
            none,
        )
    })?;
    Ok(u32::try_from(told).unwrap_or(u32::MAX))
}

/// Gives the pages that lie in `memory` as a whole back to the kernel, madvise(2). Fresh memory of the heap reads
/// zero before and after; where the C library wrote the zeros itself, it takes no memory any more until it is used.
pub fn discard(memory: &mut [u8]) {
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    let Some(page) = page.and_then(|page| usize::try_from(page).ok()) else {
        return;
    };
    let before = memory.as_ptr().align_offset(page).min(memory.len());
    let (_, pages) = memory.split_at_mut(before);
    let length = pages.len() / page * page;
    // SAFETY: these pages are ours alone, and whatever they read as afterwards are bytes. It fails where
    // there is nothing to give back.
    let _ = unsafe { libc::madvise(pages.as_mut_ptr().cast(), length, libc::MADV_DONTNEED) };
}

/// The canonical address of a connection's peer, getpeername(2); an error if it is gone already.
pub fn peer_address(socket: BorrowedFd<'_>) -> Result<SocketAddr> {
    let mut address = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut length = socklen::<libc::sockaddr_storage>();
    // SAFETY: `address` and `length` are ours alone for the call and `length` states the room.
    Errno::result(unsafe {
        libc::getpeername(
            socket.as_raw_fd(),
            address.as_mut_ptr().cast(),
            &raw mut length,
        )
    })?;
    // SAFETY: zeroed memory is a valid sockaddr_storage, whatever the kernel wrote of it.
    Ok(canonical(&unsafe { address.assume_init() }))
}

/// Accepts a connection, non-blocking and closed on exec, accept4(2).
pub fn accept(listening: BorrowedFd<'_>) -> Result<(OwnedFd, SocketAddr)> {
    let mut address = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut length = socklen::<libc::sockaddr_storage>();
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: `address` and `length` are ours alone for the call and `length` states the room.
    let fd = Errno::result(unsafe {
        libc::accept4(
            listening.as_raw_fd(),
            address.as_mut_ptr().cast(),
            &raw mut length,
            flags,
        )
    })?;
    // SAFETY: accept4 answered a new descriptor, which nobody else knows.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: zeroed memory is a valid sockaddr_storage, whatever the kernel wrote of it.
    let address = unsafe { address.assume_init() };
    Ok((socket, canonical(&address)))
}

/// The address of a peer as everything else of the daemon sees it: `::ffff:a.b.c.d` is `a.b.c.d`.
fn canonical(address: &libc::sockaddr_storage) -> SocketAddr {
    if i32::from(address.ss_family) == libc::AF_INET6 {
        // SAFETY: the family says that this is a sockaddr_in6, and a sockaddr_storage holds any address.
        let v6 = unsafe { &*(&raw const *address).cast::<libc::sockaddr_in6>() };
        let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
        let port = u16::from_be(v6.sin6_port);
        match ip.to_ipv4_mapped() {
            Some(ip) => SocketAddrV4::new(ip, port).into(),
            None => SocketAddrV6::new(ip, port, 0, v6.sin6_scope_id).into(),
        }
    } else {
        // SAFETY: listening sockets are IPv4 or IPv6 (checked where they come from), so this is a
        // sockaddr_in; all zero if the kernel wrote none.
        let v4 = unsafe { &*(&raw const *address).cast::<libc::sockaddr_in>() };
        let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
        SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into()
    }
}

/// What the kernel knows of a connection, tcp(7) `TCP_INFO`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Segments sent again, in all.
    pub retrans: u32,
    /// Bytes that the peer has acknowledged.
    pub acked: u64,
    /// Some that were sent are not acknowledged, or wait to be sent.
    pub queued: bool,
    /// Most bytes that we put into a segment.
    pub mss: u32,
    /// By how many bits the peer's window is shifted, and ours; `None`: neither is.
    pub window_scale: Option<(u8, u8)>,
    /// Selective acknowledgements were agreed on.
    pub sack: bool,
    /// Timestamps were agreed on.
    pub timestamps: bool,
}

/// Asks the kernel about a connection.
pub fn tcp_info(socket: BorrowedFd<'_>) -> Result<TcpInfo> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = socklen::<libc::tcp_info>();
    // SAFETY: `info` and `length` are ours alone for the call and `length` states the room.
    Errno::result(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    })?;
    // SAFETY: all fields are integers; an older kernel leaves the last ones zero.
    let info = unsafe { info.assume_init() };
    let agreed = |option: u8| info.tcpi_options & option != 0;
    Ok(TcpInfo {
        rtt: Duration::from_micros(u64::from(info.tcpi_rtt)),
        retrans: info.tcpi_total_retrans,
        acked: info.tcpi_bytes_acked,
        queued: info.tcpi_unacked > 0 || info.tcpi_notsent_bytes > 0,
        mss: info.tcpi_snd_mss,
        window_scale: agreed(OPTION_WSCALE).then(|| window_scale(info.tcpi_snd_rcv_wscale)),
        sack: agreed(OPTION_SACK),
        timestamps: agreed(OPTION_TIMESTAMPS),
    })
}

/// A socket option that is a number, getsockopt(2).
pub fn socket_option(socket: BorrowedFd<'_>, level: c_int, option: c_int) -> Result<c_int> {
    let mut value: c_int = 0;
    let mut length = socklen::<c_int>();
    // SAFETY: `value` and `length` are ours alone for the call and `length` states the room.
    Errno::result(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw mut value).cast(),
            &raw mut length,
        )
    })?;
    Ok(value)
}

/// Sets a socket option that is a number, setsockopt(2).
pub fn set_socket_option(
    socket: BorrowedFd<'_>,
    level: c_int,
    option: c_int,
    value: c_int,
) -> Result<()> {
    // SAFETY: the kernel reads one number; an option that wants more than that refuses the length.
    Errno::result(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            socklen::<c_int>(),
        )
    })
    .map(drop)
}

/// A number for the network namespace that a socket belongs to, socket(7) `SO_NETNS_COOKIE`.
pub fn namespace_cookie(socket: BorrowedFd<'_>) -> Result<u64> {
    let mut cookie = 0u64;
    let mut length = socklen::<u64>();
    // SAFETY: `cookie` and `length` are ours alone for the call and `length` states the room.
    Errno::result(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    })?;
    Ok(cookie)
}

/// `tcpi_options`: what the handshake agreed on.
const OPTION_TIMESTAMPS: u8 = 1;
const OPTION_SACK: u8 = 2;
const OPTION_WSCALE: u8 = 4;

/// `tcpi_snd_wscale : 4, tcpi_rcv_wscale : 4`: the peer's shift and ours. The first bits of a byte are the low ones
/// where the first byte of a word is.
fn window_scale(both: u8) -> (u8, u8) {
    let (low, high) = (both & 15, both >> 4);
    if cfg!(target_endian = "little") {
        (low, high)
    } else {
        (high, low)
    }
}

/// The name of a connection's congestion control, tcp(7) `TCP_CONGESTION`.
pub fn congestion(socket: BorrowedFd<'_>) -> Result<String> {
    // `TCP_CA_NAME_MAX`.
    let mut name = [0; 16];
    let mut length = socklen::<[u8; 16]>();
    // SAFETY: `name` and `length` are ours alone for the call and `length` states the room.
    Errno::result(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_CONGESTION,
            name.as_mut_ptr().cast(),
            &raw mut length,
        )
    })?;
    let end = name.iter().position(|byte| *byte == 0);
    Ok(String::from_utf8_lossy(&name[..end.unwrap_or(name.len())]).into_owned())
}

/// Larger blocks are the kernel's again as soon as they are given back, mallopt(3).
const KEPT_BLOCK: c_int = 2 << 20;

/// More than this at the end of a heap is given back as well.
const KEPT_HEAP: c_int = 4 << 20;

/// Has the C library's allocator keep little of what is given back to it. By itself it learns from the first large
/// block that is given back to keep all later ones of that size, and a few windows of zstd in each thread's heap
/// are more than a daemon with a ceiling may have.
pub fn keep_little_memory() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [
        (libc::M_MMAP_THRESHOLD, KEPT_BLOCK),
        (libc::M_TRIM_THRESHOLD, KEPT_HEAP),
    ] {
        // SAFETY: it changes two numbers of the allocator's; a value that it refuses changes nothing.
        unsafe { libc::mallopt(parameter, value) };
    }
}

/// Returns to the kernel all whole pages that the C library's allocator holds and nobody uses, malloc_trim(3): milliseconds
/// for hundreds of MiB, in which who allocates in the same part of it waits.
pub fn return_free_memory() {
    // SAFETY: it looks at what is free alone, with the allocator's own locks.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The size of `T` as the socket calls want it.
const fn socklen<T>() -> libc::socklen_t {
    // The largest is a sockaddr_storage of 128 bytes or a tcp_info of a few hundred.
    #[allow(clippy::cast_possible_truncation)]
    {
        mem::size_of::<T>() as libc::socklen_t
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_whole_pages_and_nothing_beside_them() {
        let mut memory = vec![7; 1 << 20];
        let inside = 1..memory.len() - 1;
        discard(&mut memory[inside.clone()]);
        let given = memory.iter().filter(|byte| **byte == 0).count();
        assert!(given > 0 && given.is_multiple_of(4096), "{given}");
        assert_eq!((memory[0], memory[inside.end]), (7, 7));
        discard(&mut memory[..1]);
        assert_eq!(memory[0], 7);
        discard(&mut []);
    }
}
