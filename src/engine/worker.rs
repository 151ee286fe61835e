//! The workers' half of the engine: abilities, grabbing, sleeping and waking.
//!
//! Commands of a worker's connection in, a job or nothing out, and wake-ups as effects. How the
//! lists of `function` make each of these cost nothing per function of a worker and nothing per
//! worker of a function is told there; this module is the only one that moves abilities between
//! them.
//!
//! Invariant: after `wake_sleepers`, a job that may start never lies beside a sleeping worker that
//! could run it unless as many workers hold leases for its function as it has such jobs. A lease
//! ends with the worker's next grab or sleep, or with its connection: the next sleeper is woken;
//! or unused after `Settings::lease_ms`: all sleepers are.

use super::function::{AbilityId, FunctionId, OWN, READY, WAKING};
use super::job::{JobId, State};
use super::timer::TimerId;
use super::{ConnId, Due, Effect, Engine, Now, Wakeup};
use crate::wire::Priority;

/// Whether a worker sleeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Nap {
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
const UNCLAIMED_LOOK: usize = 8;

/// There are more functions with jobs than are looked at.
struct TooMany;

impl Engine {
    /// `CAN_DO` and `CAN_DO_TIMEOUT`: a connection can run a function, each job for at most
    /// `timeout_ms` (0 = no limit). Once more for the same function sets the time anew.
    pub fn can_do(&mut self, conn: ConnId, function: &[u8], timeout_ms: u32) {
        let function_id = self.functions.find_or_create(function);
        self.forget_unused();
        if let Some(id) = self.abilities.find(conn, function_id) {
            self.abilities.records[id as usize].timeout_ms = timeout_ms;
            return;
        }
        let id = self.abilities.insert(conn, function_id, timeout_ms);
        let records = &mut self.abilities.records;
        let function = &mut self.functions[function_id];
        let peer = &mut self.peers[conn as usize];
        function.workers += 1;
        // libgearman sends its functions the last one first, and gearmand puts each before the
        // others: both together give the order in which a worker's program named them.
        peer.abilities.push_front(records, OWN, id);
        for priority in Priority::ALL {
            let priority = priority as usize;
            let ready = function.queues[priority].len > 0;
            records[id as usize].ready[priority] = ready;
            if ready {
                peer.ready[priority].push_front(records, READY[priority], id);
            } else {
                function.unaware[priority].push_front(records, READY[priority], id);
            }
        }
        if peer.nap == Nap::Asleep {
            records[id as usize].candidate = true;
            function.candidates.push_front(records, WAKING, id);
            self.stir(function_id);
        } else {
            peer.passed.push_front(records, WAKING, id);
            if peer.is_remote && self.ready(conn) != 0 {
                self.effects.push(Effect::Hint { conn });
            }
        }
    }

    /// `CANT_DO`: a connection can't run a function any more. Jobs of it that it has go to others.
    pub fn cant_do(&mut self, conn: ConnId, function: &[u8], now: Now) {
        let Some(function_id) = self.functions.find(function) else { return };
        if let Some(id) = self.abilities.find(conn, function_id) {
            let mut lost = Vec::new();
            self.remove_ability(id, &mut lost);
            lost.into_iter().for_each(|job| self.return_job(job, now));
        }
    }

    /// `RESET_ABILITIES`: a connection can't run anything any more.
    pub fn reset_abilities(&mut self, conn: ConnId, now: Now) {
        // With lease and abilities ended first, none of its jobs wakes this very worker.
        self.end_lease(conn);
        let mut lost = Vec::new();
        while let Some(id) = self.peers[conn as usize].abilities.front() {
            self.remove_ability(id, &mut lost);
        }
        lost.into_iter().for_each(|job| self.return_job(job, now));
    }

    /// `GRAB_JOB*`: the next job for this worker: by priority, then function by function in turns,
    /// then first come first served. Jobs less urgent than `least` are left alone.
    pub fn grab(&mut self, conn: ConnId, least: Priority, now: Now) -> Option<JobId> {
        let woken_for = self.take_lease(conn);
        let found = self.find_job(conn, least);
        let id = found.map(|(ability, priority)| self.assign(ability, priority, now));
        // It may have taken another function's job than the one it was woken for.
        if let Some(function) = woken_for {
            self.stir(function);
        }
        id
    }

    /// `PRE_SLEEP`: the worker sleeps until a NOOP, which comes with `wake_sleepers` if there is a
    /// job that nobody else was woken for.
    pub fn pre_sleep(&mut self, conn: ConnId) {
        let woken_for = self.take_lease(conn);
        let peer = &mut self.peers[conn as usize];
        peer.nap = Nap::Asleep;
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

    /// Wakes a worker that fell asleep in this batch if jobs lie there that no lease runs for. All
    /// of its functions are looked at: jobs that came while it was awake stirred no sleeper.
    fn check_new_sleeper(&mut self, conn: ConnId, now: Now) {
        let peer = &mut self.peers[conn as usize];
        let is_new_sleeper = std::mem::take(&mut peer.is_new_sleeper);
        if !is_new_sleeper || peer.nap != Nap::Asleep {
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

    /// A worker that was woken won't grab here: it has work from another core, or is gone on its
    /// way. The next one is woken.
    pub fn decline(&mut self, conn: ConnId) {
        self.end_lease(conn);
    }

    /// A worker that slept was woken by another core.
    pub fn rise(&mut self, conn: ConnId) {
        let nap = &mut self.peers[conn as usize].nap;
        if *nap == Nap::Asleep {
            *nap = Nap::Awake;
        }
    }

    /// Priorities that have jobs for a worker, one bit each, the most urgent one the lowest.
    pub fn ready(&mut self, conn: ConnId) -> u8 {
        let has_jobs = Priority::ALL.map(|priority| self.next_in_turn(conn, priority).is_some());
        has_jobs.iter().rev().fold(0, |mask, &has| mask << 1 | u8::from(has))
    }

    /// Whether a worker waits for a NOOP.
    #[must_use]
    pub fn is_asleep(&self, conn: ConnId) -> bool {
        self.peers[conn as usize].nap == Nap::Asleep
    }

    /// Whether a worker was woken and its lease hasn't ended.
    #[must_use]
    pub fn is_woken(&self, conn: ConnId) -> bool {
        matches!(self.peers[conn as usize].nap, Nap::Woken { .. })
    }

    /// The functions a connection can run, the latest first.
    pub fn functions_of(&self, conn: ConnId) -> impl Iterator<Item = &[u8]> {
        let abilities = self.peers[conn as usize].abilities.iter(&self.abilities.records, OWN);
        abilities.map(|id| &*self.functions[self.abilities.records[id as usize].function].name)
    }

    /// The lease timer of a woken worker has run out: the next one is woken.
    pub(crate) fn end_overdue_lease(&mut self, conn: ConnId) {
        let Nap::Woken { function, .. } = self.peers[conn as usize].nap else {
            debug_assert!(false, "a lease ends with its timer");
            return;
        };
        self.peers[conn as usize].nap = Nap::Awake;
        self.functions[function].woken -= 1;
        self.counters.leases_ended += 1;
        // Without sleepers there is nothing to wake, now or for what comes later.
        self.functions[function].has_lapsed = !self.functions[function].candidates.is_empty();
        self.stir(function);
    }

    /// The queue of a function and priority got its first job: its workers' turn lists get to know.
    pub(crate) fn tell_workers(&mut self, function: FunctionId, priority: usize) {
        let unaware = &mut self.functions[function].unaware[priority];
        let records = &mut self.abilities.records;
        while let Some(id) = unaware.pop_front(records, READY[priority]) {
            let ability = &mut records[id as usize];
            ability.ready[priority] = true;
            let conn = ability.conn;
            let peer = &mut self.peers[conn as usize];
            // A list that isn't empty has been told of, even where what it says is false by now:
            // the answer to the next grab says so. A sleeper hears of it when it is woken.
            let is_news = peer.ready[priority].is_empty();
            peer.ready[priority].push_back(records, READY[priority], id);
            if is_news && peer.is_remote && peer.nap != Nap::Asleep {
                self.effects.push(Effect::Hint { conn });
            }
        }
    }

    /// A job came into a function's queue.
    pub(crate) fn wake_for_new_job(&mut self, function: FunctionId, now: Now) {
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

    /// Has `wake_sleepers` see whether there are more jobs of a function than workers woken for it.
    fn stir(&mut self, id: FunctionId) {
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
            if peer.nap == Nap::Asleep {
                self.rouse(conn, function, now);
                return true;
            }
        }
        false
    }

    /// Sends a NOOP and starts the lease.
    fn rouse(&mut self, conn: ConnId, function: FunctionId, now: Now) {
        let lease = self.timers.insert(now.mono_ms + self.settings.lease_ms, Due::Lease(conn));
        self.peers[conn as usize].nap = Nap::Woken { function, lease };
        self.functions[function].woken += 1;
        self.effects.push(Effect::Noop { conn });
    }

    /// Wakes a worker up without a NOOP; answers with the function that it held a lease for.
    fn take_lease(&mut self, conn: ConnId) -> Option<FunctionId> {
        match std::mem::take(&mut self.peers[conn as usize].nap) {
            Nap::Woken { function, lease } => {
                self.timers.remove(lease);
                self.functions[function].woken -= 1;
                Some(function)
            }
            Nap::Awake | Nap::Asleep => None,
        }
    }

    /// Ends the lease of a worker that can't run what it was woken for. One that sleeps sleeps on.
    fn end_lease(&mut self, conn: ConnId) {
        if matches!(self.peers[conn as usize].nap, Nap::Woken { .. })
            && let Some(function) = self.take_lease(conn)
        {
            self.stir(function);
        }
    }

    /// The ability whose turn it is at the most urgent priority that has jobs for this worker.
    /// Abilities whose queue turns out to be empty leave the turn list until they are told again.
    fn find_job(&mut self, conn: ConnId, least: Priority) -> Option<(AbilityId, usize)> {
        let urgent = Priority::ALL.into_iter().take(least as usize + 1);
        let mut found = urgent.map(|priority| {
            self.next_in_turn(conn, priority).map(|ability| (ability, priority as usize))
        });
        found.find_map(|found| found)
    }

    #[inline]
    fn next_in_turn(&mut self, conn: ConnId, priority: Priority) -> Option<AbilityId> {
        let priority = priority as usize;
        let ready = &mut self.peers[conn as usize].ready[priority];
        let records = &mut self.abilities.records;
        while let Some(id) = ready.front() {
            let function = &mut self.functions[records[id as usize].function];
            if function.queues[priority].len > 0 {
                return Some(id);
            }
            ready.remove(records, READY[priority], id);
            records[id as usize].ready[priority] = false;
            function.unaware[priority].push_front(records, READY[priority], id);
        }
        None
    }

    /// Gives the first job of a queue to a worker, whose next turn is another function's.
    fn assign(&mut self, ability_id: AbilityId, priority: usize, now: Now) -> JobId {
        let records = &mut self.abilities.records;
        let ability = &records[ability_id as usize];
        let (conn, timeout_ms) = (ability.conn, ability.timeout_ms);
        let function = &mut self.functions[ability.function];
        let peer = &mut self.peers[conn as usize];
        let ready = &mut peer.ready[priority];
        ready.remove(records, READY[priority], ability_id);
        ready.push_back(records, READY[priority], ability_id);

        let queue = &mut function.queues[priority];
        let Some(id) = queue.jobs.pop_front(&mut self.jobs, 0) else {
            unreachable!("`find_job` found one");
        };
        queue.len -= 1;
        function.queued -= 1;
        self.queued[priority] -= 1;
        function.running += 1;
        self.running += 1;
        peer.running += 1;
        records[ability_id as usize].running.push_front(&mut self.jobs, 0, id);
        let timer = (timeout_ms > 0)
            .then(|| self.timers.insert(now.mono_ms + u64::from(timeout_ms), Due::Job(id)));
        let job = &mut self.jobs[id as usize];
        job.state = State::Running;
        job.ability = ability_id;
        job.timer = timer;
        self.counters.assigned += 1;
        id
    }

    /// Takes a running job out of its worker's hands; it is nowhere then.
    pub(crate) fn release(&mut self, id: JobId) {
        let job = &mut self.jobs[id as usize];
        debug_assert_eq!(job.state, State::Running);
        if let Some(timer) = job.timer.take() {
            self.timers.remove(timer);
        }
        let ability = std::mem::replace(&mut job.ability, u32::MAX);
        self.functions[job.function].running -= 1;
        self.running -= 1;
        let ability = &mut self.abilities.records[ability as usize];
        ability.running.remove(&mut self.jobs, 0, id);
        self.peers[ability.conn as usize].running -= 1;
    }

    /// A connection can't run a function any more. Jobs that it ran by the ability are `lost`: to
    /// be returned, the oldest of a function last, so that it comes to the very head.
    fn remove_ability(&mut self, id: AbilityId, lost: &mut Vec<JobId>) {
        let lost_before = lost.len();
        while let Some(job) = self.abilities.records[id as usize].running.front() {
            self.release(job);
            lost.push(job);
        }
        let has_lost = lost.len() > lost_before;
        let records = &mut self.abilities.records;
        let ability = &records[id as usize];
        let (conn, function_id) = (ability.conn, ability.function);
        let (ready, candidate) = (ability.ready, ability.candidate);
        let function = &mut self.functions[function_id];
        let peer = &mut self.peers[conn as usize];
        function.workers -= 1;
        peer.abilities.remove(records, OWN, id);
        for (priority, ready) in ready.into_iter().enumerate() {
            let list =
                if ready { &mut peer.ready[priority] } else { &mut function.unaware[priority] };
            list.remove(records, READY[priority], id);
        }
        let list = if candidate { &mut function.candidates } else { &mut peer.passed };
        list.remove(records, WAKING, id);
        self.abilities.remove(id);
        if let Nap::Woken { function, .. } = self.peers[conn as usize].nap
            && function == function_id
        {
            self.end_lease(conn);
        }
        // Lost jobs refer to it, and are nowhere yet.
        if !has_lost {
            self.check_unused(function_id);
        }
    }
}

#[cfg(debug_assertions)]
impl Engine {
    /// The function that a worker holds a lease for.
    pub(crate) fn leased_for(&self, conn: ConnId) -> Option<FunctionId> {
        match self.peers.get(conn as usize)?.nap {
            Nap::Woken { function, .. } => Some(function),
            Nap::Awake | Nap::Asleep => None,
        }
    }

    /// The workers' part of `check_invariants`.
    pub(crate) fn check_workers(&self) {
        let records = &self.abilities.records;
        let mut leases = std::collections::HashMap::new();
        for peer in &self.peers {
            if let Nap::Woken { function, .. } = peer.nap {
                *leases.entry(function).or_insert(0) += 1;
            }
        }
        for (id, function) in self.functions.iter_from(0) {
            assert_eq!(function.woken, leases.get(&id).copied().unwrap_or(0), "leases");
            let able = records.iter().filter(|(_, ability)| ability.function == id);
            let mut workers = 0;
            for (_, ability) in able {
                workers += 1;
                let asleep = self.peers[ability.conn as usize].nap == Nap::Asleep;
                assert!(!asleep || ability.candidate, "sleepers can be found");
                assert!(
                    !asleep || function.woken >= function.queued,
                    "a job lies beside a sleeper that could run it"
                );
                for (ready, queue) in ability.ready.iter().zip(&function.queues) {
                    assert!(*ready || queue.len == 0, "workers know of every queue with jobs");
                }
            }
            assert_eq!(function.workers, workers);
        }
    }
}

#[cfg(test)]
mod tests;
