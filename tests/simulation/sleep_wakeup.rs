//! Worlds of one to three workers and few jobs on two or three cores, in which each wake-up counts.
//!
//! Workers do as workers do: woken, they grab; without a job, they sleep. Now and then one grabs in
//! its sleep, sleeps when woken, says what it can do, or goes. Letters take their time. At `rest`
//! all of them have arrived and all who were woken have grabbed, and no timer has run since: what
//! a lease would mend later is seen.
//!
//! Invariant: all choices come from `rng` and the mesh's own generator; a seed is a run.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use fastrand::Rng;
use ringgear::engine::handle::Handles;
use ringgear::engine::{self, ConnId, FunctionId, Now};
use ringgear::protocol::admin::Identity;
use ringgear::protocol::log_level::FixedLevel;
use ringgear::shard::{Origin, Service, Settings, Shard};
use ringgear::wire::Command as C;

use crate::mesh::Mesh;
use crate::wire::{Packet, Request};

const LEASE_MS: u64 = 100;
const STEPS: u32 = 60;
/// Functions of each core.
const FUNCTIONS_OF_CORE: usize = 2;
/// Letters that a world of this size has on its way at most.
const LETTERS_MAX: u32 = 1000;

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// It has nothing to do, and will grab or sleep.
    Awake,
    /// It has grabbed.
    Waiting,
    Asleep,
    /// It was woken and hasn't grabbed since.
    Woken,
    /// It has a job of a function.
    Busy {
        handle: Vec<u8>,
        function: Vec<u8>,
    },
}

struct Worker {
    conn: ConnId,
    able: BTreeSet<Vec<u8>>,
    state: State,
    /// Wake-ups that it may still get.
    sleeps: u32,
    /// It grabs because it was woken.
    follows: bool,
}

impl Worker {
    fn new(conn: ConnId) -> Self {
        Self { conn, able: BTreeSet::new(), state: State::Awake, sleeps: 0, follows: false }
    }
}

pub(crate) struct SleepWakeup {
    seed: u64,
    rng: Rng,
    mesh: Mesh,
    now: Now,
    client: ConnId,
    workers: Vec<Worker>,
    functions: Vec<Vec<u8>>,
    /// Number of the next connection.
    next: ConnId,
    /// Whether leases run out meanwhile.
    timers: bool,
    story: Vec<String>,
    /// Wake-ups, and those of them after which there was no job.
    pub(crate) woken: u64,
    pub(crate) in_vain: u64,
}

impl Drop for SleepWakeup {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (seed, story) = (self.seed, self.story.join("\n"));
            eprintln!("\n{story}\nnaps: replay with SIMULATION_SEED={seed}");
        }
    }
}

impl SleepWakeup {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0x6e61_7073);
        let now = Now { mono_ms: 5000, unix_ms: 1_700_000_000_000 };
        let settings = Settings {
            engine: engine::Settings { lease_ms: LEASE_MS, ..engine::Settings::default() },
            handles: Handles::new(b"H:sim").unwrap(),
            identity: Identity { version: "sim", log_level: Arc::new(FixedLevel("ERROR")), pid: 1 },
            ..Settings::default()
        };
        let mesh = Mesh::new(&settings, 2 + usize::from(rng.u32(0..3) == 0), true, seed, now);
        let cores = mesh.cores();
        let functions = (0..cores.count).flat_map(|core| {
            let names = (0..).map(|at| format!("f{at}").into_bytes());
            names.filter(move |name| cores.owner_of(name) == core).take(FUNCTIONS_OF_CORE)
        });
        let timers = rng.u32(0..4) == 0;
        let mut world = Self {
            seed,
            mesh,
            now,
            client: ConnId::FIRST,
            workers: Vec::new(),
            functions: functions.collect(),
            next: ConnId::FIRST,
            timers,
            story: Vec::new(),
            woken: 0,
            in_vain: 0,
            rng,
        };
        world.client = world.connect();
        for _ in 0..world.rng.u32(1..4) {
            let conn = world.connect();
            world.workers.push(Worker::new(conn));
            world.offer_some(world.workers.len() - 1);
        }
        world
    }

    pub(crate) fn run(&mut self) {
        let letters = [0, 1, 4][self.rng.usize(0..3)];
        for _ in 0..STEPS {
            let worker = self.rng.usize(0..self.workers.len());
            match self.rng.u32(0..100) {
                0..15 => self.submit(),
                15..60 => self.work(worker),
                60..64 => self.change_abilities(worker),
                64 => self.replace(worker),
                65 if self.timers => self.tick(),
                66..70 => self.rest(),
                _ => {
                    self.carry();
                }
            }
            for _ in 0..self.rng.u32(0..=letters) {
                self.carry();
            }
        }
        self.rest();
        self.leave();
    }

    fn note(&mut self, line: impl Into<String>) {
        self.story.push(line.into());
    }

    fn connect(&mut self) -> ConnId {
        let origin = Origin { fd: 9, peer: (Ipv4Addr::LOCALHOST, 4001).into(), listener: 0 };
        let conn = self.mesh.connect(origin, self.next, self.now).unwrap();
        self.note(format!("{conn} comes"));
        self.next = self.next.next();
        conn
    }

    /// An oldest letter arrives; `false` if there is none.
    fn carry(&mut self) -> bool {
        let Some(((from, to), letter)) = self.mesh.any_mail() else { return false };
        self.note(format!("  from core {from} to {to}: {letter}"));
        self.mesh.carry_one((from, to), self.now);
        self.pump();
        true
    }

    /// A connection that is to move may go; `false` if there is none.
    fn hands_over(&mut self) -> bool {
        let is_to = !self.mesh.is_quiet();
        self.pump();
        is_to
    }

    /// Everybody reads all there is.
    fn pump(&mut self) {
        while let Some(conn) = self.mesh.next_dirty(self.now) {
            let mut bytes = Vec::new();
            while let Some((chunk, _)) = self.mesh.take(conn) {
                bytes.extend_from_slice(chunk.as_ref());
                self.mesh.sent(conn, chunk, self.now);
            }
            for packet in crate::wire::read(&bytes) {
                self.note(format!("{conn} gets {packet:?}"));
                if let Some(at) = self.workers.iter().position(|worker| worker.conn == conn) {
                    self.hear(at, &packet);
                }
            }
        }
    }

    fn hear(&mut self, at: usize, packet: &Packet) {
        let worker = &mut self.workers[at];
        let conn = worker.conn;
        let Packet::Binary { command, body } = packet else { panic!("{packet:?} isn't asked for") };
        match (command, &worker.state) {
            (C::Noop, state) => {
                assert!(worker.sleeps > 0, "{conn} is woken more often than it slept");
                worker.sleeps -= 1;
                self.woken += 1;
                // It may have waited behind a reply, and the worker not for it.
                if *state == State::Asleep {
                    worker.state = State::Woken;
                }
            }
            (C::NoJob, State::Waiting) => {
                self.in_vain += u64::from(worker.follows);
                worker.state = State::Awake;
            }
            (C::JobAssign, State::Waiting) => {
                let mut parts = body.split(|&byte| byte == 0).map(<[u8]>::to_vec);
                let (handle, function) = (parts.next().unwrap(), parts.next().unwrap());
                assert!(worker.able.contains(&function), "{conn} can't run {packet:?}");
                worker.state = State::Busy { handle, function };
            }
            // Its job is another's by now.
            (C::Error, _) => {}
            (_, state) => panic!("{conn} gets {packet:?} while {state:?}"),
        }
    }

    fn say(&mut self, conn: ConnId, request: &Request) {
        self.note(format!("{conn} says {request}"));
        self.mesh.received(conn, &request.bytes(), self.now);
        self.pump();
    }

    fn any_function(&mut self) -> Vec<u8> {
        let at = self.rng.usize(0..self.functions.len());
        self.functions[at].clone()
    }

    fn submit(&mut self) {
        // Mostly something that somebody can run.
        let name = match self.rng.u32(0..4) {
            0 => self.any_function(),
            _ => {
                let at = self.rng.usize(0..self.workers.len());
                let able: Vec<&Vec<u8>> = self.workers[at].able.iter().collect();
                let Some(at) = self.rng.usize(0..=able.len()).checked_sub(1) else { return };
                able[at].clone()
            }
        };
        let urgency = [C::SubmitJobHighBg, C::SubmitJobBg, C::SubmitJobBg, C::SubmitJobLowBg];
        let command = urgency[self.rng.usize(0..4)];
        self.say(self.client, &Request::packet(command, &[&name, b""], vec![]));
    }

    /// A worker does what comes next, or, now and then, something else.
    fn work(&mut self, at: usize) {
        let spontaneous = self.rng.u32(0..8) == 0;
        match (&self.workers[at].state, spontaneous) {
            (State::Waiting, _) | (State::Asleep, false) => {}
            (State::Awake, _) => {
                if self.rng.u32(0..3) == 0 {
                    self.grab(at);
                } else {
                    self.sleep(at);
                }
            }
            (State::Woken, false) | (State::Asleep, true) => self.grab(at),
            (State::Woken, true) => self.sleep(at),
            (State::Busy { handle, .. }, _) => {
                if self.rng.bool() {
                    let request = Request::packet(C::WorkComplete, &[handle], vec![]);
                    self.workers[at].state = State::Awake;
                    self.say(self.workers[at].conn, &request);
                }
            }
        }
    }

    fn grab(&mut self, at: usize) {
        let worker = &mut self.workers[at];
        worker.follows = worker.state == State::Woken;
        worker.state = State::Waiting;
        self.say(self.workers[at].conn, &Request::plain(C::GrabJob));
    }

    fn sleep(&mut self, at: usize) {
        let worker = &mut self.workers[at];
        worker.state = State::Asleep;
        worker.sleeps += 1;
        self.say(self.workers[at].conn, &Request::plain(C::PreSleep));
    }

    fn offer_some(&mut self, at: usize) {
        for _ in 0..self.rng.u32(1..4) {
            let name = self.any_function();
            self.offer(at, name);
        }
    }

    fn offer(&mut self, at: usize, name: Vec<u8>) {
        self.say(self.workers[at].conn, &Request::packet(C::CanDo, &[&name], vec![]));
        self.workers[at].able.insert(name);
    }

    fn change_abilities(&mut self, at: usize) {
        // What it says behind a grab waits, and what it can do would be unclear.
        if self.workers[at].state == State::Waiting {
            return;
        }
        match self.rng.u32(0..5) {
            0..2 => {
                let name = self.any_function();
                self.offer(at, name);
            }
            2..4 => {
                let name = self.any_function();
                let worker = &mut self.workers[at];
                worker.able.remove(&name);
                let runs =
                    matches!(&worker.state, State::Busy { function, .. } if *function == name);
                if runs {
                    worker.state = State::Awake;
                }
                self.say(self.workers[at].conn, &Request::packet(C::CantDo, &[&name], vec![]));
            }
            _ => {
                let worker = &mut self.workers[at];
                worker.able.clear();
                if matches!(worker.state, State::Busy { .. }) {
                    worker.state = State::Awake;
                }
                self.say(self.workers[at].conn, &Request::plain(C::ResetAbilities));
            }
        }
    }

    /// A worker goes, and another one comes.
    fn replace(&mut self, at: usize) {
        let conn = self.workers[at].conn;
        self.note(format!("{conn} goes"));
        self.mesh.disconnect(conn, self.now);
        self.pump();
        let conn = self.connect();
        self.workers[at] = Worker::new(conn);
        self.offer_some(at);
    }

    fn tick(&mut self) {
        self.note("leases end");
        self.now.mono_ms += LEASE_MS + 1;
        self.mesh.tick(self.now);
        self.pump();
    }

    /// Everything arrives, and workers who were woken grab; no time passes.
    fn rest(&mut self) {
        self.note("rest");
        let mut left = LETTERS_MAX;
        loop {
            while self.carry() || self.hands_over() {
                left -= 1;
                assert!(left > 0, "letters beget letters");
            }
            let Some(at) = self.workers.iter().position(|worker| worker.state == State::Woken)
            else {
                break;
            };
            self.grab(at);
        }
        self.check_rest();
        let at = self.rng.usize(0..self.workers.len());
        if self.workers[at].state == State::Awake && self.rng.bool() {
            self.check_grab(at);
        }
    }

    /// With nothing on its way, a worker gets a job exactly if there is one for it.
    fn check_grab(&mut self, at: usize) {
        let functions = self.mesh.shards().iter().flat_map(|shard| {
            let functions = shard.engine().functions().iter_from(FunctionId::FIRST);
            functions.filter(|(_, function)| function.queued > 0).map(|(_, function)| function)
        });
        let able = &self.workers[at].able;
        let has_job = functions.into_iter().any(|function| able.contains(&*function.name));
        self.grab(at);
        while self.carry() || self.hands_over() {}
        let got = matches!(self.workers[at].state, State::Busy { .. });
        assert_eq!(got, has_job, "{} and its job", self.workers[at].conn);
    }

    /// With no letter on its way and nobody about to grab, no lease is left, and no job lies beside
    /// a sleeper that could run it.
    fn check_rest(&self) {
        self.mesh.check_invariants();
        for worker in &self.workers {
            assert_ne!(worker.state, State::Waiting, "{} is never answered", worker.conn);
        }
        for (core, shard) in self.mesh.shards().iter().enumerate() {
            assert_eq!(shard.deadline_ms(), None, "core {core} waits for nobody's grab");
            let functions = shard.engine().functions().iter_from(FunctionId::FIRST);
            for (_, function) in functions.filter(|(_, function)| function.queued > 0) {
                let sleeper = self.workers.iter().find(|worker| {
                    worker.state == State::Asleep && worker.able.contains(&*function.name)
                });
                if let Some(Worker { conn, .. }) = sleeper {
                    let name = function.name.escape_ascii();
                    panic!("{} jobs of {name} lie beside {conn}, which sleeps", function.queued);
                }
            }
        }
    }

    /// All workers go, and what was known of them goes with them.
    fn leave(&mut self) {
        for at in 0..self.workers.len() {
            self.mesh.disconnect(self.workers[at].conn, self.now);
            self.pump();
        }
        self.workers.clear();
        while self.carry() || self.hands_over() {}
        let stand_ins: usize = self.mesh.shards().iter().map(|shard| shard.remote_counts().0).sum();
        let most = if self.mesh.shards().iter().map(Shard::connections).sum::<usize>() == 1 {
            self.mesh.cores().count - 1
        } else {
            0
        };
        assert!(stand_ins <= most, "stand-ins of nobody");
    }
}
