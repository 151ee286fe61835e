//! A process group whose leader the manager started.
//!
//! A group's number stays taken while its leader isn't reaped, so that no signal meets a stranger:
//! the group is killed before its leader is reaped.
//!
//! Invariant: dropping a `Group` kills it and reaps its leader.

use std::os::fd::OwnedFd;

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use tokio::io::unix::AsyncFd;

use super::guard::Guard;

/// How a leader ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// With an exit code.
    Code(i32),
    /// By a signal.
    Signal(Signal),
}

/// A group, by its leader.
#[derive(Debug)]
pub struct Group {
    leader: Pid,
    /// Readable once the leader has ended.
    pidfd: AsyncFd<OwnedFd>,
    guard: Guard,
    /// How the leader ended, once it is reaped.
    status: Option<Status>,
}

impl Group {
    /// Takes over a leader that was just started, and that the guard knows, with its descriptor.
    pub(super) fn new(leader: Pid, pidfd: AsyncFd<OwnedFd>, guard: Guard) -> Self {
        Self { leader, pidfd, guard, status: None }
    }

    /// The leader, whose number is the group's.
    #[must_use]
    pub fn leader(&self) -> Pid {
        self.leader
    }

    /// Waits until the leader has ended, and returns how; kills what is left of the group, reaps
    /// the leader and tells the guard. May be dropped while it waits, and called again.
    pub async fn ended(&mut self) -> Status {
        loop {
            if let Some(status) = self.status {
                return status;
            }
            let Ok(mut ready) = self.pidfd.readable().await else {
                // Only while the runtime is being dropped.
                return std::future::pending().await;
            };
            if has_ended(self.leader) {
                return self.finish();
            }
            ready.clear_ready();
        }
    }

    /// Sends a signal to the whole group, if it hasn't ended.
    pub fn signal(&self, signal: Signal) {
        if self.status.is_none() {
            // The number is the group's as long as its leader isn't reaped.
            let _ = killpg(self.leader, signal);
        }
    }

    /// Kills the group and reaps its leader; waits for it if it hasn't ended.
    fn finish(&mut self) -> Status {
        let _ = killpg(self.leader, Signal::SIGKILL);
        self.guard.over(self.leader);
        let status = reap(self.leader);
        self.status = Some(status);
        status
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.status.is_none() {
            self.finish();
        }
    }
}

fn has_ended(leader: Pid) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    !matches!(waitid(Id::Pid(leader), flags), Ok(WaitStatus::StillAlive))
}

/// Waits until a child has ended.
pub(super) fn reap(child: Pid) -> Status {
    loop {
        match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, code)) => return Status::Code(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Status::Signal(signal),
            // Interrupted, or a state that wasn't asked for.
            Ok(_) | Err(nix::Error::EINTR) => {}
            // Reaped, but by a real-time signal, which nix has no name for.
            Err(_) => return Status::Signal(Signal::SIGKILL),
        }
    }
}
