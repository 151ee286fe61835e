//! The workers' half of the model: grabbing, sleeping, abilities, and jobs that lose their worker.
//!
//! Which of several jobs a worker gets is the server's choice as far as order and turns leave it
//! one; the choice is read from what was sent. Invariant: nobody is given a job that isn't queued.

use std::collections::VecDeque;

use ringgear::engine::ConnId;
use ringgear::engine::reason::Reason;
use ringgear::wire::Command;

use super::{Ability, Job, Model, Place, handle, number};
use crate::wire::Packet;

impl Model {
    pub(super) fn grab(&mut self, conn: ConnId, command: Command) {
        self.answer_wake(conn);
        if (0..3).all(|priority| self.choices(conn, priority).next().is_none()) {
            return self.expect(conn, &Packet::of(Command::NoJob, &[], &[]));
        }
        let Some(packet) = self.next(conn) else {
            panic!("connection {conn} waits for its job");
        };
        let Packet::Binary { body, .. } = &packet else { panic!("{packet:?} for a grab") };
        let handle_end = body.iter().position(|&byte| byte == 0).unwrap_or(0);
        let number = number(&body[..handle_end]).unwrap_or_else(|| panic!("grabbed {packet:?}"));
        let job = self.jobs.get(&number).unwrap_or_else(|| panic!("{number} is no job"));
        assert_eq!(job.place, Place::Queued, "job {number} isn't to be had");
        for priority in 0..job.priority {
            let urgent = self.choices(conn, priority).next();
            assert_eq!(urgent, None, "more urgent jobs of {priority} wait");
        }
        let names: Vec<Vec<u8>> = self.choices(conn, job.priority).cloned().collect();
        assert!(names.contains(&job.function), "connection {conn} can't run job {number}");
        assert_eq!(packet, assignment(command, number, job), "the job as it was submitted");
        self.check_turn(conn, number, &names);
        self.take_from_queue(conn, number);
    }

    /// Functions with such jobs that a worker can run.
    fn choices(&self, conn: ConnId, priority: usize) -> impl Iterator<Item = &Vec<u8>> {
        let names = self.peers[&conn].abilities.keys();
        names.filter(move |&name| {
            let function = &self.functions[name];
            function.pause.is_none() && !function.queues[priority].jobs.is_empty()
        })
    }

    /// FIFO inside a function, and no function is passed over that has waited since this one's last
    /// turn.
    fn check_turn(&self, conn: ConnId, number: u64, choices: &[Vec<u8>]) {
        let job = &self.jobs[&number];
        let queue = &self.functions[&job.function].queues[job.priority].jobs;
        let (first, group) = queue[0];
        let equal = queue.iter().take_while(|&&(_, other)| other == group);
        assert!(
            equal.clone().any(|&(other, _)| other == number),
            "job {number} overtook job {first}"
        );
        let peer = &self.peers[&conn];
        let last_turn = peer.abilities[&job.function].served[job.priority];
        // Between cores, turns are the home's; each owner has its own.
        let owner = |name: &Vec<u8>| self.rules.cores.owner_of(name);
        let others = choices.iter().filter(|&name| {
            *name != job.function && last_turn > 0 && owner(name) == owner(&job.function)
        });
        for other in others {
            let ability = &peer.abilities[other];
            let since = self.functions[other].queues[job.priority].since.max(ability.since);
            assert!(
                since > last_turn || ability.served[job.priority] > last_turn,
                "{} had its turn twice while {} waited",
                job.function.escape_ascii(),
                other.escape_ascii()
            );
        }
    }

    fn take_from_queue(&mut self, conn: ConnId, number: u64) {
        self.leave_queue(number);
        let deadline_ms = self.timeout_at(conn, &self.jobs[&number].function);
        let job = self.jobs.get_mut(&number).unwrap();
        let ability = self.peers.get_mut(&conn).unwrap().abilities.get_mut(&job.function).unwrap();
        ability.served[job.priority] = self.clock;
        job.place = Place::Running { conn, deadline_ms, grabbed: self.clock };
        job.late = None;
        self.tally.count("grabbed");
    }

    /// The worker has come of itself or because it was woken; its lease may be another's now.
    fn answer_wake(&mut self, conn: ConnId) {
        let peer = self.peers.get_mut(&conn).unwrap();
        peer.asleep = false;
        self.wakes_due += u64::from(peer.woken_ms.take().is_some());
    }

    pub(super) fn pre_sleep(&mut self, conn: ConnId) {
        self.answer_wake(conn);
        let peer = &self.peers[&conn];
        let has_job = peer.abilities.keys().any(|name| self.functions[name].ready() > 0);
        if has_job {
            self.tally.count("no sleep");
            let packet = self.output.packets.get_mut(&conn).and_then(VecDeque::pop_front);
            let woken = packet.is_some_and(|packet| packet.is(Command::Noop));
            if !woken && !self.output.slow.contains(&conn) {
                // Others were woken for the jobs, which `check_sleepers` sees to; with more cores,
                // the owner may also have taken it for asleep all along.
                self.peer(conn).asleep = true;
                return;
            }
            self.peer(conn).woken_ms = Some(self.now.mono_ms);
        } else {
            self.tally.count("slept");
            self.peer(conn).asleep = true;
            // Jobs may be gone of which the home has been told.
            self.wakes_due += u64::from(self.rules.cores.count > 1);
        }
    }

    pub(super) fn can_do(&mut self, conn: ConnId, function: &[u8], timeout_ms: u64) {
        self.function(function);
        let since = self.clock;
        let peer = self.peers.get_mut(&conn).unwrap();
        if let Some(ability) = peer.abilities.get_mut(function) {
            ability.timeout_ms = timeout_ms;
            return;
        }
        peer.abilities.insert(function.to_vec(), Ability { timeout_ms, since, served: [0; 3] });
        peer.order.push(function.to_vec());
        self.wakes_due += u64::from(peer.asleep);
    }

    pub(super) fn cant_do(&mut self, conn: ConnId, function: &[u8]) {
        let peer = self.peers.get_mut(&conn).unwrap();
        if peer.abilities.remove(function).is_none() {
            return;
        }
        peer.order.retain(|name| name != function);
        // Whether its lease was for this very function only the server knows; nobody asks for it.
        self.wakes_due += u64::from(peer.woken_ms.is_some());
        if peer.abilities.is_empty() {
            peer.woken_ms = None;
        }
        self.lose_jobs(conn, |job| job.function == function);
    }

    pub(super) fn reset(&mut self, conn: ConnId) {
        let peer = self.peers.get_mut(&conn).unwrap();
        self.wakes_due += u64::from(peer.woken_ms.take().is_some());
        peer.abilities.clear();
        peer.order.clear();
        self.lose_jobs(conn, |_| true);
    }

    /// A worker's jobs go back to the heads of their queues, in the order in which it took them.
    fn lose_jobs(&mut self, conn: ConnId, which: impl Fn(&Job) -> bool) {
        let late = |job: &&mut Job| job.late == Some(conn) && which(job);
        self.jobs.values_mut().filter(late).for_each(|job| job.late = None);
        let mut lost: Vec<(u64, u64)> = Vec::new();
        for (&number, job) in self.jobs.iter().filter(|(_, job)| which(job)) {
            if let Place::Running { conn: worker, grabbed, .. } = job.place
                && worker == conn
            {
                lost.push((grabbed, number));
            }
        }
        lost.sort_unstable();
        // The last one taken goes first, so that the first one taken gets before it.
        for &(_, number) in lost.iter().rev() {
            self.clock += 1;
            self.lose_worker(number, conn, Reason::Lost, self.clock);
        }
    }
}

/// The packet that a grab is answered with.
fn assignment(grab: Command, number: u64, job: &Job) -> Packet {
    let handle = handle(number);
    let (function, unique) = (&job.function, &job.unique);
    let all = [&handle, function, unique, &job.reducer].map(Vec::as_slice);
    let (command, parts) = match grab {
        Command::GrabJob => (Command::JobAssign, &all[..2]),
        Command::GrabJobAll if !job.reducer.is_empty() => (Command::JobAssignAll, &all[..]),
        _ => (Command::JobAssignUniq, &all[..3]),
    };
    Packet::of(command, parts, &job.payload)
}
