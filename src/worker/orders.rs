//! What a worker may be told, and the letter box in which it finds it.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::gate::{Gate, Rules};
use super::sources::Source;
use crate::config;
use crate::connection::{Limits, Reason};
use crate::service::whoami::About;

/// What a worker may be told.
#[derive(Debug)]
pub enum Order<L, S> {
    /// Serve this from now on; whatever it does not name is to be drained.
    Adopt(Arc<Plan<L>>),
    /// Accept nobody any more, let the connections end, and return when the last one has.
    Drain {
        /// A peer that is owed nothing and has sent nothing for so long gets our FIN.
        idle: Duration,
        /// All the others get it after so long.
        timeout: Duration,
    },
    /// Reset what is left, and return.
    Stop,
    /// Pressure has begun, or ended: look at all connections again.
    Pressure,
    /// Say that you still turn.
    Ping,
    /// Serve this peer, whom another worker has accepted and counted.
    Serve(Peer<S>),
}

/// A peer that was admitted.
#[derive(Debug)]
pub struct Peer<S> {
    /// Its connection.
    pub stream: S,
    /// Its canonical address.
    pub address: SocketAddr,
    /// The listener that it came in by, and was counted for.
    pub listener: Arc<Listener>,
    /// The source that it was counted for.
    pub source: Arc<Source>,
    /// It begins with the header of a balancer.
    pub is_balancer: bool,
}

/// Everything that the workers serve. A reload is a new plan, adopted whole.
#[derive(Debug)]
pub struct Plan<L> {
    /// The listeners, each with an id that no other has or had while a connection of it may live.
    pub listeners: Vec<Arc<Listener>>,
    /// The sockets by which their peers come.
    pub sockets: Vec<Socket<L>>,
    /// How the connections of a listener that is no longer here are drained.
    pub drain_idle: Duration,
    /// The longest that they may take.
    pub drain_timeout: Duration,
    /// What is recorded.
    pub log: config::Log,
    /// What pressure makes of the limits.
    pub pressure: config::Pressure,
    /// What whoami says of us.
    pub about: About,
}

/// A listener, as the workers share it, for as long as a connection of it lives.
#[derive(Debug)]
pub struct Listener {
    /// Names it among the listeners of all plans of the time.
    pub id: u16,
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// What holds for its connections; never draining.
    pub limits: Limits,
    /// How many there are, and may be.
    pub gate: Gate,
    /// Who may come.
    pub rules: Rules,
    /// No listener of the configuration claims its socket: reset all who come.
    pub refuse: Option<Reason>,
}

/// A listening socket. Whoever holds one keeps it open, so it is not part of what a connection holds.
#[derive(Clone, Debug)]
pub struct Socket<L> {
    /// Names it to the drivers; no other socket of the time has it.
    pub slot: u16,
    /// The id of the listener whose peers come by it.
    pub listener: u16,
    /// The socket itself.
    pub socket: L,
    /// Handed to us: what waits in its queue waits for the next instance. Otherwise the queue goes with
    /// the socket, and nobody who is in it may be lost.
    pub handed: bool,
}

/// The letter box of a worker: orders in, in the order of their arrival.
#[derive(Debug)]
pub struct Mailbox<L, S> {
    /// `None`: the worker has returned.
    orders: Mutex<Option<VecDeque<Order<L, S>>>>,
    bell: EventFd,
}

impl<L, S> Mailbox<L, S> {
    /// An empty letter box with a bell.
    ///
    /// # Errors
    /// When there is no descriptor for the bell.
    pub fn new() -> io::Result<Mailbox<L, S>> {
        Ok(Mailbox {
            orders: Mutex::new(Some(VecDeque::new())),
            bell: bell()?,
        })
    }

    /// Rings when the first order arrives in an empty box.
    pub fn bell(&self) -> &EventFd {
        &self.bell
    }

    /// Puts an order in.
    ///
    /// # Errors
    /// The order itself, if the worker has returned and will not read it.
    pub fn put(&self, order: Order<L, S>) -> Result<(), Order<L, S>> {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(orders) = orders.as_mut() else {
            return Err(order);
        };
        if orders.is_empty() {
            ring(&self.bell);
        }
        orders.push_back(order);
        Ok(())
    }

    /// Takes all orders out.
    pub fn take(&self) -> VecDeque<Order<L, S>> {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Closes the box, if nothing is in it: the worker returns.
    pub fn close_if_empty(&self) -> bool {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.take_if(|orders| orders.is_empty());
        orders.is_none()
    }
}

/// A descriptor that becomes readable when it is rung.
///
/// # Errors
/// When there is no descriptor for it.
pub fn bell() -> io::Result<EventFd> {
    Ok(EventFd::from_flags(
        EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK,
    )?)
}

/// Rings a bell.
pub fn ring(bell: &EventFd) {
    // EAGAIN: rung 2^64 - 2 times and never heard, so it is ringing.
    let _ = bell.write(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_box_gives_the_order_back() {
        let mailbox = Mailbox::<(), ()>::new().expect("a bell");
        mailbox.put(Order::Ping).expect("open");
        assert!(!mailbox.close_if_empty(), "an order waits");
        assert_eq!(mailbox.take().len(), 1);
        assert!(mailbox.close_if_empty());
        assert!(matches!(mailbox.put(Order::Stop), Err(Order::Stop)));
    }

    #[test]
    fn the_bell_rings_once_for_orders_that_arrive_together() {
        let mailbox = Mailbox::<(), ()>::new().expect("a bell");
        mailbox.put(Order::Ping).expect("open");
        mailbox.put(Order::Ping).expect("open");
        assert_eq!(mailbox.bell().read().expect("rung"), 1);
        mailbox.take();
        mailbox.put(Order::Ping).expect("open");
        assert_eq!(mailbox.bell().read().expect("rung again"), 1);
    }
}
