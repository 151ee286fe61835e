//! Mode `exec`: exit codes, output, status lines and warnings of commands, as clients see them.

use std::fs;

use crate::child::tool;
use crate::client::{Client, Ending};
use crate::manager::{Manager, worker};
use crate::server::Server;

/// A server, a manager with one worker, and a client.
pub(crate) fn start(script: &str, more: &str) -> (Server, Manager, Client) {
    let server = Server::start();
    let manager = Manager::start(&server, &worker("exec", script, more));
    let client = Client::connect(server.address);
    (server, manager, client)
}

#[test]
fn a_payload_is_standard_input_and_standard_output_is_the_result() {
    let (_server, manager, mut client) = start("exec cat", "");
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    for payload in [&b""[..], b"hello\n", &bytes] {
        assert_eq!(client.ending("f", payload), Ending::Complete(payload.to_vec()));
    }
    // Neither side may wait for the other where pipes are full.
    let large = bytes.repeat(31);
    assert_eq!(client.ending("f", &large), Ending::Complete(large));
    manager.stop();
}

#[test]
fn any_exit_code_but_0_and_100_fails_the_job() {
    let (_server, _manager, mut client) = start("echo partial; exit $(cat)", "");
    for code in ["1", "2", "75", "99", "101", "127", "255"] {
        let told = client.run("f", code.as_bytes());
        assert_eq!(told.ending, Some(Ending::Fail), "exit code {code}");
        assert_eq!(told.data, b"", "what it wrote is no result");
    }
    assert_eq!(client.ending("f", b"0"), Ending::Complete(b"partial\n".to_vec()));
}

#[test]
fn exit_code_100_is_an_exception_with_the_last_4_kib_of_standard_error() {
    let script = "head -c 10000 /dev/zero | tr '\\0' x >&2; printf '%s' \"$(cat)\" >&2; exit 100";
    let (_server, _manager, mut client) = start(script, "");
    let Ending::Exception(text) = client.ending("f", b"the end") else { panic!("no exception") };
    assert_eq!(text.len(), 4096);
    assert!(text.ends_with(b"xxxthe end"), "{}", text.escape_ascii());

    let (_server, _manager, mut client) = start("echo no such picture >&2; exit 100", "");
    let Ending::Exception(text) = client.ending("f", b"") else { panic!("no exception") };
    assert_eq!(text.trim_ascii_end(), b"no such picture");
}

#[test]
fn a_command_that_is_killed_by_a_signal_fails_its_job() {
    let (_server, manager, mut client) = start("echo partial; kill -s $(cat) $$", "");
    for signal in ["KILL", "TERM", "SEGV"] {
        assert_eq!(client.ending("f", signal.as_bytes()), Ending::Fail, "{signal}");
        manager.wait_for_log(&format!("SIG{signal}"));
    }
}

/// What the row above is about: clients of gearman's own runner take such a job for done.
#[test]
fn gearmans_own_runner_calls_such_a_job_complete() {
    let Some(gearman) = tool("gearman") else { return };
    let server = Server::start();
    let port = server.address.port().to_string();
    let mut runner = std::process::Command::new(gearman);
    runner.args(["-w", "-c", "1", "-h", "127.0.0.1", "-p", &port, "-f", "f", "--"]);
    let mut runner = runner.args(["sh", "-c", "kill -9 $$"]).spawn().unwrap();
    let ending = Client::connect(server.address).ending("f", b"");
    let _ = runner.kill();
    runner.wait().unwrap();
    assert_eq!(ending, Ending::Complete(Vec::new()));
}

/// `attempts` bounds runs, whatever ends them; without a policy the first failure is final.
#[test]
fn a_killed_commands_job_is_run_again_as_its_functions_policy_says() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("functions.toml");
    let policy = "[[function]]\nmatch = \"retried\"\nattempts = 3\nforeground = true\n\
                  backoff = { first = \"1ms\", max = \"1ms\" }\n";
    let other = "[[function]]\nmatch = \"other\"\nattempts = 3\nforeground = true\n\
                 retry = [\"lost\"]\n";
    fs::write(&file, format!("{policy}{other}")).unwrap();
    let server = Server::start_with(0, &[&format!("--functions-file={}", file.to_str().unwrap())]);
    let functions = "functions = [\"retried\", \"other\", \"plain\"]";
    let script = "echo run >> $DIR/$GEARMAN_FUNCTION; kill -9 $$";
    let worker = worker("exec", script, "").replace("functions = [\"f\"]", functions);
    let manager = Manager::start(&server, &worker);
    let mut client = Client::connect(server.address);
    for (function, runs) in [("retried", 3), ("other", 1), ("plain", 1)] {
        assert_eq!(client.ending(function, b""), Ending::Fail, "{function}");
        assert_eq!(manager.read(function).matches("run").count(), runs, "{function}");
    }
}

#[test]
fn lines_on_descriptor_3_are_the_jobs_status() {
    let script = "echo 'status 1 2' >&3; echo 'nonsense' >&3; printf 'status 2 2\\n' >&3; echo ok";
    let (_server, _manager, mut client) = start(script, "");
    let told = client.run("f", b"");
    assert_eq!(told.statuses, ["1/2", "2/2"]);
    assert_eq!(told.ending, Some(Ending::Complete(b"ok\n".to_vec())));
}

/// A bar that only moves at the end is none.
#[test]
fn a_status_is_told_while_the_command_runs() {
    let script = "echo 'status 1 2' >&3; while [ ! -e $DIR/go ]; do sleep 0.02; done";
    let (server, manager, mut client) = start(script, "");
    let handle = client.submit("f", b"");
    crate::child::wait_until("a status of 1/2", || {
        let mut conn = crate::conn::Conn::open(server.address);
        conn.packet("GET_STATUS", &[&handle]);
        let answer = conn.next().unwrap();
        format!("{answer:?}").ends_with("|1|1|1|2").then_some(())
    });
    manager.touch("go");
    assert_eq!(client.wait(&handle).ending, Some(Ending::Complete(Vec::new())));
}

#[test]
fn standard_error_goes_to_the_log_or_to_clients_as_warnings() {
    let script = "echo careful >&2; echo ok";
    let (_server, manager, mut client) = start(script, "");
    let told = client.run("f", b"");
    assert_eq!((told.ending, told.warnings.len()), (Some(Ending::Complete(b"ok\n".to_vec())), 0));
    manager.wait_for_log("careful");

    let (_server, manager, mut client) = start(script, "stderr = \"warning\"");
    let told = client.run("f", b"");
    assert_eq!(told.ending, Some(Ending::Complete(b"ok\n".to_vec())));
    assert_eq!(told.warnings.trim_ascii_end(), b"careful");
    assert!(!manager.log().contains("careful"), "{}", manager.log());
}

#[test]
fn so_many_jobs_run_at_a_time_as_count_says() {
    let script = "echo run >> $DIR/runs; while [ ! -e $DIR/go ]; do sleep 0.02; done";
    let (server, manager, mut client) = start(script, "count = 3");
    let handles: Vec<_> = (0..4).map(|_| client.submit("f", b"")).collect();
    manager.wait_for_lines("runs", 3);
    let function = server.function("f");
    assert_eq!((function.jobs, function.running, function.workers), (4, 3, 3));
    manager.touch("go");
    for handle in handles {
        assert_eq!(client.wait(&handle).ending, Some(Ending::Complete(Vec::new())));
    }
    manager.stop();
}
