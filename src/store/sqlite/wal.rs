//! The size of a write-ahead log in, a warning out when another program keeps it from being reset.
//!
//! SQLite begins the log anew when all of it has been moved to the database and no transaction
//! reads from it. A read transaction that is forgotten in a shell makes it grow on and on. Knows
//! the log's file, not what is in it.
//!
//! Invariant: between two warnings the log has doubled, or has been within its bound.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tracing::{info, warn};

/// What there is to say about the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    /// It has so many bytes, and a reader keeps it.
    Kept(u64),
    /// It is as short again as it should be.
    Reset,
}

/// Watches a write-ahead log.
#[derive(Debug)]
pub(super) struct Wal {
    path: PathBuf,
    /// Bytes that it may have.
    bound: u64,
    /// Bytes of the last warning; 0 = none since it was short.
    told_at: u64,
}

impl Wal {
    /// The log of the database at `path`, which may have so many bytes.
    pub(super) fn new(path: &Path, bound: u64) -> Self {
        let mut path = path.as_os_str().to_owned();
        path.push("-wal");
        Self { path: path.into(), bound, told_at: 0 }
    }

    /// Says in the log of the server how it is. Comes after a commit.
    pub(super) fn watch(&mut self, connection: &Connection) {
        let news = self.news(connection);
        let file = self.path.display();
        match news {
            Some(News::Kept(bytes)) => warn!(
                mebibytes = bytes >> 20,
                "{file} grows: another program has a read transaction on the database that doesn't \
                 end; find the program with fuser or lsof and end its transaction, or the disk \
                 fills up"
            ),
            Some(News::Reset) => info!("{file} is short again"),
            None => {}
        }
    }

    fn news(&mut self, connection: &Connection) -> Option<News> {
        let bytes = fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
        if bytes <= self.bound {
            return (std::mem::take(&mut self.told_at) > 0).then_some(News::Reset);
        }
        if bytes < self.told_at.saturating_mul(2) || !is_kept(connection) {
            return None;
        }
        self.told_at = bytes;
        Some(News::Kept(bytes))
    }
}

/// Whether there is something in the log that can't be moved to the database, because a reader
/// needs what is there. A large commit leaves a long log, too, but one that the next one resets.
fn is_kept(connection: &Connection) -> bool {
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
            wal.news(&connection)
        };
        // Large for a moment only.
        assert_eq!(commit(3 * BOUND), None);
        assert_eq!(commit(1), None);

        let reader = open(&path);
        reader.execute_batch("BEGIN; SELECT count(*) FROM job").unwrap();
        let told: Vec<u64> = (0..20)
            .filter_map(|_| match commit(BOUND / 2) {
                Some(News::Kept(bytes)) => Some(bytes),
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
        assert_eq!(commit(1), Some(News::Reset));
        assert_eq!(commit(1), None);
    }
}
