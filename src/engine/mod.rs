//! The job state machine: commands and `now` in, answers and effects on other connections out.
//!
//! Submitting, results, client loss, cancelling, timers and what the admin protocol asks; the
//! workers' half (abilities, grabbing, sleeping) is in `worker`. Connections are numbers here; the
//! engine knows no packets, sockets, clocks or files, and draws no random numbers.
//!
//! Invariant: a job is in exactly one of a queue, the timers, or a worker's hands, and in every
//! index while it is in any of them. Nobody can reach a job that was removed: abandoned and
//! cancelled jobs leave all of them at once. See `check_invariants`.

pub mod function;
pub mod handle;
pub mod index;
pub mod job;
pub mod list;
pub mod record;
pub mod timer;

mod administration;
mod answer;
mod counters;
mod delayed;
mod drain;
mod durable;
mod effect;
mod ids;
#[cfg(debug_assertions)]
mod invariants;
mod late;
mod registry;
mod sequences;
mod settings;
mod worker;

use std::hash::{BuildHasher, Hasher};
use std::num::NonZero;

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;
use slab::Slab;

pub use self::answer::{Accepted, FunctionBusy, NotRunning, Status, SubmitError};
pub use self::counters::Counters;
use self::delayed::ClockWatch;
use self::drain::Drain;
pub use self::effect::Effect;
use self::function::{Abilities, Function, FunctionId, Functions, spread};
pub use self::ids::{ConnId, Now, Ticket, UNIQUE_BYTES_MAX};
use self::index::Index;
use self::job::{Job, JobId, Jobs, State};
use self::list::{Linked, Links, List};
use self::sequences::Sequences;
pub use self::settings::{Settings, Wakeup};
use self::timer::Timers;
use self::worker::Nap;
use crate::wire::Submit;
/// Unique key that stands for "by payload".
const UNIQUE_BY_PAYLOAD: &[u8] = b"-";

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// The lease of a woken worker ends.
    Lease(ConnId),
    /// A delayed job starts, or a running one has had its time.
    Job(JobId),
    /// The wall clock may have been set.
    Clock,
    /// More jobs are to be left to the next server.
    Drain,
}

/// One submission that isn't done with: a connection that waits for a job's outcome, or, with a
/// ticket, for the job to be on disk.
#[derive(Clone, Debug)]
struct Attachment {
    conn: ConnId,
    job: JobId,
    ticket: Option<Ticket>,
    links: [Links; 2],
}

/// Slots of an attachment's links.
const OF_JOB: usize = 0;
const OF_CONN: usize = 1;

impl Linked for Attachment {
    fn links(&self, slot: usize) -> &Links {
        &self.links[slot]
    }
    fn links_mut(&mut self, slot: usize) -> &mut Links {
        &mut self.links[slot]
    }
}

/// What the engine keeps of a connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    /// Its abilities, the latest first.
    pub(crate) abilities: List,
    /// For each priority, abilities whose queue may hold jobs, in the order of their turns.
    pub(crate) ready: [List; 3],
    /// Abilities to be put back among their function's candidates when it falls asleep.
    pub(crate) passed: List,
    /// Jobs assigned to it; its abilities list them.
    pub(crate) running: u32,
    /// Its foreground submissions, the latest first.
    attachments: List,
    pub(crate) nap: Nap,
    /// Stands in `Engine::new_sleepers`.
    pub(crate) is_new_sleeper: bool,
    /// Its home is another core, which wants to hear when a queue of its gets its first job.
    pub(crate) is_remote: bool,
    connected: bool,
}

/// The queues of one core.
#[cfg_attr(debug_assertions, derive(Clone))]
#[derive(Debug)]
pub struct Engine {
    pub(crate) settings: Settings,
    pub(crate) functions: Functions,
    pub(crate) abilities: Abilities,
    pub(crate) jobs: Jobs,
    pub(crate) peers: Vec<Peer>,
    attachments: Slab<Attachment>,
    by_number: Index,
    by_unique: Index,
    pub(crate) timers: Timers<Due>,
    clock: ClockWatch,
    drain: Drain,
    /// Jobs assigned to workers.
    pub(crate) running: usize,
    /// Jobs in all queues, by priority.
    pub(crate) queued: [u32; 3],
    hasher: SeedableRandomState,
    sequences: Sequences,
    /// Background jobs may be answered before they are on disk, where that is the policy.
    async_allowed: bool,
    job_bytes: usize,
    pub(crate) effects: Vec<Effect>,
    /// Functions whose sleepers `wake_sleepers` is to look at.
    pub(crate) stirred: Vec<FunctionId>,
    /// Workers that fell asleep since the last `wake_sleepers`, which looks at their functions.
    pub(crate) new_sleepers: Vec<ConnId>,
    /// Events since the start.
    pub counters: Counters,
}

impl Engine {
    /// An engine without jobs or connections.
    #[must_use]
    pub fn new(settings: Settings, now: Now) -> Self {
        let hasher = SeedableRandomState::with_seed(settings.hash_seed, SharedSeed::global_fixed());
        Self {
            functions: Functions::new(hasher.clone(), settings.durabilities.clone()),
            abilities: Abilities::default(),
            jobs: Jobs::default(),
            peers: Vec::new(),
            attachments: Slab::new(),
            by_number: Index::default(),
            by_unique: Index::default(),
            timers: Timers::new(now.mono_ms),
            clock: ClockWatch::default(),
            drain: Drain::default(),
            running: 0,
            queued: [0; 3],
            hasher,
            sequences: Sequences::from(settings.first_sequence),
            async_allowed: true,
            job_bytes: 0,
            effects: Vec::new(),
            stirred: Vec::new(),
            new_sleepers: Vec::new(),
            counters: Counters::default(),
            settings,
        }
    }

    /// A connection has come.
    pub fn connect(&mut self, conn: ConnId) {
        if self.peers.len() <= conn as usize {
            self.peers.resize_with(conn as usize + 1, Peer::default);
        }
        debug_assert!(!self.peers[conn as usize].connected, "the number is taken");
        self.peers[conn as usize].connected = true;
    }

    /// A connection's home has to do with other cores, too, and wants hints.
    pub fn mark_remote(&mut self, conn: ConnId) {
        self.peers[conn as usize].is_remote = true;
    }

    /// A connection has moved to this core, its home from now on.
    pub fn mark_local(&mut self, conn: ConnId) {
        self.peers[conn as usize].is_remote = false;
    }

    /// Whether a connection has no function, no job and no submission here.
    #[must_use]
    pub fn is_bare(&self, conn: ConnId) -> bool {
        let Peer { abilities, running, attachments, .. } = &self.peers[conn as usize];
        abilities.is_empty() && *running == 0 && attachments.is_empty()
    }

    /// A connection has gone: its jobs go back to their queues, what only it waited for is dropped.
    pub fn disconnect(&mut self, conn: ConnId, now: Now) {
        while let Some(id) = self.peers[conn as usize].attachments.front() {
            let job = self.detach(id);
            self.drop_if_abandoned(job);
        }
        self.reset_abilities(conn, now);
        self.peers[conn as usize] = Peer::default();
    }

    /// Takes a job in, or joins an equal one. `room` is how many bytes may still be allocated.
    ///
    /// # Errors
    /// `SubmitError`: see there.
    pub fn submit(
        &mut self,
        conn: ConnId,
        submit: &Submit<'_>,
        run_at_s: u64,
        room: usize,
        now: Now,
    ) -> Result<Accepted, SubmitError> {
        let function =
            self.find_or_create(submit.function, room).ok_or(SubmitError::OutOfMemory)?;
        let payload = submit.body.from(usize::from(submit.payload_at)).bytes();
        let unique_hash = self.unique_hash(function, submit.unique, payload);
        if let Some(hash) = unique_hash
            && let Some(id) = self.find_equal(function, hash, submit.unique, payload)
        {
            self.counters.coalesced += 1;
            let waits = if submit.background {
                self.jobs[id as usize].background = true;
                self.store(id, function)
            } else {
                self.attach(conn, id, None);
                false
            };
            return Ok(Accepted { number: self.jobs[id as usize].number, job: id, waits });
        }
        if self.functions[function].is_full(submit.priority) {
            return Err(SubmitError::QueueFull);
        }
        if size_of::<Job>() + Job::copied_bytes(submit) > room {
            return Err(SubmitError::OutOfMemory);
        }
        let sequence = self.sequences.take().ok_or(SubmitError::OutOfNumbers)?;
        let number = handle::job_number(sequence, self.functions[function].slot);
        let mut job = Job::new(number, function, submit);
        if run_at_s.saturating_mul(1000) > now.unix_ms {
            job.run_at_s = job::start_s(run_at_s);
        }
        let id = self.insert(job, unique_hash);
        self.counters.created += 1;
        let waits = if submit.background {
            self.store(id, function)
        } else {
            self.attach(conn, id, None);
            false
        };
        if waits {
            self.jobs[id as usize].state = State::Storing;
            self.functions[function].storing += 1;
        } else {
            self.start(id, now);
        }
        Ok(Accepted { number, job: id, waits })
    }

    /// `WORK_DATA` and `WORK_WARNING`: the packet goes to the job's clients.
    ///
    /// # Errors
    /// `NotRunning` if the job isn't assigned to `conn`.
    pub fn work_data(&mut self, conn: ConnId, number: u64) -> Result<(), NotRunning> {
        let (id, _) = self.find_attempt(conn, number)?;
        self.forward(id);
        Ok(())
    }

    /// `WORK_STATUS`: likewise, and the numbers are kept for GET_STATUS.
    ///
    /// # Errors
    /// `NotRunning` if the job isn't assigned to `conn`.
    pub fn work_status(
        &mut self,
        conn: ConnId,
        number: u64,
        numerator: u32,
        denominator: u32,
    ) -> Result<(), NotRunning> {
        let (id, is_running) = self.find_attempt(conn, number)?;
        if is_running {
            let job = &mut self.jobs[id as usize];
            (job.numerator, job.denominator) = (numerator, denominator);
        }
        self.forward(id);
        Ok(())
    }

    /// `WORK_COMPLETE`, `WORK_FAIL` and `WORK_EXCEPTION`: likewise, and the job is done.
    ///
    /// # Errors
    /// `NotRunning` if the job isn't assigned to `conn`, nor waits since its time there was over.
    pub fn work_finished(&mut self, conn: ConnId, number: u64) -> Result<(), NotRunning> {
        let attempt = self.find_attempt(conn, number);
        let (id, is_running) = attempt.inspect_err(|NotRunning| {
            // Of another job the sender has no handle: its own attempt has ended.
            self.counters.late += u64::from(self.is_running(number));
        })?;
        self.forward(id);
        if is_running {
            self.release(id);
        } else {
            self.unqueue(id);
        }
        self.remove(id);
        self.counters.finished += 1;
        Ok(())
    }

    /// The answer to GET_STATUS; `None` for a job that isn't known (any more).
    #[must_use]
    pub fn status(&self, number: u64) -> Option<Status> {
        let id = self.find(number)?;
        Some(self.status_of(&self.jobs[id as usize]))
    }

    /// The answer to GET_STATUS_UNIQUE: the latest job with this unique, whatever its function.
    #[must_use]
    pub fn status_unique(&self, unique: &[u8]) -> Option<(u64, Status)> {
        let busy = self.functions.iter_from(0).filter(|(_, function)| function.total() > 0);
        let found = busy.filter_map(|(function, _)| {
            let hash = self.hash_unique(function, unique, &[]);
            self.find_unique(hash, |job| job.function == function && job.unique() == unique)
        });
        let latest = found.map(|id| &self.jobs[id as usize]).max_by_key(|job| job.number)?;
        Some((latest.number, self.status_of(latest)))
    }

    /// When `tick` has to be called next, in milliseconds of the clock that never goes back.
    #[inline]
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        self.timers.deadline_ms()
    }

    /// Does what is due, at most `budget` things; more may be due afterwards.
    pub fn tick(&mut self, now: Now, mut budget: usize) {
        while let Some(due) = self.timers.expire(now.mono_ms, &mut budget) {
            match due {
                Due::Lease(conn) => self.end_overdue_lease(conn),
                Due::Clock => {
                    let looked_at = self.follow_clock(now);
                    budget = budget.saturating_sub(looked_at);
                }
                Due::Drain => budget = budget.saturating_sub(self.set_some_aside(now)),
                Due::Job(id) => {
                    self.jobs[id as usize].timer = None;
                    match self.jobs[id as usize].state {
                        State::Delayed => self.start_delayed(id, now),
                        State::Running => self.time_out(id, now),
                        State::Queued | State::Storing | State::Kept => {
                            debug_assert!(false, "only delayed and running jobs have timers");
                        }
                    }
                }
            }
        }
    }

    /// Moves the effects that haven't been seen to into `effects`, which must be empty.
    #[inline]
    pub fn take_effects(&mut self, effects: &mut Vec<Effect>) {
        debug_assert!(effects.is_empty());
        std::mem::swap(&mut self.effects, effects);
    }

    /// Memory that the jobs take, in bytes.
    #[inline]
    #[must_use]
    pub fn job_bytes(&self) -> usize {
        self.job_bytes
    }

    /// All jobs.
    #[must_use]
    pub fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// All functions.
    #[must_use]
    pub fn functions(&self) -> &Functions {
        &self.functions
    }

    /// Priorities of queued jobs, one bit each, the most urgent one the lowest.
    #[inline]
    #[must_use]
    pub fn priorities(&self) -> u8 {
        let [high, normal, low] = self.queued.map(|count| u8::from(count > 0));
        high | normal << 1 | low << 2
    }

    /// The function of a job.
    #[inline]
    #[must_use]
    pub fn function_of(&self, job: &Job) -> &Function {
        &self.functions[job.function]
    }

    /// Whether a running job has anybody who waits for its outcome.
    #[must_use]
    pub fn is_wanted(&self, job: &Job) -> bool {
        !job.cancelled && (job.background || !job.clients.is_empty())
    }

    /// A job lost its worker.
    fn lose_worker(&mut self, id: JobId, now: Now) {
        self.release(id);
        self.return_job(id, now);
    }

    /// A job that was taken out of its worker's hands goes back to the head of its queue, or is
    /// gone after its last attempt.
    pub(crate) fn return_job(&mut self, id: JobId, now: Now) {
        let job = &mut self.jobs[id as usize];
        job.attempts = job.attempts.saturating_add(1);
        let exhausted = self
            .settings
            .attempts_max
            .is_some_and(|max| u32::from(job.attempts) >= max.clamp(1, u16::MAX.into()));
        if job.cancelled || (!job.background && job.clients.is_empty()) {
            self.counters.abandoned += u64::from(!job.cancelled);
            self.remove(id);
        } else if exhausted {
            self.counters.exhausted += 1;
            self.fail(id);
            self.remove(id);
        } else {
            self.counters.requeued += 1;
            (job.numerator, job.denominator) = (0, 0);
            if job.stored {
                let (number, attempts) = (job.number, job.attempts.into());
                self.effects.push(Effect::SetAttempts { number, attempts });
            }
            if self.is_for_next(id) {
                self.set_aside(id);
            } else {
                self.enqueue(id, End::Front, now);
            }
        }
    }

    /// A job that is nowhere may start, now or when its time has come.
    fn start(&mut self, id: JobId, now: Now) {
        if self.is_for_next(id) {
            self.set_aside(id);
        } else if self.jobs[id as usize].run_at_ms() > now.unix_ms {
            self.delay(id, now);
        } else {
            self.enqueue(id, End::Back, now);
        }
    }

    /// Puts a job that is nowhere in its queue, tells the workers that it is there and wakes some.
    fn enqueue(&mut self, id: JobId, end: End, now: Now) {
        let job = &mut self.jobs[id as usize];
        job.state = State::Queued;
        let (function_id, priority) = (job.function, job.priority as usize);
        let function = &mut self.functions[function_id];
        let queue = &mut function.queues[priority];
        match end {
            End::Front => queue.jobs.push_front(&mut self.jobs, 0, id),
            End::Back => queue.jobs.push_back(&mut self.jobs, 0, id),
        }
        queue.len += 1;
        function.queued += 1;
        self.queued[priority] += 1;
        if queue.len == 1 {
            self.tell_workers(function_id, priority);
        }
        self.wake_for_new_job(function_id, now);
    }

    /// Takes a job that isn't running out of its queue, off its timer or from among those that wait
    /// for the store; it is nowhere then.
    fn unqueue(&mut self, id: JobId) {
        let job = &mut self.jobs[id as usize];
        let function = &mut self.functions[job.function];
        match job.state {
            State::Queued => {
                let queue = &mut function.queues[job.priority as usize];
                queue.len -= 1;
                function.queued -= 1;
                self.queued[job.priority as usize] -= 1;
                queue.jobs.remove(&mut self.jobs, 0, id);
            }
            State::Delayed => {
                if let Some(timer) = job.timer.take() {
                    self.timers.remove(timer);
                }
                let function = job.function;
                self.end_delay(function);
            }
            State::Storing => function.storing -= 1,
            State::Kept => {
                function.kept -= 1;
                self.drain.kept -= 1;
            }
            State::Running => debug_assert!(false, "a running job is in no queue"),
        }
    }

    /// Keeps a new job and enters it in the indexes.
    fn insert(&mut self, mut job: Job, unique_hash: Option<NonZero<u32>>) -> JobId {
        self.job_bytes += job.bytes();
        job.unique_hash = unique_hash;
        let number = job.number;
        let id = self.jobs.insert(job);
        let jobs = &self.jobs;
        let number_of = |id: JobId| jobs[id as usize].number;
        self.by_number.insert(number_hash(number), id, |id| number_hash(number_of(id)));
        if let Some(hash) = unique_hash {
            let hash_of = |id: JobId| jobs[id as usize].unique_hash.map_or(0, unique_spread);
            self.by_unique.insert(unique_spread(hash), id, hash_of);
        }
        id
    }

    /// Forgets a job that is nowhere, and its clients. Those that wait for the store needn't any
    /// longer: the job was done with before it was on disk.
    fn remove(&mut self, id: JobId) {
        let job = &self.jobs[id as usize];
        if !job.waiting.is_empty() || !job.clients.is_empty() {
            self.accept(id);
            while let Some(attachment) = self.jobs[id as usize].clients.front() {
                self.detach(attachment);
            }
        }
        let job = self.jobs.remove(id);
        if let Some(hash) = job.unique_hash {
            self.by_unique.remove(unique_spread(hash), id);
        }
        self.by_number.remove(number_hash(job.number), id);
        if job.stored {
            self.effects.push(Effect::Remove { number: job.number });
        }
        self.job_bytes -= job.bytes();
        self.check_unused(job.function);
    }

    fn attach(&mut self, conn: ConnId, job: JobId, ticket: Option<Ticket>) {
        let attachment = Attachment { conn, job, ticket, links: [Links::LOOSE; 2] };
        let id = u32::try_from(self.attachments.insert(attachment)).unwrap_or(u32::MAX);
        let job = &mut self.jobs[job as usize];
        let list = if ticket.is_some() { &mut job.waiting } else { &mut job.clients };
        list.push_front(&mut self.attachments, OF_JOB, id);
        self.peers[conn as usize].attachments.push_front(&mut self.attachments, OF_CONN, id);
    }

    /// Ends a submission; answers with its job.
    fn detach(&mut self, id: u32) -> JobId {
        let Attachment { conn, job, ticket, .. } = self.attachments[id as usize];
        let record = &mut self.jobs[job as usize];
        let list = if ticket.is_some() { &mut record.waiting } else { &mut record.clients };
        list.remove(&mut self.attachments, OF_JOB, id);
        self.peers[conn as usize].attachments.remove(&mut self.attachments, OF_CONN, id);
        self.attachments.remove(id as usize);
        job
    }

    /// Removes a job that no worker has and nobody waits for. One that runs may still be joined.
    fn drop_if_abandoned(&mut self, id: JobId) {
        let job = &self.jobs[id as usize];
        if job.state != State::Running && !self.is_wanted(job) {
            self.counters.abandoned += 1;
            self.unqueue(id);
            self.remove(id);
        }
    }

    fn forward(&mut self, id: JobId) {
        let clients = self.jobs[id as usize].clients.iter(&self.attachments, OF_JOB);
        let conns = clients.map(|at| self.attachments[at as usize].conn);
        self.effects.extend(conns.map(|conn| Effect::Forward { conn }));
    }

    /// Tells a job's clients that it failed, and lets them go.
    fn fail(&mut self, id: JobId) {
        self.accept(id);
        let number = self.jobs[id as usize].number;
        while let Some(attachment) = self.jobs[id as usize].clients.front() {
            let conn = self.attachments[attachment as usize].conn;
            self.effects.push(Effect::Fail { conn, number });
            self.detach(attachment);
        }
    }

    fn find(&self, number: u64) -> Option<JobId> {
        self.by_number.find(number_hash(number), |id| self.jobs[id as usize].number == number)
    }

    fn find_unique(
        &self,
        hash: NonZero<u32>,
        mut is_it: impl FnMut(&Job) -> bool,
    ) -> Option<JobId> {
        self.by_unique.find(unique_spread(hash), |id| {
            let job = &self.jobs[id as usize];
            job.unique_hash == Some(hash) && is_it(job)
        })
    }

    /// A job that a submission is to join.
    fn find_equal(
        &self,
        function: FunctionId,
        hash: NonZero<u32>,
        unique: &[u8],
        payload: &[u8],
    ) -> Option<JobId> {
        let by_payload = unique == UNIQUE_BY_PAYLOAD;
        self.find_unique(hash, |job| {
            job.function == function
                && job.unique() == unique
                && (!by_payload || job.payload().bytes() == payload)
        })
    }

    /// Hash under which a submission coalesces; `None` if it never does.
    fn unique_hash(
        &self,
        function: FunctionId,
        unique: &[u8],
        payload: &[u8],
    ) -> Option<NonZero<u32>> {
        match unique {
            [] => None,
            UNIQUE_BY_PAYLOAD if payload.is_empty() => None,
            UNIQUE_BY_PAYLOAD => Some(self.hash_unique(function, UNIQUE_BY_PAYLOAD, payload)),
            unique => Some(self.hash_unique(function, unique, &[])),
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "any 32 bits of a hash will do")]
    fn hash_unique(&self, function: FunctionId, unique: &[u8], payload: &[u8]) -> NonZero<u32> {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u32(function);
        hasher.write(unique);
        hasher.write(payload);
        NonZero::new(hasher.finish() as u32).unwrap_or(NonZero::<u32>::MAX)
    }

    fn status_of(&self, job: &Job) -> Status {
        Status {
            running: job.state == State::Running,
            numerator: job.numerator,
            denominator: job.denominator,
            clients: u32::try_from(job.clients.iter(&self.attachments, OF_JOB).count())
                .unwrap_or(u32::MAX),
        }
    }
}

/// Which end of its queue a job goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Front,
    Back,
}

/// Four jobs in a row share a home in the index of numbers: three such rows fill a line.
const HOME_BITS: u32 = 2;

/// Jobs made one after the other stand in one line of the index or in neighbouring ones, so that a
/// deep queue, which comes and goes in that order, reads them as they lie. Numbers are the server's
/// to choose: nobody can make them meet in one line.
fn number_hash(number: u64) -> u64 {
    let sequence = number >> handle::SLOT_BITS;
    // A sequence has no bits where the index looks for what tells the entries of a line apart.
    sequence >> HOME_BITS | spread(sequence) & u64::from(u8::MAX) << (u64::BITS - u8::BITS)
}

fn unique_spread(hash: NonZero<u32>) -> u64 {
    spread(hash.get().into())
}

#[cfg(test)]
pub(crate) mod tests;
