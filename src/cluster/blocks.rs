//! Blocks of sequence numbers: a job's number in, the partition that it belongs to out.
//!
//! A server takes blocks from the database and numbers its jobs from them. A job never changes its
//! partition, and all jobs of a block belong to one partition.
//!
//! Invariant: a block that is known never changes its partition.

use std::collections::BTreeMap;
use std::ops::Range;

use super::partition::PartitionId;
use crate::engine::handle::SLOT_BITS;

/// Bits of a sequence number within a block.
pub const BLOCK_BITS: u32 = 28;

/// The partitions of all blocks that are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocks(BTreeMap<u64, PartitionId>);

impl Blocks {
    /// Notes the partition of a block.
    pub fn insert(&mut self, block: u64, partition: PartitionId) {
        self.0.insert(block, partition);
    }

    /// The largest block that is known.
    #[must_use]
    pub fn last(&self) -> Option<u64> {
        self.0.last_key_value().map(|(&block, _)| block)
    }

    /// The blocks of a partition, in ascending order.
    pub fn of(&self, partition: PartitionId) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().filter(move |&(_, &found)| found == partition).map(|(&block, _)| block)
    }

    /// The partition of the job of this number. Jobs from before the first block are in partition
    /// 0; `None` for a block that isn't known.
    #[must_use]
    pub fn partition_of(&self, number: u64) -> Option<PartitionId> {
        let block = block_of(number >> SLOT_BITS);
        match self.0.first_key_value() {
            Some((&first, _)) if block < first => Some(0),
            None => Some(0),
            _ => self.0.get(&block).copied(),
        }
    }
}

/// The block of a sequence number.
#[must_use]
pub fn block_of(sequence: u64) -> u64 {
    sequence >> BLOCK_BITS
}

/// The sequence numbers of blocks.
#[must_use]
pub fn sequences(blocks: Range<u64>) -> Range<u64> {
    blocks.start << BLOCK_BITS..blocks.end << BLOCK_BITS
}
