//! The protocol by which a worker gets jobs from several cores, held against every order of events.
//!
//! Cores talk in letters that take any time; the search walks through all states that the steps
//! lead to. The rules in words stand at `the_rules_hold_for_one_worker`. Each is left out once, to
//! show that it is needed and that its absence is seen. `PROTOCOL_DEEP=1` looks at larger worlds
//! as well (minutes).
#![allow(clippy::unwrap_used, reason = "a test helper that finds nothing is a failed test")]

mod model;
mod search;
mod step;

use model::{Rule, Scenario};
use search::{Breach, explore};

/// Jobs and workers of a small world: each worker's home and the cores whose jobs it can run; each
/// job's core and priority.
fn world(cores: usize, workers: &[(usize, &[usize])], jobs: &[(usize, u8)]) -> Scenario {
    Scenario {
        cores,
        workers: workers.iter().map(|(home, able)| (*home, able.to_vec())).collect(),
        jobs: jobs.to_vec(),
        losses: 0,
        withdrawals: 0,
        whims: 0,
        timers: false,
        without: Vec::new(),
    }
}

/// A worker that lives with one of the cores whose jobs it runs.
fn pair() -> Scenario {
    world(2, &[(0, &[0, 1])], &[(0, 0), (1, 1)])
}

/// Two workers that compete across two cores.
fn rivals() -> Scenario {
    world(2, &[(0, &[0, 1]), (1, &[0, 1])], &[(0, 0), (1, 1)])
}

/// Two workers of one home, and one core with jobs of two priorities.
fn guests() -> Scenario {
    world(2, &[(0, &[1]), (0, &[1])], &[(1, 0), (1, 1)])
}

/// A worker between two cores with equal jobs.
fn between() -> Scenario {
    world(3, &[(0, &[1, 2])], &[(1, 0), (2, 0)])
}

/// Two workers between two cores.
fn crowd() -> Scenario {
    world(3, &[(0, &[1, 2]), (0, &[1, 2])], &[(1, 0), (2, 0)])
}

/// Panics with the way to the first breach.
fn expect_right(scenario: &Scenario) {
    match explore(scenario) {
        Ok(states) => println!("{states} states"),
        Err(found) => panic!("{}\nin {scenario:#?}", found.story()),
    }
}

fn expect_breach(scenario: Scenario, without: Rule, expected: Breach) {
    let scenario = Scenario { without: vec![without], ..scenario };
    match explore(&scenario) {
        Ok(states) => panic!("{without:?} isn't missed in {states} states"),
        Err(found) => assert_eq!(found.breach, expected, "{}", found.story()),
    }
}

/// # The rules
///
/// The *home* of a worker is the core with its connection; an *owner* is a core with functions that
/// it can run. The home is an owner like any other, its letters to itself are calls. Letters
/// between two cores stay in order. A *mask* is a set of priorities.
///
/// The home keeps per worker: whether it sleeps; per owner a mask `hints` of what may have jobs and
/// a flag `told` (the owner was told of a sleep); and `woken_by`, an owner or none.
/// * CAN_DO: `CanDo` to the owner; if the worker sleeps and `told` isn't set, `Sleep` follows and
///   it is set. CANT_DO: `CantDo`; with the last function of an owner `told` is cleared, and
///   `woken_by` if it is this owner; hints stay. The end of the connection: `CantDo` for everything
///   to all owners, and all of the above forgotten.
/// * GRAB_JOB: the worker is awake. The home takes the owner with the most urgent hint (`woken_by`
///   before its equals, then in turns), clears its `told` and sends `Grab{priority}`; without hints
///   it answers NO_JOB. What the worker sends meanwhile waits until the grab is answered.
/// * PRE_SLEEP: with any hint NOOP at once. Else the worker sleeps, and each owner whose `told`
///   isn't set gets `Sleep`, and `told` is set.
/// * `Hint{mask}`: added to the owner's hints, also if the worker sleeps.
/// * `Noop{mask}`: added to the hints; `told` is cleared. If the worker sleeps, it is awake, gets
///   NOOP, and `woken_by` is this owner. Else `Declined` goes back.
/// * `Assigned{job, mask}`: the mask replaces the owner's hints; JOB_ASSIGN. If `woken_by` is
///   another owner, that gets `Declined`. None is `woken_by` now.
/// * `Empty{mask}`: the mask replaces the owner's hints; `woken_by` is cleared if it is this owner.
///   Then as after GRAB_JOB.
/// * Letters from owners bear the connection's session; those of another session are dropped.
///
/// The owner keeps per worker: its session; `nap` (awake, asleep, woken with a lease); and a mask
/// `ready` of what had jobs since it last looked.
/// * `CanDo`: awake, `ready` is what has jobs; if that isn't nothing, `Hint{ready}`.
/// * A job comes into a queue: `ready` of every worker gets its priority; those to which that is
///   new and who aren't asleep get `Hint`. Then sleepers are woken, but not at once: when the core
///   is done with all that came together, while there are fewer leases than jobs and somebody is
///   asleep, one becomes woken and gets `Noop{ready}`.
/// * `Grab{priority}`: the worker is awake, its lease ends. `Assigned` with the most urgent job if
///   that is urgent enough, else `Empty`, both with what has jobs now, which becomes `ready`. If a
///   lease ended, sleepers are woken. A worker that isn't known gets `Empty` with nothing.
/// * `Sleep`: if woken, nothing: its NOOP is on the way. Else asleep; sleepers are woken.
/// * `Declined`, and the end of the lease's time: if woken, awake; sleepers are woken.
/// * `CantDo`: jobs of the function that the worker has go back to their queue (after it is
///   forgotten, so that they don't wake it); a lease ends; sleepers are woken.
///
/// # What holds
///
/// With no letter on its way and all cores done: no job lies beside a sleeper that could run it
/// without a lease; leases are with workers that are about to grab; workers that are about know of
/// every queue with jobs; no grab is unanswered. At any time: a job is with one worker or on its
/// way. And whatever the delays, without new jobs, losses or whims everything comes to rest, also
/// when leases run out at any time.
#[test]
fn the_rules_hold_for_one_worker() {
    for world in [pair(), between()] {
        expect_right(&Scenario { losses: 1, timers: true, ..world.clone() });
        expect_right(&Scenario { whims: 2, timers: true, ..world.clone() });
        expect_right(&Scenario { withdrawals: 1, whims: 1, ..world });
    }
}

#[test]
fn the_rules_hold_for_rivals() {
    expect_right(&Scenario { timers: true, ..rivals() });
    expect_right(&Scenario { whims: 1, ..rivals() });
    expect_right(&Scenario { losses: 1, ..guests() });
    expect_right(&Scenario { whims: 1, timers: true, ..guests() });
}

#[test]
fn the_rules_hold_between_three_cores() {
    expect_right(&crowd());
}

#[test]
fn the_rules_hold_in_larger_worlds_if_asked() {
    if std::env::var_os("PROTOCOL_DEEP").is_none() {
        return;
    }
    expect_right(&Scenario { losses: 1, timers: true, ..rivals() });
    expect_right(&Scenario { withdrawals: 1, ..rivals() });
    expect_right(&Scenario { whims: 1, timers: true, ..rivals() });
    expect_right(&Scenario { timers: true, ..crowd() });
    expect_right(&Scenario { whims: 1, ..crowd() });
    expect_right(&world(2, &[(0, &[1]), (0, &[1])], &[(1, 0), (1, 1), (1, 1)]));
    expect_right(&world(3, &[(0, &[1, 2]), (0, &[1])], &[(1, 0), (1, 1), (2, 0)]));
}

#[test]
fn every_rule_that_serves_correctness_is_missed() {
    let lossy = |world| Scenario { losses: 1, ..world };
    let whimsical = |world| Scenario { whims: 1, timers: true, ..world };
    expect_breach(pair(), Rule::LookBeforeSleep, Breach::LostWakeup);
    expect_breach(whimsical(guests()), Rule::NextSleeper, Breach::LostWakeup);
    expect_breach(lossy(pair()), Rule::Sessions, Breach::TwiceGiven);
    expect_breach(lossy(pair()), Rule::Requeue, Breach::LostJob);
    let equals = world(2, &[(0, &[1]), (0, &[1])], &[(1, 0), (1, 0)]);
    expect_breach(equals, Rule::EmptyForgets, Breach::Unaware);
    expect_breach(pair(), Rule::NoopHints, Breach::Unaware);
}

#[test]
fn every_rule_that_serves_promptness_is_missed() {
    let whimsical = |world| Scenario { whims: 1, ..world };
    expect_breach(pair(), Rule::Decline, Breach::IdleLease);
    expect_breach(rivals(), Rule::GiveBack, Breach::IdleLease);
    expect_breach(whimsical(pair()), Rule::HintsForbidSleep, Breach::IdleLease);
}

#[test]
fn saving_letters_changes_nothing_but_their_number() {
    for world in [pair(), between(), guests()] {
        expect_right(&Scenario {
            timers: true,
            without: vec![Rule::Thrift, Rule::AssignedHints],
            ..world
        });
    }
}
