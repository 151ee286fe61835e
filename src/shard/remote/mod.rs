//! What concerns other cores: requests about their functions, connections that move between cores,
//! lists and questions that every core answers a part of.
//!
//! `message` is what travels, `outgoing` what waits to leave, `home` and `owner` the two ends of a
//! request, `migration` and `offload` how connections change their core.
//!
//! Invariant: messages from one core to another arrive in the order in which they were sent.

pub mod message;
pub mod urgency;

pub(in crate::shard) mod fan_out;
mod hand_over;
mod home;
pub(in crate::shard) mod migration;
pub(in crate::shard) mod offload;
pub(in crate::shard) mod outgoing;
mod owner;
pub(in crate::shard) mod state;
mod worker;
