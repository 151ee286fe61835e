//! Requests that aren't meant for this server, or that a page elsewhere may have sent.

use super::client::{ask, connect, read_answer};
use super::start;
use crate::harness::{Contender, each_ringgear};

each_ringgear!(requests_for_other_hosts_are_refused);

fn requests_for_other_hosts_are_refused(contender: Contender) {
    let (_server, http) = start(contender, &["--http-host", "jobs.example.com"]);
    for (host, status) in [
        ("127.0.0.1", 200),
        ("10.1.2.3:4780", 200),
        ("[::1]:4780", 200),
        ("LOCALHOST", 200),
        ("Jobs.Example.Com:1", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("", 421),
    ] {
        for path in ["/healthz", "/readyz", "/", "/page.js"] {
            let answer = ask(http, "GET", path, &[("Host", host)], b"");
            assert_eq!(answer.status, status, "{host} {path}: {answer:?}");
            if status == 421 {
                assert_eq!(answer.code(), "MISDIRECTED");
                assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
            }
        }
    }
    let twice = ask(http, "GET", "/healthz", &[("Host", "127.0.0.1"), ("Host", "127.0.0.1")], b"");
    assert_eq!((twice.status, &*twice.code()), (400, "BAD_HOST"));
    let mut stream = connect(http);
    std::io::Write::write_all(&mut stream, b"GET /healthz HTTP/1.1\r\n\r\n").expect("it reads");
    let none = read_answer(&mut stream, false).expect("an answer");
    assert_eq!(none.status, 400);
}
