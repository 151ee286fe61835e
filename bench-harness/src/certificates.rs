//! A certificate for the servers that are measured over TLS, and its files.
//!
//! Invariant: the files last as long as the `Certificates`.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use tempfile::TempDir;

/// Where servers listen, and what the certificate is for.
pub(crate) const HOST: &str = "127.0.0.1";

/// The files of a server's certificate, in a folder of their own.
#[derive(Debug)]
pub(crate) struct Certificates {
    folder: TempDir,
}

impl Certificates {
    /// Of a new authority; on P-256, as most are.
    pub(crate) fn new() -> Result<Self> {
        let mut authority = CertificateParams::default();
        authority.distinguished_name.push(DnType::CommonName, "bench-harness");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let server = CertificateParams::new([HOST.to_owned()])?.signed_by(&key, &issuer)?;
        let this = Self { folder: tempfile::tempdir()? };
        std::fs::write(this.ca(), issuer.pem())?;
        std::fs::write(this.certificate(), server.pem())?;
        // Servers warn of a key that others can read.
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(this.key())?;
        file.write_all(key.serialize_pem().as_bytes())?;
        Ok(this)
    }

    /// The authority's certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The server's certificate.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.path().join("server.pem")
    }

    /// The private key of that.
    pub(crate) fn key(&self) -> PathBuf {
        self.folder.path().join("server.key")
    }

    /// Gives a server its options: ringgear's and gearmand's have the same names.
    pub(crate) fn tell(&self, command: &mut Command) {
        command.args(["--ssl", "--ssl-certificate"]).arg(self.certificate());
        command.arg("--ssl-key").arg(self.key());
    }
}
