//! One server of several shards: the calls of a driver in, the same as one shard takes; letters
//! between the shards travel inside.
//!
//! Connections have numbers of their own here, as those of different cores are alike and change
//! when one moves. Prompt letters all arrive before a call is over, slow ones when `carry` is
//! called; which ring is next is left to chance. Knows nothing of what letters say.
//!
//! Invariant: letters of one core to another arrive in the order in which they were sent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use fastrand::Rng;
use ringgear::engine::policy::Policies;
use ringgear::engine::record::{DeadRow, Operation, Pause, Row};
use ringgear::engine::{ConnId, FunctionId, JobId, Now};
use ringgear::shard::cores::{Core, CoreSet, Cores};
use ringgear::shard::operator::{OperatorReply, OperatorRequest};
use ringgear::shard::remote::message::{HomeConnId, Message};
use ringgear::shard::{
    Intake, MigratingConnection, Origin, OtherCores, Service, Settings, Shard, TooManyConnections,
};
use ringgear::wire::outbox::Chunk;

use crate::audit::Audit;
use crate::tls::{self, TlsPeers};

enum Mail {
    Message(Message),
    /// A connection that moves, with its number, and the functions that it brings along if it makes
    /// room.
    Connection(ConnId, MigratingConnection, Vec<Vec<u8>>),
}

pub(crate) struct Mesh {
    shards: Vec<Shard>,
    /// What is on its way, by sender and receiver; only rings with something.
    rings: BTreeMap<(Core, Core), VecDeque<Mail>>,
    /// Each connection's core and number there, and the other way round.
    places: BTreeMap<ConnId, (Core, ConnId)>,
    /// The rings of connections that are on their way.
    moving: BTreeMap<ConnId, (Core, Core)>,
    /// Connections that have moved, either way.
    pub(crate) moved: u64,
    /// Those of them that made room.
    pub(crate) made_room: u64,
    numbers: BTreeMap<(Core, ConnId), ConnId>,
    /// Letters wait for `carry`.
    slow: bool,
    /// With more letters than these of one core to another the first is congested.
    ring_max: usize,
    /// Cores towards which each core is congested, one bit each.
    congested: Vec<u64>,
    /// How often one became so.
    pub(crate) congestions: u64,
    audit: Audit,
    /// What operators are answered.
    replies: Vec<OperatorReply>,
    /// Bytes of letters to operators that have come, less those from them.
    http_bytes: isize,
    tls_peers: TlsPeers,
    rng: Rng,
}

impl Mesh {
    pub(crate) fn new(settings: &Settings, cores: usize, slow: bool, seed: u64, now: Now) -> Self {
        let shard = |own| {
            let cores = Cores { own, count: cores };
            Shard::new(Settings { cores, ..settings.clone() }, now)
        };
        Self {
            shards: (0..cores).map(shard).collect(),
            rings: BTreeMap::new(),
            places: BTreeMap::new(),
            moving: BTreeMap::new(),
            moved: 0,
            made_room: 0,
            numbers: BTreeMap::new(),
            slow,
            ring_max: usize::MAX,
            congested: vec![0; cores],
            congestions: 0,
            audit: Audit::default(),
            replies: Vec::new(),
            http_bytes: 0,
            tls_peers: TlsPeers::default(),
            rng: Rng::with_seed(seed),
        }
    }

    /// Rings have room for so many letters.
    pub(crate) fn with_rings(self, ring_max: usize) -> Self {
        Self { ring_max, ..self }
    }

    pub(crate) fn ring_max(&self) -> usize {
        self.ring_max
    }

    pub(crate) fn cores(&self) -> Cores {
        Cores { own: 0, count: self.shards.len() }
    }

    pub(crate) fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// A connection comes to any core, and gets `number` if there are several.
    pub(crate) fn connect(
        &mut self,
        origin: Origin,
        number: ConnId,
        now: Now,
    ) -> Result<ConnId, TooManyConnections> {
        let core = self.rng.usize(0..self.shards.len());
        let local = self.shard(core).connect(origin, now)?;
        let number = if self.shards.len() == 1 { local } else { number };
        let place = (core, local);
        assert_eq!(self.places.insert(number, place), None, "the number {number} is taken");
        assert_eq!(self.numbers.insert(place, number), None, "{place:?} is taken");
        if origin.listener == tls::LISTENER {
            self.tls_peers.connect(number, local, &mut self.shards[core], now);
        }
        Ok(number)
    }

    pub(crate) fn received(&mut self, conn: ConnId, bytes: &[u8], now: Now) {
        let (core, local) = self.land(conn, now);
        let records = self.tls_peers.said(conn, bytes);
        self.shard(core).received(local, records.as_deref().unwrap_or(bytes), now);
    }

    pub(crate) fn ended(&mut self, conn: ConnId, now: Now) {
        let (core, local) = self.land(conn, now);
        self.shard(core).ended(local, now);
    }

    pub(crate) fn disconnect(&mut self, conn: ConnId, now: Now) {
        let place = self.land(conn, now);
        self.places.remove(&conn);
        self.numbers.remove(&place);
        self.tls_peers.disconnect(conn);
        self.shard(place.0).disconnect(place.1, now);
    }

    pub(crate) fn lend(&mut self, conn: ConnId) -> Option<(Vec<u8>, usize)> {
        let (core, local) = self.places[&conn];
        self.shards[core].lend(local)
    }

    pub(crate) fn give_back(&mut self, conn: ConnId, body: Vec<u8>, now: Now) {
        let (core, local) = self.land(conn, now);
        self.shard(core).give_back(local, body, now);
    }

    pub(crate) fn take(&mut self, conn: ConnId) -> Option<(Chunk, bool)> {
        let &(core, local) = self.places.get(&conn)?;
        let (chunk, more) = self.shards[core].take(local)?;
        Some((self.tls_peers.open(conn, chunk), more))
    }

    pub(crate) fn sent(&mut self, conn: ConnId, chunk: Chunk, now: Now) {
        let (core, local) = self.land(conn, now);
        let chunk = self.tls_peers.sent(conn, chunk);
        self.shard(core).sent(local, chunk, now);
    }

    pub(crate) fn intake(&self, conn: ConnId) -> Intake {
        if self.moving.contains_key(&conn) {
            return Intake::Pause;
        }
        let (core, local) = self.places[&conn];
        let shard = &self.shards[core];
        match shard.intake(local) {
            // A driver may read what has to wait until the connection has moved. This doesn't, so
            // that what has arrived is handled, and when is known.
            Intake::Read if shard.is_moving(local) => Intake::Pause,
            intake => intake,
        }
    }

    pub(crate) fn waiting(&self, conn: ConnId) -> impl Iterator<Item = (Option<Vec<u8>>, Vec<u8>)> {
        let place = self.places.get(&conn).into_iter();
        place.flat_map(|&(core, local)| self.shards[core].waiting(local))
    }

    /// Where a connection is; one on its way arrives before.
    fn land(&mut self, conn: ConnId, now: Now) -> (Core, ConnId) {
        while let Some(&ring) = self.moving.get(&conn) {
            self.carry_one(ring, now);
        }
        let Some(&place) = self.places.get(&conn) else { panic!("{conn} is gone already") };
        place
    }

    /// Lets connections go that are to move.
    fn hand_over(&mut self, now: Now) {
        for (conn, (from, local)) in self.places.clone() {
            if self.shards[from].intake(local) != Intake::Move || self.slow && self.rng.bool() {
                continue;
            }
            let Some(hand_over) = self.shards[from].begin_hand_over(local) else {
                panic!("{conn}: where to?")
            };
            let to = hand_over.to();
            if self.rng.u32(0..8) == 0 {
                self.shards[from].cancel_hand_over(hand_over);
                continue;
            }
            let (stand_ins, _) = self.shards[from].remote_counts();
            let functions = self.shards[from].engine().functions_of(local);
            let functions: Vec<Vec<u8>> = functions.map(<[u8]>::to_vec).collect();
            let passenger = self.shard(from).detach(hand_over, now);
            let makes_room = self.shards[from].remote_counts().0 > stand_ins;
            self.audit.departed(from, HomeConnId::of(local), makes_room);
            self.made_room += u64::from(makes_room);
            self.post(from);
            self.places.remove(&conn);
            self.numbers.remove(&(from, local));
            self.moving.insert(conn, (from, to));
            let ring = self.rings.entry((from, to)).or_default();
            let functions = if makes_room { functions } else { Vec::new() };
            ring.push_back(Mail::Connection(conn, passenger, functions));
            self.moved += 1;
        }
    }

    /// The next dirty connection of any core; prompt letters arrive meanwhile.
    pub(crate) fn next_dirty(&mut self, now: Now) -> Option<ConnId> {
        loop {
            for core in 0..self.shards.len() {
                let dirty = self.shard(core).poll_dirty(now);
                self.post(core);
                if let Some(local) = dirty {
                    return Some(self.numbers[&(core, local)]);
                }
            }
            self.hand_over(now);
            // A connection that stays after all goes on with what has arrived.
            if self.shards.iter().any(Shard::has_resumed) {
                continue;
            }
            if self.slow || self.carry(now).is_none() {
                return None;
            }
        }
    }

    /// A ring with something in it, and the oldest of it in words.
    pub(crate) fn any_mail(&mut self) -> Option<((Core, Core), String)> {
        let ring = self.any_ring()?;
        let mail = match &self.rings[&ring][0] {
            Mail::Message(letter) => format!("{letter:?}"),
            Mail::Connection(conn, ..) => format!("{conn} itself"),
        };
        Some((ring, mail))
    }

    fn any_ring(&mut self) -> Option<(Core, Core)> {
        let at = self.rng.usize(0..self.rings.len().max(1));
        self.rings.keys().nth(at).copied()
    }

    /// The oldest letter of any ring arrives; answers with its sender and receiver, `None` if
    /// there is none.
    pub(crate) fn carry(&mut self, now: Now) -> Option<(Core, Core)> {
        let ring = self.any_ring()?;
        self.carry_one(ring, now);
        Some(ring)
    }

    /// Everything arrives that is on its way to the core of a connection.
    pub(crate) fn carry_to(&mut self, conn: ConnId, now: Now) {
        if let Some(&(core, _)) = self.places.get(&conn) {
            for from in 0..self.shards.len() {
                let letters = self.rings.get(&(from, core)).map_or(0, VecDeque::len);
                (0..letters).for_each(|_| self.carry_one((from, core), now));
            }
        }
    }

    /// The oldest letter of a ring arrives, or the connection that moves.
    pub(crate) fn carry_one(&mut self, (from, to): (Core, Core), now: Now) {
        let mail = self.rings.get_mut(&(from, to)).and_then(VecDeque::pop_front);
        self.rings.retain(|_, ring| !ring.is_empty());
        self.measure(from);
        match mail {
            Some(Mail::Message(letter)) => {
                self.audit.received(from, to, &letter);
                self.shard(to).receive_message(from, letter, now);
            }
            Some(Mail::Connection(conn, passenger, functions)) => {
                let local = self.shard(to).attach(from, passenger, now);
                self.audit.arrived(to, from, HomeConnId::of(local), functions);
                self.moving.remove(&conn);
                assert_eq!(self.places.insert(conn, (to, local)), None);
                assert_eq!(self.numbers.insert((to, local), conn), None, "{to} has a {local}");
            }
            None => panic!("the ring from {from} to {to} is empty"),
        }
        self.post(to);
    }

    fn post(&mut self, from: Core) {
        let mut letters = Vec::new();
        self.shards[from].take_messages(&mut letters);
        for (to, letter) in letters {
            if to == self.cores().http() {
                self.http_bytes += letter.bytes().cast_signed();
                if let Message::OperatorReply { reply, .. } = letter {
                    self.replies.push(*reply);
                }
                continue;
            }
            assert_ne!(from, to, "{letter:?} to itself");
            self.audit.sent(from, to, &letter);
            self.rings.entry((from, to)).or_default().push_back(Mail::Message(letter));
        }
        self.measure(from);
    }

    /// Tells a core towards which others it is congested.
    fn measure(&mut self, core: Core) {
        let before = self.congested[core];
        let is_congested = |to: &Core| {
            let most = if before >> to & 1 == 1 { self.ring_max / 2 } else { self.ring_max };
            self.rings.get(&(core, *to)).is_some_and(|ring| ring.len() > most)
        };
        let now = (0..self.shards.len()).filter(is_congested).fold(0, |now, to| now | 1 << to);
        self.congestions += u64::from((now & !before).count_ones());
        self.congested[core] = now;
        self.audit.congested(core, now);
        self.shards[core].set_congested(CoreSet::from_bits(now));
    }

    pub(crate) fn is_quiet(&self) -> bool {
        let moves =
            |&(core, local): &(Core, ConnId)| self.shards[core].intake(local) == Intake::Move;
        let resumed = self.shards.iter().any(Shard::has_resumed);
        self.rings.is_empty() && !resumed && !self.places.values().any(moves)
    }

    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        self.shards.iter().filter_map(Shard::deadline_ms).min()
    }

    pub(crate) fn tick(&mut self, now: Now) {
        for core in 0..self.shards.len() {
            self.shard(core).tick(now);
        }
    }

    pub(crate) fn stored(&mut self, number: u64, kept: bool, now: Now) {
        let owner = self.cores().owner_of_job(number);
        self.shard(owner).stored(number, kept, now);
    }

    pub(crate) fn restore(&mut self, row: &Row, now: Now) -> bool {
        let owner = self.cores().owner_of(&row.function);
        assert_eq!(owner, self.cores().owner_of_job(row.number));
        self.shard(owner).restore(row, now)
    }

    pub(crate) fn restore_dead(&mut self, row: &DeadRow, now: Now) -> bool {
        let owner = self.cores().owner_of_job(row.row.number);
        self.shard(owner).restore_dead(row, now)
    }

    pub(crate) fn restore_pause(&mut self, function: &[u8], pause: Pause, now: Now) {
        let owner = self.cores().owner_of(function);
        self.shard(owner).restore_pause(function, pause, now);
    }

    /// Whether no stored job is handed out.
    pub(crate) fn set_suspended(&mut self, is_suspended: bool, now: Now) {
        self.shards.iter_mut().for_each(|shard| shard.set_suspended(is_suspended, now));
    }

    /// Jobs are numbered with these sequences only.
    pub(crate) fn set_sequences(&mut self, sequences: &Range<u64>) {
        self.shards.iter_mut().for_each(|shard| shard.set_sequences(sequences.clone()));
    }

    /// There is another home.
    pub(crate) fn move_home(&mut self, sequences: &Range<u64>, now: Now) {
        self.shards.iter_mut().for_each(|shard| shard.move_home(sequences.clone(), now));
    }

    /// Another server has the jobs of these numbers.
    pub(crate) fn drop_partition(&mut self, belongs: &dyn Fn(u64) -> bool, now: Now) {
        self.shards.iter_mut().for_each(|shard| shard.drop_partition(belongs, now));
    }

    /// Jobs of an adopted partition, the largest number first.
    pub(crate) fn adopt(&mut self, rows: &[Row], now: Now) {
        for row in rows {
            let owner = self.cores().owner_of_job(row.number);
            self.shard(owner).adopt(std::slice::from_ref(row), now);
        }
    }

    /// The store has lost a job that it kept.
    pub(crate) fn keep_again(&mut self, number: u64, now: Now) {
        let owner = self.cores().owner_of_job(number);
        self.shard(owner).keep_again(number, now);
    }

    /// An operator asks a core, as the thread for HTTP does.
    pub(crate) fn ask(&mut self, core: Core, request: OperatorRequest, now: Now) -> OperatorReply {
        let message = Message::Operator { ticket: 1, request: Box::new(request) };
        let http = self.cores().http();
        self.http_bytes -= message.bytes().cast_signed();
        self.shard(core).receive_message(http, message, now);
        self.post(core);
        self.replies.pop().expect("a reply at once")
    }

    /// One core is told of new policies, and tells the others.
    pub(crate) fn set_policies(&mut self, policies: &Arc<Policies>, now: Now) {
        let core = self.rng.usize(0..self.shards.len());
        self.shard(core).set_policies(policies, now);
        self.post(core);
    }

    pub(crate) fn allow_async(&mut self, allowed: bool) {
        self.shards.iter_mut().for_each(|shard| shard.allow_async(allowed));
    }

    /// What the store is to do; each job is its owner's.
    pub(crate) fn take_operations(&mut self, operations: &mut Vec<Operation>) {
        let cores = self.cores();
        for (core, shard) in self.shards.iter_mut().enumerate() {
            let mut own = Vec::new();
            shard.take_operations(&mut own);
            let owner = |operation: &Operation| match operation {
                Operation::Pause { function, .. } => cores.owner_of(function),
                other => cores.owner_of_job(other.number().unwrap()),
            };
            assert!(own.iter().all(|operation| owner(operation) == core));
            operations.append(&mut own);
        }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.memory_bytes() + shard.registry_bytes()).sum()
    }

    pub(crate) fn job_bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.engine().job_bytes()).sum()
    }

    /// Packets and lines that came in, and connections that were closed for their bytes.
    pub(crate) fn handled(&self) -> (u64, u64) {
        let counters = self.shards.iter().map(|shard| shard.counters);
        counters.fold((0, 0), |sum, next| (sum.0 + next.frames(), sum.1 + next.malformed))
    }

    /// The names of all functions; each is with its owner only.
    pub(crate) fn functions(&self) -> Vec<Vec<u8>> {
        let cores = self.cores();
        let mut names = BTreeSet::new();
        for (core, shard) in self.shards.iter().enumerate() {
            for (_, function) in shard.engine().functions().iter_from(FunctionId::FIRST) {
                assert_eq!(cores.owner_of(&function.name), core, "a function of another core");
                names.insert(function.name.to_vec());
            }
        }
        names.into_iter().collect()
    }

    /// All jobs, as they are to be kept.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for engine in self.shards.iter().map(Shard::engine) {
            let jobs = engine.jobs().iter_from(JobId::FIRST);
            rows.extend(jobs.map(|(_, job)| job.row(&engine.function_of(job).name)));
        }
        rows.sort_unstable_by_key(|row| row.number);
        rows
    }

    /// All dead letters, as they are to be kept; those of each core in their order.
    pub(crate) fn dead_rows(&self) -> Vec<DeadRow> {
        let engines = self.shards.iter().map(Shard::engine);
        let rows = engines.flat_map(|engine| {
            let letters = engine.dead().iter_from(0);
            letters.filter_map(|(_, letter)| engine.dead_row(letter.job.number))
        });
        rows.collect()
    }

    /// The numbers of all dead letters, those of each core in their order.
    pub(crate) fn dead_numbers(&self) -> Vec<u64> {
        let letters = self.shards.iter().flat_map(|shard| shard.engine().dead().iter_from(0));
        letters.map(|(_, letter)| letter.job.number).collect()
    }

    /// When each job may start, in milliseconds since 1970.
    pub(crate) fn starts_ms(&self) -> BTreeMap<u64, u64> {
        let jobs = self.shards.iter().flat_map(|it| it.engine().jobs().iter_from(JobId::FIRST));
        jobs.map(|(_, job)| (job.number, job.run_at_ms())).collect()
    }

    pub(crate) fn check_invariants(&self) {
        self.shards.iter().for_each(|shard| shard.engine().check_invariants());
    }

    /// Nobody is there and nothing is to be done: no job, no byte, no timer, no stand-in.
    pub(crate) fn check_empty(&self) {
        self.check_invariants();
        assert!(self.is_quiet());
        let registry = self.shards.iter().map(|shard| shard.engine().registry_bytes());
        let load = self.shards.iter().map(Shard::load_bytes).sum::<isize>();
        let expected = registry.sum::<usize>().cast_signed() + self.http_bytes;
        assert_eq!(load, expected, "letters' bytes");
        for shard in &self.shards {
            assert!(shard.is_idle(), "no job is left");
            assert_eq!(shard.memory_bytes(), 0, "bytes that belong to nobody");
            let registry = (shard.registry_bytes(), shard.engine().registry_bytes());
            assert_eq!(registry.0, registry.1, "functions of other cores");
            assert_eq!(shard.engine().deadline_ms(), None, "timers that belong to nobody");
            assert_eq!(shard.connections(), 0);
            assert!(shard.is_flushed(), "replies that nobody waits for");
            assert_eq!(shard.remote_counts(), (0, 0), "stand-ins and questions of nobody");
            let totals = shard.engine().totals();
            assert_eq!(totals.jobs(), totals.ended(), "every job has one end: {totals:?}");
        }
    }

    /// A shard that knows what the others take of what all share.
    fn shard(&mut self, core: Core) -> &mut Shard {
        if self.shards.len() > 1 {
            // Now and then no core takes anybody in.
            let takes_none = self.rng.u32(0..4) == 0;
            let accepting = if takes_none { CoreSet::default() } else { CoreSet::ALL };
            let mut elsewhere = OtherCores { accepting, ..OtherCores::default() };
            for (_, other) in self.shards.iter().enumerate().filter(|&(other, _)| other != core) {
                elsewhere.bytes += other.load_bytes();
                elsewhere.connections += other.connections();
                let unread = other.largest_unread_bytes();
                elsewhere.largest_unread_bytes = elsewhere.largest_unread_bytes.max(unread);
            }
            self.shards[core].set_other_cores(elsewhere);
            // And now and then a core has too much to do.
            if self.rng.u32(0..20) == 0 {
                let others: Vec<Core> = Cores { own: core, ..self.cores() }.others().collect();
                let to = others[self.rng.usize(0..others.len())];
                let connections = self.rng.usize(0..3);
                self.shards[core].start_offload(to, connections);
            }
        }
        &mut self.shards[core]
    }
}
