//! C gearmand: as Debian ships it, and with the options that serve it best here; in memory, or with
//! its queue in SQLite.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, anyhow};
use rusqlite::{Connection, params};

use super::{Start, first_line};
use crate::locate;
use crate::process::Server;

/// One worker woken per job spares the stampede, and a wide hash table keeps the chains of unique
/// keys short. It has as many threads as cores: on a single one, more of them only hand over.
const TUNED: [&str; 2] = ["--worker-wakeup=1", "--hashtable-buckets=1000003"];
pub(super) const TUNED_ABOUT: &str =
    "C gearmand with --worker-wakeup=1 --hashtable-buckets=1000003 and a thread for each core";

pub(super) fn absent(path: &Path) -> Option<String> {
    locate::installed(path, "gearman-job-server").err()
}

/// The queue in a file is a plug-in, which a build may lack.
pub(super) fn absent_on_disk(path: &Path) -> Option<String> {
    let help = Command::new(path).arg("--help").output();
    let help = help.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    let is_there = String::from_utf8_lossy(&help).contains("--libsqlite3-db");
    (!is_there).then(|| "its build has no --queue-type libsqlite3".to_owned())
}

pub(super) fn start(path: &Path, tuned: bool, start: &Start<'_>) -> Result<Server> {
    let path = locate::installed(path, "gearman-job-server").map_err(|error| anyhow!(error))?;
    let command = |port: u16| {
        let mut command = Command::new(&path);
        command.args(["-L", "127.0.0.1", "-p", &port.to_string(), "-l", "stderr", "-P", ""]);
        // With its default of 32, thousands of connections at once wait for their SYN again.
        command.arg("--backlog=1024");
        if let Some(folder) = start.persistence.folder() {
            command.args(["-q", "libsqlite3", "--libsqlite3-db"]).arg(database(folder));
        }
        if tuned {
            command.args(TUNED);
        }
        if tuned || start.threads > 1 {
            command.arg(format!("--threads={}", start.threads));
        }
        command
    };
    Server::start_told(command, start)
}

/// The file of its queue.
fn database(folder: &Path) -> PathBuf {
    folder.join("jobs.db")
}

/// Puts jobs into the file of a server that has made it and has ended: it would need minutes.
pub(crate) fn fill(folder: &Path, function: &str, jobs: u64, payload: &[u8]) -> Result<()> {
    let mut connection = Connection::open(database(folder))?;
    let transaction = connection.transaction()?;
    let insert = "INSERT INTO gearman_queue
        (unique_key, function_name, priority, data, when_to_run) VALUES (?1, ?2, 1, ?3, 0)";
    let mut statement = transaction.prepare(insert)?;
    for number in 0..jobs {
        // As long as those of the load generator.
        let unique = format!("00000000-0000-4000-8000-{number:016x}");
        statement.execute(params![unique, function, payload])?;
    }
    drop(statement);
    transaction.commit()?;
    Ok(())
}

pub(super) fn version(path: &Path) -> String {
    first_line(path, &["--version"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_names_the_options() {
        for option in TUNED {
            assert!(TUNED_ABOUT.contains(option), "{option}");
        }
    }
}
