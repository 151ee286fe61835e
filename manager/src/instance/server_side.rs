//! What the run of a job needs of the job's server, so that tests can take the server's place.
//!
//! Invariant: speaks of the job that runs, and of no other.

use crate::gearman::{Client, Job, Report, Withdrawal};

/// The server of the job that runs.
pub(super) trait ServerSide {
    /// Sends a packet about the job; waits while the server doesn't read.
    async fn report(&mut self, report: Report);

    /// Waits until the job is withdrawn. May be dropped while it waits.
    async fn withdrawn(&mut self) -> Withdrawal;
}

/// A job and the client that was assigned it.
#[derive(Debug)]
pub(super) struct Assignment<'a> {
    /// The client.
    pub(super) client: &'a mut Client,
    /// The job.
    pub(super) job: &'a Job,
}

impl ServerSide for Assignment<'_> {
    async fn report(&mut self, report: Report) {
        self.client.report(self.job, report).await;
    }

    async fn withdrawn(&mut self) -> Withdrawal {
        self.client.withdrawn().await
    }
}
