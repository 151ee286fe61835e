//! Scripts of sh as commands of mode `exec`, with jobs of a server in the test.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use nix::unistd::Pid;
use ringgear::wire::Command::{
    self, WorkComplete, WorkException, WorkFail, WorkStatus, WorkWarning,
};

use super::*;
use crate::config::{Stderr, Worker};
use crate::gearman::{Ending, Report, Withdrawal};
use crate::instance::fake_server::{FakeServer, Running, in_local_set, until};
use crate::instance::server_side::ServerSide;
use crate::process::samples::{self, is_alive};

fn worker(script: &str) -> Worker {
    let backoff = (Duration::from_millis(5), Duration::from_millis(5));
    Worker { backoff, ..samples::worker(&["sh", "-c", script]) }
}

/// How the one job of a worker ends, and how it is counted.
fn end_of(worker: Worker, payload: impl Into<Bytes>, outcome: Outcome) -> (Command, String) {
    let mut end = None;
    in_local_set(async {
        let running = Running::start(worker);
        end = Some(running.job("H:1", payload).await);
        assert_eq!(running.jobs(outcome), 1, "{:?}", running.counters.jobs);
        running.end(Order::Stop).await;
    });
    end.expect("a test that came to its end")
}

fn complete(result: &str) -> (Command, String) {
    (WorkComplete, result.to_owned())
}

fn fail() -> (Command, String) {
    (WorkFail, String::new())
}

#[test]
fn the_exit_code_decides() {
    let end = |script, outcome| end_of(worker(script), "", outcome);
    assert_eq!(end("echo -n out; echo err >&2", Outcome::Complete), complete("out"));
    assert_eq!(end("echo out; exit 1", Outcome::Fail), fail());
    assert_eq!(end("echo out; exit 75", Outcome::Fail), fail());
    let exception = (WorkException, "err\\n".to_owned());
    assert_eq!(end("echo out; echo err >&2; exit 100", Outcome::Exception), exception);
    assert_eq!(end("echo out; kill -9 $$", Outcome::Signal), fail());
}

#[test]
fn an_exception_is_the_end_of_standard_error() {
    let script = "seq 100000 >&2; exit 100";
    let (command, text) = end_of(worker(script), "", Outcome::Exception);
    assert_eq!(command, WorkException);
    assert!(text.ends_with("\\n99999\\n100000\\n"), "{text}");
    assert_eq!(text.replace("\\n", "\n").len(), 4096);
}

#[test]
fn a_command_gets_its_job() {
    let script =
        "cat; echo \"-$GEARMAN_FUNCTION-$GEARMAN_HANDLE-$GEARMAN_UNIQUE-$GEARMAN_SERVERS\"";
    let expected = complete("a\\x00b-f-H:1-u-fake:4730\\n");
    assert_eq!(end_of(worker(script), "a\0b", Outcome::Complete), expected);
    let expected = complete("-f-H:1-u-fake:4730\\n");
    assert_eq!(end_of(worker(script), "", Outcome::Complete), expected);
}

#[test]
fn payloads_and_results_may_be_large() {
    let large: Vec<u8> = (0..3_000_000_u32).map(|at| b'a' + (at % 23) as u8).collect();
    let expected = complete(std::str::from_utf8(&large).expect("letters"));
    // `cat` writes before it has read all.
    assert!(end_of(worker("cat"), large, Outcome::Complete) == expected);
}

#[test]
fn a_command_neednt_read_its_payload() {
    let large = || vec![b'a'; 1_000_000];
    assert_eq!(end_of(worker("echo ok"), large(), Outcome::Complete), complete("ok\\n"));
    let closes = "exec 0<&-; echo ok; sleep 0.05";
    assert_eq!(end_of(worker(closes), large(), Outcome::Complete), complete("ok\\n"));
}

#[test]
fn floods_block_neither_the_command_nor_its_limits() {
    let script = "head -c 3000000 /dev/zero >&2 & head -c 200000 /dev/zero >&3 & \
        head -c 1000000 /dev/zero | tr '\\0' x; wait";
    let (command, result) = end_of(worker(script), "", Outcome::Complete);
    assert_eq!((command, result.len()), (WorkComplete, 1_000_000));
    let mut endless = worker("yes >&2 & yes >&3 & wait");
    endless.timeout = Some(Duration::from_millis(300));
    assert_eq!(end_of(endless, "", Outcome::Timeout), fail());
}

#[test]
fn a_result_has_a_limit() {
    let mut limited = worker("printf 12345");
    limited.result_max = 5;
    assert_eq!(end_of(limited.clone(), "", Outcome::Complete), complete("12345"));
    limited.result_max = 4;
    assert_eq!(end_of(limited, "", Outcome::ResultTooLarge), fail());
    let mut endless = worker("yes");
    endless.result_max = 1_000_000;
    assert_eq!(end_of(endless, "", Outcome::ResultTooLarge), fail());
}

#[test]
fn statuses_and_warnings_are_sent_before_the_end() {
    in_local_set(async {
        let script = "echo status 1 2 >&3; echo wrong >&3; echo one >&2; echo status 2 2 >&3; \
            printf two >&2; echo result";
        let running = Running::start(Worker { stderr: Stderr::Warning, ..worker(script) });
        assert_eq!(running.job("H:1", "").await, complete("result\\n"));
        let said = running.server.said("H:1");
        let of = |kind| -> Vec<&str> {
            let of_kind = said.iter().filter(|(command, _)| *command == kind);
            of_kind.map(|(_, text)| text.as_str()).collect()
        };
        assert_eq!(of(WorkStatus), ["1\\x002", "2\\x002"]);
        assert_eq!(of(WorkWarning).concat(), "one\\ntwo");
        assert_eq!(said.last().map(|(command, _)| *command), Some(WorkComplete));
        running.end(Order::Stop).await;
    });
}

/// A child that ignores SIGTERM, and holds standard output; its number is in the file.
fn stubborn(file: &std::path::Path) -> String {
    let file = file.display();
    format!("sh -c 'trap \"\" TERM; echo $$ >{file}.new; mv {file}.new {file}; sleep 1000' & ")
}

/// The number that a process has left in a file.
async fn number_in(file: &std::path::Path) -> Pid {
    until("the file", || file.exists()).await;
    let text = std::fs::read_to_string(file).expect("it is there");
    Pid::from_raw(text.trim().parse().expect("a number"))
}

#[test]
fn a_timeout_kills_the_whole_group() {
    in_local_set(async {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("child");
        let mut limited = worker(&format!("trap '' TERM; {} wait", stubborn(&file)));
        limited.timeout = Some(Duration::from_millis(300));
        let running = Running::start(limited);
        assert_eq!(running.job("H:1", "").await, fail());
        assert_eq!(running.jobs(Outcome::Timeout), 1);
        let child = number_in(&file).await;
        until("the end of the child", || !is_alive(child)).await;
        running.end(Order::Stop).await;
    });
}

#[test]
fn what_a_command_leaves_behind_holds_no_job() {
    in_local_set(async {
        let folder = tempfile::tempdir().expect("a folder");
        let (child, daemon) = (folder.path().join("child"), folder.path().join("daemon"));
        let script = format!(
            "echo early; {stubborn}
            setsid sh -c 'echo $$ >{daemon}.new; mv {daemon}.new {daemon}; exec sleep 1000' &
            while ! [ -e {child} -a -e {daemon} ]; do sleep 0.01; done",
            stubborn = stubborn(&child),
            child = child.display(),
            daemon = daemon.display(),
        );
        let running = Running::start(worker(&script));
        assert_eq!(running.job("H:1", "").await, complete("early\\n"));
        let (child, daemon) = (number_in(&child).await, number_in(&daemon).await);
        until("the end of the child", || !is_alive(child)).await;
        // It left the group: it ends with the manager.
        assert!(is_alive(daemon));
        nix::sys::signal::kill(daemon, nix::sys::signal::Signal::SIGKILL).expect("it runs");
        running.end(Order::Stop).await;
    });
}

#[test]
fn a_group_with_too_much_memory_is_killed() {
    let script = "x=$(head -c 60000000 /dev/zero | tr '\\0' x); sleep 1000";
    let mut limited = worker(script);
    limited.memory_max = Some(50_000_000);
    assert_eq!(end_of(limited, "", Outcome::Memory), fail());
}

#[test]
fn a_job_that_is_cancelled_is_killed() {
    in_local_set(async {
        let running = Running::start(worker("echo status 1 1 >&3; exec sleep 1000"));
        running.server.submit("H:1", "");
        until("a running job", || running.server.said("H:1").len() == 1).await;
        running.server.cancel("H:1");
        until("its end", || running.jobs(Outcome::Cancelled) == 1).await;
        assert_eq!(running.counters.results_lost.get(), 0);
        // The next one runs.
        running.server.submit("H:2", "");
        until("a running job", || running.server.said("H:2").len() == 1).await;
        running.end(Order::Kill).await;
    });
}

#[test]
fn a_command_that_cant_be_started_fails_a_job_for_each_wait() {
    in_local_set(async {
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("program");
        let path = program.to_str().expect("text");
        let mut broken = samples::worker(&[path]);
        broken.backoff = (Duration::from_millis(200), Duration::from_secs(60));
        let running = Running::start(broken);
        assert_eq!(running.job("H:1", "").await, fail());
        assert_eq!(running.jobs(Outcome::NotStarted), 1);
        until("a wait", || running.counters.backing_off.get() == 1).await;
        // No job is asked for meanwhile.
        running.server.submit("H:2", "");
        let script = "#!/bin/sh\necho ok";
        std::fs::write(folder.path().join("new"), script).expect("writable");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path().join("new"), mode).expect("writable");
        std::fs::rename(folder.path().join("new"), &program).expect("writable");
        assert_eq!(running.counters.backing_off.get(), 1);
        assert_eq!(running.server.assigned(), 1);
        assert_eq!(running.server.ended("H:2").await, complete("ok\\n"));
        running.end(Order::Stop).await;
    });
}

#[test]
fn an_order_to_end_lets_the_job_end() {
    in_local_set(async {
        let folder = tempfile::tempdir().expect("a folder");
        let go = folder.path().join("go");
        let script = format!("while ! [ -e {} ]; do sleep 0.01; done; echo done", go.display());
        let running = Running::start(worker(&script));
        running.server.submit("H:1", "");
        until("a running job", || running.counters.processes.get() == 1).await;
        running.controls.orders.send_replace(Order::Restart);
        std::fs::write(&go, "").expect("writable");
        assert_eq!(running.server.ended("H:1").await, complete("done\\n"));
        let grabs = running.server.grabs();
        let server = running.server.clone();
        running.end(Order::Restart).await;
        assert_eq!(server.grabs(), grabs, "another job was asked for");
    });
}

#[test]
fn a_job_that_doesnt_end_within_stop_wait_is_ended() {
    in_local_set(async {
        let mut slow = worker(
            "trap 'echo status 2 2 >&3; exit 0' TERM; echo status 1 2 >&3; \
            while :; do sleep 0.01; done",
        );
        slow.stop_wait = Duration::from_millis(50);
        let running = Running::start(slow);
        running.server.submit("H:1", "");
        until("a running job", || running.server.said("H:1").len() == 1).await;
        let (server, counters) = (running.server.clone(), Rc::clone(&running.counters));
        running.end(Order::Stop).await;
        assert_eq!(server.ended("H:1").await, fail());
        // It was asked to, by SIGTERM.
        let said: Vec<Command> =
            server.said("H:1").into_iter().map(|(command, _)| command).collect();
        assert_eq!(said, [WorkStatus, WorkStatus, WorkFail]);
        assert_eq!(counters.jobs.borrow().get(&Outcome::Stopped), Some(&1));
    });
}

#[test]
fn an_order_to_end_at_once_kills_the_job() {
    in_local_set(async {
        let running = Running::start(worker("trap '' TERM; echo status 1 1 >&3; sleep 1000"));
        running.server.submit("H:1", "");
        until("a running job", || running.server.said("H:1").len() == 1).await;
        let counters = Rc::clone(&running.counters);
        running.end(Order::Kill).await;
        assert_eq!(counters.jobs.borrow().get(&Outcome::Stopped), Some(&1));
    });
}

/// A job's server that takes no reports, or none any longer.
struct Mute {
    is_gone: bool,
}

impl ServerSide for Mute {
    async fn report(&mut self, _report: Report) {
        if !self.is_gone {
            std::future::pending().await
        }
    }

    async fn withdrawn(&mut self) -> Withdrawal {
        if self.is_gone {
            return Withdrawal::Disconnected;
        }
        std::future::pending().await
    }
}

/// The end of a job of such a server, which is told to end at once when its process has ended.
async fn end_with(mut server: Mute, worker: Worker) -> Verdict {
    let (instance, controls) = FakeServer::start().instance(worker);
    let mut orders = Orders::new(instance.orders.clone(), instance.worker.stop_wait);
    let launch = Launch::prepare(&instance.worker, &[]).expect("settings that are right");
    let text = Bytes::from_static;
    let job = Job {
        server: 0,
        handle: text(b"H:1"),
        function: text(b"f"),
        unique: text(b""),
        payload: text(b"p"),
    };
    let processes = &instance.counters.processes;
    let kill = async {
        until("the process runs", || processes.get() == 1).await;
        until("the process has ended", || processes.get() == 0).await;
        controls.orders.send_replace(Order::Kill);
        std::future::pending().await
    };
    tokio::select! {
        end = run::run(&instance, &launch, &job, &mut server, &mut orders) => {
            end.expect("it can be started").verdict
        }
        () = kill => unreachable!("it never returns"),
    }
}

#[test]
fn a_job_whose_connection_breaks_runs_to_its_end() {
    in_local_set(async {
        let script = "echo status 1 1 >&3; cat; echo warning >&2";
        let worker = Worker { stderr: Stderr::Warning, ..worker(script) };
        let verdict = end_with(Mute { is_gone: true }, worker).await;
        assert_eq!(verdict.ending, Ending::Complete(Bytes::from_static(b"p")));
    });
}

#[test]
fn a_server_that_doesnt_read_extends_no_timeout() {
    in_local_set(async {
        let mut limited = worker("while echo status 1 1 >&3; do :; done");
        limited.timeout = Some(Duration::from_millis(100));
        let verdict = end_with(Mute { is_gone: false }, limited).await;
        assert_eq!(verdict, Verdict::failed(Outcome::Timeout));
    });
}
