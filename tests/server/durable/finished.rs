//! Jobs that have come to an end of any kind stay away when the server comes back.

use super::{
    Database, SIGNALS, complete, drain_texts, end, grab, is_known, lose, submit, submit_bg, worker,
};
use crate::conn::{Conn, Item};
use crate::harness::{Contender, Server, each_ringgear, wait_until};

each_ringgear!(no_job_returns_from_its_end);

/// A way to end the job `x` of function `f`, which is queued.
type End = fn(&Server, &str);

fn by_worker(server: &Server, packet: &str, arguments: &[&[u8]]) {
    let mut worker = worker(server, &["f"]);
    let job = grab(&mut worker).expect("a job");
    worker.packet(packet, &[&[job.handle.as_bytes()], arguments].concat());
    worker.sync().expect("it lives");
}

fn admin(server: &Server, command: &str) {
    let answer = server.admin(command);
    assert!(answer.starts_with("OK"), "{command}: {answer}");
}

const ENDS: [(&str, End); 9] = [
    ("completed", |server, _| by_worker(server, "WORK_COMPLETE", &[b"result"])),
    ("failed", |server, _| by_worker(server, "WORK_FAIL", &[])),
    ("thrown", |server, _| by_worker(server, "WORK_EXCEPTION", &[b"boom"])),
    ("cancelled", |server, handle| admin(server, &format!("cancel job {handle}"))),
    ("cancelled as it ran", |server, handle| {
        let mut worker = worker(server, &["f"]);
        let job = grab(&mut worker).expect("a job");
        admin(server, &format!("cancel job {handle}"));
        complete(&mut worker, &job);
        worker.sync().expect("it lives");
    }),
    ("cancelled as it ran, and never done", |server, handle| {
        let mut worker = worker(server, &["f"]);
        grab(&mut worker).expect("a job");
        admin(server, &format!("cancel job {handle}"));
    }),
    ("dropped", |server, _| admin(server, "drop function f")),
    ("lost too often", |server, _| {
        lose(server, "f");
        lose(server, "f");
    }),
    ("joined by a client that left", |server, _| {
        let mut client = Conn::open(server.address());
        submit(&mut client, "SUBMIT_JOB", &[b"f", b"key", b"y"]);
        drop(client);
        by_worker(server, "WORK_COMPLETE", &[b"result"]);
    }),
];

fn no_job_returns_from_its_end(contender: Contender) {
    for signal in SIGNALS {
        let database = Database::new();
        let options = ["--job-retries", "2"];
        let mut ended = Vec::new();
        let server = database.serve(contender, &options);
        let mut client = Conn::open(server.address());
        for (name, end_it) in ENDS {
            let handle = submit(&mut client, "SUBMIT_JOB_BG", &[b"f", b"key", b"x"]);
            end_it(&server, &handle);
            wait_until(name, || (!is_known(&mut client, &handle)).then_some(()));
            ended.push((name, handle));
        }
        // Acknowledged behind all of the above: what is on disk now holds their ends, too.
        let barrier = submit_bg(&mut client, "f", "barrier");
        end(server, signal);

        let server = database.serve(contender, &options);
        let mut client = Conn::open(server.address());
        for (name, handle) in &ended {
            assert!(!is_known(&mut client, handle), "{signal}: {name}");
        }
        assert!(is_known(&mut client, &barrier), "{signal}");
        assert_eq!(drain_texts(&server, &["f"]), ["barrier"], "{signal}");
        end(server, signal);
        if signal == "TERM" {
            let left: Vec<i64> = database.select("SELECT count(*) FROM ringgear_job");
            assert_eq!(left, [0]);
        }
    }
}

/// The key of a job that has ended is free for another after the restart.
#[test]
fn the_key_of_an_ended_job_is_free() {
    let contender = Contender::RinggearEpoll;
    let database = Database::new();
    let server = database.serve(contender, &[]);
    let mut client = Conn::open(server.address());
    let first = submit(&mut client, "SUBMIT_JOB_BG", &[b"f", b"key", b"first"]);
    assert_eq!(drain_texts(&server, &["f"]), ["first"]);
    let second = submit(&mut client, "SUBMIT_JOB_BG", &[b"f", b"key", b"second"]);
    assert_ne!(first, second);
    end(server, "KILL");
    let server = database.serve(contender, &[]);
    let mut client = Conn::open(server.address());
    assert!(!is_known(&mut client, &first) && is_known(&mut client, &second));
    assert_eq!(drain_texts(&server, &["f"]), ["second"]);
    client.packet("GET_STATUS_UNIQUE", &[b"key"]);
    let answer = client.next();
    assert!(matches!(&answer, Ok(Item::Packet(42, body)) if body.starts_with(b"key\x000\0")));
}
