//! The rules between cores, held by the server's own shards in every order of events.
//!
//! A few shards, messages between them that take any time, workers and clients as scripts; a search
//! tries all orders in which messages arrive, peers act, leases end, batches end, connections are
//! lost and change their core. The rules in words are at `Rules` in `src/shard/remote`, what must
//! hold in `checks`. To show that a breach is seen, messages are lost or changed (`Fault`).
//! `CROSS_CORE_DEEP=1` tries larger worlds as well (minutes).
#![allow(clippy::unwrap_used, reason = "a test helper that finds nothing is a failed test")]

mod checks;
mod cluster;
mod peer;
mod scenario;
mod search;

use checks::Breach;
use scenario::{Fault, Scenario};
use search::{Size, explore};

/// Panics with the way to the first breach.
fn expect_right(scenario: &Scenario) {
    match explore(scenario) {
        Ok(Size { states, steps }) => println!("{states} states, {steps} steps"),
        Err(found) => panic!("{}\nin {scenario:#?}", found.story()),
    }
}

fn expect_breach(scenario: Scenario, fault: Fault, expected: Breach) {
    let scenario = Scenario { fault: Some(fault), ..scenario };
    match explore(&scenario) {
        Ok(size) => panic!("{fault:?} isn't noticed in {size:?}"),
        Err(found) => assert_eq!(found.breach, expected, "{}", found.story()),
    }
}

/// A worker that lives with one of the cores whose jobs it runs.
fn pair() -> Scenario {
    Scenario::new(2, &[(0, &[0, 1])], &[(0, 0, 0), (1, 1, 1)])
}

/// A worker between two cores with equal jobs.
fn between() -> Scenario {
    Scenario::new(3, &[(0, &[1, 2])], &[(1, 1, 0), (2, 2, 0)])
}

/// A worker that submits jobs of its own functions.
fn own() -> Scenario {
    Scenario::new(2, &[(0, &[0, 1])], &[(0, 1, 0), (0, 0, 1)]).submitted_by(0)
}

/// Two workers of different cores and a job of either's kind.
fn rivals() -> Scenario {
    Scenario::new(2, &[(0, &[0, 1]), (1, &[0, 1])], &[(1, 1, 0)])
}

/// The same with a job of each core.
fn many_rivals() -> Scenario {
    Scenario::new(2, &[(0, &[0, 1]), (1, &[0, 1])], &[(0, 0, 0), (1, 1, 1)])
}

/// Two workers of one home, and one core with jobs of two priorities.
fn guests() -> Scenario {
    Scenario::new(2, &[(0, &[1]), (0, &[1])], &[(1, 1, 0), (1, 1, 1)])
}

/// A worker with much to do at one core, and an urgent job of the other.
fn busy() -> Scenario {
    Scenario::new(2, &[(0, &[0, 1])], &[(0, 0, 2), (0, 0, 2), (1, 1, 0)])
}

/// Two workers, of which the owner of the urgent job may wake either.
fn overtaker() -> Scenario {
    Scenario::new(2, &[(0, &[0, 1]), (1, &[1])], &[(1, 1, 0), (0, 0, 2)])
}

/// Two workers between two cores.
fn crowd() -> Scenario {
    Scenario::new(3, &[(0, &[1, 2]), (0, &[1, 2])], &[(1, 1, 0)])
}

/// A worker that moves to the core of its jobs.
fn mover() -> Scenario {
    Scenario { move_after: 1, ..Scenario::new(2, &[(0, &[1])], &[(1, 1, 0), (1, 1, 1)]) }
}

/// A client that moves to the core of its jobs.
fn moving_client() -> Scenario {
    let scenario = Scenario::new(2, &[(1, &[1])], &[(0, 1, 0), (0, 1, 1)]);
    Scenario { move_after: 1, ..scenario.in_foreground() }
}

/// A connection of a worker, or its client, leaves the core of its jobs to make room.
fn leaver() -> Scenario {
    let scenario = Scenario::new(2, &[(1, &[1])], &[(1, 1, 0), (1, 1, 1)]);
    Scenario { offloads: 1, ..scenario.in_foreground() }
}

/// One of two workers leaves the core of its jobs to make room.
fn leavers() -> Scenario {
    Scenario { offloads: 1, ..Scenario::new(2, &[(1, &[1]), (1, &[1])], &[(1, 1, 0)]) }
}

#[test]
fn the_rules_hold_for_one_worker() {
    expect_right(&Scenario { losses: 1, timers: true, ..pair() });
    expect_right(&Scenario { whims: 2, timers: true, ..pair() });
    expect_right(&Scenario { withdrawals: 1, ..pair() });
    expect_right(&Scenario { whims: 2, timers: true, ..own() });
    expect_right(&Scenario { withdrawals: 1, ..own() });
    expect_right(&busy());
}

#[test]
fn the_rules_hold_between_three_cores() {
    expect_right(&Scenario { whims: 1, ..between() });
    expect_right(&Scenario { hangs: 1, timers: true, ..between() });
}

#[test]
fn the_rules_hold_for_two_workers() {
    expect_right(&Scenario { hangs: 1, timers: true, ..rivals() });
    expect_right(&Scenario { whims: 1, batch_max: 1, ..rivals() });
    expect_right(&Scenario { batch_max: 1, ..guests() });
    expect_right(&Scenario { batch_max: 1, ..overtaker() });
}

#[test]
fn the_rules_hold_for_connections_that_move_to_their_jobs() {
    for world in [mover(), moving_client()] {
        expect_right(&Scenario { losses: 1, timers: true, ..world.clone() });
        expect_right(&Scenario { whims: 1, stays: 1, timers: true, ..world.clone() });
        expect_right(&Scenario { withdrawals: 1, ..world });
    }
}

#[test]
fn the_rules_hold_for_connections_that_make_room() {
    expect_right(&Scenario { losses: 1, ..leaver() });
    expect_right(&Scenario { whims: 1, stays: 1, timers: true, ..leaver() });
    expect_right(&Scenario { withdrawals: 1, ..leaver() });
    expect_right(&Scenario { timers: true, batch_max: 1, ..leavers() });
    expect_right(&Scenario { move_after: 1, ..leaver() });
}

#[test]
fn the_rules_hold_in_larger_worlds_if_asked() {
    if std::env::var_os("CROSS_CORE_DEEP").is_none() {
        return;
    }
    expect_right(&guests());
    expect_right(&Scenario { hangs: 1, timers: true, batch_max: 1, ..guests() });
    expect_right(&Scenario { whims: 1, ..rivals() });
    expect_right(&Scenario { losses: 1, batch_max: 1, ..rivals() });
    expect_right(&Scenario { withdrawals: 1, batch_max: 1, ..rivals() });
    expect_right(&many_rivals());
    expect_right(&overtaker());
    expect_right(&Scenario { losses: 1, batch_max: 1, ..between() });
    expect_right(&Scenario { hangs: 1, timers: true, batch_max: 1, ..crowd() });
    expect_right(&leavers());
    expect_right(&Scenario { losses: 1, batch_max: 1, ..leavers() });
    expect_right(&Scenario { offloads: 1, stays: 1, ..mover() });
    expect_right(&Scenario { offloads: 1, stays: 1, ..moving_client() });
    expect_right(&Scenario { losses: 1, stays: 1, move_after: 1, ..leaver() });
}

#[test]
fn a_rule_that_is_left_out_is_missed() {
    let one = |world| Scenario { whims: 1, ..world };
    let lossy = |world| Scenario { losses: 1, ..world };
    let hanging = |world| Scenario { hangs: 1, timers: true, ..world };
    let staying = |world| Scenario { stays: 1, ..world };
    expect_breach(between(), Fault::DropDeclined, Breach::IdleLease);
    expect_breach(pair(), Fault::DropSleep, Breach::LostWakeup);
    expect_breach(pair(), Fault::DropNoop, Breach::IdleLease);
    expect_breach(busy(), Fault::DropHint, Breach::LessUrgent);
    expect_breach(one(pair()), Fault::StripReady, Breach::IdleLease);
    expect_breach(lossy(pair()), Fault::OldAsNew, Breach::TwiceGiven);
    expect_breach(hanging(rivals()), Fault::NeverTick, Breach::Unserved);
    expect_breach(staying(mover()), Fault::DropCancelled, Breach::IdleLease);
    expect_breach(staying(moving_client()), Fault::DropPush, Breach::LostReply);
    expect_breach(leaver(), Fault::DropPush, Breach::LostReply);
    expect_breach(leaver(), Fault::OffloadedAwake, Breach::IdleLease);
}
