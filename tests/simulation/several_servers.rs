//! Three servers over one database, their clients and workers, and all that may go wrong between
//! them, from one seed.
//!
//! `server` has shards, writer and watch; `database` the fenced tables; `peer` what clients and
//! workers do, which list all servers; `promises` what must hold. Servers are killed, stopped, cut
//! off from the database or from their peers; answers of commits are lost; a failover brings the
//! database back to an earlier state.
//!
//! Invariant: every world ends healed, with all jobs done and nothing left.

mod database;
mod peer;
mod promises;
mod server;
mod writer;

use std::time::Duration;

use fastrand::Rng;
use ringgear::cluster::partition::HintLock;
use ringgear::engine::ConnId;
use ringgear::wire::Command as C;

use self::database::{Database, Token};
use self::peer::{Doing, Peer};
use self::promises::Promises;
use self::server::{Sent, Server};
use self::writer::Late;
use crate::wire::{self, Packet, Request};

const SERVERS: usize = 3;
const PEERS: usize = 12;
/// Lines of the trace that a failure shows.
const TRACE_LINES: usize = 200;
const UNIQUES: u8 = 3;
/// Time between two steps.
const STEP: Duration = Duration::from_millis(100);
/// How long a failover leaves it unclear which server has what it undid: longer than a lease.
const UNCLEAR: Duration = Duration::from_secs(10);
/// Rounds of half a second in which all that is left must be done.
const ROUNDS: usize = 400;

pub(crate) struct SeveralServers {
    rng: Rng,
    now: Duration,
    step: u64,
    database: Database,
    servers: Vec<Option<Server>>,
    /// Servers that their peers can't reach.
    is_unreachable: Vec<bool>,
    peers: Vec<Peer>,
    late: Vec<Late>,
    next_token: Token,
    /// Whether the database tells which owners hold their locks.
    tells_locks: bool,
    /// Until when several servers may take a partition for their own, after a failover.
    unclear_until: Duration,
    /// The step of the state to which a failover goes back.
    replicated: u64,
    pub(crate) promises: Promises,
    trace: Vec<String>,
    seed: u64,
}

impl Drop for SeveralServers {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let first = self.trace.len().saturating_sub(TRACE_LINES);
            eprintln!("{}\nseed {}, step {}", self.trace[first..].join("\n"), self.seed, self.step);
        }
    }
}

impl SeveralServers {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut world = Self {
            now: Duration::from_secs(100),
            step: 0,
            database: Database::new(),
            servers: (0..SERVERS).map(|_| None).collect(),
            is_unreachable: vec![false; SERVERS],
            peers: (0..PEERS).map(|at| Peer::new(at % 2 == 0)).collect(),
            late: Vec::new(),
            next_token: 1,
            tells_locks: rng.bool(),
            unclear_until: Duration::ZERO,
            replicated: 0,
            promises: Promises::default(),
            trace: Vec::new(),
            seed,
            rng,
        };
        (0..SERVERS).for_each(|id| world.start(id));
        world
    }

    pub(crate) fn run(&mut self, steps: u64) {
        for step in 0..steps {
            self.step = step;
            self.now += STEP * self.rng.u32(0..4);
            self.turn_all();
            for _ in 0..3 {
                self.peer_step();
            }
            let id = self.rng.usize(0..SERVERS);
            self.server_step(id);
            self.member_step(step % 4 == 0);
            // What an owner has written again isn't lost.
            self.promises.lost.retain(|number| !self.database.jobs().contains_key(number));
            if self.rng.u32(0..40) == 0 {
                self.go_wrong();
            }
        }
        self.drain();
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        let line = format!("{:>5} {:>8.1} {}", self.step, self.now.as_secs_f64(), line());
        self.trace.push(line);
    }

    fn start(&mut self, id: usize) {
        let token = self.next_token;
        self.next_token += 1;
        let cores = self.rng.usize(1..3);
        let mut server = Server::start(token, &mut self.database, cores, self.now);
        server.writer.is_impatient = self.rng.bool();
        self.note(|| format!("server {id} starts as {token}"));
        self.servers[id] = Some(server);
    }

    fn running(&mut self, id: usize) -> Option<&mut Server> {
        self.servers[id].as_mut().filter(|server| !server.is_paused)
    }

    fn turn_all(&mut self) {
        for id in 0..SERVERS {
            let now = self.now;
            let Some(server) = self.running(id) else { continue };
            server.turn(now);
            if server.may_resume(now) {
                // The loss of a partition is reported before the beat that ends the suspension.
                while self.has_outcomes(id) {
                    self.hear(id);
                }
                self.servers[id].iter_mut().for_each(|server| server.resume(now));
            }
            self.collect(id);
        }
    }

    fn has_outcomes(&self, id: usize) -> bool {
        self.servers[id].as_ref().is_some_and(|server| !server.writer.outcomes.is_empty())
    }

    /// Does something of what a server's threads do.
    fn server_step(&mut self, id: usize) {
        let chance = self.rng.u32(0..20);
        let share = self.rng.u32(0..3);
        let Some(server) = self.servers[id].as_mut().filter(|server| !server.is_paused) else {
            return;
        };
        let all = server.writer.count();
        let count = if share == 0 { self.rng.usize(0..=all) } else { all };
        match chance {
            0..8 if !server.is_cut => server.writer.commit(count, &mut self.database),
            8 if !server.is_cut => {
                let late = server.writer.lose_answer(count, &mut self.database);
                self.promises.count("lost answer");
                if let Some(late) = late {
                    match self.rng.u32(0..3) {
                        0 => late.arrive(&mut self.database),
                        1 => self.late.push(late),
                        _ => {}
                    }
                }
                self.note(|| format!("server {id} gets no answer for {count} operations"));
            }
            9 if !self.late.is_empty() => {
                let at = self.rng.usize(0..self.late.len());
                self.late.swap_remove(at).arrive(&mut self.database);
            }
            10 if !server.is_cut => server.free_empty(&mut self.database),
            11..14 => self.hear(id),
            14..20 => {
                while self.has_outcomes(id) {
                    self.hear(id);
                }
            }
            _ => {}
        }
    }

    fn hear(&mut self, id: usize) {
        let now = self.now;
        let Some(server) = &mut self.servers[id] else { return };
        let what = server.writer.outcomes.front().map(|outcome| format!("{outcome:.200?}"));
        let sent = server.hear(&self.database, now);
        if let Some(what) = what {
            let what: String = what.chars().take(160).collect();
            self.note(|| format!("server {id} hears {what}"));
        }
        self.deliver(id, sent);
    }

    /// All servers that can beat, read the partitions, adopt and load.
    fn member_step(&mut self, beats: bool) {
        let locks: Vec<Token> =
            self.servers.iter().flatten().map(|server| server.writer.token).collect();
        let tells_locks = self.tells_locks;
        let lock = |token: Token| match tells_locks {
            false => HintLock::Unknown,
            true if locks.contains(&token) => HintLock::Held,
            true => HintLock::Free,
        };
        for id in 0..SERVERS {
            let now = self.now;
            let fails_load = self.rng.u32(0..4) == 0;
            let Some(server) = self.servers[id].as_mut().filter(|server| !server.is_paused) else {
                continue;
            };
            if server.is_cut {
                server.fail_read();
                continue;
            }
            if beats {
                server.writer.beat(&mut self.database, now);
            }
            server.read(&self.database.readings(lock), now);
            let adopted = server.adopt(&mut self.database, now);
            if !fails_load {
                server.load(&self.database);
            }
            if adopted > 0 {
                self.promises.count("adopted");
                self.note(|| format!("server {id} adopts {adopted} partitions"));
            }
        }
    }

    fn go_wrong(&mut self) {
        let id = self.rng.usize(0..SERVERS);
        let Some(server) = &mut self.servers[id] else { return self.start(id) };
        match self.rng.u32(0..12) {
            0 | 1 => {
                self.promises.count("killed");
                self.note(|| format!("server {id} is killed"));
                self.end(id);
            }
            2..4 if server.is_paused => {
                server.is_paused = false;
                self.note(|| format!("server {id} goes on"));
                self.resume(id);
            }
            2..4 => {
                server.is_paused = true;
                self.promises.count("stopped");
                self.note(|| format!("server {id} is stopped"));
            }
            4..6 => {
                server.is_cut = !server.is_cut;
                let is_cut = server.is_cut;
                self.promises.count("cut off");
                self.note(|| format!("server {id} is cut off from the database: {is_cut}"));
            }
            6 => {
                self.is_unreachable[id] = !self.is_unreachable[id];
                self.note(|| format!("server {id} can or can't be reached by its peers"));
                if self.is_unreachable[id] {
                    self.lose_peers(id);
                }
            }
            7 | 8 => {
                self.database.replicate();
                self.replicated = self.step;
                self.note(|| "the replica has all".to_owned());
            }
            9 => self.fail_over(),
            10 if !server.is_paused && !server.is_cut => self.leave(id),
            _ => {}
        }
    }

    fn leave(&mut self, id: usize) {
        self.promises.count("left");
        self.note(|| format!("server {id} leaves"));
        let now = self.now;
        let Some(server) = &mut self.servers[id] else { return };
        server.writer.beat(&mut self.database, now);
        let mut sent = Vec::new();
        while !server.writer.is_quiet() {
            let count = server.writer.count();
            server.writer.commit(count, &mut self.database);
            sent.push(server.hear(&self.database, now));
        }
        server.writer.leave(&mut self.database);
        sent.into_iter().for_each(|sent| self.deliver(id, sent));
        self.end(id);
    }

    fn fail_over(&mut self) {
        self.promises.count("failover");
        self.unclear_until = self.now + UNCLEAR;
        let lost = self.database.fail_over();
        self.note(|| format!("the database goes back to an earlier state, without {lost:?}"));
        self.promises.fail_over(lost, self.replicated);
        // Sessions end, those of the watches, too.
        self.servers.iter_mut().flatten().for_each(Server::fail_read);
        self.late.clear();
    }

    fn end(&mut self, id: usize) {
        self.servers[id] = None;
        self.is_unreachable[id] = false;
        self.lose_peers(id);
    }

    fn lose_peers(&mut self, id: usize) {
        for at in 0..self.peers.len() {
            if let Some((server, _)) = self.peers[at].place.filter(|place| place.0 == id) {
                self.disconnect(at, server);
            }
        }
    }

    fn disconnect(&mut self, at: usize, id: usize) {
        let Some((_, conn)) = self.peers[at].place else { return };
        if self.peers[at].lose_connection() {
            self.promises.count("unanswered");
        }
        self.say(id, conn, None);
    }

    /// A server that was stopped goes on: with a turn, before what has come meanwhile.
    fn resume(&mut self, id: usize) {
        let now = self.now;
        let Some(server) = &mut self.servers[id] else { return };
        server.turn(now);
        let waiting = std::mem::take(&mut server.waiting);
        self.collect(id);
        for (conn, bytes) in waiting {
            self.say(id, conn, bytes);
        }
    }

    /// Something comes to a server from a connection.
    fn say(&mut self, id: usize, conn: ConnId, bytes: Option<Vec<u8>>) {
        let now = self.now;
        let Some(server) = &mut self.servers[id] else { return };
        if server.is_paused {
            server.waiting.push((conn, bytes));
            return;
        }
        server.receive(conn, bytes.as_deref(), now);
        self.collect(id);
    }

    fn collect(&mut self, id: usize) {
        let now = self.now;
        let Some(server) = &mut self.servers[id] else { return };
        let sent = server.collect(&self.database, now);
        self.deliver(id, sent);
    }

    fn deliver(&mut self, id: usize, Sent { bytes, closed }: Sent) {
        assert!(closed.is_empty(), "a connection is closed without reason");
        for (conn, bytes) in bytes {
            let Some(at) = self.peers.iter().position(|peer| peer.place == Some((id, conn))) else {
                continue;
            };
            for packet in wire::read(&bytes) {
                self.hear_packet(id, at, &packet);
            }
        }
    }

    fn hear_packet(&mut self, id: usize, at: usize, packet: &Packet) {
        let Packet::Binary { command, body } = packet else { panic!("{packet:?}") };
        self.note(|| format!("  peer {at} gets {packet:?} from server {id}"));
        let number = |handle: &[u8]| -> u64 {
            let digits = handle.strip_prefix(b"H:sim:").unwrap();
            std::str::from_utf8(digits).unwrap().parse().unwrap()
        };
        let doing = self.peers[at].doing.clone();
        self.peers[at].doing = match (command, doing) {
            (C::JobCreated, Doing::Submitting(submission)) => {
                let handle = number(body);
                let is_owner = self.is_owner(id, handle) || self.now >= self.unclear_until;
                self.promises.acknowledged(submission, handle, self.step, is_owner);
                Doing::Nothing
            }
            (C::Error, Doing::Submitting(_)) => {
                self.promises.count("refused");
                Doing::Nothing
            }
            (C::JobAssign, Doing::Grabbing) => {
                let mut parts = body.splitn(3, |&byte| byte == 0);
                let handle = parts.next().unwrap().to_vec();
                let payload = std::str::from_utf8(parts.nth(1).unwrap()).unwrap();
                self.assigned(id, number(&handle), payload.parse().unwrap());
                Doing::Working(handle)
            }
            (C::NoJob, Doing::Grabbing) => {
                let (id, conn) = self.peers[at].place.unwrap();
                self.peers[at].doing = Doing::Sleeping;
                self.say(id, conn, Some(Request::plain(C::PreSleep).bytes()));
                return;
            }
            (C::Noop, Doing::Sleeping) => Doing::Nothing,
            (_, doing) => panic!("{packet:?} for a peer that is {doing:?}"),
        };
    }

    /// Whether the database says that the server owns the job of this number.
    fn is_owner(&self, id: usize, number: u64) -> bool {
        let token = self.servers[id].as_ref().map_or(0, |server| server.writer.token);
        self.database.owner_of(number) == token
    }

    fn assigned(&mut self, id: usize, number: u64, payload: u64) {
        let is_unclear = self.now < self.unclear_until;
        let is_owner = is_unclear || self.is_owner(id, number);
        let is_removed = !is_unclear && self.database.removed.contains(&number);
        self.promises.assigned(number, payload, is_owner, is_removed);
    }

    /// A peer does what it does next.
    fn peer_step(&mut self) {
        let at = self.rng.usize(0..self.peers.len());
        if self.rng.u32(0..60) == 0 {
            if let Some((id, _)) = self.peers[at].place {
                self.note(|| format!("peer {at} goes"));
                self.disconnect(at, id);
            }
            return;
        }
        if self.peers[at].place.is_none() {
            return self.connect(at);
        }
        self.act(at, true);
    }

    fn connect(&mut self, at: usize) {
        let id = self.rng.usize(0..SERVERS);
        if !self.is_unreachable[id] {
            self.connect_to(at, id);
        }
    }

    fn connect_to(&mut self, at: usize, id: usize) {
        let now = self.now;
        let taken: Vec<ConnId> =
            self.peers.iter().filter_map(|peer| peer.place).map(|it| it.1).collect();
        let Some(server) = self.running(id) else { return };
        let free = (0..).map(ConnId::from_number).find(|conn| !taken.contains(conn)).unwrap();
        let conn = server.connect(free, i32::try_from(at).unwrap() + 10, now);
        self.peers[at].place = Some((id, conn));
        self.note(|| format!("peer {at} connects to server {id}"));
        for request in self.peers[at].greet() {
            self.say(id, conn, Some(request.bytes()));
        }
    }

    fn act(&mut self, at: usize, submits: bool) {
        let Some((id, conn)) = self.peers[at].place else { return };
        let request = match (self.peers[at].is_worker, self.peers[at].doing.clone()) {
            (false, Doing::Nothing) if submits => {
                let unique = self.rng.bool().then(|| self.rng.u8(0..UNIQUES));
                let number = self.promises.submit(unique, self.step);
                self.peers[at].doing = Doing::Submitting(number);
                peer::submission(&mut self.rng, number, unique)
            }
            (true, Doing::Nothing) => {
                self.peers[at].doing = Doing::Grabbing;
                Request::plain(C::GrabJob)
            }
            (true, Doing::Working(handle)) => {
                self.peers[at].doing = Doing::Nothing;
                let digits = std::str::from_utf8(&handle[b"H:sim:".len()..]).unwrap();
                self.promises.completed(digits.parse().unwrap(), self.step);
                Request::packet(C::WorkComplete, &[&handle], vec![])
            }
            _ => return,
        };
        self.note(|| format!("peer {at} says {request} to server {id}"));
        self.say(id, conn, Some(request.bytes()));
    }

    /// All heals, all jobs are done, and nothing is left.
    fn drain(&mut self) {
        self.step += 1;
        self.note(|| "all heals".to_owned());
        for id in 0..SERVERS {
            self.is_unreachable[id] = false;
            match &mut self.servers[id] {
                None => self.start(id),
                Some(server) => {
                    server.is_cut = false;
                    if std::mem::take(&mut server.is_paused) {
                        self.resume(id);
                    }
                }
            }
        }
        // Each server has workers.
        for at in (0..self.peers.len()).filter(|at| at % 2 == 0) {
            if let Some((id, _)) = self.peers[at].place {
                self.disconnect(at, id);
            }
            self.connect_to(at, at / 2 % SERVERS);
        }
        std::mem::take(&mut self.late).into_iter().for_each(|it| it.arrive(&mut self.database));
        for round in 0..ROUNDS {
            self.now += STEP * 5;
            self.turn_all();
            self.member_step(true);
            for id in 0..SERVERS {
                let Some(server) = &mut self.servers[id] else { continue };
                let count = server.writer.count();
                server.writer.commit(count, &mut self.database);
                server.free_empty(&mut self.database);
                while self.has_outcomes(id) {
                    self.hear(id);
                }
            }
            for at in 0..self.peers.len() {
                if self.peers[at].place.is_none() {
                    self.connect(at);
                }
                self.act(at, false);
            }
            let servers = || self.servers.iter().flatten();
            let is_quiet =
                servers().all(|server| server.is_quiet() && server.mesh.rows().is_empty());
            let Database { restored, .. } = &self.database;
            let is_done = self.database.jobs().keys().all(|number| restored.contains(number));
            if round > 20 && is_quiet && is_done {
                return self.check_end();
            }
        }
        panic!("jobs are left: {:?}", self.database.jobs().keys());
    }

    fn check_end(&mut self) {
        let is_waiting = |peer: &Peer| matches!(peer.doing, Doing::Submitting(_));
        let waiting = self.peers.iter().position(is_waiting);
        assert_eq!(waiting, None, "a client waits for an answer");
        self.promises.check_end();
        for server in self.servers.iter().flatten() {
            server.mesh.check_invariants();
        }
    }
}
