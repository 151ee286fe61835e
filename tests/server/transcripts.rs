//! Transcripts: what a job server must answer, byte by byte, as tables of small conversations.
//!
//! A line is `connection`, a mark and the rest. `c> CAN_DO {f}` sends a packet (`RES X` with the magic of
//! a response, `#43` by number), `c> 'status\n'` sends bytes, `c>> '...'` a part of something. `c< NOOP`
//! and `c< 'OK\n'` expect one; `c< nothing` is proved by an echo; `c< close` the end. `c~ status ROW`
//! asks until a list has that row (`-ROW`: hasn't), `c= status ROW` asks once. `c> connect`, `close` and
//! `half-close` are what they say. In text `|` is a NUL; `{h1}` a handle, captured where it comes up
//! first; `{f}` a name no other transcript has; `{x*9}` nine x; `{now+1}` a time; `{pid}`; `{*}` anything.
//!
//! A connection is brought up to date before another one sends: steps happen in the order they stand.

mod admin;
mod errors;
mod life;
mod malformed;
mod results;
mod status;
mod submit;
mod template;
mod unique;
mod worker;

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use ringgear::frame::{Magic, header_bytes};
use ringgear::packet::Command;

use crate::harness::{Contender, PATIENCE, Server, wait_until};
use template::Names;

/// Requests up to this size are also sent byte by byte.
const SMALL_BYTES: usize = 1024;

/// Whom a transcript is true of.
#[derive(Clone, Copy)]
pub(crate) enum Of {
    /// gearmand 1.1.20 too.
    Both,
    /// Only this project's server, for this reason.
    Ours(#[expect(dead_code, reason = "for readers")] &'static str),
}

/// One conversation, or several at once, with a job server.
pub(crate) struct Transcript {
    pub(crate) name: &'static str,
    pub(crate) of: Of,
    pub(crate) options: &'static [&'static str],
    pub(crate) steps: &'static str,
}

pub(crate) const fn both(name: &'static str, steps: &'static str) -> Transcript {
    Transcript { name, of: Of::Both, options: &[], steps }
}

pub(crate) const fn ours(
    name: &'static str,
    reason: &'static str,
    steps: &'static str,
) -> Transcript {
    Transcript { name, of: Of::Ours(reason), options: &[], steps }
}

impl Transcript {
    const fn with(self, options: &'static [&'static str]) -> Self {
        Self { options, ..self }
    }
}

/// What a server sends: a packet or a line of text, or nothing more.
enum Unit {
    Bytes(Vec<u8>),
    End,
}

/// One connection of a transcript.
struct Peer {
    stream: TcpStream,
    unread: Vec<u8>,
    inbox: VecDeque<Vec<u8>>,
    echoes: u32,
    unsynced: bool,
    ended: bool,
}

/// A transcript under way.
struct Run<'a> {
    server: &'a Server,
    bytewise: bool,
    names: Names,
    peers: BTreeMap<&'a str, Peer>,
}

/// Runs a table against every server that it is true of.
fn run_all(table: &[Transcript]) {
    let mut failures = Vec::new();
    for contender in Contender::ALL {
        let applies =
            |transcript: &&Transcript| contender.is_ringgear() || matches!(transcript.of, Of::Both);
        let mut options: Vec<_> = table.iter().filter(applies).map(|one| one.options).collect();
        options.sort_unstable();
        options.dedup();
        for options in options {
            let Some(mut server) = Server::start_with(contender, options) else { continue };
            for transcript in table.iter().filter(applies).filter(|one| one.options == options) {
                for bytewise in [false, true] {
                    let Err(failure) = run_one(transcript, contender, &server, bytewise) else {
                        continue;
                    };
                    failures.push(failure);
                    // Whatever is left of it must not trouble the others.
                    server = Server::start_with(contender, options).expect("started before");
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} failed:\n\n{}", failures.len(), failures.join("\n\n"));
}

fn run_one(
    transcript: &Transcript,
    contender: Contender,
    server: &Server,
    bytewise: bool,
) -> Result<(), String> {
    let (peers, names) = (BTreeMap::new(), Names::new(server.pid()));
    let mut run = Run { server, bytewise, names, peers };
    let steps = transcript.steps.lines().map(str::trim_start).filter(|line| !line.is_empty());
    for (number, step) in steps.enumerate() {
        if let Err(what) = run.step(step) {
            let bytes = if bytewise { ", byte by byte" } else { "" };
            let name = transcript.name;
            return Err(format!(
                "{name:?} on {contender:?}{bytes}, step {}:\n    {step}\n{what}",
                number + 1
            ));
        }
    }
    Ok(())
}

impl<'a> Run<'a> {
    fn step(&mut self, step: &'a str) -> Result<(), String> {
        let (head, rest) = step.split_once(' ').ok_or("not a step")?;
        let at = head.find(|c: char| !c.is_alphanumeric()).ok_or("no mark")?;
        let (name, mark) = head.split_at(at);
        if mark != "<" {
            self.sync_others(name)?;
        }
        if !self.peers.contains_key(name) {
            self.peers.insert(name, Peer::new(self.server)?);
        }
        match (mark, rest) {
            (">", "connect") => Ok(()),
            (">", "close") => {
                self.peers.remove(name);
                Ok(())
            }
            (">", "half-close") => {
                let stream = &self.peer(name)?.stream;
                stream.shutdown(Shutdown::Write).map_err(|error| error.to_string())
            }
            (">" | ">>", _) => self.send(name, rest, mark == ">"),
            ("<", "close") => match self.peer(name)?.next()? {
                Unit::End => Ok(()),
                Unit::Bytes(bytes) => Err(differs("the end of the connection", &bytes)),
            },
            ("<", "nothing") => {
                let peer = self.peer(name)?;
                peer.sync()?;
                match peer.inbox.front() {
                    None if peer.ended => Err("expected nothing, got the end".to_owned()),
                    None => Ok(()),
                    Some(bytes) => Err(differs("nothing", bytes)),
                }
            }
            ("<", _) => self.expect(name, rest),
            ("~", _) => self.wait_for_row(name, rest),
            ("=", _) => self.list_has(name, rest)?.map_or(Ok(()), Err),
            _ => Err("no such mark".to_owned()),
        }
    }

    fn peer(&mut self, name: &str) -> Result<&mut Peer, String> {
        self.peers.get_mut(name).ok_or_else(|| format!("no connection {name}"))
    }

    /// Waits until the server has seen all that the other connections have sent.
    fn sync_others(&mut self, name: &str) -> Result<(), String> {
        for (_, peer) in self.peers.iter_mut().filter(|(other, _)| **other != name) {
            if peer.unsynced {
                peer.sync()?;
            }
        }
        Ok(())
    }

    fn send(&mut self, name: &str, what: &str, whole: bool) -> Result<(), String> {
        let bytes = self.names.bytes(what)?;
        let bytewise = self.bytewise && bytes.len() <= SMALL_BYTES;
        let peer = self.peer(name)?;
        peer.unsynced = whole;
        let size = if bytewise { 1 } else { bytes.len().max(1) };
        for part in bytes.chunks(size) {
            if let Err(error) = peer.stream.write_all(part) {
                // The server may have seen enough to close the connection.
                return if error.kind() == ErrorKind::BrokenPipe
                    || error.kind() == ErrorKind::ConnectionReset
                {
                    Ok(())
                } else {
                    Err(error.to_string())
                };
            }
        }
        Ok(())
    }

    fn expect(&mut self, name: &str, what: &str) -> Result<(), String> {
        for part in self.names.units(what)? {
            let got = match self.peer(name)?.next()? {
                Unit::Bytes(bytes) => bytes,
                Unit::End => b"(the end of the connection)".to_vec(),
            };
            if !self.names.matches(&part, &got) {
                return Err(differs(&self.names.show(&part), &got));
            }
        }
        Ok(())
    }

    fn wait_for_row(&mut self, name: &str, what: &str) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        // The harness's wait panics when it runs out; a moment before that the row is reported.
        wait_until("a row of a list", || match self.list_has(name, what) {
            Ok(None) => Some(Ok(())),
            Ok(Some(row)) if Instant::now() + PATIENCE / 4 > deadline => Some(Err(row)),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        })
    }

    /// Asks for a list; with a message if its rows aren't as expected.
    fn list_has(&mut self, name: &str, what: &str) -> Result<Option<String>, String> {
        let (command, row) = what.split_once(' ').ok_or("no row")?;
        let (wanted, row) = row.strip_prefix('-').map_or((true, row), |row| (false, row));
        let part = self.names.row(row)?;
        let line = format!("{}\n", command.replace('_', " "));
        let rows = self.peer(name)?.list(line.as_bytes())?;
        let found = rows.iter().any(|row| self.names.matches(&part, row));
        let no = if wanted { "" } else { "no row " };
        let expected = format!("{no}{}", self.names.show(&part));
        Ok((found != wanted).then(|| differs(&expected, &rows.concat())))
    }
}

impl Peer {
    fn new(server: &Server) -> Result<Self, String> {
        let connect = || {
            let stream = TcpStream::connect(server.address())?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        let stream = connect().map_err(|error: std::io::Error| {
            format!("the server is gone: {error}; its log:\n{}", server.log())
        })?;
        let (unread, inbox) = (Vec::new(), VecDeque::new());
        Ok(Self { stream, unread, inbox, echoes: 0, unsynced: false, ended: false })
    }

    /// The next thing that the server has sent or sends.
    fn next(&mut self) -> Result<Unit, String> {
        self.inbox.pop_front().map_or_else(|| self.read(), |bytes| Ok(Unit::Bytes(bytes)))
    }

    fn read(&mut self) -> Result<Unit, String> {
        loop {
            if let Some(bytes) = unit_bytes(&self.unread) {
                return Ok(Unit::Bytes(self.unread.drain(..bytes).collect()));
            }
            let mut chunk = [0; 1 << 16];
            match self.stream.read(&mut chunk) {
                Ok(0) => break,
                Ok(bytes) => self.unread.extend_from_slice(&chunk[..bytes]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(format!("{error}, with {:?} unread", escaped(&self.unread)));
                }
            }
        }
        self.ended = true;
        if self.unread.is_empty() {
            Ok(Unit::End)
        } else {
            Err(format!("the end of the connection within {:?}", escaped(&self.unread)))
        }
    }

    /// Sends an echo and waits for it; what comes before it goes to the inbox.
    fn sync(&mut self) -> Result<(), String> {
        self.unsynced = false;
        if self.ended {
            return Ok(());
        }
        self.echoes += 1;
        let body = format!("echo of a transcript {}", self.echoes);
        let packet = |magic, command| {
            let bytes = u32::try_from(body.len()).expect("a short text");
            [&header_bytes(magic, command, bytes)[..], body.as_bytes()].concat()
        };
        // If the server has closed the connection, reading says so.
        let _ = self.stream.write_all(&packet(Magic::Request, Command::EchoReq));
        let answer = packet(Magic::Response, Command::EchoRes);
        while let Unit::Bytes(bytes) = self.read()? {
            if bytes == answer {
                return Ok(());
            }
            self.inbox.push_back(bytes);
        }
        Ok(())
    }

    /// The rows of a list, without the last line.
    fn list(&mut self, line: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        self.stream.write_all(line).map_err(|error| error.to_string())?;
        let mut rows = Vec::new();
        loop {
            match self.read()? {
                Unit::End => return Err("the end of the connection within a list".to_owned()),
                Unit::Bytes(bytes) if bytes.first() == Some(&0) => self.inbox.push_back(bytes),
                Unit::Bytes(bytes) if bytes == b".\n" => return Ok(rows),
                Unit::Bytes(bytes) => rows.push(bytes),
            }
        }
    }
}

/// How many bytes the first packet or line has; `None` if it isn't all there.
fn unit_bytes(bytes: &[u8]) -> Option<usize> {
    if *bytes.first()? != 0 {
        return Some(bytes.iter().position(|&byte| byte == b'\n')? + 1);
    }
    let size: [u8; 4] = bytes.get(8..12)?.try_into().expect("four bytes");
    let end = 12 + usize::try_from(u32::from_be_bytes(size)).expect("64 bits");
    (bytes.len() >= end).then_some(end)
}

fn differs(expected: &str, got: &[u8]) -> String {
    format!("    expected: {expected}\n         got: {}", template::readable(got))
}

fn escaped(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

#[test]
fn submitting() {
    run_all(submit::ALL);
}

#[test]
fn working() {
    run_all(worker::ALL);
}

#[test]
fn result_packets() {
    run_all(results::ALL);
}

#[test]
fn unique_keys() {
    run_all(unique::ALL);
}

#[test]
fn status_queries() {
    run_all(status::ALL);
}

#[test]
fn admin_commands() {
    run_all(admin::ALL);
}

#[test]
fn error_packets() {
    run_all(errors::ALL);
}

#[test]
fn malformed_input() {
    run_all(malformed::ALL);
}

#[test]
fn life_of_jobs() {
    run_all(life::ALL);
}
