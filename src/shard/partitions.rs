//! What other servers on the same database do, as far as it concerns a core: partitions that come
//! and go, a home that is lost, pauses, and jobs that clients ask for.
//!
//! What the driver says of the cluster in, changes of the engine, replies and store operations out.
//! Knows no database and no lease. See `cluster`.
//!
//! Invariant: nothing here writes to the store but what has to be written again.

use std::ops::Range;

use super::Shard;
use crate::engine::Now;
use crate::engine::record::{DeadRow, Operation, Pause, Row};

impl Shard {
    /// Whether the server has had no beat for too long: then no stored job that is queued is handed
    /// out, and no submission of policy `Async` is answered before its job is on disk. To be called
    /// once a turn, before anything that may hand out a job.
    pub fn set_suspended(&mut self, is_suspended: bool, now: Now) {
        if is_suspended != self.engine.is_suspended() {
            self.engine.set_suspended(is_suspended, now);
            self.deliver(None, now);
        }
    }

    /// Adds jobs of an adopted partition at the heads of their queues. Rows come in descending
    /// order of their numbers, over all calls for a partition. Jobs that are there already are left
    /// out; returns how many were added.
    pub fn adopt(&mut self, rows: &[Row], now: Now) -> usize {
        let added = rows.iter().filter(|row| self.engine.adopt(row, now)).count();
        self.deliver(None, now);
        added
    }

    /// Adds dead letters of an adopted partition; returns how many were added.
    pub fn adopt_dead(&mut self, rows: &[DeadRow], now: Now) -> usize {
        let added = rows.iter().filter(|row| self.engine.adopt_dead(row, now)).count();
        self.deliver(None, now);
        added
    }

    /// Drops the stored jobs and the dead letters for which `belongs` holds, by their numbers:
    /// another server has them. What workers say of them goes nowhere. A job that foreground
    /// clients wait for stays theirs, in memory only. Jobs that wait for the store stay.
    pub fn drop_partition(&mut self, belongs: &dyn Fn(u64) -> bool, now: Now) {
        self.engine.drop_partition(belongs, now);
        self.deliver(None, now);
    }

    /// The server has another home: jobs are numbered from `range` only, and those that wait for
    /// the store are numbered anew and go to it again.
    pub fn move_home(&mut self, range: Range<u64>, now: Now) {
        // Those that the driver hasn't fetched yet have numbers of the lost home.
        let is_awaited = |it: &Operation| matches!(it, Operation::Insert { answered: false, .. });
        self.operations.retain(|operation| !is_awaited(operation));
        self.engine.move_home(range, now);
        self.deliver(None, now);
    }

    /// Pauses or resumes a function as another server did, without an operation for the store.
    pub fn follow_pause(&mut self, function: &[u8], pause: Option<Pause>, now: Now) {
        match pause {
            Some(pause) => self.engine.restore_pause(function, pause, now),
            None => self.engine.follow_resume(function, now),
        }
        self.deliver(None, now);
    }

    /// Moves the numbers of jobs that aren't here, whose state clients ask for, into `numbers`;
    /// each is to be answered by `looked_up`. Empty without `Settings::cluster`.
    pub fn take_lookups(&mut self, numbers: &mut Vec<u64>) {
        self.lookups.take(numbers);
    }

    /// Whether the store has a job that was asked for.
    pub fn looked_up(&mut self, number: u64, is_stored: bool, _now: Now) {
        self.answer_lookups(number, is_stored);
    }
}
