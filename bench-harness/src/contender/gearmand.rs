//! C gearmand: as Debian ships it, and with the options that serve it best here.

use std::process::Command;

use anyhow::{Result, anyhow};

use super::first_line;
use crate::beside;
use crate::options::RunOptions;
use crate::process::{Cores, Server};

/// One thread has no hand-overs on its one core, one worker woken per job spares the stampede, and a
/// wide hash table keeps the chains of unique keys short.
const TUNED: [&str; 3] = ["--threads=1", "--worker-wakeup=1", "--hashtable-buckets=1000003"];
pub(super) const TUNED_ABOUT: &str =
    "C gearmand with --threads=1 --worker-wakeup=1 --hashtable-buckets=1000003";

pub(super) fn absent(options: &RunOptions) -> Option<String> {
    beside::installed(&options.gearmand, "gearman-job-server").err()
}

pub(super) fn start(options: &RunOptions, tuned: bool, cores: &Cores) -> Result<Server> {
    let path = beside::installed(&options.gearmand, "gearman-job-server")
        .map_err(|error| anyhow!(error))?;
    let command = |port: u16| {
        let mut command = Command::new(&path);
        command.args(["-L", "127.0.0.1", "-p", &port.to_string(), "-l", "stderr", "-P", ""]);
        // With its default of 32, thousands of connections at once wait for their SYN again.
        command.arg("--backlog=1024");
        if tuned {
            command.args(TUNED);
        }
        command
    };
    Server::start_told(command, cores)
}

pub(super) fn version(options: &RunOptions) -> String {
    first_line(&options.gearmand, &["--version"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_names_the_options() {
        for option in TUNED {
            assert!(TUNED_ABOUT.contains(option), "{option}");
        }
    }
}
