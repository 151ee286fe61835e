//! A process of mode `lines`: a job in, its answers to the job's server and its end out.
//!
//! Knows one process, and neither the client that brings jobs nor when a process is started.
//!
//! Invariant: a process takes a job only if it has answered the one before, and nothing else.

use std::cell::Cell;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use tokio::net::unix::pipe::Sender;
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::message;
use super::output::{Output, give_back};
use super::talk::{EXIT_WAIT, Errors, Talk, talk};
use crate::counters::{Ended, Outcome};
use crate::gearman::{Ending, Job};
use crate::instance::lifetime::Lifetime;
use crate::instance::logged_pipe::LoggedPipe;
use crate::instance::memory::Entered;
use crate::instance::orders::{KILL_WAIT, Orders, sleep_until};
use crate::instance::outcome::{self, Verdict};
use crate::instance::server_side::ServerSide;
use crate::instance::stderr::Stderr;
use crate::instance::subject::Subject;
use crate::instance::{Instance, Order, restarts, shutdown};
use crate::process::launch::Descriptors;
use crate::process::memory::of_process;
use crate::process::{Group, Launch, Status, pipes};

/// How the run of a job ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct JobEnd {
    /// For the server, metrics and the log. `None` if the process ended by itself before it read
    /// the job, which another may run then.
    pub(super) verdict: Option<Verdict>,
    /// Why the process has ended with it; `None` = it takes the next job.
    pub(super) reason: Option<Ended>,
}

/// What ended a wait between jobs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Idle<T> {
    /// What was waited for.
    Next(T),
    /// The process is to be replaced.
    Over(Ended),
    /// The process has ended.
    Ended(Ended),
    /// There is an order to end.
    Ordered,
}

/// A process that runs.
#[derive(Debug)]
pub(super) struct Process {
    group: Group,
    /// `None` once it is closed.
    input: Option<Sender>,
    output: Output,
    errors: Errors,
    memory: Entered,
    lifetime: Lifetime,
    started: Instant,
    has_worked: bool,
    /// The line of a job. Kept for its room.
    line: Vec<u8>,
    instance: Rc<Instance>,
}

impl Process {
    /// Starts a process.
    ///
    /// # Errors
    /// A sentence with what the kernel said.
    pub(super) fn start(instance: &Rc<Instance>, launch: &Launch) -> Result<Self, String> {
        let no_room = |error: io::Error| {
            format!("cannot start the command: {error}; allow the manager more open files")
        };
        let (input, input_end) = pipes::to_command().map_err(no_room)?;
        let input = pipes::sender(input).map_err(no_room)?;
        let (output, output_end) = pipes::from_command().map_err(no_room)?;
        let (errors, errors_end) = pipes::from_command().map_err(no_room)?;
        let descriptors = Descriptors {
            input: Some(input_end.as_fd()),
            output: Some(output_end.as_fd()),
            error: Some(errors_end.as_fd()),
            status: None,
        };
        let guard = &instance.shared.guard;
        let group = launch.start(guard, &[], descriptors).map_err(|error| error.to_string())?;
        let worker = &instance.worker;
        let counters = &instance.counters;
        counters.processes.set(counters.processes.get() + 1);
        let now = Instant::now();
        Ok(Self {
            input: Some(input),
            output: Output::new(output, worker.result_max),
            errors: Errors {
                pipe: LoggedPipe::new(errors, "stderr"),
                stderr: Stderr::new(worker.stderr),
            },
            memory: instance.memory.enter(group.leader(), worker.memory_max, counters),
            lifetime: Lifetime::begin(worker, now),
            started: now,
            has_worked: false,
            line: Vec::new(),
            instance: Rc::clone(instance),
            group,
        })
    }

    /// How long it has lived.
    pub(super) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether it has done a job.
    pub(super) fn has_worked(&self) -> bool {
        self.has_worked
    }

    /// Whether it is to be replaced before the next job.
    pub(super) fn over(&self) -> Option<Ended> {
        let limit = self.instance.worker.memory_max;
        if limit.is_some_and(|limit| of_process(self.group.leader()) > limit) {
            return Some(Ended::Memory);
        }
        self.lifetime.over(Instant::now())
    }

    /// Waits for the next job, or whatever else comes before it. May be dropped while it waits.
    pub(super) async fn idle<T>(
        &mut self,
        next: impl Future<Output = T>,
        orders: &mut Orders,
    ) -> Idle<T> {
        let instance = Rc::clone(&self.instance);
        let subject = instance.subject("");
        let mut next = pin!(next);
        let has_limit = instance.worker.memory_max.is_some();
        loop {
            tokio::select! {
                next = &mut next => return Idle::Next(next),
                order = orders.changed() => {
                    if order != Order::Work {
                        return Idle::Ordered;
                    }
                }
                status = self.group.ended() => return Idle::Ended(self.tell_end(status)),
                read = self.output.read() => return Idle::Ended(self.spoke(read).await),
                count = self.errors.pipe.read() => self.errors.pipe.log(count, subject),
                () = self.lifetime.aged() => return Idle::Over(Ended::MaxAge),
                _ = self.memory.exceeded(), if has_limit => return Idle::Over(Ended::Memory),
            }
        }
    }

    /// Runs a job. A process that can't take another has ended afterwards.
    pub(super) async fn run(
        &mut self,
        job: &Job,
        server: &mut impl ServerSide,
        orders: &mut Orders,
    ) -> JobEnd {
        let instance = Rc::clone(&self.instance);
        let handle = String::from_utf8_lossy(&job.handle);
        let subject = instance.subject(&handle);
        self.line.clear();
        message::write_job(job, &mut self.line);
        let written = Cell::new(0);
        let (verdict, reason) = self.converse(server, orders, subject, &written).await;
        let status = match reason {
            Some(_) => Some(shutdown::kill(&mut self.group).await),
            None => None,
        };
        let by_itself = matches!(reason, Some(Ended::Exit | Ended::Signal | Ended::Protocol));
        // Many commands exit by themselves after some jobs, just when the next is assigned. A
        // process that has done none yet fails its job, so that it isn't tried for ever.
        let may_go_back = by_itself && self.has_worked && verdict.ending == Ending::Fail;
        let is_unread = may_go_back && self.unread_input() == written.get();
        self.errors.flush(server, subject, verdict.outcome != Outcome::Cancelled).await;
        self.lifetime.job_ended();
        self.has_worked = true;
        give_back(&mut self.line);
        self.output.shrink();
        if is_unread {
            return JobEnd { verdict: None, reason };
        }
        outcome::log(verdict.outcome, status, &instance.worker, subject);
        JobEnd { verdict: Some(verdict), reason }
    }

    /// Gives the process the line of a job, and takes its answers until the last, or until it is to
    /// be killed.
    async fn converse(
        &mut self,
        server: &mut impl ServerSide,
        orders: &mut Orders,
        subject: Subject<'_>,
        written: &Cell<usize>,
    ) -> (Verdict, Option<Ended>) {
        let worker = &self.instance.worker;
        let deadline = worker.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let has_limit = worker.memory_max.is_some();
        let Self { line, input, output, errors, group, memory, .. } = self;
        let mut talk = pin!(talk((line, written), input, output, errors, server, subject));
        // How the leader ended, and how long its last output may take to arrive.
        let mut ended: Option<(Status, Instant)> = None;
        let mut kill_at: Option<Instant> = None;
        let failed = |outcome, reason| (Verdict::failed(outcome), Some(reason));
        let stopped = |order: Order| failed(Outcome::Stopped, order.ended().unwrap_or(Ended::Stop));
        loop {
            tokio::select! {
                talk = &mut talk => return match talk {
                    Talk::Ended(verdict) => {
                        let reason = match verdict.outcome {
                            Outcome::ResultTooLarge => Some(Ended::ResultTooLarge),
                            _ => ended.map(|(status, _)| restarts::by_itself(status)),
                        };
                        (verdict, reason)
                    }
                    Talk::Fault(fault) => {
                        tell_fault(subject, &fault);
                        failed(Outcome::Protocol, Ended::Protocol)
                    }
                    Talk::Withdrawn => failed(Outcome::Cancelled, Ended::Cancelled),
                    Talk::Closed => {
                        if ended.is_none() {
                            // A leader ends a moment after its descriptors.
                            let status = timeout(EXIT_WAIT, group.ended()).await;
                            ended = status.ok().map(|status| (status, Instant::now()));
                        }
                        match ended {
                            _ if kill_at.is_some() => stopped(orders.take()),
                            Some((status, _)) => without_answer(status),
                            None => {
                                tell_fault(subject, "it closed standard input or output");
                                failed(Outcome::Protocol, Ended::Protocol)
                            }
                        }
                    }
                },
                // It may have answered before. Nothing of its group writes any longer.
                status = group.ended(), if ended.is_none() => {
                    ended = Some((status, Instant::now() + EXIT_WAIT));
                }
                // A process that left the group holds its output.
                () = sleep_until(ended.map(|(_, at)| at)) => {
                    return match ended {
                        Some((status, _)) if kill_at.is_none() => without_answer(status),
                        _ => stopped(orders.take()),
                    };
                }
                () = sleep_until(deadline) => return failed(Outcome::Timeout, Ended::Timeout),
                _ = memory.exceeded(), if has_limit => {
                    return failed(Outcome::Memory, Ended::Memory);
                }
                order = orders.pressing(kill_at.is_some()) => {
                    if order == Order::Kill {
                        return stopped(order);
                    }
                    group.signal(Signal::SIGTERM);
                    kill_at = Some(Instant::now() + KILL_WAIT);
                }
                () = sleep_until(kill_at) => return stopped(orders.take()),
            }
        }
    }

    /// Ends a process between jobs: closes its standard input, and waits until it has ended;
    /// SIGTERM after `stop-wait`, SIGKILL 5 s later.
    pub(super) async fn retire(&mut self, orders: &mut Orders) {
        let instance = Rc::clone(&self.instance);
        self.input = None;
        let Self { output, errors, group, .. } = self;
        let term_at = orders.term_at();
        let end = shutdown::end(group, term_at, term_at + KILL_WAIT, orders);
        // It may write before it ends, which must not block it.
        let drain = async {
            loop {
                tokio::select! {
                    read = output.read() => match read {
                        Ok(0) | Err(_) => break,
                        Ok(_) => output.clear(),
                    },
                    count = errors.pipe.read() => errors.pipe.log(count, instance.subject("")),
                }
            }
            loop {
                let count = errors.pipe.read().await;
                errors.pipe.log(count, instance.subject(""));
            }
        };
        tokio::select! {
            _ = end => {}
            () = drain => {}
        }
        self.errors.pipe.finish(instance.subject(""));
    }

    /// Bytes that an ended process didn't read of its standard input.
    fn unread_input(&self) -> usize {
        let Some(input) = &self.input else { return 0 };
        // A new end of the same pipe, which has the bytes as long as an end is open.
        let path = format!("/proc/self/fd/{}", input.as_fd().as_raw_fd());
        let flags = OFlag::O_NONBLOCK.bits();
        let Ok(mut pipe) = OpenOptions::new().read(true).custom_flags(flags).open(path) else {
            return 0;
        };
        let mut buffer = [0; 4096];
        let mut unread = 0;
        while let Ok(count @ 1..) = io::Read::read(&mut pipe, &mut buffer) {
            unread += count;
        }
        unread
    }

    /// A process that wasn't asked wrote, or closed its output. Ends it, and returns why.
    async fn spoke(&mut self, read: io::Result<usize>) -> Ended {
        let is_open = read.is_ok_and(|count| count > 0);
        if !is_open && let Ok(status) = timeout(EXIT_WAIT, self.group.ended()).await {
            return self.tell_end(status);
        }
        let subject = self.instance.subject("");
        if is_open {
            tell_fault(subject, &format!("it wrote {} between jobs", self.output.excerpt()));
        } else {
            tell_fault(subject, "it closed standard output between jobs");
        }
        shutdown::kill(&mut self.group).await;
        Ended::Protocol
    }

    /// Logs what a process that ended by itself between jobs leaves, and returns why it ended.
    fn tell_end(&mut self, status: Status) -> Ended {
        let subject = self.instance.subject("");
        self.errors.pipe.finish(subject);
        restarts::tell_ended(subject, status, self.started.elapsed());
        restarts::by_itself(status)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let processes = &self.instance.counters.processes;
        processes.set(processes.get().saturating_sub(1));
    }
}

/// The job of a process that ended before it answered.
fn without_answer(status: Status) -> (Verdict, Option<Ended>) {
    let outcome = match status {
        Status::Code(_) => Outcome::Protocol,
        Status::Signal(_) => Outcome::Signal,
    };
    (Verdict::failed(outcome), Some(restarts::by_itself(status)))
}

fn tell_fault(subject: Subject<'_>, fault: &str) {
    let Subject { worker, instance, handle } = subject;
    warn!(
        worker,
        instance,
        handle,
        "the command broke the protocol of mode `lines`: {fault}; let it write nothing to standard \
         output but its answers to a job, each a JSON object in a line"
    );
}
