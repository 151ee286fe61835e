//! The two protocols: requests and text lines in, commands to the engine and replies out.
//!
//! `session` is the binary protocol, `admin` the text protocol. Knows no sockets and no other core.
//!
//! Invariant: when its handler returns, a request has its reply or a slot for it in the outbox.

pub mod access;
pub mod address;
pub mod admin;
pub mod duration;
pub mod log_level;
pub mod peer_address;
pub mod session;
pub mod size;
pub mod toml_tables;
pub mod toml_values;
