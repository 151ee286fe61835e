//! One core's line to the store's thread: operations out, outcomes in, once a loop turn each.
//!
//! Outcomes wait in a channel; a descriptor becomes readable when some do, for a driver that sleeps
//! to poll. Knows what the shard and the store's writer exchange, and neither sockets nor jobs.
//!
//! Invariant: what the shard wants kept is handed over before the driver sleeps, and an outcome is
//! in the channel before the descriptor says so.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver};

use nix::sys::eventfd::{EfdFlags, EventFd};
use thiserror::Error;

use crate::engine::Now;
use crate::shard::Shard;
use crate::store::Operation;
use crate::store::writer::{Batch, Counters, Outcome, Sender};

/// Operations that may wait for the store before jobs of policy `async` wait for it, too: what a
/// crash can take of them at most.
const ASYNC_WINDOW: u64 = 1 << 16;

/// Another server owns the store now.
#[derive(Debug, Error)]
#[error("the store is lost: {0}; stopping, so that no job is acknowledged that isn't kept")]
pub struct StoreLost(Arc<str>);

/// The store's end of the line.
#[derive(Clone, Debug)]
pub(super) struct Outcomes {
    sender: mpsc::Sender<Outcome>,
    bell: Arc<EventFd>,
}

impl Outcomes {
    /// Passes an outcome on to the core.
    pub(super) fn send(&self, outcome: Outcome) {
        // Neither fails while the core runs: a bell has room for 2^64 rings.
        if self.sender.send(outcome).is_ok() {
            let _ = self.bell.write(1);
        }
    }
}

/// The core's end of the line.
#[derive(Debug)]
pub(super) struct Commits {
    core: usize,
    batches: Sender,
    outcomes: Receiver<Outcome>,
    bell: Arc<EventFd>,
    counters: Arc<Counters>,
    /// Operations that are being moved; empty otherwise.
    operations: Vec<Operation>,
}

/// Both ends of a line that is to be.
#[derive(Debug)]
pub(super) struct Line {
    outcomes: Receiver<Outcome>,
    bell: Arc<EventFd>,
}

/// A core's line, for which there is no store yet.
///
/// # Errors
/// If there are no descriptors left.
pub(super) fn line() -> std::io::Result<(Outcomes, Line)> {
    let bell = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
    let (sender, outcomes) = mpsc::channel();
    Ok((Outcomes { sender, bell: Arc::clone(&bell) }, Line { outcomes, bell }))
}

impl Line {
    /// Connects core number `core` with the writer that `batches` lead to.
    pub(super) fn connect(self, core: usize, batches: Sender, counters: Arc<Counters>) -> Commits {
        let Self { outcomes, bell } = self;
        Commits { core, batches, outcomes, bell, counters, operations: Vec::new() }
    }
}

impl Commits {
    /// The descriptor to poll for reading.
    pub(super) fn bell(&self) -> RawFd {
        self.bell.as_raw_fd()
    }

    /// The descriptor was readable: it shall be so again for the next outcome.
    pub(super) fn silence(&self) {
        // Nothing to read is as good.
        let _ = self.bell.read();
    }

    /// Tells the shard what has become of what it wanted kept.
    ///
    /// # Errors
    /// `StoreLost`: the server must stop.
    pub(super) fn receive(&mut self, shard: &mut Shard, now: Now) -> Result<(), StoreLost> {
        while let Ok(outcome) = self.outcomes.try_recv() {
            match outcome {
                Outcome::Stored { numbers } => {
                    numbers.into_iter().for_each(|number| shard.stored(number, true, now));
                }
                Outcome::Failed { numbers, .. } => {
                    numbers.into_iter().for_each(|number| shard.stored(number, false, now));
                }
                Outcome::Lost(reason) => return Err(StoreLost(reason)),
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
