//! Golden logs: a conversation with every step of a job's life gives exactly these lines at each
//! level, wherever client, function and worker are.

use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock};

use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, Level};
use tracing_subscriber::fmt::MakeWriter;

use super::cluster::{CORES, Cluster, Peer, function};
use super::*;
use crate::engine::event::set_level;

/// What was logged.
#[derive(Clone, Debug, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The lines of `talk` up to `level`, as text.
fn lines_of(level: Level, talk: impl FnOnce()) -> Vec<String> {
    logged(level, talk, false)
}

/// The same as JSON.
fn json_lines_of(level: Level, talk: impl FnOnce()) -> Vec<String> {
    logged(level, talk, true)
}

fn logged(level: Level, talk: impl FnOnce(), is_json: bool) -> Vec<String> {
    // While a process has one subscriber, a line's place in the code is switched on or off by the
    // first thread that comes to it, and other tests' threads have none. So there is a second.
    static SECOND: OnceLock<Dispatch> = OnceLock::new();
    SECOND.get_or_init(|| Dispatch::new(tracing_subscriber::registry()));
    set_level(LevelFilter::TRACE);
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(lines.clone())
        .with_max_level(level)
        .without_time()
        .with_target(false)
        .with_ansi(false);
    if is_json {
        let subscriber = subscriber.json().flatten_event(true).finish();
        tracing::subscriber::with_default(subscriber, talk);
    } else {
        tracing::subscriber::with_default(subscriber.finish(), talk);
    }
    let text = String::from_utf8(std::mem::take(&mut *lines.0.lock().unwrap())).unwrap();
    text.lines().map(|line| line.trim().to_owned()).collect()
}

fn complete(cluster: &mut Cluster, worker: Peer, command: Command, handle: &[u8]) {
    cluster.packet(worker, command, &[handle], b"");
    cluster.hear(worker);
}

/// Every step that a job can take without a store.
fn conversation(client_core: usize, owner: usize, worker_core: usize) {
    let mut cluster = Cluster::new(Durability::None, 1);
    for shard in &mut cluster.shards {
        shard.engine.settings.attempts_max = Some(2);
    }
    let name = function(owner);
    let client = cluster.connect(client_core);
    let worker = cluster.connect(worker_core);
    cluster.packet(worker, Command::SetClientId, &[b"w1"], b"");
    cluster.packet(worker, Command::CanDo, &[name.as_bytes()], b"");
    // Done, joined on the way; failed.
    cluster.submit(client, Command::SubmitJobBg, &name, "first");
    cluster.submit(client, Command::SubmitJobBg, &name, "first");
    let handle = cluster.grab(worker).unwrap();
    complete(&mut cluster, worker, Command::WorkComplete, &handle);
    cluster.submit(client, Command::SubmitJobBg, &name, "second");
    let handle = cluster.grab(worker).unwrap();
    complete(&mut cluster, worker, Command::WorkFail, &handle);
    // Lost twice, which is once too often.
    cluster.submit(client, Command::SubmitJobBg, &name, "third");
    cluster.grab(worker).unwrap();
    cluster.leave(worker);
    let worker = cluster.connect(worker_core);
    cluster.packet(worker, Command::CanDo, &[name.as_bytes()], b"");
    cluster.grab(worker).unwrap();
    cluster.packet(worker, Command::CantDo, &[name.as_bytes()], b"");
    // Cancelled, dropped with its function, and given up with its client.
    let handle = cluster.submit(client, Command::SubmitJobBg, &name, "fourth");
    cluster.say(client, &[b"cancel job ", &handle[..], b"\n"].concat());
    assert_eq!(cluster.hear(client), b"OK\r\n");
    cluster.submit(client, Command::SubmitJobBg, &name, "fifth");
    cluster.say(client, format!("drop function {name}\n").as_bytes());
    cluster.hear(client);
    cluster.submit(client, Command::SubmitJob, &name, "sixth");
    cluster.leave(client);
}

/// Lines without what differs between cores: numbers of connections, and functions' names.
fn golden(level: Level, cores: (usize, usize, usize)) -> Vec<String> {
    let (client, owner, worker) = cores;
    let lines = lines_of(level, || conversation(client, owner, worker));
    let name = function(owner);
    let without_conn = |line: String| {
        let words = line.split(' ').filter(|word| !word.starts_with("conn=") && !word.is_empty());
        words.collect::<Vec<&str>>().join(" ").replace(&format!("function={name}"), "function=f")
    };
    let is_whole = |line: &String| !line.contains("moved") && !line.contains("handle=-");
    let handle = |line: String| match line.split_once("handle=") {
        Some((head, tail)) => {
            let rest = tail.split_once(' ').map_or("", |(_, rest)| rest);
            format!("{head}handle=H {rest}")
        }
        None => line,
    };
    lines.into_iter().map(without_conn).filter(is_whole).map(handle).collect()
}

/// The lines of the conversation that are written at this level.
fn expected(level: Level) -> Vec<&'static str> {
    let is_written = |line: &&str| match line.split_once(' ').unwrap().0 {
        "WARN" => true,
        "INFO" => level >= Level::INFO,
        _ => level >= Level::DEBUG,
    };
    LINES.lines().filter(is_written).collect()
}

const LINES: &str = include_str!("log.txt");

#[test]
fn a_jobs_life_gives_the_same_lines_on_one_core_and_on_three() {
    for level in [Level::WARN, Level::INFO, Level::DEBUG] {
        for n in 0..CORES * CORES * CORES {
            let cores = (n % CORES, n / CORES % CORES, n / 9 % CORES);
            assert_eq!(golden(level, cores), expected(level), "{cores:?}");
        }
    }
}

/// The lines as JSON have the same fields as those that people read.
#[test]
fn json_lines_have_the_fields_of_text_lines() {
    let text = lines_of(Level::TRACE, || conversation(0, 1, 2));
    let json = json_lines_of(Level::TRACE, || conversation(0, 1, 2));
    assert_eq!(text.len(), json.len());
    for (text, json) in text.iter().zip(&json) {
        let object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(json).unwrap();
        let mut rest = text.clone();
        for (key, value) in &object {
            let shown = match (&**key, value) {
                ("target", _) => continue,
                ("level" | "message", serde_json::Value::String(value)) => value.clone(),
                (_, serde_json::Value::String(value)) => {
                    let (plain, quoted) = (format!("{key}={value}"), format!("{key}={value:?}"));
                    if rest.contains(&plain) { plain } else { quoted }
                }
                (_, value) => format!("{key}={value}"),
            };
            assert!(rest.contains(&shown), "{shown} of {json} isn't in {text}");
            rest = rest.replacen(&shown, "", 1);
        }
        assert_eq!(rest.trim(), "", "{json} lacks it, and {text} has it");
    }
}

/// Packets and text lines, both ways.
#[test]
fn every_packet_is_written_at_trace_with_shortened_arguments_and_without_payloads() {
    let lines = lines_of(Level::TRACE, || {
        let mut desk = Desk::new(settings());
        let conn = desk.connect();
        desk.say(conn, &packet(Command::SubmitJobBg, &[b"resize", &[b'k'; 64]], b"a payload"));
        desk.send_all(conn);
        desk.say(conn, b"maxqueue resize 5\n");
        desk.send_all(conn);
    });
    let packets: Vec<&String> = lines.iter().filter(|line| line.starts_with("TRACE")).collect();
    let (key, handle) = ("k".repeat(64), String::from_utf8(handle(1)).unwrap());
    let bytes = handle.len();
    let submit = format!("packet=\"SUBMIT_JOB_BG\" arguments=\"resize\" \"{key}\" body_bytes=81");
    let created = format!("packet=\"JOB_CREATED\" arguments=\"{handle}\" body_bytes={bytes}");
    let expected = [
        format!("TRACE received conn=0 {submit}"),
        format!("TRACE sent conn=0 {created}"),
        "TRACE received conn=0 line=maxqueue resize 5".to_owned(),
        "TRACE sent conn=0 line=OK".to_owned(),
    ];
    assert_eq!(packets, expected.iter().collect::<Vec<&String>>());
}

/// Refusals left no line.
#[test]
fn refusals_at_a_limit_are_a_line_at_once_and_one_with_the_sum_of_the_next_ten_seconds() {
    let lines = lines_of(Level::WARN, || {
        let mut desk = Desk::new(settings());
        let conn = desk.connect();
        let submit = packet(Command::SubmitJobBg, &[b"resize", b""], b"");
        desk.say(conn, &submit);
        desk.say(conn, b"maxqueue resize 1\n");
        desk.say(conn, &submit.repeat(3));
        desk.now.mono_ms += 10_000;
        assert!(desk.shard.deadline_ms().is_some_and(|at_ms| at_ms <= desk.now.mono_ms));
        desk.shard.tick(desk.now);
    });
    let counts: Vec<&str> = lines
        .iter()
        .filter(|line| line.contains("maxqueue allows; start more workers, or raise it"))
        .filter_map(|line| line.split("count=").nth(1)?.split(' ').next())
        .collect();
    assert_eq!(counts, ["1", "2"], "{lines:?}");
    assert!(lines[0].contains("last=\"127.0.0.1:4001\""), "{lines:?}");
}

#[test]
fn refusals_of_the_access_list_are_a_line_a_second_for_each_address_and_right() {
    let rules = "[[rule]]\nwho = {}\nmay = [\"work\"]\n";
    let list = crate::protocol::access::parse(rules, Default::default()).unwrap();
    let lines = lines_of(Level::WARN, || {
        let mut desk = Desk::new(settings());
        desk.shard.set_access_list(&Arc::new(list), desk.now);
        let conn = desk.connect();
        let submit = packet(Command::SubmitJobBg, &[b"resize", b""], b"");
        desk.say(conn, &submit.repeat(4));
        desk.say(conn, b"workers\n");
        desk.now.mono_ms += 1000;
        assert!(desk.shard.deadline_ms().is_some_and(|at_ms| at_ms <= desk.now.mono_ms));
        desk.shard.tick(desk.now);
    });
    let expected = [
        "WARN access refused: ringgeard --access-check tells which rule decides \
         peer=127.0.0.1:4001 who=\"127.0.0.1\" right=\"submit\" function=resize",
        "WARN access refused: ringgeard --access-check tells which rule decides \
         peer=127.0.0.1:4001 who=\"127.0.0.1\" right=\"observe\"",
        "WARN access refused peer=127.0.0.1 right=\"submit\" repeated=3",
    ];
    assert_eq!(lines, expected);
}

/// They left three lines of errors or none at all.
#[test]
fn a_tls_handshake_and_an_http_request_are_a_line_each_that_says_what_to_do() {
    let lines = lines_of(Level::WARN, || {
        let mut desk = Desk::new(settings());
        let conn = desk.connect();
        desk.say(conn, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        desk.say(conn, b"\x16\x03\x01");
        assert!(desk.send_all(conn).ends_with(&[21, 3, 1, 0, 2, 2, 40]));
        assert_eq!(desk.shard.intake(conn), Intake::Close);
    });
    let [http, tls] = &lines[..] else { panic!("{lines:?}") };
    assert!(http.contains("HTTP requests refused: this port speaks Gearman"), "{http}");
    assert!(tls.contains("TLS handshakes refused: this port speaks plain Gearman"), "{tls}");
}
