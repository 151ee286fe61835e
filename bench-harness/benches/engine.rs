//! The engine alone: submit, grab, complete with so many jobs queued, what unique keys, wide
//! function tables and timers cost.
//!
//! The depth stays as it is while a cycle is measured. With `--quick`, 10 M queued jobs are left
//! out.

mod common;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringgear::engine::timer::Timers;
use ringgear::io::memory::Allocator;

use common::{FUNCTION, cycle, filled, submit, unique};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// Functions of one worker.
const WIDTHS: [usize; 3] = [1, 1000, 20_000];
/// Timers that are set all along.
const TIMERS: [u64; 2] = [1000, 1_000_000];
/// How far ahead they lie at most.
const SPAN_MS: u64 = 1 << 20;

fn depths() -> &'static [(u64, &'static str)] {
    let all = &[(1000, "1 k queued"), (100_000, "100 k queued"), (10_000_000, "10 M queued")];
    if common::is_quick() { &all[..2] } else { all }
}

/// Numbers in an order that no cache can guess, always the same ones.
fn scattered() -> impl FnMut() -> u64 {
    let mut at: u64 = 0;
    move || {
        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        at >> 33
    }
}

fn cycles(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("engine");
    group.throughput(Throughput::Elements(1));
    for &(depth, name) in depths() {
        let ((mut engine, mut body), mut next) = (filled(depth, true), depth);
        group.bench_function(format!("cycle with unique, {name}"), |bencher| {
            bencher.iter(|| {
                cycle(&mut engine, &mut body, FUNCTION, &unique(next));
                next += 1;
            });
        });
        drop(engine);
        let (mut engine, mut body) = filled(depth, false);
        group.bench_function(format!("cycle without unique, {name}"), |bencher| {
            bencher.iter(|| cycle(&mut engine, &mut body, FUNCTION, b""));
        });
    }
    group.finish();
}

fn uniques(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("unique");
    group.throughput(Throughput::Elements(1));
    for &(depth, name) in depths() {
        let (mut engine, mut body) = filled(depth, true);
        // Keys in an order that no cache can guess.
        let mut at = scattered();
        let mut next = || unique(at() % depth);
        group.bench_function(format!("join an equal job, {name}"), |bencher| {
            bencher.iter(|| submit(&mut engine, &mut body, FUNCTION, &next()));
        });
        group.bench_function(format!("status by unique, {name}"), |bencher| {
            bencher.iter(|| black_box(engine.status_unique(&next(), |_| true)));
        });
    }
    group.finish();
}

fn functions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("functions");
    group.throughput(Throughput::Elements(1));
    for width in WIDTHS {
        let names: Vec<String> = (0..width).map(|at| format!("function_{at}")).collect();
        let mut engine = common::engine(names.iter().map(String::as_bytes));
        let mut body = Vec::new();
        let busy = names.get(width / 2).map(String::as_bytes).unwrap_or_default();
        group.bench_function(format!("cycle, one of {width} busy"), |bencher| {
            bencher.iter(|| cycle(&mut engine, &mut body, busy, b""));
        });
        let mut all = names.iter().cycle();
        group.bench_function(format!("cycle, {width} in turns"), |bencher| {
            bencher.iter(|| {
                let function = all.next().map(String::as_bytes).unwrap_or_default();
                cycle(&mut engine, &mut body, function, b"");
            });
        });
    }
    group.finish();
}

fn timers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("timers");
    group.throughput(Throughput::Elements(1));
    for count in TIMERS {
        let mut at = scattered();
        let mut delay_ms = move || 1 + at() % SPAN_MS;
        let mut timers = Timers::new(0);
        for key in 0..count {
            timers.insert(delay_ms(), key);
        }
        group.bench_function(format!("set and clear, {count} set"), |bencher| {
            bencher.iter(|| {
                let timer = timers.insert(black_box(delay_ms()), 0);
                timers.remove(timer);
            });
        });
        let mut now_ms = 0;
        group.bench_function(format!("fire and set again, {count} set"), |bencher| {
            bencher.iter(|| {
                let mut budget = usize::MAX;
                loop {
                    if let Some(key) = timers.expire(now_ms, &mut budget) {
                        break timers.insert(now_ms + delay_ms(), key);
                    }
                    now_ms = timers.deadline_ms().unwrap_or(now_ms + 1).max(now_ms + 1);
                }
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = cycles, uniques, functions, timers
}
criterion_main!(benches);
