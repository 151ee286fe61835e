//! Numbers by which the engine and its users name connections and submissions, and the time.
//!
//! Knows nothing of what they name.
//!
//! Invariant: a number is given to the next record once its record is gone.

/// Number of a connection, given out by the shard and reused after a disconnect.
pub type ConnId = u32;

/// Longest unique key and reducer name in bytes (gearmand's check; its store then cut them to 63).
pub const UNIQUE_BYTES_MAX: usize = 64;

/// Identifies a submission that waits for the store.
pub type Ticket = u32;

/// The time, in two clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a clock that never goes back, for durations.
    pub mono_ms: u64,
    /// Milliseconds since 1970, for the start of delayed jobs.
    pub unix_ms: u64,
}
