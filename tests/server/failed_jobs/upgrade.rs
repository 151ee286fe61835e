//! A database of a server from before there were dead letters: its jobs go on, and can die.

use ringgear::engine::handle::{job_number, slot};
use rusqlite::Connection;

use super::Functions;
use crate::conn::{Conn, Item};
use crate::harness::{Contender, each_ringgear};

each_ringgear!(jobs_of_a_database_from_before_go_on_and_can_die);

/// Version 3, as its server made it, with two jobs and one for the year 2100.
const BEFORE: &str = "
PRAGMA journal_mode = wal;
PRAGMA application_id = 1919512167;
PRAGMA user_version = 3;
CREATE TABLE ringgear_job (
    number     INTEGER PRIMARY KEY,
    function   TEXT NOT NULL,
    unique_key TEXT NOT NULL DEFAULT '',
    reducer    TEXT NOT NULL DEFAULT '',
    priority   INTEGER NOT NULL DEFAULT 1,
    run_at     INTEGER NOT NULL DEFAULT 0,
    attempts   INTEGER NOT NULL DEFAULT 0,
    payload    BLOB NOT NULL DEFAULT x'',
    submitted_ms INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE ringgear_owner (
    only_row      INTEGER PRIMARY KEY CHECK (only_row = 1),
    generation    INTEGER NOT NULL,
    handle_prefix TEXT,
    next_sequence INTEGER
);
INSERT INTO ringgear_owner VALUES (1, 7, 'H:before', 4);
INSERT INTO ringgear_job VALUES (?1, 'f', 'key', '', 1, 0, 1, x'61', 1700000000000);
INSERT INTO ringgear_job VALUES (?2, 'f', '', '', 0, 0, 0, x'62', 1700000000001);
INSERT INTO ringgear_job VALUES (?3, 'f', '', '', 1, 4102444800, 0, x'63', 1700000000002);
";

fn jobs_of_a_database_from_before_go_on_and_can_die(contender: Contender) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("jobs.db");
    let numbers = [1, 2, 3].map(|sequence| job_number(sequence, slot(b"f")).to_string());
    let [first, second, third] = numbers.each_ref().map(|number| format!("H:before:{number}"));
    let mut tables = BEFORE.to_owned();
    for (at, number) in numbers.iter().enumerate() {
        tables = tables.replace(&format!("?{}", at + 1), number);
    }
    Connection::open(&path).expect("a file").execute_batch(&tables).expect("the tables of then");
    let functions = Functions::new("[[function]]\nmatch = \"*\"\nattempts = 2\n");
    let store = format!("sqlite:{}", path.display());
    let serve = || functions.serve(contender, &["--store", &store]);
    let server = serve();
    assert_eq!(server.admin("status"), "f\t3\t0\t0\n.\n");
    let mut worker = Conn::open(server.address());
    worker.packet("CAN_DO", &[b"f"]);
    for (handle, payload, packet) in [(&second, b"b", "WORK_COMPLETE"), (&first, b"a", "WORK_FAIL")]
    {
        worker.packet("GRAB_JOB", &[]);
        let job = [handle.as_bytes(), b"\0f\0", payload].concat();
        assert_eq!(worker.next().ok(), Some(Item::Packet(11, job)));
        let arguments: &[&[u8]] = if packet == "WORK_FAIL" { &[] } else { &[b""] };
        worker.packet(packet, &[&[handle.as_bytes()], arguments].concat());
    }
    worker.sync().expect("it lives");
    // One attempt from before, and one now.
    let dead = server.admin("show dead");
    assert!(dead.starts_with(&format!("{first}\tf\tkey\tnormal\t2\tfail\t")), "{dead}");
    let delayed = format!("{third}\tf\t-\t0\t4102444800\t-\n.\n");
    assert_eq!(server.admin("show delayed"), delayed);
    server.stop();
    let server = serve();
    assert_eq!(server.admin("show dead"), dead);
    assert_eq!(server.admin(&format!("run job {third}")), "OK\n");
    assert_eq!(server.admin("status"), "f\t1\t0\t0\n.\n");
}
