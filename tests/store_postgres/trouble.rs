//! What a server can do to the store: refuse it, be full, be read-only, fall silent, come back.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use postgres::Client;
use ringgear::store::open::OpenError;
use ringgear::store::postgres::Postgres;
use ringgear::store::{Operation, Store as _, StoreError};

use super::proxy::Proxy;
use super::server::{Server, backend, insert, insist, numbers};

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
    admin.query_one("SELECT generation FROM ringgear_owner", &[]).unwrap().get(0)
}

#[test]
fn a_start_that_cant_work_says_why_and_what_to_do() {
    let Some(server) = Server::start() else { return };
    let mut admin = server.admin("jobs");
    let open = |conninfo: &str| Postgres::open(conninfo, None, 1, &mut || false);
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

    drop(server.open());
    admin.batch_execute("UPDATE ringgear_owner SET version = 3").unwrap();
    let sentence = unusable(server.try_open());
    assert!(sentence.contains("version 3") && sentence.contains("newer"), "{sentence}");
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
    assert!(started.elapsed() < SILENCE_MAX);
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
    let mut admin = server.admin("jobs");
    let promoted: bool = admin.query_one("SELECT pg_promote(true)", &[]).unwrap().get(0);
    assert!(promoted);
    insist(&mut store, &[insert(2)]);
    assert_eq!(numbers(&mut store), [1, 2]);
}

#[test]
fn a_session_that_falls_silent_is_given_up_and_commits_nothing_later() {
    let Some(server) = Server::start() else { return };
    let mut admin = server.admin("jobs");
    let mut store = server.open();
    store.commit(&[insert(1)]).unwrap();
    let silent = Pid::from_raw(backend(&mut admin));
    kill(silent, Signal::SIGSTOP).unwrap();
    let started = Instant::now();
    let sentence = unavailable(store.commit(&[insert(2)]));
    assert!(sentence.contains("didn't answer"), "{sentence}");
    assert!(started.elapsed() < SILENCE_MAX, "{:?}", started.elapsed());
    // It still has the lock, so nobody can say what it will do.
    let sentence = unavailable(store.commit(&[Operation::Remove { number: 2 }]));
    assert!(sentence.contains("earlier session"), "{sentence}");
    kill(silent, Signal::SIGCONT).unwrap();
    insist(&mut store, &[Operation::Remove { number: 2 }]);
    assert_eq!(numbers(&mut store), [1]);
    assert_ne!(Pid::from_raw(backend(&mut admin)), silent);
}

#[test]
fn a_server_that_accepts_and_says_nothing_is_given_up() {
    let Some(server) = Server::start() else { return };
    let conninfo = server.conninfo("jobs") + " connect_timeout=1";
    let open = || Postgres::open(&conninfo, None, 1, &mut || false);
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
    let mut store = Postgres::open(&proxy.conninfo, None, 1, &mut || false).unwrap();
    let mut admin = server.admin("jobs");
    let before = backend(&mut admin);
    proxy.cut();
    unavailable(store.commit(&[insert(1)]));
    insist(&mut store, &[insert(2)]);
    assert_eq!(numbers(&mut store), [2]);
    assert_ne!(backend(&mut admin), before);
}
