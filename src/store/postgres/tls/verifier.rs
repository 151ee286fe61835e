//! Verification of PostgreSQL's certificate, as strict as the mode asks for.
//!
//! A certificate from the handshake in, "accepted" or the reason against it out. Opens no files.
//!
//! Invariant: only `Unverified` accepts a certificate that no root vouches for.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

/// The library's words for a server certificate that is marked as a CA's.
const MARKED_AS_CA: &str = "CaUsedAsEndEntity";
/// The library's words for a certificate of X.509's first version.
const FIRST_VERSION: &str = "UnsupportedCertVersion";

/// Whether the certificate is of X.509's first version, which has no extensions.
pub(super) fn is_first_version(error: &Error) -> bool {
    is_other(error, FIRST_VERSION)
}

/// Whether the certificate is marked as a CA's, and no root.
pub(super) fn is_marked_as_ca(error: &Error) -> bool {
    is_other(error, MARKED_AS_CA)
}

fn is_other(error: &Error, words: &str) -> bool {
    let Error::InvalidCertificate(CertificateError::Other(other)) = error else { return false };
    other.0.to_string() == words
}

/// Accepts certificates that the roots vouch for.
#[derive(Debug)]
pub(super) struct Verified {
    by_webpki: Arc<WebPkiServerVerifier>,
    roots: Vec<CertificateDer<'static>>,
    verifies_name: bool,
}

impl Verified {
    /// `roots` are those of `by_webpki`.
    pub(super) fn new(
        by_webpki: Arc<WebPkiServerVerifier>,
        roots: Vec<CertificateDer<'static>>,
        verifies_name: bool,
    ) -> Self {
        Self { by_webpki, roots, verifies_name }
    }

    /// A self-signed certificate that is a root itself. Most are marked as a CA's, as `openssl req
    /// -x509` makes them; webpki looks at that mark after the times of validity.
    fn is_root(&self, certificate: &CertificateDer<'_>, error: &Error) -> bool {
        is_marked_as_ca(error) && self.roots.contains(certificate)
    }
}

impl ServerCertVerifier for Verified {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.by_webpki.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verified {
            // Webpki looks at the name last.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.verifies_name => Ok(ServerCertVerified::assertion()),
            Err(error) if self.is_root(end_entity, &error) => {
                if self.verifies_name {
                    verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_webpki.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_webpki.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_webpki.supported_verify_schemes()
    }
}

/// Accepts every certificate. That the server has its key is verified for the sake of channel
/// binding; webpki can't do so with a certificate of X.509's first version.
#[derive(Debug)]
pub(super) struct Unverified {
    algorithms: WebPkiSupportedAlgorithms,
    accepts_first_version: bool,
}

impl Unverified {
    pub(super) fn new(provider: &CryptoProvider, accepts_first_version: bool) -> Self {
        Self { algorithms: provider.signature_verification_algorithms, accepts_first_version }
    }

    fn or_first_version(
        &self,
        verified: Result<HandshakeSignatureValid, Error>,
    ) -> Result<HandshakeSignatureValid, Error> {
        match verified {
            Err(error) if self.accepts_first_version && is_first_version(&error) => {
                Ok(HandshakeSignatureValid::assertion())
            }
            verified => verified,
        }
    }
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.algorithms;
        let verified = verify_tls12_signature(message, certificate, signature, algorithms);
        self.or_first_version(verified)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.algorithms;
        let verified = verify_tls13_signature(message, certificate, signature, algorithms);
        self.or_first_version(verified)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
