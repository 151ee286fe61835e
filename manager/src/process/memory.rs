//! Resident memory of process groups, from /proc.
//!
//! Knows neither limits nor workers.
//!
//! Invariant: a walk reads each process once.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read as _;

use nix::unistd::{Pid, getpgid};

/// Resident bytes by group, for those groups of this machine that are wanted, in one walk.
///
/// Makes a system call for each process, and three more for each in such a group.
#[must_use]
pub fn by_group(is_wanted: impl Fn(Pid) -> bool) -> HashMap<Pid, u64> {
    let mut groups: HashMap<Pid, u64> = HashMap::new();
    let Ok(entries) = fs::read_dir("/proc") else {
        return groups;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(process) = name.to_str().and_then(|name| name.parse().ok()).map(Pid::from_raw)
        else {
            continue;
        };
        // This is much cheaper than reading /proc/PID/stat.
        match getpgid(Some(process)) {
            Ok(group) if is_wanted(group) => {
                let bytes = groups.entry(group).or_default();
                *bytes = bytes.saturating_add(of_process(process));
            }
            _ => {}
        }
    }
    groups
}

/// Resident bytes of one process, its children not counted; 0 if it has ended.
#[must_use]
pub fn of_process(process: Pid) -> u64 {
    let pages = || -> Option<u64> {
        // Seven numbers of at most 20 digits.
        let mut line = [0; 160];
        let length = File::open(format!("/proc/{process}/statm")).ok()?.read(&mut line).ok()?;
        let text = std::str::from_utf8(line.get(..length)?).ok()?;
        text.split(' ').nth(1)?.parse().ok()
    };
    pages().unwrap_or(0).saturating_mul(procfs::page_size())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_group_has_the_memory_of_all_its_processes() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 1000 & sleep 1000 & echo; wait"]).process_group(0);
        let mut shell = shell.stdout(Stdio::piped()).spawn().expect("a shell");
        let leader = Pid::from_raw(shell.id().cast_signed());
        crate::process::samples::eventually("more than the leader's memory", || {
            let bytes = by_group(|group| group == leader).get(&leader).copied().unwrap_or(0);
            bytes > of_process(leader) && of_process(leader) > 0
        });
        nix::sys::signal::killpg(leader, nix::sys::signal::Signal::SIGKILL).expect("it runs");
        shell.wait().expect("it was killed");
        assert_eq!(of_process(leader), 0);
        crate::process::samples::eventually("no memory is left", || {
            by_group(|group| group == leader).values().sum::<u64>() == 0
        });
    }
}
