//! What the store's thread does about partitions: the store's words in, beats that vouch for the
//! cores, reports of losses and homes out.
//!
//! Knows the store's interface, and nothing of how a partition is found and adopted.
//!
//! Invariant: there is no commit and no beat while a core hasn't turned for `Lease::turn_max`, and
//! `Dropped` is reported before the beat that follows is noted.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::down::Down;
use super::ownership::Homeless;
use super::thread::WriterThread;
use super::{Outcome, Part};
use crate::cluster::blocks::{block_of, sequences as sequences_of};
use crate::cluster::partition::PartitionId;
use crate::engine::handle::job_number;
use crate::engine::record::Operation;
use crate::store::{Committed, StoreError};

impl<R: Fn(usize, Outcome)> WriterThread<R> {
    /// The home that the server has from the start.
    pub(super) fn begin_owning(&mut self) {
        let Some(state) = &self.settings.lease else { return };
        // The first beat is due.
        let now = Instant::now();
        self.checked = now.checked_sub(state.lease().beat_interval()).unwrap_or(now);
        if !self.settings.needs_sequences {
            let last = self.settings.mark.saturating_sub(1);
            self.note_home(&(last..self.settings.mark));
        }
    }

    /// A core for which a commit can't vouch. Cores are woken, so that there is none soon.
    pub(super) fn late_core(&mut self, now: Instant) -> Option<usize> {
        // At the end there are no cores any more, and they hand out nothing.
        let state = self.settings.lease.as_ref().filter(|_| self.stop.is_none())?;
        let mut late = state.late_cores(now).peekable();
        let first = late.peek().copied();
        if first.is_none() {
            self.ownership.held = None;
        } else if self.ownership.held.is_none() {
            self.ownership.held = Some(now);
            late.for_each(|core| (self.report)(core, Outcome::Wake));
        }
        first
    }

    /// All partitions of the server have had a beat that was sent after `before`.
    pub(super) fn note_beat(&mut self, before: Instant) {
        let Some(state) = &self.settings.lease else { return };
        if !state.note_beat(before) {
            return;
        }
        self.settings.view.is_suspended.store(false, Ordering::Relaxed);
        if std::mem::replace(&mut self.ownership.has_beaten, true) {
            info!("the database answers in time again: stored jobs are handed out");
        }
        // Sleeping workers are to get the jobs that were held back.
        self.report_to_all(&Outcome::Wake);
    }

    /// A commit that was sent after `before` has succeeded: a beat of the home only.
    pub(super) fn note_commit_as_beat(&mut self, before: Instant) {
        let is_homeless = self.ownership.homeless.is_some();
        if self.ownership.adopted.is_empty() && !is_homeless && self.ownership.has_beaten {
            self.note_beat(before);
        }
    }

    /// Forgets adopted partitions that the store has left as they are empty.
    pub(super) fn forget_empty(&mut self) {
        let (store, adopted) = (&*self.store, &mut self.ownership.adopted);
        let before = adopted.len();
        adopted.retain(|&partition, _| store.owns(partition));
        if adopted.len() < before
            && let Some(state) = &self.settings.lease
        {
            state.change_owned(|owned| owned.adopted = adopted.keys().copied().collect());
        }
    }

    /// Other servers have some of the partitions.
    pub(super) fn lose(&mut self, committed: &Committed) {
        for &partition in &committed.lost {
            // Without numbers so far, it isn't known which one it is.
            let home = self.ownership.home;
            let is_home = home.is_none_or(|home| home == partition);
            self.lose_one(partition, committed.is_home_lost && is_home);
        }
    }

    fn lose_one(&mut self, partition: PartitionId, is_home: bool) {
        let ownership = &mut self.ownership;
        ownership.moves += 1;
        ownership.lost.insert(partition, ownership.moves);
        ownership.adopted.remove(&partition);
        ownership.home = ownership.home.filter(|_| !is_home);
        self.settings.view.lost.fetch_add(1, Ordering::Relaxed);
        let rows = &mut self.settings.view.write().partitions;
        rows.iter_mut().filter(|it| it.partition.id == partition).for_each(|it| it.is_own = false);
        if let Some(state) = &self.settings.lease {
            state.change_owned(|owned| {
                owned.adopted.remove(&partition);
                owned.home = owned.home.filter(|_| !is_home);
            });
        }
        let store = &*self.store;
        let is_lost_number = |number| store.partition_of(number) == partition;
        let is_lost = |operation: &Operation| operation.number().is_some_and(is_lost_number);
        let (in_attempt, mut awaited) = self.attempt.remove(is_lost, is_lost_number);
        let (in_queue, queued) = self.queue.remove(is_lost);
        awaited.extend(queued);
        warn!(
            partition,
            operations = in_attempt + in_queue,
            "a partition is lost: this server had no beat in time, so another one has adopted the \
             partition with its jobs. Those that run here may run twice. Look at what held up \
             this server or its way to the database"
        );
        if is_home {
            let now = Instant::now();
            self.ownership.homeless.get_or_insert_with(|| Homeless {
                since: now,
                inserts: VecDeque::new(),
                down: None,
            });
        }
        if let Some(homeless) = &mut self.ownership.homeless {
            homeless.inserts.extend(awaited);
        }
        self.give_up(in_attempt + in_queue);
        self.report_to_all(&Outcome::Dropped { partition, is_home });
    }

    /// Takes another home; returns `false` if the whole store is lost.
    pub(super) fn take_home(&mut self) -> bool {
        let Some(homeless) = &mut self.ownership.homeless else { return true };
        let (reason, timeout) = match self.store.take_home(self.settings.mark) {
            Ok(sequences) => {
                self.ownership.homeless = None;
                self.ownership.moves += 1;
                self.ownership.home_taken = self.ownership.moves;
                self.set_sequences(&sequences);
                let partition = self.store.partition_of(job_number(sequences.start, 0));
                info!(partition, "home taken: new jobs are kept there");
                self.note_written();
                self.report_to_all(&Outcome::Home { sequences });
                return true;
            }
            Err(StoreError::Unavailable(reason)) => (reason, self.settings.timeout),
            Err(StoreError::Unusable(reason)) => (reason, Duration::ZERO),
            Err(StoreError::Lost(reason)) => {
                self.report_lost(reason);
                return false;
            }
        };
        let now = Instant::now();
        homeless.down = Some(Down::after(homeless.down.as_ref(), &reason, timeout, now));
        self.note_failure(&reason, now);
        true
    }

    /// These sequence numbers are reserved in the home.
    pub(super) fn note_home(&mut self, sequences: &Range<u64>) {
        let Some(state) = &self.settings.lease else { return };
        if sequences.is_empty() {
            return;
        }
        let partition = self.store.partition_of(job_number(sequences.start, 0));
        state.change_owned(|owned| owned.home = Some(partition));
        self.ownership.home = Some(partition);
        let blocks = block_of(sequences.start)..block_of(sequences.end - 1) + 1;
        let mut contents = self.settings.view.write();
        for block in blocks {
            let first = sequences_of(block..block + 1).start.max(sequences.start);
            let partition = self.store.partition_of(job_number(first, 0));
            contents.blocks.insert(block, partition);
        }
    }

    /// The server has adopted a partition in this generation.
    pub(super) fn own(&mut self, partition: PartitionId, generation: i64) {
        if let Some(lost) = self.store.own(partition, generation) {
            self.lose_one(lost, self.ownership.home == Some(lost));
        }
        self.ownership.adopted.insert(partition, generation);
        if let Some(state) = &self.settings.lease {
            state.change_owned(|owned| {
                owned.adopted.insert(partition);
            });
        }
    }

    /// Passes rows of an adopted partition on to the cores; returns `false` if the server doesn't
    /// have it any more.
    pub(super) fn pass_on(
        &mut self,
        partition: PartitionId,
        generation: i64,
        parts: Vec<Part>,
    ) -> bool {
        if self.ownership.adopted.get(&partition) != Some(&generation) {
            return false;
        }
        let jobs: Vec<u64> = parts.iter().flat_map(|it| &it.jobs).map(|row| row.number).collect();
        let dead = parts.iter().flat_map(|it| &it.dead).map(|letter| letter.row.number);
        // Before their cores can change them.
        self.store.note_loaded(&jobs, &dead.collect::<Vec<_>>());
        for Part { core, jobs, dead } in parts {
            (self.report)(core, Outcome::Adopted { jobs, dead });
        }
        true
    }

    /// The server ends: other servers may have its partitions at once.
    pub(super) fn leave(&mut self) {
        if self.settings.lease.is_none() {
            return;
        }
        match self.store.leave() {
            Ok(()) => info!("partitions left to other servers"),
            Err(error) => warn!(
                %error,
                "partitions couldn't be left to other servers, which have to wait for the end of \
                 the lease"
            ),
        }
    }
}
