//! An echo server with a thread for each connection: what a tutorial would write, made correct.
//!
//! Blocking calls only, from the standard library alone. A reader that is slow blocks its own thread.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread;

use echod_compare::{BUFFER, listen};

/// Enough for a loop whose buffer is elsewhere; the default of 2 MiB is for programs that recurse.
const STACK: usize = 64 * 1024;

fn main() -> io::Result<()> {
    for stream in listen()?.incoming() {
        let stream = stream?;
        thread::Builder::new()
            .stack_size(STACK)
            // Whatever ends a connection ends it alone.
            .spawn(move || drop(echo(stream)))?;
    }
    Ok(())
}

/// Until the client's FIN; what was read before it has been written by then.
fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            count => stream.write_all(&buffer[..count])?,
        }
    }
}
