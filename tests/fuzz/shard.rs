//! A shard for the fuzz targets: fixed settings in, bytes that it sends out.
//!
//! Knows no packets. Invariant: nothing here depends on anything but the arguments.

use std::net::Ipv4Addr;

use ringgear::engine::glob::Glob;
use ringgear::engine::policy::{Expiry, Policies, Policy, Retries};
use ringgear::engine::{self, ConnId, Now};
use ringgear::shard::{Origin, Service, Settings, Shard};

/// When everything starts.
pub const NOW: Now = Now { mono_ms: 1000, unix_ms: 1_700_000_000_000 };

/// A shard with so much memory.
pub fn new(memory_bytes_max: usize) -> Shard {
    // `f` has a policy, the other functions have none.
    let policy = Policy {
        patterns: vec![Glob::new("f").expect("a glob")],
        retries: Some(Retries::of(2)),
        expiry: Some(Expiry { after_ms: 5000, dead: true }),
        timeout_ms: 2000,
        touch: true,
        ..Policy::default()
    };
    let settings = Settings {
        engine: engine::Settings {
            attempts_max: Some(3),
            policies: Policies(vec![policy]).into(),
            ..engine::Settings::default()
        },
        body_bytes_max: 1 << 20,
        memory_bytes_max,
        outbox_bytes_max: 1 << 20,
        connections_max: 8,
        ..Settings::default()
    };
    Shard::new(settings, NOW)
}

/// One more connection.
pub fn connect(shard: &mut Shard) -> ConnId {
    let origin = Origin { fd: 3, peer: (Ipv4Addr::LOCALHOST, 4001).into(), listener: 0 };
    shard.connect(origin, NOW).expect("there is room")
}

/// All that leaves at the moment, as if every peer read it.
pub fn flush(shard: &mut Shard) -> Vec<(ConnId, Vec<u8>)> {
    let mut out = Vec::new();
    while let Some(conn) = shard.poll_dirty(NOW) {
        let mut bytes = Vec::new();
        while let Some((chunk, _)) = shard.take(conn) {
            bytes.extend_from_slice(chunk.as_ref());
            shard.sent(conn, chunk, NOW);
        }
        out.push((conn, bytes));
    }
    out
}
