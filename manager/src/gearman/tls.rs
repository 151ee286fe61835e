//! The `[tls]` table in, the configuration of a TLS client out.
//!
//! Errors are sentences that name the key, the file and the remedy.
//!
//! Invariant: a file that is named is used, or the result is an error.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, Error, RootCertStore};

use crate::config::TlsFiles;

/// The configuration for connections to servers, all with the same files.
///
/// # Errors
/// What is wrong with a file, in one sentence.
pub fn tls(files: &TlsFiles) -> Result<Arc<ClientConfig>, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("there is no TLS in this build: {error}"))?
        .with_root_certificates(roots(files.ca.as_deref())?);
    let (certificate, key) = match (&files.certificate, &files.key) {
        (None, None) => return Ok(Arc::new(builder.with_no_client_auth())),
        (Some(certificate), Some(key)) => (certificate, key),
        (Some(_), None) => {
            return Err("tls.certificate is given without tls.key: name the file of its key".into());
        }
        (None, Some(_)) => {
            return Err(
                "tls.key is given without tls.certificate: name the certificate's file".into()
            );
        }
    };
    let client = builder
        .with_client_auth_cert(certificates("certificate", certificate)?, private_key(key)?)
        .map_err(|error| unusable(certificate, key, &error))?;
    Ok(Arc::new(client))
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let Some(path) = ca else {
        let found = rustls_native_certs::load_native_certs();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            let causes: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
            return Err(format!(
                "the operating system has no CA certificates{}{}: install ca-certificates, or name \
                 a file in tls.ca",
                if causes.is_empty() { "" } else { ": " },
                causes.join(", ")
            ));
        }
        return Ok(roots);
    };
    let (_, unreadable) = roots.add_parsable_certificates(certificates("ca", path)?);
    if unreadable > 0 {
        return Err(format!(
            "{} (tls.ca) has {unreadable} certificates that can't be read: export them from the CA \
             again",
            path.display()
        ));
    }
    Ok(roots)
}

/// All certificates of a file, at least one.
fn certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match found {
        Ok(found) if found.is_empty() => Err(format!(
            "{} (tls.{key}) has no certificate in it: name a file in PEM form, with a line \
             -----BEGIN CERTIFICATE-----",
            path.display()
        )),
        found => found.map_err(|error| unreadable(key, path, &error)),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| match error {
        pem::Error::NoItemsFound => format!(
            "{} (tls.key) has no private key without a password: decrypt it (openssl pkey -in \
             FILE), or name another file",
            path.display()
        ),
        error => unreadable("key", path, &error),
    })
}

fn unreadable(key: &str, path: &Path, error: &pem::Error) -> String {
    let path = path.display();
    match error {
        pem::Error::Io(error) => format!(
            "{path} (tls.{key}) can't be read: {error}; name a file that the manager's user may \
             read"
        ),
        error => format!("{path} (tls.{key}) is damaged: {error}; name a file in PEM form"),
    }
}

fn unusable(certificate: &Path, key: &Path, error: &Error) -> String {
    let [certificate, key] = [certificate, key].map(Path::display);
    match error {
        Error::InconsistentKeys(_) => format!(
            "{key} (tls.key) isn't the key of the certificate in {certificate} (tls.certificate): \
             name the two files that were made together"
        ),
        error => format!(
            "{certificate} (tls.certificate) with {key} (tls.key) can't be used: {error}; have the \
             certificate issued anew, with an ECDSA, RSA or Ed25519 key"
        ),
    }
}
