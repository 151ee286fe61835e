//! The end of a world: all jobs are done, all peers leave, and nothing is left behind.
//!
//! Knows what a worker has to say; everything else is `World`'s. Invariant: what is left when all
//! jobs are done is a fault.

use ringgear::engine::ConnId;
use ringgear::shard::Shard;
use ringgear::shard::operator::DeadFilter;
use ringgear::wire::Command as C;

use super::{CONNECTIONS_MAX, World};
use crate::wire::Request;

impl World {
    /// Brings everything to an end: all jobs are done, all peers leave, and nothing is left behind.
    pub(crate) fn drain(&mut self) {
        self.trace.step += 1;
        self.read_all();
        self.sync();
        for conn in self.conns.keys().copied().collect::<Vec<_>>() {
            // Each round brings a megabyte's replies at least.
            for _ in 0..20 {
                self.deliver(conn, usize::MAX);
                self.sync();
                self.read_all();
            }
            if let Some(peer) = self.conns.get(&conn) {
                assert!(
                    peer.requests.is_empty() || peer.ended,
                    "{conn} is never listened to again"
                );
            }
        }
        // Workers that have gone astray make room for one that does its duty.
        let conns: Vec<ConnId> = self.conns.keys().copied().collect();
        for conn in conns.into_iter().take(CONNECTIONS_MAX / 2) {
            if self.conns.contains_key(&conn) {
                self.disconnect(conn);
                self.flush();
            }
        }
        let Some(worker) = self.connect_one() else { panic!("no room for the last worker") };
        for name in self.model.functions.keys().cloned().collect::<Vec<_>>() {
            self.say(worker, Request::packet(C::CanDo, &[&name], vec![]));
        }
        for conn in self.conns.keys().copied().filter(|&conn| conn != worker).collect::<Vec<_>>() {
            self.say(conn, Request::plain(C::ResetAbilities));
        }
        for name in self.model.paused().cloned().collect::<Vec<_>>() {
            self.resume_one(&name);
        }
        let mut rounds = 0;
        while !self.model.jobs.is_empty() {
            rounds += 1;
            assert!(rounds < 1000, "jobs that nobody gets: {:?}", self.model.jobs);
            self.sync();
            self.work_all(worker);
            if let Some(at_ms) = self.model.deadline_ms() {
                self.advance_to(at_ms.max(self.now.mono_ms));
            }
        }
        for core in 0..self.mesh.cores().count {
            let numbers = self.model.letters_of(core, None);
            self.drop_letters(core, &numbers, DeadFilter::default());
        }
        self.check_empty();
    }

    fn work_all(&mut self, worker: ConnId) {
        loop {
            let running = self.running(worker);
            for handle in &running {
                self.say(worker, Request::packet(C::WorkComplete, &[handle], b"done".to_vec()));
            }
            self.say(worker, Request::plain(C::GrabJobAll));
            self.read_all();
            if self.running(worker).is_empty() {
                return;
            }
        }
    }

    fn check_empty(&mut self) {
        assert!(self.mesh.shards().iter().all(Shard::is_idle), "no job is left");
        assert_eq!(self.mesh.job_bytes(), 0);
        while let Some(conn) = self.any_conn() {
            self.disconnect(conn);
        }
        self.sync();
        if self.mesh.moved > 0 {
            self.model.tally.count("moved");
        }
        if self.mesh.made_room > 0 {
            self.model.tally.count("made room");
        }
        self.mesh.check_empty();
    }
}
