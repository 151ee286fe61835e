//! Operations that wait, and the commit that is attempted: entries in, one commit after the other
//! out.
//!
//! Knows neither the store nor which clients wait.
//!
//! Invariant: operations leave in the order in which they came, and an Insert with its Remove is
//! left out only if no commit with it was attempted.

use std::collections::VecDeque;
use std::time::Instant;

use foldhash::{HashSet, HashSetExt};

use super::{COMMIT_BYTES_MAX, COMMIT_OPERATIONS_MAX};
use crate::engine::record::Operation;

/// An operation that is in no commit yet.
pub(super) struct Entry {
    pub(super) core: usize,
    pub(super) operation: Operation,
    pub(super) arrived: Instant,
}

/// An Insert that a client waits for.
#[derive(Clone, Copy)]
pub(super) struct Awaited {
    pub(super) core: usize,
    pub(super) number: u64,
    pub(super) arrived: Instant,
}

impl Entry {
    /// The Insert that a client waits for, if it is one.
    pub(super) fn awaited(&self) -> Option<Awaited> {
        let Operation::Insert { row, answered: false } = &self.operation else { return None };
        Some(Awaited { core: self.core, number: row.number, arrived: self.arrived })
    }
}

/// Operations that are in no commit yet, the first one first.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) entries: VecDeque<Entry>,
    /// Number of entries at the head whose timeout has expired.
    examined: usize,
}

impl Queue {
    /// The first entry whose timeout hasn't expired.
    pub(super) fn next_unexpired(&self) -> Option<&Entry> {
        self.entries.get(self.examined)
    }

    /// Refuses the Inserts of the entries whose timeout has expired.
    pub(super) fn expire(&mut self, has_expired: impl Fn(Instant) -> bool) -> Vec<(usize, u64)> {
        let mut refused = Vec::new();
        while let Some(entry) = self.entries.get_mut(self.examined)
            && has_expired(entry.arrived)
        {
            if refuse(&mut entry.operation) {
                refused.extend(entry.operation.number().map(|number| (entry.core, number)));
            }
            self.examined += 1;
        }
        refused
    }

    /// Takes out what another server has now; returns the number of operations, and the Inserts
    /// among them that clients wait for.
    pub(super) fn remove(&mut self, is_lost: impl Fn(&Operation) -> bool) -> (usize, Vec<Awaited>) {
        let (before, examined) = (self.entries.len(), self.examined);
        let (mut awaited, mut at) = (Vec::new(), 0);
        self.entries.retain(|entry| {
            let is_kept = !is_lost(&entry.operation);
            if !is_kept {
                awaited.extend(entry.awaited());
                self.examined -= usize::from(at < examined);
            }
            at += 1;
            is_kept
        });
        (before - self.entries.len(), awaited)
    }
}

/// A commit that is attempted until it succeeds.
#[derive(Default)]
pub(super) struct Attempt {
    pub(super) operations: Vec<Operation>,
    /// The Inserts that clients wait for.
    pub(super) awaited: Vec<Awaited>,
    /// Number of operations that the commit completes, including those that it needn't write.
    pub(super) count: usize,
    /// When the first of them arrived.
    pub(super) arrived: Option<Instant>,
    /// The store has been asked to do it, so that it may have done it.
    pub(super) has_begun: bool,
}

impl Attempt {
    /// Forms the next commit from the queue.
    pub(super) fn gather(queue: &mut Queue) -> Self {
        let mut attempt = Self::default();
        let Self { operations, awaited, count, arrived, .. } = &mut attempt;
        *arrived = queue.entries.front().map(|entry| entry.arrived);
        let (mut bytes, mut inserted, mut gone) = (0, HashSet::new(), HashSet::new());
        let mut has_died = HashSet::new();
        while *count < COMMIT_OPERATIONS_MAX
            && bytes < COMMIT_BYTES_MAX
            && let Some(entry) = queue.entries.pop_front()
        {
            awaited.extend(entry.awaited());
            match &entry.operation {
                Operation::Insert { row, .. } => {
                    bytes += row.bytes();
                    inserted.insert(row.number);
                }
                // Inserted by this very commit, which hasn't been attempted: neither is written.
                Operation::Remove { number } if inserted.contains(number) => {
                    gone.insert(*number);
                }
                Operation::Bury(dead) => {
                    bytes += dead.bytes();
                    has_died.insert(dead.row.number);
                }
                Operation::Unbury(row) => {
                    bytes += row.bytes();
                    has_died.insert(row.number);
                }
                Operation::RemoveDead { number } => {
                    has_died.insert(*number);
                }
                Operation::Remove { .. } | Operation::Retry { .. } | Operation::Pause { .. } => {}
            }
            operations.push(entry.operation);
            *count += 1;
        }
        // All is written of a job that has died: an earlier commit may have stored its letter.
        gone.retain(|number| !has_died.contains(number));
        if !gone.is_empty() {
            operations.retain(|operation| {
                !operation.number().is_some_and(|number| gone.contains(&number))
            });
        }
        queue.examined = queue.examined.saturating_sub(*count);
        attempt
    }

    /// Refuses its Inserts.
    pub(super) fn refuse(&mut self) -> Vec<(usize, u64)> {
        self.operations.iter_mut().for_each(|operation| {
            refuse(operation);
        });
        self.awaited.drain(..).map(|it| (it.core, it.number)).collect()
    }

    /// Takes out what another server has now; returns the number of operations, and the Inserts
    /// among them that clients wait for and of which it is certain that they aren't stored.
    pub(super) fn remove(
        &mut self,
        is_lost: impl Fn(&Operation) -> bool,
        is_lost_number: impl Fn(u64) -> bool,
    ) -> (usize, Vec<Awaited>) {
        let before = self.operations.len();
        self.operations.retain(|operation| !is_lost(operation));
        let removed = before - self.operations.len();
        self.count -= removed;
        let (lost, awaited) = std::mem::take(&mut self.awaited)
            .into_iter()
            .partition::<Vec<_>, _>(|it| is_lost_number(it.number));
        self.awaited = awaited;
        (removed, if self.has_begun { Vec::new() } else { lost })
    }
}

/// Turns an Insert that a client waits for into a Remove, as a failed commit may have stored it.
fn refuse(operation: &mut Operation) -> bool {
    let Operation::Insert { row, answered: false } = operation else { return false };
    *operation = Operation::Remove { number: row.number };
    true
}
