//! How many bytes and replies may wait before a connection pauses, and when it goes on.
//!
//! Numbers only. Each pause has its resume, lower, so that no connection turns on and off with
//! each packet.
//!
//! Invariant: resume < pause.

/// With more than this waiting to leave, a connection's lists wait, and if memory is short its
/// requests.
pub(in crate::shard) const OUTBOX_PAUSE_BYTES: usize = 1 << 20;
/// With no more than this waiting, they go on.
pub(in crate::shard) const OUTBOX_RESUME_BYTES: usize = OUTBOX_PAUSE_BYTES / 4;
/// With this many replies that wait for the store or other cores, a connection's requests wait.
pub(in crate::shard) const SLOTS_PAUSE: usize = 1024;
/// With no more than these, they go on.
pub(in crate::shard) const SLOTS_RESUME: usize = SLOTS_PAUSE / 2;
/// With more than this waiting behind a list, a grab at another core or a migration to another
/// core, a connection isn't read.
pub(in crate::shard) const INBOUND_PAUSE_BYTES: usize = 1 << 20;
