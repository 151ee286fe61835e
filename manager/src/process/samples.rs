//! For tests: workers, and what becomes of processes.

use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::config::Worker;

/// A worker with this command, and nothing else that isn't the default.
pub(crate) fn worker(command: &[&str]) -> Worker {
    Worker {
        name: "w".into(),
        functions: vec!["f".into()],
        command: command.iter().map(|&word| word.to_owned()).collect(),
        splay: 0.0,
        ..Worker::default()
    }
}

/// Whether a process runs: it is no zombie, and not reaped.
pub(crate) fn is_alive(process: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

/// Waits for something that is to come true.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline, "not within 10 s: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}
