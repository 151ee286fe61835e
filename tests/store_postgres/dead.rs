//! Jobs that failed for good, and paused functions: kept, moved between the tables, and brought
//! back after a failover that took them away.

use std::collections::BTreeMap;

use bytes::Bytes;
use postgres::Client;
use ringgear::cluster::blocks::BLOCK_BITS;
use ringgear::engine::reason::Reason;
use ringgear::engine::record::{DeadRow, Operation, Pause, Row, Runs};
use ringgear::store::postgres::Postgres;
use ringgear::store::{OpenError, Store as _, StoreError};
use ringgear::wire::Priority;

use super::server::{Server, backend, insert, insist, leave, load, row, wait_for};

/// The tables that version 3 created.
const THIRD_VERSION: &str = "\
CREATE TABLE ringgear_job (
    number bigint PRIMARY KEY,
    function bytea NOT NULL,
    unique_key bytea NOT NULL,
    reducer bytea NOT NULL,
    priority smallint NOT NULL,
    run_at bigint NOT NULL,
    attempts integer NOT NULL,
    payload bytea NOT NULL,
    submitted_ms bigint NOT NULL DEFAULT 0
);
ALTER TABLE ringgear_job ALTER payload SET STORAGE EXTERNAL;
CREATE TABLE ringgear_owner (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version integer NOT NULL,
    generation bigint NOT NULL,
    owner bytea NOT NULL,
    handle_prefix bytea,
    next_sequence bigint
);
INSERT INTO ringgear_owner VALUES (true, 3, 7, '', 'H:a', 77);
INSERT INTO ringgear_job VALUES (1, 'reverse', 'u', 'r', 2, 1700000000, 3, 'a', 1700000000123),
    (2, '\\xff00', '', '', 0, 0, 0, '', 5);";

/// What the tables have.
#[derive(Clone, Debug, Default, PartialEq)]
struct Tables {
    jobs: BTreeMap<u64, Row>,
    dead: BTreeMap<u64, DeadRow>,
    pauses: BTreeMap<Bytes, Pause>,
}

impl Tables {
    fn load(store: &mut Postgres) -> Self {
        let mut tables = Self::default();
        let Self { jobs, dead, pauses } = &mut tables;
        store.load(&mut |row| drop(jobs.insert(row.number, row))).unwrap();
        store.load_dead(&mut |letter| drop(dead.insert(letter.row.number, letter))).unwrap();
        store
            .load_pauses(&mut |function, pause| {
                pauses.insert(function, pause);
            })
            .unwrap();
        tables
    }

    fn apply(&mut self, operation: &Operation) {
        match operation.clone() {
            Operation::Insert { row, .. } => drop(self.jobs.insert(row.number, row)),
            Operation::Retry { number, runs } => {
                let Runs { attempts, run_at_ms, last_reason, was_lost } = runs;
                if let Some(row) = self.jobs.get_mut(&number) {
                    *row = Row { attempts, run_at_ms, last_reason, was_lost, ..row.clone() };
                }
            }
            Operation::Remove { number } => drop(self.jobs.remove(&number)),
            Operation::Bury(dead) => {
                self.jobs.remove(&dead.row.number);
                self.dead.insert(dead.row.number, *dead);
            }
            Operation::Unbury(row) => {
                self.dead.remove(&row.number);
                self.jobs.insert(row.number, *row);
            }
            Operation::RemoveDead { number } => drop(self.dead.remove(&number)),
            Operation::Pause { function, pause } => {
                match pause {
                    Some(pause) => self.pauses.insert(function, pause),
                    None => self.pauses.remove(&function),
                };
            }
        }
    }
}

fn dead(number: u64, died_ms: u64) -> DeadRow {
    DeadRow {
        row: Row { attempts: 5, last_reason: Some(Reason::Lost), ..row(number) },
        reason: Reason::Exception,
        died_ms,
        worker: Bytes::from_static(b"wanda\xff"),
        message: Bytes::from_static(b"boom\0"),
    }
}

pub(super) fn bury(number: u64) -> Operation {
    Operation::Bury(Box::new(dead(number, 1_700_000_000_000 + number)))
}

fn unbury(number: u64) -> Operation {
    Operation::Unbury(Box::new(row(number)))
}

fn pause(function: impl Into<Bytes>, pause: Option<Pause>) -> Operation {
    Operation::Pause { function: function.into(), pause }
}

/// Any operation, on one of few jobs and functions.
fn any_operation(random: &mut fastrand::Rng) -> Operation {
    let number = random.u64(0..8);
    let reason = Reason::ALL[random.usize(0..Reason::ALL.len())];
    let runs = Runs {
        attempts: random.u32(..),
        run_at_ms: random.u64(..),
        last_reason: random.bool().then_some(reason),
        was_lost: random.bool(),
    };
    let row = || {
        let Runs { attempts, run_at_ms, last_reason, was_lost } = runs;
        Row { attempts, run_at_ms, last_reason, was_lost, ..row(number) }
    };
    match random.u8(0..14) {
        0..3 => Operation::Insert { row: row(), answered: true },
        3..5 => Operation::Retry { number, runs },
        5..7 => Operation::Remove { number },
        7..10 => Operation::Bury(Box::new(DeadRow {
            row: row(),
            reason,
            ..dead(number, random.u64(..))
        })),
        10..12 => Operation::Unbury(Box::new(row())),
        12 => Operation::RemoveDead { number },
        _ => {
            let until = if random.bool() { Pause::Unlimited } else { Pause::Until(random.u64(..)) };
            let functions: [&[u8]; 3] = [b"a", b"\xff\0", b""];
            let function = Bytes::from_static(functions[random.usize(0..3)]);
            pause(function, random.bool().then_some(until))
        }
    }
}

#[test]
fn whatever_is_done_the_tables_have_what_is_left() {
    let Some(server) = Server::start() else { return };
    let mut store = server.open();
    let mut expected = Tables::default();
    for seed in 0..150 {
        let mut random = fastrand::Rng::with_seed(seed);
        let count = random.usize(0..16);
        let operations: Vec<Operation> = (0..count).map(|_| any_operation(&mut random)).collect();
        operations.iter().for_each(|operation| expected.apply(operation));
        store.commit(&operations).unwrap();
        // As after a commit whose answer got lost.
        if random.bool() {
            store.commit(&operations).unwrap();
        }
        assert_eq!(Tables::load(&mut store), expected, "seed {seed}");
    }
    leave(store);
    assert_eq!(Tables::load(&mut server.open()), expected);
    assert!(!expected.jobs.is_empty() && !expected.dead.is_empty(), "{expected:?}");
}

#[test]
fn dead_letters_come_back_in_the_order_of_their_deaths() {
    let Some(server) = Server::start() else { return };
    let mut store = server.open();
    // Together they are too large for one statement.
    let payload = Bytes::from(vec![b'x'; 9 << 20]);
    let large = |dead: DeadRow| {
        let row = Row { payload: payload.clone(), ..dead.row };
        DeadRow { row, ..dead }
    };
    let letters = [large(dead(9, 1)), large(dead(3, 2)), dead(4, 2), dead(1, 3)];
    let operations: Vec<Operation> =
        letters.iter().rev().map(|it| Operation::Bury(Box::new(it.clone()))).collect();
    store.commit(&[insert(3), insert(4)]).unwrap();
    assert_eq!(store.commit(&operations).unwrap().changed, 6, "two rows less, four more");
    assert_eq!(store.record().unwrap().last, Some(9), "no number is used again");
    let mut found = Vec::new();
    store.load_dead(&mut |dead| found.push(dead)).unwrap();
    assert!(found == letters);
    assert!(load(&mut store).is_empty());
    assert_eq!(store.commit(&[Operation::RemoveDead { number: 7 }]).unwrap().changed, 0);
    leave(store);
    let mut store = server.open();
    assert_eq!(store.record().unwrap().last, Some(9));
    // Names may be longer than what an index takes.
    let mut random = fastrand::Rng::with_seed(1);
    let name =
        Bytes::from(std::iter::repeat_with(|| random.u8(..)).take(8000).collect::<Vec<u8>>());
    store.commit(&[pause(name.clone(), Some(Pause::Unlimited))]).unwrap();
    assert_eq!(Tables::load(&mut store).pauses, BTreeMap::from([(name, Pause::Unlimited)]));
}

#[test]
fn jobs_of_version_3_go_on_as_they_were() {
    let Some(server) = Server::start() else { return };
    server.admin("jobs").batch_execute(THIRD_VERSION).unwrap();
    let first = Row {
        number: 1,
        unique: "u".into(),
        reducer: "r".into(),
        payload: "a".into(),
        priority: Priority::Low,
        run_at_ms: 1_700_000_000_000,
        attempts: 3,
        ..row(1)
    };
    let second = Row {
        function: Bytes::from_static(b"\xff\0"),
        payload: Bytes::new(),
        priority: Priority::High,
        submitted_ms: 5,
        ..row(2)
    };
    let jobs = BTreeMap::from([(1, first), (2, second)]);
    let mut expected = Tables { jobs, ..Tables::default() };
    for _ in 0..2 {
        let mut store = server.open();
        assert_eq!(Tables::load(&mut store), expected);
        let record = store.record().unwrap();
        leave(store);
        assert_eq!(
            (record.prefix.as_deref(), record.mark),
            (Some(&b"H:a"[..]), Some(1 << BLOCK_BITS))
        );
    }
    let mut store = server.open();
    let operations = [bury(2), insert(3), pause("f", Some(Pause::Until(9)))];
    store.commit(&operations).unwrap();
    operations.iter().for_each(|operation| expected.apply(operation));
    leave(store);
    assert_eq!(Tables::load(&mut server.open()), expected);

    server.admin("jobs").batch_execute("UPDATE ringgear_owner SET version = 6").unwrap();
    match server.try_open() {
        Err(OpenError::Store(StoreError::Unusable(sentence))) => {
            let expected =
                "are of version 6, this ringgear knows versions up to 5: start the newer";
            assert!(sentence.contains(expected), "{sentence}");
        }
        other => panic!("{other:?}"),
    }
}

/// New tables and upgraded ones are the same.
#[test]
fn an_upgrade_ends_with_the_tables_of_a_new_database() {
    let Some(server) = Server::start() else { return };
    let mut admin = server.admin("jobs");
    let mut columns = || -> Vec<String> {
        let sql =
            "SELECT concat_ws(' ', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
                a.attnotnull, a.attstorage, c.relreplident, pg_get_expr(d.adbin, d.adrelid))
            FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
            LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
            WHERE c.relname LIKE 'ringgear_%' AND c.relkind = 'r' AND a.attnum > 0 ORDER BY 1";
        admin.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
    };
    leave(server.open());
    let new = columns();
    assert!(new.len() > 30, "{new:?}");
    let drop_all = "DROP TABLE ringgear_job, ringgear_owner, ringgear_dead, ringgear_pause,
        ringgear_cluster, ringgear_partition, ringgear_block";
    server.admin("jobs").batch_execute(&format!("{drop_all};{THIRD_VERSION}")).unwrap();
    leave(server.open());
    assert_eq!(columns(), new);
}

/// Ends the store's session, and changes the tables as a failover does.
fn fail_over(admin: &mut Client, change: &str) {
    let pid = backend(admin);
    admin.execute("SELECT pg_terminate_backend($1)", &[&pid]).unwrap();
    let gone = format!("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid})");
    wait_for(admin, &gone);
    admin.batch_execute(change).unwrap();
}

/// A failover without synchronous replication took back that a job had died: it would have run
/// again, and its letter was lost. Where it was the requeueing, the job itself was lost.
#[test]
fn a_failover_that_takes_back_the_last_moves_loses_neither_jobs_nor_dead_letters() {
    let Some(server) = Server::start() else { return };
    let mut admin = server.admin("jobs");
    let mut store = server.open();
    Tables::load(&mut store);
    let mut expected = Tables::default();
    let mut commit = |store: &mut Postgres, operations: &[Operation]| {
        operations.iter().for_each(|operation| expected.apply(operation));
        insist(store, operations);
        expected.clone()
    };
    let until = |ms| Some(Pause::Until(ms));
    let before = [
        insert(1),
        insert(2),
        bury(3),
        bury(4),
        bury(5),
        pause("a", until(7)),
        pause("b", until(8)),
    ];
    commit(&mut store, &before);
    admin
        .batch_execute(
            "CREATE TABLE job AS TABLE ringgear_job; CREATE TABLE dead AS TABLE ringgear_dead;
             CREATE TABLE pause AS TABLE ringgear_pause;",
        )
        .unwrap();
    let moves = [
        bury(1),
        Operation::Remove { number: 2 },
        unbury(3),
        Operation::RemoveDead { number: 4 },
        pause("a", None),
        pause("b", until(9)),
        pause("c", Some(Pause::Unlimited)),
    ];
    let moved = commit(&mut store, &moves);
    assert_eq!(Tables::load(&mut store), moved);

    fail_over(
        &mut admin,
        "TRUNCATE ringgear_job, ringgear_dead, ringgear_pause;
         INSERT INTO ringgear_job TABLE job; INSERT INTO ringgear_dead TABLE dead;
         INSERT INTO ringgear_pause TABLE pause;",
    );
    commit(&mut store, &[insert(6)]);
    let missing = store.take_missing();
    assert_eq!(missing, [3, 1], "asked for");
    // The only rows of both are still there.
    let count = "SELECT (SELECT count(*) FROM ringgear_job WHERE number IN (1, 2)),
                    (SELECT count(*) FROM ringgear_dead WHERE number IN (3, 4, 5))";
    let left = admin.query_one(count, &[]).unwrap();
    assert_eq!((left.get::<_, i64>(0), left.get::<_, i64>(1)), (1, 2));

    // As cores answer.
    let again = commit(&mut store, &[insert(3), bury(1)]);
    assert_eq!(Tables::load(&mut store), again);
    leave(store);
    assert_eq!(Tables::load(&mut server.open()), again);
}

#[test]
fn a_move_of_an_earlier_generation_changes_nothing() {
    let Some(server) = Server::start() else { return };
    let mut admin = server.admin("jobs");
    let mut store = server.open();
    let before = [insert(1), bury(2), pause("a", Some(Pause::Unlimited))];
    store.commit(&before).unwrap();
    let expected = Tables::load(&mut store);
    admin.batch_execute("UPDATE ringgear_partition SET generation = generation + 1").unwrap();
    let operations =
        [bury(1), unbury(2), bury(3), pause("a", None), pause("b", Some(Pause::Unlimited))];
    let error = store.commit(&operations).unwrap_err();
    assert!(matches!(error, StoreError::Lost(_)), "{error}");
    leave(store);
    assert_eq!(Tables::load(&mut server.open()), expected);
}
