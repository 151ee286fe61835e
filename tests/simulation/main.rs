//! A seeded simulation of one whole shard: many clients and workers, one clock, one generator.
//!
//! `world` drives the shard, its peers and its store by chance, `peer` says what a peer may want,
//! `wire` and `ledger` read what the shard sends, `tls` has what some peers say in
//! records, `policies` what a functions file may say, `store` is a disk that fails, and `model` is
//! what the server has promised. Seeds with an odd number have a store. Invariant: a seed fully
//! determines a run.
//!
//! `SIMULATION_SEED=n` replays one run, `SIMULATION_SEEDS=n` runs so many, `SIMULATION_STEPS=n`
//! sets how much happens in each. A failure prints its seed, its step and what led to it.
#![allow(clippy::unwrap_used, reason = "a test helper that finds nothing is a failed test")]

mod admin;
mod audit;
mod delayed_messages;
mod ledger;
mod mesh;
mod model;
mod peer;
mod policies;
mod several_servers;
mod sleep_wakeup;
mod store;
mod tls;
#[path = "../support/tls_pair.rs"]
mod tls_pair;
mod wire;
mod world;

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::panic::resume_unwind;

use delayed_messages::DelayedMessages;
use several_servers::SeveralServers;
use sleep_wakeup::SleepWakeup;
use world::World;

const SEEDS: u64 = 300;
const STEPS: u64 = 500;
/// Worlds of several servers.
const SEVERAL_SERVERS_SEEDS: u64 = 20;
/// Small worlds for each large one.
const SLEEP_WAKEUP_RUNS_PER_SEED: u64 = 20;

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")))
}

fn run(seed: u64) -> World {
    let mut world = World::new(seed);
    let steps = setting("SIMULATION_STEPS").unwrap_or(STEPS);
    for step in 0..steps {
        world.step(step);
    }
    world.drain();
    world
}

#[test]
fn a_shard_keeps_all_promises_whatever_its_peers_do() {
    if let Some(seed) = setting("SIMULATION_SEED") {
        run(seed);
        return;
    }
    let seeds = setting("SIMULATION_SEEDS").unwrap_or(SEEDS);
    let mut events: BTreeMap<&str, u64> = BTreeMap::new();
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let tallies = std::thread::scope(|scope| {
        let runs = |thread| {
            move || {
                let mut events: Vec<(&'static str, u64)> = Vec::new();
                for seed in (thread..seeds).step_by(usize::try_from(threads).unwrap()) {
                    events.extend(run(seed).model.tally.events);
                }
                events
            }
        };
        let threads: Vec<_> = (0..threads).map(|thread| scope.spawn(runs(thread))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .collect::<Vec<_>>()
    });
    for (what, count) in tallies.into_iter().flatten() {
        *events.entry(what).or_default() += count;
    }
    println!("{events:#?}");
    if seeds >= SEEDS {
        for what in EVENTS {
            assert!(
                events.contains_key(what),
                "`{what}` never happens: the simulation has gone dull"
            );
        }
    }
}

/// What a simulation of the usual size has to come across.
const EVENTS: [&str; 64] = [
    "abandoned",
    "attempts kept",
    "background job",
    "cancel notice",
    "cancelled",
    "coalesced",
    "dead cancelled",
    "dead removed",
    "dead requeued",
    "dead restored",
    "dead: exception",
    "dead: expired",
    "dead: fail",
    "dead: lost",
    "dead: timeout",
    "dead: too many",
    "dead: too old",
    "delayed job",
    "ended before it was kept",
    "error reply",
    "exhausted",
    "expired",
    "failed late",
    "failure behind an exception",
    "finished",
    "finished after a pause",
    "finished late",
    "foreground failure",
    "foreground job",
    "foreground rerun",
    "forwarded",
    "function paused",
    "function resumed",
    "grabbed",
    "kept first",
    "kept later",
    "lease ended",
    "lost answered",
    "lost unanswered",
    "made durable by joining",
    "made room",
    "moved",
    "no sleep",
    "not kept",
    "pause over",
    "pause restored",
    "paused for replies",
    "policies reloaded",
    "power cut",
    "purged",
    "queue full",
    "refused: out of memory",
    "refused: too large",
    "requeued",
    "restored",
    "resumed",
    "retried later",
    "retrying restored",
    "run before its time",
    "started late",
    "timed out",
    "touched",
    "unique in use",
    "waited for the store",
];

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let trace = |seed| run(seed).hasher.finish();
    let traces: Vec<u64> = (1_000_000..1_000_010).map(trace).collect();
    let again: Vec<u64> = (1_000_000..1_000_010).map(trace).collect();
    assert_eq!(traces, again);
    assert_ne!(traces[0], traces[1], "seeds differ");
}

#[test]
fn shards_keep_their_promises_however_slow_their_letters() {
    let run_delayed = |seed| {
        let mut world = DelayedMessages::new(seed);
        world.run(setting("SIMULATION_STEPS").unwrap_or(STEPS));
        std::mem::take(&mut world.events)
    };
    if let Some(seed) = setting("SIMULATION_SEED") {
        run_delayed(seed);
        return;
    }
    let mut events: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 0..setting("SIMULATION_SEEDS").unwrap_or(SEEDS) / 2 {
        for (what, count) in run_delayed(seed) {
            *events.entry(what).or_default() += count;
        }
    }
    println!("{events:#?}");
    assert!(events["congested"] > 0, "rings never fill: the simulation has gone dull");
}

#[test]
fn no_wake_up_is_lost_or_left_to_a_timer() {
    if let Some(seed) = setting("SIMULATION_SEED") {
        return SleepWakeup::new(seed).run();
    }
    let seeds = setting("SIMULATION_SEEDS").unwrap_or(SEEDS) * SLEEP_WAKEUP_RUNS_PER_SEED;
    let (mut woken, mut in_vain) = (0, 0);
    for seed in 0..seeds {
        let mut world = SleepWakeup::new(seed);
        world.run();
        woken += world.woken;
        in_vain += world.in_vain;
    }
    println!("{woken} times a worker was woken, {in_vain} times in vain");
    assert!(woken > seeds, "hardly anybody sleeps: the simulation has gone dull");
}

#[test]
fn several_servers_keep_their_promises_whatever_fails() {
    let run = |seed| {
        let mut world = SeveralServers::new(seed);
        world.run(setting("SIMULATION_STEPS").unwrap_or(STEPS * 4));
        std::mem::take(&mut world.promises.events)
    };
    if let Some(seed) = setting("SIMULATION_SEED") {
        run(seed);
        return;
    }
    let mut events: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 0..setting("SIMULATION_SEEDS").unwrap_or(SEVERAL_SERVERS_SEEDS) {
        for (what, count) in run(seed) {
            *events.entry(what).or_default() += count;
        }
    }
    println!("{events:#?}");
    let expected = ["adopted", "assigned again", "failover", "left", "lost answer", "refused"];
    for what in expected {
        assert!(events.contains_key(what), "`{what}` never happens: the simulation has gone dull");
    }
}
