//! This project's server, once per event loop.

use std::process::Command;

use anyhow::{Result, anyhow};

use super::{first_line, no_uring};
use crate::beside;
use crate::options::{EventLoop, RunOptions};
use crate::process::{Cores, Server};

pub(super) fn absent(options: &RunOptions, io: EventLoop) -> Option<String> {
    beside::find("ringgeard", options.ringgeard.as_deref()).err().or_else(|| no_uring(io))
}

pub(super) fn start(options: &RunOptions, io: &str, cores: &Cores) -> Result<Server> {
    let path =
        beside::find("ringgeard", options.ringgeard.as_deref()).map_err(|error| anyhow!(error))?;
    let mut command = Command::new(path);
    command.args(["--io", io, "--port", "0", "--listen", "127.0.0.1"]);
    Server::start_announced(&mut command, cores)
}

pub(super) fn version(options: &RunOptions) -> String {
    match beside::find("ringgeard", options.ringgeard.as_deref()) {
        Ok(path) => first_line(&path, &["--version"]),
        Err(error) => error,
    }
}
