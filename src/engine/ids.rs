//! Numbers of connections and submissions, and the time.
//!
//! Values only. Knows nothing of the records that they number.
//!
//! Invariant: a number is reused once its record is removed.

/// Number of a connection, chosen by the shard and reused after a disconnect.
pub type ConnId = u32;

/// Longest unique key and reducer name in bytes (gearmand's check; its store cuts them to 63).
pub const UNIQUE_BYTES_MAX: usize = 64;

/// Number of a submission that waits for the store.
pub type Ticket = u32;

/// The time by two clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of the monotonic clock, for durations.
    pub mono_ms: u64,
    /// Milliseconds since 1970, for the start of delayed jobs.
    pub unix_ms: u64,
}
