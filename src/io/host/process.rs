//! The process itself: its limits, its umask, its place in the background, its pid file.
//!
//! Each function changes one property of the process; `main` calls them in the order of a start.
//! Knows nothing of sockets and jobs.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{ForkResult, Uid, User, fork, setsid};
use thiserror::Error;

/// Mode of the pid file: every user may read it.
const PID_FILE_MODE: u32 = 0o644;

/// Why the process can't be set up.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ProcessError {
    #[error(
        "cannot have {wanted} descriptors: {}; give --file-descriptors {hard} at most, or raise \
         the hard limit with `ulimit -Hn`, LimitNOFILE= or the sysctl fs.nr_open",
        cause.desc()
    )]
    Descriptors { wanted: u64, hard: u64, cause: nix::Error },
    #[error("cannot go to the background: {0}; start without --daemon")]
    Fork(std::io::Error),
    #[error(
        "cannot write the pid file {path}: {cause}; choose another with --pid-file, in a folder \
         that the server's user may write to"
    )]
    PidFile { path: PathBuf, cause: std::io::Error },
}

/// Raises the limit of descriptors to `wanted`, or to the hard limit; returns the soft limits
/// before and after.
///
/// # Errors
/// `ProcessError::Descriptors` if the kernel refuses the `wanted` number.
pub fn raise_descriptors(wanted: Option<u64>) -> Result<(u64, u64), ProcessError> {
    let resource = Resource::RLIMIT_NOFILE;
    let failed = |wanted, hard, cause| ProcessError::Descriptors { wanted, hard, cause };
    let (soft, hard) =
        getrlimit(resource).map_err(|cause| failed(wanted.unwrap_or(0), 0, cause))?;
    let target = wanted.unwrap_or(hard);
    match setrlimit(resource, target, target.max(hard)) {
        Ok(()) => Ok((soft, target)),
        Err(cause) if wanted.is_some() => Err(failed(target, hard, cause)),
        Err(_) => Ok((soft, soft)),
    }
}

/// Sets a umask that takes nothing away from the modes of the server's own files, and keeps other
/// users from writing to all others.
pub fn set_umask() {
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
}

/// Allows core dumps up to the hard limit.
pub fn allow_core_dumps() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_CORE) {
        // The server runs without them, too.
        let _ = setrlimit(Resource::RLIMIT_CORE, hard, hard);
    }
}

/// The name of a user by its number; `None` if it has none, or it can't be looked up.
#[must_use]
pub fn user_name(uid: u32) -> Option<Box<str>> {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    user.map(|user| user.name.into())
}

/// The child's end of going to the background.
#[derive(Debug)]
pub struct Background {
    parent: UnixStream,
}

/// Forks; the parent waits until the child is ready or has ended, and exits with 0 or 1.
///
/// # Errors
/// `ProcessError::Fork`.
pub fn go_to_background() -> Result<Background, ProcessError> {
    let (mut parent, child) = UnixStream::pair().map_err(ProcessError::Fork)?;
    // SAFETY: the process has one thread, so the child may call anything.
    #[allow(unsafe_code)]
    let forked = unsafe { fork() };
    match forked.map_err(|cause| ProcessError::Fork(cause.into()))? {
        ForkResult::Parent { .. } => {
            drop(child);
            // A child that ends early closes its end; it has printed the reason itself.
            let ready = matches!(parent.read(&mut [0]), Ok(1));
            std::process::exit(i32::from(!ready));
        }
        ForkResult::Child => {
            setsid().map_err(|cause| ProcessError::Fork(cause.into()))?;
            Ok(Background { parent: child })
        }
    }
}

impl Background {
    /// Detaches from the terminal and lets the parent exit.
    ///
    /// # Errors
    /// `ProcessError::Fork` if there is no /dev/null.
    pub fn ready(mut self) -> Result<(), ProcessError> {
        let null = File::options().read(true).write(true).open("/dev/null");
        let null = null.map_err(ProcessError::Fork)?;
        let redirected = nix::unistd::dup2_stdin(&null)
            .and_then(|()| nix::unistd::dup2_stdout(&null))
            .and_then(|()| nix::unistd::dup2_stderr(&null));
        redirected.map_err(|cause| ProcessError::Fork(cause.into()))?;
        // The write fails if the parent was killed; it needs no answer then.
        let _ = self.parent.write_all(b"!");
        Ok(())
    }
}

/// A file with the process's id; it is removed when this is dropped.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// Writes the file; replaces one that a killed server left.
    ///
    /// # Errors
    /// `ProcessError::PidFile`.
    pub fn create(path: &Path) -> Result<Self, ProcessError> {
        let written = match fs::remove_file(path) {
            Err(cause) if cause.kind() != ErrorKind::NotFound => Err(cause),
            _ => File::options().write(true).create_new(true).mode(PID_FILE_MODE).open(path),
        };
        let written = written.and_then(|mut file| writeln!(file, "{}", std::process::id()));
        let path = path.to_owned();
        match written {
            Ok(()) => Ok(Self { path }),
            Err(cause) => Err(ProcessError::PidFile { path, cause }),
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Another server may have written its own file there meanwhile, or it was removed.
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        if text.trim() == std::process::id().to_string() {
            let _ = fs::remove_file(&self.path);
        }
    }
}
