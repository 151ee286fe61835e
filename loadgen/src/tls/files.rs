//! Files of certificates and a key in, the configuration of a TLS client out.
//!
//! Errors name the option, the file and the remedy. Invariant: the server's certificate and name
//! are always verified.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use super::tickets::Tickets;
use crate::error::Error;
use crate::options::Options;

/// The name that the server's certificate must have: of `--tls-name`, or the host of `--addr`.
pub(super) fn server_name(options: &Options) -> Result<ServerName<'static>, Error> {
    let addr = options.addr.as_str();
    let is_host = addr.parse::<IpAddr>().is_ok();
    let host = if is_host { addr } else { addr.rsplit_once(':').map_or(addr, |(host, _)| host) };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let (option, name) = match &options.tls_name {
        Some(name) => ("--tls-name", name.as_str()),
        // The spawned server listens there.
        None if options.spawn.is_some() => ("--spawn", "127.0.0.1"),
        None => ("--addr", host),
    };
    ServerName::try_from(name.to_owned()).map_err(|_| {
        usage(format!(
            "{name} ({option}) can't be the name in a certificate: give --tls-name a host name or \
             an IP address"
        ))
    })
}

/// The configuration for the options' files.
pub(super) fn config(options: &Options) -> Result<ClientConfig, Error> {
    let no_tls = |error| usage(format!("this build has no TLS ({error}): build loadgen anew"));
    let mut roots = RootCertStore::empty();
    let ca = options.tls_ca.as_deref().unwrap_or_else(|| Path::new(""));
    for certificate in read_all("--tls-ca", ca)? {
        roots.add(certificate).map_err(|error| {
            let file = ca.display();
            usage(format!(
                "{file} (--tls-ca) has a certificate that can't be read: {error}; export it from \
                 the CA again"
            ))
        })?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(no_tls)?
        .with_root_certificates(roots);
    let mut config = match (&options.tls_cert, &options.tls_key) {
        (Some(certificate), Some(key)) => {
            let chain = read_all("--tls-cert", certificate)?;
            builder.with_client_auth_cert(chain, read_key(key)?).map_err(|error| {
                let (certificate, key) = (certificate.display(), key.display());
                usage(format!(
                    "{certificate} (--tls-cert) and {key} (--tls-key) can't be used together: \
                     {error}; give two files that were made together, with an ECDSA, RSA or \
                     Ed25519 key"
                ))
            })?
        }
        _ => builder.with_no_client_auth(),
    };
    config.resumption = match options.tls_no_resumption {
        true => Resumption::disabled(),
        false => Resumption::store(Arc::new(Tickets::new(options.connections()))),
    };
    Ok(config)
}

fn read_all(option: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    match found {
        Ok(certificates) if !Vec::is_empty(&certificates) => Ok(certificates),
        Ok(_) => Err(unreadable(option, path, &pem::Error::NoItemsFound, "certificate")),
        Err(error) => Err(unreadable(option, path, &error, "certificate")),
    }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let what = "private key without a password";
    PrivateKeyDer::from_pem_file(path).map_err(|error| unreadable("--tls-key", path, &error, what))
}

fn unreadable(option: &str, path: &Path, error: &pem::Error, what: &str) -> Error {
    let path = path.display();
    usage(match error {
        pem::Error::Io(cause) => {
            format!("{path} ({option}) can't be read: {cause}; give a file that you may read")
        }
        pem::Error::NoItemsFound => format!(
            "{path} ({option}) has no {what} in it: give a file in PEM form, with a line -----BEGIN"
        ),
        error => format!("{path} ({option}) is damaged: {error}; give a file in PEM form"),
    })
}

fn usage(sentence: String) -> Error {
    Error::Usage(sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_the_hosts_unless_one_is_given() {
        let name = |words: &[&str]| {
            let options = Options::of_words(words.iter().copied()).unwrap();
            server_name(&options).map(|name| name.to_str().into_owned())
        };
        for (addr, host) in [
            ("jobs.example.com:4730", "jobs.example.com"),
            ("jobs.example.com", "jobs.example.com"),
            ("10.0.0.1:4730", "10.0.0.1"),
            ("10.0.0.1", "10.0.0.1"),
            ("[::1]:4730", "::1"),
            ("::1", "::1"),
        ] {
            assert_eq!(name(&["--addr", addr]).unwrap(), host, "{addr}");
        }
        assert_eq!(name(&["--addr", "10.0.0.1", "--tls", "--tls-name", "jobs"]).unwrap(), "jobs");
        assert_eq!(name(&["--spawn"]).unwrap(), "127.0.0.1");
        let error = name(&["--addr", "a b:4730"]).unwrap_err().to_string();
        assert!(error.contains("a b (--addr)") && error.contains("--tls-name"), "{error}");
    }
}
