//! PostgreSQL goes away, or gives the jobs to another server, while this one runs.

use std::time::Duration;

use super::faults::{insist, refuses_the_background_only};
use super::standby::{Standby, url};
use super::{
    created, drain_texts, is_error, is_known, run_in_foreground, start, submit_bg, worker,
};
use crate::conn::{Conn, Item};
use crate::harness::{Contender, Server, wait_until};
use crate::postgresql;

const CONTENDERS: [Contender; 3] =
    [Contender::RinggearEpoll, Contender::RinggearUring3, Contender::RinggearGlommio2];

/// Runs a test on a database of its own, on one core and on several.
fn each(test: impl Fn(Contender, postgresql::Server)) {
    for contender in CONTENDERS.into_iter().filter(|contender| contender.is_here()) {
        let Some(server) = postgresql::Server::start() else { return };
        test(contender, server);
    }
}

#[test]
fn while_it_is_away_background_jobs_are_refused_and_nothing_else() {
    each(|contender, mut postgresql| {
        let options = ["--store", &url(&postgresql)];
        let server = start(contender, &options);
        let mut client = Conn::open(server.address());
        let first = submit_bg(&mut client, "f", "first");
        submit_bg(&mut client, "done meanwhile", "x");
        postgresql.kill();
        refuses_the_background_only(&server);
        server.wait_for_log("the store is down", |_| Some(()));
        postgresql.run();
        let second = insist(&mut client, "f", "second");
        server.wait_for_log("the store is back", |_| Some(()));
        server.kill();

        let server = start(contender, &options);
        let mut client = Conn::open(server.address());
        assert!(is_known(&mut client, &first) && is_known(&mut client, &second));
        assert_eq!(server.admin("status"), "f\t2\t0\t0\n.\n");
        assert_eq!(drain_texts(&server, &["f"]), ["first", "second"]);
        server.stop();
    });
}

#[test]
fn with_a_store_timeout_they_wait_for_its_return() {
    each(|contender, mut postgresql| {
        let store = url(&postgresql);
        let server = start(contender, &["--store", &store, "--store-timeout", "60000"]);
        let mut client = Conn::open(server.address());
        let first = submit_bg(&mut client, "f", "first");
        postgresql.kill();
        client.packet("SUBMIT_JOB_BG", &[b"f", b"", b"patient"]);
        server.wait_for_log("the store is down", |_| Some(()));
        let mut front = Conn::open(server.address());
        let mut front_worker = worker(&server, &["front"]);
        for _ in 0..20 {
            run_in_foreground(&mut front, &mut front_worker, "x");
        }
        let early = client.next_within(Duration::from_millis(300));
        assert!(early.is_err(), "{early:?}");
        postgresql.run();
        let patient = created(&mut client);
        server.kill();
        let server = start(contender, &["--store", &store]);
        let mut client = Conn::open(server.address());
        assert!(is_known(&mut client, &first) && is_known(&mut client, &patient));
        assert_eq!(drain_texts(&server, &["f"]), ["first", "patient"]);
    });
}

#[test]
fn a_server_that_finds_no_database_says_so() {
    let Some(mut postgresql) = postgresql::Server::start() else { return };
    let store = url(&postgresql);
    let nowhere = store.replace("/jobs", "/nowhere");
    let refusal = |store: &str| Server::launch("epoll", 0, &["--store", store]).wait_for_failure();
    assert!(refusal(&nowhere).contains("nowhere"), "{}", refusal(&nowhere));
    let owner = start(CONTENDERS[0], &["--store", &store]);
    let sentence = refusal(&store);
    assert!(sentence.contains("are served by") && sentence.contains("--standby"), "{sentence}");
    submit_bg(&mut Conn::open(owner.address()), "f", "x");
    owner.stop();
    postgresql.stop();
    let folder = postgresql.socket().parent().expect("a folder").display().to_string();
    let sentence = refusal(&store);
    assert!(sentence.contains(&folder), "{sentence}");
}

/// Ends the session of the owner at the database.
fn terminate_owner(postgresql: &postgresql::Server) {
    let mut admin = postgresql.admin("jobs");
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_locks \
               WHERE locktype = 'advisory' AND granted";
    assert_eq!(admin.query(sql, &[]).expect("an answer").len(), 1);
}

fn lost(server: Server) {
    let sentence = server.wait_for_failure();
    assert!(sentence.starts_with("the store is lost: another server has taken over"), "{sentence}");
}

/// Owner and standby race for the lock that the owner's session had. Either may win: an owner that
/// has something to commit notices at once, one that has not within a second.
#[test]
fn after_the_owners_session_was_ended_exactly_one_serves() {
    each(|contender, postgresql| {
        let store = url(&postgresql);
        let mut owner = start(contender, &["--store", &store]);
        let (mut acknowledged, mut refused) = (Vec::new(), Vec::new());
        for round in 0..4 {
            let mut standby = Standby::start(contender, &store);
            let mut client = Conn::open(owner.address());
            for at in 0..10 {
                let payload = format!("{round}: {at}");
                acknowledged.push((submit_bg(&mut client, "f", &payload), payload));
            }
            terminate_owner(&postgresql);
            if round % 2 == 1 {
                let payloads = (10..40).map(|at| format!("{round}: {at}"));
                for payload in payloads.clone() {
                    client.packet("SUBMIT_JOB_BG", &[b"f", b"", payload.as_bytes()]);
                }
                for payload in payloads {
                    match client.next().expect("an answer") {
                        Item::Packet(8, handle) => {
                            let handle = String::from_utf8(handle).expect("a handle");
                            acknowledged.push((handle, payload));
                        }
                        Item::End => break,
                        item => {
                            assert!(is_error(&item, "QUEUE_ERROR"), "{item:?}");
                            refused.push(payload);
                        }
                    }
                }
            }
            let standby_won = wait_until("a winner", || {
                if owner.log().contains("connected to ") {
                    return Some(false);
                }
                standby.server.log().contains("listening on").then_some(true)
            });
            eprintln!("round {round}: the standby won: {standby_won}");
            if standby_won {
                lost(owner);
            } else {
                insist(&mut client, "g", "the owner serves");
                standby.assert_refuses();
                owner.kill();
            }
            standby.server.wait_until_it_listens();
            owner = standby.server;
            let mut client = Conn::open(owner.address());
            for (handle, payload) in &acknowledged {
                assert!(is_known(&mut client, handle), "{payload}, {standby_won}");
            }
        }
        let mut jobs = drain_texts(&owner, &["f"]);
        assert!(!jobs.iter().any(|job| refused.contains(job)), "{jobs:?} {refused:?}");
        // One that got no answer may be there.
        jobs.retain(|job| acknowledged.iter().any(|(_, text)| text == job));
        let payloads: Vec<String> = acknowledged.into_iter().map(|(_, text)| text).collect();
        assert_eq!(jobs, payloads);
        owner.stop();
    });
}

/// An owner that stood still while another took over acknowledges nothing when it goes on.
#[test]
fn an_owner_that_was_replaced_as_it_stood_still_ends() {
    each(|contender, postgresql| {
        let store = url(&postgresql);
        let owner = start(contender, &["--store", &store, "--store-timeout", "60000"]);
        let mut standby = Standby::start(contender, &store);
        let mut client = Conn::open(owner.address());
        let handles: Vec<String> =
            (0..10).map(|at| submit_bg(&mut client, "f", &format!("{at}"))).collect();
        owner.signal("STOP");
        for _ in 0..10 {
            client.packet("SUBMIT_JOB_BG", &[b"f", b"", b"late"]);
        }
        terminate_owner(&postgresql);
        standby.server.wait_until_it_listens();
        owner.signal("CONT");
        lost(owner);
        loop {
            match client.next() {
                Ok(Item::End) => break,
                Ok(item) => assert!(is_error(&item, "QUEUE_ERROR"), "{item:?}"),
                silence => panic!("{silence:?}"),
            }
        }
        let server = standby.server;
        let mut client = Conn::open(server.address());
        for handle in &handles {
            assert!(is_known(&mut client, handle), "{handle}");
        }
        assert_eq!(drain_texts(&server, &["f"]).len(), 10);
        server.stop();
    });
}

/// Nobody submits anything, and yet the old owner has to find out.
#[test]
fn an_idle_owner_that_was_replaced_ends() {
    each(|contender, postgresql| {
        let store = url(&postgresql);
        let owner = start(contender, &["--store", &store]);
        let mut standby = Standby::start(contender, &store);
        owner.signal("STOP");
        terminate_owner(&postgresql);
        standby.server.wait_until_it_listens();
        owner.signal("CONT");
        lost(owner);
    });
}
