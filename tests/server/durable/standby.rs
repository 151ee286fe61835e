//! Two servers on one store: one serves, the other waits for its end and goes on with the jobs.

use std::io::ErrorKind;
use std::net::TcpStream;

use super::{Database, drain_texts, is_known, submit, submit_bg};
use crate::conn::Conn;
use crate::harness::{Contender, Server, each_ringgear, reserve_port};
use crate::postgresql;
use crate::tools::{Tool, has, run, script};

each_ringgear!(
    a_standby_on_sqlite_takes_over_from_a_killed_server,
    a_waiting_standby_ends_in_good_order,
    programs_that_list_both_servers_go_on_after_the_failover,
);

/// A standby on a port that nobody listens on before it does.
pub(super) struct Standby {
    pub(super) server: Server,
    _port: socket2::Socket,
}

impl Standby {
    /// Starts it beside a server on the same store.
    pub(super) fn start(contender: Contender, store: &str) -> Self {
        let (driver, cores) = contender.driver();
        let (port, socket) = reserve_port();
        let options = ["--threads", cores, "--store", store, "--standby"];
        let server = Server::launch(driver, port, &options);
        server.wait_for_log("standing by", |_| Some(()));
        let standby = Self { server, _port: socket };
        standby.assert_refuses();
        standby
    }

    /// Its clients go to the other server at once: nothing makes them wait here.
    pub(super) fn assert_refuses(&self) {
        let refused = TcpStream::connect(self.server.address()).map_err(|error| error.kind());
        assert_eq!(refused.err(), Some(ErrorKind::ConnectionRefused), "{}", self.server.log());
    }
}

/// The owner of a store is killed; what it acknowledged is with the standby, under its handles.
fn take_over(contender: Contender, store: &str) {
    let mut owner = super::start(contender, &["--store", store]);
    let mut expected: Vec<(String, String)> = Vec::new();
    for round in 0..2 {
        let mut standby = Standby::start(contender, store);
        let mut client = Conn::open(owner.address());
        for at in 0..20 {
            let payload = format!("{round}: {at}");
            expected.push((submit_bg(&mut client, "f", &payload), payload));
        }
        submit(&mut client, "SUBMIT_JOB_BG", &[b"g", b"key", b"done with"]);
        assert_eq!(drain_texts(&owner, &["g"]), ["done with"]);
        // On disk behind the end of the job before.
        let keyed = submit(&mut client, "SUBMIT_JOB_BG", &[b"g", b"key", b"of g"]);
        standby.assert_refuses();
        owner.kill();
        standby.server.wait_until_it_listens();
        let server = standby.server;
        let mut client = Conn::open(server.address());
        for (handle, payload) in &expected {
            assert!(is_known(&mut client, handle), "round {round}: {payload}");
        }
        assert_eq!(submit(&mut client, "SUBMIT_JOB_BG", &[b"g", b"key", b"joins"]), keyed);
        assert_eq!(drain_texts(&server, &["g"]), ["of g"]);
        owner = server;
    }
    let payloads: Vec<String> = expected.into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(drain_texts(&owner, &["f"]), payloads);
    owner.stop();
}

fn a_standby_on_sqlite_takes_over_from_a_killed_server(contender: Contender) {
    take_over(contender, &Database::new().store);
}

/// For `--store`.
pub(crate) fn url(postgresql: &postgresql::Server) -> String {
    hosts(&[postgresql])
}

/// For `--store`: several servers, of which one can be written to.
pub(super) fn hosts(servers: &[&postgresql::Server]) -> String {
    let host = |server: &&postgresql::Server| {
        let folder = server.folder().display().to_string();
        format!("{}:5432", folder.replace('/', "%2F"))
    };
    let hosts: Vec<String> = servers.iter().map(host).collect();
    format!("postgres://postgres@{}/jobs", hosts.join(","))
}

#[test]
fn a_standby_on_postgresql_takes_over_from_a_killed_server() {
    let Some(postgresql) = postgresql::Server::start() else { return };
    let store = url(&postgresql);
    for contender in [Contender::RinggearEpoll, Contender::RinggearUring3] {
        if contender.is_here() {
            take_over(contender, &store);
        }
    }
}

fn a_waiting_standby_ends_in_good_order(contender: Contender) {
    let database = Database::new();
    let owner = database.serve(contender, &[]);
    for signal in ["TERM", "INT", "USR1"] {
        let mut standby = Standby::start(contender, &database.store).server;
        standby.signal(signal);
        assert_eq!(standby.wait().code(), Some(0), "{signal}: {}", standby.log());
    }
    // The owner has noticed nothing of that.
    submit_bg(&mut Conn::open(owner.address()), "f", "x");
    // An owner that stops in good order is followed, too.
    let mut standby = Standby::start(contender, &database.store);
    owner.stop();
    standby.server.wait_until_it_listens();
    assert_eq!(drain_texts(&standby.server, &["f"]), ["x"]);
}

/// Both sides of a program that has learnt of no failover, but of both servers.
struct Programs {
    program: &'static str,
    client: String,
    servers: String,
    function: String,
    worker: Tool,
}

impl Programs {
    fn start(program: &'static str, extension: &str, servers: &str) -> Self {
        let worker_script = script(&format!("failover_worker.{extension}"));
        let function = format!("reverse by {program}");
        let mut worker = Tool::start(program, &[&worker_script, servers, &function]);
        worker.wait_for("ready");
        let client = script(&format!("failover_client.{extension}"));
        Self { program, client, servers: servers.to_owned(), function, worker }
    }

    fn reverse(&mut self, text: &str) {
        let done = run(self.program, &[&self.client, &self.servers, &self.function, text], b"");
        let reversed: String = text.chars().rev().collect();
        assert_eq!(done.stdout, format!("{reversed}\n"), "{} {done:?}", self.program);
        self.worker.wait_for(text);
    }
}

fn programs_that_list_both_servers_go_on_after_the_failover(contender: Contender) {
    let database = Database::new();
    let owner = database.serve(contender, &[]);
    let mut standby = Standby::start(contender, &database.store);
    let servers = format!("{},{}", owner.address(), standby.server.address());
    let mut programs = Vec::new();
    if has("php", &["-r", "new GearmanClient();"]) {
        programs.push(Programs::start("php", "php", &servers));
    }
    if has("perl", &["-MGearman::Client", "-MGearman::Worker", "-e", "1"]) {
        programs.push(Programs::start("perl", "pl", &servers));
    }
    for program in &mut programs {
        program.reverse(&format!("{} before", program.program));
    }
    let held = submit_bg(&mut Conn::open(owner.address()), "held", "x");
    owner.kill();
    standby.server.wait_until_it_listens();
    let server = &standby.server;
    for program in &mut programs {
        program.reverse(&format!("{} after", program.program));
    }
    assert!(is_known(&mut Conn::open(server.address()), &held));
    assert_eq!(drain_texts(server, &["held"]), ["x"]);
}
