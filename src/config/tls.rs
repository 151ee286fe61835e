//! TLS as the options name it: files in, what all connections share out, or one sentence.
//!
//! Knows which option names which file; what is in them is `wire::tls`'s to say.
//!
//! Invariant: a sentence names the file and the remedy.

use std::ffi::OsString;
use std::io::{Error, ErrorKind};
use std::sync::Arc;

use super::{Options, SettingsError};
use crate::wire::tls::{ClientCertificates, Files, PemFile, TlsServer};

/// Largest file: revocation lists of large authorities have some megabytes.
pub const TLS_FILE_BYTES_MAX: usize = 64 << 20;

/// Where certificate and key are unless an option or a variable says so.
const CERTIFICATE: &str = "/etc/ringgear/tls/server.pem";
const KEY: &str = "/etc/ringgear/tls/server.key";

impl Options {
    /// Fills in what gearmand's variables say, where options don't.
    pub(super) fn read_tls_variables(&mut self, variable: impl Fn(&str) -> Option<OsString>) {
        if !self.speaks_tls() {
            return;
        }
        let text = |name| variable(name).map(|value| value.to_string_lossy().into_owned());
        for (option, name) in [
            (&mut self.ssl_certificate, "GEARMAND_SERVER_PEM"),
            (&mut self.ssl_key, "GEARMAND_SERVER_KEY"),
            (&mut self.ssl_ca_file, "GEARMAND_CA_CERTIFICATE"),
        ] {
            if option.is_none() {
                *option = text(name);
            }
        }
    }

    /// Whether clients are asked for certificates.
    #[must_use]
    pub fn asks_for_certificates(&self) -> bool {
        self.speaks_tls() && self.ssl_client_certificates != ClientCertificates::Off
    }

    /// The files that TLS is made of, unless no listener speaks it.
    #[must_use]
    pub fn tls_files(&self) -> Vec<&str> {
        if !self.speaks_tls() {
            return Vec::new();
        }
        let authorities = self.ssl_ca_file.as_deref().filter(|_| self.asks_for_certificates());
        let lists = self.ssl_crl_file.iter().map(String::as_str);
        [self.certificate_file(), self.key_file()]
            .into_iter()
            .chain(authorities)
            .chain(lists)
            .collect()
    }

    /// The file with the server's key.
    #[must_use]
    pub fn key_file(&self) -> &str {
        self.ssl_key.as_deref().unwrap_or(KEY)
    }

    /// The file with the server's certificate.
    #[must_use]
    pub fn certificate_file(&self) -> &str {
        self.ssl_certificate.as_deref().unwrap_or(CERTIFICATE)
    }

    /// Refuses options about TLS that contradict each other.
    pub(super) fn check_tls(&self) -> Result<(), SettingsError> {
        if self.asks_for_certificates() && self.ssl_ca_file.is_none() {
            return Err(SettingsError::NoAuthorities("ssl-client-certificates"));
        }
        if self.speaks_tls() && !self.ssl_crl_file.is_empty() && !self.asks_for_certificates() {
            return Err(SettingsError::ListsWithoutCertificates);
        }
        Ok(())
    }

    /// Reads the files; `None` if no listener speaks TLS. Sessions of `earlier` can be resumed if
    /// clients are trusted by the same files.
    ///
    /// # Errors
    /// What is wrong with a file, in one sentence.
    pub fn read_tls(
        &self,
        read_file: impl Fn(&str) -> std::io::Result<Vec<u8>>,
        earlier: Option<&TlsServer>,
    ) -> Result<Option<Arc<TlsServer>>, String> {
        if !self.speaks_tls() {
            return Ok(None);
        }
        let read = |path: &str, what: &str, option: &str| match read_file(path) {
            Ok(text) => Ok(PemFile { path: path.to_owned(), text }),
            Err(cause) => Err(self.unreadable(path, what, option, &cause)),
        };
        let authorities = self.ssl_ca_file.as_deref().filter(|_| self.asks_for_certificates());
        let files = Files {
            certificate: read(self.certificate_file(), "certificate", "ssl-certificate")?,
            key: read(self.key_file(), "key", "ssl-key")?,
            authorities: authorities
                .map(|path| read(path, "authorities' certificates", "ssl-ca-file"))
                .transpose()?,
            revocation_lists: self
                .ssl_crl_file
                .iter()
                .map(|path| read(path, "revocation list", "ssl-crl-file"))
                .collect::<Result<_, _>>()?,
            client_certificates: self.ssl_client_certificates,
            versions: self.ssl_min_version,
        };
        TlsServer::new(&files, earlier).map(|server| Some(Arc::new(server)))
    }

    fn unreadable(&self, path: &str, what: &str, option: &str, cause: &Error) -> String {
        let (cause, remedy) = match cause.kind() {
            ErrorKind::PermissionDenied => {
                let user = match &self.user {
                    Some(user) => format!("user {user}"),
                    None => "the user that the server runs as".to_owned(),
                };
                ("permission denied".to_owned(), format!("it must be readable by {user}"))
            }
            ErrorKind::NotFound => (
                "no such file".to_owned(),
                format!(
                    "name it with --{option}; docs/security.md \
                                                     tells how to make one"
                ),
            ),
            _ => (cause.to_string(), format!("name another one with --{option}")),
        };
        format!("cannot read the {what} {path}: {cause}; {remedy}")
    }
}
