//! The restart's part of the model: what a server on the same store must have afterwards.
//!
//! A commit covers all that happened before it, and a new background job is answered behind its
//! commit. A server that was killed may have lost what came after the last one: ends of jobs and
//! attempts. Invariant: connections, foreground jobs and settings are gone after `restart`.

use std::collections::BTreeMap;

use super::{Checked, Job, Model, State};
use crate::conn::readable;
use crate::operations::Bytes;

impl Model {
    /// A background submission was answered.
    pub(super) fn commit(&mut self) {
        self.ended.clear();
        for job in self.jobs.values_mut() {
            job.attempts_kept = job.attempts;
        }
    }

    /// A job ends, and the store forgets it with its next commit.
    pub(super) fn end_of(&mut self, handle: &[u8], job: &Job) {
        if job.is_kept() {
            self.ended.insert(handle.to_vec(), job.clone());
        }
    }

    /// The server has ended, by SIGKILL if it was `killed`, and another one has taken the store
    /// over, whose `show jobs` has these rows.
    pub(crate) fn restart(&mut self, killed: bool, pid: u32, rows: &[Bytes]) -> Checked<()> {
        self.rules.pid = pid;
        self.clock += 1;
        self.peers.clear();
        self.functions.clear();
        let mut before = std::mem::take(&mut self.jobs);
        before.retain(|_, job| job.is_kept());
        let mut ended = std::mem::take(&mut self.ended);
        if !killed {
            ended.clear();
        }
        for row in rows {
            let sentence = || format!("`show jobs` after the restart: {}", readable(row));
            let (handle, attempts) = kept(row).ok_or_else(sentence)?;
            let Some(mut job) = before.remove(&handle).or_else(|| ended.remove(&handle)) else {
                return Err(format!("{}; no such job was kept", sentence()));
            };
            let least = if killed { job.attempts_kept } else { job.attempts };
            if !(least..=job.attempts).contains(&attempts) {
                return Err(format!("{}; it had {} attempts", sentence(), job.attempts));
            }
            (job.attempts, job.attempts_kept) = (attempts, attempts);
            job.progress = (0, 0);
            job.clients.clear();
            self.jobs.insert(handle, job);
        }
        if let Some((handle, job)) = before.pop_first() {
            let (handle, function) = (readable(&handle), readable(&job.function));
            return Err(format!("{handle} of {function:?}, {:?} before, is lost", job.state));
        }
        // Queues are in the order of the numbers in handles.
        let numbers = self.jobs.keys().map(|handle| (number_of(handle), handle.clone()));
        for handle in numbers.collect::<BTreeMap<u64, Bytes>>().into_values() {
            let (state, function) = (self.jobs[&handle].state, self.jobs[&handle].function.clone());
            self.functions.entry(function).or_default();
            if state != State::Delayed {
                self.enqueue(&handle, false);
            }
        }
        Ok(())
    }
}

/// Handle and attempts of a background job in `show jobs`.
fn kept(row: &[u8]) -> Option<(Bytes, u32)> {
    let fields: Vec<&[u8]> = row.strip_suffix(b"\n")?.split(|&byte| byte == b'\t').collect();
    let [handle, attempts, b"0", b"1"] = *fields else { return None };
    Some((handle.to_vec(), std::str::from_utf8(attempts).ok()?.parse().ok()?))
}

fn number_of(handle: &[u8]) -> u64 {
    let digits = handle.rsplit(|&byte| byte == b':').next().unwrap_or_default();
    let text = std::str::from_utf8(digits).expect("handles end in a number");
    text.parse().expect("handles end in a number")
}
