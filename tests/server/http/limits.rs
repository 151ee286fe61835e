//! How much a client may ask for at a time, and how long it may take.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use super::client::{ask, connect, exchange, get, head, read_answer};
use super::start;
use crate::harness::{Contender, each_ringgear};

each_ringgear!(each_endpoint_has_its_methods_and_headers);

/// How soon a connection is closed that sends no head.
const HEAD_LIMIT: Duration = Duration::from_secs(9);

fn each_endpoint_has_its_methods_and_headers(contender: Contender) {
    let (_server, http) = start(contender, &[]);
    let mut stream = connect(http);
    for path in ["/", "/page.css", "/page.js", "/healthz", "/readyz"] {
        let answer = exchange(&mut stream, "GET", path, &[], b"").expect("an answer");
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
        let head = exchange(&mut stream, "HEAD", path, &[], b"").expect("an answer");
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        let other = exchange(&mut stream, "DELETE", path, &[], b"").expect("an answer");
        assert_eq!((other.status, &*other.code()), (405, "METHOD_NOT_ALLOWED"), "{path}");
        assert_eq!(other.header("allow"), Some("GET,HEAD"), "{path}");
        assert_eq!(other.header("x-content-type-options"), Some("nosniff"));
    }
    // Also before anything is said of a change that a page elsewhere may have sent.
    let other = exchange(&mut stream, "PUT", "/api/v1/server", &[], b"").expect("an answer");
    assert_eq!((other.status, &*other.code()), (405, "METHOD_NOT_ALLOWED"));
    let unknown = exchange(&mut stream, "GET", "/nothing?x=1", &[], b"").expect("an answer");
    assert_eq!((unknown.status, &*unknown.code()), (404, "NOT_FOUND"));
}

#[test]
fn slow_heads_are_closed_while_others_are_answered() {
    let (_server, http) = start(Contender::RinggearEpoll, &[]);
    let begun = Instant::now();
    let starts: [&[u8]; 3] = [b"", b"G", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"];
    let mut slow: Vec<_> = (0..64).map(|_| connect(http)).collect();
    for (stream, start) in slow.iter_mut().zip(starts.into_iter().cycle()) {
        stream.write_all(start).expect("the server reads");
    }
    assert_eq!(get(http, "/healthz").text(), "ok\n");
    // A byte now and then doesn't help.
    let mut drips = connect(http);
    drips.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
    for byte in std::iter::repeat_n(b"x", 30) {
        if drips.write_all(byte).is_err() {
            break;
        }
        match drips.read(&mut [0; 64]) {
            Ok(0) => break,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            _ => {}
        }
    }
    for mut stream in slow {
        // Answered with an error or not at all, and closed.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert!(begun.elapsed() < HEAD_LIMIT, "{:?}", begun.elapsed());
    assert!(begun.elapsed() > Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!(get(http, "/healthz").text(), "ok\n");
}

#[test]
fn an_idle_connection_outlives_the_limit_of_heads() {
    let (_server, http) = start(Contender::RinggearEpoll, &[]);
    let mut idle = connect(http);
    assert_eq!(exchange(&mut idle, "GET", "/healthz", &[], b"").expect("an answer").status, 200);
    let mut other = connect(http);
    other.write_all(b"GET").expect("the server reads");
    // It is closed once the limit of heads is over.
    let _ = other.read_to_end(&mut Vec::new());
    assert_eq!(exchange(&mut idle, "GET", "/healthz", &[], b"").expect("an answer").status, 200);
}

#[test]
fn heads_and_bodies_have_a_largest_size() {
    let (_server, http) = start(Contender::RinggearEpoll, &[]);
    let fits = "x".repeat(15 << 10);
    assert_eq!(ask(http, "GET", "/healthz", &[("X", &fits)], b"").status, 200);
    let long = "x".repeat(17 << 10);
    let mut stream = connect(http);
    // The server may close before it has read all.
    let _ = stream.write_all(&head("GET", "/healthz", &[("X", &long)], 0));
    let answer = read_answer(&mut stream, false);
    assert!(answer.as_ref().is_ok_and(|it| it.status == 431) || answer.is_err(), "{answer:?}");
    assert_eq!(get(http, "/healthz").status, 200);
}
