//! Numbers of connections whose descriptors aren't the process's: what lists show in their place.
//!
//! Each core deals its own, the smallest that are free, so that cores have no number in common. A
//! connection keeps its number when it moves to another core, and gives it back to the first from
//! there; a core's numbers are behind a lock that is all but never waited for.
//!
//! Invariant: no two `Number`s that are there at the same time have the same value.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, PoisonError};

/// The numbers of all cores.
#[derive(Clone, Debug)]
pub(crate) struct Numbers(Arc<[Mutex<Pool>]>);

/// One core's numbers, counted from 0.
#[derive(Debug, Default)]
struct Pool {
    /// Given back.
    free: BinaryHeap<Reverse<u32>>,
    /// All from here on have never been dealt.
    unused: u32,
}

/// A connection's number; it is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Number {
    numbers: Numbers,
    core: usize,
    at: u32,
}

impl Numbers {
    pub(crate) fn new(cores: usize) -> Self {
        Self((0..cores).map(|_| Mutex::default()).collect())
    }

    /// A number of a core's.
    pub(crate) fn deal(&self, core: usize) -> Number {
        let mut pool = self.0[core].lock().unwrap_or_else(PoisonError::into_inner);
        let at = pool.free.pop().map_or(pool.unused, |Reverse(at)| at);
        pool.unused = pool.unused.max(at + 1);
        Number { numbers: self.clone(), core, at }
    }
}

impl Number {
    /// What lists show; above 0, which some read as nothing.
    pub(crate) fn value(&self) -> i32 {
        let value = self.at as usize * self.numbers.0.len() + self.core + 1;
        i32::try_from(value).unwrap_or(i32::MAX)
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        let mut pool = self.numbers.0[self.core].lock().unwrap_or_else(PoisonError::into_inner);
        pool.free.push(Reverse(self.at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_over_cores_and_used_again_once_free() {
        let numbers = Numbers::new(3);
        let values = |dealt: &[Number]| dealt.iter().map(Number::value).collect::<Vec<_>>();
        let mut dealt: Vec<Number> = [0, 1, 2, 0, 0, 2].map(|core| numbers.deal(core)).into();
        assert_eq!(values(&dealt), [1, 2, 3, 4, 7, 6]);
        // Wherever they have moved meanwhile.
        drop(dealt.drain(3..5));
        assert_eq!(values(&[numbers.deal(1), numbers.deal(0), numbers.deal(0)]), [5, 4, 7]);
        let again: Vec<Number> = [0, 0, 0].map(|core| numbers.deal(core)).into();
        assert_eq!(values(&again), [4, 7, 10]);
    }
}
