//! The core that owns a function which all clients and workers of the other cores use: what one job
//! costs it.
//!
//! Eight shards, with the clients and workers at seven of them, on one thread in turns; the eighth
//! has a thread of its own, whose time alone is measured, from the messages in its rings to those
//! that it has put into the rings of the others. So what it reads another processor has written, as
//! in the server. Before each of its turns a part of all connections act, as the others run
//! meanwhile. Sockets and wake-ups are left out.
#![allow(clippy::expect_used, reason = "a bench that can't be set up has failed")]

mod common;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringgear::engine::ConnId;
use ringgear::io::memory::Allocator;
use ringgear::shard::cores::Cores;
use ringgear::shard::remote::message::Message;
use ringgear::shard::{Service, Settings, Shard};
use ringgear::wire::{Command, HEADER_BYTES, Magic, encode, header};
use rtrb::{Consumer, Producer, RingBuffer};

use common::{NOW, PAYLOAD, connect, packet};

/// The server's allocator, as most of what the owner frees came from other cores.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

const CORES: usize = 8;
const OWNER: usize = CORES - 1;
const CLIENTS: usize = 1024;
const WORKERS: usize = 256;
/// As many connections act between two turns of the owner as one in so many.
const TURN_PART: usize = 8;
/// Background jobs that may be queued.
const QUEUED_MAX: usize = 4096;
/// Messages that fit a ring, as in the server's mesh of so many cores.
const RING_MESSAGES: usize = 1024;

/// How clients submit.
#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    command: Command,
    /// Jobs that a client waits for at a time.
    in_flight: usize,
}

/// A connection of one of the other cores.
#[derive(Clone, Copy)]
struct Peer {
    home: usize,
    conn: ConnId,
    is_worker: bool,
}

/// What a peer does next.
struct Act {
    peer: Peer,
    bytes: Vec<u8>,
}

/// One core's ends of the two rings that connect it with another one.
struct Link {
    outgoing: Producer<Message>,
    incoming: Consumer<Message>,
}

impl Link {
    /// Both ends of a new pair of rings.
    fn pair() -> (Self, Self) {
        let (one_out, other_in) = RingBuffer::new(RING_MESSAGES);
        let (other_out, one_in) = RingBuffer::new(RING_MESSAGES);
        let end = |outgoing, incoming| Self { outgoing, incoming };
        (end(one_out, one_in), end(other_out, other_in))
    }
}

/// What the two threads tell each other.
#[derive(Default)]
struct Shared {
    /// Counts turns; the owner has the odd ones.
    turn: AtomicU64,
    /// What the owner's turns took, in nanoseconds.
    took_ns: AtomicU64,
    /// Messages that it has received.
    received: AtomicU64,
    /// Messages that it has sent.
    sent: AtomicU64,
    /// Jobs that it has.
    jobs: AtomicUsize,
}

impl Shared {
    /// Ends a turn of this side, and waits for the next one. Returns its number.
    fn pass_turn(&self, own: u64) -> u64 {
        self.turn.store(own + 1, Ordering::Release);
        self.await_turn(own + 2)
    }

    fn await_turn(&self, own: u64) -> u64 {
        let mut spins = 0_u32;
        loop {
            let turn = self.turn.load(Ordering::Acquire);
            if turn >= own {
                return turn;
            }
            spins += 1;
            if spins.is_multiple_of(1024) {
                std::thread::yield_now()
            } else {
                std::hint::spin_loop()
            }
        }
    }
}

/// The owner.
struct Owner {
    shard: Shard,
    links: Vec<Link>,
    messages: Vec<(usize, Message)>,
    shared: Arc<Shared>,
}

impl Owner {
    /// Runs until the other thread says that it is over.
    fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut turn = shared.await_turn(1);
        while turn != u64::MAX {
            let began = Instant::now();
            self.run_turn();
            let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(0);
            shared.took_ns.fetch_add(took, Ordering::Relaxed);
            shared.jobs.store(self.shard.engine().jobs().len(), Ordering::Relaxed);
            turn = shared.pass_turn(turn);
        }
    }

    fn run_turn(&mut self) {
        let mut received = 0;
        for (home, link) in self.links.iter_mut().enumerate() {
            while let Ok(message) = link.incoming.pop() {
                received += 1;
                self.shard.receive_message(home, message, NOW);
            }
        }
        assert!(self.shard.poll_dirty(NOW).is_none(), "it has no connections");
        self.shard.take_messages(&mut self.messages);
        self.shared.received.fetch_add(received, Ordering::Relaxed);
        self.shared.sent.fetch_add(self.messages.len() as u64, Ordering::Relaxed);
        for (home, message) in self.messages.drain(..) {
            self.links[home].outgoing.push(message).expect("there is room");
        }
    }
}

/// The other cores.
struct Homes {
    load: Load,
    shards: Vec<Shard>,
    links: Vec<Link>,
    messages: Vec<(usize, Message)>,
    /// By home and connection there.
    peers: Vec<Vec<Option<Peer>>>,
    /// What is to be done, the oldest first.
    acts: VecDeque<Act>,
    submission: Vec<u8>,
    grab: Vec<u8>,
    pre_sleep: Vec<u8>,
    done: u64,
    shared: Arc<Shared>,
    turn: u64,
    owner: Option<JoinHandle<()>>,
}

impl Homes {
    fn new(load: Load) -> Self {
        let shard = |own| {
            let cores = Cores { own, count: CORES };
            Shard::new(Settings { cores, ..Settings::default() }, NOW)
        };
        let cores = Cores { own: 0, count: CORES };
        let name = (0..).map(|n| format!("resize_{n}"));
        let function = { name }.find(|name| cores.owner_of(name.as_bytes()) == OWNER);
        let function = function.expect("some name is the last core's");
        let shared = Arc::<Shared>::default();
        let (links, owner_links) = (0..OWNER).map(|_| Link::pair()).unzip();
        let owner = Owner {
            shard: shard(OWNER),
            links: owner_links,
            messages: Vec::new(),
            shared: Arc::clone(&shared),
        };
        let mut homes = Self {
            load,
            shards: (0..OWNER).map(shard).collect(),
            links,
            messages: Vec::new(),
            peers: vec![Vec::new(); OWNER],
            acts: VecDeque::new(),
            submission: packet(load.command, &[function.as_bytes(), b""], &PAYLOAD),
            grab: packet(Command::GrabJob, &[], b""),
            pre_sleep: packet(Command::PreSleep, &[], b""),
            done: 0,
            shared,
            turn: 0,
            owner: Some(std::thread::spawn(|| owner.run())),
        };
        let can_do = packet(Command::CanDo, &[function.as_bytes()], b"");
        for number in 0..CLIENTS + WORKERS {
            let home = number % OWNER;
            let conn = connect(&mut homes.shards[home]);
            let peer = Peer { home, conn, is_worker: number % 5 == 0 };
            let at = conn.index();
            let peers = &mut homes.peers[home];
            peers.resize(peers.len().max(at + 1), None);
            peers[at] = Some(peer);
            if peer.is_worker {
                homes.acts.push_back(Act { peer, bytes: [&can_do[..], &homes.grab].concat() });
            } else {
                homes.acts.push_back(Act { peer, bytes: homes.submission.repeat(load.in_flight) });
            }
        }
        homes
    }

    /// The peers act, as far as it is their turn, and the others read what the owner has sent.
    fn run_turn(&mut self) {
        let share = self.acts.len().min((CLIENTS + WORKERS) / TURN_PART);
        for _ in 0..share {
            let Some(Act { peer, bytes }) = self.acts.pop_front() else { break };
            let is_full = !peer.is_worker
                && self.load.command == Command::SubmitJobBg
                && self.shared.jobs.load(Ordering::Relaxed) > QUEUED_MAX;
            if is_full {
                self.acts.push_back(Act { peer, bytes });
                continue;
            }
            self.shards[peer.home].received(peer.conn, &bytes, NOW);
        }
        for home in 0..OWNER {
            while let Ok(message) = self.links[home].incoming.pop() {
                self.shards[home].receive_message(OWNER, message, NOW);
            }
            while let Some(conn) = self.shards[home].poll_dirty(NOW) {
                self.read(home, conn);
            }
            let mut messages = std::mem::take(&mut self.messages);
            self.shards[home].take_messages(&mut messages);
            for (to, message) in messages.drain(..) {
                assert_eq!(to, OWNER, "nothing is for the others");
                self.links[home].outgoing.push(message).expect("there is room");
            }
            self.messages = messages;
        }
    }

    /// A peer reads what has come, and answers in its next turn.
    fn read(&mut self, home: usize, conn: ConnId) {
        let Some(peer) = self.peers[home][conn.index()] else { return };
        let mut bytes = Vec::new();
        while let Some((chunk, _)) = self.shards[home].take(conn) {
            self.answer(chunk.as_ref(), &mut bytes);
            self.shards[home].sent(conn, chunk, NOW);
        }
        if !bytes.is_empty() {
            self.acts.push_back(Act { peer, bytes });
        }
    }

    fn answer(&mut self, mut packets: &[u8], answer: &mut Vec<u8>) {
        while let Some(head) = packets.first_chunk::<HEADER_BYTES>() {
            let header = header(head).expect("a header");
            let end = HEADER_BYTES + header.body_bytes as usize;
            let body = &packets[HEADER_BYTES..end];
            match header.command {
                Command::JobCreated if self.load.command == Command::SubmitJobBg => {
                    answer.extend_from_slice(&self.submission);
                }
                Command::JobCreated => {}
                Command::WorkComplete => answer.extend_from_slice(&self.submission),
                Command::JobAssign => {
                    let handle = body.split(|&byte| byte == 0).next().unwrap_or_default();
                    encode(answer, Magic::Request, Command::WorkComplete, &[handle], &PAYLOAD);
                    answer.extend_from_slice(&self.grab);
                    self.done += 1;
                }
                Command::Noop => answer.extend_from_slice(&self.grab),
                Command::NoJob => answer.extend_from_slice(&self.pre_sleep),
                other => panic!("{other:?}"),
            }
            packets = &packets[end..];
        }
    }

    /// Runs so many jobs. Returns the time that the owner took.
    fn run(&mut self, jobs: u64) -> Duration {
        let end = self.done + jobs;
        let before = self.shared.took_ns.load(Ordering::Relaxed);
        while self.done < end {
            self.run_turn();
            self.turn = self.shared.pass_turn(self.turn);
        }
        Duration::from_nanos(self.shared.took_ns.load(Ordering::Relaxed) - before)
    }

    /// Messages that the owner has received and sent so far.
    fn messages(&self) -> [u64; 2] {
        let Shared { received, sent, .. } = &*self.shared;
        [received, sent].map(|count| count.load(Ordering::Relaxed))
    }
}

impl Drop for Homes {
    fn drop(&mut self) {
        self.shared.turn.store(u64::MAX, Ordering::Release);
        let ended = self.owner.take().map(JoinHandle::join);
        assert!(ended.is_none_or(|ended| ended.is_ok()), "the owner has failed");
    }
}

fn owner(criterion: &mut Criterion) {
    let loads = [
        Load { name: "foreground", command: Command::SubmitJob, in_flight: 1 },
        Load { name: "foreground, 16 in flight", command: Command::SubmitJob, in_flight: 16 },
        Load { name: "background", command: Command::SubmitJobBg, in_flight: 1 },
    ];
    let mut group = criterion.benchmark_group("owner");
    group.throughput(Throughput::Elements(1));
    for load in loads {
        let mut homes = Homes::new(load);
        homes.run(20_000);
        let (done, before) = (homes.done, homes.messages());
        homes.run(20_000);
        let jobs = (homes.done - done) as f64;
        let after = homes.messages();
        let per_job = |way: usize| (after[way] - before[way]) as f64 / jobs;
        let (name, received, sent) = (load.name, per_job(0), per_job(1));
        println!("{name}: {received:.2} messages in and {sent:.2} out a job");
        group.bench_function(load.name, |bencher| bencher.iter_custom(|jobs| homes.run(jobs)));
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(3));
    targets = owner
}
criterion_main!(benches);
