//! A job server as its clients see it: a process, sockets, bytes.
//!
//! Every test runs against each contender: `ringgeard` once per driver, and Debian's `gearmand`, which
//! proves the test itself. What isn't installed is skipped with a reason, except under `CI=true`.
//!
//! One case of the transcripts: `CASE='worker loss' cargo test --test server transcripts`.
//! Another server binary: `RINGGEARD=/path/to/ringgeard cargo test --test server`.

mod contender;
mod pattern;
mod script;
mod tools;
mod transcripts;
mod wire;

mod interop_bulk;
mod interop_cli;
mod interop_perl;
mod interop_php;
mod interop_python;
mod process;
