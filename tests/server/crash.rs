//! kill -9 at random moments under load: what was acknowledged is run, what was done with stays so.
//!
//! Submitters and workers keep a ledger of what the server told them; the server dies in the middle
//! of it all, round after round on one store. `CRASH_ROUNDS` sets how many, `CRASH_SEED` replays
//! the choices (the moments themselves are the machine's).

mod failed;

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpStream;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use fastrand::Rng;
use ringgear::wire::Command;

use crate::harness::{Contender, PATIENCE, Server, each_ringgear};
use crate::wire::{expect, receive, request, send};

each_ringgear!(acknowledged_jobs_survive_being_killed);

const ROUNDS: u32 = 12;
/// A round on a slow disk ends before all of its events happened.
const ROUND_MAX: Duration = Duration::from_secs(5);
const SUBMITTERS: usize = 3;
const WORKERS: usize = 2;
/// Submissions that a submitter sends before it reads the answers.
const IN_FLIGHT: usize = 8;

/// What the server has said so far, over all rounds.
#[derive(Default)]
struct Ledger {
    /// Handles of acknowledged jobs, by payload.
    acknowledged: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Payloads that a worker was given, with the handle.
    run: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Payloads whose removal is on disk: a later submission of the same worker was acknowledged.
    settled: BTreeSet<Vec<u8>>,
    /// What went wrong.
    faults: Vec<String>,
    /// Acknowledgements and runs; the server dies when there are so many.
    events: u64,
}

#[derive(Default)]
struct Shared {
    ledger: Mutex<Ledger>,
    grown: Condvar,
}

impl Shared {
    fn note(&self, change: impl FnOnce(&mut Ledger)) {
        let mut ledger = self.lock();
        change(&mut ledger);
        ledger.events += 1;
        self.grown.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("no panic")
    }

    /// Waits until `events` more things have happened, for `ROUND_MAX`; longer only if nothing has.
    fn wait_for(&self, events: u64) {
        let ledger = self.lock();
        let start = ledger.events;
        let wait = |ledger, most, events| {
            let grows = |ledger: &mut Ledger| ledger.events < start + events;
            self.grown.wait_timeout_while(ledger, most, grows).expect("no panic")
        };
        let (ledger, _) = wait(ledger, ROUND_MAX, events);
        let (ledger, waited) = wait(ledger, PATIENCE, 1);
        assert!(!waited.timed_out(), "the server stands still: {:?}", ledger.faults);
    }
}

/// Submits until the connection breaks.
fn submit(stream: &mut TcpStream, name: &str, shared: &Shared, rng: &mut Rng) {
    let commands = [Command::SubmitJobHighBg, Command::SubmitJobBg, Command::SubmitJobLowBg];
    for batch in 0.. {
        let mut bytes = Vec::new();
        let payloads: Vec<Vec<u8>> =
            (0..IN_FLIGHT).map(|at| format!("{name}-{batch}-{at}").into_bytes()).collect();
        for payload in &payloads {
            let unique = if rng.bool() { &payload[..] } else { b"" };
            bytes.extend(request(commands[rng.usize(0..3)], &[b"work", unique], payload));
        }
        if std::io::Write::write_all(stream, &bytes).is_err() {
            return;
        }
        for payload in payloads {
            match receive(stream) {
                Some((Command::JobCreated, handle)) => {
                    shared.note(|ledger| drop(ledger.acknowledged.insert(payload, handle)));
                }
                Some(other) => {
                    return shared.note(|ledger| ledger.faults.push(format!("{other:?}")));
                }
                None => return,
            }
        }
    }
}

/// The handle and payload of the next job; `None` if there is none or the connection is broken.
fn grab(stream: &mut TcpStream) -> Option<(Vec<u8>, Vec<u8>)> {
    std::io::Write::write_all(stream, &request(Command::GrabJob, &[], b"")).ok()?;
    let (Command::JobAssign, body) = receive(stream)? else { return None };
    let mut parts = body.splitn(3, |&byte| byte == 0);
    let (handle, _, payload) = (parts.next()?, parts.next()?, parts.next()?);
    Some((handle.to_vec(), payload.to_vec()))
}

/// Works until the connection breaks. Every so often the worker makes sure that what it has done is
/// on disk, or leaves with a job in its hands.
fn work(server: &Server, shared: &Shared, rng: &mut Rng) {
    'connections: loop {
        let Ok(mut stream) = TcpStream::connect(server.address()) else { return };
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        // A completion and the next grab are two writes: Nagle's algorithm would hold the second
        // back for 40 ms, and hardly a job would be done before the server dies.
        stream.set_nodelay(true).expect("an option");
        let mut done = Vec::new();
        let can_do = request(Command::CanDo, &[b"work"], b"");
        if std::io::Write::write_all(&mut stream, &can_do).is_err() {
            return;
        }
        loop {
            let Some((handle, payload)) = grab(&mut stream) else {
                // No job is no reason to leave; a broken connection is.
                let alive = std::io::Write::write_all(
                    &mut stream,
                    &request(Command::EchoReq, &[], b"alive?"),
                );
                if alive.is_err() || receive(&mut stream).is_none() {
                    return;
                }
                continue;
            };
            shared.note(|ledger| {
                if ledger.settled.contains(&payload) {
                    let payload = payload.escape_ascii();
                    ledger.faults.push(format!("{payload} came back after its removal"));
                }
                if ledger.acknowledged.get(&payload).is_some_and(|known| *known != handle) {
                    ledger.faults.push(format!("{} changed its handle", payload.escape_ascii()));
                }
                ledger.run.insert(payload.clone(), handle.clone());
            });
            if rng.u32(0..40) == 0 {
                continue 'connections;
            }
            let complete = request(Command::WorkComplete, &[&handle], b"");
            if std::io::Write::write_all(&mut stream, &complete).is_err() {
                return;
            }
            done.push(payload);
            if rng.u32(0..4) == 0 {
                // The same connection, function and store: the removals go before this one.
                let barrier = request(Command::SubmitJobBg, &[b"work", b""], b"barrier");
                if std::io::Write::write_all(&mut stream, &barrier).is_err() {
                    return;
                }
                let Some((Command::JobCreated, _)) = receive(&mut stream) else { return };
                shared.note(|ledger| {
                    done.retain(|payload| payload != b"barrier");
                    ledger.settled.extend(done.drain(..));
                });
            }
        }
    }
}

fn round(server: &mut Server, number: u32, shared: &Shared, rng: &mut Rng) {
    let seeds: Vec<u64> = (0..SUBMITTERS + WORKERS).map(|_| rng.u64(..)).collect();
    let events = rng.u64(1..2000);
    std::thread::scope(|scope| {
        let target = &*server;
        for (at, &seed) in seeds.iter().enumerate() {
            scope.spawn(move || {
                let mut rng = Rng::with_seed(seed);
                if at < SUBMITTERS {
                    let mut stream = target.connect();
                    submit(&mut stream, &format!("{number}-{at}"), shared, &mut rng);
                } else {
                    work(target, shared, &mut rng);
                }
            });
        }
        shared.wait_for(events);
        target.signal("KILL");
    });
    server.wait();
}

/// Takes every job that is left, and checks the order in which they come.
fn drain(server: &Server, shared: &Shared) {
    let mut stream = server.connect();
    let handles: Vec<(Vec<u8>, Vec<u8>)> = {
        let ledger = shared.lock();
        let waiting =
            ledger.acknowledged.iter().filter(|(payload, _)| !ledger.run.contains_key(*payload));
        waiting.map(|(payload, handle)| (payload.clone(), handle.clone())).collect()
    };
    for (payload, handle) in handles {
        send(&mut stream, Command::GetStatus, &[&handle], b"");
        let status = expect(&mut stream, Command::StatusRes);
        let known = [&handle[..], b"\x001\x000\x000\x000"].concat();
        assert_eq!(
            status.escape_ascii().to_string(),
            known.escape_ascii().to_string(),
            "{payload:?}"
        );
    }
    send(&mut stream, Command::CanDo, &[b"work"], b"");
    let mut numbers = Vec::new();
    while let Some((handle, payload)) = grab(&mut stream) {
        send(&mut stream, Command::WorkComplete, &[&handle], b"");
        let text = String::from_utf8_lossy(&handle);
        let number = text.rsplit(':').next().expect("a number");
        numbers.push(number.parse::<u64>().expect("a number"));
        shared.note(|ledger| drop(ledger.run.insert(payload, handle)));
    }
    // Three priorities, one behind another: numbers go down twice at most.
    let falls = numbers.windows(2).filter(|pair| pair[1] < pair[0]).count();
    assert!(falls <= 2, "{falls} times out of order in {numbers:?}");
}

fn survives(contender: Contender, options: &[&str]) {
    let seed = std::env::var("CRASH_SEED").map_or_else(
        |_| Rng::new().u64(..1 << 32),
        |seed| seed.parse().expect("CRASH_SEED is a number"),
    );
    let rounds = std::env::var("CRASH_ROUNDS").map_or(ROUNDS, |n| n.parse().expect("a number"));
    eprintln!("CRASH_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let shared = Shared::default();
    for number in 0..rounds {
        let Some(mut server) = Server::start_with(contender, options) else { return };
        round(&mut server, number, &shared, &mut rng);
        let ledger = shared.lock();
        assert!(ledger.faults.is_empty(), "round {number}: {:?}", ledger.faults);
    }
    let Some(server) = Server::start_with(contender, options) else { return };
    drain(&server, &shared);
    let ledger = shared.lock();
    let lost: Vec<String> = ledger
        .acknowledged
        .keys()
        .filter(|payload| !ledger.run.contains_key(*payload))
        .map(|payload| payload.escape_ascii().to_string())
        .collect();
    let (count, of) = (lost.len(), ledger.acknowledged.len());
    assert!(
        lost.is_empty(),
        "{count} of {of} lost: {:?} …",
        lost.iter().take(9).collect::<Vec<_>>()
    );
    let (jobs, settled) = (ledger.acknowledged.len(), ledger.settled.len());
    assert!(jobs > 100 && settled > 50, "{jobs} jobs and {settled} removals show nothing");
}

fn acknowledged_jobs_survive_being_killed(contender: Contender) {
    let directory = tempfile::tempdir().expect("a folder");
    let store = format!("sqlite:{}", directory.path().join("jobs.db").display());
    survives(contender, &["--store", &store]);
}
