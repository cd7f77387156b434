//! Balancers: the headers that they send, and HAProxy as the README configures it.
//!
//! Part of a test program by `#[path]`, beside `support`.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Version 1, for this address.
pub fn v1(peer: &str) -> Vec<u8> {
    let peer: SocketAddr = peer.parse().expect("an address");
    let (family, own) = match peer {
        SocketAddr::V4(_) => ("TCP4", "10.0.0.1"),
        SocketAddr::V6(_) => ("TCP6", "2001:db8::1"),
    };
    format!("PROXY {family} {} {own} {} 7\r\n", peer.ip(), peer.port()).into_bytes()
}

/// Version 2, with any command, family and block.
pub fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).expect("short").to_be_bytes();
    let fixed = [command, family, length[0], length[1]];
    [b"\r\n\r\n\0\r\nQUIT\n", &fixed[..], block].concat()
}

/// HAProxy, ended with the test.
#[derive(Debug)]
pub struct HaProxy(Child);

impl HaProxy {
    /// Serves as this file says, in which `fd@0` is the socket: so no port has to be guessed.
    pub fn start(file: &Path, socket: TcpListener) -> HaProxy {
        let child = Command::new("haproxy")
            .args(["-db", "-f"])
            .arg(file)
            .stdin(Stdio::from(OwnedFd::from(socket)))
            .stdout(Stdio::null())
            .spawn();
        HaProxy(child.expect("haproxy, which has to be installed"))
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The first block of a language in a section of the README.
pub fn readme(section: &str, language: &str) -> &'static str {
    let readme = include_str!("../../README.md");
    let heading = format!("\n## {section}\n");
    let (_, section) = readme.split_once(&heading).expect("the section");
    let section = section.split("\n## ").next().expect("its text");
    let begin = format!("```{language}\n");
    let (_, block) = section.split_once(&begin).expect("the block");
    block.split_once("```").expect("its end").0
}

/// The text with this instead of that, which has to be there.
pub fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "no {from:?} in {text}");
    text.replace(from, to)
}
