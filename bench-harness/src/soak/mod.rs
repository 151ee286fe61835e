//! A soak: one server under everything at once for long, and whether anything grows or is lost.
//!
//! ```text
//! server ◀── mix (load generators: foreground, background, delayed, large)
//!    ▲
//!    └────── watch (status, workers, /proc) ─▶ rows ─▶ verdict ─▶ report
//! ```
//!
//! Nothing is measured here that others who run beside could spoil: the load keeps a rate.

mod checks;
mod report;
mod watch;
mod workload;

use std::fmt::Write as _;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::sched_getaffinity;
use nix::unistd::Pid;
use ringgear::wire::{Command, Magic, encode};

use self::checks::Row;
use self::watch::Admin;
use self::workload::{Counts, Workload};
use crate::contender::{Persistence, Protocol, Start, ringgear as ours};
use crate::data_dir::DataDir;
use crate::locate;
use crate::machine::Machine;
use crate::options::SoakOptions;
use crate::process::{Cores, Cpu, Memory, Server, raise_descriptors};
use crate::queue_depth::Wire;
use crate::run_dir;
use crate::wire_protocol::Event;

/// How long a server may take to start.
const START_TIME: Duration = Duration::from_secs(20);
/// How often the lists of the server are asked for.
const ASK_TIME: Duration = Duration::from_secs(1);
/// How long connecting and the last answers may take.
const BESIDE_TIME: Duration = Duration::from_secs(180);
/// How long the server may take to notice that all have left.
const LEAVE_TIME: Duration = Duration::from_secs(30);

/// Loads and watches a server; answers whether all held that must.
pub(crate) fn run(options: &SoakOptions) -> Result<bool> {
    check(options)?;
    let find =
        |name: &str, given: Option<&Path>| locate::find(name, given).map_err(|it| anyhow!(it));
    let loadgen = find("loadgen", options.places.loadgen.as_deref())?;
    raise_descriptors();
    let data_dir = match options.store {
        Some(_) => {
            Some(DataDir::find(options.places.scratch.as_deref()).map_err(|why| anyhow!(why))?)
        }
        None => None,
    };
    let store = data_dir.as_ref().map(DataDir::folder).transpose()?;
    let persistence =
        store.as_ref().map_or(Persistence::Memory, |folder| Persistence::Disk(folder.path()));
    let folder = run_dir::fresh(options.places.out.as_deref(), &options.name, report::SAMPLES)?;

    let mut soak = Soak::start(options, persistence)?;
    let before = soak.row(false)?;
    let (sender, ended) = mpsc::channel();
    soak.start = Instant::now();
    let mix = Workload::start(&loadgen, soak.server.address, options, &sender)?;
    let watched = soak.watch(&mix, &ended, &folder);
    // What was seen up to a failure is worth keeping.
    report::write_samples(&folder, &soak.rows)?;
    watched?;
    let outcomes = mix.outcomes()?;
    let left = soak.drain()?;
    let after = soak.settle(&before)?;
    report::write_samples(&folder, &soak.rows)?;

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
    admin: Admin,
    start: Instant,
    rows: Vec<Row>,
    /// The slowest answer to the lists since the last row.
    slowest: Duration,
    counts: Counts,
}

impl<'a> Soak<'a> {
    fn start(options: &'a SoakOptions, persistence: Persistence<'_>) -> Result<Self> {
        let mut command = ours::command(options.places.ringgeard.as_deref(), options.io.name())?;
        command.args(["--threads", &options.threads.to_string()]);
        ours::store_in(&mut command, persistence);
        // Nothing is measured that needs a core for itself.
        let all = all_cores();
        let cores = Cores { server: all.clone(), load: all };
        let start =
            Start { cores: &cores, persistence, threads: options.threads, patience: START_TIME };
        let server = Server::start_announced(&mut command, &start)?;
        let admin = Admin::connect(server.address)?;
        let (rows, slowest, counts) = (Vec::new(), Duration::ZERO, Counts::default());
        Ok(Self { options, server, admin, start: Instant::now(), rows, slowest, counts })
    }

    /// Asks and samples until all loads have ended.
    fn watch(&mut self, mix: &Workload, ended: &Receiver<()>, folder: &Path) -> Result<()> {
        let under_load = Duration::from_secs_f64(self.options.minutes * 60.0);
        let deadline = self.start + under_load + BESIDE_TIME;
        let mut next_row = self.start;
        let mut running = mix.len();
        while running > 0 {
            let now = Instant::now();
            if now >= next_row {
                next_row += self.options.every;
                self.counts = mix.counts();
                let row = self.row(self.start.elapsed() < under_load)?;
                eprintln!("{}", progress(&row));
                self.rows.push(row);
                report::write_samples(folder, &self.rows)?;
            } else {
                self.ask()?;
            }
            if now > deadline {
                bail!("the load doesn't end");
            }
            let pause = next_row.saturating_duration_since(Instant::now()).min(ASK_TIME);
            match ended.recv_timeout(pause) {
                Ok(()) => running -= 1,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        Ok(())
    }

    /// Asks for the lists, whatever they say.
    fn ask(&mut self) -> Result<watch::Lists> {
        match self.admin.ask() {
            Ok((lists, time)) => {
                self.slowest = self.slowest.max(time);
                Ok(lists)
            }
            Err(error) => match self.server.ended() {
                Some(status) => bail!("the server ended ({status}): {}", self.server.log().trim()),
                None => Err(error),
            },
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
        #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
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

    /// Runs what the loads left: background jobs with a common key are nobody's, so no load
    /// generator waits for the last of them. Answers with how many there were.
    fn drain(&mut self) -> Result<u64> {
        let protocol = Protocol::Gearman;
        let deadline = Instant::now() + LEAVE_TIME;
        let mut left = 0;
        loop {
            let names = self.admin.busy_functions()?;
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

    /// Waits until nobody is connected but the one who watches, as it was `before`, or no longer;
    /// answers with what is left then.
    fn settle(&mut self, before: &Row) -> Result<Row> {
        let (_sender, never) = mpsc::channel::<()>();
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
            let _ = never.recv_timeout(ASK_TIME / 10);
        }
    }

    fn heading(&self, data_dir: Option<&DataDir>) -> String {
        let SoakOptions { minutes, rate, churn, worker_crash, io, threads, .. } = self.options;
        let mut text = format!(
            "# {} {}\n\n```sh\n{}\n```\n\n{}",
            run_dir::today(),
            self.options.name,
            run_dir::command_line(),
            Machine::this().lines()
        );
        let _ = writeln!(
            text,
            "* {}, `--io {} --threads {threads}`; {minutes} minutes of {rate} jobs/s, {churn} \
             connections replaced a second, {} % of jobs lose their worker; `status` and `workers` \
             once a second.",
            ours::version_of(self.options.places.ringgeard.as_deref()),
            io.name(),
            worker_crash * 100.0
        );
        if let Some(data_dir) = data_dir {
            let _ = writeln!(text, "* Background jobs are stored in SQLite on {}.", data_dir.about);
        }
        text
    }
}

/// One row in one line, for whoever watches.
fn progress(row: &Row) -> String {
    format!(
        "{:>6.0} s {:>8.0} jobs/s {:>8.1} MiB {:>4} descriptors {:>5} connections {:>6} jobs \
         {} faults",
        row.seconds,
        row.jobs_per_second,
        row.rss_bytes / 1024.0 / 1024.0,
        row.descriptors,
        row.connections,
        row.jobs,
        row.faults
    )
}

/// The cores that this process may use.
fn all_cores() -> Vec<usize> {
    let set = sched_getaffinity(Pid::from_raw(0));
    let is_ours = |core: &usize| set.is_ok_and(|set| set.is_set(*core).unwrap_or(false));
    (0..nix::sched::CpuSet::count()).filter(is_ours).collect()
}
