//! One look a second at the memory of all process groups, for limits and numbers.
//!
//! A walk through /proc costs the same for one group as for all, so instances enter their groups
//! here instead of looking themselves. Knows no jobs.
//!
//! Invariant: nothing is read while there is no limit and numbers aren't asked for.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use nix::unistd::Pid;
use tokio::sync::Notify;

use crate::counters;
use crate::process::memory::by_group;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// The groups that are looked at.
#[derive(Debug, Default)]
pub struct Memory {
    groups: RefCell<HashMap<Pid, Entry>>,
    /// Workers that had a group once: their sums fall to 0 when they have none.
    workers: RefCell<Vec<Rc<counters::Worker>>>,
    is_asked_for: Cell<bool>,
    /// Entered groups with a limit.
    limits: Cell<usize>,
    /// A limit was entered, or numbers are asked for.
    begun: Notify,
}

#[derive(Debug)]
struct Entry {
    worker: Rc<counters::Worker>,
    limit: Option<u64>,
    over: Rc<Over>,
}

#[derive(Debug, Default)]
struct Over {
    bytes: Cell<Option<u64>>,
    told: Notify,
}

impl Memory {
    /// Says whether sums are wanted for workers without a limit, too.
    pub fn ask(&self, for_numbers: bool) {
        self.is_asked_for.set(for_numbers);
        self.begun.notify_one();
    }

    /// Enters a group for as long as the returned value lives.
    pub fn enter(
        self: &Rc<Self>,
        group: Pid,
        limit: Option<u64>,
        worker: &Rc<counters::Worker>,
    ) -> Entered {
        let over = Rc::new(Over::default());
        let entry = Entry { worker: Rc::clone(worker), limit, over: Rc::clone(&over) };
        self.groups.borrow_mut().insert(group, entry);
        let mut workers = self.workers.borrow_mut();
        if !workers.iter().any(|known| Rc::ptr_eq(known, worker)) {
            workers.push(Rc::clone(worker));
        }
        if limit.is_some() {
            self.limits.set(self.limits.get() + 1);
            if self.limits.get() == 1 {
                self.begun.notify_one();
            }
        }
        Entered { memory: Rc::clone(self), group, limit, over }
    }

    /// Looks at all groups once a second, while there is anything to look for.
    pub async fn watch(&self) {
        loop {
            while self.limits.get() == 0 && !self.is_asked_for.get() {
                self.begun.notified().await;
            }
            tokio::time::sleep(INTERVAL).await;
            self.look(|| by_group(|group| self.groups.borrow().contains_key(&group)));
        }
    }

    fn look(&self, by_group: impl FnOnce() -> HashMap<Pid, u64>) {
        for worker in self.workers.borrow().iter() {
            worker.memory_bytes.set(0);
        }
        if self.groups.borrow().is_empty() {
            return;
        }
        let bytes_by_group = by_group();
        for (group, entry) in self.groups.borrow().iter() {
            let bytes = bytes_by_group.get(group).copied().unwrap_or(0);
            let sum = &entry.worker.memory_bytes;
            sum.set(sum.get().saturating_add(bytes));
            if entry.limit.is_some_and(|limit| bytes > limit) {
                entry.over.bytes.set(Some(bytes));
                entry.over.told.notify_one();
            }
        }
    }
}

/// A group that is looked at, until this is dropped.
#[derive(Debug)]
pub struct Entered {
    memory: Rc<Memory>,
    group: Pid,
    limit: Option<u64>,
    over: Rc<Over>,
}

impl Entered {
    /// Waits until a look finds the group above its limit; returns its bytes. May be dropped while
    /// it waits, and called again.
    pub async fn exceeded(&self) -> u64 {
        loop {
            if let Some(bytes) = self.over.bytes.get() {
                return bytes;
            }
            self.over.told.notified().await;
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut groups = self.memory.groups.borrow_mut();
        // The number may be another group's already.
        if groups.get(&self.group).is_some_and(|entry| Rc::ptr_eq(&entry.over, &self.over)) {
            groups.remove(&self.group);
        }
        if self.limit.is_some() {
            self.memory.limits.set(self.memory.limits.get() - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(number: i32) -> Pid {
        Pid::from_raw(number)
    }

    #[tokio::test]
    async fn a_look_sums_by_worker_and_tells_groups_above_their_limit() {
        let memory = Rc::new(Memory::default());
        let (one, other) = (Rc::default(), Rc::default());
        let small = memory.enter(group(7), Some(100), &one);
        let large = memory.enter(group(8), Some(100), &one);
        let free = memory.enter(group(9), None, &other);
        memory.look(|| HashMap::from([(group(7), 100), (group(8), 101), (group(9), 5000)]));
        assert_eq!((one.memory_bytes.get(), other.memory_bytes.get()), (201, 5000));
        assert_eq!(large.exceeded().await, 101);
        assert_eq!((small.over.bytes.get(), free.over.bytes.get()), (None, None));

        drop((small, large));
        memory.look(|| HashMap::from([(group(7), 100), (group(9), 5000)]));
        assert_eq!((one.memory_bytes.get(), other.memory_bytes.get()), (0, 5000));
        assert_eq!(memory.limits.get(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_read_without_a_limit_unless_numbers_are_asked_for() {
        let memory = Rc::new(Memory::default());
        let worker: Rc<counters::Worker> = Rc::default();
        let entered = memory.enter(group(std::process::id().cast_signed()), None, &worker);
        let time = tokio::time::Instant::now();
        // With the clock paused, a sleep of `watch` would end at once.
        let idle = tokio::time::timeout(Duration::from_secs(60), memory.watch());
        worker.memory_bytes.set(1);
        idle.await.expect_err("it runs for ever");
        assert_eq!((worker.memory_bytes.get(), time.elapsed().as_secs()), (1, 60));

        memory.ask(true);
        let looked = tokio::time::timeout(Duration::from_secs(2), memory.watch());
        looked.await.expect_err("it runs for ever");
        assert_ne!(worker.memory_bytes.get(), 1);
        drop(entered);
    }
}
