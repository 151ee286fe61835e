//! The pipes of a job's process: payload in; result, warnings and statuses out.
//!
//! Knows no process: pipes are written and read, until they are closed or the job is to end.
//!
//! Invariant: keeps no more of what a command writes than `result-max` and a bounded rest, and lets
//! other tasks run meanwhile.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::task::coop::consume_budget;

use crate::config::Worker;
use crate::gearman::{Job, Report, Withdrawal};
use crate::instance::outcome::Verdict;
use crate::instance::server_side::ServerSide;
use crate::instance::status::StatusLines;
use crate::instance::stderr::Stderr;
use crate::instance::subject::Subject;
use crate::process::{Status, pipes};

/// Bytes that are read at a time.
const READ_BYTES: usize = 16 << 10;
/// Most bytes that are read from one pipe when its process has ended: the most that a pipe has, so
/// that a process that left the group can't go on for ever.
const REST_BYTES: usize = 1 << 20;

/// Why a job is to end before its process does.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Talk {
    /// Its result is larger than `result-max`.
    TooLarge,
    /// Its server has cancelled it.
    Cancelled,
}

/// The manager's ends.
#[derive(Debug)]
pub(super) struct Streams {
    /// With what isn't written yet.
    input: Option<(Sender, Bytes)>,
    output: Option<Receiver>,
    errors: Option<Receiver>,
    status: Option<Receiver>,
    result: BytesMut,
    result_max: usize,
    stderr: Stderr,
    status_lines: StatusLines,
    unsent: VecDeque<Report>,
    /// The job's server takes no reports any longer.
    is_disconnected: bool,
}

/// The command's ends.
#[derive(Debug)]
pub(super) struct Ends {
    /// `None` = there is no payload.
    pub(super) input: Option<OwnedFd>,
    pub(super) output: OwnedFd,
    pub(super) error: OwnedFd,
    pub(super) status: OwnedFd,
}

impl Streams {
    /// Makes the pipes of a job, and writes as much of its payload as there is room for.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub(super) fn open(worker: &Worker, job: &Job) -> io::Result<(Self, Ends)> {
        let (input_end, rest) = match &job.payload {
            none if none.is_empty() => (None, None),
            payload => {
                let (end, rest) = pipes::filled(payload)?;
                (Some(end), rest)
            }
        };
        let input = rest.map(|(sender, written)| (sender, job.payload.slice(written..)));
        let (output, output_end) = pipes::from_command()?;
        let (errors, error_end) = pipes::from_command()?;
        let (status, status_end) = pipes::from_command()?;
        let streams = Self {
            input,
            output: Some(output),
            errors: Some(errors),
            status: Some(status),
            result: BytesMut::new(),
            result_max: usize::try_from(worker.result_max).unwrap_or(usize::MAX),
            stderr: Stderr::new(worker.stderr),
            status_lines: StatusLines::new(),
            unsent: VecDeque::new(),
            is_disconnected: false,
        };
        let ends =
            Ends { input: input_end, output: output_end, error: error_end, status: status_end };
        Ok((streams, ends))
    }

    /// Moves bytes until the job is to end; never returns otherwise.
    ///
    /// May be dropped at any time, and followed by `finish`.
    pub(super) async fn talk(
        &mut self,
        server: &mut impl ServerSide,
        subject: Subject<'_>,
    ) -> Talk {
        loop {
            while let Some(report) = self.unsent.pop_front() {
                server.report(report).await;
            }
            // A command that writes as fast as this reads keeps no other from its turn.
            consume_budget().await;
            tokio::select! {
                withdrawal = server.withdrawn(), if !self.is_disconnected => match withdrawal {
                    Withdrawal::Cancelled => return Talk::Cancelled,
                    // The command runs to its end: half of it is worse than twice the whole.
                    Withdrawal::Disconnected => self.is_disconnected = true,
                },
                () = readable(self.output.as_ref()) => {
                    self.read_output();
                    if self.result.len() > self.result_max {
                        return Talk::TooLarge;
                    }
                }
                () = readable(self.errors.as_ref()) => {
                    read(&mut self.errors, |bytes| {
                        self.unsent.extend(self.stderr.take(bytes, subject));
                    });
                }
                () = readable(self.status.as_ref()) => {
                    read(&mut self.status, |bytes| {
                        self.unsent.extend(self.status_lines.take(bytes, subject));
                    });
                }
                () = writable(self.input.as_ref()) => self.write_input(),
                else => std::future::pending().await,
            }
        }
    }

    /// Takes what the pipes still have when the process has ended, and sends what there is to send
    /// if the job's server is to have it. Returns whether the result is too large.
    pub(super) async fn finish(
        &mut self,
        server: &mut impl ServerSide,
        subject: Subject<'_>,
        is_wanted: bool,
    ) -> bool {
        let Self { result, result_max, stderr, status_lines, unsent, .. } = self;
        if let Some(pipe) = self.output.take() {
            let room = result_max.saturating_sub(result.len()).saturating_add(1);
            pipes::rest(&pipe, room, |bytes| result.extend_from_slice(bytes));
        }
        if let Some(pipe) = self.errors.take() {
            pipes::rest(&pipe, REST_BYTES, |bytes| unsent.extend(stderr.take(bytes, subject)));
        }
        unsent.extend(stderr.finish(subject));
        if let Some(pipe) = self.status.take() {
            pipes::rest(&pipe, REST_BYTES, |bytes| {
                unsent.extend(status_lines.take(bytes, subject));
            });
        }
        self.input = None;
        if is_wanted && !self.is_disconnected {
            while let Some(report) = unsent.pop_front() {
                server.report(report).await;
            }
        }
        result.len() > *result_max
    }

    /// What the job comes to, if its process ended by itself.
    pub(super) fn verdict(self, status: Status) -> Verdict {
        let Self { result, mut stderr, .. } = self;
        Verdict::of_process(status, result.freeze(), stderr.take_tail())
    }

    fn read_output(&mut self) {
        let Some(pipe) = &self.output else { return };
        // One byte more than may be tells that there is more.
        let room = self.result_max.saturating_sub(self.result.len()).saturating_add(1);
        let spare = self.result.capacity() - self.result.len();
        if spare < READ_BYTES.min(room) {
            self.result.reserve(READ_BYTES.max(self.result.len()).min(room));
        }
        if is_over(&pipe.try_read_buf(&mut self.result)) {
            self.output = None;
        }
    }

    fn write_input(&mut self) {
        let Some((pipe, unwritten)) = &mut self.input else { return };
        match pipe.try_write(unwritten) {
            Ok(count) => unwritten.advance(count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // A command needn't read its payload.
            Err(_) => unwritten.clear(),
        }
        if unwritten.is_empty() {
            self.input = None;
        }
    }
}

/// Waits until there is something to read, or the pipe is at its end.
async fn readable(pipe: Option<&Receiver>) {
    match pipe {
        // An error shows again when it is read.
        Some(pipe) => drop(pipe.readable().await),
        None => std::future::pending().await,
    }
}

async fn writable(input: Option<&(Sender, Bytes)>) {
    match input {
        Some((pipe, _)) => drop(pipe.writable().await),
        None => std::future::pending().await,
    }
}

/// Reads what there is; drops a pipe that is at its end.
fn read(pipe: &mut Option<Receiver>, each: impl FnOnce(&[u8])) {
    let Some(receiver) = pipe else { return };
    let mut buffer = [0; READ_BYTES];
    let result = receiver.try_read(&mut buffer);
    if let Ok(count) = result {
        each(buffer.get(..count).unwrap_or_default());
    }
    if is_over(&result) {
        *pipe = None;
    }
}

/// Whether a pipe is at its end.
fn is_over(result: &io::Result<usize>) -> bool {
    match result {
        Ok(count) => *count == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}
