//! What peers see of several shards is what one core shows, in whatever order messages travel.
//!
//! Tests on the cluster of the module above.

use super::*;

#[test]
fn a_job_goes_from_any_core_to_any_other_and_back() {
    for (client_core, owner, worker_core) in
        (0..27).map(|n| (n % CORES, n / CORES % CORES, n / 9 % CORES))
    {
        let mut cluster = Cluster::new(Durability::None, 1);
        let name = function(owner);
        let client = cluster.connect(client_core);
        let worker = cluster.worker(worker_core, std::slice::from_ref(&name));
        assert_eq!(cluster.grab(worker), None);
        assert!(cluster.sleeps(worker));
        let handle = cluster.submit(client, Command::SubmitJob, &name, "key");
        assert_eq!(cluster.hear(worker), response(Command::Noop, &[], b""));
        assert_eq!(cluster.grab(worker).as_ref(), Some(&handle));
        cluster.packet(client, Command::GetStatus, &[&handle], b"");
        let running = response(Command::StatusRes, &[&handle, b"1", b"1", b"0", b"0"], b"");
        assert_eq!(cluster.hear(client), running);
        let large = vec![b'd'; 20_000];
        cluster.packet(worker, Command::WorkData, &[&handle], &large);
        cluster.packet(worker, Command::WorkStatus, &[&handle, b"3", b"4"], b"");
        cluster.packet(worker, Command::WorkComplete, &[&handle], b"done");
        let expected = [
            response(Command::WorkData, &[&handle], &large),
            response(Command::WorkStatus, &[&handle, b"3", b"4"], b""),
            response(Command::WorkComplete, &[&handle], b"done"),
        ];
        assert_eq!(cluster.hear(client), expected.concat());
        assert_eq!(cluster.hear(worker), b"", "results are not answered");
        cluster.packet(worker, Command::WorkComplete, &[&handle], b"again");
        let error = [&b"JOB_NOT_FOUND"[..], b"Job given in work result not found"];
        assert_eq!(cluster.hear(worker), response(Command::Error, &error, b""));
        assert!(cluster.shards.iter().all(Shard::is_idle));
    }
}

#[test]
fn replies_stay_in_the_order_of_their_requests_however_letters_travel() {
    for seed in 0..200 {
        let mut cluster = Cluster::new(Durability::None, seed);
        cluster.slow = true;
        let client = cluster.connect(0);
        let mut bytes = Vec::new();
        for turn in 0..4 {
            for core in 0..CORES {
                let name = function((core + turn) % CORES);
                let submit = packet(Command::SubmitJobBg, &[name.as_bytes(), b""], b"");
                bytes.extend([submit, format!("echo-{turn}-{core}\n").into_bytes()].concat());
                bytes.extend(packet(Command::GetStatusUnique, &[b"none"], b""));
            }
        }
        cluster.say(client, &bytes);
        let mut heard = Vec::new();
        while cluster.step() {
            heard.extend(cluster.hear(client));
        }
        heard.extend(cluster.hear(client));
        let text = heard.escape_ascii().to_string();
        let mut at = 0;
        for turn in 0..4 {
            for core in 0..CORES {
                for part in ["H:test:", &format!("echo-{turn}-{core}"), "none"] {
                    let found = text[at..].find(part);
                    at += found.unwrap_or_else(|| panic!("no {part} behind {at} in {text}"));
                }
            }
        }
    }
}

#[test]
fn priority_counts_more_than_the_core() {
    let mut cluster = Cluster::new(Durability::None, 1);
    let names: Vec<String> = (0..CORES).map(function).collect();
    let client = cluster.connect(1);
    let low = cluster.submit(client, Command::SubmitJobLowBg, &names[0], "");
    let normal = cluster.submit(client, Command::SubmitJobBg, &names[1], "");
    let high = cluster.submit(client, Command::SubmitJobHighBg, &names[2], "");
    let worker = cluster.worker(0, &names);
    let order: Vec<Vec<u8>> = std::iter::from_fn(|| cluster.grab(worker)).collect();
    assert_eq!(order, [high, normal, low]);
}

/// A core hints at its jobs to those that are awake. A worker that another core had woken got that
/// core's job, however urgent one waited where it was taken for asleep.
#[test]
fn priority_counts_more_than_the_core_that_woke_a_worker() {
    let mut cluster = Cluster::new(Durability::None, 1);
    let worker = cluster.worker(0, &[function(1), function(2)]);
    assert_eq!(cluster.grab(worker), None);
    cluster.packet(worker, Command::PreSleep, &[], b"");
    let other = cluster.worker(1, &[function(1)]);
    cluster.packet(other, Command::PreSleep, &[], b"");
    let client = cluster.connect(2);
    let urgent = cluster.submit(client, Command::SubmitJobHighBg, &function(1), "");
    assert_eq!(cluster.hear(other), response(Command::Noop, &[], b""), "it fell asleep last");
    let last = cluster.submit(client, Command::SubmitJobLowBg, &function(2), "");
    assert_eq!(cluster.hear(worker), response(Command::Noop, &[], b""));
    assert_eq!([cluster.grab(worker), cluster.grab(worker)], [Some(urgent), Some(last)]);
    assert_eq!(cluster.grab(other), None);
}

/// The first hint of a core is on its way while a worker that has just registered there grabs.
#[test]
fn a_worker_that_has_just_registered_gets_the_most_urgent_job_of_all_cores() {
    let mut cluster = Cluster::new(Durability::None, 1);
    let client = cluster.connect(2);
    let normal = cluster.submit(client, Command::SubmitJobBg, &function(0), "");
    let urgent = cluster.submit(client, Command::SubmitJobHighBg, &function(1), "");
    let worker = cluster.connect(0);
    let [own, other] = [function(0), function(1)];
    let words = [
        packet(Command::CanDo, &[own.as_bytes()], b""),
        packet(Command::CanDo, &[other.as_bytes()], b""),
        packet(Command::GrabJob, &[], b""),
        packet(Command::GrabJob, &[], b""),
    ];
    cluster.say(worker, &words.concat());
    let got = cluster.hear(worker);
    let assigned = |handle: &[u8]| {
        got.windows(handle.len()).position(|part| part == handle).expect("it is assigned")
    };
    assert!(assigned(&urgent) < assigned(&normal));
}

#[test]
fn cores_take_turns_for_a_worker_of_several() {
    let mut cluster = Cluster::new(Durability::None, 1);
    let names: Vec<String> = (0..CORES).map(function).collect();
    let client = cluster.connect(2);
    for _ in 0..3 {
        for name in &names {
            cluster.submit(client, Command::SubmitJobBg, name, "");
        }
    }
    let worker = cluster.worker(1, &names);
    let cores = Cores { own: 0, count: CORES };
    let handles = Handles::default();
    let order: Vec<usize> = std::iter::from_fn(|| cluster.grab(worker))
        .map(|handle| cores.owner_of_job(handles.number(&handle).unwrap()))
        .collect();
    assert_eq!(order.len(), 9);
    assert!(
        order.windows(3).all(|three| (0..CORES).all(|core| three.contains(&core))),
        "{order:?}"
    );
}

#[test]
fn who_leaves_gives_back_and_takes_along_what_one_core_would() {
    let mut cluster = Cluster::new(Durability::None, 1);
    let names: Vec<String> = (0..CORES).map(function).collect();
    let (client, other) = (cluster.connect(0), cluster.connect(1));
    let kept = cluster.submit(client, Command::SubmitJobBg, &names[1], "");
    cluster.submit(client, Command::SubmitJob, &names[2], "");
    let joined = cluster.submit(client, Command::SubmitJob, &names[2], "key");
    assert_eq!(cluster.submit(other, Command::SubmitJob, &names[2], "key"), joined);
    cluster.leave(client);
    let worker = cluster.worker(0, &names);
    let mut handles = [cluster.grab(worker).unwrap(), cluster.grab(worker).unwrap()];
    handles.sort_unstable();
    let mut expected = [kept, joined.clone()];
    expected.sort_unstable();
    assert_eq!(handles, expected, "nobody wants the job that only the first client waited for");
    let heir = cluster.worker(2, &names);
    assert!(cluster.sleeps(heir));
    cluster.leave(worker);
    assert_eq!(cluster.hear(heir), response(Command::Noop, &[], b""));
    let mut handles = [cluster.grab(heir).unwrap(), cluster.grab(heir).unwrap()];
    handles.sort_unstable();
    assert_eq!(handles, expected);
    cluster.packet(heir, Command::WorkFail, &[&joined], b"");
    assert_eq!(cluster.hear(other), response(Command::WorkFail, &[&joined], b""));
}

#[test]
fn admin_commands_see_and_reach_every_core() {
    let mut cluster = Cluster::new(Durability::None, 1);
    let names: Vec<String> = (0..CORES).map(function).collect();
    let admin = cluster.connect(1);
    let worker = cluster.worker(2, &names);
    cluster.packet(worker, Command::SetClientId, &[b"wanda"], b"");
    let handles: Vec<Vec<u8>> = names
        .iter()
        .map(|name| cluster.submit(admin, Command::SubmitJobBg, name, &format!("u{name}")))
        .collect();
    cluster.say(admin, b"status\nversion\n");
    let [a, b, c] = &names[..] else { panic!() };
    let rows = format!("{a}\t1\t0\t1\n{b}\t1\t0\t1\n{c}\t1\t0\t1\n.\nOK 0.1\n");
    assert_eq!(cluster.hear_text(admin), rows);
    cluster.say(admin, b"workers\n");
    let workers = cluster.hear_text(admin);
    let of_wanda = workers.lines().find(|line| line.contains("wanda")).unwrap().to_owned();
    assert!(names.iter().all(|name| of_wanda.contains(name.as_str())), "{workers}");
    assert_eq!(workers.lines().count(), 3, "{workers}");
    cluster.say(admin, b"show jobs\n");
    assert_eq!(cluster.hear_text(admin).lines().count(), 4);
    cluster.say(admin, b"show unique jobs\n");
    assert_eq!(cluster.hear_text(admin), format!("u{a}\nu{b}\nu{c}\n.\n"));
    for handle in handles {
        cluster.say(admin, &[b"cancel job ", &handle[..], b"\n"].concat());
        assert_eq!(cluster.hear_text(admin), "OK\r\n");
    }
    cluster.say(admin, format!("maxqueue {c} 1\n").as_bytes());
    assert_eq!(cluster.hear_text(admin), "OK\r\n");
    cluster.submit(admin, Command::SubmitJobBg, c, "");
    cluster.packet(admin, Command::SubmitJobBg, &[c.as_bytes(), b""], b"");
    let full = [&b"QUEUE_ERROR"[..], b"Job queue is full"];
    assert_eq!(cluster.hear(admin), response(Command::Error, &full, b""));
    cluster.say(admin, format!("drop function {b}\n").as_bytes());
    let busy = "ERR there are still connected workers or executing clients\r\n";
    assert_eq!(cluster.hear_text(admin), busy);
    cluster.leave(worker);
    for (name, reply) in [(b, "OK\r\n"), (b, "ERR function not found\r\n"), (c, "OK\r\n")] {
        cluster.say(admin, format!("drop function {name}\n").as_bytes());
        assert_eq!(cluster.hear_text(admin), reply);
    }
}

#[test]
fn a_durable_job_of_another_core_is_answered_when_it_is_kept() {
    let mut cluster = Cluster::new(Durability::Fsync, 1);
    let client = cluster.connect(0);
    let name = function(1);
    cluster.packet(client, Command::SubmitJobBg, &[name.as_bytes(), b""], b"");
    cluster.say(client, b"version\n");
    assert_eq!(cluster.hear(client), b"");
    let mut operations = Vec::new();
    cluster.shards[1].take_operations(&mut operations);
    let [Operation::Insert { row, .. }] = &operations[..] else { panic!("{operations:?}") };
    cluster.shards[1].stored(row.number, true, cluster.now);
    cluster.settle();
    let handle = Handles::default().text(row.number);
    let created = response(Command::JobCreated, &[handle.as_ref()], b"");
    assert_eq!(cluster.hear(client), [&created[..], b"OK 0.1\n"].concat());
}

#[test]
fn a_body_that_came_whole_counts_where_its_job_is() {
    let mut cluster = Cluster::new(Durability::None, 1);
    for shard in &mut cluster.shards {
        shard.settings.memory_bytes_max = 50_000;
    }
    let client = cluster.connect(0);
    let name = function(1);
    let arguments = [name.as_bytes(), b""];
    cluster.packet(client, Command::SubmitJobBg, &arguments, &[b'p'; 100_000]);
    let error = [&b"QUEUE_ERROR"[..], b"MEMORY_ALLOCATION_FAILURE"];
    assert_eq!(cluster.hear(client), response(Command::Error, &error, b""));
    assert!(cluster.shards.iter().all(Shard::is_idle));
    cluster.submit(client, Command::SubmitJobBg, &name, "");
}

#[test]
fn a_worker_that_has_said_all_is_not_heard_of_again() {
    let mut cluster = Cluster::new(Durability::None, 1);
    let names: Vec<String> = (0..CORES).map(function).collect();
    let worker = cluster.worker(0, &names);
    assert!(cluster.sleeps(worker));
    let client = cluster.connect(1);
    cluster.slow = true;
    cluster.packet(client, Command::SubmitJobBg, &[names[1].as_bytes(), b""], b"");
    // The wake-up and the end of the connection cross.
    cluster.post();
    let (core, conn) = worker;
    cluster.shards[core].ended(conn, cluster.now);
    cluster.settle();
    cluster.leave(worker);
    assert!(cluster.shards[1].proxies[0].is_empty(), "the stand-in goes with its connection");
    let heir = cluster.worker(0, &names);
    assert_eq!(heir, worker, "the number is given to the next one");
    cluster.slow = false;
    assert!(cluster.grab(heir).is_some());
}

#[test]
fn a_worker_that_was_woken_at_home_gives_that_lease_back_when_it_works_elsewhere() {
    // A worker of one core, woken there, named its first function of another core and got its job
    // from that. Its home didn't know that it had been woken at home, so no core declined: the job
    // that it was woken for lay beside a sleeper until the lease ran out.
    let mut cluster = Cluster::new(Durability::None, 1);
    let names: Vec<String> = (0..CORES).map(function).collect();
    let client = cluster.connect(2);
    let sleeper = cluster.worker(0, &names[..1]);
    assert!(cluster.sleeps(sleeper));
    let worker = cluster.worker(0, &names[..1]);
    assert!(cluster.sleeps(worker));
    cluster.submit(client, Command::SubmitJobLowBg, &names[0], "");
    assert_eq!(cluster.hear(worker), response(Command::Noop, &[], b""));
    let urgent = cluster.submit(client, Command::SubmitJobHighBg, &names[1], "");
    cluster.packet(worker, Command::CanDo, &[names[1].as_bytes()], b"");
    assert_eq!(cluster.grab(worker), Some(urgent));
    assert_eq!(cluster.hear(sleeper), response(Command::Noop, &[], b""));
}

#[test]
fn a_worker_that_grabs_in_its_sleep_gets_the_most_urgent_job_of_its_own_core() {
    // Its own core still took it for asleep, so it had no hint of the job there, for which another
    // one had been woken; it asked the cores in their order and got a less urgent job.
    let mut cluster = Cluster::new(Durability::None, 1);
    let names: Vec<String> = (0..CORES).map(function).collect();
    let client = cluster.connect(2);
    let worker = cluster.worker(1, &names[..2]);
    assert!(cluster.sleeps(worker));
    for core in [0, 1] {
        let other = cluster.worker(core, &names[core..=core]);
        assert!(cluster.sleeps(other));
    }
    cluster.submit(client, Command::SubmitJobLowBg, &names[0], "");
    let normal = cluster.submit(client, Command::SubmitJobBg, &names[1], "");
    assert_eq!(cluster.hear(worker), b"");
    assert_eq!(cluster.grab(worker), Some(normal));
}

#[test]
fn a_worker_that_says_twice_that_it_sleeps_is_woken_once() {
    // A hint that came in its sleep had the second PRE_SLEEP answered with a NOOP, but it was taken
    // for asleep as before, and the owner's NOOP followed.
    let mut cluster = Cluster::new(Durability::None, 1);
    let names: Vec<String> = (0..CORES).map(function).collect();
    let client = cluster.connect(0);
    let worker = cluster.worker(1, &names[..2]);
    cluster.slow = true;
    cluster.submit_unheard(client, &names[0]);
    cluster.post();
    cluster.packet(worker, Command::PreSleep, &[], b"");
    assert_eq!(cluster.hear(worker), b"");
    let hint = cluster.rings[0][1].pop_front().expect("a hint for one that was awake");
    cluster.shards[1].receive_message(0, hint, cluster.now);
    cluster.packet(worker, Command::PreSleep, &[], b"");
    assert_eq!(cluster.hear(worker), response(Command::Noop, &[], b""));
    cluster.settle();
    assert_eq!(cluster.hear(worker), b"");
    cluster.slow = false;
    assert!(cluster.grab(worker).is_some());
}

#[test]
fn who_writes_to_a_congested_core_waits_and_nobody_else() {
    let mut cluster = Cluster::new(Durability::None, 1);
    let names: Vec<String> = (0..CORES).map(function).collect();
    let (client, other, far) = (cluster.connect(0), cluster.connect(0), cluster.connect(1));
    // Both ways are full.
    (cluster.congested[0], cluster.congested[1]) = (1 << 1, 1 << 0);
    cluster.post();
    cluster.slow = true;
    let submit = packet(Command::SubmitJobBg, &[names[1].as_bytes(), b""], b"");
    cluster.say(client, &[&submit[..], &submit, b"version\n"].concat());
    cluster.post();
    let sent = cluster.rings[0][1].len();
    assert_eq!(sent, 2, "where it comes from, and one request, after which it has to wait");
    assert_eq!(cluster.shards[0].intake(client.1), Intake::Pause);
    for core in [0, 2] {
        cluster.submit_unheard(other, &names[core]);
        assert_eq!(cluster.shards[0].intake(other.1), Intake::Read);
    }
    cluster.submit_unheard(far, &names[0]);
    assert_eq!(cluster.shards[1].intake(far.1), Intake::Pause);
    // What other cores ask is answered all the same.
    cluster.settle();
    let created = |heard: Vec<u8>| heard.windows(8).filter(|at| at == b"\0RES\0\0\0\x08").count();
    assert_eq!([far, other, client].map(|peer| created(cluster.hear(peer))), [1, 2, 1]);
    assert_eq!(cluster.shards[0].intake(client.1), Intake::Pause, "though nothing is to come");

    cluster.congested = [0; CORES];
    cluster.post();
    assert!(cluster.shards[0].has_resumed());
    cluster.settle();
    assert_eq!(cluster.shards[0].intake(client.1), Intake::Read);
    assert_eq!(cluster.shards[1].intake(far.1), Intake::Read);
    assert!(cluster.hear_text(client).ends_with("OK 0.1\n"));
    assert_eq!(cluster.shards[1].engine.jobs().len(), 2);
}

#[test]
fn who_goes_while_it_waits_leaves_nothing_to_the_next_one() {
    let mut cluster = Cluster::new(Durability::None, 1);
    cluster.congested[0] = 1 << 1;
    cluster.post();
    let client = cluster.connect(0);
    cluster.submit_unheard(client, &function(1));
    cluster.leave(client);
    assert!(cluster.shards[0].outgoing.is_free());
    let next = cluster.connect(0);
    assert_eq!(next, client, "the number is given to the next one");
    assert_eq!(cluster.shards[0].intake(next.1), Intake::Read);
}

#[test]
fn no_turn_has_letters_without_end() {
    let mut cluster = Cluster::new(Durability::None, 1);
    let worker = cluster.connect(0);
    let can_do = packet(Command::CanDo, &[function(1).as_bytes()], b"");
    let (core, conn) = worker;
    cluster.shards[core].received(conn, &can_do.repeat(MESSAGES_PAUSE + 10), cluster.now);
    assert_eq!(cluster.shards[core].outgoing.untaken(), MESSAGES_PAUSE);
    assert_eq!(cluster.shards[core].intake(conn), Intake::Pause);
    cluster.settle();
    assert_eq!(cluster.shards[core].intake(conn), Intake::Read);
    assert_eq!(cluster.shards[core].counters.frames(), MESSAGES_PAUSE as u64 + 10);
}

#[test]
fn letters_count_towards_the_memory_limit_until_they_arrive() {
    let mut cluster = Cluster::new(Durability::None, 1);
    cluster.shards[0].settings.memory_bytes_max = 150_000;
    let (client, other) = (cluster.connect(0), cluster.connect(0));
    let name = function(1);
    let submit = packet(Command::SubmitJobBg, &[name.as_bytes(), b""], &[b'p'; 100_000]);
    cluster.slow = true;
    cluster.say(client, &submit);
    let load = |cluster: &Cluster| cluster.shards.iter().map(Shard::load_bytes).sum::<isize>();
    assert!(load(&cluster) > 100_000, "{}", load(&cluster));
    assert_eq!(cluster.shards[0].memory_bytes(), 0);
    // Neither is there room for another one, nor when others say that they have it.
    let (head, rest) = submit.split_at(50);
    cluster.say(other, head);
    cluster.say(other, rest);
    let error = [&b"QUEUE_ERROR"[..], b"MEMORY_ALLOCATION_FAILURE"];
    assert_eq!(cluster.hear(other), response(Command::Error, &error, b""));
    cluster.settle();
    assert_eq!(cluster.rings.iter().flatten().map(VecDeque::len).sum::<usize>(), 0);
    let memory_of = |shard: &Shard| shard.memory_bytes() + shard.registry_bytes();
    let memory: usize = cluster.shards.iter().map(memory_of).sum();
    assert_eq!(load(&cluster), memory.cast_signed());
    let bytes = cluster.shards[1].load_bytes() + cluster.shards[2].load_bytes();
    cluster.shards[0].set_other_cores(OtherCores { bytes, ..OtherCores::default() });
    cluster.say(other, head);
    cluster.say(other, rest);
    assert_eq!(cluster.hear(other), response(Command::Error, &error, b""));
}

#[test]
fn who_sends_on_and_on_while_a_grab_is_on_its_way_is_not_read_from() {
    // The bound looked at a connection whose bytes had been taken out to be handled, and so at
    // none: what a peer sent behind its grab piled up without limit.
    let mut cluster = Cluster::new(Durability::None, 1);
    let worker = cluster.worker(0, &[function(1)]);
    cluster.slow = true;
    cluster.packet(worker, Command::GrabJob, &[], b"");
    let echo = packet(Command::EchoReq, &[], &vec![b'e'; INBOUND_PAUSE_BYTES / 2]);
    cluster.say(worker, &echo);
    assert_eq!(cluster.shards[0].intake(worker.1), Intake::Read, "the answer comes soon");
    cluster.say(worker, &echo.repeat(2));
    assert_eq!(cluster.shards[0].intake(worker.1), Intake::Pause);
    cluster.slow = false;
    cluster.settle();
    let heard = cluster.hear(worker);
    assert!(heard.starts_with(&response(Command::NoJob, &[], b"")));
    assert_eq!(heard.len(), 12 + 3 * echo.len(), "and nothing of it is lost");
    assert_eq!(cluster.shards[0].intake(worker.1), Intake::Read);
}

#[test]
fn a_stand_in_that_gets_the_number_of_one_that_was_to_go_on_is_no_drivers_business() {
    // The number of a connection that was to go on, and left, went to a proxy at once: the
    // driver was told of a connection that it had never seen.
    let mut cluster = Cluster::new(Durability::None, 1);
    let worker = cluster.worker(0, &[function(0), function(1)]);
    cluster.slow = true;
    let client = cluster.connect(0);
    cluster.submit_unheard(client, &function(0));
    // A grab that this core answers itself lets the worker go on after the call.
    cluster.shards[0].received(worker.1, &packet(Command::GrabJob, &[], b""), cluster.now);
    cluster.shards[0].disconnect(worker.1, cluster.now);
    let key = ConnKey { conn: HomeConnId::of(ConnId::from_number(7)), generation: 1 };
    cluster.shards[0].receive_message(1, Message::Sleep(key), cluster.now);
    let named: Vec<ConnId> =
        std::iter::from_fn(|| cluster.shards[0].poll_dirty(cluster.now)).collect();
    assert!(!named.contains(&worker.1), "{named:?}");
}

/// Workers and clients at random, messages that take any time: at the end every job has been run
/// and every client has had its answer, whatever the order.
#[test]
fn nothing_is_lost_between_cores() {
    for seed in 0..300 {
        let mut cluster = Cluster::new(Durability::None, seed);
        cluster.slow = true;
        let names: Vec<String> = (0..CORES).map(function).collect();
        let mut rng = Rng::with_seed(seed);
        let clients: Vec<Peer> = (0..3).map(|core| cluster.connect(core)).collect();
        let mut workers: Vec<(Peer, Work)> = Vec::new();
        for _ in 0..3 {
            let peer = cluster.connect(rng.usize(0..CORES));
            let able = rng.u8(1..8);
            for (at, name) in names.iter().enumerate() {
                if able >> at & 1 == 1 {
                    cluster.packet(peer, Command::CanDo, &[name.as_bytes()], b"");
                }
            }
            workers.push((peer, Work::Ready));
        }
        // One can do everything, so that all jobs are run.
        for name in &names {
            cluster.packet(workers[0].0, Command::CanDo, &[name.as_bytes()], b"");
        }
        let (mut submitted, mut completed) = (0, 0);
        let mut idle = 0;
        while idle < 1000 {
            idle += 1;
            match rng.u32(0..4) {
                0 if submitted < 40 => {
                    let client = clients[rng.usize(0..3)];
                    let commands =
                        [Command::SubmitJobHigh, Command::SubmitJob, Command::SubmitJobLow];
                    let name = names[rng.usize(0..CORES)].as_bytes();
                    cluster.packet(client, commands[rng.usize(0..3)], &[name, b""], b"");
                    submitted += 1;
                    idle = 0;
                }
                1 => {
                    let at = rng.usize(0..workers.len());
                    let (peer, work) = &mut workers[at];
                    if act(&mut cluster, *peer, work, &mut completed) {
                        idle = 0;
                    }
                }
                2 if rng.u32(0..50) == 0 => {
                    // Leases of workers that are slow end.
                    cluster.now.mono_ms += 100;
                    for core in 0..CORES {
                        cluster.shards[core].tick(cluster.now);
                    }
                }
                _ => {
                    if cluster.step() {
                        idle = 0;
                    }
                }
            }
        }
        cluster.settle();
        assert_eq!((submitted, completed), (40, 40), "seed {seed}: {workers:?}");
        let mut answers = 0;
        for client in clients {
            let heard = cluster.hear(client).escape_ascii().to_string();
            answers += heard.matches("\\x00RES\\x00\\x00\\x00\\r").count();
        }
        assert_eq!(answers, 40, "seed {seed}: every client has its results");
        assert!(workers.iter().all(|(_, work)| matches!(work, Work::Asleep)), "seed {seed}");
    }
}

/// gearadmin takes what it can read at once for the whole list. Rows of the first core left as soon
/// as they were written, and now and then it showed those only.
#[test]
fn a_short_list_leaves_in_one_piece() {
    let mut cluster = Cluster::new(Durability::None, 1);
    for core in 0..CORES {
        cluster.worker(core, &[function(core)]);
    }
    for core in 0..CORES {
        let admin = cluster.connect(core);
        cluster.slow = true;
        cluster.say(admin, b"workers\n");
        while cluster.rings.iter().flatten().any(|ring| !ring.is_empty()) || cluster.step() {
            assert!(!cluster.shards[core].has_chunks(admin.1), "a piece of it");
            cluster.step();
        }
        let (chunk, more) = cluster.shards[core].take(admin.1).unwrap();
        assert!(!more && chunk.as_ref().ends_with(b"\n.\n"), "{chunk:?}");
        assert_eq!(chunk.as_ref().iter().filter(|&&byte| byte == b'\n').count(), 5 + core);
        cluster.shards[core].sent(admin.1, chunk, cluster.now);
        cluster.slow = false;
    }
}

/// What a worker is at.
#[derive(Debug)]
enum Work {
    Ready,
    Waiting,
    Asleep,
}

/// A worker does its next thing; `false` if it had nothing to do.
fn act(cluster: &mut Cluster, peer: Peer, work: &mut Work, completed: &mut u32) -> bool {
    let heard = cluster.hear(peer);
    match work {
        Work::Ready => {
            cluster.packet(peer, Command::GrabJob, &[], b"");
            *work = Work::Waiting;
        }
        Work::Waiting if heard.is_empty() => return false,
        Work::Waiting => {
            // A NOOP that comes to one that is awake would stand before the answer.
            if heard == response(Command::NoJob, &[], b"") {
                cluster.packet(peer, Command::PreSleep, &[], b"");
                *work = Work::Asleep;
            } else {
                let body = &heard[12..];
                let end = body.iter().position(|&byte| byte == 0).unwrap();
                cluster.packet(peer, Command::WorkComplete, &[&body[..end]], b"done");
                *completed += 1;
                *work = Work::Ready;
            }
        }
        Work::Asleep if heard.is_empty() => return false,
        Work::Asleep => {
            assert_eq!(heard, response(Command::Noop, &[], b""));
            *work = Work::Ready;
        }
    }
    true
}

#[test]
fn who_reads_no_reply_of_another_core_is_closed_at_the_bound() {
    // What came as a reply of another core was let through, whatever had piled up before: a client
    // of a function elsewhere that read nothing took memory without bound.
    let mut cluster = Cluster::new(Durability::None, 1);
    let bound = 64 << 10;
    cluster.shards[0].settings.outbox_bytes_max = bound;
    let client = cluster.connect(0);
    let submit = packet(Command::SubmitJobBg, &[function(1).as_bytes(), b""], b"");
    for _ in 0..20 {
        if cluster.shards[0].intake(client.1) == Intake::Close {
            break;
        }
        cluster.say(client, &submit.repeat(500));
        assert!(
            cluster.shards[0].connections.outbox_bytes() < 2 * bound,
            "{}",
            cluster.shards[0].connections.outbox_bytes()
        );
    }
    assert_eq!(cluster.shards[0].intake(client.1), Intake::Close);
    assert_eq!(cluster.shards[0].counters.slow_readers, 1);
}

#[test]
fn a_grab_behind_a_submission_sees_its_job() {
    // A worker that submitted an urgent job to another core and grabbed with the same write got a
    // less urgent one of its own core, for which there was a hint.
    let mut cluster = Cluster::new(Durability::None, 1);
    let worker = cluster.connect(0);
    let (here, there) = (function(0), function(1));
    for name in [&here, &there] {
        cluster.packet(worker, Command::CanDo, &[name.as_bytes()], b"");
    }
    cluster.packet(worker, Command::SubmitJobLowBg, &[here.as_bytes(), b""], b"can wait");
    cluster.hear(worker);
    let urgent = packet(Command::SubmitJobHighBg, &[there.as_bytes(), b""], b"urgent");
    let grab = packet(Command::GrabJob, &[], b"");
    cluster.say(worker, &[&urgent[..], &grab].concat());
    assert!(cluster.hear(worker).ends_with(b"\0urgent"));
    cluster.say(worker, &grab);
    assert!(cluster.hear(worker).ends_with(b"\0can wait"));
}
