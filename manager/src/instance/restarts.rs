//! What follows the end of a long-lived process: a line of the log, and a wait or none.
//!
//! Knows no process.
//!
//! Invariant: what the manager ended for its lifetime, a restart or the end is never waited after.

use std::time::Duration;

use tracing::{info, warn};

use super::backoff::Backoff;
use super::orders::Orders;
use super::subject::Subject;
use super::{Instance, Order};
use crate::config::Worker;
use crate::counters::Ended;
use crate::process::Status;

/// How long to wait after a process before the next starts; `None` = not at all.
pub(super) fn wait_after(
    reason: Ended,
    lived: Duration,
    backoff: &mut Backoff,
) -> Option<Duration> {
    match reason {
        Ended::NotStarted => Some(backoff.failed()),
        // A command that needs too much memory from the start is as bad as one that ends at once.
        Ended::Exit | Ended::Signal | Ended::Protocol | Ended::Memory => backoff.ended(lived),
        Ended::MaxJobs
        | Ended::MaxAge
        | Ended::Timeout
        | Ended::ResultTooLarge
        | Ended::Cancelled
        | Ended::Restart
        | Ended::Stop => None,
    }
}

/// Why a process ended that wasn't told to.
pub(super) fn by_itself(status: Status) -> Ended {
    match status {
        Status::Code(_) => Ended::Exit,
        Status::Signal(_) => Ended::Signal,
    }
}

/// Waits before a process is started again, until an order to end at the latest.
pub(super) async fn pause(instance: &Instance, reason: Ended, wait: Duration, orders: &mut Orders) {
    // Of a command that can't be started the log says so once.
    if reason != Ended::NotStarted {
        let Subject { worker, instance, .. } = instance.subject("");
        warn!(
            worker,
            instance,
            "the command ended less than {:?} after its start; it is started again in {wait:?}: \
             look for its reason in the lines before",
            Worker::HEALTHY_AFTER,
        );
    }
    instance.is_up.send_replace(false);
    let backing_off = &instance.counters.backing_off;
    backing_off.set(backing_off.get() + 1);
    let ordered =
        async { while orders.take() == Order::Work && orders.changed().await == Order::Work {} };
    tokio::select! {
        () = tokio::time::sleep(wait) => {}
        () = ordered => {}
    }
    backing_off.set(backing_off.get() - 1);
}

/// Logs why a command couldn't be started, if it isn't what was `told` last.
pub(super) fn tell_not_started(instance: &Instance, told: &mut String, sentence: String) {
    if *told != sentence {
        let Subject { worker, instance, .. } = instance.subject("");
        warn!(worker, instance, "{sentence}");
        *told = sentence;
    }
}

/// Logs that a process ended by itself.
pub(super) fn tell_ended(subject: Subject<'_>, status: Status, lived: Duration) {
    let Subject { worker, instance, .. } = subject;
    match status {
        Status::Code(code) => {
            info!(worker, instance, "the command exited with code {code} after {lived:.1?}");
        }
        Status::Signal(signal) => warn!(
            worker,
            instance,
            "the command died by {signal} after {lived:.1?}; its standard error may tell why, or \
             the kernel's log, when memory was short"
        ),
    }
}

/// Logs that a process is ended, to be replaced or for good.
pub(super) fn tell_replaced(instance: &Instance, reason: Ended, lived: Duration) {
    let Subject { worker, instance: number, .. } = instance.subject("");
    let why = match reason {
        Ended::MaxJobs => "it has done its jobs (max-jobs)",
        Ended::MaxAge => "it is old (max-age)",
        Ended::Memory => "it has more memory than memory-max",
        Ended::Restart => "the instance restarts",
        _ => "the instance ends",
    };
    info!(worker, instance = number, "the command is ended after {lived:.1?}: {why}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::samples::worker;

    #[test]
    fn only_a_command_that_fails_early_by_itself_is_waited_after() {
        let early = Duration::from_secs(1);
        let late = Duration::from_secs(10);
        let wait = |reason, lived| wait_after(reason, lived, &mut Backoff::of(&worker(&["true"])));
        for reason in [Ended::Exit, Ended::Signal, Ended::Protocol, Ended::Memory] {
            assert!(wait(reason, early).is_some(), "{reason:?}");
            assert!(wait(reason, late).is_none(), "{reason:?}");
        }
        for reason in [Ended::MaxJobs, Ended::MaxAge, Ended::Timeout, Ended::Restart, Ended::Stop] {
            assert!(wait(reason, early).is_none(), "{reason:?}");
        }
        assert!(wait(Ended::NotStarted, late).is_some());
    }
}
