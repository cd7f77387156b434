//! The kernel's reason in words, for the one line that an operator reads.
//!
//! The standard library adds `(os error 13)` to it, which tells nobody anything and stands where our
//! remedy belongs.

use std::io;

use nix::errno::Errno;

/// What went wrong, as strerror(3) has it, without a number.
pub fn cause(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_has_no_number() {
        let denied = io::Error::from_raw_os_error(nix::libc::EACCES);
        assert_eq!(cause(&denied), "Permission denied");
        assert_eq!(cause(&io::Error::other("odd")), "odd");
    }
}
