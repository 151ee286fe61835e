//! Tests of grabbing, sleeping and waking; see `engine::tests` for the rig.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::engine::job::Job;
use crate::engine::list::VISITED;
use crate::engine::sleep::UNCLAIMED_CHECKS_MAX;
use crate::engine::tests::{NOBODY, Rig, settings};
use crate::engine::{Settings, Wakeup};
use crate::wire::Command;

fn submit(rig: &mut Rig, command: Command, function: &str) -> u64 {
    rig.submit(0, command, &format!("{function}\0\0"))
}

fn grab_all(rig: &mut Rig, conn: ConnId) -> Vec<u64> {
    std::iter::from_fn(|| rig.grab(conn)).collect()
}

#[test]
fn urgency_counts_more_than_function_and_age() {
    let mut rig = Rig::new(settings());
    let low = submit(&mut rig, Command::SubmitJobLowBg, "a");
    let normal = submit(&mut rig, Command::SubmitJobBg, "a");
    let high = submit(&mut rig, Command::SubmitJobHighBg, "b");
    let late = submit(&mut rig, Command::SubmitJobHighBg, "a");
    ["a", "b"].iter().for_each(|function| rig.can_do(5, function));
    let grabbed = grab_all(&mut rig, 5);
    assert_eq!(grabbed, [high, late, normal, low]);
}

#[test]
fn functions_take_turns_and_the_first_named_one_begins() {
    // libgearman sends CAN_DO in the reverse of its program's order; see `can_do`.
    let mut rig = Rig::new(settings());
    ["second", "first"].iter().for_each(|function| rig.can_do(5, function));
    let first: Vec<u64> = (0..3).map(|_| rig.background("first")).collect();
    let second: Vec<u64> = (0..2).map(|_| rig.background("second")).collect();
    let grabbed = grab_all(&mut rig, 5);
    assert_eq!(grabbed, [first[0], second[0], first[1], second[1], first[2]]);
}

#[test]
fn a_function_that_comes_back_waits_for_its_turn() {
    let mut rig = Rig::new(settings());
    ["a", "b"].iter().for_each(|function| rig.can_do(5, function));
    let mut b: Vec<u64> = (0..4).map(|_| rig.background("b")).collect();
    for _ in 0..3 {
        let a = rig.background("a");
        let pair = [rig.grab(5).unwrap(), rig.grab(5).unwrap()];
        assert!(pair.contains(&a) && pair.contains(&b.remove(0)));
        rig.effects();
    }
}

#[test]
fn one_job_wakes_the_one_that_fell_asleep_last() {
    let mut rig = Rig::new(settings());
    for conn in 1..=4 {
        rig.can_do(conn, "resize");
        rig.sleep(conn);
    }
    rig.background("resize");
    assert_eq!(rig.woken(), [4]);
    rig.background("resize");
    assert_eq!(rig.woken(), [3]);
    assert!(rig.grab(4).is_some() && rig.grab(4).is_some(), "one worker takes both");
    rig.background("resize");
    assert_eq!(rig.woken(), NOBODY, "the other one that was woken hasn't come yet");
}

#[test]
fn a_job_that_comes_together_with_a_grab_wakes_nobody() {
    // It woke a sleeper for nothing: the one that was awake had the job before the NOOP had left.
    let mut rig = Rig::new(settings());
    for conn in 1..=2 {
        rig.can_do(conn, "resize");
        rig.sleep(conn);
    }
    let first = rig.background("resize");
    assert_eq!(rig.woken(), [2]);
    assert_eq!(rig.grab(2), Some(first));
    let second = rig.background("resize");
    assert_eq!(rig.grab(2), Some(second));
    assert_eq!(rig.woken(), NOBODY);
}

#[test]
fn who_falls_asleep_together_with_a_job_is_the_one_woken() {
    let mut rig = Rig::new(settings());
    for conn in 1..=2 {
        rig.can_do(conn, "resize");
    }
    rig.sleep(1);
    rig.background("resize");
    rig.sleep(2);
    assert_eq!(rig.woken(), [2]);
}

#[test]
fn who_falls_asleep_beside_a_job_that_another_was_woken_for_sleeps_on() {
    let mut rig = Rig::new(settings());
    ["resize", "rotate"].iter().for_each(|function| rig.can_do(1, function));
    rig.can_do(2, "resize");
    rig.sleep(2);
    rig.background("resize");
    assert_eq!(rig.woken(), [2]);
    rig.sleep(1);
    assert_eq!(rig.woken(), NOBODY);
    rig.pass(100);
    assert_eq!(rig.woken(), [1], "the other one has let its lease end");
    rig.background("rotate");
    rig.sleep(1);
    assert_eq!(rig.woken(), [1], "for a function that nobody was woken for");
}

#[test]
fn a_claimed_function_does_not_hide_one_that_nobody_was_woken_for() {
    let mut rig = Rig::new(settings());
    ["rotate", "resize"].iter().for_each(|function| rig.can_do(1, function));
    rig.can_do(2, "resize");
    rig.sleep(2);
    rig.background("resize");
    assert_eq!(rig.woken(), [2]);
    rig.background("rotate");
    rig.sleep(1);
    assert_eq!(rig.woken(), [1]);
}

#[test]
fn a_worker_with_more_claimed_functions_than_it_looks_at_is_woken_to_see_for_itself() {
    let mut rig = Rig::new(settings());
    let functions: Vec<String> = (0..=UNCLAIMED_CHECKS_MAX).map(|at| format!("f{at}")).collect();
    let (last, others) = functions.split_last().expect("functions");
    for (conn, function) in (1..).zip(&functions) {
        rig.can_do(0, function);
        rig.can_do(conn, function);
        rig.sleep(conn);
    }
    for function in others {
        rig.background(function);
    }
    assert_eq!(rig.woken().len(), UNCLAIMED_CHECKS_MAX);
    rig.sleep(0);
    assert_eq!(rig.woken(), NOBODY, "so many are looked at");
    rig.engine.mark_awake(0);
    rig.background(last);
    assert_eq!(rig.woken().len(), 1);
    rig.sleep(0);
    assert_eq!(rig.woken(), [0]);
}

#[test]
fn after_a_lease_that_ends_unused_all_other_sleepers_are_woken() {
    let mut rig = Rig::new(settings());
    for conn in 1..=3 {
        rig.can_do(conn, "resize");
        rig.sleep(conn);
    }
    rig.background("resize");
    assert_eq!(rig.woken(), [3]);
    rig.pass(99);
    assert_eq!(rig.woken(), NOBODY);
    rig.pass(1);
    assert_eq!(rig.woken(), [2, 1]);
    rig.pass(100);
    assert_eq!((rig.woken(), rig.engine.counters.leases_ended), (vec![], 3));
    rig.sleep(3);
    assert_eq!(rig.woken(), [3], "nobody falls asleep beside a job");
}

#[test]
fn a_woken_worker_that_leaves_hands_its_wake_up_on() {
    let losses: [fn(&mut Rig, ConnId); 3] = [
        |rig, conn| rig.disconnect(conn),
        |rig, conn| rig.engine.cant_do(conn, b"resize", rig.now),
        |rig, conn| rig.engine.reset_abilities(conn, rig.now),
    ];
    for lose in losses {
        let mut rig = Rig::new(settings());
        for conn in 1..=2 {
            rig.can_do(conn, "resize");
            rig.sleep(conn);
        }
        rig.background("resize");
        assert_eq!(rig.woken(), [2]);
        lose(&mut rig, 2);
        assert_eq!(rig.woken(), [1]);
    }
}

#[test]
fn a_worker_that_takes_other_work_than_it_was_woken_for_hands_its_wake_up_on() {
    let mut rig = Rig::new(settings());
    rig.can_do(1, "resize");
    rig.sleep(1);
    ["resize", "rotate"].iter().for_each(|function| rig.can_do(2, function));
    rig.sleep(2);
    let resize = rig.background("resize");
    assert_eq!(rig.woken(), [2]);
    let rotate = submit(&mut rig, Command::SubmitJobHighBg, "rotate");
    assert_eq!(rig.grab(2), Some(rotate));
    assert_eq!(rig.woken(), [1]);
    assert_eq!(rig.grab(1), Some(resize));
}

#[test]
fn a_sleeper_that_resets_its_abilities_sleeps_on() {
    // RESET_ABILITIES once woke the worker behind its back, without a NOOP: whatever it announced
    // afterwards, it was never woken for it, though it never grabbed of itself either.
    let mut rig = Rig::new(settings());
    rig.can_do(1, "resize");
    rig.sleep(1);
    rig.engine.reset_abilities(1, rig.now);
    rig.background("rotate");
    rig.can_do(1, "rotate");
    assert_eq!(rig.woken(), [1], "for the job that waits");
    assert!(rig.grab(1).is_some());
    rig.sleep(1);
    rig.background("rotate");
    assert_eq!(rig.woken(), [1], "and for the next one");
}

#[test]
fn a_worker_that_sleeps_again_without_grabbing_is_woken_again() {
    // gearmand remembers the NOOP that went unanswered and sends no other.
    let mut rig = Rig::new(settings());
    rig.can_do(1, "resize");
    rig.can_do(2, "resize");
    rig.sleep(1);
    let job = rig.background("resize");
    assert_eq!(rig.woken(), [1]);
    assert_eq!(rig.grab(2), Some(job));
    rig.sleep(1);
    assert_eq!(rig.woken(), NOBODY);
    rig.background("resize");
    assert_eq!(rig.woken(), [1]);
}

#[test]
fn a_sleeper_gets_to_know_new_abilities() {
    let mut rig = Rig::new(settings());
    rig.sleep(1);
    rig.background("resize");
    rig.can_do(1, "resize");
    assert_eq!(rig.woken(), [1]);
}

#[test]
fn worker_wakeup_wakes_as_many_as_it_says_for_each_job() {
    for (limit, first, second) in [(1, 1, 1), (3, 3, 2), (0, 5, 0)] {
        let mut rig = Rig::new(Settings { wakeup: Wakeup::Each(limit), ..settings() });
        for conn in 1..=5 {
            rig.can_do(conn, "resize");
            rig.sleep(conn);
        }
        rig.background("resize");
        assert_eq!(rig.woken().len(), first, "--worker-wakeup {limit}");
        rig.background("resize");
        assert_eq!(rig.woken().len(), second, "--worker-wakeup {limit}");
    }
}

#[test]
fn an_ability_announced_twice_counts_once_and_takes_the_new_time() {
    let mut rig = Rig::new(settings());
    rig.engine.can_do(1, b"resize", 1000);
    rig.engine.can_do(1, b"resize", 0);
    let id = rig.engine.functions().find(b"resize").unwrap();
    assert_eq!(rig.engine.functions()[id].workers, 1);
    rig.background("resize");
    assert!(rig.grab(1).is_some());
    assert_eq!(rig.engine.deadline_ms(), None, "without a limit now");
    rig.engine.cant_do(1, b"resize", rig.now);
    assert_eq!(rig.engine.functions()[id].workers, 0);
    assert_eq!(rig.engine.functions_of(1).count(), 0);
    rig.engine.cant_do(1, b"unheard-of", rig.now);
}

#[test]
fn a_worker_with_many_functions_grabs_without_looking_at_each() {
    // Not a measurement: what its turn list holds is what a grab may look at.
    let mut rig = Rig::new(settings());
    for number in 0..20_000 {
        rig.can_do(1, &format!("function-{number}"));
    }
    let job = rig.background("function-10000");
    let ready = rig.engine.peers[1].maybe_ready[1].iter(&rig.engine.abilities.records, READY[1]);
    assert_eq!(ready.count(), 1);
    assert_eq!((rig.grab(1), rig.grab(1)), (Some(job), None));
}

/// A worker with 20 000 running jobs that gave its functions up one by one stopped its core for
/// more than a second: each time all of its jobs were looked at.
#[test]
fn giving_functions_up_one_by_one_looks_at_no_jobs_of_others() {
    const FUNCTIONS: usize = 2000;
    let mut rig = Rig::new(settings());
    let names: Vec<String> = (0..FUNCTIONS).map(|number| format!("function-{number}")).collect();
    for name in &names {
        rig.can_do(1, name);
        rig.background(name);
        rig.background(name);
    }
    for _ in 0..2 * FUNCTIONS {
        rig.engine.grab(1, Priority::Low, rig.now).expect("one is left");
    }
    VISITED.set(0);
    // Whichever of its jobs are the latest.
    for (first, last) in names.iter().zip(names.iter().rev()).take(FUNCTIONS / 2) {
        for name in [first, last] {
            rig.engine.cant_do(1, name.as_bytes(), rig.now);
        }
    }
    assert!(VISITED.get() <= 10 * FUNCTIONS, "{} steps", VISITED.get());
    rig.engine.check_invariants();
    assert_eq!(rig.engine.functions()[0].queued, 2);
    assert!(rig.engine.is_bare(1));
}

#[test]
fn a_home_elsewhere_is_told_of_jobs_once_until_it_asks() {
    // Each of a roaming worker's functions that got its first job cost a letter: six for each job
    // with 128 functions on eight cores, more than the job itself.
    let mut rig = Rig::new(settings());
    rig.engine.mark_remote(1);
    ["a", "b", "c"].iter().for_each(|function| rig.can_do(1, function));
    rig.background("a");
    assert_eq!(rig.effects(), [Effect::Hint { conn: 1 }]);
    rig.background("b");
    assert_eq!(rig.effects(), [], "that there are some is known");
    submit(&mut rig, Command::SubmitJobHighBg, "b");
    assert_eq!(rig.effects(), [Effect::Hint { conn: 1 }], "that some are urgent is new");
    rig.can_do(2, "a");
    rig.can_do(2, "b");
    assert_eq!(grab_all(&mut rig, 2).len(), 3);
    rig.background("c");
    assert_eq!(rig.effects(), [], "what it was told of is gone, but it has yet to ask");
    assert!(rig.grab(1).is_some() && rig.engine.ready(1).is_empty());
    rig.background("a");
    assert_eq!(rig.effects(), [Effect::Hint { conn: 1 }]);
}

#[test]
fn a_sleeper_hears_of_every_function_that_has_jobs_when_the_batch_ends() {
    // PRE_SLEEP looked for one function with jobs and remembered it alone. When another worker took
    // that job later in the same batch, the sleeper wasn't woken for its other function's job,
    // which lay beside it for ever: no lease ran.
    let mut rig = Rig::new(settings());
    ["g", "f"].iter().for_each(|function| rig.can_do(5, function));
    rig.can_do(6, "f");
    let f = rig.background("f");
    let g = rig.background("g");
    rig.sleep(5);
    assert_eq!(rig.grab(6), Some(f));
    assert_eq!(rig.woken(), [5]);
    assert_eq!(rig.grab(5), Some(g));

    // The same by CANT_DO in the sleeper's own segment, and by a cancelled job.
    let f = rig.background("f");
    let g = rig.background("g");
    rig.sleep(5);
    rig.engine.cant_do(5, b"f", rig.now);
    assert_eq!(rig.woken(), [5]);
    assert_eq!((rig.grab(5), rig.grab(6)), (Some(g), Some(f)));
    rig.can_do(5, "f");
    let f = rig.background("f");
    let g = rig.background("g");
    rig.sleep(5);
    rig.engine.cancel(f);
    assert_eq!(rig.woken(), [5]);
    assert_eq!(rig.grab(5), Some(g));
}

#[test]
fn a_job_waits_one_lease_however_many_sleepers_never_answer() {
    // Leases ran one after the other: behind 200 workers of a host that had gone, a job waited for
    // 20 seconds.
    let mut rig = Rig::new(settings());
    (10..200).for_each(|conn| rig.engine.connect(conn));
    for conn in 1..200 {
        rig.can_do(conn, "resize");
        rig.sleep(conn);
    }
    let job = rig.background("resize");
    assert_eq!(rig.woken(), [199]);
    rig.pass(100);
    assert_eq!(rig.woken().len(), 198);
    assert_eq!(rig.grab(1), Some(job));
    rig.pass(100);
    assert_eq!(rig.woken(), NOBODY, "nothing is left to be woken for");
}

/// A request of one of several connections, or a lease's length that passes.
#[derive(Clone, Copy, Debug)]
enum Step {
    CanDo(ConnId, usize),
    CantDo(ConnId, usize),
    Reset(ConnId),
    Grab(ConnId),
    Sleep(ConnId),
    Submit(usize),
    CancelOldest,
    Finish(ConnId),
    Disconnect(ConnId),
    Pass,
}

const FUNCTIONS: [&str; 3] = ["f", "g", "h"];

fn any_step() -> impl Strategy<Value = Step> {
    let (conn, function) = (|| 1..5 as ConnId, || 0..FUNCTIONS.len());
    prop_oneof![
        3 => (conn(), function()).prop_map(|(conn, function)| Step::CanDo(conn, function)),
        1 => (conn(), function()).prop_map(|(conn, function)| Step::CantDo(conn, function)),
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

fn take_step(rig: &mut Rig, step: Step) {
    let oldest = |rig: &Rig, is_it: &dyn Fn(&Job) -> bool| {
        let jobs = rig.engine.jobs().iter_from(0);
        jobs.filter(|(_, job)| is_it(job)).map(|(_, job)| job.number).min()
    };
    match step {
        Step::CanDo(conn, function) => rig.can_do(conn, FUNCTIONS[function]),
        Step::CantDo(conn, function) => {
            rig.engine.cant_do(conn, FUNCTIONS[function].as_bytes(), rig.now);
        }
        Step::Reset(conn) => rig.engine.reset_abilities(conn, rig.now),
        Step::Grab(conn) => drop(rig.grab(conn)),
        Step::Sleep(conn) => rig.sleep(conn),
        Step::Submit(function) => drop(rig.background(FUNCTIONS[function])),
        Step::CancelOldest => {
            if let Some(number) = oldest(rig, &|job| job.state == State::Queued) {
                rig.engine.cancel(number);
            }
        }
        Step::Finish(conn) => {
            let abilities = &rig.engine.abilities.records;
            let its_own = |job: &Job| {
                job.state == State::Running && abilities[job.ability as usize].conn == conn
            };
            if let Some(number) = oldest(rig, &its_own) {
                rig.engine.work_finished(conn, number).unwrap();
            }
        }
        Step::Disconnect(conn) => rig.disconnect(conn),
        Step::Pass => rig.pass(settings().lease_ms),
    }
}

proptest! {
    #[test]
    fn batches_of_several_connections_leave_no_job_beside_a_sleeper(
        batches in vec(vec(any_step(), 1..6), 1..40),
    ) {
        // Requests of several connections come in one turn of the loop. Tests that ended the batch
        // after each request never met a condition that was looked at before the batch was over.
        let mut rig = Rig::new(settings());
        for batch in batches {
            batch.into_iter().for_each(|step| take_step(&mut rig, step));
            // Checks that as many leases run as jobs lie beside able sleepers.
            rig.effects();
        }
    }
}
