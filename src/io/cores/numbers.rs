//! Numbers of connections whose descriptors aren't the process's: what lists show in their place.
//!
//! Each core allocates the smallest of its own numbers that is free; no two cores have a number in
//! common. A connection keeps its number when it migrates, and returns it from there to the core
//! that allocated it. A core's numbers are behind a lock that is hardly ever contended.
//!
//! Invariant: no two `Number`s that exist at the same time have the same value.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, PoisonError};

/// The numbers of all cores. Behind a thin pointer, as each connection has one.
#[derive(Clone, Debug)]
pub(crate) struct Numbers(Arc<Box<[Mutex<Pool>]>>);

/// One core's numbers, counted from 0.
#[derive(Debug, Default)]
struct Pool {
    /// Returned ones.
    free: BinaryHeap<Reverse<u32>>,
    /// All from here on were never allocated.
    unused: u32,
}

/// A connection's number; it is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Number {
    numbers: Numbers,
    core: u32,
    at: u32,
}

impl Numbers {
    pub(crate) fn new(cores: usize) -> Self {
        Self(Arc::new((0..cores).map(|_| Mutex::default()).collect()))
    }

    /// Allocates a number of a core.
    pub(crate) fn allocate(&self, core: usize) -> Number {
        let mut pool = self.0[core].lock().unwrap_or_else(PoisonError::into_inner);
        let at = pool.free.pop().map_or(pool.unused, |Reverse(at)| at);
        pool.unused = pool.unused.max(at + 1);
        Number { numbers: self.clone(), core: u32::try_from(core).unwrap_or(u32::MAX), at }
    }
}

impl Number {
    /// What lists show. Above 0, as some readers take 0 for nothing.
    pub(crate) fn value(&self) -> i32 {
        let value = self.at as usize * self.numbers.0.len() + self.core as usize + 1;
        i32::try_from(value).unwrap_or(i32::MAX)
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        let mut pool =
            self.numbers.0[self.core as usize].lock().unwrap_or_else(PoisonError::into_inner);
        pool.free.push(Reverse(self.at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_over_cores_and_used_again_once_free() {
        let numbers = Numbers::new(3);
        let values = |allocated: &[Number]| allocated.iter().map(Number::value).collect::<Vec<_>>();
        let mut allocated: Vec<Number> =
            [0, 1, 2, 0, 0, 2].map(|core| numbers.allocate(core)).into();
        assert_eq!(values(&allocated), [1, 2, 3, 4, 7, 6]);
        // They return to their core from any other.
        drop(allocated.drain(3..5));
        assert_eq!(
            values(&[numbers.allocate(1), numbers.allocate(0), numbers.allocate(0)]),
            [5, 4, 7]
        );
        let again: Vec<Number> = [0, 0, 0].map(|core| numbers.allocate(core)).into();
        assert_eq!(values(&again), [4, 7, 10]);
    }
}
