//! Tests of connections with much unread: they are read from until memory is short, the largest
//! wait first, and the largest ends when memory is used up.

use super::*;
use crate::shard::cores::Cores;

const MIB: usize = 1 << 20;

/// Room for 16 MiB in all.
fn tight() -> Settings {
    Settings { memory_bytes_max: 16 * MIB, connections_max: 100, ..settings() }
        .with_outbox(64 * MIB)
}

impl Settings {
    fn with_outbox(self, outbox_bytes_max: usize) -> Self {
        Self { outbox_bytes_max, ..self }
    }
}

impl Desk {
    /// The end of a batch: what the driver would be told.
    fn settle(&mut self) -> Vec<ConnId> {
        std::iter::from_fn(|| self.shard.poll_dirty(self.now)).collect()
    }

    /// A worker with a job of each client, whose handle is that of its number.
    fn assign(&mut self, clients: &[ConnId]) -> ConnId {
        let worker = self.connect();
        self.say(worker, &packet(Command::CanDo, &[b"resize"], b""));
        for &client in clients {
            self.say(client, &packet(Command::SubmitJob, &[b"resize", b""], b""));
            self.say(worker, &packet(Command::GrabJob, &[], b""));
            self.send_all(client);
        }
        self.send_all(worker);
        worker
    }

    fn pile(&mut self, worker: ConnId, sequence: usize, bytes: usize) {
        let data = vec![b'd'; bytes];
        self.say(worker, &packet(Command::WorkData, &[&handle(sequence)], &data));
    }
}

#[test]
fn a_client_may_write_all_its_requests_before_it_reads_a_reply() {
    // It was paused at 1 MiB of unread answers: a blocking client that writes 400 000 submissions
    // and only then reads got stuck, was reset after a minute, and never heard of its jobs.
    let mut desk = Desk::new(settings().with_outbox(64 * MIB));
    let conn = desk.connect();
    let submit = packet(Command::SubmitJobBg, &[b"resize", b""], b"");
    for _ in 0..100 {
        assert_eq!(desk.shard.intake(conn), Intake::Read);
        desk.say(conn, &submit.repeat(1000));
        desk.settle();
    }
    assert_eq!(desk.shard.engine().jobs().len(), 100_000);
    let replies = desk.send_all(conn);
    assert!(
        replies.len() > 2 * MIB
            && replies.ends_with(&response(Command::JobCreated, &[&handle(100_000)], b""))
    );
}

#[test]
fn a_large_job_is_received_though_a_large_result_waits_for_its_sender() {
    // Both were written with one blocking send each: the server waited for the client to read, the
    // client for the server, until the connection was reset.
    let mut desk = Desk::new(tight());
    let client = desk.connect();
    let worker = desk.assign(&[client]);
    let job = packet(Command::SubmitJobBg, &[b"resize", b""], &vec![b'j'; MIB]);
    let (first, rest) = job.split_at(100_000);
    desk.say(client, first);
    for _ in 0..12 {
        desk.pile(worker, 1, MIB);
        desk.settle();
    }
    assert!(desk.shard.memory_left() < 16 * MIB / 4, "memory is short");
    assert_eq!(desk.shard.intake(client), Intake::Direct, "the body is received to its end");
    let (mut body, room) = desk.shard.lend(client).unwrap();
    body.extend_from_slice(&rest[..room]);
    desk.shard.give_back(client, body, desk.now);
    desk.say(client, &rest[room..]);
    desk.settle();
    assert_eq!(desk.shard.engine().jobs().len(), 2, "and it is accepted");
    assert_eq!(desk.shard.intake(client), Intake::Pause, "between frames it waits");
    desk.say(client, b"version\n");
    let replies = desk.send_all(client);
    assert!(replies.ends_with(b"OK 0.1\n"), "what waited goes on when it has read");
    assert_eq!(desk.shard.intake(client), Intake::Read);
}

#[test]
fn when_memory_is_short_the_largest_waits_and_goes_on_when_it_is_not() {
    let mut desk = Desk::new(tight());
    let clients: Vec<ConnId> = (0..3).map(|_| desk.connect()).collect();
    let worker = desk.assign(&clients);
    for (at, mib) in [(1, 7), (2, 2), (3, 2)] {
        (0..mib).for_each(|_| desk.pile(worker, at, MIB));
    }
    desk.settle();
    let read = |desk: &Desk| {
        let reads = |&conn: &ConnId| desk.shard.intake(conn) == Intake::Read;
        clients.iter().map(reads).collect::<Vec<_>>()
    };
    assert_eq!(read(&desk), [true; 3], "three quarters aren't taken");
    desk.pile(worker, 2, MIB);
    desk.pile(worker, 3, MIB);
    desk.settle();
    assert_eq!(read(&desk), [false, false, false], "16 MiB less 13 leave less than one each");
    assert_eq!(desk.shard.intake(worker), Intake::Read, "nothing waits for it to read");
    // 7 MiB are read: the others may go on, though they have read nothing.
    desk.send_all(clients[0]);
    desk.settle();
    assert_eq!(read(&desk), [true; 3]);
    assert_eq!(desk.shard.counters.slow_readers, 0);
}

#[test]
fn who_reads_nothing_for_a_minute_while_memory_is_short_is_closed() {
    let mut desk = Desk::new(tight());
    let clients: Vec<ConnId> = (0..2).map(|_| desk.connect()).collect();
    let worker = desk.assign(&clients);
    for _ in 0..6 {
        desk.pile(worker, 1, MIB);
        desk.pile(worker, 2, MIB);
    }
    (0..2).for_each(|_| desk.pile(worker, 1, MIB));
    desk.settle();
    desk.now.mono_ms += 59_900;
    desk.send_one(clients[1]).unwrap();
    desk.settle();
    assert_eq!(desk.shard.intake(clients[0]), Intake::Pause);
    let deadline = desk.shard.deadline_ms().unwrap();
    assert!(deadline <= desk.now.mono_ms + 100, "they are looked at again");
    desk.now.mono_ms += 100;
    desk.shard.tick(desk.now);
    assert!(desk.settle().contains(&clients[0]));
    assert_eq!(desk.shard.intake(clients[0]), Intake::Close);
    assert_ne!(desk.shard.intake(clients[1]), Intake::Close, "it has read something");
}

#[test]
fn when_memory_is_used_up_the_largest_is_closed_and_memory_stays_bounded() {
    // Four clients that didn't read and one worker that sent small packets reached ten times the
    // memory that was allowed.
    let mut desk = Desk::new(tight());
    let clients: Vec<ConnId> = (0..4).map(|_| desk.connect()).collect();
    let worker = desk.assign(&clients);
    let mut gone = Vec::new();
    for round in 0..20_000 {
        let at = if round % 5 < 2 { 2 } else { round % 4 };
        if !gone.contains(&clients[at]) {
            desk.pile(worker, at + 1, 4096);
        }
        while let Some(conn) = desk.shard.poll_dirty(desk.now) {
            if desk.shard.intake(conn) == Intake::Close {
                desk.shard.disconnect(conn, desk.now);
                gone.push(conn);
            }
        }
        assert!(desk.shard.memory_bytes() <= 16 * MIB + 8192);
    }
    assert_eq!(gone.first(), Some(&clients[2]), "the one with most unread");
    assert_eq!(desk.shard.counters.slow_readers, gone.len() as u64);
    assert!(!gone.contains(&worker));
}

#[test]
fn the_largest_of_all_cores_is_closed() {
    let mut desk = Desk::new(tight());
    let client = desk.connect();
    let worker = desk.assign(&[client]);
    (0..4).for_each(|_| desk.pile(worker, 1, MIB));
    let bytes = 12 * MIB as isize;
    let other_cores = OtherCores { bytes, largest_unread_bytes: 5 * MIB, ..OtherCores::default() };
    desk.shard.set_other_cores(other_cores);
    desk.settle();
    assert_ne!(desk.shard.intake(client), Intake::Close, "another core has a larger one");
    desk.shard.set_other_cores(OtherCores { largest_unread_bytes: 4 * MIB, ..other_cores });
    desk.settle();
    assert_eq!(desk.shard.intake(client), Intake::Close);
}

#[test]
fn a_client_of_a_store_may_write_all_its_requests_before_it_reads_a_reply() {
    // With 1024 replies that waited for the store its requests waited, and went on only when it
    // had read all but 256 KiB: a blocking client that reads last waited for ever.
    let mut settings = settings().with_outbox(64 * MIB);
    settings.engine.durabilities.default = Durability::Fsync;
    let mut desk = Desk::new(settings);
    let conn = desk.connect();
    let submit = packet(Command::SubmitJobBg, &[b"resize", b""], b"");
    let mut sent = 0;
    for _ in 0..1000 {
        if sent < 20_000 && desk.shard.intake(conn) == Intake::Read {
            desk.say(conn, &submit.repeat(2000));
            sent += 2000;
        }
        for number in desk.inserted() {
            desk.shard.stored(number, true, desk.now);
        }
        desk.settle();
    }
    assert_eq!(desk.shard.engine().jobs().len(), 20_000);
    let replies = desk.send_all(conn);
    assert!(replies.ends_with(&response(Command::JobCreated, &[&handle(20_000)], b"")));
}

#[test]
fn a_core_with_much_unread_looks_when_others_use_memory_up() {
    // A core whose peers neither read nor wrote slept on: what other cores took used memory up, and
    // they refused everything while the largest outbox stayed.
    let cores = Cores { own: 0, count: 2 };
    let mut desk = Desk::new(Settings { cores, ..tight() });
    let client = desk.connect();
    let echo = packet(Command::EchoReq, &[], &vec![b'e'; MIB]);
    (0..4).for_each(|_| desk.say(client, &echo));
    desk.settle();
    assert_eq!(desk.shard.intake(client), Intake::Read, "memory isn't short yet");
    let deadline = desk.shard.deadline_ms().expect("the core looks again");
    assert!(deadline <= desk.now.mono_ms + 100);
    desk.now.mono_ms = deadline;
    let bytes = 12 * MIB as isize;
    desk.shard.set_other_cores(OtherCores { bytes, ..OtherCores::default() });
    desk.settle();
    assert_eq!(desk.shard.intake(client), Intake::Close);
}

#[test]
fn who_reads_one_large_packet_slowly_while_memory_is_short_stays() {
    // Only whole chunks counted as read: a peer that took longer than a minute for a large payload
    // was closed, and the log said that it had read nothing.
    let mut desk = Desk::new(tight());
    let client = desk.connect();
    let worker = desk.assign(&[client]);
    (0..13).for_each(|_| desk.pile(worker, 1, MIB));
    desk.settle();
    assert_eq!(desk.shard.intake(client), Intake::Pause);
    let (chunk, _) = desk.shard.take(client).unwrap();
    for _ in 0..5 {
        desk.now.mono_ms += 30_000;
        desk.shard.sent_some(client, desk.now);
        desk.settle();
    }
    assert_eq!(desk.shard.intake(client), Intake::Pause);
    desk.shard.sent(client, chunk, desk.now);
}
