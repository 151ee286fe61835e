//! Durable jobs in a file: operations in, a table out that every sqlite3 shell can read.
//!
//! SQLite runs in this process with a write-ahead log. One connection is kept while it works and is
//! opened anew after a fault that may have left it in a bad way. Takes over what C gearmand left in
//! its own table (`gearmand`). Knows neither threads nor retries (`writer`).
//!
//! Invariant: a commit is one transaction and on disk when it returns; applying a commit twice
//! leaves what applying it once does.

mod gearmand;
mod rows;
mod wal;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior, params};
use tracing::info;

use self::gearmand::Table;
use self::rows::{INSERT, Name, bytes_of, insert, integer_of, priority_of};
use self::wal::Wal;
use super::lock::Lock;
use super::namespace::Record;
use super::{Store, StoreError};
use crate::engine::record::{Operation, Row};

/// The table of gearmand's queue when nobody named another.
pub const GEARMAND_TABLE: &str = "gearman_queue";

/// `PRAGMA application_id` of our files: "ring".
const APPLICATION_ID: i64 = 0x7269_6e67;

/// `PRAGMA user_version` of our files.
///
/// To change the schema: raise it by one, let `SCHEMA` make what new files get, and let `claim`
/// bring files of each older version a step further in the transaction that sets this number. What
/// a released version means never changes, and each gets a test that reads a file of it.
///
/// 1. `ringgear_job` has a row for each job.
/// 2. `ringgear_owner` has one row with what is on record about handles.
const VERSION: i64 = 2;

/// The table of the first version. Comments stay in the file: `.schema` shows them.
const SCHEMA: &str = "
CREATE TABLE ringgear_job (
    number     INTEGER PRIMARY KEY,         -- the number in its handle, its order too
    function   TEXT NOT NULL,               -- text, or BLOB when it isn't UTF-8 or has a NUL
    unique_key TEXT NOT NULL DEFAULT '',    -- likewise
    reducer    TEXT NOT NULL DEFAULT '',    -- likewise
    priority   INTEGER NOT NULL DEFAULT 1,  -- 0 high, 1 normal, 2 low
    run_at     INTEGER NOT NULL DEFAULT 0,  -- seconds since 1970; 0 = at once
    attempts   INTEGER NOT NULL DEFAULT 0,  -- workers that lost it
    payload    BLOB NOT NULL DEFAULT x''
)";

/// What version 2 adds.
const SCHEMA_2: &str = "
CREATE TABLE ringgear_owner (
    only_row      INTEGER PRIMARY KEY CHECK (only_row = 1),
    generation    INTEGER NOT NULL,  -- counts the servers that had this file
    handle_prefix TEXT,              -- what handles start with; NULL before the first server
    next_sequence INTEGER            -- number >> 8 of every job so far is below; likewise
);
INSERT INTO ringgear_owner VALUES (1, 0, NULL, NULL)";

const OUR_TABLES: [&str; 2] = ["ringgear_job", "ringgear_owner"];

const RECORD: &str = "SELECT handle_prefix, next_sequence FROM ringgear_owner";
/// A number of the upper half, which is a negative one here, is larger than all others.
const LAST: &str = "SELECT coalesce((SELECT max(number) FROM ringgear_job WHERE number < 0),
    (SELECT max(number) FROM ringgear_job))";
const RESERVE: &str = "UPDATE ringgear_owner SET generation = ?1, handle_prefix = ?2,
    next_sequence = ?3";
const GENERATION: &str = "SELECT generation FROM ringgear_owner";

const SET_ATTEMPTS: &str = "UPDATE ringgear_job SET attempts = ?2 WHERE number = ?1";
const REMOVE: &str = "DELETE FROM ringgear_job WHERE number = ?1";
const SELECT: &str = "SELECT number, function, unique_key, reducer, priority, run_at, attempts,
    payload FROM ringgear_job WHERE number BETWEEN ?1 AND ?2 ORDER BY number";

/// How often the generation is looked at while nothing is committed.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// How long a commit waits for a shell that writes. Longer waits are the writer's to arrange.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);
/// Kibibytes of pages that are kept in memory. Jobs come and go at the two ends of the table: more
/// makes nothing faster.
const CACHE_KIB: i64 = 8 << 10;
/// Pages in the log after which a commit also moves them to the database. That commit takes some 5
/// ms then; with more pages it takes longer, and the others are not faster.
const CHECKPOINT_PAGES: i64 = 1000;
/// The log is cut to this size when a large commit has made it larger.
const LOG_BYTES_KEPT: i64 = 64 << 20;

/// Jobs in a file that this process owns.
#[derive(Debug)]
pub struct Sqlite {
    /// `None` after a fault; the next call opens it again.
    connection: Option<Connection>,
    /// Device and inode of the file that was opened.
    file: (u64, u64),
    /// The one in the file as long as it is this server's.
    generation: i64,
    /// Whether it is this server's own, which it takes before it gives a number out.
    owns: bool,
    wal: Wal,
    /// Stands last: closing the connection still writes.
    lock: Lock,
}

impl Sqlite {
    /// Opens the locked database, makes it if there is none, and moves jobs that C gearmand left in
    /// `import_table` (by default `GEARMAND_TABLE`) to its own table. These are numbered in
    /// sequence from `first_sequence`, or from behind all numbers that have been given to jobs.
    ///
    /// # Errors
    /// `StoreError`: see there.
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
        // Whether it is the locked file that was opened.
        store.with(|_| Ok(()))?;
        Ok(store)
    }

    /// What is on record in the file at `path`, which may be another server's; `None` if it can't
    /// be read or has none.
    pub(super) fn peek(path: &Path) -> Option<Record> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).ok()?;
        connection.busy_timeout(BUSY_TIMEOUT).ok()?;
        read_record(&connection).ok()
    }

    /// Runs `work` on the connection, explains its error, and gives a doubtful connection up.
    fn with<T>(
        &mut self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let path = self.lock.database();
        // What goes to a file without a name is gone with the last program that has it open. What
        // goes to another file, or is read from it, mixes with the log of the one that we know.
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
    /// Changes the file, provided that it is still this server's.
    fn transact<T>(
        &mut self,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let expected = self.generation;
        let changed = self.with(|connection| {
            // Dropped on the way out, it takes everything back.
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
        StoreError::Lost(format!("another server has taken over the jobs in {name}"))
    }
}

impl Store for Sqlite {
    fn record(&mut self) -> Result<Record, StoreError> {
        self.with(|connection| read_record(connection))
    }

    fn reserve(&mut self, prefix: &[u8], mark: u64) -> Result<(), StoreError> {
        let next = self.generation + i64::from(!self.owns);
        self.transact(|transaction| {
            transaction.execute(RESERVE, params![next, Name(prefix), mark.cast_signed()])
        })?;
        (self.generation, self.owns) = (next, true);
        Ok(())
    }

    fn load(&mut self, each: &mut dyn FnMut(Row)) -> Result<(), StoreError> {
        self.with(|connection| {
            let mut select = connection.prepare(SELECT)?;
            // SQLite's integers have a sign: the numbers of the upper half come as negative ones.
            for (low, high) in [(0, i64::MAX), (i64::MIN, -1)] {
                let mut rows = select.query([low, high])?;
                while let Some(row) = rows.next()? {
                    each(Row {
                        number: row.get::<_, i64>(0)?.cast_unsigned(),
                        function: bytes_of(row.get_ref(1)?),
                        unique: bytes_of(row.get_ref(2)?),
                        reducer: bytes_of(row.get_ref(3)?),
                        priority: priority_of(integer_of(row.get_ref(4)?)),
                        run_at_s: integer_of(row.get_ref(5)?).cast_unsigned(),
                        attempts: integer_of(row.get_ref(6)?).try_into().unwrap_or(u32::MAX),
                        payload: bytes_of(row.get_ref(7)?),
                    });
                }
            }
            Ok(())
        })
    }

    fn commit(&mut self, operations: &[Operation]) -> Result<u64, StoreError> {
        let changed = self.transact(|transaction| apply(transaction, operations))?;
        self.connection.iter().for_each(|connection| self.wal.watch(connection));
        Ok(changed as u64)
    }

    fn check(&mut self) -> Result<(), StoreError> {
        let found = self.with(|connection| generation(connection))?;
        if found == self.generation { Ok(()) } else { Err(self.lost()) }
    }

    fn check_interval(&self) -> Duration {
        CHECK_INTERVAL
    }
}

/// Counts the servers that have had the file. The locks keep a second one away from it wherever the
/// file system keeps locks; where it doesn't, this tells the first one.
fn generation(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached(GENERATION)?.query_row([], |row| row.get(0))
}

/// Gives the number of rows that are changed.
fn apply(transaction: &Transaction<'_>, operations: &[Operation]) -> rusqlite::Result<usize> {
    let mut keep = transaction.prepare_cached(INSERT)?;
    let mut set_attempts = transaction.prepare_cached(SET_ATTEMPTS)?;
    let mut remove = transaction.prepare_cached(REMOVE)?;
    let mut changed = 0;
    for operation in operations {
        changed += match operation {
            Operation::Insert { row, .. } => insert(&mut keep, row)?,
            Operation::SetAttempts { number, attempts } => {
                set_attempts.execute(params![number.cast_signed(), attempts])?
            }
            Operation::Remove { number } => remove.execute([number.cast_signed()])?,
        };
    }
    Ok(changed)
}

/// Opens the file; writes nothing to it.
fn connect(path: &Path, create: OpenFlags) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | create;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT)?;
    // Damaged pages are noticed when they are read. `load` reads all that hold jobs, so nothing
    // else checks the file when it is opened.
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(connection)
}

/// Makes sure that the file is ours, or makes it ours if it is empty or gearmand's.
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
        return upgrade(connection, &[SCHEMA, SCHEMA_2]).map_err(explain);
    }
    if (application, version) == (APPLICATION_ID, 1) {
        log_ahead(path, connection)?;
        return upgrade(connection, &[SCHEMA_2]).map_err(explain);
    }
    check(path, connection)?;
    log_ahead(path, connection)
}

/// Brings a file to this version.
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
    let (prefix, mark) = connection.query_row(RECORD, [], |row| {
        let prefix = match row.get_ref(0)? {
            ValueRef::Null => None,
            value => Some(bytes_of(value).to_vec()),
        };
        Ok((prefix, row.get::<_, Option<i64>>(1)?.map(i64::cast_unsigned)))
    })?;
    let last: Option<i64> = connection.query_row(LAST, [], |row| row.get(0))?;
    Ok(Record { prefix, mark, last: last.map(i64::cast_unsigned) })
}

/// Makes sure that the file is one of ours.
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

/// The numbers of the program and of the schema in the file's head.
fn identity(connection: &Connection) -> rusqlite::Result<(i64, i64)> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get(0));
    Ok((number("application_id")?, number("user_version")?))
}

/// Switches the write-ahead log on. Stays on in the file.
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

/// What to tell the operator.
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
