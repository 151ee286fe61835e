//! Files of TLS that change under a running server, and rules of the access list that name
//! certificates.

use std::fs;
use std::io::Read as _;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::version::TLS13;
use rustls::{AlertDescription, ClientConfig, HandshakeKind};

use super::Files;
use super::client::{Stream, alert, ask, begin, config, echo};
use crate::authority::Issued;
use crate::harness::{Contender, Server, each_ringgear, wait_until};

each_ringgear!(
    a_certificate_that_is_revoked_loses_its_connections_and_its_sessions,
    a_new_certificate_is_served_and_one_with_a_mistake_is_not,
    rules_name_certificates,
);

/// A session that has been used, so that it may be resumed.
fn open(server: &Server, config: &Arc<ClientConfig>) -> Stream {
    let mut stream = begin(server.connect(), Arc::clone(config)).expect("a session");
    echo(&mut stream).expect("a reply");
    stream
}

fn reload(server: &Server, said: &str) {
    server.signal("HUP");
    server.wait_for_log(said, |_| Some(()));
}

fn config_of(files: &Files, identity: &Issued) -> Arc<ClientConfig> {
    config(&files.authority.certificate, Some(identity), &TLS13)
}

fn a_certificate_that_is_revoked_loses_its_connections_and_its_sessions(contender: Contender) {
    let files = Files::new();
    let list = files.write("crl.pem", &files.authority.revoke(1, 2090));
    let server = files.start(contender, &["--ssl-crl-file", &list]);
    let web2 = files.authority.issue_numbered(&["web2"], 4711);
    let (of_web1, of_web2) = (config_of(&files, &files.web1), config_of(&files, &web2));
    let (mut web1, mut web2) = (open(&server, &of_web1), open(&server, &of_web2));
    for config in [&of_web1, &of_web2] {
        let resumed = open(&server, config);
        assert_eq!(resumed.conn.handshake_kind(), Some(HandshakeKind::Resumed));
    }

    let new = files.write("new", &files.authority.revoke(4711, 2090));
    fs::rename(new, list).expect("one folder");
    reload(&server, "files of TLS read");
    let ended = web2.read(&mut [0; 1]);
    assert!(!matches!(ended, Ok(1)), "its connection goes on");
    let line = server.wait_for_log("tls refused", |rest| Some(rest.to_owned()));
    assert!(line.contains("revoked") && line.contains("CN=web2"), "{line}");
    // Other cores hear of it in their next turn.
    let error = wait_until("a session of before to be refused", || {
        begin(server.connect(), of_web2.clone()).and_then(|mut stream| echo(&mut stream)).err()
    });
    assert_eq!(alert(&error), Some(AlertDescription::CertificateRevoked), "{error}");

    echo(&mut web1).expect("its connection stays");
    wait_until("a session that isn't resumed", || {
        let anew = open(&server, &of_web1);
        (anew.conn.handshake_kind() == Some(HandshakeKind::Full)).then_some(())
    });
}

fn a_new_certificate_is_served_and_one_with_a_mistake_is_not(contender: Contender) {
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

fn rules_name_certificates(contender: Contender) {
    let files = Files::new();
    let rule = "[[rule]]\nwho = { certificate = [\"cn:web1\"] }\nmay = [\"submit\"]\n";
    let list = files.write("access.toml", &format!("{rule}functions = [\"mail-*\"]\n"));
    let server = files.start(contender, &["--access-file", &list]);
    let web2 = files.authority.issue(&["web2"]);
    let submit = |identity: &Issued, function: &[u8]| {
        let mut stream = open(&server, &config_of(&files, identity));
        ask(&mut stream, "SUBMIT_JOB_BG", &[function, b"", b"x"]).expect("a reply")
    };
    let refused = |text: &str| (19, [b"PERMISSION_DENIED\0", text.as_bytes()].concat());
    assert_eq!(submit(&files.web1, b"mail-out").0, 8);
    assert_eq!(submit(&files.web1, b"billing"), refused("cn:web1 may not submit billing"));
    assert_eq!(submit(&web2, b"mail-out"), refused("cn:web2 may not submit mail-out"));
}
