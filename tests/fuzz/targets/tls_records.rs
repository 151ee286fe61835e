//! Any bytes, in any pieces, as what a peer of a listener with TLS sends.
//!
//! Invariant: no panic; no plaintext before the handshake is finished, which without a key of its
//! own no peer does; what a fault leaves to be sent is an alert.
#![no_main]

use std::ops::ControlFlow;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ringgear::wire::tls::{
    ClientCertificates, Files, PemFile, TlsConnection, TlsEvent, TlsServer, Versions,
};

static SERVER: LazyLock<TlsServer> = LazyLock::new(|| {
    let file = |text: &str| PemFile { path: "f.pem".to_owned(), text: text.into() };
    let files = Files {
        certificate: file(include_str!("../tls/server.pem")),
        key: file(include_str!("../tls/server.key")),
        authorities: Some(file(include_str!("../tls/ca.pem"))),
        revocation_lists: Vec::new(),
        client_certificates: ClientCertificates::Optional,
        versions: Versions::From12,
    };
    TlsServer::new(&files, None).expect("the files belong together")
});

fuzz_target!(|input: (u8, &[u8])| {
    let (piece_bytes, bytes) = input;
    let mut connection = TlsConnection::new(&SERVER).expect("random bytes");
    let mut records = Vec::new();
    for piece in bytes.chunks(usize::from(piece_bytes).max(1)) {
        let result = connection.received(piece, |event| {
            assert!(matches!(event, TlsEvent::Closed), "{event:?}");
            ControlFlow::Continue(())
        });
        records.clear();
        connection.seal(b"", &mut records);
        if result.is_err() {
            assert!(records.first().is_none_or(|&first| first == 21), "an alert");
            return;
        }
    }
    assert!(!connection.is_finished());
});
