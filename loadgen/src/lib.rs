//! loadgen: thousands of Gearman clients and workers from a few threads, every answer checked.
//!
//! ```text
//! options ─▶ run ─┬─▶ thread: tls, connection ─ client, worker ─▶ recorder ─▶ counts ─┐
//!                 └─▶ limits, spawn, server_stats ────────────────────────▶ report ◀──┘
//! ```
//!
//! In: options. Out: a report of what the server did, and whether it did all of it right.
//! `client` and `worker` are the two sides of the protocol without sockets or clocks; `thread` is
//! the one event loop that moves their bytes.

pub mod checker;
pub mod distributions;
pub mod options;
pub mod payload;
pub mod report;
pub mod units;

mod client;
mod clock;
mod connection;
mod counts;
mod error;
mod limits;
mod plan;
mod progress;
mod recorder;
mod run;
mod server_stats;
mod shared;
mod spawn;
mod thread;
mod tls;
mod worker;
mod writes;

pub use error::Error;
pub use run::{run, run_observed};
pub use shared::LiveCounts;
