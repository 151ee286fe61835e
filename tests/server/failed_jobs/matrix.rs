//! Each way in which a run can end, made by packets, for each policy and each kind of client.

use std::thread;
use std::time::{Duration, Instant};

use super::{
    By, Clients, Column, FIRST_MS, Functions, Job, Reason, Rig, WAYS, Way, expected, open, retries,
};
use crate::conn::{Conn, Item};
use crate::harness::{Contender, Server, each_ringgear, wait_until};

each_ringgear!(
    a_run_has_the_outcome_of_the_table,
    a_job_that_waits_for_its_next_run_is_shown_and_can_be_run_at_once,
    only_the_first_loss_is_made_up_for_at_once,
    a_result_behind_a_time_out_is_taken_while_the_job_waits_for_its_next_run,
);

/// The shortest time-out that a worker can have.
const TIMEOUT_MS: u64 = 1000;
/// Clocks with milliseconds at both ends.
const SLACK: Duration = Duration::from_millis(2);

/// A worker made of packets.
struct Worker {
    conn: Conn,
    function: String,
    handle: Vec<u8>,
    /// When it asked for the job that it got.
    asked: Instant,
}

impl Worker {
    /// Waits for a job as workers do: asleep.
    fn wait_for_job(server: &Server, function: &str, way: &str, id: &str) -> Self {
        let mut conn = open(server);
        conn.packet("SET_CLIENT_ID", &[id.as_bytes()]);
        if way == "time-out" {
            let timeout_ms = TIMEOUT_MS.to_string();
            conn.packet("CAN_DO_TIMEOUT", &[function.as_bytes(), timeout_ms.as_bytes()]);
        } else {
            conn.packet("CAN_DO", &[function.as_bytes()]);
        }
        loop {
            let asked = Instant::now();
            conn.packet("GRAB_JOB", &[]);
            match conn.next() {
                Ok(Item::Packet(11, body)) => {
                    let handle = body.split(|&byte| byte == 0).next().expect("a handle").to_vec();
                    return Self { conn, function: function.to_owned(), handle, asked };
                }
                Ok(Item::Packet(10, _)) => {
                    conn.packet("PRE_SLEEP", &[]);
                    let woken = conn.next();
                    assert!(matches!(woken, Ok(Item::Packet(6, _))), "{function}: {woken:?}");
                }
                other => panic!("{function}: {other:?}"),
            }
        }
    }

    /// Ends the run in this way. The worker that is left, and from when on a delay counts.
    fn end_run(mut self, way: &str) -> (Option<Conn>, Instant) {
        let mut from = Instant::now();
        let handle = &self.handle[..];
        match way {
            "fail" => self.conn.packet("WORK_FAIL", &[handle]),
            "exception" => self.conn.packet("WORK_EXCEPTION", &[handle, b"boom"]),
            "exception-and-fail" => {
                self.conn.packet("WORK_EXCEPTION", &[handle, b"boom"]);
                self.conn.packet("WORK_FAIL", &[handle]);
            }
            "complete" => self.conn.packet("WORK_COMPLETE", &[handle, b""]),
            "disconnect" => return (None, from),
            "cant-do" => self.conn.packet("CANT_DO", &[self.function.as_bytes()]),
            "reset-abilities" => self.conn.packet("RESET_ABILITIES", &[]),
            "time-out" => from = self.asked + Duration::from_millis(TIMEOUT_MS),
            other => panic!("{other} is no way to end a run"),
        }
        (Some(self.conn), from)
    }
}

fn a_run_has_the_outcome_of_the_table(contender: Contender) {
    let rig = Rig::start(contender);
    thread::scope(|scope| {
        let rig = &rig;
        for way in WAYS.iter().filter(|way| way.by == By::Packets) {
            for column in Column::ALL {
                for clients in Clients::ALL {
                    scope.spawn(move || check(rig, way, column, clients));
                }
            }
        }
    });
    let status = rig.server.admin("status");
    for line in status.lines().filter(|&line| line != ".") {
        assert!(line.contains("\t0\t0\t"), "{line} has a job left");
    }
}

fn check(rig: &Rig, way: &Way, column: Column, clients: Clients) {
    let server = &rig.server;
    let expected = expected(way.reason, column, clients);
    let mut job = Job::submit(server, column, way, clients);
    let mut workers = Vec::new();
    let mut ended = None;
    for run in 1..=expected.runs {
        let id = format!("worker-{run}");
        let worker = Worker::wait_for_job(server, &job.function, way.name, &id);
        let started = Instant::now();
        assert_eq!(worker.handle, job.handle.as_bytes(), "{}", job.function);
        if let Some(ended) = ended {
            let index = usize::try_from(run).expect("few") - 2;
            let least = Duration::from_millis(expected.delays_ms[index]);
            let waited = started.saturating_duration_since(ended) + SLACK;
            assert!(waited >= least, "{}: run {run} after {waited:?}", job.function);
        }
        job.check_silence();
        let (left, from) = worker.end_run(way.name);
        workers.extend(left);
        ended = Some(from);
    }
    job.check_end(rig, way, &expected, &format!("worker-{}", expected.runs));
    for mut worker in workers {
        worker.sync().expect("it lives");
        // The error that ends Perl's workers.
        assert_eq!(worker.unexpected(), None, "{}", job.function);
    }
}

/// What is left of a list's row behind the handle and the function.
fn rest_of_row(list: &str, job: &Job) -> Option<String> {
    let before = format!("{}\t{}\t", job.handle, job.function);
    list.lines().find_map(|line| Some(line.strip_prefix(&before)?.to_owned()))
}

fn a_job_that_waits_for_its_next_run_is_shown_and_can_be_run_at_once(contender: Contender) {
    let hour = retries(false).replace(&format!("{FIRST_MS}ms"), "1h");
    let functions = Functions::new(&format!("[[function]]\nmatch = \"*\"\n{hour}"));
    let server = functions.serve(contender, &[]);
    for way in WAYS.iter().filter(|way| way.by == By::Packets && way.reason.is_some()) {
        let mut job = Job::submit(&server, Column::Covering, way, Clients::Both);
        let reason = way.reason.expect("filtered").name();
        // The first loss doesn't wait.
        let immediate = if way.reason == Some(Reason::Lost) { 1 } else { 0 };
        let mut workers = Vec::new();
        for _ in 0..=immediate {
            let worker = Worker::wait_for_job(&server, &job.function, way.name, "x");
            workers.extend(worker.end_run(way.name).0);
        }
        let list = format!("show retrying {}", job.function);
        let row = wait_until("the row", || rest_of_row(&server.admin(&list), &job));
        let columns: Vec<&str> = row.split('\t').collect();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let due = columns[2].parse::<u64>().expect("a moment") - now.expect("after 1970").as_secs();
        // The longest delay is an hour, so the second is no longer than the first.
        assert!((3500..=3600).contains(&due), "{row}");
        let attempts = (immediate + 1).to_string();
        assert_eq!([columns[0], columns[1], columns[3]], ["key", &attempts, reason], "{row}");
        assert_eq!(server.admin(&format!("show delayed {}", job.function)), ".\n");
        // Known, and waits; its clients have heard nothing.
        assert!(job.is_known());
        job.check_silence();
        let total = format!("{}\t1\t0\t", job.function);
        assert!(server.admin("status").contains(&total), "{}", server.admin("status"));
        assert_eq!(server.admin(&format!("run job {}", job.handle)), "OK\n");
        let worker = Worker::wait_for_job(&server, &job.function, "complete", "x");
        worker.end_run("complete");
        let done = Way { reason: None, ..*way };
        job.check_told(&done);
        wait_until("its end", || (!job.is_known()).then_some(()));
        assert_eq!(server.admin(&list), ".\n");
    }
    assert_eq!(server.admin("run job H:nowhere:1"), "ERR UNKNOWN_JOB\n");
}

fn only_the_first_loss_is_made_up_for_at_once(contender: Contender) {
    let policy = "attempts = 0\nbackoff = { first = \"1h\", factor = 1.0 }\n";
    let functions = Functions::new(&format!("[[function]]\nmatch = \"*\"\n{policy}"));
    let server = functions.serve(contender, &[]);
    let mut client = open(&server);
    for payload in [&b"first"[..], b"second"] {
        client.packet("SUBMIT_JOB_BG", &[b"f", b"", payload]);
        let answer = client.next();
        assert!(matches!(answer, Ok(Item::Packet(8, _))), "{answer:?}");
    }
    // The first job comes back to the head of the queue, once.
    let lost = Worker::wait_for_job(&server, "f", "disconnect", "x");
    let handle = lost.handle.clone();
    lost.end_run("disconnect");
    wait_until("the loss", || server.admin("status").contains("f\t2\t0\t0").then_some(()));
    let again = Worker::wait_for_job(&server, "f", "disconnect", "x");
    assert_eq!(again.handle, handle);
    again.end_run("disconnect");
    wait_until("the loss", || server.admin("status").contains("f\t2\t0\t0").then_some(()));
    let other = Worker::wait_for_job(&server, "f", "fail", "x");
    assert_ne!(other.handle, handle);
    let row = server.admin("show retrying");
    assert!(row.contains("\t2\t") && row.ends_with("\tlost\n.\n"), "{row}");
}

/// Without another worker the job would be run again and again though it was done.
fn a_result_behind_a_time_out_is_taken_while_the_job_waits_for_its_next_run(contender: Contender) {
    let hour = retries(false).replace(&format!("{FIRST_MS}ms"), "1h");
    let functions = Functions::new(&format!("[[function]]\nmatch = \"*\"\n{hour}"));
    let server = functions.serve(contender, &[]);
    let way = WAYS.iter().find(|way| way.name == "time-out").expect("it is in the table");
    let mut job = Job::submit(&server, Column::Covering, way, Clients::Both);
    let mut late = Worker::wait_for_job(&server, &job.function, way.name, "x");
    let waits = || rest_of_row(&server.admin("show retrying"), &job);
    let before = wait_until("the time-out", waits);
    assert!(before.starts_with("key\t1\t") && before.ends_with("\ttimeout"), "{before}");
    // A failure is known already.
    late.conn.packet("WORK_FAIL", &[job.handle.as_bytes()]);
    late.conn.sync().expect("it lives");
    assert_eq!(late.conn.unexpected(), None);
    assert_eq!(waits(), Some(before));
    job.check_silence();
    late.conn.packet("WORK_COMPLETE", &[job.handle.as_bytes(), b""]);
    late.conn.sync().expect("it lives");
    assert_eq!(late.conn.unexpected(), None);
    let done = Way { reason: None, ..*way };
    job.check_told(&done);
    assert!(!job.is_known());
    assert_eq!((&*server.admin("show retrying"), &*server.admin("show dead")), (".\n", ".\n"));
}
