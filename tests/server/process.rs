//! A server's end and its return: signals, exit codes, and the port that is free again.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::conn::{Conn, Item};
use crate::harness::{Contender, PATIENCE, Server, each_contender, forget_environment, wait_until};

each_contender!(
    a_term_signal_ends_it_within_a_second_with_clients_connected,
    an_interrupt_ends_it_the_same_way,
    a_finish_signal_lets_running_jobs_end,
    handles_tell_the_jobs_of_one_run_apart,
    one_that_looks_before_it_waits_answers_and_ends,
);

/// With `--busy-poll` on ringgear: letters, timers and signals are noticed as ever.
fn one_that_looks_before_it_waits_answers_and_ends(contender: Contender) {
    let options: &[&str] = if contender.is_ringgear() {
        &["--busy-poll", "2000", "--wakeup-lease", "20"]
    } else {
        &[]
    };
    let Some(mut server) = Server::start_with(contender, options) else { return };
    let mut client = Conn::open(server.address());
    let mut workers: Vec<Conn> = (0..4).map(|_| Conn::open(server.address())).collect();
    for worker in &mut workers {
        worker.packet("CAN_DO", &[b"f"]);
        worker.packet("PRE_SLEEP", &[]);
        worker.sync().expect("it lives");
    }
    client.packet("SUBMIT_JOB", &[b"f", b"", b"x"]);
    let Ok(Item::Packet(8, handle)) = client.next() else { panic!("no JOB_CREATED") };
    // Those that don't grab are passed over, so each is woken in the end.
    for worker in &mut workers {
        assert_eq!(worker.next().expect("a NOOP"), Item::Packet(6, Vec::new()));
    }
    workers[0].packet("GRAB_JOB", &[]);
    assert!(matches!(workers[0].next(), Ok(Item::Packet(11, _))));
    workers[0].packet("WORK_COMPLETE", &[&handle, b"done"]);
    let result = [&handle[..], b"\0done"].concat();
    assert_eq!(client.next().expect("a result"), Item::Packet(13, result));
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
}

fn a_term_signal_ends_it_within_a_second_with_clients_connected(contender: Contender) {
    ends_within_a_second(contender, "TERM");
}

fn an_interrupt_ends_it_the_same_way(contender: Contender) {
    ends_within_a_second(contender, "INT");
}

fn ends_within_a_second(contender: Contender, signal: &str) {
    let Some(mut server) = Server::start(contender) else { return };
    let mut conns: Vec<Conn> = (0..20).map(|_| Conn::open(server.address())).collect();
    for conn in &mut conns {
        conn.packet("CAN_DO", &[b"f"]);
        conn.packet("PRE_SLEEP", &[]);
        conn.sync().expect("it lives");
    }
    conns[0].packet("SUBMIT_JOB", &[b"g", b"", b"never run"]);
    assert!(matches!(conns[0].next(), Ok(Item::Packet(8, _))));
    let signalled = Instant::now();
    server.signal(signal);
    let status = server.wait();
    let took = signalled.elapsed();
    assert_eq!(status.code(), Some(0), "{status:?}");
    // On a busy machine gearmand takes longer.
    assert!(took < Duration::from_secs(1) || !contender.is_ringgear(), "{took:?}");
    for conn in &mut conns {
        assert_eq!(conn.next().ok(), Some(Item::End));
    }
}

/// SIGUSR1: what is there is finished; ringgear refuses new jobs, gearmand new connections.
fn a_finish_signal_lets_running_jobs_end(contender: Contender) {
    let Some(mut server) = Server::start(contender) else { return };
    let (mut client, mut worker) = (Conn::open(server.address()), Conn::open(server.address()));
    worker.packet("CAN_DO", &[b"f"]);
    worker.sync().expect("registered");
    client.packet("SUBMIT_JOB", &[b"f", b"", b"x"]);
    let Ok(Item::Packet(8, handle)) = client.next() else { panic!("no JOB_CREATED") };
    worker.packet("GRAB_JOB", &[]);
    assert!(matches!(worker.next(), Ok(Item::Packet(11, _))));
    server.signal("USR1");
    if contender.is_ringgear() {
        wait_until_it_drains(&server);
    } else {
        wait_until("the listener to close", || {
            TcpStream::connect(server.address()).is_err().then_some(())
        });
    }
    worker.packet("WORK_COMPLETE", &[&handle, b"done"]);
    let result = [&handle[..], b"\0done"].concat();
    assert_eq!(client.next().ok(), Some(Item::Packet(13, result)));
    if contender.is_ringgear() {
        let status = server.wait();
        assert_eq!(status.code(), Some(0), "{status:?}");
    } else {
        // Once in a while gearmand finishes the job, closes its connections, and stays for ever.
        eprintln!("whether {contender:?} ends isn't looked at");
    }
}

/// Waits until submissions are refused: on each core, as connections go to any.
pub(crate) fn wait_until_it_drains(server: &Server) {
    for _ in 0..20 {
        wait_until("submissions to be refused", || {
            // One that is accepted goes with its client.
            let mut client = Conn::open(server.address());
            client.packet("SUBMIT_JOB", &[b"late", b"", b"x"]);
            match client.next().expect("an answer") {
                Item::Packet(8, _) => None,
                Item::Packet(19, error) => {
                    assert!(error.starts_with(b"SHUTDOWN\0"), "{}", error.escape_ascii());
                    Some(())
                }
                other => panic!("{other:?}"),
            }
        });
    }
}

fn handles_tell_the_jobs_of_one_run_apart(contender: Contender) {
    let Some(server) = Server::start(contender) else { return };
    let mut conn = Conn::open(server.address());
    let mut handles = std::collections::HashSet::new();
    for _ in 0..1000 {
        conn.packet("SUBMIT_JOB_BG", &[b"f", b"", b"x"]);
        let Ok(Item::Packet(8, handle)) = conn.next() else { panic!("no JOB_CREATED") };
        assert!(handles.insert(handle));
    }
}

/// gearmand starts at 1 again after a restart, so a handle from before can name another's job.
#[test]
fn a_restarted_server_takes_its_port_at_once_and_reuses_no_handle() {
    for contender in Contender::RINGGEAR.into_iter().filter(|contender| contender.is_here()) {
        let (driver, cores) = contender.driver();
        let mut server = Server::start_ringgear(driver, 0, &["--threads", cores]);
        let mut handles = std::collections::HashSet::new();
        for _ in 0..3 {
            let port = server.port();
            let mut conn = Conn::open(server.address());
            conn.packet("SUBMIT_JOB_BG", &[b"f", b"", b"x"]);
            let Ok(Item::Packet(8, handle)) = conn.next() else { panic!("no JOB_CREATED") };
            assert!(handles.insert(handle), "a handle came twice");
            // The server closes first, so the port is in TIME_WAIT when the next one binds it.
            server.signal("TERM");
            assert_eq!(server.wait().code(), Some(0));
            assert_eq!(conn.next().ok(), Some(Item::End));
            server = Server::start_ringgear(driver, port, &["--threads", cores]);
            assert_eq!(server.port(), port);
        }
    }
}

/// A start by hand showed lines of a log, not that the server was ready, nor how to stop it.
#[test]
fn on_a_terminal_it_says_that_it_is_ready_and_how_to_stop_it() {
    let terminal = nix::pty::openpty(None, None).expect("a terminal");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringgeard"));
    command.args(["--port", "0", "--io", "epoll"]);
    forget_environment(&mut command);
    let mut child = command.stderr(terminal.slave).spawn().expect("the server starts");
    // Its copy of the terminal; the terminal is closed when the child has ended.
    drop(command);
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        let lines = BufReader::new(File::from(terminal.master)).lines();
        lines.map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    let deadline = Instant::now() + PATIENCE;
    let mut said = String::new();
    while !said.contains("ready on 127.0.0.1:") {
        let line = lines.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        said.push_str(&line.unwrap_or_else(|_| panic!("not ready: {said}")));
    }
    assert!(said.ends_with("; Ctrl-C stops it"), "{said}");
    let pid = Pid::from_raw(child.id().try_into().expect("a process id"));
    kill(pid, Signal::SIGINT).expect("it lives");
    assert_eq!(wait_until("its end", || child.try_wait().expect("a child")).code(), Some(0));

    // A log that is read by programs has no such line.
    let server = Server::start(Contender::RinggearEpoll).expect("this project's own");
    let mut conn = Conn::open(server.address());
    conn.sync().expect("it serves");
    assert!(!server.log().contains("ready on"), "{}", server.log());
}
