//! TLS on a listener of HTTP, with clients' certificates and without; and what the peer of the
//! wrong kind sees.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::version::{TLS12, TLS13};

use super::address;
use super::client::{connect, exchange, get};
use crate::authority::Issued;
use crate::harness::{Contender, Server};
use crate::tls::Files;
use crate::tls::client::{Stream, begin, config};

/// Clients without a certificate are let in if there are tokens, whatever is asked of others.
const ASKING: [(&str, bool, bool); 4] = [
    ("off", false, true),
    ("optional", false, true),
    ("required", false, false),
    ("required", true, true),
];
/// SHA-256 of `abc`.
const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// A server with TLS on its listener for HTTP alone.
fn start(files: &Files, more: &[&str]) -> (Server, SocketAddr) {
    let [certificate, key] = ["server.pem", "server.key"].map(|file| files.path(file));
    let options = ["--http", "tls:127.0.0.1:0", "--ssl-certificate", &certificate, "--ssl-key"];
    let options = [&options[..], &[&key], more].concat();
    let server = Server::start_with(Contender::RinggearEpoll, &options).expect("its own");
    let address = address(&server);
    (server, address)
}

fn open(files: &Files, http: SocketAddr, shown: Option<&Issued>) -> Result<Stream, std::io::Error> {
    let mut last = None;
    for version in [&TLS12, &TLS13] {
        let mut config = config(&files.authority.certificate, shown, version);
        let with_protocol = Arc::get_mut(&mut config).expect("not shared yet");
        with_protocol.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut stream = begin(connect(http), config)?;
        let answer = exchange(&mut stream, "GET", "/healthz", &[], b"")?;
        assert_eq!((answer.status, &*answer.text()), (200, "ok\n"));
        assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        last = Some(stream);
    }
    Ok(last.expect("two versions"))
}

#[test]
fn clients_show_certificates_as_the_options_say() {
    let files = Files::new();
    let (list, tokens) = (
        files.write("access.toml", "[[rule]]\nwho = {}\nmay = [\"observe\"]\n"),
        files.write("tokens", &format!("ops {ABC}\n")),
    );
    let ca = files.path("ca.pem");
    for (asking, has_tokens, takes_all) in ASKING {
        let mut more = vec!["--ssl-client-certificates", asking, "--access-file", &list];
        if asking != "off" {
            more.extend(["--ssl-ca-file", &ca]);
        }
        if has_tokens {
            more.extend(["--http-token-file", &tokens]);
        }
        let (server, http) = start(&files, &more);
        open(&files, http, Some(&files.web1)).expect("it is trusted");
        assert_eq!(open(&files, http, None).is_ok(), takes_all, "{asking} {has_tokens}");
        if asking != "off" {
            let foreign = crate::authority::Authority::new().issue_for(&["web1"], &[]);
            assert!(open(&files, http, Some(&foreign)).is_err(), "{asking}: nobody knows it");
            server.wait_for_log("tls refused by HTTP peer=127.0.0.1", |_| Some(()));
        }
        // Gearman's own listener speaks without TLS.
        assert!(server.admin("version").starts_with("OK"));
        server.stop();
    }
}

#[test]
fn the_wrong_kind_of_peer_is_closed_with_a_line() {
    let files = Files::new();
    let (server, http) = start(&files, &[]);
    let mut plain = connect(http);
    plain.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it reads");
    assert_eq!(plain.read_to_end(&mut Vec::new()).unwrap_or(0), 0, "no answer");
    server.wait_for_log("the peer speaks without TLS", |_| Some(()));
    let (server, http) = super::start(Contender::RinggearEpoll, &[]);
    assert!(open(&files, http, None).is_err());
    server.wait_for_log("the peer speaks TLS to a listener without", |_| Some(()));
    assert_eq!(get(http, "/healthz").text(), "ok\n");
}

#[test]
fn a_handshake_that_takes_too_long_is_closed() {
    let files = Files::new();
    let (server, http) = start(&files, &["--ssl-handshake-timeout", "200"]);
    let mut slow = connect(http);
    slow.write_all(&[0x16, 3, 1]).expect("the server reads");
    assert_eq!(slow.read_to_end(&mut Vec::new()).unwrap_or(0), 0);
    server.wait_for_log("the handshake took too long", |_| Some(()));
    open(&files, http, None).expect("others are served");
}

#[test]
fn files_read_anew_hold_for_open_connections() {
    let files = Files::new();
    let lists = files.write("lists.pem", &files.authority.revoke(1, 2095));
    let revoked = files.authority.issue_numbered(&["web2"], 77);
    let ca = files.path("ca.pem");
    let asking = ["--ssl-client-certificates", "required", "--ssl-ca-file", &ca];
    let (server, http) = start(&files, &[&asking[..], &["--ssl-crl-file", &lists]].concat());
    let mut ended = open(&files, http, Some(&revoked)).expect("it is good so far");
    let mut kept = open(&files, http, Some(&files.web1)).expect("it is good");
    fs::write(&lists, files.authority.revoke(77, 2095)).expect("writable");
    server.signal("HUP");
    server.wait_for_log("files of TLS read", |_| Some(()));
    let end = ended.read(&mut [0; 8]);
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    assert!(open(&files, http, Some(&revoked)).is_err());
    let answer = exchange(&mut kept, "GET", "/healthz", &[], b"").expect("it is served on");
    assert_eq!(answer.text(), "ok\n");
}
