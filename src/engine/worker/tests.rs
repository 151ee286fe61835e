//! Tests of grabbing, sleeping and waking; see `engine::tests` for the fixture.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::engine::job::Job;
use crate::engine::job::State;
use crate::engine::list::VISITED;
use crate::engine::sleep::UNCLAIMED_CHECKS_MAX;
use crate::engine::tests::{Fixture, NO_WORKER, conn_id, settings};
use crate::engine::{Settings, Wakeup};
use crate::wire::Command;

fn submit(fixture: &mut Fixture, command: Command, function: &str) -> u64 {
    fixture.submit(0, command, &format!("{function}\0\0"))
}

fn grab_all(fixture: &mut Fixture, conn: u32) -> Vec<u64> {
    std::iter::from_fn(|| fixture.grab(conn)).collect()
}

#[test]
fn urgency_counts_more_than_function_and_age() {
    let mut fixture = Fixture::new(settings());
    let low = submit(&mut fixture, Command::SubmitJobLowBg, "a");
    let normal = submit(&mut fixture, Command::SubmitJobBg, "a");
    let high = submit(&mut fixture, Command::SubmitJobHighBg, "b");
    let late = submit(&mut fixture, Command::SubmitJobHighBg, "a");
    ["a", "b"].iter().for_each(|function| fixture.can_do(5, function));
    let grabbed = grab_all(&mut fixture, 5);
    assert_eq!(grabbed, [high, late, normal, low]);
}

#[test]
fn functions_take_turns_and_the_first_named_one_begins() {
    // libgearman sends CAN_DO in the reverse of its program's order; see `can_do`.
    let mut fixture = Fixture::new(settings());
    ["second", "first"].iter().for_each(|function| fixture.can_do(5, function));
    let first: Vec<u64> = (0..3).map(|_| fixture.background("first")).collect();
    let second: Vec<u64> = (0..2).map(|_| fixture.background("second")).collect();
    let grabbed = grab_all(&mut fixture, 5);
    assert_eq!(grabbed, [first[0], second[0], first[1], second[1], first[2]]);
}

#[test]
fn a_function_that_comes_back_waits_for_its_turn() {
    let mut fixture = Fixture::new(settings());
    ["a", "b"].iter().for_each(|function| fixture.can_do(5, function));
    let mut b: Vec<u64> = (0..4).map(|_| fixture.background("b")).collect();
    for _ in 0..3 {
        let a = fixture.background("a");
        let pair = [fixture.grab(5).unwrap(), fixture.grab(5).unwrap()];
        assert!(pair.contains(&a) && pair.contains(&b.remove(0)));
        fixture.effects();
    }
}

#[test]
fn one_job_wakes_the_one_that_fell_asleep_last() {
    let mut fixture = Fixture::new(settings());
    for conn in 1..=4 {
        fixture.can_do(conn, "resize");
        fixture.sleep(conn);
    }
    fixture.background("resize");
    assert_eq!(fixture.woken(), [4]);
    fixture.background("resize");
    assert_eq!(fixture.woken(), [3]);
    assert!(fixture.grab(4).is_some() && fixture.grab(4).is_some(), "one worker takes both");
    fixture.background("resize");
    assert_eq!(fixture.woken(), NO_WORKER, "the other one that was woken hasn't come yet");
}

#[test]
fn a_job_that_comes_together_with_a_grab_wakes_nobody() {
    // It woke a sleeper for nothing: the one that was awake had the job before the NOOP had left.
    let mut fixture = Fixture::new(settings());
    for conn in 1..=2 {
        fixture.can_do(conn, "resize");
        fixture.sleep(conn);
    }
    let first = fixture.background("resize");
    assert_eq!(fixture.woken(), [2]);
    assert_eq!(fixture.grab(2), Some(first));
    let second = fixture.background("resize");
    assert_eq!(fixture.grab(2), Some(second));
    assert_eq!(fixture.woken(), NO_WORKER);
}

#[test]
fn who_falls_asleep_together_with_a_job_is_the_one_woken() {
    let mut fixture = Fixture::new(settings());
    for conn in 1..=2 {
        fixture.can_do(conn, "resize");
    }
    fixture.sleep(1);
    fixture.background("resize");
    fixture.sleep(2);
    assert_eq!(fixture.woken(), [2]);
}

#[test]
fn who_falls_asleep_beside_a_job_that_another_was_woken_for_sleeps_on() {
    let mut fixture = Fixture::new(settings());
    ["resize", "rotate"].iter().for_each(|function| fixture.can_do(1, function));
    fixture.can_do(2, "resize");
    fixture.sleep(2);
    fixture.background("resize");
    assert_eq!(fixture.woken(), [2]);
    fixture.sleep(1);
    assert_eq!(fixture.woken(), NO_WORKER);
    fixture.pass(100);
    assert_eq!(fixture.woken(), [1], "the other one has let its lease end");
    fixture.background("rotate");
    fixture.sleep(1);
    assert_eq!(fixture.woken(), [1], "for a function without a lease");
}

#[test]
fn a_claimed_function_does_not_hide_one_that_nobody_was_woken_for() {
    let mut fixture = Fixture::new(settings());
    ["rotate", "resize"].iter().for_each(|function| fixture.can_do(1, function));
    fixture.can_do(2, "resize");
    fixture.sleep(2);
    fixture.background("resize");
    assert_eq!(fixture.woken(), [2]);
    fixture.background("rotate");
    fixture.sleep(1);
    assert_eq!(fixture.woken(), [1]);
}

#[test]
fn a_worker_with_more_claimed_functions_than_it_looks_at_is_woken_to_see_for_itself() {
    let mut fixture = Fixture::new(settings());
    let functions: Vec<String> = (0..=UNCLAIMED_CHECKS_MAX).map(|at| format!("f{at}")).collect();
    let (last, others) = functions.split_last().expect("functions");
    for (conn, function) in (1..).zip(&functions) {
        fixture.can_do(0, function);
        fixture.can_do(conn, function);
        fixture.sleep(conn);
    }
    for function in others {
        fixture.background(function);
    }
    assert_eq!(fixture.woken().len(), UNCLAIMED_CHECKS_MAX);
    fixture.sleep(0);
    assert_eq!(fixture.woken(), NO_WORKER, "all of them were checked");
    fixture.engine.mark_awake(conn_id(0));
    fixture.background(last);
    assert_eq!(fixture.woken().len(), 1);
    fixture.sleep(0);
    assert_eq!(fixture.woken(), [0]);
}

#[test]
fn after_a_lease_that_ends_unused_all_other_sleepers_are_woken() {
    let mut fixture = Fixture::new(settings());
    for conn in 1..=3 {
        fixture.can_do(conn, "resize");
        fixture.sleep(conn);
    }
    fixture.background("resize");
    assert_eq!(fixture.woken(), [3]);
    fixture.pass(99);
    assert_eq!(fixture.woken(), NO_WORKER);
    fixture.pass(1);
    assert_eq!(fixture.woken(), [2, 1]);
    fixture.pass(100);
    assert_eq!((fixture.woken(), fixture.engine.counters.leases_ended), (vec![], 3));
    fixture.sleep(3);
    assert_eq!(fixture.woken(), [3], "a worker that falls asleep beside a job is woken");
}

#[test]
fn a_woken_worker_that_leaves_hands_its_wake_up_on() {
    let losses: [fn(&mut Fixture, u32); 3] = [
        |fixture, conn| fixture.disconnect(conn),
        |fixture, conn| fixture.engine.cant_do(conn_id(conn), b"resize", fixture.now),
        |fixture, conn| fixture.engine.reset_abilities(conn_id(conn), fixture.now),
    ];
    for lose in losses {
        let mut fixture = Fixture::new(settings());
        for conn in 1..=2 {
            fixture.can_do(conn, "resize");
            fixture.sleep(conn);
        }
        fixture.background("resize");
        assert_eq!(fixture.woken(), [2]);
        lose(&mut fixture, 2);
        assert_eq!(fixture.woken(), [1]);
    }
}

#[test]
fn a_worker_that_takes_other_work_than_it_was_woken_for_hands_its_wake_up_on() {
    let mut fixture = Fixture::new(settings());
    fixture.can_do(1, "resize");
    fixture.sleep(1);
    ["resize", "rotate"].iter().for_each(|function| fixture.can_do(2, function));
    fixture.sleep(2);
    let resize = fixture.background("resize");
    assert_eq!(fixture.woken(), [2]);
    let rotate = submit(&mut fixture, Command::SubmitJobHighBg, "rotate");
    assert_eq!(fixture.grab(2), Some(rotate));
    assert_eq!(fixture.woken(), [1]);
    assert_eq!(fixture.grab(1), Some(resize));
}

#[test]
fn a_sleeper_that_resets_its_abilities_sleeps_on() {
    // RESET_ABILITIES once woke the worker behind its back, without a NOOP: whatever it announced
    // afterwards, it was never woken for it, though it never grabbed of itself either.
    let mut fixture = Fixture::new(settings());
    fixture.can_do(1, "resize");
    fixture.sleep(1);
    fixture.engine.reset_abilities(conn_id(1), fixture.now);
    fixture.background("rotate");
    fixture.can_do(1, "rotate");
    assert_eq!(fixture.woken(), [1], "for the job that waits");
    assert!(fixture.grab(1).is_some());
    fixture.sleep(1);
    fixture.background("rotate");
    assert_eq!(fixture.woken(), [1], "and for the next one");
}

#[test]
fn a_worker_that_sleeps_again_without_grabbing_is_woken_again() {
    // gearmand remembers the NOOP that went unanswered and sends no other.
    let mut fixture = Fixture::new(settings());
    fixture.can_do(1, "resize");
    fixture.can_do(2, "resize");
    fixture.sleep(1);
    let job = fixture.background("resize");
    assert_eq!(fixture.woken(), [1]);
    assert_eq!(fixture.grab(2), Some(job));
    fixture.sleep(1);
    assert_eq!(fixture.woken(), NO_WORKER);
    fixture.background("resize");
    assert_eq!(fixture.woken(), [1]);
}

#[test]
fn a_sleeper_gets_to_know_new_abilities() {
    let mut fixture = Fixture::new(settings());
    fixture.sleep(1);
    fixture.background("resize");
    fixture.can_do(1, "resize");
    assert_eq!(fixture.woken(), [1]);
}

#[test]
fn worker_wakeup_wakes_as_many_as_it_says_for_each_job() {
    for (limit, first, second) in [(1, 1, 1), (3, 3, 2), (0, 5, 0)] {
        let mut fixture = Fixture::new(Settings { wakeup: Wakeup::Each(limit), ..settings() });
        for conn in 1..=5 {
            fixture.can_do(conn, "resize");
            fixture.sleep(conn);
        }
        fixture.background("resize");
        assert_eq!(fixture.woken().len(), first, "--worker-wakeup {limit}");
        fixture.background("resize");
        assert_eq!(fixture.woken().len(), second, "--worker-wakeup {limit}");
    }
}

#[test]
fn an_ability_announced_twice_counts_once_and_takes_the_new_time() {
    let mut fixture = Fixture::new(settings());
    fixture.engine.can_do(conn_id(1), b"resize", 1000);
    fixture.engine.can_do(conn_id(1), b"resize", 0);
    let id = fixture.engine.functions().find(b"resize").unwrap();
    assert_eq!(fixture.engine.functions()[id].workers, 1);
    fixture.background("resize");
    assert!(fixture.grab(1).is_some());
    assert_eq!(fixture.engine.deadline_ms(), None, "without a limit now");
    fixture.engine.cant_do(conn_id(1), b"resize", fixture.now);
    assert_eq!(fixture.engine.functions()[id].workers, 0);
    assert_eq!(fixture.engine.functions_of(conn_id(1)).count(), 0);
    fixture.engine.cant_do(conn_id(1), b"unheard-of", fixture.now);
}

#[test]
fn a_worker_with_many_functions_grabs_without_looking_at_each() {
    // Not a measurement: what its turn list holds is what a grab may look at.
    let mut fixture = Fixture::new(settings());
    for number in 0..20_000 {
        fixture.can_do(1, &format!("function-{number}"));
    }
    let job = fixture.background("function-10000");
    let ready = fixture.engine.peers[conn_id(1)].maybe_ready[1]
        .iter(&fixture.engine.abilities.records, READY[1]);
    assert_eq!(ready.count(), 1);
    assert_eq!((fixture.grab(1), fixture.grab(1)), (Some(job), None));
}

/// A worker with 20 000 running jobs that gave its functions up one by one stopped its core for
/// more than a second: each time all of its jobs were looked at.
#[test]
fn giving_functions_up_one_by_one_looks_at_no_jobs_of_others() {
    const FUNCTIONS: usize = 2000;
    let mut fixture = Fixture::new(settings());
    let names: Vec<String> = (0..FUNCTIONS).map(|number| format!("function-{number}")).collect();
    for name in &names {
        fixture.can_do(1, name);
        fixture.background(name);
        fixture.background(name);
    }
    for _ in 0..2 * FUNCTIONS {
        fixture.engine.grab(conn_id(1), Priority::Low, fixture.now).expect("one is left");
    }
    VISITED.set(0);
    // Whichever of its jobs are the latest.
    for (first, last) in names.iter().zip(names.iter().rev()).take(FUNCTIONS / 2) {
        for name in [first, last] {
            fixture.engine.cant_do(conn_id(1), name.as_bytes(), fixture.now);
        }
    }
    assert!(VISITED.get() <= 10 * FUNCTIONS, "{} steps", VISITED.get());
    fixture.engine.check_invariants();
    assert_eq!(fixture.engine.functions()[FunctionId::FIRST].queued, 2);
    assert!(fixture.engine.is_bare(conn_id(1)));
}

#[test]
fn a_home_elsewhere_is_told_of_jobs_once_until_it_asks() {
    // Each of a roaming worker's functions that got its first job cost a letter: six for each job
    // with 128 functions on eight cores, more than the job itself.
    let mut fixture = Fixture::new(settings());
    fixture.engine.mark_remote(conn_id(1));
    ["a", "b", "c"].iter().for_each(|function| fixture.can_do(1, function));
    fixture.background("a");
    assert_eq!(fixture.effects(), [Effect::Hint { conn: conn_id(1) }]);
    fixture.background("b");
    assert_eq!(fixture.effects(), [], "that there are some is known");
    submit(&mut fixture, Command::SubmitJobHighBg, "b");
    assert_eq!(
        fixture.effects(),
        [Effect::Hint { conn: conn_id(1) }],
        "that some are urgent is new"
    );
    fixture.can_do(2, "a");
    fixture.can_do(2, "b");
    assert_eq!(grab_all(&mut fixture, 2).len(), 3);
    fixture.background("c");
    assert_eq!(fixture.effects(), [], "what it was told of is gone, but it has yet to ask");
    assert!(fixture.grab(1).is_some() && fixture.engine.ready(conn_id(1)).is_empty());
    fixture.background("a");
    assert_eq!(fixture.effects(), [Effect::Hint { conn: conn_id(1) }]);
}

#[test]
fn a_sleeper_hears_of_every_function_that_has_jobs_when_the_batch_ends() {
    // PRE_SLEEP looked for one function with jobs and remembered it alone. When another worker took
    // that job later in the same batch, the sleeper wasn't woken for its other function's job,
    // which lay beside it for ever: no lease ran.
    let mut fixture = Fixture::new(settings());
    ["g", "f"].iter().for_each(|function| fixture.can_do(5, function));
    fixture.can_do(6, "f");
    let f = fixture.background("f");
    let g = fixture.background("g");
    fixture.sleep(5);
    assert_eq!(fixture.grab(6), Some(f));
    assert_eq!(fixture.woken(), [5]);
    assert_eq!(fixture.grab(5), Some(g));

    // The same by CANT_DO in the sleeper's own segment, and by a cancelled job.
    let f = fixture.background("f");
    let g = fixture.background("g");
    fixture.sleep(5);
    fixture.engine.cant_do(conn_id(5), b"f", fixture.now);
    assert_eq!(fixture.woken(), [5]);
    assert_eq!((fixture.grab(5), fixture.grab(6)), (Some(g), Some(f)));
    fixture.can_do(5, "f");
    let f = fixture.background("f");
    let g = fixture.background("g");
    fixture.sleep(5);
    fixture.engine.cancel(f);
    assert_eq!(fixture.woken(), [5]);
    assert_eq!(fixture.grab(5), Some(g));
}

#[test]
fn a_job_waits_one_lease_however_many_sleepers_never_answer() {
    // Leases ran one after the other: behind 200 workers of a host that had gone, a job waited for
    // 20 seconds.
    let mut fixture = Fixture::new(settings());
    (10..200).for_each(|conn| fixture.engine.connect(conn_id(conn)));
    for conn in 1..200 {
        fixture.can_do(conn, "resize");
        fixture.sleep(conn);
    }
    let job = fixture.background("resize");
    assert_eq!(fixture.woken(), [199]);
    fixture.pass(100);
    assert_eq!(fixture.woken().len(), 198);
    assert_eq!(fixture.grab(1), Some(job));
    fixture.pass(100);
    assert_eq!(fixture.woken(), NO_WORKER, "nothing is left to be woken for");
}

/// A request of one of several connections, or a lease's length that passes.
#[derive(Clone, Copy, Debug)]
enum Step {
    CanDo(u32, usize),
    CantDo(u32, usize),
    Revoke(u32, usize),
    Reset(u32),
    Grab(u32),
    Sleep(u32),
    Submit(usize),
    CancelOldest,
    Finish(u32),
    Disconnect(u32),
    Pass,
}

const FUNCTIONS: [&str; 3] = ["f", "g", "h"];

fn any_step() -> impl Strategy<Value = Step> {
    let (conn, function) = (|| 1..5_u32, || 0..FUNCTIONS.len());
    prop_oneof![
        3 => (conn(), function()).prop_map(|(conn, function)| Step::CanDo(conn, function)),
        1 => (conn(), function()).prop_map(|(conn, function)| Step::CantDo(conn, function)),
        1 => (conn(), function()).prop_map(|(conn, function)| Step::Revoke(conn, function)),
        1 => conn().prop_map(Step::Reset),
        4 => conn().prop_map(Step::Grab),
        4 => conn().prop_map(Step::Sleep),
        4 => function().prop_map(Step::Submit),
        1 => Just(Step::CancelOldest),
        2 => conn().prop_map(Step::Finish),
        1 => conn().prop_map(Step::Disconnect),
        1 => Just(Step::Pass),
    ]
}

fn take_step(fixture: &mut Fixture, step: Step) {
    let oldest = |fixture: &Fixture, is_it: &dyn Fn(&Job) -> bool| {
        let jobs = fixture.engine.jobs().iter_from(JobId::FIRST);
        jobs.filter(|(_, job)| is_it(job)).map(|(_, job)| job.number).min()
    };
    match step {
        Step::CanDo(conn, function) => fixture.can_do(conn, FUNCTIONS[function]),
        Step::CantDo(conn, function) => {
            fixture.engine.cant_do(conn_id(conn), FUNCTIONS[function].as_bytes(), fixture.now);
        }
        Step::Revoke(conn, function) => {
            fixture.engine.revoke(conn_id(conn), FUNCTIONS[function].as_bytes());
        }
        Step::Reset(conn) => fixture.engine.reset_abilities(conn_id(conn), fixture.now),
        Step::Grab(conn) => drop(fixture.grab(conn)),
        Step::Sleep(conn) => fixture.sleep(conn),
        Step::Submit(function) => drop(fixture.background(FUNCTIONS[function])),
        Step::CancelOldest => {
            if let Some(number) = oldest(fixture, &|job| job.state == State::Queued) {
                fixture.engine.cancel(number);
            }
        }
        Step::Finish(conn) => {
            let abilities = &fixture.engine.abilities.records;
            let its_own = |job: &Job| {
                job.state == State::Running && abilities[job.ability()].conn == conn_id(conn)
            };
            if let Some(number) = oldest(fixture, &its_own) {
                fixture.complete(conn, number).unwrap();
            }
        }
        Step::Disconnect(conn) => fixture.disconnect(conn),
        Step::Pass => fixture.pass(settings().lease_ms),
    }
}

#[test]
fn a_worker_whose_function_is_revoked_finishes_the_jobs_that_it_has() {
    let mut fixture = Fixture::new(settings());
    fixture.can_do(1, "a");
    fixture.can_do(1, "b");
    let jobs = [fixture.background("a"), fixture.background("a")];
    let running = fixture.grab(1).unwrap();
    for function in [&b"a"[..], b"b", b"a", b"unknown"] {
        fixture.engine.revoke(conn_id(1), function);
        fixture.effects();
    }
    assert_eq!(fixture.engine.functions_of(conn_id(1)).count(), 0);
    assert_eq!(fixture.grab(1), None, "the other one is for other workers");
    assert_eq!(fixture.engine.running_of(conn_id(1)), 1);
    fixture.complete(1, running).unwrap();
    fixture.effects();
    assert!(fixture.engine.is_bare(conn_id(1)), "nothing is left of the function");
    // A worker that may again is as any other.
    fixture.can_do(1, "a");
    assert!(fixture.grab(1).is_some_and(|job| jobs.contains(&job) && job != running));
    fixture.engine.revoke(conn_id(1), b"a");
    fixture.can_do(1, "a");
    assert_eq!(fixture.engine.functions_of(conn_id(1)).collect::<Vec<_>>(), [b"a"]);
    fixture.effects();
    // What it hasn't finished when it goes is done by another.
    fixture.engine.revoke(conn_id(1), b"a");
    fixture.can_do(2, "a");
    fixture.disconnect(1);
    fixture.effects();
    assert!(fixture.grab(2).is_some());
}

/// A worker that had slept, whose function was revoked while it ran a job, and that registered it
/// again was marked as a sleeper and listed as awake: its end was an assertion, and in a release a
/// broken list of sleepers.
#[test]
fn a_function_that_is_registered_again_after_it_was_revoked_is_listed_as_awake() {
    let mut fixture = Fixture::new(settings());
    fixture.can_do(1, "a");
    fixture.background("a");
    fixture.grab(1).unwrap();
    fixture.sleep(1);
    fixture.effects();
    assert_eq!(fixture.grab(1), None, "it is awake");
    fixture.engine.revoke(conn_id(1), b"a");
    fixture.can_do(1, "a");
    fixture.effects();
    fixture.disconnect(1);
    fixture.effects();
    // Others are listed as they were.
    fixture.can_do(2, "a");
    assert!(fixture.grab(2).is_some(), "what the first one hadn't finished");
    fixture.sleep(2);
    fixture.background("a");
    assert!(fixture.effects().iter().any(|it| matches!(it, Effect::Noop { .. })));
}

proptest! {
    // A quarter of them met a mark that outlived a revocation in few runs only.
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn batches_of_several_connections_leave_no_job_beside_a_sleeper(
        batches in vec(vec(any_step(), 1..6), 1..40),
    ) {
        // Requests of several connections come in one turn of the loop. Tests that ended the batch
        // after each request never met a condition that was looked at before the batch was over.
        let mut fixture = Fixture::new(settings());
        for batch in batches {
            batch.into_iter().for_each(|step| take_step(&mut fixture, step));
            // Checks that a function with sleepers has as many leases as queued jobs.
            fixture.effects();
        }
    }
}
