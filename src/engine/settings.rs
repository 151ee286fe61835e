//! What the engine is told at its making.
//!
//! Values in, read by the engine's parts. Knows no options and no files.
//!
//! Invariant: settings never change once the engine is made.

use super::function::Durabilities;

/// How many sleepers a job that comes in wakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wakeup {
    /// As many as there are jobs to take; see `Settings::lease_ms`.
    Lease,
    /// Up to so many for each job (gearmand's `--worker-wakeup`, where 0 means all).
    Each(u32),
}

/// What the engine is told at its making.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a woken worker may take to grab before the next one is woken for the same job.
    pub lease_ms: u64,
    /// How many sleepers to wake.
    pub wakeup: Wakeup,
    /// Workers that may lose a job before it is dropped; `None` = no limit.
    pub attempts_max: Option<u32>,
    /// Seed of the hash tables, so that clients can't choose what collides.
    pub hash_seed: u64,
    /// Where the numbers of this run's jobs start; see `handle::job_number`. Those of earlier runs
    /// must lie below.
    pub first_sequence: u64,
    /// Which functions' background jobs outlive the server.
    pub durabilities: Durabilities,
}

impl Default for Settings {
    /// What tests and benches want: everything at its default, nothing random.
    fn default() -> Self {
        Self {
            lease_ms: 100,
            wakeup: Wakeup::Lease,
            attempts_max: None,
            hash_seed: 7,
            first_sequence: 1,
            durabilities: Durabilities::default(),
        }
    }
}
