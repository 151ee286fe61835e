//! The conversation with a process about a job: its line in, reports to the server and the end out.
//!
//! Knows neither how long it may take nor what becomes of the process.
//!
//! Invariant: reads while it writes, so that neither waits for the other.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe::Sender;
use tokio::time::Instant;

use super::message::Answer;
use super::output::Output;
use crate::counters::Outcome;
use crate::gearman::{Report, Withdrawal};
use crate::instance::logged_pipe::LoggedPipe;
use crate::instance::orders::sleep_until;
use crate::instance::outcome::Verdict;
use crate::instance::server_side::ServerSide;
use crate::instance::stderr::Stderr;
use crate::instance::subject::Subject;

/// How long a process whose output has ended may take to end itself.
pub(super) const EXIT_WAIT: Duration = Duration::from_secs(1);

/// Standard error.
#[derive(Debug)]
pub(super) struct Errors {
    pub(super) pipe: LoggedPipe,
    /// In jobs; between them `pipe` logs, as there are no clients to warn.
    pub(super) stderr: Stderr,
}

/// What a conversation about a job came to.
pub(super) enum Talk {
    Ended(Verdict),
    /// What the process did against the protocol.
    Fault(String),
    /// Its output has ended.
    Closed,
    /// The server wants it no longer.
    Withdrawn,
}

/// Writes the line of a job, counting what is `written`, and reads answers until the last; sends
/// those before it.
pub(super) async fn talk(
    (line, written): (&[u8], &Cell<usize>),
    input: &mut Option<Sender>,
    output: &mut Output,
    errors: &mut Errors,
    server: &mut impl ServerSide,
    subject: Subject<'_>,
) -> Talk {
    let Some(input) = input else { return Talk::Closed };
    output.read_known();
    if output.has_unread() {
        return Talk::Fault(format!("it wrote {} between jobs", output.excerpt()));
    }
    let mut unsent = line;
    let mut is_wanted = true;
    // Set when it takes no input: it may have answered before that, or end with its output.
    let mut closes_at: Option<Instant> = None;
    let mut taken = input.try_write(unsent);
    loop {
        match taken {
            Ok(count) => {
                unsent = unsent.get(count..).unwrap_or_default();
                written.set(written.get() + count);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => {
                unsent = &[];
                closes_at = Some(Instant::now() + EXIT_WAIT);
            }
        }
        taken = Ok(0);
        match output.answer() {
            Some(Ok(Answer::Report(report))) => {
                server.report(report).await;
                continue;
            }
            Some(Ok(Answer::End(verdict))) if verdict.outcome == Outcome::ResultTooLarge => {
                return Talk::Ended(verdict);
            }
            Some(Ok(Answer::End(_))) if output.has_unread() => {
                let more = output.excerpt();
                return Talk::Fault(format!("it wrote {more} after the end of the job"));
            }
            Some(Ok(Answer::End(_))) if !unsent.is_empty() => {
                return Talk::Fault("it ended the job before it had read its line".to_owned());
            }
            Some(Ok(Answer::End(verdict))) => return Talk::Ended(verdict),
            Some(Err(fault)) => return Talk::Fault(fault),
            None => {}
        }
        tokio::select! {
            read = output.read() => match read {
                Ok(0) | Err(_) => return Talk::Closed,
                Ok(_) => {}
            },
            count = errors.pipe.read() => {
                if let Some(report) = errors.take(count, subject) {
                    server.report(report).await;
                }
            }
            count = input.write(unsent), if !unsent.is_empty() => taken = count,
            withdrawal = server.withdrawn(), if is_wanted => match withdrawal {
                Withdrawal::Cancelled => return Talk::Withdrawn,
                // The command runs to its end: a job half done is worse than one done twice.
                Withdrawal::Disconnected => is_wanted = false,
            },
            () = sleep_until(closes_at) => return Talk::Closed,
        }
    }
}

impl Errors {
    /// Takes what was read in a job.
    fn take(&mut self, count: usize, subject: Subject<'_>) -> Option<Report> {
        self.stderr.take(self.pipe.bytes(count), subject)
    }

    /// Takes what was written until the end of a job, and sends it, if the job's server wants it.
    pub(super) async fn flush(
        &mut self,
        server: &mut impl ServerSide,
        subject: Subject<'_>,
        is_sent: bool,
    ) {
        let mut reports = Vec::new();
        self.pipe.drain(|bytes| reports.extend(self.stderr.take(bytes, subject)));
        reports.extend(self.stderr.finish(subject));
        for report in reports.into_iter().filter(|_| is_sent) {
            server.report(report).await;
        }
    }
}
