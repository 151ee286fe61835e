//! Policies of functions: names and the policies in force in, what applies to each function out.
//!
//! Knows no files. Policies may change while jobs wait and run: what is decided later, is decided
//! by the new ones.
//!
//! Invariant: `Function::policy` is the place of the first policy in force that matches the
//! function's name.

use std::sync::Arc;

use super::function::{Durability, FunctionPolicy};
use super::ids::{FunctionId, JobId};
use super::policy::{Policies, Policy};
use super::{Due, Engine, Now};

impl Engine {
    /// What becomes of jobs.
    #[must_use]
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// The policy of a function.
    pub(super) fn policy_of(&self, function: FunctionId) -> Option<&Policy> {
        self.policies.0.get(self.functions[function].policy? as usize)
    }

    /// What applies to a function of this name.
    pub(super) fn look_up_policy(&self, name: &[u8]) -> FunctionPolicy {
        let place = self.policies.position(name);
        let policy = place.and_then(|place| self.policies.0.get(place));
        let durabilities = &self.settings.durabilities;
        let by_name: Option<Durability> = durabilities.named.get(name).copied();
        FunctionPolicy {
            place: place.and_then(|place| u32::try_from(place).ok()),
            durability: by_name.or_else(|| policy?.durability).unwrap_or(durabilities.default),
            queue_max: policy.and_then(|policy| policy.queue_max).unwrap_or_default(),
            expires: policy.is_some_and(|policy| policy.expiry.is_some()),
            limits_time: policy.is_some_and(Policy::limits_time),
        }
    }

    /// Uses other policies from now on. Limits of queues that operators have set stay, unless the
    /// policies' own limit changes.
    pub fn use_policies(&mut self, policies: Arc<Policies>, now: Now) {
        self.policies = policies;
        let functions = self.functions.iter_from(FunctionId::FIRST);
        let found: Vec<(FunctionId, FunctionPolicy)> =
            functions.map(|(id, function)| (id, self.look_up_policy(&function.name))).collect();
        for &(id, policy) in &found {
            self.functions[id].apply(policy);
        }
        // Some may be forgotten from here on, as others become forgettable.
        for (id, _) in found {
            if self.functions.get_mut(id).is_some_and(|function| function.is_unused()) {
                self.list_unused(id);
            }
        }
        if self.next_expiry.replace(JobId::FIRST).is_none() {
            self.timers.insert(now.mono_ms, Due::Expiry);
        }
    }
}
