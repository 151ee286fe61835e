//! How many jobs a second commands do as workers: a process for each job by `gearman -w` and by
//! ringgear-manager, and long-lived processes that read lines, by the latter.
//!
//! The command does nothing, so that what is left is the runner's work. Runners have the load's
//! cores, and so have the clients, each of which waits for its job's end before it submits the
//! next.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ringgear::wire::{Command as Packet, Magic, encode};

use crate::bench_target::BenchTarget;
use crate::locate;
use crate::process::{Cpu, Server};
use crate::sample::{Sample, Status};
use crate::wire::Wire;
use crate::wire_protocol::{Event, Protocol, QUEUE};

/// What the others are compared with.
pub(crate) const GEARMAN: &str = "gearman -w -- true";
const EXEC: &str = "ringgear-manager, exec true";
const LINES: &str = "ringgear-manager, lines";

/// More than workers, so that all of these are busy.
const CLIENTS: usize = 12;
/// How often is looked whether the first job is done.
const LOOK_TIME: Duration = Duration::from_millis(5);
/// How long the first job may take, with the start of all workers.
const START_TIME: Duration = Duration::from_secs(20);

/// A language that every Debian has.
const PERL: &str = "/usr/bin/perl";
/// A process that answers each line with an empty result.
const ANSWERS: &str = r#"["/usr/bin/perl", "-ne", 'BEGIN { $| = 1 } print qq({"result":""}\n)']"#;

/// A fresh server and a sample for each runner, with so many workers.
pub(crate) fn samples(target: &BenchTarget<'_>, workers: usize) -> Vec<Sample> {
    let options = target.options;
    let gearman = locate::installed(&options.gearman, "gearman-tools");
    let manager = locate::find("ringgear-manager", options.ringgear_manager.as_deref());
    let perl = locate::installed(Path::new(PERL), "perl-base");
    let lines = perl.and_then(|_| manager.clone());
    let points = [(GEARMAN, gearman), (EXEC, manager), (LINES, lines)];
    let measure = |(at, (point, program)): (usize, (&str, Result<PathBuf, String>))| {
        let sample = match program {
            Ok(program) => Sample::or_failed(measured(target, point, &program, workers)),
            Err(why) => Sample::without(Status::Absent, why),
        };
        sample.at(point, at as f64)
    };
    points.into_iter().enumerate().map(measure).collect()
}

fn measured(
    target: &BenchTarget<'_>,
    point: &str,
    program: &Path,
    workers: usize,
) -> Result<Sample> {
    target.drive(|server| {
        let _runners = match point {
            GEARMAN => Runners::gearman(program, server.address, workers)?,
            EXEC => Runners::manager(program, server.address, workers, "exec", r#"["true"]"#)?,
            _ => Runners::manager(program, server.address, workers, "lines", ANSWERS)?,
        };
        load(server, target.options.warm_up(), target.options.duration())
    })
}

/// Processes that run commands as workers; they end when this is dropped.
struct Runners {
    children: Vec<Child>,
    /// The manager's file is needed as long.
    _file: Option<tempfile::NamedTempFile>,
}

impl Runners {
    /// One process for each worker.
    fn gearman(program: &Path, server: SocketAddr, workers: usize) -> Result<Self> {
        let (host, port) = (server.ip().to_string(), server.port().to_string());
        let queue = str::from_utf8(QUEUE)?;
        let mut this = Self { children: Vec::new(), _file: None };
        for _ in 0..workers {
            let mut command = Command::new(program);
            command.args(["-w", "-h", &host, "-p", &port, "-f", queue, "--", "true"]);
            this.start(&mut command)?;
        }
        Ok(this)
    }

    /// One process for all workers.
    fn manager(
        program: &Path,
        server: SocketAddr,
        workers: usize,
        mode: &str,
        command: &str,
    ) -> Result<Self> {
        let file = tempfile::NamedTempFile::new()?;
        let queue = str::from_utf8(QUEUE)?;
        let text = format!(
            "servers = [\"{server}\"]\n[[worker]]\nname = \"bench\"\nfunctions = [\"{queue}\"]\n\
             mode = \"{mode}\"\ncommand = {command}\ncount = {workers}\n"
        );
        fs::write(file.path(), text)?;
        let mut command = Command::new(program);
        command.arg("--config-file").arg(file.path());
        let mut this = Self { children: Vec::new(), _file: Some(file) };
        this.start(&mut command)?;
        Ok(this)
    }

    fn start(&mut self, command: &mut Command) -> Result<()> {
        // libgearman connects to the servers of this variable besides those that it is told.
        command.env_remove("GEARMAN_SERVERS");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn();
        self.children.push(child.with_context(|| command.get_program().display().to_string())?);
        Ok(())
    }
}

impl Drop for Runners {
    fn drop(&mut self) {
        for child in &mut self.children {
            // What the manager has started ends with it, however it ends.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Jobs of clients that wait for each; the time begins with the first job's end.
fn load(server: &Server, warm_up: Duration, duration: Duration) -> Result<Sample> {
    let (jobs, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let clients: Vec<_> =
            (0..CLIENTS).map(|_| scope.spawn(|| submit(server.address, &jobs, &is_over))).collect();
        let sample = count(server, &jobs, warm_up, duration);
        is_over.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        sample
    })
}

/// Counts the jobs of some time.
fn count(
    server: &Server,
    jobs: &AtomicU64,
    warm_up: Duration,
    duration: Duration,
) -> Result<Sample> {
    let deadline = Instant::now() + START_TIME;
    while jobs.load(Ordering::Relaxed) == 0 {
        if Instant::now() > deadline {
            bail!("no job was done within {} s", START_TIME.as_secs());
        }
        server.wait(LOOK_TIME);
    }
    wait(server, warm_up);
    let (start, cpu) = (Instant::now(), Cpu::of(server.pid()));
    let before = jobs.load(Ordering::Relaxed);
    wait(server, duration);
    let done = jobs.load(Ordering::Relaxed) - before;
    if done == 0 {
        bail!("{}", crate::load_generator::NO_JOB);
    }
    let sample = Sample::of(done, start.elapsed().as_secs_f64());
    Ok(sample.with_cpu(Cpu::since(cpu, server.pid())))
}

/// Waits, whatever the server logs meanwhile.
fn wait(server: &Server, time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|it| !it.is_zero()) {
        server.wait(left);
    }
}

/// One client: submits one foreground job after the other.
fn submit(server: SocketAddr, jobs: &AtomicU64, is_over: &AtomicBool) -> Result<()> {
    let mut wire = Wire::connect(server, Protocol::Gearman)?;
    while !is_over.load(Ordering::Relaxed) {
        encode(&mut wire.outbox, Magic::Request, Packet::SubmitJob, &[QUEUE, b""], b"");
        wire.send()?;
        while !wire.next(|event, _| matches!(event, Event::Result(_)))? {}
        jobs.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
