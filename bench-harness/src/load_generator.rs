//! Runs the workspace's load generator against a Gearman server and reads its report.

use std::ffi::OsString;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Deserialize;

use crate::process::{Cores, Pinned};
use crate::sample::{Sample, Status};
use crate::scenario::{Load, Mode};

/// What a sample says that has nothing else to say.
pub(crate) const NO_JOB: &str = "no job was done";
/// Of fewer, what each takes would be lost in whole pages.
const CONNECTIONS_MIN: usize = 500;
/// Of fewer, it would be lost in what else the kernel does at the time.
const KERNEL_CONNECTIONS_MIN: usize = 5000;
/// How long setting up and draining may take beside the measured time.
const PATIENCE: Duration = Duration::from_secs(180);

/// What `loadgen --json` prints; what this harness doesn't need is left out.
#[derive(Debug, Deserialize)]
struct Report {
    jobs: u64,
    seconds: f64,
    jobs_per_second: f64,
    bytes_per_second: f64,
    latency_us: Latency,
    faults: Faults,
    server: Option<ServerCost>,
    kernel: Option<Kernel>,
    loadgen: Own,
}

#[derive(Debug, Deserialize)]
struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

#[derive(Debug, Deserialize)]
struct Faults {
    lost: u64,
    duplicated: u64,
    foreign: u64,
    failed: u64,
}

#[derive(Debug, Deserialize)]
struct ServerCost {
    cpu_user_us_per_job: Option<f64>,
    cpu_system_us_per_job: Option<f64>,
    rss_start_bytes: Option<f64>,
    rss_idle_bytes: Option<f64>,
    rss_peak_bytes: Option<f64>,
    rss_end_bytes: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Kernel {
    start_bytes: Option<f64>,
    idle_bytes: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Own {
    cpu_share: f64,
}

/// One run of the load generator.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    /// The binary.
    pub(crate) program: &'a Path,
    /// The load.
    pub(crate) load: Load,
    /// Jobs a second of an open loop.
    pub(crate) rate: Option<u64>,
    /// Measured time, unless the load says how many jobs.
    pub(crate) duration: Duration,
    /// Time under load before that.
    pub(crate) warm_up: Duration,
}

impl Run<'_> {
    /// Loads a server, from the load's cores.
    pub(crate) fn against(&self, address: SocketAddr, pid: u32, cores: &Cores) -> Result<Sample> {
        let mut command = Command::new(self.program);
        command.args(self.arguments(address, pid, cores.load.len()));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own, so that a run that hangs can be ended with all that it started.
        command.process_group(0);
        let pinned = Pinned::to(&cores.load);
        let child = command.spawn().with_context(|| self.program.display().to_string());
        drop(pinned);
        let (output, errors) = communicate(child?, self.warm_up + self.duration + PATIENCE)?;
        match serde_json::from_str::<Report>(&output) {
            Ok(report) => Ok(report.into_sample(self.load.clients + self.load.workers)),
            Err(error) if errors.trim().is_empty() => bail!("the load generator's report: {error}"),
            Err(_) => bail!("the load generator: {}", errors.trim()),
        }
    }

    fn arguments(&self, address: SocketAddr, pid: u32, threads: usize) -> Vec<OsString> {
        let load = &self.load;
        let mode = match load.mode {
            Mode::Foreground => "foreground",
            Mode::Background => "background",
        };
        let mut arguments: Vec<String> = vec!["--json".to_owned(), "--quiet".to_owned()];
        let mut option = |name: &str, value: &dyn std::fmt::Display| {
            arguments.extend([format!("--{name}"), value.to_string()]);
        };
        option("addr", &address);
        option("server-pid", &pid);
        option("clients", &load.clients);
        option("workers", &load.workers);
        option("mode", &mode);
        option("size", &load.size);
        option("functions", &load.functions);
        option("threads", &threads);
        if let Some(prefix) = load.prefix {
            option("function-prefix", &prefix);
        }
        if load.extra_functions > 0 {
            option("extra-functions", &load.extra_functions);
        }
        match self.rate {
            Some(rate) => option("rate", &rate),
            None => option("pipeline", &load.pipeline),
        }
        if self.rate.is_some() && load.burst > 1 {
            option("burst", &load.burst);
            option("spacing", &"even");
        }
        match load.jobs {
            Some(jobs) => {
                option("jobs", &jobs);
                option("warm-up", &"0s");
            }
            None => {
                option("duration", &format!("{}ms", self.duration.as_millis()));
                option("warm-up", &format!("{}ms", self.warm_up.as_millis()));
            }
        }
        if load.has_unique {
            arguments.push("--fresh-unique".to_owned());
        }
        if load.dedicated {
            arguments.push("--dedicated".to_owned());
        }
        arguments.into_iter().map(OsString::from).collect()
    }
}

/// Waits for a child's end; answers with what it wrote to either output.
fn communicate(mut child: Child, longest: Duration) -> Result<(String, String)> {
    let (sender, ended) = mpsc::channel();
    let output = read_all(child.stdout.take().context("a pipe")?, Some(sender));
    let errors = read_all(child.stderr.take().context("a pipe")?, None);
    let in_time = ended.recv_timeout(longest).is_ok();
    if !in_time && let Ok(pid) = i32::try_from(child.id()) {
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
    child.wait()?;
    if !in_time {
        bail!("the load generator didn't end within {} s", longest.as_secs());
    }
    let text = |thread: JoinHandle<String>| thread.join().map_err(|_| anyhow!("a reader failed"));
    Ok((text(output)?, text(errors)?))
}

/// Reads a pipe to its end, beside this thread.
fn read_all(mut pipe: impl Read + Send + 'static, ended: Option<Sender<()>>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        let _ = pipe.read_to_string(&mut text);
        if let Some(ended) = ended {
            let _ = ended.send(());
        }
        text
    })
}

impl Report {
    fn into_sample(self, connections: usize) -> Sample {
        let Faults { lost, duplicated, foreign, failed } = self.faults;
        let faults =
            [("lost", lost), ("duplicated", duplicated), ("foreign", foreign), ("failed", failed)];
        let faults: Vec<String> = faults
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        let is_sound = faults.is_empty() && self.jobs > 0;
        let note = match faults[..] {
            [] if self.jobs == 0 => NO_JOB.to_owned(),
            _ => faults.join(", "),
        };
        let server = self.server.as_ref();
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let each = |start: f64, idle: f64, enough: usize| {
            (connections >= enough).then_some((idle - start).max(0.0) / connections as f64)
        };
        Sample {
            status: if is_sound { Status::Ok } else { Status::Failed },
            note,
            jobs: self.jobs,
            seconds: self.seconds,
            jobs_per_second: self.jobs_per_second,
            bytes_per_second: Some(self.bytes_per_second),
            p50_us: Some(self.latency_us.p50),
            p90_us: Some(self.latency_us.p90),
            p99_us: Some(self.latency_us.p99),
            p999_us: Some(self.latency_us.p999),
            max_us: Some(self.latency_us.max),
            cpu_us_per_job: server.and_then(|server| {
                Some(server.cpu_user_us_per_job? + server.cpu_system_us_per_job?)
            }),
            cpu_user_us_per_job: server.and_then(|server| server.cpu_user_us_per_job),
            cpu_system_us_per_job: server.and_then(|server| server.cpu_system_us_per_job),
            rss_peak_bytes: server.and_then(|server| server.rss_peak_bytes),
            rss_end_bytes: server.and_then(|server| server.rss_end_bytes),
            bytes_per_connection: server.and_then(|server| {
                each(server.rss_start_bytes?, server.rss_idle_bytes?, CONNECTIONS_MIN)
            }),
            kernel_bytes_per_connection: self.kernel.and_then(|kernel| {
                each(kernel.start_bytes?, kernel.idle_bytes?, KERNEL_CONNECTIONS_MIN)
            }),
            load_cpu_share: Some(self.loadgen.cpu_share),
            ..Sample::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"{"jobs":100,"seconds":2.0,"jobs_per_second":50.0,
        "bytes_per_second":6400.0,
        "latency_us":{"p50":1.0,"p90":2.0,"p99":3.0,"p999":4.0,"p9999":5.0,"max":6.0,"mean":1.5},
        "faults":{"lost":0,"duplicated":0,"foreign":0,"failed":0},"reruns":0,
        "server":{"pid":7,"cpu_user_us_per_job":1.25,"cpu_system_us_per_job":8.5,
        "rss_start_bytes":1000,"rss_idle_bytes":3000,"rss_peak_bytes":4096,"rss_end_bytes":2048},
        "kernel":{"start_bytes":5,"idle_bytes":7},
        "loadgen":{"cpu_share":0.9,"was_limit":false},"config":{"clients":1},"version":"0.1.0"}"#;

    #[test]
    fn a_report_becomes_a_sample() {
        let sample = serde_json::from_str::<Report>(REPORT).unwrap().into_sample(1000);
        assert_eq!(sample.status, Status::Ok);
        assert_eq!((sample.jobs, sample.p99_us), (100, Some(3.0)));
        assert_eq!(sample.cpu_us_per_job, Some(9.75));
        assert_eq!(sample.rss_peak_bytes, Some(4096.0));
        assert_eq!(sample.bytes_per_connection, Some(2.0));
        assert_eq!(sample.kernel_bytes_per_connection, None, "of too few to tell");
    }

    #[test]
    fn faults_fail_the_sample_and_are_named() {
        let report = REPORT.replace(r#""lost":0,"duplicated":0"#, r#""lost":3,"duplicated":1"#);
        let sample = serde_json::from_str::<Report>(&report).unwrap().into_sample(1000);
        assert_eq!(sample.status, Status::Failed);
        assert_eq!(sample.note, "3 lost, 1 duplicated");
    }

    #[test]
    fn a_server_that_nobody_looked_at_has_no_costs() {
        let start = REPORT.find(r#""server""#).unwrap();
        let end = REPORT.find(r#""loadgen""#).unwrap();
        let report = format!("{}\"server\":null,{}", &REPORT[..start], &REPORT[end..]);
        let sample = serde_json::from_str::<Report>(&report).unwrap().into_sample(1000);
        assert_eq!(sample.cpu_us_per_job, None);
    }
}
