//! This project's server, once per event loop.

use std::process::Command;

use anyhow::{Result, anyhow};

use super::{Start, first_line, no_uring};
use crate::beside;
use crate::options::{EventLoop, RunOptions};
use crate::process::Server;

pub(super) fn absent(options: &RunOptions, io: EventLoop) -> Option<String> {
    beside::find("ringgeard", options.ringgeard.as_deref()).err().or_else(|| no_uring(io))
}

pub(super) fn start(options: &RunOptions, io: &str, start: &Start<'_>) -> Result<Server> {
    let mut command = command(options, io)?;
    if start.threads > 1 {
        command.args(["--threads", &start.threads.to_string()]);
    }
    if let Some(folder) = start.keep.folder() {
        command.arg("--store").arg(format!("sqlite:{}", folder.join("jobs.db").display()));
    }
    Server::start_announced(&mut command, start)
}

/// How it is called, without a store.
pub(super) fn command(options: &RunOptions, io: &str) -> Result<Command> {
    let path =
        beside::find("ringgeard", options.ringgeard.as_deref()).map_err(|error| anyhow!(error))?;
    let mut command = Command::new(path);
    command.args(["--io", io, "--port", "0", "--listen", "127.0.0.1"]);
    Ok(command)
}

pub(super) fn version(options: &RunOptions) -> String {
    match beside::find("ringgeard", options.ringgeard.as_deref()) {
        Ok(path) => first_line(&path, &["--version"]),
        Err(error) => error,
    }
}
