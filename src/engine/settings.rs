//! Settings of an engine.
//!
//! Values, read by the engine's parts. Knows no options and no files.
//!
//! Invariant: settings don't change after the engine is created.

use std::sync::Arc;

use super::dead::DeadBounds;
use super::function::Durabilities;
use super::named::NamedFunctions;
use super::policy::Policies;

/// How many sleeping workers a new job wakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wakeup {
    /// As many as the function has queued jobs, less the workers woken before; see
    /// `Settings::lease_ms`.
    Lease,
    /// At most this many for each job, 0 = all (gearmand's `--worker-wakeup`).
    Each(u32),
}

/// Settings of an engine.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a woken worker may take to grab before all other sleepers are woken for the job.
    pub lease_ms: u64,
    /// How many sleeping workers to wake.
    pub wakeup: Wakeup,
    /// Number of workers that may lose a job before it is dropped; `None` = no limit.
    pub attempts_max: Option<u32>,
    /// Seed of the hash tables, so that clients can't cause collisions.
    pub hash_seed: u64,
    /// First sequence number of this run's jobs; see `handle::job_number`. Must be above those of
    /// earlier runs.
    pub first_sequence: u64,
    /// Durability of each function's background jobs.
    pub durabilities: Durabilities,
    /// What becomes of jobs, by function.
    pub policies: Arc<Policies>,
    /// How many dead letters to keep.
    pub dead: DeadBounds,
    /// Whether other servers go on when this one is to end: it takes what the store keeps until
    /// then.
    pub has_other_servers: bool,
    /// How many functions, of all cores together, are counted by themselves.
    pub metrics_functions: NamedFunctions,
}

impl Default for Settings {
    /// For tests and benches: all defaults, nothing random.
    fn default() -> Self {
        Self {
            lease_ms: 100,
            wakeup: Wakeup::Lease,
            attempts_max: None,
            hash_seed: 7,
            first_sequence: 1,
            durabilities: Durabilities::default(),
            policies: Arc::default(),
            dead: DeadBounds::default(),
            has_other_servers: false,
            metrics_functions: NamedFunctions::default(),
        }
    }
}
