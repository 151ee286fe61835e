//! This project's server with its jobs in a PostgreSQL database that somebody else runs.
//!
//! The database must be free for this. A folder stands for one set of jobs: a server that gets a
//! new one finds empty tables.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Start, ringgear};
use crate::options::{EventLoop, RunOptions};
use crate::process::Server;

const IO: EventLoop = EventLoop::Uring;
const EMPTY: &str = "SET client_min_messages = warning; DROP TABLE IF EXISTS ringgear_job, \
                     ringgear_owner; CHECKPOINT";
/// Marks a folder whose jobs the tables hold.
const MARK: &str = "in-postgres";

pub(super) fn absent(options: &RunOptions) -> Option<String> {
    if options.postgres.is_none() {
        return Some("no database was given by --postgres".to_owned());
    }
    ringgear::absent(options, IO)
        .or_else(|| psql(options, "SELECT 1").err().map(|it| one_line(&it)))
}

pub(super) fn start(options: &RunOptions, start: &Start<'_>) -> Result<Server> {
    let Some(folder) = start.persistence.folder() else {
        return ringgear::start(options, IO.name(), &[], start);
    };
    let mark = folder.join(MARK);
    if !mark.exists() {
        psql(options, EMPTY)?;
        fs::write(mark, "")?;
    }
    let url = options.postgres.as_deref().unwrap_or_default();
    let mut command = ringgear::command(options.places.ringgeard.as_deref(), IO.name())?;
    command.args(["--store", url]);
    Server::start_announced(&mut command, start)
}

pub(super) fn version(options: &RunOptions) -> String {
    let server = psql(options, "SHOW server_version").unwrap_or_else(|error| one_line(&error));
    format!("{} on PostgreSQL {}", ringgear::version(options), server.trim())
}

/// What the table of jobs takes, bytes.
pub(super) fn disk_bytes(options: &RunOptions) -> Result<u64> {
    Ok(psql(options, "SELECT pg_total_relation_size('ringgear_job')")?.trim().parse()?)
}

fn psql(options: &RunOptions, statement: &str) -> Result<String> {
    let url = options.postgres.as_deref().unwrap_or_default();
    let output = Command::new("psql")
        .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--dbname", url])
        .args(["--command", statement])
        .output()
        .context("psql is missing; Debian's package postgresql-client has it")?;
    if !output.status.success() {
        bail!("psql: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn one_line(error: &anyhow::Error) -> String {
    format!("{error:#}").replace('\n', " ")
}
