//! What many failed jobs do to others: the longest call of an engine while a million of them fail,
//! wait and are run again; and how fast a store commits failures beside submissions.
//!
//! Prints figures. A call of an engine that takes too long fails the run unless it is brief, when
//! the machine may be busy.
#![allow(clippy::expect_used, reason = "a bench that can't be set up has failed")]

mod common;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringgear::engine::glob::Glob;
use ringgear::engine::policy::{Backoff, Policies, Policy, Retries};
use ringgear::engine::reason::Reason;
use ringgear::engine::record::{DeadRow, Operation, Row, Runs};
use ringgear::engine::{Effect, Engine, Now, Outcome};
use ringgear::io::memory::Allocator;
use ringgear::store::Store;
use ringgear::store::lock::Lock;
use ringgear::store::sqlite::Sqlite;
use ringgear::wire::Priority;

use common::{FUNCTION, NOW, PAYLOAD, UNIQUE, WORKER};

/// The server's.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// Longest a call may take.
const CALL_MAX: Duration = Duration::from_millis(10);
/// Timers that a core handles in a turn.
const TIMERS_PER_TURN: usize = 4096;
/// Operations in a commit.
const BATCH: u64 = 512;

fn main() -> ExitCode {
    let jobs = if common::is_quick() { 20_000 } else { 1_000_000 };
    let longest = fail_and_run_again(jobs);
    let [fail, wait, end] = longest;
    println!(
        "{jobs} jobs: at most {fail:?} for a failure, {wait:?} for timers, {end:?} for a last run"
    );
    let longest = longest.into_iter().max().unwrap_or_default();
    commit(if common::is_quick() { 4 } else { 200 });
    if longest <= CALL_MAX || common::is_quick() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The longest of some calls.
struct Longest(Duration);

impl Longest {
    fn of<T>(&mut self, call: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = call();
        self.0 = self.0.max(start.elapsed());
        result
    }
}

/// What a core does at the end of a turn.
fn end_turn(engine: &mut Engine, now: Now, effects: &mut Vec<Effect>) {
    engine.wake_sleepers(now);
    effects.clear();
    engine.take_effects(effects);
}

fn fail_and_run_again(jobs: u64) -> [Duration; 3] {
    let backoff = Backoff { first_ms: 60_000, factor: 1.0, max_ms: 60_000, jitter: 0.5 };
    let retries = Some(Retries { backoff, ..Retries::of(0) });
    let patterns = vec![Glob::new("*").expect("a glob")];
    let mut engine = common::engine([FUNCTION].into_iter());
    let policies = Policies(vec![Policy { patterns, retries, ..Policy::default() }]);
    engine.use_policies(Arc::new(policies), NOW);
    engine.tick(NOW, TIMERS_PER_TURN);
    let mut phases = [const { Longest(Duration::ZERO) }; 3];
    let [failing, waiting, ending] = &mut phases;
    let (mut body, mut effects) = (Vec::new(), Vec::new());
    for number in 0..jobs {
        let unique = common::unique(number);
        failing.of(|| {
            common::submit(&mut engine, &mut body, FUNCTION, &unique);
            let id = engine.grab(WORKER, Priority::Low, NOW).expect("a job");
            let number = engine.jobs()[id].number;
            let failed = engine.work_failed(WORKER, number, Outcome::Fail, &[], NOW);
            failed.expect("its own job");
            end_turn(&mut engine, NOW, &mut effects);
        });
    }
    assert_eq!(engine.all_gauges().retrying as u64, jobs);
    let mut now = NOW;
    while engine.all_gauges().retrying > 0 {
        if engine.deadline_ms().is_none_or(|deadline_ms| deadline_ms > now.mono_ms) {
            now = Now { mono_ms: now.mono_ms + 1, unix_ms: now.unix_ms + 1 };
        }
        waiting.of(|| {
            engine.tick(now, TIMERS_PER_TURN);
            end_turn(&mut engine, now, &mut effects);
        });
    }
    for _ in 0..jobs {
        ending.of(|| {
            assert!(common::work(&mut engine), "a job is left");
            end_turn(&mut engine, now, &mut effects);
        });
    }
    assert!(engine.jobs().is_empty());
    phases.map(|longest| longest.0)
}

/// What is committed: its name, and the operation on a job.
type Kind = (&'static str, fn(u64) -> Operation);

fn row(number: u64) -> Row {
    Row {
        number,
        function: Bytes::from_static(FUNCTION),
        unique: Bytes::from_static(UNIQUE),
        reducer: Bytes::new(),
        payload: Bytes::from_static(&PAYLOAD),
        priority: Priority::Normal,
        run_at_ms: 0,
        attempts: 0,
        last_reason: None,
        was_lost: false,
        submitted_ms: NOW.unix_ms,
    }
}

/// Commits submissions, failures and burials in turns, and prints the medians.
fn commit(rounds: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let lock = Lock::try_acquire(&folder.path().join("jobs.db")).expect("a new file");
    let mut store = Sqlite::open(lock, None, 1).expect("a new file");
    store.reserve(b"H:bench", u64::MAX >> 16).expect("the disk takes it");
    let kinds: [Kind; 3] = [
        ("submissions", |number| Operation::Insert { row: row(number), answered: false }),
        ("failures to be run again", |number| {
            let last_reason = Some(Reason::Fail);
            let runs = Runs { attempts: 1, run_at_ms: NOW.unix_ms, last_reason, was_lost: false };
            Operation::Retry { number, runs }
        }),
        ("burials", |number| {
            let (worker, message) = (Bytes::new(), Bytes::new());
            let (reason, died_ms) = (Reason::Fail, NOW.unix_ms);
            let row = row(number);
            Operation::Bury(Box::new(DeadRow { row, reason, died_ms, worker, message }))
        }),
    ];
    let mut times = kinds.map(|_| Vec::new());
    for round in 0..rounds {
        for ((_, operation), times) in kinds.iter().zip(&mut times) {
            let numbers = round * BATCH..(round + 1) * BATCH;
            let operations: Vec<Operation> = numbers.map(operation).collect();
            let start = Instant::now();
            store.commit(&operations).expect("the disk takes it");
            times.push(start.elapsed());
        }
    }
    let mut submissions = None;
    for ((name, _), mut times) in kinds.into_iter().zip(times) {
        times.sort_unstable();
        let median = times[times.len() / 2].as_secs_f64();
        let each_second = BATCH as f64 / median;
        let share = each_second / *submissions.get_or_insert(each_second);
        println!("{name}: {each_second:.0} a second in commits of {BATCH} ({share:.2} x)");
    }
}
