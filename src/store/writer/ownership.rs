//! Which partitions the server has: what the store tells of them in, beats that vouch for the cores,
//! reports of losses and homes out.
//!
//! Knows the store's interface, and nothing of how a partition is adopted.
//!
//! Invariant: there is no commit and no beat while a core hasn't turned for `Lease::turn_max`. What
//! a core sent before it heard of a loss is never written into what the server has since, and
//! `Dropped` is reported before the beat that follows.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::attempt::Awaited;
use super::down::Down;
use super::thread::WriterThread;
use super::{Outcome, Part};
use crate::cluster::blocks::{block_of, sequences as sequences_of};
use crate::cluster::partition::PartitionId;
use crate::engine::handle::job_number;
use crate::engine::record::Operation;
use crate::store::{Committed, Store, StoreError};

/// Time between two looks at whether all cores have turned.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// The same once they take long.
const LOOK_AGAIN_LATE: Duration = Duration::from_millis(20);
/// How long the cores may take to turn before Inserts wait for as long as the timeout says only.
const HELD_MAX: Duration = Duration::from_secs(1);

/// What the thread knows of the partitions.
#[derive(Default)]
pub(super) struct Ownership {
    /// The server has beaten once.
    has_beaten: bool,
    /// Since when a core has kept the thread from the store.
    held: Option<Instant>,
    /// The partition of new jobs, if it is known.
    home: Option<PartitionId>,
    /// Partitions that the server has adopted, with their generations.
    adopted: BTreeMap<PartitionId, i64>,
    /// Number of reports of a loss or of a home so far.
    moves: u64,
    /// The same when each partition was lost last.
    lost: BTreeMap<PartitionId, u64>,
    /// The same when the server took its home.
    home_taken: u64,
    /// There is no home.
    pub(super) homeless: Option<Homeless>,
}

/// The server has lost its home, and no other one yet.
pub(super) struct Homeless {
    since: Instant,
    /// Inserts that were in no commit; their cores have them.
    pub(super) inserts: VecDeque<Awaited>,
    /// There was no home to be had.
    down: Option<Down>,
}

impl Ownership {
    /// Whether an operation isn't to be written, as what it concerns was lost after its core sent
    /// it: `moves` is `Batch::moves`.
    pub(super) fn is_stale(&self, operation: &Operation, moves: u64, store: &dyn Store) -> bool {
        if moves < self.home_taken && matches!(operation, Operation::Insert { answered: false, .. })
        {
            // Its core numbers it anew.
            return true;
        }
        if self.lost.is_empty() {
            return false;
        }
        let Some(number) = operation.number() else { return false };
        let partition = store.partition_of(number);
        let is_awaited = matches!(operation, Operation::Insert { answered: false, .. });
        match self.lost.get(&partition) {
            None => false,
            // These go to the next home with their cores.
            Some(_) if is_awaited && self.homeless.is_some() => false,
            Some(&at) => moves < at || !self.owns(partition),
        }
    }

    fn owns(&self, partition: PartitionId) -> bool {
        self.home == Some(partition) || self.adopted.contains_key(&partition)
    }

    /// When to try to get a home.
    pub(super) fn take_home_at(&self) -> Option<Instant> {
        let homeless = self.homeless.as_ref()?;
        Some(homeless.down.as_ref().map_or(homeless.since, |down| down.next_try))
    }

    /// Why there is no home, once it was tried.
    pub(super) fn homeless_down(&self) -> Option<&Down> {
        self.homeless.as_ref()?.down.as_ref()
    }

    /// When the Insert arrived that waits longest for a home.
    pub(super) fn oldest_homeless(&self) -> Option<Instant> {
        self.homeless.as_ref()?.inserts.front().map(|it| it.arrived)
    }

    /// When the next Insert fails that waits for a home.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        let down = self.homeless_down()?;
        self.oldest_homeless().map(|arrived| down.expiry(arrived))
    }

    /// Refuses the Inserts whose timeout has expired without a home; returns them and the reason.
    pub(super) fn expire(&mut self, now: Instant) -> Option<(Vec<Awaited>, Arc<str>)> {
        let Homeless { inserts, down, .. } = self.homeless.as_mut()?;
        let down = down.as_ref()?;
        let expired = inserts.iter().take_while(|it| down.expiry(it.arrived) <= now).count();
        (expired > 0).then(|| (inserts.drain(..expired).collect(), down.reason.clone()))
    }

    /// When to look whether the cores have turned, if they keep the thread from the store.
    pub(super) fn look_again_at(&self, now: Instant) -> Option<Instant> {
        let held = self.held?;
        let is_long = now.saturating_duration_since(held) > HELD_MAX / 10;
        Some(now + if is_long { LOOK_AGAIN_LATE } else { LOOK_AGAIN })
    }

    /// Whether the cores keep the thread from the store for so long that clients are to know.
    pub(super) fn is_held_for_long(&self, now: Instant) -> bool {
        self.held.is_some_and(|held| now.saturating_duration_since(held) >= HELD_MAX)
    }
}

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
