//! Lookups: numbers of jobs that cores ask for in, whether the store has them out.
//!
//! All that has come is asked for at once. Knows nothing of partitions.
//!
//! Invariant: each number gets one answer for each core that asked.

use std::collections::BTreeMap;

use tracing::warn;

use crate::shard::cores::Core;
use crate::store::members::Members;

/// Most numbers in one question to the database.
const NUMBERS_MAX: usize = 4096;

/// Lookups that aren't answered.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    /// The cores that ask, by number.
    asked: BTreeMap<u64, Vec<Core>>,
    /// The last question has failed.
    has_failed: bool,
}

impl Lookups {
    /// A core asks for these jobs.
    pub(super) fn add(&mut self, core: Core, numbers: Vec<u64>) {
        for number in numbers {
            let cores = self.asked.entry(number).or_default();
            if !cores.contains(&core) {
                cores.push(core);
            }
        }
    }

    /// Asks the database, and answers each core.
    pub(super) fn answer(
        &mut self,
        members: &mut dyn Members,
        answer: impl Fn(Core, Vec<(u64, bool)>),
    ) {
        let asked = std::mem::take(&mut self.asked);
        let numbers: Vec<u64> = asked.keys().copied().collect();
        let mut answers: BTreeMap<Core, Vec<(u64, bool)>> = BTreeMap::new();
        for numbers in numbers.chunks(NUMBERS_MAX) {
            let found = match members.find(numbers) {
                Ok(found) => {
                    self.has_failed = false;
                    found
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.has_failed, true) {
                        warn!(
                            %error,
                            "jobs of other servers can't be looked up: GET_STATUS says that they \
                             aren't known until the database answers"
                        );
                    }
                    Vec::new()
                }
            };
            for number in numbers {
                for &core in &asked[number] {
                    answers.entry(core).or_default().push((*number, found.contains(number)));
                }
            }
        }
        answers.into_iter().for_each(|(core, numbers)| answer(core, numbers));
    }
}
