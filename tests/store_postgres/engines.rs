//! Other engines that speak PostgreSQL's protocol, imitated: functions that they lack or that do
//! nothing are found before PostgreSQL's own, and transactions are serializable.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use ringgear::engine::record::Operation;
use ringgear::store::members::Members as _;
use ringgear::store::postgres::Postgres;
use ringgear::store::{OpenError, Store as _, StoreError};

use super::dead::bury;
use super::server::{Server, insert, leave, numbers, wait_for};

/// Locks that are always had, and a version that says so.
const STUBS: &str = "\
CREATE SCHEMA other;
CREATE FUNCTION other.version() RETURNS text LANGUAGE sql
    AS $$ SELECT 'CockroachDB CCL v25.2.0 (imitated)' $$;
CREATE FUNCTION other.pg_try_advisory_lock(integer, integer) RETURNS boolean LANGUAGE sql
    AS $$ SELECT true $$;
CREATE FUNCTION other.pg_advisory_unlock(integer, integer) RETURNS boolean LANGUAGE sql
    AS $$ SELECT true $$;
CREATE VIEW other.pg_locks AS SELECT * FROM pg_catalog.pg_locks WHERE false;
ALTER DATABASE jobs SET default_transaction_isolation = serializable;";

/// Functions that the engine doesn't have.
const NONE: &str = "\
CREATE SCHEMA other;
CREATE FUNCTION other.version() RETURNS text LANGUAGE sql
    AS $$ SELECT 'PostgreSQL 15.12-YB-2025.2.0.0-b0 (imitated)' $$;
CREATE FUNCTION other.pg_try_advisory_lock(integer, integer) RETURNS boolean LANGUAGE plpgsql
    AS $$ BEGIN RAISE EXCEPTION 'unknown function' USING ERRCODE = '42883'; END $$;
CREATE FUNCTION other.pg_terminate_backend(integer) RETURNS boolean LANGUAGE plpgsql
    AS $$ BEGIN RAISE EXCEPTION 'not yet implemented' USING ERRCODE = '0A000'; END $$;
CREATE VIEW other.pg_locks AS SELECT 1 / 0 AS objid;";

/// A server whose engine seems to be another one.
fn start(imitation: &str) -> Option<Server> {
    let server = Server::start()?;
    let mut admin = server.admin("jobs");
    admin.batch_execute(imitation).unwrap();
    admin.batch_execute("ALTER DATABASE jobs SET search_path = other, pg_catalog, public").unwrap();
    Some(server)
}

fn story(server: &Server) {
    let mut first = server.join("a");
    let mut second = server.join("b");
    let from = |store: &mut Postgres| store.reserve("H:ü".as_bytes(), 1).unwrap().start << 8;
    let (one, two) = (from(&mut first), from(&mut second));
    let changes = [insert(one), insert(one + 256), bury(one + 512)];
    assert_eq!(first.commit(&changes).unwrap().changed, 4 - 1);
    assert_eq!(second.commit(&[insert(two)]).unwrap().changed, 1);
    let mut members = second.members().unwrap();
    let readings = members.read().unwrap().readings;
    let adopted = members.adopt(readings[0].partition.seen()).unwrap();
    second.own(0, adopted.unwrap());
    let rows = members.load(0, None).unwrap();
    assert_eq!(rows.iter().map(|it| it.number).collect::<Vec<_>>(), [one + 256, one]);
    second.note_loaded(&[one + 256, one], &[one + 512]);
    let committed = first.commit(&[insert(one + 768)]).unwrap();
    assert_eq!((committed.lost, committed.is_home_lost), (vec![0], true));
    first.take_home(1).unwrap();
    second.commit(&[Operation::Remove { number: one }]).unwrap();
    assert_eq!(numbers(&mut second), [one + 256, two]);
    leave(first);
    leave(second);
    let mut alone = server.open();
    assert_eq!(numbers(&mut alone), [one + 256, two]);
    // One that beats is not replaced.
    let other = thread::scope(|scope| {
        let other = scope.spawn(|| server.try_open());
        while !other.is_finished() {
            alone.check().unwrap();
        }
        other.join().unwrap()
    });
    assert!(matches!(other, Err(OpenError::Owned(_))), "{other:?}");
    leave(alone);
}

#[test]
fn locks_that_do_nothing_are_not_needed() {
    let Some(server) = start(STUBS) else { return };
    story(&server);
}

#[test]
fn functions_that_are_missing_are_not_needed() {
    let Some(server) = start(NONE) else { return };
    story(&server);
}

/// Transactions that meet another one are tried again, and commit what they say.
#[test]
fn serializable_transactions_of_several_servers_are_tried_again() {
    let Some(server) = start(STUBS) else { return };
    let mut admin = server.admin("jobs");
    // What they read before they write makes them meet.
    let meet = "CREATE FUNCTION meet() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                    PERFORM sum(beat) FROM ringgear_partition;
                    RETURN NEW;
                END $$;
                CREATE TRIGGER meet BEFORE INSERT ON ringgear_job FOR EACH ROW
                    EXECUTE FUNCTION meet()";
    drop(server.join("first"));
    admin.batch_execute(meet).unwrap();
    let (kept, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for name in ["a", "b", "c"] {
            let (kept, failed, server) = (&kept, &failed, &server);
            scope.spawn(move || {
                let mut store = server.join(name);
                let reserved = std::iter::repeat_with(|| store.reserve("H:ü".as_bytes(), 1))
                    .find_map(Result::ok);
                let mut number = reserved.unwrap().start << 8;
                for _ in 0..60 {
                    number += 256;
                    match store.commit(&[insert(number)]) {
                        Ok(committed) => {
                            assert_eq!((committed.changed, committed.lost), (1, vec![]));
                            kept.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(StoreError::Unavailable(_)) => {
                            failed.fetch_add(1, Ordering::Relaxed);
                            // As the store's thread does.
                            while store.commit(&[Operation::Remove { number }]).is_err() {}
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    let (kept, failed) = (kept.into_inner(), failed.into_inner());
    let count: i64 = admin.query_one("SELECT count(*) FROM ringgear_job", &[]).unwrap().get(0);
    assert_eq!(count.cast_unsigned(), kept, "{failed} failed");
    assert!(kept > 120, "{kept} kept, {failed} failed");
    let sql = "SELECT xact_rollback > 5 FROM pg_stat_database WHERE datname = 'jobs'";
    wait_for(&mut admin, sql);
}
