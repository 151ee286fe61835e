//! ringgear: the Gearman job server for Linux hosts that have outgrown `gearmand`.
//!
//! ```text
//! socket ─ io/{uring,epoll} ─▶ inbound ─ frame ─▶ packet ─▶ session ─▶ engine ◀── timer
//!                                                                        │ effects
//! socket ◀─ io/{uring,epoll} ◀─ outbox ◀──────────────────── packet ◀────┘
//! ```
//!
//! Bytes come in, frames are cut, each becomes a borrowed request, the session turns it into an
//! engine command, the engine changes job state and yields effects, effects are encoded straight
//! into outboxes, and after the whole batch the driver flushes each dirty outbox once. `shard`
//! holds one core's sessions, engine and outboxes together and is the only type a driver touches.
//!
//! Only `io` and the binary touch the kernel. Time is an argument everywhere else, and random
//! numbers come from the settings, so the same input gives the same output.

pub mod config;

pub mod io;
pub mod shard;

pub mod letter;

pub mod inbound;

pub mod frame;

pub mod packet;

pub mod session;

pub mod admin;

pub mod handle;

pub mod engine;

mod worker;

pub mod function;
pub mod job;

pub mod timer;

pub mod index;
pub mod list;

pub mod store;

pub mod outbox;
