//! The workers' half of the model: abilities, grabbing, sleeping, results, and jobs that lose their
//! worker.
//!
//! Which sleeper is woken and which function's turn it is are the server's choices; both are read
//! from what came and held against the promises. Invariant: no job is given to two workers.

use super::{Ability, Checked, Job, Model, Nap, Place, State, c_string, decimal, packet};
use crate::check::difference;
use crate::conn::{Item, readable};
use crate::operations::Bytes;

impl Model {
    pub(super) fn can_do(&mut self, place: Place, function: &[u8]) {
        let record = self.functions.entry(function.to_vec()).or_default();
        let queued = record.queued();
        let since = self.clock;
        let peer = self.peer(place);
        if peer.abilities.contains_key(function) {
            return;
        }
        peer.abilities.insert(function.to_vec(), Ability { since, served: [0; 3] });
        if peer.nap == Nap::Asleep {
            self.wakes_due += queued;
        }
    }

    pub(super) fn cant_do(&mut self, place: Place, function: &[u8]) {
        let gearmand = self.rules.gearmand;
        let peer = self.peer(place);
        if peer.abilities.remove(function).is_none() {
            return;
        }
        // What it was woken for, only the server knows; another may be woken in its place.
        let woken = peer.nap == Nap::Woken;
        if peer.abilities.is_empty() && woken && !gearmand {
            peer.nap = Nap::Awake;
        }
        self.wakes_due += usize::from(woken);
        self.lose_jobs(place, |job| job.function == function);
    }

    pub(super) fn reset(&mut self, place: Place) {
        let gearmand = self.rules.gearmand;
        let peer = self.peer(place);
        let woken = peer.nap == Nap::Woken;
        if woken && !gearmand {
            peer.nap = Nap::Awake;
        }
        peer.abilities.clear();
        self.wakes_due += usize::from(woken);
        self.lose_jobs(place, |_| true);
    }

    /// A worker's jobs go back to the heads of their queues, in the order in which it took them.
    fn lose_jobs(&mut self, place: Place, which: impl Fn(&Job) -> bool) {
        let mut lost: Vec<(u64, Bytes)> = Vec::new();
        for (handle, job) in self.jobs.iter().filter(|(_, job)| which(job)) {
            if let State::Running { worker, since } = job.state
                && worker == place
            {
                lost.push((since, handle.clone()));
            }
        }
        lost.sort();
        let group = self.clock;
        for (_, handle) in lost.iter().rev() {
            let attempts_max = self.rules.attempts_max;
            let job = self.job(handle);
            job.attempts += 1;
            job.progress = (0, 0);
            if !job.is_wanted() {
                self.remove(handle);
            } else if attempts_max.is_some_and(|max| job.attempts >= max.max(1)) {
                self.fail(handle, group);
                self.remove(handle);
            } else {
                // gearmand has them at the tail.
                self.enqueue(handle, !self.rules.gearmand);
            }
        }
    }

    /// Functions of a worker with such jobs.
    fn choices(&self, place: Place, priority: usize) -> Vec<&Bytes> {
        let names = self.peers[&place].abilities.keys();
        names.filter(|name| !self.functions[*name].queues[priority].jobs.is_empty()).collect()
    }

    pub(super) fn grab(&mut self, place: Place, name: &'static str) -> Checked<()> {
        self.answer_wake(place);
        let Some(priority) = (0..3).find(|&at| !self.choices(place, at).is_empty()) else {
            return self.expect_packet("NO_JOB", &[]);
        };
        let Some(reply) = self.replies.pop_front() else {
            return Err(format!("no answer to {name}"));
        };
        let Item::Packet(_, body) = &reply else { return Err(format!("{name} got {reply:?}")) };
        let handle = c_string(body).to_vec();
        let Some(job) = self.jobs.get(&handle) else {
            let names: Vec<String> =
                self.choices(place, priority).iter().map(|name| readable(name)).collect();
            let names = names.join(", ");
            return Err(format!("{name} got {reply:?}; jobs of priority {priority}: {names}"));
        };
        let right = assignment(name, &handle, job);
        if reply != right {
            return Err(difference(&right, &reply));
        }
        if job.state != State::Queued {
            return Err(format!("{} isn't to be had: {:?}", readable(&handle), job.state));
        }
        // gearmand looks at priorities within a function only.
        let of_function = |name: &&&Bytes| !self.rules.gearmand || ***name == job.function;
        for urgent in 0..job.priority {
            if let Some(name) = self.choices(place, urgent).iter().find(of_function) {
                let name = readable(name);
                return Err(format!("{reply:?}, while {name:?} has jobs of priority {urgent}"));
            }
        }
        let priority = job.priority;
        if !self.choices(place, priority).contains(&&job.function) {
            return Err(format!("{reply:?}, and c{place} can't do that"));
        }
        let first = &self.functions[&job.function].queues[priority].jobs[0];
        if *first != handle {
            return Err(format!("{} overtook {}", readable(&handle), readable(first)));
        }
        self.check_turn(place, &job.function, priority)?;
        self.take_from_queue(place, &handle);
        Ok(())
    }

    /// No function is passed over that has waited since this one's last turn. Between cores, each
    /// has turns of its own, and which function is whose can't be seen.
    fn check_turn(&self, place: Place, function: &[u8], priority: usize) -> Checked<()> {
        let abilities = &self.peers[&place].abilities;
        let last_turn = abilities[function].served[priority];
        if last_turn == 0 || self.rules.cores > 1 || self.rules.gearmand {
            return Ok(());
        }
        for other in self.choices(place, priority).into_iter().filter(|&name| name != function) {
            let ability = &abilities[other];
            let since = self.functions[other].queues[priority].since.max(ability.since);
            if since <= last_turn && ability.served[priority] <= last_turn {
                let (one, other) = (readable(function), readable(other));
                return Err(format!("{one:?} had its turn twice while {other:?} waited"));
            }
        }
        Ok(())
    }

    fn take_from_queue(&mut self, place: Place, handle: &[u8]) {
        let clock = self.clock;
        let job = self.job(handle);
        job.state = State::Running { worker: place, since: clock };
        let (function, priority) = (job.function.clone(), job.priority);
        let record = self.functions.get_mut(&function).expect("a job has a function");
        record.queues[priority].jobs.pop_front();
        let ability = self.peer(place).abilities.get_mut(&function).expect("an ability");
        ability.served[priority] = clock;
    }

    /// A worker acts: what it was woken for may be another's now.
    fn answer_wake(&mut self, place: Place) {
        let nap = std::mem::take(&mut self.peer(place).nap);
        self.wakes_due += usize::from(nap == Nap::Woken);
    }

    pub(super) fn pre_sleep(&mut self, place: Place) {
        let woken = self.peers[&place].nap == Nap::Woken;
        self.answer_wake(place);
        let gearmand = self.rules.gearmand;
        let peer = self.peer(place);
        // gearmand sends no second NOOP before a grab.
        peer.nap = if gearmand && woken { Nap::Woken } else { Nap::Asleep };
        peer.may_be_woken = true;
        self.wakes_due += 1;
    }

    /// NOOPs that came for a connection in this step.
    pub(super) fn see_noops(&mut self, place: Place, noops: usize) -> Checked<()> {
        if noops == 0 {
            return Ok(());
        }
        let exact = self.rules.cores == 1 && !self.rules.gearmand;
        let Some(peer) = self.peers.get(&place) else { return Ok(()) };
        if !peer.may_be_woken || (noops > 1 && exact) {
            return Err(format!("c{place} didn't sleep and got {noops} NOOP"));
        }
        if exact {
            if self.wakes_due == 0 {
                return Err(format!("c{place} got a NOOP, and nothing happened that wakes it"));
            }
            self.wakes_due -= 1;
            let has_job = peer.abilities.keys().any(|name| {
                self.enqueued.contains(name)
                    || self.functions.get(name).is_some_and(|function| function.queued() > 0)
            });
            if !has_job {
                return Err(format!("c{place} got a NOOP without a job that it can run"));
            }
        }
        let peer = self.peer(place);
        peer.may_be_woken = false;
        if peer.nap == Nap::Asleep {
            peer.nap = Nap::Woken;
        }
        Ok(())
    }

    /// A runnable job beside a sleeper that can run it and that nothing was said to, if there are
    /// fewer woken workers than jobs.
    pub(crate) fn job_beside_a_sleeper(&self) -> Option<String> {
        for (name, function) in self.functions.iter().filter(|(_, function)| function.queued() > 0)
        {
            let able = || self.peers.iter().filter(|(_, peer)| peer.abilities.contains_key(name));
            let Some((sleeper, _)) = able().find(|(_, peer)| peer.nap == Nap::Asleep) else {
                continue;
            };
            let woken = able().filter(|(_, peer)| peer.nap == Nap::Woken).count();
            let wakes_all = self.rules.wakeup == Some(0) && self.enqueued.contains(name);
            if woken < function.queued() || wakes_all {
                return Some(format!(
                    "{} jobs of {:?} lie beside c{sleeper}, which sleeps; {woken} others are woken",
                    function.queued(),
                    readable(name)
                ));
            }
        }
        None
    }

    pub(super) fn work(
        &mut self,
        place: Place,
        name: &'static str,
        handle: &[u8],
        rest: &[Bytes],
        body: &[u8],
    ) -> Checked<()> {
        if name == "WORK_FAIL" && handle.len() >= 64 {
            let text =
                "Error occurred due to GEARMAND_JOB_HANDLE_SIZE being too small from snprintf";
            return self.expect_error("ARGUMENT_TOO_LARGE", text);
        }
        let handle = c_string(handle).to_vec();
        let runs_here =
            |job: &Job| matches!(job.state, State::Running { worker, .. } if worker == place);
        if !self.jobs.get(&handle).is_some_and(runs_here) {
            let text = match name {
                "WORK_DATA" | "WORK_WARNING" => "Job does not exist on server",
                "WORK_EXCEPTION" => "An exception was received for a job that does not exist",
                _ => "Job given in work result not found",
            };
            return self.expect_error("JOB_NOT_FOUND", text);
        }
        let group = self.clock;
        for client in self.jobs[&handle].clients.clone() {
            if name == "WORK_EXCEPTION" && !self.peers[&client].exceptions {
                let nul: &[u8] = if self.rules.gearmand { b"\0" } else { b"" };
                self.expect_work(client, group, "WORK_FAIL", &[&handle, nul].concat());
            } else {
                self.expect_work(client, group, name, body);
            }
        }
        match name {
            "WORK_DATA" | "WORK_WARNING" => {}
            "WORK_STATUS" => {
                let value = |at: usize| u32::try_from(decimal(&rest[at])).unwrap_or(0);
                self.job(&handle).progress = (value(0), value(1));
            }
            _ => {
                self.remove(&handle);
            }
        }
        Ok(())
    }
}

/// The packet that a grab is answered with.
fn assignment(grab: &str, handle: &[u8], job: &Job) -> Item {
    let Job { function, unique, reducer, payload, .. } = job;
    match grab {
        "GRAB_JOB" => packet("JOB_ASSIGN", &[handle, function, payload]),
        "GRAB_JOB_ALL" if !reducer.is_empty() => {
            packet("JOB_ASSIGN_ALL", &[handle, function, unique, reducer, payload])
        }
        _ => packet("JOB_ASSIGN_UNIQ", &[handle, function, unique, payload]),
    }
}
