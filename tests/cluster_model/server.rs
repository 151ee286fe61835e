//! One server, as far as the partitions are concerned: its own, its beat, its watch, its jobs.
//!
//! Decides by the server's own `Watch` and `Lease`. Knows no other server.
//!
//! Invariant: what it believes comes from answers of the database only.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ringgear::cluster::lease::Lease;
use ringgear::cluster::partition::{PartitionId, Reading, Seen};
use ringgear::cluster::watch::Watch;

use crate::database::{Database, ServerId, Transaction};
use crate::scenario::Fault;

/// Time between two rounds of a server: a beat and a read each.
pub(crate) const TICK: Duration = Duration::from_millis(1500);
pub(crate) const LEASE: Duration = Duration::from_secs(6);

/// A partition that a server takes for its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Own {
    pub(crate) generation: i64,
    /// Whether its jobs are in memory.
    pub(crate) is_loaded: bool,
}

/// A transaction on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Flight {
    pub(crate) transaction: Transaction,
    sent_at: Duration,
    /// What the database has made of it: the partitions that were lost.
    pub(crate) answer: Option<Vec<PartitionId>>,
}

/// An insert that a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Waiting {
    /// `None` until the server has a home to number it from.
    number: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Server {
    pub(crate) id: ServerId,
    /// Killed, or left.
    pub(crate) is_gone: bool,
    pub(crate) is_paused: bool,
    pub(crate) is_cut: bool,
    /// It has had its round in this tick.
    pub(crate) is_done: bool,
    pub(crate) is_suspended: bool,
    pub(crate) own: BTreeMap<PartitionId, Own>,
    pub(crate) home: Option<PartitionId>,
    next_number: u64,
    /// When its last commit was sent that succeeded.
    good_at: Duration,
    /// The session that commits has to begin anew.
    is_unsure: bool,
    session: u64,
    watch: Watch,
    /// Partitions that it has tried to adopt since the last read.
    tried: BTreeSet<PartitionId>,
    pub(crate) flight: Option<Flight>,
    /// Stored jobs in memory.
    pub(crate) jobs: BTreeSet<u64>,
    pub(crate) waiting: Option<Waiting>,
    removes: BTreeSet<u64>,
}

impl Server {
    /// A server with a home, or without one.
    pub(crate) fn start(id: ServerId, home: Option<PartitionId>, database: &Database) -> Self {
        let own = |id| (id, Own { generation: 1, is_loaded: true });
        let jobs: BTreeSet<u64> =
            home.into_iter().flat_map(|id| database.rows[id as usize].jobs.clone()).collect();
        Self {
            id,
            is_gone: false,
            is_paused: false,
            is_cut: false,
            is_done: false,
            is_suspended: false,
            own: home.into_iter().map(own).collect(),
            home,
            next_number: jobs.last().map_or(0, |last| last + 256),
            good_at: Duration::ZERO,
            is_unsure: false,
            session: 1,
            watch: Watch::new(Lease::new(LEASE)),
            tried: BTreeSet::new(),
            flight: None,
            jobs,
            waiting: None,
            removes: BTreeSet::new(),
        }
    }

    /// Whether it goes on.
    pub(crate) fn runs(&self) -> bool {
        !self.is_gone && !self.is_paused
    }

    /// Whether it may hand out stored jobs of a partition.
    pub(crate) fn hands_out(&self, id: PartitionId) -> bool {
        self.runs() && !self.is_suspended && self.own.get(&id).is_some_and(|own| own.is_loaded)
    }

    /// A turn of its cores begins.
    pub(crate) fn turn(&mut self, now: Duration, fault: Option<Fault>) {
        let lease = Lease::new(LEASE);
        let after =
            if fault == Some(Fault::NoMargin) { lease.length() } else { lease.suspends_after() };
        self.is_suspended = now - self.good_at >= after;
    }

    /// The partitions that it would adopt now.
    pub(crate) fn orphans(&self, now: Duration) -> Vec<Seen> {
        let orphans = self.watch.orphans(now, 0).into_iter();
        let is_due =
            |seen: &Seen| !self.own.contains_key(&seen.id) && !self.tried.contains(&seen.id);
        orphans.filter(is_due).collect()
    }

    /// It tries to adopt a partition.
    pub(crate) fn try_adopt(&mut self, seen: Seen, database: &mut Database) -> bool {
        self.tried.insert(seen.id);
        let Some(generation) = database.adopt(seen, self.id) else { return false };
        self.lose(seen.id, database, None);
        self.own.insert(seen.id, Own { generation, is_loaded: false });
        true
    }

    pub(crate) fn read(&mut self, now: Duration, readings: &[Reading]) {
        self.tried.clear();
        self.watch.read(now, self.session, readings);
    }

    /// The database can't be reached.
    pub(crate) fn fail_read(&mut self, fault: Option<Fault>) {
        if fault != Some(Fault::AnySession) {
            self.session += 1;
            self.watch.failed();
        }
    }

    /// All that it has to commit, with a beat of all of its partitions.
    pub(crate) fn send(&mut self, now: Duration) {
        let fences = self.own.iter().map(|(&id, own)| (id, own.generation)).collect();
        let waiting = self.waiting.iter().filter(|_| self.home.is_some());
        let inserts = waiting.filter_map(|waiting| waiting.number).collect();
        let removes = self.removes.iter().copied().collect();
        let transaction = Transaction { fences, inserts, removes };
        self.flight = Some(Flight { transaction, sent_at: now, answer: None });
    }

    /// The answer of a transaction; returns a job whose submission is acknowledged by it.
    pub(crate) fn answered(&mut self, database: &Database, fault: Option<Fault>) -> Option<u64> {
        let Flight { transaction, sent_at, answer } = self.flight.take()?;
        let lost = answer?;
        lost.iter().for_each(|&id| self.lose(id, database, fault));
        if !lost.is_empty() {
            // The rest is sent again at once.
            return None;
        }
        self.good_at = self.good_at.max(sent_at);
        self.removes.retain(|number| !transaction.removes.contains(number));
        let is_inserted = |waiting: &mut Waiting| {
            waiting.number.is_some_and(|number| transaction.inserts.contains(&number))
        };
        let stored = self.waiting.take_if(is_inserted)?.number;
        self.jobs.extend(stored);
        stored
    }

    /// The outcome of the transaction on its way will never be known; returns it if it may still
    /// arrive.
    pub(crate) fn give_up_flight(&mut self) -> Option<Transaction> {
        let flight = self.flight.take()?;
        self.is_unsure = true;
        flight.answer.is_none().then_some(flight.transaction)
    }

    /// Begins a new session if it must.
    pub(crate) fn reconnect(&mut self, database: &mut Database, fault: Option<Fault>) {
        if !std::mem::take(&mut self.is_unsure) || fault == Some(Fault::NoReclaim) {
            return;
        }
        for id in self.own.keys().copied().collect::<Vec<_>>() {
            match (database.reclaim(id, self.id), self.own.get_mut(&id)) {
                (Some(generation), Some(own)) => own.generation = generation,
                _ => self.lose(id, database, fault),
            }
        }
    }

    fn lose(&mut self, id: PartitionId, database: &Database, fault: Option<Fault>) {
        self.own.remove(&id);
        let belongs = |number: u64| database.blocks.partition_of(number) == Some(id);
        self.jobs.retain(|&number| !belongs(number));
        self.removes.retain(|&number| !belongs(number));
        if self.home == Some(id) {
            self.home = None;
            if fault != Some(Fault::RetryInNewHome) {
                self.waiting.iter_mut().for_each(|waiting| waiting.number = None);
            }
        }
    }

    pub(crate) fn load(&mut self, id: PartitionId, database: &Database) {
        self.jobs.extend(&database.rows[id as usize].jobs);
        self.own.entry(id).and_modify(|own| own.is_loaded = true);
    }

    /// It has a home again, which is empty.
    pub(crate) fn move_home(&mut self, id: PartitionId, generation: i64, next_number: u64) {
        self.own.insert(id, Own { generation, is_loaded: true });
        (self.home, self.next_number) = (Some(id), next_number);
        self.number_waiting();
    }

    pub(crate) fn submit(&mut self) {
        self.waiting = Some(Waiting { number: None });
        self.number_waiting();
    }

    fn number_waiting(&mut self) {
        let is_home = self.home.is_some();
        for waiting in self.waiting.iter_mut().filter(|it| is_home && it.number.is_none()) {
            waiting.number = Some(self.next_number);
            self.next_number += 256;
        }
    }

    /// A worker runs a job to its end.
    pub(crate) fn run(&mut self, number: u64) {
        self.jobs.remove(&number);
        self.removes.insert(number);
    }

    /// Whether nothing of a partition is here or on its way.
    pub(crate) fn has_nothing_of(&self, id: PartitionId, database: &Database) -> bool {
        let belongs = |number: &u64| database.blocks.partition_of(*number) == Some(id);
        !self.jobs.iter().chain(&self.removes).any(belongs)
    }
}
