//! Who may do what over HTTP: starts that are refused, tokens, and files that are read anew.

use std::fs;
use std::os::unix::net::UnixStream;

use super::client::{ask, exchange, get};
use super::start;
use crate::harness::{Contender, PATIENCE, Server};

/// SHA-256 of `abc`.
const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// The sentence that a server ends with at its start.
fn refusal(options: &[&str]) -> String {
    Server::launch("epoll", 0, options).wait_for_failure()
}

#[test]
fn http_that_others_can_read_along_is_refused_unless_asked_for() {
    for place in ["0.0.0.0:0", "[::]:0", "192.0.2.7:0", "[fd00::1]:0"] {
        let sentence = refusal(&["--http", place]);
        let expected = format!("HTTP on {place} can be reached and read along by other hosts:");
        assert!(sentence.starts_with(&expected), "{sentence}");
        assert!(sentence.ends_with("or say --http-insecure"), "{sentence}");
    }
    let (_server, http) = {
        let options = ["--http", "0.0.0.0:0", "--http-insecure"];
        let server = Server::start_ringgear("epoll", 0, &options);
        let address = super::address(&server);
        (server, address)
    };
    assert_eq!(get(([127, 0, 0, 1], http.port()).into(), "/healthz").text(), "ok\n");
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
    let (tokens, list, wrong) = (path("tokens"), path("access.toml"), path("wrong"));
    let socket = format!("unix:{}", path("http.sock"));
    fs::write(&tokens, format!("ops {ABC}\n")).expect("writable");
    fs::write(&wrong, "\nops secret\n").expect("writable");
    let rule = "[[rule]]\nwho = { token = [\"ops\"] }\nmay = [\"observe\"]\n";
    fs::write(&list, rule).expect("writable");
    let http = ["--http", "127.0.0.1:0"];
    let refused = |more: &[&str]| refusal(&[&http[..], more].concat());
    for (options, start) in [
        (&["--http-token-file", &*tokens][..], "--http-token-file needs --access-file"),
        (&["--access-file", &list], &format!("{list}:2: no client can show a token")),
        (
            &["--access-file", &list, "--http-token-file", &wrong],
            &format!("{wrong}:2: the word behind ops is no SHA-256"),
        ),
        (
            &["--access-file", &list, "--http-token-file", &path("none")],
            &format!("cannot read the tokens {}: ", path("none")),
        ),
        (
            &["--threads", "64"],
            "HTTP and notifications of a service manager need a thread of their own, so that",
        ),
        (&["--http", &socket, "--listen", &socket], "--listen and --http both say unix:"),
        (
            &["--http", "tls:127.0.0.1:0"],
            "cannot read the certificate /etc/ringgear/tls/server.pem",
        ),
        (&["--http", "192.0.2.7:1"], "HTTP on 192.0.2.7:1 can be reached"),
    ] {
        let sentence = refused(options);
        assert!(sentence.starts_with(start), "{options:?}: {sentence}");
    }
}

#[test]
fn one_address_has_one_protocol() {
    let (port, _socket) = crate::harness::reserve_port();
    let (all, own) = (format!("0.0.0.0:{port}"), format!("127.0.0.1:{port}"));
    let sentence = refusal(&["--listen", &all, "--http", &own]);
    let expected = format!("\"{own}\" leads to {own}, where the server listens already");
    assert!(sentence.starts_with(&expected), "{sentence}");
    let sentence = refusal(&["--listen", &own, "--http", &own]);
    assert!(sentence.starts_with("--listen and --http both say "), "{sentence}");
    // Sentences about sockets name the option that helps.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let own = taken.local_addr().expect("its address").to_string();
    let sentence = refusal(&["--http", &own]);
    assert!(sentence.starts_with(&format!("cannot listen on {own}: the port")), "{sentence}");
    assert!(sentence.ends_with("choose another port with --http"), "{sentence}");
}

#[test]
fn options_for_http_without_http_have_a_line() {
    let options = ["--http-host", "a.example", "--http-insecure", "--ready-without-store"];
    let server = Server::start_with(Contender::RinggearEpoll, &options).expect("its own");
    for name in ["http-host", "http-insecure", "ready-without-store"] {
        let line = format!("--{name} has no effect: there is no HTTP without --http HOST:PORT");
        server.wait_for_log(&line, |_| Some(()));
    }
}

#[test]
fn a_unix_socket_is_served_and_gone_at_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("http.sock");
    let option = format!("unix:{}", path.display());
    let options = ["--http", &option, "--unix-mode", "0600"];
    let server = Server::start_with(Contender::RinggearEpoll, &options).expect("its own");
    server.wait_for_log(&format!("HTTP on {option}"), |_| Some(()));
    let mut stream = UnixStream::connect(&path).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let answer = exchange(&mut stream, "GET", "/healthz", &[], b"").expect("an answer");
    assert_eq!(answer.text(), "ok\n");
    server.stop();
    assert!(!path.exists());
}

#[test]
fn tokens_are_read_anew_and_a_file_with_a_mistake_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
    let (tokens, list) = (path("tokens"), path("access.toml"));
    let rule = |who: &str, right: &str| {
        format!("[[rule]]\nwho = {{ token = [\"{who}\"] }}\nmay = [\"{right}\"]\n")
    };
    let rules = [rule("ops", "observe"), rule("deploy", "admin")].concat();
    fs::write(&list, rules).expect("writable");
    fs::write(&tokens, format!("ops {ABC}\n")).expect("writable");
    let options = ["--access-file", &list, "--http-token-file", &tokens];
    let (server, http) = start(Contender::RinggearEpoll, &options);
    fs::write(&tokens, "ops\n").expect("writable");
    server.signal("HUP");
    let mistake = format!("the file of tokens stays as it was: {tokens}:1: a line has a name");
    server.wait_for_log(&mistake, |_| Some(()));
    fs::write(&tokens, format!("ops {ABC}\ndeploy {}\n", "0".repeat(64))).expect("writable");
    server.signal("HUP");
    server.wait_for_log("tokens read tokens=2", |_| Some(()));
    server.wait_for_log("access list read", |_| Some(()));
    assert_eq!(get(http, "/healthz").text(), "ok\n");
    let path = "/api/v1/functions/f/maxqueue";
    let limit = br#"{"high":1,"normal":1,"low":1}"#;
    let own = ("X-Ringgear", "1");
    for (shown, observe, admin) in [
        (None, 403, 403),
        (Some("Bearer abc"), 200, 403),
        (Some("Bearer xyz"), 401, 401),
        (Some("Basic abc"), 401, 401),
    ] {
        let token: Vec<_> = shown.map(|shown| ("Authorization", shown)).into_iter().collect();
        let answer = ask(http, "GET", "/api/v1/server", &token, b"");
        assert_eq!(answer.status, observe, "{shown:?}: {answer:?}");
        assert_eq!(answer.header("www-authenticate").is_some(), observe == 401);
        let answer = ask(http, "PUT", path, &[&token[..], &[own]].concat(), limit);
        assert_eq!(answer.status, admin, "{shown:?}: {answer:?}");
        if admin == 403 {
            assert_eq!(answer.code(), "PERMISSION_DENIED");
            assert!(answer.text().contains(" may not admin f"), "{answer:?}");
        }
        // What a page elsewhere may have sent is refused before anything is asked of the list.
        let site = [&token[..], &[own, ("Sec-Fetch-Site", "cross-site")]].concat();
        for headers in [&token, &site] {
            let answer = ask(http, "PUT", path, headers, limit);
            assert_eq!((answer.status, &*answer.code()), (403, "CROSS_SITE"));
        }
    }
    server.wait_for_log("access refused: ringgeard --access-check tells", |_| Some(()));
}
