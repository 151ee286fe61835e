//! A store in memory that fails on demand, for tests of the writer.
//!
//! Commits are counted from 1. After a power loss only `durable` is left; `restart` is the next
//! start.
//!
//! Invariant: `live` differs from `durable` only during a commit and after a power loss.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use bytes::Bytes;

use super::namespace::{Record, next_mark};
use super::{Committed, Store, StoreError};
use crate::engine::record::{DeadRow, Operation, Pause, Row, Runs};

/// What happens to a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Unavailable, and nothing is applied.
    Refused,
    /// Unavailable, and all is applied: the answer was lost.
    Unanswered,
    /// Neither this commit nor a later one reaches the disk until `restart`.
    PowerLoss,
    /// Another server owns the store.
    Lost,
    /// The store is damaged.
    Unusable,
}

/// What a store has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tables {
    pub(super) jobs: BTreeMap<u64, Row>,
    pub(super) dead: BTreeMap<u64, DeadRow>,
    pub(super) pauses: BTreeMap<Bytes, Pause>,
}

impl Tables {
    /// Applies an operation.
    pub(super) fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Insert { row, .. } => {
                self.jobs.insert(row.number, row.clone());
            }
            Operation::Retry { number, runs } => {
                let Runs { attempts, run_at_ms, last_reason, was_lost } = *runs;
                if let Some(row) = self.jobs.get_mut(number) {
                    *row = Row { attempts, run_at_ms, last_reason, was_lost, ..row.clone() };
                }
            }
            Operation::Remove { number } => {
                self.jobs.remove(number);
            }
            Operation::Bury(dead) => {
                self.jobs.remove(&dead.row.number);
                self.dead.insert(dead.row.number, (**dead).clone());
            }
            Operation::Unbury(row) => {
                self.dead.remove(&row.number);
                self.jobs.insert(row.number, (**row).clone());
            }
            Operation::RemoveDead { number } => {
                self.dead.remove(number);
            }
            Operation::Pause { function, pause: Some(pause) } => {
                self.pauses.insert(function.clone(), *pause);
            }
            Operation::Pause { function, pause: None } => {
                self.pauses.remove(function);
            }
        }
    }

    /// All that a store loads.
    pub(super) fn load(store: &mut dyn Store) -> Result<Self, StoreError> {
        let mut tables = Self::default();
        let Self { jobs, dead, pauses } = &mut tables;
        store.load(&mut |row| drop(jobs.insert(row.number, row)))?;
        store.load_dead(&mut |letter| drop(dead.insert(letter.row.number, letter)))?;
        store.load_pauses(&mut |function, pause| {
            pauses.insert(function, pause);
        })?;
        Ok(tables)
    }
}

#[derive(Debug, Default)]
struct State {
    live: Tables,
    durable: Tables,
    /// All commits so far, failed ones included.
    commits: Vec<Vec<Operation>>,
    faults: BTreeMap<usize, Fault>,
    /// The fault of commits without a fault of their own.
    down: Option<Fault>,
    powerless: bool,
    /// What the store has lost, for `take_missing`.
    missing: Vec<u64>,
    /// Commits wait while this is set.
    held: bool,
    /// The record.
    prefix: Option<Vec<u8>>,
    mark: Option<u64>,
}

/// The store, and the handle by which a test controls and inspects it.
#[derive(Clone, Debug, Default)]
pub(super) struct Faulty(Arc<(Mutex<State>, Condvar)>);

impl Faulty {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap()
    }

    /// The `nth` commit from now on has this fault; the first is 1.
    pub(super) fn fail_at(&self, nth: usize, fault: Fault) {
        let mut state = self.state();
        let at = state.commits.len() + nth;
        state.faults.insert(at, fault);
    }

    /// All commits have this fault until the next call.
    pub(super) fn set_down(&self, fault: Option<Fault>) {
        self.state().down = fault;
    }

    /// Makes commits wait, or continue.
    pub(super) fn hold(&self, held: bool) {
        self.state().held = held;
        self.0.1.notify_all();
    }

    /// Loses a job or dead letter.
    pub(super) fn lose(&self, number: u64) {
        let state = &mut *self.state();
        for tables in [&mut state.live, &mut state.durable] {
            tables.jobs.remove(&number);
            tables.dead.remove(&number);
        }
        state.missing.push(number);
    }

    /// Waits until `count` commits have begun.
    pub(super) fn wait_for_commits(&self, count: usize) {
        let state = self.state();
        let limit = std::time::Duration::from_secs(10);
        let begun = |state: &mut State| state.commits.len() < count;
        let waited = self.0.1.wait_timeout_while(state, limit, begun).unwrap().1;
        assert!(!waited.timed_out(), "no {count} commits in {limit:?}");
    }

    /// The operations of each commit.
    pub(super) fn commits(&self) -> Vec<Vec<Operation>> {
        self.state().commits.clone()
    }

    /// The jobs that a start would load now.
    pub(super) fn durable(&self) -> Vec<Row> {
        self.state().durable.jobs.values().cloned().collect()
    }

    /// All that a start would load now.
    pub(super) fn tables(&self) -> Tables {
        self.state().durable.clone()
    }

    /// The store after the power loss.
    pub(super) fn restart(&self) -> Self {
        let durable = self.state().durable.clone();
        let state = State { live: durable.clone(), durable, ..State::default() };
        Self(Arc::new((Mutex::new(state), Condvar::new())))
    }
}

impl Store for Faulty {
    fn record(&mut self) -> Result<Record, StoreError> {
        let State { prefix, mark, live, .. } = &*self.state();
        let numbers = live.jobs.keys().chain(live.dead.keys());
        let last = numbers.max().copied();
        Ok(Record { prefix: prefix.clone(), mark: *mark, last })
    }

    fn reserve(&mut self, prefix: &[u8], from: u64) -> Result<Range<u64>, StoreError> {
        let mut state = self.state();
        match state.down {
            Some(Fault::Lost) => return Err(StoreError::Lost("taken by another".into())),
            Some(_) => return Err(StoreError::Unavailable("refused".into())),
            None => {}
        }
        let mark = next_mark(from);
        (state.prefix, state.mark) = (Some(prefix.to_vec()), Some(mark));
        Ok(from..mark)
    }

    fn load(&mut self, each: &mut dyn FnMut(Row)) -> Result<(), StoreError> {
        self.state().live.jobs.values().cloned().for_each(each);
        Ok(())
    }

    fn load_dead(&mut self, each: &mut dyn FnMut(DeadRow)) -> Result<(), StoreError> {
        let mut dead: Vec<DeadRow> = self.state().live.dead.values().cloned().collect();
        dead.sort_by_key(|letter| (letter.died_ms, letter.row.number));
        dead.into_iter().for_each(each);
        Ok(())
    }

    fn load_pauses(&mut self, each: &mut dyn FnMut(Bytes, Pause)) -> Result<(), StoreError> {
        let pauses = self.state().live.pauses.clone();
        pauses.into_iter().for_each(|(function, pause)| each(function, pause));
        Ok(())
    }

    fn commit(&mut self, operations: &[Operation]) -> Result<Committed, StoreError> {
        let mut state = self.state();
        state.commits.push(operations.to_vec());
        let nth = state.commits.len();
        self.0.1.notify_all();
        let mut state = self.0.1.wait_while(state, |state| state.held).unwrap();
        let fault = state.faults.remove(&nth).or(state.down);
        let unavailable = |reason: &str| Err(StoreError::Unavailable(reason.into()));
        match fault {
            _ if state.powerless => return unavailable("no power"),
            Some(Fault::Refused) => return unavailable("refused"),
            Some(Fault::Lost) => return Err(StoreError::Lost("taken by another".into())),
            Some(Fault::Unusable) => return Err(StoreError::Unusable("damaged".into())),
            Some(Fault::Unanswered | Fault::PowerLoss) | None => {}
        }
        operations.iter().for_each(|operation| state.live.apply(operation));
        if fault == Some(Fault::PowerLoss) {
            state.powerless = true;
            return unavailable("no power");
        }
        state.durable = state.live.clone();
        if fault == Some(Fault::Unanswered) {
            return unavailable("no answer");
        }
        Ok(Committed { changed: 1, ..Committed::default() })
    }

    fn check(&mut self) -> Result<Committed, StoreError> {
        match self.state().down {
            Some(Fault::Lost) => Err(StoreError::Lost("taken by another".into())),
            _ => Ok(Committed::default()),
        }
    }

    fn take_missing(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.state().missing)
    }
}
