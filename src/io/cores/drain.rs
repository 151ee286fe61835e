//! Cores that drain, and whether all of them may end: what each has left in, "done" out.
//!
//! A core without jobs goes on answering messages until no core has any: one that ended by itself
//! would leave the others waiting for its answers. Jobs stay at the core that owns their function,
//! and none is accepted once all cores refuse submissions, so what they have left together only
//! falls. Says in the log what is left. Knows no signal and no socket.
//!
//! Invariant: `join` comes after the core has published what it accepted; so once all have joined,
//! no published number is smaller than what is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tracing::info;

use super::mesh::{Load, Post};

/// Time between two lines about what is left.
const NEWS_MS: u64 = 5000;

/// One core's view of draining.
#[derive(Clone, Debug)]
pub(crate) struct Drain {
    /// Cores that have joined.
    joined: Arc<AtomicUsize>,
    /// A core has found that nothing is left anywhere, and may have ended.
    is_finished: Arc<AtomicBool>,
    cores: usize,
    has_joined: bool,
    /// What was last told, and when.
    told: Option<(u64, Left)>,
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
            cores,
            has_joined: false,
            told: None,
        };
        vec![drain; cores]
    }

    /// This core refuses submissions, and has published what it accepted before.
    pub(crate) fn join(&mut self) {
        if !std::mem::replace(&mut self.has_joined, true) {
            self.joined.fetch_add(1, Ordering::Release);
        }
    }

    /// Whether nothing is left on any core, and no message for this one. `own` is what this core
    /// has.
    pub(crate) fn is_done<T: Send>(&self, own: Load, post: &Post<T>) -> bool {
        // In this order: what a core does away with its last job by, it has sent before. Once it
        // is so it stays so, and the first core that ends takes no more letters: those that wait
        // for room there, which count as jobs, would wait for ever.
        let is_finished = self.is_finished.load(Ordering::Acquire)
            || own.jobs == 0
                && self.joined.load(Ordering::Acquire) == self.cores
                && post.elsewhere().jobs == 0;
        let is_done = is_finished && !post.is_wanted();
        if is_done {
            self.is_finished.store(true, Ordering::Release);
        }
        is_done
    }

    /// Says what is left, the first time and when it has changed, for the first core only.
    pub(crate) fn tell<T: Send>(&mut self, own: Load, post: &Post<T>, now_ms: u64) {
        let others = post.elsewhere();
        let left = Left {
            jobs: own.jobs + others.jobs,
            running: own.running + others.running,
            kept: own.kept + others.kept,
        };
        let is_news =
            self.told.is_none_or(|(at_ms, told)| told != left && now_ms >= at_ms + NEWS_MS);
        if post.core() == 0 && is_news {
            self.told = Some((now_ms, left));
            let Left { jobs, running, kept } = left;
            info!(jobs, running, left_to_the_next_server = kept, "draining: what is left");
        }
    }
}

#[cfg(test)]
mod tests;
