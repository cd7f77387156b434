//! Says which listener each handed socket belongs to, and what its socket unit decides instead of us.
//!
//! Pure: names and addresses in, indices and notes out, so a reload asks again with other listeners. A
//! socket that no listener claims is not closed: the service manager listens on it as well, and peers
//! would hang.

use std::fmt;
use std::net::SocketAddr;

use super::activation::NAMELESS;
use super::fixed::Fixed;
use crate::config::{BACKLOG, Listener};

/// The end of the name that systemd gives to the descriptors of a unit without `FileDescriptorName=`.
const UNIT_SUFFIX: &str = ".socket";

/// Which listener has which of the handed sockets, by index into what was given to [`assign`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// For each listener, in the order of the configuration, its sockets; empty: nothing was handed over
    /// for it.
    pub claimed: Vec<Vec<usize>>,
    /// Sockets that no listener claims.
    pub unclaimed: Vec<usize>,
    /// What the operator may not expect.
    pub notes: Vec<Note>,
}

/// Something that the socket unit decides and the configuration says differently. `Display` is one line
/// with the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The unit's socket listens somewhere else than the configuration says.
    AddressDiffers {
        /// The listener's name.
        listener: String,
        /// Where the unit listens.
        handed: Vec<SocketAddr>,
        /// What the configuration says.
        configured: Vec<SocketAddr>,
        /// The unit that very likely holds the socket.
        unit: String,
    },
    /// A key that was set and has no effect.
    KeyUnused {
        /// The listener's name.
        listener: String,
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What says the same in the unit.
        directive: &'static str,
        /// The unit that very likely holds the socket.
        unit: String,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::AddressDiffers {
                listener,
                handed,
                configured,
                unit,
            } => write!(
                f,
                "listener {listener:?}: the socket unit listens on {}, not on {} as configured (change it with: systemctl edit {unit})",
                Addresses(handed),
                Addresses(configured)
            ),
            Note::KeyUnused {
                listener,
                key,
                value,
                directive,
                unit,
            } => write!(
                f,
                "listener {listener:?}: {key} = {value} is unused, the socket unit decides it (set {directive} with: systemctl edit {unit})"
            ),
        }
    }
}

struct Addresses<'a>(&'a [SocketAddr]);

impl fmt::Display for Addresses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, address) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{address}")?;
        }
        Ok(())
    }
}

/// Gives each handed socket to the listener of its name.
pub fn assign(handed: &[(&str, SocketAddr)], listeners: &[Listener]) -> Assignment {
    let mut claimed = vec![Vec::new(); listeners.len()];
    let mut unclaimed = Vec::new();
    let lone = lone_name(handed, listeners);
    for (index, (name, _)) in handed.iter().enumerate() {
        let by_name = listeners.iter().position(|listener| listener.name == *name);
        match by_name.or((lone == Some(*name)).then_some(0)) {
            Some(listener) => claimed[listener].push(index),
            None => unclaimed.push(index),
        }
    }
    let mut notes = Vec::new();
    for (listener, sockets) in listeners.iter().zip(&claimed) {
        let sockets: Vec<_> = sockets.iter().map(|index| handed[*index]).collect();
        notes.extend(compare(listener, &sockets));
    }
    Assignment {
        claimed,
        unclaimed,
        notes,
    }
}

/// The name that says nothing and so may mean the only listener: there is no other choice. Two such
/// names are two units, and nobody can tell which is meant.
fn lone_name<'a>(handed: &[(&'a str, SocketAddr)], listeners: &[Listener]) -> Option<&'a str> {
    let [listener] = listeners else { return None };
    let names = handed.iter().map(|(name, _)| *name);
    let mut vague =
        names.filter(|name| (*name == NAMELESS || is_unit(name)) && *name != listener.name);
    let first = vague.next()?;
    vague.all(|name| name == first).then_some(first)
}

fn is_unit(name: &str) -> bool {
    name.ends_with(UNIT_SUFFIX)
}

/// What the socket unit decides for this listener although the configuration says something else.
fn compare(listener: &Listener, sockets: &[(&str, SocketAddr)]) -> Vec<Note> {
    let Some((name, _)) = sockets.first() else {
        return Vec::new();
    };
    let unit = if is_unit(name) { name } else { "echod.socket" };
    let mut notes = Vec::new();
    let mut handed: Vec<_> = sockets.iter().map(|(_, address)| *address).collect();
    let mut configured = listener.address.clone();
    for addresses in [&mut handed, &mut configured] {
        addresses.sort_unstable();
        addresses.dedup();
    }
    if handed != configured {
        notes.push(Note::AddressDiffers {
            listener: listener.name.clone(),
            handed,
            configured,
            unit: unit.to_owned(),
        });
    }
    // A value that was left alone is not worth a note.
    let unused = |key, value, directive| Note::KeyUnused {
        listener: listener.name.clone(),
        key,
        value,
        directive,
        unit: unit.to_owned(),
    };
    if listener.backlog != BACKLOG {
        notes.push(unused("backlog", listener.backlog.to_string(), "Backlog="));
    }
    let fixed = Fixed::of(&listener.tcp).into_set();
    notes.extend(fixed.map(|key| unused(key.name, key.value, key.directive)));
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::testing::listener;

    fn handed(sockets: &[(&'static str, &str)]) -> Vec<(&'static str, SocketAddr)> {
        let address = |text: &str| text.parse().expect("an address");
        let pair = |(name, text): &(&'static str, &str)| (*name, address(text));
        sockets.iter().map(pair).collect()
    }

    #[test]
    fn several_sockets_of_one_name_go_to_one_listener() {
        let sockets = handed(&[
            ("echo", "0.0.0.0:8080"),
            ("far", "[::]:7"),
            ("echo", "[::]:8080"),
        ]);
        let listeners = [
            listener("echo", &["[::]:8080", "0.0.0.0:8080"]),
            listener("far", &["[::]:7"]),
            listener("ours", &["[::]:9"]),
        ];
        let assignment = assign(&sockets, &listeners);
        assert_eq!(assignment.claimed, [vec![0, 2], vec![1], vec![]]);
        assert_eq!(assignment.unclaimed, [0; 0]);
        assert_eq!(assignment.notes, []);
    }

    #[test]
    fn a_lone_name_that_says_nothing_means_the_single_listener() {
        let one = [listener("echo", &["[::]:8080"])];
        for name in ["unknown", "echod.socket"] {
            let sockets = handed(&[(name, "[::]:8080"), (name, "[::]:8080")]);
            assert_eq!(assign(&sockets, &one).claimed, [[0, 1]]);
        }
    }

    #[test]
    fn a_name_that_says_nothing_is_unclaimed_when_it_could_mean_several() {
        let two = [
            listener("echo", &["[::]:8080"]),
            listener("far", &["[::]:7"]),
        ];
        let sockets = handed(&[("unknown", "[::]:8080")]);
        assert_eq!(assign(&sockets, &two).unclaimed, [0]);

        let sockets = handed(&[("a.socket", "[::]:8080"), ("unknown", "[::]:7")]);
        assert_eq!(assign(&sockets, &two[..1]).unclaimed, [0, 1]);
    }

    #[test]
    fn another_listeners_name_is_never_claimed() {
        let sockets = handed(&[("far", "[::]:8080")]);
        let assignment = assign(&sockets, &[listener("echo", &["[::]:8080"])]);
        assert_eq!(assignment.unclaimed, [0]);
        assert_eq!(assignment.claimed, [[0; 0]]);
    }

    #[test]
    fn an_address_that_differs_is_noted_with_both_values_and_the_command() {
        let sockets = handed(&[("echo", "[::]:8080")]);
        let notes = assign(&sockets, &[listener("echo", &["127.0.0.1:7", "[::1]:7"])]).notes;
        assert_eq!(notes.len(), 1);
        assert_eq!(
            notes[0].to_string(),
            "listener \"echo\": the socket unit listens on [::]:8080, not on 127.0.0.1:7, [::1]:7 as configured (change it with: systemctl edit echod.socket)"
        );
    }

    #[test]
    fn a_backlog_that_was_set_is_noted_as_unused() {
        let mut configured = listener("echo", &["[::]:8080"]);
        configured.backlog = 16;
        let notes = assign(
            &handed(&[("far.socket", "[::]:8080")]),
            &[configured.clone()],
        )
        .notes;
        assert_eq!(
            notes[0].to_string(),
            "listener \"echo\": backlog = 16 is unused, the socket unit decides it (set Backlog= with: systemctl edit far.socket)"
        );
        assert_eq!(
            assign(&[], &[configured]).notes,
            [],
            "bound by us: it counts"
        );
    }

    #[test]
    fn each_key_that_is_fixed_at_bind_is_noted_with_its_directive() {
        let mut configured = listener("echo", &["[::]:8080"]);
        let tcp = &mut configured.tcp;
        tcp.interface = Some("lo".to_owned());
        (tcp.freebind, tcp.v6only, tcp.reuse_port) = (true, true, true);
        tcp.multipath = true;
        let notes = assign(&handed(&[("echo", "[::]:8080")]), &[configured.clone()]).notes;
        let said = |key: &str, directive: &str| {
            format!(
                "listener \"echo\": tcp.{key} is unused, the socket unit decides it (set {directive} with: systemctl edit echod.socket)"
            )
        };
        let notes: Vec<_> = notes.iter().map(ToString::to_string).collect();
        assert_eq!(
            notes,
            [
                said("interface = \"lo\"", "BindToDevice="),
                said("freebind = true", "FreeBind="),
                said("v6only = true", "BindIPv6Only="),
                said("reuse_port = true", "ReusePort="),
                said("multipath = true", "SocketProtocol=mptcp"),
            ]
        );
        assert_eq!(assign(&[], &[configured]).notes, []);
    }
}
