//! Jobs that C gearmand left in its own table, and tables that only share its name.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use postgres::Client;
use ringgear::cluster::blocks::BLOCK_BITS;
use ringgear::engine::handle::{job_number, slot};
use ringgear::engine::record::Row;
use ringgear::store::Store as _;
use ringgear::store::postgres::{Opening, Postgres};
use ringgear::wire::Priority;

use super::server::{Server, leave, load, member, opening};

const COLUMNS: &str = "(unique_key VARCHAR(64), function_name VARCHAR(255), priority INTEGER,
    data BYTEA, when_to_run INTEGER, UNIQUE (unique_key, function_name))";

/// Sequence numbers in a block.
const BLOCK: u64 = 1 << BLOCK_BITS;

fn open(conninfo: &str, table: Option<&str>, first_sequence: u64) -> Postgres {
    let membership = member();
    let opening = Opening { table, ..opening(conninfo, &membership) };
    Postgres::open(&opening, &|| first_sequence, &mut || false).unwrap()
}

fn count(admin: &mut Client, table: &str) -> i64 {
    admin.query_one(&format!("SELECT count(*) FROM {table}"), &[]).unwrap().get(0)
}

fn expected(sequence: u64, function: &'static [u8], unique: &'static [u8]) -> Row {
    Row {
        number: job_number(sequence, slot(function)),
        function: function.into(),
        unique: unique.into(),
        reducer: b""[..].into(),
        payload: b""[..].into(),
        priority: Priority::Normal,
        run_at_ms: 0,
        last_reason: None,
        was_lost: false,
        attempts: 0,
        submitted_ms: 0,
    }
}

/// The jobs, whose submission counts from when they were taken over; that is read as 0.
fn taken_over(store: &mut Postgres) -> Vec<Row> {
    let start = SystemTime::now() - Duration::from_secs(60);
    let start_ms = start.duration_since(UNIX_EPOCH).unwrap().as_millis();
    let mut rows = load(store);
    for Row { submitted_ms, .. } in &mut rows {
        assert!(u128::from(*submitted_ms) >= start_ms, "{submitted_ms}");
        *submitted_ms = 0;
    }
    rows
}

#[test]
fn its_jobs_are_taken_over_once() {
    let Some(server) = Server::start() else { return };
    let mut admin = server.admin("jobs");
    admin
        .batch_execute(&format!(
            "CREATE TABLE queue {COLUMNS};
             INSERT INTO queue VALUES
                 ('u1', 'reverse', 0, '\\x00ff10', 0), ('u2', 'grüße', 2, NULL, 1893456000),
                 ('a\\b', 'reverse', 1, 'x', 0), (NULL, 'f', NULL, 'y', NULL);"
        ))
        .unwrap();
    let conninfo = server.conninfo("jobs");
    let mut store = open(&conninfo, None, 1000);
    let rows = [
        Row {
            payload: b"\x00\xff\x10"[..].into(),
            priority: Priority::High,
            ..expected(BLOCK, b"reverse", b"u1")
        },
        Row {
            priority: Priority::Low,
            run_at_ms: 1_893_456_000_000,
            last_reason: None,
            was_lost: false,
            ..expected(BLOCK + 1, "grüße".as_bytes(), b"u2")
        },
        Row { payload: b"x"[..].into(), ..expected(BLOCK + 2, b"reverse", b"a\\b") },
        Row { payload: b"y"[..].into(), ..expected(BLOCK + 3, b"f", b"") },
    ];
    assert_eq!(taken_over(&mut store), rows);
    assert_eq!(store.record().unwrap().next(), 2 * BLOCK);
    assert_eq!(count(&mut admin, "queue"), 0);
    leave(store);

    // What gearmand leaves later comes after what is there, however low the sequence starts.
    admin.batch_execute("INSERT INTO queue VALUES ('late', 'f', 1, NULL, 0)").unwrap();
    let mut store = open(&conninfo, None, 5);
    let mut rows = rows.to_vec();
    rows.push(expected(2 * BLOCK, b"f", b"late"));
    assert_eq!(taken_over(&mut store), rows);
    assert_eq!(store.record().unwrap().next(), 3 * BLOCK);
}

#[test]
fn its_table_is_found_under_any_name() {
    let Some(server) = Server::start() else { return };
    let mut admin = server.admin("jobs");
    let hostile = "q\"; DROP TABLE ringgear_job; --";
    admin
        .batch_execute(&format!(
            "CREATE TABLE \"{}\" {COLUMNS}; CREATE TABLE Gear {COLUMNS};
             INSERT INTO \"{0}\" VALUES ('u', 'f', 1, NULL, 0);
             INSERT INTO gear VALUES ('v', 'f', 1, NULL, 0);",
            hostile.replace('"', "\"\"")
        ))
        .unwrap();
    let open = |table| open(&server.conninfo("jobs"), Some(table), 1);
    let mut store = open(hostile);
    assert_eq!(taken_over(&mut store), [expected(BLOCK, b"f", b"u")]);
    leave(store);
    let mut store = open("none such");
    assert_eq!(load(&mut store).len(), 1);
    leave(store);
    // As gearmand writes it, without quotes.
    let both = [expected(BLOCK, b"f", b"u"), expected(2 * BLOCK, b"f", b"v")];
    assert_eq!(taken_over(&mut open("Gear")), both);
}

#[test]
fn tables_of_others_stay_as_they_are() {
    let Some(server) = Server::start() else { return };
    let mut admin = server.admin("jobs");
    let more = COLUMNS.replace("data BYTEA", "data BYTEA, retries INTEGER DEFAULT 0");
    let other = COLUMNS.replace("data BYTEA", "data TEXT");
    let fewer = COLUMNS.replace(", when_to_run INTEGER", "");
    for columns in [&*more, &other, &fewer] {
        admin.batch_execute(&format!("CREATE TABLE queue {columns}")).unwrap();
        admin
            .batch_execute("INSERT INTO queue (unique_key, function_name) VALUES ('u', 'f')")
            .unwrap();
        let mut store = server.open();
        assert!(load(&mut store).is_empty());
        leave(store);
        assert_eq!(count(&mut admin, "queue"), 1);
        admin.batch_execute("DROP TABLE queue").unwrap();
    }
    admin.batch_execute(&format!("CREATE TABLE real {COLUMNS}")).unwrap();
    admin
        .batch_execute("INSERT INTO real VALUES ('u', 'f'); CREATE VIEW queue AS TABLE real")
        .unwrap();
    assert!(load(&mut server.open()).is_empty());
    assert_eq!(count(&mut admin, "real"), 1);
}
