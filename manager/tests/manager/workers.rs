//! Mode `gearman`: workers in PHP, Perl and Python, unchanged, and commands that end.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::child::{has, tool, wait_until};
use crate::client::{Client, Ending};
use crate::manager::{Manager, worker};
use crate::processes::{noted, wait_for_ends};
use crate::server::Server;

/// A worker script of the server's own tests.
pub(crate) fn script(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = path.with_file_name("tests/server/interop/scripts").join(name);
    path.to_str().unwrap().to_owned()
}

/// The start of a PHP worker whose functions include `reverse`; `None` without PHP's extension.
pub(crate) fn php() -> Option<String> {
    let has_extension = ["-r", "exit(extension_loaded('gearman') ? 0 : 1);"];
    has("php", &has_extension).then(|| {
        let host_and_port = "${GEARMAN_SERVERS%:*} ${GEARMAN_SERVERS##*:}";
        format!("echo $$ >> $DIR/pids; exec php {} {host_and_port}", script("worker.php"))
    })
}

fn perl() -> Option<String> {
    has("perl", &["-MGearman::Worker", "-e", "1"]).then(|| {
        format!("echo $$ >> $DIR/pids; exec perl {} $GEARMAN_SERVERS", script("worker.pl"))
    })
}

fn python() -> Option<String> {
    has("python3", &["-c", "import gear"]).then(|| {
        let host_and_port = "${GEARMAN_SERVERS%:*} ${GEARMAN_SERVERS##*:} \"\"";
        format!("echo $$ >> $DIR/pids; exec python3 {} {host_and_port}", script("worker.py"))
    })
}

/// A worker in mode `gearman`, which need not name its functions.
pub(crate) fn gearman(script: &str, more: &str) -> String {
    worker("gearman", script, more).replace("functions = [\"f\"]\n", "")
}

/// Two of them do jobs; a killed one is started again, and all end with the manager.
fn does_jobs_unchanged(script: Option<String>) {
    let Some(script) = script else { return };
    let server = Server::start();
    let more = "count = 2\nbackoff = [\"50ms\", \"1s\"]";
    let manager = Manager::start(&server, &gearman(&script, more));
    let mut client = Client::connect(server.address);
    let reversed = Ending::Complete(b"cba".to_vec());
    assert_eq!(client.ending("reverse", b"abc"), reversed);
    manager.wait_for_lines("pids", 2);
    // libgearman takes the servers from the variable, too, and connects twice then.
    wait_until("two workers", || (server.function("reverse").workers >= 2).then_some(()));
    let first = noted(&manager.path("pids"))[0];
    nix::sys::signal::kill(first, nix::sys::signal::Signal::SIGKILL).unwrap();
    manager.wait_for_lines("pids", 3);
    for _ in 0..20 {
        assert_eq!(client.ending("reverse", b"abc"), reversed);
    }
    manager.stop();
    wait_until("no worker", || (server.function("reverse").workers == 0).then_some(()));
}

#[test]
fn php_workers_run_unchanged() {
    does_jobs_unchanged(php());
}

#[test]
fn perl_workers_run_unchanged() {
    does_jobs_unchanged(perl());
}

#[test]
fn python_workers_run_unchanged() {
    does_jobs_unchanged(python());
}

#[test]
fn gearmans_own_runner_runs_unchanged() {
    does_jobs_unchanged(tool("gearman").map(|_| {
        "echo $$ >> $DIR/pids
        exec gearman -w -h ${GEARMAN_SERVERS%:*} -p ${GEARMAN_SERVERS##*:} -f reverse -- \
         sh -c 'rev | tr -d \"\\n\"'"
            .to_owned()
    }));
}

#[test]
fn all_servers_are_in_gearman_servers() {
    let (one, other) = (Server::start(), Server::start());
    let servers = [one.address.to_string(), other.address.to_string()];
    let script = "echo $GEARMAN_SERVERS >> $DIR/servers; exec sleep 1000";
    let manager = Manager::start_at(&servers, "", &gearman(script, ""));
    assert_eq!(manager.wait_for_lines("servers", 1), [servers.join(",")]);
    manager.stop();
}

#[test]
fn a_worker_that_ends_at_once_for_ever_is_started_at_the_pace_of_its_back_off() {
    let server = Server::start();
    let start = Instant::now();
    let script = "echo $$ >> $DIR/pids; exit 0";
    let manager = Manager::start(&server, &gearman(script, "backoff = [\"200ms\", \"800ms\"]"));
    manager.wait_for_lines("pids", 5);
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(200 + 400 + 800 + 800), "{took:?}");
    manager.stop();
}

#[test]
fn a_worker_is_replaced_at_max_age_and_is_asked_to_end_first() {
    let server = Server::start();
    let script = "trap 'echo asked >> $DIR/asked; exit' TERM; echo $$ >> $DIR/pids
        while :; do sleep 0.02; done";
    let more = "max-age = \"300ms\"\nsplay = 0.0\nbackoff = [\"1m\", \"1m\"]";
    let manager = Manager::start(&server, &gearman(script, more));
    manager.wait_for_lines("pids", 3);
    manager.wait_for_lines("asked", 2);
    wait_for_ends(&noted(&manager.path("pids"))[..2]);
    manager.stop();
}

#[test]
fn a_leaking_worker_is_replaced_at_memory_max() {
    let server = Server::start();
    let script = "echo $$ >> $DIR/pids
        x=$(head -c 30000000 /dev/zero | tr '\\0' x); while :; do sleep 0.1; done";
    let more = "memory-max = \"20M\"\nbackoff = [\"10ms\", \"1s\"]\nstop-wait = \"1s\"";
    let manager = Manager::start(&server, &gearman(script, more));
    manager.wait_for_lines("pids", 2);
    wait_for_ends(&noted(&manager.path("pids"))[..1]);
}
