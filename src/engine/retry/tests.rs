//! Jobs that fail, are run again and die; expiry, timeouts, pauses and other policies.

use std::sync::Arc;

use super::*;
use crate::engine::Settings;
use crate::engine::answer::Requeued;
use crate::engine::dead::DeadBounds;
use crate::engine::function::{Durabilities, Durability};
use crate::engine::glob::Glob;
use crate::engine::job::State;
use crate::engine::policy::{Backoff, Expiry, Policies, Policy};
use crate::engine::record::{Pause, Row};
use crate::engine::tests::{Fixture, conn_id, settings};
use crate::wire::Command;

/// Five runs, with 1 s, 2 s, 4 s ... between them.
fn retries() -> Retries {
    let backoff = Backoff { first_ms: 1000, factor: 2.0, max_ms: 60_000, jitter: 0.0 };
    Retries { backoff, ..Retries::of(5) }
}

fn policy(pattern: &str) -> Policy {
    Policy { patterns: vec![Glob::new(pattern).unwrap()], ..Policy::default() }
}

fn with(policies: impl Into<Vec<Policy>>) -> Settings {
    Settings { policies: Arc::new(Policies(policies.into())), ..settings() }
}

fn fixture(retries: Retries) -> Fixture {
    let mut fixture =
        Fixture::new(with([Policy { retries: Some(retries), ..policy("mail-*") }, policy("x")]));
    fixture.can_do(1, "mail-a");
    fixture
}

impl Fixture {
    fn run_once(&mut self, job: u64, outcome: Outcome) {
        assert_eq!(self.grab(1), Some(job));
        self.end(1, job, outcome).unwrap();
    }

    fn state(&self, job: u64) -> Option<State> {
        self.engine.find(job).map(|id| self.engine.jobs()[id].state)
    }

    /// When a delayed job is due, in milliseconds from now.
    fn due_in(&self, job: u64) -> u64 {
        let id = self.engine.find(job).unwrap();
        let job = &self.engine.jobs()[id];
        assert_eq!(job.state, State::Delayed);
        job.run_at_ms() - self.now.unix_ms
    }

    fn reason(&self, job: u64) -> Option<Reason> {
        self.engine.dead().find(job).map(|letter| letter.reason)
    }
}

#[test]
fn a_failed_job_waits_longer_each_time_and_is_dead_in_the_end() {
    let mut fixture = fixture(retries());
    let job = fixture.background("mail-a");
    for delay_ms in [1000, 2000, 4000, 8000] {
        fixture.run_once(job, Outcome::Fail);
        assert_eq!(fixture.due_in(job), delay_ms);
        fixture.pass(delay_ms - 1);
        assert_eq!(fixture.grab(1), None);
        fixture.pass(1);
    }
    fixture.effects();
    fixture.run_once(job, Outcome::Exception);
    assert_eq!((fixture.state(job), fixture.reason(job)), (None, Some(Reason::Exception)));
    let letter = fixture.engine.dead().find(job).unwrap();
    assert_eq!((letter.job.attempts, &*letter.message), (5, &b"why"[..]));
    let worker = Some(conn_id(1));
    assert_eq!(fixture.effects(), [Effect::Bury { number: job, worker, is_stored: false }]);
    let totals = fixture.engine.totals();
    assert_eq!(totals.rerun[Rerun::Fail as usize], 4);
    assert_eq!(totals.failed[Failure::Exception as usize], 1);
    assert_eq!(totals.dead[Reason::Exception as usize], 1);
    assert_eq!(fixture.engine.counters.attempts, [0, 0, 0, 1, 0, 0, 0]);
}

#[test]
fn a_first_loss_is_run_again_at_once_and_the_next_waits() {
    let mut fixture = fixture(retries());
    let jobs = [(); 2].map(|()| fixture.background("mail-a"));
    assert_eq!(fixture.grab(1), Some(jobs[0]));
    fixture.disconnect(1);
    fixture.can_do(1, "mail-a");
    assert_eq!(fixture.grab(1), Some(jobs[0]), "at the head");
    fixture.disconnect(1);
    assert_eq!(fixture.due_in(jobs[0]), 2000, "a job that kills its workers waits");
    fixture.can_do(1, "mail-a");
    fixture.run_once(jobs[1], Outcome::Fail);
    fixture.pass(1000);
    assert_eq!(fixture.grab(1), Some(jobs[1]));
    fixture.engine.reset_abilities(conn_id(1), fixture.now);
    assert_eq!(fixture.state(jobs[1]), Some(State::Queued), "its first loss");
    fixture.effects();
}

#[test]
fn a_reason_that_is_not_retried_is_final_also_a_loss() {
    for outcome in [Outcome::Fail, Outcome::Exception] {
        let mut retried = [true; 4];
        retried[Reason::from(outcome) as usize] = false;
        let mut fixture = fixture(Retries { retried, ..retries() });
        let job = fixture.background("mail-a");
        fixture.run_once(job, outcome);
        assert_eq!(fixture.reason(job), Some(outcome.into()));
        fixture.effects();
    }
    let mut fixture = fixture(Retries { retried: [false, true, true, true], ..retries() });
    let job = fixture.submit(7, Command::SubmitJob, "mail-a\0\0");
    let background = fixture.background("mail-a");
    fixture.can_do(2, "mail-a");
    assert_eq!((fixture.grab(1), fixture.grab(2)), (Some(job), Some(background)));
    fixture.effects();
    fixture.engine.cant_do(conn_id(1), b"mail-a", fixture.now);
    let told = Effect::Fail { conn: conn_id(7), number: job };
    assert_eq!(fixture.effects(), [told], "a client that waits, and no dead letter");
    fixture.engine.cant_do(conn_id(2), b"mail-a", fixture.now);
    assert_eq!((fixture.reason(job), fixture.reason(background)), (None, Some(Reason::Lost)));
}

#[test]
fn clients_hear_of_the_last_run_only() {
    let mut fixture = fixture(Retries { attempts: 2, foreground: true, ..retries() });
    let job = fixture.submit(7, Command::SubmitJob, "mail-a\0u\0");
    fixture.effects();
    fixture.run_once(job, Outcome::Fail);
    assert_eq!(fixture.effects(), []);
    let status = fixture.engine.status(job).unwrap();
    assert_eq!((status.running, status.numerator, status.denominator), (false, 0, 0));
    assert_eq!(fixture.submit(8, Command::SubmitJob, "mail-a\0u\0"), job, "it keeps its unique");
    fixture.pass(1000);
    fixture.run_once(job, Outcome::Fail);
    let bury = Effect::Bury { number: job, worker: Some(conn_id(1)), is_stored: false };
    let forward = |conn| Effect::Forward { conn: conn_id(conn) };
    assert_eq!(fixture.effects(), [forward(8), forward(7), bury]);
    assert_eq!(fixture.engine.status(job), None);
}

#[test]
fn without_foreground_a_waiting_client_hears_at_once_and_a_loss_is_run_again_at_once() {
    let mut fixture = fixture(Retries { attempts: 3, ..retries() });
    let job = fixture.submit(7, Command::SubmitJob, "mail-a\0\0");
    fixture.effects();
    fixture.run_once(job, Outcome::Exception);
    assert_eq!(fixture.effects(), [Effect::Forward { conn: conn_id(7) }]);
    assert_eq!((fixture.state(job), fixture.reason(job)), (None, None));
    let job = fixture.submit(7, Command::SubmitJob, "mail-a\0\0");
    for _ in 0..2 {
        assert_eq!(fixture.grab(1), Some(job));
        fixture.disconnect(1);
        fixture.can_do(1, "mail-a");
        assert_eq!(fixture.state(job), Some(State::Queued));
    }
    assert_eq!(fixture.grab(1), Some(job));
    fixture.effects();
    fixture.disconnect(1);
    assert_eq!(fixture.effects(), [Effect::Fail { conn: conn_id(7), number: job }]);
    assert_eq!(fixture.reason(job), None);
    // A background submission that joins makes it a job with a policy.
    let job = fixture.submit(7, Command::SubmitJob, "mail-a\0u\0");
    assert_eq!(fixture.submit(8, Command::SubmitJobBg, "mail-a\0u\0"), job);
    fixture.can_do(1, "mail-a");
    fixture.run_once(job, Outcome::Fail);
    assert_eq!(fixture.due_in(job), 1000);
}

#[test]
fn nothing_changes_without_attempts() {
    let mut fixture = fixture(retries());
    for function in ["x", "other"] {
        fixture.can_do(2, function);
        let job = fixture.background(function);
        assert_eq!(fixture.grab(2), Some(job));
        fixture.disconnect(2);
        fixture.can_do(2, function);
        assert_eq!(fixture.grab(2), Some(job));
        fixture.end(2, job, Outcome::Fail).unwrap();
        assert_eq!((fixture.state(job), fixture.reason(job)), (None, None));
    }
    assert!(fixture.effects().is_empty());
}

#[test]
fn a_job_without_a_limit_is_run_again_for_ever() {
    let mut fixture = fixture(Retries { attempts: 0, ..retries() });
    let job = fixture.background("mail-a");
    for _ in 0..100 {
        fixture.run_once(job, Outcome::Fail);
        fixture.pass(60_000);
    }
    fixture.run_once(job, Outcome::Complete);
    assert_eq!(fixture.engine.totals().completed, 1);
    assert_eq!(fixture.engine.counters.attempts[6], 1);
    assert_eq!(fixture.engine.counters.attempts_sum, 101);
    fixture.effects();
}

#[test]
fn an_operator_runs_cancels_and_requeues() {
    let mut fixture = fixture(Retries { attempts: 2, ..retries() });
    let jobs = [(); 2].map(|()| fixture.background("mail-a"));
    for job in jobs {
        fixture.run_once(job, Outcome::Fail);
    }
    assert!(fixture.engine.run_now(jobs[0], fixture.now));
    assert!(!fixture.engine.run_now(jobs[0], fixture.now), "it is queued");
    assert!(fixture.engine.cancel(jobs[1]));
    assert_eq!(fixture.state(jobs[1]), None);
    fixture.run_once(jobs[0], Outcome::Fail);
    assert_eq!(fixture.engine.requeue(jobs[1], fixture.now), Requeued::Unknown);
    assert_eq!(fixture.engine.requeue(jobs[0], fixture.now), Requeued::Done);
    fixture.effects();
    fixture.run_once(jobs[0], Outcome::Fail);
    assert_eq!(fixture.due_in(jobs[0]), 1000, "its attempts start anew");
    fixture.pass(1000);
    fixture.run_once(jobs[0], Outcome::Fail);
    assert!(fixture.engine.cancel(jobs[0]), "a dead one");
    assert!(fixture.engine.dead().is_empty());
    assert_eq!(fixture.engine.totals().recovered, 1);
    fixture.effects();
}

#[test]
fn a_dead_letter_holds_no_unique_and_isnt_requeued_while_a_job_has_it() {
    let mut fixture = fixture(Retries { attempts: 1, ..retries() });
    let dead = fixture.submit(0, Command::SubmitJobBg, "mail-a\0u\0one");
    fixture.run_once(dead, Outcome::Fail);
    let new = fixture.submit(0, Command::SubmitJobBg, "mail-a\0u\0two");
    assert_ne!(dead, new);
    assert_eq!(fixture.engine.requeue(dead, fixture.now), Requeued::UniqueInUse);
    fixture.run_once(new, Outcome::Complete);
    assert_eq!(fixture.engine.requeue(dead, fixture.now), Requeued::Done);
    let again = fixture.submit(0, Command::SubmitJobBg, "mail-a\0u\0three");
    assert_eq!(again, dead, "submissions join it");
    fixture.effects();
}

/// Its letter is stored whatever became of the insertion.
#[test]
fn a_job_that_died_before_it_was_stored_is_not_refused_once_it_is_requeued() {
    let durabilities = Durabilities { default: Durability::Fsync, ..Durabilities::default() };
    let policies = vec![Policy { retries: Some(Retries::of(1)), ..policy("f") }];
    let mut fixture = Fixture::new(Settings { durabilities, ..with(policies) });
    fixture.can_do(1, "f");
    let job = fixture.submit(7, Command::SubmitJob, "f\0u\0");
    assert_eq!(fixture.grab(1), Some(job));
    fixture.submit(8, Command::SubmitJobBg, "f\0u\0");
    fixture.end(1, job, Outcome::Fail).unwrap();
    assert_eq!(fixture.engine.requeue(job, fixture.now), Requeued::Done);
    fixture.engine.not_stored(job, fixture.now);
    assert_eq!(fixture.state(job), Some(State::Queued));
    fixture.effects();
    fixture.run_once(job, Outcome::Complete);
    assert_eq!(fixture.effects(), [Effect::Remove { number: job }]);
}

#[test]
fn the_oldest_letters_go_first_beyond_the_bounds() {
    let dead = DeadBounds::new(3, 1 << 18, 10_000);
    let policies = [Policy { retries: Some(Retries::of(1)), ..policy("*") }];
    let mut fixture = Fixture::new(Settings { dead, ..with(policies) });
    fixture.can_do(1, "f");
    let jobs = [(); 5].map(|()| {
        let job = fixture.background("f");
        fixture.run_once(job, Outcome::Fail);
        fixture.pass(1000);
        job
    });
    let left = |fixture: &Fixture| {
        let letters = fixture.engine.dead().iter_from(0);
        letters.map(|(_, letter)| letter.job.number).collect::<Vec<_>>()
    };
    assert_eq!(left(&fixture), jobs[2..]);
    assert_eq!(fixture.engine.counters.dead_dropped, [2, 0, 0]);
    fixture.pass(7000);
    assert_eq!(left(&fixture), jobs[3..], "10 s after its death");
    fixture.pass(60_000);
    assert!(left(&fixture).is_empty());
    assert_eq!(fixture.engine.counters.dead_dropped, [2, 0, 3]);
    fixture.effects();
    let small = fixture.background("f");
    fixture.run_once(small, Outcome::Fail);
    let huge = format!("f\0\0{}", "x".repeat(1 << 18));
    let job = fixture.submit(0, Command::SubmitJobBg, &huge);
    fixture.run_once(job, Outcome::Fail);
    assert_eq!(left(&fixture), [small], "one that is too large takes no other along");
    assert_eq!(fixture.engine.counters.dead_dropped, [2, 1, 3]);
    assert!(fixture.engine.deadline_ms().is_some() && fixture.engine.remove_dead(small));
    assert_eq!(fixture.engine.deadline_ms(), None, "no letter, no timer");
    fixture.effects();
}

#[test]
fn a_job_that_isnt_started_in_time_is_gone_or_dead() {
    let expiry = |dead| Some(Expiry { after_ms: 5000, dead });
    let gone = Policy { expiry: expiry(false), ..policy("gone") };
    let dead = Policy { expiry: expiry(true), retries: Some(retries()), ..policy("dead") };
    let mut fixture = Fixture::new(with([gone, dead]));
    let gone = fixture.submit(7, Command::SubmitJob, "gone\0\0");
    let dead = fixture.background("dead");
    let later = fixture.now.unix_ms / 1000 + 10;
    let delayed = fixture.submit(0, Command::SubmitJobEpoch, &format!("gone\0\0{later}\0"));
    fixture.pass(4999);
    assert!(fixture.state(gone).is_some() && fixture.state(dead).is_some());
    fixture.effects();
    fixture.pass(1);
    assert_eq!((fixture.state(gone), fixture.reason(gone)), (None, None));
    assert_eq!(fixture.reason(dead), Some(Reason::Expired));
    let told = Effect::Fail { conn: conn_id(7), number: gone };
    assert_eq!(
        fixture.effects(),
        [told, Effect::Bury { number: dead, worker: None, is_stored: false }]
    );
    fixture.pass(9000);
    assert_eq!(fixture.state(delayed), Some(State::Queued), "it was due 4 s ago");
    // Started jobs don't expire, also while they wait for their next run.
    fixture.can_do(1, "gone");
    assert_eq!(fixture.grab(1), Some(delayed));
    fixture.disconnect(1);
    fixture.pass(100_000);
    assert_eq!(fixture.state(delayed), Some(State::Queued));
    assert_eq!(fixture.engine.totals().failed[Failure::Expired as usize], 2);
    assert_eq!(fixture.engine.requeue(dead, fixture.now), Requeued::Done);
    fixture.pass(4999);
    assert_eq!(fixture.state(dead), Some(State::Queued), "its time starts anew");
    fixture.effects();
}

#[test]
fn the_policy_sets_timeouts_and_progress_starts_them_again() {
    let limits = Policy { timeout_ms: 2000, timeout_max_ms: 5000, ..policy("f") };
    let touched = Policy { timeout_ms: 2000, touch: true, ..policy("t") };
    let mut fixture = Fixture::new(with([limits, touched]));
    fixture.engine.can_do(conn_id(1), b"f", 60_000);
    fixture.can_do(2, "f");
    fixture.can_do(3, "t");
    let jobs = [fixture.background("f"), fixture.background("f"), fixture.background("t")];
    for (worker, job) in (1..).zip(jobs) {
        assert_eq!(fixture.grab(worker), Some(job));
    }
    fixture.effects();
    fixture.pass(1500);
    for (worker, job) in (1..).zip(jobs) {
        fixture.engine.work_data(conn_id(worker), job, fixture.now).unwrap();
    }
    fixture.pass(500);
    let running = |fixture: &Fixture| jobs.map(|job| fixture.state(job) == Some(State::Running));
    assert_eq!(running(&fixture), [true, false, true]);
    assert_eq!(
        fixture.effects(),
        [Effect::CancelNotice { conn: conn_id(2), number: jobs[1] }],
        "the worker need not go on"
    );
    fixture.pass(1499);
    assert_eq!(running(&fixture), [true, false, true]);
    fixture.pass(1);
    assert_eq!(running(&fixture), [true, false, false]);
    fixture.pass(1500);
    assert_eq!(running(&fixture), [false, false, false], "the largest allowed");
    fixture.effects();
}

#[test]
fn a_late_result_is_taken_while_the_job_waits_for_its_next_run() {
    let policies = [Policy { retries: Some(retries()), timeout_ms: 1000, ..policy("f") }];
    let mut fixture = Fixture::new(with(policies));
    fixture.can_do(1, "f");
    let jobs = [(); 2].map(|()| fixture.background("f"));
    assert_eq!([fixture.grab(1), fixture.grab(1)], jobs.map(Some));
    fixture.pass(1000);
    assert_eq!(fixture.due_in(jobs[0]), 1000);
    assert_eq!(fixture.end(1, jobs[0], Outcome::Fail), Ok(()), "it had ended by the timeout");
    assert_eq!(fixture.due_in(jobs[0]), 1000);
    assert_eq!(fixture.end(1, jobs[1], Outcome::Complete), Ok(()));
    assert_eq!(fixture.state(jobs[1]), None);
    assert_eq!(fixture.engine.counters.attempts[1], 0, "one run");
    fixture.effects();
}

#[test]
fn a_paused_function_starts_nothing_and_wakes_nobody() {
    let mut fixture = Fixture::new(settings());
    fixture.can_do(1, "f");
    let jobs = [(); 2].map(|()| fixture.background("f"));
    let now = fixture.now;
    assert!(fixture.engine.pause(b"f", Pause::Unlimited, 1 << 20, now));
    assert!(fixture.engine.pause(b"unknown", Pause::Until(now.unix_ms + 5000), 1 << 20, now));
    assert_eq!(fixture.effects().len(), 2, "both are stored");
    assert_eq!(fixture.grab(1), None);
    fixture.sleep(1);
    let unknown = fixture.background("unknown");
    fixture.can_do(2, "unknown");
    fixture.sleep(2);
    assert_eq!(fixture.effects(), [], "nobody is woken");
    fixture.engine.resume(b"f", now);
    let woken = Effect::Noop { conn: conn_id(1) };
    let effects = fixture.effects();
    assert!(effects.contains(&woken), "{effects:?}");
    assert_eq!(fixture.grab(1), Some(jobs[0]));
    fixture.pass(4999);
    assert_eq!(fixture.effects(), []);
    fixture.pass(1);
    assert!(fixture.effects().contains(&Effect::Noop { conn: conn_id(2) }));
    assert_eq!(fixture.grab(2), Some(unknown));
    assert_eq!(fixture.engine.totals().paused_ms, 5000);
}

#[test]
fn other_policies_count_from_the_next_decision_on() {
    let mut fixture = fixture(retries());
    let jobs = [(); 3].map(|()| fixture.background("mail-a"));
    for job in &jobs[..2] {
        fixture.run_once(*job, Outcome::Fail);
    }
    fixture.pass(1000);
    let use_policies = |fixture: &mut Fixture, policies: Vec<Policy>| {
        fixture.engine.use_policies(Arc::new(Policies(policies)), fixture.now);
        fixture.pass(0);
    };
    let fewer = Policy { retries: Some(Retries::of(2)), ..policy("mail-*") };
    use_policies(&mut fixture, vec![Policy { queue_max: Some([0, 2, 0]), ..fewer.clone() }]);
    assert!(fixture.try_submit(0, Command::SubmitJobBg, "mail-a\0\0").is_err(), "3 jobs");
    fixture.run_once(jobs[2], Outcome::Complete);
    fixture.run_once(jobs[0], Outcome::Fail);
    assert_eq!(fixture.reason(jobs[0]), Some(Reason::Fail), "two runs are all");
    fixture.engine.set_queue_max(b"mail-a", [7; 3]);
    use_policies(&mut fixture, vec![Policy { queue_max: Some([0, 2, 0]), ..fewer }]);
    let id = fixture.engine.functions.find(b"mail-a").unwrap();
    assert_eq!(fixture.engine.functions[id].queue_max, [7; 3], "an operator's limit stays");
    let expiry = Some(Expiry { after_ms: 3000, dead: false });
    let new = fixture.background("mail-a");
    use_policies(&mut fixture, vec![Policy { expiry, ..policy("*") }]);
    assert_eq!(fixture.engine.functions[id].queue_max, [0; 3], "the file's has changed");
    fixture.run_once(jobs[1], Outcome::Fail);
    assert_eq!((fixture.state(jobs[1]), fixture.reason(jobs[1])), (None, None), "as gearmand");
    fixture.pass(3000);
    assert_eq!(fixture.state(new), None, "jobs that wait expire, too");
    use_policies(&mut fixture, Vec::new());
    let kept = fixture.background("mail-a");
    fixture.pass(100_000);
    assert_eq!(fixture.state(kept), Some(State::Queued));
    fixture.effects();
}

/// Functions whose limit came from the new policies became forgettable while the reload still went
/// through the functions: the one that was forgotten for them was looked at next, which panicked.
#[test]
fn functions_that_a_reload_makes_forgettable_push_others_out() {
    let mut fixture = Fixture::new(settings());
    for at in 0..600 {
        let name = format!("limited-{at}");
        fixture.engine.create_function(name.as_bytes(), 1 << 20);
        let id = fixture.engine.functions.find(name.as_bytes()).unwrap();
        fixture.engine.functions[id].created = false;
        fixture.engine.set_queue_max(name.as_bytes(), [1; 3]);
    }
    for at in 0..1100 {
        fixture.can_do(1, &format!("plain-{at}"));
    }
    fixture.engine.reset_abilities(conn_id(1), fixture.now);
    let limits = Policy { queue_max: Some([2; 3]), ..policy("limited-*") };
    fixture.engine.use_policies(Arc::new(Policies(vec![limits])), fixture.now);
    assert!(fixture.engine.functions.len() <= 1000);
    fixture.effects();
}

#[test]
fn durable_jobs_come_back_with_what_became_of_their_runs() {
    let durabilities = Durabilities { default: Durability::Fsync, ..Durabilities::default() };
    let policies = vec![Policy { retries: Some(retries()), ..policy("f") }];
    let settings = Settings { durabilities, ..with(policies) };
    let mut fixture = Fixture::new(settings.clone());
    fixture.can_do(1, "f");
    let jobs = [(); 2].map(|()| {
        let job = fixture.submit(0, Command::SubmitJobBg, "f\0\0p");
        fixture.engine.stored(job, fixture.now);
        job
    });
    fixture.effects();
    fixture.run_once(jobs[0], Outcome::Fail);
    assert_eq!(fixture.effects(), [Effect::Retry { number: jobs[0] }]);
    assert_eq!(fixture.grab(1), Some(jobs[1]));
    fixture.disconnect(1);
    let rows: Vec<Row> = jobs.iter().map(|&job| fixture.row(job)).collect();
    let (now, mut after) = (fixture.now, Fixture::new(settings));
    after.now = now;
    rows.iter().for_each(|row| assert!(after.engine.restore(row, now)));
    assert_eq!(after.due_in(jobs[0]), 1000);
    after.can_do(1, "f");
    assert_eq!(after.grab(1), Some(jobs[1]));
    after.disconnect(1);
    assert_eq!(after.due_in(jobs[1]), 2000, "its first loss was before");
    after.can_do(1, "f");
    for delay_ms in [1000, 2000, 4000] {
        after.pass(delay_ms);
        if after.state(jobs[1]) == Some(State::Queued) {
            assert_eq!(after.grab(1), Some(jobs[1]));
            after.end(1, jobs[1], Outcome::Complete).unwrap();
        }
        after.run_once(jobs[0], Outcome::Fail);
    }
    after.pass(8000);
    after.effects();
    after.run_once(jobs[0], Outcome::Fail);
    let row = after.engine.dead_row(jobs[0]).unwrap();
    assert_eq!((row.row.attempts, row.reason), (5, Reason::Fail));
    let mut last = Fixture::new(with([]));
    assert!(last.engine.restore_dead(&row, now) && !last.engine.restore_dead(&row, now));
    assert!(!last.engine.restore(&row.row, now), "its handle is in use");
    assert_eq!(last.engine.dead_row(jobs[0]), Some(row));
    last.engine.keep_again(jobs[0]);
    let again = Effect::Bury { number: jobs[0], worker: None, is_stored: true };
    assert_eq!(last.effects(), [again], "the store has lost it");
    assert_eq!(last.engine.requeue(jobs[0], now), Requeued::Done);
    assert!(matches!(last.effects()[..], [Effect::Unbury { .. }]));
}
