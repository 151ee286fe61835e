//! The Perl server: `Gearman::Server` behind the script that Debian's gearman-server installs.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{Start, first_line};
use crate::locate;
use crate::options::RunOptions;
use crate::process::Server;

pub(super) fn absent(options: &RunOptions) -> Option<String> {
    let path = match locate::installed(&options.gearman_server, "gearman-server") {
        Ok(path) => path,
        Err(error) => return Some(error),
    };
    // The C server has the same name, and on some systems the same place.
    let text = std::fs::read(&path).unwrap_or_default();
    let first = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let is_perl = first.starts_with(b"#!") && String::from_utf8_lossy(first).contains("perl");
    (!is_perl).then(|| format!("{} isn't the Perl server", path.display()))
}

pub(super) fn start(options: &RunOptions, start: &Start<'_>) -> Result<Server> {
    let command = |port: u16| {
        let mut command = Command::new(&options.gearman_server);
        command.args(["--listen", "127.0.0.1", "--port", &port.to_string()]);
        command
    };
    Server::start_told(command, start)
}

pub(super) fn version() -> String {
    let program = "use Gearman::Server; print 'Gearman::Server ', Gearman::Server->VERSION";
    first_line(Path::new("perl"), &["-e", program])
}
