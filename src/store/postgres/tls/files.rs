//! Files of certificates, keys and revocation lists in, the configuration of a TLS client out.
//!
//! Errors are sentences that name the word of the connection string, the file and the remedy.
//!
//! Invariant: a file that was named is used, or the result is an error.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::{ClientConfig, Error, RootCertStore};

use super::verifier::{Unverified, Verified};
use super::{Identity, Mode, Roots, Tls};

/// What PostgreSQL calls itself in TLS handshakes that no request precedes.
const PROTOCOL: &[u8] = b"postgresql";

/// The configuration for these words.
pub(super) fn client(tls: &Tls) -> Result<ClientConfig, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("there is no TLS in this build: {error}"))?;
    // The setters say "dangerous", as a verifier may verify nothing.
    let builder = versions.dangerous();
    let builder = match &tls.roots {
        Some(roots) => builder.with_custom_certificate_verifier(verifier(tls, roots, &provider)?),
        None => {
            let unverified = Unverified::new(&provider, !tls.is_bound);
            builder.with_custom_certificate_verifier(Arc::new(unverified))
        }
    };
    let mut client = match &tls.identity {
        Some(identity) => {
            let (chain, key) = read_identity(identity)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| of_identity(identity, &error))?
        }
        None => builder.with_no_client_auth(),
    };
    if tls.is_direct {
        client.alpn_protocols = vec![PROTOCOL.to_vec()];
    }
    Ok(client)
}

fn verifier(
    tls: &Tls,
    roots: &Roots,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<Verified>, String> {
    let certificates = match roots {
        Roots::File(path) => read_all("sslrootcert", "certificate", path)?,
        Roots::System => of_system()?,
    };
    let mut store = RootCertStore::empty();
    let (_, unreadable) = store.add_parsable_certificates(certificates.iter().cloned());
    if let (Roots::File(path), 1..) = (roots, unreadable) {
        return Err(format!(
            "{} (sslrootcert) has {unreadable} certificates that can't be read: export them from \
             the CA again",
            path.display()
        ));
    }
    let mut builder = WebPkiServerVerifier::builder_with_provider(store.into(), provider.clone());
    if let Some(path) = &tls.revoked {
        let lists: Vec<CertificateRevocationListDer<'_>> =
            read_all("sslcrl", "revocation list", path)?;
        builder = builder.with_crls(lists).enforce_revocation_expiration();
    }
    let by_webpki = builder.build().map_err(|error| {
        let path = tls.revoked.as_deref().unwrap_or_else(|| Path::new("")).display();
        format!("{path} (sslcrl) can't be used: {error}; get the CA's revocation list anew")
    })?;
    Ok(Arc::new(Verified::new(by_webpki, certificates, tls.mode == Mode::VerifyFull)))
}

fn of_system() -> Result<Vec<CertificateDer<'static>>, String> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let causes: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(format!(
            "the operating system has no CA certificates for sslrootcert=system{}{}: install \
             ca-certificates, or name a file in sslrootcert",
            if causes.is_empty() { "" } else { ": " },
            causes.join(", ")
        ));
    }
    Ok(found.certs)
}

fn read_identity(
    Identity { certificate, key }: &Identity,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let chain = read_all("sslcert", "certificate", certificate)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| match error {
        pem::Error::NoItemsFound => format!(
            "{} (sslkey) has no private key without a password: decrypt it (openssl pkey -in \
             FILE), or name another file",
            key.display()
        ),
        error => unreadable("sslkey", key, &error),
    })?;
    Ok((chain, key))
}

fn of_identity(Identity { certificate, key }: &Identity, error: &Error) -> String {
    let [certificate, key] = [certificate, key].map(|path| path.display());
    match error {
        Error::InconsistentKeys(_) => format!(
            "{key} (sslkey) isn't the key of the certificate in {certificate} (sslcert): name the \
             two files that were made together"
        ),
        error => format!(
            "{certificate} (sslcert) with {key} (sslkey) can't be used: {error}; have the \
             certificate issued anew, with an ECDSA, RSA or Ed25519 key"
        ),
    }
}

/// All items of a file, at least one.
fn read_all<T: PemObject>(word: &str, item: &str, path: &Path) -> Result<Vec<T>, String> {
    let items = T::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<T>, _>>);
    match items {
        Ok(items) if items.is_empty() => Err(format!(
            "{} ({word}) has no {item} in it: name a file in PEM form, with a line -----BEGIN",
            path.display()
        )),
        Ok(items) => Ok(items),
        Err(error) => Err(unreadable(word, path, &error)),
    }
}

fn unreadable(word: &str, path: &Path, error: &pem::Error) -> String {
    let path = path.display();
    match error {
        pem::Error::Io(error) => format!(
            "{path} ({word}) can't be read: {error}; name a file that ringgeard's user may read"
        ),
        error => {
            format!("{path} ({word}) is damaged: {error}; name a file in PEM form")
        }
    }
}
