//! The model's dead letters: jobs that failed for good, and what operators do with them.
//!
//! Which of several letters that died at the same moment is the older one is the server's choice.
//! Invariant: there are no more of them than the rules say, and the oldest went first.

use std::collections::BTreeSet;

use bytes::Bytes;
use ringgear::engine::ConnId;
use ringgear::engine::reason::Reason;
use ringgear::engine::record::{DeadRow, Operation};

use super::{Job, Model, Place};

/// Most bytes of an exception that a letter keeps.
const MESSAGE_BYTES_MAX: usize = 1024;

#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub(crate) number: u64,
    pub(crate) job: Job,
    pub(crate) reason: Reason,
    pub(crate) died_ms: u64,
    worker: Vec<u8>,
    message: Vec<u8>,
}

impl Letter {
    pub(crate) fn row(&self) -> DeadRow {
        DeadRow {
            row: self.job.row(self.number),
            reason: self.reason,
            died_ms: self.died_ms,
            worker: Bytes::copy_from_slice(&self.worker),
            message: Bytes::copy_from_slice(&self.message),
        }
    }

    pub(super) fn restored(row: &DeadRow) -> Self {
        Self {
            number: row.row.number,
            job: Job::restored(&row.row),
            reason: row.reason,
            died_ms: row.died_ms,
            worker: row.worker.to_vec(),
            message: row.message.to_vec(),
        }
    }
}

impl Model {
    /// A job becomes a dead letter.
    pub(super) fn bury(
        &mut self,
        number: u64,
        reason: Reason,
        worker: Option<ConnId>,
        message: &[u8],
    ) {
        self.tally.count(match reason {
            Reason::Lost => "dead: lost",
            Reason::TimedOut => "dead: timeout",
            Reason::Fail => "dead: fail",
            Reason::Exception => "dead: exception",
            Reason::Expired => "dead: expired",
        });
        self.accept(number);
        self.leave_queue(number);
        let mut job = self.jobs.remove(&number).unwrap();
        (job.background, job.storing, job.late, job.place) = (true, false, None, Place::Storing);
        job.clients.clear();
        let id = worker.map(|conn| self.peers[&conn].id.clone()).filter(|id| id != b"-");
        let letter = Letter {
            number,
            job,
            reason,
            died_ms: self.now.unix_ms,
            worker: id.unwrap_or_default(),
            message: message[..message.len().min(MESSAGE_BYTES_MAX)].to_vec(),
        };
        if letter.job.stored {
            let bury = Operation::Bury(Box::new(letter.row()));
            self.durable.operations_due.push(bury);
        }
        self.dead.push(letter);
    }

    /// The oldest letters go while there are too many.
    pub(super) fn trim_dead(&mut self) {
        while self.dead.len() > self.rules.dead_max {
            let oldest_ms = self.dead.iter().map(|letter| letter.died_ms).min().unwrap();
            let mut oldest = self.dead.iter().filter(|letter| letter.died_ms == oldest_ms);
            let first = oldest.clone().next().unwrap().number;
            let gone = oldest.find(|letter| !self.output.dead.contains(&letter.number));
            let number = gone.map_or(first, |letter| letter.number);
            self.tally.count("dead: too many");
            self.remove_dead(number);
        }
    }

    /// The letters that are kept long enough by now go.
    pub(super) fn drop_old_letters(&mut self) {
        let is_old = |died_ms: u64| died_ms + self.rules.dead_keep_ms <= self.now.unix_ms;
        let old = self.dead.iter().filter(|letter| is_old(letter.died_ms));
        for number in old.map(|letter| letter.number).collect::<Vec<_>>() {
            self.tally.count("dead: too old");
            self.remove_dead(number);
        }
    }

    pub(crate) fn remove_dead(&mut self, number: u64) -> bool {
        let Some(at) = self.dead.iter().position(|letter| letter.number == number) else {
            return false;
        };
        if self.dead.remove(at).job.stored {
            self.durable.operations_due.push(Operation::RemoveDead { number });
        }
        true
    }

    /// The server has exactly the letters that it should have, those of each core in their order.
    pub(super) fn check_dead(&mut self) {
        let told = std::mem::take(&mut self.output.dead);
        let own: BTreeSet<u64> = self.dead.iter().map(|letter| letter.number).collect();
        assert_eq!(own, told.iter().copied().collect(), "dead letters");
        assert_eq!(own.len(), told.len(), "a letter is there twice");
        let place = |number: u64| told.iter().position(|&other| other == number).unwrap();
        self.dead.sort_by_key(|letter| (letter.died_ms, place(letter.number)));
        for core in 0..self.rules.cores.count {
            let is_its = |&number: &u64| self.rules.cores.owner_of_job(number) == core;
            let expected = self.dead.iter().map(|letter| letter.number).filter(is_its);
            assert!(expected.eq(told.iter().copied().filter(is_its)), "the longest dead first");
        }
        for letter in &self.dead {
            assert!(!self.jobs.contains_key(&letter.number), "a job that is dead and alive");
        }
    }

    /// The letters of a core, the oldest first; of one function, or of all.
    pub(crate) fn letters_of(&self, core: usize, function: Option<&[u8]>) -> Vec<u64> {
        let letters = self.dead.iter().filter(|letter| {
            self.rules.cores.owner_of_job(letter.number) == core
                && function.is_none_or(|name| letter.job.function == name)
        });
        letters.map(|letter| letter.number).collect()
    }

    /// An operator has dead jobs run again: how many are, and how many can't.
    pub(crate) fn requeue_dead(&mut self, numbers: &[u64]) -> (usize, usize) {
        let (mut done, mut skipped) = (0, 0);
        for &number in numbers {
            let at = self.dead.iter().position(|letter| letter.number == number).unwrap();
            let Job { function, unique, payload, .. } = &self.dead[at].job;
            if self.equal(function, unique, payload).is_some() {
                self.tally.count("unique in use");
                skipped += 1;
                continue;
            }
            let mut job = self.dead.remove(at).job;
            (job.attempts, job.last_reason, job.was_lost) = (0, None, false);
            job.run_at_ms = self.now.unix_ms;
            if job.stored {
                let row = Box::new(job.row(number));
                self.durable.operations_due.push(Operation::Unbury(row));
            }
            self.jobs.insert(number, job);
            self.clock += 1;
            self.start(number);
            self.tally.count("dead requeued");
            done += 1;
        }
        (done, skipped)
    }

    /// An operator removes dead letters.
    pub(crate) fn drop_dead(&mut self, numbers: &[u64]) {
        for &number in numbers {
            self.tally.count("dead removed");
            assert!(self.remove_dead(number));
        }
    }
}
