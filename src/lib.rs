//! ringgear: the Gearman job server for Linux hosts that have outgrown `gearmand`.
//!
//! ```text
//! socket ─ io/{uring,epoll} ─▶ inbound ─ frame ─▶ packet ─▶ session ─▶ engine ◀── timer, store
//!                                                                        │ effects
//! socket ◀─ io/{uring,epoll} ◀─ outbox ◀──────────────────── packet ◀────┘
//!                                        (another core: letter ─▶ io/mesh ─▶ its shard)
//! ```
//!
//! Bytes come in, frames are cut, each becomes a borrowed request, the session turns it into an
//! engine command, the engine changes job state and yields effects, effects are encoded straight
//! into outboxes, and after the whole batch the driver flushes each dirty outbox once. `shard`
//! holds one core's sessions, engine and outboxes together and is the only type a driver touches.
//!
//! A function belongs to one core; a packet about another core's travels there as a `letter`, and
//! its reply keeps its place in the outbox meanwhile. A background job of a durable function is
//! handed to the `store`, whose own thread commits it, and is neither run nor answered before.
//!
//! Only `io` and the binary touch the kernel. Time is an argument everywhere else, and random
//! numbers come from the settings, so the same input gives the same output.

pub mod config;

pub mod io;
pub mod shard;

pub mod letter;

pub mod inbound;
pub mod spare;
pub mod urgency;

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
