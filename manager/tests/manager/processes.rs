//! Processes of this machine, from /proc: which of them have a variable, and which still run.

use std::fs;
use std::path::Path;

use nix::unistd::Pid;

use crate::child::wait_until;

/// All that have `variable` (`NAME=value`) in their environment and haven't ended.
pub(crate) fn with(variable: &str) -> Vec<Pid> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // Of a zombie, and of other users' processes, nothing can be read.
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment.split(|&byte| byte == 0).any(|it| it == variable.as_bytes()) {
            found.push(Pid::from_raw(number));
        }
    }
    found
}

/// Whether a process runs: it is there, and isn't a zombie.
pub(crate) fn runs(pid: Pid) -> bool {
    // `pid (name) state ...`, and a name may hold anything.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Waits until none of them runs.
pub(crate) fn wait_for_ends(pids: &[Pid]) {
    wait_until("processes to end", || pids.iter().all(|&pid| !runs(pid)).then_some(()));
}

/// The process ids that commands have written to a file, a line each; those alone that are
/// complete.
pub(crate) fn noted(path: &Path) -> Vec<Pid> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    whole.map(|line| Pid::from_raw(line.trim().parse().unwrap())).collect()
}

/// Resident memory of a process in bytes.
pub(crate) fn resident_bytes(pid: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}
