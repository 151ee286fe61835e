//! Runs scenarios: contenders take turns within each repeat, and each gets a fresh server every
//! time.
//!
//! Samples are written after every scenario, so that a run that is interrupted keeps what it has.
//! What can't be measured becomes a sample too, with its reason.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};

use crate::bench_target::BenchTarget;
use crate::connections;
use crate::contender::{Contender, Persistence, Protocol, Start};
use crate::cores;
use crate::data_dir::DataDir;
use crate::durable;
use crate::large;
use crate::load_generator;
use crate::locate;
use crate::machine::Machine;
use crate::options::RunOptions;
use crate::perf;
use crate::process::{Cores, Cpu, Server, raise_descriptors};
use crate::queue;
use crate::queue_depth;
use crate::report::{self, Facts};
use crate::run_dir;
use crate::sample::{self, Sample, Status};
use crate::scenario::{self, Load, Scenario, Work};

/// How long a server may take to start.
const START_TIME: Duration = Duration::from_secs(20);
/// How long system calls are counted, after the measurement.
const COUNT_TIME: Duration = Duration::from_secs(1);
/// The open loop runs at this share of what gearmand manages in a closed one.
const LATENCY_SHARE: f64 = 0.25;

/// Runs everything that was asked for; answers whether all of it was sound.
pub(crate) fn run(options: &RunOptions) -> Result<bool> {
    let harness = Harness::new(options)?;
    let folder = run_dir::fresh(options.places.out.as_deref(), options.name(), report::SAMPLES)?;
    let mut facts = harness.facts();
    let mut samples: Vec<Sample> = Vec::new();
    for scenario in &harness.scenarios {
        samples.extend(harness.scenario(scenario, &mut facts));
        sample::write(&folder.join(report::SAMPLES), &samples)?;
        report::write_facts(&folder, &facts)?;
    }
    let table = report::write(&folder, &facts, &samples)?;
    println!("{table}");
    eprintln!("written to {}", folder.display());
    Ok(samples.iter().all(|sample| sample.status != Status::Failed))
}

/// Prints what there is.
pub(crate) fn list() {
    println!("Scenarios:");
    for scenario in &scenario::ALL {
        println!("  {:<17}{}", scenario.name, scenario.what);
    }
    println!("Contenders:");
    for contender in Contender::ALL {
        println!("  {:<17}{}", contender.name(), contender.about());
    }
}

struct Harness<'a> {
    options: &'a RunOptions,
    cores: Cores,
    loadgen: Result<PathBuf, String>,
    data_dir: Result<DataDir, String>,
    scenarios: Vec<&'static Scenario>,
    contenders: Vec<Contender>,
    counts_calls: bool,
    /// That a process may have.
    descriptors: usize,
}

impl<'a> Harness<'a> {
    fn new(options: &'a RunOptions) -> Result<Self> {
        let scenarios = chosen(&options.scenarios, "scenario", scenario::ALL.iter(), |it| it.name)?;
        let contenders =
            chosen(&options.contenders, "contender", Contender::ALL.into_iter(), |contender| {
                contender.name()
            })?;
        let cores = Cores { server: vec![options.server_core], load: options.load_cores.clone() };
        let available = std::thread::available_parallelism().map_or(1, usize::from);
        if cores.load.contains(&options.server_core) && available > 1 {
            bail!("--load-cores must not hold the server's core {}", options.server_core);
        }
        let loadgen = locate::find("loadgen", options.places.loadgen.as_deref());
        // Finding it costs some time.
        let data_dir = if scenarios.iter().any(|scenario| scenario.stores()) {
            DataDir::find(options.places.scratch.as_deref())
        } else {
            Err("no scenario stores anything".to_owned())
        };
        let counts_calls = perf::is_here();
        // Servers inherit the limit, and the drivers here need it for their own connections.
        let descriptors = raise_descriptors();
        Ok(Self {
            options,
            cores,
            loadgen,
            data_dir,
            scenarios,
            contenders,
            counts_calls,
            descriptors,
        })
    }

    fn facts(&self) -> Facts {
        let known = |contender: &&Contender| {
            self.scenarios.iter().any(|scenario| contender.takes_part(scenario, self.options))
        };
        let contenders = self.contenders.iter().filter(known).map(|contender| report::Known {
            name: contender.name().to_owned(),
            about: contender.about().to_owned(),
            version: match contender.absent(self.options) {
                Some(why) => format!("absent: {why}"),
                None => contender.version(self.options),
            },
        });
        let scenarios = self.scenarios.iter().map(|scenario| report::Known {
            name: scenario.name.to_owned(),
            about: scenario.what.to_owned(),
            version: String::new(),
        });
        Facts {
            name: self.options.name().to_owned(),
            date: run_dir::today(),
            command: run_dir::command_line(),
            machine: Machine::this(),
            server_cores: self.cores.server.clone(),
            load_cores: self.cores.load.clone(),
            repeats: self.options.repeats(),
            duration_s: self.options.duration().as_secs_f64(),
            warm_up_s: self.options.warm_up().as_secs_f64(),
            latency_rate: self.options.latency_rate,
            counts_calls: self.counts_calls,
            scratch: self.data_dir.as_ref().ok().map(|data_dir| data_dir.about.clone()),
            contenders: contenders.collect(),
            scenarios: scenarios.collect(),
        }
    }

    fn scenario(&self, scenario: &Scenario, facts: &mut Facts) -> Vec<Sample> {
        eprintln!("{}: {}", scenario.name, scenario.what);
        let mut samples = Vec::new();
        for repeat in 1..=self.options.repeats() {
            for at in 0..self.contenders.len() {
                let contender = self.contenders[turn(at, repeat, self.contenders.len())];
                if !contender.takes_part(scenario, self.options) {
                    continue;
                }
                let absent = scenario.absent_for(contender).map(str::to_owned);
                let absent = absent.or_else(|| contender.absent(self.options));
                let absent = absent.or_else(|| self.absent_on_disk(scenario, contender));
                let results = match absent {
                    Some(_) if repeat > 1 => continue,
                    Some(why) => vec![Sample::without(Status::Absent, why)],
                    None => self.measure(scenario, contender, repeat, facts),
                };
                for mut sample in results {
                    scenario.name.clone_into(&mut sample.scenario);
                    contender.name().clone_into(&mut sample.contender);
                    sample.repeat = repeat;
                    if sample.note.is_empty() {
                        scenario.note_for(contender).clone_into(&mut sample.note);
                    }
                    eprintln!("  {}", report::progress(&sample));
                    samples.push(sample);
                }
            }
        }
        let order = |sample: &Sample| {
            let place = |one: &Contender| one.name() == sample.contender;
            Contender::ALL.iter().position(place)
        };
        samples.sort_by(|a, b| {
            (a.x, order(a)).partial_cmp(&(b.x, order(b))).unwrap_or(std::cmp::Ordering::Equal)
        });
        samples
    }

    fn measure(
        &self,
        scenario: &Scenario,
        contender: Contender,
        repeat: usize,
        facts: &mut Facts,
    ) -> Vec<Sample> {
        let work = if self.options.quick { scenario.quick } else { scenario.work };
        let result = match work {
            Work::Load(load) => self.load(load, contender, repeat, facts).map(|it| vec![it]),
            Work::Deep(depths) => Ok(self.deep(depths, contender)),
            Work::Large(sizes) => Ok(self.large(sizes, contender)),
            Work::Crowds(crowds) => self.crowds(crowds, contender),
            Work::Cores(load, counts) => self.cores(load, counts, contender),
            Work::Durable(jobs) => self.durable(jobs, contender),
        };
        result.unwrap_or_else(|error| vec![failed(&error)])
    }

    /// A fresh server that keeps its jobs in memory.
    fn start(&self, contender: Contender) -> Result<Server> {
        let (cores, persistence) = (&self.cores, Persistence::Memory);
        let start = Start { cores, persistence, threads: 1, patience: START_TIME };
        contender.start(self.options, &start)
    }

    /// A contender, for scenarios that take the load generator.
    fn target(&self, contender: Contender, patience: Duration) -> Result<BenchTarget<'_>> {
        let loadgen = self.loadgen.as_ref().map_err(|why| anyhow!("{why}"))?;
        let Self { options, cores, .. } = self;
        Ok(BenchTarget { contender, options, cores, loadgen, patience })
    }

    fn load(
        &self,
        load: Load,
        contender: Contender,
        repeat: usize,
        facts: &mut Facts,
    ) -> Result<Sample> {
        if load.open && facts.latency_rate.is_none() {
            facts.latency_rate = Some(self.calibrate(load)?);
        }
        let rate = facts.latency_rate.filter(|_| load.open);
        let server = self.start(contender)?;
        let (duration, warm_up) = (self.options.duration(), self.options.warm_up());
        let result = self.load_once(load, rate, contender, &server, duration, warm_up);
        let mut sample = result.map_err(|error| with_log(error, server))?;
        // Counting costs the server something, so it gets a fresh one and a run of its own.
        if self.counts_calls && repeat == 1 && sample.status == Status::Ok {
            sample.system_calls_per_job = self.count_calls(load, rate, contender).ok();
        }
        Ok(sample)
    }

    fn load_once(
        &self,
        load: Load,
        rate: Option<u64>,
        contender: Contender,
        server: &Server,
        duration: Duration,
        warm_up: Duration,
    ) -> Result<Sample> {
        let protocol = contender.protocol();
        if protocol != Protocol::Gearman {
            let run = queue::Run { protocol, load, duration, warm_up };
            return run.against(server.address, server.pid(), &self.cores);
        }
        let program = match &self.loadgen {
            Ok(program) => program,
            Err(why) => return Ok(Sample::without(Status::Absent, why)),
        };
        let run = load_generator::Run { program, load, rate, duration, warm_up };
        let before = Cpu::of(server.pid());
        let sample = run.against(server.address, server.pid(), &self.cores)?;
        if load.jobs.is_none() {
            return Ok(sample);
        }
        // So short that ticks are too coarse, and all of it is measured: more exact from here.
        let cpu = before.and_then(|before| Some(Cpu::of(server.pid())?.since(before)));
        Ok(sample.with_cpu(cpu))
    }

    /// System calls per job of a short run, connecting included.
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
    fn count_calls(&self, load: Load, rate: Option<u64>, contender: Contender) -> Result<f64> {
        let server = self.start(contender)?;
        let count = perf::Count::start(server.pid())?;
        let time = if self.options.quick { COUNT_TIME / 2 } else { COUNT_TIME };
        let sample = self.load_once(load, rate, contender, &server, time, Duration::ZERO)?;
        Ok(count.finish()? as f64 / sample.jobs as f64)
    }

    /// The rate of the open loop.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate")]
    fn calibrate(&self, load: Load) -> Result<u64> {
        let gearmand = Contender::Gearmand { tuned: false };
        if let Some(why) = gearmand.absent(self.options) {
            bail!("no rate without gearmand ({why}): give --latency-rate");
        }
        let server = self.start(gearmand)?;
        let load = Load { open: false, ..load };
        let time = self.options.duration().min(Duration::from_secs(3));
        let sample = self.load_once(load, None, gearmand, &server, time, self.options.warm_up())?;
        if sample.status != Status::Ok {
            bail!("no rate from gearmand: {}", sample.note);
        }
        let rate = (sample.jobs_per_second * LATENCY_SHARE).round().max(1.0) as u64;
        eprintln!("  rate: {rate} jobs/s, a quarter of gearmand's {:.0}", sample.jobs_per_second);
        Ok(rate)
    }

    fn deep(&self, depths: &[u64], contender: Contender) -> Vec<Sample> {
        let limit = self.options.phase_limit;
        let one = |&depth: &u64| {
            let run = queue_depth::Run { protocol: contender.protocol(), depth, limit };
            let server = self.start(contender)?;
            let result = run.against(server.address, server.pid(), &self.cores);
            result.map_err(|error| with_log(error, server))
        };
        let samples = depths.iter().flat_map(|depth| match one(depth) {
            Ok(samples) => samples.to_vec(),
            Err(error) => vec![run_failed(&error, &queue_depth::name("fill", *depth), *depth)],
        });
        samples.collect()
    }

    fn durable(&self, jobs: u64, contender: Contender) -> Result<Vec<Sample>> {
        let target = self.target(contender, self.options.phase_limit.max(START_TIME))?;
        let data_dir = self.data_dir.as_ref().map_err(|why| anyhow!("{why}"))?;
        Ok(durable::Run { target, data_dir, jobs }.samples())
    }

    fn crowds(&self, crowds: &[usize], contender: Contender) -> Result<Vec<Sample>> {
        let target = self.target(contender, START_TIME)?;
        Ok(connections::samples(&target, self.descriptors, crowds, failed_beside))
    }

    fn cores(&self, load: Load, counts: &[usize], contender: Contender) -> Result<Vec<Sample>> {
        let target = self.target(contender, START_TIME)?;
        Ok(cores::samples(target, load, counts, failed_beside))
    }

    /// Why a contender can't be measured with a store, if it is to be.
    fn absent_on_disk(&self, scenario: &Scenario, contender: Contender) -> Option<String> {
        if !scenario.stores() {
            return None;
        }
        let absent = contender.absent_on_disk(self.options);
        absent.or_else(|| {
            self.data_dir.as_ref().err().or_else(|| self.loadgen.as_ref().err()).cloned()
        })
    }

    fn large(&self, sizes: &[(u64, u64)], contender: Contender) -> Vec<Sample> {
        let limit = self.options.phase_limit;
        let one = |bytes: u64, count: u64| {
            let run = large::Run { protocol: contender.protocol(), bytes, count, limit };
            let server = self.start(contender)?;
            let result = run.against(server.address, server.pid(), &self.cores);
            result.map_err(|error| with_log(error, server))
        };
        let samples = sizes.iter().map(|&(bytes, count)| match one(bytes, count) {
            Ok(sample) => sample,
            Err(error) => run_failed(&error, &large::name(bytes), bytes),
        });
        samples.collect()
    }
}

fn failed(error: &anyhow::Error) -> Sample {
    Sample::without(Status::Failed, format!("{error:#}"))
}

/// The same beside a server, if it came to one.
fn failed_beside(error: anyhow::Error, server: Option<Server>) -> Sample {
    failed(&match server {
        Some(server) => with_log(error, server),
        None => error,
    })
}

#[expect(clippy::cast_precision_loss, reason = "depths and sizes far below 2^53")]
fn run_failed(error: &anyhow::Error, point: &str, x: u64) -> Sample {
    Sample { point: point.to_owned(), x: Some(x as f64), ..failed(error) }
}

/// What the server had to say, if it is the one that ended.
fn with_log(error: anyhow::Error, mut server: Server) -> anyhow::Error {
    match server.ended() {
        Some(status) => {
            let log = server.log();
            let last = log.lines().last().unwrap_or_default().to_owned();
            error.context(format!("the server ended ({status}) {last}"))
        }
        None => error,
    }
}

/// Those with these names, or all.
fn chosen<T: Copy>(
    names: &[String],
    what: &str,
    all: impl Iterator<Item = T> + Clone,
    name: impl Fn(&T) -> &'static str,
) -> Result<Vec<T>> {
    for wanted in names {
        if !all.clone().any(|one| name(&one) == wanted) {
            let known: Vec<&str> = all.map(|one| name(&one)).collect();
            bail!("no {what} \"{wanted}\"; there are {}", known.join(", "));
        }
    }
    let is_chosen = |one: &T| names.is_empty() || names.iter().any(|wanted| wanted == name(one));
    Ok(all.filter(is_chosen).collect())
}

/// Whose turn it is, `at` turns into a repeat. Whoever comes first isn't always the same, and every
/// second repeat goes backwards: a virtual machine's host hands out memory slowly, and who comes
/// after somebody who took much finds it there.
const fn turn(at: usize, repeat: usize, contenders: usize) -> usize {
    let forwards = (at + repeat - 1) % contenders;
    if repeat.is_multiple_of(2) { contenders - 1 - forwards } else { forwards }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contenders_start_and_follow_others_in_turns() {
        let order = |repeat| -> Vec<usize> { (0..4).map(|at| turn(at, repeat, 4)).collect() };
        assert_eq!(order(1), [0, 1, 2, 3]);
        assert_eq!(order(2), [2, 1, 0, 3]);
        assert_eq!(order(3), [2, 3, 0, 1]);
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let all = || scenario::ALL.iter();
        let name = |scenario: &&'static Scenario| scenario.name;
        assert_eq!(chosen(&[], "scenario", all(), name).unwrap().len(), scenario::ALL.len());
        let names = ["herd".to_owned(), "steady".to_owned()];
        let found = chosen(&names, "scenario", all(), name).unwrap();
        assert_eq!(found.iter().map(|it| it.name).collect::<Vec<_>>(), ["steady", "herd"]);
        let error = chosen(&["nope".to_owned()], "scenario", all(), name).unwrap_err();
        assert!(error.to_string().contains("no scenario \"nope\"; there are steady, mid"));
    }
}
