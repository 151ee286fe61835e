//! What a command causes on other connections and in the store.
//!
//! The engine writes effects, the shard delivers them in their order. Knows no packets.
//!
//! Invariant: an effect names records by numbers only, so it is as good after the command as in it.

use super::ids::{ConnId, Ticket};
use super::job::JobId;

/// Something to be sent to a connection that didn't ask for it, or to be done by the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Wake a sleeping worker.
    Noop {
        /// The worker.
        conn: ConnId,
    },
    /// Pass the `WORK_*` packet that is being handled on to a client.
    Forward {
        /// The client.
        conn: ConnId,
    },
    /// Tell a client that its job was dropped.
    Fail {
        /// The client.
        conn: ConnId,
        /// The job.
        number: u64,
    },
    /// Tell the home of a remote worker that a queue has jobs for it; see `Engine::ready`.
    Hint {
        /// The worker.
        conn: ConnId,
    },
    /// The submission that waited for the store is accepted.
    Accepted {
        /// The client.
        conn: ConnId,
        /// Its submission.
        ticket: Ticket,
        /// The job.
        number: u64,
    },
    /// The submission that waited for the store is not accepted.
    Refused {
        /// The client.
        conn: ConnId,
        /// Its submission.
        ticket: Ticket,
    },
    /// The store is to keep a job. `stored` or `not_stored` answers, unless the client has been
    /// answered.
    Insert {
        /// The job.
        job: JobId,
        /// Whether the client has its answer.
        answered: bool,
    },
    /// The store is to keep how many workers lost a job.
    SetAttempts {
        /// The job.
        number: u64,
        /// Workers that lost it.
        attempts: u32,
    },
    /// The store is to forget a job.
    Remove {
        /// The job.
        number: u64,
    },
}
