//! A conversation with a shard at known times, and what a scrape tells of it, to the letter.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::time::Instant as TokioInstant;

use super::*;
use crate::engine::{ConnId, Now};
use crate::io::{TURN_BUCKETS, TurnTimes};
use crate::ops::exposition::{self, Format};
use crate::shard::operator::{FunctionsAt, OperatorReply, OperatorRequest};
use crate::shard::remote::message::Message;
use crate::shard::{Origin, Service, Settings, Shard};
use crate::wire::{Command, Magic, encode};

/// What a scrape is to tell, but for memory, which changes with the records' size.
const GOLDEN: &str = include_str!("tests/golden.txt");

/// A function whose name needs each escape of the format.
const QUOTED: &[u8] = b"a\"b\\c\nd";
/// One whose name isn't UTF-8.
const BYTES: &[u8] = b"\xff\\x";

/// A shard and its driver.
struct Desk {
    shard: Shard,
    now: Now,
}

impl Desk {
    fn new() -> Self {
        let now = Now { mono_ms: 5000, unix_ms: 1_700_000_000_000 };
        let settings = Settings { has_http: true, ..Settings::default() };
        Self { shard: Shard::new(settings, now), now }
    }

    fn connect(&mut self) -> ConnId {
        let origin = Origin { fd: 9, peer: (Ipv4Addr::LOCALHOST, 4001).into(), listener: 0 };
        self.shard.connect(origin, self.now).expect("room")
    }

    fn wait(&mut self, ms: u64) {
        self.now = Now { mono_ms: self.now.mono_ms + ms, unix_ms: self.now.unix_ms + ms };
        self.shard.tick(self.now);
    }

    /// Says bytes. Returns what all that was said before them is answered with, too.
    fn say(&mut self, conn: ConnId, bytes: &[u8]) -> Vec<u8> {
        self.shard.received(conn, bytes, self.now);
        while self.shard.poll_dirty(self.now).is_some() {}
        let mut answer = Vec::new();
        while let Some((chunk, _)) = self.shard.take(conn) {
            answer.extend_from_slice(chunk.as_ref());
            self.shard.sent(conn, chunk, self.now);
        }
        answer
    }

    fn packet(
        &mut self,
        conn: ConnId,
        command: Command,
        parts: &[&[u8]],
        payload: &[u8],
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(&mut bytes, Magic::Request, command, parts, payload);
        self.say(conn, &bytes)
    }

    /// Submits jobs of distinct keys.
    fn submit(&mut self, conn: ConnId, command: Command, function: &[u8], count: usize) {
        for _ in 0..count {
            self.packet(conn, command, &[function, b""], b"payload");
        }
    }

    /// Takes a job. Returns its handle.
    fn grab(&mut self, worker: ConnId) -> Vec<u8> {
        let answer = self.packet(worker, Command::GrabJob, &[], b"");
        let is_assigned = |it: &[u8]| it.starts_with(b"\0RES\0\0\0\x0b");
        let start = answer.windows(8).position(is_assigned).expect("there is a job");
        answer[start + 12..].iter().copied().take_while(|&byte| byte != 0).collect()
    }

    /// Takes jobs that wait for `wait_ms` more, runs each for `run_ms` and ends it.
    fn work(
        &mut self,
        worker: ConnId,
        command: Command,
        count: usize,
        (wait_ms, run_ms): (u64, u64),
    ) {
        for _ in 0..count {
            self.wait(wait_ms);
            let handle = self.grab(worker);
            self.wait(run_ms);
            self.packet(worker, command, &[&handle], b"");
        }
    }

    fn ask(&mut self, request: OperatorRequest) -> OperatorReply {
        let request = Box::new(request);
        self.shard.receive_message(1, Message::Operator { ticket: 7, request }, self.now);
        let mut messages = Vec::new();
        self.shard.take_messages(&mut messages);
        match messages.pop() {
            Some((1, Message::OperatorReply { ticket: 7, reply })) => *reply,
            other => panic!("{other:?}"),
        }
    }

    fn snapshot(&mut self) -> Snapshot {
        let OperatorReply::Numbers(numbers) = self.ask(OperatorRequest::Numbers) else {
            panic!("no numbers")
        };
        let (mut rows, mut next) = (Vec::new(), Some(FunctionsAt::START));
        while let Some(from) = next {
            let OperatorReply::Functions(more, rest) = self.ask(OperatorRequest::Functions(from))
            else {
                panic!("no functions")
            };
            rows.extend(more);
            next = rest;
        }
        let since_epoch = Duration::from_millis(self.now.unix_ms);
        Snapshot::new(TokioInstant::now(), since_epoch, vec![*numbers], rows)
    }
}

/// A scrape that tells a snapshot, and beside it always the same.
fn scrape(snapshot: &Arc<Snapshot>) -> Scrape {
    let mut buckets = [0; TURN_BUCKETS];
    (buckets[0], buckets[3]) = (90, 1);
    let turns = TurnTimes { thread: 5, buckets, sum_us: 12_345 };
    Scrape {
        snapshot: Arc::clone(snapshot),
        version: "1.2.3",
        driver: "uring",
        store: None,
        http_connections: 3,
        http_denied: [1, 0, 0, 0],
        store_numbers: None,
        partitions: None,
        memory_bytes_max: 1 << 30,
        certificate_until_s: Some(1_800_000_000),
        core_times: vec![(turns, Some(1.5))],
        log_lines: vec![("error", 0), ("warning", 2)],
        last_seconds: 0.25,
        process: None,
    }
}

/// 40 jobs of six functions: completed, failed, lost, late, delayed, waiting, and some that were
/// refused or joined others.
fn converse(desk: &mut Desk) {
    use Command::{
        CanDo, CanDoTimeout, SubmitJob, SubmitJobBg, SubmitJobEpoch, SubmitJobHigh, SubmitJobLowBg,
        WorkComplete, WorkException, WorkFail,
    };
    let (client, worker) = (desk.connect(), desk.connect());
    // resize: 16 jobs, of which 9 complete, 2 fail, 1 runs and 4 wait.
    desk.submit(client, SubmitJobHigh, b"resize", 4);
    desk.submit(client, SubmitJob, b"resize", 4);
    desk.submit(client, SubmitJobBg, b"resize", 4);
    desk.submit(client, SubmitJobLowBg, b"resize", 4);
    desk.packet(worker, CanDo, &[b"resize"], b"");
    desk.work(worker, WorkComplete, 9, (1, 20));
    desk.work(worker, WorkFail, 1, (1, 0));
    desk.work(worker, WorkException, 1, (1, 90_000));
    desk.grab(worker);
    // mail: 10 jobs; the first takes too long, so that another worker has it; 3 wait.
    let mailer = desk.connect();
    desk.submit(client, SubmitJobBg, b"mail", 10);
    desk.packet(mailer, CanDoTimeout, &[b"mail", b"1"], b"");
    desk.grab(mailer);
    desk.wait(1001);
    desk.work(mailer, WorkComplete, 7, (0, 3));
    // report: 8 jobs, 2 of which start later, 1 loses its worker; then its queue is full.
    desk.submit(client, SubmitJob, b"report", 5);
    for _ in 0..3 {
        desk.packet(client, SubmitJobBg, &[b"report", b"monthly"], b"");
    }
    for _ in 0..2 {
        desk.packet(client, SubmitJobEpoch, &[b"report", b"", b"1800000000"], b"");
    }
    let reporter = desk.connect();
    desk.packet(reporter, CanDo, &[b"report"], b"");
    desk.grab(reporter);
    desk.wait(2);
    desk.shard.disconnect(reporter, desk.now);
    desk.say(client, b"maxqueue report 6\n");
    desk.submit(client, SubmitJobBg, b"report", 2);
    // Names that need escapes, and one that all others share.
    desk.submit(client, SubmitJobBg, QUOTED, 3);
    desk.submit(client, SubmitJobBg, BYTES, 2);
    desk.submit(client, SubmitJobBg, b"_other", 1);
    desk.wait(500);
}

#[test]
fn a_conversation_is_told_to_the_letter() {
    let mut desk = Desk::new();
    converse(&mut desk);
    let text = exposition::text(scrape(&Arc::new(desk.snapshot())), Format::Text)
        .expect("a string takes it");
    let is_stable = |line: &&str| !line.starts_with("ringgear_memory_");
    let told: Vec<&str> = text.lines().filter(is_stable).collect();
    let golden: Vec<&str> = GOLDEN.lines().collect();
    for (told, golden) in told.iter().zip(&golden) {
        assert_eq!(told, golden, "\n{}", text);
    }
    assert_eq!(told.len(), golden.len(), "\n{text}");
}

/// The samples of a text by name and sorted labels.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = name.split_once('{').unwrap_or((name, "}"));
        let labels = labels.strip_suffix('}').expect("an end").split("\",");
        // One format writes whole bounds with a point.
        let bound =
            |it: &'_ str| it.starts_with("le=").then(|| it.trim_end_matches(".0").to_owned());
        let labels = labels.map(|it| it.trim_matches('"'));
        let mut labels: Vec<_> =
            labels.map(|it| bound(it).unwrap_or_else(|| it.to_owned())).collect();
        labels.sort_unstable();
        let value = value.parse().expect("a number");
        let earlier = samples.insert(format!("{name} {labels:?}"), value);
        assert_eq!(earlier, None, "twice: {line}");
    }
    samples
}

#[test]
fn both_formats_tell_the_same() {
    let mut desk = Desk::new();
    converse(&mut desk);
    let snapshot = Arc::new(desk.snapshot());
    let text = |format| exposition::text(scrape(&snapshot), format).expect("a string takes it");
    let (text, open_metrics) = (text(Format::Text), text(Format::OpenMetrics));
    assert!(open_metrics.ends_with("\n# EOF\n") && !text.contains("EOF"));
    let (text, open_metrics) = (samples(&text), samples(&open_metrics));
    for (name, value) in &text {
        assert_eq!(open_metrics.get(name), Some(value), "{name}");
    }
    assert_eq!(open_metrics.len(), text.len());
    assert!(text.len() > 100);
}

/// OpenMetrics calls a counter's family by its name without `_total`.
#[test]
fn no_two_families_have_one_name() {
    let mut desk = Desk::new();
    converse(&mut desk);
    let snapshot = Arc::new(desk.snapshot());
    for format in [Format::Text, Format::OpenMetrics] {
        let text = exposition::text(scrape(&snapshot), format).expect("a string takes it");
        let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let mut names: Vec<_> = names.collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "{text}");
    }
}
