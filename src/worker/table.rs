//! A worker's connections by token; a stale token finds nothing.
//!
//! Places are used again, the last freed first. Each use has a generation of its own, so that what
//! is said of an earlier connection in the same place is not taken for the present one.

use std::net::SocketAddr;
use std::sync::Arc;

use super::sources::Source;
use crate::connection::Connection;
use crate::driver::{PLACES, Token};

/// A connection and what the worker knows of it besides.
#[derive(Debug)]
pub struct Entry {
    /// The peer's life.
    pub connection: Connection,
    /// Whose socket it is: the peer's own, or a balancer's.
    pub socket: SocketAddr,
    /// The id of the listener that it came in by.
    pub listener: u16,
    /// The source that it counts for; `None` when its bounds were given back: our FIN is out, or it is closed.
    pub source: Option<Arc<Source>>,
    /// It counts as one that is parting: our FIN is out.
    pub is_parting: bool,
}

impl Entry {
    /// Who it is: the peer that the balancer speaks for, if it says so.
    pub fn peer(&self) -> SocketAddr {
        self.connection.brought().unwrap_or(self.socket)
    }

    /// The balancer that says so.
    pub fn via(&self) -> Option<SocketAddr> {
        self.connection.brought().map(|_| self.socket)
    }
}

#[derive(Debug)]
struct Place {
    generation: u32,
    entry: Option<Entry>,
}

/// All connections of one worker.
#[derive(Debug)]
pub struct Table {
    places: Vec<Place>,
    free: Vec<u32>,
}

impl Default for Table {
    fn default() -> Table {
        Table {
            places: Vec::with_capacity(PLACES),
            free: Vec::new(),
        }
    }
}

impl Table {
    /// Puts a connection in a free place.
    pub fn insert(&mut self, entry: Entry) -> Token {
        if let Some(index) = self.free.pop() {
            let place = &mut self.places[index as usize];
            place.entry = Some(entry);
            return Token {
                index,
                generation: place.generation,
            };
        }
        let index = u32::try_from(self.places.len()).expect("fewer connections than descriptors");
        self.places.push(Place {
            generation: 0,
            entry: Some(entry),
        });
        Token {
            index,
            generation: 0,
        }
    }

    /// The connection that a token names.
    #[inline(always)]
    pub fn get_mut(&mut self, token: Token) -> Option<&mut Entry> {
        let place = self.places.get_mut(token.index as usize)?;
        if place.generation == token.generation {
            place.entry.as_mut()
        } else {
            None
        }
    }

    /// Forgets a connection; its token is stale from now on.
    pub fn remove(&mut self, token: Token) {
        if self.get_mut(token).is_some() {
            let place = &mut self.places[token.index as usize];
            place.entry = None;
            place.generation = (place.generation + 1) & (u32::MAX >> 1);
            self.free.push(token.index);
        }
    }

    /// The token of the connection in a place, if there is one.
    pub fn token(&self, index: u32) -> Option<Token> {
        let place = self.places.get(index as usize)?;
        place.entry.is_some().then_some(Token {
            index,
            generation: place.generation,
        })
    }

    /// All places, free ones too.
    pub fn places(&self) -> u32 {
        // insert() sees to it that they can be counted so.
        u32::try_from(self.places.len()).unwrap_or(u32::MAX)
    }

    /// The number of connections.
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Is there no connection?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Memory;
    use crate::connection::{Limits, Turn};
    use crate::service::Service;
    use crate::tick::Tick;

    fn entry() -> Entry {
        let limits = Limits::unbounded(Service::Echo, 1);
        let turn = Turn {
            now: Tick(0),
            limits: &limits,
            memory: &Memory::new(0),
            source: None,
        };
        Entry {
            connection: Connection::new(&turn),
            socket: ([127, 0, 0, 1], 1).into(),
            listener: 0,
            source: None,
            is_parting: false,
        }
    }

    #[test]
    fn a_stale_token_finds_nothing() {
        let mut table = Table::default();
        let first = table.insert(entry());
        table.remove(first);
        let second = table.insert(entry());
        assert_eq!(first.index, second.index, "the place is used again");
        assert!(table.get_mut(first).is_none() && table.get_mut(second).is_some());
        table.remove(first);
        assert_eq!(table.len(), 1, "a stale token removes nothing");
    }

    #[test]
    fn an_entry_is_small_enough_for_ten_thousand_idle_peers() {
        let size = size_of::<Place>();
        assert!(size <= 152, "{size} bytes");
    }
}
