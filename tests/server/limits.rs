//! Limits and hostile input: what a server must bear without harm to others, with any driver.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::panic::resume_unwind;
use std::process::Command as Process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::close;
use ringgear::wire::Command;
use socket2::SockRef;

use crate::harness::{Contender, PATIENCE, Server, wait_until};
use crate::skips::note;
use crate::wire::{echo, expect, receive, request, send};

const MIB: usize = 1 << 20;
/// Connections that come beside others which are being closed, and how many of them stay at a time.
const NEWCOMERS: usize = 2000;
const NEWCOMERS_AT_A_TIME: usize = 20;

fn each_driver(options: &[&str], test: impl Fn(Contender, Server)) {
    for contender in Contender::RINGGEAR.into_iter().filter(|contender| contender.is_here()) {
        eprintln!("{contender:?}");
        if let Some(server) = Server::start_with(contender, options) {
            test(contender, server);
        }
    }
}

/// A number of a process's status, in bytes.
fn memory_of(server: &Server, field: &str) -> usize {
    let path = format!("/proc/{}/status", server.pid());
    let status = std::fs::read_to_string(path).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the field");
    let kib = line.trim_matches([':', ' ', '\t']).trim_end_matches(" kB").trim();
    kib.parse::<usize>().expect("a number") * 1024
}

/// Descriptors of a process.
fn descriptors_of(server: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("a process").count()
}

/// Connections by `stats`, the asking one included. A list of 20 000 takes a debug build seconds.
fn connections_of(server: &Server) -> usize {
    // Unlike a bare `read`, a reader of lines goes on when a stop of the whole process interrupts
    // it, as happens to sockets with a timeout (signal(7)).
    let mut admin = BufReader::new(server.connect());
    admin.get_mut().write_all(b"stats\n").expect("the server reads");
    let mut lines = admin.lines().map(|line| line.expect("the server answers"));
    let found = lines.find_map(|line| line.strip_prefix("connections\t")?.parse().ok());
    found.expect("a number")
}

/// Closes without leaving the port in TIME_WAIT, or tests would run out of ports.
fn reset(stream: &TcpStream) {
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).expect("an option");
}

/// Lets this process have `wanted` descriptors, or as many as it may.
fn raise_own_descriptors(wanted: u64) -> u64 {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    for limit in [wanted, hard] {
        if setrlimit(Resource::RLIMIT_NOFILE, limit, limit.max(hard)).is_ok() {
            return limit;
        }
    }
    getrlimit(Resource::RLIMIT_NOFILE).expect("a limit").0
}

/// Runs a test on a thread with a table of descriptors of its own, with nothing in it but the
/// three standard ones: what the tests beside it have open neither counts nor stays open here.
fn with_own_descriptors(test: impl FnOnce() + Send + 'static) {
    let on_its_own = move || {
        match unshare(CloneFlags::CLONE_FILES) {
            Ok(()) => {
                let inherited = std::fs::read_dir("/proc/thread-self/fd").expect("a thread");
                let numbers =
                    inherited.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
                let numbers: Vec<i32> = numbers.filter_map(|number| number.parse().ok()).collect();
                numbers.into_iter().filter(|&number| number > 2).for_each(|number| {
                    // One is the directory's, closed by now.
                    let _ = close(number);
                });
            }
            Err(errno) => eprintln!("descriptors are shared with the tests beside this: {errno}"),
        }
        test();
    };
    std::thread::spawn(on_its_own).join().unwrap_or_else(|cause| resume_unwind(cause));
}

// It shared the process's descriptors with the tests beside it, took all but 500, and failed
// when those had more.
#[test]
fn twenty_thousand_idle_connections_are_held() {
    // The limit is the process's. The note goes through a pipe that the other table doesn't have.
    let limit = raise_own_descriptors(21_000);
    let count = 20_000.min(usize::try_from(limit).expect("a limit") - 500);
    if count < 20_000 {
        note(&format!("only {count} connections, as this user may not have more descriptors"));
    }
    with_own_descriptors(move || hold(count));
}

fn hold(count: usize) {
    let descriptors = (count + 200).to_string();
    each_driver(&["--file-descriptors", &descriptors], |contender, server| {
        echo(&mut server.connect(), b"warm");
        let before = memory_of(&server, "VmRSS");
        let mut idle: Vec<TcpStream> = Vec::with_capacity(count);
        while idle.len() < count {
            idle.extend((0..500.min(count - idle.len())).map(|_| server.connect()));
            // No listener's queue may run over: the kernel tries again after seconds, then more.
            idle.iter_mut().rev().take(16).for_each(|stream| echo(stream, b"accepted"));
        }
        wait_until("all to be accepted", || (connections_of(&server) == count + 1).then_some(()));
        let each = memory_of(&server, "VmRSS").saturating_sub(before) / count;
        eprintln!("{contender:?}: {count} idle connections, {each} bytes each");
        assert!(each < 2048, "{each} bytes an idle connection");
        echo(&mut idle[count / 2], b"still here");
        idle.iter().for_each(reset);
        drop(idle);
        wait_until("all to be gone", || (connections_of(&server) == 1).then_some(()));
    });
}

#[test]
fn each_ring_holds_as_many_as_the_process_has_descriptors() {
    let contender = Contender::RinggearUring3;
    if !contender.is_here() {
        return;
    }
    let server = Server::start_with(contender, &["--file-descriptors", "200"]).expect("ours");
    // The kernel shares them out by chance, and hardly 136 to one of three.
    let count = 250;
    let mut idle: Vec<TcpStream> = (0..count).map(|_| server.connect()).collect();
    wait_until("all to be accepted", || (connections_of(&server) == count + 1).then_some(()));
    idle.iter_mut().for_each(|stream| echo(stream, b"here"));
}

#[test]
fn a_hundred_thousand_connections_leave_nothing_behind() {
    each_driver(&[], |contender, server| {
        let cycle = |round: usize| {
            let mut batch: Vec<TcpStream> = (0..500).map(|_| server.connect()).collect();
            for (at, stream) in batch.iter_mut().enumerate() {
                match at % 50 {
                    0 => echo(stream, b"hello"),
                    1 => send(stream, Command::CanDo, &[b"f"], b""),
                    2 => send(stream, Command::SubmitJob, &[b"g", b""], b"nobody will"),
                    3 => stream.write_all(b"\0REQ\0\0").expect("half a header"),
                    _ => {}
                }
                // Few leave politely: each who does keeps its port for a minute.
                if at % 10 != round % 10 {
                    reset(stream);
                }
            }
        };
        (0..40).for_each(cycle);
        wait_until("the warm-up to be gone", || (connections_of(&server) == 1).then_some(()));
        let (memory, descriptors) = (memory_of(&server, "VmRSS"), descriptors_of(&server));
        // The other ways to run share what could leak with these two.
        let is_main = [Contender::RinggearEpoll, Contender::RinggearUring].contains(&contender);
        let cycles = if is_main { 200 } else { 40 };
        (0..cycles).for_each(cycle);
        wait_until("all to be gone", || (connections_of(&server) == 1).then_some(()));
        let grown = memory_of(&server, "VmRSS").saturating_sub(memory);
        let count = cycles * 500;
        eprintln!("{contender:?}: {grown} bytes more after {count} connections");
        assert!(grown < 2 * MIB, "{grown} bytes left behind");
        wait_until("descriptors to be closed", || {
            (descriptors_of(&server) <= descriptors).then_some(())
        });
    });
}

// The C library's allocator kept half of what the jobs had taken, for ever.
#[test]
fn memory_comes_back_when_the_queue_is_drained() {
    each_driver(&[], |contender, server| {
        let (mut client, mut worker) = (server.connect(), server.connect());
        send(&mut worker, Command::CanDo, &[b"drain"], b"");
        echo(&mut worker, b"warm");
        let before = memory_of(&server, "VmRSS");
        let (rounds, batch) = (200, 500);
        let submissions = request(Command::SubmitJobBg, &[b"drain", b""], &[b'x'; 256]);
        for _ in 0..rounds {
            client.write_all(&submissions.repeat(batch)).expect("the server reads");
            (0..batch).for_each(|_| drop(expect(&mut client, Command::JobCreated)));
        }
        let full = memory_of(&server, "VmRSS").saturating_sub(before);
        for _ in 0..rounds {
            let grabs = request(Command::GrabJob, &[], b"").repeat(batch);
            worker.write_all(&grabs).expect("the server reads");
            let mut results = Vec::new();
            for _ in 0..batch {
                let assigned = expect(&mut worker, Command::JobAssign);
                let handle = assigned.split(|&byte| byte == 0).next().expect("a handle");
                results.extend(request(Command::WorkComplete, &[handle], b""));
            }
            worker.write_all(&results).expect("the server reads");
        }
        assert!(full > 10 * MIB, "{full} bytes: the jobs went elsewhere");
        wait_until("most of it to come back", || {
            // The allocator gives back after a moment, when it is asked for something.
            echo(&mut worker, b"alive");
            let left = memory_of(&server, "VmRSS").saturating_sub(before);
            (left < full / 4).then(|| eprintln!("{contender:?}: {left} bytes of {full} left"))
        });
    });
}

/// Pages that a process has been given so far.
fn faults_of(server: &Server) -> usize {
    let path = format!("/proc/{}/stat", server.pid());
    let stat = std::fs::read_to_string(path).expect("a process");
    let (_, fields) = stat.rsplit_once(')').expect("its name");
    fields.split_whitespace().nth(7).expect("minflt").parse().expect("a number")
}

// Bodies of 64 to 256 KiB took fresh pages each time: 52 for 100 KiB there and back, which was a
// third of what such a job cost.
#[test]
fn bodies_get_memory_that_has_served_before() {
    each_driver(&[], |contender, server| {
        let (mut client, mut worker) = (server.connect(), server.connect());
        send(&mut worker, Command::CanDo, &[b"echo"], b"");
        let mut round_trip = |bytes: usize| {
            let body = vec![b'x'; bytes];
            send(&mut client, Command::SubmitJob, &[b"echo", b""], &body);
            expect(&mut client, Command::JobCreated);
            send(&mut worker, Command::GrabJob, &[], b"");
            let assigned = expect(&mut worker, Command::JobAssign);
            let handle = assigned.split(|&byte| byte == 0).next().expect("a handle");
            send(&mut worker, Command::WorkComplete, &[handle], &body);
            expect(&mut client, Command::WorkComplete);
        };
        for kib in [70, 100, 200, 400] {
            (0..10).for_each(|_| round_trip(kib << 10));
            let before = faults_of(&server);
            (0..200).for_each(|_| round_trip(kib << 10));
            let faults = faults_of(&server) - before;
            eprintln!("{contender:?}: {faults} faults for 200 jobs of {kib} KiB");
            // Buffers of io_uring that are used for the first time: 512 for each of three rings.
            assert!(faults < 2000, "{faults} faults for 200 jobs of {kib} KiB");
        }
    });
}

// Once it had freed one large body, the C library put those that came then side by side in its
// heap, and kept all of that for the sake of the few that stayed.
#[test]
fn memory_of_bodies_comes_back_though_some_stay() {
    each_driver(&[], |contender, server| {
        let (mut client, mut worker) = (server.connect(), server.connect());
        send(&mut worker, Command::CanDo, &[b"go"], b"");
        let mut submit = |function: &[u8], bytes: usize| {
            send(&mut client, Command::SubmitJobBg, &[function, b""], &vec![b'x'; bytes]);
            expect(&mut client, Command::JobCreated);
        };
        let mut work = |count: usize| {
            for _ in 0..count {
                send(&mut worker, Command::GrabJob, &[], b"");
                let assigned = expect(&mut worker, Command::JobAssign);
                let handle = assigned.split(|&byte| byte == 0).next().expect("a handle");
                send(&mut worker, Command::WorkComplete, &[handle], b"");
            }
            echo(&mut worker, b"done");
        };
        let before = memory_of(&server, "VmRSS");
        let grown = || memory_of(&server, "VmRSS").saturating_sub(before);
        submit(b"go", 16 * MIB);
        assert!(grown() > 15 * MIB, "{} bytes: the job went elsewhere", grown());
        work(1);
        wait_until("it to come back", || (grown() < 4 * MIB).then_some(()));
        for number in 0..200 {
            let function: &[u8] = if number % 25 == 24 { b"stay" } else { b"go" };
            submit(function, MIB / 2);
        }
        let full = grown();
        work(192);
        wait_until("most of it to come back", || {
            let left = grown();
            (left < full / 4).then(|| eprintln!("{contender:?}: {left} bytes of {full} left"))
        });
    });
}

#[test]
fn accepting_goes_on_when_descriptors_are_back() {
    // Not the io_uring driver: its direct descriptors aren't the process's.
    accepting_goes_on(Contender::RinggearEpoll);
    if Contender::RinggearGlommio.is_here() {
        accepting_goes_on(Contender::RinggearGlommio);
    }
}

fn accepting_goes_on(contender: Contender) {
    let server = Server::start(contender).expect("a driver of ours");
    let mut first = server.connect();
    echo(&mut first, b"before");
    let idle = descriptors_of(&server) - 1;
    drop(first);
    wait_until("its end", || (descriptors_of(&server) <= idle).then_some(()));
    let limit = |descriptors: usize| {
        let pid = server.pid().to_string();
        let limit = format!("--nofile={descriptors}:20000");
        let status = Process::new("prlimit").args(["--pid", &pid, &limit]).status();
        assert!(status.expect("prlimit").success());
    };
    limit(idle);
    // More than one, for a driver may have a descriptor to spare.
    let mut waiting: Vec<TcpStream> = (0..8).map(|_| server.connect()).collect();
    waiting.iter_mut().for_each(|stream| send(stream, Command::EchoReq, &[], b"late"));
    server.wait_for_log("accepting pauses", |_| Some(()));
    limit(1000);
    for stream in &mut waiting {
        assert_eq!(expect(stream, Command::EchoRes), b"late");
    }
}

#[test]
fn connections_beyond_the_limit_are_turned_away_until_one_leaves() {
    each_driver(&["--connections-max", "3"], |_, server| {
        let mut held: Vec<TcpStream> = (0..3).map(|_| server.connect()).collect();
        held.iter_mut().for_each(|stream| echo(stream, b"in"));
        assert_eq!(receive(&mut server.connect()), None, "the fourth is turned away");
        reset(&held[0]);
        held.remove(0);
        wait_until("room for another", || {
            let mut stream = server.connect();
            let _ = stream.write_all(&request(Command::EchoReq, &[], b"in"));
            receive(&mut stream)
        });
        held.iter_mut().for_each(|stream| echo(stream, b"still in"));
    });
}

/// Echoes of 64 KiB each, 25 MiB in all, written with one blocking call after another.
fn write_echoes(writer: &mut TcpStream) {
    for number in 0..400_u32 {
        let mut payload = vec![0; 64 << 10];
        payload[..4].copy_from_slice(&number.to_be_bytes());
        send(writer, Command::EchoReq, &[], &payload);
    }
}

fn expect_echoes(reader: &mut TcpStream) {
    for number in 0..400_u32 {
        let body = expect(reader, Command::EchoRes);
        assert_eq!((body.len(), &body[..4]), (64 << 10, &number.to_be_bytes()[..]));
    }
}

#[test]
fn a_peer_may_write_all_its_requests_before_it_reads_a_reply() {
    // The server stopped reading at 1 MiB of unread replies: a client that wrote hundreds of
    // thousands of submissions and only then read was stuck, and reset after a minute.
    each_driver(&[], |_, server| {
        let mut peer = server.connect();
        write_echoes(&mut peer);
        expect_echoes(&mut peer);
    });
}

#[test]
fn a_large_job_is_taken_while_a_large_result_waits_for_its_sender() {
    // Neither side read while it wrote: a deadlock, until the connection was reset.
    each_driver(&[], |_, server| {
        let (mut client, mut worker) = (server.connect(), server.connect());
        send(&mut client, Command::SubmitJob, &[b"both", b""], b"");
        let handle = expect(&mut client, Command::JobCreated);
        send(&mut worker, Command::CanDo, &[b"both"], b"");
        send(&mut worker, Command::GrabJob, &[], b"");
        expect(&mut worker, Command::JobAssign);
        send(&mut worker, Command::WorkComplete, &[&handle], &vec![b'r'; 8 * MIB]);
        echo(&mut worker, b"it is on its way");
        send(&mut client, Command::SubmitJobBg, &[b"both", b""], &vec![b'j'; 8 * MIB]);
        assert_eq!(expect(&mut client, Command::WorkComplete).len(), handle.len() + 1 + 8 * MIB);
        expect(&mut client, Command::JobCreated);
    });
}

#[test]
fn a_peer_that_does_not_read_waits_when_memory_is_short_and_loses_nothing() {
    each_driver(&["--memory-max", "12m"], |_, server| {
        // Without pages of the program itself, of which builds for tests have many.
        let before = memory_of(&server, "RssAnon");
        let mut slow = server.connect();
        let mut writer = slow.try_clone().expect("a clone");
        let sender = std::thread::spawn(move || write_echoes(&mut writer));
        // 25 MiB can't be in the sockets' buffers, so the server has to wait; others don't.
        let mut other = server.connect();
        (0..100).for_each(|_| echo(&mut other, b"meanwhile"));
        let grown = memory_of(&server, "RssAnon").saturating_sub(before);
        assert!(grown < 20 * MIB, "the server hoards replies: {grown} bytes more");
        expect_echoes(&mut slow);
        sender.join().expect("no panic");
    });
}

#[test]
fn memory_stays_bounded_when_results_pile_up_for_peers_that_do_not_read() {
    // Four clients that didn't read and a worker that sent WORK_DATA of 4 KiB took ten times what
    // `--memory-max` allowed.
    each_driver(&["--memory-max", "16m"], |_, server| {
        let mut worker = server.connect();
        send(&mut worker, Command::CanDo, &[b"pile"], b"");
        let mut handles = Vec::new();
        let clients: Vec<TcpStream> = (0..4)
            .map(|_| {
                let mut client = server.connect();
                send(&mut client, Command::SubmitJob, &[b"pile", b""], b"");
                handles.push(expect(&mut client, Command::JobCreated));
                send(&mut worker, Command::GrabJob, &[], b"");
                expect(&mut worker, Command::JobAssign);
                client
            })
            .collect();
        let data = vec![b'x'; 4096];
        wait_until("the one with most unread to be closed", || {
            for handle in handles.iter().cycle().take(1000) {
                send(&mut worker, Command::WorkData, &[handle], &data);
            }
            echo(&mut worker, b"alive");
            assert!(memory_of(&server, "VmRSS") < 64 * MIB, "memory isn't bounded");
            server.log().contains("--memory-max is reached").then_some(())
        });
        let port = |client: &TcpStream| client.local_addr().expect("an address").to_string();
        let log = server.log();
        let named = clients.iter().filter(|client| log.contains(&port(client))).count();
        assert!(named > 0, "{log}");
    });
}

#[test]
fn a_peer_that_lets_results_pile_up_is_closed_and_others_go_on() {
    each_driver(&["--outbox-max", "1m"], |_, server| {
        let (mut client, mut worker) = (server.connect(), server.connect());
        send(&mut client, Command::SubmitJob, &[b"pile", b""], b"");
        let handle = expect(&mut client, Command::JobCreated);
        send(&mut worker, Command::CanDo, &[b"pile"], b"");
        send(&mut worker, Command::GrabJob, &[], b"");
        expect(&mut worker, Command::JobAssign);
        let data = vec![b'x'; 256 << 10];
        wait_until("the server to lose patience", || {
            send(&mut worker, Command::WorkData, &[&handle], &data);
            echo(&mut worker, b"alive");
            server.log().contains("doesn't read").then_some(())
        });
        send(&mut worker, Command::WorkComplete, &[&handle], b"");
        echo(&mut worker, b"alive");
        let mut rest = Vec::new();
        // Ends with an end or a reset, whichever comes first.
        let _ = client.read_to_end(&mut rest);
    });
}

#[test]
fn a_half_closed_peer_gets_its_replies() {
    each_driver(&[], |_, server| {
        let mut peer = server.connect();
        let mut bytes = request(Command::EchoReq, &[], &vec![b'e'; 3 * MIB]);
        bytes.extend(request(Command::SubmitJobBg, &[b"half", b""], b"payload"));
        bytes.extend(b"status\n");
        peer.write_all(&bytes).expect("the server reads");
        peer.shutdown(Shutdown::Write).expect("half a close");
        assert_eq!(expect(&mut peer, Command::EchoRes).len(), 3 * MIB);
        expect(&mut peer, Command::JobCreated);
        let mut text = String::new();
        peer.read_to_string(&mut text).expect("an end");
        assert_eq!(text, "half\t1\t0\t0\n.\n");
    });
}

#[test]
fn floods_of_tiny_requests_leave_room_for_others() {
    each_driver(&[], |_, server| {
        let grabs = request(Command::GrabJob, &[], b"").repeat(200_000);
        let lines = b"status\n".repeat(200_000);
        for flood in [grabs, lines] {
            let stream = server.connect();
            let mut writer = stream.try_clone().expect("a clone");
            let sender = std::thread::spawn(move || {
                // The flooder never reads, so this ends when the connection does.
                let _ = writer.write_all(&flood);
            });
            let mut other = server.connect();
            (0..200).for_each(|_| echo(&mut other, b"between"));
            let _ = stream.shutdown(Shutdown::Both);
            sender.join().expect("no panic");
        }
        assert!(memory_of(&server, "VmHWM") < 40 * MIB, "floods are held in memory");
    });
}

/// While the server stands still they fill more receive buffers than there are.
#[test]
fn many_that_send_at_once_are_all_answered_in_order() {
    const TALKERS: u8 = 80;
    const REQUESTS: u8 = 8;
    let payload = |talker: u8, request: u8| [[talker; 2000], [request; 2000]].concat();
    each_driver(&[], |_, server| {
        let mut talkers: Vec<TcpStream> = (0..TALKERS).map(|_| server.connect()).collect();
        for _ in 0..2 {
            talkers.iter_mut().for_each(|talker| echo(talker, b"it is served"));
            server.signal("STOP");
            for (talker, at) in talkers.iter_mut().zip(0..) {
                for number in 0..REQUESTS {
                    send(talker, Command::EchoReq, &[], &payload(at, number));
                }
            }
            server.signal("CONT");
            for (talker, at) in talkers.iter_mut().zip(0..) {
                for number in 0..REQUESTS {
                    assert_eq!(expect(talker, Command::EchoRes), payload(at, number));
                }
            }
        }
        server.stop();
    });
}

#[test]
fn announced_bytes_that_never_come_take_no_memory() {
    each_driver(&[], |_, server| {
        echo(&mut server.connect(), b"warm");
        let before = memory_of(&server, "VmRSS");
        let mut liars: Vec<TcpStream> = (0..100).map(|_| server.connect()).collect();
        for stream in &mut liars {
            let mut bytes = request(Command::SubmitJobBg, &[b"f", b"u"], b"");
            bytes[8..12].copy_from_slice(&0xf000_0000_u32.to_be_bytes());
            bytes.extend([b'x'; 10_000]);
            stream.write_all(&bytes).expect("the server reads");
        }
        echo(&mut server.connect(), b"after");
        let grown = memory_of(&server, "VmRSS").saturating_sub(before);
        assert!(grown < 16 * MIB, "{grown} bytes for 1 MB that came of 400 GB announced");
        liars.iter().for_each(reset);
    });
}

#[test]
fn bodies_beyond_the_limits_are_refused_and_the_stream_stays_in_step() {
    each_driver(&["--job-size-max", "100k", "--memory-max", "4m"], |_, server| {
        let mut client = server.connect();
        let submit =
            |payload: usize| request(Command::SubmitJobBg, &[b"big", b""], &vec![b'b'; payload]);
        let mut bytes = submit(200_000);
        bytes.extend(submit(90_000));
        client.write_all(&bytes).expect("the server reads");
        let error = expect(&mut client, Command::Error);
        assert!(error.starts_with(b"ARGUMENT_TOO_LARGE\0"), "{}", error.escape_ascii());
        expect(&mut client, Command::JobCreated);
        let mut accepted = 1;
        let error = loop {
            client.write_all(&submit(90_000)).expect("the server reads");
            match receive(&mut client).expect("an answer") {
                (Command::JobCreated, _) => accepted += 1,
                (Command::Error, body) => break body,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(error, b"QUEUE_ERROR\0MEMORY_ALLOCATION_FAILURE");
        assert!((30..60).contains(&accepted), "{accepted} jobs of 90 kB in 4 MiB");
        // Nothing accepted is lost, and room that is free again is used again.
        send(&mut client, Command::CanDo, &[b"big"], b"");
        for _ in 0..accepted {
            send(&mut client, Command::GrabJob, &[], b"");
            let body = expect(&mut client, Command::JobAssign);
            let handle = body.split(|&byte| byte == 0).next().expect("a handle").to_vec();
            send(&mut client, Command::WorkComplete, &[&handle], b"");
        }
        client.write_all(&submit(90_000)).expect("the server reads");
        expect(&mut client, Command::JobCreated);
    });
}

#[test]
fn a_large_body_may_trickle_in() {
    each_driver(&[], |_, server| {
        let mut client = server.connect();
        let payload: Vec<u8> = (0..300_000_u32).map(|n| n.to_be_bytes()[3]).collect();
        let bytes = request(Command::EchoReq, &[], &payload);
        let mut reader = client.try_clone().expect("a clone");
        let got = std::thread::spawn(move || expect(&mut reader, Command::EchoRes));
        for part in bytes.chunks(1021) {
            client.write_all(part).expect("the server reads");
        }
        assert!(got.join().expect("an echo") == payload, "the echo differs");
        client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        echo(&mut client, b"in step");
    });
}

/// A connection whose bytes weren't Gearman's was shut down and closed on io_uring, and the kernel
/// did the former later, on a thread of its own: by then the place among the ring's descriptors
/// was that of a connection that had just come, and it was that one which ended. It takes peers
/// that send nonsense and leave at once, as port scanners do.
#[test]
fn who_leaves_after_nonsense_takes_nobody_along() {
    each_driver(&[], |_, server| {
        let is_over = AtomicBool::new(false);
        let scan = || {
            while !is_over.load(Ordering::Relaxed) {
                let mut stream = server.connect();
                reset(&stream);
                // It may be gone before it could be written to.
                let _ = stream.write_all(b"\0REQ\0\0\0\xffnonsense");
            }
        };
        let stay = || {
            let mut streams: Vec<TcpStream> = Vec::new();
            for _ in 0..NEWCOMERS {
                let mut stream = server.connect();
                echo(&mut stream, b"came");
                streams.push(stream);
                if streams.len() == NEWCOMERS_AT_A_TIME {
                    for mut stream in streams.drain(..) {
                        echo(&mut stream, b"still here");
                        reset(&stream);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            (0..2).for_each(|_| drop(scope.spawn(scan)));
            let stayed = scope.spawn(stay).join();
            is_over.store(true, Ordering::Relaxed);
            stayed.unwrap_or_else(|panic| resume_unwind(panic));
        });
    });
}

#[test]
fn names_that_a_worker_makes_up_are_bounded_and_forgotten() {
    // 50 000 names of 4 kB, given up with CANT_DO, kept 208 MiB for good, whatever `--memory-max`.
    each_driver(&["--memory-max", "64m"], |_, server| {
        let mut worker = server.connect();
        let mut reader = worker.try_clone().expect("a clone");
        let sender = std::thread::spawn(move || {
            for number in 0..20_000 {
                let name = format!("{number:0>4000}");
                send(&mut worker, Command::CanDo, &[name.as_bytes()], b"");
            }
            send(&mut worker, Command::EchoReq, &[], b"registered");
            worker
        });
        let mut refused = 0;
        loop {
            match receive(&mut reader).expect("an answer") {
                (Command::EchoRes, _) => break,
                (Command::Error, text) => {
                    assert!(text.starts_with(b"MEMORY_ALLOCATION_FAILURE\0"));
                    refused += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        let mut worker = sender.join().expect("no panic");
        assert!(refused > 1000, "{refused} were refused");
        assert!(memory_of(&server, "VmRSS") < 160 * MIB, "memory isn't bounded");
        assert!(server.log().contains("CAN_DO refused"), "{}", server.log());
        for number in 0..20_000 {
            let name = format!("{number:0>4000}");
            send(&mut worker, Command::CantDo, &[name.as_bytes()], b"");
        }
        echo(&mut worker, b"given up");
        wait_until("the names to be forgotten", || {
            (server.admin("status").len() < 16 * MIB).then_some(())
        });
    });
}

#[test]
fn lines_about_peers_that_are_left_out_are_counted() {
    // Twenty lines a second were logged, and nothing told of the others.
    const PEERS: usize = 100;
    each_driver(&[], |_, server| {
        for _ in 0..PEERS {
            let mut peer = server.connect();
            peer.write_all(b"\0ZZZ12345678").expect("the server reads");
            assert_eq!(receive(&mut peer), None);
        }
        wait_until("all to be told of", || {
            let log = server.log();
            let told = log.matches("closed: malformed bytes").count();
            let counts = log.lines().filter_map(|line| line.split_once("left_out="));
            let counts = counts.map(|(_, count)| count.parse::<usize>().expect("a number"));
            (told + counts.sum::<usize>() == PEERS).then_some(())
        });
        assert!(server.log().contains("left_out="), "not all of them in full");
    });
}

/// A part of a list without any row was never followed by the next: nothing had left that could
/// call for it.
#[test]
fn a_list_of_few_rows_among_many_jobs_ends() {
    const JOBS: usize = 40_000;
    each_driver(&[], |contender, server| {
        let mut client = server.connect();
        let submission = request(Command::SubmitJobBg, &[b"f", b""], b"x");
        client.write_all(&submission.repeat(JOBS)).expect("the server reads");
        let queued = format!("jobs_queued_normal\t{JOBS}\n");
        wait_until("all to be queued", || server.admin("stats").contains(&queued).then_some(()));
        assert_eq!(server.admin("show running"), ".\n", "{contender:?}");
    });
}
