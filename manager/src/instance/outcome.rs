//! How the command of a job ended in, what the server and the log are told out.
//!
//! Knows neither processes nor connections.
//!
//! Invariant: only an exit with code 0 completes a job, and only one with code 100 is an exception.

use bytes::Bytes;
use tracing::{debug, info, warn};

use super::subject::Subject;
use crate::config::Worker;
use crate::counters::Outcome;
use crate::gearman::Ending;
use crate::process::Status;

/// The exit code that says that the job raised an exception.
const EXCEPTION_CODE: i32 = 100;

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// For metrics and the log.
    pub(super) outcome: Outcome,
    /// For the server.
    pub(super) ending: Ending,
}

impl Verdict {
    /// The job failed, for this reason.
    pub(super) fn failed(outcome: Outcome) -> Self {
        Self { outcome, ending: Ending::Fail }
    }

    /// The job's own process ended with this status, result and end of standard error.
    pub(super) fn of_process(status: Status, result: Bytes, stderr: Bytes) -> Self {
        match status {
            Status::Code(0) => {
                Self { outcome: Outcome::Complete, ending: Ending::Complete(result) }
            }
            Status::Code(EXCEPTION_CODE) => {
                Self { outcome: Outcome::Exception, ending: Ending::Exception(stderr) }
            }
            Status::Code(_) => Self::failed(Outcome::Fail),
            Status::Signal(_) => Self::failed(Outcome::Signal),
        }
    }
}

/// Logs how a job ended, and what to do about it. `status` is how the process ended, if it did.
pub(super) fn log(outcome: Outcome, status: Option<Status>, worker: &Worker, subject: Subject<'_>) {
    let Subject { worker: name, instance, handle } = subject;
    macro_rules! line {
        ($level:ident, $($text:tt)*) => { $level!(worker = name, instance, handle, $($text)*) };
    }
    match outcome {
        Outcome::Complete => line!(debug, "the job is complete"),
        Outcome::Fail => match status {
            Some(Status::Code(code)) => {
                line!(info, "the job failed: the command exited with code {code}");
            }
            _ => line!(info, "the job failed: the command said so"),
        },
        Outcome::Exception => line!(info, "the job failed: the command raised an exception"),
        Outcome::Signal => match status {
            Some(Status::Signal(signal)) => line!(
                warn,
                "the job failed: the command died by {signal}; its standard error may tell why, \
                 or the kernel's log, when memory was short"
            ),
            _ => line!(warn, "the job failed: the command died by a signal"),
        },
        Outcome::Timeout => {
            let timeout = worker.timeout.unwrap_or_default();
            line!(
                warn,
                "the job failed: the command was killed as it ran longer than {timeout:?}; raise \
                 `timeout` if jobs may take so long"
            );
        }
        Outcome::Memory => {
            let most = worker.memory_max.unwrap_or_default();
            line!(
                warn,
                "the job failed: the command was killed as its processes had more than {most} \
                 bytes of memory; raise `memory-max` if jobs may need so much"
            );
        }
        Outcome::ResultTooLarge => {
            let most = worker.result_max;
            line!(
                warn,
                "the job failed: the command was killed as its result was larger than {most} \
                 bytes; raise `result-max` if results may be so large"
            );
        }
        Outcome::Protocol => line!(
            warn,
            "the job failed: the command was killed as it broke the protocol of mode `lines`; let \
             it write nothing else to standard output"
        ),
        Outcome::NotStarted => line!(warn, "the job failed: its command couldn't be started"),
        Outcome::Cancelled => line!(info, "the job was cancelled: the command was killed"),
        Outcome::Stopped => {
            let wait = worker.stop_wait;
            line!(
                warn,
                "the job failed: the command was ended, as it didn't end by itself within \
                 {wait:?}; raise `stop-wait` if jobs may take so long"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::Signal;

    use super::*;

    #[test]
    fn the_exit_code_decides() {
        let of = |status| {
            let verdict =
                Verdict::of_process(status, Bytes::from_static(b"out"), Bytes::from_static(b"err"));
            (verdict.outcome, verdict.ending)
        };
        let complete = Ending::Complete(Bytes::from_static(b"out"));
        let exception = Ending::Exception(Bytes::from_static(b"err"));
        assert_eq!(of(Status::Code(0)), (Outcome::Complete, complete));
        assert_eq!(of(Status::Code(100)), (Outcome::Exception, exception));
        for code in [1, 75, 99, 101, 255] {
            assert_eq!(of(Status::Code(code)), (Outcome::Fail, Ending::Fail), "{code}");
        }
        let killed = of(Status::Signal(Signal::SIGKILL));
        assert_eq!(killed, (Outcome::Signal, Ending::Fail));
    }
}
