//! What the clients and workers of one thread share: random numbers in, counts out.
//!
//! In: the shared options and books, a seed. Out: encoded submissions and results, and the
//! thread's counts. Knows packets, not sockets; time is an argument.

use std::sync::Arc;

use fastrand::Rng;
use hdrhistogram::Histogram;
use ringgear::wire::{Command, HEADER_BYTES, Magic, Priority, encode};

use crate::checker::{KEYED, number};
use crate::counts::{Counts, histogram};
use crate::options::Mode;
use crate::payload::{Kind, Stamp};
use crate::shared::{Phase, Shared};

/// A submission that has been written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Submitted {
    pub(crate) stamp: Stamp,
    pub(crate) payload_bytes: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) shared: Arc<Shared>,
    pub(crate) rng: Rng,
    pub(crate) counts: Counts,
    /// Latencies since the progress was last shown.
    pub(crate) recent_ns: Histogram<u64>,
    pub(crate) phase: Phase,
    /// What is left of `--jobs` for this thread.
    pub(crate) quota_left: Option<u64>,
    pub(crate) in_flight: u64,
    pub(crate) accepted: u64,
    pub(crate) ran: u64,
    pub(crate) last_answer_ns: u64,
    thread: usize,
    serial: u64,
    unique: Vec<u8>,
}

impl Recorder {
    pub(crate) fn new(shared: Arc<Shared>, thread: usize, quota: Option<u64>) -> Self {
        let rng = Rng::with_seed(shared.options.seed.wrapping_mul(0x1_0000_01b3) ^ thread as u64);
        Self {
            shared,
            rng,
            counts: Counts::new(),
            recent_ns: histogram(),
            phase: Phase::SetUp,
            quota_left: quota,
            in_flight: 0,
            accepted: 0,
            ran: 0,
            last_answer_ns: 0,
            thread,
            serial: 0,
            unique: Vec::new(),
        }
    }

    /// Whether another job may be submitted now.
    pub(crate) fn may_submit(&self) -> bool {
        match self.phase {
            Phase::WarmUp => true,
            Phase::Measured => self.quota_left != Some(0),
            Phase::SetUp | Phase::Drain | Phase::Done => false,
        }
    }

    /// Appends a submission to `out`.
    pub(crate) fn submit(
        &mut self,
        out: &mut Vec<u8>,
        client: u32,
        slot: u32,
        now_ns: u64,
    ) -> Submitted {
        let shared = &self.shared;
        let options = &shared.options;
        let keyed = options.unique > 0.0 && self.rng.f64() < options.unique;
        let stamp = if keyed {
            let key = self.rng.u32(0..options.unique_keys);
            Stamp { id: KEYED | u64::from(key), client: u32::MAX, slot: key }
        } else {
            let id = number(self.thread, self.serial);
            self.serial += 1;
            Stamp { id, client, slot }
        };
        // All that share a key submit the same payload to the same function.
        let of_key = &mut Rng::with_seed(options.seed ^ stamp.id);
        let drawn = if keyed { of_key } else { &mut self.rng };
        let payload_bytes = options.size.sample(drawn);
        let function = match shared.functions.len() {
            1 => 0,
            count if options.dedicated => client as usize % count,
            count => drawn.usize(0..count),
        };
        let priority = options.priority_mix.sample(drawn);
        self.unique.clear();
        if keyed || options.fresh_unique {
            write_unique(&mut self.unique, stamp.id);
        }
        let function = shared.functions.get(function).map(Vec::as_slice).unwrap_or_default();
        let at = out.len();
        if options.mode == Mode::Delayed {
            let due = shared.clock.unix_seconds(now_ns) + options.delay.0.as_secs();
            let epoch = due.to_string();
            let arguments = [function, &self.unique, epoch.as_bytes()];
            encode(out, Magic::Request, Command::SubmitJobEpoch, &arguments, &[]);
        } else {
            let command = submit_command(options.mode, priority);
            encode(out, Magic::Request, command, &[function, &self.unique], &[]);
        }
        shared.pool.write(out, Kind::Job, stamp, payload_bytes);
        finish_packet(out, at);
        self.begin();
        Submitted { stamp, payload_bytes }
    }

    /// Counts a job, or a connection of `--mode connect`, that is in flight from now on.
    pub(crate) fn begin(&mut self) {
        if self.phase == Phase::Measured
            && let Some(left) = &mut self.quota_left
        {
            *left = left.saturating_sub(1);
        }
        self.in_flight += 1;
    }

    /// Appends a worker's answer to `out`.
    pub(crate) fn complete(
        &mut self,
        out: &mut Vec<u8>,
        handle: &[u8],
        stamp: Stamp,
        payload_bytes: usize,
    ) {
        let shared = &self.shared;
        let bytes = match &shared.options.result_size {
            Some(size) => size.sample(&mut self.rng),
            None => payload_bytes,
        };
        let at = out.len();
        encode(out, Magic::Request, Command::WorkComplete, &[handle], &[]);
        shared.pool.write(out, Kind::Result, stamp, bytes);
        finish_packet(out, at);
    }

    /// A job has its answer.
    pub(crate) fn answered(&mut self, due_ns: u64, measured: bool, bytes: usize, now_ns: u64) {
        self.last_answer_ns = now_ns;
        self.counts.answered += 1;
        if self.phase == Phase::Measured {
            self.counts.window_jobs += 1;
            self.counts.window_bytes += bytes as u64;
        }
        let latency_ns = now_ns.saturating_sub(due_ns).max(1);
        if measured {
            self.counts.latency_ns.saturating_record(latency_ns);
        }
        if self.shared.watched {
            self.recent_ns.saturating_record(latency_ns);
        }
    }
}

fn submit_command(mode: Mode, priority: Priority) -> Command {
    match (mode, priority) {
        (Mode::Foreground, Priority::High) => Command::SubmitJobHigh,
        (Mode::Foreground, Priority::Normal) => Command::SubmitJob,
        (Mode::Foreground, Priority::Low) => Command::SubmitJobLow,
        (Mode::Background, Priority::High) => Command::SubmitJobHighBg,
        (Mode::Background, Priority::Normal) => Command::SubmitJobBg,
        (Mode::Background, Priority::Low) => Command::SubmitJobLowBg,
        // The latter submits nothing.
        (Mode::Delayed | Mode::Connect, _) => Command::SubmitJobEpoch,
    }
}

/// Sets the body size of the packet at `at` to what has been appended since: payloads are
/// written in place, without a copy of their own.
fn finish_packet(out: &mut [u8], at: usize) {
    let body_bytes = out.len() - at - HEADER_BYTES;
    let size = u32::try_from(body_bytes).unwrap_or(u32::MAX).to_be_bytes();
    if let Some(field) = out.get_mut(at + HEADER_BYTES - size.len()..at + HEADER_BYTES) {
        field.copy_from_slice(&size);
    }
}

/// A key as long as the UUIDs that clients make up, without a formatter.
fn write_unique(out: &mut Vec<u8>, id: u64) {
    out.extend_from_slice(b"00000000-0000-4000-8000-");
    for shift in (0..64).step_by(4).rev() {
        let digit = usize::try_from(id >> shift & 15).unwrap_or_default();
        out.push(b"0123456789abcdef".get(digit).copied().unwrap_or(b'0'));
    }
}
