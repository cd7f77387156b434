//! An echo server on mio, edge-triggered: one thread, one loop, one buffer for all connections.
//!
//! Invariant: a connection that has bytes waiting is not read from, so that a slow reader slows only
//! itself, and at most one buffer of bytes waits for it.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};

use echod_compare::{BUFFER, listen};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(usize::MAX);

/// A connection, and what it has yet to take.
struct Connection {
    stream: TcpStream,
    waiting: Vec<u8>,
}

fn main() -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let listener = listen()?;
    listener.set_nonblocking(true)?;
    let mut listener = TcpListener::from_std(listener);
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut connections = HashMap::new();
    let mut next = 0;
    let mut buffer = vec![0; BUFFER];
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            if event.token() == LISTENER {
                accept(&poll, &listener, &mut connections, &mut next)?;
            } else if let Some(connection) = connections.get_mut(&event.token())
                && !matches!(
                    connection.echo(&mut buffer, event.is_read_closed()),
                    Ok(true)
                )
            {
                // Its descriptor is closed with it, which takes it out of the poll as well.
                connections.remove(&event.token());
            }
        }
    }
}

/// Lets in all that wait.
fn accept(
    poll: &Poll,
    listener: &TcpListener,
    connections: &mut HashMap<Token, Connection>,
    next: &mut usize,
) -> io::Result<()> {
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        stream.set_nodelay(true)?;
        let token = Token(*next);
        *next += 1;
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut stream, token, interest)?;
        let waiting = Vec::new();
        connections.insert(token, Connection { stream, waiting });
    }
}

impl Connection {
    /// Goes on until the socket has nothing more to give or takes nothing more; `false`: it is over.
    fn echo(&mut self, buffer: &mut [u8], is_closed: bool) -> io::Result<bool> {
        loop {
            while !self.waiting.is_empty() {
                match unless_blocked(self.stream.write(&self.waiting))? {
                    Some(count) => drop(self.waiting.drain(..count)),
                    None => return Ok(true),
                }
            }
            let Some(count) = unless_blocked(self.stream.read(buffer))? else {
                return Ok(true);
            };
            if count == 0 {
                return Ok(false);
            }
            let written = unless_blocked(self.stream.write(&buffer[..count]))?.unwrap_or(0);
            self.waiting.extend_from_slice(&buffer[written..count]);
            // A short read has emptied the socket, and what comes after it is an edge of its own (epoll(7)):
            // this saves a system call for each message. Only a FIN that came with the bytes is none.
            if count < buffer.len() && self.waiting.is_empty() && !is_closed {
                return Ok(true);
            }
        }
    }
}

/// `None`: the socket is not ready.
fn unless_blocked(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        result => result.map(Some),
    }
}
