//! The list of dead letters in a real server: its bounds, what comes back from it, and what is left
//! of it after a restart.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::Functions;
use crate::conn::{Conn, Item};
use crate::harness::{Contender, Server, each_ringgear, tool, wait_until};

each_ringgear!(
    the_longest_dead_goes_first_and_the_log_says_so,
    thousands_are_requeued_in_order_while_others_work,
    a_unique_key_in_use_is_skipped_and_counted,
    payloads_of_64_mib_are_kept_if_there_is_room,
    dead_letters_and_pauses_survive_a_restart,
    without_a_store_a_restart_forgets_them,
);

/// Each failed job is dead at once.
const AT_ONCE: &str = "[[function]]\nmatch = \"*\"\nattempts = 1\n";
/// How soon the log tells of letters that were dropped.
const TOLD_WITHIN: Duration = Duration::from_secs(5);
const BATCH: usize = 500;

/// Submits background jobs with these payloads; gives the handles.
fn submit(server: &Server, function: &str, payloads: &[Vec<u8>]) -> Vec<String> {
    let mut client = Conn::open(server.address());
    let mut handles = Vec::new();
    for batch in payloads.chunks(BATCH) {
        for payload in batch {
            client.packet("SUBMIT_JOB_BG", &[function.as_bytes(), b"", payload]);
        }
        handles.extend(batch.iter().map(|_| created(&mut client)));
    }
    handles
}

fn created(client: &mut Conn) -> String {
    match client.next() {
        Ok(Item::Packet(8, handle)) => String::from_utf8(handle).expect("text"),
        other => panic!("no JOB_CREATED: {other:?}"),
    }
}

/// A worker for one function.
fn worker(server: &Server, function: &str) -> Conn {
    let mut worker = Conn::open(server.address());
    worker.packet("SET_CLIENT_ID", &[b"mortal"]);
    worker.packet("CAN_DO", &[function.as_bytes()]);
    worker
}

/// The handle and the payload of the answer to GRAB_JOB.
fn assigned(worker: &mut Conn) -> Option<(String, Vec<u8>)> {
    match worker.next() {
        Ok(Item::Packet(10, _)) => None,
        Ok(Item::Packet(11, body)) => {
            let mut parts = body.splitn(3, |&byte| byte == 0).map(<[u8]>::to_vec);
            let handle = String::from_utf8(parts.next().expect("a handle")).expect("text");
            Some((handle, parts.nth(1).expect("a payload")))
        }
        other => panic!("no answer to GRAB_JOB: {other:?}"),
    }
}

/// Gives all queued jobs of a function this end, and lists them in the order in which they came.
fn end_all(server: &Server, function: &str, packet: &str) -> Vec<(String, Vec<u8>)> {
    let mut worker = worker(server, function);
    let mut ended = Vec::new();
    loop {
        for _ in 0..BATCH {
            worker.packet("GRAB_JOB", &[]);
        }
        let jobs: Vec<_> = (0..BATCH).filter_map(|_| assigned(&mut worker)).collect();
        if jobs.is_empty() {
            worker.sync().expect("it lives");
            return ended;
        }
        for (handle, _) in &jobs {
            match packet {
                "WORK_COMPLETE" => worker.packet(packet, &[handle.as_bytes(), b""]),
                _ => worker.packet(packet, &[handle.as_bytes()]),
            }
        }
        ended.extend(jobs);
    }
}

/// Submits jobs and has them fail; gives their handles.
fn die(server: &Server, function: &str, payloads: &[Vec<u8>]) -> Vec<String> {
    let handles = submit(server, function, payloads);
    assert_eq!(end_all(server, function, "WORK_FAIL").len(), payloads.len());
    handles
}

fn texts(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|at| format!("payload {at}").into_bytes()).collect()
}

/// The handles of all dead letters of a function, or of all functions.
fn dead(server: &Server, function: &str) -> Vec<String> {
    let list = server.admin(format!("show dead {function}").trim_end());
    let rows = list.lines().filter(|&line| line != ".");
    rows.map(|row| row.split('\t').next().expect("a handle").to_owned()).collect()
}

fn number(server: &Server, name: &str) -> u64 {
    let stats = server.admin("stats");
    let row = stats.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'));
    row.unwrap_or_else(|| panic!("no {name} in {stats}")).parse().expect("a number")
}

/// Waits for the line about letters that were dropped.
fn told_of_drops(server: &Server, since: Instant) -> String {
    let line = server.wait_for_log(" WARN ", |rest| {
        rest.contains("dead letters dropped").then(|| rest.to_owned())
    });
    assert!(since.elapsed() < TOLD_WITHIN, "{line} came after {:?}", since.elapsed());
    line
}

fn the_longest_dead_goes_first_and_the_log_says_so(contender: Contender) {
    let functions = Functions::new(AT_ONCE);
    let server = functions.serve(contender, &["--dead-max", "50"]);
    let first = die(&server, "a", &texts(50));
    assert_eq!(dead(&server, "a"), first);
    assert!(!server.log().contains("dead letters dropped"), "{}", server.log());
    let start = Instant::now();
    let last = die(&server, "a", &texts(1));
    let line = told_of_drops(&server, start);
    assert!(line.contains("1 beyond --dead-max"), "{line}");
    assert_eq!(dead(&server, "a"), [&first[1..], &last[..]].concat());
    // Letters of all cores and functions together.
    for function in ["b", "c", "d", "e", "f"] {
        die(&server, function, &texts(5));
    }
    wait_until("the bound", || (dead(&server, "").len() == 50).then_some(()));
    assert_eq!(dead(&server, "a"), [&first[26..], &last[..]].concat());
    for function in ["b", "c", "d", "e", "f"] {
        assert_eq!(dead(&server, function).len(), 5);
    }
    // A letter that was dropped is nowhere.
    assert_eq!(server.admin(&format!("requeue dead {}", first[0])), "ERR UNKNOWN_JOB\n");
}

#[test]
fn there_is_room_for_ten_thousand() {
    let functions = Functions::new(AT_ONCE);
    let server = functions.serve(Contender::RinggearEpoll2, &[]);
    let first = die(&server, "f", &texts(10_000));
    assert!(!server.log().contains("dead letters dropped"), "{}", server.log());
    let start = Instant::now();
    let last = die(&server, "f", &texts(1));
    let line = told_of_drops(&server, start);
    assert!(line.contains("1 beyond --dead-max"), "{line}");
    assert_eq!(dead(&server, "f"), [&first[1..], &last[..]].concat());
}

/// A client's jobs that go through while something else happens.
struct Steady {
    client: Conn,
    worker: Conn,
}

impl Steady {
    fn new(server: &Server) -> Self {
        let mut worker = worker(server, "steady");
        worker.sync().expect("it lives");
        Self { client: Conn::open(server.address()), worker }
    }

    fn run_one(&mut self) {
        self.client.packet("SUBMIT_JOB", &[b"steady", b"", b"x"]);
        let handle = created(&mut self.client);
        self.worker.packet("GRAB_JOB", &[]);
        let job = assigned(&mut self.worker).expect("the job");
        assert_eq!(job.0, handle);
        self.worker.packet("WORK_COMPLETE", &[handle.as_bytes(), b"done"]);
        let result = [handle.as_bytes(), b"\0done"].concat();
        assert_eq!(self.client.next().ok(), Some(Item::Packet(13, result)));
    }
}

/// Has jobs go through while `work` is done; gives how many did.
pub(super) fn under_load(server: &Server, work: impl FnOnce(&AtomicU32)) -> u32 {
    let (is_over, count) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut steady = Steady::new(server);
            while !is_over.load(Ordering::Relaxed) {
                steady.run_one();
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        let runs = || (load.is_finished() || count.load(Ordering::Relaxed) > 0).then_some(());
        wait_until("the load", runs);
        // The load ends after a panic here, too.
        let end = EndOf(&is_over);
        work(&count);
        drop(end);
    });
    count.into_inner()
}

struct EndOf<'a>(&'a AtomicBool);

impl Drop for EndOf<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn thousands_are_requeued_in_order_while_others_work(contender: Contender) {
    const COUNT: usize = 5000;
    let functions = Functions::new(AT_ONCE);
    let server = functions.serve(contender, &[]);
    let payloads = texts(COUNT);
    let handles = die(&server, "a", &payloads);
    let others = die(&server, "b", &texts(3));
    under_load(&server, |count| {
        let before = count.load(Ordering::Relaxed);
        assert_eq!(server.admin("requeue dead a"), format!("OK {COUNT}\n"));
        let goes_on = || (count.load(Ordering::Relaxed) > before + 10).then_some(());
        wait_until("the load to go on", goes_on);
    });
    assert_eq!((dead(&server, "a").len(), dead(&server, "b")), (0, others.clone()));
    let expected: Vec<(String, Vec<u8>)> = handles.into_iter().zip(payloads).collect();
    assert!(end_all(&server, "a", "WORK_COMPLETE") == expected, "not in the order of death");
    assert_eq!(server.admin("requeue dead a"), "OK 0\n");
    assert_eq!(server.admin("drop dead *"), "OK 3\n");
    assert_eq!(server.admin("show dead"), ".\n");
}

fn a_unique_key_in_use_is_skipped_and_counted(contender: Contender) {
    let functions = Functions::new(AT_ONCE);
    let server = functions.serve(contender, &[]);
    let mut client = Conn::open(server.address());
    let mut submit = |unique: &str, payload: &str| {
        client.packet("SUBMIT_JOB_BG", &[b"f", unique.as_bytes(), payload.as_bytes()]);
        created(&mut client)
    };
    let (letter, other) = (submit("key", "first"), submit("other", "other"));
    end_all(&server, "f", "WORK_FAIL");
    // A dead letter has no key that is joined.
    let newer = submit("key", "second");
    assert_ne!(newer, letter);
    let skipped = "OK 0 skipped 1 unique_in_use\n";
    assert_eq!(server.admin(&format!("requeue dead {letter}")), skipped);
    assert_eq!(server.admin("requeue dead f"), "OK 1 skipped 1 unique_in_use\n");
    assert_eq!(dead(&server, "")[..], *std::slice::from_ref(&letter));
    let jobs = [(newer, b"second".to_vec()), (other, b"other".to_vec())];
    assert_eq!(end_all(&server, "f", "WORK_COMPLETE"), jobs);
    assert_eq!(server.admin("requeue dead *"), "OK 1\n");
    assert_eq!(server.admin(&format!("requeue dead {letter}")), "ERR UNKNOWN_JOB\n");
    // It has its key again.
    assert_eq!(submit("key", "third"), letter);
    assert_eq!(end_all(&server, "f", "WORK_COMPLETE"), [(letter, b"first".to_vec())]);
}

fn payloads_of_64_mib_are_kept_if_there_is_room(contender: Contender) {
    let functions = Functions::new(AT_ONCE);
    let large = vec![vec![7; 64 << 20]];
    let server = functions.serve(contender, &["--dead-bytes-max", "128m"]);
    let small = die(&server, "f", &texts(3));
    let kept = die(&server, "f", &large);
    assert_eq!(dead(&server, "f"), [&small[..], &kept[..]].concat());
    assert_eq!(server.admin(&format!("requeue dead {}", kept[0])), "OK 1\n");
    let jobs = end_all(&server, "f", "WORK_COMPLETE");
    assert!(jobs.len() == 1 && jobs[0].1 == large[0], "it isn't what it was");
    server.stop();
    // By default there is room for less.
    let server = functions.serve(contender, &[]);
    let small = die(&server, "f", &texts(3));
    let start = Instant::now();
    die(&server, "f", &large);
    let line = told_of_drops(&server, start);
    assert!(line.contains("beyond --dead-bytes-max"), "{line}");
    assert_eq!(dead(&server, "f"), small);
}

/// Deaths of all kinds of names and priorities.
fn die_in_many_ways(server: &Server) {
    let mut client = Conn::open(server.address());
    let jobs: [(&str, &[&[u8]]); 5] = [
        ("SUBMIT_JOB_HIGH_BG", &[b"f", b"high", b"payload"]),
        ("SUBMIT_JOB_BG", &[b"f", b"", b""]),
        ("SUBMIT_JOB_LOW_BG", &[b"f", b"\xc3\xbc\xff", &[0, 1, 255]]),
        ("SUBMIT_JOB_BG", &[b"\xff", b"key", b"payload"]),
        ("SUBMIT_REDUCE_JOB_BACKGROUND", &[b"f", b"r", b"sum", b"", b"a\0b"]),
    ];
    for (packet, arguments) in jobs {
        client.packet(packet, arguments);
        created(&mut client);
        let mut worker = Conn::open(server.address());
        worker.packet("SET_CLIENT_ID", &[b"mortal"]);
        worker.packet("CAN_DO", &[arguments[0]]);
        worker.packet("GRAB_JOB", &[]);
        let (handle, _) = assigned(&mut worker).expect("the job");
        worker.packet("WORK_EXCEPTION", &[handle.as_bytes(), b"boom"]);
        worker.sync().expect("it lives");
    }
}

fn dead_letters_and_pauses_survive_a_restart(contender: Contender) {
    let functions = Functions::new(AT_ONCE);
    let folder = tempfile::tempdir().expect("a folder");
    let store = format!("sqlite:{}", folder.path().join("jobs.db").display());
    let serve = || functions.serve(contender, &["--store", &store]);
    let server = serve();
    die_in_many_ways(&server);
    let handles = die(&server, "f", &texts(3));
    assert_eq!(server.admin("pause function paused"), "OK\n");
    assert_eq!(server.admin("pause function resumed"), "OK\n");
    assert_eq!(server.admin("resume function resumed"), "OK\n");
    let waiting = submit(&server, "paused", &texts(1));
    let rows = |server: &Server| -> BTreeSet<String> {
        server.admin("show dead").lines().map(str::to_owned).collect()
    };
    let before = rows(&server);
    assert_eq!(before.len(), 9);
    server.stop();
    let server = serve();
    assert_eq!(rows(&server), before);
    assert_eq!(dead(&server, "f")[4..], handles, "the order of death");
    assert!(end_all(&server, "paused", "WORK_COMPLETE").is_empty(), "it is paused");
    assert_eq!(server.admin(&format!("requeue dead {}", handles[1])), "OK 1\n");
    assert_eq!(server.admin(&format!("drop dead {}", handles[2])), "OK 1\n");
    // Behind them on the way to the disk.
    let queued = submit(&server, "f", &texts(1));
    server.kill();
    let server = serve();
    assert_eq!(dead(&server, "f")[4..], handles[..1]);
    let left: Vec<String> =
        end_all(&server, "f", "WORK_COMPLETE").into_iter().map(|(handle, _)| handle).collect();
    assert_eq!(left.len(), 2);
    assert!(left.contains(&handles[1]) && left.contains(&queued[0]), "{left:?}");
    assert_eq!(server.admin("resume function paused"), "OK\n");
    let run: Vec<(String, Vec<u8>)> = end_all(&server, "paused", "WORK_COMPLETE");
    assert_eq!(run[0].0, waiting[0]);
    assert_eq!(server.admin("drop dead *"), "OK 6\n");
    server.stop();
    let server = serve();
    assert_eq!((server.admin("show dead"), server.admin("show functions")), two_empty_lists());
}

fn two_empty_lists() -> (String, String) {
    (".\n".to_owned(), ".\n".to_owned())
}

fn without_a_store_a_restart_forgets_them(contender: Contender) {
    let functions = Functions::new(AT_ONCE);
    let mut server = functions.serve(contender, &[]);
    die(&server, "f", &texts(3));
    assert_eq!(number(&server, "jobs_dead"), 3);
    server.signal("TERM");
    server.wait();
    let log = server.log();
    assert!(log.contains("jobs are lost") && log.contains("dead=3"), "{log}");
    assert_eq!(functions.serve(contender, &[]).admin("show dead"), ".\n");
}

/// Text is text to the shell of SQLite, so that an operator finds a dead letter without a server.
#[test]
fn the_shell_of_sqlite_reads_them() {
    let Some(shell) = tool("sqlite3") else { return };
    let functions = Functions::new(AT_ONCE);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("jobs.db");
    let store = format!("sqlite:{}", path.display());
    let server = functions.serve(Contender::RinggearEpoll2, &["--store", &store]);
    die_in_many_ways(&server);
    // Behind them on the way to the disk.
    submit(&server, "f", &texts(1));
    let query = "SELECT function, unique_key, priority, attempts, reason, worker, message, payload \
                 FROM ringgear_dead WHERE function = 'f' AND unique_key = 'high'";
    let output = Command::new(shell).arg(&path).arg(query).output().expect("a shell");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said, "f|high|0|1|exception|mortal|boom|payload\n", "{output:?}");
}
