//! What the process may do: a user's name in, that user and no more out.
//!
//! `main` calls this when everything is bound that takes root, and before there is a second thread:
//! the kernel keeps these properties for each thread, and hands them down to new ones.
//!
//! Invariant: what was given up can't be had again.

use std::ffi::CString;

use caps::CapSet;
use caps::errors::CapsError;
use nix::sys::prctl::set_no_new_privs;
use nix::unistd::{User, geteuid, getuid, initgroups, setgid, setuid};
use thiserror::Error;

/// Why the process can't become another user.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum PrivilegeError {
    #[error("Must be root to switch users: start as root, or leave --user out")]
    NotRoot,
    #[error("there is no user \"{0}\"; create it or choose another with --user")]
    NoSuchUser(String),
    #[error(
        "cannot become user \"{name}\": {}; start as root with CAP_SETUID and CAP_SETGID, or leave \
         --user out",
        cause.desc()
    )]
    Switch { name: String, cause: nix::Error },
    #[error("cannot give root's capabilities up: {0}; start as an ordinary user, without --user")]
    Capabilities(#[from] CapsError),
}

/// Whether this process may become another user.
#[must_use]
pub fn is_root() -> bool {
    geteuid().is_root() || getuid().is_root()
}

/// Becomes another user, with that user's groups and without capabilities.
///
/// # Errors
/// `PrivilegeError`: not root, no such user, or the kernel's refusal.
pub fn switch_user(name: &str) -> Result<(), PrivilegeError> {
    if !is_root() {
        return Err(PrivilegeError::NotRoot);
    }
    let no_such_user = || PrivilegeError::NoSuchUser(name.to_owned());
    let user = User::from_name(name).ok().flatten().ok_or_else(no_such_user)?;
    let c_name = CString::new(name).map_err(|_| no_such_user())?;
    // While root may still do it. In a container root may not; then there is nothing to be had by
    // it either, as no new program is started with more than this one has.
    let _ = caps::clear(None, CapSet::Bounding);
    // Groups first: the new user may not change them.
    let switched = initgroups(&c_name, user.gid)
        .and_then(|()| setgid(user.gid))
        .and_then(|()| setuid(user.uid));
    switched.map_err(|cause| PrivilegeError::Switch { name: name.to_owned(), cause })?;
    if caps::runtime::ambient_set_supported().is_ok() {
        caps::clear(None, CapSet::Ambient)?;
    }
    // And the effective ones with them.
    caps::clear(None, CapSet::Permitted)?;
    caps::clear(None, CapSet::Inheritable)?;
    Ok(())
}

/// Keeps the process from getting more rights by starting a program.
pub fn keep_privileges_down() {
    // Every kernel that this runs on can.
    let _ = set_no_new_privs();
}
