//! Unused functions, and the memory of functions and abilities.
//!
//! A function without jobs and workers stays visible in `status`, but only the latest `UNUSED_MAX`
//! are kept: else clients could fill the memory with names. Functions that an operator created or
//! limited are not removed. Knows no connections and no packets.
//!
//! Invariant: an unused function that is no operator's is in the list of unused functions; the list
//! may have others, too.

use super::function::{Ability, FUNCTION_BYTES};
use super::ids::FunctionId;
use super::{ConnId, Engine};

/// Number of unused functions that are kept.
pub(super) const UNUSED_MAX: usize = 1000;
/// Memory of an ability: its record and its entry in the index.
const ABILITY_BYTES: usize = size_of::<Ability>() + 16;

impl Engine {
    /// Functions that connections are registered for, each counted once a connection.
    #[must_use]
    pub fn registrations(&self) -> usize {
        self.abilities.records.len()
    }

    /// Memory of functions and abilities, in bytes.
    #[inline]
    #[must_use]
    pub fn registry_bytes(&self) -> usize {
        self.functions.bytes() + self.named.bytes() + self.abilities.records.len() * ABILITY_BYTES
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
        let has_memory = self.bytes_to_add(name) <= memory_left;
        let id = has_memory.then(|| self.add_function(name))?;
        self.forget_unused();
        Some(id)
    }

    /// Memory of a function of this name, which doesn't exist.
    fn bytes_to_add(&self, name: &[u8]) -> usize {
        FUNCTION_BYTES + name.len() + self.named.bytes_to_enter(name)
    }

    /// Whether `memory_left` is enough to register a worker for a function.
    #[inline]
    #[must_use]
    pub fn has_memory_to_register(&self, conn: ConnId, name: &[u8], memory_left: usize) -> bool {
        self.bytes_to_add(name) + ABILITY_BYTES <= memory_left
            || self.functions.find(name).is_some_and(|id| {
                self.abilities.find(conn, id).is_some() || ABILITY_BYTES <= memory_left
            })
    }

    /// To be called when a function may have lost its last job or its last worker.
    #[inline(always)]
    pub(crate) fn check_unused(&mut self, id: FunctionId) {
        if self.functions[id].is_unused() {
            self.list_unused(id);
        }
    }

    #[inline(never)]
    pub(super) fn list_unused(&mut self, id: FunctionId) {
        self.functions.list_unused(id);
        self.forget_unused();
    }

    /// Removes the longest unused functions beyond `UNUSED_MAX`.
    pub(crate) fn forget_unused(&mut self) {
        while self.functions.unused_len() > UNUSED_MAX
            && let Some(id) = self.functions.unlist_unused()
        {
            let function = &self.functions[id];
            if function.is_unused() && !function.is_kept() {
                self.remove_function(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tests::{Fixture, conn_id, settings};
    use crate::wire::Command;

    /// 50 000 names of 4 kB that a worker gave up with CANT_DO kept 208 MiB for good.
    #[test]
    fn unused_functions_are_removed_and_their_memory_counts() {
        let mut fixture = Fixture::new(settings());
        fixture.engine.create_function(b"created", 1 << 20);
        let bounded = fixture.background("bounded");
        fixture.engine.cancel(bounded);
        fixture.engine.set_queue_max(b"bounded", [5; 3]);
        let job = fixture.background("with a job");
        fixture.can_do(9, "with a worker");
        let before = fixture.engine.registry_bytes();
        let name = |at: usize| format!("{at:0>4000}");
        for at in 0..3 * UNUSED_MAX {
            fixture.can_do(1, &name(at));
        }
        assert!(fixture.engine.registry_bytes() > before + 3 * UNUSED_MAX * 4000);
        for at in 0..2 * UNUSED_MAX {
            fixture.engine.cant_do(conn_id(1), name(at).as_bytes(), fixture.now);
        }
        fixture.engine.check_invariants();
        fixture.disconnect(1);
        fixture.engine.check_invariants();
        assert!(
            fixture.engine.registry_bytes() < before + UNUSED_MAX * (4000 + FUNCTION_BYTES) + 4096
        );
        assert!(fixture.engine.functions.len() <= UNUSED_MAX + 4);
        for used in ["created", "bounded", "with a job", "with a worker"] {
            assert!(fixture.engine.functions.find(used.as_bytes()).is_some(), "{used}");
        }
        // Submissions that came to nothing leave no more than that behind, either.
        for at in 0..3 * UNUSED_MAX {
            let number = fixture.submit(2, Command::SubmitJob, &format!("{at}\0\0"));
            fixture.engine.cancel(number);
        }
        fixture.disconnect(9);
        fixture.engine.cancel(job);
        fixture.engine.set_queue_max(b"bounded", [0; 3]);
        fixture.engine.check_invariants();
        for at in 0..UNUSED_MAX {
            let number = fixture.submit(2, Command::SubmitJob, &format!("again {at}\0\0"));
            fixture.engine.cancel(number);
        }
        fixture.engine.check_invariants();
        assert_eq!(
            fixture.engine.functions.len(),
            UNUSED_MAX + 1,
            "the latest, and the created one"
        );
        assert!(fixture.engine.functions.find(b"created").is_some());
    }

    #[test]
    fn without_memory_nothing_new_is_registered_and_what_is_there_stays() {
        let mut fixture = Fixture::new(settings());
        fixture.can_do(1, "f");
        assert!(fixture.engine.has_memory_to_register(conn_id(1), b"f", 0), "it is registered");
        assert!(!fixture.engine.has_memory_to_register(conn_id(2), b"f", ABILITY_BYTES - 1));
        assert!(fixture.engine.has_memory_to_register(conn_id(2), b"f", ABILITY_BYTES));
        assert!(!fixture.engine.has_memory_to_register(conn_id(2), b"g", ABILITY_BYTES));
        assert!(
            !fixture.engine.create_function(b"g", 10) && fixture.engine.create_function(b"f", 10)
        );
    }
}
