//! What is on record about handles: kept whatever becomes of the jobs, changed by the owner alone.

use ringgear::store::namespace::Record;
use ringgear::store::{Operation, Store as _, StoreError};

use super::server::{Server, backend, insert, insist, numbers};

fn record(mark: u64, last: Option<u64>) -> Record {
    Record { prefix: Some("H:ü".into()), mark: Some(mark), last }
}

#[test]
fn it_outlives_the_jobs_and_never_goes_back() {
    let Some(server) = Server::start() else { return };
    let mut store = server.open();
    assert_eq!(store.record().unwrap(), Record::default());
    store.commit(&[insert(5), insert(u64::MAX - 3)]).unwrap();
    store.reserve("H:ü".as_bytes(), 77).unwrap();
    store.reserve("H:ü".as_bytes(), 70).unwrap();
    assert_eq!(store.record().unwrap(), record(77, Some(u64::MAX - 3)));
    let removals = [5, u64::MAX - 3].map(|number| Operation::Remove { number });
    store.commit(&removals).unwrap();
    drop(store);
    let mut store = server.open();
    assert_eq!(store.record().unwrap(), record(77, None));
    assert_eq!(store.next_sequence(), 77);
}

#[test]
fn only_the_owner_changes_it_and_does_so_again_after_a_failover_lost_it() {
    let Some(server) = Server::start() else { return };
    let mut admin = server.admin("jobs");
    let mut store = server.open();
    store.reserve("H:ü".as_bytes(), 77).unwrap();
    let pid = backend(&mut admin);
    let lose = "UPDATE ringgear_owner SET next_sequence = 7, handle_prefix = NULL";
    admin.batch_execute(lose).unwrap();
    admin.execute("SELECT pg_terminate_backend($1)", &[&pid]).unwrap();
    insist(&mut store, &[insert(1)]);
    assert_eq!(store.record().unwrap(), record(77, Some(1)));

    admin.batch_execute("UPDATE ringgear_owner SET generation = generation + 1").unwrap();
    let error = store.reserve("H:ü".as_bytes(), 99).unwrap_err();
    assert!(matches!(error, StoreError::Lost(_)), "{error}");
    drop(store);
    assert_eq!(server.open().record().unwrap(), record(77, Some(1)));
}

#[test]
fn tables_of_the_first_version_get_one() {
    let Some(server) = Server::start() else { return };
    let mut admin = server.admin("jobs");
    let mut store = server.open();
    store.commit(&[insert(512)]).unwrap();
    drop(store);
    admin
        .batch_execute(
            "ALTER TABLE ringgear_owner DROP COLUMN handle_prefix, DROP COLUMN next_sequence;
             UPDATE ringgear_owner SET version = 1",
        )
        .unwrap();
    for _ in 0..2 {
        let mut store = server.open();
        assert_eq!(numbers(&mut store), [512]);
        let expected = Record { last: Some(512), ..Record::default() };
        assert_eq!(store.record().unwrap(), expected);
        assert_eq!(store.next_sequence(), 3);
    }
    let version: i32 = admin.query_one("SELECT version FROM ringgear_owner", &[]).unwrap().get(0);
    assert_eq!(version, 2);
}
