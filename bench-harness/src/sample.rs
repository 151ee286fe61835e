//! One measurement of one contender: a row of `samples.csv`. Everything else is computed from
//! these.

use std::path::Path;

use anyhow::{Context, Result};
use loadgen::report::Latency;
use serde::{Deserialize, Serialize};

use crate::process::{Cpu, Memory};

/// Ten ticks of most kernels.
const SPLIT_US_MIN: f64 = 100_000.0;

/// How a measurement ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Measured without a fault.
    #[default]
    Ok,
    /// The load generator or the server reported a fault; its figures don't count.
    Failed,
    /// Not measured: the contender or the scenario can't be had here. `note` says why.
    Absent,
}

/// One measurement. Figures that weren't taken are empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) scenario: String,
    pub(crate) contender: String,
    /// What was measured within the scenario, such as `fill`, `drain` or `1 MiB`; mostly empty.
    pub(crate) point: String,
    /// Queued jobs or payload bytes, where the scenario varies them; else the phase's place.
    pub(crate) x: Option<f64>,
    /// Counted from 1.
    pub(crate) repeat: usize,
    pub(crate) status: Status,
    pub(crate) note: String,
    pub(crate) jobs: u64,
    pub(crate) seconds: f64,
    pub(crate) jobs_per_second: f64,
    pub(crate) bytes_per_second: Option<f64>,
    pub(crate) p50_us: Option<f64>,
    pub(crate) p90_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    pub(crate) p999_us: Option<f64>,
    pub(crate) max_us: Option<f64>,
    /// Server CPU, user and system.
    pub(crate) cpu_us_per_job: Option<f64>,
    pub(crate) cpu_user_us_per_job: Option<f64>,
    pub(crate) cpu_system_us_per_job: Option<f64>,
    pub(crate) system_calls_per_job: Option<f64>,
    pub(crate) rss_peak_bytes: Option<f64>,
    pub(crate) rss_end_bytes: Option<f64>,
    /// Memory that each queued job took, its payload included.
    pub(crate) bytes_per_queued_job: Option<f64>,
    /// Memory that each connection took before the first job.
    pub(crate) bytes_per_connection: Option<f64>,
    /// The kernel's, for both ends of it.
    pub(crate) kernel_bytes_per_connection: Option<f64>,
    /// What each stored job took of the disk, all files of the store together.
    pub(crate) disk_bytes_per_job: Option<f64>,
    /// Share of its cores that the load itself used; near 1, the load was the limit.
    pub(crate) load_cpu_share: Option<f64>,
}

impl Sample {
    /// A measurement that has no figures, and why.
    pub(crate) fn without(status: Status, note: impl Into<String>) -> Self {
        Self { status, note: note.into(), ..Self::default() }
    }

    /// The sample, or one that says in `note` what went wrong.
    pub(crate) fn or_failed(result: Result<Self>) -> Self {
        result.unwrap_or_else(|error| Self::without(Status::Failed, format!("{error:#}")))
    }

    /// So many jobs in so many seconds.
    pub(crate) fn of(jobs: u64, seconds: f64) -> Self {
        Self { jobs, seconds, jobs_per_second: jobs as f64 / seconds, ..Self::default() }
    }

    /// At a point of its scenario.
    pub(crate) fn at(self, point: impl Into<String>, x: f64) -> Self {
        Self { point: point.into(), x: Some(x), ..self }
    }

    /// With the latencies of single jobs.
    pub(crate) fn with_latency(self, us: Option<Latency>) -> Self {
        Self {
            p50_us: us.map(|us| us.p50),
            p90_us: us.map(|us| us.p90),
            p99_us: us.map(|us| us.p99),
            p999_us: us.map(|us| us.p999),
            max_us: us.map(|us| us.max),
            ..self
        }
    }

    /// With the server's memory at the end.
    pub(crate) fn with_memory(self, memory: Option<Memory>) -> Self {
        let rss_peak_bytes = memory.map(|memory| memory.peak_bytes);
        Self { rss_peak_bytes, rss_end_bytes: memory.map(|memory| memory.now_bytes), ..self }
    }

    /// With what the server used for the jobs. The kernel splits it into user and system time by
    /// the tick: of a short time, that split would be chance.
    pub(crate) fn with_cpu(mut self, cpu: Option<Cpu>) -> Self {
        let jobs = self.jobs as f64;
        if let Some(cpu) = cpu.filter(|_| self.jobs > 0) {
            self.cpu_us_per_job = Some(cpu.total_us / jobs);
            let by_tick_us = cpu.user_us + cpu.system_us;
            let part = |us: f64| {
                (by_tick_us >= SPLIT_US_MIN).then_some(us * (cpu.total_us / by_tick_us / jobs))
            };
            self.cpu_user_us_per_job = part(cpu.user_us);
            self.cpu_system_us_per_job = part(cpu.system_us);
        }
        self
    }

    /// Without what the server used.
    pub(crate) fn without_cpu(self) -> Self {
        let (cpu_us_per_job, cpu_user_us_per_job, cpu_system_us_per_job) = Default::default();
        Self { cpu_us_per_job, cpu_user_us_per_job, cpu_system_us_per_job, ..self }
    }
}

/// Writes rows with a heading, such as all samples of a run.
pub(crate) fn write<T: Serialize>(path: &Path, rows: &[T]) -> Result<()> {
    let mut writer = csv::Writer::from_path(path).with_context(|| path.display().to_string())?;
    for row in rows {
        writer.serialize(row)?;
    }
    Ok(writer.flush()?)
}

/// Reads samples back.
pub(crate) fn read(path: &Path) -> Result<Vec<Sample>> {
    let mut reader = csv::Reader::from_path(path).with_context(|| path.display().to_string())?;
    reader.deserialize().map(|row| row.context("a row of samples.csv")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_survive_their_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("samples.csv");
        let samples = [
            Sample {
                scenario: "steady".to_owned(),
                p50_us: Some(1.5),
                status: Status::Failed,
                note: "lost 1, \"twice\"".to_owned(),
                ..Sample::of(12, 1.0)
            },
            Sample::without(Status::Absent, "not installed"),
        ];
        write(&path, &samples).unwrap();
        assert_eq!(read(&path).unwrap(), samples);
    }
}
