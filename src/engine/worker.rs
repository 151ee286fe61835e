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
use super::sleep::SleepState;
use super::{ConnId, Due, Effect, Engine, Now};
use crate::wire::Priority;

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
        if peer.sleep == SleepState::Asleep {
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

    /// Priorities that have jobs for a worker, one bit each, the most urgent one the lowest.
    pub fn ready(&mut self, conn: ConnId) -> u8 {
        let has_jobs = Priority::ALL.map(|priority| self.next_in_turn(conn, priority).is_some());
        has_jobs.iter().rev().fold(0, |mask, &has| mask << 1 | u8::from(has))
    }

    /// The functions a connection can run, the latest first.
    pub fn functions_of(&self, conn: ConnId) -> impl Iterator<Item = &[u8]> {
        let abilities = self.peers[conn as usize].abilities.iter(&self.abilities.records, OWN);
        abilities.map(|id| &*self.functions[self.abilities.records[id as usize].function].name)
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
            if is_news && peer.is_remote && peer.sleep != SleepState::Asleep {
                self.effects.push(Effect::Hint { conn });
            }
        }
    }

    /// The ability whose turn it is at the most urgent priority that has jobs for this worker.
    /// Abilities whose queue turns out to be empty leave the turn list until they are told again.
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
        if let SleepState::Woken { function, .. } = self.peers[conn as usize].sleep
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
    /// The workers' part of `check_invariants`.
    pub(crate) fn check_workers(&self) {
        let records = &self.abilities.records;
        let mut leases = std::collections::HashMap::new();
        for peer in &self.peers {
            if let SleepState::Woken { function, .. } = peer.sleep {
                *leases.entry(function).or_insert(0) += 1;
            }
        }
        for (id, function) in self.functions.iter_from(0) {
            assert_eq!(function.woken, leases.get(&id).copied().unwrap_or(0), "leases");
            let able = records.iter().filter(|(_, ability)| ability.function == id);
            let mut workers = 0;
            for (_, ability) in able {
                workers += 1;
                let asleep = self.peers[ability.conn as usize].sleep == SleepState::Asleep;
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
