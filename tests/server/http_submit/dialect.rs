//! gearmand's dialect: the same requests to both servers, where gearmand is right.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;

use super::{jobs, wait_for_jobs, worker};
use crate::harness::{Contender, Server, each_contender, each_ringgear, wait_until};
use crate::http::client::{Answer, connect, exchange, read_answer};

each_contender!(requests_that_gearmand_answers_rightly);
each_ringgear!(what_gearmand_answers_wrongly, connections_stay_unless_told_otherwise);

/// A server that speaks it, and where.
fn start(contender: Contender) -> Option<(Server, SocketAddr)> {
    if contender.is_ringgear() {
        let server = Server::start_with(contender, &["-r", "http", "--http-port", "0"])?;
        let address = server.wait_for_log("gearmand's HTTP on 127.0.0.1:", |port| {
            let port: u16 = port.split_whitespace().next()?.parse().ok()?;
            Some(SocketAddr::from(([127, 0, 0, 1], port)))
        });
        // Before the cores are there it answers, too.
        wait_until("readiness", || {
            let answer = ask(address, "POST /ready HTTP/1.0", &["X-Gearman-Background: true"], "");
            (answer.status == 200).then_some(())
        });
        return Some((server, address));
    }
    let port = fastrand::u16(10_000..30_000);
    let server = Server::start_gearmand(&["-r", "http", "--http-port", &port.to_string()], &[])?;
    Some((server, ([127, 0, 0, 1], port).into()))
}

/// One request, as an old client sends it.
fn ask(address: SocketAddr, first: &str, headers: &[&str], body: &str) -> Answer {
    let mut stream = connect(address);
    let mut text = format!("{first}\r\n");
    for header in headers {
        text.push_str(&format!("{header}\r\n"));
    }
    let length = body.len();
    text.push_str(&format!("Content-Length: {length}\r\n\r\n{body}"));
    stream.write_all(text.as_bytes()).expect("it reads");
    read_answer(&mut stream, first.starts_with("HEAD")).expect("an answer")
}

fn requests_that_gearmand_answers_rightly(contender: Contender) {
    let Some((server, http)) = start(contender) else { return };
    worker::start(server.address());
    for (first, body, expected) in [
        ("POST /reverse HTTP/1.0", "hello", "olleh"),
        ("POST /reverse HTTP/1.1", "hello", "olleh"),
        ("PUT ///reverse HTTP/1.0", "ab", "ba"),
        ("GET /reverse HTTP/1.0", "", ""),
    ] {
        let answer = ask(http, first, &[], body);
        assert_eq!((answer.status, answer.text().as_str()), (200, expected), "{first}");
        assert_eq!(answer.header("x-gearman-command"), Some("WORK_COMPLETE"));
        assert!(answer.header("x-gearman-job-handle").is_some_and(|it| it.starts_with("H:")));
        assert!(answer.header("server").is_some_and(|it| it.starts_with("Gearman/")));
        assert_eq!(answer.header("content-type"), None);
    }
    let background = "X-Gearman-Background: true";
    let submit = |path: &str, headers: &[&str], body: &str| {
        let headers = [&[background], headers].concat();
        let answer = ask(http, &format!("POST {path} HTTP/1.0"), &headers, body);
        assert_eq!((answer.status, answer.text().as_str()), (200, ""), "{answer:?}");
        assert_eq!(answer.header("x-gearman-command"), Some("JOB_CREATED"));
        answer.header("x-gearman-job-handle").expect("a handle").to_owned()
    };
    // The payload is the key, unless there is another.
    let first = submit("/bg?a=%20", &[], "x");
    assert_eq!(submit("/bg?a=%20", &["X-Gearman-Priority: high"], "x"), first);
    assert_ne!(submit("/bg?a=%20", &[], "y"), first);
    assert_ne!(submit("/bg?a=%20", &["X-Gearman-Unique: k"], "x"), first);
    assert_eq!(jobs(&server, "bg?a=%20"), Some((3, 0)));
    assert_eq!(ask(http, "POST / HTTP/1.0", &[], "x").status, 404);
}

fn what_gearmand_answers_wrongly(contender: Contender) {
    let Some((server, http)) = start(contender) else { return };
    worker::start(server.address());
    for (function, code) in [("fail", "WORK_FAIL"), ("throw", "WORK_EXCEPTION")] {
        let answer = ask(http, &format!("POST /{function} HTTP/1.0"), &[], "x");
        assert_eq!((answer.status, answer.code().as_str()), (502, code));
        assert_eq!(answer.header("x-gearman-command"), Some(code));
        assert!(answer.header("x-gearman-job-handle").is_some_and(|it| it.starts_with("H:")));
    }
    let background = "X-Gearman-Background: true";
    assert_eq!(ask(http, "POST /full HTTP/1.0", &[background], "1").status, 200);
    assert_eq!(server.admin("maxqueue full 1"), "OK\n");
    assert_eq!(ask(http, "POST /full HTTP/1.0", &[background], "2").status, 429);
    let long = format!("X-Gearman-Unique: {}", "k".repeat(65));
    assert_eq!(ask(http, "POST /f HTTP/1.0", &[&long], "x").status, 400);
    let answer = ask(http, "DELETE /f HTTP/1.1", &["Host: h"], "");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST, PUT, GET, HEAD")));
    for header in ["Origin: http://evil.example", "Sec-Fetch-Site: cross-site"] {
        let answer = ask(http, "POST /f HTTP/1.1", &[header], "x");
        assert_eq!((answer.status, answer.code().as_str()), (403, "CROSS_SITE"));
    }
    assert_eq!(jobs(&server, "f"), None, "nothing was submitted");
    // A client that leaves takes its job along.
    let mut client = connect(http);
    client.write_all(b"GET /f HTTP/1.0\r\n\r\n").expect("it reads");
    wait_for_jobs(&server, "f", 1);
    drop(client);
    wait_for_jobs(&server, "f", 0);
}

fn connections_stay_unless_told_otherwise(contender: Contender) {
    let Some((server, http)) = start(contender) else { return };
    worker::start(server.address());
    let mut stream = connect(http);
    for headers in [&[][..], &[], &[("Connection", "close")]] {
        let answer = exchange(&mut stream, "POST", "/reverse", headers, b"ab");
        assert_eq!(answer.expect("an answer").text(), "ba");
    }
    assert_eq!(stream.read(&mut [0; 1]).expect("its end"), 0);
}
