//! Partitions of stored jobs that come to this server and leave it: rows, or a test of numbers, in;
//! jobs in their queues, or out of memory, out.
//!
//! Nothing that is done here is written to the store: what a job is there has been decided before.
//! Knows no database; which numbers belong to a partition is the caller's to say.
//!
//! Invariant: no `Effect::Insert` has the number of a partition that was dropped: submissions don't
//! join what is left of its jobs, and a home that is lost is left by `move_home`.

use std::ops::Range;

use super::event::Step;
use super::function::Durability;
use super::handle::{SLOT_BITS, job_number, slot_of};
use super::ids::JobId;
use super::job::{Demand, State, Storage};
use super::numbers::Ending;
use super::record::{DeadRow, Row};
use super::suspension::Suspension;
use super::{Effect, Engine, Now, Submit};

impl Engine {
    /// Adds a job of an adopted partition at the head of its queue, or among the delayed ones. Rows
    /// come in descending order of their numbers. Returns whether it is this server's now and
    /// wasn't before.
    pub fn adopt(&mut self, row: &Row, now: Now) -> bool {
        let Row { number, .. } = *row;
        match self.dead.find(number).map(|letter| letter.job.is_stored()) {
            Some(true) => return false,
            // It died here after another server had taken its partition.
            Some(false) => drop(self.remove_dead(number)),
            None => {}
        }
        if let Some(id) = self.find(number) {
            return self.take_back(id, row);
        }
        let id = self.recover(row, now);
        self.note(Step::Adopted, id, None);
        self.start_adopted(id, now);
        true
    }

    /// A job whose partition was lost and adopted again has stayed meanwhile, for its worker or for
    /// its clients: it is stored again.
    fn take_back(&mut self, id: JobId, row: &Row) -> bool {
        let job = &mut self.jobs[id];
        if job.is_stored() {
            return false;
        }
        if job.demand == Demand::Cancelled {
            // The partition was lost before the store heard of that.
            self.effects.push(Effect::Remove { number: row.number });
            return false;
        }
        (job.demand, job.storage) = (Demand::Always, Storage::Stored);
        if job.state == State::Running {
            job.attempts = u16::try_from(row.attempts).unwrap_or(u16::MAX);
            (job.last_reason, job.was_lost) = (row.last_reason, row.was_lost);
        }
        self.reenter_unique_index(id);
        self.note(Step::Adopted, id, None);
        true
    }

    /// Adds a dead letter of an adopted partition. Returns whether it is this server's now and
    /// wasn't before.
    pub fn adopt_dead(&mut self, row: &DeadRow, now: Now) -> bool {
        let number = row.row.number;
        if self.dead.find(number).is_some_and(|letter| !letter.job.is_stored()) {
            self.remove_dead(number);
        }
        // It died elsewhere while something was left of it here.
        if let Some(id) = self.find(number).filter(|&id| !self.jobs[id].is_stored()) {
            self.fail(id);
            match self.jobs[id].state {
                State::Running => drop(self.release(id, now)),
                _ => self.unqueue(id),
            }
            self.note(Step::HandedOver, id, None);
            self.remove(id, Ending::HandedOver, None);
        }
        self.restore_dead(row, now)
    }

    /// Drops the stored jobs and the dead letters for whose numbers `belongs` holds: another server
    /// has them. A worker may end one that it runs, without effect. A job that clients wait for
    /// stays, in memory only. Jobs that wait for the store stay.
    pub fn drop_partition(&mut self, belongs: impl Fn(u64) -> bool, now: Now) {
        let jobs = self.jobs.iter_from(JobId::FIRST);
        let gone = jobs.filter(|(_, job)| job.storage == Storage::Stored && belongs(job.number));
        for id in gone.map(|(id, _)| id).collect::<Vec<JobId>>() {
            self.drop_job(id, now);
        }
        let letters = self.dead.iter_from(0).map(|(_, letter)| &letter.job);
        let gone = letters.filter(|job| job.is_stored() && belongs(job.number));
        for number in gone.map(|job| job.number).collect::<Vec<u64>>() {
            self.forget_dead(number);
        }
        if self.sequences.peek().is_some_and(|next| belongs(job_number(next, 0))) {
            self.home_from = u64::MAX;
        }
    }

    fn drop_job(&mut self, id: JobId, now: Now) {
        self.leave_unique_index(id);
        let job = &mut self.jobs[id];
        job.storage = Storage::Memory;
        if !job.clients.is_empty() {
            job.demand = Demand::Clients;
            if job.state == State::Kept {
                self.unqueue(id);
                return self.start(id, now);
            }
            return self.release_if_held(id, now);
        }
        job.demand = Demand::HandedOver;
        let is_running = job.state == State::Running;
        self.note(Step::HandedOver, id, None);
        if !is_running {
            self.unqueue(id);
            self.remove(id, Ending::HandedOver, None);
        }
    }

    /// The server has another home: jobs are numbered with these sequences only. Those that wait
    /// for the store get new numbers and are inserted again, in their order; but one whose number a
    /// client or a worker knows stays as it is, in memory only, and its background submissions are
    /// refused.
    pub fn move_home(&mut self, sequences: Range<u64>, now: Now) {
        self.home_from = sequences.start;
        self.set_sequences(sequences);
        let jobs = self.jobs.iter_from(JobId::FIRST);
        let awaited = jobs.filter(|(_, job)| job.storage == Storage::Awaited);
        let mut awaited: Vec<(u64, JobId)> = awaited.map(|(id, job)| (job.number, id)).collect();
        awaited.sort_unstable();
        for (number, id) in awaited {
            let job = &self.jobs[id];
            let is_known = !job.clients.is_empty() || job.state == State::Running;
            let sequence = if is_known { None } else { self.sequences.take() };
            match sequence {
                Some(sequence) => {
                    self.renumber(id, job_number(sequence, slot_of(number)));
                    self.effects.push(Effect::Insert { job: id, answered: false });
                }
                None => self.not_stored(number, now),
            }
        }
    }

    /// Whether there is a partition for new jobs.
    pub(super) fn has_home(&self) -> bool {
        self.home_from < u64::MAX
    }

    /// Whether a submission joins an equal job. One that must be stored becomes a job of its own,
    /// which later submissions join, in two cases: the equal job can't be stored any more, as it is
    /// in memory only and has a number of a lost home; or another server may have run it already,
    /// as it has been stored, or may have been, before this server was suspended.
    #[inline]
    pub(super) fn may_join(&mut self, id: JobId, submit: &Submit<'_>) -> bool {
        let is_usual = self.home_from == 0 && !self.is_suspended();
        is_usual || !submit.background || self.keeps_submission(id)
    }

    #[cold]
    fn keeps_submission(&mut self, id: JobId) -> bool {
        let job = &self.jobs[id];
        let is_durable = self.functions[job.function].durability != Durability::None;
        let is_sure = match job.storage {
            Storage::Stored => !self.is_suspended(),
            Storage::Awaited => {
                let Suspension { first_sequence, .. } = self.suspension;
                !self.is_suspended() || job.number >> SLOT_BITS >= first_sequence
            }
            Storage::Memory => job.number >> SLOT_BITS >= self.home_from,
        };
        let may = !is_durable || is_sure;
        if !may {
            self.leave_unique_index(id);
        }
        may
    }
}

#[cfg(test)]
mod tests;
