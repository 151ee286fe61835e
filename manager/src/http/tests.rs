//! Requests to a listener, and what they are answered.

use std::cell::Cell;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::LocalSet;

use super::*;
use crate::counters::{Ended, Outcome};

/// What is answered to a GET of each path.
async fn answers(counters: Rc<Counters>, paths: &[&str]) -> Vec<String> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("a socket");
    let address = listener.local_addr().expect("a bound socket");
    let local = LocalSet::new();
    local.spawn_local(Listener(Socket::Tcp(listener)).serve(counters));
    let ask = async {
        let mut answers = Vec::new();
        for path in paths {
            let mut stream = TcpStream::connect(address).await.expect("it listens");
            let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("it reads");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("it answers");
            answers.push(answer);
        }
        answers
    };
    local.run_until(ask).await
}

#[tokio::test]
async fn metrics_tell_the_counters() {
    let counters = Rc::new(Counters::default());
    let worker = counters.worker("thumbnail");
    worker.instances.set(4);
    worker.running.set(2);
    worker.memory_bytes.set(5 << 20);
    worker.job(Outcome::Complete, 0.5);
    worker.job(Outcome::Complete, 0.002);
    worker.job(Outcome::Timeout, 60.0);
    worker.end(Ended::MaxAge);
    counters.connections.borrow_mut().insert("127.0.0.1:4730".to_owned(), 3);
    counters.reloads.set((2, 1));
    let answer = answers(counters, &["/metrics"]).await.remove(0);
    let (head, text) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    for line in [
        "ringgear_manager_instances{worker=\"thumbnail\"} 4",
        "ringgear_manager_processes{worker=\"thumbnail\"} 0",
        "ringgear_manager_jobs_running{worker=\"thumbnail\"} 2",
        "ringgear_manager_backing_off{worker=\"thumbnail\"} 0",
        "ringgear_manager_memory_bytes{worker=\"thumbnail\"} 5242880",
        "ringgear_manager_jobs_total{worker=\"thumbnail\",outcome=\"complete\"} 2",
        "ringgear_manager_jobs_total{worker=\"thumbnail\",outcome=\"timeout\"} 1",
        "ringgear_manager_jobs_total{worker=\"thumbnail\",outcome=\"cancelled\"} 0",
        "ringgear_manager_job_run_seconds_bucket{worker=\"thumbnail\",le=\"0.005\"} 1",
        "ringgear_manager_job_run_seconds_bucket{worker=\"thumbnail\",le=\"60\"} 3",
        "ringgear_manager_job_run_seconds_count{worker=\"thumbnail\"} 3",
        "ringgear_manager_process_ends_total{worker=\"thumbnail\",reason=\"max-age\"} 1",
        "ringgear_manager_results_lost_total{worker=\"thumbnail\"} 0",
        "ringgear_manager_connections{server=\"127.0.0.1:4730\"} 3",
        "ringgear_manager_reloads_total{result=\"taken\"} 2",
        "ringgear_manager_reloads_total{result=\"refused\"} 1",
    ] {
        assert!(text.lines().any(|it| it == line), "{line}\n{text}");
    }
    assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
    // The manual has each of them.
    let manual = include_str!("../../../docs/manager.md");
    for name in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
        let is_named = name.starts_with("process_") || manual.contains(&format!("`{name}`"));
        assert!(is_named, "docs/manager.md has no {name}");
    }
}

#[tokio::test]
async fn health_names_workers_that_only_wait() {
    let counters = Rc::new(Counters::default());
    let set = |name: &str, instances, backing_off| {
        let worker = counters.worker(name);
        let set = |cell: &Cell<usize>, number| cell.set(number);
        set(&worker.instances, instances);
        set(&worker.backing_off, backing_off);
    };
    set("removed", 0, 0);
    set("well", 2, 1);
    set("new", 1, 0);
    let answer = answers(Rc::clone(&counters), &["/healthz", "/other"]).await;
    assert!(answer[0].starts_with("HTTP/1.1 200 OK") && answer[0].ends_with("\r\n\r\nok\n"));
    assert!(answer[1].starts_with("HTTP/1.1 404 "), "{}", answer[1]);
    set("a", 2, 2);
    set("b", 1, 1);
    let answer = answers(counters, &["/healthz"]).await.remove(0);
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    let problem = "all instances wait before they start their program again: a, b\n";
    assert!(answer.ends_with(problem), "{answer}");
}

#[test]
fn an_address_that_is_taken_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = HttpAddress::Tcp(taken.local_addr().expect("a bound socket"));
    let problem = Listener::bind(&address).expect_err("it is taken");
    let expected = format!(
        "http can't be \"{address}\": Address already in use (os error 98); end the program that \
         has it, or choose another"
    );
    assert_eq!(problem, expected);
}

#[tokio::test]
async fn a_socket_that_a_killed_manager_left_is_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("http.sock");
    let address = HttpAddress::Unix(path.clone());
    drop(UnixListener::bind(&path).expect("nothing is there"));
    assert!(path.exists());
    let listener = Listener::bind(&address).expect("nothing answers there");
    let problem = Listener::bind(&address).expect_err("the first one answers");
    assert!(problem.contains("Address already in use"), "{problem}");
    let local = LocalSet::new();
    local.spawn_local(listener.serve(Rc::default()));
    let ask = async {
        let mut stream = UnixStream::connect(&path).await.expect("it listens");
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers");
        answer
    };
    let answer = local.run_until(ask).await;
    assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
    drop(local);
    assert!(!path.exists());
}
