//! Modes of the server's files: a file and the bits that it may have in, a file without others out.
//!
//! New files get their mode when they are opened; this is for files that were there before, with
//! more bits. The process's umask (`io::process`) takes away none of the bits that a mode here has.
//!
//! Invariant: only regular files of the process's own user are changed.

use std::fmt;
use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use nix::unistd::geteuid;
use tracing::warn;

/// For files with jobs in them.
pub(crate) const PRIVATE: u32 = 0o600;
/// The bits that say which users may do what.
const PERMISSIONS: u32 = 0o777;

/// A file had more bits than it may have.
#[derive(Debug)]
pub(crate) struct Wide {
    had: u32,
    /// Its bits now, or why they are as they were.
    has: io::Result<u32>,
}

impl Wide {
    /// Logs it, for the file at `path`.
    pub(crate) fn log(&self, path: &Path) {
        let path = path.display();
        warn!("{path} {self}");
    }
}

impl fmt::Display for Wide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let had = self.had;
        match &self.has {
            Ok(has) => write!(f, "had mode {had:04o}, open to other users, and has {has:04o} now"),
            Err(error) => write!(
                f,
                "has mode {had:04o}, open to other users, and can't be changed: {error}; use chmod \
                 on it"
            ),
        }
    }
}

/// Takes from an open file the bits that aren't in `mode`; `None` if it had none.
pub(crate) fn narrow(file: &File, mode: u32) -> Option<Wide> {
    let metadata = file.metadata().ok()?;
    narrow_by(&metadata, mode, |permissions| file.set_permissions(permissions))
}

/// Takes from the file at `path`, if there is one, the bits that aren't in `mode`, and logs it.
pub(crate) fn narrow_at(path: &Path, mode: u32) {
    let Ok(metadata) = fs::symlink_metadata(path) else { return };
    let wide = narrow_by(&metadata, mode, |permissions| fs::set_permissions(path, permissions));
    if let Some(wide) = wide {
        wide.log(path);
    }
}

fn narrow_by(
    metadata: &Metadata,
    mode: u32,
    change: impl FnOnce(Permissions) -> io::Result<()>,
) -> Option<Wide> {
    let had = metadata.mode() & PERMISSIONS;
    let is_own = metadata.is_file() && metadata.uid() == geteuid().as_raw();
    if !is_own || had & !mode == 0 {
        return None;
    }
    let has = had & mode;
    Some(Wide { had, has: change(Permissions::from_mode(has)).map(|()| has) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & PERMISSIONS
    }

    #[test]
    fn bits_are_taken_away_and_never_added() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "").unwrap();
        for (had, has) in [(0o666, 0o600), (0o777, 0o600), (0o600, 0o600), (0o400, 0o400)] {
            fs::set_permissions(&path, Permissions::from_mode(had)).unwrap();
            let wide = narrow(&File::open(&path).unwrap(), PRIVATE);
            assert_eq!((mode_of(&path), wide.is_some()), (has, had != has), "{had:o}");
            fs::set_permissions(&path, Permissions::from_mode(had)).unwrap();
            narrow_at(&path, PRIVATE);
            assert_eq!(mode_of(&path), has, "{had:o}");
        }
        let wide = Wide { had: 0o644, has: Ok(0o600) };
        assert_eq!(wide.to_string(), "had mode 0644, open to other users, and has 0600 now");
    }

    #[test]
    fn what_is_no_regular_file_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        assert!(narrow(&File::open(folder.path()).unwrap(), PRIVATE).is_none());
        assert!(narrow(&File::open("/dev/null").unwrap(), PRIVATE).is_none());
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        narrow_at(&link, PRIVATE);
        narrow_at(&folder.path().join("none"), PRIVATE);
        assert_eq!(mode_of(&file), 0o644);
    }
}
