//! Loads over TLS: each kind of them through a relay to a job server, and what the load generator
//! says about certificates, names and peers that it can't speak with.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

#[path = "../../../tests/support/authority.rs"]
#[allow(dead_code, reason = "these tests revoke nothing")]
mod authority;
#[path = "../fake/mod.rs"]
#[allow(dead_code, reason = "these tests need no wrongs")]
mod fake;
mod relay;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use authority::{Authority, Issued};
use fake::{Fake, Wrong};
use loadgen::checker::Faults;
use loadgen::options::Options;
use loadgen::report::{Handshakes, Report};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use tempfile::TempDir;

/// An authority, and its files for the load generator.
struct Files {
    authority: Authority,
    folder: TempDir,
}

impl Files {
    fn new() -> Self {
        let this = Self { authority: Authority::new(), folder: tempfile::tempdir().unwrap() };
        this.write("ca.pem", &this.authority.certificate);
        this
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn ca(&self) -> String {
        self.folder.path().join("ca.pem").to_str().unwrap().to_owned()
    }

    /// Options for a client certificate of this authority.
    fn client(&self) -> [String; 4] {
        let Issued { certificate, key } = self.authority.issue(&["load"]);
        let [certificate, key] =
            [self.write("client.pem", &certificate), self.write("client.key", &key)];
        ["--tls-cert".to_owned(), certificate, "--tls-key".to_owned(), key]
    }

    /// The configuration of a server for these names, which asks for client certificates or not.
    fn server(&self, names: &[&str], asks: bool) -> Arc<ServerConfig> {
        server(&self.authority.issue(names), asks.then_some(&self.authority), &version::TLS13)
    }
}

fn server(
    issued: &Issued,
    clients: Option<&Authority>,
    version: &'static SupportedProtocolVersion,
) -> Arc<ServerConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let chain = vec![CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            let ca = CertificateDer::from_pem_slice(authority.certificate.as_bytes()).unwrap();
            roots.add(ca).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    Arc::new(builder.with_single_cert(chain, key).unwrap())
}

/// A job server behind TLS with this configuration.
fn secured(config: Arc<ServerConfig>) -> SocketAddr {
    relay::start(Fake::start(Wrong::Nothing).addr, move |_| Arc::clone(&config))
}

fn load(addr: SocketAddr, ca: &str, more: &[&str]) -> Result<Report, loadgen::Error> {
    let addr = addr.to_string();
    let mut words = vec!["--addr", &addr, "--clients", "4", "--workers", "3", "--warm-up", "0"];
    words.extend(["--drain-timeout", "1s", "--quiet", "--threads", "2", "--tls", "--tls-ca", ca]);
    if !more.contains(&"--duration") {
        words.extend(["--jobs", "400"]);
    }
    words.extend(more);
    loadgen::run(&Options::of_words(words)?)
}

fn sentence(addr: SocketAddr, ca: &str, more: &[&str], words: &[&str]) {
    let text = load(addr, ca, more).unwrap_err().to_string();
    assert!(words.iter().all(|word| text.contains(word)), "{words:?}: {text}");
    assert!(!text.contains('\n'), "{text}");
}

#[test]
fn every_kind_of_load_is_clean_over_tls() {
    let files = Files::new();
    let (config, ca) = (files.server(&["127.0.0.1"], false), files.ca());
    let loads: &[&[&str]] = &[
        &["--pipeline", "16", "--functions", "5", "--extra-functions", "4000"],
        &["--size", "64..300000", "--result-size", "exp:10k"],
        &["--size", "3m", "--jobs", "20"],
        &["--mode", "background", "--pipeline", "4", "--priority-mix", "1:2:1"],
        &["--rate", "20000", "--spacing", "even"],
        &["--work-time", "exp:1ms", "--idle-workers", "3"],
        &["--worker-crash", "0.2"],
        &["--mode", "connect"],
    ];
    for more in loads {
        let report = load(secured(Arc::clone(&config)), &ca, more).unwrap();
        assert_eq!(report.faults, Faults::default(), "{more:?}: {report}");
        assert_eq!(report.jobs, if more.contains(&"20") { 20 } else { 400 }, "{more:?}");
    }
}

#[test]
fn connections_that_come_back_resume_their_session() {
    let files = Files::new();
    let addr = secured(files.server(&["127.0.0.1"], false));
    let more = ["--mode", "connect", "--clients", "50", "--workers", "0"];
    let report = load(addr, &files.ca(), &more).unwrap();
    let Handshakes { full, resumed, failed } = report.tls.unwrap();
    assert!(full <= 50 && full + resumed == 450 && failed == 0, "{report}");
    assert!(report.to_string().contains(" full, "), "{report}");
    let more = [&more[..], &["--tls-no-resumption"]].concat();
    let report = load(addr, &files.ca(), &more).unwrap();
    assert_eq!(report.tls, Some(Handshakes { full: 450, resumed: 0, failed: 0 }));
}

#[test]
fn an_older_server_is_loaded_too() {
    let files = Files::new();
    let issued = files.authority.issue(&["127.0.0.1"]);
    let addr = secured(server(&issued, None, &version::TLS12));
    let report = load(addr, &files.ca(), &["--mode", "connect"]).unwrap();
    assert_eq!(report.faults, Faults::default(), "{report}");
    assert!(report.tls.unwrap().resumed > 300, "{report}");
}

#[test]
fn a_server_that_asks_for_certificates_gets_one_or_is_named() {
    let (files, foreign) = (Files::new(), Files::new());
    let addr = secured(files.server(&["127.0.0.1"], true));
    let (own, other) = (files.client(), foreign.client());
    let report = load(addr, &files.ca(), &own.each_ref().map(|word| word.as_str())).unwrap();
    assert_eq!(report.faults, Faults::default(), "{report}");
    sentence(addr, &files.ca(), &[], &["asks for a client certificate", "--tls-cert"]);
    let other = other.each_ref().map(|word| word.as_str());
    sentence(addr, &files.ca(), &other, &["refuses the client certificate in", "client.pem"]);
}

#[test]
fn a_certificate_that_is_not_the_servers_is_named_with_the_remedy() {
    let (files, foreign) = (Files::new(), Files::new());
    let addr = secured(files.server(&["jobs.example.com"], false));
    sentence(addr, &foreign.ca(), &[], &["no CA in", "ca.pem (--tls-ca)", "its CA's certificate"]);
    let names = ["for jobs.example.com, not for 127.0.0.1", "--tls-name"];
    sentence(addr, &files.ca(), &[], &names);
    let report = load(addr, &files.ca(), &["--tls-name", "jobs.example.com"]).unwrap();
    assert_eq!(report.faults, Faults::default(), "{report}");
    let expired = files.authority.issue_expired(&["127.0.0.1"]);
    let addr = secured(server(&expired, None, &version::TLS13));
    sentence(addr, &files.ca(), &[], &["has expired", "renew it"]);
}

#[test]
fn a_port_without_tls_is_named_with_the_remedy() {
    let files = Files::new();
    for (answer, words) in [
        (&b""[..], ["in the middle of the TLS handshake", "drop --tls"]),
        (b"ERR unknown_command Unknown+server+command\r\n", ["something else than TLS", "--tls"]),
        (b"\x15\x03\x01\x00\x02\x02\x28", ["gave the TLS handshake up", "TLS 1.2 or 1.3"]),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                // What isn't read would reset the connection.
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(answer);
            }
        });
        sentence(addr, &files.ca(), &[], &words);
    }
}

#[test]
fn a_handshake_that_fails_under_load_is_counted_and_named() {
    let (files, foreign) = (Files::new(), Files::new());
    let right = files.server(&["127.0.0.1"], false);
    let wrong = foreign.server(&["127.0.0.1"], false);
    let to = Fake::start(Wrong::Nothing).addr;
    let addr = relay::start(to, move |number| Arc::clone(if number < 7 { &right } else { &wrong }));
    let more = ["--churn", "400", "--duration", "500ms", "--tls-no-resumption"];
    let report = load(addr, &files.ca(), &more).unwrap();
    assert_eq!(report.tls.unwrap().full, 7, "{report}");
    assert!(report.tls.unwrap().failed > 0 && report.faults.failed > 0, "{report}");
    assert!(report.first_error.as_ref().unwrap().contains("--tls-ca"), "{report}");
}

#[test]
fn files_that_cannot_be_used_are_named_with_the_remedy() {
    let files = Files::new();
    let addr = SocketAddr::from(([127, 0, 0, 1], 9));
    let [_, certificate, _, key] = files.client();
    let other_key = files.write("other.key", &files.authority.issue(&["load"]).key);
    let empty = files.write("empty.pem", "");
    let damaged = files.write("damaged.pem", "-----BEGIN CERTIFICATE-----\n!\n");
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("/nonexistent/ca.pem", &[], &["/nonexistent/ca.pem (--tls-ca) can't be read", "give"]),
        (&empty, &[], &["empty.pem (--tls-ca) has no certificate in it", "PEM form"]),
        (&damaged, &[], &["damaged.pem (--tls-ca) is damaged", "PEM form"]),
        (&files.ca(), &["--tls-cert", &certificate], &["add --tls-key"]),
        (
            &files.ca(),
            &["--tls-cert", &certificate, "--tls-key", &empty],
            &["(--tls-key) has no private key without a password"],
        ),
        (
            &files.ca(),
            &["--tls-cert", &certificate, "--tls-key", &other_key],
            &["other.key (--tls-key) can't be used together", "made together"],
        ),
        (&files.ca(), &["--tls-cert", &key, "--tls-key", &key], &["has no certificate in it"]),
        (&files.ca(), &["--tls-name", "a b"], &["a b (--tls-name)", "host name"]),
    ];
    for (ca, more, words) in cases {
        sentence(addr, ca, more, words);
    }
    let options = Options::of_words(["--tls"]).unwrap();
    let text = loadgen::run(&options).unwrap_err().to_string();
    assert!(text.contains("give --tls-ca the file"), "{text}");
    let text = Options::of_words(["--tls-ca", "x"]).unwrap_err().to_string();
    assert!(text.contains("add --tls"), "{text}");
}
