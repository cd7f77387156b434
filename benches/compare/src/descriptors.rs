//! How many descriptors this process may have: as many as it can get.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft bound to the hard one, and answers what it is now. A process that is started later
/// inherits it.
pub fn raise() -> io::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}
