//! Sleeping workers: PRE_SLEEP and new jobs in, NOOPs out as effects.
//!
//! A worker that a NOOP was sent to holds a lease for one function until it grabs or sleeps again;
//! as many sleepers are woken for a function as it has jobs without a lease. Checks are made at the
//! end of a batch of packets (`wake_sleepers`), when it is known which jobs are left.
//!
//! Invariant: after `wake_sleepers`, every sleeping worker that could run a queued job is outnumbered:
//! its function has at least as many leases as queued jobs. A lease that ends unused after
//! `Settings::lease_ms` wakes all sleepers of its function.

use super::function::{FunctionId, READY, WAKING};
use super::timer::TimerId;
use super::{ConnId, Due, Effect, Engine, Now, Wakeup};
use crate::wire::Priority;

/// Whether a worker sleeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SleepState {
    /// It will grab of itself, or was woken and has let its lease end.
    #[default]
    Awake,
    /// It waits for a NOOP.
    Asleep,
    /// A NOOP is on its way, for this function.
    Woken { function: FunctionId, lease: TimerId },
}

/// Functions with jobs that are looked at for a new sleeper; a worker with more of them is woken at
/// once, and looks by grabbing.
pub(super) const UNCLAIMED_LOOK: usize = 8;

/// There are more functions with jobs than are looked at.
struct TooMany;

impl Engine {
    /// `PRE_SLEEP`: the worker sleeps until a NOOP, which comes with `wake_sleepers` if there is a
    /// job that nobody else was woken for.
    pub fn pre_sleep(&mut self, conn: ConnId) {
        let woken_for = self.take_lease(conn);
        let peer = &mut self.peers[conn as usize];
        peer.sleep = SleepState::Asleep;
        while let Some(id) = peer.passed.pop_front(&mut self.abilities.records, WAKING) {
            let ability = &mut self.abilities.records[id as usize];
            ability.candidate = true;
            let candidates = &mut self.functions[ability.function].candidates;
            candidates.push_front(&mut self.abilities.records, WAKING, id);
        }
        // Which of its functions have jobs to spare is looked at when the batch has ended: a job
        // that lies there now may be taken or cancelled before, while those of others stay.
        if !std::mem::replace(&mut self.peers[conn as usize].is_new_sleeper, true) {
            self.new_sleepers.push(conn);
        }
        if let Some(function) = woken_for {
            self.stir(function);
        }
    }

    /// Wakes sleepers for the jobs that lie in their queues now. To be called when all that came
    /// together has been seen to: a job that came with the grab of a worker that is awake wakes
    /// nobody, and of two workers the one that falls asleep in the same batch is woken. Answers
    /// whether there are effects.
    #[inline]
    pub fn wake_sleepers(&mut self, now: Now) -> bool {
        while let Some(id) = self.stirred.pop() {
            // It may have been dropped, and its number be another's.
            if let Some(function) = self.functions.get_mut(id)
                && std::mem::take(&mut function.stirred)
            {
                // A lease that ended unused tells of workers that don't answer. With one lease
                // after another a job would wait for each of them in turn.
                let has_lapsed = std::mem::take(&mut function.has_lapsed);
                loop {
                    let function = &self.functions[id];
                    let is_wanted = has_lapsed && function.queued > 0;
                    if !(is_wanted || function.woken < function.queued) || !self.wake_one(id, now) {
                        break;
                    }
                }
            }
        }
        while let Some(conn) = self.new_sleepers.pop() {
            self.check_new_sleeper(conn, now);
        }
        !self.effects.is_empty()
    }

    /// Wakes a worker that fell asleep in this batch if jobs lie there that no lease runs for. All
    /// of its functions are looked at: jobs that came while it was awake stirred no sleeper.
    fn check_new_sleeper(&mut self, conn: ConnId, now: Now) {
        let peer = &mut self.peers[conn as usize];
        let is_new_sleeper = std::mem::take(&mut peer.is_new_sleeper);
        if !is_new_sleeper || peer.sleep != SleepState::Asleep {
            return;
        }
        let Some((ability, _)) = self.find_job(conn, Priority::Low) else { return };
        match self.find_unclaimed(conn) {
            Ok(Some(function)) => self.rouse(conn, function, now),
            Ok(None) => {}
            Err(TooMany) => {
                let function = self.abilities.records[ability as usize].function;
                self.rouse(conn, function, now);
            }
        }
    }

    /// A function of this worker with more jobs than workers that were woken for it.
    fn find_unclaimed(&self, conn: ConnId) -> Result<Option<FunctionId>, TooMany> {
        let (peer, records) = (&self.peers[conn as usize], &self.abilities.records);
        let ready = Priority::ALL.into_iter().flat_map(|priority| {
            peer.ready[priority as usize].iter(records, READY[priority as usize])
        });
        for (at, id) in ready.enumerate() {
            if at == UNCLAIMED_LOOK {
                return Err(TooMany);
            }
            let id = records[id as usize].function;
            let function = &self.functions[id];
            if function.woken < function.queued {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// A job came into a function's queue.
    pub(super) fn wake_for_new_job(&mut self, function: FunctionId, now: Now) {
        match self.settings.wakeup {
            Wakeup::Lease => self.stir(function),
            Wakeup::Each(limit) => {
                let mut left = if limit == 0 { u32::MAX } else { limit };
                while left > 0 && self.wake_one(function, now) {
                    left -= 1;
                }
            }
        }
    }

    /// A worker that was woken won't grab here: it has work from another core, or is gone on its
    /// way. The next one is woken.
    pub fn decline(&mut self, conn: ConnId) {
        self.end_lease(conn);
    }

    /// A worker that slept was woken by another core.
    pub fn rise(&mut self, conn: ConnId) {
        let nap = &mut self.peers[conn as usize].sleep;
        if *nap == SleepState::Asleep {
            *nap = SleepState::Awake;
        }
    }

    /// Whether a worker waits for a NOOP.
    #[must_use]
    pub fn is_asleep(&self, conn: ConnId) -> bool {
        self.peers[conn as usize].sleep == SleepState::Asleep
    }

    /// Whether a worker was woken and its lease hasn't ended.
    #[must_use]
    pub fn is_woken(&self, conn: ConnId) -> bool {
        matches!(self.peers[conn as usize].sleep, SleepState::Woken { .. })
    }

    /// The lease timer of a woken worker has run out: the next one is woken.
    pub(super) fn end_overdue_lease(&mut self, conn: ConnId) {
        let SleepState::Woken { function, .. } = self.peers[conn as usize].sleep else {
            debug_assert!(false, "a lease ends with its timer");
            return;
        };
        self.peers[conn as usize].sleep = SleepState::Awake;
        self.functions[function].woken -= 1;
        self.counters.leases_ended += 1;
        // Without sleepers there is nothing to wake, now or for what comes later.
        self.functions[function].has_lapsed = !self.functions[function].candidates.is_empty();
        self.stir(function);
    }

    /// Has `wake_sleepers` see whether there are more jobs of a function than workers woken for it.
    pub(super) fn stir(&mut self, id: FunctionId) {
        let function = &mut self.functions[id];
        // Whoever falls asleep later looks for jobs.
        if !function.stirred && !function.candidates.is_empty() {
            function.stirred = true;
            self.stirred.push(id);
        }
    }

    /// Wakes the sleeper that fell asleep last; `false` if nobody sleeps.
    fn wake_one(&mut self, function: FunctionId, now: Now) -> bool {
        let records = &mut self.abilities.records;
        while let Some(id) = self.functions[function].candidates.pop_front(records, WAKING) {
            let ability = &mut records[id as usize];
            ability.candidate = false;
            let conn = ability.conn;
            let peer = &mut self.peers[conn as usize];
            peer.passed.push_front(records, WAKING, id);
            if peer.sleep == SleepState::Asleep {
                self.rouse(conn, function, now);
                return true;
            }
        }
        false
    }

    /// Sends a NOOP and starts the lease.
    fn rouse(&mut self, conn: ConnId, function: FunctionId, now: Now) {
        let lease = self.timers.insert(now.mono_ms + self.settings.lease_ms, Due::Lease(conn));
        self.peers[conn as usize].sleep = SleepState::Woken { function, lease };
        self.functions[function].woken += 1;
        self.effects.push(Effect::Noop { conn });
    }

    /// Wakes a worker up without a NOOP; answers with the function that it held a lease for.
    pub(super) fn take_lease(&mut self, conn: ConnId) -> Option<FunctionId> {
        match std::mem::take(&mut self.peers[conn as usize].sleep) {
            SleepState::Woken { function, lease } => {
                self.timers.remove(lease);
                self.functions[function].woken -= 1;
                Some(function)
            }
            SleepState::Awake | SleepState::Asleep => None,
        }
    }

    /// Ends the lease of a worker that can't run what it was woken for. One that sleeps sleeps on.
    pub(super) fn end_lease(&mut self, conn: ConnId) {
        if matches!(self.peers[conn as usize].sleep, SleepState::Woken { .. })
            && let Some(function) = self.take_lease(conn)
        {
            self.stir(function);
        }
    }
}
