//! A client or a worker of several servers: what it gets in, what it says next out.
//!
//! Does one thing at a time, and goes to another server when its connection ends.
//!
//! Invariant: a worker that has a job says what becomes of it, unless its connection ends.

use fastrand::Rng;
use ringgear::engine::ConnId;
use ringgear::wire::Command as C;

use super::promises::Submission;
use crate::wire::Request;

pub(super) const FUNCTIONS: [&[u8]; 3] = [b"resize", b"mail", b"index"];

/// What a peer is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    Nothing,
    /// A client waits for JOB_CREATED.
    Submitting(Submission),
    /// A worker waits for a job.
    Grabbing,
    /// A worker waits for a NOOP.
    Sleeping,
    /// A worker runs a job, by its handle.
    Working(Vec<u8>),
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) is_worker: bool,
    /// Its server and the number of its connection there.
    pub(super) place: Option<(usize, ConnId)>,
    pub(super) doing: Doing,
}

impl Peer {
    pub(super) fn new(is_worker: bool) -> Self {
        Self { is_worker, place: None, doing: Doing::Nothing }
    }

    /// Its connection has ended; returns whether a submission stays without an answer.
    pub(super) fn lose_connection(&mut self) -> bool {
        self.place = None;
        matches!(std::mem::replace(&mut self.doing, Doing::Nothing), Doing::Submitting(_))
    }

    /// What it says when it has connected.
    pub(super) fn greet(&self) -> Vec<Request> {
        let functions = FUNCTIONS.iter().filter(|_| self.is_worker);
        functions.map(|function| Request::packet(C::CanDo, &[function], vec![])).collect()
    }
}

/// A background submission.
pub(super) fn submission(rng: &mut Rng, number: Submission, unique: Option<u8>) -> Request {
    let command = [C::SubmitJobBg, C::SubmitJobHighBg, C::SubmitJobLowBg][rng.usize(0..3)];
    // A key belongs to one function.
    let function = match unique {
        Some(unique) => FUNCTIONS[usize::from(unique) % FUNCTIONS.len()],
        None => FUNCTIONS[rng.usize(0..FUNCTIONS.len())],
    };
    let key = unique.map_or(Vec::new(), |unique| vec![b'k', b'0' + unique]);
    Request::packet(command, &[function, &key], number.to_string().into_bytes())
}
