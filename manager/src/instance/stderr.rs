//! Standard error of a command in; lines of the log or WORK_WARNINGs out, and its end for an
//! exception.
//!
//! Knows no pipe: what was read from it is its input.
//!
//! Invariant: keeps a bounded part of what a command writes, and logs a bounded part of a job's.

use std::mem;

use bytes::{Bytes, BytesMut};
use memchr::memrchr;
use tracing::info;

use super::line_buffer::{Line, LineBuffer};
use super::subject::Subject;
use crate::config;
use crate::gearman::Report;

/// Most lines that are logged of a job.
const LINES_PER_JOB: u64 = 100;
/// Most bytes that are logged of a line.
const LINE_BYTES: usize = 1000;
/// Bytes that are kept for an exception.
const TAIL_BYTES: usize = 4096;
/// A line that gets longer than this is sent as several warnings, in bytes.
const WARNING_BYTES: usize = 64 * 1024;

/// Standard error of one command, as far as it was read.
#[derive(Debug)]
pub(super) struct Stderr {
    output: Output,
    tail: Vec<u8>,
}

#[derive(Debug)]
enum Output {
    Log {
        lines: LineBuffer,
        count: u64,
    },
    /// What hasn't been sent: a line that isn't whole.
    Warning(BytesMut),
}

impl Stderr {
    /// Nothing was read yet.
    pub(super) fn new(kind: config::Stderr) -> Self {
        let output = match kind {
            config::Stderr::Log => Output::Log { lines: LineBuffer::new(LINE_BYTES), count: 0 },
            config::Stderr::Warning => Output::Warning(BytesMut::new()),
        };
        Self { output, tail: Vec::new() }
    }

    /// Takes what was read: logs it, or returns the warning to send.
    pub(super) fn take(&mut self, bytes: &[u8], subject: Subject<'_>) -> Option<Report> {
        self.keep_tail(bytes);
        match &mut self.output {
            Output::Log { lines, count } => {
                lines.push(bytes, |line| log(line, count, subject));
                None
            }
            Output::Warning(unsent) => {
                unsent.extend_from_slice(bytes);
                let whole = match memrchr(b'\n', unsent) {
                    Some(last) => last + 1,
                    None if unsent.len() > WARNING_BYTES => unsent.len(),
                    None => return None,
                };
                Some(Report::Warning(unsent.split_to(whole).freeze()))
            }
        }
    }

    /// A job has ended, or the command has: logs what is left, or returns the last warning to send.
    /// What was left out of the log is counted anew for the next job.
    pub(super) fn finish(&mut self, subject: Subject<'_>) -> Option<Report> {
        match &mut self.output {
            Output::Log { lines, count } => {
                lines.finish(|line| log(line, count, subject));
                let left_out = mem::take(count).saturating_sub(LINES_PER_JOB);
                if left_out > 0 {
                    let Subject { worker, instance, handle } = subject;
                    info!(worker, instance, handle, "stderr: {left_out} more lines, left out here");
                }
                None
            }
            Output::Warning(unsent) if unsent.is_empty() => None,
            Output::Warning(unsent) => Some(Report::Warning(unsent.split().freeze())),
        }
    }

    /// The last 4 KiB, which are forgotten by this.
    pub(super) fn take_tail(&mut self) -> Bytes {
        let start = self.tail.len().saturating_sub(TAIL_BYTES);
        let tail = Bytes::copy_from_slice(self.tail.get(start..).unwrap_or_default());
        self.tail.clear();
        tail
    }

    fn keep_tail(&mut self, bytes: &[u8]) {
        let start = bytes.len().saturating_sub(TAIL_BYTES);
        self.tail.extend_from_slice(bytes.get(start..).unwrap_or_default());
        // Moves the end to the front only now and then.
        if self.tail.len() > 4 * TAIL_BYTES {
            self.tail.drain(..self.tail.len() - TAIL_BYTES);
        }
    }
}

/// Logs a line, if there is room for it among the job's.
fn log(line: Line<'_>, count: &mut u64, subject: Subject<'_>) {
    *count += 1;
    if *count <= LINES_PER_JOB {
        let text = String::from_utf8_lossy(line.text);
        let more = if line.is_cut { "…" } else { "" };
        let Subject { worker, instance, handle } = subject;
        info!(worker, instance, handle, "stderr: {text}{more}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::log_lines::logged;

    const SUBJECT: Subject<'static> = Subject { worker: "w", instance: 1, handle: "H:1" };

    fn warning(text: &'static str) -> Option<Report> {
        Some(Report::Warning(Bytes::from_static(text.as_bytes())))
    }

    #[test]
    fn lines_are_logged_up_to_a_limit_for_each_job() {
        let lines = logged(|| {
            let mut stderr = Stderr::new(config::Stderr::Log);
            stderr.take(b"one\ntw", SUBJECT);
            stderr.take(b"o\nlast", SUBJECT);
            assert_eq!(stderr.finish(SUBJECT), None);
            for at in 0..150 {
                stderr.take(format!("line {at}\n").as_bytes(), SUBJECT);
            }
            stderr.finish(SUBJECT);
            stderr.take(&vec![b'x'; 5000], SUBJECT);
            stderr.finish(SUBJECT);
        });
        assert_eq!(lines.len(), 3 + 100 + 1 + 1, "{lines:?}");
        for (line, text) in lines.iter().zip(["stderr: one", "stderr: two", "stderr: last"]) {
            assert!(line.contains(text), "{line}");
            assert!(line.contains("worker=\"w\" instance=1 handle=\"H:1\""), "{line}");
        }
        assert!(lines[102].contains("stderr: line 99 "), "{}", lines[102]);
        assert!(lines[103].contains("stderr: 50 more lines"), "{}", lines[103]);
        assert!(lines[104].contains(&format!(" {}… ", "x".repeat(1000))), "{}", lines[104]);
    }

    #[test]
    fn warnings_are_sent_by_whole_lines() {
        let mut stderr = Stderr::new(config::Stderr::Warning);
        assert_eq!(stderr.take(b"a", SUBJECT), None);
        assert_eq!(stderr.take(b"b\nc\nd", SUBJECT), warning("ab\nc\n"));
        assert_eq!(stderr.finish(SUBJECT), warning("d"));
        assert_eq!(stderr.finish(SUBJECT), None);
        let long = vec![b'x'; WARNING_BYTES + 1];
        let sent = stderr.take(&long, SUBJECT);
        assert_eq!(sent, Some(Report::Warning(Bytes::from(long))), "kept without a bound");
    }

    #[test]
    fn the_end_is_kept_for_an_exception() {
        let mut stderr = Stderr::new(config::Stderr::Log);
        let all: Vec<u8> = (0..100_000_u32).map(|at| (at % 251) as u8 | 0x80).collect();
        for chunk in all.chunks(777) {
            stderr.take(chunk, SUBJECT);
            assert!(stderr.tail.len() <= 5 * TAIL_BYTES);
        }
        assert_eq!(stderr.take_tail(), all[all.len() - TAIL_BYTES..]);
        stderr.take(b"short", SUBJECT);
        assert_eq!(stderr.take_tail(), "short");
    }
}
