//! Transcripts: bytes in, bytes out, for every packet, admin command, error and malformed input.
//!
//! The cases stand in `transcripts/*.txt`; `script` says how they are written. Each gets a server
//! of its own. Before another connection acts, the runner has the server finish with the last one
//! by an ECHO round trip, so the order of steps is the order of events. `CASE=words` runs the cases
//! whose name contains them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustls::ClientConfig;
use rustls::version::TLS13;

use crate::conn::{Conn, Item, PATIENCE, Silence, readable, request, response};
use crate::harness::{Contender, Server};
use crate::pattern::{Captures, Pattern};
use crate::script::{Action, Case, Holds, Step, parse};
use crate::tls::Files;
use crate::tls::client::config;

const FILES: [(&str, &str); 12] = [
    ("access.txt", include_str!("transcripts/access.txt")),
    ("admin.txt", include_str!("transcripts/admin.txt")),
    ("epoch.txt", include_str!("transcripts/epoch.txt")),
    ("lists.txt", include_str!("transcripts/lists.txt")),
    ("loss.txt", include_str!("transcripts/loss.txt")),
    ("malformed.txt", include_str!("transcripts/malformed.txt")),
    ("outcomes.txt", include_str!("transcripts/outcomes.txt")),
    ("queue.txt", include_str!("transcripts/queue.txt")),
    ("sleep.txt", include_str!("transcripts/sleep.txt")),
    ("submit.txt", include_str!("transcripts/submit.txt")),
    ("unique.txt", include_str!("transcripts/unique.txt")),
    ("work.txt", include_str!("transcripts/work.txt")),
];

/// Servers at a time; most of a case is waiting.
const PARALLEL: usize = 6;

/// A case that sends more than this isn't sent byte by byte.
const BYTE_BY_BYTE_MAX: usize = 2000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pieces {
    Whole,
    Bytes,
}

/// What connections send and receive.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Records {
    /// Bytes as they are.
    None,
    /// TLS records.
    Tls,
}

#[test]
fn transcripts_hold_on_gearmand() {
    run_all(Contender::Gearmand, Pieces::Whole, Records::None);
}

#[test]
fn transcripts_hold_on_epoll() {
    run_all(Contender::RinggearEpoll, Pieces::Whole, Records::None);
}

#[test]
fn transcripts_hold_on_uring() {
    run_all(Contender::RinggearUring, Pieces::Whole, Records::None);
}

#[test]
fn on_epoll_with_2_cores() {
    run_all(Contender::RinggearEpoll2, Pieces::Whole, Records::None);
}

#[test]
fn on_uring_with_3_cores() {
    run_all(Contender::RinggearUring3, Pieces::Whole, Records::None);
}

#[test]
fn on_glommio() {
    run_all(Contender::RinggearGlommio, Pieces::Whole, Records::None);
}

#[test]
fn on_glommio_with_2_cores() {
    run_all(Contender::RinggearGlommio2, Pieces::Whole, Records::None);
}

#[test]
fn transcripts_hold_byte_by_byte_on_epoll() {
    run_all(Contender::RinggearEpoll, Pieces::Bytes, Records::None);
}

#[test]
fn transcripts_hold_byte_by_byte_on_uring() {
    run_all(Contender::RinggearUring, Pieces::Bytes, Records::None);
}

#[test]
fn transcripts_hold_byte_by_byte_on_glommio() {
    run_all(Contender::RinggearGlommio, Pieces::Bytes, Records::None);
}

#[test]
fn on_epoll_with_tls() {
    run_all(Contender::RinggearEpoll, Pieces::Whole, Records::Tls);
}

#[test]
fn on_uring_with_3_cores_and_tls() {
    run_all(Contender::RinggearUring3, Pieces::Whole, Records::Tls);
}

#[test]
fn on_glommio_with_tls() {
    run_all(Contender::RinggearGlommio, Pieces::Whole, Records::Tls);
}

#[test]
fn transcripts_hold_byte_by_byte_on_uring_with_tls() {
    run_all(Contender::RinggearUring, Pieces::Bytes, Records::Tls);
}

/// Not a check: with `WHAT_DIFFERS` set it shows which of the cases that are only ours gearmand
/// would pass after all. It takes as long as gearmand's silence.
#[test]
fn what_gearmand_does_otherwise() {
    if std::env::var_os("WHAT_DIFFERS").is_none() || !Contender::Gearmand.is_here() {
        return;
    }
    let cases = cases();
    let ours: Vec<&Case> = cases.iter().filter(|case| case.holds == Holds::Ours).collect();
    let failures = run_parallel(Contender::Gearmand, Pieces::Whole, None, &ours);
    println!("{} of {} differ on gearmand:", failures.len(), ours.len());
    for case in ours {
        let failure = failures.iter().find(|(name, _)| *name == case.name);
        let holds = || format!("holds: {}", case.name);
        println!("{}\n", failure.map_or_else(holds, |(_, text)| text.clone()));
    }
}

fn cases() -> Vec<Case> {
    let wanted = std::env::var("CASE").unwrap_or_default();
    let all = FILES.iter().flat_map(|(file, text)| parse(file, text).expect("well formed"));
    all.filter(|case| case.name.contains(&wanted)).collect()
}

fn run_all(contender: Contender, pieces: Pieces, records: Records) {
    if !contender.is_here() {
        return;
    }
    let cases = cases();
    assert!(!cases.is_empty(), "no case has a name like that");
    let held: Vec<&Case> = cases
        .iter()
        .filter(|case| contender.is_ringgear() || case.holds == Holds::Both)
        .filter(|case| !case.one_core || contender.cores() == 1)
        .filter(|case| pieces == Pieces::Whole || bytes_sent(case) <= BYTE_BY_BYTE_MAX)
        .collect();
    let files = (records == Records::Tls).then(Files::new);
    let failures = run_parallel(contender, pieces, files.as_ref(), &held);
    let texts: Vec<&str> = failures.iter().map(|(_, text)| text.as_str()).collect();
    let count = failures.len();
    let of = held.len();
    assert!(failures.is_empty(), "{count} of {of} cases failed\n\n{}", texts.join("\n\n"));
    println!("{of} cases hold on {contender:?}");
}

fn bytes_sent(case: &Case) -> usize {
    let size = |step: &Step| match &step.action {
        Action::Send(_, body) | Action::SendAsServer(_, body) | Action::SendRaw(body) => {
            // A handle that isn't known yet is short.
            body.bytes(&Captures::new()).map_or(64, |bytes| bytes.len() + 12)
        }
        _ => 0,
    };
    case.steps.iter().map(size).sum()
}

fn run_parallel(
    contender: Contender,
    pieces: Pieces,
    files: Option<&Files>,
    cases: &[&Case],
) -> Vec<(String, String)> {
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(text) = run_case(contender, pieces, files, case) {
                        let mut failures = failures.lock().expect("no panics in between");
                        failures.push((case.name.clone(), text));
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().expect("no panics in between");
    failures.sort();
    failures
}

fn run_case(
    contender: Contender,
    pieces: Pieces,
    files: Option<&Files>,
    case: &Case,
) -> Result<(), String> {
    let options: Vec<&str> = case.options.iter().map(String::as_str).collect();
    let server = match files {
        None => Server::start_with(contender, &options).expect("asked for before"),
        Some(files) => files.start_without_asking(contender, &options),
    };
    let mut run = Run {
        server: &server,
        config: files.map(|files| config(&files.authority.certificate, None, &TLS13)),
        byte_by_byte: pieces == Pieces::Bytes,
        asks_all_cores: contender.cores() > 1,
        conns: HashMap::new(),
        captures: Captures::new(),
        unsettled: None,
    };
    for step in &case.steps {
        run.step(step).map_err(|reason| {
            let Case { file, name, .. } = case;
            let Step { line, text, .. } = step;
            let log = server.log();
            format!("case: {name}\n  at: {file}:{line}\nstep: {text}\n{reason}\nlog: {log}")
        })?;
    }
    run.end().map_err(|reason| {
        format!("case: {}\n  at the end\n{reason}\nlog: {}", case.name, server.log())
    })
}

struct Run<'a> {
    server: &'a Server,
    /// If connections speak TLS.
    config: Option<Arc<ClientConfig>>,
    byte_by_byte: bool,
    asks_all_cores: bool,
    conns: HashMap<String, Conn>,
    captures: Captures,
    /// The connection that has sent something which the server may still be at.
    unsettled: Option<String>,
}

impl Run<'_> {
    fn step(&mut self, step: &Step) -> Result<(), String> {
        let name = &step.conn;
        self.settle(name)?;
        let Self { server, ref config, byte_by_byte, asks_all_cores, .. } = *self;
        let conn = self.conns.entry(name.clone()).or_insert_with(|| {
            let address = server.address();
            let mut conn = match config {
                None => Conn::open(address),
                Some(config) => Conn::open_tls(address, Arc::clone(config), "jobs.example.com"),
            };
            conn.byte_by_byte = byte_by_byte;
            conn.asks_all_cores = asks_all_cores;
            conn
        });
        match &step.action {
            Action::Send(number, body) => {
                conn.send(&request(*number, &body.bytes(&self.captures)?));
                self.unsettled = Some(name.clone());
            }
            Action::SendAsServer(number, body) => {
                conn.send(&response(*number, &body.bytes(&self.captures)?));
            }
            Action::SendRaw(bytes) => conn.send(&bytes.bytes(&self.captures)?),
            Action::Expect(number, body) => {
                self.unsettled = None;
                expect_packet(conn, *number, body, &mut self.captures)?;
            }
            Action::ExpectText(text) => expect_text(conn, text, &mut self.captures)?,
            Action::ExpectLinesInAnyOrder(lines) => expect_lines(conn, lines, &mut self.captures)?,
            Action::Quiet => {
                conn.sync()?;
                self.unsettled = None;
                let item = conn.unexpected();
                return item.map_or(Ok(()), |item| Err(format!(" got: {item:?}")));
            }
            Action::Closed => match conn.next() {
                Ok(Item::End) => self.unsettled = None,
                other => return Err(format!(" got: {other:?}")),
            },
            Action::HalfClose => {
                conn.half_close();
                self.unsettled = None;
            }
            Action::Close => {
                self.conns.remove(name);
            }
            Action::Open => conn.sync()?,
            Action::Until(command, answers) => {
                until(conn, command, answers, &mut self.captures)?;
            }
        }
        Ok(())
    }

    /// After the last step nobody has anything left to read.
    fn end(mut self) -> Result<(), String> {
        for (name, conn) in self.conns.iter_mut().filter(|(_, conn)| conn.is_open()) {
            conn.sync().map_err(|reason| format!("connection {name}: {reason}"))?;
            if let Some(item) = conn.unexpected() {
                return Err(format!("connection {name} has {item:?} too much"));
            }
        }
        Ok(())
    }

    /// The order of steps on different connections is the order in which the server sees them.
    fn settle(&mut self, acting: &str) -> Result<(), String> {
        if self.unsettled.as_deref().is_none_or(|name| name == acting) {
            return Ok(());
        }
        let name = self.unsettled.take().expect("just seen");
        let sync = self.conns.get_mut(&name).map_or(Ok(()), Conn::sync);
        sync.map_err(|reason| format!("connection {name}: {reason}"))
    }
}

/// For what has no answer that says it has happened, such as a connection's end.
fn until(
    conn: &mut Conn,
    command: &Pattern,
    answers: &[Pattern],
    captures: &mut Captures,
) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        conn.send(&command.bytes(captures)?);
        // The answer's length isn't known, so its end is made visible.
        conn.sync()?;
        let mut got = Vec::new();
        while conn.unexpected().is_some() {
            match conn.next() {
                Ok(Item::Line(line)) => got.extend(line),
                other => return Err(format!(" got: {other:?}")),
            }
        }
        if answers.iter().any(|answer| answer.matches(&got, captures)) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("last: {}", readable(&got)));
        }
    }
}

fn expect_packet(
    conn: &mut Conn,
    number: u32,
    body: &Pattern,
    captures: &mut Captures,
) -> Result<(), String> {
    match conn.next() {
        Ok(Item::Packet(got, bytes)) if got == number && body.matches(&bytes, captures) => Ok(()),
        Ok(item) => Err(format!(" got: {item:?}")),
        Err(Silence) => Err(" got: nothing".into()),
    }
}

fn expect_text(conn: &mut Conn, text: &Pattern, captures: &mut Captures) -> Result<(), String> {
    let mut got = Vec::new();
    for _ in 0..text.lines() {
        match conn.next() {
            Ok(Item::Line(line)) => got.extend(line),
            Ok(item) => return Err(format!(" got: {} and {item:?}", readable(&got))),
            Err(Silence) => return Err(format!(" got: {} and nothing", readable(&got))),
        }
    }
    if text.matches(&got, captures) { Ok(()) } else { Err(format!(" got: {}", readable(&got))) }
}

/// For lists whose order the protocol leaves open; handles in them have to be known.
fn expect_lines(conn: &mut Conn, lines: &[Pattern], captures: &mut Captures) -> Result<(), String> {
    let mut wanted: Vec<&Pattern> = lines.iter().collect();
    let (mut got, mut all_match) = (Vec::new(), true);
    for _ in lines {
        match conn.next() {
            Ok(Item::Line(line)) => {
                match wanted.iter().position(|pattern| pattern.matches(&line, captures)) {
                    Some(at) => drop(wanted.remove(at)),
                    None => all_match = false,
                }
                got.push(readable(&line));
            }
            Ok(item) => return Err(format!(" got: {got:?} and {item:?}")),
            Err(Silence) => return Err(format!(" got: {got:?} and nothing")),
        }
    }
    if all_match { Ok(()) } else { Err(format!(" got: {got:?}")) }
}
