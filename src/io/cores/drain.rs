//! The end of a drain: what each core has left in, whether all of them may end out.
//!
//! A core without jobs goes on answering messages until no core has any: a core that ended by
//! itself would leave the others waiting for its answers. Jobs stay at the core that owns their
//! function, and once all cores drain, none of those that are waited for is added, so the number
//! that is left only falls. Logs what is left. Knows no signal and no socket.
//!
//! Invariant: `join` comes after the core has published what it accepted; so once all have joined,
//! no published number is smaller than what is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tracing::info;

use super::gauges::{Gauges, Load};
use super::mesh::Mailbox;
use crate::engine::DrainGoal;

/// Least time between two log lines about what is left.
const LOG_INTERVAL_MS: u64 = 5000;

/// One core's view of draining.
#[derive(Clone, Debug)]
pub(crate) struct Drain {
    /// Cores that have joined.
    joined: Arc<AtomicUsize>,
    /// A core has found that nothing is left on any core, and may have ended.
    is_finished: Arc<AtomicBool>,
    /// Cores that have answered everything.
    flushed: Arc<AtomicUsize>,
    cores: usize,
    has_joined: bool,
    has_flushed: bool,
    /// What was last logged, and when.
    logged: Option<(u64, Left)>,
}

/// What is left to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Left {
    jobs: usize,
    running: usize,
    kept: usize,
}

impl Drain {
    /// One for each core.
    pub(crate) fn of(cores: usize) -> Vec<Self> {
        let drain = Self {
            joined: Arc::default(),
            is_finished: Arc::default(),
            flushed: Arc::default(),
            cores,
            has_joined: false,
            has_flushed: false,
            logged: None,
        };
        vec![drain; cores]
    }

    /// This core drains, and has published what it accepted before.
    pub(crate) fn join(&mut self) {
        if !std::mem::replace(&mut self.has_joined, true) {
            self.joined.fetch_add(1, Ordering::Release);
        }
    }

    /// Whether no core has jobs left and this one no messages. `own` is what this core has in use.
    pub(crate) fn is_done<T: Send>(
        &self,
        own: Load,
        gauges: &Gauges,
        mailbox: &Mailbox<T>,
    ) -> bool {
        // Jobs before messages: a core sends its last message before it publishes zero jobs. Once
        // nothing is left it stays so, and the first core that ends receives no more messages:
        // those that wait for space there, which count as jobs, would wait for ever.
        let is_finished = self.is_finished.load(Ordering::Acquire)
            || own.jobs == 0
                && self.joined.load(Ordering::Acquire) == self.cores
                && gauges.elsewhere().jobs == 0;
        let is_done = is_finished && !mailbox.has_work();
        if is_done {
            self.is_finished.store(true, Ordering::Release);
        }
        is_done
    }

    /// Whether all cores have answered everything that they have read, and read nothing more;
    /// `is_flushed` is whether this one has. One that ended before would leave requests without an
    /// answer that others have passed on to it.
    pub(crate) fn is_flushed(&mut self, is_flushed: bool) -> bool {
        if is_flushed && !std::mem::replace(&mut self.has_flushed, true) {
            self.flushed.fetch_add(1, Ordering::AcqRel);
        }
        is_flushed && self.flushed.load(Ordering::Acquire) == self.cores
    }

    /// Logs what is left, the first time and when it has changed; only the first core does.
    pub(crate) fn log(&mut self, goal: DrainGoal, own: Load, gauges: &Gauges, now_ms: u64) {
        if gauges.own() != 0 {
            return;
        }
        let others = gauges.elsewhere();
        let left = Left {
            jobs: own.jobs + others.jobs,
            running: own.running + others.running,
            kept: own.kept + others.kept,
        };
        let is_due = self
            .logged
            .is_none_or(|(at_ms, logged)| logged != left && now_ms >= at_ms + LOG_INTERVAL_MS);
        if is_due {
            self.logged = Some((now_ms, left));
            let Left { jobs, running, kept } = left;
            match goal {
                DrainGoal::JobsDone => {
                    info!(jobs, running, left_to_the_next_server = kept, "draining: what is left");
                }
                DrainGoal::RunsDone => info!(running, "draining: what is left"),
            }
        }
    }
}

#[cfg(test)]
mod tests;
