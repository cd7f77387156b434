//! The part of a worker for services that speak by themselves: what they say first, and the turns of those that go on.
//!
//! Here the clock of the wall is read and the kernel is asked; the services are given what came of it.

use jiff::Timestamp;

use super::{Worker, find};
use crate::connection::Connection;
use crate::driver::{Driver, Token};
use crate::service::{Service, daytime, time, whoami};
use crate::tls::Session;

/// Most connections that go on by themselves in one turn, so that none takes long.
const GOING_ON: usize = 32;

impl<D: Driver> Worker<D> {
    /// Tells a connection that has just been opened, or identified, the first words of its service.
    #[cold]
    pub(super) fn greet(&mut self, token: Token) {
        let Some((entry, local)) = find(&mut self.table, &self.listeners, token) else {
            return;
        };
        let words = match entry.connection.service() {
            Service::Echo | Service::Discard | Service::Chargen => Vec::new(),
            Service::Daytime => daytime::line(Timestamp::now()).into_bytes(),
            Service::Time => time::bytes(Timestamp::now()).to_vec(),
            Service::Whoami => {
                let facts = self.driver.facts(token);
                let congestion = self.driver.congestion(token);
                let (name, about) = (&local.shared.name, &self.about);
                let (peer, via) = (entry.peer(), entry.via());
                let tls = entry.connection.session().map(Session::facts);
                let tcp = (facts, congestion.as_deref());
                let method = entry.connection.packed().map(|packed| packed.method);
                let layers = (tls.as_ref(), method);
                whoami::line(peer, via, name, tcp, layers, about).into_bytes()
            }
        };
        self.step(token, |connection, turn| {
            connection.handle_opened(&words, turn)
        });
    }

    /// Goes on with the connections that asked for it first; what they ask for now comes last.
    #[cold]
    pub(super) fn go_on(&mut self) {
        for _ in 0..self.again.len().min(GOING_ON) {
            if let Some(token) = self.again.pop_front() {
                self.step(token, Connection::handle_again);
            }
        }
    }
}
