//! Whole shards without sockets: what a foreground job costs on one core, and what it costs more
//! when its client, its function and its worker are on different cores.
//!
//! The cores are shards of one thread here, so this is the work that messages make (finding the
//! owner, writing, handling), and neither rings nor wake-ups.
#![allow(clippy::expect_used, reason = "a bench that can't be set up has failed")]

mod common;

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringgear::engine::ConnId;
use ringgear::shard::cores::Cores;
use ringgear::shard::remote::message::Message;
use ringgear::shard::{Service, Settings, Shard};
use ringgear::wire::{Command, Magic, encode};

use common::{NOW, connect, packet};

const CORES: usize = 3;

/// Shards, and messages that are being moved between them; empty otherwise.
struct Cluster {
    shards: Vec<Shard>,
    messages: Vec<(usize, Message)>,
    moved: u64,
    received: Vec<u8>,
}

impl Cluster {
    fn new(count: usize) -> Self {
        let shard = |own| {
            let cores = Cores { own, count };
            Shard::new(Settings { cores, ..Settings::default() }, NOW)
        };
        let shards = (0..count).map(shard).collect();
        Self { shards, messages: Vec::new(), moved: 0, received: Vec::new() }
    }

    fn connect(&mut self, core: usize) -> (usize, ConnId) {
        (core, connect(&mut self.shards[core]))
    }

    /// Bytes come in, messages travel until none is left, and replies leave.
    fn say(&mut self, (core, conn): (usize, ConnId), bytes: &[u8]) {
        self.shards[core].received(conn, bytes, NOW);
        loop {
            let mut quiet = true;
            for from in 0..self.shards.len() {
                while self.shards[from].poll_dirty(NOW).is_some() {}
                let mut messages = std::mem::take(&mut self.messages);
                self.shards[from].take_messages(&mut messages);
                quiet &= messages.is_empty();
                self.moved += messages.len() as u64;
                for (to, message) in messages.drain(..) {
                    self.shards[to].receive_message(from, message, NOW);
                }
                self.messages = messages;
            }
            if quiet {
                return;
            }
        }
    }

    /// Everything that waits for a connection leaves; it is in `received` then.
    fn hear(&mut self, (core, conn): (usize, ConnId)) {
        self.received.clear();
        while let Some((chunk, _)) = self.shards[core].take(conn) {
            self.received.extend_from_slice(chunk.as_ref());
            self.shards[core].sent(conn, chunk, NOW);
        }
    }
}

/// A cycle of one foreground job; prints the messages it took.
fn bench(criterion: &mut Criterion, name: &str, count: usize, client: usize, worker: usize) {
    // The function belongs to the last core.
    let cores = Cores { own: 0, count };
    let function = (0..).map(|n| format!("resize_{n}"));
    let function = { function }.find(|name| cores.owner_of(name.as_bytes()) == count - 1);
    let function = function.expect("some name is the last core's");
    let mut cluster = Cluster::new(count);
    let (client, worker) = (cluster.connect(client), cluster.connect(worker));
    cluster.say(worker, &packet(Command::CanDo, &[function.as_bytes()], b""));
    let submit = packet(Command::SubmitJob, &[function.as_bytes(), b""], &[b'x'; 64]);
    let grab = packet(Command::GrabJob, &[], b"");
    let mut complete = Vec::new();
    let mut cycle = |cluster: &mut Cluster| {
        cluster.say(client, &submit);
        cluster.say(worker, &grab);
        cluster.hear(worker);
        let body = cluster.received.get(12..).unwrap_or_default();
        let handle = body.split(|&byte| byte == 0).next().unwrap_or_default();
        complete.clear();
        encode(&mut complete, Magic::Request, Command::WorkComplete, &[handle], &[b'r'; 64]);
        cluster.say(worker, &complete);
        cluster.hear(client);
        assert!(cluster.received.ends_with(b"r"), "the client has its result");
    };
    (0..100).for_each(|_| cycle(&mut cluster));
    let before = cluster.moved;
    cycle(&mut cluster);
    println!("{name}: {} messages a job", cluster.moved - before);
    let mut group = criterion.benchmark_group("job");
    group.throughput(Throughput::Elements(1));
    group.bench_function(name, |bencher| bencher.iter(|| cycle(&mut cluster)));
    group.finish();
}

fn messages(criterion: &mut Criterion) {
    bench(criterion, "one core", 1, 0, 0);
    bench(criterion, "everything at the owner, of three", CORES, 2, 2);
    bench(criterion, "client elsewhere", CORES, 0, 2);
    bench(criterion, "worker elsewhere", CORES, 2, 1);
    bench(criterion, "client and worker elsewhere", CORES, 0, 1);
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(3));
    targets = messages
}
criterion_main!(benches);
