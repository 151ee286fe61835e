//! The load for servers that don't speak Gearman: the same closed loop, through their own protocol.
//!
//! Producers keep so many jobs in flight each; a job is over when its worker's acknowledgement is
//! acknowledged, and then its producer puts the next. The answer to the submitter, which these
//! protocols lack, travels inside this process and costs the server nothing. One thread, mio, the
//! same figures as the load generator's. A packet is a command here, and its body a payload that is
//! put.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use loadgen::distributions::Size;
use loadgen::options::Writes;
use loadgen::report::Latency;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use crate::load_generator::NO_JOB;
use crate::process::{Cores, Cpu, Memory, Pinned, Server, thread_cpu_us};
use crate::sample::{Sample, Status};
use crate::scenario::Load;
use crate::wire_protocol::{Event, Protocol};

const READ_BYTES: usize = 64 << 10;
const EVENTS_MAX: usize = 1024;
/// Without an answer for so long, jobs are lost.
const STALL_TIME: Duration = Duration::from_secs(10);
/// Longer latencies are recorded as this one.
const LATENCY_NS_MAX: u64 = 100_000_000_000;
/// How many hexadecimal digits of a payload say which job it is.
const STAMP_BYTES: usize = 16;
/// What both protocols have behind a payload.
const LINE_END_BYTES: usize = 2;

struct Peer {
    stream: TcpStream,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    /// How many bytes of the outbox each write takes, where they don't all leave in one.
    writes: VecDeque<usize>,
    /// Of a producer: its jobs that aren't kept yet. Of a worker: those not acknowledged yet.
    waiting: VecDeque<usize>,
    is_dirty: bool,
}

impl Peer {
    /// What stands in the outbox since the last end of a write is a command whose last so many
    /// bytes are its body.
    fn end_write(&mut self, writes: Writes, body_bytes: usize) {
        let command_bytes = self.outbox.len() - self.writes.iter().sum::<usize>();
        match writes {
            Writes::Together => {}
            Writes::Parts if body_bytes > 0 => {
                self.writes.extend([command_bytes - body_bytes, body_bytes]);
            }
            Writes::Packets | Writes::Parts => self.writes.push_back(command_bytes),
        }
    }

    /// The socket has taken so many bytes of the first write.
    fn written(&mut self, bytes: usize) {
        self.outbox.drain(..bytes);
        if let Some(first) = self.writes.front_mut() {
            *first -= bytes;
            if *first == 0 {
                self.writes.pop_front();
            }
        }
    }
}

struct Job {
    producer: usize,
    start: Instant,
}

struct Driver<'a> {
    protocol: Protocol,
    load: &'a Load,
    poll: Poll,
    peers: Vec<Peer>,
    jobs: Slab<Job>,
    payload: Vec<u8>,
    dirty: Vec<usize>,
    latency: Histogram<u64>,
    is_measuring: bool,
    done: u64,
    submitted: u64,
    start_time: Instant,
}

/// Loads a server, from the load's cores.
pub(crate) fn run(
    protocol: Protocol,
    load: &Load,
    server: &Server,
    cores: &Cores,
) -> Result<Sample> {
    let _pinned = Pinned::to(&cores.load);
    let mut driver = Driver::connect(protocol, load, server.address)?;
    driver.start_load()?;
    let warm_up = if load.jobs.is_some() { Duration::ZERO } else { load.warm_up.0 };
    driver.turn_until(|driver| driver.start_time.elapsed() >= warm_up)?;
    driver.measure(server.pid())
}

impl<'a> Driver<'a> {
    fn connect(protocol: Protocol, load: &'a Load, address: SocketAddr) -> Result<Self> {
        let Size::Fixed(payload_bytes) = load.size else { bail!("payloads of one size only") };
        let poll = Poll::new()?;
        let mut peers = Vec::new();
        for at in 0..load.clients + load.workers {
            // Blocking, so that no more than the server's backlog wait at once.
            let stream = std::net::TcpStream::connect(address)
                .with_context(|| format!("connection {at} of the load"))?;
            stream.set_nonblocking(true)?;
            stream.set_nodelay(!load.nagle)?;
            let mut stream = TcpStream::from_std(stream);
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut stream, Token(at), interest)?;
            let (inbox, outbox, writes, waiting) = Default::default();
            peers.push(Peer { stream, inbox, outbox, writes, waiting, is_dirty: false });
        }
        Ok(Self {
            protocol,
            load,
            poll,
            peers,
            jobs: Slab::new(),
            payload: vec![b'x'; payload_bytes],
            dirty: Vec::new(),
            latency: Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)?,
            is_measuring: false,
            done: 0,
            submitted: 0,
            start_time: Instant::now(),
        })
    }

    fn start_load(&mut self) -> Result<()> {
        let &Load { clients, workers, pipeline, jobs, .. } = self.load;
        self.is_measuring = jobs.is_some();
        for worker in clients..clients + workers {
            let peer = &mut self.peers[worker];
            self.protocol.greet(&mut peer.outbox);
            self.protocol.take(&mut peer.outbox, worker);
            peer.end_write(self.load.worker_writes, 0);
            self.mark(worker);
        }
        for producer in 0..clients {
            for _ in 0..pipeline {
                self.put(producer);
            }
        }
        self.start_time = Instant::now();
        self.flush()
    }

    /// Measures until the load's time is over or its jobs are done.
    fn measure(mut self, pid: u32) -> Result<Sample> {
        self.is_measuring = true;
        let (start, cpu, own_cpu_us) = (Instant::now(), Cpu::of(pid), thread_cpu_us());
        let before = if self.load.jobs.is_some() { 0 } else { self.done };
        match self.load.jobs {
            Some(jobs) => self.turn_until(|driver| driver.done >= jobs)?,
            None => self.turn_until(|driver| start.elapsed() >= driver.load.duration.0)?,
        }
        let (seconds, jobs) = (start.elapsed().as_secs_f64(), self.done - before);
        let sample = Sample::of(jobs, seconds);
        let sample = Sample {
            status: if jobs > 0 { Status::Ok } else { Status::Failed },
            note: if jobs > 0 { String::new() } else { NO_JOB.to_owned() },
            bytes_per_second: Some(sample.jobs_per_second * self.payload.len() as f64),
            load_cpu_share: Some((thread_cpu_us() - own_cpu_us) / (seconds * 1e6)),
            ..sample
        };
        let sample = sample.with_latency(Some(Latency::of(&self.latency)));
        Ok(sample.with_memory(Memory::of(pid)).with_cpu(Cpu::since(cpu, pid)))
    }

    fn turn_until(&mut self, is_over: impl Fn(&Self) -> bool) -> Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut last = (self.done, Instant::now());
        while !is_over(self) {
            match self.poll.poll(&mut events, Some(Duration::from_millis(50))) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            for event in &events {
                let Token(at) = event.token();
                if event.is_readable() || event.is_read_closed() {
                    self.read(at)?;
                }
                if event.is_writable() {
                    self.mark(at);
                }
            }
            self.flush()?;
            if self.done != last.0 {
                last = (self.done, Instant::now());
            } else if last.1.elapsed() > STALL_TIME {
                bail!("no job was done for {} s: jobs are lost", STALL_TIME.as_secs());
            }
        }
        Ok(())
    }

    fn read(&mut self, at: usize) -> Result<()> {
        loop {
            let Peer { stream, inbox, .. } = &mut self.peers[at];
            let before = inbox.len();
            inbox.resize(before + READ_BYTES, 0);
            let result = stream.read(&mut inbox[before..]);
            inbox.truncate(before + *result.as_ref().unwrap_or(&0));
            match result {
                Ok(0) => bail!("the server closed a connection"),
                Ok(bytes) if bytes < READ_BYTES => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        let inbox = std::mem::take(&mut self.peers[at].inbox);
        let mut used = 0;
        while let Some((event, bytes)) = self.protocol.cut(&inbox[used..])? {
            used += bytes;
            self.handle(at, event)?;
        }
        let mut rest = inbox;
        rest.drain(..used);
        self.peers[at].inbox = rest;
        Ok(())
    }

    fn handle(&mut self, at: usize, event: Event<'_>) -> Result<()> {
        let is_worker = at >= self.load.clients;
        match event {
            Event::Job { id, payload } if is_worker => {
                let stamp = payload.get(..STAMP_BYTES).and_then(|it| str::from_utf8(it).ok());
                let job = stamp.and_then(|stamp| usize::from_str_radix(stamp, 16).ok());
                let Some(job) = job.filter(|&job| self.jobs.contains(job)) else {
                    bail!("a worker got a job that nobody submitted, or got it twice");
                };
                let peer = &mut self.peers[at];
                peer.waiting.push_back(job);
                self.protocol.done(&mut peer.outbox, at, id, payload);
                peer.end_write(self.load.worker_writes, 0);
                self.protocol.take(&mut peer.outbox, at);
                peer.end_write(self.load.worker_writes, 0);
                self.mark(at);
            }
            Event::Ok => match self.peers[at].waiting.pop_front() {
                // A producer's job is kept, which is all that is waited for without workers.
                Some(job) if is_worker || self.load.workers == 0 => self.finish(job),
                Some(_) => {}
                None => bail!("the server acknowledged what nothing waits for"),
            },
            _ => bail!("the server gave an answer that nothing waits for: {event:?}"),
        }
        Ok(())
    }

    fn finish(&mut self, job: usize) {
        let Job { producer, start } = self.jobs.remove(job);
        self.done += 1;
        if self.is_measuring {
            let nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.latency.saturating_record(nanos);
        }
        if self.load.jobs.is_none_or(|jobs| self.submitted < jobs) {
            self.put(producer);
        }
    }

    fn put(&mut self, producer: usize) {
        self.submitted += 1;
        let job = self.jobs.insert(Job { producer, start: Instant::now() });
        // Cannot fail: a vector takes what it is given, and there is room for the digits.
        let _ = write!(&mut self.payload[..STAMP_BYTES], "{job:016x}");
        let peer = &mut self.peers[producer];
        peer.waiting.push_back(job);
        self.protocol.put(&mut peer.outbox, &[], &self.payload);
        peer.end_write(self.load.client_writes, self.payload.len() + LINE_END_BYTES);
        self.mark(producer);
    }

    fn mark(&mut self, at: usize) {
        let peer = &mut self.peers[at];
        if !peer.is_dirty && !peer.outbox.is_empty() {
            peer.is_dirty = true;
            self.dirty.push(at);
        }
    }

    /// Writes what has gathered; what doesn't fit waits until the socket is writable.
    fn flush(&mut self) -> Result<()> {
        while let Some(at) = self.dirty.pop() {
            let peer = &mut self.peers[at];
            peer.is_dirty = false;
            while !peer.outbox.is_empty() {
                let end = peer.writes.front().copied().unwrap_or(peer.outbox.len());
                match peer.stream.write(&peer.outbox[..end]) {
                    Ok(bytes) => peer.written(bytes),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_end_where_the_options_say_and_go_on_where_a_socket_was_full() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for (writes, expected) in [
            (Writes::Together, vec![]),
            (Writes::Packets, vec![23, 9]),
            (Writes::Parts, vec![18, 5, 9]),
        ] {
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (inbox, outbox, ends, waiting) = Default::default();
            let mut peer = Peer { stream, inbox, outbox, writes: ends, waiting, is_dirty: false };
            Protocol::Beanstalk.put(&mut peer.outbox, &[], b"abc");
            peer.end_write(writes, 3 + LINE_END_BYTES);
            Protocol::Beanstalk.take(&mut peer.outbox, 0);
            peer.end_write(writes, 0);
            assert_eq!(Vec::from_iter(peer.writes.iter().copied()), expected, "{writes:?}");
            let first = peer.writes.front().copied().unwrap_or(peer.outbox.len());
            peer.written(1);
            peer.written(first - 1);
            assert_eq!(peer.writes, expected.get(1..).unwrap_or_default());
            assert_eq!(peer.outbox.len(), expected.iter().skip(1).sum::<usize>());
        }
    }
}
