//! Suspension: a server that may have lost its stored jobs to another one hands out none of them,
//! until it knows that it has them still.
//!
//! Queued jobs that are stored are *held*: passed over as grabs come upon them, in a list before
//! their queue. Jobs in memory only go on, also those behind stored ones. Knows no clock, no store
//! and no partition.
//!
//! Invariant: while the suspension is on, no stored job is assigned; without one no job is held.
//! The jobs of a queue keep their order over a suspension, but for those that are assigned
//! meanwhile and come back.

use super::ids::{FunctionId, JobId};
use super::job::{Job, State};
use super::{Engine, Now};

/// No suspension; no job has it as its `held_in`.
const NONE: u32 = u32::MAX;

/// Whether the engine is suspended.
#[derive(Clone, Debug)]
pub(crate) struct Suspension {
    /// The number of the suspension that is on, or `NONE`. Jobs that are held have it, so that the
    /// end of the suspension need not visit each of them.
    current: u32,
    /// The number of the last one.
    last: u32,
    /// The sequence number that was the next one when it began.
    pub(super) first_sequence: u64,
    /// Jobs that are held, by priority.
    pub(super) held: [u32; 3],
}

impl Default for Suspension {
    fn default() -> Self {
        Self { current: NONE, last: 0, first_sequence: 0, held: [0; 3] }
    }
}

impl Suspension {
    /// Whether one is on.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.current != NONE
    }

    /// Whether a queued job is held.
    #[inline]
    pub(super) fn holds(&self, job: &Job) -> bool {
        job.held_in == self.current
    }
}

impl Engine {
    /// Whether no stored job is handed out; see `set_suspended`.
    #[must_use]
    pub fn is_suspended(&self) -> bool {
        self.suspension.is_on()
    }

    /// Begins or ends a suspension, unless it is so already: while it is on, no stored job is
    /// assigned, and no submission is answered before its job is on disk.
    #[inline]
    pub fn set_suspended(&mut self, is_suspended: bool, now: Now) {
        if is_suspended != self.suspension.is_on() {
            self.change_suspension(is_suspended, now);
        }
    }

    #[cold]
    fn change_suspension(&mut self, is_suspended: bool, now: Now) {
        let next_sequence = self.sequences.peek().unwrap_or(u64::MAX);
        let Suspension { current, last, first_sequence, held } = &mut self.suspension;
        if is_suspended {
            // 0 and `NONE` say that a job isn't held.
            *last = if *last < NONE - 1 { *last + 1 } else { 1 };
            *current = *last;
            *first_sequence = next_sequence;
            return;
        }
        *current = NONE;
        if std::mem::take(held) == [0; 3] {
            return;
        }
        let functions = self.functions.iter_from(FunctionId::FIRST);
        let with_held = functions.filter(|(_, function)| function.held > 0).map(|(id, _)| id);
        for id in with_held.collect::<Vec<FunctionId>>() {
            self.put_held_back(id, now);
        }
    }

    /// Puts the held jobs of a function back into their queues, and has them assigned.
    fn put_held_back(&mut self, id: FunctionId, now: Now) {
        let function = &mut self.functions[id];
        function.held = 0;
        let is_paused = function.pause.is_some();
        for priority in 0..function.queues.len() {
            let queue = &mut self.functions[id].queues[priority];
            let has_held = !queue.held.is_empty();
            queue.jobs.prepend(&mut self.jobs, 0, &mut queue.held);
            // The end of the pause does it otherwise.
            if has_held && !is_paused {
                self.mark_queue_ready(id, priority);
            }
        }
        if !is_paused {
            self.wake_for_resumed(id, now);
        }
    }

    /// Passes over a job at the head of its queue.
    pub(super) fn hold(&mut self, id: JobId) {
        let Job { function, priority, .. } = self.jobs[id];
        let queue = &mut self.functions[function].queues[priority as usize];
        queue.jobs.remove(&mut self.jobs, 0, id);
        queue.held.push_back(&mut self.jobs, 0, id);
        self.note_held(id);
    }

    /// Puts a queued job that is in memory only from now on where workers get it.
    pub(super) fn release_if_held(&mut self, id: JobId, now: Now) {
        let job = &self.jobs[id];
        if job.state == State::Queued && self.suspension.holds(job) {
            self.unqueue(id);
            self.start_first(id, now);
        }
    }

    /// A job has come into the list of held jobs.
    pub(super) fn note_held(&mut self, id: JobId) {
        let job = &mut self.jobs[id];
        job.held_in = self.suspension.current;
        self.functions[job.function].held += 1;
        self.suspension.held[job.priority as usize] += 1;
    }

    /// A job has left the list of held jobs.
    pub(super) fn note_not_held(&mut self, id: JobId) {
        let job = &mut self.jobs[id];
        job.held_in = 0;
        self.functions[job.function].held -= 1;
        self.suspension.held[job.priority as usize] -= 1;
    }
}

#[cfg(test)]
mod tests;
