//! This project's server, once per event loop.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, anyhow};

use super::{Persistence, Start, first_line, no_uring};
use crate::locate;
use crate::options::{EventLoop, RunOptions};
use crate::process::Server;

pub(super) const POLLING: [&str; 2] = ["--busy-poll", "200"];
pub(super) const POLLING_ABOUT: &str =
    "ringgeard --io uring --busy-poll 200, which is always busy; in `latency` only";

pub(super) fn absent(options: &RunOptions, io: EventLoop) -> Option<String> {
    locate::find("ringgeard", options.places.ringgeard.as_deref()).err().or_else(|| no_uring(io))
}

pub(super) fn start(
    options: &RunOptions,
    io: &str,
    more: &[&str],
    start: &Start<'_>,
) -> Result<Server> {
    let mut command = command(options.places.ringgeard.as_deref(), io)?;
    command.args(more);
    if start.threads > 1 {
        command.args(["--threads", &start.threads.to_string()]);
    }
    store_in(&mut command, start.persistence);
    Server::start_announced(&mut command, start)
}

/// Says where jobs are kept.
pub(crate) fn store_in(command: &mut Command, persistence: Persistence<'_>) {
    if let Some(folder) = persistence.folder() {
        command.arg("--store").arg(format!("sqlite:{}", folder.join("jobs.db").display()));
    }
}

/// How it is called, without a store.
pub(crate) fn command(given: Option<&Path>, io: &str) -> Result<Command> {
    let path = locate::find("ringgeard", given).map_err(|error| anyhow!(error))?;
    let mut command = Command::new(path);
    command.args(["--io", io, "--port", "0", "--listen", "127.0.0.1"]);
    Ok(command)
}

pub(super) fn version(options: &RunOptions) -> String {
    version_of(options.places.ringgeard.as_deref())
}

/// Of the server that stands there, or beside this binary.
pub(crate) fn version_of(given: Option<&Path>) -> String {
    match locate::find("ringgeard", given) {
        Ok(path) => first_line(&path, &["--version"]),
        Err(error) => error,
    }
}
