//! A store that commits when it likes, fails when it likes, and survives when the power is cut.
//!
//! Operations in, outcomes out, in their order. It keeps the rules of the server's writer: a job
//! that somebody waits for is given up when its commit fails, reported, and removed in case it is
//! there after all; everything else is tried again before anything that came later.
//!
//! Invariant: `image` changes by whole commits only.

use std::collections::{BTreeMap, VecDeque};

use ringgear::engine::record::{DeadRow, Operation, Pause, Row};

/// What is on disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    pub(crate) jobs: BTreeMap<u64, Row>,
    pub(crate) dead: BTreeMap<u64, DeadRow>,
    pub(crate) pauses: BTreeMap<Vec<u8>, Pause>,
}

impl Image {
    /// Dead letters as they are loaded.
    pub(crate) fn dead_in_order(&self) -> Vec<&DeadRow> {
        let mut rows: Vec<&DeadRow> = self.dead.values().collect();
        rows.sort_by_key(|row| (row.died_ms, row.row.number));
        rows
    }

    /// Whether a job is there, dead or alive.
    pub(crate) fn has(&self, number: u64) -> bool {
        self.jobs.contains_key(&number) || self.dead.contains_key(&number)
    }

    /// Whether nothing is there.
    pub(crate) fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.dead.is_empty() && self.pauses.is_empty()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Store {
    pub(crate) image: Image,
    /// What is to be done, the oldest first.
    pub(crate) queue: VecDeque<Operation>,
    /// Jobs that are kept or given up, which the shard isn't told of yet.
    pub(crate) outcomes: VecDeque<(u64, bool)>,
    /// The commit that failed last is tried again as a whole.
    again: usize,
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
        let count = count.max(std::mem::take(&mut self.again));
        let batch: Vec<Operation> = self.queue.drain(..count).collect();
        self.apply(&batch);
        self.outcomes.extend(unanswered(&batch).map(|number| (number, true)));
    }

    /// The commit of the first `count` operations fails; or so it looks, and with `kept` it is on
    /// disk all the same.
    pub(crate) fn fail(&mut self, count: usize, kept: bool) {
        let count = count.max(self.again);
        self.again = count;
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
        let count = count.max(std::mem::take(&mut self.again));
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
        let Image { jobs, dead, pauses } = &mut self.image;
        for operation in batch {
            match operation {
                Operation::Insert { row, .. } => {
                    // One that is tried again may be there.
                    let old = jobs.insert(row.number, row.clone());
                    assert!(
                        old.is_none_or(|old| old.payload == row.payload),
                        "the number is taken"
                    );
                }
                Operation::Retry { number, runs } => {
                    if let Some(row) = jobs.get_mut(number) {
                        row.attempts = runs.attempts;
                        row.run_at_ms = runs.run_at_ms;
                        row.last_reason = runs.last_reason;
                        row.was_lost = runs.was_lost;
                    }
                }
                Operation::Remove { number } => {
                    jobs.remove(number);
                }
                Operation::Bury(row) => {
                    jobs.remove(&row.row.number);
                    dead.insert(row.row.number, DeadRow::clone(row));
                }
                Operation::Unbury(row) => {
                    dead.remove(&row.number);
                    jobs.insert(row.number, Row::clone(row));
                }
                Operation::RemoveDead { number } => {
                    dead.remove(number);
                }
                Operation::Pause { function, pause: Some(pause) } => {
                    pauses.insert(function.to_vec(), *pause);
                }
                Operation::Pause { function, pause: None } => {
                    pauses.remove(&function[..]);
                }
            }
        }
        let both = jobs.keys().find(|number| dead.contains_key(number));
        assert_eq!(both, None, "a job that is dead and alive");
    }
}

/// The jobs of a batch that somebody waits for.
fn unanswered(batch: &[Operation]) -> impl Iterator<Item = u64> {
    batch.iter().filter_map(|operation| match operation {
        Operation::Insert { row, answered: false } => Some(row.number),
        _ => None,
    })
}
