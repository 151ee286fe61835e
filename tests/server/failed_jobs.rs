//! Jobs that go wrong at real workers: what becomes of them by each policy, what their clients see,
//! and what operators find.
//!
//! Here is the one table of all ways in which a run can end, and what follows each: `matrix` makes
//! them happen with bare packets, `clients` with the workers that people have.

mod clients;
mod dead_list;
mod matrix;
mod reload;
mod upgrade;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use crate::conn::{Conn, Item};
use crate::harness::{Contender, Server, wait_until};
use crate::http::client;

/// Runs of a job in all, with a policy, and without one, too, by `--job-retries`.
const RUNS: u32 = 3;
/// Delay after the first failure; after the second it is twice as long.
const FIRST_MS: u64 = 60;

/// How a run ends, as the server names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Lost,
    Timeout,
    Fail,
    Exception,
}

impl Reason {
    const ALL: [Self; 4] = [Self::Lost, Self::Timeout, Self::Fail, Self::Exception];

    fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Timeout => "timeout",
            Self::Fail => "fail",
            Self::Exception => "exception",
        }
    }
}

/// What makes a run end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// This test's own packets.
    Packets,
    /// `gearman -w`; the name of the way is a shell command.
    Gearman,
    /// The script `outcomes` in this language.
    Php,
    Perl,
    Python,
}

/// A way in which a run ends.
#[derive(Clone, Copy, Debug)]
struct Way {
    by: By,
    name: &'static str,
    /// `None`: with a result.
    reason: Option<Reason>,
    /// What the dead letter's message, and WORK_EXCEPTION, contain.
    message: &'static str,
    /// Whether the worker is gone with it.
    ends: bool,
}

const fn way(by: By, name: &'static str, reason: Option<Reason>, message: &'static str) -> Way {
    Way { by, name, reason, message, ends: false }
}

const fn end(by: By, name: &'static str, reason: Option<Reason>, message: &'static str) -> Way {
    Way { by, name, reason, message, ends: true }
}

/// What PHP's extension says for a script that ends while it has a job.
const PHP_ENDS: &str = "Unable to add worker function";

const WAYS: [Way; 22] = [
    way(By::Packets, "fail", Some(Reason::Fail), ""),
    way(By::Packets, "exception", Some(Reason::Exception), "boom"),
    way(By::Packets, "exception-and-fail", Some(Reason::Exception), "boom"),
    way(By::Packets, "complete", None, ""),
    end(By::Packets, "disconnect", Some(Reason::Lost), ""),
    way(By::Packets, "cant-do", Some(Reason::Lost), ""),
    way(By::Packets, "reset-abilities", Some(Reason::Lost), ""),
    way(By::Packets, "time-out", Some(Reason::Timeout), ""),
    way(By::Gearman, "exit 1", Some(Reason::Fail), ""),
    way(By::Gearman, "kill -s KILL $$", None, ""),
    way(By::Php, "fail", Some(Reason::Fail), ""),
    way(By::Php, "exception", Some(Reason::Exception), "boom"),
    end(By::Php, "throw", Some(Reason::Exception), PHP_ENDS),
    end(By::Php, "exit", Some(Reason::Exception), PHP_ENDS),
    way(By::Php, "return-false", None, ""),
    end(By::Php, "killed", Some(Reason::Lost), ""),
    way(By::Perl, "die", Some(Reason::Exception), "boom"),
    way(By::Perl, "undef", Some(Reason::Fail), ""),
    way(By::Python, "fail", Some(Reason::Fail), ""),
    way(By::Python, "exception", Some(Reason::Exception), "boom"),
    end(By::Python, "raise", Some(Reason::Lost), ""),
    end(By::Python, "killed", Some(Reason::Lost), ""),
];

/// What the functions file says of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    /// Nothing.
    None,
    /// A policy that doesn't retry what happens.
    Lacking,
    /// A policy that retries everything.
    Covering,
}

impl Column {
    const ALL: [Self; 3] = [Self::None, Self::Lacking, Self::Covering];

    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lacking => "lacking",
            Self::Covering => "covering",
        }
    }
}

/// Which clients want a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clients {
    /// No client waits for it.
    Background,
    /// A client waits for it.
    Foreground,
    /// A client waits for it, and the policy says `foreground = true`.
    Retried,
    /// Clients have joined a background job, with the option `exceptions` and without.
    Both,
}

impl Clients {
    const ALL: [Self; 4] = [Self::Background, Self::Foreground, Self::Retried, Self::Both];
}

/// The functions of the table, by their names: COLUMN-REASON-FOREGROUND-….
fn functions_file() -> String {
    let mut text = String::new();
    for foreground in [false, true] {
        for reason in Reason::ALL {
            let others = Reason::ALL.into_iter().filter(|&other| other != reason);
            let others: Vec<String> = others.map(|it| format!("\"{}\"", it.name())).collect();
            text += &format!(
                "[[function]]\nmatch = \"lacking-{}-{foreground}-*\"\nretry = [{}]\n",
                reason.name(),
                others.join(", ")
            );
            text += &retries(foreground);
        }
        text += &format!("[[function]]\nmatch = \"covering-*-{foreground}-*\"\n");
        text += &retries(foreground);
    }
    text
}

fn retries(foreground: bool) -> String {
    format!(
        "attempts = {RUNS}\nforeground = {foreground}\n\
         backoff = {{ first = \"{FIRST_MS}ms\", factor = 2.0, max = \"1h\", jitter = 0.0 }}\n\n"
    )
}

/// A functions file, gone with its folder at the end.
struct Functions {
    folder: TempDir,
}

impl Functions {
    fn new(text: &str) -> Self {
        let functions = Self { folder: tempfile::tempdir().expect("a folder") };
        functions.write(text);
        functions
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("functions.toml")
    }

    fn write(&self, text: &str) {
        fs::write(self.path(), text).expect("a file");
    }

    /// Starts a server that reads it.
    fn serve(&self, contender: Contender, options: &[&str]) -> Server {
        let path = self.path();
        let file = ["--functions-file", path.to_str().expect("text")];
        Server::start_with(contender, &[&file, options].concat()).expect("this project's own")
    }
}

/// A server for the table, with HTTP, as text commands don't show messages.
struct Rig {
    server: Server,
    http: SocketAddr,
    _functions: Functions,
}

impl Rig {
    fn start(contender: Contender) -> Self {
        let functions = Functions::new(&functions_file());
        let options = ["--job-retries", "3", "--http", "127.0.0.1:0"];
        let server = functions.serve(contender, &options);
        let http = crate::http::address(&server);
        Self { server, http, _functions: functions }
    }
}

/// What follows a way to end runs.
#[derive(Debug, PartialEq, Eq)]
struct Expected {
    runs: u32,
    /// Least time between a run's end and the next run, in milliseconds.
    delays_ms: Vec<u64>,
    is_dead: bool,
}

fn expected(reason: Option<Reason>, column: Column, clients: Clients) -> Expected {
    let once = |is_dead| Expected { runs: 1, delays_ms: Vec::new(), is_dead };
    let Some(reason) = reason else { return once(false) };
    let is_lost = matches!(reason, Reason::Lost | Reason::Timeout);
    let at_once = Expected { runs: RUNS, delays_ms: vec![0, 0], is_dead: false };
    match (column, clients) {
        // As gearmand has it.
        (Column::None, _) if is_lost => at_once,
        (Column::None, _) => once(false),
        (Column::Covering, Clients::Foreground) if is_lost => at_once,
        (Column::Covering | Column::Lacking, Clients::Foreground) => once(false),
        (Column::Lacking, _) => once(true),
        (Column::Covering, _) => {
            let first_ms = if reason == Reason::Lost { 0 } else { FIRST_MS };
            Expected { runs: RUNS, delays_ms: vec![first_ms, 2 * FIRST_MS], is_dead: true }
        }
    }
}

/// A job of the table, and the clients that wait for it.
struct Job {
    function: String,
    handle: String,
    clients: Vec<Client>,
    asker: Conn,
}

struct Client {
    conn: Conn,
    wants_exceptions: bool,
}

const PAYLOAD: &[u8] = b"payload";

fn open(server: &Server) -> Conn {
    // A server on one core answers that, too.
    let mut conn = Conn::open(server.address());
    conn.asks_all_cores = true;
    conn
}

impl Job {
    fn submit(server: &Server, column: Column, way: &Way, clients: Clients) -> Self {
        let reason = way.reason.map_or("none", Reason::name);
        let foreground = clients == Clients::Retried;
        let words: String =
            way.name.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect();
        let (column, by) = (column.name(), way.by);
        let function = format!("{column}-{reason}-{foreground}-{by:?}-{words}-{clients:?}");
        let mut job =
            Self { asker: open(server), function, handle: String::new(), clients: Vec::new() };
        if clients != Clients::Foreground && clients != Clients::Retried {
            let mut conn = Conn::open(server.address());
            job.handle = job.submit_by(&mut conn, "SUBMIT_JOB_BG");
        }
        let waiting: &[bool] = match clients {
            Clients::Background => &[],
            Clients::Foreground | Clients::Retried => &[true],
            Clients::Both => &[true, false],
        };
        for &wants_exceptions in waiting {
            let mut conn = open(server);
            if wants_exceptions {
                conn.packet("OPTION_REQ", &[b"exceptions"]);
                assert_eq!(conn.next().ok(), Some(Item::Packet(27, b"exceptions".to_vec())));
            }
            job.handle = job.submit_by(&mut conn, "SUBMIT_JOB");
            job.clients.push(Client { conn, wants_exceptions });
        }
        job
    }

    fn submit_by(&self, conn: &mut Conn, packet: &str) -> String {
        conn.packet(packet, &[self.function.as_bytes(), b"key", PAYLOAD]);
        let answer = conn.next();
        let Ok(Item::Packet(8, handle)) = answer else { panic!("no JOB_CREATED: {answer:?}") };
        String::from_utf8(handle).expect("text")
    }

    fn is_known(&mut self) -> bool {
        self.asker.packet("GET_STATUS", &[self.handle.as_bytes()]);
        let answer = self.asker.next();
        let Ok(Item::Packet(20, body)) = answer else { panic!("no STATUS_RES: {answer:?}") };
        body != [self.handle.as_bytes(), b"\x000\x000\x000\x000"].concat()
    }

    /// No client has heard anything yet.
    fn check_silence(&mut self) {
        for client in &mut self.clients {
            client.conn.sync().expect("it lives");
            assert_eq!(client.conn.unexpected(), None, "{}", self.function);
        }
    }

    /// The packet that a client gets at the end; the data may be more than what is known of it.
    fn check_told(&mut self, way: &Way) {
        let handle = self.handle.as_bytes();
        for Client { conn, wants_exceptions } in &mut self.clients {
            let mut told = conn.next().expect("an outcome");
            // `gearman -w` sends what its command writes, and here that is nothing.
            if told == Item::Packet(28, [handle, b"\0"].concat()) {
                told = conn.next().expect("an outcome");
            }
            let Item::Packet(number, body) = told else { panic!("{told:?}") };
            let begins = |with: &[u8]| body.starts_with(&[handle, with].concat());
            let is_right = match way.reason {
                None => number == 13 && body == [handle, b"\0"].concat(),
                Some(Reason::Exception) if *wants_exceptions => {
                    number == 25 && begins(b"\0") && contains(&body, way.message)
                }
                Some(_) => number == 14 && body == handle,
            };
            assert!(is_right, "{}: {number} {}", self.function, body.escape_ascii());
            conn.sync().expect("it lives");
            assert_eq!(conn.unexpected(), None, "{}", self.function);
        }
    }

    /// Waits for the job's end, and checks what is left of it.
    fn check_end(&mut self, rig: &Rig, way: &Way, expected: &Expected, worker: &str) {
        self.check_told(way);
        wait_until("the end", || (!self.is_known()).then_some(()));
        let dead = rig.server.admin(&format!("show dead {}", self.function));
        let (handle, function) = (&self.handle, &self.function);
        let Some(reason) = way.reason.filter(|_| expected.is_dead) else {
            return assert_eq!(dead, ".\n", "{function}");
        };
        let (runs, reason, bytes) = (expected.runs, reason.name(), PAYLOAD.len());
        let before = format!("{handle}\t{function}\tkey\tnormal\t{runs}\t{reason}\t");
        let after = format!("\t{bytes}\t{worker}\n.\n");
        let moment = dead.strip_prefix(&before).and_then(|rest| rest.strip_suffix(&after));
        let moment: u64 = moment.and_then(|it| it.parse().ok()).unwrap_or_else(|| {
            panic!("{function}: {dead:?} isn't {before:?} … {after:?}");
        });
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let age = now.expect("after 1970").as_secs() - moment;
        assert!(age <= 60, "{function} died {age} s ago");
        let letter = client::get(rig.http, &format!("/api/v1/dead/{handle}"));
        assert_eq!(letter.status, 200, "{function}: {letter:?}");
        match &letter.json()["message"] {
            Value::String(message) => assert!(message.contains(way.message), "{message}"),
            Value::Null => assert_eq!(way.message, "", "{function}"),
            other => panic!("{function}: {other}"),
        }
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    text.is_empty() || bytes.windows(text.len()).any(|part| part == text.as_bytes())
}
