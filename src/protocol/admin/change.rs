//! What text commands change of many jobs or functions: how far a change has come in, its reply
//! out.
//!
//! A change goes on in portions and core by core, as lists do. Knows no core: the shard makes the
//! portions.
//!
//! Invariant: a change has as many letters, jobs or functions to look at as there were when it
//! began, or fewer.

use super::columns::{number, text};
use crate::engine::job::State;
use crate::engine::record::Pause;
use crate::engine::{FunctionId, JobId};

/// Reply to a change that counts nothing.
pub(super) const OK: &[u8] = b"OK\r\n";

/// How far a list of dead letters, or a change of many, has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadAt {
    /// The place of the next letter; see `DeadLetters::iter_from`.
    pub place: u64,
    /// The place before which it ends.
    pub end: u64,
}

impl DeadAt {
    /// The start, with all letters that there are then.
    pub const START: Self = Self { place: 0, end: u64::MAX };
}

/// A change of many, and where it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// `requeue dead`
    Requeue(DeadAt),
    /// `drop dead`
    RemoveDead(DeadAt),
    /// `purge function`
    Purge(Waiting, JobId),
    /// `pause function`
    Pause(Pause, FunctionId),
    /// `resume function`
    Resume(FunctionId),
}

/// For what jobs wait that are purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// For a worker.
    Queued,
    /// For their start.
    Delayed,
    /// For their next run.
    Retrying,
}

impl Waiting {
    /// Whether a job of this state, with so many runs, waits for it.
    #[must_use]
    pub fn includes(self, state: State, attempts: u16) -> bool {
        match self {
            Self::Queued => state == State::Queued,
            Self::Delayed => state == State::Delayed && attempts == 0,
            Self::Retrying => state == State::Delayed && attempts > 0,
        }
    }
}

/// What a change has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Letters, jobs or functions that were changed.
    pub done: u64,
    /// Letters that stay, as there is a job with their unique key.
    pub skipped: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.done += other.done;
        self.skipped += other.skipped;
    }
}

impl Change {
    /// The reply to the command.
    #[must_use]
    pub fn reply(self, tally: Tally) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Pause(..) | Self::Resume(_) => out.extend_from_slice(OK),
            Self::Requeue(_) | Self::RemoveDead(_) | Self::Purge(..) => count(tally, &mut out),
        }
        out
    }
}

/// Appends how many were changed.
pub(super) fn count(tally: Tally, out: &mut Vec<u8>) {
    out.extend_from_slice(b"OK ");
    number(out, tally.done);
    if tally.skipped > 0 {
        text(out, &[b" skipped "]);
        number(out, tally.skipped);
        text(out, &[b" unique_in_use"]);
    }
    out.extend_from_slice(b"\r\n");
}
