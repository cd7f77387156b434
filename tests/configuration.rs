//! The configuration's text, right and wrong, as nobody would write it by hand.
//!
//! Whatever the text is, reading it ends in a configuration or a message; a configuration that is
//! printed is read as the same; and each bound is where it is said to be.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use echod::config::{Config, Error, print};
use proptest::prelude::*;

const WHOLE: &str = include_str!("../config/echod.toml");

fn parsed(text: &str) -> Result<Config, Error> {
    Config::parse(text, Path::new("test.toml"))
}

/// The file that says one thing; `KEY` of a listener, or of another table by its whole name.
fn saying(key: &str, value: &str) -> String {
    match key.strip_prefix("listener.") {
        Some(key) => format!("[[listener]]\n{key} = {value}\n"),
        None => format!("{key} = {value}\n[[listener]]\n"),
    }
}

#[test]
fn each_bound_holds_at_itself_and_not_one_past_it() {
    for (key, good, bad) in [
        ("workers", "1", "0"),
        ("workers", "256", "257"),
        ("max_connections", "1", "0"),
        ("max_connections", "1000000", "1000001"),
        ("buffer_memory", "'1MiB'", "'1048575B'"),
        ("buffer_memory", "'1TiB'", "'1099511627777B'"),
        ("drain_idle", "'1ms'", "'0s'"),
        ("drain_idle", "'3650d'", "'3650d 1ms'"),
        ("drain_timeout", "'1ms'", "'0s'"),
        ("drain_timeout", "'3650d'", "'3650d 1ms'"),
        ("log.record_rate", "'1/min'", "'0/min'"),
        ("log.record_rate", "'1000000/s'", "'1000001/s'"),
        ("listener.backlog", "1", "0"),
        ("listener.backlog", "65535", "65536"),
        ("listener.buffer", "'4KiB'", "'4095B'"),
        ("listener.buffer", "'64MiB'", "'67108865B'"),
        ("listener.max_connections", "1", "0"),
        ("listener.max_connections", "1000000", "1000001"),
        ("listener.max_bytes", "'2B'", "'1B'"),
        ("listener.max_bytes", "'1EiB'", "'1152921504606846977B'"),
        ("pressure.above", "'1%'", "'0%'"),
        ("pressure.above", "'100%'", "'101%'"),
        ("pressure.max_connections_per_source", "'1%'", "'0%'"),
        ("pressure.max_connections_per_source", "'100%'", "'101%'"),
        ("pressure.idle", "'1ms'", "'0s'"),
        ("pressure.stall", "'1ms'", "'0s'"),
        ("pressure.progress", "'1B/min'", "'0B/min'"),
        ("pressure.progress", "'1PiB/s'", "'1125899906842625B/s'"),
        ("listener.max_connections_per_source", "1", "0"),
        ("listener.max_connections_per_source", "1000000", "1000001"),
        ("listener.max_connections_per_worker", "1", "0"),
        ("listener.max_connections_per_worker", "1000000", "1000001"),
        ("listener.source_prefix.ipv4", "1", "0"),
        ("listener.source_prefix.ipv4", "32", "33"),
        ("listener.source_prefix.ipv6", "1", "0"),
        ("listener.source_prefix.ipv6", "128", "129"),
        ("listener.rate.connections", "'1/min'", "'0/min'"),
        ("listener.rate.connections", "'1000000/s'", "'1000001/s'"),
        ("listener.rate.connections.burst", "1", "0"),
        ("listener.rate.connections.burst", "1000000", "1000001"),
        ("listener.rate.bytes", "'1B/s'", "'0B/s'"),
        ("listener.rate.bytes", "'1PiB/s'", "'1125899906842625B/s'"),
        ("listener.rate.total_bytes", "'1B/s'", "'0B/s'"),
        (
            "listener.rate.total_bytes",
            "'1PiB/s'",
            "'1125899906842625B/s'",
        ),
        ("listener.tcp.notsent_lowat", "'1B'", "'0B'"),
        ("listener.tcp.notsent_lowat", "'1GiB'", "'1073741825B'"),
        ("listener.tcp.receive_buffer", "'4KiB'", "'4095B'"),
        ("listener.tcp.receive_buffer", "'512MiB'", "'536870913B'"),
        ("listener.tcp.send_buffer", "'4KiB'", "'4095B'"),
        ("listener.tcp.send_buffer", "'512MiB'", "'536870913B'"),
        ("listener.tcp.defer_accept", "'1s'", "'999ms'"),
        ("listener.tcp.defer_accept", "'120s'", "'121s'"),
        ("listener.tcp.fast_open", "1", "0"),
        ("listener.tcp.fast_open", "65535", "65536"),
        ("listener.tcp.dscp", "0", "-1"),
        ("listener.tcp.dscp", "63", "64"),
        ("listener.tcp.max_segment", "88", "87"),
        ("listener.tcp.max_segment", "32767", "32768"),
        ("listener.tcp.user_timeout", "'1ms'", "'0ms'"),
        ("listener.tcp.user_timeout", "'24d'", "'24d 1ms'"),
        ("listener.tcp.keepalive.idle", "'1s'", "'999ms'"),
        ("listener.tcp.keepalive.idle", "'32767s'", "'32768s'"),
        ("listener.tcp.keepalive.interval", "'1s'", "'999ms'"),
        ("listener.tcp.keepalive.interval", "'32767s'", "'32768s'"),
        ("listener.tcp.keepalive.count", "1", "0"),
        ("listener.tcp.keepalive.count", "127", "128"),
        ("listener.timeout.handshake", "'1ms'", "'0s'"),
        ("listener.timeout.handshake", "'3650d'", "'3650d 1ms'"),
        ("listener.timeout.first_byte", "'1ms'", "'0s'"),
        ("listener.timeout.first_byte", "'3650d'", "'3650d 1ms'"),
        ("listener.timeout.idle", "'1ms'", "'0s'"),
        ("listener.timeout.idle", "'3650d'", "'3650d 1ms'"),
        ("listener.timeout.lifetime", "'1ms'", "'0s'"),
        ("listener.timeout.lifetime", "'3650d'", "'3650d 1ms'"),
        ("listener.timeout.stall", "'1ms'", "'0s'"),
        ("listener.timeout.stall", "'3650d'", "'3650d 1ms'"),
    ] {
        assert!(parsed(&saying(key, good)).is_ok(), "{key} = {good}");
        let error = parsed(&saying(key, bad)).unwrap_err().to_string();
        assert!(error.contains("not between"), "{key} = {bad}: {error}");
    }
}

#[test]
fn a_buffer_may_take_all_the_memory_and_no_more() {
    let text =
        |memory: &str| format!("buffer_memory = '{memory}'\n[[listener]]\nbuffer = '2MiB'\n");
    assert!(parsed(&text("2MiB")).is_ok());
    assert!(parsed(&text("2097151B")).is_err());
}

#[test]
fn there_may_be_as_many_listeners_and_addresses_as_the_bound_and_no_more() {
    let listeners =
        |n: u16| (1..=n).map(|n| format!("[[listener]]\nname = 'l{n}'\naddress = '[::]:{n}'\n"));
    let addresses = |n: u16| (1..=n).map(|n| format!("'[::]:{n}',")).collect::<String>();
    assert!(parsed(&listeners(64).collect::<String>()).is_ok());
    assert!(parsed(&listeners(65).collect::<String>()).is_err());
    assert!(parsed(&saying("listener.address", &format!("[{}]", addresses(64)))).is_ok());
    assert!(parsed(&saying("listener.address", &format!("[{}]", addresses(65)))).is_err());
}

#[test]
fn there_may_be_as_many_prefixes_as_the_bound_and_no_more() {
    let prefixes = |n: u32| {
        let all = (0..n).map(|n| format!("'10.{}.{}.{}',", n >> 16, n >> 8 & 255, n & 255));
        saying(
            "listener.access.deny",
            &format!("[{}]", all.collect::<String>()),
        )
    };
    assert!(parsed(&prefixes(50_000)).is_ok());
    let error = parsed(&prefixes(50_001)).unwrap_err().to_string();
    assert!(error.contains("more than 50000 prefixes"), "{error}");
}

#[test]
fn root_serves_only_where_that_is_allowed() {
    assert!(parsed(&saying("user", "'root'")).is_err());
    assert!(parsed("user = 'root'\nallow_root = true\n[[listener]]\n").is_ok());
}

/// A valid file with something cut out, doubled or put in: nearer to the code than noise is.
fn mutated() -> impl Strategy<Value = String> {
    let text: String = WHOLE
        .lines()
        .map(|l| l.trim_start_matches('#').to_string() + "\n")
        .collect();
    let part = proptest::sample::select(vec![
        "\"",
        "'",
        "[",
        "]",
        "{",
        "}",
        ".",
        "=",
        "\n",
        "\\",
        "#",
        "-1",
        "1e999",
        "\u{feff}",
        "ä",
        "\u{1b}",
        "off",
        "[[listener]]\n",
        "[defaults]\n",
        "tcp.",
        "1979-05-27",
        "true",
        "\"$__serde_spanned_private_value\" = 1\n",
        "99999999999999999999999",
    ]);
    let cut = (0..text.len(), 0..40usize, part);
    proptest::collection::vec(cut, 1..8).prop_map(move |cuts| {
        let mut text = text.clone();
        for (at, length, part) in cuts {
            let floor = |at: usize| {
                (0..=at.min(text.len()))
                    .rev()
                    .find(|at| text.is_char_boundary(*at))
                    .unwrap_or(0)
            };
            let (from, to) = (floor(at), floor(at + length));
            text.replace_range(from..to, part);
        }
        text
    })
}

/// The bounds of a listener, and who may come.
fn beyond() -> impl Strategy<Value = String> {
    let rate = (1..1u64 << 50, proptest::sample::select(vec!["s", "min"]));
    let service = proptest::sample::select(vec!["echo", "discard", "chargen", "time", "whoami"]);
    (service, 1..1_000_001u32, 1..33u8, 1..129u8, rate, any::<[u8; 4]>(), any::<bool>()).prop_map(
        |(service, count, ipv4, ipv6, (bytes, per), net, flag)| {
            let [a, b, c, _] = net;
            let (refusal, method) = match flag {
                true => ("refusal = \"say\"\n", "none"),
                false if count % 2 == 0 => ("", "zstd"),
                false => ("", "gzip"),
            };
            let (window, ratio) = match count % 3 {
                0 => (1024 + count, "\"off\"".to_string()),
                _ => (128 << 20, count.to_string()),
            };
            format!(
                "service = \"{service}\"\nmax_connections_per_source = {count}\nmax_connections_per_worker = {count}\n\
                 source_prefix = {{ ipv4 = {ipv4}, ipv6 = {ipv6} }}\n{refusal}\
                 access = {{ allow = [\"{a}.{b}.{c}.0/24\"], deny = [\"{a}.{b}.0.0/16\", \"8000::/{ipv6}\"], reapply = {flag} }}\n\
                 proxy_protocol = {{ trusted = [\"{a}.{b}.{c}.0/24\", \"8000::/{ipv6}\"] }}\n\
                 compression = {{ method = \"{method}\", max_window = \"{window}\", max_ratio = {ratio} }}\n\
                 rate = {{ connections = {{ rate = \"{count}/{per}\" }}, bytes = \"{bytes}B/{per}\", total_bytes = \"{bytes}/s\" }}\n"
            )
        },
    )
}

/// A listener that speaks TLS, or says that it does not.
fn tls() -> impl Strategy<Value = String> {
    let path = "/[a-z0-9/. é]{0,20}";
    let suites =
        "cipher_suites = [\"TLS_AES_256_GCM_SHA384\", \"TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384\"]";
    let said = proptest::sample::select(vec![
        "",
        "minimum = \"1.3\"",
        "maximum = \"1.2\"",
        suites,
        "groups = [\"X25519MLKEM768\", \"secp256r1\"]",
        "alpn = []",
        "expired = \"refuse\"",
    ]);
    let asked = proptest::sample::select(vec![
        "",
        "client_names = [\"Peer.example\", \"::0001\", \"spiffe://a/B\", \"a@B.c\"]",
        "client = \"optional\"",
    ]);
    (any::<bool>(), path, path, said, asked).prop_map(|(is_on, one, other, said, asked)| match is_on {
        false => "tls = \"off\"\n".to_string(),
        true => format!(
            "refusal = \"reset\"\n[listener.tls]\ncertificates = [{{ certificate = \"{one}\", key = \"{other}\" }}, {{ certificate = \"{other}\", key = \"{one}\" }}]\n\
             client_ca = \"{one}\"\n{said}\n{asked}\n"
        ),
    })
}

/// Options of sockets, within `tcp = { .. }`.
fn kernel() -> impl Strategy<Value = String> {
    let name = "[a-z][a-z0-9_]{0,14}";
    (4096..1u64 << 29, 0..64u8, 88..32_768u16, name, any::<[bool; 4]>()).prop_map(
        |(bytes, dscp, segment, name, [a, b, c, d])| {
            format!(
                "notsent_lowat = \"{bytes}\", receive_buffer = \"{bytes}\", send_buffer = \"kernel\", congestion = \"{name}\", \
                 dscp = {dscp}, interface = \"{name}\", max_segment = {segment}, freebind = {a}, v6only = {b}, reuse_port = {c}, multipath = {d}"
            )
        },
    )
}

/// Valid files that say much.
fn valid() -> impl Strategy<Value = String> {
    let time = |most: u64| {
        prop_oneof![
            Just("\"off\"".to_string()),
            (1..most).prop_map(|ms| format!("\"{ms}ms\""))
        ]
    };
    let listener = (
        1..65_536u32,
        4096..67_108_865u64,
        2..u64::MAX >> 4,
        any::<bool>(),
        time(1 << 38),
        time(1 << 30),
        1..128u32,
        any::<[u16; 8]>(),
        (any::<[u8; 4]>(), beyond(), kernel(), tls()),
    );
    let log = (
        proptest::sample::select(vec!["syslog", "journal", "stderr"]),
        proptest::sample::select(vec!["error", "warning", "info", "debug"]),
        proptest::sample::select(vec!["user", "authpriv", "local7"]),
        proptest::sample::select(vec!["both", "ended", "failed", "none"]),
        (1..1_000_001u32, proptest::sample::select(vec!["s", "min"])),
        any::<bool>(),
    );
    let engine = proptest::sample::select(vec!["epoll", "io_uring", "auto"]);
    (proptest::collection::vec(listener, 1..4), log, (1..257u32, engine), 1..1_000_001u32, 64u64 << 20..1 << 40).prop_map(
        |(listeners, (target, level, facility, records, (rate, per), empty), (workers, engine), connections, memory)| {
            let mut text = format!(
                "workers = {workers}\nengine = \"{engine}\"\nmax_connections = {connections}\nbuffer_memory = \"{memory}\"\n[log]\ntarget = \"{target}\"\nlevel = \"{level}\"\n\
                 facility = \"{facility}\"\nrecords = \"{records}\"\nrecord_rate = \"{rate}/{per}\"\nempty = {empty}\n"
            );
            for (index, (backlog, buffer, bytes, nodelay, long, short, count, v6, (v4, beyond, kernel, tls))) in listeners.into_iter().enumerate() {
                let port = 2 * index + 1;
                let v6 = std::net::SocketAddr::from((v6, u16::try_from(port).unwrap()));
                let v4 = std::net::SocketAddr::from(([10, v4[1], v4[2], v4[3]], u16::try_from(port + 1).unwrap()));
                let v6 = if v6.ip().is_multicast() { v4 } else { v6 };
                let list = if v6 == v4 { format!("[\"{v4}\"]") } else { format!("[\"{v4}\", \"{v6}\"]") };
                text += &format!(
                    "[[listener]]\nname = \"l{index}\"\naddress = {list}\nbacklog = {backlog}\nbuffer = \"{buffer}\"\nmax_bytes = \"{bytes}\"\n\
                     tcp = {{ nodelay = {nodelay}, user_timeout = {short}, keepalive = {{ count = {count} }}, {kernel} }}\n\
                     timeout = {{ idle = {long}, stall = {short} }}\n{beyond}{}",
                    // Not both: what is said in plain text is for those who speak it.
                    if beyond.contains("refusal") { "" } else { &tls }
                );
            }
            text
        },
    )
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>()) {
        let _ = parsed(&text).map_err(|error| (error.to_string(), error.render()));
    }

    #[test]
    fn nothing_made_of_toml_panics(text in r#"([a-z.]{1,9}|[\[\]{}=,."'#\n -]|listener|tcp|[0-9]{1,3}|true|1979-05-27){0,60}"#) {
        let _ = parsed(&text).map_err(|error| (error.to_string(), error.render()));
    }

    #[test]
    fn no_broken_file_panics_or_reaches_the_terminal(text in mutated()) {
        if let Err(error) = parsed(&text) {
            let shown = error.to_string() + &error.render();
            prop_assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
        }
    }

    #[test]
    fn what_is_printed_is_read_as_the_same(text in valid()) {
        let config = parsed(&text);
        prop_assert!(config.is_ok(), "{}\n{text}", config.unwrap_err().render());
        let config = config.unwrap();
        let printed = print(&config);
        prop_assert_eq!(parsed(&printed).unwrap(), config);
        prop_assert_eq!(print(&parsed(&printed).unwrap()), printed);
    }
}
