//! Tests of what is counted by function; see `engine::tests` for the fixture.
//!
//! `check_invariants` checks that the jobs of each entry are those that there are and that ended.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::engine::dead::DeadBounds;
use crate::engine::function::{Durabilities, Durability, FUNCTION_BYTES};
use crate::engine::glob::Glob;
use crate::engine::handle::SLOT_BITS;
use crate::engine::ids::{JobId, UNIQUE_BYTES_MAX};
use crate::engine::job::{Demand, Job, State, Storage};
use crate::engine::numbers::{BUCKETS, Durations, Failure, Rerun};
use crate::engine::policy::{Backoff, Expiry, Policies, Policy, Retries};
use crate::engine::record::{Pause, Row};
use crate::engine::tests::{Fixture, conn_id, settings};
use crate::engine::{DrainGoal, Outcome, Settings, SubmitError};
use crate::wire::{Command, Header, Magic, Payload, Priority, Request};

/// Jobs of `durable` wait for the store, those of `eager` don't, and all others are in memory.
fn with_store() -> Settings {
    let named = [(b"durable".to_vec(), Durability::Fsync), (b"eager".to_vec(), Durability::Async)];
    let durabilities = Durabilities { default: Durability::None, named: named.into() };
    Settings { durabilities, attempts_max: Some(2), ..settings() }
}

fn named(functions: usize) -> Settings {
    Settings { metrics_functions: NamedFunctions::up_to(functions), ..settings() }
}

impl Fixture {
    fn names(&self) -> Vec<Option<&[u8]>> {
        self.engine.named_from(0).map(|entry| entry.name).collect()
    }

    /// The entry of a name; that of `_other` for any name without.
    fn entry(&self, name: &str) -> NamedFunction<'_> {
        let mut entries = self.engine.named_from(1);
        let found = entries.find(|entry| entry.name == Some(name.as_bytes()));
        found.or_else(|| self.engine.named_from(0).next()).unwrap()
    }

    fn numbers(&self, name: &str) -> Numbers {
        *self.entry(name).numbers
    }

    /// A worker of a function, and the job that it gets.
    fn run(&mut self, worker: u32, function: &str) -> u64 {
        self.can_do(worker, function);
        self.grab(worker).unwrap()
    }

    fn finish(&mut self, worker: u32, number: u64, outcome: Outcome) {
        self.end(worker, number, outcome).unwrap();
    }

    fn foreground(&mut self, conn: u32, function: &str) -> u64 {
        self.submit(conn, Command::SubmitJob, &format!("{function}\0\0"))
    }
}

#[test]
fn a_name_keeps_its_entry_and_its_numbers_while_its_function_is_gone() {
    let mut fixture = Fixture::new(named(2));
    let job = fixture.background("a");
    fixture.background("b");
    fixture.background("c");
    assert_eq!(fixture.names(), [None, Some(&b"a"[..]), Some(b"b")]);
    let is_named = |fixture: &Fixture, name: &[u8]| {
        let id = fixture.engine.functions.find(name).unwrap();
        fixture.engine.functions[id].is_named()
    };
    assert!(is_named(&fixture, b"a") && !is_named(&fixture, b"c"));
    fixture.engine.set_queue_max(b"a", [1, 2, 3]);
    assert_eq!(fixture.entry("a").queue_max, [1, 2, 3]);
    fixture.engine.cancel(job);
    let id = fixture.entry("a").function.unwrap();
    fixture.engine.drop_function(id).unwrap();
    let NamedFunction { index, function, gauges, queue_max, .. } = fixture.entry("a");
    assert_eq!((index, function, gauges, queue_max), (1, None, Gauges::default(), [0; 3]));
    // The place of the one that comes next is the one that went, and its entry isn't.
    fixture.background("d");
    assert_eq!(fixture.engine.functions.find(b"d"), Some(id));
    fixture.engine.check_invariants();
    assert_eq!(fixture.numbers("_other").submitted, [0, 2]);
    fixture.background("a");
    let NamedFunction { index, numbers, .. } = fixture.entry("a");
    assert_eq!((index, numbers.submitted), (1, [0, 2]));
    assert_eq!(numbers.failed[Failure::Cancelled as usize], 1);
    assert_eq!(fixture.engine.named_from(2).count(), 1);
    assert_eq!(fixture.engine.totals().submitted, [0, 5]);
    fixture.engine.check_invariants();
}

#[test]
fn engines_share_how_many_functions_are_named() {
    let settings = named(3);
    let mut fixtures = [Fixture::new(settings.clone()), Fixture::new(settings)];
    for (at, name) in ["a", "b", "c", "d", "a", "e"].into_iter().enumerate() {
        fixtures[at % 2].background(name);
    }
    assert_eq!(fixtures[0].names(), [None, Some(&b"a"[..]), Some(b"c")]);
    assert_eq!(fixtures[1].names(), [None, Some(&b"b"[..])]);
    assert_eq!(fixtures[0].numbers("a").submitted, [0, 2]);
    assert_eq!(fixtures[1].numbers("_other").submitted, [0, 2]);
    fixtures.iter().for_each(|fixture| fixture.engine.check_invariants());
}

#[test]
fn names_given_before_come_first_and_some_names_get_no_entry() {
    let mut fixture = Fixture::new(named(2));
    fixture.engine.name_function(b"configured");
    fixture.engine.name_function(b"configured");
    let longest = "x".repeat(NAME_BYTES_MAX);
    for name in ["_other", &format!("{longest}x"), &longest, "too late", "configured"] {
        fixture.background(name);
    }
    let names = [None, Some(&b"configured"[..]), Some(longest.as_bytes())];
    assert_eq!(fixture.names(), names);
    assert_eq!(fixture.numbers("_other").submitted, [0, 3]);
    assert_eq!(fixture.numbers("configured").submitted, [0, 1]);
    fixture.engine.check_invariants();
}

#[test]
fn entries_count_as_memory_and_their_number_is_bounded() {
    let mut fixture = Fixture::new(named(10));
    assert_eq!(fixture.engine.registry_bytes(), 0);
    for at in 0..100 {
        let name = format!("{at:02}");
        let memory = FUNCTION_BYTES + 2;
        let entry = if at < 10 { ENTRY_BYTES + 2 } else { 0 };
        assert!(!fixture.engine.create_function(name.as_bytes(), memory + entry - 1));
        let before = fixture.engine.registry_bytes();
        assert!(fixture.engine.create_function(name.as_bytes(), memory + entry));
        assert_eq!(fixture.engine.registry_bytes(), before + memory + entry);
        let id = fixture.engine.functions.find(name.as_bytes()).unwrap();
        fixture.engine.drop_function(id).unwrap();
        assert_eq!(fixture.engine.registry_bytes(), before + entry);
    }
    assert_eq!(fixture.engine.registry_bytes(), 10 * (ENTRY_BYTES + 2));
}

/// What happens to one job, and what is counted of it beside that it was submitted or recovered.
type Life = (&'static str, fn(&mut Fixture), fn(&mut Numbers));

fn failed(numbers: &mut Numbers, failure: Failure) {
    numbers.failed[failure as usize] += 1;
}

/// A job of `f` that a client waits for is running at worker 5, which has a limit of a second.
fn run_with_timeout(fixture: &mut Fixture) -> u64 {
    fixture.foreground(0, "f");
    fixture.engine.can_do(conn_id(5), b"f", 1000);
    fixture.grab(5).unwrap()
}

const LIVES: &[Life] = &[
    (
        "completed",
        |fixture| {
            let job = run_with_timeout(fixture);
            fixture.finish(5, job, Outcome::Complete);
        },
        |numbers| numbers.completed += 1,
    ),
    (
        "failed",
        |fixture| {
            let job = run_with_timeout(fixture);
            fixture.finish(5, job, Outcome::Fail);
        },
        |numbers| failed(numbers, Failure::Fail),
    ),
    (
        "exception",
        |fixture| {
            let job = run_with_timeout(fixture);
            fixture.finish(5, job, Outcome::Exception);
        },
        |numbers| failed(numbers, Failure::Exception),
    ),
    (
        "lost twice",
        |fixture| {
            for _ in 0..2 {
                if fixture.engine.jobs().is_empty() {
                    fixture.foreground(0, "f");
                }
                fixture.run(5, "f");
                fixture.disconnect(5);
            }
        },
        |numbers| {
            numbers.rerun[Rerun::Lost as usize] += 1;
            failed(numbers, Failure::Lost);
        },
    ),
    (
        "withdrawn, then timed out",
        |fixture| {
            fixture.foreground(0, "f");
            fixture.run(5, "f");
            fixture.engine.cant_do(conn_id(5), b"f", fixture.now);
            fixture.engine.can_do(conn_id(6), b"f", 1000);
            fixture.grab(6).unwrap();
            fixture.pass(1000);
        },
        |numbers| {
            numbers.rerun[Rerun::Withdrawn as usize] += 1;
            failed(numbers, Failure::TimedOut);
        },
    ),
    (
        "timed out, then completed by the same worker",
        |fixture| {
            let job = run_with_timeout(fixture);
            fixture.pass(1000);
            fixture.finish(5, job, Outcome::Complete);
        },
        |numbers| {
            numbers.rerun[Rerun::TimedOut as usize] += 1;
            numbers.completed += 1;
        },
    ),
    (
        "cancelled in its queue",
        |fixture| {
            let job = fixture.foreground(0, "f");
            fixture.engine.cancel(job);
        },
        |numbers| failed(numbers, Failure::Cancelled),
    ),
    (
        "cancelled while running, which counts at its end",
        |fixture| {
            let job = run_with_timeout(fixture);
            fixture.engine.cancel(job);
            assert_eq!(fixture.numbers("f").ended(), 0);
            assert_eq!(fixture.entry("f").gauges.running, 1);
            fixture.finish(5, job, Outcome::Complete);
        },
        |numbers| failed(numbers, Failure::Cancelled),
    ),
    (
        "abandoned in its queue",
        |fixture| {
            fixture.foreground(0, "f");
            fixture.disconnect(0);
        },
        |numbers| failed(numbers, Failure::Abandoned),
    ),
    (
        "abandoned while running, and lost",
        |fixture| {
            run_with_timeout(fixture);
            fixture.disconnect(0);
            fixture.disconnect(5);
        },
        |numbers| failed(numbers, Failure::Abandoned),
    ),
    (
        "dropped with its function",
        |fixture| {
            fixture.foreground(0, "f");
            let id = fixture.engine.functions.find(b"f").unwrap();
            fixture.engine.drop_function(id).unwrap();
        },
        |numbers| failed(numbers, Failure::Dropped),
    ),
];

#[test]
fn each_end_of_a_job_has_its_number() {
    for &(name, live, count) in LIVES {
        let mut fixture = Fixture::new(with_store());
        live(&mut fixture);
        fixture.engine.check_invariants();
        assert!(fixture.engine.jobs().is_empty(), "{name}");
        let mut expected = Numbers { submitted: [1, 0], ..Numbers::default() };
        count(&mut expected);
        let Numbers { wait, run, .. } = fixture.numbers("f");
        (expected.wait, expected.run) = (wait, run);
        assert_eq!(fixture.numbers("f"), expected, "{name}");
        assert_eq!(fixture.engine.totals(), expected, "{name}: all in one entry");
    }
}

#[test]
fn a_job_counts_as_submitted_once_the_store_has_it_or_it_starts_without() {
    let counts = |fixture: &Fixture| {
        let Numbers { submitted, refused, joined, .. } = fixture.numbers("durable");
        (submitted, refused[Refused::Store as usize], joined)
    };
    let submit = |fixture: &mut Fixture| {
        let job = fixture.submit(0, Command::SubmitJobBg, "durable\0key\0");
        assert_eq!(fixture.entry("durable").gauges.jobs(), 0, "it waits for the store");
        job
    };
    let mut fixture = Fixture::new(with_store());
    let job = submit(&mut fixture);
    assert_eq!(counts(&fixture), ([0, 0], 0, 0));
    fixture.engine.stored(job, fixture.now);
    assert_eq!(counts(&fixture), ([0, 1], 0, 0));
    fixture.engine.cancel(job);

    let job = submit(&mut fixture);
    fixture.engine.not_stored(job, fixture.now);
    assert_eq!(counts(&fixture), ([0, 1], 1, 0));
    assert_eq!(fixture.engine.counters.not_stored, 1);

    let job = submit(&mut fixture);
    fixture.submit(1, Command::SubmitJob, "durable\0key\0");
    fixture.engine.not_stored(job, fixture.now);
    assert_eq!(counts(&fixture), ([1, 1], 1, 1), "it starts for the client that joined it");
    fixture.engine.check_invariants();
    fixture.engine.cancel(job);

    // Ended by an operator, its submission is accepted before.
    let job = submit(&mut fixture);
    fixture.engine.cancel(job);
    assert_eq!(counts(&fixture), ([1, 2], 1, 1));
    submit(&mut fixture);
    let id = fixture.engine.functions.find(b"durable").unwrap();
    fixture.engine.drop_function(id).unwrap();
    assert_eq!(counts(&fixture), ([1, 3], 1, 1));
    let failed = fixture.numbers("durable").failed;
    assert_eq!(failed[Failure::Cancelled as usize], 3);
    assert_eq!(failed[Failure::Dropped as usize], 1);
    fixture.engine.check_invariants();
}

#[test]
fn refused_submissions_count_by_their_reason_alone() {
    let mut fixture = Fixture::new(named(1));
    fixture.engine.create_function(b"f", 1 << 20);
    fixture.engine.set_queue_max(b"f", [1; 3]);
    fixture.background("f");
    let refused = fixture.try_submit(0, Command::SubmitJobBg, "f\0\0");
    assert_eq!(refused, Err(SubmitError::QueueFull));
    fixture.engine.set_queue_max(b"f", [0; 3]);
    let header = Header { magic: Magic::Request, command: Command::SubmitJob, body_bytes: 3 };
    for body in [b"f\0\0", b"g\0\0"] {
        let request = Request::parse(header, Payload::borrowed(body));
        let Ok(Request::Submit(submit)) = request else { panic!("{request:?}") };
        let refused = fixture.engine.submit(conn_id(0), &submit, 0, 20, fixture.now);
        assert_eq!(refused, Err(SubmitError::OutOfMemory));
    }
    fixture.engine.refuse(b"f", Refused::Size);
    fixture.engine.refuse(b"unknown", Refused::Access);
    let numbers = fixture.numbers("f");
    assert_eq!((numbers.submitted, numbers.refused), ([0, 1], [1, 1, 0, 1, 0]));
    assert_eq!(fixture.numbers("_other").refused, [0, 1, 0, 0, 1]);
    assert_eq!(fixture.engine.functions.find(b"unknown"), None);

    let mut fixture = Fixture::new(Settings { first_sequence: u64::MAX >> 16, ..settings() });
    fixture.engine.set_sequences(0..0);
    while fixture.try_submit(0, Command::SubmitJobBg, "f\0\0").is_ok() {}
    assert_eq!(fixture.numbers("f").refused[Refused::Store as usize], 1);
    fixture.engine.check_invariants();
}

#[test]
fn jobs_wait_until_their_first_assignment_and_each_attempt_runs() {
    let bucket = |at: usize, sum_ms| {
        let mut buckets = [0; BUCKETS];
        buckets[at] = 1;
        Durations { buckets, sum_ms }
    };
    let mut fixture = Fixture::new(settings());
    let job = fixture.background("f");
    fixture.pass(7);
    assert_eq!(fixture.run(5, "f"), job);
    fixture.pass(3000);
    assert_eq!(fixture.numbers("f").run.count(), 0, "it runs");
    fixture.disconnect(5);
    let Numbers { wait, run, .. } = fixture.numbers("f");
    assert_eq!((wait, run), (bucket(2, 7), bucket(6, 3000)));
    fixture.pass(9);
    fixture.run(5, "f");
    fixture.finish(5, job, Outcome::Fail);
    let Numbers { wait, run, .. } = fixture.numbers("f");
    assert_eq!((wait, run.count(), run.buckets[0], run.sum_ms), (bucket(2, 7), 2, 1, 3000));

    // A delayed job waits from its start time on, and a clock that is behind that counts as 0.
    let start_s = fixture.now.unix_ms / 1000 + 2;
    let delayed = format!("g\0\0{start_s}\0");
    fixture.submit(0, Command::SubmitJobEpoch, &delayed);
    fixture.submit(0, Command::SubmitJobEpoch, &delayed);
    let wait_ms = start_s * 1000 - fixture.now.unix_ms;
    fixture.pass(wait_ms + 20);
    fixture.run(5, "g");
    assert_eq!(fixture.numbers("g").wait, bucket(2, 20));
    fixture.now.unix_ms -= 10_000;
    fixture.grab(5).unwrap();
    let wait = fixture.numbers("g").wait;
    assert_eq!((wait.count(), wait.buckets[0], wait.sum_ms), (2, 1, 20));
}

#[test]
fn gauges_say_what_there_is_of_a_function_and_of_all_others() {
    let mut fixture =
        Fixture::new(Settings { metrics_functions: NamedFunctions::up_to(1), ..with_store() });
    fixture.engine.name_function(b"eager");
    let submitted_ms = fixture.now.unix_ms;
    for function in ["eager", "other", "another"] {
        for command in [Command::SubmitJobHighBg, Command::SubmitJobBg, Command::SubmitJobLowBg] {
            fixture.submit(0, command, &format!("{function}\0\0"));
        }
        let start_s = fixture.now.unix_ms / 1000 + 60;
        fixture.submit(0, Command::SubmitJobEpoch, &format!("{function}\0\0{start_s}\0"));
        for worker in [1, 2, 3] {
            fixture.can_do(worker, function);
        }
    }
    for worker in [1, 2] {
        fixture.grab(worker).unwrap();
    }
    let running = fixture.engine.jobs().iter_from(JobId::FIRST);
    let running: Vec<bool> = running
        .filter(|(_, job)| job.state == State::Running)
        .map(|(_, job)| fixture.engine.function_of(job).is_named())
        .collect();
    let [mine, others] = [true, false].map(|is| running.iter().filter(|&&it| it == is).count());
    let gauges = fixture.entry("eager").gauges;
    assert_eq!(gauges.queued, [1 - u32::try_from(mine).unwrap(), 1, 1]);
    assert_eq!((gauges.delayed, gauges.running as usize, gauges.workers), (1, mine, 3));
    assert_eq!((gauges.workers_busy as usize, gauges.oldest_ms), (mine, Some(submitted_ms)));
    let rest = fixture.entry("_other").gauges;
    assert_eq!(rest.queued, [2 - u32::try_from(others).unwrap(), 2, 2]);
    assert_eq!((rest.delayed, rest.running as usize, rest.workers), (2, others, 6));
    assert_eq!((rest.workers_busy as usize, rest.oldest_ms), (others, None));
    // What is left to the next server is queued still.
    fixture.engine.drain(DrainGoal::JobsDone, fixture.now);
    fixture.pass(1);
    let kept = fixture.entry("eager").gauges;
    assert_eq!((kept.queued.iter().sum::<u32>(), kept.delayed), (4 - kept.running, 0));
    assert_eq!(kept.oldest_ms, None);
    fixture.engine.check_invariants();
}

/// What can happen to an engine; numbers choose functions, connections and jobs.
#[derive(Clone, Copy, Debug)]
enum Step {
    Submit { function: usize, background: bool, priority: usize, unique: bool, delay_s: u64 },
    Restore { function: usize },
    CanDo { conn: u32, function: usize, timeout_ms: u32 },
    CantDo { conn: u32, function: usize },
    Revoke { conn: u32, function: usize },
    Grab { conn: u32 },
    Finish { conn: u32, at: usize, outcome: Outcome },
    Disconnect { conn: u32 },
    Cancel { at: usize },
    Drop { function: usize },
    Store { at: usize, is_kept: bool },
    Pass { ms: u64 },
    Policies { at: usize },
    Pause { function: usize, ms: u64 },
    Resume { function: usize },
    Requeue { at: usize },
    RemoveDead { at: usize },
    RunNow { at: usize },
    Suspend { is_suspended: bool },
    Lose { at: u64 },
    Adopt,
    Move,
    Drain,
}

/// What another server has, and how often this one has lost its home.
#[derive(Default)]
struct Elsewhere {
    rows: Vec<Row>,
    homes: u64,
}

/// What a functions file may say, one version after the other.
fn policies(at: usize) -> Arc<Policies> {
    let policy = |pattern: &str, attempts: u16| {
        let backoff = Backoff { first_ms: 300, ..Backoff::default() };
        let retries = Retries { backoff, foreground: at == 1, ..Retries::of(attempts) };
        let patterns = vec![Glob::new(pattern).unwrap()];
        Policy { patterns, retries: Some(retries), ..Policy::default() }
    };
    let expiry = Some(Expiry { after_ms: 2000, dead: at != 1 });
    Arc::new(Policies(match at {
        0 => vec![policy("*named", 2), Policy { expiry, ..policy("durable", 3) }],
        1 => vec![Policy { timeout_ms: 500, touch: true, ..policy("eager", 0) }],
        2 => vec![Policy { expiry, retries: None, ..policy("*", 1) }],
        _ => Vec::new(),
    }))
}

const FUNCTIONS: [&str; 5] = ["durable", "eager", "named", "not named", "_other"];

fn any_step() -> impl Strategy<Value = Step> {
    let (conn, function, at) = (|| 0..4_u32, || 0..FUNCTIONS.len(), || 0..20_usize);
    let outcome = prop_oneof![
        2 => Just(Outcome::Complete),
        1 => Just(Outcome::Fail),
        1 => Just(Outcome::Exception)
    ];
    let submit = (function(), any::<bool>(), 0..3_usize, any::<bool>(), 0..3_u64);
    let submit = submit.prop_map(|(function, background, priority, unique, delay_s)| {
        Step::Submit { function, background, priority, unique, delay_s }
    });
    let can_do = (conn(), function(), 0..3_u32);
    let can_do = can_do.prop_map(|(conn, function, seconds)| {
        let timeout_ms = seconds * 1000;
        Step::CanDo { conn, function, timeout_ms }
    });
    prop_oneof![
        30 => submit,
        2 => function().prop_map(|function| Step::Restore { function }),
        10 => can_do,
        3 => (conn(), function()).prop_map(|(conn, function)| Step::CantDo { conn, function }),
        2 => (conn(), function()).prop_map(|(conn, function)| Step::Revoke { conn, function }),
        20 => conn().prop_map(|conn| Step::Grab { conn }),
        15 => (conn(), at(), outcome)
            .prop_map(|(conn, at, outcome)| Step::Finish { conn, at, outcome }),
        2 => conn().prop_map(|conn| Step::Disconnect { conn }),
        3 => at().prop_map(|at| Step::Cancel { at }),
        2 => function().prop_map(|function| Step::Drop { function }),
        15 => (at(), 0..4_u32).prop_map(|(at, luck)| Step::Store { at, is_kept: luck > 0 }),
        8 => (0..2500_u64).prop_map(|ms| Step::Pass { ms }),
        2 => (0..4_usize).prop_map(|at| Step::Policies { at }),
        2 => (function(), 0..3000_u64)
            .prop_map(|(function, ms)| Step::Pause { function, ms }),
        2 => function().prop_map(|function| Step::Resume { function }),
        4 => at().prop_map(|at| Step::Requeue { at }),
        1 => at().prop_map(|at| Step::RemoveDead { at }),
        2 => at().prop_map(|at| Step::RunNow { at }),
        4 => any::<bool>().prop_map(|is_suspended| Step::Suspend { is_suspended }),
        2 => (0..2_u64).prop_map(|at| Step::Lose { at }),
        2 => Just(Step::Adopt),
        1 => Just(Step::Move),
        1 => Just(Step::Drain),
    ]
}

/// Returns how many jobs were assigned.
fn take_step(fixture: &mut Fixture, elsewhere: &mut Elsewhere, step: Step) -> u64 {
    let number_at = |fixture: &Fixture, at: usize, is_it: &dyn Fn(&Job) -> bool| {
        let jobs = fixture.engine.jobs().iter_from(JobId::FIRST).map(|(_, job)| job);
        let jobs: Vec<u64> = jobs.filter(|job| is_it(job)).map(|job| job.number).collect();
        (!jobs.is_empty()).then(|| jobs[at % jobs.len()])
    };
    let now = fixture.now;
    match step {
        Step::Submit { .. } if fixture.engine.is_draining() => {}
        Step::Submit { function, delay_s: 1.., .. } if function % 2 == 0 => {
            let start_s = now.unix_ms / 1000 + 2;
            let body = format!("{}\0\0{start_s}\0", FUNCTIONS[function]);
            fixture.submit(0, Command::SubmitJobEpoch, &body);
        }
        Step::Submit { function, background, priority, unique, .. } => {
            let commands = [
                [Command::SubmitJobHigh, Command::SubmitJob, Command::SubmitJobLow],
                [Command::SubmitJobHighBg, Command::SubmitJobBg, Command::SubmitJobLowBg],
            ];
            let unique = if unique { "key" } else { "" };
            let conn = u32::try_from(function + priority).unwrap() % 4;
            let body = format!("{}\0{unique}\0", FUNCTIONS[function]);
            fixture.submit(conn, commands[usize::from(background)][priority], &body);
        }
        Step::Restore { function } => {
            let row = Row {
                number: (fixture.engine.totals().jobs() + 1_000_000) << 16,
                function: FUNCTIONS[function].into(),
                unique: vec![b'u'; UNIQUE_BYTES_MAX].into(),
                reducer: "".into(),
                payload: "".into(),
                priority: Priority::Low,
                run_at_ms: 0,
                last_reason: None,
                was_lost: false,
                attempts: 1,
                submitted_ms: 0,
            };
            fixture.engine.restore(&row, now);
        }
        Step::CanDo { conn, function, timeout_ms } => {
            fixture.engine.can_do(conn_id(conn), FUNCTIONS[function].as_bytes(), timeout_ms);
        }
        Step::CantDo { conn, function } => {
            fixture.engine.cant_do(conn_id(conn), FUNCTIONS[function].as_bytes(), now);
        }
        Step::Revoke { conn, function } => {
            fixture.engine.revoke(conn_id(conn), FUNCTIONS[function].as_bytes());
        }
        Step::Grab { conn } => return u64::from(fixture.grab(conn).is_some()),
        Step::Finish { conn, at, outcome } => {
            if let Some(number) = number_at(fixture, at, &|_| true) {
                // Most don't run there, and are refused.
                let _ = fixture.end(conn, number, outcome);
            }
        }
        Step::Disconnect { conn } => fixture.disconnect(conn),
        Step::Cancel { at } => {
            if let Some(number) = number_at(fixture, at, &|job| job.demand != Demand::Cancelled) {
                fixture.engine.cancel(number);
            }
        }
        Step::Drop { function } => {
            if let Some(id) = fixture.engine.functions.find(FUNCTIONS[function].as_bytes()) {
                let _ = fixture.engine.drop_function(id);
            }
        }
        Step::Store { at, is_kept } => {
            if let Some(number) = number_at(fixture, at, &Job::is_stored) {
                if is_kept {
                    fixture.engine.stored(number, now);
                } else {
                    fixture.engine.not_stored(number, now);
                }
            }
        }
        Step::Pass { ms } => fixture.pass(ms),
        Step::Policies { at } => fixture.engine.use_policies(policies(at), now),
        Step::Pause { function, ms } => {
            let pause = if ms == 0 { Pause::Unlimited } else { Pause::Until(now.unix_ms + ms) };
            fixture.engine.pause(FUNCTIONS[function].as_bytes(), pause, 1 << 20, now);
        }
        Step::Resume { function } => fixture.engine.resume(FUNCTIONS[function].as_bytes(), now),
        Step::Requeue { at } => {
            if let Some(number) = letter_at(fixture, at) {
                fixture.engine.requeue(number, now);
            }
        }
        Step::RemoveDead { at } => {
            if let Some(number) = letter_at(fixture, at) {
                fixture.engine.remove_dead(number);
            }
        }
        Step::RunNow { at } => {
            let waits = |job: &Job| job.state == State::Delayed;
            if let Some(number) = number_at(fixture, at, &waits) {
                fixture.engine.run_now(number, now);
            }
        }
        Step::Suspend { is_suspended } => fixture.engine.set_suspended(is_suspended, now),
        Step::Lose { at } => {
            let belongs = |number: u64| number >> SLOT_BITS & 1 == at;
            let jobs = fixture.engine.jobs().iter_from(JobId::FIRST).map(|(_, job)| job);
            let lost = jobs.filter(|job| job.storage == Storage::Stored && belongs(job.number));
            let numbers: Vec<u64> = lost.map(|job| job.number).collect();
            elsewhere.rows.extend(numbers.into_iter().map(|number| fixture.row(number)));
            fixture.engine.drop_partition(belongs, now);
            let stays = |number| fixture.engine.dead().find(number).is_some();
            elsewhere.rows.retain(|row| !stays(row.number));
        }
        Step::Adopt => {
            elsewhere.rows.sort_unstable_by_key(|row| std::cmp::Reverse(row.number));
            elsewhere.rows.drain(..).for_each(|row| {
                fixture.engine.adopt(&row, now);
                let job = fixture.engine.find(row.number).map(|id| &fixture.engine.jobs()[id]);
                assert!(job.is_some_and(|it| it.is_stored() || it.demand == Demand::Cancelled));
            });
        }
        Step::Move => {
            elsewhere.homes += 1;
            let start = elsewhere.homes << 40;
            fixture.engine.move_home(start..start + 1000, now);
        }
        Step::Drain => fixture.engine.drain(DrainGoal::JobsDone, now),
    }
    0
}

fn letter_at(fixture: &Fixture, at: usize) -> Option<u64> {
    let letters = fixture.engine.dead();
    let mut numbers = letters.iter_from(0).map(|(_, letter)| letter.job.number);
    numbers.nth(at % letters.len().max(1))
}

/// All numbers of an entry.
fn flat(numbers: &Numbers) -> Vec<u64> {
    let Numbers { submitted, joined, recovered, completed, .. } = numbers;
    let Numbers { failed, dead, paused_ms, rerun, refused, wait, run, .. } = numbers;
    let single = [*joined, *recovered, *completed, *paused_ms, wait.sum_ms, run.sum_ms];
    let slices: [&[u64]; 8] =
        [submitted, failed, dead, rerun, refused, &wait.buckets, &run.buckets, &single];
    slices.concat()
}

proptest! {
    #[test]
    fn whatever_happens_numbers_add_up_and_never_fall(steps in vec(any_step(), 1..150)) {
        let budget = NamedFunctions::up_to(3);
        let (policies, dead) = (policies(0), DeadBounds::new(3, 1 << 20, 5000));
        let settings = Settings { metrics_functions: budget, policies, dead, ..with_store() };
        let mut fixture = Fixture::new(settings);
        let mut elsewhere = Elsewhere::default();
        let (mut before, mut assigned) = (Vec::<Vec<u64>>::new(), 0);
        for step in steps {
            assigned += take_step(&mut fixture, &mut elsewhere, step);
            // Wakes, and checks that each entry's jobs are those that there are and that ended.
            fixture.effects();
            let now: Vec<Vec<u64>> =
                fixture.engine.named_from(0).map(|entry| flat(entry.numbers)).collect();
            for (before, now) in before.iter().zip(&now) {
                prop_assert!(before.iter().zip(now).all(|(before, now)| before <= now));
            }
            prop_assert!(before.len() <= now.len() && now.len() <= 4);
            before = now;
            let totals = fixture.engine.totals();
            let (dead, failed) = (totals.dead.iter().sum::<u64>(), totals.failed.iter().sum());
            prop_assert!(dead <= failed, "a dead job has failed");
            let letters = fixture.engine.dead().len();
            prop_assert!(letters as u64 <= dead.min(3));
            prop_assert!(totals.wait.count() + totals.recovered >= totals.completed);
            let running = fixture.engine.running() as u64;
            prop_assert_eq!(assigned, totals.run.count() + running);
        }
    }
}
