//! Batches in, outcomes out, with a store that fails when it is told to.

mod partitions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;

use bytes::Bytes;

use super::*;
use crate::engine::reason::Reason;
use crate::engine::record::{DeadRow, Pause, Row, Runs};
use crate::store::ROW_BYTES_MAX;
use crate::store::faulty::{Fault, Faulty, Tables};
use crate::store::namespace::{BLOCK, next_mark};
use crate::wire::Priority;

const LIMIT: Duration = Duration::from_secs(10);
const LONG: Duration = Duration::from_secs(60);

/// A writer, what it reports, and its store.
struct Bench {
    writer: Writer,
    sender: Sender,
    outcomes: Receiver<(usize, Outcome)>,
    store: Faulty,
}

impl Bench {
    fn new(timeout: Duration) -> Self {
        let settings = Settings {
            cores: 3,
            timeout,
            prefix: (*b"H:a").into(),
            mark: 1,
            needs_sequences: false,
            health: Arc::default(),
            lease: None,
            view: Arc::default(),
            pauses: Arc::default(),
        };
        Self::start(Faulty::default(), settings)
    }

    fn start(store: Faulty, settings: Settings) -> Self {
        let (tell, outcomes) = channel();
        // A test that is over doesn't hear.
        let report = move |core, outcome| drop(tell.send((core, outcome)));
        let writer = Writer::start(Box::new(store.clone()), settings, report).unwrap();
        Self { sender: writer.sender(), writer, outcomes, store }
    }

    fn send(&self, core: usize, operations: impl Into<Vec<Operation>>) {
        self.sender.send(Batch { core, operations: operations.into(), moves: 0 });
    }

    fn next(&self) -> (usize, Outcome) {
        self.outcomes.recv_timeout(LIMIT).unwrap()
    }

    /// Lets a commit wait, so that all that is sent now lies in the next one.
    fn occupy(&self) {
        self.store.hold(true);
        let before = self.store.commits().len();
        self.send(0, [Operation::Remove { number: u64::MAX }]);
        self.store.wait_for_commits(before + 1);
    }

    fn durable(&self) -> Vec<u64> {
        self.store.durable().iter().map(|row| row.number).collect()
    }

    fn wait_for_durable(&self, numbers: &[u64]) {
        let start = Instant::now();
        while self.durable() != numbers {
            assert!(start.elapsed() < LIMIT, "{:?}", self.durable());
            thread::yield_now();
        }
    }

    fn wait_for_failures(&self, count: u64) {
        let start = Instant::now();
        while self.writer.counters().failures.load(Ordering::Relaxed) < count {
            assert!(start.elapsed() < LIMIT, "no {count} failures");
            thread::yield_now();
        }
    }

    /// Ends it; everything is in the store then.
    fn finish(self) -> Faulty {
        assert_eq!(self.writer.stop(LIMIT), 0);
        assert_eq!(self.outcomes.try_iter().collect::<Vec<_>>(), []);
        self.store
    }
}

fn row(number: u64) -> Row {
    Row {
        number,
        function: Bytes::from_static(b"f"),
        unique: Bytes::new(),
        reducer: Bytes::new(),
        payload: Bytes::from_static(b"p"),
        priority: Priority::Normal,
        run_at_ms: 0,
        last_reason: None,
        was_lost: false,
        attempts: 0,
        submitted_ms: 0,
    }
}

fn insert(number: u64) -> Operation {
    Operation::Insert { row: row(number), answered: false }
}

fn answered(number: u64) -> Operation {
    Operation::Insert { row: row(number), answered: true }
}

fn remove(number: u64) -> Operation {
    Operation::Remove { number }
}

fn stored(core: usize, numbers: &[u64]) -> (usize, Outcome) {
    (core, Outcome::Stored { numbers: numbers.into() })
}

fn reserved(core: usize, mark: u64) -> (usize, Outcome) {
    let sequences = mark - BLOCK..mark;
    (core, Outcome::Reserved { sequences })
}

fn failed(core: usize, numbers: &[u64], reason: &str) -> (usize, Outcome) {
    (core, Outcome::Failed { numbers: numbers.into(), reason: reason.into() })
}

#[test]
fn one_commit_holds_all_that_came_while_the_last_was_written() {
    let bench = Bench::new(LONG);
    bench.occupy();
    bench.send(1, [insert(1), answered(2), insert(3)]);
    bench.send(2, [insert(4)]);
    bench.send(1, [insert(5)]);
    assert_eq!(bench.writer.counters().waiting.load(Ordering::Relaxed), 6);
    bench.store.hold(false);
    assert_eq!(bench.next(), stored(1, &[1, 3, 5]));
    assert_eq!(bench.next(), stored(2, &[4]));
    let counters = bench.writer.counters();
    let store = bench.finish();
    let expected = [insert(1), answered(2), insert(3), insert(4), insert(5)];
    assert_eq!(store.commits()[1], expected);
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let counts = [&counters.commits, &counters.operations, &counters.failures, &counters.waiting];
    assert_eq!(counts.map(count), [2, 6, 0, 0]);
}

#[test]
fn commits_are_bounded_in_operations_and_bytes() {
    let bench = Bench::new(LONG);
    bench.occupy();
    let many = COMMIT_OPERATIONS_MAX as u64 + 10;
    bench.send(0, (1..=many).map(answered).collect::<Vec<_>>());
    let payload = Bytes::from(vec![0; COMMIT_BYTES_MAX / 2]);
    let large = |number| Row { payload: payload.clone(), ..row(number) };
    let large = |number| Operation::Insert { row: large(number), answered: true };
    bench.send(0, (many + 1..=many + 5).map(large).collect::<Vec<_>>());
    bench.store.hold(false);
    let store = bench.finish();
    let lengths: Vec<usize> = store.commits().iter().map(Vec::len).collect();
    assert_eq!(lengths, [1, COMMIT_OPERATIONS_MAX, 12, 2, 1]);
}

#[test]
fn what_came_and_went_is_reported_and_not_written() {
    let bench = Bench::new(LONG);
    bench.occupy();
    let attempts = Operation::Retry { number: 1, runs: Runs { attempts: 1, ..Runs::default() } };
    bench.send(1, [insert(1), insert(2), attempts, answered(3), remove(1), remove(3), remove(9)]);
    bench.store.hold(false);
    assert_eq!(bench.next(), stored(1, &[1, 2]));
    assert_eq!(bench.store.commits()[1], [insert(2), remove(9)]);
    bench.occupy();
    bench.send(1, [insert(4), remove(4)]);
    bench.store.hold(false);
    assert_eq!(bench.next(), stored(1, &[4]));
    assert_eq!(bench.store.commits().len(), 3, "nothing to write");
    bench.finish();
}

fn bury(number: u64, payload: &Bytes) -> Operation {
    let row = Row { payload: payload.clone(), ..row(number) };
    let (worker, message) = (Bytes::new(), Bytes::new());
    Operation::Bury(Box::new(DeadRow { row, reason: Reason::Fail, died_ms: 1, worker, message }))
}

fn unbury(number: u64, payload: &Bytes) -> Operation {
    Operation::Unbury(Box::new(Row { payload: payload.clone(), ..row(number) }))
}

#[test]
fn all_of_a_job_that_has_died_is_written() {
    let payload = row(1).payload;
    let remove_dead = |number| Operation::RemoveDead { number };
    let cases = [
        vec![insert(1), bury(1, &payload)],
        vec![bury(1, &payload), remove(1)],
        vec![insert(1), bury(1, &payload), unbury(1, &payload), remove(1)],
        vec![insert(1), remove(1), bury(1, &payload)],
        vec![unbury(1, &payload), remove(1)],
        vec![insert(1), remove_dead(1), remove(1)],
    ];
    for operations in cases {
        let bench = Bench::new(LONG);
        bench.occupy();
        bench.send(1, [insert(2), remove(2)]);
        bench.send(1, operations.clone());
        bench.store.hold(false);
        let awaited = if operations[0] == insert(1) { vec![2, 1] } else { vec![2] };
        assert_eq!(bench.next(), stored(1, &awaited));
        let mut expected = Tables::default();
        operations.iter().for_each(|operation| expected.apply(operation));
        let store = bench.finish();
        assert_eq!(store.commits()[1], operations);
        assert_eq!(store.tables(), expected);
    }
}

#[test]
fn jobs_that_move_count_in_the_size_of_a_commit() {
    let bench = Bench::new(LONG);
    bench.occupy();
    let payload = Bytes::from(vec![0; COMMIT_BYTES_MAX / 2]);
    let moves = [bury(1, &payload), unbury(1, &payload), bury(2, &payload), bury(3, &payload)];
    bench.send(0, moves);
    bench.send(0, [unbury(3, &payload)]);
    bench.store.hold(false);
    let lengths: Vec<usize> = bench.finish().commits().iter().map(Vec::len).collect();
    assert_eq!(lengths, [1, 2, 2, 1]);
}

#[test]
fn dead_letters_and_pauses_outlast_a_commit_without_an_answer() {
    let bench = Bench::new(LONG);
    let payload = row(1).payload;
    let pause = |pause| Operation::Pause { function: Bytes::from_static(b"f"), pause };
    bench.store.fail_at(1, Fault::Unanswered);
    bench.send(0, [answered(1), answered(2), bury(1, &payload), pause(Some(Pause::Until(9)))]);
    bench.wait_for_failures(1);
    bench.store.fail_at(1, Fault::Refused);
    bench.send(0, [bury(2, &payload), unbury(1, &payload)]);
    let tables = bench.finish().tables();
    assert_eq!(tables.jobs, BTreeMap::from([(1, row(1))]));
    assert_eq!(tables.dead.keys().collect::<Vec<_>>(), [&2]);
    assert_eq!(tables.pauses, BTreeMap::from([(Bytes::from_static(b"f"), Pause::Until(9))]));
}

#[test]
fn a_short_failure_is_not_noticed() {
    let bench = Bench::new(LONG);
    bench.store.fail_at(1, Fault::Refused);
    bench.store.fail_at(2, Fault::Unanswered);
    bench.send(1, [insert(1)]);
    assert_eq!(bench.next(), stored(1, &[1]));
    assert_eq!(bench.store.commits(), [[insert(1)], [insert(1)], [insert(1)]]);
    assert_eq!(bench.writer.counters().failures.load(Ordering::Relaxed), 2);
    bench.finish();
}

#[test]
fn without_patience_inserts_fail_with_their_commit_and_the_rest_is_kept() {
    let bench = Bench::new(Duration::ZERO);
    bench.occupy();
    bench.store.set_down(Some(Fault::Refused));
    let attempts = Operation::Retry { number: 8, runs: Runs { attempts: 2, ..Runs::default() } };
    bench.send(1, [answered(1), insert(2), attempts.clone(), remove(3), insert(4)]);
    bench.send(2, [insert(5)]);
    bench.store.hold(false);
    // The commit that occupied it fails too; then inserts fail untried.
    assert_eq!(bench.next(), failed(1, &[2, 4], "refused"));
    assert_eq!(bench.next(), failed(2, &[5], "refused"));
    bench.send(2, [insert(6), answered(7)]);
    assert_eq!(bench.next(), failed(2, &[6], "refused"));
    bench.store.set_down(None);
    bench.store.wait_for_commits(bench.store.commits().len() + 1);
    let store = bench.finish();
    let commits = store.commits();
    assert_eq!(commits.last().unwrap(), &[answered(1), attempts, remove(3), answered(7)]);
}

#[test]
fn an_insert_that_was_refused_is_removed_if_the_failed_commit_had_kept_it() {
    let bench = Bench::new(Duration::ZERO);
    bench.store.fail_at(1, Fault::Unanswered);
    bench.store.fail_at(2, Fault::Refused);
    bench.occupy();
    bench.store.hold(false);
    bench.store.wait_for_commits(3);
    bench.occupy();
    bench.store.fail_at(1, Fault::Unanswered);
    bench.send(1, [insert(1), answered(2), insert(3)]);
    bench.store.hold(false);
    assert_eq!(bench.next(), failed(1, &[1, 3], "no answer"));
    let store = bench.finish();
    assert_eq!(store.commits().last().unwrap(), &[remove(1), answered(2), remove(3)]);
    assert_eq!(store.durable(), [row(2)]);
}

#[test]
fn inserts_wait_as_long_as_they_may_while_the_store_is_down() {
    let timeout = Duration::from_secs(1);
    let bench = Bench::new(timeout);
    bench.store.set_down(Some(Fault::Refused));
    let start = Instant::now();
    bench.send(0, [insert(1), answered(2)]);
    bench.store.wait_for_commits(2);
    bench.send(1, [insert(3)]);
    assert_eq!(bench.next(), failed(0, &[1], "refused"));
    assert!(start.elapsed() >= timeout);
    assert_eq!(bench.next(), failed(1, &[3], "refused"));
    // These come while it is down and get their chance when it is back.
    bench.send(1, [insert(4)]);
    bench.store.set_down(None);
    assert_eq!(bench.next(), stored(1, &[4]));
    assert_eq!(bench.durable(), [2, 4]);
    bench.finish();
}

#[test]
fn inserts_expire_in_a_second_failure_too() {
    let bench = Bench::new(Duration::from_millis(200));
    bench.store.set_down(Some(Fault::Refused));
    bench.send(0, [answered(1)]);
    bench.store.wait_for_commits(1);
    bench.send(0, [answered(2), insert(3)]);
    assert_eq!(bench.next(), failed(0, &[3], "refused"));
    bench.store.set_down(None);
    bench.wait_for_durable(&[1, 2]);
    bench.store.set_down(Some(Fault::Refused));
    let before = bench.store.commits().len();
    bench.send(0, [answered(4)]);
    bench.store.wait_for_commits(before + 1);
    bench.send(0, [insert(5)]);
    assert_eq!(bench.next(), failed(0, &[5], "refused"));
    bench.store.set_down(None);
    assert_eq!(bench.finish().durable(), [1, 2, 4].map(row));
}

#[test]
fn a_backlog_is_written_without_anything_new() {
    let bench = Bench::new(Duration::ZERO);
    bench.store.set_down(Some(Fault::Refused));
    bench.send(0, [answered(1)]);
    bench.store.wait_for_commits(3);
    assert_eq!(bench.durable(), [0; 0]);
    bench.store.set_down(None);
    bench.wait_for_durable(&[1]);
    bench.finish();
}

#[test]
fn a_damaged_store_fails_inserts_at_once_and_keeps_the_rest() {
    let bench = Bench::new(LONG);
    bench.store.set_down(Some(Fault::Unusable));
    bench.send(0, [insert(1), answered(2)]);
    assert_eq!(bench.next(), failed(0, &[1], "damaged"));
    bench.store.set_down(None);
    let store = bench.finish();
    assert_eq!(store.durable(), [row(2)]);
}

#[test]
fn an_idle_server_hears_that_its_store_is_lost() {
    // An owner that had nothing to commit went on giving out the jobs of another one's store.
    let bench = Bench::new(Duration::ZERO);
    bench.store.set_down(Some(Fault::Lost));
    let (_, outcome) = bench.next();
    assert_eq!(outcome, Outcome::Lost("taken by another".into()));
}

#[test]
fn more_numbers_are_reserved_once_however_many_cores_ask() {
    let bench = Bench::new(LONG);
    bench.store.set_down(Some(Fault::Refused));
    for _ in 0..3 {
        bench.sender.reserve(1);
    }
    bench.send(1, [insert(1)]);
    bench.wait_for_failures(2);
    bench.store.set_down(None);
    let mark = next_mark(1);
    assert_eq!([0, 1, 2].map(|_| bench.next()), [0, 1, 2].map(|core| reserved(core, mark)));
    assert_eq!(bench.next(), stored(1, &[1]));
    bench.sender.reserve(mark);
    let mark = next_mark(mark);
    assert_eq!([0, 1, 2].map(|_| bench.next()), [0, 1, 2].map(|core| reserved(core, mark)));
    let record = bench.finish().record().unwrap();
    assert_eq!((record.prefix, record.mark), (Some(b"H:a".to_vec()), Some(mark)));
}

#[test]
fn every_core_hears_once_that_the_store_is_lost() {
    let bench = Bench::new(LONG);
    bench.store.fail_at(1, Fault::Lost);
    bench.send(1, [insert(1)]);
    let lost: Vec<(usize, Outcome)> = (0..3).map(|_| bench.next()).collect();
    assert_eq!(lost, [0, 1, 2].map(|core| (core, Outcome::Lost("taken by another".into()))));
    bench.send(1, [insert(2)]);
    assert_eq!(bench.outcomes.recv_timeout(LIMIT).unwrap_err(), RecvTimeoutError::Disconnected);
    assert!(bench.writer.stop(LIMIT) >= 1, "not stored");
    assert_eq!(bench.store.commits().len(), 1);
}

#[test]
fn stop_writes_what_was_handed_over_and_no_more() {
    let bench = Bench::new(LONG);
    bench.occupy();
    bench.send(1, [insert(1), remove(9)]);
    let Bench { writer, sender, outcomes, store } = bench;
    let stopper = thread::spawn(move || writer.stop(LIMIT));
    store.hold(false);
    assert_eq!(stopper.join().unwrap(), 0);
    assert_eq!(outcomes.iter().collect::<Vec<_>>(), [stored(1, &[1])]);
    sender.send(Batch { core: 1, operations: vec![insert(2)], moves: 0 });
    assert_eq!(store.durable(), [row(1)]);
}

#[test]
fn stop_gives_up_at_its_deadline_and_says_what_is_left() {
    let bench = Bench::new(Duration::ZERO);
    bench.store.set_down(Some(Fault::Refused));
    bench.send(0, [answered(1), remove(2)]);
    bench.store.wait_for_commits(1);
    let start = Instant::now();
    let within = Duration::from_millis(200);
    assert_eq!(bench.writer.stop(within), 2);
    assert!(start.elapsed() >= within);
    assert!(bench.store.commits().len() >= 2, "tried until then");
}

#[test]
fn a_row_that_no_store_can_keep_holds_nothing_up() {
    let bench = Bench::new(LONG);
    let payload = Bytes::from(vec![0; ROW_BYTES_MAX]);
    let large = |number, answered| Operation::Insert {
        row: Row { payload: payload.clone(), ..row(number) },
        answered,
    };
    bench.send(1, [large(1, false), large(2, true), insert(3)]);
    assert_eq!(bench.next(), failed(1, &[1], "the job is too large to be kept"));
    assert_eq!(bench.next(), stored(1, &[3]));
    bench.finish();
}

#[test]
fn whatever_fails_nothing_answered_is_lost_and_nothing_refused_is_kept() {
    for seed in 0..12 {
        let mut random = fastrand::Rng::with_seed(seed);
        let patience = if random.bool() { Duration::ZERO } else { Duration::from_millis(120) };
        let bench = Bench::new(patience);
        let mut expected = std::collections::BTreeSet::new();
        let mut removed = std::collections::BTreeSet::new();
        let mut next = 1;
        for _ in 0..random.usize(5..40) {
            if random.usize(0..4) == 0 {
                let fault = if random.bool() { Fault::Refused } else { Fault::Unanswered };
                bench.store.set_down(random.bool().then_some(fault));
            }
            if random.usize(0..3) == 0 {
                bench.store.fail_at(random.usize(1..3), Fault::Unanswered);
            }
            let mut operations = Vec::new();
            for _ in 0..random.usize(1..6) {
                let known = random.u64(1..=next);
                match random.usize(0..4) {
                    0 if known < next => {
                        operations.push(remove(known));
                        removed.insert(known);
                        expected.remove(&known);
                    }
                    1 => {
                        operations.push(answered(next));
                        expected.insert(next);
                        next += 1;
                    }
                    _ => {
                        operations.push(insert(next));
                        next += 1;
                    }
                }
            }
            bench.send(0, operations);
        }
        bench.store.set_down(None);
        assert_eq!(bench.writer.stop(LIMIT), 0);
        let mut told = Vec::new();
        for (_, outcome) in bench.outcomes.iter() {
            match outcome {
                Outcome::Stored { numbers } => {
                    expected.extend(numbers.iter().filter(|number| !removed.contains(number)));
                    told.extend(numbers);
                }
                Outcome::Failed { numbers, .. } => told.extend(numbers),
                other => panic!("{other:?}"),
            }
        }
        let before = told.len();
        told.sort_unstable();
        told.dedup();
        assert_eq!(told.len(), before, "seed {seed}: one outcome each");
        let kept: Vec<u64> = bench.store.durable().iter().map(|row| row.number).collect();
        assert!(kept.iter().eq(&expected), "seed {seed}: {kept:?} {expected:?}");
    }
}

/// A database that failed over without synchronous replication had lost jobs, and nothing was said
/// or done.
#[test]
fn cores_are_asked_once_for_what_the_store_has_lost() {
    let bench = Bench::new(LONG);
    bench.send(0, [insert(1), insert(2), insert(3)]);
    assert_eq!(bench.next(), stored(0, &[1, 2, 3]));
    bench.store.lose(1);
    bench.store.lose(3);
    bench.send(1, [insert(4)]);
    // Whether it asks before or after it has written is the writer's choice.
    let outcomes: Vec<_> = (0..4).map(|_| bench.next()).collect();
    assert!(outcomes.contains(&stored(1, &[4])), "{outcomes:?}");
    for core in 0..3 {
        let missing = (core, Outcome::Missing { numbers: [1, 3].into() });
        assert!(outcomes.contains(&missing), "{outcomes:?}");
    }
    bench.send(0, [answered(1), answered(3)]);
    bench.wait_for_durable(&[1, 2, 3, 4]);

    // An idle server asks, too.
    bench.store.lose(2);
    for core in 0..3 {
        assert_eq!(bench.next(), (core, Outcome::Missing { numbers: [2].into() }));
    }
    bench.finish();
}

#[test]
fn after_a_power_loss_the_next_start_finds_all_that_was_reported() {
    let bench = Bench::new(Duration::ZERO);
    bench.send(0, [insert(1), insert(2)]);
    assert_eq!(bench.next(), stored(0, &[1, 2]));
    bench.store.fail_at(1, Fault::PowerLoss);
    bench.send(0, [remove(1), insert(3)]);
    assert_eq!(bench.next(), failed(0, &[3], "no power"));
    let mut rows = Vec::new();
    bench.store.restart().load(&mut |row| rows.push(row.number)).unwrap();
    assert_eq!(rows, [1, 2]);
    assert_eq!(bench.writer.stop(Duration::ZERO), 2);
}
