//! Tests of the engine, and the fixture that the tests of its parts use.
//!
//! A fixture is an engine without packets and sockets: commands in, jobs by number and effects out.

use super::delayed::{CLOCK_JOBS, CLOCK_MS};
use super::function::{Durabilities, Durability};
use super::record::Row;
use super::*;
use crate::wire::{Command, Header, Magic, Payload, Priority, Request};

pub(crate) const NO_WORKER: [u32; 0] = [];

/// The connection of this number.
pub(crate) const fn conn_id(number: u32) -> ConnId {
    ConnId::from_number(number)
}

/// An engine, its clock, and its settings as most tests want them.
pub(crate) struct Fixture {
    pub(crate) engine: Engine,
    pub(crate) now: Now,
}

pub(crate) fn settings() -> Settings {
    Settings::default()
}

impl Fixture {
    pub(crate) fn new(settings: Settings) -> Self {
        let now = Now { mono_ms: 5000, unix_ms: 1_700_000_000_000 };
        let mut engine = Engine::new(settings, now);
        (0..10).for_each(|conn| engine.connect(conn_id(conn)));
        Self { engine, now }
    }

    /// Submits `command` with the arguments and payload in `body`.
    pub(crate) fn try_submit(
        &mut self,
        conn: u32,
        command: Command,
        body: &str,
    ) -> Result<u64, SubmitError> {
        let body_bytes = u32::try_from(body.len()).unwrap();
        let header = Header { magic: Magic::Request, command, body_bytes };
        let request = Request::parse(header, Payload::borrowed(body.as_bytes()));
        let Ok(Request::Submit(submit)) = request else { panic!("{request:?}") };
        let run_at_s =
            submit.epoch.map_or(0, |text| std::str::from_utf8(text).unwrap().parse().unwrap());
        let accepted = self.engine.submit(conn_id(conn), &submit, run_at_s, 1 << 20, self.now)?;
        Ok(accepted.number)
    }

    pub(crate) fn submit(&mut self, conn: u32, command: Command, body: &str) -> u64 {
        self.try_submit(conn, command, body).unwrap()
    }

    /// A background job without a unique.
    pub(crate) fn background(&mut self, function: &str) -> u64 {
        self.submit(0, Command::SubmitJobBg, &format!("{function}\0\0"))
    }

    pub(crate) fn can_do(&mut self, conn: u32, function: &str) {
        self.engine.can_do(conn_id(conn), function.as_bytes(), 0);
    }

    pub(crate) fn grab(&mut self, conn: u32) -> Option<u64> {
        let id = self.engine.grab(conn_id(conn), Priority::Low, self.now)?;
        Some(self.engine.jobs()[id].number)
    }

    pub(crate) fn complete(&mut self, conn: u32, number: u64) -> Result<(), NotRunning> {
        self.engine.work_complete(conn_id(conn), number, self.now)
    }

    pub(crate) fn end(
        &mut self,
        conn: u32,
        number: u64,
        outcome: Outcome,
    ) -> Result<(), NotRunning> {
        let conn = conn_id(conn);
        match outcome {
            Outcome::Complete => self.engine.work_complete(conn, number, self.now),
            _ => self.engine.work_failed(conn, number, outcome, b"why", self.now),
        }
    }

    pub(crate) fn sleep(&mut self, conn: u32) {
        self.engine.pre_sleep(conn_id(conn));
    }

    pub(crate) fn disconnect(&mut self, conn: u32) {
        self.engine.disconnect(conn_id(conn), self.now);
        self.engine.connect(conn_id(conn));
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.unix_ms += ms;
        self.engine.tick(self.now, usize::MAX);
    }

    /// What other connections have been sent since the last call: one batch.
    pub(crate) fn effects(&mut self) -> Vec<Effect> {
        self.engine.wake_sleepers(self.now);
        self.engine.check_invariants();
        let mut effects = Vec::new();
        self.engine.take_effects(&mut effects);
        effects
    }

    /// The workers that have been woken since the last call.
    pub(crate) fn woken(&mut self) -> Vec<u32> {
        let woken = |effect| match effect {
            Effect::Noop { conn } => conn.number(),
            other => panic!("{other:?}"),
        };
        self.effects().into_iter().map(woken).collect()
    }
}

/// What tells a worker that it need not finish a job.
fn notice(conn: u32, number: u64) -> Effect {
    Effect::CancelNotice { conn: conn_id(conn), number }
}

fn forwards(conns: &[u32]) -> Vec<Effect> {
    conns.iter().map(|&conn| Effect::Forward { conn: conn_id(conn) }).collect()
}

#[test]
fn equal_uniques_of_one_function_are_one_job() {
    let mut fixture = Fixture::new(settings());
    let job = fixture.submit(0, Command::SubmitJob, "resize\0key\0payload");
    assert_eq!(fixture.submit(1, Command::SubmitJobHigh, "resize\0key\0other"), job);
    assert_ne!(fixture.submit(1, Command::SubmitJob, "rotate\0key\0payload"), job);
    assert_ne!(fixture.submit(1, Command::SubmitJob, "resize\0\0payload"), job);
    let without = fixture.submit(1, Command::SubmitJob, "resize\0\0payload");
    assert_ne!(fixture.submit(1, Command::SubmitJob, "resize\0\0payload"), without);
    assert_eq!(fixture.engine.status(job).unwrap().clients, 2);
    assert_eq!(fixture.engine.totals().joined, 1);
}

#[test]
fn a_dash_stands_for_the_payload_unless_there_is_none() {
    let mut fixture = Fixture::new(settings());
    let job = fixture.submit(0, Command::SubmitJobBg, "resize\0-\0payload");
    assert_eq!(fixture.submit(1, Command::SubmitJobBg, "resize\0-\0payload"), job);
    assert_ne!(fixture.submit(1, Command::SubmitJobBg, "resize\0-\0other"), job);
    let empty = fixture.submit(1, Command::SubmitJobBg, "resize\0-\0");
    assert_ne!(fixture.submit(1, Command::SubmitJobBg, "resize\0-\0"), empty);
    // Asked for by its unique, none of them is found.
    assert_eq!(fixture.engine.status_unique(b"-", |_| true), None);
}

#[test]
fn results_go_to_each_submission_the_latest_first() {
    let mut fixture = Fixture::new(settings());
    let job = fixture.submit(0, Command::SubmitJob, "resize\0key\0");
    for conn in [1, 1] {
        fixture.submit(conn, Command::SubmitJob, "resize\0key\0");
    }
    fixture.submit(2, Command::SubmitJobBg, "resize\0key\0");
    fixture.can_do(5, "resize");
    assert_eq!(fixture.grab(5), Some(job));
    fixture.submit(3, Command::SubmitJob, "resize\0key\0");
    fixture.engine.work_data(conn_id(5), job, fixture.now).unwrap();
    assert_eq!(fixture.effects(), forwards(&[3, 1, 1, 0]));
    fixture.complete(5, job).unwrap();
    assert_eq!(fixture.effects(), forwards(&[3, 1, 1, 0]));
    assert_eq!(fixture.complete(5, job), Err(NotRunning));
    assert_ne!(fixture.submit(3, Command::SubmitJob, "resize\0key\0"), job, "it is done");
}

#[test]
fn background_interest_outlives_the_clients() {
    // gearmand drops accepted background work when the last foreground client that joined it
    // leaves.
    let mut fixture = Fixture::new(settings());
    let first = fixture.submit(0, Command::SubmitJob, "resize\0first\0");
    assert_eq!(fixture.submit(1, Command::SubmitJobBg, "resize\0first\0"), first);
    let second = fixture.submit(1, Command::SubmitJobBg, "resize\0second\0");
    assert_eq!(fixture.submit(0, Command::SubmitJob, "resize\0second\0"), second);
    let abandoned = fixture.submit(0, Command::SubmitJob, "resize\0third\0");
    fixture.disconnect(0);
    assert_eq!(fixture.effects(), []);
    assert_eq!(fixture.engine.status(abandoned), None, "gone at once, from every index");
    assert_ne!(fixture.submit(2, Command::SubmitJob, "resize\0third\0"), abandoned);
    fixture.can_do(5, "resize");
    assert_eq!((fixture.grab(5), fixture.grab(5)), (Some(first), Some(second)));
}

#[test]
fn a_running_job_whose_client_left_may_be_joined_and_else_is_not_run_again() {
    let mut fixture = Fixture::new(settings());
    let joined = fixture.submit(0, Command::SubmitJob, "resize\0joined\0");
    let alone = fixture.submit(0, Command::SubmitJob, "resize\0alone\0");
    fixture.can_do(5, "resize");
    assert_eq!((fixture.grab(5), fixture.grab(5)), (Some(joined), Some(alone)));
    fixture.disconnect(0);
    assert_eq!(fixture.submit(1, Command::SubmitJob, "resize\0joined\0"), joined);
    fixture.disconnect(5);
    fixture.can_do(6, "resize");
    assert_eq!((fixture.grab(6), fixture.grab(6)), (Some(joined), None));
    assert_eq!(fixture.engine.totals().failed[Failure::Abandoned as usize], 1);
}

#[test]
fn cancelled_jobs_fail_for_their_clients_and_can_not_be_reached() {
    let mut fixture = Fixture::new(settings());
    let queued = fixture.submit(0, Command::SubmitJob, "resize\0queued\0");
    let delayed = fixture.submit(0, Command::SubmitJobEpoch, "resize\0delayed\x001700000100\0");
    assert!(fixture.engine.cancel(queued) && fixture.engine.cancel(delayed));
    assert_eq!(fixture.effects(), [Effect::Fail { conn: conn_id(0), number: queued }]);
    assert!(!fixture.engine.cancel(queued));
    assert_eq!(fixture.engine.deadline_ms(), None, "its timer is gone, too");

    let running = fixture.submit(0, Command::SubmitJob, "resize\0running\0");
    fixture.can_do(5, "resize");
    assert_eq!(fixture.grab(5), Some(running));
    assert!(fixture.engine.cancel(running));
    let told = Effect::Fail { conn: conn_id(0), number: running };
    assert_eq!(fixture.effects(), [told, notice(5, running)]);
    assert_ne!(fixture.submit(1, Command::SubmitJob, "resize\0running\0"), running);
    assert_eq!(fixture.complete(5, running), Ok(()));
    assert_eq!(fixture.effects(), [], "its clients have had their answer");
}

#[test]
fn requeued_jobs_go_to_the_head_in_their_old_order() {
    let mut fixture = Fixture::new(settings());
    let jobs: Vec<u64> = (0..4).map(|_| fixture.background("resize")).collect();
    fixture.can_do(5, "resize");
    assert_eq!((fixture.grab(5), fixture.grab(5)), (Some(jobs[0]), Some(jobs[1])));
    fixture.engine.work_status(conn_id(5), jobs[0], (3, 4), fixture.now).unwrap();
    fixture.disconnect(5);
    assert_eq!(fixture.engine.status(jobs[0]), Some(Status::default()), "progress starts anew");
    fixture.can_do(6, "resize");
    let grabbed: Vec<u64> = (0..4).filter_map(|_| fixture.grab(6)).collect();
    assert_eq!(grabbed, jobs);
    assert_eq!(fixture.engine.totals().rerun, [2, 0, 0, 0, 0]);
}

#[test]
fn a_job_is_dropped_when_as_many_workers_have_lost_it_as_may() {
    for (attempts_max, losses) in [(Some(0), 1), (Some(1), 1), (Some(3), 3)] {
        let mut fixture = Fixture::new(Settings { attempts_max, ..settings() });
        let job = fixture.submit(0, Command::SubmitJob, "resize\0\0");
        for loss in 1..=losses {
            assert_eq!(fixture.effects(), [], "{attempts_max:?}");
            fixture.can_do(5, "resize");
            assert_eq!(fixture.grab(5), Some(job));
            if loss == 2 {
                fixture.engine.cant_do(conn_id(5), b"resize", fixture.now);
            } else {
                fixture.disconnect(5);
            }
        }
        assert_eq!(fixture.effects(), [Effect::Fail { conn: conn_id(0), number: job }]);
        assert_eq!(
            (fixture.engine.status(job), fixture.engine.totals().failed[Failure::Lost as usize]),
            (None, 1)
        );
    }
}

#[test]
fn a_job_that_runs_out_of_time_goes_to_the_next_worker() {
    let mut fixture = Fixture::new(settings());
    let job = fixture.background("resize");
    fixture.engine.can_do(conn_id(5), b"resize", 2000);
    assert_eq!(fixture.grab(5), Some(job));
    fixture.pass(1999);
    assert!(fixture.engine.status(job).unwrap().running);
    fixture.pass(1);
    assert!(!fixture.engine.status(job).unwrap().running);
    fixture.can_do(6, "resize");
    assert_eq!(fixture.grab(6), Some(job));
    assert_eq!(fixture.complete(5, job), Err(NotRunning));
    assert_eq!(fixture.engine.counters.late, 1);
    fixture.pass(100_000);
    assert_eq!(fixture.complete(6, job), Ok(()), "this one has all the time it wants");
    assert_eq!(fixture.engine.deadline_ms(), None);
}

/// A job that outlasted its worker's CAN_DO_TIMEOUT went back to its queue, the worker's result was
/// refused and the job grabbed again: its only worker ran it for ever, and the client waited.
#[test]
fn the_result_of_an_attempt_that_timed_out_is_taken_until_the_next_attempt() {
    let mut fixture = Fixture::new(settings());
    fixture.can_do(6, "resize");
    let time_out = |fixture: &mut Fixture| {
        let job = fixture.submit(1, Command::SubmitJob, "resize\0\0");
        fixture.engine.can_do(conn_id(5), b"resize", 2000);
        assert_eq!(fixture.grab(5), Some(job));
        fixture.pass(2000);
        fixture.effects();
        assert!(!fixture.engine.status(job).unwrap().running);
        job
    };
    let job = time_out(&mut fixture);
    assert_eq!(fixture.complete(6, job), Err(NotRunning), "another's");
    assert_eq!(fixture.engine.work_status(conn_id(5), job, (1, 2), fixture.now), Ok(()));
    assert_eq!(fixture.effects(), [Effect::Forward { conn: conn_id(1) }]);
    assert_eq!(fixture.engine.status(job).unwrap().numerator, 0, "it doesn't run");
    assert_eq!(fixture.complete(5, job), Ok(()));
    assert_eq!(fixture.effects(), [Effect::Forward { conn: conn_id(1) }]);
    assert_eq!((fixture.engine.status(job), fixture.grab(6)), (None, None));
    // Once it has given the function up, or is gone, nothing of it is welcome.
    let job = time_out(&mut fixture);
    fixture.engine.cant_do(conn_id(5), b"resize", fixture.now);
    fixture.engine.can_do(conn_id(5), b"resize", 2000);
    assert_eq!(fixture.complete(5, job), Err(NotRunning), "it registered anew");
    assert_eq!(fixture.grab(5), Some(job));
    fixture.complete(5, job).unwrap();
    let job = time_out(&mut fixture);
    fixture.disconnect(5);
    fixture.engine.can_do(conn_id(5), b"resize", 2000);
    assert_eq!(fixture.complete(5, job), Err(NotRunning), "another one of its number");
    fixture.engine.check_invariants();
}

#[test]
fn delayed_jobs_wait_outside_the_queue_for_their_second() {
    let mut fixture = Fixture::new(settings());
    let late = fixture.submit(0, Command::SubmitJobEpoch, "resize\0\x001700000060\0");
    let past = fixture.submit(0, Command::SubmitJobEpoch, "resize\0\x001600000000\0");
    fixture.can_do(5, "resize");
    assert_eq!((fixture.grab(5), fixture.grab(5)), (Some(past), None));
    fixture.sleep(5);
    fixture.pass(59_999);
    assert_eq!(fixture.woken(), NO_WORKER);
    fixture.pass(1);
    assert_eq!(fixture.woken(), [5]);
    assert_eq!(fixture.grab(5), Some(late));
}

#[test]
fn a_delayed_job_follows_the_wall_clock_when_that_is_set() {
    // A delayed job looked at the wall clock every 15 minutes: set forward, or after the host was
    // suspended, it started that late.
    let mut fixture = Fixture::new(settings());
    let job = fixture.submit(0, Command::SubmitJobEpoch, "resize\0\x001700086400\0");
    fixture.can_do(5, "resize");
    fixture.now.unix_ms += 2 * 86_400_000;
    fixture.pass(0);
    assert_eq!(fixture.grab(5), None, "the clock is looked at each second");
    fixture.pass(CLOCK_MS);
    assert_eq!(fixture.grab(5), Some(job));
    fixture.engine.check_invariants();
    assert_eq!(fixture.engine.deadline_ms(), None, "without delayed jobs it isn't looked at");
}

#[test]
fn many_delayed_jobs_follow_the_wall_clock_in_portions_and_cost_nothing_until_then() {
    let mut fixture = Fixture::new(settings());
    let count = 4 * CLOCK_JOBS;
    for _ in 0..count {
        fixture.submit(0, Command::SubmitJobEpoch, "resize\0\x001700086400\0");
    }
    fixture.can_do(5, "resize");
    for _ in 0..10 {
        fixture.now =
            Now { mono_ms: fixture.now.mono_ms + 1000, unix_ms: fixture.now.unix_ms + 1000 };
        // The timer counts again each time that it goes down a level.
        fixture.engine.tick(fixture.now, 8);
        assert!(
            fixture.engine.deadline_ms() > Some(fixture.now.mono_ms),
            "one timer fires a second"
        );
    }
    fixture.now.mono_ms += 1000;
    fixture.now.unix_ms += 2 * 86_400_000;
    let mut ticks = 0;
    while fixture.engine.deadline_ms().is_some_and(|at_ms| at_ms <= fixture.now.mono_ms) {
        fixture.engine.tick(fixture.now, CLOCK_JOBS);
        fixture.engine.check_invariants();
        ticks += 1;
    }
    assert!((8..=12).contains(&ticks), "{ticks} calls of a bounded size");
    assert_eq!(std::iter::from_fn(|| fixture.grab(5)).count(), count);
}

#[test]
fn a_full_queue_refuses_new_jobs_and_takes_joining_ones() {
    let mut fixture = Fixture::new(settings());
    fixture.engine.set_queue_max(b"resize", [1; 3]);
    let job = fixture.submit(0, Command::SubmitJob, "resize\0key\0");
    fixture.engine.set_queue_max(b"resize", [0, 2, 1]);
    fixture.background("resize");
    let full = Err(SubmitError::QueueFull);
    assert_eq!(fixture.try_submit(0, Command::SubmitJob, "resize\0\0"), full);
    assert_eq!(fixture.try_submit(0, Command::SubmitJobLow, "resize\0\0"), full);
    assert_eq!(fixture.try_submit(0, Command::SubmitJob, "resize\0key\0"), Ok(job));
    assert!(fixture.try_submit(0, Command::SubmitJobHigh, "resize\0\0").is_ok(), "without a limit");
}

#[test]
fn a_function_is_dropped_with_what_waits_for_it_and_not_beside_workers() {
    let mut fixture = Fixture::new(settings());
    let job = fixture.submit(0, Command::SubmitJob, "resize\0key\0");
    let id = fixture.engine.functions().find(b"resize").unwrap();
    fixture.can_do(5, "resize");
    assert_eq!(fixture.engine.drop_function(id), Err(FunctionBusy));
    assert_eq!(fixture.grab(5), Some(job));
    fixture.complete(5, job).unwrap();
    fixture.engine.cant_do(conn_id(5), b"resize", fixture.now);
    fixture.effects();
    let waits = fixture.submit(0, Command::SubmitJob, "resize\0key\0");
    fixture.submit(0, Command::SubmitJobEpoch, "resize\0\x001700000060\0");
    assert_eq!(fixture.engine.drop_function(id), Ok(()));
    assert_eq!(fixture.effects(), [Effect::Fail { conn: conn_id(0), number: waits }]);
    assert!(fixture.engine.jobs().is_empty() && fixture.engine.deadline_ms().is_none());
    assert_eq!(fixture.engine.functions().find(b"resize"), None);
}

#[test]
fn memory_is_counted_and_bounds_submissions() {
    let mut fixture = Fixture::new(settings());
    let header = Header { magic: Magic::Request, command: Command::SubmitJob, body_bytes: 12 };
    let request = Request::parse(header, Payload::borrowed(b"resize\0\0data"));
    let Ok(Request::Submit(submit)) = request else { panic!() };
    let bytes = size_of::<Job>() + 5;
    let now = fixture.now;
    let refused = fixture.engine.submit(conn_id(0), &submit, 0, bytes, now);
    assert_eq!((refused, fixture.engine.functions().len()), (Err(SubmitError::OutOfMemory), 0));
    assert!(fixture.engine.create_function(b"resize", 1 << 20), "its memory is counted, too");
    let refused = fixture.engine.submit(conn_id(0), &submit, 0, bytes - 1, now);
    assert_eq!(refused, Err(SubmitError::OutOfMemory));
    let job = fixture.engine.submit(conn_id(0), &submit, 0, bytes, now).unwrap();
    assert_eq!(fixture.engine.job_bytes(), bytes);
    fixture.engine.cancel(job.number);
    assert_eq!(fixture.engine.job_bytes(), 0);
}

#[test]
fn numbers_go_on_from_the_first_and_status_finds_the_latest_unique() {
    let mut fixture = Fixture::new(Settings { first_sequence: 77, ..settings() });
    let number = |sequence, name: &[u8]| handle::job_number(sequence, handle::slot(name));
    let [first, second] = [number(77, b"a"), number(78, b"b")];
    assert_eq!(fixture.submit(0, Command::SubmitJobBg, "a\0key\0"), first);
    assert_eq!(fixture.submit(0, Command::SubmitJob, "b\0key\0"), second);
    assert_eq!(
        fixture.engine.status_unique(b"key", |_| true).unwrap().1.clients,
        1,
        "the one of `b`"
    );
    assert_eq!(fixture.engine.jobs()[JobId::FIRST.next()].priority, Priority::Normal);
    fixture.engine.cancel(second);
    assert_eq!(fixture.engine.status_unique(b"key", |_| true).unwrap().1.clients, 0);
}

/// A fixture whose background jobs go to the store.
pub(crate) fn durable(default: Durability) -> Fixture {
    let durabilities = Durabilities { default, ..Durabilities::default() };
    Fixture::new(Settings { durabilities, ..settings() })
}

impl Fixture {
    /// Submits in the background and waits for the store, as `ticket`, if need be.
    pub(crate) fn submit_durably(&mut self, conn: u32, body: &str, ticket: Ticket) -> Accepted {
        let body_bytes = u32::try_from(body.len()).unwrap();
        let command = Command::SubmitJobBg;
        let header = Header { magic: Magic::Request, command, body_bytes };
        let request = Request::parse(header, Payload::borrowed(body.as_bytes()));
        let Ok(Request::Submit(submit)) = request else { panic!("{request:?}") };
        let accepted = self.engine.submit(conn_id(conn), &submit, 0, 1 << 20, self.now).unwrap();
        if accepted.waits {
            self.engine.await_store(conn_id(conn), accepted.job, ticket);
        }
        accepted
    }

    pub(crate) fn row(&self, number: u64) -> Row {
        let (_, job) = self
            .engine
            .jobs()
            .iter_from(JobId::FIRST)
            .find(|(_, job)| job.number == number)
            .unwrap();
        job.row(&self.engine.function_of(job).name)
    }
}

#[test]
fn a_durable_job_is_neither_run_nor_answered_before_it_is_on_disk() {
    let mut fixture = durable(Durability::Fsync);
    fixture.can_do(1, "mail");
    fixture.sleep(1);
    let Accepted { number, job, waits } = fixture.submit_durably(0, "mail\0key\0payload", 7);
    assert!(waits);
    assert_eq!(fixture.effects(), [Effect::Insert { job, answered: false }]);
    assert_eq!(fixture.grab(1), None);
    fixture.sleep(1);
    // An equal submission waits for the same commit; one in the foreground needn't.
    assert_eq!(fixture.submit_durably(2, "mail\0key\0", 8).number, number);
    assert_eq!(fixture.submit(3, Command::SubmitJob, "mail\0key\0"), number);
    assert_eq!(fixture.effects(), [], "one row for all of them");
    fixture.engine.stored(number, fixture.now);
    let accepted = |conn, ticket| Effect::Accepted { conn: conn_id(conn), ticket, number };
    assert_eq!(
        fixture.effects(),
        [accepted(2, 8), accepted(0, 7), Effect::Noop { conn: conn_id(1) }]
    );
    assert_eq!(fixture.grab(1), Some(number));
    assert!(!fixture.submit_durably(2, "mail\0key\0", 9).waits, "it is on disk by now");
    fixture.complete(1, number).unwrap();
    assert_eq!(
        fixture.effects(),
        [Effect::Forward { conn: conn_id(3) }, Effect::Remove { number }]
    );
}

#[test]
fn a_job_that_is_not_kept_is_refused_and_gone() {
    let mut fixture = durable(Durability::Fsync);
    let lost = fixture.submit_durably(0, "mail\0\0", 1);
    let wanted = fixture.submit_durably(0, "mail\0key\0", 2);
    fixture.submit(3, Command::SubmitJob, "mail\0key\0");
    fixture.effects();
    fixture.engine.not_stored(lost.number, fixture.now);
    fixture.engine.not_stored(wanted.number, fixture.now);
    let refused = |ticket| Effect::Refused { conn: conn_id(0), ticket };
    assert_eq!(fixture.effects(), [refused(1), refused(2)], "and no removal: the store knows");
    fixture.can_do(1, "mail");
    assert_eq!(fixture.grab(1), Some(wanted.number), "a foreground client wants it all the same");
    fixture.complete(1, wanted.number).unwrap();
    assert_eq!(fixture.effects(), [Effect::Forward { conn: conn_id(3) }]);
    assert!(fixture.engine.jobs().is_empty());
}

#[test]
fn what_the_store_has_lost_is_kept_again_while_it_is_there() {
    let mut fixture = durable(Durability::Fsync);
    fixture.can_do(1, "mail");
    let done = fixture.submit_durably(0, "mail\0\0", 1).number;
    let running = fixture.submit_durably(0, "mail\0\0", 2);
    let queued = fixture.submit_durably(0, "mail\0\0", 3);
    let on_its_way = fixture.submit_durably(0, "mail\0\0", 4).number;
    for number in [done, running.number, queued.number] {
        fixture.engine.stored(number, fixture.now);
    }
    let foreground = fixture.submit(3, Command::SubmitJob, "mail\0key\0");
    assert_eq!(fixture.grab(1), Some(done));
    fixture.complete(1, done).unwrap();
    assert_eq!(fixture.grab(1), Some(running.number));
    fixture.effects();
    for number in [done, running.number, queued.number, on_its_way, foreground, 1 << 40] {
        fixture.engine.keep_again(number);
    }
    let again = |job| Effect::Insert { job, answered: true };
    assert_eq!(fixture.effects(), [again(running.job), again(queued.job)]);
}

#[test]
fn a_client_that_leaves_does_not_take_its_durable_job_along() {
    let mut fixture = durable(Durability::Fsync);
    let Accepted { number, .. } = fixture.submit_durably(0, "mail\0\0", 1);
    fixture.disconnect(0);
    fixture.effects();
    fixture.engine.stored(number, fixture.now);
    assert_eq!(fixture.effects(), [], "no client is left to be answered");
    fixture.can_do(1, "mail");
    assert_eq!(fixture.grab(1), Some(number));
}

#[test]
fn a_job_that_is_cancelled_as_it_runs_does_not_come_back_after_a_restart() {
    let mut fixture = durable(Durability::Fsync);
    fixture.can_do(1, "mail");
    let number = fixture.submit_durably(0, "mail\0key\0", 1).number;
    fixture.engine.stored(number, fixture.now);
    assert_eq!(fixture.grab(1), Some(number));
    fixture.effects();
    assert!(fixture.engine.cancel(number));
    assert_eq!(
        fixture.effects(),
        [notice(1, number), Effect::Remove { number }],
        "at once, not when its worker is done"
    );
    fixture.complete(1, number).unwrap();
    assert_eq!(fixture.effects(), [], "and once");
}

#[test]
fn joining_in_the_background_makes_a_foreground_job_durable() {
    let mut fixture = durable(Durability::Fsync);
    fixture.can_do(1, "mail");
    let number = fixture.submit(0, Command::SubmitJob, "mail\0key\0");
    assert_eq!(fixture.effects(), [], "foreground jobs stay in memory");
    assert_eq!(fixture.grab(1), Some(number));
    let joined = fixture.submit_durably(2, "mail\0key\0", 5);
    assert!(joined.waits);
    assert_eq!(fixture.effects(), [Effect::Insert { job: joined.job, answered: false }]);
    // Finished before it was on disk: the waiting client is answered, and the row is removed.
    fixture.complete(1, number).unwrap();
    let accepted = Effect::Accepted { conn: conn_id(2), ticket: 5, number };
    assert_eq!(
        fixture.effects(),
        [Effect::Forward { conn: conn_id(0) }, accepted, Effect::Remove { number }]
    );
    fixture.engine.stored(number, fixture.now);
    assert_eq!(fixture.effects(), []);
}

#[test]
fn async_jobs_run_at_once_unless_the_store_lags() {
    let mut fixture = durable(Durability::Async);
    let first = fixture.submit_durably(0, "mail\0\0", 1);
    assert!(!first.waits);
    assert_eq!(fixture.effects(), [Effect::Insert { job: first.job, answered: true }]);
    fixture.can_do(1, "mail");
    assert_eq!(fixture.grab(1), Some(first.number));
    fixture.engine.allow_async(false);
    assert!(fixture.submit_durably(0, "mail\0\0", 2).waits);
}

#[test]
fn jobs_come_back_with_handle_unique_attempts_time_and_order() {
    let mut fixture = durable(Durability::Fsync);
    fixture.can_do(1, "mail");
    let numbers = ["a", "b", "c"].map(|unique| {
        let job = fixture.submit_durably(0, &format!("mail\0{unique}\0payload {unique}"), 1);
        fixture.engine.stored(job.number, fixture.now);
        job.number
    });
    assert_eq!(fixture.grab(1), Some(numbers[0]));
    fixture.effects();
    fixture.engine.cant_do(conn_id(1), b"mail", fixture.now);
    let lost = Effect::Retry { number: numbers[0] };
    assert_eq!(fixture.effects(), [lost], "a worker lost it");
    let mut rows: Vec<Row> = numbers.iter().map(|&number| fixture.row(number)).collect();
    rows[1].run_at_ms = fixture.now.unix_ms + 60_000;

    let mut fixture = durable(Durability::Fsync);
    for row in &rows {
        assert!(fixture.engine.restore(row, fixture.now));
        assert!(!fixture.engine.restore(row, fixture.now), "a handle is given to one job");
    }
    assert_eq!(fixture.effects(), [], "the store has them already");
    assert!(rows.iter().all(|row| fixture.row(row.number) == *row));
    assert_eq!(rows[0].attempts, 1);
    let joined = fixture.submit_durably(0, "mail\0b\0", 1);
    assert_eq!((joined.number, joined.waits), (numbers[1], false), "equal work joins it");
    let new = fixture.submit_durably(0, "mail\0\0", 1).number;
    assert!(new > numbers[2], "numbers go on");
    fixture.engine.stored(new, fixture.now);
    fixture.can_do(1, "mail");
    let order: Vec<u64> = std::iter::from_fn(|| fixture.grab(1)).collect();
    assert_eq!(order, [numbers[0], numbers[2], new]);
    fixture.pass(60_001);
    assert_eq!(fixture.grab(1), Some(numbers[1]), "its time has come");
}

/// With a store, a server that was to end waited for workers of queued jobs that the next one
/// would have had anyway.
#[test]
fn a_draining_engine_leaves_stored_jobs_to_the_next_and_works_off_the_others() {
    let mut fixture = durable(Durability::Fsync);
    fixture.can_do(1, "f");
    let stored: Vec<u64> = (0..1000).map(|_| fixture.background("f")).collect();
    stored.iter().for_each(|&number| fixture.engine.stored(number, fixture.now));
    let delayed = fixture.submit(0, Command::SubmitJobEpoch, "f\0\x001700000100\0");
    let unsure = fixture.background("f");
    fixture.engine.stored(delayed, fixture.now);
    let running = fixture.grab(1).unwrap();
    let foreground = fixture.submit(2, Command::SubmitJob, "f\0\0");
    fixture.engine.drain(DrainGoal::JobsDone, fixture.now);
    assert!(fixture.engine.is_draining());
    fixture.engine.tick(fixture.now, 100);
    assert!(fixture.engine.kept() < 1000, "some at a time");
    for _ in 0..10 {
        fixture.engine.tick(fixture.now, 4096);
    }
    fixture.engine.check_invariants();
    assert_eq!(fixture.engine.deadline_ms(), None, "it has looked at all");
    assert_eq!(fixture.engine.kept(), 1000, "all but the running one, and the delayed one");
    fixture.engine.stored(unsure, fixture.now);
    assert_eq!(fixture.engine.kept(), 1001, "and the job that was being stored");
    assert_eq!(fixture.grab(1), Some(foreground), "only memory has it");
    assert_eq!(fixture.grab(1), None);
    // A stored job that is lost goes to the next server with its attempt.
    fixture.engine.disconnect(conn_id(1), fixture.now);
    fixture.engine.check_invariants();
    assert_eq!((fixture.engine.kept(), fixture.engine.running()), (1002, 0));
    fixture.engine.connect(conn_id(1));
    fixture.can_do(1, "f");
    assert_eq!(fixture.grab(1), Some(foreground));
    fixture.complete(1, foreground).unwrap();
    assert_eq!(fixture.engine.jobs().len(), fixture.engine.kept());
    let removed = |fixture: &mut Fixture| {
        let effects = fixture.effects();
        effects.iter().filter(|effect| matches!(effect, Effect::Remove { .. })).count()
    };
    assert_eq!(removed(&mut fixture), 0, "the store keeps them");
    assert!(fixture.engine.cancel(running), "and an operator may still cancel one");
    assert_eq!((removed(&mut fixture), fixture.engine.kept()), (1, 1001));
    fixture.engine.check_invariants();
}

/// Between the signal and the first look at the jobs a worker could get one that was the next
/// server's.
#[test]
fn a_draining_engine_assigns_no_stored_job_before_it_has_looked_at_all() {
    let mut fixture = durable(Durability::Fsync);
    fixture.can_do(1, "f");
    let stored: Vec<u64> = (0..600).map(|_| fixture.background("f")).collect();
    stored.iter().for_each(|&number| fixture.engine.stored(number, fixture.now));
    let foreground = fixture.submit(2, Command::SubmitJob, "f\0\0");
    fixture.engine.drain(DrainGoal::JobsDone, fixture.now);
    let grabs: Vec<Option<u64>> = (0..3).map(|_| fixture.grab(1)).collect();
    assert_eq!(grabs, [None, None, Some(foreground)], "a batch of stored ones at a time");
    assert_eq!(fixture.engine.kept(), 600);
    fixture.engine.check_invariants();
}

/// A client waited for a job that another client had submitted in the background. The server
/// drained before the store answered, the store refused, and the job stayed set aside for a next
/// server that would never hear of it.
#[test]
fn a_job_set_aside_is_worked_off_if_the_store_refuses_it_after_all() {
    let mut fixture = durable(Durability::Fsync);
    let number = fixture.submit(0, Command::SubmitJob, "f\0key\0");
    assert!(fixture.submit_durably(2, "f\0key\0", 7).waits);
    fixture.engine.drain(DrainGoal::JobsDone, fixture.now);
    fixture.engine.tick(fixture.now, 100);
    assert_eq!(fixture.engine.kept(), 1);
    fixture.engine.not_stored(number, fixture.now);
    fixture.engine.check_invariants();
    assert_eq!(fixture.engine.kept(), 0);
    fixture.can_do(1, "f");
    assert_eq!(fixture.grab(1), Some(number));
}

/// SIGTERM with a time for draining: what runs is finished, and what the store keeps is accepted.
#[test]
fn an_engine_that_waits_for_runs_only_assigns_and_wakes_nothing() {
    let mut fixture = durable(Durability::Async);
    fixture.can_do(1, "f");
    fixture.can_do(2, "f");
    let number = fixture.submit(0, Command::SubmitJob, "f\0\0");
    let waiting = fixture.submit(0, Command::SubmitJob, "f\0\0");
    assert_eq!(fixture.grab(1), Some(number));
    fixture.engine.drain(DrainGoal::RunsDone, fixture.now);
    assert_eq!(fixture.grab(2), None);
    assert!(fixture.engine.ready(conn_id(2)).is_empty(), "other cores needn't ask");
    assert!(fixture.engine.priorities().is_empty());
    fixture.engine.pre_sleep(conn_id(2));
    let accepted = fixture.submit_durably(3, "f\0\0", 7);
    assert!(accepted.waits, "there is no later moment to store it");
    assert_eq!(fixture.engine.awaiting_store(), 1);
    fixture.engine.stored(accepted.number, fixture.now);
    assert_eq!(fixture.engine.awaiting_store(), 0);
    fixture.engine.wake_sleepers(fixture.now);
    let effects = fixture.effects();
    assert!(!effects.iter().any(|it| matches!(it, Effect::Noop { .. })), "{effects:?}");
    fixture.engine.check_invariants();
    // The worker leaves: its job waits again, and nothing runs.
    fixture.engine.disconnect(conn_id(1), fixture.now);
    assert_eq!((fixture.engine.running(), fixture.engine.kept()), (0, 0));
    assert!([number, waiting].into_iter().all(|it| fixture.engine.status(it).is_some()));
    fixture.engine.drain(DrainGoal::JobsDone, fixture.now);
    assert_eq!(fixture.grab(2), None, "the first goal stays");
    fixture.engine.check_invariants();
}
