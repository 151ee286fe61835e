//! What the store's thread reports to a core.
//!
//! Knows rows and numbers, and neither the store nor the cores.
//!
//! Invariant: reports to a core are in the order of what they tell.

use std::ops::Range;
use std::sync::Arc;

use crate::cluster::partition::PartitionId;
use crate::engine::record::{DeadRow, Row};
use crate::store::own_pauses::PauseChange;

/// A report to a core. Numbers are those of Inserts that were not answered yet, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The jobs are on disk.
    Stored {
        /// The jobs.
        numbers: Vec<u64>,
    },
    /// The jobs are refused: they are not stored, or removed before a later start can load them.
    Failed {
        /// The jobs.
        numbers: Vec<u64>,
        /// One sentence.
        reason: Arc<str>,
    },
    /// More sequence numbers are reserved; reported to every core.
    Reserved {
        /// The numbers.
        sequences: Range<u64>,
    },
    /// The store has lost these committed jobs and dead letters; reported to every core, and each
    /// core sends those that it has again.
    Missing {
        /// Their numbers.
        numbers: Arc<[u64]>,
    },
    /// Another server owns a partition: its jobs and dead letters leave memory; reported to every
    /// core.
    Dropped {
        /// The partition.
        partition: PartitionId,
        /// Whether it is the one of new jobs: `Home` follows.
        is_home: bool,
    },
    /// The server has another home, as the earlier one is lost; reported to every core. Jobs that
    /// wait for the store are numbered anew.
    Home {
        /// Sequence numbers that are reserved in it.
        sequences: Range<u64>,
    },
    /// Jobs and dead letters of an adopted partition that belong to this core, the largest number
    /// first over all reports for the partition.
    Adopted {
        /// Jobs.
        jobs: Vec<Row>,
        /// Dead letters.
        dead: Vec<DeadRow>,
    },
    /// Other servers have paused or resumed functions; reported to every core.
    Pauses {
        /// The functions, and until when they are paused.
        changes: Arc<[PauseChange]>,
    },
    /// Answers to lookups of this core: the numbers, and whether the store has the jobs.
    Found {
        /// Each number once.
        numbers: Vec<(u64, bool)>,
    },
    /// The core is to begin a turn: a beat vouches for it, or the server is suspended no more.
    Wake,
    /// Another server owns the store; reported once to every core, and nothing after it. Inserts
    /// without an outcome may have been stored or not.
    Lost(Arc<str>),
}
