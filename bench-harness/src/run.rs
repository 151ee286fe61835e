//! Runs scenarios: contenders take turns within each repeat, and each gets a fresh server every
//! time.
//!
//! Samples are written after every scenario, so that a run that is interrupted keeps what it has.
//! What can't be measured becomes a sample too, with its reason.

use std::cmp::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use loadgen::distributions::Span;
use loadgen::units::count;

use crate::bench_target::BenchTarget;
use crate::connections;
use crate::contender::Contender;
use crate::cores;
use crate::data_dir::DataDir;
use crate::durable;
use crate::format::number;
use crate::http;
use crate::large;
use crate::machine::Machine;
use crate::manager;
use crate::nagle;
use crate::options::RunOptions;
use crate::perf;
use crate::process::{Cores, Persistence, START_TIME, Server, raise_descriptors};
use crate::progress::Progress;
use crate::queue_depth;
use crate::report::{self, Facts, Known};
use crate::retries;
use crate::run_dir;
use crate::sample::{self, Sample, Status};
use crate::scenario::{self, Load, Scenario, Work};
use crate::tls;

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
    let mut progress = Progress::new(harness.steps());
    eprintln!("{}", progress.plan());
    for scenario in &harness.scenarios {
        samples.extend(harness.scenario(scenario, &mut facts, &mut progress));
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
    print!("Scenarios:\n{}", columns(&scenario::ALL.map(|it| (it.name, it.what))));
    print!("Contenders:\n{}", columns(&Contender::ALL.map(|it| (it.name, it.about))));
}

/// Lines of two columns, however long the words in them are.
fn columns(rows: &[(&str, &str)]) -> String {
    let width = rows.iter().map(|row| row.0.chars().count()).max().unwrap_or(0);
    rows.iter().map(|(name, about)| format!("  {name:<width$}  {about}\n")).collect()
}

struct Harness<'a> {
    options: &'a RunOptions,
    cores: Cores,
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
            chosen(&options.contenders, "contender", Contender::ALL.into_iter(), |it| it.name)?;
        let cores = Cores { server: vec![options.server_core], load: options.load_cores.clone() };
        let available = std::thread::available_parallelism().map_or(1, usize::from);
        if cores.load.contains(&options.server_core) && available > 1 {
            bail!("--load-cores must not hold the server's core {}", options.server_core);
        }
        // Finding it costs some time.
        let data_dir = if scenarios.iter().any(|scenario| scenario.stores()) {
            DataDir::find(options.places.scratch.as_deref())
        } else {
            Err("no scenario stores anything".to_owned())
        };
        let counts_calls = perf::is_here();
        // Servers inherit the limit, and the drivers here need it for their own connections.
        let descriptors = raise_descriptors();
        Ok(Self { options, cores, data_dir, scenarios, contenders, counts_calls, descriptors })
    }

    fn facts(&self) -> Facts {
        let takes_part = |contender: &&Contender| {
            self.scenarios.iter().any(|scenario| contender.takes_part(scenario, self.options))
        };
        let known = |name: &str, about: &str, version| Known {
            name: name.to_owned(),
            about: about.to_owned(),
            version,
        };
        let contenders = self.contenders.iter().filter(takes_part).map(|contender| {
            let absent = contender.absent(self.options).map(|why| format!("absent: {why}"));
            let version = absent.unwrap_or_else(|| contender.version(self.options));
            known(contender.name, contender.about, version)
        });
        let scenarios = self.scenarios.iter().map(|it| known(it.name, it.what, String::new()));
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

    /// Why a contender can't be measured in a scenario, if so.
    fn absent(&self, scenario: &Scenario, contender: Contender) -> Option<String> {
        let absent = contender.absent_in(scenario).map(str::to_owned);
        let absent = absent.or_else(|| contender.absent(self.options));
        if absent.is_some() || !scenario.stores() {
            return absent;
        }
        let absent = contender.absent_on_disk(self.options);
        absent.or_else(|| self.data_dir.as_ref().err().cloned())
    }

    /// Everything that is to be measured, and about how many seconds each takes.
    fn steps(&self) -> Vec<((&'static str, &'static str), f64)> {
        let options = self.options;
        let (measured, warm_up) = (options.duration(), options.warm_up());
        let mut steps = Vec::new();
        for scenario in &self.scenarios {
            let work = scenario.work(options.quick);
            let seconds = work.seconds(measured.as_secs_f64(), warm_up.as_secs_f64());
            let is_there = |contender: &&Contender| {
                contender.takes_part(scenario, options)
                    && self.absent(scenario, **contender).is_none()
            };
            let there: Vec<&Contender> = self.contenders.iter().filter(is_there).collect();
            for _ in 0..options.repeats() {
                steps.extend(there.iter().map(|it| ((scenario.name, it.name), seconds)));
            }
        }
        steps
    }

    fn scenario(
        &self,
        scenario: &Scenario,
        facts: &mut Facts,
        progress: &mut Progress,
    ) -> Vec<Sample> {
        eprintln!("{}: {}", scenario.name, scenario.what);
        let mut samples = Vec::new();
        for repeat in 1..=self.options.repeats() {
            for at in 0..self.contenders.len() {
                let contender = self.contenders[turn(at, repeat, self.contenders.len())];
                if !contender.takes_part(scenario, self.options) {
                    continue;
                }
                let (start, absent) = (Instant::now(), self.absent(scenario, contender));
                let is_measured = absent.is_none();
                let results = match absent {
                    Some(_) if repeat > 1 => continue,
                    Some(why) => vec![Sample::without(Status::Absent, why)],
                    None => self.measure(scenario, contender, repeat, facts),
                };
                for mut sample in results {
                    scenario.name.clone_into(&mut sample.scenario);
                    contender.name.clone_into(&mut sample.contender);
                    sample.repeat = repeat;
                    if sample.note.is_empty() {
                        contender.note_in(scenario).clone_into(&mut sample.note);
                    }
                    eprintln!("  {}", report::progress(&sample));
                    samples.push(sample);
                }
                if is_measured {
                    let kind = (scenario.name, contender.name);
                    progress.finish(kind, start.elapsed().as_secs_f64());
                    eprintln!("  {}", progress.line());
                }
            }
        }
        let place = |sample: &Sample| {
            (sample.x, Contender::ALL.iter().position(|it| it.name == sample.contender))
        };
        samples.sort_by(|a, b| place(a).partial_cmp(&place(b)).unwrap_or(Ordering::Equal));
        samples
    }

    fn measure(
        &self,
        scenario: &Scenario,
        contender: Contender,
        repeat: usize,
        facts: &mut Facts,
    ) -> Vec<Sample> {
        let target = self.target(contender);
        match scenario.work(self.options.quick) {
            Work::Load(words) => {
                let sample = target.plan(words).and_then(|load| self.load(&target, &load, repeat));
                vec![Sample::or_failed(sample)]
            }
            Work::Open(words) => vec![Sample::or_failed(self.open(&target, words, repeat, facts))],
            Work::QueueDepth(depths) => queue_depth::samples(&target, depths),
            Work::Large(sizes) => large::samples(&target, sizes),
            Work::Connections(counts) => connections::samples(&target, self.descriptors, counts),
            Work::Cores(words, counts) => cores::samples(&target, words, counts),
            Work::Tls(sleeping, payloads) => tls::samples(&target, sleeping, payloads),
            Work::Http(jobs) => http::samples(&target, jobs),
            Work::Manager(workers) => manager::samples(&target, workers),
            Work::Nagle(pairs) => nagle::samples(&target, pairs),
            Work::Retries(letters) => retries::samples(&target, letters),
            Work::Durable(jobs) => match &self.data_dir {
                Ok(data_dir) => durable::samples(&target, data_dir, jobs),
                Err(why) => vec![Sample::without(Status::Absent, why)],
            },
        }
    }

    fn target(&self, contender: Contender) -> BenchTarget<'_> {
        let (options, cores) = (self.options, &self.cores);
        BenchTarget {
            contender,
            options,
            cores,
            patience: START_TIME,
            certificates: None,
            has_http: false,
            functions_file: None,
        }
    }

    fn load(&self, target: &BenchTarget<'_>, load: &Load, repeat: usize) -> Result<Sample> {
        let measure = |server: &Server| target.load(server, load);
        let mut sample = target.with_server(Persistence::Memory, 1, measure)?;
        // Counting costs the server something, so it gets a fresh one and a run of its own.
        if self.counts_calls && repeat == 1 && sample.status == Status::Ok {
            let count = |server: &Server| count_calls(target, server, load);
            sample.system_calls_per_job = target.with_server(Persistence::Memory, 1, count).ok();
        }
        Ok(sample)
    }

    /// A load at a rate, which is found at the first time.
    fn open(
        &self,
        target: &BenchTarget<'_>,
        words: &str,
        repeat: usize,
        facts: &mut Facts,
    ) -> Result<Sample> {
        let rate = facts.latency_rate.map_or_else(|| self.calibrate(words), Ok)?;
        facts.latency_rate = Some(rate);
        let load = Load { rate: Some(rate as f64), ..target.plan(words)? };
        self.load(target, &load, repeat)
    }

    /// The rate of the open loop.
    #[expect(clippy::cast_possible_truncation, reason = "a rate")]
    fn calibrate(&self, words: &str) -> Result<u64> {
        let gearmand = Contender::named("gearmand").context("no gearmand")?;
        if let Some(why) = gearmand.absent(self.options) {
            bail!("no rate without gearmand ({why}): give --latency-rate");
        }
        let target = self.target(gearmand);
        let mut load = target.plan(words)?;
        load.duration.0 = load.duration.0.min(Duration::from_secs(3));
        let measure = |server: &Server| target.load(server, &load);
        let sample = target.with_server(Persistence::Memory, 1, measure)?;
        if sample.status != Status::Ok {
            bail!("no rate from gearmand: {}", sample.note);
        }
        let rate = (sample.jobs_per_second * LATENCY_SHARE).round().max(1.0) as u64;
        let (rate_words, whole) = (count(rate), number(sample.jobs_per_second));
        eprintln!("  rate: {rate_words} jobs/s, a quarter of gearmand's {whole}");
        Ok(rate)
    }
}

/// System calls per job of a short run, connecting included.
fn count_calls(target: &BenchTarget<'_>, server: &Server, load: &Load) -> Result<f64> {
    let count = perf::Count::start(server.pid())?;
    let duration = Span(if target.options.quick { COUNT_TIME / 2 } else { COUNT_TIME });
    let load = Load { duration, warm_up: Span::default(), ..load.clone() };
    let sample = target.load(server, &load)?;
    Ok(count.finish()? as f64 / sample.jobs as f64)
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

/// Which contender's turn it is, `at` turns into a repeat. The first isn't always the same, and
/// every second repeat goes backwards: a virtual machine's host hands out memory slowly, and a
/// server that starts after one that took much finds it there.
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
    fn columns_never_run_into_each_other() {
        let text = columns(&[("a", "one"), ("a-very-long-name", "two")]);
        assert_eq!(text, "  a                 one\n  a-very-long-name  two\n");
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
