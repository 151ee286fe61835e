//! Starts a command: everything about the new process in, its group out.
//!
//! The one module with unsafe code. The child shares the manager's memory until it runs the command
//! (as with vfork(2)), so it only makes system calls, on what was prepared before.
//!
//! Invariant: the child leads a group of its own that the guard knows before the command runs.

use std::ffi::CString;
use std::os::fd::BorrowedFd;

use nix::unistd::{Gid, Uid};
use thiserror::Error;

use super::group::Group;
use super::guard::Guard;
use crate::config::Worker;

/// The user and the groups that a process runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub user: Uid,
    /// Group.
    pub group: Gid,
    /// Further groups of the user.
    pub groups: Vec<Gid>,
}

/// A command, ready to be started again and again.
#[derive(Clone, Debug)]
pub struct Launch {
    _argv: Vec<CString>,
    _environment: Vec<CString>,
    _identity: Option<Identity>,
}

/// Why a command couldn't be started.
#[derive(Clone, Debug, Error)]
#[error("cannot start {program}: {cause}; {remedy}")]
pub struct LaunchError {
    /// The program, as the file names it.
    pub program: String,
    /// What the kernel said.
    pub cause: nix::Error,
    /// What to do about it.
    pub remedy: &'static str,
}

/// The descriptors of a new process: what becomes standard input, output and error and 3. `None` is
/// /dev/null for the first three, and closed for the last.
#[derive(Clone, Copy, Debug, Default)]
pub struct Descriptors<'a> {
    /// Standard input.
    pub input: Option<BorrowedFd<'a>>,
    /// Standard output.
    pub output: Option<BorrowedFd<'a>>,
    /// Standard error.
    pub error: Option<BorrowedFd<'a>>,
    /// Descriptor 3, for WORK_STATUS.
    pub status: Option<BorrowedFd<'a>>,
}

impl Launch {
    /// Prepares a worker's command; looks up its user and groups, and its program in the PATH that
    /// the process will have.
    ///
    /// # Errors
    /// If the user or group doesn't exist.
    pub fn prepare(_worker: &Worker, _variables: &[(&str, &str)]) -> Result<Self, String> {
        Err(String::new())
    }

    /// Starts the command with further environment variables (`NAME=value`).
    ///
    /// # Errors
    /// `LaunchError` with what the kernel said: no such program, no permission, no room.
    pub fn start(
        &self,
        guard: &Guard,
        _further: &[CString],
        _descriptors: Descriptors<'_>,
    ) -> Result<Group, LaunchError> {
        let _ = guard;
        Err(LaunchError { program: String::new(), cause: nix::Error::ENOSYS, remedy: "" })
    }
}
