//! One server of several shards: the calls of a driver in, the same as one shard takes; letters
//! between the shards travel inside.
//!
//! Connections have numbers of their own here, as those of different cores are alike. Prompt
//! letters all arrive before a call is over, slow ones when `carry` is called; which ring is next
//! is left to chance. Knows nothing of what letters say.
//!
//! Invariant: letters of one core to another arrive in the order in which they were sent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fastrand::Rng;
use ringgear::engine::{ConnId, Now};
use ringgear::letter::{Core, Cores, Letter};
use ringgear::outbox::Chunk;
use ringgear::shard::{Elsewhere, Intake, Origin, Settings, Shard, TooManyConnections};
use ringgear::store::{Operation, Row};

use crate::audit::Audit;

pub(crate) struct Mesh {
    shards: Vec<Shard>,
    /// Letters on their way, by sender and receiver; only rings with some.
    rings: BTreeMap<(Core, Core), VecDeque<Letter>>,
    /// Each connection's core and number there, and the other way round.
    places: BTreeMap<ConnId, (Core, ConnId)>,
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
            numbers: BTreeMap::new(),
            slow,
            ring_max: usize::MAX,
            congested: vec![0; cores],
            congestions: 0,
            audit: Audit::default(),
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
        Ok(number)
    }

    /// The core that a connection came to.
    pub(crate) fn core_of(&self, conn: ConnId) -> Core {
        self.places[&conn].0
    }

    pub(crate) fn received(&mut self, conn: ConnId, bytes: &[u8], now: Now) {
        let (core, local) = self.places[&conn];
        self.shard(core).received(local, bytes, now);
    }

    pub(crate) fn ended(&mut self, conn: ConnId, now: Now) {
        let (core, local) = self.places[&conn];
        self.shard(core).ended(local, now);
    }

    pub(crate) fn disconnect(&mut self, conn: ConnId, now: Now) {
        let Some(place) = self.places.remove(&conn) else { panic!("{conn} is gone already") };
        self.numbers.remove(&place);
        self.shard(place.0).disconnect(place.1, now);
    }

    pub(crate) fn lend(&mut self, conn: ConnId) -> Option<(Vec<u8>, usize)> {
        let (core, local) = self.places[&conn];
        self.shards[core].lend(local)
    }

    pub(crate) fn give_back(&mut self, conn: ConnId, body: Vec<u8>, now: Now) {
        let (core, local) = self.places[&conn];
        self.shard(core).give_back(local, body, now);
    }

    pub(crate) fn take(&mut self, conn: ConnId) -> Option<(Chunk, bool)> {
        let (core, local) = self.places[&conn];
        self.shards[core].take(local)
    }

    pub(crate) fn sent(&mut self, conn: ConnId, chunk: Chunk, now: Now) {
        let (core, local) = self.places[&conn];
        self.shard(core).sent(local, chunk, now);
    }

    pub(crate) fn intake(&self, conn: ConnId) -> Intake {
        let (core, local) = self.places[&conn];
        self.shards[core].intake(local)
    }

    pub(crate) fn waiting(&self, conn: ConnId) -> impl Iterator<Item = (Option<Vec<u8>>, Vec<u8>)> {
        let (core, local) = self.places[&conn];
        self.shards[core].waiting(local)
    }

    /// The next dirty connection of any core; prompt letters arrive meanwhile.
    pub(crate) fn next_dirty(&mut self, now: Now) -> Option<ConnId> {
        loop {
            for core in 0..self.shards.len() {
                let dirty = self.shard(core).next_dirty(now);
                self.post(core);
                if let Some(local) = dirty {
                    return Some(self.numbers[&(core, local)]);
                }
            }
            if self.slow || self.carry(now).is_none() {
                return None;
            }
        }
    }

    /// The oldest letter of any ring arrives; answers with its sender and receiver, `None` if
    /// there is none.
    pub(crate) fn carry(&mut self, now: Now) -> Option<(Core, Core)> {
        let ring = self.any_ring()?;
        self.carry_one(ring, now);
        Some(ring)
    }

    /// A ring with letters, and the oldest of them in words.
    pub(crate) fn any_letter(&mut self) -> Option<((Core, Core), String)> {
        let ring = self.any_ring()?;
        Some((ring, format!("{:?}", self.rings[&ring][0])))
    }

    /// The oldest letter of a ring arrives.
    pub(crate) fn carry_one(&mut self, (from, to): (Core, Core), now: Now) {
        let letter = self.rings.get_mut(&(from, to)).and_then(VecDeque::pop_front);
        self.rings.retain(|_, ring| !ring.is_empty());
        if let Some(letter) = letter {
            self.measure(from);
            self.audit.received(from, to, &letter);
            self.shard(to).receive_letter(from, letter, now);
            self.post(to);
        }
    }

    fn any_ring(&mut self) -> Option<(Core, Core)> {
        let at = self.rng.usize(0..self.rings.len().max(1));
        self.rings.keys().nth(at).copied()
    }

    fn post(&mut self, from: Core) {
        let mut letters = Vec::new();
        self.shards[from].take_letters(&mut letters);
        for (to, letter) in letters {
            assert_ne!(from, to, "{letter:?} to itself");
            self.audit.sent(from, to, &letter);
            self.rings.entry((from, to)).or_default().push_back(letter);
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
        self.shards[core].set_congested(now);
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.rings.is_empty()
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

    pub(crate) fn allow_async(&mut self, allowed: bool) {
        self.shards.iter_mut().for_each(|shard| shard.allow_async(allowed));
    }

    /// What the store is to do; each job is its owner's.
    pub(crate) fn take_operations(&mut self, operations: &mut Vec<Operation>) {
        let cores = self.cores();
        for (core, shard) in self.shards.iter_mut().enumerate() {
            let mut own = Vec::new();
            shard.take_operations(&mut own);
            assert!(own.iter().all(|operation| cores.owner_of_job(number_of(operation)) == core));
            operations.append(&mut own);
        }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.shards.iter().map(Shard::memory_bytes).sum()
    }

    pub(crate) fn job_bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.engine().job_bytes()).sum()
    }

    /// Packets and lines that came in, and connections that were closed for their bytes.
    pub(crate) fn handled(&self) -> (u64, u64) {
        let counters = self.shards.iter().map(|shard| shard.counters);
        counters.fold((0, 0), |sum, next| (sum.0 + next.frames, sum.1 + next.malformed))
    }

    /// The names of all functions; each is with its owner only.
    pub(crate) fn functions(&self) -> Vec<Vec<u8>> {
        let cores = self.cores();
        let mut names = BTreeSet::new();
        for (core, shard) in self.shards.iter().enumerate() {
            for (_, function) in shard.engine().functions().iter_from(0) {
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
            let jobs = engine.jobs().iter_from(0);
            rows.extend(jobs.map(|(_, job)| job.row(&engine.function_of(job).name)));
        }
        rows.sort_unstable_by_key(|row| row.number);
        rows
    }

    pub(crate) fn check_invariants(&self) {
        self.shards.iter().for_each(|shard| shard.engine().check_invariants());
    }

    /// Nobody is there and nothing is to be done: no job, no byte, no timer, no stand-in.
    pub(crate) fn check_empty(&self) {
        self.check_invariants();
        assert!(self.is_quiet());
        assert_eq!(self.shards.iter().map(Shard::load_bytes).sum::<isize>(), 0, "letters' bytes");
        for shard in &self.shards {
            assert!(shard.is_idle(), "no job is left");
            assert_eq!(shard.memory_bytes(), 0, "bytes that belong to nobody");
            assert_eq!(shard.engine().deadline_ms(), None, "timers that belong to nobody");
            assert_eq!(shard.connections(), 0);
            assert!(shard.is_flushed(), "replies that nobody waits for");
            assert_eq!(shard.dealings(), (0, 0), "stand-ins and questions of nobody");
            let counters = shard.engine().counters;
            let gone = counters.finished + counters.exhausted + counters.abandoned;
            assert!(gone >= counters.created, "every job has an end: {counters:?}");
        }
    }

    /// A shard that knows what the others take of what all share.
    fn shard(&mut self, core: Core) -> &mut Shard {
        if self.shards.len() > 1 {
            let mut elsewhere = Elsewhere::default();
            for (_, other) in self.shards.iter().enumerate().filter(|&(other, _)| other != core) {
                elsewhere.bytes += other.load_bytes();
                elsewhere.connections += other.connections();
            }
            self.shards[core].set_elsewhere(elsewhere);
        }
        &mut self.shards[core]
    }
}

pub(crate) fn number_of(operation: &Operation) -> u64 {
    match operation {
        Operation::Insert { row, .. } => row.number,
        Operation::SetAttempts { number, .. } | Operation::Remove { number } => *number,
    }
}
