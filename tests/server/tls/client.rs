//! A TLS client on rustls: an address, a version and a certificate in, a stream out, or the alert.

use std::io::{Error, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
};
use socket2::{Domain, Socket, Type};

use crate::authority::Issued;
use crate::conn::named;
use crate::harness::PATIENCE;

pub(crate) type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A connection from an address of this host's own network, by which the log tells it apart.
pub(crate) fn connect_from(from: Ipv4Addr, server: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::new(IpAddr::V4(from), 0).into()).expect("127.0.0.0/8 is here");
    socket.connect(&server.into()).expect("the server listens");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_nodelay(true).expect("an option");
    stream
}

/// What rustls needs to trust an authority and to show a certificate, whatever is wrong with it.
pub(crate) fn config(
    authority: &str,
    identity: Option<&Issued>,
    version: &'static SupportedProtocolVersion,
) -> Arc<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_slice(authority.as_bytes()).expect("PEM");
    roots.add(certificate).expect("an authority");
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_protocol_versions(&[version]).expect("a version");
    let builder = builder.with_root_certificates(roots);
    let Some(identity) = identity else { return Arc::new(builder.with_no_client_auth()) };
    let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes());
    let chain = chain.collect::<Result<_, _>>().expect("PEM");
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("PEM");
    let key = provider.key_provider.load_private_key(key).expect("a key");
    let shown = SingleCertAndKey::from(CertifiedKey::new(chain, key));
    Arc::new(builder.with_client_cert_resolver(Arc::new(shown)))
}

/// A session that is as far as the client can tell; the server may still refuse it in TLS 1.3.
pub(crate) fn begin(stream: TcpStream, config: Arc<ClientConfig>) -> Result<Stream, Error> {
    let name = ServerName::try_from("jobs.example.com").expect("a name");
    let session = ClientConnection::new(config, name).expect("a configuration that fits");
    let mut stream = StreamOwned::new(session, stream);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// Asks the server for an echo through a session that has just begun.
pub(crate) fn echo(stream: &mut Stream) -> Result<(), Error> {
    let asked = named("ECHO_REQ", &[b"hello"]);
    stream.write_all(&asked)?;
    let mut reply = vec![0; asked.len()];
    stream.read_exact(&mut reply)?;
    assert_eq!(&reply[4..8], &17_u32.to_be_bytes());
    assert_eq!(&reply[12..], b"hello");
    Ok(())
}

/// The alert that a session ended with.
pub(crate) fn alert(error: &Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}
