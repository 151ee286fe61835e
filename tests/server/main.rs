//! Tests against real server processes over real sockets: every ringgear driver, and Debian's
//! gearmand where the behaviours agree. One binary, so that it is linked once.
//!
//! What isn't installed is skipped with a reason at the end, except under `CI=true`.
//! Some cases: `CASE="a worker's end" cargo test --test server transcripts`.

mod access;
mod conn;
mod crash;
mod draining;
mod durable;
mod failed_jobs;
mod functions;
mod harness;
mod http;
mod http_api;
mod http_submit;
mod limits;
mod listening;
mod log_level;
mod lost_hosts;
mod metrics;
mod moving;
mod pattern;
mod pauses;
mod quick_acks;
mod script;
mod skips;
mod stopping;
mod tls;
mod tools;
mod transcripts;
mod wire;

mod interop_bulk;
mod interop_cli;
mod interop_perl;
mod interop_php;
mod interop_python;
mod process;

/// Certificates.
#[path = "../support/authority.rs"]
#[allow(dead_code, clippy::unwrap_used)]
mod authority;
/// Programs that are started.
#[path = "../support/child.rs"]
mod child;
/// PostgreSQL as the store's own tests start it, which need more of it than these do.
#[path = "../support/postgres.rs"]
#[allow(dead_code, clippy::unwrap_used)]
mod postgresql;
