//! What a run found: as a table for people, as JSON for programs, as a latency distribution.
//!
//! In: numbers. Out: text. Knows nothing of how they came about. The names in the JSON are a
//! contract with other programs.

use std::fmt::{self, Write as _};
use std::ops::AddAssign;
use std::path::Path;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::checker::Faults;
use crate::error::Error;
use crate::options::{Mode, Options};
use crate::units::{bytes, count, rate, time};

/// Latencies in µs.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[expect(missing_docs, reason = "percentiles are named by what they are")]
pub struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub p9999: f64,
    pub max: f64,
    pub mean: f64,
}

impl Latency {
    /// Of a histogram in ns.
    #[must_use]
    pub fn of(ns: &Histogram<u64>) -> Self {
        let at = |quantile| ns.value_at_quantile(quantile) as f64 / 1e3;
        if ns.is_empty() {
            return Self::default();
        }
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: ns.max() as f64 / 1e3,
            mean: ns.mean() / 1e3,
        }
    }
}

/// The server's process, as far as this host knows it.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Server {
    /// Its number.
    pub pid: Option<u32>,
    /// CPU in user mode within the measured window, by jobs answered in it.
    pub cpu_user_us_per_job: Option<f64>,
    /// The same in the kernel.
    pub cpu_system_us_per_job: Option<f64>,
    /// CPU time over wall-clock time in the window; 1 is one core.
    pub cpu_share: Option<f64>,
    /// Resident memory before the first connection.
    pub rss_start_bytes: Option<u64>,
    /// Resident memory with all connections set up, before the first job.
    pub rss_idle_bytes: Option<u64>,
    /// Largest resident memory since the process began.
    pub rss_peak_bytes: Option<u64>,
    /// Resident memory at the end, before the connections are closed.
    pub rss_end_bytes: Option<u64>,
}

/// Memory that this host's kernel keeps for its own objects and for what is in TCP's buffers,
/// of all processes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Kernel {
    /// Before the first connection.
    pub start_bytes: Option<u64>,
    /// With all connections set up, before the first job.
    pub idle_bytes: Option<u64>,
}

/// TLS handshakes of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Handshakes {
    /// With certificates and a key exchange.
    pub full: u64,
    /// That resumed the session of an earlier connection.
    pub resumed: u64,
    /// That the server or this program ended.
    pub failed: u64,
}

impl AddAssign for Handshakes {
    fn add_assign(&mut self, other: Self) {
        self.full += other.full;
        self.resumed += other.resumed;
        self.failed += other.failed;
    }
}

/// This program itself.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Loadgen {
    /// CPU time over wall-clock time of its threads in the measured window; 1 is all of them busy.
    pub cpu_share: f64,
    /// Whether the figures are this program's limit rather than the server's.
    pub was_limit: bool,
    /// Its threads.
    pub threads: usize,
}

/// Checks that a file can be written, and changes nothing in it.
///
/// # Errors
/// `Error::Write` if it can't.
pub fn check_writable(path: &Path) -> Result<(), Error> {
    let opened = std::fs::OpenOptions::new().append(true).create(true).open(path);
    opened.map(drop).map_err(|cause| Error::Write { path: path.display().to_string(), cause })
}

/// What a run found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Jobs answered in the measured window.
    pub jobs: u64,
    /// The window.
    pub seconds: f64,
    /// The one by the other.
    pub jobs_per_second: f64,
    /// Bytes of those jobs' payloads and results.
    pub bytes_per_second: f64,
    /// Latencies of the jobs that were due in the window.
    pub latency_us: Latency,
    /// Faults of the whole run.
    pub faults: Faults,
    /// TLS handshakes of the whole run, with `--tls`.
    pub tls: Option<Handshakes>,
    /// Jobs that were assigned again after a worker had gone, or had failed them.
    pub reruns: u64,
    /// Connections replaced by `--churn`.
    pub replaced: u64,
    /// Connections that the server closed.
    pub closed: u64,
    /// The first thing that went wrong, in words.
    pub first_error: Option<String>,
    /// The server's process.
    pub server: Server,
    /// This host's kernel.
    pub kernel: Kernel,
    /// This program.
    pub loadgen: Loadgen,
    /// All options.
    pub config: Options,
    /// Of this program.
    pub version: &'static str,
    /// Latencies in ns.
    #[serde(skip)]
    pub latency_ns: Histogram<u64>,
}

impl Report {
    /// 0 if all was right, 1 if there were faults.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        u8::from(self.faults.total() > 0)
    }

    /// The report as one JSON object on one line.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Its keys are text and its values numbers and text: that can't fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Writes the latencies as HdrHistogram's percentile distribution, in µs.
    ///
    /// # Errors
    /// `Error::Write` if the file cannot be written.
    pub fn write_distribution(&self, path: &Path) -> Result<(), Error> {
        let text = self.distribution();
        std::fs::write(path, text)
            .map_err(|cause| Error::Write { path: path.display().to_string(), cause })
    }

    fn distribution(&self) -> String {
        let ns = &self.latency_ns;
        let mut out = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
        for step in ns.iter_quantiles(5) {
            let value_us = step.value_iterated_to() as f64 / 1e3;
            let quantile = step.quantile_iterated_to();
            let count = ns.count_between(0, step.value_iterated_to());
            let inverse = 1.0 / (1.0 - quantile);
            // Writing to a string cannot fail.
            let _ = if inverse.is_finite() {
                writeln!(out, "{value_us:12.3} {quantile:14.12} {count:10} {inverse:14.2}")
            } else {
                writeln!(out, "{value_us:12.3} {quantile:14.12} {count:10}")
            };
        }
        let (mean, deviation) = (ns.mean() / 1e3, ns.stdev() / 1e3);
        let (max, total) = (ns.max() as f64 / 1e3, ns.len());
        let _ = writeln!(out, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]");
        let _ = writeln!(out, "#[Max     = {max:12.3}, Total count    = {total:12}]");
        let _ = writeln!(out, "#[Buckets = {:12}, SubBuckets     = {:12}]", ns.buckets(), 2048);
        out
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = &self.config;
        let idle = match options.idle_workers {
            0 => String::new(),
            idle => format!(" + {idle} idle"),
        };
        writeln!(out, "clients × workers   {} × {}{idle}", options.clients, options.workers)?;
        let unit = options.unit();
        writeln!(out, "{unit:<20}{} in {}", count(self.jobs), time(self.seconds * 1e6))?;
        writeln!(out, "throughput          {}", rate(self.jobs_per_second, unit))?;
        writeln!(out, "payload bytes       {}/s", bytes(self.bytes_per_second))?;
        let latency = &self.latency_us;
        let percentiles = [
            ("p50", latency.p50),
            ("p90", latency.p90),
            ("p99", latency.p99),
            ("p99.9", latency.p999),
            ("p99.99", latency.p9999),
            ("max", latency.max),
        ];
        for (name, us) in percentiles {
            writeln!(out, "latency {name:<11} {}", time(us))?;
        }
        self.fmt_server(out)?;
        writeln!(
            out,
            "loadgen CPU         {:.0} % of {} thread(s)",
            self.loadgen.cpu_share * 100.0,
            self.loadgen.threads
        )?;
        if let Some(Handshakes { full, resumed, failed }) = self.tls {
            let (full, resumed) = (count(full), count(resumed));
            let failed = match failed {
                0 => String::new(),
                failed => format!(", {} failed", count(failed)),
            };
            writeln!(out, "TLS handshakes      {full} full, {resumed} resumed{failed}")?;
        }
        if options.worker_crash > 0.0 || options.worker_fail > 0.0 {
            writeln!(out, "reruns              {}", count(self.reruns))?;
        }
        if options.churn > 0.0 {
            writeln!(out, "replaced            {} connections", count(self.replaced))?;
        }
        let Faults { lost, duplicated, foreign, failed } = self.faults;
        write!(out, "faults              ")?;
        match self.faults.total() {
            0 => writeln!(out, "none")?,
            _ => writeln!(
                out,
                "{lost} lost, {duplicated} duplicated, {foreign} foreign, {failed} failed"
            )?,
        }
        if self.closed > 0 {
            let closed = count(self.closed);
            writeln!(
                out,
                "                    the server closed {closed} connections: its log says why"
            )?;
        }
        if let Some(error) = &self.first_error {
            writeln!(out, "                    first error: {error}")?;
        }
        if self.loadgen.was_limit {
            writeln!(
                out,
                "\nloadgen itself was the limit: its threads were busy and the server was not; \
                 give it more --threads or cores."
            )?;
        }
        Ok(())
    }
}

impl Report {
    fn fmt_server(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = &self.server;
        let Some(pid) = server.pid else {
            return writeln!(
                out,
                "server              its process isn't known here: give --server-pid, as its user \
                 or root"
            );
        };
        if let (Some(user), Some(system)) =
            (server.cpu_user_us_per_job, server.cpu_system_us_per_job)
        {
            let is_of_jobs = self.config.mode != Mode::Connect;
            writeln!(
                out,
                "server CPU {}  {} = {} user + {} system (pid {pid})",
                if is_of_jobs { "per job" } else { "each   " },
                time(user + system),
                time(user),
                time(system)
            )?;
        }
        if let Some(share) = server.cpu_share {
            writeln!(out, "server CPU          {:.0} % of a core", share * 100.0)?;
        }
        if let (Some(peak), Some(end)) = (server.rss_peak_bytes, server.rss_end_bytes) {
            let (peak, end) = (bytes(peak as f64), bytes(end as f64));
            writeln!(out, "server memory       {peak} at its peak, {end} at the end")?;
        }
        if let (Some(start), Some(idle)) = (server.rss_start_bytes, server.rss_idle_bytes) {
            let each = idle.saturating_sub(start) / self.config.connections().max(1) as u64;
            let each = bytes(each as f64);
            writeln!(out, "server memory       {each} per idle connection")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_latencies_are_no_latencies() {
        let latency = Latency::of(&crate::counts::histogram());
        assert!(latency.max == 0.0 && latency.p50 == 0.0);
    }
}
