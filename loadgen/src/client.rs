//! One client connection: submits, pairs JOB_CREATED with submissions in order and results with
//! handles, as libgearman does, and says of every answer whether it is the right one.
//!
//! In: frames from the server and `now`. Out: submissions appended to the connection's bytes, and
//! counts in the recorder. Knows neither sockets nor clocks. Invariant: a slot is free, or one
//! job's; `in_flight` is the number of slots that are not free.

use std::collections::VecDeque;

use ringgear::wire::{Arguments, Command, Header};

use crate::payload::{Kind, Stamp};
use crate::recorder::Recorder;
use crate::shared::Phase;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Free,
    /// JOB_CREATED is awaited.
    Sent,
    /// The result is awaited.
    Created,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    state: State,
    stamp: Stamp,
    /// Hash of the job's handle, once known.
    handle: u64,
    /// Hash of the handle of the job before it: a second answer to that one is a duplicate.
    handle_before: u64,
    due_ns: u64,
    measured: bool,
    payload_bytes: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Client {
    /// Unique in the run.
    pub(crate) index: u32,
    /// Submits nothing any more and is replaced once its jobs are answered.
    pub(crate) is_leaving: bool,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Slots whose JOB_CREATED is awaited, in the order of their submissions.
    unacknowledged: VecDeque<u32>,
    in_flight: usize,
    /// When the connection of `--mode connect` that is in flight began, and whether it is measured.
    connecting: Option<(u64, bool)>,
}

/// What a packet meant for the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientEvent {
    /// Nothing beyond the counts.
    None,
    /// The echo that ends the set-up.
    Ready,
}

impl Client {
    pub(crate) fn new(index: u32) -> Self {
        Self {
            index,
            is_leaving: false,
            slots: Vec::new(),
            free: Vec::new(),
            unacknowledged: VecDeque::new(),
            in_flight: 0,
            connecting: None,
        }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Submits a job that was due at `due_ns`.
    pub(crate) fn submit(
        &mut self,
        recorder: &mut Recorder,
        out: &mut Vec<u8>,
        due_ns: u64,
        now_ns: u64,
    ) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let submitted = recorder.submit(out, self.index, index, now_ns);
        if let Some(slot) = self.slots.get_mut(index as usize) {
            slot.state = State::Sent;
            slot.stamp = submitted.stamp;
            slot.due_ns = due_ns;
            slot.measured = recorder.phase == Phase::Measured;
            slot.payload_bytes = submitted.payload_bytes;
        }
        self.unacknowledged.push_back(index);
        self.in_flight += 1;
    }

    /// Keeps the closed loop's number of jobs in flight.
    pub(crate) fn fill(&mut self, recorder: &mut Recorder, out: &mut Vec<u8>, now_ns: u64) {
        let pipeline = recorder.shared.options.pipeline;
        while self.in_flight < pipeline && !self.is_leaving && recorder.may_submit() {
            self.submit(recorder, out, now_ns, now_ns);
        }
    }

    /// Begins a connection that is itself what is counted.
    pub(crate) fn connect(&mut self, recorder: &mut Recorder, now_ns: u64) {
        self.connecting = Some((now_ns, recorder.phase == Phase::Measured));
        self.in_flight += 1;
        recorder.begin();
    }

    /// The server closed the connection: its jobs are lost. Returns how many they were.
    pub(crate) fn abandon(&mut self, recorder: &mut Recorder) -> u64 {
        let lost = self.in_flight as u64;
        recorder.in_flight -= lost;
        *self = Self::new(self.index);
        lost
    }

    /// Takes one packet.
    pub(crate) fn handle(
        &mut self,
        recorder: &mut Recorder,
        header: Header,
        body: &[u8],
        now_ns: u64,
    ) -> ClientEvent {
        let Ok(arguments) = Arguments::split(header.command, body) else {
            recorder.counts.faults.foreign += 1;
            return ClientEvent::None;
        };
        match header.command {
            Command::JobCreated => self.job_created(recorder, arguments.part(0), now_ns),
            Command::WorkComplete => {
                let result = body.get(arguments.payload_at()..).unwrap_or_default();
                self.work_complete(recorder, arguments.part(0), result, now_ns);
            }
            Command::WorkFail | Command::WorkException => {
                match self.find(hash(arguments.part(0))) {
                    Some(index) => {
                        self.release(recorder, index);
                        recorder.counts.error(header.command.name().as_bytes(), arguments.part(0));
                    }
                    None => recorder.counts.faults.foreign += 1,
                }
            }
            Command::Error => {
                if let Some(index) = self.unacknowledged.pop_front() {
                    self.release(recorder, index);
                }
                recorder.counts.error(arguments.part(0), arguments.part(1));
            }
            Command::EchoRes => {
                if let Some((due_ns, measured)) = self.connecting.take() {
                    recorder.answered(due_ns, measured, 0, now_ns);
                    recorder.in_flight -= 1;
                    self.in_flight -= 1;
                }
                return ClientEvent::Ready;
            }
            _ => recorder.counts.faults.foreign += 1,
        }
        ClientEvent::None
    }

    fn job_created(&mut self, recorder: &mut Recorder, handle: &[u8], now_ns: u64) {
        let Some(index) = self.unacknowledged.pop_front() else {
            recorder.counts.faults.foreign += 1;
            return;
        };
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        slot.state = State::Created;
        slot.handle = hash(handle);
        if recorder.shared.options.is_background() {
            let Slot { stamp, due_ns, measured, payload_bytes, .. } = *slot;
            recorder.accepted += u64::from(recorder.shared.ledger.accept(stamp.id));
            recorder.answered(due_ns, measured, payload_bytes, now_ns);
            self.release(recorder, index);
        }
    }

    fn work_complete(
        &mut self,
        recorder: &mut Recorder,
        handle: &[u8],
        result: &[u8],
        now_ns: u64,
    ) {
        let handle = hash(handle);
        let stamp = recorder.shared.pool.read(Kind::Result, result);
        let awaits = |index: &u32| {
            self.slots
                .get(*index as usize)
                .is_some_and(|slot| slot.state == State::Created && slot.handle == handle)
        };
        // The stamp says where to look first; only shared keys and wrong answers need a search.
        let index = stamp.map(|stamp| stamp.slot).filter(awaits).or_else(|| self.find(handle));
        let Some(index) = index else {
            if self.slots.iter().any(|slot| slot.handle_before == handle) {
                recorder.counts.faults.duplicated += 1;
            } else {
                recorder.counts.faults.foreign += 1;
            }
            return;
        };
        let Some(&Slot { stamp: expected, due_ns, measured, payload_bytes, .. }) =
            self.slots.get(index as usize)
        else {
            return;
        };
        if stamp == Some(expected) {
            recorder.answered(due_ns, measured, payload_bytes + result.len(), now_ns);
        } else {
            recorder.counts.faults.foreign += 1;
        }
        self.release(recorder, index);
    }

    /// The slot of the job that has this handle and awaits its result.
    fn find(&self, handle: u64) -> Option<u32> {
        let awaits = |slot: &Slot| slot.state == State::Created && slot.handle == handle;
        self.slots.iter().position(awaits).and_then(|index| u32::try_from(index).ok())
    }

    fn release(&mut self, recorder: &mut Recorder, index: u32) {
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        slot.state = State::Free;
        slot.handle_before = std::mem::take(&mut slot.handle);
        self.free.push(index);
        self.in_flight -= 1;
        recorder.in_flight -= 1;
    }
}

/// FNV-1a: handles are short.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}
