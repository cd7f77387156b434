//! The names of all keys, and the nearest one to a name that is none.
//!
//! Asks the schema's own structs, so that no list has to be kept beside them. Pure.

use serde::de::{Deserialize, Deserializer, Error as _, Visitor, value};

use super::{compression, proxy, rate, schema, tls};

/// Longest unknown key that is compared: no known one is near to a longer.
const COMPARED_MAX: usize = 64;

/// Least likeness, by Jaro and Winkler, at which a known key is offered.
const LIKENESS_MIN: f64 = 0.8;

/// Tables that are written in one line, as the value of a key.
const INLINE: [&str; 4] = [
    "listener.tls.certificates",
    "listener.tcp.keepalive",
    "listener.source_prefix",
    "listener.rate.connections",
];

/// Every table: what is written in front of its keys, and its keys.
fn tables() -> [(&'static str, &'static [&'static str]); 15] {
    [
        ("", fields::<schema::File>()),
        ("log.", fields::<schema::Log>()),
        ("pressure.", fields::<schema::Pressure>()),
        ("listener.", fields::<schema::Listener>()),
        ("listener.source_prefix.", fields::<schema::SourcePrefix>()),
        ("listener.tls.", fields::<tls::Written>()),
        ("listener.tls.certificates.", fields::<tls::WrittenPair>()),
        ("listener.tcp.", fields::<schema::Tcp>()),
        ("listener.tcp.keepalive.", fields::<schema::Keepalive>()),
        ("listener.timeout.", fields::<schema::Timeout>()),
        ("listener.access.", fields::<schema::Access>()),
        ("listener.proxy_protocol.", fields::<proxy::Written>()),
        ("listener.compression.", fields::<compression::Written>()),
        ("listener.rate.", fields::<schema::Rate>()),
        ("listener.rate.connections.", fields::<rate::Connections>()),
    ]
}

/// Every key that a file may contain, as `listener.timeout.idle`; tables are none, but those that are
/// written as a value.
pub fn keys() -> Vec<String> {
    let tables = tables();
    let is_table = |key: &str| {
        let inner = format!("{key}.");
        !INLINE.contains(&key) && tables.iter().any(|(prefix, _)| *prefix == inner)
    };
    tables
        .iter()
        .flat_map(|(prefix, keys)| keys.iter().map(move |key| format!("{prefix}{key}")))
        .filter(|key| key != "defaults" && !is_table(key))
        .collect()
}

/// What to do about an unknown key in the table that `prefix` names.
pub(super) fn remedy(prefix: &str, unknown: &str) -> String {
    let tables = tables();
    let here = tables
        .iter()
        .find(|(name, _)| *name == prefix)
        .map_or(&[][..], |(_, keys)| keys);
    if let Some(near) = nearest(here, unknown) {
        return format!("did you mean \"{near}\"?");
    }
    // A known key under the wrong heading is the other common mistake.
    let homes: Vec<_> = tables
        .iter()
        .filter(|(_, keys)| keys.contains(&unknown))
        .map(|(name, _)| heading(name))
        .collect();
    if !homes.is_empty() {
        return format!("it belongs {}", homes.join(" or "));
    }
    let everywhere: Vec<_> = tables.iter().flat_map(|(_, keys)| *keys).copied().collect();
    match nearest(&everywhere, unknown) {
        Some(near) => format!("the nearest known key is \"{near}\""),
        None => "remove it; echod.toml(5) lists every key".into(),
    }
}

fn heading(prefix: &str) -> String {
    match prefix.trim_end_matches('.') {
        "" => "above the first [table]".into(),
        "listener" => "under [[listener]]".into(),
        name if INLINE.contains(&name) => {
            let key = name.rsplit('.').next().unwrap_or(name);
            format!("in {key} = {{ .. }}")
        }
        name => format!("under [{name}]"),
    }
}

fn nearest<'a>(known: &[&'a str], unknown: &str) -> Option<&'a str> {
    if unknown.len() > COMPARED_MAX {
        return None;
    }
    known
        .iter()
        .map(|key| (strsim::jaro_winkler(key, unknown), *key))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, key)| key)
}

/// The keys of a schema struct, as serde's derive hands them to a deserializer.
fn fields<T: for<'de> Deserialize<'de>>() -> &'static [&'static str] {
    let mut fields: &'static [&'static str] = &[];
    // Always an error: there is nothing to read, only something to overhear.
    let _ = T::deserialize(Overhear(&mut fields));
    fields
}

struct Overhear<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Overhear<'_> {
    type Error = value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(Self::Error::custom("nothing to read"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_known_by_its_whole_name() {
        let keys = keys();
        for key in [
            "workers",
            "log.empty",
            "listener.name",
            "listener.tcp.keepalive",
            "listener.tcp.keepalive.count",
            "listener.timeout.stall",
        ] {
            assert!(keys.iter().any(|known| known == key), "{key}");
        }
        for table in ["log", "defaults", "listener", "listener.tcp"] {
            assert!(!keys.iter().any(|known| known == table), "{table}");
        }
    }

    #[test]
    fn a_misspelt_key_is_told_its_neighbour() {
        assert_eq!(
            remedy("", "max_conections"),
            "did you mean \"max_connections\"?"
        );
        assert_eq!(
            remedy("listener.timeout.", "idel"),
            "did you mean \"idle\"?"
        );
    }

    #[test]
    fn a_key_under_the_wrong_heading_is_told_its_home() {
        assert_eq!(
            remedy("listener.", "nodelay"),
            "it belongs under [listener.tcp]"
        );
        assert_eq!(
            remedy("log.", "workers"),
            "it belongs above the first [table]"
        );
    }

    #[test]
    fn a_key_like_no_other_is_to_be_removed() {
        assert_eq!(
            remedy("", "zzz"),
            "remove it; echod.toml(5) lists every key"
        );
        assert!(remedy("", &"workers".repeat(100)).starts_with("remove it"));
    }
}
