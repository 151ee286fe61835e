//! The store on PostgreSQL against a real server, started in a temporary folder by each test.
//!
//! Where PostgreSQL isn't installed the tests are skipped with a reason at the end, except under
//! `CI=true`.

// clippy excuses `#[test]` functions only, not what they share.
#![allow(clippy::unwrap_used)]

/// Certificates.
#[path = "../support/authority.rs"]
#[allow(dead_code)]
mod authority;
mod dead;
mod engines;
mod gearmand;
mod handles;
mod owners;
mod proxy;
mod rows;
/// A PostgreSQL server of the tests.
#[path = "../support/postgres.rs"]
#[allow(dead_code)]
mod server;
mod several;
/// What this machine lacks.
#[path = "../server/skips.rs"]
#[allow(dead_code)]
mod skips;
mod tls;
mod trouble;
mod versions;
