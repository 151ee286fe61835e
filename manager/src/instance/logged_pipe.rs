//! A pipe from a long-lived process, and the log of what it writes.
//!
//! Knows no jobs.
//!
//! Invariant: a process that writes without end keeps nothing else waiting.

use std::future::pending;

use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;

use super::output_log::OutputLog;
use super::subject::Subject;

/// Bytes that are read at a time.
const READ_BYTES: usize = 16 << 10;
/// Reads that take at least what a pipe holds, by default 64 KiB.
const PIPE_READS: usize = 4;

/// The manager's end of a pipe.
#[derive(Debug)]
pub(super) struct LoggedPipe {
    /// `None` once the process has closed it.
    pipe: Option<Receiver>,
    buffer: Box<[u8]>,
    log: OutputLog,
}

impl LoggedPipe {
    /// The end of the output with this name.
    pub(super) fn new(pipe: Receiver, name: &'static str) -> Self {
        Self { pipe: Some(pipe), buffer: vec![0; READ_BYTES].into(), log: OutputLog::new(name) }
    }

    /// Waits for something to read; returns how many bytes `bytes` has of it. May be dropped while
    /// it waits.
    pub(super) async fn read(&mut self) -> usize {
        loop {
            let Some(pipe) = &mut self.pipe else { return pending().await };
            match pipe.read(&mut self.buffer).await {
                Ok(0) | Err(_) => self.pipe = None,
                Ok(count) => return count,
            }
        }
    }

    /// What was read.
    pub(super) fn bytes(&self, count: usize) -> &[u8] {
        self.buffer.get(..count).unwrap_or_default()
    }

    /// Reads what a pipe holds at most, without waiting, and gives it to `each`.
    pub(super) fn drain(&mut self, each: impl FnMut(&[u8])) {
        drain(self.pipe.as_ref(), &mut self.buffer, each);
    }

    /// Logs what was read.
    pub(super) fn log(&mut self, count: usize, subject: Subject<'_>) {
        self.log.take(self.buffer.get(..count).unwrap_or_default(), subject);
    }

    /// Logs what an ended process has left.
    pub(super) fn finish(&mut self, subject: Subject<'_>) {
        let Self { pipe, buffer, log } = self;
        drain(pipe.as_ref(), buffer, |bytes| log.take(bytes, subject));
        log.finish(subject);
    }
}

fn drain(pipe: Option<&Receiver>, buffer: &mut [u8], mut each: impl FnMut(&[u8])) {
    let Some(pipe) = pipe else { return };
    // Not on and on: a process that left the group may write for ever.
    for _ in 0..PIPE_READS {
        match pipe.try_read(buffer) {
            Ok(0) | Err(_) => return,
            Ok(count) => each(buffer.get(..count).unwrap_or_default()),
        }
    }
}
