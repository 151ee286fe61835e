//! The access list and certificates: what each kind of name opens, on one core and several.

use std::fs;
use std::sync::Arc;

use rcgen::ExtendedKeyUsagePurpose::ClientAuth;
use rustls::version::{TLS12, TLS13};

use super::Files;
use super::client::config;
use crate::authority::Issued;
use crate::conn::{Conn, Item};
use crate::harness::{Contender, each_ringgear};

each_ringgear!(
    each_name_of_a_certificate_opens_what_its_rule_says,
    a_listener_with_tls_has_rules_of_its_own,
);

/// Whether a connection may submit to the function.
fn may_submit(conn: &mut Conn, function: &[u8], name: &str) -> bool {
    conn.packet("SUBMIT_JOB_BG", &[function, b"", b"x"]);
    match conn.next() {
        Ok(Item::Packet(8, _)) => true,
        Ok(Item::Packet(19, body)) => {
            let function = function.escape_ascii();
            let text = format!("PERMISSION_DENIED\0{name} may not submit {function}");
            assert_eq!(body.escape_ascii().to_string(), text.as_bytes().escape_ascii().to_string());
            false
        }
        other => panic!("{other:?}"),
    }
}

fn each_name_of_a_certificate_opens_what_its_rule_says(contender: Contender) {
    if !contender.is_here() {
        return;
    }
    let files = Files::new();
    let other = files.authority.issue_for(&["web9"], &[ClientAuth]);
    let sha256 = fingerprint(&files.web1);
    let foreign = fingerprint(&other);
    // A rule, and whether web1 may.
    let rules = [
        ("cn:web1".to_owned(), true),
        ("cn:web?".to_owned(), true),
        ("cn:db*".to_owned(), false),
        ("dns:web1".to_owned(), true),
        ("dns:*.example.com".to_owned(), false),
        ("uri:spiffe://*".to_owned(), false),
        (format!("sha256:{sha256}"), true),
        (format!("sha256:{foreign}"), false),
    ];
    let mut list = String::new();
    for (at, (rule, _)) in rules.iter().enumerate() {
        list += &format!(
            "[[rule]]\nwho = {{ certificate = [\"{rule}\"], network = [\"127.0.0.0/8\"] }}\n\
             may = [\"submit\"]\nfunctions = [\"f{at}\"]\n"
        );
    }
    let path = files.write("access.toml", &list);
    let server = files.start(contender, &["--access-file", &path]);
    for version in [&TLS12, &TLS13] {
        let config = config(&files.authority.certificate, Some(&files.web1), version);
        let mut conn = Conn::open_tls(server.address(), config, "jobs.example.com");
        for (at, (rule, expected)) in rules.iter().enumerate() {
            let function = format!("f{at}");
            let may = may_submit(&mut conn, function.as_bytes(), "cn:web1");
            assert_eq!(may, *expected, "{rule}");
        }
    }
    server.wait_for_log("who=\"cn:web1\"", |_| Some(()));
}

/// SHA-256 of a certificate, as `openssl x509 -fingerprint -sha256` prints it.
fn fingerprint(issued: &Issued) -> String {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let der = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).expect("PEM");
    let certificate = ringgear::protocol::access::Certificate::read(&der);
    certificate.sha256.expect("it has one").to_string()
}

fn a_listener_with_tls_has_rules_of_its_own(contender: Contender) {
    if !contender.is_here() {
        return;
    }
    let files = Files::new();
    let list = "[[rule]]\nwho = { listener = [\"tls:127.0.0.1:0\"] }\nmay = [\"submit\"]\n\
                [[rule]]\nwho = {}\nmay = [\"observe\"]\n";
    let path = files.write("access.toml", list);
    let (server, tls_address) = files.start_beside_plain(contender, &["--access-file", &path]);
    let config = config(&files.authority.certificate, Some(&files.web1), &TLS13);
    let mut by_tls = Conn::open_tls(tls_address, Arc::clone(&config), "jobs.example.com");
    let mut plain = Conn::open(server.address());
    assert!(may_submit(&mut by_tls, b"f", "cn:web1"));
    assert!(!may_submit(&mut plain, b"f", "127.0.0.1"));
    // Another list counts for connections that are open, by what is known of their peers.
    let other = list.replace("listener = [\"tls:127.0.0.1:0\"]", "certificate = [\"cn:db1\"]");
    fs::write(&path, other).expect("writable");
    server.signal("HUP");
    server.wait_for_log("access list read", |_| Some(()));
    while may_submit(&mut by_tls, b"f", "cn:web1") {}
}
