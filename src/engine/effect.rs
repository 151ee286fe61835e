//! Effects of commands on other connections and on the store.
//!
//! The engine writes them, the shard delivers them in order. Knows no packets.
//!
//! Invariant: an effect refers to records by number only, so it borrows nothing from the command.

use super::ids::{ConnId, Ticket};
use super::job::JobId;

/// A packet for another connection than the command's, or a store operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// Store the number of workers that lost a job.
    SetAttempts {
        /// The job.
        number: u64,
        /// Workers that lost it.
        attempts: u32,
    },
    /// Remove a job from the store.
    Remove {
        /// The job.
        number: u64,
    },
}
