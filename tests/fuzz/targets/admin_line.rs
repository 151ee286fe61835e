//! Any admin lines, to a shard with a few jobs and workers in it.
//!
//! Invariant: no panic, and every line has an answer that ends with a line end, or the connection
//! closes.
#![no_main]

use libfuzzer_sys::fuzz_target;
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
