//! What is counted and logged about one server: changes in, sentences out.
//!
//! Many instances use the same server, and each tries it many times. So what the log says is about
//! all of them: that no instance has a connection any longer, and that it has been found again.
//!
//! Invariant: a connection is counted from its first packet until it breaks.

use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::connection::Broken;
use super::packet::BODY_BYTES_MAX;
use crate::counters::Counters;

/// Time before the same refusal is logged again.
const REFUSAL_EVERY: Duration = Duration::from_secs(60);

/// How an instance stands with a server.
#[derive(Debug)]
pub(super) struct Standing {
    /// The server as the file writes it.
    server: String,
    /// The instance's id.
    instance: String,
    counters: Rc<Counters>,
    is_up: bool,
    /// The last refusal that was logged, and when.
    refused: Option<(Bytes, Instant)>,
}

impl Standing {
    /// A server that nothing is known of yet.
    pub(super) fn new(server: String, instance: String, counters: Rc<Counters>) -> Self {
        counters.connections.borrow_mut().entry(server.clone()).or_default();
        Self { server, instance, counters, is_up: false, refused: None }
    }

    /// Notes a packet of the server.
    pub(super) fn answered(&mut self) {
        if self.is_up {
            return;
        }
        self.is_up = true;
        *self.counters.connections.borrow_mut().entry(self.server.clone()).or_default() += 1;
        if self.counters.unreachable.borrow_mut().remove(&self.server) {
            info!(server = %self.server, "the server is back");
        }
    }

    /// Notes that the connection, or an attempt to connect, failed.
    pub(super) fn broke(&mut self, broken: &Broken) {
        let others = self.leave();
        debug!(server = %self.server, instance = %self.instance, "no connection: {broken}");
        if others == 0 && self.counters.unreachable.borrow_mut().insert(self.server.clone()) {
            warn!(
                server = %self.server,
                "the server can't be reached: {broken}; {}. It is tried again until it answers",
                remedy(broken)
            );
        }
    }

    /// Notes an ERROR of the server.
    pub(super) fn refused(&mut self, code: Bytes, text: Bytes, now: Instant) {
        let is_new = self.refused.as_ref().is_none_or(|(last, at)| {
            last != &code || now.saturating_duration_since(*at) >= REFUSAL_EVERY
        });
        if !is_new {
            return;
        }
        warn!(
            server = %self.server,
            instance = %self.instance,
            "the server refused a packet: {} {}; look at its log, and whether its access rules \
             admit this worker's functions",
            code.escape_ascii(),
            text.escape_ascii(),
        );
        self.refused = Some((code, now));
    }

    /// Notes that a packet about a job was too large to be sent.
    pub(super) fn too_large(&self, handle: &[u8]) {
        warn!(
            server = %self.server,
            instance = %self.instance,
            handle = %handle.escape_ascii(),
            "what the command wrote is larger than a packet may be ({BODY_BYTES_MAX} bytes) and \
             wasn't sent: lower result-max, and have it write large results elsewhere",
        );
    }

    /// Takes the connection out of the count; returns how many are left.
    fn leave(&mut self) -> usize {
        let mut connections = self.counters.connections.borrow_mut();
        let count = connections.entry(self.server.clone()).or_default();
        *count -= usize::from(std::mem::take(&mut self.is_up));
        *count
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.leave();
    }
}

/// What an operator can do.
fn remedy(broken: &Broken) -> &'static str {
    match broken {
        Broken::Closed => "look at its log for why it ended or closed the connection",
        Broken::Hung(_) => "look whether it is overloaded or was stopped",
        Broken::Malformed(_) => {
            "`servers` has to name a Gearman server, and `[tls]` be given if it speaks TLS"
        }
        Broken::Io(error) => match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::NotFound => {
                "start it, or correct its address in `servers`"
            }
            ErrorKind::PermissionDenied => "let the manager's user write to its socket",
            ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
                "check the network and the firewalls on the way"
            }
            ErrorKind::InvalidData => {
                "check the files in `[tls]`, and that the server speaks TLS on this port"
            }
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => {
                "look at its log for why it ended or closed the connection"
            }
            _ => "check its address in `servers`, and the network",
        },
    }
}
