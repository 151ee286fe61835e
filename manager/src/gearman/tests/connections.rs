//! TCP and TLS.

use std::fs;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use ringgear::wire::Command;
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::super::{Ending, Servers, tls};
use super::{Log, Peer, client_of, job_of, while_waiting};
use crate::config::{Server, TlsFiles};

async fn listen() -> (TcpListener, Server) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, Server::Tcp { host: "127.0.0.1".into(), port })
}

#[tokio::test]
async fn tcp_is_kept_alive_and_not_delayed() {
    let (listener, server) = listen().await;
    let stream = super::super::connect::connect(server, None).await.unwrap();
    let super::super::connect::Stream::Tcp(stream) = stream else { panic!() };
    let _peer = listener.accept().await.unwrap();
    let socket = socket2::SockRef::from(&stream);
    assert!(stream.nodelay().unwrap() && socket.keepalive().unwrap());
    let seconds = socket.tcp_keepalive_time().unwrap()
        + socket.tcp_keepalive_interval().unwrap() * socket.tcp_keepalive_retries().unwrap();
    assert_eq!(seconds.as_secs(), 30);
}

/// Files of an authority, and of a certificate for 127.0.0.1 with its key.
struct Files {
    folder: TempDir,
    server: ServerConfig,
}

impl Files {
    /// A server that takes clients with certificates only.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = parameters.signed_by(&key, &ca).unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("ca.pem", &ca.pem());
        write("worker.pem", &certificate.pem());
        write("worker.key", &key.serialize_pem());
        write("other.key", &KeyPair::generate().unwrap().serialize_pem());
        write("empty.pem", "");

        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(
                vec![certificate.der().clone()],
                rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        Self { folder, server }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn named(&self, ca: &str, certificate: Option<&str>, key: Option<&str>) -> TlsFiles {
        TlsFiles {
            ca: Some(self.path(ca)),
            certificate: certificate.map(|name| self.path(name)),
            key: key.map(|name| self.path(name)),
        }
    }
}

#[tokio::test]
async fn jobs_come_and_large_results_go_over_tls_with_certificates() {
    let files = Files::new();
    let (listener, server) = listen().await;
    let acceptor = TlsAcceptor::from(Arc::new(files.server.clone()));
    let client_tls = tls(&files.named("ca.pem", Some("worker.pem"), Some("worker.key"))).unwrap();
    let servers = Rc::new(Servers { servers: vec![server], tls: Some(client_tls) });
    let mut client = client_of(servers, &Rc::default());
    let mut peer = while_waiting(&mut client, async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut peer = Peer::new(acceptor.accept(stream).await.unwrap());
        peer.expect_announcement().await;
        peer
    })
    .await;
    let job = job_of(&mut client, peer.assign("H:1")).await;
    let result = vec![9; 3 << 20];
    let ending = Ending::Complete(result.into());
    let (is_taken, (command, body)) = tokio::join!(client.finish(job, ending), peer.packet());
    assert_eq!((is_taken, command, body.len()), (true, Command::WorkComplete, (3 << 20) + 4));
    job_of(&mut client, peer.assign("H:2")).await;
}

/// The warnings of a client for two attempts, none of which gives a server a connection.
async fn warnings_of_refused(files: &Files, client_files: &TlsFiles) -> Vec<String> {
    let (listener, server) = listen().await;
    let acceptor = TlsAcceptor::from(Arc::new(files.server.clone()));
    let (log, _guard) = Log::start();
    let tls = Some(tls(client_files).unwrap());
    let mut client = client_of(Rc::new(Servers { servers: vec![server], tls }), &Rc::default());
    while_waiting(&mut client, async {
        for _ in 0..2 {
            let (stream, _) = listener.accept().await.unwrap();
            acceptor.accept(stream).await.unwrap_err();
        }
    })
    .await;
    log.lines()
}

#[tokio::test]
async fn a_server_whose_authority_is_unknown_gets_no_packet() {
    let (files, others) = (Files::new(), Files::new());
    let lines = warnings_of_refused(&files, &others.named("ca.pem", None, None)).await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("check the files in `[tls]`"), "{lines:?}");
}

#[tokio::test]
async fn a_server_that_wants_a_certificate_refuses_a_worker_without() {
    let files = Files::new();
    let lines = warnings_of_refused(&files, &files.named("ca.pem", None, None)).await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("WARN"), "{lines:?}");
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_its_key_and_a_remedy() {
    let files = Files::new();
    let sentence = |ca, certificate, key| tls(&files.named(ca, certificate, key)).unwrap_err();
    let worker = Some("worker.pem");
    for (sentence, file, rest) in [
        (sentence("no.pem", None, None), "no.pem", " (tls.ca) can't be read: "),
        (sentence("empty.pem", None, None), "empty.pem", " (tls.ca) has no certificate in it: "),
        (
            sentence("ca.pem", worker, Some("ca.pem")),
            "ca.pem",
            " (tls.key) has no private key without a password: decrypt it",
        ),
        (
            sentence("ca.pem", worker, Some("other.key")),
            "other.key",
            " (tls.key) isn't the key of the certificate in ",
        ),
        (
            sentence("ca.pem", Some("empty.pem"), Some("other.key")),
            "empty.pem",
            " (tls.certificate) has no certificate in it: ",
        ),
    ] {
        let start = format!("{}{rest}", files.path(file).display());
        assert!(sentence.starts_with(&start), "{sentence}");
        assert!(!sentence.contains('\n'), "{sentence}");
    }
    assert!(sentence("ca.pem", worker, None).starts_with("tls.certificate is given without"));
    assert!(sentence("ca.pem", None, worker).starts_with("tls.key is given without"));
}

#[test]
fn the_systems_authorities_are_used_unless_a_file_is_named() {
    match tls(&TlsFiles::default()) {
        Ok(_) => {}
        Err(sentence) => assert!(sentence.contains("install ca-certificates"), "{sentence}"),
    }
}
