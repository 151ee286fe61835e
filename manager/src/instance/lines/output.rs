//! Standard output of a process of mode `lines`: bytes in, answers out.
//!
//! Knows neither jobs nor servers.
//!
//! Invariant: keeps no more than the longest line that can be right.

use std::io;

use memchr::memchr;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;

use super::message::{self, Answer};
use crate::counters::Outcome;
use crate::instance::outcome::Verdict;

/// Bytes that are read at a time at least.
const READ_BYTES: usize = 16 << 10;
/// A buffer that has grown beyond this is given back after the job.
const KEPT_BYTES: usize = 1 << 20;
/// Bytes that a line may have beyond twice the largest result: escapes and base64 take room.
const LINE_BYTES: usize = 64 << 10;
/// Most bytes of a wrong line that are logged.
const EXCERPT_BYTES: usize = 200;

/// Standard output, and what of it wasn't understood yet.
#[derive(Debug)]
pub(super) struct Output {
    pipe: Receiver,
    unread: Vec<u8>,
    /// Bytes of `unread` that have no line feed.
    searched: usize,
    result_max: u64,
}

impl Output {
    /// The output at the other end of a pipe.
    pub(super) fn new(pipe: Receiver, result_max: u64) -> Self {
        Self { pipe, unread: Vec::with_capacity(READ_BYTES), searched: 0, result_max }
    }

    /// Whether anything was read that wasn't understood.
    pub(super) fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// The start of what wasn't understood, for the log.
    pub(super) fn excerpt(&self) -> String {
        excerpt(&self.unread)
    }

    /// Reads what is known to be there, without waiting.
    pub(super) fn read_known(&mut self) {
        let mut bytes = [0; EXCERPT_BYTES];
        if let Ok(count) = self.pipe.try_read(&mut bytes) {
            self.unread.extend_from_slice(bytes.get(..count).unwrap_or_default());
        }
    }

    /// Gives memory back that a large answer needed.
    pub(super) fn shrink(&mut self) {
        if self.unread.is_empty() {
            give_back(&mut self.unread);
        }
    }

    /// Reads more; returns how many bytes, 0 = it has ended. May be dropped while it waits.
    pub(super) async fn read(&mut self) -> io::Result<usize> {
        if self.unread.capacity() - self.unread.len() < READ_BYTES / 2 {
            self.unread.reserve(READ_BYTES.max(self.unread.len()));
        }
        self.pipe.read_buf(&mut self.unread).await
    }

    /// The next whole line that was read, understood.
    pub(super) fn answer(&mut self) -> Option<Result<Answer, String>> {
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

    /// Forgets what was read.
    pub(super) fn clear(&mut self) {
        self.unread.clear();
        self.searched = 0;
    }
}

/// The start of what a process wrote, for the log.
fn excerpt(bytes: &[u8]) -> String {
    let start = bytes.get(..EXCERPT_BYTES).unwrap_or(bytes);
    let more = if start.len() < bytes.len() { "…" } else { "" };
    format!("{:?}{more}", String::from_utf8_lossy(start))
}

/// Empties a buffer; gives its memory back if a large job needed it.
pub(super) fn give_back(buffer: &mut Vec<u8>) {
    buffer.clear();
    if buffer.capacity() > KEPT_BYTES {
        *buffer = Vec::new();
    }
}
