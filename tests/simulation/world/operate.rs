//! What operators do in the world: dead letters, early starts, purges, pauses, other policies.
//!
//! Each is one call, answered at once. Invariant: the answer is what the model says.

use std::sync::Arc;

use ringgear::engine::glob::Glob;
use ringgear::engine::job::State;
use ringgear::engine::record::Pause;
use ringgear::shard::operator::{
    DeadAt, DeadChange, DeadFilter, JobFilter, JobsAt, OperatorReply, OperatorRequest, RunOutcome,
};

use super::World;
use crate::mesh::Mesh;
use crate::model::Model;
use crate::{peer, policies};

impl World {
    /// Lets an operator do one thing.
    pub(super) fn operate(&mut self) {
        match self.rng.u32(0..16) {
            0..4 => self.requeue_dead(),
            4 => self.remove_dead(),
            5..8 => self.run_now(),
            8 => self.purge(),
            9..11 => self.pause_function(),
            11..15 => self.resume_function(),
            _ => self.reload(),
        }
    }

    fn any_function(&mut self) -> &'static [u8] {
        peer::FUNCTIONS[self.rng.usize(0..peer::FUNCTIONS.len())].as_bytes()
    }

    /// Which letters: of a function, or all of a core; and the filter that says so.
    fn any_letters(&mut self) -> (usize, Vec<u64>, DeadFilter) {
        let cores = self.mesh.cores();
        if self.rng.bool() {
            let core = self.rng.usize(0..cores.count);
            return (core, self.model.letters_of(core, None), DeadFilter::default());
        }
        let name = self.any_function();
        let core = cores.owner_of(name);
        let glob = Glob::new(std::str::from_utf8(name).unwrap()).unwrap();
        let filter = DeadFilter { function: Some(glob), ..DeadFilter::default() };
        (core, self.model.letters_of(core, Some(name)), filter)
    }

    fn requeue_dead(&mut self) {
        let (core, numbers, filter) = self.any_letters();
        self.note(|_| format!("an operator requeues {numbers:?}"));
        let request = OperatorRequest::Requeue { filter, at: DeadAt::START };
        self.ask(core, request, |model, reply| {
            let (done, skipped) = model.requeue_dead(&numbers);
            let expected = DeadChange { done, skipped, next: None };
            assert!(matches!(reply, OperatorReply::DeadChanged(it) if it == expected), "{reply:?}");
        });
        // They weren't asked whether there is room for them.
        self.restored_bytes = self.restored_bytes.max(self.mesh.job_bytes());
    }

    fn remove_dead(&mut self) {
        let (core, numbers, filter) = self.any_letters();
        self.drop_letters(core, &numbers, filter);
    }

    pub(super) fn drop_letters(&mut self, core: usize, numbers: &[u64], filter: DeadFilter) {
        self.note(|_| format!("an operator removes {numbers:?}"));
        let request = OperatorRequest::RemoveDead { filter, at: DeadAt::START };
        self.ask(core, request, |model, reply| {
            model.drop_dead(numbers);
            let expected = DeadChange { done: numbers.len(), skipped: 0, next: None };
            assert!(matches!(reply, OperatorReply::DeadChanged(it) if it == expected), "{reply:?}");
        });
    }

    fn run_now(&mut self) {
        let waiting: Vec<u64> = self.model.waiting().collect();
        let number = match waiting.len() {
            0 => self.model.numbers[self.rng.usize(0..self.model.numbers.len())],
            count => waiting[self.rng.usize(0..count)],
        };
        self.note(|_| format!("an operator has {number} run now"));
        let core = self.mesh.cores().owner_of_job(number);
        let request = OperatorRequest::RunNow { number, access: None };
        self.ask(core, request, |model, reply| {
            let expected = match model.run_now(number) {
                None => RunOutcome::Unknown,
                Some(true) => RunOutcome::Queued,
                Some(false) => RunOutcome::NotWaiting,
            };
            assert!(matches!(reply, OperatorReply::Run(it) if it == expected), "{reply:?}");
        });
    }

    fn purge(&mut self) {
        let (name, is_rerun) = (self.any_function(), self.rng.bool());
        self.note(|_| format!("an operator purges {}, {is_rerun}", name.escape_ascii()));
        let filter = JobFilter {
            function: Some(name.into()),
            state: Some(if is_rerun { State::Delayed } else { State::Queued }),
            is_rerun: is_rerun.then_some(true),
            access: None,
        };
        let at = JobsAt::start(&filter);
        let core = self.mesh.cores().owner_of(name);
        self.ask(core, OperatorRequest::Purge { filter, at }, |model, reply| {
            let OperatorReply::Purged(purged) = reply else { panic!("{reply:?}") };
            assert_eq!((purged.removed, purged.next), (model.purge(name, is_rerun), None));
        });
    }

    fn pause_function(&mut self) {
        let name = self.any_function();
        let pause = match self.rng.u32(0..3) {
            0 => Pause::Unlimited,
            _ => Pause::Until(self.now.unix_ms + self.rng.u64(0..5000)),
        };
        self.note(|_| format!("an operator pauses {}: {pause:?}", name.escape_ascii()));
        let core = self.mesh.cores().owner_of(name);
        let request = OperatorRequest::Pause { function: name.into(), pause };
        let registry_bytes = 10_000;
        self.ask(core, request, |model, reply| match reply {
            OperatorReply::Paused(true) => model.pause(name, pause),
            OperatorReply::Paused(false) => model.check_short(registry_bytes, "a pause"),
            reply => panic!("{reply:?}"),
        });
    }

    fn resume_function(&mut self) {
        let paused = self.model.paused().next().cloned();
        let name = paused.unwrap_or_else(|| self.any_function().to_vec());
        self.resume_one(&name);
    }

    pub(super) fn resume_one(&mut self, name: &[u8]) {
        self.note(|_| format!("an operator resumes {}", name.escape_ascii()));
        let core = self.mesh.cores().owner_of(name);
        let request = OperatorRequest::Resume { function: name.into() };
        self.ask(core, request, |model, reply| {
            let is_known = model.functions.contains_key(name);
            assert!(matches!(reply, OperatorReply::Resumed(it) if it == is_known), "{reply:?}");
            model.resume(name);
        });
    }

    /// The functions file has changed.
    fn reload(&mut self) {
        let policies = Arc::new(policies::any(&mut self.rng, self.store.is_some()));
        self.note(|_| format!("{policies:?} from now on"));
        self.settings.engine.policies = Arc::clone(&policies);
        let told = Arc::clone(&policies);
        self.change(
            |mesh, now| mesh.set_policies(&told, now),
            |model, ()| model.use_policies(policies),
        );
        // Times by which jobs expire are looked at anew.
        self.advance_to(self.now.mono_ms);
    }

    fn ask(
        &mut self,
        core: usize,
        request: OperatorRequest,
        follow: impl FnOnce(&mut Model, OperatorReply),
    ) {
        self.change(|mesh, now| mesh.ask(core, request, now), follow);
    }

    /// Calls the shards on behalf of no connection, and has the model follow.
    fn change<T>(
        &mut self,
        what: impl FnOnce(&mut Mesh, ringgear::engine::Now) -> T,
        follow: impl FnOnce(&mut Model, T),
    ) {
        let reply = what(&mut self.mesh, self.now);
        let (_, others) = self.collect(None);
        follow(&mut self.model, reply);
        self.settle(others);
        self.flush();
    }
}
