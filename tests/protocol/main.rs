//! The protocol by which a worker gets jobs from several cores, checked in every order of events.
#![allow(clippy::unwrap_used, reason = "a test helper that finds nothing is a failed test")]

mod model;
mod search;

use model::{Rule, Scenario};
use search::{Breach, explore};

fn scenario(cores: usize, workers: &[(usize, &[usize])], jobs: &[(usize, u8)]) -> Scenario {
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

fn as_written() -> Vec<Rule> {
    vec![Rule::Thrift, Rule::GiveBack, Rule::AssignedHints]
}

#[test]
fn trial() {
    let base = [
        ("2c1w", scenario(2, &[(0, &[0, 1])], &[(0, 0), (1, 1)])),
        ("2c1w remote", scenario(2, &[(0, &[1])], &[(1, 0), (1, 1)])),
        ("2c2w", scenario(2, &[(0, &[0, 1]), (1, &[0, 1])], &[(0, 0), (1, 1)])),
        ("2c2w same", scenario(2, &[(0, &[0, 1]), (0, &[0, 1])], &[(1, 0), (1, 1)])),
        ("3c1w", scenario(3, &[(0, &[1, 2])], &[(1, 0), (2, 0)])),
        ("3c2w", scenario(3, &[(0, &[1, 2]), (0, &[1, 2])], &[(1, 0), (2, 0)])),
        ("3c2w b", scenario(3, &[(0, &[1, 2]), (1, &[1, 2])], &[(1, 0), (2, 0)])),
        ("3c2w c", scenario(3, &[(0, &[1, 2]), (0, &[1])], &[(1, 0), (1, 1)])),
    ];
    for (name, base) in base {
        for (what, losses, withdrawals, whims, timers) in
            [("plain", 0, 0, 0, false), ("timers", 0, 0, 0, true), ("whim", 0, 0, 1, false),
             ("loss", 1, 0, 0, false), ("withdraw", 0, 1, 0, false), ("loss+timers", 1, 0, 0, true),
             ("whim+timers", 0, 0, 1, true)] {
            for (rules, without) in [("all", vec![]), ("written", as_written())] {
                let scenario = Scenario { losses, withdrawals, whims, timers, without, ..base.clone() };
                let start = std::time::Instant::now();
                match explore(&scenario) {
                    Ok(states) => println!("{name} {what} {rules}: {states} states {:?}", start.elapsed()),
                    Err(found) => println!("{name} {what} {rules}: {:?} {:?} \n   {:?}", found.breach, found.way, found.state),
                }
            }
        }
    }
}
