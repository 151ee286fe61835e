//! Where stores lie while they are measured: a folder in, what its file system is and how fast it
//! says that something is on disk out.
//!
//! Every store gets a folder of its own, which is removed when it is dropped.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use loadgen::units::time;
use procfs::process::{MountInfo, Process};
use tempfile::TempDir;

use crate::stats::Spread;

/// What is written to learn how long the disk takes.
const PROBE_BYTES: usize = 4096;
const PROBES: usize = 50;
/// File systems without a disk.
const IN_MEMORY: [&str; 2] = ["tmpfs", "ramfs"];

/// A folder on a disk.
#[derive(Debug)]
pub(crate) struct DataDir {
    folder: PathBuf,
    /// Its file system and the time of a sync, for readers of the results.
    pub(crate) about: String,
}

impl DataDir {
    /// The given folder, or that of this binary if it is on a disk.
    pub(crate) fn find(given: Option<&Path>) -> Result<Self, String> {
        let own = std::env::current_exe().unwrap_or_default();
        let folder = given.or_else(|| own.parent()).unwrap_or_else(|| Path::new("."));
        let explain = |error: &dyn std::fmt::Display| {
            format!("no store in {}: {error}; give another folder by --scratch", folder.display())
        };
        let folder = fs::canonicalize(folder).map_err(|error| explain(&error))?;
        let mounts = Process::myself().and_then(|this| this.mountinfo());
        let mount = mounts.ok().and_then(|mounts| mount(mounts, &folder));
        let (kind, source) = match &mount {
            Some(mount) => (&*mount.fs_type, mount.mount_source.as_deref().unwrap_or("none")),
            None => ("unknown", "unknown"),
        };
        if given.is_none() && IN_MEMORY.contains(&kind) {
            return Err(explain(&format!("{kind} is no disk")));
        }
        let sync_us = sync_us(&folder).map_err(|error| explain(&format!("{error:#}")))?;
        let about = format!(
            "{kind} ({source}), where {PROBE_BYTES} bytes more in a file are on disk after {} \
             (fdatasync, median of {PROBES})",
            time(sync_us)
        );
        Ok(Self { folder, about })
    }

    /// A new, empty folder in it.
    pub(crate) fn folder(&self) -> Result<TempDir> {
        temporary(&self.folder)
    }
}

fn temporary(folder: &Path) -> Result<TempDir> {
    let made = tempfile::Builder::new().prefix("bench-store-").tempdir_in(folder);
    made.with_context(|| format!("no folder can be made in {}", folder.display()))
}

/// The file system that holds a path.
fn mount(mounts: impl IntoIterator<Item = MountInfo>, path: &Path) -> Option<MountInfo> {
    // Of those at one point, the last hides the others.
    let holding = mounts.into_iter().filter(|mount| path.starts_with(&mount.mount_point));
    holding.max_by_key(|mount| mount.mount_point.components().count())
}

/// How long a sync takes, µs.
fn sync_us(folder: &Path) -> Result<f64> {
    let folder = temporary(folder)?;
    let mut file = File::create(folder.path().join("probe"))?;
    let probe = |_| -> Result<f64> {
        let start = Instant::now();
        file.write_all(&[b'x'; PROBE_BYTES])?;
        file.sync_data()?;
        Ok(start.elapsed().as_secs_f64() * 1e6)
    };
    let times_us = (0..PROBES).map(probe).collect::<Result<Vec<_>>>()?;
    Ok(Spread::of(times_us).map_or(0.0, |spread| spread.median))
}

/// What the files in a folder take of its disk, bytes.
pub(crate) fn disk_bytes(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() {
            disk_bytes(&entry.path())?
        } else {
            // The kernel counts in these, whatever the file system's own are.
            metadata.blocks() * 512
        };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_and_last_mount_counts() {
        let mounts = [
            "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw",
            "30 22 0:26 / /tmp rw shared:2 - ext4 /dev/vdb rw",
            "31 22 0:27 / /tmp rw shared:2 - tmpfs none rw",
        ];
        let at = |path: &str| {
            let mounts = mounts.map(|line| MountInfo::from_line(line).unwrap());
            mount(mounts, Path::new(path)).map(|mount| mount.fs_type)
        };
        assert_eq!(at("/home/x").as_deref(), Some("ext4"));
        assert_eq!(at("/tmp/x").as_deref(), Some("tmpfs"));
        assert_eq!(at("/tmpfoo").as_deref(), Some("ext4"));
        assert!(mount([], Path::new("/")).is_none());
    }

    #[test]
    fn a_folder_that_is_missing_is_one_sentence() {
        let error = DataDir::find(Some(Path::new("/nonexistent/x"))).unwrap_err();
        assert!(error.starts_with("no store in /nonexistent/x: "), "{error}");
        assert!(error.ends_with("give another folder by --scratch"), "{error}");
    }

    #[test]
    fn files_are_counted_in_folders_too() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        for path in [folder.path().join("a"), inner.join("b")] {
            let mut file = File::create(path).unwrap();
            file.write_all(&[b'x'; 100_000]).unwrap();
            file.sync_all().unwrap();
        }
        let bytes = disk_bytes(folder.path()).unwrap();
        assert!((100_000..200_000).contains(&disk_bytes(&inner).unwrap()));
        assert!((200_000..400_000).contains(&bytes), "{bytes}");
    }
}
