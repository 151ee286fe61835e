//! What one connection has got and what it is to get: bytes in, what is new about them out.
//!
//! A reply that waits for the store keeps its place, and everything that comes later waits behind
//! it. `update` compares what left in a call, and what still waits, with what waited before. Knows
//! no jobs; whether a reply had to wait is `model`'s to say.
//!
//! Invariant: what has its place keeps it. A connection's packets leave in their order, each as
//! soon as nothing before it is to come.

use std::mem::take;

use crate::wire::{self, Packet};

/// What waits, from the first reply to come on.
#[derive(Default)]
pub(crate) struct Ledger {
    waiting: Vec<Packet>,
}

/// What a call has changed.
#[derive(Default)]
pub(crate) struct News {
    /// What was said in it, in order, whether or not it has left.
    pub(crate) said: Vec<Packet>,
    /// For each reply that was to come before the call, the oldest first: it, if it has come.
    pub(crate) filled: Vec<Option<Packet>>,
}

impl Ledger {
    /// `left` is what has been handed out in the call; `waiting` is what the shard still has: for
    /// each place of a reply that reply, if it has come, and what stands behind it.
    pub(crate) fn update(
        &mut self,
        left: &[u8],
        waiting: impl Iterator<Item = (Option<Vec<u8>>, Vec<u8>)>,
    ) -> News {
        let mut now = wire::read(left);
        let left = now.len();
        for (at, (reply, behind)) in waiting.enumerate() {
            match reply {
                None => now.push(Packet::Held),
                Some(reply) => {
                    assert_ne!(at, 0, "a reply has come, nothing stands before it, and it stays");
                    // One packet, unless another core had nothing to say, or several lines.
                    now.extend(wire::read(&reply));
                }
            }
            now.extend(wire::read(&behind));
        }
        let before = take(&mut self.waiting);
        assert!(now.len() >= before.len(), "something that waited is lost: {before:?} {now:?}");
        let said = now.split_off(before.len());
        let mut filled = Vec::new();
        for (before, now) in before.into_iter().zip(&now) {
            if before == Packet::Held {
                filled.push((*now != Packet::Held).then(|| now.clone()));
            } else {
                assert_eq!(before, *now, "what waits changes");
            }
        }
        self.waiting = now.iter().chain(&said).skip(left).cloned().collect();
        News { said, filled }
    }

    /// Whether a reply is to come.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}
