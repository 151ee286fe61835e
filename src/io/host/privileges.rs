//! What the process may do: a user's name in, that user and no more out.
//!
//! `main` calls this when everything is bound that takes root.
//!
//! Invariant: what was given up can't be had again.

use nix::unistd::{User, setgid, setgroups, setuid};
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
}

/// Becomes another user and gives up root's groups.
///
/// # Errors
/// `PrivilegeError`: not root, no such user, or the kernel's refusal.
pub fn switch_user(name: &str) -> Result<(), PrivilegeError> {
    if !nix::unistd::geteuid().is_root() && !nix::unistd::getuid().is_root() {
        return Err(PrivilegeError::NotRoot);
    }
    let user = User::from_name(name).ok().flatten();
    let user = user.ok_or_else(|| PrivilegeError::NoSuchUser(name.to_owned()))?;
    // Groups first: the new user may not change them.
    let switched =
        setgroups(&[user.gid]).and_then(|()| setgid(user.gid)).and_then(|()| setuid(user.uid));
    switched.map_err(|cause| PrivilegeError::Switch { name: name.to_owned(), cause })
}
