//! The model's durable half: what the store is told, which replies wait for it, and what comes back
//! when the power was cut.
//!
//! Operations, outcomes and rows in; a broken promise is a panic. Invariant: what the store is told
//! follows from the model alone, and so does what it keeps once all of that is on disk.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ringgear::engine::function::Durability;
use ringgear::engine::handle::SLOT_BITS;
use ringgear::engine::record::{Operation, Row, Runs};
use ringgear::engine::{ConnId, Now};
use ringgear::wire::{Command, Priority};

use super::{Job, Model, Place, Rules, error, handle};
use crate::mesh::number_of;
use crate::store::Lost;
use crate::wire::Packet;

/// A reply that waits: the connection, and which of its waiting replies it is.
type Slot = (ConnId, u64);

#[derive(Debug, Default)]
pub(super) struct Durable {
    /// Jobs of policy `Async` wait, too.
    lags: bool,
    /// Replies that came in this call for slots, and those that were to come.
    replies: BTreeMap<Slot, Packet>,
    replies_due: Vec<(Slot, Packet)>,
    /// What the store is to be told in this call.
    operations_due: Vec<Operation>,
}

impl Model {
    /// Which replies came to those who waited for them.
    pub(super) fn begin_replies(&mut self) {
        for (conn, filled) in std::mem::take(&mut self.output.filled) {
            let open = &self.peers[&conn].open;
            assert_eq!(open.len(), filled.len(), "replies that {conn} waits for");
            for (&slot, reply) in open.iter().zip(filled) {
                self.durable.replies.extend(reply.map(|reply| ((conn, slot), reply)));
            }
        }
    }

    /// Every reply that was to come has come, and no other.
    pub(crate) fn check_replies(&mut self) {
        let mut closed = BTreeSet::new();
        for ((conn, slot), expected) in std::mem::take(&mut self.durable.replies_due) {
            match self.durable.replies.remove(&(conn, slot)) {
                Some(reply) => assert_eq!(reply, expected, "connection {conn}"),
                None => assert!(
                    self.output.slow.contains(&conn),
                    "connection {conn} still waits for {expected:?}"
                ),
            }
            closed.insert((conn, slot));
        }
        if !closed.is_empty() {
            for (&conn, peer) in &mut self.peers {
                peer.open.retain(|&slot| !closed.contains(&(conn, slot)));
            }
        }
        let replies = &self.durable.replies;
        assert!(replies.is_empty(), "replies that nothing explains: {replies:?}");
    }

    /// The store is told what it has to know. In which order it hears of different jobs within one
    /// call is the server's choice.
    pub(super) fn check_operations(&mut self) {
        let mut due = std::mem::take(&mut self.durable.operations_due);
        let mut told = std::mem::take(&mut self.output.operations);
        due.sort_by_key(number_of);
        told.sort_by_key(number_of);
        assert_eq!(told, due, "the store is told");
    }

    /// JOB_CREATED, or its place if it has to wait.
    pub(super) fn expect_created(&mut self, conn: ConnId, number: u64, waits: bool) {
        let created = Packet::of(Command::JobCreated, &[&handle(number)], &[]);
        if !waits {
            return self.expect(conn, &created);
        }
        self.tally.count("waited for the store");
        let reply = self.next(conn);
        let peer = self.peer(conn);
        let slot = (conn, peer.slots);
        peer.slots += 1;
        match reply {
            Some(Packet::Held) => peer.open.push(slot.1),
            // Something later in this call has ended the wait.
            Some(packet) => {
                self.durable.replies.insert(slot, packet);
            }
            None => assert!(self.output.slow.contains(&conn), "connection {conn} gets no place"),
        }
        self.jobs.get_mut(&number).unwrap().waiting.push(slot);
    }

    /// A background job is kept, if that is its function's policy and it isn't yet.
    pub(super) fn store(&mut self, number: u64) {
        let durabilities = &self.rules.durabilities;
        let job = self.jobs.get_mut(&number).unwrap();
        let named = durabilities.named.get(&job.function);
        let durability = *named.unwrap_or(&durabilities.default);
        if job.stored || durability == Durability::None {
            return;
        }
        let answered = durability == Durability::Async && !self.durable.lags;
        (job.stored, job.storing) = (true, !answered);
        let row = job.row(number);
        self.durable.operations_due.push(Operation::Insert { row, answered });
        self.tally.count(if answered { "kept later" } else { "kept first" });
        if !job.clients.is_empty() {
            self.tally.count("made durable by joining");
        }
    }

    /// A worker has lost a job that goes back to its queue.
    pub(super) fn store_attempts(&mut self, number: u64) {
        let Job { stored, attempts, .. } = self.jobs[&number];
        if stored {
            self.tally.count("attempts kept");
            let runs = Runs { attempts, ..Runs::default() };
            self.durable.operations_due.push(Operation::Retry { number, runs });
        }
    }

    /// The store is to forget a job.
    pub(crate) fn unstore(&mut self, number: u64) {
        let job = self.jobs.get_mut(&number).unwrap();
        if std::mem::take(&mut job.stored) {
            self.durable.operations_due.push(Operation::Remove { number });
        }
    }

    /// A job is done with, in whatever way. Nobody has to wait for it any more.
    pub(super) fn remove(&mut self, number: u64) -> Job {
        if self.jobs[&number].storing && self.jobs[&number].stored {
            self.tally.count("ended before it was kept");
        }
        self.accept(number);
        self.unstore(number);
        self.jobs.remove(&number).unwrap()
    }

    /// Those who wait for the store are told that their job is accepted.
    pub(super) fn accept(&mut self, number: u64) {
        let created = Packet::of(Command::JobCreated, &[&handle(number)], &[]);
        self.reply(number, &created);
    }

    fn reply(&mut self, number: u64, packet: &Packet) {
        let waiting = std::mem::take(&mut self.jobs.get_mut(&number).unwrap().waiting);
        let replies = waiting.into_iter().map(|slot| (slot, packet.clone()));
        self.durable.replies_due.extend(replies);
    }

    /// The store has a job, or never will.
    pub(crate) fn outcome(&mut self, number: u64, kept: bool) {
        self.clock += 1;
        let Some(job) = self.jobs.get_mut(&number) else { return };
        job.storing = false;
        if kept {
            job.promised = job.stored;
            self.accept(number);
        } else {
            self.tally.count("not kept");
            (job.stored, job.background) = (false, false);
            self.reply(number, &error("QUEUE_ERROR", "Job could not be stored"));
        }
        let job = &self.jobs[&number];
        let runs = matches!(job.place, Place::Running { .. });
        if !runs && !job.is_wanted() {
            self.drop_queued(number);
        } else if job.place == Place::Storing {
            self.start(number);
        }
    }

    pub(crate) fn allow_async(&mut self, allowed: bool) {
        self.durable.lags = !allowed;
    }

    /// Whether something waits for the store.
    pub(crate) fn is_storing(&self) -> bool {
        self.jobs.values().any(|job| job.storing && job.stored)
            || self.peers.values().any(|peer| !peer.open.is_empty())
    }

    /// Replies that a connection waits for.
    pub(crate) fn open_replies(&self, conn: ConnId) -> usize {
        self.peers[&conn].open.len()
    }

    /// The first sequence that no job has had.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.next_sequences.iter().copied().max().unwrap_or(1)
    }

    /// Everything is on disk: exactly the durable jobs that there are.
    pub(crate) fn check_image(&self, image: &BTreeMap<u64, Row>) {
        let kept = self.jobs.iter().filter(|(_, job)| job.stored);
        let rows: BTreeMap<u64, Row> =
            kept.map(|(&number, job)| (number, job.row(number))).collect();
        assert_eq!(*image, rows, "what is on disk");
    }

    /// The power was cut.
    pub(crate) fn check_cut(&mut self, image: &BTreeMap<u64, Row>, lost: &Lost) {
        let of_job =
            |number| lost.operations.iter().filter(move |operation| number_of(operation) == number);
        for (&number, job) in self.jobs.iter().filter(|(_, job)| job.stored) {
            let Some(row) = image.get(&number) else {
                assert!(!job.promised, "job {number} was promised and is lost");
                let insert = |operation: &Operation| matches!(operation, Operation::Insert { .. });
                let given_up = lost.outcomes.contains(&(number, false));
                assert!(given_up || of_job(number).any(insert), "nobody kept job {number}");
                self.tally.count(if job.storing { "lost unanswered" } else { "lost answered" });
                continue;
            };
            let attempts_lost = of_job(number).find_map(|operation| match operation {
                Operation::Retry { runs, .. } => Some(runs.attempts),
                _ => None,
            });
            let least = attempts_lost.map_or(job.attempts, |lost| lost - 1);
            assert!((least..=job.attempts).contains(&row.attempts), "attempts of job {number}");
            assert_eq!(*row, Row { attempts: row.attempts, ..job.row(number) });
        }
        for &number in image.keys() {
            let remove = |operation: &Operation| matches!(operation, Operation::Remove { .. });
            let alive = self.jobs.get(&number).is_some_and(|job| job.stored);
            let removed = alive || of_job(number).any(remove);
            assert!(removed, "job {number} has ended and comes back");
        }
    }

    /// A new server, with what the old one left on disk.
    pub(crate) fn restart(
        &mut self,
        rules: Rules,
        first_sequence: u64,
        now: Now,
        image: &BTreeMap<u64, Row>,
    ) {
        self.next_sequences = vec![first_sequence; rules.cores.count];
        self.rules = rules;
        self.now = now;
        self.durable = Durable::default();
        self.functions.clear();
        self.jobs.clear();
        self.peers.clear();
        self.fails.clear();
        for (&number, row) in image {
            self.clock += 1;
            let next = &mut self.next_sequences[self.rules.cores.owner_of_job(number)];
            *next = (*next).max((number >> SLOT_BITS) + 1);
            self.functions.entry(row.function.to_vec()).or_default();
            self.jobs.insert(number, Job::restored(row));
            self.start(number);
            self.tally.count("restored");
        }
    }
}

impl Job {
    /// The job as it is to be kept.
    pub(crate) fn row(&self, number: u64) -> Row {
        Row {
            number,
            function: Bytes::copy_from_slice(&self.function),
            unique: Bytes::copy_from_slice(&self.unique),
            reducer: Bytes::copy_from_slice(&self.reducer),
            payload: Bytes::copy_from_slice(&self.payload),
            priority: Priority::ALL[self.priority],
            run_at_ms: self.run_at_s * 1000,
            attempts: self.attempts,
            last_reason: None,
            was_lost: false,
            submitted_ms: self.submitted_ms,
        }
    }

    fn restored(row: &Row) -> Self {
        Self {
            function: row.function.to_vec(),
            unique: row.unique.to_vec(),
            reducer: row.reducer.to_vec(),
            payload: row.payload.to_vec(),
            priority: row.priority as usize,
            background: true,
            cancelled: false,
            clients: Vec::new(),
            place: Place::Storing,
            late: None,
            run_at_s: row.run_at_ms / 1000,
            attempts: row.attempts,
            submitted_ms: row.submitted_ms,
            stored: true,
            storing: false,
            promised: true,
            waiting: Vec::new(),
            progress: (0, 0),
        }
    }
}
