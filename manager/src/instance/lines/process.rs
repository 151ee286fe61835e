//! A process of mode `lines`: a job in, its answers to the job's server and its end out.
//!
//! Knows one process, and neither the client that brings jobs nor when a process is started.
//!
//! Invariant: a process takes a job only if it has answered the one before, and nothing else.

use std::io;
use std::os::fd::AsFd as _;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use memchr::memchr;
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::message::{self, Answer};
use crate::counters::{Ended, Outcome};
use crate::gearman::{Job, Report, Withdrawal};
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

/// Bytes that are read at a time at least.
const READ_BYTES: usize = 16 << 10;
/// A buffer that has grown beyond this is given back after the job.
const KEPT_BYTES: usize = 1 << 20;
/// Bytes that a line may have beyond twice the largest result: escapes and base64 take room.
const LINE_BYTES: usize = 64 << 10;
/// How long a process whose output has ended may take to end itself.
const EXIT_WAIT: Duration = Duration::from_secs(1);
/// Most bytes of a wrong line that are logged.
const EXCERPT_BYTES: usize = 200;

/// How a job ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct JobEnd {
    /// For the server, metrics and the log.
    pub(super) verdict: Verdict,
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

/// Standard output, and what of it wasn't understood yet.
#[derive(Debug)]
struct Output {
    pipe: Receiver,
    unread: Vec<u8>,
    /// Bytes of `unread` that have no line feed.
    searched: usize,
    result_max: u64,
}

/// Standard error.
#[derive(Debug)]
struct Errors {
    pipe: LoggedPipe,
    /// In jobs; between them `pipe` logs, as there are no clients to warn.
    stderr: Stderr,
}

/// What a conversation about a job came to.
enum Talk {
    Ended(Verdict),
    /// What the process did against the protocol.
    Fault(String),
    /// Its output has ended.
    Closed,
    /// The server wants it no longer.
    Withdrawn,
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
            output: Output {
                pipe: output,
                unread: Vec::with_capacity(READ_BYTES),
                searched: 0,
                result_max: worker.result_max,
            },
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
        let end = self.converse(server, orders, subject).await;
        let status = match end.reason {
            Some(_) => Some(shutdown::kill(&mut self.group).await),
            None => None,
        };
        self.errors.flush(server, subject, end.outcome() != Outcome::Cancelled).await;
        self.lifetime.job_ended();
        self.has_worked = true;
        give_back(&mut self.line);
        give_back(&mut self.output.unread);
        outcome::log(end.outcome(), status, &instance.worker, subject);
        end
    }

    /// Gives the process the line of a job, and takes its answers until the last, or until it is to
    /// be killed.
    async fn converse(
        &mut self,
        server: &mut impl ServerSide,
        orders: &mut Orders,
        subject: Subject<'_>,
    ) -> JobEnd {
        let worker = &self.instance.worker;
        let deadline = worker.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let has_limit = worker.memory_max.is_some();
        let Self { line, input, output, errors, group, memory, .. } = self;
        let mut talk = pin!(talk(line, input, output, errors, server, subject));
        // How the leader ended, and how long its last output may take to arrive.
        let mut ended: Option<(Status, Instant)> = None;
        let mut kill_at: Option<Instant> = None;
        let failed = |outcome, reason| JobEnd::new(Verdict::failed(outcome), Some(reason));
        let stopped = |order: Order| failed(Outcome::Stopped, order.ended().unwrap_or(Ended::Stop));
        loop {
            tokio::select! {
                talk = &mut talk => return match talk {
                    Talk::Ended(verdict) => {
                        let reason = match verdict.outcome {
                            Outcome::ResultTooLarge => Some(Ended::ResultTooLarge),
                            _ => ended.map(|(status, _)| restarts::by_itself(status)),
                        };
                        JobEnd::new(verdict, reason)
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

    /// A process that wasn't asked wrote, or closed its output. Ends it, and returns why.
    async fn spoke(&mut self, read: io::Result<usize>) -> Ended {
        let is_open = read.is_ok_and(|count| count > 0);
        if !is_open && let Ok(status) = timeout(EXIT_WAIT, self.group.ended()).await {
            return self.tell_end(status);
        }
        let subject = self.instance.subject("");
        if is_open {
            tell_fault(subject, &format!("it wrote {} between jobs", excerpt(&self.output.unread)));
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

impl Output {
    async fn read(&mut self) -> io::Result<usize> {
        if self.unread.capacity() - self.unread.len() < READ_BYTES / 2 {
            self.unread.reserve(READ_BYTES.max(self.unread.len()));
        }
        self.pipe.read_buf(&mut self.unread).await
    }

    /// The next whole line that was read, understood.
    fn answer(&mut self) -> Option<Result<Answer, String>> {
        let rest = self.unread.get(self.searched..).unwrap_or_default();
        let Some(end) = memchr(b'\n', rest).map(|at| self.searched + at) else {
            self.searched = self.unread.len();
            let result_max = usize::try_from(self.result_max).unwrap_or(usize::MAX);
            let line_max = result_max.saturating_mul(2).saturating_add(LINE_BYTES);
            // As a result of such a length would be.
            let too_large = || Ok(Answer::End(Verdict::failed(Outcome::ResultTooLarge)));
            return (self.unread.len() > line_max).then(too_large);
        };
        let line = self.unread.get(..end).unwrap_or_default();
        let answer = message::read(line, self.result_max)
            .map_err(|error| format!("it wrote {}, which is wrong: {error}", excerpt(line)));
        self.unread.drain(..=end);
        self.searched = 0;
        Some(answer)
    }

    fn clear(&mut self) {
        self.unread.clear();
        self.searched = 0;
    }
}

impl Errors {
    /// Takes what was read in a job.
    fn take(&mut self, count: usize, subject: Subject<'_>) -> Option<Report> {
        self.stderr.take(self.pipe.bytes(count), subject)
    }

    /// Takes what was written until the end of a job, and sends it, if the job's server wants it.
    async fn flush(&mut self, server: &mut impl ServerSide, subject: Subject<'_>, is_sent: bool) {
        let mut reports = Vec::new();
        self.pipe.drain(|bytes| reports.extend(self.stderr.take(bytes, subject)));
        reports.extend(self.stderr.finish(subject));
        for report in reports.into_iter().filter(|_| is_sent) {
            server.report(report).await;
        }
    }
}

impl JobEnd {
    fn new(verdict: Verdict, reason: Option<Ended>) -> Self {
        Self { verdict, reason }
    }

    fn outcome(&self) -> Outcome {
        self.verdict.outcome
    }
}

/// Writes the line of a job, and reads answers until the last; sends those before it.
async fn talk(
    line: &[u8],
    input: &mut Option<Sender>,
    output: &mut Output,
    errors: &mut Errors,
    server: &mut impl ServerSide,
    subject: Subject<'_>,
) -> Talk {
    let Some(input) = input else { return Talk::Closed };
    let mut unsent = line;
    let mut is_wanted = true;
    // Set when it takes no input: it may have answered before that, or end with its output.
    let mut closes_at: Option<Instant> = None;
    let mut written = input.try_write(unsent);
    loop {
        match written {
            Ok(count) => unsent = unsent.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => {
                unsent = &[];
                closes_at = Some(Instant::now() + EXIT_WAIT);
            }
        }
        written = Ok(0);
        match output.answer() {
            Some(Ok(Answer::Report(report))) => {
                server.report(report).await;
                continue;
            }
            Some(Ok(Answer::End(verdict))) if verdict.outcome == Outcome::ResultTooLarge => {
                return Talk::Ended(verdict);
            }
            Some(Ok(Answer::End(_))) if !output.unread.is_empty() => {
                let more = excerpt(&output.unread);
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
            count = input.write(unsent), if !unsent.is_empty() => written = count,
            withdrawal = server.withdrawn(), if is_wanted => match withdrawal {
                Withdrawal::Cancelled => return Talk::Withdrawn,
                // The command runs to its end: a job half done is worse than one done twice.
                Withdrawal::Disconnected => is_wanted = false,
            },
            () = sleep_until(closes_at) => return Talk::Closed,
        }
    }
}

/// The job of a process that ended before it answered.
fn without_answer(status: Status) -> JobEnd {
    let outcome = match status {
        Status::Code(_) => Outcome::Protocol,
        Status::Signal(_) => Outcome::Signal,
    };
    JobEnd::new(Verdict::failed(outcome), Some(restarts::by_itself(status)))
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

/// The start of what a process wrote, for the log.
fn excerpt(bytes: &[u8]) -> String {
    let start = bytes.get(..EXCERPT_BYTES).unwrap_or(bytes);
    let more = if start.len() < bytes.len() { "…" } else { "" };
    format!("{:?}{more}", String::from_utf8_lossy(start))
}

/// Empties a buffer; gives its memory back if a large job needed it.
fn give_back(buffer: &mut Vec<u8>) {
    buffer.clear();
    if buffer.capacity() > KEPT_BYTES {
        *buffer = Vec::new();
    }
}
