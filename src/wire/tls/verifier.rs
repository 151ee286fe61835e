//! Verification of clients' certificates, and what the certificate that was refused last says of
//! its owner.
//!
//! A chain in, "verified" or the reason against it out. The library drops a chain that it refuses,
//! and its errors don't name the certificate; the log has to.
//!
//! Invariant: what is accepted is what the library's verifier accepts.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use x509_parser::prelude::{FromDer as _, X509Certificate};

thread_local! {
    /// The subject of the certificate that was refused on this thread last. A handshake is driven
    /// by one thread, and looks here as soon as it has failed.
    static REFUSED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The subject of the certificate that this thread has refused since it was asked last.
pub(super) fn take_refused() -> Option<String> {
    REFUSED.take()
}

/// The subject of a certificate, as it is written in directories: `CN=web1,O=Example`.
pub(super) fn subject(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(parsed.subject().to_string()).filter(|subject| !subject.is_empty())
}

/// The library's verifier.
#[derive(Debug)]
pub(super) struct Verifier {
    /// What decides.
    inner: Arc<dyn ClientCertVerifier>,
    /// Whether clients without a certificate are refused.
    is_mandatory: bool,
}

impl Verifier {
    /// As the library's own.
    pub(super) fn new(inner: Arc<dyn ClientCertVerifier>) -> Self {
        Self { is_mandatory: inner.client_auth_mandatory(), inner }
    }

    /// Takes clients without a certificate in any case.
    pub(super) fn optional(inner: Arc<dyn ClientCertVerifier>) -> Self {
        Self { inner, is_mandatory: false }
    }
}

impl ClientCertVerifier for Verifier {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.is_mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.inner
            .verify_client_cert(end_entity, intermediates, now)
            .inspect_err(|_| REFUSED.set(subject(end_entity)))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
