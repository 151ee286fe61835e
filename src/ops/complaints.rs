//! What peers may not, and connections that don't come about: counts, and lines of the log, at most
//! one a second for each address and reason.
//!
//! Refusals in, lines out. Knows no requests.
//!
//! Invariant: each refusal is counted once, and each line that is left out in one that is written.

use std::time::Duration;

use tracing::warn;

use crate::engine::Now;
use crate::protocol::access::RIGHTS;
use crate::protocol::peer_address::{PeerAddress, PeerHost};
use crate::shard::denials::{Denials, Refused};
use crate::shard::throttle::Throttle;
use crate::wire::tls::TlsFault;

/// All of them since the start.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    denials: Denials,
    tls_faults: Throttle<(PeerHost, String)>,
    /// A task calls `report` when it is due.
    is_reporting: bool,
}

impl Complaints {
    pub(super) fn note_denial(&mut self, refused: Refused, peer: PeerAddress, now: Now) {
        self.denials.note(refused, peer, now);
    }

    pub(super) fn note_tls_fault(&mut self, peer: PeerAddress, fault: &TlsFault, now: Now) {
        let key = (peer.host(), fault.reason.clone());
        if let Some(repeated) = self.tls_faults.note(key, now) {
            let TlsFault { reason, remedy, subject, .. } = fault;
            warn!(%peer, reason, subject, remedy, repeated, "tls refused by HTTP");
        }
    }

    /// Refusals by right since the start.
    pub(super) fn denials(&self) -> [u64; RIGHTS] {
        self.denials.totals()
    }

    /// Whether a task is to begin to call `report`.
    pub(super) fn begin_to_report(&mut self) -> bool {
        let is_new = self.deadline_ms().is_some() && !self.is_reporting;
        self.is_reporting |= is_new;
        is_new
    }

    /// Writes how many lines were left out. Returns when it is to be called again; `None`: not
    /// until `begin_to_report` says so.
    pub(super) fn report(&mut self, now: Now) -> Option<Duration> {
        self.denials.report(now);
        self.tls_faults.report(now, |key, repeated| match key {
            Some((host, reason)) => warn!(peer = %host, reason, repeated, "tls refused by HTTP"),
            None => {
                warn!(repeated, "tls refused by HTTP: too many addresses for a line each");
            }
        });
        let next = self.deadline_ms();
        self.is_reporting = next.is_some();
        next.map(|at_ms| Duration::from_millis(at_ms.saturating_sub(now.mono_ms).max(1)))
    }

    fn deadline_ms(&self) -> Option<u64> {
        self.denials.deadline_ms().into_iter().chain(self.tls_faults.deadline_ms()).min()
    }
}
