//! The job state machine of one core: commands and the time in, results and effects out.
//!
//! This file has the data and the clients' commands; workers' commands are in `worker`, `sleep` and
//! `work`, the moves between states in `transition`, what follows a failure in `retry`. A
//! submission comes in as the parsed request (`wire::Submit`), connections are numbers, the time is
//! an argument. The engine knows no other packet, no sockets, clocks or files, and draws no random
//! numbers but by its seed.
//!
//! Invariant: a job is in exactly one place that matches its state (a queue, a timer, a worker, the
//! store) and in the index of numbers; a removed job is in none. See `check_invariants`.

pub mod counters;
pub mod dead;
pub mod event;
pub mod function;
pub mod glob;
pub mod handle;
pub mod index;
pub mod job;
pub mod list;
pub mod named;
pub mod numbers;
pub mod policy;
pub mod reason;
pub mod record;
pub mod table;
pub mod timer;

mod administration;
mod ahead;
mod answer;
mod attachment;
mod delayed;
mod drain;
mod durable;
mod effect;
mod expiry;
mod ids;
#[cfg(debug_assertions)]
mod invariants;
mod late;
mod lookup;
mod next_due;
mod operator;
mod partitions;
mod pause;
mod registry;
mod reload;
mod retry;
mod sequences;
mod settings;
mod sleep;
mod suspension;
mod transition;
mod work;
mod worker;

use std::sync::Arc;

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;

pub use self::answer::{
    Accepted, FunctionBusy, NotRunning, Outcome, Requeued, Status, SubmitError,
};
use self::attachment::{Attachment, OF_JOB};
pub use self::counters::Counters;
use self::dead::DeadLetters;
use self::delayed::ClockWatch;
use self::drain::Drain;
pub use self::drain::DrainGoal;
pub use self::effect::Effect;
use self::event::{Event, Loss, Step};
use self::function::{Abilities, Function, Functions};
pub use self::ids::{
    AbilityId, AttachmentId, ConnId, FunctionId, Id, JobId, Now, Ticket, UNIQUE_BYTES_MAX,
};
use self::index::Index;
use self::job::{Demand, Job, Jobs, State};
use self::list::List;
use self::named::Named;
pub use self::named::{NamedFunction, NamedFunctions};
pub use self::next_due::DuePass;
use self::next_due::NextDues;
use self::numbers::{Ending, Failure, Refused};
use self::policy::Policies;
use self::sequences::Sequences;
pub use self::settings::{Settings, Wakeup};
use self::sleep::SleepState;
use self::suspension::Suspension;
use self::table::Table;
use self::timer::Timers;
use crate::wire::{PrioritySet, Submit};

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// End of a woken worker's lease.
    Lease(ConnId),
    /// Start of a delayed job, or timeout of a running one.
    Job(JobId),
    /// Check whether the wall clock was set.
    Clock,
    /// Set aside more jobs for the next server.
    Drain,
    /// Drop dead letters that are too old.
    Dead,
    /// End of a function's pause.
    Resume(FunctionId),
    /// Set the expiry of more jobs anew, after policies have changed.
    Expiry,
}

/// The engine's record of a connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    /// Abilities, the latest first.
    pub(crate) abilities: List<AbilityId>,
    /// For each priority: abilities whose queue may hold jobs, in the order of their turns.
    pub(crate) maybe_ready: [List<AbilityId>; 3],
    /// Abilities to move to their function's `maybe_asleep` list when the worker falls asleep.
    pub(crate) awake: List<AbilityId>,
    /// Number of jobs assigned to the worker; its abilities list them.
    pub(crate) running: u32,
    /// Submissions that aren't answered yet, the latest first.
    attachments: List<AttachmentId>,
    pub(crate) sleep: SleepState,
    /// The connection is in `Engine::new_sleepers`.
    pub(crate) is_new_sleeper: bool,
    /// The connection is served by several cores; `Effect::Hint` reports queues that get jobs.
    pub(crate) is_remote: bool,
    connected: bool,
}

/// All connections that there are or have been, by number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peers(Vec<Peer>);

impl Peers {
    /// Makes a place for a connection.
    fn extend_to(&mut self, conn: ConnId) {
        if self.0.len() <= conn.index() {
            self.0.resize_with(conn.index() + 1, Peer::default);
        }
    }

    /// The place of this number, if there is one.
    #[cfg(debug_assertions)]
    pub(crate) fn get(&self, conn: ConnId) -> Option<&Peer> {
        self.0.get(conn.index())
    }

    /// All places in the order of their numbers.
    #[cfg(debug_assertions)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.0.iter()
    }
}

impl std::ops::Index<ConnId> for Peers {
    type Output = Peer;

    #[inline]
    fn index(&self, conn: ConnId) -> &Peer {
        &self.0[conn.index()]
    }
}

impl std::ops::IndexMut<ConnId> for Peers {
    #[inline]
    fn index_mut(&mut self, conn: ConnId) -> &mut Peer {
        &mut self.0[conn.index()]
    }
}

/// The queues of one core.
#[cfg_attr(debug_assertions, derive(Clone))]
#[derive(Debug)]
pub struct Engine {
    pub(crate) settings: Settings,
    pub(crate) functions: Functions,
    pub(crate) named: Named,
    pub(crate) abilities: Abilities,
    pub(crate) jobs: Jobs,
    pub(crate) peers: Peers,
    attachments: Table<AttachmentId, Attachment>,
    /// Attachments with a ticket.
    awaiting_store: usize,
    by_number: Index<JobId>,
    by_unique: Index<JobId>,
    pub(crate) timers: Timers<Due>,
    /// Dead letters.
    dead: DeadLetters,
    /// The sum of `Function::retrying`.
    retrying: u32,
    policies: Arc<Policies>,
    /// The next job whose expiry is to be set anew, while policies change.
    next_expiry: Option<JobId>,
    clock: ClockWatch,
    next_dues: NextDues,
    drain: Drain,
    pub(crate) suspension: Suspension,
    /// Jobs assigned to workers.
    pub(crate) running: usize,
    /// The sum of `Function::workers`.
    pub(crate) workers: u32,
    /// The sum of `Function::running_beside`.
    pub(crate) running_beside: u32,
    /// Jobs in all queues, by priority.
    pub(crate) queued: [u32; 3],
    hasher: SeedableRandomState,
    sequences: Sequences,
    /// A job in memory only that has a lower sequence number can't be stored: the number is of a
    /// partition that another server has. `u64::MAX` while this server has no home.
    home_from: u64,
    /// Jobs with policy `Async` may be answered before they are on disk.
    async_allowed: bool,
    job_bytes: usize,
    pub(crate) effects: Vec<Effect>,
    /// Steps of jobs since `take_events`; empty while their levels are off.
    events: Vec<Event>,
    /// Functions that `wake_sleepers` checks for jobs without a lease.
    pub(crate) wakeup_checks: Vec<FunctionId>,
    /// Workers that fell asleep since the last `wake_sleepers`, which checks their functions.
    pub(crate) new_sleepers: Vec<ConnId>,
    /// Events that aren't counted by function.
    pub counters: Counters,
}

impl Engine {
    /// An engine without jobs or connections.
    #[must_use]
    pub fn new(settings: Settings, now: Now) -> Self {
        let hasher = SeedableRandomState::with_seed(settings.hash_seed, SharedSeed::global_fixed());
        Self {
            functions: Functions::new(hasher.clone()),
            named: Named::new(hasher.clone(), settings.metrics_functions.clone()),
            abilities: Abilities::default(),
            jobs: Jobs::default(),
            peers: Peers::default(),
            attachments: Table::default(),
            awaiting_store: 0,
            by_number: Index::default(),
            by_unique: Index::default(),
            timers: Timers::new(now.mono_ms),
            dead: DeadLetters::new(settings.dead.clone()),
            retrying: 0,
            policies: Arc::clone(&settings.policies),
            next_expiry: None,
            clock: ClockWatch::default(),
            next_dues: NextDues::default(),
            drain: Drain::default(),
            suspension: Suspension::default(),
            running: 0,
            workers: 0,
            running_beside: 0,
            queued: [0; 3],
            hasher,
            sequences: Sequences::from(settings.first_sequence),
            home_from: 0,
            async_allowed: true,
            job_bytes: 0,
            effects: Vec::new(),
            events: Vec::new(),
            wakeup_checks: Vec::new(),
            new_sleepers: Vec::new(),
            counters: Counters::default(),
            settings,
        }
    }

    /// Adds a connection.
    pub fn connect(&mut self, conn: ConnId) {
        self.peers.extend_to(conn);
        debug_assert!(!self.peers[conn].connected, "the number is taken");
        self.peers[conn].connected = true;
    }

    /// Marks a connection as served by several cores: `Effect::Hint` is sent for it from now on.
    pub fn mark_remote(&mut self, conn: ConnId) {
        self.peers[conn].is_remote = true;
    }

    /// Marks a connection as served by this core alone.
    pub fn mark_local(&mut self, conn: ConnId) {
        self.peers[conn].is_remote = false;
    }

    /// How many jobs a connection runs.
    #[must_use]
    pub fn running_of(&self, conn: ConnId) -> u32 {
        self.peers[conn].running
    }

    /// Whether a connection has no function, no job and no submission here.
    #[must_use]
    pub fn is_bare(&self, conn: ConnId) -> bool {
        let Peer { abilities, running, attachments, .. } = &self.peers[conn];
        abilities.is_empty() && *running == 0 && attachments.is_empty()
    }

    /// Removes a connection: the jobs that it runs return to their queues, and waiting jobs without
    /// another client are dropped unless they are background jobs.
    pub fn disconnect(&mut self, conn: ConnId, now: Now) {
        while let Some(id) = self.peers[conn].attachments.front() {
            let job = self.detach(id);
            // Dropped, it is in no place, and its id leads to no job.
            if !self.drop_if_abandoned(job, Ending::Failed(Failure::Abandoned)) {
                self.set_aside_if_left(job);
            }
        }
        self.withdraw_all(conn, Loss::Disconnected, now);
        self.peers[conn] = Peer::default();
    }

    /// Creates a job, or joins an equal one. `memory_left` is the number of bytes that may be
    /// allocated.
    ///
    /// # Errors
    /// `SubmitError` if the job is refused; no job was created.
    pub fn submit(
        &mut self,
        conn: ConnId,
        submit: &Submit<'_>,
        run_at_s: u64,
        memory_left: usize,
        now: Now,
    ) -> Result<Accepted, SubmitError> {
        let Some(function) = self.find_or_create(submit.function, memory_left) else {
            self.refuse(submit.function, Refused::Memory);
            return Err(SubmitError::OutOfMemory);
        };
        let payload = submit.body.from(usize::from(submit.payload_at)).bytes();
        let unique_hash = self.unique_hash(function, submit.unique, payload);
        if let Some(hash) = unique_hash
            && let Some(id) = self.find_equal(function, hash, submit.unique, payload)
            && self.may_join(id, submit)
        {
            self.numbers_of(function).joined += 1;
            self.note(Step::Joined, id, Some(conn));
            let waits = if submit.background {
                self.jobs[id].demand = Demand::Always;
                self.store(id, self.functions[function].durability)
            } else {
                self.attach(conn, id, None);
                false
            };
            return Ok(Accepted { number: self.jobs[id].number, job: id, waits });
        }
        // Looked up once: this is on the way of every job.
        let Function { slot, durability, entry, .. } = self.functions[function];
        let sequence = match self.admit(function, submit, memory_left) {
            Ok(sequence) => sequence,
            Err(error) => {
                self.named[entry].refused[Refused::from(error) as usize] += 1;
                return Err(error);
            }
        };
        let number = handle::job_number(sequence, slot);
        let mut job = Job::new(number, function, submit, now);
        let run_at_ms = run_at_s.saturating_mul(1000);
        if run_at_ms > now.unix_ms {
            job.set_run_at_ms(run_at_ms);
        }
        let id = self.insert(job, unique_hash);
        self.note(Step::Submitted, id, Some(conn));
        let waits = if submit.background {
            self.store(id, durability)
        } else {
            self.attach(conn, id, None);
            false
        };
        if waits {
            self.jobs[id].state = State::Storing;
            self.functions[function].storing += 1;
        } else {
            self.named[entry].submitted[usize::from(submit.background)] += 1;
            self.start_at(id, run_at_ms, now);
        }
        Ok(Accepted { number, job: id, waits })
    }

    /// The sequence number of a new job, unless it is refused.
    #[inline(always)]
    fn admit(
        &mut self,
        function: FunctionId,
        submit: &Submit<'_>,
        memory_left: usize,
    ) -> Result<u64, SubmitError> {
        if self.functions[function].is_full(submit.priority) {
            return Err(SubmitError::QueueFull);
        }
        if size_of::<Job>() + Job::copied_bytes(submit) > memory_left {
            return Err(SubmitError::OutOfMemory);
        }
        self.sequences.take().ok_or(SubmitError::OutOfNumbers)
    }

    /// State of a job for GET_STATUS; `None` for an unknown or finished job.
    #[must_use]
    pub fn status(&self, number: u64) -> Option<Status> {
        let id = self.find(number)?;
        Some(self.status_of(&self.jobs[id]))
    }

    /// The name of a job's function; `None` for an unknown or finished job.
    #[must_use]
    pub fn function_of_number(&self, number: u64) -> Option<&[u8]> {
        let id = self.find(number)?;
        Some(&self.function_of(&self.jobs[id]).name)
    }

    /// Number and state of the latest job with this unique key, of any function for whose name
    /// `counts` holds, for GET_STATUS_UNIQUE.
    #[must_use]
    pub fn status_unique(
        &self,
        unique: &[u8],
        counts: impl Fn(&[u8]) -> bool,
    ) -> Option<(u64, Status)> {
        let busy = self
            .functions
            .iter_from(FunctionId::FIRST)
            .filter(|(_, function)| function.total() > 0 && counts(&function.name));
        let found = busy.filter_map(|(function, _)| {
            let hash = self.hash_unique(function, unique, &[]);
            self.find_unique(hash, |job| job.function == function && job.unique() == unique)
        });
        let latest = found.map(|id| &self.jobs[id]).max_by_key(|job| job.number)?;
        Some((latest.number, self.status_of(latest)))
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

    /// When to call `tick` next, in milliseconds of `Now::mono_ms`.
    #[inline]
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        self.timers.deadline_ms()
    }

    /// Handles expired timers, at most `budget` of them; more may be expired afterwards.
    pub fn tick(&mut self, now: Now, mut budget: usize) {
        while let Some(due) = self.timers.expire(now.mono_ms, &mut budget) {
            match due {
                Due::Lease(conn) => self.end_overdue_lease(conn),
                Due::Clock => {
                    let looked_at = self.follow_clock(now);
                    budget = budget.saturating_sub(looked_at);
                }
                Due::Resume(function) => self.pause_is_over(function, now),
                Due::Expiry => budget = budget.saturating_sub(self.reset_some_expiries(now)),
                Due::Dead => budget = budget.saturating_sub(self.drop_old_letters(now)),
                Due::Drain => budget = budget.saturating_sub(self.set_some_aside(now)),
                Due::Job(id) => {
                    self.jobs[id].timer = None;
                    match self.jobs[id].state {
                        State::Delayed => self.start_delayed(id, now),
                        State::Running => self.time_out(id, now),
                        State::Queued => self.check_expiry(id, now),
                        State::Storing | State::Kept => {
                            debug_assert!(false, "a job that may not start has no timer");
                        }
                    }
                }
            }
        }
    }

    /// Whether `take_effects` has any.
    #[inline]
    #[must_use]
    pub fn has_effects(&self) -> bool {
        !self.effects.is_empty()
    }

    /// Moves all effects since the last call into `effects`, which must be empty.
    #[inline]
    pub fn take_effects(&mut self, effects: &mut Vec<Effect>) {
        debug_assert!(effects.is_empty());
        std::mem::swap(&mut self.effects, effects);
    }

    /// Memory of all jobs, in bytes.
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

    /// Priorities of queued jobs.
    #[inline]
    #[must_use]
    pub fn priorities(&self) -> PrioritySet {
        let held = self.suspension.held;
        let has_jobs = |at: usize| self.queued[at] > held[at] && self.assigns();
        PrioritySet::from_flags([0, 1, 2].map(has_jobs))
    }

    /// The function of a job.
    #[inline]
    #[must_use]
    pub fn function_of(&self, job: &Job) -> &Function {
        &self.functions[job.function]
    }

    /// The worker that runs a job.
    #[must_use]
    pub fn worker_of(&self, job: &Job) -> ConnId {
        self.abilities.records[job.ability()].conn
    }

    /// Since when the oldest of the jobs at the heads of a function's queues could have been
    /// started, in milliseconds since 1970.
    #[must_use]
    pub fn oldest_ms(&self, function: &Function) -> Option<u64> {
        let queues = function.queues.iter();
        let heads = queues.flat_map(|queue| [queue.held.front(), queue.jobs.front()]).flatten();
        heads.map(|id| self.jobs[id].ready_since_ms()).min()
    }

    /// Whether a job's outcome still matters: a client waits for it, or it is a background job.
    #[must_use]
    pub fn is_wanted(&self, job: &Job) -> bool {
        match job.demand {
            Demand::Always => true,
            Demand::Clients => !job.clients.is_empty(),
            Demand::Cancelled | Demand::HandedOver => false,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
