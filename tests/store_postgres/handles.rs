//! What is on record about handles: kept whatever becomes of the jobs, changed by the owner alone.

use std::thread;

use postgres::Client;
use ringgear::cluster::blocks::BLOCK_BITS;
use ringgear::engine::record::Operation;
use ringgear::store::namespace::Record;
use ringgear::store::postgres::Postgres;
use ringgear::store::{Store as _, StoreError};

use super::server::{Server, backend, insert, insist, leave, load, numbers, row, wait_for};

/// Takes away what version 5 added.
macro_rules! fourth_version {
    () => {
        "ALTER TABLE ringgear_job DROP COLUMN partition, ADD PRIMARY KEY (number);
         ALTER TABLE ringgear_dead DROP COLUMN partition, ADD PRIMARY KEY (number);
         DROP TABLE ringgear_cluster, ringgear_partition, ringgear_block;
         UPDATE ringgear_owner SET version = 4;"
    };
}

/// Takes away what version 4 added, too.
macro_rules! third_version {
    () => {
        concat!(
            fourth_version!(),
            "ALTER TABLE ringgear_job DROP COLUMN run_at_part_ms, DROP COLUMN last_reason,
             DROP COLUMN was_lost;
         DROP TABLE ringgear_dead, ringgear_pause;
         UPDATE ringgear_owner SET version = 3;"
        )
    };
}

/// Takes the column of version 3 away, too.
macro_rules! second_version {
    () => {
        concat!(
            third_version!(),
            "ALTER TABLE ringgear_job DROP COLUMN submitted_ms;
             UPDATE ringgear_owner SET version = 2;"
        )
    };
}

/// Takes the columns of version 2 away, too.
const FIRST_VERSION: &str = concat!(
    second_version!(),
    "ALTER TABLE ringgear_owner DROP COLUMN handle_prefix, DROP COLUMN next_sequence;
     UPDATE ringgear_owner SET version = 1;"
);

/// Sequence numbers up to a block.
fn block(number: u64) -> u64 {
    number << BLOCK_BITS
}

fn record(mark: u64, last: Option<u64>) -> Record {
    Record { prefix: Some("H:ü".into()), mark: Some(mark), last }
}

#[test]
fn it_outlives_the_jobs_and_never_goes_back() {
    let Some(server) = Server::start() else { return };
    let mut store = server.open();
    assert_eq!(store.record().unwrap(), record(0, None));
    store.commit(&[insert(5), insert(u64::MAX - 3)]).unwrap();
    assert_eq!(store.reserve("H:ü".as_bytes(), 77).unwrap(), block(1)..block(17));
    assert_eq!(store.reserve("H:ü".as_bytes(), 70).unwrap(), block(17)..block(33));
    assert_eq!(store.record().unwrap(), record(block(33), Some(u64::MAX - 3)));
    let other = store.reserve(b"H:other", 1).unwrap_err().to_string();
    assert!(other.contains("\"H:other\": start it again"), "{other}");
    let removals = [5, u64::MAX - 3].map(|number| Operation::Remove { number });
    store.commit(&removals).unwrap();
    leave(store);
    let mut store = server.open();
    assert_eq!(store.record().unwrap(), record(block(33), None));
    assert_eq!(store.record().unwrap().next(), block(33));
    assert_eq!(store.reserve("H:ü".as_bytes(), block(40) + 1).unwrap(), block(41)..block(57));
}

#[test]
fn only_the_owner_changes_it_and_does_so_again_after_a_failover_lost_it() {
    let Some(server) = Server::start() else { return };
    let mut admin = server.admin("jobs");
    let mut store = server.open();
    store.reserve("H:ü".as_bytes(), 77).unwrap();
    let pid = backend(&mut admin);
    let lose = "UPDATE ringgear_cluster SET next_block = 1, prefix = NULL;
                DELETE FROM ringgear_block";
    admin.batch_execute(lose).unwrap();
    admin.execute("SELECT pg_terminate_backend($1)", &[&pid]).unwrap();
    insist(&mut store, &[insert(1)]);
    assert_eq!(store.record().unwrap(), record(block(17), Some(1)));
    let blocks = "SELECT count(*) FROM ringgear_block WHERE partition = 0";
    assert_eq!(admin.query_one(blocks, &[]).unwrap().get::<_, i64>(0), 16);

    admin.batch_execute("UPDATE ringgear_partition SET generation = generation + 1").unwrap();
    let error = store.reserve("H:ü".as_bytes(), 99).unwrap_err();
    assert!(matches!(error, StoreError::Lost(_)), "{error}");
    assert_eq!(server.open().record().unwrap(), record(block(17), Some(1)));
}

#[test]
fn tables_of_each_earlier_version_are_brought_up_to_date() {
    let Some(server) = Server::start() else { return };
    let mut admin = server.admin("jobs");
    for earlier in [FIRST_VERSION, second_version!(), third_version!(), fourth_version!()] {
        let mut store = server.open();
        store.commit(&[insert(512)]).unwrap();
        leave(store);
        admin.batch_execute(earlier).unwrap();
        for _ in 0..2 {
            let mut store = server.open();
            assert_eq!(numbers(&mut store), [512]);
            // Version 3 has it.
            let has_it = earlier == third_version!() || earlier == fourth_version!();
            let submitted_ms = if has_it { row(512).submitted_ms } else { 0 };
            assert_eq!(load(&mut store)[0].submitted_ms, submitted_ms);
            assert_eq!(store.record().unwrap(), record(block(1), Some(512)));
            leave(store);
        }
        let version = admin.query_one("SELECT version FROM ringgear_owner", &[]).unwrap();
        assert_eq!(version.get::<_, i32>(0), 5);
    }
}

/// A server that had brought tables to this version couldn't go on where a failover without
/// synchronous replication took that back.
#[test]
fn an_owner_brings_tables_to_its_version_again_after_a_failover_took_that_back() {
    let Some(server) = Server::start() else { return };
    let mut admin = server.admin("jobs");
    leave(server.open());
    admin.batch_execute(FIRST_VERSION).unwrap();
    admin.batch_execute("CREATE TABLE copy AS TABLE ringgear_owner").unwrap();
    let mut store = server.open();
    store.reserve("H:ü".as_bytes(), 77).unwrap();
    let pid = backend(&mut admin);
    admin.execute("SELECT pg_terminate_backend($1)", &[&pid]).unwrap();
    wait_for(
        &mut admin,
        &format!("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid})"),
    );
    admin.batch_execute(FIRST_VERSION).unwrap();
    let back = "UPDATE ringgear_owner SET (generation, owner) = \
                (SELECT generation, owner FROM copy)";
    admin.batch_execute(back).unwrap();
    insist(&mut store, &[insert(1)]);
    assert_eq!(store.record().unwrap(), record(block(17), Some(1)));
    leave(store);
    assert_eq!(server.open().record().unwrap(), record(block(17), Some(1)));
}

/// Numbers counted as reserved when the wait for the synchronous standby had been given up, and a
/// failover could hand them out again.
#[test]
fn numbers_that_the_standby_may_not_know_of_are_not_reserved() {
    let Some(server) = Server::start() else { return };
    let mut copy = server.start_standby();
    server.wait_for_standbys(1);
    let mut store = server.open();
    let mut admin = server.admin("jobs");
    let first = backend(&mut admin);
    copy.stop();
    let (result, mut store, _) = cancel_waits(&mut admin, move || {
        let result = store.reserve("H:ü".as_bytes(), 77).map(drop);
        (result, store)
    });
    let sentence = result.unwrap_err().to_string();
    assert!(sentence.contains("might not have been replicated"), "{sentence}");
    assert_eq!(backend(&mut admin), first, "the session goes on");
    copy.run();
    store.reserve("H:ü".as_bytes(), 77).unwrap();

    // A new session, which writes the record again, stays while the standby is away: a server that
    // stands by would get the lock in between.
    copy.stop();
    admin.execute("SELECT pg_terminate_backend($1)", &[&first]).unwrap();
    let (_, mut store, waits) = cancel_waits(&mut admin, move || {
        // The end of the earlier session may show only now.
        let result = store.commit(&[insert(1)]).or_else(|_| store.commit(&[insert(1)]));
        (result.map(drop), store)
    });
    let second = backend(&mut admin);
    assert_ne!(second, first);
    assert!(waits.iter().all(|pid| *pid == second), "{waits:?}");
    copy.run();
    insist(&mut store, &[insert(1)]);
    assert_eq!(backend(&mut admin), second);
    drop(admin);
    drop(server);
    copy.promote();
    // The numbers that weren't reserved are left out.
    assert_eq!(copy.open().record().unwrap(), record(block(33), Some(1)));
}

/// Cancels each wait for a standby until `work` is done; gives the sessions that waited, too.
fn cancel_waits(
    admin: &mut Client,
    work: impl FnOnce() -> (Result<(), StoreError>, Postgres) + Send + 'static,
) -> (Result<(), StoreError>, Postgres, Vec<i32>) {
    let mut cancelled = Vec::new();
    let work = thread::spawn(work);
    while !work.is_finished() {
        let waits = "SELECT pid, query_start::text FROM pg_stat_activity \
                     WHERE application_name = 'ringgeard' AND wait_event = 'SyncRep'";
        for row in admin.query(waits, &[]).unwrap() {
            let wait: (i32, String) = (row.get(0), row.get(1));
            // A second signal would hit the next statement.
            if !cancelled.contains(&wait) {
                admin.execute("SELECT pg_cancel_backend($1)", &[&wait.0]).unwrap();
                cancelled.push(wait);
            }
        }
        admin.batch_execute("SELECT pg_sleep(0.02)").unwrap();
    }
    let (result, store) = work.join().unwrap();
    (result, store, cancelled.into_iter().map(|(pid, _)| pid).collect())
}
