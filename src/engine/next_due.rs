//! The earliest start of each function's delayed jobs, for lists.
//!
//! A delayed job lowers the earliest start of its function at once. When the job with the earliest
//! start leaves, the next one isn't known: a pass over the timers, a batch at a time, finds it.
//! Knows no clock.
//!
//! Invariant: no delayed job starts before its function's `next_due_s` while `is_exact`; before and
//! during a pass some may.

use super::ids::{FunctionId, JobId};
use super::job::State;
use super::{Due, Engine};

/// Timers that one call of `Engine::find_next_dues` looks at.
const TIMERS_AT_ONCE: u32 = 4096;

/// Whether the earliest starts of all functions are known.
#[derive(Clone, Debug)]
pub(super) struct NextDues {
    is_exact: bool,
    /// How often a function's earliest start has been forgotten.
    forgotten: u64,
}

impl Default for NextDues {
    fn default() -> Self {
        Self { is_exact: true, forgotten: 0 }
    }
}

/// How far a pass over the timers has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DuePass {
    at: u32,
    /// `NextDues::forgotten` when it began.
    forgotten: u64,
}

impl Engine {
    /// The pass that has to be made for `Function::next_due_s` to be right; `None` if it is.
    #[must_use]
    pub fn due_pass(&self) -> Option<DuePass> {
        let NextDues { is_exact, forgotten } = self.next_dues;
        (!is_exact).then_some(DuePass { at: 0, forgotten })
    }

    /// Goes on with a pass. Returns what is left of it.
    pub fn find_next_dues(&mut self, pass: DuePass) -> Option<DuePass> {
        let end = pass.at.saturating_add(TIMERS_AT_ONCE);
        for at in pass.at..end.min(self.timers.places()) {
            if let Some(Due::Job(id)) = self.timers.key_at(at)
                && self.jobs[id].state == State::Delayed
            {
                self.note_due(id);
            }
        }
        if end < self.timers.places() {
            return Some(DuePass { at: end, ..pass });
        }
        self.next_dues.is_exact |= self.next_dues.forgotten == pass.forgotten;
        None
    }

    /// A job is delayed.
    pub(super) fn note_due(&mut self, id: JobId) {
        let job = &self.jobs[id];
        let next_due_s = &mut self.functions[job.function].next_due_s;
        *next_due_s = (*next_due_s).min(job.run_at_s);
    }

    /// A job with this start is delayed no more; its function's count is right already.
    pub(super) fn forget_due(&mut self, function: FunctionId, run_at_s: u32) {
        let function = &mut self.functions[function];
        if function.delayed == 0 {
            function.next_due_s = u32::MAX;
        } else if run_at_s <= function.next_due_s {
            function.next_due_s = u32::MAX;
            self.next_dues.is_exact = false;
            self.next_dues.forgotten += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tests::{Fixture, settings};
    use crate::wire::Command;

    fn delay(fixture: &mut Fixture, function: &str, start_s: u64) -> u64 {
        let body = format!("{function}\0\0{start_s}\0");
        fixture.submit(0, Command::SubmitJobEpoch, &body)
    }

    fn next_due(fixture: &Fixture, function: &str) -> Option<u32> {
        let engine = &fixture.engine;
        let id = engine.functions.find(function.as_bytes()).unwrap();
        Some(engine.functions[id].next_due_s).filter(|&due| due < u32::MAX)
    }

    fn pass(fixture: &mut Fixture) -> usize {
        let mut pass = fixture.engine.due_pass();
        let mut calls = 0;
        while let Some(now) = pass {
            pass = fixture.engine.find_next_dues(now);
            calls += 1;
        }
        calls
    }

    #[test]
    fn the_earliest_start_is_known_at_once_and_after_a_pass_when_it_left() {
        let mut fixture = Fixture::new(settings());
        let start_s = fixture.now.unix_ms / 1000 + 100;
        let jobs: Vec<u64> =
            [30, 10, 20].iter().map(|after| delay(&mut fixture, "f", start_s + after)).collect();
        delay(&mut fixture, "g", start_s + 5);
        let after = |seconds: u64| Some(u32::try_from(start_s + seconds).unwrap());
        assert_eq!((next_due(&fixture, "f"), next_due(&fixture, "g")), (after(10), after(5)));
        fixture.engine.cancel(jobs[0]);
        assert_eq!(pass(&mut fixture), 0, "a later one has left");
        fixture.engine.cancel(jobs[1]);
        assert_eq!(next_due(&fixture, "f"), None);
        assert_eq!(pass(&mut fixture), 1);
        assert_eq!((next_due(&fixture, "f"), next_due(&fixture, "g")), (after(20), after(5)));
        assert_eq!(pass(&mut fixture), 0, "it is known from then on");
        fixture.engine.cancel(jobs[2]);
        assert_eq!((next_due(&fixture, "f"), pass(&mut fixture)), (None, 0), "none is left");
    }

    #[test]
    fn a_pass_is_made_in_batches_and_repeated_when_a_start_was_forgotten_meanwhile() {
        let mut fixture = Fixture::new(settings());
        let start_s = fixture.now.unix_ms / 1000 + 100;
        let first = delay(&mut fixture, "f", start_s);
        for after in 1..=2 * u64::from(TIMERS_AT_ONCE) {
            delay(&mut fixture, "f", start_s + after);
        }
        let second = delay(&mut fixture, "f", start_s);
        fixture.engine.cancel(first);
        let began = fixture.engine.due_pass().unwrap();
        let rest = fixture.engine.find_next_dues(began);
        assert!(rest.is_some());
        fixture.engine.cancel(second);
        let mut rest = rest;
        while let Some(now) = rest {
            rest = fixture.engine.find_next_dues(now);
        }
        assert!(fixture.engine.due_pass().is_some());
        assert!(pass(&mut fixture) >= 3);
        assert_eq!(next_due(&fixture, "f").map(u64::from), Some(start_s + 1));
    }
}
