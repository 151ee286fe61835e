//! What being looked at costs: the same loads on the same server with and without HTTP, a scraper
//! of its metrics, and viewers of its page; and how many jobs come in by HTTP.
//!
//! Beside a C gearmand, what is looked at is its text command `status`. Scrapers, viewers and
//! clients run on the load's cores.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::bench_target::BenchTarget;
use crate::process::{Cpu, Memory, Persistence, Pinned, Server};
use crate::sample::{Sample, Status};

/// What names of points end with, by which they are compared.
pub(crate) const ALONE: &str = ", no HTTP";
pub(crate) const UNUSED: &str = ", HTTP unused";
pub(crate) const SCRAPED: &str = ", a look a second";
pub(crate) const VIEWED: &str = ", 100 viewers";
pub(crate) const BY_PACKETS: &str = "submissions, Gearman";
pub(crate) const BY_HTTP: &str = "submissions, HTTP";

/// Functions with jobs; functions beside those of the load.
const FUNCTIONS: &str = "--functions=1000";
const MANY_FUNCTIONS: &str = "--extra-functions=20000";
const VIEWERS: usize = 100;
/// Clients that submit, by HTTP or not.
const CLIENTS: usize = 50;
/// How long a server may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(20);

/// What is done to a server beside a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    None,
    /// A scrape of /metrics, or the text command `status`, each second.
    Scrape,
    /// Streams of events.
    View,
}

/// A fresh server and a sample for each load; `jobs` are submitted in the background.
pub(crate) fn samples(target: &BenchTarget<'_>, jobs: u64) -> Vec<Sample> {
    let served = BenchTarget { has_http: !target.contender.is_gearmand(), ..*target };
    let mut samples = Vec::new();
    let mut add = |point: String, sample: Result<Sample>| samples.push((point, sample));
    for (name, words) in [("1000 functions", FUNCTIONS), ("20 000 functions", MANY_FUNCTIONS)] {
        add(format!("{name}{ALONE}"), looked_at(target, words, Look::None));
        if served.has_http {
            add(format!("{name}{UNUSED}"), looked_at(&served, words, Look::None));
            add(format!("{name}{VIEWED}"), looked_at(&served, words, Look::View));
        }
        add(format!("{name}{SCRAPED}"), looked_at(&served, words, Look::Scrape));
    }
    let words = format!("--mode=background --clients={CLIENTS} --workers=0 --jobs={jobs}");
    add(BY_PACKETS.to_owned(), loaded(target, &words));
    if served.has_http {
        add(BY_HTTP.to_owned(), submitted(&served, jobs));
        add("idle".to_owned(), idle(target));
        add("idle, HTTP".to_owned(), idle(&served));
    }
    let samples = samples.into_iter().enumerate();
    samples.map(|(at, (point, sample))| Sample::or_failed(sample).at(point, at as f64)).collect()
}

fn loaded(target: &BenchTarget<'_>, words: &str) -> Result<Sample> {
    let load = target.plan(words)?;
    target.with_server(Persistence::Memory, 1, |server| target.load(server, &load))
}

/// A load beside which the server is looked at.
fn looked_at(target: &BenchTarget<'_>, words: &str, look: Look) -> Result<Sample> {
    let load = target.plan(words)?;
    target.with_server(Persistence::Memory, 1, |server| {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (sender, receiver) = mpsc::channel();
            let count = if look == Look::View { VIEWERS } else { 1 };
            for _ in 0..count {
                let (sender, done) = (sender.clone(), &done);
                scope.spawn(move || {
                    let _pinned = Pinned::to(&target.cores.load);
                    let result = match look {
                        Look::None => Ok(Seen::default()),
                        Look::Scrape => scrape(server, target.has_http, done),
                        Look::View => view(server, done),
                    };
                    drop(sender.send(result));
                });
            }
            drop(sender);
            let sample = target.load(server, &load);
            done.store(true, Ordering::Relaxed);
            let mut seen = Seen::default();
            for result in receiver {
                seen.add(&result.context("looking at the server")?);
            }
            let sample = sample?;
            let is_sound = sample.status == Status::Ok;
            Ok(match seen.looks {
                1.. if is_sound => Sample { note: seen.to_string(), ..sample },
                _ => sample,
            })
        })
    })
}

/// What lookers got.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    looks: usize,
    slowest: Duration,
    largest_bytes: usize,
}

impl Seen {
    fn look(&mut self, took: Duration, bytes: usize) {
        self.add(&Self { looks: 1, slowest: took, largest_bytes: bytes });
    }

    fn add(&mut self, other: &Self) {
        self.looks += other.looks;
        self.slowest = self.slowest.max(other.slowest);
        self.largest_bytes = self.largest_bytes.max(other.largest_bytes);
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { looks, slowest, largest_bytes } = self;
        let (ms, kib) = (slowest.as_millis(), largest_bytes / 1024);
        write!(f, "{looks} answers, the slowest in {ms} ms, the largest {kib} KiB")
    }
}

/// Looks each second until the load is done.
fn scrape(server: &Server, by_http: bool, done: &AtomicBool) -> Result<Seen> {
    let mut seen = Seen::default();
    let http = if by_http { Some(http_address(server)?) } else { None };
    while !done.load(Ordering::Relaxed) {
        let start = Instant::now();
        let bytes = match http {
            Some(address) => get(address, "/metrics")?,
            None => status(server.address)?,
        };
        seen.look(start.elapsed(), bytes);
        server.wait(Duration::from_secs(1).saturating_sub(start.elapsed()));
    }
    Ok(seen)
}

/// Reads events until the load is done.
fn view(server: &Server, done: &AtomicBool) -> Result<Seen> {
    let mut stream = connect(http_address(server)?)?;
    stream.write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let (mut seen, mut last) = (Seen::default(), Instant::now());
    for line in BufReader::new(stream).lines() {
        let line = line?;
        if line.starts_with("data:") {
            seen.look(last.elapsed(), line.len());
            last = Instant::now();
        }
        if done.load(Ordering::Relaxed) {
            return Ok(seen);
        }
    }
    bail!("the stream of events ended")
}

/// Jobs that come in by HTTP, from clients that wait for each answer.
fn submitted(target: &BenchTarget<'_>, jobs: u64) -> Result<Sample> {
    target.drive(|server| {
        let address = http_address(server)?;
        let (start, before) = (Instant::now(), Cpu::of(server.pid()));
        std::thread::scope(|scope| {
            let share = jobs / CLIENTS as u64;
            let clients: Vec<_> =
                (0..CLIENTS).map(|_| scope.spawn(move || submit(address, share))).collect();
            for client in clients {
                client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            let sample = Sample::of(share * CLIENTS as u64, start.elapsed().as_secs_f64());
            Ok(sample.with_cpu(Cpu::since(before, server.pid())))
        })
    })
}

/// One client: submits one job after the other on one connection.
fn submit(address: SocketAddr, jobs: u64) -> Result<()> {
    let mut stream = connect(address)?;
    let payload = [b'x'; 64];
    let mut request = b"POST /api/v1/functions/loadgen/jobs HTTP/1.1\r\nHost: localhost\r\n\
        X-Ringgear: 1\r\nPrefer: respond-async\r\nContent-Length: 64\r\n\r\n"
        .to_vec();
    request.extend_from_slice(&payload);
    let mut answers = BufReader::new(stream.try_clone()?);
    for _ in 0..jobs {
        stream.write_all(&request)?;
        let (status, body_bytes) = head(&mut answers)?;
        if status != 202 {
            bail!("a submission was answered with {status}");
        }
        let body_bytes = body_bytes.context("an answer without a length")?;
        std::io::copy(&mut answers.by_ref().take(body_bytes), &mut std::io::sink())?;
    }
    Ok(())
}

/// Memory of a server that has nothing to do.
fn idle(target: &BenchTarget<'_>) -> Result<Sample> {
    target.drive(|server| {
        if target.has_http {
            get(http_address(server)?, "/healthz")?;
        } else {
            status(server.address)?;
        }
        Ok(Sample::of(1, 1.0).with_memory(Memory::of(server.pid())))
    })
}

/// Status and length of an answer, up to its body.
fn head(answer: &mut impl BufRead) -> Result<(u16, Option<u64>)> {
    let (mut line, mut length) = (String::new(), None);
    answer.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|it| it.parse().ok()).context("no status")?;
    loop {
        line.clear();
        answer.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().ok();
            }
            Some(_) => {}
            None => return Ok((status, length)),
        }
    }
}

/// Bytes of an answer with its head.
fn get(address: SocketAddr, path: &str) -> Result<usize> {
    let mut stream = connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    match head(&mut &answer[..])? {
        (200, _) => Ok(answer.len()),
        (status, _) => bail!("{path} was answered with {status}"),
    }
}

/// Bytes of an answer to the text command `status`.
fn status(address: SocketAddr) -> Result<usize> {
    let mut stream = connect(address)?;
    stream.write_all(b"status\n")?;
    let mut bytes = 0;
    for line in BufReader::new(stream).split(b'\n') {
        let line = line?;
        bytes += line.len() + 1;
        if line == b"." {
            return Ok(bytes);
        }
    }
    bail!("the list ended without a dot")
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER_TIME))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Where a server has HTTP, as its log says: `… HTTP on 127.0.0.1:PORT`.
fn http_address(server: &Server) -> Result<SocketAddr> {
    let deadline = Instant::now() + ANSWER_TIME;
    loop {
        let log = server.log();
        let mut lines = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let found = lines.find_map(|line| line.split_once("HTTP on ")?.1.trim().parse().ok());
        if let Some(address) = found {
            return Ok(address);
        }
        if Instant::now() > deadline {
            bail!("the server doesn't say where it has HTTP");
        }
        server.wait(Duration::from_millis(5));
    }
}
