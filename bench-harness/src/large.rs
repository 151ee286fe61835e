//! Large payloads, one at a time: to a worker, and in the Gearman protocol back as its result.
//!
//! Two blocking connections, each on a thread of its own. The bytes stay where they are received:
//! what is measured is the server. Protocols without results move each payload in and out, which is
//! half of the way.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use ringgear::wire::{Command, HEADER_BYTES, Magic, encode, header, header_bytes};

use crate::bench_target::BenchTarget;
use crate::process::{Cpu, Memory, Server};
use crate::sample::{Sample, Status};
use crate::wire::{self, Wire};
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

    /// Foreground jobs whose worker sends the payload back.
    fn round_trips(&self, address: SocketAddr) -> Result<Vec<Duration>> {
        let mut client = wire::connect(address)?;
        let worker = wire::connect(address)?;
        let ending = worker.try_clone()?;
        let size = usize::try_from(self.bytes)?;
        let thread = std::thread::spawn(move || serve(worker, size));
        let result = self.submit_all(&mut client);
        // The worker waits for the next job; this tells it that there is none.
        let _ = ending.shutdown(Shutdown::Both);
        let served = thread.join().map_err(|_| anyhow!("the worker failed"))?;
        match result {
            Err(error) => Err(error.context(match served {
                Ok(()) => "the worker was still there".to_owned(),
                Err(error) => format!("the worker: {error}"),
            })),
            Ok(times) => Ok(times),
        }
    }

    fn submit_all(&self, client: &mut TcpStream) -> Result<Vec<Duration>> {
        let size = usize::try_from(self.bytes)?;
        let mut head = Vec::new();
        let body_bytes = u32::try_from(size + QUEUE.len() + 2)?;
        head.extend(header_bytes(Magic::Request, Command::SubmitJob, body_bytes));
        head.extend([QUEUE, &[0, 0]].concat());
        let mut payload = vec![b'x'; size];
        let (start, mut times) = (Instant::now(), Vec::new());
        while (times.len() as u64) < self.count && start.elapsed() < self.limit {
            // Marks both ends, so that mixed up or stale bytes are seen.
            let mark = (times.len() as u64).to_be_bytes();
            payload[..8].copy_from_slice(&mark);
            payload[size - 8..].copy_from_slice(&mark);
            let job_start = Instant::now();
            client.write_all(&head)?;
            client.write_all(&payload)?;
            let (created, body_bytes) = read_header(client)?;
            if created != Command::JobCreated {
                bail!("{} instead of JOB_CREATED", created.name());
            }
            read_prefix(client, body_bytes, 0)?;
            let (complete, body_bytes) = read_header(client)?;
            if complete != Command::WorkComplete {
                bail!("{} instead of WORK_COMPLETE", complete.name());
            }
            read_prefix(client, body_bytes, size)?;
            client.read_exact(&mut payload)?;
            times.push(job_start.elapsed());
            if payload[..8] != mark || payload[size - 8..] != mark {
                bail!("the result isn't the payload");
            }
        }
        Ok(times)
    }

    /// Background jobs for servers that know no results.
    fn puts(&self, address: SocketAddr) -> Result<Vec<Duration>> {
        let mut producer = Wire::connect(address, self.protocol)?;
        let mut worker = Wire::connect(address, self.protocol)?;
        let payload = vec![b'x'; usize::try_from(self.bytes)?];
        let (start, mut times) = (Instant::now(), Vec::new());
        while (times.len() as u64) < self.count && start.elapsed() < self.limit {
            let job_start = Instant::now();
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
            times.push(job_start.elapsed());
            if !is_sound {
                bail!("the job that came out isn't the one that went in");
            }
        }
        Ok(times)
    }
}

/// A worker that sends back what it gets, until its connection ends.
fn serve(mut stream: TcpStream, size: usize) -> Result<()> {
    let mut ask = Vec::new();
    encode(&mut ask, Magic::Request, Command::CanDo, &[QUEUE], &[]);
    encode(&mut ask, Magic::Request, Command::GrabJob, &[], &[]);
    let mut payload = vec![0; size];
    loop {
        stream.write_all(&ask)?;
        ask.clear();
        let (command, body_bytes) = read_header(&mut stream)?;
        match command {
            Command::JobAssign => {
                let prefix = read_prefix(&mut stream, body_bytes, size)?;
                stream.read_exact(&mut payload)?;
                let handle = prefix.split(|&byte| byte == 0).next().unwrap_or_default();
                let body_bytes = u32::try_from(handle.len() + 1 + size)?;
                let head = header_bytes(Magic::Request, Command::WorkComplete, body_bytes);
                stream.write_all(&[&head, handle, &[0]].concat())?;
                stream.write_all(&payload)?;
                encode(&mut ask, Magic::Request, Command::GrabJob, &[], &[]);
            }
            Command::NoJob => encode(&mut ask, Magic::Request, Command::PreSleep, &[], &[]),
            Command::Noop => encode(&mut ask, Magic::Request, Command::GrabJob, &[], &[]),
            _ => bail!("{} to a worker", command.name()),
        }
    }
}

fn read_header(stream: &mut TcpStream) -> Result<(Command, usize)> {
    let mut bytes = [0; HEADER_BYTES];
    stream.read_exact(&mut bytes).context("the server doesn't answer")?;
    let header = header(&bytes)?;
    Ok((header.command, usize::try_from(header.body_bytes)?))
}

/// Reads a body up to the `rest` bytes of payload at its end.
fn read_prefix(stream: &mut TcpStream, body_bytes: usize, rest: usize) -> Result<Vec<u8>> {
    let prefix_bytes = body_bytes.checked_sub(rest).context("a body shorter than the payload")?;
    if prefix_bytes > ringgear::wire::ARGUMENTS_BYTES_MAX {
        bail!("a body longer than the payload");
    }
    let mut prefix = vec![0; prefix_bytes];
    stream.read_exact(&mut prefix)?;
    Ok(prefix)
}
