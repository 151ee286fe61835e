//! Cores that drain at different times under load, turn by turn in any order: all of them end, and
//! what was accepted is done before.
//!
//! Each core has a shard, its end of a real mesh, a worker for all functions and a client that
//! submits its next job the moment the last one is done.

use std::net::Ipv4Addr;

use fastrand::Rng;

use super::*;
use crate::engine::{ConnId, DrainGoal, Now, handle};
use crate::shard::cores::Cores;
use crate::shard::remote::message::Message;
use crate::shard::{Origin, Service, Settings, Shard};
use crate::wire::{Command, Magic, encode};

const CORES: usize = 3;
const FUNCTIONS: [&[u8]; 5] = [b"a", b"b", b"c", b"d", b"e"];
const TURNS_MAX: usize = 100_000;

/// A connection, and whether its last request is unanswered.
struct Peer {
    conn: ConnId,
    waits: bool,
}

struct CoreUnderTest {
    shard: Shard,
    gauges: Gauges,
    mailbox: Mailbox<Message>,
    drain: Drain,
    signalled: bool,
    stops: bool,
    ended: bool,
    client: Peer,
    worker: Peer,
    created: usize,
    refused: usize,
    done: usize,
}

fn packet(command: Command, arguments: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&mut bytes, Magic::Request, command, arguments, b"");
    bytes
}

impl CoreUnderTest {
    fn load(&self) -> Load {
        let jobs = self.shard.unfinished() + self.mailbox.overflow();
        Load { jobs, ..Load::default() }
    }

    fn take_replies(&mut self, conn: ConnId, now: Now) -> Vec<(u32, Vec<u8>)> {
        let mut bytes = Vec::new();
        while let Some((chunk, _)) = self.shard.take(conn) {
            bytes.extend_from_slice(chunk.as_ref());
            self.shard.sent(conn, chunk, now);
        }
        let mut rest = &bytes[..];
        let mut packets = Vec::new();
        while let Some((header, behind)) = rest.split_at_checked(12) {
            let number = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
            let (body, behind) = behind.split_at(number(8) as usize);
            packets.push((number(4), body.to_vec()));
            rest = behind;
        }
        packets
    }

    /// One turn, as a driver runs it.
    fn turn(&mut self, rng: &mut Rng, now: Now) {
        let Self { shard, mailbox, .. } = self;
        mailbox.receive(rng.usize(1..8), |from, message| shard.receive_message(from, message, now));
        if !self.stops {
            self.read(rng, now);
        }
        while self.shard.poll_dirty(now).is_some() {}
        for (kind, _) in self.take_replies(self.client.conn, now) {
            match kind {
                8 => self.created += 1,
                19 => self.refused += 1,
                _ => self.done += 1,
            }
            self.client.waits = kind == 8;
        }
        for (kind, body) in self.take_replies(self.worker.conn, now) {
            // NO_JOB or an assignment; a busy worker asks again at once.
            self.worker.waits = false;
            if kind == 11 {
                let handle = body.split(|&byte| byte == 0).next().unwrap();
                let complete = packet(Command::WorkComplete, &[handle]);
                self.shard.received(self.worker.conn, &complete, now);
            }
        }
        let mut messages = Vec::new();
        self.shard.take_messages(&mut messages);
        messages.into_iter().for_each(|(to, message)| self.mailbox.send(to, message));
        self.mailbox.flush();
        self.gauges.publish(self.load());
        if self.signalled {
            self.shard.drain(DrainGoal::JobsDone, now);
            self.drain.join();
            self.stops |= self.drain.is_done(self.load(), &self.gauges, &self.mailbox);
        }
        // A driver that stops reads nothing more, and waits until all replies have left.
        self.ended = self.stops && self.shard.is_flushed();
    }

    fn read(&mut self, rng: &mut Rng, now: Now) {
        if !self.client.waits && !rng.bool() {
            let submit = packet(Command::SubmitJob, &[FUNCTIONS[rng.usize(0..5)], b""]);
            self.client.waits = true;
            self.shard.received(self.client.conn, &submit, now);
        }
        if !self.worker.waits {
            self.worker.waits = true;
            self.shard.received(self.worker.conn, &packet(Command::GrabJob, &[]), now);
        }
    }
}

fn cores_under_test(now: Now) -> Vec<CoreUnderTest> {
    let mailboxes = crate::io::cores::mesh::mesh(CORES, Message::bytes).unwrap();
    let core = |(mailbox, (drain, gauges)): (Mailbox<Message>, (Drain, Gauges))| {
        let cores = Cores { own: mailbox.core(), count: CORES };
        let mut shard = Shard::new(Settings { cores, ..Settings::default() }, now);
        let origin = Origin { fd: 9, peer: (Ipv4Addr::LOCALHOST, 4001).into(), listener: 0 };
        let mut peer = || Peer { conn: shard.connect(origin, now).unwrap(), waits: false };
        let (client, worker) = (peer(), peer());
        for function in FUNCTIONS {
            shard.received(worker.conn, &packet(Command::CanDo, &[function]), now);
        }
        let (signalled, stops, ended) = (false, false, false);
        let (created, refused, done) = (0, 0, 0);
        CoreUnderTest {
            shard,
            gauges,
            mailbox,
            drain,
            signalled,
            stops,
            ended,
            client,
            worker,
            created,
            refused,
            done,
        }
    };
    let drains = Drain::of(CORES).into_iter().zip(Gauges::of(CORES));
    mailboxes.into_iter().zip(drains).map(core).collect()
}

/// A core without jobs ended by itself; another one got a job and waited for messages of the ended
/// one: with several threads and a client that submits without a pause, SIGUSR1 hung for ever.
#[test]
fn cores_that_drain_under_load_all_end_with_everything_done() {
    let owners: std::collections::BTreeSet<usize> =
        FUNCTIONS.iter().map(|name| usize::from(handle::slot(name)) % CORES).collect();
    assert_eq!(owners.len(), CORES, "each core owns a function");
    let mut refused = 0;
    for seed in 0..300 {
        let mut rng = Rng::with_seed(seed);
        let now = Now { mono_ms: 5000, unix_ms: 1_700_000_000_000 };
        let mut cores_under_test = cores_under_test(now);
        let signalled_at: Vec<usize> = (0..CORES).map(|_| rng.usize(50..400)).collect();
        for turn in 0.. {
            assert!(turn < TURNS_MAX, "seed {seed}: it never ends");
            let at = rng.usize(0..CORES);
            cores_under_test[at].signalled |= turn >= signalled_at[at];
            if !cores_under_test[at].ended {
                cores_under_test[at].turn(&mut rng, now);
            }
            if cores_under_test.iter().all(|core| core.ended) {
                break;
            }
        }
        for core in &cores_under_test {
            assert!(!core.client.waits, "seed {seed}: a submission without an answer");
            assert_eq!(core.created, core.done, "seed {seed}: accepted, and not done");
            assert!(core.shard.is_idle());
        }
        refused += cores_under_test.iter().map(|core| core.refused).sum::<usize>();
    }
    assert!(refused > 100, "new work came meanwhile");
}

/// The messages of a core to one that had just ended found no space there, and waited: they count
/// as jobs, so that core waited for itself.
#[test]
fn a_core_ends_though_another_ended_without_receiving_its_messages() {
    let mut mailboxes = crate::io::cores::mesh::mesh::<()>(2, |()| 0).unwrap();
    let (mut drains, gauges) = (Drain::of(2), Gauges::of(2));
    drains.iter_mut().for_each(Drain::join);
    assert!(drains[1].is_done(Load::default(), &gauges[1], &mailboxes[1]));
    drop(mailboxes.pop());
    // Requests of the same turn.
    (0..10_000).for_each(|_| mailboxes[0].send(1, ()));
    mailboxes[0].flush();
    let own = Load { jobs: mailboxes[0].overflow(), ..Load::default() };
    assert!(own.jobs > 0);
    assert!(drains[0].is_done(own, &gauges[0], &mailboxes[0]));
}

/// A core that had answered everything ended while another one's request was on its way to it.
#[test]
fn cores_end_together_once_all_have_answered_everything() {
    let mut drains = Drain::of(3);
    let [first, second, third] = &mut drains[..] else { panic!("three") };
    assert!(!first.is_flushed(true) && !first.is_flushed(true), "it counts once");
    assert!(!second.is_flushed(true) && !third.is_flushed(false) && !first.is_flushed(true));
    assert!(third.is_flushed(true) && second.is_flushed(true));
    assert!(!first.is_flushed(false), "it has something to answer again");
    assert!(first.is_flushed(true));
}
