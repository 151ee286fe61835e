//! A queue without workers is filled to a depth, then drained: what one job costs as there are
//! more.
//!
//! One blocking connection, a window of submissions or grabs at a time, so that the longest pause
//! is the longest that any window took. Every job is counted when it comes out: lost or doubled
//! ones fail the sample. A phase that takes too long is cut short, and says at which depth.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::contender::Protocol;
use crate::process::{Cores, Cpu, Memory, Pinned, thread_cpu_us};
use crate::sample::{Sample, Status};
use crate::wire_protocol::Event;

/// Jobs in flight. All of them fit the sockets' buffers, so that writing never waits for reading.
const WINDOW: u64 = 64;
const PAYLOAD_BYTES: usize = 64;
const READ_BYTES: usize = 64 << 10;
/// Longest silence of a server.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection that answers are cut from.
pub(crate) struct Wire {
    stream: TcpStream,
    protocol: Protocol,
    inbox: Vec<u8>,
    /// Bytes of `inbox` that have been read from the socket.
    filled: usize,
    used: usize,
    /// What is to be written next.
    pub(crate) outbox: Vec<u8>,
}

impl Wire {
    /// Connects.
    pub(crate) fn connect(address: SocketAddr, protocol: Protocol) -> Result<Self> {
        let stream = TcpStream::connect(address).context("a connection to the server")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let (inbox, outbox) = (vec![0; READ_BYTES], Vec::new());
        Ok(Self { stream, protocol, inbox, filled: 0, used: 0, outbox })
    }

    /// Writes what stands in the outbox.
    pub(crate) fn send(&mut self) -> Result<()> {
        self.stream.write_all(&self.outbox).context("the server doesn't read")?;
        self.outbox.clear();
        Ok(())
    }

    /// Waits for the next event and hands it to `take`, with the outbox for an answer.
    pub(crate) fn next<T>(&mut self, take: impl FnOnce(Event<'_>, &mut Vec<u8>) -> T) -> Result<T> {
        loop {
            let unread = &self.inbox[self.used..self.filled];
            if let Some((event, bytes)) = self.protocol.cut(unread)? {
                self.used += bytes;
                return Ok(take(event, &mut self.outbox));
            }
            self.inbox.copy_within(self.used..self.filled, 0);
            self.filled -= self.used;
            self.used = 0;
            if self.filled == self.inbox.len() {
                self.inbox.resize(2 * self.filled, 0);
            }
            match self.stream.read(&mut self.inbox[self.filled..]) {
                Ok(0) => bail!("the server closed the connection"),
                Ok(bytes) => self.filled += bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("the server doesn't answer"),
            }
        }
    }
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// What the server speaks.
    pub(crate) protocol: Protocol,
    /// Jobs to fill in.
    pub(crate) depth: u64,
    /// After which a phase is cut short.
    pub(crate) limit: Duration,
}

/// What a phase came to.
struct Phase {
    jobs: u64,
    time: Duration,
    longest: Duration,
    cpu: Option<Cpu>,
    own_cpu_us: f64,
}

impl Run {
    /// Fills and drains a fresh server; one sample each.
    pub(crate) fn against(
        &self,
        address: SocketAddr,
        pid: u32,
        cores: &Cores,
    ) -> Result<[Sample; 2]> {
        let _pinned = Pinned::to(&cores.load);
        let empty = Memory::of(pid).unwrap_or_default();
        let mut producer = Wire::connect(address, self.protocol)?;
        let fill = self.phase(pid, self.depth, |at, jobs| self.fill(&mut producer, at, jobs))?;
        let full = Memory::of(pid).unwrap_or_default();

        let mut worker = Wire::connect(address, self.protocol)?;
        self.protocol.greet(&mut worker.outbox);
        let mut seen = vec![false; usize::try_from(fill.jobs)?];
        let drain =
            self.phase(pid, fill.jobs, |_, jobs| self.drain(&mut worker, jobs, &mut seen))?;
        let left = seen.iter().filter(|&&seen| !seen).count();
        let memory = Memory::of(pid).unwrap_or_default();

        let mut fill_sample = self.sample("fill", &fill, full, self.depth);
        #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
        let bytes = (full.now_bytes - empty.now_bytes) / fill.jobs as f64;
        fill_sample.bytes_per_queued_job = Some(bytes);
        let mut drain_sample = self.sample("drain", &drain, memory, fill.jobs);
        if left as u64 != fill.jobs - drain.jobs {
            drain_sample.status = Status::Failed;
            drain_sample.note = format!("{left} of {} jobs never came out", fill.jobs);
        }
        Ok([fill_sample, drain_sample])
    }

    fn phase(
        &self,
        pid: u32,
        jobs_max: u64,
        mut window: impl FnMut(u64, u64) -> Result<()>,
    ) -> Result<Phase> {
        let (start, before, own_before_us) = (Instant::now(), Cpu::of(pid), thread_cpu_us());
        let (mut jobs, mut longest) = (0, Duration::ZERO);
        while jobs < jobs_max && start.elapsed() < self.limit {
            let count = WINDOW.min(jobs_max - jobs);
            let window_start = Instant::now();
            window(jobs, count)?;
            longest = longest.max(window_start.elapsed());
            jobs += count;
        }
        let cpu = before.and_then(|before| Some(Cpu::of(pid)?.since(before)));
        let own_cpu_us = thread_cpu_us() - own_before_us;
        Ok(Phase { jobs, time: start.elapsed(), longest, cpu, own_cpu_us })
    }

    fn fill(&self, wire: &mut Wire, at: u64, count: u64) -> Result<()> {
        for number in at..at + count {
            let mut payload = format!("{number:016x}").into_bytes();
            let unique = format!("unique-{number}");
            payload.resize(PAYLOAD_BYTES, b'x');
            self.protocol.put(&mut wire.outbox, unique.as_bytes(), &payload);
        }
        wire.send()?;
        for _ in 0..count {
            let is_kept = wire.next(|event, _| event == Event::Ok)?;
            if !is_kept {
                bail!("a submission was answered with something else");
            }
        }
        Ok(())
    }

    fn drain(&self, wire: &mut Wire, count: u64, seen: &mut [bool]) -> Result<()> {
        for _ in 0..count {
            self.protocol.take(&mut wire.outbox, 0);
        }
        wire.send()?;
        for _ in 0..count {
            let number = wire.next(|event, out| {
                let Event::Job { id, payload } = event else { return None };
                self.protocol.done(out, 0, id, payload);
                usize::from_str_radix(str::from_utf8(payload.get(..16)?).ok()?, 16).ok()
            })?;
            let Some(seen) = number.and_then(|number| seen.get_mut(number)) else {
                bail!("a grab was answered with something else than one of the jobs");
            };
            if std::mem::replace(seen, true) {
                bail!("a job came out twice");
            }
        }
        wire.send()?;
        if self.protocol.acknowledges() {
            for _ in 0..count {
                wire.next(|_, _| ())?;
            }
        }
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
    fn sample(&self, what: &str, phase: &Phase, memory: Memory, wanted: u64) -> Sample {
        let jobs = phase.jobs as f64;
        let seconds = phase.time.as_secs_f64();
        let cut_short = format!("cut short at {} jobs after {seconds:.0} s", phase.jobs);
        Sample {
            point: name(what, self.depth),
            x: Some(self.depth as f64),
            status: Status::Ok,
            note: if phase.jobs < wanted { cut_short } else { String::new() },
            jobs: phase.jobs,
            seconds,
            jobs_per_second: jobs / seconds,
            bytes_per_second: Some(jobs * PAYLOAD_BYTES as f64 / seconds),
            max_us: Some(phase.longest.as_secs_f64() * 1e6),
            rss_peak_bytes: Some(memory.peak_bytes),
            rss_end_bytes: Some(memory.now_bytes),
            load_cpu_share: Some(phase.own_cpu_us / (seconds * 1e6)),
            ..Sample::default()
        }
        .with_cpu(phase.cpu)
    }
}

/// What a phase is called in tables.
pub(crate) fn name(what: &str, depth: u64) -> String {
    format!("{what} {}", short(depth))
}

/// A round number, short: 10 k, 1 M.
pub(crate) fn short(number: u64) -> String {
    match number {
        1_000_000.. => format!("{} M", number / 1_000_000),
        1000.. => format!("{} k", number / 1000),
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depths_have_short_names() {
        assert_eq!([short(500), short(10_000), short(1_000_000)], ["500", "10 k", "1 M"]);
    }
}
