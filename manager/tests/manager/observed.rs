//! What is seen of a manager: `/metrics`, `/healthz`, and what it tells systemd.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;

use nix::sys::signal::Signal;

use crate::child::{PATIENCE, wait_until};
use crate::client::{Client, Ending};
use crate::manager::{Manager, free_port, named_worker, worker};
use crate::server::Server;

/// Status line, head and body of an answer.
pub(crate) fn get(port: u16, path: &str) -> (String, String) {
    let connect = || TcpStream::connect(("127.0.0.1", port)).ok();
    let mut stream = wait_until("HTTP", connect);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// The value of a series.
pub(crate) fn value(metrics: &str, series: &str) -> Option<f64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    Some(line.parse().unwrap())
}

#[test]
fn metrics_count_jobs_by_worker_and_outcome() {
    let server = Server::start();
    let http = free_port();
    let keys = format!("http = \"127.0.0.1:{http}\"");
    let exits =
        "read -r way; case $way in (kill) kill -9 $$;; (hang) sleep 1000;; (*) exit $way;; esac";
    let more = "timeout = \"200ms\"\ncount = 2";
    let workers = format!(
        "{}{}",
        worker("exec", exits, more),
        named_worker("other", "other", "lines", "while read -r line; do :; done", "count = 3")
    );
    let manager = Manager::start_at(&[server.address.to_string()], &keys, &workers);
    let mut client = Client::connect(server.address);
    for way in ["0", "0", "0", "1", "75", "100", "kill", "hang"] {
        client.ending("f", format!("{way}\n").as_bytes());
    }
    let expected = [
        ("jobs_total{worker=\"w\",outcome=\"complete\"}", 3.0),
        ("jobs_total{worker=\"w\",outcome=\"fail\"}", 2.0),
        ("jobs_total{worker=\"w\",outcome=\"exception\"}", 1.0),
        ("jobs_total{worker=\"w\",outcome=\"signal\"}", 1.0),
        ("jobs_total{worker=\"w\",outcome=\"timeout\"}", 1.0),
        ("instances{worker=\"w\"}", 2.0),
        ("instances{worker=\"other\"}", 3.0),
        ("processes{worker=\"other\"}", 3.0),
        ("jobs_running{worker=\"w\"}", 0.0),
        ("job_run_seconds_count{worker=\"w\"}", 8.0),
    ];
    // A job is counted about when its client is told.
    let metrics = wait_until("the numbers", || {
        let (head, body) = get(http, "/metrics");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let is_there = |(name, expected): &(&str, f64)| {
            value(&body, &format!("ringgear_manager_{name}")) == Some(*expected)
        };
        expected.iter().all(is_there).then_some(body)
    });
    let connections = format!("ringgear_manager_connections{{server=\"{}\"}}", server.address);
    assert!(value(&metrics, &connections).is_some_and(|value| value >= 2.0), "{metrics}");
    assert!(value(&metrics, "process_resident_memory_bytes").is_some_and(|bytes| bytes > 1e6));

    manager.configure("nonsense");
    manager.signal(Signal::SIGHUP);
    wait_until("a refused reload", || {
        let (_, body) = get(http, "/metrics");
        let refused = body.lines().find(|line| {
            line.starts_with("ringgear_manager_reloads_total{") && line.ends_with(" 1")
        });
        refused.map(str::to_owned)
    });
    manager.stop();
}

#[test]
fn health_is_ok_while_it_turns_and_other_paths_are_not_found() {
    let server = Server::start();
    let http = free_port();
    let keys = format!("http = \"127.0.0.1:{http}\"");
    let worker = worker("exec", "cat", "");
    let manager = Manager::start_at(&[server.address.to_string()], &keys, &worker);
    let (head, body) = get(http, "/healthz");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(body.trim_end(), "ok");
    assert!(get(http, "/other").0.starts_with("HTTP/1.1 404 "));
    // Its commands don't hold the port.
    assert_eq!(Client::connect(server.address).ending("f", b"x"), Ending::Complete(b"x".to_vec()));
    manager.stop();
    assert!(TcpStream::connect(("127.0.0.1", http)).is_err());
}

#[test]
fn systemd_is_told_of_its_readiness_and_its_end() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("notify");
    let receiver = UnixDatagram::bind(&socket).unwrap();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let receive = || {
        let mut bytes = [0; 4096];
        let n = receiver.recv(&mut bytes).expect("a message");
        String::from_utf8_lossy(&bytes[..n]).into_owned()
    };
    let servers = [server.address.to_string()];
    let script = "env > $DIR/env; cat";
    let mut manager =
        Manager::start_with(folder, &servers, "", &worker("exec", script, ""), |command| {
            command.env("NOTIFY_SOCKET", &socket);
        });
    while !receive().lines().any(|line| line == "READY=1") {}
    assert_eq!(Client::connect(server.address).ending("f", b"x"), Ending::Complete(b"x".to_vec()));
    assert!(!manager.read("env").contains("NOTIFY_SOCKET"), "commands aren't the service");
    manager.signal(Signal::SIGTERM);
    while !receive().lines().any(|line| line == "STOPPING=1") {}
    assert_eq!(manager.wait().code(), Some(0));
}
