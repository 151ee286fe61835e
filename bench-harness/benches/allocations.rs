//! Counts allocations where the other benches measure time; a regression fails the run.
//!
//! A binary of its own, because counting takes the global allocator's place. Runs the same with and
//! without `--quick`.
#![allow(clippy::expect_used, reason = "a bench that can't be set up has failed")]

mod common;

use std::hint::black_box;

use allocation_counter::measure;
use ringgear::engine::timer::Timers;
use ringgear::wire::frame::{self, Cut};
use ringgear::wire::outbox::Outbox;
use ringgear::wire::{HEADER_BYTES, Payload, Request, Response};

const CYCLES: u64 = 10_000;
const DEPTH: u64 = 100_000;

fn main() {
    let counts = [
        ("frame and packet", parsing(), 0.0, 0.0),
        ("outbox", outbox(), 0.0, 0.0),
        ("timer", timer(), 0.0, 0.0),
        ("engine cycle without unique", cycle(0, false), 1.0, 1.0),
        ("engine cycle with unique", cycle(0, true), 1.0, 1.0),
        // Pages of jobs come and go, and tables grow in steps.
        ("engine cycle with unique, 100 k queued", cycle(DEPTH, true), 1.0, 1.01),
    ];
    let mut is_sound = true;
    for (what, count, least, most) in counts {
        let holds = (least..=most).contains(&count);
        is_sound &= holds;
        let verdict = if holds { "ok" } else { "FAILED" };
        println!("{what:<42} {count:.3} allocations (at most {most}) {verdict}");
    }
    assert!(is_sound, "the hot path allocates more than a job's own bytes");
}

/// Allocations of one call, once as many calls have gone by.
fn warm(mut call: impl FnMut()) -> f64 {
    (0..CYCLES).for_each(|_| call());
    measure(|| (0..CYCLES).for_each(|_| call())).count_total as f64 / CYCLES as f64
}

fn parsing() -> f64 {
    let [bytes, ..] = common::requests();
    warm(|| match frame::cut(black_box(&bytes), 0) {
        Ok(Cut::Packet { header, body }) => {
            assert_eq!(HEADER_BYTES + body.len(), bytes.len());
            let _ = black_box(Request::parse(header, Payload::borrowed(body)));
        }
        other => panic!("{other:?}"),
    })
}

fn outbox() -> f64 {
    let mut outbox = Outbox::default();
    warm(|| {
        outbox.push(&Response::JobCreated { handle: common::HANDLE });
        while let Some((chunk, _)) = outbox.take() {
            outbox.sent(chunk);
        }
    })
}

fn timer() -> f64 {
    let mut timers = Timers::new(0);
    let mut now_ms = 0;
    warm(|| {
        timers.insert(now_ms + 100, ());
        now_ms += 1;
        let mut budget = usize::MAX;
        while timers.expire(now_ms, &mut budget).is_some() {}
    })
}

fn cycle(depth: u64, has_unique: bool) -> f64 {
    let ((mut engine, mut body), mut next) = (common::filled(depth, true), depth);
    warm(|| {
        let unique = common::unique(next);
        next += 1;
        let unique: &[u8] = if has_unique { &unique } else { b"" };
        common::cycle(&mut engine, &mut body, common::FUNCTION, unique);
    })
}
