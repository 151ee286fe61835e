//! Counts the system calls of a running server with `perf stat`, where that is allowed.

use std::fs;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use tempfile::NamedTempFile;

const EVENT: &str = "raw_syscalls:sys_enter";

/// Whether perf is here and may count.
pub(crate) fn is_here() -> bool {
    let mut command = Command::new("perf");
    command.args(["stat", "-e", EVENT, "true"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// A count that is going on.
pub(crate) struct Count {
    perf: Child,
    output: NamedTempFile,
}

impl Count {
    /// Counts the calls of all threads of a process from now on.
    pub(crate) fn start(pid: u32) -> Result<Self> {
        let output = NamedTempFile::new()?;
        // perf counts while `cat` runs, and `cat` answers when perf counts.
        let mut perf = Command::new("perf")
            .args(["stat", "-x", ",", "-e", EVENT, "-p", &pid.to_string(), "-o"])
            .arg(output.path())
            .args(["--", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("perf")?;
        if let (Some(stdin), Some(stdout)) = (&mut perf.stdin, &mut perf.stdout) {
            stdin.write_all(b"?")?;
            stdout.read_exact(&mut [0])?;
        }
        Ok(Self { perf, output })
    }

    /// The calls since then.
    pub(crate) fn finish(mut self) -> Result<u64> {
        drop(self.perf.stdin.take());
        self.perf.wait()?;
        parse(&fs::read_to_string(&self.output)?).context("perf counted nothing")
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        drop(self.perf.stdin.take());
        let _ = self.perf.wait();
    }
}

fn parse(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.contains(EVENT))?;
    line.split(',').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_the_first_field_of_its_line() {
        let text = "# started on Mon\n\n1234,,raw_syscalls:sys_enter,55,100.00,,\n";
        assert_eq!(parse(text), Some(1234));
        assert_eq!(parse("<not counted>,,raw_syscalls:sys_enter,0,0.00,,\n"), None);
    }
}
