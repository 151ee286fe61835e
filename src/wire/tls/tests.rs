//! Handshakes and records between a server's connection and the library's client, in memory.

use rcgen::{CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion, version};

use super::*;

/// An authority, and certificates that it has issued.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate and key in PEM form.
    fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let mut params = CertificateParams::new(["jobs.example.com".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "web1");
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }
}

fn file(text: &str) -> PemFile {
    PemFile { path: "server.pem".to_owned(), text: text.as_bytes().to_vec() }
}

fn files(authority: &Authority, client_certificates: ClientCertificates) -> Files {
    let (certificate, key) = authority.issue(|_| {});
    Files {
        certificate: file(&certificate),
        key: PemFile { path: "server.key".to_owned(), text: key.into_bytes() },
        authorities: Some(PemFile { path: "ca.pem".to_owned(), text: authority.pem().into() }),
        revocation_lists: Vec::new(),
        client_certificates,
        versions: Versions::From12,
    }
}

fn client_config(
    authority: &Authority,
    identity: Option<&(String, String)>,
    version: &'static SupportedProtocolVersion,
) -> Arc<ClientConfig> {
    use rustls::pki_types::pem::PemObject as _;
    let mut roots = RootCertStore::empty();
    roots.add(authority.0.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    })
}

/// Both ends.
struct Pair {
    client: ClientConnection,
    server: TlsConnection,
    /// What has come to the server.
    came: Vec<u8>,
    finished: Option<(bool, usize)>,
    has_ended: bool,
}

impl Pair {
    fn new(config: &Arc<ClientConfig>, server: &TlsServer) -> Self {
        let name = ServerName::try_from("jobs.example.com").unwrap();
        let mut client = ClientConnection::new(Arc::clone(config), name).unwrap();
        client.set_buffer_limit(None);
        let server = TlsConnection::new(server).unwrap();
        Self { client, server, came: Vec::new(), finished: None, has_ended: false }
    }

    /// Passes what the client has to say to the server, in pieces.
    fn up(&mut self, piece_bytes: usize) -> Result<(), TlsFault> {
        let mut records = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut records).unwrap();
        }
        for piece in records.chunks(piece_bytes) {
            let Self { server, came, finished, has_ended, .. } = self;
            server.received(piece, |event| {
                match event {
                    TlsEvent::Finished { is_resumed, chain } => {
                        assert!(came.is_empty() && finished.is_none());
                        *finished = Some((is_resumed, chain.len()));
                    }
                    TlsEvent::Plaintext(bytes) => {
                        assert!(finished.is_some());
                        came.extend_from_slice(bytes);
                    }
                    TlsEvent::Closed => *has_ended = true,
                }
                ControlFlow::Continue(())
            })?;
        }
        Ok(())
    }

    /// Passes records to the client; returns the plaintext in them.
    fn down(&mut self, plaintext: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let mut records = Vec::new();
        self.server.seal(plaintext, &mut records);
        self.take(&records)
    }

    fn take(&mut self, mut records: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let mut came = Vec::new();
        while !records.is_empty() {
            self.client.read_tls(&mut records).unwrap();
            self.client.process_new_packets()?;
            let mut reader = self.client.reader();
            while let Ok(bytes) = reader.fill_buf().map(<[u8]>::to_vec)
                && !bytes.is_empty()
            {
                reader.consume(bytes.len());
                came.extend(bytes);
            }
        }
        Ok(came)
    }

    fn handshake(&mut self) -> Result<(), TlsFault> {
        while self.finished.is_none() {
            self.up(usize::MAX)?;
            let _ = self.down(b"");
        }
        Ok(())
    }
}

const BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

#[test]
fn bytes_come_through_whole_in_any_pieces_and_sizes() {
    let authority = Authority::new("CA");
    let server = TlsServer::new(&files(&authority, ClientCertificates::Off), None).unwrap();
    for version in BOTH {
        for piece_bytes in [1, 5, 1000, usize::MAX] {
            let config = client_config(&authority, None, version);
            let mut pair = Pair::new(&config, &server);
            let sent: Vec<u8> = (0..=255).collect::<Vec<u8>>().repeat(400);
            // A client may send its first bytes together with the end of its handshake. They were
            // once left in the library until more came: every libgearman client hung.
            pair.client.writer().write_all(&sent).unwrap();
            while pair.finished.is_none() || pair.came.len() < sent.len() {
                pair.up(piece_bytes).unwrap();
                pair.down(b"").unwrap();
            }
            assert_eq!(pair.came, sent);
            assert_eq!(pair.finished, Some((false, 0)));
            assert_eq!(pair.down(&sent).unwrap(), sent);
        }
    }
}

#[test]
fn a_closed_connection_says_so_once_in_both_directions() {
    let authority = Authority::new("CA");
    let server = TlsServer::new(&files(&authority, ClientCertificates::Off), None).unwrap();
    let mut pair = Pair::new(&client_config(&authority, None, &version::TLS13), &server);
    pair.handshake().unwrap();
    pair.client.writer().write_all(b"last").unwrap();
    pair.client.send_close_notify();
    pair.up(usize::MAX).unwrap();
    assert_eq!((&pair.came[..], pair.has_ended), (&b"last"[..], true));
    // The peer may still read.
    assert_eq!(pair.down(b"answer").unwrap(), b"answer");
    let mut records = Vec::new();
    pair.server.close(&mut records);
    let bytes = records.len();
    pair.server.close(&mut records);
    assert!(bytes > 0 && records.len() == bytes, "once");
    pair.take(&records).unwrap();
}

#[test]
fn certificates_are_off_optional_or_required() {
    let authority = Authority::new("CA");
    let client = authority.issue(|_| {});
    let foreign = Authority::new("other").issue(|_| {});
    for version in BOTH {
        for (setting, identity, expected) in [
            (ClientCertificates::Off, None, Ok(0)),
            (ClientCertificates::Off, Some(&foreign), Ok(0)),
            (ClientCertificates::Optional, None, Ok(0)),
            (ClientCertificates::Optional, Some(&client), Ok(1)),
            (ClientCertificates::Optional, Some(&foreign), Err(HandshakeResult::BadCertificate)),
            (ClientCertificates::Required, None, Err(HandshakeResult::NoCertificate)),
            (ClientCertificates::Required, Some(&client), Ok(1)),
            (ClientCertificates::Required, Some(&foreign), Err(HandshakeResult::BadCertificate)),
        ] {
            let server = TlsServer::new(&files(&authority, setting), None).unwrap();
            let mut pair = Pair::new(&client_config(&authority, identity, version), &server);
            let result = pair.handshake().map_err(|fault| fault.result);
            assert_eq!(result.map(|()| pair.finished.unwrap().1), expected, "{setting:?}");
        }
    }
}

fn fault_of(
    authority: &Authority,
    lists: &[String],
    change: impl FnOnce(&mut CertificateParams),
) -> TlsFault {
    let identity = authority.issue(change);
    let revocation_lists = lists.iter().map(|list| file(list)).collect();
    let files = Files { revocation_lists, ..files(authority, ClientCertificates::Required) };
    let server = TlsServer::new(&files, None).unwrap();
    let config = client_config(authority, Some(&identity), &version::TLS13);
    Pair::new(&config, &server).handshake().unwrap_err()
}

#[test]
fn the_log_says_what_is_wrong_with_a_certificate_and_whose_it_is() {
    let authority = Authority::new("CA");
    let day = rcgen::date_time_ymd;
    let expired = fault_of(&authority, &[], |it| {
        it.not_before = day(2020, 1, 1);
        it.not_after = day(2021, 2, 3);
    });
    assert_eq!(
        (&*expired.reason, expired.remedy, expired.subject.as_deref()),
        ("client certificate expired 2021-02-03", "reissue it", Some("CN=web1"))
    );
    let early = fault_of(&authority, &[], |it| it.not_before = day(2090, 1, 1));
    assert_eq!(early.reason, "client certificate isn't valid before 2090-01-01");
    let for_servers = fault_of(&authority, &[], |it| {
        it.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    assert_eq!(for_servers.reason, "client certificate isn't for clients");
}

/// A revocation list with one certificate in it.
fn revoke(authority: &Authority, serial: u64, until: i32) -> String {
    let day = rcgen::date_time_ymd;
    let revoked = rcgen::RevokedCertParams {
        serial_number: serial.into(),
        revocation_time: day(2020, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let list = rcgen::CertificateRevocationListParams {
        this_update: day(2020, 1, 1),
        next_update: day(until, 1, 1),
        crl_number: 1_u64.into(),
        issuing_distribution_point: None,
        revoked_certs: vec![revoked],
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    list.signed_by(&authority.0).unwrap().pem().unwrap()
}

#[test]
fn revoked_certificates_and_expired_lists_refuse() {
    let authority = Authority::new("CA");
    let list = revoke(&authority, 77, 2090);
    let revoked = fault_of(&authority, &[list], |it| it.serial_number = Some(77_u64.into()));
    assert_eq!(revoked.reason, "client certificate is revoked");
    let expired = revoke(&authority, 78, 2021);
    let fault = fault_of(&authority, &[expired], |it| it.serial_number = Some(77_u64.into()));
    assert_eq!(fault.reason, "the revocation list expired 2021-01-01");
    let foreign = revoke(&Authority::new("other"), 77, 2090);
    let fault = fault_of(&authority, &[foreign], |it| it.serial_number = Some(77_u64.into()));
    assert!(fault.reason.starts_with("client certificate can't be looked up"), "{fault}");
}

#[test]
fn sessions_are_resumed_until_what_clients_are_trusted_by_changes() {
    let authority = Authority::new("CA");
    let client = authority.issue(|it| it.serial_number = Some(77_u64.into()));
    for version in BOTH {
        let config = client_config(&authority, Some(&client), version);
        let files = files(&authority, ClientCertificates::Required);
        let first = TlsServer::new(&files, None).unwrap();
        let connect = |server: &TlsServer| {
            let mut pair = Pair::new(&config, server);
            pair.handshake().unwrap();
            // Tickets come behind the handshake.
            pair.down(b"x").unwrap();
            let (is_resumed, certificates) = pair.finished.unwrap();
            assert_eq!(certificates, 1, "resumed connections have the certificate, too");
            is_resumed
        };
        assert!(!connect(&first));
        assert!(connect(&first));
        let again = TlsServer::new(&files, Some(&first)).unwrap();
        assert!(connect(&again), "a new certificate of the server's changes nothing");
        let revocation_lists = vec![file(&revoke(&authority, 78, 2090))];
        let files = Files { revocation_lists, ..files };
        let other = TlsServer::new(&files, Some(&again)).unwrap();
        assert!(!connect(&other));
        assert!(connect(&other));
    }
}

#[test]
fn an_open_connection_is_verified_again() {
    let authority = Authority::new("CA");
    let client = authority.issue(|it| it.serial_number = Some(77_u64.into()));
    let trusting = files(&authority, ClientCertificates::Required);
    let server = TlsServer::new(&trusting, None).unwrap();
    let mut pair = Pair::new(&client_config(&authority, Some(&client), &version::TLS13), &server);
    pair.handshake().unwrap();
    let now = server.not_after_s() - 1;
    let unix_s = rcgen::date_time_ymd(2026, 11, 29).unix_timestamp().try_into().unwrap();
    assert!(unix_s < now && server.verify(pair.server.chain(), unix_s).is_ok());
    let revocation_lists = vec![file(&revoke(&authority, 77, 2090))];
    let revoking = TlsServer::new(&Files { revocation_lists, ..trusting }, None).unwrap();
    let fault = revoking.verify(pair.server.chain(), unix_s).unwrap_err();
    assert_eq!(fault.reason, "client certificate is revoked");
    assert_eq!(fault.subject.as_deref(), Some("CN=web1"));
    let off = TlsServer::new(&files(&authority, ClientCertificates::Off), None).unwrap();
    assert!(off.verify(pair.server.chain(), unix_s).is_ok());
}

#[test]
fn mistakes_in_files_are_told_with_the_remedy() {
    let authority = Authority::new("CA");
    let good = files(&authority, ClientCertificates::Required);
    let (other_certificate, other_key) = authority.issue(|_| {});
    let key = String::from_utf8(good.key.text.clone()).unwrap();
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    type Change<'a> = Box<dyn Fn(&mut Files) + 'a>;
    let cases: Vec<(Change<'_>, &str)> = vec![
        (
            Box::new(|it| it.certificate.text = key.clone().into()),
            "server.pem has no certificate (it has a private key: are the two options swapped?)",
        ),
        (
            Box::new(|it| it.certificate.text = Vec::new()),
            "server.pem has no certificate: name a file with -----BEGIN CERTIFICATE-----",
        ),
        (
            Box::new(|it| it.key.text = other_certificate.clone().into()),
            "server.key has no private key (it has a certificate: are the two options swapped?)",
        ),
        (
            Box::new(|it| it.key.text = format!("{key}{other_key}").into()),
            "server.key has several private keys",
        ),
        (
            Box::new(|it| it.key.text = encrypted.into()),
            "server.key is encrypted; decrypt it with openssl pkey -in server.key -out FILE",
        ),
        (
            Box::new(|it| it.key.text = other_key.clone().into()),
            "the key server.key doesn't belong to the certificate server.pem",
        ),
        (
            Box::new(|it| it.authorities = Some(file(&other_certificate))),
            "server.pem has a certificate that isn't an authority's: CN=web1",
        ),
        (Box::new(|it| it.authorities = None), "--ssl-client-certificates needs --ssl-ca-file"),
        (
            Box::new(|it| it.revocation_lists = vec![file(&other_certificate)]),
            "server.pem has no revocation list",
        ),
    ];
    for (change, expected) in cases {
        let mut files = good.clone();
        change(&mut files);
        let sentence = TlsServer::new(&files, None).unwrap_err();
        assert!(sentence.starts_with(expected), "{sentence}\n{expected}");
    }
}

#[test]
fn what_ends_soon_is_remarked_on() {
    let authority = Authority::new("CA");
    let day = rcgen::date_time_ymd;
    let unix_s = |year, month, of| u64::try_from(day(year, month, of).unix_timestamp()).unwrap();
    let (certificate, key) = authority.issue(|it| {
        it.not_before = day(2026, 1, 1);
        it.not_after = day(2027, 1, 1);
        it.subject_alt_names.clear();
    });
    let files = Files {
        certificate: file(&certificate),
        key: file(&key),
        revocation_lists: vec![file(&revoke(&authority, 1, 2027))],
        ..files(&authority, ClientCertificates::Optional)
    };
    let server = TlsServer::new(&files, None).unwrap();
    let has = |unix_s, text: &str| server.remarks(unix_s).iter().any(|it| it.contains(text));
    assert!(has(unix_s(2026, 6, 1), "has no subjectAltName"));
    assert_eq!(server.remarks(unix_s(2026, 6, 1)).len(), 1);
    assert!(has(unix_s(2025, 12, 31), "isn't valid before 2026-01-01"));
    assert!(has(unix_s(2026, 12, 20), "expires 2027-01-01"));
    assert!(has(unix_s(2027, 1, 2), "certificate server.pem expired 2027-01-01"));
    assert!(has(unix_s(2026, 12, 31) + 3600, "revocation list server.pem expires"));
    assert!(has(unix_s(2027, 1, 2), "revocation list server.pem expired"));
}

#[test]
fn bytes_that_are_no_tls_are_refused_with_an_alert() {
    let authority = Authority::new("CA");
    let server = TlsServer::new(&files(&authority, ClientCertificates::Off), None).unwrap();
    let mut connection = TlsConnection::new(&server).unwrap();
    let fault = connection.received(&[0x80; 100], |_| ControlFlow::Continue(())).unwrap_err();
    assert_eq!(fault.result, HandshakeResult::Protocol);
    assert!(fault.reason.starts_with("the peer's bytes are refused: "), "{fault}");
    let mut records = Vec::new();
    connection.seal(b"", &mut records);
    assert_eq!(records.first(), Some(&21), "an alert");
}
