//! What `/readyz` says while a server starts, waits, serves, drains and loses its store.

use std::net::SocketAddr;

use super::client::get;
use super::{address, start};
use crate::conn::{Conn, Item};
use crate::harness::{Contender, PATIENCE, Server, each_ringgear, wait_until};

each_ringgear!(a_server_that_drains_says_so);

/// Waits until `/readyz` says this.
fn wait_for(http: SocketAddr, status: u16, body: &str) {
    wait_until(body, || {
        let answer = get(http, "/readyz");
        (answer.status == status && answer.text() == body).then_some(())
    });
}

fn a_server_that_drains_says_so(contender: Contender) {
    let (server, http) = start(contender, &[]);
    wait_for(http, 200, "ok\n");
    let mut client = Conn::open(server.address());
    client.packet("SUBMIT_JOB", &[b"f", b"", b"x"]);
    assert!(matches!(client.next(), Ok(Item::Packet(8, _))));
    server.signal("USR1");
    wait_for(http, 503, "drain\n");
    assert_eq!(get(http, "/healthz").text(), "ok\n", "it is alive");
}

#[test]
fn a_standby_says_so_until_it_serves() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = format!("sqlite:{}", folder.path().join("jobs.db").display());
    let (active, http) = start(Contender::RinggearEpoll, &["--store", &store]);
    wait_for(http, 200, "ok\n");
    let options = ["--http", "127.0.0.1:0", "--standby", "--store", &store];
    let mut standby = Server::launch("epoll", 0, &options);
    let http = address(&standby);
    wait_for(http, 503, "standby\n");
    assert_eq!(get(http, "/healthz").text(), "ok\n", "it is alive");
    active.kill();
    standby.wait_until_it_listens();
    wait_for(http, 200, "ok\n");
}

#[test]
fn a_store_that_cannot_be_written_to_makes_a_server_unready() {
    for is_ready in [false, true] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("jobs.db");
        let store = format!("sqlite:{}", path.display());
        let mut options = vec!["--store", &store];
        options.extend(is_ready.then_some("--ready-without-store"));
        let (server, http) = start(Contender::RinggearEpoll, &options);
        wait_for(http, 200, "ok\n");
        let other = rusqlite::Connection::open(&path).expect("a database");
        other.busy_timeout(PATIENCE).expect("an option");
        other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
        let mut client = Conn::open(server.address());
        client.packet("SUBMIT_JOB_BG", &[b"f", b"", b"x"]);
        assert!(matches!(client.next(), Ok(Item::Packet(19, _))), "it is refused");
        match is_ready {
            false => wait_for(http, 503, "store\n"),
            true => assert_eq!(get(http, "/readyz").text(), "ok\n"),
        }
        drop(other);
        wait_for(http, 200, "ok\n");
    }
}
