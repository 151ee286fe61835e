//! Files of TLS that change while the server runs: SIGHUP, open connections, resumed sessions.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind};

use super::Files;
use super::client::{begin, config, connect_from, echo};
use crate::conn::{Conn, Item};
use crate::harness::{Contender, Server, each_ringgear, wait_until};

each_ringgear!(
    a_revoked_certificate_ends_its_connections_and_resumes_no_session,
    files_with_a_mistake_change_nothing,
    a_new_certificate_is_shown_to_new_connections,
    sessions_are_resumed_on_every_core,
);

/// The number of the certificate that is revoked.
const NUMBER: u64 = 77;
/// Connections that come one after the other.
const CONNECTIONS: usize = 100;

fn reload(server: &Server, said: &str) {
    server.signal("HUP");
    server.wait_for_log(said, |_| Some(()));
}

/// Whether an echo comes through a new connection by which session.
fn greet(server: &Server, config: &Arc<ClientConfig>) -> Result<bool, std::io::Error> {
    let from = std::net::Ipv4Addr::LOCALHOST;
    let mut stream = begin(connect_from(from, server.address()), Arc::clone(config))?;
    echo(&mut stream)?;
    Ok(stream.conn.handshake_kind() == Some(HandshakeKind::Resumed))
}

/// A certificate that is revoked must not go on working over connections, or sessions, from before:
/// libraries verify neither again.
fn a_revoked_certificate_ends_its_connections_and_resumes_no_session(contender: Contender) {
    if !contender.is_here() {
        return;
    }
    let files = Files::new();
    let lists = files.write("lists.pem", &files.authority.revoke(1, 2095));
    let server = files.start(contender, &["--ssl-crl-file", &lists]);
    let revoked = files.authority.issue_numbered(&["web2"], NUMBER);
    let configs = [&TLS12, &TLS13].map(|version| {
        let config = |identity| config(&files.authority.certificate, Some(identity), version);
        (config(&revoked), config(&files.web1))
    });
    let open = |config: &Arc<ClientConfig>| {
        let mut conn = Conn::open_tls(server.address(), Arc::clone(config), "jobs.example.com");
        conn.sync().expect("it is served");
        conn
    };
    let [mut ended, mut kept] = [Vec::new(), Vec::new()];
    for (revoked, good) in &configs {
        // Enough for connections on every core.
        ended.extend((0..6).map(|_| open(revoked)));
        kept.extend((0..6).map(|_| open(good)));
        assert!(greet(&server, revoked).expect("it is good so far"), "its session is resumed");
    }
    fs::write(&lists, files.authority.revoke(NUMBER, 2095)).expect("writable");
    let start = Instant::now();
    reload(&server, "files of TLS read");
    for conn in &mut ended {
        assert_eq!(conn.next().ok(), Some(Item::End));
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    for conn in &mut kept {
        conn.sync().expect("it is served on");
    }
    for (revoked, good) in &configs {
        greet(&server, revoked).expect_err("it is revoked");
        assert!(!greet(&server, good).expect("it is good"), "tickets are thrown away");
        assert!(greet(&server, good).expect("it is good"), "and new ones given");
    }
    server.wait_for_log("client certificate is revoked", |_| Some(()));
}

fn files_with_a_mistake_change_nothing(contender: Contender) {
    if !contender.is_here() {
        return;
    }
    let files = Files::new();
    let server = files.start(contender, &[]);
    let config = config(&files.authority.certificate, Some(&files.web1), &TLS13);
    greet(&server, &config).expect("it is served");
    let key = fs::read_to_string(files.path("server.key")).expect("it is there");
    for (text, sentence) in
        [("", "has no private key"), (&*files.web1.key, "doesn't belong to the certificate")]
    {
        files.write("server.key", text);
        reload(&server, sentence);
        assert!(server.log().contains("TLS stays as it was: "), "{}", server.log());
        assert!(greet(&server, &config).expect("the old files hold"), "and sessions, too");
    }
    files.write("server.key", &key);
    reload(&server, "files of TLS read");
    assert!(greet(&server, &config).expect("it is served"), "the same files trust as before");
}

fn a_new_certificate_is_shown_to_new_connections(contender: Contender) {
    if !contender.is_here() {
        return;
    }
    let files = Files::new();
    let server = files.start(contender, &[]);
    // None is resumed, as that would show what the one before it did.
    let open = || {
        let config = config(&files.authority.certificate, Some(&files.web1), &TLS13);
        begin(server.connect(), config).expect("a session")
    };
    let mut before = open();
    let new = files.authority.issue(&["jobs.example.com"]);
    files.write("server.pem", &new.certificate);
    files.write("server.key", &new.key);
    reload(&server, "files of TLS read");
    let new = CertificateDer::from_pem_slice(new.certificate.as_bytes()).expect("PEM");
    wait_until("the new certificate to be shown", || {
        (open().conn.peer_certificates()?.first() == Some(&new)).then_some(())
    });
    echo(&mut before).expect("it is served on");
}

fn sessions_are_resumed_on_every_core(contender: Contender) {
    if !contender.is_here() {
        return;
    }
    let files = Files::new();
    let server = files.start(contender, &[]);
    for version in [&TLS12, &TLS13] {
        let config = config(&files.authority.certificate, Some(&files.web1), version);
        let resumed = (0..CONNECTIONS).filter(|_| greet(&server, &config).expect("it is served"));
        assert!(resumed.count() >= CONNECTIONS - 1, "all but the first");
    }
}
