//! Durable jobs in a file: operations in, a table out that the sqlite3 shell can read.
//!
//! SQLite runs in this process with a write-ahead log. One connection is kept open and is reopened
//! after an error that may have broken it. Imports the jobs of C gearmand's table (`gearmand`).
//! Knows neither threads nor retries (`writer`).
//!
//! Invariant: a commit is one transaction and on disk when it returns; applying a commit twice has
//! the effect of applying it once.

mod gearmand;
mod rows;
mod wal;

use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior, params};
use tracing::info;

use self::gearmand::Table;
use self::rows::{
    INSERT, INSERT_DEAD, Name, RETRY, SELECT, SELECT_DEAD, bytes_of, dead_of, insert, insert_dead,
    integer_of, job_of, retry,
};
use self::wal::Wal;
use super::lock::Lock;
use super::namespace::{Record, next_mark};
use super::{Committed, Store, StoreError};
use crate::engine::record::{DeadRow, Operation, Pause, Row};

/// Default name of gearmand's table.
pub const GEARMAND_TABLE: &str = "gearman_queue";

/// `PRAGMA application_id` of ringgear's files: "ring".
const APPLICATION_ID: i64 = 0x7269_6e67;

/// `PRAGMA user_version` of ringgear's files.
///
/// To change the schema: raise it by one, add the change to what new files get, and let `claim`
/// upgrade files of each older version by one step in the transaction that sets this number. The
/// meaning of a released version never changes, and each has a test that reads a file of it.
///
/// 1. `ringgear_job` has a row for each job.
/// 2. `ringgear_owner` has one row with the record about handles.
/// 3. `ringgear_job` has the time of each job's submission.
/// 4. `ringgear_job` has what is known of each job's runs, `ringgear_dead` a row for each dead
///    letter, and `ringgear_pause` one for each paused function.
const VERSION: i64 = 4;

/// The table of version 1. The comments are stored in the file, and `.schema` shows them.
const SCHEMA: &str = "
CREATE TABLE ringgear_job (
    number     INTEGER PRIMARY KEY,         -- the number in its handle, its order too
    function   TEXT NOT NULL,               -- text, or BLOB when it isn't UTF-8 or has a NUL
    unique_key TEXT NOT NULL DEFAULT '',    -- likewise
    reducer    TEXT NOT NULL DEFAULT '',    -- likewise
    priority   INTEGER NOT NULL DEFAULT 1,  -- 0 high, 1 normal, 2 low
    run_at     INTEGER NOT NULL DEFAULT 0,  -- seconds since 1970; 0 = at once
    attempts   INTEGER NOT NULL DEFAULT 0,  -- runs without a result
    payload    BLOB NOT NULL DEFAULT x''
)";

/// The additions of version 2.
const SCHEMA_2: &str = "
CREATE TABLE ringgear_owner (
    only_row      INTEGER PRIMARY KEY CHECK (only_row = 1),
    generation    INTEGER NOT NULL,  -- counts the servers that had this file
    handle_prefix TEXT,              -- what handles start with; NULL before the first server
    next_sequence INTEGER            -- number >> 8 of every job so far is below; likewise
);
INSERT INTO ringgear_owner VALUES (1, 0, NULL, NULL)";

/// The addition of version 3.
const SCHEMA_3: &str = "
ALTER TABLE ringgear_job ADD COLUMN submitted_ms INTEGER NOT NULL
    /* milliseconds since 1970; 0 = before version 3 */ DEFAULT 0";

/// The additions of version 4.
const SCHEMA_4: &str = "
ALTER TABLE ringgear_job ADD COLUMN run_at_part_ms INTEGER NOT NULL
    /* milliseconds after run_at */ DEFAULT 0;
ALTER TABLE ringgear_job ADD COLUMN last_reason TEXT
    /* how its last run ended: lost, timeout, fail or exception; NULL = not known */;
ALTER TABLE ringgear_job ADD COLUMN was_lost INTEGER NOT NULL
    /* 1 = was run again at once after a worker was lost */ DEFAULT 0;
CREATE TABLE ringgear_dead (
    number         INTEGER PRIMARY KEY,         -- the number in its handle
    function       TEXT NOT NULL,               -- text, or BLOB when it isn't UTF-8 or has a NUL
    unique_key     TEXT NOT NULL DEFAULT '',    -- likewise
    reason         TEXT NOT NULL,               -- lost, timeout, fail, exception or expired
    died_ms        INTEGER NOT NULL DEFAULT 0,  -- milliseconds since 1970
    attempts       INTEGER NOT NULL DEFAULT 0,  -- runs without a result
    worker         TEXT NOT NULL DEFAULT '',    -- client id of its last worker; text or BLOB
    message        TEXT NOT NULL DEFAULT '',    -- of its last exception; text or BLOB
    submitted_ms   INTEGER NOT NULL DEFAULT 0,  -- milliseconds since 1970; 0 = not known
    priority       INTEGER NOT NULL DEFAULT 1,  -- 0 high, 1 normal, 2 low
    reducer        TEXT NOT NULL DEFAULT '',    -- text or BLOB
    run_at         INTEGER NOT NULL DEFAULT 0,  -- of its last run: seconds since 1970; 0 = at once
    run_at_part_ms INTEGER NOT NULL DEFAULT 0,  -- milliseconds after run_at
    last_reason    TEXT,                        -- how its last run ended; NULL = not known
    was_lost       INTEGER NOT NULL DEFAULT 0,  -- 1 = was run again at once after a loss
    payload        BLOB NOT NULL DEFAULT x''
);
CREATE TABLE ringgear_pause (
    function TEXT NOT NULL PRIMARY KEY,  -- text, or BLOB when it isn't UTF-8 or has a NUL
    until_ms INTEGER                     -- milliseconds since 1970; NULL = until it is resumed
)";

/// What each version added, from the first on.
const STEPS: [&str; 4] = [SCHEMA, SCHEMA_2, SCHEMA_3, SCHEMA_4];

const OUR_TABLES: [&str; 4] = ["ringgear_job", "ringgear_owner", "ringgear_dead", "ringgear_pause"];

const RECORD: &str = "SELECT handle_prefix, next_sequence FROM ringgear_owner";
/// The largest number. Numbers above 2^63 are negative in the tables, and larger than all others.
const LAST: &str = "WITH number (number) AS (
    SELECT max(number) FROM ringgear_job UNION ALL SELECT max(number) FROM ringgear_dead UNION ALL
    SELECT max(number) FROM ringgear_job WHERE number < 0 UNION ALL
    SELECT max(number) FROM ringgear_dead WHERE number < 0)
SELECT coalesce((SELECT max(number) FROM number WHERE number < 0),
    (SELECT max(number) FROM number))";
const RESERVE: &str = "UPDATE ringgear_owner SET generation = ?1, handle_prefix = ?2,
    next_sequence = ?3";
const GENERATION: &str = "SELECT generation FROM ringgear_owner";

const REMOVE: &str = "DELETE FROM ringgear_job WHERE number = ?1";
const REMOVE_DEAD: &str = "DELETE FROM ringgear_dead WHERE number = ?1";
const DEAD_NUMBERS: &str = "SELECT died_ms, number FROM ringgear_dead";
const PAUSE: &str = "INSERT OR REPLACE INTO ringgear_pause (function, until_ms) VALUES (?1, ?2)";
const RESUME: &str = "DELETE FROM ringgear_pause WHERE function = ?1";
const PAUSES: &str = "SELECT function, until_ms FROM ringgear_pause";

/// Time between two checks of the generation while nothing is committed.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// How long a commit waits for another program's transaction before it fails; the writer retries.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);
/// Size of the page cache in kibibytes. Jobs are inserted and removed at the two ends of the table,
/// so a larger cache is not faster.
const CACHE_KIB: i64 = 8 << 10;
/// Pages in the log from which a commit also moves them to the database. Such a commit takes about
/// 5 ms; with more pages it takes longer, and the others are not faster.
const CHECKPOINT_PAGES: i64 = 1000;
/// Size to which the log is cut after a large commit.
const LOG_BYTES_KEPT: i64 = 64 << 20;

/// A store in a file that this process owns.
#[derive(Debug)]
pub struct Sqlite {
    /// `None` after an error; the next call reopens it.
    connection: Option<Connection>,
    /// Device and inode of the file that was opened.
    file: (u64, u64),
    /// Generation in the file while this server owns it.
    generation: i64,
    /// Whether this server has raised the generation, which it does before it uses a number.
    owns: bool,
    wal: Wal,
    /// The last field, dropped after the connection, whose closing still writes.
    lock: Lock,
}

impl Sqlite {
    /// Opens the locked database, creates the tables if there are none, and imports the jobs of
    /// gearmand's table `import_table` (by default `GEARMAND_TABLE`). They are numbered from
    /// `first_sequence`, or from the first unused number if that is larger.
    ///
    /// # Errors
    /// `StoreError` if the file can't be used, or is another program's.
    pub fn open(
        lock: Lock,
        import_table: Option<&str>,
        first_sequence: u64,
    ) -> Result<Self, StoreError> {
        let path = lock.database();
        let explain = |error| explain(path, &error);
        let import_table = import_table.unwrap_or(GEARMAND_TABLE);
        let mut connection = connect(path, OpenFlags::SQLITE_OPEN_CREATE).map_err(explain)?;
        let theirs = Table::find(&connection, import_table).map_err(explain)?;
        claim(path, &mut connection, import_table, theirs.as_ref())?;
        if let Some(theirs) = theirs {
            let taken = take_over(&mut connection, &theirs, first_sequence).map_err(explain)?;
            if taken > 0 {
                info!(jobs = taken, table = import_table, "took over the jobs of gearmand");
            }
        }
        let generation = generation(&connection).map_err(explain)?;
        let file = lock.file_id().map_err(|error| misplaced(path, &error.to_string()))?;
        let wal = Wal::new(path, LOG_BYTES_KEPT.cast_unsigned());
        let connection = Some(connection);
        let mut store = Self { connection, file, generation, owns: false, wal, lock };
        // Checks that the file that was opened is the locked one.
        store.with(|_| Ok(()))?;
        Ok(store)
    }

    /// The record in the file at `path`, which another server may own, also one of an earlier
    /// version; without the largest number. `None` if it can't be read or has none.
    pub(super) fn peek(path: &Path) -> Option<Record> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).ok()?;
        connection.busy_timeout(BUSY_TIMEOUT).ok()?;
        read_owner(&connection).ok()
    }

    /// Runs `work` on the connection. Drops the connection after an error that may have broken it.
    fn with<T>(
        &mut self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let path = self.lock.database();
        // A file without a name is lost once the last program closes it. SQLite finds the log by
        // the file's name, so another file under this name would mix with the log of the first.
        match file_at(path) {
            Ok(file) if file == self.file => {}
            Ok(_) => return Err(misplaced(path, "another file has its name")),
            Err(error) => return Err(misplaced(path, &error.to_string())),
        }
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let connection = connect(path, OpenFlags::empty());
                let connection = connection.map_err(|error| explain(path, &error))?;
                check(path, &connection)?;
                connection
            }
        };
        let result = work(&mut connection);
        let sound = [ErrorCode::DatabaseBusy, ErrorCode::DatabaseLocked, ErrorCode::DiskFull];
        let code = result.as_ref().err().map(rusqlite::Error::sqlite_error_code);
        if code.is_none_or(|code| code.is_some_and(|code| sound.contains(&code))) {
            self.connection = Some(connection);
        }
        result.map_err(|error| explain(path, &error))
    }
}

impl Sqlite {
    /// Runs a transaction, provided that this server still owns the file.
    fn transact<T>(
        &mut self,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let expected = self.generation;
        let changed = self.with(|connection| {
            // Rolled back if it is dropped without a commit.
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if generation(&transaction)? != expected {
                return Ok(None);
            }
            let changed = change(&transaction)?;
            transaction.commit()?;
            Ok(Some(changed))
        })?;
        changed.ok_or_else(|| self.lost())
    }

    fn lost(&self) -> StoreError {
        let name = self.lock.database().display();
        StoreError::Lost(format!(
            "another server has taken over the jobs in {name}: stop one of the two, or start it \
             with --standby"
        ))
    }
}

impl Store for Sqlite {
    fn record(&mut self) -> Result<Record, StoreError> {
        self.with(|connection| read_record(connection))
    }

    fn reserve(&mut self, prefix: &[u8], from: u64) -> Result<Range<u64>, StoreError> {
        let mark = next_mark(from);
        let next = self.generation + i64::from(!self.owns);
        self.transact(|transaction| {
            transaction.execute(RESERVE, params![next, Name(prefix), mark.cast_signed()])
        })?;
        (self.generation, self.owns) = (next, true);
        Ok(from..mark)
    }

    fn load(&mut self, each: &mut dyn FnMut(Row)) -> Result<(), StoreError> {
        self.with(|connection| {
            let mut select = connection.prepare(SELECT)?;
            // SQLite's integers are signed: numbers above 2^63 are negative, and come last.
            for (low, high) in [(0, i64::MAX), (i64::MIN, -1)] {
                let mut rows = select.query([low, high])?;
                while let Some(row) = rows.next()? {
                    each(job_of(row)?);
                }
            }
            Ok(())
        })
    }

    fn load_dead(&mut self, each: &mut dyn FnMut(DeadRow)) -> Result<(), StoreError> {
        self.with(|connection| {
            // Sorted here: SQLite would sort whole rows, in a file of their own if they are many.
            let mut select = connection.prepare(DEAD_NUMBERS)?;
            let key = |row: &rusqlite::Row<'_>| {
                let died_ms = integer_of(row.get_ref(0)?).cast_unsigned();
                Ok((died_ms, row.get::<_, i64>(1)?.cast_unsigned()))
            };
            let keys = select.query_map([], key)?.collect::<rusqlite::Result<Vec<_>>>();
            let mut keys = keys?;
            keys.sort_unstable();
            let mut select = connection.prepare(SELECT_DEAD)?;
            for (_, number) in keys {
                each(select.query_row([number.cast_signed()], dead_of)?);
            }
            Ok(())
        })
    }

    fn load_pauses(&mut self, each: &mut dyn FnMut(Bytes, Pause)) -> Result<(), StoreError> {
        self.with(|connection| {
            let mut select = connection.prepare(PAUSES)?;
            let mut rows = select.query([])?;
            while let Some(row) = rows.next()? {
                let until = match row.get_ref(1)? {
                    ValueRef::Null => Pause::Unlimited,
                    until => Pause::Until(integer_of(until).cast_unsigned()),
                };
                each(bytes_of(row.get_ref(0)?), until);
            }
            Ok(())
        })
    }

    fn commit(&mut self, operations: &[Operation]) -> Result<Committed, StoreError> {
        let changed = self.transact(|transaction| apply(transaction, operations))?;
        self.connection.iter().for_each(|connection| self.wal.watch(connection));
        Ok(Committed { changed: changed as u64, ..Committed::default() })
    }

    fn check(&mut self) -> Result<Committed, StoreError> {
        let found = self.with(|connection| generation(connection))?;
        if found == self.generation { Ok(Committed::default()) } else { Err(self.lost()) }
    }

    fn check_interval(&self) -> Duration {
        CHECK_INTERVAL
    }
}

/// The generation, which counts the servers that owned the file. On a file system without working
/// locks it shows a server that another one has taken over the file.
fn generation(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached(GENERATION)?.query_row([], |row| row.get(0))
}

/// Applies operations and returns the number of changed rows.
fn apply(transaction: &Transaction<'_>, operations: &[Operation]) -> rusqlite::Result<usize> {
    let mut keep = transaction.prepare_cached(INSERT)?;
    let mut remove = transaction.prepare_cached(REMOVE)?;
    let prepare = |sql| transaction.prepare_cached(sql);
    let mut changed = 0;
    for operation in operations {
        changed += match operation {
            Operation::Insert { row, .. } => insert(&mut keep, row)?,
            Operation::Retry { number, runs } => retry(&mut *prepare(RETRY)?, *number, runs)?,
            Operation::Remove { number } => remove.execute([number.cast_signed()])?,
            Operation::Bury(dead) => {
                remove.execute([dead.row.number.cast_signed()])?
                    + insert_dead(&mut *prepare(INSERT_DEAD)?, dead)?
            }
            Operation::Unbury(row) => {
                prepare(REMOVE_DEAD)?.execute([row.number.cast_signed()])? + insert(&mut keep, row)?
            }
            Operation::RemoveDead { number } => {
                prepare(REMOVE_DEAD)?.execute([number.cast_signed()])?
            }
            Operation::Pause { function, pause: None } => {
                prepare(RESUME)?.execute([Name(function)])?
            }
            Operation::Pause { function, pause: Some(pause) } => {
                let until_ms = match *pause {
                    Pause::Unlimited => None,
                    Pause::Until(ms) => Some(ms.cast_signed()),
                };
                prepare(PAUSE)?.execute(params![Name(function), until_ms])?
            }
        };
    }
    Ok(changed)
}

/// Opens the file without writing to it.
fn connect(path: &Path, create: OpenFlags) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | create;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT)?;
    // Damaged pages are detected when they are read. `load` reads all pages with jobs, so no other
    // check is made when the file is opened.
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(connection)
}

/// Checks that the file is ringgear's. Creates the tables in an empty file or one of gearmand's.
fn claim(
    path: &Path,
    connection: &mut Connection,
    import_table: &str,
    theirs: Option<&Table>,
) -> Result<(), StoreError> {
    let explain = |error| explain(path, &error);
    let name = path.display();
    if OUR_TABLES.iter().any(|ours| import_table.eq_ignore_ascii_case(ours)) {
        let text =
            format!("{import_table} is ringgear's own table: name the one that gearmand wrote");
        return Err(StoreError::Unusable(text));
    }
    if let Some(column) = theirs.and_then(|theirs| theirs.lacks) {
        let text = format!(
            "the table {import_table} in {name} has no column {column}, so gearmand didn't write \
             it: give another file, or name gearmand's table with --libsqlite3-table"
        );
        return Err(StoreError::Unusable(text));
    }
    let (application, version) = identity(connection).map_err(explain)?;
    if application == 0 && version == 0 {
        let tables = "SELECT count(*) FROM sqlite_schema";
        let tables: i64 = connection.query_row(tables, [], |row| row.get(0)).map_err(explain)?;
        if tables > 0 && theirs.is_none() {
            let text = format!(
                "{name} is a database with other tables and none named {import_table}: give \
                 another file, or name gearmand's table with --libsqlite3-table"
            );
            return Err(StoreError::Unusable(text));
        }
        log_ahead(path, connection)?;
        return upgrade(connection, &STEPS).map_err(explain);
    }
    if application == APPLICATION_ID && (1..VERSION).contains(&version) {
        log_ahead(path, connection)?;
        let steps = usize::try_from(version).ok().and_then(|version| STEPS.get(version..));
        return upgrade(connection, steps.unwrap_or_default()).map_err(explain);
    }
    check(path, connection)?;
    log_ahead(path, connection)
}

/// Upgrades a file to this version.
fn upgrade(connection: &mut Connection, steps: &[&str]) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for step in steps {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

fn read_record(connection: &Connection) -> rusqlite::Result<Record> {
    let last: Option<i64> = connection.query_row(LAST, [], |row| row.get(0))?;
    Ok(Record { last: last.map(i64::cast_unsigned), ..read_owner(connection)? })
}

/// The record without the largest number.
fn read_owner(connection: &Connection) -> rusqlite::Result<Record> {
    connection.query_row(RECORD, [], |row| {
        let prefix = match row.get_ref(0)? {
            ValueRef::Null => None,
            value => Some(bytes_of(value).to_vec()),
        };
        let mark = row.get::<_, Option<i64>>(1)?.map(i64::cast_unsigned);
        Ok(Record { prefix, mark, last: None })
    })
}

/// Checks that the file is ringgear's and of this version.
fn check(path: &Path, connection: &Connection) -> Result<(), StoreError> {
    let name = path.display();
    match identity(connection).map_err(|error| explain(path, &error))? {
        (APPLICATION_ID, VERSION) => Ok(()),
        (APPLICATION_ID, version) => Err(StoreError::Unusable(format!(
            "{name} is of version {version} and this ringgeard reads version {VERSION}: start the \
             ringgeard that wrote it, or give another file"
        ))),
        _ => Err(StoreError::Unusable(format!(
            "{name} is the database of another program: give another file"
        ))),
    }
}

/// The numbers of the program and of the schema in the file's header.
fn identity(connection: &Connection) -> rusqlite::Result<(i64, i64)> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get(0));
    Ok((number("application_id")?, number("user_version")?))
}

/// Enables the write-ahead log, for good.
fn log_ahead(path: &Path, connection: &Connection) -> Result<(), StoreError> {
    let mode = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0));
    let mode: String = mode.map_err(|error| explain(path, &error))?;
    if mode == "wal" {
        return Ok(());
    }
    Err(StoreError::Unusable(format!(
        "{} can't have a write-ahead log where it lies (journal_mode stays {mode}): put it on a \
         local disk",
        path.display()
    )))
}

fn take_over(
    connection: &mut Connection,
    theirs: &Table,
    first_sequence: u64,
) -> rusqlite::Result<u64> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let taken =
        theirs.take_over(&transaction, first_sequence.max(read_record(&transaction)?.next()))?;
    transaction.commit()?;
    Ok(taken)
}

/// Device and inode of the file at `path`.
fn file_at(path: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

fn misplaced(path: &Path, reason: &str) -> StoreError {
    let name = path.display();
    StoreError::Unavailable(format!("{name} is gone ({reason}): put it back, or restart ringgeard"))
}

/// The error with cause and remedy.
fn explain(path: &Path, error: &rusqlite::Error) -> StoreError {
    let name = path.display();
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => {
            StoreError::Unavailable(format!("no room for {name}: free some on its disk"))
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Unavailable(
            format!("{name} is locked by another program: end its transaction"),
        ),
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => StoreError::Unavailable(
            format!("{name} can't be written: check the owner and mode of it and of its folder"),
        ),
        Some(ErrorCode::CannotOpen) => StoreError::Unavailable(format!(
            "{name} can't be opened ({error}): check that it and its folder may be read and written"
        )),
        Some(
            ErrorCode::SystemIoFailure
            | ErrorCode::OutOfMemory
            | ErrorCode::OperationInterrupted
            | ErrorCode::OperationAborted
            | ErrorCode::FileLockingProtocolFailed,
        ) => StoreError::Unavailable(format!(
            "{name} can't be read or written ({error}): look after its disk"
        )),
        Some(ErrorCode::NotADatabase) => StoreError::Unusable(format!(
            "{name} is no SQLite database: give another file, or move this one away"
        )),
        Some(ErrorCode::DatabaseCorrupt) => StoreError::Unusable(format!(
            "{name} is damaged ({error}): restore it from a backup, or save what can be read with \
             `.recover` in the sqlite3 shell"
        )),
        _ => StoreError::Unusable(format!(
            "{name} isn't as ringgeard left it ({error}): undo that, or give another file"
        )),
    }
}

#[cfg(test)]
mod tests;
