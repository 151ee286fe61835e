//! A soak: one server under everything at once for long, and whether anything grows or is lost.
//!
//! ```text
//! server ◀── workload (load generators: foreground, background, delayed, large)
//!    ▲
//!    └────── watch (status, workers, /proc) ─▶ rows ─▶ checks ─▶ report
//! ```
//!
//! Nothing is measured here that other processes could spoil: the load keeps a rate.

mod checks;
mod report;
mod watch;
mod workload;

use std::fmt::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail};
use clap::ValueEnum as _;
use loadgen::LiveCounts;
use loadgen::units::{bytes, count};
use ringgear::io::machine::processors;
use ringgear::wire::{Command, Magic, encode};

use self::checks::Row;
use self::workload::Workload;
use crate::contender::ringgear as ours;
use crate::data_dir::DataDir;
use crate::format::number;
use crate::locate::{find, first_line};
use crate::machine::Machine;
use crate::options::SoakOptions;
use crate::process::{
    Cores, Cpu, Memory, Persistence, START_TIME, Server, Start, raise_descriptors,
};
use crate::progress::span;
use crate::run_dir;
use crate::sample;
use crate::wire::{self, Wire};
use crate::wire_protocol::{Event, Protocol};

/// How often the lists of the server are asked for.
const ASK_TIME: Duration = Duration::from_secs(1);
/// How long connecting and the last answers may take.
const BESIDE_TIME: Duration = Duration::from_secs(180);
/// How long the server may take to notice that all connections are closed.
const LEAVE_TIME: Duration = Duration::from_secs(30);

/// Loads and watches a server; answers whether all held that must.
pub(crate) fn run(options: &SoakOptions) -> Result<bool> {
    check(options)?;
    let places = &options.places;
    raise_descriptors();
    let data_dir = options.store.map(|_| DataDir::find(places.scratch.as_deref())).transpose();
    let data_dir = data_dir.map_err(Error::msg)?;
    let store = data_dir.as_ref().map(DataDir::folder).transpose()?;
    let persistence =
        store.as_ref().map_or(Persistence::Memory, |folder| Persistence::Disk(folder.path()));
    let folder = run_dir::fresh(places.out.as_deref(), &options.name, report::SAMPLES)?;

    let mut soak = Soak::start(options, persistence)?;
    let before = soak.row(false)?;
    soak.start = Instant::now();
    let workload = Workload::start(soak.server.address, options)?;
    let watched = soak.watch(&workload, &folder);
    // What was seen up to a failure is worth keeping.
    sample::write(&folder.join(report::SAMPLES), &soak.rows)?;
    watched?;
    let outcomes = workload.outcomes()?;
    let left = soak.drain()?;
    let after = soak.settle(&before)?;
    sample::write(&folder.join(report::SAMPLES), &soak.rows)?;

    let growth_max_bytes = options.growth_max * 1024.0 * 1024.0;
    let checks = checks::checks(&soak.rows, &outcomes, (&before, &after), growth_max_bytes);
    let mut text = report::verdict(&checks);
    let _ = writeln!(text, "\n{}", checks::memory_words(&soak.rows, &before, &after));
    if left > 0 {
        let _ = writeln!(
            text,
            "{left} jobs whose key others had, too, were in the queue when the workers left."
        );
    }
    report::write(&folder, &soak.heading(data_dir.as_ref()), &soak.rows, &outcomes, &text)?;
    println!("{text}");
    eprintln!("written to {}", folder.display());
    Ok(checks.iter().all(|check| check.holds))
}

/// Options that nothing can be done with.
fn check(options: &SoakOptions) -> Result<()> {
    let is_positive = |value: f64| value > 0.0 && value.is_finite();
    if !is_positive(options.minutes) || !is_positive(options.rate) || options.every.is_zero() {
        bail!("--minutes, --rate and --every must be more than 0");
    }
    if options.every.as_secs_f64() > options.minutes * 60.0 / 8.0 {
        bail!("--every leaves too few samples: eight at least, for the trend of the memory");
    }
    Ok(())
}

struct Soak<'a> {
    options: &'a SoakOptions,
    server: Server,
    version: String,
    /// Speaks the text protocol.
    admin: TcpStream,
    start: Instant,
    rows: Vec<Row>,
    /// The slowest answer to the lists since the last row.
    slowest: Duration,
    counts: LiveCounts,
}

impl<'a> Soak<'a> {
    fn start(options: &'a SoakOptions, persistence: Persistence<'_>) -> Result<Self> {
        // Nothing is measured that needs a core for itself.
        let cores = Cores { server: processors(), load: processors() };
        let threads = options.threads;
        let (patience, certificates) = (START_TIME, None);
        let start = Start {
            cores: &cores,
            persistence,
            threads,
            patience,
            certificates,
            has_http: false,
            functions_file: None,
        };
        let program = find("ringgeard", options.places.ringgeard.as_deref()).map_err(Error::msg)?;
        let mut command = ours::command(&program, &io_name(options), &start);
        let server = Server::start_announced(&mut command, &start)?;
        let admin = wire::connect(server.address)?;
        let version = first_line(&program, &["--version"]).unwrap_or_default();
        let (rows, slowest, counts) = (Vec::new(), Duration::ZERO, LiveCounts::default());
        Ok(Self { options, server, version, admin, start: Instant::now(), rows, slowest, counts })
    }

    /// Asks and samples until all loads have ended.
    fn watch(&mut self, workload: &Workload, folder: &Path) -> Result<()> {
        let under_load = Duration::from_secs_f64(self.options.minutes * 60.0);
        let deadline = self.start + under_load + BESIDE_TIME;
        let mut next_row = self.start;
        while workload.is_running() {
            let now = Instant::now();
            if now >= next_row {
                next_row += self.options.every;
                self.counts = workload.counts();
                let row = self.row(self.start.elapsed() < under_load)?;
                eprintln!("{}", progress(&row, under_load));
                self.rows.push(row);
                sample::write(&folder.join(report::SAMPLES), &self.rows)?;
            } else {
                self.ask()?;
            }
            if now > deadline {
                bail!("the load doesn't end");
            }
            let pause = next_row.saturating_duration_since(Instant::now()).min(ASK_TIME);
            self.server.wait(pause);
        }
        Ok(())
    }

    /// Asks for the lists, whatever they say.
    fn ask(&mut self) -> Result<watch::Lists> {
        match watch::ask(&self.admin) {
            Ok((lists, time)) => {
                self.slowest = self.slowest.max(time);
                Ok(lists)
            }
            Err(error) => Err(self.server.explain(error)),
        }
    }

    /// The server as it is now.
    fn row(&mut self, loaded: bool) -> Result<Row> {
        let lists = self.ask()?;
        let pid = self.server.pid();
        let gone = || format!("process {pid} can't be read");
        let counts = self.counts;
        let seconds = self.start.elapsed().as_secs_f64();
        let last = self.rows.last().copied().unwrap_or_default();
        let answered = counts.answered.saturating_sub(last.answered) as f64;
        Ok(Row {
            seconds,
            loaded,
            rss_bytes: Memory::of(pid).with_context(gone)?.now_bytes,
            descriptors: watch::descriptors(pid).with_context(gone)?,
            sockets: watch::sockets(self.server.address.port()).context("no /proc/net/tcp")?,
            connections: lists.connections,
            jobs: lists.jobs,
            running: lists.running,
            answered: counts.answered,
            ran: counts.ran,
            in_flight: counts.in_flight,
            faults: counts.faults,
            jobs_per_second: answered / (seconds - last.seconds).max(1e-3),
            cpu_us: Cpu::of(pid).unwrap_or_default().total_us,
            admin_us: std::mem::take(&mut self.slowest).as_secs_f64() * 1e6,
        })
    }

    /// Runs what the loads left: no load generator waits for the last background jobs with a common
    /// key. Answers with how many there were.
    fn drain(&mut self) -> Result<u64> {
        let protocol = Protocol::Gearman;
        let deadline = Instant::now() + LEAVE_TIME;
        let mut left = 0;
        loop {
            let names = self.ask()?.busy;
            if names.is_empty() || Instant::now() > deadline {
                return Ok(left);
            }
            let mut wire = Wire::connect(self.server.address, protocol)?;
            for name in &names {
                encode(&mut wire.outbox, Magic::Request, Command::CanDo, &[name.as_bytes()], &[]);
            }
            let mut is_empty = false;
            while !is_empty {
                protocol.take(&mut wire.outbox, 0);
                wire.send()?;
                is_empty = wire.next(|event, out| match event {
                    Event::Job { id, payload } => {
                        left += 1;
                        protocol.done(out, 0, id, payload);
                        false
                    }
                    event => event == Event::Nothing,
                })?;
            }
        }
    }

    /// Waits until only the watching connection is left, as it was `before`, or no longer; answers
    /// with what is left then.
    fn settle(&mut self, before: &Row) -> Result<Row> {
        let deadline = Instant::now() + LEAVE_TIME;
        loop {
            let row = self.row(false)?;
            let same = |count: fn(&Row) -> u64| count(&row) == count(before);
            let is_quiet =
                same(|it| it.descriptors) && same(|it| it.sockets) && same(|it| it.connections);
            if is_quiet || Instant::now() > deadline {
                self.rows.push(row);
                return Ok(row);
            }
            self.server.wait(ASK_TIME / 10);
        }
    }

    fn heading(&self, data_dir: Option<&DataDir>) -> String {
        let SoakOptions { minutes, churn, worker_crash, threads, .. } = self.options;
        let mut text = format!(
            "# {} {}\n\n```sh\n{}\n```\n\n{}",
            run_dir::today(),
            self.options.name,
            run_dir::command_line(),
            Machine::this().lines()
        );
        let _ = writeln!(
            text,
            "* {}, `--io {} --threads {threads}`; {minutes} minutes of {} jobs/s, {churn} \
             connections replaced a second, {} % of jobs lose their worker; `status` and `workers` \
             once a second.",
            self.version,
            io_name(self.options),
            number(self.options.rate),
            worker_crash * 100.0
        );
        if let Some(data_dir) = data_dir {
            let _ = writeln!(text, "* Background jobs are stored in SQLite on {}.", data_dir.about);
        }
        text
    }
}

/// As `--io` spells it.
fn io_name(options: &SoakOptions) -> String {
    options.io.to_possible_value().map_or_else(String::new, |it| it.get_name().to_owned())
}

/// One row in one line, and how much of the time under load is left.
fn progress(row: &Row, under_load: Duration) -> String {
    let whole = under_load.as_secs_f64();
    format!(
        "{} of {}, {} left: {} jobs/s  {}  {} descriptors  {} connections  {} jobs  {} faults",
        span(row.seconds),
        span(whole),
        span((whole - row.seconds).max(0.0)),
        number(row.jobs_per_second),
        bytes(row.rss_bytes),
        row.descriptors,
        row.connections,
        count(row.jobs),
        row.faults
    )
}
