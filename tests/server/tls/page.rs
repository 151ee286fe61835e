//! The commands and files of docs/security.md, run word for word.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustls::version::TLS13;
use tempfile::TempDir;

use super::client::{begin, config, echo};
use crate::authority::Issued;
use crate::harness::{Contender, Server, tool};
use crate::tools::run;

const PAGE: &str = include_str!("../../../docs/security.md");

/// The first block of this language behind a heading.
fn block(heading: &str, language: &str) -> &'static str {
    let (_, section) = PAGE.split_once(&format!("\n{heading}\n")).expect("the heading");
    let (_, rest) = section.split_once(&format!("\n```{language}\n")).expect("a block");
    rest.split_once("\n```\n").expect("its end").0
}

/// The page's file for stunnel.
pub(super) fn stunnel_file() -> &'static str {
    block("### stunnel", "ini")
}

/// Runs commands in a folder, up to the first that fails.
fn shell(folder: &TempDir, commands: &str) {
    let mut command = Command::new("sh");
    let output = command.args(["-e", "-c", commands]).current_dir(folder).output();
    let output = output.expect("a shell");
    assert!(output.status.success(), "{output:?}");
}

fn read(folder: &Path, name: &str) -> Issued {
    let read = |ending: &str| fs::read_to_string(folder.join(format!("{name}.{ending}")));
    Issued { certificate: read("pem").expect("a file"), key: read("key").expect("a file") }
}

/// A server with the certificate of a folder that asks clients for one.
fn start(folder: &TempDir, server: &str, ca: &str) -> Server {
    let at = |name: &str| folder.path().join(name).display().to_string();
    let [certificate, key] = ["pem", "key"].map(|ending| at(&format!("{server}.{ending}")));
    let options = ["--ssl", "--ssl-certificate", &certificate, "--ssl-key", &key];
    let asking = ["--ssl-ca-file", &at(ca), "--ssl-client-certificates", "required"];
    let options = [&options[..], &asking].concat();
    Server::start_with(Contender::RinggearEpoll, &options).expect("this project's own")
}

#[test]
fn the_commands_make_certificates_that_server_and_client_take() {
    if tool("openssl").is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    shell(&folder, block("### Certificates", "sh"));
    let path = |name: &str| folder.path().join(name).display().to_string();
    let [ca, server, client] = ["ca.pem", "server.pem", "client.pem"].map(path);
    for (purpose, file) in [("sslserver", &server), ("sslclient", &client)] {
        let words = ["verify", "-CAfile", &ca, "-purpose", purpose, file];
        let verified = run("openssl", &words, b"");
        assert!(verified.status.success(), "{verified:?}");
        let words = ["x509", "-in", file, "-noout", "-text"];
        let text = run("openssl", &words, b"").stdout;
        assert!(text.contains("Version: 3") && text.contains("CA:FALSE"), "{text}");
    }

    let server = start(&folder, "server", "ca.pem");
    let authority = fs::read_to_string(ca).expect("a file");
    let config = config(&authority, Some(&read(folder.path(), "client")), &TLS13);
    let mut stream = begin(server.connect(), config).expect("a session");
    echo(&mut stream).expect("a reply");
}

/// gearmand's documentation makes certificates of version 1 for clients.
const GEARMANDS: &str = "\
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out gearmand-ca.key
openssl req -x509 -new -key gearmand-ca.key -sha256 -days 3650 -subj '/CN=Root' \
    -out gearmand-ca.pem
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out gearmand.key
openssl req -new -key gearmand.key -subj '/CN=gearmand-server.local' -out gearmand.req
printf '%s\\n' 'basicConstraints=CA:FALSE' 'keyUsage = digitalSignature, keyEncipherment' \
    'extendedKeyUsage = serverAuth, clientAuth' 'subjectAltName = DNS:jobs.example.com' > ext.cnf
openssl x509 -req -in gearmand.req -CA gearmand-ca.pem -CAkey gearmand-ca.key -CAcreateserial \
    -out gearmand.pem -days 730 -sha256 -extfile ext.cnf
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out gearman.key
openssl req -new -key gearman.key -subj '/CN=gearman-client' -out gearman.req
openssl x509 -req -in gearman.req -CA gearmand-ca.pem -CAkey gearmand-ca.key -CAcreateserial \
    -out gearman.pem -days 730 -sha256
";

#[test]
fn a_certificate_made_for_gearmand_is_refused_with_the_remedy_and_reissued_by_the_command() {
    if tool("openssl").is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    shell(&folder, GEARMANDS);
    let server = start(&folder, "gearmand", "gearmand-ca.pem");
    let authority = fs::read_to_string(folder.path().join("gearmand-ca.pem")).expect("a file");
    let try_it = || {
        let config = config(&authority, Some(&read(folder.path(), "gearman")), &TLS13);
        begin(server.connect(), config).and_then(|mut stream| echo(&mut stream))
    };
    try_it().expect_err("version 1");
    let line = server.wait_for_log("tls refused", |rest| Some(rest.to_owned()));
    assert!(line.contains("version 1") && line.contains("remedy="), "{line}");
    shell(&folder, block("### Client certificates", "sh"));
    try_it().expect("a certificate of version 3");
}
