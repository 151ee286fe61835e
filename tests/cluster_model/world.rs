//! Three servers, one database and their clock: what may happen next, and what comes of it.
//!
//! Servers that run have one round in each tick, in any order: a beat and a read, either first, and
//! then what follows from them. Everything else happens as often as the scenario says.
//!
//! Invariant: `actions` names all that may happen, and `perform` does one of them.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use ringgear::cluster::partition::{PartitionId, Seen, State};

use crate::database::{Database, PARTITIONS, Row, ServerId, Transaction};
use crate::scenario::Scenario;
use crate::server::{LEASE, Server, TICK};

const SERVERS: ServerId = 3;

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Tick,
    /// A beat, then a read of the partitions.
    BeatAndRead(ServerId),
    ReadAndBeat(ServerId),
    /// A commit is sent, and takes its time; then a read.
    SendAndRead(ServerId),
    /// A transaction reaches the database.
    Arrive(ServerId),
    /// Its answer reaches the server.
    Answer(ServerId),
    /// The server gives up waiting for it.
    LoseAnswer(ServerId),
    /// A transaction without a sender reaches the database.
    ArriveLate(usize),
    Adopt(ServerId, Seen),
    Load(ServerId, PartitionId),
    TakeHome(ServerId, PartitionId),
    /// The same with a new partition.
    MakeHome(ServerId),
    Free(ServerId, PartitionId),
    Submit(ServerId),
    Run(ServerId, u64),
    Kill(ServerId),
    Leave(ServerId),
    Pause(ServerId),
    Resume(ServerId),
    Cut(ServerId),
    Heal(ServerId),
    Fail,
    Recover,
}

/// What may be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Breach {
    /// A transaction was applied to a partition whose jobs another server had loaded.
    LateCommit,
    /// A server may hand out jobs of a partition that another server owns.
    NotSuspended,
    /// A partition was adopted though its beat hadn't stood still for the lease.
    AdoptedEarly,
    /// An acknowledged job is neither done nor stored.
    LostJob,
    /// A job is stored in a partition that isn't its own.
    Misplaced,
    /// A job that was removed is there again.
    Resurrected,
    /// A job that is stored can't be had, though a server lives and all is well.
    Unserved,
}

#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) now: Duration,
    pub(crate) database: Database,
    is_down: bool,
    pub(crate) servers: Vec<Server>,
    /// Transactions whose senders gave them up.
    late: Vec<(ServerId, Transaction)>,
    /// Jobs whose submissions were acknowledged, and those that were run.
    acknowledged: BTreeSet<u64>,
    run: BTreeSet<u64>,
    /// Since when the database can be reached and each partition's beat stands still.
    still_since: Vec<Duration>,
    left: Scenario,
    pub(crate) breach: Option<Breach>,
}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Database { rows, blocks, removed } = &self.database;
        (self.now, rows, blocks, removed, self.is_down, &self.servers).hash(state);
        let Scenario { kills, leaves, pauses, cuts, outages, .. } = self.left;
        let Scenario { delays, losses, submissions, runs, .. } = self.left;
        (kills, leaves, pauses, cuts, outages, delays, losses, submissions, runs).hash(state);
        (&self.late, &self.acknowledged, &self.run, &self.still_since).hash(state);
    }
}

impl World {
    /// The first two servers have a partition with a job each, the third one none.
    pub(crate) fn start(scenario: Scenario) -> Self {
        let database = Database::start();
        let home = |id| u32::try_from(id).ok().filter(|&id| id < PARTITIONS);
        let mut world = Self {
            now: Duration::ZERO,
            servers: (0..SERVERS).map(|id| Server::start(id, home(id), &database)).collect(),
            acknowledged: database.rows.iter().flat_map(|row| row.jobs.clone()).collect(),
            database,
            is_down: false,
            late: Vec::new(),
            run: BTreeSet::new(),
            still_since: vec![Duration::ZERO; PARTITIONS as usize],
            left: scenario,
            breach: None,
        };
        // All have seen all.
        (0..SERVERS).for_each(|id| world.perform(Action::BeatAndRead(id)));
        world.perform(Action::Tick);
        world
    }

    /// All that may happen next.
    pub(crate) fn actions(&self) -> Vec<Action> {
        let mut actions = self.duties();
        if actions.is_empty() && self.now < TICK * self.left.ticks {
            actions.push(Action::Tick);
        }
        let left = &self.left;
        let begins = self.now <= TICK * left.begin;
        let late = (0..self.late.len()).map(Action::ArriveLate);
        actions.extend(late.filter(|_| !self.is_down));
        for server in self.servers.iter().filter(|server| !server.is_gone) {
            let id = server.id;
            // Before a server's round is as good as after the one before, but for what is halfway.
            let is_halfway = server.own.values().any(|own| !own.is_loaded);
            let is_hit = left.hits.contains(&id) && begins && (!server.is_done || is_halfway);
            let reaches = server.runs() && self.reaches(server);
            if let Some(flight) = &server.flight {
                let may_arrive = flight.answer.is_none() && !self.is_down && !server.is_cut;
                actions.extend(may_arrive.then_some(Action::Arrive(id)));
                let may_answer = flight.answer.is_some() && reaches;
                actions.extend(may_answer.then_some(Action::Answer(id)));
                let may_lose = server.runs() && left.losses > 0;
                actions.extend(may_lose.then_some(Action::LoseAnswer(id)));
            }
            if server.runs() {
                let sends = reaches && !server.is_done && server.flight.is_none();
                let runs = server.jobs.iter().filter(|&&number| {
                    let id = self.database.blocks.partition_of(number);
                    left.runs > 0 && id.is_some_and(|id| server.hands_out(id))
                });
                actions.extend(runs.map(|&number| Action::Run(id, number)));
                actions.extend(
                    (is_hit && sends && left.delays > 0).then_some(Action::SendAndRead(id)),
                );
                let submits = is_hit && left.submissions > 0 && server.waiting.is_none();
                actions.extend(submits.then_some(Action::Submit(id)));
                actions.extend((is_hit && left.pauses > 0).then_some(Action::Pause(id)));
                actions.extend((is_hit && left.leaves > 0 && reaches).then_some(Action::Leave(id)));
            } else {
                actions.push(Action::Resume(id));
            }
            actions.extend((is_hit && left.kills > 0).then_some(Action::Kill(id)));
            if server.is_cut {
                actions.push(Action::Heal(id));
            } else {
                actions.extend((is_hit && left.cuts > 0).then_some(Action::Cut(id)));
            }
        }
        match self.is_down {
            // One that no server notices is none.
            true => actions.extend(self.all_run(|it| it.is_done).then_some(Action::Recover)),
            false => {
                let fails = begins && left.outages > 0 && self.all_run(|it| !it.is_done);
                actions.extend(fails.then_some(Action::Fail));
            }
        }
        actions
    }

    /// What servers that run do before the next tick.
    fn duties(&self) -> Vec<Action> {
        let mut duties = Vec::new();
        for server in self.servers.iter().filter(|server| server.runs()) {
            let id = server.id;
            if !server.is_done {
                duties.push(Action::BeatAndRead(id));
                if self.reaches(server) && server.flight.is_none() {
                    duties.push(Action::ReadAndBeat(id));
                }
            }
            if !self.reaches(server) {
                continue;
            }
            let orphans = server.orphans(self.now).into_iter();
            duties.extend(orphans.map(|seen| Action::Adopt(id, seen)));
            let own = || server.own.iter();
            let unloaded = own().filter(|(_, own)| !own.is_loaded);
            duties.extend(unloaded.map(|(&partition, _)| Action::Load(id, partition)));
            if server.home.is_none() {
                let free = (0..).zip(&self.database.rows);
                let mut free = free.filter(|(_, row)| row.state == State::Free).peekable();
                if server.waiting.is_some() && free.peek().is_none() {
                    duties.push(Action::MakeHome(id));
                }
                duties.extend(free.map(|(partition, _)| Action::TakeHome(id, partition)));
            }
            let empty = own().filter(|&(&partition, own)| {
                let is_adopted = server.home != Some(partition) && own.is_loaded;
                is_adopted && server.has_nothing_of(partition, &self.database)
            });
            duties.extend(empty.map(|(&partition, _)| Action::Free(id, partition)));
        }
        duties
    }

    fn all_run(&self, and: impl Fn(&Server) -> bool) -> bool {
        self.servers.iter().filter(|server| server.runs()).all(and)
    }

    fn reaches(&self, server: &Server) -> bool {
        !self.is_down && !server.is_cut
    }

    pub(crate) fn perform(&mut self, action: Action) {
        let (now, fault) = (self.now, self.left.fault);
        let mut beats: Vec<i64> = self.database.rows.iter().map(|row| row.beat).collect();
        match action {
            Action::Tick => {
                self.now += TICK;
                self.servers.iter_mut().for_each(|server| server.is_done = false);
            }
            Action::BeatAndRead(id) => {
                self.servers[id].is_done = true;
                self.beat(id);
                self.read(id);
                self.servers[id].turn(now, fault);
            }
            Action::ReadAndBeat(id) => {
                self.servers[id].is_done = true;
                self.read(id);
                self.beat(id);
                self.servers[id].turn(now, fault);
            }
            Action::SendAndRead(id) => {
                self.left.delays -= 1;
                self.servers[id].is_done = true;
                self.servers[id].reconnect(&mut self.database, fault);
                self.servers[id].send(now);
                self.read(id);
                self.servers[id].turn(now, fault);
            }
            Action::Arrive(id) => self.arrive(id),
            Action::Answer(id) => self.answer(id),
            Action::LoseAnswer(id) => {
                self.left.losses -= 1;
                self.give_up_flight(id);
            }
            Action::ArriveLate(at) => {
                let (sender, transaction) = self.late.remove(at);
                self.apply(sender, &transaction);
            }
            Action::Adopt(id, seen) => self.adopt(id, seen),
            Action::Load(id, partition) => self.servers[id].load(partition, &self.database),
            Action::TakeHome(id, partition) => self.take_home(id, partition),
            Action::MakeHome(id) => {
                let partition = self.database.make_partition();
                self.still_since.push(now);
                beats.push(0);
                self.take_home(id, partition);
            }
            Action::Free(id, partition) => {
                let Some(own) = self.servers[id].own.remove(&partition) else { return };
                self.database.free(partition, own.generation);
            }
            Action::Submit(id) => {
                self.left.submissions -= 1;
                self.servers[id].submit();
            }
            Action::Run(id, number) => {
                self.left.runs -= 1;
                self.run.insert(number);
                self.servers[id].run(number);
            }
            Action::Kill(id) => {
                self.left.kills -= 1;
                self.give_up_flight(id);
                self.servers[id].is_gone = true;
            }
            Action::Leave(id) => self.leave(id),
            Action::Pause(id) => {
                self.left.pauses -= 1;
                self.servers[id].is_paused = true;
            }
            Action::Resume(id) => {
                self.servers[id].is_paused = false;
                self.servers[id].turn(now, fault);
            }
            Action::Cut(id) => {
                self.left.cuts -= 1;
                self.servers[id].is_cut = true;
            }
            Action::Heal(id) => self.servers[id].is_cut = false,
            Action::Fail => {
                self.left.outages -= 1;
                self.is_down = true;
            }
            Action::Recover => self.is_down = false,
        }
        for (id, row) in self.database.rows.iter().enumerate() {
            if self.is_down || row.beat != beats[id] {
                self.still_since[id] = now;
            }
        }
        self.check();
    }

    /// The beat of a server's round, with all that it has to commit.
    fn beat(&mut self, id: ServerId) {
        if !self.reaches(&self.servers[id]) {
            self.give_up_flight(id);
            return;
        }
        if self.servers[id].flight.is_some() {
            return;
        }
        self.servers[id].reconnect(&mut self.database, self.left.fault);
        // What is lost is left out, and the rest tried again at once.
        for _ in 0..=self.servers[id].own.len() {
            self.servers[id].send(self.now);
            self.arrive(id);
            let had = self.servers[id].own.len();
            self.answer(id);
            if self.servers[id].own.len() == had {
                break;
            }
        }
    }

    fn read(&mut self, id: ServerId) {
        let server = &self.servers[id];
        if !self.reaches(server) {
            self.servers[id].fail_read(self.left.fault);
            return;
        }
        let holds = |owner: ServerId| {
            let owner = &self.servers[owner];
            self.left.tells_locks.then_some(!owner.is_gone)
        };
        let readings = self.database.readings(holds);
        self.servers[id].read(self.now, &readings);
    }

    fn arrive(&mut self, id: ServerId) {
        let Some(mut flight) = self.servers[id].flight.take() else { return };
        flight.answer = Some(self.apply(id, &flight.transaction));
        self.servers[id].flight = Some(flight);
    }

    fn apply(&mut self, sender: ServerId, transaction: &Transaction) -> Vec<PartitionId> {
        let before = self.database.rows.clone();
        let lost = self.database.commit(transaction, self.left.fault);
        for (row, before) in self.database.rows.iter().zip(before) {
            let is_changed = row.jobs != before.jobs;
            let has_loaded = row.owner.filter(|&owner| owner != sender);
            if is_changed && has_loaded.is_some() {
                self.breach = Some(Breach::LateCommit);
            }
            if row
                .jobs
                .iter()
                .any(|it| !before.jobs.contains(it) && self.database.removed.contains(it))
            {
                self.breach = Some(Breach::Resurrected);
            }
        }
        lost
    }

    fn answer(&mut self, id: ServerId) {
        let stored = self.servers[id].answered(&self.database, self.left.fault);
        self.acknowledged.extend(stored);
    }

    fn give_up_flight(&mut self, id: ServerId) {
        let flight = self.servers[id].give_up_flight();
        self.late.extend(flight.map(|transaction| (id, transaction)));
    }

    fn adopt(&mut self, id: ServerId, seen: Seen) {
        let Row { owner, .. } = *self.database.row(seen.id);
        if !self.servers[id].try_adopt(seen, &mut self.database) {
            return;
        }
        let stood_still = self.now - self.still_since[seen.id as usize];
        // A lock that is released tells that its owner has ended.
        let is_gone = |owner: ServerId| self.left.tells_locks && self.servers[owner].is_gone;
        if stood_still < LEASE && owner.is_some_and(|owner| !is_gone(owner)) {
            self.breach = Some(Breach::AdoptedEarly);
        }
    }

    fn take_home(&mut self, id: ServerId, partition: PartitionId) {
        let row = &self.database.rows[partition as usize];
        let seen = Seen { id: partition, generation: row.generation, beat: row.beat };
        let generation = self.database.adopt(seen, id);
        let next_number = self.database.take_block(partition);
        if let Some(generation) = generation {
            self.servers[id].move_home(partition, generation, next_number);
        }
    }

    fn leave(&mut self, id: ServerId) {
        self.left.leaves -= 1;
        self.beat(id);
        let server = &mut self.servers[id];
        server.is_gone = true;
        // One whose answer is on its way offers nothing: others have to wait for the lease.
        for (&partition, own) in server.own.iter().filter(|_| server.flight.is_none()) {
            if !self.database.free(partition, own.generation) {
                self.database.offer(partition, own.generation);
            }
        }
        self.give_up_flight(id);
    }

    /// What must hold at all times.
    fn check(&mut self) {
        let Database { rows, blocks, .. } = &self.database;
        let owns = |id: PartitionId, server: &Server| rows[id as usize].owner == Some(server.id);
        let mut wrong = None;
        for (id, row) in (0..).zip(rows) {
            let has_owner = row.owner.is_some();
            let others = self.servers.iter().filter(|server| !owns(id, server));
            if has_owner && others.filter(|server| server.hands_out(id)).count() > 0 {
                wrong = Some(Breach::NotSuspended);
            }
            let is_misplaced = |&number: &u64| blocks.partition_of(number) != Some(id);
            if row.jobs.iter().any(is_misplaced) {
                wrong = Some(Breach::Misplaced);
            }
        }
        let is_stored = |number: &u64| rows.iter().any(|row| row.jobs.contains(number));
        if self.acknowledged.iter().any(|it| !self.run.contains(it) && !is_stored(it)) {
            wrong = Some(Breach::LostJob);
        }
        self.breach = self.breach.or(wrong);
    }

    /// Whether all stored jobs can be had once all that can heal has healed, and some time has
    /// passed.
    pub(crate) fn is_served_in_the_end(&self) -> bool {
        let mut world = self.clone();
        world.left = Scenario { ticks: u32::MAX, fault: world.left.fault, ..Scenario::default() };
        world.is_down = false;
        for server in &mut world.servers {
            (server.is_paused, server.is_cut) = (false, false);
        }
        // Enough for two leases, one after the other.
        for _ in 0..16 {
            for id in 0..SERVERS {
                world.perform(Action::Arrive(id));
                world.perform(Action::Answer(id));
            }
            while let Some(&duty) = world.duties().first() {
                world.perform(duty);
            }
            world.perform(Action::Tick);
        }
        if world.servers.iter().all(|server| server.is_gone) {
            return true;
        }
        let rows = (0..).zip(&world.database.rows);
        rows.filter(|(_, row)| !row.jobs.is_empty()).all(|(id, row)| {
            let owner = row.owner.map(|owner| &world.servers[owner]);
            owner.is_some_and(|owner| owner.hands_out(id) && row.jobs.is_subset(&owner.jobs))
        })
    }
}
