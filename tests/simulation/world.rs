//! The world around one shard: a driver, peers that do as they like, and a clock, all from one
//! seed.
//!
//! Every step is one thing that may happen on a real server; after every call of the shard what it
//! sent goes to `model`. The driver takes chunks at once, as an asynchronous one does, and
//! reports them as sent when their reader has read them, which may be never.
//!
//! Invariant: all choices come from `rng`; the same seed gives the same bytes.

mod calls;
mod drain;
mod operate;
mod pause;
mod power;

use std::collections::{BTreeMap, VecDeque};
use std::hash::DefaultHasher;
use std::net::Ipv4Addr;
use std::sync::Arc;

use fastrand::Rng;
use ringgear::engine::dead::DeadBounds;
use ringgear::engine::handle::Handles;
use ringgear::engine::{self, ConnId, Now, Wakeup};
use ringgear::protocol::admin::Identity;
use ringgear::protocol::log_level::FixedLevel;
use ringgear::shard::cores::Cores;
use ringgear::shard::{Intake, Origin, Settings};
use ringgear::wire::outbox::Chunk;

use crate::ledger::Ledger;
use crate::mesh::Mesh;
use crate::model::{Model, Place, Rules};
use crate::policies;
use crate::store::Store;
use crate::tls;
use crate::wire::Request;

/// Lines of the trace that a failure shows.
const TRACE_LINES: usize = 60;
/// Connections that may be there at once, one of them for the drain.
const CONNECTIONS_MAX: usize = 24;
/// A connection with no more than this unsent is never closed because memory is short.
const MUCH_UNREAD_BYTES: usize = 1 << 20;
/// With no more than this unsent, lists and ends don't wait.
const CERTAINLY_READ_BYTES: usize = 512 << 10;
/// With no more replies to come than these, neither.
const CERTAINLY_READ_REPLIES: usize = 512;
/// No connection waits for more replies.
const REPLIES_MAX: usize = 1024;
/// With no more than this unsent, a connection that has said all comes to its end.
const ENDING_BYTES: usize = 1 << 20;

struct Conn {
    /// What the peer has decided to send, and where in `bytes_out` each request ends.
    requests: VecDeque<(u64, Request)>,
    bytes_out: Vec<u8>,
    delivered: usize,
    /// Position of `bytes_out[0]` in the connection's stream.
    base: u64,
    unsent: VecDeque<Chunk>,
    unsent_bytes: usize,
    /// What waits for replies to come.
    ledger: Ledger,
    waiting_bytes: usize,
    stalled: bool,
    lent: Option<(Vec<u8>, usize)>,
    ended: bool,
    malformed: bool,
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) mesh: Mesh,
    pub(crate) model: Model,
    settings: Settings,
    conns: BTreeMap<ConnId, Conn>,
    now: Now,
    pub(crate) hasher: DefaultHasher,
    trace: Trace,
    seen: Seen,
    store: Option<Store>,
    /// The one connection that may wait for so many replies that its requests have to wait.
    flooding: Option<ConnId>,
    /// `Shard::memory_bytes` after the last call.
    memory_bytes: usize,
    /// Bytes of jobs that came back and weren't asked whether there is room for them.
    restored_bytes: usize,
    /// Connections whose intake may have changed since the driver looked.
    closing: Vec<ConnId>,
    /// Whether there are more workers than work.
    calm: bool,
}

/// What the shard has handled so far.
#[derive(Clone, Copy, Default)]
struct Seen {
    frames: u64,
    malformed: u64,
}

/// Shows what led to a failure.
struct Trace {
    seed: u64,
    step: u64,
    lines: VecDeque<String>,
}

impl Trace {
    fn add(&mut self, line: String) {
        if self.lines.len() == TRACE_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(format!("{:5} {line}", self.step));
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines: Vec<&str> = self.lines.iter().map(String::as_str).collect();
            eprintln!(
                "\n{}\nfailed at step {}; replay with SIMULATION_SEED={}",
                lines.join("\n"),
                self.step,
                self.seed
            );
        }
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let unix_ms = 1_700_000_000_000 + rng.u64(0..1000);
        let now = Now { mono_ms: rng.u64(0..1 << 40), unix_ms };
        let mut settings = settings(&mut rng, seed % 2 == 1);
        let calm = rng.bool();
        let store = (seed % 2 == 1).then(Store::default);
        if store.is_some() {
            settings.engine.durabilities = power::durabilities(&mut rng);
        }
        if seed % SEEDS_PER_TLS == TLS_SEED {
            settings = tls::settings(settings);
        }
        let mesh = Mesh::new(&settings, cores(seed), false, seed, now);
        let trace = Trace { seed, step: 0, lines: VecDeque::new() };
        let mut world = Self {
            model: Model::new(rules(&settings, mesh.cores()), settings.engine.first_sequence, now),
            mesh,
            settings,
            rng,
            conns: BTreeMap::new(),
            now,
            hasher: DefaultHasher::new(),
            trace,
            seen: Seen::default(),
            store,
            flooding: None,
            memory_bytes: 0,
            restored_bytes: 0,
            closing: Vec::new(),
            calm,
        };
        world.note(|world| format!("{:?}", world.settings));
        world
    }

    /// Lets one thing happen.
    pub(crate) fn step(&mut self, step: u64) {
        self.trace.step = step;
        match self.rng.u32(0..100) {
            0..6 => self.connect(),
            6..64 => self.speak(),
            64..74 => self.deliver_some(),
            74..78 => self.stall(),
            78 if self.rng.u32(0..8) == 0 => self.gorge(),
            78..86 => self.read_all(),
            86..95 => self.pass_time(),
            95 => self.pause(),
            96..99 => self.leave(),
            _ => self.half_close(),
        }
        if self.rng.u32(0..12) == 0 {
            self.operate();
        }
        if self.store.is_some() {
            self.store_step();
        }
        if self.rng.u32(0..8) == 0 {
            self.mesh.check_invariants();
        }
    }

    fn note(&mut self, line: impl FnOnce(&Self) -> String) {
        let line = line(self);
        self.trace.add(line);
    }

    fn connect(&mut self) {
        if self.conns.len() + 1 < CONNECTIONS_MAX {
            self.connect_one();
        }
    }

    fn connect_one(&mut self) -> Option<ConnId> {
        let mut numbers = (0..).map(ConnId::from_number);
        let number = numbers.find(|number| !self.conns.contains_key(number)).unwrap();
        let fd = (1000..).find(|&fd| !self.model.peers.values().any(|peer| peer.fd == fd));
        let peer = (Ipv4Addr::new(10, 0, 0, 1), 4001).into();
        // Half of the peers, where there is TLS.
        let speaks_tls = self.settings.tls.is_some() && fd.is_some_and(|fd| fd % 2 == 1);
        let listener = if speaks_tls { tls::LISTENER } else { 0 };
        let origin = Origin { fd: fd.unwrap(), peer, listener };
        let Ok(conn) = self.mesh.connect(origin, number, self.now) else {
            assert_eq!(self.conns.len(), self.settings.connections_max);
            return None;
        };
        self.note(|_| format!("connect {conn}"));
        self.conns.insert(
            conn,
            Conn {
                requests: VecDeque::new(),
                bytes_out: Vec::new(),
                delivered: 0,
                base: 0,
                unsent: VecDeque::new(),
                unsent_bytes: 0,
                ledger: Ledger::default(),
                waiting_bytes: 0,
                stalled: false,
                lent: None,
                ended: false,
                malformed: false,
            },
        );
        // The shard's numbers need not be the lowest ones, and `workers` shows the descriptor.
        self.model.connect(conn, origin.fd);
        Some(conn)
    }

    /// A peer says something, of which some arrives at once.
    fn speak(&mut self) {
        let Some(conn) = self.any_conn() else { return self.connect() };
        if !self.can_speak(conn) {
            return;
        }
        for _ in 0..*self.choose(&[1, 1, 1, 2, 5]) {
            self.ask_something(conn);
        }
        let whole = self.rng.u32(0..4) > 0;
        let bytes = if whole { usize::MAX } else { self.rng.usize(1..200) };
        self.deliver(conn, bytes);
    }

    fn ask_something(&mut self, conn: ConnId) {
        let request = crate::peer::request(&mut self.rng, &self.model, conn, self.calm);
        // Behind more a list waits, and nobody knows when it is written.
        let peer = &self.conns[&conn];
        let unread = peer.unsent_bytes + peer.waiting_bytes + peer.bytes_out.len();
        if unread < CERTAINLY_READ_BYTES || !matches!(request, Request::Line(_)) {
            self.queue(conn, request);
        }
    }

    fn queue(&mut self, conn: ConnId, request: Request) {
        self.note(|_| format!("{conn} says {request}"));
        self.queue_quietly(conn, request);
    }

    fn queue_quietly(&mut self, conn: ConnId, request: Request) {
        let peer = self.conns.get_mut(&conn).unwrap();
        peer.bytes_out.extend_from_slice(&request.bytes());
        peer.requests.push_back((peer.base + peer.bytes_out.len() as u64, request));
    }

    /// Says one thing, all of which arrives and is handled.
    fn say(&mut self, conn: ConnId, request: Request) {
        if !self.conns.contains_key(&conn) || self.conns[&conn].ended {
            return;
        }
        self.queue(conn, request);
        self.deliver(conn, usize::MAX);
        self.read_all();
        if self.conns.contains_key(&conn) {
            self.deliver(conn, usize::MAX);
        }
    }

    fn deliver_some(&mut self) {
        let Some(conn) = self.any_conn() else { return };
        let bytes = *self.choose(&[1, 7, 13, 100, 10_000, 100_000]);
        self.deliver(conn, bytes);
    }

    /// Up to `left` bytes of what a peer has said arrive, in pieces of any size.
    fn deliver(&mut self, conn: ConnId, mut left: usize) {
        while let Some(peer) = self.conns.get_mut(&conn) {
            let available = peer.bytes_out.len() - peer.delivered;
            if let Some((mut body, room_bytes)) = peer.lent.take() {
                let room = room_bytes.min(available).min(left);
                body.extend_from_slice(&peer.bytes_out[peer.delivered..peer.delivered + room]);
                peer.delivered += room;
                left -= room;
                self.note(|_| format!("{conn} gives {room} bytes back"));
                self.call(Some(conn), |mesh, now| mesh.give_back(conn, body, now));
                self.flush();
                continue;
            }
            if available == 0 || left == 0 || peer.ended {
                return;
            }
            match self.mesh.intake(conn) {
                Intake::Pause | Intake::Move | Intake::Close => return,
                Intake::Direct if self.rng.bool() => {
                    let body = self.mesh.lend(conn);
                    assert!(body.is_some(), "`Direct` means that there is something to lend");
                    self.conns.get_mut(&conn).unwrap().lent = body;
                    if self.rng.u32(0..4) == 0 {
                        return;
                    }
                }
                Intake::Direct | Intake::Read => {
                    let most = available.min(left);
                    let bytes = match self.rng.u32(0..8) {
                        0 => self.rng.usize(1..=most.min(30)),
                        1 => self.rng.usize(1..=most),
                        _ => most,
                    };
                    let bytes = bytes.min(self.one_request(conn));
                    left -= bytes;
                    let peer = self.conns.get_mut(&conn).unwrap();
                    let piece = peer.bytes_out[peer.delivered..peer.delivered + bytes].to_vec();
                    peer.delivered += bytes;
                    self.call(Some(conn), |mesh, now| mesh.received(conn, &piece, now));
                    self.flush();
                }
            }
        }
    }

    /// With sleep among what a peer says, no more than one request arrives at once: a NOOP doesn't
    /// say which of several it was for, nor does the refusal of a large body. With several cores
    /// what a request does elsewhere comes after the next one here, so each comes alone.
    fn one_request(&self, conn: ConnId) -> usize {
        let peer = &self.conns[&conn];
        let several = self.mesh.cores().count > 1;
        let delicate = |request: &Request| match request {
            Request::Packet { command, payload, .. } => {
                *command == ringgear::wire::Command::PreSleep || payload.len() > 8000
            }
            _ => false,
        };
        let arrived = peer.base + peer.delivered as u64;
        let ends = || peer.requests.iter().filter(|(end, _)| *end > arrived);
        let careful = several
            || self.model.peers[&conn].asleep
            || ends().any(|(_, request)| delicate(request));
        let end = ends().next().filter(|_| careful).map(|(end, _)| end - arrived);
        end.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(usize::MAX)
    }

    fn stall(&mut self) {
        if let Some(conn) = self.any_conn() {
            self.stall_one(conn);
        }
    }

    fn stall_one(&mut self, conn: ConnId) {
        self.note(|_| format!("{conn} stops reading"));
        self.conns.get_mut(&conn).unwrap().stalled = true;
    }

    /// A peer asks for more than it may have waiting, and reads none of it for now.
    fn gorge(&mut self) {
        let Some(conn) = self.any_conn() else { return };
        self.stall_one(conn);
        for _ in 0..self.rng.u32(1..8) {
            if !self.can_speak(conn) {
                return;
            }
            let payload = vec![b'e'; 400_000];
            self.queue(conn, Request::packet(ringgear::wire::Command::EchoReq, &[], payload));
            self.ask_something(conn);
            self.deliver(conn, usize::MAX);
        }
    }

    fn can_speak(&self, conn: ConnId) -> bool {
        self.conns.get(&conn).is_some_and(|peer| !peer.ended && !peer.malformed)
    }

    /// Some peers that had stopped reading go on; in the end, all of them.
    fn read_all(&mut self) {
        for conn in self.conns.keys().copied().collect::<Vec<_>>() {
            self.conns.get_mut(&conn).unwrap().stalled = false;
        }
        self.flush();
    }

    fn pass_time(&mut self) {
        let ms = match self.rng.u32(0..20) {
            0..8 => self.rng.u64(0..40),
            8..13 => self.settings.engine.lease_ms,
            13..18 => self.rng.u64(100..3000),
            18 => self.rng.u64(3000..60_000),
            _ => self.rng.u64(60_000..4_000_000),
        };
        self.advance_to(self.now.mono_ms + ms);
    }

    /// Lets time pass deadline by deadline. Looks at the wall clock, of which there is one a second
    /// for hours, are left out where nothing else may be due.
    fn advance_to(&mut self, target_ms: u64) {
        self.note(|world| format!("{} ms pass", target_ms - world.now.mono_ms));
        loop {
            let next_ms = self.mesh.deadline_ms();
            let due_ms = self.model.deadline_ms();
            if let Some(due_ms) = due_ms {
                let next_ms = next_ms.unwrap_or(u64::MAX);
                assert!(
                    next_ms <= due_ms.max(self.now.mono_ms),
                    "a job is due at {due_ms} and the shard sleeps until {next_ms}"
                );
            }
            let Some(next_ms) = next_ms.filter(|&next_ms| next_ms <= target_ms) else { break };
            let free_until_ms =
                if self.model.has_leases() { 0 } else { due_ms.unwrap_or(u64::MAX) };
            self.tick(next_ms.max(free_until_ms.min(target_ms)));
        }
        self.tick(target_ms);
    }

    fn tick(&mut self, at_ms: u64) {
        let passed_ms = at_ms.saturating_sub(self.now.mono_ms);
        self.now.mono_ms += passed_ms;
        self.now.unix_ms += passed_ms;
        self.call(None, |mesh, now| mesh.tick(now));
        self.flush();
    }

    fn leave(&mut self) {
        if let Some(conn) = self.any_conn() {
            self.disconnect(conn);
            self.flush();
        }
    }

    fn half_close(&mut self) {
        let Some(conn) = self.any_conn() else { return };
        let peer = self.conns.get_mut(&conn).unwrap();
        let read = peer.unsent_bytes + peer.waiting_bytes < CERTAINLY_READ_BYTES
            && self.model.open_replies(conn) < CERTAINLY_READ_REPLIES
            && self.flooding.is_none();
        let silent =
            peer.requests.front().is_none_or(|(end, _)| *end > peer.base + peer.delivered as u64);
        if !read || !silent || peer.ended || peer.malformed || peer.lent.is_some() {
            return;
        }
        peer.ended = true;
        self.note(|_| format!("{conn} half-closes"));
        self.call(Some(conn), |mesh, now| mesh.ended(conn, now));
        self.flush();
    }

    fn disconnect(&mut self, conn: ConnId) {
        self.note(|_| format!("{conn} goes"));
        self.conns.remove(&conn);
        self.flooding = self.flooding.filter(|&other| other != conn);
        self.mesh.disconnect(conn, self.now);
        let (_, others) = self.collect(Some(conn));
        self.model.disconnect(conn);
        self.settle(others);
    }

    /// Peers read what has been sent to them; those who are to be closed are.
    fn flush(&mut self) {
        loop {
            while let Some(conn) = self.closing.pop() {
                if self.conns.contains_key(&conn) {
                    self.disconnect(conn);
                }
            }
            let mut readers = self.conns.iter().filter(|(_, peer)| !peer.stalled);
            let Some((&conn, _)) = readers.find(|(_, peer)| !peer.unsent.is_empty()) else {
                return;
            };
            let peer = self.conns.get_mut(&conn).unwrap();
            let chunk = peer.unsent.pop_front().unwrap();
            peer.unsent_bytes -= chunk.as_ref().len();
            self.call(Some(conn), |mesh, now| mesh.sent(conn, chunk, now));
        }
    }

    fn running(&self, conn: ConnId) -> Vec<Vec<u8>> {
        let jobs = self.model.jobs.iter().filter(
            |(_, job)| matches!(job.place, Place::Running { conn: worker, .. } if worker == conn),
        );
        jobs.map(|(&number, _)| crate::model::handle(number)).collect()
    }

    fn any_conn(&mut self) -> Option<ConnId> {
        let count = self.conns.len();
        (count > 0).then(|| *self.conns.keys().nth(self.rng.usize(0..count)).unwrap())
    }

    fn choose<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.rng.usize(0..from.len())]
    }
}

/// One of so many seeds has peers with TLS, on each number of cores, with a store and without.
const SEEDS_PER_TLS: u64 = 9;
const TLS_SEED: u64 = 4;

/// Half of the seeds have one core.
fn cores(seed: u64) -> usize {
    [1, 1, 2, 2, 1, 1, 3, 3][usize::try_from(seed % 8).unwrap()]
}

fn rules(settings: &Settings, cores: Cores) -> Rules {
    Rules {
        cores,
        lease_ms: settings.engine.lease_ms,
        wakeup: settings.engine.wakeup,
        attempts_max: settings.engine.attempts_max,
        body_bytes_max: settings.body_bytes_max,
        memory_bytes_max: settings.memory_bytes_max,
        exceptions: settings.exceptions,
        durabilities: settings.engine.durabilities.clone(),
        policies: Arc::clone(&settings.engine.policies),
        dead_max: settings.engine.dead.count_max,
        dead_keep_ms: settings.engine.dead.keep_ms,
    }
}

fn settings(rng: &mut Rng, has_store: bool) -> Settings {
    let wakeup = match rng.u32(0..8) {
        0 => Wakeup::Each(0),
        1 => Wakeup::Each(1),
        2 => Wakeup::Each(3),
        _ => Wakeup::Lease,
    };
    let attempts_max = [None, None, Some(0), Some(1), Some(2), Some(5)][rng.usize(0..6)];
    let tight = rng.u32(0..4) == 0;
    let dead_max = [1000, 0, 1, 4][rng.usize(0..4)];
    let dead_keep_ms = [1 << 40, 10_000, 100_000][rng.usize(0..3)];
    Settings {
        engine: engine::Settings {
            lease_ms: [100, 1, 5000][rng.usize(0..3)],
            wakeup,
            attempts_max,
            hash_seed: rng.u64(..),
            first_sequence: rng.u64(1..1000),
            policies: Arc::new(policies::any(rng, has_store)),
            dead: DeadBounds::new(dead_max, usize::MAX, dead_keep_ms),
            ..engine::Settings::default()
        },
        handles: Handles::new(b"H:sim").unwrap(),
        identity: Identity { version: "sim", log_level: Arc::new(FixedLevel("ERROR")), pid: 1 },
        exceptions: rng.u32(0..4) == 0,
        body_bytes_max: if rng.u32(0..4) == 0 { 50_000 } else { 1 << 30 },
        memory_bytes_max: if tight { rng.usize(60_000..300_000) } else { 1 << 30 },
        outbox_bytes_max: [100_000, 3 << 20, 1 << 30][rng.usize(0..3)],
        connections_max: CONNECTIONS_MAX,
        move_after: [0, 1, 2, 3][rng.usize(0..4)],
        ..Settings::default()
    }
}
