//! beanstalkd, in memory.

use std::process::Command;

use anyhow::Result;

use super::first_line;
use crate::beside;
use crate::options::RunOptions;
use crate::process::{Cores, Server};

/// The largest that it allows.
const JOB_BYTES_MAX: &str = "1073741824";

pub(super) fn absent(options: &RunOptions) -> Option<String> {
    beside::installed(&options.beanstalkd, "beanstalkd").err()
}

pub(super) fn start(options: &RunOptions, cores: &Cores) -> Result<Server> {
    let command = |port: u16| {
        let mut command = Command::new(&options.beanstalkd);
        command.args(["-l", "127.0.0.1", "-p", &port.to_string(), "-z", JOB_BYTES_MAX]);
        command
    };
    Server::start_told(command, cores)
}

pub(super) fn version(options: &RunOptions) -> String {
    first_line(&options.beanstalkd, &["-v"])
}
