//! Several servers, servers that go and come, and TLS.

use std::fs;

use crate::authority::Authority;
use crate::child::wait_until;
use crate::client::{Client, Ending};
use crate::manager::{Manager, free_port, worker};
use crate::server::Server;

fn hello() -> Ending {
    Ending::Complete(b"hello".to_vec())
}

#[test]
fn jobs_of_all_servers_are_done_also_of_one_that_was_gone() {
    let (one, other) = (Server::start(), Server::start());
    let servers = [one.address.to_string(), other.address.to_string()];
    let manager = Manager::start_at(&servers, "", &worker("exec", "cat", "count = 2"));
    for server in [&one, &other] {
        assert_eq!(Client::connect(server.address).ending("f", b"hello"), hello());
    }
    let port = one.kill();
    for _ in 0..5 {
        assert_eq!(Client::connect(other.address).ending("f", b"hello"), hello());
    }
    let one = Server::start_with(port, &[]);
    for server in [&one, &other, &one] {
        assert_eq!(Client::connect(server.address).ending("f", b"hello"), hello());
    }
    manager.stop();
}

#[test]
fn a_busy_server_doesnt_starve_the_other() {
    let (busy, calm) = (Server::start(), Server::start());
    let mut flood = Client::connect(busy.address);
    for _ in 0..500 {
        flood.send("SUBMIT_JOB_BG", "f", "", b"x");
    }
    wait_until("the flood to be there", || (busy.function("f").jobs == 500).then_some(()));
    let mut client = Client::connect(calm.address);
    let handle = client.submit("f", b"hello");
    let servers = [busy.address.to_string(), calm.address.to_string()];
    let manager = Manager::start_at(&servers, "", &worker("exec", "cat", ""));
    assert_eq!(client.wait(&handle).ending, Some(hello()));
    assert!(busy.function("f").jobs > 0, "it was done before the flood was over");
    drop(manager);
}

#[test]
fn a_server_that_starts_after_the_manager_is_found() {
    let port = free_port();
    let manager = Manager::start_at(&[format!("127.0.0.1:{port}")], "", &worker("exec", "cat", ""));
    manager.wait_for_log("WARN");
    let server = Server::start_with(port, &[]);
    assert_eq!(Client::connect(server.address).ending("f", b"hello"), hello());
    manager.stop();
}

#[test]
fn a_server_is_reached_over_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}/socket", folder.path().display());
    let server = Server::start_with(0, &["--listen", &socket]);
    let manager = Manager::start_at(&[socket], "", &worker("exec", "cat", ""));
    assert_eq!(Client::connect(server.address).ending("f", b"hello"), hello());
    manager.stop();
}

#[test]
fn each_instance_has_an_id_of_its_own() {
    let server = Server::start();
    let _manager = Manager::start(&server, &worker("exec", "cat", "count = 2"));
    wait_until("two workers", || (server.function("f").workers == 2).then_some(()));
    let ids = wait_until("two ids", || {
        let mut conn = crate::conn::Conn::open(server.address);
        conn.send(b"workers\n");
        let mut ids = Vec::new();
        while let Ok(crate::conn::Item::Line(line)) = conn.next() {
            let line = String::from_utf8(line).unwrap();
            if line == ".\n" {
                break;
            }
            ids.extend(line.split(' ').nth(2).filter(|id| id.starts_with("w@")).map(str::to_owned));
        }
        (ids.len() == 2).then_some(ids)
    });
    let mut ends: Vec<&str> = ids.iter().map(|id| id.rsplit('/').next().unwrap()).collect();
    ends.sort_unstable();
    assert_eq!(ends, ["1", "2"], "{ids:?}");
}

/// Files of a server that asks for certificates, and of a manager that has one.
#[test]
fn tls_needs_the_authority_and_shows_the_managers_certificate() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let ca = write("ca.pem", &authority.certificate);
    let issued = authority.issue(&["localhost", "127.0.0.1"]);
    let [certificate, key] =
        [write("server.pem", &issued.certificate), write("server.key", &issued.key)];
    let server = Server::start_with(
        0,
        &[
            "--listen=tls:127.0.0.1:0",
            "--ssl-certificate",
            &certificate,
            "--ssl-key",
            &key,
            "--ssl-ca-file",
            &ca,
            "--ssl-client-certificates",
            "required",
        ],
    );
    let servers = [format!("localhost:{}", server.tls_port())];
    let issued = authority.issue(&["manager"]);
    let [certificate, key] =
        [write("manager.pem", &issued.certificate), write("manager.key", &issued.key)];
    let other = write("other.pem", &Authority::new().certificate);
    let tls = |ca: &str, own: &str| format!("[tls]\nca = \"{ca}\"\n{own}");
    let own = format!("certificate = \"{certificate}\"\nkey = \"{key}\"");

    let manager = Manager::start_at(&servers, &tls(&ca, &own), &worker("exec", "cat", ""));
    assert_eq!(Client::connect(server.address).ending("f", b"hello"), hello());
    manager.stop();

    for keys in [tls(&ca, ""), tls(&other, &own), String::new()] {
        let manager = Manager::start_at(&servers, &keys, &worker("exec", "cat", ""));
        manager.wait_for_log("WARN");
        assert_eq!(server.function("f").workers, 0, "{keys}");
        manager.stop();
    }
}
