//! The real manager from outside, with real job servers: what becomes of jobs and of processes.
//!
//! Each test starts its own server and manager, on ports that the kernel chose, and waits for what
//! they do. Commands are shell scripts; tests of other people's workers are left out where those
//! aren't installed. Needs `ringgeard` beside the manager: `cargo build -p ringgear`.
//! `MANAGER_JOBS=10000` is how many jobs `many` sends through each mode.

#![allow(clippy::unwrap_used, reason = "what can't be unwrapped has failed the test")]

mod cancelled;
mod client;
mod drained;
mod environment;
mod examples;
mod exec;
mod ill_behaved;
mod killed;
mod lines;
mod manager;
mod many;
mod observed;
mod options;
mod photo;
mod processes;
mod rehearsal;
mod replaced;
mod server;
mod servers;
mod workers;

/// Certificates.
#[path = "../../../tests/support/authority.rs"]
#[allow(dead_code)]
mod authority;
/// Programs that are started.
#[path = "../../../tests/support/child.rs"]
#[allow(dead_code)]
mod child;
/// Packets as the server's own tests cut them.
#[path = "../../../tests/server/conn.rs"]
#[allow(dead_code)]
mod conn;
/// What this machine lacks.
#[path = "../../../tests/server/skips.rs"]
#[allow(dead_code)]
mod skips;
