//! Other people's programs: a command in, its output out; they end with a deadline, or with
//! their value.
//!
//! Only a child that hasn't been reaped is ever signalled.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

pub(crate) use crate::child::has;
use crate::child::{tool, wait_until};
use crate::skips::skip;

/// How long a program may be silent. Perl's client floods for half a minute on a busy machine.
const TOOL_PATIENCE: Duration = Duration::from_secs(120);

/// Tests of programs that weren't installed passed, and the runner kept what they said.
#[test]
fn what_is_left_out_is_told_at_the_end() {
    const CHILD: &str = "RINGGEAR_LEAVES_OUT";
    if std::env::var_os(CHILD).is_some() {
        return skip("no such thing");
    }
    let run = |ci: &str| {
        let mut command = Command::new(std::env::current_exe().expect("a path"));
        command.args(["--exact", "tools::what_is_left_out_is_told_at_the_end"]);
        command.env(CHILD, "").env("CI", ci).output().expect("this program")
    };
    let output = run("false");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{output:?}");
    assert!(told.starts_with("skipped tests:") && told.ends_with(" 1 no such thing\n"), "{told}");
    assert!(!run("true").status.success(), "continuous integration lacks nothing");
}

/// A script of `tests/server/interop/scripts`.
pub(crate) fn script(name: &str) -> String {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/server/interop/scripts").join(name);
    path.to_str().expect("the checkout's path is text").to_owned()
}

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a program to its end.
pub(crate) fn run(program: &str, arguments: &[&str], stdin: &[u8]) -> Finished {
    Tool::start_with(program, arguments, stdin).finish()
}

/// A program that runs; dropping it kills it.
pub(crate) struct Tool {
    child: Child,
    program: String,
    lines: Receiver<String>,
    seen: String,
    stderr: Option<JoinHandle<String>>,
}

impl Tool {
    /// Starts it with nothing on its standard input.
    pub(crate) fn start(program: &str, arguments: &[&str]) -> Self {
        Self::start_with(program, arguments, b"")
    }

    pub(crate) fn start_with(program: &str, arguments: &[&str], input: &[u8]) -> Self {
        let mut command = Command::new(tool(program).expect("asked for before"));
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the tool starts");
        let (mut stdin, input) = (child.stdin.take().expect("a pipe"), input.to_vec());
        // A program that doesn't read its input is no concern of ours.
        std::thread::spawn(move || stdin.write_all(&input).ok());
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let mut line = Vec::new();
            while matches!(stdout.read_until(b'\n', &mut line), Ok(1..)) {
                sender.send(String::from_utf8_lossy(&line).into_owned()).ok();
                line.clear();
            }
        });
        let mut stderr = child.stderr.take().expect("a pipe");
        let stderr = std::thread::spawn(move || {
            let mut text = Vec::new();
            stderr.read_to_end(&mut text).ok();
            String::from_utf8_lossy(&text).into_owned()
        });
        let program = format!("{program} {}", arguments.join(" "));
        Self { child, program, lines, seen: String::new(), stderr: Some(stderr) }
    }

    /// Waits for a line of its output that contains `text`.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        loop {
            let Ok(line) = self.lines.recv_timeout(TOOL_PATIENCE) else {
                self.kill();
                let stderr = self.stderr.take().map(JoinHandle::join);
                panic!("{} never said {text:?}: {} {stderr:?}", self.program, self.seen);
            };
            self.seen.push_str(&line);
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Its output as far as it has been waited for.
    pub(crate) fn seen(&self) -> &str {
        &self.seen
    }

    /// SIGKILL: it has no chance to say goodbye.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("a child");
        self.child.wait().expect("a child");
    }

    /// Waits for its end, which closes its output.
    pub(crate) fn finish(mut self) -> Finished {
        loop {
            match self.lines.recv_timeout(TOOL_PATIENCE) {
                Ok(line) => self.seen.push_str(&line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    self.kill();
                    let stderr = self.stderr.take().map(JoinHandle::join);
                    panic!("{} didn't end: {} {stderr:?}", self.program, self.seen);
                }
            }
        }
        let status = wait_until("a tool to end", || self.child.try_wait().expect("a child"));
        let stdout = std::mem::take(&mut self.seen);
        let stderr = self.stderr.take().expect("only one end").join().expect("it only reads");
        Finished { status, stdout, stderr }
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        // Both do nothing to a child that has been reaped.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
