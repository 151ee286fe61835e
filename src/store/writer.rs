//! The thread that drives the store: operations of all cores in, outcomes of their commits out.
//!
//! A commit covers all operations that arrived while the commit before it was being written. While
//! the store is down, Inserts that clients wait for fail after a timeout; all other operations stay
//! in memory and are written first when the store is back. Knows no database (`Store`), no queues.
//!
//! Invariant: operations reach the store in the order in which they were sent, each at least once,
//! but for those of a partition that is lost, and for an Insert reported as Failed, whose number is
//! removed instead. An Insert that a client waits for gets one outcome, unless its home is lost
//! (`Home`) or the writer ends (`Lost`, `stop`).

mod attempt;
mod down;
mod outage;
mod outcome;
mod ownership;
mod partitions;
mod thread;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::error;

pub use self::outcome::Outcome;
use self::thread::WriterThread;
use super::Store;
pub use super::health::Counters;
use super::health::StoreHealth;
use super::lease_state::LeaseState;
use super::own_pauses::OwnPauses;
use crate::cluster::partition::PartitionId;
use crate::cluster::view::View;
use crate::engine::record::{DeadRow, Operation, Row};

/// Largest number of operations in a commit.
pub const COMMIT_OPERATIONS_MAX: usize = 4096;
/// Size of a commit's rows from which no further operation is added.
pub const COMMIT_BYTES_MAX: usize = 8 << 20;
/// How much longer than its limit `stop` waits for a commit in progress.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Operations of a core, in order.
#[derive(Debug)]
pub struct Batch {
    /// The core that gets the outcomes.
    pub core: usize,
    /// The operations.
    pub operations: Vec<Operation>,
    /// Number of `Outcome::Dropped` and `Outcome::Home` that the core had received before: what a
    /// core sent before it heard of a loss is not written into what the server has since.
    pub moves: u64,
}

/// What a core is to have of an adopted partition, the largest number first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The core.
    pub core: usize,
    /// Jobs.
    pub jobs: Vec<Row>,
    /// Dead letters.
    pub dead: Vec<DeadRow>,
}

/// Settings of a writer.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Number of cores, for reports to all of them.
    pub cores: usize,
    /// How long an Insert that a client waits for is retried while the store is unavailable. With
    /// zero it fails with its commit, and immediately while the store is down.
    pub timeout: Duration,
    /// Prefix of handles, for the store's record.
    pub prefix: Box<[u8]>,
    /// The first sequence number that isn't reserved.
    pub mark: u64,
    /// Whether to reserve more sequence numbers with the next commit.
    pub needs_sequences: bool,
    /// What the thread tells of the store.
    pub health: Arc<StoreHealth>,
    /// What the cores and the thread tell each other of the lease, if the store has one.
    pub lease: Option<Arc<LeaseState>>,
    /// What the server knows of the partitions.
    pub view: Arc<View>,
    /// Pauses that the thread writes.
    pub pauses: Arc<OwnPauses>,
}

enum Message {
    Batch(Batch),
    /// Reserve sequence numbers beyond this mark.
    Reserve(u64),
    /// The server has adopted a partition in this generation.
    Own(PartitionId, i64, SyncSender<()>),
    /// Rows of an adopted partition in this generation; answers whether the server still has it.
    Load(PartitionId, i64, Vec<Part>, SyncSender<bool>),
    /// Do what was sent before, until this time at most.
    Stop(Instant),
}

/// Sends operations to the thread. Cheap to clone, one for each core.
#[derive(Clone, Debug)]
pub struct Sender {
    messages: mpsc::Sender<Message>,
    counters: Arc<Counters>,
}

impl Sender {
    /// Sends a batch. It is dropped once the store is lost or the writer has stopped.
    pub fn send(&self, batch: Batch) {
        let count = batch.operations.len() as u64;
        self.counters.waiting.fetch_add(count, Ordering::Relaxed);
        if self.messages.send(Message::Batch(batch)).is_err() {
            self.counters.waiting.fetch_sub(count, Ordering::Relaxed);
        }
    }

    /// Requests sequence numbers beyond `mark`.
    pub fn reserve(&self, mark: u64) {
        // Fails if the thread has ended.
        let _ = self.messages.send(Message::Reserve(mark));
    }

    /// The server has adopted a partition in this generation: the store's beats cover it from now
    /// on. Waits until the thread knows; `false` if it ends.
    #[must_use]
    pub fn own(&self, partition: PartitionId, generation: i64) -> bool {
        let (answer, answered) = mpsc::sync_channel(1);
        let sent = self.messages.send(Message::Own(partition, generation, answer));
        sent.is_ok() && answered.recv().is_ok()
    }

    /// Rows of a partition that was adopted in this generation go to the cores, as
    /// `Outcome::Adopted`; none once all are loaded. Waits until they are on their way; `false` if
    /// the server doesn't have the partition any more, or if the thread ends: then nothing was
    /// passed on.
    #[must_use]
    pub fn load(&self, partition: PartitionId, generation: i64, parts: Vec<Part>) -> bool {
        let (answer, answered) = mpsc::sync_channel(1);
        let sent = self.messages.send(Message::Load(partition, generation, parts, answer));
        sent.is_ok() && answered.recv() == Ok(true)
    }
}

/// The thread that drives a store.
#[derive(Debug)]
pub struct Writer {
    sender: Sender,
    thread: JoinHandle<()>,
    ended: Receiver<()>,
}

impl Writer {
    /// Starts the thread. `report` is called on it with a core and an outcome for it.
    ///
    /// # Errors
    /// The kernel's, if it can't create a thread.
    pub fn start(
        store: Box<dyn Store>,
        settings: Settings,
        report: impl Fn(usize, Outcome) + Send + 'static,
    ) -> io::Result<Self> {
        let counters = Arc::clone(settings.health.counters());
        let (messages, receiver) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let writer = WriterThread::new(store, settings, report, receiver);
        let run = move || {
            writer.run();
            // Fails if the writer was dropped.
            let _ = end.send(());
        };
        let thread = std::thread::Builder::new().name("store".into()).spawn(run)?;
        Ok(Self { sender: Sender { messages, counters }, thread, ended })
    }

    /// A sender of operations.
    #[must_use]
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// The counters.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        self.sender.counters.clone()
    }

    /// Does what was sent before this call, leaves the partitions to other servers and ends the
    /// thread. Returns the number of operations that are not done because the store was unavailable
    /// for `within`, or is lost; their Inserts get no outcome. To be called when the cores have
    /// ended.
    pub fn stop(self, within: Duration) -> u64 {
        // Fails if the thread has ended.
        let _ = self.sender.messages.send(Message::Stop(Instant::now() + within));
        match self.ended.recv_timeout(within + STOP_GRACE) {
            Err(RecvTimeoutError::Timeout) => error!(
                "the store hasn't answered a commit in time, which is given up: look after its \
                 disk or the network"
            ),
            _ if self.thread.join().is_err() => error!(
                "the store's thread has panicked, which is an error in ringgeard: report it with \
                 the message on standard error"
            ),
            _ => {}
        }
        let left = self.sender.counters.waiting.load(Ordering::Relaxed);
        if left > 0 {
            error!(
                left,
                "stopped with changes that are not in the store: jobs that were done since may run \
                 again; end an outage of the store before a stop"
            );
        }
        left
    }
}

#[cfg(test)]
mod tests;
