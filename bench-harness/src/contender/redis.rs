//! Redis, in memory.

use std::process::Command;

use anyhow::Result;

use super::first_line;
use crate::beside;
use crate::options::RunOptions;
use crate::process::{Cores, Server};

pub(super) fn absent(options: &RunOptions) -> Option<String> {
    beside::installed(&options.redis, "redis-server").err()
}

pub(super) fn start(options: &RunOptions, cores: &Cores) -> Result<Server> {
    let command = |port: u16| {
        let mut command = Command::new(&options.redis);
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
        command.args(["--save", "", "--appendonly", "no"]);
        command
    };
    Server::start_told(command, cores)
}

pub(super) fn version(options: &RunOptions) -> String {
    first_line(&options.redis, &["--version"])
}
