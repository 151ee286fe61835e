//! Shards whose letters take their time: peers and a store as ever, and nobody who could foretell
//! what is answered.
//!
//! One seed in; what must hold whatever the delays is checked: each request has its reply, in
//! order and of the right kind, no job is with two workers, none that was accepted is lost, and
//! once all letters have arrived (`rest`) nothing lies beside a worker that sleeps. `power` is its
//! half about the store.
//!
//! Invariant: all choices come from `rng` and the mesh's own generator; a seed is a run.

mod grabs;
mod operators;
mod peers;
mod power;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use fastrand::Rng;
use ringgear::engine::dead::DeadBounds;
use ringgear::engine::function::{Durabilities, Durability};
use ringgear::engine::handle::Handles;
use ringgear::engine::policy::Policies;
use ringgear::engine::{self, ConnId, FunctionId, Now, Wakeup};
use ringgear::protocol::admin::Identity;
use ringgear::protocol::log_level::FixedLevel;
use ringgear::shard::{Intake, Origin, Service, Settings, Shard};
use ringgear::wire::Command as C;

use crate::mesh::Mesh;
use crate::peer::FUNCTIONS;
use crate::store::Store;
use crate::wire::Request;
use peers::Peer;

const CONNECTIONS_MAX: usize = 14;

/// What is known of a job from what was said about it.
#[derive(Debug, Default)]
struct Job {
    /// A client has heard that it was accepted.
    heard_of: bool,
    /// A background submission of it was accepted.
    kept: bool,
    holder: Option<ConnId>,
    ended: bool,
    /// By WORK_FAIL or WORK_EXCEPTION.
    failed: bool,
    /// It may have been cancelled, or its function's policy may let it go.
    excused: bool,
}

pub(crate) struct DelayedMessages {
    seed: u64,
    step: u64,
    rng: Rng,
    mesh: Mesh,
    settings: Settings,
    now: Now,
    peers: BTreeMap<ConnId, Peer>,
    jobs: BTreeMap<u64, Job>,
    /// Keeps jobs, unless the policy is to keep none.
    store: Store,
    durability: Durability,
    /// All policies that there have been, the latest last.
    policies: Vec<Arc<Policies>>,
    /// Most dead letters.
    dead_max: usize,
    /// How often operators have changed something.
    changes: u64,
    /// Whether there are more workers than work.
    calm: bool,
    /// Cores take the letters that are there before they read from a connection, as drivers do.
    prompt: bool,
    pub(crate) events: BTreeMap<&'static str, u64>,
}

impl Drop for DelayedMessages {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { seed, step, .. } = self;
            eprintln!("slow letters: failed at step {step}; replay with SIMULATION_SEED={seed}");
        }
    }
}

impl DelayedMessages {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(!seed);
        let now = Now { mono_ms: rng.u64(0..1 << 40), unix_ms: 1_700_000_000_000 };
        let durability = [Durability::None, Durability::Async, Durability::Fsync][rng.usize(0..3)];
        let wakeup = [Wakeup::Lease, Wakeup::Lease, Wakeup::Each(0), Wakeup::Each(2)];
        let policies = Arc::new(operators::policies(&mut rng));
        let dead_max = [usize::MAX, usize::MAX, 0, 2][rng.usize(0..4)];
        let settings = Settings {
            engine: engine::Settings {
                policies: Arc::clone(&policies),
                dead: DeadBounds::new(dead_max, usize::MAX, 1 << 40),
                lease_ms: [5, 100][rng.usize(0..2)],
                wakeup: wakeup[rng.usize(0..4)],
                first_sequence: rng.u64(1..1000),
                durabilities: Durabilities { default: durability, ..Durabilities::default() },
                ..engine::Settings::default()
            },
            handles: Handles::new(b"H:sim").unwrap(),
            identity: Identity { version: "sim", log_level: Arc::new(FixedLevel("ERROR")), pid: 1 },
            connections_max: CONNECTIONS_MAX,
            move_after: [0, 1, 2, 3][rng.usize(0..4)],
            ..Settings::default()
        };
        let mesh = Mesh::new(&settings, rng.usize(2..4), true, seed, now);
        let mesh = mesh.with_rings([0, 2, 10, usize::MAX][rng.usize(0..4)]);
        Self {
            seed,
            step: 0,
            rng,
            mesh,
            settings,
            now,
            peers: BTreeMap::new(),
            jobs: BTreeMap::new(),
            store: Store::default(),
            durability,
            policies: vec![policies],
            dead_max,
            changes: 0,
            calm: seed % 4 < 2,
            prompt: !seed.is_multiple_of(3),
            events: BTreeMap::new(),
        }
    }

    pub(crate) fn run(&mut self, steps: u64) {
        // Letters are anything from almost prompt to very slow.
        let letters = [1, 3, 10][self.rng.usize(0..3)];
        for step in 0..steps {
            self.step = step;
            match self.rng.u32(0..100) {
                0..5 if self.peers.len() + 1 < CONNECTIONS_MAX => {
                    self.connect();
                }
                0..5 => {}
                5..60 => self.act(),
                60..64 => self.pass_time(),
                64..66 => self.leave(),
                66 => self.half_close(),
                67..69 => self.stall(),
                69..80 => self.store_step(),
                80 if self.rng.bool() => self.check_rest(),
                81 if self.rng.u32(0..4) == 0 => self.flood(),
                82 if self.rng.u32(0..4) == 0 => self.crash(),
                83..87 => self.cross(),
                87..90 => self.operate(),
                _ => {}
            }
            for _ in 0..self.rng.u32(0..=letters) {
                self.carry();
            }
        }
        self.step = steps;
        self.drain();
        *self.events.entry("congested").or_default() += self.mesh.congestions;
    }

    fn count(&mut self, what: &'static str) {
        *self.events.entry(what).or_default() += 1;
    }

    fn connect(&mut self) -> ConnId {
        let mut numbers = (0..).map(ConnId::from_number);
        let number = numbers.find(|number| !self.peers.contains_key(number)).unwrap();
        let peer = (Ipv4Addr::LOCALHOST, 4001).into();
        let conn =
            self.mesh.connect(Origin { fd: 9, peer, listener: 0 }, number, self.now).unwrap();
        self.peers.insert(conn, Peer::default());
        conn
    }

    fn any_peer(&mut self) -> Option<ConnId> {
        let at = self.rng.usize(0..self.peers.len().max(1));
        self.peers.keys().nth(at).copied()
    }

    /// A letter arrives; `false` if there is none.
    fn carry(&mut self) -> bool {
        let carried = self.mesh.carry(self.now).is_some();
        self.pump();
        carried
    }

    /// What the shards have to say reaches peers and store.
    fn pump(&mut self) {
        let mut closing = BTreeSet::new();
        while let Some(conn) = self.mesh.next_dirty(self.now) {
            self.read(conn);
            if self.peers.contains_key(&conn) && self.mesh.intake(conn) == Intake::Close {
                closing.insert(conn);
            }
        }
        let mut operations = Vec::new();
        self.mesh.take_operations(&mut operations);
        self.store.queue.extend(operations);
        for conn in closing {
            if let Some(peer) = self.peers.get(&conn) {
                assert!(peer.ended, "{conn} is closed");
                assert!(!peer.is_owed(), "{conn} is closed before its replies: {peer:?}");
                self.disconnect(conn);
            }
        }
    }

    /// A peer reads all there is, unless it doesn't read.
    fn read(&mut self, conn: ConnId) {
        if self.peers[&conn].stalled {
            return;
        }
        let mut bytes = Vec::new();
        while let Some((chunk, _)) = self.mesh.take(conn) {
            bytes.extend_from_slice(chunk.as_ref());
            self.mesh.sent(conn, chunk, self.now);
        }
        for packet in crate::wire::read(&bytes) {
            self.hear(conn, packet);
        }
    }

    fn leave(&mut self) {
        if let Some(conn) = self.any_peer() {
            self.disconnect(conn);
        }
    }

    fn disconnect(&mut self, conn: ConnId) {
        self.release(conn, |_| true);
        let Some(peer) = self.peers.remove(&conn) else { return };
        let is_heard = matches!(self.mesh.intake(conn), Intake::Read | Intake::Direct);
        if !is_heard || !peer.out.is_empty() {
            // What it said of them may be lost with it, as while it moved; then they run again.
            for job in peer.finished {
                let job = self.jobs.entry(job).or_default();
                (job.ended, job.excused) = (false, true);
            }
        }
        self.mesh.disconnect(conn, self.now);
        self.pump();
    }

    /// The peer has said all that it has to say, and waits for its replies.
    fn half_close(&mut self) {
        if let Some(conn) = self.any_peer() {
            self.half_close_one(conn);
        }
    }

    /// A job comes for a worker that sleeps, which does something else meanwhile.
    fn cross(&mut self) {
        let sleeps = |(_, peer): &(&ConnId, &Peer)| peer.sleeps && !peer.ended;
        let Some((&worker, peer)) = self.peers.iter().find(sleeps) else { return };
        let at = self.rng.usize(0..peer.abilities.len().max(1));
        let Some(name) = peer.abilities.iter().nth(at).cloned() else { return };
        let Some(client) = self.any_peer() else { return };
        if client == worker || self.peers[&client].ended {
            return;
        }
        self.say(client, vec![Request::packet(C::SubmitJobBg, &[&name, b""], vec![])]);
        for _ in 0..self.rng.u32(0..4) {
            self.carry();
        }
        match self.rng.u32(0..3) {
            0 => self.half_close_one(worker),
            1 if !self.peers[&worker].is_owed() => {
                self.say(worker, vec![Request::plain(C::GrabJob)]);
            }
            _ => {}
        }
    }

    fn half_close_one(&mut self, conn: ConnId) {
        let peer = &self.peers[&conn];
        if peer.ended || !peer.out.is_empty() || peer.stalled {
            return;
        }
        self.count("half-closed");
        self.release(conn, |_| true);
        self.peers.get_mut(&conn).unwrap().ended = true;
        self.mesh.ended(conn, self.now);
        self.pump();
    }

    fn stall(&mut self) {
        let Some(conn) = self.any_peer() else { return };
        let stalled = &mut self.peers.get_mut(&conn).unwrap().stalled;
        *stalled = !*stalled;
        self.settle_peer(conn);
    }

    /// Reads, and says what had to wait.
    fn settle_peer(&mut self, conn: ConnId) {
        self.read(conn);
        self.pump();
        self.deliver(conn);
    }

    fn pass_time(&mut self) {
        let lease_ms = self.settings.engine.lease_ms;
        let ms = [1, lease_ms, lease_ms + 1, 1000][self.rng.usize(0..4)];
        self.tick(ms);
    }

    fn tick(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.unix_ms += ms;
        self.mesh.tick(self.now);
        self.pump();
    }

    /// Everything arrives that is on its way, wherever it goes.
    fn rest(&mut self) {
        loop {
            while self.carry() {}
            for conn in self.peers.keys().copied().collect::<Vec<_>>() {
                if let Some(peer) = self.peers.get_mut(&conn) {
                    peer.stalled = false;
                    self.read(conn);
                    self.pump();
                }
                if self.peers.contains_key(&conn) {
                    self.deliver(conn);
                }
            }
            self.sync();
            let says = self.peers.values().any(|peer| !peer.out.is_empty());
            if self.mesh.is_quiet() && self.store.is_quiet() && !says {
                return;
            }
        }
    }

    /// What holds when nothing is on its way.
    fn check_rest(&mut self) {
        self.count("rested");
        self.rest();
        self.mesh.check_invariants();
        for (conn, peer) in &self.peers {
            assert!(!peer.is_owed(), "{conn} waits for what never comes: {peer:?}");
            assert_ne!(self.mesh.intake(*conn), Intake::Pause, "{conn} is never listened to");
        }
        let letters = self.mesh.dead_numbers().len();
        assert!(letters <= self.dead_max, "{letters} dead letters are too many");
        assert!(self.mesh.shards().iter().all(Shard::is_flushed), "slots without a reply");
        for shard in self.mesh.shards() {
            assert_eq!(shard.remote_counts().1, 0, "questions without an answer");
            assert!(shard.remote_counts().0 <= self.peers.len(), "stand-ins of nobody");
        }
        self.check_image();
        self.check_leases();
        self.check_sleepers();
        if self.rng.bool()
            && let Some(conn) = self.any_peer()
        {
            self.check_grab(conn);
        }
    }

    /// Jobs beside a worker that sleeps are those of workers that were woken and haven't grabbed.
    fn check_leases(&self) {
        for (name, queued) in self.queued() {
            let able = || self.peers.values().filter(|peer| peer.can(&name) && !peer.ended);
            let woken = able().filter(|peer| peer.woken).count();
            assert!(
                woken >= queued as usize || !able().any(|peer| peer.sleeps),
                "{queued} jobs of {} lie beside a sleeper, {woken} were woken for them",
                name.escape_ascii()
            );
        }
    }

    /// Leases end one after the other; then no job lies beside a worker that sleeps.
    fn check_sleepers(&mut self) {
        for _ in 0..=self.peers.len() {
            self.tick(self.settings.engine.lease_ms + 1);
            self.rest();
        }
        for (name, queued) in self.queued() {
            let sleeps =
                |(_, peer): &(&ConnId, &Peer)| peer.sleeps && !peer.ended && peer.can(&name);
            let sleeper = self.peers.iter().find(sleeps);
            assert!(
                sleeper.is_none(),
                "{queued} jobs of {} lie beside {sleeper:?}",
                name.escape_ascii()
            );
        }
    }

    /// A worker gets a job exactly if there is one for it.
    fn check_grab(&mut self, conn: ConnId) {
        let peer = &self.peers[&conn];
        let has_job = self.queued().iter().any(|(name, _)| peer.can(name));
        let before = peer.jobs.len();
        if peer.ended {
            return;
        }
        self.say(conn, vec![Request::plain(C::GrabJob)]);
        self.rest();
        let got = self.peers[&conn].jobs.len() > before;
        assert_eq!(got, has_job, "{conn} and its job: {:?}", self.peers[&conn]);
    }

    /// Functions with jobs that wait for a worker.
    fn queued(&self) -> Vec<(Vec<u8>, u32)> {
        let shards = self.mesh.shards().iter();
        let functions =
            shards.flat_map(|shard| shard.engine().functions().iter_from(FunctionId::FIRST));
        let ready = functions.filter(|(_, function)| function.ready() > 0);
        ready.map(|(_, function)| (function.name.to_vec(), function.ready())).collect()
    }

    /// All jobs are done, all peers leave, and nothing is left behind.
    fn drain(&mut self) {
        self.check_rest();
        for conn in self.peers.keys().copied().collect::<Vec<_>>() {
            if self.rng.bool() && self.peers.contains_key(&conn) {
                self.disconnect(conn);
            }
        }
        for conn in self.peers.keys().copied().collect::<Vec<_>>() {
            let jobs: Vec<u64> = self.peers[&conn].jobs.keys().copied().collect();
            for number in jobs {
                self.finish(conn, number, C::WorkComplete);
            }
        }
        let worker = self.connect();
        let abilities = FUNCTIONS.map(|name| self.can_do(worker, name));
        self.say(worker, abilities.into());
        self.resume_all();
        self.rest();
        loop {
            self.check_grab(worker);
            let jobs: Vec<u64> = self.peers[&worker].jobs.keys().copied().collect();
            for &number in &jobs {
                self.finish(worker, number, C::WorkComplete);
            }
            if jobs.is_empty() && !self.pass_to_next_start() {
                break;
            }
        }
        self.drop_letters();
        self.check_rest();
        let left = self.mesh.rows();
        assert!(left.is_empty(), "jobs that nobody gets: {left:?}");
        for (number, job) in &self.jobs {
            assert!(!job.kept || job.ended || job.excused, "job {number} is lost: {job:?}");
        }
        for (conn, peer) in &self.peers {
            assert!(peer.waits.is_empty(), "{conn} is never told of {:?}", peer.waits);
        }
        for conn in self.peers.keys().copied().collect::<Vec<_>>() {
            self.disconnect(conn);
        }
        self.rest();
        self.mesh.check_empty();
        *self.events.entry("moved").or_default() += self.mesh.moved;
        assert!(self.store.image.is_empty(), "what has ended is forgotten");
    }
}
