//! Memory that this core has taken, and what all cores may still take.
//!
//! The sums of the engine, the table of connections and the messages on their way, and the limit.
//! Knows nothing of what is kept in it.
//!
//! Invariant: what is sent to another core counts here until it has arrived there.

use super::Shard;
use super::settings::Settings;

/// Memory that functions and registrations of a core may take in any case, in bytes.
const REGISTRY_BYTES_MIN: usize = 64 << 10;

impl Shard {
    /// Memory that jobs, dead letters, bytes on their way, the state of TLS and what peers may do
    /// take.
    #[inline]
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let Self { engine, connections, .. } = self;
        let (inbound_bytes, outbox_bytes) =
            (connections.inbound_bytes(), connections.outbox_bytes());
        let peer_bytes = connections.tls_bytes() + connections.access_bytes();
        let jobs_bytes = engine.job_bytes() + engine.dead().bytes();
        jobs_bytes + inbound_bytes + outbox_bytes + peer_bytes
    }

    /// Memory that functions, and what workers have registered for, take.
    #[inline]
    #[must_use]
    pub fn registry_bytes(&self) -> usize {
        self.engine.registry_bytes() + self.connections.remote_bytes()
    }

    /// Bytes that may still be allocated.
    #[inline]
    pub(super) fn memory_left(&self) -> usize {
        self.settings.memory_bytes_max.saturating_sub(self.taken_bytes())
    }

    /// Bytes that functions and registrations may still take: this core's share of a quarter of the
    /// memory is theirs whatever jobs take, as without workers jobs would stay for ever.
    #[inline]
    pub(super) fn registry_memory_left(&self) -> usize {
        let Settings { memory_bytes_max, cores, .. } = &self.settings;
        let share = (memory_bytes_max / 4 / cores.count).max(REGISTRY_BYTES_MIN);
        self.memory_left().max(share.saturating_sub(self.registry_bytes()))
    }

    /// Bytes that all cores have taken.
    #[inline]
    pub(super) fn taken_bytes(&self) -> usize {
        let own = self.memory_bytes() + self.registry_bytes();
        own.saturating_add_signed(self.outgoing.bytes() + self.other_cores.bytes)
    }
}
