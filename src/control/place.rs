//! The control socket's place in the file system: takes it, and gives it back.
//!
//! A socket that a dead daemon left is replaced, one that answers is never stolen, and a file that is no
//! socket is left alone. The directory may belong to the user that we become, so nothing here follows a
//! symbolic link that this user could have put there.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown, lchown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use nix::unistd::{Gid, Uid};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{Error, MAX_CLIENTS, socket_in};

/// Root and our group; nobody else.
const MODE: Mode = Mode::from_bits_truncate(0o660);

/// Clients that the kernel holds until we look: as many again as we serve.
#[allow(clippy::cast_possible_truncation, reason = "eight")]
const BACKLOG: i32 = MAX_CLIENTS as i32;

/// The listening socket and its file, which goes when this goes.
#[derive(Debug)]
pub(super) struct Place {
    listener: UnixListener,
    path: PathBuf,
    inode: (u64, u64),
}

impl Place {
    /// Listens in `directory`, for root and for `owner`'s group.
    pub(super) fn take(directory: &Path, owner: Option<(Uid, Gid)>) -> Result<Place, Error> {
        make_directory(directory, owner).map_err(|source| Error::Directory {
            path: directory.to_owned(),
            source,
        })?;
        let path = socket_in(directory);
        let failed = |source| Error::Listen {
            path: path.clone(),
            source,
        };
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        let address = SockAddr::unix(&path).map_err(failed)?;
        if let Err(error) = socket.bind(&address) {
            if error.kind() != io::ErrorKind::AddrInUse {
                return Err(failed(error));
            }
            remove_stale(&path, &address)?;
            socket.bind(&address).map_err(failed)?;
        }
        // Nobody can connect before listen(2): so the mode is right before anybody tries.
        if let Some((_, group)) = owner {
            // Not permitted unless we are root; then it is our own group's already.
            let _ = lchown(&path, None, Some(group.as_raw()));
        }
        let no_link = FchmodatFlags::NoFollowSymlink;
        fchmodat(AT_FDCWD, &path, MODE, no_link).map_err(|error| failed(error.into()))?;
        socket.listen(BACKLOG).map_err(failed)?;
        let inode = inode_of(&path).map_err(failed)?;
        let listener = UnixListener::from(OwnedFd::from(socket));
        Ok(Place {
            listener,
            path,
            inode,
        })
    }

    /// The listening socket; it does not block.
    pub(super) fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

/// A later daemon may have taken the place meanwhile; its socket is not ours to remove. And as another
/// user we may not be permitted to: then the file stays, and the next daemon finds it stale.
impl Drop for Place {
    fn drop(&mut self) {
        if inode_of(&self.path).is_ok_and(|inode| inode == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Only the last component is made; what is there is left as it is.
fn make_directory(directory: &Path, owner: Option<(Uid, Gid)>) -> io::Result<()> {
    match DirBuilder::new().mode(0o755).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        result => result?,
    }
    // Whatever the umask took away; commands of other users must get as far as the socket.
    fs::set_permissions(directory, Permissions::from_mode(0o755))?;
    if let Some((user, group)) = owner {
        // So that the socket can be removed when we are that user. Not permitted unless we are root.
        let _ = chown(directory, Some(user.as_raw()), Some(group.as_raw()));
    }
    Ok(())
}

/// Removes what is in the way if it is a socket and nobody listens on it.
fn remove_stale(path: &Path, address: &SockAddr) -> Result<(), Error> {
    let failed = |source| Error::Listen {
        path: path.to_owned(),
        source,
    };
    let in_use = || io::Error::from_raw_os_error(nix::libc::EADDRINUSE);
    let what = fs::symlink_metadata(path).map_err(failed)?;
    if !what.file_type().is_socket() {
        return Err(failed(in_use()));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    probe.set_nonblocking(true).map_err(failed)?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()), // it went by itself
        // A full queue has somebody behind it, too.
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(failed(error)),
        _ => Err(Error::Taken {
            path: path.to_owned(),
        }),
    }
}

fn inode_of(path: &Path) -> io::Result<(u64, u64)> {
    let what = fs::symlink_metadata(path)?;
    Ok((what.dev(), what.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_missing_directory_is_made_and_the_socket_is_for_the_group_alone() {
        let parent = tempfile::tempdir().expect("a directory");
        let directory = parent.path().join("echod");
        let _place = Place::take(&directory, None).expect("taken");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o7777;
        assert_eq!(mode(&directory), 0o755);
        assert_eq!(mode(&socket_in(&directory)), 0o660);
    }

    #[test]
    fn root_gives_the_directory_to_the_user_and_the_socket_to_the_group() {
        if !nix::unistd::geteuid().is_root() {
            let demanded = std::env::var_os("CI").is_some_and(|value| value == "true");
            assert!(!demanded, "CI=true, and this test needs root");
            return;
        }
        let parent = tempfile::tempdir().expect("a directory");
        let directory = parent.path().join("echod");
        let owner = (Uid::from_raw(65534), Gid::from_raw(65534));
        let _place = Place::take(&directory, Some(owner)).expect("taken");
        let owner_of = |path: &Path| {
            let what = fs::metadata(path).expect("there");
            (what.uid(), what.gid())
        };
        assert_eq!(owner_of(&directory), (65534, 65534));
        assert_eq!(owner_of(&socket_in(&directory)), (0, 65534));
    }

    #[test]
    fn only_the_last_directory_is_made() {
        let parent = tempfile::tempdir().expect("a directory");
        let error = Place::take(&parent.path().join("a/b"), None).expect_err("no parent");
        assert!(matches!(error, Error::Directory { .. }));
    }

    #[test]
    fn a_dead_daemons_socket_is_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = socket_in(directory.path());
        drop(UnixListener::bind(&path).expect("bind")); // its file stays
        let _place = Place::take(directory.path(), None).expect("taken");
        UnixStream::connect(&path).expect("somebody listens");
    }

    #[test]
    fn a_living_daemons_socket_is_not_stolen() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = Place::take(directory.path(), None).expect("taken");
        let error = Place::take(directory.path(), None).expect_err("taken already");
        assert!(matches!(error, Error::Taken { .. }));
        UnixStream::connect(&first.path).expect("the first still listens");
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = socket_in(directory.path());
        fs::write(&path, "precious").expect("write");
        let error = Place::take(directory.path(), None).expect_err("in the way");
        assert!(matches!(error, Error::Listen { .. }));
        assert_eq!(fs::read(&path).expect("there"), b"precious");

        fs::remove_file(&path).expect("remove");
        std::os::unix::fs::symlink("/nonexistent/victim", &path).expect("link");
        let error = Place::take(directory.path(), None).expect_err("in the way");
        assert!(matches!(error, Error::Listen { .. }));
    }

    #[test]
    fn the_socket_goes_with_its_daemon_unless_it_is_anothers() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = socket_in(directory.path());
        drop(Place::take(directory.path(), None).expect("taken"));
        assert!(!path.exists());

        let place = Place::take(directory.path(), None).expect("taken");
        // Beside the old one, so that its inode is another for certain.
        let other = directory.path().join("other");
        let _later = UnixListener::bind(&other).expect("bind");
        fs::rename(&other, &path).expect("replace");
        drop(place);
        assert!(path.exists());
    }
}
