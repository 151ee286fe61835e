//! Workers of mode `gearman` that write their starts and ends to files, and commands.

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::*;
use crate::config::{Mode, Server, Worker};
use crate::counters::Counters;
use crate::instance::fake_server::{FakeServer, in_local_set, until};
use crate::process::samples;

/// Says its start and its end in the file named by the worker, with `$SAYS`.
const SCRIPT: &str = r#"
    trap 'echo "term $SAYS" >> log; sleep 0.02; echo "end $SAYS" >> log; exit' TERM
    echo "start $SAYS" >> log
    while :; do sleep 0.01; done"#;

struct Fixture {
    folder: TempDir,
    counters: Rc<Counters>,
    commands: UnboundedSender<Command>,
    task: JoinHandle<()>,
}

impl Fixture {
    fn start(settings: &[(&str, usize)]) -> Self {
        Self::start_with(|folder| settings.iter().map(|it| worker(folder, it.0, it.1)).collect())
    }

    fn start_with(workers: impl FnOnce(&Path) -> Vec<Worker>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let counters: Rc<Counters> = Rc::default();
        let shared = Rc::new(FakeServer::start().shared(Rc::clone(&counters)));
        let (commands, receiver) = unbounded_channel();
        let config = config(workers(folder.path()));
        let task = spawn_local(run(config, shared, receiver));
        Self { folder, counters, commands, task }
    }

    fn send(&self, command: Command) {
        self.commands.send(command).expect("it runs");
    }

    fn reload(&self, workers: &[(&str, usize)]) {
        let workers = workers.iter().map(|it| worker(self.folder.path(), it.0, it.1)).collect();
        self.send(Command::Reload(config(workers)));
    }

    fn log(&self) -> Vec<String> {
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    fn count(&self, line: &str) -> usize {
        self.log().iter().filter(|found| *found == line).count()
    }

    async fn until_count(&self, line: &str, count: usize) {
        until(&format!("{count} x {line}"), || self.count(line) >= count).await;
        assert_eq!(self.count(line), count, "{:?}", self.log());
    }

    async fn end(self) -> Vec<String> {
        self.send(Command::Stop);
        self.task.await.expect("no panic");
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }
}

/// A worker by `name` or `name:text`; the text is a setting that instances differ by.
fn worker(folder: &Path, name: &str, count: usize) -> Worker {
    let mut worker = samples::worker(&["sh", "-c", SCRIPT]);
    worker.environment.insert("SAYS".into(), name.to_owned());
    worker.directory = Some(folder.to_owned());
    worker.mode = Mode::Gearman;
    worker.name = name.split(':').next().expect("a name").to_owned();
    worker.count = count;
    worker
}

fn config(workers: Vec<Worker>) -> Config {
    let servers = vec![Server::Tcp { host: "localhost".into(), port: 4730 }];
    Config { servers, http: None, tls: None, workers }
}

#[test]
fn all_instances_run_until_the_end() {
    in_local_set(async {
        let fixture = Fixture::start(&[("a", 3), ("b", 2)]);
        fixture.until_count("start a", 3).await;
        fixture.until_count("start b", 2).await;
        assert_eq!(fixture.counters.worker("a").instances.get(), 3);
        let log = fixture.end().await;
        assert_eq!(log.iter().filter(|line| line.starts_with("end")).count(), 5, "{log:?}");
    });
}

#[test]
fn a_restart_replaces_one_instance_at_a_time() {
    in_local_set(async {
        let fixture = Fixture::start(&[("a", 3), ("b", 1)]);
        fixture.until_count("start a", 3).await;
        fixture.until_count("start b", 1).await;
        // Looks after each turn of any task.
        let least = Rc::new(Cell::new(usize::MAX));
        let looking = spawn_local({
            let (worker, least) = (fixture.counters.worker("a"), Rc::clone(&least));
            async move {
                loop {
                    least.set(least.get().min(worker.processes.get()));
                    tokio::task::yield_now().await;
                }
            }
        });
        fixture.send(Command::Restart("a".to_owned()));
        // Each command is a step for all workers.
        for _ in 0..3 {
            fixture.send(Command::Restart("b".to_owned()));
        }
        fixture.until_count("start a", 6).await;
        looking.abort();
        assert_eq!(least.get(), 2);
        // The next is told to end when the one before has ended.
        let log = fixture.log();
        let ends: Vec<_> = log
            .iter()
            .map(String::as_str)
            .filter(|line| ["term a", "end a"].contains(line))
            .collect();
        assert_eq!(ends, ["term a", "end a"].repeat(3), "{log:?}");
        fixture.until_count("start b", 2).await;
        fixture.send(Command::RestartAll);
        fixture.until_count("start a", 9).await;
        fixture.until_count("start b", 3).await;
        fixture.end().await;
    });
}

#[test]
fn a_reload_touches_only_what_changed() {
    in_local_set(async {
        let fixture = Fixture::start(&[("same", 2), ("changed", 2), ("removed", 1), ("count", 1)]);
        fixture.until_count("start same", 2).await;
        fixture.until_count("start changed", 2).await;
        fixture.until_count("start removed", 1).await;
        fixture.until_count("start count", 1).await;
        fixture.reload(&[("new", 1), ("same", 2), ("changed:2", 2), ("count", 3)]);
        fixture.until_count("start changed:2", 2).await;
        fixture.until_count("end removed", 1).await;
        fixture.until_count("start new", 1).await;
        fixture.until_count("start count", 3).await;
        assert_eq!(fixture.count("end changed"), 2);
        fixture.reload(&[("new", 1), ("same", 2), ("changed:2", 2), ("count", 1)]);
        fixture.until_count("end count", 2).await;
        assert_eq!(fixture.counters.worker("removed").instances.get(), 0);
        for (line, count) in [("end same", 0), ("end new", 0), ("end changed:2", 0)] {
            assert_eq!(fixture.count(line), count, "{line}");
        }
        fixture.end().await;
    });
}

#[test]
fn a_reload_in_a_reload_replaces_its_goal() {
    in_local_set(async {
        let fixture = Fixture::start(&[("a:1", 3)]);
        fixture.until_count("start a:1", 3).await;
        fixture.reload(&[("a:2", 3)]);
        fixture.reload(&[("a:3", 3)]);
        fixture.until_count("start a:3", 3).await;
        assert_eq!(fixture.count("start a:2"), 0, "{:?}", fixture.log());
        // Removed, and there again before it has ended.
        fixture.reload(&[("b", 1)]);
        fixture.reload(&[("a:3", 1)]);
        fixture.until_count("start a:3", 4).await;
        fixture.until_count("end a:3", 3).await;
        fixture.end().await;
    });
}

#[test]
fn an_instance_that_isnt_up_holds_the_next_back() {
    in_local_set(async {
        let fixture = Fixture::start(&[("a", 3)]);
        fixture.until_count("start a", 3).await;
        let mut broken = worker(fixture.folder.path(), "a", 3);
        broken.command = vec!["/nonexistent/program".to_owned()];
        fixture.send(Command::Reload(config(vec![broken])));
        fixture.until_count("end a", 1).await;
        let counters = fixture.counters.worker("a");
        until("the back-off", || counters.backing_off.get() == 1).await;
        assert_eq!(counters.processes.get(), 2);
        // The way back doesn't wait for it.
        fixture.reload(&[("a", 3)]);
        fixture.until_count("start a", 4).await;
        assert_eq!(fixture.count("end a"), 1);
        fixture.end().await;
    });
}

#[test]
fn a_second_order_to_end_kills() {
    in_local_set(async {
        let fixture = Fixture::start_with(|folder| {
            let mut worker = worker(folder, "a", 2);
            worker.command[2] =
                "trap '' TERM; echo 'start a' >> log; while :; do sleep 1000; done".to_owned();
            vec![worker]
        });
        fixture.until_count("start a", 2).await;
        fixture.send(Command::Stop);
        fixture.end().await;
    });
}

#[test]
fn changed_files_restart_their_worker() {
    in_local_set(async {
        let mut pattern = String::new();
        let fixture = Fixture::start_with(|folder| {
            let mut watching = worker(folder, "a", 2);
            pattern = folder.join("*.php").to_str().expect("UTF-8").to_owned();
            watching.watch = vec![pattern.clone()];
            vec![watching, worker(folder, "b", 1)]
        });
        fixture.until_count("start a", 2).await;
        fixture.until_count("start b", 1).await;
        // Written again and again, as the folder may not be watched yet.
        let writing = spawn_local({
            let path = fixture.folder.path().join("x.php");
            async move {
                loop {
                    fs::write(&path, "").expect("a file");
                    tokio::time::sleep(Duration::from_millis(1500)).await;
                }
            }
        });
        until("the restart", || fixture.count("start a") >= 4).await;
        writing.abort();
        assert_eq!(fixture.count("start b"), 1);
        fixture.end().await;
    });
}

#[test]
fn the_end_of_commands_is_an_order_to_end() {
    in_local_set(async {
        let fixture = Fixture::start(&[("a", 1)]);
        fixture.until_count("start a", 1).await;
        let Fixture { commands, task, .. } = fixture;
        drop(commands);
        task.await.expect("no panic");
    });
}
