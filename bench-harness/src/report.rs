//! Samples in, a folder that can be read years later out: README.md, samples.csv, run.json and
//! plots.
//!
//! Tables give medians, and behind each rate the least and the greatest sample. What is absent or
//! failed has its row and its reason. Everything here can be made again from samples.csv and
//! run.json.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use indexmap::{IndexMap, IndexSet};
use loadgen::units::{bytes, count, time};
use serde::{Deserialize, Serialize};

use crate::contender::Contender;
use crate::durable::{BESIDE_MEMORY, BESIDE_STORED, RECOVERY};
use crate::format::number;
use crate::http::{ALONE, BY_HTTP, BY_PACKETS, SCRAPED, UNUSED, VIEWED};
use crate::machine::Machine;
use crate::manager::GEARMAN;
use crate::nagle::NO_DELAY;
use crate::plot;
use crate::retries::{DEAD_ALONE, NO_POLICY, REQUEUED};
use crate::sample::{self, Sample, Status};
use crate::scenario::Scenario;
use crate::stats::{Group, Spread};
use crate::tls::{HANDSHAKES, IN_PROCESS, PLAIN, SECURED};

/// The file of the raw samples.
pub(crate) const SAMPLES: &str = "samples.csv";
const FACTS: &str = "run.json";
const README: &str = "README.md";
/// From here on, the load rather than the server may have been the limit.
const LOAD_LIMIT_SHARE: f64 = 0.97;

/// A scenario or contender, as readers should know it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Known {
    pub(crate) name: String,
    pub(crate) about: String,
    /// Its version, or why it is absent.
    pub(crate) version: String,
}

/// What a run was, besides its samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(crate) name: String,
    /// Its day, UTC.
    pub(crate) date: String,
    /// The command line that makes it.
    pub(crate) command: String,
    pub(crate) machine: Machine,
    pub(crate) server_cores: Vec<usize>,
    pub(crate) load_cores: Vec<usize>,
    /// Fresh servers for each contender and scenario.
    pub(crate) repeats: usize,
    /// Of a sample.
    pub(crate) duration_s: f64,
    /// Under load before.
    pub(crate) warm_up_s: f64,
    /// Jobs a second of the open loop.
    pub(crate) latency_rate: Option<u64>,
    /// Whether system calls were counted.
    pub(crate) counts_calls: bool,
    /// The file system of stores, if there were any.
    #[serde(default)]
    pub(crate) scratch: Option<String>,
    pub(crate) contenders: Vec<Known>,
    pub(crate) scenarios: Vec<Known>,
}

/// Keeps the facts beside the samples.
pub(crate) fn write_facts(folder: &Path, facts: &Facts) -> Result<()> {
    fs::write(folder.join(FACTS), serde_json::to_string_pretty(facts)? + "\n")?;
    Ok(())
}

/// Writes tables and plots of an earlier run again; answers whether its samples are sound.
pub(crate) fn again(folder: &Path) -> Result<bool> {
    let path = folder.join(FACTS);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let facts: Facts = serde_json::from_str(&text)?;
    let samples = sample::read(&folder.join(SAMPLES))?;
    println!("{}", write(folder, &facts, &samples)?);
    Ok(samples.iter().all(|sample| sample.status != Status::Failed))
}

/// Writes the README and the plots; answers with the tables.
pub(crate) fn write(folder: &Path, facts: &Facts, samples: &[Sample]) -> Result<String> {
    let groups = Group::all(samples);
    let tables = tables(facts, &groups);
    let plots = plot::write(folder, &groups)?;
    let mut text = heading(facts);
    text.push_str(&tables);
    if !plots.is_empty() {
        text.push_str("\n## Plots\n");
    }
    for (file, title) in plots {
        let _ = write!(text, "\n![{title}]({file})\n");
    }
    fs::write(folder.join(README), text)?;
    Ok(tables)
}

/// One sample in one line.
pub(crate) fn progress(sample: &Sample) -> String {
    let Sample { contender, point, repeat, .. } = sample;
    let width = Contender::ALL.iter().map(|it| it.name.len()).max().unwrap_or(0);
    let mut text = format!("{contender:<width$}  {point:<12}  #{repeat}  ");
    let note = if sample.note.is_empty() { String::new() } else { format!("  ({})", sample.note) };
    match sample.status {
        Status::Absent => text.push_str("absent"),
        Status::Failed => text.push_str("FAILED"),
        Status::Ok => {
            let _ = write!(text, "{:>12} jobs/s", number(sample.jobs_per_second));
            if let Some(cpu) = sample.cpu_us_per_job {
                let _ = write!(text, "  CPU/job {}", time(cpu));
            }
            if let Some(p99) = sample.p99_us {
                let _ = write!(text, "  p99 {}", time(p99));
            }
            if sample.load_cpu_share.is_some_and(|share| share > LOAD_LIMIT_SHARE) {
                text.push_str("  load at its limit");
            }
        }
    }
    text + &note
}

fn heading(facts: &Facts) -> String {
    let Facts { machine, .. } = facts;
    let mut text = format!("# {} {}\n\n```sh\n{}\n```\n\n", facts.date, facts.name, facts.command);
    let cores = |cores: &[usize]| cores.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    let mut places = Vec::new();
    let is_of_cores = |scenario: &Known| Scenario::is_of_cores(&scenario.name);
    if !facts.scenarios.iter().all(is_of_cores) {
        let (server, load) = (cores(&facts.server_cores), cores(&facts.load_cores));
        places.push(format!("The server alone on core {server}, the load on core {load}"));
    }
    if facts.scenarios.iter().any(is_of_cores) {
        let half = "the server on the first so many of the machine, the load on the upper half";
        places.push(format!("In scenarios of several cores, {half}"));
    }
    let _ = writeln!(
        text,
        "{}\
         * {}; loopback TCP.\n\
         * Repeats: {}, each with a fresh server, contenders in turns; {} s measured after {} s of \
         warm-up. Tables show medians and, in brackets, the least and the greatest sample.\n\
         * CPU is the server's, all threads, user + system; memory is the server's.",
        machine.lines(),
        places.join("; "),
        facts.repeats,
        facts.duration_s,
        facts.warm_up_s,
    );
    let rate = facts
        .latency_rate
        .map(|it| format!("The open loop of `latency` runs at {} jobs/s", count(it)));
    let stores = facts.scratch.as_ref().map(|it| format!("Stores lie on {it}"));
    let calls = (!facts.counts_calls)
        .then(|| "System calls weren't counted: perf isn't here, or may not".to_owned());
    for line in [rate, stores, calls].into_iter().flatten() {
        let _ = writeln!(text, "* {line}.");
    }
    text.push_str("\n| contender | what | version |\n| --- | --- | --- |\n");
    for Known { name, about, version } in &facts.contenders {
        let _ = writeln!(text, "| {name} | {about} | {version} |");
    }
    text.push('\n');
    text
}

/// One column of a table.
type Column = (&'static str, fn(&Group<'_>, &[Group<'_>]) -> Option<String>);

const RATE: Column = ("jobs/s", |group, _| {
    let Spread { median, min, max } = group.rate()?;
    let range = format!(" ({}–{})", number(min), number(max));
    Some(number(median) + if min < max { &range } else { "" })
});
const P50: Column = ("p50", |group, _| group.figure(|it| it.p50_us, time));
const P99: Column = ("p99", |group, _| group.figure(|it| it.p99_us, time));
const CPU: Column = ("CPU/job", |group, _| {
    let user = group.figure(|it| it.cpu_user_us_per_job, time);
    let system = group.figure(|it| it.cpu_system_us_per_job, time);
    let split = user.zip(system).map(|(user, system)| format!(" ({user} + {system})"));
    Some(time(group.cpu()?.median) + &split.unwrap_or_default())
});
const MAX: Column = ("max", |group, _| group.figure(|it| it.max_us, time));
const MEMORY: Column = ("memory", |group, _| group.figure(|it| it.rss_peak_bytes, bytes));
const TIMES_GEARMAND: Column = ("× gearmand", times_gearmand);

const fn point(title: &'static str) -> Column {
    (title, |group, _| Some(group.point.to_owned()))
}

const LOAD: &[Column] = &[
    RATE,
    P50,
    P99,
    ("p99.9", |group, _| group.figure(|it| it.p999_us, time)),
    CPU,
    ("× floor", times_floor),
    ("calls/job", |group, _| group.figure(|it| it.system_calls_per_job, number)),
    MEMORY,
];

const QUEUE_DEPTH: &[Column] = &[
    point("phase"),
    RATE,
    ("longest pause", |group, _| group.figure(|it| it.max_us, time)),
    CPU,
    ("bytes/queued job", |group, _| group.figure(|it| it.bytes_per_queued_job, number)),
    MEMORY,
];

const LARGE: &[Column] = &[
    point("payload"),
    RATE,
    ("payload/s", |group, _| group.figure(|it| it.bytes_per_second, bytes)),
    ("slowest", |group, _| group.figure(|it| it.max_us, time)),
    CPU,
    MEMORY,
];

const CONNECTIONS: &[Column] = &[
    point("connections"),
    RATE,
    P50,
    P99,
    CPU,
    ("× fewest", |group, groups| times_least(group, groups, Group::cpu)),
    ("memory/connection", |group, _| group.figure(|it| it.bytes_per_connection, bytes)),
    ("kernel, both ends", |group, _| group.figure(|it| it.kernel_bytes_per_connection, bytes)),
    MEMORY,
];

const CORES: &[Column] = &[
    point("cores"),
    RATE,
    ("× one core", |group, groups| times_least(group, groups, Group::rate)),
    TIMES_GEARMAND,
    P50,
    P99,
    CPU,
    ("cores used", |group, _| {
        group.figure(|it| Some(it.cpu_us_per_job? * it.jobs_per_second / 1e6), number)
    }),
    ("load's share", |group, _| group.figure(|it| it.load_cpu_share, number)),
    MEMORY,
];

const DURABLE: &[Column] = &[
    point("phase"),
    RATE,
    TIMES_GEARMAND,
    P50,
    P99,
    ("× no store", times_memory),
    CPU,
    ("back after", |group, _| {
        group.figure(|it| (it.point == RECOVERY).then_some(it.seconds * 1e6), time)
    }),
    ("disk bytes/job", |group, _| group.figure(|it| it.disk_bytes_per_job, number)),
    MEMORY,
];

const TLS: &[Column] = &[
    point("load"),
    RATE,
    ("× plain", |group, groups| times_plain(group, groups, Group::rate)),
    P50,
    P99,
    CPU,
    ("CPU × plain", |group, groups| times_plain(group, groups, Group::cpu)),
    ("× in process", times_in_process),
    ("payload/s", |group, _| group.figure(|it| it.bytes_per_second, bytes)),
    ("memory/connection", |group, _| group.figure(|it| it.bytes_per_connection, bytes)),
    MEMORY,
];

const HTTP: &[Column] = &[
    point("load"),
    RATE,
    ("× no HTTP", |group, groups| times_alone(group, groups, Group::rate)),
    P50,
    P99,
    ("p99 × no HTTP", |group, groups| times_alone(group, groups, |it| it.spread(|it| it.p99_us))),
    MAX,
    CPU,
    ("CPU × no HTTP", |group, groups| times_alone(group, groups, Group::cpu)),
    MEMORY,
    ("memory at the end", |group, _| group.figure(|it| it.rss_end_bytes, bytes)),
];

const RETRIES: &[Column] = &[
    point("load"),
    RATE,
    P50,
    P99,
    ("p99 × alone", |group, groups| {
        times_undisturbed(group, groups, |it| it.spread(|it| it.p99_us))
    }),
    CPU,
    ("CPU × no policy", |group, groups| times_undisturbed(group, groups, Group::cpu)),
    MEMORY,
];

const MANAGER: &[Column] = &[
    point("runner"),
    RATE,
    ("× gearman -w", |group, groups| {
        let mut same = groups.iter().filter(|it| it.is_of_same(group));
        let theirs = same.find(|it| it.point == GEARMAN)?;
        times(group.rate()?.median, theirs.rate()?.median)
    }),
    CPU,
];

const NAGLE: &[Column] =
    &[point("load"), RATE, P50, ("p50 × TCP_NODELAY", times_no_delay), P99, MAX, CPU];

/// All tables, scenario by scenario.
fn tables(facts: &Facts, groups: &[Group<'_>]) -> String {
    let mut text = String::new();
    for scenario in &facts.scenarios {
        let of_scenario = groups.iter().filter(|group| group.scenario == scenario.name);
        let (with_point, plain): (Vec<_>, Vec<_>) =
            of_scenario.partition(|group| !group.point.is_empty());
        if with_point.is_empty() && plain.is_empty() {
            continue;
        }
        let _ = write!(text, "## {}\n\n{}.\n\n", scenario.name, scenario.about);
        if let Some(why) = absent_altogether(&with_point, &plain) {
            let _ = writeln!(text, "Absent: {why}.\n");
            continue;
        }
        let columns = match &*scenario.name {
            "deep" => QUEUE_DEPTH,
            "large" => LARGE,
            "durable" => DURABLE,
            "crowd50k" => CONNECTIONS,
            "tls" => TLS,
            "http" => HTTP,
            "retries" => RETRIES,
            "manager" => MANAGER,
            "nagle" => NAGLE,
            name if Scenario::is_of_cores(name) => CORES,
            _ => LOAD,
        };
        text.push_str("| contender |");
        for (title, _) in columns {
            let _ = write!(text, " {title} |");
        }
        let _ = writeln!(text, "\n| --- |{}", " --- |".repeat(columns.len()));
        for group in with_point.iter().chain(&plain) {
            row(&mut text, group, groups, columns);
        }
        notes(&mut text, &[with_point, plain].concat());
        text.push('\n');
    }
    text
}

/// Why no contender could be measured, if that is so for one reason.
fn absent_altogether<'a>(with_point: &[&Group<'a>], plain: &[&Group<'a>]) -> Option<&'a str> {
    let [why] = plain.first()?.notes()[..] else { return None };
    let same = |group: &&Group<'a>| group.count(Status::Absent) > 0 && group.notes() == [why];
    (with_point.is_empty() && plain.len() > 1 && plain.iter().all(same)).then_some(why)
}

fn row(text: &mut String, group: &Group<'_>, groups: &[Group<'_>], columns: &[Column]) {
    let mut word = match (group.count(Status::Ok), group.count(Status::Failed)) {
        (0, 0) => Some("absent"),
        (0, _) => Some("**failed**"),
        _ => None,
    };
    let _ = write!(text, "| {} |", group.contender);
    for (_, value) in columns {
        let cell = value(group, groups).filter(|cell| !cell.is_empty());
        let cell = cell.unwrap_or_else(|| word.take().unwrap_or("–").to_owned());
        let _ = write!(text, " {cell} |");
    }
    text.push('\n');
}

/// What some rows have to say, below their table.
fn notes(text: &mut String, groups: &[&Group<'_>]) {
    let mut lines: IndexMap<String, IndexSet<&str>> = IndexMap::new();
    for group in groups {
        let (good, bad) = (group.count(Status::Ok), group.count(Status::Failed));
        let mut said: Vec<String> = group.notes().into_iter().map(one_line).collect();
        if bad > 0 {
            said.push(format!("{bad} of {} samples failed and don't count", good + bad));
        }
        let share = group.spread(|sample| sample.load_cpu_share);
        if share.is_some_and(|share| share.median > LOAD_LIMIT_SHARE) {
            said.push("the load was at its limit, not the server".to_owned());
        }
        for line in said {
            lines.entry(line).or_default().insert(group.contender);
        }
    }
    if !lines.is_empty() {
        text.push('\n');
    }
    for (line, names) in lines {
        let _ = writeln!(text, "* {}: {line}.", Vec::from_iter(names).join(", "));
    }
}

/// Without line breaks and the full stop at its end.
pub(crate) fn one_line(note: &str) -> String {
    note.split_whitespace().collect::<Vec<&str>>().join(" ").trim_end_matches('.').to_owned()
}

/// A figure in units of another one, if that is more than nothing.
fn times(figure: f64, unit: f64) -> Option<String> {
    (unit > 0.0).then(|| number(figure / unit))
}

/// CPU per job in units of the cheapest floor's.
fn times_floor(group: &Group<'_>, groups: &[Group<'_>]) -> Option<String> {
    let floors = groups
        .iter()
        .filter(|it| it.scenario == group.scenario && it.contender.starts_with("floor-"))
        .filter_map(Group::cpu);
    let floor = floors.map(|cpu| cpu.median).min_by(f64::total_cmp)?;
    times(group.cpu()?.median, floor)
}

/// A figure in units of the same contender's where the scenario's `x` is least.
fn times_least<'a>(
    group: &Group<'a>,
    groups: &[Group<'a>],
    spread: fn(&Group<'a>) -> Option<Spread>,
) -> Option<String> {
    let (_, least) = groups
        .iter()
        .filter(|it| it.is_of_same(group))
        .filter_map(|it| Some((it.x()?, spread(it)?.median)))
        .min_by(|a, b| a.0.total_cmp(&b.0))?;
    times(spread(group)?.median, least)
}

/// A figure over TLS in units of the same contender's without.
fn times_plain<'a>(
    group: &Group<'a>,
    groups: &[Group<'a>],
    spread: fn(&Group<'a>) -> Option<Spread>,
) -> Option<String> {
    let (load, _) = group.point.split_once(SECURED)?;
    let mut same = groups.iter().filter(|it| it.is_of_same(group));
    let plain = same.find(|it| it.point.strip_suffix(PLAIN) == Some(load))?;
    times(spread(group)?.median, spread(plain)?.median)
}

/// A figure in units of the same contender's without HTTP; of submissions, of those by packets.
fn times_alone<'a>(
    group: &Group<'a>,
    groups: &[Group<'a>],
    spread: fn(&Group<'a>) -> Option<Spread>,
) -> Option<String> {
    let looks = [UNUSED, SCRAPED, VIEWED];
    let load = looks.iter().find_map(|it| group.point.strip_suffix(it));
    let wanted = match load {
        Some(load) => format!("{load}{ALONE}"),
        None if group.point == BY_HTTP => BY_PACKETS.to_owned(),
        None => return None,
    };
    let mut same = groups.iter().filter(|it| it.is_of_same(group));
    times(spread(group)?.median, spread(same.find(|it| it.point == wanted)?)?.median)
}

/// A figure in units of the same contender's without policies; beside a requeue, in units of those
/// beside dead letters that stay.
fn times_undisturbed<'a>(
    group: &Group<'a>,
    groups: &[Group<'a>],
    spread: fn(&Group<'a>) -> Option<Spread>,
) -> Option<String> {
    let wanted = match group.point {
        NO_POLICY => return None,
        REQUEUED => DEAD_ALONE,
        _ => NO_POLICY,
    };
    let mut same = groups.iter().filter(|it| it.is_of_same(group));
    times(spread(group)?.median, spread(same.find(|it| it.point == wanted)?)?.median)
}

/// p50 in units of the same contender's with TCP_NODELAY.
fn times_no_delay(group: &Group<'_>, groups: &[Group<'_>]) -> Option<String> {
    let p50 = |group: &Group<'_>| Some(group.spread(|it| it.p50_us)?.median);
    let mut same = groups.iter().filter(|it| it.is_of_same(group));
    let with = same.find(|it| it.point.strip_suffix(NO_DELAY) == Some(group.point))?;
    times(p50(group)?, p50(with)?)
}

/// Full handshakes by the server's CPU in units of those in process.
fn times_in_process(group: &Group<'_>, groups: &[Group<'_>]) -> Option<String> {
    if group.point != HANDSHAKES {
        return None;
    }
    let mut same = groups.iter().filter(|it| it.is_of_same(group));
    let in_process = same.find(|it| it.point == IN_PROCESS)?;
    times(in_process.cpu()?.median, group.cpu()?.median)
}

/// Jobs a second in units of the faster gearmand's.
fn times_gearmand(group: &Group<'_>, groups: &[Group<'_>]) -> Option<String> {
    let theirs = groups
        .iter()
        .filter(|it| (it.scenario, it.point) == (group.scenario, group.point))
        .filter(|it| it.contender.starts_with("gearmand"))
        .filter_map(|it| Some(it.rate()?.median))
        .max_by(f64::total_cmp)?;
    times(group.rate()?.median, theirs)
}

/// p50 and p99 beside jobs that are stored in units of those beside as many that aren't.
fn times_memory(group: &Group<'_>, groups: &[Group<'_>]) -> Option<String> {
    if group.point != BESIDE_STORED {
        return None;
    }
    let mut same = groups.iter().filter(|it| it.is_of_same(group));
    let memory = same.find(|it| it.point == BESIDE_MEMORY)?;
    let ratio = |percentile: fn(&Sample) -> Option<f64>| {
        times(group.spread(percentile)?.median, memory.spread(percentile)?.median)
    };
    Some(format!("{} / {}", ratio(|it| it.p50_us)?, ratio(|it| it.p99_us)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &str, about: &str) -> Known {
        Known { name: name.to_owned(), about: about.to_owned(), version: String::new() }
    }

    fn sample(contender: &str, jobs_per_second: f64, cpu: f64) -> Sample {
        Sample {
            scenario: "steady".to_owned(),
            contender: contender.to_owned(),
            jobs_per_second,
            p50_us: Some(120.0),
            p99_us: Some(1500.0),
            cpu_us_per_job: Some(cpu),
            cpu_user_us_per_job: Some(cpu / 4.0),
            cpu_system_us_per_job: Some(cpu * 3.0 / 4.0),
            rss_peak_bytes: Some(4.0 * 1024.0 * 1024.0),
            load_cpu_share: Some(0.5),
            ..Sample::default()
        }
    }

    pub(crate) fn facts() -> Facts {
        Facts {
            name: "golden".to_owned(),
            date: "2026-01-31".to_owned(),
            command: "bench-harness run".to_owned(),
            machine: Machine::default(),
            server_cores: vec![0],
            load_cores: vec![1],
            repeats: 2,
            duration_s: 10.0,
            warm_up_s: 1.0,
            latency_rate: None,
            counts_calls: true,
            scratch: None,
            contenders: vec![known("ringgear-uring", "ours")],
            scenarios: vec![known("steady", "50 clients, 8 workers")],
        }
    }

    #[test]
    fn the_table_is_as_it_always_was() {
        let absent = Sample {
            scenario: "steady".to_owned(),
            contender: "redis".to_owned(),
            ..Sample::without(Status::Absent, "not installed")
        };
        let failed = Sample {
            status: Status::Failed,
            note: "3 lost".to_owned(),
            ..sample("perl", 9.0, 1.0)
        };
        let samples = [
            sample("ringgear-uring", 100_000.0, 10.0),
            sample("ringgear-uring", 90_000.0, 10.0),
            sample("floor-uring", 120_000.0, 8.0),
            failed,
            absent,
        ];
        let text = tables(&facts(), &Group::all(&samples));
        let text = text.replace('\u{202f}', "_");
        assert_eq!(
            text,
            "## steady\n\n50 clients, 8 workers.\n\n\
             | contender | jobs/s | p50 | p99 | p99.9 | CPU/job | × floor | calls/job | \
             memory |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n\
             | ringgear-uring | 95_000 (90_000–100_000) | 120 µs | 1.50 ms | – | \
             10 µs (2.50 µs + 7.50 µs) | 1.25 | – | 4 MiB |\n\
             | floor-uring | 120_000 | 120 µs | 1.50 ms | – | 8 µs (2 µs + 6 µs) | \
             1.00 | – | 4 MiB |\n\
             | perl | **failed** | – | – | – | – | – | – | – |\n\
             | redis | absent | – | – | – | – | – | – | – |\n\n\
             * perl: 3 lost.\n\
             * perl: 1 of 1 samples failed and don't count.\n\
             * redis: not installed.\n\n"
        );
    }

    #[test]
    fn nothing_is_measured_in_units_of_nothing() {
        let samples = [sample("ringgear-uring", 0.0, 9.0), sample("floor-uring", 0.0, 0.0)];
        let groups = Group::all(&samples);
        assert_eq!(times_floor(&groups[0], &groups), None);
        assert_eq!(times_least(&groups[0], &groups, Group::rate), None);
    }

    #[test]
    fn stored_jobs_are_compared_with_gearmand_and_with_jobs_that_are_not() {
        let at = |contender: &str, point: &str, rate: f64, p99: f64| Sample {
            point: point.to_owned(),
            p99_us: Some(p99),
            ..sample(contender, rate, 1.0)
        };
        let samples = [
            at("ringgear-uring", BESIDE_STORED, 60_000.0, 1800.0),
            at("ringgear-uring", BESIDE_MEMORY, 70_000.0, 1500.0),
            at("gearmand", BESIDE_STORED, 100.0, 1000.0),
            at("gearmand-tuned", BESIDE_STORED, 200.0, 1000.0),
            at("gearmand-tuned", BESIDE_MEMORY, 70_000.0, 1000.0),
        ];
        let groups = Group::all(&samples);
        let [stored, memory, gearmand, ..] = &groups[..] else { panic!("{groups:?}") };
        assert_eq!(times_gearmand(stored, &groups).as_deref(), Some("300"));
        assert_eq!(times_gearmand(memory, &groups).as_deref(), Some("1.00"));
        assert_eq!(times_memory(stored, &groups).as_deref(), Some("1.00 / 1.20"));
        assert_eq!((times_memory(memory, &groups), times_memory(gearmand, &groups)), (None, None));
        assert_eq!(times_gearmand(stored, &groups[..2]), None);
    }

    #[test]
    fn tls_is_compared_with_no_tls_and_with_handshakes_in_process() {
        let at = |point: &str, rate: f64, cpu: f64| Sample {
            point: point.to_owned(),
            ..sample("ringgear-uring", rate, cpu)
        };
        let samples = [
            at("connect, plain", 20_000.0, 40.0),
            at("connect, TLS", 5000.0, 160.0),
            at("connect, TLS resumed", 10_000.0, 80.0),
            at(IN_PROCESS, 8000.0, 120.0),
        ];
        let groups = Group::all(&samples);
        let [plain, full, resumed, _] = &groups[..] else { panic!("{groups:?}") };
        let cpu = |group| times_plain(group, &groups, Group::cpu);
        assert_eq!(cpu(full).as_deref(), Some("4.00"));
        assert_eq!((cpu(resumed).as_deref(), cpu(plain)), (Some("2.00"), None));
        assert_eq!(times_plain(full, &groups, Group::rate).as_deref(), Some("0.25"));
        assert_eq!(times_in_process(full, &groups).as_deref(), Some("0.75"));
        assert_eq!(times_in_process(resumed, &groups), None);
    }

    #[test]
    fn being_looked_at_is_compared_with_no_http() {
        let at = |point: &str, rate: f64| Sample {
            point: point.to_owned(),
            ..sample("ringgear-uring", rate, 10.0)
        };
        let samples = [
            at("1000 functions, no HTTP", 100.0),
            at("20 000 functions, no HTTP", 50.0),
            at("20 000 functions, a look a second", 49.0),
            at(BY_PACKETS, 200.0),
            at(BY_HTTP, 40.0),
        ];
        let groups = Group::all(&samples);
        let rates = groups.iter().map(|it| times_alone(it, &groups, Group::rate));
        let rates: Vec<_> = rates.map(Option::unwrap_or_default).collect();
        assert_eq!(rates, ["", "", "0.98", "", "0.20"]);
    }

    #[test]
    fn failures_are_compared_with_no_policy_and_a_requeue_with_none() {
        let at = |point: &str, p99_us: f64| Sample {
            point: point.to_owned(),
            p99_us: Some(p99_us),
            ..sample("ringgear-uring", 1.0, 10.0)
        };
        let samples =
            [at(NO_POLICY, 100.0), at("x", 110.0), at(DEAD_ALONE, 120.0), at(REQUEUED, 150.0)];
        let groups = Group::all(&samples);
        let p99 = |it| times_undisturbed(it, &groups, |it| it.spread(|it| it.p99_us));
        let ratios: Vec<_> = groups.iter().map(|it| p99(it).unwrap_or_default()).collect();
        assert_eq!(ratios, ["", "1.10", "1.20", "1.25"]);
    }

    #[test]
    fn delayed_acknowledgements_are_compared_with_none() {
        let at = |point: &str, p50_us: f64| Sample {
            point: point.to_owned(),
            p50_us: Some(p50_us),
            ..sample("gearmand", 1.0, 10.0)
        };
        let samples = [at("x", 44_000.0), at("x, TCP_NODELAY", 100.0), at("x, first", 1.0)];
        let groups = Group::all(&samples);
        let ratios: Vec<_> = groups.iter().map(|it| times_no_delay(it, &groups)).collect();
        assert_eq!(ratios, [Some("440".to_owned()), None, None]);
    }

    #[test]
    fn a_folder_can_be_reported_again() {
        let folder = tempfile::tempdir().unwrap();
        let samples = [sample("ringgear-uring", 100_000.0, 10.0)];
        sample::write(&folder.path().join(SAMPLES), &samples).unwrap();
        write_facts(folder.path(), &facts()).unwrap();
        write(folder.path(), &facts(), &samples).unwrap();
        let before = fs::read_to_string(folder.path().join(README)).unwrap();
        assert!(before.contains("# 2026-01-31 golden") && before.contains("throughput.svg"));
        fs::remove_file(folder.path().join(README)).unwrap();
        assert!(again(folder.path()).unwrap());
        assert_eq!(fs::read_to_string(folder.path().join(README)).unwrap(), before);
    }
}
