//! What a connection's requests and text lines mean: commands to the engine, replies to the outbox.
//!
//! `session` is the binary protocol, `admin` the text protocol. Knows no sockets and no other core.
//!
//! Invariant: every request has its reply, or its place in the outbox, when its handler returns.

pub mod access;
pub mod admin;
pub mod session;
