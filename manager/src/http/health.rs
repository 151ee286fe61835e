//! Whether the manager does its work: counters in, the workers that don't work out.

use crate::counters::Counters;

/// `Ok` while each worker has an instance that doesn't wait for its program to get well.
///
/// # Errors
/// The names of the other workers, in a sentence.
pub(super) fn health(counters: &Counters) -> Result<(), String> {
    let workers = counters.workers.borrow();
    let is_down = |worker: &crate::counters::Worker| {
        let instances = worker.instances.get();
        instances > 0 && worker.backing_off.get() >= instances
    };
    let down: Vec<&str> =
        workers.iter().filter(|(_, it)| is_down(it)).map(|(name, _)| name.as_str()).collect();
    if down.is_empty() {
        return Ok(());
    }
    Err(format!("all instances wait before they start their program again: {}", down.join(", ")))
}
