//! What may happen in a world, and what is done wrong in it.
//!
//! Invariant: a scenario without a fault breaks no rule.

use crate::database::ServerId;

/// A rule that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Transactions are applied whatever the generation is.
    NoFence,
    /// An owner suspends itself at the end of the lease only.
    NoMargin,
    /// Watching goes on over failed reads and new sessions.
    AnySession,
    /// A new session of an owner goes on in the old generation.
    NoReclaim,
    /// An insert without an answer is tried again in the next home as it is.
    RetryInNewHome,
}

/// How often each thing may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scenario {
    /// The servers that it happens to.
    pub(crate) hits: &'static [ServerId],
    /// Until which tick it begins.
    pub(crate) begin: u32,
    /// When the world ends, in ticks.
    pub(crate) ticks: u32,
    /// Servers that are killed.
    pub(crate) kills: u8,
    /// Servers that leave.
    pub(crate) leaves: u8,
    /// Servers that are stopped for some time.
    pub(crate) pauses: u8,
    /// Servers that are cut off from the database for some time.
    pub(crate) cuts: u8,
    /// Outages of the database.
    pub(crate) outages: u8,
    /// Commits that take their time.
    pub(crate) delays: u8,
    /// Commits whose answers are lost.
    pub(crate) losses: u8,
    /// Jobs that clients submit.
    pub(crate) submissions: u8,
    /// Jobs that workers run.
    pub(crate) runs: u8,
    /// Whether the database tells which owners hold their locks.
    pub(crate) tells_locks: bool,
    /// What is wrong.
    pub(crate) fault: Option<Fault>,
}
