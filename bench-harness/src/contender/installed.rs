//! Servers of other projects, as Debian ships them or as an option says: C gearmand, the Perl
//! server, beanstalkd, Redis; in memory or with files.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use rusqlite::{Connection, params};

use super::Kind;
use crate::locate::output;
use crate::process::{Persistence, Start};

/// One worker woken per job spares the stampede, and a wide hash table keeps the chains of unique
/// keys short. It has as many threads as cores: on a single one, more of them only hand over.
pub(super) const TUNED: [&str; 2] = ["--worker-wakeup=1", "--hashtable-buckets=1000003"];
/// The largest job that beanstalkd can be told to take.
const BEANSTALKD_BYTES_MAX: &str = "1073741824";

/// How a server is called that has to be told its port.
pub(super) fn command(kind: Kind, program: &Path, port: u16, start: &Start<'_>) -> Command {
    let mut command = Command::new(program);
    let (port, folder) = (port.to_string(), start.persistence.folder());
    match kind {
        Kind::Gearmand { tuned, .. } => {
            command.args(["-L", "127.0.0.1", "-p", &port, "-l", "stderr", "-P", ""]);
            // With its default of 32, thousands of connections at once wait for their SYN again.
            command.arg("--backlog=1024");
            if let Some(folder) = folder {
                command.args(["-q", "libsqlite3", "--libsqlite3-db"]).arg(database(folder));
            }
            if tuned {
                command.args(TUNED);
            }
            if let Some(certificates) = start.certificates {
                command.arg("--ssl-ca-file").arg(certificates.ca());
                certificates.tell(&mut command);
            }
            if tuned || start.threads > 1 {
                command.arg(format!("--threads={}", start.threads));
            }
        }
        Kind::Beanstalkd => {
            command.args(["-l", "127.0.0.1", "-p", &port, "-z", BEANSTALKD_BYTES_MAX]);
            if let Some(folder) = folder {
                command.arg("-b").arg(folder);
            }
            match start.persistence {
                Persistence::Memory => {}
                Persistence::Disk(_) => drop(command.args(["-f", "0"])),
                Persistence::Async(_) => drop(command.arg("-F")),
            }
        }
        Kind::Redis => {
            let (append_only, sync) = match start.persistence {
                Persistence::Memory => ("no", "no"),
                Persistence::Disk(_) => ("yes", "always"),
                Persistence::Async(_) => ("yes", "no"),
            };
            command.args(["--bind", "127.0.0.1", "--port", &port, "--save", ""]);
            command.args(["--appendonly", append_only, "--appendfsync", sync]);
            if let Some(folder) = folder {
                command.arg("--dir").arg(folder);
            }
        }
        Kind::Perl | Kind::Ringgear(..) | Kind::Postgres | Kind::Relay(_) => {
            command.args(["--listen", "127.0.0.1", "--port", &port]);
        }
    }
    command
}

/// Why a gearmand can't keep its queue in a file: that is a plug-in, which a build may lack.
pub(super) fn no_queue_in_sqlite(program: &Path) -> Option<String> {
    let is_there = output(program, &["--help"]).contains("--libsqlite3-db");
    (!is_there).then(|| "its build has no --queue-type libsqlite3".to_owned())
}

/// The file of a gearmand's queue.
fn database(folder: &Path) -> PathBuf {
    folder.join("jobs.db")
}

/// Puts jobs into the file of a gearmand that has made it and has ended: it would need minutes.
pub(crate) fn fill_gearmand(
    folder: &Path,
    function: &str,
    jobs: u64,
    payload: &[u8],
) -> Result<()> {
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
    Ok(transaction.commit()?)
}

/// Why a program isn't the Perl server: the C server has the same name, and on some systems the
/// same place.
pub(super) fn not_perl(program: &Path) -> Option<String> {
    let text = std::fs::read(program).unwrap_or_default();
    let first = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let is_perl = first.starts_with(b"#!") && String::from_utf8_lossy(first).contains("perl");
    (!is_perl).then(|| format!("{} isn't the Perl server", program.display()))
}
