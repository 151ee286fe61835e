//! What a submission may take: memory, time and a reader's patience.

use std::io::{Read as _, Write as _};

use super::{OURS, path, start, submit, wait_for_jobs};
use crate::conn::{Conn, Item};
use crate::harness::{Contender, Server, each_ringgear};
use crate::http::client::{connect, exchange, head, read_answer};

each_ringgear!(
    memory_grows_with_what_has_come_and_has_a_limit,
    a_body_may_be_waited_for,
    a_client_that_does_not_read_its_parts_is_ended,
);

const MIB: usize = 1 << 20;

/// The most memory that the process has had, in bytes.
fn peak(server: &Server) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid()));
    let status = status.expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
    let kib = line.trim().trim_end_matches(" kB");
    kib.parse::<usize>().expect("a number") << 10
}

fn memory_grows_with_what_has_come_and_has_a_limit(contender: Contender) {
    let (server, http) = start(contender, &["--memory-max", "256m"]);
    let before = peak(&server);
    let mut stream = connect(http);
    let background = [OURS, ("Prefer", "respond-async")];
    let length = [background[0], background[1], ("Content-Length", "1000000000")];
    stream.write_all(&head("POST", &path("f"), &length, 0)).expect("it reads");
    let answer = read_answer(&mut stream, false).expect("an answer");
    assert_eq!((answer.status, answer.code().as_str()), (503, "OUT_OF_MEMORY"));
    // An announced length takes nothing.
    let mut silent = connect(http);
    let length = [background[0], background[1], ("Content-Length", "200000000")];
    silent.write_all(&head("POST", &path("f"), &length, 0)).expect("it reads");
    let answer = exchange(&mut connect(http), "POST", &path("f"), &background, b"x");
    assert_eq!(answer.expect("an answer").status, 202);
    assert!(peak(&server) < before + 16 * MIB, "{before} {}", peak(&server));
    drop(silent);
    let payload = vec![b'x'; 64 * MIB];
    let answer = submit(http, "f", &[("Prefer", "respond-async")], &payload);
    assert_eq!(answer.status, 202, "{answer:?}");
    // While it grows, a part of it is there twice.
    assert!(peak(&server) < before + 160 * MIB, "{before} {}", peak(&server));
    wait_for_jobs(&server, "f", 2);
    // Nothing counts twice or for ever: four have no room.
    let mut worker = Conn::open(server.address());
    worker.packet("CAN_DO", &[b"f"]);
    for _ in 0..2 {
        worker.packet("GRAB_JOB", &[]);
        let Ok(Item::Packet(11, body)) = worker.next() else { panic!("no job") };
        let handle = body.split(|&byte| byte == 0).next().expect("a handle").to_vec();
        worker.packet("WORK_FAIL", &[&handle]);
    }
    for n in 0..5 {
        let payload = vec![b'x'; 60 * MIB];
        let answer = submit(http, "f", &[("Prefer", "respond-async")], &payload);
        assert_eq!(answer.status, if n < 4 { 202 } else { 503 }, "{n} {answer:?}");
    }
}

/// As curl does it with a large one.
fn a_body_may_be_waited_for(contender: Contender) {
    let (server, http) = start(contender, &[]);
    let mut stream = connect(http);
    let headers =
        [OURS, ("Prefer", "respond-async"), ("Expect", "100-continue"), ("Content-Length", "2")];
    stream.write_all(&head("POST", &path("f"), &headers, 0)).expect("it reads");
    let mut first = [0; 25];
    stream.read_exact(&mut first).expect("an answer");
    assert_eq!(&first, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"ab").expect("it reads");
    assert_eq!(read_answer(&mut stream, false).expect("an answer").status, 202);
    // In chunks.
    let headers = [OURS, ("Prefer", "respond-async"), ("Transfer-Encoding", "chunked")];
    stream.write_all(&head("POST", &path("f"), &headers, 0)).expect("it reads");
    stream.write_all(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").expect("it reads");
    assert_eq!(read_answer(&mut stream, false).expect("an answer").status, 202);
    wait_for_jobs(&server, "f", 2);
    // One that ends early submits nothing.
    let headers = [OURS, ("Prefer", "respond-async"), ("Content-Length", "9")];
    stream.write_all(&head("POST", &path("f"), &headers, 0)).expect("it reads");
    stream.write_all(b"abc").expect("it reads");
    drop(stream);
    let mut worker = Conn::open(server.address());
    worker.packet("CAN_DO", &[b"f"]);
    for expected in [&b"ab"[..], b"abcde"] {
        worker.packet("GRAB_JOB", &[]);
        let Ok(Item::Packet(11, body)) = worker.next() else { panic!("no job") };
        assert!(body.ends_with(expected));
    }
    worker.packet("GRAB_JOB", &[]);
    assert!(matches!(worker.next(), Ok(Item::Packet(10, _))));
}

fn a_client_that_does_not_read_its_parts_is_ended(contender: Contender) {
    let (server, http) = start(contender, &["--outbox-max", "64k"]);
    let mut client = connect(http);
    let path = format!("{}?stream=1", path("f"));
    client.write_all(&head("POST", &path, &[OURS], 0)).expect("it reads");
    wait_for_jobs(&server, "f", 1);
    let mut worker = Conn::open(server.address());
    worker.packet("CAN_DO", &[b"f"]);
    worker.packet("GRAB_JOB", &[]);
    let Ok(Item::Packet(11, body)) = worker.next() else { panic!("no job") };
    let handle = body.split(|&byte| byte == 0).next().expect("a handle").to_vec();
    // More than the kernel keeps for a connection.
    let part = vec![b'x'; 60 << 10];
    for _ in 0..400 {
        worker.packet("WORK_DATA", &[&handle, &part]);
        if server.log().contains("has reached --outbox-max") {
            break;
        }
        worker.sync().expect("it lives");
    }
    server.wait_for_log("an HTTP client doesn't read its results", |_| Some(()));
    let mut bytes = Vec::new();
    // What had left for it comes, and no end.
    client.read_to_end(&mut bytes).ok();
    assert!(!bytes.ends_with(b"\r\n0\r\n\r\n"), "{}", bytes.len());
    // Its job isn't waited for any more.
    worker.packet("WORK_COMPLETE", &[&handle, b"late"]);
    wait_for_jobs(&server, "f", 0);
}
