//! A database in trouble while the server runs: what needs it is refused or waits, the rest goes
//! on, and when the trouble is over so is its effect.

use std::fs;
use std::time::{Duration, Instant};

use super::{
    Database, created, drain_texts, is_error, is_known, run_in_foreground, submit_bg, worker,
};
use crate::conn::{Conn, Item};
use crate::harness::{Contender, Server, each_ringgear, tool, wait_until};
use crate::tools::run;

each_ringgear!(
    a_locked_database_refuses_background_jobs_and_nothing_else,
    with_a_store_timeout_they_wait_for_the_lock_to_go,
    a_store_timeout_comes_to_its_end,
    a_file_that_is_moved_away_and_back_is_found_again,
    a_shell_reads_while_the_server_writes,
    a_store_that_refuses_every_job_is_not_back_before_it_has_written_one,
);

/// A background submission of every kind.
const SUBMISSIONS: [(&str, &[&[u8]]); 5] = [
    ("SUBMIT_JOB_HIGH_BG", &[b"f", b"", b"refused"]),
    ("SUBMIT_JOB_BG", &[b"f", b"", b"refused"]),
    ("SUBMIT_JOB_LOW_BG", &[b"f", b"key", b"refused"]),
    ("SUBMIT_JOB_EPOCH", &[b"f", b"", b"0", b"refused"]),
    ("SUBMIT_REDUCE_JOB_BACKGROUND", &[b"f", b"", b"r", b"", b"refused"]),
];

/// Submits until it is acknowledged; gives the handle.
pub(super) fn insist(client: &mut Conn, function: &str, payload: &str) -> String {
    wait_until("the store to be back", || {
        client.packet("SUBMIT_JOB_BG", &[function.as_bytes(), b"", payload.as_bytes()]);
        match client.next().expect("an answer") {
            Item::Packet(8, handle) => Some(String::from_utf8(handle).expect("a handle")),
            item => {
                assert!(is_error(&item, "QUEUE_ERROR"), "{item:?}");
                None
            }
        }
    })
}

/// With the store in trouble: background jobs are refused, all others run as ever, and a job that
/// is kept can be done with.
pub(super) fn refuses_the_background_only(server: &Server) {
    let mut client = Conn::open(server.address());
    let (mut front, mut front_worker) = (Conn::open(server.address()), worker(server, &["front"]));
    let (name, arguments) = SUBMISSIONS[0];
    client.packet(name, arguments);
    // A database that is locked is waited for, a second perhaps. Nothing else waits for that.
    let refusal = wait_until("the refusal", || {
        run_in_foreground(&mut front, &mut front_worker, "x");
        client.next_within(Duration::from_millis(1)).ok()
    });
    assert!(is_error(&refusal, "QUEUE_ERROR"), "{refusal:?}");
    for (name, arguments) in SUBMISSIONS {
        client.packet(name, arguments);
        let refusal = client.next().expect("an answer");
        assert!(is_error(&refusal, "QUEUE_ERROR"), "{name}: {refusal:?}");
        run_in_foreground(&mut front, &mut front_worker, name);
    }
    assert_eq!(drain_texts(server, &["done meanwhile"]), ["x"]);
}

fn a_locked_database_refuses_background_jobs_and_nothing_else(contender: Contender) {
    let database = Database::new();
    let server = database.serve(contender, &[]);
    let mut client = Conn::open(server.address());
    let first = submit_bg(&mut client, "f", "first");
    submit_bg(&mut client, "done meanwhile", "x");
    let lock = database.lock();
    refuses_the_background_only(&server);
    server.wait_for_log("the store is down", |rest| rest.contains("locked").then_some(()));
    drop(lock);
    let second = insist(&mut client, "f", "second");
    server.wait_for_log("the store is back", |_| Some(()));
    server.kill();

    let server = database.serve(contender, &[]);
    let mut client = Conn::open(server.address());
    assert!(is_known(&mut client, &first) && is_known(&mut client, &second));
    assert_eq!(server.admin("status"), "f\t2\t0\t0\n.\n");
    assert_eq!(drain_texts(&server, &["f"]), ["first", "second"]);
}

/// A store that stands still must not hold a core: while a job waits for it, others run.
fn with_a_store_timeout_they_wait_for_the_lock_to_go(contender: Contender) {
    let database = Database::new();
    let server = database.serve(contender, &["--store-timeout", "60000"]);
    let lock = database.lock();
    let mut client = Conn::open(server.address());
    client.packet("SUBMIT_JOB_BG", &[b"f", b"", b"patient"]);
    let (mut front, mut front_worker) = (Conn::open(server.address()), worker(&server, &["front"]));
    // The store alone waits for a second before it gives the first try up.
    let start = Instant::now();
    let mut runs = 0;
    while start.elapsed() < Duration::from_millis(1500) {
        run_in_foreground(&mut front, &mut front_worker, "x");
        runs += 1;
    }
    assert!(runs > 20, "{runs} foreground jobs in 1.5 s");
    let early = client.next_within(Duration::from_millis(1));
    assert!(early.is_err(), "{early:?}");
    // Nobody gets to run what isn't kept.
    assert_eq!(drain_texts(&server, &["f"]), [""; 0]);
    drop(lock);
    let handle = created(&mut client);
    server.kill();
    let server = database.serve(contender, &[]);
    assert!(is_known(&mut Conn::open(server.address()), &handle));
    assert_eq!(drain_texts(&server, &["f"]), ["patient"]);
}

fn a_store_timeout_comes_to_its_end(contender: Contender) {
    let database = Database::new();
    let server = database.serve(contender, &["--store-timeout", "1500"]);
    let _lock = database.lock();
    let mut client = Conn::open(server.address());
    let start = Instant::now();
    client.packet("SUBMIT_JOB_BG", &[b"f", b"", b"x"]);
    let refusal = client.next().expect("an answer");
    assert!(is_error(&refusal, "QUEUE_ERROR"), "{refusal:?}");
    assert!(start.elapsed() >= Duration::from_millis(1500), "{:?}", start.elapsed());
    assert_eq!(server.admin("prioritystatus"), "f\t0\t0\t0\t0\n.\n");
}

fn a_file_that_is_moved_away_and_back_is_found_again(contender: Contender) {
    let database = Database::new();
    let server = database.serve(contender, &[]);
    let mut client = Conn::open(server.address());
    submit_bg(&mut client, "f", "first");
    submit_bg(&mut client, "done meanwhile", "x");
    let away = database.path().with_extension("away");
    fs::rename(database.path(), &away).expect("a folder of our own");
    refuses_the_background_only(&server);
    server.wait_for_log("the store is down", |rest| rest.contains("put it back").then_some(()));
    fs::rename(&away, database.path()).expect("a folder of our own");
    insist(&mut client, "f", "second");
    server.kill();
    let server = database.serve(contender, &[]);
    assert_eq!(drain_texts(&server, &["f", "done meanwhile"]), ["first", "second"]);
}

fn a_shell_reads_while_the_server_writes(contender: Contender) {
    if tool("sqlite3").is_none() {
        return;
    }
    let database = Database::new();
    let path = database.path();
    let shell = |sql: &str| {
        let path = path.to_str().expect("text");
        let finished = run("sqlite3", &["-readonly", path, sql], b"");
        assert!(finished.status.success() && finished.stderr.is_empty(), "{finished:?}");
        finished.stdout
    };
    let server = database.serve(contender, &[]);
    let mut client = Conn::open(server.address());
    for round in 1..=5 {
        for at in 0..20 {
            submit_bg(&mut client, "f", &format!("{round} {at}"));
        }
        let count = format!("{}\n", round * 20);
        assert_eq!(shell("SELECT count(*) FROM ringgear_job"), count);
        // One commit after another, while a shell reads again and again.
        assert_eq!(shell("PRAGMA integrity_check"), "ok\n");
    }
    let row = "SELECT function, unique_key, priority, run_at, attempts, payload FROM ringgear_job";
    let rows = shell(&format!("{row} ORDER BY number"));
    assert_eq!(rows.lines().count(), 100);
    assert!(rows.starts_with("f||1|0|0|1 0\nf||1|0|0|1 1\n"), "{rows}");
    assert!(shell(".schema").contains("payload"));
    // A transaction that only reads stays as long as it likes.
    let reader = rusqlite::Connection::open(&path).expect("a database");
    reader.execute_batch("BEGIN").expect("a transaction");
    let count = |sql: &str| reader.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("a row");
    assert_eq!(count("SELECT count(*) FROM ringgear_job"), 100);
    submit_bg(&mut client, "f", "beside a reader");
    assert_eq!(drain_texts(&server, &["f"]).len(), 101);
    assert_eq!(count("SELECT count(*) FROM ringgear_job"), 100);
}

/// A full disk: every job was refused, its removal, for which nothing has to be written, went well,
/// and the log said that the store was back; twenty times a second.
fn a_store_that_refuses_every_job_is_not_back_before_it_has_written_one(contender: Contender) {
    let database = Database::new();
    let server = database.serve(contender, &[]);
    let mut client = Conn::open(server.address());
    let shell = rusqlite::Connection::open(database.path()).expect("a database");
    let full = "CREATE TRIGGER full BEFORE INSERT ON ringgear_job
        BEGIN SELECT RAISE(ABORT, 'as good as full'); END";
    shell.execute_batch(full).expect("good SQL");
    let (start, mut refused) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_millis(500) {
        client.packet("SUBMIT_JOB_BG", &[b"f", b"", b"refused"]);
        let refusal = client.next().expect("an answer");
        assert!(is_error(&refusal, "QUEUE_ERROR"), "{refusal:?}");
        refused += 1;
    }
    server.wait_for_log("the store is down", |_| Some(()));
    shell.execute_batch("DROP TRIGGER full").expect("good SQL");
    wait_until("the store to be back", || {
        client.packet("SUBMIT_JOB_BG", &[b"f", b"", b"kept"]);
        let answer = client.next().expect("an answer");
        refused += u64::from(is_error(&answer, "QUEUE_ERROR"));
        matches!(answer, Item::Packet(8, _)).then_some(())
    });
    let told = |text: &str| server.log().lines().filter(|line| line.contains(text)).count();
    server.wait_for_log("the store is back", |rest| {
        rest.contains(&format!("refused={refused}")).then_some(())
    });
    assert_eq!((told("the store is down"), told("the store is back")), (1, 1), "{}", server.log());
    assert_eq!(drain_texts(&server, &["f"]), ["kept"]);
    server.stop();
}

/// A transaction that was begun in a shell and forgotten keeps the log from being reset, so that it
/// fills the disk; nothing was said.
#[test]
fn a_forgotten_read_transaction_is_named_before_the_log_fills_the_disk() {
    let database = Database::new();
    let server = database.serve(Contender::RinggearEpoll, &[]);
    let mut client = Conn::open(server.address());
    let payload = "x".repeat(16 << 20);
    submit_bg(&mut client, "f", &payload);
    let shell = rusqlite::Connection::open(database.path()).expect("a database");
    shell.execute_batch("BEGIN; SELECT count(*) FROM ringgear_job").expect("good SQL");
    for _ in 0..4 {
        submit_bg(&mut client, "f", &payload);
    }
    let told = server.wait_for_log("WARN ", |line| line.contains("grows").then(|| line.to_owned()));
    let log = format!("{}-wal", database.path().display());
    assert!(told.contains(&log) && told.contains("read transaction"), "{told}");
    let bytes = fs::metadata(&log).expect("a log").len();
    assert!(bytes > 64 << 20, "{bytes}");
    shell.execute_batch("COMMIT").expect("a transaction");
    // It is moved to the database by one commit, and cut by the next.
    for _ in 0..3 {
        submit_bg(&mut client, "f", "x");
    }
    server.wait_for_log("INFO ", |line| line.contains("is short again").then_some(()));
    server.stop();
}
