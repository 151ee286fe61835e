//! Tests of connections that move between cores, to their jobs and to make room; see `cluster` for
//! the fixture.

use foldhash::HashSet;

use super::cluster::{CORES, Cluster, Peer, function};
use super::*;
use crate::engine::function::Durability;
use crate::shard::remote::migration::Migration;

#[test]
fn a_worker_of_one_other_core_moves_there_and_takes_its_sleep_along() {
    let mut cluster = Cluster::new(Durability::None, 1);
    cluster.let_move(100);
    let worker = cluster.worker(0, &[function(1)]);
    cluster.packet(worker, Command::SetClientId, &[b"wanda"], b"");
    cluster.packet(worker, Command::PreSleep, &[], b"");
    let worker = cluster.hand_over(worker);
    assert_eq!((worker.0, cluster.shards[1].counters.moved), (1, 1));
    assert_eq!(cluster.shards.iter().map(Shard::connections).sum::<usize>(), 1);
    assert!(cluster.shards.iter().all(|shard| shard.remote_counts() == (0, 0)));
    let client = cluster.connect(2);
    cluster.submit(client, Command::SubmitJob, &function(1), "");
    assert_eq!(cluster.hear(worker), response(Command::Noop, &[], b""));
    let handle = cluster.grab(worker).unwrap();
    cluster.packet(worker, Command::WorkComplete, &[&handle], b"done");
    assert_eq!(cluster.hear(client), response(Command::WorkComplete, &[&handle], b"done"));
    cluster.say(client, b"workers\n");
    assert!(cluster.hear_text(client).contains("wanda"));
    cluster.leave(worker);
    cluster.leave(client);
}

#[test]
fn who_has_to_do_with_several_cores_or_with_a_full_one_stays() {
    let mut cluster = Cluster::new(Durability::None, 1);
    cluster.let_move(1);
    let sleep = |cluster: &mut Cluster, functions: &[String]| {
        let worker = cluster.worker(0, functions);
        cluster.packet(worker, Command::PreSleep, &[], b"");
        cluster.shards[0].intake(worker.1)
    };
    assert_eq!(sleep(&mut cluster, &[function(1), function(2)]), Intake::Read);
    assert_eq!(sleep(&mut cluster, &[function(0), function(1)]), Intake::Read);
    assert_eq!(sleep(&mut cluster, &[function(1)]), Intake::Move);
    cluster.shards[0].other_cores.accepting = CoreSet::from_bits(0b101);
    assert_eq!(sleep(&mut cluster, &[function(1)]), Intake::Read);
    assert_eq!(sleep(&mut cluster, &[function(2)]), Intake::Move);
    cluster.shards[0].settings.move_after = 0;
    assert_eq!(sleep(&mut cluster, &[function(2)]), Intake::Read);
}

#[test]
fn a_client_moves_after_a_streak_with_what_it_waits_for() {
    let mut cluster = Cluster::new(Durability::None, 1);
    cluster.let_move(3);
    let client = cluster.connect(0);
    for core in [1, 1, 0, 1, 1] {
        cluster.submit(client, Command::SubmitJob, &function(core), "");
        assert_eq!(cluster.shards[0].intake(client.1), Intake::Read, "a local one in between");
    }
    // What it waits for here holds it.
    cluster.submit(client, Command::SubmitJob, &function(1), "");
    assert_eq!(cluster.shards[0].intake(client.1), Intake::Read);
    let local = cluster.worker(0, &[function(0)]);
    let handle = cluster.grab(local).unwrap();
    cluster.packet(local, Command::WorkComplete, &[&handle], b"");
    cluster.hear(client);
    cluster.submit(client, Command::SubmitJob, &function(1), "");
    // A piece of its next request is there, the rest comes when it has moved.
    let next = packet(Command::SubmitJob, &[function(1).as_bytes(), b""], b"last");
    cluster.say(client, &next[..20]);
    let client = cluster.hand_over(client);
    cluster.say(client, &next[20..]);
    cluster.hear(client);
    let worker = cluster.worker(1, &[function(1)]);
    let mut done = 0;
    while let Some(handle) = cluster.grab(worker) {
        cluster.packet(worker, Command::WorkComplete, &[&handle], b"");
        assert_eq!(cluster.hear(client), response(Command::WorkComplete, &[&handle], b""));
        done += 1;
    }
    assert_eq!(done, 7);
}

/// A connection that couldn't be handed over had missed what its jobs' core kept for it meanwhile.
#[test]
fn who_can_not_be_handed_over_gets_what_was_kept_for_it() {
    let mut cluster = Cluster::new(Durability::None, 1);
    cluster.let_move(1);
    let worker = cluster.worker(0, &[function(1)]);
    cluster.packet(worker, Command::PreSleep, &[], b"");
    let waiting = cluster.connect(2);
    cluster.submit(waiting, Command::SubmitJob, &function(1), "");
    assert_eq!(cluster.hear(worker), b"", "it is on its way");
    let hand_over = cluster.shards[0].begin_hand_over(worker.1).unwrap();
    cluster.shards[0].cancel_hand_over(hand_over);
    cluster.settle();
    assert_eq!(cluster.hear(worker), response(Command::Noop, &[], b""));
    assert!(cluster.grab(worker).is_some());
    assert_eq!(cluster.shards[0].intake(worker.1), Intake::Read, "and it never tries again");
}

#[test]
fn who_makes_room_is_served_from_elsewhere_and_comes_back_when_there_is_time() {
    let mut cluster = Cluster::new(Durability::None, 1);
    let (client, worker) = (cluster.connect(1), cluster.worker(1, &[function(1)]));
    cluster.packet(worker, Command::SetClientId, &[b"wanda"], b"");
    let handle = cluster.submit(client, Command::SubmitJob, &function(1), "");
    assert_eq!(cluster.grab(worker), Some(handle.clone()));
    cluster.shards[1].start_offload(0, 1);
    cluster.say(worker, b"");
    let worker = cluster.hand_over(worker);
    assert_eq!((worker.0, cluster.shards[0].counters.took_in), (0, 1));
    assert_eq!(cluster.shards[1].remote_counts(), (1, 0));
    cluster.say(client, b"");
    assert_eq!(cluster.shards[1].intake(client.1), Intake::Read, "one was to go");
    // The job that it had stays its own.
    cluster.packet(worker, Command::WorkComplete, &[&handle], b"done");
    assert_eq!(cluster.hear(client), response(Command::WorkComplete, &[&handle], b"done"));
    cluster.say(client, b"workers\n");
    let list = cluster.hear_text(client);
    assert!(list.contains(&format!("wanda : {}", function(1))), "{list}");
    // A sleeper is woken from there.
    assert!(cluster.sleeps(worker));
    cluster.submit(client, Command::SubmitJob, &function(1), "");
    assert_eq!(cluster.hear(worker), response(Command::Noop, &[], b""));
    // With time there again it goes where its jobs are.
    cluster.let_move(1);
    let handle = cluster.grab(worker).unwrap();
    cluster.packet(worker, Command::WorkComplete, &[&handle], b"");
    cluster.packet(worker, Command::PreSleep, &[], b"");
    let worker = cluster.hand_over(worker);
    assert_eq!((worker.0, cluster.shards[1].remote_counts()), (1, (0, 0)));
    cluster.leave(worker);
    cluster.leave(client);
}

#[test]
fn what_comes_for_one_that_makes_room_follows_it() {
    let mut cluster = Cluster::new(Durability::None, 1);
    let (client, worker) = (cluster.connect(1), cluster.worker(1, &[function(1)]));
    let sleeper = cluster.worker(1, &[function(1)]);
    let handle = cluster.submit(client, Command::SubmitJob, &function(1), "");
    assert_eq!(cluster.grab(worker), Some(handle.clone()));
    cluster.shards[1].start_offload(2, 2);
    cluster.packet(sleeper, Command::PreSleep, &[], b"");
    cluster.say(client, b"");
    // The driver hands both over, and meanwhile there is something for either.
    let leave = |cluster: &mut Cluster, peer: Peer| {
        assert_eq!(cluster.shards[1].intake(peer.1), Intake::Move);
        let hand_over = cluster.shards[1].begin_hand_over(peer.1).unwrap();
        assert_eq!(hand_over.to(), 2);
        hand_over
    };
    let hand_overs = [leave(&mut cluster, sleeper), leave(&mut cluster, client)];
    cluster.packet(worker, Command::WorkComplete, &[&handle], b"early");
    assert!(!cluster.shards[1].has_chunks(client.1), "it would be sent in two places");
    let passengers = hand_overs.map(|hand_over| cluster.shards[1].detach(hand_over, cluster.now));
    let other = cluster.connect(0);
    cluster.submit(other, Command::SubmitJob, &function(1), "");
    let [sleeper, client] =
        passengers.map(|migrating| (2, cluster.shards[2].attach(1, migrating, cluster.now)));
    cluster.settle();
    assert_eq!(cluster.hear(client), response(Command::WorkComplete, &[&handle], b"early"));
    assert_eq!(cluster.hear(sleeper), response(Command::Noop, &[], b""));
    assert!(cluster.grab(sleeper).is_some());
}

#[test]
fn who_has_to_do_with_others_or_can_not_be_handed_over_makes_no_room() {
    let mut cluster = Cluster::new(Durability::None, 1);
    let roamer = cluster.worker(1, &[function(1), function(0)]);
    let worker = cluster.worker(1, &[function(1)]);
    cluster.shards[1].start_offload(0, 5);
    cluster.say(roamer, b"");
    assert_eq!(cluster.shards[1].intake(roamer.1), Intake::Read);
    cluster.say(worker, b"");
    let hand_over = cluster.shards[1].begin_hand_over(worker.1).unwrap();
    cluster.packet(worker, Command::EchoReq, &[], b"behind");
    cluster.shards[1].start_offload(0, 0);
    cluster.shards[1].cancel_hand_over(hand_over);
    cluster.settle();
    assert_eq!(cluster.hear(worker), response(Command::EchoRes, &[], b"behind"));
    assert_eq!(cluster.shards[1].intake(worker.1), Intake::Read);
}

#[test]
fn who_does_not_read_what_is_left_for_it_stays_and_is_read_from() {
    // It wasn't read from before everything had left, and a peer that writes a large job before it
    // reads waited for ever.
    let mut cluster = Cluster::new(Durability::None, 1);
    let client = cluster.connect(1);
    cluster.shards[1].start_offload(0, 1);
    cluster.say(client, &packet(Command::EchoReq, &[], b"not read"));
    let (chunk, _) = cluster.shards[1].take(client.1).expect("the answer");
    cluster.say(client, &packet(Command::EchoReq, &[], b"next"));
    assert_eq!(cluster.shards[1].intake(client.1), Intake::Read, "what comes waits");
    cluster.shards[1].start_offload(1, 0);
    cluster.settle();
    assert_eq!(cluster.shards[1].intake(client.1), Intake::Read);
    cluster.shards[1].sent(client.1, chunk, cluster.now);
    assert_eq!(cluster.hear(client), response(Command::EchoRes, &[], b"next"));
    assert_eq!(cluster.shards[1].intake(client.1), Intake::Read);
}

/// The same story without another turn of `start_offload`, in each state that waits for replies to
/// leave.
#[test]
fn who_says_much_before_it_reads_does_not_move() {
    for state in ["settling", "packed", "leaving"] {
        let mut cluster = Cluster::new(Durability::None, 1);
        cluster.let_move(1);
        let client = cluster.connect(0);
        if state == "leaving" {
            cluster.shards[0].start_offload(1, 1);
        }
        cluster.say(client, &packet(Command::EchoReq, &[], b"not read"));
        if state == "packed" {
            cluster.hear(client);
        }
        if state != "leaving" {
            let function = function(1);
            let submit = packet(Command::SubmitJobBg, &[function.as_bytes(), b""], b"");
            cluster.say(client, &submit);
        }
        if state == "packed" {
            // Its replies have left, so it is packed; then more comes for it.
            cluster.hear(client);
            cluster.settle();
            let migration = cluster.shards[0].connections[client.1].migration;
            assert_eq!(migration, Migration::Accepted(1));
            cluster.shards[0].push(client.1, &Response::Noop, cluster.now);
        }
        let (chunk, _) = cluster.shards[0].take(client.1).expect("an answer");
        let echo = packet(Command::EchoReq, &[], &vec![b'e'; 300_000]);
        for _ in 0..5 {
            assert_eq!(cluster.shards[0].intake(client.1), Intake::Read, "{state}");
            cluster.say(client, &echo);
        }
        cluster.settle();
        cluster.shards[0].sent(client.1, chunk, cluster.now);
        assert!(cluster.hear(client).len() > 5 * 300_000, "{state}: it stayed, and is answered");
        assert_eq!(cluster.shards[0].intake(client.1), Intake::Read, "{state}");
    }
}

#[test]
fn a_core_is_not_done_while_one_is_on_its_way_whose_result_it_has() {
    let mut cluster = Cluster::new(Durability::None, 1);
    let client = cluster.connect(1);
    cluster.shards[1].start_offload(0, 1);
    cluster.say(client, b"");
    let hand_over = cluster.shards[1].begin_hand_over(client.1).unwrap();
    let migrating = cluster.shards[1].detach(hand_over, cluster.now);
    assert_eq!((cluster.shards[1].unfinished(), cluster.shards[1].connections()), (1, 0));
    let client = (0, cluster.shards[0].attach(1, migrating, cluster.now));
    cluster.settle();
    assert!(cluster.shards[1].is_idle());
    cluster.leave(client);
    assert_eq!(cluster.shards[1].remote_counts(), (0, 0));
}

#[test]
fn one_that_makes_room_awake_hears_of_what_came_meanwhile() {
    // Without a hint it would ask the core that it has one of, as long as there is something.
    let mut cluster = Cluster::new(Durability::None, 1);
    let (client, worker) = (cluster.connect(2), cluster.worker(1, &[function(1)]));
    cluster.shards[1].start_offload(0, 1);
    cluster.say(worker, b"");
    let hand_over = cluster.shards[1].begin_hand_over(worker.1).unwrap();
    let migrating = cluster.shards[1].detach(hand_over, cluster.now);
    let urgent = cluster.submit(client, Command::SubmitJobHighBg, &function(1), "");
    let worker = (0, cluster.shards[0].attach(1, migrating, cluster.now));
    cluster.settle();
    cluster.packet(worker, Command::CanDo, &[function(0).as_bytes()], b"");
    let other = cluster.submit(client, Command::SubmitJobLowBg, &function(0), "");
    assert_eq!([cluster.grab(worker), cluster.grab(worker)], [Some(urgent), Some(other)]);
}

/// Monitors showed 11 of 30 workers: each ring had descriptors of its own, and a list that goes
/// core by core named a connection that moved meanwhile twice or not at all. Here one moves from
/// any core to any other, at any two moments of a list.
#[test]
fn a_list_names_each_connection_once_whatever_moves_meanwhile() {
    for list in ["workers", "show connections"] {
        check_list(list);
    }
}

fn check_list(list: &str) {
    const LETTERS: usize = 14;
    let moves = (0..CORES).flat_map(|from| (0..CORES).map(move |to| (from, to)));
    let mut moved_meanwhile = 0;
    for (from, to) in moves.filter(|(from, to)| from != to) {
        for (departs, arrives) in (0..LETTERS)
            .flat_map(|departs| (departs..LETTERS).map(move |arrives| (departs, arrives)))
        {
            let mut cluster = Cluster::new(Durability::None, 1);
            let mover = cluster.worker(from, &[function(from)]);
            cluster.packet(mover, Command::SetClientId, &[b"mover"], b"");
            for core in 0..CORES {
                cluster.connect(core);
            }
            let monitor = cluster.connect(0);
            cluster.shards[from].start_offload(to, 1);
            cluster.say(mover, b"");
            cluster.slow = true;
            cluster.say(monitor, format!("{list}\n").as_bytes());
            let (mut text, mut migrating, mut messages) = (String::new(), None, 0);
            loop {
                if messages == departs {
                    cluster.empty_ring(from, to);
                    let hand_over = cluster.shards[from].begin_hand_over(mover.1).unwrap();
                    migrating = Some(cluster.shards[from].detach(hand_over, cluster.now));
                }
                // What is sent behind it arrives behind it.
                let held = migrating.is_some().then_some((from, to));
                let went = messages < arrives && cluster.step_beside(held)
                    || migrating.is_none() && cluster.step_beside(None);
                if !went && let Some(migrating) = migrating.take() {
                    moved_meanwhile += u32::from(!text.ends_with(".\n"));
                    cluster.shards[to].attach(from, migrating, cluster.now);
                } else if !went && messages > departs {
                    break;
                }
                messages += 1;
                text += &cluster.hear_text(monitor);
            }
            text += &cluster.hear_text(monitor);
            let (numbers, rows): (Vec<&str>, Vec<&str>) =
                text.lines().filter_map(|row| row.split_once([' ', '\t'])).unzip();
            let case = format!("from {from} to {to}, {departs} to {arrives}:\n{text}");
            assert_eq!(numbers.len(), CORES + 2, "{case}");
            assert_eq!(numbers.iter().collect::<HashSet<_>>().len(), CORES + 2, "{case}");
            let is_mover = |row: &&&str| match list {
                "workers" => **row == format!("127.0.0.1 mover : {}", function(from)),
                _ => row.contains("\tmover\t") && row.ends_with("\t1\t0\t0"),
            };
            assert_eq!(rows.iter().filter(is_mover).count(), 1, "{case}");
            assert!(text.ends_with("\n.\n"), "{case}");
        }
    }
    assert!(moved_meanwhile > 200, "only {moved_meanwhile} moved during the list");
}
