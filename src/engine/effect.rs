//! Effects of commands on other connections and on the store.
//!
//! The engine writes them, the shard delivers them in order. Knows no packets.
//!
//! Invariant: an effect borrows nothing from the command.

use super::ids::{ConnId, JobId, Ticket};
use super::record::Pause;

/// A packet for another connection than the command's, or a store operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Wake a sleeping worker.
    Noop {
        /// The worker.
        conn: ConnId,
    },
    /// Forward the `WORK_*` packet that is being handled to a client.
    Forward {
        /// The client.
        conn: ConnId,
    },
    /// Send WORK_FAIL to a client: its job was dropped.
    Fail {
        /// The client.
        conn: ConnId,
        /// The job.
        number: u64,
    },
    /// Report to the core that has a remote worker's connection that a queue got jobs for it; see
    /// `Engine::ready`.
    Hint {
        /// The worker.
        conn: ConnId,
    },
    /// Accept a submission that waited for the store.
    Accepted {
        /// The client.
        conn: ConnId,
        /// Its submission.
        ticket: Ticket,
        /// The job.
        number: u64,
    },
    /// Refuse a submission that waited for the store.
    Refused {
        /// The client.
        conn: ConnId,
        /// Its submission.
        ticket: Ticket,
    },
    /// Store a job, and report the outcome by `stored` or `not_stored` unless it is `answered`.
    Insert {
        /// The job.
        job: JobId,
        /// Whether the client has been answered.
        answered: bool,
    },
    /// Store what has become of a job's runs, unless the job is gone by now.
    Retry {
        /// The job.
        number: u64,
    },
    /// Remove a job from the store.
    Remove {
        /// The job.
        number: u64,
    },
    /// A job has become a dead letter: `Engine::dead` has it, unless it is gone by now. Note its
    /// worker's client id there, and store the letter if the job is stored; or remove the job from
    /// the store, if the letter is gone.
    Bury {
        /// The job.
        number: u64,
        /// Its last worker.
        worker: Option<ConnId>,
        /// Whether the job is stored.
        is_stored: bool,
    },
    /// A dead letter is a job again, unless that is gone by now: store it.
    Unbury {
        /// The job.
        job: JobId,
    },
    /// Remove a dead letter from the store.
    RemoveDead {
        /// The job.
        number: u64,
    },
    /// Store that a function is paused, or no longer.
    Pause(Box<PauseChange>),
    /// Ask another core to drop dead letters: all cores together have too many, and it has the
    /// oldest. See `Engine::trim_dead`.
    TrimDead {
        /// The core.
        core: usize,
    },
    /// Tell a worker with the option `cancel-notice` that it need not finish a job.
    CancelNotice {
        /// The worker.
        conn: ConnId,
        /// The job.
        number: u64,
    },
}

/// A pause that began or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PauseChange {
    /// Name of the function, which may be gone by now.
    pub function: Box<[u8]>,
    /// Until when it is paused; `None` = not any more.
    pub pause: Option<Pause>,
}

const _: () = assert!(size_of::<Effect>() == 24);
