//! Counts instructions where the other benches measure time: a bound for each step of a job's way,
//! exceeding which fails the run, however busy the machine is.
//!
//! Runs itself under valgrind for each workload, with so many jobs and with twice as many; the
//! difference is what the jobs alone cost. Without valgrind it says so and counts nothing, which
//! is a failure where `CI` is `true`. Runs the same with and without `--quick`.
#![allow(clippy::expect_used, reason = "a bench that can't be set up has failed")]

mod common;

use std::hint::black_box;
use std::process::{Command as Program, ExitCode};
use std::sync::Arc;

use ringgear::engine::glob::Glob;
use ringgear::engine::policy::{Backoff, Policies, Policy, Retries};
use ringgear::engine::{ConnId, Engine, Now, Outcome};
use ringgear::io::memory::Allocator;
use ringgear::shard::{Service, Settings, Shard};
use ringgear::wire::frame::{self, Cut};
use ringgear::wire::{Arguments, Command, HEADER_BYTES, Magic, Payload, Priority, Request, encode};

use common::{FUNCTION, PAYLOAD, UNIQUE, connect, requests};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// Submissions that come with one read.
const IN_FLIGHT: u64 = 16;
/// Jobs that lie in the queue of the deep workload.
const DEPTH: u64 = 20_000;

/// What is counted: a name, what does it so many times, how often, and the most instructions each.
struct Workload(&'static str, fn(u64), u64, u64);

/// The bounds leave 10 to 15 % above what the reference machine counts (x86-64, the bench
/// profile): other compilers and C libraries differ by a few. Lower them when a step gets cheaper.
const WORKLOADS: [Workload; 10] = [
    Workload("frame", cut_frames, 20_000, 80),
    Workload("frame and packet", parse_packets, 20_000, 270),
    Workload("echo", echo, 5000, 1250),
    Workload("foreground job", work_foreground, 5000, 10_300),
    Workload("background submit", flood, 20_000, 2850),
    Workload("engine cycle", |times| cycles(0, times), 10_000, 2230),
    Workload("engine cycle, deep", |times| cycles(DEPTH, times), 10_000, 2410),
    Workload("engine cycle, policy", cycles_with_policy, 10_000, 2300),
    Workload("failed run", failed_runs, 10_000, 2600),
    Workload("failed run, deep", failed_runs_beside_many, 10_000, 3200),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, name, times] = &arguments[..]
        && flag == "--workload"
    {
        let workload = WORKLOADS.iter().find(|workload| workload.0 == name);
        (workload.expect("a workload of this name").1)(times.parse().expect("a number"));
        return ExitCode::SUCCESS;
    }
    if Program::new("valgrind").arg("--version").output().is_err() {
        let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
        println!(
            "instruction counts: not checked, valgrind isn't installed (apt install valgrind)"
        );
        return if is_ci { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    let mut is_sound = true;
    for Workload(name, _, times, instructions_max) in WORKLOADS {
        let count = (count(name, 2 * times) - count(name, times)) / times;
        let holds = count <= instructions_max;
        is_sound &= holds;
        let verdict = if holds { "ok" } else { "FAILED" };
        println!("{name:<20} {count:>5} instructions (at most {instructions_max}) {verdict}");
    }
    if is_sound {
        return ExitCode::SUCCESS;
    }
    println!("a step costs more than its bound: make it cheaper, or say in the commit why not");
    ExitCode::FAILURE
}

/// Instructions of a process that runs a workload.
fn count(name: &str, times: u64) -> u64 {
    let program = std::env::current_exe().expect("the bench's own path");
    let output = Program::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["--workload", name, &times.to_string()])
        .output()
        .expect("valgrind starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "valgrind failed: {said}");
    let collected = said.lines().find_map(|line| line.split_once("Collected :"));
    collected.and_then(|(_, count)| count.trim().parse().ok()).expect("valgrind's count")
}

fn cut_frames(times: u64) {
    for bytes in requests().iter().cycle().zip(0..times).map(|(bytes, _)| bytes) {
        let cut = frame::cut(black_box(bytes), 0);
        assert!(matches!(black_box(cut), Ok(Cut::Packet { .. })));
    }
}

fn parse_packets(times: u64) {
    for bytes in requests().iter().cycle().zip(0..times).map(|(bytes, _)| bytes) {
        let Ok(Cut::Packet { header, body }) = frame::cut(black_box(bytes), 0) else {
            panic!("a whole packet")
        };
        assert!(black_box(Request::parse(header, Payload::borrowed(body))).is_ok());
    }
}

/// A shard with its peers; the packets that they get are counted.
struct Server {
    shard: Shard,
    packets: u64,
    /// The handle that was assigned last.
    handle: Vec<u8>,
    /// What is said next.
    said: Vec<u8>,
}

impl Server {
    fn new() -> Self {
        let shard = Shard::new(Settings::default(), common::NOW);
        Self { shard, packets: 0, handle: Vec::new(), said: Vec::new() }
    }

    fn connect(&mut self) -> ConnId {
        connect(&mut self.shard)
    }

    fn add(&mut self, command: Command, arguments: &[&[u8]], payload: &[u8]) {
        encode(&mut self.said, Magic::Request, command, arguments, payload);
    }

    /// Says what was added; every answer leaves.
    fn say(&mut self, conn: ConnId) {
        self.shard.received(conn, &self.said, common::NOW);
        self.said.clear();
        while let Some(conn) = self.shard.poll_dirty(common::NOW) {
            while let Some((chunk, _)) = self.shard.take(conn) {
                let mut bytes = chunk.as_ref();
                while let Ok(Cut::Packet { header, body }) = frame::cut(bytes, 0) {
                    if header.command == Command::JobAssign {
                        let arguments = Arguments::split(header.command, body).expect("a job");
                        self.handle.clear();
                        self.handle.extend_from_slice(arguments.part(0));
                    }
                    self.packets += 1;
                    bytes = bytes.get(HEADER_BYTES + body.len()..).unwrap_or_default();
                }
                self.shard.sent(conn, chunk, common::NOW);
            }
        }
    }
}

fn echo(times: u64) {
    let mut server = Server::new();
    let client = server.connect();
    for _ in 0..times {
        server.add(Command::EchoReq, &[], &PAYLOAD);
        server.say(client);
    }
    assert_eq!(server.packets, times);
}

/// The whole way: the worker sleeps, is woken, grabs, and the client gets the result.
fn work_foreground(times: u64) {
    let mut server = Server::new();
    let (client, worker) = (server.connect(), server.connect());
    server.add(Command::CanDo, &[FUNCTION], &[]);
    server.say(worker);
    for _ in 0..times {
        server.add(Command::PreSleep, &[], &[]);
        server.say(worker);
        server.add(Command::SubmitJob, &[FUNCTION, UNIQUE], &PAYLOAD);
        server.say(client);
        server.add(Command::GrabJob, &[], &[]);
        server.say(worker);
        let handle = std::mem::take(&mut server.handle);
        server.add(Command::WorkComplete, &[&handle], &PAYLOAD);
        server.handle = handle;
        server.say(worker);
    }
    // JOB_CREATED, NOOP, JOB_ASSIGN, WORK_COMPLETE.
    assert_eq!(server.packets, 4 * times);
}

/// Submissions without a worker, some with each read.
fn flood(times: u64) {
    let mut server = Server::new();
    let client = server.connect();
    for number in 0..times {
        server.add(Command::SubmitJobBg, &[FUNCTION, &common::unique(number)], &PAYLOAD);
        if number % IN_FLIGHT == IN_FLIGHT - 1 {
            server.say(client);
        }
    }
    assert_eq!(server.shard.engine().jobs().len() as u64, times / IN_FLIGHT * IN_FLIGHT);
}

/// An engine whose jobs are run until they succeed, a millisecond after each failure.
fn with_policy() -> Engine {
    let backoff = Backoff { first_ms: 1, factor: 1.0, max_ms: 1, jitter: 0.0 };
    let retries = Some(Retries { backoff, ..Retries::of(0) });
    let patterns = vec![Glob::new("resize_*").expect("a glob")];
    let policy = Policy { patterns, retries, ..Policy::default() };
    let mut engine = common::engine([FUNCTION].into_iter());
    engine.use_policies(Arc::new(Policies(vec![policy])), common::NOW);
    engine.tick(common::NOW, usize::MAX);
    engine
}

fn cycles_with_policy(times: u64) {
    let (mut engine, mut body) = (with_policy(), Vec::new());
    for number in 0..times {
        common::cycle(&mut engine, &mut body, FUNCTION, &common::unique(number));
    }
}

fn failed_runs(times: u64) {
    fail(1, times);
}

fn failed_runs_beside_many(times: u64) {
    fail(DEPTH, times);
}

/// Runs that fail, of so many jobs in turns.
fn fail(jobs: u64, times: u64) {
    let (mut engine, mut body) = (with_policy(), Vec::new());
    for number in 0..jobs {
        common::submit(&mut engine, &mut body, FUNCTION, &common::unique(number));
    }
    let (mut now, mut effects) = (common::NOW, Vec::new());
    for _ in 0..times {
        let id = engine.grab(common::WORKER, Priority::Low, now).expect("a job");
        let number = engine.jobs()[id].number;
        let failed = engine.work_failed(common::WORKER, number, Outcome::Fail, &[], now);
        failed.expect("its own job");
        now = Now { mono_ms: now.mono_ms + 1, unix_ms: now.unix_ms + 1 };
        engine.tick(now, usize::MAX);
        engine.wake_sleepers(now);
        effects.clear();
        engine.take_effects(&mut effects);
    }
}

fn cycles(depth: u64, times: u64) {
    let (mut engine, mut body) = common::filled(depth, true);
    for number in depth..depth + times {
        common::cycle(&mut engine, &mut body, FUNCTION, &common::unique(number));
    }
}
