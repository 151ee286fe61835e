//! Other people's programs: finds them, runs them with a deadline, ends them by their process id.
//!
//! A program that isn't installed is a reason to skip a test, except under `CI=true`.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::contender::{signal_child, watch};

/// How long a program may take in all.
pub(crate) const TOOL_PATIENCE: Duration = Duration::from_secs(60);

/// Where a program is; looks also where services live.
pub(crate) fn path_of(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(program)).find(|candidate| candidate.is_file())
}

/// Which of the programs isn't installed.
pub(crate) fn missing(programs: &[&str]) -> Option<String> {
    let program = programs.iter().find(|program| path_of(program).is_none())?;
    Some(format!("{program} isn't installed"))
}

/// Whether a short program in a script language runs: its extension is there.
pub(crate) fn has(program: &str, arguments: &[&str]) -> bool {
    let Some(path) = path_of(program) else {
        return skip(&format!("{program} isn't installed"));
    };
    let mut command = Command::new(path);
    let status = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
        || skip(&format!("{program} lacks an extension: {arguments:?}"))
}

/// Says why a test doesn't run; `false`, so that it can stand for "is there".
pub(crate) fn skip(reason: &str) -> bool {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "not here: {reason}");
    eprintln!("skipped: {reason}");
    false
}

/// A script of `tests/interop`.
pub(crate) fn script(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(name);
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
    let mut tool = Tool::start_with_stdin(program, arguments, stdin.to_vec());
    tool.finish()
}

/// A program that runs; dropping it kills it.
pub(crate) struct Tool {
    child: Child,
    program: String,
    pid: u32,
    exited: Receiver<()>,
    lines: Receiver<String>,
    seen: String,
    stderr: Option<std::thread::JoinHandle<String>>,
}

impl Tool {
    pub(crate) fn start(program: &str, arguments: &[&str]) -> Self {
        Self::start_with_stdin(program, arguments, Vec::new())
    }

    fn start_with_stdin(program: &str, arguments: &[&str], input: Vec<u8>) -> Self {
        let mut command = Command::new(path_of(program).expect("asked for before"));
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().expect("it starts");
        let pid = child.id();
        let mut stdin = child.stdin.take().expect("asked for");
        // A program that doesn't read its input is no concern of ours.
        std::thread::spawn(move || stdin.write_all(&input).ok());
        let mut stdout = BufReader::new(child.stdout.take().expect("asked for"));
        let (line_sender, lines) = channel();
        std::thread::spawn(move || {
            let mut line = Vec::new();
            while stdout.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
                line_sender.send(String::from_utf8_lossy(&line).into_owned()).ok();
                line.clear();
            }
        });
        let mut stderr = child.stderr.take().expect("asked for");
        let stderr = std::thread::spawn(move || {
            let mut text = Vec::new();
            stderr.read_to_end(&mut text).ok();
            String::from_utf8_lossy(&text).into_owned()
        });
        let exited = watch(pid);
        let (program, seen) = (format!("{program} {}", arguments.join(" ")), String::new());
        Self { child, program, pid, exited, lines, seen, stderr: Some(stderr) }
    }

    /// Reads its output up to a line that contains `text`; that line.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        loop {
            let Ok(line) = self.lines.recv_timeout(TOOL_PATIENCE) else {
                self.kill();
                let stderr = self.stderr.take().map(|thread| thread.join());
                panic!("{} never said {text:?}: {} {stderr:?}", self.program, self.seen);
            };
            self.seen.push_str(&line);
            if line.contains(text) {
                return line;
            }
        }
    }

    /// SIGKILL: it has no chance to say goodbye.
    pub(crate) fn kill(&mut self) {
        signal_child(self.pid, Signal::SIGKILL);
        self.exited.recv_timeout(TOOL_PATIENCE).expect("SIGKILL can't be ignored");
    }

    /// Waits for its end.
    pub(crate) fn finish(&mut self) -> Finished {
        let in_time = self.exited.recv_timeout(TOOL_PATIENCE).is_ok();
        if !in_time {
            self.kill();
        }
        let status = self.child.wait().expect("it has exited");
        self.seen.extend(self.lines.iter());
        let stdout = std::mem::take(&mut self.seen);
        let stderr = self.stderr.take().expect("only one end").join().expect("it only reads");
        assert!(in_time, "{} took too long: {stdout}{stderr}", self.program);
        Finished { status, stdout, stderr }
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        // `finish` reaps, and takes the thread that reads its errors.
        if self.stderr.is_some() {
            signal_child(self.pid, Signal::SIGKILL);
        }
        self.child.wait().ok();
    }
}
