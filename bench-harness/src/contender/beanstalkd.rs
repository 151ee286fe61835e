//! beanstalkd: in memory, or with a binlog.

use std::process::Command;

use anyhow::Result;

use super::{Persistence, Start, first_line};
use crate::locate;
use crate::options::RunOptions;
use crate::process::Server;

/// The largest that it allows.
const JOB_BYTES_MAX: &str = "1073741824";

pub(super) fn absent(options: &RunOptions) -> Option<String> {
    locate::installed(&options.beanstalkd, "beanstalkd").err()
}

pub(super) fn start(options: &RunOptions, start: &Start<'_>) -> Result<Server> {
    let command = |port: u16| {
        let mut command = Command::new(&options.beanstalkd);
        command.args(["-l", "127.0.0.1", "-p", &port.to_string(), "-z", JOB_BYTES_MAX]);
        if let Some(folder) = start.persistence.folder() {
            command.arg("-b").arg(folder);
        }
        match start.persistence {
            Persistence::Memory => {}
            Persistence::Disk(_) => drop(command.args(["-f", "0"])),
            Persistence::Async(_) => drop(command.arg("-F")),
        }
        command
    };
    Server::start_told(command, start)
}

pub(super) fn version(options: &RunOptions) -> String {
    first_line(&options.beanstalkd, &["-v"])
}
