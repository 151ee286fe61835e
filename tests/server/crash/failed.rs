//! kill -9 at random moments while jobs fail, die and are requeued: each job is in one place, and
//! what was told after a commit is so after the restart.
//!
//! The ledger has what workers and the operator did, noted before it was sent, and how much of it
//! is on disk for sure: a later submission to the same function was acknowledged. After each death
//! the tables are read and compared with it. `CRASH_ROUNDS` and `CRASH_SEED` as above.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::sync::{Condvar, Mutex, MutexGuard};

use fastrand::Rng;
use ringgear::wire::Command;
use rusqlite::Connection;
use tempfile::TempDir;

use super::{PATIENCE, ROUND_MAX, ROUNDS, grab};
use crate::durable::url;
use crate::harness::{Contender, Server, each_ringgear, wait_until};
use crate::postgresql;
use crate::wire::{receive, request};

each_ringgear!(failed_jobs_survive_being_killed);

const ATTEMPTS: u32 = 3;
const FUNCTIONS: [&str; 3] = ["a", "b", "c"];
const WORKERS: usize = 4;
/// Least events in a round, so that jobs have the time to die.
const EVENTS_MIN: u64 = 50;

/// The tables of a function that fails.
fn functions_file() -> String {
    format!(
        "[[function]]\nmatch = [\"a\", \"b\", \"c\"]\nattempts = {ATTEMPTS}\n\
         backoff = {{ first = \"5ms\", factor = 1.0 }}\n"
    )
}

/// What is known of a job, by its handle.
#[derive(Clone, Debug, Default)]
struct Known {
    /// How often it was requeued.
    life: u32,
    /// Attempts that it can have at most, and has at least.
    sent: u32,
    settled: u32,
    /// A worker has sent WORK_COMPLETE.
    completed: bool,
    /// A dead letter that is on disk.
    dead: bool,
    /// The operator has asked for it to be requeued: it may be on its way.
    requeued: bool,
}

#[derive(Default)]
struct Ledger {
    jobs: BTreeMap<Vec<u8>, Known>,
    /// Paused functions that are on disk.
    paused: BTreeSet<String>,
    /// How often something was told for sure, by kind: retries, dead letters, requeued ones.
    settled: [u64; 3],
    faults: Vec<String>,
    events: u64,
}

#[derive(Default)]
struct Shared {
    ledger: Mutex<Ledger>,
    grown: Condvar,
}

impl Shared {
    fn note<T>(&self, change: impl FnOnce(&mut Ledger) -> T) -> T {
        let mut ledger = self.lock();
        ledger.events += 1;
        self.grown.notify_all();
        change(&mut ledger)
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("no panic")
    }

    /// Waits until so many more things have happened, but not long.
    fn wait_for(&self, events: u64) {
        let ledger = self.lock();
        let end = ledger.events + events;
        let grows = |ledger: &mut Ledger| ledger.events < end;
        drop(self.grown.wait_timeout_while(ledger, ROUND_MAX, grows).expect("no panic"));
    }
}

fn connect(server: &Server) -> Option<TcpStream> {
    let stream = TcpStream::connect(server.address()).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_nodelay(true).expect("an option");
    Some(stream)
}

/// Submits a background job; `None` when the server is gone.
fn submit(stream: &mut TcpStream, function: &str, payload: &[u8], shared: &Shared) -> Option<()> {
    let packet = request(Command::SubmitJobBg, &[function.as_bytes(), payload], payload);
    stream.write_all(&packet).ok()?;
    let (command, handle) = receive(stream)?;
    if command != Command::JobCreated {
        shared.note(|ledger| ledger.faults.push(format!("{command:?} for {function}")));
        return None;
    }
    // A worker may have noted it before.
    shared.note(|ledger| {
        ledger.jobs.entry(handle).or_default();
    });
    Some(())
}

/// Fails most jobs of a function until the connection breaks; every so often it makes sure that
/// what happened is on disk.
fn work(server: &Server, function: &str, name: &str, shared: &Shared, rng: &mut Rng) -> Option<()> {
    let mut number = 0;
    loop {
        let mut stream = connect(server)?;
        stream.write_all(&request(Command::CanDo, &[function.as_bytes()], b"")).ok()?;
        let mut failed: Vec<(Vec<u8>, u32, u32)> = Vec::new();
        for _ in 0..rng.u32(1..60) {
            if rng.u32(0..3) == 0 {
                number += 1;
                let payload = format!("{name}-{number}");
                // The same connection, function and store: all failures go before this.
                submit(&mut stream, function, payload.as_bytes(), shared)?;
                shared.note(|ledger| {
                    for (handle, life, attempts) in failed.drain(..) {
                        let known = ledger.jobs.entry(handle).or_default();
                        // Unless the operator has requeued it meanwhile.
                        if known.life == life {
                            known.settled = known.settled.max(attempts);
                            ledger.settled[0] += 1;
                        }
                    }
                });
            }
            let Some((handle, _)) = grab(&mut stream) else {
                stream.write_all(&request(Command::EchoReq, &[], b"alive?")).ok()?;
                receive(&mut stream)?;
                continue;
            };
            let ends = rng.u32(0..10);
            let (life, attempts) = shared.note(|ledger| {
                // A client may not have noted it yet.
                let known = ledger.jobs.entry(handle.clone()).or_default();
                if ends < 2 {
                    known.completed = true;
                } else {
                    known.sent += 1;
                }
                (known.life, known.sent)
            });
            let packet = match ends {
                0..2 => request(Command::WorkComplete, &[&handle], b""),
                2 => break,
                _ => request(Command::WorkFail, &[&handle], b""),
            };
            stream.write_all(&packet).ok()?;
            if ends > 2 {
                failed.push((handle, life, attempts));
            }
        }
    }
}

/// Looks at dead letters and requeues some; pauses functions. All of it is made sure to be on disk.
fn operate(server: &Server, name: &str, shared: &Shared, rng: &mut Rng) -> Option<()> {
    let mut stream = connect(server)?;
    for step in 0.. {
        let function = FUNCTIONS[rng.usize(0..FUNCTIONS.len())];
        let list = text(server, &format!("show dead {function}"))?;
        let handle = |row: &str| row.split('\t').next().unwrap_or_default().as_bytes().to_vec();
        let told: Vec<Vec<u8>> = list.lines().filter(|&row| row != ".").map(handle).collect();
        submit(&mut stream, function, format!("{name}-{step}").as_bytes(), shared)?;
        shared.note(|ledger| {
            for handle in &told {
                let known = ledger.jobs.entry(handle.clone()).or_default();
                (known.dead, known.requeued) = (true, false);
                (known.sent, known.settled) = (ATTEMPTS, ATTEMPTS);
                ledger.settled[1] += 1;
            }
        });
        let some: Vec<Vec<u8>> = told.into_iter().filter(|_| rng.bool()).collect();
        for handle in &some {
            shared.note(|ledger| {
                let known = ledger.jobs.entry(handle.clone()).or_default();
                (known.dead, known.requeued) = (false, true);
                (known.life, known.sent, known.settled) = (known.life + 1, 0, 0);
            });
            let handle = String::from_utf8_lossy(handle);
            let answer = text(server, &format!("requeue dead {handle}"))?;
            if answer != "OK 1\n" {
                shared.note(|ledger| ledger.faults.push(format!("{handle}: {answer}")));
            }
        }
        submit(&mut stream, function, format!("{name}-{step}-after").as_bytes(), shared)?;
        shared.note(|ledger| {
            for handle in some {
                ledger.settled[2] += 1;
                ledger.jobs.entry(handle).or_default().requeued = false;
            }
        });
        let paused = format!("paused-{name}-{step}");
        text(server, &format!("pause function {paused}"))?;
        submit(&mut stream, &paused, paused.as_bytes(), shared)?;
        shared.note(|ledger| ledger.paused.insert(paused));
    }
    None
}

/// The answer to an admin command; `None` when the server is gone.
fn text(server: &Server, command: &str) -> Option<String> {
    let mut stream = connect(server)?;
    stream.write_all(format!("{command}\n").as_bytes()).ok()?;
    let (mut text, mut lines) = (String::new(), BufReader::new(stream).lines());
    loop {
        let line = lines.next()?.ok()?;
        text += &line;
        text.push('\n');
        if !command.starts_with("show") || line == "." {
            return Some(text.replace('\r', ""));
        }
    }
}

fn round(server: &mut Server, number: u64, shared: &Shared, rng: &mut Rng) {
    let seeds: Vec<u64> = (0..=WORKERS).map(|_| rng.u64(..)).collect();
    let events = rng.u64(EVENTS_MIN..1500);
    std::thread::scope(|scope| {
        let target = &*server;
        for (at, &seed) in seeds.iter().enumerate() {
            scope.spawn(move || {
                let (mut rng, name) = (Rng::with_seed(seed), format!("{number}-{at}"));
                if at < WORKERS {
                    let function = FUNCTIONS[at % FUNCTIONS.len()];
                    work(target, function, &name, shared, &mut rng);
                } else {
                    operate(target, &name, shared, &mut rng);
                }
            });
        }
        shared.wait_for(events);
        target.signal("KILL");
    });
    server.wait();
}

/// Where the jobs are.
enum Store {
    Sqlite(TempDir),
    Postgresql(postgresql::Server),
}

impl Store {
    fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().expect("a folder"))
    }

    /// For `--store`.
    fn place(&self) -> String {
        match self {
            Self::Sqlite(folder) => format!("sqlite:{}", folder.path().join("jobs.db").display()),
            Self::Postgresql(server) => url(server),
        }
    }

    fn read(&self) -> Tables {
        const NUMBERS: [&str; 2] = [
            "SELECT number, CAST(attempts AS bigint) FROM ringgear_job",
            "SELECT number, CAST(attempts AS bigint) FROM ringgear_dead",
        ];
        const PAUSES: &str = "SELECT function FROM ringgear_pause";
        let ([jobs, dead], paused) = match self {
            Self::Sqlite(folder) => {
                // With leave to write: the log of a server that was killed has to be read first.
                let database = Connection::open(folder.path().join("jobs.db"));
                let database = database.expect("a database");
                let numbers = NUMBERS.map(|query| {
                    let mut select = database.prepare(query).expect("a query");
                    let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
                    rows.expect("rows").map(|row| row.expect("values")).map(number_row).collect()
                });
                let mut select = database.prepare(PAUSES).expect("a query");
                let rows = select.query_map([], |row| row.get(0)).expect("rows");
                (numbers, rows.map(|row| row.expect("text")).collect())
            }
            Self::Postgresql(server) => {
                let mut database = server.admin("jobs");
                // What the killed server has sent may still be on its way to the tables.
                let alone = "SELECT count(*) = 0 FROM pg_stat_activity \
                             WHERE application_name = 'ringgeard'";
                postgresql::wait_for(&mut database, alone);
                let numbers = NUMBERS.map(|query| {
                    let rows = database.query(query, &[]).expect("rows");
                    rows.iter().map(|row| number_row((row.get(0), row.get(1)))).collect()
                });
                let rows = database.query(PAUSES, &[]).expect("rows");
                let text = |name: Vec<u8>| String::from_utf8(name).expect("text");
                (numbers, rows.iter().map(|row| text(row.get(0))).collect())
            }
        };
        Tables { jobs, dead, paused }
    }
}

/// A number of a job, which is stored as a signed one, and its attempts.
fn number_row((number, attempts): (i64, i64)) -> (u64, u32) {
    (number.cast_unsigned(), attempts.try_into().expect("few attempts"))
}

/// The tables after a death.
struct Tables {
    /// Attempts, by the number in the handle.
    jobs: BTreeMap<u64, u32>,
    dead: BTreeMap<u64, u32>,
    paused: BTreeSet<String>,
}

impl Tables {
    /// Compares with the ledger, which then has what the tables have.
    fn check(&self, ledger: &mut Ledger) {
        let Self { jobs, dead, paused } = self;
        let Ledger { jobs: known, faults, .. } = ledger;
        for number in jobs.keys().filter(|number| dead.contains_key(number)) {
            faults.push(format!("{number} is both a job and dead"));
        }
        for (number, attempts) in dead.iter().filter(|&(_, &attempts)| attempts != ATTEMPTS) {
            faults.push(format!("{number} died after {attempts} attempts"));
        }
        for (number, attempts) in jobs.iter().filter(|&(_, &attempts)| attempts >= ATTEMPTS) {
            faults.push(format!("{number} lives after {attempts} attempts"));
        }
        for (handle, known) in known.iter_mut() {
            let number = number_of(handle);
            let name = format!("{number} {known:?}");
            let (job, letter) = (jobs.get(&number), dead.get(&number));
            let Some(&attempts) = job.or(letter) else {
                if !known.completed {
                    faults.push(format!("lost: {name}"));
                }
                continue;
            };
            if known.dead && letter.is_none() {
                faults.push(format!("told to be dead, and lives: {name}"));
            }
            let range = known.settled..=known.sent;
            if !known.requeued && !range.contains(&attempts) {
                faults.push(format!("has {attempts} attempts: {name}"));
            }
            // Completed, but not on disk, or as the last one.
            known.completed = false;
            (known.sent, known.settled, known.requeued) = (attempts, attempts, false);
            known.dead = letter.is_some();
        }
        known.retain(|handle, _| {
            let number = number_of(handle);
            jobs.contains_key(&number) || dead.contains_key(&number)
        });
        for function in ledger.paused.iter().filter(|&function| !paused.contains(function)) {
            faults.push(format!("{function} isn't paused"));
        }
    }
}

/// The number in a handle.
fn number_of(handle: &[u8]) -> u64 {
    let handle = String::from_utf8_lossy(handle);
    handle.rsplit(':').next().and_then(|number| number.parse().ok()).expect("a number")
}

/// Completes all jobs that there are, requeues dead letters, and completes these, too: all that the
/// tables had comes by.
fn drain(server: &Server, tables: &Tables) {
    let mut stream = connect(server).expect("the server listens");
    for function in &tables.paused {
        stream.write_all(&request(Command::CanDo, &[function.as_bytes()], b"")).expect("it reads");
    }
    assert_eq!(grab(&mut stream), None, "a paused function has no jobs for workers");
    assert_eq!(text(server, "resume function paused-*").as_deref(), Some("OK\n"));
    let list = text(server, "show dead").expect("a list");
    assert_eq!(list.lines().count(), tables.dead.len() + 1);
    let count = tables.dead.len();
    assert_eq!(text(server, "requeue dead *"), Some(format!("OK {count}\n")));
    for function in FUNCTIONS {
        stream.write_all(&request(Command::CanDo, &[function.as_bytes()], b"")).expect("it reads");
    }
    let mut left: BTreeSet<u64> = tables.jobs.keys().chain(tables.dead.keys()).copied().collect();
    wait_until("all jobs", || {
        while let Some((handle, _)) = grab(&mut stream) {
            let complete = request(Command::WorkComplete, &[&handle], b"");
            stream.write_all(&complete).expect("the server reads");
            let number = number_of(&handle);
            assert!(left.remove(&number), "{number} came twice, or from nowhere");
        }
        left.is_empty().then_some(())
    });
}

fn failed_jobs_survive_being_killed(contender: Contender) {
    survive(contender, &Store::sqlite());
}

#[test]
fn failed_jobs_on_postgresql_survive_being_killed() {
    for contender in [Contender::RinggearEpoll, Contender::RinggearUring3] {
        if contender.is_here() {
            let Some(server) = postgresql::Server::start() else { return };
            survive(contender, &Store::Postgresql(server));
        }
    }
}

fn survive(contender: Contender, store: &Store) {
    let number = |name: &str| std::env::var(name).ok().map(|it| it.parse().expect("a number"));
    let seed: u64 = number("CRASH_SEED").unwrap_or_else(|| Rng::new().u64(..1 << 32));
    let rounds = number("CRASH_ROUNDS").unwrap_or_else(|| ROUNDS.into());
    eprintln!("CRASH_SEED={seed}");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("functions.toml");
    std::fs::write(&file, functions_file()).expect("a file");
    let (place, file) = (store.place(), file.to_str().expect("text"));
    let options = ["--store", &place, "--functions-file", file, "--dead-max", "1000000"];
    let mut rng = Rng::with_seed(seed);
    let shared = Shared::default();
    for number in 0..rounds {
        let mut server = Server::start_with(contender, &options).expect("this project's own");
        round(&mut server, number, &shared, &mut rng);
        let mut ledger = shared.lock();
        store.read().check(&mut ledger);
        assert!(ledger.faults.is_empty(), "round {number}: {:#?}", ledger.faults);
    }
    let settled = shared.lock().settled;
    assert!(settled.iter().all(|&count| count > 20), "{settled:?} show nothing");
    let tables = store.read();
    let server = Server::start_with(contender, &options).expect("this project's own");
    drain(&server, &tables);
}
