//! Pauses that this server writes: operations and commits in, what the store has of them out.
//!
//! A server that reads which functions are paused tells from this which changes are its own. Knows
//! no database.
//!
//! Invariant: what is not settled is never compared with what the store has.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::engine::record::{Operation, Pause};

/// A function, and until when it is paused; `None` = not any more.
pub type PauseChange = (Bytes, Option<Pause>);

/// Pauses that this server writes, shared by the store's thread and the one that reads them.
#[derive(Debug, Default)]
pub struct OwnPauses(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Changes that aren't committed, and with them all that came since.
    pending: usize,
    /// Number of changes that were committed.
    committed: u64,
    /// Committed changes that `take_settled` hasn't returned, in order.
    unread: Vec<PauseChange>,
}

impl OwnPauses {
    /// The operations that a commit is to have are changes of pauses among others.
    pub(super) fn note_sent<'a>(&self, operations: impl Iterator<Item = &'a Operation>) {
        let count = changes(operations).count();
        if count > 0 {
            self.lock().pending += count;
        }
    }

    /// These operations are committed.
    pub(super) fn note_committed<'a>(&self, operations: impl Iterator<Item = &'a Operation>) {
        let mut changes = changes(operations).peekable();
        if changes.peek().is_none() {
            return;
        }
        let mut state = self.lock();
        for change in changes {
            state.pending = state.pending.saturating_sub(1);
            state.committed += 1;
            state.unread.push(change);
        }
    }

    /// To be asked before a read of all pauses.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.lock().committed
    }

    /// Own changes since the last call, in order, all of which a read has seen that began after
    /// `committed` was returned; `None` if that isn't certain, or if there are more to come.
    #[must_use]
    pub fn take_settled(&self, committed: u64) -> Option<Vec<PauseChange>> {
        let mut state = self.lock();
        let is_settled = state.pending == 0 && state.committed == committed;
        is_settled.then(|| std::mem::take(&mut state.unread))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn changes<'a>(
    operations: impl Iterator<Item = &'a Operation>,
) -> impl Iterator<Item = PauseChange> {
    operations.filter_map(|operation| match operation {
        Operation::Pause { function, pause } => Some((function.clone(), *pause)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_counts_only_if_no_own_change_is_on_its_way_or_came_meanwhile() {
        let pauses = OwnPauses::default();
        let change = (Bytes::from_static(b"f"), Some(Pause::Unlimited));
        let operations = [
            Operation::Remove { number: 1 },
            Operation::Pause { function: change.0.clone(), pause: change.1 },
        ];
        let before = pauses.committed();
        assert_eq!(pauses.take_settled(before), Some(vec![]));
        pauses.note_sent(operations.iter());
        assert_eq!(pauses.take_settled(before), None, "it isn't committed");
        pauses.note_committed(operations.iter());
        assert_eq!(pauses.take_settled(before), None, "the read may not have seen it");
        let before = pauses.committed();
        assert_eq!(pauses.take_settled(before), Some(vec![change]));
        assert_eq!(pauses.take_settled(before), Some(vec![]));
    }
}
