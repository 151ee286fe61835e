//! Ownership of an SQLite file: its path in, a lock that one process at a time can hold out.
//!
//! SQLite lets several programs write to a file, and a shell may read it while the server runs; but
//! two servers would run each job twice. A server therefore locks `PATH.lock` beside the database,
//! which contains its process id, and the database's inode, which is the same under every name of
//! the file and if the lock file is removed. Knows nothing of the file's contents.
//!
//! Invariant: at most one process holds a `Lock` of a database; the kernel releases the locks of a
//! process that ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use thiserror::Error;

use super::mode::{PRIVATE, narrow, narrow_at};

/// The byte of the database that is locked: beyond all that SQLite locks (from 2^30 on) and beyond
/// the largest file.
const LOCKED_BYTE: libc::off_t = 1 << 62;

/// Why a database can't be locked.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another process holds the lock.
    #[error(
        "{} belongs to another ringgeard{owner}: stop that one, or wait for its end with --standby",
        database.display()
    )]
    Owned {
        /// The database.
        database: PathBuf,
        /// The other process as text for people, or empty.
        owner: String,
    },
    /// The database has more than one name.
    #[error(
        "{} has {names} names (hard links): SQLite keeps what was committed last beside the name \
         that was served, so remove all others",
        database.display()
    )]
    Linked {
        /// The database.
        database: PathBuf,
        /// Number of its names.
        names: u64,
    },
    /// The lock file or the database can't be created or locked.
    #[error("jobs can't be kept in {}: {}", path.display(), reason(path, error))]
    Failed {
        /// The file.
        path: PathBuf,
        /// The kernel's reason.
        error: io::Error,
    },
}

/// Why a file can't be opened, and the remedy.
fn reason(path: &Path, error: &io::Error) -> String {
    let parent = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = parent.unwrap_or_else(|| Path::new(".")).display();
    match error.kind() {
        ErrorKind::NotFound if !parent.is_some_and(Path::is_dir) => {
            format!("there is no folder {folder}; create it, or name another file")
        }
        ErrorKind::NotADirectory => {
            format!("{folder} is no folder; name a file in one")
        }
        ErrorKind::IsADirectory => "it is a folder; name a file in it".to_owned(),
        ErrorKind::PermissionDenied => {
            format!("no permission; let the server's user write to it and to the folder {folder}")
        }
        ErrorKind::ReadOnlyFilesystem => {
            "its file system can only be read; name a file on another one".to_owned()
        }
        ErrorKind::StorageFull => "its disk is full; free some room on it".to_owned(),
        _ => format!("{error}; check the owner and mode of it and of the folder {folder}"),
    }
}

/// Ownership of a database, released when dropped.
#[derive(Debug)]
pub struct Lock {
    database: PathBuf,
    /// The locked lock file.
    file: File,
    /// The database, locked. SQLite's own locks belong to the process, and end when the process
    /// closes any descriptor of the file: so this one is opened before SQLite's and closed after
    /// it.
    inode: File,
    /// Id of the process that acquired the lock.
    process: u32,
}

impl Lock {
    /// Acquires the lock of the database at `path`, which is created if it doesn't exist. No
    /// other user can open it, or the files beside it, afterwards.
    ///
    /// # Errors
    /// `LockError`, which names the process that holds the lock.
    pub fn try_acquire(path: &Path) -> Result<Self, LockError> {
        let (database, lock_path, file) = open(path)?;
        match file.try_lock() {
            Ok(()) => {
                let inode = lock_inode(&database)?;
                Ok(Self::held(database, &lock_path, file, inode))
            }
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

    /// Device and inode of the database.
    ///
    /// # Errors
    /// The error of fstat(2).
    pub fn file_id(&self) -> io::Result<(u64, u64)> {
        self.inode.metadata().map(|metadata| (metadata.dev(), metadata.ino()))
    }

    fn held(database: PathBuf, lock_path: &Path, mut file: File, inode: File) -> Self {
        narrow_all(&database, &inode, lock_path, &file);
        // Only for people: the lock is valid without it, as on a full disk.
        let process = process::id();
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{process}"));
        Self { database, file, inode, process }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file doesn't release the lock while a process that was just forked off has it
        // open. The parent of a daemon must not release the lock of its child.
        if self.process == process::id() {
            let _ = self.file.unlock();
            let _ = set_lock(&self.inode, libc::F_UNLCK);
        }
    }
}

/// The database's resolved path, the path of its lock file, and the open lock file.
fn open(path: &Path) -> Result<(PathBuf, PathBuf, File), LockError> {
    let failed = |error| LockError::Failed { path: path.into(), error };
    let database = true_path(path).map_err(failed)?;
    if database.is_dir() {
        // Otherwise a lock file would be left beside the folder.
        return Err(failed(ErrorKind::IsADirectory.into()));
    }
    let mut lock_path = database.clone().into_os_string();
    lock_path.push(".lock");
    let lock_path = PathBuf::from(lock_path);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(PRIVATE);
    let file = options.open(&lock_path);
    match file {
        Ok(file) => Ok((database, lock_path, file)),
        Err(error) => Err(LockError::Failed { path: lock_path, error }),
    }
}

/// Opens the database, creates it if it doesn't exist, and locks its inode.
fn lock_inode(database: &Path) -> Result<File, LockError> {
    let failed = |error| LockError::Failed { path: database.into(), error };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(PRIVATE);
    let file = options.open(database).map_err(failed)?;
    let names = file.metadata().map_err(failed)?.nlink();
    match set_lock(&file, libc::F_WRLCK) {
        // Checked before the number of names: one of them may be the other server's.
        Err(Errno::EAGAIN | Errno::EACCES) => {
            let owner = " (under another name of the file, or its lock file was removed)".into();
            Err(LockError::Owned { database: database.into(), owner })
        }
        Err(error) => Err(failed(error.into())),
        Ok(_) if names > 1 => Err(LockError::Linked { database: database.into(), names }),
        Ok(_) => Ok(file),
    }
}

/// Takes from the database and the files beside it what other users may do with them. SQLite gives
/// new ones the mode of the database.
fn narrow_all(database: &Path, inode: &File, lock_path: &Path, lock_file: &File) {
    for (file, path) in [(inode, database), (lock_file, lock_path)] {
        if let Some(wide) = narrow(file, PRIVATE) {
            wide.log(path);
        }
    }
    for suffix in ["-wal", "-shm"] {
        let mut path = database.as_os_str().to_owned();
        path.push(suffix);
        narrow_at(Path::new(&path), PRIVATE);
    }
}

/// Locks or unlocks `LOCKED_BYTE`. The lock belongs to the open file, as with flock(2); but on NFS
/// flock(2) locks all bytes of the file, also against SQLite in the same process.
#[expect(clippy::cast_possible_truncation, reason = "the kernel's constants are small")]
fn set_lock(file: &File, kind: libc::c_int) -> nix::Result<libc::c_int> {
    let lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: LOCKED_BYTE,
        l_len: 1,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_OFD_SETLK(&lock))
}

/// The path with symbolic links resolved, so that all names of a database share a lock.
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
        // As in a child process between fork and exec.
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
    fn a_removed_lock_file_frees_nothing() {
        // Two servers ran the same jobs after an operator had removed the file.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jobs.db");
        let first = Lock::try_acquire(&path).unwrap();
        let _copy = (first.file.try_clone().unwrap(), first.inode.try_clone().unwrap());
        fs::remove_file(folder.path().join("jobs.db.lock")).unwrap();
        for _ in 0..2 {
            let error = Lock::try_acquire(&path).unwrap_err();
            assert!(matches!(error, LockError::Owned { .. }), "{error}");
            assert!(error.to_string().contains("lock file was removed"), "{error}");
        }
        drop(first);
        Lock::try_acquire(&path).unwrap();
    }

    #[test]
    fn a_database_with_a_second_name_is_refused_under_either() {
        let folder = tempfile::tempdir().unwrap();
        let [path, link] = ["jobs.db", "link.db"].map(|name| folder.path().join(name));
        let first = Lock::try_acquire(&path).unwrap();
        fs::hard_link(&path, &link).unwrap();
        let error = Lock::try_acquire(&link).unwrap_err();
        assert!(matches!(error, LockError::Owned { .. }), "{error}");
        drop(first);
        for name in [&path, &link] {
            let error = Lock::try_acquire(name).unwrap_err();
            assert!(matches!(error, LockError::Linked { names: 2, .. }), "{error}");
        }
        fs::remove_file(&link).unwrap();
        Lock::try_acquire(&path).unwrap();
    }

    #[test]
    fn a_folder_that_does_not_exist_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = Lock::try_acquire(&folder.path().join("no/jobs.db")).unwrap_err();
        assert!(matches!(error, LockError::Failed { .. }), "{error}");
        assert!(error.to_string().contains("no/jobs.db"), "{error}");
    }
}
