//! A database's path in, sole ownership of it out.
//!
//! SQLite lets many programs write to a file, and a shell may read it while we run; but two servers
//! with the same jobs would run each of them twice. So a server holds the lock of `PATH.lock`
//! beside the database. Knows nothing of what is in the database.
//!
//! Invariant: at most one process holds a `Lock` of a database, and the kernel takes the lock back
//! from a process that dies. The file itself stays, or two could hold locks of one name.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process;

use thiserror::Error;

/// Why a database isn't ours.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another process has it.
    #[error(
        "{} belongs to another ringgeard{owner}: stop that one, or wait for its end with --standby",
        database.display()
    )]
    Owned {
        /// The database.
        database: PathBuf,
        /// Its process as text for people, or nothing.
        owner: String,
    },
    /// The lock's file can't be made or locked.
    #[error("{} can't be locked ({error}): check the owner and mode of its folder", path.display())]
    Failed {
        /// The lock's file.
        path: PathBuf,
        /// The kernel's reason.
        error: io::Error,
    },
}

/// Sole ownership of a database, given back when dropped.
#[derive(Debug)]
pub struct Lock {
    database: PathBuf,
    /// Open as long as the lock is held.
    file: File,
    /// The process that took it.
    process: u32,
}

impl Lock {
    /// Takes the lock of the database at `path`, which need not exist, or says who has it.
    ///
    /// # Errors
    /// `LockError`: see there.
    pub fn try_acquire(path: &Path) -> Result<Self, LockError> {
        let (database, lock_path, file) = open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Self::held(database, file)),
            Err(TryLockError::WouldBlock) => {
                let owner = fs::read_to_string(&lock_path).unwrap_or_default();
                let owner = owner.trim_end();
                let known = !owner.is_empty() && owner.bytes().all(|byte| byte.is_ascii_digit());
                let owner = if known { format!(" (process {owner})") } else { String::new() };
                Err(LockError::Owned { database, owner })
            }
            Err(TryLockError::Error(error)) => Err(LockError::Failed { path: lock_path, error }),
        }
    }

    /// Absolute path of the database.
    #[must_use]
    pub fn database(&self) -> &Path {
        &self.database
    }

    fn held(database: PathBuf, mut file: File) -> Self {
        // Only for people: the lock holds without it, also on a full disk.
        let process = process::id();
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{process}"));
        Self { database, file, process }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file doesn't do while a process that was just forked off still has it open;
        // and the parent of a daemon must leave its child the lock.
        if self.process == process::id() {
            let _ = self.file.unlock();
        }
    }
}

/// The database's one true path, that of its lock, and the open file of the latter.
fn open(path: &Path) -> Result<(PathBuf, PathBuf, File), LockError> {
    let failed = |error| LockError::Failed { path: path.into(), error };
    let database = true_path(path).map_err(failed)?;
    let mut lock_path = database.clone().into_os_string();
    lock_path.push(".lock");
    let lock_path = PathBuf::from(lock_path);
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&lock_path);
    match file {
        Ok(file) => Ok((database, lock_path, file)),
        Err(error) => Err(LockError::Failed { path: lock_path, error }),
    }
}

/// Links resolved, so that two names of one database share a lock.
fn true_path(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let name = path.file_name().ok_or(error)?;
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            Ok(fs::canonicalize(folder.unwrap_or_else(|| Path::new(".")))?.join(name))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_second_owner_is_refused_and_told_who_the_first_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jobs.db");
        let first = Lock::try_acquire(&path).unwrap();
        let error = Lock::try_acquire(&path).unwrap_err();
        assert!(matches!(error, LockError::Owned { .. }), "{error}");
        assert!(error.to_string().contains(&format!("(process {})", process::id())), "{error}");
        drop(first);
        Lock::try_acquire(&path).unwrap();
    }

    #[test]
    fn a_lock_given_back_is_free_while_a_copy_of_its_file_is_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jobs.db");
        let first = Lock::try_acquire(&path).unwrap();
        // As a process has it between its fork and its program.
        let _copy = first.file.try_clone().unwrap();
        drop(first);
        Lock::try_acquire(&path).unwrap();
    }

    #[test]
    fn another_name_of_the_same_file_has_the_same_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jobs.db");
        fs::write(&path, "").unwrap();
        symlink(&path, folder.path().join("link.db")).unwrap();
        let _first = Lock::try_acquire(&path).unwrap();
        let error = Lock::try_acquire(&folder.path().join("link.db")).unwrap_err();
        assert!(matches!(error, LockError::Owned { .. }), "{error}");
    }

    #[test]
    fn a_folder_that_does_not_exist_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = Lock::try_acquire(&folder.path().join("no/jobs.db")).unwrap_err();
        assert!(matches!(error, LockError::Failed { .. }), "{error}");
        assert!(error.to_string().contains("no/jobs.db"), "{error}");
    }
}
