//! Restarts while jobs go on: SIGHUP, SIGUSR1, watched files.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::child::wait_until;
use crate::client::{Client, Ending};
use crate::manager::{Manager, named_worker, worker};
use crate::processes::{runs, wait_for_ends};
use crate::server::Server;

/// A process that notes its start and its end, and answers with its worker's `VERSION`.
const NOTES: &str = "trap 'echo end $$ >> $DIR/$NAME' EXIT; trap 'exit 0' TERM
    echo start $$ >> $DIR/$NAME
    while read -r line; do echo \"{\\\"result\\\":\\\"$VERSION\\\"}\"; done";

fn noting(name: &str, version: &str, more: &str) -> String {
    let environment = format!("environment = {{ NAME = \"{name}\", VERSION = \"{version}\" }}");
    named_worker(name, name, "lines", NOTES, &format!("{environment}\n{more}"))
}

/// The processes whose starts were noted.
fn started(path: &Path) -> Vec<Pid> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    let pids = whole.filter_map(|line| line.strip_prefix("start "));
    pids.map(|pid| Pid::from_raw(pid.parse().unwrap())).collect()
}

fn wait_for_starts(manager: &Manager, name: &str, starts: usize) -> Vec<Pid> {
    wait_until(&format!("{starts} processes of {name}"), || {
        let pids = started(&manager.path(name));
        (pids.len() >= starts).then_some(pids)
    })
}

fn complete(text: &str) -> Ending {
    Ending::Complete(text.as_bytes().to_vec())
}

/// An instance that restarts has started before the next one of its worker restarts.
fn check_one_at_a_time(manager: &Manager, worker: &str, count: usize) {
    let log = manager.log();
    let of_worker = |line: &&str| line.contains(&format!("worker=\"{worker}\""));
    let mut restarts = 0;
    let mut is_down = false;
    for line in log.lines().filter(of_worker) {
        if line.contains(" INFO the instance restarts") {
            assert!(!is_down, "two at a time:\n{log}");
            (is_down, restarts) = (true, restarts + 1);
        } else if line.contains("the instance starts") {
            is_down = false;
        }
    }
    assert!(restarts >= count, "{restarts} restarts:\n{log}");
}

#[test]
fn sighup_restarts_the_workers_that_changed_and_no_others() {
    let server = Server::start();
    let before = format!("{}{}", noting("a", "1", ""), noting("b", "1", "count = 2"));
    let manager = Manager::start(&server, &before);
    let mut client = Client::connect(server.address);
    let a = wait_for_starts(&manager, "a", 1);
    let b = wait_for_starts(&manager, "b", 2);
    assert_eq!(client.ending("b", b""), complete("1"));

    let after = format!("{}{}", noting("a", "1", ""), noting("b", "2", "count = 2"));
    manager.configure(&after);
    manager.signal(Signal::SIGHUP);
    wait_for_starts(&manager, "b", 4);
    wait_for_ends(&b);
    assert_eq!(client.ending("b", b""), complete("2"));
    assert_eq!(client.ending("a", b""), complete("1"));
    assert_eq!(started(&manager.path("a")), a);
    check_one_at_a_time(&manager, "b", 2);

    // The same file again changes nothing.
    let b = started(&manager.path("b"));
    manager.configure(&format!("# a comment\n{after}"));
    manager.signal(Signal::SIGHUP);
    // What comes after that reload has been read after it.
    manager.configure(&format!("{after}{}", noting("c", "1", "")));
    manager.signal(Signal::SIGHUP);
    wait_for_starts(&manager, "c", 1);
    assert_eq!((started(&manager.path("a")), started(&manager.path("b"))), (a.clone(), b.clone()));

    // A worker that is gone from the file ends; one with more instances keeps those it has.
    manager.configure(&noting("b", "2", "count = 3"));
    manager.signal(Signal::SIGHUP);
    wait_for_ends(&a);
    let now = wait_for_starts(&manager, "b", 5);
    assert!(now[2..4].iter().all(|pid| b.contains(pid) && runs(*pid)), "{now:?}");
    assert_eq!(client.ending("b", b""), complete("2"));
    wait_until("no worker of a", || (server.function("a").workers == 0).then_some(()));
    manager.stop();
}

#[test]
fn sighup_with_a_broken_file_keeps_the_old_workers_and_says_which_line() {
    let server = Server::start();
    let manager = Manager::start(&server, &noting("a", "1", ""));
    let mut client = Client::connect(server.address);
    let pids = wait_for_starts(&manager, "a", 1);
    let file = manager.path("manager.toml").display().to_string();
    for (at, mistake) in
        ["count = 0", "cuont = 2", "timeout = \"soon\"", "nonsense"].iter().enumerate()
    {
        // Each on another line.
        let text = format!("{}{}", "\n".repeat(at), noting("a", "2", mistake));
        manager.configure(&text);
        let text = manager.read("manager.toml");
        let number = 1 + text.lines().position(|line| line == *mistake).unwrap();
        manager.signal(Signal::SIGHUP);
        let said = manager.wait_for_log(&format!("{file}:{number}"));
        let key = mistake.split(' ').next().unwrap();
        assert!(*mistake == "nonsense" || said.contains(key), "{said}");
    }
    assert_eq!(client.ending("a", b""), complete("1"));
    assert_eq!(started(&manager.path("a")), pids);
    manager.configure(&noting("a", "2", ""));
    manager.signal(Signal::SIGHUP);
    wait_for_ends(&pids);
    assert_eq!(client.ending("a", b""), complete("2"));
    manager.stop();
}

#[test]
fn sigusr1_restarts_all_one_by_one_and_no_job_is_lost() {
    let server = Server::start();
    let workers = format!("{}{}", noting("a", "1", "count = 3"), noting("b", "1", ""));
    let manager = Manager::start(&server, &workers);
    let mut client = Client::connect(server.address);
    let a = wait_for_starts(&manager, "a", 3);
    let b = wait_for_starts(&manager, "b", 1);
    manager.signal(Signal::SIGUSR1);
    let is_over =
        || started(&manager.path("a")).len() >= 6 && started(&manager.path("b")).len() >= 2;
    wait_until("new processes", || {
        assert_eq!(client.ending("a", b""), complete("1"));
        is_over().then_some(())
    });
    wait_for_ends(&a);
    wait_for_ends(&b);
    check_one_at_a_time(&manager, "a", 3);
    manager.stop();
}

#[test]
fn a_restart_waits_for_the_running_job() {
    let server = Server::start();
    let script = "echo $$ >> $DIR/pids; while [ ! -e $DIR/go ]; do sleep 0.02; done; echo done";
    let manager = Manager::start(&server, &worker("exec", script, ""));
    let mut client = Client::connect(server.address);
    let handle = client.submit("f", b"");
    manager.wait_for_lines("pids", 1);
    manager.configure(&worker("exec", "echo new", ""));
    manager.signal(Signal::SIGHUP);
    manager.touch("go");
    assert_eq!(client.wait(&handle).ending, Some(complete("done\n")));
    wait_until("the new command", || (client.ending("f", b"") == complete("new\n")).then_some(()));
    manager.stop();
}

#[test]
fn a_change_of_watched_files_restarts_that_worker_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("code/deep")).unwrap();
    fs::write(folder.path().join("code/deep/first.php"), "1").unwrap();
    let watch = "count = 2\nwatch = [\"DIR/code/**/*.php\"]";
    let workers = format!("{}{}", noting("a", "1", watch), noting("b", "1", ""));
    let server = Server::start();
    let manager = Manager::start_in(folder, &[server.address.to_string()], "", &workers);
    let b = wait_for_starts(&manager, "b", 1);
    let mut processes = wait_for_starts(&manager, "a", 2).len();
    let rename = |name: &str| {
        let new = manager.path("new");
        fs::write(&new, "2").unwrap();
        fs::rename(new, manager.path("code").join(name)).unwrap();
    };
    // Written in place, put in place of it, one that is new, and one in a folder that is new.
    for step in 0..4 {
        match step {
            0 => fs::write(manager.path("code/deep/first.php"), "2").unwrap(),
            1 => rename("deep/first.php"),
            2 => rename("second.php"),
            _ => {
                fs::create_dir(manager.path("code/later")).unwrap();
                rename("later/third.php");
            }
        }
        processes += 2;
        let pids = wait_for_starts(&manager, "a", processes);
        wait_for_ends(&pids[..processes - 2]);
    }
    fs::write(manager.path("code/notes.txt"), "no pattern fits").unwrap();
    check_one_at_a_time(&manager, "a", 2);
    assert_eq!(started(&manager.path("b")), b);
    assert_eq!(started(&manager.path("a")).len(), processes);
    manager.stop();
}

/// Each change starts the second anew: a checkout of many files is one restart.
#[test]
fn many_changes_are_one_restart() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("code")).unwrap();
    let server = Server::start();
    let workers = noting("a", "1", "watch = [\"DIR/code/*\"]");
    let manager = Manager::start_in(folder, &[server.address.to_string()], "", &workers);
    wait_for_starts(&manager, "a", 1);
    for n in 0..200 {
        fs::write(manager.path("code").join(n.to_string()), "x").unwrap();
    }
    let pids = wait_for_starts(&manager, "a", 2);
    wait_for_ends(&pids[..1]);
    // One more change is one more restart; a second one of the others would have come before it.
    fs::write(manager.path("code/last"), "x").unwrap();
    assert_eq!(wait_for_starts(&manager, "a", 3).len(), 3);
    manager.stop();
}
