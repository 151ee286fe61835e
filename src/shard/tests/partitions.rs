//! Several servers on one database, as peers of one core and of several see them: jobs of other
//! servers that are asked for or cancelled, and what the store is to write.

use std::sync::Arc;

use super::cluster::{CORES, Cluster, Peer, function};
use super::*;
use crate::cluster::partition::{Partition, PartitionId, State};
use crate::cluster::view::{Known, View};
use crate::engine::function::Durabilities;
use crate::engine::handle::SLOT_BITS;
use crate::engine::reason::Reason;
use crate::shard::Shard;

/// What is known of two partitions: number 1, this server's, has block 1; number 2 block 2.
fn view() -> Arc<View> {
    let view = View::default();
    let row = |id: PartitionId, name: &str, address: &str| Partition {
        id,
        state: State::Owned,
        name: name.into(),
        address: address.into(),
        ..Partition::default()
    };
    {
        let mut contents = view.write();
        contents.partitions = vec![
            Known::for_tests(row(1, "own", ""), true),
            Known::for_tests(row(2, "db2", "10.0.0.2:4730"), false),
        ];
        contents.blocks.insert(1, 1);
        contents.blocks.insert(2, 2);
    }
    Arc::new(view)
}

/// The handle of a job of `resize` in a block.
fn handle_in(block: u64, sequence: u64) -> (u64, Vec<u8>) {
    let number = handle::job_number((block << 28) + sequence, handle::slot(b"resize"));
    (number, Handles::default().text(number).as_ref().to_vec())
}

fn desk() -> Desk {
    let mut settings = Settings { cluster: Some(view()), ..settings() };
    settings.engine.durabilities =
        Durabilities { default: Durability::Fsync, ..Durabilities::default() };
    let mut desk = Desk::new(settings);
    desk.shard.set_sequences(1 << 28..2 << 28);
    desk
}

fn status(handle: &[u8], is_known: bool) -> Vec<u8> {
    let known: &[u8] = if is_known { b"1" } else { b"0" };
    response(Command::StatusRes, &[handle, known, b"0", b"0", b"0"], b"")
}

fn lookups(shard: &mut Shard) -> Vec<u64> {
    let mut numbers = Vec::new();
    shard.take_lookups(&mut numbers);
    numbers
}

#[test]
fn a_job_of_another_server_is_looked_up_and_the_reply_keeps_its_place() {
    let mut desk = desk();
    let (conn, other) = (desk.connect(), desk.connect());
    let ((number, theirs), (gone, unknown)) = (handle_in(2, 7), handle_in(2, 8));
    let (_, own) = handle_in(1, 9);
    desk.say(conn, &packet(Command::GetStatus, &[&theirs], b""));
    desk.say(conn, &packet(Command::GetStatus, &[&own], b""));
    desk.say(other, &packet(Command::GetStatus, &[&own], b""));
    assert_eq!(desk.send_all(other), status(&own, false), "of an own partition: known to be gone");
    desk.say(other, &packet(Command::GetStatus, &[&theirs], b""));
    desk.say(other, &packet(Command::GetStatus, &[&unknown], b""));
    assert_eq!(lookups(&mut desk.shard), [number, gone], "each once");
    assert!(lookups(&mut desk.shard).is_empty());
    assert_eq!((desk.send_all(conn), desk.send_all(other)), (vec![], vec![]));
    desk.shard.looked_up(gone, false, desk.now);
    desk.shard.looked_up(number, true, desk.now);
    assert_eq!(desk.send_all(conn), [status(&theirs, true), status(&own, false)].concat());
    assert_eq!(desk.send_all(other), [status(&theirs, true), status(&unknown, false)].concat());
    assert_eq!((desk.shard.lookups.len(), desk.shard.lookups.deadline_ms()), (0, None));
    desk.say(conn, &packet(Command::GetStatus, &[&theirs], b""));
    assert_eq!(lookups(&mut desk.shard), [number], "again for a later question");
}

#[test]
fn without_other_partitions_nothing_is_looked_up() {
    let mut desk = Desk::new(settings());
    let conn = desk.connect();
    let (_, theirs) = handle_in(2, 7);
    desk.say(conn, &packet(Command::GetStatus, &[&theirs], b""));
    assert_eq!(desk.send_all(conn), status(&theirs, false));
    assert!(lookups(&mut desk.shard).is_empty());
}

#[test]
fn jobs_of_a_partition_that_is_being_loaded_are_looked_up_until_they_are_here() {
    let mut desk = desk();
    let view = Arc::clone(desk.shard.settings.cluster.as_ref().unwrap());
    {
        let mut contents = view.write();
        contents.loading.insert(2);
        contents.partitions[1].is_own = true;
    }
    let conn = desk.connect();
    let (number, handle) = handle_in(2, 7);
    desk.say(conn, &packet(Command::GetStatus, &[&handle], b""));
    assert_eq!(lookups(&mut desk.shard), [number]);
    view.write().loading.clear();
    desk.say(conn, &packet(Command::GetStatus, &[&handle_in(2, 8).1], b""));
    assert!(lookups(&mut desk.shard).is_empty());
}

#[test]
fn a_question_ends_in_time_if_the_database_says_nothing() {
    let mut desk = desk();
    let (conn, other) = (desk.connect(), desk.connect());
    let (number, handle) = handle_in(2, 7);
    let ask = packet(Command::GetStatus, &[&handle], b"");
    desk.say(conn, &ask);
    desk.now.mono_ms += 1500;
    desk.say(other, &ask);
    desk.shard.tick(desk.now);
    assert_eq!(lookups(&mut desk.shard), [number]);
    assert_eq!(desk.shard.deadline_ms(), Some(desk.now.mono_ms + 500));
    desk.now.mono_ms += 500;
    desk.shard.tick(desk.now);
    assert_eq!(desk.send_all(conn), status(&handle, false));
    assert_eq!(desk.send_all(other), b"", "it was asked later");
    assert_eq!(lookups(&mut desk.shard), [number], "as the first lookup may be lost");
    desk.shard.looked_up(number, true, desk.now);
    assert_eq!(desk.send_all(other), status(&handle, true));
    desk.shard.looked_up(number, true, desk.now);
    assert_eq!(desk.send_all(conn), b"", "answered once");
}

#[test]
fn a_connection_that_closes_leaves_no_question_that_matters() {
    let mut desk = desk();
    let conn = desk.connect();
    let (number, handle) = handle_in(2, 7);
    desk.say(conn, &packet(Command::GetStatus, &[&handle], b""));
    desk.shard.disconnect(conn, desk.now);
    let next = desk.connect();
    assert_eq!(next, conn, "the number is given again");
    desk.shard.looked_up(number, true, desk.now);
    assert_eq!(desk.send_all(next), b"");
    assert_eq!((desk.shard.lookups.len(), desk.shard.connections.slots()), (0, 0));
}

#[test]
fn lines_about_another_servers_job_say_whose_it_is() {
    let mut desk = desk();
    let conn = desk.connect();
    let (_, theirs) = handle_in(2, 7);
    let (_, own) = handle_in(1, 7);
    let line = |handle: &[u8]| [b"cancel job ", handle, b"\n"].concat();
    desk.say(conn, &line(&theirs));
    let reply = String::from_utf8(desk.send_all(conn)).unwrap();
    assert_eq!(reply, "ERR UNKNOWN_JOB it+is+a+job+of+db2+at+10.0.0.2:4730:+ask+that+server\r\n");
    desk.say(conn, &line(&own));
    assert_eq!(desk.send_all(conn), b"ERR UNKNOWN_JOB\r\n");
    assert!(lookups(&mut desk.shard).is_empty());
}

fn cluster() -> Cluster {
    let mut cluster = Cluster::new(Durability::Fsync, 3);
    let view = view();
    for shard in &mut cluster.shards {
        shard.settings.cluster = Some(Arc::clone(&view));
        shard.set_sequences(1 << 28..2 << 28);
    }
    cluster
}

#[test]
fn questions_and_lines_from_other_cores_are_answered_by_the_jobs_core() {
    let mut cluster = cluster();
    for (core, owner) in (0..CORES * CORES).map(|n| (n % CORES, n / CORES)) {
        let name = function(owner);
        let number = handle::job_number((2 << 28) + core as u64, handle::slot(name.as_bytes()));
        let handle = Handles::default().text(number).as_ref().to_vec();
        let (peer, gone): (Peer, Peer) = (cluster.connect(core), cluster.connect(core));
        for peer in [peer, gone] {
            cluster.packet(peer, Command::GetStatus, &[&handle], b"");
            cluster.packet(peer, Command::EchoReq, &[], b"x");
        }
        assert_eq!(cluster.hear(peer), b"");
        cluster.leave(gone);
        for shard in 0..CORES {
            let expected: &[u64] = if shard == owner { &[number] } else { &[] };
            assert_eq!(lookups(&mut cluster.shards[shard]), expected);
        }
        let now = cluster.now;
        cluster.shards[owner].looked_up(number, true, now);
        cluster.settle();
        let echo = response(Command::EchoRes, &[], b"x");
        assert_eq!(cluster.hear(peer), [status(&handle, true), echo].concat());
        cluster.say(peer, &[b"cancel job ", &handle[..], b"\n"].concat());
        assert!(cluster.hear_text(peer).starts_with("ERR UNKNOWN_JOB it+is+a+job+of+db2"));
        cluster.leave(peer);
    }
}

#[test]
fn a_home_that_is_lost_has_its_awaited_jobs_inserted_under_new_numbers() {
    let mut desk = desk();
    let conn = desk.connect();
    let submit = packet(Command::SubmitJobBg, &[b"resize", b""], b"x");
    desk.say(conn, &submit);
    let inserted = |desk: &mut Desk| {
        let mut operations = Vec::new();
        desk.shard.take_operations(&mut operations);
        let number = |it: &Operation| match it {
            Operation::Insert { row, answered: false } => row.number,
            other => panic!("{other:?}"),
        };
        operations.iter().map(number).collect::<Vec<u64>>()
    };
    let before = inserted(&mut desk);
    desk.say(conn, &submit);
    desk.shard.drop_partition(&|number| number >> SLOT_BITS < 2 << 28, desk.now);
    desk.shard.move_home(3 << 28..4 << 28, desk.now);
    let after = inserted(&mut desk);
    assert_eq!((before.len(), after.len()), (1, 2), "the second wasn't on its way yet");
    assert!(after.iter().all(|number| number >> SLOT_BITS >= 3 << 28));
    desk.shard.stored(before[0], true, desk.now);
    assert_eq!(desk.send_all(conn), b"");
    after.iter().for_each(|&number| desk.shard.stored(number, true, desk.now));
    let created = |number| {
        let handle = Handles::default().text(number);
        response(Command::JobCreated, &[handle.as_ref()], b"")
    };
    assert_eq!(desk.send_all(conn), after.into_iter().map(created).collect::<Vec<_>>().concat());
}

#[test]
fn what_the_shard_is_told_of_partitions_reaches_workers() {
    let mut desk = desk();
    let worker = desk.connect();
    desk.say(worker, &packet(Command::CanDo, &[b"resize"], b""));
    desk.say(worker, &packet(Command::PreSleep, &[], b""));
    let (number, handle) = handle_in(2, 7);
    let row = Row { number, function: b"resize".to_vec().into(), ..row() };
    let dead = DeadRow {
        row: Row { number: handle_in(2, 6).0, ..row.clone() },
        reason: Reason::Fail,
        died_ms: desk.now.unix_ms,
        worker: bytes::Bytes::new(),
        message: bytes::Bytes::new(),
    };
    let rows = [row];
    assert_eq!(desk.shard.adopt(&rows, desk.now), 1);
    assert_eq!(desk.shard.adopt(&rows, desk.now), 0);
    assert_eq!(desk.shard.adopt_dead(&[dead], desk.now), 1);
    while desk.shard.poll_dirty(desk.now).is_some() {}
    assert_eq!(desk.send_all(worker), response(Command::Noop, &[], b""));
    desk.shard.set_suspended(true, desk.now);
    desk.say(worker, &packet(Command::GrabJob, &[], b""));
    assert_eq!(desk.send_all(worker), response(Command::NoJob, &[], b""));
    desk.say(worker, &packet(Command::PreSleep, &[], b""));
    desk.shard.set_suspended(false, desk.now);
    while desk.shard.poll_dirty(desk.now).is_some() {}
    assert_eq!(desk.send_all(worker), response(Command::Noop, &[], b""));
    desk.shard.follow_pause(b"resize", Some(Pause::Unlimited), desk.now);
    desk.say(worker, &packet(Command::GrabJob, &[], b""));
    assert_eq!(desk.send_all(worker), response(Command::NoJob, &[], b""));
    desk.shard.follow_pause(b"resize", None, desk.now);
    desk.say(worker, &packet(Command::GrabJob, &[], b""));
    let assigned = response(Command::JobAssign, &[&handle, b"resize"], b"");
    assert_eq!(desk.send_all(worker), assigned);
    let mut operations = Vec::new();
    desk.shard.take_operations(&mut operations);
    assert_eq!(operations, [], "nothing of this is written");
    desk.shard.drop_partition(&|number| number >> SLOT_BITS >= 2 << 28, desk.now);
    desk.say(worker, &packet(Command::WorkComplete, &[&handle], b""));
    assert_eq!(desk.send_all(worker), b"", "its word goes nowhere, and is no error");
    desk.shard.take_operations(&mut operations);
    assert_eq!(operations, []);
    assert!(desk.shard.engine().dead().is_empty() && desk.shard.is_idle());
}

fn row() -> Row {
    Row {
        number: 0,
        function: bytes::Bytes::new(),
        unique: bytes::Bytes::new(),
        reducer: bytes::Bytes::new(),
        payload: bytes::Bytes::new(),
        priority: crate::wire::Priority::Normal,
        run_at_ms: 0,
        attempts: 0,
        last_reason: None,
        was_lost: false,
        submitted_ms: 0,
    }
}
