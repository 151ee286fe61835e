//! Descriptor 3 of a command in, WORK_STATUS out: lines `status N D`.
//!
//! Knows no pipe: what was read from it is its input.
//!
//! Invariant: keeps no more than the longest line that can be right.

use tracing::warn;

use super::line_buffer::{Line, LineBuffer};
use super::subject::Subject;
use crate::gearman::Report;

/// Two numbers of 20 digits, and room to spare.
const LINE_BYTES: usize = 80;

/// Descriptor 3 of one job, as far as it was read.
#[derive(Debug)]
pub(super) struct StatusLines {
    lines: LineBuffer,
    has_warned: bool,
}

impl StatusLines {
    /// Nothing was read yet.
    pub(super) fn new() -> Self {
        Self { lines: LineBuffer::new(LINE_BYTES), has_warned: false }
    }

    /// Takes what was read; returns the reports to send. Warns of the first line that is wrong.
    pub(super) fn take(&mut self, bytes: &[u8], subject: Subject<'_>) -> Vec<Report> {
        let mut reports = Vec::new();
        let Self { lines, has_warned } = self;
        lines.push(bytes, |line| match parse(line) {
            Some(report) => reports.push(report),
            None if *has_warned => {}
            None => {
                *has_warned = true;
                let Subject { worker, instance, handle } = subject;
                let text = String::from_utf8_lossy(line.text);
                warn!(
                    worker,
                    instance,
                    handle,
                    "the command wrote {text:?} to descriptor 3, where only lines such as \
                     `status 1 10` are understood; it and others like it are ignored"
                );
            }
        });
        reports
    }
}

fn parse(line: Line<'_>) -> Option<Report> {
    if line.is_cut {
        return None;
    }
    let mut words = std::str::from_utf8(line.text).ok()?.split_ascii_whitespace();
    let (word, done, of) = (words.next()?, words.next()?, words.next()?);
    if word != "status" || words.next().is_some() {
        return None;
    }
    // `parse` takes a sign, which no status has.
    let number = |text: &str| text.starts_with(|c: char| c.is_ascii_digit()).then(|| text.parse());
    Some(Report::Status(number(done)?.ok()?, number(of)?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::log_lines::logged;

    const SUBJECT: Subject<'static> = Subject { worker: "w", instance: 1, handle: "H:1" };

    #[test]
    fn each_line_is_a_report() {
        let mut lines = StatusLines::new();
        assert_eq!(lines.take(b"status 1 10\nstat", SUBJECT), [Report::Status(1, 10)]);
        let most = format!("us  2 {}\n", u64::MAX);
        assert_eq!(lines.take(most.as_bytes(), SUBJECT), [Report::Status(2, u64::MAX)]);
    }

    #[test]
    fn a_job_warns_once_of_lines_that_are_wrong() {
        let wrong = [
            "progress 1 10",
            "status 1",
            "status 1 2 3",
            "status -1 2",
            "status +1 2",
            "status 1 18446744073709551616",
            "",
            "status 1 \u{662}",
        ];
        for line in wrong {
            let logged = logged(|| {
                let mut lines = StatusLines::new();
                let text = format!("{line}\n{line}\nstatus 3 4\n");
                let reports = lines.take(text.as_bytes(), SUBJECT);
                assert_eq!(reports, [Report::Status(3, 4)], "{line:?}");
            });
            assert_eq!(logged.len(), 1, "{logged:?}");
        }
    }

    #[test]
    fn an_endless_line_is_dropped() {
        let mut lines = StatusLines::new();
        for _ in 0..1000 {
            assert_eq!(lines.take(&[b'0'; 4096], SUBJECT), []);
        }
        assert_eq!(lines.take(b"\nstatus 5 6\n", SUBJECT), [Report::Status(5, 6)]);
    }
}
