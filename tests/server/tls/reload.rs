//! Files of TLS that change while the server runs: SIGHUP, open connections, resumed sessions.

use std::fs;
use std::io::Read as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};

use super::Files;
use super::client::{Stream, begin, config, echo};
use crate::authority::Issued;
use crate::conn::{Conn, Item};
use crate::harness::{Contender, Server, each_ringgear, wait_until};

each_ringgear!(
    a_revoked_certificate_ends_its_connections_and_resumes_no_session,
    a_certificate_that_is_revoked_during_its_handshake_is_refused,
    a_new_certificate_is_served_and_one_with_a_mistake_is_not,
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

/// Whether a new connection, through which an echo comes, resumes a session.
fn greet(server: &Server, config: &Arc<ClientConfig>) -> Result<bool, std::io::Error> {
    let mut stream = begin(server.connect(), Arc::clone(config))?;
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
        // Other cores hear of it in their next turn.
        wait_until("it is revoked", || greet(&server, revoked).err());
        let is_new = || !greet(&server, good).expect("it is good");
        wait_until("tickets are thrown away", || is_new().then_some(()));
        wait_until("new ones are given", || (!is_new()).then_some(()));
    }
    server.wait_for_log("client certificate is revoked", |_| Some(()));
}

/// The handshake goes on with the files that it began with, and the look at open connections passes
/// over those whose handshake is open.
fn a_certificate_that_is_revoked_during_its_handshake_is_refused(contender: Contender) {
    if !contender.is_here() {
        return;
    }
    let files = Files::new();
    let lists = files.write("lists.pem", &files.authority.revoke(1, 2095));
    let server = files.start(contender, &["--ssl-crl-file", &lists]);
    let revoked = files.authority.issue_numbered(&["web2"], NUMBER);
    let config = config_of(&files, &revoked);
    let name = "jobs.example.com".try_into().expect("a name");
    let mut tls = ClientConnection::new(config, name).expect("a configuration that fits");
    let mut socket = server.connect();
    // The server has done its part when the files change.
    while tls.is_handshaking() {
        tls.write_tls(&mut socket).expect("the server reads");
        tls.read_tls(&mut socket).expect("the server's part");
        tls.process_new_packets().expect("the server's certificate is good");
    }
    fs::write(&lists, files.authority.revoke(NUMBER, 2095)).expect("writable");
    reload(&server, "files of TLS read");
    // Other cores hear of it in their next turn, which an answer shows.
    let good = config_of(&files, &files.web1);
    wait_until("tickets of before to be thrown away", || {
        (0..6).all(|_| greet(&server, &good).is_ok()).then_some(())
    });
    let end = StreamOwned::new(tls, socket).read(&mut [0; 1]);
    assert!(!matches!(end, Ok(1..)), "it is served");
    server.wait_for_log("client certificate is revoked", |_| Some(()));
}

/// A session that has been used, so that it may be resumed.
fn open(server: &Server, config: &Arc<ClientConfig>) -> Stream {
    let mut stream = begin(server.connect(), Arc::clone(config)).expect("a session");
    echo(&mut stream).expect("a reply");
    stream
}

fn config_of(files: &Files, identity: &Issued) -> Arc<ClientConfig> {
    config(&files.authority.certificate, Some(identity), &TLS13)
}

fn a_new_certificate_is_served_and_one_with_a_mistake_is_not(contender: Contender) {
    if !contender.is_here() {
        return;
    }
    let files = Files::new();
    let server = files.start(contender, &[]);
    let config = config_of(&files, &files.web1);
    let mut before = open(&server, &config);
    let shown = |stream: &Stream| stream.conn.peer_certificates().map(<[_]>::to_vec);
    let first = shown(&before);

    files.write("server.pem", "no certificate");
    reload(&server, "TLS stays as it was: ");
    let other = files.authority.issue(&["jobs.example.com"]);
    files.write("server.pem", &other.certificate);
    reload(&server, "doesn't belong to the certificate");
    assert_eq!(shown(&open(&server, &config)), first);

    files.write("server.key", &other.key);
    reload(&server, "files of TLS read");
    let other = CertificateDer::from_pem_slice(other.certificate.as_bytes()).expect("PEM");
    // A session that was resumed would show what the one before it did.
    let config = || config_of(&files, &files.web1);
    wait_until("the new certificate to be shown", || {
        let shown = shown(&open(&server, &config()));
        (shown.as_deref() == Some(std::slice::from_ref(&other))).then_some(())
    });
    echo(&mut before).expect("its connection stays");
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
