//! PostgreSQL fails over to its standby while this server runs: with all commits, or without some.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::standby::{Standby, hosts};
use super::{
    Assigned, complete, created, drain_texts, grab, is_error, start, status, submit_bg, worker,
};
use crate::conn::{Conn, Item};
use crate::harness::{Contender, Server, wait_until};
use crate::postgresql;

/// Jobs that are submitted at once.
const BURST: usize = 8;
/// How long a client waits after a refusal.
const PAUSE: Duration = Duration::from_millis(10);

/// What became of a job.
#[derive(Debug, Default)]
struct Course {
    is_accepted: bool,
    runs: usize,
}

/// A client and a worker that submit durable jobs and run them, until they are told to end.
struct Load {
    accepted: Arc<AtomicUsize>,
    ends: Arc<AtomicBool>,
    thread: JoinHandle<HashMap<String, Course>>,
}

impl Load {
    fn start(server: &Server) -> Self {
        let (accepted, ends) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, is_over, address) = (accepted.clone(), ends.clone(), server.address());
        let thread = thread::spawn(move || run(address, &counter, &is_over));
        Self { accepted, ends, thread }
    }

    /// Waits until many more jobs were accepted.
    fn wait_for_more(&self) {
        let before = self.accepted.load(Ordering::Relaxed);
        let more = || self.accepted.load(Ordering::Relaxed) > before + 20 * BURST;
        wait_until("more jobs", || more().then_some(()));
    }

    /// What became of every job, by its payload.
    fn end(self) -> HashMap<String, Course> {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic")
    }
}

fn run(
    address: SocketAddr,
    accepted: &AtomicUsize,
    is_over: &AtomicBool,
) -> HashMap<String, Course> {
    let (mut client, mut its_worker) = (Conn::open(address), Conn::open(address));
    its_worker.packet("CAN_DO", &[b"load"]);
    let mut jobs: HashMap<String, Course> = HashMap::new();
    while !is_over.load(Ordering::Relaxed) {
        let payloads: Vec<String> = (0..BURST).map(|at| format!("{}", jobs.len() + at)).collect();
        for payload in &payloads {
            client.packet("SUBMIT_JOB_BG", &[b"load", b"", payload.as_bytes()]);
        }
        let mut is_refused = false;
        for payload in payloads {
            let item = client.next().expect("an answer");
            let is_accepted = matches!(item, Item::Packet(8, _));
            assert!(is_accepted || is_error(&item, "QUEUE_ERROR"), "{item:?}");
            is_refused |= !is_accepted;
            accepted.fetch_add(usize::from(is_accepted), Ordering::Relaxed);
            jobs.insert(payload, Course { is_accepted, runs: 0 });
        }
        work_off(&mut its_worker, &mut jobs);
        if is_refused {
            client.next_within(PAUSE).expect_err("nothing else was asked");
        }
    }
    // A server that was suspended, as where a standby takes long to be promoted, hands stored jobs
    // out from its next beat on.
    wait_until("a run of each accepted job", || {
        work_off(&mut its_worker, &mut jobs);
        jobs.values().all(|course| course.runs > 0 || !course.is_accepted).then_some(())
    });
    its_worker.sync().expect("it lives");
    jobs
}

/// Runs the jobs that there are for a worker now.
fn work_off(worker: &mut Conn, jobs: &mut HashMap<String, Course>) {
    while let Some(job) = grab(worker) {
        let payload = String::from_utf8(job.payload.clone()).expect("text");
        jobs.get_mut(&payload).expect("a job of this client").runs += 1;
        complete(worker, &job);
    }
}

/// The primary is killed under load and its synchronous standby promoted. The server that waits for
/// the jobs used to take the lock, and the healthy one ended with its foreground jobs; a fifth of
/// the durable jobs ran twice. With `is_late` the active server finds the database after the
/// standby.
fn survive_a_failover(contender: Contender, is_late: bool) {
    let Some(mut primary) = postgresql::Server::start() else { return };
    let copy = primary.start_standby();
    primary.wait_for_standbys(1);
    let store = hosts(&[&primary, &copy]);
    let active = start(contender, &["--store", &store]);
    let mut standby = Standby::start(contender, &store);
    let load = Load::start(&active);
    let mut client = Conn::open(active.address());
    let mut other_worker = worker(&active, &["front", "held"]);
    client.packet("SUBMIT_JOB", &[b"front", b"", b"runs"]);
    let front = created(&mut client);
    let front_job = grab(&mut other_worker).expect("the foreground job");
    assert_eq!(front_job.handle, front);
    let queued = {
        client.packet("SUBMIT_JOB", &[b"front, queued", b"", b"waits"]);
        created(&mut client)
    };
    let held: Vec<String> = (0..3).map(|_| submit_bg(&mut client, "held", "in flight")).collect();
    let held_jobs: Vec<Assigned> =
        (0..3).map(|_| grab(&mut other_worker).expect("a job")).collect();
    load.wait_for_more();

    if is_late {
        active.signal("STOP");
    }
    primary.kill();
    copy.promote();
    standby.server.wait_for_log("still standing by", |_| Some(()));
    if is_late {
        // It has looked for the lock more than once.
        let looks = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = \
                     'ringgeard' AND query_start > backend_start + interval '0.5s')";
        postgresql::wait_for(&mut copy.admin("jobs"), looks);
        active.signal("CONT");
    }
    active.wait_for_log("connected to ", |rest| rest.contains(" again").then_some(()));
    load.wait_for_more();
    standby.assert_refuses();

    // Foreground jobs live, the one that ran and the one that waited.
    assert_eq!(status(&mut client, &queued), (true, false));
    complete(&mut other_worker, &front_job);
    let result = |handle: &str| Item::Packet(13, [handle.as_bytes(), b"\0done"].concat());
    assert_eq!(client.next().ok(), Some(result(&front)));
    assert_eq!(drain_texts(&active, &["front, queued"]), ["waits"]);
    assert_eq!(client.next().ok(), Some(result(&queued)));
    // Those that were in flight are still their worker's.
    for (job, handle) in held_jobs.iter().zip(&held) {
        assert_eq!(status(&mut client, handle), (true, true));
        complete(&mut other_worker, job);
    }
    other_worker.sync().expect("it lives");

    let jobs = load.end();
    for (payload, course) in &jobs {
        assert_eq!(course.runs, usize::from(course.is_accepted), "{payload} {course:?}");
    }
    // What is left is what wasn't done, and the standby finds it.
    for payload in ["1", "2", "3"] {
        submit_bg(&mut client, "left", payload);
    }
    let is_left = "SELECT count(*) = 3 FROM ringgear_job";
    postgresql::wait_for(&mut copy.admin("jobs"), is_left);
    assert!(!active.log().contains("has lost jobs"), "{}", active.log());
    active.kill();
    standby.server.wait_until_it_listens();
    assert_eq!(drain_texts(&standby.server, &["load", "held", "left"]), ["1", "2", "3"]);
    standby.server.stop();
}

#[test]
fn a_failover_of_the_database_is_survived() {
    if Contender::RinggearUring3.is_here() {
        survive_a_failover(Contender::RinggearUring3, false);
    }
}

#[test]
fn a_failover_that_the_standby_notices_first_is_survived() {
    survive_a_failover(Contender::RinggearEpoll, true);
}

/// The standby had not got the last commits when it became the primary. The server held jobs that
/// the table had lost, and said nothing; and jobs that were done would have run again.
#[test]
fn what_an_asynchronous_failover_takes_is_written_again() {
    let Some(mut primary) = postgresql::Server::start() else { return };
    let mut copy = primary.start_standby();
    let store = hosts(&[&primary, &copy]);
    let server = start(Contender::RinggearEpoll2, &["--store", &store]);
    server.wait_for_log("synchronous_standby_names is empty", |_| Some(()));
    let mut client = Conn::open(server.address());
    submit_bg(&mut client, "f", "done");
    submit_bg(&mut client, "f", "kept");
    let is_count = |count: u32| format!("SELECT count(*) = {count} FROM ringgear_job");
    let copied = "SELECT EXISTS (SELECT FROM pg_stat_replication \
                  WHERE replay_lsn >= pg_current_wal_lsn())";
    postgresql::wait_for(&mut primary.admin("jobs"), copied);
    copy.stop();
    let mut its_worker = worker(&server, &["f"]);
    let done = grab(&mut its_worker).expect("a job");
    assert_eq!(done.payload, b"done");
    complete(&mut its_worker, &done);
    for payload in ["lost", "lost, too"] {
        submit_bg(&mut client, "g", payload);
    }
    let mut other_worker = worker(&server, &["h"]);
    let handle = submit_bg(&mut client, "h", "running");
    let running = grab(&mut other_worker).expect("the job");
    assert_eq!(running.handle, handle);
    postgresql::wait_for(&mut primary.admin("jobs"), &is_count(4));

    primary.kill();
    copy.run();
    copy.promote();
    server.wait_for_log("has lost jobs that were committed", |rest| {
        rest.contains("jobs=3").then_some(())
    });
    server
        .wait_for_log("has jobs again that are done", |rest| rest.contains("jobs=1").then_some(()));
    postgresql::wait_for(&mut copy.admin("jobs"), &is_count(4));
    assert_eq!(server.log().matches("are written again").count(), 1, "{}", server.log());
    server.kill();
    let server = start(Contender::RinggearEpoll2, &["--store", &store]);
    assert_eq!(drain_texts(&server, &["f"]), ["kept"]);
    assert_eq!(drain_texts(&server, &["g"]), ["lost", "lost, too"]);
    assert_eq!(drain_texts(&server, &["h"]), ["running"]);
    server.stop();
}
