//! The server ends, and comes back with the jobs that it acknowledged.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{
    Assigned, Database, SIGNALS, complete, drain, drain_texts, end, grab, is_known, lose, status,
    submit, submit_bg, worker,
};
use crate::conn::{Conn, Item};
use crate::harness::{Contender, Server, each_ringgear, wait_until};

each_ringgear!(
    what_was_acknowledged_comes_back_whole_and_in_order,
    a_unique_key_joins_what_came_back,
    foreground_jobs_are_gone,
    a_job_for_later_starts_at_its_time,
    attempts_are_counted_on,
    a_job_in_a_workers_hands_comes_back_and_was_no_attempt,
);

fn what_was_acknowledged_comes_back_whole_and_in_order(contender: Contender) {
    let large: Vec<u8> = (0..1 << 20).map(|at: u32| at.to_le_bytes()[0]).collect();
    for signal in SIGNALS {
        let database = Database::new();
        let server = database.serve(contender, &[]);
        let mut client = Conn::open(server.address());
        let jobs: [(&str, &[&[u8]]); 11] = [
            ("SUBMIT_JOB_LOW_BG", &[b"f", b"", b"low 1"]),
            ("SUBMIT_JOB_BG", &[b"f", b"key", b""]),
            ("SUBMIT_JOB_HIGH_BG", &[b"f", b"high", &large]),
            ("SUBMIT_JOB_BG", &[b"f", b"", b""]),
            ("SUBMIT_REDUCE_JOB_BACKGROUND", &[b"f", b"r", b"sum", b"", b"a\0b"]),
            ("SUBMIT_JOB_EPOCH", &[b"f", b"past", b"1", b"long ago"]),
            ("SUBMIT_JOB_LOW_BG", &[b"f", b"low", &large]),
            ("SUBMIT_JOB_HIGH_BG", &[b"f", b"", b"high 2"]),
            ("SUBMIT_JOB_BG", &[b"f", b"-", b"its own key"]),
            ("SUBMIT_JOB_LOW_BG", &[b"f", b"", b""]),
            ("SUBMIT_JOB_HIGH_BG", &[b"f", b"\xc3\xbc", b"high 3"]),
        ];
        let mut expected = Vec::new();
        for (name, arguments) in jobs {
            let handle = submit(&mut client, name, arguments);
            let text = |at: usize| String::from_utf8(arguments[at].to_vec()).expect("text");
            expected.push(Assigned {
                handle,
                function: "f".to_owned(),
                unique: text(1),
                reducer: if name.contains("REDUCE") { text(2) } else { String::new() },
                payload: arguments.last().expect("a payload").to_vec(),
            });
        }
        end(server, signal);

        let server = database.serve(contender, &[]);
        let mut client = Conn::open(server.address());
        for job in &expected {
            assert_eq!(status(&mut client, &job.handle), (true, false), "{signal}: {job:?}");
        }
        assert_eq!(server.admin("prioritystatus"), "f\t3\t5\t3\t0\n.\n", "{signal}");
        let got = drain(&server, &["f"]);
        let order = [2, 7, 10, 1, 3, 4, 5, 8, 0, 6, 9];
        assert_eq!(got.len(), order.len(), "{signal}");
        for (got, at) in got.iter().zip(order) {
            assert!(*got == expected[at], "{signal}: {:?} for {at}", got.handle);
        }
        end(server, signal);
    }
}

fn a_unique_key_joins_what_came_back(contender: Contender) {
    for signal in SIGNALS {
        let database = Database::new();
        let server = database.serve(contender, &[]);
        let mut client = Conn::open(server.address());
        let keyed = submit(&mut client, "SUBMIT_JOB_BG", &[b"f", b"key", b"first"]);
        let by_payload = submit(&mut client, "SUBMIT_JOB_LOW_BG", &[b"f", b"-", b"payload"]);
        let other = submit(&mut client, "SUBMIT_JOB_BG", &[b"g", b"key", b"of another function"]);
        end(server, signal);

        let server = database.serve(contender, &[]);
        let mut client = Conn::open(server.address());
        assert_eq!(submit(&mut client, "SUBMIT_JOB_HIGH_BG", &[b"f", b"key", b"second"]), keyed);
        assert_eq!(submit(&mut client, "SUBMIT_JOB_BG", &[b"f", b"-", b"payload"]), by_payload);
        assert_eq!(submit(&mut client, "SUBMIT_JOB", &[b"g", b"key", b"in the foreground"]), other);
        // What comes without a key, or with a new one, is a job of its own, under a new handle.
        let mut handles = vec![keyed, by_payload, other];
        for unique in [&b""[..], b"", b"new"] {
            handles.push(submit(&mut client, "SUBMIT_JOB_BG", &[b"f", unique, b"new"]));
        }
        handles.sort();
        handles.dedup();
        assert_eq!(handles.len(), 6, "{handles:?}");
        let jobs = drain_texts(&server, &["f"]);
        assert_eq!(jobs, ["first", "new", "new", "new", "payload"], "{signal}");
        // Who joined what came back gets its result.
        assert_eq!(drain_texts(&server, &["g"]), ["of another function"], "{signal}");
        let result = client.next();
        assert!(matches!(&result, Ok(Item::Packet(13, body)) if body.ends_with(b"\0done")));
        end(server, signal);
    }
}

fn foreground_jobs_are_gone(contender: Contender) {
    for signal in SIGNALS {
        let database = Database::new();
        let server = database.serve(contender, &[]);
        let mut client = Conn::open(server.address());
        let foreground = [
            submit(&mut client, "SUBMIT_JOB", &[b"f", b"", b"x"]),
            submit(&mut client, "SUBMIT_JOB_HIGH", &[b"f", b"high", b"x"]),
            submit(&mut client, "SUBMIT_JOB_LOW", &[b"f", b"low", b"x"]),
            submit(&mut client, "SUBMIT_REDUCE_JOB", &[b"f", b"reduce", b"r", b"", b"x"]),
        ];
        let background = submit_bg(&mut client, "f", "kept");
        // A foreground job that a background submission joins is worth keeping from then on.
        let joined = submit(&mut client, "SUBMIT_JOB", &[b"f", b"joined", b"both"]);
        assert_eq!(submit(&mut client, "SUBMIT_JOB_BG", &[b"f", b"joined", b"bg"]), joined);
        end(server, signal);

        let server = database.serve(contender, &[]);
        let mut client = Conn::open(server.address());
        for handle in &foreground {
            assert!(!is_known(&mut client, handle), "{signal}: {handle}");
        }
        assert!(is_known(&mut client, &background) && is_known(&mut client, &joined));
        assert_eq!(drain_texts(&server, &["f"]), ["kept", "both"], "{signal}");
        end(server, signal);
    }
}

pub(super) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

fn a_job_for_later_starts_at_its_time(contender: Contender) {
    for signal in SIGNALS {
        let database = Database::new();
        let server = database.serve(contender, &[]);
        let mut client = Conn::open(server.address());
        let due = now_s() + 3;
        let later = |at: u64| format!("{at}").into_bytes();
        submit(&mut client, "SUBMIT_JOB_EPOCH", &[b"f", b"soon", &later(due), b"soon"]);
        let far =
            submit(&mut client, "SUBMIT_JOB_EPOCH", &[b"f", b"far", &later(due + 900), b"far"]);
        end(server, signal);

        let server = database.serve(contender, &[]);
        let mut worker = worker(&server, &["f"]);
        // On a machine that took longer than that to get here there is nothing to wait for.
        if now_s() < due
            && let Some(job) = grab(&mut worker)
        {
            assert!(now_s() >= due, "{signal}: {job:?} came too early");
            complete(&mut worker, &job);
        } else {
            worker.packet("PRE_SLEEP", &[]);
            assert_eq!(worker.next().ok(), Some(Item::Packet(6, Vec::new())), "{signal}");
            assert!(now_s() >= due, "{signal}: woken too early");
            let job = grab(&mut worker).expect("the job that is due");
            assert_eq!(job.payload, b"soon", "{signal}");
            complete(&mut worker, &job);
        }
        assert_eq!(grab(&mut worker), None, "{signal}");
        let mut client = Conn::open(server.address());
        assert!(is_known(&mut client, &far), "{signal}");
        let same = submit(&mut client, "SUBMIT_JOB_BG", &[b"f", b"far", b"now"]);
        assert_eq!(same, far, "{signal}");
        end(server, signal);
    }
}

fn attempts_are_counted_on(contender: Contender) {
    for signal in SIGNALS {
        let database = Database::new();
        let retries = ["--job-retries", "3"];
        let server = database.serve(contender, &retries);
        let mut client = Conn::open(server.address());
        let handle = submit_bg(&mut client, "f", "unlucky");
        assert_eq!(lose(&server, "f").handle, handle);
        // Nobody is told when the count is on disk.
        if signal == "KILL" {
            wait_until("the count on disk", || {
                let attempts: Vec<i64> = database.select("SELECT attempts FROM ringgear_job");
                (attempts == [1]).then_some(())
            });
        }
        end(server, signal);

        let server = database.serve(contender, &retries);
        let mut client = Conn::open(server.address());
        assert!(server.admin("show jobs").contains(&format!("{handle}\t1\t")), "{signal}");
        assert_eq!(lose(&server, "f").handle, handle, "{signal}");
        assert!(is_known(&mut client, &handle), "{signal}: two of three attempts");
        assert_eq!(lose(&server, "f").handle, handle, "{signal}");
        wait_until("its end", || (!is_known(&mut client, &handle)).then_some(()));
        end(server, signal);
    }
}

fn a_job_in_a_workers_hands_comes_back_and_was_no_attempt(contender: Contender) {
    for signal in SIGNALS {
        let database = Database::new();
        let retries = ["--job-retries", "1"];
        let mut server = database.serve(contender, &retries);
        let mut client = Conn::open(server.address());
        let handle = submit_bg(&mut client, "f", "held");
        for _ in 0..2 {
            let mut holder = worker(&server, &["f"]);
            assert_eq!(grab(&mut holder).expect("the job").handle, handle, "{signal}");
            end(server, signal);
            server = database.serve(contender, &retries);
        }
        // A worker that has gone on meanwhile finds no job of its own any more.
        let mut holder = worker(&server, &["f"]);
        holder.packet("WORK_COMPLETE", &[handle.as_bytes(), b""]);
        assert!(matches!(holder.next(), Ok(Item::Packet(19, _))), "{signal}");
        assert_eq!(drain_texts(&server, &["f"]), ["held"], "{signal}");
        end(server, signal);
    }
}

/// A function's jobs may move to another core; their handles don't tell.
#[test]
fn the_number_of_cores_may_change() {
    let drivers = ["epoll", "uring"];
    for driver in drivers
        .into_iter()
        .filter(|&driver| driver == "epoll" || Contender::RinggearUring.is_here())
    {
        let database = Database::new();
        let serve = |cores: &str| {
            Server::start_ringgear(driver, 0, &["--threads", cores, "--store", &database.store])
        };
        let mut expected = Vec::new();
        let names: Vec<String> = (0..24).map(|at| format!("function {at}")).collect();
        let functions: Vec<&str> = names.iter().map(String::as_str).collect();
        for (cores, signal) in [("1", "KILL"), ("3", "TERM"), ("2", "KILL"), ("1", "TERM")] {
            let server = serve(cores);
            let mut client = Conn::open(server.address());
            for &function in &functions {
                expected.push((submit_bg(&mut client, function, cores), function.to_owned()));
            }
            for (handle, function) in &expected {
                assert!(is_known(&mut client, handle), "{cores}: {handle} of {function}");
            }
            end(server, signal);
        }
        let server = serve("3");
        for &function in &functions {
            let jobs = drain(&server, &[function]);
            let got: Vec<String> = jobs.iter().map(|job| job.handle.clone()).collect();
            let mine = expected.iter().filter(|(_, name)| name == function);
            let mine: Vec<String> = mine.map(|(handle, _)| handle.clone()).collect();
            assert_eq!(got, mine, "{function}");
        }
        end(server, "TERM");
        assert_eq!(serve("1").admin("status"), ".\n");
    }
}
