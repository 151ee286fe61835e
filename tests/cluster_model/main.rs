//! Three servers, two partitions: the rules of owning, in every order of events.
//!
//! The server's own watch, lease and blocks decide; the database is a table with the fence and the
//! compare-and-swap of docs/cluster.md, and time comes in ticks. A search tries all orders in which
//! servers beat, read, adopt, lose, free and leave, are killed, stopped and cut off, and in which
//! commits arrive or don't. What must hold is at `Breach`. To show that a breach is seen, rules are
//! left out (`Fault`). `CLUSTER_MODEL_DEEP=1` tries larger worlds as well (minutes).

mod database;
mod scenario;
mod search;
mod server;
mod world;

use scenario::{Fault, Scenario};
use search::explore;
use world::Breach;

/// Panics with the way to the first breach.
fn expect_right(scenario: Scenario) {
    match explore(scenario) {
        Ok(states) => println!("{states} states in {scenario:?}"),
        Err(found) => panic!("{}\nin {scenario:?}", found.story()),
    }
}

fn expect_breach(scenario: Scenario, fault: Fault, expected: &[Breach]) {
    let scenario = Scenario { fault: Some(fault), ..scenario };
    match explore(scenario) {
        Ok(states) => panic!("{fault:?} isn't noticed in {states} states"),
        Err(found) => assert!(expected.contains(&found.breach), "{}", found.story()),
    }
}

/// Long enough for an adoption.
fn world() -> Scenario {
    Scenario { hits: &[1], begin: 1, ticks: 5, ..Scenario::default() }
}

/// Commits whose outcome is not known.
fn unsure() -> Scenario {
    Scenario { delays: 1, losses: 1, submissions: 1, runs: 1, ticks: 3, ..world() }
}

#[test]
fn a_killed_servers_jobs_are_adopted() {
    expect_right(Scenario { kills: 1, ..world() });
    expect_right(Scenario { kills: 1, tells_locks: true, ticks: 4, runs: 1, ..world() });
}

#[test]
fn a_stopped_server_wakes_up_suspended() {
    expect_right(Scenario { pauses: 1, submissions: 1, ..world() });
}

#[test]
fn a_server_that_is_cut_off_loses_its_partition_and_goes_on() {
    expect_right(Scenario { cuts: 1, submissions: 1, ..world() });
}

#[test]
fn an_adopter_that_is_stopped_halfway_is_followed_by_another_server() {
    let leaves = Scenario { hits: &[1, 2], leaves: 1, pauses: 1, ..world() };
    expect_right(leaves);
}

#[test]
fn a_commit_that_takes_its_time_comes_in_time_or_never() {
    expect_right(Scenario { delays: 1, submissions: 1, ticks: 4, ..world() });
    expect_right(Scenario { ticks: 2, ..unsure() });
}

#[test]
fn an_outage_of_the_database_moves_nothing() {
    expect_right(Scenario { begin: 2, outages: 1, pauses: 1, ..world() });
}

#[test]
fn a_server_that_leaves_offers_its_partition() {
    expect_right(Scenario { leaves: 1, kills: 1, runs: 1, ticks: 3, ..world() });
}

#[test]
fn the_rules_hold_in_larger_worlds_if_asked() {
    if std::env::var_os("CLUSTER_MODEL_DEEP").is_none() {
        return;
    }
    expect_right(Scenario { kills: 1, delays: 1, submissions: 1, ticks: 6, ..world() });
    expect_right(Scenario { pauses: 1, delays: 1, runs: 1, ..world() });
    expect_right(Scenario { cuts: 1, runs: 1, submissions: 1, ..world() });
    expect_right(Scenario { begin: 2, ticks: 3, ..unsure() });
    expect_right(Scenario { hits: &[0, 1, 2], leaves: 1, kills: 1, ticks: 6, ..world() });
    let halfway = Scenario { hits: &[1, 2], leaves: 1, pauses: 1, ticks: 6, ..world() };
    expect_right(Scenario { begin: 2, ..halfway });
}

#[test]
fn a_rule_that_is_left_out_is_missed() {
    let stopped = Scenario { pauses: 1, submissions: 1, ..world() };
    expect_breach(stopped, Fault::NoFence, &[Breach::LateCommit, Breach::NotSuspended]);
    expect_breach(Scenario { cuts: 1, ..world() }, Fault::NoMargin, &[Breach::NotSuspended]);
    let outage = Scenario { begin: 2, outages: 1, pauses: 1, ..world() };
    expect_breach(outage, Fault::AnySession, &[Breach::AdoptedEarly]);
    expect_breach(unsure(), Fault::NoReclaim, &[Breach::Resurrected]);
    let homeless = Scenario { cuts: 1, submissions: 1, ..world() };
    expect_breach(homeless, Fault::RetryInNewHome, &[Breach::Misplaced]);
}
