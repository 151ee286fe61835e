//! Hashes in, record numbers out: the hash tables of the engine, which grow and shrink in steps.
//!
//! Stores 4-byte record numbers only; the keys stay in the records, and the caller compares them.
//! A table that doubles all at once would stop the core for as long as a million records take to
//! move; here each insertion moves a few, and both tables are searched meanwhile.
//!
//! Invariant: while a table is being moved, the target has room for all of it, so a move never
//! starts before the last one has ended.

use hashbrown::HashTable;

/// Buckets of the old table that one insertion or removal looks at while moving. A full table of
/// `n` buckets holds 7/8 n entries and its successor has room for as many again: n / 32 insertions
/// don't fill it. A sparse one holds n / 8, and its successor is not sparse again before n / 32
/// removals.
const BUCKETS_MOVED_PER_STEP: usize = 32;

/// Smallest table, in entries.
const ENTRIES_MIN: usize = 28;

/// A set of record numbers that is searched by hash and comparison.
#[derive(Debug, Default)]
pub struct Index {
    table: HashTable<u32>,
    /// What still has to be moved into `table`; empty and without memory otherwise.
    old: HashTable<u32>,
    /// Buckets of `old` from here on may be filled.
    moved: usize,
}

impl Index {
    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len() + self.old.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The record with this hash for which `is_it` holds.
    #[inline]
    pub fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        if let Some(&id) = self.table.find(hash, |&id| is_it(id)) {
            return Some(id);
        }
        if self.old.is_empty() {
            return None;
        }
        self.old.find(hash, |&id| is_it(id)).copied()
    }

    /// Adds a record that isn't in yet. `hash_of` gives the hash of any record that is in.
    #[inline]
    pub fn insert(&mut self, hash: u64, id: u32, hash_of: impl Fn(u32) -> u64) {
        if self.table.len() == self.table.capacity() {
            self.resize((2 * self.table.len()).max(ENTRIES_MIN), &hash_of);
        }
        self.step(&hash_of);
        self.table.insert_unique(hash, id, |&id| hash_of(id));
    }

    /// Takes a record out that is in.
    #[inline]
    pub fn remove(&mut self, hash: u64, id: u32, hash_of: impl Fn(u32) -> u64) {
        if let Ok(entry) = self.table.find_entry(hash, |&other| other == id) {
            entry.remove();
        } else if let Ok(entry) = self.old.find_entry(hash, |&other| other == id) {
            entry.remove();
        } else {
            debug_assert!(false, "removed a record that isn't in");
        }
        let sparse = self.len() < self.table.capacity() / 8 && self.table.capacity() > ENTRIES_MIN;
        if sparse && self.old.is_empty() {
            self.resize((2 * self.len()).max(ENTRIES_MIN), &hash_of);
        }
        self.step(&hash_of);
    }

    /// Starts to move into a table for `entries`, once the last move has ended.
    fn resize(&mut self, entries: usize, hash_of: impl Fn(u32) -> u64) {
        while !self.old.is_empty() {
            debug_assert!(false, "the last move must have ended");
            self.step(&hash_of);
        }
        self.old = std::mem::replace(&mut self.table, HashTable::with_capacity(entries));
        self.moved = 0;
    }

    /// Moves some entries, if a move is going on.
    #[inline]
    fn step(&mut self, hash_of: impl Fn(u32) -> u64) {
        if self.old.num_buckets() <= 1 {
            return;
        }
        let end = (self.moved + BUCKETS_MOVED_PER_STEP).min(self.old.num_buckets());
        for bucket in self.moved..end {
            if let Ok(entry) = self.old.get_bucket_entry(bucket) {
                let (id, _) = entry.remove();
                self.table.insert_unique(hash_of(id), id, |&id| hash_of(id));
            }
        }
        self.moved = end;
        if self.old.is_empty() {
            self.old = HashTable::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// A bad hash on purpose: many records share one.
    fn hash_of(id: u32) -> u64 {
        u64::from(id / 3).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    #[test]
    fn grows_and_shrinks_without_ever_moving_more_than_a_step() {
        let mut index = Index::default();
        for id in 0..100_000 {
            let (before, was_moving) = (index.old.len(), !index.old.is_empty());
            index.insert(hash_of(id), id, hash_of);
            if was_moving {
                assert!(before - index.old.len() <= BUCKETS_MOVED_PER_STEP);
            }
        }
        assert_eq!(index.len(), 100_000);
        let full = index.table.capacity();
        for id in 0..99_990 {
            index.remove(hash_of(id), id, hash_of);
        }
        assert!(index.table.capacity() < full / 100, "memory goes back after a drain");
        assert_eq!(index.find(hash_of(99_995), |id| id == 99_995), Some(99_995));
    }

    proptest! {
        #[test]
        fn behaves_like_a_set(
            changes in prop::collection::vec((0u32..600, any::<bool>()), 0..3000),
        ) {
            let (mut index, mut model) = (Index::default(), HashSet::new());
            for (id, add) in changes {
                if add && model.insert(id) {
                    index.insert(hash_of(id), id, hash_of);
                } else if !add && model.remove(&id) {
                    index.remove(hash_of(id), id, hash_of);
                }
                prop_assert_eq!(index.len(), model.len());
                let found = index.find(hash_of(id), |other| other == id);
                prop_assert_eq!(found.is_some(), model.contains(&id));
            }
            for id in 0..600 {
                let found = index.find(hash_of(id), |other| other == id);
                prop_assert_eq!(found.is_some(), model.contains(&id));
            }
        }
    }
}
