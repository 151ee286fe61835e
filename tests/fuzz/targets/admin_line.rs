//! Any admin lines, to a shard with a few jobs and workers in it.
//!
//! Invariant: no panic, and every line has an answer that ends with a line end, or the connection
//! closes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgear::engine::handle::{job_number, slot, Handles};
use ringgear::engine::Now;
use ringgear::wire::{encode, Command, Magic};
use ringgear::shard::{Intake, Service};

#[path = "../shard.rs"]
mod shard;

use shard::NOW;

fuzz_target!(|lines: &[u8]| {
    let mut shard = shard::new(1 << 20);
    let (peer, admin) = (shard::connect(&mut shard), shard::connect(&mut shard));
    let mut bytes = Vec::new();
    for function in [&b"f"[..], b"F", b"g"] {
        encode(&mut bytes, Magic::Request, Command::SubmitJob, &[function, b"u"], b"payload");
    }
    encode(&mut bytes, Magic::Request, Command::CanDo, &[b"f"], &[]);
    encode(&mut bytes, Magic::Request, Command::GrabJob, &[], &[]);
    shard.received(peer, &bytes, NOW);
    shard::flush(&mut shard);
    // One job of `f` is dead, as it expired, and another is to be run again.
    let late = Now { mono_ms: NOW.mono_ms + 5000, unix_ms: NOW.unix_ms + 5000 };
    let submission = |unique: &[u8]| {
        let mut bytes = Vec::new();
        encode(&mut bytes, Magic::Request, Command::SubmitJobBg, &[b"f", unique], b"payload");
        bytes
    };
    shard.received(peer, &submission(b"v"), NOW);
    shard.tick(late);
    // The first job of `f` has timed out meanwhile, and is at the head of the queue.
    bytes = submission(b"w");
    for _ in 0..2 {
        encode(&mut bytes, Magic::Request, Command::GrabJob, &[], &[]);
    }
    let handle = Handles::default().text(job_number(5, slot(b"f")));
    encode(&mut bytes, Magic::Request, Command::WorkFail, &[handle.as_ref()], &[]);
    shard.received(peer, &bytes, late);
    shard::flush(&mut shard);
    assert_eq!((shard.engine().dead().len(), shard.engine().all_gauges().retrying), (1, 1));
    for line in lines.split_inclusive(|&byte| byte == b'\n').filter(|line| line[0] != 0) {
        if shard.intake(admin) != Intake::Read {
            return;
        }
        shard.received(admin, line, NOW);
        let out = shard::flush(&mut shard);
        let answered = out.iter().any(|(conn, bytes)| *conn == admin && bytes.ends_with(b"\n"));
        assert!(answered || !line.ends_with(b"\n") || shard.intake(admin) == Intake::Close);
        shard.engine().check_invariants();
    }
});
