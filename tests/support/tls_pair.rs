//! TLS of tests that need both ends in memory: a server's files, and a client that trusts them.

use std::io::BufRead as _;
use std::sync::Arc;

use ringgear::wire::tls::{ClientCertificates, Files, PemFile, TlsServer, Versions};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// What a server and a client share, by a certificate of its own.
pub(crate) fn configs() -> (Arc<TlsServer>, Arc<ClientConfig>) {
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let file = |text: String| PemFile { path: "f.pem".to_owned(), text: text.into_bytes() };
    let files = Files {
        certificate: file(issued.cert.pem()),
        key: file(issued.signing_key.serialize_pem()),
        authorities: None,
        revocation_lists: Vec::new(),
        client_certificates: ClientCertificates::Off,
        versions: Versions::From12,
    };
    let mut roots = RootCertStore::empty();
    roots.add(issued.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(TlsServer::new(&files, None).unwrap()), Arc::new(client))
}

/// A client that trusts the server's certificate, and has said nothing yet.
pub(crate) fn client(config: &Arc<ClientConfig>) -> ClientConnection {
    let name = "localhost".try_into().unwrap();
    ClientConnection::new(Arc::clone(config), name).unwrap()
}

/// Appends what is in records to `plaintext`.
pub(crate) fn open(client: &mut ClientConnection, mut records: &[u8], plaintext: &mut Vec<u8>) {
    while !records.is_empty() {
        client.read_tls(&mut records).unwrap();
        client.process_new_packets().unwrap();
        let mut reader = client.reader();
        while let Ok(bytes) = reader.fill_buf()
            && !bytes.is_empty()
        {
            plaintext.extend_from_slice(bytes);
            let used = bytes.len();
            reader.consume(used);
        }
    }
}
