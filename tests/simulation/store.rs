//! A store that commits when it likes, fails when it likes, and survives when the power is cut.
//!
//! Operations in, outcomes out, in their order. It keeps the rules of the server's writer: a job
//! that somebody waits for is given up when its commit fails, reported, and removed in case it is
//! there after all; everything else is tried again before anything that came later.
//!
//! Invariant: `image` changes by whole commits only.

use std::collections::{BTreeMap, VecDeque};

use ringgear::engine::record::{Operation, Row};

#[derive(Debug, Default)]
pub(crate) struct Store {
    /// What is on disk.
    pub(crate) image: BTreeMap<u64, Row>,
    /// What is to be done, the oldest first.
    pub(crate) queue: VecDeque<Operation>,
    /// Jobs that are kept or given up, which the shard isn't told of yet.
    pub(crate) outcomes: VecDeque<(u64, bool)>,
}

/// What a store had yet to do and to tell.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(crate) operations: Vec<Operation>,
    pub(crate) outcomes: Vec<(u64, bool)>,
}

impl Store {
    /// The first `count` operations are on disk.
    pub(crate) fn commit(&mut self, count: usize) {
        let batch: Vec<Operation> = self.queue.drain(..count).collect();
        self.apply(&batch);
        self.outcomes.extend(unanswered(&batch).map(|number| (number, true)));
    }

    /// The commit of the first `count` operations fails; or so it looks, and with `kept` it is on
    /// disk all the same.
    pub(crate) fn fail(&mut self, count: usize, kept: bool) {
        let batch: Vec<Operation> = self.queue.iter().take(count).cloned().collect();
        if kept {
            self.apply(&batch);
        }
        self.outcomes.extend(unanswered(&batch).map(|number| (number, false)));
        for operation in self.queue.iter_mut().take(count) {
            if let Operation::Insert { row, answered: false } = operation {
                *operation = Operation::Remove { number: row.number };
            }
        }
    }

    /// The power is cut, while a commit of `count` operations is on its way: it arrives or it
    /// doesn't. What else was to be done or told is forgotten, and is the answer.
    pub(crate) fn cut_power(&mut self, count: usize, arrives: bool) -> Lost {
        if arrives {
            let batch: Vec<Operation> = self.queue.drain(..count).collect();
            self.apply(&batch);
        }
        Lost {
            operations: self.queue.drain(..).collect(),
            outcomes: self.outcomes.drain(..).collect(),
        }
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.queue.is_empty() && self.outcomes.is_empty()
    }

    fn apply(&mut self, batch: &[Operation]) {
        for operation in batch {
            match operation {
                Operation::Insert { row, .. } => {
                    // One that is tried again may be there.
                    let old = self.image.insert(row.number, row.clone());
                    assert!(
                        old.is_none_or(|old| old.payload == row.payload),
                        "the number is taken"
                    );
                }
                Operation::Retry { number, runs } => {
                    if let Some(row) = self.image.get_mut(number) {
                        row.attempts = runs.attempts;
                        row.last_reason = runs.last_reason;
                    }
                }
                Operation::Remove { number } => {
                    self.image.remove(number);
                }
                other => unreachable!("{other:?}"),
            }
        }
    }
}

/// The jobs of a batch that somebody waits for.
fn unanswered(batch: &[Operation]) -> impl Iterator<Item = u64> {
    batch.iter().filter_map(|operation| match operation {
        Operation::Insert { row, answered: false } => Some(row.number),
        _ => None,
    })
}
