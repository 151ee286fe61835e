//! Watches the size of a write-ahead log, and warns if another program prevents its reset.
//!
//! SQLite restarts the log once all of it is in the database and no transaction reads from it. A
//! read transaction that is left open in a shell makes the log grow without limit. Knows the log's
//! file, not its contents.
//!
//! Invariant: between two warnings the log has doubled, or was within its limit.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tracing::{info, warn};

/// A change that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// A reader prevents the reset of the log, which has this size in bytes.
    Blocked(u64),
    /// The log is within its limit again.
    Reset,
}

/// Watches a write-ahead log.
#[derive(Debug)]
pub(super) struct Wal {
    path: PathBuf,
    /// Size in bytes from which warnings are logged.
    bytes_max: u64,
    /// Size in bytes at the last warning; 0 = none since the log was within its limit.
    warned_bytes: u64,
}

impl Wal {
    /// The log of the database at `path`, which may have `bytes_max` bytes.
    pub(super) fn new(path: &Path, bytes_max: u64) -> Self {
        let mut path = path.as_os_str().to_owned();
        path.push("-wal");
        Self { path: path.into(), bytes_max, warned_bytes: 0 }
    }

    /// Logs a change of the log's state. To be called after a commit.
    pub(super) fn watch(&mut self, connection: &Connection) {
        let change = self.change(connection);
        let file = self.path.display();
        match change {
            Some(Change::Blocked(bytes)) => warn!(
                mebibytes = bytes >> 20,
                "{file} grows: another program has a read transaction on the database that doesn't \
                 end; find the program with fuser or lsof and end its transaction, or the disk \
                 fills up"
            ),
            Some(Change::Reset) => info!("{file} is short again"),
            None => {}
        }
    }

    fn change(&mut self, connection: &Connection) -> Option<Change> {
        let bytes = fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
        if bytes <= self.bytes_max {
            return (std::mem::take(&mut self.warned_bytes) > 0).then_some(Change::Reset);
        }
        if bytes < self.warned_bytes.saturating_mul(2) || !is_blocked(connection) {
            return None;
        }
        self.warned_bytes = bytes;
        Some(Change::Blocked(bytes))
    }
}

/// Whether a part of the log can't be moved to the database because a reader needs the state before
/// it. After a large commit the log is long, too, but the next commit resets it.
fn is_blocked(connection: &Connection) -> bool {
    let frames = connection.query_row("PRAGMA wal_checkpoint(passive)", [], |row| {
        Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
    });
    frames.is_ok_and(|(logged, moved)| moved < logged)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: u64 = 100_000;

    fn open(path: &Path) -> Connection {
        let connection = Connection::open(path).unwrap();
        connection
            .execute_batch(
                "PRAGMA journal_mode = wal; PRAGMA journal_size_limit = 0;
                 CREATE TABLE IF NOT EXISTS job (payload)",
            )
            .unwrap();
        connection
    }

    #[test]
    fn a_log_that_a_reader_keeps_is_news_at_each_doubling() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jobs.db");
        let connection = open(&path);
        let mut wal = Wal::new(&path, BOUND);
        let mut commit = |bytes: u64| {
            let insert = "INSERT INTO job VALUES (zeroblob(?1))";
            connection.execute(insert, [bytes.cast_signed()]).unwrap();
            wal.change(&connection)
        };
        // Large for a moment only.
        assert_eq!(commit(3 * BOUND), None);
        assert_eq!(commit(1), None);

        let reader = open(&path);
        reader.execute_batch("BEGIN; SELECT count(*) FROM job").unwrap();
        let told: Vec<u64> = (0..20)
            .filter_map(|_| match commit(BOUND / 2) {
                Some(Change::Blocked(bytes)) => Some(bytes),
                other => {
                    assert_eq!(other, None);
                    None
                }
            })
            .collect();
        assert!(told.len() >= 3 && told[0] < 2 * BOUND, "{told:?}");
        let ratios = told.windows(2).map(|pair| pair[1] as f64 / pair[0] as f64);
        assert!(ratios.clone().all(|ratio| (2.0..3.0).contains(&ratio)), "{told:?}");
        reader.execute_batch("COMMIT").unwrap();
        connection.query_row("PRAGMA wal_checkpoint(truncate)", [], |_| Ok(())).unwrap();
        assert_eq!(commit(1), Some(Change::Reset));
        assert_eq!(commit(1), None);
    }
}
