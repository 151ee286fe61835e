//! Paused functions: a pause and the time in, queues that no worker gets jobs of out.
//!
//! Submissions go on while a function is paused. Knows no commands and no store.
//!
//! Invariant: no queue of a paused function is in a `maybe_ready` list for long: a worker that
//! looks at it there takes it off, and nothing puts it back until the function is resumed.

use super::ids::FunctionId;
use super::record::Pause;
use super::{Engine, Now};

impl Engine {
    /// Pauses a function, also one that isn't known yet. `false` if memory is too short for it.
    pub fn pause(&mut self, name: &[u8], pause: Pause, memory_left: usize, now: Now) -> bool {
        let Some(id) = self.find_or_create(name, memory_left) else { return false };
        self.set_pause(id, Some(pause), now);
        true
    }

    /// Ends the pause of a function, if it is paused.
    pub fn resume(&mut self, name: &[u8], now: Now) {
        if let Some(id) = self.functions.find(name) {
            self.set_pause(id, None, now);
        }
    }

    /// Pauses a function as it was before a restart.
    pub fn restore_pause(&mut self, name: &[u8], pause: Pause, now: Now) {
        let id = self.functions.find(name).unwrap_or_else(|| self.add_function(name));
        self.set_pause(id, Some(pause), now);
    }

    fn set_pause(&mut self, id: FunctionId, pause: Option<Pause>, _now: Now) {
        self.functions[id].pause = pause;
    }
}
