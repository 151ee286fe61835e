//! A store in memory that fails when it is told to: for tests of whatever drives a store.
//!
//! Commits are counted from 1. Power loss leaves what was durable; `restart` is the next start.
//! Needs only `super`'s public names, so that tests outside the crate can include this file too.
//!
//! Invariant: `live` differs from `durable` only during a commit and after the power was lost.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use super::namespace::Record;
use super::{Store, StoreError};
use crate::engine::record::{Operation, Row};

/// What happens to a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Unavailable, and nothing of it is kept.
    Refused,
    /// Unavailable, and all of it is kept: the answer got lost.
    Unanswered,
    /// It never gets to the disk, and nothing else does until `restart`.
    PowerLoss,
    /// Another server has the store.
    Lost,
    /// The store turns out to be damaged.
    Unusable,
}

#[derive(Debug, Default)]
struct State {
    live: BTreeMap<u64, Row>,
    durable: BTreeMap<u64, Row>,
    /// Tries so far, with what each was to do.
    commits: Vec<Vec<Operation>>,
    faults: BTreeMap<usize, Fault>,
    /// What happens to commits without a fault of their own.
    down: Option<Fault>,
    powerless: bool,
    /// Jobs that were lost by a store that is in good order.
    missing: Vec<u64>,
    /// Commits wait as long as this is set.
    held: bool,
    /// What is on record.
    prefix: Option<Vec<u8>>,
    mark: Option<u64>,
}

/// The store, and the handle by which a test steers and inspects it.
#[derive(Clone, Debug, Default)]
pub(super) struct Faulty(Arc<(Mutex<State>, Condvar)>);

impl Faulty {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap()
    }

    /// The `nth` try of a commit from now on meets `fault`; the first is 1.
    pub(super) fn fail_at(&self, nth: usize, fault: Fault) {
        let mut state = self.state();
        let at = state.commits.len() + nth;
        state.faults.insert(at, fault);
    }

    /// All commits meet `fault` until this is called with `None`.
    pub(super) fn set_down(&self, fault: Option<Fault>) {
        self.state().down = fault;
    }

    /// Lets commits wait, or lets them go on.
    pub(super) fn hold(&self, held: bool) {
        self.state().held = held;
        self.0.1.notify_all();
    }

    /// A job is gone as if it had never been kept.
    pub(super) fn lose(&self, number: u64) {
        let mut state = self.state();
        state.live.remove(&number);
        state.durable.remove(&number);
        state.missing.push(number);
    }

    /// Waits until `count` tries have begun.
    pub(super) fn wait_for_commits(&self, count: usize) {
        let state = self.state();
        let limit = std::time::Duration::from_secs(10);
        let begun = |state: &mut State| state.commits.len() < count;
        let waited = self.0.1.wait_timeout_while(state, limit, begun).unwrap().1;
        assert!(!waited.timed_out(), "no {count} commits in {limit:?}");
    }

    /// What each try of a commit was to do.
    pub(super) fn commits(&self) -> Vec<Vec<Operation>> {
        self.state().commits.clone()
    }

    /// What a start would find now.
    pub(super) fn durable(&self) -> Vec<Row> {
        self.state().durable.values().cloned().collect()
    }

    /// The store as it is after the power is back: what was durable.
    pub(super) fn restart(&self) -> Self {
        let durable = self.state().durable.clone();
        let state = State { live: durable.clone(), durable, ..State::default() };
        Self(Arc::new((Mutex::new(state), Condvar::new())))
    }
}

impl Store for Faulty {
    fn record(&mut self) -> Result<Record, StoreError> {
        let State { prefix, mark, live, .. } = &*self.state();
        let last = live.last_key_value().map(|(&number, _)| number);
        Ok(Record { prefix: prefix.clone(), mark: *mark, last })
    }

    fn reserve(&mut self, prefix: &[u8], mark: u64) -> Result<(), StoreError> {
        let mut state = self.state();
        match state.down {
            Some(Fault::Lost) => return Err(StoreError::Lost("taken by another".into())),
            Some(_) => return Err(StoreError::Unavailable("refused".into())),
            None => {}
        }
        (state.prefix, state.mark) = (Some(prefix.to_vec()), Some(mark));
        Ok(())
    }

    fn load(&mut self, each: &mut dyn FnMut(Row)) -> Result<(), StoreError> {
        self.state().live.values().cloned().for_each(each);
        Ok(())
    }

    fn commit(&mut self, operations: &[Operation]) -> Result<u64, StoreError> {
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
        for operation in operations {
            match operation {
                Operation::Insert { row, .. } => {
                    state.live.insert(row.number, row.clone());
                }
                Operation::SetAttempts { number, attempts } => {
                    if let Some(row) = state.live.get_mut(number) {
                        row.attempts = *attempts;
                    }
                }
                Operation::Remove { number } => {
                    state.live.remove(number);
                }
            }
        }
        if fault == Some(Fault::PowerLoss) {
            state.powerless = true;
            return unavailable("no power");
        }
        state.durable = state.live.clone();
        if fault == Some(Fault::Unanswered) { unavailable("no answer") } else { Ok(1) }
    }

    fn check(&mut self) -> Result<(), StoreError> {
        match self.state().down {
            Some(Fault::Lost) => Err(StoreError::Lost("taken by another".into())),
            _ => Ok(()),
        }
    }

    fn take_missing(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.state().missing)
    }
}
