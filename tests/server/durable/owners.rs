//! One server at a time on a SQLite file, whatever is done to its lock and its name.

use std::fs;

use super::standby::Standby;
use super::{Database, drain_texts, is_error, submit_bg};
use crate::conn::{Conn, Item};
use crate::harness::{Contender, Server, each_ringgear};

each_ringgear!(
    a_removed_lock_file_lets_no_second_server_in,
    a_second_name_of_the_file_lets_no_second_server_in,
    a_server_whose_file_another_one_serves_stops_at_once,
);

fn refusal(store: &str) -> String {
    Server::launch("epoll", 0, &["--store", store]).wait_for_failure()
}

/// To remove it is an operator's reflex; then two servers handed out the same jobs.
fn a_removed_lock_file_lets_no_second_server_in(contender: Contender) {
    let database = Database::new();
    let server = database.serve(contender, &[]);
    let mut client = Conn::open(server.address());
    submit_bg(&mut client, "f", "before");
    let remove = || fs::remove_file(format!("{}.lock", database.path().display()));
    for _ in 0..2 {
        remove().expect("a lock");
        let sentence = refusal(&database.store);
        assert!(sentence.contains("belongs to another ringgeard"), "{sentence}");
        assert!(sentence.contains("its lock file was removed"), "{sentence}");
    }
    remove().expect("a lock");
    let mut standby = Standby::start(contender, &database.store);
    submit_bg(&mut client, "f", "after");
    standby.assert_refuses();
    server.kill();
    standby.server.wait_until_it_listens();
    assert_eq!(drain_texts(&standby.server, &["f"]), ["before", "after"]);
}

/// SQLite would keep a log beside each of the names, too.
fn a_second_name_of_the_file_lets_no_second_server_in(contender: Contender) {
    let database = Database::new();
    let server = database.serve(contender, &[]);
    let mut client = Conn::open(server.address());
    submit_bg(&mut client, "f", "before");
    let link = database.folder.path().join("link.db");
    fs::hard_link(database.path(), &link).expect("a link");
    let linked = format!("sqlite:{}", link.display());
    let sentence = refusal(&linked);
    assert!(sentence.contains("belongs to another ringgeard"), "{sentence}");
    assert!(sentence.contains("under another name of the file"), "{sentence}");
    submit_bg(&mut client, "f", "after");
    server.kill();
    for store in [&linked, &database.store] {
        let sentence = refusal(store);
        assert!(sentence.contains("has 2 names (hard links)"), "{sentence}");
    }
    fs::remove_file(link).expect("a link");
    let server = database.serve(contender, &[]);
    assert_eq!(drain_texts(&server, &["f"]), ["before", "after"]);
    server.stop();
}

/// Where the file system keeps no locks, the file itself says whose it is.
fn a_server_whose_file_another_one_serves_stops_at_once(contender: Contender) {
    let take = "UPDATE ringgear_owner SET generation = generation + 1";
    for is_idle in [true, false] {
        let database = Database::new();
        let server = database.serve(contender, &[]);
        let mut client = Conn::open(server.address());
        submit_bg(&mut client, "f", "before");
        let shell = rusqlite::Connection::open(database.path()).expect("a database");
        shell.execute_batch(take).expect("good SQL");
        if !is_idle {
            client.packet("SUBMIT_JOB_BG", &[b"f", b"", b"after"]);
            match client.next() {
                Ok(Item::End) => {}
                Ok(item) => assert!(is_error(&item, "QUEUE_ERROR"), "{item:?}"),
                silence => panic!("{silence:?}"),
            }
        }
        let sentence = server.wait_for_failure();
        assert!(sentence.starts_with("the store is lost: another server has taken"), "{sentence}");
        let kept: Vec<String> = database.select("SELECT CAST(payload AS TEXT) FROM ringgear_job");
        assert_eq!(kept, ["before"]);
    }
}
