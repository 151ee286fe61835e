//! A queue without workers is filled to a depth, then drained: what one job costs as there are
//! more.
//!
//! One blocking connection, a window of submissions or grabs at a time, so that the longest pause
//! is the longest that any window took. Every job is counted when it comes out: lost or doubled
//! ones fail the sample. A phase that takes too long is cut short, and says at which depth.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use loadgen::units::count;

use crate::bench_target::BenchTarget;
use crate::format::short;
use crate::process::{Cpu, Memory, Server, thread_cpu_us};
use crate::sample::{Sample, Status};
use crate::wire::Wire;
use crate::wire_protocol::{Event, Protocol};

/// Jobs in flight. All of them fit the sockets' buffers, so that writing never waits for reading.
const WINDOW: u64 = 64;
const PAYLOAD_BYTES: usize = 64;

/// Fills and drains a fresh server for each depth; a sample of either.
pub(crate) fn samples(target: &BenchTarget<'_>, depths: &[u64]) -> Vec<Sample> {
    let one = |&depth: &u64| {
        let limit = target.options.phase_limit;
        let run = Run { protocol: target.contender.protocol(), depth, limit };
        let failed = |error| vec![run.at("fill", Sample::or_failed(Err(error)))];
        target.drive(|server| run.against(server)).unwrap_or_else(failed)
    };
    depths.iter().flat_map(one).collect()
}

struct Run {
    protocol: Protocol,
    /// Jobs to fill in.
    depth: u64,
    /// After which a phase is cut short.
    limit: Duration,
}

impl Run {
    fn at(&self, phase: &str, sample: Sample) -> Sample {
        sample.at(format!("{phase} {}", short(self.depth)), self.depth as f64)
    }

    fn against(&self, server: &Server) -> Result<Vec<Sample>> {
        let pid = server.pid();
        let empty = Memory::of(pid).unwrap_or_default();
        let mut producer = Wire::connect(server.address, self.protocol)?;
        let fill = self.phase(pid, self.depth, |at, jobs| self.fill(&mut producer, at, jobs))?;
        let full_bytes = Memory::of(pid).unwrap_or_default().now_bytes;
        let bytes_per_queued_job = Some((full_bytes - empty.now_bytes) / fill.jobs as f64);

        let mut worker = Wire::connect(server.address, self.protocol)?;
        self.protocol.greet(&mut worker.outbox);
        let mut seen = vec![false; usize::try_from(fill.jobs)?];
        let mut drain =
            self.phase(pid, fill.jobs, |_, jobs| self.drain(&mut worker, jobs, &mut seen))?;
        let left = seen.iter().filter(|&&seen| !seen).count();
        if left as u64 != fill.jobs - drain.jobs {
            drain.status = Status::Failed;
            drain.note = format!("{left} of {} jobs never came out", count(fill.jobs));
        }
        let fill = Sample { bytes_per_queued_job, ..fill };
        Ok(vec![self.at("fill", fill), self.at("drain", drain)])
    }

    fn phase(
        &self,
        pid: u32,
        jobs_max: u64,
        mut window: impl FnMut(u64, u64) -> Result<()>,
    ) -> Result<Sample> {
        let (start, before, own_before_us) = (Instant::now(), Cpu::of(pid), thread_cpu_us());
        let (mut jobs, mut longest) = (0, Duration::ZERO);
        while jobs < jobs_max && start.elapsed() < self.limit {
            let count = WINDOW.min(jobs_max - jobs);
            let window_start = Instant::now();
            window(jobs, count)?;
            longest = longest.max(window_start.elapsed());
            jobs += count;
        }
        let cpu = Cpu::since(before, pid);
        let own_cpu_us = thread_cpu_us() - own_before_us;
        let seconds = start.elapsed().as_secs_f64();
        let cut_short = format!("cut short at {} jobs after {seconds:.0} s", count(jobs));
        let sample = Sample {
            note: if jobs < jobs_max { cut_short } else { String::new() },
            bytes_per_second: Some(jobs as f64 * PAYLOAD_BYTES as f64 / seconds),
            max_us: Some(longest.as_secs_f64() * 1e6),
            load_cpu_share: Some(own_cpu_us / (seconds * 1e6)),
            ..Sample::of(jobs, seconds)
        };
        Ok(sample.with_memory(Memory::of(pid)).with_cpu(cpu))
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
            if !wire.next(|event, _| event == Event::Ok)? {
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
}
