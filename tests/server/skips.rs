//! What tests leave out on this machine: a reason in, a summary on the real standard error out.
//!
//! The test runner shows no output of tests that pass, so a line printed by the test itself is
//! never seen. A shell at the other end of a pipe counts the lines, and tells when this process has
//! ended. Under `CI=true` leaving something out fails.

use std::io::Write as _;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Mutex;

/// Tells how many tests gave each reason. Its output isn't the test's, which the runner keeps.
const SUMMARY: &str = "sort -u | cut -f2- | sort | uniq -c | sed 's/^/skipped tests:/' >&2";

/// To the shell, once something was left out.
static LINES: Mutex<Option<ChildStdin>> = Mutex::new(None);

/// Says why a test does nothing here, or less. Under `CI=true` that fails.
pub(crate) fn skip(reason: &str) {
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "CI lacks something: {reason}");
    note(reason);
}

/// Says why a test does nothing here, or less, where that is right for CI, too.
pub(crate) fn note(reason: &str) {
    let mut lines = LINES.lock().expect("no panic");
    let pipe = lines.get_or_insert_with(start);
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    writeln!(pipe, "{test}\t{reason}").expect("the shell reads");
}

fn start() -> ChildStdin {
    let mut command = Command::new("sh");
    command.args(["-c", SUMMARY]).stdin(Stdio::piped()).stdout(Stdio::null());
    command.spawn().expect("a shell").stdin.take().expect("a pipe")
}
