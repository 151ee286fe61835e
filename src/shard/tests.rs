//! Tests of one whole shard by bytes: what the driver sees when peers misbehave or stop reading.
//!
//! A desk holds a shard and plays its driver: chunks are taken and sent only when a test says so.

use std::net::Ipv4Addr;

use super::cores::CoreSet;
use super::limits::{INBOUND_PAUSE_BYTES, SLOTS_PAUSE, SLOTS_RESUME};
use super::*;
use crate::engine::function::Durability;
use crate::engine::handle::{self, Handles};
use crate::wire::{Command, Magic, Response, encode, header_bytes};

mod access;
mod cluster;
mod dead;
mod drain;
mod lists;
mod log;
mod migration;
mod numbers;
mod operator;
mod partitions;
mod reloads;
mod unread;

struct Desk {
    shard: Shard,
    now: Now,
}

fn settings() -> Settings {
    Settings {
        body_bytes_max: 8 << 20,
        outbox_bytes_max: 4 << 20,
        connections_max: 3,
        ..Settings::default()
    }
}

fn packet(command: Command, arguments: &[&[u8]], payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&mut bytes, Magic::Request, command, arguments, payload);
    bytes
}

fn response(command: Command, arguments: &[&[u8]], payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&mut bytes, Magic::Response, command, arguments, payload);
    bytes
}

/// The handle of the job of `resize` that comes as the `sequence`th.
fn handle(sequence: usize) -> Vec<u8> {
    let number = handle::job_number(sequence as u64, handle::slot(b"resize"));
    Handles::default().text(number).as_ref().to_vec()
}

impl Desk {
    fn new(settings: Settings) -> Self {
        let now = Now { mono_ms: 5000, unix_ms: 1_700_000_000_000 };
        Self { shard: Shard::new(settings, now), now }
    }

    fn try_connect(&mut self) -> Result<ConnId, TooManyConnections> {
        let origin = Origin { fd: 9, peer: (Ipv4Addr::LOCALHOST, 4001).into(), listener: 0 };
        self.shard.connect(origin, self.now)
    }

    fn connect(&mut self) -> ConnId {
        self.try_connect().unwrap()
    }

    fn say(&mut self, conn: ConnId, bytes: &[u8]) {
        self.shard.received(conn, bytes, self.now);
    }

    /// One chunk leaves; what it was.
    fn send_one(&mut self, conn: ConnId) -> Option<Vec<u8>> {
        let (chunk, _) = self.shard.take(conn)?;
        let bytes = chunk.as_ref().to_vec();
        self.shard.sent(conn, chunk, self.now);
        Some(bytes)
    }

    fn send_all(&mut self, conn: ConnId) -> Vec<u8> {
        std::iter::from_fn(|| self.send_one(conn)).flatten().collect()
    }
}

#[test]
fn who_lets_too_much_pile_up_is_closed_and_its_worker_keeps_its_job() {
    let mut desk = Desk::new(settings());
    let (client, worker) = (desk.connect(), desk.connect());
    desk.say(client, &packet(Command::SubmitJob, &[b"resize", b""], b""));
    desk.say(worker, &packet(Command::CanDo, &[b"resize"], b""));
    desk.say(worker, &packet(Command::GrabJob, &[], b""));
    let data = packet(Command::WorkData, &[&handle(1)], &vec![b'd'; 1 << 20]);
    for _ in 0..5 {
        assert_ne!(desk.shard.intake(client), Intake::Close);
        desk.say(worker, &data);
    }
    // Over the limit by one packet only: that one is let through, whatever its size.
    desk.say(worker, &data);
    assert_eq!(desk.shard.intake(client), Intake::Close);
    assert_eq!(desk.shard.counters.slow_readers, 1);
    let held = desk.shard.memory_bytes();
    desk.say(worker, &data);
    assert_eq!(desk.shard.memory_bytes(), held, "nothing more piles up");
    desk.shard.disconnect(client, desk.now);
    desk.send_all(worker);
    desk.say(worker, &packet(Command::WorkComplete, &[&handle(1)], b""));
    assert_eq!(desk.send_all(worker), b"", "its result is as welcome as any");
    assert!(desk.shard.is_idle());
}

#[test]
fn half_closed_peers_get_their_replies_before_the_connection_ends() {
    // gearmand drops them: `printf 'status\n' | nc -N` is a race there.
    let mut desk = Desk::new(settings());
    let conn = desk.connect();
    desk.say(conn, &packet(Command::SubmitJobBg, &[b"resize", b""], b"payload"));
    desk.say(conn, b"status\nversi");
    desk.shard.ended(conn, desk.now);
    assert_eq!(desk.shard.intake(conn), Intake::Pause, "until the replies have left");
    let created = response(Command::JobCreated, &[&handle(1)], b"");
    assert_eq!(desk.send_all(conn), [&created[..], b"resize\t1\t0\t0\n.\n"].concat());
    assert_eq!(desk.shard.intake(conn), Intake::Close);
    assert_eq!(desk.shard.poll_dirty(desk.now), Some(conn), "the driver hears of it");
    desk.shard.disconnect(conn, desk.now);
    assert_eq!(desk.shard.memory_bytes(), desk.shard.engine().job_bytes());
}

#[test]
fn long_lists_leave_in_parts_and_nothing_gets_between() {
    let mut desk = Desk::new(settings());
    let conn = desk.connect();
    const JOBS: usize = 100_000;
    let submit = packet(Command::SubmitJobBg, &[b"resize", b""], b"");
    desk.say(conn, &submit.repeat(1000));
    desk.send_all(conn);
    for _ in 1..JOBS / 1000 {
        desk.say(conn, &submit.repeat(1000));
        desk.send_all(conn);
    }
    desk.say(conn, b"show jobs\nversion\n");
    let first = desk.send_one(conn).unwrap();
    assert!(first.len() < 256 << 10, "{} bytes at once", first.len());
    let rest = desk.send_all(conn);
    let text = String::from_utf8([first, rest].concat()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), JOBS + 2);
    assert_eq!(lines[JOBS - 1], format!("{}\t0\t0\t1", handle(JOBS).escape_ascii()));
    assert_eq!(lines[JOBS..], [".", "OK 0.1"]);
    assert_eq!(desk.shard.intake(conn), Intake::Read);
}

#[test]
fn bytes_that_are_not_gearman_close_the_connection_once_its_replies_have_left() {
    let huge = header_bytes(Magic::Request, Command::CanDo, 1 << 20);
    let lacking = packet(Command::EchoReq, &[], b"");
    let lacking = [&header_bytes(Magic::Request, Command::SubmitJob, 4)[..], b"abcd"].concat()
        [..16]
        .iter()
        .chain(&lacking)
        .copied()
        .collect::<Vec<u8>>();
    let long = vec![b'x'; 9000];
    let cases: [&[u8]; 6] =
        [b"\0BAD........", b"\0REQ\0\0\0\x2b\0\0\0\0", b"1 2 3 4 5 6\n", &huge, &lacking, &long];
    for (at, bytes) in cases.into_iter().enumerate() {
        let mut desk = Desk::new(settings());
        let conn = desk.connect();
        desk.say(conn, &[b"version\n", bytes, b"version\n"].concat());
        assert_eq!(desk.shard.counters.malformed, 1, "case {at}");
        assert_eq!(desk.shard.intake(conn), Intake::Pause, "case {at}");
        desk.say(conn, b"version\n");
        assert_eq!(desk.send_all(conn), b"OK 0.1\n", "case {at}");
        assert_eq!(desk.shard.intake(conn), Intake::Close, "case {at}");
        desk.shard.disconnect(conn, desk.now);
        assert_eq!(desk.shard.memory_bytes(), 0, "case {at}");
    }
}

#[test]
fn packets_that_are_no_requests_are_answered_and_the_connection_stays() {
    let mut desk = Desk::new(settings());
    let conn = desk.connect();
    desk.say(conn, &packet(Command::JobCreated, &[&handle(1)], b""));
    desk.say(conn, &packet(Command::AllYours, &[], b""));
    desk.say(conn, &header_bytes(Magic::Response, Command::GrabJob, 0));
    let code = |code: &[u8], text: &[u8]| response(Command::Error, &[code, text], b"");
    let expected = [
        code(b"INVALID_COMMAND", b"Command not expected"),
        code(b"INVALID_COMMAND", b"Command not expected"),
        code(b"INVALID_MAGIC", b"Request magic expected"),
    ];
    assert_eq!(desk.send_all(conn), expected.concat());
    assert_eq!(desk.shard.intake(conn), Intake::Read);
}

#[test]
fn a_result_that_is_refused_fails_its_job() {
    // With the server's memory used up, the very first bytes of a result were refused, so that
    // no core knew whose it was: the job stayed with its worker and its client waited for ever.
    for announced_first in [false, true] {
        let mut desk = Desk::new(Settings { memory_bytes_max: 4000, ..settings() });
        let (client, worker) = (desk.connect(), desk.connect());
        desk.say(client, &packet(Command::SubmitJob, &[b"resize", b""], b""));
        desk.say(worker, &packet(Command::CanDo, &[b"resize"], b""));
        desk.say(worker, &packet(Command::GrabJob, &[], b""));
        for conn in [client, worker] {
            desk.send_all(conn);
        }
        let result = packet(Command::WorkComplete, &[&handle(1)], &[b'r'; 20_000]);
        let (head, rest) = result.split_at(if announced_first { 12 } else { 1000 });
        desk.say(worker, head);
        desk.say(worker, &[rest, b"version\n"].concat());
        let error = response(Command::Error, &[b"QUEUE_ERROR", b"MEMORY_ALLOCATION_FAILURE"], b"");
        assert_eq!(desk.send_all(worker), [&error[..], b"OK 0.1\n"].concat());
        assert_eq!(desk.send_all(client), response(Command::WorkFail, &[&handle(1)], b""));
        assert!(desk.shard.is_idle());
    }
}

#[test]
fn there_are_no_more_connections_than_there_may_be() {
    let mut desk = Desk::new(settings());
    let conns = [desk.connect(), desk.connect(), desk.connect()];
    assert_eq!(desk.try_connect(), Err(TooManyConnections));
    assert_eq!((desk.shard.counters.refused, desk.shard.connections()), (1, 3));
    desk.shard.disconnect(conns[1], desk.now);
    assert_eq!(desk.try_connect(), Ok(conns[1]), "its number serves again");
    assert_eq!(desk.shard.poll_dirty(desk.now), None, "and nothing of the old one is left");
}

#[test]
fn a_core_takes_no_more_than_it_has_room_for_itself() {
    let settings = Settings { core_connections_max: 2, connections_max: 4, ..settings() };
    let mut desk = Desk::new(settings);
    desk.connect();
    desk.connect();
    assert_eq!(desk.try_connect(), Err(TooManyConnections));
}

#[test]
fn exceptions_reach_those_who_asked_and_the_others_see_a_failure() {
    let mut desk = Desk::new(settings());
    let [asks, other, worker] = [desk.connect(), desk.connect(), desk.connect()];
    desk.say(asks, &packet(Command::OptionReq, &[b"exceptions"], b""));
    for client in [asks, other] {
        desk.say(client, &packet(Command::SubmitJob, &[b"resize", b"key"], b""));
    }
    desk.say(worker, &packet(Command::CanDo, &[b"resize"], b""));
    desk.say(worker, &packet(Command::GrabJob, &[], b""));
    for conn in [asks, other] {
        desk.send_all(conn);
    }
    desk.say(worker, &packet(Command::WorkException, &[&handle(1)], b"why"));
    let exception = response(Command::WorkException, &[&handle(1)], b"why");
    assert_eq!(desk.send_all(asks), exception);
    assert_eq!(desk.send_all(other), response(Command::WorkFail, &[&handle(1)], b""));
}

#[test]
fn a_large_payload_goes_through_in_its_own_allocation() {
    let mut desk = Desk::new(settings());
    let (client, worker) = (desk.connect(), desk.connect());
    let payload = vec![b'p'; 200_000];
    let submit = packet(Command::SubmitJobBg, &[b"resize", b""], &payload);
    let (mut head, mut rest) = submit.split_at(100);
    loop {
        desk.say(client, std::mem::take(&mut head));
        let Some((mut body, room_bytes)) = desk.shard.lend(client) else { break };
        assert_eq!(desk.shard.intake(client), Intake::Direct);
        let (taken, behind) = rest.split_at(room_bytes.min(rest.len()));
        body.extend_from_slice(taken);
        rest = behind;
        desk.shard.give_back(client, body, desk.now);
    }
    desk.say(client, rest);
    assert_eq!(desk.shard.memory_bytes() - desk.send_all(client).len(), {
        desk.shard.engine().job_bytes()
    });
    desk.say(worker, &packet(Command::CanDo, &[b"resize"], b""));
    desk.say(worker, &packet(Command::GrabJob, &[], b""));
    let mut chunks = Vec::new();
    while let Some((chunk, _)) = desk.shard.take(worker) {
        chunks.push(chunk);
    }
    assert!(matches!(&chunks[1], Chunk::Payload(bytes) if *bytes == payload));
}

/// A desk whose background jobs go to a store.
fn durable_desk() -> Desk {
    let mut settings = settings();
    settings.engine.durabilities.default = Durability::Fsync;
    Desk::new(settings)
}

impl Desk {
    /// The numbers of the jobs that the store has been given since the last call.
    fn inserted(&mut self) -> Vec<u64> {
        let mut operations = Vec::new();
        self.shard.take_operations(&mut operations);
        let number = |operation| match operation {
            Operation::Insert { row, answered: false } => row.number,
            other => panic!("{other:?}"),
        };
        operations.into_iter().map(number).collect()
    }
}

#[test]
fn replies_wait_for_the_store_in_the_order_of_their_requests() {
    let mut desk = durable_desk();
    let conn = desk.connect();
    let durable = packet(Command::SubmitJobBg, &[b"resize", b""], b"payload");
    let foreground = packet(Command::SubmitJob, &[b"resize", b""], b"payload");
    let echo = packet(Command::EchoReq, &[], b"echo");
    desk.say(conn, &[&durable[..], &foreground, &durable, b"version\n", &durable, &echo].concat());
    let numbers = desk.inserted();
    assert_eq!(numbers.len(), 3);
    assert_eq!(desk.send_all(conn), b"", "the first answer is still to come");
    assert!(!desk.shard.is_flushed());
    let created = |sequence| response(Command::JobCreated, &[&handle(sequence)], b"");
    desk.shard.stored(numbers[1], true, desk.now);
    assert_eq!(desk.send_all(conn), b"");
    desk.shard.stored(numbers[0], true, desk.now);
    let first = [&created(1)[..], &created(2), &created(3), b"OK 0.1\n"].concat();
    assert_eq!(desk.send_all(conn), first);
    desk.shard.stored(numbers[2], false, desk.now);
    let error = response(Command::Error, &[b"QUEUE_ERROR", b"Job could not be stored"], b"");
    let echoed = response(Command::EchoRes, &[], b"echo");
    assert_eq!(desk.send_all(conn), [error, echoed].concat());
    assert!(desk.shard.is_flushed());
}

#[test]
fn who_has_too_many_replies_to_come_is_not_read_from_until_half_of_them_came() {
    let mut desk = durable_desk();
    let conn = desk.connect();
    let durable = packet(Command::SubmitJobBg, &[b"resize", b""], b"payload");
    desk.say(conn, &durable.repeat(SLOTS_PAUSE + 1));
    assert_eq!(desk.shard.intake(conn), Intake::Pause);
    let numbers = desk.inserted();
    assert_eq!(numbers.len(), SLOTS_PAUSE);
    for (at, &number) in numbers.iter().enumerate() {
        desk.shard.stored(number, true, desk.now);
        desk.send_all(conn);
        // The driver asks after each batch of outcomes.
        while desk.shard.poll_dirty(desk.now).is_some() {}
        let resumed = desk.shard.intake(conn) == Intake::Read;
        assert_eq!(resumed, SLOTS_PAUSE - at - 1 <= SLOTS_RESUME, "after {at}");
    }
    assert_eq!(desk.inserted().len(), 1, "and what waited has been read");
}

#[test]
fn nobody_is_closed_for_not_reading_what_waited_for_the_store() {
    let mut settings = settings();
    settings.engine.durabilities.default = Durability::Fsync;
    let large = vec![b'e'; settings.outbox_bytes_max + 1];
    let mut desk = Desk::new(settings);
    let conn = desk.connect();
    let durable = packet(Command::SubmitJobBg, &[b"resize", b""], b"payload");
    let echo = packet(Command::EchoReq, &[], &large);
    desk.say(conn, &[durable, echo].concat());
    let numbers = desk.inserted();
    desk.shard.stored(numbers[0], true, desk.now);
    // It may speak before it has read all of that.
    desk.say(conn, &packet(Command::PreSleep, &[], b""));
    assert_eq!(desk.shard.counters.slow_readers, 0);
    let created = response(Command::JobCreated, &[&handle(1)], b"");
    let echoed = response(Command::EchoRes, &[], &large);
    assert!(desk.send_all(conn) == [created, echoed].concat());
}

#[test]
fn half_closed_peers_get_the_replies_that_wait_for_the_store() {
    let mut desk = durable_desk();
    let conn = desk.connect();
    desk.say(conn, &packet(Command::SubmitJobBg, &[b"resize", b""], b"payload"));
    desk.shard.ended(conn, desk.now);
    let numbers = desk.inserted();
    assert_eq!(desk.shard.intake(conn), Intake::Pause);
    desk.shard.stored(numbers[0], true, desk.now);
    assert_eq!(desk.shard.poll_dirty(desk.now), Some(conn));
    assert_eq!(desk.send_all(conn), response(Command::JobCreated, &[&handle(1)], b""));
    assert_eq!(desk.shard.intake(conn), Intake::Close);
}
