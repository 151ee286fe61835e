//! Lines about requests and connections that are refused because a limit is reached: one a kind and
//! period, with a count and the remedy.
//!
//! Refusals in, log lines out. Knows what each kind means to an operator, and nothing of how it
//! comes about.
//!
//! Invariant: each refusal is counted in exactly one line, by the end of its period.

use tracing::warn;

use crate::engine::Now;
use crate::wire::ErrorReply;

/// Refusals of a kind are summed for so long before the next line.
const PERIOD_MS: u64 = 10_000;

/// A limit that requests or connections run into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    QueueFull,
    Memory,
    Registrations,
    Store,
    PayloadSize,
    Connections,
    Draining,
    Tls,
    Http,
}

/// Number of kinds.
pub(super) const KINDS: usize = Kind::ALL.len();

impl Kind {
    pub(super) const ALL: [Self; 9] = [
        Self::QueueFull,
        Self::Memory,
        Self::Registrations,
        Self::Store,
        Self::PayloadSize,
        Self::Connections,
        Self::Draining,
        Self::Tls,
        Self::Http,
    ];

    /// What the count of its refusals is called.
    pub(super) fn counter(self) -> &'static str {
        match self {
            Self::QueueFull => "refused_queue_full_total",
            Self::Memory => "refused_memory_total",
            Self::Registrations => "refused_registrations_total",
            Self::Store => "refused_store_total",
            Self::PayloadSize => "refused_size_total",
            Self::Connections => "refused_connections_total",
            Self::Draining => "refused_draining_total",
            Self::Tls => "refused_tls_total",
            Self::Http => "refused_http_total",
        }
    }

    /// The kind of an error reply; `None` for mistakes of the peer's.
    pub(super) fn of(error: ErrorReply) -> Option<Self> {
        Some(match error {
            ErrorReply::QueueFull => Self::QueueFull,
            ErrorReply::OutOfMemory => Self::Memory,
            ErrorReply::OutOfMemoryToRegister => Self::Registrations,
            ErrorReply::NotStored => Self::Store,
            ErrorReply::PayloadTooLarge => Self::PayloadSize,
            ErrorReply::Draining => Self::Draining,
            _ => return None,
        })
    }

    fn line(self) -> &'static str {
        match self {
            Self::QueueFull => {
                "submissions refused: a function has as many jobs as maxqueue allows; start more \
                 workers, or raise it with the text command maxqueue"
            }
            Self::Memory => {
                "submissions refused: --memory-max is reached; start more workers, or raise it"
            }
            Self::Registrations => {
                "CAN_DO refused: --memory-max is reached; let workers name fewer functions, or \
                 raise it"
            }
            Self::Store => {
                "submissions refused: the store doesn't take them; its own lines say why"
            }
            Self::PayloadSize => {
                "packets refused: a body exceeds --job-size-max; raise it, or send less"
            }
            Self::Connections => {
                "connections turned away: --connections-max is reached; raise it, or let clients \
                 close theirs"
            }
            Self::Draining => {
                "submissions refused: the server finishes its jobs after SIGUSR1, or SIGTERM with \
                 --drain; clients are to use another server"
            }
            Self::Tls => {
                "TLS handshakes refused: this port speaks plain Gearman; leave the client's TLS \
                 option out"
            }
            Self::Http => {
                "HTTP requests refused: this port speaks Gearman; health checks may connect and \
                 close, or send the line version"
            }
        }
    }
}

/// Refusals of one kind.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    /// Since the last line.
    count: u64,
    /// Since the start.
    total: u64,
    /// When the next line may be written.
    next_ms: u64,
}

/// Refusals that weren't reported yet.
#[derive(Debug, Default)]
#[cfg_attr(debug_assertions, derive(Clone))]
pub(super) struct Refusals {
    tallies: [Tally; KINDS],
}

impl Refusals {
    /// Counts a refusal. `peer` is asked for when a line is written, which under load is seldom.
    #[cold]
    pub(super) fn add(&mut self, kind: Kind, peer: impl FnOnce() -> String, now: Now) {
        let tally = &mut self.tallies[kind as usize];
        tally.count += 1;
        tally.total += 1;
        if now.mono_ms >= tally.next_ms {
            let count = std::mem::take(&mut tally.count);
            tally.next_ms = now.mono_ms + PERIOD_MS;
            warn!(count, last = peer(), "{}", kind.line());
        }
    }

    /// Refusals of each kind since the start.
    pub(super) fn totals(&self) -> [u64; KINDS] {
        self.tallies.map(|tally| tally.total)
    }

    /// When `report` has something to write.
    #[inline]
    pub(super) fn deadline_ms(&self) -> Option<u64> {
        let open = self.tallies.iter().filter(|tally| tally.count > 0);
        open.map(|tally| tally.next_ms).min()
    }

    /// Writes the lines of kinds whose period is over.
    pub(super) fn report(&mut self, now: Now) {
        for kind in Kind::ALL {
            let tally = &mut self.tallies[kind as usize];
            if tally.count > 0 && now.mono_ms >= tally.next_ms {
                let count = std::mem::take(&mut tally.count);
                tally.next_ms = now.mono_ms + PERIOD_MS;
                warn!(count, "{}", kind.line());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_refusal_is_reported_at_once_and_the_others_summed() {
        let at = |mono_ms| Now { mono_ms, unix_ms: 0 };
        let mut refusals = Refusals::default();
        assert_eq!(refusals.deadline_ms(), None);
        refusals.add(Kind::Memory, String::new, at(5));
        assert_eq!(refusals.deadline_ms(), None, "it is reported");
        for ms in 6..9 {
            refusals.add(Kind::Memory, String::new, at(ms));
        }
        refusals.add(Kind::Store, String::new, at(9));
        assert_eq!(refusals.deadline_ms(), Some(5 + PERIOD_MS));
        refusals.report(at(4 + PERIOD_MS));
        assert_eq!(refusals.tallies[Kind::Memory as usize].count, 3, "its period isn't over");
        refusals.report(at(5 + PERIOD_MS));
        assert_eq!(refusals.deadline_ms(), None);
    }
}
