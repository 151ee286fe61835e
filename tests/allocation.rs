//! Counts allocations: the parser makes none, a job makes one, for its own bytes.
//!
//! Invariant 2 of the design. Everything runs on a warm shard, as a server does after its first
//! seconds; `allocation_counter` replaces the global allocator and counts for this thread only.
#![allow(clippy::unwrap_used, reason = "a test helper that finds nothing is a failed test")]

#[path = "support/tls_pair.rs"]
mod tls_pair;

use std::hint::black_box;
use std::io::Write as _;
use std::net::Ipv4Addr;

use allocation_counter::measure;
use ringgear::engine::{ConnId, Now};
use ringgear::shard::{Listener, Origin, Service, Settings, Shard};
use ringgear::wire::frame::{self, Cut};
use ringgear::wire::{self, Arguments, Command as C, HEADER_BYTES, Magic, Payload, Request};
use rustls::ClientConnection;

const CYCLES: u64 = 5000;

fn request(command: C, arguments: &[&[u8]], payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    wire::encode(&mut bytes, Magic::Request, command, arguments, payload);
    bytes
}

/// A shard and what its peers last received, without any allocation of its own in a cycle.
struct Server {
    shard: Shard,
    now: Now,
    handle: Vec<u8>,
    received: Vec<(ConnId, C)>,
    out: Vec<u8>,
}

impl Server {
    fn new() -> Self {
        let now = Now { mono_ms: 1000, unix_ms: 1_700_000_000_000 };
        let (handle, received) = (Vec::with_capacity(64), Vec::with_capacity(64));
        let shard = Shard::new(Settings::default(), now);
        Self { shard, now, handle, received, out: Vec::with_capacity(1 << 12) }
    }

    fn connect(&mut self) -> ConnId {
        let origin = Origin { fd: 3, peer: (Ipv4Addr::LOCALHOST, 4001).into(), listener: 0 };
        self.shard.connect(origin, self.now).unwrap()
    }

    fn say(&mut self, conn: ConnId, bytes: &[u8]) {
        self.shard.received(conn, bytes, self.now);
        self.flush();
    }

    /// The same as `WORK_COMPLETE` for the job that was assigned last.
    fn complete(&mut self, conn: ConnId) {
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        wire::encode(&mut out, Magic::Request, C::WorkComplete, &[&self.handle], b"result");
        self.say(conn, &out);
        self.out = out;
    }

    fn flush(&mut self) {
        while let Some(conn) = self.shard.poll_dirty(self.now) {
            while let Some((chunk, _)) = self.shard.take(conn) {
                let mut bytes = chunk.as_ref();
                while let Ok(Cut::Packet { header, body }) = frame::cut(bytes, 0) {
                    if matches!(header.command, C::JobAssign | C::JobAssignUniq) {
                        let arguments = Arguments::split(header.command, body).unwrap();
                        self.handle.clear();
                        self.handle.extend_from_slice(arguments.part(0));
                    }
                    self.received.push((conn, header.command));
                    bytes = &bytes[HEADER_BYTES + body.len()..];
                }
                assert!(bytes.is_empty());
                self.shard.sent(conn, chunk, self.now);
            }
        }
    }

    fn expect(&mut self, received: &[(ConnId, C)]) {
        assert_eq!(self.received, received);
        self.received.clear();
    }

    fn pass(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.unix_ms += ms;
        self.shard.tick(self.now);
        self.flush();
    }
}

/// Allocations of `CYCLES` cycles once as many have gone by.
fn warm_allocations(mut cycle: impl FnMut()) -> u64 {
    for _ in 0..CYCLES {
        cycle();
    }
    measure(|| (0..CYCLES).for_each(|_| cycle())).count_total
}

#[test]
fn frames_and_packets_allocate_nothing() {
    let mut bytes = Vec::new();
    for &command in C::ALL {
        let arguments = vec![&b"argument"[..]; command.arguments()];
        let payload: &[u8] = if command.has_payload() { b"some payload" } else { b"" };
        bytes.extend(request(command, &arguments, payload));
        bytes.extend_from_slice(b"status\r\n");
    }
    let mut frames = 0;
    let allocations = measure(|| {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            frames += 1;
            match black_box(frame::cut(rest, 0)).unwrap() {
                Cut::Packet { header, body } => {
                    let _ = black_box(Request::parse(header, Payload::borrowed(body)));
                    rest = &rest[HEADER_BYTES + body.len()..];
                }
                Cut::Line { used, .. } => rest = &rest[used..],
                other => panic!("{other:?}"),
            }
        }
    });
    assert_eq!((frames, allocations.count_total), (2 * C::ALL.len(), 0));
}

#[test]
fn a_background_job_allocates_its_own_bytes_only() {
    let mut server = Server::new();
    let (client, worker) = (server.connect(), server.connect());
    let submit = request(C::SubmitJobBg, &[b"resize", b"unique"], &[7; 64]);
    let grab = request(C::GrabJobUniq, &[], &[]);
    server.say(worker, &request(C::CanDo, &[b"resize"], &[]));
    let allocations = warm_allocations(|| {
        server.say(client, &submit);
        server.say(worker, &grab);
        server.expect(&[(client, C::JobCreated), (worker, C::JobAssignUniq)]);
        server.complete(worker);
        server.expect(&[]);
    });
    assert_eq!(allocations, CYCLES, "one for each job");
}

#[test]
fn a_foreground_job_for_a_sleeping_worker_allocates_its_own_bytes_only() {
    let mut server = Server::new();
    let (client, worker) = (server.connect(), server.connect());
    let submit = request(C::SubmitJobHigh, &[b"resize", b""], &[7; 300]);
    let (grab, sleep) = (request(C::GrabJob, &[], &[]), request(C::PreSleep, &[], &[]));
    // A time limit, so that each job has a timer, and the lease of each wake-up another one.
    server.say(worker, &request(C::CanDoTimeout, &[b"resize", b"5000"], &[]));
    let allocations = warm_allocations(|| {
        server.say(worker, &sleep);
        server.say(client, &submit);
        server.received.sort_unstable_by_key(|&(conn, _)| conn);
        server.expect(&[(client, C::JobCreated), (worker, C::Noop)]);
        server.pass(1);
        server.say(worker, &grab);
        server.expect(&[(worker, C::JobAssign)]);
        server.complete(worker);
        server.expect(&[(client, C::WorkComplete)]);
        server.say(worker, &grab);
        server.expect(&[(worker, C::NoJob)]);
        server.pass(3);
    });
    assert_eq!(allocations, CYCLES, "one for each job");
}

#[test]
fn a_queue_that_stays_deep_hardly_allocates_anything_beside_its_jobs() {
    let mut server = Server::new();
    let (client, worker) = (server.connect(), server.connect());
    let grab = request(C::GrabJob, &[], &[]);
    server.say(worker, &request(C::CanDo, &[b"resize"], &[]));
    let mut uniques = 0_usize;
    let mut submit = Vec::with_capacity(256);
    let mut submit_one = |server: &mut Server| {
        uniques += 1;
        // Sixteen letters, one for each half of a byte.
        let unique: [u8; 16] =
            std::array::from_fn(|at| b"abcdefghijklmnop"[uniques >> (4 * at) & 15]);
        submit.clear();
        let arguments: [&[u8]; 2] = [b"resize", &unique];
        wire::encode(&mut submit, Magic::Request, C::SubmitJobBg, &arguments, b"payload");
        server.say(client, &submit);
    };
    for _ in 0..1000 {
        submit_one(&mut server);
    }
    server.received.clear();
    let allocations = warm_allocations(|| {
        submit_one(&mut server);
        server.say(worker, &grab);
        server.complete(worker);
        server.received.clear();
    });
    // A hash table that has had thousands of removals moves to a clean one, now and then.
    assert!(allocations - CYCLES <= CYCLES / 1000, "{allocations}, one for each job");
}

#[test]
fn timers_and_leases_that_end_allocate_nothing() {
    let mut server = Server::new();
    let client = server.connect();
    let workers = [server.connect(), server.connect(), server.connect()];
    let (grab, sleep) = (request(C::GrabJob, &[], &[]), request(C::PreSleep, &[], &[]));
    for worker in workers {
        server.say(worker, &request(C::CanDo, &[b"resize"], &[]));
    }
    let submit = request(C::SubmitJobBg, &[b"resize", b""], b"payload");
    let allocations = warm_allocations(|| {
        workers.iter().for_each(|&worker| server.say(worker, &sleep));
        server.say(client, &submit);
        server.pass(100);
        server.pass(100);
        server.say(workers[0], &grab);
        server.complete(workers[0]);
        assert_eq!(server.received.iter().filter(|(_, what)| *what == C::Noop).count(), 3);
        server.received.clear();
        server.pass(200);
    });
    assert_eq!(allocations, CYCLES, "one for each job");
}

/// Client and server of a connection with TLS, after their handshake.
struct Tls {
    server: Server,
    conn: ConnId,
    client: ClientConnection,
    records: Vec<u8>,
    plaintext: Vec<u8>,
}

impl Tls {
    fn new() -> Self {
        let (tls_server, config) = tls_pair::configs();
        let client = tls_pair::client(&config);
        let mut server = Server::new();
        let settings = Settings {
            tls: Some(tls_server),
            listeners: [Listener { name: None, speaks_tls: true }].into(),
            ..Settings::default()
        };
        server.shard = Shard::new(settings, server.now);
        let conn = server.connect();
        let [records, plaintext] = [(); 2].map(|()| Vec::with_capacity(1 << 16));
        let mut this = Self { server, conn, client, records, plaintext };
        while this.client.is_handshaking() || this.client.wants_write() {
            this.exchange();
        }
        this
    }

    /// Passes on what both have to say.
    fn exchange(&mut self) {
        let Self { server: Server { shard, now, .. }, conn, client, records, plaintext } = self;
        records.clear();
        while client.wants_write() {
            client.write_tls(records).unwrap();
        }
        shard.received(*conn, records, *now);
        plaintext.clear();
        while let Some(conn) = shard.poll_dirty(*now) {
            while let Some((chunk, _)) = shard.take(conn) {
                tls_pair::open(client, chunk.as_ref(), plaintext);
                shard.sent(conn, chunk, *now);
            }
        }
    }
}

#[test]
fn with_tls_each_record_is_an_allocation_at_each_end_and_no_more() {
    let mut tls = Tls::new();
    let echo = request(C::EchoReq, &[], &[7; 64]);
    let allocations = warm_allocations(|| {
        tls.client.writer().write_all(&echo).unwrap();
        tls.exchange();
        assert_eq!(tls.plaintext.len(), echo.len());
    });
    // The client's two are among them.
    assert_eq!(allocations, 4 * CYCLES);
}

/// A peer that says much and never finishes its handshake must not take memory as it likes.
#[test]
fn a_handshake_that_does_not_end_takes_little_memory() {
    let mut tls = Tls::new();
    let Server { shard, now, .. } = &mut tls.server;
    let origin = Origin { fd: 4, peer: (Ipv4Addr::LOCALHOST, 4002).into(), listener: 0 };
    let (shard, now) = (shard, *now);
    let taken = measure(|| {
        let conn = shard.connect(origin, now).unwrap();
        // A ClientHello of 60 KiB, which the library would wait for, in records of 16 KiB.
        let mut record = vec![22, 3, 1, 0x40, 0];
        record.resize(5 + (16 << 10), 0);
        for first in [true].into_iter().chain(std::iter::repeat_n(false, 1000)) {
            record[5..9].copy_from_slice(if first { &[1, 0, 0xf0, 0] } else { &[0; 4] });
            shard.received(conn, &record, now);
        }
    });
    let (kept, most) = (taken.bytes_current, taken.bytes_max);
    // For a moment its buffer is there twice, as it grows.
    assert!(kept <= 64 << 10 && most <= 96 << 10, "{kept} bytes, {most} for a moment");
}
