//! ringgear: the Gearman job server for Linux hosts that have outgrown `gearmand`.
//!
//! ```text
//!              io            shard        wire              protocol         engine
//! socket ─▶ driver ─ bytes ─▶ Shard ─▶ inbound, frame ─▶ session, admin ─▶ jobs, workers ◀─ store
//!                               │                                             │ effects
//! socket ◀─ driver ◀─ chunks ─ outbox ◀───────────────── response ◀───────────┘
//!                               │
//!                   another core: shard/remote ─ message ─▶ io/cores/mesh ─▶ its shard
//! ```
//!
//! Bytes come in, frames are cut, each becomes a borrowed request, the session turns it into an
//! engine command, the engine changes job state and yields effects, effects are encoded straight
//! into outboxes, and after the whole batch the driver flushes each dirty outbox once. `shard`
//! holds one core's sessions, engine and outboxes together and is what the drivers run.
//!
//! A function belongs to one core; a packet about another core's travels there as a message, and
//! its reply keeps its place in the outbox meanwhile. A background job of a durable function is
//! handed to the `store`, whose own thread commits it, and is neither run nor answered before.
//!
//! A room never imports a room below it in this list. `io`, `store`, `ops` and the binary touch
//! the kernel. Time is an argument elsewhere, and random numbers come from the settings, so the
//! same input gives the same output. `ops` serves HTTP on a thread of its own, and asks the cores
//! by messages.

pub mod wire;

pub mod engine;

pub mod cluster;

pub mod protocol;

pub mod store;

pub mod shard;

pub mod io;

pub mod ops;

pub mod config;
