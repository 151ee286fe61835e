//! TLS to PostgreSQL: each mode against servers with and without TLS, certificates good and bad.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use postgres::Client;
use ringgear::engine::record::Operation;
use ringgear::store::postgres::Postgres;
use ringgear::store::{OpenError, Store as _, StoreError};
use tempfile::TempDir;

use super::authority::{Authority, Issued, first_version, self_signed};
use super::server::{Server, backend, insert, insist, leave, numbers, open_at, row, wait_for};

const PLAIN: Result<bool, &str> = Ok(false);
const ENCRYPTED: Result<bool, &str> = Ok(true);

/// A client's folder with certificates.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// Writes a file; the result is its path.
    fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.folder.path().join(name), text).unwrap();
        self.path(name)
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Writes a certificate and its key; the result is the words for them.
    fn identity(&self, name: &str, issued: &Issued) -> String {
        let certificate = self.write(&format!("{name}.pem"), &issued.certificate);
        let key = self.write(&format!("{name}.key"), &issued.key);
        format!("sslcert={certificate} sslkey={key}")
    }
}

/// Turns TLS on with this certificate, from the next start on. `authority` vouches for clients.
fn set_certificate(server: &Server, issued: &Issued, authority: &Authority) {
    server.write_data("server.crt", &issued.certificate);
    server.write_data("server.key", &issued.key);
    server.write_data("clients.crt", &authority.certificate);
    server.write_data("postgresql.auto.conf", "ssl = on\nssl_ca_file = 'clients.crt'\n");
}

fn start_with_tls(issued: &Issued, authority: &Authority) -> Option<Server> {
    let mut server = Server::start_tcp()?;
    server.stop();
    set_certificate(&server, issued, authority);
    server.run();
    Some(server)
}

fn words(server: &Server, more: &str) -> String {
    let port = server.port();
    format!("hostaddr=127.0.0.1 port={port} user=postgres dbname=jobs {more}")
}

fn open(conninfo: &str) -> Result<Postgres, OpenError> {
    open_at(conninfo)
}

/// The store with these words, or the sentence.
fn try_words(server: &Server, more: &str) -> Result<Postgres, String> {
    open(&words(server, more)).map_err(|error| error.to_string())
}

/// Whether PostgreSQL says that the store's session is encrypted.
fn is_encrypted(admin: &mut Client) -> bool {
    let pid = backend(admin);
    admin.query_one("SELECT ssl FROM pg_stat_ssl WHERE pid = $1", &[&pid]).unwrap().get(0)
}

/// Opens the store with each of the words and compares: encrypted or not, or a part of the refusal.
fn expect(server: &Server, cases: &[(&str, Result<bool, &str>)]) {
    let mut admin = server.admin("jobs");
    for (more, expected) in cases {
        let found = try_words(server, more).map(|store| {
            let is_encrypted = is_encrypted(&mut admin);
            leave(store);
            let gone = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity \
                        WHERE application_name = 'ringgeard')";
            wait_for(&mut admin, gone);
            is_encrypted
        });
        match (&found, expected) {
            (Ok(found), Ok(expected)) if found == expected => {}
            (Err(sentence), Err(cause)) if sentence.contains(cause) => {
                let place = "can't use PostgreSQL database \"jobs\" at ";
                assert!(sentence.contains(place), "{more}: {sentence}");
            }
            _ => panic!("{more}: {found:?} rather than {expected:?}"),
        }
    }
}

#[test]
fn each_mode_against_servers_without_tls_and_with_each_kind_of_certificate() {
    let Some(mut server) = Server::start_tcp() else { return };
    let authority = Authority::new();
    let client = Files::new();
    let ca = &format!("sslrootcert={}", client.write("ca.pem", &authority.certificate));
    let foreign = &format!("sslrootcert={}", client.write("f.pem", &Authority::new().certificate));
    let with = |words: &str, root: &str| format!("{words} {root}");
    let [full, other_name] = ["host=localhost", "host=elsewhere.example"];

    let no_tls = Err("the server has no TLS, which sslmode=");
    expect(
        &server,
        &[
            ("sslmode=disable", PLAIN),
            ("sslmode=allow", PLAIN),
            ("sslmode=prefer", PLAIN),
            ("sslmode=require", no_tls),
            (&with("sslmode=require", ca), no_tls),
            (&with("sslmode=verify-ca", ca), no_tls),
            (&with("sslmode=verify-full host=localhost", ca), no_tls),
        ],
    );

    server.stop();
    let issued = authority.issue(&["localhost", "127.0.0.1"]);
    set_certificate(&server, &issued, &authority);
    server.run();
    let unknown = Err("was issued by none of");
    let name = Err("is for localhost, 127.0.0.1, not for elsewhere.example; connect by a name");
    expect(
        &server,
        &[
            ("sslmode=disable", PLAIN),
            ("sslmode=allow", PLAIN),
            ("sslmode=prefer", ENCRYPTED),
            ("sslmode=require", ENCRYPTED),
            (&with("sslmode=require", ca), ENCRYPTED),
            (&with("sslmode=verify-ca", ca), ENCRYPTED),
            // By name and by address.
            (&with(&format!("sslmode=verify-full {full}"), ca), ENCRYPTED),
            (&with("sslmode=verify-full", ca), ENCRYPTED),
            // Another authority than the client's. As in libpq, `prefer` does without TLS then.
            (&with("sslmode=prefer", foreign), PLAIN),
            (&with("sslmode=require", foreign), unknown),
            (&with("sslmode=verify-ca", foreign), unknown),
            (&with("sslmode=verify-full", foreign), unknown),
            ("sslmode=verify-full sslrootcert=system", unknown),
            // Another name.
            (&with("sslmode=prefer", &format!("{ca} {other_name}")), ENCRYPTED),
            (&with("sslmode=require", &format!("{ca} {other_name}")), ENCRYPTED),
            (&with("sslmode=verify-ca", &format!("{ca} {other_name}")), ENCRYPTED),
            (&with("sslmode=verify-full", &format!("{ca} {other_name}")), name),
        ],
    );

    server.stop();
    set_certificate(&server, &authority.issue_expired(&["127.0.0.1"]), &authority);
    server.run();
    let expired = Err("the server's certificate expired 2");
    expect(
        &server,
        &[
            ("sslmode=disable", PLAIN),
            ("sslmode=prefer", ENCRYPTED),
            ("sslmode=require", ENCRYPTED),
            (&with("sslmode=prefer", ca), PLAIN),
            (&with("sslmode=require", ca), expired),
            (&with("sslmode=verify-ca", ca), expired),
            (&with("sslmode=verify-full", ca), expired),
        ],
    );
}

#[test]
fn each_mode_against_a_server_that_asks_for_a_client_certificate() {
    let authority = Authority::new();
    let issued = authority.issue(&["127.0.0.1"]);
    let Some(mut server) = start_with_tls(&issued, &authority) else { return };
    server.stop();
    let rules = "local all all trust\n\
                 hostssl all all 127.0.0.1/32 trust clientcert=verify-ca\n";
    server.write_data("pg_hba.conf", rules);
    server.run();
    let client = Files::new();
    let root = format!("sslrootcert={}", client.write("ca.pem", &authority.certificate));
    let good = &client.identity("good", &authority.issue(&["ringgear"]));
    let foreign = &client.identity("foreign", &Authority::new().issue(&["ringgear"]));
    let expired = &client.identity("expired", &authority.issue_expired(&["ringgear"]));
    let with = |words: &str, identity: &str| format!("{words} {identity}");
    let missing = Err("name a certificate in sslcert and its key in sslkey");
    let refused = Err("the server refuses the client certificate in ");
    expect(
        &server,
        &[
            ("sslmode=disable", Err("no encryption")),
            (&with("sslmode=allow", good), ENCRYPTED),
            (&with("sslmode=prefer", good), ENCRYPTED),
            (&with("sslmode=require", good), ENCRYPTED),
            (&with(&format!("sslmode=verify-ca {root}"), good), ENCRYPTED),
            (&with(&format!("sslmode=verify-full {root}"), good), ENCRYPTED),
            ("sslmode=allow", missing),
            ("sslmode=prefer", missing),
            ("sslmode=require", missing),
            (&format!("sslmode=verify-full {root}"), missing),
            (&with("sslmode=require", foreign), refused),
            (&with("sslmode=require", expired), refused),
        ],
    );
}

#[test]
fn a_self_signed_certificate_is_its_own_root() {
    let issued = self_signed(&["localhost"]);
    let Some(server) = start_with_tls(&issued, &Authority::new()) else { return };
    let client = Files::new();
    let root = format!("sslrootcert={}", client.write("ca.pem", &issued.certificate));
    let other = self_signed(&["localhost"]).certificate;
    let other = format!("sslrootcert={}", client.write("other.pem", &other));
    let cases = [
        (format!("sslmode=verify-ca {root}"), ENCRYPTED),
        (format!("sslmode=verify-full host=localhost {root}"), ENCRYPTED),
        (
            format!("sslmode=verify-full host=elsewhere.example {root}"),
            Err("is for localhost, not for elsewhere.example"),
        ),
        (format!("sslmode=verify-ca {other}"), Err("is marked as a CA's and isn't in ")),
    ];
    expect(&server, &cases.each_ref().map(|(words, expected)| (&**words, *expected)));
}

/// As PostgreSQL's manual makes them with the OpenSSL of Debian 12.
#[test]
fn a_certificate_of_the_first_version_is_accepted_unless_it_has_to_be_verified() {
    let Some(server) = start_with_tls(&first_version(), &Authority::new()) else { return };
    let client = Files::new();
    let root = client.write("ca.pem", &Authority::new().certificate);
    let version = Err("is of X.509 version 1; have it issued as version 3");
    let cases = [
        ("sslmode=require".to_owned(), ENCRYPTED),
        ("sslmode=require channel_binding=require".to_owned(), version),
        (format!("sslmode=verify-ca sslrootcert={root}"), version),
    ];
    expect(&server, &cases.each_ref().map(|(words, expected)| (&**words, *expected)));
}

#[test]
fn a_revoked_certificate_is_refused() {
    let authority = Authority::new();
    let [good, bad] = [7, 8].map(|number| authority.issue_numbered(&["127.0.0.1"], number));
    let Some(mut server) = start_with_tls(&bad, &authority) else { return };
    let client = Files::new();
    let root = client.write("ca.pem", &authority.certificate);
    let list = client.write("list.pem", &authority.revoke(8, 2999));
    let old = client.write("old.pem", &authority.revoke(8, 2022));
    let foreign = client.write("foreign.pem", &Authority::new().revoke(8, 2999));
    let words = |list: &str| format!("sslmode=verify-ca sslrootcert={root} sslcrl={list}");
    let [list, old, foreign] = [words(&list), words(&old), words(&foreign)];
    expect(
        &server,
        &[
            (&list, Err("the server's certificate is revoked")),
            (&foreign, Err("sslcrl has no list of the CA")),
        ],
    );
    server.stop();
    set_certificate(&server, &good, &authority);
    server.run();
    expect(
        &server,
        &[(&list, ENCRYPTED), (&old, Err("a list in sslcrl should have been renewed "))],
    );
}

/// With a password that is bound to the server's certificate, too.
#[test]
fn jobs_are_stored_and_loaded_over_tls_and_so_after_a_lost_connection() {
    let authority = Authority::new();
    let issued = authority.issue(&["127.0.0.1"]);
    let Some(mut server) = start_with_tls(&issued, &authority) else { return };
    server.admin("jobs").batch_execute("ALTER ROLE postgres PASSWORD 'secret'").unwrap();
    server.stop();
    let rules = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
    server.write_data("pg_hba.conf", rules);
    server.run();
    let client = Files::new();
    let root = client.path("ca.pem");
    fs::write(&root, &authority.certificate).unwrap();
    let more =
        format!("password=secret channel_binding=require sslmode=verify-full sslrootcert={root}");
    let mut store = try_words(&server, &more).unwrap();
    let mut large = row(2);
    large.payload = (0..17 << 20).map(|at: u32| at.to_le_bytes()[0]).collect();
    let payload = large.payload.clone();
    let large = Operation::Insert { row: large, answered: false };
    store.commit(&[insert(1), large, insert(3)]).unwrap();
    store.commit(&[Operation::Remove { number: 1 }]).unwrap();
    assert_eq!(numbers(&mut store), [2, 3]);
    let mut admin = server.admin("jobs");
    assert!(is_encrypted(&mut admin));

    let pid = backend(&mut admin);
    admin.execute("SELECT pg_terminate_backend($1)", &[&pid]).unwrap();
    wait_for(&mut admin, &format!("SELECT NOT EXISTS (SELECT FROM pg_locks WHERE pid = {pid})"));
    assert!(store.commit(&[insert(4)]).is_err());
    insist(&mut store, &[insert(4)]);
    assert!(is_encrypted(&mut admin));
    assert_ne!(backend(&mut admin), pid);

    // Files are read anew at each connection, and waiting mends what is wrong with them.
    fs::remove_file(&root).unwrap();
    let pid = backend(&mut admin);
    admin.execute("SELECT pg_terminate_backend($1)", &[&pid]).unwrap();
    let mut commit = || match store.commit(&[insert(5)]) {
        Err(StoreError::Unavailable(sentence)) => sentence,
        other => panic!("{other:?}"),
    };
    commit();
    let sentence = commit();
    assert!(sentence.contains("(sslrootcert) can't be read: No such file"), "{sentence}");
    fs::write(&root, &authority.certificate).unwrap();
    insist(&mut store, &[insert(5)]);
    let rows = super::server::load(&mut store);
    assert_eq!(rows.iter().map(|row| row.number).collect::<Vec<_>>(), [2, 3, 4, 5]);
    assert!(rows[0].payload == payload);
    assert!(is_encrypted(&mut admin));
}

#[test]
fn the_second_host_takes_over_with_tls() {
    let authority = Authority::new();
    let issued = authority.issue(&["127.0.0.1", "localhost"]);
    let Some(mut server) = start_with_tls(&issued, &authority) else { return };
    let copy = server.start_standby();
    let client = Files::new();
    let root = client.write("ca.pem", &authority.certificate);
    let [here, there] = [server.port(), copy.port()];
    let conninfo = |hosts: &str| {
        format!(
            "host={hosts} hostaddr=127.0.0.1,127.0.0.1 port={here},{there} user=postgres \
             dbname=jobs sslmode=verify-full sslrootcert={root}"
        )
    };
    // A host whose certificate has another name is passed over, as one is that is down.
    let Err(error) = open(&conninfo("elsewhere.example,localhost")) else { panic!("a store") };
    let sentence = error.to_string();
    let cause = format!("at elsewhere.example port {here}: the server's certificate is for ");
    assert!(sentence.contains(&cause), "{sentence}");
    let cause = format!("at localhost port {there} is read-only");
    assert!(sentence.contains(&cause), "{sentence}");

    server.wait_for_standbys(1);
    let mut store = open(&conninfo("localhost,localhost")).unwrap();
    store.commit(&[insert(1), insert(2)]).unwrap();
    server.kill();
    copy.promote();
    insist(&mut store, &[Operation::Remove { number: 1 }]);
    assert_eq!(numbers(&mut store), [2]);
    assert!(is_encrypted(&mut copy.admin("jobs")));
}

/// Answers the request for TLS, and then with `answer` only.
fn false_server(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // The thread ends with the test's process.
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            client.read_exact(&mut [0; 8]).unwrap();
            client.write_all(b"S").unwrap();
            client.write_all(answer).unwrap();
            let _ = client.read_to_end(&mut Vec::new());
        }
    });
    port
}

#[test]
fn the_time_limit_covers_the_handshake() {
    let port = false_server(b"");
    for mode in ["prefer", "require"] {
        let started = Instant::now();
        let error =
            open(&format!("host=127.0.0.1 port={port} user=u connect_timeout=1 sslmode={mode}"));
        let sentence = error.unwrap_err().to_string();
        assert!(sentence.contains("didn't answer for 1 s"), "{sentence}");
        assert!(started.elapsed() < Duration::from_secs(10));
    }
    let port = false_server(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    let error = open(&format!("host=127.0.0.1 port={port} user=u sslmode=require")).unwrap_err();
    assert!(error.to_string().contains("PostgreSQL is what answers there"), "{error}");
}

/// PostgreSQL 17 and later take it; they insist on their protocol's name in the handshake.
#[test]
fn a_direct_handshake_comes_first_and_names_the_protocol() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let mut client = listener.accept().unwrap().0;
        let mut header = [0; 5];
        client.read_exact(&mut header).unwrap();
        let mut hello = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
        client.read_exact(&mut hello).unwrap();
        (header[0], hello)
    });
    let words = "user=u sslmode=require sslnegotiation=direct";
    let error = open(&format!("host=127.0.0.1 port={port} {words}")).unwrap_err();
    let (kind, hello) = server.join().unwrap();
    assert_eq!(kind, 22, "a handshake");
    assert!(hello.windows(10).any(|part| part == b"postgresql"), "{error}");
}

#[test]
fn files_that_cant_be_used_are_named_with_the_remedy() {
    let authority = Authority::new();
    let [one, other] = [authority.issue(&["a"]), authority.issue(&["a"])];
    let client = Files::new();
    let ca = client.write("ca.pem", &authority.certificate);
    let empty = client.write("empty.pem", "");
    let damaged = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
    let damaged = client.write("damaged.pem", damaged);
    let [certificate, key] = ["one.pem", "one.key"].map(|name| client.path(name));
    client.identity("one", &one);
    client.identity("other", &other);
    let other_key = client.path("other.key");
    let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----";
    let locked = client.write("locked.key", locked);
    let folder = client.folder.path().display();
    for (words, cause) in [
        (format!("sslrootcert={folder}/none"), "/none (sslrootcert) can't be read: No such file"),
        (format!("sslrootcert={empty}"), "has no certificate in it: name a file in PEM form"),
        (format!("sslrootcert={damaged}"), "damaged.pem (sslrootcert) is damaged"),
        (format!("sslcert={folder}/none sslkey={key}"), "/none (sslcert) can't be read"),
        (format!("sslcert={certificate} sslkey={folder}/none"), "/none (sslkey) can't be read"),
        (format!("sslcert={certificate} sslkey={other_key}"), "isn't the key of the certificate"),
        (format!("sslcert={certificate} sslkey={certificate}"), "has no private key without a"),
        (format!("sslcert={certificate} sslkey={locked}"), "has no private key without a"),
        (format!("sslrootcert={ca} sslcrl={ca}"), "has no revocation list in it"),
    ] {
        match open(&format!("host=127.0.0.1 port=1 user=u sslmode=require {words}")) {
            Err(OpenError::Store(StoreError::Unusable(sentence))) => {
                assert!(sentence.contains(cause), "{words}: {sentence}");
            }
            other => panic!("{words}: {other:?}"),
        }
    }
}
