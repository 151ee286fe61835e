//! A cluster: several shards, and everything on its way between them.
//!
//! Messages of one core to another stay in order and otherwise arrive as a test or a seed says.
//! Tests of what peers see of it are in `tests`, and in the files beside.

use std::collections::VecDeque;
use std::net::IpAddr;

use fastrand::Rng;

use super::*;
use crate::engine::function::Durability;
use crate::protocol::peer_address::PeerAddress;
use crate::shard::cores::Cores;
use crate::shard::remote::message::{ConnKey, HomeConnId, Message};
use crate::shard::remote::outgoing::MESSAGES_PAUSE;

pub(super) const CORES: usize = 3;

/// A connection: its core, and its number there.
pub(super) type Peer = (usize, ConnId);

pub(super) struct Cluster {
    pub(super) shards: Vec<Shard>,
    /// Outgoing on their way, by sender and receiver.
    rings: Vec<Vec<VecDeque<Message>>>,
    pub(super) now: Now,
    rng: Rng,
    /// What lists name the next connection by.
    next_fd: i32,
    /// Outgoing arrive only when they are told to.
    pub(super) slow: bool,
    /// What the cores have sent to the thread for HTTP.
    pub(super) to_http: Vec<Message>,
    /// Cores towards which each core is congested, one bit each.
    congested: [u64; CORES],
}

/// A function that belongs to a core.
pub(super) fn function(core: usize) -> String {
    let cores = Cores { own: 0, count: CORES };
    (0..).map(|n| format!("f{n}")).find(|name| cores.owner_of(name.as_bytes()) == core).unwrap()
}

impl Cluster {
    pub(super) fn new(durability: Durability, seed: u64) -> Self {
        let now = Now { mono_ms: 5000, unix_ms: 1_700_000_000_000 };
        let mut settings = settings();
        settings.connections_max = 100;
        settings.engine.durabilities.default = durability;
        let shard = |own| {
            let cores = Cores { own, count: CORES };
            Shard::new(Settings { cores, ..settings.clone() }, now)
        };
        Self {
            shards: (0..CORES).map(shard).collect(),
            rings: (0..CORES).map(|_| (0..CORES).map(|_| VecDeque::new()).collect()).collect(),
            now,
            rng: Rng::with_seed(seed),
            next_fd: 9,
            slow: false,
            to_http: Vec::new(),
            congested: [0; CORES],
        }
    }

    pub(super) fn connect(&mut self, core: usize) -> Peer {
        self.connect_from(core, Ipv4Addr::LOCALHOST.into())
    }

    pub(super) fn connect_from(&mut self, core: usize, address: IpAddr) -> Peer {
        let port = 4000 + u16::try_from(self.next_fd).unwrap();
        self.connect_by(core, (address, port).into(), 0)
    }

    pub(super) fn connect_by(&mut self, core: usize, peer: PeerAddress, listener: u16) -> Peer {
        let origin = Origin { fd: self.next_fd, peer, listener };
        self.next_fd += 1;
        (core, self.shards[core].connect(origin, self.now).unwrap())
    }

    fn post(&mut self) {
        for from in 0..CORES {
            // The driver asks for dirty connections, and so lets requests go on that waited.
            while self.shards[from].poll_dirty(self.now).is_some() {}
            let mut messages = Vec::new();
            self.shards[from].take_messages(&mut messages);
            for (to, message) in messages {
                assert_ne!(from, to);
                if to == CORES {
                    self.to_http.push(message);
                    continue;
                }
                self.rings[from][to].push_back(message);
            }
            self.shards[from].set_congested(CoreSet::from_bits(self.congested[from]));
        }
    }

    /// The oldest message of a random ring arrives; `false` if there is none.
    pub(super) fn step(&mut self) -> bool {
        self.step_beside(None)
    }

    /// Likewise, but messages from one core to another wait.
    pub(super) fn step_beside(&mut self, held: Option<(usize, usize)>) -> bool {
        self.post();
        let pairs = (0..CORES).flat_map(|from| (0..CORES).map(move |to| (from, to)));
        let full: Vec<(usize, usize)> = pairs
            .filter(|&(from, to)| !self.rings[from][to].is_empty() && held != Some((from, to)))
            .collect();
        let Some(&(from, to)) = full.get(self.rng.usize(0..full.len().max(1))) else {
            return false;
        };
        let message = self.rings[from][to].pop_front().unwrap();
        self.shards[to].receive_message(from, message, self.now);
        true
    }

    pub(super) fn settle(&mut self) {
        while self.step() {}
        self.shards.iter().for_each(|shard| shard.engine.check_invariants());
    }

    /// The thread for HTTP sends a message to a core.
    pub(super) fn http_sends(&mut self, to: usize, message: Message) {
        self.shards[to].receive_message(CORES, message, self.now);
    }

    /// All messages from one core to another arrive.
    pub(super) fn empty_ring(&mut self, from: usize, to: usize) {
        self.post();
        while let Some(message) = self.rings[from][to].pop_front() {
            self.shards[to].receive_message(from, message, self.now);
        }
    }

    pub(super) fn say(&mut self, (core, conn): Peer, bytes: &[u8]) {
        self.shards[core].received(conn, bytes, self.now);
        if !self.slow {
            self.settle();
        }
    }

    pub(super) fn packet(
        &mut self,
        peer: Peer,
        command: Command,
        arguments: &[&[u8]],
        payload: &[u8],
    ) {
        self.say(peer, &packet(command, arguments, payload));
    }

    pub(super) fn hear(&mut self, (core, conn): Peer) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some((chunk, _)) = self.shards[core].take(conn) {
            bytes.extend_from_slice(chunk.as_ref());
            self.shards[core].sent(conn, chunk, self.now);
            self.post();
            if !self.slow {
                self.settle();
            }
        }
        bytes
    }

    pub(super) fn hear_text(&mut self, peer: Peer) -> String {
        String::from_utf8(self.hear(peer)).unwrap()
    }

    /// Lets connections move, after so many submissions or at once.
    pub(super) fn let_move(&mut self, move_after: u32) {
        for shard in &mut self.shards {
            shard.settings.move_after = move_after;
            shard.other_cores.accepting = CoreSet::ALL;
        }
    }

    /// The driver hands a connection over; messages after it arrive after it.
    pub(super) fn hand_over(&mut self, (core, conn): Peer) -> Peer {
        assert_eq!(self.shards[core].intake(conn), Intake::Move);
        let hand_over = self.shards[core].begin_hand_over(conn).unwrap();
        let to = hand_over.to();
        let migrating = self.shards[core].detach(hand_over, self.now);
        self.settle();
        let peer = (to, self.shards[to].attach(core, migrating, self.now));
        self.settle();
        peer
    }

    pub(super) fn leave(&mut self, (core, conn): Peer) {
        self.shards[core].disconnect(conn, self.now);
        self.settle();
    }

    pub(super) fn worker(&mut self, core: usize, functions: &[String]) -> Peer {
        let worker = self.connect(core);
        for function in functions {
            self.packet(worker, Command::CanDo, &[function.as_bytes()], b"");
        }
        worker
    }

    /// Submits in the foreground or background; answers with the handle.
    pub(super) fn submit(
        &mut self,
        client: Peer,
        command: Command,
        function: &str,
        unique: &str,
    ) -> Vec<u8> {
        self.packet(client, command, &[function.as_bytes(), unique.as_bytes()], b"payload");
        let created = self.hear(client);
        assert_eq!(
            created[..12],
            header_bytes(
                Magic::Response,
                Command::JobCreated,
                u32::try_from(created.len() - 12).unwrap()
            )
        );
        created[12..].to_vec()
    }

    /// Submits without waiting for the reply.
    fn submit_unheard(&mut self, client: Peer, function: &str) {
        let (core, conn) = client;
        let submit = packet(Command::SubmitJobBg, &[function.as_bytes(), b""], b"payload");
        self.shards[core].received(conn, &submit, self.now);
    }

    /// Grabs; the handle of the job assigned, nothing for NO_JOB.
    pub(super) fn grab(&mut self, worker: Peer) -> Option<Vec<u8>> {
        self.packet(worker, Command::GrabJob, &[], b"");
        let reply = self.hear(worker);
        if reply == response(Command::NoJob, &[], b"") {
            return None;
        }
        let end = reply[12..].iter().position(|&byte| byte == 0).unwrap();
        Some(reply[12..12 + end].to_vec())
    }

    /// Falls asleep; whether a NOOP came at once.
    pub(super) fn sleeps(&mut self, worker: Peer) -> bool {
        self.packet(worker, Command::PreSleep, &[], b"");
        self.hear(worker) != response(Command::Noop, &[], b"")
    }
}

mod tests;
