//! What a connection's home knows of its relations with other cores: a state machine.
//!
//! Requests of the connection and messages of owners in, what is to be sent out as return values:
//! nothing is sent here. A worker whose functions belong to several cores is served by hints: each
//! owner says which priorities may have jobs for it, and a grab asks the most promising owner
//! first. The home is an owner like any other; what it would send to itself are calls. Knows no
//! shard, no engine and no connection; `remote` says the rules as a whole.
//!
//! Invariant: a worker that is asleep here has told every owner of its functions so, and no hint
//! is left.

use std::collections::BTreeSet;

use crate::shard::cores::{Core, CoreSet, Cores};
use crate::shard::remote::message::Rest;
use crate::shard::remote::urgency::Urgency;
use crate::wire::{Command, Grab, Priority, PrioritySet};

/// A connection's relations with the cores that aren't its home.
#[derive(Clone, Debug)]
pub(in crate::shard) struct RemoteState {
    cores: Cores,
    /// Cores that know of the connection.
    known: CoreSet,
    /// Submissions to another core since the last one that was for this.
    submissions_in_row: u32,
    /// It couldn't be moved once, and stays where it is.
    is_pinned: bool,
    /// Functions of other cores that it can run.
    functions: BTreeSet<Box<[u8]>>,
    /// Memory that they take.
    function_bytes: usize,
    /// How many of them each core owns.
    able: Box<[u32]>,
    /// Priorities that may have jobs, by core.
    hints: Box<[PrioritySet]>,
    /// Cores that may have jobs without a hint: it has registered there since they last answered,
    /// or they take it for asleep.
    unheard: CoreSet,
    /// Cores whose queues it has changed since they last answered a grab: it submitted a job there,
    /// or withdrew a function, which returns its jobs. What they had before says nothing of these.
    /// Kept when the worker withdraws a function, as it may name it again at once.
    changed: CoreSet,
    /// Cores that take it for asleep.
    told: CoreSet,
    /// The core whose NOOP woke it, until that was asked or it got a job.
    woken_by: Option<Core>,
    /// The core that was asked last.
    turn: Core,
    asleep: bool,
    /// It can run, or could, functions of another core.
    is_multi_core: bool,
    /// A grab that an owner is being asked for; requests behind it wait.
    grabbing: Option<Grab>,
    /// Cores that have no job for it.
    asked: CoreSet,
    /// Jobs of other cores that it has got and not finished, for the log.
    jobs: u32,
}

/// What a home does next about a grab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum GrabStep {
    /// Ask this core for a job that is at least so urgent.
    Ask(Core, Priority, Grab),
    /// No core has a job: the worker gets NO_JOB.
    NoJob,
}

/// What a home does about an owner's NOOP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum Noop {
    /// The worker gets it.
    Wake,
    /// The owner is to wake another worker.
    Decline,
}

impl RemoteState {
    /// Of a connection that no other core knows of.
    pub(in crate::shard) fn new(cores: Cores) -> Self {
        Self {
            cores,
            known: CoreSet::default(),
            submissions_in_row: 0,
            is_pinned: false,
            functions: BTreeSet::new(),
            function_bytes: 0,
            able: vec![0; cores.count].into(),
            hints: vec![PrioritySet::default(); cores.count].into(),
            unheard: CoreSet::default(),
            changed: CoreSet::default(),
            told: CoreSet::default(),
            woken_by: None,
            turn: 0,
            asleep: false,
            is_multi_core: false,
            grabbing: None,
            asked: CoreSet::default(),
            jobs: 0,
        }
    }

    /// Of a connection that comes from the core of its jobs, which knows it with these functions.
    pub(in crate::shard) fn with_jobs_at(
        owner: Core,
        cores: Cores,
        functions: Vec<Box<[u8]>>,
        ready: PrioritySet,
        rest: Rest,
    ) -> Self {
        let mut state = Self::new(cores);
        state.known.insert(owner);
        state.is_multi_core = !functions.is_empty();
        state.able[owner] = u32::try_from(functions.len()).unwrap_or(u32::MAX);
        state.function_bytes = functions.iter().map(|name| entry_bytes(name)).sum();
        state.functions = functions.into_iter().collect();
        if state.is_multi_core {
            state.asleep = rest == Rest::Asleep;
            if state.asleep {
                state.told = [owner, cores.own].into_iter().collect();
            } else {
                // Jobs that arrive while it sleeps are announced by the NOOP instead.
                state.hints[owner] = ready;
            }
            state.woken_by = (rest == Rest::Woken).then_some(owner);
        }
        state
    }

    /// Memory that functions of other cores take here, in bytes.
    #[inline]
    pub(in crate::shard) fn function_bytes(&self) -> usize {
        self.function_bytes
    }

    /// The functions of other cores that it can run.
    pub(in crate::shard) fn functions(&self) -> impl Iterator<Item = &[u8]> {
        self.functions.iter().map(|name| &**name)
    }

    pub(in crate::shard) fn has_function(&self, name: &[u8]) -> bool {
        self.functions.contains(name)
    }

    /// Cores that know of the connection.
    #[inline]
    pub(in crate::shard) fn known(&self) -> CoreSet {
        self.known
    }

    /// A message goes to `owner`, after which that core knows of the connection. Returns whether
    /// it didn't before.
    pub(in crate::shard) fn note_known(&mut self, owner: Core) -> bool {
        self.known.insert(owner)
    }

    /// The connection stays where it is from now on.
    pub(in crate::shard) fn pin(&mut self) {
        self.is_pinned = true;
    }

    /// The one other core that it has to do with, if it may move there.
    pub(in crate::shard) fn home_to_be(&self) -> Option<Core> {
        self.known.only().filter(|_| !self.is_pinned)
    }

    /// Counts submissions in a row to other cores. Returns how many there have been.
    pub(in crate::shard) fn count_submission(&mut self, owner: Core) -> u32 {
        if owner == self.cores.own {
            self.submissions_in_row = 0;
        } else {
            self.submissions_in_row += 1;
            self.changed.insert(owner);
        }
        self.submissions_in_row
    }
}

/// A worker's functions.
impl RemoteState {
    /// Whether its functions belong, or belonged, to several cores.
    #[inline]
    pub(in crate::shard) fn is_multi_core(&self) -> bool {
        self.is_multi_core
    }

    /// So far this core alone knew whether the worker sleeps and what there is for it.
    pub(in crate::shard) fn become_multi_core(
        &mut self,
        ready: PrioritySet,
        asleep: bool,
        woken: bool,
    ) {
        let own = self.cores.own;
        self.is_multi_core = true;
        self.hints[own] = ready;
        self.asleep = asleep;
        self.told = if asleep { CoreSet::of(own) } else { CoreSet::default() };
        self.woken_by = woken.then_some(own);
    }

    /// `CAN_DO` of a function of another core. Returns whether that core is to be told of a sleep,
    /// behind the registration.
    pub(in crate::shard) fn register(&mut self, owner: Core, function: &[u8]) -> bool {
        if self.functions.insert(function.into()) {
            self.able[owner] += 1;
            self.unheard.insert(owner);
            self.function_bytes += entry_bytes(function);
        }
        self.asleep && self.told.insert(owner)
    }

    /// `CANT_DO` of a function of another core. Returns whether that core is to hear of it.
    pub(in crate::shard) fn unregister(&mut self, owner: Core, function: &[u8]) -> bool {
        if !self.functions.remove(function) {
            return false;
        }
        self.function_bytes -= entry_bytes(function);
        self.changed.insert(owner);
        self.able[owner] -= 1;
        if self.able[owner] == 0 {
            self.forget_owner(owner);
        }
        true
    }

    /// `RESET_ABILITIES`. Returns the cores that are to hear of it.
    pub(in crate::shard) fn unregister_all(&mut self) -> CoreSet {
        self.functions.clear();
        self.function_bytes = 0;
        let owners: CoreSet = (0..self.cores.count).filter(|&owner| self.able[owner] > 0).collect();
        self.able.fill(0);
        owners.iter().for_each(|owner| self.forget_owner(owner));
        self.changed = self.changed | owners;
        self.unheard.clear();
        owners
    }

    /// A core owns none of its functions any more. Hints stay: one question clears them.
    fn forget_owner(&mut self, owner: Core) {
        self.told.remove(owner);
        self.unheard.remove(owner);
        self.woken_by = self.woken_by.filter(|&by| by != owner);
    }
}

/// A worker's grabs.
impl RemoteState {
    #[inline]
    pub(in crate::shard) fn is_grabbing(&self) -> bool {
        self.grabbing.is_some()
    }

    /// `GRAB_JOB`: the worker is awake; `next_step` says what follows.
    pub(in crate::shard) fn grab(&mut self, grab: Grab) {
        self.asleep = false;
        // The others give no hints to a worker that they take for asleep.
        self.unheard = self.unheard | self.told;
        self.grabbing = Some(grab);
        self.asked.clear();
    }

    /// What to do about the grab that is open, if there is one.
    pub(in crate::shard) fn next_step(&mut self, urgency: &Urgency) -> Option<GrabStep> {
        let grab = self.grabbing?;
        let Some((core, least)) = self.best(urgency) else {
            self.grabbing = None;
            return Some(GrabStep::NoJob);
        };
        self.turn = core;
        self.told.remove(core);
        Some(GrabStep::Ask(core, least, grab))
    }

    /// An owner has answered a grab, and has jobs of the priorities `ready` left. Returns the core
    /// that is to wake another worker: the job came from elsewhere.
    pub(in crate::shard) fn answered(
        &mut self,
        core: Core,
        ready: PrioritySet,
        found: bool,
    ) -> Option<Core> {
        self.hints[core] = ready;
        self.unheard.remove(core);
        self.changed.remove(core);
        if found {
            self.jobs += u32::from(core != self.cores.own);
            self.grabbing = None;
            return self.woken_by.take().filter(|&by| by != core);
        }
        if ready.is_empty() {
            self.asked.insert(core);
        }
        self.woken_by = self.woken_by.filter(|&by| by != core);
        None
    }

    /// A packet about a job of another core goes there.
    pub(in crate::shard) fn note_result(&mut self, command: Command) {
        let is_last =
            matches!(command, Command::WorkComplete | Command::WorkFail | Command::WorkException);
        self.jobs = self.jobs.saturating_sub(u32::from(is_last));
    }

    /// Jobs of other cores that it has got and not finished. A worker that names jobs that aren't
    /// its own may make it less.
    pub(in crate::shard) fn jobs(&self) -> u32 {
        self.jobs
    }

    /// The most promising core to ask, and the least urgent priority that makes it so. Of cores
    /// that weren't heard `urgency` tells what they may have; those that it has changed may
    /// have anything. Without hints every owner is asked once: the message with a hint may be on
    /// its way.
    fn best(&self, urgency: &Urgency) -> Option<(Core, Priority)> {
        let (own, count) = (self.cores.own, self.cores.count);
        let promise = |core: Core| {
            let (mut promised, is_owner) = (self.hints[core], self.able[core] > 0);
            if is_owner && self.unheard.contains(core) {
                promised = promised | urgency.of(core);
            }
            if is_owner && self.changed.contains(core) {
                promised.insert(Priority::High);
            }
            promised.most_urgent()
        };
        let Some(best) = (0..count).filter_map(promise).min() else {
            let is_owner = |core: Core| core == own || self.able[core] > 0;
            let unasked = |&core: &Core| is_owner(core) && !self.asked.contains(core);
            return (0..count).find(unasked).map(|core| (core, Priority::Low));
        };
        let is_best = |core: Core| promise(core) == Some(best);
        let in_turn =
            (1..=count).map(|step| (self.turn + step) % count).find(|&core| is_best(core));
        let core = self.woken_by.filter(|&core| is_best(core)).or(in_turn)?;
        Some((core, best))
    }
}

/// A worker's sleep.
impl RemoteState {
    pub(in crate::shard) fn is_asleep(&self) -> bool {
        self.asleep
    }

    /// `PRE_SLEEP`. Returns whether the worker sleeps now; with any hint it gets a NOOP at once.
    pub(in crate::shard) fn sleep(&mut self) -> bool {
        // It may have slept already, and is awake now: the core that wakes it is declined.
        self.asleep = self.hints.iter().all(|hints| hints.is_empty());
        self.asleep
    }

    /// Whether a core is to be told now that the worker sleeps; it counts as told then. The home
    /// is told whether it owns functions or not: its engine knows them.
    pub(in crate::shard) fn tell(&mut self, core: Core) -> bool {
        let is_owner = core == self.cores.own || self.able[core] > 0;
        self.asleep && is_owner && self.told.insert(core)
    }

    /// The home's own engine takes it for asleep and hears now that it isn't: that costs no
    /// message. Returns whether it was so; `hint` has to follow.
    pub(in crate::shard) fn untell_home(&mut self) -> bool {
        self.told.remove(self.cores.own)
    }

    /// An owner has jobs for a worker that is awake.
    pub(in crate::shard) fn hint(&mut self, from: Core, ready: PrioritySet) {
        self.hints[from] = self.hints[from] | ready;
    }

    /// An owner has jobs for a worker that it takes for asleep.
    pub(in crate::shard) fn noop(&mut self, from: Core, ready: PrioritySet) -> Noop {
        let was_told = self.told.remove(from);
        if self.asleep && !was_told {
            // It has nothing to do with that core any more, or has only just stayed here.
            return Noop::Decline;
        }
        self.hints[from] = self.hints[from] | ready;
        if std::mem::take(&mut self.asleep) {
            self.woken_by = Some(from);
            return Noop::Wake;
        }
        // After a cancelled migration the owner sends a second NOOP; declining it ends both leases.
        self.woken_by = self.woken_by.filter(|&by| by != from);
        Noop::Decline
    }
}

/// Memory of a function of another core, with its share of the set, in bytes.
pub(in crate::shard) fn entry_bytes(name: &[u8]) -> usize {
    name.len() + 2 * size_of::<Box<[u8]>>()
}

#[cfg(test)]
mod tests;
