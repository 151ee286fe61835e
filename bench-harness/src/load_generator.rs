//! Runs the workspace's load generator against a Gearman server, from the load's cores.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use loadgen::checker::Faults;
use loadgen::report::Report;
use loadgen::{Error, run_observed};

use crate::process::{Cores, Pinned, Server};
use crate::sample::{Sample, Status};
use crate::scenario::Load;

/// What a sample says that has nothing else to say.
pub(crate) const NO_JOB: &str = "no job was done";
/// Of fewer, what each takes would be lost in whole pages.
const CONNECTIONS_MIN: usize = 500;
/// Of fewer, it would be lost in what else the kernel does at the time.
const KERNEL_CONNECTIONS_MIN: usize = 5000;
/// How long setting up and draining may take beside the measured time.
const PATIENCE: Duration = Duration::from_secs(180);

/// Loads a server.
pub(crate) fn run(load: &Load, server: &Server, cores: &Cores) -> Result<Sample> {
    let load = Load {
        addr: server.address.to_string(),
        server_pid: Some(server.pid()),
        threads: Some(cores.load.len()),
        quiet: true,
        ..load.clone()
    };
    let longest = load.warm_up.0 + load.duration.0 + PATIENCE;
    let deadline = Instant::now() + longest;
    // The threads of the load have the cores of this one.
    let _pinned = Pinned::to(&cores.load);
    let report = run_observed(&load, &mut |_, _| {
        let late = || Error::Usage(format!("it didn't end within {} s", longest.as_secs()));
        if Instant::now() < deadline { Ok(()) } else { Err(late()) }
    });
    Ok(sample(&report.context("the load generator")?))
}

fn sample(report: &Report) -> Sample {
    let connections = report.config.connections();
    let Faults { lost, duplicated, foreign, failed } = report.faults;
    let faults =
        [("lost", lost), ("duplicated", duplicated), ("foreign", foreign), ("failed", failed)];
    let faults: Vec<String> = faults
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    let is_sound = faults.is_empty() && report.jobs > 0;
    let has_no_job = faults.is_empty() && report.jobs == 0;
    let each = |start: Option<u64>, idle: Option<u64>, enough: usize| {
        let grown = idle?.saturating_sub(start?);
        (connections >= enough).then_some(grown as f64 / connections as f64)
    };
    let (server, kernel) = (report.server, report.kernel);
    let (user, system) = (server.cpu_user_us_per_job, server.cpu_system_us_per_job);
    let sample = Sample {
        status: if is_sound { Status::Ok } else { Status::Failed },
        note: if has_no_job { NO_JOB.to_owned() } else { faults.join(", ") },
        jobs: report.jobs,
        seconds: report.seconds,
        jobs_per_second: report.jobs_per_second,
        bytes_per_second: Some(report.bytes_per_second),
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
        load_cpu_share: Some(report.loadgen.cpu_share),
        ..Sample::default()
    };
    sample.with_latency(Some(report.latency_us))
}

#[cfg(test)]
mod tests {
    use loadgen::report::{Latency, Loadgen, Server};

    use super::*;

    /// Of 1000 connections.
    fn report(faults: Faults) -> Report {
        Report {
            jobs: 100,
            seconds: 2.0,
            jobs_per_second: 50.0,
            bytes_per_second: 6400.0,
            latency_us: Latency { p99: 3.0, ..Latency::default() },
            faults,
            tls: None,
            reruns: 0,
            replaced: 0,
            closed: 0,
            first_error: None,
            server: Server {
                cpu_user_us_per_job: Some(1.25),
                cpu_system_us_per_job: Some(8.5),
                rss_start_bytes: Some(1000),
                rss_idle_bytes: Some(3000),
                rss_peak_bytes: Some(4096),
                ..Server::default()
            },
            kernel: loadgen::report::Kernel { start_bytes: Some(5), idle_bytes: Some(7) },
            loadgen: Loadgen::default(),
            config: crate::scenario::plan("--clients=990 --workers=10").unwrap(),
            version: "",
            latency_ns: hdrhistogram::Histogram::new(3).unwrap(),
        }
    }

    #[test]
    fn a_report_becomes_a_sample() {
        let sample = sample(&report(Faults::default()));
        assert_eq!((sample.status, sample.jobs, sample.p99_us), (Status::Ok, 100, Some(3.0)));
        assert_eq!((sample.cpu_us_per_job, sample.rss_peak_bytes), (Some(9.75), Some(4096.0)));
        assert_eq!(sample.bytes_per_connection, Some(2.0));
        assert_eq!(sample.kernel_bytes_per_connection, None, "of too few to tell");
    }

    #[test]
    fn faults_fail_the_sample_and_are_named() {
        let sample = sample(&report(Faults { lost: 3, duplicated: 1, ..Faults::default() }));
        assert_eq!((sample.status, &*sample.note), (Status::Failed, "3 lost, 1 duplicated"));
    }
}
