//! What is kept: any bytes, the effect of operations in their order, across ends of the server.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::thread;

use bytes::Bytes;
use ringgear::engine::record::{Operation, Row, Runs};
use ringgear::store::{Store as _, StoreError};
use ringgear::wire::Priority;

use super::server::{Server, insert, insist, leave, load, numbers, row};

#[test]
fn any_bytes_come_back_in_the_order_of_numbers() {
    let Some(server) = Server::start() else { return };
    let every_byte: Vec<u8> = (0..=255).collect();
    let first = Row {
        number: 1,
        function: every_byte.clone().into(),
        unique: Bytes::from_static(b"\0"),
        reducer: Bytes::from_static(b"\xff\xfe"),
        payload: every_byte.repeat(64 << 10).into(),
        priority: Priority::High,
        run_at_ms: u64::MAX / 1000 * 1000,
        last_reason: None,
        was_lost: false,
        attempts: u32::MAX,
        submitted_ms: u64::MAX,
    };
    let empty = Row {
        number: i64::MAX.cast_unsigned(),
        function: Bytes::new(),
        unique: Bytes::new(),
        reducer: Bytes::new(),
        payload: Bytes::new(),
        priority: Priority::Low,
        run_at_ms: 1000,
        last_reason: None,
        was_lost: false,
        attempts: 1,
        submitted_ms: 0,
    };
    // Together they are too large for one statement.
    let second = Row { number: 2, payload: first.payload.clone(), ..row(2) };
    let rows = [first, second, empty];
    let mut store = server.open();
    let operations: Vec<Operation> = rows
        .iter()
        .rev()
        .map(|row| Operation::Insert { row: row.clone(), answered: true })
        .collect();
    store.commit(&operations).unwrap();
    assert!(load(&mut store) == rows, "before the restart");
    leave(store);
    let mut store = server.open();
    assert!(load(&mut store) == rows, "after the restart");
    assert_eq!(store.record().unwrap().next(), (i64::MAX.cast_unsigned() >> 8) + 1);
}

#[test]
fn operations_take_effect_in_their_order() {
    let Some(server) = Server::start() else { return };
    let mut store = server.open();
    let mut random = fastrand::Rng::with_seed(7);
    let mut model: BTreeMap<u64, Row> = BTreeMap::new();
    let mut next = 0;
    for _ in 0..60 {
        let mut operations = Vec::new();
        for _ in 0..random.usize(0..40) {
            let number = random.u64(0..=next);
            match random.u8(0..4) {
                0 | 1 => {
                    next += 1;
                    model.insert(next, row(next));
                    operations.push(insert(next));
                }
                2 => {
                    let attempts = random.u32(..);
                    if let Some(row) = model.get_mut(&number) {
                        row.attempts = attempts;
                    }
                    operations.push(Operation::Retry {
                        number,
                        runs: Runs { attempts, ..Runs::default() },
                    });
                }
                _ => {
                    model.remove(&number);
                    operations.push(Operation::Remove { number });
                }
            }
        }
        store.commit(&operations).unwrap();
        // As after a commit whose answer got lost.
        if random.bool() {
            store.commit(&operations).unwrap();
        }
        assert_eq!(load(&mut store), model.values().cloned().collect::<Vec<Row>>());
    }
    assert!(model.len() > 50);
}

#[test]
fn a_commit_says_how_many_rows_it_changed() {
    let Some(server) = Server::start() else { return };
    let mut store = server.open();
    assert_eq!(store.commit(&[insert(1), insert(2)]).unwrap().changed, 2);
    let nothing = [
        Operation::Remove { number: 3 },
        Operation::Retry { number: 4, runs: Runs { attempts: 1, ..Runs::default() } },
    ];
    assert_eq!(store.commit(&nothing).unwrap().changed, 0);
    let both = [
        Operation::Retry { number: 2, runs: Runs { attempts: 1, ..Runs::default() } },
        Operation::Remove { number: 1 },
    ];
    assert_eq!(store.commit(&both).unwrap().changed, 2);
    assert_eq!(store.commit(&[]).unwrap().changed, 0);
}

#[test]
fn a_commit_may_be_repeated_as_part_of_a_larger_one() {
    let Some(server) = Server::start() else { return };
    let mut store = server.open();
    store.commit(&[insert(1), insert(2)]).unwrap();
    let operations = [
        insert(1),
        insert(2),
        Operation::Retry { number: 1, runs: Runs { attempts: 3, ..Runs::default() } },
        Operation::Remove { number: 2 },
    ];
    store.commit(&operations).unwrap();
    assert_eq!(load(&mut store), [Row { attempts: 3, ..row(1) }]);
}

#[test]
fn commits_are_on_disk_when_the_server_is_killed() {
    let Some(mut server) = Server::start() else { return };
    let mut store = server.open();
    let (kept, killer) = mpsc::channel();
    let commits = thread::spawn(move || {
        for number in 1.. {
            match store.commit(&[insert(number)]) {
                Ok(_) => {
                    let _ = kept.send(number);
                }
                Err(StoreError::Unavailable(_)) => return (store, number),
                Err(error) => panic!("{error}"),
            }
        }
        unreachable!("numbers don't end");
    });
    assert!(killer.iter().any(|number| number == 200), "it failed before the server did");
    server.kill();
    let (mut store, failed) = commits.join().unwrap();
    assert!(matches!(store.commit(&[insert(failed)]), Err(StoreError::Unavailable(_))));
    server.run();
    // It may be kept already; a second time does no harm.
    insist(&mut store, &[insert(failed)]);
    store.commit(&[insert(failed + 1)]).unwrap();
    assert_eq!(numbers(&mut store), (1..=failed + 1).collect::<Vec<u64>>());
}

#[test]
fn commits_wait_for_the_disk_and_for_no_compiler_whatever_the_servers_defaults_are() {
    let Some(server) = Server::start() else { return };
    let mut admin = server.admin("jobs");
    admin
        .batch_execute(
            "ALTER DATABASE jobs SET synchronous_commit = off;
             ALTER DATABASE jobs SET jit = on",
        )
        .unwrap();
    let mut store = server.open();
    admin
        .batch_execute(
            "CREATE TABLE seen (setting text);
             CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO seen SELECT format('%s %s', current_setting('synchronous_commit'),
                     current_setting('jit'));
                 RETURN NULL;
             END $$;
             CREATE TRIGGER see AFTER INSERT ON ringgear_job EXECUTE FUNCTION see();",
        )
        .unwrap();
    store.commit(&[insert(1)]).unwrap();
    let seen: String = admin.query_one("SELECT setting FROM seen", &[]).unwrap().get(0);
    assert_eq!(seen, "on off");
}
