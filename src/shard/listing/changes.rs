//! Changes of many jobs or functions that text commands ask for: this core's next portion of one
//! in, what was changed and where it goes on out.
//!
//! Knows neither the words nor the other cores.
//!
//! Invariant: a portion changes at most `CHANGES_MAX` and looks at `RECORDS_MAX`, and changes
//! nothing of a function that the peer may not administer.

use std::sync::Arc;

use crate::engine::glob::Glob;
use crate::engine::record::Pause;
use crate::engine::{FunctionId, JobId, Now};
use crate::protocol::access::{Permissions, Right, Scope};
use crate::protocol::admin::change::{Change, DeadAt, Tally, Waiting};
use crate::shard::Shard;
use crate::shard::operator::{CHANGES_MAX, DeadChange, DeadFilter, RECORDS_MAX};

/// Functions that a peer names and may administer.
struct Allowed<'a> {
    names: Option<&'a Glob>,
    access: Option<&'a Permissions>,
    /// The function that was asked about last, and whether it is one of them.
    latest: Option<(FunctionId, bool)>,
}

impl<'a> Allowed<'a> {
    fn new(names: Option<&'a Glob>, access: Option<&'a Arc<Permissions>>) -> Self {
        Self { names, access: access.map(|it| &**it), latest: None }
    }

    fn has(&mut self, id: FunctionId, name: &[u8]) -> bool {
        let known = self.latest.filter(|&(latest, _)| latest == id);
        let (_, is_allowed) = known.unwrap_or_else(|| {
            let may = |it: &Permissions| it.may(Right::Admin, Scope::Function(name)).is_allowed;
            let is_named = self.names.is_none_or(|names| names.matches(name));
            (id, is_named && self.access.is_none_or(may))
        });
        self.latest = Some((id, is_allowed));
        is_allowed
    }
}

impl Shard {
    pub(super) fn change_some(
        &mut self,
        change: Change,
        names: Option<&Glob>,
        access: Option<&Arc<Permissions>>,
        now: Now,
    ) -> (Tally, Option<Change>) {
        let allowed = Allowed::new(names, access);
        let filter = || DeadFilter {
            function: names.cloned(),
            access: access.cloned(),
            ..DeadFilter::default()
        };
        match change {
            Change::Requeue(at) => of_dead(self.requeue_some(&filter(), at, now), Change::Requeue),
            Change::RemoveDead(at) => {
                of_dead(self.remove_some_dead(&filter(), at, now), Change::RemoveDead)
            }
            Change::Purge(waiting, from) => {
                let (done, next) = self.purge_some(waiting, from, allowed, now);
                (done, next.map(|from| Change::Purge(waiting, from)))
            }
            Change::Pause(pause, from) => {
                let (done, next) = self.pause_some(Some(pause), from, allowed, now);
                (done, next.map(|from| Change::Pause(pause, from)))
            }
            Change::Resume(from) => {
                let (done, next) = self.pause_some(None, from, allowed, now);
                (done, next.map(Change::Resume))
            }
        }
    }

    /// Ends the next jobs that wait, in the order of their records.
    fn purge_some(
        &mut self,
        waiting: Waiting,
        from: JobId,
        mut allowed: Allowed<'_>,
        now: Now,
    ) -> (Tally, Option<JobId>) {
        let (mut found, mut next) = (Vec::new(), None);
        for (looked_at, (id, job)) in self.engine.jobs().iter_from(from).enumerate() {
            if found.len() == CHANGES_MAX || looked_at == RECORDS_MAX {
                next = Some(id);
                break;
            }
            if waiting.includes(job.state, job.attempts)
                && allowed.has(job.function, &self.engine.function_of(job).name)
            {
                found.push(id);
            }
        }
        let done = found.len() as u64;
        found.into_iter().for_each(|id| self.engine.purge(id));
        self.deliver(None, now);
        (Tally { done, skipped: 0 }, next)
    }

    /// Pauses the next functions, or ends their pauses.
    fn pause_some(
        &mut self,
        pause: Option<Pause>,
        from: FunctionId,
        mut allowed: Allowed<'_>,
        now: Now,
    ) -> (Tally, Option<FunctionId>) {
        let (mut found, mut next) = (Vec::new(), None);
        for (looked_at, (id, function)) in self.engine.functions().iter_from(from).enumerate() {
            if found.len() == CHANGES_MAX || looked_at == RECORDS_MAX {
                next = Some(id);
                break;
            }
            if allowed.has(id, &function.name) {
                found.push(function.name.clone());
            }
        }
        for name in &found {
            match pause {
                // They are there, which takes no memory.
                Some(pause) => _ = self.engine.pause(name, pause, usize::MAX, now),
                None => self.engine.resume(name, now),
            }
        }
        self.deliver(None, now);
        (Tally { done: found.len() as u64, skipped: 0 }, next)
    }
}

fn of_dead(change: DeadChange, to: fn(DeadAt) -> Change) -> (Tally, Option<Change>) {
    let DeadChange { done, skipped, next } = change;
    (Tally { done: done as u64, skipped: skipped as u64 }, next.map(to))
}
