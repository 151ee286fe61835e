//! This project's server, once per event loop.

use std::path::Path;
use std::process::Command;

use crate::process::Start;
use crate::retries;

/// How it is called, with a store in SQLite if it is to keep jobs on disk.
pub(crate) fn command(program: &Path, io: &str, start: &Start<'_>) -> Command {
    let mut command = without_store(program, io);
    command.args(["--threads", &start.threads.to_string()]);
    if let Some(certificates) = start.certificates {
        certificates.tell(&mut command);
    }
    if start.has_http {
        command.args(["--http", "127.0.0.1:0"]);
    }
    if let Some(file) = start.functions_file {
        retries::options(&mut command, file);
    }
    if let Some(folder) = start.persistence.folder() {
        command.arg("--store").arg(format!("sqlite:{}", folder.join("jobs.db").display()));
    }
    command
}

pub(super) fn without_store(program: &Path, io: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["--io", io, "--port", "0", "--listen", "127.0.0.1"]);
    command
}
