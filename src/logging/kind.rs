//! The kinds of event in the daemon's life: each with its level, its words and its `MESSAGE_ID`.
//!
//! A kind is decided on before anything is formatted, so it holds all that a filter asks for. Its
//! `message_id` is what catalogues and `journalctl MESSAGE_ID=` match: drawn at random once, and never
//! changed or given to another kind, not even after the kind is gone.

use crate::config::Level;

/// What sort of thing happened.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// One word for it, for machines.
    pub name: &'static str,
    /// The journal's `MESSAGE_ID`.
    pub message_id: u128,
    /// How much somebody needs to know of it.
    pub level: Level,
    /// What the line begins with; empty where the event's detail says it all.
    pub text: &'static str,
    /// The process ends because of it, so that standard error hears of it as well.
    pub fatal: bool,
}

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $name:ident = $word:literal, $level:ident, $fatal:literal, $id:literal, $text:literal;)+) => {
        $(
            $(#[doc = $doc])+
            pub static $name: Kind = Kind {
                name: $word,
                message_id: $id,
                level: Level::$level,
                text: $text,
                fatal: $fatal,
            };
        )+

        /// All kinds, in the order of a daemon's life.
        pub static ALL: &[&Kind] = &[$(&$name),+];
    };
}

kinds! {
    /// A socket of ours takes connections.
    LISTENING = "listening", Info, false, 0xee14922b_dc9d43fd_8e45ffac_e5352d48, "listening";
    /// Everything is set up, and the service manager was told.
    READY = "ready", Info, false, 0xaf9e6623_08874046_a050aca3_9d46077f, "ready";
    /// The unprivileged user was become, with no way back.
    PRIVILEGES_DROPPED = "privileges_dropped", Info, false, 0x6871ef7e_4d5043ca_bbaa3c5a_dd736722, "privileges dropped";
    /// `allow_root` was asked for, and used.
    SERVING_AS_ROOT = "serving_as_root", Warning, false, 0x750bdbee_f71f4e43_9456025c_7b591b50, "serving as root although that is never needed";
    /// The user of the built-in default does not exist here.
    DEFAULT_USER = "default_user", Info, false, 0xd8013463_d8134dc4_9632e7ac_c468c690, "no such user, serving as nobody";
    /// How the workers reach the kernel; with a cause where the configuration would have liked another.
    ENGINE = "engine", Info, false, 0xc50b9992_ac7c462b_a8436fe2_bdffa7c7, "engine";
    /// A configuration was read again and taken whole.
    RELOAD_ADOPTED = "reload_adopted", Info, false, 0x38530033_75524c9f_ace84cd7_365d0f50, "reload adopted";
    /// One key that the reload changed, and what becomes of it.
    RELOAD_CHANGED = "reload_changed", Info, false, 0x41dd1d92_021f4ce7_9ae3df3f_2903382f, "reload changed";
    /// A configuration was read again and nothing of it was taken.
    RELOAD_REFUSED = "reload_refused", Error, false, 0xb2f63cc0_ad4044f8_b6102cfc_6ecca525, "reload refused, serving as before";
    /// A reload took a listener away.
    LISTENER_REMOVED = "listener_removed", Info, false, 0x603ca3f0_ac6a4f7b_955d17cf_3fabca68, "listener removed";
    /// How to try what was started without a configuration.
    HINT = "hint", Info, false, 0x3f1d9c52_7b0e4c68_9a4d21e7_c05b8f36, "no configuration";
    /// No more connections; those that are here may end.
    DRAINING = "draining", Info, false, 0x64dabc4d_dfcb4168_9fb86e8c_7d46fe63, "draining";
    /// The last connection ended by itself.
    STOPPED = "stopped", Info, false, 0x7d7eb806_812c47f2_b5d8efd5_4f400a49, "stopped";
    /// Connections were left when the time was over.
    STOPPED_CUT = "stopped_cut", Warning, false, 0x37a2ffa9_e3b948c2_8995c114_f779f34b, "stopped, connections were cut";
    /// Somebody was not willing to wait for the drain.
    SECOND_SIGNAL = "second_signal", Warning, false, 0x97d5baad_69124fef_9b221c56_44d30a99, "second signal, stopping at once";
    /// Peers wait in the kernel's queue.
    ACCEPT_PAUSED = "accept_paused", Warning, false, 0xe47d3430_db094fe7_b11d1efc_ef74f0f1, "accept paused";
    /// Peers are refused; said for each bound at most once a minute.
    BOUND_REACHED = "bound_reached", Warning, false, 0x12fab41b_e93d4881_9a27f135_cf4dd256, "bound reached, refusing";
    /// There are so many connections that `[pressure]` holds.
    PRESSURE_BEGAN = "pressure_began", Warning, false, 0x8aa59285_8f304411_a645a01b_158b2f88, "pressure began, stricter limits hold";
    /// There are fewer again.
    PRESSURE_ENDED = "pressure_ended", Info, false, 0xfcd09bda_7a834c76_b8a84eb9_1c437ea4, "pressure ended";
    /// A socket was handed over under a name that no listener has.
    SOCKET_UNCLAIMED = "socket_unclaimed", Warning, false, 0x155df13f_b1fc447e_8f917086_27d11796, "no listener claims this socket, its peers are reset";
    /// The socket unit and the file disagree.
    ADDRESS_DIFFERS = "address_differs", Warning, false, 0xf61807a3_17294709_a99bd284_34afd5b8, "the socket handed over has another address than its listener";
    /// The file says what the socket unit decides.
    KEYS_UNUSED = "keys_unused", Warning, false, 0x9103b1a6_882f4095_ab5afe4b_da601b49, "keys unused, the socket unit owns them";
    /// A certificate is not valid, or soon will not be; said at each load, and when it comes to that.
    CERTIFICATE_EXPIRES = "certificate_expires", Warning, false, 0x7753557c_6c24464b_af14910e_1e49787b, "certificate";
    /// A reload does not read again what systemd handed over at the start.
    CREDENTIAL_KEPT = "credential_kept", Info, false, 0xab4e3d47_23e648a6_802858de_a76176cf, "credential";
    /// A default address was left out.
    IPV6_SKIPPED = "ipv6_skipped", Info, false, 0x0a26b834_80cb42f2_b01552da_932ef742, "no IPv6 here, address skipped";
    /// `echod reload` will not reach this daemon.
    CONTROL_UNAVAILABLE = "control_unavailable", Warning, false, 0x08fa3e66_a87746b5_af6c8f29_2517e106, "control socket unavailable";
    /// A worker does not come round, so the service manager is not told that all is well.
    WORKER_HANGS = "worker_hangs", Error, false, 0x348eac36_4d3d4da3_bc7166c8_0741ea42, "a worker hangs, watchdog withheld";
    /// A peer came in.
    CONNECTION_STARTED = "connection_started", Info, false, 0xafa6d629_fe904700_a78a1b42_6d60f439, "connection started";
    /// A peer left, was ended or was refused: its record.
    CONNECTION_ENDED = "connection_ended", Info, false, 0x6bd9f10e_a8e14e64_bc074d25_440ea341, "connection ended";
    /// The record of a peer that sent nothing and left: port scans and health checks.
    CONNECTION_EMPTY = "connection_empty", Debug, false, 0xab6b0ff0_5222489a_a538ef8f_52a6a721, "connection ended";
    /// Records above `record_rate`, counted.
    RECORD_SUMMARY = "record_summary", Info, false, 0xcfd3ff8c_d68e4056_9ee80a37_0ad1d9be, "connections ended, not recorded one by one";
    /// The log's receiver was slower than what there was to say, or away.
    LOG_DROPPED = "log_dropped", Warning, false, 0x9519f209_acec4d07_b3711e16_57f2d2da, "log records dropped";
    /// Nobody took the very first line. Standard error alone hears of it.
    LOG_AWAY = "log_away", Warning, false, 0x5c2e7a91_48d04b3f_8e17d62a_f0934c5b, "nobody takes the log, its lines are lost until somebody does (set log.target, or start the log daemon)";
    /// The service manager does not take what it is told; said once until it does.
    MANAGER_DEAF = "manager_deaf", Warning, false, 0x9b64d0e8_27af4c15_b3d80e76_1ac25f49, "the service manager does not listen";
    /// The kernel refused something that should have worked; the daemon goes on.
    INTERNAL = "internal", Error, false, 0x36a30391_52fe4fe5_a2df3e76_068e36ac, "internal error";
    /// The configuration is wrong; the detail is the whole line.
    START_REFUSED = "start_refused", Error, true, 0x7a425a1c_84964a9a_aef87c26_6e69610a, "";
    /// The daemon cannot go on; the detail is the whole line.
    FATAL = "fatal", Error, true, 0xc0486195_28e64642_92647847_8b5b36cf, "";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_kind_has_a_name_and_an_id_of_its_own() {
        let names: HashSet<_> = ALL.iter().map(|kind| kind.name).collect();
        let ids: HashSet<_> = ALL.iter().map(|kind| kind.message_id).collect();
        assert_eq!(names.len(), ALL.len());
        assert_eq!(ids.len(), ALL.len());
    }

    #[test]
    fn what_ends_the_process_is_an_error_and_only_that_may_have_no_words() {
        for kind in ALL {
            assert!(!kind.fatal || kind.level == Level::Error, "{}", kind.name);
            assert!(kind.fatal || !kind.text.is_empty(), "{}", kind.name);
        }
    }

    #[test]
    fn an_id_is_a_random_uuid_as_the_journal_wants_it() {
        for kind in ALL {
            assert_eq!(kind.message_id >> 76 & 0xf, 4, "{}: version", kind.name);
            assert_eq!(kind.message_id >> 62 & 0b11, 0b10, "{}: variant", kind.name);
        }
    }
}
