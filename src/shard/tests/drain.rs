//! Draining while other servers go on: no submission is refused, and connections end once all has
//! come that they wait for.

use super::cluster::{CORES, Cluster, Peer, function};
use super::*;
use crate::engine::record::Operation;

/// Cores with a store, whose server isn't alone.
fn cluster(durability: Durability) -> Cluster {
    let mut cluster = Cluster::new(durability, 5);
    for shard in &mut cluster.shards {
        let settings = Settings { has_other_servers: true, ..shard.settings.clone() };
        *shard = Shard::new(settings, cluster.now);
    }
    cluster
}

impl Cluster {
    fn drain(&mut self, goal: DrainGoal) {
        let now = self.now;
        self.shards.iter_mut().for_each(|shard| shard.drain(goal, now));
        self.settle();
    }

    /// The store takes all that it is to; how many Inserts these were.
    fn commit(&mut self) -> usize {
        let mut inserted = 0;
        for shard in &mut self.shards {
            let mut operations = Vec::new();
            shard.take_operations(&mut operations);
            for operation in operations {
                if let Operation::Insert { row, .. } = operation {
                    inserted += 1;
                    shard.stored(row.number, true, self.now);
                }
            }
        }
        self.settle();
        inserted
    }

    fn intake(&self, (core, conn): Peer) -> Intake {
        self.shards[core].intake(conn)
    }

    fn say_submit(&mut self, peer: Peer, command: Command, name: &str) {
        self.packet(peer, command, &[name.as_bytes(), b""], b"x");
    }
}

fn is_created(bytes: &[u8]) -> bool {
    bytes.get(..8) == response(Command::JobCreated, &[b""], b"").get(..8) && bytes.len() < 60
}

#[test]
fn stored_jobs_are_taken_and_left_to_other_servers() {
    for goal in [DrainGoal::JobsDone, DrainGoal::RunsDone] {
        for (core, owner) in (0..CORES * CORES).map(|n| (n % CORES, n / CORES)) {
            let mut cluster = cluster(Durability::Async);
            let name = function(owner);
            let worker = cluster.worker(core, std::slice::from_ref(&name));
            let client = cluster.connect(core);
            cluster.drain(goal);
            cluster.say_submit(client, Command::SubmitJobBg, &name);
            assert_eq!(cluster.hear(client), b"", "not before it is on disk");
            assert!(cluster.shards.iter().all(Shard::is_idle), "the server may end meanwhile");
            let at_owner = cluster.shards[owner].engine().awaiting_store();
            assert_eq!((at_owner, cluster.commit()), (1, 1));
            assert!(is_created(&cluster.hear(client)));
            assert_eq!(cluster.intake(client), Intake::Read, "the connection stays");
            assert_eq!(cluster.grab(worker), None);
            assert!(cluster.shards.iter().all(Shard::is_idle));
        }
    }
}

#[test]
fn a_connection_whose_submission_is_not_taken_ends_unanswered() {
    for goal in [DrainGoal::JobsDone, DrainGoal::RunsDone] {
        for (core, owner) in (0..CORES * CORES).map(|n| (n % CORES, n / CORES)) {
            let mut cluster = cluster(Durability::Fsync);
            let name = function(owner);
            let (client, other) = (cluster.connect(core), cluster.connect(core));
            cluster.drain(goal);
            let submit = packet(Command::SubmitJob, &[name.as_bytes(), b""], b"x");
            cluster.say(client, &[&submit[..], b"version\n"].concat());
            assert_eq!(cluster.hear(client), b"", "nothing more of it is handled");
            assert_eq!(cluster.intake(client), Intake::Close);
            assert_eq!(cluster.intake(other), Intake::Read);
            cluster.leave(client);
            assert!(cluster.shards.iter().all(|shard| shard.leavers.is_empty()));
        }
    }
}

#[test]
fn a_connection_ends_once_all_has_come_that_it_waits_for() {
    for (core, owner) in (0..CORES * CORES).map(|n| (n % CORES, n / CORES)) {
        let mut cluster = cluster(Durability::Fsync);
        let name = function(owner);
        let client = cluster.connect(core);
        let running = cluster.submit(client, Command::SubmitJob, &name, "a");
        let queued = cluster.submit(client, Command::SubmitJob, &name, "b");
        let worker = cluster.worker((core + 1) % CORES, std::slice::from_ref(&name));
        assert_eq!(cluster.grab(worker).as_ref(), Some(&running));
        cluster.say_submit(client, Command::SubmitJobBg, &name);
        cluster.drain(DrainGoal::JobsDone);
        cluster.say_submit(client, Command::SubmitJob, &name);
        assert_eq!((cluster.hear(client), cluster.intake(client)), (vec![], Intake::Pause));
        assert_eq!(cluster.commit(), 1);
        assert!(is_created(&cluster.hear(client)));
        for handle in [&running, &queued] {
            assert_eq!(cluster.intake(client), Intake::Pause);
            cluster.packet(worker, Command::WorkComplete, &[handle], b"done");
            let result = response(Command::WorkComplete, &[handle], b"done");
            assert_eq!(cluster.hear(client), result);
            let _ = cluster.grab(worker);
        }
        assert_eq!(cluster.intake(client), Intake::Close);
        assert!(cluster.shards.iter().all(|shard| shard.leavers.is_empty()));
        cluster.leave(client);
    }
}

#[test]
fn a_peer_that_has_said_all_gets_the_replies_that_are_on_their_way() {
    let mut cluster = cluster(Durability::Fsync);
    cluster.drain(DrainGoal::JobsDone);
    let client = cluster.connect(0);
    cluster.slow = true;
    let submit = packet(Command::SubmitJob, &[function(1).as_bytes(), b""], b"x");
    cluster.say(client, &[packet(Command::GetStatusUnique, &[b"key"], b""), submit].concat());
    let now = cluster.now;
    cluster.shards[0].ended(client.1, now);
    assert_eq!((cluster.hear(client), cluster.intake(client)), (vec![], Intake::Pause));
    cluster.settle();
    let expected = response(Command::StatusResUnique, &[b"key", b"0", b"0", b"0", b"0", b"0"], b"");
    assert_eq!((cluster.hear(client), cluster.intake(client)), (expected, Intake::Close));
}

#[test]
fn jobs_that_will_not_run_are_not_waited_for() {
    for (core, owner) in (0..CORES * CORES).map(|n| (n % CORES, n / CORES)) {
        let mut cluster = cluster(Durability::Fsync);
        let name = function(owner);
        let client = cluster.connect(core);
        let running = cluster.submit(client, Command::SubmitJob, &name, "a");
        cluster.submit(client, Command::SubmitJob, &name, "b");
        let worker = cluster.worker(core, std::slice::from_ref(&name));
        assert_eq!(cluster.grab(worker).as_ref(), Some(&running));
        cluster.drain(DrainGoal::RunsDone);
        cluster.say_submit(client, Command::SubmitJob, &name);
        assert_eq!(cluster.intake(client), Intake::Pause);
        cluster.packet(worker, Command::WorkComplete, &[&running], b"");
        assert_eq!(cluster.hear(client), response(Command::WorkComplete, &[&running], b""));
        assert_eq!(cluster.intake(client), Intake::Close);
    }
}

/// Its home hadn't heard of the signal.
#[test]
fn a_submission_that_was_on_its_way_to_another_core_is_taken() {
    for goal in [DrainGoal::JobsDone, DrainGoal::RunsDone] {
        let mut cluster = cluster(Durability::Fsync);
        let client = cluster.connect(0);
        let now = cluster.now;
        cluster.shards[1].drain(goal, now);
        cluster.say_submit(client, Command::SubmitJob, &function(1));
        assert!(is_created(&cluster.hear(client)));
        assert_eq!(cluster.intake(client), Intake::Read);
    }
}

#[test]
fn a_client_that_joined_a_stored_job_is_answered() {
    let mut cluster = cluster(Durability::Fsync);
    let name = function(0);
    let (client, gone) = (cluster.connect(0), cluster.connect(0));
    let background = |cluster: &mut Cluster, unique: &[u8]| {
        cluster.packet(client, Command::SubmitJobBg, &[name.as_bytes(), unique], b"x");
        assert_eq!(cluster.commit(), 1);
        cluster.hear(client);
    };
    background(&mut cluster, b"a");
    background(&mut cluster, b"b");
    let joined = cluster.submit(client, Command::SubmitJob, &name, "a");
    cluster.submit(gone, Command::SubmitJob, &name, "b");
    cluster.drain(DrainGoal::JobsDone);
    let now = cluster.now;
    (0..3).for_each(|_| cluster.shards[0].tick(now));
    assert_eq!((cluster.shards[0].engine().kept(), cluster.shards[0].unfinished()), (0, 2));
    cluster.leave(gone);
    assert_eq!(cluster.shards[0].engine().kept(), 1, "no client waits for it any more");
    let worker = cluster.worker(0, std::slice::from_ref(&name));
    assert_eq!(cluster.grab(worker).as_ref(), Some(&joined));
    cluster.packet(worker, Command::WorkComplete, &[&joined], b"");
    assert_eq!(cluster.hear(client), response(Command::WorkComplete, &[&joined], b""));
    assert!(cluster.shards[0].is_idle());
}

#[test]
fn a_leaver_that_is_gone_is_forgotten_on_all_cores() {
    let mut cluster = cluster(Durability::Fsync);
    let name = function(1);
    let client = cluster.connect(0);
    cluster.submit(client, Command::SubmitJob, &name, "a");
    cluster.drain(DrainGoal::JobsDone);
    cluster.say_submit(client, Command::SubmitJob, &name);
    assert_eq!(cluster.intake(client), Intake::Pause);
    cluster.leave(client);
    assert!(cluster.shards.iter().all(|shard| shard.leavers.is_empty()));
    assert!(cluster.shards.iter().all(Shard::is_idle));
}

#[test]
fn without_other_servers_submissions_are_refused_as_before() {
    let mut cluster = Cluster::new(Durability::Fsync, 5);
    let client = cluster.connect(0);
    cluster.drain(DrainGoal::JobsDone);
    cluster.say_submit(client, Command::SubmitJobBg, &function(1));
    let error = cluster.hear(client);
    assert_eq!(error.get(..8), response(Command::Error, &[b"", b""], b"").get(..8));
    assert_eq!(cluster.intake(client), Intake::Read);
}

#[test]
fn a_stored_job_that_runs_for_too_long_is_left_to_others_and_what_clients_wait_for_is_not() {
    let mut cluster = cluster(Durability::Fsync);
    let name = function(0);
    let client = cluster.connect(0);
    cluster.say_submit(client, Command::SubmitJobBg, &name);
    assert_eq!(cluster.commit(), 1);
    cluster.hear(client);
    let handle = cluster.submit(client, Command::SubmitJob, &name, "a");
    let workers = [0, 1].map(|_| cluster.worker(0, std::slice::from_ref(&name)));
    workers.iter().for_each(|&worker| assert!(cluster.grab(worker).is_some()));
    cluster.drain(DrainGoal::JobsDone);
    assert_eq!(cluster.shards[0].unfinished(), 2);
    cluster.shards.iter_mut().for_each(Shard::leave_stored_runs);
    assert_eq!(cluster.shards[0].unfinished(), 1, "a client waits for the other one");
    for worker in workers {
        cluster.packet(worker, Command::WorkComplete, &[&handle], b"");
    }
    assert!(cluster.shards[0].is_idle());
}
