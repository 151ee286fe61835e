//! Large payloads, one at a time: to a worker, and in the Gearman protocol back as its result.
//!
//! Two blocking connections, each on a thread of its own. The bytes stay where they are received:
//! what is measured is the server. Protocols without results move each payload in and out, which is
//! half of the way.

use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use ringgear::wire::{ARGUMENTS_BYTES_MAX, Command, HEADER_BYTES, Magic, encode, header_bytes};

use crate::bench_target::BenchTarget;
use crate::process::{Cpu, Memory, Server};
use crate::sample::{Sample, Status};
use crate::wire::Wire;
use crate::wire_protocol::{Event, Protocol, QUEUE};

/// A fresh server and a sample for each size and number of payloads.
pub(crate) fn samples(target: &BenchTarget<'_>, sizes: &[(u64, u64)]) -> Vec<Sample> {
    let protocol = target.contender.protocol();
    let bytes_max = match protocol {
        Protocol::Gearman => u64::from(u32::MAX) - 8192,
        // Less what goes with it.
        Protocol::Beanstalk => (1 << 30) - 3,
        Protocol::Redis => 512 << 20,
    };
    let one = |&(bytes, count): &(u64, u64)| {
        let run = Run { protocol, bytes, count, limit: target.options.phase_limit };
        let sample = if bytes > bytes_max {
            Sample::without(Status::Absent, "larger than it takes")
        } else {
            Sample::or_failed(target.drive(|server| run.against(server)))
        };
        sample.at(format!("{} MiB", bytes >> 20), bytes as f64)
    };
    sizes.iter().map(one).collect()
}

struct Run {
    protocol: Protocol,
    /// Payload bytes.
    bytes: u64,
    /// How many of them.
    count: u64,
    /// After which it is cut short.
    limit: Duration,
}

impl Run {
    fn against(&self, server: &Server) -> Result<Sample> {
        let before = Cpu::of(server.pid());
        let mut times = match self.protocol {
            Protocol::Gearman => self.round_trips(server.address)?,
            Protocol::Beanstalk | Protocol::Redis => self.puts(server.address)?,
        };
        let cpu = Cpu::since(before, server.pid());
        times.sort_unstable();
        // Without the time that it takes to make payloads.
        let seconds = times.iter().sum::<Duration>().as_secs_f64();
        let jobs = times.len() as u64;
        let micros = |time: Option<&Duration>| time.map(|time| time.as_secs_f64() * 1e6);
        let cut_short = format!("cut short at {jobs} after {seconds:.0} s");
        let sample = Sample {
            note: if jobs < self.count { cut_short } else { String::new() },
            bytes_per_second: Some(jobs as f64 * self.bytes as f64 / seconds),
            p50_us: micros(times.get(times.len() / 2)),
            max_us: micros(times.last()),
            ..Sample::of(jobs, seconds)
        };
        Ok(sample.with_memory(Memory::of(server.pid())).with_cpu(cpu))
    }

    /// The times of all jobs, numbered from 0, or of as many as the limit allows.
    fn timed(&self, mut job: impl FnMut(u64) -> Result<()>) -> Result<Vec<Duration>> {
        let (start, mut times) = (Instant::now(), Vec::new());
        while (times.len() as u64) < self.count && start.elapsed() < self.limit {
            let job_start = Instant::now();
            job(times.len() as u64)?;
            times.push(job_start.elapsed());
        }
        Ok(times)
    }

    /// A connection with room for what comes with a payload.
    fn connect(&self, address: SocketAddr) -> Result<Wire> {
        let room = HEADER_BYTES + ARGUMENTS_BYTES_MAX + usize::try_from(self.bytes)?;
        Wire::with_room(address, self.protocol, room)
    }

    /// Foreground jobs whose worker sends the payload back.
    fn round_trips(&self, address: SocketAddr) -> Result<Vec<Duration>> {
        let (mut client, worker) = (self.connect(address)?, self.connect(address)?);
        let ending = worker.stream.try_clone()?;
        let thread = std::thread::spawn(move || serve(worker));
        let mut payload = vec![b'x'; usize::try_from(self.bytes)?];
        let body_bytes = u32::try_from(payload.len() + QUEUE.len() + 2)?;
        let head = header_bytes(Magic::Request, Command::SubmitJob, body_bytes);
        let times = self.timed(|number| {
            // Marks both ends, so that mixed up or stale bytes are seen.
            let (mark, end) = (number.to_be_bytes(), payload.len() - 8);
            payload[..8].copy_from_slice(&mark);
            payload[end..].copy_from_slice(&mark);
            client.outbox.extend([&head, QUEUE, &[0, 0]].concat());
            client.send()?;
            client.stream.write_all(&payload)?;
            if !client.next(|event, _| event == Event::Ok)? {
                bail!("a submission was answered with something else than JOB_CREATED");
            }
            let is_payload = client.next(|event, _| {
                let Event::Result(result) = event else { return false };
                result.len() == payload.len() && result[..8] == mark && result[end..] == mark
            })?;
            if is_payload { Ok(()) } else { bail!("the result isn't the payload") }
        });
        // The worker waits for the next job; this tells it that there is none.
        let _ = ending.shutdown(Shutdown::Both);
        let served = thread.join().map_err(|_| anyhow!("the worker failed"))?;
        times.with_context(|| match served {
            Ok(()) => "the worker was still there".to_owned(),
            Err(error) => format!("the worker: {error}"),
        })
    }

    /// Background jobs for servers that know no results.
    fn puts(&self, address: SocketAddr) -> Result<Vec<Duration>> {
        let (mut producer, mut worker) = (self.connect(address)?, self.connect(address)?);
        let payload = vec![b'x'; usize::try_from(self.bytes)?];
        self.timed(|_| {
            self.protocol.put(&mut producer.outbox, &[], &payload);
            producer.send()?;
            producer.next(|_, _| ())?;
            self.protocol.take(&mut worker.outbox, 0);
            worker.send()?;
            let is_sound = worker.next(|event, out| {
                let Event::Job { id, payload: received } = event else { return false };
                self.protocol.done(out, 0, id, received);
                received.len() == payload.len()
            })?;
            worker.send()?;
            worker.next(|_, _| ())?;
            if is_sound {
                Ok(())
            } else {
                bail!("the job that came out isn't the one that went in")
            }
        })
    }
}

/// A worker that sends back what it gets, until its connection ends.
fn serve(mut worker: Wire) -> Result<()> {
    let protocol = Protocol::Gearman;
    let mut stream = worker.stream.try_clone()?;
    protocol.greet(&mut worker.outbox);
    protocol.take(&mut worker.outbox, 0);
    loop {
        worker.send()?;
        worker.next(|event, out| {
            match event {
                Event::Job { id, payload } => {
                    let body_bytes = u32::try_from(id.len() + 1 + payload.len())?;
                    let head = header_bytes(Magic::Request, Command::WorkComplete, body_bytes);
                    stream.write_all(&[&head, id, &[0]].concat())?;
                    stream.write_all(payload)?;
                    protocol.take(out, 0);
                }
                Event::Nothing => encode(out, Magic::Request, Command::PreSleep, &[], &[]),
                // NOOP.
                Event::Other => protocol.take(out, 0),
                Event::Ok | Event::Result(_) => bail!("a worker got a client's answer"),
            }
            Ok(())
        })??;
    }
}
