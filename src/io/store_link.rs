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

use super::cores::mesh::Doorbell;
use crate::engine::Now;
use crate::engine::record::Operation;
use crate::shard::Shard;
use crate::store::namespace::BLOCK;
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
pub(crate) struct Outcomes {
    sender: mpsc::Sender<Outcome>,
    bell: Doorbell,
}

impl Outcomes {
    /// Passes an outcome on to the core.
    pub(crate) fn send(&self, outcome: Outcome) {
        // A core that has ended doesn't listen.
        if self.sender.send(outcome).is_ok() {
            self.bell.ring();
        }
    }
}

/// The core's end of the line, before there is a writer to send to.
pub(crate) type Line = Receiver<Outcome>;

/// A line to the core that `bell` wakes.
pub(crate) fn line(bell: Doorbell) -> (Outcomes, Line) {
    let (sender, outcomes) = mpsc::channel();
    (Outcomes { sender, bell }, outcomes)
}

/// The core's end of the line.
#[derive(Debug)]
pub(crate) struct StoreLink {
    core: usize,
    batches: crate::store::writer::Sender,
    outcomes: Receiver<Outcome>,
    /// One that was looked at already.
    next: Option<Outcome>,
    counters: Arc<Counters>,
    /// Operations that are being moved; empty otherwise.
    operations: Vec<Operation>,
    /// Sequence numbers below are reserved.
    mark: u64,
    /// Whether more were asked for.
    has_asked: bool,
}

impl StoreLink {
    /// Connects core number `core` with the writer. Sequence numbers below `mark` are reserved.
    pub(crate) fn new(core: usize, outcomes: Line, writer: &Writer, mark: u64) -> Self {
        let (batches, counters) = (writer.sender(), writer.counters());
        let (next, operations, has_asked) = (None, Vec::new(), false);
        Self { core, batches, outcomes, next, counters, operations, mark, has_asked }
    }

    /// Whether there are outcomes.
    pub(crate) fn has_outcomes(&mut self) -> bool {
        self.next = self.next.take().or_else(|| self.outcomes.try_recv().ok());
        self.next.is_some()
    }

    /// Tells the shard what has become of what it wanted kept.
    ///
    /// # Errors
    /// `StoreLost`: the server must stop.
    pub(crate) fn receive(&mut self, shard: &mut Shard, now: Now) -> Result<(), StoreLost> {
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
                Some(Outcome::Reserved { mark }) => {
                    shard.allow_sequences(mark);
                    (self.mark, self.has_asked) = (mark, false);
                }
                Some(Outcome::Lost(reason)) => return Err(StoreLost(reason)),
                None => {}
            }
        }
        Ok(())
    }

    /// Hands over what the shard wants kept.
    pub(crate) fn send(&mut self, shard: &mut Shard) {
        shard.take_operations(&mut self.operations);
        if !self.operations.is_empty() {
            let operations = std::mem::take(&mut self.operations);
            self.batches.send(Batch { core: self.core, operations });
        }
        if shard.sequences_left() < BLOCK / 2 && !std::mem::replace(&mut self.has_asked, true) {
            self.batches.reserve(self.mark);
        }
        shard.allow_async(self.counters.waiting.load(Ordering::Relaxed) < ASYNC_WINDOW);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::engine::record::Row;
    use crate::io::cores::mesh;
    use crate::shard::Settings;
    use crate::store::namespace::{Record, next_mark};
    use crate::store::{Store, StoreError, writer};

    /// A store that can do no more than keep a record.
    #[derive(Debug)]
    struct Empty;

    impl Store for Empty {
        fn record(&mut self) -> Result<Record, StoreError> {
            Ok(Record::default())
        }

        fn reserve(&mut self, _: &[u8], _: u64) -> Result<(), StoreError> {
            Ok(())
        }

        fn load(&mut self, _: &mut dyn FnMut(Row)) -> Result<(), StoreError> {
            Ok(())
        }

        fn commit(&mut self, _: &[Operation]) -> Result<u64, StoreError> {
            Ok(0)
        }

        fn check(&mut self) -> Result<(), StoreError> {
            Ok(())
        }
    }

    #[test]
    fn a_core_gets_its_next_numbers_while_it_still_has_some() {
        let now = Now::default();
        let mut shard = Shard::new(Settings::default(), now);
        let post = mesh::mesh::<()>(1, |()| 0).unwrap().remove(0);
        let (outcomes, line) = line(post.doorbell());
        let mark = 10;
        shard.allow_sequences(mark);
        let settings = writer::Settings {
            cores: 1,
            timeout: Duration::ZERO,
            prefix: (*b"H:a").into(),
            mark,
            needs_sequences: false,
        };
        let report = move |_: usize, outcome| outcomes.send(outcome);
        let writer = Writer::start(Box::new(Empty), settings, report).unwrap();
        let mut commits = StoreLink::new(0, line, &writer, mark);
        let deadline = Instant::now() + Duration::from_secs(10);
        for mark in [next_mark(mark), next_mark(next_mark(mark))] {
            while shard.sequences_left() < mark - 10 {
                assert!(Instant::now() < deadline, "{} left", shard.sequences_left());
                commits.send(&mut shard);
                commits.receive(&mut shard, now).unwrap();
            }
            commits.send(&mut shard);
            assert!(!commits.has_asked, "half a block is left");
            // As if most of it were used.
            shard.allow_sequences(BLOCK / 2);
            commits.send(&mut shard);
            assert!(commits.has_asked);
        }
        writer.stop(Duration::from_secs(10));
    }
}
