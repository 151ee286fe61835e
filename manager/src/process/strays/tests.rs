//! Tests of a process that is killed, or adopts others, run in a process of their own: this test
//! program again, with one test that is the manager.

use std::io::{BufRead as _, BufReader, Lines};
use std::os::fd::AsFd as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::*;
use crate::process::launch::Descriptors;
use crate::process::samples::{eventually, is_alive, worker};
use crate::process::{Launch, Status};

/// A leader with a child in its group, a daemon in a session of its own whose parent has ended, and
/// an orphan that ends at once. Each writes its number.
const SCRIPT: &str = "
    trap '' TERM
    sh -c 'echo group $$; exec sleep 1000' &
    (setsid sh -c 'echo daemon $$; exec sleep 1000' &)
    (setsid sh -c 'echo orphan $$' &)
    echo leader $$
    wait";

/// Not a test by itself. Starts `SCRIPT`; ends when standard input closes.
#[tokio::test]
#[ignore = "the manager of other tests"]
async fn be_a_manager() {
    let guard = Guard::of_test();
    let before = Command::new("sleep").arg("1000").spawn().expect("sleep").id();
    println!("\nguard {}\nbefore {before}", guard.process());
    let strays = Strays::adopt(&guard).expect("any process may");
    let launch = Launch::prepare(&worker(&["sh", "-c", SCRIPT]), &[]).expect("right");
    // The status of a leader that has ended isn't taken from its group.
    let short = Launch::prepare(&worker(&["sh", "-c", "exit 9"]), &[]).expect("right");
    let mut short = short.start(&guard, &[], Descriptors::default()).expect("it can be started");
    eventually("a zombie", || !is_alive(short.leader()));
    strays.look();
    assert_eq!(short.ended().await, Status::Code(9));
    let stdout = io::stdout();
    let output = Some(stdout.as_fd());
    let descriptors = Descriptors { output, ..Descriptors::default() };
    let group = launch.start(&guard, &[], descriptors).expect("it can be started");
    for line in io::stdin().lines() {
        match line.expect("text").as_str() {
            "look" => strays.look(),
            "end" => break,
            other => panic!("{other}"),
        }
        println!("done");
    }
    drop(group);
    strays.end();
    assert!(
        children().into_iter().all(|child| guard.knows(child) || strays.others.contains(&child))
    );
    println!("ended");
}

struct Manager {
    process: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
    guard: Pid,
    before: Pid,
    leader: Pid,
    group: Pid,
    daemon: Pid,
    orphan: Pid,
}

impl Manager {
    fn start() -> Self {
        let test = "process::strays::tests::be_a_manager";
        // A manager may be started with signals ignored.
        let mut process = Command::new("sh")
            .args(["-c", "trap '' CHLD; exec \"$0\" \"$@\""])
            .arg(std::env::current_exe().expect("a path"))
            .args([test, "--exact", "--ignored", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program");
        let mut output = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        let mut found = std::collections::HashMap::new();
        while found.len() < 6 {
            let line = output.next().expect("more lines").expect("text");
            if let Some((name, number)) = line.split_once(' ')
                && let Ok(number) = number.parse()
                && ["guard", "before", "leader", "group", "daemon", "orphan"].contains(&name)
            {
                found.insert(name.to_owned(), Pid::from_raw(number));
            }
        }
        let input = process.stdin.take();
        let of = |name: &str| found[name];
        Self {
            process,
            input,
            output,
            guard: of("guard"),
            before: of("before"),
            leader: of("leader"),
            group: of("group"),
            daemon: of("daemon"),
            orphan: of("orphan"),
        }
    }

    fn order(&mut self, order: &str, answer: &str) {
        use std::io::Write as _;
        writeln!(self.input.as_mut().expect("open"), "{order}").expect("it reads");
        let is_answer = |line: io::Result<String>| line.expect("text") == answer;
        assert!(self.output.by_ref().any(is_answer), "no answer to {order}");
    }

    /// Adopts the daemon: its parent ends in its own time.
    fn look(&mut self) {
        let own = self.process.id().to_string();
        eventually("the daemon is adopted", || {
            let path = format!("/proc/{}/stat", self.daemon);
            let stat = fs::read_to_string(path).expect("it runs");
            stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)) == Some(&own)
        });
        self.order("look", "done");
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = kill(self.before, Signal::SIGKILL);
        let _ = kill(self.daemon, Signal::SIGKILL);
    }
}

#[test]
fn a_manager_that_is_killed_leaves_no_process() {
    let mut manager = Manager::start();
    manager.look();
    for process in [manager.leader, manager.group, manager.daemon, manager.guard] {
        assert!(is_alive(process));
    }
    manager.process.kill().expect("it runs");
    for process in [manager.leader, manager.group, manager.daemon, manager.guard] {
        eventually("the end of its processes", || !is_alive(process));
    }
}

#[test]
fn orphans_are_reaped_and_daemons_end_with_the_manager() {
    let mut manager = Manager::start();
    manager.look();
    eventually("the orphan is reaped", || {
        manager.order("look", "done");
        !fs::exists(format!("/proc/{}", manager.orphan)).expect("readable")
    });
    assert!(is_alive(manager.daemon) && is_alive(manager.leader));
    manager.order("end", "ended");
    for process in [manager.leader, manager.group, manager.daemon] {
        assert!(!is_alive(process));
    }
    assert!(is_alive(manager.before), "a process that the manager didn't start was killed");
}

#[test]
fn a_guard_that_was_killed_is_replaced_by_the_next_look() {
    let mut manager = Manager::start();
    manager.look();
    kill(manager.guard, Signal::SIGKILL).expect("it runs");
    // It is reaped when it is replaced.
    eventually("another guard", || {
        manager.order("look", "done");
        !fs::exists(format!("/proc/{}", manager.guard)).expect("readable")
    });
    manager.process.kill().expect("it runs");
    for process in [manager.leader, manager.group, manager.daemon] {
        eventually("the end of its processes", || !is_alive(process));
    }
}
