//! Tests of the engine's own half, and the rig that those of `worker` use, too.
//!
//! A rig is an engine without packets and sockets: commands in, jobs by number and effects out.

use super::delayed::{CLOCK_JOBS, CLOCK_MS};
use super::function::{Durabilities, Durability};
use super::record::Row;
use super::*;
use crate::wire::{Command, Header, Magic, Payload, Priority, Request};

pub(crate) const NOBODY: [ConnId; 0] = [];

/// An engine, its clock, and its settings as most tests want them.
pub(crate) struct Rig {
    pub(crate) engine: Engine,
    pub(crate) now: Now,
}

pub(crate) fn settings() -> Settings {
    Settings::default()
}

impl Rig {
    pub(crate) fn new(settings: Settings) -> Self {
        let now = Now { mono_ms: 5000, unix_ms: 1_700_000_000_000 };
        let mut engine = Engine::new(settings, now);
        (0..10).for_each(|conn| engine.connect(conn));
        Self { engine, now }
    }

    /// Submits `command` with the arguments and payload in `body`.
    pub(crate) fn try_submit(
        &mut self,
        conn: ConnId,
        command: Command,
        body: &str,
    ) -> Result<u64, SubmitError> {
        let body_bytes = u32::try_from(body.len()).unwrap();
        let header = Header { magic: Magic::Request, command, body_bytes };
        let request = Request::parse(header, Payload::borrowed(body.as_bytes()));
        let Ok(Request::Submit(submit)) = request else { panic!("{request:?}") };
        let run_at_s =
            submit.epoch.map_or(0, |text| std::str::from_utf8(text).unwrap().parse().unwrap());
        let accepted = self.engine.submit(conn, &submit, run_at_s, 1 << 20, self.now)?;
        Ok(accepted.number)
    }

    pub(crate) fn submit(&mut self, conn: ConnId, command: Command, body: &str) -> u64 {
        self.try_submit(conn, command, body).unwrap()
    }

    /// A background job without a unique.
    pub(crate) fn background(&mut self, function: &str) -> u64 {
        self.submit(0, Command::SubmitJobBg, &format!("{function}\0\0"))
    }

    pub(crate) fn can_do(&mut self, conn: ConnId, function: &str) {
        self.engine.can_do(conn, function.as_bytes(), 0);
    }

    pub(crate) fn grab(&mut self, conn: ConnId) -> Option<u64> {
        let id = self.engine.grab(conn, Priority::Low, self.now)?;
        Some(self.engine.jobs()[id as usize].number)
    }

    pub(crate) fn sleep(&mut self, conn: ConnId) {
        self.engine.pre_sleep(conn);
    }

    pub(crate) fn disconnect(&mut self, conn: ConnId) {
        self.engine.disconnect(conn, self.now);
        self.engine.connect(conn);
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
    pub(crate) fn woken(&mut self) -> Vec<ConnId> {
        let woken = |effect| match effect {
            Effect::Noop { conn } => conn,
            other => panic!("{other:?}"),
        };
        self.effects().into_iter().map(woken).collect()
    }
}

fn forwards(conns: &[ConnId]) -> Vec<Effect> {
    conns.iter().map(|&conn| Effect::Forward { conn }).collect()
}

#[test]
fn equal_uniques_of_one_function_are_one_job() {
    let mut rig = Rig::new(settings());
    let job = rig.submit(0, Command::SubmitJob, "resize\0key\0payload");
    assert_eq!(rig.submit(1, Command::SubmitJobHigh, "resize\0key\0other"), job);
    assert_ne!(rig.submit(1, Command::SubmitJob, "rotate\0key\0payload"), job);
    assert_ne!(rig.submit(1, Command::SubmitJob, "resize\0\0payload"), job);
    let without = rig.submit(1, Command::SubmitJob, "resize\0\0payload");
    assert_ne!(rig.submit(1, Command::SubmitJob, "resize\0\0payload"), without);
    assert_eq!(rig.engine.status(job).unwrap().clients, 2);
    assert_eq!(rig.engine.counters.coalesced, 1);
}

#[test]
fn a_dash_stands_for_the_payload_unless_there_is_none() {
    let mut rig = Rig::new(settings());
    let job = rig.submit(0, Command::SubmitJobBg, "resize\0-\0payload");
    assert_eq!(rig.submit(1, Command::SubmitJobBg, "resize\0-\0payload"), job);
    assert_ne!(rig.submit(1, Command::SubmitJobBg, "resize\0-\0other"), job);
    let empty = rig.submit(1, Command::SubmitJobBg, "resize\0-\0");
    assert_ne!(rig.submit(1, Command::SubmitJobBg, "resize\0-\0"), empty);
    // Asked for by its unique, none of them is found.
    assert_eq!(rig.engine.status_unique(b"-"), None);
}

#[test]
fn results_go_to_each_submission_the_latest_first() {
    let mut rig = Rig::new(settings());
    let job = rig.submit(0, Command::SubmitJob, "resize\0key\0");
    for conn in [1, 1] {
        rig.submit(conn, Command::SubmitJob, "resize\0key\0");
    }
    rig.submit(2, Command::SubmitJobBg, "resize\0key\0");
    rig.can_do(5, "resize");
    assert_eq!(rig.grab(5), Some(job));
    rig.submit(3, Command::SubmitJob, "resize\0key\0");
    rig.engine.work_data(5, job).unwrap();
    assert_eq!(rig.effects(), forwards(&[3, 1, 1, 0]));
    rig.engine.work_finished(5, job, Outcome::Complete).unwrap();
    assert_eq!(rig.effects(), forwards(&[3, 1, 1, 0]));
    assert_eq!(rig.engine.work_finished(5, job, Outcome::Complete), Err(NotRunning));
    assert_ne!(rig.submit(3, Command::SubmitJob, "resize\0key\0"), job, "it is done");
}

#[test]
fn background_interest_outlives_the_clients() {
    // gearmand drops accepted background work when the last foreground client that joined it
    // leaves.
    let mut rig = Rig::new(settings());
    let first = rig.submit(0, Command::SubmitJob, "resize\0first\0");
    assert_eq!(rig.submit(1, Command::SubmitJobBg, "resize\0first\0"), first);
    let second = rig.submit(1, Command::SubmitJobBg, "resize\0second\0");
    assert_eq!(rig.submit(0, Command::SubmitJob, "resize\0second\0"), second);
    let abandoned = rig.submit(0, Command::SubmitJob, "resize\0third\0");
    rig.disconnect(0);
    assert_eq!(rig.effects(), []);
    assert_eq!(rig.engine.status(abandoned), None, "gone at once, from every index");
    assert_ne!(rig.submit(2, Command::SubmitJob, "resize\0third\0"), abandoned);
    rig.can_do(5, "resize");
    assert_eq!((rig.grab(5), rig.grab(5)), (Some(first), Some(second)));
}

#[test]
fn a_running_job_whose_client_left_may_be_joined_and_else_is_not_run_again() {
    let mut rig = Rig::new(settings());
    let joined = rig.submit(0, Command::SubmitJob, "resize\0joined\0");
    let alone = rig.submit(0, Command::SubmitJob, "resize\0alone\0");
    rig.can_do(5, "resize");
    assert_eq!((rig.grab(5), rig.grab(5)), (Some(joined), Some(alone)));
    rig.disconnect(0);
    assert_eq!(rig.submit(1, Command::SubmitJob, "resize\0joined\0"), joined);
    rig.disconnect(5);
    rig.can_do(6, "resize");
    assert_eq!((rig.grab(6), rig.grab(6)), (Some(joined), None));
    assert_eq!(rig.engine.counters.abandoned, 1);
}

#[test]
fn cancelled_jobs_fail_for_their_clients_and_can_not_be_reached() {
    let mut rig = Rig::new(settings());
    let queued = rig.submit(0, Command::SubmitJob, "resize\0queued\0");
    let delayed = rig.submit(0, Command::SubmitJobEpoch, "resize\0delayed\x001700000100\0");
    assert!(rig.engine.cancel(queued) && rig.engine.cancel(delayed));
    assert_eq!(rig.effects(), [Effect::Fail { conn: 0, number: queued }]);
    assert!(!rig.engine.cancel(queued));
    assert_eq!(rig.engine.deadline_ms(), None, "its timer is gone, too");

    let running = rig.submit(0, Command::SubmitJob, "resize\0running\0");
    rig.can_do(5, "resize");
    assert_eq!(rig.grab(5), Some(running));
    assert!(rig.engine.cancel(running));
    assert_eq!(rig.effects(), [Effect::Fail { conn: 0, number: running }]);
    assert_ne!(rig.submit(1, Command::SubmitJob, "resize\0running\0"), running);
    assert_eq!(rig.engine.work_finished(5, running, Outcome::Complete), Ok(()));
    assert_eq!(rig.effects(), [], "its clients have had their answer");
}

#[test]
fn requeued_jobs_go_to_the_head_in_their_old_order() {
    let mut rig = Rig::new(settings());
    let jobs: Vec<u64> = (0..4).map(|_| rig.background("resize")).collect();
    rig.can_do(5, "resize");
    assert_eq!((rig.grab(5), rig.grab(5)), (Some(jobs[0]), Some(jobs[1])));
    rig.engine.work_status(5, jobs[0], 3, 4).unwrap();
    rig.disconnect(5);
    assert_eq!(rig.engine.status(jobs[0]), Some(Status::default()), "progress starts anew");
    rig.can_do(6, "resize");
    let grabbed: Vec<u64> = (0..4).filter_map(|_| rig.grab(6)).collect();
    assert_eq!(grabbed, jobs);
    assert_eq!(rig.engine.counters.requeued, 2);
}

#[test]
fn a_job_is_dropped_when_as_many_workers_have_lost_it_as_may() {
    for (attempts_max, losses) in [(Some(0), 1), (Some(1), 1), (Some(3), 3)] {
        let mut rig = Rig::new(Settings { attempts_max, ..settings() });
        let job = rig.submit(0, Command::SubmitJob, "resize\0\0");
        for loss in 1..=losses {
            assert_eq!(rig.effects(), [], "{attempts_max:?}");
            rig.can_do(5, "resize");
            assert_eq!(rig.grab(5), Some(job));
            if loss == 2 {
                rig.engine.cant_do(5, b"resize", rig.now);
            } else {
                rig.disconnect(5);
            }
        }
        assert_eq!(rig.effects(), [Effect::Fail { conn: 0, number: job }]);
        assert_eq!((rig.engine.status(job), rig.engine.counters.exhausted), (None, 1));
    }
}

#[test]
fn a_job_that_runs_out_of_time_goes_to_the_next_worker() {
    let mut rig = Rig::new(settings());
    let job = rig.background("resize");
    rig.engine.can_do(5, b"resize", 2000);
    assert_eq!(rig.grab(5), Some(job));
    rig.pass(1999);
    assert!(rig.engine.status(job).unwrap().running);
    rig.pass(1);
    assert!(!rig.engine.status(job).unwrap().running);
    rig.can_do(6, "resize");
    assert_eq!(rig.grab(6), Some(job));
    assert_eq!(rig.engine.work_finished(5, job, Outcome::Complete), Err(NotRunning));
    assert_eq!(rig.engine.counters.late, 1);
    rig.pass(100_000);
    assert_eq!(
        rig.engine.work_finished(6, job, Outcome::Complete),
        Ok(()),
        "this one has all the time it wants"
    );
    assert_eq!(rig.engine.deadline_ms(), None);
}

/// A job that outlasted its worker's CAN_DO_TIMEOUT went back to its queue, the worker's result was
/// refused and the job grabbed again: its only worker ran it for ever, and the client waited.
#[test]
fn the_result_of_an_attempt_that_timed_out_is_taken_until_the_next_attempt() {
    let mut rig = Rig::new(settings());
    rig.can_do(6, "resize");
    let time_out = |rig: &mut Rig| {
        let job = rig.submit(1, Command::SubmitJob, "resize\0\0");
        rig.engine.can_do(5, b"resize", 2000);
        assert_eq!(rig.grab(5), Some(job));
        rig.pass(2000);
        rig.effects();
        assert!(!rig.engine.status(job).unwrap().running);
        job
    };
    let job = time_out(&mut rig);
    assert_eq!(rig.engine.work_finished(6, job, Outcome::Complete), Err(NotRunning), "another's");
    assert_eq!(rig.engine.work_status(5, job, 1, 2), Ok(()));
    assert_eq!(rig.effects(), [Effect::Forward { conn: 1 }]);
    assert_eq!(rig.engine.status(job).unwrap().numerator, 0, "it doesn't run");
    assert_eq!(rig.engine.work_finished(5, job, Outcome::Complete), Ok(()));
    assert_eq!(rig.effects(), [Effect::Forward { conn: 1 }]);
    assert_eq!((rig.engine.status(job), rig.grab(6)), (None, None));
    // Once it has given the function up, or is gone, nothing of it is welcome.
    let job = time_out(&mut rig);
    rig.engine.cant_do(5, b"resize", rig.now);
    rig.engine.can_do(5, b"resize", 2000);
    assert_eq!(
        rig.engine.work_finished(5, job, Outcome::Complete),
        Err(NotRunning),
        "it registered anew"
    );
    assert_eq!(rig.grab(5), Some(job));
    rig.engine.work_finished(5, job, Outcome::Complete).unwrap();
    let job = time_out(&mut rig);
    rig.disconnect(5);
    rig.engine.can_do(5, b"resize", 2000);
    assert_eq!(
        rig.engine.work_finished(5, job, Outcome::Complete),
        Err(NotRunning),
        "another one of its number"
    );
    rig.engine.check_invariants();
}

#[test]
fn delayed_jobs_wait_outside_the_queue_for_their_second() {
    let mut rig = Rig::new(settings());
    let late = rig.submit(0, Command::SubmitJobEpoch, "resize\0\x001700000060\0");
    let past = rig.submit(0, Command::SubmitJobEpoch, "resize\0\x001600000000\0");
    rig.can_do(5, "resize");
    assert_eq!((rig.grab(5), rig.grab(5)), (Some(past), None));
    rig.sleep(5);
    rig.pass(59_999);
    assert_eq!(rig.woken(), NOBODY);
    rig.pass(1);
    assert_eq!(rig.woken(), [5]);
    assert_eq!(rig.grab(5), Some(late));
}

#[test]
fn a_delayed_job_follows_the_wall_clock_when_that_is_set() {
    // A delayed job looked at the wall clock every 15 minutes: set forward, or after the host was
    // suspended, it started that late.
    let mut rig = Rig::new(settings());
    let job = rig.submit(0, Command::SubmitJobEpoch, "resize\0\x001700086400\0");
    rig.can_do(5, "resize");
    rig.now.unix_ms += 2 * 86_400_000;
    rig.pass(0);
    assert_eq!(rig.grab(5), None, "the clock is looked at each second");
    rig.pass(CLOCK_MS);
    assert_eq!(rig.grab(5), Some(job));
    rig.engine.check_invariants();
    assert_eq!(rig.engine.deadline_ms(), None, "without delayed jobs it isn't looked at");
}

#[test]
fn many_delayed_jobs_follow_the_wall_clock_in_portions_and_cost_nothing_until_then() {
    let mut rig = Rig::new(settings());
    let count = 4 * CLOCK_JOBS;
    for _ in 0..count {
        rig.submit(0, Command::SubmitJobEpoch, "resize\0\x001700086400\0");
    }
    rig.can_do(5, "resize");
    for _ in 0..10 {
        rig.now = Now { mono_ms: rig.now.mono_ms + 1000, unix_ms: rig.now.unix_ms + 1000 };
        // The timer counts again each time that it goes down a level.
        rig.engine.tick(rig.now, 8);
        assert!(rig.engine.deadline_ms() > Some(rig.now.mono_ms), "one timer fires a second");
    }
    rig.now.mono_ms += 1000;
    rig.now.unix_ms += 2 * 86_400_000;
    let mut ticks = 0;
    while rig.engine.deadline_ms().is_some_and(|at_ms| at_ms <= rig.now.mono_ms) {
        rig.engine.tick(rig.now, CLOCK_JOBS);
        rig.engine.check_invariants();
        ticks += 1;
    }
    assert!((8..=12).contains(&ticks), "{ticks} calls of a bounded size");
    assert_eq!(std::iter::from_fn(|| rig.grab(5)).count(), count);
}

#[test]
fn a_full_queue_refuses_new_jobs_and_takes_joining_ones() {
    let mut rig = Rig::new(settings());
    rig.engine.set_queue_max(b"resize", [1; 3]);
    let job = rig.submit(0, Command::SubmitJob, "resize\0key\0");
    rig.engine.set_queue_max(b"resize", [0, 2, 1]);
    rig.background("resize");
    let full = Err(SubmitError::QueueFull);
    assert_eq!(rig.try_submit(0, Command::SubmitJob, "resize\0\0"), full);
    assert_eq!(rig.try_submit(0, Command::SubmitJobLow, "resize\0\0"), full);
    assert_eq!(rig.try_submit(0, Command::SubmitJob, "resize\0key\0"), Ok(job));
    assert!(rig.try_submit(0, Command::SubmitJobHigh, "resize\0\0").is_ok(), "without a limit");
}

#[test]
fn a_function_is_dropped_with_what_waits_for_it_and_not_beside_workers() {
    let mut rig = Rig::new(settings());
    let job = rig.submit(0, Command::SubmitJob, "resize\0key\0");
    let id = rig.engine.functions().find(b"resize").unwrap();
    rig.can_do(5, "resize");
    assert_eq!(rig.engine.drop_function(id), Err(FunctionBusy));
    assert_eq!(rig.grab(5), Some(job));
    rig.engine.work_finished(5, job, Outcome::Complete).unwrap();
    rig.engine.cant_do(5, b"resize", rig.now);
    rig.effects();
    let waits = rig.submit(0, Command::SubmitJob, "resize\0key\0");
    rig.submit(0, Command::SubmitJobEpoch, "resize\0\x001700000060\0");
    assert_eq!(rig.engine.drop_function(id), Ok(()));
    assert_eq!(rig.effects(), [Effect::Fail { conn: 0, number: waits }]);
    assert!(rig.engine.jobs().is_empty() && rig.engine.deadline_ms().is_none());
    assert_eq!(rig.engine.functions().find(b"resize"), None);
}

#[test]
fn memory_is_counted_and_bounds_submissions() {
    let mut rig = Rig::new(settings());
    let header = Header { magic: Magic::Request, command: Command::SubmitJob, body_bytes: 12 };
    let request = Request::parse(header, Payload::borrowed(b"resize\0\0data"));
    let Ok(Request::Submit(submit)) = request else { panic!() };
    let bytes = size_of::<Job>() + 5;
    let now = rig.now;
    let refused = rig.engine.submit(0, &submit, 0, bytes, now);
    assert_eq!((refused, rig.engine.functions().len()), (Err(SubmitError::OutOfMemory), 0));
    assert!(rig.engine.create_function(b"resize", 1 << 20), "its memory is counted, too");
    let refused = rig.engine.submit(0, &submit, 0, bytes - 1, now);
    assert_eq!(refused, Err(SubmitError::OutOfMemory));
    let job = rig.engine.submit(0, &submit, 0, bytes, now).unwrap();
    assert_eq!(rig.engine.job_bytes(), bytes);
    rig.engine.cancel(job.number);
    assert_eq!(rig.engine.job_bytes(), 0);
}

#[test]
fn numbers_go_on_from_the_first_and_status_finds_the_latest_unique() {
    let mut rig = Rig::new(Settings { first_sequence: 77, ..settings() });
    let number = |sequence, name: &[u8]| handle::job_number(sequence, handle::slot(name));
    let [first, second] = [number(77, b"a"), number(78, b"b")];
    assert_eq!(rig.submit(0, Command::SubmitJobBg, "a\0key\0"), first);
    assert_eq!(rig.submit(0, Command::SubmitJob, "b\0key\0"), second);
    assert_eq!(rig.engine.status_unique(b"key").unwrap().1.clients, 1, "the one of `b`");
    assert_eq!(rig.engine.jobs()[1].priority, Priority::Normal);
    rig.engine.cancel(second);
    assert_eq!(rig.engine.status_unique(b"key").unwrap().1.clients, 0);
}

/// A rig whose background jobs go to the store.
fn durable(default: Durability) -> Rig {
    let durabilities = Durabilities { default, ..Durabilities::default() };
    Rig::new(Settings { durabilities, ..settings() })
}

impl Rig {
    /// Submits in the background and waits for the store, as `ticket`, if need be.
    fn submit_durably(&mut self, conn: ConnId, body: &str, ticket: Ticket) -> Accepted {
        let body_bytes = u32::try_from(body.len()).unwrap();
        let command = Command::SubmitJobBg;
        let header = Header { magic: Magic::Request, command, body_bytes };
        let request = Request::parse(header, Payload::borrowed(body.as_bytes()));
        let Ok(Request::Submit(submit)) = request else { panic!("{request:?}") };
        let accepted = self.engine.submit(conn, &submit, 0, 1 << 20, self.now).unwrap();
        if accepted.waits {
            self.engine.await_store(conn, accepted.job, ticket);
        }
        accepted
    }

    fn row(&self, number: u64) -> Row {
        let (_, job) =
            self.engine.jobs().iter_from(0).find(|(_, job)| job.number == number).unwrap();
        job.row(&self.engine.function_of(job).name)
    }
}

#[test]
fn a_durable_job_is_neither_run_nor_answered_before_it_is_on_disk() {
    let mut rig = durable(Durability::Fsync);
    rig.can_do(1, "mail");
    rig.sleep(1);
    let Accepted { number, job, waits } = rig.submit_durably(0, "mail\0key\0payload", 7);
    assert!(waits);
    assert_eq!(rig.effects(), [Effect::Insert { job, answered: false }]);
    assert_eq!(rig.grab(1), None);
    rig.sleep(1);
    // An equal submission waits for the same commit; one in the foreground needn't.
    assert_eq!(rig.submit_durably(2, "mail\0key\0", 8).number, number);
    assert_eq!(rig.submit(3, Command::SubmitJob, "mail\0key\0"), number);
    assert_eq!(rig.effects(), [], "one row for all of them");
    rig.engine.stored(number, rig.now);
    let accepted = |conn, ticket| Effect::Accepted { conn, ticket, number };
    assert_eq!(rig.effects(), [accepted(2, 8), accepted(0, 7), Effect::Noop { conn: 1 }]);
    assert_eq!(rig.grab(1), Some(number));
    assert!(!rig.submit_durably(2, "mail\0key\0", 9).waits, "it is on disk by now");
    rig.engine.work_finished(1, number, Outcome::Complete).unwrap();
    assert_eq!(rig.effects(), [Effect::Forward { conn: 3 }, Effect::Remove { number }]);
}

#[test]
fn a_job_that_is_not_kept_is_refused_and_gone() {
    let mut rig = durable(Durability::Fsync);
    let lost = rig.submit_durably(0, "mail\0\0", 1);
    let wanted = rig.submit_durably(0, "mail\0key\0", 2);
    rig.submit(3, Command::SubmitJob, "mail\0key\0");
    rig.effects();
    rig.engine.not_stored(lost.number, rig.now);
    rig.engine.not_stored(wanted.number, rig.now);
    let refused = |ticket| Effect::Refused { conn: 0, ticket };
    assert_eq!(rig.effects(), [refused(1), refused(2)], "and no removal: the store knows");
    rig.can_do(1, "mail");
    assert_eq!(rig.grab(1), Some(wanted.number), "a foreground client wants it all the same");
    rig.engine.work_finished(1, wanted.number, Outcome::Complete).unwrap();
    assert_eq!(rig.effects(), [Effect::Forward { conn: 3 }]);
    assert!(rig.engine.jobs().is_empty());
}

#[test]
fn what_the_store_has_lost_is_kept_again_while_it_is_there() {
    let mut rig = durable(Durability::Fsync);
    rig.can_do(1, "mail");
    let done = rig.submit_durably(0, "mail\0\0", 1).number;
    let running = rig.submit_durably(0, "mail\0\0", 2);
    let queued = rig.submit_durably(0, "mail\0\0", 3);
    let on_its_way = rig.submit_durably(0, "mail\0\0", 4).number;
    for number in [done, running.number, queued.number] {
        rig.engine.stored(number, rig.now);
    }
    let foreground = rig.submit(3, Command::SubmitJob, "mail\0key\0");
    assert_eq!(rig.grab(1), Some(done));
    rig.engine.work_finished(1, done, Outcome::Complete).unwrap();
    assert_eq!(rig.grab(1), Some(running.number));
    rig.effects();
    for number in [done, running.number, queued.number, on_its_way, foreground, 1 << 40] {
        rig.engine.keep_again(number);
    }
    let again = |job| Effect::Insert { job, answered: true };
    assert_eq!(rig.effects(), [again(running.job), again(queued.job)]);
}

#[test]
fn a_client_that_leaves_does_not_take_its_durable_job_along() {
    let mut rig = durable(Durability::Fsync);
    let Accepted { number, .. } = rig.submit_durably(0, "mail\0\0", 1);
    rig.disconnect(0);
    rig.effects();
    rig.engine.stored(number, rig.now);
    assert_eq!(rig.effects(), [], "nobody is left to be answered");
    rig.can_do(1, "mail");
    assert_eq!(rig.grab(1), Some(number));
}

#[test]
fn a_job_that_is_cancelled_as_it_runs_does_not_come_back_after_a_restart() {
    let mut rig = durable(Durability::Fsync);
    rig.can_do(1, "mail");
    let number = rig.submit_durably(0, "mail\0key\0", 1).number;
    rig.engine.stored(number, rig.now);
    assert_eq!(rig.grab(1), Some(number));
    rig.effects();
    assert!(rig.engine.cancel(number));
    assert_eq!(rig.effects(), [Effect::Remove { number }], "at once, not when its worker is done");
    rig.engine.work_finished(1, number, Outcome::Complete).unwrap();
    assert_eq!(rig.effects(), [], "and once");
}

#[test]
fn joining_in_the_background_makes_a_foreground_job_durable() {
    let mut rig = durable(Durability::Fsync);
    rig.can_do(1, "mail");
    let number = rig.submit(0, Command::SubmitJob, "mail\0key\0");
    assert_eq!(rig.effects(), [], "foreground jobs stay in memory");
    assert_eq!(rig.grab(1), Some(number));
    let joined = rig.submit_durably(2, "mail\0key\0", 5);
    assert!(joined.waits);
    assert_eq!(rig.effects(), [Effect::Insert { job: joined.job, answered: false }]);
    // Done before it was on disk: the one that waited is answered, and the row goes.
    rig.engine.work_finished(1, number, Outcome::Complete).unwrap();
    let accepted = Effect::Accepted { conn: 2, ticket: 5, number };
    assert_eq!(rig.effects(), [Effect::Forward { conn: 0 }, accepted, Effect::Remove { number }]);
    rig.engine.stored(number, rig.now);
    assert_eq!(rig.effects(), []);
}

#[test]
fn async_jobs_run_at_once_unless_the_store_lags() {
    let mut rig = durable(Durability::Async);
    let first = rig.submit_durably(0, "mail\0\0", 1);
    assert!(!first.waits);
    assert_eq!(rig.effects(), [Effect::Insert { job: first.job, answered: true }]);
    rig.can_do(1, "mail");
    assert_eq!(rig.grab(1), Some(first.number));
    rig.engine.allow_async(false);
    assert!(rig.submit_durably(0, "mail\0\0", 2).waits);
}

#[test]
fn jobs_come_back_with_handle_unique_attempts_time_and_order() {
    let mut rig = durable(Durability::Fsync);
    rig.can_do(1, "mail");
    let numbers = ["a", "b", "c"].map(|unique| {
        let job = rig.submit_durably(0, &format!("mail\0{unique}\0payload {unique}"), 1);
        rig.engine.stored(job.number, rig.now);
        job.number
    });
    assert_eq!(rig.grab(1), Some(numbers[0]));
    rig.effects();
    rig.engine.cant_do(1, b"mail", rig.now);
    let lost = Effect::SetAttempts { number: numbers[0], attempts: 1 };
    assert_eq!(rig.effects(), [lost], "a worker lost it");
    let mut rows: Vec<Row> = numbers.iter().map(|&number| rig.row(number)).collect();
    rows[1].run_at_s = rig.now.unix_ms / 1000 + 60;

    let mut rig = durable(Durability::Fsync);
    for row in &rows {
        assert!(rig.engine.restore(row, rig.now));
        assert!(!rig.engine.restore(row, rig.now), "a handle is given to one job");
    }
    assert_eq!(rig.effects(), [], "the store has them already");
    assert!(rows.iter().all(|row| rig.row(row.number) == *row));
    assert_eq!(rows[0].attempts, 1);
    let joined = rig.submit_durably(0, "mail\0b\0", 1);
    assert_eq!((joined.number, joined.waits), (numbers[1], false), "equal work joins it");
    let new = rig.submit_durably(0, "mail\0\0", 1).number;
    assert!(new > numbers[2], "numbers go on");
    rig.engine.stored(new, rig.now);
    rig.can_do(1, "mail");
    let order: Vec<u64> = std::iter::from_fn(|| rig.grab(1)).collect();
    assert_eq!(order, [numbers[0], numbers[2], new]);
    rig.pass(60_001);
    assert_eq!(rig.grab(1), Some(numbers[1]), "its time has come");
}

/// With a store, a server that was to end waited for workers of queued jobs that the next one
/// would have had anyway.
#[test]
fn a_draining_engine_leaves_stored_jobs_to_the_next_and_works_off_the_others() {
    let mut rig = durable(Durability::Fsync);
    rig.can_do(1, "f");
    let stored: Vec<u64> = (0..1000).map(|_| rig.background("f")).collect();
    stored.iter().for_each(|&number| rig.engine.stored(number, rig.now));
    let delayed = rig.submit(0, Command::SubmitJobEpoch, "f\0\x001700000100\0");
    let unsure = rig.background("f");
    rig.engine.stored(delayed, rig.now);
    let running = rig.grab(1).unwrap();
    let foreground = rig.submit(2, Command::SubmitJob, "f\0\0");
    rig.engine.drain(rig.now);
    assert!(rig.engine.is_draining());
    rig.engine.tick(rig.now, 100);
    assert!(rig.engine.kept() < 1000, "some at a time");
    for _ in 0..10 {
        rig.engine.tick(rig.now, 4096);
    }
    rig.engine.check_invariants();
    assert_eq!(rig.engine.deadline_ms(), None, "it has looked at all");
    assert_eq!(rig.engine.kept(), 1000, "all but the running one, and the delayed one");
    rig.engine.stored(unsure, rig.now);
    assert_eq!(rig.engine.kept(), 1001, "and the one that wasn't sure");
    assert_eq!(rig.grab(1), Some(foreground), "only memory has it");
    assert_eq!(rig.grab(1), None);
    // A stored job that is lost goes to the next server with its attempt.
    rig.engine.disconnect(1, rig.now);
    rig.engine.check_invariants();
    assert_eq!((rig.engine.kept(), rig.engine.running()), (1002, 0));
    rig.engine.connect(1);
    rig.can_do(1, "f");
    assert_eq!(rig.grab(1), Some(foreground));
    rig.engine.work_finished(1, foreground, Outcome::Complete).unwrap();
    assert_eq!(rig.engine.jobs().len(), rig.engine.kept());
    let removed = |rig: &mut Rig| {
        let effects = rig.effects();
        effects.iter().filter(|effect| matches!(effect, Effect::Remove { .. })).count()
    };
    assert_eq!(removed(&mut rig), 0, "the store keeps them");
    assert!(rig.engine.cancel(running), "and an operator may still cancel one");
    assert_eq!((removed(&mut rig), rig.engine.kept()), (1, 1001));
    rig.engine.check_invariants();
}

/// A client waited for a job that another client had submitted in the background. The server
/// drained before the store answered, the store refused, and the job stayed set aside for a next
/// server that would never hear of it.
#[test]
fn a_job_set_aside_is_worked_off_if_the_store_refuses_it_after_all() {
    let mut rig = durable(Durability::Fsync);
    let number = rig.submit(0, Command::SubmitJob, "f\0key\0");
    assert!(rig.submit_durably(2, "f\0key\0", 7).waits);
    rig.engine.drain(rig.now);
    rig.engine.tick(rig.now, 100);
    assert_eq!(rig.engine.kept(), 1);
    rig.engine.not_stored(number, rig.now);
    rig.engine.check_invariants();
    assert_eq!(rig.engine.kept(), 0);
    rig.can_do(1, "f");
    assert_eq!(rig.grab(1), Some(number));
}
