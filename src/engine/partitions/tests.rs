//! Tests of partitions: what becomes of their jobs here when they come, go and come back.

use std::sync::Arc;

use crate::engine::function::Durability;
use crate::engine::glob::Glob;
use crate::engine::handle::SLOT_BITS;
use crate::engine::job::{Demand, Storage};
use crate::engine::policy::{Policies, Policy, Retries};
use crate::engine::reason::Reason;
use crate::engine::record::{DeadRow, Pause, Row};
use crate::engine::tests::{Fixture, conn_id, durable};
use crate::engine::{DrainGoal, Effect, Outcome};
use crate::wire::Command;

impl Fixture {
    fn stored_job(&mut self, body: &str) -> u64 {
        let number = self.submit(0, Command::SubmitJobBg, body);
        self.engine.stored(number, self.now);
        number
    }

    /// Effects that are for the store.
    fn operations(&mut self) -> Vec<Effect> {
        let is_for_store = |effect: &Effect| {
            !matches!(
                effect,
                Effect::Noop { .. }
                    | Effect::Fail { .. }
                    | Effect::Forward { .. }
                    | Effect::Accepted { .. }
                    | Effect::Refused { .. }
            )
        };
        self.effects().into_iter().filter(is_for_store).collect()
    }

    fn drop_all(&mut self) {
        self.engine.drop_partition(|_| true, self.now);
        assert_eq!(self.operations(), [], "another server has them");
    }
}

/// Rows of another server's jobs, the largest number first.
fn rows(bodies: &[&str]) -> Vec<Row> {
    let mut other = durable(Durability::Fsync);
    other.engine.set_sequences(1 << 28..2 << 28);
    let numbers: Vec<u64> = bodies.iter().map(|body| other.stored_job(body)).collect();
    numbers.into_iter().rev().map(|number| other.row(number)).collect()
}

#[test]
fn adopted_jobs_go_to_the_heads_of_their_queues_in_their_order() {
    let mut fixture = durable(Durability::Fsync);
    let own = fixture.stored_job("f\0\0");
    fixture.can_do(1, "g");
    fixture.sleep(1);
    fixture.effects();
    let rows = rows(&["f\0\0a", "g\0\0b", "f\0\0c", "f\0\0d"]);
    let delayed = Row { run_at_ms: fixture.now.unix_ms + 500, attempts: 1, ..rows[0].clone() };
    assert!(fixture.engine.adopt(&delayed, fixture.now));
    for row in &rows[1..] {
        assert!(fixture.engine.adopt(row, fixture.now));
        assert!(!fixture.engine.adopt(row, fixture.now), "once");
    }
    assert_eq!(fixture.woken(), [1], "no row is written again, and its sleeper is woken");
    assert_eq!(fixture.engine.totals().recovered, 4);
    fixture.can_do(2, "f");
    let grabs: Vec<Option<u64>> = (0..4).map(|_| fixture.grab(2)).collect();
    assert_eq!(grabs, [Some(rows[3].number), Some(rows[1].number), Some(own), None]);
    assert_eq!(fixture.grab(1), Some(rows[2].number));
    fixture.pass(500);
    assert_eq!(fixture.grab(2), Some(delayed.number));
    fixture.complete(2, rows[3].number).unwrap();
    assert_eq!(fixture.operations(), [Effect::Remove { number: rows[3].number }]);
}

#[test]
fn submissions_join_an_adopted_job_unless_there_is_another() {
    let mut fixture = durable(Durability::Fsync);
    let own = fixture.stored_job("f\0both\0");
    let rows = rows(&["f\0both\0", "f\0one\0"]);
    for row in &rows {
        assert!(fixture.engine.adopt(row, fixture.now));
    }
    assert_eq!(fixture.submit(3, Command::SubmitJob, "f\0one\0"), rows[0].number);
    assert_eq!(fixture.submit(3, Command::SubmitJob, "f\0both\0"), own);
    fixture.engine.check_invariants();
    assert_eq!(fixture.engine.jobs().len(), 3, "both stay");
}

#[test]
fn adopted_jobs_are_held_in_a_suspension_and_left_in_a_drain() {
    let rows = rows(&["f\0\0", "f\0\0"]);
    let mut fixture = durable(Durability::Fsync);
    fixture.can_do(1, "f");
    fixture.engine.set_suspended(true, fixture.now);
    rows.iter().for_each(|row| assert!(fixture.engine.adopt(row, fixture.now)));
    assert_eq!(fixture.grab(1), None);
    fixture.engine.set_suspended(false, fixture.now);
    assert_eq!(fixture.grab(1), Some(rows[1].number));
    let mut fixture = durable(Durability::Fsync);
    fixture.engine.drain(DrainGoal::JobsDone, fixture.now);
    rows.iter().for_each(|row| assert!(fixture.engine.adopt(row, fixture.now)));
    assert_eq!(fixture.engine.kept(), 2);
    fixture.engine.check_invariants();
}

#[test]
fn what_is_another_servers_leaves_memory_and_nothing_is_written() {
    let mut fixture = durable(Durability::Fsync);
    let rows = rows(&["f\0key\0"]);
    fixture.engine.adopt(&rows[0], fixture.now);
    let dead = dead_row(&rows[0], 7 << SLOT_BITS);
    assert!(fixture.engine.adopt_dead(&dead, fixture.now));
    let queued = fixture.stored_job("f\0\0");
    let delayed = fixture.submit(0, Command::SubmitJobEpoch, "f\0\x001700000100\0");
    fixture.engine.stored(delayed, fixture.now);
    fixture.can_do(1, "f");
    assert_eq!(fixture.grab(1), Some(rows[0].number));
    let awaited = fixture.background("f");
    let memory = fixture.submit(2, Command::SubmitJob, "f\0mine\0");
    fixture.effects();
    fixture.engine.drop_partition(|number| number == rows[0].number, fixture.now);
    assert_eq!(fixture.operations(), []);
    assert!(fixture.engine.status(queued).is_some(), "of another partition");
    fixture.drop_all();
    assert_eq!(fixture.engine.dead().len(), 0);
    let left = [queued, delayed].map(|number| fixture.engine.status(number));
    assert_eq!(left, [None, None]);
    for number in [awaited, memory] {
        assert!(fixture.engine.status(number).is_some());
    }
    assert_ne!(fixture.submit(3, Command::SubmitJob, "f\0key\0"), rows[0].number);
    assert_eq!(fixture.complete(1, rows[0].number), Ok(()), "its worker may end it");
    assert_eq!(fixture.effects(), [], "without effect");
    assert_eq!(fixture.engine.totals().handed_over, 3);
    assert_eq!(fixture.engine.unstored(), 3);
}

fn dead_row(row: &Row, number: u64) -> DeadRow {
    DeadRow {
        row: Row { number, ..row.clone() },
        reason: Reason::Fail,
        died_ms: 1_700_000_000_000,
        worker: bytes::Bytes::new(),
        message: bytes::Bytes::new(),
    }
}

#[test]
fn held_and_kept_jobs_leave_with_their_partition_too() {
    let mut fixture = durable(Durability::Fsync);
    fixture.can_do(1, "f");
    for _ in 0..3 {
        fixture.stored_job("f\0\0");
    }
    fixture.engine.set_suspended(true, fixture.now);
    assert_eq!(fixture.grab(1), None);
    fixture.effects();
    fixture.drop_all();
    assert!(fixture.engine.jobs().is_empty());
    fixture.engine.set_suspended(false, fixture.now);
    fixture.stored_job("f\0\0");
    fixture.engine.drain(DrainGoal::JobsDone, fixture.now);
    (0..3).for_each(|_| fixture.engine.tick(fixture.now, 4096));
    assert_eq!(fixture.engine.kept(), 1);
    fixture.effects();
    fixture.drop_all();
    assert!(fixture.engine.jobs().is_empty());
}

#[test]
fn clients_that_joined_a_job_keep_it_when_its_partition_is_lost() {
    for is_running in [false, true] {
        for is_suspended in [false, true] {
            let mut fixture = durable(Durability::Fsync);
            let number = fixture.stored_job("f\0key\0");
            assert_eq!(fixture.submit(2, Command::SubmitJob, "f\0key\0"), number);
            fixture.can_do(1, "f");
            if is_running {
                assert_eq!(fixture.grab(1), Some(number));
            }
            fixture.engine.set_suspended(is_suspended, fixture.now);
            if !is_running && is_suspended {
                assert_eq!(fixture.grab(1), None);
            }
            fixture.effects();
            fixture.drop_all();
            let job = &fixture.engine.jobs[fixture.engine.find(number).unwrap()];
            assert_eq!((job.storage, job.demand), (Storage::Memory, Demand::Clients));
            assert_ne!(fixture.background_with_key(), number, "its number can't be stored here");
            if !is_running {
                assert_eq!(fixture.grab(1), Some(number));
            }
            fixture.effects();
            fixture.complete(1, number).unwrap();
            assert_eq!(fixture.effects(), [Effect::Forward { conn: conn_id(2) }]);
        }
    }
}

impl Fixture {
    fn background_with_key(&mut self) -> u64 {
        self.submit(0, Command::SubmitJobBg, "f\0key\0")
    }
}

#[test]
fn a_kept_job_that_clients_wait_for_is_run_when_its_partition_is_lost() {
    let mut fixture = durable(Durability::Fsync);
    let number = fixture.stored_job("f\0key\0");
    assert_eq!(fixture.submit(2, Command::SubmitJob, "f\0key\0"), number);
    fixture.engine.drain(DrainGoal::JobsDone, fixture.now);
    (0..3).for_each(|_| fixture.engine.tick(fixture.now, 4096));
    assert_eq!(fixture.engine.kept(), 1);
    fixture.effects();
    fixture.drop_all();
    fixture.can_do(1, "f");
    assert_eq!((fixture.engine.kept(), fixture.grab(1)), (0, Some(number)));
}

/// Clients kept it in memory, and its policy made a dead letter of it.
#[test]
fn a_job_that_died_here_without_its_partition_lives_when_that_comes_back() {
    let mut fixture = durable(Durability::Fsync);
    let retries = Retries { foreground: true, dead: true, ..Retries::of(1) };
    let policy = Policy {
        patterns: vec![Glob::new("f").unwrap()],
        retries: Some(retries),
        ..Policy::default()
    };
    fixture.engine.use_policies(Arc::new(Policies(vec![policy])), fixture.now);
    let number = fixture.stored_job("f\0key\0");
    let row = fixture.row(number);
    fixture.submit(2, Command::SubmitJob, "f\0key\0");
    fixture.can_do(1, "f");
    assert_eq!(fixture.grab(1), Some(number));
    fixture.effects();
    fixture.drop_all();
    fixture.end(1, number, Outcome::Fail).unwrap();
    assert_eq!(fixture.engine.dead().len(), 1);
    fixture.effects();
    assert!(fixture.engine.adopt(&row, fixture.now));
    assert_eq!(fixture.operations(), [], "the letter was never stored");
    assert_eq!((fixture.engine.dead().len(), fixture.grab(1)), (0, Some(number)));
}

/// Its number is taken by what its worker still runs, and the row must not be left out for that.
#[test]
fn a_partition_that_comes_back_finds_the_runs_that_go_on() {
    let mut fixture = durable(Durability::Fsync);
    let numbers = ["f\0a\0", "f\0b\0", "f\0c\0"].map(|body| fixture.stored_job(body));
    let rows = numbers.map(|number| fixture.row(number));
    fixture.submit(2, Command::SubmitJob, "f\0b\0");
    fixture.can_do(1, "f");
    assert_eq!((fixture.grab(1), fixture.grab(1)), (Some(numbers[0]), Some(numbers[1])));
    fixture.effects();
    fixture.drop_all();
    for row in rows.iter().rev() {
        let row = Row { attempts: 3, ..row.clone() };
        assert!(fixture.engine.adopt(&row, fixture.now));
        assert!(!fixture.engine.adopt(&row, fixture.now));
    }
    assert_eq!(fixture.operations(), []);
    assert_eq!(fixture.engine.jobs().len(), 3);
    assert_eq!(fixture.background_of("a"), numbers[0], "submissions join it again");
    fixture.complete(1, numbers[0]).unwrap();
    assert_eq!(fixture.operations(), [Effect::Remove { number: numbers[0] }]);
    fixture.disconnect(1);
    assert_eq!(fixture.operations(), [Effect::Retry { number: numbers[1] }], "it is stored");
    fixture.can_do(3, "f");
    assert_eq!((fixture.grab(3), fixture.grab(3)), (Some(numbers[1]), Some(numbers[2])));
    let job = &fixture.engine.jobs[fixture.engine.find(numbers[1]).unwrap()];
    assert_eq!(job.attempts, 4);
}

impl Fixture {
    fn background_of(&mut self, key: &str) -> u64 {
        self.submit(0, Command::SubmitJobBg, &format!("f\0{key}\0"))
    }
}

#[test]
fn a_job_that_was_cancelled_while_it_ran_is_removed_when_its_partition_comes_back() {
    let mut fixture = durable(Durability::Fsync);
    let number = fixture.stored_job("f\0\0");
    let row = fixture.row(number);
    fixture.can_do(1, "f");
    fixture.grab(1);
    assert!(fixture.engine.cancel(number));
    fixture.effects();
    assert!(!fixture.engine.adopt(&row, fixture.now));
    assert_eq!(fixture.operations(), [Effect::Remove { number }]);
    fixture.complete(1, number).unwrap();
    assert_eq!(fixture.operations(), []);
}

#[test]
fn a_job_that_died_elsewhere_is_a_dead_letter_here_and_the_other_way_round() {
    let mut fixture = durable(Durability::Fsync);
    let numbers = ["f\0a\0", "f\0b\0"].map(|body| fixture.stored_job(body));
    let rows = numbers.map(|number| fixture.row(number));
    fixture.submit(2, Command::SubmitJob, "f\0b\0");
    fixture.can_do(1, "f");
    assert_eq!(fixture.grab(1), Some(numbers[0]));
    fixture.effects();
    fixture.drop_all();
    for row in &rows {
        assert!(fixture.engine.adopt_dead(&dead_row(row, row.number), fixture.now));
    }
    assert_eq!(fixture.effects(), [Effect::Fail { conn: conn_id(2), number: numbers[1] }]);
    assert_eq!((fixture.engine.dead().len(), fixture.engine.jobs().len()), (2, 0));
    assert!(fixture.complete(1, numbers[0]).is_err());
    assert!(!fixture.engine.adopt(&rows[0], fixture.now), "it is dead");
    fixture.drop_all();
    assert!(fixture.engine.adopt(&rows[0], fixture.now));
    assert!(fixture.end(1, numbers[0], Outcome::Fail).is_err(), "its worker has lost it");
}

#[test]
fn jobs_that_wait_for_the_store_are_numbered_anew_in_their_order() {
    let mut fixture = durable(Durability::Fsync);
    // A place among the records that is free again: the second gets it.
    let gone = fixture.submit(3, Command::SubmitJob, "f\0\0");
    let first = fixture.submit_durably(4, "f\0\0", 1);
    fixture.disconnect(3);
    let second = fixture.submit_durably(4, "f\0\0", 2);
    assert!(second.job < first.job && gone < first.number);
    let known = fixture.submit_durably(4, "f\0key\0", 3);
    assert_eq!(fixture.submit(5, Command::SubmitJob, "f\0key\0"), known.number);
    fixture.effects();
    fixture.engine.move_home(1 << 28..2 << 28, fixture.now);
    let effects = fixture.effects();
    let inserted: Vec<u64> = effects.iter().filter_map(|it| inserted(&fixture, it)).collect();
    assert_eq!(inserted.len(), 2);
    let slot = first.number & 0xff;
    assert_eq!(inserted, [1 << 28, (1 << 28) + 1].map(|sequence: u64| sequence << 8 | slot));
    let refused = Effect::Refused { conn: conn_id(4), ticket: 3 };
    assert!(effects.contains(&refused), "{effects:?}");
    // What the store said of the old numbers comes too late.
    fixture.engine.stored(first.number, fixture.now);
    assert_eq!(fixture.effects(), []);
    fixture.engine.stored(inserted[0], fixture.now);
    let accepted = Effect::Accepted { conn: conn_id(4), ticket: 1, number: inserted[0] };
    assert_eq!(fixture.effects(), [accepted]);
    fixture.can_do(1, "f");
    assert_eq!((fixture.grab(1), fixture.grab(1)), (Some(known.number), Some(inserted[0])));
    assert_eq!(fixture.grab(1), None, "the second isn't stored yet");
    fixture.engine.check_invariants();
}

fn inserted(fixture: &Fixture, effect: &Effect) -> Option<u64> {
    match effect {
        Effect::Insert { job, answered: false } => Some(fixture.engine.jobs[*job].number),
        _ => None,
    }
}

#[test]
fn nothing_is_stored_under_a_number_of_a_home_that_was_lost() {
    let mut fixture = durable(Durability::Async);
    let known = fixture.submit(5, Command::SubmitJob, "f\0key\0");
    fixture.drop_all();
    assert!(fixture.submit_durably(4, "f\0\0", 1).waits, "there is no place for it yet");
    let stored = fixture.submit_durably(4, "f\0key\0", 2);
    assert!(stored.waits && stored.number != known);
    fixture.engine.move_home(1 << 28..2 << 28, fixture.now);
    let numbers: Vec<u64> = fixture
        .engine
        .jobs()
        .iter_from(crate::engine::JobId::FIRST)
        .map(|(_, job)| job.number)
        .collect();
    let in_new_home = numbers.iter().filter(|&&number| number >> SLOT_BITS >= 1 << 28);
    assert_eq!((numbers.len(), in_new_home.count()), (3, 2));
    let joined = fixture.submit(6, Command::SubmitJob, "f\0key\0");
    assert!(joined != known && numbers.contains(&joined), "the one that can be stored");
    assert!(!fixture.submit_durably(4, "f\0\0", 3).waits, "as before");
    fixture.engine.check_invariants();
}

#[test]
fn a_running_job_is_not_numbered_anew() {
    let mut fixture = durable(Durability::Fsync);
    let number = fixture.submit(5, Command::SubmitJob, "f\0key\0");
    fixture.can_do(1, "f");
    assert_eq!(fixture.grab(1), Some(number));
    assert!(fixture.submit_durably(4, "f\0key\0", 1).waits);
    fixture.disconnect(5);
    fixture.effects();
    fixture.engine.move_home(1 << 28..2 << 28, fixture.now);
    assert_eq!(fixture.effects(), [Effect::Refused { conn: conn_id(4), ticket: 1 }]);
    assert_eq!(fixture.complete(1, number), Ok(()));
}

#[test]
fn pauses_of_other_servers_are_followed_and_not_written() {
    let mut fixture = durable(Durability::None);
    fixture.can_do(1, "f");
    fixture.engine.restore_pause(b"f", Pause::Unlimited, fixture.now);
    let number = fixture.background("f");
    assert_eq!(fixture.grab(1), None);
    fixture.sleep(1);
    assert_eq!(fixture.effects(), []);
    fixture.engine.follow_resume(b"f", fixture.now);
    fixture.engine.follow_resume(b"f", fixture.now);
    assert_eq!(fixture.effects(), [Effect::Noop { conn: conn_id(1) }]);
    assert_eq!(fixture.grab(1), Some(number));
    assert_eq!(fixture.operations(), []);
}
