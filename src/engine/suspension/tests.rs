//! Tests of suspensions: which jobs workers get meanwhile, and the order of all afterwards.

use std::collections::VecDeque;

use proptest::prelude::*;

use crate::engine::function::Durability;
use crate::engine::glob::Glob;
use crate::engine::policy::{Expiry, Policies, Policy};
use crate::engine::tests::{Fixture, NO_WORKER, conn_id, durable};
use crate::engine::{DrainGoal, Effect, FunctionId, Wakeup};
use crate::wire::{Command, Priority};

impl Fixture {
    /// A background job that is on disk.
    fn stored(&mut self, function: &str) -> u64 {
        let number = self.background(function);
        self.engine.stored(number, self.now);
        self.effects();
        number
    }

    fn memory_only(&mut self, function: &str) -> u64 {
        self.submit(8, Command::SubmitJob, &format!("{function}\0\0"))
    }

    fn suspend(&mut self, is_suspended: bool) {
        self.engine.set_suspended(is_suspended, self.now);
    }

    fn grab_all(&mut self, conn: u32) -> Vec<u64> {
        std::iter::from_fn(|| self.grab(conn)).collect()
    }
}

#[test]
fn stored_jobs_wait_for_the_end_of_a_suspension_and_others_pass_them() {
    let mut fixture = durable(Durability::Fsync);
    fixture.can_do(1, "f");
    let mut numbers = [0; 5];
    for (at, number) in numbers.iter_mut().enumerate() {
        *number = if at % 2 == 0 { fixture.stored("f") } else { fixture.memory_only("f") };
    }
    fixture.suspend(true);
    assert_eq!(fixture.grab_all(1), [numbers[1], numbers[3]]);
    fixture.engine.check_invariants();
    assert!(fixture.engine.status(numbers[0]).is_some(), "they are there");
    assert_eq!(fixture.engine.all_gauges().queued, [0, 3, 0]);
    assert!(fixture.engine.priorities().is_empty() && fixture.engine.ready(conn_id(1)).is_empty());
    let late = fixture.stored("f");
    assert_eq!(fixture.grab(1), None);
    fixture.suspend(false);
    assert_eq!(fixture.grab_all(1), [numbers[0], numbers[2], numbers[4], late]);
}

#[test]
fn a_stored_job_is_no_place_for_a_submission_during_a_suspension() {
    let mut fixture = durable(Durability::Fsync);
    let stored = fixture.submit(0, Command::SubmitJobBg, "f\0u\0");
    fixture.engine.stored(stored, fixture.now);
    let on_its_way = fixture.submit(0, Command::SubmitJobBg, "f\0v\0");
    fixture.suspend(true);
    // Another server may have run them: the answer of a commit may have been held up.
    let own = fixture.submit(0, Command::SubmitJobBg, "f\0u\0");
    assert_ne!(own, stored);
    let other = fixture.submit(0, Command::SubmitJobBg, "f\0v\0");
    assert_ne!(other, on_its_way);
    assert_eq!(fixture.submit(0, Command::SubmitJobBg, "f\0u\0"), own, "it waits for the store");
    fixture.engine.check_invariants();
    fixture.suspend(false);
    for number in [on_its_way, own, other] {
        fixture.engine.stored(number, fixture.now);
    }
    assert_eq!(fixture.submit(0, Command::SubmitJobBg, "f\0u\0"), own);
    fixture.can_do(1, "f");
    assert_eq!(fixture.grab_all(1), [stored, on_its_way, own, other], "all run");
}

#[test]
fn workers_are_woken_for_what_they_get_and_for_the_rest_at_the_end() {
    for wakeup in [Wakeup::Lease, Wakeup::Each(1), Wakeup::Each(0)] {
        let mut fixture = durable(Durability::Fsync);
        fixture.engine.settings.wakeup = wakeup;
        let first = fixture.stored("f");
        fixture.suspend(true);
        fixture.can_do(1, "f");
        assert_eq!(fixture.grab(1), None);
        fixture.sleep(1);
        assert_eq!(fixture.woken(), NO_WORKER, "{wakeup:?}: there is only what is held");
        let second = fixture.stored("f");
        assert_eq!(fixture.woken(), NO_WORKER, "{wakeup:?}: and more of it");
        let foreground = fixture.memory_only("f");
        assert_eq!(fixture.woken(), [1], "{wakeup:?}");
        assert_eq!(fixture.grab(1), Some(foreground));
        fixture.complete(1, foreground).unwrap();
        fixture.effects();
        fixture.sleep(1);
        assert_eq!(fixture.woken(), NO_WORKER);
        fixture.suspend(false);
        assert_eq!(fixture.woken(), [1], "{wakeup:?}");
        assert_eq!(fixture.grab_all(1), [first, second]);
    }
}

/// A grab passes over some hundred jobs at a time: a million of them must not stop the core.
#[test]
fn a_deep_queue_is_passed_over_in_portions() {
    let mut fixture = durable(Durability::Fsync);
    fixture.can_do(1, "f");
    let stored: Vec<u64> = (0..600).map(|_| fixture.background("f")).collect();
    stored.iter().for_each(|&number| fixture.engine.stored(number, fixture.now));
    let foreground = fixture.memory_only("f");
    fixture.suspend(true);
    let grabs: Vec<Option<u64>> = (0..3).map(|_| fixture.grab(1)).collect();
    assert_eq!(grabs, [None, None, Some(foreground)]);
    fixture.engine.check_invariants();
    fixture.suspend(false);
    assert_eq!(fixture.grab_all(1), stored);
}

#[test]
fn held_jobs_are_listed_cancelled_and_expire_as_others() {
    let mut fixture = durable(Durability::Fsync);
    let patterns = vec![Glob::new("f").unwrap()];
    let policy = Policy {
        patterns,
        expiry: Some(Expiry { after_ms: 500, dead: false }),
        ..Policy::default()
    };
    fixture.engine.use_policies(std::sync::Arc::new(Policies(vec![policy])), fixture.now);
    fixture.pass(0);
    fixture.can_do(1, "f");
    let numbers: Vec<u64> = (0..3).map(|_| fixture.stored("f")).collect();
    fixture.suspend(true);
    assert_eq!(fixture.grab(1), None);
    let last = fixture.memory_only("f");
    let listed = |fixture: &Fixture, from| {
        let ids = fixture.engine.queued_from(FunctionId::FIRST, Priority::Normal, from);
        ids.map(|id| fixture.engine.jobs[id].number).collect::<Vec<u64>>()
    };
    assert_eq!(listed(&fixture, None), [numbers[0], numbers[1], numbers[2], last]);
    assert_eq!(listed(&fixture, Some(numbers[1])), [numbers[1], numbers[2], last]);
    assert_eq!(listed(&fixture, Some(last)), [last]);
    let oldest = &fixture.engine.functions[FunctionId::FIRST];
    assert_eq!(fixture.engine.oldest_ms(oldest), Some(fixture.now.unix_ms));
    assert!(fixture.engine.cancel(numbers[1]));
    fixture.engine.check_invariants();
    assert_eq!(listed(&fixture, None), [numbers[0], numbers[2], last]);
    fixture.pass(600);
    fixture.engine.check_invariants();
    assert_eq!(listed(&fixture, None), NO_WORKER.map(u64::from));
}

#[test]
fn a_job_that_memory_alone_has_from_now_on_is_held_no_more() {
    let mut fixture = durable(Durability::Fsync);
    fixture.can_do(1, "f");
    let number = fixture.submit(8, Command::SubmitJob, "f\0key\0");
    assert!(fixture.submit_durably(9, "f\0key\0", 7).waits);
    fixture.suspend(true);
    assert_eq!(fixture.grab(1), None, "it may be stored already");
    fixture.sleep(1);
    fixture.effects();
    fixture.engine.not_stored(number, fixture.now);
    let effects = fixture.effects();
    assert!(effects.contains(&Effect::Noop { conn: conn_id(1) }), "{effects:?}");
    assert_eq!(fixture.grab(1), Some(number));
}

#[test]
fn no_submission_is_answered_before_its_job_is_on_disk() {
    let mut fixture = durable(Durability::Async);
    assert!(!fixture.submit_durably(0, "f\0\0", 1).waits);
    fixture.suspend(true);
    assert!(fixture.submit_durably(0, "f\0\0", 2).waits);
    fixture.suspend(false);
    assert!(!fixture.submit_durably(0, "f\0\0", 3).waits);
}

#[test]
fn lost_and_due_jobs_wait_for_the_end_at_their_places() {
    let mut fixture = durable(Durability::Fsync);
    fixture.can_do(1, "f");
    let numbers: Vec<u64> = (0..3).map(|_| fixture.stored("f")).collect();
    let delayed = fixture.submit(0, Command::SubmitJobEpoch, "f\0\x001700000001\0");
    fixture.engine.stored(delayed, fixture.now);
    assert_eq!(fixture.grab(1), Some(numbers[0]));
    fixture.suspend(true);
    fixture.can_do(2, "f");
    assert_eq!(fixture.grab(2), None);
    let foreground = fixture.memory_only("f");
    fixture.disconnect(1);
    fixture.pass(1500);
    fixture.engine.check_invariants();
    assert_eq!((fixture.grab(2), fixture.grab(2)), (Some(foreground), None));
    fixture.suspend(false);
    assert_eq!(fixture.grab_all(2), [&numbers[..], &[delayed]].concat());
}

#[test]
fn the_end_of_a_suspension_resumes_no_paused_function_and_the_other_way_round() {
    let mut fixture = durable(Durability::Fsync);
    fixture.can_do(1, "f");
    let number = fixture.stored("f");
    fixture.suspend(true);
    assert_eq!(fixture.grab(1), None);
    fixture.engine.pause(b"f", crate::engine::record::Pause::Unlimited, 1 << 20, fixture.now);
    fixture.sleep(1);
    fixture.suspend(false);
    let effects = fixture.effects();
    assert!(!effects.contains(&Effect::Noop { conn: conn_id(1) }), "{effects:?}");
    fixture.suspend(true);
    fixture.engine.resume(b"f", fixture.now);
    fixture.effects();
    assert_eq!(fixture.grab(1), None);
    fixture.sleep(1);
    fixture.effects();
    fixture.suspend(false);
    assert_eq!(fixture.woken(), [1]);
    assert_eq!(fixture.grab(1), Some(number));
}

#[test]
fn a_drain_sets_held_jobs_aside() {
    let mut fixture = durable(Durability::Fsync);
    fixture.can_do(1, "f");
    for _ in 0..3 {
        fixture.stored("f");
    }
    fixture.suspend(true);
    assert_eq!(fixture.grab(1), None);
    fixture.engine.drain(DrainGoal::JobsDone, fixture.now);
    (0..3).for_each(|_| fixture.engine.tick(fixture.now, 4096));
    fixture.engine.check_invariants();
    assert_eq!(fixture.engine.kept(), 3);
    fixture.suspend(false);
    assert_eq!((fixture.grab(1), fixture.engine.kept()), (None, 3));
}

proptest! {
    /// Against a queue from which a suspended server takes the first job that isn't stored.
    #[test]
    fn jobs_keep_their_order_over_suspensions(steps in prop::collection::vec(0u8..8, 0..120)) {
        let mut fixture = durable(Durability::Fsync);
        fixture.can_do(1, "f");
        let mut model: VecDeque<(u64, bool)> = VecDeque::new();
        let mut is_suspended = false;
        for step in steps {
            match step {
                0 | 1 => model.push_back((fixture.stored("f"), true)),
                2 => model.push_back((fixture.memory_only("f"), false)),
                3 | 4 => {
                    let at = model.iter().position(|&(_, is_stored)| !is_stored || !is_suspended);
                    let expected = at.and_then(|at| model.remove(at)).map(|(number, _)| number);
                    let found = fixture.grab(1);
                    prop_assert_eq!(found, expected);
                    if let Some(number) = found {
                        fixture.complete(1, number).unwrap();
                    }
                }
                5 => {
                    if let Some((number, _)) = model.remove(model.len() / 2) {
                        fixture.engine.cancel(number);
                    }
                }
                _ => {
                    is_suspended = !is_suspended;
                    fixture.engine.set_suspended(is_suspended, fixture.now);
                }
            }
            fixture.engine.check_invariants();
        }
        fixture.suspend(false);
        let left: Vec<u64> = model.into_iter().map(|(number, _)| number).collect();
        prop_assert_eq!(fixture.grab_all(1), left);
    }
}
