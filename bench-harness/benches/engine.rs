//! The engine alone: submit, grab, complete with so many jobs queued, and what unique keys cost.
//!
//! The depth stays as it is while a cycle is measured. With `--quick`, 10 M queued jobs are left
//! out.

mod common;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringgear::io::memory::Allocator;

use common::{FUNCTION, cycle, filled, submit, unique};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn depths() -> &'static [(u64, &'static str)] {
    let all = &[(1000, "1 k queued"), (100_000, "100 k queued"), (10_000_000, "10 M queued")];
    if common::is_quick() { &all[..2] } else { all }
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
        // Steps through all keys in an order that no cache can guess.
        let mut at: u64 = 0;
        let mut next = || {
            at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            unique((at >> 33) % depth)
        };
        group.bench_function(format!("join an equal job, {name}"), |bencher| {
            bencher.iter(|| submit(&mut engine, &mut body, FUNCTION, &next()));
        });
        group.bench_function(format!("status by unique, {name}"), |bencher| {
            bencher.iter(|| black_box(engine.status_unique(&next(), |_| true)));
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
    targets = cycles, uniques
}
criterion_main!(benches);
