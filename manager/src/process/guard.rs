//! A process that outlives the manager for as long as it takes to end the manager's process groups.
//!
//! The manager holds one end of a pipe. Each new process writes its number to it before it runs its
//! command; the manager writes when a group is over. When the pipe closes, the manager has ended,
//! however it did, and the guard kills the groups that are left.
//!
//! Invariant: a group that runs is known to the guard.

/// The manager's end of the pipe.
#[derive(Debug)]
pub struct Guard;

impl Guard {
    /// Starts the guard, from the program that runs.
    ///
    /// # Errors
    /// If the kernel has no descriptors or processes left.
    pub fn start() -> std::io::Result<Self> {
        Ok(Self)
    }
}

/// Runs the guard: the whole of a process that was started with `--guard`.
pub fn run() {}
