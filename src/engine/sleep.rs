//! Sleeping workers: PRE_SLEEP and new jobs in, NOOPs out as effects.
//!
//! A worker that was sent a NOOP holds a lease for one function until it grabs, sleeps again or
//! disconnects. As many sleepers are woken for a function as it has queued jobs without a lease.
//! The check is made at the end of a batch of packets (`wake_sleepers`): only then is it known
//! which jobs are left for sleepers.
//!
//! Invariant: after `wake_sleepers`, a function with a sleeping worker has at least as many leases
//! as queued jobs. A lease that ends unused after `Settings::lease_ms` wakes all sleepers of its
//! function.

use super::function::{READY, WAKING};
use super::ids::FunctionId;
use super::timer::TimerId;
use super::{ConnId, Due, Effect, Engine, Now, Wakeup};
use crate::wire::Priority;

/// Whether a worker sleeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SleepState {
    /// It sends its next request without a NOOP: it never slept, or its lease ended unused.
    #[default]
    Awake,
    /// It waits for a NOOP.
    Asleep,
    /// It was sent a NOOP for this function and holds a lease, which this timer ends.
    Woken { function: FunctionId, lease: TimerId },
}

/// Functions with jobs that are checked for a worker that falls asleep. A worker with more of them
/// is woken without further checks; its next grab finds a job or none.
pub(super) const UNCLAIMED_CHECKS_MAX: usize = 8;

/// A worker has more than `UNCLAIMED_CHECKS_MAX` functions with jobs.
struct TooMany;

impl Engine {
    /// `PRE_SLEEP`: the worker sleeps until a NOOP. `wake_sleepers` sends it if a job is queued
    /// that no other worker holds a lease for.
    pub fn pre_sleep(&mut self, conn: ConnId) {
        let woken_for = self.take_lease(conn);
        let peer = &mut self.peers[conn];
        peer.sleep = SleepState::Asleep;
        while let Some(id) = peer.awake.pop_front(&mut self.abilities.records, WAKING) {
            let ability = &mut self.abilities.records[id];
            ability.maybe_asleep = true;
            let maybe_asleep = &mut self.functions[ability.function].maybe_asleep;
            maybe_asleep.push_front(&mut self.abilities.records, WAKING, id);
        }
        // Its functions are checked at the end of the batch, not here: until then a job that is
        // queued now may be taken or cancelled.
        if !std::mem::replace(&mut self.peers[conn].is_new_sleeper, true) {
            self.new_sleepers.push(conn);
        }
        if let Some(function) = woken_for {
            self.queue_wakeup_check(function);
        }
    }

    /// Wakes sleepers for the jobs that are queued now. To be called once at the end of a batch of
    /// packets: a job that arrives together with the grab of a worker that is awake wakes no
    /// sleeper, and a worker that falls asleep in the same batch as a job arrives is woken for it.
    /// Returns whether there are effects.
    #[inline]
    pub fn wake_sleepers(&mut self, now: Now) -> bool {
        while let Some(id) = self.wakeup_checks.pop() {
            // The function may have been dropped and its number reused since.
            if let Some(function) = self.functions.get_mut(id)
                && std::mem::take(&mut function.is_check_queued)
            {
                // A lease ended unused: the woken worker may hang, and others may, too. All
                // sleepers are woken, as a job would else wait for one lease after another.
                let has_lapsed = std::mem::take(&mut function.has_lapsed);
                loop {
                    let function = &self.functions[id];
                    let wakes_all = has_lapsed && function.ready() > 0;
                    let is_short = wakes_all || function.woken < function.ready();
                    if !is_short || !self.wake_last_sleeper(id, now) {
                        break;
                    }
                }
            }
        }
        while let Some(conn) = self.new_sleepers.pop() {
            self.check_new_sleeper(conn, now);
        }
        self.has_effects()
    }

    /// Wakes a worker that fell asleep in this batch if a job is queued for it that no lease
    /// covers. Checks all of its functions: a job that arrived while none of a function's workers
    /// slept queued no wakeup check.
    fn check_new_sleeper(&mut self, conn: ConnId, now: Now) {
        let peer = &mut self.peers[conn];
        let is_new_sleeper = std::mem::take(&mut peer.is_new_sleeper);
        // It may have disconnected, grabbed or been woken since.
        if !is_new_sleeper || peer.sleep != SleepState::Asleep || !self.assigns() {
            return;
        }
        let Some((ability, _)) = self.find_job(conn, Priority::Low) else { return };
        match self.find_unclaimed(conn) {
            Ok(Some(function)) => self.send_noop(conn, function, now),
            Ok(None) => {}
            Err(TooMany) => {
                let function = self.abilities.records[ability].function;
                self.send_noop(conn, function, now);
            }
        }
    }

    /// A function of this worker that has more queued jobs than leases.
    fn find_unclaimed(&self, conn: ConnId) -> Result<Option<FunctionId>, TooMany> {
        let (peer, records) = (&self.peers[conn], &self.abilities.records);
        let ready = Priority::ALL.into_iter().flat_map(|priority| {
            peer.maybe_ready[priority as usize].iter(records, READY[priority as usize])
        });
        for (at, id) in ready.enumerate() {
            if at == UNCLAIMED_CHECKS_MAX {
                return Err(TooMany);
            }
            let id = records[id].function;
            let function = &self.functions[id];
            if function.woken < function.ready() {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// Applies the wakeup policy after a job was added to a function's queue.
    pub(super) fn wake_for_new_job(&mut self, function: FunctionId, now: Now) {
        match self.settings.wakeup {
            Wakeup::Lease => self.queue_wakeup_check(function),
            Wakeup::Each(limit) => {
                let mut left = if limit == 0 { u32::MAX } else { limit };
                while left > 0 && self.wake_last_sleeper(function, now) {
                    left -= 1;
                }
            }
        }
    }

    /// Applies the wakeup policy after a pause or a suspension of a function whose queues have
    /// jobs.
    pub(super) fn wake_for_resumed(&mut self, function: FunctionId, now: Now) {
        match self.settings.wakeup {
            Wakeup::Lease => self.queue_wakeup_check(function),
            Wakeup::Each(_) => {
                let mut left = self.functions[function].ready();
                while left > 0 && !self.functions[function].maybe_asleep.is_empty() {
                    self.wake_for_new_job(function, now);
                    left -= 1;
                }
            }
        }
    }

    /// Ends a woken worker's lease without a grab here: the worker got a job from another core, or
    /// can't run the function any more. Others may be woken in its place. Does nothing for a worker
    /// that holds no lease; a sleeping worker stays asleep.
    pub fn end_lease(&mut self, conn: ConnId) {
        if self.is_woken(conn)
            && let Some(function) = self.take_lease(conn)
        {
            self.queue_wakeup_check(function);
        }
    }

    /// Marks a sleeping worker as awake: another core sent it a NOOP.
    pub fn mark_awake(&mut self, conn: ConnId) {
        let sleep = &mut self.peers[conn].sleep;
        if *sleep == SleepState::Asleep {
            *sleep = SleepState::Awake;
        }
    }

    /// Whether a worker waits for a NOOP.
    #[must_use]
    pub fn is_asleep(&self, conn: ConnId) -> bool {
        self.peers[conn].sleep == SleepState::Asleep
    }

    /// Whether a worker holds a lease.
    #[must_use]
    pub fn is_woken(&self, conn: ConnId) -> bool {
        matches!(self.peers[conn].sleep, SleepState::Woken { .. })
    }

    /// The timer of a lease has expired: the worker counts as awake, and all other sleepers of the
    /// function are woken at the end of the batch.
    pub(super) fn end_overdue_lease(&mut self, conn: ConnId) {
        let SleepState::Woken { function, .. } = self.peers[conn].sleep else {
            debug_assert!(false, "a lease ends with its timer");
            return;
        };
        self.peers[conn].sleep = SleepState::Awake;
        self.functions[function].woken -= 1;
        self.counters.leases_ended += 1;
        // Set only if there are sleepers to wake: it must not apply to jobs that arrive later.
        self.functions[function].has_lapsed = !self.functions[function].maybe_asleep.is_empty();
        self.queue_wakeup_check(function);
    }

    /// Has `wake_sleepers` check whether a function has more jobs than leases.
    pub(super) fn queue_wakeup_check(&mut self, id: FunctionId) {
        let function = &mut self.functions[id];
        // Without sleepers there is nothing to check; a worker that falls asleep later checks all
        // of its functions itself.
        if !function.is_check_queued && !function.maybe_asleep.is_empty() {
            function.is_check_queued = true;
            self.wakeup_checks.push(id);
        }
    }

    /// Wakes the sleeper of a function that fell asleep last; `false` if it has none, or it would
    /// get no job.
    fn wake_last_sleeper(&mut self, function: FunctionId, now: Now) -> bool {
        if !self.assigns() {
            return false;
        }
        let records = &mut self.abilities.records;
        while let Some(id) = self.functions[function].maybe_asleep.pop_front(records, WAKING) {
            let ability = &mut records[id];
            ability.maybe_asleep = false;
            let conn = ability.conn;
            let peer = &mut self.peers[conn];
            peer.awake.push_front(records, WAKING, id);
            if peer.sleep == SleepState::Asleep {
                self.send_noop(conn, function, now);
                return true;
            }
        }
        false
    }

    /// Sends a NOOP and starts the lease.
    fn send_noop(&mut self, conn: ConnId, function: FunctionId, now: Now) {
        let lease = self.timers.insert(now.mono_ms + self.settings.lease_ms, Due::Lease(conn));
        self.peers[conn].sleep = SleepState::Woken { function, lease };
        self.functions[function].woken += 1;
        self.effects.push(Effect::Noop { conn });
    }

    /// Marks a worker as awake and ends its lease; returns the function that the lease was for.
    pub(super) fn take_lease(&mut self, conn: ConnId) -> Option<FunctionId> {
        match std::mem::take(&mut self.peers[conn].sleep) {
            SleepState::Woken { function, lease } => {
                self.timers.remove(lease);
                self.functions[function].woken -= 1;
                Some(function)
            }
            SleepState::Awake | SleepState::Asleep => None,
        }
    }
}
