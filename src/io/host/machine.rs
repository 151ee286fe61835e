//! Facts about the host that defaults depend on: its name, its memory and its processors.
//!
//! Reads, decides nothing, and pins a thread to a processor.
//!
//! Invariant: the memory is the least of what the host has and what the control groups of this
//! process and those above them allow, so that a container's or a service's limit counts.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use tracing::info;

/// The host's name.
#[must_use]
pub fn nodename() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// The processors that this process may run on, by their numbers.
#[must_use]
pub fn processors() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else { return Vec::new() };
    (0..CpuSet::count()).filter(|&at| set.is_set(at).unwrap_or(false)).collect()
}

/// How many processors this process may keep busy: those that it may run on, or fewer if its
/// control groups allow less of their time; 1 if that can't be found out.
#[must_use]
pub fn processors_allowed() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Pins the calling thread to one processor. If the kernel refuses, it runs on any.
pub fn pin_thread(processor: usize) {
    let mut set = CpuSet::new();
    if set.set(processor).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set)).is_err() {
        info!(processor, "a core's thread can't be pinned to its processor");
    }
}

/// Memory that this process may use, in bytes.
#[must_use]
pub fn memory_bytes() -> u64 {
    memory_bytes_below(Path::new("/"))
}

/// The memory that this process may use; `root` is `/` except in tests.
fn memory_bytes_below(root: &Path) -> u64 {
    let machine = meminfo_total(root).unwrap_or(u64::MAX);
    control_group_limits(root).into_iter().fold(machine, u64::min)
}

/// MemTotal, which counts KiB.
fn meminfo_total(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The limits of this process's control group and those above it, in cgroup v2 and v1.
fn control_group_limits(root: &Path) -> Vec<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut limits = Vec::new();
    for line in groups.lines() {
        // "0::/a/b" in v2, "4:memory:/a/b" in v1.
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let (mount, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let mount = root.join(mount);
        let group: PathBuf = mount.join(group.trim_start_matches('/'));
        limits.extend(
            group
                .ancestors()
                .take_while(|path| path.starts_with(&mount))
                .filter_map(|path| fs::read_to_string(path.join(file)).ok())
                .filter_map(|text| text.trim().parse::<u64>().ok()),
        );
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemFree: 1 kB\nMemTotal:  1000 kB\n");

    #[test]
    fn without_control_groups_the_machine_counts() {
        assert_eq!(memory_bytes_below(root_with(&[MEMINFO]).path()), 1_024_000);
    }

    #[test]
    fn the_tightest_group_above_us_counts_in_version_2() {
        let root = root_with(&[
            MEMINFO,
            ("proc/self/cgroup", "0::/system.slice/x.service\n"),
            ("sys/fs/cgroup/system.slice/x.service/memory.max", "max\n"),
            ("sys/fs/cgroup/system.slice/memory.max", "4096\n"),
            ("sys/fs/cgroup/memory.max", "8192\n"),
            ("sys/fs/memory.max", "1\n"),
        ]);
        assert_eq!(memory_bytes_below(root.path()), 4096);
    }

    #[test]
    fn the_memory_controller_counts_in_version_1() {
        let root = root_with(&[
            MEMINFO,
            ("proc/self/cgroup", "5:cpu,cpuacct:/a\n4:hugetlb,memory:/a\nnonsense\n"),
            ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "2048\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        assert_eq!(memory_bytes_below(root.path()), 2048);
    }

    #[test]
    fn this_machine_has_memory() {
        let memory = memory_bytes_below(Path::new("/"));
        assert!(memory > 1 << 20 && memory < u64::MAX, "{memory}");
    }
}
