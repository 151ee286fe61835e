//! The world's store and its power: commits that come late or not at all, and cuts after which a
//! new server takes over what is on disk.
//!
//! Invariant: operations reach the store in the order in which the shard gave them out, and their
//! outcomes come back in that order.

use fastrand::Rng;
use ringgear::engine::Now;
use ringgear::engine::function::{Durabilities, Durability};
use ringgear::engine::record::Row;
use ringgear::shard::Intake;
use ringgear::wire::Command;

use super::{Seen, World, rules, settings};
use crate::mesh::Mesh;
use crate::model::handle;
use crate::peer;
use crate::store::Image;
use crate::wire::Request;

/// Restored jobs whose handles are asked for.
const ASKED_FOR: usize = 4;

impl World {
    /// Lets something happen about the store, or nothing.
    pub(super) fn store_step(&mut self) {
        match self.rng.u32(0..400) {
            0..80 => self.commit(),
            80..100 => self.fail(),
            100..200 => self.report(),
            200..205 => {
                let allowed = self.rng.bool();
                self.note(|_| format!("answers before the commit: {allowed}"));
                self.mesh.allow_async(allowed);
                self.model.allow_async(allowed);
            }
            205..209 => self.sync(),
            209 if self.rng.bool() => self.flood(),
            211 | 212 => self.cut_power(),
            _ => {}
        }
    }

    /// Part of what the store is to do.
    fn batch(&mut self) -> usize {
        let count = self.store.as_ref().map_or(0, |store| store.queue.len());
        if self.rng.bool() { count } else { self.rng.usize(0..=count) }
    }

    fn commit(&mut self) {
        let count = self.batch();
        self.note(|_| format!("{count} operations are on disk"));
        if let Some(store) = &mut self.store {
            store.commit(count);
        }
    }

    fn fail(&mut self) {
        let (count, kept) = (self.batch(), self.rng.u32(0..3) == 0);
        self.note(|_| format!("{count} operations fail, kept all the same: {kept}"));
        if let Some(store) = &mut self.store {
            store.fail(count, kept);
        }
    }

    /// The shard gets to know some outcomes.
    fn report(&mut self) {
        let known = self.store.as_ref().map_or(0, |store| store.outcomes.len());
        let count = if self.rng.bool() { known } else { self.rng.usize(0..=known) };
        self.report_some(count);
    }

    fn report_some(&mut self, count: usize) {
        let Some(store) = &mut self.store else { return };
        let outcomes: Vec<(u64, bool)> = store.outcomes.drain(..count).collect();
        if outcomes.is_empty() {
            return;
        }
        self.note(|_| format!("outcomes {outcomes:?}"));
        for &(number, kept) in &outcomes {
            self.mesh.stored(number, kept, self.now);
        }
        let (_, others) = self.collect(None);
        for (number, kept) in outcomes {
            self.model.outcome(number, kept);
        }
        self.settle(others);
        self.flush();
    }

    /// Everything gets on disk, and everybody is told.
    pub(super) fn sync(&mut self) {
        while let Some(store) = self.store.as_mut().filter(|store| !store.is_quiet()) {
            store.commit(store.queue.len());
            let known = store.outcomes.len();
            self.report_some(known);
        }
        let Some(store) = &self.store else { return };
        assert!(!self.model.is_storing(), "something waits for a store that is done");
        self.model.check_image(&store.image);
    }

    /// A client submits so many durable jobs that its requests have to wait for the replies.
    fn flood(&mut self) {
        if self.mesh.cores().count > 1 {
            // Whose requests go on in a call is known only if there is one call for each.
            return;
        }
        let Some(conn) = self.any_conn() else { return };
        let somebody_ends = self.conns.values().any(|peer| peer.ended);
        let is_busy = !self.conns[&conn].requests.is_empty() || self.model.peers[&conn].asleep;
        if !self.can_speak(conn) || somebody_ends || is_busy || self.flooding.is_some() {
            return;
        }
        self.flooding = Some(conn);
        let request = peer::equal_job(&mut self.rng);
        let count = self.rng.u32(1030..1500);
        self.note(|_| format!("{conn} says {request} and the like, {count} times"));
        for _ in 0..count {
            let request = match self.rng.u32(0..50) {
                0 => peer::equal_job(&mut self.rng),
                1 => Request::packet(Command::EchoReq, &[], b"echo".to_vec()),
                _ => request.clone(),
            };
            self.queue_quietly(conn, request);
        }
        self.deliver(conn, usize::MAX);
        if self.conns.contains_key(&conn) && self.mesh.intake(conn) == Intake::Pause {
            self.model.tally.count("paused for replies");
        }
    }

    /// The power is cut, and a new server takes over what is on disk.
    fn cut_power(&mut self) {
        let (count, arrives) = (self.batch(), self.rng.bool());
        self.note(|_| format!("power cut; {count} operations arrive: {arrives}"));
        let Some(store) = &mut self.store else { return };
        let lost = store.cut_power(count, arrives);
        let image = store.image.clone();
        self.model.tally.count("power cut");
        self.model.check_cut(&image, &lost);
        self.conns.clear();
        self.closing.clear();
        self.flooding = None;
        self.seen = Seen::default();
        self.now = Now {
            mono_ms: self.rng.u64(0..1 << 40),
            unix_ms: self.now.unix_ms + self.rng.u64(0..100_000),
        };
        self.settings = settings(&mut self.rng, true);
        self.settings.engine.durabilities = durabilities(&mut self.rng);
        // Numbers start above those of earlier runs. If that fails, at least no job that is there
        // loses its handle.
        if self.rng.u32(0..5) > 0 {
            let gap = self.rng.u64(0..1000);
            self.settings.engine.first_sequence = self.model.next_sequence() + gap;
        }
        self.note(|world| format!("{:?}", world.settings));
        // One core stays one, so that its runs are what they are; several may be fewer or more.
        let (cores, seed) = match self.mesh.cores().count {
            1 => (1, 0),
            _ => (self.rng.usize(1..4), self.rng.u64(..)),
        };
        self.mesh = Mesh::new(&self.settings, cores, false, seed, self.now);
        for row in image.jobs.values() {
            assert!(self.mesh.restore(row, self.now), "job {} comes back", row.number);
        }
        if let Some(row) = image.jobs.values().next() {
            assert!(!self.mesh.restore(row, self.now), "a handle is given to one job");
        }
        for row in image.dead_in_order() {
            assert!(self.mesh.restore_dead(row, self.now), "dead {} comes back", row.row.number);
        }
        for (name, &pause) in &image.pauses {
            self.mesh.restore_pause(name, pause, self.now);
        }
        let first_sequence = self.settings.engine.first_sequence;
        let rules = rules(&self.settings, self.mesh.cores());
        self.restored_bytes = self.mesh.job_bytes();
        self.model.restart(rules, first_sequence, self.now, &image);
        self.collect(None);
        self.model.end();
        self.check_restored(image);
    }

    /// What came back is what was there.
    fn check_restored(&mut self, image: Image) {
        self.mesh.check_invariants();
        // Beyond the bounds the oldest letters don't come back.
        for row in self.mesh.dead_rows() {
            assert_eq!(image.dead.get(&row.row.number), Some(&row), "a letter as it was");
        }
        let rows: Vec<Row> = image.jobs.into_values().collect();
        assert_eq!(self.mesh.rows(), rows);
        let Some(conn) = self.connect_one() else { return };
        for row in rows.iter().rev().take(ASKED_FOR) {
            let handle = handle(row.number);
            self.say(conn, Request::packet(Command::GetStatus, &[&handle], vec![]));
        }
    }
}

/// Most functions keep their jobs, in one way or the other.
pub(super) fn durabilities(rng: &mut Rng) -> Durabilities {
    let mut durability = || match rng.u32(0..7) {
        0 => Durability::None,
        1 | 2 => Durability::Async,
        _ => Durability::Fsync,
    };
    let default = durability();
    let names = peer::FUNCTIONS.iter().step_by(2);
    let named = names.map(|name| (name.as_bytes().to_vec(), durability())).collect();
    Durabilities { default, named }
}
