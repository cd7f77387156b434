//! What this end sees of the peer, in one line of JSON; then echo.
//!
//! For those who wonder what a path does to them: the address that they have here, and what the two
//! kernels agreed on. It tells a peer of the peer alone; of us only the name of the listener, and
//! what the configuration says in `instance` and `contact`.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use crate::compression::Method;
use crate::driver::TcpInfo;
use crate::tls::Facts;

/// What the configuration has us say of ourselves; empty: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// What this daemon is called.
    pub instance: String,
    /// Whom to ask about it.
    pub contact: String,
}

/// The line. What is added to it later is a field more; none is ever renamed.
#[derive(Debug, Serialize)]
struct Line<'a> {
    peer: Address,
    listener: &'a str,
    /// None: the kernel does not say.
    tcp: Option<Tcp<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<Proxy>,
    /// Of those who speak it.
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<Tls<'a>>,
    /// Where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    compression: Option<&'static str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    instance: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    contact: &'a str,
}

#[derive(Debug, Serialize)]
struct Address {
    address: IpAddr,
    port: u16,
}

/// Who brought the peer's address; then what is said of TCP is of the path from there.
#[derive(Debug, Serialize)]
struct Proxy {
    via: SocketAddr,
}

/// What the handshake agreed on, and how the path looks from here.
#[derive(Debug, Serialize)]
struct Tcp<'a> {
    /// Most bytes that we put into a segment.
    mss: u32,
    rtt_us: u64,
    /// None: one of the two had none to offer.
    window_scale: Option<WindowScale>,
    sack: bool,
    timestamps: bool,
    /// Our own algorithm.
    congestion: Option<&'a str>,
}

/// What the other handshake agreed on. None: it was not asked for, or not said.
#[derive(Debug, Serialize)]
struct Tls<'a> {
    version: Option<&'a str>,
    cipher: Option<&'a str>,
    group: Option<&'a str>,
    sni: Option<&'a str>,
    alpn: Option<&'a str>,
    client: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct WindowScale {
    peer: u8,
    ours: u8,
}

/// The line, with its LF.
pub fn line(
    peer: SocketAddr,
    via: Option<SocketAddr>,
    listener: &str,
    (facts, congestion): (Option<TcpInfo>, Option<&str>),
    (tls, compression): (Option<&Facts>, Option<Method>),
    about: &About,
) -> String {
    let tcp = facts.map(|facts| Tcp {
        mss: facts.mss,
        rtt_us: u64::try_from(facts.rtt.as_micros()).unwrap_or(u64::MAX),
        window_scale: facts
            .window_scale
            .map(|(peer, ours)| WindowScale { peer, ours }),
        sack: facts.sack,
        timestamps: facts.timestamps,
        congestion,
    });
    let line = Line {
        peer: Address {
            address: peer.ip(),
            port: peer.port(),
        },
        listener,
        tcp,
        proxy: via.map(|via| Proxy { via }),
        tls: tls.map(|tls| Tls {
            version: tls.version,
            cipher: tls.cipher.as_deref(),
            group: tls.group.as_deref(),
            sni: tls.sni.as_deref(),
            alpn: tls.alpn.as_deref(),
            client: tls.client.as_deref(),
        }),
        compression: compression.map(Method::name),
        instance: &about.instance,
        contact: &about.contact,
    };
    let mut text = serde_json::to_string(&line).expect("strings and numbers are always JSON");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn peer() -> SocketAddr {
        "192.0.2.1:50312".parse().expect("an address")
    }

    #[test]
    fn it_is_one_line_with_what_is_seen_of_the_peer() {
        let facts = TcpInfo {
            rtt: Duration::from_micros(57),
            mss: 1448,
            window_scale: Some((7, 9)),
            sack: true,
            ..TcpInfo::default()
        };
        assert_eq!(
            line(
                peer(),
                None,
                "whoami",
                (Some(facts), Some("cubic")),
                (None, None),
                &About::default()
            ),
            "{\"peer\":{\"address\":\"192.0.2.1\",\"port\":50312},\"listener\":\"whoami\",\
             \"tcp\":{\"mss\":1448,\"rtt_us\":57,\"window_scale\":{\"peer\":7,\"ours\":9},\
             \"sack\":true,\"timestamps\":false,\"congestion\":\"cubic\"}}\n"
        );
    }

    #[test]
    fn what_cannot_be_had_is_null_and_what_we_are_called_is_told_if_it_is_set() {
        let about = About {
            instance: "far end 3, Zürich".into(),
            contact: "noc@example.net".into(),
        };
        let peer = "[2001:db8::7]:1".parse().expect("an address");
        assert_eq!(
            line(peer, None, "w", (None, None), (None, None), &about),
            "{\"peer\":{\"address\":\"2001:db8::7\",\"port\":1},\"listener\":\"w\",\"tcp\":null,\
             \"instance\":\"far end 3, Zürich\",\"contact\":\"noc@example.net\"}\n"
        );
    }

    #[test]
    fn who_comes_by_a_balancer_or_compresses_is_told_which() {
        let via = "10.0.0.1:4321".parse().ok();
        assert_eq!(
            line(
                peer(),
                via,
                "w",
                (None, None),
                (None, Some(Method::Gzip)),
                &About::default()
            ),
            "{\"peer\":{\"address\":\"192.0.2.1\",\"port\":50312},\"listener\":\"w\",\"tcp\":null,\
             \"proxy\":{\"via\":\"10.0.0.1:4321\"},\"compression\":\"gzip\"}\n"
        );
    }
}
