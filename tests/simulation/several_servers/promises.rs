//! What several servers promise together: what peers and database saw in, breaches as panics.
//!
//! P1 to P7 of docs/cluster.md as far as peers can see them. A job is known by its payload, which
//! is the number of the submission that made it.
//!
//! Invariant: looks at no server, but for which of them a database says is an owner.

use std::collections::{BTreeMap, BTreeSet};

/// Number of a submission.
pub(super) type Submission = u64;

#[derive(Debug, Default)]
struct Submitted {
    unique: Option<u8>,
    step: u64,
    handle: Option<u64>,
    /// When it was acknowledged.
    acknowledged: u64,
    /// A failover has undone what the server knew that acknowledged it.
    is_undone: bool,
}

/// What is known of a handle.
#[derive(Debug, Default)]
struct Known {
    payload: Option<Submission>,
    /// Steps in which runs of it ended well.
    completed: Vec<u64>,
    assigned: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Promises {
    submitted: BTreeMap<Submission, Submitted>,
    handles: BTreeMap<u64, Known>,
    /// Jobs that a failover has lost, and that no server has written again so far.
    pub(super) lost: BTreeSet<u64>,
    pub(crate) events: BTreeMap<&'static str, u64>,
}

impl Promises {
    pub(super) fn count(&mut self, what: &'static str) {
        *self.events.entry(what).or_default() += 1;
    }

    /// A submission is sent; returns its number.
    pub(super) fn submit(&mut self, unique: Option<u8>, step: u64) -> Submission {
        let number = self.submitted.len() as u64;
        self.submitted.insert(number, Submitted { unique, step, ..Submitted::default() });
        number
    }

    /// JOB_CREATED of a background submission. `is_owner`: no failover has just undone that the
    /// server owns the job. A server that hasn't heard of that yet lets a submission join a job
    /// that the owner of that time may have done.
    pub(super) fn acknowledged(
        &mut self,
        submission: Submission,
        handle: u64,
        step: u64,
        is_owner: bool,
    ) {
        self.count("acknowledged");
        let submitted = self.submitted.get_mut(&submission).unwrap();
        assert_eq!(submitted.handle.replace(handle), None, "acknowledged twice");
        submitted.acknowledged = step;
        submitted.is_undone |= submitted.unique.is_some() && !is_owner;
        let known = self.handles.entry(handle).or_default();
        if submitted.unique.is_none() {
            let payload = *known.payload.get_or_insert(submission);
            assert_eq!(payload, submission, "handle {handle} is given twice");
        }
    }

    /// JOB_ASSIGN. `is_owner`: the database says that the server owns the job's partition.
    pub(super) fn assigned(
        &mut self,
        handle: u64,
        payload: Submission,
        is_owner: bool,
        is_removed: bool,
    ) {
        self.count("assigned");
        let known = self.handles.entry(handle).or_default();
        let before = *known.payload.get_or_insert(payload);
        assert_eq!(before, payload, "handle {handle} means two jobs");
        known.assigned += 1;
        let again = known.assigned > 1;
        assert!(is_owner, "job {handle} is handed out by a server that doesn't own it");
        assert!(!is_removed, "job {handle} is handed out though its end was committed");
        if again {
            self.count("assigned again");
        }
    }

    /// WORK_COMPLETE.
    pub(super) fn completed(&mut self, handle: u64, step: u64) {
        self.count("completed");
        self.handles.entry(handle).or_default().completed.push(step);
    }

    /// A failover has lost these jobs, and all that happened since `replicated`: only what its
    /// owner still has comes back. A submission may have joined a job that the owner of that time
    /// has done.
    pub(super) fn fail_over(&mut self, lost: BTreeSet<u64>, replicated: u64) {
        self.lost.extend(lost);
        for submitted in self.submitted.values_mut() {
            submitted.is_undone |=
                submitted.unique.is_some() && submitted.acknowledged >= replicated;
        }
    }

    /// At the end: each acknowledged job has run, and so since it was submitted.
    pub(super) fn check_end(&mut self) {
        for (number, submitted) in self.submitted.iter().filter(|(_, it)| !it.is_undone) {
            let Submitted { unique, step, handle, .. } = submitted;
            let Some(handle) = handle else { continue };
            let known = &self.handles[handle];
            if self.lost.contains(handle) {
                continue;
            }
            let runs = &known.completed;
            assert!(
                runs.iter().any(|run| run >= step),
                "submission {number} of step {step}, job {handle}, has run at {runs:?} only"
            );
            let payload = known.payload.unwrap();
            assert_eq!(self.submitted[&payload].unique, *unique, "job {handle} is of another key");
        }
    }
}
