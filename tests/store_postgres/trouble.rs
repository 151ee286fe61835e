//! What a server can do to the store: refuse it, be full, be read-only, fall silent, come back.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use postgres::Client;
use ringgear::engine::record::Operation;
use ringgear::store::postgres::Postgres;
use ringgear::store::{OpenError, Store as _, StoreError};

use super::proxy::Proxy;
use super::server::{
    LEASE, Server, backend, insert, insist, leave, numbers, open_at, wait_for, wait_for_blocked,
};

/// A commit's answer may take as long as the store's own limit, and no longer than this.
const SILENCE_MAX: Duration = Duration::from_secs(15);

fn unavailable<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    match result {
        Err(StoreError::Unavailable(sentence)) => sentence,
        other => panic!("{other:?}"),
    }
}

fn unusable(result: Result<Postgres, OpenError>) -> String {
    match result {
        Err(OpenError::Store(StoreError::Unusable(sentence))) => sentence,
        other => panic!("{other:?}"),
    }
}

fn generation(admin: &mut Client) -> i64 {
    admin.query_one("SELECT generation FROM ringgear_partition", &[]).unwrap().get(0)
}

#[test]
fn a_start_that_cant_work_says_why_and_what_to_do() {
    let Some(server) = Server::start() else { return };
    let mut admin = server.admin("jobs");
    let open = |conninfo: &str| open_at(conninfo);
    let sentence = unusable(open(&server.conninfo("nowhere")));
    assert!(sentence.contains("\"nowhere\"") && sentence.contains("createdb"), "{sentence}");

    admin.batch_execute("CREATE ROLE alice LOGIN PASSWORD 'secret'").unwrap();
    let rules = "local all alice scram-sha-256\nlocal all all trust\n";
    fs::write(server.data().join("pg_hba.conf"), rules).unwrap();
    admin.batch_execute("SELECT pg_reload_conf()").unwrap();
    let alice = server.conninfo("jobs").replace("user=postgres", "user=alice");
    // The new rules come into force a moment later.
    let deadline = Instant::now() + SILENCE_MAX;
    let sentence = loop {
        let sentence = unusable(open(&format!("{alice} password=wrong")));
        if sentence.contains("pg_hba.conf") || Instant::now() > deadline {
            break sentence;
        }
    };
    assert!(sentence.contains("password") && sentence.contains("pg_hba.conf"), "{sentence}");
    assert!(!sentence.contains("wrong"), "{sentence}");
    unusable(open(&alice));
    let sentence = unusable(open(&format!("{alice} password=secret")));
    assert!(sentence.contains("CREATE and USAGE"), "{sentence}");

    leave(server.open());
    admin.batch_execute("UPDATE ringgear_owner SET version = 6").unwrap();
    let sentence = unusable(server.try_open());
    assert!(sentence.contains("version 6") && sentence.contains("newer"), "{sentence}");
    admin.batch_execute("DELETE FROM ringgear_owner").unwrap();
    assert!(unusable(server.try_open()).contains("backup"));
    admin.batch_execute("DROP TABLE ringgear_owner, ringgear_job").unwrap();
    admin.batch_execute("CREATE TABLE ringgear_owner (x int)").unwrap();
    assert!(unusable(server.try_open()).contains("aren't what ringgear made"));
}

#[test]
fn what_is_refused_may_be_tried_again_with_the_same_session() {
    let Some(server) = Server::start() else { return };
    let mut admin = server.admin("jobs");
    let mut store = server.open();
    let before = generation(&mut admin);
    admin
        .batch_execute(
            "CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN RAISE EXCEPTION 'full' USING ERRCODE = 'disk_full'; END $$;
             CREATE TRIGGER fill BEFORE INSERT ON ringgear_job FOR EACH ROW
                 WHEN (NEW.number = 2) EXECUTE FUNCTION fill();",
        )
        .unwrap();
    let operations = [insert(1), insert(2), Operation::Remove { number: 1 }];
    assert!(unavailable(store.commit(&operations)).contains("no space left"));
    // Its own COMMIT has rolled it back: a ROLLBACK would make the server warn.
    let sql = "SELECT query FROM pg_stat_activity WHERE application_name = 'ringgeard'";
    let last: String = admin.query_one(sql, &[]).unwrap().get(0);
    assert_eq!(last, "COMMIT");
    store.commit(&[insert(3)]).unwrap();
    let mut large = super::server::row(4);
    large.payload = vec![0; 17 << 20].into();
    let large = Operation::Insert { row: large, answered: false };
    assert!(unavailable(store.commit(&[insert(2), large.clone()])).contains("no space left"));
    assert_eq!(numbers(&mut store), [3]);
    admin.batch_execute("DROP TRIGGER fill ON ringgear_job").unwrap();
    store.commit(&operations).unwrap();

    // Somebody locks the table and goes to lunch.
    let mut lock = admin.transaction().unwrap();
    lock.batch_execute("LOCK TABLE ringgear_job").unwrap();
    let started = Instant::now();
    let sentence = unavailable(store.commit(&[insert(5)]));
    assert!(sentence.contains("holds locks"), "{sentence}");
    assert!(started.elapsed() < LEASE, "there is time left for a beat");
    store.check().unwrap();
    lock.rollback().unwrap();
    store.commit(&[insert(6)]).unwrap();
    assert_eq!(numbers(&mut store), [2, 3, 6]);
    assert_eq!(generation(&mut admin), before);
}

#[test]
fn a_server_that_is_only_a_copy_is_waited_for() {
    let Some(mut server) = Server::start() else { return };
    let mut store = server.open();
    store.commit(&[insert(1)]).unwrap();
    server.stop();
    fs::write(server.data().join("standby.signal"), "").unwrap();
    server.run();
    unavailable(store.commit(&[insert(2)]));
    assert!(unavailable(store.commit(&[insert(2)])).contains("read-only"));
    match server.try_open() {
        Err(OpenError::Store(StoreError::Unavailable(sentence))) => {
            assert!(sentence.contains("primary"), "{sentence}");
        }
        other => panic!("{other:?}"),
    }
    server.promote();
    insist(&mut store, &[insert(2)]);
    assert_eq!(numbers(&mut store), [1, 2]);
}

/// All hosts of the connection string were named, joined, with the first one's port, whichever of
/// them the session had led to.
#[test]
fn messages_name_the_host_that_they_are_about() {
    let Some(mut server) = Server::start() else { return };
    let mut copy = server.start_standby();
    let [here, there] = [&server, &copy].map(|server| format!("{}", server.folder().display()));
    let conninfo = |hosts: &str| {
        format!(
            "host={hosts} port=5432 user=postgres dbname=jobs sslmode=disable connect_timeout=5"
        )
    };
    let open = |hosts: &str| open_at(&conninfo(hosts));

    // A copy that is listed first is passed over.
    let mut store = open(&format!("{there},{here}")).unwrap();
    store.commit(&[insert(1)]).unwrap();
    let mut admin = server.admin("jobs");
    let pid = backend(&mut admin);
    admin.execute("SELECT pg_terminate_backend($1)", &[&pid]).unwrap();
    wait_for(&mut admin, &format!("SELECT NOT EXISTS (SELECT FROM pg_locks WHERE pid = {pid})"));
    let sentence = unavailable(store.commit(&[insert(2)]));
    assert!(sentence.contains(&here) && !sentence.contains(&there), "{sentence}");
    insist(&mut store, &[insert(2)]);
    drop(admin);

    server.kill();
    let sentence = unavailable(store.commit(&[insert(3)]));
    assert!(sentence.contains(&here) && !sentence.contains(&there), "{sentence}");
    let sentence = unavailable(store.commit(&[insert(3)]));
    let read_only = format!("at {there} port 5432 is read-only: connect to the primary server; ");
    assert!(sentence.contains(&read_only), "{sentence}");
    assert!(sentence.contains(&format!("at {here} port 5432: error connecting")), "{sentence}");
    copy.kill();
    match open(&format!("{here},{there}")) {
        Err(OpenError::Store(StoreError::Unavailable(sentence))) => {
            assert!(sentence.contains(&here) && sentence.contains(&there), "{sentence}");
        }
        other => panic!("{other:?}"),
    }
}

/// A commit that waits for the standby was taken for one that is kept everywhere when an operator
/// cancelled the wait: PostgreSQL answers COMMIT as ever and warns beforehand.
#[test]
fn a_commit_that_doesnt_wait_for_the_standby_is_none() {
    let Some(server) = Server::start() else { return };
    let mut copy = server.start_standby();
    server.wait_for_standbys(1);
    let mut store = server.open();
    let mut admin = server.admin("jobs");
    let before = generation(&mut admin);
    let pid = backend(&mut admin);
    let large = |number| {
        let mut row = super::server::row(number);
        row.payload = vec![0; 9 << 20].into();
        Operation::Insert { row, answered: false }
    };
    // In one statement, and in a transaction of several.
    for operations in [vec![insert(1)], vec![large(2), large(3), Operation::Remove { number: 1 }]] {
        copy.stop();
        let commit = thread::spawn(move || {
            let result = store.commit(&operations);
            (store, operations, result)
        });
        let waits = "SELECT coalesce(wait_event, '') = 'SyncRep' FROM pg_stat_activity WHERE pid =";
        wait_for(&mut admin, &format!("{waits} {pid}"));
        admin.execute("SELECT pg_cancel_backend($1)", &[&pid]).unwrap();
        let operations;
        let result;
        (store, operations, result) = commit.join().unwrap();
        let sentence = unavailable(result);
        assert!(sentence.contains("canceling wait for synchronous replication"), "{sentence}");
        assert!(sentence.contains("might not have been replicated"), "{sentence}");
        copy.run();
        insist(&mut store, &operations);
    }
    // All with the same session.
    assert_eq!((backend(&mut admin), generation(&mut admin)), (pid, before));
    drop(admin);
    drop(server);
    copy.promote();
    assert_eq!(numbers(&mut copy.open()), [2, 3]);
    drop(store);
}

#[test]
fn a_session_that_falls_silent_is_given_up_and_commits_nothing_later() {
    let Some(server) = Server::start() else { return };
    let mut admin = server.admin("jobs");
    let mut store = server.open();
    store.commit(&[insert(1)]).unwrap();
    let silent = backend(&mut admin);
    kill(Pid::from_raw(silent), Signal::SIGSTOP).unwrap();
    let started = Instant::now();
    let sentence = unavailable(store.commit(&[insert(2)]));
    assert!(sentence.contains("didn't answer"), "{sentence}");
    assert!(started.elapsed() < SILENCE_MAX, "{:?}", started.elapsed());
    // What it was sent is of an earlier generation by now.
    store.commit(&[insert(3)]).unwrap();
    kill(Pid::from_raw(silent), Signal::SIGCONT).unwrap();
    assert_ne!(backend(&mut admin), silent);
    assert_eq!(numbers(&mut store), [1, 3]);
}

/// One that fell silent in the middle of a transaction may still commit: what comes next waits.
#[test]
fn a_session_that_falls_silent_in_a_transaction_is_waited_for() {
    let Some(server) = Server::start() else { return };
    let mut admin = server.admin("jobs");
    let mut other = server.admin("jobs");
    let mut store = server.open();
    let silent = backend(&mut admin);
    let mut lock = other.transaction().unwrap();
    lock.batch_execute("LOCK TABLE ringgear_job").unwrap();
    let commit = thread::spawn(move || {
        let result = store.commit(&[insert(2)]);
        (store, result)
    });
    wait_for_blocked(&mut admin, silent);
    kill(Pid::from_raw(silent), Signal::SIGSTOP).unwrap();
    let (mut store, result) = commit.join().unwrap();
    assert!(unavailable(result).contains("didn't answer"));
    lock.rollback().unwrap();
    let sentence = unavailable(store.commit(&[Operation::Remove { number: 2 }]));
    assert!(sentence.contains("earlier session"), "{sentence}");
    kill(Pid::from_raw(silent), Signal::SIGCONT).unwrap();
    insist(&mut store, &[Operation::Remove { number: 2 }, insert(3)]);
    assert_eq!(numbers(&mut store), [3]);
    assert_ne!(backend(&mut admin), silent);
}

#[test]
fn a_server_that_accepts_and_says_nothing_is_given_up() {
    let Some(server) = Server::start() else { return };
    let conninfo = server.conninfo("jobs") + " connect_timeout=1";
    let open = || open_at(&conninfo);
    let mut store = open().unwrap();
    let mut admin = server.admin("jobs");
    let pid = backend(&mut admin);
    kill(server.postmaster(), Signal::SIGSTOP).unwrap();
    admin.execute("SELECT pg_terminate_backend($1)", &[&pid]).unwrap();
    unavailable(store.commit(&[insert(1)]));
    for _ in 0..2 {
        let started = Instant::now();
        let sentence = unavailable(store.commit(&[insert(1)]));
        assert!(sentence.contains("didn't answer for 1 s"), "{sentence}");
        assert!(started.elapsed() < SILENCE_MAX);
    }
    match open() {
        Err(OpenError::Store(StoreError::Unavailable(_))) => {}
        other => panic!("{other:?}"),
    }
    kill(server.postmaster(), Signal::SIGCONT).unwrap();
    insist(&mut store, &[insert(1)]);
    assert_eq!(numbers(&mut store), [1]);
}

#[test]
fn a_session_that_only_the_server_believes_in_is_ended() {
    let Some(server) = Server::start() else { return };
    let proxy = Proxy::start(&server);
    let mut store = open_at(&proxy.conninfo).unwrap();
    let mut admin = server.admin("jobs");
    let before = backend(&mut admin);
    proxy.cut();
    unavailable(store.commit(&[insert(1)]));
    insist(&mut store, &[insert(2)]);
    assert_eq!(numbers(&mut store), [2]);
    assert_ne!(backend(&mut admin), before);
}
