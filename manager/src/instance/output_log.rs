//! What a long-lived process writes in, lines of the log out.
//!
//! Knows no pipe and no jobs.
//!
//! Invariant: logs a bounded number of lines a second, however many are written.

use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

use super::line_buffer::{Line, LineBuffer};
use super::subject::Subject;

/// Most bytes that are logged of a line.
const LINE_BYTES: usize = 1000;
/// Most lines that are logged in a period.
const LINES_PER_PERIOD: u64 = 1000;
const PERIOD: Duration = Duration::from_secs(1);

/// The log of one output of a process.
#[derive(Debug)]
pub(super) struct OutputLog {
    /// `stdout` or `stderr`
    name: &'static str,
    lines: LineBuffer,
    period_ends_at: Instant,
    /// In this period.
    count: u64,
}

impl OutputLog {
    /// The log of the output with this name.
    pub(super) fn new(name: &'static str) -> Self {
        let lines = LineBuffer::new(LINE_BYTES);
        Self { name, lines, period_ends_at: Instant::now(), count: 0 }
    }

    /// Logs the lines that are whole with these bytes.
    pub(super) fn take(&mut self, bytes: &[u8], subject: Subject<'_>) {
        let now = Instant::now();
        if now >= self.period_ends_at {
            self.tell_left_out(subject);
            self.period_ends_at = now + PERIOD;
        }
        let Self { name, lines, count, .. } = self;
        lines.push(bytes, |line| log(name, line, count, subject));
    }

    /// Logs what is left.
    pub(super) fn finish(&mut self, subject: Subject<'_>) {
        let Self { name, lines, count, .. } = self;
        lines.finish(|line| log(name, line, count, subject));
        self.tell_left_out(subject);
    }

    fn tell_left_out(&mut self, subject: Subject<'_>) {
        let left_out = std::mem::take(&mut self.count).saturating_sub(LINES_PER_PERIOD);
        if left_out > 0 {
            let (worker, instance, name) = (subject.worker, subject.instance, self.name);
            info!(worker, instance, "{name}: {left_out} more lines, left out here");
        }
    }
}

fn log(name: &str, line: Line<'_>, count: &mut u64, subject: Subject<'_>) {
    *count += 1;
    if *count <= LINES_PER_PERIOD {
        let text = String::from_utf8_lossy(line.text);
        let more = if line.is_cut { "…" } else { "" };
        info!(worker = subject.worker, instance = subject.instance, "{name}: {text}{more}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::log_lines::logged;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_cut_each_second() {
        const SUBJECT: Subject<'static> = Subject { worker: "w", instance: 1, handle: "" };
        let mut log = OutputLog::new("stdout");
        let lines = logged(|| log.take("x\n".repeat(1500).as_bytes(), SUBJECT));
        assert_eq!(lines.len(), 1000);
        tokio::time::advance(PERIOD).await;
        let lines = logged(|| log.take(b"y\nz", SUBJECT));
        assert!(lines[0].contains("stdout: 500 more lines"), "{lines:?}");
        assert!(lines[1].contains("stdout: y"), "{lines:?}");
        assert!(logged(|| log.finish(SUBJECT))[0].contains("stdout: z"));
    }
}
