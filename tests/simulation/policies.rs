//! Random policies: a generator in, what a functions file might say out.
//!
//! Patterns overlap, so that the first one that matches counts. Invariant: each value is one that
//! the server accepts.

use fastrand::Rng;
use ringgear::engine::function::Durability;
use ringgear::engine::glob::Glob;
use ringgear::engine::policy::{Backoff, Expiry, Policies, Policy, Retries};

const PATTERNS: [&str; 7] = ["f0", "?0", "re*", "resize", "a-*", "x", "*"];

/// Policies for some functions, or for none. Jobs are durable only if there is a store.
pub(crate) fn any(rng: &mut Rng, has_store: bool) -> Policies {
    let count = [0, 1, 2, 3][rng.usize(0..4)];
    Policies((0..count).map(|_| policy(rng, has_store)).collect())
}

fn policy(rng: &mut Rng, has_store: bool) -> Policy {
    let patterns = (0..rng.usize(1..3)).map(|_| PATTERNS[rng.usize(0..PATTERNS.len())]);
    let patterns: Vec<Glob> = patterns.map(|pattern| Glob::new(pattern).unwrap()).collect();
    let durabilities = [Durability::None, Durability::Async, Durability::Fsync];
    Policy {
        patterns,
        retries: (rng.u32(0..4) > 0).then(|| retries(rng)),
        expiry: (rng.u32(0..6) == 0).then(|| expiry(rng)),
        timeout_ms: [0, 0, 1000, 4000][rng.usize(0..4)],
        timeout_max_ms: [0, 0, 1200][rng.usize(0..3)],
        touch: rng.bool(),
        queue_max: (rng.u32(0..5) == 0).then(|| [rng.u32(0..9), rng.u32(0..30), rng.u32(0..3)]),
        durability: (has_store && rng.u32(0..3) == 0).then(|| durabilities[rng.usize(0..3)]),
    }
}

fn retries(rng: &mut Rng) -> Retries {
    let first_ms = [0, 1, 50, 1000][rng.usize(0..4)];
    let retried = if rng.u32(0..3) == 0 { [(); 4].map(|()| rng.bool()) } else { [true; 4] };
    Retries {
        attempts: [0, 1, 2, 2, 5][rng.usize(0..5)],
        retried,
        backoff: Backoff {
            first_ms,
            factor: [1.0, 1.5, 2.0, 4.0][rng.usize(0..4)],
            max_ms: first_ms + [0, 300, 100_000][rng.usize(0..3)],
            jitter: [0.0, 0.3, 0.5, 1.0][rng.usize(0..4)],
        },
        foreground: rng.bool(),
        dead: rng.u32(0..4) > 0,
    }
}

fn expiry(rng: &mut Rng) -> Expiry {
    Expiry { after_ms: [200, 3000, 100_000][rng.usize(0..3)], dead: rng.bool() }
}
