//! What a refused peer sees and what the log says of it: a table of certificates for both versions
//! of TLS, and one of bytes that are no TLS, or not soon enough.
//!
//! Each attempt comes from an address of its own, by which its line in the log is found, and which
//! the log's throttle counts for itself.

use std::io::{ErrorKind, Read, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::Arc;

use rcgen::ExtendedKeyUsagePurpose::ServerAuth;
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription as Alert, ClientConnection, SupportedProtocolVersion};

use super::Files;
use super::client::{alert, begin, config, connect_from, echo};
use crate::authority::{Authority, Issued, first_version};
use crate::conn::{named, response};
use crate::harness::{Contender, Server, each_ringgear, tool};
use crate::tools::run;

each_ringgear!(
    each_bad_certificate_has_its_alert_and_its_line_in_the_log,
    certificates_of_revocation_lists_are_refused,
    what_is_no_tls_is_answered_in_its_own_words,
    a_handshake_byte_by_byte_succeeds_and_one_that_stops_is_ended,
);

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A peer that is refused.
struct Case<'a> {
    identity: Option<&'a Issued>,
    /// Its alerts in TLS 1.2 and 1.3.
    alerts: [Alert; 2],
    /// Parts of its line in the log.
    logged: [&'a str; 2],
}

/// Tries all cases in both versions.
fn try_cases(server: &Server, files: &Files, cases: &[Case<'_>]) {
    let attempts =
        cases.iter().flat_map(|case| VERSIONS.into_iter().zip(case.alerts).zip([case; 2]));
    for (((version, expected), case), host) in attempts.zip(10_u8..) {
        let what = format!("{:?} in {version:?}", case.logged);
        let from = Ipv4Addr::new(127, 0, 0, host);
        let config = config(&files.authority.certificate, case.identity, version);
        let stream = connect_from(from, server.address());
        let error = begin(stream, config).and_then(|mut stream| echo(&mut stream));
        let error = error.expect_err(&what);
        assert_eq!(alert(&error), Some(expected), "{what}: {error}");
        let line = refusal(server, from);
        assert!(case.logged.iter().all(|part| line.contains(part)), "{what}: {line}");
    }
    // A good one is served all the same.
    let config = config(&files.authority.certificate, Some(&files.web1), &TLS13);
    begin(server.connect(), config).and_then(|mut stream| echo(&mut stream)).expect("a reply");
}

/// What follows `tls refused` in the log about a peer.
fn refusal(server: &Server, from: Ipv4Addr) -> String {
    let peer = format!("peer={from}:");
    let of_it = |rest: &str| rest.contains(&peer).then(|| rest.trim_end().to_owned());
    server.wait_for_log("tls refused", of_it)
}

fn each_bad_certificate_has_its_alert_and_its_line_in_the_log(contender: Contender) {
    let files = Files::new();
    let server = files.start(contender, &[]);
    let foreign = Authority::new().issue(&["web1"]);
    let expired = files.authority.issue_expired(&["web1"]);
    let early = files.authority.issue_early(&["web1"]);
    let servers = files.authority.issue_for(&["web1"], &[ServerAuth]);
    let first = first_version();
    let cases = [
        Case {
            identity: None,
            alerts: [Alert::CertificateRequired; 2],
            logged: ["has shown no certificate", "remedy="],
        },
        Case {
            identity: Some(&foreign),
            alerts: [Alert::UnknownCA; 2],
            logged: ["isn't in --ssl-ca-file", "CN=web1"],
        },
        Case {
            identity: Some(&expired),
            alerts: [Alert::CertificateExpired; 2],
            logged: ["client certificate expired 2021-01-01", "CN=web1"],
        },
        Case {
            identity: Some(&early),
            alerts: [Alert::CertificateExpired; 2],
            logged: ["isn't valid before 2095-01-01", "CN=web1"],
        },
        Case {
            identity: Some(&servers),
            alerts: [Alert::UnsupportedCertificate; 2],
            logged: ["isn't for clients", "CN=web1"],
        },
        Case {
            identity: Some(&first),
            alerts: [Alert::CertificateUnknown; 2],
            logged: ["version 1", "remedy="],
        },
    ];
    try_cases(&server, &files, &cases);
}

fn certificates_of_revocation_lists_are_refused(contender: Contender) {
    let files = Files::new();
    let revoked = files.authority.issue_numbered(&["web2"], 4711);
    let list = files.write("crl.pem", &files.authority.revoke(4711, 2090));
    let server = files.start(contender, &["--ssl-crl-file", &list]);
    let case = Case {
        identity: Some(&revoked),
        alerts: [Alert::CertificateRevoked; 2],
        logged: ["revoked", "CN=web2"],
    };
    try_cases(&server, &files, &[case]);

    // With a list whose time is over it isn't known any more which are revoked.
    let old = files.write("old.pem", &files.authority.revoke(4711, 2022));
    let server = files.start(contender, &["--ssl-crl-file", &old]);
    for (version, host) in VERSIONS.into_iter().zip(10..) {
        let from = Ipv4Addr::new(127, 0, 0, host);
        let config = config(&files.authority.certificate, Some(&files.web1), version);
        let stream = connect_from(from, server.address());
        let error = begin(stream, config).and_then(|mut stream| echo(&mut stream));
        assert!(alert(&error.expect_err("refused")).is_some());
        let line = refusal(&server, from);
        assert!(
            line.contains("revocation list expired 2022-01-01") && line.contains("SIGHUP"),
            "{line}"
        );
    }
}

/// All that comes until the end of a connection.
fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        // It was closed while more was on its way.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the server doesn't close: {error}"),
    }
    bytes
}

/// A ClientHello of TLS 1.1 with one cipher suite.
fn hello_of_1_1() -> Vec<u8> {
    let mut body = vec![3, 2];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0xc0, 0x13, 1, 0]);
    let mut message = vec![1, 0, 0, u8::try_from(body.len()).expect("a short one")];
    message.extend(body);
    let mut record = vec![22, 3, 1, 0, u8::try_from(message.len()).expect("a short one")];
    record.extend(message);
    record
}

fn what_is_no_tls_is_answered_in_its_own_words(contender: Contender) {
    let files = Files::new();
    let server = files.start(contender, &[]);
    let packet = named("ECHO_REQ", &[b"hello"]);
    let text = b"this port speaks TLS only; the client library may be built without TLS";
    let error = response(19, &[b"TLS_REQUIRED\0", &text[..]].concat());
    let line = b"ERR TLS_REQUIRED this+port+speaks+TLS+only\r\n";
    let random: Vec<u8> = (0..200).map(|_| fastrand::u8(0x80..)).collect();
    // What is sent, what comes back, and what the log says.
    let cases: [(&[u8], &[u8], &str); 5] = [
        (&packet, &error, "without TLS"),
        (b"status\n", line, "without TLS"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", line, "without TLS"),
        (&random, b"\x15\x03", "bytes are refused"),
        (&hello_of_1_1(), b"\x15\x03", "TLS 1.2 or 1.3"),
    ];
    for ((sent, expected, logged), host) in cases.into_iter().zip(10..) {
        let from = Ipv4Addr::new(127, 0, 0, host);
        let mut stream = connect_from(from, server.address());
        stream.write_all(sent).expect("the server reads");
        let got = rest(&mut stream);
        let what = format!("{} to {}", got.escape_ascii(), sent.escape_ascii());
        let is_alert = expected.starts_with(b"\x15");
        assert!(got.starts_with(expected) && (is_alert || got == expected), "{what}");
        let line = refusal(&server, from);
        assert!(line.contains(logged), "{what}: {line}");
    }
}

/// No version that both have: with a server from 1.3 on.
#[test]
fn a_version_that_is_too_low_is_refused() {
    let files = Files::new();
    let server = files.start(Contender::RinggearEpoll, &["--ssl-min-version", "1.3"]);
    let config = |version| config(&files.authority.certificate, Some(&files.web1), version);
    let error = begin(server.connect(), config(&TLS12)).expect_err("1.2");
    assert_eq!(alert(&error), Some(Alert::ProtocolVersion), "{error}");
    begin(server.connect(), config(&TLS13)).and_then(|mut s| echo(&mut s)).expect("a reply");
}

/// The first bytes of a session.
fn hello(files: &Files) -> (ClientConnection, Vec<u8>) {
    let config = config(&files.authority.certificate, Some(&files.web1), &TLS13);
    let name = "jobs.example.com".try_into().expect("a name");
    let mut session = ClientConnection::new(Arc::clone(&config), name).expect("a session");
    let mut bytes = Vec::new();
    session.write_tls(&mut bytes).expect("memory");
    (session, bytes)
}

fn a_handshake_byte_by_byte_succeeds_and_one_that_stops_is_ended(contender: Contender) {
    let files = Files::new();
    let server = files.start(contender, &["--ssl-handshake-timeout", "500"]);
    let (_, bytes) = hello(&files);
    // Ends at the deadline: after nothing, after a byte, before the last byte.
    for (sent, host) in [0, 1, bytes.len() - 1].into_iter().zip(10..) {
        let from = Ipv4Addr::new(127, 0, 0, host);
        let mut stream = connect_from(from, server.address());
        stream.write_all(&bytes[..sent]).expect("the server reads");
        rest(&mut stream);
        assert!(refusal(&server, from).contains("took too long"));
    }

    let server = files.start(contender, &[]);
    let (session, bytes) = hello(&files);
    let mut stream = server.connect();
    for byte in bytes {
        stream.write_all(&[byte]).expect("the server reads");
    }
    let mut stream = rustls::StreamOwned::new(session, stream);
    echo(&mut stream).expect("a reply");
    stream.sock.shutdown(Shutdown::Both).expect("it is open");
}

/// Debian's libgearman takes `-S` and sends plain text.
#[test]
fn debians_gearman_prints_that_the_port_speaks_tls_only() {
    if tool("gearman").is_none() {
        return;
    }
    let files = Files::new();
    let server = files.start(Contender::RinggearEpoll, &[]);
    let port = server.port().to_string();
    let words = ["-S", "-h", "127.0.0.1", "-p", &port, "-f", "reverse", "hello"];
    let finished = run("gearman", &words, b"");
    let said = format!("{}{}", finished.stdout, finished.stderr);
    assert!(said.contains("TLS_REQUIRED") && said.contains("speaks TLS only"), "{finished:?}");
}
