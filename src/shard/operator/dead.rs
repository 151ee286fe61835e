//! Dead letters as operators see and change them: which ones and where a list has come to in, the
//! next rows, or how many were requeued or removed, out.
//!
//! Knows no JSON and no text commands.
//!
//! Invariant: one call changes at most `CHANGES_MAX` letters and looks at `RECORDS_MAX`; a change
//! of many takes them in the order in which the jobs died, and none that died after it began.

use std::sync::Arc;

use super::{CHANGES_MAX, RECORDS_MAX};
use crate::engine::dead::DeadLetter;
use crate::engine::glob::Glob;
use crate::engine::reason::Reason;
use crate::engine::{Now, Requeued};
use crate::protocol::access::{Permissions, Right, Scope};
use crate::protocol::admin::change::DeadAt;
use crate::shard::Shard;
use crate::wire::Priority;

/// Which dead letters.
#[derive(Clone, Debug, Default)]
pub struct DeadFilter {
    /// Of functions with such names; `None` = of all.
    pub function: Option<Glob>,
    /// Those that died for this reason; `None` = for any.
    pub reason: Option<Reason>,
    /// Those with this unique key; `None` = with any, or without one.
    pub unique: Option<Box<[u8]>>,
    /// Those that died so long ago, in milliseconds; `None` = at any time.
    pub older_ms: Option<u64>,
    /// Which functions the peer may observe, or administer where letters are changed; `None` = all.
    pub access: Option<Arc<Permissions>>,
    /// That of the job of this number; `None` = of any.
    pub number: Option<u64>,
}

/// A dead letter.
#[derive(Clone, Debug)]
pub struct LetterRow {
    /// The job's handle.
    pub handle: Box<str>,
    /// Its function.
    pub function: Box<[u8]>,
    /// Its unique key; empty for many.
    pub unique: Box<[u8]>,
    /// Its priority.
    pub priority: Priority,
    /// Runs that ended without WORK_COMPLETE.
    pub attempts: u16,
    /// How the last of them ended, or why the job was never run.
    pub reason: Reason,
    /// When it was submitted, in milliseconds since 1970.
    pub submitted_ms: u64,
    /// When it died, in milliseconds since 1970.
    pub died_ms: u64,
    /// Bytes of its payload.
    pub payload_bytes: usize,
    /// Client id of its last worker; empty without one.
    pub worker: Box<[u8]>,
    /// Data of its last WORK_EXCEPTION, cut after `dead::MESSAGE_BYTES_MAX`.
    pub message: Box<[u8]>,
    /// As much of its payload as was asked for.
    pub payload: Box<[u8]>,
}

/// How far a change of many dead letters has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadChange {
    /// Letters that were requeued, or removed, now.
    pub done: usize,
    /// Letters that stay, as there is a job with their unique key.
    pub skipped: usize,
    /// Where those that are left begin.
    pub next: Option<DeadAt>,
}

impl DeadFilter {
    /// Memory beside its own size, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let Self { function, unique, .. } = self;
        let function = function.as_ref().map_or(0, Glob::bytes);
        function + unique.as_ref().map_or(0, |unique| unique.len())
    }
}

impl LetterRow {
    pub(super) fn bytes(&self) -> usize {
        let Self { handle, function, unique, worker, message, payload, .. } = self;
        let names = handle.len() + function.len() + unique.len() + worker.len();
        size_of::<Self>() + names + message.len() + payload.len()
    }
}

impl Shard {
    pub(super) fn letter_rows(
        &self,
        filter: &DeadFilter,
        at: DeadAt,
        limit: usize,
        now: Now,
    ) -> (Vec<LetterRow>, Option<DeadAt>) {
        let (numbers, next) = self.find_letters(filter, Right::Observe, at, limit, now);
        let letters = numbers.into_iter().filter_map(|number| self.engine.dead().find(number));
        (letters.map(|letter| self.letter_row(letter, 0)).collect(), next)
    }

    /// The numbers of the next letters, at most `limit`, of functions for which the peer has a
    /// right, and where those that are left begin.
    fn find_letters(
        &self,
        filter: &DeadFilter,
        right: Right,
        at: DeadAt,
        limit: usize,
        now: Now,
    ) -> (Vec<u64>, Option<DeadAt>) {
        let DeadFilter { function, reason, unique, older_ms, access, number } = filter;
        let matches = |letter: &DeadLetter| {
            let name = &self.engine.function_of_dead(letter).name;
            let age_ms = now.unix_ms.saturating_sub(letter.died_ms);
            reason.is_none_or(|reason| letter.reason == reason)
                && older_ms.is_none_or(|older_ms| age_ms >= older_ms)
                && unique.as_ref().is_none_or(|unique| letter.job.unique() == &**unique)
                && function.as_ref().is_none_or(|glob| glob.matches(name))
                && access.as_ref().is_none_or(|it| it.may(right, Scope::Function(name)).is_allowed)
        };
        if let Some(number) = *number {
            let found = self.engine.dead().find(number).filter(|letter| matches(letter));
            return (found.map(|_| number).into_iter().collect(), None);
        }
        let end = at.end.min(self.engine.dead().end());
        let mut numbers = Vec::new();
        for (looked_at, (place, letter)) in self.engine.dead().iter_from(at.place).enumerate() {
            if place >= end {
                break;
            }
            if numbers.len() == limit || looked_at == RECORDS_MAX {
                return (numbers, Some(DeadAt { place, end }));
            }
            if matches(letter) {
                numbers.push(letter.job.number);
            }
        }
        (numbers, None)
    }

    /// One letter, if the peer may see it.
    pub(super) fn letter_row_of(
        &self,
        number: u64,
        payload_bytes: usize,
        access: Option<&Permissions>,
    ) -> Option<LetterRow> {
        let letter = self.engine.dead().find(number)?;
        let function = Scope::Function(&self.engine.function_of_dead(letter).name);
        let right = if payload_bytes > 0 { Right::Admin } else { Right::Observe };
        let is_allowed = access.is_none_or(|it| it.may(right, function).is_allowed);
        is_allowed.then(|| self.letter_row(letter, payload_bytes))
    }

    fn letter_row(&self, letter: &DeadLetter, payload_bytes: usize) -> LetterRow {
        let DeadLetter { job, reason, died_ms, worker, message } = letter;
        let payload = job.payload();
        let payload = payload.bytes();
        LetterRow {
            handle: self.handle_text(job.number),
            function: self.engine.function_of_dead(letter).name.clone(),
            unique: job.unique().into(),
            priority: job.priority,
            attempts: job.attempts,
            reason: *reason,
            submitted_ms: job.submitted_ms(),
            died_ms: *died_ms,
            payload_bytes: payload.len(),
            worker: worker.clone(),
            message: message.clone(),
            payload: payload.get(..payload_bytes).unwrap_or(payload).into(),
        }
    }

    /// Makes the next letters that match jobs again, in the order in which they died.
    pub(in crate::shard) fn requeue_some(
        &mut self,
        filter: &DeadFilter,
        at: DeadAt,
        now: Now,
    ) -> DeadChange {
        let (numbers, next) = self.find_letters(filter, Right::Admin, at, CHANGES_MAX, now);
        let (mut done, mut skipped) = (0, 0);
        for number in numbers {
            match self.engine.requeue(number, now) {
                Requeued::Done => done += 1,
                Requeued::UniqueInUse => skipped += 1,
                Requeued::Unknown => {}
            }
        }
        self.deliver(None, now);
        DeadChange { done, skipped, next }
    }

    /// Removes the next letters that match.
    pub(in crate::shard) fn remove_some_dead(
        &mut self,
        filter: &DeadFilter,
        at: DeadAt,
        now: Now,
    ) -> DeadChange {
        let (numbers, next) = self.find_letters(filter, Right::Admin, at, CHANGES_MAX, now);
        let done = numbers.into_iter().filter(|&number| self.engine.remove_dead(number)).count();
        self.deliver(None, now);
        DeadChange { done, skipped: 0, next }
    }
}
