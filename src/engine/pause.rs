//! Paused functions: a pause and the time in, queues that no worker gets jobs of out.
//!
//! Submissions go on while a function is paused. Knows no commands and no store.
//!
//! Invariant: `Function::has_ready` and `ready` say that a paused function has no jobs, so that its
//! queues leave the `maybe_ready` lists as empty ones do, and come back when the pause ends.

use super::effect::PauseChange;
use super::ids::FunctionId;
use super::record::Pause;
use super::{Due, Effect, Engine, Now};

impl Engine {
    /// Pauses a function, also one that isn't known yet. `false` if memory is too short for it.
    pub fn pause(&mut self, name: &[u8], pause: Pause, memory_left: usize, now: Now) -> bool {
        let Some(id) = self.find_or_create(name, memory_left) else { return false };
        self.begin_pause(id, pause, now);
        self.note_pause(id, Some(pause));
        true
    }

    /// Ends the pause of a function, if it is paused.
    pub fn resume(&mut self, name: &[u8], now: Now) {
        if let Some(id) = self.functions.find(name) {
            self.end_pause(id, now);
        }
    }

    /// Pauses a function as it was before a restart, or as another server did.
    pub fn restore_pause(&mut self, name: &[u8], pause: Pause, now: Now) {
        let id = self.functions.find(name).unwrap_or_else(|| self.add_function(name));
        self.begin_pause(id, pause, now);
    }

    fn begin_pause(&mut self, id: FunctionId, pause: Pause, now: Now) {
        let before = self.functions[id].pause_timer.take();
        before.into_iter().for_each(|timer| self.timers.remove(timer));
        let timer = match pause {
            Pause::Unlimited => None,
            Pause::Until(end_ms) => {
                let wait_ms = end_ms.saturating_sub(now.unix_ms);
                Some(self.timers.insert(now.mono_ms.saturating_add(wait_ms), Due::Resume(id)))
            }
        };
        let function = &mut self.functions[id];
        function.pause_timer = timer;
        if function.pause.replace(pause).is_none() {
            function.paused_since = now;
        }
    }

    /// Ends the pause of a function, if it is paused, as another server did: the store has that.
    pub fn follow_resume(&mut self, name: &[u8], now: Now) {
        if let Some(id) = self.functions.find(name)
            && self.forget_pause(id)
        {
            self.go_on(id, now);
        }
    }

    /// Removes the pause of a function, also from the store. `false` if there is none.
    pub(super) fn take_pause(&mut self, id: FunctionId) -> bool {
        let was_paused = self.forget_pause(id);
        if was_paused {
            self.note_pause(id, None);
        }
        was_paused
    }

    fn forget_pause(&mut self, id: FunctionId) -> bool {
        let function = &mut self.functions[id];
        if function.pause.take().is_none() {
            return false;
        }
        let timer = function.pause_timer.take();
        timer.into_iter().for_each(|timer| self.timers.remove(timer));
        true
    }

    fn note_pause(&mut self, id: FunctionId, pause: Option<Pause>) {
        let function = self.functions[id].name.clone();
        self.effects.push(Effect::Pause(Box::new(PauseChange { function, pause })));
    }

    /// The timer of a pause has expired.
    pub(super) fn pause_is_over(&mut self, id: FunctionId, now: Now) {
        self.functions[id].pause_timer = None;
        self.end_pause(id, now);
    }

    /// Ends the pause of a function, if it is paused, and has its jobs assigned.
    pub(super) fn end_pause(&mut self, id: FunctionId, now: Now) {
        if self.take_pause(id) {
            self.go_on(id, now);
        }
    }

    /// A function is paused no more: has its jobs assigned.
    fn go_on(&mut self, id: FunctionId, now: Now) {
        let function = &self.functions[id];
        let paused_ms = now.mono_ms.saturating_sub(function.paused_since.mono_ms);
        let queued = function.queues.each_ref().map(|queue| !queue.jobs.is_empty());
        self.numbers_of(id).paused_ms += paused_ms;
        for (priority, _) in queued.into_iter().enumerate().filter(|&(_, has_jobs)| has_jobs) {
            self.mark_queue_ready(id, priority);
        }
        if queued.contains(&true) {
            self.wake_for_resumed(id, now);
        }
        self.check_unused(id);
    }
}
