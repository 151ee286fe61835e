//! The floor: this very binary as a relay.

use std::process::Command;

use anyhow::Result;

use super::{Start, no_uring};
use crate::options::EventLoop;
use crate::process::Server;

pub(super) fn absent(io: EventLoop) -> Option<String> {
    no_uring(io)
}

pub(super) fn start(io: EventLoop, start: &Start<'_>) -> Result<Server> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["relay", "--io", io.name(), "--port", "0"]);
    Server::start_announced(&mut command, start)
}
