//! Commands that hang, fork, flood, don't read, leak, or aren't there: the job fails where it must,
//! and no process is left.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::client::{Client, Ending};
use crate::exec::start;
use crate::manager::Manager;
use crate::processes::{noted, resident_bytes, wait_for_ends};
use crate::server::Server;

const MIB: usize = 1 << 20;

#[test]
fn a_hung_command_is_killed_in_time_with_a_child_that_ignores_sigterm() {
    let script = "trap '' TERM; sh -c 'trap \"\" TERM; echo $$ >> $DIR/pids; sleep 1000' &
        echo $$ >> $DIR/pids; wait";
    let (_server, manager, mut client) = start(script, "timeout = \"500ms\"");
    let submitted = Instant::now();
    let handle = client.submit("f", b"");
    manager.wait_for_lines("pids", 2);
    assert_eq!(client.wait(&handle).ending, Some(Ending::Fail));
    let took = submitted.elapsed();
    assert!(took >= Duration::from_millis(500), "{took:?}");
    wait_for_ends(&noted(&manager.path("pids")));
    // It is there for the next job.
    assert_eq!(client.ending("f", b""), Ending::Fail);
    manager.stop();
}

#[test]
fn a_child_in_the_background_that_holds_standard_output_doesnt_hold_the_job() {
    let script = "sleep 1000 & echo $! >> $DIR/pids; cat";
    let (_server, manager, mut client) = start(script, "");
    assert_eq!(client.ending("f", b"done"), Ending::Complete(b"done".to_vec()));
    wait_for_ends(&noted(&manager.path("pids")));
    manager.stop();
}

#[test]
fn a_command_that_floods_standard_output_is_killed_at_result_max() {
    let script = "echo $$ >> $DIR/pids; case $(cat) in
        (forever) exec cat /dev/zero;;
        (most) exec head -c 65536 /dev/zero;;
        (more) exec head -c 65537 /dev/zero;;
        esac";
    let (_server, manager, mut client) = start(script, "result-max = \"64K\"");
    assert_eq!(client.ending("f", b"forever"), Ending::Fail);
    wait_for_ends(&noted(&manager.path("pids")));
    assert_eq!(client.ending("f", b"most"), Ending::Complete(vec![0; 65536]));
    assert_eq!(client.ending("f", b"more"), Ending::Fail);
    assert!(resident_bytes(manager.pid()) < 64 * MIB as u64);
}

#[test]
fn a_flood_of_standard_error_costs_the_manager_no_memory_and_the_job_nothing() {
    let script = "head -c 20000000 /dev/zero | tr '\\0' x >&2
        head -c 5000 /dev/zero | tr '\\0' '\\n' | sed 's|^|y|' >&2; echo ok";
    let (_server, manager, mut client) = start(script, "");
    assert_eq!(client.ending("f", b""), Ending::Complete(b"ok\n".to_vec()));
    let bytes = resident_bytes(manager.pid());
    assert!(bytes < 64 * MIB as u64, "{bytes} bytes");
    assert!(manager.log().len() < 4 * MIB, "a line has an end in the log");
}

#[test]
fn a_command_need_not_read_its_payload() {
    let payload = vec![b'x'; 3 * MIB];
    let scripts = [
        ("exit 0", Ending::Complete(Vec::new())),
        ("echo unread", Ending::Complete(b"unread\n".to_vec())),
        ("head -c 10", Ending::Complete(vec![b'x'; 10])),
        (
            "exec 0<&-; head -c 100000 /dev/zero; echo closed >&2",
            Ending::Complete(vec![0; 100_000]),
        ),
        ("exit 3", Ending::Fail),
    ];
    for (script, ending) in scripts {
        let (_server, manager, mut client) = start(script, "");
        for _ in 0..2 {
            assert_eq!(client.ending("f", &payload), ending, "{script}");
        }
        manager.stop();
    }
}

#[test]
fn a_leaking_command_is_killed_at_memory_max() {
    // What the shell holds, and what a child of it holds: memory is the group's.
    let hoard = "x=$(head -c 12000000 /dev/zero | tr '\\0' x); echo $$ >> $DIR/pids; sleep 1000";
    let script = format!("sh -c '{}' & {hoard}", hoard.replace('\'', "'\\''"));
    let (_server, manager, mut client) = start(&script, "memory-max = \"20M\"");
    assert_eq!(client.ending("f", b""), Ending::Fail);
    wait_for_ends(&noted(&manager.path("pids")));
    manager.wait_for_log("memory");

    let (_server, manager, mut client) = start("cat", "memory-max = \"20M\"");
    assert_eq!(client.ending("f", b"modest"), Ending::Complete(b"modest".to_vec()));
    manager.stop();
}

fn write_program(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(new, path).unwrap();
}

fn start_program(more: &str) -> (Server, Manager, Client) {
    let folder = tempfile::tempdir().unwrap();
    write_program(&folder.path().join("program"), "echo first");
    let server = Server::start();
    let worker = format!(
        "[[worker]]\nname = \"w\"\nfunctions = [\"f\"]\nmode = \"exec\"\n\
         command = [\"DIR/program\"]\n{more}\n"
    );
    let manager = Manager::start_in(folder, &[server.address.to_string()], "", &worker);
    let client = Client::connect(server.address);
    (server, manager, client)
}

#[test]
fn a_program_that_is_replaced_on_disk_runs_from_the_next_job_on() {
    let (_server, manager, mut client) = start_program("");
    assert_eq!(client.ending("f", b""), Ending::Complete(b"first\n".to_vec()));
    write_program(&manager.path("program"), "echo second");
    assert_eq!(client.ending("f", b""), Ending::Complete(b"second\n".to_vec()));
}

/// A broken deployment must not burn through a queue.
#[test]
fn a_missing_program_fails_jobs_at_the_pace_of_its_back_off_and_says_so() {
    let (_server, manager, mut client) = start_program("backoff = [\"200ms\", \"800ms\"]");
    assert_eq!(client.ending("f", b""), Ending::Complete(b"first\n".to_vec()));
    fs::rename(manager.path("program"), manager.path("elsewhere")).unwrap();
    let start = Instant::now();
    for _ in 0..4 {
        assert_eq!(client.ending("f", b""), Ending::Fail);
    }
    // Before the second, third and fourth.
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(200 + 400 + 800), "{took:?}");
    assert!(manager.log().contains("WARN"), "{}", manager.log());
    manager.wait_for_log("program");
    fs::rename(manager.path("elsewhere"), manager.path("program")).unwrap();
    assert_eq!(client.ending("f", b""), Ending::Complete(b"first\n".to_vec()));
    manager.stop();
}
