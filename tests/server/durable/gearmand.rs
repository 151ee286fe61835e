//! A database that Debian's gearmand has written: the very same options start this server on it.

mod mysql;

use super::{Assigned, Database, drain, end, grab, is_known, start, submit, worker};
use crate::conn::{Conn, Item};
use crate::harness::{Contender, Server, each_ringgear, tool, wait_until};
use crate::postgresql;
use crate::tools::{has, run, script};

each_ringgear!(its_sqlite_database_is_taken_over, its_postgresql_database_is_taken_over);

/// A gearmand with these options, if it is here and has the module.
fn gearmand(options: &[&str]) -> Option<Server> {
    gearmand_with(options, &[])
}

/// The same with variables in its environment.
fn gearmand_with(options: &[&str], variables: &[(&str, &str)]) -> Option<Server> {
    tool("gearman")?;
    tool("gearmand")?;
    let module = options[1];
    let help = run("gearmand", &["--help"], b"");
    if !help.stdout.contains(&format!("{module}:")) {
        crate::skips::skip(&format!("gearmand has no module {module}"));
        return None;
    }
    Server::start_gearmand(options, variables)
}

fn gearman(server: &Server, arguments: &[&str], stdin: &[u8]) {
    let port = server.port().to_string();
    let finished = run("gearman", &[&["-h", "127.0.0.1", "-p", &port], arguments].concat(), stdin);
    assert!(finished.status.success() && finished.stderr.is_empty(), "{finished:?}");
}

fn job(function: &str, unique: &str, payload: &[u8]) -> Assigned {
    let (function, unique) = (function.to_owned(), unique.to_owned());
    Assigned { function, unique, payload: payload.to_vec(), ..Assigned::default() }
}

/// Fills gearmand's queue with other people's programs; gives the jobs as they are to be run.
fn fill(server: &Server) -> Vec<Assigned> {
    let large: Vec<u8> = (0..200_000_u32).map(|at| at.to_le_bytes()[0]).collect();
    gearman(server, &["-b", "-L", "-f", "f", "-u", "low", "one"], b"");
    gearman(server, &["-b", "-f", "f", "-u", "normal", "two"], b"");
    gearman(server, &["-b", "-I", "-f", "f", "-u", "high"], b"three\0\xff");
    gearman(server, &["-b", "-f", "f", "-s", "-u", "empty"], b"");
    gearman(server, &["-b", "-I", "-f", "f", "-u", "large"], &large);
    gearman(server, &["-b", "-f", "g", "-u", "normal", "of g"], b"");
    // Without a key the tool makes one up.
    gearman(server, &["-b", "-f", "h", "same"], b"");
    gearman(server, &["-b", "-f", "h", "same"], b"");
    let mut expected = vec![
        job("f", "high", b"three\0\xff"),
        job("f", "large", &large),
        job("f", "normal", b"two"),
        job("f", "empty", b""),
        job("f", "low", b"one"),
        job("g", "normal", b"of g"),
        job("h", "", b"same"),
        job("h", "", b"same"),
    ];
    if has("php", &["-r", "new GearmanClient();"]) {
        let port = server.port().to_string();
        let php = script("client.php");
        let done = run("php", &[&php, "127.0.0.1", &port, "priorities"], b"");
        assert!(done.status.success(), "{done:?}");
        for payload in ["high", "normal", "low"] {
            expected.push(job("reverse", "", payload.as_bytes()));
        }
    }
    expected
}

/// What is left of a job when nobody knows the key that its client made up.
fn comparable(mut jobs: Vec<Assigned>) -> Vec<Assigned> {
    for job in &mut jobs {
        job.handle.clear();
        if ["h", "reverse"].contains(&&*job.function) {
            assert!(!job.unique.is_empty());
            job.unique.clear();
        }
    }
    jobs
}

/// Submits a job of the function `later` for a year from now.
fn delay_a_job(server: &Server) {
    let mut client = Conn::open(server.address());
    let later = (super::restart::now_s() + 31_536_000).to_string();
    let arguments: [&[u8]; 4] = [b"later", b"key", later.as_bytes(), b"x"];
    submit(&mut client, "SUBMIT_JOB_EPOCH", &arguments);
}

/// Runs those of the `count` jobs that a server has taken over that `fill` had submitted.
fn find_all(server: &Server, count: usize, expected: &[Assigned]) {
    server.wait_for_log("took over the jobs of gearmand", |rest| {
        rest.contains(&format!("jobs={count} ")).then_some(())
    });
    let mut got = Vec::new();
    for function in ["f", "g", "h", "reverse"] {
        got.extend(drain(server, &[function]));
    }
    let got = comparable(got);
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        assert!(got == expected, "{} {} {}", got.function, got.unique, expected.unique);
    }
    let mut early = worker(server, &["later"]);
    assert_eq!(grab(&mut early), None);
}

fn take_over(contender: Contender, options: &[&str]) {
    let Some(server) = gearmand(options) else { return };
    let expected = fill(&server);
    delay_a_job(&server);
    server.stop();

    let server = start(contender, options);
    find_all(&server, expected.len() + 1, &expected);
    let mut client = Conn::open(server.address());
    let handle = submit(&mut client, "SUBMIT_JOB_BG", &[b"later", b"key", b"joins it"]);
    end(server, "TERM");

    // What was taken over is this server's from then on, and what was done with stays so.
    let server = start(contender, options);
    let mut client = Conn::open(server.address());
    wait_until("the only job", || is_known(&mut client, &handle).then_some(()));
    let status = server.admin("status");
    assert_eq!(status, "later\t1\t0\t0\n.\n");
    end(server, "TERM");

    // gearmand finds an empty queue in a database that it can use as before.
    let server = gearmand(options).expect("it was here before");
    gearman(&server, &["-b", "-f", "f", "-u", "again", "x"], b"");
    server.stop();
    let server = start(contender, options);
    assert_eq!(comparable(drain(&server, &["f"])), [job("f", "again", b"x")]);
    let mut client = Conn::open(server.address());
    client.packet("GET_STATUS", &[handle.as_bytes()]);
    let known = [handle.as_bytes(), b"\x001\x000\x000\x000"].concat();
    assert_eq!(client.next().ok(), Some(Item::Packet(20, known)));
}

fn its_sqlite_database_is_taken_over(contender: Contender) {
    let database = Database::new();
    let path = database.path().display().to_string();
    take_over(contender, &["-q", "libsqlite3", "--libsqlite3-db", &path]);
}

fn its_postgresql_database_is_taken_over(contender: Contender) {
    let Some(server) = postgresql::Server::start() else { return };
    take_over(contender, &["-q", "Postgres", "--libpq-conninfo", &server.conninfo("jobs")]);
}

/// gearmand keeps what is empty as NULL and won't start on that again.
#[test]
fn its_sqlite_table_under_another_name_is_taken_over() {
    let database = Database::new();
    let path = database.path().display().to_string();
    let options =
        ["-q", "libsqlite3", "--libsqlite3-db", &path, "--libsqlite3-table", "other_queue"];
    let Some(server) = gearmand(&options) else { return };
    gearman(&server, &["-b", "-s", "-f", "f", "-u", "empty"], b"");
    end(server, "KILL");
    let null: Vec<bool> = database.select("SELECT data IS NULL FROM other_queue");
    assert_eq!(null, [true]);
    let server = start(Contender::RinggearEpoll, &options);
    assert_eq!(comparable(drain(&server, &["f"])), [job("f", "empty", b"")]);
}
