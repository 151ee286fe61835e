//! The model's durable half: what the store is told, which replies wait for it, and what comes back
//! when the power was cut.
//!
//! Operations, outcomes and rows in; a broken promise is a panic. Invariant: what the store is told
//! follows from the model alone, and so does what it keeps once all of that is on disk.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ringgear::engine::function::Durability;
use ringgear::engine::handle::SLOT_BITS;
use ringgear::engine::record::{DeadRow, Operation, Pause, Row};
use ringgear::engine::{ConnId, Now};
use ringgear::wire::{Command, Priority};

use super::dead::Letter;
use super::{Job, Model, Place, Rules, error, handle};
use crate::store::{Image, Lost};
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
    pub(super) operations_due: Vec<Operation>,
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
        for operations in [&mut due, &mut told] {
            operations.sort_by_key(|operation| match operation {
                Operation::Pause { function, .. } => (None, function.clone()),
                other => (other.number(), Bytes::new()),
            });
            // A letter that goes at once needn't be stored before.
            for at in 1..operations.len() {
                if let [Operation::Bury(letter), Operation::RemoveDead { number }] =
                    &operations[at - 1..=at]
                    && letter.row.number == *number
                {
                    operations[at - 1] = Operation::Remove { number: *number };
                }
            }
        }
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
        let by_policy = self.policy_of(&self.jobs[&number].function);
        let by_policy = by_policy.and_then(|policy| policy.durability);
        let durabilities = &self.rules.durabilities;
        let job = self.jobs.get_mut(&number).unwrap();
        let named = durabilities.named.get(&job.function).copied();
        let durability = named.or(by_policy).unwrap_or(durabilities.default);
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
        if !job.storing {
            // It died meanwhile and is run again: the store has it for that.
            return;
        }
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

    /// Everything is on disk: exactly the durable jobs and letters that there are.
    pub(crate) fn check_image(&self, image: &Image) {
        let kept = self.jobs.iter().filter(|(_, job)| job.stored);
        let jobs: BTreeMap<u64, Row> =
            kept.map(|(&number, job)| (number, job.row(number))).collect();
        assert_eq!(image.jobs, jobs, "what is on disk");
        let kept = self.dead.iter().filter(|letter| letter.job.stored);
        let dead: BTreeMap<u64, DeadRow> =
            kept.map(|letter| (letter.number, letter.row())).collect();
        assert_eq!(image.dead, dead, "dead letters on disk");
        assert_eq!(image.pauses, self.pauses(), "pauses on disk");
    }

    fn pauses(&self) -> BTreeMap<Vec<u8>, Pause> {
        let functions = self.functions.iter();
        functions.filter_map(|(name, it)| Some((name.clone(), it.pause?))).collect()
    }

    /// The power was cut.
    pub(crate) fn check_cut(&mut self, image: &Image, lost: &Lost) {
        let of_job = |number| {
            let operations = lost.operations.iter();
            operations.filter(move |operation| operation.number() == Some(number))
        };
        let is_lost = |number, which: fn(&Operation) -> bool| of_job(number).any(which);
        let never_kept =
            |number| lost.outcomes.contains(&(number, false)) || is_lost(number, is_insert);
        for (&number, job) in self.jobs.iter().filter(|(_, job)| job.stored) {
            if image.dead.contains_key(&number) {
                let unbury = |operation: &Operation| matches!(operation, Operation::Unbury(_));
                assert!(is_lost(number, unbury), "job {number} is dead again");
                self.tally.count("dead again");
                continue;
            }
            let Some(row) = image.jobs.get(&number) else {
                assert!(!job.promised, "job {number} was promised and is lost");
                assert!(never_kept(number), "nobody kept job {number}");
                self.tally.count(if job.storing { "lost unanswered" } else { "lost answered" });
                continue;
            };
            let attempts_lost = of_job(number).find_map(|operation| match operation {
                Operation::Retry { runs, .. } => Some(runs.attempts),
                _ => None,
            });
            let own = job.row(number);
            let Some(attempts_lost) = attempts_lost else {
                assert_eq!(*row, own);
                continue;
            };
            let least = attempts_lost.saturating_sub(1);
            assert!((least..=job.attempts).contains(&row.attempts), "attempts of job {number}");
            let Row { run_at_ms, attempts, last_reason, was_lost, .. } = *row;
            assert_eq!(*row, Row { run_at_ms, attempts, last_reason, was_lost, ..own });
        }
        for letter in self.dead.iter().filter(|letter| letter.job.stored) {
            let number = letter.number;
            if let Some(row) = image.dead.get(&number) {
                assert_eq!(*row, letter.row());
                continue;
            }
            let bury = |operation: &Operation| matches!(operation, Operation::Bury(_));
            assert!(is_lost(number, bury), "dead letter {number} is lost");
            if image.jobs.contains_key(&number) {
                self.tally.count("alive again");
            } else {
                assert!(!letter.job.promised, "job {number} was promised and is lost");
                assert!(never_kept(number), "nobody kept job {number}");
            }
        }
        for &number in image.jobs.keys().chain(image.dead.keys()) {
            let is_kept = self.jobs.get(&number).is_some_and(|job| job.stored)
                || self.dead.iter().any(|it| it.number == number && it.job.stored);
            assert!(is_kept || is_lost(number, is_removal), "job {number} has ended, comes back");
        }
        let pauses = self.pauses();
        let is_changed = |name: &Vec<u8>| {
            lost.operations.iter().any(|operation| {
                matches!(operation, Operation::Pause { function, .. } if **function == **name)
            })
        };
        for name in pauses.keys().chain(image.pauses.keys()) {
            let is_right = pauses.get(name) == image.pauses.get(name) || is_changed(name);
            assert!(is_right, "the pause of {}", name.escape_ascii());
        }
    }

    /// A new server, with what the old one left on disk.
    pub(crate) fn restart(&mut self, rules: Rules, first_sequence: u64, now: Now, image: &Image) {
        self.next_sequences = vec![first_sequence; rules.cores.count];
        self.rules = rules;
        self.now = now;
        self.durable = Durable::default();
        self.functions.clear();
        self.jobs.clear();
        self.dead.clear();
        self.peers.clear();
        self.fails.clear();
        for (&number, row) in &image.jobs {
            self.clock += 1;
            self.skip_number(number);
            self.function(&row.function);
            self.jobs.insert(number, Job::restored(row));
            if row.run_at_ms > 0 && row.attempts > 0 {
                self.tally.count("retrying restored");
            }
            self.start(number);
            self.tally.count("restored");
        }
        for row in image.dead_in_order() {
            self.skip_number(row.row.number);
            self.function(&row.row.function);
            self.dead.push(Letter::restored(row));
            self.tally.count("dead restored");
        }
        for (name, &pause) in &image.pauses {
            self.function(name).pause = Some(pause);
            self.tally.count("pause restored");
        }
    }

    fn skip_number(&mut self, number: u64) {
        let next = &mut self.next_sequences[self.rules.cores.owner_of_job(number)];
        *next = (*next).max((number >> SLOT_BITS) + 1);
    }
}

fn is_insert(operation: &Operation) -> bool {
    matches!(operation, Operation::Insert { .. })
}

fn is_removal(operation: &Operation) -> bool {
    matches!(operation, Operation::Remove { .. } | Operation::RemoveDead { .. })
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
            run_at_ms: self.run_at_ms,
            attempts: self.attempts,
            last_reason: self.last_reason,
            was_lost: self.was_lost,
            submitted_ms: self.submitted_ms,
        }
    }

    pub(super) fn restored(row: &Row) -> Self {
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
            run_at_ms: row.run_at_ms,
            attempts: row.attempts,
            last_reason: row.last_reason,
            was_lost: row.was_lost,
            submitted_ms: row.submitted_ms,
            stored: true,
            storing: false,
            promised: true,
            waiting: Vec::new(),
            progress: (0, 0),
        }
    }
}
