//! A process group whose leader the manager started.
//!
//! A group's number stays taken while its leader isn't reaped, so that no signal meets a stranger:
//! the group is killed before its leader is reaped.
//!
//! Invariant: dropping a `Group` kills it and reaps its leader.

use nix::sys::signal::Signal;
use nix::unistd::Pid;

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
}

impl Group {
    /// The leader, whose number is the group's.
    #[must_use]
    pub fn leader(&self) -> Pid {
        self.leader
    }

    /// Waits until the leader has ended, and returns how; kills what is left of the group, reaps
    /// the leader and tells the guard. May be dropped while it waits, and called again.
    pub async fn ended(&mut self) -> Status {
        std::future::pending().await
    }

    /// Sends a signal to the whole group, if it hasn't ended.
    pub fn signal(&self, _signal: Signal) {}
}
