//! TLS with real peers: a folder with certificates in, a server that speaks TLS out.
//!
//! Clients are other people's programs, in `peers` and `page`, and rustls, in `client`, where a
//! test has to see alerts and sessions.

mod access;
pub(crate) mod client;
mod flood;
mod page;
mod peers;
mod refusals;
mod reload;

use std::fs;
use std::net::SocketAddr;

use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
use tempfile::TempDir;

use crate::authority::{Authority, Issued};
use crate::harness::{Contender, Server};

/// Certificates of a server and of clients, as files.
pub(crate) struct Files {
    folder: TempDir,
    pub(crate) authority: Authority,
    /// What clients show that may.
    pub(crate) web1: Issued,
}

impl Files {
    /// `ca.pem`, `server.pem`, `server.key`, `web1.pem` and `web1.key`.
    pub(crate) fn new() -> Self {
        let authority = Authority::new();
        let names = ["jobs.example.com", "localhost", "127.0.0.1"];
        let server = authority.issue_for(&names, &[ServerAuth]);
        let web1 = authority.issue_for(&["web1"], &[ClientAuth]);
        let this = Self { folder: tempfile::tempdir().expect("a folder"), authority, web1 };
        this.write("ca.pem", &this.authority.certificate);
        this.write("server.pem", &server.certificate);
        this.write("server.key", &server.key);
        this.write("web1.pem", &this.web1.certificate);
        this.write("web1.key", &this.web1.key);
        this
    }

    /// Writes a file; the result is its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.folder.path().join(name), text).expect("the folder is writable");
        self.path(name)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("text").to_owned()
    }

    /// A server that asks for certificates of `ca.pem` and turns clients without away.
    pub(crate) fn start(&self, contender: Contender, more: &[&str]) -> Server {
        let [certificate, key, ca] = ["server.pem", "server.key", "ca.pem"].map(|f| self.path(f));
        let options = ["--ssl", "--ssl-certificate", &certificate, "--ssl-key", &key];
        let asking = ["--ssl-ca-file", &ca, "--ssl-client-certificates", "required"];
        let options = [&options[..], &asking, more].concat();
        Server::start_with(contender, &options).expect("this project's own")
    }

    /// A server that asks for no certificates.
    pub(crate) fn start_without_asking(&self, contender: Contender, more: &[&str]) -> Server {
        let [certificate, key] = ["server.pem", "server.key"].map(|file| self.path(file));
        let options = ["--ssl", "--ssl-certificate", &certificate, "--ssl-key", &key];
        Server::start_with(contender, &[&options[..], more].concat()).expect("this project's own")
    }

    /// A server with a plain listener, whose address is the server's, and one with TLS, whose
    /// address is beside it. It asks for certificates and takes clients without.
    pub(crate) fn start_beside_plain(
        &self,
        contender: Contender,
        more: &[&str],
    ) -> (Server, SocketAddr) {
        let [certificate, key, ca] = ["server.pem", "server.key", "ca.pem"].map(|f| self.path(f));
        let options = ["--listen", "127.0.0.1:0", "--listen", "tls:127.0.0.1:0"];
        let files = ["--ssl-certificate", &certificate, "--ssl-key", &key, "--ssl-ca-file", &ca];
        let asking = ["--ssl-client-certificates", "optional"];
        let options = [&options[..], &files, &asking, more].concat();
        let server = Server::start_with(contender, &options).expect("this project's own");
        let port = server.wait_for_log("listening on tls:127.0.0.1:", |rest| {
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        });
        let mut address = server.address();
        address.set_port(port);
        (server, address)
    }

    /// Key, certificate and authority for the scripts of `interop/scripts`, behind an address.
    pub(crate) fn for_scripts(&self) -> String {
        ["web1.key", "web1.pem", "ca.pem"].map(|f| format!(",{}", self.path(f))).concat()
    }
}
