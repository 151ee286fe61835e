//! Dead letters: jobs that failed for good in, lists of them and jobs to run again out.
//!
//! A dead letter is no job: it has a number and a handle, but no unique key that submissions join,
//! and no worker gets it until an operator requeues it. All cores together keep as many as
//! `DeadBounds` says; the oldest of all goes first. Knows no packets and no store.
//!
//! Invariant: the letters are in the order in which the jobs died here, and what the bounds share
//! is the sum of all cores' letters.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use foldhash::HashMap;

use super::counters::Dropped;
use super::event::Step;
use super::function::Function;
use super::handle::SLOT_BITS;
use super::ids::{ConnId, JobId, Now};
use super::job::{Demand, Job, Storage};
use super::numbers::Ending;
use super::reason::Reason;
use super::record::DeadRow;
use super::timer::TimerId;
use super::{Due, Effect, Engine, Requeued};

/// Longest message of a dead letter, in bytes; longer ones are cut.
pub const MESSAGE_BYTES_MAX: usize = 1024;

/// Letters that are dropped at a time because they are too old.
const LETTERS_AT_ONCE: usize = 256;
/// Longest time between two looks at the age of the oldest letter, in milliseconds.
const LOOK_AGAIN_MS: u64 = 60_000;

/// How many dead letters all cores together keep, and for how long.
#[derive(Clone, Debug)]
pub struct DeadBounds {
    /// Most of them.
    pub count_max: usize,
    /// Most bytes of them, as `DeadLetter::bytes` counts.
    pub bytes_max: usize,
    /// For how long each is kept, in milliseconds.
    pub keep_ms: u64,
    /// This core.
    core: usize,
    shared: Arc<Shared>,
}

/// What the cores know of each other's letters.
#[derive(Debug)]
struct Shared {
    count: AtomicUsize,
    bytes: AtomicUsize,
    /// By core: when its oldest letter died; `u64::MAX` without any.
    oldest_ms: Box<[AtomicU64]>,
}

impl DeadBounds {
    /// Bounds for all cores. Clones share what the cores have.
    #[must_use]
    pub fn new(count_max: usize, bytes_max: usize, keep_ms: u64) -> Self {
        // Each core has at least a slot of job numbers.
        let oldest_ms = (0..1 << SLOT_BITS).map(|_| AtomicU64::new(u64::MAX)).collect();
        let (count, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let shared = Arc::new(Shared { count, bytes, oldest_ms });
        Self { count_max, bytes_max, keep_ms, core: 0, shared }
    }

    /// The bounds as this core sees them.
    #[must_use]
    pub fn at(&self, core: usize) -> Self {
        Self { core, ..self.clone() }
    }

    /// Which bound is exceeded.
    fn exceeded(&self) -> Option<Dropped> {
        if self.shared.count.load(Ordering::Relaxed) > self.count_max {
            Some(Dropped::Count)
        } else if self.shared.bytes.load(Ordering::Relaxed) > self.bytes_max {
            Some(Dropped::Bytes)
        } else {
            None
        }
    }

    /// The core that has the oldest letter: this one, if several have one of that time.
    fn core_of_oldest(&self) -> usize {
        let oldest_ms = |core: usize| {
            let shared = self.shared.oldest_ms.get(core);
            shared.map_or(u64::MAX, |oldest_ms| oldest_ms.load(Ordering::Relaxed))
        };
        let least = (0..self.shared.oldest_ms.len()).min_by_key(|&core| oldest_ms(core));
        least.filter(|&core| oldest_ms(core) < oldest_ms(self.core)).unwrap_or(self.core)
    }
}

impl Default for DeadBounds {
    fn default() -> Self {
        Self::new(10_000, 64 << 20, 30 * 86_400_000)
    }
}

/// A job that failed for good.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The job.
    pub job: Job,
    /// How its last run ended.
    pub reason: Reason,
    /// When, in milliseconds since 1970.
    pub died_ms: u64,
    /// Client id of its last worker; empty without one.
    pub worker: Box<[u8]>,
    /// Data of its last WORK_EXCEPTION, at most `MESSAGE_BYTES_MAX`.
    pub message: Box<[u8]>,
}

impl DeadLetter {
    /// Memory of the letter in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let Self { job, worker, message, .. } = self;
        size_of::<Self>() - size_of::<Job>() + job.bytes() + worker.len() + message.len()
    }
}

/// All dead letters of one core, the longest dead first.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    letters: BTreeMap<u64, DeadLetter>,
    /// Places by the jobs' numbers.
    places: HashMap<u64, u64>,
    next_place: u64,
    bytes: usize,
    bounds: DeadBounds,
    /// Set while there are letters.
    timer: Option<TimerId>,
}

impl DeadLetters {
    /// None.
    pub(super) fn new(bounds: DeadBounds) -> Self {
        let (letters, places) = (BTreeMap::new(), HashMap::default());
        Self { letters, places, next_place: 0, bytes: 0, bounds, timer: None }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.letters.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    /// Memory of all letters in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The letters from this place on, each with its place; places only grow.
    pub fn iter_from(&self, place: u64) -> impl Iterator<Item = (u64, &DeadLetter)> {
        self.letters.range(place..).map(|(&place, letter)| (place, letter))
    }

    /// The place of the next letter: all that there are have lower ones.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.next_place
    }

    /// The letter of the job of this number.
    #[must_use]
    pub fn find(&self, number: u64) -> Option<&DeadLetter> {
        self.letters.get(self.places.get(&number)?)
    }

    /// The longest dead letter.
    pub(super) fn oldest(&self) -> Option<&DeadLetter> {
        self.letters.first_key_value().map(|(_, letter)| letter)
    }

    /// Appends a letter.
    pub(super) fn push(&mut self, letter: DeadLetter) {
        let bytes = letter.bytes();
        self.bytes += bytes;
        self.bounds.shared.count.fetch_add(1, Ordering::Relaxed);
        self.bounds.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.places.insert(letter.job.number, self.next_place);
        self.letters.insert(self.next_place, letter);
        self.next_place += 1;
        self.publish();
    }

    /// Removes the letter of the job of this number.
    pub(super) fn remove(&mut self, number: u64) -> Option<DeadLetter> {
        let letter = self.letters.remove(&self.places.remove(&number)?)?;
        let bytes = letter.bytes();
        self.bytes -= bytes;
        self.bounds.shared.count.fetch_sub(1, Ordering::Relaxed);
        self.bounds.shared.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.publish();
        Some(letter)
    }

    /// Sets the client id of a letter's worker.
    pub(super) fn name_worker(&mut self, number: u64, worker: &[u8]) {
        let place = self.places.get(&number);
        let Some(letter) = place.and_then(|at| self.letters.get_mut(at)) else { return };
        let before = letter.bytes();
        letter.worker = worker.into();
        let more = letter.bytes() - before;
        self.bytes += more;
        self.bounds.shared.bytes.fetch_add(more, Ordering::Relaxed);
    }

    fn publish(&self) {
        let oldest_ms = self.oldest().map_or(u64::MAX, |letter| letter.died_ms);
        if let Some(own) = self.bounds.shared.oldest_ms.get(self.bounds.core) {
            own.store(oldest_ms, Ordering::Relaxed);
        }
    }
}

impl Engine {
    /// The dead letters.
    #[must_use]
    pub fn dead(&self) -> &DeadLetters {
        &self.dead
    }

    /// The function of a dead letter.
    #[must_use]
    pub fn function_of_dead(&self, letter: &DeadLetter) -> &Function {
        self.function_of(&letter.job)
    }

    /// Dead letters that are in no store: they are lost when the server ends.
    #[must_use]
    pub fn unstored_dead(&self) -> usize {
        self.dead.iter_from(0).filter(|(_, letter)| !letter.job.is_stored()).count()
    }

    /// The stored form of a dead letter; `None` if there is none.
    #[must_use]
    pub fn dead_row(&self, number: u64) -> Option<DeadRow> {
        let DeadLetter { job, reason, died_ms, worker, message } = self.dead.find(number)?;
        Some(DeadRow {
            row: job.row(&self.function_of(job).name),
            reason: *reason,
            died_ms: *died_ms,
            worker: Bytes::copy_from_slice(worker),
            message: Bytes::copy_from_slice(message),
        })
    }

    /// Sets the client id of the last worker of a dead letter.
    pub fn name_dead_worker(&mut self, number: u64, worker: &[u8]) {
        self.dead.name_worker(number, worker);
    }

    /// Sets the client id of a worker at the letters whose burial is an effect.
    pub fn name_buried(&mut self, worker: ConnId, id: &[u8]) {
        for effect in &self.effects {
            if let Effect::Bury { number, worker: Some(last), .. } = *effect
                && last == worker
            {
                self.dead.name_worker(number, id);
            }
        }
    }

    /// Makes a job that is in no place a dead letter.
    pub(super) fn bury(
        &mut self,
        id: JobId,
        reason: Reason,
        worker: Option<ConnId>,
        message: &[u8],
        now: Now,
    ) {
        let mut job = self.take_out(id);
        let ending = Ending::Failed(reason.into());
        self.count_attempts(job.attempts, ending, false);
        let (number, is_stored) = (job.number, job.is_stored());
        (job.demand, job.unique_hash) = (Demand::Always, None);
        if is_stored {
            // By the letter, whatever becomes of an insertion that was awaited.
            job.storage = Storage::Stored;
        }
        let message = message.get(..MESSAGE_BYTES_MAX).unwrap_or(message).into();
        let numbers = self.numbers_of(job.function);
        numbers.end(ending);
        numbers.dead[reason as usize] += 1;
        self.functions[job.function].dead += 1;
        let died_ms = now.unix_ms;
        self.dead.push(DeadLetter { job, reason, died_ms, worker: Box::default(), message });
        self.effects.push(Effect::Bury { number, worker, is_stored });
        self.bound_dead(number, now);
    }

    /// Recovers a stored dead letter after a restart. `false` if its number is in use.
    pub fn restore_dead(&mut self, row: &DeadRow, now: Now) -> bool {
        let number = row.row.number;
        if self.find(number).is_some() || self.dead.find(number).is_some() {
            return false;
        }
        self.sequences.skip(number >> SLOT_BITS);
        let function = self.functions.find(&row.row.function);
        let function = function.unwrap_or_else(|| self.add_function(&row.row.function));
        let job = Job::restored(function, &row.row, now);
        self.functions[function].dead += 1;
        let DeadRow { reason, died_ms, ref worker, ref message, .. } = *row;
        let (worker, message) = (worker[..].into(), message[..].into());
        self.dead.push(DeadLetter { job, reason, died_ms, worker, message });
        self.bound_dead(number, now);
        true
    }

    /// Keeps the bounds after a letter has come. A letter that is larger than all letters together
    /// may be is dropped itself: all others would have to go for it, and then it, too.
    fn bound_dead(&mut self, number: u64, now: Now) {
        let letter = self.dead.find(number);
        if letter.is_some_and(|letter| letter.bytes() > self.dead.bounds.bytes_max) {
            self.drop_letter(number, Dropped::Bytes);
        }
        self.trim_dead();
        self.watch_dead(now);
    }

    /// Drops dead letters while there are too many, if this core has the oldest; else asks the core
    /// that has it to do so.
    pub fn trim_dead(&mut self) {
        while let Some(why) = self.dead.bounds.exceeded() {
            let core = self.dead.bounds.core_of_oldest();
            if core != self.dead.bounds.core {
                return self.effects.push(Effect::TrimDead { core });
            }
            let Some(number) = self.dead.oldest().map(|letter| letter.job.number) else { return };
            self.drop_letter(number, why);
        }
    }

    /// Has a timer set for the end of the oldest letter, looked at again after `LOOK_AGAIN_MS` at
    /// the latest, as the wall clock may be set.
    fn watch_dead(&mut self, now: Now) {
        let Some(letter) = self.dead.oldest() else { return };
        if self.dead.timer.is_none() {
            let end_ms = letter.died_ms.saturating_add(self.dead.bounds.keep_ms);
            let wait_ms = end_ms.saturating_sub(now.unix_ms).min(LOOK_AGAIN_MS);
            self.dead.timer = Some(self.timers.insert(now.mono_ms + wait_ms, Due::Dead));
        }
    }

    /// Drops letters that are too old, at most `LETTERS_AT_ONCE`.
    pub(super) fn drop_old_letters(&mut self, now: Now) -> usize {
        self.dead.timer = None;
        let mut dropped = 0;
        while dropped < LETTERS_AT_ONCE
            && let Some(DeadLetter { job, died_ms, .. }) = self.dead.oldest()
            && died_ms.saturating_add(self.dead.bounds.keep_ms) <= now.unix_ms
        {
            self.drop_letter(job.number, Dropped::Age);
            dropped += 1;
        }
        self.watch_dead(now);
        dropped
    }

    fn drop_letter(&mut self, number: u64, why: Dropped) {
        self.counters.dead_dropped[why as usize] += 1;
        self.remove_dead(number);
    }

    /// Takes the letter of this number out, and with the last one the timer.
    fn take_letter(&mut self, number: u64) -> Option<DeadLetter> {
        let letter = self.dead.remove(number)?;
        self.functions[letter.job.function].dead -= 1;
        if self.dead.is_empty()
            && let Some(timer) = self.dead.timer.take()
        {
            self.timers.remove(timer);
        }
        Some(letter)
    }

    /// Removes the dead letter of this number. `false` if there is none.
    pub fn remove_dead(&mut self, number: u64) -> bool {
        let Some(job) = self.forget_dead(number) else { return false };
        if job.is_stored() {
            self.effects.push(Effect::RemoveDead { number });
        }
        true
    }

    /// Removes the dead letter of this number here, not from the store. Returns its job.
    pub(super) fn forget_dead(&mut self, number: u64) -> Option<Job> {
        let DeadLetter { job, .. } = self.take_letter(number)?;
        self.check_unused(job.function);
        Some(job)
    }

    /// Makes a dead letter a job again that was never run: it keeps its handle, and goes to the
    /// tail of its queue.
    pub fn requeue(&mut self, number: u64, now: Now) -> Requeued {
        let Some(letter) = self.dead.find(number) else { return Requeued::Unknown };
        let job = &letter.job;
        let (function, unique) = (job.function, job.unique());
        let payload = job.payload();
        let hash = self.unique_hash(function, unique, payload.bytes());
        let is_in_use = |hash| self.find_equal(function, hash, unique, payload.bytes()).is_some();
        if hash.is_some_and(is_in_use) {
            return Requeued::UniqueInUse;
        }
        let Some(DeadLetter { mut job, .. }) = self.take_letter(number) else {
            return Requeued::Unknown;
        };
        (job.attempts, job.last_reason, job.was_lost) = (0, None, false);
        // It waits from now on, not since it was submitted.
        job.set_run_at_ms(now.unix_ms);
        let is_stored = job.is_stored();
        let id = self.insert(job, hash);
        self.numbers_of(function).recovered += 1;
        if is_stored {
            self.effects.push(Effect::Unbury { job: id });
        }
        self.note(Step::Unburied, id, None);
        self.start(id, now);
        Requeued::Done
    }
}
