//! Runs the workspace's load generator against a Gearman server and reads its report.

use std::fmt::Display;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use loadgen::checker::Faults;
use loadgen::report::Figures;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::process::{Cores, Pinned, Server};
use crate::sample::{Sample, Status};
use crate::scenario::Period;

/// What a sample says that has nothing else to say.
pub(crate) const NO_JOB: &str = "no job was done";
/// Of fewer, what each takes would be lost in whole pages.
const CONNECTIONS_MIN: usize = 500;
/// Of fewer, it would be lost in what else the kernel does at the time.
const KERNEL_CONNECTIONS_MIN: usize = 5000;
/// How long setting up and draining may take beside the measured time.
const PATIENCE: Duration = Duration::from_secs(180);

/// Loads a server, from the load's cores.
pub(crate) fn run(
    program: &Path,
    period: &Period,
    server: &Server,
    cores: &Cores,
) -> Result<Sample> {
    let mut command = Command::new(program);
    command.args(arguments(period, server.address, server.pid(), cores.load.len()));
    // A group of its own, so that a run that hangs can be ended with all that it started.
    command.process_group(0);
    let pinned = Pinned::to(&cores.load);
    let child = spawn(&mut command);
    drop(pinned);
    let (output, errors) = communicate(child?, period.warm_up + period.duration + PATIENCE)?;
    match serde_json::from_str(&output) {
        Ok(figures) => Ok(sample(&figures, period.load.clients + period.load.workers)),
        Err(error) if errors.trim().is_empty() => bail!("the load generator's report: {error}"),
        Err(_) => bail!("the load generator: {}", errors.trim()),
    }
}

/// Starts a load generator whose outputs are read.
pub(crate) fn spawn(command: &mut Command) -> Result<Child> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().with_context(|| command.get_program().display().to_string())
}

fn arguments(period: &Period, address: SocketAddr, pid: u32, threads: usize) -> Vec<String> {
    let Period { load, rate, duration, warm_up } = period;
    let mut arguments: Vec<String> = vec!["--json".to_owned(), "--quiet".to_owned()];
    let mut option = |name: &str, value: &dyn Display| arguments.push(format!("--{name}={value}"));
    option("addr", &address);
    option("server-pid", &pid);
    option("clients", &load.clients);
    option("workers", &load.workers);
    option("mode", if load.background { &"background" } else { &"foreground" });
    option("size", &load.size);
    option("functions", &load.functions);
    option("threads", &threads);
    option("extra-functions", &load.extra_functions);
    if let Some(prefix) = load.prefix {
        option("function-prefix", &prefix);
    }
    match rate {
        Some(rate) => option("rate", rate),
        None => option("pipeline", &load.pipeline),
    }
    if rate.is_some() && load.burst > 1 {
        option("burst", &load.burst);
        option("spacing", &"even");
    }
    match load.jobs {
        Some(jobs) => {
            option("jobs", &jobs);
            option("warm-up", &"0s");
        }
        None => {
            option("duration", &format!("{}ms", duration.as_millis()));
            option("warm-up", &format!("{}ms", warm_up.as_millis()));
        }
    }
    let flags = [(load.has_unique, "--fresh-unique"), (load.dedicated, "--dedicated")];
    arguments.extend(flags.iter().filter(|it| it.0).map(|it| it.1.to_owned()));
    arguments
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

/// Reads a pipe to its end, beside this thread, and tells `ended`. What is cut short is no report.
pub(crate) fn read_all(
    mut pipe: impl Read + Send + 'static,
    ended: Option<Sender<()>>,
) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        let _ = pipe.read_to_string(&mut text);
        if let Some(ended) = ended {
            let _ = ended.send(());
        }
        text
    })
}

fn sample(figures: &Figures, connections: usize) -> Sample {
    let Faults { lost, duplicated, foreign, failed } = figures.faults;
    let faults =
        [("lost", lost), ("duplicated", duplicated), ("foreign", foreign), ("failed", failed)];
    let faults: Vec<String> = faults
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    let is_sound = faults.is_empty() && figures.jobs > 0;
    let has_no_job = faults.is_empty() && figures.jobs == 0;
    let each = |start: Option<u64>, idle: Option<u64>, enough: usize| {
        let grown = idle?.saturating_sub(start?);
        (connections >= enough).then_some(grown as f64 / connections as f64)
    };
    let (latency_us, server, kernel) = (figures.latency_us, figures.server, figures.kernel);
    let (user, system) = (server.cpu_user_us_per_job, server.cpu_system_us_per_job);
    Sample {
        status: if is_sound { Status::Ok } else { Status::Failed },
        note: if has_no_job { NO_JOB.to_owned() } else { faults.join(", ") },
        jobs: figures.jobs,
        seconds: figures.seconds,
        jobs_per_second: figures.jobs_per_second,
        bytes_per_second: Some(figures.bytes_per_second),
        p50_us: Some(latency_us.p50),
        p90_us: Some(latency_us.p90),
        p99_us: Some(latency_us.p99),
        p999_us: Some(latency_us.p999),
        max_us: Some(latency_us.max),
        cpu_us_per_job: user.zip(system).map(|(user, system)| user + system),
        cpu_user_us_per_job: user,
        cpu_system_us_per_job: system,
        rss_peak_bytes: server.rss_peak_bytes.map(|bytes| bytes as f64),
        rss_end_bytes: server.rss_end_bytes.map(|bytes| bytes as f64),
        bytes_per_connection: each(server.rss_start_bytes, server.rss_idle_bytes, CONNECTIONS_MIN),
        kernel_bytes_per_connection: each(
            kernel.start_bytes,
            kernel.idle_bytes,
            KERNEL_CONNECTIONS_MIN,
        ),
        load_cpu_share: Some(figures.loadgen.cpu_share),
        ..Sample::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"{"jobs":100,"seconds":2.0,"jobs_per_second":50.0,
        "bytes_per_second":6400.0,
        "latency_us":{"p50":1.0,"p90":2.0,"p99":3.0,"p999":4.0,"p9999":5.0,"max":6.0,"mean":1.5},
        "faults":{"lost":0,"duplicated":0,"foreign":0,"failed":0},"reruns":0,"replaced":0,
        "closed":0,"first_error":null,
        "server":{"pid":7,"cpu_user_us_per_job":1.25,"cpu_system_us_per_job":8.5,
        "rss_start_bytes":1000,"rss_idle_bytes":3000,"rss_peak_bytes":4096,"rss_end_bytes":2048},
        "kernel":{"start_bytes":5,"idle_bytes":7},
        "loadgen":{"cpu_share":0.9,"was_limit":false,"threads":1},
        "config":{"clients":1},"version":"0.1.0"}"#;

    #[test]
    fn a_report_becomes_a_sample() {
        let sample = sample(&serde_json::from_str(REPORT).unwrap(), 1000);
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
        let sample = sample(&serde_json::from_str(&report).unwrap(), 1000);
        assert_eq!((sample.status, &*sample.note), (Status::Failed, "3 lost, 1 duplicated"));
    }
}
