//! Processes that left their group and lost their parents: daemons of commands.
//!
//! As the subreaper of its descendants the manager becomes their parent. Those that end are reaped,
//! and the manager's end is theirs.
//!
//! Invariant: children that the manager had at its start are left alone.

use std::collections::HashSet;
use std::time::{Duration, Instant};
use std::{fs, io};

use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpgid, getsid};
use procfs::ProcResult;
use procfs::process::all_processes;
use tracing::warn;

use super::guard::Guard;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long the end waits for processes that were killed.
const END_WAIT: Duration = Duration::from_secs(5);

/// The strays of this process.
#[derive(Debug)]
pub struct Strays {
    guard: Guard,
    /// Children that were there before.
    others: HashSet<Pid>,
}

impl Strays {
    /// Makes the manager the parent of all orphans among its descendants.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn adopt(guard: &Guard) -> nix::Result<Self> {
        let others = children().into_iter().filter(|&child| !guard.knows(child)).collect();
        set_child_subreaper(true)?;
        Ok(Self { guard: guard.clone(), others })
    }

    /// Once a second: reaps those that have ended, tells the guard about the others, and starts the
    /// guard again if it has ended. Never returns.
    pub async fn watch(&self) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            self.look();
        }
    }

    /// Kills and reaps all of them. For the end of the manager, when its groups are over.
    pub fn end(&self) {
        let deadline = Instant::now() + END_WAIT;
        // The children of those that are killed are the next to be adopted.
        loop {
            let left = self.reap();
            if left.is_empty() {
                return;
            }
            if Instant::now() > deadline {
                warn!("processes {left:?} don't end though they were killed; the manager ends");
                return;
            }
            for &stray in &left {
                let _ = kill(stray, Signal::SIGKILL);
            }
            // Nothing else runs any more that a short wait could delay.
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    fn look(&self) {
        self.guard.look_after();
        let own_session = getsid(None);
        let groups = self.reap().into_iter().filter(|&stray| getsid(Some(stray)) != own_session);
        // A group in a session of its own has no member that isn't a descendant of the manager.
        self.guard.watch_strays(groups.filter_map(|stray| getpgid(Some(stray)).ok()).collect());
    }

    /// Reaps those that have ended; returns the others.
    fn reap(&self) -> Vec<Pid> {
        let is_stray = |child: &Pid| !self.guard.knows(*child) && !self.others.contains(child);
        let runs = |child: &Pid| {
            matches!(waitpid(*child, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive))
        };
        children().into_iter().filter(is_stray).filter(runs).collect()
    }
}

/// The children of this process, in all of its threads.
fn children() -> Vec<Pid> {
    let of_threads = || -> io::Result<String> {
        let mut all = String::new();
        for thread in fs::read_dir("/proc/self/task")? {
            all += &fs::read_to_string(thread?.path().join("children"))?;
        }
        Ok(all)
    };
    let Ok(text) = of_threads() else {
        // Not every kernel has these files, and a thread may have ended meanwhile.
        return children_among_all().unwrap_or_default();
    };
    text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).map(Pid::from_raw).collect()
}

fn children_among_all() -> ProcResult<Vec<Pid>> {
    let own = Pid::this().as_raw();
    let stats = all_processes()?.filter_map(|process| process.ok()?.stat().ok());
    Ok(stats.filter(|stat| stat.ppid == own).map(|stat| Pid::from_raw(stat.pid)).collect())
}

#[cfg(test)]
mod tests;
