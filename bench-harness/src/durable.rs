//! Jobs that are on disk before the answer: how fast they are taken, what they do to others, and
//! how long a server takes to come back with them.
//!
//! Each phase gets a server of its own with a store of its own. Recovery starts from files that an
//! ended server left, as much of them in the page cache as there is; it is over when the server
//! says that all jobs wait. What one job takes on disk is measured there.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use loadgen::options::Spacing;
use loadgen::units::count;

use crate::bench_target::BenchTarget;
use crate::contender::installed::fill_gearmand;
use crate::data_dir::DataDir;
use crate::load_generator::NO_JOB;
use crate::process::{Cpu, Memory, Persistence, Server};
use crate::sample::{Sample, Status};
use crate::scenario::{Load, STEADY};
use crate::wire;
use crate::wire_protocol::Protocol;

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
const STORED: &str =
    "--mode=background --workers=0 --pipeline=16 --fresh-unique --function-prefix=bench";
/// The same one after the other.
const STORED_CLOSED: &str = "--mode=background --workers=0 --fresh-unique --function-prefix=bench";
/// What all these jobs are for, as the load generator names it.
const FUNCTION: &str = "bench-0";
/// One client with so many jobs under way that each commit answers. As an open loop, they come as
/// they do after a commit: all at once.
const FLOOD: &str = "--clients=1 --mode=background --workers=0 --pipeline=64 --fresh-unique \
                     --function-prefix=flood";
const FLOOD_BURST: u32 = 64;
/// How much longer the flood goes on than what is measured beside it.
const FLOOD_MARGIN: Duration = Duration::from_millis(500);
/// How often a server that reads its store is asked whether it is back.
const ASK_TIME: Duration = Duration::from_millis(1);

/// Runs all phases of one contender, `jobs` of them in the recovery, each as its own samples.
pub(crate) fn samples(target: &BenchTarget<'_>, data_dir: &DataDir, jobs: u64) -> Vec<Sample> {
    let patience = target.options.phase_limit.max(target.patience);
    let run = Run { target: BenchTarget { patience, ..*target }, data_dir, jobs };
    let mut samples =
        vec![at(CLOSED, run.stored(STORED_CLOSED)), at(PIPELINED, run.stored(STORED))];
    match target.contender.protocol() {
        Protocol::Gearman => samples.extend(run.foreground()),
        Protocol::Beanstalk | Protocol::Redis => {
            let why = "all its jobs are on disk, and nothing is answered to a submitter";
            samples.push(at(ALONE, Ok(Sample::without(Status::Absent, why))));
        }
    }
    samples.push(at(RECOVERY, run.recovery()));
    samples
}

struct Run<'a> {
    target: BenchTarget<'a>,
    data_dir: &'a DataDir,
    /// Jobs of the recovery.
    jobs: u64,
}

impl Run<'_> {
    fn plan(&self, words: &str) -> Result<Load> {
        let mut load = self.target.plan(words)?;
        load.duration.0 = load.duration.0.min(self.target.options.phase_limit);
        Ok(load)
    }

    /// A load alone on a server that stores background jobs.
    fn stored(&self, words: &str) -> Result<Sample> {
        let (folder, load) = (self.data_dir.folder()?, self.plan(words)?);
        let measure = |server: &Server| self.target.load(server, &load);
        self.target.with_server(Persistence::Disk(folder.path()), 1, measure)
    }

    /// Foreground jobs alone, beside a flood that is stored, and beside the same one that isn't.
    fn foreground(&self) -> Vec<Sample> {
        let alone = at(ALONE, self.stored(STEADY));
        let folder = self.data_dir.folder();
        let both = folder.and_then(|it| self.beside(Persistence::Disk(it.path()), None));
        let (beside, flood) = match both {
            Ok(both) => both,
            Err(error) => return vec![alone, at(BESIDE_STORED, Err(error))],
        };
        #[expect(clippy::cast_possible_truncation, reason = "a rate")]
        let rate = flood.jobs_per_second.round().max(1.0) as u64;
        let memory = self.beside(Persistence::Memory, Some(rate)).map(|(beside, _)| beside);
        vec![
            alone,
            at(BESIDE_STORED, Ok(beside)),
            at(FLOODING, Ok(flood)),
            at(BESIDE_MEMORY, memory),
        ]
    }

    /// Foreground jobs beside background jobs: as fast as these are taken, or at a rate. The server
    /// works for both: what it used is neither's.
    fn beside(&self, persistence: Persistence<'_>, rate: Option<u64>) -> Result<(Sample, Sample)> {
        let server = self.target.start(persistence, 1)?;
        let (steady, mut flood) = (self.plan(STEADY)?, self.plan(FLOOD)?);
        flood.duration.0 += FLOOD_MARGIN;
        if let Some(rate) = rate {
            (flood.rate, flood.burst) = (Some(rate as f64), FLOOD_BURST);
            flood.spacing = Spacing::Even;
        }
        let (beside, flood) = std::thread::scope(|scope| {
            let flood = scope.spawn(|| self.target.load(&server, &flood));
            let beside = self.target.load(&server, &steady);
            (beside, flood.join().map_err(|_| anyhow!("the flood failed")))
        });
        let (flood, mut beside) = (flood??.without_cpu(), beside?.without_cpu());
        if flood.status == Status::Failed {
            bail!("the flood: {}", flood.note);
        }
        if beside.note == NO_JOB {
            // A server that does nothing else meanwhile: that is a result.
            beside.status = Status::Ok;
            beside = beside.with_latency(None);
        }
        Ok((beside, flood))
    }

    fn recovery(&self) -> Result<Sample> {
        let folder = self.data_dir.folder()?;
        self.fill(folder.path())?;
        let target = &self.target;
        let disk_bytes = target.contender.disk_bytes(target.options, folder.path())?;
        let mut server = target.start(Persistence::Disk(folder.path()), 1)?;
        if !self.has_jobs_in_time(&mut server)? {
            let time = target.patience.as_secs();
            let why = format!("{} jobs weren't back after {time} s", count(self.jobs));
            return Ok(Sample::without(Status::Absent, why));
        }
        let sample = Sample::of(self.jobs, server.start.elapsed().as_secs_f64());
        let sample = sample.with_memory(Memory::of(server.pid())).with_cpu(Cpu::of(server.pid()));
        let disk_bytes_per_job = Some(disk_bytes as f64 / self.jobs as f64);
        Ok(Sample { disk_bytes_per_job, ..sample })
    }

    /// Leaves the jobs in a folder, and no server.
    fn fill(&self, folder: &Path) -> Result<()> {
        let server = self.target.start(Persistence::Async(folder), 1)?;
        if self.target.contender.is_gearmand() {
            drop(server);
            return fill_gearmand(folder, FUNCTION, self.jobs, &[b'x'; 64]);
        }
        let load = self.target.plan(&format!("{STORED} --jobs={}", self.jobs))?;
        let sample = self.target.load(&server, &load)?;
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
                // It may be about to end, which its log would say.
                _ if Instant::now() < deadline => server.wait(ASK_TIME),
                Ok(jobs) => {
                    let (back, all) = (count(jobs), count(self.jobs));
                    bail!("{back} of {all} jobs came back")
                }
                Err(_) => return Ok(false),
            }
        }
    }

    /// Asks how many jobs wait.
    fn waiting_jobs(&self, address: SocketAddr, deadline: Instant) -> Result<u64> {
        let protocol = self.target.contender.protocol();
        let left = deadline.saturating_duration_since(Instant::now()).max(ASK_TIME);
        let stream = TcpStream::connect_timeout(&address, left)?;
        stream.set_read_timeout(Some(left))?;
        wire::ask(&stream, protocol.ask_count(), |answer| protocol.count(answer, FUNCTION))
    }
}

/// A phase's sample, with its name and its place in the table.
fn at(point: &str, sample: Result<Sample>) -> Sample {
    let place = POINTS.iter().position(|it| *it == point).unwrap_or(POINTS.len());
    Sample::or_failed(sample).at(point, place as f64)
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
