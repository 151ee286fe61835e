//! Unused functions, and the memory of functions and abilities.
//!
//! A function without jobs and workers stays visible in `status`, but only the latest `UNUSED_MAX`
//! are kept: else clients could fill the memory with names. Functions that an operator created or
//! limited are not removed. Knows no connections and no packets.
//!
//! Invariant: an unused function that is no operator's is in the list of unused functions; the list
//! may have others, too.

use super::function::{Ability, FUNCTION_BYTES, FunctionId};
use super::{ConnId, Engine};

/// Number of unused functions that are kept.
pub(super) const UNUSED_MAX: usize = 1000;
/// Memory of an ability: its record and its entry in the index.
const ABILITY_BYTES: usize = size_of::<Ability>() + 16;

impl Engine {
    /// Memory of functions and abilities, in bytes.
    #[inline]
    #[must_use]
    pub fn registry_bytes(&self) -> usize {
        self.functions.bytes() + self.abilities.records.len() * ABILITY_BYTES
    }

    /// The function of this name, created if there is none; `None` if memory is too short for it.
    #[inline]
    pub(super) fn find_or_create(&mut self, name: &[u8], memory_left: usize) -> Option<FunctionId> {
        if let Some(id) = self.functions.find(name) {
            return Some(id);
        }
        self.create(name, memory_left)
    }

    #[inline(never)]
    fn create(&mut self, name: &[u8], memory_left: usize) -> Option<FunctionId> {
        let id =
            (FUNCTION_BYTES + name.len() <= memory_left).then(|| self.functions.create(name))?;
        self.forget_unused();
        Some(id)
    }

    /// Whether `memory_left` is enough to register a worker for a function.
    #[inline]
    #[must_use]
    pub fn has_memory_to_register(&self, conn: ConnId, name: &[u8], memory_left: usize) -> bool {
        FUNCTION_BYTES + ABILITY_BYTES + name.len() <= memory_left
            || self.functions.find(name).is_some_and(|id| {
                self.abilities.find(conn, id).is_some() || ABILITY_BYTES <= memory_left
            })
    }

    /// To be called when a function may have lost its last job or its last worker.
    #[inline]
    pub(crate) fn check_unused(&mut self, id: FunctionId) {
        if self.functions[id].is_unused() {
            self.functions.list_unused(id);
            self.forget_unused();
        }
    }

    /// Removes the longest unused functions beyond `UNUSED_MAX`.
    pub(crate) fn forget_unused(&mut self) {
        while self.functions.unused_len() > UNUSED_MAX
            && let Some(id) = self.functions.unlist_unused()
        {
            let function = &self.functions[id];
            if function.is_unused() && !function.is_kept() {
                self.functions.remove(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tests::{Rig, settings};
    use crate::wire::Command;

    /// 50 000 names of 4 kB that a worker gave up with CANT_DO kept 208 MiB for good.
    #[test]
    fn unused_functions_are_removed_and_their_memory_counts() {
        let mut rig = Rig::new(settings());
        rig.engine.create_function(b"created", 1 << 20);
        let bounded = rig.background("bounded");
        rig.engine.cancel(bounded);
        rig.engine.set_queue_max(b"bounded", [5; 3]);
        let job = rig.background("with a job");
        rig.can_do(9, "with a worker");
        let before = rig.engine.registry_bytes();
        let name = |at: usize| format!("{at:0>4000}");
        for at in 0..3 * UNUSED_MAX {
            rig.can_do(1, &name(at));
        }
        assert!(rig.engine.registry_bytes() > before + 3 * UNUSED_MAX * 4000);
        for at in 0..2 * UNUSED_MAX {
            rig.engine.cant_do(1, name(at).as_bytes(), rig.now);
        }
        rig.engine.check_invariants();
        rig.disconnect(1);
        rig.engine.check_invariants();
        assert!(rig.engine.registry_bytes() < before + UNUSED_MAX * (4000 + FUNCTION_BYTES) + 4096);
        assert!(rig.engine.functions.len() <= UNUSED_MAX + 4);
        for used in ["created", "bounded", "with a job", "with a worker"] {
            assert!(rig.engine.functions.find(used.as_bytes()).is_some(), "{used}");
        }
        // Submissions that came to nothing leave no more than that behind, either.
        for at in 0..3 * UNUSED_MAX {
            let number = rig.submit(2, Command::SubmitJob, &format!("{at}\0\0"));
            rig.engine.cancel(number);
        }
        rig.disconnect(9);
        rig.engine.cancel(job);
        rig.engine.set_queue_max(b"bounded", [0; 3]);
        rig.engine.check_invariants();
        for at in 0..UNUSED_MAX {
            let number = rig.submit(2, Command::SubmitJob, &format!("again {at}\0\0"));
            rig.engine.cancel(number);
        }
        rig.engine.check_invariants();
        assert_eq!(rig.engine.functions.len(), UNUSED_MAX + 1, "the latest, and the created one");
        assert!(rig.engine.functions.find(b"created").is_some());
    }

    #[test]
    fn without_memory_nothing_new_is_registered_and_what_is_there_stays() {
        let mut rig = Rig::new(settings());
        rig.can_do(1, "f");
        assert!(rig.engine.has_memory_to_register(1, b"f", 0), "it is registered");
        assert!(!rig.engine.has_memory_to_register(2, b"f", ABILITY_BYTES - 1));
        assert!(rig.engine.has_memory_to_register(2, b"f", ABILITY_BYTES));
        assert!(!rig.engine.has_memory_to_register(2, b"g", ABILITY_BYTES));
        assert!(!rig.engine.create_function(b"g", 10) && rig.engine.create_function(b"f", 10));
    }
}
