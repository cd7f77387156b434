//! Becomes the unprivileged user, then proves that there is no way back.
//!
//! Two steps: `resolve` looks the names up and refuses what may not be, while nothing has changed yet and
//! what needs root can still be done for the account (the control socket's group); `drop_to` then changes
//! the process: bounding set, groups, gid, uid, capabilities, `no_new_privs`. Call both before the first
//! thread, since capabilities belong to threads.
//!
//! Only what is not already so is set: in a sandbox even a call that would change nothing is refused. So
//! a refusal always means that something remains which should be gone, and it is fatal.
//!
//! Started as another user than root, the process stays that user and loses what capabilities it has.
//! With `allow_root` it may stay root by uid, because files of root's may be all that it is to read; it
//! loses every capability all the same, since nothing after the start needs one.

use std::collections::BTreeSet;
use std::ffi::CString;

use caps::errors::CapsError;
use caps::{CapSet, Capability};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::{
    Gid, Group, Uid, User, getgrouplist, getgroups, getresgid, getresuid, setgid, setgroups,
    setresgid, setresuid, setuid,
};

use crate::config::Objection;

/// The user that everybody has, for who starts us as root without a configuration and without installing.
const NOBODY: &str = "nobody";

/// Who the configuration wants us to be.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Key `user`.
    pub user: &'a str,
    /// Key `group`.
    pub group: &'a str,
    /// Key `allow_root`.
    pub allow_root: bool,
}

/// An account that exists and that we may become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its name; its number if it has no name.
    pub user: String,
    /// Its user.
    pub uid: Uid,
    /// Its group: the configured one.
    pub gid: Gid,
    /// All its groups, the configured one and its primary one among them.
    pub groups: Vec<Gid>,
    /// The configured user is missing and this is nobody instead.
    pub is_nobody_instead: bool,
}

/// Who we are from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Our user.
    pub uid: Uid,
    /// Our group.
    pub gid: Gid,
    /// Our user's name.
    pub user: String,
    /// The configured user is missing and we are nobody instead: worth a warning.
    pub became_nobody: bool,
    /// `allow_root` was used: worth a warning.
    pub still_root: bool,
}

/// Why we are not who we should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration names an account that is not there, or root without saying that it means it.
    #[error(transparent)]
    Account(#[from] Objection),

    /// The user database does not answer.
    #[error("{key}: cannot look up {name:?}: {}", source.desc())]
    Lookup {
        /// `user` or `group`.
        key: &'static str,
        /// Its value.
        name: String,
        /// What the C library said.
        source: Errno,
    },

    /// The kernel refused to take something from us.
    #[error("cannot drop privileges: {call}: {}", source.desc())]
    Refused {
        /// The system call.
        call: &'static str,
        /// What the kernel said.
        source: Errno,
    },

    /// The kernel refused to take capabilities from us, or to show them.
    #[error("cannot drop privileges: {set} capabilities: {source}")]
    Capabilities {
        /// Which set.
        set: &'static str,
        /// What was said.
        source: CapsError,
    },

    /// Everything was dropped, and something is still there.
    #[error("privileges were dropped and yet {what}: refusing to serve")]
    Remains {
        /// What is still there.
        what: String,
    },
}

impl Error {
    /// Is it the configuration that has to change, rather than the system?
    pub fn is_configuration(&self) -> bool {
        matches!(self, Error::Account(_))
    }
}

/// Who we shall be. Changes nothing. `fallback_nobody`: a missing user is no error, we become nobody,
/// and for a missing group the user's own will do; for the built-in default, which nobody wrote and
/// nobody can mend.
pub fn resolve(target: Target<'_>, fallback_nobody: bool) -> Result<Account, Error> {
    let own = getresuid().map_err(refused("getresuid"))?;
    if ![own.real, own.effective, own.saved].contains(&Uid::from_raw(0)) {
        return ourselves(own.effective);
    }
    let account = match find_user(target.user)? {
        Some(user) => {
            let gid = match find_group(target.group)? {
                Some(gid) => gid,
                None if fallback_nobody => user.gid,
                None => return Err(Objection::no_group(target.group).into()),
            };
            account(user, gid, false)?
        }
        None if fallback_nobody => {
            let user = find_user(NOBODY)?.ok_or_else(|| Objection::no_user(target.user))?;
            let gid = user.gid;
            account(user, gid, true)?
        }
        None => return Err(Objection::no_user(target.user).into()),
    };
    if target.allow_root {
        return Ok(account);
    }
    let root = |key, name| Err(Objection::root(key, name).into());
    match (account.uid.is_root(), account.gid.as_raw() == 0) {
        (true, _) => root("user", target.user),
        (false, true) => root("group", target.group),
        (false, false) => Ok(account),
    }
}

/// Becomes `account`, loses every capability and the means to gain one, and proves it.
pub fn drop_to(account: &Account) -> Result<Outcome, Error> {
    clear_bounding()?;
    change_ids(account)?;
    for (set, name) in [
        (CapSet::Ambient, "ambient"),
        (CapSet::Inheritable, "inheritable"),
        (CapSet::Permitted, "permitted"), // and with it the effective ones
    ] {
        if !is_empty(set, name)? {
            caps::clear(None, set).map_err(|source| Error::Capabilities { set: name, source })?;
        }
    }
    if !prctl::get_no_new_privs().map_err(refused("prctl(PR_GET_NO_NEW_PRIVS)"))? {
        prctl::set_no_new_privs().map_err(refused("prctl(PR_SET_NO_NEW_PRIVS)"))?;
    }
    prove(account)?;
    Ok(Outcome {
        uid: account.uid,
        gid: account.gid,
        user: account.user.clone(),
        became_nobody: account.is_nobody_instead,
        still_root: account.uid.is_root(),
    })
}

/// Without CAP_SETPCAP the bounding set is left as it is. It only bounds what an execve(2) may grant, and
/// with `no_new_privs` that is nothing. We never call it either.
fn clear_bounding() -> Result<(), Error> {
    let failed = |source| Error::Capabilities {
        set: "bounding",
        source,
    };
    let may = caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(failed)?;
    if may && !is_empty(CapSet::Bounding, "bounding")? {
        caps::clear(None, CapSet::Bounding).map_err(failed)?;
    }
    Ok(())
}

/// Groups first, then gid, then uid: each needs what the next one takes away.
fn change_ids(account: &Account) -> Result<(), Error> {
    let (uid, gid) = (account.uid, account.gid);
    if set_of(&own_groups()?) != set_of(&account.groups) {
        setgroups(&account.groups).map_err(refused("setgroups"))?;
    }
    if own_gids()? != [gid; 3] {
        setresgid(gid, gid, gid).map_err(refused("setresgid"))?;
    }
    if own_uids()? != [uid; 3] {
        setresuid(uid, uid, uid).map_err(refused("setresuid"))?;
    }
    Ok(())
}

/// Reads everything back, then tries to return.
fn prove(account: &Account) -> Result<(), Error> {
    let uids = own_uids()?;
    expect(uids == [account.uid; 3], || format!("the user is {uids:?}"))?;
    let gids = own_gids()?;
    expect(gids == [account.gid; 3], || {
        format!("the group is {gids:?}")
    })?;
    let groups = own_groups()?;
    expect(set_of(&groups) == set_of(&account.groups), || {
        format!("the groups are {groups:?}")
    })?;
    for (set, name) in [
        (CapSet::Ambient, "ambient"),
        (CapSet::Inheritable, "inheritable"),
        (CapSet::Permitted, "permitted"),
        (CapSet::Effective, "effective"),
    ] {
        expect(is_empty(set, name)?, || {
            format!("{name} capabilities are left")
        })?;
    }
    let none_new = prctl::get_no_new_privs().map_err(refused("prctl(PR_GET_NO_NEW_PRIVS)"))?;
    expect(none_new, || "no_new_privs is off".to_owned())?;
    if !account.uid.is_root() {
        let back = setuid(Uid::from_raw(0)).is_err();
        expect(back, || "setuid(0) succeeded".to_owned())?;
    }
    // With root's uid but without CAP_SETGID this is refused as well.
    if account.gid.as_raw() != 0 {
        let back = setgid(Gid::from_raw(0)).is_err();
        expect(back, || "setgid(0) succeeded".to_owned())?;
    }
    Ok(())
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Error> {
    if holds {
        return Ok(());
    }
    Err(Error::Remains { what: otherwise() })
}

fn is_empty(set: CapSet, name: &'static str) -> Result<bool, Error> {
    let held = caps::read(None, set);
    let held = held.map_err(|source| Error::Capabilities { set: name, source })?;
    Ok(held.is_empty())
}

/// Not started as root: nobody else to become.
fn ourselves(uid: Uid) -> Result<Account, Error> {
    // Without an entry in the user database, or with a database that does not answer, a number is name enough.
    let entry = User::from_uid(uid).ok().flatten();
    Ok(Account {
        user: entry.map_or_else(|| uid.to_string(), |user| user.name),
        uid,
        gid: getresgid().map_err(refused("getresgid"))?.effective,
        groups: own_groups()?,
        is_nobody_instead: false,
    })
}

fn account(user: User, gid: Gid, is_nobody_instead: bool) -> Result<Account, Error> {
    let lookup = |source| Error::Lookup {
        key: "user",
        name: user.name.clone(),
        source,
    };
    let name = CString::new(user.name.as_str()).map_err(|_| lookup(Errno::EINVAL))?;
    let mut groups = getgrouplist(&name, user.gid).map_err(lookup)?;
    if !groups.contains(&gid) {
        groups.push(gid);
    }
    Ok(Account {
        user: user.name,
        uid: user.uid,
        gid,
        groups,
        is_nobody_instead,
    })
}

fn find_user(name: &str) -> Result<Option<User>, Error> {
    User::from_name(name).map_err(|source| Error::Lookup {
        key: "user",
        name: name.to_owned(),
        source,
    })
}

fn find_group(name: &str) -> Result<Option<Gid>, Error> {
    let group = Group::from_name(name).map_err(|source| Error::Lookup {
        key: "group",
        name: name.to_owned(),
        source,
    })?;
    Ok(group.map(|group| group.gid))
}

fn refused(call: &'static str) -> impl Fn(Errno) -> Error {
    move |source| Error::Refused { call, source }
}

fn own_uids() -> Result<[Uid; 3], Error> {
    let own = getresuid().map_err(refused("getresuid"))?;
    Ok([own.real, own.effective, own.saved])
}

fn own_gids() -> Result<[Gid; 3], Error> {
    let own = getresgid().map_err(refused("getresgid"))?;
    Ok([own.real, own.effective, own.saved])
}

fn own_groups() -> Result<Vec<Gid>, Error> {
    getgroups().map_err(refused("getgroups"))
}

/// The kernel sorts groups as it likes.
fn set_of(groups: &[Gid]) -> BTreeSet<u32> {
    groups.iter().map(|group| group.as_raw()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_user_is_the_configurations_fault_and_comes_with_the_remedy() {
        let error = Error::from(Objection::no_user("echod"));
        assert!(error.is_configuration());
        assert_eq!(
            error.to_string(),
            "user: \"echod\": there is no such user (create it with systemd-sysusers or: useradd --system echod; or name another)"
        );
    }

    #[test]
    fn a_refused_call_is_not_the_configurations_fault() {
        let error = refused("setgroups")(Errno::EPERM);
        assert!(!error.is_configuration());
        assert_eq!(
            error.to_string(),
            "cannot drop privileges: setgroups: Operation not permitted"
        );
    }
}
