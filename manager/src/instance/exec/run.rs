//! The run of a job by a process of its own: the payload goes in, the result comes out.
//!
//! Knows neither the client that brings jobs nor how often a command is started.
//!
//! Invariant: when `run` returns, the process has ended, with all of its group.

use std::ffi::CString;
use std::os::fd::AsFd as _;
use std::pin::pin;

use nix::sys::signal::Signal;
use tokio::time::Instant;

use super::streams::{Streams, Talk};
use crate::counters::Outcome;
use crate::gearman::Job;
use crate::instance::orders::{KILL_WAIT, Orders, sleep_until};
use crate::instance::outcome::Verdict;
use crate::instance::server_side::ServerSide;
use crate::instance::{Instance, Order, shutdown};
use crate::process::{Descriptors, Group, Launch, LaunchError, Status};

/// How a job ended.
#[derive(Debug)]
pub(super) struct End {
    pub(super) verdict: Verdict,
    /// How its process ended, if it was started.
    pub(super) status: Option<Status>,
}

/// Why a process has ended, or is to end.
enum Cause {
    /// It has ended by itself.
    Itself(Status),
    Limit(Outcome),
}

/// Runs a job to its end. The orders end it within their time.
///
/// # Errors
/// If the command can't be started.
pub(super) async fn run(
    instance: &Instance,
    launch: &Launch,
    job: &Job,
    server: &mut impl ServerSide,
    orders: &mut Orders,
) -> Result<End, LaunchError> {
    let handle = String::from_utf8_lossy(&job.handle);
    let subject = instance.subject(&handle);
    let no_pipes = |error| launch.no_descriptors(&error);
    let (mut streams, ends) = Streams::open(&instance.worker, job).map_err(no_pipes)?;
    let descriptors = Descriptors {
        input: ends.input.as_ref().map(|end| end.as_fd()),
        output: Some(ends.output.as_fd()),
        error: Some(ends.error.as_fd()),
        status: Some(ends.status.as_fd()),
    };
    let mut group = launch.start(&instance.shared.guard, &variables(job), descriptors)?;
    // Else they would never be at their end.
    drop(ends);
    let processes = &instance.counters.processes;
    processes.set(processes.get() + 1);
    let cause = {
        let talk = streams.talk(server, subject);
        watch(instance, &mut group, talk, orders).await
    };
    let (status, outcome) = match cause {
        Cause::Itself(status) => (status, None),
        Cause::Limit(outcome) => (shutdown::kill(&mut group).await, Some(outcome)),
    };
    processes.set(processes.get() - 1);
    // Nothing of the group writes any longer.
    let finish = streams.finish(server, subject, outcome != Some(Outcome::Cancelled));
    let is_too_large = tokio::select! {
        is_too_large = finish => is_too_large,
        () = orders.killed() => false,
    };
    let verdict = match outcome {
        Some(outcome) => Verdict::failed(outcome),
        None if is_too_large => Verdict::failed(Outcome::ResultTooLarge),
        None => streams.verdict(status),
    };
    Ok(End { verdict, status: Some(status) })
}

/// Waits until a process has ended by itself, or is to be killed.
async fn watch(
    instance: &Instance,
    group: &mut Group,
    talk: impl Future<Output = Talk>,
    orders: &mut Orders,
) -> Cause {
    let worker = &instance.worker;
    let memory = instance.memory.enter(group.leader(), worker.memory_max, &instance.counters);
    let deadline = worker.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut talk = pin!(talk);
    // Set once it was asked to end.
    let mut kill_at = None;
    loop {
        tokio::select! {
            biased;
            status = group.ended() => return match kill_at {
                None => Cause::Itself(status),
                Some(_) => Cause::Limit(Outcome::Stopped),
            },
            order = orders.pressing(kill_at.is_some()) => {
                if order == Order::Kill {
                    return Cause::Limit(Outcome::Stopped);
                }
                group.signal(Signal::SIGTERM);
                kill_at = Some(Instant::now() + KILL_WAIT);
            }
            () = sleep_until(kill_at) => return Cause::Limit(Outcome::Stopped),
            () = sleep_until(deadline) => return Cause::Limit(Outcome::Timeout),
            _ = memory.exceeded(), if worker.memory_max.is_some() => {
                return Cause::Limit(Outcome::Memory);
            }
            talk = &mut talk => return Cause::Limit(match talk {
                Talk::TooLarge => Outcome::ResultTooLarge,
                Talk::Cancelled => Outcome::Cancelled,
            }),
        }
    }
}

/// What a command learns about its job.
fn variables(job: &Job) -> Vec<CString> {
    let variable = |(name, value): (&str, &[u8])| {
        // The protocol has NULs between these, so none contains one.
        CString::new([name.as_bytes(), b"=", value].concat()).ok()
    };
    let all: [(&str, &[u8]); 3] = [
        ("GEARMAN_FUNCTION", &job.function),
        ("GEARMAN_HANDLE", &job.handle),
        ("GEARMAN_UNIQUE", &job.unique),
    ];
    all.into_iter().filter_map(variable).collect()
}
