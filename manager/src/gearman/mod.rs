//! The worker's side of the Gearman protocol: jobs of several servers in, reports about them out.
//!
//! Knows packets and connections, but no commands and no processes. It connects, again when a
//! connection breaks, announces functions and the client id, asks each server for a job in turn and
//! sleeps at all of them when none has any. `client` lets servers take turns; `link` is what it has
//! with each, over a `connection` of `packet`s, made by `connect` and `tls`; `standing` logs it.
//!
//! Invariant: at most one job is assigned at a time; each is finished once.

mod client;
mod connect;
mod connection;
mod link;
mod packet;
mod standing;
mod tls;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use self::client::Client;
pub use self::tls::tls;
use crate::config::Server;

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
