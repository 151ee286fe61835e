//! Abilities of workers and the jobs that they run: CAN_DO, CANT_DO and GRAB_JOB.
//!
//! Commands of a worker's connection in, a job or nothing out. Only this module and `sleep` move
//! abilities between the lists that `function` describes; with those lists no command costs time
//! per function of a worker or per worker of a function.
//!
//! Invariant: a function's queue with jobs is in the `maybe_ready` list of each of its workers. A
//! running job is in the `running` list of the ability by which its worker took it.

use super::event::{Loss, Step};
use super::function::{Ability, OWN, READY, WAKING};
use super::ids::{AbilityId, FunctionId, JobId};
use super::sleep::SleepState;
use super::timer::TimerId;
use super::{ConnId, Due, Effect, Engine, Now};
use crate::wire::{Priority, PrioritySet};

impl Engine {
    /// `CAN_DO` and `CAN_DO_TIMEOUT`: registers a connection for a function, each job of which may
    /// run for at most `timeout_ms` (0 = no limit). For a registered function it sets the limit.
    pub fn can_do(&mut self, conn: ConnId, function: &[u8], timeout_ms: u32) {
        let function_id = match self.functions.find(function) {
            Some(id) => id,
            None => self.add_function(function),
        };
        self.forget_unused();
        let found = self.abilities.find(conn, function_id);
        if let Some(id) = found {
            let ability = &mut self.abilities.records[id];
            ability.timeout_ms = timeout_ms;
            if !std::mem::take(&mut ability.is_revoked) {
                return;
            }
        }
        let id = found.unwrap_or_else(|| {
            let id = self.abilities.insert(conn, function_id, timeout_ms);
            // libgearman sends its functions in reverse order, and gearmand puts each before those
            // it has: together they give the order in which the worker's program named them.
            self.peers[conn].abilities.push_front(&mut self.abilities.records, OWN, id);
            id
        });
        let records = &mut self.abilities.records;
        let function = &mut self.functions[function_id];
        let peer = &mut self.peers[conn];
        function.workers += 1;
        self.workers += 1;
        for priority in Priority::ALL {
            let priority = priority as usize;
            let ready = function.has_ready(priority);
            records[id].maybe_ready[priority] = ready;
            if ready {
                peer.maybe_ready[priority].push_front(records, READY[priority], id);
            } else {
                function.not_ready[priority].push_front(records, READY[priority], id);
            }
        }
        let is_asleep = peer.sleep == SleepState::Asleep;
        // One that was revoked may have been listed as a sleeper's.
        records[id].maybe_asleep = is_asleep;
        if is_asleep {
            function.maybe_asleep.push_front(records, WAKING, id);
            self.queue_wakeup_check(function_id);
        } else {
            peer.awake.push_front(records, WAKING, id);
            if peer.is_remote && !self.ready(conn).is_empty() {
                self.effects.push(Effect::Hint { conn });
            }
        }
    }

    /// `CANT_DO`: a connection can't run a function any more. Jobs of that function that it runs
    /// return to their queue.
    pub fn cant_do(&mut self, conn: ConnId, function: &[u8], now: Now) {
        let Some(function_id) = self.functions.find(function) else { return };
        if let Some(id) = self.abilities.find(conn, function_id) {
            let mut lost = Vec::new();
            self.withdraw(id, &mut lost, now);
            for job in lost {
                self.return_job(job, conn, Loss::Withdrawn, now);
            }
        }
    }

    /// A connection may not run a function any more. Unlike after `CANT_DO`, jobs of it that it
    /// runs stay with it.
    pub fn revoke(&mut self, conn: ConnId, function: &[u8]) {
        let Some(function_id) = self.functions.find(function) else { return };
        let Some(id) = self.abilities.find(conn, function_id) else { return };
        let ability = &self.abilities.records[id];
        if ability.running.front().is_none() {
            self.remove_ability(id);
            self.check_unused(function_id);
        } else if !ability.is_revoked {
            self.unlink_ability(id);
            self.abilities.records[id].is_revoked = true;
        }
    }

    /// `RESET_ABILITIES`: a connection can't run anything any more.
    pub fn reset_abilities(&mut self, conn: ConnId, now: Now) {
        self.withdraw_all(conn, Loss::Withdrawn, now);
    }

    /// A connection can't run anything any more, for this reason.
    pub(super) fn withdraw_all(&mut self, conn: ConnId, loss: Loss, now: Now) {
        // The lease and the abilities end before the jobs return to their queues, so that the jobs
        // don't wake this worker.
        self.end_lease(conn);
        let mut lost = Vec::new();
        while let Some(id) = self.peers[conn].abilities.front() {
            self.withdraw(id, &mut lost, now);
        }
        lost.into_iter().for_each(|job| self.return_job(job, conn, loss, now));
    }

    /// `GRAB_JOB*`: assigns the next job to this worker: the most urgent priority first, its
    /// functions in turns within a priority, the oldest job first within a function. Skips jobs
    /// less urgent than `least`.
    pub fn grab(&mut self, conn: ConnId, least: Priority, now: Now) -> Option<JobId> {
        let woken_for = self.take_lease(conn);
        let may_assign =
            self.assigns() && (!self.withholds_stored() || self.pass_over_heads(conn, least));
        let found = if may_assign { self.find_job(conn, least) } else { None };
        let id = found.map(|(ability, priority)| self.assign(conn, ability, priority, now));
        // The job may be another function's than the one that the worker was woken for.
        if let Some(function) = woken_for {
            self.queue_wakeup_check(function);
        }
        id
    }

    /// Priorities of which a worker would get jobs. Drops empty queues from the worker's lists, as
    /// `grab` does.
    pub fn ready(&mut self, conn: ConnId) -> PrioritySet {
        if !self.assigns() {
            return PrioritySet::EMPTY;
        }
        let has_jobs = |priority| self.next_in_turn(conn, priority).is_some();
        PrioritySet::from_flags(Priority::ALL.map(has_jobs))
    }

    /// The functions a connection can run, the latest first.
    pub fn functions_of(&self, conn: ConnId) -> impl Iterator<Item = &[u8]> {
        let abilities = self.peers[conn].abilities.iter(&self.abilities.records, OWN);
        let abilities = abilities.map(|id| &self.abilities.records[id]);
        abilities.filter(|it| !it.is_revoked).map(|it| &*self.functions[it.function].name)
    }

    /// Adds a queue that got its first job to the `maybe_ready` list of each worker of its
    /// function.
    pub(crate) fn mark_queue_ready(&mut self, function: FunctionId, priority: usize) {
        let not_ready = &mut self.functions[function].not_ready[priority];
        let records = &mut self.abilities.records;
        while let Some(id) = not_ready.pop_front(records, READY[priority]) {
            let ability = &mut records[id];
            ability.maybe_ready[priority] = true;
            let conn = ability.conn;
            let peer = &mut self.peers[conn];
            // A list that isn't empty has been hinted at. Its queues may be empty by now, which the
            // reply to the next grab reports. A sleeper learns its priorities with the NOOP.
            let was_empty = peer.maybe_ready[priority].is_empty();
            peer.maybe_ready[priority].push_back(records, READY[priority], id);
            if was_empty && peer.is_remote && peer.sleep != SleepState::Asleep {
                self.effects.push(Effect::Hint { conn });
            }
        }
    }

    /// The ability whose turn it is at the most urgent priority that has jobs for this worker.
    /// Abilities whose queue is empty move to `not_ready` until the queue gets a job.
    pub(super) fn find_job(&mut self, conn: ConnId, least: Priority) -> Option<(AbilityId, usize)> {
        let urgent = Priority::ALL.into_iter().take(least as usize + 1);
        let mut found = urgent.map(|priority| {
            self.next_in_turn(conn, priority).map(|ability| (ability, priority as usize))
        });
        found.find_map(|found| found)
    }

    #[inline]
    fn next_in_turn(&mut self, conn: ConnId, priority: Priority) -> Option<AbilityId> {
        let priority = priority as usize;
        let ready = &mut self.peers[conn].maybe_ready[priority];
        let records = &mut self.abilities.records;
        while let Some(id) = ready.front() {
            let function = &mut self.functions[records[id].function];
            if function.has_ready(priority) {
                return Some(id);
            }
            ready.remove(records, READY[priority], id);
            records[id].maybe_ready[priority] = false;
            function.not_ready[priority].push_front(records, READY[priority], id);
        }
        None
    }

    /// Assigns the first job of a queue to a worker and puts the function last in its turns.
    fn assign(&mut self, conn: ConnId, ability_id: AbilityId, priority: usize, now: Now) -> JobId {
        let records = &mut self.abilities.records;
        let peer = &mut self.peers[conn];
        peer.maybe_ready[priority].move_to_back(records, READY[priority], ability_id);
        let ability = &mut records[ability_id];
        let function = &mut self.functions[ability.function];

        let queue = &mut function.queues[priority];
        let Some(id) = queue.jobs.pop_front(&mut self.jobs, 0) else {
            unreachable!("`find_job` found one");
        };
        let next = queue.jobs.front();
        queue.len -= 1;
        function.queued -= 1;
        self.queued[priority] -= 1;
        function.running += 1;
        self.running += 1;
        peer.running += 1;
        if !ability.running.is_empty() {
            function.running_beside += 1;
            self.running_beside += 1;
        }
        ability.running.push_front(&mut self.jobs, 0, id);
        let entry = function.entry;
        let timer = if ability.timeout_ms > 0 || function.limits_time {
            self.set_timeout(id, ability_id, now)
        } else {
            None
        };
        let job = &mut self.jobs[id];
        if let Some(expiry) = job.timer {
            self.timers.remove(expiry);
        }
        if job.attempts == 0 {
            self.named[entry].wait.add(job.waited_ms(now));
        }
        job.run_by(ability_id, now);
        job.timer = timer;
        self.note(Step::Assigned, id, Some(conn));
        if let Some(next) = next
            && self.is_deep()
        {
            self.prefetch_job(next);
        }
        id
    }

    /// Sets the timer of a job that runs by this ability, if it has a timeout.
    #[inline(never)]
    pub(super) fn set_timeout(
        &mut self,
        id: JobId,
        ability: AbilityId,
        now: Now,
    ) -> Option<TimerId> {
        let Ability { function, timeout_ms, .. } = self.abilities.records[ability];
        let policy = self.policy_of(function);
        let ms = policy.map_or(timeout_ms, |policy| policy.timeout_ms(timeout_ms));
        (ms > 0).then(|| self.timers.insert(now.mono_ms + u64::from(ms), Due::Job(id)))
    }

    /// Takes a running job from its worker, and returns how long it ran, in milliseconds, for the
    /// caller to count. The job is in no list afterwards, and an ability that was kept for it only
    /// is gone.
    pub(crate) fn release(&mut self, id: JobId, now: Now) -> u32 {
        let (ran_ms, obsolete) = self.take_from_worker(id, now);
        if let Some(ability) = obsolete {
            self.remove_ability(ability);
        }
        ran_ms
    }

    /// Counts how long an attempt took that has ended.
    pub(super) fn count_run(&mut self, id: JobId, ran_ms: u32) {
        self.numbers_of(self.jobs[id].function).run.add(ran_ms.into());
    }

    /// Takes a running job from its worker. Returns how long it ran, in milliseconds, and the
    /// ability by which it ran if that was kept for it only. The job is in no list afterwards.
    fn take_from_worker(&mut self, id: JobId, now: Now) -> (u32, Option<AbilityId>) {
        let job = &mut self.jobs[id];
        let ran_ms = job.run_ms(now);
        if let Some(timer) = job.timer.take() {
            self.timers.remove(timer);
        }
        let ability_id = job.take_ability();
        let function = &mut self.functions[job.function];
        function.running -= 1;
        self.running -= 1;
        let ability = &mut self.abilities.records[ability_id];
        ability.running.remove(&mut self.jobs, 0, id);
        self.peers[ability.conn].running -= 1;
        if !ability.running.is_empty() {
            function.running_beside -= 1;
            self.running_beside -= 1;
            return (ran_ms, None);
        }
        (ran_ms, ability.is_revoked.then_some(ability_id))
    }

    /// Removes an ability. The jobs that ran by it are appended to `lost`, for the caller to return
    /// to their queue: the oldest last, so that it becomes the head.
    fn withdraw(&mut self, id: AbilityId, lost: &mut Vec<JobId>, now: Now) {
        let lost_before = lost.len();
        while let Some(job) = self.abilities.records[id].running.front() {
            let (ran_ms, _) = self.take_from_worker(job, now);
            self.count_run(job, ran_ms);
            lost.push(job);
        }
        let function = self.abilities.records[id].function;
        self.remove_ability(id);
        // Lost jobs still refer to the function; they are counted again once they are returned.
        if lost.len() == lost_before {
            self.check_unused(function);
        }
    }

    /// Removes an ability by which no job runs.
    fn remove_ability(&mut self, id: AbilityId) {
        let Ability { conn, is_revoked, .. } = self.abilities.records[id];
        if !is_revoked {
            self.unlink_ability(id);
        }
        self.peers[conn].abilities.remove(&mut self.abilities.records, OWN, id);
        self.abilities.remove(id);
    }

    /// Takes an ability out of all lists but its worker's list of abilities.
    fn unlink_ability(&mut self, id: AbilityId) {
        let records = &mut self.abilities.records;
        let ability = &records[id];
        let (conn, function_id) = (ability.conn, ability.function);
        let (ready, maybe_asleep) = (ability.maybe_ready, ability.maybe_asleep);
        let function = &mut self.functions[function_id];
        let peer = &mut self.peers[conn];
        function.workers -= 1;
        self.workers -= 1;
        for (priority, ready) in ready.into_iter().enumerate() {
            let list = if ready {
                &mut peer.maybe_ready[priority]
            } else {
                &mut function.not_ready[priority]
            };
            list.remove(records, READY[priority], id);
        }
        let list = if maybe_asleep { &mut function.maybe_asleep } else { &mut peer.awake };
        list.remove(records, WAKING, id);
        if let SleepState::Woken { function, .. } = self.peers[conn].sleep
            && function == function_id
        {
            self.end_lease(conn);
        }
    }
}

#[cfg(debug_assertions)]
impl Engine {
    /// The function that a worker holds a lease for.
    pub(crate) fn leased_for(&self, conn: ConnId) -> Option<FunctionId> {
        match self.peers.get(conn)?.sleep {
            SleepState::Woken { function, .. } => Some(function),
            SleepState::Awake | SleepState::Asleep => None,
        }
    }

    /// The workers' part of `check_invariants`.
    pub(crate) fn check_workers(&self) {
        let records = &self.abilities.records;
        let mut leases = std::collections::HashMap::new();
        // Each ability is in the list of each pair that its mark says.
        let are = |list: &crate::engine::list::List<AbilityId>,
                   slot,
                   marked: &dyn Fn(&Ability) -> bool| {
            let listed = list.iter(records, slot).map(|id| &records[id]);
            assert!(listed.into_iter().all(|it| !it.is_revoked && marked(it)), "marks and lists");
        };
        for (_, function) in self.functions.iter_from(FunctionId::FIRST) {
            are(&function.maybe_asleep, WAKING, &|it| it.maybe_asleep);
            for (priority, list) in function.not_ready.iter().enumerate() {
                are(list, READY[priority], &|it| !it.maybe_ready[priority]);
            }
        }
        for peer in self.peers.iter() {
            are(&peer.awake, WAKING, &|it| !it.maybe_asleep);
            for (priority, list) in peer.maybe_ready.iter().enumerate() {
                are(list, READY[priority], &|it| it.maybe_ready[priority]);
            }
            if let SleepState::Woken { function, .. } = peer.sleep {
                *leases.entry(function).or_insert(0) += 1;
            }
        }
        for (id, function) in self.functions.iter_from(FunctionId::FIRST) {
            assert_eq!(function.woken, leases.get(&id).copied().unwrap_or(0), "leases");
            let able = records.iter().filter(|(_, it)| it.function == id && !it.is_revoked);
            let mut workers = 0;
            for (_, ability) in able {
                workers += 1;
                let asleep = self.peers[ability.conn].sleep == SleepState::Asleep;
                assert!(!asleep || ability.maybe_asleep, "every sleeper is in a list");
                assert!(
                    !asleep || function.woken >= function.ready() || !self.assigns(),
                    "a job is queued that a sleeper could run"
                );
                for (priority, ready) in ability.maybe_ready.iter().enumerate() {
                    let may_wait = *ready || !function.has_ready(priority);
                    assert!(may_wait, "workers know of every queue with jobs");
                }
            }
            assert_eq!(function.workers, workers);
        }
    }
}

#[cfg(test)]
mod tests;
