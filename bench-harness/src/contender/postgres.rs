//! This project's server with its jobs in a PostgreSQL database that runs elsewhere.
//!
//! The database must be free for this. A folder stands for one set of jobs: a server that gets a
//! new one finds empty tables.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::ringgear;
use crate::options::RunOptions;
use crate::process::Start;
use crate::report::one_line;

const EMPTY: &str = "SET client_min_messages = warning; DROP TABLE IF EXISTS ringgear_job, \
                     ringgear_dead, ringgear_pause, ringgear_owner, ringgear_cluster, \
                     ringgear_partition, ringgear_block; CHECKPOINT";
/// Marks a folder whose jobs the tables hold.
const MARK: &str = "in-postgres";

pub(super) fn absent(options: &RunOptions) -> Option<String> {
    if options.postgres.is_none() {
        return Some("no database was given by --postgres".to_owned());
    }
    psql(options, "SELECT 1").err().map(|error| one_line(&format!("{error:#}")))
}

/// How the server is called; empties the tables for a new folder.
pub(super) fn command(program: &Path, options: &RunOptions, start: &Start<'_>) -> Result<Command> {
    let mut command = ringgear::without_store(program, "uring");
    if let Some(folder) = start.persistence.folder() {
        let mark = folder.join(MARK);
        if !mark.exists() {
            psql(options, EMPTY)?;
            fs::write(mark, "")?;
        }
        command.args(["--store", options.postgres.as_deref().unwrap_or_default()]);
    }
    Ok(command)
}

pub(super) fn version(options: &RunOptions) -> String {
    let server = psql(options, "SHOW server_version")
        .unwrap_or_else(|error| one_line(&format!("{error:#}")));
    format!("PostgreSQL {}", server.trim())
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
