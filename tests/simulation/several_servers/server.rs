//! One server: its shards, its writer, its watch of the partitions.
//!
//! Calls the shards as the server's own threads do: suspension at the begin of each turn, outcomes
//! in their order, what was done before a loss told as such.
//!
//! Invariant: nothing happens here while the server is stopped.

use std::time::Duration;

use ringgear::cluster::lease::Lease;
use ringgear::cluster::partition::{PartitionId, Reading};
use ringgear::cluster::watch::Watch;
use ringgear::engine::function::{Durabilities, Durability};
use ringgear::engine::handle::Handles;
use ringgear::engine::{self, ConnId, Now};
use ringgear::shard::{Intake, Origin, Settings};

use super::database::{Database, Token};
use super::writer::{Outcome, Writer};
use crate::mesh::Mesh;

/// Jobs in a batch of a load.
const BATCH: usize = 3;

/// An adopted partition whose jobs are being loaded.
#[derive(Debug)]
struct Load {
    id: PartitionId,
    generation: i64,
    below: Option<u64>,
}

pub(super) struct Server {
    pub(super) mesh: Mesh,
    pub(super) writer: Writer,
    watch: Watch,
    session: u64,
    loads: Vec<Load>,
    /// Reports of losses and homes that the shards have heard of.
    moves: u64,
    is_suspended: bool,
    pub(super) is_paused: bool,
    pub(super) is_cut: bool,
    /// What has come while it was stopped: bytes, or the end of the connection.
    pub(super) waiting: Vec<(ConnId, Option<Vec<u8>>)>,
}

/// What a server has for its peers.
#[derive(Debug, Default)]
pub(super) struct Sent {
    pub(super) bytes: Vec<(ConnId, Vec<u8>)>,
    pub(super) closed: Vec<ConnId>,
}

impl Server {
    pub(super) fn start(
        token: Token,
        database: &mut Database,
        cores: usize,
        now: Duration,
    ) -> Self {
        let default = Durability::Fsync;
        let settings = Settings {
            engine: engine::Settings {
                durabilities: Durabilities { default, ..Durabilities::default() },
                hash_seed: token,
                ..engine::Settings::default()
            },
            handles: Handles::new(b"H:sim").unwrap(),
            ..Settings::default()
        };
        let mesh = Mesh::new(&settings, cores, false, token, at(now));
        let mut server = Self {
            mesh,
            writer: Writer::start(token, database, now),
            watch: Watch::new(Lease::default()),
            session: 1,
            loads: Vec::new(),
            moves: 0,
            is_suspended: false,
            is_paused: false,
            is_cut: false,
            waiting: Vec::new(),
        };
        let Some(Outcome::Home(sequences)) = server.writer.outcomes.pop_front() else {
            panic!("a server has a home when it starts")
        };
        server.moves += 1;
        server.mesh.set_sequences(&sequences);
        server
    }

    pub(super) fn connect(&mut self, number: ConnId, fd: i32, now: Duration) -> ConnId {
        let peer = (std::net::Ipv4Addr::new(10, 0, 0, 1), 4001).into();
        self.mesh.connect(Origin { fd, peer, listener: 0 }, number, at(now)).unwrap()
    }

    /// A turn of the cores begins.
    pub(super) fn turn(&mut self, now: Duration) {
        if self.is_late(now) {
            self.is_suspended = true;
            self.mesh.set_suspended(true, at(now));
        }
    }

    /// Whether there was no beat for too long.
    fn is_late(&self, now: Duration) -> bool {
        now - self.writer.good_at >= Lease::default().suspends_after()
    }

    /// Whether a suspension may end once all outcomes have been heard.
    pub(super) fn may_resume(&self, now: Duration) -> bool {
        self.is_suspended && !self.is_late(now)
    }

    pub(super) fn resume(&mut self, now: Duration) {
        self.is_suspended = false;
        self.mesh.set_suspended(false, at(now));
    }

    /// What has come from a connection is handled.
    pub(super) fn receive(&mut self, conn: ConnId, bytes: Option<&[u8]>, now: Duration) {
        match bytes {
            Some(bytes) => self.mesh.received(conn, bytes, at(now)),
            None => self.mesh.disconnect(conn, at(now)),
        }
    }

    /// Takes what the shards have for peers and store.
    pub(super) fn collect(&mut self, database: &Database, now: Duration) -> Sent {
        let mut sent = Sent::default();
        while let Some(conn) = self.mesh.next_dirty(at(now)) {
            while let Some((chunk, _)) = self.mesh.take(conn) {
                sent.bytes.push((conn, chunk.as_ref().to_vec()));
                self.mesh.sent(conn, chunk, at(now));
            }
            if self.mesh.intake(conn) == Intake::Close {
                sent.closed.push(conn);
            }
        }
        self.hand_over(database);
        sent
    }

    fn hand_over(&mut self, database: &Database) {
        let mut operations = Vec::new();
        self.mesh.take_operations(&mut operations);
        self.writer.push(self.moves, operations, database);
    }

    /// The shards hear of an outcome; returns what they have for peers.
    pub(super) fn hear(&mut self, database: &Database, now: Duration) -> Sent {
        let time = at(now);
        match self.writer.outcomes.pop_front() {
            Some(Outcome::Stored(numbers)) => {
                numbers.into_iter().for_each(|number| self.mesh.stored(number, true, time));
            }
            Some(Outcome::Failed(numbers)) => {
                numbers.into_iter().for_each(|number| self.mesh.stored(number, false, time));
            }
            Some(Outcome::Missing(numbers)) => {
                numbers.into_iter().for_each(|number| self.mesh.keep_again(number, time));
            }
            Some(Outcome::Dropped(id)) => {
                self.hand_over(database);
                self.moves += 1;
                let belongs = |number| database.partition_of(number) == Some(id);
                self.mesh.drop_partition(&belongs, time);
            }
            Some(Outcome::Home(sequences)) => {
                self.hand_over(database);
                self.moves += 1;
                self.mesh.move_home(&sequences, time);
            }
            Some(Outcome::Adopted(rows)) => self.mesh.adopt(&rows, time),
            None => {}
        }
        self.collect(database, now)
    }

    /// A read of the partitions was answered.
    pub(super) fn read(&mut self, readings: &[Reading], now: Duration) {
        self.watch.read(now, self.session, readings);
    }

    /// A read has failed.
    pub(super) fn fail_read(&mut self) {
        self.watch.failed();
        self.session += 1;
    }

    /// Adopts what has no owner; returns the number of partitions.
    pub(super) fn adopt(&mut self, database: &mut Database, now: Duration) -> usize {
        let mut adopted = 0;
        for seen in self.watch.orphans(now, 0) {
            if self.writer.owns(seen.id) {
                continue;
            }
            let before = (seen.generation, database.owner(seen.id));
            let Some(generation) = database.adopt(seen, self.writer.token) else { continue };
            adopted += 1;
            self.writer.adopt(seen.id, generation, before, database);
            self.loads.retain(|load| load.id != seen.id);
            self.loads.push(Load { id: seen.id, generation, below: None });
        }
        adopted
    }

    /// Loads a batch of the jobs of an adopted partition.
    pub(super) fn load(&mut self, database: &Database) {
        let Some(Load { id, generation, below }) = self.loads.pop() else { return };
        let rows: Vec<_> = database.jobs_of(id, below).take(BATCH).cloned().collect();
        let last = rows.last().map(|row| row.number);
        if self.writer.load(id, generation, rows) && last.is_some() {
            self.loads.push(Load { id, generation, below: last });
        }
    }

    /// Gives adopted partitions up that are empty.
    pub(super) fn free_empty(&mut self, database: &mut Database) {
        let loading: Vec<PartitionId> = self.loads.iter().map(|load| load.id).collect();
        self.writer.free_empty(&loading, database);
    }

    /// Whether nothing is on its way.
    pub(super) fn is_quiet(&self) -> bool {
        self.loads.is_empty() && self.writer.is_quiet()
    }
}

/// The time as shards take it.
pub(super) fn at(now: Duration) -> Now {
    let ms = u64::try_from(now.as_millis()).unwrap();
    Now { mono_ms: ms, unix_ms: 1_700_000_000_000 + ms }
}
