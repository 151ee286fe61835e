//! What peers of shards with slow letters say, and what they may hear.
//!
//! Each request that has a reply is noted when it is said; what is heard has to be the next one's,
//! or something that comes unasked. Invariant: behind a grab that isn't answered a worker says
//! nothing of its jobs, as nobody could tell whether it is heard before the connection ends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ringgear::engine::ConnId;
use ringgear::shard::Intake;
use ringgear::wire::Command as C;

use super::DelayedMessages;
use super::grabs::Urgent;
use crate::model::{handle, number};
use crate::peer::FUNCTIONS;
use crate::wire::{Packet, Request};

/// What a request is to be answered with.
#[derive(Clone, Debug)]
pub(super) enum Due {
    Created {
        function: Vec<u8>,
        background: bool,
    },
    /// Of one of these functions, and none less urgent than these.
    Job(C, BTreeSet<Vec<u8>>, Vec<Urgent>),
    /// These very words.
    Exactly(Packet),
    /// A packet of this type that begins so.
    Status(C, Vec<u8>),
    Line,
    Lines,
    /// Nothing, or JOB_NOT_FOUND.
    Nothing,
}

#[derive(Debug, Default)]
pub(super) struct Peer {
    /// What it says once it is listened to.
    pub(super) out: Vec<u8>,
    pub(super) due: VecDeque<Due>,
    pub(super) abilities: BTreeSet<Vec<u8>>,
    /// Jobs that it has, and their functions.
    pub(super) jobs: BTreeMap<u64, Vec<u8>>,
    /// Jobs that it has ended.
    pub(super) finished: Vec<u64>,
    /// Jobs whose ends it is to be told, and how often.
    pub(super) waits: BTreeMap<u64, u32>,
    /// It has gone to sleep and wasn't woken since.
    pub(super) sleeps: bool,
    /// It was woken and hasn't grabbed since.
    pub(super) woken: bool,
    /// Wake-ups that it may still get.
    noops_owed: u32,
    pub(super) ended: bool,
    pub(super) stalled: bool,
}

impl Peer {
    /// Whether a reply has to come.
    pub(super) fn is_owed(&self) -> bool {
        self.due.iter().any(|due| !matches!(due, Due::Nothing))
    }

    pub(super) fn can(&self, function: &[u8]) -> bool {
        self.abilities.contains(function)
    }
}

impl DelayedMessages {
    /// A peer says a thing or several.
    pub(super) fn act(&mut self) {
        let Some(conn) = self.any_peer() else { return };
        let peer = &self.peers[&conn];
        if peer.ended || peer.due.len() > 100 {
            return;
        }
        // Half of the peers are rather clients, the others rather workers.
        let works = (conn.number() % 2 == 1) ^ (self.rng.u32(0..10) == 0);
        let requests = if works { self.work(conn) } else { self.ask(conn) };
        self.say(conn, requests);
    }

    fn work(&mut self, conn: ConnId) -> Vec<Request> {
        let peer = &self.peers[&conn];
        if peer.is_owed() || !peer.out.is_empty() {
            return vec![self.question()];
        }
        let grab = [C::GrabJob, C::GrabJobUniq, C::GrabJobAll][self.rng.usize(0..3)];
        let count = peer.jobs.len();
        let mut requests = Vec::new();
        if count > 0 && self.rng.u32(0..3) > 0 {
            let at = self.rng.usize(0..count);
            let number = *self.peers[&conn].jobs.keys().nth(at).unwrap();
            match self.rng.u32(0..6) {
                0 => requests.push(word(C::WorkData, number, b"some")),
                1 => requests.push(word(C::WorkFail, number, b"")),
                2 => requests.push(word(C::WorkException, number, b"oh")),
                _ => requests.push(word(C::WorkComplete, number, b"done")),
            }
        }
        if self.calm && self.peers[&conn].jobs.is_empty() && self.rng.bool() {
            let sleeps = self.rng.u32(0..3) > 0;
            return vec![Request::plain(if sleeps { C::PreSleep } else { grab })];
        }
        match self.rng.u32(0..20) {
            0..9 => requests.push(Request::plain(grab)),
            9..14 => requests.push(Request::plain(C::PreSleep)),
            14..18 => {
                let name = FUNCTIONS[self.rng.usize(0..FUNCTIONS.len())];
                requests.push(self.can_do(conn, name));
            }
            18 => {
                let name = FUNCTIONS[self.rng.usize(0..FUNCTIONS.len())].as_bytes();
                requests.push(Request::packet(C::CantDo, &[name], vec![]));
            }
            _ if self.rng.u32(0..4) == 0 => requests.push(Request::plain(C::ResetAbilities)),
            // What stands behind a grab waits for it.
            _ => requests.extend([Request::plain(grab), self.question(), self.submit()]),
        }
        requests
    }

    fn ask(&mut self, _: ConnId) -> Vec<Request> {
        let count = if self.calm { 1 } else { [1, 1, 2, 6][self.rng.usize(0..4)] };
        let submits = if self.calm { 1 } else { 5 };
        (0..count)
            .map(|_| if self.rng.u32(0..8) < submits { self.submit() } else { self.question() })
            .collect()
    }

    fn submit(&mut self) -> Request {
        let function = FUNCTIONS[self.rng.usize(0..FUNCTIONS.len())].as_bytes();
        let unique: &[u8] = [&b""[..], b"", b"one", b"two"][self.rng.usize(0..4)];
        let command = [
            C::SubmitJob,
            C::SubmitJob,
            C::SubmitJobHigh,
            C::SubmitJobLow,
            C::SubmitJobBg,
            C::SubmitJobHighBg,
            C::SubmitJobLowBg,
        ][self.rng.usize(0..7)];
        let bytes = [3, 100, 9000][self.rng.usize(0..3)];
        Request::packet(command, &[function, unique], vec![b'p'; bytes])
    }

    fn question(&mut self) -> Request {
        let at = self.rng.usize(0..self.jobs.len().max(1));
        let number = self.jobs.keys().nth(at).copied().unwrap_or(1);
        match self.rng.u32(0..14) {
            0..3 => Request::packet(C::GetStatus, &[&handle(number)], vec![]),
            3..6 => Request::packet(C::GetStatusUnique, &[b"one"], vec![]),
            6 => Request::Line("status".to_owned()),
            7 => Request::Line("workers".to_owned()),
            8 => Request::Line("show jobs".to_owned()),
            9 => Request::Line("create function x".to_owned()),
            10 if self.rng.bool() => {
                Request::Line(format!("cancel job {}", handle(number).escape_ascii()))
            }
            11 => Request::Line("drop function none".to_owned()),
            // Nobody's job, as far as this peer goes.
            12 => word(C::WorkData, 1 << 40, b""),
            _ => Request::packet(C::EchoReq, &[], self.rng.u64(..).to_string().into_bytes()),
        }
    }

    pub(super) fn can_do(&mut self, _: ConnId, name: &str) -> Request {
        Request::packet(C::CanDo, &[name.as_bytes()], vec![])
    }

    /// A worker is done with a job.
    pub(super) fn finish(&mut self, conn: ConnId, number: u64, command: C) {
        self.say(conn, vec![word(command, number, b"")]);
    }

    /// A client submits so much that it has to wait for the replies before it is listened to.
    pub(super) fn flood(&mut self) {
        let Some(conn) = self.any_peer() else { return };
        let peer = &self.peers[&conn];
        if peer.ended || peer.stalled || peer.is_owed() {
            return;
        }
        self.count("flooded");
        let name = FUNCTIONS[self.rng.usize(0..FUNCTIONS.len())].as_bytes();
        let request = Request::packet(C::SubmitJobBg, &[name, b"one"], b"same".to_vec());
        self.say(conn, vec![request; 1100]);
    }

    pub(super) fn say(&mut self, conn: ConnId, requests: Vec<Request>) {
        for request in requests {
            self.note(conn, &request);
            self.peers.get_mut(&conn).unwrap().out.extend(request.bytes());
        }
        self.deliver(conn);
    }

    /// What a peer has said arrives, as far as it is listened to, in pieces and among letters.
    pub(super) fn deliver(&mut self, conn: ConnId) {
        while let Some(peer) = self.peers.get_mut(&conn) {
            if peer.out.is_empty()
                || !matches!(self.mesh.intake(conn), Intake::Read | Intake::Direct)
            {
                return;
            }
            let whole = self.rng.u32(0..4) > 0;
            let most = peer.out.len();
            let bytes = if whole { most } else { self.rng.usize(1..=most.min(2000)) };
            let piece: Vec<u8> = peer.out.drain(..bytes).collect();
            if self.prompt {
                self.mesh.carry_to(conn, self.now);
                self.pump();
                if !self.peers.contains_key(&conn) {
                    return;
                }
            }
            self.mesh.received(conn, &piece, self.now);
            self.pump();
            if !whole {
                self.carry();
            }
        }
    }

    /// What is to come of a request.
    fn note(&mut self, conn: ConnId, request: &Request) {
        let peer = self.peers.get_mut(&conn).unwrap();
        let (command, arguments, payload) = match request {
            Request::Packet { command, arguments, payload } => (*command, arguments, payload),
            Request::Line(line) => {
                if let Some(number) = line.strip_prefix("cancel job ") {
                    let job = number_in(number.as_bytes());
                    self.jobs.entry(job).or_default().excused = true;
                }
                let is_list = matches!(line.as_str(), "status" | "workers" | "show jobs");
                peer.due.push_back(if is_list { Due::Lines } else { Due::Line });
                return;
            }
            _ => return,
        };
        let first = arguments.first().cloned().unwrap_or_default();
        match command {
            C::GrabJob | C::GrabJobUniq | C::GrabJobAll => {
                (peer.sleeps, peer.woken) = (false, false);
                let able = peer.abilities.clone();
                let urgent = self.known_to_all(&able);
                let peer = self.peers.get_mut(&conn).unwrap();
                peer.due.push_back(Due::Job(command, able, urgent));
            }
            C::PreSleep => {
                peer.sleeps = true;
                peer.noops_owed += 1;
            }
            C::CanDo => {
                peer.abilities.insert(first);
            }
            C::CantDo => {
                peer.abilities.remove(&first);
                self.release(conn, |name| name == first);
            }
            C::ResetAbilities => {
                peer.abilities.clear();
                self.release(conn, |_| true);
            }
            C::WorkComplete | C::WorkFail | C::WorkException => {
                peer.due.push_back(Due::Nothing);
                let number = number_in(&first);
                if let Some(function) = peer.jobs.remove(&number) {
                    let is_end = command == C::WorkComplete || !self.may_retry(&function);
                    let excused = !is_end && self.may_end_by_failure(&function);
                    let job = self.jobs.entry(number).or_default();
                    job.holder = None;
                    job.ended |= is_end;
                    job.failed = command != C::WorkComplete;
                    job.excused |= excused;
                    if is_end {
                        self.peers.get_mut(&conn).unwrap().finished.push(number);
                    }
                }
            }
            C::WorkData => peer.due.push_back(Due::Nothing),
            C::GetStatus => peer.due.push_back(Due::Status(C::StatusRes, first)),
            C::GetStatusUnique => peer.due.push_back(Due::Status(C::StatusResUnique, first)),
            C::EchoReq => {
                let echo = Packet::of(C::EchoRes, &[], payload);
                peer.due.push_back(Due::Exactly(echo));
            }
            _ => {
                let background = command.name().ends_with("_BG");
                peer.due.push_back(Due::Created { function: first, background });
            }
        }
    }

    /// A worker's jobs are anybody's again.
    pub(super) fn release(&mut self, conn: ConnId, which: impl Fn(&[u8]) -> bool) {
        let mut lost = std::mem::take(&mut self.peers.get_mut(&conn).unwrap().jobs);
        lost.retain(|number, name| {
            let goes = which(name);
            if goes {
                let excused = self.may_vanish(name);
                if let Some(job) = self.jobs.get_mut(number) {
                    job.holder = None;
                    job.excused |= excused;
                }
            }
            !goes
        });
        self.peers.get_mut(&conn).unwrap().jobs = lost;
    }

    /// A peer gets a packet.
    pub(super) fn hear(&mut self, conn: ConnId, packet: Packet) {
        let peer = self.peers.get_mut(&conn).unwrap();
        match &packet {
            Packet::Binary { command: C::Noop, .. } => {
                assert!(peer.noops_owed > 0, "{conn} was woken more often than it slept");
                peer.noops_owed -= 1;
                (peer.sleeps, peer.woken) = (false, true);
                return self.count("woken between cores");
            }
            Packet::Binary { command, body } if command.name().starts_with("WORK_") => {
                let number = number_in(&first_part(body));
                let waits = peer.waits.get_mut(&number);
                let Some(waits) = waits else { panic!("{conn} gets {packet:?}, unasked") };
                if matches!(command, C::WorkComplete | C::WorkFail | C::WorkException) {
                    *waits -= 1;
                    if *waits == 0 {
                        peer.waits.remove(&number);
                    }
                }
                return self.count("forwarded between cores");
            }
            _ => {}
        }
        self.hear_reply(conn, &packet);
    }

    fn hear_reply(&mut self, conn: ConnId, packet: &Packet) {
        let cores = self.mesh.cores();
        let vanishing = FUNCTIONS.map(|name| self.may_vanish(name.as_bytes()));
        let peer = self.peers.get_mut(&conn).unwrap();
        let is_error = |code: &[u8]| match packet {
            Packet::Binary { command: C::Error, body } => body.starts_with(code),
            _ => false,
        };
        while let Some(Due::Nothing) = peer.due.front() {
            peer.due.pop_front();
            if is_error(b"JOB_NOT_FOUND\0") {
                return;
            }
        }
        let Some(due) = peer.due.pop_front() else { panic!("{conn} gets {packet:?}, unasked") };
        let right = match (&due, packet) {
            (Due::Exactly(expected), packet) => expected == packet,
            (Due::Line, Packet::Line(line)) => line != b".",
            (Due::Lines, Packet::Line(line)) => {
                if line != b"." {
                    peer.due.push_front(Due::Lines);
                }
                true
            }
            (Due::Status(wanted, name), Packet::Binary { command, body }) => {
                wanted == command && first_part(body) == *name
            }
            (Due::Created { function, background }, Packet::Binary { command, body }) => {
                if *command == C::JobCreated {
                    let number = number_in(body);
                    assert_eq!(cores.owner_of_job(number), cores.owner_of(function));
                    let job = self.jobs.entry(number).or_default();
                    job.heard_of = true;
                    if *background {
                        job.kept = true;
                        let at = FUNCTIONS.iter().position(|name| name.as_bytes() == function);
                        job.excused |= at.is_some_and(|at| vanishing[at]);
                    } else {
                        *peer.waits.entry(number).or_default() += 1;
                    }
                }
                *command == C::JobCreated || is_error(b"QUEUE_ERROR\0")
            }
            (Due::Job(grab, able, urgent), Packet::Binary { command, body }) => {
                if *command == C::NoJob {
                    return self.check_order(conn, urgent, None);
                }
                let parts: Vec<&[u8]> = body.splitn(3, |&byte| byte == 0).collect();
                let number = number_in(parts[0]);
                assert!(able.contains(parts[1]), "{conn} can't run {packet:?}");
                let job = self.jobs.entry(number).or_default();
                assert!(!job.ended, "{conn} gets job {number}, which has ended");
                assert_eq!(job.holder, None, "{conn} gets job {number}, which another has");
                if !peer.ended {
                    job.holder = Some(conn);
                    peer.jobs.insert(number, parts[1].to_vec());
                }
                self.check_order(conn, urgent, Some(number));
                self.count("grabbed between cores");
                *command == if *grab == C::GrabJob { C::JobAssign } else { C::JobAssignUniq }
            }
            _ => false,
        };
        assert!(right, "{conn} gets {packet:?} for {due:?}");
    }
}

fn word(command: C, number: u64, payload: &[u8]) -> Request {
    Request::packet(command, &[&handle(number)], payload.to_vec())
}

fn first_part(body: &[u8]) -> Vec<u8> {
    body.split(|&byte| byte == 0).next().unwrap_or_default().to_vec()
}

fn number_in(text: &[u8]) -> u64 {
    number(text).unwrap_or_else(|| panic!("{} is no handle", text.escape_ascii()))
}
