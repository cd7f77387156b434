//! The record of one connection, as a worker knows it, and what it says as an event. Pure.
//!
//! A worker hands a `Record` over as it is; the log's thread turns it into an event and a line. So
//! the data path neither formats nor allocates for the log.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::event::Event;
use super::kind;
use crate::config::PeerForm;
use crate::connection::{Packed, Reason};
use crate::tls::Facts;

/// What is known of a connection when it has ended, or was not begun.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Who it was, in canonical form.
    pub peer: SocketAddr,
    /// The balancer that says so, if one does.
    pub via: Option<SocketAddr>,
    /// The listener that it came in by.
    pub listener: Arc<str>,
    /// Why it ended.
    pub reason: Reason,
    /// What was wrong, in words, where the reason leaves that open.
    pub detail: Option<&'static str>,
    /// Bytes taken from the peer.
    pub received: u64,
    /// Bytes given to the kernel for the peer.
    pub sent: u64,
    /// From accept to the end.
    pub duration: Duration,
    /// What the kernel measured; `None` if it was not asked.
    pub tcp: Option<TcpFacts>,
    /// What its TLS was; `None`: it spoke none.
    pub tls: Option<Box<Facts>>,
    /// What its compression was; `None`: there was none.
    pub packed: Option<Box<Packed>>,
}

/// The kernel's own view of a connection, from `TCP_INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpFacts {
    /// The smoothed round-trip time.
    pub rtt: Duration,
    /// Segments that were sent again.
    pub retrans: u32,
}

impl Record {
    /// Did the peer send nothing and leave? A port scan or a health check, most likely; unless it came for
    /// what a service says by itself.
    pub fn is_empty(&self) -> bool {
        let is_silent = self.received == 0 && self.sent == 0;
        let packed = self.packed.as_ref();
        let is_silent = is_silent && packed.is_none_or(|packed| packed.wire.received == 0);
        is_silent && matches!(self.reason, Reason::Done | Reason::Reset)
    }

    /// What it says.
    pub fn event(&self, form: PeerForm, empty_is_debug: bool) -> Event {
        let kind = match self.is_empty() && empty_is_debug {
            true => &kind::CONNECTION_EMPTY,
            false => &kind::CONNECTION_ENDED,
        };
        let mut event = Event::of(kind).with("peer", peer(self.peer, form));
        if let Some(via) = self.via {
            event = event.with("via", peer(via, form));
        }
        event = event
            .with("listener", &self.listener)
            .with("reason", self.reason);
        if let Some(detail) = self.detail {
            event = event.with("detail", detail);
        }
        event = event
            .with("received", self.received)
            .with("sent", self.sent)
            .with("duration", thousandths(self.duration.as_millis(), "s"));
        let event = match self.tcp {
            None => event,
            Some(tcp) => event
                .with("rtt", thousandths(tcp.rtt.as_micros(), "ms"))
                .with("retrans", tcp.retrans),
        };
        let event = match &self.tls {
            None => event,
            Some(tls) => with_tls(event, tls),
        };
        match &self.packed {
            None => event,
            Some(packed) => with_packed(event, packed),
        }
    }
}

/// What both ends agreed on, as far as they did.
fn with_tls(mut event: Event, tls: &Facts) -> Event {
    let said = [
        ("tls", tls.version),
        ("cipher", tls.cipher.as_deref()),
        ("sni", tls.sni.as_deref()),
        ("alpn", tls.alpn.as_deref()),
        ("client", tls.client.as_deref()),
        ("truncated", tls.truncated.then_some("yes")),
        ("cause", tls.cause.as_deref()),
    ];
    for (key, value) in said {
        if let Some(value) = value {
            event = event.with(key, value);
        }
    }
    event
}

/// What went over the wire, beside the plain bytes.
fn with_packed(event: Event, packed: &Packed) -> Event {
    let event = event
        .with("compression", packed.method.name())
        .with("wire_received", packed.wire.received)
        .with("wire_sent", packed.wire.sent);
    match packed.cause {
        None => event,
        Some(cause) => event.with("cause", cause),
    }
}

/// The event of a connection that begins.
pub(super) fn started(address: SocketAddr, listener: &Arc<str>, form: PeerForm) -> Event {
    Event::of(&kind::CONNECTION_STARTED)
        .with("peer", peer(address, form))
        .with("listener", listener)
}

fn peer(address: SocketAddr, form: PeerForm) -> String {
    match form {
        PeerForm::Full => address.to_string(),
        PeerForm::Prefix => Prefix::of(address.ip()).to_string(),
    }
}

fn thousandths(count: u128, unit: &str) -> String {
    format!("{}.{:03}{unit}", count / 1000, count % 1000)
}

/// What stands for one source: an IPv4 address, or the /64 that an IPv6 host may choose from freely.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix(IpAddr);

impl Prefix {
    /// The prefix that an address belongs to.
    pub fn of(address: IpAddr) -> Prefix {
        Prefix(match address.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0, if self.0.is_ipv4() { 32 } else { 64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compression::{Broken, Method};
    use crate::connection::Wire;
    use crate::logging::format::line;

    fn record() -> Record {
        Record {
            peer: "[2001:db8::7]:50312".parse().expect("an address"),
            via: None,
            listener: "echo".into(),
            reason: Reason::Idle,
            detail: None,
            received: 512,
            sent: 512,
            duration: Duration::from_micros(1_204_900),
            tcp: None,
            tls: None,
            packed: None,
        }
    }

    #[test]
    fn a_record_is_one_line_of_bare_values() {
        assert_eq!(
            line(&record().event(PeerForm::Full, true)),
            "connection ended peer=[2001:db8::7]:50312 listener=echo reason=idle received=512 sent=512 \
             duration=1.204s"
        );
    }

    #[test]
    fn whoever_came_by_a_balancer_or_sent_nonsense_has_a_field_more() {
        let record = Record {
            via: "10.0.0.1:4321".parse().ok(),
            reason: Reason::Proxy,
            detail: Some("not a PROXY header"),
            ..record()
        };
        assert_eq!(
            line(&record.event(PeerForm::Full, true)),
            "connection ended peer=[2001:db8::7]:50312 via=10.0.0.1:4321 listener=echo reason=proxy \
             detail=\"not a PROXY header\" received=512 sent=512 duration=1.204s"
        );
    }

    #[test]
    fn what_the_kernel_measured_stands_at_the_end() {
        let tcp = Some(TcpFacts {
            rtt: Duration::from_micros(113),
            retrans: 0,
        });
        let line = line(&Record { tcp, ..record() }.event(PeerForm::Full, true));
        assert!(
            line.ends_with(" duration=1.204s rtt=0.113ms retrans=0"),
            "{line}"
        );
    }

    #[test]
    fn what_was_compressed_is_told_in_bytes_of_the_wire_as_well() {
        let packed = |cause| {
            Some(Box::new(Packed {
                method: Method::Zstd,
                wire: Wire {
                    received: 90,
                    sent: 101,
                },
                cause,
            }))
        };
        let line = |cause| {
            let packed = packed(cause);
            line(&Record { packed, ..record() }.event(PeerForm::Full, true))
        };
        let whole = " duration=1.204s compression=zstd wire_received=90 wire_sent=101";
        assert!(line(None).ends_with(whole), "{}", line(None));
        let broken = line(Some(Broken::Truncated));
        assert!(
            broken.ends_with(" wire_sent=101 cause=truncated"),
            "{broken}"
        );
    }

    #[test]
    fn a_prefix_names_the_source_without_its_host_part_or_port() {
        let prefix = |text: &str| peer(text.parse().expect("an address"), PeerForm::Prefix);
        assert_eq!(prefix("[2001:db8:1:2:3:4:5:6]:7"), "2001:db8:1:2::/64");
        assert_eq!(prefix("192.0.2.7:9"), "192.0.2.7/32");
        assert_eq!(prefix("[::ffff:192.0.2.7]:9"), "192.0.2.7/32");
    }

    #[test]
    fn only_a_peer_that_sent_nothing_and_left_is_empty() {
        let left = |reason, received| Record {
            reason,
            received,
            sent: received,
            ..record()
        };
        assert!(left(Reason::Done, 0).is_empty());
        assert!(left(Reason::Reset, 0).is_empty());
        assert!(!left(Reason::Done, 1).is_empty());
        assert!(!left(Reason::Full, 0).is_empty());
        let told = Record {
            sent: 4,
            ..left(Reason::Done, 0)
        };
        assert!(!told.is_empty(), "it came for the time");
        let mut packed = left(Reason::Done, 0);
        let wire = |received| Wire { received, sent: 0 };
        for (received, is_empty) in [(0, true), (1, false)] {
            packed.packed = Some(Box::new(Packed {
                method: Method::Zstd,
                wire: wire(received),
                cause: None,
            }));
            assert_eq!(packed.is_empty(), is_empty);
        }
        assert_eq!(
            left(Reason::Done, 0).event(PeerForm::Full, true).kind,
            &kind::CONNECTION_EMPTY
        );
        assert_eq!(
            left(Reason::Done, 0).event(PeerForm::Full, false).kind,
            &kind::CONNECTION_ENDED
        );
    }
}
