//! Which of our own sockets a peer may still begin at.

#![allow(clippy::unwrap_used)]

use std::io::ErrorKind;
use std::net::TcpStream;
use std::path::Path;

use super::*;

fn served(before: &Serving, names: &[&str]) -> Serving {
    let listener =
        |name: &&str| format!("[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\n");
    let text: String = names.iter().map(listener).collect();
    let config = Config::parse(&text, Path::new("test.toml")).unwrap();
    let prepared = before.prepare(&config, Identities::default());
    prepared.unwrap().serving
}

#[test]
fn nobody_begins_at_a_socket_that_a_reload_removes() {
    let present = served(&Serving::default(), &["stays", "goes"]);
    let next = served(&present, &["stays"]);
    let addresses: Vec<_> = present.own().map(|held| held.address).collect();
    present.part_own(&next);
    assert!(TcpStream::connect(addresses[0]).is_ok());
    let refused = TcpStream::connect(addresses[1]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}
