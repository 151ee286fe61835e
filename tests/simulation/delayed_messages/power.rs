//! The store of shards with slow letters, and crashes after which other shards take over.
//!
//! Invariant: what is on disk without being anybody's job is so only until the store is quiet.

use ringgear::engine::function::Durability;

use super::{DelayedMessages, Job};
use crate::mesh::Mesh;

impl DelayedMessages {
    pub(super) fn store_step(&mut self) {
        let queue = self.store.queue.len();
        let count = self.rng.usize(0..=queue);
        match self.rng.u32(0..10) {
            0..4 => self.store.commit(count),
            4 => {
                let kept = self.rng.bool();
                self.store.fail(count, kept);
            }
            _ => {
                let known = self.store.outcomes.len();
                let count = self.rng.usize(0..=known);
                self.report(count);
            }
        }
    }

    fn report(&mut self, count: usize) {
        for (number, kept) in self.store.outcomes.drain(..count).collect::<Vec<_>>() {
            self.mesh.stored(number, kept, self.now);
            self.pump();
        }
    }

    /// Everything gets on disk, and the shards are told.
    pub(super) fn sync(&mut self) {
        while !self.store.is_quiet() {
            self.store.commit(self.store.queue.len());
            self.report(self.store.outcomes.len());
        }
    }

    /// Nothing is on its way: what is on disk is what there is.
    pub(super) fn check_image(&self) {
        let rows = self.mesh.rows();
        for row in self.store.image.jobs.values() {
            let job = rows.iter().find(|job| job.number == row.number);
            assert_eq!(job, Some(row), "on disk is a job that isn't there, or another");
        }
        let dead = self.mesh.dead_rows();
        for row in self.store.image.dead.values() {
            let letter = dead.iter().find(|letter| letter.row.number == row.row.number);
            assert_eq!(letter, Some(row), "on disk is a letter that isn't there, or another");
        }
        if self.durability != Durability::None {
            for (number, _) in self.jobs.iter().filter(|(_, job)| job.is_promised()) {
                assert!(self.store.image.has(*number), "job {number} isn't on disk");
            }
        }
    }

    /// The server dies; one with any number of cores takes over what is on disk.
    pub(super) fn crash(&mut self) {
        self.count("crashed");
        let (count, arrives) = (self.rng.usize(0..=self.store.queue.len()), self.rng.bool());
        self.store.cut_power(count, arrives);
        if self.durability == Durability::Fsync {
            for (number, _) in self.jobs.iter().filter(|(_, job)| job.is_promised()) {
                assert!(self.store.image.has(*number), "job {number} was promised");
            }
        }
        self.peers.clear();
        self.settings.engine.first_sequence += 100_000;
        self.settings.engine.dead = self.dead_bounds();
        let (cores, seed) = (self.rng.usize(1..5), self.rng.u64(..));
        let ring_max = self.mesh.ring_max();
        self.mesh = Mesh::new(&self.settings, cores, true, seed, self.now).with_rings(ring_max);
        self.jobs.clear();
        for (&number, row) in &self.store.image.jobs {
            assert!(self.mesh.restore(row, self.now), "job {number} comes back");
            let excused = self.may_vanish(&row.function);
            self.jobs.insert(number, Job { kept: true, excused, ..Job::default() });
        }
        for row in self.store.image.dead_in_order() {
            let number = row.row.number;
            assert!(self.mesh.restore_dead(row, self.now), "dead {number} comes back");
            let excused = self.may_vanish(&row.row.function);
            self.jobs.insert(number, Job { kept: true, excused, ..Job::default() });
        }
        for (name, &pause) in &self.store.image.pauses {
            self.mesh.restore_pause(name, pause, self.now);
        }
        assert_eq!(self.mesh.rows().len(), self.store.image.jobs.len());
        self.pump();
    }
}

impl Job {
    /// Only its end may take it away.
    fn is_promised(&self) -> bool {
        self.kept && !self.ended && !self.excused
    }
}
