//! Packets, shards and engines without sockets, and a client and a worker that call an engine.
#![allow(
    unreachable_pub,
    dead_code,
    clippy::expect_used,
    reason = "each bench is a crate that uses some of it"
)]

use std::net::Ipv4Addr;

use ringgear::engine::{ConnId, Engine, Now, Settings};
use ringgear::shard::{Origin, Service, Shard};
use ringgear::wire::{Command, Magic, Payload, Priority, Submit, encode};

/// The time, which stands still.
pub const NOW: Now = Now { mono_ms: 1000, unix_ms: 1_700_000_000_000 };
pub const CLIENT: ConnId = ConnId::from_number(0);
pub const WORKER: ConnId = ConnId::from_number(1);
pub const FUNCTION: &[u8] = b"resize_image";
pub const UNIQUE: &[u8] = b"unique-key-0001";
pub const HANDLE: &[u8] = b"H:host.example.org:123456";
pub const PAYLOAD: [u8; 64] = [b'x'; 64];

/// A request.
pub fn packet(command: Command, arguments: &[&[u8]], payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&mut bytes, Magic::Request, command, arguments, payload);
    bytes
}

/// A packet of each kind that a job needs: submission, result, grab.
pub fn requests() -> [Vec<u8>; 3] {
    [
        packet(Command::SubmitJob, &[FUNCTION, UNIQUE], &PAYLOAD),
        packet(Command::WorkComplete, &[HANDLE], &PAYLOAD),
        packet(Command::GrabJob, &[], &[]),
    ]
}

/// A connection of a shard.
pub fn connect(shard: &mut Shard) -> ConnId {
    let origin = Origin { fd: 3, peer: (Ipv4Addr::LOCALHOST, 4001).into(), listener: 0 };
    shard.connect(origin, NOW).expect("there is room")
}

/// An engine with so many background jobs, each with a unique key or none.
pub fn filled(depth: u64, has_unique: bool) -> (Engine, Vec<u8>) {
    let mut engine = engine([FUNCTION].into_iter());
    let mut body = Vec::new();
    for number in 0..depth {
        let unique = unique(number);
        submit(&mut engine, &mut body, FUNCTION, if has_unique { &unique } else { b"" });
    }
    assert_eq!(engine.jobs().len() as u64, depth);
    (engine, body)
}

/// Submits a job and does it, as deep as the queue is.
pub fn cycle(engine: &mut Engine, body: &mut Vec<u8>, function: &[u8], unique: &[u8]) {
    submit(engine, body, function, unique);
    assert!(work(engine), "there is a job");
}

/// An engine with a client and a worker that can do the functions.
pub fn engine<'a>(functions: impl Iterator<Item = &'a [u8]>) -> Engine {
    let mut engine = Engine::new(Settings::default(), NOW);
    engine.connect(CLIENT);
    engine.connect(WORKER);
    for function in functions {
        engine.can_do(WORKER, function, 0);
    }
    engine
}

/// Submits a background job; answers with its number.
pub fn submit(engine: &mut Engine, body: &mut Vec<u8>, function: &[u8], unique: &[u8]) -> u64 {
    body.clear();
    for part in [function, &[0], unique, &[0], &PAYLOAD] {
        body.extend_from_slice(part);
    }
    let offset = |at: usize| u16::try_from(at).unwrap_or(u16::MAX);
    let unique_at = function.len() + 1;
    let submission = Submit {
        function,
        unique,
        reducer: &[],
        epoch: None,
        priority: Priority::Normal,
        background: true,
        body: Payload::borrowed(body),
        unique_at: offset(unique_at),
        payload_at: offset(unique_at + unique.len() + 1),
    };
    engine.submit(CLIENT, &submission, 0, usize::MAX, NOW).map_or(0, |accepted| accepted.number)
}

/// Grabs the next job and completes it; answers whether there was one.
pub fn work(engine: &mut Engine) -> bool {
    let Some(id) = engine.grab(WORKER, Priority::Low, NOW) else { return false };
    let number = engine.jobs()[id].number;
    engine.work_complete(WORKER, number, NOW).is_ok()
}

/// A unique key that costs next to nothing to make: 16 letters, one for each half of a byte.
pub fn unique(number: u64) -> [u8; 16] {
    let letters = b"abcdefghijklmnop";
    std::array::from_fn(|at| {
        let half = usize::try_from(number >> (4 * at) & 15).unwrap_or(0);
        letters.get(half).copied().unwrap_or(b'a')
    })
}

/// Whether this is the brief run that shows that everything still works.
pub fn is_quick() -> bool {
    std::env::args().any(|argument| argument == "--quick")
}
