//! Does this kernel keep the promises that the driver relies on?
//!
//! Not what it says of itself, but what it does: a ring like those of the workers is made and tried over a
//! pair of sockets. Each answer no is a reason in words, for the log.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use super::event::Event;
use super::ring::{Disabled, Ring};
use crate::buffer::TurnMemory;
use crate::driver::{Sent, Token};

/// Why io_uring is not used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel has none, or does not let us have it.
    #[error("io_uring cannot be set up: {}", crate::cause::cause(.0))]
    SetUp(#[source] io::Error),
    /// It does something else than it should.
    #[error("the kernel {0} (Linux 6.16 or later does)")]
    Lacks(&'static str),
    /// There is nothing to try it with.
    #[error("io_uring cannot be tried: {}", crate::cause::cause(.0))]
    Untried(#[source] io::Error),
}

/// The limit of the multishot receive that is tried; two messages reach it.
const LIMIT: u32 = 5000;
const MESSAGE: usize = 3000;

/// Times that the kernel is asked for what should be there.
const TRIES: u32 = 100;

/// The place of the only connection.
const PLACE: u32 = 0;

/// Tries it.
///
/// # Errors
/// What is wrong.
pub fn probe() -> Result<(), Error> {
    let mut ring = Disabled::new(1)
        .and_then(Disabled::enable)
        .map_err(Error::SetUp)?;
    bounds_a_receive(&mut ring)?;
    tells_of_a_part(&mut ring)
}

/// A multishot receive ends with the message that reaches its limit.
fn bounds_a_receive(ring: &mut Ring) -> Result<(), Error> {
    let (mut peer, ours) = UnixStream::pair().map_err(Error::Untried)?;
    ring.receive_many(PLACE, ours.as_fd(), LIMIT);
    for (message, last) in [([1; MESSAGE], false), ([2; MESSAGE], true)] {
        peer.write_all(&message).map_err(Error::Untried)?;
        match event(ring)? {
            Event::Received { input, armed, .. } if armed != last && input.bytes() == message => {}
            _ => return Err(Error::Lacks("does not bound a multishot receive")),
        }
    }
    Ok(())
}

/// The next event: it has happened already, so the kernel need not be waited for.
fn event(ring: &mut Ring) -> Result<Event, Error> {
    for _ in 0..TRIES {
        if let Some(event) = ring.next() {
            return Ok(event);
        }
        ring.turn(false);
    }
    Err(Error::Lacks("does not answer"))
}

/// A send that is taken whole says nothing, one that is taken in part says so and does not wait.
fn tells_of_a_part(ring: &mut Ring) -> Result<(), Error> {
    let (mut peer, ours) = UnixStream::pair().map_err(Error::Untried)?;
    peer.set_nonblocking(true).map_err(Error::Untried)?;
    let token = Token {
        index: PLACE,
        generation: 0,
    };
    let mut taken = 0;
    loop {
        let bytes = TurnMemory::new().fill::<()>(u32::MAX, |to| Ok(to.len()));
        let Ok(bytes) = bytes else { break };
        ring.send_now(token, ours.as_fd(), bytes);
        ring.turn(false);
        match ring.next_sent() {
            Some((_, Sent::All(count))) => taken += count as usize,
            Some((_, Sent::Part { count, .. })) => {
                taken += count as usize;
                break;
            }
            _ => return Err(Error::Lacks("does not answer a send at once")),
        }
    }
    let mut arrived = 0;
    let mut to = vec![0; 1 << 16];
    while let Ok(count @ 1..) = peer.read(&mut to) {
        arrived += count;
    }
    if arrived != taken {
        return Err(Error::Lacks("does not tell what a send came to"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_has_it_passes() {
        match probe() {
            Ok(()) => {}
            Err(error) => println!("{}: not run, because {error}", module_path!()),
        }
    }

    #[test]
    fn sends_that_were_not_taken_are_told_apart_from_those_that_were() {
        if let Err(error) = probe() {
            return println!("{}: not run, because {error}", module_path!());
        }
        let mut ring = Disabled::new(4).and_then(Disabled::enable).expect("a ring");
        let pairs: Vec<_> = (0..4)
            .map(|_| UnixStream::pair().expect("a pair"))
            .collect();
        for (_, full) in &pairs[1..3] {
            full.set_nonblocking(true).expect("set");
            while (&mut &*full).write(&[0; MESSAGE]).is_ok() {}
        }
        for (index, (_, ours)) in (0..).zip(&pairs) {
            let bytes = TurnMemory::new().fill::<()>(5, |to| Ok(to.len()));
            let token = Token {
                index,
                generation: 0,
            };
            ring.send_now(token, ours.as_fd(), bytes.expect("filled"));
        }
        ring.turn(false);
        let (mut taken, mut refused) = (Vec::new(), Vec::new());
        while let Some((token, count)) = ring.next_all_sent() {
            taken.push((token.index, count));
        }
        while let Some((token, sent)) = ring.next_sent() {
            assert!(matches!(sent, Sent::Part { count: 0, rest } if rest.len() == 5));
            refused.push(token.index);
        }
        taken.sort_unstable();
        refused.sort_unstable();
        assert_eq!((taken, refused), (vec![(0, 5), (3, 5)], vec![1, 2]));
    }
}
