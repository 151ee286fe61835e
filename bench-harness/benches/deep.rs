//! Deep queues: how fast an engine fills, works at depth and drains, how long the longest of its
//! calls takes, and what memory a job has; and how fast a shard is filled with packets.
//!
//! Prints a line for each depth, with and without unique keys. With `--quick`, only a small queue
//! is filled. `deep 10000000 unique` measures one line alone.
#![allow(clippy::expect_used, reason = "a bench that can't be set up has failed")]

mod common;

use std::time::Instant;

use hdrhistogram::Histogram;
use procfs::process::Process;
use ringgear::engine::Engine;
use ringgear::io::memory::Allocator;
use ringgear::shard::{Service, Settings, Shard};
use ringgear::wire::{Command, Magic, encode};

use common::{FUNCTION, NOW, PAYLOAD, connect, cycle, submit, unique, work};

/// The server's.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// Cycles that are measured at depth.
const CYCLES: u64 = 1_000_000;
/// Submissions that a shard gets with one read.
const IN_FLIGHT: u64 = 16;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let depth = arguments.iter().find_map(|argument| argument.parse::<u64>().ok());
    let depths = match depth {
        Some(depth) => vec![depth],
        None if common::is_quick() => vec![20_000],
        None => vec![1_000_000, 10_000_000],
    };
    let only = |word: &str| arguments.iter().any(|argument| argument == word);
    let kinds = [("unique", true), ("plain", false)];
    for depth in depths {
        let chosen =
            kinds.iter().filter(|(name, _)| only(name) || !kinds.iter().any(|it| only(it.0)));
        for &(name, has_unique) in chosen {
            println!("{depth} jobs, {name}");
            throughput(depth, has_unique);
            longest(depth, has_unique);
            shard(depth, has_unique);
        }
    }
}

/// The key of a job; empty without unique keys.
fn key(number: u64, has_unique: bool) -> ([u8; 16], usize) {
    (unique(number), if has_unique { 16 } else { 0 })
}

fn submit_one(engine: &mut Engine, body: &mut Vec<u8>, number: u64, has_unique: bool) {
    let (key, bytes) = key(number, has_unique);
    submit(engine, body, FUNCTION, &key[..bytes]);
}

/// Prints how many jobs a second some calls did.
fn print_rate(what: &str, jobs: u64, start: Instant) {
    let ns = start.elapsed().as_nanos() as f64 / jobs as f64;
    println!("  {what:<22} {ns:>7.1} ns a job, {:>6.2} M jobs/s", 1000.0 / ns);
}

fn resident_bytes() -> u64 {
    let statm = Process::myself().and_then(|process| process.statm()).expect("this process");
    statm.resident * procfs::page_size()
}

fn throughput(depth: u64, has_unique: bool) {
    let mut engine = common::engine([FUNCTION].into_iter());
    let mut body = Vec::new();
    let resident = resident_bytes();
    let start = Instant::now();
    for number in 0..depth {
        submit_one(&mut engine, &mut body, number, has_unique);
    }
    print_rate("fill", depth, start);
    let bytes = resident_bytes().saturating_sub(resident) as f64 / depth as f64;
    println!("  {:<22} {bytes:>7.1} bytes a job", "memory");
    // The first ones use memory that was never used before.
    for (what, first) in [("cycle, first", depth), ("cycle", depth + CYCLES)] {
        let start = Instant::now();
        for number in first..first + CYCLES {
            let (key, bytes) = key(number, has_unique);
            cycle(&mut engine, &mut body, FUNCTION, &key[..bytes]);
        }
        print_rate(what, CYCLES, start);
    }
    let start = Instant::now();
    while work(&mut engine) {}
    print_rate("drain", depth, start);
}

/// Times each call.
fn longest(depth: u64, has_unique: bool) {
    let mut engine = common::engine([FUNCTION].into_iter());
    let mut body = Vec::new();
    let mut filling = Histogram::<u64>::new(3).expect("three digits");
    let mut draining = filling.clone();
    for number in 0..depth {
        let start = Instant::now();
        submit_one(&mut engine, &mut body, number, has_unique);
        record(&mut filling, start);
    }
    for _ in 0..depth {
        let start = Instant::now();
        assert!(work(&mut engine), "there is a job");
        record(&mut draining, start);
    }
    for (what, times) in [("one submission", filling), ("one grab and end", draining)] {
        println!(
            "  {what:<22} p99.9 {:.1} µs, p99.999 {:.1} µs, at most {:.1} µs",
            times.value_at_quantile(0.999) as f64 / 1000.0,
            times.value_at_quantile(0.99999) as f64 / 1000.0,
            times.max() as f64 / 1000.0,
        );
    }
}

fn record(times: &mut Histogram<u64>, start: Instant) {
    let ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    times.record(ns).expect("it resizes itself");
}

/// Background submissions to a whole shard, some with each read.
fn shard(depth: u64, has_unique: bool) {
    let mut shard = Shard::new(Settings::default(), NOW);
    let client = connect(&mut shard);
    let mut bytes = Vec::new();
    let start = Instant::now();
    for number in 0..depth {
        let (key, key_bytes) = key(number, has_unique);
        encode(
            &mut bytes,
            Magic::Request,
            Command::SubmitJobBg,
            &[FUNCTION, &key[..key_bytes]],
            &PAYLOAD,
        );
        if number % IN_FLIGHT == IN_FLIGHT - 1 {
            shard.received(client, &bytes, NOW);
            bytes.clear();
            while let Some(conn) = shard.poll_dirty(NOW) {
                while let Some((chunk, _)) = shard.take(conn) {
                    shard.sent(conn, chunk, NOW);
                }
            }
        }
    }
    print_rate("fill by packets", depth, start);
    assert_eq!(shard.engine().jobs().len() as u64, depth / IN_FLIGHT * IN_FLIGHT);
}
