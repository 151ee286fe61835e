//! Redis: in memory, or with an append-only file.

use std::process::Command;

use anyhow::Result;

use super::{Persistence, Start, first_line};
use crate::locate;
use crate::options::RunOptions;
use crate::process::Server;

pub(super) fn absent(options: &RunOptions) -> Option<String> {
    locate::installed(&options.redis, "redis-server").err()
}

pub(super) fn start(options: &RunOptions, start: &Start<'_>) -> Result<Server> {
    let command = |port: u16| {
        let mut command = Command::new(&options.redis);
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
        let (append_only, sync) = match start.persistence {
            Persistence::Memory => ("no", "no"),
            Persistence::Disk(_) => ("yes", "always"),
            Persistence::Async(_) => ("yes", "no"),
        };
        command.args(["--save", "", "--appendonly", append_only, "--appendfsync", sync]);
        if let Some(folder) = start.persistence.folder() {
            command.arg("--dir").arg(folder);
        }
        command
    };
    Server::start_told(command, start)
}

pub(super) fn version(options: &RunOptions) -> String {
    first_line(&options.redis, &["--version"])
}
