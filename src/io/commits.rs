//! One core's line to the store's thread: operations out, outcomes in, once a loop turn each.
//!
//! Outcomes wait in a channel, and the core's doorbell wakes it when some do. Knows what the shard
//! and the store's writer exchange, and neither sockets nor jobs.
//!
//! Invariant: what the shard wants kept is handed over before the core sleeps, and an outcome is in
//! the channel before the bell rings.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver};

use thiserror::Error;

use super::mesh::Doorbell;
use crate::engine::Now;
use crate::shard::Shard;
use crate::store::Operation;
use crate::store::writer::{Batch, Counters, Outcome, Writer};

/// Operations that may wait for the store before jobs of policy `async` wait for it, too: what a
/// crash can take of them at most.
const ASYNC_WINDOW: u64 = 1 << 16;

/// Another server owns the store now.
#[derive(Debug, Error)]
#[error("the store is lost: {0}; stopping, so that no job is acknowledged that isn't kept")]
pub struct StoreLost(Arc<str>);

/// The store's end of the line.
#[derive(Debug)]
pub(super) struct Outcomes {
    sender: mpsc::Sender<Outcome>,
    bell: Doorbell,
}

impl Outcomes {
    /// Passes an outcome on to the core.
    pub(super) fn send(&self, outcome: Outcome) {
        // A core that has ended doesn't listen.
        if self.sender.send(outcome).is_ok() {
            self.bell.ring();
        }
    }
}

/// The core's end of the line, before there is a writer to send to.
pub(super) type Line = Receiver<Outcome>;

/// A line to the core that `bell` wakes.
pub(super) fn line(bell: Doorbell) -> (Outcomes, Line) {
    let (sender, outcomes) = mpsc::channel();
    (Outcomes { sender, bell }, outcomes)
}

/// The core's end of the line.
#[derive(Debug)]
pub(super) struct Commits {
    core: usize,
    batches: crate::store::writer::Sender,
    outcomes: Receiver<Outcome>,
    /// One that was looked at already.
    next: Option<Outcome>,
    counters: Arc<Counters>,
    /// Operations that are being moved; empty otherwise.
    operations: Vec<Operation>,
}

impl Commits {
    /// Connects core number `core` with the writer.
    pub(super) fn new(core: usize, outcomes: Line, writer: &Writer) -> Self {
        let (batches, counters) = (writer.sender(), writer.counters());
        Self { core, batches, outcomes, next: None, counters, operations: Vec::new() }
    }

    /// Whether there are outcomes.
    pub(super) fn has_outcomes(&mut self) -> bool {
        self.next = self.next.take().or_else(|| self.outcomes.try_recv().ok());
        self.next.is_some()
    }

    /// Tells the shard what has become of what it wanted kept.
    ///
    /// # Errors
    /// `StoreLost`: the server must stop.
    pub(super) fn receive(&mut self, shard: &mut Shard, now: Now) -> Result<(), StoreLost> {
        while self.has_outcomes() {
            match self.next.take() {
                Some(Outcome::Stored { numbers }) => {
                    numbers.into_iter().for_each(|number| shard.stored(number, true, now));
                }
                Some(Outcome::Failed { numbers, .. }) => {
                    numbers.into_iter().for_each(|number| shard.stored(number, false, now));
                }
                Some(Outcome::Missing { numbers }) => {
                    numbers.iter().for_each(|&number| shard.keep_again(number, now));
                }
                Some(Outcome::Lost(reason)) => return Err(StoreLost(reason)),
                None => {}
            }
        }
        Ok(())
    }

    /// Hands over what the shard wants kept.
    pub(super) fn send(&mut self, shard: &mut Shard) {
        shard.take_operations(&mut self.operations);
        if !self.operations.is_empty() {
            let operations = std::mem::take(&mut self.operations);
            self.batches.send(Batch { core: self.core, operations });
        }
        shard.allow_async(self.counters.waiting.load(Ordering::Relaxed) < ASYNC_WINDOW);
    }
}
