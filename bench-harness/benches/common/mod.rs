//! An engine without sockets or packets, and a client and a worker who call it.
#![allow(unreachable_pub, dead_code, reason = "each bench is a crate that uses some of it")]

use ringgear::engine::{ConnId, Engine, Now, Outcome, Settings};
use ringgear::wire::{Payload, Priority, Submit};

/// The time, which stands still.
pub const NOW: Now = Now { mono_ms: 1000, unix_ms: 1_700_000_000_000 };
/// Who submits.
pub const CLIENT: ConnId = 0;
/// Who works.
pub const WORKER: ConnId = 1;

const PAYLOAD: [u8; 64] = [b'x'; 64];

/// An engine with a client and a worker who can do the functions.
pub fn engine<'a>(functions: impl Iterator<Item = &'a [u8]>) -> Engine {
    let mut engine = Engine::new(Settings::default(), NOW);
    engine.connect(CLIENT);
    engine.connect(WORKER);
    for function in functions {
        engine.can_do(WORKER, function, 0);
    }
    engine
}

/// Writes the body of a submission: function, unique key, payload.
pub fn write_body(body: &mut Vec<u8>, function: &[u8], unique: &[u8]) {
    body.clear();
    for part in [function, &[0], unique, &[0], &PAYLOAD] {
        body.extend_from_slice(part);
    }
}

/// The submission in a body.
pub fn submission<'a>(body: &'a [u8], function: &'a [u8], unique: &'a [u8]) -> Submit<'a> {
    let unique_at = function.len() + 1;
    let offset = |at: usize| u16::try_from(at).unwrap_or(u16::MAX);
    Submit {
        function,
        unique,
        reducer: &[],
        epoch: None,
        priority: Priority::Normal,
        background: true,
        body: Payload::borrowed(body),
        unique_at: offset(unique_at),
        payload_at: offset(unique_at + unique.len() + 1),
    }
}

/// Submits a background job.
pub fn submit(engine: &mut Engine, body: &mut Vec<u8>, function: &[u8], unique: &[u8]) -> u64 {
    write_body(body, function, unique);
    let submission = submission(body, function, unique);
    engine.submit(CLIENT, &submission, 0, usize::MAX, NOW).map_or(0, |accepted| accepted.number)
}

/// Grabs the next job and completes it; answers whether there was one.
pub fn work(engine: &mut Engine) -> bool {
    let Some(id) = engine.grab(WORKER, Priority::Low, NOW) else { return false };
    let number = engine.jobs()[id as usize].number;
    engine.work_finished(WORKER, number, Outcome::Complete).is_ok()
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
