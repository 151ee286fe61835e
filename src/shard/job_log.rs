//! Lines about the lives of jobs: the engine's events in, log lines out.
//!
//! Adds what the engine doesn't know: the handle as clients see it, and the address and client id
//! of the worker or client. Lines at WARN and INFO are throttled like all lines about peers.
//!
//! Invariant: a line names handle, function, unique key, attempts and age, and why the job is gone
//! or back in its queue.

use std::fmt;

use tracing::field::display;
use tracing::{Level, debug, enabled, info, warn};

use super::Shard;
use super::connections::Connections;
use super::remote::state::RemoteState;
use crate::engine::Outcome;
use crate::engine::event::{Event, JOBS, Loss, Step};
use crate::engine::reason::Reason;
use crate::engine::{ConnId, Now};
use crate::protocol::peer_address::PeerAddress;

/// Target of the log lines about connections, by which the level NOTICE leaves out those at INFO.
pub const PEERS: &str = "peers";

/// A connection as the log names it: `192.0.2.7:50321`, and its client id if it gave one.
#[derive(Debug)]
pub(super) struct PeerName {
    peer: PeerAddress,
    id: Option<Box<[u8]>>,
}

impl PeerName {
    /// How the log names a connection; `None` for a connection that is gone.
    pub(super) fn of(connections: &Connections, conn: ConnId) -> Option<Self> {
        let connection = connections.get(conn)?;
        let id = connection.session().client_id().map(Box::from);
        Some(Self { peer: connection.origin.peer, id })
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.peer)?;
        match &self.id {
            Some(id) => write!(f, " ({})", id.escape_ascii()),
            None => Ok(()),
        }
    }
}

/// What a line says of a step.
fn message(step: Step) -> &'static str {
    match step {
        Step::Submitted => "job submitted",
        Step::Joined => "submission joined a job",
        Step::Stored => "job stored",
        Step::NotStored => "job not stored",
        Step::Assigned => "job assigned",
        Step::Finished(Outcome::Complete) => "job completed",
        Step::Finished(Outcome::Fail | Outcome::Exception) => "job failed",
        Step::Requeued(_) => "job requeued",
        Step::Exhausted(_) | Step::Dropped => "job lost",
        Step::Cancelled => "job cancelled",
        Step::Abandoned => "job dropped",
        Step::Retried(_) => "job to be run again later",
        Step::Buried(_) => "job dead",
        Step::Unburied => "dead job requeued",
        Step::Expired => "job expired",
        Step::SetAside => "job left to the next server",
        Step::HandedOver => "job handed over to another server",
        Step::Adopted => "job adopted",
    }
}

/// Why it came to the step, where the message doesn't say all.
fn reason(step: Step) -> Option<&'static str> {
    Some(match step {
        Step::Finished(Outcome::Fail) => "WORK_FAIL",
        Step::Finished(Outcome::Exception) => "WORK_EXCEPTION",
        Step::Requeued(Loss::Disconnected) => "its worker's connection ended",
        Step::Requeued(Loss::Withdrawn) => "its worker withdrew the function",
        Step::Requeued(Loss::TimedOut) => "its worker's timeout is over",
        Step::Exhausted(Loss::Disconnected) => {
            "its worker's connection ended, and it has no attempts left"
        }
        Step::Exhausted(Loss::Withdrawn) => {
            "its worker withdrew the function, and it has no attempts left"
        }
        Step::Exhausted(Loss::TimedOut) => {
            "its worker's timeout is over, and it has no attempts left"
        }
        Step::Retried(reason) | Step::Buried(reason) => match reason {
            Reason::Lost => "its worker was lost",
            Reason::TimedOut => "its timeout is over",
            Reason::Fail => "WORK_FAIL",
            Reason::Exception => "WORK_EXCEPTION",
            Reason::Expired => "it wasn't started in time",
        },
        Step::Expired => "it wasn't started in time",
        Step::Dropped => "its function was dropped",
        Step::NotStored => "the store refused it",
        Step::Abandoned => "no client waits for it",
        _ => return None,
    })
}

impl Shard {
    /// Writes what has happened to jobs.
    #[inline]
    pub(super) fn log_jobs(&mut self, now: Now) {
        if self.engine.has_events() {
            self.log_job_events(now);
        }
    }

    #[cold]
    fn log_job_events(&mut self, now: Now) {
        for event in self.engine.take_events() {
            self.log_job_event(&event, now);
        }
    }

    fn log_job_event(&mut self, event: &Event, now: Now) {
        let peer = event.conn.and_then(|conn| self.peer_name(conn));
        let peer = peer.as_ref().map(display);
        let handle = self.settings.handles.text(event.number);
        let handle = handle.as_ref().escape_ascii();
        let function = event.function.escape_ascii();
        let unique = (!event.unique.is_empty()).then(|| display(event.unique.escape_ascii()));
        let (attempts, message) = (event.attempts, message(event.step));
        // In seconds, with one decimal.
        let age_s = (now.unix_ms.saturating_sub(event.submitted_ms) / 100) as f64 / 10.0;
        let reason = reason(event.step);
        macro_rules! line {
            ($level:ident) => {
                $level!(
                    target: JOBS, %handle, %function, unique, attempts, age_s, peer, reason,
                    "{message}"
                )
            };
        }
        match event.step.level() {
            Level::WARN => self.complaints.log(now, || line!(warn)),
            Level::INFO => self.complaints.log(now, || line!(info)),
            _ => line!(debug),
        }
    }

    /// Writes that a connection is gone, and how many jobs it had.
    pub(super) fn log_disconnected(&self, conn: ConnId) {
        if enabled!(target: PEERS, Level::INFO)
            && let Some(peer) = self.peer_name(conn)
        {
            let elsewhere = self.connections[conn].remote().map_or(0, RemoteState::jobs);
            let jobs = self.engine.running_of(conn) + elsewhere;
            let reason = self.connections[conn].end_reason.text();
            info!(target: PEERS, conn = conn.number(), %peer, jobs, reason, "disconnected");
        }
    }

    /// How the log names a connection; `None` for a connection that is gone.
    pub(super) fn peer_name(&self, conn: ConnId) -> Option<PeerName> {
        PeerName::of(&self.connections, conn)
    }
}
