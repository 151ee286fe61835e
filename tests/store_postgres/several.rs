//! Several servers on one database: which gets a partition, what becomes of its earlier owner, and
//! numbers that are given once.

use std::collections::BTreeSet;
use std::ops::Range;
use std::thread;

use bytes::Bytes;
use postgres::Client;
use ringgear::cluster::blocks::BLOCK_BITS;
use ringgear::cluster::partition::{HintLock, PartitionId, Reading, State};
use ringgear::engine::handle::job_number;
use ringgear::engine::record::{DeadRow, Operation, Pause};
use ringgear::store::members::{Extent, Members};
use ringgear::store::postgres::{Postgres, PostgresMembers};
use ringgear::store::{Committed, Store as _, StoreError};

use super::dead::bury;
use super::server::{
    Server, backend, insert, insist, leave, numbers, row, wait_for, wait_for_blocked,
};

/// A server beside others: its store, its watch, and the sequence numbers that it may use.
struct Peer {
    store: Postgres,
    members: PostgresMembers,
    sequences: Range<u64>,
}

impl Peer {
    fn join(server: &Server, name: &str) -> Self {
        let mut store = server.join(name);
        let members = store.members().unwrap();
        let sequences = store.reserve("H:ü".as_bytes(), 1).unwrap();
        Self { store, members, sequences }
    }

    /// A number for a new job.
    fn number(&mut self) -> u64 {
        job_number(self.sequences.next().unwrap(), 0)
    }

    fn home(&self) -> PartitionId {
        self.store.partition_of(job_number(self.sequences.start, 0))
    }

    fn reading(&mut self, partition: PartitionId) -> Reading {
        let readings = self.members.read().unwrap().readings;
        readings.into_iter().find(|it| it.partition.id == partition).unwrap()
    }

    /// Adopts a partition as it is now, and notes its rows.
    fn adopt(&mut self, partition: PartitionId) -> (Vec<u64>, Vec<u64>) {
        let seen = self.reading(partition).partition.seen();
        let generation = self.members.adopt(seen).unwrap().unwrap();
        assert_eq!(self.store.own(partition, generation), None);
        self.load(partition)
    }

    fn load(&mut self, partition: PartitionId) -> (Vec<u64>, Vec<u64>) {
        let (mut jobs, mut dead): (Vec<u64>, Vec<u64>) = Default::default();
        loop {
            let rows = self.members.load(partition, jobs.last().copied()).unwrap();
            if rows.is_empty() {
                break;
            }
            jobs.extend(rows.iter().map(|row| row.number));
        }
        loop {
            let rows = self.members.load_dead(partition, dead.last().copied()).unwrap();
            if rows.is_empty() {
                break;
            }
            dead.extend(rows.iter().map(|letter| letter.row.number));
        }
        self.store.note_loaded(&jobs, &dead);
        self.store.note_loaded(&[], &[]);
        (jobs, dead)
    }
}

fn done(changed: u64) -> Committed {
    Committed { changed, ..Committed::default() }
}

fn states(admin: &mut Client) -> Vec<(i32, i16, i64)> {
    let sql = "SELECT partition, state, jobs FROM ringgear_partition ORDER BY partition";
    let rows = admin.query(sql, &[]).unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

#[test]
fn one_of_several_gets_a_partition_and_its_owner_learns_of_it() {
    let Some(server) = Server::start() else { return };
    let mut owner = Peer::join(&server, "a");
    let home = owner.home();
    let kept = owner.number();
    owner.store.commit(&[insert(kept), insert(kept + 256)]).unwrap();
    let mut others = ["b", "c", "d"].map(|name| Peer::join(&server, name));
    let homes: BTreeSet<PartitionId> = others.iter().map(Peer::home).chain([home]).collect();
    assert_eq!(homes.len(), 4);
    let reading = others[0].reading(home);
    assert_eq!((&*reading.partition.name, reading.lock), ("a", HintLock::Held));
    let own = owner.reading(home);
    assert!(owner.members.is_own(&own) && !others[0].members.is_own(&own));

    // A beat comes between.
    owner.store.check().unwrap();
    assert_eq!(others[0].members.adopt(reading.partition.seen()).unwrap(), None);
    let seen = others.each_mut().map(|other| other.reading(home).partition.seen());
    let seen = seen[0];
    let adoptions: Vec<Option<i64>> = thread::scope(|scope| {
        let adopt = |members: &mut PostgresMembers| members.adopt(seen).unwrap();
        let all = others.each_mut().map(|other| scope.spawn(move || adopt(&mut other.members)));
        all.into_iter().map(|adoption| adoption.join().unwrap()).collect()
    });
    let adopted: Vec<usize> = (0..3).filter(|&at| adoptions[at].is_some()).collect();
    assert_eq!(adopted.len(), 1, "{adoptions:?}");
    let heir = &mut others[adopted[0]];
    assert_eq!(heir.store.own(home, adoptions[adopted[0]].unwrap()), None);
    assert_eq!(heir.load(home), (vec![kept + 256, kept], vec![]));

    // The owner's late commit changes nothing, and says why.
    let late = owner.number();
    let lost = Committed { changed: 0, lost: vec![home], is_home_lost: true };
    let late_commit = [insert(late), Operation::Remove { number: kept }];
    let committed = match owner.store.commit(&late_commit) {
        // Its session was ended, too.
        Err(StoreError::Unavailable(_)) => owner.store.commit(&late_commit).unwrap(),
        committed => committed.unwrap(),
    };
    assert_eq!(committed, lost);
    let refused = owner.store.commit(&[insert(late)]).unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable(_)), "{refused}");
    assert_eq!(owner.store.check().unwrap(), done(0));
    owner.sequences = owner.store.take_home(1).unwrap();
    assert!(!homes.contains(&owner.home()));
    let number = owner.number();
    assert_eq!(owner.store.commit(&[insert(number)]).unwrap(), done(1));

    let heir = &mut others[adopted[0]];
    let own = heir.number();
    let both = [insert(own), Operation::Remove { number: kept }];
    assert_eq!(heir.store.commit(&both).unwrap(), done(2));
    assert_eq!(numbers(&mut heir.store), [kept + 256, own]);
}

/// The owner's transaction holds the row of the partition.
#[test]
fn a_partition_is_adopted_while_its_owner_hangs_in_a_transaction() {
    let Some(server) = Server::start() else { return };
    let mut owner = Peer::join(&server, "a");
    let mut admin = server.admin("jobs");
    let mut blocker = server.admin("jobs");
    let (home, number) = (owner.home(), owner.number());
    let pid = backend(&mut admin);
    // Its statement waits as long as the test takes.
    let hold = "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
                    $$ BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NEW; END $$;
                CREATE TRIGGER hold BEFORE INSERT ON ringgear_job FOR EACH ROW
                    EXECUTE FUNCTION hold();
                ALTER FUNCTION hold SET lock_timeout = 0";
    admin.batch_execute(hold).unwrap();
    let mut heir = Peer::join(&server, "b");
    let mut lock = blocker.transaction().unwrap();
    lock.batch_execute("SELECT pg_advisory_xact_lock(7)").unwrap();
    let commit = thread::spawn(move || {
        let result = owner.store.commit(&[insert(number)]);
        (owner, result)
    });
    wait_for_blocked(&mut admin, pid);
    assert_eq!(heir.adopt(home), (vec![], vec![]));
    let (mut owner, result) = commit.join().unwrap();
    assert!(matches!(result, Err(StoreError::Unavailable(_))), "{result:?}");
    lock.rollback().unwrap();
    let committed = owner.store.commit(&[insert(number)]).unwrap();
    assert_eq!(committed, Committed { changed: 0, lost: vec![home], is_home_lost: true });
    assert_eq!(heir.load(home), (vec![], vec![]));
}

/// All servers would wait for a standby of the database that is away: that says nothing of owners.
#[test]
fn an_owner_that_waits_for_the_databases_standby_is_left_alone() {
    let Some(server) = Server::start() else { return };
    let mut copy = server.start_standby();
    let mut owner = Peer::join(&server, "a");
    let mut other = Peer::join(&server, "b");
    let (home, number) = (owner.home(), owner.number());
    server.wait_for_standbys(1);
    copy.stop();
    let commit = thread::spawn(move || owner.store.commit(&[insert(number)]));
    let mut admin = server.admin("jobs");
    wait_for(
        &mut admin,
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep')",
    );
    let seen = other.reading(home).partition.seen();
    assert_eq!(other.members.adopt(seen).unwrap(), None);
    copy.run();
    assert_eq!(commit.join().unwrap().unwrap(), done(1));
}

#[test]
fn a_partition_that_is_empty_is_the_next_ones_home() {
    let Some(server) = Server::start() else { return };
    let mut admin = server.admin("jobs");
    let mut first = Peer::join(&server, "a");
    let mut second = Peer::join(&server, "b");
    let (home, number) = (first.home(), first.number());
    let dead = first.number();
    first.store.commit(&[insert(number), bury(dead)]).unwrap();
    leave(first.store);
    assert_eq!(states(&mut admin), [(0, 2, 1), (1, 1, 0)]);
    assert_eq!(second.members.extent(home).unwrap().rows, 2);
    assert_eq!(second.adopt(home), (vec![number], vec![dead]));
    second.store.check().unwrap();
    assert_eq!(states(&mut admin), [(0, 1, 1), (1, 1, 0)]);
    second.store.commit(&[Operation::Remove { number }]).unwrap();
    second.store.check().unwrap();
    assert!(second.store.owns(home), "a dead letter is left");
    second.store.commit(&[Operation::RemoveDead { number: dead }]).unwrap();
    assert_eq!(second.store.check().unwrap(), done(0));
    assert!(!second.store.owns(home));
    assert_eq!(states(&mut admin), [(0, 0, 0), (1, 1, 0)]);
    // Its home is kept, however empty.
    second.store.check().unwrap();
    let mut third = Peer::join(&server, "c");
    assert_eq!(third.home(), home);
    leave(second.store);
    assert_eq!(states(&mut admin), [(0, 1, 0), (1, 0, 0)]);
    assert_eq!(third.reading(1).partition.state, State::Free);
}

#[test]
fn a_server_without_others_takes_all_that_was_left_and_goes_back_to_one_partition() {
    let Some(server) = Server::start() else { return };
    let mut admin = server.admin("jobs");
    let mut peers = ["a", "b", "c"].map(|name| Peer::join(&server, name));
    let jobs = peers.each_mut().map(Peer::number);
    for (peer, number) in peers.iter_mut().zip(jobs) {
        peer.store.commit(&[insert(number)]).unwrap();
    }
    peers.into_iter().for_each(|peer| leave(peer.store));
    let mut store = server.open();
    assert_eq!(numbers(&mut store), jobs);
    store
        .commit(&jobs[1..].iter().map(|&number| Operation::Remove { number }).collect::<Vec<_>>())
        .unwrap();
    store.check().unwrap();
    assert_eq!(states(&mut admin), [(0, 1, 1), (1, 0, 0), (2, 0, 0)]);
}

/// Also where clocks jump, servers start again, and other servers have taken numbers meanwhile.
#[test]
fn no_number_is_given_twice() {
    let Some(server) = Server::start() else { return };
    let mut random = fastrand::Rng::with_seed(3);
    let mut given: Vec<Range<u64>> = Vec::new();
    let mut peers: Vec<Peer> = ["a", "b", "c"].map(|name| Peer::join(&server, name)).into();
    given.extend(peers.iter().map(|peer| peer.sequences.clone()));
    for round in 0..20 {
        let at = random.usize(0..3);
        let clock = random.u64(0..60) << BLOCK_BITS | random.u64(0..1 << BLOCK_BITS);
        if random.bool() {
            let peer = peers.swap_remove(at);
            leave(peer.store);
            peers.push(Peer::join(&server, "again"));
        }
        let range = peers[at].store.reserve("H:ü".as_bytes(), clock).unwrap();
        assert!(range.start >= clock, "round {round}");
        given.push(range);
        given.extend(peers.last().map(|peer| peer.sequences.clone()));
        given.dedup();
    }
    given.sort_by_key(|range| range.start);
    given.dedup();
    assert!(given.windows(2).all(|pair| pair[0].end <= pair[1].start), "{given:?}");
}

/// A failover lost that numbers were given, and another server, which had seen it, took the next.
#[test]
fn numbers_that_a_failover_has_forgotten_are_not_given_again() {
    let Some(server) = Server::start() else { return };
    let mut admin = server.admin("jobs");
    let first = Peer::join(&server, "a");
    let mut second = Peer::join(&server, "b");
    second.members.read().unwrap();
    admin
        .batch_execute("DELETE FROM ringgear_block; UPDATE ringgear_cluster SET next_block = 0")
        .unwrap();
    let next = second.store.reserve("H:ü".as_bytes(), 1).unwrap();
    assert!(next.start >= first.sequences.end.max(second.sequences.end), "{next:?}");
}

#[test]
fn what_a_failover_takes_from_each_partition_is_asked_for() {
    let Some(server) = Server::start() else { return };
    let mut admin = server.admin("jobs");
    let mut first = Peer::join(&server, "a");
    let mut second = Peer::join(&server, "b");
    let [old, kept] = [first.number(), first.number()];
    first.store.commit(&[insert(old), insert(kept)]).unwrap();
    let home = first.home();
    leave(first.store);
    second.adopt(home);
    let new = second.number();
    second.store.commit(&[insert(new)]).unwrap();
    let pid = {
        let sql = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted LIMIT 1";
        admin.query_one(sql, &[]).unwrap().get::<_, i32>(0)
    };
    admin.execute("SELECT pg_terminate_backend($1)", &[&pid]).unwrap();
    wait_for(
        &mut admin,
        &format!("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid})"),
    );
    // It lost the last commits, and that the server had its own partition at all.
    let lost = [old, new].map(u64::cast_signed);
    admin.execute("DELETE FROM ringgear_job WHERE number = ANY ($1)", &[&&lost[..]]).unwrap();
    admin.batch_execute("DELETE FROM ringgear_partition WHERE partition = 1").unwrap();
    insist(&mut second.store, &[]);
    let mut missing = second.store.take_missing();
    missing.sort_unstable();
    assert_eq!(missing, [old, new]);
    second.store.commit(&[insert(old), insert(new)]).unwrap();
    assert_eq!(numbers(&mut second.store), [old, kept, new]);
}

#[test]
fn a_watch_sees_what_other_servers_have() {
    let Some(server) = Server::start() else { return };
    let mut owner = Peer::join(&server, "a");
    let mut other = Peer::join(&server, "b");
    let census = other.members.read().unwrap();
    assert_eq!(census.readings.len(), 2);
    assert_eq!(census.blocks.len(), 32);
    assert_eq!(other.members.read().unwrap().blocks, []);
    owner.store.reserve("H:ü".as_bytes(), 1).unwrap();
    assert_eq!(other.members.read().unwrap().blocks.len(), 16);

    let large = |number| {
        let row =
            ringgear::engine::record::Row { payload: vec![b'x'; 1 << 20].into(), ..row(number) };
        Operation::Insert { row, answered: false }
    };
    let jobs: Vec<u64> = (0..5000).map(|_| owner.number()).collect();
    owner.store.commit(&jobs.iter().map(|&number| insert(number)).collect::<Vec<_>>()).unwrap();
    let larger: Vec<u64> = (0..10).map(|_| owner.number()).collect();
    owner.store.commit(&larger.iter().map(|&number| large(number)).collect::<Vec<_>>()).unwrap();
    let letter = owner.number();
    let pause =
        Operation::Pause { function: Bytes::from_static(b"f"), pause: Some(Pause::Unlimited) };
    owner.store.commit(&[bury(letter), pause]).unwrap();
    owner.store.check().unwrap();
    let pauses = other.members.read().unwrap().pauses;
    assert_eq!(pauses, [(Bytes::from_static(b"f"), Pause::Unlimited)]);
    assert_eq!(other.reading(owner.home()).partition.jobs, 5010);

    let Extent { rows, bytes } = other.members.extent(owner.home()).unwrap();
    assert_eq!(rows, 5011);
    assert!(bytes > 10 << 20, "{bytes}");
    // The largest numbers first, in batches that aren't too large.
    let first = other.members.load(owner.home(), None).unwrap();
    let first: Vec<u64> = first.iter().map(|row| row.number).collect();
    assert!(first.len() < 5 && larger.ends_with(&first.iter().rev().copied().collect::<Vec<_>>()));
    let (found, letters) = other.load(owner.home());
    assert!(found.iter().rev().eq(jobs.iter().chain(&larger)));
    assert_eq!(letters, [letter]);
    let DeadRow { row, .. } = other.members.load_dead(owner.home(), None).unwrap().remove(0);
    assert_eq!(row.number, letter);

    let unknown = job_number(owner.sequences.end + 5, 0);
    let asked = [jobs[7], letter, unknown, u64::MAX, jobs[3]];
    let mut known = other.members.find(&asked).unwrap();
    known.sort_unstable();
    assert_eq!(known, [jobs[3], jobs[7]]);
}

/// The session of an owner lives on, as where the database has no locks and can't end sessions:
/// then nothing but the generation keeps what it sends out of the partition.
#[test]
fn a_commit_of_an_earlier_generation_is_not_applied_though_its_session_lives() {
    let Some(server) = Server::start() else { return };
    let mut admin = server.admin("jobs");
    let mut store = server.join("a");
    let first = job_number(store.reserve("H:ü".as_bytes(), 1).unwrap().start, 0);
    store.commit(&[insert(first)]).unwrap();
    let take = "UPDATE ringgear_partition SET generation = generation + 1, owner = 'another one'";
    admin.batch_execute(take).unwrap();
    let committed = store.commit(&[insert(first + 256), Operation::Remove { number: first }]);
    let committed = committed.unwrap();
    assert_eq!((committed.lost.len(), committed.is_home_lost), (1, true), "{committed:?}");
    let numbers = admin.query("SELECT number FROM ringgear_job", &[]).unwrap();
    let numbers: Vec<i64> = numbers.iter().map(|row| row.get(0)).collect();
    assert_eq!(numbers, [first.cast_signed()]);
}
