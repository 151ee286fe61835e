//! One core's link to the store's thread: operations out, outcomes in, once a turn each.
//!
//! Outcomes wait in a channel, and the core's waker wakes it when some do. Knows what the shard and
//! the store's writer exchange, and neither sockets nor jobs.
//!
//! Invariant: the shard's operations are handed over before the core sleeps, and an outcome is in
//! the channel before the core is woken for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver};

use thiserror::Error;
use tracing::warn;

use super::cores::mesh::CoreWaker;
use super::member::MemberSender;
use crate::cluster::view::View;
use crate::engine::Now;
use crate::engine::record::Operation;
use crate::shard::Shard;
use crate::store::lease_state::LeaseState;
use crate::store::namespace::BLOCK;
use crate::store::writer::{Batch, Counters, Outcome, Writer};

/// Operations that may wait for the store before jobs of policy `async` wait for it, too: the most
/// that a crash can lose of them.
const ASYNC_WINDOW: u64 = 1 << 16;

/// Another server owns the store now.
#[derive(Debug, Error)]
#[error("the store is lost: {0}; stopping, so that no job is acknowledged that isn't kept")]
pub struct StoreLost(Arc<str>);

/// Passes outcomes of the store's thread to one core.
#[derive(Clone, Debug)]
pub(crate) struct OutcomeSender {
    sender: mpsc::Sender<Outcome>,
    waker: CoreWaker,
}

impl OutcomeSender {
    /// Passes an outcome on, and wakes the core.
    pub(crate) fn send(&self, outcome: Outcome) {
        // The receiver is gone once the core has ended.
        if self.sender.send(outcome).is_ok() {
            self.waker.wake();
        }
    }
}

/// The core's end of the channel, from which a `StoreLink` is made once there is a writer.
pub(crate) type OutcomeReceiver = Receiver<Outcome>;

/// A channel to the core that `waker` wakes.
pub(crate) fn outcome_channel(waker: CoreWaker) -> (OutcomeSender, OutcomeReceiver) {
    let (sender, receiver) = mpsc::channel();
    (OutcomeSender { sender, waker }, receiver)
}

/// The core's end of the link.
#[derive(Debug)]
pub(crate) struct StoreLink {
    core: usize,
    batches: crate::store::writer::Sender,
    outcomes: OutcomeReceiver,
    /// The outcome that `poll_outcome` took from the channel.
    next: Option<Outcome>,
    counters: Arc<Counters>,
    /// Reused by `send`; empty between calls.
    operations: Vec<Operation>,
    /// Sequence numbers below are reserved.
    mark: u64,
    /// More were asked for.
    is_reserving: bool,
    /// Number of `Outcome::Dropped` and `Outcome::Home` so far.
    moves: u64,
    /// The partition of new jobs is lost, and there is no other one yet.
    is_homeless: bool,
    /// What a store with a lease has besides.
    member: Option<MemberLink>,
}

/// What a core exchanges with the other threads about the lease and other servers.
#[derive(Debug)]
pub(crate) struct MemberLink {
    /// What the threads know of the lease.
    pub(crate) lease: Arc<LeaseState>,
    /// What the server knows of the partitions.
    pub(crate) view: Arc<View>,
    /// To the thread that watches the partitions.
    pub(crate) requests: MemberSender,
    /// Whether the shard was last told that the server is suspended.
    pub(crate) is_suspended: bool,
}

impl StoreLink {
    /// Connects core number `core` with the writer. Sequence numbers below `mark` are reserved.
    pub(crate) fn new(
        core: usize,
        outcomes: OutcomeReceiver,
        writer: &Writer,
        mark: u64,
        member: Option<MemberLink>,
    ) -> Self {
        let (batches, counters) = (writer.sender(), writer.counters());
        Self {
            core,
            batches,
            outcomes,
            next: None,
            counters,
            operations: Vec::new(),
            mark,
            is_reserving: false,
            moves: 0,
            is_homeless: false,
            member,
        }
    }

    /// Takes the next outcome from the channel; returns whether there is one for `receive`.
    pub(crate) fn poll_outcome(&mut self) -> bool {
        self.next = self.next.take().or_else(|| self.outcomes.try_recv().ok());
        self.next.is_some()
    }

    /// A turn begins: the store's thread may vouch for this core, and a server that is suspended
    /// hands out no stored job. Comes before anything else in a turn.
    #[inline]
    pub(crate) fn begin_turn(&mut self, shard: &mut Shard, now: Now) {
        let Some(member) = &mut self.member else { return };
        member.lease.note_turn(self.core, now.mono_ms);
        if member.lease.is_suspended(now.mono_ms) {
            member.suspend(shard, now);
        }
    }

    /// When the next turn is due, so that the shard is suspended in time.
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        let member = self.member.as_ref().filter(|it| !it.is_suspended)?;
        Some(member.lease.suspends_at_ms())
    }

    /// Passes all outcomes to the shard.
    ///
    /// # Errors
    /// `StoreLost`: the server must stop.
    pub(crate) fn receive(&mut self, shard: &mut Shard, now: Now) -> Result<(), StoreLost> {
        // Losses are reported before the beat that follows: this is looked at before them.
        let resumes = self.member.as_ref().is_some_and(|it| it.may_resume(now));
        while self.poll_outcome() {
            if let Some(outcome) = self.next.take() {
                self.receive_one(outcome, shard, now)?;
            }
        }
        if resumes && let Some(member) = &mut self.member {
            member.resume(shard, now);
        }
        Ok(())
    }

    fn receive_one(
        &mut self,
        outcome: Outcome,
        shard: &mut Shard,
        now: Now,
    ) -> Result<(), StoreLost> {
        match outcome {
            Outcome::Stored { numbers } => {
                numbers.into_iter().for_each(|number| shard.stored(number, true, now));
            }
            Outcome::Failed { numbers, .. } => {
                numbers.into_iter().for_each(|number| shard.stored(number, false, now));
            }
            Outcome::Missing { numbers } => {
                numbers.iter().for_each(|&number| shard.keep_again(number, now));
            }
            Outcome::Reserved { sequences } => {
                (self.mark, self.is_reserving) = (sequences.end, false);
                shard.allow_sequences(sequences);
            }
            Outcome::Dropped { partition, is_home } => {
                // What was done before is told as such.
                self.hand_over(shard);
                self.moves += 1;
                self.is_homeless |= is_home;
                // The numbers of its blocks aren't used for jobs of other partitions.
                if let Some(member) = &self.member {
                    let blocks = member.view.read().blocks.clone();
                    shard.drop_partition(&|it| blocks.partition_of(it) == Some(partition), now);
                }
            }
            Outcome::Home { sequences } => {
                self.hand_over(shard);
                self.moves += 1;
                self.is_homeless = false;
                (self.mark, self.is_reserving) = (sequences.end, false);
                shard.move_home(sequences, now);
            }
            Outcome::Adopted { jobs, dead } => {
                if !jobs.is_empty() {
                    shard.adopt(&jobs, now);
                }
                if !dead.is_empty() {
                    shard.adopt_dead(&dead, now);
                }
                drop((jobs, dead));
                self.member.iter().for_each(|member| member.requests.note_taken());
            }
            Outcome::Pauses { changes } => {
                changes.iter().for_each(|(name, pause)| shard.follow_pause(name, *pause, now));
            }
            Outcome::Found { numbers } => {
                numbers.iter().for_each(|&(number, found)| shard.looked_up(number, found, now));
            }
            Outcome::Wake => {}
            Outcome::Lost(reason) => return Err(StoreLost(reason)),
        }
        Ok(())
    }

    /// Hands the shard's operations to the store's thread, and asks for more sequence numbers once
    /// half of a block is left.
    pub(crate) fn send(&mut self, shard: &mut Shard) {
        self.hand_over(shard);
        if shard.sequences_left() < BLOCK / 2 && !std::mem::replace(&mut self.is_reserving, true) {
            self.batches.reserve(self.mark);
        }
        let is_short = self.counters.waiting.load(Ordering::Relaxed) < ASYNC_WINDOW;
        shard.allow_async(is_short && !self.is_homeless);
        if let Some(member) = &self.member {
            let mut numbers = Vec::new();
            shard.take_lookups(&mut numbers);
            if !numbers.is_empty() {
                member.requests.look_up(self.core, numbers);
            }
        }
    }
}

impl StoreLink {
    /// Hands the shard's operations to the store's thread.
    fn hand_over(&mut self, shard: &mut Shard) {
        shard.take_operations(&mut self.operations);
        if !self.operations.is_empty() {
            let operations = std::mem::take(&mut self.operations);
            self.batches.send(Batch { core: self.core, operations, moves: self.moves });
        }
    }
}

impl MemberLink {
    /// No stored job is handed out before the next beat.
    #[cold]
    fn suspend(&mut self, shard: &mut Shard, now: Now) {
        shard.set_suspended(true, now);
        if std::mem::replace(&mut self.is_suspended, true) {
            return;
        }
        // Before the first beat it says nothing.
        let is_first = self.lease.suspends_at_ms() == 0;
        if !self.view.is_suspended.swap(true, Ordering::Relaxed) && !is_first {
            warn!(
                "no beat has reached the database for too long: stored jobs aren't handed out \
                 until one does, and another server adopts them if that takes longer. Look at the \
                 database and the way to it"
            );
        }
    }

    /// Whether the server is suspended no more.
    fn may_resume(&self, now: Now) -> bool {
        self.is_suspended && !self.lease.is_suspended(now.mono_ms)
    }

    #[cold]
    fn resume(&mut self, shard: &mut Shard, now: Now) {
        self.is_suspended = false;
        self.view.is_suspended.store(false, Ordering::Relaxed);
        shard.set_suspended(false, now);
    }
}

#[cfg(test)]
mod tests;
