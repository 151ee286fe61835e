//! Files as they may lie on a disk in, what the store makes of them out.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::engine::handle::{job_number, slot};
use crate::engine::reason::Reason;
use crate::engine::record::Runs;
use crate::store::faulty::Tables;
use crate::store::lock::LockError;
use crate::wire::Priority;

/// A folder with a database that isn't there yet.
struct Place {
    _folder: TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jobs.db");
        Self { _folder: folder, path }
    }

    fn try_open(&self, table: Option<&str>) -> Result<Sqlite, StoreError> {
        Sqlite::open(Lock::try_acquire(&self.path).unwrap(), table, 1)
    }

    fn open(&self) -> Sqlite {
        self.try_open(None).unwrap()
    }

    fn shell(&self) -> Connection {
        Connection::open(&self.path).unwrap()
    }

    /// Runs SQL on the file as another program does.
    fn sql(&self, sql: &str) {
        self.shell().execute_batch(sql).unwrap();
    }
}

fn row(number: u64, payload: &[u8]) -> Row {
    Row {
        number,
        function: Bytes::from_static(b"reverse"),
        unique: Bytes::from_static(b"u"),
        reducer: Bytes::new(),
        payload: Bytes::copy_from_slice(payload),
        priority: Priority::Normal,
        run_at_ms: 0,
        last_reason: None,
        was_lost: false,
        attempts: 0,
        submitted_ms: 1_700_000_000_123,
    }
}

fn keep(row: Row) -> Operation {
    Operation::Insert { row, answered: false }
}

fn rows(store: &mut Sqlite) -> Vec<Row> {
    let mut rows = Vec::new();
    store.load(&mut |row| rows.push(row)).unwrap();
    rows
}

/// The rows of jobs that gearmand left: submitted when they were taken over, which is read as what
/// `row` has.
fn taken_over(store: &mut Sqlite) -> Vec<Row> {
    let start = SystemTime::now() - Duration::from_secs(60);
    let start_ms = start.duration_since(UNIX_EPOCH).unwrap().as_millis();
    let mut rows = rows(store);
    for Row { submitted_ms, .. } in &mut rows {
        assert!(u128::from(*submitted_ms) >= start_ms, "{submitted_ms}");
        *submitted_ms = row(1, b"").submitted_ms;
    }
    rows
}

fn numbers(store: &mut Sqlite) -> Vec<u64> {
    rows(store).iter().map(|row| row.number).collect()
}

fn unusable(result: Result<Sqlite, StoreError>) -> String {
    match result {
        Err(StoreError::Unusable(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

fn unavailable(result: Result<Committed, StoreError>) -> String {
    match result {
        Err(StoreError::Unavailable(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

fn any_bytes() -> impl Strategy<Value = Bytes> {
    let text = "[ -~é\\x00]{0,20}".prop_map(Vec::from);
    prop_oneof![vec(any::<u8>(), 0..40), text].prop_map(Bytes::from)
}

fn any_reason() -> impl Strategy<Value = Reason> {
    (0..Reason::ALL.len()).prop_map(|index| Reason::ALL[index])
}

fn any_row() -> impl Strategy<Value = Row> {
    let payload = prop_oneof![9 => vec(any::<u8>(), 0..100), 1 => vec(any::<u8>(), 5000..20_000)];
    let priority = (0..3_usize).prop_map(|index| Priority::ALL[index]);
    let numbers = (any::<[u64; 3]>(), priority);
    let runs = (any::<u32>(), option::of(any_reason()), any::<bool>());
    (numbers, runs, any_bytes(), any_bytes(), any_bytes(), payload).prop_map(
        |(
            ([number, run_at_ms, submitted_ms], priority),
            (attempts, last_reason, was_lost),
            function,
            unique,
            reducer,
            payload,
        )| Row {
            number,
            function,
            unique,
            reducer,
            payload: payload.into(),
            priority,
            run_at_ms,
            attempts,
            last_reason,
            was_lost,
            submitted_ms,
        },
    )
}

fn any_dead() -> impl Strategy<Value = DeadRow> {
    let parts = (any_row(), any_reason(), any::<u64>(), any_bytes(), any_bytes());
    parts.prop_map(|(row, reason, died_ms, worker, message)| DeadRow {
        row,
        reason,
        died_ms,
        worker,
        message,
    })
}

fn any_pause() -> impl Strategy<Value = Pause> {
    prop_oneof![Just(Pause::Unlimited), any::<u64>().prop_map(Pause::Until)]
}

/// Any operation, on one of few jobs and functions.
fn any_operation() -> impl Strategy<Value = Operation> {
    let row = || (0..6_u64, any_row()).prop_map(|(number, row)| Row { number, ..row });
    let runs = row().prop_map(|row| {
        let Row { number, attempts, run_at_ms, last_reason, was_lost, .. } = row;
        Operation::Retry { number, runs: Runs { attempts, run_at_ms, last_reason, was_lost } }
    });
    let bury = (row(), any_dead()).prop_map(|(row, dead)| DeadRow { row, ..dead });
    let pause = (0..3_usize, option::of(any_pause())).prop_map(|(function, pause)| {
        let functions: [&[u8]; 3] = [b"a", b"\xff", b""];
        Operation::Pause { function: Bytes::from_static(functions[function]), pause }
    });
    prop_oneof![
        3 => row().prop_map(keep),
        2 => runs,
        2 => (0..6_u64).prop_map(|number| Operation::Remove { number }),
        3 => bury.prop_map(|dead| Operation::Bury(Box::new(dead))),
        2 => row().prop_map(|row| Operation::Unbury(Box::new(row))),
        1 => (0..6_u64).prop_map(|number| Operation::RemoveDead { number }),
        2 => pause,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_bytes_come_back_as_they_were_in_order(mut kept in vec(any_row(), 1..20)) {
        let place = Place::new();
        let operations: Vec<Operation> = kept.iter().cloned().map(keep).collect();
        let mut store = place.open();
        store.commit(&operations).unwrap();
        drop(store);
        kept.sort_by_key(|row| row.number);
        prop_assert_eq!(rows(&mut place.open()), kept);
    }

    #[test]
    fn dead_letters_come_back_in_the_order_of_their_deaths(mut dead in vec(any_dead(), 1..20)) {
        let place = Place::new();
        let mut store = place.open();
        let bury = |dead: &DeadRow| Operation::Bury(Box::new(dead.clone()));
        store.commit(&dead.iter().map(bury).collect::<Vec<_>>()).unwrap();
        drop(store);
        dead.sort_by_key(|dead| (dead.died_ms, dead.row.number));
        let mut found = Vec::new();
        place.open().load_dead(&mut |dead| found.push(dead)).unwrap();
        prop_assert_eq!(found, dead);
    }

    #[test]
    fn whatever_is_done_the_tables_have_what_is_left(
        commits in vec((vec(any_operation(), 0..12), any::<bool>()), 1..6),
    ) {
        let place = Place::new();
        let mut store = place.open();
        let mut expected = Tables::default();
        for (operations, is_repeated) in commits {
            operations.iter().for_each(|operation| expected.apply(operation));
            store.commit(&operations).unwrap();
            // As after a commit whose answer got lost.
            if is_repeated {
                store.commit(&operations).unwrap();
            }
            prop_assert_eq!(&Tables::load(&mut store).unwrap(), &expected);
        }
        drop(store);
        prop_assert_eq!(Tables::load(&mut place.open()).unwrap(), expected);
    }
}

#[test]
fn operations_take_effect_in_their_order_and_twice_is_as_good_as_once() {
    let place = Place::new();
    let mut store = place.open();
    let operations = [
        keep(row(1, b"a")),
        keep(row(2, b"b")),
        Operation::Retry { number: 2, runs: Runs { attempts: 3, ..Runs::default() } },
        Operation::Remove { number: 1 },
        Operation::Remove { number: 77 },
        Operation::Retry { number: 77, runs: Runs { attempts: 1, ..Runs::default() } },
        keep(row(3, b"")),
    ];
    for _ in 0..2 {
        store.commit(&operations).unwrap();
        let expected = vec![Row { attempts: 3, ..row(2, b"b") }, row(3, b"")];
        assert_eq!(rows(&mut store), expected);
    }
}

fn bury(number: u64, died_ms: u64) -> Operation {
    let (worker, message) = (Bytes::from_static(b"wanda"), Bytes::from_static("boom é".as_bytes()));
    let row = Row { attempts: 5, last_reason: Some(Reason::Lost), ..row(number, b"p") };
    Operation::Bury(Box::new(DeadRow { row, reason: Reason::Exception, died_ms, worker, message }))
}

#[test]
fn a_job_that_died_is_in_one_table_and_a_shell_reads_it() {
    let place = Place::new();
    let mut store = place.open();
    let pause = Operation::Pause { function: "reverse".into(), pause: Some(Pause::Unlimited) };
    assert_eq!(store.commit(&[keep(row(1, b"p")), pause]).unwrap().changed, 2);
    assert_eq!(store.commit(&[bury(1, 7)]).unwrap().changed, 2, "one row less, one more");
    let shell = place.shell();
    let read = |sql: &str| -> String { shell.query_row(sql, [], |row| row.get(0)).unwrap() };
    assert_eq!(read("SELECT count(*) || '' FROM ringgear_job"), "0");
    let line =
        "SELECT concat_ws(' ', number, function, unique_key, reason, died_ms, attempts, worker,
        message, last_reason) FROM ringgear_dead";
    assert_eq!(read(line), "1 reverse u exception 7 5 wanda boom é lost");
    let paused = "SELECT function || ' ' || ifnull(until_ms, 'unlimited') FROM ringgear_pause";
    assert_eq!(read(paused), "reverse unlimited");
    for explained in ["of its last exception", "how its last run ended", "NULL = until it is"] {
        let sql = "SELECT count(*) || '' FROM sqlite_schema WHERE instr(sql, '";
        assert_ne!(read(&format!("{sql}{explained}')")), "0", "{explained}");
    }
    assert_eq!(store.commit(&[Operation::Unbury(Box::new(row(1, b"p")))]).unwrap().changed, 2);
    assert_eq!(read("SELECT count(*) || '' FROM ringgear_dead"), "0");
    assert_eq!(rows(&mut store), [row(1, b"p")]);
    assert_eq!(store.commit(&[Operation::RemoveDead { number: 1 }]).unwrap().changed, 0);
}

#[test]
fn no_number_of_a_dead_letter_is_used_again() {
    let place = Place::new();
    let mut store = place.open();
    store.commit(&[keep(row(600, b"a")), bury(700, 1)]).unwrap();
    assert_eq!(store.record().unwrap().last, Some(700));
    store.commit(&[bury(u64::MAX - 9, 2), keep(row(u64::MAX - 10, b"a"))]).unwrap();
    assert_eq!(store.record().unwrap().last, Some(u64::MAX - 9));
}

#[test]
fn words_of_another_program_are_read_as_well_as_can_be() {
    let place = Place::new();
    let mut store = place.open();
    place.sql("INSERT INTO ringgear_dead (number, function, reason) VALUES (1, 'f', 'boredom')");
    place.sql(
        "INSERT INTO ringgear_job (number, function, last_reason, was_lost, run_at_part_ms)
        VALUES (2, 'f', x'ff', 'yes', 5000)",
    );
    place.sql("INSERT INTO ringgear_pause VALUES ('f', 'soon')");
    let Tables { jobs, dead, pauses } = Tables::load(&mut store).unwrap();
    assert_eq!(dead[&1].reason, Reason::Fail);
    assert_eq!((jobs[&2].last_reason, jobs[&2].was_lost, jobs[&2].run_at_ms), (None, false, 999));
    assert_eq!(pauses[&b"f"[..]], Pause::Until(0));
}

#[test]
fn a_commit_says_how_many_rows_it_changed() {
    let place = Place::new();
    let mut store = place.open();
    assert_eq!(store.commit(&[keep(row(1, b"a")), keep(row(2, b"b"))]).unwrap().changed, 2);
    let nothing = [
        Operation::Remove { number: 3 },
        Operation::Retry { number: 3, runs: Runs { attempts: 1, ..Runs::default() } },
    ];
    assert_eq!(store.commit(&nothing).unwrap().changed, 0);
    let both = [
        Operation::Retry { number: 2, runs: Runs { attempts: 1, ..Runs::default() } },
        Operation::Remove { number: 1 },
    ];
    assert_eq!(store.commit(&both).unwrap().changed, 2);
}

#[test]
fn a_shell_reads_while_the_server_runs_and_sees_text() {
    let place = Place::new();
    let mut store = place.open();
    let binary = Row { function: Bytes::from_static(b"\xff\0"), ..row(2, b"q") };
    store.commit(&[keep(row(1, b"p")), keep(binary)]).unwrap();
    let shell = place.shell();
    let sql = "SELECT group_concat(typeof(function) || function || payload) FROM ringgear_job
        WHERE function = 'reverse' OR number = 2";
    let seen: Vec<u8> =
        shell.query_row(sql, [], |row| Ok(bytes_of(row.get_ref(0)?).to_vec())).unwrap();
    assert!(seen.starts_with(b"textreversep,blob\xff"), "{seen:?}");
    let sql = "SELECT sql FROM sqlite_schema WHERE name = 'ringgear_job'";
    let schema: String = shell.query_row(sql, [], |row| row.get(0)).unwrap();
    assert!(schema.contains("-- runs without a result"), "it explains itself");
    store.commit(&[Operation::Remove { number: 1 }]).unwrap();
    assert_eq!(numbers(&mut store), [2]);
}

#[test]
fn commits_are_synced_and_logged_ahead_also_after_another_start() {
    let place = Place::new();
    for _ in 0..2 {
        let mut store = place.open();
        let number = |name| {
            let connection = store.connection.as_ref().unwrap();
            connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap()
        };
        assert_eq!(number("synchronous"), 2, "FULL");
        assert_eq!((number("application_id"), number("user_version")), (APPLICATION_ID, VERSION));
        let connection = store.connection.as_ref().unwrap();
        let mode: String =
            connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        assert_eq!(mode, "wal");
        store.commit(&[keep(row(1, b"a"))]).unwrap();
    }
}

#[test]
fn a_second_owner_is_refused() {
    let place = Place::new();
    let store = place.open();
    let error = Lock::try_acquire(&place.path).unwrap_err();
    assert!(matches!(error, LockError::Owned { .. }), "{error}");
    drop(store);
    place.open();
}

const GEARMAND: &str = "CREATE TABLE gearman_queue (
    unique_key TEXT, function_name TEXT, priority INTEGER, data BLOB, when_to_run INTEGER,
    PRIMARY KEY (unique_key, function_name));";

#[test]
fn takes_over_what_gearmand_left_in_the_order_of_its_rows() {
    let place = Place::new();
    place.sql(&format!(
        "{GEARMAND}
        INSERT INTO gearman_queue VALUES ('z', 'resize', 2, x'00ff', 1700000000);
        INSERT INTO gearman_queue VALUES ('a', 'resize', 0, NULL, NULL);
        INSERT INTO gearman_queue VALUES ('', 'crop', NULL, 'text', 0);
        INSERT INTO gearman_queue VALUES ('n', 'crop', 9, 42, -5);"
    ));
    let mut store = Sqlite::open(Lock::try_acquire(&place.path).unwrap(), None, 500).unwrap();
    let expected = |sequence, function: &'static str, unique: &'static str, payload: &[u8]| Row {
        function: function.into(),
        unique: unique.into(),
        ..row(job_number(sequence, slot(function.as_bytes())), payload)
    };
    let kept = vec![
        Row {
            priority: Priority::Low,
            run_at_ms: 1_700_000_000_000,
            ..expected(500, "resize", "z", b"\0\xff")
        },
        Row { priority: Priority::High, ..expected(501, "resize", "a", b"") },
        expected(502, "crop", "", b"text"),
        expected(503, "crop", "n", b"42"),
    ];
    assert_eq!(taken_over(&mut store), kept);
    let left = "SELECT count(*) FROM gearman_queue";
    let left: i64 = place.shell().query_row(left, [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0, "the table stays, empty");
    drop(store);

    // gearmand had the file again, and time went backwards.
    place.sql("INSERT INTO gearman_queue VALUES ('b', 'crop', 1, 'x', 0)");
    let mut store = place.open();
    assert_eq!(taken_over(&mut store).last(), Some(&expected(504, "crop", "b", b"x")));
    assert_eq!(rows(&mut store).len(), 5);
}

#[test]
fn takes_over_an_old_table_of_another_name() {
    let place = Place::new();
    let name = r#"que"ue; DROP TABLE x"#;
    let quoted = r#""que""ue; DROP TABLE x""#;
    place.sql(&format!(
        "CREATE TABLE {quoted} (unique_key TEXT, FUNCTION_NAME TEXT, priority INTEGER, data BLOB,
            PRIMARY KEY (unique_key, function_name));
        INSERT INTO {quoted} VALUES ('u', 'reverse', 1, 'p');"
    ));
    let reason = unusable(place.try_open(None));
    assert!(reason.contains("none named gearman_queue"), "{reason}");
    let mut store = place.try_open(Some(name)).unwrap();
    assert_eq!(taken_over(&mut store), [row(job_number(1, slot(b"reverse")), b"p")]);
}

#[test]
fn tables_that_gearmand_did_not_write_are_left_alone() {
    let place = Place::new();
    place.sql("CREATE TABLE gearman_queue (unique_key, function_name, priority)");
    let before = fs::read(&place.path).unwrap();
    let reason = unusable(place.try_open(None));
    assert!(reason.contains("has no column data"), "{reason}");
    assert_eq!(fs::read(&place.path).unwrap(), before, "untouched");

    let place = Place::new();
    place.open().commit(&[keep(row(1, b"a"))]).unwrap();
    let reason = unusable(place.try_open(Some("Ringgear_Job")));
    assert!(reason.contains("own table"), "{reason}");
    assert_eq!(numbers(&mut place.open()), [1]);
}

#[test]
fn files_of_other_programs_and_versions_are_refused_untouched() {
    let cases = [
        ("PRAGMA application_id = 77; CREATE TABLE t (x);", "another program"),
        (&format!("PRAGMA user_version = {VERSION}; CREATE TABLE gearman_queue (x);"), "no column"),
        (&format!("PRAGMA user_version = {VERSION}; {GEARMAND}"), "another program"),
        ("CREATE TABLE places (x);", "other tables"),
    ];
    for (sql, expected) in cases {
        let place = Place::new();
        place.sql(sql);
        let before = fs::read(&place.path).unwrap();
        let reason = unusable(place.try_open(None));
        assert!(reason.contains(expected), "{reason}");
        assert_eq!(fs::read(&place.path).unwrap(), before, "{sql}");
    }

    let place = Place::new();
    drop(place.open());
    place.sql(&format!("PRAGMA user_version = {}", VERSION + 1));
    let reason = unusable(place.try_open(None));
    let expected = format!("of version {} and this ringgeard reads version {VERSION}", VERSION + 1);
    assert!(reason.contains(&expected) && reason.contains("start the ringgeard that"), "{reason}");

    let place = Place::new();
    fs::write(&place.path, "# a text file that is longer than SQLite's head of a file\n".repeat(9))
        .unwrap();
    let reason = unusable(place.try_open(None));
    assert!(reason.contains("no SQLite database"), "{reason}");
}

#[test]
fn a_file_of_each_earlier_version_is_brought_up_to_date() {
    for version in 1..VERSION {
        let place = Place::new();
        let steps = STEPS[..usize::try_from(version).unwrap()].join(";");
        place.sql(&format!(
            "PRAGMA journal_mode = wal; PRAGMA application_id = {APPLICATION_ID};
            PRAGMA user_version = {version}; {steps};
            INSERT INTO ringgear_job (number, function, unique_key, payload)
                VALUES (1, 'reverse', 'u', x'61'), ({}, 'reverse', 'u', x'62')",
            job_number(7, 9)
        ));
        let row = |number, payload| Row { submitted_ms: 0, ..row(number, payload) };
        for _ in 0..2 {
            let mut store = place.open();
            assert_eq!(rows(&mut store), [row(1, b"a"), row(job_number(7, 9), b"b")]);
            let record = Record { last: Some(job_number(7, 9)), ..Record::default() };
            assert_eq!(store.record().unwrap(), record, "version {version}");
        }
    }
}

#[test]
fn jobs_of_version_3_go_on_as_they_were() {
    let place = Place::new();
    place.sql(&format!(
        "PRAGMA journal_mode = wal; PRAGMA application_id = {APPLICATION_ID};
        PRAGMA user_version = 3; {};
        UPDATE ringgear_owner SET generation = 4, handle_prefix = 'H:a', next_sequence = 77;
        INSERT INTO ringgear_job (number, function, unique_key, reducer, priority, run_at, attempts,
                payload, submitted_ms)
            VALUES (1, 'reverse', 'u', 'r', 2, 1700000000, 3, x'61', 1700000000123),
                (2, x'ff00', '', '', 0, 0, 0, x'', 5)",
        STEPS[..3].join(";")
    ));
    assert_eq!(Sqlite::peek(&place.path).unwrap().prefix, Some(b"H:a".to_vec()), "as a standby");
    let first = Row {
        reducer: "r".into(),
        priority: Priority::Low,
        run_at_ms: 1_700_000_000_000,
        attempts: 3,
        ..row(1, b"a")
    };
    let second = Row {
        function: b"\xff\0"[..].into(),
        unique: Bytes::new(),
        priority: Priority::High,
        submitted_ms: 5,
        ..row(2, b"")
    };
    let jobs = BTreeMap::from([(1, first), (2, second)]);
    let expected = Tables { jobs, ..Tables::default() };
    for _ in 0..2 {
        let mut store = place.open();
        assert_eq!(Tables::load(&mut store).unwrap(), expected);
        assert_eq!(store.record().unwrap().mark, Some(77));
        assert_eq!(generation(store.connection.as_ref().unwrap()).unwrap(), 4);
    }
    let mut store = place.open();
    store.commit(&[bury(2, 9)]).unwrap();
    let Tables { jobs, dead, .. } = Tables::load(&mut store).unwrap();
    assert_eq!((jobs.len(), dead[&2].died_ms), (1, 9));
}

#[test]
fn a_file_that_another_server_has_taken_changes_no_more() {
    let place = Place::new();
    let mut store = place.open();
    store.commit(&[keep(row(1, b"a"))]).unwrap();
    for _ in 0..2 {
        store.reserve(b"H:a", 7).unwrap();
        store.check().unwrap();
    }
    let generation_of = |store: &Sqlite| generation(store.connection.as_ref().unwrap()).unwrap();
    assert_eq!(generation_of(&store), 1, "one for each server");
    place.sql("UPDATE ringgear_owner SET generation = generation + 1");
    let is_lost = |result: Result<(), StoreError>| matches!(result, Err(StoreError::Lost(_)));
    assert!(is_lost(store.check().map(drop)));
    assert!(is_lost(store.commit(&[keep(row(2, b"b"))]).map(|_| ())));
    assert!(is_lost(store.reserve(b"H:a", 9).map(drop)));
    drop(store);
    let mut store = place.open();
    assert_eq!((numbers(&mut store), store.record().unwrap().mark), (vec![1], Some(next_mark(7))));
}

#[test]
fn what_is_on_record_about_handles_outlives_the_jobs() {
    let place = Place::new();
    let mut store = place.open();
    assert_eq!(store.record().unwrap(), Record::default());
    store.commit(&[keep(row(u64::MAX - 3, b"a")), keep(row(5, b"b"))]).unwrap();
    store.reserve("H:ü".as_bytes(), 77).unwrap();
    let record = |last| Record { prefix: Some("H:ü".into()), mark: Some(next_mark(77)), last };
    assert_eq!(store.record().unwrap(), record(Some(u64::MAX - 3)));
    let removals = [5, u64::MAX - 3].map(|number| Operation::Remove { number });
    store.commit(&removals).unwrap();
    assert_eq!(Sqlite::peek(&place.path), Some(record(None)), "also beside its server");
    drop(store);
    // Jobs of gearmand are numbered from the mark on, too.
    place.sql(&format!("{GEARMAND} INSERT INTO gearman_queue VALUES ('u', 'f', 1, 'p', 0)"));
    let first = job_number(next_mark(77), slot(b"f"));
    assert_eq!(numbers(&mut place.open()), [first]);
}

#[test]
fn damage_is_noticed_when_jobs_are_loaded() {
    let place = Place::new();
    let mut store = place.open();
    let operations: Vec<Operation> = (1..2000).map(|number| keep(row(number, &[7; 90]))).collect();
    store.commit(&operations).unwrap();
    drop(store);
    let mut file = OpenOptions::new().write(true).open(&place.path).unwrap();
    // The head of a page in the middle of the table.
    file.seek(SeekFrom::Start(20 * 4096)).unwrap();
    file.write_all(&[0xa5; 64]).unwrap();
    let mut store = place.open();
    let error = store.load(&mut |_| ()).unwrap_err();
    assert!(matches!(error, StoreError::Unusable(_)), "{error:?}");
    assert!(error.to_string().contains("is damaged"), "{error}");
}

#[test]
fn a_full_disk_refuses_a_commit_whole_and_is_forgotten_when_there_is_room() {
    let place = Place::new();
    let mut store = place.open();
    store.commit(&[keep(row(1, b"a"))]).unwrap();
    let pages = |store: &Sqlite, most: i64| {
        let connection = store.connection.as_ref().unwrap();
        connection
            .pragma_update_and_check(None, "max_page_count", most, |row| row.get::<_, i64>(0))
            .unwrap();
    };
    pages(&store, 10);
    let large = [Operation::Remove { number: 1 }, keep(row(2, &[0; 100_000]))];
    for _ in 0..2 {
        let reason = unavailable(store.commit(&large));
        assert!(reason.starts_with("no room for"), "{reason}");
        assert_eq!(numbers(&mut store), [1], "all or none");
    }
    store.commit(&[keep(row(3, b"c"))]).unwrap();
    pages(&store, 1_000_000);
    store.commit(&large).unwrap();
    assert_eq!(numbers(&mut store), [2, 3]);
}

#[test]
fn a_lock_of_another_program_is_waited_for_and_survived() {
    let place = Place::new();
    let mut store = place.open();
    let shell = place.shell();
    shell.execute_batch("BEGIN IMMEDIATE").unwrap();
    let reason = unavailable(store.commit(&[keep(row(1, b"a"))]));
    assert!(reason.contains("is locked by another program"), "{reason}");
    assert_eq!(numbers(&mut store), [0; 0], "reading goes on");
    shell.execute_batch("COMMIT").unwrap();
    store.commit(&[keep(row(1, b"a"))]).unwrap();
    assert_eq!(numbers(&mut store), [1]);
}

#[test]
fn a_file_that_may_not_be_written_is_named() {
    let place = Place::new();
    let mut store = place.open();
    store.commit(&[keep(row(1, b"a"))]).unwrap();
    store.connection.as_ref().unwrap().pragma_update(None, "query_only", true).unwrap();
    let reason = unavailable(store.commit(&[keep(row(2, b"b"))]));
    assert!(reason.contains("can't be written"), "{reason}");
    store.commit(&[keep(row(2, b"b"))]).unwrap();
    assert_eq!(numbers(&mut store), [1, 2], "opened anew");
    drop(store);

    fs::set_permissions(&place.path, fs::Permissions::from_mode(0o444)).unwrap();
    if OpenOptions::new().write(true).open(&place.path).is_err() {
        let error = Lock::try_acquire(&place.path).unwrap_err();
        let expected = "no permission; let the server's user write to it";
        assert!(error.to_string().contains(expected), "{error}");
        return;
    }
    match place.try_open(None).map(|mut store| store.commit(&[keep(row(3, b"c"))])) {
        Ok(result) => assert!(result.is_ok(), "root writes anywhere"),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_file_that_is_taken_away_fails_commits_until_it_is_back() {
    let place = Place::new();
    let mut store = place.open();
    store.commit(&[keep(row(1, b"a"))]).unwrap();
    let aside = place.path.with_extension("aside");
    fs::rename(&place.path, &aside).unwrap();
    for _ in 0..2 {
        let reason = unavailable(store.commit(&[keep(row(2, b"b"))]));
        assert!(reason.contains("is gone"), "{reason}");
    }
    File::create(&place.path).unwrap();
    let reason = unavailable(store.commit(&[keep(row(2, b"b"))]));
    assert!(reason.contains("another file has its name"), "{reason}");
    fs::rename(&aside, &place.path).unwrap();
    store.commit(&[keep(row(2, b"b"))]).unwrap();
    assert_eq!(numbers(&mut store), [1, 2]);
}

/// In the environment of the child: where its database is.
const CHILD_PATH: &str = "RINGGEAR_TEST_STORE";

/// The child of the test below; nothing to do otherwise.
#[test]
fn commits_until_killed() {
    let Some(path) = std::env::var_os(CHILD_PATH) else { return };
    let lock = Lock::try_acquire(Path::new(&path)).unwrap();
    let mut store = Sqlite::open(lock, None, 1).unwrap();
    for number in 1.. {
        let mut operations = vec![keep(row(number, &[0; 3000]))];
        if number % 2 == 0 {
            operations.push(Operation::Remove { number: number - 1 });
        }
        store.commit(&operations).unwrap();
        println!("\nkept {number}");
    }
}

#[test]
fn what_was_committed_survives_a_kill() {
    let place = Place::new();
    let mut last = 0;
    for _ in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "store::sqlite::tests::commits_until_killed"])
            .env(CHILD_PATH, &place.path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut kept =
            lines.filter_map(|line| line.unwrap().strip_prefix("kept ")?.parse::<u64>().ok());
        let told = kept.by_ref().take(200).last().unwrap();
        // In whatever it is doing by now.
        child.kill().unwrap();
        child.wait().unwrap();
        let told = kept.last().unwrap_or(told);
        last = last.max(told);
        let mut store = place.open();
        let found = numbers(&mut store);
        assert!(found.binary_search(&last).is_ok() || last % 2 == 1 && found.contains(&(last + 1)));
        let evens = (2..=last).step_by(2);
        assert!(evens.clone().all(|number| found.binary_search(&number).is_ok()));
        let odd = found.iter().filter(|&number| number % 2 == 1).count();
        assert!(odd <= 1, "a job and the one that it follows change together");
        let sql = "PRAGMA integrity_check";
        let check: String = place.shell().query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(check, "ok");
    }
}
