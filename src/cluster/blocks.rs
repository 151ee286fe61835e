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
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

#[cfg(test)]
mod tests {
    use super::{BLOCK_BITS, Blocks, block_of, sequences};
    use crate::engine::handle::job_number;

    fn numbers(block: u64) -> [u64; 2] {
        let range = sequences(block..block + 1);
        [job_number(range.start, 0), job_number(range.end - 1, 255)]
    }

    #[test]
    fn a_block_has_its_sequences_and_no_others() {
        let range = sequences(3..5);
        assert_eq!(range.end - range.start, 2 << BLOCK_BITS);
        assert_eq!([block_of(range.start), block_of(range.end - 1)], [3, 4]);
        assert_eq!([block_of(range.start - 1), block_of(range.end)], [2, 5]);
    }

    #[test]
    fn all_numbers_of_a_block_are_in_its_partition() {
        let mut blocks = Blocks::default();
        blocks.insert(8, 2);
        blocks.insert(7, 1);
        assert_eq!(blocks.last(), Some(8));
        assert_eq!(numbers(7).map(|number| blocks.partition_of(number)), [Some(1); 2]);
        assert_eq!(numbers(8).map(|number| blocks.partition_of(number)), [Some(2); 2]);
    }

    #[test]
    fn jobs_from_before_the_first_block_are_in_partition_0() {
        let mut blocks = Blocks::default();
        assert_eq!(numbers(6).map(|number| blocks.partition_of(number)), [Some(0); 2]);
        assert_eq!(blocks.last(), None);
        blocks.insert(7, 1);
        assert_eq!(numbers(6).map(|number| blocks.partition_of(number)), [Some(0); 2]);
    }

    #[test]
    fn a_block_that_is_not_known_is_in_no_partition() {
        let mut blocks = Blocks::default();
        blocks.insert(7, 1);
        blocks.insert(9, 1);
        for block in [8, 10] {
            assert_eq!(numbers(block).map(|number| blocks.partition_of(number)), [None; 2]);
        }
    }
}
