//! Scripts of sh as processes of mode `lines`, with jobs of a server in the test.

use std::rc::Rc;
use std::time::Duration;

use ringgear::wire::Command::{
    WorkComplete, WorkData, WorkException, WorkFail, WorkStatus, WorkWarning,
};

use super::*;
use crate::config::{Mode, Stderr, Worker};
use crate::instance::fake_server::{Running, in_local_set, until};
use crate::process::samples;

/// A worker whose process is a script, which gets a line by `read -r line`.
fn worker(script: &str) -> Worker {
    let backoff = (Duration::from_millis(5), Duration::from_millis(5));
    Worker { mode: Mode::Lines, backoff, ..samples::worker(&["sh", "-c", script]) }
}

fn complete(result: &str) -> (ringgear::wire::Command, String) {
    (WorkComplete, result.to_owned())
}

fn fail() -> (ringgear::wire::Command, String) {
    (WorkFail, String::new())
}

/// Answers with its process id.
const PID: &str = r#"while read -r line; do echo "{\"result\":\"$$\"}"; done"#;

#[test]
fn one_process_does_all_jobs_and_each_gets_its_answer() {
    in_local_set(async {
        let echo = r#"exec sed -u 's/.*"payload":"\([^"]*\)".*/{"result":"\1"}/'"#;
        let running = Running::start(worker(echo));
        for number in 0..500 {
            running.server.submit(&format!("H:{number}"), format!("payload {number}"));
        }
        for number in 0..500 {
            let end = running.server.ended(&format!("H:{number}")).await;
            assert_eq!(end, complete(&format!("payload {number}")));
        }
        assert_eq!((running.jobs(Outcome::Complete), running.ends(Ended::Exit)), (500, 0));
        assert!(*running.controls.is_up.borrow());
        running.end(Order::Stop).await;
    });
}

#[test]
fn each_kind_of_line_is_sent() {
    in_local_set(async {
        let script = r#"
            read -r line
            echo '{"status":[1,10]}'; echo '{"data":"d"}'; echo '{"warning":"w"}'
            echo '{"result":"r"}'
            read -r line; echo '{"exception":"e"}'
            read -r line; echo '{"fail":true}'
            read -r line; printf '%s\n' '{"data_base64":"/w=="}' '{"result_base64":"AA=="}'
            read -r line"#;
        let running = Running::start(worker(script));
        assert_eq!(running.job("H:1", "").await, complete("r"));
        let said: Vec<_> = running.server.said("H:1").into_iter().map(|said| said.0).collect();
        assert_eq!(said, [WorkStatus, WorkData, WorkWarning, WorkComplete]);
        assert_eq!(running.server.said("H:1")[0].1, r"1\x0010");
        assert_eq!(running.job("H:2", "").await, (WorkException, "e".to_owned()));
        assert_eq!(running.job("H:3", "").await, fail());
        assert_eq!(running.job("H:4", "").await, complete(r"\x00"));
        assert_eq!(running.server.said("H:4")[0], (WorkData, r"\xff".to_owned()));
        let outcomes = [Outcome::Complete, Outcome::Exception, Outcome::Fail];
        assert_eq!(outcomes.map(|outcome| running.jobs(outcome)), [2, 1, 1]);
        assert_eq!(running.ends(Ended::Exit), 0);
        running.end(Order::Stop).await;
    });
}

#[test]
fn a_process_that_breaks_the_protocol_fails_its_job_and_is_replaced() {
    in_local_set(async {
        let two = r#"printf '{"result":"x"}\n{"result":"y"}\n'"#;
        for (wrong, outcome, reason) in [
            ("echo 'PHP Warning: x'", Outcome::Protocol, Ended::Protocol),
            (two, Outcome::Protocol, Ended::Protocol),
            (r#"echo '{"result":1}'"#, Outcome::Protocol, Ended::Protocol),
            ("exec >&-; sleep 1000", Outcome::Protocol, Ended::Protocol),
            ("exit 3", Outcome::Protocol, Ended::Exit),
            ("exit 0", Outcome::Protocol, Ended::Exit),
            ("kill -9 $$", Outcome::Signal, Ended::Signal),
            ("sleep 1000 & exit 1", Outcome::Protocol, Ended::Exit),
            ("yes x | tr -d '\\n'", Outcome::ResultTooLarge, Ended::ResultTooLarge),
            (r#"echo '{"result":"12345678901"}'"#, Outcome::ResultTooLarge, Ended::ResultTooLarge),
        ] {
            let script = format!(
                r#"while read -r line; do
                    case $line in *wrong*) {wrong};; *) echo '{{"result":"good"}}'; esac
                done"#
            );
            let running = Running::start(Worker { result_max: 10, ..worker(&script) });
            assert_eq!(running.job("H:1", "good").await, complete("good"), "{wrong}");
            assert_eq!(running.job("H:2", "wrong").await, fail(), "{wrong}");
            assert_eq!(running.job("H:3", "good").await, complete("good"), "{wrong}");
            assert_eq!((running.jobs(outcome), running.ends(reason)), (1, 1), "{wrong}");
            running.end(Order::Stop).await;
        }
    });
}

#[test]
fn a_process_that_exits_after_some_jobs_loses_none() {
    in_local_set(async {
        let script = r#"for job in 1 2 3; do
            read -r line; echo "{\"result\":\"$$\"}"; done; [ -z "$SLOW" ] || sleep 0.05"#;
        for slow in ["", "yes"] {
            let mut worker = worker(script);
            worker.environment.insert("SLOW".into(), slow.to_owned());
            let running = Running::start(worker);
            for number in 0..30 {
                running.server.submit(&format!("H:{number}"), "");
            }
            let mut results = Vec::new();
            for number in 0..30 {
                let (command, result) = running.server.ended(&format!("H:{number}")).await;
                assert_eq!(command, WorkComplete, "{number}");
                results.push(result);
            }
            results.dedup();
            assert_eq!(results.len(), 10, "{results:?}");
            assert_eq!(running.jobs(Outcome::Complete), 30);
            running.end(Order::Stop).await;
        }
    });
}

#[test]
fn a_process_that_exits_without_a_job_fails_one_for_each_start() {
    in_local_set(async {
        let backoff = (Duration::from_millis(50), Duration::from_millis(50));
        let running = Running::start(Worker { backoff, ..worker("sleep 0.05; exit 1") });
        for handle in ["H:1", "H:2", "H:3"] {
            running.server.submit(handle, "");
        }
        for handle in ["H:1", "H:2", "H:3"] {
            assert_eq!(running.server.ended(handle).await, fail());
        }
        assert!(running.ends(Ended::Exit) >= 2);
        running.end(Order::Stop).await;
    });
}

#[test]
fn output_between_jobs_replaces_the_process_and_loses_no_job() {
    in_local_set(async {
        let script = r#"
            echo "$$" >> "$LOG"
            [ "$(wc -l < "$LOG")" -gt 1 ] || echo 'Starting up'
            while read -r line; do echo '{"result":"good"}'; done"#;
        let log = tempfile::NamedTempFile::new().expect("a file");
        let mut worker = worker(script);
        worker.environment.insert("LOG".into(), log.path().to_str().expect("UTF-8").into());
        let running = Running::start(worker);
        until("the end of the first", || running.ends(Ended::Protocol) == 1).await;
        assert_eq!(running.job("H:1", "").await, complete("good"));
        running.end(Order::Stop).await;
    });
}

#[test]
fn a_job_that_takes_too_long_is_killed_with_all_that_it_started() {
    in_local_set(async {
        let folder = tempfile::tempdir().expect("a folder");
        let script = r#"trap '' TERM; while read -r line; do (trap '' TERM; sleep 1000) &
            echo $! > child.new; mv child.new child; wait; done"#;
        let timeout = Some(Duration::from_millis(300));
        let directory = Some(folder.path().to_owned());
        let running = Running::start(Worker { timeout, directory, ..worker(script) });
        assert_eq!(running.job("H:1", "").await, fail());
        let child = std::fs::read_to_string(folder.path().join("child")).expect("it was started");
        let child = nix::unistd::Pid::from_raw(child.trim().parse().expect("a number"));
        until("the child's end", || !samples::is_alive(child)).await;
        assert_eq!((running.jobs(Outcome::Timeout), running.ends(Ended::Timeout)), (1, 1));
        running.end(Order::Stop).await;
    });
}

#[test]
fn a_cancelled_job_is_killed() {
    in_local_set(async {
        let script = r#"while read -r line; do echo '{"status":[0,1]}'; sleep 1000; done"#;
        let running = Running::start(worker(script));
        running.server.submit("H:1", "");
        until("its start", || !running.server.said("H:1").is_empty()).await;
        running.server.cancel("H:1");
        until("its end", || running.ends(Ended::Cancelled) == 1).await;
        assert_eq!(running.jobs(Outcome::Cancelled), 1);
        assert_eq!(running.counters.results_lost.get(), 0);
        running.end(Order::Stop).await;
    });
}

#[test]
fn a_process_that_writes_before_it_reads_a_large_job_gets_it() {
    in_local_set(async {
        let script = r#"printf '{"data":"%s"}\n' "$(head -c 300000 /dev/zero | tr '\0' x)" >&2
            while [ ! -e "$GO" ]; do sleep 0.01; done
            printf '{"data":"%s"}\n' "$(head -c 300000 /dev/zero | tr '\0' x)"
            head -n 1 | wc -c | sed 's/.*/{"result":"&"}/'"#;
        let folder = tempfile::tempdir().expect("a folder");
        let go = folder.path().join("go");
        let mut worker = worker(script);
        worker.environment.insert("GO".into(), go.to_str().expect("UTF-8").into());
        let running = Running::start(worker);
        running.server.submit("H:1", vec![b'y'; 3 << 20]);
        until("its start", || running.counters.running.get() == 1).await;
        std::fs::write(go, "").expect("a file");
        let (command, result) = running.server.ended("H:1").await;
        let line = r#"{"handle":"H:1","function":"f","unique":"u","payload":""}"#.len() + 1;
        assert_eq!((command, result), complete(&(line + (3 << 20)).to_string()));
        assert_eq!(running.server.said("H:1")[0].1.len(), 300_000);
        running.end(Order::Stop).await;
    });
}

#[test]
fn binary_payloads_arrive_as_base64() {
    in_local_set(async {
        let script = r#"exec sed -u 's/.*"payload_base64":"\([^"]*\)".*/{"result_base64":"\1"}/'"#;
        let running = Running::start(worker(script));
        running.server.submit("H:1", &b"\xff\0\xfe"[..]);
        assert_eq!(running.server.ended("H:1").await, complete(r"\xff\x00\xfe"));
        running.end(Order::Stop).await;
    });
}

#[test]
fn a_process_is_replaced_after_its_jobs_and_none_is_lost() {
    in_local_set(async {
        // It takes its time to end, and is let.
        let script = format!("{PID}; sleep 0.02; echo done >&2");
        let running = Running::start(Worker { max_jobs: 3, ..worker(&script) });
        for number in 0..10 {
            running.server.submit(&format!("H:{number}"), "");
        }
        let mut processes = Vec::new();
        for number in 0..10 {
            let (command, process) = running.server.ended(&format!("H:{number}")).await;
            assert_eq!(command, WorkComplete);
            processes.push(process);
        }
        for (number, process) in processes.iter().enumerate() {
            assert_eq!(*process, processes[number / 3 * 3], "{processes:?}");
        }
        processes.dedup();
        assert_eq!((processes.len(), running.ends(Ended::MaxJobs)), (4, 3));
        running.end(Order::Stop).await;
    });
}

#[test]
fn no_job_is_taken_while_a_process_ends() {
    in_local_set(async {
        let folder = tempfile::tempdir().expect("a folder");
        let script = format!("{PID}; touch ending; until [ -e go ]; do sleep 0.01; done");
        let directory = Some(folder.path().to_owned());
        let running = Running::start(Worker { directory, max_jobs: 1, ..worker(&script) });
        running.server.submit("H:1", "");
        running.server.submit("H:2", "");
        until("its end", || folder.path().join("ending").exists()).await;
        assert_eq!(running.server.assigned(), 1);
        std::fs::write(folder.path().join("go"), "").expect("a file");
        assert_eq!(running.server.ended("H:2").await.0, WorkComplete);
        running.end(Order::Stop).await;
    });
}

#[test]
fn an_old_process_is_replaced_between_jobs() {
    in_local_set(async {
        let max_age = Some(Duration::from_millis(50));
        let running = Running::start(Worker { max_age, ..worker(PID) });
        until("two replacements", || running.ends(Ended::MaxAge) >= 2).await;
        assert_eq!(running.job("H:1", "").await.0, WorkComplete);
        assert_eq!(running.counters.backing_off.get(), 0);
        running.end(Order::Stop).await;
    });
}

#[test]
fn a_process_that_has_too_much_memory_is_replaced_after_its_job() {
    in_local_set(async {
        let script = r#"while read -r line; do
            x="$x$(head -c 20000000 /dev/zero | tr '\0' x)"; echo "{\"result\":\"$$\"}"; done"#;
        let running = Running::start(Worker { memory_max: Some(16 << 20), ..worker(script) });
        // Which could see it in a job.
        running.controls.memory_watch.abort();
        let first = running.job("H:1", "").await;
        let second = running.job("H:2", "").await;
        assert_eq!((first.0, second.0), (WorkComplete, WorkComplete));
        assert_ne!(first.1, second.1);
        until("the second end", || running.ends(Ended::Memory) == 2).await;
        running.end(Order::Stop).await;
    });
}

#[test]
fn a_job_that_takes_too_much_memory_is_killed() {
    in_local_set(async {
        // A child of the process has it.
        let script = r#"read -r line || exit
            sh -c 'x="$(head -c 40000000 /dev/zero | tr "\0" x)"; sleep 1000; echo "$x"'"#;
        let running = Running::start(Worker { memory_max: Some(32 << 20), ..worker(script) });
        assert_eq!(running.job("H:1", "").await, fail());
        assert_eq!((running.jobs(Outcome::Memory), running.ends(Ended::Memory)), (1, 1));
        running.end(Order::Stop).await;
    });
}

#[test]
fn standard_error_can_be_sent_as_warnings_of_the_job() {
    in_local_set(async {
        let script = r#"echo boot >&2; while read -r line; do
            echo oops >&2; echo '{"result":""}'; done"#;
        let running = Running::start(Worker { stderr: Stderr::Warning, ..worker(script) });
        for handle in ["H:1", "H:2"] {
            assert_eq!(running.job(handle, "").await, complete(""));
        }
        assert_eq!(running.server.said("H:2")[0], (WorkWarning, r"oops\n".to_owned()));
        running.end(Order::Stop).await;
    });
}

#[test]
fn an_order_to_end_lets_the_job_end_and_takes_no_other() {
    in_local_set(async {
        let folder = tempfile::tempdir().expect("a folder");
        let script = r#"while read -r line; do echo '{"status":[0,1]}'
            until [ -e go ]; do sleep 0.01; done; echo '{"result":"done"}'; done; touch flushed"#;
        let directory = Some(folder.path().to_owned());
        let running = Running::start(Worker { directory, ..worker(script) });
        running.server.submit("H:1", "");
        until("its start", || !running.server.said("H:1").is_empty()).await;
        running.server.submit("H:2", "");
        running.controls.orders.send_replace(Order::Restart);
        std::fs::write(folder.path().join("go"), "").expect("a file");
        let server = running.server.clone();
        let counters = Rc::clone(&running.counters);
        running.end(Order::Restart).await;
        assert_eq!(server.ended("H:1").await, complete("done"));
        assert_eq!(server.assigned(), 1);
        assert!(folder.path().join("flushed").exists(), "it ended by the end of its input");
        assert_eq!(counters.ends.borrow().get(&Ended::Restart), Some(&1));
    });
}

#[test]
fn a_job_that_exceeds_the_time_to_end_is_ended() {
    in_local_set(async {
        let script = r#"read -r line; echo '{"status":[0,1]}'; sleep 1000"#;
        let stop_wait = Duration::from_millis(20);
        let running = Running::start(Worker { stop_wait, ..worker(script) });
        running.server.submit("H:1", "");
        until("its start", || !running.server.said("H:1").is_empty()).await;
        let (server, counters) = (running.server.clone(), Rc::clone(&running.counters));
        running.end(Order::Stop).await;
        assert_eq!(server.ended("H:1").await, fail());
        assert_eq!(counters.jobs.borrow().get(&Outcome::Stopped), Some(&1));
        assert_eq!(counters.ends.borrow().get(&Ended::Stop), Some(&1));
    });
}

#[test]
fn an_order_to_end_at_once_kills_a_job_or_an_idle_process() {
    in_local_set(async {
        let script = r#"trap '' TERM; while read -r line; do echo '{"status":[0,1]}'
            while :; do sleep 1000; done; done; sleep 1000"#;
        let running = Running::start(worker(script));
        running.server.submit("H:1", "");
        until("its start", || !running.server.said("H:1").is_empty()).await;
        let server = running.server.clone();
        running.controls.orders.send_replace(Order::Stop);
        running.end(Order::Kill).await;
        assert_eq!(server.ended("H:1").await, fail());

        let idle = Running::start(worker(script));
        until("it is up", || *idle.controls.is_up.borrow()).await;
        idle.end(Order::Kill).await;
    });
}

#[test]
fn a_process_that_ends_at_once_is_waited_after_and_takes_no_jobs() {
    in_local_set(async {
        let backoff = (Duration::from_millis(20), Duration::from_secs(100));
        let running = Running::start(Worker { backoff, ..worker("exit 1") });
        // 20, 40 and 80 ms.
        let start = Instant::now();
        until("ends", || running.ends(Ended::Exit) >= 4).await;
        assert!(start.elapsed() >= Duration::from_millis(140));
        until("the wait", || running.counters.backing_off.get() == 1).await;
        assert!(!*running.controls.is_up.borrow());
        let grabs = running.server.grabs();
        running.server.submit("H:1", "");
        tokio::time::timeout(Duration::from_millis(50), async {
            until("a grab", || running.server.grabs() > grabs).await;
        })
        .await
        .expect_err("no grab while there is no process");
        running.end(Order::Stop).await;
    });
}

#[test]
fn a_program_that_is_missing_is_tried_again() {
    in_local_set(async {
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("program");
        let command = vec![program.to_str().expect("UTF-8").to_owned()];
        let running = Running::start(Worker { command, ..worker("") });
        running.server.submit("H:1", "");
        until("two tries", || running.ends(Ended::NotStarted) >= 2).await;
        assert_eq!((running.server.grabs(), *running.controls.is_up.borrow()), (0, false));
        let script = format!("#!/bin/sh\n{PID}\n");
        let new = folder.path().join("new");
        std::fs::write(&new, script).expect("a file");
        std::fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("a mode");
        std::fs::rename(new, program).expect("a rename");
        assert_eq!(running.server.ended("H:1").await.0, WorkComplete);
        running.end(Order::Stop).await;
    });
}
