//! Jobs that are on disk before the answer: how fast they are taken, what they do to others, and
//! how long a server takes to come back with them.
//!
//! Each phase gets a server of its own with a store of its own. Recovery starts from files that an
//! ended server left, as much of them in the page cache as there is; it is over when the server
//! says that all jobs wait. What one job takes on disk is measured there.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::bench_target::{BenchTarget, Period};
use crate::contender::{Contender, Persistence, Protocol, gearmand};
use crate::data_dir::DataDir;
use crate::load_generator::NO_JOB;
use crate::process::{Cpu, Memory, Server};
use crate::sample::{Sample, Status};
use crate::scenario::{FLOOD, Load, STEADY};

/// Foreground jobs beside a flood that is stored, and what the report compares them with.
pub(crate) const BESIDE_STORED: &str = "foreground beside";
/// Foreground jobs beside as many background jobs a second that stay in memory.
pub(crate) const BESIDE_MEMORY: &str = "foreground beside, no store";
/// Starting again.
pub(crate) const RECOVERY: &str = "recovery";
const CLOSED: &str = "closed";
const PIPELINED: &str = "16 in flight";
const ALONE: &str = "foreground alone";
const FLOODING: &str = "flood beside";
/// In the order of the table.
const POINTS: [&str; 7] =
    [CLOSED, PIPELINED, ALONE, BESIDE_STORED, FLOODING, BESIDE_MEMORY, RECOVERY];

/// Background jobs, each with a key of its own: gearmand takes those without for one another.
const STORED: Load = Load { has_unique: true, prefix: Some("bench"), ..FLOOD };
/// What all these jobs are for, as the load generator names it.
const FUNCTION: &str = "bench-0";
/// One client with so many jobs under way that each commit answers. As an open loop, they come as
/// they do after a commit: all at once.
const FLOOD_BESIDE: Load =
    Load { clients: 1, pipeline: 64, burst: 64, prefix: Some("flood"), ..STORED };
/// How much longer the flood goes on than what is measured beside it.
const FLOOD_MARGIN: Duration = Duration::from_millis(500);
/// How often a server that reads its store is asked whether it is back.
const ASK_TIME: Duration = Duration::from_millis(1);

/// All phases of one contender.
pub(crate) struct Run<'a> {
    /// Who, and where.
    pub(crate) target: BenchTarget<'a>,
    /// Where stores lie.
    pub(crate) data_dir: &'a DataDir,
    /// Jobs of the recovery.
    pub(crate) jobs: u64,
}

impl Run<'_> {
    /// Runs all phases, each as its own samples.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        let mut samples = vec![
            at(CLOSED, self.taken(Load { pipeline: 1, ..STORED })),
            at(PIPELINED, self.taken(STORED)),
        ];
        match self.target.contender.protocol() {
            Protocol::Gearman => samples.extend(self.foreground()),
            Protocol::Beanstalk | Protocol::Redis => {
                let why = "all its jobs are on disk, and nothing is answered to a submitter";
                samples.push(at(ALONE, Ok(Sample::without(Status::Absent, why))));
            }
        }
        samples.push(at(RECOVERY, self.recovery()));
        samples
    }

    fn start(&self, persistence: Persistence<'_>) -> Result<Server> {
        self.target.start(persistence, 1)
    }

    fn duration(&self) -> Duration {
        self.target.options.duration().min(self.target.options.phase_limit)
    }

    /// Background jobs alone.
    fn taken(&self, load: Load) -> Result<Sample> {
        let folder = self.data_dir.folder()?;
        let server = self.start(Persistence::Disk(folder.path()))?;
        self.load(&server, load, None, self.duration())
    }

    fn load(
        &self,
        server: &Server,
        load: Load,
        rate: Option<u64>,
        duration: Duration,
    ) -> Result<Sample> {
        let warm_up = self.target.options.warm_up();
        self.target.load(server, Period { load, rate, duration, warm_up })
    }

    /// Foreground jobs alone, beside a flood that is stored, and beside the same one that isn't.
    fn foreground(&self) -> Vec<Sample> {
        let alone = || {
            let folder = self.data_dir.folder()?;
            let server = self.start(Persistence::Disk(folder.path()))?;
            self.load(&server, STEADY, None, self.duration())
        };
        let stored = || {
            let folder = self.data_dir.folder()?;
            self.beside(Persistence::Disk(folder.path()), None)
        };
        let alone = at(ALONE, alone());
        let (beside, flood) = match stored() {
            Ok(both) => both,
            Err(error) => return vec![alone, at(BESIDE_STORED, Err(error))],
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate")]
        let rate = flood.jobs_per_second.round().max(1.0) as u64;
        let memory = self.beside(Persistence::Memory, Some(rate)).map(|(beside, _)| beside);
        vec![
            alone,
            at(BESIDE_STORED, Ok(beside)),
            at(FLOODING, Ok(flood)),
            at(BESIDE_MEMORY, memory),
        ]
    }

    /// Foreground jobs beside background jobs: as fast as these are taken, or at a rate.
    fn beside(&self, persistence: Persistence<'_>, rate: Option<u64>) -> Result<(Sample, Sample)> {
        let server = self.start(persistence)?;
        let duration = self.duration();
        let (mut beside, flood) = std::thread::scope(|scope| {
            let flood = || self.load(&server, FLOOD_BESIDE, rate, duration + FLOOD_MARGIN);
            let flood = scope.spawn(flood);
            let beside = self.load(&server, STEADY, None, duration);
            (beside, flood.join().map_err(|_| anyhow!("the flood failed")))
        });
        let mut flood = flood??;
        if flood.status == Status::Failed {
            bail!("the flood: {}", flood.note);
        }
        // The server works for both: what it used is neither's.
        for sample in beside.as_mut().into_iter().chain([&mut flood]) {
            sample.cpu_us_per_job = None;
            (sample.cpu_user_us_per_job, sample.cpu_system_us_per_job) = (None, None);
        }
        let mut beside = beside?;
        if beside.note == NO_JOB {
            // A server that does nothing else meanwhile: that is a result.
            beside.status = Status::Ok;
            (beside.p50_us, beside.p90_us, beside.p99_us) = (None, None, None);
            (beside.p999_us, beside.max_us) = (None, None);
        }
        Ok((beside, flood))
    }

    #[expect(clippy::cast_precision_loss, reason = "counts and bytes far below 2^53")]
    fn recovery(&self) -> Result<Sample> {
        let folder = self.data_dir.folder()?;
        self.fill(folder.path())?;
        let disk_bytes = self.target.contender.disk_bytes(self.target.options, folder.path())?;
        let mut server = self.start(Persistence::Disk(folder.path()))?;
        if !self.has_jobs_in_time(&mut server)? {
            let time = self.target.patience.as_secs();
            let why = format!("{} jobs weren't back after {time} s", self.jobs);
            return Ok(Sample::without(Status::Absent, why));
        }
        let seconds = server.start.elapsed().as_secs_f64();
        let memory = Memory::of(server.pid());
        let cpu = Cpu::of(server.pid());
        let jobs = self.jobs as f64;
        let sample = Sample {
            jobs: self.jobs,
            seconds,
            jobs_per_second: jobs / seconds,
            rss_peak_bytes: memory.map(|memory| memory.peak_bytes),
            rss_end_bytes: memory.map(|memory| memory.now_bytes),
            disk_bytes_per_job: Some(disk_bytes as f64 / jobs),
            ..Sample::default()
        };
        Ok(sample.with_cpu(cpu))
    }

    /// Leaves the jobs in a folder, and no server.
    fn fill(&self, folder: &Path) -> Result<()> {
        let server = self.start(Persistence::Async(folder))?;
        if let Contender::Gearmand { .. } | Contender::GearmandBuilt { .. } = self.target.contender
        {
            drop(server);
            return gearmand::fill(folder, FUNCTION, self.jobs, &[b'x'; 64]);
        }
        let load = Load { jobs: Some(self.jobs), ..STORED };
        let sample = self.load(&server, load, None, Duration::ZERO)?;
        if sample.status != Status::Ok {
            bail!("the store couldn't be filled: {}", sample.note);
        }
        Ok(())
    }

    /// Waits until the server says that all jobs wait; false if it says nothing for too long.
    fn has_jobs_in_time(&self, server: &mut Server) -> Result<bool> {
        let deadline = server.start + self.target.patience;
        loop {
            if let Some(status) = server.ended() {
                bail!("the server ended ({status}) {}", server.log().trim());
            }
            match self.waiting_jobs(server.address, deadline) {
                Ok(jobs) if jobs == self.jobs => return Ok(true),
                _ if Instant::now() < deadline => std::thread::sleep(ASK_TIME),
                Ok(jobs) => bail!("{jobs} of {} jobs came back", self.jobs),
                Err(_) => return Ok(false),
            }
        }
    }

    /// Asks how many jobs wait.
    fn waiting_jobs(&self, address: SocketAddr, deadline: Instant) -> Result<u64> {
        let protocol = self.target.contender.protocol();
        let left = deadline.saturating_duration_since(Instant::now()).max(ASK_TIME);
        let mut stream = TcpStream::connect_timeout(&address, left)?;
        stream.set_read_timeout(Some(left))?;
        stream.write_all(protocol.ask_count())?;
        let (mut answer, mut bytes) = (Vec::new(), [0; 4096]);
        loop {
            if let Some(count) = protocol.count(&answer, FUNCTION) {
                return count.with_context(|| answer.escape_ascii().to_string());
            }
            match stream.read(&mut bytes) {
                Ok(0) => bail!("the server closed the connection"),
                Ok(length) => answer.extend_from_slice(&bytes[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A phase's sample, with its name and its place in the table.
fn at(point: &str, sample: Result<Sample>) -> Sample {
    let failed = |error| Sample::without(Status::Failed, format!("{error:#}"));
    let place = POINTS.iter().position(|one| *one == point);
    #[expect(clippy::cast_precision_loss, reason = "a handful")]
    let x = place.map(|place| place as f64);
    Sample { point: point.to_owned(), x, ..sample.unwrap_or_else(failed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_keep_their_order_and_failures_their_words() {
        let sample = at(BESIDE_MEMORY, Err(anyhow!("no room").context("the disk")));
        assert_eq!((&*sample.point, sample.x), (BESIDE_MEMORY, Some(5.0)));
        assert_eq!((sample.status, &*sample.note), (Status::Failed, "the disk: no room"));
    }
}
