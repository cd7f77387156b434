//! As root: the user is changed and cannot be changed back.
//!
//! What is dropped is gone for good, so each test runs this program again and drops in that process: the
//! same test, with a variable set that makes it the one to do the work. The user `nobody` is borrowed.

use std::env;
use std::io::{self, Write};
use std::process::{Command, Output};
use std::thread;

use caps::{CapSet, Capability};
use echod::privilege::{Error, Outcome, Target, drop_to, resolve};
use nix::sys::prctl;
use nix::unistd::{
    Gid, Uid, User, geteuid, getgroups, getresgid, getresuid, setgroups, setresgid, setresuid,
};

/// Set in the process that is to drop its privileges.
const CHILD: &str = "ECHOD_TEST_DROPS_PRIVILEGES";

/// The child says it last: a test program that found no test to run ends well, too.
const DONE: &str = "the child came to its end";

const SETS: [CapSet; 5] = [
    CapSet::Ambient,
    CapSet::Inheritable,
    CapSet::Permitted,
    CapSet::Effective,
    CapSet::Bounding,
];

/// Runs `work` as root in a process of its own.
fn as_root(test: &str, work: impl FnOnce()) {
    as_root_without(None, test, work);
}

/// The same, for a root that lacks a capability.
fn as_root_without(missing: Option<Capability>, test: &str, work: impl FnOnce()) {
    if env::var_os(CHILD).is_some() {
        work();
        println!("{DONE}");
        return;
    }
    if !geteuid().is_root() {
        let demanded = env::var_os("CI").is_some_and(|value| value == "true");
        assert!(!demanded, "CI=true, and this test needs root");
        // Not eprintln, which the test runner swallows when a test succeeds.
        let line = format!("{test}: not run, because it needs root\n");
        io::stderr().write_all(line.as_bytes()).expect("say so");
        return;
    }
    let output = again(missing, test);
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains(DONE),
        "{text}{errors}"
    );
}

/// What is taken from the bounding set of this thread, the new process never has in any of its threads:
/// the C library ends a process whose threads disagree on setresuid.
fn again(missing: Option<Capability>, test: &str) -> Output {
    thread::scope(|scope| {
        let started = scope.spawn(|| {
            if let Some(capability) = missing {
                caps::drop(None, CapSet::Bounding, capability).expect("drop");
            }
            Command::new(env::current_exe().expect("this program"))
                .args(["--exact", test, "--nocapture"])
                .env(CHILD, "1")
                .output()
        });
        started.join().expect("no panic").expect("run")
    })
}

fn nobody() -> User {
    let user = User::from_name("nobody").expect("a user database");
    user.expect("a user nobody")
}

fn group_of(user: &User) -> String {
    let group = nix::unistd::Group::from_gid(user.gid).expect("a group database");
    group.expect("nobody's group").name
}

fn drop_to_nobody() -> Result<Outcome, Error> {
    let group = group_of(&nobody());
    let target = Target {
        user: "nobody",
        group: &group,
        allow_root: false,
    };
    drop_to(&resolve(target, false)?)
}

fn assert_no_way_back() {
    let uid = getresuid().expect("read");
    assert_eq!([uid.real, uid.effective, uid.saved], [nobody().uid; 3]);
    let gid = getresgid().expect("read");
    assert_eq!([gid.real, gid.effective, gid.saved], [nobody().gid; 3]);
    let root = Uid::from_raw(0);
    assert!(setresuid(root, root, root).is_err());
    assert!(setgroups(&[Gid::from_raw(0)]).is_err());
    for set in &SETS[..4] {
        assert!(caps::read(None, *set).expect("read").is_empty(), "{set:?}");
    }
    assert!(prctl::get_no_new_privs().expect("read"));
}

#[test]
fn root_becomes_the_user_and_cannot_return() {
    as_root("root_becomes_the_user_and_cannot_return", || {
        setgroups(&[0, 4, 54321].map(Gid::from_raw)).expect("groups to lose");
        let outcome = drop_to_nobody().expect("dropped");
        assert_no_way_back();
        assert_eq!(getgroups().expect("read"), [nobody().gid]);
        let bounding = caps::read(None, CapSet::Bounding).expect("read");
        assert!(bounding.is_empty());
        assert_eq!((outcome.uid, outcome.gid), (nobody().uid, nobody().gid));
        assert_eq!(outcome.user, "nobody");
        assert!(!outcome.became_nobody && !outcome.still_root);
    });
}

#[test]
fn what_is_already_so_is_not_set_again() {
    // The second time each of these calls would be refused, even without changing anything.
    as_root("what_is_already_so_is_not_set_again", || {
        drop_to_nobody().expect("dropped");
        assert!(setgroups(&[nobody().gid]).is_err());
        drop_to_nobody().expect("nothing to drop");
        assert_no_way_back();
    });
}

#[test]
fn another_user_than_root_stays_and_loses_its_capabilities() {
    as_root(
        "another_user_than_root_stays_and_loses_its_capabilities",
        || {
            let (user, capability) = (nobody(), Capability::CAP_NET_BIND_SERVICE);
            setgroups(&[user.gid]).expect("groups");
            setresgid(user.gid, user.gid, user.gid).expect("gid");
            caps::securebits::set_keepcaps(true).expect("keep");
            setresuid(user.uid, user.uid, user.uid).expect("uid");
            for set in [CapSet::Inheritable, CapSet::Ambient, CapSet::Effective] {
                caps::raise(None, set, capability).expect("raise");
            }
            let target = Target {
                user: "no-such-user",
                group: "no-such-group",
                allow_root: false,
            };
            let account = resolve(target, false).expect("nobody else to become");
            let outcome = drop_to(&account).expect("dropped");
            assert_eq!(outcome.uid, user.uid);
            assert_no_way_back();
        },
    );
}

#[test]
fn the_bounding_set_may_stay_where_it_cannot_be_cleared() {
    let test = "the_bounding_set_may_stay_where_it_cannot_be_cleared";
    as_root_without(Some(Capability::CAP_SETPCAP), test, || {
        drop_to_nobody().expect("dropped");
        assert_no_way_back();
        let bounding = caps::read(None, CapSet::Bounding).expect("read");
        assert!(!bounding.is_empty());
    });
}

#[test]
fn root_that_cannot_change_its_user_does_not_go_on() {
    let test = "root_that_cannot_change_its_user_does_not_go_on";
    as_root_without(Some(Capability::CAP_SETUID), test, || {
        let error = drop_to_nobody().expect_err("still root");
        let line = error.to_string();
        assert_eq!(
            line,
            "cannot drop privileges: setresuid: Operation not permitted"
        );
    });
}

#[test]
fn a_missing_user_or_group_is_refused_by_name() {
    as_root("a_missing_user_or_group_is_refused_by_name", || {
        let mut target = Target {
            user: "no-such-user",
            group: "no-such-group",
            allow_root: false,
        };
        let error = resolve(target, false).expect_err("no such user");
        assert!(
            matches!(&error, Error::Account(it) if it.key == "user") && error.is_configuration()
        );
        target.user = "nobody";
        let error = resolve(target, false).expect_err("no such group");
        assert!(
            matches!(&error, Error::Account(it) if it.key == "group") && error.is_configuration()
        );
    });
}

#[test]
fn without_a_configuration_a_missing_user_means_nobody() {
    as_root(
        "without_a_configuration_a_missing_user_means_nobody",
        || {
            let target = Target {
                user: "no-such-user",
                group: "no-such-group",
                allow_root: false,
            };
            let account = resolve(target, true).expect("nobody");
            let outcome = drop_to(&account).expect("dropped");
            assert!(outcome.became_nobody);
            assert_eq!(outcome.user, "nobody");
            assert_no_way_back();
        },
    );
}

#[test]
fn without_a_configuration_a_missing_group_means_the_users_own() {
    as_root(
        "without_a_configuration_a_missing_group_means_the_users_own",
        || {
            let target = Target {
                user: "nobody",
                group: "no-such-group",
                allow_root: false,
            };
            let account = resolve(target, true).expect("nobody's own group");
            assert_eq!(account.gid, nobody().gid);
            assert!(!account.is_nobody_instead);
        },
    );
}

#[test]
fn root_is_refused_unless_it_is_meant() {
    as_root("root_is_refused_unless_it_is_meant", || {
        let group = group_of(&nobody());
        let refused = |user, group, key| {
            let target = Target {
                user,
                group,
                allow_root: false,
            };
            let error = resolve(target, true).expect_err("root");
            assert!(error.is_configuration());
            assert!(error.to_string().starts_with(key), "{error}");
        };
        refused("root", &group, "user: ");
        refused("nobody", "root", "group: ");
    });
}

#[test]
fn root_that_is_meant_keeps_its_uid_and_no_capability() {
    as_root("root_that_is_meant_keeps_its_uid_and_no_capability", || {
        let target = Target {
            user: "root",
            group: "root",
            allow_root: true,
        };
        let account = resolve(target, false).expect("root");
        let outcome = drop_to(&account).expect("dropped");
        assert!(outcome.still_root && outcome.uid.is_root());
        for set in SETS {
            assert!(caps::read(None, set).expect("read").is_empty(), "{set:?}");
        }
        assert!(prctl::get_no_new_privs().expect("read"));
    });
}
