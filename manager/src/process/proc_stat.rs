//! What /proc/PID/stat tells of processes.
//!
//! Reads only what is needed here, with one buffer for all processes, as a machine may have
//! thousands of them.
//!
//! Invariant: a process that ends meanwhile is left out.

use std::fs::{self, File};
use std::io::Read as _;

use nix::unistd::Pid;

/// A process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProcessStat {
    pub(super) process: Pid,
    pub(super) parent: Pid,
    pub(super) group: Pid,
    /// Resident memory in bytes.
    pub(super) resident: u64,
}

/// All processes of this machine.
pub(super) fn all() -> Vec<ProcessStat> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut buffer = Vec::with_capacity(1024);
    entries
        .filter_map(|entry| {
            let process = entry.ok()?.file_name().to_str()?.parse().ok()?;
            read(Pid::from_raw(process), &mut buffer)
        })
        .collect()
}

fn read(process: Pid, buffer: &mut Vec<u8>) -> Option<ProcessStat> {
    buffer.clear();
    File::open(format!("/proc/{process}/stat")).ok()?.read_to_end(buffer).ok()?;
    parse(process, buffer)
}

fn parse(process: Pid, line: &[u8]) -> Option<ProcessStat> {
    // The name may contain spaces and parentheses: fields begin after the last parenthesis.
    let end = line.iter().rposition(|&byte| byte == b')')?;
    let mut fields = line.get(end + 1..)?.split(|&byte| byte == b' ').skip(1);
    let mut number = |skipped: usize| -> Option<u64> {
        std::str::from_utf8(fields.nth(skipped)?).ok()?.parse().ok()
    };
    let pid = |number: u64| i32::try_from(number).ok().map(Pid::from_raw);
    // Fields 4, 5 and 24; the first one here, the state, is field 3.
    let (parent, group, pages) = (pid(number(1)?)?, pid(number(0)?)?, number(18)?);
    let resident = pages.saturating_mul(procfs::page_size());
    Some(ProcessStat { process, parent, group, resident })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_after_any_name() {
        let line =
            b"42 (a) 1 (b) S 7 40 40 0 -1 4194304 96 0 0 0 0 0 0 0 20 0 1 0 100 3000000 250 \
            18446744073709551615 1 1 0 0\n";
        let stat = parse(Pid::from_raw(42), line).expect("a line of the kernel");
        assert_eq!((stat.parent, stat.group), (Pid::from_raw(7), Pid::from_raw(40)));
        assert_eq!(stat.resident, 250 * procfs::page_size());
        assert_eq!(parse(Pid::from_raw(42), b"42 (a) S 7"), None);
        assert_eq!(parse(Pid::from_raw(42), b""), None);
    }

    #[test]
    fn this_process_is_among_all() {
        let own = all().into_iter().find(|stat| stat.process == Pid::this()).expect("it runs");
        assert_eq!((own.parent, own.group), (Pid::parent(), nix::unistd::getpgrp()));
        assert!(own.resident > 100_000);
    }
}
