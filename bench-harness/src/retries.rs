//! What policies cost: the same load without one, with one while nothing fails, and while four of
//! five runs fail; and what requeuing many dead letters does to others.
//!
//! Where runs fail, figures are by run: so many runs a second, CPU of a run. Latencies stay those
//! of jobs. Contenders without policies have the load that needs none.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use ringgear::wire::frame::{self, Cut};
use ringgear::wire::{Arguments, Command, HEADER_BYTES, Magic, encode};

use crate::bench_target::BenchTarget;
use crate::process::{Persistence, Pinned, Server};
use crate::sample::{Sample, Status};
use crate::scenario::STEADY;
use crate::wire;

/// What the others are compared with.
pub(crate) const NO_POLICY: &str = "no policy";
/// What requeuing is compared with.
pub(crate) const DEAD_ALONE: &str = "beside dead letters";
pub(crate) const REQUEUED: &str = "beside their requeue";
const UNUSED: &str = "a policy, nothing fails";
const FAILING: &str = "4 of 5 runs fail";
const DEADLY: &str = "letters";
/// Runs a job takes on average where four of five fail.
const RUNS: f64 = 5.0;
/// Submissions that are on their way at once.
const BATCH: usize = 500;

/// A fresh server and a sample for each load; so many `letters` are requeued.
pub(crate) fn samples(target: &BenchTarget<'_>, letters: usize) -> Vec<Sample> {
    let mut samples = vec![(NO_POLICY, loaded(target, STEADY))];
    if target.contender.has_policies() {
        match policies(letters) {
            Ok(file) => {
                let ruled = BenchTarget { functions_file: Some(file.path()), ..*target };
                samples.push((UNUSED, loaded(&ruled, STEADY)));
                samples.push((FAILING, loaded(&ruled, "--worker-fail=0.8").map(by_run)));
                samples.push((DEAD_ALONE, beside_dead(&ruled, letters, false)));
                samples.push((REQUEUED, beside_dead(&ruled, letters, true)));
            }
            Err(error) => samples.push((UNUSED, Err(error))),
        }
    }
    let samples = samples.into_iter().enumerate();
    samples.map(|(at, (point, sample))| Sample::or_failed(sample).at(point, at as f64)).collect()
}

/// A functions file: jobs of one function die of their first failure, all others are run again
/// after a millisecond, as often as it takes.
fn policies(letters: usize) -> Result<tempfile::NamedTempFile> {
    let file = tempfile::NamedTempFile::new()?;
    let text = format!(
        "[[function]]\nmatch = \"{DEADLY}\"\nattempts = 1\n\n[[function]]\nmatch = \"*\"\n\
         attempts = 0\nforeground = true\nbackoff.first = \"1ms\"\nbackoff.max = \"1ms\"\n"
    );
    fs::write(file.path(), text).with_context(|| format!("policies for {letters} jobs"))?;
    Ok(file)
}

/// What the server is told beside its functions file.
pub(crate) fn options(command: &mut std::process::Command, functions_file: &Path) {
    command.arg("--functions-file").arg(functions_file);
    command.args(["--dead-max", "10000000", "--dead-bytes-max", "4g"]);
}

fn loaded(target: &BenchTarget<'_>, words: &str) -> Result<Sample> {
    let load = target.plan(words)?;
    target.with_server(Persistence::Memory, 1, |server| target.load(server, &load))
}

/// A sample of jobs as one of their runs.
fn by_run(sample: Sample) -> Sample {
    let each = |us: Option<f64>| us.map(|us| us / RUNS);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    let jobs = (sample.jobs as f64 * RUNS) as u64;
    Sample {
        jobs,
        jobs_per_second: sample.jobs_per_second * RUNS,
        cpu_us_per_job: each(sample.cpu_us_per_job),
        cpu_user_us_per_job: each(sample.cpu_user_us_per_job),
        cpu_system_us_per_job: each(sample.cpu_system_us_per_job),
        ..sample
    }
}

/// Steady on a server that has so many dead letters, which are all requeued meanwhile or not.
fn beside_dead(target: &BenchTarget<'_>, letters: usize, requeues: bool) -> Result<Sample> {
    let load = target.plan(STEADY)?;
    target.with_server(Persistence::Memory, 1, |server| {
        bury(server, letters)?;
        std::thread::scope(|scope| {
            let requeued = requeues.then(|| {
                let _pinned = Pinned::to(&target.cores.load);
                scope.spawn(|| requeue(server, target.options.warm_up()))
            });
            let sample = target.load(server, &load)?;
            let Some(requeued) = requeued else { return Ok(sample) };
            let took = requeued.join().unwrap_or_else(|it| std::panic::resume_unwind(it))?;
            let note = format!("{letters} dead letters were requeued in {} ms", took.as_millis());
            Ok(if sample.status == Status::Ok { Sample { note, ..sample } } else { sample })
        })
    })
}

/// Has so many jobs submitted and failed.
fn bury(server: &Server, letters: usize) -> Result<()> {
    let mut stream = wire::connect(server.address)?;
    let mut packets = Vec::new();
    encode(&mut packets, Magic::Request, Command::CanDo, &[DEADLY.as_bytes()], &[]);
    stream.write_all(&packets)?;
    let mut left = letters;
    while left > 0 {
        let batch = left.min(BATCH);
        packets.clear();
        for _ in 0..batch {
            let arguments: [&[u8]; 2] = [DEADLY.as_bytes(), b""];
            encode(&mut packets, Magic::Request, Command::SubmitJobBg, &arguments, &[b'x'; 64]);
            encode(&mut packets, Magic::Request, Command::GrabJob, &[], &[]);
        }
        let handles = wire::ask(&stream, &packets, |answer| assigned(answer, batch))?;
        packets.clear();
        for handle in handles {
            encode(&mut packets, Magic::Request, Command::WorkFail, &[&handle], &[]);
        }
        stream.write_all(&packets)?;
        left -= batch;
    }
    let dead = wire::ask(&stream, b"stats\n", |answer| {
        let text = String::from_utf8_lossy(answer);
        let value = text.lines().find_map(|line| line.strip_prefix("jobs_dead\t"))?;
        text.ends_with(".\n").then(|| Ok(value.parse::<usize>()?))
    })?;
    if dead != letters {
        bail!("{dead} of {letters} jobs are dead");
    }
    Ok(())
}

/// The handles of so many assigned jobs, once all are there.
fn assigned(mut answer: &[u8], jobs: usize) -> Option<Result<Vec<Vec<u8>>>> {
    let mut handles = Vec::new();
    loop {
        match frame::cut(answer, 0) {
            Ok(Cut::Packet { header, body }) => {
                answer = answer.get(HEADER_BYTES + body.len()..).unwrap_or_default();
                match (header.command, Arguments::split(header.command, body)) {
                    (Command::JobCreated, _) => {}
                    (Command::JobAssign, Ok(arguments)) => {
                        handles.push(arguments.part(0).to_vec());
                    }
                    (other, _) => {
                        return Some(Err(anyhow!("a submission was answered with {other:?}")));
                    }
                }
            }
            Ok(_) => return (handles.len() == jobs).then_some(Ok(handles)),
            Err(error) => return Some(Err(anyhow!("{error}"))),
        }
    }
}

/// Requeues all dead letters once the load is under way; answers with how long that took.
fn requeue(server: &Server, warm_up: Duration) -> Result<Duration> {
    server.wait(warm_up + Duration::from_millis(500));
    let stream = wire::connect(server.address)?;
    let start = Instant::now();
    wire::ask(&stream, b"requeue dead *\n", |answer| {
        answer
            .ends_with(b"\r\n")
            .then(|| if answer.starts_with(b"OK ") { Ok(()) } else { bail!("not requeued") })
    })?;
    Ok(start.elapsed())
}
