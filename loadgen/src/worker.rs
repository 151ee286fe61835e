//! One worker connection: registers, grabs until there is no job, sleeps, grabs when woken.
//!
//! In: frames from the server. Out: answers appended to the connection's bytes, counts in the
//! recorder, and what the event loop is to do next. Knows neither sockets nor clocks. Behaves as
//! libgearman's worker, except that a result and the next grab stand together, for one write.
//! Invariant: at most one job is at hand.

use std::time::Duration;

use ringgear::wire::{Arguments, Command, Header, Magic, encode};

use crate::checker::Ran;
use crate::payload::{Kind, Stamp};
use crate::recorder::Recorder;

/// Sweeps per `--sleep-max`.
pub(crate) const SWEEPS: u32 = 4;

/// A worker's state in the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// GRAB_JOB has been sent.
    Grabbing,
    /// PRE_SLEEP has been sent.
    Asleep,
    /// A job is at hand.
    Working,
}

/// What the event loop is to do after a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Go on.
    Nothing,
    /// The connection is set up.
    Ready,
    /// Call `finish` after this time.
    WorkFor(Duration),
    /// Drop the connection, with the job that it holds, and open another.
    Crash,
    /// The last answer has been taken in: replace the connection.
    Leave,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Tells which function is its own, if each has one.
    number: usize,
    /// Of `--idle-workers`.
    pub(crate) is_idle: bool,
    /// Takes no further job and is replaced.
    pub(crate) is_leaving: bool,
    state: State,
    has_echoed: bool,
    /// Sweeps of the event loop that found it asleep.
    swept: u32,
    handle: Vec<u8>,
    stamp: Stamp,
    payload_bytes: usize,
    crashes: bool,
    fails: bool,
}

impl Worker {
    /// The worker of that number, from 0.
    pub(crate) fn new(number: usize, is_idle: bool) -> Self {
        Self {
            number,
            is_idle,
            is_leaving: false,
            state: State::Grabbing,
            has_echoed: false,
            swept: 0,
            handle: Vec::new(),
            stamp: Stamp::default(),
            payload_bytes: 0,
            crashes: false,
            fails: false,
        }
    }

    /// Whether it can be replaced at once.
    pub(crate) fn is_asleep(&self) -> bool {
        self.state == State::Asleep && self.has_echoed
    }

    /// Called at even times: grabs unasked if it has slept through `SWEEPS` of them.
    pub(crate) fn sweep(&mut self, recorder: &Recorder, out: &mut Vec<u8>) {
        self.swept += 1;
        if self.is_asleep() && !self.is_leaving && self.swept > SWEEPS {
            self.grab(recorder, out);
        }
    }

    /// Starts over on a new connection.
    pub(crate) fn connected(&mut self, recorder: &Recorder, out: &mut Vec<u8>) {
        let handle = std::mem::take(&mut self.handle);
        *self = Self { handle, ..Self::new(self.number, self.is_idle) };
        let shared = &recorder.shared;
        out.extend_from_slice(if self.is_idle {
            &shared.idle_registration
        } else {
            &shared.registrations[self.number % shared.registrations.len()]
        });
        self.grab(recorder, out);
    }

    /// Takes one packet.
    pub(crate) fn handle(
        &mut self,
        recorder: &mut Recorder,
        out: &mut Vec<u8>,
        header: Header,
        body: &[u8],
    ) -> Next {
        let Ok(arguments) = Arguments::split(header.command, body) else {
            recorder.counts.faults.foreign += 1;
            return Next::Nothing;
        };
        match header.command {
            Command::NoJob => {
                encode(out, Magic::Request, Command::PreSleep, &[], &[]);
                if !self.has_echoed || self.is_leaving {
                    encode(out, Magic::Request, Command::EchoReq, &[], b"asleep");
                }
                self.state = State::Asleep;
                self.swept = 0;
            }
            // One that arrives at another time was overtaken by a grab; libgearman ignores it too.
            Command::Noop if self.state == State::Asleep => self.grab(recorder, out),
            Command::Noop => {}
            Command::JobAssign | Command::JobAssignUniq | Command::JobAssignAll => {
                let payload = body.get(arguments.payload_at()..).unwrap_or_default();
                return self.assigned(recorder, out, arguments.part(0), payload);
            }
            Command::EchoRes if self.is_leaving => return Next::Leave,
            Command::EchoRes => {
                self.has_echoed = true;
                return Next::Ready;
            }
            Command::Error => recorder.counts.error(arguments.part(0), arguments.part(1)),
            _ => recorder.counts.faults.foreign += 1,
        }
        Next::Nothing
    }

    /// The simulated work is done.
    pub(crate) fn finish(&mut self, recorder: &mut Recorder, out: &mut Vec<u8>) -> Next {
        if self.state != State::Working {
            return Next::Nothing;
        }
        if self.crashes {
            recorder.shared.ledger.give_up(self.stamp.id);
            recorder.counts.crashes += 1;
            return Next::Crash;
        }
        if self.fails {
            recorder.shared.ledger.give_up(self.stamp.id);
            encode(out, Magic::Request, Command::WorkFail, &[&self.handle], &[]);
            self.go_on(recorder, out);
            return Next::Nothing;
        }
        match recorder.shared.ledger.run(self.stamp.id) {
            Ran::First => recorder.ran += 1,
            Ran::Again => recorder.counts.faults.duplicated += 1,
            Ran::Keyed => {}
            Ran::Unknown => recorder.counts.faults.foreign += 1,
        }
        recorder.complete(out, &self.handle, self.stamp, self.payload_bytes);
        self.go_on(recorder, out);
        Next::Nothing
    }

    /// Grabs the next job, unless it is to leave.
    fn go_on(&mut self, recorder: &Recorder, out: &mut Vec<u8>) {
        if self.is_leaving {
            // Once this comes back, the answer before it has been taken in.
            encode(out, Magic::Request, Command::EchoReq, &[], b"leaving");
            self.state = State::Asleep;
        } else {
            self.grab(recorder, out);
        }
    }

    fn assigned(
        &mut self,
        recorder: &mut Recorder,
        out: &mut Vec<u8>,
        handle: &[u8],
        payload: &[u8],
    ) -> Next {
        let Some(stamp) = recorder.shared.pool.read(Kind::Job, payload) else {
            // Not ours, or changed on the way: there is no result that would be right for it.
            recorder.counts.foreign_job();
            encode(out, Magic::Request, Command::WorkFail, &[handle], &[]);
            self.grab(recorder, out);
            return Next::Nothing;
        };
        if !self.has_echoed {
            // There is a backlog: it may be long before this worker sleeps, and it is set up.
            encode(out, Magic::Request, Command::EchoReq, &[], b"busy");
        }
        let options = &recorder.shared.options;
        self.handle.clear();
        self.handle.extend_from_slice(handle);
        self.stamp = stamp;
        self.payload_bytes = payload.len();
        self.state = State::Working;
        self.crashes = options.worker_crash > 0.0 && recorder.rng.f64() < options.worker_crash;
        self.fails = options.worker_fail > 0.0 && recorder.rng.f64() < options.worker_fail;
        if options.worker_crash > 0.0 || options.worker_fail > 0.0 {
            recorder.counts.reruns += u64::from(recorder.shared.ledger.is_rerun(stamp.id));
        }
        let work_time = options.work_time.sample(&mut recorder.rng);
        if work_time.is_zero() { self.finish(recorder, out) } else { Next::WorkFor(work_time) }
    }

    fn grab(&mut self, recorder: &Recorder, out: &mut Vec<u8>) {
        let all = recorder.shared.options.grab_all;
        let command = if all { Command::GrabJobAll } else { Command::GrabJob };
        encode(out, Magic::Request, command, &[], &[]);
        self.state = State::Grabbing;
    }
}
